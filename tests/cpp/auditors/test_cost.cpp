// The cost auditor, driven through the event plane on event time: what each kind of fault looks like, what does not.
#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "../events/stream.hpp"
#include "auditors/cost_model.hpp"

using namespace argus;
using namespace argus::test;
using auditors::Dispersion;
using auditors::RunLaw;
using auditors::UnitPrice;
using auditors::Usage;

namespace {

constexpr std::int64_t kIn = 2'500, kOut = 10'000;  // nano-USD a token

struct Caller {
    explicit Caller(std::uint64_t seed = 1) : chance(seed) {}

    // One call of a session of its own; `price` multiplies its cost.
    void call(double at, std::string_view tenant, std::int64_t input, std::int64_t output, std::int64_t price = 1,
              std::string_view session = "", std::string_view model = "std") {
        EventMap e = s.event("token_cost_logged", at);
        e.str("tenant", tenant).str("model", model).num("input_tokens", input).num("output_tokens", output);
        e.num("cost_nusd", price * (kIn * input + kOut * output));
        e.str("session", session.empty() ? "s" + std::to_string(++sessions) : std::string(session));
        s.send(e);
    }
    // Usual traffic of `tenant` until `until`: Poisson arrivals, log-normal sizes.
    void usual(double& at, double until, std::string_view tenant = "t", double a_second = 0.5, double times = 1.0,
               std::int64_t price = 1, std::string_view model = "std") {
        for (at += gap(a_second); at < until; at += gap(a_second)) {
            call(at, tenant, static_cast<std::int64_t>(times * size(chance)) + 1, 100, price, "", model);
        }
        at = until;
    }
    double gap(double a_second) { return std::exponential_distribution<double>(a_second)(chance); }
    [[nodiscard]] std::size_t said(std::string_view series) const { return s.count(series); }

    Stream s;
    std::mt19937_64 chance;
    std::lognormal_distribution<double> size{7.0, 0.7};
    std::uint64_t sessions = 0;
};

// A session whose input grows by about 500 tokens a turn while the output stays: what a model caught in a loop shows.
void loop(Caller& c, double& at, int turns, std::string_view session, std::string_view tenant = "t") {
    for (int turn = 0; turn < turns; ++turn, at += 4) {
        c.call(at, tenant, 2000 + 500 * turn, 50 + turn % 3, 1, session);
    }
}

}  // namespace

TEST_CASE("cost: usual traffic is quiet") {
    Caller c;
    double at = 0;
    c.usual(at, 7200);
    CHECK(c.s.said.empty());
}

TEST_CASE("cost: a dearer model is a price jump after three calls, critical when it goes on, and no size jump") {
    Caller c;
    double at = 0;
    c.usual(at, 1500);
    const double start = at;
    c.usual(at, 1600, "t", 0.5, 1.0, 10, "big");
    const auto found = c.s.of("cost.price");
    REQUIRE(found.size() == 2);
    CHECK(found[0].severity == Severity::warning);
    CHECK(found[0].criterion == "W2");
    CHECK(found[0].scope.kind == ScopeKind::tenant);
    CHECK(found[0].scope.id == "t");
    CHECK(found[0].value == doctest::Approx(10).epsilon(0.1));
    CHECK(found[0].ts < kEpoch + static_cast<Nanos>((start + 20) * 1e9));
    CHECK(found[0].evidence.size() >= 3);
    CHECK(found[1].criterion == "C4");
    CHECK(c.s.said.size() == 2);
}

TEST_CASE("cost: a price rise of the same model is seen, a known change of the price table is not") {
    for (const bool told : {false, true}) {
        Caller c;
        double at = 0;
        c.usual(at, 1500);
        if (told) c.s.send(c.s.event("price_table_changed", at));
        c.usual(at, 1700, "t", 0.5, 1.0, 4);
        CHECK(c.said("cost.price") == (told ? 0 : 1));
    }
}

TEST_CASE("cost: a model that the payer always uses in part, or that costs as much, is no price jump") {
    Caller c;
    double at = 0;
    for (int i = 0; at < 4000; ++i) {
        at += 2;
        c.call(at, "t", 1000 + i % 97, 100 + i % 31, i % 10 == 0 ? 5 : 1, "", i % 10 == 0 ? "big" : "std");
    }
    c.usual(at, 4200, "t", 0.5, 1.0, 1, "same-price");
    CHECK(c.said("cost.price") == 0);
}

TEST_CASE("cost: prices that do not follow from the tokens prove nothing") {
    Caller c;
    double at = 0;
    std::uniform_int_distribution<std::int64_t> factor(1, 9);
    while (at < 3000) c.usual(at, at + 2, "t", 0.5, 1.0, factor(c.chance));
    CHECK(c.said("cost.price") == 0);
}

