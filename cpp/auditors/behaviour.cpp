// Shifts that no single agent or window shows: each observation is ranked within its own agent's past, and the ranks of
// all that share a model, a task type or a tool are pooled. A model that silently gets worse shows in all its agents at
// once, in a few tasks of each; a slow decline over days shows because the past that ranks are taken in spans weeks.
//   measure         of                            pooled by                          scale
//   success         tasks                         model, task type                   yes or no
//   calls, way      tasks: number; strategy and first tool   model, task type        amount; names
//   abandoned       tasks cancelled               agent, model, task type            yes or no
//   retried         tasks begun after one of the session failed or was cancelled     yes or no
//   task_duration   tasks                         agent, model, task type            amount
//   tool_duration, tool_failure, result_size      tool calls; an agent's tool, and the tool over agents
//   output_size     output tokens of model calls  agent, model                       amount
//   feedback        user_feedback: score, else ok, else label (thumbs)    agent, model    score
// A pooled view speaks only where agents besides the strongest show the shift too; what one agent alone does is its own
// (its success, calls and ways are the outcome auditor's). A shift must be material, and its evidence, divided by the
// learned dispersion of its view, exceed ln(40 times the observations of `false_alarm_interval_s`), so ten views of
// four alternatives each are wrong about that seldom at any rate. What was said starts the pasts anew; from the fourth
// shift of a view within an interval on the bar doubles each time. The view that carried the evidence is named, and a
// model or version that is new there.
// Information only: no stop rests on it.
// Method: ranks.hpp.  Cost: bench_events events/behaviour; 0.3 kB an agent's measure (16,384), 1.6 kB a view (4,096).
// Not promised: a shift within an agent's first 32 observations; a model switch of all agents in the view by model (the
// views by task type, tool and agent see it); swings of a day until some were seen.

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"
#include "auditors/ranks.hpp"
#include "auditors/task_attributes.hpp"
#include "auditors/versions.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::Ledger;

enum Values : std::size_t { kInterval, kMemory, kRatio, kShare, kHistory };

constexpr Option kOptions[] = {
    {"false_alarm_interval_s", "s", 2'592'000, 3600, 1e9, "mean time between false alarms of ten views, at least"},
    {"memory_s", "s", 1'209'600, 3600, 1e8, "span of an agent's past that ranks are taken in"},
    {"material_ratio", "1", 0.2, 0, 100, "change of durations, sizes and numbers that matters"},
    {"material_share", "1", 0.05, 0, 1, "change of a share that matters"},
    {"history", "1", 32, 8, 256, "observations of an agent before it is judged"},
};

enum Measure : std::uint8_t {
    kSuccess, kCalls, kWay, kAbandoned, kRetried, kTaskDuration, kToolDuration, kToolFailure, kResultSize,
    kOutputSize, kFeedback, kMeasures,
};
struct About {
    const char* series;
    const char* what;
    Scale scale;
    double unit;  // of one counted
};
constexpr About kAbout[kMeasures] = {
    {"behaviour.success", "success of tasks", Scale::binary, 1},
    {"behaviour.calls", "tool calls of a task", Scale::ratio, 1},
    {"behaviour.way", "strategies and first tools", Scale::way, 1},
    {"behaviour.abandoned", "tasks cancelled", Scale::binary, 1},
    {"behaviour.retried", "tasks begun after one that did not succeed", Scale::binary, 1},
    {"behaviour.task_duration", "duration of tasks", Scale::ratio, 1e-9},
    {"behaviour.tool_duration", "duration of tool calls", Scale::ratio, 1e-9},
    {"behaviour.tool_failure", "failures of tool calls", Scale::binary, 1},
    {"behaviour.result_size", "size of results", Scale::ratio, 1},
    {"behaviour.output_size", "output tokens of model calls", Scale::ratio, 1},
    {"behaviour.feedback", "feedback of users", Scale::score, 1},
};

