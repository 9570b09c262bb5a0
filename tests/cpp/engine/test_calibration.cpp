#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/arithmetic.hpp"
#include "base/dispatch.hpp"
#include "engine/calibration.hpp"

using argus::Isa;
using argus::ScopedIsa;
using argus::engine::Calibration;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// The bits of all slots, those that are not told of too.
void score_all(Calibration& calibration, std::span<const float> statistic, std::span<float> bits) {
    std::fill(bits.begin(), bits.end(), 0.0F);
    const auto ranks = calibration.score(statistic);
    for (std::size_t i = 0; i < ranks.slot.size(); ++i) bits[ranks.slot[i]] = ranks.bits[i];
}

// The past of one statistic.
struct One {
    Calibration calibration{1, {0, 1}};
    std::int32_t seen = 0;

    float score(float y) {
        std::array<float, 1> bits{};
        score_all(calibration, std::array<float, 1>{y}, bits);
        return bits[0];
    }
    void learn(float y, std::uint8_t mask = 1) {
        score(y);
        seen += y == y ? 1 : 0;
        calibration.learn(std::array<std::int32_t, 1>{seen}, std::array<float, 1>{y},
                          std::array<std::uint8_t, 1>{mask});
    }
    void learn(const std::vector<float>& past) {
        for (const float y : past) learn(y);
    }
};

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

TEST_CASE("fast_exp2: within 3e-7 of the exact power") {
    double worst = 0.0;
    for (float x = -119.0F; x < 119.0F; x += 0.0137F) {
        const double want = std::exp2(static_cast<double>(x));
        worst = std::max(worst, std::fabs(static_cast<double>(argus::fast_exp2(x)) / want - 1.0));
    }
    CHECK(worst < 3e-7);
    CHECK(argus::fast_exp2(0.0F) == 1.0F);
    CHECK(argus::fast_exp2(-3.0F) == 0.125F);
}

TEST_CASE("calibration: bits are the rank among the past to within a third of an octave, by brute force") {
    One one;
    const auto past = magnitudes(3000, 3);
    one.learn(past);
    std::size_t ranked = 0;
    for (const float y : magnitudes(2000, 4)) {
        const auto at_least = [&past](float edge) {
            return static_cast<double>(
                std::count_if(past.begin(), past.end(), [edge](float x) { return x >= edge; }));
        };
        const double most = std::log2(3002.0 / (at_least(y * 1.26F) + 1.0));
        const double least = std::log2(3002.0 / (at_least(y / 1.26F) + 1.0));
        const double bits = static_cast<double>(one.score(y));
        if (bits == 0.0) {
            CHECK(least < 4.5);
            continue;
        }
        ++ranked;
        if (at_least(y / 1.26F) == 0.0) continue;  // beyond the record: another test
        CHECK(bits >= least - 0.6);  // the past fades by 1/5,000 a row, the bulk is sampled
        CHECK(bits <= most + 0.6);
    }
    CHECK(ranked > 40);
    CHECK(ranked < 200);
}

TEST_CASE("calibration: bits never fall as the statistic grows, and end at the stated bound") {
    One one;
    one.learn(magnitudes(3000, 5));
    float last = 0.0F;
    for (float y = 1e-3F; y < 1e4F; y *= 1.01F) {
        const float bits = one.score(y);
        CHECK(bits >= last);
        last = bits;
    }
    CHECK(last <= 1.13F * (std::log2(3002.0F) + argus::engine::kBeyondBits));
    CHECK(last > std::log2(2000.0F) + 9.0F);
}

TEST_CASE("calibration: nothing is said of the first 150 values, of NaN never") {
    One one;
    for (const float y : magnitudes(150, 6)) {
        CHECK(one.score(1e6F) == 0.0F);
        one.learn(y);
    }
    CHECK(one.score(1e6F) > 7.0F);
    CHECK(one.score(kNan) == 0.0F);
    const float before = one.score(4.0F);
    one.learn(kNan);
    CHECK(one.calibration.past(0) == 150);
    CHECK(one.score(4.0F) == before);
}

TEST_CASE("calibration: a masked value teaches nothing") {
    One one;
    one.learn(magnitudes(1000, 7));
    const float before = one.score(50.0F);
    one.learn(60.0F, 0);
    CHECK(one.score(50.0F) == before);
    for (int i = 0; i < 20; ++i) one.learn(60.0F);
    CHECK(one.score(50.0F) < before);
}

TEST_CASE("calibration: a negative statistic abstains, yet is learned as its magnitude") {
    One shown;
    One abstaining;
    for (const float y : magnitudes(1500, 20)) {
        shown.learn(y);
        CHECK(abstaining.score(-y) == 0.0F);
        abstaining.learn(-y);
    }
    for (const float y : {1.0F, 3.0F, 5.0F, 100.0F}) CHECK(shown.score(y) == abstaining.score(y));
}