TEST_CASE("cost: a loop is told at its sixth turn and is critical at twice that") {
    Caller c;
    double at = 0;
    c.usual(at, 1500, "t", 0.2);
    const double start = at;
    loop(c, at, 40, "stuck");
    const auto found = c.s.of("cost.loop");
    REQUIRE(found.size() == 2);
    CHECK(found[0].value == 6);
    CHECK(found[0].criterion == "W2");
    CHECK(found[0].ts == kEpoch + static_cast<Nanos>((start + 20) * 1e9));
    CHECK(found[0].since == kEpoch + static_cast<Nanos>(start * 1e9));
    CHECK(found[0].scope.kind == ScopeKind::session);
    CHECK(found[0].scope.id == "stuck");
    CHECK(found[1].severity == Severity::critical);
    CHECK(found[1].value >= 12);
    CHECK(c.s.said.size() == 2);  // its turns are explained: no size, no rate
}

TEST_CASE("cost: growing sessions are no loop where outputs differ, results are new, or they are the custom") {
    SUBCASE("outputs differ") {
        Caller c;
        double at = 0;
        c.usual(at, 1500, "t", 0.2);
        for (int i = 0; i < 60; ++i) c.call(at += 4, "t", 2000 + 500 * i, i % 2 == 0 ? 20 : 400, 1, "se");
        CHECK(c.said("cost.loop") == 0);
    }
    SUBCASE("a tool gives new results, a user speaks") {
        for (const char* type : {"tool_called", "user_message"}) {
            Caller c;
            double at = 0;
            c.usual(at, 1500, "t", 0.2);
            for (int i = 0; i < 60; ++i) {
                c.call(at += 4, "t", 2000 + 500 * i, 50, 1, "se");
                EventMap e = c.s.event(type, at + 1);
                e.str("tenant", "t").str("session", "se");
                if (e.pack().find("tool_called") != std::string::npos) {
                    e.str("tool", "read").str("args_hash", std::to_string(i)).str("result_hash", std::to_string(i));
                }
                c.s.send(e);
            }
            CHECK(c.said("cost.loop") == 0);
        }
    }
    SUBCASE("most sessions of the payer run long") {
        Caller c;
        double at = 0;
        for (int run = 0; run < 60; ++run, at += 60) loop(c, at, 25, "run-" + std::to_string(run));
        CHECK(c.said("cost.loop") <= 3);
        const std::size_t before = c.said("cost.loop");
        for (int run = 60; run < 120; ++run, at += 60) loop(c, at, 25, "run-" + std::to_string(run));
        CHECK(c.said("cost.loop") == before);
    }
}

TEST_CASE("cost: equal tool results are no progress") {
    Caller c;
    double at = 0;
    c.usual(at, 1500, "t", 0.2);
    for (int i = 0; i < 8; ++i) {
        c.call(at += 4, "t", 2000 + 500 * i, 50, 1, "se");
        EventMap e = c.s.event("tool_called", at + 1);
        e.str("tenant", "t").str("session", "se").str("tool", "read").str("args_hash", "a").str("result_hash", "b");
        c.s.send(e);
    }
    CHECK(c.said("cost.loop") == 1);
}

TEST_CASE("cost: larger calls are told, once an incident, with their costliest calls") {
    Caller c;
    double at = 0;
    c.usual(at, 1500);
    const double start = at;
    c.usual(at, 1800, "t", 0.5, 5.0);
    const auto found = c.s.of("cost.size");
    REQUIRE(found.size() == 1);
    CHECK(found[0].ts < kEpoch + static_cast<Nanos>((start + 60) * 1e9));
    CHECK(found[0].bits > 12 / auditors::kLn2);
    CHECK(found[0].value > 2 * found[0].expected);
    CHECK(found[0].severity == Severity::warning);
    CHECK(found[0].false_alarm_interval_s > 0);
    CHECK(found[0].evidence.size() == 4);
}

TEST_CASE("cost: a session whose context grows is one draw of a size, not many") {
    Caller c;
    double at = 0;
    c.usual(at, 1500);
    for (int i = 0; i < 100; ++i) c.call(at += 2, "t", 3000 + 300 * i, 10 + (i * 37) % 400, 1, "long");
    CHECK(c.said("cost.size") == 0);
}

TEST_CASE("cost: more calls are told, where siblings do not rise as well") {
    for (const bool siblings : {false, true}) {
        Caller c;
        std::uniform_real_distribution<double> uniform(0, 1);
        double at = 0;
        for (; at < 3000; at += 0.25) {  // all rise and fall together
            const double rate = std::fmod(at, 200) < 100 ? 0.2 : 1.0;
            for (const char* name : {"t", "u", "v", "w"}) {
                if (uniform(c.chance) < 0.25 * rate) c.call(at, name, static_cast<std::int64_t>(c.size(c.chance)), 100);
            }
        }
        const std::size_t before = c.said("cost.rate");  // until it is known that they rise together
        for (int i = 0; i < 300; ++i) {
            at += 0.2;
            c.call(at, "t", 900 + i, 100);
            if (siblings) {
                for (const char* name : {"u", "v", "w"}) c.call(at, name, 900 + i, 100);
            }
        }
        CHECK(c.said("cost.rate") - before == (siblings ? 0 : 1));
    }
}

