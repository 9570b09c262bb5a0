#include <doctest/doctest.h>

#include <random>

#include "leaf_rows.hpp"

using namespace leaf_rows;

namespace {

constexpr std::uint32_t kTools = 6;

std::vector<float> calls(std::mt19937& engine, const std::vector<double>& weights) {
    std::discrete_distribution<std::size_t> pick(weights.begin(), weights.end());
    std::vector<float> counts(kTools, 0.0F);
    for (int call = 0; call < 3; ++call) counts[pick(engine)] += 1.0F;
    return counts;
}

}  // namespace

TEST_CASE("mix: other shares are seen within some 20 rows of three calls, and the category that moved is told") {
    std::mt19937 engine(11);
    Alone mix(mix_detector, kTools);
    float quiet = 0.0F;
    for (int r = 0; r < 5000; ++r) {
        const float z = mix.row(calls(engine, {40, 30, 15, 10, 5, 0}))[0];
        if (r > 500) quiet = std::max(quiet, z);
    }
    CHECK(quiet < 6.0F);
    float found = 0.0F;
    std::vector<float> last;
    for (int r = 0; r < 20; ++r) {
        last = mix.row(calls(engine, {10, 10, 15, 10, 5, 50}));
        found = last[0];
    }
    CHECK(found > 1.5F * quiet);
    for (std::uint32_t other = 0; other < 5; ++other) CHECK(last[kTools + 5] > last[kTools + other]);
}

TEST_CASE("mix: one category alone, and rows without calls, have no mix") {
    Alone mix(mix_detector, kTools);
    for (int r = 0; r < 300; ++r) CHECK(mix.row({3, 0, 0, 0, 0, 0})[0] == 0.0F);
    CHECK(std::isnan(mix.row(kNan)[0]));
    CHECK(std::isfinite(mix.row(0.0F)[0]));
}
