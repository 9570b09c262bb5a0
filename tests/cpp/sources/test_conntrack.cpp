#include "sources/conntrack.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

namespace argus::test {
namespace {

const std::string kStat = "entries  found new drop\n00000005  00000001 00000002 0000000a\n"
                          "00000005  00000003 00000000 ffffffff\n";
const std::string kCount = "proc/sys/net/netfilter/nf_conntrack_count";
const std::string kMax = "proc/sys/net/netfilter/nf_conntrack_max";

std::unique_ptr<sources::Source> open_conntrack(const Tree& tree) {
    auto source = sources::conntrack_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

}  // namespace

TEST_CASE("conntrack: columns are summed over the processors") {
    sources::ConntrackStat stat;
    REQUIRE(sources::parse_conntrack(kStat, stat).ok());
    REQUIRE(stat.columns == 4);
    CHECK(stat.names[1] == "found");
    CHECK(stat.sums[1] == 4);
    CHECK(stat.sums[3] == 0x100000009U);
    CHECK(stat.malformed == 0);
}

TEST_CASE("conntrack: lines of another count, or that are no numbers, are skipped and counted") {
    sources::ConntrackStat stat;
    REQUIRE(sources::parse_conntrack(kStat + "1 2 3\n1 2 3 4 5\n1 2 3 x\n1 2 3 4", stat).ok());
    CHECK(stat.malformed == 4);
    CHECK(stat.sums[1] == 4);
}

TEST_CASE("conntrack: without names, processors or room nothing is parsed") {
    sources::ConntrackStat stat;
    std::string wide;
    for (int i = 0; i < 33; ++i) wide.append(" n").append(std::to_string(i));
    for (const std::string& text : {std::string(), std::string("entries"), std::string("\n"), std::string("a b\n"),
                                    std::string("a a\n1 2\n"), std::string("a \x1b\n1 2\n"), wide + "\n"}) {
        CHECK_MESSAGE(!sources::parse_conntrack(text, stat).ok(), text);
    }
}

TEST_CASE("conntrack: how full the table is") {
    Tree tree;
    tree.write(kCount, "4096\n");
    tree.write(kMax, "16384\n");
    tree.write("proc/net/stat/nf_conntrack", kStat);
    Memory memory;
    const auto report = open_conntrack(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 6);
    CHECK(memory.at("system.network.conntrack.count") == 4096);
    CHECK(memory.at("system.network.conntrack.limit") == 16384);
    CHECK(memory.at("system.network.conntrack.utilization") == 0.25);
    CHECK(memory.at("system.network.conntrack.drop") == 4294967305.0);
    CHECK(!memory.has("system.network.conntrack.entries"));
}

TEST_CASE("conntrack: a limit of 0 is none, a bad one is counted") {
    Tree tree;
    tree.write(kCount, "0\n");
    tree.write(kMax, "0\n");
    Memory memory;
    auto source = open_conntrack(tree);
    auto report = source->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(memory.names.size() == 1);
    CHECK(report.value().malformed == 0);
    for (const char* text : {"-1\n", "many\n", "12", "99999999999999999999999\n", ""}) {
        tree.write(kMax, text);
        report = source->poll(0, memory);
        CAPTURE(text);
        CHECK(report.value().malformed == 1);
        CHECK(memory.names.size() == 1);
    }
}

TEST_CASE("conntrack: a count that is none is an error") {
    Tree tree;
    for (const char* text : {"", "-1\n", "12", "1 2\n"}) {
        tree.write(kCount, text);
        Memory memory;
        const auto report = open_conntrack(tree)->poll(0, memory);
        CAPTURE(text);
        REQUIRE(!report.ok());
        CHECK(report.error().code == Errc::malformed);
    }
}

TEST_CASE("conntrack: sums that lack a processor are not emitted") {
    Tree tree;
    tree.write(kCount, "1\n");
    tree.write("proc/net/stat/nf_conntrack", kStat + "bad\n");
    Memory memory;
    const auto report = open_conntrack(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 1);
    CHECK(memory.names.size() == 1);
}

TEST_CASE("conntrack: columns in another order keep their names") {
    Tree tree;
    tree.write(kCount, "1\n");
    tree.write("proc/net/stat/nf_conntrack", "found drop\n1 2\n");
    Memory memory;
    auto source = open_conntrack(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.write("proc/net/stat/nf_conntrack", "drop found\n3 4\n");
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.at("system.network.conntrack.drop") == 3);
    CHECK(memory.at("system.network.conntrack.found") == 4);
    tree.write("proc/net/stat/nf_conntrack", "drop\n5\n");
    REQUIRE(source->poll(2, memory).ok());
    CHECK(!memory.has("system.network.conntrack.found"));
}

}  // namespace argus::test
