#include <doctest/doctest.h>

#include <random>

#include "leaf_rows.hpp"

using namespace leaf_rows;

namespace {

// Bits of the first missing rows after `rows` of a value in every `period`-th.
std::vector<float> after_regular(int rows, int period) {
    Alone silence(silence_detector, 1);
    for (int r = 0; r < rows; ++r) silence.row(r % period == 0 ? static_cast<float>(r) : kNan);
    silence.row(-1.0F);
    std::vector<float> bits;
    for (int r = 1; r <= 5 * period; ++r) bits.push_back(silence.row(kNan)[0]);
    return bits;
}

}  // namespace

TEST_CASE("silence: nothing before three usual intervals, then more bits with each row that is missing") {
    for (const int period : {1, 10, 60}) {
        const auto bits = after_regular(period * 2000, period);
        const auto third = static_cast<std::size_t>(3 * period - 1);
        CHECK(bits[third - 1] == 0.0F);
        CHECK(bits[third] > 30.0F);
        CHECK(bits.back() > bits[third]);
    }
}

TEST_CASE("silence: of fewer than 32 arrivals nothing is known") {
    for (const float bits : after_regular(300, 10)) CHECK(bits == 0.0F);
}

TEST_CASE("silence: a series that was never there, or is there, is not missing") {
    Alone silence(silence_detector, 1);
    for (int r = 0; r < 500; ++r) CHECK(silence.row(kNan)[0] == 0.0F);
    for (int r = 0; r < 500; ++r) CHECK(silence.row(static_cast<float>(r))[0] == 0.0F);
}

TEST_CASE("silence: a slower cadence is spoken of once or twice, then usual") {
    Alone silence(silence_detector, 1);
    int told = 0;
    for (int r = 0; r < 2000; ++r) silence.row(static_cast<float>(r));
    for (int arrival = 0; arrival < 40; ++arrival) {
        bool loud = false;
        for (int gap = 1; gap < 6; ++gap) loud |= silence.row(kNan)[0] > 25.0F;
        silence.row(static_cast<float>(arrival));
        told += loud ? 1 : 0;
    }
    CHECK(told >= 1);
    CHECK(told <= 3);
}

TEST_CASE("silence: a gauge that always moved is frozen when it stops; a constant, and one at rest, never are") {
    std::mt19937 engine(6);
    std::normal_distribution<float> draw(50.0F, 1.0F);
    Alone silence(silence_detector, 3);  // a day is 1,440 rows of a minute
    for (int r = 0; r < 2000; ++r) {
        const float moving = draw(engine);
        silence.row({moving, 7.0F, moving});
    }
    float frozen = 0.0F;
    for (int r = 0; r < 40; ++r) {
        const auto& bits = silence.row({50.0F, 7.0F, 0.0F});
        frozen = bits[3];
        CHECK(bits[4] == 0.0F);
        CHECK(bits[5] == 0.0F);
        if (r < 14) CHECK(frozen == 0.0F);
    }
    CHECK(frozen > 100.0F);
}

TEST_CASE("silence: noise with random gaps and repeats is quiet for 20,000 rows of 500 series") {
    std::mt19937 engine(7);
    Alone silence(silence_detector, 500);
    std::uniform_int_distribution<int> die(0, 9);
    std::vector<float> values(500);
    int loud = 0;
    for (int r = 0; r < 20000; ++r) {
        for (float& value : values) value = die(engine) < 3 ? kNan : static_cast<float>(1 + die(engine) / 3);
        for (const float bits : silence.row(values)) loud += bits > 34.0F ? 1 : 0;
    }
    CHECK(loud == 0);
}
