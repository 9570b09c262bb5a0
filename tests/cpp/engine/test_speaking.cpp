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
constexpr float kInf = std::numeric_limits<float>::infinity();

// A gate of one slot, fed evidence row by row.
struct One {
    Gate gate{1, PolicyOptions{}};
    std::int64_t row = 0;
    std::array<float, 1> level{kInf};
    std::array<float, 1> strength{};
    std::array<float, 1> alarm{};

    std::vector<GateEvent> pass(float evidence, float value = 1.0F) {
        const auto events = gate.pass(row++, {.values = std::array<float, 1>{value},
                                              .evidence = std::array<float, 1>{evidence},
                                              .level = level,
                                              .strength = strength,
                                              .alarm = alarm});
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

TEST_CASE("gate: within the hold-off no alarm is raised again, after it one is") {
    One one;
    one.pass(30.0F);
    for (int i = 1; i < 60; ++i) one.pass(0.0F);
    auto events = one.pass(30.0F);  // row 60
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::opens);
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

TEST_CASE("gate: a series that speaks below the alarm's strength opens there, and raises no alarm") {
    One one;
    one.level[0] = 5.0F;
    CHECK(one.pass(4.0F).empty());
    auto events = one.pass(6.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::opens);
    CHECK(one.alarm[0] == 0.0F);
    one.level[0] = 50.0F;
    events = one.pass(30.0F);
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == Kind::goes_on);
    CHECK(one.alarm[0] == one.strength[0]);
    one.pass(0.0F, kNan);
    CHECK(std::isnan(one.strength[0]));
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

TEST_CASE("speaker: a series of which nothing is known shares the budget with all live series and rows") {
    const Speaker speaker(4, {}, 2.0);
    CHECK(speaker.warming_level(100, 1.0) == doctest::Approx(1.6 * std::log2(100 * 86400.0 / 2.0)).epsilon(1e-6));
    CHECK(speaker.warming_level(200, 1.0) == doctest::Approx(speaker.warming_level(100, 1.0) + 1.6F).epsilon(1e-6));
    CHECK(std::isinf(speaker.warming_level(0, 1.0)));
    CHECK(std::isinf(speaker.warming_level(5, 0.0)));
    CHECK(Speaker(4, {}, 1e6).warming_level(1, 60.0) == PolicyOptions{}.incident_bits);
}

TEST_CASE("speaker: an onset is said where the budget lets it, and the end of what was said") {
    Speaker speaker(2, {}, 1.0);
    const float level = 30.0F;
    auto opens = alarm(1, Kind::opens, level - 1.0F);
    CHECK_FALSE(speaker.hear(opens, false, level, 100 * kSecond));
    auto loud = alarm(1, Kind::goes_on, level + 1.6F);
    REQUIRE(speaker.hear(loud, true, level, 160 * kSecond));
    CHECK(loud.said.onset);
    CHECK(loud.said.since_wall == 100 * kSecond);
    CHECK(loud.said.direction == argus::Direction::up);
    CHECK(loud.said.false_alarm_interval_s == doctest::Approx(2 * 86400.0).epsilon(1e-4));
    auto louder = alarm(1, Kind::goes_on, level + 5.0F);
    CHECK_FALSE(speaker.hear(louder, false, level, 220 * kSecond));
    auto ends = alarm(1, Kind::ends, 0.0F);
    REQUIRE(speaker.hear(ends, false, level, 800 * kSecond));
    CHECK_FALSE(ends.said.onset);
    CHECK(ends.said.since_wall == 100 * kSecond);
    CHECK_FALSE(speaker.hear(ends, false, level, 860 * kSecond));
}

TEST_CASE("speaker: an incident whose onset was not spoken ends unspoken") {
    Speaker speaker(1, {}, 1.0);
    auto weak = alarm(0, Kind::opens, 8.5F);
    CHECK_FALSE(speaker.hear(weak, false, 30.0F, 0));
    auto ends = alarm(0, Kind::ends, 0.0F);
    CHECK_FALSE(speaker.hear(ends, false, 30.0F, 0));
}
