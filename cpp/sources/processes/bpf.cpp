#include "sources/processes/bpf.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace argus::sources {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
__extension__ using Wide = unsigned __int128;

constexpr std::uint32_t kFurtherThreads = 8;  // records of threads for each of a process
constexpr int kMerges = 8;  // of ascending runs, before they are so many that sorting is cheaper
constexpr Error kForeignRoot{Errc::unavailable, 0, "BPF: sees this machine only: proc must be /proc"};
constexpr Error kForeignNamespace{
    Errc::unavailable, 0, "BPF: sees the pids of the whole machine, and this process lives in a namespace of its own"};
constexpr Error kNoSelf{Errc::unavailable, 0, "proc/self/stat: expected this process, could not read it"};

void add(argus_usage& sum, const argus_usage& one) noexcept {
    using Numbers = std::array<unsigned long long, sizeof(argus_usage) / sizeof(unsigned long long)>;
    auto total = std::bit_cast<Numbers>(sum);
    const auto more = std::bit_cast<Numbers>(one);
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += more[i];
    sum = std::bit_cast<argus_usage>(total);
}

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
    if (lists_) return load_listing(records);
    const auto walks = load_walk(records);
    if (walks || walks.error().code != Errc::unavailable || choice_.listing.empty()) return walks;
    const auto lists = load_listing(records);
    return lists ? lists : walks;
}

Result<bool> BpfProcesses::load_walk(std::uint32_t records) {
    auto opened = bpf::Object::open(choice_.object, "argus_processes", choice_.environment);
    if (!opened) return opened.error();
    if (auto sized = opened->resize("process_records", records); !sized) return sized.error();
    if (auto loaded = opened->load(); !loaded) return loaded.error();
    const auto program = opened->program("scan_processes");
    if (!program) return program.error();
    program_ = *program;
    return take_maps(std::move(*opened), records);
}

Result<bool> BpfProcesses::load_listing(std::uint32_t records) {
    auto opened = bpf::Object::open(choice_.listing, "argus_processes", choice_.environment);
    if (!opened) return opened.error();
    if (auto sized = opened->resize("process_records", records); !sized) return sized.error();
    if (auto sized = opened->resize("further_threads", records * kFurtherThreads); !sized) return sized.error();
    if (auto loaded = opened->load(); !loaded) return loaded.error();
    auto further = opened->map_memory("further_threads");
    auto iterator = opened->attach("list_task");
    if (!further) return further.error();
    if (!iterator) return iterator.error();
    further_ = std::move(*further);
    iterator_ = std::move(*iterator);
    lists_ = true;
    return take_maps(std::move(*opened), records);
}

Result<bool> BpfProcesses::take_maps(bpf::Object&& loaded, std::uint32_t records) {
    auto memory = loaded.map_memory("process_records");
    auto counts = loaded.map_memory(".bss");
    if (!memory) return memory.error();
    if (!counts) return counts.error();
    object_ = std::move(loaded);
    records_ = std::move(*memory);
    counts_ = std::move(*counts);
    capacity_ = records;
    return true;
}

Result<std::uint32_t> BpfProcesses::run() {
    while (true) {
        if (lists_) std::memset(counts_.data(), 0, 2 * sizeof(std::uint32_t));
        const int status = lists_ ? iterator_.iterate() : bpf::run(program_);
        if (status < 0) return Error{Errc::io, -status, "BPF: the program of the process table could not run"};
        std::uint32_t seen[2] = {};  // processes, threads; of a listing, further threads
        std::memcpy(seen, counts_.data(), sizeof seen);
        threads_ = lists_ ? seen[0] + seen[1] : seen[1];
        const std::uint32_t needed = lists_ ? std::max(seen[0], seen[1] / kFurtherThreads) : seen[0];
        if (needed <= capacity_ || capacity_ >= kMaxRecords) return seen[0];
        const std::uint32_t wanted = std::bit_ceil(needed + needed / 8);
        if (auto grown = load(std::min(kMaxRecords, wanted)); !grown) return grown.error();
    }
}

