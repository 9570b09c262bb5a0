// Constraints of the configuration, driven through the event plane on event time. What each template means is tested
// against whole traces in tests/python/engine/test_constraints.py; here is what surrounds it.
#include <doctest/doctest.h>

#include "../events/stream.hpp"
#include "auditors/constraints.hpp"

using namespace argus;
using namespace argus::test;
using auditors::Constraint;
using auditors::Template;

namespace {

Constraint row(Template kind, std::vector<std::string> activation, std::vector<std::string> target = {}) {
    Constraint c;
    c.name = "r";
    c.kind = kind;
    c.activation.events = std::move(activation);
    c.target.events = std::move(target);
    return c;
}

engine::EventPlaneOptions with(std::vector<Constraint> rows) {
    engine::EventPlaneOptions options;
    options.constraints = std::move(rows);
    return options;
}

void act(Stream& s, double at, std::string_view task, std::string_view tool = "x", std::string_view source = "s") {
    s.send(s.event("tool_called", at, source).str("task", task).str("session", "session").str("tool", tool));
}

void rate(Stream& s, double at, std::string_view task, std::string_view source = "s") {
    s.send(s.event("user_feedback", at, source).str("task", task).str("session", "session"));
}

}  // namespace

TEST_CASE("constraints: an answer exactly at the deadline is in time, one just after is not") {
    Constraint c = row(Template::response, {"tool_called"}, {"user_feedback"});
    c.deadline = 10 * kSecond;
    for (const double delay : {10.0, 10.001}) {
        Stream s(with({c}));
        act(s, 1, "t");
        rate(s, 1 + delay, "t");
        s.finish(1000);
        CHECK(s.count("causal.r") == (delay > 10 ? 1 : 0));
    }
    Stream s(with({c}));
    act(s, 1, "t");
    s.tick(10.9);
    CHECK(s.said.empty());
    s.tick(11.1);
    REQUIRE(s.count("causal.r") == 1);
    CHECK(s.said[0].evidence == std::vector<std::string>{"s-1"});
    CHECK(s.said[0].criterion == "W5");
    CHECK(s.said[0].scope.task == "t");
}

TEST_CASE("constraints: a condition on a field tells events of one type apart") {
    Constraint c = row(Template::precedence, {"tool_called"}, {"tool_called"});
    c.activation.conditions = {{"tool", "deploy"}};
    c.target.conditions = {{"tool", "review"}};
    Stream s(with({c}));
    act(s, 1, "good", "review");
    act(s, 2, "good", "deploy");
    act(s, 3, "bad", "build");
    act(s, 4, "bad", "deploy");
    REQUIRE(s.count("causal.r") == 1);
    CHECK(s.said[0].scope.task == "bad");
    CHECK(s.said[0].message.find("tool=deploy") != std::string::npos);
}

TEST_CASE("constraints: severity is what the row asks for, critical by C5, info by none") {
    Constraint c = row(Template::absence, {"policy_violation"});
    const Severity asked[] = {Severity::info, Severity::warning, Severity::critical};
    const std::string criteria[] = {"", "W5", "C5"};
    for (std::size_t i = 0; i < 3; ++i) {
        c.severity = asked[i];
        Stream s(with({c}));
        s.task("policy_violation", 1, "t");
        REQUIRE(s.count("causal.r") == 1);
        CHECK(s.said[0].severity == asked[i]);
        CHECK(s.said[0].criterion == criteria[i]);
    }
}

TEST_CASE("constraints: an event that a lossy source may have lost does not kill, one that was seen does") {
    Constraint missing = row(Template::precedence, {"tool_called"}, {"user_feedback"});
    missing.severity = Severity::critical;
    Stream s(with({missing}));
    act(s, 1, "a");
    CHECK(s.said.back().criterion == "C5");
    Stream lossy(with({missing}));
    rate(lossy, 1, "a");
    lossy.skip_seq("s", 3);
    act(lossy, 2, "b");
    REQUIRE(lossy.count("causal.r") == 1);
    CHECK(lossy.of("causal.r")[0].severity == Severity::info);
    Constraint seen = row(Template::absence, {"tool_called"});
    seen.severity = Severity::critical;
    Stream other(with({seen}));
    rate(other, 1, "a");
    other.skip_seq("s", 3);
    act(other, 2, "b");
    CHECK(other.of("causal.r")[0].criterion == "C5");
}

