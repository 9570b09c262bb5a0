#include "sources/cgroup_tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sources/kernel_file.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr const char* kMountinfo = "proc/self/mountinfo";
constexpr int kInterruptions = 16;

struct ControllerName {
    std::string_view name;
    std::uint32_t bit;
};
constexpr ControllerName kControllers[] = {
    {"cpu", kCpu},   {"cpuacct", kCpuacct}, {"memory", kMemory},         {"blkio", kBlkio},
    {"pids", kPids}, {"freezer", kFreezer}, {"perf_event", kPerfEvent},
};

// Files that tell the controllers of a version 1 hierarchy whose mount options are not at hand.
constexpr ControllerName kTelling[] = {
    {"cpu.shares", kCpu},        {"cpuacct.stat", kCpuacct},   {"memory.usage_in_bytes", kMemory},
    {"blkio.reset_stats", kBlkio}, {"pids.current", kPids},    {"freezer.state", kFreezer},
};

bool octal(char c) { return c >= '0' && c <= '7'; }

std::string unescape(std::string_view raw) {
    std::string out;
    for (std::size_t i = 0; i < raw.size(); ++i) {
        const bool escaped = raw[i] == '\\' && i + 3 < raw.size() && octal(raw[i + 1]) && octal(raw[i + 2]) &&
                             octal(raw[i + 3]) && raw[i + 1] <= '3';
        if (!escaped) {
            out += raw[i];
            continue;
        }
        out += static_cast<char>((raw[i + 1] - '0') << 6 | (raw[i + 2] - '0') << 3 | (raw[i + 3] - '0'));
        i += 3;
    }
    return out;
}

std::uint32_t controllers_of(std::string_view options) {
    std::uint32_t bits = 0;
    while (!options.empty()) {
        const std::size_t comma = std::min(options.find(','), options.size());
        for (const auto& known : kControllers) {
            if (options.substr(0, comma) == known.name) bits |= known.bit;
        }
        options.remove_prefix(std::min(comma + 1, options.size()));
    }
    return bits;
}

bool exists(const std::string& path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0;
}

bool under(std::string_view path, std::string_view folder) {
    return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

// Where a mount point is reached through the given roots; empty = not at all. Below another root for /sys, the mount
// points of a captured or foreign machine are looked up there, and nothing of this machine is.
std::string reachable(const Roots& roots, const std::string& point) {
    const bool own = roots.sys == "/sys";
    if (own || under(point, roots.sys)) return point;
    return under(point, "/sys") ? roots.sys + point.substr(4) : std::string();
}

// "/.." and what follows: seen from inside a cgroup namespace, a place above it.
std::string prefix_of(const std::string& root) {
    return root == "/" || root.starts_with("/..") ? std::string() : root;
}

// Of a hierarchy that is mounted more than once, the view from highest up counts.
bool wider(const Hierarchy& left, const Hierarchy& right) { return left.prefix.size() < right.prefix.size(); }

void add(std::vector<Hierarchy>& out, Hierarchy found) {
    for (Hierarchy& other : out) {
        if (other.device != found.device) continue;
        if (wider(found, other)) other = std::move(found);
        return;
    }
    if (out.size() < kMaxHierarchies) out.push_back(std::move(found));
}

Result<bool> find_mounted(const Roots& roots, const Io& io, std::vector<Hierarchy>& out) {
    KernelFile file(io, roots.proc + "/self/mountinfo", kMountinfo);
    const auto text = file.read();
    if (!text) return text.error();
    Scanner scanner(*text);
    std::string_view line;
    CgroupMount mount;
    while (scanner.line(line)) {
        if (!parse_cgroup_mount(line, mount)) continue;
        const bool unified = mount.type == "cgroup2";
        const std::uint32_t bits = unified ? kUnified : mount.type == "cgroup" ? controllers_of(mount.super) : 0;
        std::string directory = bits == 0 ? std::string() : reachable(roots, mount.point);
        if (directory.empty() || !exists(directory)) continue;
        add(out, {std::move(directory), prefix_of(mount.root), bits, mount.device});
    }
    if (out.empty()) return Error{Errc::unavailable, 0, "proc/self/mountinfo: a mounted cgroup hierarchy"};
    return true;
}

std::uint32_t telling(const std::string& directory) {
    if (exists(directory + "/cgroup.controllers")) return kUnified;
    if (!exists(directory + "/cgroup.procs")) return 0;
    std::uint32_t bits = 0;
    for (const auto& file : kTelling) {
        if (exists(directory + "/" + std::string(file.name))) bits |= file.bit;
    }
    if (bits != 0) return bits;
    // A version 1 root has no pids.current and no freezer.state, its children have: the folder's own name is left.
    return controllers_of(std::string_view(directory).substr(directory.rfind('/') + 1));
}

Result<bool> find_given(const Roots& roots, const Io& io, std::vector<Hierarchy>& out) {
    std::vector<std::string> names;
    if (const auto listed = list_folder(io, roots.cgroup, "cgroup", names); !listed) return listed.error();
    if (const std::uint32_t bits = telling(roots.cgroup); bits != 0) {
        out.push_back({roots.cgroup, "", bits, ""});
        return true;
    }
    for (const std::string& name : names) {
        std::string directory = roots.cgroup + "/" + name;
        struct stat status {};
        if (::stat(directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) continue;
        const std::uint32_t bits = telling(directory);
        const auto id = std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);  // cpu -> cpu,cpuacct
        if (bits != 0) add(out, {std::move(directory), "", bits, id});
    }
    if (out.empty()) return Error{Errc::unavailable, 0, "cgroup: a cgroup hierarchy"};
    return true;
}

}  // namespace

