// The learned order of tasks, driven through the event plane on event time.
#include <doctest/doctest.h>

#include "../allocations.hpp"
#include "../events/stream.hpp"
#include "base/codec.hpp"

using namespace argus;
using namespace argus::test;

namespace argus::auditors {
extern const AuditorDescriptor sequence_auditor;
}  // namespace argus::auditors

namespace {

using Steps = std::vector<std::string>;

engine::EventPlaneOptions alone(std::uint32_t tasks = 4096) {
    engine::EventPlaneOptions options;
    options.auditors = {{&auditors::sequence_auditor, {}}};
    options.ledger.tasks = tasks;
    options.ledger.id_window_log2 = 12;
    return options;
}

// Tasks one after the other, a second each; `at` is the clock.
struct Workflow : Stream {
    explicit Workflow(engine::EventPlaneOptions options = alone()) : Stream(std::move(options)) {}

    EventMap of_task(std::string_view type, std::string_view task) {
        EventMap e = event(type, at, source);
        e.str("task", task).str("session", session.empty() ? std::string(task) : session);
        if (!agent.empty()) e.str("agent", agent);
        at += 0.01;
        return e;
    }
    void step(const std::string& task, const std::string& tool) {
        send(of_task("tool_called", task).str("tool", tool));
    }
    std::string start() {
        const std::string task = "task-" + std::to_string(++tasks);
        send(of_task("task_started", task));
        return task;
    }
    // How often it was spoken of.
    std::size_t run(const Steps& steps, std::string_view end = "task_completed") {
        const std::size_t before = said.size();
        const std::string task = start();
        for (const std::string& tool : steps) step(task, tool);
        send(of_task(end, task));
        at += 1;
        return said.size() - before;
    }
    // The usual ways of a deployment: with or without a retry of the tests.
    void learn(int count) {
        for (int i = 0; i < count; ++i) run(i % 3 == 0 ? retried() : usual());
    }
    static Steps usual() { return {"fetch", "build", "test", "deploy", "report"}; }
    static Steps retried() { return {"fetch", "build", "test", "test", "deploy", "report"}; }

    double at = 0;
    int tasks = 0;
    std::string agent = "deployer", session, source = "s";
};

std::vector<std::byte> saved(const engine::EventPlane& plane) {
    Writer writer(1, 1);
    plane.save(writer);
    return writer.finish();
}

}  // namespace

TEST_CASE("sequence: nothing is said before 300 tasks of a kind were scored, whatever happens") {
    Workflow s;
    s.learn(340);
    CHECK(s.run({"fetch", "delete_all"}) == 0);
    CHECK(s.run({}) == 0);
    CHECK(s.said.empty());
}

TEST_CASE("sequence: an unseen step is said at once, once, with what was expected there") {
    Workflow s;
    s.learn(400);
    const std::string task = s.start();
    s.step(task, "fetch");
    s.step(task, "build");
    REQUIRE(s.said.empty());
    s.step(task, "delete_all");
    REQUIRE(s.said.size() == 1);
    const Anomaly& a = s.said[0];
    CHECK(a.series == "sequence.unseen_step");
    CHECK(a.family == Family::behavioural);
    CHECK(a.severity == Severity::info);
    CHECK(a.criterion.empty());
    CHECK(a.scope.kind == ScopeKind::task);
    CHECK(a.scope.id == task);
    CHECK(a.scope.agent == "deployer");
    CHECK(a.value == 1);
    CHECK(a.expected == 0);
    CHECK(a.bits > 6);
    CHECK(a.false_alarm_interval_s > 60);
    CHECK(a.evidence.size() == 1);
    CHECK(a.message == "step 'tool_called delete_all' was taken by none of the last 400 completed tasks of its kind: "
                       "after 'tool_called fetch', 'tool_called build' came 'tool_called delete_all', in 0 of 400 "
                       "cases; 'tool_called test' came in 400");
    s.step(task, "delete_all");
    s.send(s.of_task("task_completed", task));
    CHECK(s.said.size() == 1);
}

