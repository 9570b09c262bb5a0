// Residuals of exponentially weighted levels: spikes at once, lasting departures as their smoothed residual.
// Channels: residual       |x - level|, in the unit of the series
//           residual.3, .10, .30   |running mean of x - level| over about so many values
//           residual.fast  |x - fast level|
// Method:   level and mean absolute residual by exponential weights (1/n while young); residuals beyond
//           `winsor` times the latter are cut before they are learned, so that one outlier cannot move the
//           level or blow up the scale. The running means take residuals as they are.
// Cost:     28 bytes a series; bench_bank.  NaN: statistic NaN, state untouched.
#include <array>
#include <limits>

#include "base/dispatch.hpp"
#include "base/zeroed.hpp"
#include "detectors/detector.hpp"
#include "detectors/running_means.hpp"

namespace argus::detectors {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr float kNoLimit = std::numeric_limits<float>::max();
constexpr float kYoung = 32.0F;    // values before residuals are winsorised: the scale is not known earlier
constexpr float kAnew = 8.0F;      // age that is left when a new normal is accepted
constexpr float kOldest = 1.0e6F;  // ages stop here: float32 counts exactly, and 1/n is far below any rate

struct Rates {
    float level;
    float fast;
    float winsor;
};

struct State {  // one array each, a float per slot
    float* level;    // expected value, minus the slot's origin
    float* scale;    // mean absolute winsorised residual
    float* mean_3;   // running means of the residual
    float* mean_10;
    float* mean_30;
    float* fast;     // level over about 20 values
    float* age;      // values learned, 0 = none: no level yet
};

ARGUS_INLINE float clamp(float x, float limit) noexcept {
    return x > limit ? limit : x < -limit ? -limit : x;
}

// The largest residual taken at its word.
ARGUS_INLINE float limit_of(float scale, float age, const Rates& rates) noexcept {
    return ((age >= kYoung) & (scale > 0.0F)) ? rates.winsor * scale : kNoLimit;
}

ARGUS_INLINE void score_body(const float* values, const State& state, std::size_t count, float* out) {
    const float* level = state.level;
    const float* mean_3 = state.mean_3;
    const float* mean_10 = state.mean_10;
    const float* mean_30 = state.mean_30;
    const float* fast = state.fast;
    const float* age = state.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const bool known = age[i] > 0.0F;
        const float residual = x - (known ? level[i] : x);
        out[i] = magnitude(residual);
        out[count + i] = magnitude(towards(mean_3[i], residual, kRate3));
        out[2 * count + i] = magnitude(towards(mean_10[i], residual, kRate10));
        out[3 * count + i] = magnitude(towards(mean_30[i], residual, kRate30));
        out[4 * count + i] = magnitude(x - (known ? fast[i] : x));
    }
}

ARGUS_INLINE void learn_body(const float* values, const std::uint8_t* mask, const State& state, Rates rates,
                             std::size_t count) {
    float* level = state.level;
    float* scale = state.scale;
    float* mean_3 = state.mean_3;
    float* mean_10 = state.mean_10;
    float* mean_30 = state.mean_30;
    float* fast = state.fast;
    float* age = state.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const int what = mask[i];
        const bool seen = x == x;
        const bool anew = what == kLearnAnew;
        const bool keep = (what != kLearnNothing) & seen;
        const bool first = age[i] == 0.0F;
        const float old_age = (anew & (age[i] > kAnew)) ? kAnew : age[i];
        const float old_level = (anew | first) ? x : level[i];
        const float old_fast = (anew | first) ? x : fast[i];
        const float residual = x - old_level;
        const float cut = clamp(residual, limit_of(scale[i], old_age, rates));
        const float young = 1.0F / (old_age + 1.0F);
        const float scale_weight = 1.0F / (old_age > 1.0F ? old_age : 1.0F);
        const float level_rate = young > rates.level ? young : rates.level;
        const float scale_rate = scale_weight > rates.level ? scale_weight : rates.level;
        const float fast_rate = young > rates.fast ? young : rates.fast;
        const float new_level = old_level + level_rate * cut;
        const float new_scale = towards(scale[i], magnitude(cut), scale_rate);
        const float new_fast = towards(old_fast, x, fast_rate);
        const float new_age = old_age < kOldest ? old_age + 1.0F : old_age;
        const float new_3 = anew ? 0.0F : towards(mean_3[i], residual, kRate3);
        const float new_10 = anew ? 0.0F : towards(mean_10[i], residual, kRate10);
        const float new_30 = anew ? 0.0F : towards(mean_30[i], residual, kRate30);
        const bool follow = seen & !first;
        mean_3[i] = follow ? new_3 : mean_3[i];
        mean_10[i] = follow ? new_10 : mean_10[i];
        mean_30[i] = follow ? new_30 : mean_30[i];
        level[i] = keep ? new_level : level[i];
        scale[i] = keep ? new_scale : scale[i];
        fast[i] = keep ? new_fast : fast[i];
        age[i] = keep ? new_age : age[i];
    }
}

