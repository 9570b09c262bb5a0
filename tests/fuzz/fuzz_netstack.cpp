// The network's files and messages: the first byte chooses the parser, the rest is its input.
#include <linux/netlink.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "sources/conntrack.hpp"
#include "sources/cpu.hpp"
#include "sources/netlink.hpp"
#include "sources/network.hpp"
#include "sources/protocol_counters.hpp"
#include "sources/sockets.hpp"
#include "sources/softnet.hpp"

namespace {

using namespace argus::sources;

void must(bool condition) {
    if (!condition) std::abort();
}

class Ignore final : public Emit {
public:
    [[nodiscard]] argus::Slot open_series(argus::SeriesInfo info) override {
        must(info.name.starts_with("system.network.") && info.attributes.empty());
        for (const char c : info.name) {
            must((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_');
        }
        ++open;
        return {};
    }
    void close_series(argus::Slot) override {
        must(open > 0);
        --open;
    }
    void value(argus::Slot, double value) override { must(std::isfinite(value) && value >= 0); }
    std::size_t open = 0;
};

void within(Bytes part, Bytes whole) {
    must(part.size() <= whole.size());
    if (!part.empty()) must(part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void messages(Bytes datagram) {
    NetlinkWalk walk(datagram);
    NetlinkMessage message;
    std::size_t left = datagram.size() / sizeof(nlmsghdr);
    TcpSums sums;
    while (walk.next(message)) {
        must(left-- > 0);
        within(message.payload, datagram);
        AttributeWalk attributes(message.payload);
        NetlinkAttribute attribute;
        while (attributes.next(attribute)) within(attribute.payload, message.payload);
        const auto notice = parse_link_notice(message.payload);
        if (notice) must(notice.value().index > 0 && notice.value().name.size() <= kLinkNameBytes);
        const auto statistics = parse_link_statistics(message.payload);
        if (statistics) must(statistics.value().index > 0);
        const auto socket = parse_tcp_socket(message.payload);
        if (socket) sums.add(socket.value());
        (void)parse_unix_socket(message.payload);
    }
    must(!(sums.rtt_us.quantile(0.5) < 0) && std::isfinite(sums.accept_queue_utilization));
}

void read(ProtocolTable& table, std::string_view text, bool lines, Emit& emit, PollReport& report) {
    if (lines) {
        table.emit_lines(text, emit, report);
    } else {
        table.emit_pairs(text, emit, report);
    }
}

// The same file gives the same again; another one in between leaves no more open than it emitted.
void protocols(std::string_view text, bool lines) {
    ProtocolTable table;
    Ignore emit;
    PollReport first, again, half;
    read(table, text, lines, emit, first);
    must(emit.open == first.emitted && emit.open <= kMaxProtocolCounters);
    read(table, text, lines, emit, again);
    must(again.emitted == first.emitted && again.malformed == first.malformed && emit.open == first.emitted);
    read(table, text.substr(text.size() / 2), lines, emit, half);
    must(half.malformed > 0 || emit.open == half.emitted);
}

void sockstat(std::string_view text) {
    SockstatWalk walk(text);
    SocketNumber number;
    std::size_t left = text.size();
    while (walk.next(number)) must(left-- > 0 && !number.family.empty() && !number.key.empty());
}

void softnet(std::string_view line) {
    const auto parsed = parse_softnet(line);
    if (parsed && parsed.value().cpu) must(*parsed.value().cpu < static_cast<std::uint32_t>(kMaxCpus));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    ConntrackStat stat;
    switch (data[0] % 8) {
        case 0: messages(std::as_bytes(std::span(data + 1, size - 1))); break;
        case 1: protocols(text, false); break;
        case 2: protocols(text, true); break;
        case 3: sockstat(text); break;
        case 4: softnet(text); break;
        case 5: must(!parse_conntrack(text, stat) || stat.columns <= kMaxConntrackColumns); break;
        case 6: (void)parse_operstate(text); break;
        default: {
            const auto speed = parse_link_speed(text);
            if (speed) must(std::isfinite(*speed) && *speed > 0);
        }
    }
    return 0;
}
