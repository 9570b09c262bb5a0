#include "sources/kernel.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_kernel(const Tree& tree) {
    auto source = sources::kernel_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

}  // namespace

TEST_CASE("kernel: tables and their limits, by other arithmetic") {
    Tree tree("6.18");
    tree.write("proc/sys/fs/file-nr", "1580\t80\t2000\n");
    tree.write("proc/sys/fs/inode-nr", "152907\t7\n");
    tree.write("proc/sys/fs/dentry-state", "238863\t237124\t45\t0\t81660\t0\n");
    tree.write("proc/sys/kernel/pid_max", "32768\n");
    tree.write("proc/sys/kernel/threads-max", "192731\n");
    tree.write("proc/loadavg", "0.1 0.2 0.3 1/8192 12\n");
    Memory memory;
    const auto report = open_kernel(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(memory.at("system.file_handle.usage") == 1500);
    CHECK(memory.at("system.file_handle.limit") == 2000);
    CHECK(memory.at("system.file_handle.utilization") == 0.75);
    CHECK(memory.at("system.inode_cache.usage{system.inode_cache.state=used}") == 152'900);
    CHECK(memory.at("system.inode_cache.usage{system.inode_cache.state=free}") == 7);
    CHECK(memory.at("system.dentry_cache.usage{system.dentry_cache.state=used}") == 1739);
    CHECK(memory.at("system.dentry_cache.usage{system.dentry_cache.state=unused}") == 155'464);
    CHECK(memory.at("system.dentry_cache.usage{system.dentry_cache.state=negative}") == 81'660);
    CHECK(memory.at("system.process.limit") == 32'768);
    CHECK(memory.at("system.thread.limit") == 192'731);
    CHECK(memory.at("system.thread.utilization") == 0.25);
    CHECK(memory.at("system.kernel.entropy") == 256);
}

TEST_CASE("kernel: what is negative, overflows, has letters or contradicts itself is counted and missing") {
    Tree tree("hostile");
    Memory memory;
    const auto report = open_kernel(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 4);  // inodes, dentries, pid_max, entropy
    CHECK(memory.at("system.file_handle.usage") == 1500);
    CHECK(!memory.has("system.file_handle.limit"));  // 2^63-1 is none
    CHECK(!memory.has("system.file_handle.utilization"));
    CHECK(memory.at("system.thread.limit") == 0);
    CHECK(memory.names.size() == 2);
}

TEST_CASE("kernel: a file-nr with more unused than allocated fails the poll") {
    Tree tree("6.18");
    auto source = open_kernel(tree);
    tree.write("proc/sys/fs/file-nr", "5\t6\t100\n");
    Memory memory;
    const auto report = source->poll(0, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::malformed);
    CHECK(memory.names.empty());
}

TEST_CASE("kernel: the clock is the live kernel's alone") {
    Tree tree("6.18");
    Memory memory;
    REQUIRE(open_kernel(tree)->poll(0, memory).ok());
    for (const std::string& name : memory.names) CHECK(!name.starts_with("system.clock"));
    auto live = sources::kernel_source.open({}, system_io());
    if (!live.ok()) return;  // a machine without these files
    Memory real;
    REQUIRE((*live)->poll(0, real).ok());
    const double synchronized = real.at("system.clock.synchronized");
    CHECK((synchronized == 0 || synchronized == 1));
    CHECK(real.has("system.clock.offset") == (synchronized == 1));
    CHECK(std::abs(real.at("system.clock.frequency_adjustment")) <= 0.0005 * 1.01);  // the kernel's own bound
}

TEST_CASE("kernel: adjtimex is read in its units, and an unsynchronised clock says so") {
    timex reply{};
    reply.offset = -250;
    reply.esterror = 1500;
    reply.maxerror = 2'000'000;
    reply.freq = 65536L * 25;  // 25 parts per million
    auto clock = sources::clock_state(reply, TIME_OK);
    CHECK(clock.synchronized);
    CHECK(clock.offset_s == doctest::Approx(-250e-6));
    CHECK(clock.error_estimated_s == doctest::Approx(0.0015));
    CHECK(clock.error_maximum_s == doctest::Approx(2));
    CHECK(clock.frequency == doctest::Approx(25e-6));
    reply.status = STA_NANO;
    CHECK(sources::clock_state(reply, TIME_INS).offset_s == doctest::Approx(-250e-9));
    CHECK(!sources::clock_state(reply, TIME_ERROR).synchronized);
    reply.status = STA_UNSYNC;
    CHECK(!sources::clock_state(reply, TIME_OK).synchronized);
}

TEST_CASE("kernel: numbers come from one whole line") {
    std::array<std::uint64_t, 2> out{};
    CHECK(sources::parse_numbers("1\t2\n", out));
    CHECK(out == std::array<std::uint64_t, 2>{1, 2});
    CHECK(sources::parse_numbers("3 4 5\n", out));
    for (const char* wrong : {"", "1\t2", "1\n2\n", "1\t-2\n", "1\t2x\n", "1\t18446744073709551616\n", "\n"}) {
        CAPTURE(wrong);
        CHECK(!sources::parse_numbers(wrong, out));
    }
}

}  // namespace argus::test
