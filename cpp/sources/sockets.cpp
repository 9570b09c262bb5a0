// Sockets: connections by state, what waits in their queues, and the memory they hold.
// Source: sock_diag netlink (man sock_diag(7), Linux >= 3.3 with CONFIG_INET_DIAG, CONFIG_UNIX_DIAG): one dump for IPv4
//         and IPv6 together (TCPDIAG_GETSOCK: the tables are walked once), without TIME_WAIT, which the kernel counts
//         itself; and /proc/net/sockstat, sockstat6 (kernel net/ipv4/proc.c).
// Emits:  gauges: system.network.connection.count {network.connection.state, network.transport=tcp|unix} (time_wait is
//         sockstat's); system.network.tcp.{receive_queue, send_queue} (By), .accept_queue, .accept_queue.utilization
//         (of the fullest listener), .retransmitting, .probing {connection}; with the option tcp_info also .unacked,
//         .lost {segment}, .rtt.{p50,p90,p99,max} (s), .congestion_window.{p50,p90,p99,max} {segment} of established
//         connections. From sockstat: system.network.socket.used, .socket.count {network.transport, network.type},
//         .tcp.orphans, .tcp.allocated, .{tcp,udp}.memory.usage (By), .fragment.{queues, memory}.
//         Names and addresses of peers are not read.
// Cost:   bench_sockets host_sockets_*: a walk over the kernel's table plus 0.6 us a socket, a fifth of /proc/net/tcp.
//         A namespace with more than `max_sockets` is not dumped: Errc::limit says so, sockstat is emitted.
// Failure: absent /proc/net/sockstat: Errc::unavailable. Roots that are not live: sockstat alone. A kernel without
//         sock_diag: sockstat, and Errc::unavailable; it is not asked again, for asking loads modules.
#include "sources/sockets.hpp"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::uint8_t kEstablished = 1;
constexpr std::uint8_t kTimeWait = 6;
constexpr std::uint8_t kClosed = 7;
constexpr std::uint8_t kListen = 10;
constexpr std::uint8_t kTimerRetransmits = 1;  // inet_diag_msg.idiag_timer
constexpr std::uint8_t kTimerProbes = 4;
constexpr std::uint32_t kStatesOfDump = ((1U << kTcpStates) - 2) & ~(1U << kTimeWait) & ~(1U << kClosed);

constexpr const char* kStateNames[kTcpStates] = {
    "",          "established", "syn_sent",   "syn_received", "fin_wait_1", "fin_wait_2",
    "time_wait", "closed",      "close_wait", "last_ack",     "listen",     "closing",
};
constexpr std::uint8_t kUnixStates[] = {kEstablished, kClosed, kListen};

enum class Scale : std::uint8_t { one, page };
struct SockstatSeries {
    std::string_view family;
    std::string_view key;
    const char* name;
    const char* unit;
    const char* attributes;
    Scale scale = Scale::one;
};
constexpr SockstatSeries kSockstat[] = {
    {"sockets", "used", "system.network.socket.used", "{socket}", ""},
    {"TCP", "inuse", "system.network.socket.count", "{socket}", "network.transport=tcp,network.type=ipv4"},
    {"TCP", "orphan", "system.network.tcp.orphans", "{socket}", ""},
    {"TCP", "tw", "system.network.connection.count", "{connection}",
     "network.connection.state=time_wait,network.transport=tcp"},
    {"TCP", "alloc", "system.network.tcp.allocated", "{socket}", ""},
    {"TCP", "mem", "system.network.tcp.memory.usage", "By", "", Scale::page},
    {"UDP", "inuse", "system.network.socket.count", "{socket}", "network.transport=udp,network.type=ipv4"},
    {"UDP", "mem", "system.network.udp.memory.usage", "By", "", Scale::page},
    {"UDPLITE", "inuse", "system.network.socket.count", "{socket}", "network.transport=udplite,network.type=ipv4"},
    {"RAW", "inuse", "system.network.socket.count", "{socket}", "network.transport=raw,network.type=ipv4"},
    {"FRAG", "inuse", "system.network.fragment.queues", "{queue}", "network.type=ipv4"},
    {"FRAG", "memory", "system.network.fragment.memory", "By", "network.type=ipv4"},
    {"TCP6", "inuse", "system.network.socket.count", "{socket}", "network.transport=tcp,network.type=ipv6"},
    {"UDP6", "inuse", "system.network.socket.count", "{socket}", "network.transport=udp,network.type=ipv6"},
    {"UDPLITE6", "inuse", "system.network.socket.count", "{socket}", "network.transport=udplite,network.type=ipv6"},
    {"RAW6", "inuse", "system.network.socket.count", "{socket}", "network.transport=raw,network.type=ipv6"},
    {"FRAG6", "inuse", "system.network.fragment.queues", "{queue}", "network.type=ipv6"},
    {"FRAG6", "memory", "system.network.fragment.memory", "By", "network.type=ipv6"},
};
constexpr std::size_t kSockstatSeries = std::size(kSockstat);
constexpr std::size_t kTcpInUse = 1;
constexpr std::size_t kTcp6InUse = 12;
static_assert(kSockstat[kTcpInUse].family == "TCP" && kSockstat[kTcp6InUse].family == "TCP6");

