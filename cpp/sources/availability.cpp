// Whether what you name is there: systemd units, processes, TCP ports, HTTP pages; and for how much of the time it was.
// Source: unit:     <cgroup>/<unit>/cgroup.events, else cgroup.procs (kernel Documentation/admin-guide/cgroup-v2.rst;
//                   systemd.slice(5)): a unit is up while processes live in it. No D-Bus: a oneshot unit that ended
//                   well has none and is down. Units outside system.slice are named by their path.
//         process:  /proc/<pid>/stat, and the exe link where no name fits (it takes the right to trace the process).
//                   Zombies are down. What hidepid hides is down too.
//         port, http: a non-blocking TCP connect from here, and one GET: a status below 400 is up.
// Emits:  availability.up, 1 or 0; .since, s Unix, of the last change or the first look; .uptime_ratio {window}, share
//         of looks that were up; .response_time, s, of ports and pages that are up. By availability.kind, .target.
// Cost:   a process takes one pread while it lives, else one of every process; sockets: at most kBudget a poll, for all
//         together; what has not answered by then is looked at in the next. At most kMaxAvailabilityTargets.
// Failure: what cannot be judged (no control groups, no descriptor left) is missing, never 0.
#include "sources/availability.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "sources/connection_probe.hpp"
#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

using Outcome = ConnectionProbe::Outcome;

constexpr Nanos kBudget = 20 * kMillisecond;
constexpr Nanos kMinute = 60 * kSecond;
constexpr std::size_t kNameBytes = 15;  // the kernel cuts names there
constexpr std::size_t kStatBytes = 512;
constexpr std::size_t kPathBytes = 4096;
constexpr std::size_t kListBytes = 32 * 1024;

constexpr Option kOptions[] = {
    {"timeout_s", "s", 2.0, 0.1, 60.0, "Time after which a port or page that has not answered is down."},
};
constexpr std::size_t kTimeout = 0;

Nanos monotonic() noexcept { return read_clock(CLOCK_MONOTONIC); }

// One control group: does a process live in it or below? Opened anew each time: a unit that starts again gets another
// folder of the same name.
class Group {
public:
    Group(const Io& io, const std::string& folder)
        : io_(&io), events_(folder + "/cgroup.events"), procs_(folder + "/cgroup.procs") {}

