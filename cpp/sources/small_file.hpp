// Files of one short value that are many and read rarely: opened, read and closed each time, so that no descriptor is
// kept for each of hundreds of sensors or processors. Nothing here allocates, blocks or throws.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/io.hpp"

namespace argus::sources {

struct SmallText {
    static constexpr std::size_t kCapBytes = 256;
    std::array<char, kCapBytes> bytes{};
    std::size_t size = 0;

    [[nodiscard]] std::string_view view() const noexcept { return {bytes.data(), size}; }
};

// The text without trailing blanks and newlines. 0 or -errno; -EFBIG when it is longer than kCapBytes.
[[nodiscard]] int read_small(const Io& io, const char* path, SmallText& out) noexcept;

// Whether there is such a file, readable or not. It is opened, not read: reading may wake a sleeping device.
[[nodiscard]] bool file_exists(const Io& io, const char* path) noexcept;

// A decimal number that is the whole text; nothing when the file cannot be read or says something else.
[[nodiscard]] std::optional<std::int64_t> small_signed(const Io& io, const char* path) noexcept;
[[nodiscard]] std::optional<std::uint64_t> small_unsigned(const Io& io, const char* path) noexcept;

// A mark of what is in a folder: it changes when an entry appears, vanishes or is replaced. 0 = no such folder.
[[nodiscard]] std::uint64_t folder_mark(const Io& io, const char* path) noexcept;

// How many entries a folder has, without those that begin with a dot; nothing when it cannot be read.
[[nodiscard]] std::optional<std::uint64_t> count_entries(const Io& io, const char* path) noexcept;

}  // namespace argus::sources
