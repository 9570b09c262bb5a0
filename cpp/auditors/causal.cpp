// Causal integrity: order and identity faults that are decidable exactly, nine kinds, no learning.
//   seq_gap                    sequence numbers are missing: evidence of loss, info
//   duplicate_id               an id used again with other content
//   clock_backwards            a source's ts falls back by more than the tolerance
//   orphan_parent              `parent` names no task, span or event seen, also not 2 s later
//   completed_without_started  a task ends that its source, which does report starts, never started
//   duplicate_terminal         a task ends twice
//   event_after_terminal       an action of a task after its end (late cost, evaluation and feedback are no actions)
//   missing_terminal           a started task is silent past its deadline, and its source does report ends
//   write_after_lockdown       a file is written in a locked scope
// A source is judged only on event types it has shown that it emits. Events of one source are judged in arrival order;
// while several sources live, lifecycle events wait up to 2 s in a bounded heap and are judged in ts order.
// Method: state machine per task; notes in DESIGN "Events".  Cost: bench_events events/causal.

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "auditors/auditor.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::kOwed;
using events::kSettled;
using events::Ledger;
using events::Source;
using events::Task;
using events::TaskState;

enum Values : std::size_t { kTerminalDeadline, kOrphanWait, kClockTolerance, kReorderWindow };

constexpr Option kOptions[] = {
    {"terminal_deadline_s", "s", 600, 1, 604800, "silence after which a started task without its end is a fault"},
    {"orphan_wait_s", "s", 2, 0, 60, "how long an unknown parent may still arrive"},
    {"clock_tolerance_s", "s", 2, 0, 3600, "how far a source's ts may fall back"},
    {"reorder_window_s", "s", 2, 0, 60, "how long lifecycle events wait for other sources' earlier ones"},
};

constexpr std::size_t kHeldCapacity = 1U << 16;
constexpr std::size_t kOrphanCapacity = 4096;
constexpr std::size_t kLockCapacity = 1024;
constexpr std::size_t kScopes = 5;

enum Spoken : std::uint8_t { kSaidAfterTerminal = 1, kSaidDuplicateTerminal = 2, kSaidMissing = 4 };

[[nodiscard]] double in_seconds(Nanos ns) noexcept { return static_cast<double>(ns) * 1e-9; }
[[nodiscard]] Nanos seconds(double s) noexcept { return static_cast<Nanos>(s * 1e9); }

[[nodiscard]] bool is_terminal(EventType t) noexcept {
    return t == EventType::task_completed || t == EventType::task_failed || t == EventType::task_cancelled;
}

[[nodiscard]] bool is_write(EventType t) noexcept {
    return t == EventType::file_written || t == EventType::file_deleted;
}

[[nodiscard]] bool is_lock(EventType t) noexcept {
    return t == EventType::lockdown_set || t == EventType::lockdown_cleared;
}

[[nodiscard]] bool is_action(EventType t) noexcept {
    switch (t) {
        case EventType::tool_called:
        case EventType::tool_returned:
        case EventType::model_called:
        case EventType::model_returned:
        case EventType::retrieval_done:
        case EventType::prediction_made:
        case EventType::budget_reserved:
        case EventType::user_message:
        case EventType::file_written:
        case EventType::file_deleted: return true;
        default: return false;
    }
}

// A lifecycle event, kept until its turn. Its task's names stay in the ledger.
struct Held {
    Nanos ts = 0, arrived = 0;
    EventType type = EventType::unknown;
    bool waiting = false;
    std::uint32_t source = kNone, source_generation = 0;
    std::uint32_t task = kNone, task_generation = 0;
    InlineText<64> id;
    std::array<std::uint64_t, kScopes> scopes{};  // writes and locks: host, tenant, agent, session, task; 0 = unnamed
};

struct Key {
    Nanos ts;
    std::uint64_t order;
};

struct Orphan {
    std::uint64_t parent = 0;
    Nanos due = 0, ts = 0;
    std::uint32_t source = kNone, source_generation = 0;
    InlineText<64> id, tenant;
    InlineText<128> parent_name, agent, session, task;
};

struct Later {
    bool operator()(const Key& a, const Key& b) const noexcept {
        return a.ts != b.ts ? a.ts > b.ts : a.order > b.order;
    }
};

