// Result-equal loops: an agent makes the same call with the same arguments and gets the same result, again and again,
// also in cycles of up to 8 calls; the shortest period wins. A call counts when its result is known: a tool_called
// without result waits for its tool_returned (same `call`, else same tool of the session). Absent arguments or an
// absent result equal nothing. A run carries its start and the spend since; it speaks when its severity rises, never
// twice. Time is arrival time, so a false `ts` neither hides nor makes a loop. While the next equal call is in flight
// the run's duration goes on; idle time after the last call does not count.
// Cost: bench_events events/loop.  Why not a bare count: notes in DESIGN "Events" (good sessions hold >= 6 in a row).

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::Ledger;

constexpr Option kOptions[] = {
    {"min_repeats", "1", 4, 2, 1000, "equal calls, or whole equal cycles, before a run is spoken of"},
    {"max_period", "1", 8, 1, 8, "longest cycle looked for, in calls"},
};

constexpr std::size_t kMaxPeriod = 8;
constexpr std::size_t kPending = 8;
constexpr std::uint32_t kSessions = 8192;
constexpr std::size_t kInFlight = 0;  // a standing run whose next call is under way: looked at on the tick
constexpr std::size_t kIdle = 1;

struct Turn {
    std::uint64_t equality = 0;  // of (tool, args, result); 0 = equals nothing
    std::uint64_t head = 0;      // of (tool, args)
    Nanos at = 0;
    std::int64_t metered = 0, upper = 0;  // of the account when the call came
    InlineText<64> id;
};

struct Run {
    std::uint64_t matches = 0;  // calls in a row that equal the one a period before
    Nanos start = 0, last = 0;
    std::int64_t metered = 0, upper = 0;
    std::uint8_t spoken = 0;  // severity said + 1
};

struct Pending {
    std::uint64_t call = 0, tool = 0, head = 0;  // call 0 = the event named none
    bool has_args = false;
    bool open = false;
};

struct Loop {
    std::array<Turn, kMaxPeriod> turns{};
    std::array<Run, kMaxPeriod> runs{};  // by period - 1
    std::array<Pending, kPending> pending{};
    std::uint64_t turn_count = 0;
    std::uint32_t next_pending = 0;
    std::uint32_t account = kNone, account_generation = 0;
    InlineText<64> tenant;
    InlineText<128> agent, session, task, tool;
    InlineText<64> last_id;  // of the newest event that bears on the run
};

class Loops final : public Auditor {
public:
    explicit Loops(std::span<const double> v)
        : min_repeats_(static_cast<std::uint64_t>(v[0])), max_period_(static_cast<std::size_t>(v[1])),
          loops_(kSessions) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (seen.id == events::IdStatus::retransmission) return;
        const bool call = event.type == EventType::tool_called;
        const bool returned = event.type == EventType::tool_returned;
        if (!call && !returned && !seen.money) return;
        const events::AccountRef actor = seen.account(events::Actor::session);
        if (actor.index == kNone) return;
        const std::uint32_t i = find(ledger.accounts().hash(actor.index), call || returned);
        if (i == kNone) return;
        Loop& loop = loops_[i];
        loop.account = actor.index;
        loop.account_generation = actor.generation;
        if (call || returned) {
            name(loop, event);
            if (call) called(loop, event, ledger);
            else came_back(loop, event, ledger);
        }
        if (!standing(loop)) {
            loops_.move(i, kIdle);
            return;
        }
        loop.last_id.assign(event.id);
        loops_.move(i, in_flight(loop) ? kInFlight : kIdle);
        evaluate(loop, seen.now, event.ts, ledger, emit);
    }

    void on_tick(Nanos now, Ledger& ledger, Emit& emit) override {
        for (std::uint32_t i = loops_.oldest(kInFlight); i != kNone; i = loops_.newer(i)) {
            evaluate(loops_[i], now, now, ledger, emit);
        }
    }

    void rearm(const Scope& scope, Ledger&) override {
        for (const std::size_t list : {kIdle, kInFlight}) {
            for (std::uint32_t i = loops_.oldest(list); i != kNone; i = loops_.newer(i)) {
                if (!within(loops_[i], scope)) continue;
                for (Run& run : loops_[i].runs) run.spoken = 0;
            }
        }
    }
    void save(Writer& writer) const override { loops_.save(writer); }
    void load(Reader& reader) override { loops_.load(reader); }

