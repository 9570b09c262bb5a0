// Packets that the network's soft interrupts took from the drivers, dropped, or left for later, by processor.
// Source: /proc/net/softnet_stat; kernel net/core/net-procfs.c. A line for each online processor: the 13th word is its
//         number (Linux >= 5.10); before, the lines follow /sys/devices/system/cpu/online.
// Emits:  by cpu.logical_number: system.network.softnet.processed, .dropped, .received_rps, .flow_limited C {packet},
//         .squeezed C {event} (the budget or the time of one round ran out), .backlog G {packet}. 32-bit counters.
// Cost:   bench_sources source_poll/softnet: one pread.
// Failure: absent file: Errc::unavailable. A processor that goes offline closes its series. Without numbers and with
//         another count of lines than of online processors nobody knows whose a line is: Errc::malformed.
#include "sources/softnet.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "sources/cpu.hpp"
#include "sources/cpufreq.hpp"
#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMinWords = 9;
constexpr std::size_t kMaxWords = 32;
constexpr std::size_t kCounterWords[kSoftnetCounters] = {0, 1, 2, 9, 10};
constexpr std::size_t kBacklogWord = 11;
constexpr std::size_t kCpuWord = 12;

struct SoftnetSeries {
    const char* name;
    const char* unit;
};
constexpr SoftnetSeries kSeries[kSoftnetCounters] = {
    {"system.network.softnet.processed", "{packet}"},    {"system.network.softnet.dropped", "{packet}"},
    {"system.network.softnet.squeezed", "{event}"},      {"system.network.softnet.received_rps", "{packet}"},
    {"system.network.softnet.flow_limited", "{packet}"},
};

}  // namespace

Result<SoftnetLine> parse_softnet(std::string_view line) {
    std::array<std::uint64_t, kMaxWords> words{};
    std::size_t count = 0;
    Scanner scanner(line);
    for (std::string_view word = scanner.word(); !word.empty(); word = scanner.word()) {
        if (count == kMaxWords || !parse_hexadecimal(word, words[count])) {
            return Error{Errc::malformed, 0, "proc/net/softnet_stat: expected 9 to 32 hexadecimal words"};
        }
        ++count;
    }
    if (count < kMinWords) {
        return Error{Errc::malformed, 0, "proc/net/softnet_stat: expected 9 to 32 hexadecimal words"};
    }
    SoftnetLine out;
    while (out.counters < kSoftnetCounters && kCounterWords[out.counters] < count) {
        out.values[out.counters] = words[kCounterWords[out.counters]];
        ++out.counters;
    }
    if (count > kCpuWord) {
        if (words[kCpuWord] >= static_cast<std::uint64_t>(kMaxCpus)) {
            return Error{Errc::malformed, 0, "proc/net/softnet_stat: expected the number of a processor"};
        }
        out.backlog = words[kBacklogWord];
        out.cpu = static_cast<std::uint32_t>(words[kCpuWord]);
    }
    return out;
}

namespace {

class SoftnetSource final : public Source {
public:
    SoftnetSource(const Roots& roots, const Io& io)
        : softnet_(io, roots.proc + "/net/softnet_stat", "proc/net/softnet_stat"),
          online_(io, roots.sys + "/devices/system/cpu/online", "sys/devices/system/cpu/online") {}

    [[nodiscard]] Result<bool> open() { return softnet_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = softnet_.read();
        if (!text) return text.error();
        if (text.value().empty()) return Error{Errc::truncated, 0, "proc/net/softnet_stat: expected lines, found none"};
        lines_.clear();
        Scanner scanner(*text);
        std::string_view line;
        while (scanner.line(line)) {
            const auto parsed = parse_softnet(line);
            if (parsed && lines_.size() < static_cast<std::size_t>(kMaxCpus)) {
                lines_.push_back(*parsed);
            } else {
                ++report.malformed;
            }
        }
        if (!scanner.done()) ++report.malformed;
        const bool whole = report.malformed == 0;
        if (!number_lines(whole)) {
            return Error{Errc::malformed, 0, "proc/net/softnet_stat: expected a line for each online processor"};
        }
        ++polls_;
        for (const SoftnetLine& parsed : lines_) emit_line(parsed, emit, report);
        if (!whole) return report;
        for (Processor& processor : processors_) {
            if (processor.seen != polls_) close(processor, emit);
        }
        return report;
    }

private:
    struct Processor {
        std::array<SeriesSlot, kSoftnetCounters> counters;
        SeriesSlot backlog;
        std::uint64_t seen = 0;
    };

    // Lines without a number are the online processors in their order, if there is one for each.
    bool number_lines(bool whole) {
        const bool numbered = std::all_of(lines_.begin(), lines_.end(), [](const auto& line) { return line.cpu; });
        if (numbered) return true;
        const auto text = online_.read();
        const bool known = text && parse_cpu_list(*text, cpus_);
        if (!whole || (known && cpus_.size() != lines_.size())) return false;
        for (std::size_t i = 0; i < lines_.size(); ++i) {
            if (lines_[i].cpu) return false;
            lines_[i].cpu = known ? static_cast<std::uint32_t>(cpus_[i]) : static_cast<std::uint32_t>(i);
        }
        return true;
    }

    void emit_line(const SoftnetLine& line, Emit& emit, PollReport& report) {
        const std::uint32_t cpu = *line.cpu;
        if (cpu >= processors_.size()) processors_.resize(cpu + 1);
        Processor& processor = processors_[cpu];
        if (processor.seen == polls_) {
            ++report.malformed;
            return;
        }
        processor.seen = polls_;
        const auto attributes = [&] { return "cpu.logical_number=" + std::to_string(cpu); };
        for (std::size_t i = 0; i < line.counters; ++i) {
            processor.counters[i].emit(emit, report, static_cast<double>(line.values[i]), [&] {
                return SeriesInfo{kSeries[i].name, kSeries[i].unit, Kind::counter, attributes()};
            });
        }
        if (!line.backlog) return;
        processor.backlog.emit(emit, report, static_cast<double>(*line.backlog), [&] {
            return SeriesInfo{"system.network.softnet.backlog", "{packet}", Kind::gauge, attributes()};
        });
    }

    static void close(Processor& processor, Emit& emit) {
        for (SeriesSlot& series : processor.counters) series.close(emit);
        processor.backlog.close(emit);
    }

    KernelFile softnet_;
    KernelFile online_;
    std::vector<SoftnetLine> lines_;
    std::vector<std::int32_t> cpus_;
    std::vector<Processor> processors_;  // by number
    std::uint64_t polls_ = 0;
};

Result<std::unique_ptr<Source>> open_softnet(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<SoftnetSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor softnet_source;
const SourceDescriptor softnet_source{
    "softnet",
    "Packets processed, dropped and put off by the network's soft interrupts on each processor.",
    "a mounted /proc with /proc/net/softnet_stat (CONFIG_NET)",
    "mount procfs, or point `proc` at the host's",
    1000,
    Lane::fast,
    open_softnet,
};

}  // namespace argus::sources