TEST_CASE("cost: a payer that pauses and goes on as before is usual") {
    Caller c;
    double at = 0;
    for (int turn = 0; turn < 12; ++turn, at += 2400) c.usual(at, at + 600);
    CHECK(c.s.said.empty());
}

TEST_CASE("cost: repeated inputs are told") {
    Caller c;
    double at = 0;
    c.usual(at, 1500, "t", 0.2);
    for (int i = 0; i < 40; ++i) c.call(at += 0.5, "t", 4000, 100);
    CHECK(c.said("cost.retry") + c.said("cost.rate") >= 1);
}

TEST_CASE("cost: what is not material is not spoken of") {
    Caller c;
    double at = 0;
    for (; at < 1500;) c.usual(at, at + 10, "t", 0.5, 0.001);
    for (int i = 0; i < 200; ++i) c.call(at += 0.1, "t", 1, 1);  // many calls, a fraction of a cent in all
    CHECK(c.s.said.empty());
}

TEST_CASE("cost: the fourth incident of one kind in a day must be clearer than the third") {
    Caller c;
    double at = 0;
    for (int turn = 0; turn < 12; ++turn) {
        c.usual(at, at + 1200);
        c.usual(at, at + 90, "t", 0.5, 5.0);
    }
    CHECK(c.said("cost.size") >= 3);
    CHECK(c.said("cost.size") <= 6);
}

