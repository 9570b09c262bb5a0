#include "sources/processes/files.hpp"

#include <dirent.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstring>
#include <limits>

#include "sources/kernel_file.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kListBytes = 64 * 1024;
constexpr std::size_t kMaxProcesses = std::size_t{1} << 22;  // PID_MAX_LIMIT
constexpr const char* kWhere = "proc: expected a directory of processes";
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Names under /proc that are processes: digits only, no leading zero, an int32.
bool parse_pid(const char* name, std::int32_t& out) noexcept {
    if (name[0] < '1' || name[0] > '9') return false;
    const char* end = name + std::strlen(name);
    const auto [stop, status] = std::from_chars(name, end, out);
    return status == std::errc{} && stop == end;
}

ReadOutcome outcome_of(int status) noexcept {
    if (status == 0) return ReadOutcome::read;
    if (status == -EPROTO) return ReadOutcome::malformed;
    return is_gone(status) ? ReadOutcome::gone : ReadOutcome::unreadable;
}

auto stat_into(ProcessRecord& out) noexcept {
    return [&out](std::string_view text) {
        if (!parse_process_stat(text, out.stat)) return false;
        out.name.fill('\0');
        std::memcpy(out.name.data(), out.stat.name.data(), std::min(out.stat.name.size(), kProcessNameBytes));
        out.stat.name = {};
        return true;
    };
}

}  // namespace

KernelUnits::KernelUnits() noexcept {
    const long hertz = sysconf(_SC_CLK_TCK);
    const long page = sysconf(_SC_PAGESIZE);
    ns_per_tick = static_cast<std::uint64_t>(kSecond / (hertz > 0 ? hertz : 100));
    page_bytes = static_cast<std::uint64_t>(page > 0 ? page : 4096);
}

ProcessFiles::ProcessFiles(std::string proc, const Io& io) : proc_(std::move(proc)), io_(&io), buffer_(kListBytes) {}

int ProcessFiles::open_at(int directory, const char* path, int flags) noexcept {
    int fd = -EINTR;
    for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) fd = io_->open_at(directory, path, flags);
    return fd;
}

int ProcessFiles::open_root() noexcept {
    return open_at(AT_FDCWD, proc_.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
}

int ProcessFiles::open_process(int root, std::int32_t pid) noexcept {
    char path[16];
    *std::to_chars(path, path + sizeof path - 1, pid).ptr = '\0';
    return open_at(root, path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

Result<bool> ProcessFiles::list(int root, std::vector<std::int32_t>& out) {
    out.clear();
    if (root < 0) return Error{errc_of(-root), -root, kWhere};
    int interruptions = 0;
    while (true) {
        const ssize_t got = io_->get_dents(root, buffer_.data(), kListBytes);
        if (got == 0) break;
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got < 0) return Error{errc_of(static_cast<int>(-got)), static_cast<int>(-got), kWhere};
        for (std::size_t at = 0; at + offsetof(dirent64, d_name) < static_cast<std::size_t>(got);) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer_.data() + at);
            std::int32_t pid = 0;
            if (parse_pid(entry->d_name, pid) && out.size() < kMaxProcesses) out.push_back(pid);
            if (entry->d_reclen == 0) break;
            at += entry->d_reclen;
        }
    }
    // procfs lists in order; another filesystem (a fixture tree) does not, nor exactly once while it changes.
    if (!std::is_sorted(out.begin(), out.end())) std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return true;
}

ReadOutcome ProcessFiles::read_stat(int fd, ProcessRecord& out) { return outcome_of(read(fd, stat_into(out))); }

ReadOutcome ProcessFiles::read_stat_at(int directory, ProcessRecord& out) {
    return outcome_of(read_at(directory, "stat", stat_into(out)));
}

void begin_table(ProcessTable& table, const Clock& clock) noexcept {
    table.time = clock.mono();
    table.wall = clock.wall();
    table.count = 0;
    table.vanished = table.unreadable = table.malformed = table.gated = 0;
}

void put_row(ProcessTable& out, std::size_t row, const ProcessRecord& r, const KernelUnits& units) noexcept {
    out.pid[row] = r.stat.pid;
    out.ppid[row] = r.stat.ppid;
    out.start_time_ns[row] = static_cast<std::int64_t>(r.stat.start_ticks * units.ns_per_tick);
    out.name[row] = r.name;
    out.state[row] = r.stat.state;
    out.threads[row] = r.stat.threads;
    out.nice[row] = r.stat.nice;
    out.last_cpu[row] = r.stat.last_cpu;
    out.valid[row] = r.valid;
    out.uid[row] = r.uid;
    out.cgroup_id[row] = -1;
    const auto put = [&](ProcessColumn column, std::uint32_t bit, std::uint64_t value, double unit = 1.0) {
        out.columns[static_cast<std::size_t>(column)][row] =
            (r.valid & bit) != 0 ? static_cast<double>(value) * unit : kNaN;
    };
    const auto put_ns = [&](ProcessColumn column, std::uint32_t bit, std::uint64_t ns) {
        out.columns[static_cast<std::size_t>(column)][row] =
            (r.valid & bit) != 0 ? static_cast<double>(ns) / 1e9 : kNaN;
    };
    const auto page = static_cast<double>(units.page_bytes);
    using enum ProcessColumn;
    put_ns(cpu_user, kValidStat, r.stat.user_ticks * units.ns_per_tick);
    put_ns(cpu_system, kValidStat, r.stat.system_ticks * units.ns_per_tick);
    out.columns[static_cast<std::size_t>(cpu_utilization)][row] = r.utilization;
    put(rss, kValidMemory, r.memory.resident_pages, page);
    put(virtual_, kValidStat, r.stat.virtual_bytes);
    put(shared, kValidMemory, r.memory.shared_pages, page);
    put(minor_faults, kValidStat, r.stat.minor_faults);
    put(major_faults, kValidStat, r.stat.major_faults);
    put(read_bytes, kValidIo, r.io.read_bytes);
    put(write_bytes, kValidIo, r.io.write_bytes);
    put(read_chars, kValidIo, r.io.read_chars);
    put(write_chars, kValidIo, r.io.write_chars);
    put(voluntary_switches, kValidStatus, r.status.voluntary);
    put(involuntary_switches, kValidStatus, r.status.involuntary);
    put_ns(run_delay, kValidSchedule, r.schedule.delay_ns);
    put(rss_anon, kValidKinds, r.status.anon_kib, 1024);
    put(rss_file, kValidKinds, r.status.file_kib, 1024);
    put(rss_shmem, kValidKinds, r.status.shmem_kib, 1024);
    put(swap, kValidKinds, r.status.swap_kib, 1024);
}

}  // namespace argus::sources
