// Folders and one-value files of sysfs and procfs, for what is looked up at start and at hot-plug, or read rarely: each
// call opens, reads and closes. What is read at every poll is a KernelFile.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/io.hpp"
#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kMaxEntries = 65'536;  // of one folder
inline constexpr std::size_t kMaxValueBytes = 4096;

// The names in a folder, sorted, without those that begin with a dot; `names` is replaced. Errc::unavailable when there
// is no such folder, Errc::limit when it holds more than kMaxEntries.
[[nodiscard]] Result<bool> list_folder(const Io& io, const std::string& path, const char* what,
                                       std::vector<std::string>& names);

// The text of a small file without trailing blanks and newlines; nothing when it cannot be read or is longer than
// kMaxValueBytes. Never blocks: a FIFO gives nothing.
[[nodiscard]] std::optional<std::string> read_value(const Io& io, const std::string& path);

// The same as a decimal number that is the whole text.
[[nodiscard]] std::optional<std::int64_t> read_signed(const Io& io, const std::string& path);
[[nodiscard]] std::optional<std::uint64_t> read_unsigned(const Io& io, const std::string& path);

}  // namespace argus::sources
