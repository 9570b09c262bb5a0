// The causal auditor, driven through the event plane on event time.
#include <doctest/doctest.h>

#include "../events/stream.hpp"

using namespace argus;
using namespace argus::test;

namespace {

void known_source(Stream& s, std::string_view name = "s") {  // shows starts and ends
    const std::string task = name == "s" ? "warm-up" : "warm-up of " + std::string(name);
    s.task("task_started", 0, task, name);
    s.task("task_completed", 0.5, task, name);
}

void act(Stream& s, double at, std::string_view task) {
    s.send(s.event("tool_called", at).str("task", task).str("session", "session").str("tool", "x"));
}

}  // namespace

TEST_CASE("causal: an orderly task says nothing") {
    Stream s;
    known_source(s);
    s.task("task_started", 1, "t");
    s.send(s.event("tool_called", 2).str("task", "t").str("tool", "x"));
    s.task("task_failed", 3, "t");
    s.finish(10'000);
    CHECK(s.said.empty());
}

TEST_CASE("causal: a gap is info and names the event after it") {
    Stream s;
    known_source(s);
    s.skip_seq("s", 4);
    s.task("task_started", 1, "t");
    REQUIRE(s.count("causal.seq_gap") == 1);
    const Anomaly a = s.of("causal.seq_gap")[0];
    CHECK(a.severity == Severity::info);
    CHECK(a.value == 4);
    CHECK(a.evidence == std::vector<std::string>{"s-3"});
    CHECK(a.scope.task == "t");
    CHECK(a.scope.kind == ScopeKind::task);
    CHECK(a.family == Family::causal);
}

TEST_CASE("causal: completed without started, only of a source that reports starts") {
    Stream s;
    known_source(s);
    s.task("task_completed", 1, "never-started");
    REQUIRE(s.count("causal.completed_without_started") == 1);
    CHECK(s.said[0].severity == Severity::warning);
    CHECK(s.said[0].criterion == "W5");
    CHECK(s.said[0].scope.session == "session");
    CHECK(s.said[0].scope.agent == "agent");
    Stream silent;
    silent.task("task_completed", 1, "a");
    silent.task("task_failed", 2, "b");
    CHECK(silent.said.empty());
}

TEST_CASE("causal: a second end, and an action after the end, are said once a task") {
    Stream s;
    known_source(s);
    s.task("task_completed", 1, "warm-up");
    s.task("task_failed", 1.1, "warm-up");
    for (int i = 0; i < 3; ++i) act(s, 2, "warm-up");
    CHECK(s.count("causal.duplicate_terminal") == 1);
    CHECK(s.count("causal.event_after_terminal") == 1);
    CHECK(s.said.size() == 2);
}

TEST_CASE("causal: late cost, evaluation and feedback are no actions, and a new start opens the task again") {
    Stream s;
    known_source(s);
    const auto after = [&](const char* type) {
        return s.event(type, 1).str("task", "warm-up").str("session", "session");
    };
    s.send(after("token_cost_logged").num("cost_nusd", 1));
    s.send(after("eval_logged"));
    s.send(after("user_feedback"));
    s.task("task_started", 2, "warm-up");
    s.send(s.event("tool_called", 3).str("task", "warm-up").str("session", "session").str("tool", "x"));
    s.task("task_completed", 4, "warm-up");
    CHECK(s.said.empty());
}

TEST_CASE("causal: an action that its ts places before the end, within the clock tolerance, was only late") {
    Stream s;
    known_source(s);
    s.task("task_started", 1, "t");
    s.task("task_completed", 10, "t");
    act(s, 8, "t");
    CHECK(s.said.empty());
    act(s, 10.001, "t");
    CHECK(s.count("causal.event_after_terminal") == 1);
}

TEST_CASE("causal: a started task silent for 600 s lacks its end; the deadline counts from its last event") {
    Stream s;
    known_source(s);
    s.task("task_started", 1, "t");
    s.send(s.event("model_called", 500).str("task", "t").str("session", "session"));
    s.tick(1099.9);
    CHECK(s.said.empty());
    s.tick(1100);
    REQUIRE(s.count("causal.missing_terminal") == 1);
    CHECK(s.said[0].scope.task == "t");
    CHECK(s.said[0].since == kEpoch + 500 * kSecond);
    s.tick(5000);
    CHECK(s.said.size() == 1);
    Stream no_ends;
    no_ends.task("task_started", 1, "t");
    no_ends.tick(5000);
    CHECK(no_ends.said.empty());
}

TEST_CASE("causal: the clock may fall back by 2 s, not by more, and a step is said once") {
    Stream s;
    s.send(s.event("heartbeat", 10));
    s.send(s.event("heartbeat", 8));
    CHECK(s.said.empty());
    s.send(s.event("heartbeat", 7.9));
    CHECK(s.count("causal.clock_backwards") == 1);
    s.send(s.event("heartbeat", 8));
    s.send(s.event("heartbeat", 8.5));
    CHECK(s.said.size() == 1);
}

TEST_CASE("causal: a reused id is a fault, a retransmission is not") {
    Stream s;
    const EventMap first = s.event("heartbeat", 1);
    s.send(first);
    s.send(first);
    CHECK(s.said.empty());
    EventMap other = first;
    s.send(other.num("ts", kEpoch + kSecond + 1));
    REQUIRE(s.count("causal.duplicate_id") == 1);
    CHECK(s.said.size() == 1);
    CHECK(s.plane.totals().retransmissions == 1);
}

TEST_CASE("causal: an unknown parent has two seconds to arrive") {
    Stream s;
    s.send(s.event("tool_called", 1).str("tool", "x").str("parent", "later").str("task", "t"));
    s.send(s.event("tool_called", 1).str("tool", "x").str("parent", "never").str("task", "t"));
    s.task("task_started", 2.5, "later");
    s.tick(2.9);
    CHECK(s.said.empty());
    s.tick(4);
    REQUIRE(s.count("causal.orphan_parent") == 1);
    CHECK(s.said[0].evidence[0] == "s-2");
    CHECK(s.said[0].scope.task == "t");
    Stream end;
    end.send(end.event("heartbeat", 1).str("parent", "never"));
    end.finish(1);
    CHECK(end.count("causal.orphan_parent") == 1);
}

TEST_CASE("causal: a write in a locked scope is a fault until the lock is cleared") {
    Stream s;
    const auto write = [&](double at, std::string_view agent) {
        s.send(s.event("file_written", at).str("path", "p").str("agent", agent));
    };
    write(1, "a");
    s.send(s.event("lockdown_set", 2).str("agent", "a"));
    write(3, "a");
    write(3, "b");
    s.send(s.event("lockdown_cleared", 4).str("agent", "a"));
    write(5, "a");
    REQUIRE(s.count("causal.write_after_lockdown") == 1);
    CHECK(s.said[0].evidence[0] == "s-3");
    CHECK(s.said[0].scope.agent == "a");
    s.send(s.event("lockdown_set", 6));
    write(7, "b");
    CHECK(s.count("causal.write_after_lockdown") == 2);
}

TEST_CASE("causal: with several sources a task is judged in ts order behind two seconds") {
    Stream s;
    known_source(s, "a");
    known_source(s, "b");
    s.task("task_started", 10, "t", "a");
    s.task("task_completed", 12, "t", "a");
    s.send(s.event("tool_called", 11, "b").str("task", "t").str("session", "session").str("tool", "x"));
    s.tick(20);
    CHECK(s.said.empty());
    s.task("task_started", 31, "u", "a");
    s.task("task_completed", 32, "u", "b");
    s.send(s.event("tool_called", 33, "a").str("task", "u").str("session", "session").str("tool", "x"));
    s.tick(34);
    CHECK(s.said.empty());  // still waiting for what may come
    s.tick(36);
    REQUIRE(s.count("causal.event_after_terminal") == 1);
}

TEST_CASE("causal: an event older than all that was released is judged at once, without blame for its lateness") {
    Stream s;
    known_source(s, "a");
    known_source(s, "b");
    s.task("task_started", 10, "t", "a");
    s.task("task_completed", 12, "t", "a");
    s.task("task_started", 20, "other", "a");
    s.send(s.event("tool_called", 11.5, "b").str("task", "t").str("session", "session").str("tool", "x"));
    s.finish(30);
    CHECK(s.count("causal.event_after_terminal") == 0);
}

TEST_CASE("causal: a source first seen in mid-stream is not judged on what came before") {
    Stream s;
    s.skip_seq("s", 1000);
    s.task("task_started", 0, "new");
    s.task("task_completed", 1, "old");
    s.send(s.event("heartbeat", 2).str("parent", "older"));
    s.tick(100);
    CHECK(s.said.empty());
    s.task("task_completed", 700, "old too");
    CHECK(s.count("causal.completed_without_started") == 1);
}

TEST_CASE("causal: a lossy source needs three faults in ten minutes") {
    Stream s;
    known_source(s);
    s.skip_seq("s", 1);
    s.task("task_completed", 1, "a");
    s.task("task_completed", 2, "b");
    s.task("task_completed", 3, "c");
    const auto faults = s.of("causal.completed_without_started");
    REQUIRE(faults.size() == 3);
    CHECK(faults[0].severity == Severity::info);
    CHECK(faults[1].severity == Severity::info);
    CHECK(faults[2].severity == Severity::warning);
    s.task("task_completed", 1000, "d");
    CHECK(s.of("causal.completed_without_started").back().severity == Severity::info);
}
