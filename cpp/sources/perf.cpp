// Performance events: of the machine, and of the cgroups and processes named in `targets`.
// Source: perf_event_open(2), counting, never sampling; kernel Documentation/admin-guide/perf-security.rst.
// Emits:  system.perf.*, cgroup.perf.* by cgroup.path, process.perf.* by process.pid, counters since Argus opened them.
//         Software: context_switches, cpu_migrations, page_faults {system.paging.type}, alignment_faults,
//         emulation_faults, and of targets task_clock (s). Hardware, where the machine shows its PMU: cycles,
//         instructions, cache_references, cache_misses, branches, branch_misses, stalled_cycles {perf.stall}, and ipc,
//         instructions a cycle since the poll before. Hardware counters that were shared out are scaled by the time
//         they ran; one that never ran is not observed. system.perf.events says how many kinds are open: hardware 0
//         is a machine without a PMU, as most virtual ones are.
// Cost:   a group on another processor is read through an interrupt there, 8 to 15 us each (0.4 us on its own): one
//         group of software and up to four of hardware events a processor, so the slow lane. The counted pay too: a
//         page fault takes 30 ns (1 %) longer; a switch, no more than can be measured.
// Bounds: a quarter of RLIMIT_NOFILE for the machine; where that is short, hardware events go first, then the later
//         software ones. At most 64 targets and 512 threads of a process when it is first seen; later ones inherit.
// Failure: kernel.perf_event_paranoid > 0 without CAP_PERFMON: Errc::permission. No CONFIG_PERF_EVENTS, or roots of
//         another machine: Errc::unavailable. A processor taken offline leaves its counts in the sums; one that comes
//         back, and a group that fails, is opened again. A target that is not there is looked for at each poll; a
//         process that ended is not: its number may be another's.
#include "sources/perf.hpp"

#include <fcntl.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <stdexcept>
#include <utility>

#include "sources/cgroup_tree.hpp"
#include "sources/cpu.hpp"
#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr const char* kWhat = "perf_event_open";
constexpr std::size_t kSoftware = 7;  // the last of them, task_clock, means nothing for a whole processor
constexpr std::size_t kHostSoftware = kSoftware - 1;
constexpr std::size_t kHardwareGroups = 4;
constexpr std::size_t kGroups = 1 + kHardwareGroups;
constexpr std::size_t kEvents = kSoftware + 2 * kHardwareGroups;
constexpr std::size_t kCycles = kSoftware;
constexpr std::size_t kInstructions = kSoftware + 1;
constexpr std::size_t kMaxTargets = 64;
constexpr std::size_t kMaxThreads = 512;

// In order of worth: what does not fit is left out from the end.
constexpr PerfEvent kEventTable[kEvents] = {
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_MIGRATIONS},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CONTEXT_SWITCHES},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MIN},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MAJ},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_ALIGNMENT_FAULTS},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_EMULATION_FAULTS},
    {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_REFERENCES},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_BRANCH_INSTRUCTIONS},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_BRANCH_MISSES},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_STALLED_CYCLES_FRONTEND},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_STALLED_CYCLES_BACKEND},
};

struct EventSeries {
    const char* name;
    const char* unit;
    const char* attribute;
    double scale;
};
constexpr EventSeries kSeries[kEvents] = {
    {"cpu_migrations", "{migration}", "", 1},
    {"context_switches", "{switch}", "", 1},
    {"page_faults", "{fault}", "system.paging.type=minor", 1},
    {"page_faults", "{fault}", "system.paging.type=major", 1},
    {"alignment_faults", "{fault}", "", 1},
    {"emulation_faults", "{fault}", "", 1},
    {"task_clock", "s", "", 1e-9},
    {"cycles", "{cycle}", "", 1},
    {"instructions", "{instruction}", "", 1},
    {"cache_references", "{access}", "", 1},
    {"cache_misses", "{miss}", "", 1},
    {"branches", "{branch}", "", 1},
    {"branch_misses", "{miss}", "", 1},
    {"stalled_cycles", "{cycle}", "perf.stall=frontend", 1},
    {"stalled_cycles", "{cycle}", "perf.stall=backend", 1},
};

