// Absolute caps in other units than money: tokens, model calls, tool calls, wall time and CPU seconds, of every
// session, agent and tenant, and of the host. 0 = no cap. "limits.<unit>" when a cap is reached, or the share of it
// that W1 names (criteria C1 and W1). Said once as it rises; after a person's reset again, if it still stands.
//
// tokens, calls  Logs, settlements and returns may all tell the same call: each kind is summed by itself in the
//                narrowest scope that the event names, and the kind that tells most counts. What a scope gains, the
//                wider ones gain. Cached input counts on top of input, an upper bound: providers differ.
// wall time      From event to event, at most `silence_s` of each gap: a session that sleeps is not charged the night,
//                and one that hangs is charged until it is taken to be gone.
// CPU seconds    Of the processes of a registered session, as the host shows them; a replay has none.
// Deterministic: no statistics.  Cost: bench_events events/limits; nothing without a cap, 0.6 kB a scope with one.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"

namespace argus::auditors {
namespace {

using events::InlineText;
using events::kNone;
using events::Ledger;

enum Unit : std::size_t { kTokens, kModelCalls, kToolCalls, kWall, kCpu };
constexpr std::size_t kUnits = 5;
constexpr std::array<const char*, kUnits> kNames{"tokens", "model_calls", "tool_calls", "wall_s", "cpu_s"};
constexpr std::array<const char*, kUnits> kWords{"tokens", "model calls", "tool calls", "s of wall time", "s of CPU"};
constexpr std::array<const char*, kUnits> kSeries{"limits.tokens", "limits.model_calls", "limits.tool_calls",
                                                  "limits.wall_time", "limits.cpu_time"};
constexpr std::array<ScopeKind, 4> kKinds{ScopeKind::session, ScopeKind::agent, ScopeKind::tenant, ScopeKind::host};
constexpr double kMost = 9e15;  // doubles count exactly up to here
constexpr std::uint32_t kScopes = 16'384;
constexpr std::size_t kLargest = 3;

#define ARGUS_LIMITS_OF(kind, of)                                                                                  \
    {kind "_tokens", "1", 0, 0, kMost, "cap of tokens of " of "; 0 = none"},                                       \
        {kind "_model_calls", "1", 0, 0, kMost, "cap of model calls of " of "; 0 = none"},                         \
        {kind "_tool_calls", "1", 0, 0, kMost, "cap of tool calls of " of "; 0 = none"},                           \
        {kind "_wall_s", "s", 0, 0, 1e9, "cap of the time that " of " is at work; 0 = none"},                      \
        {kind "_cpu_s", "s", 0, 0, 1e9, "cap of CPU time of the registered processes of " of "; 0 = none"}

constexpr Option kOptions[] = {
    ARGUS_LIMITS_OF("session", "a session"),
    ARGUS_LIMITS_OF("agent", "an agent"),
    ARGUS_LIMITS_OF("tenant", "a tenant"),
    ARGUS_LIMITS_OF("host", "the host"),
    {"silence_s", "s", 900, 1, 86'400, "of a gap between two events at most so much counts as wall time"},
};
#undef ARGUS_LIMITS_OF
constexpr std::size_t kSilence = kKinds.size() * kUnits;
static_assert(std::size(kOptions) == kSilence + 1);

struct Largest {  // of the events that told tokens
    double tokens = 0;
    InlineText<64> id;
};

struct Usage {
    ScopeKind kind = ScopeKind::host;
    InlineText<64> tenant;
    InlineText<128> id, agent;
    std::array<double, kUnits> used{};
    std::array<std::uint8_t, kUnits> spoken{};  // highest severity said + 1
    std::array<double, 3> tokens_told{};        // by logs, settlements, returns; of the narrowest scope alone
    std::array<double, 4> calls_told{};         // and calls
    double cpu_seen = 0;                        // of the session's processes, as last told
    Nanos first = 0, last = 0;
    std::array<Largest, kLargest> largest{};
    InlineText<64> last_id;
};

// Which account of a model call an event is; kNone = none.
[[nodiscard]] std::uint32_t teller(EventType type) noexcept {
    switch (type) {
        case EventType::token_cost_logged: return 0;
        case EventType::budget_settled: return 1;
        case EventType::model_returned: return 2;
        case EventType::model_called: return 3;
        default: return kNone;
    }
}

[[nodiscard]] double tokens_of(const Event& event) noexcept {
    double sum = 0;
    for (const std::int64_t count :
         {event.input_tokens, event.output_tokens, event.cache_read_tokens, event.cache_write_tokens}) {
        if (count > 0) sum += std::min(static_cast<double>(count), kMost);
    }
    return sum;
}

class Limits final : public Auditor {
public:
    explicit Limits(std::span<const double> v)
        : silence_(static_cast<Nanos>(v[kSilence] * 1e9)), scopes_(any(v) ? kScopes : 1) {
        for (std::size_t k = 0; k < kKinds.size(); ++k) {
            for (std::size_t u = 0; u < kUnits; ++u) caps_[k][u] = v[k * kUnits + u];
        }
        any_ = any(v);
        for (const auto& of_kind : caps_) {
            walls_ = walls_ || of_kind[kWall] > 0;
            cpus_ = cpus_ || of_kind[kCpu] > 0;
        }
    }

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        if (!any_ || ledger.sighting().id != events::IdStatus::fresh) return;
        const Nanos now = ledger.sighting().now;
        const Path path = open(event.tenant, event.agent, event.session);
        std::array<double, kUnits> gained{};
        Usage& narrow = scopes_[path[0]];
        const std::uint32_t kind = teller(event.type);
        const double tokens = kind < narrow.tokens_told.size() ? tokens_of(event) : 0;
        if (kind != kNone) tell(narrow, kind, tokens, gained);
        if (event.type == EventType::tool_called) gained[kToolCalls] = 1;
        for (const std::uint32_t i : path) {
            if (i == kNone) continue;
            Usage& usage = scopes_[i];
            gained[kWall] = usage.last > 0 ? worked(usage, now) : 0;
            if (usage.first == 0) usage.first = event.ts;
            usage.last = std::max(usage.last, now);
            usage.last_id.assign(event.id);
            if (gained[kTokens] > 0) remember(usage, tokens, event.id);
            for (std::size_t u = 0; u < kUnits; ++u) usage.used[u] = std::min(usage.used[u] + gained[u], kMost);
            for (std::size_t u = 0; u < kUnits; ++u) check(usage, u, usage.used[u], event.ts, ledger, emit, now);
        }
    }

    // Those heard of last come first: behind the first that is taken to be gone, all are.
    void on_tick(Nanos now, Ledger& ledger, Emit& emit) override {
        if (!walls_) return;
        for (std::uint32_t i = scopes_.newest(); i != kNone; i = scopes_.older(i)) {
            Usage& usage = scopes_[i];
            if (usage.last > 0 && now - usage.last > silence_ + kSecond * 60) break;
            check(usage, kWall, usage.used[kWall] + worked(usage, now), now, ledger, emit, now);
        }
    }

    void on_fact(const HostFact& fact, Nanos now, Ledger& ledger, Emit& emit) override {
        const auto* activity = std::get_if<Activity>(&fact);
        if (!cpus_ || activity == nullptr || !(activity->cpu_s >= 0)) return;
        const std::uint32_t at = session_named(activity->session);
        Path path{at, kNone, kNone, kNone};
        if (at == kNone) {
            path = open({}, {}, activity->session);
        } else {
            const InlineText<64> tenant = scopes_[at].tenant;
            const InlineText<128> agent = scopes_[at].agent;
            path = open(tenant.view(), agent.view(), activity->session);
        }
        Usage& session = scopes_[path[0]];
        const double gained = activity->cpu_s - (activity->cpu_s < session.cpu_seen ? 0 : session.cpu_seen);
        session.cpu_seen = activity->cpu_s;
        for (const std::uint32_t i : path) {
            if (i == kNone) continue;
            Usage& usage = scopes_[i];
            if (usage.first == 0) usage.first = now;
            usage.used[kCpu] = std::min(usage.used[kCpu] + gained, kMost);
            check(usage, kCpu, usage.used[kCpu], now, ledger, emit, now);
        }
    }

    void rearm(const Scope& scope, Ledger&) override {
        for (std::uint32_t i = scopes_.newest(); i != kNone; i = scopes_.older(i)) {
            Usage& usage = scopes_[i];
            const bool same = usage.kind == scope.kind && usage.id == std::string_view(scope.id);
            if (same || scope.kind == ScopeKind::host) usage.spoken.fill(0);
        }
    }

    void save(Writer& writer) const override {
        if (any_) scopes_.save(writer);
    }
    void load(Reader& reader) override {
        if (!any_) return;
        scopes_.load(reader);
        for (std::uint32_t i = scopes_.newest(); i != kNone; i = scopes_.older(i)) {
            const Usage& usage = scopes_[i];
            const bool known = std::find(kKinds.begin(), kKinds.end(), usage.kind) != kKinds.end();
            const bool counts = std::all_of(usage.used.begin(), usage.used.end(),
                                            [](double used) { return used >= 0 && used <= kMost; });
            if (!known || !counts) throw CodecError("state: limits: an account that cannot be");
        }
    }

private:
    using Path = std::array<std::uint32_t, kKinds.size()>;  // narrowest first, then the wider ones; kNone = not named

    [[nodiscard]] static bool any(std::span<const double> v) noexcept {
        return std::any_of(v.begin(), v.begin() + kSilence, [](double cap) { return cap > 0; });
    }

    [[nodiscard]] static std::size_t kind_index(ScopeKind kind) noexcept {
        return static_cast<std::size_t>(std::find(kKinds.begin(), kKinds.end(), kind) - kKinds.begin());
    }

    Path open(std::string_view tenant, std::string_view agent, std::string_view session) noexcept {
        Path path{kNone, kNone, kNone, kNone};
        std::size_t count = 0;
        const std::array<std::string_view, 4> names{session, agent, tenant, {}};
        for (std::size_t k = 0; k < kKinds.size(); ++k) {
            if (names[k].empty() && kKinds[k] != ScopeKind::host) continue;
            path[count++] = scope(kKinds[k], kKinds[k] == ScopeKind::host ? std::string_view{} : tenant, names[k]);
        }
        if (!session.empty() && !agent.empty()) scopes_[path[0]].agent.assign(agent);
        return path;
    }

    [[nodiscard]] std::uint32_t scope(ScopeKind kind, std::string_view tenant, std::string_view id) noexcept {
        const std::uint64_t hash = events::scope_hash(kind, tenant, id);
        std::uint32_t i = scopes_.find(hash, [&](const Usage& u) {
            return u.kind == kind && u.id == id && u.tenant == tenant;
        });
        if (i == kNone) {
            i = scopes_.create(hash, 0, [](std::uint32_t) {});
            Usage& usage = scopes_[i];
            usage.kind = kind;
            usage.tenant.assign(tenant);
            usage.id.assign(id);
        }
        scopes_.touch(i);
        return i;
    }

    [[nodiscard]] std::uint32_t session_named(std::string_view name) const noexcept {
        for (std::uint32_t i = scopes_.newest(); i != kNone; i = scopes_.older(i)) {
            if (scopes_[i].kind == ScopeKind::session && scopes_[i].id.view() == name) return i;
        }
        return kNone;
    }

    static void tell(Usage& narrow, std::uint32_t kind, double tokens, std::array<double, kUnits>& gained) noexcept {
        const auto most = [](const auto& told) { return *std::max_element(told.begin(), told.end()); };
        const double calls = most(narrow.calls_told);
        const double before = most(narrow.tokens_told);
        narrow.calls_told[kind] += 1;
        if (kind < narrow.tokens_told.size()) narrow.tokens_told[kind] += tokens;
        gained[kModelCalls] = most(narrow.calls_told) - calls;
        gained[kTokens] = most(narrow.tokens_told) - before;
    }

    static void remember(Usage& usage, double tokens, std::string_view id) noexcept {
        auto* const least = std::min_element(usage.largest.begin(), usage.largest.end(),
                                             [](const Largest& a, const Largest& b) { return a.tokens < b.tokens; });
        if (tokens <= least->tokens) return;
        least->tokens = tokens;
        least->id.assign(id);
    }

    // Seconds since the last event, of which the silence counts for no more.
    [[nodiscard]] double worked(const Usage& usage, Nanos now) const noexcept {
        if (usage.last == 0 || now <= usage.last) return 0;
        return static_cast<double>(std::min(now - usage.last, silence_)) * 1e-9;
    }

    void check(Usage& usage, std::size_t unit, double used, Nanos ts, const Ledger& ledger, Emit& emit, Nanos now) {
        const double cap = caps_[kind_index(usage.kind)][unit];
        if (cap <= 0 || used <= 0) return;
        Facts facts;
        facts.rule = Facts::Rule::limit;
        facts.used = used;
        facts.limit = cap;
        const Verdict verdict = emit.judge(facts, ledger, now);
        if (verdict.severity == Severity::info) return;
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(verdict.severity) + 1U);
        if (level <= usage.spoken[unit]) return;
        usage.spoken[unit] = level;
        say(usage, unit, facts, verdict, ts, emit);
    }

