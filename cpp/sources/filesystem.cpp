// Space and inodes of each mounted file system.
// Source: /proc/self/mountinfo (man proc_pid_mountinfo(5)) and statfs(2). With another proc root: <proc>/1/mountinfo,
//         and the paths below <proc>/1/root, which must be a real procfs; in a tree of copied files there is nothing to
//         ask, so the source is unavailable.
// Emits:  system.filesystem.usage {used, free, reserved}, .limit (By), .utilization (as df: used of used and free),
//         .inodes.usage {used, free}, by system.device, .mountpoint, .type and .mode; .readonly and .responding without
//         the mode, so that they go on when it changes; .unresponsive: how many do not answer.
// Which:  see is_followed; overlay only at "/"; at most 256, those beyond are counted as malformed.
// Hangs:  statfs of a network file system without its server waits for ever, so a helper thread asks. A mount that has
//         not answered within timeout_ms is left out until its call returns, and the thread that hangs in it is left
//         alone. At most four threads hang; the last is kept for local file systems. poll waits for the answers, 4
//         times timeout_ms at most and only when a mount begins to hang; the lock is never held while asking.
// Cost:   one pread, two thread switches, 1 us a mount: slow lane. Unreadable mount table: Errc of the file.
#include "sources/filesystem.hpp"

#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "sources/escapes.hpp"
#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMaxMounts = 256;
constexpr std::size_t kMaxHung = 4;
constexpr std::size_t kMountTableBytes = std::size_t{4} << 20;  // thousands of container mounts

constexpr std::string_view kPseudo[] = {
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
    "erofs", "fuse.gvfsd-fuse", "fuse.lxcfs", "fuse.portal", "fusectl", "hugetlbfs", "iso9660", "mqueue", "nfsd",
    "nsfs", "proc", "pstore", "ramfs", "resctrl", "rootfs", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs",
    "squashfs", "sysfs", "tracefs",
};
constexpr std::string_view kPrivate[] = {  // what is mounted below these
    "/dev", "/proc", "/sys", "/run/containerd", "/run/credentials", "/var/lib/containers/storage", "/var/lib/docker",
};
constexpr std::string_view kRemote[] = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "9p", "afs", "coda",
    "ocfs2", "gfs2", "orangefs", "virtiofs", "fuse", "fuseblk",
};

template <std::size_t N>
bool any_of(const std::string_view (&list)[N], std::string_view word) noexcept {
    return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

bool below(std::string_view path, std::string_view folder) noexcept {
    return path.starts_with(folder) && path.size() > folder.size() && path[folder.size()] == '/';
}

// The text up to the next single space, which is taken with it: a field may be empty.
std::string_view take_field(std::string_view& line) noexcept {
    const std::size_t stop = std::min(line.find(' '), line.size());
    const std::string_view field = line.substr(0, stop);
    line.remove_prefix(std::min(stop + 1, line.size()));
    return field;
}

bool has_option(std::string_view options, std::string_view wanted) noexcept {
    while (!options.empty()) {
        const std::size_t stop = std::min(options.find(','), options.size());
        if (options.substr(0, stop) == wanted) return true;
        options.remove_prefix(std::min(stop + 1, options.size()));
    }
    return false;
}

bool parse_id(std::string_view field, std::uint64_t& id) noexcept {
    const std::size_t colon = field.find(':');
    if (colon == std::string_view::npos) return false;
    Scanner major_text(field.substr(0, colon));
    Scanner minor_text(field.substr(colon + 1));
    std::uint64_t major_number = 0;
    std::uint64_t minor_number = 0;
    if (!major_text.number(major_number) || !minor_text.number(minor_number)) return false;
    if (major_number >> 32 != 0 || minor_number >> 32 != 0) return false;
    id = major_number << 32 | minor_number;
    return true;
}

}  // namespace

Result<Mount> parse_mount(std::string_view line) {
    constexpr Error kMalformed{Errc::malformed, 0,
                               "mountinfo: expected 'id parent major:minor root point options - type device options'"};
    Mount out;
    (void)take_field(line);
    (void)take_field(line);
    if (!parse_id(take_field(line), out.id)) return kMalformed;
    out.whole = take_field(line) == "/";
    const std::string_view point = take_field(line);
    if (!point.starts_with('/')) return kMalformed;
    out.read_only = has_option(take_field(line), "ro");
    std::string_view optional = take_field(line);
    while (optional != "-") {
        if (line.empty()) return kMalformed;
        optional = take_field(line);
    }
    const std::string_view type = take_field(line);
    if (type.empty()) return kMalformed;
    out.type = octal_unescaped(type);
    out.device = octal_unescaped(take_field(line));
    out.point = octal_unescaped(point);
    out.read_only = out.read_only || has_option(take_field(line), "ro");
    return out;
}

