#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "leaf_rows.hpp"

using namespace leaf_rows;

namespace {

constexpr std::uint32_t kMany = 500;

template <class Draw>
std::vector<float> counts(std::mt19937& engine, Draw draw) {
    std::vector<float> values(kMany);
    for (float& value : values) value = static_cast<float>(draw(engine));
    return values;
}

}  // namespace

TEST_CASE("rate: 1 to 3 percent of 100 trials is seen within 8 rows at 2^13.3 rows to a false alarm") {
    std::mt19937 engine(8);
    Alone rate(rate_detector, kMany);
    const std::vector<float> trials(kMany, 100.0F);
    const float bar = 13.3F;
    Onsets onsets(kMany);
    int alarms = 0;
    for (int r = 0; r < 6000; ++r) {
        const auto& bits = rate.row(counts(engine, std::binomial_distribution<int>(100, 0.01)), kLearn, trials);
        const int begun = onsets(r, bits, bar);
        alarms += r >= 2000 ? begun : 0;
    }
    MESSAGE("alarms of 200 " << alarms);
    CHECK(alarms <= static_cast<int>(kMany) * 4000 / 10000);
    std::vector<int> delay(kMany, 1000);
    for (int r = 1; r <= 60; ++r) {
        const auto& bits = rate.row(counts(engine, std::binomial_distribution<int>(100, 0.03)), kLearn, trials);
        for (std::size_t i = 0; i < kMany; ++i) {
            if (bits[i] >= bar) delay[i] = std::min(delay[i], r);
        }
    }
    std::nth_element(delay.begin(), delay.begin() + kMany / 2, delay.end());
    MESSAGE("median delay " << delay[kMany / 2]);
    CHECK(delay[kMany / 2] <= 9);
}

TEST_CASE("rate: Poisson counts that stop are seen, and so are those that double") {
    for (const double after : {0.5, 10.0}) {
        std::mt19937 engine(9);
        Alone rate(rate_detector, kMany);
        for (int r = 0; r < 3000; ++r) rate.row(counts(engine, std::poisson_distribution<int>(4.0)));
        float least = 1e9F;
        for (int r = 0; r < 30; ++r) {
            const auto& bits = rate.row(counts(engine, std::poisson_distribution<int>(after)));
            least = *std::min_element(bits.begin(), bits.begin() + kMany);
        }
        CHECK(least > 13.3F);
    }
}

TEST_CASE("rate: negative counts, rows without trials and counts above their trials are harmless") {
    Alone rate(rate_detector, kMany);
    const std::vector<float> none(kMany, 0.0F);
    const std::vector<float> ten(kMany, 10.0F);
    for (int r = 0; r < 200; ++r) {
        CHECK(std::isnan(rate.row(std::vector<float>(kMany, 1.0F), kLearn, none)[0]));
        CHECK(std::isnan(rate.row(-1.0F)[0]));
        CHECK(std::isfinite(rate.row(std::vector<float>(kMany, 50.0F), kLearn, ten)[0]));
    }
}
