// Parsers of the network source, pure, for tests and fuzzers.
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

inline constexpr std::size_t kLinkCounters = 16;
inline constexpr std::size_t kLinkNameBytes = 64;  // IFNAMSIZ is 16; more than that is another file

using LinkValues = std::array<std::uint64_t, kLinkCounters>;  // in the order of the columns of /proc/net/dev

struct LinkCounters {
    std::string_view name;  // raw bytes, into the parsed text
    LinkValues values{};
};

// One data line of /proc/net/dev. The name ends at the LAST colon, so "eth0:123" (glued) and "eth0:1: 123" (alias)
// work.
[[nodiscard]] Result<LinkCounters> parse_link(std::string_view line);

// The text after the two title lines; empty when there are none.
[[nodiscard]] std::string_view skip_titles(std::string_view text) noexcept;

struct LinkNotice {
    std::int32_t index = 0;     // > 0
    std::string_view name;      // raw bytes, into the parsed payload
    std::optional<bool> up;     // RFC 2863: up, or unknown as loopback is
};

// RTM_NEWLINK: which interface this is.
[[nodiscard]] Result<LinkNotice> parse_link_notice(Bytes payload);

struct LinkStatistics {
    std::int32_t index = 0;
    LinkValues values{};
};

// RTM_NEWSTATS with IFLA_STATS_LINK_64, summed into columns as /proc/net/dev sums them.
[[nodiscard]] Result<LinkStatistics> parse_link_statistics(Bytes payload);

// "up" and "unknown" of /sys/class/net/X/operstate are up; nothing for words that RFC 2863 does not have.
[[nodiscard]] std::optional<bool> parse_operstate(std::string_view text) noexcept;

// Bytes per second from /sys/class/net/X/speed (Mbit/s); nothing when the driver does not know (-1, 0, 4294967295).
[[nodiscard]] std::optional<double> parse_link_speed(std::string_view text) noexcept;

// The source with netlink of the caller's choice; asked only when the roots are live.
[[nodiscard]] Result<std::unique_ptr<Source>> make_network(const Roots& roots, const Io& io, const NetlinkIo& netlink);

}  // namespace argus::sources
