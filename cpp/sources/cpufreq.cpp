// Clock frequency of each processor, its limits, how often it was throttled, and how many cores there are.
// Source: /sys/devices/system/cpu: online, cpuN/cpufreq/scaling_{cur,min,max}_freq (kHz), cpuN/thermal_throttle,
//         cpuN/topology; kernel Documentation/admin-guide/pm/cpufreq.rst, ABI/testing/sysfs-devices-system-cpu. Without
//         cpufreq, as in virtual machines, the "cpu MHz" of /proc/cpuinfo (x86).
// Emits:  system.cpu.frequency (Hz) and .limit {system.cpu.frequency.limit_type=min|max} by cpu.logical_number;
//         system.cpu.throttles (count) of each core and package, and system.cpu.throttle.time (s), named after their
//         first processor; system.cpu.physical.count, cores with a processor online.
// Cost:   three to six small files a processor, opened and closed each time (some 7 us each), or /proc/cpuinfo (26 us
//         for two processors): slow lane. The first 1,024 processors have series.
// Failure: neither frequency nor topology: Errc::unavailable. What a driver does not say ("<unknown>", 0) is missing.
//         A processor taken offline closes its series.
#include "sources/cpufreq.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string>

#include "sources/cpu.hpp"
#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMaxCpuSeries = 1024;
constexpr std::size_t kListCapBytes = std::size_t{64} << 10;
constexpr std::size_t kCpuinfoCapBytes = std::size_t{16} << 20;

// Of one processor. The order is that of kFileSeries.
enum File : std::size_t { kCurrent, kMinimum, kMaximum, kCoreThrottles, kCoreThrottleTime, kPackageThrottles, kFiles };

struct FileSeries {
    const char* path;
    const char* name;
    const char* unit;
    Kind kind;
    double scale;  // to the unit
    const char* attribute;
};
constexpr FileSeries kFileSeries[kFiles] = {
    {"cpufreq/scaling_cur_freq", "system.cpu.frequency", "Hz", Kind::gauge, 1e3, ""},
    {"cpufreq/scaling_min_freq", "system.cpu.frequency.limit", "Hz", Kind::gauge, 1e3,
     "system.cpu.frequency.limit_type=min"},
    {"cpufreq/scaling_max_freq", "system.cpu.frequency.limit", "Hz", Kind::gauge, 1e3,
     "system.cpu.frequency.limit_type=max"},
    {"thermal_throttle/core_throttle_count", "system.cpu.throttles", "{event}", Kind::counter, 1,
     "system.cpu.throttle.scope=core"},
    {"thermal_throttle/core_throttle_total_time_ms", "system.cpu.throttle.time", "s", Kind::counter, 1e-3,
     "system.cpu.throttle.scope=core"},
    {"thermal_throttle/package_throttle_count", "system.cpu.throttles", "{event}", Kind::counter, 1,
     "system.cpu.throttle.scope=package"},
};

// The first number of a list of processors, however long the list is; -1 = none.
std::int32_t first_of_list(const Io& io, const std::string& path) {
    SmallText text;
    const int status = read_small(io, path, text);
    if (status != 0 && status != -EFBIG) return -1;
    const std::string_view list = text.view();
    Scanner first(list.substr(0, list.find_first_of(",-")));
    std::uint64_t number = 0;
    return first.number(number) && first.done() && number < kMaxCpus ? static_cast<std::int32_t>(number) : -1;
}

}  // namespace

std::uint32_t parse_cpu_clocks(std::string_view text, std::vector<CpuClock>& out) {
    constexpr double kMaxMegahertz = 1e6;
    out.clear();
    std::uint32_t malformed = 0;
    std::int64_t cpu = -1;
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) {
        const std::size_t colon = line.find(':');
        if (colon == std::string_view::npos) continue;
        Scanner value(line.substr(colon + 1));
        if (line.starts_with("processor")) {
            std::uint64_t number = 0;
            const bool good = value.number(number) && number < kMaxCpus;
            cpu = good ? static_cast<std::int64_t>(number) : -1;
            malformed += good ? 0 : 1;
        } else if (line.starts_with("cpu MHz")) {
            double megahertz = 0;
            const bool next = cpu >= 0 && (out.empty() || cpu > out.back().cpu);  // ascending: none comes twice
            const bool good = next && value.decimal(megahertz) && megahertz > 0 && megahertz < kMaxMegahertz;
            if (good) out.push_back({static_cast<std::int32_t>(cpu), megahertz * 1e6});
            malformed += good ? 0 : 1;
            cpu = -1;
        }
    }
    return malformed + (scanner.done() ? 0 : 1);
}

