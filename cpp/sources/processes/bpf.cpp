#include "sources/processes/bpf.hpp"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace argus::sources {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
__extension__ using Wide = unsigned __int128;

constexpr int kMerges = 8;  // of ascending runs, before they are so many that sorting is cheaper
constexpr Error kForeignRoot{Errc::unavailable, 0, "BPF: sees this machine only: proc must be /proc"};
constexpr Error kForeignNamespace{
    Errc::unavailable, 0, "BPF: sees the pids of the whole machine, and this process lives in a namespace of its own"};
constexpr Error kNoSelf{Errc::unavailable, 0, "proc/self/stat: expected this process, could not read it"};

}  // namespace

char state_letter(std::uint32_t state) noexcept {
    // Of include/linux/sched.h: R S D T t X Z P, one bit each, then idle kernel threads.
    constexpr std::uint32_t kReported = 0x7F;
    constexpr std::uint32_t kIdle = 0x402;     // TASK_UNINTERRUPTIBLE | TASK_NOLOAD
    constexpr std::uint32_t kWaits = 0x9000;   // TASK_RTLOCK_WAIT, TASK_FROZEN
    constexpr char kLetters[] = "RSDTtXZP";
    if ((state & kWaits) != 0) return 'D';
    if ((state & kIdle) == kIdle) return 'I';
    return kLetters[std::bit_width(state & kReported)];
}

CpuSplit split_cpu_time(std::uint64_t runtime_ns, CpuSplit sampled, CpuSplit before) noexcept {
    if (before.user_ns + before.system_ns >= runtime_ns) return before;
    std::uint64_t system = 0;
    if (sampled.user_ns == 0) {
        system = sampled.system_ns == 0 ? 0 : runtime_ns;
    } else if (sampled.system_ns != 0) {
        const auto total = static_cast<Wide>(sampled.user_ns) + sampled.system_ns;
        system = static_cast<std::uint64_t>(static_cast<Wide>(sampled.system_ns) * runtime_ns / total);
    }
    system = std::max(std::min(system, runtime_ns), before.system_ns);
    std::uint64_t user = runtime_ns - system;
    if (user < before.user_ns) {
        user = before.user_ns;
        system = runtime_ns - user;
    }
    return {user, system};
}

void sort_runs(std::vector<std::uint64_t>& keys, std::vector<std::uint64_t>& scratch) {
    scratch.resize(keys.size());
    const auto begin = keys.begin();
    auto sorted = std::is_sorted_until(begin, keys.end());
    for (int merges = 0; sorted != keys.end(); ++merges) {
        if (merges == kMerges) return std::sort(begin, keys.end());
        const auto next = std::is_sorted_until(sorted, keys.end());
        std::merge(begin, sorted, sorted, next, scratch.begin());
        std::copy(scratch.begin(), scratch.begin() + (next - begin), begin);
        sorted = next;
    }
}

Result<std::unique_ptr<ProcessScanner>> BpfProcesses::make(const Roots& roots, const Io& io, const Clock& clock,
                                                           const BpfChoice& choice) {
    if (!roots.live()) return kForeignRoot;
    std::unique_ptr<BpfProcesses> made(new BpfProcesses(clock, choice));
    if (const auto loaded = made->load(choice.records); !loaded) return loaded.error();
    if (const auto same = made->check_against(roots, io); !same) return same.error();
    return std::unique_ptr<ProcessScanner>(std::move(made));
}

Result<bool> BpfProcesses::load(std::uint32_t records) {
    auto opened = bpf::Object::open(choice_.object, "argus_processes", choice_.environment);
    if (!opened) return opened.error();
    if (auto sized = opened->resize("records", records); !sized) return sized.error();
    if (auto loaded = opened->load(); !loaded) return loaded.error();
    const auto program = opened->program("scan_processes");
    auto memory = opened->map_memory("records");
    auto counts = opened->map_memory(".bss");
    if (!program) return program.error();
    if (!memory) return memory.error();
    if (!counts) return counts.error();
    object_ = std::move(*opened);
    records_ = std::move(*memory);
    counts_ = std::move(*counts);
    program_ = *program;
    capacity_ = records;
    return true;
}

