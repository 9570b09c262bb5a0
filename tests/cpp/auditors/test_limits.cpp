// Caps in other units than money, driven through the event plane on event time.
#include <doctest/doctest.h>

#include <map>

#include "../events/stream.hpp"
#include "auditors/auditor.hpp"

using namespace argus;
using namespace argus::test;

namespace argus::auditors {
extern const AuditorDescriptor limits_auditor;
}

namespace {

engine::EventPlaneOptions limited(const std::map<std::string, double>& caps) {
    engine::EventPlaneOptions options;
    std::vector<double> values;
    std::size_t known = 0;
    for (const Option& option : auditors::limits_auditor.leaf.options) {
        const auto given = caps.find(option.name);
        values.push_back(given == caps.end() ? option.value : given->second);
        known += given == caps.end() ? 0 : 1;
    }
    REQUIRE(known == caps.size());
    options.auditors = {{&auditors::limits_auditor, values}};
    return options;
}

struct Work : Stream {
    explicit Work(const std::map<std::string, double>& caps) : Stream(limited(caps)) {}

    using Stream::of;
    EventMap of(std::string_view type, double at, std::string_view session = "se", std::string_view tenant = "t") {
        return event(type, at).str("tenant", tenant).str("session", session).str("agent", "a");
    }
    void model(double at, std::int64_t tokens, std::string_view type = "token_cost_logged",
               std::string_view session = "se", std::string_view tenant = "t") {
        send(of(type, at, session, tenant).num("input_tokens", tokens - 10).num("output_tokens", 10));
    }
    void fact(std::string_view session, double cpu_s, double at) {
        auditors::Activity activity;
        activity.session = session;
        activity.cpu_s = cpu_s;
        plane.testify(activity, kEpoch + static_cast<Nanos>(at * 1e9), said);
    }
};

}  // namespace

TEST_CASE("limits: tokens warn at the share and stop at the cap, once each, and name what was largest") {
    Work w({{"session_tokens", 1000}});
    w.model(1, 500);
    w.model(2, 299);
    CHECK(w.said.empty());
    w.model(3, 20);
    REQUIRE(w.said.size() == 1);
    CHECK(w.said[0].series == "limits.tokens");
    CHECK(w.said[0].criterion == "W1");
    CHECK(w.said[0].value == 819);
    CHECK(w.said[0].upper == 1000);
    CHECK(w.said[0].evidence == std::vector<std::string>{"s-3", "s-1", "s-2"});
    w.model(4, 180);
    CHECK(w.said.size() == 1);
    w.model(5, 10);
    w.model(6, 10);
    REQUIRE(w.said.size() == 2);
    CHECK(w.said[1].criterion == "C1");
    CHECK(w.said[1].severity == Severity::critical);
    CHECK(w.said[1].scope.kind == ScopeKind::session);
    CHECK(w.said[1].scope.id == "se");
    CHECK(w.said[1].scope.agent == "a");
    CHECK(w.said[1].message == "session 'se': 1009 tokens against a cap of 1000");
}

TEST_CASE("limits: one call told by log, settlement and return counts once, whatever the order") {
    Work w({{"session_tokens", 1000}, {"session_model_calls", 10}});
    for (int i = 0; i < 9; ++i) {
        for (const char* type : {"model_called", "model_returned", "token_cost_logged"}) w.model(i, 100, type);
    }
    CHECK(w.count("limits.tokens") == 1);  // 900: the warning
    CHECK(w.count("limits.model_calls") == 1);
    w.model(20, 100, "model_returned");
    CHECK(w.of("limits.tokens").back().criterion == "C1");
    CHECK(w.of("limits.model_calls").back().criterion == "C1");
}

TEST_CASE("limits: what sessions use adds up to agent, tenant and host; tenants of one session's name stay apart") {
    Work w({{"agent_tokens", 1000}, {"tenant_tokens", 1000}, {"host_tokens", 2000}});
    for (int i = 0; i < 10; ++i) w.model(i, 100, i % 2 == 0 ? "token_cost_logged" : "model_returned",
                                         "s" + std::to_string(i));
    const auto kinds = [&](Severity severity) {
        std::vector<ScopeKind> out;
        for (const Anomaly& a : w.said) {
            if (a.severity == severity) out.push_back(a.scope.kind);
        }
        return out;
    };
    CHECK(kinds(Severity::critical) == std::vector<ScopeKind>{ScopeKind::agent, ScopeKind::tenant});
    w.model(11, 700, "token_cost_logged", "s1", "other");
    CHECK(kinds(Severity::critical).size() == 2);
    w.model(12, 300, "token_cost_logged", "s1", "other");
    CHECK(kinds(Severity::critical).size() == 5);  // the other's agent and tenant, and the host
}