constexpr Option kOptions[] = {
    {"tcp_info", "1", 0, 0, 1,
     "1 = also ask for round-trip times, congestion windows and segments in flight: 1.4 times the cost"},
    {"max_sockets", "1", 50'000, 1, 1'000'000,
     "TCP sockets in use above which they are not listed: 0.6 us each a poll on the slow lane"},
};
enum OptionIndex : std::size_t { kTcpInfo, kMaxSockets };

struct TcpRequest {
    nlmsghdr header{};
    inet_diag_req body{};
};

struct UnixRequest {
    nlmsghdr header{};
    unix_diag_req body{};
};

}  // namespace

bool SockstatWalk::next(SocketNumber& out) noexcept {
    while (true) {
        Scanner fields(line_);
        const std::string_view key = fields.word();
        if (!key.empty()) {
            const bool good = fields.number(out.value);
            line_ = good ? fields.rest() : std::string_view{};
            out.family = family_;
            out.key = key;
            if (good) return true;
            ++malformed_;  // what follows is not known to be a key
        }
        Scanner lines(text_);
        if (!lines.line(line_)) {
            if (!text_.empty()) ++malformed_;  // the last line was cut
            text_ = {};
            return false;
        }
        text_ = lines.rest();
        const std::size_t colon = line_.find(':');
        if (colon == std::string_view::npos || colon == 0) {
            ++malformed_;
            line_ = {};
            continue;
        }
        family_ = line_.substr(0, colon);
        line_ = line_.substr(colon + 1);
    }
}

Result<TcpSocket> parse_tcp_socket(Bytes payload) {
    inet_diag_msg body{};
    if (!load(payload, body) || body.idiag_state == 0 || body.idiag_state >= kTcpStates) {
        return Error{Errc::malformed, 0, "sock_diag: expected a TCP socket with its state"};
    }
    TcpSocket out;
    out.state = body.idiag_state;
    out.retransmitting = body.idiag_timer == kTimerRetransmits && body.idiag_retrans > 0;
    out.probing = body.idiag_timer == kTimerProbes;
    out.receive_queue = body.idiag_rqueue;
    out.send_queue = body.idiag_wqueue;
    AttributeWalk walk(after(payload, sizeof body));
    NetlinkAttribute attribute;
    while (walk.next(attribute)) {
        if (attribute.type != INET_DIAG_INFO) continue;
        // Fields are appended to tcp_info with time; those read here are as old as sock_diag.
        constexpr std::size_t kRead = offsetof(tcp_info, tcpi_advmss);
        tcp_info info{};
        if (attribute.payload.size() < kRead) break;
        std::memcpy(&info, attribute.payload.data(), kRead);
        out.path = {info.tcpi_rtt, info.tcpi_snd_cwnd, info.tcpi_unacked, info.tcpi_lost};
    }
    return out;
}

Result<std::uint8_t> parse_unix_socket(Bytes payload) {
    unix_diag_msg body{};
    if (!load(payload, body) || std::find(std::begin(kUnixStates), std::end(kUnixStates), body.udiag_state) ==
                                    std::end(kUnixStates)) {
        return Error{Errc::malformed, 0, "sock_diag: expected a unix socket with its state"};
    }
    return body.udiag_state;
}

