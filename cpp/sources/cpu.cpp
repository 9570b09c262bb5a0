// Processor time, scheduling counters, load and uptime.
// Source: /proc/stat, /proc/loadavg, /proc/uptime; kernel Documentation/filesystems/proc.rst 1.7 and man proc_stat(5).
// Emits:  system.cpu.time {cpu.mode, cpu.logical_number} in seconds from USER_HZ ticks, of each processor and (without
//         a number) of all; the kernel counts guest time inside user and guest_nice inside nice, and so does this.
//         Context switches, interrupts, softirqs, processes created, running, blocked, load averages, threads, uptime.
// Cost:   one pread a file; text grows with the processors. Absent /proc/stat: Errc::unavailable; absent loadavg or
//         uptime: their series are missing. A processor taken offline closes its series.
#include "sources/cpu.hpp"

#include <unistd.h>

#include <string>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr const char* kModeNames[kCpuModes] = {"user",      "nice",    "system", "idle",  "iowait",
                                               "interrupt", "softirq", "steal",  "guest", "guest_nice"};
constexpr const char* kSoftirqNames[kSoftirqs] = {"hi",       "timer",   "net_tx", "net_rx",  "block",
                                                  "irq_poll", "tasklet", "sched",  "hrtimer", "rcu"};
constexpr std::string_view kScalarKeys[CpuStat::scalars_] = {"intr",      "ctxt",          "btime",
                                                             "processes", "procs_running", "procs_blocked"};

constexpr const char* kLoadNames[4] = {"system.cpu.load_average.1m", "system.cpu.load_average.5m",
                                       "system.cpu.load_average.15m", "system.thread.count"};

struct ScalarSeries {
    const char* name;
    const char* unit;
    Kind kind;
};
constexpr ScalarSeries kScalarSeries[CpuStat::scalars_] = {
    {"system.cpu.interrupts", "{interrupt}", Kind::counter},
    {"system.cpu.context_switches", "{switch}", Kind::counter},
    {"system.boot_time", "s", Kind::gauge},
    {"system.process.created", "{process}", Kind::counter},
    {"system.processes.running", "{process}", Kind::gauge},
    {"system.processes.blocked", "{process}", Kind::gauge},
};

// "cpu" or "cpu12" with 4 to 10 numbers; newer kernels may append more, which are left alone.
bool parse_cpu_line(std::string_view name, Scanner& line, CpuTicks& out) {
    if (name.size() > 3) {
        std::uint64_t number = 0;
        Scanner digits(name.substr(3));
        if (!digits.number(number) || number >= kMaxCpus) return false;
        out.cpu = static_cast<std::int32_t>(number);
    }
    for (std::uint64_t& ticks : out.ticks) {
        line.skip_blanks();
        if (line.done()) break;
        if (!line.number(ticks)) return false;
        ++out.modes;
    }
    return out.modes >= 4;
}

bool parse_softirqs(Scanner& line, CpuStat& out) {
    std::uint64_t total = 0;
    if (!line.number(total)) return false;
    std::uint32_t count = 0;
    while (count < kSoftirqs && line.number(out.softirqs[count])) ++count;
    out.softirq_count = count;
    return count > 0;
}

bool parse_stat_line(std::string_view text, CpuStat& out) {
    Scanner line(text);
    const std::string_view key = line.word();
    if (key.starts_with("cpu")) {
        CpuTicks ticks;
        if (out.cpus.size() > static_cast<std::size_t>(kMaxCpus) || !parse_cpu_line(key, line, ticks)) return false;
        out.cpus.push_back(ticks);
        return true;
    }
    if (key == "softirq") return parse_softirqs(line, out);
    for (std::size_t i = 0; i < CpuStat::scalars_; ++i) {
        if (key != kScalarKeys[i]) continue;
        if (!line.number(out.scalars[i])) return false;
        out.seen |= 1U << i;
        return true;
    }
    return true;  // a key of another kernel
}

}  // namespace

