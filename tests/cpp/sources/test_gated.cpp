// Tiers `gated` and `taskstats`: what is read when, with processor clocks made up for the fixture's processes.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include "../allocations.hpp"
#include "sources/processes/gated.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

using sources::GatedProcesses;
using sources::KeptFiles;
using sources::ProcessColumn;
using sources::ProcessTable;

thread_local std::map<std::int32_t, std::int64_t> clocks;

std::int64_t fake_clock(std::int32_t pid) noexcept {
    const auto found = clocks.find(pid);
    return found == clocks.end() ? -ESRCH : found->second;
}

std::size_t row_of(const ProcessTable& table, std::int32_t pid) {
    for (std::size_t row = 0; row < table.count; ++row) {
        if (table.pid[row] == pid) return row;
    }
    return table.count;
}

// The fixture's processes, with a clock each.
struct Machine {
    explicit Machine(std::size_t kept_max = 16, const Io& io = system_io())
        : processes(tree.roots(), io, clock, fake_clock, kept_max) {
        clocks = {{2, 1000}, {12620, 1000}, {12621, 1000}, {12622, 1000}};
    }
    ~Machine() { clocks.clear(); }
    void scan() {
        clock.advance(kSecond);
        REQUIRE(processes.scan(table).ok());
    }
    [[nodiscard]] double cell(std::int32_t pid, ProcessColumn column) const {
        const std::size_t row = row_of(table, pid);
        REQUIRE(row < table.count);
        return table.column(column)[row];
    }
    [[nodiscard]] std::uint32_t valid(std::int32_t pid) const { return table.valid[row_of(table, pid)]; }

    Tree tree{"6.18"};
    ManualClock clock{kSecond};
    GatedProcesses processes;
    ProcessTable table;
};

}  // namespace

TEST_CASE("gated: first sight gives every group that files give") {
    Machine machine;
    machine.scan();
    REQUIRE(machine.table.count == 4);
    CHECK(machine.table.gated == 0);
    CHECK(machine.valid(12621) == (31 | sources::kValidKinds));
    CHECK(machine.cell(12621, ProcessColumn::rss) == 2457.0 * 4096);
    CHECK(machine.cell(12621, ProcessColumn::rss_anon) == 3988.0 * 1024);
    CHECK(machine.cell(12621, ProcessColumn::run_delay) == doctest::Approx(0.000325617));
    CHECK(machine.table.uid[row_of(machine.table, 12621)] == 0);
    CHECK(machine.table.cgroup_id[0] == -1);
    CHECK(std::isnan(machine.cell(12621, ProcessColumn::cpu_utilization)));
    CHECK(machine.processes.kept() == 0);
}

TEST_CASE("gated: what did not run is not read, what ran is, and its utilization is exact") {
    Machine machine;
    machine.scan();
    machine.tree.replace("proc/12620/io", "read_bytes: 20480", "read_bytes: 777");
    machine.tree.replace("proc/12621/io", "read_bytes: 8192", "read_bytes: 999");
    clocks[12621] += 250'000'000;
    machine.scan();
    CHECK(machine.table.gated == 3);
    CHECK(machine.cell(12620, ProcessColumn::read_bytes) == 20480);
    CHECK(machine.cell(12620, ProcessColumn::cpu_utilization) == 0.0);
    CHECK(machine.cell(12621, ProcessColumn::read_bytes) == 999);
    CHECK(machine.cell(12621, ProcessColumn::cpu_utilization) == doctest::Approx(0.25));
    CHECK(machine.processes.kept() == 1);
    // Not read with it, so no longer known; the user id is.
    CHECK((machine.valid(12621) & (sources::kValidStatus | sources::kValidSchedule | sources::kValidKinds)) == 0);
    CHECK(std::isnan(machine.cell(12621, ProcessColumn::voluntary_switches)));
    CHECK(machine.table.uid[row_of(machine.table, 12621)] == 0);
}

TEST_CASE("gated: a running process is read though its clock stands still") {
    Machine machine;
    machine.tree.replace("proc/12620/stat", ") S ", ") R ");
    machine.scan();
    machine.tree.replace("proc/12620/stat", ") R ", ") S ");
    machine.scan();
    CHECK(machine.table.state[row_of(machine.table, 12620)] == 'S');
}

