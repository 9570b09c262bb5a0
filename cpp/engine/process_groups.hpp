// Views of a process table that are asked for, not sampled: the N rows that use most of something, and sums over the
// rows that share a name, an executable, a cgroup, a user, a state or an agent session. They allocate.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/agent_processes.hpp"
#include "sources/processes/processes.hpp"

namespace argus::engine {

// Rows with the greatest values, greatest first, at most `count`; NaN is never among them, equals go by row.
[[nodiscard]] std::vector<std::uint32_t> top_rows(std::span<const double> values, std::size_t count);

enum class GroupBy : std::uint8_t { name, executable, cgroup, user, state, session };
[[nodiscard]] std::optional<GroupBy> group_by(std::string_view word) noexcept;
inline constexpr const char* kGroupWords[] = {"name", "executable", "cgroup", "user", "state", "session"};

// What the table does not hold and changes rarely: executable (/proc/PID/exe) and cgroup (/proc/PID/cgroup), read once
// for each process and again after kStale, since a process may exec and be moved.
class ProcessLabels {
public:
    static constexpr Nanos kStale = 30 * kSecond;
    static constexpr std::size_t kMaxBytes = 4096;  // of one label; longer ones are cut

    explicit ProcessLabels(std::string proc) : proc_(std::move(proc)) {}

    // A label for each row: "" where it cannot be read (a kernel thread, another user's process, gone).
    [[nodiscard]] const std::vector<std::string>& executables(const sources::ProcessTable& table);
    // The path in the unified hierarchy, else in that of cpu; "/" is the root.
    [[nodiscard]] const std::vector<std::string>& cgroups(const sources::ProcessTable& table);

private:
    struct Label {
        std::int32_t pid = 0;
        std::int64_t start_time_ns = 0;
        Nanos read_at = 0;
        std::string text;
    };
    using Reader = std::string (*)(const std::string& folder);
    void refresh(const sources::ProcessTable& table, std::vector<Label>& labels, Reader reader);

    std::string proc_;
    std::vector<Label> executable_labels_, cgroup_labels_;  // ascending pids
    std::vector<std::string> out_;
};

// The hierarchy's path in the text of /proc/PID/cgroup; man cgroups(7).
[[nodiscard]] std::string_view cgroup_of(std::string_view text) noexcept;

struct ProcessGroups {
    std::vector<std::string> key;  // raw, untrusted bytes
    std::vector<std::uint32_t> processes;
    std::vector<std::uint64_t> threads;
    std::array<std::vector<double>, sources::kProcessColumns> sums;  // NaN = observed for none of them
};

// Sums over rows with equal keys; one key a row. Groups are in the order of their first row.
[[nodiscard]] ProcessGroups sum_groups(const sources::ProcessTable& table, std::span<const std::string> keys);

// The keys of a table's rows. `agents` must have been updated with it.
[[nodiscard]] std::vector<std::string> group_keys(const sources::ProcessTable& table, GroupBy by, ProcessLabels& labels,
                                                  const AgentProcesses& agents);

}  // namespace argus::engine
