// The counters of IP, ICMP, TCP and UDP that RFC 1213 and its successors define.
// Source: /proc/net/snmp; man proc_net(5), kernel Documentation/networking/snmp_counter.rst.
// Emits:  system.network.{ip,icmp,tcp,udp,udplite}.<counter>: every number of the file, named by the rule of
//         protocol_counters.hpp: tcp.retrans_segs, tcp.out_rsts, tcp.attempt_fails, tcp.curr_estab,
//         udp.rcvbuf_errors, udp.no_ports, ... Raw counters.
// Cost:   bench_sources source_poll/protocols: one pread of 1.3 kB. What costs four times that is protocols_extended's.
// Failure: absent file: Errc::unavailable. A pair of lines of unequal counts is skipped and counted.
#include "sources/kernel_file.hpp"
#include "sources/protocol_counters.hpp"
#include "sources/source.hpp"

namespace argus::sources {
namespace {

class ProtocolsSource final : public Source {
public:
    ProtocolsSource(const Roots& roots, const Io& io) : snmp_(io, roots.proc + "/net/snmp", "proc/net/snmp") {}

    [[nodiscard]] Result<bool> open() { return snmp_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = snmp_.read();
        if (!text) return text.error();
        if (text.value().empty()) return Error{Errc::truncated, 0, "proc/net/snmp: expected lines, found none"};
        table_.emit_pairs(*text, emit, report);
        return report;
    }

private:
    KernelFile snmp_;
    ProtocolTable table_;
};

Result<std::unique_ptr<Source>> open_protocols(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<ProtocolsSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor protocols_source;
const SourceDescriptor protocols_source{
    "protocols",
    "Counters of IP, ICMP, TCP and UDP, retransmissions and errors among them, from /proc/net/snmp.",
    "a mounted /proc with /proc/net/snmp (CONFIG_INET)",
    "mount procfs, or point `proc` at the host's: in a container /proc/net shows the container's own network",
    1000,
    Lane::fast,
    open_protocols,
};

}  // namespace argus::sources
