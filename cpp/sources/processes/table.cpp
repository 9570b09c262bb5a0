// The table itself: its columns and their room.
#include <algorithm>

#include "sources/processes/processes.hpp"

namespace argus::sources {
namespace {

constexpr ColumnInfo kColumns[kProcessColumns] = {
    {"cpu_user_s", "s", "processor time in user mode since start, all threads"},
    {"cpu_system_s", "s", "processor time in kernel mode since start, all threads"},
    {"cpu_utilization", "1", "processors used since the previous read; NaN at first sight"},
    {"rss_bytes", "By", "resident memory; tier bpf: as of the processors' last handing over, a few hundred KiB each"},
    {"virtual_bytes", "By", "address space"},
    {"shared_bytes", "By", "resident memory backed by files or shared memory"},
    {"minor_faults", "{fault}", "page faults served without reading a disk"},
    {"major_faults", "{fault}", "page faults that read a disk"},
    {"read_bytes", "By", "bytes read from storage"},
    {"write_bytes", "By", "bytes written to storage"},
    {"read_chars", "By", "bytes read by system calls, also from caches and pipes"},
    {"write_chars", "By", "bytes written by system calls"},
    {"voluntary_switches", "{switch}",
     "context switches that gave the processor up: of all threads in tier bpf, of the main thread in the others"},
    {"involuntary_switches", "{switch}",
     "context switches by preemption: of all threads in tier bpf, of the main thread in the others"},
    {"run_delay_s", "s",
     "time ready and waiting for a processor: of all live threads in tier bpf, of the main thread in the others"},
    {"rss_anon_bytes", "By", "resident memory that no file backs"},
    {"rss_file_bytes", "By", "resident memory of mapped files"},
    {"rss_shmem_bytes", "By", "resident shared memory"},
    {"swap_bytes", "By", "memory swapped out"},
};

}  // namespace

std::span<const ColumnInfo, kProcessColumns> process_columns() noexcept { return kColumns; }

const char* to_string(Tier tier) noexcept {
    switch (tier) {
        case Tier::bpf: return "bpf";
        case Tier::taskstats: return "taskstats";
        case Tier::gated: return "gated";
        case Tier::tree: return "tree";
    }
    return "unknown";
}

void ProcessTable::reserve_rows(std::size_t rows) {
    if (rows <= pid.size()) return;
    const std::size_t size = std::max<std::size_t>(256, rows + rows / 4);
    pid.resize(size);
    ppid.resize(size);
    start_time_ns.resize(size);
    name.resize(size);
    state.resize(size);
    uid.resize(size);
    threads.resize(size);
    nice.resize(size);
    last_cpu.resize(size);
    cgroup_id.resize(size);
    valid.resize(size);
    for (auto& values : columns) values.resize(size);
}

}  // namespace argus::sources
