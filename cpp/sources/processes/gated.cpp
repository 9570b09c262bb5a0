#include "sources/processes/gated.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <utility>

#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kKiB = 1024;
constexpr std::uint64_t kMaxPid = 1 << 22;          // PID_MAX_LIMIT
constexpr std::int32_t kWorthAsking = 256;          // numbers given out since; beyond, and beyond half the rows, list
constexpr Error kForeignRoot{Errc::unavailable, 0, "processor clocks are of this machine's processes: proc must be /proc"};
constexpr Error kForeignPids{Errc::unavailable, 0,
                             "proc/self: expected the pid of this process; proc belongs to another pid namespace"};

bool no_descriptor(int negative_errno) noexcept { return negative_errno == -EMFILE || negative_errno == -ENFILE; }

// "0.00 0.01 0.05 1/180 4711": the pid given out last; 0 = not told.
std::int32_t newest_pid(std::string_view loadavg) noexcept {
    const std::size_t slash = loadavg.find('/');
    std::uint64_t threads = 0;
    std::uint64_t pid = 0;
    Scanner scanner(slash == std::string_view::npos ? std::string_view{} : loadavg.substr(slash + 1));
    if (!scanner.number(threads) || !scanner.number(pid) || pid > kMaxPid) return 0;
    return static_cast<std::int32_t>(pid);
}

bool same_memory(const ProcessMemory& a, const ProcessMemory& b) noexcept {
    return a.virtual_pages == b.virtual_pages && a.resident_pages == b.resident_pages &&
           a.shared_pages == b.shared_pages;
}

std::size_t kept_processes_max() noexcept {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    const std::size_t half = limit.rlim_cur == RLIM_INFINITY ? GatedProcesses::kKeptMax * 3 : limit.rlim_cur / 2;
    return std::min(GatedProcesses::kKeptMax, half / 3);
}

}  // namespace

std::int64_t system_cpu_clock(std::int32_t pid) noexcept {
    timespec time{};
    const auto id = static_cast<clockid_t>((~static_cast<unsigned>(pid) << 3) | 2U);  // CPUCLOCK_SCHED of a process
    if (clock_gettime(id, &time) != 0) return -errno;
    return Nanos{time.tv_sec} * kSecond + time.tv_nsec;
}

// --- Kept descriptors -------------------------------------------------------------------------------------

KeptFiles::KeptFiles(const Io& io, std::size_t processes_max) : io_(&io), slots_(processes_max) {
    free_.reserve(processes_max);
    for (std::size_t i = processes_max; i > 0; --i) free_.push_back(static_cast<std::uint32_t>(i - 1));
}

KeptFiles::~KeptFiles() {
    while (oldest_ != kNone) release(oldest_);
}

void KeptFiles::unlink(std::uint32_t at) noexcept {
    const Slot& slot = slots_[at];
    (slot.newer == kNone ? newest_ : slots_[slot.newer].older) = slot.older;
    (slot.older == kNone ? oldest_ : slots_[slot.older].newer) = slot.newer;
}

void KeptFiles::link_newest(std::uint32_t at) noexcept {
    slots_[at].newer = kNone;
    slots_[at].older = newest_;
    (newest_ == kNone ? oldest_ : slots_[newest_].newer) = at;
    newest_ = at;
    slots_[at].round = round_;
}

void KeptFiles::release(std::uint32_t at) noexcept {
    unlink(at);
    Slot& slot = slots_[at];
    for (const int fd : {slot.files.stat, slot.files.statm, slot.files.io}) {
        if (fd >= 0) io_->close(fd);
    }
    slot.files = {};
    slot.used = false;
    ++slot.generation;
    --used_;
}

const KeptFiles::Files* KeptFiles::find(Ref ref) noexcept {
    if (ref.generation == 0 || !slots_[ref.slot].used || slots_[ref.slot].generation != ref.generation) return nullptr;
    unlink(ref.slot);
    link_newest(ref.slot);
    return &slots_[ref.slot].files;
}

