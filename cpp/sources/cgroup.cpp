// Use, limits, throttling, pressure and events of control groups: containers, units, sessions.
// Source: version 2 cpu.stat, memory.*, io.stat, pids.*, *.pressure, cgroup.events; version 1 cpuacct.stat, cpu.stat,
//         memory.*, blkio.throttle.*, pids.*, freezer.state; kernel Documentation/admin-guide/cgroup-v2.rst and
//         cgroup-v1/. Hierarchies come from the mount table; one machine may have both versions, and a path in several
//         hierarchies is one group. Where the cpuacct controller is mounted as version 1, it and not cpu.stat tells
//         cpu time.
// Emits:  cgroup.* by cgroup.path, the path inside the hierarchy, with container.id, k8s.pod.uid and systemd.unit where
//         the names on the path tell them. OpenTelemetry names metrics of containers (container.cpu.time), but most
//         groups are none, and those above a container count it again: so one name, the conventions' attributes
//         (cpu.mode, disk.io.direction, system.paging.type), and container.id to tell containers apart. "max" is no
//         number: no limit, no series. The root group is the machine, which system.* describes: it is left out, unless
//         it is a container's own. I/O is summed over the devices as the kernel lists them, stacked ones beside those
//         below them. system.cgroup.count says how many are followed, and how many are left out by the bounds.
// Bounds: max_cgroups and max_series; the deepest groups are left out first, as those above them include their use.
// Cost:   kept descriptors, one pread a file (2 to 3 us) and one stat a directory (1 us): 6 ms for 200 groups of 11
//         files each, so the slow lane. Beyond max_descriptors or a quarter of RLIMIT_NOFILE files are opened at each
//         poll, for 6 us more. An open file costs the kernel some 5 KB.
// Failure: no hierarchy: Errc::unavailable. A group removed while it is read closes its series. A file that is absent
//         or refused (EOPNOTSUPP of *.pressure under psi=0, a controller not enabled) is asked for every 32 polls.
#include "sources/cgroup.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "sources/cgroup_tree.hpp"
#include "sources/kernel_file.hpp"
#include "sources/memory.hpp"
#include "sources/pressure.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kNoLimit = 4611686018427387904.0;  // 2^62: version 1 writes "no limit" as the last page below 2^63

struct SeriesRow {
    const char* name;
    const char* unit;
    Kind kind;
    const char* attributes;  // sorted; "" = none of its own
};

constexpr Kind C = Kind::counter;
constexpr Kind G = Kind::gauge;
constexpr SeriesRow kRows[] = {
    {"cgroup.cpu.time", "s", C, "cpu.mode=user"},
    {"cgroup.cpu.time", "s", C, "cpu.mode=system"},
    {"cgroup.cpu.periods", "{period}", C, ""},
    {"cgroup.cpu.throttled.periods", "{period}", C, ""},
    {"cgroup.cpu.throttled.time", "s", C, ""},
    {"cgroup.memory.usage", "By", G, ""},
    {"cgroup.memory.peak", "By", G, ""},
    {"cgroup.memory.swap", "By", G, ""},
    {"cgroup.memory.limit", "By", G, ""},
    {"cgroup.memory.high", "By", G, ""},
    {"cgroup.memory.working_set", "By", G, ""},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=anon"},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=file"},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=kernel"},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=shmem"},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=slab"},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=sock"},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=file_dirty"},
    {"cgroup.memory.stat", "By", G, "cgroup.memory.type=file_writeback"},
    {"cgroup.paging.faults", "{fault}", C, "system.paging.type=minor"},
    {"cgroup.paging.faults", "{fault}", C, "system.paging.type=major"},
    {"cgroup.memory.refaults", "{page}", C, ""},
    {"cgroup.memory.events", "{event}", C, "cgroup.memory.event=low"},
    {"cgroup.memory.events", "{event}", C, "cgroup.memory.event=high"},
    {"cgroup.memory.events", "{event}", C, "cgroup.memory.event=max"},
    {"cgroup.memory.events", "{event}", C, "cgroup.memory.event=oom"},
    {"cgroup.memory.events", "{event}", C, "cgroup.memory.event=oom_kill"},
    {"cgroup.disk.io", "By", C, "disk.io.direction=read"},
    {"cgroup.disk.io", "By", C, "disk.io.direction=write"},
    {"cgroup.disk.io", "By", C, "disk.io.direction=discard"},
    {"cgroup.disk.operations", "{operation}", C, "disk.io.direction=read"},
    {"cgroup.disk.operations", "{operation}", C, "disk.io.direction=write"},
    {"cgroup.disk.operations", "{operation}", C, "disk.io.direction=discard"},
    {"cgroup.pids.current", "{thread}", G, ""},
    {"cgroup.pids.max", "{thread}", G, ""},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=some,cgroup.pressure.resource=cpu"},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=full,cgroup.pressure.resource=cpu"},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=some,cgroup.pressure.resource=memory"},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=full,cgroup.pressure.resource=memory"},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=some,cgroup.pressure.resource=io"},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=full,cgroup.pressure.resource=io"},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=some,cgroup.pressure.resource=irq"},
    {"cgroup.pressure.stall_time", "s", C, "cgroup.pressure.kind=full,cgroup.pressure.resource=irq"},
    {"cgroup.populated", "1", G, ""},
    {"cgroup.frozen", "1", G, ""},
};
static_assert(std::size(kRows) == kCgroupSeries);

