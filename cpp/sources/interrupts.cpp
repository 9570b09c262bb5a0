// Interrupts of each line over all processors, and the received-packet softirqs of each processor.
// Source: /proc/interrupts, /proc/softirqs; kernel Documentation/filesystems/proc.rst 1.8 and kernel/irq/proc.c.
// Emits:  system.interrupts {interrupt.device, interrupt.name}: the sum of a line's columns; names are numbers, or
//         words for the architecture's own (LOC, RES, NMI, ERR, MIS). system.cpu.softirqs {cpu.logical_number,
//         softirq.type=net_rx} of each processor that is online: packets piling up on one show nowhere else. Raw
//         counters; the kernel's are 32-bit and wrap, and a processor taken offline takes its share away, which the
//         rates handle.
// Cost:   text grows with lines times processors (44 us for 36 x 2), so this is in the slow lane; at most 16 MiB are
//         read. At most 1,024 numbered and 256 named lines and 1,024 processors have series.
// Failure: absent /proc/interrupts: Errc::unavailable; absent softirqs: their series are missing. A line that goes
//         away, or is given to another device, closes its series.
#include "sources/interrupts.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <string>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kCapBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxNumbered = 1024;
constexpr std::size_t kMaxNamed = 256;
constexpr std::int32_t kMaxSoftirqCpus = 1024;

bool numbered(std::string_view name) noexcept { return name.front() >= '0' && name.front() <= '9'; }

// What follows the numbers: "IO-APIC   4-edge      ttyS0". The kernel puts two blanks before the device, and pads what
// stands before it with blanks that are there at the end of a line without one.
std::string_view device_of(std::string_view rest) noexcept {
    if (rest.empty() || rest.back() == ' ') return {};
    const std::size_t gap = rest.rfind("  ");
    if (gap == std::string_view::npos) return {};
    const std::size_t chip = rest.find_first_not_of(' ');
    return chip == std::string_view::npos || chip > gap ? std::string_view{} : rest.substr(gap + 2);
}

}  // namespace

bool parse_cpu_titles(std::string_view line, std::vector<std::int32_t>& out) {
    out.clear();
    Scanner scanner(line);
    for (std::string_view word = scanner.word(); !word.empty(); word = scanner.word()) {
        std::uint64_t number = 0;
        if (!word.starts_with("CPU") || out.size() >= static_cast<std::size_t>(kMaxIrqCpus)) return false;
        Scanner digits(word.substr(3));
        if (!digits.number(number) || number >= kMaxIrqCpus) return false;
        out.push_back(static_cast<std::int32_t>(number));
    }
    return !out.empty();
}

bool parse_irq_line(std::string_view line, std::size_t cpus, IrqLine& out) noexcept {
    out = {};
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return false;
    Scanner label(line.substr(0, colon));
    out.name = label.word();
    label.skip_blanks();
    if (out.name.empty() || out.name.size() > kIrqNameBytes || !label.done()) return false;
    Scanner fields(line.substr(colon + 1));
    std::size_t columns = 0;
    std::string_view rest;
    for (; columns < cpus; ++columns) {
        rest = fields.rest();
        std::uint64_t value = 0;
        if (!fields.number(value)) break;
        const bool room = value <= std::numeric_limits<std::uint64_t>::max() - out.total;
        out.total = room ? out.total + value : std::numeric_limits<std::uint64_t>::max();
    }
    if (columns == cpus) {
        rest = fields.rest();
    } else {
        if (numbered(out.name)) return false;
        Scanner words(rest);
        const std::string_view next = words.word();
        const bool wordy = !next.empty() && next[0] != '-' && !numbered(next);
        if (columns == 0 && wordy) return true;
        if (columns != 1 || !next.empty()) return false;
    }
    out.counts = true;
    if (numbered(out.name)) out.device = device_of(rest).substr(0, kIrqDeviceBytes);
    return true;
}

namespace {

class InterruptsSource final : public Source {
public:
    InterruptsSource(const Roots& roots, const Io& io)
        : interrupts_(io, roots.proc + "/interrupts", "proc/interrupts", kCapBytes),
          softirqs_(io, roots.proc + "/softirqs", "proc/softirqs", kCapBytes) {}

    [[nodiscard]] Result<bool> open() { return interrupts_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = interrupts_.read();
        if (!text) return text.error();
        Scanner scanner(*text);
        std::string_view line;
        if (!scanner.line(line)) return Error{Errc::truncated, 0, "proc/interrupts: expected a title line"};
        if (!parse_cpu_titles(line, online_)) {
            return Error{Errc::malformed, 0, "proc/interrupts: expected 'CPU0 CPU1 ...' in the title line"};
        }
        ++polls_;
        cursor_ = 0;
        while (scanner.line(line)) {
            IrqLine parsed;
            if (!parse_irq_line(line, online_.size(), parsed)) {
                ++report.malformed;
            } else if (parsed.counts) {
                emit_line(parsed, emit, report);
            }
        }
        if (scanner.done()) {
            close_vanished(emit);
        } else {
            ++report.malformed;  // cut: what followed is unknown, so nothing is closed
        }
        emit_softirqs(emit, report);
        return report;
    }

private:
    struct Irq {
        std::string name;
        std::string device;
        SeriesSlot series;
        std::uint64_t seen = 0;  // the poll that last saw it
    };
    struct CpuSeries {
        SeriesSlot received;
        std::uint64_t seen = 0;
    };

