#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <vector>

#include "ring/history.hpp"

using argus::Nanos;
using argus::ring::History;

TEST_CASE("history: slots and rows must be at least one") {
    CHECK_THROWS_AS(History<float>(0, 4), std::invalid_argument);
    CHECK_THROWS_AS(History<float>(4, 0), std::invalid_argument);
}

TEST_CASE("history: a slot's values come back oldest first, before and after the ring wraps") {
    History<double> history(3, 4);
    std::array<Nanos, 8> times{};
    std::array<double, 8> values{};
    CHECK(history.copy(0, times, values) == 0);
    for (int row = 0; row < 11; ++row) {
        const std::array<double, 3> values_in{1.0 * row, 10.0 * row, 100.0 * row};
        history.push(std::span<const double>(values_in), row * 5);
        const std::size_t held = std::min<std::size_t>(static_cast<std::size_t>(row) + 1, 4);
        REQUIRE(history.copy(1, times, values) == held);
        for (std::size_t i = 0; i < held; ++i) {
            const int from = row + 1 - static_cast<int>(held) + static_cast<int>(i);
            CHECK(times[i] == from * 5);
            CHECK(values[i] == 10.0 * from);
        }
    }
    CHECK(history.size() == 4);
}

TEST_CASE("history: a short destination gets the newest rows") {
    History<float> history(1, 8);
    for (int row = 0; row < 6; ++row) {
        const std::array<double, 1> one{1.0 * row};
        history.push(std::span<const double>(one), row);
    }
    std::array<Nanos, 2> times{};
    std::array<float, 2> values{};
    CHECK(history.copy(0, times, values) == 2);
    CHECK(values[0] == 4.0F);
    CHECK(values[1] == 5.0F);
    CHECK(times[1] == 5);
}

TEST_CASE("history: a reset slot is not observed, its neighbours keep their past") {
    History<float> history(2, 3);
    for (int row = 0; row < 5; ++row) {
        const std::array<float, 2> both{1.0F, 2.0F};
        history.push(std::span<const float>(both), row);
    }
    const std::array<std::uint32_t, 1> slots{0};
    history.reset(slots);
    std::array<Nanos, 3> times{};
    std::array<float, 3> values{};
    CHECK(history.copy(0, times, values) == 3);
    for (const float value : values) CHECK(std::isnan(value));
    CHECK(history.copy(1, times, values) == 3);
    for (const float value : values) CHECK(value == 2.0F);
}
