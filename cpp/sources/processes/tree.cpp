// Tier `tree` of the process table: getdents64 on the proc root, then each process' files through one directory
// descriptor, which the kernel binds to the task and not to the number: a pid reused between two files cannot mix them.
// Cost: about 20 us an idle process (three small files), 36 us one that ran (five).
// Failure: a process that vanishes is counted as vanished; unreadable groups clear their validity bit.
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "sources/kernel_file.hpp"
#include "sources/processes/processes.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kListBytes = 64 * 1024;
constexpr std::size_t kFileBytes = 4096;             // holds every file of nearly every process
constexpr std::size_t kFileCapBytes = 256 * 1024;    // a status with 65,536 groups would be longer: marked unreadable
constexpr std::size_t kMaxProcesses = std::size_t{1} << 22;  // PID_MAX_LIMIT
constexpr int kInterruptions = 16;
constexpr const char* kWhere = "proc: expected a directory of processes";
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

constexpr ColumnInfo kColumns[kProcessColumns] = {
    {"cpu_user_s", "s", "processor time in user mode since start"},
    {"cpu_system_s", "s", "processor time in kernel mode since start"},
    {"cpu_utilization", "1", "processors used since the previous read; NaN at first sight"},
    {"rss_bytes", "By", "resident memory"},
    {"virtual_bytes", "By", "address space"},
    {"shared_bytes", "By", "resident memory backed by files or shared memory"},
    {"minor_faults", "{fault}", "page faults served without reading a disk"},
    {"major_faults", "{fault}", "page faults that read a disk"},
    {"read_bytes", "By", "bytes read from storage"},
    {"write_bytes", "By", "bytes written to storage"},
    {"read_chars", "By", "bytes read by system calls, also from caches and pipes"},
    {"write_chars", "By", "bytes written by system calls"},
    {"voluntary_switches", "{switch}", "context switches of the main thread that gave the processor up"},
    {"involuntary_switches", "{switch}", "context switches of the main thread that was preempted"},
    {"run_delay_s", "s", "time the main thread was ready and waited for a processor"},
};

// Names under /proc that are processes: digits only, no leading zero, an int32.
bool parse_pid(const char* name, std::int32_t& out) noexcept {
    if (name[0] < '1' || name[0] > '9') return false;
    const char* end = name + std::strlen(name);
    const auto [stop, status] = std::from_chars(name, end, out);
    return status == std::errc{} && stop == end;
}

bool is_gone(int negative_errno) noexcept {
    return negative_errno == -ENOENT || negative_errno == -ESRCH || negative_errno == -ENOTDIR;
}

bool same_process(const ProcessStat& a, const ProcessStat& b) noexcept {
    return a.pid == b.pid && a.start_ticks == b.start_ticks;
}

}  // namespace

std::span<const ColumnInfo, kProcessColumns> process_columns() noexcept { return kColumns; }

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
    valid.resize(size);
    for (auto& values : columns) values.resize(size);
}

ProcessTree::ProcessTree(std::string proc, const Io& io, const Clock& clock)
    : proc_(std::move(proc)), io_(&io), clock_(&clock), buffer_(kListBytes) {
    const long hertz = sysconf(_SC_CLK_TCK);
    const long page = sysconf(_SC_PAGESIZE);
    ns_per_tick_ = static_cast<std::uint64_t>(kSecond / (hertz > 0 ? hertz : 100));
    page_bytes_ = static_cast<std::uint64_t>(page > 0 ? page : 4096);
}

int ProcessTree::open_at(int directory, const char* path, int flags) noexcept {
    int fd = -EINTR;
    for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) fd = io_->open_at(directory, path, flags);
    return fd;
}

Result<bool> ProcessTree::list(int root) {
    pids_.clear();
    int interruptions = 0;
    while (true) {
        const ssize_t got = io_->get_dents(root, buffer_.data(), kListBytes);
        if (got == 0) break;
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got < 0) return Error{errc_of(static_cast<int>(-got)), static_cast<int>(-got), kWhere};
        for (std::size_t at = 0; at + offsetof(dirent64, d_name) < static_cast<std::size_t>(got);) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer_.data() + at);
            std::int32_t pid = 0;
            if (parse_pid(entry->d_name, pid) && pids_.size() < kMaxProcesses) pids_.push_back(pid);
            if (entry->d_reclen == 0) break;
            at += entry->d_reclen;
        }
    }
    // procfs lists in order; another filesystem (a fixture tree) does not, nor exactly once while it changes.
    if (!std::is_sorted(pids_.begin(), pids_.end())) std::sort(pids_.begin(), pids_.end());
    pids_.erase(std::unique(pids_.begin(), pids_.end()), pids_.end());
    return true;
}

