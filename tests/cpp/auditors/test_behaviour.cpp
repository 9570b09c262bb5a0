// The auditor of shifts: its ranks and bets by themselves, then the auditor through the event plane on event time.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "../events/stream.hpp"
#include "auditors/ranks.hpp"

using namespace argus;
using namespace argus::test;
using namespace argus::auditors;

namespace {

class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ULL + 1) {}
    double uniform() {
        state_ ^= state_ << 13U;
        state_ ^= state_ >> 7U;
        state_ ^= state_ << 17U;
        return static_cast<double>(state_ * 0x2545f4914f6cdd1dULL >> 11U) * 0x1p-53;
    }
    double normal() {
        return std::sqrt(-2.0 * std::log(uniform() + 1e-300)) * std::cos(6.283185307179586 * uniform());
    }

private:
    std::uint64_t state_;
};

constexpr double kDay = 86'400;

struct Fleet : Stream {
    explicit Fleet(std::uint64_t seed, int of_agents = 8) : random(seed), agents(of_agents) {}
    Random random;
    int agents;
    int tasks = 0;
    double now = 0;

    struct Habits {
        double success = 0.85, slower = 1, abandoned = 0.03, thumbs_up = 0.8, tool_slower = 1, tool_fails = 0.02;
        std::string_view model = "m1", way = "search";
    };

    // One task of one agent; agents differ in speed and luck by far more than any shift.
    void task(int agent, const Habits& h, double gap = 60) {
        const std::string name = "agent-" + std::to_string(agent), id = "t" + std::to_string(++tasks);
        const double speed = std::pow(3.0, agent % 4), ease = 1.0 - 0.08 * (agent % 5);
        now += gap;
        const auto of = [&](std::string_view type) {
            return event(type, now).str("task", id).str("session", id).str("agent", name).str("tenant", "acme").str(
                "model", h.model);
        };
        send(of("task_started"));
        send(of("tool_called").str("tool", h.way).set("ok", boolean(random.uniform() >= h.tool_fails)).num(
            "duration_ns", static_cast<std::int64_t>(2e8 * h.tool_slower * std::exp(0.3 * random.normal()))));
        const auto lasted = static_cast<std::int64_t>(4e9 * speed * h.slower * std::exp(0.6 * random.normal()));
        if (random.uniform() < h.abandoned) {
            send(of("task_cancelled").num("duration_ns", lasted));
        } else {
            const bool ok = random.uniform() < h.success * ease;
            send(of(ok ? "task_completed" : "task_failed").set("ok", boolean(ok)).num("duration_ns", lasted));
        }
        if (tasks % 2 != 0) return;
        send(of("user_feedback").str("label", random.uniform() < h.thumbs_up ? "thumbs_up" : "thumbs_down"));
    }
    void run(int rounds, const Habits& h, int first = 0, double gap = 60) {
        for (int r = 0; r < rounds; ++r) {
            for (int a = first; a < agents; ++a) task(a, h, gap);
        }
    }
    [[nodiscard]] std::vector<Anomaly> told() const {
        std::vector<Anomaly> out;
        std::copy_if(said.begin(), said.end(), std::back_inserter(out),
                     [](const Anomaly& a) { return a.detector == std::string("behaviour"); });
        return out;
    }
    [[nodiscard]] std::vector<Anomaly> carried_by(std::string_view view) const {
        std::vector<Anomaly> out;
        for (const Anomaly& a : told()) {
            if (a.message.find("carried by the view of " + std::string(view)) != std::string::npos) out.push_back(a);
        }
        return out;
    }
};

}  // namespace

TEST_CASE("ranks: of one law they are even, whatever the law, and every bet has mean one") {
    for (const int law : {0, 1, 2, 3}) {
        Random random(static_cast<std::uint64_t>(law) + 1);
        double sum = 0, squares = 0;
        std::array<double, kAlternatives> bets{};
        int n = 0;
        for (int s = 0; s < 200; ++s) {
            Past past;
            for (std::uint32_t t = 0; t < 200; ++t) {
                const double z = random.normal();
                const double value = law == 0   ? std::exp(8 + 2 * z)
                                     : law == 1 ? std::exp(0.02 * z)
                                     : law == 2 ? 5.0
                                                : std::floor(3 * random.uniform());
                const Scored scored = past.score(law == 3 ? Scale::score : Scale::ratio, value, 0);
                if (past.size() >= 32) {
                    ++n;
                    sum += static_cast<double>(scored.z);
                    squares += static_cast<double>(scored.z) * static_cast<double>(scored.z);
                    for (std::size_t k = 0; k < kAlternatives; ++k) {
                        bets[k] += std::exp(static_cast<double>(scored.nats[k]));
                    }
                }
                past.learn(law == 3 ? Scale::score : Scale::ratio, value, 0, t * 100'000, 86'400);
            }
        }
        CHECK(std::abs(sum / n) < 0.02);
        CHECK(squares / n == doctest::Approx(1.0).epsilon(0.02));
        for (const double bet : bets) CHECK(bet / n == doctest::Approx(1.0).epsilon(0.02));
    }
}

