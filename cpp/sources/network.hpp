// Parser of the network source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kLinkCounters = 16;
inline constexpr std::size_t kLinkNameBytes = 64;  // IFNAMSIZ is 16; more than that is another file

struct LinkCounters {
    std::string_view name;  // raw bytes, into the parsed text
    std::array<std::uint64_t, kLinkCounters> values{};
};

// One data line of /proc/net/dev. The name ends at the LAST colon, so "eth0:123" (glued) and "eth0:1: 123" (alias)
// work.
[[nodiscard]] Result<LinkCounters> parse_link(std::string_view line);

// The text after the two title lines; empty when there are none.
[[nodiscard]] std::string_view skip_titles(std::string_view text) noexcept;

}  // namespace argus::sources
