#include "engine/agent_processes.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace argus::engine {
namespace {

using sources::ProcessColumn;
using sources::ProcessTable;

double known_or(double value, double otherwise) noexcept { return std::isnan(value) ? otherwise : value; }

std::size_t row_of(const ProcessTable& table, std::int32_t pid) noexcept {
    const auto end = table.pid.begin() + static_cast<std::ptrdiff_t>(table.count);
    const auto at = std::lower_bound(table.pid.begin(), end, pid);
    return at != end && *at == pid ? static_cast<std::size_t>(at - table.pid.begin()) : table.count;
}

}  // namespace

std::int32_t AgentProcesses::session_index(const std::string& session) {
    auto free = usage_.end();
    for (auto at = usage_.begin(); at != usage_.end(); ++at) {
        if (at->session == session) return static_cast<std::int32_t>(at - usage_.begin());
        if (at->session.empty() && free == usage_.end()) free = at;
    }
    if (free == usage_.end()) {
        if (usage_.size() >= kMaxSessions) return kNobody;
        free = usage_.insert(usage_.end(), AgentUsage{});
    }
    *free = {};
    free->session = session;
    return static_cast<std::int32_t>(free - usage_.begin());
}

std::uint32_t AgentProcesses::set_roots(std::vector<AgentRoot> roots) {
    roots_ = std::move(roots);
    root_owner_.clear();
    std::uint32_t refused = 0;
    for (const AgentRoot& root : roots_) {
        const std::int32_t owner = root.session.empty() ? kNobody : session_index(root.session);
        refused += owner == kNobody ? 1 : 0;
        root_owner_.push_back(owner);
    }
    return refused;
}

// Owners that hold from before, and the roots themselves.
void AgentProcesses::inherit(const ProcessTable& table) {
    std::size_t at = 0;
    for (std::size_t row = 0; row < table.count; ++row) {
        while (at < known_.size() && known_[at].pid < table.pid[row]) ++at;
        const bool same = at < known_.size() && known_[at].pid == table.pid[row] &&
                          known_[at].start_time_ns == table.start_time_ns[row];
        owners_[row] = same ? known_[at].owner : kUnresolved;
    }
    for (std::size_t i = 0; i < roots_.size(); ++i) {
        const std::size_t row = row_of(table, roots_[i].pid);
        if (row == table.count || table.start_time_ns[row] != roots_[i].start_time_ns) continue;
        if (!roots_[i].descendants_only) owners_[row] = root_owner_[i];
    }
}

// Up the parents until one's owner is known; all on the way belong to the same.
std::int32_t AgentProcesses::resolve(const ProcessTable& table, std::size_t row) {
    path_.clear();
    std::int32_t owner = kNobody;
    while (row < table.count) {
        if (owners_[row] != kUnresolved) {
            owner = owners_[row];
            break;
        }
        path_.push_back(row);
        owners_[row] = kNobody;  // a loop of parents, as a table read over time can show, ends here
        const std::size_t parent = row_of(table, table.ppid[row]);
        bool supervised = false;
        for (std::size_t i = 0; i < roots_.size() && parent < table.count && !supervised; ++i) {
            supervised = roots_[i].descendants_only && roots_[i].pid == table.pid[parent] &&
                         roots_[i].start_time_ns == table.start_time_ns[parent];
            if (supervised) owner = root_owner_[i];
        }
        if (supervised) break;
        row = parent;
    }
    for (const std::size_t each : path_) owners_[each] = owner;
    return owner;
}

void AgentProcesses::sum(const ProcessTable& table) {
    for (AgentUsage& usage : usage_) {
        usage.processes = 0;
        usage.threads = 0;
        usage.rss_bytes = 0;
    }
    next_.clear();
    std::size_t at = 0;
    for (std::size_t row = 0; row < table.count; ++row) {
        if (owners_[row] < 0) continue;
        const auto column = [&](ProcessColumn which) { return table.column(which)[row]; };
        Known now{table.pid[row], owners_[row], table.start_time_ns[row],
                  known_or(column(ProcessColumn::cpu_user), 0) + known_or(column(ProcessColumn::cpu_system), 0),
                  known_or(column(ProcessColumn::read_bytes), 0), known_or(column(ProcessColumn::write_bytes), 0)};
        while (at < known_.size() && known_[at].pid < now.pid) ++at;
        const bool same = at < known_.size() && known_[at].pid == now.pid &&
                          known_[at].start_time_ns == now.start_time_ns && known_[at].owner == now.owner;
        const bool born = !same && now.start_time_ns > last_time_;  // its whole life lies since the table before
        const Known before = same ? known_[at] : born ? Known{} : now;
        AgentUsage& usage = usage_[static_cast<std::size_t>(now.owner)];
        usage.cpu_s += std::max(0.0, now.cpu_s - before.cpu_s);
        usage.read_bytes += std::max(0.0, now.read_bytes - before.read_bytes);
        usage.write_bytes += std::max(0.0, now.write_bytes - before.write_bytes);
        usage.started += same ? 0 : 1;
        ++usage.processes;
        usage.threads += static_cast<std::uint64_t>(std::max(0, table.threads[row]));
        usage.rss_bytes += known_or(column(ProcessColumn::rss), 0);
        next_.push_back(now);
    }
    std::swap(known_, next_);
}

void AgentProcesses::forget_empty() {
    for (std::size_t i = 0; i < usage_.size(); ++i) {
        const bool rooted = std::find(root_owner_.begin(), root_owner_.end(), static_cast<std::int32_t>(i)) !=
                            root_owner_.end();
        if (!rooted && usage_[i].processes == 0) usage_[i].session.clear();
    }
}

void AgentProcesses::update(const ProcessTable& table) {
    owners_.resize(table.count);
    inherit(table);
    for (std::size_t row = 0; row < table.count; ++row) {
        if (owners_[row] == kUnresolved) (void)resolve(table, row);
    }
    sum(table);
    forget_empty();
    last_time_ = table.time;
}

}  // namespace argus::engine
