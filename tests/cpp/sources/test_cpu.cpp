#include <doctest/doctest.h>

#include "sources/cpu.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_cpu(const Tree& tree) {
    auto source = sources::cpu_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

}  // namespace

TEST_CASE("cpu: the captured machine gives its ticks as seconds") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_cpu(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(memory.at("system.cpu.time{cpu.mode=user}") == 258.54);
    CHECK(memory.at("system.cpu.time{cpu.logical_number=1,cpu.mode=idle}") == 2910.05);
    CHECK(memory.at("system.cpu.time{cpu.logical_number=0,cpu.mode=steal}") == 0.91);
    CHECK(memory.at("system.cpu.context_switches") == 662516);
    CHECK(memory.at("system.cpu.interrupts") == 518534);
    CHECK(memory.at("system.process.created") == 12620);
    CHECK(memory.at("system.boot_time") == 1795182164);
    CHECK(memory.at("system.cpu.softirqs{softirq.type=rcu}") == 78624);
    CHECK(memory.at("system.cpu.load_average.5m") == 0.60);
    CHECK(memory.at("system.thread.count") == 91);
    CHECK(memory.at("system.uptime") == 3267.38);
    CHECK(memory.at("system.cpu.logical.count") == 2);
}

TEST_CASE("cpu: a processor that goes offline closes its series, one that comes back opens new ones") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_cpu(tree);
    (void)source->poll(0, memory);
    const std::string line = "cpu1 17980 10779 3701 291005 2822 0 145 74 0 0\n";
    tree.replace("proc/stat", line, "");
    (void)source->poll(1, memory);
    CHECK(memory.closed == 10);
    CHECK(!memory.has("system.cpu.time{cpu.logical_number=1,cpu.mode=user}"));
    CHECK(memory.at("system.cpu.logical.count") == 1);
    tree.replace("proc/stat", "intr", line + "intr");
    (void)source->poll(2, memory);
    CHECK(memory.at("system.cpu.time{cpu.logical_number=1,cpu.mode=user}") == 179.80);
    CHECK(memory.at("system.cpu.logical.count") == 2);
}

TEST_CASE("cpu: hostile lines are skipped and counted, the others live") {
    sources::CpuStat stat;
    REQUIRE(sources::parse_stat(slurp(kFixtures / "hostile/proc/stat"), stat).ok());
    REQUIRE(stat.cpus.size() == 3);  // cpu, cpu0 with u64 max, cpu0 again
    CHECK(stat.cpus[1].ticks[0] == std::numeric_limits<std::uint64_t>::max());
    CHECK(stat.cpus[1].modes == 4);
    CHECK(stat.seen == ((1U << sources::CpuStat::boot_time) | (1U << sources::CpuStat::running)));
    CHECK(stat.softirq_count == 2);
    CHECK(stat.malformed == 9);  // cpu1, 2, 3, X, 99999, 4, intr, ctxt, processes

    Tree tree("hostile");
    Memory memory;
    const auto report = open_cpu(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 12);  // and the second cpu0, loadavg, uptime
    CHECK(memory.at("system.cpu.time{cpu.logical_number=0,cpu.mode=nice}") == 0.02);
    CHECK(!memory.has("system.uptime"));
}

TEST_CASE("cpu: a machine of 1,024 processors fits") {
    std::string text = "cpu  1 1 1 1\n";
    for (int i = 0; i < 1024; ++i) text += "cpu" + std::to_string(i) + " 100 0 0 1 0 0 0 0 0 0\n";
    Tree tree("6.18");
    tree.write("proc/stat", text);
    Memory memory;
    const auto report = open_cpu(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(memory.at("system.cpu.logical.count") == 1024);
    CHECK(memory.at("system.cpu.time{cpu.logical_number=1023,cpu.mode=user}") == 1.0);
}

TEST_CASE("cpu: no cpu line at all is malformed, not empty") {
    sources::CpuStat stat;
    CHECK(sources::parse_stat("", stat).error().code == Errc::malformed);
    CHECK(sources::parse_stat("ctxt 5\n", stat).error().code == Errc::malformed);
}

TEST_CASE("cpu: lists of processors are ranges that ascend, or nothing") {
    std::vector<std::int32_t> cpus;
    CHECK(sources::parse_cpu_list("0-3,5,8-9\n", cpus));
    CHECK(cpus == std::vector<std::int32_t>{0, 1, 2, 3, 5, 8, 9});
    CHECK(sources::parse_cpu_list("0-8191\n", cpus));
    CHECK(cpus.size() == 8192);
    for (const char* wrong : {"", "\n", "0-", "-3", "3-1", "0,0", "1,0", "0-8192", "a", "0-3,", "0-3, 5", "0--3",
                              "0-18446744073709551616"}) {
        CAPTURE(wrong);
        CHECK(!sources::parse_cpu_list(wrong, cpus));
        CHECK(cpus.empty());
    }
}

}  // namespace argus::test