ARGUS_KERNEL(score_kernel, score_body,
             (const float* values, const State& state, std::size_t count, float* out),
             (values, state, count, out))

ARGUS_KERNEL(learn_kernel, learn_body,
             (const float* values, const std::uint8_t* mask, const State& state, Rates rates,
              std::size_t count),
             (values, mask, state, rates, count))

class Residual final : public Detector {
public:
    Residual(std::uint32_t slots, Rates rates) : rates_(rates), slots_(slots), all_(kArrays * slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        // The kernel only reads through it.
        const State state = const_cast<Residual*>(this)->state();
        score_kernel(view.values.data(), state, view.values.size(), statistic.data());
    }

    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        learn_kernel(view.values.data(), mask.data(), state(), rates_, view.values.size());
    }

    [[nodiscard]] bool forecast(std::span<float> expected, std::span<float> scale) const override {
        const State state = const_cast<Residual*>(this)->state();
        for (std::size_t i = 0; i < expected.size(); ++i) {
            expected[i] = state.age[i] > 0.0F ? state.level[i] : kNone;
            scale[i] = state.age[i] > 1.0F ? state.scale[i] : kNone;
        }
        return true;
    }

    void reset(std::span<const std::uint32_t> slots) override {
        for (const std::uint32_t slot : slots) {
            for (std::size_t array = 0; array < kArrays; ++array) all_[array * slots_ + slot] = 0.0F;
        }
    }

    void save(Writer& writer) const override { writer.array(std::span<const float>(all_)); }
    void load(Reader& reader) override { reader.array(std::span<float>(all_)); }

private:
    static constexpr std::size_t kArrays = 7;

    [[nodiscard]] State state() noexcept {
        float* at = all_.data();
        const std::size_t n = slots_;
        return {at, at + n, at + 2 * n, at + 3 * n, at + 4 * n, at + 5 * n, at + 6 * n};
    }

    Rates rates_;
    std::size_t slots_;
    ZeroedVector<float> all_;
};

constexpr std::array<Option, 3> kOptions{{
    {"level_rate", "1", 0.005, 1e-4, 0.5,
     "weight of one value in the level and its usual residual; 0.005 = about 200 values"},
    {"fast_rate", "1", 0.05, 0.01, 1.0, "weight of one value in the fast level; 0.05 = about 20 values"},
    {"winsor", "1", 6.0, 2.0, 100.0,
     "residuals beyond this many usual residuals are cut before they are learned"},
}};

constexpr std::array<Channel, 5> kChannels{{{"", Scale::row},
                                            {"3", Scale::rows_3},
                                            {"10", Scale::rows_10},
                                            {"30", Scale::rows_30},
                                            {"fast", Scale::row}}};

std::unique_ptr<Detector> make_residual(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Residual>(slots,
                                      Rates{static_cast<float>(options[0]), static_cast<float>(options[1]),
                                            static_cast<float>(options[2])});
}

}  // namespace

const DetectorDescriptor residual_detector{
    .leaf =
        {.name = "residual",
         .documentation =
             "Distance of a value from a slow and from a fast level, and of the mean of the last 3, 10 and 30 "
             "values from the slow one.",
         .reference =
             "Roberts (1959), Technometrics 1(3): geometric moving averages; Huber (1964): winsorising",
         .options = kOptions},
    .make = make_residual,
    .channels = kChannels,
};

}  // namespace argus::detectors
