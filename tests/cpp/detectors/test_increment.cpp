#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>

#include "detectors/detector.hpp"

using namespace argus::detectors;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct One {
    std::unique_ptr<Detector> detector = increment_detector.make(1, {});

    std::array<float, 2> score(float x) const {  // from the last value, from the third last
        std::array<float, 2> statistic{};
        detector->score({std::array<float, 1>{x}, {}, 0, 0, 60.0}, statistic);
        return statistic;
    }
    void learn(float x, std::uint8_t mask = kLearn) {
        detector->learn({std::array<float, 1>{x}, {}, 0, 0, 60.0}, std::array<std::uint8_t, 1>{mask});
    }
};

}  // namespace

TEST_CASE("increment: jumps from the last and the third last value, none before the first") {
    One one;
    CHECK(one.score(7.0F) == std::array<float, 2>{0.0F, 0.0F});
    for (const float x : {1.0F, 2.0F, 4.0F}) one.learn(x);
    CHECK(one.score(10.0F) == std::array<float, 2>{6.0F, 9.0F});
    CHECK(std::isnan(one.score(kNan)[0]));
}

TEST_CASE("increment: the last values follow under every mask") {
    One one;
    for (const float x : {1.0F, 2.0F, 4.0F}) one.learn(x, kLearnNothing);
    CHECK(one.score(10.0F) == std::array<float, 2>{6.0F, 9.0F});
}

TEST_CASE("increment: over three missing values it still jumps, over four it starts anew") {
    for (const int missing : {3, 4}) {
        One one;
        for (const float x : {5.0F, 5.0F, 5.0F}) one.learn(x);
        for (int i = 0; i < missing; ++i) one.learn(kNan);
        CHECK(one.score(9.0F)[0] == (missing == 3 ? 4.0F : 0.0F));
        one.learn(9.0F);
        CHECK(one.score(10.0F)[0] == 1.0F);
        CHECK(one.score(10.0F)[1] == (missing == 3 ? 5.0F : 1.0F));
    }
}