constexpr std::size_t first_event(std::size_t group) { return group == 0 ? 0 : kSoftware + 2 * (group - 1); }

// What is counted on one processor, or of one thread.
struct Member {
    PerfTarget target;
    std::vector<PerfGroup> groups;
    std::array<PerfReading, kEvents> before{};
};

enum class ScopeKind : std::uint8_t { machine, cgroup, process };

struct Scope {
    ScopeKind kind = ScopeKind::machine;
    PerfScopeTarget target;
    PerfShare share{kSoftware, kHardwareGroups};
    std::vector<Member> members;
    std::string directory;    // of the cgroup
    int fd = -1;              // that directory, or the process
    std::uint64_t inode = 0;  // of that directory
    bool ended = false;       // the process is gone for good
    std::array<double, kEvents> total{};
    std::array<SeriesSlot, kEvents> series;
    SeriesSlot ipc;
};

std::string join_sorted(const std::string& left, const std::string& right) {
    if (left.empty() || right.empty()) return left + right;
    return left < right ? left + "," + right : right + "," + left;
}

}  // namespace

Result<PerfScopeTarget> parse_perf_target(std::string_view text) {
    constexpr std::string_view cgroup = "cgroup:/";
    constexpr std::string_view pid = "pid:";
    constexpr std::uint64_t pid_max = 4'194'304;  // PID_MAX_LIMIT
    const Error bad{Errc::malformed, 0, "expected 'cgroup:/path' or 'pid:number'"};
    PerfScopeTarget out;
    if (text.starts_with(cgroup)) {
        out.cgroup = text.substr(cgroup.size() - 1);
        while (out.cgroup.size() > 1 && out.cgroup.back() == '/') out.cgroup.pop_back();
        const bool climbs = (out.cgroup + "/").find("/../") != std::string::npos;
        if (climbs || out.cgroup.size() > CgroupTree::kMaxPathBytes || out.cgroup == "/") return bad;
        return out;
    }
    if (!text.starts_with(pid)) return bad;
    Scanner number(text.substr(pid.size()));
    std::uint64_t value = 0;
    if (!number.number(value) || !number.done() || value == 0 || value > pid_max) return bad;
    out.pid = static_cast<pid_t>(value);
    return out;
}

PerfShare perf_share(std::size_t descriptors, std::size_t cpus) noexcept {
    const std::size_t each = cpus == 0 ? 0 : descriptors / cpus;
    const std::size_t software = std::min(each, kHostSoftware);
    return {software, std::min((each - software) / 2, kHardwareGroups)};
}

namespace {

class PerfSource final : public Source {
public:
    PerfSource(const Roots& roots, const Io& io, const PerfCalls& calls, bool hardware)
        : roots_(roots),
          io_(&io),
          calls_(&calls),
          hardware_(hardware),
          online_(io, roots.sys + "/devices/system/cpu/online", "sys/devices/system/cpu/online") {}
    ~PerfSource() override {
        for (Scope& scope : scopes_) leave(scope);
    }

    void add_target(PerfScopeTarget target) {
        Scope scope;
        scope.kind = target.cgroup.empty() ? ScopeKind::process : ScopeKind::cgroup;
        scope.share.hardware_groups = hardware_ ? kHardwareGroups : 0;
        scope.target = std::move(target);
        scopes_.push_back(std::move(scope));
    }

