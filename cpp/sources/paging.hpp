// Parser of the paging source, pure, for tests and fuzzers.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace argus::sources {

struct SwapLine {
    std::string_view file;  // as escaped by the kernel, into the parsed text
    std::uint64_t size_bytes = 0;
    std::uint64_t used_bytes = 0;  // at most size_bytes
};

// One line of /proc/swaps after its title: file, type, size and used in KiB, priority.
[[nodiscard]] Result<SwapLine> parse_swap(std::string_view line);

}  // namespace argus::sources
