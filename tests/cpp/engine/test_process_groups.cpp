#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "../sources/support.hpp"
#include "engine/process_groups.hpp"

namespace argus::engine {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

sources::ProcessTable named(std::vector<std::pair<std::string, double>> rows) {
    sources::ProcessTable table;
    table.reserve_rows(rows.size());
    table.count = rows.size();
    for (std::size_t i = 0; i < rows.size(); ++i) {
        table.pid[i] = static_cast<std::int32_t>(i + 1);
        table.threads[i] = 1;
        table.uid[i] = i == 0 ? -1 : 1000;
        table.state[i] = 'S';
        table.name[i].fill('\0');
        std::copy(rows[i].first.begin(), rows[i].first.end(), table.name[i].begin());
        for (auto& column : table.columns) column[i] = rows[i].second;
    }
    return table;
}

}  // namespace

TEST_CASE("process groups: the greatest first, unobserved never, equals by row") {
    const std::vector<double> values{1, kNaN, 7, 3, 7, -1};
    CHECK(top_rows(values, 3) == std::vector<std::uint32_t>{2, 4, 3});
    CHECK(top_rows(values, 99).size() == 5);
    CHECK(top_rows(values, 0).empty());
    CHECK(top_rows({}, 3).empty());
}

TEST_CASE("process groups: sums over equal keys, unobserved where none was observed") {
    const auto table = named({{"a", 1}, {"b", kNaN}, {"a", 2}, {"b", kNaN}, {"c", 5}});
    AgentProcesses agents;
    ProcessLabels labels("/nowhere");
    const auto keys = group_keys(table, GroupBy::name, labels, agents);
    const ProcessGroups groups = sum_groups(table, keys);
    CHECK(groups.key == std::vector<std::string>{"a", "b", "c"});
    CHECK(groups.processes == std::vector<std::uint32_t>{2, 2, 1});
    CHECK(groups.sums[0][0] == 3);
    CHECK(std::isnan(groups.sums[0][1]));
    CHECK(groups.sums[0][2] == 5);
    CHECK(group_keys(table, GroupBy::user, labels, agents) ==
          std::vector<std::string>{"", "1000", "1000", "1000", "1000"});
    CHECK(group_keys(table, GroupBy::executable, labels, agents) == std::vector<std::string>(5));
    CHECK(group_keys(table, GroupBy::session, labels, agents) == std::vector<std::string>(5));
}

TEST_CASE("process groups: every word is known and no other") {
    for (std::size_t i = 0; i < std::size(kGroupWords); ++i) CHECK(group_by(kGroupWords[i]) == static_cast<GroupBy>(i));
    CHECK(!group_by("colour"));
    CHECK(!group_by(""));
}

TEST_CASE("process groups: the cgroup of version 2, of 1, of both, and of a text that is none") {
    CHECK(cgroup_of("0::/system.slice/ssh.service\n") == "/system.slice/ssh.service");
    CHECK(cgroup_of("5:cpu,cpuacct:/docker/ab\n4:memory:/x\n") == "/docker/ab");
    CHECK(cgroup_of("5:cpu,cpuacct:/docker/ab\n0::/\n") == "/docker/ab");
    CHECK(cgroup_of("5:cpuset:/wrong\n0::/\n") == "/");
    CHECK(cgroup_of("0::/a:b\n") == "/a:b");
    CHECK(cgroup_of("").empty());
    CHECK(cgroup_of("nonsense\n:\n").empty());
}

TEST_CASE("process groups: labels are read once a process and again when they may have changed") {
    test::Tree tree;
    tree.write("proc/1/cgroup", "0::/a\n");
    tree.write("proc/2/cgroup", "0::/b\n");
    std::filesystem::create_symlink("/usr/bin/agent", tree.proc() + "/1/exe");
    auto table = named({{"x", 1}, {"y", 1}});
    ProcessLabels labels(tree.proc());
    CHECK(labels.cgroups(table) == std::vector<std::string>{"/a", "/b"});
    CHECK(labels.executables(table) == std::vector<std::string>{"/usr/bin/agent", ""});
    tree.write("proc/1/cgroup", "0::/moved\n");
    table.time += ProcessLabels::kStale - 1;
    CHECK(labels.cgroups(table)[0] == "/a");
    table.start_time_ns[1] = 5;  // another process of that pid
    tree.write("proc/2/cgroup", "0::/c\n");
    CHECK(labels.cgroups(table)[1] == "/c");
    table.time += 1;
    CHECK(labels.cgroups(table)[0] == "/moved");
}

}  // namespace argus::engine
