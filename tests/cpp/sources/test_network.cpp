#include <doctest/doctest.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sys/stat.h>

#include "../allocations.hpp"
#include "fake_netlink.hpp"
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

std::string labelled(const std::string& metric, const std::string& name) {
    return metric + "{network.interface.name=" + name + "}";
}
std::string up(const std::string& name) { return labelled("system.network.up", name); }
std::string speed(const std::string& name) { return labelled("system.network.bandwidth.limit", name); }

// Interfaces that the scripted kernel has.
struct FakeLink {
    int index;
    std::string name;
    std::uint64_t received;
    std::uint8_t operstate = IF_OPER_UP;
};

Raw link_payload(const FakeLink& link) {
    Raw out;
    ifinfomsg body{};
    body.ifi_index = link.index;
    append(out, body);
    add_attribute(out, IFLA_IFNAME, link.name.c_str(), link.name.size() + 1);
    add_attribute(out, IFLA_OPERSTATE, &link.operstate, 1);
    return out;
}

Raw statistics_payload(const FakeLink& link, std::size_t size = sizeof(rtnl_link_stats64)) {
    Raw out;
    if_stats_msg body{};
    body.ifindex = static_cast<std::uint32_t>(link.index);
    append(out, body);
    rtnl_link_stats64 statistics{};
    statistics.rx_bytes = link.received;
    add_attribute(out, IFLA_STATS_LINK_64, &statistics, size);
    return out;
}

struct FakeNetwork {
    FakeNetwork() {
        fake_kernel.answer = [this](const nlmsghdr& request, sources::Bytes) {
            std::vector<Raw> payloads;
            if (request.nlmsg_type == RTM_GETLINK) {
                ++lists;
                for (const FakeLink& link : links) payloads.push_back(link_payload(link));
                const std::uint16_t flags = changing ? NLM_F_DUMP_INTR : 0;
                return dump_answer(request, RTM_NEWLINK, payloads, flags);
            }
            if (fail_statistics) return error_answer(request, EOPNOTSUPP);
            for (const FakeLink& link : links) payloads.push_back(statistics_payload(link));
            return dump_answer(request, RTM_NEWSTATS, payloads);
        };
    }
    void notice() {
        Received received;
        add_message(received.datagram, RTM_NEWLINK, 0, 0, link_payload({1, "any", 0}));
        fake_kernel.notices.push_back(received);
    }
    [[nodiscard]] std::unique_ptr<sources::Source> open() const {
        auto source = sources::make_network({}, system_io(), kFakeNetlink);
        REQUIRE(source.ok());
        return std::move(*source);
    }

    WithKernel kernel;
    std::vector<FakeLink> links;
    int lists = 0;
    bool changing = false;
    bool fail_statistics = false;
};

constexpr sources::NetlinkIo kNoNetlink{[](int, std::uint32_t) { return -EPERM; },
                                        nullptr,
                                        nullptr,
                                        nullptr,
                                        [](int) { return 0; }};

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
    CHECK(memory.names.size() == 68);
    tree.replace("proc/net/dev", " ifb0:", "veth9:");
    const auto report = source->poll(1, memory);
    CHECK(report.value().emitted == 67);  // nobody knows whether the new one is up
    CHECK(memory.closed == 17);
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

TEST_CASE("network: statistics of netlink are summed into the columns of the text") {
    Raw payload;
    if_stats_msg body{};
    body.ifindex = 3;
    append(payload, body);
    rtnl_link_stats64 s{};
    s.rx_packets = 1;
    s.tx_packets = 2;
    s.rx_bytes = 3;
    s.tx_bytes = 4;
    s.rx_errors = 5;
    s.tx_errors = 6;
    s.rx_dropped = 100;
    s.rx_missed_errors = 7;
    s.tx_dropped = 8;
    s.multicast = 9;
    s.collisions = 10;
    s.rx_length_errors = 1000;
    s.rx_over_errors = 200;
    s.rx_crc_errors = 30;
    s.rx_frame_errors = 4;
    s.rx_fifo_errors = 11;
    s.tx_carrier_errors = 1000;
    s.tx_aborted_errors = 200;
    s.tx_window_errors = 30;
    s.tx_heartbeat_errors = 5;
    s.tx_fifo_errors = 12;
    s.rx_compressed = 13;
    s.tx_compressed = 14;
    add_attribute(payload, IFLA_STATS_LINK_64, &s, sizeof s);
    const auto found = sources::parse_link_statistics(bytes(payload));
    REQUIRE(found.ok());
    CHECK(found.value().index == 3);
    CHECK(found.value().values ==
          sources::LinkValues{3, 1, 5, 107, 11, 1234, 13, 9, 4, 2, 6, 8, 12, 10, 1235, 14});
}

