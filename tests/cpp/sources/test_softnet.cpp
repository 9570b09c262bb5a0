#include "sources/softnet.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

namespace argus::test {
namespace {

const std::string kNine = "0000000a 0000000b 0000000c 00000000 00000000 00000000 00000000 00000000 00000000";

std::unique_ptr<sources::Source> open_softnet(const Tree& tree) {
    auto source = sources::softnet_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string of(const char* metric, int cpu) {
    return std::string("system.network.softnet.") + metric + "{cpu.logical_number=" + std::to_string(cpu) + "}";
}

std::string numbered(const std::string& cpu) { return kNine + " 0000000d 0000000e 0000000f " + cpu; }

}  // namespace

TEST_CASE("softnet: the columns of each age of the kernel") {
    const auto oldest = sources::parse_softnet(kNine);
    REQUIRE(oldest.ok());
    CHECK(oldest.value().counters == 3);
    CHECK(oldest.value().values[0] == 10);
    CHECK(oldest.value().values[1] == 11);
    CHECK(oldest.value().values[2] == 12);
    CHECK(!oldest.value().cpu);
    const auto older = sources::parse_softnet(kNine + " 0000000d 0000000e");
    REQUIRE(older.ok());
    CHECK(older.value().counters == 5);
    CHECK(older.value().values[3] == 13);
    CHECK(older.value().values[4] == 14);
    CHECK(!older.value().backlog);
    const auto newer = sources::parse_softnet(numbered("00000007 00000000 00000000"));
    REQUIRE(newer.ok());
    CHECK(newer.value().cpu == 7);
    CHECK(newer.value().backlog == 15);
}

TEST_CASE("softnet: lines that are no words of hexadecimal are refused") {
    const std::string eight = kNine.substr(0, kNine.size() - 9);
    for (const std::string& line : {std::string(), eight, kNine + " 0x12", kNine + " -1", kNine + " 0000000G",
                                    kNine + " 12345678901234567", numbered("ffffffff"), numbered("00002000")}) {
        CHECK_MESSAGE(!sources::parse_softnet(line).ok(), line);
    }
    std::string long_line;
    for (int i = 0; i < 33; ++i) long_line += "00000000 ";
    CHECK(!sources::parse_softnet(long_line).ok());
}

TEST_CASE("softnet: the captured file, by processor") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_softnet(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(memory.names.size() == 2 * 6);
    CHECK(memory.at(of("processed", 1)) > 0);
    CHECK(memory.at(of("backlog", 0)) == 0);
}

TEST_CASE("softnet: without numbers the lines are the online processors, offline ones missing") {
    Tree tree;
    tree.write("sys/devices/system/cpu/online", "0,2-3\n");
    tree.write("proc/net/softnet_stat", kNine + "\n" + kNine + "\n" + kNine + "\n");
    Memory memory;
    REQUIRE(open_softnet(tree)->poll(0, memory).ok());
    CHECK(memory.names.size() == 9);
    CHECK(memory.at(of("dropped", 3)) == 11);
    CHECK(!memory.has(of("dropped", 1)));
    tree.remove("sys/devices/system/cpu/online");
    Memory alone;
    REQUIRE(open_softnet(tree)->poll(0, alone).ok());
    CHECK(alone.has(of("dropped", 1)));
    CHECK(!alone.has(of("dropped", 3)));
}

TEST_CASE("softnet: lines that nobody knows the processor of are not emitted") {
    Tree tree;
    tree.write("sys/devices/system/cpu/online", "0-2\n");
    for (const std::string& text : {kNine + "\n" + kNine + "\n",                          // one went meanwhile
                                    kNine + "\n" + kNine + "\n" + kNine.substr(0, 20),    // cut
                                    kNine + "\nbad\n" + kNine + "\n" + kNine + "\n",      // whose?
                                    kNine + "\n" + numbered("00000001") + "\n" + kNine + "\n"}) {
        tree.write("proc/net/softnet_stat", text);
        Memory memory;
        const auto report = open_softnet(tree)->poll(0, memory);
        CAPTURE(text);
        REQUIRE(!report.ok());
        CHECK(report.error().code == Errc::malformed);
        CHECK(memory.names.empty());
    }
}

TEST_CASE("softnet: a processor that goes offline closes its series, and opens them when it is back") {
    Tree tree;
    const std::string both = numbered("00000000") + "\n" + numbered("00000001") + "\n";
    tree.write("proc/net/softnet_stat", both);
    Memory memory;
    auto source = open_softnet(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.write("proc/net/softnet_stat", numbered("00000001") + "\n");
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.closed == 6);
    CHECK(memory.at(of("squeezed", 1)) == 12);
    tree.write("proc/net/softnet_stat", both);
    REQUIRE(source->poll(2, memory).ok());
    CHECK(memory.at(of("squeezed", 0)) == 12);
}

TEST_CASE("softnet: a bad line costs itself, a repeated processor its second line; neither closes anything") {
    Tree tree;
    const std::string both = numbered("00000000") + "\n" + numbered("00000001") + "\n";
    tree.write("proc/net/softnet_stat", both);
    Memory memory;
    auto source = open_softnet(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.write("proc/net/softnet_stat", numbered("00000000") + "\nbad\n");
    CHECK(source->poll(1, memory).value().malformed == 1);
    CHECK(memory.closed == 0);
    tree.write("proc/net/softnet_stat", both + numbered("00000001") + "\n");
    const auto report = source->poll(2, memory);
    CHECK(report.value().malformed == 1);
    CHECK(report.value().emitted == 12);
}

TEST_CASE("softnet: 1,024 processors") {
    Tree tree;
    std::string text;
    char word[16];
    for (int cpu = 0; cpu < 1024; ++cpu) {
        std::snprintf(word, sizeof word, "%08x", cpu);
        text += numbered(word) + "\n";
    }
    tree.write("proc/net/softnet_stat", text);
    Memory memory;
    REQUIRE(open_softnet(tree)->poll(0, memory).ok());
    CHECK(memory.names.size() == 1024 * 6);
    CHECK(memory.has(of("processed", 1023)));
}

}  // namespace argus::test
