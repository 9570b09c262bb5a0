#include "auditors/constraints.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <stdexcept>

#include "auditors/auditor.hpp"
#include "events/decode.hpp"
#include "events/ledger.hpp"

namespace argus::auditors {
namespace {

using events::kNone;

constexpr TemplateDescriptor kTemplates[] = {
    {"existence", false, true, Deadline::needed, "`activation` happens at least `times`"},
    {"absence", false, true, Deadline::none, "`activation` happens fewer than `times`: with 1, never"},
    {"exactly", false, true, Deadline::needed, "`activation` happens exactly `times`"},
    {"init", false, false, Deadline::none, "the first step is `activation`"},
    {"end", false, false, Deadline::needed, "the last step, before the task's end or a silence, is `activation`"},
    {"precedence", true, false, Deadline::optional, "before `activation` there was `target`"},
    {"response", true, false, Deadline::needed, "after `activation` comes `target`"},
    {"succession", true, false, Deadline::needed, "`target` follows `activation`, and never comes without it"},
    {"chain_precedence", true, false, Deadline::none, "the step just before `activation` was `target`"},
    {"chain_response", true, false, Deadline::optional, "the step just after `activation` is `target`"},
    {"chain_succession", true, false, Deadline::optional, "`activation` and `target` only come as one pair of steps"},
    {"not_succession", true, false, Deadline::optional, "after `activation` comes no `target`"},
    {"not_chain_succession", true, false, Deadline::none, "the step just after `activation` is not `target`"},
    {"not_coexistence", true, false, Deadline::none, "`activation` and `target` never both happen"},
};
static_assert(std::size(kTemplates) == static_cast<std::size_t>(Template::count_));

enum Field : std::size_t { kTool, kModel, kAgent, kProvider, kOp, kPath, kStrategy, kEval, kLabel, kErrorText, kOk };
constexpr const char* kFields[] = {"tool", "model",    "agent", "provider", "op", "path",
                                   "strategy", "eval", "label", "error",    "ok"};

constexpr const char* kChecks[] = {"seq_gap", "duplicate_id", "clock_backwards", "orphan_parent",
                                   "write_after_lockdown"};

enum Flag : std::uint8_t {
    kActive = 1,    // a lasting condition of the template was met
    kOther = 2,     // not_coexistence: the target was seen too
    kOpen = 4,      // something is owed
    kPrevious = 8,  // the step before matched
    kFailed = 16,   // judged already in this run
};

constexpr std::size_t kForgotten = std::size_t{1} << 16;
constexpr std::size_t kOwing = 0;
constexpr std::size_t kIdle = 1;

[[nodiscard]] bool bookkeeping(EventType t) noexcept {
    switch (t) {
        case EventType::token_cost_logged:
        case EventType::budget_reserved:
        case EventType::budget_settled:
        case EventType::heartbeat:
        case EventType::source_started:
        case EventType::source_stopped:
        case EventType::price_table_changed: return true;
        default: return false;
    }
}

[[nodiscard]] std::string_view field_of(const Event& e, std::size_t field) noexcept {
    switch (field) {
        case kTool: return e.tool;
        case kModel: return e.model;
        case kAgent: return e.agent;
        case kProvider: return e.provider;
        case kOp: return e.op;
        case kPath: return e.path;
        case kStrategy: return e.strategy;
        case kEval: return e.eval;
        case kLabel: return e.label;
        case kErrorText: return e.error;
        default: break;
    }
    return e.ok < 0 ? "" : e.ok == 1 ? "true" : "false";
}

[[nodiscard]] std::size_t scope_index(ScopeKind kind) noexcept {
    return kind == ScopeKind::task ? 0 : kind == ScopeKind::session ? 1 : 2;
}

[[nodiscard]] std::uint32_t bit(std::uint32_t row) noexcept { return std::uint32_t{1} << row; }

constexpr Nanos kNever = std::numeric_limits<Nanos>::max() - 1;

[[nodiscard]] Nanos after(Nanos from, Nanos length) noexcept { return from > kNever - length ? kNever : from + length; }

void refuse(const Constraint& c, const std::string& field, const std::string& expected, const std::string& found) {
    throw std::invalid_argument("constraints." + c.name + "." + field + ": expected " + expected + ", found " + found +
                                "; not started");
}

void check(const Constraint& c) {
    if (c.name.empty() || std::find(std::begin(kChecks), std::end(kChecks), c.name) != std::end(kChecks)) {
        refuse(c, "name", "a name that is not that of a check", "'" + c.name + "'");
    }
    if (c.kind >= Template::count_) refuse(c, "template", "the name of a template", "none");
    const TemplateDescriptor& t = kTemplates[static_cast<std::size_t>(c.kind)];
    const std::string of = std::string(" for ") + t.name;
    if (c.scope != ScopeKind::task && c.scope != ScopeKind::session && c.scope != ScopeKind::agent) {
        refuse(c, "scope", "task, session or agent", to_string(c.scope));
    }
    if (c.activation.events.empty()) refuse(c, "activation", "at least one event", "none");
    if (t.target == c.target.events.empty()) {
        refuse(c, "target", (t.target ? "at least one event" : "none") + of, t.target ? "none" : "one");
    }
    if (c.times < 1 || (!t.times && c.times != 1)) {
        refuse(c, "times", t.times ? "at least 1" : "1" + of, std::to_string(c.times));
    }
    if (c.deadline < 0 || (t.deadline == Deadline::none && c.deadline != 0)) {
        refuse(c, "deadline_s", t.deadline == Deadline::none ? "none" + of : "at least 0", "another");
    }
    if (t.deadline == Deadline::needed && c.deadline == 0 && c.scope != ScopeKind::task) {
        refuse(c, "deadline_s", "a deadline" + of + " where no end of a task closes the trace", "none");
    }
    if (c.of_silence && (c.kind != Template::response || c.deadline == 0)) {
        refuse(c, "of_silence", "false but for a response with a deadline", "true");
    }
    for (const auto* pattern : {&c.activation, &c.target}) {
        for (const auto& [field, value] : pattern->conditions) {
            if (std::find(std::begin(kFields), std::end(kFields), field) == std::end(kFields)) {
                refuse(c, field, "a field that can be compared", "'" + field + "'");
            }
        }
    }
}

}  // namespace

std::span<const TemplateDescriptor> templates() noexcept { return kTemplates; }
std::span<const char* const> condition_fields() noexcept { return kFields; }
std::span<const char* const> check_names() noexcept { return kChecks; }

bool ends_task(EventType t) noexcept {
    return t == EventType::task_completed || t == EventType::task_failed || t == EventType::task_cancelled;
}

std::string Pattern::text() const {
    std::string out;
    for (std::size_t i = 0; i < events.size(); ++i) {
        out += i == 0 ? "" : i + 1 == events.size() ? " or " : ", ";
        out += events[i];
    }
    for (const auto& [field, value] : conditions) {
        out += (out.back() == ')' ? ", " : " (") + field + "=" + value + ")";
    }
    return out;
}

std::vector<Constraint> default_constraints(Nanos terminal_deadline) {
    const Pattern start{{"task_started"}, {}};
    const Pattern end{{"task_completed", "task_failed", "task_cancelled"}, {}};
    const Pattern action{{"tool_called", "tool_returned", "model_called", "model_returned", "retrieval_done",
                          "prediction_made", "budget_reserved", "user_message", "file_written", "file_deleted"}, {}};
    std::vector<Constraint> rows(4);
    rows[0].name = "completed_without_started";
    rows[0].kind = Template::precedence;
    rows[0].activation = end;
    rows[0].target = start;
    rows[0].witnessed = true;
    rows[0].message = "it ended without having been started";
    rows[1].name = "duplicate_terminal";
    rows[1].kind = Template::absence;
    rows[1].activation = end;
    rows[1].times = 2;
    rows[1].message = "the task had ended before";
    rows[2].name = "event_after_terminal";
    rows[2].kind = Template::not_succession;
    rows[2].activation = end;
    rows[2].target = action;  // late cost, evaluation and feedback are no actions
    rows[2].message = "an action after the task's end";
    rows[3].name = "missing_terminal";
    rows[3].kind = Template::response;
    rows[3].activation = start;
    rows[3].target = end;
    rows[3].deadline = terminal_deadline;
    rows[3].of_silence = true;
    rows[3].witnessed = true;
    rows[3].message = "it was started and then fell silent without its end";
    return rows;
}

// --- rows -----------------------------------------------------------------------------------------------------------

Constraints::Compiled Constraints::compile(const Pattern& pattern) {
    Compiled out;
    for (const std::string& name : pattern.events) {
        const EventType type = events::event_type(name);
        if (type == EventType::unknown) out.names.push_back(name);
        else out.types |= std::uint64_t{1} << static_cast<unsigned>(type);
    }
    if (!out.names.empty()) out.types |= 1U;
    for (const auto& [field, value] : pattern.conditions) {
        const auto* at = std::find(std::begin(kFields), std::end(kFields), field);
        out.conditions.emplace_back(static_cast<std::size_t>(at - kFields), value);
    }
    return out;
}

Constraints::Constraints(std::vector<Constraint> rows, Options options)
    : rows_(std::move(rows)), options_(options), traces_(options.traces),
      cells_(std::size_t{options.traces} * std::max<std::size_t>(rows_.size(), 1)), forgotten_(kForgotten),
      deadlines_(rows_.size()) {
    if (rows_.size() > kMaxConstraints) {
        throw std::invalid_argument("constraints: expected at most " + std::to_string(kMaxConstraints) + ", found " +
                                    std::to_string(rows_.size()) + "; not started");
    }
    for (std::uint32_t r = 0; r < rows_.size(); ++r) {
        const Constraint& c = rows_[r];
        check(c);
        compiled_.push_back({compile(c.activation), compile(c.target)});
        of_scope_[scope_index(c.scope)] |= bit(r);
        const bool each = c.kind == Template::init || c.kind == Template::end || c.kind == Template::chain_precedence ||
                          c.kind == Template::chain_response || c.kind == Template::chain_succession ||
                          c.kind == Template::not_chain_succession;
        if (each) every_step_ |= bit(r);
        if (c.of_silence || (c.kind == Template::end && c.deadline > 0)) silence_ |= bit(r);
        for (std::size_t type = 0; type < by_type_.size(); ++type) {
            if ((compiled_[r].activation.types >> type & 1U) != 0) by_type_[type].activation |= bit(r);
            if ((compiled_[r].target.types >> type & 1U) != 0) by_type_[type].target |= bit(r);
        }
        const std::uint64_t parts[] = {static_cast<std::uint64_t>(c.kind), static_cast<std::uint64_t>(c.scope), c.times,
                                       static_cast<std::uint64_t>(c.deadline), c.of_silence ? 1U : 0U};
        for (const std::uint64_t part : parts) fingerprint_ = events::mix(fingerprint_ ^ part, 0x9e3779b97f4a7c15ULL);
        fingerprint_ = events::hash_parts(fingerprint_, c.name, c.activation.text(), c.target.text());
    }
}

bool Constraints::holds(const Compiled& pattern, const Event& event) noexcept {
    if (event.type == EventType::unknown &&
        std::find(pattern.names.begin(), pattern.names.end(), event.type_name) == pattern.names.end()) {
        return false;
    }
    return std::all_of(pattern.conditions.begin(), pattern.conditions.end(),
                       [&](const auto& c) { return field_of(event, c.first) == c.second; });
}

Constraints::Matches Constraints::match(const Event& event) const noexcept {
    Matches out = by_type_[static_cast<std::size_t>(event.type)];
    for (std::uint32_t left = out.activation; left != 0; left &= left - 1) {
        const auto r = static_cast<std::uint32_t>(std::countr_zero(left));
        if (!holds(compiled_[r].activation, event)) out.activation &= ~bit(r);
    }
    for (std::uint32_t left = out.target; left != 0; left &= left - 1) {
        const auto r = static_cast<std::uint32_t>(std::countr_zero(left));
        if (!holds(compiled_[r].target, event)) out.target &= ~bit(r);
    }
    return out;
}

// --- traces ---------------------------------------------------------------------------------------------------------

Constraints::Place Constraints::place(std::uint32_t row, std::uint32_t trace) const noexcept {
    return {row, trace, trace * static_cast<std::uint32_t>(rows_.size()) + row};
}

Constraints::TraceRefs Constraints::open(const Event& event, std::uint64_t task_hash, bool cut) noexcept {
    using events::scope_hash;
    TraceRefs refs{};
    if (of_scope_[0] != 0 && task_hash != 0) {
        refs[0] = open_one(0, task_hash, event, cut && event.type != EventType::task_started);
    }
    if (of_scope_[1] != 0 && !event.session.empty()) {
        refs[1] = open_one(1, scope_hash(ScopeKind::session, event.tenant, event.session), event, cut);
    }
    if (of_scope_[2] != 0 && !event.agent.empty()) {
        refs[2] = open_one(2, scope_hash(ScopeKind::agent, event.tenant, event.agent), event, cut);
    }
    return refs;
}

Constraints::TraceRef Constraints::open_one(std::size_t scope, std::uint64_t hash, const Event& event,
                                            bool cut) noexcept {
    constexpr ScopeKind kKinds[] = {ScopeKind::task, ScopeKind::session, ScopeKind::agent};
    const ScopeKind kind = kKinds[scope];
    std::uint32_t i = traces_.find(hash, [&](const Trace& t) { return t.kind == kind; });
    if (i == kNone) {
        i = traces_.create(hash, kIdle, [this](std::uint32_t victim) { forget(victim); });
        cells_.clear(place(0, i).cell, rows_.size());
        Trace& fresh = traces_[i];
        fresh.kind = kind;
        std::uint64_t& forgotten = forgotten_[hash & (kForgotten - 1)];
        const bool starts = kind == ScopeKind::task && event.type == EventType::task_started;
        fresh.cut = cut || (forgotten == hash && !starts);
        if (forgotten == hash) forgotten = 0;
        fresh.tenant.assign(event.tenant);
        if (kind != ScopeKind::agent) fresh.session.assign(event.session);
        if (kind == ScopeKind::task) fresh.task.assign(event.task);
    }
    Trace& trace = traces_[i];
    if (trace.agent.empty() && !event.agent.empty()) trace.agent.assign(event.agent);
    traces_.touch(i);
    return {i, traces_.generation(i)};
}

void Constraints::forget(std::uint32_t trace) noexcept {
    for (std::uint32_t r = 0; r < rows_.size(); ++r) disarm(place(r, trace));
    const std::uint64_t hash = traces_.hash(trace);
    forgotten_[hash & (kForgotten - 1)] = hash;
}

// The next run of a task. Deadlines of the last one stand.
void Constraints::restart(std::uint32_t trace) noexcept {
    Trace& t = traces_[trace];
    t.closed = t.cut = t.begun = false;
    for (std::uint32_t r = 0; r < rows_.size(); ++r) {
        Cell& cell = cells_[place(r, trace).cell];
        if (cell.due == 0) cell = Cell{};
        cell.said = 0;
        cell.flags &= kOpen;
    }
}

void Constraints::settle(std::uint32_t trace) noexcept {
    const std::size_t list = traces_[trace].owed > 0 ? kOwing : kIdle;
    if (traces_.list_of(trace) != list) traces_.move(trace, list);
}

// --- deadlines ------------------------------------------------------------------------------------------------------

void Constraints::arm(const Place& at, Nanos now) noexcept {
    Cell& cell = cells_[at.cell];
    List& list = deadlines_[at.row];
    cell.flags |= kOpen;
    const Nanos length = rows_[at.row].deadline;
    if (length == 0) return;
    // What comes exactly at its deadline is in time; a silence is over once it is as long.
    const Nanos due = after(now, length) + ((silence_ & bit(at.row)) != 0 ? 0 : 1);
    if (cell.due != 0) {
        if (list.last == at.cell + 1) {  // the newest stays the newest
            cell.due = std::max(cell.due, due);
            return;
        }
        disarm(at);
        cell.flags |= kOpen;
    }
    cell.due = due;
    if (list.last != 0) cell.due = std::max(cell.due, cells_[list.last - 1].due);
    cell.previous = list.last;
    cell.next = 0;
    if (list.last != 0) cells_[list.last - 1].next = at.cell + 1;
    else list.first = at.cell + 1;
    list.last = at.cell + 1;
    ++traces_[at.trace].owed;
}

void Constraints::disarm(const Place& at) noexcept {
    Cell& cell = cells_[at.cell];
    cell.flags &= static_cast<std::uint8_t>(~kOpen);
    if (cell.due == 0) return;
    List& list = deadlines_[at.row];
    if (cell.previous != 0) cells_[cell.previous - 1].next = cell.next;
    else list.first = cell.next;
    if (cell.next != 0) cells_[cell.next - 1].previous = cell.previous;
    else list.last = cell.previous;
    cell.due = 0;
    cell.previous = cell.next = 0;
    --traces_[at.trace].owed;
}

bool Constraints::overdue(Nanos limit) const noexcept {
    return std::any_of(deadlines_.begin(), deadlines_.end(),
                       [&](const List& l) { return l.first != 0 && cells_[l.first - 1].due <= limit; });
}

std::span<const Constraints::Violation> Constraints::expire(Nanos limit) noexcept {
    found_count_ = 0;
    for (std::uint32_t r = 0; r < rows_.size(); ++r) {
        if (deadlines_[r].first == 0) continue;
        const std::uint32_t cell = deadlines_[r].first - 1;
        if (cells_[cell].due > limit) continue;
        const Place at{r, cell / static_cast<std::uint32_t>(rows_.size()), cell};
        const Nanos due = cells_[cell].due;
        Turn turn;
        turn.now = due;
        const bool kept = rows_[r].kind == Template::end && (cells_[cell].flags & kPrevious) != 0;
        const bool silent = (silence_ & bit(r)) != 0;
        if (kept) disarm(at);
        else lapse(at, turn, silent ? due : after(cells_[cell].ts, rows_[r].deadline));
        settle(at.trace);
        break;
    }
    return {found_.data(), found_count_};
}

// --- verdicts -------------------------------------------------------------------------------------------------------

void Constraints::violate(const Place& at, const Turn& turn, bool seen, Nanos since) noexcept {
    Cell& cell = cells_[at.cell];
    if (turn.quiet || found_count_ == found_.size()) return;
    if (cell.said != 0 && turn.now - cell.said < options_.repeat_after) return;
    cell.said = std::max<Nanos>(turn.now, 1);
    Violation& v = found_[found_count_++];
    v = Violation{};
    v.row = at.row;
    v.trace = at.trace;
    v.seen = seen;
    v.ts = turn.ts;
    v.since = since;
    v.count = cell.count;
    v.source = turn.source;
    v.source_generation = turn.source_generation;
    v.id.assign(turn.id);
    v.other = cell.id;
}

// What was owed did not come by `when`: blame lies with the source that made it owed.
void Constraints::lapse(const Place& at, const Turn& turn, Nanos when) noexcept {
    const Cell& cell = cells_[at.cell];
    const events::InlineText<64> kept = cell.id;
    Turn blamed = turn;
    blamed.quiet = false;
    blamed.ts = when;
    blamed.source = cell.source;
    blamed.source_generation = cell.source_generation;
    blamed.id = kept.view();
    disarm(at);
    cells_[at.cell].flags |= kFailed;
    const Constraint& row = rows_[at.row];
    violate(at, blamed, false, row.of_silence ? when - row.deadline : cell.ts);
}

void Constraints::remember(const Place& at, const Turn& turn) noexcept {
    Cell& cell = cells_[at.cell];
    cell.ts = turn.ts;
    cell.source = turn.source;
    cell.source_generation = turn.source_generation;
    cell.id.assign(turn.id);
}

// By its own ts an event came before the one remembered, and that can be: clocks differ between sources and jitter.
bool Constraints::late(const Place& at, const Turn& turn) const noexcept {
    const Cell& cell = cells_[at.cell];
    return turn.ts < cell.ts && (cell.source != turn.source || cell.ts - turn.ts <= options_.clock_tolerance);
}

void Constraints::count(const Place& at, const Turn& turn, bool a, bool first) noexcept {
    const Constraint& row = rows_[at.row];
    Cell& cell = cells_[at.cell];
    if (row.kind != Template::absence) {
        if (first) {
            remember(at, turn);
            if (row.deadline > 0 && !traces_[at.trace].cut) arm(at, turn.now);
        }
        if (cell.due != 0 && turn.ts > after(cell.ts, row.deadline)) lapse(at, turn, after(cell.ts, row.deadline));
    }
    if (!a) return;
    cell.count += cell.count == std::numeric_limits<std::uint32_t>::max() ? 0 : 1;
    if (row.kind == Template::absence) {
        const Nanos since = cell.ts;
        if (cell.count >= row.times) violate(at, turn, true, cell.count > 1 ? since : turn.ts);
        remember(at, turn);
        return;
    }
    if (cell.count == row.times) disarm(at);
    if (row.kind == Template::exactly && cell.count > row.times) violate(at, turn, true, cell.ts);
}

// `by` comes only where `what` came before.
void Constraints::precede(const Place& at, const Turn& turn, bool by, bool what) noexcept {
    const Constraint& row = rows_[at.row];
    Cell& cell = cells_[at.cell];
    if (by) {
        const bool active = (cell.flags & kActive) != 0;
        const bool recent = row.kind == Template::succession || row.deadline == 0 ||
                            turn.ts <= after(cell.ts, row.deadline);
        if (active ? !recent : !traces_[at.trace].cut) violate(at, turn, false, active ? cell.ts : turn.ts);
    }
    if (!what) return;
    if (row.kind == Template::precedence && ((cell.flags & kActive) == 0 || turn.ts >= cell.ts)) remember(at, turn);
    cell.flags |= kActive;
}

void Constraints::respond(const Place& at, const Turn& turn, bool a, bool t) noexcept {
    const Constraint& row = rows_[at.row];
    Cell& cell = cells_[at.cell];
    const auto open = [&] { return (cell.flags & kOpen) != 0; };
    if (open() && (a || t) && row.deadline > 0 && !row.of_silence && turn.ts > after(cell.ts, row.deadline)) {
        lapse(at, turn, after(cell.ts, row.deadline));
    }
    if (t && open()) disarm(at);
    if (a && !open()) {
        remember(at, turn);
        arm(at, turn.now);
    } else if (open() && row.of_silence) {
        arm(at, turn.now);
    }
}

void Constraints::chain(const Place& at, const Turn& turn, bool a, bool t) noexcept {
    const Constraint& row = rows_[at.row];
    Cell& cell = cells_[at.cell];
    const bool previous = (cell.flags & kPrevious) != 0;
    const bool begins = (cell.flags & kActive) == 0 && traces_[at.trace].cut;
    cell.flags |= kActive;
    bool now_previous = a;
    if (row.kind == Template::chain_precedence) {
        if (a && !previous && !begins) violate(at, turn, false, turn.ts);
        now_previous = t;
    } else if (row.kind == Template::not_chain_succession) {
        if (t && previous) violate(at, turn, true, cell.ts);
        if (a) remember(at, turn);
    } else {
        const bool in_time = row.deadline == 0 || turn.ts <= after(cell.ts, row.deadline);
        if ((cell.flags & kOpen) != 0) {
            if (t && in_time) disarm(at);
            else lapse(at, turn, in_time ? turn.ts : after(cell.ts, row.deadline));
        }
        if (row.kind == Template::chain_succession && t && !previous && !begins) violate(at, turn, false, turn.ts);
        if (a) {
            remember(at, turn);
            arm(at, turn.now);
        }
    }
    cell.flags = static_cast<std::uint8_t>(now_previous ? cell.flags | kPrevious : cell.flags & ~kPrevious);
}

void Constraints::forbid(const Place& at, const Turn& turn, bool a, bool t) noexcept {
    const Constraint& row = rows_[at.row];
    Cell& cell = cells_[at.cell];
    if (row.kind == Template::not_coexistence) {
        const std::uint8_t before = cell.flags;
        cell.flags |= static_cast<std::uint8_t>((a ? kActive : 0) | (t ? kOther : 0));
        const bool both = (cell.flags & kActive) != 0 && (cell.flags & kOther) != 0;
        if (both) violate(at, turn, true, before == 0 ? turn.ts : cell.ts);
        if (before == 0) remember(at, turn);
        return;
    }
    const bool active = (cell.flags & kActive) != 0;
    if (t && active && !late(at, turn) && (row.deadline == 0 || turn.ts <= after(cell.ts, row.deadline))) {
        violate(at, turn, true, cell.ts);
    }
    if (!a) return;
    if (!active || turn.ts >= cell.ts) remember(at, turn);
    cell.flags |= kActive;
}

void Constraints::advance(const Place& at, const Turn& turn, bool step, bool first) noexcept {
    const bool a = (turn.matches.activation & bit(at.row)) != 0;
    const bool t = (turn.matches.target & bit(at.row)) != 0;
    switch (rows_[at.row].kind) {
        case Template::existence:
        case Template::absence:
        case Template::exactly: count(at, turn, a, first); break;
        case Template::init:
            if (!step || (cells_[at.cell].flags & kActive) != 0) break;
            cells_[at.cell].flags |= kActive;
            if (!a && !traces_[at.trace].cut) violate(at, turn, false, turn.ts);
            break;
        case Template::end: {
            if (!step) break;
            Cell& cell = cells_[at.cell];
            cell.flags = static_cast<std::uint8_t>(a ? cell.flags | kPrevious : cell.flags & ~kPrevious);
            remember(at, turn);
            if (rows_[at.row].deadline > 0 && !traces_[at.trace].closed) arm(at, turn.now);
            break;
        }
        case Template::precedence: precede(at, turn, a, t); break;
        case Template::response: respond(at, turn, a, t); break;
        case Template::succession: {
            respond(at, turn, false, t);
            precede(at, turn, t, false);
            precede(at, turn, false, a);
            respond(at, turn, a, false);
            break;
        }
        case Template::chain_precedence:
        case Template::chain_response:
        case Template::chain_succession:
        case Template::not_chain_succession:
            if (step) chain(at, turn, a, t);
            break;
        case Template::not_succession:
        case Template::not_coexistence:
            if (a || t) forbid(at, turn, a, t);
            break;
        case Template::count_: break;
    }
}

// The task has ended: what was owed before its end is missing; what has a deadline is left to it.
void Constraints::close(const Place& at, const Turn& turn, bool a) noexcept {
    const Constraint& row = rows_[at.row];
    Cell& cell = cells_[at.cell];
    switch (row.kind) {
        case Template::existence:
        case Template::exactly:
            disarm(at);
            if (cell.count < row.times && (cell.flags & kFailed) == 0 && !traces_[at.trace].cut) {
                violate(at, turn, false, cell.ts);
            }
            break;
        case Template::response:
        case Template::succession:
        case Template::chain_response:
        case Template::chain_succession:
            if ((cell.flags & kOpen) != 0 && row.deadline == 0) lapse(at, turn, turn.ts);
            break;
        case Template::end:
            disarm(at);
            if (!a) violate(at, turn, false, turn.ts);
            break;
        default: break;
    }
}

std::span<const Constraints::Violation> Constraints::step(TraceRef ref, const Turn& turn) noexcept {
    found_count_ = 0;
    if (!traces_.holds(ref.index, ref.generation)) return {};
    Trace& trace = traces_[ref.index];
    const bool of_task = trace.kind == ScopeKind::task;
    if (of_task && trace.closed && turn.type == EventType::task_started && turn.ts >= trace.closed_ts) {
        restart(ref.index);
    }
    const bool first = !trace.begun;
    trace.begun = true;
    const std::uint32_t rows = of_scope_[scope_index(trace.kind)];
    const std::uint32_t matched = turn.matches.activation | turn.matches.target;
    const std::uint32_t some = first ? rows : rows & (matched | every_step_ | silence_);
    const bool counted = !bookkeeping(turn.type);
    for (std::uint32_t left = some; left != 0; left &= left - 1) {
        const auto r = static_cast<std::uint32_t>(std::countr_zero(left));
        const bool step = counted || (matched & bit(r)) != 0;
        advance(place(r, ref.index), turn, step, first);
    }
    if (of_task && ends_task(turn.type)) {
        for (std::uint32_t left = trace.closed ? 0 : rows; left != 0; left &= left - 1) {
            const auto r = static_cast<std::uint32_t>(std::countr_zero(left));
            close(place(r, ref.index), turn, (turn.matches.activation & bit(r)) != 0);
        }
        trace.closed_ts = trace.closed ? std::max(trace.closed_ts, turn.ts) : turn.ts;
        trace.closed = true;
    }
    settle(ref.index);
    return {found_.data(), found_count_};
}

void Constraints::rearm(const Scope& scope) noexcept {
    for (const std::size_t list : {kOwing, kIdle}) {
        for (std::uint32_t i = traces_.oldest(list); i != kNone; i = traces_.newer(i)) {
            const Trace& t = traces_[i];
            const std::string_view names[] = {{}, t.tenant.view(), t.agent.view(), t.session.view(), t.task.view()};
            if (scope.kind != ScopeKind::host && names[static_cast<std::size_t>(scope.kind)] != scope.id) continue;
            for (std::uint32_t r = 0; r < rows_.size(); ++r) cells_[place(r, i).cell].said = 0;
        }
    }
}

Scope Constraints::scope_of(std::uint32_t trace) const {
    const Trace& t = traces_[trace];
    return narrowest_scope(t.tenant.view(), t.agent.view(), t.session.view(), t.task.view());
}

std::string Constraints::message(const Violation& v) const {
    const Constraint& c = rows_[v.row];
    const Scope scope = scope_of(v.trace);
    std::string out = std::string(to_string(scope.kind)) + " '" + scope.id + "': ";
    if (!c.message.empty()) {
        out += c.message;
    } else {
        out += std::string("violates ") + kTemplates[static_cast<std::size_t>(c.kind)].name + " of " +
               c.activation.text();
        if (!c.target.events.empty()) out += " and " + c.target.text();
        if (c.times > 1 || c.kind == Template::absence) out += ", times " + std::to_string(c.times);
    }
    const Nanos apart = v.ts > v.since ? (v.ts - v.since) / kMillisecond : 0;
    if (c.deadline > 0) out += "; deadline " + std::to_string(c.deadline / kMillisecond) + " ms";
    else if (apart > 0) out += ", " + std::to_string(apart) + " ms after '" + v.other.str() + "'";
    return out;
}

// --- state ----------------------------------------------------------------------------------------------------------

void Constraints::save(Writer& writer) const {
    writer.pod(fingerprint_);
    traces_.save(writer);
    for (const std::size_t list : {kOwing, kIdle}) {
        for (std::uint32_t i = traces_.oldest(list); i != kNone; i = traces_.newer(i)) {
            for (std::uint32_t r = 0; r < rows_.size(); ++r) writer.pod(cells_[place(r, i).cell]);
        }
    }
    for (const List& list : deadlines_) writer.pod(list);
    std::uint32_t kept = 0;
    for (std::size_t i = 0; i < kForgotten; ++i) kept += forgotten_[i] != 0 ? 1 : 0;
    writer.pod(kept);
    for (std::size_t i = 0; i < kForgotten; ++i) {
        if (forgotten_[i] != 0) writer.pod(forgotten_[i]);
    }
}

void Constraints::load(Reader& reader) {
    if (reader.pod<std::uint64_t>() != fingerprint_) throw CodecError("state: other constraints than configured");
    traces_.load(reader);
    cells_.clear(0, cells_.size());
    for (const std::size_t list : {kOwing, kIdle}) {
        for (std::uint32_t i = traces_.oldest(list); i != kNone; i = traces_.newer(i)) {
            for (std::uint32_t r = 0; r < rows_.size(); ++r) cells_[place(r, i).cell] = reader.pod<Cell>();
        }
    }
    for (List& list : deadlines_) list = reader.pod<List>();
    check_lists();
    forgotten_.clear(0, kForgotten);
    for (auto n = reader.pod<std::uint32_t>(); n > 0; --n) {
        const auto hash = reader.pod<std::uint64_t>();
        forgotten_[hash & (kForgotten - 1)] = hash;
    }
}

// A damaged list could send a walk anywhere, or round in circles.
void Constraints::check_lists() const {
    const auto rows = static_cast<std::uint32_t>(rows_.size());
    std::uint64_t linked = 0;
    for (std::uint32_t r = 0; r < rows; ++r) {
        std::uint32_t before = 0;
        Nanos due = 1;
        for (std::uint32_t at = deadlines_[r].first; at != 0; at = cells_[at - 1].next) {
            const bool mine = at <= cells_.size() && (at - 1) % rows == r && cells_[at - 1].previous == before &&
                              cells_[at - 1].due >= due;
            if (!mine || ++linked > cells_.size()) throw CodecError("state: causal: a list of deadlines is broken");
            due = cells_[at - 1].due;
            before = at;
        }
        if (deadlines_[r].last != before) throw CodecError("state: causal: a list of deadlines is broken");
    }
    std::uint64_t open = 0;
    std::uint64_t owed = 0;
    for (const std::size_t list : {kOwing, kIdle}) {
        for (std::uint32_t i = traces_.oldest(list); i != kNone; i = traces_.newer(i)) {
            owed += traces_[i].owed;
            if (static_cast<std::uint8_t>(traces_[i].kind) > static_cast<std::uint8_t>(ScopeKind::task)) {
                throw CodecError("state: causal: no such scope");
            }
            for (std::uint32_t r = 0; r < rows; ++r) open += cells_[place(r, i).cell].due != 0 ? 1 : 0;
        }
    }
    if (open != linked || owed != linked) throw CodecError("state: causal: a list of deadlines is broken");
}

}  // namespace argus::auditors
