// Parser of the softnet source, pure, for tests and fuzzers.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kSoftnetCounters = 5;

struct SoftnetLine {
    std::optional<std::uint32_t> cpu;  // Linux >= 5.10 prints it
    std::uint64_t values[kSoftnetCounters] = {};  // processed, dropped, squeezed, received_rps, flow_limited
    std::uint32_t counters = 0;        // how many of `values` the kernel printed
    std::optional<std::uint64_t> backlog;
};

// One line of /proc/net/softnet_stat: 9 to 32 hexadecimal words.
[[nodiscard]] Result<SoftnetLine> parse_softnet(std::string_view line);

}  // namespace argus::sources
