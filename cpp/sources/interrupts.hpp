// Parsers of the interrupts source, pure, for tests and fuzzers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace argus::sources {

inline constexpr std::size_t kIrqNameBytes = 16;
inline constexpr std::size_t kIrqDeviceBytes = 256;  // a shared line names all its devices
inline constexpr std::int32_t kMaxIrqCpus = 8192;    // NR_CPUS of the largest kernels

// The title line "CPU0 CPU2 ...": the numbers of the processors whose columns follow. False when it holds anything else
// or none.
[[nodiscard]] bool parse_cpu_titles(std::string_view line, std::vector<std::int32_t>& out);

struct IrqLine {
    std::string_view name;    // "24", "LOC"
    std::string_view device;  // "virtio0-config"; empty = the line names none
    std::uint64_t total = 0;  // over all columns; stays at 2^64-1 rather than wrap
    bool counts = false;      // false = a line of words only, such as ARM's "FIQ:"
};

// One line of /proc/interrupts or /proc/softirqs under `cpus` columns. A line holds a number for each, or a single one
// (ERR, MIS). False when it holds another count of numbers or no name.
[[nodiscard]] bool parse_irq_line(std::string_view line, std::size_t cpus, IrqLine& out) noexcept;

}  // namespace argus::sources