// --- Parsers ---------------------------------------------------------------------------------------------------------

// "key value" lines into the series each key stands for; kSkip = read by the caller.
constexpr std::size_t kSkip = kCgroupSeries;
struct KeyRow {
    std::string_view key;
    std::size_t series;
    double scale;
};

template <std::size_t N>
KeyTable table_of(const KeyRow (&rows)[N]) {
    std::array<std::string_view, N> keys;
    for (std::size_t i = 0; i < N; ++i) keys[i] = rows[i].key;
    return KeyTable(keys);
}

template <std::size_t N>
void fill(std::string_view text, const KeyTable& table, const KeyRow (&rows)[N], CgroupValues& out,
          KeyedValues& values) {
    static_assert(N <= KeyedValues::kMaxKeys);
    parse_keyed(text, table, values);
    out.malformed += values.malformed;
    for (std::size_t i = 0; i < N; ++i) {
        if (values.seen[i] && rows[i].series != kSkip) {
            out.of[rows[i].series] = static_cast<double>(values.values[i]) * rows[i].scale;
        }
    }
}

template <std::size_t N>
void fill(std::string_view text, const KeyTable& table, const KeyRow (&rows)[N], CgroupValues& out) {
    KeyedValues values;
    fill(text, table, rows, out, values);
}

// One number, or "max".
void scalar(std::string_view text, std::size_t series, CgroupValues& out) {
    Scanner scanner(text);
    std::string_view line;
    std::uint64_t value = 0;
    if (!scanner.line(line)) {
        ++out.malformed;
        return;
    }
    if (line == "max") return;
    Scanner number(line);
    if (!number.number(value) || !number.done()) {
        ++out.malformed;
    } else if (static_cast<double>(value) < kNoLimit) {
        out.of[series] = static_cast<double>(value);
    }
}

template <std::size_t Series>
void parse_scalar(std::string_view text, CgroupValues& out) {
    scalar(text, Series, out);
}

void parse_cpu_stat(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {
        {"user_usec", kCpuUser, 1e-6},       {"system_usec", kCpuSystem, 1e-6},
        {"nr_periods", kPeriods, 1},         {"nr_throttled", kThrottledPeriods, 1},
        {"throttled_usec", kThrottledTime, 1e-6},
    };
    static const KeyTable table = table_of(rows);
    fill(text, table, rows, out);
}

void parse_cpu_stat_v1(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {
        {"nr_periods", kPeriods, 1},
        {"nr_throttled", kThrottledPeriods, 1},
        {"throttled_time", kThrottledTime, 1e-9},
    };
    static const KeyTable table = table_of(rows);
    fill(text, table, rows, out);
}

void parse_cpuacct_stat(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {{"user", kCpuUser, 1}, {"system", kCpuSystem, 1}};
    static const KeyTable table = table_of(rows);
    static const double tick_s = 1.0 / static_cast<double>(std::max(1L, sysconf(_SC_CLK_TCK)));
    CgroupValues ticks;
    fill(text, table, rows, ticks);
    out.malformed += ticks.malformed;
    for (const std::size_t series : {kCpuUser, kCpuSystem}) {
        if (!std::isnan(ticks.of[series])) out.of[series] = ticks.of[series] * tick_s;
    }
}