private:
    [[nodiscard]] std::uint32_t find(std::uint64_t key, bool open) noexcept {
        const std::uint32_t i = loops_.find(key, [](const Loop&) { return true; });
        if (i != kNone || !open) return i;
        return loops_.create(key, kIdle, [](std::uint32_t) {});
    }

    [[nodiscard]] static bool within(const Loop& loop, const Scope& scope) noexcept {
        switch (scope.kind) {
            case ScopeKind::host: return true;
            case ScopeKind::tenant: return loop.tenant == scope.id;
            case ScopeKind::agent: return loop.agent == scope.id;
            case ScopeKind::session: return loop.session == scope.id;
            case ScopeKind::task: return loop.task == scope.id;
        }
        return false;
    }

    static void name(Loop& loop, const Event& event) noexcept {
        loop.tenant.assign(event.tenant);
        loop.agent.assign(event.agent);
        loop.session.assign(event.session);
        loop.task.assign(event.task);
        loop.tool.assign(event.tool);
    }

    void called(Loop& loop, const Event& event, const Ledger& ledger) noexcept {
        const std::uint64_t head = events::hash_parts(1, event.tool, event.args_hash);
        if (!event.result_hash.empty()) {
            add_turn(loop, head, event.args_hash, event, ledger);
            return;
        }
        Pending& slot = loop.pending[loop.next_pending++ % kPending];
        if (slot.open) add_turn(loop, slot.head, {}, event, ledger);  // never came back: equals nothing
        slot = {event.call.empty() ? 0 : events::hash_text(event.call), events::hash_text(event.tool), head,
                !event.args_hash.empty(), true};
    }

    void came_back(Loop& loop, const Event& event, const Ledger& ledger) noexcept {
        const std::uint64_t call = event.call.empty() ? 0 : events::hash_text(event.call);
        const std::uint64_t tool = events::hash_text(event.tool);
        for (std::size_t n = 0; n < kPending; ++n) {  // oldest first
            Pending& p = loop.pending[(loop.next_pending + n) % kPending];
            if (!p.open || p.tool != tool || (call != 0 && p.call != 0 && p.call != call)) continue;
            p.open = false;
            const bool has_args = p.has_args || !event.args_hash.empty();
            const std::uint64_t head =
                p.has_args ? p.head : events::hash_parts(1, event.tool, event.args_hash);
            add_turn(loop, head, has_args ? std::string_view{"known"} : std::string_view{}, event, ledger);
            return;
        }
        // A source that reports returns alone still shows what it did.
        const events::Source& source = ledger.sources()[ledger.sighting().source];
        if (source.shows(EventType::tool_called)) return;
        add_turn(loop, events::hash_parts(1, event.tool, event.args_hash), event.args_hash, event, ledger);
    }

    void add_turn(Loop& loop, std::uint64_t head, std::string_view args, const Event& event,
                  const Ledger& ledger) noexcept {
        const bool comparable = !args.empty() && !event.result_hash.empty();
        const std::uint64_t equality = comparable ? events::hash_text(event.result_hash, head) | 1U : 0;
        const events::Account& account = ledger.accounts()[loop.account];
        for (std::size_t p = 1; p <= max_period_; ++p) {
            Run& run = loop.runs[p - 1];
            const Turn& before = loop.turns[(loop.turn_count - p) % kMaxPeriod];
            if (loop.turn_count < p || equality == 0 || before.equality != equality) {
                run = Run{};
                continue;
            }
            if (run.matches == 0) run = {0, before.at, 0, before.metered, before.upper, 0};
            ++run.matches;
            run.last = ledger.sighting().now;
        }
        Turn& turn = loop.turns[loop.turn_count++ % kMaxPeriod];
        turn.equality = equality;
        turn.head = head;
        turn.at = ledger.sighting().now;
        turn.metered = account.metered;
        turn.upper = account.upper();
        turn.id.assign(event.id);
    }

    // The shortest period whose run is long enough to speak of; 0 = none.
    [[nodiscard]] std::size_t period(const Loop& loop) const noexcept {
        for (std::size_t p = 1; p <= max_period_; ++p) {
            if (repeats(loop, p) >= min_repeats_) return p;
        }
        return 0;
    }
    [[nodiscard]] bool standing(const Loop& loop) const noexcept { return period(loop) != 0; }
    [[nodiscard]] static std::uint64_t repeats(const Loop& loop, std::size_t p) noexcept {
        const std::uint64_t matches = loop.runs[p - 1].matches;
        return matches == 0 ? 0 : matches / p + 1;
    }

    // Is the call that would continue the run under way?
    [[nodiscard]] bool in_flight(const Loop& loop) const noexcept {
        const std::size_t p = period(loop);
        if (p == 0) return false;
        const std::uint64_t expected = loop.turns[(loop.turn_count - p) % kMaxPeriod].head;
        return std::any_of(loop.pending.begin(), loop.pending.end(),
                           [&](const Pending& call) { return call.open && call.has_args && call.head == expected; });
    }

    void evaluate(Loop& loop, Nanos now, Nanos ts, const Ledger& ledger, Emit& emit) {
        const std::size_t p = period(loop);
        if (p == 0 || !ledger.accounts().holds(loop.account, loop.account_generation)) return;
        const events::Account& account = ledger.accounts()[loop.account];
        Run& run = loop.runs[p - 1];
        const Nanos end = in_flight(loop) ? std::max(now, run.last) : run.last;
        Facts facts;
        facts.rule = Facts::Rule::loop;
        facts.period = static_cast<int>(p);
        facts.repeats = repeats(loop, p);
        facts.duration_s = static_cast<double>(end - run.start) * 1e-9;
        facts.metered_nusd = std::max<std::int64_t>(0, account.metered - run.metered);
        facts.upper_nusd = std::max<std::int64_t>(0, account.upper() - run.upper);
        facts.cap_nusd = account.cap;
        const Verdict verdict = emit.judge(facts, ledger, now);
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(verdict.severity) + 1U);
        if (level <= run.spoken) return;
        run.spoken = level;
        say(loop, run, facts, verdict, ts, emit);
    }

    void say(const Loop& loop, const Run& run, const Facts& facts, const Verdict& verdict, Nanos ts, Emit& emit) const {
        Anomaly a;
        a.ts = ts;
        a.since = ts - static_cast<Nanos>(facts.duration_s * 1e9);
        a.family = Family::economic;
        a.detector = "loop";
        // The loop is the session's; the task that happens to run it is named beside it.
        a.scope = narrowest_scope(loop.tenant.view(), loop.agent.view(), loop.session.view(),
                                  loop.session.empty() ? loop.task.view() : std::string_view{});
        a.scope.task = loop.task.str();
        a.series = "loop.period_" + std::to_string(facts.period);
        a.value = static_cast<double>(facts.repeats);
        a.upper = static_cast<double>(min_repeats_);
        a.bits = kDeterministicBits;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence.push_back(loop.last_id.str());
        const std::size_t kept = std::min<std::uint64_t>({loop.turn_count, kMaxPeriod, run.matches + 1});
        for (std::size_t i = 1; i <= kept && a.evidence.size() < 8; ++i) {
            const Turn& turn = loop.turns[(loop.turn_count - i) % kMaxPeriod];
            if (!(turn.id == loop.last_id.view())) a.evidence.push_back(turn.id.str());
        }
        a.message = describe(loop, facts);
        emit.say(std::move(a));
    }

    [[nodiscard]] static std::string describe(const Loop& loop, const Facts& facts) {
        char money[64];
        std::snprintf(money, sizeof money, "%.1f s and %.6f USD", facts.duration_s, usd(facts.upper_nusd));
        std::string text = facts.period == 1
                               ? std::to_string(facts.repeats) + " equal calls of '" + loop.tool.str() + "'"
                               : "a cycle of " + std::to_string(facts.period) + " calls, last '" + loop.tool.str() +
                                     "', came " + std::to_string(facts.repeats) + " times";
        return text + " with equal results: " + money + " since it began";
    }

    std::uint64_t min_repeats_;
    std::size_t max_period_;
    events::Slab<Loop, 2> loops_;
};

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Loops>(values); }

}  // namespace

extern const AuditorDescriptor loop_auditor;
const AuditorDescriptor loop_auditor{
    {"loop", "calls with equal tool, arguments and result, alone or in cycles of up to 8, with their time and spend",
     "run lengths at lags 1 to 8 over call hashes", kOptions},
    make};

}  // namespace argus::auditors