void LogHistogram::add(std::uint32_t value) noexcept {
    std::size_t bucket = value;
    if (value >= 8) {
        const auto power = static_cast<unsigned>(std::bit_width(value)) - 1;  // >= 3
        bucket = (power - 2) * 8 + (value >> (power - 3)) - 8;
    }
    ++counts_[bucket];
    ++total_;
}

double LogHistogram::quantile(double share) const noexcept {
    if (total_ == 0) return std::numeric_limits<double>::quiet_NaN();
    const double wanted = std::max(1.0, std::ceil(share * total_));
    double passed = 0;
    for (std::size_t bucket = 0; bucket < counts_.size(); ++bucket) {
        passed += counts_[bucket];
        if (passed < wanted) continue;
        if (bucket < 8) return static_cast<double>(bucket);
        const double width = std::ldexp(1.0, static_cast<int>(bucket / 8) - 1);
        return (static_cast<double>(bucket % 8) + 8.0) * width + (width - 1) / 2;
    }
    return std::numeric_limits<double>::quiet_NaN();
}

void TcpSums::clear() noexcept {
    rtt_us.clear();
    window.clear();
    states.fill(0);
    receive_queue = send_queue = accept_queue = unacked = lost = 0;
    accept_queue_utilization = 0;
    retransmitting = probing = sockets = 0;
}

void TcpSums::add(const TcpSocket& socket) noexcept {
    ++sockets;
    ++states[socket.state];
    if (socket.state == kListen) {
        accept_queue += socket.receive_queue;
        if (socket.send_queue == 0) return;
        const double share = static_cast<double>(socket.receive_queue) / socket.send_queue;
        accept_queue_utilization = std::max(accept_queue_utilization, share);
        return;
    }
    receive_queue += socket.receive_queue;
    send_queue += socket.send_queue;
    if (socket.retransmitting) ++retransmitting;
    if (socket.probing) ++probing;
    if (!socket.path) return;
    unacked += socket.path->unacked;
    lost += socket.path->lost;
    if (socket.state != kEstablished) return;
    if (socket.path->rtt_us > 0) rtt_us.add(socket.path->rtt_us);  // 0 = nothing was acknowledged yet
    window.add(socket.path->window);
}

namespace {

class SocketsSource final : public Source {
public:
    SocketsSource(const Roots& roots, const Io& io, const SourceSettings& settings, const NetlinkIo& netlink)
        : sockstat_(io, roots.proc + "/net/sockstat", "proc/net/sockstat"),
          sockstat6_(io, roots.proc + "/net/sockstat6", "proc/net/sockstat6"),
          diag_(netlink, NETLINK_SOCK_DIAG, "sock_diag", kTimeLimit),
          live_(roots.live()),
          tcp_info_(settings.options.at(kTcpInfo) != 0),
          max_sockets_(settings.options.at(kMaxSockets)) {
        const long page = sysconf(_SC_PAGESIZE);
        if (page > 0) page_bytes_ = static_cast<double>(page);
    }

    [[nodiscard]] Result<bool> open() { return sockstat_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = sockstat_.read();
        if (!text) return text.error();
        if (text.value().empty()) return Error{Errc::truncated, 0, "proc/net/sockstat: expected lines, found none"};
        in_use_.fill(0);
        emit_sockstat(*text, emit, report);
        const auto text6 = sockstat6_.read();
        if (text6) {
            emit_sockstat(*text6, emit, report);
        } else if (text6.error().code != Errc::unavailable) {
            ++report.malformed;
        }
        if (!live_) return report;
        if (const auto listed = list_tcp(emit, report); !listed) return listed.error();
        list_unix(emit, report);
        return report;
    }

private:
    static constexpr Nanos kTimeLimit = kSecond;