TEST_CASE("network: statistics of older and newer kernels are read, cut ones are not") {
    const FakeLink link{3, "eth0", 77};
    const std::size_t first_version = offsetof(rtnl_link_stats64, rx_nohandler);
    const auto older = sources::parse_link_statistics(bytes(statistics_payload(link, first_version)));
    REQUIRE(older.ok());
    CHECK(older.value().values[0] == 77);
    CHECK(!sources::parse_link_statistics(bytes(statistics_payload(link, first_version - 1))).ok());
    const Raw whole = statistics_payload(link, first_version);
    for (std::size_t size = 0; size < whole.size(); ++size) {
        CHECK(!sources::parse_link_statistics({whole.data(), size}).ok());
    }
    CHECK(!sources::parse_link_statistics(bytes(statistics_payload({0, "none", 1}))).ok());
    CHECK(!sources::parse_link_statistics(bytes(statistics_payload({-4, "none", 1}))).ok());
}

TEST_CASE("network: a notice names the interface and says whether it is up") {
    const struct {
        std::uint8_t operstate;
        std::optional<bool> up;
    } kStates[] = {{IF_OPER_UP, true},       {IF_OPER_UNKNOWN, true},  {IF_OPER_DOWN, false},
                   {IF_OPER_DORMANT, false}, {IF_OPER_TESTING, false}, {99, std::nullopt}};
    for (const auto& state : kStates) {
        const Raw payload = link_payload({5, "wl0", 0, state.operstate});
        const auto found = sources::parse_link_notice(bytes(payload));
        REQUIRE(found.ok());
        CHECK(found.value().index == 5);
        CHECK(found.value().name == "wl0");
        CHECK(found.value().up == state.up);
    }
    CHECK(!sources::parse_link_notice(bytes(link_payload({5, "", 0}))).ok());
    CHECK(!sources::parse_link_notice(bytes(link_payload({5, std::string(65, 'x'), 0}))).ok());
    CHECK(!sources::parse_link_notice(bytes(link_payload({0, "wl0", 0}))).ok());
    const Raw whole = link_payload({5, "wl0", 0});
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const auto cut = sources::parse_link_notice({whole.data(), size});
        if (cut.ok()) CHECK((cut.value().name == "wl0" && cut.value().up.value_or(true)));
    }
}

TEST_CASE("network: words of operstate, and speeds that a driver does not know") {
    CHECK(sources::parse_operstate("up\n") == true);
    CHECK(sources::parse_operstate("unknown") == true);
    for (const char* word : {"down\n", "notpresent\n", "lowerlayerdown\n", "testing\n", "dormant\n"}) {
        CHECK(sources::parse_operstate(word) == false);
    }
    for (const char* word : {"", "\n", "upper", "7", "\xFF"}) CHECK(!sources::parse_operstate(word));
    CHECK(sources::parse_link_speed("1000\n") == 125e6);
    CHECK(sources::parse_link_speed("400000\n") == 50e9);
    for (const char* text : {"", "-1\n", "0\n", "4294967295\n", "99999999999999999999999\n", "fast\n", "10x\n"}) {
        CHECK(!sources::parse_link_speed(text));
    }
}