namespace {

class CpufreqSource final : public Source {
public:
    CpufreqSource(const Roots& roots, const Io& io)
        : io_(&io),
          folder_(roots.sys + "/devices/system/cpu"),
          policies_(folder_ + "/cpufreq"),
          online_(io, folder_ + "/online", "sys/devices/system/cpu/online", kListCapBytes),
          cpuinfo_(io, roots.proc + "/cpuinfo", "proc/cpuinfo", kCpuinfoCapBytes) {}

    [[nodiscard]] Result<bool> open() {
        scan();
        if (cores_ > 0 || sysfs_) return true;
        const auto text = cpuinfo_.read();
        if (!text) return text.error();
        (void)parse_cpu_clocks(*text, clocks_);
        if (!clocks_.empty()) return true;
        return Error{Errc::unavailable, 0, "sys/devices/system/cpu: no cpufreq, no topology, and no clock in cpuinfo"};
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        if (changed()) {
            scan();
            for (Cpu& cpu : cpus_) {
                if (!cpu.online) close(cpu, emit);
            }
        }
        for (Cpu& cpu : cpus_) {
            if (cpu.online) emit_cpu(cpu, emit, report);
        }
        if (!sysfs_) emit_cpuinfo(emit, report);
        if (cores_ > 0) {
            count_.emit(emit, report, static_cast<double>(cores_),
                        [] { return SeriesInfo{"system.cpu.physical.count", "{cpu}", Kind::gauge, ""}; });
        }
        return report;
    }

private:
    struct Cpu {
        std::array<std::string, kFiles> paths;  // empty = the processor has no such file
        std::array<SeriesSlot, kFiles> series;
        bool online = false;
        std::uint64_t clock_seen = 0;  // the poll that last saw it in cpuinfo
    };

    static void close(Cpu& cpu, Emit& emit) {
        for (SeriesSlot& series : cpu.series) series.close(emit);
    }

    // Which processors are online, or which of them have cpufreq, is not what the last scan found.
    [[nodiscard]] bool changed() {
        if (folder_mark(*io_, policies_) != mark_) return true;
        const auto text = online_.read();
        return text && *text != listed_;
    }

    void scan() {
        mark_ = folder_mark(*io_, policies_);
        const auto text = online_.read();
        listed_ = text ? std::string(*text) : std::string();
        if (!text || !parse_cpu_list(*text, numbers_)) list_numbers();
        for (Cpu& cpu : cpus_) cpu.online = false;
        cores_ = 0;
        sysfs_ = false;
        bool known = true;
        for (const std::int32_t number : numbers_) {
            const std::string folder = folder_ + "/cpu" + std::to_string(number) + "/";
            std::int32_t core = first_of_list(*io_, folder + "topology/core_cpus_list");
            if (core < 0) core = first_of_list(*io_, folder + "topology/thread_siblings_list");
            known = known && core >= 0;
            if (core == number) ++cores_;
            const auto index = static_cast<std::size_t>(number);
            if (index >= kMaxCpuSeries) continue;
            if (index >= cpus_.size()) cpus_.resize(index + 1);
            cpus_[index].online = true;
            find_files(cpus_[index], number, core, folder);
        }
        if (!known) cores_ = 0;
    }

    // Without the list of what is online: the folders there are.
    void list_numbers() {
        numbers_.clear();
        std::vector<std::string> names;
        if (!list_folder(*io_, folder_, "sys/devices/system/cpu", names)) return;
        for (const std::string& name : names) {
            std::uint64_t number = 0;
            Scanner digits(std::string_view(name).substr(std::min<std::size_t>(3, name.size())));
            const bool cpu = name.starts_with("cpu") && digits.number(number) && digits.done() && number < kMaxCpus;
            if (cpu) numbers_.push_back(static_cast<std::int32_t>(number));
        }
    }

