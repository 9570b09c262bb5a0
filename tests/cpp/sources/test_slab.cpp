#include <doctest/doctest.h>
#include <unistd.h>

#include "sources/slab.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::string of(const std::string& cache) {
    return "system.memory.linux.slab.cache.usage{system.memory.linux.slab.cache=" + cache + "}";
}

std::string table(std::initializer_list<std::pair<const char*, int>> caches) {
    std::string out = "slabinfo - version: 2.1\n# name <active_objs>\n";
    for (const auto& [name, slabs] : caches) {
        out += std::string(name) + " 9 9 64 64 1 : tunables 0 0 0 : slabdata " + std::to_string(slabs) + " " +
               std::to_string(slabs) + " 0\n";
    }
    return out;
}

std::unique_ptr<sources::Source> open_slab(const Tree& tree, double caches = 20) {
    auto source = sources::slab_source.open(tree.roots(), system_io(), {{caches}, {}});
    REQUIRE(source.ok());
    return std::move(*source);
}

const double kPage = static_cast<double>(::sysconf(_SC_PAGESIZE));

}  // namespace

TEST_CASE("slab: a line has slabs times their pages") {
    const auto cache = sources::parse_slab(
        "ext4_inode_cache  11000  11232   1184   27    8 : tunables    0    0    0 : slabdata    417    416      0");
    REQUIRE(cache.ok());
    CHECK(cache.value().name == "ext4_inode_cache");
    CHECK(cache.value().pages == 416 * 8);
}

TEST_CASE("slab: the twenty largest of the captured machine, the largest first of all") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_slab(tree)->poll(0, memory);
    CHECK(report.value().malformed == 0);
    CHECK(report.value().emitted == 20);
    double largest = 0;
    for (const double value : memory.values) largest = std::max(largest, value);
    CHECK(memory.at(of("ext4_inode_cache")) == largest);
}

TEST_CASE("slab: a cache that grows is followed at once, one that shrinks stays a while") {
    Tree tree;
    tree.write("proc/slabinfo", table({{"a", 50}, {"b", 40}, {"c", 30}, {"d", 20}, {"e", 10}}));
    Memory memory;
    auto source = open_slab(tree, 2);
    CHECK(source->poll(0, memory).value().emitted == 2);
    CHECK(memory.at(of("b")) == 40 * kPage);
    tree.write("proc/slabinfo", table({{"a", 50}, {"b", 40}, {"c", 60}, {"d", 20}, {"e", 10}}));
    CHECK(source->poll(1, memory).value().emitted == 3);
    CHECK(memory.at(of("c")) == 60 * kPage);
    CHECK(memory.at(of("b")) == 40 * kPage);
    tree.write("proc/slabinfo", table({{"a", 50}, {"b", 4}, {"c", 60}, {"d", 20}, {"e", 10}}));
    CHECK(source->poll(2, memory).value().emitted == 2);
    CHECK(memory.closed == 1);
    CHECK(!memory.has(of("b")));
    tree.write("proc/slabinfo", table({{"c", 60}}));
    CHECK(source->poll(3, memory).value().emitted == 1);
    CHECK(!memory.has(of("a")));
}

TEST_CASE("slab: hostile lines are skipped and counted, names are escaped, empty caches have no series") {
    Tree tree("hostile");
    Memory memory;
    const auto report = open_slab(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 5);  // short, a minus, 11 digits of slabs, no colon, one cache twice
    CHECK(memory.names.size() == 2);
    CHECK(memory.at(of("kmalloc-8k")) == 40 * kPage);
    CHECK(memory.at(of("odd%2C%1Bname")) == 2 * kPage);
}

TEST_CASE("slab: another version is malformed, a table cut short changes nothing") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_slab(tree);
    (void)source->poll(0, memory);
    const std::string text = slurp(kFixtures / "6.18/proc/slabinfo");
    tree.write("proc/slabinfo", text.substr(0, text.size() / 2 + 7));
    auto report = source->poll(1, memory);
    CHECK(report.value().malformed == 1);
    CHECK(report.value().emitted == 0);
    tree.write("proc/slabinfo", "slabinfo - version: 3.0\n#\n");
    CHECK(source->poll(2, memory).error().code == Errc::malformed);
    CHECK(memory.closed == 0);
}

}  // namespace argus::test
