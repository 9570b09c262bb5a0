// The auditor of spend without progress, driven through the event plane on event time.
#include <doctest/doctest.h>

#include "../events/stream.hpp"

using namespace argus;
using namespace argus::test;

namespace {

// Agents of one host; each step is a model's turn with its cost and a tool's result.
struct Work : Stream {
    explicit Work(std::int64_t cost = 10'000'000) : cost_nusd(cost) {}

    std::int64_t cost_nusd;
    double now = 0;
    int unique = 0;

    EventMap of(std::string_view type, std::string_view session, std::string_view agent = "coder") {
        return event(type, now += 1).str("tenant", "acme").str("session", session).str("agent", agent);
    }
    void turn(std::string_view session, std::string_view agent = "coder") {
        send(of("token_cost_logged", session, agent).num("cost_nusd", cost_nusd));
    }
    void tool(std::string_view session, std::string_view name, std::string_view args, std::string_view result,
              std::string_view agent = "coder") {
        send(of("tool_called", session, agent).str("tool", name).str("args_hash", args).str("result_hash", result));
    }
    std::string fresh() { return "n" + std::to_string(++unique); }

    // Sessions that get somewhere: a turn, sometimes two, and a new result of a tool that tells something.
    void teach(int sessions = 12) {
        for (int s = 0; s < sessions; ++s) {
            const std::string session = "teach-" + fresh();
            for (int i = 0; i < 10; ++i) {
                turn(session);
                if (i % 3 == 0) turn(session);
                tool(session, "search", fresh(), fresh());
                tool(session, "send", fresh(), "done");
            }
        }
    }
    [[nodiscard]] std::vector<Anomaly> told() const {
        std::vector<Anomaly> out;
        std::copy_if(said.begin(), said.end(), std::back_inserter(out),
                     [](const Anomaly& a) { return a.detector == std::string("progress"); });
        return out;
    }
};

}  // namespace

TEST_CASE("progress: arguments that only differ, one result: told once as a repeat, W3 once it has cost enough") {
    Work w;
    w.teach();
    REQUIRE(w.told().empty());
    w.tool("stuck", "search", "first", "nothing found");
    for (int i = 0; i < 40; ++i) {
        w.turn("stuck");
        w.tool("stuck", "search", w.fresh(), "nothing found");
    }
    const auto told = w.told();
    REQUIRE(!told.empty());
    CHECK(told.size() <= 2);
    const Anomaly& a = told.back();
    CHECK(a.series == "progress.repeat");
    CHECK(a.family == Family::economic);
    CHECK(a.severity == Severity::warning);
    CHECK(a.criterion == "W3");
    CHECK(a.scope.kind == ScopeKind::session);
    CHECK(a.scope.id == "stuck");
    CHECK(a.value >= a.expected);
    CHECK(a.value <= 32);
    CHECK(a.evidence.size() == 4);
    CHECK(a.message.find("'search' got one result for arguments that differ") != std::string::npos);
    CHECK(w.count("loop.period_1") == 0);
}

TEST_CASE("progress: polling that moves is none, nor is work whose arguments are what is new") {
    Work w;
    w.teach();
    for (int i = 0; i < 200; ++i) {
        w.turn("poll");
        w.tool("poll", "search", "same", w.fresh());
    }
    for (int i = 0; i < 200; ++i) {  // a tool that always answers alike: sends to ever new recipients
        w.turn("post");
        w.tool("post", "send", w.fresh(), "done");
    }
    for (int i = 0; i < 200; ++i) {  // a tool never seen before
        w.turn("new");
        w.tool("new", "stranger", w.fresh(), "done");
    }
    CHECK(w.told().empty());
}

TEST_CASE("progress: a mixture of known results, of files written back and forth and of failures is a burn") {
    for (const int kind : {0, 1, 2}) {
        Work w;
        w.teach();
        w.tool("stuck", "search", "a", "r-a");
        for (int i = 0; i < 40; ++i) {
            w.turn("stuck");
            const std::string pick = std::to_string(i * i % 7 % 4);
            if (kind == 0) w.tool("stuck", "search", "args" + pick, "result" + pick);
            if (kind == 1) w.send(w.of("file_written", "stuck").str("path", "/src/a.py").str("sha256", "aa" + pick));
            if (kind == 2) {
                w.send(w.of("tool_called", "stuck").str("tool", "search").str("args_hash", w.fresh()).str(
                    "call", "c" + std::to_string(i)));
                w.send(w.of("tool_returned", "stuck").str("tool", "search").str("call", "c" + std::to_string(i))
                           .set("ok", boolean(false)).str("error", i % 3 == 0 ? "timeout" : "refused"));
            }
        }
        const auto told = w.told();
        REQUIRE_MESSAGE(!told.empty(), kind);
        CHECK(told.back().series == "progress.burn");
        CHECK(told.back().criterion == "W3");
    }
}

