#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/dispatch.hpp"
#include "base/log2.hpp"
#include "engine/calibration.hpp"

using argus::Isa;
using argus::ScopedIsa;
using argus::engine::Calibration;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

float score(const Calibration& calibration, float y) {
    std::array<float, 1> bits{};
    calibration.score(std::array<float, 1>{y}, bits);
    return bits[0];
}

void learn(Calibration& calibration, float y) {
    calibration.learn(std::array<float, 1>{y}, std::array<std::uint8_t, 1>{1});
}

std::vector<float> magnitudes(std::size_t count, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = std::fabs(normal(engine));
    return values;
}

}  // namespace

TEST_CASE("fast_log2: within 3e-7 of the exact logarithm, absolute near 1 and relative elsewhere") {
    double worst = 0.0;
    for (float x = 1e-30F; x < 1e30F; x *= 1.00713F) {
        const double want = std::log2(static_cast<double>(x));
        const double error = std::fabs(static_cast<double>(argus::fast_log2(x)) - want);
        worst = std::max(worst, error / std::max(1.0, std::fabs(want)));
    }
    CHECK(worst < 3e-7);
    CHECK(argus::fast_log2(1.0F) == 0.0F);
    CHECK(argus::fast_log2(1024.0F) == doctest::Approx(10.0));
}

TEST_CASE("calibration: bits lie between the ranks of the edges of the value's bucket, by brute force") {
    Calibration calibration(1);
    const auto past = magnitudes(4000, 3);
    for (const float y : past) learn(calibration, y);
    for (const float y : magnitudes(500, 4)) {
        const std::uint32_t key = __builtin_bit_cast(std::uint32_t, y) >> 21;
        const float low = __builtin_bit_cast(float, key << 21);
        const float high = __builtin_bit_cast(float, (key + 1) << 21);
        const auto at_least = [&past](float edge) {
            return static_cast<double>(
                std::count_if(past.begin(), past.end(), [edge](float x) { return x >= edge; }));
        };
        const double all = 4002.0;
        const double least = std::log2(all / (at_least(low) + 1.0));
        const double most = std::log2(all / (at_least(high) + 1.0));
        const double bits = static_cast<double>(score(calibration, y));
        if (at_least(low) == 0.0) continue;  // beyond the record: another test
        CHECK(bits >= least - 0.01);  // values below the floor share one bucket
        CHECK(bits <= most + 0.01);
    }
}

TEST_CASE("calibration: bits never fall as the statistic grows") {
    Calibration calibration(1);
    for (const float y : magnitudes(3000, 5)) learn(calibration, y);
    float last = 0.0F;
    for (float y = 1e-3F; y < 1e4F; y *= 1.01F) {
        const float bits = score(calibration, y);
        CHECK(bits >= last);
        last = bits;
    }
    CHECK(last <= std::log2(3002.0F) + argus::engine::kBeyondBits + 1e-3F);
    CHECK(last > std::log2(3002.0F) + 10.0F);
}

TEST_CASE("calibration: nothing is said of the first 150 values, of NaN never") {
    Calibration calibration(1);
    const auto past = magnitudes(150, 6);
    for (const float y : past) {
        CHECK(score(calibration, 1e6F) == 0.0F);
        learn(calibration, y);
    }
    CHECK(score(calibration, 1e6F) > 7.0F);
    CHECK(score(calibration, kNan) == 0.0F);
    const float before = score(calibration, 2.0F);
    learn(calibration, kNan);
    CHECK(calibration.seen(0) == 150);
    CHECK(score(calibration, 2.0F) == before);
}

TEST_CASE("calibration: a masked value teaches nothing") {
    Calibration calibration(1);
    for (const float y : magnitudes(1000, 7)) learn(calibration, y);
    const float before = score(calibration, 50.0F);
    calibration.learn(std::array<float, 1>{60.0F}, std::array<std::uint8_t, 1>{0});
    CHECK(score(calibration, 50.0F) == before);
    learn(calibration, 60.0F);
    CHECK(score(calibration, 50.0F) < before);
}

TEST_CASE("calibration: a past of zeros makes the first other value strange, and learns it") {
    Calibration calibration(1);
    for (int i = 0; i < 1000; ++i) learn(calibration, 0.0F);
    CHECK(score(calibration, 0.0F) < 0.1F);
    const float first = score(calibration, 1.0F);
    CHECK(first == doctest::Approx(std::log2(1002.0) + argus::engine::kBeyondZeroBits).epsilon(0.01));
    for (int i = 0; i < 100; ++i) learn(calibration, 1.0F);
    CHECK(score(calibration, 1.0F) < 6.0F);
}