TEST_CASE("gated: without time passing there is no utilization") {
    Machine machine;
    machine.scan();
    REQUIRE(machine.processes.scan(machine.table).ok());
    CHECK(std::isnan(machine.cell(12620, ProcessColumn::cpu_utilization)));
    CHECK((machine.valid(12620) & sources::kValidUtilization) == 0);
}

TEST_CASE("gated: another process with the same pid starts anew, with every group") {
    Machine machine;
    machine.scan();
    clocks[12620] += 5;
    machine.scan();  // its files are kept now
    CHECK(machine.processes.kept() == 1);
    machine.tree.replace("proc/12620/stat", " 326738 ", " 326999 ");
    clocks[12620] = 7;
    machine.scan();
    CHECK(std::isnan(machine.cell(12620, ProcessColumn::cpu_utilization)));
    CHECK(machine.table.start_time_ns[row_of(machine.table, 12620)] == 3269990000000);
    CHECK((machine.valid(12620) & sources::kValidStatus) != 0);
    CHECK(machine.processes.kept() == 0);
}

TEST_CASE("gated: what others do to a process that does not run is seen within the refresh") {
    Machine machine;
    machine.scan();
    machine.tree.write("proc/12620/statm", "730 500 430 5 0 89 0\n");
    machine.scan();
    CHECK(machine.cell(12620, ProcessColumn::rss) != 500.0 * 4096);
    machine.clock.advance(GatedProcesses::kRefresh);
    machine.scan();
    CHECK(machine.table.gated == 0);
    CHECK(machine.cell(12620, ProcessColumn::rss) == 500.0 * 4096);
    CHECK(machine.cell(12620, ProcessColumn::cpu_utilization) == 0.0);
}

TEST_CASE("gated: orphans are told of their new parent though they did not run") {
    Machine machine;
    machine.tree.replace("proc/12621/stat", " S 12579 ", " S 12620 ");
    machine.scan();
    clocks.erase(12620);
    machine.tree.replace("proc/12621/stat", " S 12620 ", " S 1 ");
    machine.scan();
    CHECK(row_of(machine.table, 12620) == machine.table.count);
    CHECK(machine.table.ppid[row_of(machine.table, 12621)] == 1);
    CHECK(machine.table.gated == 3);
}

TEST_CASE("gated: a new process is found by its number, without a listing") {
    Machine machine;
    machine.tree.write("proc/loadavg", "0.00 0.00 0.00 1/80 12622\n");
    machine.scan();
    machine.scan();
    fs::copy(fs::path(machine.tree.proc()) / "12620", fs::path(machine.tree.proc()) / "12625",
             fs::copy_options::recursive);
    machine.tree.replace("proc/12625/stat", "12620 (", "12625 (");
    clocks[12625] = 1;
    machine.scan();
    CHECK(machine.table.count == 4);  // no fork is told of, and the list is recent
    machine.tree.write("proc/loadavg", "0.00 0.00 0.00 1/80 12626\n");
    machine.scan();
    CHECK(machine.table.count == 5);
    CHECK(row_of(machine.table, 12625) == 4);
}

TEST_CASE("gated: a number given out before its process was there is asked for again") {
    Machine machine;
    machine.tree.write("proc/loadavg", "0.00 0.00 0.00 1/80 12619\n");
    clocks.erase(12620);
    machine.tree.remove("proc/12621");
    machine.tree.remove("proc/12622");
    fs::rename(fs::path(machine.tree.proc()) / "12620", fs::path(machine.tree.proc()) / "late");
    machine.scan();
    machine.scan();
    machine.tree.write("proc/loadavg", "0.00 0.00 0.00 1/80 12620\n");
    machine.scan();
    CHECK(machine.table.count == 1);
    fs::rename(fs::path(machine.tree.proc()) / "late", fs::path(machine.tree.proc()) / "12620");
    clocks[12620] = 1;
    machine.scan();
    CHECK(machine.table.count == 2);
}

