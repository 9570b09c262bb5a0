// Tier `bpf` against /proc, the tiers against each other on the same stopped processes, and the choice between them.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>

#include "../allocations.hpp"
#include "bpf/bpf.hpp"
#include "sources/processes/scanner.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

using sources::CpuSplit;
using sources::ProcessColumn;
using sources::ProcessTable;
using sources::ProcessTiers;
using sources::ProcessTree;
using sources::ScannerChoice;
using sources::Tier;

const SystemClock kClock;
constexpr double kTick = 0.01;
// What the processors hold back of each of three shared counters: max(32, 2 * processors) pages each.
double held_back() {
    const auto processors = static_cast<double>(sysconf(_SC_NPROCESSORS_CONF));
    return 3 * std::max(32.0, 2 * processors) * processors * 4096;
}

std::size_t row_of(const ProcessTable& table, std::int32_t pid) {
    const auto end = table.pid.begin() + static_cast<std::ptrdiff_t>(table.count);
    return static_cast<std::size_t>(std::lower_bound(table.pid.begin(), end, pid) - table.pid.begin());
}

double cell(const ProcessTable& table, std::size_t row, ProcessColumn column) { return table.column(column)[row]; }

std::string name_of(const ProcessTable& table, std::size_t row) {
    return {table.name[row].data(), strnlen(table.name[row].data(), sources::kProcessNameBytes)};
}

// A child that does `work`, then stands still: stopped, or dead and not reaped.
class Child {
public:
    explicit Child(const std::function<void()>& work, bool stops = true) {
        pid_ = fork();
        if (pid_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            work();
            if (stops) raise(SIGSTOP);
            _exit(0);
        }
        siginfo_t ignored{};
        if (pid_ > 0) waitid(P_PID, static_cast<id_t>(pid_), &ignored, (stops ? WSTOPPED : WEXITED) | WNOWAIT);
    }
    ~Child() {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    [[nodiscard]] std::int32_t pid() const { return static_cast<std::int32_t>(pid_); }
    [[nodiscard]] std::string file(const std::string& name) const {
        return slurp("/proc/" + std::to_string(pid_) + "/" + name);
    }

private:
    pid_t pid_ = -1;
};

void busy(Nanos how_long) {
    const Nanos end = read_clock(CLOCK_THREAD_CPUTIME_ID) + how_long;
    while (read_clock(CLOCK_THREAD_CPUTIME_ID) < end) {
    }
}

// Memory, I/O and processor time in three threads, two of which have ended.
void live_a_little() {
    static std::vector<char> memory(4 << 20, 1);
    std::thread([] { busy(20 * kMillisecond); }).join();
    std::thread([] {
        const std::string text = slurp("/proc/self/maps");
        busy(kMillisecond);
        std::ofstream("/dev/null") << text;
    }).join();
    busy(5 * kMillisecond);
}

void check_same(const ProcessTable& a, std::size_t i, const ProcessTable& b, std::size_t j) {
    CHECK(a.pid[i] == b.pid[j]);
    CHECK(a.ppid[i] == b.ppid[j]);
    CHECK(a.start_time_ns[i] == b.start_time_ns[j]);
    CHECK(name_of(a, i) == name_of(b, j));
    CHECK(a.state[i] == b.state[j]);
    CHECK(a.threads[i] == b.threads[j]);
    CHECK(a.nice[i] == b.nice[j]);
    CHECK(a.last_cpu[i] == b.last_cpu[j]);
    CHECK(a.uid[i] == b.uid[j]);
    for (std::size_t k = 0; k < sources::kProcessColumns; ++k) {
        const auto column = static_cast<ProcessColumn>(k);
        using enum ProcessColumn;
        const double x = cell(a, i, column);
        const double y = cell(b, j, column);
        if (std::isnan(x) || std::isnan(y) || column == cpu_utilization) continue;
        // Of all threads, also those that ended, in tier bpf; of the main thread in the others.
        const bool of_threads = column == voluntary_switches || column == involuntary_switches || column == run_delay;
        if (of_threads && (a.valid[i] & sources::kValidCgroup) != 0) {
            CHECK(x >= y);
            continue;
        }
        double error = 0;
        if (column == cpu_user || column == cpu_system) error = kTick;
        if (column == rss || column == shared || column == rss_anon || column == rss_file || column == rss_shmem ||
            column == swap) {
            error = held_back();
        }
        if (column >= read_bytes && column <= write_chars) error = 1024;  // taskstats tells whole KiB
        CAPTURE(std::string(sources::process_columns()[k].name));
        CAPTURE(a.pid[i]);
        CHECK(std::abs(x - y) <= error);
    }
}

// Sums over the threads of a process, as /proc/PID/task tells of each.
struct ThreadSums {
    double voluntary = 0, involuntary = 0, run_delay = 0;
};
ThreadSums sum_threads(std::int32_t pid) {
    ThreadSums out;
    for (const auto& thread : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
        sources::ProcessStatus status;
        sources::ProcessSchedule schedule;
        REQUIRE(sources::parse_process_status(slurp(thread.path() / "status"), status));
        REQUIRE(sources::parse_process_schedule(slurp(thread.path() / "schedstat"), schedule));
        out.voluntary += static_cast<double>(status.voluntary);
        out.involuntary += static_cast<double>(status.involuntary);
        out.run_delay += static_cast<double>(schedule.delay_ns) / 1e9;
    }
    return out;
}

std::unique_ptr<sources::ProcessScanner> open_tier(Tier tier) {
    auto made = sources::make_scanner(tier, {}, system_io(), kClock);
    if (!made) {
        MESSAGE("left out: ", std::string(made.error().what));
        return nullptr;
    }
    return std::move(*made);
}

// Every kind of process that stands still.
struct Zoo {
    Child simple{[] {}};
    Child lived{live_a_little};
    Child named{[] { prctl(PR_SET_NAME, "a) R 1 (b"); }};
    Child newline{[] { prctl(PR_SET_NAME, "x\n\x1b[2J"); }};
    Child threaded{[] {
        live_a_little();
        for (int i = 0; i < 5; ++i) std::thread([] { while (true) pause(); }).detach();
    }};
    Child niced{[] { (void)!nice(7); }};
    Child zombie{[] { busy(kMillisecond); }, false};
    Child headless{[] {
        std::thread([] {
            while (slurp("/proc/" + std::to_string(getpid()) + "/stat").find(") Z ") == std::string::npos) {
            }
            raise(SIGSTOP);
        }).detach();
        syscall(SYS_exit, 0);  // the leader alone
    }};

