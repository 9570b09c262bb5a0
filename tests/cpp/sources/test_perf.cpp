#include "sources/perf.hpp"

#include <doctest/doctest.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <thread>

#include "../allocations.hpp"
#include "sources/cgroup_tree.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

using sources::PerfReading;
using sources::PerfStep;

constexpr double kMillion = 1e6;

// A kernel that counts what the test says: every event runs `value` further at each read.
struct Fake {
    int refuse = 0;                // errno of every open
    int refuse_hardware = ENOENT;  // errno of hardware events; 0 = there is a PMU
    int refuse_after = -1;         // opens that succeed before EMFILE; -1 = all
    int read_errno = 0;            // of the next read
    bool short_read = false;       // the next read says the group is in error
    bool frozen = false;           // time stands still
    double running_share = 1;      // of hardware groups
    int opened = 0;
    int next = 100;
    struct Event {
        int leader;
        std::uint32_t type;
        std::uint64_t config;
        pid_t pid;
        int cpu;
    };
    std::map<int, Event> events{};
    std::map<int, std::uint64_t> reads{};  // by leader
};
Fake fake;

int fake_open(perf_event_attr* attributes, pid_t pid, int cpu, int group, unsigned long) {
    if (fake.refuse != 0) return -fake.refuse;
    if (attributes->type == PERF_TYPE_HARDWARE && fake.refuse_hardware != 0) return -fake.refuse_hardware;
    if (fake.refuse_after == 0) return -EMFILE;
    if (fake.refuse_after > 0) --fake.refuse_after;
    const int fd = fake.next++;
    fake.events[fd] = {group < 0 ? fd : group, attributes->type, attributes->config, pid, cpu};
    ++fake.opened;
    return fd;
}

ssize_t fake_read(int fd, void* buffer, std::size_t size) {
    if (fake.read_errno != 0) return -std::exchange(fake.read_errno, 0);
    if (std::exchange(fake.short_read, false)) return 0;
    auto* out = static_cast<std::uint64_t*>(buffer);
    const std::uint64_t reads = fake.frozen ? fake.reads[fd] : ++fake.reads[fd];
    const double share = fake.events.at(fd).type == PERF_TYPE_HARDWARE ? fake.running_share : 1;
    std::size_t count = 0;
    for (const auto& [number, event] : fake.events) {
        if (event.leader != fd) continue;
        // Instructions run at twice the rate of cycles, everything else at one million a read.
        const double each = event.type == PERF_TYPE_HARDWARE && event.config == PERF_COUNT_HW_INSTRUCTIONS ? 2 : 1;
        out[3 + count++] = static_cast<std::uint64_t>(each * kMillion * share) * reads;
    }
    out[0] = count;
    out[1] = reads * 1'000'000'000;
    out[2] = static_cast<std::uint64_t>(static_cast<double>(out[1]) * share);
    return static_cast<ssize_t>(std::min(size, (3 + count) * sizeof out[0]));
}

int fake_close(int fd) {
    --fake.opened;
    fake.events.erase(fd);
    return 0;
}

constexpr sources::PerfCalls kFake{fake_open, fake_read, fake_close};

struct WithFake {
    explicit WithFake(Fake wanted = {}) { fake = std::move(wanted); }
    ~WithFake() { fake = {}; }
};

std::size_t cpus_online() { return static_cast<std::size_t>(sysconf(_SC_NPROCESSORS_ONLN)); }

Result<std::unique_ptr<sources::Source>> open_fake(sources::SourceSettings settings = {}) {
    return sources::make_perf({}, system_io(), settings, kFake);
}

// The list of processors that are online, as a file the test writes.
std::string online_file;
const Io kOnlineIo{
    [](int directory, const char* path, int flags) {
        const bool online = std::string_view(path) == "/sys/devices/system/cpu/online";
        return system_io().open_at(directory, online ? online_file.c_str() : path, flags);
    },
    [](int fd, void* buffer, std::size_t size, off_t at) { return system_io().pread(fd, buffer, size, at); },
    [](int fd, void* buffer, std::size_t size) { return system_io().get_dents(fd, buffer, size); },
    [](int fd) { return system_io().close(fd); },
};

void burn(std::chrono::milliseconds time) {
    const auto until = std::chrono::steady_clock::now() + time;
    volatile std::uint64_t sink = 0;
    while (std::chrono::steady_clock::now() < until) sink = sink + 1;
}

}  // namespace

