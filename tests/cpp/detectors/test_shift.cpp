#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "leaf_rows.hpp"

using namespace leaf_rows;

namespace {

constexpr std::uint32_t kMany = 400;
constexpr float kBar = 14.5F;  // one false alarm in 10,000 normal rows: bench_leaf_delay

std::vector<float> normal(std::mt19937& engine, float mean) {
    std::normal_distribution<float> draw(mean, 1.0F);
    std::vector<float> values(kMany);
    for (float& value : values) value = draw(engine);
    return values;
}

}  // namespace

TEST_CASE("shift: evidence passes its bar within some 25 rows of one sigma and 4 of five, median, either way") {
    for (const float by : {1.0F, -1.0F, 5.0F, -5.0F}) {
        std::mt19937 engine(3);
        Alone shift(shift_detector, kMany);
        for (int r = 0; r < 3000; ++r) shift.row(normal(engine, 100.0F));
        std::vector<int> delay(kMany, 1000);
        for (int r = 1; r <= 100; ++r) {
            const auto& bits = shift.row(normal(engine, 100.0F + by));
            for (std::size_t i = 0; i < kMany; ++i) {
                if (bits[i] >= kBar) delay[i] = std::min(delay[i], r);
            }
        }
        std::nth_element(delay.begin(), delay.begin() + kMany / 2, delay.end());
        CAPTURE(by);
        CHECK(delay[kMany / 2] <= (by * by > 4.0F ? 4 : 25));
    }
}

TEST_CASE("shift: a level told to be the new normal is no evidence any more; without it, evidence stays") {
    for (const std::uint8_t what : {kLearnAnew, kLearnNothing}) {
        std::mt19937 engine(4);
        Alone shift(shift_detector, kMany);
        for (int r = 0; r < 2000; ++r) shift.row(normal(engine, 0.0F));
        for (int r = 0; r < 60; ++r) shift.row(normal(engine, 4.0F), kLearnNothing);
        shift.row(normal(engine, 4.0F), what);
        float middle = 0.0F;
        for (int r = 0; r < 20; ++r) {
            auto bits = shift.row(normal(engine, 4.0F), what == kLearnAnew ? kLearn : kLearnNothing);
            std::nth_element(bits.begin(), bits.begin() + kMany / 2, bits.begin() + kMany);
            middle = bits[kMany / 2];
        }
        CHECK((what == kLearnAnew ? middle < 10.0F : middle > 60.0F));
    }
}
