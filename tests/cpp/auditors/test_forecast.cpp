// The forecast of a cap's exhaustion, driven through the event plane on event time.
#include <doctest/doctest.h>

#include <random>

#include "../events/stream.hpp"

using namespace argus;
using namespace argus::test;

namespace {

constexpr std::int64_t kUsd = 1'000'000'000;

// `usd_a_minute` in amounts of 0.8 to 1.2 times the mean, every 5 s on average.
void spend(Stream& s, double& at, double until, double usd_a_minute, std::string_view session = "") {
    std::mt19937_64 chance(static_cast<std::uint64_t>(at) + 11);
    std::exponential_distribution<double> gap(0.2);
    std::uniform_real_distribution<double> amount(0.8, 1.2);
    for (at += gap(chance); at < until; at += gap(chance)) {
        EventMap e = s.event("token_cost_logged", at);
        e.str("tenant", "t").num("cost_nusd", static_cast<std::int64_t>(amount(chance) * usd_a_minute / 12 * kUsd));
        if (!session.empty()) e.str("session", session);
        s.send(e);
    }
    at = until;
}

}  // namespace

TEST_CASE("forecast: a cap that lasts for the horizon is not spoken of, one that does not is, once, in time") {
    for (const double cap : {30.0, 10.0}) {
        Stream s;
        s.plane.set_cap(ScopeKind::tenant, "", "t", static_cast<std::int64_t>(cap) * kUsd, false);
        double at = 0;
        spend(s, at, 4200, 0.1);  // 7 USD in 70 min
        const auto found = s.of("forecast.exhaustion");
        if (cap > 20) {
            CHECK(found.empty());
            continue;
        }
        REQUIRE(found.size() == 1);
        CHECK(found[0].criterion == "W1");
        CHECK(found[0].severity == Severity::warning);
        CHECK(found[0].scope.kind == ScopeKind::tenant);
        CHECK(found[0].scope.id == "t");
        const double truth = 6000 - static_cast<double>(found[0].ts - kEpoch) * 1e-9;
        CHECK(found[0].lower < truth);
        CHECK(found[0].upper > truth);
        CHECK(found[0].lower < found[0].value);
        CHECK(found[0].value < found[0].upper);
        CHECK(s.count("budget.share") == 0);
    }
}

TEST_CASE("forecast: growth that lasts is found long before the cap is near") {
    Stream s;
    s.plane.set_cap(ScopeKind::tenant, "", "t", 40 * kUsd, false);
    double at = 0;
    spend(s, at, 7200, 0.1);
    CHECK(s.said.empty());
    for (int minute = 1; minute <= 120 && s.count("forecast.exhaustion") == 0; ++minute)
         spend(s, at, at + 60, 0.1 * (1 + minute * 0.1));
    REQUIRE(s.count("forecast.exhaustion") == 1);
    const events::Spend used = s.plane.spend(ScopeKind::tenant, "", "t");
    CHECK(used.metered < 25 * kUsd);
}

TEST_CASE("forecast: it does not look further ahead than spending has lasted") {
    Stream s;
    s.plane.set_cap(ScopeKind::tenant, "", "t", 10 * kUsd, false);
    double at = 0;
    spend(s, at, 600, 0.4);  // 4 USD in 10 min: 8 USD in 20
    CHECK(s.said.empty());
    spend(s, at, 1200, 0.4);
    CHECK(s.count("forecast.exhaustion") == 1);
}

TEST_CASE("forecast: a session's cap is left to the share that is spent") {
    Stream s;
    s.plane.set_cap(ScopeKind::session, "t", "se", 10 * kUsd, false);
    double at = 0;
    spend(s, at, 1100, 0.4, "se");
    CHECK(s.said.empty());
}

TEST_CASE("forecast: no cap, few charges, or one large charge: nothing is said") {
    Stream none;
    double at = 0;
    spend(none, at, 3000, 10);
    CHECK(none.said.empty());
    Stream few;
    few.plane.set_cap(ScopeKind::tenant, "", "t", 100 * kUsd, false);
    for (int i = 0; i < 9; ++i) {
        few.send(few.event("token_cost_logged", i * 60.0).str("tenant", "t").num("cost_nusd", 8 * kUsd));
    }
    CHECK(few.said.empty());
}

TEST_CASE("forecast: a reset lets it be told again; saved state resumes") {
    Stream s;
    s.plane.set_cap(ScopeKind::tenant, "", "t", 10 * kUsd, false);
    double at = 0;
    spend(s, at, 1200, 0.4);
    REQUIRE(s.count("forecast.exhaustion") == 1);
    Writer writer(1, 1);
    s.plane.save(writer);
    const auto bytes = writer.finish();
    engine::EventPlane resumed{engine::EventPlaneOptions{}};
    Reader reader(bytes, 1, 1);
    resumed.load(reader);
    Writer again(1, 1);
    resumed.save(again);
    CHECK(again.finish() == bytes);
    Scope scope;
    scope.kind = ScopeKind::tenant;
    scope.id = "t";
    s.plane.rearm(scope);
    spend(s, at, 1260, 0.4);
    CHECK(s.count("forecast.exhaustion") == 2);
}
