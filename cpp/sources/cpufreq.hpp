// Parsers of the cpufreq source, pure, for tests and fuzzers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace argus::sources {

struct CpuClock {
    std::int32_t cpu = 0;
    double hertz = 0;
};

// "processor : 0" and "cpu MHz : 2499.974" of /proc/cpuinfo (x86). Returns how many lines do not follow the format.
[[nodiscard]] std::uint32_t parse_cpu_clocks(std::string_view text, std::vector<CpuClock>& out);

}  // namespace argus::sources
