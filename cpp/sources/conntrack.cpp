// Connection tracking of netfilter: how full its table is and what it could not do.
// Source: /proc/sys/net/netfilter/nf_conntrack_{count,max} (kernel Documentation/networking/nf_conntrack-sysctl.rst)
//         and /proc/net/stat/nf_conntrack (net/netfilter/nf_conntrack_standalone.c), summed over the processors.
// Emits:  gauges system.network.conntrack.count, .limit {connection}, .utilization 1; counters
//         system.network.conntrack.<column> {event} for each column but `entries`: insert_failed, drop, early_drop,
//         invalid, search_restart, ... Numbers of 32 bits a processor.
// Cost:   bench_sources source_poll/conntrack: two sysctls, each dearer than a file of /proc/net, and one pread. A
//         table fills over minutes, hence the slow lane.
// Failure: without the module there are no such files: Errc::unavailable. Where one processor's line cannot be read no
//         sum is emitted: it would fall short.
#include "sources/conntrack.hpp"

#include <algorithm>
#include <string>

#include "sources/kernel_file.hpp"
#include "sources/number_file.hpp"
#include "sources/protocol_counters.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

bool add_line(std::string_view line, ConntrackStat& out) noexcept {
    std::array<std::uint64_t, kMaxConntrackColumns> numbers{};
    Scanner scanner(line);
    for (std::size_t i = 0; i < out.columns; ++i) {
        if (!parse_hexadecimal(scanner.word(), numbers[i])) return false;
    }
    if (!scanner.word().empty()) return false;
    for (std::size_t i = 0; i < out.columns; ++i) out.sums[i] += numbers[i];
    return true;
}

}  // namespace

Result<bool> parse_conntrack(std::string_view text, ConntrackStat& out) {
    out = {};
    Scanner scanner(text);
    std::string_view line;
    if (!scanner.line(line)) {
        return Error{Errc::truncated, 0, "proc/net/stat/nf_conntrack: expected a line of names"};
    }
    Scanner names(line);
    for (std::string_view name = names.word(); !name.empty(); name = names.word()) {
        if (out.columns == kMaxConntrackColumns || !is_protocol_key(name)) {
            return Error{Errc::malformed, 0, "proc/net/stat/nf_conntrack: expected at most 32 names"};
        }
        const auto end = out.names.begin() + static_cast<std::ptrdiff_t>(out.columns);
        if (std::find(out.names.begin(), end, name) != end) {
            return Error{Errc::malformed, 0, "proc/net/stat/nf_conntrack: expected each name once"};
        }
        out.names[out.columns++] = name;
    }
    if (out.columns == 0) return Error{Errc::malformed, 0, "proc/net/stat/nf_conntrack: expected names, found none"};
    bool any = false;
    while (scanner.line(line)) {
        if (add_line(line, out)) {
            any = true;
        } else {
            ++out.malformed;
        }
    }
    if (!scanner.done()) ++out.malformed;
    if (!any && out.malformed == 0) {
        return Error{Errc::truncated, 0, "proc/net/stat/nf_conntrack: expected a line for each processor"};
    }
    return true;
}

namespace {

class ConntrackSource final : public Source {
public:
    ConntrackSource(const Roots& roots, const Io& io)
        : count_(io, roots.proc + "/sys/net/netfilter/nf_conntrack_count", "proc/sys/net/netfilter/nf_conntrack_count"),
          max_(io, roots.proc + "/sys/net/netfilter/nf_conntrack_max", "proc/sys/net/netfilter/nf_conntrack_max"),
          stat_(io, roots.proc + "/net/stat/nf_conntrack", "proc/net/stat/nf_conntrack") {}

    [[nodiscard]] Result<bool> open() { return count_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = count_.read();
        if (!text) return text.error();
        const auto count = parse_number_line(*text);
        if (!count) {
            return Error{Errc::malformed, 0, "proc/sys/net/netfilter/nf_conntrack_count: expected an unsigned number"};
        }
        emit_gauge(0, static_cast<double>(*count), "system.network.conntrack.count", "{connection}", emit, report);
        emit_limit(static_cast<double>(*count), emit, report);
        emit_stat(emit, report);
        return report;
    }

private:
    void emit_gauge(std::size_t slot, double value, const char* name, const char* unit, Emit& emit,
                    PollReport& report) {
        gauges_[slot].emit(emit, report, value, [&] { return SeriesInfo{name, unit, Kind::gauge, ""}; });
    }

    void emit_limit(double count, Emit& emit, PollReport& report) {
        const auto text = max_.read();
        if (!text) {
            if (text.error().code != Errc::unavailable) ++report.malformed;
            return;
        }
        const auto limit = parse_number_line(*text);
        if (!limit) {
            ++report.malformed;
            return;
        }
        if (*limit == 0) return;  // 0 = no limit
        emit_gauge(1, static_cast<double>(*limit), "system.network.conntrack.limit", "{connection}", emit, report);
        emit_gauge(2, count / static_cast<double>(*limit), "system.network.conntrack.utilization", "1", emit, report);
    }

    void emit_stat(Emit& emit, PollReport& report) {
        const auto text = stat_.read();
        if (!text) {
            if (text.error().code != Errc::unavailable) ++report.malformed;
            return;
        }
        if (!parse_conntrack(*text, parsed_) || parsed_.malformed > 0) {
            report.malformed += std::max<std::uint32_t>(1, parsed_.malformed);
            return;
        }
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (columns_[i].name == parsed_.names[i]) continue;
            columns_[i].series.close(emit);
            columns_[i].name = parsed_.names[i];
        }
        for (std::size_t i = 0; i < parsed_.columns; ++i) {
            if (parsed_.names[i] == "entries") continue;  // of the whole table, said on each line; `count` has it
            Column& column = columns_[i];
            column.series.emit(emit, report, static_cast<double>(parsed_.sums[i]), [&] {
                return SeriesInfo{"system.network.conntrack." + column.name, "{event}", Kind::counter, ""};
            });
        }
    }

    struct Column {
        std::string name;
        SeriesSlot series;
    };

    KernelFile count_;
    KernelFile max_;
    KernelFile stat_;
    ConntrackStat parsed_;
    std::array<SeriesSlot, 3> gauges_;
    std::array<Column, kMaxConntrackColumns> columns_;
};

Result<std::unique_ptr<Source>> open_conntrack(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<ConntrackSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor conntrack_source;
const SourceDescriptor conntrack_source{
    "conntrack",
    "How full netfilter's table of tracked connections is, and what it dropped, from /proc/sys/net/netfilter.",
    "the nf_conntrack module with /proc/sys/net/netfilter (CONFIG_NF_CONNTRACK)",
    "load nf_conntrack where a firewall or NAT should track connections; without it there is nothing to see",
    10'000,
    Lane::slow,
    open_conntrack,
};

}  // namespace argus::sources