TEST_CASE("constraints: what a source first seen in mid-stream did before is not missing") {
    Stream s(with({row(Template::precedence, {"tool_called"}, {"user_feedback"}), [] {
                       Constraint c = row(Template::init, {"user_feedback"});
                       c.name = "first";
                       return c;
                   }()}));
    s.skip_seq("s", 500);
    act(s, 1, "old");
    CHECK(s.said.empty());
    s.task("task_started", 2, "new");
    act(s, 3, "new");
    CHECK(s.count("causal.r") == 1);
    CHECK(s.count("causal.first") == 1);
}

TEST_CASE("constraints: a scope that was evicted and comes back is not judged on what was forgotten") {
    Stream s(with({row(Template::precedence, {"tool_called"}, {"user_feedback"})}));
    rate(s, 1, "first");
    for (int i = 0; i < 33'000; ++i) rate(s, 2 + i * 0.001, "t" + std::to_string(i));
    act(s, 40, "first");
    CHECK(s.count("causal.r") == 0);
    act(s, 41, "another");
    CHECK(s.count("causal.r") == 1);
}

TEST_CASE("constraints: a violated row is said again after an hour, or when a person cleared the stop") {
    Stream s(with({row(Template::absence, {"tool_called"})}));
    for (int i = 0; i < 20; ++i) act(s, 1 + i, "t");
    CHECK(s.count("causal.r") == 1);
    Scope scope;
    scope.kind = ScopeKind::session;
    scope.id = "session";
    s.plane.rearm(scope);
    act(s, 30, "t");
    CHECK(s.count("causal.r") == 2);
    act(s, 4000, "t");
    CHECK(s.count("causal.r") == 3);
}

TEST_CASE("constraints: a built-in row is replaced or removed by its name") {
    Constraint off = row(Template::absence, {});
    off.name = "duplicate_terminal";
    off.enabled = false;
    Stream s(with({off}));
    s.task("task_started", 1, "t");
    s.task("task_completed", 2, "t");
    s.task("task_completed", 3, "t");
    CHECK(s.said.empty());
    Constraint thrice = row(Template::absence, {"task_completed"});
    thrice.name = "duplicate_terminal";
    thrice.times = 3;
    Stream other(with({thrice}));
    other.task("task_started", 1, "t");
    for (int i = 2; i < 5; ++i) other.task("task_completed", i, "t");
    REQUIRE(other.count("causal.duplicate_terminal") == 1);
    CHECK(other.said[0].value == 3);
}

TEST_CASE("constraints: sessions and agents are scopes of their own") {
    Constraint c = row(Template::absence, {"tool_called"});
    c.times = 3;
    c.scope = ScopeKind::session;
    Stream s(with({c}));
    act(s, 1, "a");
    act(s, 2, "b");
    CHECK(s.said.empty());
    act(s, 3, "c");
    REQUIRE(s.count("causal.r") == 1);
    CHECK(s.said[0].scope.kind == ScopeKind::session);
    CHECK(s.said[0].scope.id == "session");
    CHECK(s.said[0].scope.task.empty());
}

TEST_CASE("constraints: rows that make no sense are refused, and state of other rows") {
    CHECK_THROWS_AS(Stream(with({row(Template::response, {"tool_called"})})), std::invalid_argument);
    CHECK_THROWS_AS(Stream(with({row(Template::absence, {})})), std::invalid_argument);
    std::vector<Constraint> many;
    for (int i = 0; i < 29; ++i) {
        many.push_back(row(Template::absence, {"tool_called"}));
        many.back().name = "r" + std::to_string(i);
    }
    CHECK_THROWS_AS(Stream(with(many)), std::invalid_argument);
    Stream s(with({row(Template::absence, {"tool_called"})}));
    Stream other;
    Writer writer(1, 1);
    s.plane.save(writer);
    const std::vector<std::byte> state = writer.finish();
    Reader reader(state, 1, 1);
    CHECK_THROWS_AS(other.plane.load(reader), CodecError);
}