TEST_CASE("limits: tool calls, retransmissions left out") {
    Work w({{"session_tool_calls", 5}});
    for (int i = 0; i < 4; ++i) {
        const EventMap call = w.of("tool_called", i).str("tool", "search");
        w.send(call);
        w.send(call);
    }
    CHECK(w.count("limits.tool_calls") == 1);
    CHECK(w.said[0].criterion == "W1");
    w.send(w.of("tool_called", 9).str("tool", "search"));
    CHECK(w.said.back().criterion == "C1");
}

TEST_CASE("limits: wall time runs from event to event and on while a session hangs, but not through the night") {
    Work w({{"session_wall_s", 3000}, {"silence_s", 600}});
    w.model(1, 100);
    w.model(30'000, 100);  // a night: 600 s
    w.model(31'000, 100);
    CHECK(w.said.empty());  // 1,200 s
    w.model(31'500, 100);
    w.model(32'000, 100);
    w.tick(32'150);
    CHECK(w.said.empty());  // 2,350 s
    w.tick(32'250);
    REQUIRE(w.said.size() == 1);
    CHECK(w.said[0].series == "limits.wall_time");
    CHECK(w.said[0].criterion == "W1");
    w.tick(90'000);  // taken to be gone: 2,800 s
    CHECK(w.said.size() == 1);
    w.model(90'001, 100);
    w.tick(90'202);
    CHECK(w.said.back().criterion == "C1");
}

TEST_CASE("limits: CPU seconds are those of the session's processes, its agent's and the host's with them") {
    Work w({{"session_cpu_s", 100}, {"agent_cpu_s", 150}, {"host_cpu_s", 400}});
    w.model(1, 100);
    w.model(1, 100, "token_cost_logged", "two");
    w.fact("se", 60, 10);
    w.fact("two", 59, 11);
    CHECK(w.said.empty());
    w.fact("se", 100, 12);
    REQUIRE(w.said.size() == 2);  // the session's cap; 159 of the agent's 150
    CHECK(w.said[0].series == "limits.cpu_time");
    CHECK(w.said[0].scope.kind == ScopeKind::session);
    CHECK(w.said[0].criterion == "C1");
    CHECK(w.said[1].scope.kind == ScopeKind::agent);
    CHECK(w.said[1].criterion == "C1");
    w.fact("se", 5, 20);  // registered anew: counted from nothing
    w.fact("silent", 200, 21);
    CHECK(w.said.back().scope.kind == ScopeKind::host);
    const auto told = w.of("limits.cpu_time");
    CHECK(std::count_if(told.begin(), told.end(), [](const Anomaly& a) { return a.scope.id == "silent"; }) == 1);
}

TEST_CASE("limits: after a reset a cap that still stands stops again") {
    Work w({{"session_tokens", 100}});
    w.model(1, 200);
    w.model(2, 10);
    REQUIRE(w.said.size() == 1);
    Scope scope;
    scope.kind = ScopeKind::session;
    scope.id = "se";
    w.plane.rearm(scope);
    w.model(3, 10);
    CHECK(w.said.size() == 2);
}

TEST_CASE("limits: without a cap nothing is counted, and hostile amounts stay finite") {
    Work none({});
    none.model(1, 1'000'000);
    CHECK(none.said.empty());
    Work w({{"session_tokens", 1000}, {"host_tokens", 8e15}});
    for (int i = 0; i < 40; ++i) {
        w.send(w.of("token_cost_logged", i).num("input_tokens", std::numeric_limits<std::int64_t>::max()));
    }
    for (const Anomaly& a : w.said) CHECK(a.value <= 9e15);
    CHECK(w.of("limits.tokens").size() == 2);
    for (int i = 0; i < 40'000; ++i) w.model(50, 100, "token_cost_logged", "many" + std::to_string(i));
    CHECK(w.of("limits.tokens").size() == 2);
}

TEST_CASE("limits: state goes on where it was saved; nothing is said twice") {
    const std::map<std::string, double> caps{{"session_tokens", 1000}, {"session_wall_s", 50}};
    Work first(caps), second(caps);
    for (int i = 0; i < 5; ++i) first.model(i, 100);
    Writer writer(1, 1);
    first.plane.save(writer);
    const auto state = writer.finish();
    Reader reader(state, 1, 1);
    second.plane.load(reader);
    second.resume(first);
    for (Work* w : {&first, &second}) {
        w->model(30, 400);
        w->tick(60);
    }
    REQUIRE(first.said.size() == second.said.size());
    REQUIRE(first.said.size() == 2);  // tokens near the cap, wall time beyond it
    for (std::size_t i = 0; i < first.said.size(); ++i) CHECK(first.said[i].message == second.said[i].message);
}
