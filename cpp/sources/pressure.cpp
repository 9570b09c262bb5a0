// Pressure stall information: share of time tasks waited for cpu, memory, io and interrupts.
// Source: /proc/pressure/{cpu,memory,io,irq}; kernel Documentation/accounting/psi.rst (Linux >= 4.20, CONFIG_PSI; irq
//         needs Linux >= 6.1 with CONFIG_IRQ_TIME_ACCOUNTING).
// Emits:  system.pressure.stall_time, seconds, from the total= counter (us), by system.pressure.kind and .resource;
//         system.pressure.avg10, avg60, avg300, 1, the kernel's own averages as a share.
// Cost:   one pread a file. All files absent: Errc::unavailable; one absent: its series are missing, and it is
//         looked for every 32 polls.
#include "sources/pressure.hpp"

#include <memory>
#include <string>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr const char* kKinds[2] = {"some", "full"};
constexpr const char* kResources[4] = {"cpu", "memory", "io", "irq"};
constexpr const char* kFiles[4] = {"proc/pressure/cpu", "proc/pressure/memory", "proc/pressure/io",
                                   "proc/pressure/irq"};

// avg10=0.00 avg60=0.00 avg300=0.00 total=0
bool parse_fields(Scanner& line, PressureLine& out) {
    constexpr std::string_view keys[3] = {"avg10=", "avg60=", "avg300="};
    for (std::size_t i = 0; i < 3; ++i) {
        double percent = 0;
        line.skip_blanks();
        if (!line.literal(keys[i]) || !line.decimal(percent) || percent > 100.0) return false;
        out.average[i] = percent / 100.0;
    }
    line.skip_blanks();
    return line.literal("total=") && line.number(out.total_us);
}

}  // namespace

Pressure parse_pressure(std::string_view text) {
    Pressure out;
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) {
        Scanner fields(line);
        const std::string_view kind = fields.word();
        const int index = kind == kKinds[0] ? 0 : kind == kKinds[1] ? 1 : -1;
        PressureLine parsed;
        if (index < 0 || out.lines[static_cast<std::size_t>(index)].present || !parse_fields(fields, parsed)) {
            ++out.malformed;
            continue;
        }
        parsed.present = true;
        out.lines[static_cast<std::size_t>(index)] = parsed;
    }
    if (!scanner.done()) ++out.malformed;
    return out;
}

namespace {

class PressureSource final : public Source {
public:
    PressureSource(const Roots& roots, const Io& io) {
        for (std::size_t i = 0; i < files_.size(); ++i) {
            files_[i] = std::make_unique<KernelFile>(io, roots.proc + "/pressure/" + kResources[i], kFiles[i]);
        }
    }

    // Reads once: with psi=0 on the kernel's command line the files exist and every read answers EOPNOTSUPP.
    [[nodiscard]] Result<bool> open() {
        Error first{};
        for (auto& file : files_) {
            const auto text = file->read();
            if (text) return true;
            if (first.code == Errc::ok) first = text.error();
        }
        return first;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        ++polls_;
        for (std::size_t resource = 0; resource < files_.size(); ++resource) {
            if (polls_ < ask_again_[resource]) continue;
            const auto text = files_[resource]->read();
            if (!text) {
                if (text.error().code != Errc::unavailable) ++report.malformed;
                if (text.error().code == Errc::unavailable) ask_again_[resource] = polls_ + kAbsentPolls;
                failure_ = text.error();
                continue;
            }
            const Pressure pressure = parse_pressure(*text);
            report.malformed += pressure.malformed;
            for (std::size_t kind = 0; kind < 2; ++kind) emit_line(resource, kind, pressure.lines[kind], emit, report);
        }
        if (report.emitted == 0 && failure_.code != Errc::ok) return failure_;
        return report;
    }

private:
    void emit_line(std::size_t resource, std::size_t kind, const PressureLine& line, Emit& emit, PollReport& report) {
        if (!line.present) return;
        auto& slots = series_[resource * 2 + kind];
        const auto describe = [&](const char* name, const char* unit, Kind type) {
            return SeriesInfo{name, unit, type,
                              std::string("system.pressure.kind=") + kKinds[kind] +
                                  ",system.pressure.resource=" + kResources[resource]};
        };
        slots[0].emit(emit, report, static_cast<double>(line.total_us) / 1e6,
                      [&] { return describe("system.pressure.stall_time", "s", Kind::counter); });
        constexpr const char* names[3] = {"system.pressure.avg10", "system.pressure.avg60", "system.pressure.avg300"};
        for (std::size_t i = 0; i < 3; ++i) {
            slots[i + 1].emit(emit, report, line.average[i], [&] { return describe(names[i], "1", Kind::gauge); });
        }
    }

    // A kernel without `irq` does not get one: a file that is absent is not looked for at every poll.
    static constexpr std::uint64_t kAbsentPolls = 32;

    std::array<std::unique_ptr<KernelFile>, 4> files_;
    std::array<std::uint64_t, 4> ask_again_{};  // number of the poll
    std::uint64_t polls_ = 0;
    Error failure_{};  // the newest
    std::array<std::array<SeriesSlot, 4>, 8> series_;
};

Result<std::unique_ptr<Source>> open_pressure(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<PressureSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor pressure_source;
const SourceDescriptor pressure_source{
    "pressure",
    "Time that tasks waited for cpu, memory, io and interrupts, from /proc/pressure.",
    "Linux >= 4.20 with CONFIG_PSI",
    "boot with psi=1 on the kernel's command line, or use a kernel built with CONFIG_PSI",
    1000,
    Lane::fast,
    open_pressure,
};

}  // namespace argus::sources