// 32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
bool parse_cgroup_mount(std::string_view line, CgroupMount& out) {
    Scanner fields(line);
    std::uint64_t number = 0;
    if (!fields.number(number) || !fields.number(number)) return false;
    out.device = fields.word();
    out.root = unescape(fields.word());
    out.point = unescape(fields.word());
    std::string_view word = fields.word();
    for (int optional = 0; word != "-" && !word.empty() && optional < 16; ++optional) word = fields.word();
    if (word != "-") return false;
    out.type = unescape(fields.word());
    (void)fields.word();  // the source: free text
    out.super = fields.word();
    return out.root.starts_with('/') && out.point.starts_with('/') && !out.super.empty();
}

Result<bool> find_hierarchies(const Roots& roots, const Io& io, std::vector<Hierarchy>& out) {
    out.clear();
    return roots.cgroup.empty() ? find_mounted(roots, io, out) : find_given(roots, io, out);
}

bool CgroupTree::look(const std::string& local, std::uint64_t& id, std::uint64_t& links) {
    path_.assign(directory_).append(local);
    struct stat status {};
    if (::stat(path_.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) return false;
    id = status.st_ino;
    links = status.st_nlink;
    return true;
}

// Some file systems (btrfs, overlays) do not count children in st_nlink: there every look is a walk.
bool CgroupTree::changed() {
    for (const CgroupNode& node : nodes_) {
        std::uint64_t id = 0;
        std::uint64_t links = 0;
        if (!look(node.local, id, links) || id != node.id || links != node.links || links < 2) return true;
    }
    return nodes_.empty();
}

// The names of a group's children into names_; 0 or -errno.
int CgroupTree::list_children(const std::string& local) {
    names_.clear();
    path_.assign(directory_).append(local);
    int fd = -EINTR;
    for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) {
        fd = io_->open_at(AT_FDCWD, path_.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    }
    if (fd < 0) return fd;
    alignas(dirent64) std::array<char, 16 * 1024> buffer;
    int interruptions = 0;
    ssize_t got = 0;
    while (names_.size() < max_nodes_) {
        got = io_->get_dents(fd, buffer.data(), buffer.size());
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got <= 0) break;
        for (std::size_t at = 0; at + offsetof(dirent64, d_name) < static_cast<std::size_t>(got);) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
            if (entry->d_reclen == 0) break;
            const std::string_view name = entry->d_name;
            // DT_UNKNOWN, where a file system does not say: look() refuses what is no directory.
            const bool folder = entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
            if (folder && name != "." && name != "..") names_.emplace_back(name);
            at += entry->d_reclen;
        }
    }
    io_->close(fd);
    std::sort(names_.begin(), names_.end());
    return got < 0 ? static_cast<int>(got) : 0;
}