enum class By : std::uint8_t { agent, model, type, tool, agent_tool };
[[nodiscard]] constexpr bool pooled(By by) noexcept { return by == By::model || by == By::type || by == By::tool; }
constexpr std::size_t kBys = 5;
constexpr std::uint32_t kPasts = 16'384, kViews = 4096, kNames = 1024;
constexpr std::size_t kLiveTasks = 32'768, kSessions = 8192;
constexpr std::size_t kKnown = 0, kNew = 1;        // lists of views and pasts: a flood of names evicts newcomers only
constexpr std::size_t kShares = 10, kKept = 3;
constexpr double kAlone = 3.0;                     // nats that the other agents must show together
constexpr double kRankShift = 0.35;                // material, where a rank is all there is: 0.1 of the ranks
constexpr std::uint32_t kRetryWithin_s = 3600;
constexpr std::uint8_t kHabit = 3, kMostTold = 12;
constexpr double kLeastObservations = 1000, kViewsOfScope = 10;
constexpr double kDoubt = 3.0;                     // nats from which an excursion may be one

struct Live {
    std::uint32_t task = kNone, generation = 0;
    std::uint32_t model = 0, version = 0, tool = 0, calls = 0;  // short hashes; 0 = none seen
    Nanos started = kAbsent;
    bool ended = false;
};

struct SessionEnd {
    std::uint64_t session = 0;
    std::uint32_t at_s = 0;
    bool succeeded = false;
};

// One agent's part in the evidence of a view, by direction.
struct Share {
    std::uint32_t agent = 0;
    float nats = 0;
};

struct Watch {
    Measure measure = kSuccess;
    By by = By::agent;
    std::uint8_t told = 0;
    std::uint32_t told_s = 0;                        // shifts spoken of lately; each interval forgives one
    std::uint32_t observations = 0, first_s = 0;
    std::uint32_t cut_s = 0;                         // pasts that began before are out of date
    std::array<Excursion, kAlternatives> excursions{};
    std::array<std::array<Share, kShares>, 2> shares{};
    Scatter scatter;
    Versions models, versions;
    InlineText<64> tenant;
    InlineText<128> name, agent;
    std::array<std::array<InlineText<64>, kKept>, 2> ids{};
    std::array<std::uint32_t, 2> id_count{};
};

struct Observation {
    Measure measure = kSuccess;
    double value = 0;
    std::uint32_t way = 0, model = 0, version = 0;
};

// Whom an event is about.
struct Whom {
    std::string_view tenant, agent, type, tool;
    std::uint64_t owner = 0;  // hash of tenant and agent, or of what stands for them
    std::uint64_t tenant_key = 0, type_key = 0, tool_key = 0;
    std::uint32_t now_s = 0;
};

// A thumb, in the words in use for it; 0 = none of them.
[[nodiscard]] int thumb(std::string_view label) noexcept {
    constexpr std::string_view kUp[] = {"up", "thumbs_up", "thumbs-up", "positive", "good", "like", "liked", "👍"};
    constexpr std::string_view kDown[] = {"down", "thumbs_down", "thumbs-down", "negative",
                                          "bad",  "dislike",     "disliked",    "👎"};
    if (std::find(std::begin(kUp), std::end(kUp), label) != std::end(kUp)) return 1;
    return std::find(std::begin(kDown), std::end(kDown), label) != std::end(kDown) ? -1 : 0;
}