bool is_followed(const Mount& mount) noexcept {
    if (any_of(kPseudo, mount.type)) return false;
    if (mount.type == "overlay") return mount.point == "/";
    if (mount.point == "/dev/shm") return true;  // memory that programs fill
    if (mount.type == "tmpfs" && below(mount.point, "/var/lib/kubelet")) return false;  // secrets, several a pod
    return std::none_of(std::begin(kPrivate), std::end(kPrivate),
                        [&](std::string_view folder) { return below(mount.point, folder); });
}

bool is_remote(std::string_view type) noexcept { return any_of(kRemote, type) || type.starts_with("fuse."); }

MountTable parse_mounts(std::string_view text) {
    MountTable out;
    Scanner scanner(text);
    std::string_view line;
    std::vector<Mount> visible;
    while (scanner.line(line)) {
        auto mount = parse_mount(line);
        if (!mount) {
            ++out.malformed;
            continue;
        }
        std::erase_if(visible, [&](const Mount& other) { return other.point == mount->point; });
        visible.push_back(std::move(*mount));
    }
    out.complete = scanner.done();
    if (!out.complete) ++out.malformed;
    for (Mount& mount : visible) {
        if (!is_followed(mount)) continue;
        const auto same = std::find_if(out.mounts.begin(), out.mounts.end(),
                                       [&](const Mount& other) { return other.id == mount.id; });
        if (same != out.mounts.end()) {
            if (mount.whole && !same->whole) *same = std::move(mount);
        } else if (out.mounts.size() < kMaxMounts) {
            out.mounts.push_back(std::move(mount));
        } else {
            ++out.malformed;
        }
    }
    return out;
}

namespace {

using SteadyClock = std::chrono::steady_clock;

struct Answer {
    int error = 0;  // of statfs; 0 = the rest holds
    double block_bytes = 0;
    std::uint64_t blocks = 0, blocks_free = 0, blocks_available = 0;
    std::uint64_t files = 0, files_free = 0;
};

// What the source and its helper thread share. Both hold it, because a thread that hangs outlives the source.
struct Round {
    std::vector<std::string> paths;  // fixed before the thread starts
    StatfsFunction ask = nullptr;

    std::mutex mutex;  // of what follows; never held while asking
    std::condition_variable changed;
    std::vector<char> wanted;    // whom to ask
    std::vector<char> answered;  // in this round
    std::vector<Answer> answers;
    std::size_t at = 0;  // whom it is asking
    SteadyClock::time_point since;  // since when; holds once begun
    bool begun = false;
    bool running = false;
    bool stop = false;
    bool exited = false;
};

Answer ask_one(StatfsFunction ask, const char* path) noexcept {
    struct statfs raw{};
    Answer answer;
    answer.error = ask(path, &raw);
    if (answer.error != 0) return answer;
    const auto size = raw.f_frsize > 0 ? raw.f_frsize : raw.f_bsize;
    answer.block_bytes = static_cast<double>(size);
    answer.blocks = raw.f_blocks;
    answer.blocks_free = raw.f_bfree;
    answer.blocks_available = raw.f_bavail;
    answer.files = raw.f_files;
    answer.files_free = raw.f_ffree;
    return answer;
}

void ask_round(Round& round, std::unique_lock<std::mutex>& lock) {
    for (std::size_t i = 0; i < round.paths.size(); ++i) {
        if (!round.wanted[i]) continue;
        round.at = i;
        round.since = SteadyClock::now();
        round.begun = true;
        lock.unlock();
        const Answer answer = ask_one(round.ask, round.paths[i].c_str());
        lock.lock();
        if (round.stop) return;
        round.answers[i] = answer;
        round.answered[i] = 1;
    }
}

void serve(const std::shared_ptr<Round>& round) {
    std::unique_lock lock(round->mutex);
    while (true) {
        round->changed.wait(lock, [&] { return round->running || round->stop; });
        if (round->stop) break;
        ask_round(*round, lock);
        if (round->stop) break;
        round->running = false;
        round->changed.notify_one();
    }
    round->exited = true;
}

// Asks for all paths, in order, within bounded time.
class Asker {
public:
    Asker(StatfsFunction ask, std::chrono::milliseconds timeout) : ask_(ask), timeout_(timeout) {
        hung_.reserve(kMaxHung);
    }
    ~Asker() { retire(); }
    Asker(const Asker&) = delete;
    Asker& operator=(const Asker&) = delete;