KeptFiles::Ref KeptFiles::keep(const Files& files) noexcept {
    if (free_.empty() && oldest_ != kNone && slots_[oldest_].round + 1 < round_) {
        const std::uint32_t at = oldest_;
        release(at);
        free_.push_back(at);
    }
    if (free_.empty()) {
        for (const int fd : {files.stat, files.statm, files.io}) {
            if (fd >= 0) io_->close(fd);
        }
        return {};
    }
    const std::uint32_t at = free_.back();
    free_.pop_back();
    slots_[at].files = files;
    slots_[at].used = true;
    ++used_;
    link_newest(at);
    return {at, slots_[at].generation};
}

void KeptFiles::drop(Ref& ref) noexcept {
    if (find(ref) != nullptr) {
        release(ref.slot);
        free_.push_back(ref.slot);
    }
    ref = {};
}

bool KeptFiles::shrink() noexcept {
    if (oldest_ == kNone) return false;
    release(oldest_);
    return true;
}

// --- The table --------------------------------------------------------------------------------------------

GatedProcesses::GatedProcesses(const Roots& roots, const Io& io, const Clock& clock, CpuClock cpu_clock,
                               std::size_t kept_max)
    : files_(roots.proc, io),
      clock_(&clock),
      cpu_clock_(cpu_clock),
      kept_(io, kept_max),
      loadavg_(io, roots.proc + "/loadavg", "proc/loadavg") {}

Result<std::unique_ptr<ProcessScanner>> GatedProcesses::make(const Roots& roots, const Io& io, const Clock& clock,
                                                             CpuClock cpu_clock, Accounting accounting) {
    if (!roots.live()) return kForeignRoot;
    char self[16] = {};
    std::int64_t pid = 0;
    const ssize_t size = readlink((roots.proc + "/self").c_str(), self, sizeof self - 1);
    Scanner scanner(std::string_view(self, size > 0 ? static_cast<std::size_t>(size) : 0));
    if (!scanner.signed_number(pid) || pid != getpid()) return kForeignPids;
    if (const std::int64_t time = cpu_clock(static_cast<std::int32_t>(pid)); time < 0) {
        return Error{Errc::unavailable, static_cast<int>(-time), "processor clock of a process: refused"};
    }
    auto made = std::make_unique<GatedProcesses>(roots, io, clock, cpu_clock, kept_processes_max());
    if (accounting == Accounting::taskstats) {
        auto opened = Taskstats::open();
        if (!opened) return opened.error();
        made->taskstats_ = std::move(*opened);
    }
    return std::unique_ptr<ProcessScanner>(std::move(made));
}

Result<std::uint32_t> GatedProcesses::scan(ProcessTable& out) {
    begin_table(out, *clock_);
    ended_.clear();
    kept_.begin_round();
    root_ = files_.open_root();
    while (no_descriptor(root_) && kept_.shrink()) root_ = files_.open_root();
    auto done = update_list(out.time);
    if (done) {
        for (Row& row : rows_) visit(row, out.time, out);
        follow_orphans();
        done = ask_taskstats();
    }
    if (root_ >= 0) files_.close(root_);
    root_ = -1;
    if (!done) return done.error();
    publish(out);
    return static_cast<std::uint32_t>(out.count);
}

// Numbers are given out in ascending order, so what is new since has one of those given out since: asking for them is
// cheaper than listing everything. Those of the time before are asked for again: a number is given out a moment before
// its process is there. What takes a number out of order (checkpoint and restore does) is found by the next listing.
Result<bool> GatedProcesses::update_list(Nanos now) {
    const auto loadavg = loadavg_.read();
    const std::int32_t newest = loadavg ? newest_pid(loadavg.value()) : 0;
    const std::int32_t from = asked_from_;
    asked_from_ = newest_;
    newest_ = newest;
    const auto worth = std::max(kWorthAsking, static_cast<std::int32_t>(rows_.size() / 2));
    const bool recent = listed_at_ != 0 && now - listed_at_ < kListAtLeast;
    if (recent && from > 0 && newest >= from && newest - from <= worth) {
        ask_for(from + 1, newest);
        return true;
    }
    if (const auto listed = files_.list(root_, pids_); !listed) return listed.error();
    listed_at_ = now;
    take_list();
    return true;
}