bool parse_cpu_list(std::string_view text, std::vector<std::int32_t>& out) {
    out.clear();
    if (text.ends_with('\n')) text.remove_suffix(1);
    if (text.find_first_of(" \t") != std::string_view::npos) return false;
    std::int64_t last = -1;
    while (true) {
        const std::size_t comma = text.find(',');
        const std::string_view range = text.substr(0, comma);
        const std::size_t dash = range.find('-');
        std::uint64_t from = 0;
        Scanner low(range.substr(0, dash));
        bool good = low.number(from) && low.done() && from < kMaxCpus && static_cast<std::int64_t>(from) > last;
        std::uint64_t to = from;
        if (good && dash != std::string_view::npos) {
            Scanner high(range.substr(dash + 1));
            good = high.number(to) && high.done() && to < kMaxCpus && to >= from;
        }
        if (!good) {
            out.clear();
            return false;
        }
        for (std::uint64_t cpu = from; cpu <= to; ++cpu) out.push_back(static_cast<std::int32_t>(cpu));
        last = static_cast<std::int64_t>(to);
        if (comma == std::string_view::npos) return true;
        text.remove_prefix(comma + 1);
    }
}

Result<bool> parse_stat(std::string_view text, CpuStat& out) {
    out.cpus.clear();
    out.seen = 0;
    out.softirq_count = 0;
    out.malformed = 0;
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) {
        if (!parse_stat_line(line, out)) ++out.malformed;
    }
    out.cut = !scanner.done();
    if (out.cut) ++out.malformed;
    if (out.cpus.empty()) return Error{Errc::malformed, 0, "proc/stat: expected a 'cpu' line, found none"};
    return true;
}

Result<LoadAverage> parse_loadavg(std::string_view text) {
    LoadAverage out;
    Scanner scanner(text);
    const bool loads = scanner.decimal(out.load_1m) && scanner.decimal(out.load_5m) && scanner.decimal(out.load_15m);
    const std::string_view tasks = scanner.word();
    const std::size_t slash = tasks.find('/');
    if (!loads || slash == std::string_view::npos || !text.ends_with('\n')) {
        return Error{Errc::malformed, 0, "proc/loadavg: expected three loads and 'runnable/threads'"};
    }
    Scanner runnable(tasks.substr(0, slash));
    Scanner threads(tasks.substr(slash + 1));
    if (!runnable.number(out.runnable) || !threads.number(out.threads)) {
        return Error{Errc::malformed, 0, "proc/loadavg: expected numbers in 'runnable/threads'"};
    }
    return out;
}

Result<double> parse_uptime(std::string_view text) {
    double seconds = 0;
    Scanner scanner(text);
    if (!text.ends_with('\n') || !scanner.decimal(seconds)) {
        return Error{Errc::malformed, 0, "proc/uptime: expected seconds as '12.34'"};
    }
    return seconds;
}

namespace {

class CpuSource final : public Source {
public:
    CpuSource(const Roots& roots, const Io& io)
        : stat_(io, roots.proc + "/stat", "proc/stat", kStatCapBytes),
          loadavg_(io, roots.proc + "/loadavg", "proc/loadavg"),
          uptime_(io, roots.proc + "/uptime", "proc/uptime") {
        const long hertz = sysconf(_SC_CLK_TCK);
        ticks_per_second_ = static_cast<double>(hertz > 0 ? hertz : 100);
    }

    [[nodiscard]] Result<bool> open() { return stat_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = stat_.read();
        if (!text) return text.error();
        const auto parsed = parse_stat(*text, parsed_);
        if (!parsed) return parsed.error();
        report.malformed += parsed_.malformed;
        emit_cpus(emit, report);
        emit_scalars(emit, report);
        emit_load(emit, report);
        emit_uptime(emit, report);
        return report;
    }

private:
    static constexpr std::size_t kStatCapBytes = std::size_t{8} << 20;  // 8,192 processors and their interrupts

    struct CpuSeries {
        std::array<SeriesSlot, kCpuModes> modes;
        bool present = false;
    };