TEST_CASE("ranks: equal a slow reference, ties drawn apart by luck") {
    Random random(7);
    Past past;
    std::vector<double> seen;
    for (std::uint32_t t = 0; t < 200; ++t) {
        const double value = std::exp2(std::floor(12 * random.uniform()) / 2 + 10);  // on the bins' own grid
        const double rank = static_cast<double>(past.score(Scale::ratio, value, 0).z) / std::sqrt(12.0) + 0.5;
        const auto below = std::count_if(seen.begin(), seen.end(), [&](double v) { return v < value * 0.99; });
        const auto equal = std::count_if(seen.begin(), seen.end(), [&](double v) { return std::abs(v - value) < 1; });
        const double n = static_cast<double>(seen.size()) + 1;
        CHECK(rank * n >= static_cast<double>(below) - 1e-3);
        CHECK(rank * n <= static_cast<double>(below + equal) + 1 + 1e-3);
        past.learn(Scale::ratio, value, 0, t * 100'000, 86'400);
        seen.push_back(value);
    }
}

TEST_CASE("ranks: bets on yes or no have mean one under their own estimate, and ways rank by how usual they are") {
    Past past;
    for (std::uint32_t t = 0; t < 100; ++t) past.learn(Scale::binary, t % 5 == 0 ? 0 : 1, 0, t * 100'000, 86'400);
    const Scored yes = past.score(Scale::binary, 1, 0), no = past.score(Scale::binary, 0, 0);
    const double p = static_cast<double>(yes.expected);
    CHECK(p == doctest::Approx(0.8).epsilon(0.02));
    for (std::size_t k = 0; k < kAlternatives; ++k) {
        const double mean = p * std::exp(static_cast<double>(yes.nats[k])) +
                            (1 - p) * std::exp(static_cast<double>(no.nats[k]));
        CHECK(mean == doctest::Approx(1.0).epsilon(1e-4));
    }
    Past ways;
    for (std::uint32_t t = 0; t < 100; ++t) ways.learn(Scale::way, 0, t % 10 == 0 ? 2U : 1U, t * 100'000, 86'400);
    CHECK(static_cast<double>(ways.score(Scale::way, 0, 9).observed) < 0.02);
    CHECK(static_cast<double>(ways.score(Scale::way, 0, 2).observed) < 0.12);
    CHECK(static_cast<double>(ways.score(Scale::way, 0, 1).observed) > 0.1);
}

TEST_CASE("ranks: a past takes in weeks, however many observations a day bring") {
    Past past;
    for (std::uint32_t t = 0; t < 14 * 1440; ++t) {  // one a minute for two weeks; larger by half in the last two days
        past.learn(Scale::ratio, t < 12 * 1440 ? 100.0 : 150.0, 0, t * 60, 14 * kDay);
    }
    const double rank = static_cast<double>(past.score(Scale::ratio, 150.0, 0).z) / std::sqrt(12.0) + 0.5;
    CHECK(rank > 0.8);
}

TEST_CASE("ranks: of one second a few observations are admitted, of the next as many again") {
    Past past;
    for (const std::uint32_t second : {7U, 8U, 20U}) {
        int admitted = 0;
        for (int i = 0; i < 100; ++i) admitted += past.admits(second) ? 1 : 0;
        CHECK(admitted == 4);
    }
}

TEST_CASE("scatter: one for independent residuals and for a slow decline, more for bursts and for swings") {
    const auto dispersion = [](auto&& residual) {
        Random random(3);
        Scatter scatter;
        for (int i = 0; i < 20'000; ++i) scatter.add(residual(random, i));
        return scatter.dispersion();
    };
    CHECK(dispersion([](Random& r, int) { return r.normal(); }) < 1.2);
    CHECK(dispersion([](Random& r, int i) { return r.normal() - i * 2e-5; }) < 1.2);
    double burst = 0;
    CHECK(dispersion([&](Random& r, int i) {
        if (i % 16 == 0) burst = r.normal();
        return 0.7 * burst + 0.7 * r.normal();
    }) > 3.0);
    CHECK(dispersion([](Random& r, int i) { return r.normal() + (i / 400 % 2 == 0 ? 0.4 : -0.4); }) > 10.0);
}

TEST_CASE("behaviour: healthy fleets are quiet, of any number of agents and any pace") {
    std::size_t said = 0;
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
        Fleet fleet(seed, 2 + static_cast<int>(seed));
        fleet.run(600, {}, 0, seed % 2 == 0 ? 10 : 400);
        said += fleet.told().size();
    }
    MESSAGE(said << " shifts said of 6 healthy fleets");
    CHECK(said <= 1);
}