    [[nodiscard]] std::vector<const Child*> all() const {
        return {&simple, &lived, &named, &newline, &threaded, &niced, &zombie, &headless};
    }
};

}  // namespace

TEST_CASE("process tiers: every field of every tier agrees for the same processes that stand still") {
    const Zoo zoo;
    ProcessTable walked;
    ProcessTree tree("/proc", system_io(), kClock);
    REQUIRE(tree.scan(walked).ok());
    for (const Tier tier : {Tier::bpf, Tier::taskstats, Tier::gated}) {
        const auto scanner = open_tier(tier);
        if (scanner == nullptr) continue;
        CAPTURE(std::string(to_string(tier)));
        ProcessTable table;
        for (int round = 0; round < 2; ++round) {  // first sight, then whatever the tier does from then on
            REQUIRE(scanner->scan(table).ok());
            for (const Child* child : zoo.all()) {
                const std::size_t i = row_of(table, child->pid());
                const std::size_t j = row_of(walked, child->pid());
                REQUIRE(i < table.count);
                REQUIRE(j < walked.count);
                check_same(table, i, walked, j);
            }
        }
        CHECK(cell(table, row_of(table, zoo.simple.pid()), ProcessColumn::cpu_utilization) == 0.0);
    }
}

TEST_CASE("process tiers: bpf sums all threads, also those that ended") {
    const Zoo zoo;
    const auto scanner = open_tier(Tier::bpf);
    if (scanner == nullptr) return;
    ProcessTable table;
    REQUIRE(scanner->scan(table).ok());
    const std::size_t row = row_of(table, zoo.threaded.pid());
    CHECK(table.threads[row] == 6);
    const double cpu = cell(table, row, ProcessColumn::cpu_user) + cell(table, row, ProcessColumn::cpu_system);
    CHECK(cpu >= 0.026);
    const ThreadSums sums = sum_threads(zoo.threaded.pid());
    CHECK(cell(table, row, ProcessColumn::run_delay) == doctest::Approx(sums.run_delay));
    CHECK(cell(table, row, ProcessColumn::voluntary_switches) >= sums.voluntary);  // and those of the ended
    CHECK(cell(table, row, ProcessColumn::involuntary_switches) >= sums.involuntary);
    sources::ProcessSchedule schedule;
    const std::size_t alone = row_of(table, zoo.simple.pid());
    REQUIRE(sources::parse_process_schedule(zoo.simple.file("schedstat"), schedule));
    const double one = cell(table, alone, ProcessColumn::cpu_user) + cell(table, alone, ProcessColumn::cpu_system);
    CHECK(one == doctest::Approx(static_cast<double>(schedule.run_ns) / 1e9).epsilon(1e-9));  // to the nanosecond
}

