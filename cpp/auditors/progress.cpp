// Spend against novelty of state: an agent that works and pays while nothing new appears. New to a session is a result
// it had not seen, of a tool or of a failure; a file's content; an evaluation; words of a user; a task's start or end.
// A step is a tool's result or a model's turn that brings none of these; a run of steps ends at the next new thing.
// Polling that moves brings new results and is none.
//   progress.repeat     one tool, one result, other arguments each time (a nonce, a counter)
//   progress.ping_pong  two agents of a session hand over to each other
//   progress.burn       any other mixture, files written back and forth included
// Some tools answer all alike ("done"): there the arguments are what is new. Which ones do is learned, by how often a
// call with other arguments got the same result; a tool that was seen less than 20 times counts as one of them.
// The bar is learned as that of the cost auditor's loops: a run that at most 1 % of the agent's runs reached and that
// chance makes one in a million so long; an agent with fewer than 30 runs is held to twice the bar of all together.
// Runs that were spoken of do not teach. W3 judges what the run spent; a run that costs nothing stays information.
// Calls equal in tool, arguments and result one after the other are the loop auditor's, and not said again.
// Cost: bench_events events/progress. State: 0.9 kB a session (8,192), 0.2 kB an agent (2,048); the rest is evicted.
// Not promised: sessions that show no results (the cost auditor sees their model calls); results that differ in a clock
// or a counter alone; two agents in two sessions, which are seen one by one; state repeated after more than 32 calls.

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string>

#include "auditors/auditor.hpp"
#include "auditors/cost_model.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::Ledger;

constexpr Option kOptions[] = {
    {"min_steps", "1", 10, 4, 60, "shortest run of steps without anything new; the learned bar is never below"},
};

constexpr std::uint32_t kSessions = 8192, kAgents = 2048, kTools = 2048;
constexpr std::size_t kSeen = 64, kPending = 4, kLast = 4, kKept = 4;
constexpr std::uint32_t kTold = 20;             // calls with other arguments before a tool is known to tell something
constexpr double kMute = 0.2;                   // share of them with the same result from which it tells nothing
constexpr std::uint32_t kShapeBytes = 8;        // a nonce changes the length of arguments by less
constexpr double kBitsAtBar = 20.0;             // one in a million
constexpr double kFalseAlarmInterval = 86'400;  // of an agent, s

// A tool: how often a call with other arguments got another result, or the same one.
struct Tool {
    std::uint32_t other = 0, same = 0;
    [[nodiscard]] bool tells() const noexcept { return other + same >= kTold && same <= kMute * (other + same); }
    void learn(bool equal) noexcept {
        ++(equal ? same : other);
        if (other + same < 4096) return;
        other /= 2;
        same /= 2;
    }
};

struct Run {
    std::uint32_t steps = 0, results = 0, handovers = 0;
    std::uint8_t spoken = 0;  // severity said + 1
    bool same_result = true, same_args = true, same_shape = true, third_agent = false;
    std::uint64_t result = 0, args = 0;
    std::int64_t args_len = kAbsent;
    Nanos since = 0;
    std::int64_t metered = 0, upper = 0;  // of the account when it began
};

struct Session {
    std::array<std::uint32_t, kSeen> seen{};
    std::uint32_t seen_count = 0, account = kNone, account_generation = 0, pending_count = 0, last_count = 0;
    struct Pending {
        std::uint64_t call = 0, tool = 0, args = 0;
        std::int64_t args_len = kAbsent;
    };
    std::array<Pending, kPending> pending{};
    struct Last {
        std::uint64_t tool = 0, args = 0, result = 0;
        bool same = false;
    };
    std::array<Last, kLast> last{};
    std::uint64_t agent = 0, other_agent = 0;  // the one at work, and the one before
    std::uint64_t law = 0;                     // whose runs this one is among
    bool shows = false;                        // results, files or evaluations
    Run run;
    InlineText<128> tool;
    std::array<InlineText<64>, kKept> ids{};
    std::uint32_t id_count = 0;

