#include <doctest/doctest.h>

#include <sstream>

#include "sources/protocol_counters.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_protocols(const Tree& tree) {
    auto source = sources::protocols_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string named(std::string_view group, std::string_view key) {
    return sources::describe_protocol_counter(group, key).info.name.substr(std::string("system.network.").size());
}

// What one reading of a file of pairs gives.
struct Reading {
    explicit Reading(const std::string& text) { table.emit_pairs(text, memory, report); }
    void again(const std::string& text) {
        report = {};
        memory.forget();
        table.emit_pairs(text, memory, report);
    }
    [[nodiscard]] double at(const std::string& name) const { return memory.at("system.network." + name); }

    sources::ProtocolTable table;
    Memory memory;
    sources::PollReport report;
};

}  // namespace

TEST_CASE("protocols: names follow one rule from the kernel's") {
    CHECK(named("Tcp", "RetransSegs") == "tcp.retrans_segs");
    CHECK(named("Tcp", "OutRsts") == "tcp.out_rsts");
    CHECK(named("Tcp", "AttemptFails") == "tcp.attempt_fails");
    CHECK(named("TcpExt", "ListenOverflows") == "tcp.listen_overflows");
    CHECK(named("TcpExt", "TCPTimeouts") == "tcp.timeouts");
    CHECK(named("TcpExt", "TcpTimeoutRehash") == "tcp.timeout_rehash");
    CHECK(named("TcpExt", "SyncookiesSent") == "tcp.syncookies_sent");
    CHECK(named("TcpExt", "TCPHPHits") == "tcp.hp_hits");
    CHECK(named("TcpExt", "TCPDSACKOldSent") == "tcp.dsack_old_sent");
    CHECK(named("TcpExt", "TCPMD5NotFound") == "tcp.md5_not_found");
    CHECK(named("TcpExt", "TCPSpuriousRTOs") == "tcp.spurious_rtos");
    CHECK(named("TcpExt", "DelayedACKs") == "tcp.delayed_acks");
    CHECK(named("TcpExt", "DelayedACKLocked") == "tcp.delayed_ack_locked");
    CHECK(named("TcpExt", "TW") == "tcp.tw");
    CHECK(named("TcpExt", "IPReversePathFilter") == "tcp.ip_reverse_path_filter");
    CHECK(named("IpExt", "InNoECTPkts") == "ip.in_no_ect_pkts");
    CHECK(named("IpExt", "InECT1Pkts") == "ip.in_ect1_pkts");
    CHECK(named("Ip", "FragOKs") == "ip.frag_oks");
    CHECK(named("MPTcpExt", "MPJoinSynAckHMacFailure") == "mptcp.mp_join_syn_ack_hmac_failure");
    CHECK(named("IcmpMsg", "InType3") == "icmp.in_type3");
    CHECK(named("UdpLite", "RcvbufErrors") == "udplite.rcvbuf_errors");
    CHECK(named("MPTcpExt", "MPTCPRetrans") == "mptcp.retrans");
    CHECK(named("MPTcpExt", "MPCapableSYNRX") == "mptcp.mp_capable_synrx");
    CHECK(named("Icmp6", "InMLDv2Reports") == "icmp6.in_mldv2_reports");
}

TEST_CASE("protocols: units and kinds follow from the name") {
    const auto unit = [](std::string_view group, std::string_view key) {
        return sources::describe_protocol_counter(group, key).info.unit;
    };
    CHECK(unit("IpExt", "InOctets") == "By");
    CHECK(unit("Tcp", "InSegs") == "{segment}");
    CHECK(unit("IpExt", "InCEPkts") == "{packet}");
    CHECK(unit("Udp", "InDatagrams") == "{datagram}");
    CHECK(unit("Udp", "SndbufErrors") == "{error}");
    CHECK(unit("Tcp", "InErrs") == "{error}");
    CHECK(unit("Tcp", "CurrEstab") == "{connection}");
    CHECK(unit("TcpExt", "TCPMemoryPressuresChrono") == "s");
    CHECK(unit("TcpExt", "ListenDrops") == "{event}");
    for (const char* level : {"CurrEstab", "RtoMin", "RtoMax", "MaxConn", "Forwarding", "DefaultTTL", "RtoAlgorithm"}) {
        CHECK(sources::describe_protocol_counter("Tcp", level).info.kind == Kind::gauge);
    }
    CHECK(sources::describe_protocol_counter("Ip", "ReasmTimeout").info.kind == Kind::counter);
}

