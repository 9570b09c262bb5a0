// Parsers and sums of the sockets source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/result.hpp"
#include "sources/netlink.hpp"
#include "sources/source.hpp"

namespace argus::sources {

// One number of /proc/net/sockstat or sockstat6: "TCP: inuse 1 ... tw 0" is {TCP, inuse, 1} ... {TCP, tw, 0}.
struct SocketNumber {
    std::string_view family;
    std::string_view key;
    std::uint64_t value = 0;
};

class SockstatWalk {
public:
    explicit SockstatWalk(std::string_view text) noexcept : text_(text) {}

    [[nodiscard]] bool next(SocketNumber& out) noexcept;
    [[nodiscard]] std::uint32_t malformed() const noexcept { return malformed_; }  // lines, at the end of the walk

private:
    std::string_view text_;
    std::string_view family_;
    std::string_view line_;
    std::uint32_t malformed_ = 0;
};

inline constexpr std::size_t kTcpStates = 12;  // TCP_ESTABLISHED (1) to TCP_CLOSING (11); 0 is none

// What sock_diag says of a TCP socket.
struct TcpSocket {
    std::uint8_t state = 0;        // 1 to 11
    bool retransmitting = false;   // its retransmission timer runs for segments sent again
    bool probing = false;          // the peer's window is shut
    std::uint32_t receive_queue = 0;  // bytes not read; of a listener: connections not accepted
    std::uint32_t send_queue = 0;     // bytes not acknowledged; of a listener: the limit of its queue
    struct Path {
        std::uint32_t rtt_us = 0;
        std::uint32_t window = 0;     // congestion window, segments
        std::uint32_t unacked = 0;    // segments
        std::uint32_t lost = 0;       // segments
    };
    std::optional<Path> path;      // of tcp_info, where it was asked for
};

[[nodiscard]] Result<TcpSocket> parse_tcp_socket(Bytes payload);

// The state of a unix socket: established (1), closed (7: not connected) or listen (10).
[[nodiscard]] Result<std::uint8_t> parse_unix_socket(Bytes payload);

// Quantiles of many numbers in fixed memory: eight buckets a power of two, so a quantile is off by 1/16 at most.
class LogHistogram {
public:
    void clear() noexcept { counts_.fill(0); total_ = 0; }
    void add(std::uint32_t value) noexcept;
    [[nodiscard]] std::uint32_t total() const noexcept { return total_; }
    [[nodiscard]] double quantile(double share) const noexcept;  // the middle of the bucket; of nothing: NaN

private:
    std::array<std::uint32_t, 248> counts_{};
    std::uint32_t total_ = 0;
};

// Sums over the sockets of one dump.
struct TcpSums {
    std::array<std::uint32_t, kTcpStates> states{};
    std::uint64_t receive_queue = 0, send_queue = 0;  // bytes, not of listeners
    std::uint64_t accept_queue = 0;                   // connections that wait at listeners
    double accept_queue_utilization = 0;              // of the fullest listener
    std::uint32_t retransmitting = 0, probing = 0;
    std::uint64_t unacked = 0, lost = 0;              // segments
    LogHistogram rtt_us, window;                      // of established connections
    std::uint32_t sockets = 0;

    void clear() noexcept;
    void add(const TcpSocket& socket) noexcept;
};

// The source with netlink of the caller's choice; asked only when the roots are live.
[[nodiscard]] Result<std::unique_ptr<Source>> make_sockets(const Roots& roots, const Io& io,
                                                           const SourceSettings& settings, const NetlinkIo& netlink);

}  // namespace argus::sources
