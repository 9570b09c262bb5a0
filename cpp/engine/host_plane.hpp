// The host plane: samplers on one side, one row of numbers on the other. One thread polls the sources of the fast
// lane, one those of the slow lane, one the process table; drain(), on the main thread, turns what they emitted into
// rates and levels, one per slot.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/io.hpp"
#include "engine/agent_processes.hpp"
#include "engine/process_groups.hpp"
#include "engine/rates.hpp"
#include "engine/registry.hpp"
#include "engine/sampler.hpp"
#include "ring/snapshot.hpp"
#include "ring/spsc_ring.hpp"
#include "sources/exits.hpp"
#include "sources/pressure_trigger.hpp"
#include "sources/processes/processes.hpp"
#include "sources/source.hpp"

namespace argus::engine {

struct SourceChoice {
    std::string name;
    bool enabled = true;
    std::int64_t interval_ms = 0;  // 0 = the descriptor's default
    sources::SourceSettings settings = {};
};

struct HostOptions {
    sources::Roots roots;
    std::vector<SourceChoice> sources;  // those not named run with their defaults
    bool processes = true;
    std::int64_t processes_interval_ms = 1000;
    std::string process_tier = "auto";  // or the one tier that reads them: see sources/processes/scanner.hpp
    std::uint32_t max_series = 16384;
    Nanos window = kSecond;  // what is polled more often is gathered over it, with its extremes
    BurstOptions bursts;     // of the fast lane, begun by pressure
    double burst_stall_share = 0.15;  // of 2 s, some task stalled
};

struct SeriesEntry {
    SeriesInfo info;
    Slot slot;
    bool open = false;
};

// The newest sample of a slot as a level, for what shows totals instead of rates.
struct Observation {
    Nanos time = 0;                // Clock::mono() of the sample; 0 = none yet
    Nanos interval = 0;            // since the sample before; 0 = there was none
    double value = 0;              // see Rates::level
    std::uint32_t generation = 0;  // of the slot; 0 = no series is open in it

    void see(Nanos now, double level) noexcept {
        interval = time != 0 && now > time ? now - time : interval;
        time = now;
        value = level;
    }
};

struct SourceStatus {
    std::string name;
    SourceState state = SourceState::running;
    std::string error;  // "proc/pressure/io: not present (ENOENT), needs …; source 'pressure' …"; empty = none
    std::uint64_t polls = 0, emitted = 0, malformed = 0, errors = 0, missed = 0, dropped = 0;
    Nanos lateness_max_ns = 0, duration_last_ns = 0, duration_max_ns = 0;
};

struct LaneStatus {
    const char* name = "";
    std::uint64_t wakes = 0, bursts = 0;
    Nanos lateness_p50_ns = 0, lateness_p99_ns = 0;
};

// Each exit, from the sampler that polls their source to the drain; wanted while there are agents it may concern, and
// made when it is first wanted.
struct ExitsTold {
    std::unique_ptr<ring::SpscRing<sources::ExitRecord>> ring;
    std::atomic<bool> wanted = false;
};

class HostPlane {
public:
    // `catalog`: every source this build has. Throws std::invalid_argument for an option that names none of them, or an
    // interval outside [10 ms, 1 h].
    HostPlane(HostOptions options, std::span<const sources::SourceDescriptor* const> catalog, const Io& io,
              const Clock& clock);
    ~HostPlane();

    void start();
    void stop();

    // Every source (and the table) that is due by the Clock, now, in the calling thread; the first call polls all.
    // Not between start() and stop().
    void poll_once();

    // Whose processes become series of an agent session: see AgentProcesses::set_roots.
    std::uint32_t set_agents(std::vector<AgentRoot> roots);

    [[nodiscard]] const std::vector<AgentRoot>& roots() const noexcept { return roots_; }
    // Exits of registered roots, supervisors aside, that the last drain told of.
    struct RootExit {
        std::string session;
        int code = 0, signal = 0;
    };
    [[nodiscard]] std::span<const RootExit> root_exits() const noexcept { return root_exits_; }