void GatedProcesses::ask_for(std::int32_t first, std::int32_t last) {
    const auto known = [](const Row& row, std::int32_t pid) { return row.record.stat.pid < pid; };
    fresh_.clear();
    for (std::int32_t pid = first; pid <= last; ++pid) {
        const auto at = std::lower_bound(rows_.begin(), rows_.end(), pid, known);
        if (at != rows_.end() && at->record.stat.pid == pid) continue;
        if (cpu_clock_(pid) >= 0) fresh_.push_back(pid);  // threads have none of their own
    }
    if (fresh_.empty()) return;
    pids_.clear();
    for (const Row& row : rows_) pids_.push_back(row.record.stat.pid);
    pids_.insert(pids_.end(), fresh_.begin(), fresh_.end());
    std::inplace_merge(pids_.begin(), pids_.end() - static_cast<std::ptrdiff_t>(fresh_.size()), pids_.end());
    take_list();
}

void GatedProcesses::take_list() {
    const bool same = std::equal(rows_.begin(), rows_.end(), pids_.begin(), pids_.end(),
                                 [](const Row& row, std::int32_t pid) { return row.record.stat.pid == pid; });
    if (same) return;
    scratch_.clear();
    std::size_t at = 0;
    for (const std::int32_t pid : pids_) {
        for (; at < rows_.size() && rows_[at].record.stat.pid < pid; ++at) end(rows_[at]);
        if (at < rows_.size() && rows_[at].record.stat.pid == pid) {
            scratch_.push_back(rows_[at++]);
        } else {
            scratch_.emplace_back().record.stat.pid = pid;
        }
    }
    for (; at < rows_.size(); ++at) end(rows_[at]);
    std::swap(rows_, scratch_);
}

void GatedProcesses::end(Row& row) {
    kept_.drop(row.kept);
    row.gone = true;
    ended_.push_back(row.record.stat.pid);
}

void GatedProcesses::visit(Row& row, Nanos now, ProcessTable& table) {
    const std::int64_t cpu_ns = cpu_clock_(row.record.stat.pid);
    row.read_now = false;
    if (cpu_ns < 0) {
        if (row.cpu_at == 0) ++table.vanished;
        end(row);
        return;
    }
    if (row.outcome != ReadOutcome::read && now < row.refresh_at) return count(row.outcome, table);
    const bool due = row.cpu_at == 0 || now >= row.refresh_at;
    if (!due && cpu_ns == row.cpu_ns && row.record.stat.state != 'R') {
        ++table.gated;
        row.record.utilization = now > row.cpu_at ? 0.0 : kNaN;
        row.record.valid |= kValidUtilization;
        if (now <= row.cpu_at) row.record.valid &= ~std::uint32_t{kValidUtilization};
        row.cpu_at = now;
        return;
    }
    row.outcome = due ? read_everything(row, cpu_ns) : read_active(row, cpu_ns);
    row.read_now = row.outcome == ReadOutcome::read;
    count(row.outcome, table);
    if (row.outcome == ReadOutcome::gone) return end(row);
    if (!row.read_now) row.refresh_at = now + kListAtLeast;  // it has no row, and is tried again then
    if (row.read_now && (row.record.stat.state == 'Z' || row.record.stat.state == 'X')) {
        ended_.push_back(row.record.stat.pid);
    }
}

void GatedProcesses::count(ReadOutcome outcome, ProcessTable& table) noexcept {
    if (outcome == ReadOutcome::gone) ++table.vanished;
    if (outcome == ReadOutcome::unreadable) ++table.unreadable;
    if (outcome == ReadOutcome::malformed) ++table.malformed;
}

int GatedProcesses::open_process(std::int32_t pid) noexcept {
    int directory = files_.open_process(root_, pid);
    while (no_descriptor(directory) && kept_.shrink()) directory = files_.open_process(root_, pid);
    return directory;
}

ReadOutcome GatedProcesses::read_kept(const KeptFiles::Files& files, ProcessRecord& out) {
    if (const ReadOutcome stat = files_.read_stat(files.stat, out); stat != ReadOutcome::read) return stat;
    const auto into = [this](int fd, auto parse, auto& target) {
        return fd >= 0 && files_.read(fd, [&](std::string_view text) { return parse(text, target); }) == 0;
    };
    if (into(files.statm, parse_process_memory, out.memory)) out.valid |= kValidMemory;
    if (into(files.io, parse_process_io, out.io)) out.valid |= kValidIo;
    return ReadOutcome::read;
}

