// Parsers of the kernel source, pure, for tests and fuzzers.
#pragma once

#include <sys/timex.h>

#include <cstdint>
#include <span>
#include <string_view>

namespace argus::sources {

// As many unsigned numbers as `out` has places, from one whole line; more on it are left alone. A line without its end
// was cut, perhaps inside a number: false.
[[nodiscard]] bool parse_numbers(std::string_view text, std::span<std::uint64_t> out) noexcept;

struct ClockState {
    bool synchronized = false;
    double offset_s = 0;           // what the kernel still has to correct
    double error_estimated_s = 0;  // of the clock, as its discipline sees it
    double error_maximum_s = 0;
    double frequency = 0;          // correction of the rate: 1e-6 = one part per million
};

// What adjtimex(2) said; `state` is what it returned.
[[nodiscard]] ClockState clock_state(const timex& reply, int state) noexcept;

}  // namespace argus::sources
