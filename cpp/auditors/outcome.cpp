// Drift of outcomes: tasks of one agent begin to fail, to succeed, or to be done in another way (first tool, strategy,
// number of calls). Learned online, without a reference window and without labels beyond each task's own `ok`.
// A stream is (tenant, agent, task type): its type is attrs.task_type, its agent that of the end or of the task. Tasks
// that name no agent belong to their tenant, else to their source. A task counts once, at its end; its calls are
// attrs.tool_calls of the end, else the tool calls seen; its way is its `strategy` and first tool. Tasks without `ok`
// are judged by calls and first tool alone; a cancelled task without `ok` is neither success nor failure.
//   outcome.mix      the averaged evidence of four views passes `mix_ln_bf`: what carried it is named
//   outcome.success  the evidence of success alone, summed over splits, passes `outcome_ln_bf`
// A fall of success that is certain enough is W4; all else, a rise too, is info. What was spoken of starts the stream
// anew; for a while the tasks after the split are still held against those before it, and it is said again once the
// fall is certain enough. A model or version the stream had not used lately, or a `deployment` event, shortly before
// the split is named as a known cause; it hides nothing.
// Method: change_point.hpp.  Cost: bench_events events/outcome; work at a task's end, a counter at a tool call.
// Not promised: a change within the first 40 tasks of a stream, and one that leaves success, calls and tools alike.

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"
#include "auditors/change_point.hpp"
#include "auditors/task_attributes.hpp"
#include "auditors/versions.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::Ledger;

// Two statistics watch each stream: they share the bar of 7 nats, ln 2 more for each.
enum Values : std::size_t { kMixBar, kOutcomeBar, kMaterial, kFollow, kCauseWindow };

constexpr Option kOptions[] = {
    {"mix_ln_bf", "1", 7.7, 3, 1000, "evidence for a change of success, calls and tools, nats, averaged over views"},
    {"outcome_ln_bf", "1", 7.7, 3, 1000, "evidence for a change of success alone, nats, summed over splits"},
    {"material_change", "1", 0.1, 0.01, 0.99, "change of the success rate that matters"},
    {"follow_tasks", "1", 256, 0, 4096, "tasks after the split that are still held against those before it"},
    {"cause_window_s", "s", 3600, 0, 604800, "how long before the split a deployment counts as a known cause"},
};

constexpr std::uint32_t kStreams = 10'000;
constexpr std::size_t kNewcomers = 1;  // streams too young to judge are evicted first
constexpr std::size_t kProven = 0;
constexpr std::uint32_t kProvenTasks = 46;
constexpr std::uint32_t kCellPages = 8192;
constexpr std::size_t kLiveTasks = 32'768;
constexpr std::size_t kEnded = 2048;
constexpr std::size_t kDeployments = 16;
constexpr std::uint32_t kNames = 1024;
constexpr std::uint32_t kFollowEvery = 4;
constexpr double kTasksPerFalseAlarm = 10'000;

// What a running task has shown so far.
struct LiveTask {
    std::uint32_t task = kNone, generation = 0;
    std::uint32_t tool = 0, model = 0, version = 0;  // short hashes of names; 0 = none seen
    std::uint16_t calls = 0;
    bool ended = false;
};

// A change that was spoken of: tasks before the split, and those since.
struct Incident {
    Segment before, after;
    ToolShift tool;
    double ln_bf = 0.0;
    std::uint32_t since_s = 0, to_go = 0, first_task = 0;
    View view = View::success;
    std::uint8_t spoken = 0;  // severity said + 1
    bool mix = false;

    [[nodiscard]] bool knows_success() const noexcept { return before.known > 0 && after.known > 0; }
};

struct Stream {
    std::uint64_t tenant = 0, agent = 0;  // hashes, for rearm(); 0 = unnamed
    std::uint32_t tasks = 0;              // ever seen
    std::uint32_t first_s = 0;
    Versions models, versions;
    Incident incident;
    History history;
};