    static void say(const Usage& usage, std::size_t unit, const Facts& facts, const Verdict& verdict, Nanos ts,
                    Emit& emit) {
        Anomaly a;
        a.ts = ts;
        a.since = std::min(usage.first, ts);
        a.family = Family::economic;
        a.detector = "limits";
        a.series = kSeries[unit];
        a.scope.kind = usage.kind;
        a.scope.id = usage.id.str();
        a.scope.tenant = usage.tenant.str();
        if (usage.kind == ScopeKind::session) {
            a.scope.session = usage.id.str();
            a.scope.agent = usage.agent.str();
        }
        if (usage.kind == ScopeKind::agent) a.scope.agent = usage.id.str();
        a.value = facts.used;
        a.upper = facts.limit;
        a.bits = kDeterministicBits;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        if (!usage.last_id.empty()) a.evidence.push_back(usage.last_id.str());
        for (const Largest& each : usage.largest) {
            if (unit == kTokens && each.tokens > 0 && each.id.view() != usage.last_id.view()) {
                a.evidence.push_back(each.id.str());
            }
        }
        if (a.evidence.empty()) a.evidence.push_back(a.series);
        char text[160];
        std::snprintf(text, sizeof text, "%.15g %s against a cap of %.15g", std::floor(facts.used), kWords[unit],
                      facts.limit);
        a.message = std::string(to_string(usage.kind)) + " '" + usage.id.str() + "': " + text;
        emit.say(std::move(a));
    }

    std::array<std::array<double, kUnits>, kKinds.size()> caps_{};
    bool any_ = false, walls_ = false, cpus_ = false;
    Nanos silence_;
    events::Slab<Usage> scopes_;
};

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Limits>(values); }

}  // namespace

extern const AuditorDescriptor limits_auditor;
const AuditorDescriptor limits_auditor{
    {"limits", "absolute caps on tokens, calls, wall time and CPU seconds per session, agent, tenant and host",
     "exact counters", kOptions},
    make};

}  // namespace argus::auditors