// As on Linux 5.8 to 6.6: no open-coded iterators, the threads are listed.
std::unique_ptr<sources::ProcessScanner> open_listing(std::uint32_t records = 2048) {
    sources::BpfChoice choice;
    choice.object = {};
    choice.records = records;
    auto made = sources::BpfProcesses::make({}, system_io(), kClock, choice);
    if (!made) {
        MESSAGE("left out: ", std::string(made.error().what));
        return nullptr;
    }
    return std::move(*made);
}

TEST_CASE("process tiers: bpf that lists threads tells what bpf that walks them does") {
    const Zoo zoo;
    const auto walking = open_tier(Tier::bpf);
    if (walking == nullptr) return;
    const auto listing = open_listing();
    REQUIRE(listing != nullptr);
    ProcessTable walked, listed;
    for (int round = 0; round < 2; ++round) {
        REQUIRE(walking->scan(walked).ok());
        REQUIRE(listing->scan(listed).ok());
        for (const Child* child : zoo.all()) {
            const std::size_t i = row_of(listed, child->pid());
            const std::size_t j = row_of(walked, child->pid());
            REQUIRE(i < listed.count);
            REQUIRE(j < walked.count);
            check_same(listed, i, walked, j);
            CHECK(listed.valid[i] == walked.valid[j]);
            CHECK(listed.cgroup_id[i] == walked.cgroup_id[j]);
            for (const ProcessColumn column : {ProcessColumn::cpu_user, ProcessColumn::cpu_system,
                                               ProcessColumn::run_delay, ProcessColumn::voluntary_switches,
                                               ProcessColumn::involuntary_switches, ProcessColumn::read_chars}) {
                CHECK(cell(listed, i, column) == cell(walked, j, column));
            }
        }
    }
    const std::size_t threaded = row_of(listed, zoo.threaded.pid());
    CHECK(listed.threads[threaded] == 6);
    const ThreadSums sums = sum_threads(zoo.threaded.pid());
    CHECK(cell(listed, threaded, ProcessColumn::run_delay) == doctest::Approx(sums.run_delay));
}

TEST_CASE("process tiers: bpf that lists threads makes room for them, and counts no process that changes meanwhile") {
    if (open_tier(Tier::bpf) == nullptr) return;
    const Child crowd([] {
        for (int i = 0; i < 300; ++i) std::thread([] { while (true) pause(); }).detach();
    });
    const auto listing = open_listing(1);
    REQUIRE(listing != nullptr);
    ProcessTable table;
    REQUIRE(listing->scan(table).ok());
    CHECK(table.unreadable == 0);
    const std::size_t row = row_of(table, crowd.pid());
    REQUIRE(row < table.count);
    CHECK(table.threads[row] == 301);
    CHECK((table.valid[row] & sources::kValidSchedule) != 0);
    // Threads that come and go: what the process used never goes back, where it is told.
    const Child restless([] {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (true) std::thread([] { busy(kMillisecond / 4); }).join();
        }
    });
    double before = 0;
    std::size_t told = 0;
    for (int i = 0; i < 200; ++i) {
        REQUIRE(listing->scan(table).ok());
        for (std::size_t at = 0; at < table.count; ++at) {
            if (table.ppid[at] != restless.pid()) continue;
            const double used = cell(table, at, ProcessColumn::cpu_user) + cell(table, at, ProcessColumn::cpu_system);
            if (std::isnan(used)) continue;
            CHECK(used >= before - kTick);
            before = used;
            ++told;
        }
        usleep(1000);
    }
    CHECK(told > 0);
    CHECK(before > 0);
}

