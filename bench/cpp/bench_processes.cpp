// host_processes_*: the process table, in CPU time of the reading thread per process. `hot` = in a tight loop; `cold` =
// 96 MB touched before each read, what a reader really pays that comes once a second.
//   bpf/hot|cold/N, bpf/thread    tier bpf with N idle processes; what a further thread adds
//   gated/idle|active/N           tier gated: a process that did not run, one that did (both cold); the peer of the
//                                 latter is the kernel alone, asked for the same files
//   naive                         the peer: open, read, close and parse five files of each process (cold)
// Checks first that the tiers agree. A machine that lacks a tier, or memory for the processes, leaves its figures out.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "crowd.hpp"
#include "poll_cost.hpp"
#include "report.hpp"
#include "sources/processes/scanner.hpp"

namespace {

using namespace argus;
using bench::Crowd;
using bench::median_cpu_ns;
using sources::ProcessScanner;
using sources::ProcessTable;
using sources::Tier;

constexpr double kNaiveRatio = 60;  // times cheaper than five files of each process, both cold
const SystemClock kClock;

bool room_for(int processes) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur < static_cast<rlim_t>(processes) * 2) return false;
    const long pages = sysconf(_SC_AVPHYS_PAGES);
    return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)) > processes * 400e3;
}

unsigned long parse(const char* at, std::size_t size) {
    unsigned long sum = 0;
    for (const char* end = at + size; at < end;) {
        unsigned digit = static_cast<unsigned char>(*at++) - '0';
        if (digit > 9) continue;
        unsigned long value = digit;
        while (at < end && (digit = static_cast<unsigned char>(*at) - '0') <= 9) {
            value = value * 10 + digit;
            ++at;
        }
        sum += value;
    }
    return sum;
}

unsigned long read_naively(const ProcessTable& table) {
    static char buffer[8192];
    unsigned long sum = 0;
    char path[64];
    for (std::size_t row = 0; row < table.count; ++row) {
        for (const char* name : {"stat", "io", "status", "statm", "schedstat"}) {
            std::snprintf(path, sizeof path, "/proc/%d/%s", table.pid[row], name);
            const int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd < 0) continue;
            const ssize_t size = read(fd, buffer, sizeof buffer);
            close(fd);
            if (size > 0) sum += parse(buffer, static_cast<std::size_t>(size));
        }
    }
    return sum;
}

std::unique_ptr<ProcessScanner> make(Tier tier) {
    auto made = sources::make_scanner(tier, {}, system_io(), kClock);
    if (!made) {
        std::printf("host_processes_%s left out: %s\n", to_string(tier), made.error().what);
        return nullptr;
    }
    return std::move(*made);
}

bool report(const std::string& name, double value, const char* against, double ratio, double bar, bool good) {
    return bench::report(("host_processes_" + name).c_str(), value, "ns", against, ratio, bar, good);
}

bool agree(const ProcessTable& a, const ProcessTable& b) {
    std::size_t same = 0;
    for (std::size_t i = 0, j = 0; i < a.count && j < b.count;) {
        if (a.pid[i] == b.pid[j]) same += a.start_time_ns[i] == b.start_time_ns[j] && a.ppid[i] == b.ppid[j];
        a.pid[i] <= b.pid[j] ? ++i : ++j;
    }
    return same * 100 >= a.count * 99;  // others come and go meanwhile
}

bool bench_bpf(int processes, bench::ColdCache& cache, double naive_ns) {
    const auto scanner = make(Tier::bpf);
    if (scanner == nullptr) return true;
    ProcessTable table;
    if (!scanner->scan(table)) return report("bpf/hot", 0, "a table", 0, 0, false);
    const auto count = static_cast<double>(table.count);
    const auto scan = [&] { (void)scanner->scan(table); };
    const double hot = median_cpu_ns(101, scan) / count;
    const double cold = median_cpu_ns(31, scan, [&] { cache.touch(); }) / count;
    const std::string size = "/" + std::to_string(processes);
    const double hot_bar = naive_ns == 0 ? 600 : 150;  // so many fit no cache: never hot
    bool good = report("bpf/hot" + size, hot, "one process", 1, hot_bar, hot <= hot_bar);
    good = report("bpf/cold" + size, cold, "one process", 1, 600, cold <= 600) && good;
    if (naive_ns == 0) return good;
    return report("bpf/naive" + size, cold, "five files, cold", naive_ns / cold, naive_ns / kNaiveRatio,
                  naive_ns >= kNaiveRatio * cold) && good;
}