TEST_CASE("progress: new files, evaluations, words of a user and tasks are progress") {
    for (const int kind : {0, 1, 2, 3}) {
        Work w;
        w.teach();
        w.tool("s", "search", "a", "r-a");
        for (int i = 0; i < 200; ++i) {
            w.turn("s");
            w.tool("s", "search", w.fresh(), "r-a");
            if (i % 4 != 0) continue;
            if (kind == 0) w.send(w.of("file_written", "s").str("path", "/src/a.py").str("sha256", w.fresh()));
            if (kind == 1) w.send(w.of("eval_logged", "s").str("eval", "tests").set("score", real(i)));
            if (kind == 2) w.send(w.of("user_message", "s"));
            if (kind == 3) w.send(w.of("task_started", "s").str("task", w.fresh()));
        }
        CHECK_MESSAGE(w.told().empty(), kind);
    }
}

TEST_CASE("progress: two agents that hand over to each other while nothing is new") {
    Work w;
    w.teach();
    w.tool("pair", "search", "a", "r-a", "writer");
    for (int i = 0; i < 40; ++i) w.turn("pair", i % 2 == 0 ? "critic" : "writer");
    const auto told = w.told();
    REQUIRE(!told.empty());
    CHECK(told.back().series == "progress.ping_pong");
    CHECK(told.back().criterion == "W3");
    CHECK(told.back().message.find("two agents handed over") != std::string::npos);
    Work three;
    three.teach();
    three.tool("trio", "search", "a", "r-a", "writer");
    for (int i = 0; i < 40; ++i) three.turn("trio", "agent-" + std::to_string(i % 3));
    REQUIRE(!three.told().empty());
    CHECK(three.told().back().series == "progress.burn");
}

TEST_CASE("progress: a run that costs nothing is information, and W3 comes when it costs") {
    Work w(0);
    w.teach();
    w.tool("stuck", "search", "first", "nothing found");
    for (int i = 0; i < 60; ++i) w.tool("stuck", "search", w.fresh(), "nothing found");
    REQUIRE(w.told().size() == 1);
    CHECK(w.told()[0].severity == Severity::info);
    w.send(w.of("token_cost_logged", "stuck").num("cost_nusd", 200'000'000));
    REQUIRE(w.told().size() == 2);
    CHECK(w.told()[1].criterion == "W3");
}

TEST_CASE("progress: an agent that usually goes on for long is held to its own runs") {
    Work w;
    for (int s = 0; s < 60; ++s) {
        const std::string session = "long-" + std::to_string(s);
        w.tool(session, "search", w.fresh(), w.fresh());
        w.tool(session, "search", w.fresh(), w.fresh());
        for (int i = 0; i < 16; ++i) w.turn(session);
        w.tool(session, "search", w.fresh(), w.fresh());
    }
    CHECK(w.told().empty());
}

TEST_CASE("progress: nothing is said before anybody's runs are known, nor of sessions that show no results") {
    Work w;
    w.tool("first", "search", "a", "b");
    for (int i = 0; i < 200; ++i) w.turn("first");
    CHECK(w.told().empty());
    w.teach();
    for (int i = 0; i < 200; ++i) w.turn("talk-" + std::to_string(i % 2));
    CHECK(w.told().empty());
}

TEST_CASE("progress: equal calls one after the other are left to the loop auditor") {
    Work w;
    w.teach();
    for (int i = 0; i < 60; ++i) {
        w.turn("stuck");
        w.tool("stuck", "search", "same", "nothing found");
    }
    CHECK(w.told().empty());
    CHECK(w.count("loop.period_1") >= 1);
}

TEST_CASE("progress: state resumes bit by bit in the midst of a run; a reset lets it be told again") {
    Work w;
    w.teach();
    w.tool("stuck", "search", "first", "nothing found");
    for (int i = 0; i < 5; ++i) {
        w.turn("stuck");
        w.tool("stuck", "search", w.fresh(), "nothing found");
    }
    Writer writer(1, 1);
    w.plane.save(writer);
    const auto bytes = writer.finish();
    Work other;
    Reader reader(bytes, 1, 1);
    other.plane.load(reader);
    other.resume(w);
    other.now = w.now;
    other.unique = w.unique;
    for (Work* each : {&w, &other}) {
        for (int i = 0; i < 30; ++i) {
            each->turn("stuck");
            each->tool("stuck", "search", each->fresh(), "nothing found");
        }
    }
    REQUIRE(!other.told().empty());
    REQUIRE(w.told().size() == other.told().size());
    CHECK(w.told().back().id == other.told().back().id);
    Scope scope;
    scope.kind = ScopeKind::session;
    scope.id = "stuck";
    scope.tenant = "acme";
    const std::size_t before = w.told().size();
    w.plane.rearm(scope);
    w.turn("stuck");
    CHECK(w.told().size() == before + 1);
}

TEST_CASE("progress: hostile names, numbers and floods neither crash nor alarm") {
    Work w;
    w.teach();
    for (int i = 0; i < 30'000; ++i) {
        const std::string name = "x" + std::to_string(i);
        w.tool(name, name, name, name, name);
    }
    w.send(w.of("token_cost_logged", "x1").num("cost_nusd", std::numeric_limits<std::int64_t>::max()));
    w.send(w.of("tool_called", "x1").str("tool", "t").num("args_len", 4294967295).set("ok", boolean(false)));
    w.send(w.of("eval_logged", "x1").str("eval", "e"));
    CHECK(w.told().empty());
}