// One descriptor at a time, none kept.
ReadOutcome GatedProcesses::read_through(int directory, ProcessRecord& out) {
    if (const ReadOutcome stat = files_.read_stat_at(directory, out); stat != ReadOutcome::read) return stat;
    const auto into = [&](const char* name, auto parse, auto& target) {
        return files_.read_at(directory, name, [&](std::string_view text) { return parse(text, target); }) == 0;
    };
    if (into("statm", parse_process_memory, out.memory)) out.valid |= kValidMemory;
    if (into("io", parse_process_io, out.io)) out.valid |= kValidIo;
    return ReadOutcome::read;
}

ReadOutcome GatedProcesses::read_opening(Row& row, ProcessRecord& out) {
    const int directory = open_process(row.record.stat.pid);
    if (directory < 0) return is_gone(directory) ? ReadOutcome::gone : ReadOutcome::unreadable;
    const bool accounted = taskstats_ != nullptr && !row.threaded;
    const KeptFiles::Files files{files_.open_at(directory, "stat", ProcessFiles::kOpenFlags),
                                 files_.open_at(directory, "statm", ProcessFiles::kOpenFlags),
                                 accounted ? -1 : files_.open_at(directory, "io", ProcessFiles::kOpenFlags)};
    ReadOutcome outcome = ReadOutcome::gone;
    if (files.stat >= 0 && files.statm >= 0 && !no_descriptor(files.io)) {
        outcome = read_kept(files, out);
        row.kept = kept_.keep(files);
    } else {
        for (const int fd : {files.stat, files.statm, files.io}) {
            if (fd >= 0) files_.close(fd);
        }
        if (no_descriptor(files.stat) || no_descriptor(files.statm) || no_descriptor(files.io)) (void)kept_.shrink();
        outcome = read_through(directory, out);
    }
    files_.close(directory);
    return outcome;
}

ReadOutcome GatedProcesses::read_active(Row& row, std::int64_t cpu_ns) {
    ProcessRecord next;
    next.valid = kValidStat;
    next.uid = row.record.uid;
    ReadOutcome outcome = ReadOutcome::gone;
    if (const KeptFiles::Files* files = kept_.find(row.kept)) outcome = read_kept(*files, next);
    if (outcome != ReadOutcome::read) {
        kept_.drop(row.kept);
        next.valid = kValidStat;
        outcome = read_opening(row, next);
    }
    if (outcome == ReadOutcome::read && taskstats_ != nullptr && !row.threaded && next.stat.threads > 1) {
        row.threaded = true;
        kept_.drop(row.kept);
        next.valid = kValidStat;
        outcome = read_opening(row, next);
    }
    if (outcome != ReadOutcome::read) return outcome;
    if (!same_process(row.record.stat, next.stat)) return read_everything(row, cpu_ns);  // the pid was given out anew
    std::swap(row.record, next);
    utilize(row, cpu_ns, true);
    return ReadOutcome::read;
}

// At first sight, and now and then: also what is dear to read.
ReadOutcome GatedProcesses::read_everything(Row& row, std::int64_t cpu_ns) {
    const std::int32_t pid = row.record.stat.pid;
    const int directory = open_process(pid);
    if (directory < 0) return is_gone(directory) ? ReadOutcome::gone : ReadOutcome::unreadable;
    ProcessRecord next;
    next.valid = kValidStat;
    const ReadOutcome outcome = read_through(directory, next);
    const auto into = [&](const char* name, auto parse, auto& target) {
        return files_.read_at(directory, name, [&](std::string_view text) { return parse(text, target); }) == 0;
    };
    if (outcome == ReadOutcome::read) {
        if (into("schedstat", parse_process_schedule, next.schedule)) next.valid |= kValidSchedule;
        const bool same = row.cpu_at != 0 && same_process(row.record.stat, next.stat);
        const bool idle = same && cpu_ns == row.cpu_ns && (row.record.valid & kValidStatus) != 0;
        if (idle && same_memory(row.record.memory, next.memory)) {
            next.status = row.record.status;
            next.valid |= row.record.valid & (kValidStatus | kValidKinds);
        } else if (into("status", parse_process_status, next.status)) {
            next.valid |= next.status.has_kinds ? kValidStatus | kValidKinds : std::uint32_t{kValidStatus};
        }
        next.uid = (next.valid & kValidStatus) != 0 ? next.status.uid : -1;
        if (!same) kept_.drop(row.kept);
        row.threaded = (same && row.threaded) || next.stat.threads > 1;
        row.record = next;
        utilize(row, cpu_ns, same);
        // Not all of them at once the next time, though all were seen at once the first time.
        row.refresh_at = row.cpu_at + (same ? kRefresh : kRefresh / 128 * (64 + pid % 64));
    }
    files_.close(directory);
    if (outcome == ReadOutcome::read && row.record.stat.pid != pid) {
        row.record.stat.pid = pid;
        return ReadOutcome::malformed;
    }
    return outcome;
}