TEST_CASE("calibration: a past of zeros makes the first other value strange, and learns it") {
    One one;
    for (int i = 0; i < 1000; ++i) one.learn(0.0F);
    CHECK(one.score(0.0F) == 0.0F);
    CHECK(one.score(1.0F) > std::log2(900.0F) + argus::engine::kBeyondBits);
    for (int i = 0; i < 200; ++i) one.learn(1.0F);
    CHECK(one.score(1.0F) < 6.0F);
}

TEST_CASE("calibration: the floor follows a scale that grows or shrinks a thousandfold") {
    for (const float factor : {1000.0F, 0.001F, 1e6F}) {
        One one;
        one.learn(magnitudes(1000, 8));
        for (const float y : magnitudes(150000, 9)) one.learn(y * factor);
        CAPTURE(factor);
        CHECK(one.score(0.7F * factor) == 0.0F);
        CHECK(one.score(3.5F * factor) > 6.0F);
    }
}

TEST_CASE("calibration: an old record fades, the newest rows rule") {
    One one;
    for (const float y : magnitudes(2000, 10)) one.learn(100.0F * y);
    one.learn(magnitudes(60000, 11));
    CHECK(one.score(10.0F) > 10.0F);
}

TEST_CASE("calibration: the reach is the statistic that about one value in 1,024 exceeds") {
    One one;
    CHECK(std::isnan(one.calibration.reach()[0]));
    one.learn(magnitudes(6400, 12));
    const auto fresh = magnitudes(200000, 13);
    const auto outside =
        std::count_if(fresh.begin(), fresh.end(), [&](float y) { return y > one.calibration.reach()[0]; });
    const double share = static_cast<double>(outside) / 200000.0;
    CHECK(share < 2.0 / 1024);
    CHECK(share > 0.1 / 1024);
}

TEST_CASE("calibration: what is missing is neither learned nor forgotten") {
    One one;
    one.learn(magnitudes(2000, 21));
    const float before = one.score(3.0F);
    const std::uint32_t past = one.calibration.past(0);
    for (int i = 0; i < 20000; ++i) one.learn(kNan);
    CHECK(one.calibration.past(0) == past);
    CHECK(one.score(3.0F) == before);
}

TEST_CASE("calibration: channels share the mask of their series, slots are told apart") {
    constexpr std::size_t kSeries = 3;
    Calibration both(2 * kSeries, {});
    One alone;
    const std::vector<std::uint8_t> mask{1, 0, 1};
    std::array<float, 2 * kSeries> bits{};
    for (int row = 0; row < 900; ++row) {
        const auto y = magnitudes(2 * kSeries, static_cast<unsigned>(row));
        score_all(both, y, bits);
        both.learn(std::vector<std::int32_t>(kSeries, row + 1), y, mask);
    }
    CHECK(both.past(0) > 700);
    CHECK(both.past(1) == 0);
    CHECK(both.past(kSeries + 1) == 0);
    CHECK(both.past(kSeries + 2) > 700);
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
        Calibration calibration(kSlots, {});
        std::vector<float> all;
        std::vector<float> bits(kSlots);
        const std::vector<std::uint8_t> yes(kSlots, 1);
        for (unsigned row = 0; row < 700; ++row) {
            auto y = magnitudes(kSlots, row);
            y[row % kSlots] = kNan;
            y[(row * 7) % kSlots] *= 1000.0F;
            score_all(calibration, y, bits);
            calibration.learn(std::vector<std::int32_t>(kSlots, static_cast<std::int32_t>(row) + 1), y, yes);
            all.insert(all.end(), bits.begin(), bits.end());
        }
        results.push_back(all);
    }
    for (const auto& result : results) {
        CHECK(std::memcmp(result.data(), results[0].data(), result.size() * sizeof(float)) == 0);
    }
}

TEST_CASE("calibration: save and load carry everything on") {
    Calibration first(2, {0, 2});
    Calibration second(2, {0, 2});
    const std::vector<std::uint8_t> yes(2, 1);
    const auto values = magnitudes(4000, 14);
    std::array<float, 2> bits{};
    std::vector<std::int32_t> seen(2, 0);
    for (std::size_t i = 0; i + 1 < 2000; i += 2) {
        score_all(first, std::span(values).subspan(i, 2), bits);
        ++seen[0], ++seen[1];
        first.learn(seen, std::span(values).subspan(i, 2), yes);
    }
    argus::Writer writer(1, 1);
    first.save(writer);
    const auto bytes = writer.finish();
    argus::Reader reader(bytes, 1, 1);
    second.load(reader);
    CHECK(reader.done());
    for (std::size_t i = 2000; i + 1 < 4000; i += 2) {
        std::array<float, 2> a{};
        std::array<float, 2> b{};
        score_all(first, std::span(values).subspan(i, 2), a);
        score_all(second, std::span(values).subspan(i, 2), b);
        REQUIRE(a == b);
        ++seen[0], ++seen[1];
        first.learn(seen, std::span(values).subspan(i, 2), yes);
        second.learn(seen, std::span(values).subspan(i, 2), yes);
    }
}