TEST_CASE("gated: the list is taken again when numbers wrap, after a while, and without loadavg") {
    Machine machine;
    machine.scan();
    machine.scan();
    fs::copy(fs::path(machine.tree.proc()) / "12620", fs::path(machine.tree.proc()) / "300",
             fs::copy_options::recursive);
    machine.tree.replace("proc/300/stat", "12620 (", "300 (");
    clocks[300] = 1;
    SUBCASE("wrapped") { machine.tree.write("proc/loadavg", "0.00 0.00 0.00 1/80 301\n"); }
    SUBCASE("far ahead") { machine.tree.write("proc/loadavg", "0.00 0.00 0.00 1/80 4000000\n"); }
    SUBCASE("not told") { machine.tree.write("proc/loadavg", "0.00 0.00\n"); }
    SUBCASE("a while later") { machine.clock.advance(GatedProcesses::kListAtLeast); }
    machine.scan();
    CHECK(row_of(machine.table, 300) == 1);
}

TEST_CASE("gated: hidden and malformed processes have no row, are counted, and come back") {
    Machine machine;
    machine.tree.write("proc/12620/stat", "12620 (cut");
    machine.tree.remove("proc/12621/stat");
    fs::create_directory(fs::path(machine.tree.proc()) / "12621" / "stat");  // EISDIR: as little use as EACCES
    machine.scan();
    CHECK(machine.table.count == 2);
    CHECK(machine.table.malformed == 1);
    CHECK(machine.table.unreadable == 1);
    machine.scan();
    CHECK(machine.table.malformed == 1);
    CHECK(machine.table.unreadable == 1);
    machine.tree.remove("proc/12621/stat");
    machine.tree.write("proc/12621/stat", slurp(kFixtures / "6.18/proc/12621/stat"));
    machine.tree.write("proc/12620/stat", slurp(kFixtures / "6.18/proc/12620/stat"));
    machine.clock.advance(GatedProcesses::kListAtLeast);
    machine.scan();
    CHECK(machine.table.count == 4);
    CHECK(machine.table.unreadable == 0);
}

TEST_CASE("gated: without room no descriptor is kept, and the numbers are the same") {
    const WithFaults counting({});
    Machine machine(0, kFaultyIo);
    for (int i = 0; i < 3; ++i) {
        machine.scan();
        clocks[12620] += 10;
    }
    CHECK(machine.processes.kept() == 0);
    CHECK(machine.cell(12620, ProcessColumn::read_bytes) == 20480);
    CHECK((machine.valid(12620) & sources::kValidIo) != 0);
}

TEST_CASE("gated: no descriptor left is unreadable and no error; nothing is leaked") {
    {
        Machine machine(16, kFaultyIo);
        machine.scan();
        clocks[12620] += 10;
        machine.scan();
        CHECK(machine.processes.kept() == 1);
        faults.open_errno = EMFILE;
        clocks[12621] += 10;
        machine.scan();  // /proc itself cannot be opened; it need not be
        CHECK(machine.table.count == 3);
        CHECK(machine.table.unreadable == 1);
        CHECK(machine.processes.kept() == 0);  // given up for the sake of others
        faults.open_errno = 0;
        machine.clock.advance(GatedProcesses::kListAtLeast);
        machine.scan();
        CHECK(machine.table.count == 4);
        CHECK(faults.opened == 1 + 3 * static_cast<int>(machine.processes.kept()));  // proc/loadavg stays open
    }
    CHECK(faults.opened == 0);
    faults = {};
}

TEST_CASE("gated: short reads and interruptions change nothing") {
    Machine calm;
    calm.scan();
    for (const std::size_t largest : {1U, 13U, 100U}) {
        const WithFaults injected({.largest_read = largest, .interrupt_every = 3});
        Machine rough(16, kFaultyIo);
        rough.scan();
        clocks[12620] += 10;
        rough.scan();
        REQUIRE(rough.table.count == calm.table.count);
        for (std::size_t row = 0; row < calm.table.count; ++row) {
            CHECK(rough.table.pid[row] == calm.table.pid[row]);
            CHECK(rough.table.column(ProcessColumn::rss)[row] == calm.table.column(ProcessColumn::rss)[row]);
        }
    }
}

TEST_CASE("gated: a scan of unchanged and of running processes allocates nothing") {
    Machine machine;
    machine.scan();
    clocks[12620] += 10;
    machine.scan();
    clocks[12620] += 10;
    machine.clock.advance(kSecond);
    const std::uint64_t before = allocations();
    const bool good = machine.processes.scan(machine.table).ok();
    CHECK(allocations() == before);
    CHECK(good);
    CHECK(machine.table.gated == 3);
}

