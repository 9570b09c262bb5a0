#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>

#include "../allocations.hpp"
#include "sources/processes/tree.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

using sources::ProcessColumn;
using sources::ProcessTable;
using sources::ProcessTree;

std::string name_of(const ProcessTable& table, std::size_t row) {
    const char* text = table.name[row].data();
    return {text, strnlen(text, sources::kProcessNameBytes)};
}

std::size_t row_of(const ProcessTable& table, std::int32_t pid) {
    for (std::size_t row = 0; row < table.count; ++row) {
        if (table.pid[row] == pid) return row;
    }
    return table.count;
}

double cell(const ProcessTable& table, std::int32_t pid, ProcessColumn column) {
    const std::size_t row = row_of(table, pid);
    REQUIRE(row < table.count);
    return table.column(column)[row];
}

constexpr std::uint32_t kAllOfFiles = 31 | sources::kValidKinds;  // at first sight
const std::string kTail =
    " S 1 10 10 0 -1 4194304 101 0 7 0 250 150 0 0 20 -5 1 0 5000 3133440 382 18446744073709551615 "
    "1 2 3 0 0 0 0 0 0 0 0 0 17 3 0 0 0 0 0 4 5 6 7 8 9 10 0\n";

}  // namespace

TEST_CASE("processes: the captured processes give every field") {
    Tree tree("6.18");
    ManualClock clock(5 * kSecond);
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    REQUIRE(processes.scan(table).value() == 4);
    CHECK(table.time == 5 * kSecond);
    const std::size_t row = row_of(table, 12621);
    REQUIRE(row < table.count);
    CHECK(name_of(table, row) == "python");
    CHECK(table.state[row] == 'S');
    CHECK(table.ppid[row] == 12579);
    CHECK(table.start_time_ns[row] == 3267380000000);
    CHECK(table.threads[row] == 4);
    CHECK(table.nice[row] == 0);
    CHECK(table.last_cpu[row] == 1);
    CHECK(table.uid[row] == 0);
    CHECK(table.valid[row] == kAllOfFiles);
    const std::array<double, sources::kProcessColumns> expected{
        0.02, 0.0,    std::nan(""), 2457.0 * 4096, 239775744, 1460.0 * 4096, 1111, 0,
        8192, 0,      300904,       10,            9,         2,             0.000325617,
        3988.0 * 1024, 5840.0 * 1024, 0, 0};
    for (std::size_t i = 0; i < expected.size(); ++i) {
        CAPTURE(sources::process_columns()[i].name);
        const double got = table.columns[i][row];
        CHECK((std::isnan(expected[i]) ? std::isnan(got) : got == doctest::Approx(expected[i]).epsilon(1e-12)));
    }
    CHECK(table.state[row_of(table, 12622)] == 'Z');
    CHECK(name_of(table, row_of(table, 2)) == "kthreadd");
}

TEST_CASE("processes: comm may hold anything; it ends at the last parenthesis") {
    Tree tree("hostile");
    ManualClock clock;
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    REQUIRE(processes.scan(table).ok());
    const std::pair<std::int32_t, std::string> names[] = {
        {10, "a) R 1 (b"}, {11, "new\nline"}, {12, "\x1b[2Jclear"}, {13, "\xff\xfe\x80"},
        {14, ""},          {15, "only stat"}, {16, std::string(64, 'k')}, {21, "spaces and\ttabs"}};
    for (const auto& [pid, name] : names) {
        const std::size_t row = row_of(table, pid);
        REQUIRE(row < table.count);
        CHECK(name_of(table, row) == name);
        CHECK(table.state[row] == 'S');
        CHECK(table.nice[row] == -5);
        CHECK(table.last_cpu[row] == 3);
        CHECK(table.column(ProcessColumn::cpu_user)[row] == 2.5);
        CHECK(table.column(ProcessColumn::minor_faults)[row] == 101);
    }
}

TEST_CASE("processes: cut, empty, foreign and impossible entries are no rows and no error") {
    Tree tree("hostile");
    ManualClock clock;
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    REQUIRE(processes.scan(table).value() == 9);
    CHECK(table.malformed == 2);   // 17 cut short, 19 speaks of another pid
    CHECK(table.vanished == 1);    // 18 is empty
    CHECK(table.unreadable == 0);
    CHECK(row_of(table, 12) < table.count);
    CHECK(table.start_time_ns[row_of(table, 12)] == 50 * kSecond);  // not that of "0012"
}

