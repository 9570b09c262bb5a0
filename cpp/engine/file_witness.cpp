#include "engine/file_witness.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/io.hpp"
#include "base/sha256.hpp"
#include "sources/escapes.hpp"
#include "sources/sysfs.hpp"

namespace argus::engine {
namespace {

using auditors::Blind;
using auditors::FileAnswer;
using auditors::FileQuestion;

constexpr std::size_t kChunk = 256 * 1024;
constexpr std::size_t kSights = 4096;          // sessions remembered
constexpr std::size_t kProcessesSeen = 64;     // of a session, looked through for open files
constexpr int kDescriptorsSeen = 512;          // of each of them
constexpr int kDepth = 64;                     // folders looked up from a file that is not there
constexpr Nanos kMountsHold = 2 * kSecond;
constexpr Nanos kLookPause = 2 * kMillisecond; // 500 looks a second at most
constexpr int kNice = 10;

// File systems that answer from a disk or from memory of this host. FUSE, network and pseudo file systems do not.
constexpr std::string_view kLocal[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "ramfs", "overlay",
                                       "zfs", "bcachefs", "jfs", "reiserfs", "nilfs2", "vfat", "exfat", "ntfs3"};

class Descriptor {
public:
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    [[nodiscard]] int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }

private:
    int fd_;
};

// Only the place, never the thing: a FIFO has no reader for it and a device is not touched.
int open_place(int folder, const char* path, int flags) noexcept {
    open_how how{};
    how.flags = static_cast<std::uint64_t>(O_PATH | O_NOFOLLOW | O_CLOEXEC | flags);
    how.resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
    return static_cast<int>(::syscall(SYS_openat2, folder, path, &how, sizeof how));
}

Nanos changed_at(const struct stat& s) noexcept { return s.st_ctim.tv_sec * kSecond + s.st_ctim.tv_nsec; }

std::string link_text(const std::string& path) {
    std::string text(PATH_MAX, '\0');
    const ssize_t got = ::readlink(path.c_str(), text.data(), text.size());
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

Blind blind_of(int error) noexcept {
    switch (error) {
        case EACCES:
        case EPERM: return Blind::denied;
        case ELOOP: return Blind::link;
        case EXDEV: return Blind::mount;
        case ENAMETOOLONG: return Blind::path;
        default: return Blind::failed;
    }
}

// Absolute, and every part a name: what "." and ".." mean after a link is not for text to say.
bool plain(std::string_view path) noexcept {
    if (path.empty() || path.front() != '/' || path.find('\0') != std::string_view::npos) return false;
    while (!path.empty()) {
        path.remove_prefix(1);
        const std::string_view part = path.substr(0, path.find('/'));
        if (part == "." || part == "..") return false;
        path.remove_prefix(part.size());
    }
    return true;
}

}  // namespace

FileWitness::FileWitness(std::string proc)
    : proc_(std::move(proc)),
      own_namespace_(link_text("/proc/self/ns/mnt")),
      questions_(kQuestions),
      answers_(2 * kQuestions) {}

FileWitness::~FileWitness() {
    stopping_.store(true, std::memory_order_release);
    wake_.release();
    if (thread_.joinable()) thread_.join();
}

bool FileWitness::ask(const FileQuestion& question) noexcept {
    if (!questions_.try_push(question)) return false;
    wake_.release();
    return true;
}

bool FileWitness::take(FileAnswer& answer) noexcept { return answers_.pop(std::span(&answer, 1)) == 1; }

void FileWitness::set_processes(std::vector<SessionProcess> processes) {
    if (!thread_.joinable() && processes.empty()) return;
    processes_.back() = std::move(processes);
    processes_.publish();
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    wake_.release();
}

void FileWitness::run() noexcept {
    (void)::pthread_setname_np(::pthread_self(), "argus-files");
    (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
    FileQuestion question;
    while (true) {
        wake_.acquire();
        if (stopping_.load(std::memory_order_acquire)) return;
        const bool asked = questions_.pop(std::span(&question, 1)) != 0;
        FileAnswer answer{.claim = question.claim, .turn = question.turn, .blind = Blind::failed};
        try {
            meet();  // at once: a process may be gone when its file is looked at
            if (asked) answer = look(question);
        } catch (...) {  // no memory: it is told as failed
        }
        if (!asked) continue;
        (void)answers_.try_push(answer);  // a full ring: the auditor gives up on it after a while
        std::this_thread::sleep_for(std::chrono::nanoseconds(kLookPause));
    }
}

// A session once seen to be local stays so after its processes; one foreign process makes it foreign for good.
void FileWitness::meet() {
    if (!processes_.refresh()) return;
    if (sights_.size() > kSights) sights_.clear();
    for (const SessionProcess& each : processes_.front()) {
        Sight& known = sights_[each.session];
        if (known == Sight::foreign) continue;
        const Sight seen = sight_of(each.pid);
        if (seen == Sight::foreign || (seen == Sight::local && !each.supervisor)) known = seen;
    }
}

FileWitness::Sight FileWitness::sight_of(std::int32_t pid) const {
    const std::string folder = proc_ + "/" + std::to_string(pid);
    const std::string space = link_text(folder + "/ns/mnt");
    const std::string root = link_text(folder + "/root");
    if (space.empty() || root.empty() || own_namespace_.empty()) return Sight::unknown;
    return space == own_namespace_ && root == "/" ? Sight::local : Sight::foreign;
}

// man proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS] - TYPE DEVICE OPTIONS
void FileWitness::read_mounts() {
    const Nanos now = read_clock(CLOCK_MONOTONIC);
    if (!mounts_.empty() && now - mounts_read_ < kMountsHold) return;
    mounts_read_ = now;
    mounts_.clear();
    const Descriptor file(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
    std::string text;
    std::array<char, 16384> part;
    for (ssize_t got = 0; file && (got = ::read(file.get(), part.data(), part.size())) > 0;) {
        text.append(part.data(), static_cast<std::size_t>(got));
    }
    std::string_view left = text;
    while (!left.empty()) {
        const std::string_view line = left.substr(0, left.find('\n'));
        left.remove_prefix(std::min(left.size(), line.size() + 1));
        std::string_view fields = line;
        for (int i = 0; i < 4; ++i) fields.remove_prefix(std::min(fields.size(), fields.find(' ') + 1));
        const std::size_t dash = line.find(" - ");
        if (dash == std::string_view::npos) continue;
        const std::string_view type = line.substr(dash + 3, line.find(' ', dash + 3) - dash - 3);
        const bool local = std::find(std::begin(kLocal), std::end(kLocal), type) != std::end(kLocal);
        mounts_.push_back({sources::octal_unescaped(fields.substr(0, fields.find(' '))), local});
    }
}

// The longest mount point above the path; of several at one place the last, which hides the others.
const FileWitness::Mount* FileWitness::mount_of(std::string_view path) const noexcept {
    const Mount* found = nullptr;
    for (const Mount& mount : mounts_) {
        const std::string_view point = mount.point;
        const bool above = point == "/" || (path.starts_with(point) &&
                                            (path.size() == point.size() || path[point.size()] == '/'));
        if (above && (found == nullptr || point.size() >= found->point.size())) found = &mount;
    }
    return found;
}

FileAnswer FileWitness::look(const FileQuestion& question) {
    meet();
    FileAnswer out{.claim = question.claim, .turn = question.turn};
    const std::string path(question.path_view());
    const auto known = sights_.find(question.session);
    const Sight sight = known == sights_.end() ? Sight::unknown : known->second;
    if (!plain(path)) out.blind = Blind::path;
    else if (sight != Sight::local) out.blind = sight == Sight::foreign ? Blind::foreign : Blind::no_process;
    else look_at(question, path, out);
    const bool smaller = question.bytes != kAbsent && out.bytes < question.bytes;
    const bool fits = out.blind != Blind::none || (out.exists && !smaller && (!out.read || out.same));
    if (!fits && has_left(question.session)) out.blind = Blind::foreign;
    return out;
}

// Has one of the session's processes gone into a file system of its own since it was met?
bool FileWitness::has_left(std::uint64_t session) {
    std::size_t seen = 0;
    for (const SessionProcess& each : processes_.front()) {
        if (each.session != session || seen++ >= kProcessesSeen) continue;
        if (sight_of(each.pid) != Sight::foreign) continue;
        sights_[session] = Sight::foreign;
        return true;
    }
    return false;
}

void FileWitness::look_at(const FileQuestion& question, const std::string& path, FileAnswer& out) {
    read_mounts();
    const Mount* mount = mount_of(path);
    if (mount == nullptr || !mount->local) {
        out.blind = Blind::mount;
        return;
    }
    const Descriptor top(::open(mount->point.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const std::size_t from = path.find_first_not_of('/', mount->point == "/" ? 0 : mount->point.size());
    if (!top || from == std::string::npos) {
        out.blind = top ? Blind::special : blind_of(errno);
        return;
    }
    const std::string rest = path.substr(from);
    const Descriptor place(open_place(top.get(), rest.c_str(), 0));
    if (!place && errno == ENOENT) return look_above(top.get(), rest, out);
    struct stat found{};
    if (!place || ::fstat(place.get(), &found) != 0) {
        out.blind = blind_of(errno);
        return;
    }
    if (!S_ISREG(found.st_mode)) {
        out.blind = S_ISLNK(found.st_mode) ? Blind::link : Blind::special;
        return;
    }
    out.exists = true;
    out.bytes = found.st_size;
    out.changed = changed_at(found);
    const bool smaller = question.bytes != kAbsent && out.bytes < question.bytes;
    if (question.hashed && !smaller) look_inside(place.get(), question, out);
    if (smaller || (out.read && !out.same)) out.being_written = held_for_writing(place.get(), question.session);
}

void FileWitness::look_inside(int fd, const FileQuestion& question, FileAnswer& out) {
    out.blind = Blind::large;
    if (out.bytes > kHashBytes) return;
    // The same file again, now to be read; it is known to be a regular one.
    const std::string again = "/proc/self/fd/" + std::to_string(fd);
    const Descriptor file(::open(again.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!file) {
        out.blind = blind_of(errno);
        return;
    }
    buffer_.resize(kChunk);
    Sha256 digest;
    const Nanos until = read_clock(CLOCK_MONOTONIC) + kHashTime;
    std::int64_t total = 0;
    for (ssize_t got = 0; (got = ::read(file.get(), buffer_.data(), buffer_.size())) != 0; total += got) {
        if (got < 0) {
            out.blind = Blind::failed;
            return;
        }
        const bool late = total > kHashBytes || read_clock(CLOCK_MONOTONIC) > until;
        if (late || stopping_.load(std::memory_order_relaxed)) return;
        digest.update(std::span(buffer_).first(static_cast<std::size_t>(got)));
        pace(got);
    }
    out.blind = Blind::none;
    struct stat after{};
    if (::fstat(file.get(), &after) != 0) return;
    const bool still = changed_at(after) == out.changed && after.st_size == out.bytes && total == out.bytes;
    out.bytes = after.st_size;
    out.changed = changed_at(after);
    out.read = still;
    out.same = still && digest.finish() == question.digest;
}

void FileWitness::pace(std::int64_t bytes) const {
    std::this_thread::sleep_for(std::chrono::duration<double>(static_cast<double>(bytes) / kBytesRate));
}

// Not there: since when, the nearest folder above it that is there can tell.
void FileWitness::look_above(int mount, std::string rest, FileAnswer& out) const {
    for (int i = 0; i < kDepth; ++i) {
        const std::size_t cut = rest.find_last_of('/');
        rest.resize(cut == std::string::npos ? 0 : cut);
        const Descriptor folder(rest.empty() ? ::dup(mount) : open_place(mount, rest.c_str(), O_DIRECTORY));
        struct stat found{};
        if (folder && ::fstat(folder.get(), &found) == 0) {
            out.changed = changed_at(found);
            return;
        }
        if (errno != ENOENT) break;
    }
    out.blind = blind_of(errno);
}

bool FileWitness::held_for_writing(int fd, std::uint64_t session) const {
    const std::string target = link_text("/proc/self/fd/" + std::to_string(fd));
    std::size_t seen = 0;
    for (const SessionProcess& each : processes_.front()) {
        if (each.session != session || each.supervisor || seen++ >= kProcessesSeen) continue;
        if (writes(each.pid, target)) return true;
    }
    return false;
}

bool FileWitness::writes(std::int32_t pid, std::string_view target) const {
    const std::string folder = proc_ + "/" + std::to_string(pid);
    const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir((folder + "/fd").c_str()), &::closedir);
    if (!open) return false;
    int seen = 0;
    for (const dirent* entry = ::readdir(open.get()); entry != nullptr && seen < kDescriptorsSeen;
         entry = ::readdir(open.get()), ++seen) {
        if (link_text(folder + "/fd/" + entry->d_name) != target) continue;
        const auto text = sources::read_value(system_io(), folder + "/fdinfo/" + entry->d_name);
        const std::size_t at = text ? text->find("flags:\t") : std::string::npos;
        if (at == std::string::npos) continue;
        const long flags = std::strtol(text->c_str() + at + 7, nullptr, 8);
        if ((flags & O_ACCMODE) != O_RDONLY) return true;
    }
    return false;
}

}  // namespace argus::engine