TEST_CASE("network: state and speed come from the folder of the interface") {
    Tree tree("6.18");
    tree.write("sys/class/net/ifb0/speed", "25000\n");
    Memory memory;
    auto source = open_network(tree);
    REQUIRE(source->poll(0, memory).ok());
    CHECK(memory.at(up("lo")) == 1);
    CHECK(memory.at(up("eth0")) == 1);
    CHECK(memory.at(up("ifb0")) == 0);
    CHECK(memory.at(speed("ifb0")) == 3.125e9);
    CHECK(!memory.has(speed("eth0")));  // -1: the driver does not know
    tree.write("sys/class/net/ifb0/speed", "10\n");
    tree.write("sys/class/net/ifb0/operstate", "up\n");
    REQUIRE(source->poll(29 * kSecond, memory).ok());
    CHECK(memory.at(speed("ifb0")) == 3.125e9);
    REQUIRE(source->poll(30 * kSecond, memory).ok());
    CHECK(memory.at(speed("ifb0")) == 1.25e6);
    CHECK(memory.at(up("ifb0")) == 1);
    tree.remove("sys/class/net/ifb0");
    memory.forget();
    REQUIRE(source->poll(60 * kSecond, memory).ok());
    CHECK(std::isnan(memory.at(speed("ifb0"))));  // not observed is not 0
    CHECK(memory.at(received("ifb0")) == 0);
}

TEST_CASE("network: a FIFO or a device in the place of a speed neither blocks nor is believed") {
    Tree tree("6.18");
    tree.remove("sys/class/net/eth0/speed");
    REQUIRE(mkfifo((tree.roots().sys + "/class/net/eth0/speed").c_str(), 0600) == 0);
    fs::create_symlink("/dev/zero", tree.roots().sys + "/class/net/ifb0/speed");
    Memory memory;
    REQUIRE(open_network(tree)->poll(0, memory).ok());
    CHECK(!memory.has(speed("eth0")));
    CHECK(!memory.has(speed("ifb0")));
}

TEST_CASE("network: only some interfaces have their files read in one poll, all of them in turn") {
    Tree tree;
    std::string text = "titles\ntitles\n";
    for (int i = 0; i < 40; ++i) {
        const std::string name = std::string("veth").append(std::to_string(i));
        text += name + ": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        tree.write("sys/class/net/" + name + "/speed", "10000\n");
    }
    tree.write("proc/net/dev", text);
    Memory memory;
    auto source = open_network(tree);
    for (const std::size_t known : {16U, 32U, 40U, 40U}) {
        REQUIRE(source->poll(0, memory).ok());
        CHECK(memory.names.size() == 40 * 16 + known);
    }
}

TEST_CASE("network: netlink and text agree on this machine") {
    Memory before, netlink, after;
    const auto asked = sources::make_network({}, system_io(), sources::system_netlink());
    const auto read = sources::make_network({}, system_io(), kNoNetlink);
    REQUIRE(asked.ok());
    REQUIRE(read.ok());
    REQUIRE(read.value()->poll(0, before).ok());
    REQUIRE(asked.value()->poll(0, netlink).ok());
    REQUIRE(read.value()->poll(1, after).ok());
    if (before.names != after.names) return;  // an interface came or went meanwhile
    CHECK(netlink.names == after.names);
    for (const std::string& name : netlink.names) {
        CAPTURE(name);
        if (name.starts_with("system.network.up") || name.starts_with("system.network.bandwidth")) continue;
        CHECK(netlink.at(name) >= before.at(name));
        CHECK(netlink.at(name) <= after.at(name));
    }
}

TEST_CASE("network: asking netlink again allocates nothing and lists nothing") {
    FakeNetwork network;
    network.links = {{1, "lo", 5}, {2, "eth0", 6}};
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    CHECK(memory.at(received("eth0")) == 6);
    CHECK(memory.at(up("eth0")) == 1);
    const auto again = source->poll(1, memory);
    REQUIRE(again.ok());
    CHECK(again.value().emitted == memory.names.size());
    CHECK(network.lists == 1);
    const auto live = sources::make_network({}, system_io(), sources::system_netlink());
    REQUIRE(live.ok());
    Memory real;
    REQUIRE(live.value()->poll(0, real).ok());
    const std::uint64_t allocated = allocations();
    const auto steady = live.value()->poll(1, real);
    CHECK(allocations() == allocated);
    CHECK(steady.ok());
}