TEST_CASE("processes: what cannot be read is NaN with its bit cleared, never 0") {
    Tree tree("hostile");
    ManualClock clock;
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    REQUIRE(processes.scan(table).ok());
    for (const std::int32_t pid : {15, 20}) {  // no files beside stat; all of them hostile
        CHECK(table.valid[row_of(table, pid)] == sources::kValidStat);
        CHECK(table.uid[row_of(table, pid)] == -1);
        for (const auto column : {ProcessColumn::rss, ProcessColumn::shared, ProcessColumn::read_bytes,
                                  ProcessColumn::write_chars, ProcessColumn::voluntary_switches,
                                  ProcessColumn::run_delay, ProcessColumn::cpu_utilization}) {
            CHECK(std::isnan(cell(table, pid, column)));
        }
        CHECK(cell(table, pid, ProcessColumn::virtual_) == 3133440);
    }
}

TEST_CASE("processes: a stat cut anywhere is refused") {
    const std::string text = "42 (a) b)" + kTail;
    sources::ProcessStat stat;
    REQUIRE(sources::parse_process_stat(text, stat));
    CHECK(stat.name == "a) b");
    for (std::size_t size = 0; size < text.size(); ++size) {
        CAPTURE(size);
        CHECK(!sources::parse_process_stat(std::string_view(text).substr(0, size), stat));
    }
    CHECK(!sources::parse_process_stat("-1 (x)" + kTail, stat));
    CHECK(!sources::parse_process_stat("99999999999 (x)" + kTail, stat));
    CHECK(!sources::parse_process_stat(")42 (x" + kTail, stat));
}

TEST_CASE("processes: utilization is NaN first, then measured; a reused pid starts anew") {
    Tree tree("6.18");
    ManualClock clock(kSecond);
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    (void)processes.scan(table);
    CHECK(std::isnan(cell(table, 12620, ProcessColumn::cpu_utilization)));
    clock.advance(2 * kSecond);
    tree.write("proc/12620/schedstat", "501103816 0 7\n");                         // one thread: exact nanoseconds
    tree.replace("proc/12621/stat", " 2 0 0 0 20 0 4 ", " 302 100 0 0 20 0 4 ");  // four threads: ticks
    (void)processes.scan(table);
    CHECK(cell(table, 12620, ProcessColumn::cpu_utilization) == doctest::Approx(0.25).epsilon(1e-12));
    CHECK(cell(table, 12621, ProcessColumn::cpu_utilization) == doctest::Approx(2.0).epsilon(1e-12));
    CHECK((table.valid[row_of(table, 12620)] & sources::kValidUtilization) != 0);
    clock.advance(kSecond);
    tree.replace("proc/12620/stat", " 326738 ", " 326999 ");
    (void)processes.scan(table);
    CHECK(std::isnan(cell(table, 12620, ProcessColumn::cpu_utilization)));
    clock.advance(kSecond);
    tree.replace("proc/12621/stat", " 302 100 0 0 20 0 4 ", " 1 1 0 0 20 0 4 ");  // time taken back
    (void)processes.scan(table);
    CHECK(std::isnan(cell(table, 12621, ProcessColumn::cpu_utilization)));
}

TEST_CASE("processes: without time passing there is no utilization") {
    Tree tree("6.18");
    ManualClock clock(kSecond);
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    (void)processes.scan(table);
    (void)processes.scan(table);
    CHECK(std::isnan(cell(table, 12620, ProcessColumn::cpu_utilization)));
}

TEST_CASE("processes: the gate skips io and status only of a single thread that provably did not run") {
    Tree tree("6.18");
    ManualClock clock(kSecond);
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    const auto scan = [&] {
        clock.advance(kSecond);
        REQUIRE(processes.scan(table).ok());
        return cell(table, 12620, ProcessColumn::read_bytes);
    };
    CHECK(scan() == 20480);
    CHECK(table.gated == 0);
    tree.replace("proc/12620/io", "read_bytes: 20480", "read_bytes: 777");
    tree.write("proc/12620/statm", "730 500 430 5 0 89 0\n");
    CHECK(scan() == 20480);  // a kernel could not have changed it: the file is not read
    CHECK(table.gated == 3);  // all but the one with four threads
    CHECK(cell(table, 12620, ProcessColumn::rss) == 500.0 * 4096);
    CHECK(cell(table, 12620, ProcessColumn::cpu_utilization) == 0.0);
    SUBCASE("one more nanosecond on a processor") { tree.write("proc/12620/schedstat", "1103817 0 6\n"); }
    SUBCASE("one more time scheduled in") { tree.write("proc/12620/schedstat", "1103816 0 7\n"); }
    SUBCASE("another process with the same pid") { tree.replace("proc/12620/stat", " 326738 ", " 326739 "); }
    SUBCASE("running now") { tree.replace("proc/12620/stat", ") S ", ") R "); }
    SUBCASE("another thread") { tree.replace("proc/12620/stat", " 20 0 1 0 ", " 20 0 2 0 "); }
    SUBCASE("no schedstat") { tree.remove("proc/12620/schedstat"); }
    CHECK(scan() == 777);
}