TEST_CASE("protocols: the captured file gives each of its numbers but the limit that there is not") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_protocols(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(memory.at("system.network.tcp.active_opens") > 0);
    CHECK(memory.at("system.network.tcp.rto_min") == 0.2);
    CHECK(memory.at("system.network.tcp.rto_max") == 120);
    CHECK(memory.at("system.network.ip.default_ttl") == 64);
    CHECK(!memory.has("system.network.tcp.max_conn"));
    std::istringstream words(slurp(kFixtures / "6.18/proc/net/snmp"));
    std::size_t numbers = 0;
    for (std::string word; words >> word;) numbers += word.find_first_not_of("0123456789") == std::string::npos ? 1 : 0;
    CHECK(memory.names.size() == numbers);
}

TEST_CASE("protocols: a limit on connections is emitted where there is one") {
    Tree tree("6.18");
    tree.replace("proc/net/snmp", " 120000 -1 ", " 120000 4000 ");
    Memory memory;
    REQUIRE(open_protocols(tree)->poll(0, memory).ok());
    CHECK(memory.at("system.network.tcp.max_conn") == 4000);
}

TEST_CASE("protocols: a header and values of unequal counts are skipped whole") {
    for (const char* text : {"Tcp: InSegs OutSegs\nTcp: 1 2 3\nUdp: NoPorts\nUdp: 7\n",
                             "Tcp: InSegs OutSegs\nTcp: 1\nUdp: NoPorts\nUdp: 7\n",
                             "Tcp: InSegs OutSegs\nTcp: \nUdp: NoPorts\nUdp: 7\n"}) {
        const Reading reading(text);
        CAPTURE(text);
        CHECK(reading.report.malformed == 1);
        CHECK(reading.memory.names.size() == 1);
        CHECK(reading.at("udp.no_ports") == 7);
    }
}

TEST_CASE("protocols: values without names and names without values are skipped") {
    const Reading reading("Tcp: 1 2\nUdp: NoPorts\nUdp: 7\nIp: InReceives\n");
    CHECK(reading.report.malformed == 2);
    CHECK(reading.at("udp.no_ports") == 7);
    CHECK(reading.memory.names.size() == 1);
    const Reading twice("Udp: NoPorts\nTcp: InSegs\nTcp: 5\n");
    CHECK(twice.report.malformed == 1);
    CHECK(twice.at("tcp.in_segs") == 5);
}

TEST_CASE("protocols: a prefix may come again with other names, as IcmpMsg does; a name may not") {
    const Reading reading("IcmpMsg: InType0 InType3\nIcmpMsg: 1 2\nIcmpMsg: OutType8\nIcmpMsg: 3\n"
                          "IcmpMsg: InType3\nIcmpMsg: 99\n");
    CHECK(reading.at("icmp.in_type0") == 1);
    CHECK(reading.at("icmp.in_type3") == 2);
    CHECK(reading.at("icmp.out_type8") == 3);
    CHECK(reading.report.malformed == 1);
    const Reading twins("Tcp: Same Same\nTcp: 1 2\n");
    CHECK(twins.at("tcp.same") == 1);
    CHECK(twins.report.malformed == 1);
    const Reading shared("Tcp: Timeouts\nTcp: 1\nTcpExt: TCPTimeouts\nTcpExt: 2\n");
    CHECK(shared.at("tcp.timeouts") == 1);
    CHECK(shared.report.malformed == 1);
}