class Shifts final : public Auditor {
public:
    explicit Shifts(std::span<const double> v)
        : interval_s_(v[kInterval]), memory_s_(v[kMemory]),
          material_doublings_(static_cast<double>(fast_log2(static_cast<float>(1.0 + v[kRatio])))),
          material_share_(v[kShare]), history_(static_cast<std::uint32_t>(v[kHistory])), pasts_(kPasts),
          views_(kViews), live_(kLiveTasks), ends_(kSessions), names_(kNames) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (seen.id != events::IdStatus::fresh) return;
        switch (event.type) {
            case EventType::task_started: start(event, ledger, emit); return;
            case EventType::task_completed:
            case EventType::task_failed:
            case EventType::task_cancelled:
                if (seen.task != kNone) end(event, ledger, emit);
                return;
            case EventType::tool_called:
            case EventType::tool_returned: tool(event, ledger, emit); return;
            case EventType::model_returned:
                if (ledger.sources()[seen.source].shows(EventType::token_cost_logged)) return;
                [[fallthrough]];
            case EventType::token_cost_logged:
                if (event.output_tokens <= 0) return;
                observe({kOutputSize, static_cast<double>(event.output_tokens), 0, names_.remember(event.model),
                         names_.remember(event.agent_version)}, whom(event, ledger), event, ledger, emit);
                return;
            case EventType::user_feedback: feedback(event, ledger, emit); return;
            default: return;
        }
    }
    void on_tick(Nanos, Ledger&, Emit&) override {}

    void rearm(const Scope& scope, Ledger&) override {
        for (const std::size_t list : {kKnown, kNew}) {
            for (std::uint32_t i = views_.oldest(list); i != kNone; i = views_.newer(i)) {
                Watch& w = views_[i];
                const bool agent = w.by == By::agent ? w.name == scope.id : w.agent == scope.id;
                if (scope.kind == ScopeKind::host || (scope.kind == ScopeKind::tenant && w.tenant == scope.id) ||
                    (scope.kind == ScopeKind::agent && agent)) {
                    w.told = 0;
                }
            }
        }
    }
    void save(Writer& writer) const override;
    void load(Reader& reader) override;

