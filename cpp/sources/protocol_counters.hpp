// The counters of the kernel's protocol tables under one systematic name each, so that no table of names is needed:
//
//     system.network.<group>.<counter>
//
// <group> is the prefix of the kernel's line in lower case, without a trailing Ext or Msg: Tcp and TcpExt are tcp,
// IpExt is ip, MPTcpExt is mptcp, Ip6 of snmp6 is ip6. <counter> is the kernel's name in snake case, without the
// group's name before it: RetransSegs is retrans_segs, TCPTimeouts is timeouts, ListenDrops is listen_drops,
// TCPMD5NotFound is md5_not_found, FragOKs is frag_oks. The unit follows from the name's end: Octets By; Segs
// {segment}; Pkts {packet}; Datagrams {datagram}; Errors, Errs {error}; Estab {connection}; Chrono and the
// retransmission limits s, from ms; else {event}. All count, but Forwarding, DefaultTTL, RtoAlgorithm, RtoMin, RtoMax,
// MaxConn and the CurrEstab, which are levels. A negative level means that there is none (MaxConn -1) and is not
// emitted.
//
// Source: kernel net/ipv4/proc.c, net/ipv6/proc.c, net/mptcp/mib.c, Documentation/networking/snmp_counter.rst.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sources/series_slot.hpp"
#include "sources/source.hpp"

namespace argus::sources {

inline constexpr std::size_t kMaxProtocolKeyBytes = 64;
inline constexpr std::size_t kMaxProtocolCounters = 2048;  // of one file; Linux 6.18 has 300 in its longest

struct ProtocolCounter {
    SeriesInfo info;
    double scale = 1;  // from what the file holds to the unit
};

// `group` and `key` as the file has them: letters and digits. What the naming rule makes of them.
[[nodiscard]] ProtocolCounter describe_protocol_counter(std::string_view group, std::string_view key);

// Letters, digits and underscores, 1 to kMaxProtocolKeyBytes of them, a letter first.
[[nodiscard]] bool is_protocol_key(std::string_view text) noexcept;

// "Ip6InReceives" -> "Ip6", "InReceives"; false for a key without a family.
[[nodiscard]] bool split_snmp6_key(std::string_view key, std::string_view& group, std::string_view& rest) noexcept;

// Two lines of /proc/net/{snmp,netstat}: the names and the numbers of one group.
struct ProtocolPair {
    std::string_view group;
    std::string_view header;  // the whole first line: the same text means the same layout
    std::string_view names;
    std::string_view numbers;
};

// Finds the next pair in the rest of `text`; a line that is no half of a pair is skipped and counted.
[[nodiscard]] bool next_pair(std::string_view& text, ProtocolPair& out, std::uint32_t& malformed) noexcept;

// The series of one file. A counter opens when it first appears and closes when a whole, well-formed file lacks it.
class ProtocolTable {
public:
    // A file of pairs. A pair of unequal counts is skipped whole: nobody knows which number is whose.
    void emit_pairs(std::string_view text, Emit& emit, PollReport& report);
    // A file of `key number` lines.
    void emit_lines(std::string_view text, Emit& emit, PollReport& report);

private:
    struct Counter {
        std::string group, key;  // as the file has them
        std::string name;        // of the series
        double scale = 1;
        Kind kind = Kind::counter;
        std::uint64_t seen = 0;
        SeriesSlot series;
    };
    struct Layout {
        std::string header;
        std::vector<std::int32_t> columns;  // into counters_; -1 = not a counter's name
    };
    struct Number {
        std::uint64_t value = 0;
        bool negative = false;
        bool good = false;
    };

    void lay_out(const ProtocolPair& pair, Layout& layout);
    [[nodiscard]] bool read_numbers(std::string_view text, std::size_t expected);
    [[nodiscard]] std::int32_t find_or_add(std::string_view group, std::string_view key);
    void emit_counter(std::int32_t index, const Number& number, Emit& emit, PollReport& report);
    void close_absent(Emit& emit, const PollReport& report, std::uint32_t malformed_before);

    std::vector<Counter> counters_;
    std::vector<Layout> layouts_;   // by position in the file
    std::vector<Number> numbers_;
    std::uint64_t polls_ = 0;
};

}  // namespace argus::sources