    [[nodiscard]] bool remembers(std::uint64_t key) const noexcept {
        const auto word = static_cast<std::uint32_t>(key >> 32U) | 1U;
        return std::find(seen.begin(), seen.end(), word) != seen.end();
    }
    void remember(std::uint64_t key) noexcept {
        seen[seen_count++ % kSeen] = static_cast<std::uint32_t>(key >> 32U) | 1U;
    }
};

// A step's result as the session sees it.
struct Result {
    std::uint64_t tool = 0, args = 0, result = 0;  // hashes; 0 = not told
    std::int64_t args_len = kAbsent;
};

class Progress final : public Auditor {
public:
    explicit Progress(std::span<const double> v)
        : min_steps_(static_cast<std::uint32_t>(v[0])), sessions_(kSessions), laws_(kAgents), tools_(kTools) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (seen.id != events::IdStatus::fresh || !concerns(event, ledger)) return;
        const events::AccountRef actor = seen.account(events::Actor::session);
        if (actor.index == kNone) return;
        const bool opens = event.type == EventType::tool_called || event.type == EventType::tool_returned ||
                           event.type == EventType::file_written || event.type == EventType::eval_logged ||
                           event.type == EventType::retrieval_done;
        const std::uint32_t i = session_of(ledger.accounts().hash(actor.index), opens);
        if (i == kNone) return;
        Session& s = sessions_[i];
        s.account = actor.index;
        s.account_generation = actor.generation;
        s.shows = s.shows || opens;
        switch (event.type) {
            case EventType::tool_called:
                if (!told(event)) {
                    await(s, event);
                    return;
                }
                [[fallthrough]];
            case EventType::tool_returned:
            case EventType::retrieval_done: result(s, event, ledger, emit); return;
            case EventType::file_written: file(s, event, ledger, emit); return;
            case EventType::eval_logged: evaluation(s, event, ledger, emit); return;
            case EventType::model_called:
            case EventType::model_returned:
            case EventType::token_cost_logged:
                hand_over(s, event);
                if (is_turn(event, ledger)) step(s, event, ledger, emit);
                else judge(s, event, ledger, emit);
                return;
            case EventType::budget_reserved:
            case EventType::budget_settled: judge(s, event, ledger, emit); return;
            default: renew(s, event, ledger);
        }
    }
    void on_tick(Nanos, Ledger&, Emit&) override {}

    void rearm(const Scope& scope, Ledger&) override {
        const bool all = scope.kind != ScopeKind::session && scope.kind != ScopeKind::task;
        const std::uint64_t key = events::scope_hash(scope.kind, scope.tenant, scope.id);
        for (std::uint32_t i = sessions_.oldest(); i != kNone; i = sessions_.newer(i)) {
            if (all || sessions_.hash(i) == key) sessions_[i].run.spoken = 0;
        }
    }
    void save(Writer& writer) const override {
        sessions_.save(writer);
        laws_.save(writer);
        tools_.save(writer);
        writer.pod(all_);
    }
    void load(Reader& reader) override {
        sessions_.load(reader);
        laws_.load(reader);
        tools_.load(reader);
        all_ = reader.pod<RunLaw>();
    }

