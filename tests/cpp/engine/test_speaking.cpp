#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/speaking.hpp"

using namespace argus::engine;
using argus::kSecond;
using Kind = GateEvent::Kind;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A gate of one slot, fed evidence row by row.
struct One {
    Gate gate{1, PolicyOptions{}};
    std::int64_t row = 0;
    std::array<float, 1> alarm{};

    std::vector<GateEvent> pass(float evidence, float value = 1.0F) {
        const auto events =
            gate.pass(row++, {std::array<float, 1>{value}, std::array<float, 1>{evidence}, alarm});
        return {events.begin(), events.end()};
    }
};

Alarm alarm(std::uint32_t slot, Kind kind, float strength) {
    Alarm made{.row = 0, .kind = kind, .strength = strength, .said = {}};
    made.said.slot = slot;
    made.said.bits = strength;
    made.said.value = 3.0;
    made.said.expected = 1.0;
    return made;
}

}  // namespace

TEST_CASE("gate: an incident opens once, goes on and ends after ten calm rows") {
    One one;
    for (int i = 0; i < 50; ++i) CHECK(one.pass(0.0F).empty());
    auto events = one.pass(30.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::opens);
    CHECK(one.alarm[0] == 30.0F);
    events = one.pass(30.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::goes_on);
    CHECK(one.alarm[0] == 0.0F);
    for (int calm = 1; calm < 10; ++calm) CHECK(one.pass(1.0F).empty());
    events = one.pass(1.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::ends);
}

TEST_CASE("gate: within the hold-off nothing opens again, after it something does") {
    One one;
    one.pass(30.0F);
    for (int i = 1; i < 60; ++i) one.pass(0.0F);
    auto events = one.pass(30.0F);  // row 60
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::resumes);
    CHECK(one.alarm[0] == 0.0F);
    for (int i = 61; i < 120; ++i) one.pass(0.0F);
    events = one.pass(30.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::opens);
    CHECK(one.alarm[0] >= 30.0F);
}

TEST_CASE("gate: an incident that outlasts the hold-off raises its alarm again, not its onset") {
    One one;
    int alarms = 0;
    int opened = 0;
    for (int i = 0; i < 310; ++i) {
        const auto events = one.pass(40.0F);
        REQUIRE(events.size() == 1);
        opened += events[0].kind == Kind::opens ? 1 : 0;
        alarms += one.alarm[0] > 0.0F ? 1 : 0;
    }
    CHECK(opened == 1);
    CHECK(alarms == 4);  // rows 0, 101, 202, 303
}

TEST_CASE("gate: evidence that lasts grows stronger than its rows, by 0.4 of its running mean") {
    One one;
    std::vector<GateEvent> events;
    for (int i = 0; i < 200; ++i) events = one.pass(20.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].strength == doctest::Approx(28.0F).epsilon(0.01));
}

TEST_CASE("gate: a missing value is silent and leaves the running mean alone") {
    One one;
    for (int i = 0; i < 60; ++i) one.pass(14.0F);
    for (int i = 0; i < 100; ++i) CHECK(one.pass(0.0F, kNan).empty());
    const auto events = one.pass(17.0F);  // 17 + 0.4 x 14 > 22: only the rows before the gap make it loud
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::opens);
}

TEST_CASE("gate: a reset slot has no incident") {
    One one;
    one.pass(30.0F);
    const std::array<std::uint32_t, 1> slots{0};
    one.gate.reset(slots);
    const auto events = one.pass(30.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::opens);
}

TEST_CASE("cadence: the median interval, untouched by a gap") {
    Cadence cadence;
    CHECK(cadence.median_s() == 0.0);
    for (int i = 0; i < 20; ++i) cadence.push(i * 5 * kSecond);
    cadence.push(10'000 * kSecond);
    CHECK(cadence.median_s() == 5.0);
}

TEST_CASE("speaker: the threshold spends the budget over all live series and rows") {
    const Speaker speaker(4, {}, 2.0);
    CHECK(speaker.threshold(100, 1.0) == doctest::Approx(1.6 * std::log2(100 * 86400.0 / 2.0)).epsilon(1e-6));
    CHECK(speaker.threshold(200, 1.0) == doctest::Approx(speaker.threshold(100, 1.0) + 1.6).epsilon(1e-6));
    CHECK(std::isinf(speaker.threshold(0, 1.0)));
    CHECK(std::isinf(speaker.threshold(5, 0.0)));
    CHECK(Speaker(4, {}, 1e6).threshold(1, 60.0) == PolicyOptions{}.incident_bits);
}

TEST_CASE("speaker: one onset and one end an incident, at the first row that reaches the threshold") {
    Speaker speaker(2, {}, 1.0);
    const std::uint64_t live = 1;
    const double bar = speaker.threshold(live, 60.0);
    const auto below = static_cast<float>(bar) - 1.0F;
    const auto above = static_cast<float>(bar) + 1.0F;
    auto opens = alarm(1, Kind::opens, below);
    CHECK_FALSE(speaker.hear(opens, 0, 100 * kSecond, live, 60.0));
    auto loud = alarm(1, Kind::goes_on, above);
    REQUIRE(speaker.hear(loud, 1, 160 * kSecond, live, 60.0));
    CHECK(loud.said.onset);
    CHECK(loud.said.since_wall == 100 * kSecond);
    CHECK(loud.said.direction == argus::Direction::up);
    CHECK(loud.said.false_alarm_interval_s ==
          doctest::Approx(60.0 * std::exp2(static_cast<double>(above) / 1.6)).epsilon(1e-4));
    CHECK(loud.said.false_alarm_interval_s >= 86400.0);
    auto louder = alarm(1, Kind::goes_on, above + 5.0F);
    CHECK_FALSE(speaker.hear(louder, 2, 220 * kSecond, live, 60.0));
    auto ends = alarm(1, Kind::ends, 0.0F);
    REQUIRE(speaker.hear(ends, 12, 800 * kSecond, live, 60.0));
    CHECK_FALSE(ends.said.onset);
    CHECK(ends.said.since_wall == 100 * kSecond);
    CHECK_FALSE(speaker.hear(ends, 13, 860 * kSecond, live, 60.0));
}

TEST_CASE("speaker: an incident whose onset was not spoken ends unspoken, and a hold-off parts two onsets") {
    Speaker speaker(1, {}, 1.0);
    auto weak = alarm(0, Kind::opens, 8.5F);
    CHECK_FALSE(speaker.hear(weak, 0, 0, 1, 60.0));
    auto ends = alarm(0, Kind::ends, 0.0F);
    CHECK_FALSE(speaker.hear(ends, 10, 0, 1, 60.0));
    auto strong = alarm(0, Kind::opens, 30.0F);
    CHECK(speaker.hear(strong, 200, 0, 1, 60.0));
    CHECK(speaker.hear(ends, 211, 0, 1, 60.0));
    CHECK_FALSE(speaker.hear(strong, 250, 0, 1, 60.0));
    CHECK(speaker.hear(strong, 300, 0, 1, 60.0));
}