TEST_CASE("process tiers: bpf tells of kernel threads what /proc does") {
    const auto scanner = open_tier(Tier::bpf);
    if (scanner == nullptr) return;
    ProcessTable table;
    ProcessTable walked;
    REQUIRE(scanner->scan(table).ok());
    REQUIRE(ProcessTree("/proc", system_io(), kClock).scan(walked).ok());
    std::size_t seen = 0;
    for (std::size_t j = 0; j < walked.count; ++j) {
        const std::size_t i = row_of(table, walked.pid[j]);
        if (walked.ppid[j] != 2 || i >= table.count || table.start_time_ns[i] != walked.start_time_ns[j]) continue;
        ++seen;
        CHECK(table.ppid[i] == 2);
        CHECK(table.uid[i] == walked.uid[j]);
        CHECK(table.nice[i] == walked.nice[j]);
        CHECK(cell(table, i, ProcessColumn::rss) == 0.0);
        CHECK(cell(table, i, ProcessColumn::virtual_) == 0.0);
        CHECK(std::isnan(cell(table, i, ProcessColumn::rss_anon)));
        CHECK((table.valid[i] & sources::kValidKinds) == 0);
        if (!name_of(walked, j).starts_with("kworker")) CHECK(name_of(table, i) == name_of(walked, j));
    }
    CHECK(seen > 5);
}

TEST_CASE("process tiers: bpf knows the cgroup, as the v2 tree numbers it") {
    const auto scanner = open_tier(Tier::bpf);
    if (scanner == nullptr) return;
    ProcessTable table;
    REQUIRE(scanner->scan(table).ok());
    const std::size_t row = row_of(table, static_cast<std::int32_t>(getpid()));
    CHECK((table.valid[row] & sources::kValidCgroup) != 0);
    CHECK(table.cgroup_id[row] >= 1);
    CHECK(table.cgroup_id[row] == table.cgroup_id[row_of(table, static_cast<std::int32_t>(getppid()))]);
}

TEST_CASE("process tiers: bpf makes room for more processes than it has, and cuts none") {
    if (open_tier(Tier::bpf) == nullptr) return;
    auto made = sources::BpfProcesses::make({}, system_io(), kClock, {.records = 4});
    REQUIRE(made.ok());
    ProcessTable table;
    REQUIRE((*made)->scan(table).ok());
    CHECK(table.unreadable == 0);
    CHECK(row_of(table, static_cast<std::int32_t>(getpid())) < table.count);
    CHECK(static_cast<const sources::BpfProcesses&>(**made).capacity() >= table.count);
    CHECK(static_cast<const sources::BpfProcesses&>(**made).threads() >= table.count);
}

TEST_CASE("process tiers: bpf measures utilization exactly and allocates nothing") {
    const auto scanner = open_tier(Tier::bpf);
    if (scanner == nullptr) return;
    ProcessTable table;
    REQUIRE(scanner->scan(table).ok());
    const auto self = static_cast<std::int32_t>(getpid());
    CHECK(std::isnan(cell(table, row_of(table, self), ProcessColumn::cpu_utilization)));
    REQUIRE(scanner->scan(table).ok());
    const std::uint64_t before = allocations();
    bool good = scanner->scan(table).ok();
    const bool calm = allocations() == before;
    CHECK((good && calm));
    busy(100 * kMillisecond);
    good = scanner->scan(table).ok();
    CHECK(good);
    const double used = cell(table, row_of(table, self), ProcessColumn::cpu_utilization);
    CHECK(used > 0);
    CHECK(used < 64);
    CHECK(std::is_sorted(table.pid.begin(), table.pid.begin() + static_cast<std::ptrdiff_t>(table.count)));
}