// What was listed of further threads goes to the records of their processes. A process of which other than the threads
// it said to have were found changed meanwhile: its sums are torn.
void BpfProcesses::add_listed_threads() {
    auto* records = reinterpret_cast<argus_process_record*>(records_.data());
    const auto* threads = reinterpret_cast<const argus_thread_record*>(further_.data());
    const std::uint32_t processes = static_cast<std::uint32_t>(keys_.size());
    const std::uint32_t count = std::min(threads_ - std::min(threads_, processes), capacity_ * kFurtherThreads);
    further_found_.assign(keys_.size(), 0);
    for (std::uint32_t i = 0; i < count; ++i) {
        const argus_thread_record& t = threads[i];
        const auto at = std::lower_bound(keys_.begin(), keys_.end(),
                                         static_cast<std::uint64_t>(static_cast<std::uint32_t>(t.tgid)) << 32);
        if (at == keys_.end() || static_cast<std::int32_t>(*at >> 32) != t.tgid) continue;
        argus_process_record& r = records[*at & 0xFFFFFFFFU];
        ++further_found_[static_cast<std::size_t>(at - keys_.begin())];
        add(r.used, t.used);
    }
    for (std::size_t i = 0; i < keys_.size(); ++i) {
        argus_process_record& r = records[keys_[i] & 0xFFFFFFFFU];
        if (r.nr_threads != 1 + further_found_[i]) r.flags |= ARGUS_PROCESS_TORN;
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

// Records are turned into columns some at a time, column after column: the records stay in the first cache, and one
// column is written at once.
struct BpfProcesses::Block {
    static constexpr std::size_t kRows = 64;
    std::array<const argus_process_record*, kRows> records;
    std::size_t first = 0, count = 0;

    template <class T, class Get>
    void fill(std::vector<T>& column, Get get) const {
        T* out = column.data() + first;
        for (std::size_t i = 0; i < count; ++i) out[i] = get(*records[i]);
    }
    template <class Get>
    void fill(ProcessTable& table, ProcessColumn column, Get get) const {
        fill(table.columns[static_cast<std::size_t>(column)], get);
    }
};

Result<std::uint32_t> BpfProcesses::scan(ProcessTable& out) {
    begin_table(out, *clock_);
    const auto seen = run();
    if (!seen) return seen.error();
    const std::uint32_t count = std::min(seen.value(), capacity_);
    out.unreadable = seen.value() - count;
    order(count);
    if (lists_) add_listed_threads();
    elapsed_ = scanned_at_ == 0 ? 0 : out.time - scanned_at_;
    scanned_at_ = out.time;
    std::swap(now_, before_);
    now_.resize(count);
    cursor_ = 0;
    out.reserve_rows(count);
    const auto* records = reinterpret_cast<const argus_process_record*>(records_.data());
    for (Block block; block.first < count; block.first += block.count) {
        block.count = std::min<std::size_t>(Block::kRows, count - block.first);
        for (std::size_t i = 0; i < block.count; ++i) {
            block.records[i] = &records[keys_[block.first + i] & 0xFFFFFFFFU];
        }
        put_identity(out, block);
        put_cpu(out, block);
        put_counters(out, block);
        put_memory(out, block);
    }
    out.count = count;
    return count;
}

const BpfProcesses::Previous* BpfProcesses::previous(std::int32_t pid, std::int64_t start_ns) noexcept {
    while (cursor_ < before_.size() && before_[cursor_].pid < pid) ++cursor_;
    if (cursor_ == before_.size()) return nullptr;
    const Previous& found = before_[cursor_];
    return found.pid == pid && found.start_ns == start_ns ? &found : nullptr;
}

namespace {

bool whole(const argus_process_record& r) noexcept { return (r.flags & ARGUS_PROCESS_TORN) == 0; }
bool has_memory(const argus_process_record& r) noexcept { return (r.flags & ARGUS_PROCESS_MEMORY) != 0; }

// Counters stay far below 2^63, and signed numbers convert in one instruction.
double number(unsigned long long value) noexcept { return static_cast<double>(static_cast<long long>(value)); }

// As /proc/PID/stat shows it: kernel workers with what they work on, "+" now or "-" last.
void put_name(std::array<char, kProcessNameBytes>& out, const argus_process_record& r) noexcept {
    if ((r.flags & ARGUS_PROCESS_LONG_NAME) != 0) {
        std::memcpy(out.data(), r.full_name, sizeof r.full_name);
    } else {
        std::memcpy(out.data(), r.comm, sizeof r.comm);
        std::memset(out.data() + sizeof r.comm, 0, out.size() - sizeof r.comm);
    }
    if ((r.flags & (ARGUS_PROCESS_WORKS | ARGUS_PROCESS_WORKED)) == 0 || r.work[0] == '\0') return;
    const std::size_t size = strnlen(out.data(), out.size());
    if (size == out.size()) return;
    const std::size_t work = std::min(strnlen(r.work, sizeof r.work), out.size() - size - 1);
    out[size] = (r.flags & ARGUS_PROCESS_WORKS) != 0 ? '+' : '-';
    std::memcpy(out.data() + size + 1, r.work, work);
}

}  // namespace

void BpfProcesses::put_identity(ProcessTable& out, const Block& block) const noexcept {
    using Record = argus_process_record;
    // In ticks, as /proc tells it: the identity of a process is the same number in every tier.
    const auto start = [&](std::uint64_t tick) {
        block.fill(out.start_time_ns, [tick](const Record& r) {
            return static_cast<std::int64_t>(r.start_boottime_ns - r.start_boottime_ns % tick);
        });
    };
    constexpr std::uint64_t kUsualTick = 10'000'000;  // a constant is divided by without dividing
    units_.ns_per_tick == kUsualTick ? start(kUsualTick) : start(units_.ns_per_tick);
    block.fill(out.pid, [](const Record& r) { return r.pid; });
    block.fill(out.ppid, [](const Record& r) { return r.ppid; });
    block.fill(out.state, [](const Record& r) { return state_letter(r.state); });
    block.fill(out.threads, [](const Record& r) { return r.nr_threads; });
    block.fill(out.nice, [](const Record& r) { return r.static_prio - 120; });
    block.fill(out.last_cpu, [](const Record& r) { return r.last_cpu; });
    block.fill(out.uid, [](const Record& r) { return std::int64_t{r.uid}; });
    block.fill(out.cgroup_id, [](const Record& r) { return static_cast<std::int64_t>(r.cgroup_id); });
    for (std::size_t i = 0; i < block.count; ++i) put_name(out.name[block.first + i], *block.records[i]);
}

void BpfProcesses::put_cpu(ProcessTable& out, const Block& block) noexcept {
    auto& user = out.columns[static_cast<std::size_t>(ProcessColumn::cpu_user)];
    auto& system = out.columns[static_cast<std::size_t>(ProcessColumn::cpu_system)];
    auto& utilization = out.columns[static_cast<std::size_t>(ProcessColumn::cpu_utilization)];
    for (std::size_t i = 0; i < block.count; ++i) {
        const argus_process_record& r = *block.records[i];
        const std::size_t row = block.first + i;
        const bool good = whole(r);
        const Previous* before = previous(r.pid, out.start_time_ns[row]);
        CpuSplit told{r.adjusted_utime_ns, r.adjusted_stime_ns};
        if (before != nullptr && before->told.user_ns + before->told.system_ns > told.user_ns + told.system_ns) {
            told = before->told;
        }
        if (good) told = split_cpu_time(r.used.runtime_ns, {r.used.utime_ns, r.used.stime_ns}, told);
        const bool twice = good && before != nullptr && elapsed_ > 0 && r.used.runtime_ns >= before->runtime_ns;
        const double ran = twice ? number(r.used.runtime_ns - before->runtime_ns) : kNaN;
        out.gated += ran == 0.0 ? 1U : 0U;
        user[row] = good ? number(told.user_ns) / 1e9 : kNaN;
        system[row] = good ? number(told.system_ns) / 1e9 : kNaN;
        utilization[row] = ran / static_cast<double>(elapsed_);
        constexpr std::uint32_t kSums = kValidIo | kValidStatus | kValidSchedule;
        out.valid[row] = kValidStat | kValidMemory | kValidCgroup | (good ? kSums : 0U) |
                         (has_memory(r) ? std::uint32_t{kValidKinds} : 0U) |
                         (twice ? std::uint32_t{kValidUtilization} : 0U);
        now_[row] = {r.pid, out.start_time_ns[row], r.used.runtime_ns, told};
    }
}

void BpfProcesses::put_counters(ProcessTable& out, const Block& block) const noexcept {
    using enum ProcessColumn;
    const auto put = [&](ProcessColumn column, auto member) {
        block.fill(out, column,
                   [member](const argus_process_record& r) { return whole(r) ? number(r.used.*member) : kNaN; });
    };
    put(minor_faults, &argus_usage::minor_faults);
    put(major_faults, &argus_usage::major_faults);
    put(read_bytes, &argus_usage::read_bytes);
    put(write_bytes, &argus_usage::write_bytes);
    put(read_chars, &argus_usage::read_chars);
    put(write_chars, &argus_usage::write_chars);
    put(voluntary_switches, &argus_usage::voluntary_switches);
    put(involuntary_switches, &argus_usage::involuntary_switches);
    block.fill(out, run_delay,
               [](const argus_process_record& r) { return whole(r) ? number(r.used.run_delay_ns) / 1e9 : kNaN; });
}

void BpfProcesses::put_memory(ProcessTable& out, const Block& block) const noexcept {
    using enum ProcessColumn;
    const auto into = [&](ProcessColumn column) {
        return out.columns[static_cast<std::size_t>(column)].data() + block.first;
    };
    double* const columns[] = {into(rss_file), into(rss_anon), into(rss_shmem), into(swap),
                               into(rss),      into(shared),   into(virtual_)};
    const auto page = static_cast<double>(units_.page_bytes);
    // A counter in the middle of being handed over may dip below zero; the kernel shows that as zero, too.
    const auto bytes = [page](long long pages) { return static_cast<double>(std::max(0LL, pages)) * page; };
    for (std::size_t i = 0; i < block.count; ++i) {
        const argus_process_record& r = *block.records[i];
        const bool there = has_memory(r);
        const double file = there ? bytes(r.file_pages) : 0;
        const double anon = there ? bytes(r.anon_pages) : 0;
        const double shmem = there ? bytes(r.shmem_pages) : 0;
        columns[0][i] = there ? file : kNaN;
        columns[1][i] = there ? anon : kNaN;
        columns[2][i] = there ? shmem : kNaN;
        columns[3][i] = there ? bytes(r.swap_pages) : kNaN;
        columns[4][i] = file + anon + shmem;
        columns[5][i] = file + shmem;
        columns[6][i] = there ? number(r.virtual_pages) * page : 0;
    }
}

}  // namespace argus::sources
