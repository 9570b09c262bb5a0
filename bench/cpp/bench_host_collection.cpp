// What collecting costs, in CPU time.
//   host_sample/LANE/hot|cold   one poll of every source of the fast lane, or of all, that reads files, with the values
//                               it gave; the peer makes the same opens, reads and closes of the same files and looks
//                               at nothing; the bar is 1.1 times that. Each source by itself is a remark, and so are
//                               those that ask the kernel by other ways (netlink, perf, BPF, statfs), together.
//   host_collection/TIER/RATE   the samplers of host and process table beside 1,000 processes, at RATE, with the slow
//                               lane at its own: share of a core. Of gated, one process in twenty runs each second.
//   host_memory/rss             of this process in the end: the core without Python
// With --collect SECONDS it collects once a second, each process in the cheapest way, and prints only the numbers of a
// second: bench_peers.py measures it from outside, as its peers.
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "crowd.hpp"
#include "engine/catalog.hpp"
#include "engine/host_plane.hpp"
#include "poll_cost.hpp"
#include "report.hpp"
#include "sources/processes/scanner.hpp"

namespace {

using namespace argus;
using bench::Count;
using bench::median_cpu_ns;

// What a poll asked the system for, to be asked again by itself.
struct Call {
    enum class Kind { open, pread, dents, close } kind = Kind::open;
    int fd = -1;  // of an open: the folder
    int flags = 0;
    std::size_t size = 0;
    off_t offset = 0;
    int answer = -1;  // the descriptor that an open gave
    std::string path;
};
std::vector<Call> recorded;
bool recording = false;

int open_recorded(int folder, const char* path, int flags) {
    const int fd = system_io().open_at(folder, path, flags);
    if (recording) recorded.push_back({Call::Kind::open, folder, flags, 0, 0, fd, path});
    return fd;
}
ssize_t pread_recorded(int fd, void* buffer, std::size_t size, off_t offset) {
    if (recording) recorded.push_back({Call::Kind::pread, fd, 0, size, offset, -1, {}});
    return system_io().pread(fd, buffer, size, offset);
}
ssize_t dents_recorded(int fd, void* buffer, std::size_t size) {
    if (recording) recorded.push_back({Call::Kind::dents, fd, 0, size, 0, -1, {}});
    return system_io().get_dents(fd, buffer, size);
}
int close_recorded(int fd) {
    if (recording) recorded.push_back({Call::Kind::close, fd, 0, 0, 0, -1, {}});
    return system_io().close(fd);
}
constexpr Io kRecordingIo{open_recorded, pread_recorded, dents_recorded, close_recorded};

void replay(const std::vector<Call>& calls, std::vector<int>& now_open) {
    alignas(4096) static char buffer[1 << 16];
    const Io& io = system_io();
    off_t end = 0;  // of what was read last
    const auto current = [&](int fd) { return fd >= 0 && now_open[static_cast<std::size_t>(fd)] >= 0
                                                  ? now_open[static_cast<std::size_t>(fd)] : fd; };
    for (const Call& call : calls) {
        switch (call.kind) {
            case Call::Kind::open: {
                const int fd = io.open_at(current(call.fd), call.path.c_str(), call.flags);
                if (call.answer >= 0) now_open[static_cast<std::size_t>(call.answer)] = fd;
                break;
            }
            case Call::Kind::pread:
                // Goes on where the file ends now: the kernel would write a file again for its last new digits.
                end = call.offset == 0 ? 0 : end;
                end += std::max<off_t>(0, io.pread(current(call.fd), buffer, std::min(call.size, sizeof buffer), end));
                break;
            case Call::Kind::dents:
                (void)io.get_dents(current(call.fd), buffer, std::min(call.size, sizeof buffer));
                break;
            case Call::Kind::close:
                (void)io.close(current(call.fd));
                now_open[static_cast<std::size_t>(call.fd)] = -1;
                break;
        }
    }
}

// A source that is polled, and the calls of one of its polls.
struct Polled {
    const sources::SourceDescriptor* descriptor;
    std::unique_ptr<sources::Source> source;
    std::vector<Call> calls;
    std::uint32_t values = 0;
};

// What it tells comes from files, so that their bare reads are its floor.
bool reads_files(const Polled& polled) {
    constexpr std::string_view kOtherWays[] = {"network", "sockets",    "exits",       "perf",
                                               "gpu",     "filesystem", "availability"};
    return std::find(std::begin(kOtherWays), std::end(kOtherWays), polled.descriptor->name) == std::end(kOtherWays);
}

// Of the fast lane, which is what a second costs, or of all.
bool bench_sample(const char* which, std::vector<Polled>& all, bool slow_too, bench::ColdCache& cache) {
    std::vector<Polled*> chosen;
    Count count;
    Nanos now = 0;
    std::uint32_t values = 0;
    for (Polled& each : all) {
        if (!slow_too && each.descriptor->lane != sources::Lane::fast) continue;
        if (!reads_files(each)) continue;
        chosen.push_back(&each);
        values += each.values;
    }
    std::vector<int> now_open(65'536, -1);
    const auto poll = [&] {
        ++now;
        for (Polled* each : chosen) (void)each->source->poll(now, count);
    };
    const auto bare_calls = [&] {
        for (const Polled* each : chosen) replay(each->calls, now_open);
    };
    bool good = true;
    for (const bool cold : {false, true}) {
        const auto before = [&] {
            if (cold) cache.touch();
        };
        double ours = 1e300, bare = 1e300;
        for (int round = 0; round < 3; ++round) {  // taken in turns: the machine's speed changes
            ours = std::min(ours, median_cpu_ns(41, poll, before));
            bare = std::min(bare, median_cpu_ns(41, bare_calls, before));
        }
        const std::string name = std::string("host_sample/") + which + (cold ? "/cold/" : "/hot/") +
                                 std::to_string(values);
        good = bench::report(name.c_str(), ours / 1e3, "us", "the same calls alone", ours / bare, bare * 1.1 / 1e3,
                             ours <= bare * 1.1) && good;
    }
    return good;
}

bool bench_samples() {
    std::vector<Polled> all;
    for (const auto* descriptor : engine::source_catalog()) {
        auto source = descriptor->open({}, kRecordingIo);
        if (!source) continue;
        Polled each{descriptor, std::move(*source), {}, 0};
        Count count;
        for (Nanos now = 1; now <= 3; ++now) (void)each.source->poll(now, count);
        count.values = 0;
        recorded.clear();
        recording = true;
        (void)each.source->poll(4, count);
        recording = false;
        each.calls = recorded;
        each.values = count.values;
        all.push_back(std::move(each));
    }
    bench::ColdCache cache;
    std::vector<int> now_open(65'536, -1);
    for (Polled& each : all) {
        Count count;
        Nanos now = 4;
        const double ours = median_cpu_ns(41, [&] { (void)each.source->poll(++now, count); });
        const double bare = median_cpu_ns(41, [&] { replay(each.calls, now_open); });
        std::printf("# %-20s %-4s %4u values %8.1f us, %6.1f us in %zu calls\n", each.descriptor->name,
                    each.descriptor->lane == sources::Lane::fast ? "fast" : "slow", each.values, ours / 1e3, bare / 1e3,
                    each.calls.size());
    }
    const double others = median_cpu_ns(41, [&] {
        Count count;
        static Nanos now = 1000;
        ++now;
        for (Polled& each : all) {
            if (!reads_files(each)) (void)each.source->poll(now, count);
        }
    });
    std::printf("# by other ways than files: %.1f us\n", others / 1e3);
    const bool fast = bench_sample("fast", all, false, cache);
    return bench_sample("all", all, true, cache) && fast;
}

struct Rate {
    const char* name;
    std::int64_t interval_ms;
    double seconds;
    double bar;  // % of a core
};

bool bench_collection(const char* tier, const Rate& rate, const bench::Crowd& crowd) {
    const SystemClock clock;
    engine::HostOptions options;
    options.process_tier = tier;
    options.processes_interval_ms = rate.interval_ms;
    options.bursts.interval = 0;
    for (const auto* descriptor : engine::source_catalog()) {
        if (descriptor->lane != sources::Lane::fast) continue;
        options.sources.push_back({descriptor->name, true, rate.interval_ms, {}});
    }
    engine::HostPlane plane(std::move(options), engine::source_catalog(), system_io(), clock);
    plane.start();
    const auto run = [&](double seconds) {
        for (int i = 0; i < static_cast<int>(seconds); ++i) {
            if (std::string(tier) == "gated") crowd.wake(20);
            std::this_thread::sleep_for(std::chrono::seconds(1));
            plane.drain();
        }
    };
    run(3);
    const std::size_t rows = plane.processes().count;
    const Nanos start = read_clock(CLOCK_MONOTONIC);
    const Nanos before = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    run(rate.seconds);
    const auto used = static_cast<double>(read_clock(CLOCK_PROCESS_CPUTIME_ID) - before);
    const double share = 100 * used / static_cast<double>(read_clock(CLOCK_MONOTONIC) - start);
    std::uint64_t missed = 0;
    for (const auto& status : plane.status()) missed += status.missed;
    plane.stop();
    std::printf("# %s/%s: %zu processes, %llu polls missed\n", tier, rate.name, rows,
                static_cast<unsigned long long>(missed));
    const std::string name = std::string("host_collection/") + tier + "/" + rate.name;
    return bench::report(name.c_str(), share, "% of a core", "one core", share / 100, rate.bar,
                         share <= rate.bar && rows >= 1000);
}

// pid, parent, start, user, threads, nice, last processor, cgroup.
constexpr std::size_t kIdentityNumbers = 8;

int collect(int seconds) {
    const SystemClock clock;
    engine::HostPlane plane({}, engine::source_catalog(), system_io(), clock);
    plane.start();
    for (int i = 0; i < seconds; ++i) {
        std::this_thread::sleep_for(std::chrono::seconds(1));
        plane.drain();
        const auto& table = plane.processes();
        std::size_t open = 0;
        for (const auto& entry : plane.series()) open += entry.open;
        std::printf("%zu\n", open + table.count * (kIdentityNumbers + sources::kProcessColumns));
        std::fflush(stdout);
    }
    plane.stop();
    return 0;
}

double rss_mb() {
    std::ifstream in("/proc/self/statm");
    double pages = 0;
    in >> pages >> pages;
    return pages * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 3 && std::string(argv[1]) == "--collect") return collect(std::atoi(argv[2]));
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    bool good = true;
    if (argc == 2 && std::string(argv[1]) == "--samples") return bench_samples() ? 0 : 1;
    {
        const bench::Crowd crowd(1000, 0);
        if (crowd.good() < 1000) return 1;
        const bool privileged = sources::make_scanner(sources::Tier::bpf, {}, system_io(), SystemClock()).ok();
        if (privileged) {
            const Rate rates[] = {{"1Hz", 1000, 20, 0.10}, {"10Hz", 100, 10, 0.9}, {"100Hz", 10, 10, 7.5}};
            for (const Rate& rate : rates) {
                good = bench_collection("bpf", rate, crowd) && good;
            }
        }
        good = bench::report("host_memory/rss", rss_mb(), "MB", "-", 0, 8, rss_mb() <= 8) && good;
        for (const Rate& rate : {Rate{"1Hz", 1000, 20, 0.3}, Rate{"10Hz", 100, 10, 1.6}}) {
            good = bench_collection("gated", rate, crowd) && good;
        }
    }
    return bench_samples() && good ? 0 : 1;
}