TEST_CASE("perf: a count is scaled by the time it was counted") {
    const PerfReading start{};
    auto delta = sources::perf_delta(start, {100, 1000, 1000});
    CHECK(delta.step == PerfStep::counted);
    CHECK(delta.count == 100);
    delta = sources::perf_delta({100, 1000, 1000}, {150, 2000, 1250});  // a quarter of the second interval
    CHECK(delta.step == PerfStep::counted);
    CHECK(delta.count == 200);
    CHECK(sources::perf_delta(start, {100, 1000, 1001}).count == 100);  // clocks that differ by a tick never shrink it
}

TEST_CASE("perf: zero time running is not observed, and never a division by zero") {
    CHECK(sources::perf_delta({}, {0, 1000, 0}).step == PerfStep::unobserved);
    CHECK(sources::perf_delta({100, 1000, 500}, {100, 9000, 500}).step == PerfStep::unobserved);
    const auto idle = sources::perf_delta({100, 1000, 500}, {100, 1000, 500});  // it was not wanted either
    CHECK(idle.step == PerfStep::counted);
    CHECK(idle.count == 0);
    // What ran later stands for the whole gap, since the reading before stays the base.
    CHECK(sources::perf_delta({100, 1000, 500}, {200, 10000, 1500}).count == doctest::Approx(900));
}

TEST_CASE("perf: a counter that wraps goes on, one that falls begins anew") {
    const std::uint64_t top = std::numeric_limits<std::uint64_t>::max();
    const auto wrapped = sources::perf_delta({top - 9, 1000, 1000}, {10, 2000, 2000});
    CHECK(wrapped.step == PerfStep::counted);
    CHECK(wrapped.count == 20);
    CHECK(sources::perf_delta({500, 1000, 1000}, {10, 2000, 2000}).step == PerfStep::reset);
    CHECK(sources::perf_delta({500, 1000, 1000}, {600, 900, 900}).step == PerfStep::reset);
    CHECK(sources::perf_delta({500, 1000, 1000}, {600, 2000, 900}).step == PerfStep::reset);
}

TEST_CASE("perf: the sum of scaled counts never falls while the share of time changes") {
    PerfReading before{};
    double total = 0;
    std::uint64_t seed = 7;
    for (int i = 0; i < 1000; ++i) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        PerfReading now = before;
        now.enabled_ns += 1000;
        const std::uint64_t ran = (seed >> 33) % 1001;
        now.running_ns += ran;
        now.value += ran;
        const auto delta = sources::perf_delta(before, now);
        CHECK(delta.count >= 0);
        if (delta.step == PerfStep::unobserved) continue;
        total += delta.count;
        before = now;
    }
    CHECK(total == doctest::Approx(static_cast<double>(before.enabled_ns)).epsilon(0.01));
}

TEST_CASE("perf: targets are cgroups by path and processes by number; anything else is a fault of the configuration") {
    CHECK(sources::parse_perf_target("cgroup:/system.slice/a.service/")->cgroup == "/system.slice/a.service");
    CHECK(sources::parse_perf_target("pid:4194304")->pid == 4194304);
    for (const char* bad : {"", "pid:", "pid:0", "pid:-1", "pid:4194305", "pid:1x", "cgroup:a", "cgroup:/",
                            "cgroup:/a/../b", "cgroup:", "tid:1"}) {
        CAPTURE(bad);
        CHECK(!sources::parse_perf_target(bad).ok());
        CHECK_THROWS_AS((void)open_fake({.options = {1}, .targets = {bad}}), std::invalid_argument);
    }
    CHECK_THROWS_AS((void)open_fake({.options = {1}, .targets = {"pid:1", "pid:1"}}), std::invalid_argument);
}

TEST_CASE("perf: where descriptors are short, hardware events go first, then the later software ones") {
    CHECK(sources::perf_share(5000, 2).software == 6);
    CHECK(sources::perf_share(5000, 2).hardware_groups == 4);
    CHECK(sources::perf_share(256, 32).software == 6);
    CHECK(sources::perf_share(256, 32).hardware_groups == 1);
    CHECK(sources::perf_share(256, 128).software == 2);
    CHECK(sources::perf_share(256, 128).hardware_groups == 0);
    CHECK(sources::perf_share(256, 512).software == 0);
    CHECK(sources::perf_share(256, 0).software == 0);
}

TEST_CASE("perf: without a PMU there are software events only, and a series says so") {
    const WithFake kernel;
    auto source = open_fake();
    REQUIRE(source.ok());
    Memory memory;
    const auto report = (*source)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == memory.names.size());
    CHECK(memory.at("system.perf.events{perf.type=software}") == 6);
    CHECK(memory.at("system.perf.events{perf.type=hardware}") == 0);
    CHECK(memory.at("system.perf.cpu_migrations") == kMillion * static_cast<double>(cpus_online()));
    CHECK(memory.at("system.perf.page_faults{system.paging.type=major}") > 0);
    CHECK(!memory.has("system.perf.cycles"));
    CHECK(!memory.has("system.perf.ipc"));
    CHECK(!memory.has("system.perf.task_clock"));
}