// One read is the whole file as a rule; what does not parse yet is read on to its end before it is judged.
template <class Parse>
int ProcessTree::read_file(int directory, const char* name, Parse&& parse) {
    const int fd = open_at(directory, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY);
    if (fd < 0) return fd;
    std::size_t size = 0;
    std::size_t room = kFileBytes;
    int interruptions = 0;
    int status = -EPROTO;
    while (true) {
        const ssize_t got = io_->pread(fd, buffer_.data() + size, room - size, static_cast<off_t>(size));
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got < 0) status = static_cast<int>(got);
        if (got <= 0) break;
        size += static_cast<std::size_t>(got);
        interruptions = 0;
        if (parse(std::string_view(buffer_.data(), size))) {
            status = 0;
            break;
        }
        if (size == room) {
            if (room >= kFileCapBytes) break;
            room = std::min(kFileCapBytes, room * 4);
            if (buffer_.size() < room) buffer_.resize(room);
        }
    }
    io_->close(fd);
    return size == 0 && status == -EPROTO ? -ESRCH : status;  // nothing to read: the task is gone
}

ProcessTree::Outcome ProcessTree::read_process(int root, std::int32_t pid, const Record* before, Record& out,
                                               ProcessTable& table) {
    char path[16];
    *std::to_chars(path, path + sizeof path - 1, pid).ptr = '\0';
    const int directory = open_at(root, path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (directory < 0) return is_gone(directory) ? Outcome::gone : Outcome::unreadable;
    const Outcome outcome = read_groups(directory, before, out, table);
    io_->close(directory);
    if (outcome == Outcome::read && out.stat.pid != pid) return Outcome::malformed;
    return outcome;
}

ProcessTree::Outcome ProcessTree::read_groups(int directory, const Record* before, Record& out, ProcessTable& table) {
    out.read_at = clock_->mono();
    const int stat = read_file(directory, "stat", [&](std::string_view text) {
        if (!parse_process_stat(text, out.stat)) return false;
        out.name.fill('\0');
        const std::size_t size = std::min(out.stat.name.size(), kProcessNameBytes);
        std::memcpy(out.name.data(), out.stat.name.data(), size);
        out.stat.name = {};
        return true;
    });
    if (stat == -EPROTO) return Outcome::malformed;
    if (stat < 0) return is_gone(stat) ? Outcome::gone : Outcome::unreadable;
    out.valid = kValidStat;
    const auto group = [&](const char* name, std::uint32_t bit, auto parse, auto& target) {
        if (read_file(directory, name, [&](std::string_view text) { return parse(text, target); }) == 0) {
            out.valid |= bit;
        }
    };
    group("statm", kValidMemory, parse_process_memory, out.memory);
    group("schedstat", kValidSchedule, parse_process_schedule, out.schedule);
    const bool same = before != nullptr && same_process(before->stat, out.stat);
    const bool idle = same && out.stat.threads == 1 && before->stat.threads == 1 && out.stat.state != 'R' &&
                      (out.valid & before->valid & kValidSchedule) != 0 &&
                      out.schedule.run_ns == before->schedule.run_ns &&
                      out.schedule.timeslices == before->schedule.timeslices;
    if (idle) {
        out.io = before->io;
        out.status = before->status;
        out.valid |= before->valid & (kValidIo | kValidStatus);
        ++table.gated;
    } else {
        group("io", kValidIo, parse_process_io, out.io);
        group("status", kValidStatus, parse_process_status, out.status);
    }
    utilize(same ? before : nullptr, out);
    return Outcome::read;
}

// schedstat counts nanoseconds but only of the main thread; stat counts all threads in ticks.
void ProcessTree::utilize(const Record* before, Record& now) const noexcept {
    now.utilization = kNaN;
    if (before == nullptr || now.read_at <= before->read_at) return;
    const bool exact = now.stat.threads == 1 && before->stat.threads == 1 &&
                       (now.valid & before->valid & kValidSchedule) != 0;
    const auto total = [&](const Record& record) {
        return exact ? record.schedule.run_ns : (record.stat.user_ticks + record.stat.system_ticks) * ns_per_tick_;
    };
    if (total(now) < total(*before)) return;
    const double ran = static_cast<double>(total(now) - total(*before));
    now.utilization = ran / static_cast<double>(now.read_at - before->read_at);
    now.valid |= kValidUtilization;
}

const ProcessTree::Record* ProcessTree::previous(std::int32_t pid) noexcept {
    while (cursor_ < before_.size() && before_[cursor_].stat.pid < pid) ++cursor_;
    return cursor_ < before_.size() && before_[cursor_].stat.pid == pid ? &before_[cursor_] : nullptr;
}

Result<std::uint32_t> ProcessTree::scan(ProcessTable& out) {
    out.time = clock_->mono();
    out.wall = clock_->wall();
    out.count = 0;
    out.vanished = out.unreadable = out.malformed = out.gated = 0;
    const int root = open_at(AT_FDCWD, proc_.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (root < 0) return Error{errc_of(-root), -root, kWhere};
    const auto listed = list(root);
    if (listed) read_all(root, out);
    io_->close(root);
    if (!listed) return listed.error();
    publish(out);
    return static_cast<std::uint32_t>(out.count);
}

void ProcessTree::read_all(int root, ProcessTable& table) {
    std::swap(now_, before_);
    now_.clear();
    cursor_ = 0;
    for (const std::int32_t pid : pids_) {
        Record& record = now_.emplace_back();
        switch (read_process(root, pid, previous(pid), record, table)) {
            case Outcome::read: continue;
            case Outcome::gone: ++table.vanished; break;
            case Outcome::unreadable: ++table.unreadable; break;
            case Outcome::malformed: ++table.malformed; break;
        }
        now_.pop_back();
    }
}

void ProcessTree::publish(ProcessTable& out) const {
    out.reserve_rows(now_.size());
    out.count = now_.size();
    for (std::size_t row = 0; row < now_.size(); ++row) {
        const Record& r = now_[row];
        out.pid[row] = r.stat.pid;
        out.ppid[row] = r.stat.ppid;
        out.start_time_ns[row] = static_cast<std::int64_t>(r.stat.start_ticks * ns_per_tick_);
        out.name[row] = r.name;
        out.state[row] = r.stat.state;
        out.threads[row] = r.stat.threads;
        out.nice[row] = r.stat.nice;
        out.last_cpu[row] = r.stat.last_cpu;
        out.valid[row] = r.valid;
        out.uid[row] = (r.valid & kValidStatus) != 0 ? r.status.uid : -1;
        const auto put = [&](ProcessColumn column, std::uint32_t bit, std::uint64_t value, double per_unit = 1.0) {
            out.columns[static_cast<std::size_t>(column)][row] =
                (r.valid & bit) != 0 ? static_cast<double>(value) / per_unit : kNaN;
        };
        using enum ProcessColumn;
        put(cpu_user, kValidStat, r.stat.user_ticks * ns_per_tick_, 1e9);
        put(cpu_system, kValidStat, r.stat.system_ticks * ns_per_tick_, 1e9);
        out.columns[static_cast<std::size_t>(cpu_utilization)][row] = r.utilization;
        put(rss, kValidMemory, r.memory.resident_pages * page_bytes_);
        put(virtual_, kValidStat, r.stat.virtual_bytes);
        put(shared, kValidMemory, r.memory.shared_pages * page_bytes_);
        put(minor_faults, kValidStat, r.stat.minor_faults);
        put(major_faults, kValidStat, r.stat.major_faults);
        put(read_bytes, kValidIo, r.io.read_bytes);
        put(write_bytes, kValidIo, r.io.write_bytes);
        put(read_chars, kValidIo, r.io.read_chars);
        put(write_chars, kValidIo, r.io.write_chars);
        put(voluntary_switches, kValidStatus, r.status.voluntary);
        put(involuntary_switches, kValidStatus, r.status.involuntary);
        put(run_delay, kValidSchedule, r.schedule.delay_ns, 1e9);
    }
}

}  // namespace argus::sources
