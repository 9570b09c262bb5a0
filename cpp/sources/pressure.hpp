// Parser of the pressure source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace argus::sources {

struct PressureLine {
    bool present = false;
    std::array<double, 3> average{};  // share of the last 10, 60, 300 s, 0 to 1
    std::uint64_t total_us = 0;
};

struct Pressure {
    std::array<PressureLine, 2> lines;  // some, full
    std::uint32_t malformed = 0;        // lines skipped
};

[[nodiscard]] Pressure parse_pressure(std::string_view text);

}  // namespace argus::sources