TEST_CASE("protocols: negative and overflowing values are not emitted") {
    const Reading reading("Tcp: MaxConn InSegs OutSegs InErrs OutRsts CurrEstab\n"
                          "Tcp: -1 -5 99999999999999999999999 18446744073709551615 12x 3\n");
    CHECK(reading.report.malformed == 3);  // a level may be negative, a counter not
    CHECK(!reading.memory.has("system.network.tcp.max_conn"));
    CHECK(!reading.memory.has("system.network.tcp.in_segs"));
    CHECK(!reading.memory.has("system.network.tcp.out_segs"));
    CHECK(!reading.memory.has("system.network.tcp.out_rsts"));
    CHECK(reading.at("tcp.in_errs") == 18446744073709551615.0);
    CHECK(reading.at("tcp.curr_estab") == 3);
}

TEST_CASE("protocols: a counter that a newer kernel adds opens, one that goes closes, the others keep their slots") {
    Reading reading("Tcp: InSegs OutSegs\nTcp: 1 2\n");
    reading.again("Tcp: InSegs Fresh OutSegs\nTcp: 3 4 5\n");
    CHECK(reading.memory.closed == 0);
    CHECK(reading.memory.infos.size() == 3);
    CHECK(reading.at("tcp.in_segs") == 3);
    CHECK(reading.at("tcp.out_segs") == 5);
    reading.again("Tcp: Fresh OutSegs\nTcp: 6 7\n");
    CHECK(reading.memory.closed == 1);
    CHECK(!reading.memory.has("system.network.tcp.in_segs"));
    reading.again("Tcp: InSegs Fresh OutSegs\nTcp: 8 9 10\n");
    CHECK(reading.at("tcp.in_segs") == 8);
    CHECK(reading.report.malformed == 0);
}

TEST_CASE("protocols: a file with a fault closes nothing") {
    Reading reading("Tcp: InSegs\nTcp: 1\nUdp: NoPorts\nUdp: 7\n");
    reading.again("Tcp: InSegs\nTcp: 2\nUdp: NoPorts\nUdp: 8");
    CHECK(reading.report.malformed == 2);  // the cut line, and the names that wait for it
    CHECK(reading.at("tcp.in_segs") == 2);
    CHECK(std::isnan(reading.at("udp.no_ports")));
    CHECK(reading.memory.closed == 0);
}

TEST_CASE("protocols: names that are no words of the kernel are passed over") {
    const Reading reading("Tcp: InSegs \x1b[31m In,Segs 9lives OutSegs\nTcp: 1 2 3 4 5\nA=B: x\nA=B: 1\n");
    CHECK(reading.memory.names.size() == 2);
    CHECK(reading.at("tcp.out_segs") == 5);
    CHECK(reading.report.malformed == 3 + 2);
    std::string text = "Tcp:";
    std::string values = "Tcp:";
    for (int i = 0; i < 5000; ++i) {
        text.append(" N").append(std::to_string(i));
        values.append(" 1");
    }
    const Reading many(text + "\n" + values + "\n");
    CHECK(many.memory.names.size() == sources::kMaxProtocolCounters);
    CHECK(many.report.malformed == 5000 - sources::kMaxProtocolCounters);
}

TEST_CASE("protocols: an empty file is an error, hostile ones are survived") {
    Tree tree("6.18");
    tree.write("proc/net/snmp", "");
    Memory memory;
    const auto empty = open_protocols(tree)->poll(0, memory);
    REQUIRE(!empty.ok());
    CHECK(empty.error().code == Errc::truncated);
    Tree hostile("hostile");
    const auto report = open_protocols(hostile)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed > 0);
    CHECK(memory.at("system.network.udp.in_datagrams") == 149);
    for (const std::string& name : memory.names) {
        CHECK(std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7F; }));
    }
}

}  // namespace argus::test