    void follow(std::vector<std::string> paths, std::vector<char> remote) {
        retire();
        paths_ = std::move(paths);
        remote_ = std::move(remote);
        wanted_.assign(paths_.size(), 0);
        answered_.assign(paths_.size(), 0);
        answers_.assign(paths_.size(), {});
    }

    // False: no thread to be had.
    [[nodiscard]] bool ask_all() {
        std::fill(answered_.begin(), answered_.end(), char{0});
        deadline_ = SteadyClock::now() + kMaxHung * timeout_;
        forgive();
        for (std::size_t attempt = 0; attempt <= kMaxHung; ++attempt) {
            bool any = false;
            for (std::size_t i = 0; i < paths_.size(); ++i) {
                const bool allowed = !remote_[i] || hung_.size() + 1 < kMaxHung;
                wanted_[i] = !answered_[i] && allowed && hung_.size() < kMaxHung && !hangs(paths_[i]);
                any = any || wanted_[i];
            }
            if (!any || SteadyClock::now() >= deadline_) return true;
            if (round_ == nullptr && !start()) return false;
            if (ask_some()) return true;
        }
        return true;
    }

    [[nodiscard]] const Answer* answer(std::size_t i) const noexcept { return answered_[i] ? &answers_[i] : nullptr; }

private:
    struct Hung {
        std::shared_ptr<Round> round;
        std::string path;
    };

    [[nodiscard]] bool hangs(const std::string& path) const noexcept {
        return std::any_of(hung_.begin(), hung_.end(), [&](const Hung& hung) { return hung.path == path; });
    }

    // Threads whose call came back have gone; their mounts are asked again.
    void forgive() {
        std::erase_if(hung_, [](const Hung& hung) {
            const std::lock_guard lock(hung.round->mutex);
            return hung.round->exited;
        });
    }

    [[nodiscard]] bool start() {
        auto round = std::make_shared<Round>();
        round->paths = paths_;
        round->ask = ask_;
        round->wanted.assign(paths_.size(), 0);
        round->answered.assign(paths_.size(), 0);
        round->answers.assign(paths_.size(), {});
        sigset_t all;  // signals belong to the main thread
        sigset_t old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        try {
            thread_ = std::thread([round] { serve(round); });
        } catch (const std::system_error&) {
            pthread_sigmask(SIG_SETMASK, &old, nullptr);
            return false;
        }
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
        pthread_setname_np(thread_.native_handle(), "argus-statfs");
        round_ = std::move(round);
        return true;
    }

    // One round. False: a mount hangs, which has been noted; others may be asked.
    [[nodiscard]] bool ask_some() {
        std::unique_lock lock(round_->mutex);
        round_->wanted = wanted_;
        std::fill(round_->answered.begin(), round_->answered.end(), char{0});
        round_->begun = false;
        round_->running = true;
        round_->changed.notify_one();
        const auto overdue = [&] { return round_->begun ? round_->since + timeout_ : SteadyClock::now() + timeout_; };
        bool done = false;
        while (!done && SteadyClock::now() < std::min(overdue(), deadline_)) {
            done = round_->changed.wait_until(lock, std::min(overdue(), deadline_), [&] { return !round_->running; });
        }
        for (std::size_t i = 0; i < paths_.size(); ++i) {
            if (!round_->answered[i]) continue;
            answers_[i] = round_->answers[i];
            answered_[i] = 1;
        }
        if (done) return true;
        hung_.push_back({round_, paths_[round_->at]});
        round_->stop = true;
        lock.unlock();
        thread_.detach();
        round_.reset();
        return false;
    }

    // Between rounds the thread is idle, so that it ends at once.
    void retire() {
        if (round_ == nullptr) return;
        {
            const std::lock_guard lock(round_->mutex);
            round_->stop = true;
            round_->changed.notify_one();
        }
        thread_.join();
        round_.reset();
    }