// Faults are all of them in the file: the minor ones are the difference.
void finish_faults(CgroupValues& out) {
    const double minor = out.of[kMinorFaults] - out.of[kMajorFaults];
    out.of[kMinorFaults] = minor >= 0 ? minor : kNaN;
}

void parse_memory_stat(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {
        {"anon", kMemoryStat, 1},           {"file", kMemoryStat + 1, 1},
        {"kernel", kMemoryStat + 2, 1},     {"shmem", kMemoryStat + 3, 1},
        {"slab", kMemoryStat + 4, 1},       {"sock", kMemoryStat + 5, 1},
        {"file_dirty", kMemoryStat + 6, 1}, {"file_writeback", kMemoryStat + 7, 1},
        {"pgfault", kMinorFaults, 1},       {"pgmajfault", kMajorFaults, 1},
        {"inactive_file", kSkip, 1},        {"workingset_refault_anon", kSkip, 1},
        {"workingset_refault_file", kSkip, 1},
    };
    static const KeyTable table = table_of(rows);
    KeyedValues values;
    fill(text, table, rows, out, values);
    finish_faults(out);
    if (values.seen[10]) out.inactive_file = static_cast<double>(values.values[10]);
    if (values.seen[11] && values.seen[12]) {
        out.of[kRefaults] = static_cast<double>(values.values[11]) + static_cast<double>(values.values[12]);
    }
}

// The total_ lines include the groups below, as every number of version 2 does.
void parse_memory_stat_v1(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {
        {"total_rss", kMemoryStat, 1},       {"total_cache", kMemoryStat + 1, 1},
        {"total_shmem", kMemoryStat + 3, 1}, {"total_dirty", kMemoryStat + 6, 1},
        {"total_writeback", kMemoryStat + 7, 1}, {"total_pgfault", kMinorFaults, 1},
        {"total_pgmajfault", kMajorFaults, 1}, {"total_swap", kMemorySwap, 1},
        {"total_inactive_file", kSkip, 1},   {"total_workingset_refault_anon", kSkip, 1},
        {"total_workingset_refault_file", kSkip, 1},
    };
    static const KeyTable table = table_of(rows);
    KeyedValues values;
    fill(text, table, rows, out, values);
    finish_faults(out);
    if (values.seen[8]) out.inactive_file = static_cast<double>(values.values[8]);
    if (values.seen[9] && values.seen[10]) {
        out.of[kRefaults] = static_cast<double>(values.values[9]) + static_cast<double>(values.values[10]);
    }
}

void parse_memory_events(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {
        {"low", kMemoryEvents, 1},     {"high", kMemoryEvents + 1, 1},     {"max", kMemoryEvents + 2, 1},
        {"oom", kMemoryEvents + 3, 1}, {"oom_kill", kMemoryEvents + 4, 1},
    };
    static const KeyTable table = table_of(rows);
    fill(text, table, rows, out);
}

void parse_oom_control(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {{"oom_kill", kMemoryEvents + 4, 1}};
    static const KeyTable table = table_of(rows);
    fill(text, table, rows, out);
}

void parse_cgroup_events(std::string_view text, CgroupValues& out) {
    static constexpr KeyRow rows[] = {{"populated", kPopulated, 1}, {"frozen", kFrozen, 1}};
    static const KeyTable table = table_of(rows);
    CgroupValues found;
    fill(text, table, rows, found);
    for (const std::size_t series : {kPopulated, kFrozen}) {
        if (found.of[series] > 1) ++found.malformed;
        if (found.of[series] <= 1) out.of[series] = found.of[series];
    }
    out.malformed += found.malformed;
}

void parse_freezer_state(std::string_view text, CgroupValues& out) {
    Scanner scanner(text);
    const std::string_view state = scanner.word();
    if (state == "THAWED" || state == "FREEZING") {
        out.of[kFrozen] = 0;
    } else if (state == "FROZEN") {
        out.of[kFrozen] = 1;
    } else {
        ++out.malformed;
    }
}