TEST_CASE("calibration: one repeated value is never more than two bits too strange") {
    Calibration calibration(1);
    for (int i = 0; i < 3000; ++i) learn(calibration, i % 10 == 0 ? 1.2499F : 0.001F);
    CHECK(score(calibration, 1.2499F) >= std::log2(10.0F) - 0.1F);
    CHECK(score(calibration, 1.2499F) <= std::log2(10.0F) + 2.0F);
}

TEST_CASE("calibration: the floor follows a scale that grows or shrinks a thousandfold") {
    for (const float factor : {1000.0F, 0.001F, 1e6F, 1e-6F}) {
        Calibration calibration(1);
        for (const float y : magnitudes(1000, 8)) learn(calibration, y);
        for (const float y : magnitudes(60000, 9)) learn(calibration, y * factor);
        CAPTURE(factor);
        CHECK(score(calibration, 0.7F * factor) < 2.5F);
        CHECK(score(calibration, 3.3F * factor) > 6.0F);
    }
}

TEST_CASE("calibration: an old record fades, the newest rows rule") {
    Calibration calibration(1);
    for (const float y : magnitudes(2000, 10)) learn(calibration, 100.0F * y);
    for (const float y : magnitudes(60000, 11)) learn(calibration, y);
    CHECK(score(calibration, 10.0F) > 12.0F);
}

TEST_CASE("calibration: the reach is the statistic that about one value in 1,024 exceeds") {
    Calibration calibration(1);
    CHECK(std::isnan(calibration.reach()[0]));
    for (const float y : magnitudes(6400, 12)) learn(calibration, y);
    const auto fresh = magnitudes(200000, 13);
    const auto outside =
        std::count_if(fresh.begin(), fresh.end(), [&](float y) { return y > calibration.reach()[0]; });
    const double share = static_cast<double>(outside) / 200000.0;
    CHECK(share < 2.0 / 1024);
    CHECK(share > 0.1 / 1024);
}

TEST_CASE("calibration: every instruction set gives the same bits") {
    std::vector<std::vector<float>> results;
    for (const Isa level : {Isa::baseline, Isa::v3, Isa::v4}) {
        if (level > argus::best_isa()) {
            MESSAGE("skipped: this CPU lacks " << argus::to_string(level));
            continue;
        }
        const ScopedIsa scoped(level);
        constexpr std::size_t kSlots = 333;
        Calibration calibration(kSlots);
        std::vector<float> all;
        std::vector<float> bits(kSlots);
        const std::vector<std::uint8_t> yes(kSlots, 1);
        for (unsigned row = 0; row < 700; ++row) {
            auto y = magnitudes(kSlots, row);
            y[row % kSlots] = kNan;
            y[(row * 7) % kSlots] *= 1000.0F;
            calibration.score(y, bits);
            calibration.learn(y, yes);
            all.insert(all.end(), bits.begin(), bits.end());
        }
        results.push_back(all);
    }
    for (const auto& result : results) {
        CHECK(std::memcmp(result.data(), results[0].data(), result.size() * sizeof(float)) == 0);
    }
}

TEST_CASE("calibration: save and load carry everything on") {
    Calibration first(2);
    Calibration second(2);
    const std::vector<std::uint8_t> yes(2, 1);
    const auto values = magnitudes(4000, 14);
    for (std::size_t i = 0; i + 1 < 2000; i += 2) first.learn(std::span(values).subspan(i, 2), yes);
    argus::Writer writer(1, 1);
    first.save(writer);
    const auto bytes = writer.finish();
    argus::Reader reader(bytes, 1, 1);
    second.load(reader);
    CHECK(reader.done());
    for (std::size_t i = 2000; i + 1 < 4000; i += 2) {
        std::array<float, 2> a{};
        std::array<float, 2> b{};
        first.score(std::span(values).subspan(i, 2), a);
        second.score(std::span(values).subspan(i, 2), b);
        REQUIRE(a == b);
        first.learn(std::span(values).subspan(i, 2), yes);
        second.learn(std::span(values).subspan(i, 2), yes);
    }
}

TEST_CASE("combine: the strongest channel, less the logarithm of their number, never below zero") {
    const std::array<float, 6> bits{3.0F, 0.5F, 0.0F, 1.0F, 9.0F, 0.0F};  // two channels of three slots
    std::array<float, 3> out{};
    argus::engine::combine_removed(bits, 2, out);
    CHECK(out == std::array<float, 3>{2.0F, 8.0F, 0.0F});
    std::array<float, 6> single{};
    argus::engine::combine_removed(bits, 1, single);
    CHECK(single == bits);
}
