// Parsers of the numa source, pure, for tests and fuzzers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "sources/memory.hpp"

namespace argus::sources {

inline constexpr std::uint32_t kMaxNodes = 256;  // the kernel's MAX_NUMNODES is 1,024 at most, 64 as distributed

// "0-1,4": ascending numbers and ranges with a newline at the end. False when it is anything else, or names a node
// beyond kMaxNodes; `nodes` is replaced either way.
[[nodiscard]] bool parse_node_list(std::string_view text, std::vector<std::uint32_t>& nodes);

[[nodiscard]] const KeyTable& numastat_keys();
[[nodiscard]] const KeyTable& node_meminfo_keys();

}  // namespace argus::sources