void add_to(double& sum, std::uint64_t value) {
    sum = std::isnan(sum) ? static_cast<double>(value) : sum + static_cast<double>(value);
}

// "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0", any of the keys, perhaps others. Some
// kernels print a device that did nothing without keys and without ending its line.
void parse_io_stat(std::string_view text, CgroupValues& out) {
    constexpr std::string_view keys[] = {"rbytes=", "wbytes=", "dbytes=", "rios=", "wios=", "dios="};
    if (text.empty()) {  // no device did anything yet
        for (std::size_t i = 0; i < std::size(keys); ++i) out.of[kIoBytes + i] = 0;
        return;
    }
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) {
        Scanner words(line);
        for (std::string_view word = words.word(); !word.empty(); word = words.word()) {
            for (std::size_t i = 0; i < std::size(keys); ++i) {
                if (!word.starts_with(keys[i])) continue;
                Scanner number(word.substr(keys[i].size()));
                std::uint64_t value = 0;
                if (number.number(value)) {
                    add_to(out.of[kIoBytes + i], value);
                } else {
                    ++out.malformed;
                }
            }
        }
    }
    if (!scanner.done()) ++out.malformed;
}

// "8:0 Read 4096" a device and kind, "Total 4096" at the end; a machine without devices has only that.
void parse_blkio(std::string_view text, std::size_t series, CgroupValues& out) {
    constexpr std::string_view kinds[] = {"Read", "Write", "Discard"};
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) {
        Scanner words(line);
        const std::string_view device = words.word();
        std::uint64_t value = 0;
        if (device == "Total") {
            for (std::size_t i = 0; i < 2; ++i) add_to(out.of[series + i], 0);
            continue;
        }
        const std::string_view kind = words.word();
        if (!words.number(value)) {
            ++out.malformed;
            continue;
        }
        for (std::size_t i = 0; i < std::size(kinds); ++i) {
            if (kind == kinds[i]) add_to(out.of[series + i], value);
        }
    }
    if (!scanner.done()) ++out.malformed;
}

template <std::size_t Series>
void parse_blkio_into(std::string_view text, CgroupValues& out) {
    parse_blkio(text, Series, out);
}

template <std::size_t Resource>
void parse_stall(std::string_view text, CgroupValues& out) {
    const Pressure pressure = parse_pressure(text);
    out.malformed += pressure.malformed;
    for (std::size_t kind = 0; kind < 2; ++kind) {
        if (!pressure.lines[kind].present) continue;
        out.of[kStall + Resource * 2 + kind] = static_cast<double>(pressure.lines[kind].total_us) / 1e6;
    }
}

}  // namespace

void CgroupValues::clear() {
    of.fill(kNaN);
    inactive_file = kNaN;
    malformed = 0;
}

const std::array<CgroupFile, kCgroupFiles> cgroup_files{{
    {"cpu.stat", kUnified, 5, parse_cpu_stat},
    {"memory.current", kUnified, 1, parse_scalar<kMemoryUsage>},
    {"memory.peak", kUnified, 1, parse_scalar<kMemoryPeak>},
    {"memory.swap.current", kUnified, 1, parse_scalar<kMemorySwap>},
    {"memory.max", kUnified, 1, parse_scalar<kMemoryLimit>},
    {"memory.high", kUnified, 1, parse_scalar<kMemoryHigh>},
    {"memory.stat", kUnified, 12, parse_memory_stat},
    {"memory.events", kUnified, 5, parse_memory_events},
    {"io.stat", kUnified, 6, parse_io_stat},
    {"pids.current", kUnified, 1, parse_scalar<kPidsCurrent>},
    {"pids.max", kUnified, 1, parse_scalar<kPidsMax>},
    {"cpu.pressure", kUnified, 2, parse_stall<0>},
    {"memory.pressure", kUnified, 2, parse_stall<1>},
    {"io.pressure", kUnified, 2, parse_stall<2>},
    {"irq.pressure", kUnified, 1, parse_stall<3>},
    {"cgroup.events", kUnified, 2, parse_cgroup_events},
    {"cpuacct.stat", kCpuacct, 2, parse_cpuacct_stat},
    {"cpu.stat", kCpu, 3, parse_cpu_stat_v1},
    {"memory.usage_in_bytes", kMemory, 1, parse_scalar<kMemoryUsage>},
    {"memory.max_usage_in_bytes", kMemory, 1, parse_scalar<kMemoryPeak>},
    {"memory.limit_in_bytes", kMemory, 1, parse_scalar<kMemoryLimit>},
    {"memory.stat", kMemory, 10, parse_memory_stat_v1},
    {"memory.failcnt", kMemory, 1, parse_scalar<kMemoryEvents + 2>},
    {"memory.oom_control", kMemory, 1, parse_oom_control},
    {"blkio.throttle.io_service_bytes_recursive", kBlkio, 3, parse_blkio_into<kIoBytes>},
    {"blkio.throttle.io_serviced_recursive", kBlkio, 3, parse_blkio_into<kIoOperations>},
    {"pids.current", kPids, 1, parse_scalar<kPidsCurrent>},
    {"pids.max", kPids, 1, parse_scalar<kPidsMax>},
    {"freezer.state", kFreezer, 1, parse_freezer_state},
}};