Result<std::uint32_t> BpfProcesses::run() {
    while (true) {
        const int status = bpf::run(program_);
        if (status < 0) return Error{Errc::io, -status, "BPF: the program of the process table could not run"};
        std::uint32_t seen[2] = {};  // processes, threads
        std::memcpy(seen, counts_.data(), sizeof seen);
        threads_ = seen[1];
        if (seen[0] <= capacity_ || capacity_ >= kMaxRecords) return seen[0];
        const std::uint32_t wanted = std::bit_ceil(seen[0] + seen[0] / 8);
        if (auto grown = load(std::min(kMaxRecords, wanted)); !grown) return grown.error();
    }
}

// The program speaks of the initial namespaces. If /proc says the same of this process, so do we.
Result<bool> BpfProcesses::check_against(const Roots& roots, const Io& io) {
    ProcessFiles files(roots.proc, io);
    ProcessRecord self;
    const int root = files.open_root();
    const int directory = root < 0 ? root : files.open_process(root, static_cast<std::int32_t>(getpid()));
    const ReadOutcome outcome = directory < 0 ? ReadOutcome::gone : files.read_stat_at(directory, self);
    if (directory >= 0) files.close(directory);
    if (root >= 0) files.close(root);
    if (outcome != ReadOutcome::read) return kNoSelf;
    const auto seen = run();
    if (!seen) return seen.error();
    const auto* records = reinterpret_cast<const argus_process_record*>(records_.data());
    for (std::uint32_t i = 0; i < std::min(seen.value(), capacity_); ++i) {
        if (records[i].pid != self.stat.pid) continue;
        if (records[i].start_boottime_ns / units_.ns_per_tick == self.stat.start_ticks) return true;
    }
    return kForeignNamespace;
}

void BpfProcesses::order(std::uint32_t count) {
    const auto* records = reinterpret_cast<const argus_process_record*>(records_.data());
    keys_.resize(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        keys_[i] = (static_cast<std::uint64_t>(static_cast<std::uint32_t>(records[i].pid)) << 32) | i;
    }
    sort_runs(keys_, scratch_);
}

Result<std::uint32_t> BpfProcesses::scan(ProcessTable& out) {
    begin_table(out, *clock_);
    const auto seen = run();
    if (!seen) return seen.error();
    const std::uint32_t count = std::min(seen.value(), capacity_);
    out.unreadable = seen.value() - count;
    order(count);
    elapsed_ = scanned_at_ == 0 ? 0 : out.time - scanned_at_;
    scanned_at_ = out.time;
    std::swap(now_, before_);
    now_.resize(count);
    cursor_ = 0;
    out.reserve_rows(count);
    const auto* records = reinterpret_cast<const argus_process_record*>(records_.data());
    for (std::size_t row = 0; row < count; ++row) put(out, row, records[keys_[row] & 0xFFFFFFFFU]);
    out.count = count;
    return count;
}

const BpfProcesses::Previous* BpfProcesses::previous(std::int32_t pid, std::int64_t start_ns) noexcept {
    while (cursor_ < before_.size() && before_[cursor_].pid < pid) ++cursor_;
    if (cursor_ == before_.size()) return nullptr;
    const Previous& found = before_[cursor_];
    return found.pid == pid && found.start_ns == start_ns ? &found : nullptr;
}