    // The machine's own counters; without them the targets may still be counted.
    [[nodiscard]] Result<bool> open_machine() {
        if (const auto listed = list_cpus(); !listed) return listed.error();
        rlimit limit{};
        std::size_t descriptors = 1024;
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) descriptors = std::min<std::size_t>(limit.rlim_cur, 1U << 20);
        Scope scope;
        scope.share = perf_share(descriptors / 4, cpus_.size());
        if (!hardware_) scope.share.hardware_groups = 0;
        if (scope.share.software == 0) return Error{Errc::limit, EMFILE, kWhat};
        for (const int cpu : cpus_) {
            Member member;
            member.target.cpu = cpu;
            if (const auto opened = open_member(scope, member); !opened) return opened.error();
            scope.members.push_back(std::move(member));
        }
        scopes_.insert(scopes_.begin(), std::move(scope));
        return true;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        if (const auto listed = list_cpus(); listed && *listed) {
            for (Scope& scope : scopes_) follow_cpus(scope);
        }
        for (Scope& scope : scopes_) {
            if (scope.kind != ScopeKind::machine) look_after(scope, emit);
            if (!scope.members.empty()) read_scope(scope, emit, report);
        }
        return report;
    }

private:
    // True = other processors are online than before.
    [[nodiscard]] Result<bool> list_cpus() {
        const auto text = online_.read();
        if (!text) return text.error();
        if (*text == online_text_) return false;
        if (!parse_cpu_list(*text, listed_)) {
            return Error{Errc::malformed, 0, "sys/devices/system/cpu/online: expected processors, as in 0-3,8"};
        }
        online_text_ = *text;
        cpus_ = listed_;
        return true;
    }

    [[nodiscard]] std::span<const PerfEvent> events_of(const Scope& scope, std::size_t group) const {
        const std::span<const PerfEvent> all(kEventTable);
        return group == 0 ? all.subspan(0, scope.share.software) : all.subspan(first_event(group), 2);
    }

    // The group of software events must open; of the hardware ones, those there are.
    [[nodiscard]] Result<bool> open_member(const Scope& scope, Member& member) {
        member.groups.clear();
        for (std::size_t i = 0; i <= scope.share.hardware_groups; ++i) {
            member.groups.emplace_back(*calls_);
            const auto opened = member.groups.back().open(events_of(scope, i), member.target);
            if (!opened && (i == 0 || opened.error().code != Errc::unavailable)) return opened.error();
        }
        member.before = {};
        return true;
    }

    // Of the machine and of cgroups, which are counted by processor.
    void follow_cpus(Scope& scope) {
        if (scope.kind == ScopeKind::process || (scope.kind == ScopeKind::cgroup && scope.fd < 0)) return;
        std::erase_if(scope.members, [&](const Member& member) {
            return !std::binary_search(cpus_.begin(), cpus_.end(), member.target.cpu);
        });
        for (const int cpu : cpus_) {
            const auto has = [&](const Member& member) { return member.target.cpu == cpu; };
            if (std::any_of(scope.members.begin(), scope.members.end(), has)) continue;
            Member member;
            member.target.cpu = cpu;
            if (scope.kind == ScopeKind::cgroup) {
                member.target.pid = scope.fd;
                member.target.flags = PERF_FLAG_PID_CGROUP;
            }
            if (open_member(scope, member)) scope.members.push_back(std::move(member));
        }
    }

    void leave(Scope& scope) const {
        scope.members.clear();
        if (scope.fd >= 0) ::close(scope.fd);
        scope.fd = -1;
        scope.total = {};
    }

    void close_series(Scope& scope, Emit& emit) const {
        for (SeriesSlot& slot : scope.series) slot.close(emit);
        scope.ipc.close(emit);
    }

    // A target appears, is exchanged for another of its name, or goes.
    void look_after(Scope& scope, Emit& emit) {
        if (scope.fd < 0) {
            if (scope.kind == ScopeKind::cgroup) {
                enter_cgroup(scope);
            } else if (!scope.ended) {
                enter_process(scope);
            }
            return;
        }
        if (scope.kind == ScopeKind::cgroup) {
            struct stat status {};
            if (::stat(scope.directory.c_str(), &status) == 0 && status.st_ino == scope.inode) return;
        } else if (!scope.ended) {
            pollfd exited{scope.fd, POLLIN, 0};
            scope.ended = ::poll(&exited, 1, 0) > 0;
            return;  // what it did last is read once more
        }
        leave(scope);
        close_series(scope, emit);
    }

