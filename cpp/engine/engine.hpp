// The engine composes the planes: host samples and agent events in, anomalies and stop decisions out. Driven from one
// thread; the wall clock it labels records with is an argument; the only state shared with samplers are their rings.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/bank.hpp"
#include "engine/epoch_word.hpp"
#include "engine/event_plane.hpp"
#include "engine/file_witness.hpp"
#include "engine/host_plane.hpp"
#include "engine/silence_watch.hpp"
#include "engine/stops.hpp"
#include "model/anomaly.hpp"
#include "ring/history.hpp"

namespace argus::engine {

// A detector apart from the bank's signals, with ranks and an alarm budget of its own.
struct NamedDetector {
    DetectorChoice choice;
    std::vector<std::string> series;  // patterns of full names, as a shell's: "system.memory.*"
};

struct EngineOptions {
    bool host_plane = true;
    HostOptions host;
    BankOptions bank;  // without detectors the host is observed, not judged
    std::optional<std::vector<double>> silence = std::vector<double>{};  // options of the leaf; empty = its defaults
    std::vector<NamedDetector> named;
    EventPlaneOptions events;
    std::uint32_t history_rows = 3600;
    bool guard_every_session = false;
};

struct EngineStatistics {
    std::uint64_t steps = 0;
    std::uint64_t anomalies = 0;
    std::array<std::array<std::uint64_t, kFamilies>, kSeverities> anomalies_by{};  // of ingest and step alike
    Nanos step_ns_last = 0;
    Nanos step_ns_max = 0;
    Nanos ingest_ns_total = 0;
    bool failed = false;
};

class Engine {
public:
    explicit Engine(EngineOptions options);

    void start();
    void stop();

    // Decodes and judges one frame; see EventPlane::ingest. Host-wide stops flip the epoch word before this returns.
    IngestReport ingest(std::span<const std::byte> frame, std::uint32_t credential, bool require_seq, Nanos now,
                        std::vector<Anomaly>& out);

    // One tick: drains samples, turns counters into rates, scores, speaks, learns; runs the auditors' deadlines.
    void step(Nanos wall_now, std::vector<Anomaly>& out);

    // The end of a replay: a last step, and nothing is waited for any longer.
    void finish(Nanos wall_now, std::vector<Anomaly>& out);

    [[nodiscard]] std::vector<Decision> take_decisions() { return std::exchange(decisions_, {}); }

    // Whose processes are whose; see HostPlane::set_agents. Their claims are held against facts from now on.
    std::uint32_t set_agents(std::vector<AgentRoot> roots);

    // A supervisor says how the command of its session ended; `stopped` = by Argus.
    void end_session(std::string_view session, int code, int signal, bool stopped, Nanos wall_now,
                     std::vector<Anomaly>& out);

    // Maps the epoch word. Host-wide decisions flip it while enforce is set, else they are only reported.
    void attach_control(const std::string& path);
    void set_enforce(bool enforce) noexcept { enforce_ = enforce; }

    // A stop was cleared, or the hold on it ended: its next reason counts again.
    void release_stop(StopKind kind, ScopeKind scope, const std::string& id);

    [[nodiscard]] StopPolicy& stops() noexcept { return stops_; }
    [[nodiscard]] EventPlane& events() noexcept { return events_; }
    [[nodiscard]] const EventPlane& events() const noexcept { return events_; }
    [[nodiscard]] HostPlane* host() noexcept { return host_.get(); }
    [[nodiscard]] const HostPlane* host() const noexcept { return host_.get(); }
    [[nodiscard]] const Bank& bank() const noexcept { return bank_; }
    // The series that moved the machine's entity score in the last row, strongest first.
    [[nodiscard]] std::span<const Driver> drivers() noexcept { return bank_.drivers(); }
    // A person says whether the series' last spoken alarm was of something that mattered. False = it does not live.
    bool confirm(std::string_view series, bool true_alarm);
    [[nodiscard]] const EngineStatistics& statistics() const noexcept { return statistics_; }

    // By slot: the host's series first, the event plane's behind them.
    [[nodiscard]] std::span<const double> row() const noexcept { return row_; }
    [[nodiscard]] Nanos row_time() const noexcept { return row_time_; }
    [[nodiscard]] const SeriesInfo* series(std::uint32_t slot) const noexcept;  // null where none lives

