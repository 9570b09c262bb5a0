// Parsers of the cpu source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kCpuModes = 10;
inline constexpr std::size_t kSoftirqs = 10;
inline constexpr std::int32_t kMaxCpus = 8192;  // NR_CPUS of the largest kernels

// "0-3,5,8-9": processor numbers, ascending. False, and `out` empty, when the text is anything else, is empty or names
// a processor beyond kMaxCpus.
[[nodiscard]] bool parse_cpu_list(std::string_view text, std::vector<std::int32_t>& out);

struct CpuTicks {
    std::int32_t cpu = -1;    // -1 = all of them
    std::uint32_t modes = 0;  // how many of `ticks` the kernel printed
    std::array<std::uint64_t, kCpuModes> ticks{};
};

struct CpuStat {
    enum Scalar : std::uint8_t { interrupts, context_switches, boot_time, created, running, blocked, scalars_ };

    std::vector<CpuTicks> cpus;  // keeps its memory between parses
    std::array<std::uint64_t, scalars_> scalars{};
    std::uint32_t seen = 0;  // bit per Scalar
    std::array<std::uint64_t, kSoftirqs> softirqs{};
    std::uint32_t softirq_count = 0;
    std::uint32_t malformed = 0;  // lines skipped
    bool cut = false;             // the last line has no end: what followed it is unknown
};

struct LoadAverage {
    double load_1m = 0, load_5m = 0, load_15m = 0;
    std::uint64_t runnable = 0, threads = 0;
};

// /proc/stat. Errc::malformed when it holds no cpu line at all.
[[nodiscard]] Result<bool> parse_stat(std::string_view text, CpuStat& out);
[[nodiscard]] Result<LoadAverage> parse_loadavg(std::string_view text);
[[nodiscard]] Result<double> parse_uptime(std::string_view text);  // seconds since boot

}  // namespace argus::sources
