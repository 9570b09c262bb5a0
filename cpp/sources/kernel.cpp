// Tables of the kernel that can run full, entropy, and the state of the clock.
// Source: /proc/sys/fs/{file-nr,inode-nr,dentry-state}, /proc/sys/kernel/{pid_max,threads-max,random/entropy_avail},
//         /proc/loadavg; kernel Documentation/admin-guide/sysctl/{fs,kernel}.rst; adjtimex(2), which only asks.
// Emits:  system.file_handle.usage, .limit, .utilization; system.inode_cache.usage and system.dentry_cache.usage by
//         state; system.process.limit (pid_max: process and thread ids), system.thread.limit (threads-max),
//         system.thread.utilization (threads by the lower of the two); system.kernel.entropy (bit);
//         system.clock.synchronized (0 or 1), .frequency_adjustment (1 = twice as fast) and, while synchronised,
//         .offset, .error.estimated, .error.maximum (s). A file-handle limit of 2^63-1 is none, and not emitted.
// Cost:   the kernel clears as many bytes for a sysctl as its reader asks for, so little is asked for: 10 us for all.
//         They change little: slow lane. Absent file-nr: Errc::unavailable; another file absent: its series are
//         missing. The clock is the live kernel's: nothing of it with other roots.
#include "sources/kernel.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "sources/cpu.hpp"
#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kCapBytes = 4096;

enum Series : std::size_t {
    kHandles, kHandleLimit, kHandleShare,
    kInodesUsed, kInodesFree,
    kDentriesUsed, kDentriesUnused, kDentriesNegative,
    kPidLimit, kThreadLimit, kThreadShare,
    kEntropy,
    kClockSynchronized, kClockFrequency, kClockOffset, kClockEstimated, kClockMaximum,
    kSeries,
};

struct SeriesText {
    const char* name;
    const char* unit;
    const char* attributes;
};
constexpr SeriesText kText[kSeries] = {
    {"system.file_handle.usage", "{handle}", ""},
    {"system.file_handle.limit", "{handle}", ""},
    {"system.file_handle.utilization", "1", ""},
    {"system.inode_cache.usage", "{inode}", "system.inode_cache.state=used"},
    {"system.inode_cache.usage", "{inode}", "system.inode_cache.state=free"},
    {"system.dentry_cache.usage", "{entry}", "system.dentry_cache.state=used"},
    {"system.dentry_cache.usage", "{entry}", "system.dentry_cache.state=unused"},
    {"system.dentry_cache.usage", "{entry}", "system.dentry_cache.state=negative"},
    {"system.process.limit", "{process}", ""},
    {"system.thread.limit", "{thread}", ""},
    {"system.thread.utilization", "1", ""},
    {"system.kernel.entropy", "bit", ""},
    {"system.clock.synchronized", "1", ""},
    {"system.clock.frequency_adjustment", "1", ""},
    {"system.clock.offset", "s", ""},
    {"system.clock.error.estimated", "s", ""},
    {"system.clock.error.maximum", "s", ""},
};

}  // namespace

bool parse_numbers(std::string_view text, std::span<std::uint64_t> out) noexcept {
    Scanner scanner(text);
    std::string_view line;
    if (!scanner.line(line)) return false;
    Scanner fields(line);
    for (std::uint64_t& value : out) {
        if (!fields.number(value)) return false;
    }
    return true;
}

ClockState clock_state(const timex& reply, int state) noexcept {
    constexpr double kScaledPpm = 65536.0 * 1e6;  // freq counts parts per million by 2^-16
    const bool nanoseconds = (reply.status & STA_NANO) != 0;
    ClockState out;
    out.synchronized = state != TIME_ERROR && (reply.status & STA_UNSYNC) == 0;
    out.offset_s = static_cast<double>(reply.offset) * (nanoseconds ? 1e-9 : 1e-6);
    out.error_estimated_s = static_cast<double>(reply.esterror) * 1e-6;
    out.error_maximum_s = static_cast<double>(reply.maxerror) * 1e-6;
    out.frequency = static_cast<double>(reply.freq) / kScaledPpm;
    return out;
}

namespace {

class KernelSource final : public Source {
public:
    KernelSource(const Roots& roots, const Io& io)
        : live_(roots.live()),
          handles_(io, roots.proc + "/sys/fs/file-nr", "proc/sys/fs/file-nr", kCapBytes),
          inodes_(io, roots.proc + "/sys/fs/inode-nr", "proc/sys/fs/inode-nr", kCapBytes),
          dentries_(io, roots.proc + "/sys/fs/dentry-state", "proc/sys/fs/dentry-state", kCapBytes),
          pids_(io, roots.proc + "/sys/kernel/pid_max", "proc/sys/kernel/pid_max", kCapBytes),
          threads_(io, roots.proc + "/sys/kernel/threads-max", "proc/sys/kernel/threads-max", kCapBytes),
          entropy_(io, roots.proc + "/sys/kernel/random/entropy_avail", "proc/sys/kernel/random/entropy_avail",
                   kCapBytes),
          loadavg_(io, roots.proc + "/loadavg", "proc/loadavg", kCapBytes) {}