struct Ended {
    std::uint32_t stream = kNone, generation = 0;
    Success success = Success::unknown;
    InlineText<64> id;
};

struct Deployment {
    std::uint64_t tenant = 0, agent = 0;  // hashes; 0 = unnamed: concerns all
    Nanos at = 0;
    InlineText<64> id;
    InlineText<128> version;
};

[[nodiscard]] bool is_terminal(EventType t) noexcept {
    return t == EventType::task_completed || t == EventType::task_failed || t == EventType::task_cancelled;
}

[[nodiscard]] Success success_of(const Event& event) noexcept {
    if (event.ok >= 0) return event.ok == 1 ? Success::yes : Success::no;
    return event.type == EventType::task_failed ? Success::no : Success::unknown;
}

[[nodiscard]] double share(const Segment& s) noexcept {
    return s.known == 0 ? kNotANumber : static_cast<double>(s.succeeded) / s.known;
}

class Outcomes final : public Auditor {
public:
    explicit Outcomes(std::span<const double> v)
        : mix_bar_(v[kMixBar]), outcome_bar_(v[kOutcomeBar]), material_(v[kMaterial]),
          follow_(static_cast<std::uint32_t>(v[kFollow])), cause_window_(static_cast<Nanos>(v[kCauseWindow] * 1e9)),
          changes_(kCellPages), streams_(kStreams), live_(kLiveTasks), names_(kNames), ended_(kEnded) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (seen.id != events::IdStatus::fresh) return;  // a reused id is a fault of its own: nothing is learned
        if (is_terminal(event.type)) {
            if (seen.task != kNone) end(event, ledger, emit);
            return;
        }
        switch (event.type) {
            case EventType::task_started:
            case EventType::tool_called:
            case EventType::tool_returned:
            case EventType::model_called:
            case EventType::model_returned:
                if (seen.task != kNone) progress(event, ledger);
                return;
            case EventType::deployment: deploy(event, seen.now); return;
            default: return;
        }
    }

    void on_tick(Nanos, Ledger&, Emit&) override {}

    void rearm(const Scope& scope, Ledger&) override {
        const std::uint64_t id = events::hash_text(scope.id);
        for (const std::size_t list : {kProven, kNewcomers}) {
            for (std::uint32_t i = streams_.oldest(list); i != kNone; i = streams_.newer(i)) {
                Stream& s = streams_[i];
                const bool tenant = scope.kind == ScopeKind::tenant && s.tenant == id;
                const bool agent = scope.kind == ScopeKind::agent && s.agent == id;
                if (tenant || agent || scope.kind == ScopeKind::host) s.incident.spoken = 0;
            }
        }
    }

    void save(Writer& writer) const override;
    void load(Reader& reader) override;

