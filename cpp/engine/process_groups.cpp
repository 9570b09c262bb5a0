#include "engine/process_groups.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

#include "sources/sysfs.hpp"

namespace argus::engine {
namespace {

using sources::ProcessTable;

std::string read_executable(const std::string& folder) {
    std::string text(ProcessLabels::kMaxBytes, '\0');
    const ssize_t got = ::readlink((folder + "/exe").c_str(), text.data(), text.size());
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

std::string read_cgroup(const std::string& folder) {
    const auto text = sources::read_value(system_io(), folder + "/cgroup");
    return text ? std::string(cgroup_of(*text)) : std::string();
}

std::string name_of(const ProcessTable& table, std::size_t row) {
    const auto& name = table.name[row];
    return {name.data(), static_cast<std::size_t>(std::find(name.begin(), name.end(), '\0') - name.begin())};
}

}  // namespace

std::vector<std::uint32_t> top_rows(std::span<const double> values, std::size_t count) {
    std::vector<std::uint32_t> rows;
    for (std::uint32_t row = 0; row < values.size(); ++row) {
        if (!std::isnan(values[row])) rows.push_back(row);
    }
    const auto more = [&](std::uint32_t a, std::uint32_t b) {
        return values[a] != values[b] ? values[a] > values[b] : a < b;
    };
    const std::size_t kept = std::min(count, rows.size());
    std::partial_sort(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(kept), rows.end(), more);
    rows.resize(kept);
    return rows;
}

std::optional<GroupBy> group_by(std::string_view word) noexcept {
    for (std::size_t i = 0; i < std::size(kGroupWords); ++i) {
        if (word == kGroupWords[i]) return static_cast<GroupBy>(i);
    }
    return std::nullopt;
}

std::string_view cgroup_of(std::string_view text) noexcept {
    std::string_view of_cpu;
    std::string_view unified;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
        if (second == std::string_view::npos) continue;
        const std::string_view controllers = line.substr(first + 1, second - first - 1);
        const std::string_view path = line.substr(second + 1);
        if (controllers.empty()) unified = path;
        if (("," + std::string(controllers) + ",").find(",cpu,") != std::string::npos) of_cpu = path;
    }
    // On a hybrid machine every process is at the unified root while version 1 holds the truth.
    return unified.size() > 1 || of_cpu.empty() ? unified : of_cpu;
}

void ProcessLabels::refresh(const ProcessTable& table, std::vector<Label>& labels, Reader reader) {
    std::vector<Label> fresh;
    fresh.reserve(table.count);
    std::size_t at = 0;
    for (std::size_t row = 0; row < table.count; ++row) {
        while (at < labels.size() && labels[at].pid < table.pid[row]) ++at;
        const bool known = at < labels.size() && labels[at].pid == table.pid[row] &&
                           labels[at].start_time_ns == table.start_time_ns[row] &&
                           table.time - labels[at].read_at < kStale;
        if (known) {
            fresh.push_back(std::move(labels[at]));
        } else {
            fresh.push_back({table.pid[row], table.start_time_ns[row], table.time,
                             reader(proc_ + "/" + std::to_string(table.pid[row]))});
        }
    }
    labels = std::move(fresh);
    out_.clear();
    for (const Label& label : labels) out_.push_back(label.text);
}

const std::vector<std::string>& ProcessLabels::executables(const ProcessTable& table) {
    refresh(table, executable_labels_, read_executable);
    return out_;
}

const std::vector<std::string>& ProcessLabels::cgroups(const ProcessTable& table) {
    refresh(table, cgroup_labels_, read_cgroup);
    return out_;
}

std::vector<std::string> group_keys(const ProcessTable& table, GroupBy by, ProcessLabels& labels,
                                    const AgentProcesses& agents) {
    if (by == GroupBy::executable) return labels.executables(table);
    if (by == GroupBy::cgroup) return labels.cgroups(table);
    std::vector<std::string> keys(table.count);
    for (std::size_t row = 0; row < table.count; ++row) {
        if (by == GroupBy::name) keys[row] = name_of(table, row);
        if (by == GroupBy::user) keys[row] = table.uid[row] < 0 ? std::string() : std::to_string(table.uid[row]);
        if (by == GroupBy::state) keys[row] = std::string(1, table.state[row]);
        const bool owned = by == GroupBy::session && row < agents.owners().size() && agents.owners()[row] >= 0;
        if (owned) keys[row] = agents.usage()[static_cast<std::size_t>(agents.owners()[row])].session;
    }
    return keys;
}

ProcessGroups sum_groups(const ProcessTable& table, std::span<const std::string> keys) {
    ProcessGroups out;
    std::unordered_map<std::string_view, std::size_t> index;
    for (std::size_t row = 0; row < table.count && row < keys.size(); ++row) {
        const auto [at, fresh] = index.try_emplace(keys[row], out.key.size());
        if (fresh) {
            out.key.push_back(keys[row]);
            out.processes.push_back(0);
            out.threads.push_back(0);
            for (auto& sums : out.sums) sums.push_back(std::numeric_limits<double>::quiet_NaN());
        }
        const std::size_t group = at->second;
        ++out.processes[group];
        out.threads[group] += static_cast<std::uint64_t>(std::max(0, table.threads[row]));
        for (std::size_t column = 0; column < sources::kProcessColumns; ++column) {
            const double value = table.columns[column][row];
            double& sum = out.sums[column][group];
            if (!std::isnan(value)) sum = std::isnan(sum) ? value : sum + value;
        }
    }
    return out;
}

}  // namespace argus::engine
