#include "engine/agent_processes.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace argus::engine {
namespace {

using sources::ProcessColumn;
using sources::ProcessTable;

constexpr Nanos kSameStart = 20 * kMillisecond;  // /proc tells starts in ticks of 10 ms, an exit to the ns
constexpr Nanos kExitsLate = 10 * kSecond;  // how long an exit may take to be told

double known_or(double value, double otherwise) noexcept { return std::isnan(value) ? otherwise : value; }

std::size_t row_of(const ProcessTable& table, std::int32_t pid) noexcept {
    const auto end = table.pid.begin() + static_cast<std::ptrdiff_t>(table.count);
    const auto at = std::lower_bound(table.pid.begin(), end, pid);
    return at != end && *at == pid ? static_cast<std::size_t>(at - table.pid.begin()) : table.count;
}

// The one of that pid; nullptr = none. Of `processes`, in ascending pids.
template <class Process, class Pid>
Process* find(std::vector<Process>& processes, std::int32_t pid, Pid&& pid_of) {
    const auto before = [&](const Process& process, std::int32_t wanted) { return pid_of(process) < wanted; };
    const auto at = std::lower_bound(processes.begin(), processes.end(), pid, before);
    return at != processes.end() && pid_of(*at) == pid ? &*at : nullptr;
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
                  known_or(column(ProcessColumn::read_bytes), 0), known_or(column(ProcessColumn::write_bytes), 0),
                  table.time};
        while (at < known_.size() && known_[at].pid < now.pid) ++at;
        const bool same = at < known_.size() && known_[at].pid == now.pid &&
                          known_[at].start_time_ns == now.start_time_ns && known_[at].owner == now.owner;
        const bool born = !same && now.start_time_ns > last_time_;  // its whole life lies since the table before
        add(now.owner, now, same ? known_[at] : born ? Known{} : now);
        AgentUsage& usage = usage_[static_cast<std::size_t>(now.owner)];
        usage.started += same ? 0 : 1;
        ++usage.processes;
        usage.threads += static_cast<std::uint64_t>(std::max(0, table.threads[row]));
        usage.rss_bytes += known_or(column(ProcessColumn::rss), 0);
        next_.push_back(now);
    }
    std::swap(known_, next_);
}

void AgentProcesses::add(std::int32_t owner, const Known& now, const Known& before) {
    AgentUsage& usage = usage_[static_cast<std::size_t>(owner)];
    usage.cpu_s += std::max(0.0, now.cpu_s - before.cpu_s);
    usage.read_bytes += std::max(0.0, now.read_bytes - before.read_bytes);
    usage.write_bytes += std::max(0.0, now.write_bytes - before.write_bytes);
}

// After sum(), when next_ holds what was known before.
void AgentProcesses::remember_departed(Nanos now) {
    std::erase_if(departed_, [now](const Known& gone) { return now - gone.seen > kExitsLate; });
    std::size_t at = 0;
    for (const Known& before : next_) {
        while (at < known_.size() && known_[at].pid < before.pid) ++at;
        const bool lives = at < known_.size() && known_[at].pid == before.pid &&
                           known_[at].start_time_ns == before.start_time_ns;
        if (!lives) departed_.push_back(before);
    }
    std::stable_sort(departed_.begin(), departed_.end(),
                     [](const Known& a, const Known& b) { return a.pid < b.pid; });
}

void AgentProcesses::ended(const sources::ExitRecord& record) {
    if (usage_.empty() || (record.valid & sources::kExitStart) == 0) return;
    if (ended_.size() >= kMaxEnded) {
        ++dropped_;
        return;
    }
    const double cpu_s = static_cast<double>(record.cpu_user_ns + record.cpu_system_ns) * 1e-9;
    const Known process{record.pid, kUnresolved, record.start_ns, cpu_s, static_cast<double>(record.read_bytes),
                        static_cast<double>(record.write_bytes), record.end_ns};
    ended_.push_back({process, record.parent, false});
}

// Of one that no table listed: by its parent, which may itself have ended unlisted. kUnresolved = nobody knows it.
std::int32_t AgentProcesses::owner_of_parent(std::size_t index) {
    const auto pid_of = [](const Known& process) { return process.pid; };
    constexpr int kGenerations = 64;
    const Ended* child = &ended_[index];
    for (int i = 0; i < kGenerations; ++i) {
        const std::int32_t pid = child->parent;
        const auto elder = [&](const Known* it) {
            return it != nullptr && it->start_time_ns <= child->process.start_time_ns + kSameStart;
        };
        for (auto* processes : {&known_, &departed_}) {
            if (const Known* parent = find(*processes, pid, pid_of); elder(parent)) return parent->owner;
        }
        for (std::size_t k = 0; k < roots_.size(); ++k) {
            if (roots_[k].pid == pid && roots_[k].start_time_ns <= child->process.start_time_ns + kSameStart) {
                return root_owner_[k];
            }
        }
        const Ended* parent = find(ended_, pid, [](const Ended& it) { return it.process.pid; });
        if (parent == nullptr || parent == child || !elder(&parent->process)) return kUnresolved;
        if (parent->process.owner >= 0) return parent->process.owner;
        child = parent;
    }
    return kUnresolved;
}

void AgentProcesses::settle_ended() {
    std::stable_sort(ended_.begin(), ended_.end(),
                     [](const Ended& a, const Ended& b) { return a.process.pid < b.process.pid; });
    const auto pid_of = [](const Known& process) { return process.pid; };
    next_.clear();
    for (std::size_t i = 0; i < ended_.size(); ++i) {
        Known& process = ended_[i].process;
        for (auto* processes : {&known_, &departed_}) {
            Known* listed = find(*processes, process.pid, pid_of);
            if (listed == nullptr || std::abs(listed->start_time_ns - process.start_time_ns) > kSameStart) continue;
            process.owner = listed->owner;
            add(process.owner, process, *listed);
            listed->cpu_s = std::max(listed->cpu_s, process.cpu_s);  // a zombie is listed on, with the same sums
            listed->read_bytes = std::max(listed->read_bytes, process.read_bytes);
            listed->write_bytes = std::max(listed->write_bytes, process.write_bytes);
            break;
        }
        if (process.owner != kUnresolved) continue;
        const std::int32_t owner = owner_of_parent(i);
        if (owner < 0) continue;
        process.owner = owner;
        add(owner, process, Known{});
        ++usage_[static_cast<std::size_t>(owner)].started;
        next_.push_back(process);
    }
    departed_.insert(departed_.end(), next_.begin(), next_.end());  // a child of theirs may be told of later still
    std::erase_if(ended_, [](Ended& it) { return it.process.owner >= 0 || std::exchange(it.tried, true); });
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
    remember_departed(table.time);
    settle_ended();
    forget_empty();
    last_time_ = table.time;
}

}  // namespace argus::engine
