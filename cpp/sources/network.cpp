// Traffic, packets, drops and errors of each network interface.
// Source: /proc/net/dev; kernel net/core/net-procfs.c and man proc_net(5).
// Emits:  system.network.io (By), .packet.count, .packet.dropped, .errors and the rarer counters, by
//         network.interface.name and network.io.direction. Raw counters; 32-bit drivers wrap, which the rates handle.
// Cost:   one pread. Absent file: Errc::unavailable. An interface that vanishes closes its series, one that appears or
//         is renamed opens new ones.
#include "sources/network.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

struct LinkSeries {
    const char* name;
    const char* unit;
    const char* direction;
};
constexpr LinkSeries kLinkSeries[kLinkCounters] = {
    {"system.network.io", "By", "receive"},
    {"system.network.packet.count", "{packet}", "receive"},
    {"system.network.errors", "{error}", "receive"},
    {"system.network.packet.dropped", "{packet}", "receive"},
    {"system.network.fifo_errors", "{error}", "receive"},
    {"system.network.frame_errors", "{error}", "receive"},
    {"system.network.compressed", "{packet}", "receive"},
    {"system.network.multicast", "{packet}", "receive"},
    {"system.network.io", "By", "transmit"},
    {"system.network.packet.count", "{packet}", "transmit"},
    {"system.network.errors", "{error}", "transmit"},
    {"system.network.packet.dropped", "{packet}", "transmit"},
    {"system.network.fifo_errors", "{error}", "transmit"},
    {"system.network.collisions", "{collision}", "transmit"},
    {"system.network.carrier_errors", "{error}", "transmit"},
    {"system.network.compressed", "{packet}", "transmit"},
};

struct Link {
    std::string name;  // raw bytes
    std::array<SeriesSlot, kLinkCounters> series;
    std::uint64_t seen = 0;  // the poll that last saw it
};

}  // namespace

Result<LinkCounters> parse_link(std::string_view line) {
    const std::size_t colon = line.rfind(':');
    if (colon == std::string_view::npos) return Error{Errc::malformed, 0, "proc/net/dev: expected 'name: counters'"};
    LinkCounters out;
    out.name = line.substr(0, colon);
    out.name.remove_prefix(std::min(out.name.find_first_not_of(' '), out.name.size()));
    if (out.name.empty() || out.name.size() > kLinkNameBytes) {
        return Error{Errc::malformed, 0, "proc/net/dev: expected an interface name of 1 to 64 bytes"};
    }
    Scanner numbers(line.substr(colon + 1));
    for (std::uint64_t& value : out.values) {
        if (!numbers.number(value)) return Error{Errc::malformed, 0, "proc/net/dev: expected 16 unsigned counters"};
    }
    return out;
}

std::string_view skip_titles(std::string_view text) noexcept {
    for (int title = 0; title < 2; ++title) {
        const std::size_t stop = text.find('\n');
        text = stop == std::string_view::npos ? std::string_view{} : text.substr(stop + 1);
    }
    return text;
}

namespace {

class NetworkSource final : public Source {
public:
    NetworkSource(const Roots& roots, const Io& io) : dev_(io, roots.proc + "/net/dev", "proc/net/dev") {}

    [[nodiscard]] Result<bool> open() { return dev_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = dev_.read();
        if (!text) return text.error();
        const std::string_view data = skip_titles(*text);
        if (data.empty()) return Error{Errc::truncated, 0, "proc/net/dev: expected two title lines and an interface"};
        ++polls_;
        Scanner scanner(data);
        std::string_view line;
        std::size_t position = 0;
        while (scanner.line(line)) {
            const auto counters = parse_link(line);
            Link* link = counters ? find((*counters).name, position) : nullptr;
            if (link == nullptr) {
                ++report.malformed;
                continue;
            }
            ++position;
            emit_link(*link, *counters, emit, report);
        }
        if (!scanner.done()) return cut(report);  // whom the cut took away is unknown: nothing is closed
        close_vanished(emit);
        return report;
    }

private:
    static PollReport cut(PollReport report) noexcept {
        ++report.malformed;
        return report;
    }

    static constexpr std::size_t kMaxLinks = 4096;

    // Interfaces keep their order, so the one at `position` is nearly always the one; nullptr = seen in this poll
    // already, or more interfaces than Argus follows.
    Link* find(std::string_view name, std::size_t position) {
        Link* found = nullptr;
        if (position < links_.size() && links_[position].name == name) {
            found = &links_[position];
        } else {
            for (Link& link : links_) {
                if (link.name == name) found = &link;
            }
        }
        if (found == nullptr) {
            if (links_.size() >= kMaxLinks) return nullptr;
            found = &links_.emplace_back();
            found->name = name;
        }
        if (found->seen == polls_) return nullptr;
        found->seen = polls_;
        return found;
    }

    static void emit_link(Link& link, const LinkCounters& counters, Emit& emit, PollReport& report) {
        for (std::size_t i = 0; i < kLinkCounters; ++i) {
            link.series[i].emit(emit, report, static_cast<double>(counters.values[i]), [&] {
                std::string attributes = "network.interface.name=" + attribute_value(link.name);
                attributes += std::string(",network.io.direction=") + kLinkSeries[i].direction;
                return SeriesInfo{kLinkSeries[i].name, kLinkSeries[i].unit, Kind::counter, attributes};
            });
        }
    }

    void close_vanished(Emit& emit) {
        std::erase_if(links_, [&](Link& link) {
            if (link.seen == polls_) return false;
            for (SeriesSlot& series : link.series) series.close(emit);
            return true;
        });
    }

    KernelFile dev_;
    std::vector<Link> links_;
    std::uint64_t polls_ = 0;
};

Result<std::unique_ptr<Source>> open_network(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<NetworkSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor network_source;
const SourceDescriptor network_source{
    "network",
    "Bytes, packets, drops and errors of each network interface, from /proc/net/dev.",
    "a mounted /proc with /proc/net/dev (CONFIG_NET)",
    "mount procfs, or point `proc` at the host's: in a container /proc/net shows the container's own interfaces",
    1000,
    Lane::fast,
    open_network,
};

}  // namespace argus::sources