TEST_CASE("behaviour: a model that gets worse for all its agents is found, and the view named") {
    std::vector<std::size_t> tasks;
    for (std::uint64_t seed = 1; seed <= 9; ++seed) {
        Fleet fleet(seed, 10);
        fleet.run(80, {});
        REQUIRE(fleet.told().empty());
        Fleet::Habits worse;
        worse.success = 0.6;
        std::size_t rounds = 0;
        while (fleet.count("behaviour.success") == 0 && ++rounds < 60) fleet.run(1, worse);
        tasks.push_back(rounds);
        REQUIRE(fleet.count("behaviour.success") == 1);
        const Anomaly a = fleet.of("behaviour.success")[0];
        CHECK(a.severity == Severity::info);
        CHECK(a.family == Family::behavioural);
        CHECK(a.scope.kind == ScopeKind::host);
        CHECK(a.direction == Direction::down);
        CHECK(a.value < a.expected);
        CHECK(a.message.find("model 'm1': success of tasks") == 0);
        CHECK(a.message.find("carried by the view of all agents on the model") != std::string::npos);
        CHECK(a.evidence.size() == 3);
        CHECK(a.false_alarm_interval_s == 2'592'000);
    }
    std::sort(tasks.begin(), tasks.end());
    MESSAGE("success falls by 0.25, ten agents: found after " << tasks[4] << " tasks of each, at most " << tasks[8]);
    CHECK(tasks[4] <= 28);
    CHECK(tasks[8] <= 60);
}

TEST_CASE("behaviour: what one agent alone does is not the model's, and the others' pasts stand") {
    Fleet fleet(3, 6);
    fleet.run(80, {});
    Fleet::Habits worse;
    worse.success = 0.3;
    worse.slower = 3;
    for (int i = 0; i < 150; ++i) {
        fleet.task(0, worse);
        for (int a = 1; a < 6; ++a) fleet.task(a, {});
    }
    CHECK(fleet.carried_by("all agents on the model").empty());
    const auto own = fleet.carried_by("the agent itself");
    REQUIRE(own.size() == 1);
    CHECK(own[0].series == "behaviour.task_duration");
    CHECK(own[0].scope.kind == ScopeKind::agent);
    CHECK(own[0].scope.id == "agent-0");
    CHECK(own[0].scope.tenant == "acme");
    CHECK(own[0].value / own[0].expected == doctest::Approx(3).epsilon(0.4));
}

TEST_CASE("behaviour: durations, abandoned tasks, feedback, tools and ways: each is found and names itself") {
    const auto found = [](std::string_view series, const Fleet::Habits& habits) {
        Fleet fleet(11, 6);
        fleet.run(100, {});
        REQUIRE(fleet.told().empty());
        fleet.run(60, habits);
        REQUIRE_MESSAGE(fleet.count(series) >= 1, series);
        for (const Anomaly& a : fleet.told()) CHECK_MESSAGE(a.series == series, a.series);
        return fleet.of(series)[0];
    };
    Fleet::Habits h;
    h.slower = 2;
    CHECK(found("behaviour.task_duration", h).direction == Direction::up);
    h = {};
    h.abandoned = 0.25;
    CHECK(found("behaviour.abandoned", h).direction == Direction::up);
    h = {};
    h.thumbs_up = 0.4;
    CHECK(found("behaviour.feedback", h).direction == Direction::down);
    h = {};
    h.tool_slower = 2;
    const Anomaly slow = found("behaviour.tool_duration", h);
    CHECK(slow.message.find("tool 'search'") == 0);
    CHECK(slow.expected == doctest::Approx(0.2).epsilon(0.2));
    h = {};
    h.tool_fails = 0.25;
    CHECK(found("behaviour.tool_failure", h).value > 0.1);
}

TEST_CASE("behaviour: a new first tool for all agents of a model is a shift of ways") {
    Fleet fleet(13, 6);
    fleet.run(100, {});
    Fleet::Habits h;
    h.way = "browse";
    fleet.run(30, h);
    REQUIRE(fleet.count("behaviour.way") == 1);
    CHECK(fleet.of("behaviour.way")[0].direction == Direction::none);
}

