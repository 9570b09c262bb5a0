#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "detectors/detector.hpp"

using namespace argus::detectors;

namespace {

// A residual detector of one slot with default options.
struct One {
    std::unique_ptr<Detector> detector = residual_detector.make(1, std::array<double, 3>{0.005, 0.05, 6.0});

    std::array<float, 5> score(float x) const {  // row, 3, 10, 30 rows, fast level
        std::array<float, 5> statistic{};
        detector->score({std::array<float, 1>{x}, {}, 0}, statistic);
        return statistic;
    }
    void learn(float x, std::uint8_t mask = kLearn) {
        detector->learn({std::array<float, 1>{x}, {}, 0}, std::array<std::uint8_t, 1>{mask});
    }
    std::array<float, 2> expected_and_scale() const {
        std::array<float, 1> expected{};
        std::array<float, 1> scale{};
        CHECK(detector->forecast(expected, scale));
        return {expected[0], scale[0]};
    }
    void teach_noise(int rows, float level = 0.0F, unsigned seed = 1) {
        std::mt19937 engine(seed);
        std::normal_distribution<float> normal;
        for (int i = 0; i < rows; ++i) learn(level + normal(engine));
    }
};

}  // namespace

TEST_CASE("residual: nothing is known before the first value") {
    const One one;
    for (const float y : one.score(1.0F)) CHECK(y == 0.0F);
    for (const float y : one.score(std::numeric_limits<float>::quiet_NaN())) CHECK(std::isnan(y));
    CHECK(std::isnan(one.expected_and_scale()[0]));
}

TEST_CASE("residual: while young the level is the mean of what was seen") {
    One one;
    for (const float x : {1.0F, 2.0F, 3.0F, 6.0F}) one.learn(x);
    CHECK(one.expected_and_scale()[0] == doctest::Approx(3.0F));
    CHECK(one.score(5.0F)[0] == doctest::Approx(2.0F));
}

TEST_CASE("residual: level and scale settle at the mean and mean absolute deviation of noise") {
    One one;
    one.teach_noise(20000, 7.0F);
    const auto [expected, scale] = one.expected_and_scale();
    CHECK(expected == doctest::Approx(7.0F).epsilon(0.05));
    CHECK(scale == doctest::Approx(std::sqrt(2.0 / 3.14159265)).epsilon(0.2));
}

TEST_CASE("residual: one outlier moves neither level nor scale by more than a cut residual does") {
    One one;
    one.teach_noise(2000);
    const auto before = one.expected_and_scale();
    one.learn(1e6F);
    const auto after = one.expected_and_scale();
    CHECK(std::fabs(after[0] - before[0]) <= 6.0F * before[1] * 0.00501F);
    CHECK(after[1] - before[1] <= 5.0F * before[1] * 0.00501F);
}

TEST_CASE("residual: the running means see a small lasting step that no single value shows") {
    One one;
    one.teach_noise(3000);
    const float rest = one.score(0.0F)[2];
    for (int i = 0; i < 30; ++i) one.learn(1.5F);
    CHECK(one.score(1.5F)[0] < 2.0F);
    CHECK(one.score(1.5F)[2] > 1.0F);
    CHECK(one.score(1.5F)[3] > 0.7F);
    CHECK(one.score(1.5F)[4] < 1.0F);  // the fast level has followed
    CHECK(rest < 0.8F);
}

TEST_CASE(
    "residual: masked, the level stays and the running means follow; they also fall when the values return") {
    One one;
    one.teach_noise(2000);
    const auto before = one.expected_and_scale();
    for (int i = 0; i < 50; ++i) one.learn(4.0F, kLearnNothing);
    CHECK(one.expected_and_scale() == before);
    CHECK(one.score(4.0F)[2] > 3.0F);
    for (int i = 0; i < 50; ++i) one.learn(0.0F, kLearnNothing);
    CHECK(one.score(0.0F)[2] < 0.3F);
}

TEST_CASE("residual: a new normal is taken at once") {
    One one;
    one.teach_noise(2000);
    one.learn(100.0F, kLearnAnew);
    CHECK(one.expected_and_scale()[0] == doctest::Approx(100.0F));
    CHECK(one.score(100.0F)[2] < 0.5F);
    CHECK(one.score(100.0F)[4] < 0.5F);
    one.teach_noise(200, 102.0F);
    CHECK(one.expected_and_scale()[0] == doctest::Approx(102.0F).epsilon(0.01));
}

TEST_CASE("residual: a constant series that starts to move is learned again") {
    One one;
    for (int i = 0; i < 5000; ++i) one.learn(3.0F);
    CHECK(one.expected_and_scale() == std::array<float, 2>{3.0F, 0.0F});
    one.teach_noise(1500, 5.0F);
    CHECK(one.expected_and_scale()[0] == doctest::Approx(5.0F).epsilon(0.1));
    CHECK(one.expected_and_scale()[1] == doctest::Approx(0.8F).epsilon(0.3));
}