TEST_CASE("perf: with a PMU that is shared out counts are scaled, and instructions a cycle follow") {
    const WithFake kernel({.refuse_hardware = 0, .running_share = 0.25});
    auto source = open_fake();
    REQUIRE(source.ok());
    Memory memory;
    (void)(*source)->poll(0, memory);
    const double cpus = static_cast<double>(cpus_online());
    CHECK(memory.at("system.perf.cycles") == doctest::Approx(kMillion * cpus));
    CHECK(memory.at("system.perf.instructions") == doctest::Approx(2 * kMillion * cpus));
    CHECK(memory.at("system.perf.ipc") == doctest::Approx(2));
    CHECK(memory.at("system.perf.stalled_cycles{perf.stall=backend}") == doctest::Approx(kMillion * cpus));
    CHECK(memory.at("system.perf.events{perf.type=hardware}") == 8);
    fake.running_share = 0;  // another user has all the counters
    memory.forget();
    for (auto& [leader, reads] : fake.reads) reads = 0;
    auto starved = open_fake();
    Memory none;
    (void)(*starved)->poll(0, none);
    CHECK(!none.has("system.perf.cycles"));
    CHECK(!none.has("system.perf.ipc"));
    CHECK(none.has("system.perf.cpu_migrations"));
}

TEST_CASE("perf: hardware counters are left alone when they are not wanted") {
    const WithFake kernel({.refuse_hardware = 0});
    auto source = open_fake({.options = {0}, .targets = {}});
    Memory memory;
    (void)(*source)->poll(0, memory);
    CHECK(!memory.has("system.perf.cycles"));
    CHECK(fake.opened == static_cast<int>(6 * cpus_online()));
}

TEST_CASE("perf: levels of perf_event_paranoid, and what else a kernel may refuse") {
    struct Case {
        int error;
        Errc code;
    };
    for (const Case& refused :
         {Case{EACCES, Errc::permission}, Case{EPERM, Errc::permission}, Case{EMFILE, Errc::limit},
          Case{ENFILE, Errc::limit}, Case{ENOMEM, Errc::limit}, Case{ENOSYS, Errc::unavailable},
          Case{ENOENT, Errc::unavailable}, Case{EINVAL, Errc::unavailable}}) {
        const WithFake kernel({.refuse = refused.error});
        const auto source = open_fake();
        CAPTURE(refused.error);
        REQUIRE(!source.ok());
        CHECK(source.error().code == refused.code);
        CHECK(source.error().sys_errno == refused.error);
        CHECK(std::string(source.error().what) == "perf_event_open");
    }
    const WithFake half({.refuse_after = 7});
    const auto source = open_fake();
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::limit);
    CHECK(fake.opened == 0);  // what was opened before is closed
}

TEST_CASE("perf: another machine's files say nothing of this kernel") {
    const WithFake kernel;
    Tree tree("6.18");
    const auto source = sources::perf_source.open(tree.roots(), system_io());
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
    CHECK(fake.opened == 0);
}

TEST_CASE("perf: a group that fails or stands still is opened again, and the sum goes on") {
    const WithFake kernel;
    auto source = open_fake();
    Memory memory;
    (void)(*source)->poll(0, memory);
    const double first = memory.at("system.perf.context_switches");
    for (const bool by_errno : {true, false}) {
        fake.read_errno = by_errno ? EIO : 0;
        fake.short_read = !by_errno;
        const double before = memory.at("system.perf.context_switches");
        const auto report = (*source)->poll(1, memory);
        CHECK(report.value().malformed == 1);
        (void)(*source)->poll(2, memory);
        CHECK(memory.at("system.perf.context_switches") > before);
    }
    fake.frozen = true;  // a processor was offline in between: its events are dead
    const int next = fake.next;
    (void)(*source)->poll(3, memory);
    CHECK(fake.next > next);
    fake.frozen = false;
    const double before = memory.at("system.perf.context_switches");
    (void)(*source)->poll(4, memory);
    CHECK(memory.at("system.perf.context_switches") > before);
    CHECK(before > first);
    CHECK(fake.opened == static_cast<int>(6 * cpus_online()));
    source->reset();
    CHECK(fake.opened == 0);
}

