// What Argus itself costs: processor time, memory, threads, descriptors.
// Source: getrusage(2); /proc/self/{stat,statm,fd}, man proc_pid_stat(5), proc_pid_statm(5).
// Emits:  argus.cpu.time {cpu.mode} (s), argus.memory.usage (resident) and .virtual (By), argus.thread.count,
//         argus.open_file_descriptor.count, argus.paging.faults {system.paging.type}, argus.context_switches {type}.
//         Of the whole process that this code runs in: with `argus.Host()`, the caller's.
// Cost:   two preads, one system call and a walk over the open descriptors. Only of the live kernel: with other roots
//         Errc::unavailable, because /proc/self in them would be somebody else.
#include <sys/resource.h>
#include <unistd.h>

#include <array>

#include "sources/kernel_file.hpp"
#include "sources/processes/processes.hpp"
#include "sources/series_slot.hpp"
#include "sources/sysfs.hpp"
#include "sources/source.hpp"

namespace argus::sources {
namespace {

enum Series : std::size_t {
    kUser, kSystem, kMinor, kMajor, kVoluntary, kInvoluntary, kResident, kVirtual, kThreads, kDescriptors, kSeries,
};

struct SeriesText {
    const char* name;
    const char* unit;
    Kind kind;
    const char* attributes;
};
constexpr SeriesText kText[kSeries] = {
    {"argus.cpu.time", "s", Kind::counter, "cpu.mode=user"},
    {"argus.cpu.time", "s", Kind::counter, "cpu.mode=system"},
    {"argus.paging.faults", "{fault}", Kind::counter, "system.paging.type=minor"},
    {"argus.paging.faults", "{fault}", Kind::counter, "system.paging.type=major"},
    {"argus.context_switches", "{switch}", Kind::counter, "process.context_switch.type=voluntary"},
    {"argus.context_switches", "{switch}", Kind::counter, "process.context_switch.type=involuntary"},
    {"argus.memory.usage", "By", Kind::gauge, ""},
    {"argus.memory.virtual", "By", Kind::gauge, ""},
    {"argus.thread.count", "{thread}", Kind::gauge, ""},
    {"argus.open_file_descriptor.count", "{file_descriptor}", Kind::gauge, ""},
};

double seconds(const timeval& time) noexcept {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

class SelfSource final : public Source {
public:
    SelfSource(const Roots& roots, const Io& io)
        : io_(&io),
          stat_(io, roots.proc + "/self/stat", "proc/self/stat"),
          statm_(io, roots.proc + "/self/statm", "proc/self/statm"),
          descriptors_(roots.proc + "/self/fd"),
          page_bytes_(static_cast<double>(sysconf(_SC_PAGESIZE))) {}

    [[nodiscard]] Result<bool> open() { return stat_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto stat = stat_.read();
        if (!stat) return stat.error();
        ProcessStat parsed;
        if (!parse_process_stat(*stat, parsed)) {
            return Error{Errc::malformed, 0, "proc/self/stat: expected 'pid (name) state ...'"};
        }
        put(kThreads, parsed.threads, emit, report);
        emit_usage(emit, report);
        emit_memory(emit, report);
        // The walk holds one descriptor itself.
        const auto descriptors = count_entries(*io_, descriptors_);
        if (descriptors && *descriptors > 0) put(kDescriptors, static_cast<double>(*descriptors - 1), emit, report);
        return report;
    }

private:
    void put(Series series, double value, Emit& emit, PollReport& report) {
        slots_[series].emit(emit, report, value, [series] {
            const SeriesText& text = kText[series];
            return SeriesInfo{text.name, text.unit, text.kind, text.attributes};
        });
    }

    void emit_usage(Emit& emit, PollReport& report) {
        rusage usage{};
        if (getrusage(RUSAGE_SELF, &usage) != 0) return;
        put(kUser, seconds(usage.ru_utime), emit, report);
        put(kSystem, seconds(usage.ru_stime), emit, report);
        put(kMinor, static_cast<double>(usage.ru_minflt), emit, report);
        put(kMajor, static_cast<double>(usage.ru_majflt), emit, report);
        put(kVoluntary, static_cast<double>(usage.ru_nvcsw), emit, report);
        put(kInvoluntary, static_cast<double>(usage.ru_nivcsw), emit, report);
    }

    void emit_memory(Emit& emit, PollReport& report) {
        const auto text = statm_.read();
        ProcessMemory memory;
        if (!text || !parse_process_memory(*text, memory)) {
            ++report.malformed;
            return;
        }
        put(kResident, static_cast<double>(memory.resident_pages) * page_bytes_, emit, report);
        put(kVirtual, static_cast<double>(memory.virtual_pages) * page_bytes_, emit, report);
    }

    const Io* io_;
    KernelFile stat_;
    KernelFile statm_;
    std::string descriptors_;
    double page_bytes_;
    std::array<SeriesSlot, kSeries> slots_;
};

Result<std::unique_ptr<Source>> open_self(const Roots& roots, const Io& io, const SourceSettings&) {
    if (!roots.live()) return Error{Errc::unavailable, 0, "proc/self of other roots is another process"};
    auto source = std::make_unique<SelfSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor self_source;
const SourceDescriptor self_source{
    "self",
    "Processor time, memory, threads and descriptors of Argus itself, from getrusage and /proc/self.",
    "the live kernel's /proc with /proc/self",
    "none with fixture or foreign roots; otherwise mount procfs (mount -t proc proc /proc)",
    5'000,
    Lane::slow,
    open_self,
};

}  // namespace argus::sources
