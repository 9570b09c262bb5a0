// The loop auditor, driven through the event plane on event time.
#include <doctest/doctest.h>

#include "../events/stream.hpp"

using namespace argus;
using namespace argus::test;

namespace {

EventMap call(Stream& s, double at, std::string_view tool, std::string_view args = "aa",
              std::string_view result = "bb") {
    EventMap e = s.event("tool_called", at);
    e.str("session", "se").str("tool", tool);
    if (!args.empty()) e.str("args_hash", args);
    if (!result.empty()) e.str("result_hash", result);
    return e;
}

EventMap returned(Stream& s, double at) {
    return s.event("tool_returned", at).str("session", "se").str("tool", "search").str("result_hash", "bb");
}

void spend(Stream& s, double at, std::int64_t nusd) {
    s.send(s.event("token_cost_logged", at).str("session", "se").num("cost_nusd", nusd));
}

}  // namespace

TEST_CASE("loop: four equal calls are info, spoken once") {
    Stream s;
    for (int i = 0; i < 7; ++i) s.send(call(s, i, "search"));
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].series == "loop.period_1");
    CHECK(s.said[0].severity == Severity::info);
    CHECK(s.said[0].value == 4);
    CHECK(s.said[0].scope.kind == ScopeKind::session);
    CHECK(s.said[0].scope.id == "se");
    CHECK(s.said[0].family == Family::economic);
}

TEST_CASE("loop: other arguments, other results, and unknown ones are no loop") {
    Stream s;
    for (int i = 0; i < 20; ++i) s.send(call(s, i, "a", std::to_string(i)));
    for (int i = 0; i < 20; ++i) s.send(call(s, 20 + i, "b", "aa", std::to_string(i)));
    for (int i = 0; i < 20; ++i) s.send(call(s, 40 + i, "c", "", "bb"));
    for (int i = 0; i < 20; ++i) s.send(call(s, 60 + i, "d", "aa", ""));
    CHECK(s.said.empty());
}

TEST_CASE("loop: it warns when it lasts, and is critical when it is long and lasts") {
    Stream s;
    for (int i = 0; i <= 20; ++i) s.send(call(s, i * 10, "poll"));
    REQUIRE(s.said.size() == 3);
    CHECK(s.said[1].severity == Severity::warning);
    CHECK(s.said[1].criterion == "W3");
    CHECK(s.said[1].ts == kEpoch + 60 * kSecond);
    CHECK(s.said[2].severity == Severity::critical);
    CHECK(s.said[2].criterion == "C2");
    CHECK(s.said[2].ts == kEpoch + 120 * kSecond);
    CHECK(s.said[2].evidence.size() == 8);
}

TEST_CASE("loop: idle time after the last equal call does not count, the next call under way does") {
    Stream s;
    for (int i = 0; i < 8; ++i) s.send(call(s, i, "poll"));
    s.tick(500);
    CHECK(s.said.size() == 1);
    s.send(call(s, 600, "other", "aa", ""));  // another call in flight
    s.tick(900);
    CHECK(s.said.size() == 1);
    s.send(call(s, 901, "poll", "aa", ""));
    s.tick(902);
    CHECK(s.said.back().severity == Severity::critical);
}

TEST_CASE("loop: spend that arrives during a standing loop is judged at once") {
    Stream s;
    for (int i = 0; i < 8; ++i) s.send(call(s, i, "search"));
    spend(s, 8, 99'999'999);
    CHECK(s.said.size() == 1);
    spend(s, 9, 1);
    REQUIRE(s.said.size() == 2);
    CHECK(s.said[1].criterion == "W3");
    spend(s, 10, 899'999'999);
    CHECK(s.said.size() == 2);
    spend(s, 11, 1);
    REQUIRE(s.said.size() == 3);
    CHECK(s.said[2].criterion == "C2");
}

