// Order constraints on events, as rows of data: the Declare templates (Pesic, Schonenberg, van der Aalst 2007) with
// deadlines and with conditions on fields, watched by one small automaton per row and live trace. A trace is what one
// scope shows: a run of a task (from its start to its end; a new start opens the next run), a session, an agent.
// The caller presents events in the order they are to be judged in. Semantics, for an event that matches both sides of
// a row: as the target it answers what came before, then it activates.
//   existence      `activation` at least `times` before the end of the task, or within the deadline of the first event
//   absence        fewer than `times`
//   exactly        exactly `times`: both of the above
//   init           the first step is `activation`
//   end            the last step is `activation`: the task's end, or what `deadline` of silence follows
//   precedence     before `activation` there was `target` (at most `deadline` earlier)
//   response       after `activation` comes `target`, within the deadline, else before the end of the task
//   succession     both: `target` has an `activation` before it, and `activation` a `target` after it
//   chain_*        the same of the very next step
//   not_succession after `activation` (for the length of the deadline) comes no `target`; not_chain_: not as next step
//   not_coexistence  never both
// A step is any event but bookkeeping (costs, budgets, heartbeats, prices, sources), and that too where a row names it.
// What is missing is decided at its deadline or at the task's end and not before; what was cut off (a source first
// seen in mid-stream, a trace evicted earlier) is not missing. Violated rows speak once a run and then once in a while.
// State: 112 bytes a row and trace, in tables mapped once; no allocation after construction. Deadlines of a row are
// equal, so its open ones form a list sorted by time. Cost: bench_events events/constraints.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "events/slab.hpp"
#include "events/text.hpp"
#include "model/anomaly.hpp"
#include "model/event.hpp"

namespace argus::auditors {

enum class Template : std::uint8_t {
    existence, absence, exactly, init, end,
    precedence, response, succession,
    chain_precedence, chain_response, chain_succession,
    not_succession, not_chain_succession, not_coexistence,
    count_,
};

enum class Deadline : std::uint8_t { none, optional, needed };  // needed: where no end of a task closes the trace

struct TemplateDescriptor {
    const char* name;
    bool target;  // takes one
    bool times;
    Deadline deadline;
    const char* documentation;
};

[[nodiscard]] std::span<const TemplateDescriptor> templates() noexcept;  // by Template
[[nodiscard]] std::span<const char* const> condition_fields() noexcept;  // what a pattern may ask to be equal

[[nodiscard]] std::span<const char* const> check_names() noexcept;       // taken: the causal auditor's own kinds

struct Pattern {
    std::vector<std::string> events;  // any of these types, by name
    std::vector<std::pair<std::string, std::string>> conditions;  // field = value, all of them
    [[nodiscard]] std::string text() const;
};

struct Constraint {
    std::string name;
    Template kind = Template::absence;
    Pattern activation, target;
    ScopeKind scope = ScopeKind::task;  // task, session or agent
    std::uint32_t times = 1;
    Nanos deadline = 0;  // 0 = none
    bool of_silence = false;  // the deadline runs from the last event of the trace, not from the activation
    bool witnessed = false;   // only of sources that have shown that they emit what is missing
    Severity severity = Severity::warning;  // the highest it asks for
    bool enabled = true;      // false: the built-in row of this name does not hold
    std::string message;      // what a violation means; empty = the row in words
};

inline constexpr std::size_t kMaxConstraints = 32;

// Task life cycles: these hold unless configuration replaces or removes them by name.
[[nodiscard]] std::vector<Constraint> default_constraints(Nanos terminal_deadline);

[[nodiscard]] bool ends_task(EventType type) noexcept;

class Constraints {
public:
    struct Options {
        Nanos clock_tolerance = 2 * kSecond;  // by so much may events of one source be out of turn
        Nanos repeat_after = 3600 * kSecond;  // a row speaks of a trace again
        std::uint32_t traces = 32'768;
    };

    // Throws std::invalid_argument where a row makes no sense.
    Constraints(std::vector<Constraint> rows, Options options);

    struct Matches {
        std::uint32_t activation = 0, target = 0;  // a bit per row
    };
    struct TraceRef {
        std::uint32_t index = events::kNone, generation = 0;
    };
    static constexpr std::size_t kScopes = 3;  // task, session, agent
    using TraceRefs = std::array<TraceRef, kScopes>;

    [[nodiscard]] Matches match(const Event& event) const noexcept;

    // The traces an event belongs to, opened where they are new. `task_hash` 0 = no task; `cut` = its source was first
    // seen in mid-stream, so what came before is not known.
    [[nodiscard]] TraceRefs open(const Event& event, std::uint64_t task_hash, bool cut) noexcept;

