// Folders and one-value files of sysfs and procfs, for what is looked up at start and at hot-plug, or is many and read
// rarely: each call opens, reads and closes, so that no descriptor is kept for each of hundreds of sensors. What is
// read at every poll is a KernelFile. None of the files is waited for: a FIFO gives nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.hpp"
#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kMaxEntries = 65'536;  // of one folder
inline constexpr std::size_t kMaxValueBytes = 4096;

struct SmallText {
    static constexpr std::size_t kCapBytes = 256;
    std::array<char, kCapBytes> bytes{};
    std::size_t size = 0;

    [[nodiscard]] std::string_view view() const noexcept { return {bytes.data(), size}; }
};

// The text of a file without trailing blanks and newlines. 0 or -errno; -EFBIG, with its beginning, when it
// fills kCapBytes. Allocates nothing, as all that follows up to list_folder.
[[nodiscard]] int read_small(const Io& io, const std::string& path, SmallText& out) noexcept;

// A decimal number that is the whole text; nothing when the file cannot be read or says something else.
[[nodiscard]] std::optional<std::int64_t> read_signed(const Io& io, const std::string& path) noexcept;
[[nodiscard]] std::optional<std::uint64_t> read_unsigned(const Io& io, const std::string& path) noexcept;

// Whether there is such a file, readable or not. It is opened, not read: reading may wake a sleeping device.
[[nodiscard]] bool file_exists(const Io& io, const std::string& path) noexcept;

// A mark of what is in a folder: it changes when an entry appears, vanishes or is replaced. 0 = no such folder.
[[nodiscard]] std::uint64_t folder_mark(const Io& io, const std::string& path) noexcept;

// How many entries a folder has, without those that begin with a dot; nothing when it cannot be read.
[[nodiscard]] std::optional<std::uint64_t> count_entries(const Io& io, const std::string& path) noexcept;

// The names in a folder, sorted, without those that begin with a dot; `names` is replaced. Errc::unavailable when there
// is no such folder, Errc::limit when it holds more than kMaxEntries.
[[nodiscard]] Result<bool> list_folder(const Io& io, const std::string& path, const char* what,
                                       std::vector<std::string>& names);

// As read_small, of up to kMaxValueBytes; nothing when it cannot be read or is longer.
[[nodiscard]] std::optional<std::string> read_value(const Io& io, const std::string& path);

// What a link points to, by its last name; empty when there is no such link. sysfs says so which device is meant:
// class/hwmon/hwmon0/device -> ../../../coretemp.0.
[[nodiscard]] std::string link_name(const std::string& path);

}  // namespace argus::sources
