// Names for the cgroup ids that processes carry (PIDFD_GET_INFO, BPF): those of the version 2 hierarchy, where the
// inode of a cgroup's directory is the kernel's id of the cgroup. Version 1 has no ids that are one a machine.
// For one thread. refresh() costs one stat a cgroup while nothing changes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sources/cgroup_tree.hpp"

namespace argus::sources {

class CgroupIndex {
public:
    CgroupIndex(const Roots& roots, const Io& io) : roots_(roots), io_(&io) {}

    // True = it changed. Errc::unavailable when no version 2 hierarchy is mounted: the index is empty then.
    [[nodiscard]] Result<bool> refresh(bool force = false) {
        if (tree_ == nullptr) {
            if (const auto found = find(); !found) return found.error();
        }
        const auto walked = tree_->refresh(force);
        if (walked && !*walked) return false;
        if (!walked && !tree_->nodes().empty()) return walked.error();
        rows_.clear();
        if (!walked) {
            tree_.reset();
            return walked.error();
        }
        for (const CgroupNode& node : tree_->nodes()) {
            std::string path = prefix_ + node.local;
            rows_.push_back({node.id, path.empty() ? "/" : std::move(path)});
        }
        std::sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) { return a.id < b.id; });
        return true;
    }

    // The path of a cgroup; "" = it is not known (yet): refresh(true) and ask again. Holds until the next refresh().
    [[nodiscard]] std::string_view path(std::uint64_t id) const noexcept {
        const auto at = std::lower_bound(rows_.begin(), rows_.end(), id,
                                         [](const Row& row, std::uint64_t wanted) { return row.id < wanted; });
        return at != rows_.end() && at->id == id ? std::string_view(at->path) : std::string_view();
    }
    [[nodiscard]] std::size_t size() const noexcept { return rows_.size(); }

private:
    struct Row {
        std::uint64_t id;
        std::string path;
    };

    [[nodiscard]] Result<bool> find() {
        std::vector<Hierarchy> hierarchies;
        if (const auto found = find_hierarchies(roots_, *io_, hierarchies); !found) return found.error();
        for (const Hierarchy& hierarchy : hierarchies) {
            if (hierarchy.controllers != kUnified) continue;
            prefix_ = hierarchy.prefix;
            tree_ = std::make_unique<CgroupTree>(*io_, hierarchy.directory);
            return true;
        }
        return Error{Errc::unavailable, 0, "proc/self/mountinfo: a mounted cgroup2 hierarchy"};
    }

    Roots roots_;
    const Io* io_;
    std::string prefix_;
    std::unique_ptr<CgroupTree> tree_;
    std::vector<Row> rows_;
};

}  // namespace argus::sources