    // Nothing when there is no such group, or it does not tell.
    [[nodiscard]] std::optional<bool> populated() const noexcept {
        char bytes[256];
        ssize_t size = read(events_, bytes, sizeof bytes);
        const std::string_view text(bytes, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
        if (text.find("populated 1\n") != std::string_view::npos) return true;
        if (text.find("populated 0\n") != std::string_view::npos) return false;
        size = read(procs_, bytes, sizeof bytes);
        return size < 0 ? std::nullopt : std::optional(size > 0);
    }

private:
    [[nodiscard]] ssize_t read(const std::string& path, char* out, std::size_t size) const noexcept {
        const int fd = io_->open_at(AT_FDCWD, path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
        if (fd < 0) return fd;
        const ssize_t got = io_->pread(fd, out, size, 0);
        io_->close(fd);
        return got;
    }

    const Io* io_;
    std::string events_;
    std::string procs_;
};

struct Watch {
    explicit Watch(Target what) : target(std::move(what)) {}

    void judge(Nanos now, bool is_up) noexcept {
        if (!known || is_up != up) since_s = static_cast<double>(read_clock(CLOCK_REALTIME)) * 1e-9;
        known = seen = true;
        up = is_up;
        hour.see(now, is_up);
        day.see(now, is_up);
    }

    Target target;
    std::vector<Group> groups;   // unit
    std::int32_t pid = 0;                         // process: the one found last
    std::unique_ptr<ConnectionProbe> probe;       // port, http
    bool known = false;
    bool seen = false;  // judged in this poll
    bool up = false;
    double since_s = 0;
    double response_s = std::numeric_limits<double>::quiet_NaN();
    UptimeShare<60, kMinute> hour;
    UptimeShare<96, 15 * kMinute> day;
    SeriesSlot up_slot, since_slot, hour_slot, day_slot, response_slot;
};

// The processes of one /proc, found by name.
class ProcessFinder {
public:
    ProcessFinder(const Io& io, std::string proc) : io_(&io), proc_(std::move(proc)), list_(kListBytes) {}
    ~ProcessFinder() {
        if (folder_ >= 0) io_->close(folder_);
    }
    ProcessFinder(const ProcessFinder&) = delete;
    ProcessFinder& operator=(const ProcessFinder&) = delete;

    [[nodiscard]] Error open() noexcept {
        folder_ = io_->open_at(AT_FDCWD, proc_.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
        return folder_ >= 0 ? Error{} : Error{errc_of(-folder_), -folder_, "proc"};
    }
    void close() noexcept { io_->close(std::exchange(folder_, -1)); }

    // Calls found(pid) for each process until it returns false; false when the folder cannot be read.
    template <class Found>
    bool each(Found&& found) {
        while (true) {
            const ssize_t got = io_->get_dents(folder_, list_.data(), list_.size());
            if (got == -EINTR) continue;
            if (got <= 0) return got == 0;
            for (std::size_t at = 0; at + offsetof(dirent64, d_name) < static_cast<std::size_t>(got);) {
                const auto* entry = reinterpret_cast<const dirent64*>(list_.data() + at);
                if (entry->d_reclen == 0) return false;
                std::uint64_t pid = 0;
                const char* name = entry->d_name;
                const bool number = *name > '0' && *name <= '9' && Scanner(name).number(pid);
                if (number && pid <= INT32_MAX && !found(static_cast<std::int32_t>(pid))) return true;
                at += entry->d_reclen;
            }
        }
    }

    // Reads who `pid` is, for matches(); false when no such process lives.
    [[nodiscard]] bool look(std::int32_t pid) noexcept {
        char path[32];
        std::snprintf(path, sizeof path, "%d/stat", pid);
        const int fd = io_->open_at(folder_, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
        if (fd < 0) return false;
        const ssize_t got = io_->pread(fd, stat_, sizeof stat_, 0);
        io_->close(fd);
        pid_ = pid;
        exe_size_ = kNotRead;
        char state = 0;
        if (got <= 0 || !name_and_state({stat_, static_cast<std::size_t>(got)}, comm_, state)) return false;
        return state != 'Z' && state != 'X';
    }

    // Whether the process looked at last is called that, or its executable is.
    [[nodiscard]] bool matches(std::string_view name) noexcept {
        if (comm_ == name && name.size() <= kNameBytes) return true;
        const std::string_view exe = executable();
        if (!exe.empty()) return exe == name;
        return comm_.size() == kNameBytes && name.starts_with(comm_);  // cut, and all that may be seen
    }

private:
    static constexpr ssize_t kNotRead = -2;

    // The last part of its path; empty when that may not be seen.
    [[nodiscard]] std::string_view executable() noexcept {
        constexpr std::string_view kDeleted = " (deleted)";
        if (exe_size_ == kNotRead) {
            char path[32];
            std::snprintf(path, sizeof path, "%d/exe", pid_);
            exe_size_ = ::readlinkat(folder_, path, exe_, sizeof exe_);
        }
        if (exe_size_ <= 0) return {};
        std::string_view exe(exe_, static_cast<std::size_t>(exe_size_));
        if (exe.ends_with(kDeleted)) exe.remove_suffix(kDeleted.size());
        return exe.substr(exe.rfind('/') + 1);
    }

    const Io* io_;
    std::string proc_;
    int folder_ = -1;
    std::vector<char> list_;
    std::int32_t pid_ = 0;
    std::string_view comm_;
    ssize_t exe_size_ = kNotRead;
    char stat_[kStatBytes];
    char exe_[kPathBytes];
};

class AvailabilitySource final : public Source {
public:
    AvailabilitySource(const Roots& roots, const Io& io, const SourceSettings& settings)
        : live_(roots.live()),
          timeout_(static_cast<Nanos>(settings.options[kTimeout] * 1e9)),
          finder_(io, roots.proc) {
        const std::string root = roots.cgroup.empty() ? roots.sys + "/fs/cgroup" : roots.cgroup;
        const std::string trees[] = {root, root + "/unified", root + "/systemd"};
        for (const std::string& tree : trees) systemd_.emplace_back(io, tree + "/system.slice");
        if (settings.targets.size() > kMaxAvailabilityTargets) {
            throw std::invalid_argument("sources.availability.targets: expected at most 64, found " +
                                        std::to_string(settings.targets.size()));
        }
        for (const std::string& written : settings.targets) {
            Watch watch(parse_target(written));
            const Target& target = watch.target;
            for (const Watch& other : watches_) {
                if (other.target.kind == target.kind && other.target.name == target.name) {
                    throw std::invalid_argument("sources.availability.targets: expected each once, found '" + written +
                                                "' twice");
                }
            }
            for (const std::string& tree : trees) {
                for (const std::string& path : target.paths) {
                    watch.groups.emplace_back(io, tree + "/" + path);
                }
            }
            if (target.address_size != 0) {
                watch.probe = std::make_unique<ConnectionProbe>(target.address, target.address_size, target.request);
            }
            watches_.push_back(std::move(watch));
        }
        waiting_.reserve(watches_.size());
    }

    // Sockets are of this machine alone.
    [[nodiscard]] Result<bool> open() const {
        const bool asks = std::any_of(watches_.begin(), watches_.end(), [](const Watch& w) { return !w.probe; });
        if (watches_.empty()) return Error{Errc::unavailable, 0, "sources.availability.targets"};
        if (live_ || asks) return true;
        return Error{Errc::unavailable, 0, "ports and pages of this machine"};
    }

    [[nodiscard]] Result<PollReport> poll(Nanos now, Emit& emit) override {
        PollReport report;
        for (Watch& watch : watches_) watch.seen = false;
        if (live_) ask_all(now);
        look_at_units(now);
        const Error error = look_at_processes(now);
        for (Watch& watch : watches_) {
            if (watch.seen) emit_watch(watch, now, emit, report);
        }
        if (report.emitted == 0 && error.code != Errc::ok) return error;
        return report;
    }

private:
    // --- units and processes ---

    void look_at_units(Nanos now) {
        const auto any = [](const std::vector<Group>& groups) {
            std::optional<bool> found;
            for (const Group& group : groups) {
                const auto populated = group.populated();
                if (populated && !found.value_or(false)) found = populated;
            }
            return found;
        };
        std::optional<bool> systemd;
        for (Watch& watch : watches_) {
            if (watch.target.kind != TargetKind::unit) continue;
            if (const auto populated = any(watch.groups)) {
                watch.judge(now, *populated);
                continue;
            }
            if (!systemd) systemd = any(systemd_).has_value();
            if (*systemd) watch.judge(now, false);  // groups are to be seen, and this one is not among them
        }
    }

    Error look_at_processes(Nanos now) {
        const auto wanted = [](const Watch& watch) { return watch.target.kind == TargetKind::process; };
        if (std::none_of(watches_.begin(), watches_.end(), wanted)) return {};
        if (const Error error = finder_.open(); error.code != Errc::ok) return error;
        std::size_t missing = 0;
        for (Watch& watch : watches_) {
            if (!wanted(watch)) continue;
            const bool there = watch.pid != 0 && finder_.look(watch.pid) && finder_.matches(watch.target.name);
            if (!there) watch.pid = 0;
            missing += watch.pid == 0;
        }
        bool listed = true;
        if (missing > 0) {
            listed = finder_.each([&](std::int32_t pid) {
                if (!finder_.look(pid)) return true;
                for (Watch& watch : watches_) {
                    if (!wanted(watch) || watch.pid != 0 || !finder_.matches(watch.target.name)) continue;
                    watch.pid = pid;
                    --missing;
                }
                return missing > 0;
            });
        }
        finder_.close();
        for (Watch& watch : watches_) {
            if (wanted(watch) && (listed || watch.pid != 0)) watch.judge(now, watch.pid != 0);
        }
        return {};
    }

    // --- ports and pages ---

    void ask_all(Nanos now) {
        Nanos at = monotonic();
        for (Watch& watch : watches_) {
            if (!watch.probe) continue;
            if (watch.probe->asking()) note(watch, now, watch.probe->advance(at, timeout_, false));
            if (!watch.probe->asking()) note(watch, now, watch.probe->start(monotonic()));
        }
        const Nanos end = at + kBudget;
        while (gather() && (at = monotonic()) < end) {
            const Nanos left = end - at;
            const timespec wait{0, static_cast<long>(left)};
            if (::ppoll(waiting_.data(), waiting_.size(), &wait, nullptr) == 0) break;
            at = monotonic();
            for (Watch& watch : watches_) {
                if (watch.probe && watch.probe->asking()) note(watch, now, watch.probe->advance(at, timeout_, true));
            }
        }
    }

    bool gather() {
        waiting_.clear();
        for (const Watch& watch : watches_) {
            if (watch.probe && watch.probe->asking()) {
                waiting_.push_back({watch.probe->fd(), watch.probe->events(), 0});
            }
        }
        return !waiting_.empty();
    }

    static void note(Watch& watch, Nanos now, Outcome outcome) noexcept {
        if (outcome != Outcome::up && outcome != Outcome::down) return;
        watch.response_s = watch.probe->response_s();
        watch.judge(now, outcome == Outcome::up);
    }

    // --- series ---

    static void emit_watch(Watch& watch, Nanos now, Emit& emit, PollReport& report) {
        const auto put = [&](SeriesSlot& slot, double value, const char* name, const char* unit, const char* window) {
            slot.emit(emit, report, value, [&] {
                std::string attributes = std::string("availability.kind=") + to_string(watch.target.kind);
                attributes += ",availability.target=" + attribute_value(watch.target.name);
                if (*window != '\0') attributes += std::string(",availability.window=") + window;
                return SeriesInfo{name, unit, Kind::gauge, attributes};
            });
        };
        put(watch.up_slot, watch.up ? 1 : 0, "availability.up", "{target}", "");
        put(watch.since_slot, watch.since_s, "availability.since", "s", "");
        put(watch.hour_slot, watch.hour.share(now), "availability.uptime_ratio", "1", "1h");
        put(watch.day_slot, watch.day.share(now), "availability.uptime_ratio", "1", "1d");
        if (std::isfinite(watch.response_s)) {
            put(watch.response_slot, watch.response_s, "availability.response_time", "s", "");
        }
    }

    bool live_;
    Nanos timeout_;
    ProcessFinder finder_;
    std::vector<Group> systemd_;
    std::vector<Watch> watches_;
    std::vector<pollfd> waiting_;
};

Result<std::unique_ptr<Source>> open_availability(const Roots& roots, const Io& io, const SourceSettings& settings) {
    auto source = std::make_unique<AvailabilitySource>(roots, io, settings);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor availability_source;
const SourceDescriptor availability_source{
    "availability",
    "Whether the units, processes, ports and pages that you name are there, and for how much of the time they were.",
    "targets in its configuration; for units a mounted control-group tree, for processes /proc",
    "name targets under [sources.availability]; in a container point `cgroup` and `proc` at the host's",
    10'000,
    Lane::slow,
    open_availability,
    kOptions,
    "What must be there: \"unit:ssh.service\", \"process:postgres\", \"port:127.0.0.1:5432\", "
    "\"http://127.0.0.1:8080/healthz\" (no https, no names to look up); at most 64.",
};

}  // namespace argus::sources
