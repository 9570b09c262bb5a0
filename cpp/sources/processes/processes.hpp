// The process table: the newest values of every process, as columns. It is read by one of four tiers, the best that works
// here (see scanner.hpp): `bpf` one system call for all, `taskstats` and `gated` the files of processes that ran, `tree` a
// walk of the proc tree that works for any user, on any proc root and on fixture trees. All give the same numbers.
// Source: /proc/PID/{stat,statm,schedstat,io,status}; man proc_pid_stat(5) and relatives, kernel
// Documentation/filesystems/proc.rst.
// Identity of a process is (pid, start time): a reused pid is another process. Names are raw, untrusted bytes.
// What could not be read (no permission, no such file in this kernel) is NaN with its validity bit cleared, never 0.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/io.hpp"
#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kProcessNameBytes = 64;  // TASK_COMM_LEN is 16, kernel workers print up to 64

// Field groups, one bit each in ProcessTable::valid.
enum ProcessValid : std::uint32_t {
    kValidStat = 1,          // ids, state, cpu time, faults, threads: always set
    kValidMemory = 2,        // statm
    kValidIo = 4,            // io: owner or CAP_SYS_PTRACE only
    kValidStatus = 8,        // status: uid and context switches
    kValidSchedule = 16,     // schedstat: run delay (CONFIG_SCHED_INFO)
    kValidUtilization = 32,  // seen twice
    kValidKinds = 64,        // memory by kind; a process without an address space has none
    kValidCgroup = 128,      // tier `bpf` only
};

// Numeric columns, float64, base units; NaN = not observed.
enum class ProcessColumn : std::uint8_t {
    cpu_user, cpu_system, cpu_utilization,
    rss, virtual_, shared,
    minor_faults, major_faults,
    read_bytes, write_bytes, read_chars, write_chars,
    voluntary_switches, involuntary_switches, run_delay,
    rss_anon, rss_file, rss_shmem, swap,
    count_,
};
inline constexpr auto kProcessColumns = static_cast<std::size_t>(ProcessColumn::count_);

struct ColumnInfo {
    const char* name;
    const char* unit;
    const char* documentation;
};
[[nodiscard]] std::span<const ColumnInfo, kProcessColumns> process_columns() noexcept;

struct ProcessTable {
    Nanos time = 0;             // Clock::mono() when the scan began
    Nanos wall = 0;             // Clock::wall() then
    std::size_t count = 0;      // rows; every column holds at least as many
    std::uint32_t vanished = 0;   // listed, gone before they were read
    std::uint32_t unreadable = 0; // skipped: their stat may not be read (hidepid), or no descriptor was left (EMFILE)
    std::uint32_t malformed = 0;  // skipped: their stat does not follow the documented format
    std::uint32_t gated = 0;      // rows proved not to have run since the scan before
    std::vector<std::int32_t> pid, ppid;       // ppid of the tree that was read
    std::vector<std::int64_t> start_time_ns;   // since boot
    std::vector<std::array<char, kProcessNameBytes>> name;  // zero-padded
    std::vector<char> state;                   // R S D T t Z X I P
    std::vector<std::int64_t> uid;             // real user id, -1 = not observed
    std::vector<std::int32_t> threads, nice, last_cpu;  // last_cpu -1 = not observed
    std::vector<std::int64_t> cgroup_id;       // inode of the cgroup in the v2 tree, -1 = not observed
    std::vector<std::uint32_t> valid;          // ProcessValid bits
    std::array<std::vector<double>, kProcessColumns> columns;

    void reserve_rows(std::size_t rows);  // grows every column to at least `rows`, never shrinks
    [[nodiscard]] std::span<const double> column(ProcessColumn which) const noexcept {
        return {columns[static_cast<std::size_t>(which)].data(), count};
    }
};

// --- parsers, pure; fuzzed -----------------------------------------------------------------------------

struct ProcessStat {
    std::int32_t pid = 0, ppid = 0, threads = 0, nice = 0, last_cpu = -1;
    char state = '?';
    std::uint64_t minor_faults = 0, major_faults = 0, user_ticks = 0, system_ticks = 0, start_ticks = 0;
    std::uint64_t virtual_bytes = 0;
    std::string_view name;  // raw bytes, into the parsed text
};
struct ProcessMemory {
    std::uint64_t virtual_pages = 0, resident_pages = 0, shared_pages = 0;
};
struct ProcessIo {
    std::uint64_t read_chars = 0, write_chars = 0, read_bytes = 0, write_bytes = 0;
};
struct ProcessStatus {
    std::int64_t uid = -1;
    std::uint64_t voluntary = 0, involuntary = 0;
    bool has_kinds = false;  // kernel threads and zombies have no memory, Linux < 4.5 does not tell its kinds
    std::uint64_t anon_kib = 0, file_kib = 0, shmem_kib = 0, swap_kib = 0;
};
struct ProcessSchedule {
    std::uint64_t run_ns = 0, delay_ns = 0, timeslices = 0;
};

// Each is false when the text is cut short or does not follow the documented format; then `out` means nothing.
[[nodiscard]] bool parse_process_stat(std::string_view text, ProcessStat& out) noexcept;
[[nodiscard]] bool parse_process_memory(std::string_view text, ProcessMemory& out) noexcept;
[[nodiscard]] bool parse_process_io(std::string_view text, ProcessIo& out) noexcept;
[[nodiscard]] bool parse_process_status(std::string_view text, ProcessStatus& out) noexcept;
[[nodiscard]] bool parse_process_schedule(std::string_view text, ProcessSchedule& out) noexcept;

// --- tiers ---------------------------------------------------------------------------------------------

enum class Tier : std::uint8_t { bpf, taskstats, gated, tree };
inline constexpr std::size_t kTiers = 4;
[[nodiscard]] const char* to_string(Tier tier) noexcept;

class ProcessScanner {
public:
    virtual ~ProcessScanner() = default;

    // Fills `out` with every process, ascending by pid. An error is one of the whole scan; then `out` has no rows.
    [[nodiscard]] virtual Result<std::uint32_t> scan(ProcessTable& out) = 0;
};

}  // namespace argus::sources