TEST_CASE("cost: a day without incidents makes the next one as easy to tell as the first") {
    Caller c;
    double at = 0;
    for (int turn = 0; turn < 5; ++turn) {
        c.usual(at, at + 1200);
        c.usual(at, at + 90, "t", 0.5, 5.0);
    }
    const std::size_t before = c.said("cost.size");
    c.usual(at, at + 2 * 86'400.0, "t", 0.05);
    c.usual(at, at + 1500);
    CHECK(c.said("cost.size") == before);
    c.usual(at, at + 60, "t", 0.5, 5.0);
    CHECK(c.said("cost.size") == before + 1);
}

TEST_CASE("cost: after a reset by a person a condition that stands is told again") {
    for (const bool reset : {false, true}) {
        Caller c;
        double at = 0;
        c.usual(at, 1500);
        c.usual(at, 1540, "t", 0.5, 1.0, 4, "big");
        REQUIRE(c.said("cost.price") == 1);
        Scope scope;
        scope.kind = ScopeKind::tenant;
        scope.id = "t";
        if (reset) c.s.plane.rearm(scope);
        c.usual(at, 1600, "t", 0.5, 1.0, 4, "big");
        CHECK(c.said("cost.price") == (reset ? 2 : 1));
    }
}

TEST_CASE("cost: tokens told twice, by the model's return and by a cost log, count once") {
    Stream s;
    std::mt19937_64 chance(3);
    std::exponential_distribution<double> gap(0.5);
    double at = 0;
    for (int i = 0; i < 2000; ++i) {
        at += i < 1000 ? gap(chance) : gap(chance);
        const std::string session = "s" + std::to_string(i);
        for (const char* type : {"token_cost_logged", "model_returned"}) {
            if (i < 1000 && type[0] == 'm') continue;  // the second report begins half way
            EventMap e = s.event(type, at);
            e.str("tenant", "t").str("session", session).num("input_tokens", 1000 + i % 7).num("output_tokens", 100);
            if (type[0] == 't') e.num("cost_nusd", kIn * (1000 + i % 7) + kOut * 100);
            s.send(e);
        }
    }
    CHECK(s.said.empty());
}

TEST_CASE("cost: hostile numbers, names and clocks neither crash nor alarm") {
    Stream s;
    const std::int64_t most = std::numeric_limits<std::int64_t>::max();
    for (int i = 0; i < 30'000; ++i) {
        EventMap e = s.event("token_cost_logged", i * 0.01);
        e.str("tenant", "tenant-" + std::to_string(i)).str("session", "s" + std::to_string(i));
        e.str("model", "m" + std::to_string(i)).num("input_tokens", i % 2 == 0 ? most : 0);
        e.num("output_tokens", i % 3 == 0 ? most : 0).num("cost_nusd", i % 5 == 0 ? most : 0);
        s.send(e);
    }
    for (int i = 0; i < 2000; ++i) {
        const double at = i % 2 == 0 ? 300 + i : 1e9;  // the clock jumps ahead for good
        EventMap e = s.event("token_cost_logged", at);
        e.str("tenant", "t").num("cost_nusd", 1000);
        s.send(e);
    }
    EventMap last = s.event("token_cost_logged", 0);
    last.num("ts", most).str("tenant", "t").num("input_tokens", 5).num("cost_nusd", 7);
    s.send(last);
    s.tick(2e9);
    for (const Anomaly& a : s.said) CHECK_MESSAGE(std::string_view(a.detector) != "cost", a.message);
}

TEST_CASE("cost: state resumes bit by bit, in the midst of a fault; damaged state is refused") {
    Caller whole(7);
    double at = 0;
    whole.usual(at, 1500);
    loop(whole, at, 4, "stuck");
    Writer writer(1, 1);
    whole.s.plane.save(writer);
    const auto bytes = writer.finish();
    Caller resumed(0);
    Reader reader(bytes, 1, 1);
    resumed.s.plane.load(reader);
    resumed.s.resume(whole.s);
    const std::size_t before = whole.s.said.size();
    for (Caller* c : {&whole, &resumed}) {
        double t = at;
        c->chance.seed(8);
        c->sessions = 10'000;
        for (int turn = 4; turn < 30; ++turn, t += 4) c->call(t, "t", 2000 + 500 * turn, 50, 1, "stuck");
        c->usual(t, t + 90, "t", 0.5, 5.0);
    }
    REQUIRE(whole.s.said.size() >= before + 3);
    REQUIRE(resumed.s.said.size() == whole.s.said.size() - before);
    for (std::size_t i = 0; i < resumed.s.said.size(); ++i) {
        CHECK(resumed.s.said[i].id == whole.s.said[before + i].id);
        CHECK(resumed.s.said[i].message == whole.s.said[before + i].message);
    }
    Writer one(1, 1);
    Writer two(1, 1);
    whole.s.plane.save(one);
    resumed.s.plane.save(two);
    CHECK(one.finish() == two.finish());
    const auto cut = std::span(bytes).first(bytes.size() / 2);
    CHECK_THROWS_AS(Reader(cut, 1, 1), CodecError);
}

TEST_CASE("unit price: exact for four kinds of tokens, unknown for kinds never seen") {
    UnitPrice price;
    std::mt19937_64 chance(5);
    std::uniform_real_distribution<double> tokens(1, 5000);
    const auto cost = [](const Usage& u) { return 2500 * u[0] + 10'000 * u[1] - 2250 * u[2]; };
    for (int i = 0; i < 300; ++i) {
        const double input = tokens(chance);
        const Usage u{input, tokens(chance), i % 3 == 0 ? input * 0.8 : 0.0, 0.0};
        price.learn(u, cost(u), i);
    }
    const Usage asked{700, 30, 400, 0};
    CHECK(price.list(asked) == doctest::Approx(cost(asked)).epsilon(1e-6));
    CHECK(price.list({700, 30, 400, 9}) == 0.0);
    for (int i = 0; i < 50; ++i) price.learn(asked, 10 * cost(asked), 300 + i);
    CHECK(price.list(asked) == doctest::Approx(cost(asked)).epsilon(1e-6));
    for (int i = 0; i < 50; ++i) price.learn({tokens(chance), tokens(chance), 0, 0}, 1, 3'700'000'000'000 + i);
    CHECK(price.list(asked) == 0.0);  // an hour of other prices: learned anew
}

TEST_CASE("dispersion: one for Poisson counts, more for clumped ones, also in blocks seen less often") {
    Dispersion poisson;
    Dispersion clumped;
    std::mt19937_64 chance(9);
    std::poisson_distribution<int> counts(5);
    for (int i = 0; i < 2000; ++i) {
        poisson.learn(counts(chance) - 5.0, 5.0);
        clumped.learn((i / 20) % 2 == 0 ? 5.0 : -5.0, 5.0);
    }
    for (std::size_t b = 0; b < Dispersion::kBlocks; ++b) CHECK(poisson.value(b) < 2.0);
    CHECK(clumped.value(4) > 20.0);
    CHECK(clumped.value(4) >= clumped.value(0));
}

TEST_CASE("run law: the bar rises with how often runs go on, and with how many reached it; own turns do not count") {
    RunLaw law;
    for (int i = 0; i < 40; ++i) law.begin();
    CHECK(law.known());
    CHECK(law.bar(6, 0) == 6);
    for (std::uint32_t t = 1; t <= 20; ++t) law.reach(t);
    CHECK(law.bar(6, 20) == 6);
    CHECK(law.bar(6, 0) > 6);
    law.disown(20);
    CHECK(law.bar(6, 0) == 6);
    for (int i = 0; i < 50; ++i) {
        law.begin();
        for (std::uint32_t t = 1; t <= 12; ++t) law.reach(t);
    }
    CHECK(law.bar(6, 0) > 12);
}
