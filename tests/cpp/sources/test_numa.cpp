#include <doctest/doctest.h>

#include "sources/numa.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_numa(const Tree& tree) {
    auto source = sources::numa_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string of(const std::string& name, int node) {
    return "system.numa." + name + "{system.numa.node=" + std::to_string(node) + "}";
}

}  // namespace

TEST_CASE("numa: each node has its own counters and memory") {
    Tree tree("storage");
    Memory memory;
    const auto report = open_numa(tree)->poll(0, memory);
    CHECK(report.value().malformed == 0);
    CHECK(report.value().emitted == 2 * 11);
    CHECK(memory.at(of("hit", 0)) == 100);
    CHECK(memory.at(of("hit", 2)) == 102);
    CHECK(memory.at(of("miss", 2)) == 202);
    CHECK(memory.at(of("foreign", 2)) == 302);
    CHECK(memory.at(of("interleave", 2)) == 402);
    CHECK(memory.at(of("local", 2)) == 502);
    CHECK(memory.at(of("other", 2)) == 602);
    CHECK(memory.at("system.numa.memory.usage{system.memory.state=free,system.numa.node=2}") == 120702.0 * 1024);
    CHECK(memory.at(of("memory.limit", 2)) == 131821000.0 * 1024);
}

TEST_CASE("numa: the captured node is read as it stands") {
    Tree tree("6.18");
    Memory memory;
    CHECK(open_numa(tree)->poll(0, memory).value().malformed == 0);
    const double free = memory.at("system.numa.memory.usage{system.memory.state=free,system.numa.node=0}");
    const double used = memory.at("system.numa.memory.usage{system.memory.state=used,system.numa.node=0}");
    CHECK(free + used == memory.at(of("memory.limit", 0)));
    CHECK(free > 0);
}

TEST_CASE("numa: a list of nodes is numbers and ranges that ascend") {
    std::vector<std::uint32_t> nodes;
    CHECK(sources::parse_node_list("0\n", nodes));
    CHECK(nodes == std::vector<std::uint32_t>{0});
    CHECK(sources::parse_node_list("0-2,7,9-9\n", nodes));
    CHECK(nodes == std::vector<std::uint32_t>{0, 1, 2, 7, 9});
    for (const char* wrong : {"", "\n", "0", "0,\n", ",0\n", "1-\n", "-1\n", "2-1\n", "0,0\n", "3,1\n", "256\n",
                              "0-99999999999\n", "0 1\n", "a\n", "0-1-2\n"}) {
        CHECK_MESSAGE(!sources::parse_node_list(wrong, nodes), wrong);
        CHECK(nodes.size() <= sources::kMaxNodes);
    }
}

TEST_CASE("numa: a node that goes offline closes its series and comes back with new ones") {
    Tree tree("storage");
    Memory memory;
    auto source = open_numa(tree);
    (void)source->poll(0, memory);
    tree.write("sys/devices/system/node/online", "0\n");
    CHECK(source->poll(1, memory).value().emitted == 11);
    CHECK(memory.closed == 11);
    CHECK(!memory.has(of("hit", 2)));
    tree.write("sys/devices/system/node/online", "0,2\n");
    CHECK(source->poll(2, memory).value().emitted == 22);
    CHECK(memory.has(of("hit", 2)));
}

TEST_CASE("numa: a node that goes between list and read is absent, not malformed") {
    Tree tree("storage");
    tree.remove("sys/devices/system/node/node2");
    Memory memory;
    const auto report = open_numa(tree)->poll(0, memory);
    CHECK(report.value().malformed == 0);
    CHECK(report.value().emitted == 11);
}

TEST_CASE("numa: hostile lines are skipped and counted, a hostile list is malformed") {
    Tree tree("hostile");
    Memory memory;
    auto source = open_numa(tree);
    const auto report = source->poll(0, memory);
    REQUIRE(report.ok());
    // numastat: -1, a key twice, 20 digits, two numbers, none; meminfo: no kB, node x, no node, past 64 bits, twice
    CHECK(report.value().malformed == 10);
    CHECK(memory.names.size() == 3);
    CHECK(memory.at(of("miss", 0)) == 5);
    CHECK(memory.at(of("memory.limit", 0)) == 10240);
    CHECK(memory.at(of("memory.page_cache", 0)) == 3072);
    tree.write("sys/devices/system/node/online", "everywhere\n");
    CHECK(source->poll(1, memory).error().code == Errc::malformed);
    CHECK(memory.closed == 0);
}

TEST_CASE("numa: every key is found") {
    CHECK(sources::numastat_keys().find("numa_hit") == 0);
    CHECK(sources::node_meminfo_keys().find("AnonPages") == 4);
    CHECK(sources::node_meminfo_keys().find("Dirty") == -1);
}

}  // namespace argus::test
