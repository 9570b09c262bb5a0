// The longer tables of the network stack: Linux's own counters of TCP, IP and MPTCP, and IPv6.
// Source: /proc/net/netstat and /proc/net/snmp6; man proc_net(5), kernel Documentation/networking/snmp_counter.rst.
// Emits:  system.network.{tcp,ip,mptcp}.<counter> and {ip6,icmp6,udp6,udplite6}.<counter>: every number of the files,
//         named by the rule of protocol_counters.hpp: tcp.listen_overflows, tcp.listen_drops, tcp.syncookies_sent,
//         tcp.timeouts, tcp.rcv_q_drop, ip.in_octets, ip6.in_receives, ... Raw counters.
// Cost:   bench_sources source_poll/protocols_extended: two preads, four times that of protocols and, together, about
//         half of all other files a host sample reads: hence the slow lane.
// Failure: absent /proc/net/netstat: Errc::unavailable; without /proc/net/snmp6 (no IPv6) the rest is emitted.
#include "sources/kernel_file.hpp"
#include "sources/protocol_counters.hpp"
#include "sources/source.hpp"

namespace argus::sources {
namespace {

class ProtocolsExtendedSource final : public Source {
public:
    ProtocolsExtendedSource(const Roots& roots, const Io& io)
        : netstat_(io, roots.proc + "/net/netstat", "proc/net/netstat"),
          snmp6_(io, roots.proc + "/net/snmp6", "proc/net/snmp6") {}

    [[nodiscard]] Result<bool> open() { return netstat_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = netstat_.read();
        if (!text) return text.error();
        if (text.value().empty()) return Error{Errc::truncated, 0, "proc/net/netstat: expected lines, found none"};
        netstat_table_.emit_pairs(*text, emit, report);
        const auto lines = snmp6_.read();
        if (lines) {
            snmp6_table_.emit_lines(*lines, emit, report);
        } else if (lines.error().code != Errc::unavailable) {
            ++report.malformed;
        }
        return report;
    }

private:
    KernelFile netstat_;
    KernelFile snmp6_;
    ProtocolTable netstat_table_;
    ProtocolTable snmp6_table_;
};

Result<std::unique_ptr<Source>> open_protocols_extended(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<ProtocolsExtendedSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor protocols_extended_source;
const SourceDescriptor protocols_extended_source{
    "protocols_extended",
    "Linux's own counters of TCP, IP and MPTCP and those of IPv6, from /proc/net/netstat and /proc/net/snmp6.",
    "a mounted /proc with /proc/net/netstat (CONFIG_INET)",
    "mount procfs, or point `proc` at the host's: in a container /proc/net shows the container's own network",
    10'000,
    Lane::slow,
    open_protocols_extended,
};

}  // namespace argus::sources