TEST_CASE("sequence: a missing step and a repeated one are found by counts, the repeated one while the task runs") {
    Workflow s;
    s.learn(400);
    CHECK(s.run({"fetch", "build", "deploy", "report"}) == 1);
    CHECK(s.said.back().series == "sequence.counts");
    CHECK(s.said.back().value == doctest::Approx(1.0 / 9.0));
    CHECK(s.said.back().upper == doctest::Approx(0.06));
    CHECK(s.said.back().message.find("'tool_called test' came 0 times, there 1") != std::string::npos);
    CHECK(s.said.back().evidence.size() == 2);
    const std::string task = s.start();
    for (const char* tool : {"fetch", "build", "build"}) s.step(task, tool);
    REQUIRE(s.said.size() == 2);
    CHECK(s.said.back().series == "sequence.impossible_count");
    CHECK(s.said.back().value == 2);
    CHECK(s.said.back().upper == 1);
    s.send(s.of_task("task_completed", task));
    CHECK(s.said.size() == 2);
}

TEST_CASE("sequence: counts a little off are spoken of only when the order is surprising too") {
    Workflow s;
    const auto steps = [](int reads, bool swapped) {
        Steps all(1, "open");
        for (int i = 0; i < reads; ++i) all.emplace_back("read");
        all.insert(all.end(), {swapped ? "close" : "check", swapped ? "check" : "close"});
        return all;
    };
    for (int i = 0; i < 600; ++i) s.run(steps(30 + i % 3, false));
    CHECK(s.said.empty());
    CHECK(s.run(steps(33, false)) == 0);  // near and unsurprising: learned
    CHECK(s.run(steps(30, true)) == 0);   // surprising, and its counts are known
    CHECK(s.run(steps(34, true)) == 1);
    CHECK(s.said.back().series == "sequence.order");
    CHECK(s.said.back().message.find("after 'tool_called read', 'tool_called read' came 'tool_called close'") !=
          std::string::npos);
}

TEST_CASE("sequence: tasks of free order are never spoken of") {
    Workflow s;
    std::uint64_t state = 7;
    const auto draw = [&](std::uint64_t n) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        return (state >> 33U) % n;
    };
    for (int i = 0; i < 3000; ++i) {
        Steps steps;
        for (std::uint64_t n = 1 + draw(12); n > 0; --n) steps.push_back("tool" + std::to_string(draw(12)));
        s.run(steps, draw(3) == 0 ? "task_failed" : "task_completed");
    }
    CHECK(s.count("sequence.counts") + s.count("sequence.order") + s.count("sequence.impossible_count") == 0);
    CHECK(s.said.empty());
}

TEST_CASE("sequence: a task that failed is not judged by its end and teaches nothing") {
    Workflow s;
    s.learn(400);
    for (int i = 0; i < 100; ++i) CHECK(s.run({"fetch", "build"}, i % 2 == 0 ? "task_failed" : "task_cancelled") == 0);
    CHECK(s.run({"fetch", "build"}) == 1);
    CHECK(s.run(Workflow::usual()) == 0);
}

TEST_CASE("sequence: what was flagged teaches nothing, however often it comes within a day") {
    Workflow s;
    s.learn(400);
    for (int i = 0; i < 200; ++i) {
        CHECK(s.run({"fetch", "build", "deploy", "report"}) == 1);
        CHECK(s.run(Workflow::usual()) == 0);
    }
    for (int i = 0; i < 200; ++i) CHECK(s.run({"fetch", "skip", "deploy", "report"}) == 1);
}

TEST_CASE("sequence: a new order is accepted after 20 sightings over a day, in sessions of their own") {
    const Steps fresh = {"fetch", "build", "deploy", "report"};
    Workflow s;
    s.learn(400);
    for (int i = 0; i < 20; ++i) CHECK(s.run(fresh) == 1);
    s.at += 86'400;
    CHECK(s.run(fresh) == 1);  // the 21st, a day later, is said and accepted
    CHECK(s.run(fresh) == 0);
    Workflow one;
    one.learn(400);
    one.session = "same";
    for (int i = 0; i < 30; ++i) CHECK(one.run(fresh) == 1);
    one.at += 86'400;
    for (int i = 0; i < 30; ++i) CHECK(one.run(fresh) == 1);
}