    void emit_cpus(Emit& emit, PollReport& report) {
        for (CpuSeries& series : series_) series.present = false;
        std::uint32_t online = 0;
        for (const CpuTicks& line : parsed_.cpus) {
            const auto index = static_cast<std::size_t>(line.cpu + 1);  // 0 = all processors
            if (index >= series_.size()) series_.resize(index + 1);
            CpuSeries& series = series_[index];
            if (series.present) {
                ++report.malformed;  // the same processor twice
                continue;
            }
            series.present = true;
            if (line.cpu >= 0) ++online;
            for (std::uint32_t mode = 0; mode < line.modes; ++mode) {
                const double seconds = static_cast<double>(line.ticks[mode]) / ticks_per_second_;
                series.modes[mode].emit(emit, report, seconds, [&] { return describe(line.cpu, mode); });
            }
        }
        for (CpuSeries& series : series_) {
            if (series.present || parsed_.cut) continue;
            for (SeriesSlot& slot : series.modes) slot.close(emit);
        }
        count_.emit(emit, report, online,
                    [] { return SeriesInfo{"system.cpu.logical.count", "{cpu}", Kind::gauge, ""}; });
    }

    static SeriesInfo describe(std::int32_t cpu, std::uint32_t mode) {
        std::string attributes = cpu < 0 ? "" : "cpu.logical_number=" + std::to_string(cpu) + ",";
        attributes += std::string("cpu.mode=") + kModeNames[mode];
        return {"system.cpu.time", "s", Kind::counter, attributes};
    }

    void emit_scalars(Emit& emit, PollReport& report) {
        for (std::size_t i = 0; i < CpuStat::scalars_; ++i) {
            if ((parsed_.seen & (1U << i)) == 0) continue;
            scalars_[i].emit(emit, report, static_cast<double>(parsed_.scalars[i]), [i] {
                return SeriesInfo{kScalarSeries[i].name, kScalarSeries[i].unit, kScalarSeries[i].kind, ""};
            });
        }
        for (std::uint32_t i = 0; i < parsed_.softirq_count; ++i) {
            softirqs_[i].emit(emit, report, static_cast<double>(parsed_.softirqs[i]), [i] {
                const std::string attributes = std::string("softirq.type=") + kSoftirqNames[i];
                return SeriesInfo{"system.cpu.softirqs", "{interrupt}", Kind::counter, attributes};
            });
        }
    }

    void emit_load(Emit& emit, PollReport& report) {
        const auto text = loadavg_.read();
        if (!text) return count_failure(text.error(), report);
        const auto parsed = parse_loadavg(*text);
        if (!parsed) return count_failure(parsed.error(), report);
        const LoadAverage& load = *parsed;
        const std::array<double, 4> values{load.load_1m, load.load_5m, load.load_15m,
                                           static_cast<double>(load.threads)};
        for (std::size_t i = 0; i < values.size(); ++i) {
            load_[i].emit(emit, report, values[i], [i] {
                return SeriesInfo{kLoadNames[i], "{thread}", Kind::gauge, ""};
            });
        }
    }

    void emit_uptime(Emit& emit, PollReport& report) {
        const auto text = uptime_.read();
        if (!text) return count_failure(text.error(), report);
        const auto uptime = parse_uptime(*text);
        if (!uptime) return count_failure(uptime.error(), report);
        uptime_slot_.emit(emit, report, *uptime,
                          [] { return SeriesInfo{"system.uptime", "s", Kind::gauge, ""}; });
    }

    // An optional file that is absent leaves its series missing; anything else is counted.
    static void count_failure(const Error& error, PollReport& report) {
        if (error.code != Errc::unavailable) ++report.malformed;
    }

    KernelFile stat_;
    KernelFile loadavg_;
    KernelFile uptime_;
    double ticks_per_second_ = 100;
    CpuStat parsed_;
    std::vector<CpuSeries> series_;
    SeriesSlot count_;
    std::array<SeriesSlot, CpuStat::scalars_> scalars_;
    std::array<SeriesSlot, kSoftirqs> softirqs_;
    std::array<SeriesSlot, 4> load_;
    SeriesSlot uptime_slot_;
};

Result<std::unique_ptr<Source>> open_cpu(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<CpuSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor cpu_source;
const SourceDescriptor cpu_source{
    "cpu",
    "Processor time by mode, interrupts, context switches, load and uptime, from /proc/stat, loadavg and uptime.",
    "a mounted /proc with /proc/stat (every Linux)",
    "mount procfs (mount -t proc proc /proc), or point `proc` at the host's, for example /host/proc",
    1000,
    Lane::fast,
    open_cpu,
};

}  // namespace argus::sources
