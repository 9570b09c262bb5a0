#include <doctest/doctest.h>

#include "engine/stops.hpp"

using namespace argus;
using argus::engine::StopKind;
using argus::engine::StopPolicy;

namespace {

Anomaly anomaly(Severity severity, Family family = Family::economic) {
    Anomaly a;
    a.id = "0123456789abcdef";
    a.ts = 42;
    a.family = family;
    a.severity = severity;
    a.criterion = "C1";
    a.message = "why";
    a.scope = Scope{ScopeKind::task, "t", "acme", "coder", "s", "t"};
    return a;
}

}  // namespace

TEST_CASE("stops: an info anomaly and a host statistic ask for nothing") {
    StopPolicy policy(true);
    CHECK_FALSE(policy.decide(anomaly(Severity::info)).has_value());
    CHECK_FALSE(policy.decide(anomaly(Severity::critical, Family::host)).has_value());
}

TEST_CASE("stops: critical asks for hard_kill, warning for write_lockdown, each once until released") {
    StopPolicy policy(true);
    const auto kill = policy.decide(anomaly(Severity::critical));
    REQUIRE(kill.has_value());
    CHECK(kill->kind == StopKind::hard_kill);
    CHECK(kill->scope.kind == ScopeKind::session);
    CHECK(kill->scope.id == "s");
    CHECK(kill->ts == 42);
    CHECK_FALSE(policy.decide(anomaly(Severity::critical)).has_value());
    const auto lock = policy.decide(anomaly(Severity::warning));
    REQUIRE(lock.has_value());
    CHECK(lock->kind == StopKind::write_lockdown);
    policy.release(StopKind::hard_kill, ScopeKind::session, "s");
    CHECK(policy.decide(anomaly(Severity::critical)).has_value());
}

TEST_CASE("stops: the host is released under any name") {
    StopPolicy policy(false);
    REQUIRE(policy.decide(anomaly(Severity::critical)).has_value());
    policy.release(StopKind::hard_kill, ScopeKind::host, "some-host");
    CHECK(policy.decide(anomaly(Severity::critical)).has_value());
}

TEST_CASE("stops: the narrowest guarded scope is used, else the next one up, else the host") {
    StopPolicy policy(false);
    const Scope task = anomaly(Severity::critical).scope;
    CHECK(policy.resolve(task).kind == ScopeKind::host);
    policy.set_guarded({{ScopeKind::tenant, "acme"}});
    CHECK(policy.resolve(task).kind == ScopeKind::tenant);
    policy.set_guarded({{ScopeKind::tenant, "acme"}, {ScopeKind::agent, "coder"}});
    CHECK(policy.resolve(task).id == "coder");
    policy.set_guarded({{ScopeKind::agent, "coder"}, {ScopeKind::task, "t"}, {ScopeKind::session, "s"}});
    CHECK(policy.resolve(task).kind == ScopeKind::task);
    policy.set_guarded({{ScopeKind::session, "other"}});
    CHECK(policy.resolve(task).kind == ScopeKind::host);
}

TEST_CASE("stops: a stop never narrows below the scope it was asked for") {
    StopPolicy policy(false);
    policy.set_guarded({{ScopeKind::session, "s"}});
    const Scope agent{ScopeKind::agent, "coder", "acme", "coder", "s", "t"};
    CHECK(policy.resolve(agent).kind == ScopeKind::host);
}