TEST_CASE("process tiers: a reused pid is another process in every tier") {
    for (const Tier tier : {Tier::bpf, Tier::taskstats, Tier::gated}) {
        const auto scanner = open_tier(tier);
        if (scanner == nullptr) continue;
        ProcessTable table;
        std::int32_t pid = 0;
        {
            const Child first([] {});
            pid = first.pid();
            REQUIRE(scanner->scan(table).ok());
            CHECK(row_of(table, pid) < table.count);
        }
        REQUIRE(scanner->scan(table).ok());
        const std::size_t row = row_of(table, pid);
        CHECK((row == table.count || table.pid[row] != pid));
    }
}

TEST_CASE("process tiers: the letter of a state is the kernel's") {
    const std::pair<std::uint32_t, char> cases[] = {{0, 'R'},    {1, 'S'},    {2, 'D'},     {4, 'T'},      {8, 't'},
                                                    {0x10, 'X'}, {0x20, 'Z'}, {0x40, 'P'},  {0x402, 'I'},  {0x102, 'D'},
                                                    {0x104, 'T'}, {0x1000, 'D'}, {0x8000, 'D'}, {0x80 | 0x20, 'Z'},
                                                    {0x2001, 'S'}, {0x30, 'Z'}};
    for (const auto& [bits, letter] : cases) {
        const std::uint32_t state = bits;  // clang 14 captures no structured binding
        CAPTURE(state);
        CHECK(sources::state_letter(state) == letter);
    }
}

TEST_CASE("process tiers: run time is split as the kernel splits it, and never goes back") {
    const auto split = [](std::uint64_t runtime, CpuSplit sampled, CpuSplit before) {
        const CpuSplit out = sources::split_cpu_time(runtime, sampled, before);
        return std::pair(out.user_ns, out.system_ns);
    };
    CHECK(split(0, {0, 0}, {0, 0}) == std::pair<std::uint64_t, std::uint64_t>(0, 0));
    CHECK(split(100, {0, 0}, {0, 0}) == std::pair<std::uint64_t, std::uint64_t>(100, 0));
    CHECK(split(100, {0, 4}, {0, 0}) == std::pair<std::uint64_t, std::uint64_t>(0, 100));
    CHECK(split(100, {4, 0}, {0, 0}) == std::pair<std::uint64_t, std::uint64_t>(100, 0));
    CHECK(split(100, {3, 1}, {0, 0}) == std::pair<std::uint64_t, std::uint64_t>(75, 25));
    CHECK(split(100, {3, 1}, {60, 30}) == std::pair<std::uint64_t, std::uint64_t>(70, 30));
    CHECK(split(100, {1, 3}, {60, 30}) == std::pair<std::uint64_t, std::uint64_t>(60, 40));
    CHECK(split(90, {1, 3}, {60, 30}) == std::pair<std::uint64_t, std::uint64_t>(60, 30));
    constexpr std::uint64_t kYears = 4'000'000'000'000'000'000;
    CHECK(split(kYears, {kYears / 2, kYears / 2}, {0, 0}) ==
          std::pair<std::uint64_t, std::uint64_t>(kYears / 2, kYears / 2));
}

TEST_CASE("process tiers: keys in runs are sorted, however many runs") {
    std::vector<std::uint64_t> scratch;
    for (const std::size_t runs : {0U, 1U, 2U, 3U, 9U, 40U}) {
        std::vector<std::uint64_t> keys;
        for (std::size_t run = runs; run > 0; --run) {
            for (std::uint64_t i = 0; i < 50; ++i) keys.push_back(i * runs + run);
        }
        std::vector<std::uint64_t> expected = keys;
        std::sort(expected.begin(), expected.end());
        sources::sort_runs(keys, scratch);
        CHECK(keys == expected);
    }
}