TEST_CASE("network: a renamed interface closes the old name's series and opens the new one's") {
    FakeNetwork network;
    network.links = {{1, "lo", 5}, {2, "eth0", 6}};
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    network.links[1].name = "lan0";
    network.notice();
    REQUIRE(source->poll(1, memory).ok());
    CHECK(network.lists == 2);
    CHECK(memory.closed == 17);
    CHECK(!memory.has(received("eth0")));
    CHECK(memory.at(received("lan0")) == 6);
}

TEST_CASE("network: two interfaces that swap names are new ones both") {
    FakeNetwork network;
    network.links = {{1, "a0", 5}, {2, "b0", 6}};
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    std::swap(network.links[0].name, network.links[1].name);
    network.notice();
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.closed == 34);
    CHECK(memory.at(received("b0")) == 5);
    CHECK(memory.at(received("a0")) == 6);
}

TEST_CASE("network: an interface that is plugged again under its name counts anew") {
    FakeNetwork network;
    network.links = {{1, "lo", 5}, {2, "usb0", 600}};
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    network.links[1] = {7, "usb0", 3};
    REQUIRE(source->poll(1, memory).ok());  // without a notice: its index is unknown, so it is looked up next
    REQUIRE(source->poll(2, memory).ok());
    CHECK(memory.closed == 17);
    CHECK(memory.at(received("usb0")) == 3);
}

TEST_CASE("network: an interface that went down says so; one that vanished closes its series") {
    FakeNetwork network;
    network.links = {{1, "lo", 5}, {2, "eth0", 6}};
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    network.links[1].operstate = IF_OPER_DOWN;
    network.notice();
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.at(up("eth0")) == 0);
    CHECK(memory.closed == 0);
    network.links.pop_back();
    network.notice();
    REQUIRE(source->poll(2, memory).ok());
    CHECK(memory.closed == 17);
    CHECK(memory.at(received("lo")) == 5);
}

TEST_CASE("network: lost notices and notices that cannot be had mean another list") {
    FakeNetwork network;
    network.links = {{1, "lo", 5}};
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    fake_kernel.notices.push_back({{}, ENOBUFS});
    REQUIRE(source->poll(1, memory).ok());
    CHECK(network.lists == 2);
    fake_kernel.notices.push_back({{}, EIO});
    fake_kernel.open_failures = {};
    REQUIRE(source->poll(2, memory).ok());
    CHECK(network.lists == 2);
    fake_kernel.notices.push_back({{}, EIO});
    REQUIRE(source->poll(31 * kSecond, memory).ok());
    CHECK(network.lists == 3);
}

TEST_CASE("network: where netlink fails the text is read in the same poll, and netlink again in the next") {
    FakeNetwork network;
    network.links = {{1, "lo", 5}};
    network.fail_statistics = true;
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    const std::size_t names = memory.names.size();
    CHECK(names >= 16);
    CHECK(memory.has(received("lo")));
    network.fail_statistics = false;
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.at(received("lo")) == 5);
    fake_kernel.open_failures = {};
    fake_kernel.send_failures = {EIO};
    REQUIRE(source->poll(2, memory).ok());
    CHECK(memory.at(received("lo")) != 5);
}

TEST_CASE("network: a list that never holds still is given up for the text") {
    FakeNetwork network;
    network.links = {{1, "lo", 5}};
    network.changing = true;
    const auto source = network.open();
    Memory memory;
    REQUIRE(source->poll(0, memory).ok());
    CHECK(network.lists == 3);
    CHECK(memory.has(received("lo")));
    CHECK(memory.at(received("lo")) != 5);
}

TEST_CASE("network: more interfaces than the cap are counted, not followed") {
    FakeNetwork network;
    for (int i = 1; i <= 4100; ++i) network.links.push_back({i, std::string("v").append(std::to_string(i)), 1});
    const auto source = network.open();
    Memory memory;
    const auto report = source->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 4);
    CHECK(memory.has(received("v4096")));
    CHECK(!memory.has(received("v4097")));
    REQUIRE(source->poll(1, memory).ok());
    CHECK(network.lists == 1);
}

}  // namespace argus::test
