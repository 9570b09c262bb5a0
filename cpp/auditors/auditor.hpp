// The contract of an auditor: it reads each event once, right after the ledger booked it (ledger.sighting() says what
// was special about it), and deadlines on the tick. It states Facts to be judged by the criteria above it, and speaks
// only when it has something new to say; the views of an Event die with the call. Only an Anomaly allocates.
// A leaf is one `.cpp` with one AuditorDescriptor; option values travel in the order of its descriptor.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "auditors/host_facts.hpp"
#include "base/clock.hpp"
#include "base/codec.hpp"
#include "events/ledger.hpp"
#include "model/anomaly.hpp"
#include "model/event.hpp"
#include "model/option.hpp"

namespace argus::auditors {

// What a deterministic rule found, in the terms the criteria are written in.
struct Facts {
    enum class Rule : std::uint8_t {
        order, loss, loop, budget, cost, forecast, drift, sequence, hijack, progress, behaviour, claim,
        limit,
    };
    Rule rule = Rule::order;
    // order: the source that broke the order
    bool lossless = false;
    std::uint32_t source = events::kNone;
    Severity asked = Severity::warning;  // the highest that the rule asks for
    bool seen = false;                   // an event that must not be was seen: loss cannot explain it
    // loop, progress
    int period = 0;
    std::uint64_t repeats = 0;      // whole cycles, the first counted; of progress, steps without anything new
    double duration_s = 0.0;
    std::int64_t metered_nusd = 0;  // loop, progress: spend since it began; budget: metered + reserved
    std::int64_t upper_nusd = 0;    // the same with unknown cost at its upper bound
    std::int64_t cap_nusd = 0;      // of the session (loop) or of the account (budget); 0 = none
    bool strict = false;            // budget: unknown cost counts towards the cap
    // cost; `repeats` = turns of the loop, or calls at that price
    enum class Cost : std::uint8_t { price, loop, statistic };
    Cost cost = Cost::statistic;
    double strength = 0.0;          // price: multiple of the usual one; else: multiple of the detector's own bar
    double spend_ratio = 0.0;       // statistic: spend of its window over usual spend
    double excess_nusd = 0.0;       // spend beyond usual; of a loop, all
    double excess_s = 0.0;          // the same in seconds of the payer's usual spend; 0 while that is not known
    // forecast
    double exhaust_probability = 0.0;
    // drift: of the success of tasks
    double ln_bf = 0.0;             // evidence that the law of tasks changed, nats
    double material_chance = 0.0;   // that the success rate moved by a material amount
    bool worse = false;
    // hijack
    double chance = 1.0;            // share of the agent's own tasks that hold anything as unlike their request
    // claim; `repeats` = claims of the session that the host refuted
    bool ended = false;             // success was claimed, the process failed: its session is over
    // limit: in the unit of the cap
    double used = 0.0;
    double limit = 0.0;
};

struct Verdict {
    Severity severity = Severity::info;
    const char* criterion = "";  // empty = no criterion holds
};

class Emit {
public:
    virtual ~Emit() = default;
    [[nodiscard]] virtual Verdict judge(const Facts& facts, const events::Ledger& ledger, Nanos now) const = 0;
    virtual void say(Anomaly&& anomaly) = 0;
    // Has a file looked at; the answer comes as a HostFact. False = nobody looks here, or not now.
    [[nodiscard]] virtual bool ask(const FileQuestion&) { return false; }
};

struct Constraint;

class Auditor {
public:
    virtual ~Auditor() = default;
    // Before the first event: constraints of the configuration. Throws std::invalid_argument.
    virtual void constrain(const std::vector<Constraint>&) {}
    virtual void on_event(const Event& event, events::Ledger& ledger, Emit& emit) = 0;
    virtual void on_tick(Nanos now, events::Ledger& ledger, Emit& emit) = 0;
    // No more events will come: what waits for others is judged on what is known.
    virtual void finish(Nanos, events::Ledger&, Emit&) {}
    // A person cleared a stop of `scope`: what stands there is said again when it goes on.
    virtual void rearm(const Scope&, events::Ledger&) {}
    // What the host shows; views in it die with the call.
    virtual void on_fact(const HostFact&, Nanos, events::Ledger&, Emit&) {}
    virtual void report(ClaimReport&) const {}
    virtual void save(Writer& writer) const = 0;
    virtual void load(Reader& reader) = 0;
};

struct AuditorDescriptor {
    Leaf leaf;
    std::unique_ptr<Auditor> (*make)(std::span<const double> option_values);
};

// The narrowest scope the names tell: task, session, agent, tenant, else the host.
[[nodiscard]] inline Scope narrowest_scope(std::string_view tenant, std::string_view agent, std::string_view session,
                                           std::string_view task) {
    Scope scope;
    scope.tenant = tenant;
    scope.agent = agent;
    scope.session = session;
    scope.task = task;
    scope.kind = !task.empty()      ? ScopeKind::task
                 : !session.empty() ? ScopeKind::session
                 : !agent.empty()   ? ScopeKind::agent
                 : !tenant.empty()  ? ScopeKind::tenant
                                    : ScopeKind::host;
    const std::string_view names[] = {{}, tenant, agent, session, task};
    scope.id = names[static_cast<std::size_t>(scope.kind)];
    return scope;
}

[[nodiscard]] inline double usd(std::int64_t nusd) noexcept { return static_cast<double>(nusd) * 1e-9; }

}  // namespace argus::auditors
