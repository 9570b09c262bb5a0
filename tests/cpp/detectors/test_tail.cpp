#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "leaf_rows.hpp"

using namespace leaf_rows;

namespace {

constexpr std::uint32_t kMany = 300;

std::vector<float> durations(std::mt19937& engine, float slow_share) {
    std::normal_distribution<float> normal(0.0F, 2.0F);
    std::uniform_real_distribution<float> uniform;
    std::vector<float> values(kMany);
    for (float& value : values) value = std::exp(normal(engine)) * (uniform(engine) < slow_share ? 30.0F : 1.0F);
    return values;
}

}  // namespace

TEST_CASE("tail: heavy tails alone are quiet; a fifth of all values slowed thirtyfold is seen") {
    std::mt19937 engine(10);
    Alone tail(tail_detector, kMany);
    Onsets onsets(kMany);
    int loud = 0;
    for (int r = 0; r < 6000; ++r) {
        const auto& bits = tail.row(durations(engine, 0.0F));
        loud += onsets(r, bits, 14.0F);
    }
    CHECK(loud <= static_cast<int>(kMany) * 6000 / 10000);
    std::vector<int> delay(kMany, 1000);
    for (int r = 1; r <= 400; ++r) {
        const auto& bits = tail.row(durations(engine, 0.2F));
        for (std::size_t i = 0; i < kMany; ++i) {
            if (bits[i] >= 14.0F) delay[i] = std::min(delay[i], r);
        }
    }
    std::nth_element(delay.begin(), delay.begin() + kMany / 2, delay.end());
    CHECK(delay[kMany / 2] <= 120);
}

TEST_CASE("tail: a constant, zeros and negative values have no tail") {
    for (const float value : {5.0F, 0.0F, -3.0F}) {
        Alone tail(tail_detector, 1);
        for (int r = 0; r < 2000; ++r) CHECK(tail.row(value)[0] == 0.0F);
    }
}