    void enter_cgroup(Scope& scope) {
        if (scope.directory.empty()) {
            std::vector<Hierarchy> hierarchies;
            if (!find_hierarchies(roots_, *io_, hierarchies)) return;
            // The perf_event controller sits in the unified hierarchy unless a version 1 hierarchy has taken it.
            for (const std::uint32_t wanted : {kUnified, kPerfEvent}) {
                for (const Hierarchy& hierarchy : hierarchies) {
                    const bool inside = scope.target.cgroup.starts_with(hierarchy.prefix);
                    if ((hierarchy.controllers & wanted) == 0 || !inside) continue;
                    scope.directory = hierarchy.directory + scope.target.cgroup.substr(hierarchy.prefix.size());
                }
            }
        }
        scope.fd = ::open(scope.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat status {};
        if (scope.fd < 0 || ::fstat(scope.fd, &status) != 0) return leave(scope);
        scope.inode = status.st_ino;
        follow_cpus(scope);
        if (scope.members.empty()) leave(scope);
    }

    // Threads there are now, each with a group; those they start inherit it.
    void enter_process(Scope& scope) {
        scope.fd = static_cast<int>(::syscall(SYS_pidfd_open, scope.target.pid, 0));  // close-on-exec of itself
        if (scope.fd < 0) return leave(scope);
        std::vector<std::string> threads;
        const std::string folder = roots_.proc + "/" + std::to_string(scope.target.pid) + "/task";
        if (!list_folder(*io_, folder, "proc/PID/task", threads)) return leave(scope);
        threads.resize(std::min(threads.size(), kMaxThreads));
        for (const std::string& name : threads) {
            Scanner number(name);
            std::uint64_t tid = 0;
            if (!number.number(tid)) continue;
            Member member;
            member.target.pid = static_cast<pid_t>(tid);
            member.target.inherit = true;
            if (open_member(scope, member)) scope.members.push_back(std::move(member));
        }
        if (scope.members.empty()) leave(scope);
    }

    struct Seen {
        std::array<double, kEvents> count{};
        std::array<bool, kEvents> observed{};
    };

    // A group that fails, or stands still on a processor that is online, was taken down: it begins anew.
    void reopen(const Scope& scope, Member& member, std::size_t group) const {
        for (std::size_t i = 0; i < 2 || (group == 0 && i < kSoftware); ++i) member.before[first_event(group) + i] = {};
        if (!member.groups[group].open(events_of(scope, group), member.target)) member.groups[group].close();
    }

    void read_member(const Scope& scope, Member& member, Seen& seen, PollReport& report) const {
        for (std::size_t g = 0; g < member.groups.size(); ++g) {
            PerfGroup& group = member.groups[g];
            if (!group.is_open()) continue;
            if (!group.read()) {
                ++report.malformed;
                reopen(scope, member, g);
                continue;
            }
            const std::size_t count = events_of(scope, g).size();
            bool still = scope.kind == ScopeKind::machine;
            for (std::size_t i = 0; i < count; ++i) {
                const auto now = group.reading(i);
                if (!now) continue;
                const std::size_t event = first_event(g) + i;
                PerfReading& before = member.before[event];
                still = still && now->enabled_ns == before.enabled_ns && before.enabled_ns != 0;
                const PerfDelta delta = perf_delta(before, *now);
                if (delta.step == PerfStep::unobserved) continue;
                before = *now;
                if (delta.step == PerfStep::reset) continue;
                seen.count[event] += delta.count;
                seen.observed[event] = true;
            }
            if (still) reopen(scope, member, g);
        }
    }

    void read_scope(Scope& scope, Emit& emit, PollReport& report) {
        Seen seen;
        for (Member& member : scope.members) read_member(scope, member, seen, report);
        for (std::size_t i = 0; i < kEvents; ++i) {
            if (!seen.observed[i]) continue;
            scope.total[i] += seen.count[i];
            scope.series[i].emit(emit, report, scope.total[i] * kSeries[i].scale,
                                 [&] { return describe(scope, kSeries[i].name, kSeries[i].unit, kSeries[i].attribute,
                                                       Kind::counter); });
        }
        if (seen.observed[kCycles] && seen.observed[kInstructions] && seen.count[kCycles] > 0) {
            scope.ipc.emit(emit, report, seen.count[kInstructions] / seen.count[kCycles],
                           [&] { return describe(scope, "ipc", "1", "", Kind::gauge); });
        }
        if (scope.kind == ScopeKind::machine) count_events(scope, emit, report);
    }

    void count_events(const Scope& scope, Emit& emit, PollReport& report) {
        std::array<double, 2> open{};
        for (std::size_t event = 0; event < kEvents; ++event) {
            const std::size_t group = event < kSoftware ? 0 : 1 + (event - kSoftware) / 2;
            const auto has = [&](const Member& member) {
                return group < member.groups.size() && member.groups[group].has(event - first_event(group));
            };
            if (std::any_of(scope.members.begin(), scope.members.end(), has)) ++open[group == 0 ? 0 : 1];
        }
        constexpr const char* types[2] = {"perf.type=software", "perf.type=hardware"};
        for (std::size_t i = 0; i < 2; ++i) {
            open_[i].emit(emit, report, open[i], [&] {
                return SeriesInfo{"system.perf.events", "{event}", Kind::gauge, types[i]};
            });
        }
    }

    static SeriesInfo describe(const Scope& scope, const char* name, const char* unit, const char* own, Kind kind) {
        switch (scope.kind) {
            case ScopeKind::machine: return {std::string("system.perf.") + name, unit, kind, own};
            case ScopeKind::cgroup:
                return {std::string("cgroup.perf.") + name, unit, kind,
                        join_sorted("cgroup.path=" + attribute_value(scope.target.cgroup), own)};
            case ScopeKind::process: break;
        }
        return {std::string("process.perf.") + name, unit, kind,
                join_sorted("process.pid=" + std::to_string(scope.target.pid), own)};
    }

    Roots roots_;
    const Io* io_;
    const PerfCalls* calls_;
    bool hardware_;
    KernelFile online_;
    std::string online_text_;
    std::vector<int> listed_;
    std::vector<int> cpus_;
    std::vector<Scope> scopes_;
    std::array<SeriesSlot, 2> open_;
};

constexpr Option kOptions[] = {
    {"hardware", "1", 1, 0, 1,
     "1 = count with the processor's counters too; 0 leaves them to profilers, which otherwise share them in time."},
};

Result<std::unique_ptr<Source>> open_perf(const Roots& roots, const Io& io, const SourceSettings& settings) {
    return make_perf(roots, io, settings, system_perf_calls());
}

}  // namespace