    StatfsFunction ask_;
    std::chrono::milliseconds timeout_;
    SteadyClock::time_point deadline_;
    std::vector<std::string> paths_;
    std::vector<char> remote_, wanted_, answered_;
    std::vector<Answer> answers_;
    std::shared_ptr<Round> round_;
    std::thread thread_;
    std::vector<Hung> hung_;
};

enum Column : std::size_t { kUsed, kFree, kReserved, kLimit, kUtilization, kInodesUsed, kInodesFree, kColumns };

struct ColumnSeries {
    const char* name;
    const char* unit;
    const char* state;  // "" = none
};
constexpr ColumnSeries kColumnSeries[kColumns] = {
    {"system.filesystem.usage", "By", "used"},         {"system.filesystem.usage", "By", "free"},
    {"system.filesystem.usage", "By", "reserved"},     {"system.filesystem.limit", "By", ""},
    {"system.filesystem.utilization", "1", ""},        {"system.filesystem.inodes.usage", "{inode}", "used"},
    {"system.filesystem.inodes.usage", "{inode}", "free"},
};

struct Followed {
    Mount mount;
    std::array<SeriesSlot, kColumns> series;
    SeriesSlot read_only;
    SeriesSlot responding;

    void close_levels(Emit& emit) {
        for (SeriesSlot& slot : series) slot.close(emit);
    }
    void close(Emit& emit) {
        close_levels(emit);
        read_only.close(emit);
        responding.close(emit);
    }
};

bool same_place(const Mount& a, const Mount& b) noexcept {
    return a.point == b.point && a.device == b.device && a.type == b.type;
}

std::string attributes(const Mount& mount, bool with_mode, const char* state) {
    std::string out = "system.device=" + attribute_value(mount.device);
    if (with_mode) out += std::string(",system.filesystem.mode=") + (mount.read_only ? "ro" : "rw");
    out += ",system.filesystem.mountpoint=" + attribute_value(mount.point);
    if (*state != '\0') out += std::string(",system.filesystem.state=") + state;
    return out + ",system.filesystem.type=" + attribute_value(mount.type);
}

class FilesystemSource final : public Source {
public:
    FilesystemSource(const Roots& roots, const Io& io, std::chrono::milliseconds timeout, StatfsFunction ask)
        : prefix_(roots.live() ? "" : roots.proc + "/1/root"),
          table_(io, roots.proc + (roots.live() ? "/self/mountinfo" : "/1/mountinfo"),
                 roots.live() ? "proc/self/mountinfo" : "proc/1/mountinfo", kMountTableBytes),
          asker_(ask, timeout) {}

    [[nodiscard]] Result<bool> open() { return table_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = table_.read();
        if (!text) return text.error();
        if ((*text).empty()) return Error{Errc::truncated, 0, "mountinfo: expected at least the root"};
        if (*text != seen_) reconcile(*text, emit);
        report.malformed += malformed_;
        if (!asker_.ask_all()) return Error{Errc::limit, EAGAIN, "mountinfo: no thread to ask statfs in"};
        std::uint32_t silent = 0;
        for (std::size_t i = 0; i < followed_.size(); ++i) {
            if (!emit_mount(followed_[i], asker_.answer(i), emit, report)) ++silent;
        }
        unresponsive_.emit(emit, report, silent, [] {
            return SeriesInfo{"system.filesystem.unresponsive", "{filesystem}", Kind::gauge, ""};
        });
        return report;
    }

private:
    // The mounts changed: those that stay keep their series.
    void reconcile(std::string_view text, Emit& emit) {
        MountTable table = parse_mounts(text);
        malformed_ = table.malformed;
        if (!table.complete) return;  // cut: what is not listed is unknown
        seen_ = text;
        std::stable_partition(table.mounts.begin(), table.mounts.end(),
                              [](const Mount& mount) { return !is_remote(mount.type); });
        std::vector<Followed> next(table.mounts.size());
        for (std::size_t i = 0; i < next.size(); ++i) {
            for (Followed& old : followed_) {
                if (!same_place(old.mount, table.mounts[i])) continue;
                if (old.mount.read_only != table.mounts[i].read_only) old.close_levels(emit);
                next[i] = std::exchange(old, {});
            }
            next[i].mount = std::move(table.mounts[i]);
        }
        for (Followed& gone : followed_) gone.close(emit);
        followed_ = std::move(next);
        std::vector<std::string> paths;
        std::vector<char> remote;
        for (const Followed& followed : followed_) {
            paths.push_back(prefix_ + followed.mount.point);
            remote.push_back(is_remote(followed.mount.type));
        }
        asker_.follow(std::move(paths), std::move(remote));
    }

