// The budget auditor, driven through the event plane on event time.
#include <doctest/doctest.h>

#include "../events/stream.hpp"

using namespace argus;
using namespace argus::test;

namespace {

constexpr std::int64_t kUsd = 1'000'000'000;

EventMap money(Stream& s, std::string_view type, std::int64_t nusd, std::string_view call = "") {
    EventMap e = s.event(type, 1);
    e.str("tenant", "t").str("session", "se").str("agent", "a").num("cost_nusd", nusd);
    if (!call.empty()) e.str("call", call);
    return e;
}

}  // namespace

TEST_CASE("budget: 80 % warns once, 100 % is critical once, to the nano-USD") {
    Stream s;
    s.plane.set_cap(ScopeKind::session, "t", "se", kUsd, false);
    s.send(money(s, "token_cost_logged", kUsd * 8 / 10 - 1));
    CHECK(s.said.empty());
    s.send(money(s, "token_cost_logged", 1));
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].series == "budget.share");
    CHECK(s.said[0].criterion == "W1");
    s.send(money(s, "token_cost_logged", kUsd * 2 / 10 - 1));
    CHECK(s.said.size() == 1);
    s.send(money(s, "token_cost_logged", 1));
    REQUIRE(s.said.size() == 2);
    CHECK(s.said[1].series == "budget.cap");
    CHECK(s.said[1].severity == Severity::critical);
    CHECK(s.said[1].scope.kind == ScopeKind::session);
    CHECK(s.said[1].scope.id == "se");
    CHECK(s.said[1].scope.tenant == "t");
    s.send(money(s, "token_cost_logged", kUsd));
    CHECK(s.said.size() == 2);
}

TEST_CASE("budget: a reservation counts before the call is made") {
    Stream s;
    s.plane.set_cap(ScopeKind::agent, "t", "a", kUsd, false);
    s.send(money(s, "budget_reserved", kUsd, "c"));
    REQUIRE(s.said.size() == 1);
    CHECK(s.said[0].criterion == "C1");
    CHECK(s.said[0].scope.kind == ScopeKind::agent);
}

TEST_CASE("budget: unknown cost warns at its bound and kills only where the cap is strict") {
    for (const bool strict : {false, true}) {
        Stream s;
        s.plane.set_cap(ScopeKind::tenant, "", "t", kUsd, strict);
        s.send(money(s, "token_cost_logged", 2 * kUsd).set("cost_estimated", boolean(true)));
        REQUIRE(s.said.size() == 1);
        CHECK(s.said[0].criterion == (strict ? "C1" : "W1"));
        CHECK(s.said[0].scope.kind == ScopeKind::tenant);
    }
}

TEST_CASE("budget: default caps hold for every scope of their kind, the host's for all together") {
    engine::EventPlaneOptions options;
    options.ledger.default_cap[static_cast<std::size_t>(ScopeKind::session)] = kUsd;
    options.ledger.default_cap[static_cast<std::size_t>(ScopeKind::host)] = 3 * kUsd;
    Stream s(options);
    for (const char* session : {"x", "y", "z"}) s.send(money(s, "token_cost_logged", kUsd).str("session", session));
    CHECK(s.count("budget.cap") == 4);
    CHECK(s.said.back().scope.kind == ScopeKind::host);
}

TEST_CASE("budget: a raised cap is judged anew, and spend that fell back is spoken of again") {
    Stream s;
    s.plane.set_cap(ScopeKind::session, "t", "se", kUsd, false);
    s.send(money(s, "budget_reserved", kUsd * 9 / 10, "c"));
    s.send(money(s, "budget_settled", kUsd / 10, "c"));
    s.send(money(s, "budget_reserved", kUsd * 8 / 10, "d"));
    CHECK(s.count("budget.share") == 2);
    s.plane.set_cap(ScopeKind::session, "t", "se", kUsd / 2, false);
    s.send(money(s, "token_cost_logged", 1));
    CHECK(s.count("budget.cap") == 1);
}

TEST_CASE("budget: without a cap nothing is said") {
    Stream s;
    for (int i = 0; i < 100; ++i) s.send(money(s, "token_cost_logged", 1000 * kUsd));
    CHECK(s.said.empty());
}