Result<std::unique_ptr<Source>> make_perf(const Roots& roots, const Io& io, const SourceSettings& settings,
                                          const PerfCalls& calls) {
    auto source = std::make_unique<PerfSource>(roots, io, calls, settings.options.empty() || settings.options[0] != 0);
    std::vector<std::string> known;
    for (const std::string& text : settings.targets) {
        auto target = parse_perf_target(text);
        const bool repeated = std::find(known.begin(), known.end(), text) != known.end();
        if (!target || repeated || known.size() >= kMaxTargets) {
            throw std::invalid_argument("sources.perf.targets: expected at most 64 different 'cgroup:/path' or "
                                        "'pid:number', found '" + text + "'; not started");
        }
        known.push_back(text);
        source->add_target(std::move(*target));
    }
    if (!roots.live()) return Error{Errc::unavailable, 0, kWhat};
    if (const auto opened = source->open_machine(); !opened && known.empty()) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

extern const SourceDescriptor perf_source;
const SourceDescriptor perf_source{
    "perf",
    "Switches, migrations, faults, cycles, instructions, cache and branch misses, through perf_event_open.",
    "Linux with CONFIG_PERF_EVENTS, and CAP_PERFMON or kernel.perf_event_paranoid <= 0",
    "give the collector CAP_PERFMON, or sysctl kernel.perf_event_paranoid=0; hardware events need a PMU",
    10'000,
    Lane::slow,
    open_perf,
    kOptions,
    "cgroup:/path or pid:number, counted beside the machine",
};

}  // namespace argus::sources