// --- The source ------------------------------------------------------------------------------------------------------

namespace {

constexpr int kInterruptions = 16;
constexpr std::size_t kCapBytes = std::size_t{1} << 20;
constexpr std::uint64_t kRetryPolls = 32;

enum class FileState : std::uint8_t { unknown, present, absent };

struct OpenFile {
    int fd = -1;
    std::uint8_t kind = 0;       // index into cgroup_files
    std::uint8_t hierarchy = 0;
    FileState state = FileState::unknown;
    std::uint32_t lines = 0;     // of the last read that went to the end of the file
};

struct Group {
    std::string path;                                   // the hierarchy's, attribute cgroup.path
    std::array<std::uint64_t, kMaxHierarchies> ids{};   // of its directories; 0 = it is not in that hierarchy
    std::vector<OpenFile> files;
    std::array<SeriesSlot, kCgroupSeries> series;
    bool kept = false;                                  // while groups are matched: it is still there
};

struct Bounds {
    std::size_t groups;
    std::size_t series;
    std::size_t descriptors;
};

std::string attributes_of(const std::string& path, const char* own) {
    const CgroupIdentity identity = identify_cgroup(path);
    std::vector<std::string> parts;
    parts.push_back("cgroup.path=" + attribute_value(path.empty() ? "/" : path));
    if (!identity.container_id.empty()) parts.push_back("container.id=" + std::string(identity.container_id));
    if (!identity.pod_uid.empty()) parts.push_back("k8s.pod.uid=" + identity.pod_uid);
    if (!identity.systemd_unit.empty()) parts.push_back("systemd.unit=" + attribute_value(identity.systemd_unit));
    for (std::string_view rest = own; !rest.empty();) {
        const std::size_t comma = std::min(rest.find(','), rest.size());
        parts.emplace_back(rest.substr(0, comma));
        rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    std::sort(parts.begin(), parts.end());
    std::string out;
    for (const std::string& part : parts) out += (out.empty() ? "" : ",") + part;
    return out;
}

class CgroupSource final : public Source {
public:
    CgroupSource(const Roots& roots, const Io& io, Bounds bounds)
        : roots_(roots), io_(&io), bounds_(bounds), buffer_(16 * 1024) {}
    ~CgroupSource() override {
        for (Group& group : groups_) close_files(group);
    }

    [[nodiscard]] Result<bool> open() {
        trees_.clear();
        if (const auto found = find_hierarchies(roots_, *io_, hierarchies_); !found) return found.error();
        for (const Hierarchy& hierarchy : hierarchies_) trees_.emplace_back(*io_, hierarchy.directory);
        return true;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        ++polls_;
        PollReport report;
        error_ = {};
        if (trees_.empty()) {
            if (const auto again = open(); !again) return again.error();
        }
        if (!look(false, emit)) return error_;
        lost_ = false;
        for (Group& group : groups_) read_group(group, emit, report);
        if (lost_ && !look(true, emit)) return error_;
        if (report.emitted == 0 && error_.code != Errc::ok) return error_;
        constexpr const char* states[2] = {"followed", "left_out"};
        const std::size_t counts[2] = {groups_.size(), left_out_};
        for (std::size_t i = 0; i < 2; ++i) {
            counts_[i].emit(emit, report, static_cast<double>(counts[i]), [&] {
                return SeriesInfo{"system.cgroup.count", "{cgroup}", Kind::gauge,
                                  std::string("cgroup.state=") + states[i]};
            });
        }
        return report;
    }

private:
    // Follows what is there now. False, with error_ set, when no hierarchy can be listed: all groups are forgotten, and
    // the next poll asks the mount table again.
    [[nodiscard]] bool look(bool force, Emit& emit) {
        bool changed = false;
        std::size_t listed = 0;
        for (CgroupTree& tree : trees_) {
            const auto walked = tree.refresh(force);
            if (!walked) {
                error_ = walked.error();
                const bool gone = tree.nodes().empty();
                changed = changed || gone;
                listed += gone ? 0 : 1;
                continue;
            }
            ++listed;
            changed = changed || *walked;
        }
        if (changed) follow(emit);
        if (listed == 0) {
            trees_.clear();
            return false;
        }
        return true;
    }

    struct Found {
        std::string path;
        std::uint32_t depth;
        std::size_t hierarchy;
        std::uint64_t id;
    };

    [[nodiscard]] bool is_machine(std::size_t hierarchy) {
        const Hierarchy& of = hierarchies_[hierarchy];
        const bool unified = of.controllers == kUnified;
        path_.assign(of.directory).append(unified ? "/cgroup.events" : "/release_agent");
        const bool there = ::access(path_.c_str(), F_OK) == 0;
        return of.prefix.empty() && there != unified;  // version 2 keeps the one, version 1 the other, for its children
    }

    // Every group of every hierarchy, those of one path beside each other, the shallow ones first.
    [[nodiscard]] std::vector<Found> collect() {
        std::vector<Found> found;
        left_out_ = 0;
        for (std::size_t h = 0; h < trees_.size(); ++h) {
            left_out_ += trees_[h].left_out();
            for (const CgroupNode& node : trees_[h].nodes()) {
                if (node.depth == 0 && is_machine(h)) continue;
                found.push_back({hierarchies_[h].prefix + node.local, node.depth, h, node.id});
            }
        }
        std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
            return std::tie(a.depth, a.path, a.hierarchy) < std::tie(b.depth, b.path, b.hierarchy);
        });
        return found;
    }