TEST_CASE("perf: processors that go offline keep their counts in the sum, those that come are counted") {
    const WithFake kernel;
    Tree tree;
    tree.write("online", "0-2\n");
    online_file = tree.proc().substr(0, tree.proc().size() - 4) + "online";
    auto source = sources::make_perf({}, kOnlineIo, {}, kFake);
    REQUIRE(source.ok());
    Memory memory;
    const auto poll = [&] {
        REQUIRE((*source)->poll(0, memory).ok());
        return memory.at("system.perf.cpu_migrations");
    };
    CHECK(poll() == 3 * kMillion);
    tree.write("online", "0,2\n");
    CHECK(poll() == 5 * kMillion);
    CHECK(fake.opened == 2 * 6);
    tree.write("online", "0-3\n");
    CHECK(poll() == 9 * kMillion);
    CHECK(fake.opened == 4 * 6);
    tree.write("online", "nonsense\n");
    CHECK(poll() == 13 * kMillion);  // who is online is not known: nothing changes
    fake.refuse = EMFILE;
    tree.write("online", "0-4\n");
    CHECK(poll() == 17 * kMillion);  // the new one cannot be opened: the others go on
    CHECK(memory.closed == 0);
}

TEST_CASE("perf: a user without CAP_PERFMON is refused where perf_event_paranoid says so") {
    const std::string level = slurp("/proc/sys/kernel/perf_event_paranoid");
    if (geteuid() != 0 || level.empty() || std::stoi(level) < 1) {
        MESSAGE("not run: needs root to become another user, and perf_event_paranoid >= 1");
        return;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        if (setresuid(65534, 65534, 65534) != 0) _exit(100);
        const auto source = sources::perf_source.open({}, system_io());
        _exit(source.ok() ? 101 : static_cast<int>(source.error().code));
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == static_cast<int>(Errc::permission));
}

TEST_CASE("perf: a steady poll allocates nothing") {
    const WithFake kernel({.refuse_hardware = 0});
    auto source = open_fake();
    Memory memory;
    (void)(*source)->poll(0, memory);
    fake.frozen = false;
    for (auto& [leader, reads] : fake.reads) reads = 1;
    const std::uint64_t before = allocations();
    const auto report = (*source)->poll(1, memory);
    const std::uint64_t after = allocations();
    CHECK(after == before);
    CHECK(report.value().emitted == memory.names.size());
}

TEST_CASE("perf: a target that is not there yet costs nothing; targets work where the machine is refused") {
    const WithFake kernel({.refuse = EACCES});
    const std::string self = "pid:" + std::to_string(getpid());
    auto source = open_fake({.options = {1}, .targets = {"cgroup:/argus-no-such-group", self}});
    REQUIRE(source.ok());
    Memory memory;
    REQUIRE((*source)->poll(0, memory).ok());
    CHECK(memory.names.empty());
    fake.refuse = 0;
    REQUIRE((*source)->poll(1, memory).ok());
    const std::string own = "{process.pid=" + std::to_string(getpid()) + "}";
    CHECK(memory.at("process.perf.context_switches" + own) >= kMillion);
    CHECK(memory.at("process.perf.task_clock" + own) >= kMillion * 1e-9);
}

// --- The kernel of this machine --------------------------------------------------------------------------------------

TEST_CASE("perf: a live group on this process counts what it does") {
    const sources::PerfEvent events[] = {{PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK},
                                         {PERF_TYPE_HARDWARE, 0xFFFF},
                                         {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MIN}};
    sources::PerfGroup group(sources::system_perf_calls());
    const auto opened = group.open(events, {.pid = 0, .cpu = -1, .inherit = true});
    if (!opened) {
        MESSAGE("not run: this kernel refuses events of the own process: " << to_string(opened.error().code));
        return;
    }
    CHECK(group.size() == 2);
    CHECK(!group.has(1));
    REQUIRE(group.read().ok());
    const auto before = *group.reading(0);
    const auto faults_before = *group.reading(2);
    burn(std::chrono::milliseconds(20));
    std::vector<char> touched(4 << 20);
    for (std::size_t i = 0; i < touched.size(); i += 4096) touched[i] = 1;
    std::thread([] { burn(std::chrono::milliseconds(20)); }).join();
    REQUIRE(group.read().ok());
    const auto clock = sources::perf_delta(before, *group.reading(0));
    CHECK(clock.step == PerfStep::counted);
    CHECK(clock.count > 10e6);
    CHECK(clock.count < 10e9);
    CHECK(sources::perf_delta(faults_before, *group.reading(2)).count > 0);
    CHECK(!group.reading(1).has_value());
    sources::PerfGroup moved(std::move(group));
    CHECK(!group.is_open());
    CHECK(moved.read().ok());
    CHECK(!group.read().ok());
}

