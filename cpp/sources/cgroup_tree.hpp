// Where control groups live and what they are called: hierarchies found through the mount table, their directories
// walked and watched cheaply, names recognised.
//
// Source: /proc/self/mountinfo; kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cgroups.rst, man proc(5).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.hpp"
#include "base/result.hpp"
#include "sources/source.hpp"

namespace argus::sources {

// One line of mountinfo, its octal escapes (\040) undone.
struct CgroupMount {
    std::string device;  // "0:29"
    std::string root;    // what of the file system is shown: "/" or a path inside it
    std::string point;
    std::string type;    // "cgroup2"
    std::string super;   // options of the file system: "rw,cpu,cpuacct"
};
[[nodiscard]] bool parse_cgroup_mount(std::string_view line, CgroupMount& out);

// Controllers, as bits; kUnified stands for the whole of a version 2 hierarchy.
inline constexpr std::uint32_t kUnified = 1;
inline constexpr std::uint32_t kCpu = 2;
inline constexpr std::uint32_t kCpuacct = 4;
inline constexpr std::uint32_t kMemory = 8;
inline constexpr std::uint32_t kBlkio = 16;
inline constexpr std::uint32_t kPids = 32;
inline constexpr std::uint32_t kFreezer = 64;
inline constexpr std::uint32_t kPerfEvent = 128;

struct Hierarchy {
    std::string directory;  // where its top can be read
    std::string prefix;     // the path of that top inside the hierarchy; "" = its root, or unknown
    std::uint32_t controllers = 0;
    std::string device;
};

inline constexpr std::size_t kMaxHierarchies = 16;

// The hierarchies that are mounted, or lie under roots.cgroup where that is given. Version 1, version 2 and both at
// once are told apart by what is there, never by a path. Errc::unavailable when there is none.
[[nodiscard]] Result<bool> find_hierarchies(const Roots& roots, const Io& io, std::vector<Hierarchy>& out);

struct CgroupNode {
    std::string local;        // path below Hierarchy::directory: "/system.slice/a.service"; "" = the top
    std::uint64_t id = 0;     // inode of the directory; in version 2 the kernel's cgroup id
    std::uint64_t links = 0;  // st_nlink: 2 + child groups on cgroup file systems
    std::uint32_t depth = 0;
};

// The directories of one hierarchy, breadth first, names in order. The kernel keeps st_nlink in step with the number of
// children (mtime it does not), so a steady look is one stat a group; a child exchanged for another leaves the count as
// it is, but what is read from the removed one fails, and whoever reads it asks for a walk.
class CgroupTree {
public:
    static constexpr std::size_t kMaxNodes = 16'384;
    static constexpr std::size_t kMaxPathBytes = 1024;

    CgroupTree(const Io& io, std::string directory, std::size_t max_nodes = kMaxNodes)
        : io_(&io), directory_(std::move(directory)), max_nodes_(max_nodes) {}

    // True = the groups may have changed and were walked again; false = they are the same. Errc::unavailable when the
    // top is not there: nothing is known of any group then. Any other error (no descriptor left): those known stay.
    [[nodiscard]] Result<bool> refresh(bool force = false);

    [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
    [[nodiscard]] std::span<const CgroupNode> nodes() const noexcept { return nodes_; }
    [[nodiscard]] std::size_t left_out() const noexcept { return left_out_; }  // beyond the bounds above

private:
    [[nodiscard]] bool changed();
    [[nodiscard]] bool look(const std::string& local, std::uint64_t& id, std::uint64_t& links);
    [[nodiscard]] int list_children(const std::string& local);

    const Io* io_;
    std::string directory_;
    std::size_t max_nodes_;
    std::vector<CgroupNode> nodes_;
    std::vector<std::string> names_;
    std::string path_;
    std::size_t left_out_ = 0;
    bool unfinished_ = false;  // the last walk failed on its way
};

// What the names on a path say. Views into `path`, but for the pod, whose dashes systemd writes as underscores.
struct CgroupIdentity {
    std::string_view container_id;  // 64 hex digits: docker-<id>.scope, cri-containerd-<id>.scope, /docker/<id>, ...
    std::string_view systemd_unit;  // the innermost .service, .scope, .slice, ... on the path
    std::string pod_uid;            // of kubepods paths
};
[[nodiscard]] CgroupIdentity identify_cgroup(std::string_view path);

}  // namespace argus::sources
