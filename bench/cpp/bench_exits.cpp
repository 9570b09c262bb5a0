// host_exits_*: exits of processes seen, what seeing one costs in the kernel and here, and whether the time of the gone
// and of the living add up to the machine's.
//
//     bench_exits [SECONDS]       a measurement of each; 4 by default, 60 to hold the promise
//     bench_exits soak [MINUTES]  a storm of forks, as fast as they go; 30 by default
//
// The load is made by a process of its own. In-kernel time is what BPF statistics say, which includes their own clock
// readings. Without BPF here, nothing is measured.
#include <dirent.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "report.hpp"
#include "sources/exits.hpp"

namespace argus::sources {
extern const SourceDescriptor exits_source;
}

namespace {

using namespace argus;

constexpr double kExitsPerSecond = 5000;
constexpr double kKernelBarNs = 350;
constexpr double kDrainBarNs = 50;
constexpr double kConservedBar = 0.01;

// --- The source ------------------------------------------------------------------------------------------------------

class Values final : public sources::Emit {
public:
    [[nodiscard]] Slot open_series(SeriesInfo info) override {
        names.push_back(info.full_name());
        values.push_back(0);
        return {static_cast<std::uint32_t>(names.size() - 1), 1};
    }
    void close_series(Slot) override {}
    void value(Slot slot, double value) override { values[slot.index] = value; }
    [[nodiscard]] double sum(const char* prefix) const {
        double out = 0;
        for (std::size_t i = 0; i < names.size(); ++i) out += names[i].starts_with(prefix) ? values[i] : 0;
        return out;
    }
    std::vector<std::string> names;
    std::vector<double> values;
};

struct Watch {
    std::unique_ptr<sources::Source> source;
    sources::ExitSource* exits = nullptr;
    ring::SpscRing<sources::ExitRecord> sink{8192};
    std::vector<sources::ExitRecord> some = std::vector<sources::ExitRecord>(1024);
    Values values;
    Nanos poll_ns = 0;
    std::uint64_t records = 0, of_parent = 0, settled = 0;
    std::int32_t parent = 0;

    bool open() {
        auto opened = sources::exits_source.open({}, system_io(), {{2}, {}});
        if (!opened) {
            std::fprintf(stderr, "host_exits: not measured here: %s\n", opened.error().what);
            return false;
        }
        source = std::move(*opened);
        exits = dynamic_cast<sources::ExitSource*>(source.get());
        return exits != nullptr && source->poll(0, values).ok();
    }
    // A fork shares all memory until it is written: the sink must not pay for that when it is measured.
    void own_memory() {
        const std::vector<sources::ExitRecord> all(sink.capacity());
        (void)sink.try_push(all);
        while (sink.pop(some) > 0) {
        }
    }
    void poll() {
        const Nanos start = read_clock(CLOCK_THREAD_CPUTIME_ID);
        (void)source->poll(0, values);
        poll_ns += read_clock(CLOCK_THREAD_CPUTIME_ID) - start;
        while (const std::size_t count = sink.pop(some)) {
            records += count;
            for (std::size_t i = 0; i < count; ++i) {
                of_parent += some[i].parent == parent ? 1U : 0U;
                settled += (some[i].valid & sources::kExitTime) != 0 ? 1U : 0U;
            }
        }
    }
    [[nodiscard]] double lost() const { return values.sum("argus.exits.lost"); }
};

// --- The load --------------------------------------------------------------------------------------------------------

struct Shared {
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> made{0};
};

class Load {
public:
    explicit Load(const std::function<void()>& one, double per_second = 0) {
        void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        shared_ = new (memory) Shared;
        pid_ = fork();
        if (pid_ == 0) {
            run(one, per_second);
            _exit(0);
        }
    }
    ~Load() {
        stop();
        munmap(shared_, sizeof(Shared));
    }
    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;

