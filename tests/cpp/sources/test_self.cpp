#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <vector>

#include "../allocations.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_self(const Io& io = system_io()) {
    auto source = sources::self_source.open({}, io);
    REQUIRE(source.ok());
    return std::move(*source);
}

}  // namespace

TEST_CASE("self: with other roots it is unavailable") {
    Tree tree("6.18");
    const auto source = sources::self_source.open(tree.roots(), system_io());
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
}

TEST_CASE("self: processor time grows with work and agrees with getrusage") {
    Memory memory;
    auto source = open_self();
    REQUIRE(source->poll(0, memory).ok());
    const double before = memory.at("argus.cpu.time{cpu.mode=user}") + memory.at("argus.cpu.time{cpu.mode=system}");
    const auto used = [] {
        rusage usage{};
        getrusage(RUSAGE_SELF, &usage);
        return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    };
    const double start = used();
    while (used() < start + 0.02) {
    }
    REQUIRE(source->poll(1, memory).ok());
    const double after = memory.at("argus.cpu.time{cpu.mode=user}") + memory.at("argus.cpu.time{cpu.mode=system}");
    CHECK(after - before >= 0.015);
    CHECK(after <= used() + 1e-6);
}

TEST_CASE("self: descriptors, memory and threads are this process's") {
    Memory memory;
    auto source = open_self();
    REQUIRE(source->poll(0, memory).ok());
    CHECK(memory.names.size() == 10);
    const double descriptors = memory.at("argus.open_file_descriptor.count");
    const double resident = memory.at("argus.memory.usage");
    const int extra = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    std::vector<char> touched(std::size_t{64} << 20, 'x');
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.at("argus.open_file_descriptor.count") == descriptors + 1);
    CHECK(memory.at("argus.memory.usage") - resident > static_cast<double>(std::size_t{32} << 20));
    CHECK(memory.at("argus.memory.virtual") >= memory.at("argus.memory.usage"));
    CHECK(memory.at("argus.thread.count") >= 1);
    CHECK(memory.at("argus.thread.count") < 10'000);
    CHECK(touched.back() == 'x');
    ::close(extra);
}

TEST_CASE("self: a steady poll allocates nothing, and interrupted calls change nothing") {
    const WithFaults injected({.largest_read = 7, .interrupt_every = 3});
    {
        Memory memory;
        auto source = open_self(kFaultyIo);
        REQUIRE(source->poll(0, memory).ok());
        const std::uint64_t before = allocations();
        const auto report = source->poll(1, memory);
        CHECK(allocations() == before);
        REQUIRE(report.ok());
        CHECK(report.value().emitted == 10);
    }
    CHECK(faults.opened == 0);
}

}  // namespace argus::test