private:
    // --- events ------------------------------------------------------------------------------------------------------

    [[nodiscard]] static Whom whom(const Event& event, const Ledger& ledger) noexcept {
        const events::Sighting& seen = ledger.sighting();
        Whom w;
        w.tenant = event.tenant;
        w.agent = event.agent;
        if (w.agent.empty() && seen.task != kNone) w.agent = ledger.tasks()[seen.task].agent.view();
        w.tool = event.tool;
        const bool named = !w.agent.empty() || !w.tenant.empty();
        w.tenant_key = events::hash_text(w.tenant, 11);
        w.owner = events::hash_text(named ? w.agent : event.source, w.tenant_key + (named ? 0U : 1U));
        if (!w.tool.empty()) w.tool_key = events::hash_text(w.tool, 17);
        w.now_s = static_cast<std::uint32_t>(std::clamp<Nanos>(seen.now / kSecond, 0, 0xffffffffLL));
        return w;
    }

    [[nodiscard]] Live& live(const events::Sighting& seen, const Ledger& ledger) noexcept {
        Live& task = live_[seen.task % kLiveTasks];
        const std::uint32_t generation = ledger.tasks().generation(seen.task);
        if (task.task != seen.task || task.generation != generation) {
            task = Live{};
            task.task = seen.task;
            task.generation = generation;
        }
        return task;
    }

    [[nodiscard]] SessionEnd& end_of(std::uint64_t session) noexcept { return ends_[session % kSessions]; }

    void start(const Event& event, const Ledger& ledger, Emit& emit) {
        const events::Sighting& seen = ledger.sighting();
        if (seen.task == kNone) return;
        Live& task = live(seen, ledger);
        const std::uint32_t known = task.task, generation = task.generation;
        task = Live{};
        task.task = known;
        task.generation = generation;
        task.started = event.ts;
        names_.learn(task.model, event.model);
        names_.learn(task.version, event.agent_version);
        if (event.session.empty()) return;
        const Whom w = whom(event, ledger);
        const std::uint64_t session = events::hash_parts(13, event.tenant, event.session);
        const SessionEnd& last = end_of(session);
        const bool again = last.session == session && !last.succeeded && w.now_s - last.at_s <= kRetryWithin_s;
        observe({kRetried, again ? 1.0 : 0.0, 0, task.model, task.version}, w, event, ledger, emit);
    }

    void tool(const Event& event, const Ledger& ledger, Emit& emit) {
        const events::Sighting& seen = ledger.sighting();
        Observation o;
        if (seen.task != kNone) {
            Live& task = live(seen, ledger);
            const bool called = event.type == EventType::tool_called ||
                                !ledger.sources()[seen.source].shows(EventType::tool_called);
            if (called && task.calls++ == 0) task.tool = short_hash(event.tool);
            names_.learn(task.model, event.model);
            names_.learn(task.version, event.agent_version);
            o.model = task.model;
            o.version = task.version;
        }
        if (event.duration_ns <= 0 && event.ok < 0 && event.result_len <= 0) return;
        const Whom w = whom(event, ledger);
        const auto measured = [&](Measure measure, double value) {
            o.measure = measure;
            o.value = value;
            observe(o, w, event, ledger, emit);
        };
        if (event.duration_ns > 0) measured(kToolDuration, static_cast<double>(event.duration_ns));
        if (event.ok >= 0) measured(kToolFailure, event.ok == 0 ? 1.0 : 0.0);
        if (event.result_len > 0) measured(kResultSize, static_cast<double>(event.result_len));
    }

    void end(const Event& event, const Ledger& ledger, Emit& emit) {
        Live& task = live(ledger.sighting(), ledger);
        if (task.ended) return;  // told twice
        task.ended = true;
        names_.learn(task.model, event.model);
        names_.learn(task.version, event.agent_version);
        Whom w = whom(event, ledger);
        const TaskAttributes attributes = read_task_attributes(event.attrs);
        w.type = attributes.task_type;
        if (!w.type.empty()) w.type_key = events::hash_text(w.type, 19);
        const auto measured = [&](Measure measure, double value, std::uint32_t way = 0) {
            observe({measure, value, way, task.model, task.version}, w, event, ledger, emit);
        };
        const bool cancelled = event.type == EventType::task_cancelled;
        const bool known = event.ok >= 0 || event.type == EventType::task_failed;
        if (known && !cancelled) measured(kSuccess, event.ok == 1 ? 1.0 : 0.0);
        measured(kAbandoned, cancelled ? 1.0 : 0.0);
        if (!cancelled) {
            const bool told = attributes.tool_calls >= 0;
            measured(kCalls, 1.0 + (told ? static_cast<double>(attributes.tool_calls) : task.calls));
            const std::uint32_t tool = event.tool.empty() ? task.tool : short_hash(event.tool);
            measured(kWay, 0.0, (tool ^ short_hash(event.strategy) << 7U) | 1U);
            const double lasted = event.duration_ns > 0         ? static_cast<double>(event.duration_ns)
                                  : task.started == kAbsent ? 0.0
                                                            : static_cast<double>(event.ts - task.started);
            if (lasted > 0) measured(kTaskDuration, lasted);
        }
        if (event.session.empty()) return;
        const std::uint64_t session = events::hash_parts(13, event.tenant, event.session);
        end_of(session) = {session, w.now_s, !cancelled && event.type == EventType::task_completed && event.ok != 0};
    }

    void feedback(const Event& event, const Ledger& ledger, Emit& emit) {
        const int told = event.ok >= 0 ? 2 * event.ok - 1 : thumb(event.label);
        const bool scored = event.score == event.score;
        if (!scored && told == 0) return;
        observe({kFeedback, scored ? event.score : static_cast<double>(told), 0, names_.remember(event.model),
                 names_.remember(event.agent_version)}, whom(event, ledger), event, ledger, emit);
    }

    // --- ranks -------------------------------------------------------------------------------------------------------

    [[nodiscard]] static std::uint64_t mixed(std::uint64_t key, std::uint64_t with) noexcept {
        return events::mix(key ^ 0xe7037ed1a0b428dbULL, with * 2 + 0x9e3779b97f4a7c15ULL);
    }

    // The order of last use is kept roughly: to relink entries at every event costs more than what they teach.
    [[nodiscard]] bool relinks(bool known, std::uint8_t list) noexcept {
        return list != (known ? kKnown : kNew) || ++uses_ % 16 == 0;
    }

    [[nodiscard]] std::uint32_t past_of(std::uint64_t key, std::uint32_t now_s) noexcept {
        std::uint32_t i = pasts_.find(key, [](const Past&) { return true; });
        if (i == kNone) {
            i = pasts_.create(key, kNew, [](std::uint32_t) {});
            pasts_[i].began_s = now_s;
        }
        const bool known = pasts_[i].size() >= history_;
        if (relinks(known, pasts_.list_of(i))) pasts_.move(i, known ? kKnown : kNew);
        return i;
    }

    [[nodiscard]] static std::uint64_t key_of(By by, const Whom& whom, std::uint32_t model) noexcept {
        switch (by) {
            case By::agent: return whom.owner;
            case By::model: return model;
            case By::type: return mixed(whom.tenant_key, whom.type_key);
            case By::tool: return mixed(whom.tenant_key, whom.tool_key);
            case By::agent_tool: return mixed(whom.owner, whom.tool_key);
        }
        return 0;
    }

    [[nodiscard]] std::uint32_t view_of(Measure measure, By by, const Whom& whom, std::uint32_t model = 0) noexcept {
        const std::uint64_t key = mixed(key_of(by, whom, model), 64U * static_cast<std::uint64_t>(by) + measure);
        std::uint32_t i = views_.find(key, [](const Watch&) { return true; });
        if (i == kNone) {
            i = views_.create(key, kNew, [](std::uint32_t) {});
            Watch& w = views_[i];
            w.measure = measure;
            w.by = by;
            w.first_s = whom.now_s;
            if (by != By::model) w.tenant.assign(whom.tenant);
            if (by == By::agent_tool) w.agent.assign(whom.agent);
            w.name.assign(by == By::agent   ? whom.agent
                          : by == By::model ? names_.view(model)
                          : by == By::type  ? whom.type
                                            : whom.tool);
        }
        const bool known = views_[i].observations >= history_;
        if (relinks(known, views_.list_of(i))) views_.move(i, known ? kKnown : kNew);
        return i;
    }

    // A view is a union of whole pasts: the one by model ranks within what the agent did with that model.
    void observe(const Observation& o, const Whom& whom, const Event& event, const Ledger& ledger, Emit& emit) {
        const bool of_tool = o.measure == kToolDuration || o.measure == kToolFailure || o.measure == kResultSize;
        const bool of_outcome = o.measure == kSuccess || o.measure == kCalls || o.measure == kWay;
        const bool by_agent = !of_outcome && !whom.agent.empty();
        const bool by_type = !of_tool && !whom.type.empty();
        const bool by_model = !of_tool && o.model != 0;
        const std::uint64_t key = mixed(mixed(whom.owner, of_tool ? whom.tool_key : whom.type_key), o.measure);
        std::uint32_t own = kNone, with_model = kNone;
        if (of_tool || by_agent || by_type) {
            own = past_of(key, whom.now_s);
            if (!pasts_[own].admits(whom.now_s)) return;
        }
        if (by_model) {
            with_model = past_of(mixed(key, o.model), whom.now_s);
            if (!pasts_[with_model].admits(whom.now_s)) return;
        }
        std::array<std::uint32_t, 2> views{};
        std::size_t count = 0;
        if (of_tool) views[count++] = view_of(o.measure, By::tool, whom);
        if (by_type) views[count++] = view_of(o.measure, By::type, whom);
        if (by_agent) views[count++] = view_of(o.measure, of_tool ? By::agent_tool : By::agent, whom);
        const std::uint32_t model_view = by_model ? view_of(o.measure, By::model, whom, o.model) : kNone;
        std::uint32_t cut_s = by_model ? views_[model_view].cut_s : 0;
        for (std::size_t n = 0; n < count; ++n) cut_s = std::max(cut_s, views_[views[n]].cut_s);
        if (own != kNone) weigh(o, pasts_[own], cut_s, {views.data(), count}, whom, event, ledger, emit);
        if (by_model) weigh(o, pasts_[with_model], cut_s, {&model_view, 1}, whom, event, ledger, emit);
    }

    // Ranks one observation within its past and books the rank in the views; then the past learns, unless a material
    // shift is building up.
    void weigh(const Observation& o, Past& past, std::uint32_t cut_s, std::span<const std::uint32_t> views,
               const Whom& whom, const Event& event, const Ledger& ledger, Emit& emit) {
        if (past.began_s < cut_s) past.restart(whom.now_s);
        const Scale scale = kAbout[o.measure].scale;
        bool doubtful = false;
        if (past.size() >= history_) {
            const Scored scored = past.score(scale, o.value, o.way);
            const auto agent = static_cast<std::uint32_t>(whom.owner >> 32U) | 1U;
            for (const std::uint32_t i : views) {
                Watch& w = views_[i];
                book(w, scored, agent, o, event, whom.now_s);
                doubtful = decide(w, past, whom, event, ledger, emit) || doubtful;
            }
        }
        if (!doubtful) past.learn(scale, o.value, o.way, whom.now_s, memory_s_);
    }

    void book(Watch& w, const Scored& scored, std::uint32_t agent, const Observation& o, const Event& event,
              std::uint32_t now_s) noexcept {
        ++w.observations;
        w.models.note(o.model, w.observations);
        w.versions.note(o.version, w.observations);
        w.scatter.add(static_cast<double>(scored.z));
        for (std::size_t k = 0; k < kAlternatives; ++k) {
            w.excursions[k].add(scored, scored.nats[k], w.observations, now_s);
        }
        for (std::size_t side = 0; side < 2 && pooled(w.by); ++side) {
            const bool none = w.excursions[2 * side].count == 0 && w.excursions[2 * side + 1].count == 0;
            if (!none) give_share(w.shares[side], agent, 0.5F * (scored.nats[2 * side] + scored.nats[2 * side + 1]));
            else if (w.shares[side][0].agent != 0) w.shares[side] = {};
        }
        const std::size_t side = scored.z < 0 ? 0 : 1;
        if (std::max(w.excursions[2 * side].nats, w.excursions[2 * side + 1].nats) < 1.0) return;
        w.ids[side][w.id_count[side]++ % kKept].assign(event.id);
    }

    // The least telling agent makes room for a new one.
    static void give_share(std::array<Share, kShares>& shares, std::uint32_t agent, float nats) noexcept {
        Share* least = shares.data();
        for (Share& s : shares) {
            if (s.agent == agent) {
                s.nats += nats;
                return;
            }
            if (least->agent != 0 && (s.agent == 0 || s.nats < least->nats)) least = &s;
        }
        *least = {agent, nats};
    }

    struct Spread {
        std::uint32_t agents = 0;
        double beyond_first = 0;  // nats of all but the strongest
    };
    [[nodiscard]] static Spread spread(const std::array<Share, kShares>& shares) noexcept {
        Spread s;
        double most = 0;
        for (const Share& share : shares) {
            if (share.agent == 0) continue;
            ++s.agents;
            const double nats = std::max(0.0, static_cast<double>(share.nats));
            s.beyond_first += nats;
            most = std::max(most, nats);
        }
        s.beyond_first -= most;
        return s;
    }

    // --- judging -----------------------------------------------------------------------------------------------------

    [[nodiscard]] double bar(Watch& w, std::uint32_t now_s) const noexcept {
        for (; w.told > 0 && static_cast<double>(now_s - w.told_s) >= interval_s_; --w.told) {
            w.told_s += static_cast<std::uint32_t>(interval_s_);
        }
        const double lived = static_cast<double>(now_s - w.first_s) + 3600.0;
        const double due = std::max(kLeastObservations, w.observations / lived * interval_s_);
        const double patience = w.told < kHabit ? 1.0 : static_cast<double>(2U << (w.told - kHabit));
        return patience * quick_log(due * kAlternatives * kViewsOfScope);
    }

    [[nodiscard]] bool material(const Watch& w, const Excursion& e, std::size_t side) const noexcept {
        const double sign = side == 0 ? -1.0 : 1.0;
        switch (kAbout[w.measure].scale) {
            case Scale::binary: return sign * e.shift() >= material_share_;
            case Scale::ratio: return sign * e.shift() >= material_doublings_;
            default: return sign * e.z / e.count >= kRankShift;
        }
    }

    // Says what there is to say; true while a material shift is building up.
    bool decide(Watch& w, Past& past, const Whom& whom, const Event& event, const Ledger& ledger, Emit& emit) {
        double most = 0;
        for (const Excursion& e : w.excursions) most = std::max(most, e.nats);
        if (most < kDoubt) return false;
        const double dispersion = w.scatter.dispersion();
        const double needed = bar(w, whom.now_s);
        std::size_t best = kAlternatives;
        double strongest = 0;
        Spread agents;
        for (std::size_t k = 0; k < kAlternatives; ++k) {
            const Excursion& e = w.excursions[k];
            if (e.nats < kDoubt || !material(w, e, side_of(k))) continue;
            const Spread s = spread(w.shares[side_of(k)]);
            const double nats = e.discounted(dispersion, std::max(s.agents, 1U));
            if (nats <= strongest) continue;
            strongest = nats;
            best = k;
            agents = s;
        }
        if (strongest < needed) return strongest > 0.5 * needed;
        if (pooled(w.by) && agents.beyond_first / dispersion < kAlone) {
            past.restart(whom.now_s);  // one agent's own: explained, and not held against the others
        } else {
            w.told_s = w.told == 0 ? whom.now_s : w.told_s;
            w.told = std::min<std::uint8_t>(static_cast<std::uint8_t>(w.told + 1), kMostTold);
            say(w, best, strongest, agents.agents, whom, event, ledger, emit);
            w.cut_s = whom.now_s;
            past.restart(whom.now_s);
        }
        w.excursions = {};
        w.shares = {};
        w.scatter.break_off();
        return false;
    }

    void say(const Watch& w, std::size_t k, double nats, std::uint32_t agents, const Whom& whom, const Event& event,
             const Ledger& ledger, Emit& emit) const {
        const Excursion& e = w.excursions[k];
        Facts facts;
        facts.rule = Facts::Rule::behaviour;
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        Anomaly a;
        a.ts = event.ts;
        a.since = event.ts - Nanos{whom.now_s - e.since_s} * kSecond;
        a.family = Family::behavioural;
        a.detector = "behaviour";
        const bool own = w.by == By::agent || w.by == By::agent_tool;
        a.scope = narrowest_scope(w.tenant.view(), own ? whom.agent : std::string_view{}, {}, {});
        a.series = kAbout[w.measure].series;
        const Scale scale = kAbout[w.measure].scale;
        const auto in_unit = [&](double sum) {
            const double mean = sum / e.count;
            if (scale != Scale::ratio) return mean;
            const double bounded = std::clamp(mean, -100.0, 100.0);
            return static_cast<double>(fast_exp2(static_cast<float>(bounded))) * kAbout[w.measure].unit;
        };
        a.value = in_unit(e.observed);
        a.expected = in_unit(e.expected);
        a.direction = side_of(k) == 0 ? Direction::down : Direction::up;
        if (scale == Scale::way) a.direction = Direction::none;
        a.bits = nats / kLn2;
        a.false_alarm_interval_s = interval_s_;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        const std::size_t side = side_of(k);
        for (std::uint32_t n = 1; n <= std::min<std::uint32_t>(w.id_count[side], kKept); ++n) {
            a.evidence.push_back(w.ids[side][(w.id_count[side] - n) % kKept].str());
        }
        a.message = describe(w, e, a, nats, agents);
        emit.say(std::move(a));
    }

    [[nodiscard]] std::string describe(const Watch& w, const Excursion& e, const Anomaly& a, double nats,
                                       std::uint32_t agents) const {
        constexpr const char* kOf[kBys] = {"agent ", "model ", "task type ", "tool ", "tool "};
        const About& about = kAbout[w.measure];
        std::string text = kOf[static_cast<std::size_t>(w.by)] + quoted(w.name.view());
        if (w.by == By::agent_tool) text += " of agent " + quoted(w.agent.view());
        char buffer[224];
        text.append(": ").append(about.what);
        if (about.scale == Scale::way) {
            std::snprintf(buffer, sizeof buffer, " that were unusual are the custom over %u observations", e.count);
        } else if (about.scale == Scale::ratio) {
            std::snprintf(buffer, sizeof buffer, " %.2f times their own past (%.4g against %.4g) over %u observations",
                          a.expected > 0 ? a.value / a.expected : 0.0, a.value, a.expected, e.count);
        } else {
            std::snprintf(buffer, sizeof buffer, " %.3f against %.3f in their own past over %u observations", a.value,
                          a.expected, e.count);
        }
        text += buffer;
        constexpr const char* kViewNames[kBys] = {"the agent itself", "all agents on the model",
                                                  "all agents on the task type", "all agents with the tool",
                                                  "the agent's tool"};
        std::snprintf(buffer, sizeof buffer, "; %.1f nats, carried by the view of %s", nats,
                      kViewNames[static_cast<std::size_t>(w.by)]);
        text += buffer;
        const char* const end = agents < kShares ? " agents)" : " or more agents)";
        if (pooled(w.by)) text.append(" (").append(std::to_string(agents)).append(end);
        if (w.models.explains(e.first)) text += w.models.describe("the model", w.observations, "observations", names_);
        if (w.versions.explains(e.first)) {
            text += w.versions.describe("the agent's version", w.observations, "observations", names_);
        }
        return text;
    }

    double interval_s_, memory_s_, material_doublings_, material_share_;
    std::uint32_t history_;
    events::Slab<Past, 2> pasts_;
    events::Slab<Watch, 2> views_;
    events::MappedArray<Live> live_;
    events::MappedArray<SessionEnd> ends_;
    Names names_;
    std::uint64_t uses_ = 0;
};