void GatedProcesses::utilize(Row& row, std::int64_t cpu_ns, bool same) const noexcept {
    const Nanos now = clock_->mono();
    row.record.utilization = kNaN;
    if (same && now > row.cpu_at && cpu_ns >= row.cpu_ns) {
        row.record.utilization = static_cast<double>(cpu_ns - row.cpu_ns) / static_cast<double>(now - row.cpu_at);
        row.record.valid |= kValidUtilization;
    }
    row.cpu_ns = cpu_ns;
    row.cpu_at = now;
}

// A process that has ended leaves its children to another, and they do not run for that.
void GatedProcesses::follow_orphans() {
    if (ended_.empty()) return;
    std::sort(ended_.begin(), ended_.end());
    for (Row& row : rows_) {
        if (row.gone || row.outcome != ReadOutcome::read) continue;
        if (!std::binary_search(ended_.begin(), ended_.end(), row.record.stat.ppid)) continue;
        ProcessRecord now;
        const int directory = open_process(row.record.stat.pid);
        if (directory >= 0 && files_.read_stat_at(directory, now) == ReadOutcome::read &&
            same_process(now.stat, row.record.stat)) {
            row.record.stat.ppid = now.stat.ppid;
        }
        if (directory >= 0) files_.close(directory);
    }
}

Result<bool> GatedProcesses::ask_taskstats() {
    if (taskstats_ == nullptr) return true;
    std::array<std::int32_t, Taskstats::kBatch> pids;
    std::array<std::uint32_t, Taskstats::kBatch> at;
    std::array<TaskAccount, Taskstats::kBatch> accounts;
    std::size_t count = 0;
    for (std::uint32_t i = 0; i < rows_.size(); ++i) {
        if (!rows_[i].gone && rows_[i].read_now && !rows_[i].threaded) {
            pids[count] = rows_[i].record.stat.pid;
            at[count++] = i;
        }
        if (count == 0 || (count < Taskstats::kBatch && i + 1 < rows_.size())) continue;
        const auto asked = taskstats_->query({pids.data(), count}, {accounts.data(), count});
        if (!asked) return asked.error();
        for (std::size_t j = 0; j < count; ++j) take_account(rows_[at[j]], accounts[j]);
        count = 0;
    }
    return true;
}

// The file counts threads that have ended, too. Where it tells more than the thread there is, there have been others.
void GatedProcesses::take_account(Row& row, const TaskAccount& account) noexcept {
    if (account.pid == 0) return;
    ProcessRecord& r = row.record;
    const bool others = (r.valid & kValidIo) != 0 && (r.io.read_chars >= account.read_chars + kKiB ||
                                                      r.io.write_chars >= account.write_chars + kKiB ||
                                                      r.io.read_bytes >= account.read_bytes + kKiB ||
                                                      r.io.write_bytes >= account.write_bytes + kKiB);
    if (others) {
        row.threaded = true;
        kept_.drop(row.kept);
        return;
    }
    r.io = {account.read_chars, account.write_chars, account.read_bytes, account.write_bytes};
    r.status.voluntary = account.voluntary;
    r.status.involuntary = account.involuntary;
    r.uid = account.uid;
    r.valid |= kValidIo | kValidStatus;
}

void GatedProcesses::publish(ProcessTable& out) {
    const auto gone = std::remove_if(rows_.begin(), rows_.end(), [](const Row& row) { return row.gone; });
    rows_.erase(gone, rows_.end());
    out.reserve_rows(rows_.size());
    for (const Row& row : rows_) {
        if (row.outcome == ReadOutcome::read) put_row(out, out.count++, row.record, units_);
    }
}

}  // namespace argus::sources