TEST_CASE("sequence: three sightings that a steady rare order would leave are enough, sudden ones are not") {
    const Steps rare = {"fetch", "build", "test", "rollback"};
    Workflow s;
    s.learn(400);
    CHECK(s.run(rare) == 1);
    s.learn(400);
    CHECK(s.run(rare) == 1);
    CHECK(s.run(rare) == 1);  // (400 / 800)^3 >= 5 %: it could always have been rare
    CHECK(s.run(rare) == 0);
    Workflow sudden;
    sudden.learn(400);
    for (int i = 0; i < 12; ++i) {
        CHECK(sudden.run(rare) == 1);
        sudden.learn(20);
    }
}

TEST_CASE("sequence: a kind that departs from its orders for a day is said so once, and learned anew in silence") {
    Workflow s;
    s.learn(400);
    for (int i = 0; i < 400; ++i) CHECK(s.run({"fetch", "new" + std::to_string(i)}) == 1);
    s.at += 86'400;
    const std::size_t before = s.said.size();
    s.run({"fetch", "another"});
    REQUIRE(s.said.size() == before + 2);
    CHECK(s.said.back().series == "sequence.untrusted");
    CHECK(s.said.back().scope.kind == ScopeKind::agent);
    for (int i = 0; i < 200; ++i) CHECK(s.run({"fetch", "newer" + std::to_string(i)}) == 0);
    CHECK(s.count("sequence.untrusted") == 1);
}

TEST_CASE("sequence: kinds are told apart by tenant and agent, and a task without its start is not judged") {
    Workflow s;
    s.learn(400);
    s.agent = "other";
    CHECK(s.run({"something", "else"}) == 0);
    s.agent = "deployer";
    s.step("never-started", "delete_all");
    s.send(s.of_task("task_completed", "never-started"));
    CHECK(s.said.empty());
    CHECK(s.run({"something", "else"}) == 1);
}

TEST_CASE("sequence: money, people and evaluations are no steps; unknown types are") {
    Workflow s;
    s.learn(400);
    const std::string task = s.start();
    for (const char* type : {"user_message", "heartbeat", "policy_violation"}) s.send(s.of_task(type, task));
    s.send(s.of_task("token_cost_logged", task).num("cost_nusd", 5));
    CHECK(s.said.empty());
    s.send(s.of_task("memory_compacted", task));
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].message.find("'memory_compacted'") != std::string::npos);
}