TEST_CASE("behaviour: tasks begun anew after a failure are retries, in their session and within the hour") {
    Fleet fleet(17, 1);
    const auto session = [&](int tries) {
        const std::string name = "s" + std::to_string(++fleet.tasks);
        for (int i = 0; i < tries; ++i) {
            fleet.now += 60;
            const std::string task = name + "-" + std::to_string(i);
            const auto of = [&](std::string_view type) {
                return fleet.event(type, fleet.now).str("task", task).str("session", name).str("agent", "helper");
            };
            fleet.send(of("task_started"));
            const bool ok = i + 1 == tries;
            fleet.send(of(ok ? "task_completed" : "task_failed").set("ok", boolean(ok)));
        }
    };
    for (int i = 0; i < 200; ++i) session(i % 20 == 0 ? 2 : 1);
    CHECK(fleet.told().empty());
    for (int i = 0; i < 60; ++i) session(i % 2 == 0 ? 3 : 1);
    REQUIRE(fleet.count("behaviour.retried") == 1);
    CHECK(fleet.of("behaviour.retried")[0].value > 0.3);
    CHECK(fleet.of("behaviour.retried")[0].expected < 0.1);
}

TEST_CASE("behaviour: a new model for an agent is the known cause of its shift") {
    Fleet fleet(19, 1);
    fleet.run(150, {});
    Fleet::Habits h;
    h.slower = 3;
    h.model = "m2";
    fleet.run(60, h);
    const auto own = fleet.carried_by("the agent itself");
    REQUIRE(own.size() == 1);
    CHECK(own[0].message.find("known cause: the model changed from 'm1' to 'm2'") != std::string::npos);
}

TEST_CASE("behaviour: success that falls by one in a hundred a day is found, though no day or week shows it") {
    std::vector<double> days;
    std::size_t alone = 0;
    for (std::uint64_t seed = 1; seed <= 7; ++seed) {
        Fleet fleet(seed, 10);
        const double gap = kDay / 500;  // 50 tasks a day for each of ten agents
        for (int day = 0; day < 10; ++day) fleet.run(50, {}, 0, gap);
        REQUIRE(fleet.count("behaviour.success") == 0);
        int day = 0;
        while (day < 60 && fleet.count("behaviour.success") == 0) {
            Fleet::Habits worse;
            worse.success = 0.85 - 0.01 * ++day;
            fleet.run(50, worse, 0, gap);
        }
        days.push_back(day);
        alone += fleet.count("outcome.success") + fleet.count("outcome.mix");
    }
    std::sort(days.begin(), days.end());
    MESSAGE("one point a day, ten agents of 50 tasks a day: found after " << days[3] << " days, at most " << days[6]
                                                                      << "; agents told by themselves by then: "
                                                                      << alone << " of 70");
    CHECK(days[3] <= 17);
    CHECK(days[6] <= 24);
}

TEST_CASE("behaviour: days that swing are learned, not told for ever") {
    Fleet fleet(23, 4);
    std::size_t late = 0;
    for (int day = 0; day < 30; ++day) {
        const std::size_t before = fleet.told().size();
        for (int i = 0; i < 200; ++i) {
            Fleet::Habits h;
            h.slower = i < 100 ? 1.0 : 1.5;
            fleet.run(1, h, 0, kDay / 800);
        }
        if (day >= 10) late += fleet.told().size() - before;
    }
    MESSAGE(fleet.told().size() << " shifts said of 30 days that swing by half, " << late << " after the tenth");
    CHECK(late <= 4);
}

TEST_CASE("behaviour: state resumes bit by bit, damaged state is refused, and a hostile stream changes nothing") {
    Fleet one(29, 4);
    one.run(60, {});
    Writer writer(1, 1);
    one.plane.save(writer);
    const auto bytes = writer.finish();
    Fleet two(29, 4);
    Reader reader(bytes, 1, 1);
    two.plane.load(reader);
    two.resume(one);
    two.random = one.random;
    two.tasks = one.tasks;
    two.now = one.now;
    Fleet::Habits h;
    h.slower = 3;
    for (Fleet* each : {&one, &two}) each->run(30, h);
    REQUIRE(!two.told().empty());
    REQUIRE(one.told().size() == two.told().size());
    CHECK(one.told().back().id == two.told().back().id);
    CHECK(one.told().back().bits == two.told().back().bits);

    Fleet hostile(31, 2);
    hostile.run(40, {});
    for (int i = 0; i < 40'000; ++i) {
        const std::string name = "x" + std::to_string(i);
        hostile.send(hostile.event("tool_returned", hostile.now + i * 0.001).str("tool", name).str("agent", name).str(
            "model", name).num("duration_ns", std::numeric_limits<std::int64_t>::max()).num("result_len", 4294967295));
    }
    for (const double score : {1e300, -1e300, 0.0}) {
        hostile.send(hostile.event("user_feedback", hostile.now + 60).str("agent", "x").set("score", real(score)));
    }
    hostile.send(hostile.event("task_completed", hostile.now - 1e6).str("task", "x").num("duration_ns", -5));
    CHECK(hostile.told().empty());
}