TEST_CASE("loop: spend before the loop began is not the loop's") {
    Stream s;
    spend(s, 0, 50'000'000'000);
    for (int i = 1; i <= 10; ++i) s.send(call(s, i, "search"));
    CHECK(s.said.size() == 1);
    CHECK(s.said[0].severity == Severity::info);
}

TEST_CASE("loop: a share of the session's cap warns, and lifts the bar of the kill") {
    Stream s;
    s.plane.set_cap(ScopeKind::session, "", "se", 100'000'000'000, false);  // 100 USD: 5 % is 5 USD
    for (int i = 0; i < 8; ++i) s.send(call(s, i, "search"));
    spend(s, 9, 4'999'999'999);
    CHECK(s.said.back().criterion == "W3");
    spend(s, 10, 1);
    CHECK(s.said.back().criterion == "C2");
    Stream tiny;
    tiny.plane.set_cap(ScopeKind::session, "", "se", 1'000'000'000, false);
    for (int i = 0; i < 4; ++i) tiny.send(call(tiny, i, "search"));
    spend(tiny, 9, 50'000'000);
    CHECK(tiny.said.back().criterion == "W3");
}

TEST_CASE("loop: cycles up to eight are found, and the shortest period names them") {
    for (int period = 1; period <= 8; ++period) {
        Stream s;
        for (int i = 0; i < period * 4; ++i) s.send(call(s, i * 0.1, "tool" + std::to_string(i % period)));
        REQUIRE_MESSAGE(s.said.size() == 1, period);
        CHECK(s.said[0].series == "loop.period_" + std::to_string(period));
    }
    Stream nine;
    for (int i = 0; i < 90; ++i) nine.send(call(nine, i * 0.1, "tool" + std::to_string(i % 9)));
    CHECK(nine.said.empty());
}

TEST_CASE("loop: a cycle longer than four never kills") {
    Stream s;
    for (int i = 0; i < 5 * 50; ++i) s.send(call(s, i, "tool" + std::to_string(i % 5)));
    CHECK(s.said.back().severity == Severity::warning);
    Stream four;
    for (int i = 0; i < 4 * 50; ++i) four.send(call(four, i, "tool" + std::to_string(i % 4)));
    CHECK(four.said.back().criterion == "C2");
}

TEST_CASE("loop: a call without result counts when its return brings one") {
    Stream s;
    for (int i = 0; i < 4; ++i) {
        const std::string id = "call-" + std::to_string(i);
        s.send(call(s, i, "search", "aa", "").str("call", id));
        s.send(returned(s, i + 0.5).str("call", id));
    }
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].value == 4);
    Stream by_tool;
    for (int i = 0; i < 4; ++i) {
        by_tool.send(call(by_tool, i, "search", "aa", ""));
        by_tool.send(returned(by_tool, i + 0.5));
    }
    CHECK(by_tool.said.size() == 1);
}

TEST_CASE("loop: a return after a call that carried its result is not a second call") {
    Stream s;
    for (int i = 0; i < 3; ++i) {
        s.send(call(s, i, "search").str("call", "c"));
        s.send(returned(s, i + 0.5).str("args_hash", "aa"));
    }
    CHECK(s.said.empty());
}

TEST_CASE("loop: sessions do not mix, and a broken run starts anew") {
    Stream s;
    for (int i = 0; i < 6; ++i) {
        s.send(call(s, i, "search").str("session", "one"));
        s.send(call(s, i, "search").str("session", "two").str("args_hash", std::to_string(i)));
    }
    CHECK(s.said.size() == 1);
    CHECK(s.said[0].scope.id == "one");
    s.send(call(s, 7, "else").str("session", "one"));
    for (int i = 8; i < 12; ++i) s.send(call(s, i, "search").str("session", "one"));
    CHECK(s.said.size() == 2);
}

TEST_CASE("loop: agents in ping-pong are a cycle of two in one session, and a loop each in sessions of their own") {
    Stream one;
    for (int i = 0; i < 20; ++i) {
        const bool writer = i % 2 == 0;
        one.send(call(one, i, writer ? "ask_critic" : "ask_writer").str("agent", writer ? "writer" : "critic"));
    }
    CHECK(one.count("loop.period_2") >= 1);
    CHECK(one.count("loop.period_1") == 0);
    Stream two;
    for (int i = 0; i < 20; ++i) {
        const bool writer = i % 2 == 0;
        two.send(call(two, i, writer ? "ask_critic" : "ask_writer").str("session", writer ? "writer" : "critic"));
    }
    CHECK(two.count("loop.period_1") == 2);
}

TEST_CASE("loop: polling that moves is no loop, polling that stands is") {
    Stream s;
    for (int i = 0; i < 200; ++i) s.send(call(s, i * 10.0, "status", "job", "progress " + std::to_string(i / 3)));
    CHECK(s.said.empty());
    for (int i = 200; i < 204; ++i) s.send(call(s, i * 10.0, "status", "job", "stands"));
    CHECK(s.count("loop.period_1") == 1);
}
