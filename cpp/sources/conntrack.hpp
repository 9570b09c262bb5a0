// Parser of the conntrack source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kMaxConntrackColumns = 32;

// /proc/net/stat/nf_conntrack: a line of names, then a line of hexadecimal numbers for each processor.
struct ConntrackStat {
    std::array<std::string_view, kMaxConntrackColumns> names;   // into the parsed text
    std::array<std::uint64_t, kMaxConntrackColumns> sums{};     // over the processors
    std::size_t columns = 0;
    std::uint32_t malformed = 0;  // lines skipped; the sums lack them
};

// Errc::malformed when there is no line of names. A line of another count of numbers than of names is skipped.
[[nodiscard]] Result<bool> parse_conntrack(std::string_view text, ConntrackStat& out);

}  // namespace argus::sources