    [[nodiscard]] Result<bool> open() { return handles_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = handles_.read();
        if (!text) return text.error();
        std::array<std::uint64_t, 3> counts{};
        if (!parse_numbers(*text, counts) || counts[1] > counts[0]) {
            return Error{Errc::malformed, 0, "proc/sys/fs/file-nr: expected 'allocated unused limit'"};
        }
        emit_handles(counts[0] - counts[1], counts[2], emit, report);
        emit_caches(emit, report);
        emit_threads(emit, report);
        std::array<std::uint64_t, 1> entropy{};
        if (numbers(entropy_, entropy, report)) put(kEntropy, entropy[0], emit, report);
        if (live_) emit_clock(emit, report);
        return report;
    }

private:
    // False and counted when the file is there but does not hold what it should.
    static bool numbers(KernelFile& file, std::span<std::uint64_t> out, PollReport& report) {
        const auto text = file.read();
        const bool good = text && parse_numbers(*text, out);
        if (!good && (text || text.error().code != Errc::unavailable)) ++report.malformed;
        return good;
    }

    void put(Series series, double value, Emit& emit, PollReport& report) {
        slots_[series].emit(emit, report, value, [series] {
            return SeriesInfo{kText[series].name, kText[series].unit, Kind::gauge, kText[series].attributes};
        });
    }
    void put(Series series, std::uint64_t value, Emit& emit, PollReport& report) {
        put(series, static_cast<double>(value), emit, report);
    }

    void emit_handles(std::uint64_t used, std::uint64_t limit, Emit& emit, PollReport& report) {
        put(kHandles, used, emit, report);
        constexpr auto kNone = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
        if (limit == 0 || limit >= kNone) return;
        put(kHandleLimit, limit, emit, report);
        put(kHandleShare, static_cast<double>(used) / static_cast<double>(limit), emit, report);
    }

    void emit_caches(Emit& emit, PollReport& report) {
        std::array<std::uint64_t, 2> inodes{};
        if (numbers(inodes_, inodes, report)) {
            if (inodes[1] <= inodes[0]) {
                put(kInodesUsed, inodes[0] - inodes[1], emit, report);
                put(kInodesFree, inodes[1], emit, report);
            } else {
                ++report.malformed;
            }
        }
        std::array<std::uint64_t, 5> dentries{};  // all, unused, age limit, wanted pages, negative (0 before 5.0)
        if (numbers(dentries_, dentries, report)) {
            if (dentries[1] <= dentries[0] && dentries[4] <= dentries[1]) {
                put(kDentriesUsed, dentries[0] - dentries[1], emit, report);
                put(kDentriesUnused, dentries[1] - dentries[4], emit, report);
                put(kDentriesNegative, dentries[4], emit, report);
            } else {
                ++report.malformed;
            }
        }
    }

    void emit_threads(Emit& emit, PollReport& report) {
        std::array<std::uint64_t, 1> pids{};
        std::array<std::uint64_t, 1> threads{};
        const bool has_pids = numbers(pids_, pids, report);
        const bool has_threads = numbers(threads_, threads, report);
        if (has_pids) put(kPidLimit, pids[0], emit, report);
        if (has_threads) put(kThreadLimit, threads[0], emit, report);
        const auto text = loadavg_.read();
        if (!text || !has_pids || !has_threads) return;
        const std::uint64_t limit = std::min(pids[0], threads[0]);
        const auto load = parse_loadavg(*text);  // what is wrong with it, the source 'cpu' counts
        if (!load || limit == 0) return;
        put(kThreadShare, static_cast<double>((*load).threads) / static_cast<double>(limit), emit, report);
    }

    void emit_clock(Emit& emit, PollReport& report) {
        timex reply{};  // modes = 0: ask, change nothing
        const int state = adjtimex(&reply);
        if (state < 0) return;  // forbidden by a filter: not observed
        const ClockState clock = clock_state(reply, state);
        put(kClockSynchronized, clock.synchronized ? 1.0 : 0.0, emit, report);
        put(kClockFrequency, clock.frequency, emit, report);
        if (!clock.synchronized) return;  // what the kernel holds then is a default, not an observation
        put(kClockOffset, clock.offset_s, emit, report);
        put(kClockEstimated, clock.error_estimated_s, emit, report);
        put(kClockMaximum, clock.error_maximum_s, emit, report);
    }

    bool live_;
    KernelFile handles_;
    KernelFile inodes_;
    KernelFile dentries_;
    KernelFile pids_;
    KernelFile threads_;
    KernelFile entropy_;
    KernelFile loadavg_;
    std::array<SeriesSlot, kSeries> slots_;
};

Result<std::unique_ptr<Source>> open_kernel(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<KernelSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor kernel_source;
const SourceDescriptor kernel_source{
    "kernel",
    "File handles, inodes, dentries, process and thread limits, entropy, from /proc/sys; the clock, from adjtimex.",
    "a mounted /proc with /proc/sys/fs/file-nr (CONFIG_SYSCTL)",
    "mount procfs with its sys folder, or point `proc` at the host's, for example /host/proc",
    10'000,
    Lane::slow,
    open_kernel,
};

}  // namespace argus::sources