    // Takes what the samplers emitted since the last call. Allocates only when series open or close.
    void drain();

    // By slot index: gauges as they are, counters as rate per second; NaN = not observed since the last drain.
    [[nodiscard]] std::span<const double> row() const noexcept { return row_; }
    // Extremes since the last drain, levels or rates as in row(); equal to it for what was polled once.
    [[nodiscard]] std::span<const double> low() const noexcept { return low_; }
    [[nodiscard]] std::span<const double> high() const noexcept { return high_; }
    [[nodiscard]] std::span<const Observation> newest() const noexcept { return newest_; }  // by slot index
    [[nodiscard]] std::span<const SeriesEntry> series() const noexcept { return series_; }
    [[nodiscard]] std::uint64_t layout_version() const noexcept { return layout_version_; }
    // Slots that were opened since the drain before: what was learned of their predecessors no longer holds.
    [[nodiscard]] std::span<const std::uint32_t> reopened() const noexcept { return reopened_; }
    [[nodiscard]] const sources::ProcessTable& processes() const noexcept { return tables_.front(); }
    [[nodiscard]] const AgentProcesses& agents() const noexcept { return agents_; }  // of that table
    [[nodiscard]] ProcessLabels& labels() noexcept { return labels_; }
    [[nodiscard]] bool processes_fresh() const noexcept { return table_fresh_; }  // new with the last drain
    [[nodiscard]] std::span<const SourceStatus> status();  // one per source, then "processes"
    [[nodiscard]] std::array<LaneStatus, 3> lanes() const noexcept;
    void burst() { fast_.burst(); }  // as if pressure had begun one; between start() and stop()
    [[nodiscard]] const RateFaults& rate_faults() const noexcept { return rates_.faults(); }
    [[nodiscard]] std::uint64_t stale() const noexcept { return stale_; }  // samples of series closed since
    [[nodiscard]] std::uint64_t refused() const noexcept { return registry_.refused(); }  // series beyond max_series

private:
    struct Watched {  // a task, or a source that is switched off
        const char* name;
        const Task* task;
        const char* requires_;
        const char* fix;
        bool tells_exits = false;  // and what the agents' sums had no room for is lost of it
    };
    void add_sources(const HostOptions& options, std::span<const sources::SourceDescriptor* const> catalog,
                     const Io& io);
    void apply_changes();
    void take(ring::SpscRing<Sample>& ring);
    void observe(const Sample& sample);
    void observe_agents();
    void note_root_exit(const sources::ExitRecord& record);

    static constexpr std::size_t kAgentSeries = 7;
    struct AgentSlots {
        std::string session;  // empty = none are open
        std::array<Slot, kAgentSeries> slots;
    };

    Registry registry_;
    std::unique_ptr<sources::PressureTriggers> triggers_;  // before the sampler that polls them
    Sampler fast_;
    Sampler slow_;
    Sampler table_;
    ring::Snapshot<sources::ProcessTable> tables_;
    ExitsTold exits_;
    std::vector<Watched> watched_;
    std::vector<SourceStatus> status_;

    AgentProcesses agents_;
    std::vector<AgentRoot> roots_;    // as they were set
    std::vector<AgentRoot> watched_roots_;  // and those withdrawn of late, whose exits may still be told; newest last
    std::vector<RootExit> root_exits_;
    ProcessLabels labels_;
    std::vector<AgentSlots> agent_slots_;  // by index of AgentProcesses::usage()

    Rates rates_;
    std::vector<double> row_, low_, high_;
    std::vector<Observation> newest_;
    std::vector<SeriesEntry> series_;
    std::vector<std::uint32_t> reopened_;
    std::vector<Sample> batch_;
    std::vector<sources::ExitRecord> ended_;
    std::uint64_t layout_version_ = 0;
    std::uint64_t stale_ = 0;
    bool table_fresh_ = false;
};

}  // namespace argus::engine