    void emit_sockstat(std::string_view text, Emit& emit, PollReport& report) {
        SockstatWalk walk(text);
        SocketNumber number;
        std::uint32_t seen = 0;
        static_assert(kSockstatSeries <= 32);
        while (walk.next(number)) {
            for (std::size_t i = 0; i < kSockstatSeries; ++i) {
                const SockstatSeries& row = kSockstat[i];
                if (row.key != number.key || row.family != number.family) continue;
                if ((seen >> i & 1) != 0) {
                    ++report.malformed;  // said twice: the first stands
                    break;
                }
                seen |= 1U << i;
                if (i == kTcpInUse) in_use_[0] = number.value;
                if (i == kTcp6InUse) in_use_[1] = number.value;
                const double scale = row.scale == Scale::page ? page_bytes_ : 1.0;
                sockstat_series_[i].emit(emit, report, static_cast<double>(number.value) * scale, [&] {
                    return SeriesInfo{row.name, row.unit, Kind::gauge, row.attributes};
                });
                break;
            }
        }
        report.malformed += walk.malformed();
    }

    [[nodiscard]] Result<bool> list_tcp(Emit& emit, PollReport& report) {
        if (absent_.code != Errc::ok) return absent_;
        if (static_cast<double>(in_use_[0]) + static_cast<double>(in_use_[1]) > max_sockets_) return too_many();
        TcpRequest request;
        request.header.nlmsg_type = TCPDIAG_GETSOCK;
        request.body.idiag_family = AF_INET;  // of the handler; sockets of both families are listed
        request.body.idiag_states = kStatesOfDump;
        if (tcp_info_) request.body.idiag_ext = 1U << (INET_DIAG_INFO - 1);
        sums_.clear();
        bool enough = false;
        const auto answer = diag_.ask(request, NLM_F_DUMP, [&](const NetlinkMessage& message) {
            if (message.type != TCPDIAG_GETSOCK) return true;
            const auto socket = parse_tcp_socket(message.payload);
            if (socket) {
                sums_.add(*socket);
            } else {
                ++report.malformed;
            }
            enough = sums_.sockets > kOvershoot * max_sockets_;  // sockstat had said less
            return !enough;
        });
        if (enough) return too_many();
        if (!answer) {
            if (answer.error().code == Errc::unavailable) absent_ = answer.error();
            return answer.error();
        }
        report.malformed += answer.value().malformed;
        emit_tcp(emit, report);
        if (tcp_info_) emit_paths(emit, report);
        return true;
    }

    static constexpr double kOvershoot = 1.25;
    static Error too_many() {
        return {Errc::limit, 0, "sock_diag: expected at most `max_sockets` TCP sockets; they are not listed"};
    }

    static void emit_gauge(SeriesSlot& slot, double value, const char* name, const char* unit, Emit& emit,
                           PollReport& report) {
        slot.emit(emit, report, value, [&] { return SeriesInfo{name, unit, Kind::gauge, ""}; });
    }

    static void emit_count(SeriesSlot& slot, std::uint32_t count, const char* state, const char* transport, Emit& emit,
                           PollReport& report) {
        slot.emit(emit, report, count, [&] {
            return SeriesInfo{"system.network.connection.count", "{connection}", Kind::gauge,
                              std::string("network.connection.state=") + state + ",network.transport=" + transport};
        });
    }

    void emit_tcp(Emit& emit, PollReport& report) {
        for (std::size_t state = 1; state < kTcpStates; ++state) {
            if ((kStatesOfDump >> state & 1) == 0) continue;
            emit_count(states_[state], sums_.states[state], kStateNames[state], "tcp", emit, report);
        }
        const auto gauge = [&](std::size_t slot, double value, const char* name, const char* unit) {
            emit_gauge(tcp_[slot], value, name, unit, emit, report);
        };
        gauge(0, static_cast<double>(sums_.receive_queue), "system.network.tcp.receive_queue", "By");
        gauge(1, static_cast<double>(sums_.send_queue), "system.network.tcp.send_queue", "By");
        gauge(2, static_cast<double>(sums_.accept_queue), "system.network.tcp.accept_queue", "{connection}");
        gauge(3, sums_.accept_queue_utilization, "system.network.tcp.accept_queue.utilization", "1");
        gauge(4, sums_.retransmitting, "system.network.tcp.retransmitting", "{connection}");
        gauge(5, sums_.probing, "system.network.tcp.probing", "{connection}");
        if (!tcp_info_) return;
        gauge(6, static_cast<double>(sums_.unacked), "system.network.tcp.unacked", "{segment}");
        gauge(7, static_cast<double>(sums_.lost), "system.network.tcp.lost", "{segment}");
    }