private:
    // --- running tasks -------------------------------------------------------------------------------------------

    [[nodiscard]] LiveTask& live(const events::Sighting& seen, const Ledger& ledger) noexcept {
        LiveTask& task = live_[seen.task % kLiveTasks];
        const std::uint32_t generation = ledger.tasks().generation(seen.task);
        if (task.task != seen.task || task.generation != generation) {
            task = LiveTask{};
            task.task = seen.task;
            task.generation = generation;
        }
        return task;
    }

    void progress(const Event& event, const Ledger& ledger) noexcept {
        const events::Sighting& seen = ledger.sighting();
        LiveTask& task = live(seen, ledger);
        if (event.type == EventType::task_started) {
            const LiveTask before = task;
            task = LiveTask{};
            task.task = before.task;
            task.generation = before.generation;
        }
        if (task.ended) return;
        names_.learn(task.model, event.model);
        names_.learn(task.version, event.agent_version);
        const bool returned_alone = event.type == EventType::tool_returned &&
                                    !ledger.sources()[seen.source].shows(EventType::tool_called);
        if (event.type != EventType::tool_called && !returned_alone) return;
        if (task.calls == 0) task.tool = names_.remember(event.tool);
        if (task.calls < 0xffff) ++task.calls;
    }

    void deploy(const Event& event, Nanos now) noexcept {
        Deployment& d = deployments_[deployment_count_++ % kDeployments];
        d.tenant = event.tenant.empty() ? 0 : events::hash_text(event.tenant);
        d.agent = event.agent.empty() ? 0 : events::hash_text(event.agent);
        d.at = now;
        d.id.assign(event.id);
        d.version.assign(event.agent_version.empty() ? event.model : event.agent_version);
    }

    // --- finished tasks ------------------------------------------------------------------------------------------

    void end(const Event& event, Ledger& ledger, Emit& emit) {
        const events::Sighting& seen = ledger.sighting();
        LiveTask& task = live(seen, ledger);
        if (task.ended) return;  // told twice
        task.ended = true;
        const TaskAttributes attributes = read_task_attributes(event.attrs);
        FinishedTask finished;
        finished.success = success_of(event);
        finished.calls = attributes.tool_calls >= 0 ? static_cast<std::uint32_t>(std::min<std::int64_t>(
                                                          attributes.tool_calls, kCallsMax))
                                                    : std::min<std::uint32_t>(task.calls, kCallsMax);
        finished.tool = event.tool.empty() ? task.tool : names_.remember(event.tool);
        if (!event.strategy.empty()) finished.tool ^= names_.remember(event.strategy) << 7U;
        const std::string_view agent = event.agent.empty() ? ledger.tasks()[seen.task].agent.view() : event.agent;
        const std::uint32_t i = stream_of(event, agent, attributes.task_type, seen.now);
        Stream& stream = streams_[i];
        ++stream.tasks;
        stream.models.note(event.model.empty() ? task.model : names_.remember(event.model), stream.tasks);
        stream.versions.note(event.agent_version.empty() ? task.version : names_.remember(event.agent_version),
                             stream.tasks);
        Ended& ended = ended_[ended_count_++ % kEnded];
        ended.stream = i;
        ended.generation = streams_.generation(i);
        ended.success = finished.success;
        ended.id.assign(event.id);
        changes_.learn(stream.history, finished, seconds(seen.now));
        const Named named{event.tenant, agent, attributes.task_type};
        if (stream.incident.to_go > 0) follow(stream, i, finished, named, event, ledger, emit);
        evaluate(stream, i, named, event, ledger, emit);
    }

    struct Named {
        std::string_view tenant, agent, type;
    };

    [[nodiscard]] std::uint32_t stream_of(const Event& event, std::string_view agent, std::string_view type,
                                          Nanos now) noexcept {
        const bool named = !agent.empty() || !event.tenant.empty();
        const std::string_view source = named ? std::string_view{} : event.source;
        const std::uint64_t hash = events::hash_parts(3, event.tenant, agent, type, source);
        std::uint32_t i = streams_.find(hash, [](const Stream&) { return true; });
        if (i == kNone) {
            if (origin_ == 0) origin_ = now;
            i = streams_.create(hash, kNewcomers,
                                [this](std::uint32_t victim) { changes_.restart(streams_[victim].history); });
            streams_[i].tenant = event.tenant.empty() ? 0 : events::hash_text(event.tenant);
            streams_[i].agent = agent.empty() ? 0 : events::hash_text(agent);
            streams_[i].first_s = seconds(now);
        }
        streams_.move(i, streams_[i].tasks < kProvenTasks ? kNewcomers : kProven);
        return i;
    }

    [[nodiscard]] std::uint32_t seconds(Nanos now) const noexcept {
        return static_cast<std::uint32_t>(std::clamp<Nanos>((now - origin_) / kSecond, 0, 0xffffffffLL));
    }

    void evaluate(Stream& stream, std::uint32_t index, const Named& named, const Event& event, const Ledger& ledger,
                  Emit& emit) {
        const Evidence mix = changes_.mix(stream.history);
        const Evidence outcome = changes_.outcome(stream.history);
        const double toll = ChangePoint::length_toll(stream.history);
        const bool by_mix = mix.ln_bf > mix_bar_ + toll;
        if (!by_mix && outcome.ln_bf <= outcome_bar_ + toll) return;
        const Evidence& evidence = by_mix && mix.ln_bf >= outcome.ln_bf ? mix : outcome;
        Incident& incident = stream.incident;
        incident = Incident{};
        const auto parts = changes_.segments(stream.history, evidence.split);
        incident.before = parts[0];
        incident.after = parts[1];
        incident.ln_bf = evidence.ln_bf;
        incident.view = evidence.view;
        incident.mix = &evidence == &mix;
        incident.since_s = changes_.began_s(stream.history, evidence.split);
        incident.first_task = stream.tasks - std::min(stream.tasks, parts[1].tasks);
        incident.to_go = follow_ > parts[1].tasks ? follow_ - parts[1].tasks : 0;
        incident.tool = changes_.largest_tool_shift(stream.history, evidence.split);
        changes_.restart(stream.history);
        judge(stream, index, named, event, ledger, emit);
    }

    // The tasks since the split against those before it, success alone: a fixed split, so that looking often costs no
    // false alarm beyond exp(-ln_bf).
    void follow(Stream& stream, std::uint32_t index, const FinishedTask& task, const Named& named, const Event& event,
                const Ledger& ledger, Emit& emit) {
        Incident& incident = stream.incident;
        --incident.to_go;
        Segment& after = incident.after;
        after.calls += (task.calls - after.calls) / (after.tasks + 1.0);
        ++after.tasks;
        if (task.success == Success::unknown) return;
        ++after.known;
        after.succeeded += task.success == Success::yes ? 1 : 0;
        if (incident.spoken > 1 || share(incident.before) - share(after) < material_) return;
        incident.ln_bf = changes_.success_ln_bf(incident.before, after);
        if (incident.ln_bf < kOptions[kOutcomeBar].min || after.known % kFollowEvery != 0) return;
        incident.view = View::success;
        incident.mix = false;
        judge(stream, index, named, event, ledger, emit);
    }

    void judge(Stream& stream, std::uint32_t index, const Named& named, const Event& event, const Ledger& ledger,
               Emit& emit) {
        Incident& incident = stream.incident;
        Facts facts;
        facts.rule = Facts::Rule::drift;
        facts.ln_bf = incident.ln_bf;
        Comparison compared;
        if (incident.knows_success()) {
            facts.worse = share(incident.after) < share(incident.before);
            compared = changes_.compare(incident.before, incident.after, material_);
            facts.material_chance = compared.chance;
        }
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(verdict.severity) + 1U);
        if (level <= incident.spoken) return;
        incident.spoken = level;
        say(stream, index, named, event, compared, verdict, ledger.sighting().now, emit);
    }

    // --- speaking ------------------------------------------------------------------------------------------------

    void say(const Stream& stream, std::uint32_t index, const Named& named, const Event& event,
             const Comparison& compared, const Verdict& verdict, Nanos now, Emit& emit) const {
        const Incident& incident = stream.incident;
        Anomaly a;
        a.ts = event.ts;
        a.since = origin_ + Nanos{incident.since_s} * kSecond;
        a.family = Family::behavioural;
        a.detector = "outcome";
        a.scope = narrowest_scope(named.tenant, named.agent, {}, {});
        a.series = incident.mix ? "outcome.mix" : "outcome.success";
        if (incident.knows_success()) {
            a.value = share(incident.after);
            a.expected = share(incident.before);
            a.lower = compared.before.lower;
            a.upper = compared.before.upper;
        } else {
            a.value = incident.after.calls;
            a.expected = incident.before.calls;
        }
        a.direction = a.value < a.expected ? Direction::down : a.value > a.expected ? Direction::up : Direction::none;
        a.bits = incident.ln_bf / natural_log(2.0);
        const double lived = static_cast<double>(seconds(now) - std::min(seconds(now), stream.first_s));
        a.false_alarm_interval_s = kTasksPerFalseAlarm * lived / std::max(stream.tasks, 1U);
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        const Deployment* const deployed = deployment_before(stream, incident);
        add_evidence(a, index, incident, deployed);
        a.message = describe(stream, named, compared, deployed);
        emit.say(std::move(a));
    }

    // The newest tasks of the stream; where success fell, its failures first.
    void add_evidence(Anomaly& a, std::uint32_t index, const Incident& incident, const Deployment* deployed) const {
        if (deployed != nullptr) a.evidence.push_back(deployed->id.str());
        const bool fell = a.direction == Direction::down && incident.after.known > 0;
        const std::uint64_t kept = std::min<std::uint64_t>(ended_count_, kEnded);
        for (const bool failures : {true, false}) {
            std::uint32_t looked = 0;
            for (std::uint64_t n = 1; n <= kept && looked < incident.after.tasks && a.evidence.size() < 6; ++n) {
                const Ended& e = ended_[(ended_count_ - n) % kEnded];
                if (e.stream != index || e.generation != streams_.generation(index)) continue;
                ++looked;
                if (!fell || (e.success == Success::no) == failures) a.evidence.push_back(e.id.str());
            }
            if (!fell) return;
        }
    }

    [[nodiscard]] const Deployment* deployment_before(const Stream& stream, const Incident& incident) const noexcept {
        const Nanos since = origin_ + Nanos{incident.since_s} * kSecond;
        const std::uint64_t kept = std::min<std::uint64_t>(deployment_count_, kDeployments);
        for (std::uint64_t n = 1; n <= kept; ++n) {
            const Deployment& d = deployments_[(deployment_count_ - n) % kDeployments];
            const bool tenant = d.tenant == 0 || d.tenant == stream.tenant;
            const bool agent = d.agent == 0 || d.agent == stream.agent;
            if (tenant && agent && d.at >= since - cause_window_) return &d;
        }
        return nullptr;
    }

    [[nodiscard]] std::string known_cause(const Stream& stream, const Deployment* deployed) const {
        std::string text;
        const auto changed = [&](const Versions& v, const char* what) {
            if (v.explains(stream.incident.first_task)) text += v.describe(what, stream.tasks, "tasks", names_);
        };
        changed(stream.models, "the model");
        changed(stream.versions, "the agent's version");
        if (deployed != nullptr) {
            text.append("; known cause: deployment ").append(quoted(deployed->id.view()));
            if (!deployed->version.empty()) text.append(" of ").append(quoted(deployed->version.view()));
        }
        return text;
    }

    [[nodiscard]] std::string describe(const Stream& stream, const Named& named, const Comparison& compared,
                                       const Deployment* deployed) const {
        constexpr const char* kViewNames[] = {"success", "success and calls", "success, first tool and calls",
                                              "success, first tool and exact calls"};
        const Incident& incident = stream.incident;
        char buffer[256];
        std::string text = !named.agent.empty()    ? "agent " + quoted(named.agent)
                           : !named.tenant.empty() ? "tenant " + quoted(named.tenant)
                                                   : "unnamed agents";
        if (!named.type.empty()) text += ", tasks of type " + quoted(named.type);
        if (incident.knows_success()) {
            const auto& [before, after, chance] = compared;
            std::snprintf(buffer, sizeof buffer,
                          ": success went from %.2f (95 %% interval %.2f to %.2f, %u tasks) to %.2f (%.2f to %.2f, %u "
                          "tasks), by %.2f or more with a chance of %.3f",
                          share(incident.before), before.lower, before.upper, incident.before.known,
                          share(incident.after), after.lower, after.upper, incident.after.known, material_, chance);
        } else {
            std::snprintf(buffer, sizeof buffer, ": the way of working changed between %u tasks and the last %u",
                          incident.before.tasks, incident.after.tasks);
        }
        text += buffer;
        if (incident.mix && incident.view != View::success) {
            std::snprintf(buffer, sizeof buffer, ", calls a task from %.1f to %.1f, tasks that begin with tool ",
                          incident.before.calls, incident.after.calls);
            text.append(buffer).append(names_.by_low_bits(incident.tool.tool));
            std::snprintf(buffer, sizeof buffer, " from %.0f %% to %.0f %%", 100 * incident.tool.before,
                          100 * incident.tool.after);
            text += buffer;
        }
        std::snprintf(buffer, sizeof buffer, "; ln Bayes factor %.1f, carried by ", incident.ln_bf);
        text.append(buffer).append(kViewNames[static_cast<std::size_t>(incident.view)]);
        return text.append(known_cause(stream, deployed));
    }

    double mix_bar_, outcome_bar_, material_;
    std::uint32_t follow_;
    Nanos cause_window_;
    Nanos origin_ = 0;  // of the seconds kept in streams
    ChangePoint changes_;
    events::Slab<Stream, 2> streams_;
    events::MappedArray<LiveTask> live_;
    Names names_;
    events::MappedArray<Ended> ended_;
    std::uint64_t ended_count_ = 0;
    std::array<Deployment, kDeployments> deployments_{};
    std::uint64_t deployment_count_ = 0;
};