TEST_CASE("sequence: a flood of names neither grows the tables nor speaks, and trusted kinds survive it") {
    Workflow s(alone(32'768));
    s.learn(400);
    for (int i = 0; i < 3000; ++i) {
        s.agent = "agent" + std::to_string(i);
        const std::string task = s.start();
        for (int n = 0; n < 70; ++n) s.step(task, std::to_string(i) + "-" + std::to_string(n));
        if (i % 2 == 0) s.send(s.of_task("task_completed", task));
    }
    CHECK(s.said.empty());
    s.agent = "deployer";
    CHECK(s.run(Workflow::retried()) == 0);
    CHECK(s.run({"fetch", "build", "deploy", "report"}) == 1);
}

TEST_CASE("sequence: a long task is one anomaly, and counts saturate") {
    Workflow s;
    s.learn(400);
    CHECK(s.run(Steps(70'000, "test")) == 1);
    CHECK(s.said.back().series == "sequence.impossible_count");
}

TEST_CASE("sequence: no event allocates while nothing is said") {
    Workflow s;
    s.learn(400);
    std::vector<std::string> frames;
    for (int i = 0; i < 50; ++i) {
        const std::string task = "quiet-" + std::to_string(i);
        frames.push_back(s.of_task("task_started", task).pack());
        for (const std::string& tool : Workflow::usual()) {
            frames.push_back(s.of_task("tool_called", task).str("tool", tool).pack());
        }
        frames.push_back(s.of_task("task_completed", task).pack());
    }
    std::vector<Anomaly> said;
    const std::uint64_t before = allocations();
    for (const std::string& frame : frames) (void)s.plane.ingest(bytes_of(frame), 0, true, engine::kEventTime, said);
    CHECK(allocations() == before);
    CHECK(said.empty());
}

TEST_CASE("sequence: a cleared stop lets a departed task be said again, and it still teaches nothing") {
    Workflow s;
    s.learn(400);
    const std::string task = s.start();
    s.step(task, "delete_all");
    REQUIRE(s.said.size() == 1);
    Scope scope;
    scope.kind = ScopeKind::task;
    scope.id = "another";
    s.plane.rearm(scope);
    s.step(task, "delete_all");
    CHECK(s.said.size() == 1);
    scope.id = task;
    s.plane.rearm(scope);
    s.step(task, "delete_all");
    CHECK(s.said.size() == 2);
    s.plane.rearm(scope);
    s.send(s.of_task("task_completed", task));
    CHECK(s.said.size() == 3);
    CHECK(s.run({"delete_all", "delete_all", "delete_all"}) == 1);
}

TEST_CASE("sequence: saved in mid-task and loaded elsewhere it says the same from there on") {
    Workflow one;
    one.learn(400);
    const std::string task = one.start();
    one.step(task, "fetch");
    const std::vector<std::byte> state = saved(one.plane);
    Workflow two;
    two.learn(0);
    Reader reader(state, 1, 1);
    two.plane.load(reader);
    CHECK(reader.done());
    CHECK(saved(two.plane) == state);
    const auto go_on = [&](Workflow& s) {
        std::vector<Anomaly> said;
        const auto send = [&](const EventMap& e) {
            (void)s.plane.ingest(bytes_of(e.pack()), 0, true, engine::kEventTime, said);
        };
        Workflow maker;  // the same bytes for both
        maker.at = one.at;
        maker.source = "later";
        for (const char* tool : {"test", "drop"}) send(maker.of_task("tool_called", task).str("tool", tool));
        for (int i = 0; i < 60; ++i) {
            const std::string next = "next-" + std::to_string(i);
            send(maker.of_task("task_started", next));
            for (const std::string& tool : i % 7 == 0 ? Steps{"fetch", "deploy"} : Workflow::usual()) {
                send(maker.of_task("tool_called", next).str("tool", tool));
            }
            send(maker.of_task("task_completed", next));
        }
        return said;
    };
    const auto a = go_on(one);
    const auto b = go_on(two);
    REQUIRE(a.size() == b.size());
    CHECK(a.size() >= 9);
    for (std::size_t i = 0; i < a.size(); ++i) {
        CHECK(a[i].id == b[i].id);
        CHECK(a[i].message == b[i].message);
        CHECK(a[i].bits == b[i].bits);
    }
    CHECK(saved(one.plane) == saved(two.plane));
}

TEST_CASE("sequence: damaged state is refused") {
    const auto auditor = [] {
        std::vector<double> values;
        for (const Option& option : auditors::sequence_auditor.leaf.options) values.push_back(option.value);
        return auditors::sequence_auditor.make(values);
    };
    Writer whole(1, 1);
    auditor()->save(whole);
    std::vector<std::byte> bytes = whole.finish();
    Writer again(1, 1);  // the same tables with an n-gram beyond them
    for (std::size_t i = 8; i + 8 < bytes.size(); ++i) again.pod(bytes[i]);
    again.pod(std::uint32_t{1});
    again.pod(std::uint32_t{0xffffffffU});
    for (int i = 0; i < 16; ++i) again.pod(std::byte{1});
    const std::vector<std::byte> damaged = again.finish();
    Reader reader(damaged, 1, 1);
    CHECK_THROWS_AS(auditor()->load(reader), CodecError);
}