bool bench_threads() {
    const auto scanner = make(Tier::bpf);
    if (scanner == nullptr) return true;
    constexpr int kProcesses = 20;
    constexpr int kThreads = 200;
    ProcessTable table;
    const auto scan = [&] { (void)scanner->scan(table); };
    const double before = median_cpu_ns(51, scan);
    const Crowd crowd(kProcesses, kThreads);
    const double after = median_cpu_ns(51, scan);
    const double each = (after - before) / (crowd.good() * kThreads);
    return report("bpf/thread", each, "a further thread", 1, 100, each <= 100);
}

// What the kernel alone takes for the three files of a process that ran, through kept descriptors.
double bare_reads_ns(const Crowd& crowd, bench::ColdCache& cache) {
    std::vector<int> files;
    for (const pid_t pid : crowd.pids()) {
        for (const char* name : {"stat", "statm", "io"}) {
            const int fd = open(("/proc/" + std::to_string(pid) + "/" + name).c_str(), O_RDONLY | O_CLOEXEC);
            if (fd >= 0) files.push_back(fd);
        }
    }
    char buffer[4096];
    const double took = median_cpu_ns(15, [&] {
        for (const int fd : files) (void)!pread(fd, buffer, sizeof buffer, 0);
    }, [&] {
        crowd.wake();
        usleep(100'000);
        cache.touch();
    });
    for (const int fd : files) close(fd);
    return took / crowd.good();
}

bool bench_gated(int processes, bench::ColdCache& cache, const Crowd& crowd, double naive_ns) {
    const auto scanner = make(Tier::gated);
    if (scanner == nullptr) return true;
    ProcessTable table;
    const auto scan = [&] { (void)scanner->scan(table); };
    scan();
    // Others run, too: two scans with different shares of processes that ran tell the two prices apart.
    const double calm = median_cpu_ns(31, scan, [&] { cache.touch(); });
    const auto calm_idle = static_cast<double>(table.gated);
    const double calm_ran = static_cast<double>(table.count) - calm_idle;
    const double busy = median_cpu_ns(15, scan, [&] {
        crowd.wake();
        usleep(100'000);
        cache.touch();
    });
    const auto busy_idle = static_cast<double>(table.gated);
    const double busy_ran = static_cast<double>(table.count) - busy_idle;
    if (busy_ran < processes * 0.9) std::printf("host_processes_gated/active: only %.0f ran\n", busy_ran);
    const double active = (busy * calm_idle - calm * busy_idle) / (busy_ran * calm_idle - calm_ran * busy_idle);
    const double idle = (calm - active * calm_ran) / calm_idle;
    const double bare = bare_reads_ns(crowd, cache);
    const std::string size = "/" + std::to_string(processes);
    const bool good = report("gated/idle" + size, idle, "five files, cold", naive_ns / idle, 1000, idle <= 1000);
    return report("gated/active" + size, active, "bare reads of its three kept files, cold", active / bare,
                  7'000, active <= 7'000) && good;
}

}  // namespace

int main() {
    constexpr int kProcesses = 1000;
    constexpr int kMany = 20'000;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    bool good = bench_threads();
    if (room_for(kMany)) {  // before this process grows: its children share what it has
        const Crowd crowd(kMany, 1);
        bench::ColdCache cache;
        if (crowd.good() == kMany) good = bench_bpf(kMany, cache, 0) && good;
    }
    const Crowd crowd(kProcesses, 0);
    bench::ColdCache cache;
    ProcessTable walked;
    if (crowd.good() < kProcesses || !make(Tier::tree)->scan(walked)) return 1;
    for (const Tier tier : {Tier::bpf, Tier::taskstats, Tier::gated}) {
        ProcessTable table;
        const auto scanner = make(tier);
        if (scanner == nullptr) continue;
        if (!scanner->scan(table) || !agree(walked, table)) return 1;
    }
    unsigned long sum = 0;
    const double naive = median_cpu_ns(5, [&] { sum += read_naively(walked); }, [&] { cache.touch(); }) /
                         static_cast<double>(walked.count);
    std::printf("naive: %.0f ns a process (%lu)\n", naive, sum % 10);
    good = bench_bpf(kProcesses, cache, naive) && good;
    good = bench_gated(kProcesses, cache, crowd, naive) && good;
    return good ? 0 : 1;
}
