#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <random>

#include "detectors/detector.hpp"

using namespace argus::detectors;
using argus::kSecond;
using argus::Nanos;

namespace {

// A season detector of one series, a value every `minutes`, from Thursday, 1970-01-01 00:00 UTC.
struct One {
    int minutes = 10;
    std::int64_t row = 0;
    std::unique_ptr<Detector> detector = season_detector.make(1, std::array<double, 1>{0.63});

    [[nodiscard]] Nanos wall() const { return row * minutes * 60 * kSecond; }
    [[nodiscard]] double hour_of_day() const { return static_cast<double>(row * minutes % 1440) / 60.0; }

    std::array<float, 8> score(float x) const {  // day: row, 3, 10, 30; week: the same
        std::array<float, 8> statistic{};
        detector->score({std::array<float, 1>{x}, {}, wall(), wall(), minutes * 60.0}, statistic);
        return statistic;
    }
    void learn(float x, std::uint8_t mask = kLearn) {
        detector->learn({std::array<float, 1>{x}, {}, wall(), wall(), minutes * 60.0},
                        std::array<std::uint8_t, 1>{mask});
        ++row;
    }
};

// 100 by day, 10 by night, and noise.
struct Shop {
    std::mt19937 engine{5};
    std::normal_distribution<float> normal;
    float operator()(double hour) { return (hour >= 8.0 && hour < 20.0 ? 100.0F : 10.0F) + normal(engine); }
};

}  // namespace

TEST_CASE("season: a value usual at noon is far from usual at midnight") {
    for (const int minutes : {1, 5, 10, 60}) {
        One one{.minutes = minutes};
        Shop shop;
        while (one.wall() < 21 * 86400 * kSecond) one.learn(shop(one.hour_of_day()));
        CAPTURE(minutes);
        REQUIRE(one.hour_of_day() == 0.0);
        CHECK(one.score(10.0F)[0] < 2.0F);
        CHECK(one.score(10.0F)[4] < 2.0F);
        CHECK(one.score(100.0F)[0] > 85.0F);
        CHECK(one.score(100.0F)[4] > 85.0F);
    }
}

TEST_CASE("season: the hour of the week knows the weekend, the hour of the day does not") {
    One one;
    std::mt19937 engine(6);
    std::normal_distribution<float> normal;
    while (one.wall() < 56 * 86400 * kSecond) {
        const std::int64_t weekday = (one.wall() / (86400 * kSecond) + 3) % 7;  // 0 = Monday
        one.learn((weekday >= 5 ? 5.0F : 50.0F) + normal(engine));
    }
    while (one.wall() < 58 * 86400 * kSecond + 43200 * kSecond) {  // Saturday, noon
        const std::int64_t weekday = (one.wall() / (86400 * kSecond) + 3) % 7;
        one.learn((weekday >= 5 ? 5.0F : 50.0F) + normal(engine));
    }
    const auto statistic = one.score(5.0F);
    CHECK(std::fabs(statistic[4]) < 3.0F);
    CHECK(std::fabs(statistic[0]) > 10.0F);
}

TEST_CASE("season: where it explains nothing it abstains") {
    One one;
    std::mt19937 engine(7);
    std::normal_distribution<float> normal;
    int abstained = 0;
    for (int i = 0; i < 6000; ++i) {
        const float x = normal(engine);
        if (i >= 3000) abstained += std::signbit(one.score(x)[0]) ? 1 : 0;
        one.learn(x);
    }
    CHECK(abstained > 2900);
}

TEST_CASE("season: a new normal keeps the shape of the day") {
    One one;
    Shop shop;
    while (one.wall() < 14 * 86400 * kSecond) one.learn(shop(one.hour_of_day()));
    one.learn(shop(0.0) + 500.0F, kLearnAnew);
    for (int hour = 1; hour < 24; ++hour) {
        while (one.hour_of_day() < hour) ++one.row;
        CAPTURE(hour);
        CHECK(std::fabs(one.score((hour >= 8 && hour < 20 ? 100.0F : 10.0F) + 500.0F)[0]) < 8.0F);
    }
}

TEST_CASE("season: masked, the usual values stay and the running means follow") {
    One one;
    Shop shop;
    while (one.wall() < 14 * 86400 * kSecond) one.learn(shop(one.hour_of_day()));
    for (int i = 0; i < 5; ++i) one.learn(400.0F, kLearnNothing);
    CHECK(std::fabs(one.score(10.0F)[0]) < 3.0F);
    CHECK(std::fabs(one.score(400.0F)[1]) > 300.0F);
}

TEST_CASE("season: times before 1970 and clock steps stay in their hours") {
    One one;
    one.row = -6 * 24 * 7 * 3;
    Shop shop;
    const auto day_hour = [&] {
        const double hour = std::fmod(static_cast<double>(one.row) / 6.0, 24.0);
        return hour < 0.0 ? hour + 24.0 : hour;
    };
    while (one.row < 0) one.learn(shop(day_hour()));
    CHECK(std::fabs(one.score(10.0F)[0]) < 3.0F);
    one.row -= 6 * 12;  // twelve hours back: noon
    CHECK(std::fabs(one.score(100.0F)[0]) < 3.0F);
}
