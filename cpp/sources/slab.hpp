// Parser of the slab source, pure, for tests and fuzzers.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace argus::sources {

struct SlabCache {
    std::string_view name;    // raw bytes, into the parsed text
    std::uint64_t pages = 0;  // slabs times the pages of each
};

// One line of /proc/slabinfo after its two titles.
[[nodiscard]] Result<SlabCache> parse_slab(std::string_view line);

}  // namespace argus::sources
