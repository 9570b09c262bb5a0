#include "sources/cpufreq.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "../allocations.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_cpufreq(const Tree& tree) {
    auto source = sources::cpufreq_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string of_cpu(const char* name, int cpu, const std::string& after = "") {
    return std::string(name) + "{cpu.logical_number=" + std::to_string(cpu) + after + "}";
}
std::string frequency(int cpu) { return of_cpu("system.cpu.frequency", cpu); }
std::string limit(int cpu, const char* type) {
    return of_cpu("system.cpu.frequency.limit", cpu, std::string(",system.cpu.frequency.limit_type=") + type);
}
std::string throttles(int cpu, const char* scope) {
    return of_cpu("system.cpu.throttles", cpu, std::string(",system.cpu.throttle.scope=") + scope);
}

}  // namespace

TEST_CASE("cpufreq: frequencies and limits in Hz, cores and packages once each") {
    Tree tree("metal");
    Memory memory;
    const auto report = open_cpufreq(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(memory.at(frequency(0)) == 3.4e9);
    CHECK(memory.at(frequency(1)) == 1.2e9);
    CHECK(!memory.has(frequency(2)));  // "<unknown>" is no frequency
    CHECK(memory.at(frequency(3)) == 2.5e9);
    CHECK(memory.at(limit(0, "min")) == 8e8);
    CHECK(memory.at(limit(1, "max")) == 2e9);
    CHECK(memory.at("system.cpu.physical.count") == 2);  // four processors, two to a core
    CHECK(memory.at(throttles(0, "core")) == 17);
    CHECK(memory.at(throttles(1, "core")) == 0);
    CHECK(!memory.has(throttles(2, "core")));  // the same core as 0
    CHECK(memory.at(throttles(0, "package")) == 23);
    CHECK(!memory.has(throttles(1, "package")));
    CHECK(memory.at(of_cpu("system.cpu.throttle.time", 0, ",system.cpu.throttle.scope=core")) == 2.5);
    CHECK(memory.names.size() == 3 + 8 + 2 + 2 + 1 + 1);
}

TEST_CASE("cpufreq: a virtual machine without cpufreq has its frequency from cpuinfo and its cores from the topology") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_cpufreq(tree);
    REQUIRE(source->poll(0, memory).ok());
    CHECK(memory.at(frequency(0)) > 1e9);
    CHECK(memory.at("system.cpu.physical.count") == 2);
    CHECK(memory.names.size() == 3);
    const std::uint64_t before = allocations();
    const auto report = source->poll(1, memory);
    CHECK(allocations() == before);
    CHECK(report.value().emitted == 3);
    tree.remove("proc/cpuinfo");
    Memory without;
    REQUIRE(open_cpufreq(tree)->poll(0, without).ok());
    CHECK(without.names == std::set<std::string>{"system.cpu.physical.count"});
}

TEST_CASE("cpufreq: with neither cpufreq, topology nor a clock in cpuinfo it is unavailable") {
    Tree tree("6.18");
    tree.remove("sys/devices");
    tree.remove("proc/cpuinfo");
    auto source = sources::cpufreq_source.open(tree.roots(), system_io());
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
    CHECK(std::string(source.error().what) == "proc/cpuinfo");
    tree.write("proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\n");
    source = sources::cpufreq_source.open(tree.roots(), system_io());
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
}