    void follow(Emit& emit) {
        const std::vector<Found> found = collect();
        for (Group& group : groups_) group.kept = false;
        std::vector<Group> now;
        std::size_t series = 0;
        for (std::size_t at = 0; at < found.size();) {
            std::array<std::uint64_t, kMaxHierarchies> ids{};
            const std::string& path = found[at].path;
            std::size_t end = at;
            for (; end < found.size() && found[end].path == path; ++end) ids[found[end].hierarchy] = found[end].id;
            at = end;
            if (now.size() >= bounds_.groups || series >= bounds_.series) {
                ++left_out_;
                continue;
            }
            now.push_back(take(path, ids));
            series += series_of(now.back());
            if (series > bounds_.series) {
                forget(now.back(), emit);
                now.pop_back();
                ++left_out_;
            }
        }
        for (Group& group : groups_) {
            if (!group.kept) forget(group, emit);
        }
        groups_ = std::move(now);
    }

    // The group that was followed under this path, or a new one; a directory of another identity is another group.
    [[nodiscard]] Group take(const std::string& path, const std::array<std::uint64_t, kMaxHierarchies>& ids) {
        const auto same = std::find_if(groups_.begin(), groups_.end(), [&](const Group& group) {
            if (group.kept || group.path != path) return false;
            for (std::size_t h = 0; h < ids.size(); ++h) {
                if (group.ids[h] != 0 && ids[h] != 0 && group.ids[h] != ids[h]) return false;
            }
            return true;
        });
        if (same != groups_.end() && same->ids == ids) {
            Group out = std::move(*same);
            same->kept = true;
            return out;
        }
        Group out;
        if (same != groups_.end()) {  // a hierarchy more or less: the series stay
            out.series = same->series;
            close_files(*same);
            same->kept = true;
        }
        out.path = path;
        out.ids = ids;
        for (std::size_t h = 0; h < hierarchies_.size(); ++h) {
            if (ids[h] != 0) add_files(out, h);
        }
        for (OpenFile& file : out.files) (void)open_file(out, file);
        return out;
    }

