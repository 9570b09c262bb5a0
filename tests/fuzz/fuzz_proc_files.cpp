// The other files of /proc: the first byte chooses the parser, the rest is its text.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "sources/cpu.hpp"
#include "sources/memory.hpp"
#include "sources/network.hpp"
#include "sources/pressure.hpp"
#include "sources/processes/processes.hpp"
#include "sources/text.hpp"

namespace {

using namespace argus::sources;

void must(bool condition) {
    if (!condition) std::abort();
}

void cpu(std::string_view text) {
    static CpuStat stat;
    (void)parse_stat(text, stat);
    must(stat.cpus.size() <= static_cast<std::size_t>(kMaxCpus) + 1 && stat.softirq_count <= kSoftirqs);
    for (const CpuTicks& line : stat.cpus) must(line.cpu >= -1 && line.cpu < kMaxCpus && line.modes <= kCpuModes);
    const auto load = parse_loadavg(text);
    if (load) must(std::isfinite((*load).load_1m) && (*load).load_1m >= 0);
    const auto uptime = parse_uptime(text);
    if (uptime) must(std::isfinite(*uptime) && *uptime >= 0);
}

void network(std::string_view text) {
    Scanner scanner(skip_titles(text));
    std::string_view line;
    while (scanner.line(line)) {
        const auto link = parse_link(line);
        if (!link) continue;
        must(!(*link).name.empty() && (*link).name.size() <= kLinkNameBytes);
        for (const char c : attribute_value((*link).name)) must(c > 0x20 && c < 0x7F && c != ',' && c != '=');
    }
}

void pressure(std::string_view text) {
    for (const PressureLine& line : parse_pressure(text).lines) {
        for (const double share : line.average) must(share >= 0 && share <= 1);
    }
}

// What was learned of other texts changes nothing.
void keyed(std::string_view text, const KeyTable& keys) {
    KeyedLines lines;
    for (const std::string_view part : {text, text.substr(0, text.size() / 2), text.substr(text.size() / 2), text}) {
        KeyedValues alone;
        KeyedValues learned;
        parse_keyed(part, keys, alone);
        parse_keyed(part, keys, learned, {}, &lines);
        must(alone.seen == learned.seen && alone.malformed == learned.malformed && alone.values == learned.values);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    ProcessMemory memory;
    ProcessIo io;
    ProcessStatus status;
    ProcessSchedule schedule;
    switch (data[0] % 9) {
        case 0: cpu(text); break;
        case 1: keyed(text, meminfo_keys()); break;
        case 2: keyed(text, vmstat_keys()); break;
        case 3: network(text); break;
        case 4: pressure(text); break;
        case 5: (void)parse_process_memory(text, memory); break;
        case 6: (void)parse_process_io(text, io); break;
        case 7: must(!parse_process_status(text, status) || status.uid >= 0); break;
        default: (void)parse_process_schedule(text, schedule); break;
    }
    return 0;
}
