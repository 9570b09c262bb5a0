// Causal integrity: order and identity faults that are decidable exactly; no learning.
//   seq_gap                sequence numbers are missing: evidence of loss, info
//   duplicate_id           an id used again with other content
//   clock_backwards        ts falls back by more than the tolerance: that of a source, or of a task within a source
//   orphan_parent          `parent` names no task, span or event seen, also not 2 s later
//   write_after_lockdown   a file is written in a locked scope
//   and the rows of constraints.hpp, the built-in ones and those of the configuration, each under its own name
// A source is judged only on event types it has shown that it emits. Events of one source are judged in arrival order;
// while several sources live, they wait up to the watermark of 2 s in a bounded heap and are judged in ts order.
// Deadlines are looked at one watermark later then, so that what was sent in time may still arrive.
// Not decidable: the order of two events with one ts from two sources; a clock that fell back on a source that had sent
// nothing newer.  Cost: bench_events events/causal.

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "auditors/auditor.hpp"
#include "auditors/constraints.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::kOwed;
using events::kSettled;
using events::Ledger;
using events::Source;
using events::Task;
using Violation = Constraints::Violation;

enum Values : std::size_t { kTerminalDeadline, kOrphanWait, kClockTolerance, kReorderWindow, kRepeat };

constexpr Option kOptions[] = {
    {"terminal_deadline_s", "s", 600, 1, 604800, "silence after which a started task without its end is a fault"},
    {"orphan_wait_s", "s", 2, 0, 60, "how long an unknown parent may still arrive"},
    {"clock_tolerance_s", "s", 2, 0, 3600, "how far a source's ts may fall back"},
    {"reorder_window_s", "s", 2, 0, 60, "watermark: how long events wait for other sources' earlier ones"},
    {"repeat_after_s", "s", 3600, 1, 604800, "a constraint that stays violated in a scope is said again after so long"},
};

constexpr std::size_t kHeldCapacity = 1U << 16;
constexpr std::size_t kOrphanCapacity = 4096;
constexpr std::size_t kLockCapacity = 1024;
constexpr std::size_t kScopes = 5;

[[nodiscard]] double in_seconds(Nanos ns) noexcept { return static_cast<double>(ns) * 1e-9; }
[[nodiscard]] Nanos seconds(double s) noexcept { return static_cast<Nanos>(s * 1e9); }

[[nodiscard]] bool is_write(EventType t) noexcept {
    return t == EventType::file_written || t == EventType::file_deleted;
}

[[nodiscard]] bool is_lock(EventType t) noexcept {
    return t == EventType::lockdown_set || t == EventType::lockdown_cleared;
}

// An event, kept until its turn. The names of its scopes stay in the tables.
struct Held {
    Nanos ts = 0, arrived = 0;
    EventType type = EventType::unknown;
    bool waiting = false, reused = false;
    std::uint32_t source = kNone, source_generation = 0;
    std::uint32_t task = kNone, task_generation = 0;
    Constraints::Matches matches;
    Constraints::TraceRefs traces{};
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
          repeat_(seconds(v[kRepeat])), constraints_(default_constraints(deadline_), {clock_tolerance_, repeat_}),
          held_(kHeldCapacity), heap_(kHeldCapacity), orphans_(kOrphanCapacity) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (seen.id == events::IdStatus::retransmission) return;
        now_ = std::max(now_, seen.now);
        if (seen.gap > 0) say_gap(event, seen, ledger, emit);
        const Nanos back = clock_back(event, seen, ledger);
        if (back > clock_tolerance_) {
            say_event("clock_backwards", event, ledger, emit, {in_seconds(back), 0},
                      "the clock of source '" + std::string(event.source) + "' fell back by " +
                          std::to_string(back / kMillisecond) + " ms");
        }
        const bool reused = seen.id == events::IdStatus::reused;
        if (reused) {
            say_event("duplicate_id", event, ledger, emit, {2, 1},
                      "the id '" + std::string(event.id) + "' was used before for other content");
        }
        if (!event.parent.empty() && !reused) check_parent(event, ledger);
        order(event, seen, reused, back, ledger, emit);
    }

    void on_tick(Nanos now, Ledger& ledger, Emit& emit) override {
        now_ = std::max(now_, now);
        release_due(ledger, emit);
        judge_orphans(now_, ledger, emit);
        judge_deadlines(ledger, emit);
    }

    void constrain(const std::vector<Constraint>& given) override {
        std::vector<Constraint> rows = default_constraints(deadline_);
        for (const Constraint& c : given) {
            std::erase_if(rows, [&](const Constraint& row) { return row.name == c.name; });
            if (c.enabled) rows.push_back(c);
        }
        constraints_ = Constraints(std::move(rows), {clock_tolerance_, repeat_});
    }

    void rearm(const Scope& scope, Ledger&) override { constraints_.rearm(scope); }

    void finish(Nanos now, Ledger& ledger, Emit& emit) override {
        on_tick(now, ledger, emit);
        while (heap_size_ > 0) release_one(ledger, emit);
        head_ = tail_;
        judge_orphans(std::numeric_limits<Nanos>::max(), ledger, emit);
    }

    void save(Writer& writer) const override;
    void load(Reader& reader) override;