    // The last rows of one slot, oldest first; see ring::History::copy.
    [[nodiscard]] std::uint32_t history_capacity() const noexcept { return options_.history_rows; }
    std::size_t history(std::uint32_t slot, std::span<Nanos> times, std::span<float> values) const;

    // Observed and kept, but neither judged nor learned from: the series whose full name fits one of the patterns
    // (fnmatch(3)), until a later call leaves them out. Replaces the suspensions before.
    struct Suspension {
        std::string series;
        bool anew = false;  // afterwards the series' next value is its new normal
    };
    void suspend(std::vector<Suspension> suspensions);
    [[nodiscard]] std::uint32_t suspended() const noexcept;  // live series

    // What was learned of series, without the event plane: for a collector that starts again after a gap in its events.
    // Like snapshot and restore else.
    [[nodiscard]] std::vector<std::byte> learned() const;
    void learn_from(std::span<const std::byte> state);

    // What was learned of a series is handed on by slot and name: a slot that another series opens in starts afresh.
    // A state that does not fit throws CodecError and changes nothing.
    [[nodiscard]] std::vector<std::byte> snapshot() const;
    void restore(std::span<const std::byte> state);

private:
    static constexpr std::uint32_t kHistoryTile = 256;

    struct Named {
        std::vector<std::string> series;
        Bank bank;
        std::vector<double> row;
        std::vector<std::uint8_t> wanted;  // by slot
    };
    void gather_row();
    void watch_named(std::span<const double> judged, Nanos wall_now, std::vector<Anomaly>& out);
    void watch_silence(Nanos wall_now, std::vector<Anomaly>& out);
    void tell_silence(std::span<const SilenceSaid> said, bool onset, bool frozen, Nanos wall_now,
                      std::vector<Anomaly>& out);
    void meet(std::uint32_t slot);
    void testify(Nanos wall_now, std::vector<Anomaly>& out);
    void tell_processes();
    void open_slot(std::uint32_t slot);
    void save_series(Writer& writer) const;
    void load_series(Reader& reader);
    void load(std::span<const std::byte> state);
    void load_learned(std::span<const std::byte> state);
    [[nodiscard]] std::uint8_t suspension_of(std::uint32_t slot) const;
    [[nodiscard]] std::string learned_name(std::uint32_t slot) const;
    void remember();
    void speak(Nanos wall_now, std::vector<Anomaly>& out);
    void tell_broken_budget(Nanos wall_now, std::vector<Anomaly>& out);
    [[nodiscard]] std::uint32_t pool_of(const std::string& metric);
    void decide(std::span<const Anomaly> found);
    void count(std::span<const Anomaly> found) noexcept;
    // Runs `work`; a broken invariant marks the engine failed for good, so that its heartbeat stops.
    template <class Work>
    void guarded(Work&& work);

    EngineOptions options_;
    SystemClock clock_;
    std::unique_ptr<HostPlane> host_;
    EventPlane events_;
    std::unique_ptr<FileWitness> witness_;
    std::vector<SessionProcess> told_processes_;
    std::uint32_t host_slots_;
    std::vector<SeriesInfo> event_series_;
    bool scores_;  // there are detectors
    Bank bank_;
    std::vector<Named> named_;
    std::optional<SilenceWatch> silence_;
    std::vector<double> arrivals_;  // the row as silence sees it
    bool budget_broken_ = false;    // and said so
    std::map<std::string, std::uint32_t, std::less<>> pools_;  // series of one metric are siblings
    std::vector<std::string> restored_;  // by slot: the series whose restored state waits for it; empty = none
    std::vector<Suspension> suspensions_;
    std::vector<std::uint8_t> suspended_;  // by slot; 2 = learned anew afterwards
    std::vector<double> judged_;           // the row, without what is suspended
    std::vector<std::optional<ring::History<float>>> history_;  // a tile of slots gets memory when a series opens in it
    StopPolicy stops_;
    std::optional<EpochWord> word_;
    bool started_ = false;
    bool enforce_ = false;
    std::vector<double> row_;
    Nanos row_time_ = 0;
    std::vector<Decision> decisions_;
    EngineStatistics statistics_;
};

}  // namespace argus::engine