class Causal final : public Auditor {
public:
    explicit Causal(std::span<const double> v)
        : deadline_(seconds(v[kTerminalDeadline])), orphan_wait_(seconds(v[kOrphanWait])),
          clock_tolerance_(seconds(v[kClockTolerance])), window_(seconds(v[kReorderWindow])),
          held_(kHeldCapacity), heap_(kHeldCapacity), orphans_(kOrphanCapacity) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (seen.id == events::IdStatus::retransmission) return;
        now_ = std::max(now_, seen.now);
        if (seen.gap > 0) say_gap(event, seen, ledger, emit);
        if (seen.clock_back > clock_tolerance_) {
            say_event("clock_backwards", event, ledger, emit, {in_seconds(seen.clock_back), 0},
                      "the clock of source '" + std::string(event.source) + "' fell back by " +
                          std::to_string(seen.clock_back / kMillisecond) + " ms");
            ledger.rebase_clock(seen.source, event.ts);
        }
        const bool reused = seen.id == events::IdStatus::reused;
        if (reused) {
            say_event("duplicate_id", event, ledger, emit, {2, 1},
                      "the id '" + std::string(event.id) + "' was used before for other content");
        }
        if (!event.parent.empty() && !reused) check_parent(event, ledger);
        if (in_order(event, seen)) order(event, seen, reused, ledger, emit);
    }

    void on_tick(Nanos now, Ledger& ledger, Emit& emit) override {
        now_ = std::max(now_, now);
        release_due(ledger, emit);
        judge_orphans(now_, ledger, emit);
        judge_silence(ledger, emit);
    }

    void finish(Nanos now, Ledger& ledger, Emit& emit) override {
        on_tick(now, ledger, emit);
        while (heap_size_ > 0) release_one(ledger, emit);
        head_ = tail_;
        judge_orphans(std::numeric_limits<Nanos>::max(), ledger, emit);
    }

    void save(Writer& writer) const override;
    void load(Reader& reader) override;

