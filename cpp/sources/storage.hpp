// Parsers of the storage source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace argus::sources {

inline constexpr std::size_t kMaxArrays = 256;

struct MdArray {
    std::string_view name;         // raw bytes, into the parsed text
    bool up = false;               // runs, and is not broken
    bool container = false;        // of external metadata: holds disks for other arrays and never runs itself
    std::uint32_t active = 0;      // members in sync
    std::uint32_t failed = 0;      // (F)
    std::uint32_t spare = 0;       // (S)
    std::uint32_t down = 0;        // places without a member in sync, '_' in [UU_]
    std::uint32_t degraded = 0;    // members missing of those it is made for, [3/2]
    std::string_view sync_action;  // "recovery", "resync", "check", "reshape", "repair"; empty = none going on
    double sync_progress = 0;      // share done, 0 to 1
};

struct MdReport {
    std::uint32_t malformed = 0;  // lines that do not follow the format; those that say nothing of MdArray are no fault
    bool complete = false;        // the last line was there: arrays that are not listed do not exist
};

// The arrays of /proc/mdstat; `arrays` is replaced. Of a text that was cut, not the last one: the cut may be inside it.
[[nodiscard]] MdReport parse_mdstat(std::string_view text, std::vector<MdArray>& arrays);

// original, compressed and used bytes: the first three of the numbers in a zram's mm_stat.
[[nodiscard]] std::optional<std::array<std::uint64_t, 3>> parse_zram(std::string_view text) noexcept;

// A SCSI disk's "running" and an NVMe controller's "live" are 1, any other word is 0; nothing when there is no word.
[[nodiscard]] std::optional<double> parse_device_state(std::string_view text) noexcept;

// "0x1f" and its newline.
[[nodiscard]] std::optional<std::uint64_t> parse_hexadecimal_line(std::string_view text) noexcept;

}  // namespace argus::sources