    // Lines keep their order, so the search goes on where it stopped. nullptr = seen in this poll already, or more
    // lines than Argus follows.
    Irq* find(std::string_view name, PollReport& report) {
        for (std::size_t step = 0; step < irqs_.size(); ++step) {
            const std::size_t at = (cursor_ + step) % irqs_.size();
            if (irqs_[at].name != name) continue;
            cursor_ = at + 1;
            if (irqs_[at].seen != polls_) return &irqs_[at];
            ++report.malformed;
            return nullptr;
        }
        std::size_t& count = numbered(name) ? numbered_ : named_;
        if (count >= (numbered(name) ? kMaxNumbered : kMaxNamed)) return nullptr;
        ++count;
        cursor_ = irqs_.size() + 1;
        Irq& fresh = irqs_.emplace_back();
        fresh.name = name;
        return &fresh;
    }

    void emit_line(const IrqLine& line, Emit& emit, PollReport& report) {
        Irq* irq = find(line.name, report);
        if (irq == nullptr) return;
        irq->seen = polls_;
        if (irq->device != line.device) {
            irq->series.close(emit);
            irq->device = line.device;
        }
        irq->series.emit(emit, report, static_cast<double>(line.total), [&] {
            std::string attributes;
            if (!line.device.empty()) attributes = "interrupt.device=" + attribute_value(line.device) + ",";
            attributes += "interrupt.name=" + attribute_value(line.name);
            return SeriesInfo{"system.interrupts", "{interrupt}", Kind::counter, attributes};
        });
    }

    void close_vanished(Emit& emit) {
        std::erase_if(irqs_, [&](Irq& irq) {
            if (irq.seen == polls_) return false;
            irq.series.close(emit);
            --(numbered(irq.name) ? numbered_ : named_);
            return true;
        });
    }

    void emit_softirqs(Emit& emit, PollReport& report) {
        const auto text = softirqs_.read();
        if (!text) {
            if (text.error().code != Errc::unavailable) ++report.malformed;
            return;
        }
        Scanner scanner(*text);
        std::string_view line;
        if (!scanner.line(line) || !parse_cpu_titles(line, possible_)) {
            ++report.malformed;
            return;
        }
        bool found = false;
        while (scanner.line(line)) {
            Scanner fields(line);
            if (fields.word() != "NET_RX:" || found) continue;
            found = true;
            emit_received(fields, emit, report);
        }
        if (!scanner.done()) ++report.malformed;
        if (!found) return;
        for (CpuSeries& series : received_) {
            if (series.seen != polls_) series.received.close(emit);
        }
    }

    void emit_received(Scanner& fields, Emit& emit, PollReport& report) {
        for (const std::int32_t cpu : possible_) {
            std::uint64_t value = 0;
            if (!fields.number(value)) {
                ++report.malformed;
                return;
            }
            // The title line of the interrupts is sorted and names the processors that are online.
            if (cpu >= kMaxSoftirqCpus || !std::binary_search(online_.begin(), online_.end(), cpu)) continue;
            const auto index = static_cast<std::size_t>(cpu);
            if (index >= received_.size()) received_.resize(index + 1);
            received_[index].seen = polls_;
            received_[index].received.emit(emit, report, static_cast<double>(value), [cpu] {
                const std::string attributes = "cpu.logical_number=" + std::to_string(cpu) + ",softirq.type=net_rx";
                return SeriesInfo{"system.cpu.softirqs", "{interrupt}", Kind::counter, attributes};
            });
        }
    }

    KernelFile interrupts_;
    KernelFile softirqs_;
    std::vector<std::int32_t> online_;
    std::vector<std::int32_t> possible_;
    std::vector<Irq> irqs_;
    std::vector<CpuSeries> received_;
    std::size_t cursor_ = 0;
    std::size_t numbered_ = 0;
    std::size_t named_ = 0;
    std::uint64_t polls_ = 0;
};

Result<std::unique_ptr<Source>> open_interrupts(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<InterruptsSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor interrupts_source;
const SourceDescriptor interrupts_source{
    "interrupts",
    "Interrupts of each line and device, and received-packet softirqs of each processor, from /proc/interrupts and "
    "/proc/softirqs.",
    "a mounted /proc with /proc/interrupts",
    "mount procfs (mount -t proc proc /proc), or point `proc` at the host's, for example /host/proc",
    10'000,
    Lane::slow,
    open_interrupts,
};

}  // namespace argus::sources