TEST_CASE("cpufreq: a processor taken offline closes its series and its core, and comes back") {
    Tree tree("metal");
    Memory memory;
    auto source = open_cpufreq(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.write("sys/devices/system/cpu/online", "0,2\n");
    tree.remove("sys/devices/system/cpu/cpu1/topology");
    tree.remove("sys/devices/system/cpu/cpu3/topology");
    REQUIRE(source->poll(1, memory).ok());
    CHECK(!memory.has(frequency(1)));
    CHECK(!memory.has(limit(3, "max")));
    CHECK(memory.at(frequency(0)) == 3.4e9);
    CHECK(memory.at("system.cpu.physical.count") == 1);
    tree.write("sys/devices/system/cpu/online", "0-3\n");
    REQUIRE(source->poll(2, memory).ok());
    CHECK(memory.at(frequency(1)) == 1.2e9);
    CHECK(memory.at("system.cpu.physical.count") == 1);  // not observed: two processors do not say whose core they are
}

TEST_CASE("cpufreq: a processor that leaves cpuinfo closes its series, a cut cpuinfo closes none") {
    Tree tree("6.18");
    tree.remove("sys");
    Memory memory;
    auto source = open_cpufreq(tree);
    REQUIRE(source->poll(0, memory).ok());
    const std::string text = slurp(kFixtures / "6.18/proc/cpuinfo");
    tree.write("proc/cpuinfo", text.substr(0, text.size() - 10));
    CHECK(source->poll(1, memory).value().malformed == 1);
    CHECK(memory.closed == 0);
    tree.write("proc/cpuinfo", text.substr(0, text.find("processor", 1)));
    CHECK(source->poll(2, memory).value().malformed == 0);
    CHECK(memory.closed == 1);
    CHECK(memory.has(frequency(0)));
    CHECK(!memory.has(frequency(1)));
}

TEST_CASE("cpufreq: a driver loaded later is found") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_cpufreq(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1234000\n");
    tree.write("sys/devices/system/cpu/cpufreq/policy0/affected_cpus", "0\n");
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.at(frequency(0)) == 1.234e9);
}

TEST_CASE("cpufreq: hostile cpuinfo lines are counted and skipped") {
    std::vector<sources::CpuClock> clocks;
    const std::string text = slurp(kFixtures / "hostile/proc/cpuinfo");
    // -12.5; processor 99999999 and its clock; 0.000; processor 0 again; 9999999999.0
    CHECK(sources::parse_cpu_clocks(text, clocks) == 6);
    REQUIRE(clocks.size() == 2);
    CHECK(clocks[0].hertz == doctest::Approx(2.499974e9));
    CHECK(clocks[1].cpu == 4);
    CHECK(clocks[1].hertz == doctest::Approx(1.8005e9));
    CHECK(sources::parse_cpu_clocks("processor\t: 0\ncpu MHz\t\t: 2499.9", clocks) == 1);  // cut
    CHECK(clocks.empty());
}

TEST_CASE("cpufreq: 1,024 processors have series, those beyond only count as cores") {
    Tree tree;
    tree.write("sys/devices/system/cpu/online", "0-1099\n");
    for (int cpu = 0; cpu < 1100; ++cpu) {
        const std::string folder = "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/";
        tree.write(folder + "topology/core_cpus_list", std::to_string(cpu) + "\n");
        if (cpu > 1000) tree.write(folder + "cpufreq/scaling_cur_freq", "1000000\n");
    }
    Memory memory;
    REQUIRE(open_cpufreq(tree)->poll(0, memory).ok());
    CHECK(memory.at("system.cpu.physical.count") == 1100);
    CHECK(memory.has(frequency(1023)));
    CHECK(!memory.has(frequency(1024)));
    CHECK(memory.names.size() == 23 + 1);
}

TEST_CASE("cpufreq: short reads and interruptions change nothing, no descriptor is lost, a FIFO does not block") {
    Tree tree("metal");
    Memory calm;
    REQUIRE(open_cpufreq(tree)->poll(0, calm).ok());
    const WithFaults injected({.largest_read = 1, .interrupt_every = 3});
    {
        Memory rough;
        auto source = sources::cpufreq_source.open(tree.roots(), kFaultyIo);
        REQUIRE(source.ok());
        REQUIRE((*source)->poll(0, rough).ok());
        CHECK(rough.names == calm.names);
        for (const std::string& name : calm.names) CHECK_MESSAGE(rough.at(name) == calm.at(name), name);
        const std::string path = tree.roots().sys + "/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq";
        fs::remove(path);
        REQUIRE(mkfifo(path.c_str(), 0600) == 0);
        rough.forget();
        REQUIRE((*source)->poll(1, rough).ok());
        CHECK(std::isnan(rough.at(frequency(0))));
        CHECK(rough.at(frequency(1)) == 1.2e9);
    }
    CHECK(faults.opened == 0);
}

}  // namespace argus::test
