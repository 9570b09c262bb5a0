#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <vector>

#include "engine/fusion.hpp"

using argus::detectors::Scale;
using argus::engine::Fusion;

namespace {

// One series that has moved between 0 and 100 and rests at 50; channels: a step, two of a row, one of 3 and 30 rows.
struct One {
    Fusion fusion{1, std::vector<Scale>{Scale::step, Scale::row, Scale::row, Scale::rows_3, Scale::rows_30}};

    One() {
        for (int i = 0; i < 200; ++i) learn(i % 2 == 0 ? 0.0F : 100.0F);
        for (int i = 0; i < 400; ++i) learn(50.0F);
    }
    void learn(float x) { fusion.learn(std::array<float, 1>{x}); }

    struct Fused {
        float row;
        float evidence;
    };
    Fused fuse(float x, const std::array<float, 5>& bits) {
        std::array<float, 1> row{};
        std::array<float, 1> evidence{};
        fusion.fuse(std::array<float, 1>{x}, std::array<std::uint32_t, 5>{0, 1, 2, 3, 4}, bits, row, evidence);
        return {row[0], evidence[0]};
    }
};

}  // namespace

TEST_CASE("fusion: a row's bits are its strongest channel and 0.3 of the other channels of the row") {
    One one;
    CHECK(one.fuse(100.0F, {5.0F, 10.0F, 6.0F, 50.0F, 50.0F}).row == doctest::Approx(10.0F + 0.3F * 11.0F));
    CHECK(one.fuse(100.0F, {0.0F, 0.0F, 0.0F, 50.0F, 0.0F}).row == 0.0F);
}

TEST_CASE("fusion: evidence takes the strongest channel of each time scale") {
    One one;
    CHECK(one.fuse(100.0F, {5.0F, 10.0F, 6.0F, 7.0F, 2.0F}).evidence == doctest::Approx(10.0F + 0.3F * 14.0F));
    CHECK(one.fuse(100.0F, {0.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence == 0.0F);
}

TEST_CASE("fusion: a departure below 3 % of the span sinks, never below zero and by at most ten bits") {
    One one;
    const float full = one.fuse(60.0F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence;
    CHECK(full == doctest::Approx(20.0F));
    const float small = one.fuse(50.75F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence;
    CHECK(small == doctest::Approx(18.0F).epsilon(0.02));
    CHECK(one.fuse(50.0F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence == doctest::Approx(10.03F).epsilon(0.01));
    CHECK(one.fuse(50.0F, {5.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence == 0.0F);
    CHECK(one.fuse(50.0F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).row == 20.0F);  // the row's own bits do not
}

TEST_CASE("fusion: missing values teach nothing; a reset slot starts anew; saved and loaded it goes on") {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    One one;
    const float before = one.fuse(51.0F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence;
    for (int i = 0; i < 50; ++i) one.learn(kNan);
    CHECK(one.fuse(51.0F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence == before);
    argus::Writer writer(1, 1);
    one.fusion.save(writer);
    const auto bytes = writer.finish();
    One other;
    other.fusion.reset(std::array<std::uint32_t, 1>{0});
    CHECK(other.fuse(51.0F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence != before);
    argus::Reader reader(bytes, 1, 1);
    other.fusion.load(reader);
    CHECK(reader.done());
    CHECK(other.fuse(51.0F, {20.0F, 0.0F, 0.0F, 0.0F, 0.0F}).evidence == before);
}
