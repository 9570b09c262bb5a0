#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "leaf_rows.hpp"

using namespace leaf_rows;

namespace {

constexpr std::uint32_t kMany = 400;

std::vector<float> normal(std::mt19937& engine, float mean, float deviation) {
    std::normal_distribution<float> draw(mean, deviation);
    std::vector<float> values(kMany);
    for (float& value : values) value = draw(engine);
    return values;
}

int median_delay(float mean, float deviation, float bar) {
    std::mt19937 engine(5);
    Alone variance(variance_detector, kMany);
    for (int r = 0; r < 3000; ++r) variance.row(normal(engine, 0.0F, 1.0F));
    std::vector<int> delay(kMany, 1000);
    for (int r = 1; r <= 200; ++r) {
        const auto& bits = variance.row(normal(engine, mean, deviation));
        for (std::size_t i = 0; i < kMany; ++i) {
            if (bits[i] >= bar) delay[i] = std::min(delay[i], r);
        }
    }
    std::nth_element(delay.begin(), delay.begin() + kMany / 2, delay.end());
    return delay[kMany / 2];
}

}  // namespace

TEST_CASE("variance: three times the deviation is seen within 8 rows, a third of it within 40") {
    CHECK(median_delay(0.0F, 3.0F, 11.0F) <= 8);
    CHECK(median_delay(0.0F, 0.33F, 11.0F) <= 40);
}

TEST_CASE("variance: a level that moves by one deviation is another detector's") {
    CHECK(median_delay(1.0F, 1.0F, 11.0F) > 200);
}
