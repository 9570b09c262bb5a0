#include <doctest/doctest.h>

#include "sources/network.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::string received(const std::string& name) {
    return "system.network.io{network.interface.name=" + name + ",network.io.direction=receive}";
}

std::unique_ptr<sources::Source> open_network(const Tree& tree) {
    auto source = sources::network_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

}  // namespace

TEST_CASE("network: the name ends at the last colon, glued or not") {
    const std::string counters = " 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
    const std::string glued_line = "  eth0:123" + counters;
    auto glued = sources::parse_link(glued_line);
    REQUIRE(glued.ok());
    CHECK(glued->name == "eth0");
    CHECK(glued->values[0] == 123);
    CHECK(glued->values[15] == 16);
    const std::string alias_line = "eth0:1: 124" + counters;
    auto alias = sources::parse_link(alias_line);
    REQUIRE(alias.ok());
    CHECK(alias->name == "eth0:1");
}

TEST_CASE("network: hostile lines are skipped and counted, names are escaped") {
    Tree tree("hostile");
    Memory memory;
    const auto report = open_network(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 7);  // over0, neg0, short0, no name, no colon, 80 bytes of name, eth0:1 again
    CHECK(report.value().emitted == 5 * 16);
    CHECK(memory.at(received("eth0")) == 123);
    CHECK(memory.at(received("eth0:1")) == 124);
    CHECK(memory.at(received("wl%3Dan%2C0")) == 125);
    CHECK(memory.at(received("big0")) == 18446744073709551615.0);
    CHECK(memory.at(received("%1B[31m%FF0")) == 126);
}

TEST_CASE("network: an interface that vanishes closes its series, one that appears opens them") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_network(tree);
    (void)source->poll(0, memory);
    CHECK(memory.names.size() == 64);
    tree.replace("proc/net/dev", " ifb0:", "veth9:");
    const auto report = source->poll(1, memory);
    CHECK(report.value().emitted == 64);
    CHECK(memory.closed == 16);
    CHECK(!memory.has(received("ifb0")));
    CHECK(memory.at(received("veth9")) == 0);
    CHECK(memory.at(received("eth0")) == 175680374);
}

TEST_CASE("network: a table cut short closes nothing") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_network(tree);
    (void)source->poll(0, memory);
    const std::string text = slurp(kFixtures / "6.18/proc/net/dev");
    tree.write("proc/net/dev", text.substr(0, text.size() - 30));
    auto report = source->poll(1, memory);
    CHECK(report.value().malformed == 1);
    tree.write("proc/net/dev", "");
    report = source->poll(2, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::truncated);
    CHECK(memory.closed == 0);
}

TEST_CASE("network: a machine without interfaces has titles and no series") {
    Tree tree("6.18");
    const std::string text = slurp(kFixtures / "6.18/proc/net/dev");
    CHECK(sources::skip_titles(text).starts_with("    lo:"));
    CHECK(sources::skip_titles("one line\n").empty());
    CHECK(sources::skip_titles("").empty());
}

}  // namespace argus::test