TEST_CASE("gated: a proc root that is not there is an error of the whole scan") {
    ManualClock clock(kSecond);
    GatedProcesses processes({"/nonexistent-proc", "/sys", ""}, system_io(), clock, fake_clock, 4);
    ProcessTable table;
    CHECK(processes.scan(table).error().code == Errc::unavailable);
}

TEST_CASE("gated: kept files close the least recently used, and keep none whose turn would never come") {
    std::array<int, 6> pipes{};
    const auto files = [&](int i) {
        REQUIRE(pipe(&pipes[static_cast<std::size_t>(i) * 2]) == 0);
        return KeptFiles::Files{pipes[static_cast<std::size_t>(i) * 2], pipes[static_cast<std::size_t>(i) * 2 + 1], -1};
    };
    KeptFiles kept(system_io(), 2);
    kept.begin_round();
    auto first = kept.keep(files(0));
    auto second = kept.keep(files(1));
    CHECK(kept.find(first) != nullptr);
    const auto refused = kept.keep(files(2));
    CHECK(refused.generation == 0);
    CHECK(kept.find(refused) == nullptr);
    for (int i = 0; i < 3; ++i) kept.begin_round();
    CHECK(kept.find(first) != nullptr);  // so the second is the one to go
    const auto third = kept.keep(files(2));
    CHECK(kept.find(third) != nullptr);
    CHECK(kept.find(second) == nullptr);
    CHECK(kept.find(first) != nullptr);
    CHECK(kept.size() == 2);
    kept.drop(first);
    kept.drop(first);
    CHECK(kept.size() == 1);
    CHECK(kept.shrink());
    CHECK(!kept.shrink());
    CHECK(kept.find(third) == nullptr);
}

TEST_CASE("taskstats: one task's account is what its files say; a pid that is none has none") {
    auto opened = sources::Taskstats::open();
    if (!opened) {
        MESSAGE("left out: ", opened.error().what);
        return;
    }
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    REQUIRE(waitpid(child, nullptr, WUNTRACED) == child);
    const std::array<std::int32_t, 3> pids{static_cast<std::int32_t>(getpid()), static_cast<std::int32_t>(child),
                                           0x3FFFFF};
    std::array<sources::TaskAccount, 3> accounts{};
    REQUIRE((*opened)->query(pids, accounts).ok());
    CHECK(accounts[0].pid == getpid());
    CHECK(accounts[1].pid == child);
    CHECK(accounts[2].pid == 0);
    CHECK(accounts[1].uid == getuid());
    sources::ProcessStatus status;
    REQUIRE(sources::parse_process_status(slurp("/proc/" + std::to_string(child) + "/status"), status));
    CHECK(accounts[1].voluntary == status.voluntary);
    CHECK(accounts[1].involuntary == status.involuntary);
    CHECK(accounts[0].read_chars % 1024 == 0);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
}

TEST_CASE("taskstats: an answer cut anywhere is refused") {
    constexpr std::uint16_t kFamily = 31;
    std::vector<unsigned char> message;
    const auto put16 = [&](std::size_t value) {
        message.push_back(static_cast<unsigned char>(value & 0xFF));
        message.push_back(static_cast<unsigned char>(value >> 8));
    };
    constexpr std::size_t kStats = 328;
    const std::size_t inner = 8 + 4 + kStats;
    const std::size_t whole = 16 + 4 + 4 + inner;
    for (const std::size_t half : {whole, std::size_t{0}, std::size_t{kFamily}, std::size_t{0}}) put16(half);
    message.resize(20);               // rest of nlmsghdr, genlmsghdr
    put16(4 + inner), put16(4);       // TASKSTATS_TYPE_AGGR_PID
    put16(8), put16(1), put16(4711), put16(0);  // TASKSTATS_TYPE_PID
    put16(4 + kStats), put16(3);      // TASKSTATS_TYPE_STATS
    message.resize(whole, 1);
    sources::TaskAccount account;
    CHECK(sources::parse_taskstats(message, kFamily, account));
    CHECK(account.pid == 4711);
    CHECK(!sources::parse_taskstats(message, kFamily + 1, account));
    for (std::size_t size = 0; size < message.size(); ++size) {
        const std::vector<unsigned char> cut(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size));
        CHECK(!sources::parse_taskstats(cut, kFamily, account));
    }
}

}  // namespace argus::test