private:
    [[nodiscard]] static bool in_order(const Event& event, const events::Sighting& seen) noexcept {
        return seen.task != kNone || is_lock(event.type);
    }

    // --- what is judged at arrival -------------------------------------------------------------------------------

    void say_gap(const Event& event, const events::Sighting& seen, Ledger& ledger, Emit& emit) {
        Facts facts;
        facts.rule = Facts::Rule::loss;
        Anomaly a = draft("seq_gap", event.ts, event.id);
        a.scope = narrowest_scope(event.tenant, event.agent, event.session, event.task);
        a.value = static_cast<double>(seen.gap);
        a.expected = 0;
        a.message = std::to_string(seen.gap) + " events of source '" + std::string(event.source) +
                    "' are missing before '" + std::string(event.id) + "'";
        finish_draft(std::move(a), facts, ledger, emit);
    }

    // How often something was, and how often it should have been; of a clock, seconds.
    struct Count {
        double value, expected;
    };

    void say_event(const char* kind, const Event& event, Ledger& ledger, Emit& emit, Count count, std::string message) {
        Anomaly a = draft(kind, event.ts, event.id);
        a.scope = narrowest_scope(event.tenant, event.agent, event.session, event.task);
        a.value = count.value;
        a.expected = count.expected;
        a.message = std::move(message);
        finish_draft(std::move(a), blame(ledger.sighting().source, ledger), ledger, emit);
    }

    void check_parent(const Event& event, Ledger& ledger) {
        const std::uint64_t hash = events::hash_text(event.parent);
        if (ledger.knows(hash)) return;
        const events::Sighting& seen = ledger.sighting();
        const Source& source = ledger.sources()[seen.source];
        if (source.joined_late && seen.now - source.joined < ledger.options().late_join) return;
        if (orphan_count_ == kOrphanCapacity) {
            ++shed_;
            return;
        }
        Orphan& orphan = orphans_[(orphan_head_ + orphan_count_++) % kOrphanCapacity];
        orphan.parent = hash;
        orphan.due = now_ + orphan_wait_;
        orphan.ts = event.ts;
        orphan.source = seen.source;
        orphan.source_generation = ledger.sources().generation(seen.source);
        orphan.id.assign(event.id);
        orphan.tenant.assign(event.tenant);
        orphan.parent_name.assign(event.parent);
        orphan.agent.assign(event.agent);
        orphan.session.assign(event.session);
        orphan.task.assign(event.task);
    }

    void judge_orphans(Nanos now, Ledger& ledger, Emit& emit) {
        while (orphan_count_ > 0 && orphans_[orphan_head_].due <= now) {
            const Orphan& orphan = orphans_[orphan_head_];
            if (!ledger.knows(orphan.parent) && ledger.sources().holds(orphan.source, orphan.source_generation)) {
                Anomaly a = draft("orphan_parent", orphan.ts, orphan.id.view());
                a.scope = narrowest_scope(orphan.tenant.view(), orphan.agent.view(), orphan.session.view(),
                                          orphan.task.view());
                a.value = 0;
                a.expected = 1;
                a.message = "the parent '" + orphan.parent_name.str() + "' of '" + orphan.id.str() + "' was never seen";
                finish_draft(std::move(a), blame(orphan.source, ledger), ledger, emit);
            }
            orphan_head_ = (orphan_head_ + 1) % kOrphanCapacity;
            --orphan_count_;
        }
    }

    void judge_silence(Ledger& ledger, Emit& emit) {
        auto& tasks = ledger.tasks();
        for (std::uint32_t i = tasks.oldest(kOwed); i != kNone; i = tasks.oldest(kOwed)) {
            Task& task = tasks[i];
            if (task.last_seen + deadline_ > now_) return;
            tasks.move(i, kSettled);
            task.spoken |= kSaidMissing;
            const bool known = ledger.sources().holds(task.source, task.source_generation);
            if (!known || !ledger.sources()[task.source].shows_terminal()) continue;
            Anomaly a = draft("missing_terminal", now_, task.last_id.view());
            a.scope = task_scope(task);
            a.since = task.last_seen;
            a.value = static_cast<double>(now_ - task.last_seen) * 1e-9;
            a.upper = static_cast<double>(deadline_) * 1e-9;
            a.message = "task '" + task.task.str() + "' was started and has been silent for " +
                        std::to_string((now_ - task.last_seen) / kSecond) + " s without its end";
            finish_draft(std::move(a), blame(task.source, ledger), ledger, emit);
        }
    }

    // --- what is judged in order ---------------------------------------------------------------------------------

    void order(const Event& event, const events::Sighting& seen, bool reused, Ledger& ledger, Emit& emit) {
        Held held;
        held.ts = event.ts;
        held.arrived = now_;
        held.type = event.type;
        held.source = seen.source;
        held.source_generation = ledger.sources().generation(seen.source);
        if (seen.task != kNone) {
            held.task = seen.task;
            held.task_generation = ledger.tasks().generation(seen.task);
        }
        held.id.assign(event.id);
        if (is_lock(event.type) || is_write(event.type)) name_scopes(event, held);
        if (heap_size_ == 0 && (window_ == 0 || !ledger.several_sources(now_))) {
            judge(held, reused, ledger, emit);
            return;
        }
        release_due(ledger, emit);
        if (tail_ - head_ == kHeldCapacity) {
            ++released_early_;
            release_head(ledger, emit);
        }
        if (reused || held.ts < released_ts_) {  // its turn has passed
            judge(held, reused, ledger, emit);
            return;
        }
        held.waiting = true;
        held_[tail_ % kHeldCapacity] = held;
        heap_[heap_size_++] = {held.ts, tail_++};
        std::push_heap(heap_.data(), heap_.data() + heap_size_, Later{});
    }

    static void name_scopes(const Event& event, Held& held) noexcept {
        using events::scope_hash;
        held.scopes[0] = scope_hash(ScopeKind::host, {}, {});
        if (!event.tenant.empty()) held.scopes[1] = scope_hash(ScopeKind::tenant, event.tenant, event.tenant);
        if (!event.agent.empty()) held.scopes[2] = scope_hash(ScopeKind::agent, event.tenant, event.agent);
        if (!event.session.empty()) held.scopes[3] = scope_hash(ScopeKind::session, event.tenant, event.session);
        if (!event.task.empty()) held.scopes[4] = scope_hash(ScopeKind::task, event.tenant, event.task);
    }

    // The oldest arrival bounds the wait of all: what is earlier by ts goes before it.
    void release_due(Ledger& ledger, Emit& emit) {
        while (head_ != tail_) {
            const Held& oldest = held_[head_ % kHeldCapacity];
            if (oldest.waiting && oldest.arrived + window_ > now_) return;
            release_head(ledger, emit);
        }
        released_ts_ = 0;  // nobody waits: one wild ts must not decide for those to come
    }

    void release_head(Ledger& ledger, Emit& emit) {
        while (held_[head_ % kHeldCapacity].waiting) release_one(ledger, emit);
        ++head_;
    }

    void release_one(Ledger& ledger, Emit& emit) {
        const Key first = heap_[0];
        std::pop_heap(heap_.data(), heap_.data() + heap_size_, Later{});
        --heap_size_;
        Held& held = held_[first.order % kHeldCapacity];
        held.waiting = false;
        released_ts_ = std::max(released_ts_, held.ts);
        judge(held, false, ledger, emit);
    }

    void judge(const Held& held, bool reused, Ledger& ledger, Emit& emit) {
        if (is_lock(held.type)) {
            set_lock(narrowest(held), held.type == EventType::lockdown_set);
            return;
        }
        if (!ledger.tasks().holds(held.task, held.task_generation)) return;
        if (!ledger.sources().holds(held.source, held.source_generation)) return;
        Task& task = ledger.tasks()[held.task];
        if (is_write(held.type) && lock_count_ > 0 && locked(held)) {
            say_task("write_after_lockdown", held, task, ledger, emit, {1, 0}, {},
                     "a file was written while its scope is locked");
        }
        if (task.task.empty()) return;
        if (held.type == EventType::task_started) begin(held, task, ledger);
        else if (is_terminal(held.type)) end(held, task, reused, ledger, emit);
        else if (is_action(held.type) && task.state == TaskState::done && !reused) after_end(held, task, ledger, emit);
    }

    // A start after the end opens the task again: a declared new run of it. One that is older than the end was late.
    void begin(const Held& held, Task& task, Ledger& ledger) {
        task.started = true;
        if (task.state == TaskState::done && held.ts < task.terminal_ts) return;
        task.state = TaskState::running;
        task.spoken = 0;
        task.source = held.source;
        task.source_generation = held.source_generation;
        ledger.tasks().move(held.task, kOwed);
    }

    void end(const Held& held, Task& task, bool reused, Ledger& ledger, Emit& emit) {
        const Source& source = ledger.sources()[held.source];
        if (reused) {
            // said already: the state follows, nothing is said twice
        } else if (task.state == TaskState::done) {
            if ((task.spoken & kSaidDuplicateTerminal) == 0) {
                task.spoken |= kSaidDuplicateTerminal;
                say_task("duplicate_terminal", held, task, ledger, emit, {2, 1}, task.terminal_id.view(),
                         "the task had ended before");
            }
        } else if (!task.started && source.shows(EventType::task_started) && !newcomer(source, ledger)) {
            say_task("completed_without_started", held, task, ledger, emit, {0, 1}, {},
                     "it ended without having been started");
        }
        task.state = TaskState::done;
        task.terminal_ts = std::max(task.terminal_ts, held.ts);
        task.terminal_source = held.source;
        if (task.terminal_ts == held.ts) task.terminal_id.assign(held.id.view());
        ledger.tasks().move(held.task, kSettled);
    }

    void after_end(const Held& held, Task& task, Ledger& ledger, Emit& emit) {
        // Older than the end by its own ts: late from another source, or out of order within what clocks are allowed.
        const bool late = held.ts < task.terminal_ts &&
                          (held.source != task.terminal_source || task.terminal_ts - held.ts <= clock_tolerance_);
        if (late || (task.spoken & kSaidAfterTerminal) != 0) return;
        task.spoken |= kSaidAfterTerminal;
        say_task("event_after_terminal", held, task, ledger, emit, {1, 0}, task.terminal_id.view(),
                 std::string(events::event_type_name(held.type)) + " after the task's end");
    }

    [[nodiscard]] bool newcomer(const Source& source, const Ledger& ledger) const noexcept {
        return source.joined_late && now_ - source.joined < ledger.options().late_join;
    }

    // --- locks ---------------------------------------------------------------------------------------------------

    [[nodiscard]] static std::uint64_t narrowest(const Held& held) noexcept {
        for (std::size_t i = kScopes; i-- > 0;) {
            if (held.scopes[i] != 0) return held.scopes[i];
        }
        return 0;
    }

    void set_lock(std::uint64_t scope, bool locked) noexcept {
        auto* const end = locks_.data() + lock_count_;
        auto* const at = std::find(locks_.data(), end, scope);
        if (!locked && at != end) *at = locks_[--lock_count_];
        if (!locked || at != end) return;
        if (lock_count_ == kLockCapacity) ++shed_;
        else locks_[lock_count_++] = scope;
    }

    [[nodiscard]] bool locked(const Held& held) const noexcept {
        for (std::size_t i = 0; i < lock_count_; ++i) {
            if (std::find(held.scopes.begin(), held.scopes.end(), locks_[i]) != held.scopes.end()) return true;
        }
        return false;
    }

    // --- speaking ------------------------------------------------------------------------------------------------

    [[nodiscard]] static Anomaly draft(const char* kind, Nanos ts, std::string_view evidence) {
        Anomaly a;
        a.ts = ts;
        a.since = ts;
        a.family = Family::causal;
        a.detector = "causal";
        a.series = std::string("causal.") + kind;
        a.bits = kDeterministicBits;
        a.evidence.emplace_back(evidence);
        return a;
    }

    [[nodiscard]] static Scope task_scope(const Task& task) {
        return narrowest_scope(task.tenant.view(), task.agent.view(), task.session.view(), task.task.view());
    }

    void say_task(const char* kind, const Held& held, const Task& task, Ledger& ledger, Emit& emit, Count count,
                  std::string_view other_id, const std::string& what) {
        Anomaly a = draft(kind, held.ts, held.id.view());
        a.value = count.value;
        a.expected = count.expected;
        if (!other_id.empty() && other_id != held.id.view()) a.evidence.emplace_back(other_id);
        a.scope = task_scope(task);
        a.message = "task '" + task.task.str() + "': " + what;
        finish_draft(std::move(a), blame(held.source, ledger), ledger, emit);
    }

    [[nodiscard]] Facts blame(std::uint32_t source, Ledger& ledger) {
        Facts facts;
        facts.rule = Facts::Rule::order;
        facts.source = source;
        facts.lossless = ledger.sources()[source].lossless;
        ledger.remember_fault(source, now_);
        return facts;
    }

    void finish_draft(Anomaly&& a, const Facts& facts, Ledger& ledger, Emit& emit) {
        const Verdict verdict = emit.judge(facts, ledger, now_);
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        emit.say(std::move(a));
    }

    Nanos deadline_, orphan_wait_, clock_tolerance_, window_;
    Nanos now_ = 0;
    events::MappedArray<Held> held_;  // a ring in arrival order
    events::MappedArray<Key> heap_;   // the waiting ones by ts
    std::uint64_t head_ = 0, tail_ = 0;
    std::size_t heap_size_ = 0;
    Nanos released_ts_ = 0;
    events::MappedArray<Orphan> orphans_;
    std::size_t orphan_head_ = 0, orphan_count_ = 0;
    std::array<std::uint64_t, kLockCapacity> locks_{};
    std::size_t lock_count_ = 0;
    std::uint64_t shed_ = 0, released_early_ = 0;
};