    struct Turn {
        Nanos ts = 0;   // of the event
        Nanos now = 0;
        EventType type = EventType::unknown;
        Matches matches;
        std::uint32_t source = events::kNone, source_generation = 0;
        bool quiet = false;  // the states follow, nothing is said
        std::string_view id;
    };
    struct Violation {
        std::uint32_t row = 0;
        std::uint32_t trace = 0;
        bool seen = false;  // an event that must not be, and not one that is missing
        Nanos ts = 0;       // of the event that showed it, or the deadline
        Nanos since = 0;    // of the other event, else ts
        std::uint32_t count = 0;  // of activations, where they are counted
        std::uint32_t source = events::kNone, source_generation = 0;
        events::InlineText<64> id, other;
    };

    // What an event in its turn violates in one trace; valid until the next call.
    [[nodiscard]] std::span<const Violation> step(TraceRef ref, const Turn& turn) noexcept;

    // Whether an open deadline lies at or before `limit`; the next of them, closed.
    [[nodiscard]] bool overdue(Nanos limit) const noexcept;
    [[nodiscard]] std::span<const Violation> expire(Nanos limit) noexcept;

    void rearm(const Scope& scope) noexcept;

    [[nodiscard]] const Constraint& row(std::uint32_t i) const noexcept { return rows_[i]; }
    [[nodiscard]] std::uint64_t target_types(std::uint32_t i) const noexcept { return compiled_[i].target.types; }
    [[nodiscard]] Scope scope_of(std::uint32_t trace) const;
    [[nodiscard]] std::uint64_t trace_hash(std::uint32_t trace) const noexcept { return traces_.hash(trace); }
    [[nodiscard]] std::string message(const Violation& violation) const;

    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    struct Compiled {
        std::uint64_t types = 0;
        std::vector<std::string> names;  // types unknown to this version
        std::vector<std::pair<std::size_t, std::string>> conditions;
    };
    struct CompiledRow {
        Compiled activation, target;
    };
    struct Trace {
        ScopeKind kind = ScopeKind::task;
        bool begun = false, closed = false;
        bool cut = false;  // what came before its first event is not known
        std::uint32_t owed = 0;   // open deadlines
        Nanos closed_ts = 0;
        events::InlineText<64> tenant;
        events::InlineText<128> agent, session, task;
    };
    struct Cell {
        Nanos ts = 0, due = 0, said = 0;
        std::uint32_t source = 0, source_generation = 0;
        std::uint32_t previous = 0, next = 0;  // in the row's list of deadlines, + 1
        std::uint32_t count = 0;
        std::uint8_t flags = 0;
        events::InlineText<64> id;
    };
    struct List {
        std::uint32_t first = 0, last = 0;  // cells, + 1
    };
    struct Place {  // one row in one trace, while an event is judged
        std::uint32_t row, trace, cell;
    };

    [[nodiscard]] static Compiled compile(const Pattern& pattern);
    [[nodiscard]] static bool holds(const Compiled& pattern, const Event& event) noexcept;
    [[nodiscard]] TraceRef open_one(std::size_t scope, std::uint64_t hash, const Event& event, bool cut) noexcept;
    void forget(std::uint32_t trace) noexcept;
    void restart(std::uint32_t trace) noexcept;
    void advance(const Place& at, const Turn& turn, bool step, bool first) noexcept;
    void count(const Place& at, const Turn& turn, bool a, bool first) noexcept;
    void precede(const Place& at, const Turn& turn, bool by, bool what) noexcept;
    void respond(const Place& at, const Turn& turn, bool a, bool t) noexcept;
    void chain(const Place& at, const Turn& turn, bool a, bool t) noexcept;
    void forbid(const Place& at, const Turn& turn, bool a, bool t) noexcept;
    void close(const Place& at, const Turn& turn, bool a) noexcept;
    void remember(const Place& at, const Turn& turn) noexcept;
    void arm(const Place& at, Nanos now) noexcept;
    void disarm(const Place& at) noexcept;
    void violate(const Place& at, const Turn& turn, bool seen, Nanos since) noexcept;
    void lapse(const Place& at, const Turn& turn, Nanos when) noexcept;
    [[nodiscard]] bool late(const Place& at, const Turn& turn) const noexcept;
    void settle(std::uint32_t trace) noexcept;
    [[nodiscard]] Place place(std::uint32_t row, std::uint32_t trace) const noexcept;
    void check_lists() const;

    std::vector<Constraint> rows_;
    Options options_;
    std::vector<CompiledRow> compiled_;
    std::array<Matches, static_cast<std::size_t>(EventType::count_)> by_type_{};
    std::array<std::uint32_t, kScopes> of_scope_{};  // rows of each kind of scope
    std::uint32_t every_step_ = 0;                   // rows that look at each
    std::uint32_t silence_ = 0;                      // rows whose deadline runs from the last event
    std::uint64_t fingerprint_ = 0;
    events::Slab<Trace, 2> traces_;                  // those that owe something apart from the rest
    events::MappedArray<Cell> cells_;                // a row's cell of trace i is i * rows + row
    events::MappedArray<std::uint64_t> forgotten_;   // hashes of evicted traces
    std::vector<List> deadlines_;
    std::array<Violation, 2 * kMaxConstraints> found_{};
    std::size_t found_count_ = 0;
};

}  // namespace argus::auditors
