// Parser of the disk source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kDiskFields = 17;
inline constexpr std::size_t kDiskNameBytes = 64;  // DISK_NAME_LEN is 32

struct DiskLine {
    std::string_view name;  // raw bytes, into the parsed text
    std::array<std::uint64_t, kDiskFields> values{};
    std::size_t fields = 0;  // 11; 15 since Linux 4.18 (discards); 17 since 5.5 (flushes)
};

// One line of /proc/diskstats: major, minor, name and 11, 15 or 17 numbers; what a later kernel may append is ignored.
[[nodiscard]] Result<DiskLine> parse_disk(std::string_view line);

// By the kernel's naming alone, for where sysfs cannot be asked: sda1, nvme0n1p2, mmcblk0p1.
[[nodiscard]] bool named_as_partition(std::string_view name) noexcept;

// Devices that exist by the dozen whether used or not: loop, ram, zram, nbd, fd, sr.
[[nodiscard]] bool named_as_spare(std::string_view name) noexcept;

}  // namespace argus::sources
