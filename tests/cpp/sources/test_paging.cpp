#include <doctest/doctest.h>
#include <unistd.h>

#include "sources/escapes.hpp"
#include "sources/number_file.hpp"
#include "sources/paging.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_paging(const Tree& tree) {
    auto source = sources::paging_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string usage(const std::string& device, const char* state) {
    return "system.paging.usage{system.device=" + device + ",system.paging.state=" + state + "}";
}

}  // namespace

TEST_CASE("paging: each swap device has its usage; a path is unescaped, then made safe to show") {
    Tree tree("storage");
    Memory memory;
    const auto report = open_paging(tree)->poll(0, memory);
    CHECK(report.value().malformed == 0);
    CHECK(memory.at(usage("/dev/sda2", "used")) == 524031.0 * 1024);
    CHECK(memory.at(usage("/dev/sda2", "free")) == (2096124.0 - 524031.0) * 1024);
    CHECK(memory.at("system.paging.utilization{system.device=/dev/sda2}") == doctest::Approx(0.25).epsilon(1e-5));
    CHECK(memory.at("system.paging.limit{system.device=/dev/zram0}") == 4194300.0 * 1024);
    CHECK(memory.at("system.paging.utilization{system.device=/var/swap%20file}") == 1);
}

TEST_CASE("paging: merged pages are bytes, scans a counter") {
    Tree tree("storage");
    Memory memory;
    (void)open_paging(tree)->poll(0, memory);
    const auto page = static_cast<double>(::sysconf(_SC_PAGESIZE));
    CHECK(memory.at("system.memory.linux.ksm.shared") == 100 * page);
    CHECK(memory.at("system.memory.linux.ksm.sharing") == 2500 * page);
    CHECK(memory.at("system.memory.linux.ksm.scans") == 41);
}

TEST_CASE("paging: a machine without swap has a title and no devices") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_paging(tree)->poll(0, memory);
    CHECK(report.value().malformed == 0);
    CHECK(memory.names.size() == 5);
    CHECK(memory.at("system.memory.linux.ksm.sharing") == 0);
}

TEST_CASE("paging: without swap in the kernel merging is still seen, and the other way round") {
    Tree tree("storage");
    tree.remove("proc/swaps");
    Memory merged;
    CHECK(open_paging(tree)->poll(0, merged).value().malformed == 0);
    CHECK(merged.names.size() == 5);
    Tree other("storage");
    other.remove("sys/kernel");
    Memory swapped;
    CHECK(open_paging(other)->poll(0, swapped).value().malformed == 0);
    CHECK(swapped.names.size() == 12);
}

TEST_CASE("paging: a device that is swapped off closes its series, a table cut short closes none") {
    Tree tree("storage");
    Memory memory;
    auto source = open_paging(tree);
    (void)source->poll(0, memory);
    const std::string text = slurp(kFixtures / "storage/proc/swaps");
    tree.write("proc/swaps", text.substr(0, text.size() - 3));
    CHECK(source->poll(1, memory).value().malformed == 1);
    tree.write("proc/swaps", "");
    CHECK(source->poll(2, memory).error().code == Errc::truncated);
    CHECK(memory.closed == 0);
    tree.write("proc/swaps", text.substr(0, text.find("/dev/zram0")));
    CHECK(source->poll(3, memory).value().malformed == 0);
    CHECK(memory.closed == 8);
    CHECK(memory.has(usage("/dev/sda2", "used")));
    CHECK(!memory.has(usage("/dev/zram0", "used")));
}

TEST_CASE("paging: hostile lines are skipped and counted") {
    Tree tree("hostile");
    Memory memory;
    const auto report = open_paging(tree)->poll(0, memory);
    REQUIRE(report.ok());
    // more used than there is, a minus, KiB past 64 bits of bytes, no numbers, one file twice, an empty line
    CHECK(report.value().malformed == 6);
    CHECK(memory.names.size() == 3);
    CHECK(memory.at(usage("/dev/e%09%FF%5C9", "used")) == 0);  // of size 0: no utilization
}

TEST_CASE("paging: only a full octal escape is one") {
    CHECK(sources::octal_unescaped("/a\\040b\\134c\\012") == "/a b\\c\n");
    for (const char* plain : {"", "/a", "\\", "\\04", "\\048", "\\400", "\\x20"}) {
        CHECK(sources::octal_unescaped(plain) == plain);
    }
}

TEST_CASE("paging: a number is the whole line, with its newline") {
    CHECK(sources::parse_number_line("12\n") == 12U);
    for (const char* wrong : {"", "\n", "12", "12\n\n", "12 3\n", "-1\n", "0x1\n", "18446744073709551616\n", "max\n"}) {
        CHECK_MESSAGE(!sources::parse_number_line(wrong), wrong);
    }
}

}  // namespace argus::test
