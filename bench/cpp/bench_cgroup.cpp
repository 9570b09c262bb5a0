// host_cgroups_poll/200: one poll of the cgroup source with 200 live groups, against a loop of bare preads on kept
// descriptors of the same files; the bar is twice that. host_cgroups_look/200: the part that watches for new groups.
// source_poll/perf: one poll of the perf source, against reading the same groups; the bar is 1.5 times that.
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "report.hpp"
#include "sources/cgroup.hpp"
#include "sources/cgroup_tree.hpp"
#include "sources/perf_group.hpp"
#include "sources/source.hpp"

namespace argus::sources {
extern const SourceDescriptor cgroup_source;
extern const SourceDescriptor perf_source;
}  // namespace argus::sources

namespace {

using namespace argus;

constexpr int kGroups = 200;

class Count final : public sources::Emit {
public:
    [[nodiscard]] Slot open_series(SeriesInfo) override { return {opened++, 1}; }
    void close_series(Slot) override {}
    void value(Slot, double) override {}
    std::uint32_t opened = 0;
};

// Groups of the own name in every hierarchy that takes them; gone at the end.
class LiveGroups {
public:
    explicit LiveGroups(const std::vector<sources::Hierarchy>& hierarchies) {
        for (const auto& hierarchy : hierarchies) {
            const std::string top = hierarchy.directory + "/argus-bench-" + std::to_string(getpid());
            if ((hierarchy.controllers & (sources::kUnified | sources::kMemory)) == 0) continue;
            if (mkdir(top.c_str(), 0755) != 0) continue;
            folders_.push_back(top);
            for (int i = 0; i + 1 < kGroups; ++i) {
                folders_.push_back(top + "/g" + std::to_string(i));
                if (mkdir(folders_.back().c_str(), 0755) != 0) folders_.pop_back();
            }
        }
    }
    ~LiveGroups() {
        while (!folders_.empty()) {
            (void)rmdir(folders_.back().c_str());
            folders_.pop_back();
        }
    }
    LiveGroups(const LiveGroups&) = delete;
    LiveGroups& operator=(const LiveGroups&) = delete;
    [[nodiscard]] std::size_t size() const { return folders_.size(); }

private:
    std::vector<std::string> folders_;
};

std::vector<int> open_all(const std::vector<sources::Hierarchy>& hierarchies) {
    std::vector<int> fds;
    for (const auto& hierarchy : hierarchies) {
        sources::CgroupTree tree(system_io(), hierarchy.directory);
        if (!tree.refresh()) continue;
        for (const auto& node : tree.nodes().subspan(1)) {
            for (const auto& file : sources::cgroup_files) {
                if ((file.controllers & hierarchy.controllers) == 0) continue;
                const std::string path = hierarchy.directory + node.local + "/" + file.name;
                if (const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC); fd >= 0) fds.push_back(fd);
            }
        }
    }
    return fds;
}

bool bench_cgroups() {
    std::vector<sources::Hierarchy> hierarchies;
    if (!sources::find_hierarchies({}, system_io(), hierarchies)) return true;  // this machine lacks them
    const LiveGroups groups(hierarchies);
    if (groups.size() < kGroups) return true;  // or the permission to make them
    auto source = sources::cgroup_source.open({}, system_io());
    Count count;
    if (!source || !(*source)->poll(0, count) || count.opened < kGroups) {
        return bench::report("host_cgroups_poll/200", 0, "us", "well-formed values", 0, 0, false);
    }
    const std::vector<int> fds = open_all(hierarchies);
    static char buffer[16384];
    const double bare = bench::best_of(50, [&] {
        for (const int fd : fds) (void)!::pread(fd, buffer, sizeof buffer, 0);
    });
    const double ours = bench::best_of(50, [&] { (void)(*source)->poll(0, count); });
    for (const int fd : fds) ::close(fd);
    std::vector<std::unique_ptr<sources::CgroupTree>> trees;
    for (const auto& hierarchy : hierarchies) {
        trees.push_back(std::make_unique<sources::CgroupTree>(system_io(), hierarchy.directory));
        (void)trees.back()->refresh();
    }
    const double look = bench::best_of(50, [&] {
        for (const auto& tree : trees) (void)tree->refresh();
    });
    const std::string against = "bare pread of " + std::to_string(fds.size()) + " kept files";
    const bool steady = bench::report("host_cgroups_look/200", look * 1e6, "us", "the whole poll", look / ours,
                                      ours * 0.5e6, look <= ours * 0.5);
    return bench::report("host_cgroups_poll/200", ours * 1e6, "us", against.c_str(), ours / bare, bare * 2e6,
                         ours <= bare * 2) && steady;
}

bool bench_perf() {
    auto source = sources::perf_source.open({}, system_io());
    if (!source) return true;  // not permitted, or not there
    Count count;
    (void)(*source)->poll(0, count);
    const sources::PerfEvent events[] = {
        {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_MIGRATIONS},   {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CONTEXT_SWITCHES},
        {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MIN},  {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MAJ},
        {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_ALIGNMENT_FAULTS}, {PERF_TYPE_SOFTWARE, PERF_COUNT_SW_EMULATION_FAULTS},
    };
    std::vector<sources::PerfGroup> groups;
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); ++cpu) {
        groups.emplace_back(sources::system_perf_calls());
        if (!groups.back().open(events, {.pid = -1, .cpu = cpu, .flags = 0, .inherit = false})) return true;
    }
    const double bare = bench::best_of(300, [&] {
        for (auto& group : groups) (void)group.read();
    });
    const double ours = bench::best_of(300, [&] { (void)(*source)->poll(0, count); });
    const double bar = bare * 1.5 + 5e-6;  // and the list of processors
    return bench::report("source_poll/perf", ours * 1e6, "us", "bare reads of the software groups", ours / bare,
                         bar * 1e6, ours <= bar);
}

}  // namespace

int main() {
    const bool cgroups = bench_cgroups();
    return bench_perf() && cgroups ? 0 : 1;
}