private:
    [[nodiscard]] static bool concerns(const Event& event, const Ledger& ledger) noexcept {
        switch (event.type) {
            case EventType::tool_called:
            case EventType::tool_returned:
            case EventType::retrieval_done:
            case EventType::file_written:
            case EventType::eval_logged:
            case EventType::model_called:
            case EventType::model_returned:
            case EventType::token_cost_logged:
            case EventType::user_message:
            case EventType::user_feedback:
            case EventType::task_started:
            case EventType::task_completed:
            case EventType::task_failed:
            case EventType::task_cancelled: return true;
            case EventType::budget_reserved:
            case EventType::budget_settled: return ledger.sighting().money;
            default: return false;
        }
    }
    // One event a turn: the model's return where the source tells it, else its call, else its cost.
    [[nodiscard]] static bool is_turn(const Event& event, const Ledger& ledger) noexcept {
        const events::Source& source = ledger.sources()[ledger.sighting().source];
        if (event.type == EventType::model_returned) return true;
        if (source.shows(EventType::model_returned)) return false;
        return event.type == EventType::model_called || !source.shows(EventType::model_called);
    }

    std::uint32_t session_of(std::uint64_t key, bool open) noexcept {
        std::uint32_t i = sessions_.find(key, [](const Session&) { return true; });
        if (i == kNone && open) i = sessions_.create(key, 0, [](std::uint32_t) {});
        if (i != kNone) sessions_.touch(i);
        return i;
    }

    // --- what is new -------------------------------------------------------------------------------------------------

    [[nodiscard]] static bool told(const Event& event) noexcept {
        return !event.result_hash.empty() || event.ok == 0;
    }

    static void await(Session& s, const Event& event) noexcept {
        Session::Pending& p = s.pending[s.pending_count++ % kPending];
        p.call = event.call.empty() ? 0 : events::hash_text(event.call);
        p.tool = events::hash_text(event.tool);
        p.args = event.args_hash.empty() ? 0 : events::hash_text(event.args_hash);
        p.args_len = event.args_len;
    }

    // Arguments may have come with the call alone.
    static Result read(Session& s, const Event& event) noexcept {
        Result r;
        r.tool = events::hash_text(event.tool);
        r.args = event.args_hash.empty() ? 0 : events::hash_text(event.args_hash);
        r.args_len = event.args_len;
        const std::string_view result = event.result_hash.empty() ? event.error : event.result_hash;
        r.result = result.empty() ? 0 : events::hash_parts(r.tool + (event.ok == 0 ? 1U : 0U), result);
        if (r.args != 0 || event.type == EventType::tool_called) return r;
        const std::uint64_t call = event.call.empty() ? 0 : events::hash_text(event.call);
        for (std::size_t n = 0; n < kPending; ++n) {  // oldest first
            Session::Pending& p = s.pending[(s.pending_count + n) % kPending];
            if (p.tool != r.tool || (call != 0 && p.call != 0 && p.call != call)) continue;
            r.args = p.args;
            r.args_len = p.args_len;
            p = {};
            break;
        }
        return r;
    }

    void result(Session& s, const Event& event, const Ledger& ledger, Emit& emit) {
        // A return after a call that carried its result tells nothing further.
        if (event.type == EventType::tool_returned && !told(event)) return;
        const Result r = read(s, event);
        hand_over(s, event);
        const Tool tool = learn_tool(s, r, event);
        if (r.result == 0) {  // a failure that says nothing is nothing new; a success that says nothing may be
            if (event.ok == 0) add_result(s, r, event, ledger, emit);
            else renew(s, event, ledger);
            return;
        }
        const std::uint64_t call = events::mix(r.tool ^ 0x8ebc6af09c88c6e3ULL, r.args | 1U);
        const bool new_result = !s.remembers(r.result);
        const bool new_call = r.args == 0 || !s.remembers(call);
        if (new_result) s.remember(r.result);
        if (r.args != 0 && new_call) s.remember(call);
        const bool is_new = new_result || (new_call && !tool.tells() && event.ok != 0);
        if (is_new) renew(s, event, ledger);
        else add_result(s, r, event, ledger, emit);
    }

    // A stretch of equal results teaches once, so that a stuck agent does not make its tool one that tells nothing.
    Tool learn_tool(Session& s, const Result& r, const Event& event) noexcept {
        const std::uint64_t key = events::hash_text(event.tenant, r.tool);
        std::uint32_t i = tools_.find(key, [](const Tool&) { return true; });
        if (i == kNone) i = tools_.create(key, 0, [](std::uint32_t) {});
        tools_.touch(i);
        if (r.result == 0 || r.args == 0) return tools_[i];
        const auto at = std::find_if(s.last.begin(), s.last.end(), [&](const auto& l) { return l.tool == r.tool; });
        if (at == s.last.end()) {
            s.last[s.last_count++ % kLast] = {r.tool, r.args, r.result, false};
            return tools_[i];
        }
        const bool same = at->result == r.result;
        if (at->args != r.args && s.run.spoken == 0 && !(same && at->same)) tools_[i].learn(same);
        *at = {r.tool, r.args, r.result, same};
        return tools_[i];
    }

    void file(Session& s, const Event& event, const Ledger& ledger, Emit& emit) {
        if (event.sha256.empty()) {  // what it holds is not known
            renew(s, event, ledger);
            return;
        }
        novel(s, events::hash_parts(19, event.path, event.sha256), event, ledger, emit);
    }

    void evaluation(Session& s, const Event& event, const Ledger& ledger, Emit& emit) {
        std::uint64_t bits = 0;
        static_assert(sizeof bits == sizeof event.score);
        std::memcpy(&bits, &event.score, sizeof bits);
        novel(s, events::hash_parts(bits, event.eval, event.label), event, ledger, emit);
    }

    void novel(Session& s, std::uint64_t key, const Event& event, const Ledger& ledger, Emit& emit) {
        hand_over(s, event);
        if (s.remembers(key)) {
            step(s, event, ledger, emit);
            return;
        }
        s.remember(key);
        renew(s, event, ledger);
    }

    // --- runs --------------------------------------------------------------------------------------------------------

    RunLaw& law_of(std::uint64_t key) noexcept {
        std::uint32_t i = laws_.find(key, [](const RunLaw&) { return true; });
        if (i == kNone) i = laws_.create(key, 0, [](std::uint32_t) {});
        laws_.touch(i);
        return laws_[i];
    }

    void renew(Session& s, const Event& event, const Ledger& ledger) noexcept {
        s.run = Run{};
        if (!ledger.accounts().holds(s.account, s.account_generation)) return;
        const events::Account& account = ledger.accounts()[s.account];
        s.run.metered = account.metered;
        s.run.upper = account.upper();
        s.run.since = ledger.sighting().now;
        s.id_count = 0;
        if (!s.shows) return;
        s.law = events::hash_parts(23, event.tenant, event.agent);
        law_of(s.law).begin();
        all_.begin();
        reach(s, 1);
    }

    void reach(Session& s, std::uint32_t turns) noexcept {
        law_of(s.law).reach(turns);
        all_.reach(turns);
    }

    void hand_over(Session& s, const Event& event) noexcept {
        if (event.agent.empty()) return;
        const std::uint64_t agent = events::hash_text(event.agent);
        if (agent == s.agent) return;
        if (s.agent != 0) {
            ++s.run.handovers;
            if (s.other_agent != 0 && agent != s.other_agent) s.run.third_agent = true;
        }
        s.other_agent = s.agent;
        s.agent = agent;
    }

    void add_result(Session& s, const Result& r, const Event& event, const Ledger& ledger, Emit& emit) {
        Run& run = s.run;
        if (run.results++ == 0) {
            run.result = r.result;
            run.args = r.args;
            run.args_len = r.args_len;
            s.tool.assign(event.tool);
        } else {
            run.same_result = run.same_result && r.result == run.result;
            run.same_args = run.same_args && r.args == run.args;
            const std::int64_t off = r.args_len == kAbsent || run.args_len == kAbsent ? 0 : r.args_len - run.args_len;
            run.same_shape = run.same_shape && off <= kShapeBytes && off >= -std::int64_t{kShapeBytes};
        }
        step(s, event, ledger, emit);
    }

    void step(Session& s, const Event& event, const Ledger& ledger, Emit& emit) {
        if (!s.shows || s.law == 0) return;
        if (s.run.steps < 0xffffffU) ++s.run.steps;
        if (s.run.spoken == 0) reach(s, s.run.steps + 1);
        s.ids[s.id_count++ % kKept].assign(event.id);
        judge(s, event, ledger, emit);
    }

    [[nodiscard]] std::uint32_t bar(const Session& s) noexcept {
        const std::uint32_t own = s.run.spoken == 0 ? s.run.steps + 1 : 0;
        const RunLaw& law = law_of(s.law);
        if (law.known()) return law.bar(min_steps_, own);
        return all_.known() ? std::min(2 * all_.bar(min_steps_, own), RunLaw::kLongest) : RunLaw::kLongest;
    }

    void judge(Session& s, const Event& event, const Ledger& ledger, Emit& emit) {
        Run& run = s.run;
        if (run.steps < min_steps_ || !ledger.accounts().holds(s.account, s.account_generation)) return;
        const std::uint32_t needed = bar(s);
        if (run.steps < needed || needed >= RunLaw::kLongest) return;
        if (run.results > 1 && run.same_result && run.same_args && run.args != 0) return;  // the loop auditor's
        const events::Account& account = ledger.accounts()[s.account];
        Facts facts;
        facts.rule = Facts::Rule::progress;
        facts.repeats = run.steps;
        facts.duration_s = static_cast<double>(ledger.sighting().now - run.since) * 1e-9;
        facts.metered_nusd = std::max<std::int64_t>(0, account.metered - run.metered);
        facts.upper_nusd = std::max<std::int64_t>(0, account.upper() - run.upper);
        facts.cap_nusd = account.cap;
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(verdict.severity) + 1U);
        if (level <= run.spoken) return;
        if (run.spoken == 0) {
            law_of(s.law).disown(run.steps + 1);
            all_.disown(run.steps + 1);
        }
        run.spoken = level;
        say(s, facts, needed, verdict, event, emit);
    }

    // --- speaking ----------------------------------------------------------------------------------------------------

    static void say(const Session& s, const Facts& facts, std::uint32_t needed, const Verdict& verdict,
                    const Event& event, Emit& emit) {
        const Run& run = s.run;
        const bool ping_pong = 3 * run.handovers >= run.steps && !run.third_agent;
        const bool repeat = run.results > 1 && run.same_result && run.same_shape && !run.same_args;
        Anomaly a;
        a.ts = event.ts;
        a.since = event.ts - static_cast<Nanos>(facts.duration_s * 1e9);
        a.family = Family::economic;
        a.detector = "progress";
        a.scope = narrowest_scope(event.tenant, event.agent, event.session,
                                  event.session.empty() ? event.task : std::string_view{});
        a.scope.task = event.task;
        a.series = ping_pong ? "progress.ping_pong" : repeat ? "progress.repeat" : "progress.burn";
        a.value = static_cast<double>(run.steps);
        a.expected = a.upper = static_cast<double>(needed);
        a.bits = std::min(kDeterministicBits, kBitsAtBar * a.value / a.expected);
        a.false_alarm_interval_s = kFalseAlarmInterval;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        for (std::uint32_t n = 1; n <= std::min<std::uint32_t>(s.id_count, kKept); ++n) {
            a.evidence.push_back(s.ids[(s.id_count - n) % kKept].str());
        }
        char text[224];
        std::snprintf(text, sizeof text, "%u steps in %.1f s for %.6f USD and nothing new since: no new result, file, "
                      "evaluation or word of a user, where %u are rare", run.steps, facts.duration_s,
                      usd(facts.upper_nusd), needed);
        a.message = text;
        if (ping_pong) a.message += "; two agents handed over " + std::to_string(run.handovers) + " times";
        if (repeat) {
            a.message += "; " + std::to_string(run.results) + " calls of '" + s.tool.str() +
                         "' got one result for arguments that differ";
        }
        emit.say(std::move(a));
    }

    std::uint32_t min_steps_;
    events::Slab<Session> sessions_;
    events::Slab<RunLaw> laws_;
    events::Slab<Tool> tools_;
    RunLaw all_;
};

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Progress>(values); }

}  // namespace

extern const AuditorDescriptor progress_auditor;
const AuditorDescriptor progress_auditor{
    {"progress", "spend while nothing new appears: other arguments for one result, agents in ping-pong, busy idling",
     "novelty of results, files and evaluations against learned run lengths", kOptions},
    make};

}  // namespace argus::auditors