Result<bool> CgroupTree::refresh(bool force) {
    if (!force && !unfinished_ && !changed()) return false;
    std::vector<CgroupNode> found(1);
    std::size_t left_out = 0;
    if (!look("", found[0].id, found[0].links)) {
        nodes_.clear();
        return Error{Errc::unavailable, ENOENT, "cgroup hierarchy"};
    }
    for (std::size_t parent = 0; parent < found.size(); ++parent) {
        const int status = list_children(found[parent].local);
        const bool gone = status == -ENOENT || status == -ENODEV || status == -EACCES;
        unfinished_ = status < 0 && (!gone || parent == 0);
        if (unfinished_) return Error{errc_of(-status), -status, "cgroup hierarchy"};
        for (const std::string& name : names_) {
            CgroupNode child;
            child.local = found[parent].local + "/" + name;
            child.depth = found[parent].depth + 1;
            if (found.size() >= max_nodes_ || child.local.size() > kMaxPathBytes) {
                ++left_out;
            } else if (look(child.local, child.id, child.links)) {
                found.push_back(std::move(child));
            }
        }
    }
    nodes_ = std::move(found);
    left_out_ = left_out;
    return true;
}

namespace {

bool lower_hex(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// "docker-<64 hex>.scope" or the digits alone; empty = neither. A "conmon" beside a container is its monitor.
std::string_view container_in(std::string_view name) {
    constexpr std::size_t digits = 64;
    constexpr std::string_view scope = ".scope";
    if (name.size() == digits && lower_hex(name)) return name;
    if (!name.ends_with(scope) || name.size() < digits + scope.size() + 2) return {};
    name.remove_suffix(scope.size());
    const std::string_view id = name.substr(name.size() - digits);
    const std::string_view runtime = name.substr(0, name.size() - digits);
    if (!lower_hex(id) || !runtime.ends_with('-') || runtime.ends_with("conmon-")) return {};
    return id;
}

bool is_unit(std::string_view name) {
    for (const std::string_view suffix : {".service", ".scope", ".slice", ".socket", ".mount", ".swap"}) {
        if (name.size() > suffix.size() && name.ends_with(suffix)) return true;
    }
    return false;
}

// "pod<uid>" of the cgroupfs driver, "kubepods-burstable-pod<uid>.slice" of the systemd one; empty = neither.
std::string pod_in(std::string_view name) {
    constexpr std::string_view slice = ".slice";
    if (name.ends_with(slice)) name.remove_suffix(slice.size());
    const std::size_t at = name.starts_with("kubepods-") ? name.rfind("-pod") + 1 : 0;
    if (!name.substr(at).starts_with("pod")) return {};
    std::string uid(name.substr(at + 3));
    std::replace(uid.begin(), uid.end(), '_', '-');
    if (uid.size() == 32 && lower_hex(uid)) return uid;  // a static pod: the hash of its manifest
    if (uid.size() != 36) return {};
    for (std::size_t i = 0; i < uid.size(); ++i) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? uid[i] != '-' : !lower_hex({&uid[i], 1})) return {};
    }
    return uid;
}

}  // namespace

CgroupIdentity identify_cgroup(std::string_view path) {
    CgroupIdentity out;
    bool pods = false;
    while (!path.empty()) {
        path.remove_prefix(path.front() == '/' ? 1 : 0);
        const std::size_t size = std::min(path.find('/'), path.size());
        std::string_view name = path.substr(0, size);
        path.remove_prefix(size);
        if (name.starts_with('_')) name.remove_prefix(1);  // systemd's escape of names the kernel uses itself
        pods = pods || name.starts_with("kubepods");
        if (const auto id = container_in(name); !id.empty()) out.container_id = id;
        if (is_unit(name)) out.systemd_unit = name;
        if (auto uid = pods ? pod_in(name) : std::string(); !uid.empty()) out.pod_uid = std::move(uid);
    }
    return out;
}

}  // namespace argus::sources