    void add_files(Group& group, std::size_t hierarchy) const {
        bool ticks = false;
        for (std::size_t h = 0; h < hierarchies_.size(); ++h) {
            ticks = ticks || (group.ids[h] != 0 && (hierarchies_[h].controllers & kCpuacct) != 0);
        }
        for (std::size_t kind = 0; kind < cgroup_files.size(); ++kind) {
            const CgroupFile& file = cgroup_files[kind];
            if ((file.controllers & hierarchies_[hierarchy].controllers) == 0) continue;
            if (file.parse == parse_cpu_stat && ticks) continue;
            group.files.push_back({-1, static_cast<std::uint8_t>(kind), static_cast<std::uint8_t>(hierarchy)});
        }
    }

    [[nodiscard]] static std::size_t series_of(const Group& group) {
        std::size_t count = 0;
        for (const OpenFile& file : group.files) {
            if (file.state != FileState::absent) count += cgroup_files[file.kind].series;
        }
        return count;
    }

    void close_files(Group& group) {
        for (OpenFile& file : group.files) close_file(file);
    }

    void close_file(OpenFile& file) {
        if (file.fd < 0) return;
        io_->close(file.fd);
        file.fd = -1;
        --kept_;
    }

    void forget(Group& group, Emit& emit) {
        close_files(group);
        for (SeriesSlot& slot : group.series) slot.close(emit);
    }

    // 0 or -errno; the descriptor counts as kept until it is closed.
    int open_file(const Group& group, OpenFile& file) {
        const Hierarchy& hierarchy = hierarchies_[file.hierarchy];
        path_.assign(hierarchy.directory).append(group.path, hierarchy.prefix.size()).append("/");
        path_.append(cgroup_files[file.kind].name);
        int fd = -EINTR;
        for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) {
            fd = io_->open_at(AT_FDCWD, path_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
        }
        if (fd < 0) {
            const bool scarce = fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -EINTR;
            file.state = scarce ? FileState::unknown : FileState::absent;
            return fd;
        }
        file.fd = fd;
        file.state = FileState::present;
        ++kept_;
        if (kept_ > bounds_.descriptors && !reading_) close_file(file);
        return 0;
    }

    // The whole file into buffer_; its size, or -errno. Asking these files for what follows their end costs as much as
    // reading them, and what is short may only be cut: so the end is taken for granted after as many lines as it had.
    [[nodiscard]] ssize_t fill(OpenFile& file) {
        std::size_t size = 0;
        std::uint32_t lines = 0;
        int interruptions = 0;
        while (true) {
            if (size == buffer_.size()) {
                if (size >= kCapBytes) return -EFBIG;
                buffer_.resize(std::min(kCapBytes, size * 2));
            }
            char* at = buffer_.data() + size;
            const ssize_t got = io_->pread(file.fd, at, buffer_.size() - size, static_cast<off_t>(size));
            if (got > 0) {
                size += static_cast<std::size_t>(got);
                lines += static_cast<std::uint32_t>(std::count(at, at + got, '\n'));
                interruptions = 0;
                const bool ended = lines == file.lines && buffer_[size - 1] == '\n' && size < buffer_.size();
                if (ended) return static_cast<ssize_t>(size);
            } else if (got == 0) {
                file.lines = std::max(lines, 1U);
                return static_cast<ssize_t>(size);
            } else if (got != -EINTR || ++interruptions > kInterruptions) {
                return got;
            }
        }
    }

