// Whose processes are whose: the processes of each agent session, their sums, and the owner of every row.
//
// A session is registered by root processes (a guard that announced itself, the child of a supervisor). Its processes
// are those roots and all that descend from them. Once a process belongs it goes on belonging when its parent ends and
// it is given to init: a daemonised child does not escape. A process that was running before its root was registered
// counts from then on. What lives and dies between two tables, as most tools of an agent do, is known by its exit.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "sources/exits.hpp"
#include "sources/processes/processes.hpp"

namespace argus::engine {

struct AgentRoot {
    std::string session;
    std::int32_t pid = 0;
    std::int64_t start_time_ns = 0;  // with the pid, its identity
    bool descendants_only = false;   // a supervisor is not part of what it supervises
    friend bool operator==(const AgentRoot&, const AgentRoot&) = default;
};

// Sums over a session's processes. Times and bytes have grown since it was registered, and only grow.
struct AgentUsage {
    std::string session;
    std::uint32_t processes = 0;
    std::uint64_t threads = 0;
    double rss_bytes = 0;
    double cpu_s = 0;
    double read_bytes = 0, write_bytes = 0;
    std::uint64_t started = 0;  // processes that have ever belonged
};

class AgentProcesses {
public:
    static constexpr std::uint32_t kMaxSessions = 256;
    static constexpr std::int32_t kNobody = -1;
    static constexpr std::size_t kMaxEnded = 1 << 16;

    // Replaces the registered roots. A session that has no root any more is forgotten with the last of its processes.
    // Returns how many sessions were left out because there are more than kMaxSessions.
    std::uint32_t set_roots(std::vector<AgentRoot> roots);

    // A process that ended; attributed by the next update(), with the table of that time at hand. Beyond kMaxEnded
    // between two tables it is counted as dropped.
    void ended(const sources::ExitRecord& record);

    // Attributes a new table (ascending pids). Allocates only while sessions or processes multiply.
    void update(const sources::ProcessTable& table);

    // By usage index; an entry of an empty session is free and may be reused by another.
    [[nodiscard]] std::span<const AgentUsage> usage() const noexcept { return usage_; }
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }  // exits that are in no sum
    // By row of the last table: an index into usage(), or kNobody.
    [[nodiscard]] std::span<const std::int32_t> owners() const noexcept { return owners_; }

private:
    struct Known {  // a process that belonged at the last update
        std::int32_t pid = 0;
        std::int32_t owner = kNobody;
        std::int64_t start_time_ns = 0;
        double cpu_s = 0, read_bytes = 0, write_bytes = 0;
        Nanos seen = 0;  // time of the last table that listed it, or its end if none did
    };
    struct Ended {
        Known process;  // with all that it used; the owner is not known yet
        std::int32_t parent = 0;
        bool tried = false;  // by the update before: its parent's exit may come late
    };
    static constexpr std::int32_t kUnresolved = -2;

    [[nodiscard]] std::int32_t session_index(const std::string& session);
    [[nodiscard]] std::int32_t resolve(const sources::ProcessTable& table, std::size_t row);
    void inherit(const sources::ProcessTable& table);
    void sum(const sources::ProcessTable& table);
    void remember_departed(Nanos now);
    void settle_ended();
    [[nodiscard]] std::int32_t owner_of_parent(std::size_t index);
    void add(std::int32_t owner, const Known& now, const Known& before);
    void forget_empty();

    std::vector<AgentRoot> roots_;
    std::vector<std::int32_t> root_owner_;
    std::vector<AgentUsage> usage_;
    std::vector<std::int32_t> owners_;
    std::vector<Known> known_, next_;  // ascending pids
    std::vector<Known> departed_;      // no longer listed, their exits perhaps not told yet; ascending pids
    std::vector<Ended> ended_;         // ascending pids once they are settled
    std::vector<std::size_t> path_;
    std::uint64_t dropped_ = 0;
    Nanos last_time_ = std::numeric_limits<Nanos>::max();  // of the table before; max = none yet
};

}  // namespace argus::engine