    std::uint64_t stop() {
        shared_->stop = true;
        if (pid_ > 0) waitpid(pid_, nullptr, 0);
        pid_ = -1;
        return shared_->made;
    }
    [[nodiscard]] pid_t pid() const { return pid_; }
    [[nodiscard]] std::uint64_t made() const { return shared_->made; }

private:
    void run(const std::function<void()>& one, double per_second) const {
        const Nanos start = read_clock(CLOCK_MONOTONIC);
        while (!shared_->stop) {
            const double due = static_cast<double>(read_clock(CLOCK_MONOTONIC) - start) * 1e-9 * per_second;
            if (per_second > 0 && static_cast<double>(shared_->made) >= due) {
                usleep(500);
                continue;
            }
            one();
            ++shared_->made;
        }
    }

    Shared* shared_;
    pid_t pid_;
};

void exit_at_once() {
    const pid_t child = vfork();
    if (child == 0) _exit(0);
    waitpid(child, nullptr, 0);
}

// Has memory of its own to give back, and works a little.
void short_work() {
    const pid_t child = fork();
    if (child == 0) {
        constexpr std::size_t kBytes = 256 << 10;
        auto* memory = static_cast<volatile char*>(
            mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        for (std::size_t i = 0; i < kBytes; i += 4096) memory[i] = 1;
        const Nanos end = read_clock(CLOCK_THREAD_CPUTIME_ID) + 200 * kMicrosecond;
        while (read_clock(CLOCK_THREAD_CPUTIME_ID) < end) {
        }
        _exit(0);
    }
    waitpid(child, nullptr, 0);
}

// --- The kernel's own figures ----------------------------------------------------------------------------------------

long call_bpf(int command, bpf_attr& attributes) {
    return syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

struct Runs {
    std::uint64_t ns = 0, count = 0;
};

// Of the newest programs of these names, which are the ones just loaded.
Runs runs_of(std::initializer_list<const char*> names) {
    Runs out;
    for (const char* name : names) {
        bpf_prog_info newest{};
        bpf_attr next{};
        while (call_bpf(BPF_PROG_GET_NEXT_ID, next) == 0) {
            next.start_id = next.next_id;
            bpf_attr open{};
            open.prog_id = next.next_id;
            const int fd = static_cast<int>(call_bpf(BPF_PROG_GET_FD_BY_ID, open));
            if (fd < 0) continue;
            bpf_prog_info info{};
            bpf_attr ask{};
            ask.info.bpf_fd = static_cast<std::uint32_t>(fd);
            ask.info.info_len = sizeof info;
            ask.info.info = reinterpret_cast<std::uintptr_t>(&info);
            if (call_bpf(BPF_OBJ_GET_INFO_BY_FD, ask) == 0 && std::strcmp(info.name, name) == 0) newest = info;
            close(fd);
        }
        out.ns += newest.run_time_ns;
        out.count += newest.run_cnt;
    }
    return out;
}

bool is_zombie(int pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    std::getline(file, line);
    const std::size_t name_end = line.rfind(')');
    return name_end == std::string::npos || line.compare(name_end, 3, ") Z") == 0;
}

// Zombies have exited.
double live_seconds() {
    DIR* folder = opendir("/proc");
    double out = 0;
    while (const dirent* entry = readdir(folder)) {
        const int pid = std::atoi(entry->d_name);
        timespec time{};
        if (pid > 0 && !is_zombie(pid) && clock_gettime(static_cast<clockid_t>(~pid * 8 + 2), &time) == 0) {
            out += static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
        }
    }
    closedir(folder);
    return out;
}

// From what the processors were not: idle time is measured, busy time only sampled by the tick.
double busy_seconds() {
    std::ifstream file("/proc/stat");
    std::string word;
    double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, interrupt = 0, softirq = 0, steal = 0;
    file >> word >> user >> nice >> system >> idle >> iowait >> interrupt >> softirq >> steal;
    const double whole = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN)) * bench::seconds_now();
    return whole - (idle + iowait + steal) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// By how much the living and the gone exceed what the machine was busy. A process that exits meanwhile is both or
// neither: the middle of several looks is one without such a one.
double excess_seconds(Watch& watch) {
    std::array<double, 9> looks{};
    for (double& look : looks) {
        usleep(30'000);
        watch.poll();
        const double gone = watch.values.sum("system.process.exited.cpu.time");
        look = gone + live_seconds() - busy_seconds();
    }
    std::nth_element(looks.begin(), looks.begin() + looks.size() / 2, looks.end());
    return looks[looks.size() / 2];
}

// --- Figures ---------------------------------------------------------------------------------------------------------

void poll_for(Watch& watch, double seconds) {
    const double end = bench::seconds_now() + seconds;
    while (bench::seconds_now() < end) {
        usleep(static_cast<useconds_t>(std::clamp((end - bench::seconds_now()) * 1e6, 1000.0, 1e6)));
        watch.poll();
    }
}

bool bench_rate(Watch& watch, double seconds) {
    bpf_attr statistics{};
    statistics.enable_stats.type = BPF_STATS_RUN_TIME;
    const int enabled = static_cast<int>(call_bpf(BPF_ENABLE_STATS, statistics));
    const double bare = bench::best_of(100, [&] { (void)watch.source->poll(0, watch.values); });
    if (!watch.exits->deliver(&watch.sink).ok()) return false;
    watch.poll();
    const double exits_before = watch.values.sum("system.process.exits{");
    const Runs before = runs_of({"process_exits", "task_is_freed"});
    const double start = bench::seconds_now();
    watch.poll_ns = 0;
    watch.records = watch.settled = 0;
    std::uint64_t made = 0;
    double took = 0;
    int polls = 0;
    {
        Load load(exit_at_once, kExitsPerSecond);
        watch.parent = load.pid();
        watch.own_memory();
        for (double left = seconds; left > 0; left -= 1, ++polls) poll_for(watch, std::min(left, 1.0));
        made = load.stop();
        took = bench::seconds_now() - start;
    }
    poll_for(watch, 0.1);
    const Runs after = runs_of({"process_exits", "task_is_freed"});
    const double exits = watch.values.sum("system.process.exits{") - exits_before;
    close(enabled);
    const Nanos polled_ns = watch.poll_ns;
    const auto polled_records = static_cast<double>(std::max<std::uint64_t>(1, watch.records));
    // The records of those that the kernel never told of come late.
    for (int i = 0; i < 600 && watch.of_parent < made; ++i) poll_for(watch, 0.02);

    const auto number = [](std::uint64_t count) { return static_cast<double>(count); };
    const double kernel_ns = number(after.ns - before.ns) / exits;
    const double drain_ns = (static_cast<double>(polled_ns) - polls * bare * 1e9) / polled_records;
    const double settled = number(watch.settled) / std::max(1.0, number(watch.records)) * 100;
    const double seen = number(watch.of_parent) / number(made);
    std::fprintf(stderr, "host_exits: %.0f records lost\n", watch.lost());
    const std::string name = "host_exits_seen/" + std::to_string(static_cast<int>(number(made) / took)) + "_per_s";
    bool good = bench::report(name.c_str(), seen * 100, "%", "records of children made", seen, 100,
                              watch.of_parent == made && watch.lost() == 0 && exits >= number(made));
    good = bench::report("host_exits_settled", settled, "%", "records with all their time", settled / 100, 99,
                         settled >= 99) && good;
    good = bench::report("host_exits_kernel", kernel_ns, "ns/exit", "BPF statistics, timer included",
                         kernel_ns / kKernelBarNs, kKernelBarNs, enabled >= 0 && kernel_ns <= kKernelBarNs) && good;
    good = bench::report("host_exits_drain", drain_ns, "ns/record", "CPU time of polls beyond empty ones",
                         drain_ns / kDrainBarNs, kDrainBarNs, drain_ns <= kDrainBarNs) && good;
    return bench::report("host_exits_poll", bare * 1e6, "us", "", bare * 1e6 / 20, 20, bare <= 20e-6) && good;
}

bool bench_conservation(Watch& watch, double seconds) {
    if (!watch.exits->deliver(nullptr).ok()) return false;
    Load load(short_work);
    const double excess_before = excess_seconds(watch);
    const double busy_before = busy_seconds();
    const double gone_before = watch.values.sum("system.process.exited.cpu.time");
    poll_for(watch, seconds);
    const double excess = excess_seconds(watch) - excess_before;
    const double busy = busy_seconds() - busy_before;
    const double gone = watch.values.sum("system.process.exited.cpu.time") - gone_before;
    const std::uint64_t made = load.stop();
    std::fprintf(stderr, "host_exits: busy %.2f s, gone %.2f s, %lu made, excess %.3f s\n", busy, gone, made, excess);
    return bench::report("host_exits_conserved", std::abs(excess) / busy * 100, "%",
                         "live + exited CPU beside /proc/stat", gone / busy, kConservedBar * 100,
                         std::abs(excess) <= busy * kConservedBar && made > 0);
}

// --- Soak ------------------------------------------------------------------------------------------------------------

struct Footprint {
    double resident_kib = 0;
    int descriptors = 0;
};

Footprint footprint() {
    Footprint out;
    std::ifstream file("/proc/self/statm");
    double pages = 0;
    file >> pages >> pages;
    out.resident_kib = pages * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1024;
    DIR* folder = opendir("/proc/self/fd");
    while (readdir(folder) != nullptr) ++out.descriptors;
    closedir(folder);
    return out;
}

bool soak(Watch& watch, double minutes) {
    constexpr double kGrowthKib = 256;
    if (!watch.exits->deliver(&watch.sink).ok()) return false;
    poll_for(watch, 1);
    const double start = bench::seconds_now();
    std::vector<std::unique_ptr<Load>> loads;
    for (int i = 0; i < 2; ++i) loads.push_back(std::make_unique<Load>(exit_at_once));
    poll_for(watch, std::min(10.0, minutes * 6));
    const double exits_before = watch.values.sum("system.process.exits{");
    const Footprint before = footprint();
    while (bench::seconds_now() - start < minutes * 60) poll_for(watch, 10);
    const Footprint after = footprint();
    std::uint64_t made = 0;
    for (auto& load : loads) made += load->stop();
    poll_for(watch, 1);
    const double exits = watch.values.sum("system.process.exits{");
    const double found = static_cast<double>(watch.records) + watch.lost();
    const double growth = after.resident_kib - before.resident_kib;
    const double accounted = found / static_cast<double>(made);
    std::fprintf(stderr, "host_exits: %lu made, %.0f exits counted, %lu records, %.0f counted as lost\n", made, exits,
                 watch.records, watch.lost());
    bool good = bench::report("host_exits_soak_counted", exits / static_cast<double>(made) * 100, "%",
                              "children made", exits_before / exits, 100, exits >= static_cast<double>(made));
    good = bench::report("host_exits_soak_accounted", accounted * 100, "%", "records and losses, of children made",
                         accounted, 100, accounted >= 1) && good;
    good = bench::report("host_exits_soak_memory", growth, "KiB", "resident after the first seconds",
                         after.resident_kib / before.resident_kib, kGrowthKib, growth <= kGrowthKib) && good;
    const int opened = after.descriptors - before.descriptors;
    return bench::report("host_exits_soak_descriptors", opened, "{descriptor}", "open after the first seconds", opened,
                         0, opened == 0) && good;
}

}  // namespace

int main(int count, char** arguments) {
    const bool soaking = count > 1 && std::strcmp(arguments[1], "soak") == 0;
    const char* given = count > (soaking ? 2 : 1) ? arguments[soaking ? 2 : 1] : (soaking ? "30" : "4");
    const double length = std::atof(given);
    if (!(length > 0)) {
        std::fprintf(stderr, "bench_exits: expected a length above 0, found %s\n", given);
        return 2;
    }
    Watch watch;
    if (!watch.open()) return 0;
    if (soaking) return soak(watch, length) ? 0 : 1;
    const bool seen = bench_rate(watch, length);
    return bench_conservation(watch, length) && seen ? 0 : 1;
}