TEST_CASE("processes: an unreadable io stays unreadable through the gate") {
    Tree tree("6.18");
    tree.remove("proc/12620/io");
    ManualClock clock(kSecond);
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    for (int i = 0; i < 2; ++i) {
        clock.advance(kSecond);
        (void)processes.scan(table);
        CHECK(std::isnan(cell(table, 12620, ProcessColumn::read_bytes)));
        CHECK((table.valid[row_of(table, 12620)] & sources::kValidIo) == 0);
    }
}

TEST_CASE("processes: short reads and interruptions change nothing, descriptors are given back") {
    Tree tree("6.18");
    ManualClock clock(kSecond);
    ProcessTable calm;
    (void)ProcessTree(tree.proc(), system_io(), clock).scan(calm);
    for (const std::size_t largest : {1U, 13U, 100U}) {
        const WithFaults injected({.largest_read = largest, .interrupt_every = 3});
        ProcessTable rough;
        ProcessTree processes(tree.proc(), kFaultyIo, clock);
        REQUIRE(processes.scan(rough).ok());
        CAPTURE(largest);
        REQUIRE(rough.count == calm.count);
        for (std::size_t row = 0; row < calm.count; ++row) {
            CHECK(rough.pid[row] == calm.pid[row]);
            CHECK(rough.valid[row] == calm.valid[row]);
            CHECK(name_of(rough, row) == name_of(calm, row));
            for (std::size_t i = 0; i < sources::kProcessColumns; ++i) {
                const double a = rough.columns[i][row];
                const double b = calm.columns[i][row];
                CHECK((a == b || (std::isnan(a) && std::isnan(b))));
            }
        }
        CHECK(faults.opened == 0);
    }
}

TEST_CASE("processes: a proc root that is not there, or no descriptor left, is an error of the whole scan") {
    ManualClock clock;
    ProcessTable table;
    ProcessTree absent("/nonexistent-proc", system_io(), clock);
    CHECK(absent.scan(table).error().code == Errc::unavailable);
    Tree tree("6.18");
    ProcessTree processes(tree.proc(), kFaultyIo, clock);
    const WithFaults injected({.open_errno = EMFILE});
    CHECK(processes.scan(table).error().code == Errc::limit);
}

TEST_CASE("processes: no descriptor left half way is unreadable, not gone") {
    Tree tree("6.18");
    ManualClock clock;
    ProcessTable table;
    const Io one_only{[](int directory, const char* path, int flags) {
                          return directory == AT_FDCWD ? system_io().open_at(directory, path, flags) : -EMFILE;
                      },
                      system_io().pread, system_io().get_dents, system_io().close};
    ProcessTree processes(tree.proc(), one_only, clock);
    REQUIRE(processes.scan(table).ok());
    CHECK(table.count == 0);
    CHECK(table.unreadable == 4);
    CHECK(table.vanished == 0);
}

TEST_CASE("processes: a status longer than a page is read to its end") {
    Tree tree("6.18");
    std::string groups = "Groups:\t";
    for (int i = 0; i < 20000; ++i) groups += std::to_string(100000 + i) + " ";
    tree.replace("proc/12620/status", "Groups:\t", groups);
    ManualClock clock;
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    REQUIRE(processes.scan(table).ok());
    CHECK(cell(table, 12620, ProcessColumn::voluntary_switches) == 6);
    CHECK((table.valid[row_of(table, 12620)] & sources::kValidStatus) != 0);
}

TEST_CASE("processes: a scan of unchanged processes allocates nothing; rows come by pid") {
    SystemClock clock;
    Tree tree("hostile");
    ProcessTree processes(tree.proc(), system_io(), clock);
    ProcessTable table;
    (void)processes.scan(table);
    (void)processes.scan(table);
    const std::uint64_t before = allocations();
    const bool good = processes.scan(table).ok();
    CHECK(allocations() == before);
    CHECK(good);
    CHECK(std::is_sorted(table.pid.begin(), table.pid.begin() + static_cast<std::ptrdiff_t>(table.count)));
}

TEST_CASE("processes: this process is in the real table, a reaped child is not") {
    SystemClock clock;
    ProcessTree processes("/proc", system_io(), clock);
    ProcessTable table;
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        pause();
        _exit(0);
    }
    REQUIRE(processes.scan(table).ok());
    CHECK(row_of(table, static_cast<std::int32_t>(getpid())) < table.count);
    const std::size_t row = row_of(table, static_cast<std::int32_t>(child));
    REQUIRE(row < table.count);
    CHECK(table.ppid[row] == getpid());
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    REQUIRE(processes.scan(table).ok());
    CHECK(row_of(table, static_cast<std::int32_t>(child)) == table.count);
}

}  // namespace argus::test