    // A descriptor of a removed group answers ENODEV: the path may be a new group's already, so it is opened once more,
    // and the groups are walked at the end of the poll.
    [[nodiscard]] ssize_t read_file(const Group& group, OpenFile& file) {
        for (int attempt = 0;; ++attempt) {
            if (file.fd < 0) {
                if (const int opened = open_file(group, file); opened < 0) {
                    if (opened == -ENOENT && attempt > 0) lost_ = true;
                    return opened;
                }
            }
            const ssize_t size = fill(file);
            if (size >= 0 || size == -EFBIG || size == -EINTR) return size;
            close_file(file);
            if (size == -EOPNOTSUPP) file.state = FileState::absent;
            const bool stale = size == -ENODEV || size == -ENOENT || size == -ESTALE || size == -EBADF;
            if (!stale) return size;
            lost_ = true;
            if (attempt > 0) return size;
        }
    }

    void read_group(Group& group, Emit& emit, PollReport& report) {
        values_.clear();
        reading_ = true;
        for (OpenFile& file : group.files) {
            // Not all groups' absent files at once: each group has its turn.
            const bool again = (polls_ + group.path.size()) % kRetryPolls == 0;
            if (file.state == FileState::absent && !again) continue;
            const bool known = file.state == FileState::present;
            const ssize_t size = read_file(group, file);
            if (size >= 0) {
                cgroup_files[file.kind].parse({buffer_.data(), static_cast<std::size_t>(size)}, values_);
            } else if (known || file.state == FileState::unknown) {
                error_ = {errc_of(static_cast<int>(-size)), static_cast<int>(-size), cgroup_files[file.kind].name};
                if (known && size == -ENOENT) lost_ = true;
            }
            if (kept_ > bounds_.descriptors) close_file(file);
        }
        reading_ = false;
        report.malformed += values_.malformed;
        const double reclaimable = values_.inactive_file;
        const double used = values_.of[kMemoryUsage];
        values_.of[kWorkingSet] = used > reclaimable ? used - reclaimable : used <= reclaimable ? 0 : kNaN;
        for (std::size_t i = 0; i < kCgroupSeries; ++i) {
            if (std::isnan(values_.of[i])) continue;
            group.series[i].emit(emit, report, values_.of[i], [&] {
                return SeriesInfo{kRows[i].name, kRows[i].unit, kRows[i].kind,
                                  attributes_of(group.path, kRows[i].attributes)};
            });
        }
    }

    Roots roots_;
    const Io* io_;
    Bounds bounds_;
    std::vector<Hierarchy> hierarchies_;
    std::vector<CgroupTree> trees_;
    std::vector<Group> groups_;
    std::array<SeriesSlot, 2> counts_;
    CgroupValues values_;
    std::vector<char> buffer_;
    std::string path_;
    Error error_{};
    std::uint64_t polls_ = 0;
    std::size_t kept_ = 0;      // descriptors
    std::size_t left_out_ = 0;  // groups
    bool lost_ = false;         // a file of a group was gone in this poll
    bool reading_ = false;
};

constexpr Option kOptions[] = {
    {"max_cgroups", "{cgroup}", 512, 1, 16384,
     "Groups followed at most. The deepest are left out first: those above them include their use."},
    {"max_series", "{series}", 8192, 64, 1e6,
     "Series of all groups together at most, 5 to 45 each; what would exceed it is left out, the deepest first."},
    {"max_descriptors", "{descriptor}", 4096, 0, 65536,
     "Files kept open at most, and never more than a quarter of RLIMIT_NOFILE; the rest is opened at each poll."},
};

Result<std::unique_ptr<Source>> open_cgroup(const Roots& roots, const Io& io, const SourceSettings& settings) {
    Bounds bounds{static_cast<std::size_t>(settings.options[0]), static_cast<std::size_t>(settings.options[1]),
                  static_cast<std::size_t>(settings.options[2])};
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        bounds.descriptors = std::min(bounds.descriptors, static_cast<std::size_t>(limit.rlim_cur / 4));
    }
    auto source = std::make_unique<CgroupSource>(roots, io, bounds);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor cgroup_source;
const SourceDescriptor cgroup_source{
    "cgroup",
    "Processor time, memory, I/O, tasks, pressure and events of control groups, versions 1 and 2, by path.",
    "a mounted cgroup hierarchy of version 1 or 2 (CONFIG_CGROUPS)",
    "mount -t cgroup2 none /sys/fs/cgroup, or point `cgroup` at where it is mounted; in a container share the host's",
    10'000,
    Lane::slow,
    open_cgroup,
    kOptions,
};

}  // namespace argus::sources