void Shifts::save(Writer& writer) const {
    pasts_.save(writer);
    views_.save(writer);
    names_.save(writer);
    writer.pod(uses_);
    std::uint32_t used = 0;
    for (std::size_t i = 0; i < kLiveTasks; ++i) used += live_[i].generation != 0 ? 1U : 0U;
    writer.pod(used);
    for (std::size_t i = 0; i < kLiveTasks; ++i) {
        if (live_[i].generation != 0) writer.pod(live_[i]);
    }
    used = 0;
    for (std::size_t i = 0; i < kSessions; ++i) used += ends_[i].session != 0 ? 1U : 0U;
    writer.pod(used);
    for (std::size_t i = 0; i < kSessions; ++i) {
        if (ends_[i].session != 0) writer.pod(ends_[i]);
    }
}

void Shifts::load(Reader& reader) {
    pasts_.load(reader);
    views_.load(reader);
    for (const std::size_t list : {kKnown, kNew}) {
        for (std::uint32_t i = views_.oldest(list); i != kNone; i = views_.newer(i)) {
            const Watch& w = views_[i];
            if (w.measure >= kMeasures || static_cast<std::size_t>(w.by) >= kBys || w.told > kMostTold) {
                throw CodecError("state: behaviour: no such view");
            }
        }
    }
    names_.load(reader);
    uses_ = reader.pod<std::uint64_t>();
    live_.clear(0, kLiveTasks);
    for (auto n = reader.pod<std::uint32_t>(); n > 0; --n) {
        const auto task = reader.pod<Live>();
        live_[task.task % kLiveTasks] = task;
    }
    ends_.clear(0, kSessions);
    for (auto n = reader.pod<std::uint32_t>(); n > 0; --n) {
        const auto last = reader.pod<SessionEnd>();
        end_of(last.session) = last;
    }
}

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Shifts>(values); }

}  // namespace

extern const AuditorDescriptor behaviour_auditor;
const AuditorDescriptor behaviour_auditor{
    {"behaviour", "success, durations, sizes, tools, feedback, retries, pooled by model, task type and tool",
     "conformal ranks within each agent's past (Vovk et al. 2003) under Page's cumulative sums", kOptions},
    make};

}  // namespace argus::auditors
