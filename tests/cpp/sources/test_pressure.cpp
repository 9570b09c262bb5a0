#include <doctest/doctest.h>

#include "sources/pressure.hpp"
#include "support.hpp"

namespace argus::test {

TEST_CASE("pressure: totals are seconds, averages are shares") {
    Tree tree("6.18");
    Memory memory;
    auto source = sources::pressure_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    const auto report = (*source)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 24);
    const std::string some_cpu = "{system.pressure.kind=some,system.pressure.resource=cpu}";
    CHECK(memory.at("system.pressure.stall_time" + some_cpu) == doctest::Approx(39.679944).epsilon(1e-12));
    CHECK(memory.at("system.pressure.avg60" + some_cpu) == doctest::Approx(0.0502).epsilon(1e-12));
    CHECK(!memory.has("system.pressure.stall_time{system.pressure.kind=some,system.pressure.resource=irq}"));
}

TEST_CASE("pressure: a missing full line yields no full series") {
    const auto parsed = sources::parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n");
    CHECK(parsed.lines[0].present);
    CHECK(parsed.lines[0].total_us == 7);
    CHECK(!parsed.lines[1].present);
    CHECK(parsed.malformed == 0);
}

TEST_CASE("pressure: hostile lines are skipped and counted") {
    const auto cpu = sources::parse_pressure(slurp(kFixtures / "hostile/proc/pressure/cpu"));
    CHECK(cpu.lines[0].present);
    CHECK(!cpu.lines[1].present);
    CHECK(cpu.malformed == 1);
    const auto io = sources::parse_pressure(slurp(kFixtures / "hostile/proc/pressure/io"));
    CHECK(!io.lines[0].present);  // more than 100 %
    REQUIRE(io.lines[1].present);
    CHECK(io.lines[1].total_us == 2000000);
    CHECK(io.lines[1].average[0] == 0.5);
    CHECK(io.malformed == 3);  // and total=-1, and a second full
}

TEST_CASE("pressure: one resource that the kernel lacks leaves the others") {
    Tree tree("6.18");
    tree.remove("proc/pressure/memory");
    Memory memory;
    auto source = sources::pressure_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    const auto report = (*source)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 16);
    CHECK(report.value().malformed == 0);
}

TEST_CASE("pressure: a resource that was absent is looked for now and then, and none at all stays an error") {
    Tree tree("6.18");
    const std::string text = slurp(tree.path("proc/pressure/io"));
    tree.remove("proc/pressure/io");
    static bool refuses = false;
    const Io io{system_io().open_at,
                [](int fd, void* buffer, std::size_t size, off_t offset) -> ssize_t {
                    return refuses ? -EOPNOTSUPP : system_io().pread(fd, buffer, size, offset);
                },
                system_io().get_dents, system_io().close};
    auto source = sources::pressure_source.open(tree.roots(), io);
    REQUIRE(source.ok());
    Memory memory;
    REQUIRE((*source)->poll(0, memory).ok());
    tree.write("proc/pressure/io", text);
    const std::string name = "system.pressure.stall_time{system.pressure.kind=some,system.pressure.resource=io}";
    int polls = 0;
    while (!memory.has(name) && polls < 40) REQUIRE((*source)->poll(++polls, memory).ok());
    CHECK(polls == 32);
    refuses = true;
    for (int i = 0; i < 3; ++i) {
        const auto report = (*source)->poll(++polls, memory);
        REQUIRE(!report.ok());
        CHECK(report.error().code == Errc::unavailable);
    }
    refuses = false;
}

TEST_CASE("pressure: psi=0, where every read answers EOPNOTSUPP, is unavailable") {
    Tree tree("6.18");
    const Io refusing{kFaultyIo.open_at, [](int, void*, std::size_t, off_t) -> ssize_t { return -EOPNOTSUPP; },
                      kFaultyIo.get_dents, kFaultyIo.close};
    const auto source = sources::pressure_source.open(tree.roots(), refusing);
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
    faults = {};
}

}  // namespace argus::test
