#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "leaf_rows.hpp"

using namespace leaf_rows;

namespace {

constexpr std::uint32_t kDimensions = 32;

// A direction around one of two topics, of any length.
std::vector<float> vector(std::mt19937& engine, bool other, float noise) {
    std::normal_distribution<float> normal;
    std::vector<float> v(kDimensions);
    for (std::uint32_t d = 0; d < kDimensions; ++d) v[d] = noise * normal(engine) + ((d < 16) == other ? 0.0F : 1.0F);
    const float length = std::exp(normal(engine));
    for (float& x : v) x *= length;
    return v;
}

}  // namespace

TEST_CASE("embedding: vectors of another topic are seen within 20, whatever their length; the same ones stay near 1") {
    std::mt19937 engine(12);
    Alone drift(embedding_detector, kDimensions, {kDimensions});
    double mean = 0.0;
    float loudest = 0.0F;
    for (int r = 0; r < 4000; ++r) {
        const float y = drift.row(vector(engine, false, 0.7F))[0];
        if (r < 2000) continue;
        mean += static_cast<double>(y) / 2000.0;
        loudest = std::max(loudest, y);
    }
    CHECK(mean == doctest::Approx(1.0).epsilon(0.25));
    float found = 0.0F;
    for (int r = 0; r < 20; ++r) found = drift.row(vector(engine, true, 0.7F))[0];
    CHECK(found > 2.0F * loudest);
}

TEST_CASE("embedding: zero and huge vectors are finite, one with a missing component is missing") {
    Alone drift(embedding_detector, kDimensions, {kDimensions});
    for (int r = 0; r < 100; ++r) {
        CHECK(std::isfinite(drift.row(0.0F)[0]));
        CHECK(std::isfinite(drift.row(1e30F)[0]));
        CHECK(std::isfinite(drift.row(1e-38F)[0]));
    }
    auto broken = std::vector<float>(kDimensions, 1.0F);
    broken[7] = kNan;
    CHECK(std::isnan(drift.row(broken)[0]));
}