    void find_files(Cpu& cpu, std::int32_t number, std::int32_t core, const std::string& folder) {
        std::int32_t package = first_of_list(*io_, folder + "topology/package_cpus_list");
        if (package < 0) package = first_of_list(*io_, folder + "topology/core_siblings_list");
        for (std::size_t i = 0; i < kFiles; ++i) {
            const std::string path = folder + kFileSeries[i].path;
            const bool of_core = i == kCoreThrottles || i == kCoreThrottleTime;
            const bool mine = of_core ? core == number : i != kPackageThrottles || package == number;
            const bool there = mine && file_exists(*io_, path);
            cpu.paths[i] = there ? path : std::string();
        }
        sysfs_ = sysfs_ || !cpu.paths[kCurrent].empty();
    }

    void emit_cpu(Cpu& cpu, Emit& emit, PollReport& report) {
        const auto number = static_cast<std::int32_t>(&cpu - cpus_.data());
        for (std::size_t i = 0; i < kFiles; ++i) {
            if (cpu.paths[i].empty()) continue;
            const auto raw = read_unsigned(*io_, cpu.paths[i]);
            const bool frequency = i <= kMaximum;
            if (!raw || (frequency && (*raw == 0 || *raw > kMaxKilohertz))) continue;
            cpu.series[i].emit(emit, report, static_cast<double>(*raw) * kFileSeries[i].scale,
                               [&] { return describe(i, number); });
        }
    }

    static SeriesInfo describe(std::size_t file, std::int32_t cpu) {
        const FileSeries& series = kFileSeries[file];
        std::string attributes = "cpu.logical_number=" + std::to_string(cpu);
        if (*series.attribute != '\0') attributes += std::string(",") + series.attribute;
        return {series.name, series.unit, series.kind, attributes};
    }

    void emit_cpuinfo(Emit& emit, PollReport& report) {
        const auto text = cpuinfo_.read();
        if (!text) {
            if (text.error().code != Errc::unavailable) ++report.malformed;
            return;
        }
        const std::uint32_t malformed = parse_cpu_clocks(*text, clocks_);
        report.malformed += malformed;
        ++polls_;
        for (const CpuClock& clock : clocks_) {
            const auto index = static_cast<std::size_t>(clock.cpu);
            if (index >= kMaxCpuSeries) continue;
            if (index >= cpus_.size()) cpus_.resize(index + 1);
            cpus_[index].clock_seen = polls_;
            cpus_[index].series[kCurrent].emit(emit, report, clock.hertz,
                                               [&] { return describe(kCurrent, clock.cpu); });
        }
        for (Cpu& cpu : cpus_) {
            if (malformed == 0 && cpu.clock_seen != polls_) cpu.series[kCurrent].close(emit);
        }
    }

    static constexpr std::uint64_t kMaxKilohertz = 1'000'000'000;

    const Io* io_;
    std::string folder_;
    std::string policies_;
    KernelFile online_;
    KernelFile cpuinfo_;
    std::string listed_;
    std::uint64_t mark_ = 0;
    std::uint64_t cores_ = 0;
    std::uint64_t polls_ = 0;
    bool sysfs_ = false;  // some processor has cpufreq
    std::vector<std::int32_t> numbers_;
    std::vector<CpuClock> clocks_;
    std::vector<Cpu> cpus_;
    SeriesSlot count_;
};

Result<std::unique_ptr<Source>> open_cpufreq(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<CpufreqSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor cpufreq_source;
const SourceDescriptor cpufreq_source{
    "cpufreq",
    "Frequency, limits and throttling of each processor and the count of cores, from /sys/devices/system/cpu or "
    "/proc/cpuinfo.",
    "/sys/devices/system/cpu with cpufreq or topology (CONFIG_SYSFS), or an x86 /proc/cpuinfo",
    "mount sysfs (mount -t sysfs sys /sys), or point `sys` at the host's, for example /host/sys",
    10'000,
    Lane::slow,
    open_cpufreq,
};

}  // namespace argus::sources