TEST_CASE("perf: a process that ends is read once more, then closed, and its number is not followed") {
    const pid_t pid = fork();
    if (pid == 0) {
        for (volatile bool on = true; on;) {}
    }
    const sources::SourceSettings settings{.options = {1}, .targets = {"pid:" + std::to_string(pid)}};
    auto source = sources::perf_source.open({}, system_io(), settings);
    Memory memory;
    const std::string clock = "process.perf.task_clock{process.pid=" + std::to_string(pid) + "}";
    if (source.ok()) {
        (void)(*source)->poll(0, memory);
        burn(std::chrono::milliseconds(50));
        (void)(*source)->poll(1, memory);
    }
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    if (!source.ok() || !memory.has(clock)) {
        MESSAGE("not run: this kernel refuses events of another process");
        return;
    }
    const double before = memory.at(clock);
    CHECK(before > 0);
    (void)(*source)->poll(2, memory);
    CHECK(memory.at(clock) >= before);
    (void)(*source)->poll(3, memory);
    CHECK(!memory.has(clock));
    (void)(*source)->poll(4, memory);
    CHECK(!memory.has(clock));
}

TEST_CASE("perf: a live cgroup is counted, and another of its name begins anew") {
    std::vector<sources::Hierarchy> hierarchies;
    (void)sources::find_hierarchies({}, system_io(), hierarchies);
    const auto at = std::find_if(hierarchies.begin(), hierarchies.end(),
                                 [](const auto& h) { return (h.controllers & sources::kPerfEvent) != 0; });
    const auto unified = std::find_if(hierarchies.begin(), hierarchies.end(),
                                      [](const auto& h) { return h.controllers == sources::kUnified; });
    const auto use = at != hierarchies.end() ? at : unified;
    const std::string name = "/argus-perf-" + std::to_string(getpid());
    std::error_code refused;
    if (use == hierarchies.end() || !fs::create_directory(use->directory + name, refused)) {
        MESSAGE("not run: no permission to make a cgroup, or no hierarchy to make it in");
        return;
    }
    const sources::SourceSettings settings{.options = {1}, .targets = {"cgroup:" + use->prefix + name}};
    auto source = sources::perf_source.open({}, system_io(), settings);
    Memory memory;
    const std::string clock = "cgroup.perf.task_clock{cgroup.path=" + use->prefix + name + "}";
    if (source.ok()) (void)(*source)->poll(0, memory);
    const bool counted = memory.has(clock);
    const pid_t pid = fork();
    if (pid == 0) {
        for (volatile bool on = true; on;) {}
    }
    std::ofstream(use->directory + name + "/cgroup.procs") << pid;
    burn(std::chrono::milliseconds(60));
    if (counted) (void)(*source)->poll(1, memory);
    const double ran = memory.at(clock);
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    for (int i = 0; i < 100 && rmdir((use->directory + name).c_str()) != 0; ++i) usleep(10'000);
    if (!counted) {
        MESSAGE("not run: this kernel refuses events of a cgroup");
        return;
    }
    CHECK(ran > 0.005);
    CHECK(ran < 60);
    (void)(*source)->poll(2, memory);
    CHECK(!memory.has(clock));
}

TEST_CASE("perf: the machine's own events count, or are refused for a reason") {
    const auto source = sources::perf_source.open({}, system_io());
    if (!source.ok()) {
        const Errc code = source.error().code;
        CHECK((code == Errc::permission || code == Errc::unavailable || code == Errc::limit));
        MESSAGE("not run: this kernel refuses events of the machine: " << to_string(code));
        return;
    }
    Memory memory;
    REQUIRE(source.value()->poll(0, memory).ok());
    const std::string minor = "system.perf.page_faults{system.paging.type=minor}";
    const double before = memory.at(minor);
    constexpr std::size_t pages = 4096;
    void* mapped = mmap(nullptr, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(mapped != MAP_FAILED);
    auto* fresh = static_cast<char*>(mapped);
    (void)madvise(fresh, pages * 4096, MADV_NOHUGEPAGE);
    for (std::size_t i = 0; i < pages; ++i) fresh[i * 4096] = 1;
    (void)munmap(fresh, pages * 4096);
    REQUIRE(source.value()->poll(1, memory).ok());
    CHECK(memory.at(minor) - before >= static_cast<double>(pages));
    CHECK(memory.at("system.perf.events{perf.type=software}") >= 1);
    CHECK(memory.closed == 0);
}

}  // namespace argus::test
