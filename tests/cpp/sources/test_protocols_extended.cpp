#include <doctest/doctest.h>

#include "sources/protocol_counters.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_extended(const Tree& tree) {
    auto source = sources::protocols_extended_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

std::size_t count(const std::set<std::string>& names, const std::string& prefix) {
    return static_cast<std::size_t>(
        std::count_if(names.begin(), names.end(), [&](const auto& name) { return name.starts_with(prefix); }));
}

}  // namespace

TEST_CASE("protocols_extended: the captured files give each of their numbers, no name twice") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_extended(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    for (const char* name : {"tcp.listen_overflows", "tcp.listen_drops", "tcp.syncookies_sent", "tcp.timeouts",
                             "tcp.rcv_q_drop", "ip.in_octets", "ip6.in_receives", "icmp6.in_msgs", "udp6.no_ports"}) {
        CHECK_MESSAGE(memory.has(std::string("system.network.") + name), name);
    }
    std::size_t lines = 0;
    const std::string snmp6 = slurp(kFixtures / "6.18/proc/net/snmp6");
    for (const char c : snmp6) lines += c == '\n' ? 1 : 0;
    CHECK(count(memory.names, "system.network.ip6.") + count(memory.names, "system.network.icmp6.") +
              count(memory.names, "system.network.udp6.") + count(memory.names, "system.network.udplite6.") ==
          lines);
}

TEST_CASE("protocols_extended: names do not clash with those of the short table") {
    Tree tree("6.18");
    Memory memory;  // which refuses a name that is open
    auto shorter = sources::protocols_source.open(tree.roots(), system_io());
    REQUIRE(shorter.ok());
    REQUIRE((*shorter)->poll(0, memory).ok());
    const std::size_t before = memory.names.size();
    const auto report = open_extended(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(memory.names.size() == before + report.value().emitted);
}

TEST_CASE("protocols_extended: keys of snmp6 are split after their family") {
    std::string_view group, rest;
    REQUIRE(sources::split_snmp6_key("Ip6InReceives", group, rest));
    CHECK(group == "Ip6");
    CHECK(rest == "InReceives");
    REQUIRE(sources::split_snmp6_key("Icmp6OutType136", group, rest));
    CHECK(group == "Icmp6");
    CHECK(rest == "OutType136");
    for (const char* key : {"", "6", "Ip6", "6In", "InReceives", "Ip66", "Ip6 In", "Ip6\x1b[0m", "Ip6_In"}) {
        CHECK(!sources::split_snmp6_key(key, group, rest));
    }
}

TEST_CASE("protocols_extended: lines that are no key and number are skipped and counted, a repeated one stands once") {
    sources::ProtocolTable table;
    Memory memory;
    sources::PollReport report;
    table.emit_lines("Ip6InReceives\t5\nIp6InReceives\t6\nIp6InDiscards -1\nUdp6NoPorts\nUdp6InErrors 1 2\n"
                     "NoFamily 3\nUdp6IgnoredMulti 99999999999999999999999\nIcmp6InMsgs 4\nIp6InOctets 7",
                     memory, report);
    CHECK(memory.names.size() == 2);
    CHECK(memory.at("system.network.ip6.in_receives") == 5);
    CHECK(memory.at("system.network.icmp6.in_msgs") == 4);
    CHECK(report.malformed == 7);
}

TEST_CASE("protocols_extended: message types of ICMPv6 appear with their first message") {
    sources::ProtocolTable table;
    Memory memory;
    sources::PollReport report;
    table.emit_lines("Icmp6InMsgs 0\nUdp6NoPorts 0\n", memory, report);
    table.emit_lines("Icmp6InMsgs 1\nIcmp6InType135 1\nUdp6NoPorts 0\n", memory, report);
    CHECK(memory.at("system.network.icmp6.in_type135") == 1);
    CHECK(memory.at("system.network.udp6.no_ports") == 0);
    table.emit_lines("Udp6NoPorts 2\n", memory, report);
    CHECK(memory.closed == 2);
    CHECK(report.malformed == 0);
}

TEST_CASE("protocols_extended: time under memory pressure is seconds") {
    sources::ProtocolTable table;
    Memory memory;
    sources::PollReport report;
    table.emit_pairs("TcpExt: TCPMemoryPressuresChrono\nTcpExt: 2500\n", memory, report);
    CHECK(memory.at("system.network.tcp.memory_pressures_chrono") == 2.5);
}

TEST_CASE("protocols_extended: without IPv6 the rest is emitted; hostile files are survived") {
    Tree tree("6.18");
    tree.remove("proc/net/snmp6");
    Memory memory;
    const auto report = open_extended(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(count(memory.names, "system.network.ip6.") == 0);
    Tree hostile("hostile");
    Memory found;
    const auto survived = open_extended(hostile)->poll(0, found);
    REQUIRE(survived.ok());
    CHECK(survived.value().malformed > 0);
    CHECK(found.at("system.network.ip6.in_octets") == 12);
}

}  // namespace argus::test