private:
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

    // An event in time may arrive one watermark late; what waits and is older than that goes first.
    void judge_deadlines(Ledger& ledger, Emit& emit) {
        const Nanos limit = now_ - (ledger.several_sources(now_) ? window_ : 0);
        while (constraints_.overdue(limit)) {
            while (heap_size_ > 0 && heap_[0].ts <= limit) release_one(ledger, emit);
            for (const Violation& v : constraints_.expire(limit)) say_violation(v, EventType::unknown, ledger, emit);
        }
    }

    // How far the clock of a source fell back: behind the newest it told, or behind the newest it told of this task,
    // which a step that was said and taken for its new time would hide.
    [[nodiscard]] Nanos clock_back(const Event& event, const events::Sighting& seen, Ledger& ledger) const noexcept {
        const Nanos back = std::max(seen.clock_back, seen.task_back);
        if (back <= clock_tolerance_) return back;
        if (seen.clock_back > clock_tolerance_) ledger.rebase_clock(seen.source, event.ts);
        if (seen.task != kNone) ledger.tasks()[seen.task].last_ts = event.ts;
        return back;
    }

    // --- what is judged in order ---------------------------------------------------------------------------------

    void order(const Event& event, const events::Sighting& seen, bool reused, Nanos back, Ledger& ledger,
               Emit& emit) {
        Held held;
        const std::uint64_t task = seen.task != kNone && !event.task.empty() ? ledger.tasks().hash(seen.task) : 0;
        held.matches = constraints_.match(event);
        held.traces = constraints_.open(event, task, newcomer(ledger.sources()[seen.source], ledger));
        const bool guards = is_lock(event.type) || is_write(event.type);
        const bool traced = std::any_of(held.traces.begin(), held.traces.end(),
                                        [](const Constraints::TraceRef& ref) { return ref.index != kNone; });
        if (!guards && !traced) return;
        held.ts = event.ts;
        held.arrived = now_;
        held.type = event.type;
        held.reused = reused;
        held.source = seen.source;
        held.source_generation = ledger.sources().generation(seen.source);
        if (seen.task != kNone) {
            held.task = seen.task;
            held.task_generation = ledger.tasks().generation(seen.task);
        }
        held.id.assign(event.id);
        if (guards) name_scopes(event, held);
        if (heap_size_ == 0 && (window_ == 0 || !ledger.several_sources(now_))) {
            judge(held, ledger, emit);
            return;
        }
        // A ts that is known to be wrong tells no order: the source's own newest stands in for it.
        if (back > clock_tolerance_) held.ts = event.ts + back;
        release_due(ledger, emit);
        if (tail_ - head_ == kHeldCapacity) {
            ++released_early_;
            release_head(ledger, emit);
        }
        if (held.ts < released_ts_) {  // its turn has passed
            judge(held, ledger, emit);
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
        head_ = tail_ = 0;  // and the first pages of the ring serve again
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
        judge(held, ledger, emit);
    }

    void judge(const Held& held, Ledger& ledger, Emit& emit) {
        if (is_lock(held.type)) set_lock(narrowest(held), held.type == EventType::lockdown_set);
        if (!ledger.sources().holds(held.source, held.source_generation)) return;
        const bool known = ledger.tasks().holds(held.task, held.task_generation);
        if (known && is_write(held.type) && lock_count_ > 0 && locked(held)) {
            say_task("write_after_lockdown", held, ledger.tasks()[held.task], ledger, emit, {1, 0},
                     "a file was written while its scope is locked");
        }
        // A start makes the task's entry precious until its end.
        if (known && held.type == EventType::task_started) ledger.tasks().move(held.task, kOwed);
        if (known && ends_task(held.type)) ledger.tasks().move(held.task, kSettled);
        // However late the tick came that let it go: its deadlines begin when its wait was over.
        const Nanos turn_now = std::min(now_, held.arrived + window_);
        const Constraints::Turn turn{held.ts, turn_now, held.type, held.matches, held.source, held.source_generation,
                                     held.reused, held.id.view()};
        for (const Constraints::TraceRef& ref : held.traces) {
            if (ref.index == kNone) continue;
            for (const Violation& v : constraints_.step(ref, turn)) say_violation(v, held.type, ledger, emit);
        }
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

    void say_task(const char* kind, const Held& held, const Task& task, Ledger& ledger, Emit& emit, Count count,
                  const std::string& what) {
        Anomaly a = draft(kind, held.ts, held.id.view());
        a.value = count.value;
        a.expected = count.expected;
        a.scope = narrowest_scope(task.tenant.view(), task.agent.view(), task.session.view(), task.task.view());
        a.message = "task '" + task.task.str() + "': " + what;
        finish_draft(std::move(a), blame(held.source, ledger), ledger, emit);
    }

    // Of what is counted, how often it was; else whether what was asked for, or what must not be, was there.
    [[nodiscard]] static Count count_of(const Violation& v, const Constraint& row) noexcept {
        switch (row.kind) {
            case Template::absence: return {static_cast<double>(v.count), row.times - 1.0};
            case Template::existence:
            case Template::exactly: return {static_cast<double>(v.count), static_cast<double>(row.times)};
            default: return v.seen ? Count{1, 0} : Count{0, 1};
        }
    }

    void say_violation(const Violation& v, EventType type, Ledger& ledger, Emit& emit) {
        const Constraint& row = constraints_.row(v.row);
        if (!ledger.sources().holds(v.source, v.source_generation)) return;
        if (row.witnessed && (ledger.sources()[v.source].shown & constraints_.target_types(v.row)) == 0) return;
        Anomaly a = draft(row.name.c_str(), v.ts, v.id.view());
        a.scope = constraints_.scope_of(v.trace);
        a.since = v.since != 0 ? v.since : v.ts;
        if (!v.other.empty() && v.other.view() != v.id.view()) a.evidence.push_back(v.other.str());
        const Count count = count_of(v, row);
        a.value = count.value;
        a.expected = count.expected;
        if (row.deadline > 0) a.upper = static_cast<double>(row.deadline) * 1e-9;
        a.message = constraints_.message(v);
        if (type != EventType::unknown) a.message += " (" + std::string(events::event_type_name(type)) + ")";
        Facts facts = blame(v.source, ledger);
        facts.asked = row.severity;
        facts.seen = v.seen;
        finish_draft(std::move(a), facts, ledger, emit);
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

    Nanos deadline_, orphan_wait_, clock_tolerance_, window_, repeat_;
    Nanos now_ = 0;
    Constraints constraints_;
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
    constraints_.save(writer);
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
    constraints_.load(reader);
}

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Causal>(values); }

}  // namespace

extern const AuditorDescriptor causal_auditor;
const AuditorDescriptor causal_auditor{
    {"causal", "order and identity faults of events that are decidable exactly, and violated constraints",
     "Declare templates, Pesic et al. 2007; Lamport 1978 for order across sources", kOptions},
    make};

}  // namespace argus::auditors
