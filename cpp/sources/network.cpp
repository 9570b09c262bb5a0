// Traffic, packets, drops and errors of each network interface; whether it is up and how fast it is.
// Source: rtnetlink RTM_GETSTATS (IFLA_STATS_LINK_64, Linux >= 4.7) with names from RTM_GETLINK, asked again when the
//         kernel announces a change (RTMGRP_LINK); where netlink is refused, and for roots that are not live,
//         /proc/net/dev (kernel net/core/net-procfs.c, man proc_net(5)). Speed and, beside the text, the operational
//         state from /sys/class/net/X/{speed,operstate} (Documentation/ABI/testing/sysfs-class-net).
// Emits:  system.network.io (By), .packet.count, .packet.dropped, .errors and the rarer counters, by
//         network.interface.name and network.io.direction, the columns of /proc/net/dev on both ways; raw counters:
//         32-bit drivers wrap, which the rates handle. Gauges system.network.up (0, 1) and
//         system.network.bandwidth.limit (By/s).
// Cost:   bench_sources source_poll/network: one dump of netlink, or one pread. The files of sysfs are read for 16
//         interfaces a poll at most, each every 30 s. At most 4,096 interfaces.
// Failure: absent /proc/net/dev: Errc::unavailable. An interface that vanishes closes its series; one that appears, is
//         renamed or is plugged again (another index) opens new ones. Of a list cut short nothing is closed. Netlink
//         shows the namespace of this process, as /proc/net does.
#include "sources/network.hpp"

#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

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
    std::int32_t index = 0;  // 0 = known from the text only
    LinkValues values{};
    std::uint64_t seen = 0;  // the poll that last gave it values
    bool read = false;       // its files have been
    Nanos read_at = 0;
    double speed = kNaN;       // By/s
    double up = kNaN;
    std::string speed_path;
    std::string operstate_path;
    std::array<SeriesSlot, kLinkCounters> series;
    SeriesSlot speed_series;
    SeriesSlot up_series;
};

Error malformed(const char* what) { return Error{Errc::malformed, 0, what}; }

struct StatisticsRequest {
    nlmsghdr header{};
    if_stats_msg body{};
};

struct LinksRequest {
    nlmsghdr header{};
    ifinfomsg body{};
    nlattr mask_header{};
    std::uint32_t mask = 0;
};

}  // namespace

