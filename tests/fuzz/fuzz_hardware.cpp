// Files of the kernel, cpufreq, interrupts, hwmon and gpu sources: the first byte chooses the parser, the rest is its
// text.
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "sources/cpu.hpp"
#include "sources/cpufreq.hpp"
#include "sources/gpu.hpp"
#include "sources/hwmon.hpp"
#include "sources/interrupts.hpp"
#include "sources/kernel.hpp"
#include "sources/text.hpp"
#include "sources/thermal.hpp"

namespace {

using namespace argus::sources;

void must(bool condition) {
    if (!condition) std::abort();
}

void interrupts(std::string_view text) {
    static std::vector<std::int32_t> cpus;
    Scanner scanner(text);
    std::string_view line;
    if (!scanner.line(line) || !parse_cpu_titles(line, cpus)) return;
    must(!cpus.empty() && cpus.size() <= static_cast<std::size_t>(kMaxIrqCpus));
    while (scanner.line(line)) {
        IrqLine parsed;
        if (!parse_irq_line(line, cpus.size(), parsed)) continue;
        must(!parsed.name.empty() && parsed.name.size() <= kIrqNameBytes && parsed.device.size() <= kIrqDeviceBytes);
        must(parsed.counts || parsed.total == 0);
    }
}

void cpufreq(std::string_view text) {
    static std::vector<std::int32_t> cpus;
    static std::vector<CpuClock> clocks;
    must(parse_cpu_list(text, cpus) == !cpus.empty());
    for (std::size_t i = 0; i < cpus.size(); ++i) must(cpus[i] < kMaxCpus && (i == 0 || cpus[i] > cpus[i - 1]));
    (void)parse_cpu_clocks(text, clocks);
    std::int32_t last = -1;
    for (const CpuClock& clock : clocks) {
        must(clock.cpu > last && clock.cpu < kMaxCpus && std::isfinite(clock.hertz) && clock.hertz > 0);
        last = clock.cpu;
    }
}

void sensors(std::string_view text) {
    SensorFile file;
    if (parse_sensor_file(text, file)) must(file.number <= 9999);
    for (const char c : attribute_value(text)) must(c > 0x20 && c < 0x7F && c != ',' && c != '=');
    EnergyCounter counter;
    std::uint64_t total = 0;
    for (const char c : text) {  // whatever the readings, the counter only grows
        const std::uint64_t next = counter.advance(static_cast<unsigned char>(c), 200);
        must(next >= total);
        total = next;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    std::array<std::uint64_t, 5> numbers{};
    RasCounts counts;
    switch (data[0] % 5) {
        case 0: interrupts(text); break;
        case 1: cpufreq(text); break;
        case 2: sensors(text); break;
        case 3: (void)parse_numbers(text, numbers); break;
        default:
            (void)parse_ras_counts(text, counts);
            must(parse_pci_slot(text).size() <= 32);
            break;
    }
    return 0;
}