    void emit_paths(Emit& emit, PollReport& report) {
        constexpr double kMicro = 1e-6;
        constexpr struct {
            double share;
            const char* rtt;
            const char* window;
        } kQuantiles[] = {{0.5, "system.network.tcp.rtt.p50", "system.network.tcp.congestion_window.p50"},
                          {0.9, "system.network.tcp.rtt.p90", "system.network.tcp.congestion_window.p90"},
                          {0.99, "system.network.tcp.rtt.p99", "system.network.tcp.congestion_window.p99"},
                          {1.0, "system.network.tcp.rtt.max", "system.network.tcp.congestion_window.max"}};
        static_assert(2 * std::size(kQuantiles) == kPathSeries);
        for (std::size_t i = 0; i < std::size(kQuantiles); ++i) {
            const auto& q = kQuantiles[i];
            if (sums_.rtt_us.total() > 0) {
                emit_gauge(paths_[i], sums_.rtt_us.quantile(q.share) * kMicro, q.rtt, "s", emit, report);
            }
            if (sums_.window.total() > 0) {
                emit_gauge(paths_[i + kPathSeries / 2], sums_.window.quantile(q.share), q.window, "{segment}", emit,
                           report);
            }
        }
    }

    // Optional: a kernel without unix_diag has one gap more and is not asked again.
    void list_unix(Emit& emit, PollReport& report) {
        if (unix_absent_) return;
        UnixRequest request;
        request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
        request.body.sdiag_family = AF_UNIX;
        request.body.udiag_states = ~0U;
        std::array<std::uint32_t, kTcpStates> counts{};
        double listed = 0;
        const auto answer = diag_.ask(request, NLM_F_DUMP, [&](const NetlinkMessage& message) {
            if (message.type != SOCK_DIAG_BY_FAMILY) return true;
            const auto state = parse_unix_socket(message.payload);
            if (state) {
                ++counts[*state];
            } else {
                ++report.malformed;
            }
            return ++listed <= max_sockets_;
        });
        if (!answer) {
            unix_absent_ = answer.error().code == Errc::unavailable;
            if (!unix_absent_) ++report.malformed;
            return;
        }
        report.malformed += answer.value().malformed;
        for (std::size_t i = 0; i < std::size(kUnixStates); ++i) {
            const std::uint8_t state = kUnixStates[i];
            emit_count(unix_[i], counts[state], kStateNames[state], "unix", emit, report);
        }
    }

    static constexpr std::size_t kPathSeries = 8;

    KernelFile sockstat_;
    KernelFile sockstat6_;
    NetlinkSocket diag_;
    bool live_;
    bool tcp_info_;
    double max_sockets_;
    double page_bytes_ = 4096;
    bool unix_absent_ = false;
    Error absent_;  // Errc::ok = not known to be
    std::array<std::uint64_t, 2> in_use_{};
    TcpSums sums_;
    std::array<SeriesSlot, kSockstatSeries> sockstat_series_;
    std::array<SeriesSlot, kTcpStates> states_;
    std::array<SeriesSlot, 8> tcp_;
    std::array<SeriesSlot, kPathSeries> paths_;
    std::array<SeriesSlot, std::size(kUnixStates)> unix_;
};

Result<std::unique_ptr<Source>> open_sockets(const Roots& roots, const Io& io, const SourceSettings& settings) {
    return make_sockets(roots, io, settings, system_netlink());
}

}  // namespace

Result<std::unique_ptr<Source>> make_sockets(const Roots& roots, const Io& io, const SourceSettings& settings,
                                             const NetlinkIo& netlink) {
    auto source = std::make_unique<SocketsSource>(roots, io, settings, netlink);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

extern const SourceDescriptor sockets_source;
const SourceDescriptor sockets_source{
    "sockets",
    "Connections by state, queues and memory of sockets, from sock_diag and /proc/net/sockstat.",
    "a mounted /proc with /proc/net/sockstat (CONFIG_NET); connections by state: Linux >= 3.3 with CONFIG_INET_DIAG",
    "mount procfs; for connections by state load tcp_diag, or raise `max_sockets` when there are more",
    10'000,
    Lane::slow,
    open_sockets,
    kOptions,
};

}  // namespace argus::sources