Result<LinkCounters> parse_link(std::string_view line) {
    const std::size_t colon = line.rfind(':');
    if (colon == std::string_view::npos) return malformed("proc/net/dev: expected 'name: counters'");
    LinkCounters out;
    out.name = line.substr(0, colon);
    out.name.remove_prefix(std::min(out.name.find_first_not_of(' '), out.name.size()));
    if (out.name.empty() || out.name.size() > kLinkNameBytes) {
        return malformed("proc/net/dev: expected an interface name of 1 to 64 bytes");
    }
    Scanner numbers(line.substr(colon + 1));
    for (std::uint64_t& value : out.values) {
        if (!numbers.number(value)) return malformed("proc/net/dev: expected 16 unsigned counters");
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

Result<LinkNotice> parse_link_notice(Bytes payload) {
    ifinfomsg body{};
    if (!load(payload, body) || body.ifi_index <= 0) return malformed("rtnetlink: expected an interface's index");
    LinkNotice out;
    out.index = body.ifi_index;
    AttributeWalk walk(after(payload, sizeof body));
    NetlinkAttribute attribute;
    while (walk.next(attribute)) {
        if (attribute.type == IFLA_IFNAME) {
            out.name = {reinterpret_cast<const char*>(attribute.payload.data()), attribute.payload.size()};
            out.name = out.name.substr(0, out.name.find('\0'));
        } else if (attribute.type == IFLA_OPERSTATE && !attribute.payload.empty()) {
            const auto state = std::to_integer<unsigned>(attribute.payload[0]);
            if (state <= IF_OPER_UP) out.up = state == IF_OPER_UP || state == IF_OPER_UNKNOWN;
        }
    }
    if (!walk.done()) return malformed("rtnetlink: expected whole attributes of an interface");
    if (out.name.empty() || out.name.size() > kLinkNameBytes) {
        return malformed("rtnetlink: expected an interface name of 1 to 64 bytes");
    }
    return out;
}

Result<LinkStatistics> parse_link_statistics(Bytes payload) {
    if_stats_msg body{};
    if (!load(payload, body) || body.ifindex == 0 || body.ifindex > std::numeric_limits<std::int32_t>::max()) {
        return malformed("rtnetlink: expected an interface's index");
    }
    AttributeWalk walk(after(payload, sizeof body));
    NetlinkAttribute attribute;
    rtnl_link_stats64 s{};
    bool found = false;
    while (walk.next(attribute)) {
        if (attribute.type == IFLA_STATS_LINK_64) {
            // Fields were appended since the first version, which ended before rx_nohandler.
            const std::size_t size = std::min(attribute.payload.size(), sizeof s);
            if (size < offsetof(rtnl_link_stats64, rx_nohandler)) break;
            std::memcpy(&s, attribute.payload.data(), size);
            found = true;
        }
    }
    if (!found) return malformed("rtnetlink: expected 64-bit statistics");
    LinkStatistics out;
    out.index = static_cast<std::int32_t>(body.ifindex);
    out.values = {s.rx_bytes,
                  s.rx_packets,
                  s.rx_errors,
                  s.rx_dropped + s.rx_missed_errors,
                  s.rx_fifo_errors,
                  s.rx_length_errors + s.rx_over_errors + s.rx_crc_errors + s.rx_frame_errors,
                  s.rx_compressed,
                  s.multicast,
                  s.tx_bytes,
                  s.tx_packets,
                  s.tx_errors,
                  s.tx_dropped,
                  s.tx_fifo_errors,
                  s.collisions,
                  s.tx_carrier_errors + s.tx_aborted_errors + s.tx_window_errors + s.tx_heartbeat_errors,
                  s.tx_compressed};
    return out;
}

std::optional<bool> parse_operstate(std::string_view text) noexcept {
    text = text.substr(0, text.find('\n'));
    if (text == "up" || text == "unknown") return true;
    for (const std::string_view down : {"notpresent", "down", "lowerlayerdown", "testing", "dormant"}) {
        if (text == down) return false;
    }
    return std::nullopt;
}

std::optional<double> parse_link_speed(std::string_view text) noexcept {
    constexpr double kBytesPerMegabit = 125'000;
    constexpr std::uint64_t kUnknown = 0x7FFF'FFFF;  // -1 in 32 bits, printed without its sign by old kernels
    std::uint64_t megabits = 0;
    Scanner scanner(text);
    if (!scanner.number(megabits) || megabits == 0 || megabits > kUnknown) return std::nullopt;
    return static_cast<double>(megabits) * kBytesPerMegabit;
}

namespace {

class NetworkSource final : public Source {
public:
    NetworkSource(const Roots& roots, const Io& io, const NetlinkIo& netlink)
        : io_(&io),
          live_(roots.live()),
          class_path_(roots.sys + "/class/net/"),
          dev_(io, roots.proc + "/net/dev", "proc/net/dev"),
          questions_(netlink, NETLINK_ROUTE, "rtnetlink"),
          notices_(netlink, NETLINK_ROUTE, "rtnetlink notices", NetlinkSocket::kTimeLimit, RTMGRP_LINK) {}

    [[nodiscard]] Result<bool> open() { return dev_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos now, Emit& emit) override {
        PollReport report;
        ++polls_;
        bool whole_text = false;
        if (!live_ || !ask_netlink(now, emit, report)) {
            report = {};
            const auto whole = read_text(report);
            if (!whole) return whole.error();
            whole_text = *whole;
            relist_ = true;
        }
        read_devices(now);
        for (Link& link : links_) {
            if (link.seen == polls_) emit_link(link, emit, report);
        }
        if (whole_text) close_unseen(emit);
        return report;
    }

private:
    static constexpr std::size_t kMaxLinks = 4096;
    static constexpr std::size_t kDevicesPerPoll = 16;
    static constexpr Nanos kDeviceInterval = 30 * kSecond;  // between two readings of an interface's files
    static constexpr Nanos kListInterval = 30 * kSecond;    // between two lists, where the kernel gives no notice

    // --- rtnetlink. False = it did not answer in full; the text is read instead.

    bool ask_netlink(Nanos now, Emit& emit, PollReport& report) {
        const auto notices = notices_.drain([](const NetlinkMessage&) { return true; });
        if (!notices) {
            relist_ = relist_ || now - listed_at_ >= kListInterval;
        } else if (notices.value().messages + notices.value().malformed > 0 || notices.value().interrupted) {
            relist_ = true;
        }
        if (relist_) {
            if (!list_links(emit, report)) return false;
            listed_at_ = now;
        }
        StatisticsRequest request;
        request.header.nlmsg_type = RTM_GETSTATS;
        request.body.filter_mask = IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64);
        std::size_t position = 0;
        const auto answer = questions_.ask(request, NLM_F_DUMP, [&](const NetlinkMessage& message) {
            if (message.type != RTM_NEWSTATS) return true;
            const auto statistics = parse_link_statistics(message.payload);
            if (!statistics) {
                ++report.malformed;
                return true;
            }
            take((*statistics).index, (*statistics).values, position++);
            return true;
        });
        if (!answer) return false;
        report.malformed += answer.value().malformed;
        for (const Link& link : links_) relist_ = relist_ || link.seen != polls_;
        return true;
    }

    void take(std::int32_t index, const LinkValues& values, std::size_t position) {
        Link* found = nullptr;
        if (position < links_.size() && links_[position].index == index) {
            found = &links_[position];
        } else {
            const auto at = std::lower_bound(links_.begin(), links_.end(), index,
                                             [](const Link& link, std::int32_t wanted) { return link.index < wanted; });
            if (at != links_.end() && at->index == index) found = &*at;
        }
        if (found == nullptr) {
            relist_ = relist_ || links_.size() < kMaxLinks;  // appeared since the list was made
            return;
        }
        found->values = values;
        found->seen = polls_;
    }

    // Names by index. A list that changed under the reader is asked for again; one that never holds still is given up.
    bool list_links(Emit& emit, PollReport& report) {
        constexpr int kAttempts = 3;
        for (int attempt = 0; attempt < kAttempts; ++attempt) {
            LinksRequest request;
            request.header.nlmsg_type = RTM_GETLINK;
            request.mask_header = {sizeof(nlattr) + sizeof(std::uint32_t), IFLA_EXT_MASK};
            request.mask = RTEXT_FILTER_SKIP_STATS;
            std::uint32_t refused = 0;
            listed_.clear();
            const auto answer = questions_.ask(request, NLM_F_DUMP, [&](const NetlinkMessage& message) {
                if (message.type != RTM_NEWLINK) return true;
                const auto notice = parse_link_notice(message.payload);
                if (!notice || listed_.size() >= kMaxLinks) {
                    ++refused;
                    return true;
                }
                listed_.push_back({(*notice).index, std::string((*notice).name), (*notice).up});
                return true;
            });
            if (!answer) return false;
            if (answer.value().interrupted) continue;
            report.malformed += answer.value().malformed + refused;
            merge_list(emit);
            relist_ = false;
            return true;
        }
        return false;
    }

    struct Listed {
        std::int32_t index;
        std::string name;
        std::optional<bool> up;
        bool known = false;
    };

    // An interface is its index and its name: who has another of either is another one. Those known from the text only
    // get their index here.
    void merge_list(Emit& emit) {
        constexpr auto by_index = [](const auto& a, const auto& b) { return a.index < b.index; };
        std::sort(listed_.begin(), listed_.end(), by_index);
        std::erase_if(links_, [&](Link& link) {
            const auto same_name = [&](const Listed& entry) { return entry.name == link.name; };
            const auto at = link.index != 0 ? std::lower_bound(listed_.begin(), listed_.end(), link, by_index)
                                            : std::find_if(listed_.begin(), listed_.end(), same_name);
            const bool same = at != listed_.end() && !at->known && same_name(*at);
            if (same && (link.index == 0 || link.index == at->index)) {
                at->known = true;
                link.index = at->index;
                set_up(link, at->up);
                return false;
            }
            close(link, emit);
            return true;
        });
        for (const Listed& entry : listed_) {
            Link* link = entry.known ? nullptr : add(entry.name, entry.index);
            if (link != nullptr) set_up(*link, entry.up);
        }
        std::sort(links_.begin(), links_.end(), by_index);
    }

    static void set_up(Link& link, std::optional<bool> up) { link.up = up ? (*up ? 1.0 : 0.0) : kNaN; }

    // --- /proc/net/dev

    // True = to its end; false = it was cut, and whom the cut took away is unknown.
    [[nodiscard]] Result<bool> read_text(PollReport& report) {
        const auto text = dev_.read();
        if (!text) return text.error();
        const std::string_view data = skip_titles(*text);
        if (data.empty()) return Error{Errc::truncated, 0, "proc/net/dev: expected two title lines and an interface"};
        for (Link& link : links_) link.seen = 0;
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
            link->values = (*counters).values;
        }
        if (!scanner.done()) ++report.malformed;
        return scanner.done();
    }

    void close_unseen(Emit& emit) {
        std::erase_if(links_, [&](Link& link) {
            if (link.seen == polls_) return false;
            close(link, emit);
            return true;
        });
    }

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
        if (found == nullptr) found = add(name, 0);
        if (found == nullptr || found->seen == polls_) return nullptr;
        found->seen = polls_;
        return found;
    }

    // --- Both

    Link* add(std::string_view name, std::int32_t index) {
        if (links_.size() >= kMaxLinks) return nullptr;
        Link& link = links_.emplace_back();
        link.name = name;
        link.index = index;
        const bool plain = name != "." && name != ".." && name.find('/') == std::string_view::npos &&
                           name.find('\0') == std::string_view::npos;
        if (plain) {  // else no device of this folder
            link.speed_path = class_path_ + link.name + "/speed";
            link.operstate_path = class_path_ + link.name + "/operstate";
        }
        return &link;
    }

    static void close(Link& link, Emit& emit) {
        for (SeriesSlot& series : link.series) series.close(emit);
        link.speed_series.close(emit);
        link.up_series.close(emit);
    }

    // Reading a speed asks the driver under a lock of the kernel, so only some interfaces have their turn in a poll.
    void read_devices(Nanos now) {
        std::size_t turns = kDevicesPerPoll;
        for (std::size_t i = 0; i < links_.size() && turns > 0; ++i) {
            if (next_device_ >= links_.size()) next_device_ = 0;
            Link& link = links_[next_device_++];
            if (link.speed_path.empty() || (link.read && now - link.read_at < kDeviceInterval)) continue;
            --turns;
            link.read = true;
            link.read_at = now;
            link.speed = parse_link_speed(text_of(link.speed_path)).value_or(kNaN);
            if (link.index != 0) continue;  // netlink tells whether it is up, at once
            set_up(link, parse_operstate(text_of(link.operstate_path)));
        }
    }

    // Empty when it cannot be read.
    std::string_view text_of(const std::string& path) noexcept {
        return read_small(*io_, path, small_) == 0 ? small_.view() : std::string_view{};
    }

    static void emit_link(Link& link, Emit& emit, PollReport& report) {
        for (std::size_t i = 0; i < kLinkCounters; ++i) {
            link.series[i].emit(emit, report, static_cast<double>(link.values[i]), [&] {
                std::string attributes = "network.interface.name=" + attribute_value(link.name);
                attributes += std::string(",network.io.direction=") + kLinkSeries[i].direction;
                return SeriesInfo{kLinkSeries[i].name, kLinkSeries[i].unit, Kind::counter, attributes};
            });
        }
        emit_gauge(link, link.up_series, link.up, "system.network.up", "1", emit, report);
        emit_gauge(link, link.speed_series, link.speed, "system.network.bandwidth.limit", "By/s", emit, report);
    }

    static void emit_gauge(const Link& link, SeriesSlot& series, double value, const char* name, const char* unit,
                           Emit& emit, PollReport& report) {
        if (std::isnan(value)) return;
        series.emit(emit, report, value, [&] {
            return SeriesInfo{name, unit, Kind::gauge, "network.interface.name=" + attribute_value(link.name)};
        });
    }

    const Io* io_;
    bool live_;
    std::string class_path_;
    KernelFile dev_;
    NetlinkSocket questions_;
    NetlinkSocket notices_;
    std::vector<Link> links_;  // by netlink: sorted by index
    std::vector<Listed> listed_;
    SmallText small_;
    std::size_t next_device_ = 0;
    std::uint64_t polls_ = 0;
    Nanos listed_at_ = 0;
    bool relist_ = true;
};

Result<std::unique_ptr<Source>> open_network(const Roots& roots, const Io& io, const SourceSettings&) {
    return make_network(roots, io, system_netlink());
}

}  // namespace

Result<std::unique_ptr<Source>> make_network(const Roots& roots, const Io& io, const NetlinkIo& netlink) {
    auto source = std::make_unique<NetworkSource>(roots, io, netlink);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

extern const SourceDescriptor network_source;
const SourceDescriptor network_source{
    "network",
    "Bytes, packets, drops and errors, state and speed of each network interface, from rtnetlink or /proc/net/dev.",
    "a mounted /proc with /proc/net/dev (CONFIG_NET)",
    "mount procfs, or point `proc` at the host's: in a container /proc/net shows the container's own interfaces",
    1000,
    Lane::fast,
    open_network,
};

}  // namespace argus::sources