void Outcomes::save(Writer& writer) const {
    writer.pod(origin_);
    streams_.save(writer);
    for (const std::size_t list : {kProven, kNewcomers}) {
        for (std::uint32_t i = streams_.oldest(list); i != kNone; i = streams_.newer(i)) {
            changes_.save(streams_[i].history, writer);
        }
    }
    names_.save(writer);
    std::uint32_t live = 0;
    for (std::size_t i = 0; i < kLiveTasks; ++i) live += live_[i].generation != 0 ? 1U : 0U;
    writer.pod(live);
    for (std::size_t i = 0; i < kLiveTasks; ++i) {
        if (live_[i].generation != 0) writer.pod(live_[i]);
    }
    writer.pod(ended_count_);
    for (std::size_t i = 0; i < std::min<std::uint64_t>(ended_count_, kEnded); ++i) writer.pod(ended_[i]);
    writer.pod(deployments_);
    writer.pod(deployment_count_);
}

void Outcomes::load(Reader& reader) {
    origin_ = reader.pod<Nanos>();
    streams_.load(reader);
    changes_.forget_all_pages();
    for (const std::size_t list : {kProven, kNewcomers}) {
        for (std::uint32_t i = streams_.oldest(list); i != kNone; i = streams_.newer(i)) {
            changes_.load(streams_[i].history, reader);
            if (static_cast<std::size_t>(streams_[i].incident.view) >= kViews) {
                throw CodecError("state: outcome: no such view of a task");
            }
        }
    }
    names_.load(reader);
    live_.clear(0, kLiveTasks);
    for (auto n = reader.pod<std::uint32_t>(); n > 0; --n) {
        const auto task = reader.pod<LiveTask>();
        live_[task.task % kLiveTasks] = task;
    }
    ended_count_ = reader.pod<std::uint64_t>();
    for (std::size_t i = 0; i < std::min<std::uint64_t>(ended_count_, kEnded); ++i) ended_[i] = reader.pod<Ended>();
    deployments_ = reader.pod<std::array<Deployment, kDeployments>>();
    deployment_count_ = reader.pod<std::uint64_t>();
}

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Outcomes>(values); }

}  // namespace

extern const AuditorDescriptor outcome_auditor;
const AuditorDescriptor outcome_auditor{
    {"outcome", "drift of success, calls and first tools of tasks, per agent, tenant and task type, with known causes",
     "two-segment Dirichlet-multinomial Bayes factor averaged over four views of a task, restarted at each alarm",
     kOptions},
    make};

}  // namespace argus::auditors