    // False: it does not answer, or answers that it cannot be reached.
    [[nodiscard]] static bool emit_mount(Followed& followed, const Answer* answer, Emit& emit, PollReport& report) {
        const Mount& mount = followed.mount;
        if (answer != nullptr && hidden(answer->error)) return true;
        const bool good = answer != nullptr && answer->error == 0;
        if (good && answer->blocks == 0) return true;  // no space of its own to speak of
        followed.responding.emit(emit, report, good ? 1 : 0, [&] {
            return SeriesInfo{"system.filesystem.responding", "1", Kind::gauge, attributes(mount, false, "")};
        });
        followed.read_only.emit(emit, report, mount.read_only ? 1 : 0, [&] {
            return SeriesInfo{"system.filesystem.readonly", "1", Kind::gauge, attributes(mount, false, "")};
        });
        if (good) emit_levels(followed, *answer, emit, report);
        return good;
    }

    // Errors that say nothing of the file system: unmounted since, or not for Argus to see.
    [[nodiscard]] static bool hidden(int error) noexcept {
        return error == -ENOENT || error == -EACCES || error == -EPERM || error == -ENOTDIR || error == -ENOSYS;
    }

    static void emit_levels(Followed& followed, const Answer& answer, Emit& emit, PollReport& report) {
        const auto put = [&](Column column, double value) {
            followed.series[column].emit(emit, report, value, [&] {
                const ColumnSeries& row = kColumnSeries[column];
                return SeriesInfo{row.name, row.unit, Kind::gauge, attributes(followed.mount, true, row.state)};
            });
        };
        if (answer.blocks_free > answer.blocks || answer.block_bytes <= 0) {
            ++report.malformed;
            return;
        }
        const auto bytes = [&](std::uint64_t blocks) { return static_cast<double>(blocks) * answer.block_bytes; };
        const std::uint64_t available = std::min(answer.blocks_available, answer.blocks_free);
        const double used = bytes(answer.blocks - answer.blocks_free);
        const double free = bytes(available);
        put(kLimit, bytes(answer.blocks));
        put(kUsed, used);
        put(kFree, free);
        put(kReserved, bytes(answer.blocks_free - available));
        if (used + free > 0) put(kUtilization, used / (used + free));
        if (answer.files > 0 && answer.files_free <= answer.files) {  // btrfs and others have no fixed number
            put(kInodesUsed, static_cast<double>(answer.files - answer.files_free));
            put(kInodesFree, static_cast<double>(answer.files_free));
        }
    }

    std::string prefix_;
    KernelFile table_;
    Asker asker_;
    std::string seen_;
    std::uint32_t malformed_ = 0;
    std::vector<Followed> followed_;
    SeriesSlot unresponsive_;
};

constexpr Option kFilesystemOptions[] = {
    {"timeout_ms", "ms", 1000, 10, 5000, "how long a file system may take to answer before it is left out"},
};

int system_statfs(const char* path, struct statfs* out) { return ::statfs(path, out) == 0 ? 0 : -errno; }

Result<std::unique_ptr<Source>> open_live(const Roots& roots, const Io& io, const SourceSettings& settings) {
    return open_filesystem(roots, io, settings, system_statfs);
}

}  // namespace

Result<std::unique_ptr<Source>> open_filesystem(const Roots& roots, const Io& io, const SourceSettings& settings,
                                                StatfsFunction ask) {
    const auto timeout = std::chrono::milliseconds(static_cast<std::int64_t>(settings.options[0]));
    auto source = std::make_unique<FilesystemSource>(roots, io, timeout, ask);
    if (const auto opened = source->open(); !opened) return opened.error();
    if (!roots.live()) {
        struct statfs found{};
        if (ask(roots.proc.c_str(), &found) != 0 || found.f_type != PROC_SUPER_MAGIC) {
            return Error{Errc::unavailable, 0, "proc/1/root"};
        }
        const int error = ask((roots.proc + "/1/root").c_str(), &found);
        if (error != 0) return Error{errc_of(-error), -error, "proc/1/root"};
    }
    return std::unique_ptr<Source>(std::move(source));
}

extern const SourceDescriptor filesystem_source;
const SourceDescriptor filesystem_source{
    "filesystem",
    "Space and inodes of each mounted file system, from /proc/self/mountinfo and statfs(2).",
    "a mounted /proc; with another proc root a real procfs, whose 1/root leads to the host's files",
    "mount procfs; for another proc root, share the host's pid namespace and grant CAP_SYS_PTRACE",
    10000,
    Lane::slow,
    open_live,
    kFilesystemOptions,
};

}  // namespace argus::sources