TEST_CASE("process tiers: without an object, or libbpf, the next tier reads, and says why") {
    ScannerChoice choice;
    const char* reason = "";
    SUBCASE("no object") {
        choice.bpf.object = choice.bpf.listing = {};
        reason = "no compiled BPF object";
    }
    SUBCASE("no libbpf") {
        if (choice.bpf.object.empty()) return;
        choice.bpf.environment.library = "libabsent.so.9";
        reason = "libbpf.so.1 is not installed";
    }
    SUBCASE("no BTF") {
        if (choice.bpf.object.empty() || !library_there()) return;
        choice.bpf.environment.btf = "/nonexistent/vmlinux";
        reason = "CONFIG_DEBUG_INFO_BTF";
    }
    ProcessTiers tiers({}, {}, system_io(), kClock, choice);
    CHECK(!tiers.tier().has_value());
    ProcessTable table;
    REQUIRE(tiers.scan(table).ok());
    REQUIRE(tiers.tier().has_value());
    CHECK(*tiers.tier() != Tier::bpf);
    CHECK(*tiers.tier() != Tier::tree);
    const auto statuses = tiers.statuses();
    CHECK(statuses[0].tier == Tier::bpf);
    CHECK(!statuses[0].available);
    CHECK(statuses[0].reason.find(reason) != std::string::npos);
    CHECK(statuses[0].reason.find("libbpf1") != std::string::npos);
    CHECK(statuses[3].available);
    ProcessTiers forced(Tier::bpf, {}, system_io(), kClock, choice);
    CHECK(forced.scan(table).error().code == Errc::unavailable);
    CHECK(std::string(forced.scan(table).error().what).find(reason) != std::string::npos);
}

TEST_CASE("process tiers: another root is walked, whatever this machine offers") {
    const Tree tree("6.18");
    ProcessTiers tiers({}, tree.roots(), system_io(), kClock);
    ProcessTable table;
    REQUIRE(tiers.scan(table).ok());
    CHECK(table.count == 4);
    CHECK(tiers.tier() == Tier::tree);
    const auto statuses = tiers.statuses();
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(!statuses[i].available);
        CHECK(statuses[i].reason.find("must be /proc") != std::string::npos);
    }
    for (const Tier tier : {Tier::bpf, Tier::taskstats, Tier::gated}) {
        CHECK(!sources::make_scanner(tier, tree.roots(), system_io(), kClock).ok());
    }
}

TEST_CASE("process tiers: a tier that fails while running gives way to the next") {
    static thread_local int refused = 0;
    const Io failing{system_io().open_at, system_io().pread,
                     [](int fd, void* buffer, std::size_t size) -> ssize_t {
                         return refused-- > 0 ? -EIO : system_io().get_dents(fd, buffer, size);
                     },
                     system_io().close};
    ScannerChoice choice;
    choice.bpf.object = choice.bpf.listing = {};
    refused = 2;  // the first listing of taskstats and of gated, or of gated and of the walk
    ProcessTiers tiers({}, {}, failing, kClock, choice);
    ProcessTable table;
    const auto first = tiers.scan(table);
    if (!first) CHECK(first.error().sys_errno == EIO);
    REQUIRE(tiers.scan(table).ok());
    CHECK(tiers.tier() == Tier::tree);
    const auto statuses = tiers.statuses();
    CHECK(!statuses[2].available);
    CHECK(statuses[2].reason.find("EIO") != std::string::npos);
    refused = 1;
    ProcessTiers forced(Tier::gated, {}, failing, kClock, choice);
    CHECK(forced.scan(table).error().sys_errno == EIO);
    CHECK(forced.scan(table).ok());
    CHECK(forced.tier() == Tier::gated);
}

TEST_CASE("process tiers: a name that is no tier is refused") {
    CHECK(!sources::parse_tier("auto").has_value());
    CHECK(sources::parse_tier("gated") == Tier::gated);
    CHECK_THROWS_WITH_AS((void)sources::parse_tier("fast"), doctest::Contains("found 'fast'"), std::invalid_argument);
}

}  // namespace argus::test