void BpfProcesses::put(ProcessTable& out, std::size_t row, const argus_process_record& r) {
    // In ticks, as /proc tells it: the identity of a process is the same number in every tier.
    const auto start_ns = static_cast<std::int64_t>(r.start_boottime_ns - r.start_boottime_ns % units_.ns_per_tick);
    out.pid[row] = r.pid;
    out.ppid[row] = r.ppid;
    out.start_time_ns[row] = start_ns;
    out.state[row] = state_letter(r.state);
    out.threads[row] = r.nr_threads;
    out.nice[row] = r.static_prio - 120;
    out.last_cpu[row] = r.last_cpu;
    out.uid[row] = r.uid;
    out.cgroup_id[row] = static_cast<std::int64_t>(r.cgroup_id);
    auto& name = out.name[row];
    if ((r.flags & ARGUS_PROCESS_LONG_NAME) != 0) {
        std::memcpy(name.data(), r.full_name, sizeof r.full_name);
    } else {
        std::memcpy(name.data(), r.comm, sizeof r.comm);
        std::memset(name.data() + sizeof r.comm, 0, name.size() - sizeof r.comm);
    }
    const bool whole = (r.flags & ARGUS_PROCESS_TORN) == 0;
    const Previous* before = previous(r.pid, start_ns);
    CpuSplit told{r.adjusted_utime_ns, r.adjusted_stime_ns};
    if (before != nullptr && before->told.user_ns + before->told.system_ns > told.user_ns + told.system_ns) {
        told = before->told;
    }
    const CpuSplit cpu = split_cpu_time(r.runtime_ns, {r.utime_ns, r.stime_ns}, told);
    const bool twice = whole && before != nullptr && elapsed_ > 0 && r.runtime_ns >= before->runtime_ns;
    const double ran = twice ? static_cast<double>(r.runtime_ns - before->runtime_ns) : kNaN;
    using enum ProcessColumn;
    out.columns[static_cast<std::size_t>(cpu_user)][row] = whole ? static_cast<double>(cpu.user_ns) / 1e9 : kNaN;
    out.columns[static_cast<std::size_t>(cpu_system)][row] = whole ? static_cast<double>(cpu.system_ns) / 1e9 : kNaN;
    out.columns[static_cast<std::size_t>(cpu_utilization)][row] = ran / static_cast<double>(elapsed_);
    constexpr std::uint32_t kSums = kValidIo | kValidStatus | kValidSchedule;
    out.valid[row] = kValidStat | kValidMemory | kValidCgroup | (whole ? kSums : 0U) |
                     ((r.flags & ARGUS_PROCESS_MEMORY) != 0 ? std::uint32_t{kValidKinds} : 0U) |
                     (twice ? std::uint32_t{kValidUtilization} : 0U);
    put_numbers(out, row, r);
    now_[row] = {r.pid, start_ns, r.runtime_ns, whole ? cpu : told};
}

void BpfProcesses::put_numbers(ProcessTable& out, std::size_t row, const argus_process_record& r) const noexcept {
    const auto put = [&](ProcessColumn column, double value) {
        out.columns[static_cast<std::size_t>(column)][row] = value;
    };
    const bool whole = (r.flags & ARGUS_PROCESS_TORN) == 0;
    const auto put_sum = [&](ProcessColumn column, unsigned long long value) {
        put(column, whole ? static_cast<double>(value) : kNaN);
    };
    // A counter in the middle of being handed over may dip below zero; the kernel shows that as zero, too.
    const bool memory = (r.flags & ARGUS_PROCESS_MEMORY) != 0;
    const auto page = static_cast<double>(units_.page_bytes);
    const auto bytes = [&](long long pages) { return memory ? static_cast<double>(std::max(0LL, pages)) * page : 0.0; };
    const double file = bytes(r.file_pages);
    const double anon = bytes(r.anon_pages);
    const double shmem = bytes(r.shmem_pages);
    using enum ProcessColumn;
    put(rss, file + anon + shmem);
    put(virtual_, memory ? static_cast<double>(r.virtual_pages) * page : 0.0);
    put(shared, file + shmem);
    put_sum(minor_faults, r.minor_faults);
    put_sum(major_faults, r.major_faults);
    put_sum(read_bytes, r.read_bytes);
    put_sum(write_bytes, r.write_bytes);
    put_sum(read_chars, r.read_chars);
    put_sum(write_chars, r.write_chars);
    put_sum(voluntary_switches, r.voluntary_switches);
    put_sum(involuntary_switches, r.involuntary_switches);
    put(run_delay, whole ? static_cast<double>(r.run_delay_ns) / 1e9 : kNaN);
    put(rss_anon, memory ? anon : kNaN);
    put(rss_file, memory ? file : kNaN);
    put(rss_shmem, memory ? shmem : kNaN);
    put(swap, memory ? bytes(r.swap_pages) : kNaN);
}

}  // namespace argus::sources