void Causal::save(Writer& writer) const {
    writer.pod(now_);
    writer.pod(released_ts_);
    writer.pod(static_cast<std::uint64_t>(tail_ - head_));
    for (std::uint64_t i = head_; i != tail_; ++i) writer.pod(held_[i % kHeldCapacity]);
    writer.pod(static_cast<std::uint64_t>(orphan_count_));
    for (std::size_t i = 0; i < orphan_count_; ++i) writer.pod(orphans_[(orphan_head_ + i) % kOrphanCapacity]);
    writer.pod(static_cast<std::uint64_t>(lock_count_));
    for (std::size_t i = 0; i < lock_count_; ++i) writer.pod(locks_[i]);
    writer.pod(shed_);
    writer.pod(released_early_);
}

void Causal::load(Reader& reader) {
    now_ = reader.pod<Nanos>();
    released_ts_ = reader.pod<Nanos>();
    const auto held = reader.pod<std::uint64_t>();
    if (held > kHeldCapacity) throw CodecError("state: causal: more waiting events than the buffer holds");
    head_ = 0;
    tail_ = held;
    heap_size_ = 0;
    for (std::uint64_t i = 0; i < held; ++i) {
        held_[i] = reader.pod<Held>();
        if (held_[i].waiting) heap_[heap_size_++] = {held_[i].ts, i};
    }
    std::make_heap(heap_.data(), heap_.data() + heap_size_, Later{});
    orphan_head_ = 0;
    orphan_count_ = reader.pod<std::uint64_t>();
    if (orphan_count_ > kOrphanCapacity) throw CodecError("state: causal: more orphans than the buffer holds");
    for (std::size_t i = 0; i < orphan_count_; ++i) orphans_[i] = reader.pod<Orphan>();
    lock_count_ = reader.pod<std::uint64_t>();
    if (lock_count_ > kLockCapacity) throw CodecError("state: causal: more locks than the table holds");
    for (std::size_t i = 0; i < lock_count_; ++i) locks_[i] = reader.pod<std::uint64_t>();
    shed_ = reader.pod<std::uint64_t>();
    released_early_ = reader.pod<std::uint64_t>();
}

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Causal>(values); }

}  // namespace

extern const AuditorDescriptor causal_auditor;
const AuditorDescriptor causal_auditor{
    {"causal", "order and identity faults of events that are decidable exactly: nine kinds",
     "state machines over task life cycles; Lamport 1978 for order across sources", kOptions},
    make};

}  // namespace argus::auditors
