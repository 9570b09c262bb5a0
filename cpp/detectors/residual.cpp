// Winsorised residual of an exponentially weighted level: spikes at once, departures of the level within
// about ten values.
// Channels: residual        |x - level|, in the unit of the series
//           residual.shift  |running mean of the winsorised residual|, the same unit
// Method:   level and mean absolute residual by exponential weights (1/n while young); residuals beyond
//           `winsor` times the latter are cut before they are learned, so that one outlier cannot move the
//           level or blow up the scale.
// Cost:     20 bytes a series; bench_bank.  NaN: statistic NaN, state untouched.
#include <array>
#include <limits>
#include <vector>

#include "base/dispatch.hpp"
#include "detectors/detector.hpp"

namespace argus::detectors {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr float kNoLimit = std::numeric_limits<float>::max();
constexpr float kYoung = 32.0F;  // values before residuals are winsorised: the scale is not known earlier
constexpr float kAnew = 8.0F;         // age that is left when a new normal is accepted
constexpr float kOldest = 1.0e6F;     // ages stop here: float32 counts exactly, and 1/n is far below any rate

struct Rates {
    float level;
    float shift;
    float winsor;
};

ARGUS_INLINE float clamp(float x, float limit) noexcept {
    return x > limit ? limit : x < -limit ? -limit : x;
}

ARGUS_INLINE float magnitude(float x) noexcept { return x < 0.0F ? -x : x; }

// The largest residual taken at its word.
ARGUS_INLINE float limit_of(float scale, float age, const Rates& rates) noexcept {
    return ((age >= kYoung) & (scale > 0.0F)) ? rates.winsor * scale : kNoLimit;
}

ARGUS_INLINE void score_body(const float* values, const float* level, const float* scale, const float* shift,
                             const float* age, Rates rates, std::size_t count, float* residual_out,
                             float* shift_out) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float residual = values[i] - level[i];
        const float cut = clamp(residual, limit_of(scale[i], age[i], rates));
        const float moved = shift[i] + rates.shift * (cut - shift[i]);
        const bool known = age[i] > 0.0F;
        residual_out[i] = known ? magnitude(residual) : kNone;
        shift_out[i] = known ? magnitude(moved) : kNone;
    }
}

ARGUS_INLINE void learn_body(const float* values, const std::uint8_t* mask, float* level, float* scale,
                             float* shift, float* age, Rates rates, std::size_t count) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const int what = mask[i];
        const bool seen = x == x;
        const bool anew = what == kLearnAnew;
        const bool keep = (what != kLearnNothing) & seen;
        const float old_age = (anew & (age[i] > kAnew)) ? kAnew : age[i];
        const float old_level = (anew | (age[i] == 0.0F)) ? x : level[i];
        const float residual = x - old_level;
        const float cut = clamp(residual, limit_of(scale[i], old_age, rates));
        const float level_weight = 1.0F / (old_age + 1.0F);
        const float scale_weight = 1.0F / (old_age > 1.0F ? old_age : 1.0F);
        const float level_rate = level_weight > rates.level ? level_weight : rates.level;
        const float scale_rate = scale_weight > rates.level ? scale_weight : rates.level;
        const float new_level = old_level + level_rate * cut;
        const float new_scale = scale[i] + scale_rate * (magnitude(cut) - scale[i]);
        const float evidence = shift[i] + rates.shift * (cut - shift[i]);
        const float new_age = old_age < kOldest ? old_age + 1.0F : old_age;
        const bool follow = seen & (age[i] > 0.0F);
        shift[i] = follow ? (anew ? 0.0F : evidence) : shift[i];
        level[i] = keep ? new_level : level[i];
        scale[i] = keep ? new_scale : scale[i];
        age[i] = keep ? new_age : age[i];
    }
}

ARGUS_KERNEL(score_kernel, score_body,
             (const float* values, const float* level, const float* scale, const float* shift,
              const float* age, Rates rates, std::size_t count, float* residual_out, float* shift_out),
             (values, level, scale, shift, age, rates, count, residual_out, shift_out))

ARGUS_KERNEL(learn_kernel, learn_body,
             (const float* values, const std::uint8_t* mask, float* level, float* scale, float* shift,
              float* age, Rates rates, std::size_t count),
             (values, mask, level, scale, shift, age, rates, count))

class Residual final : public Detector {
public:
    Residual(std::uint32_t slots, Rates rates)
        : rates_(rates), level_(slots, 0.0F), scale_(slots, 0.0F), shift_(slots, 0.0F), age_(slots, 0.0F) {}

    void score(const View& view, std::span<float> statistic) const override {
        const std::size_t count = view.values.size();
        score_kernel(view.values.data(), level_.data(), scale_.data(), shift_.data(), age_.data(), rates_,
                     count, statistic.data(), statistic.data() + count);
    }

    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        learn_kernel(view.values.data(), mask.data(), level_.data(), scale_.data(), shift_.data(),
                     age_.data(), rates_, view.values.size());
    }

    [[nodiscard]] bool forecast(std::span<float> expected, std::span<float> scale) const override {
        for (std::size_t i = 0; i < expected.size(); ++i) {
            expected[i] = age_[i] > 0.0F ? level_[i] : kNone;
            scale[i] = age_[i] > 1.0F ? scale_[i] : kNone;
        }
        return true;
    }

    void reset(std::span<const std::uint32_t> slots) override {
        for (const std::uint32_t slot : slots) {
            level_[slot] = scale_[slot] = shift_[slot] = age_[slot] = 0.0F;
        }
    }

    void save(Writer& writer) const override {
        for (const auto* state : {&level_, &scale_, &shift_, &age_}) {
            writer.array(std::span<const float>(*state));
        }
    }

    void load(Reader& reader) override {
        for (auto* state : {&level_, &scale_, &shift_, &age_}) reader.array(std::span<float>(*state));
    }

private:
    Rates rates_;
    std::vector<float> level_;  // expected value, minus the slot's origin
    std::vector<float> scale_;  // mean absolute winsorised residual
    std::vector<float> shift_;  // running mean of the winsorised residual
    std::vector<float> age_;    // values learned, 0 = none: no level yet
};

constexpr std::array<Option, 3> kOptions{{
    {"level_rate", "1", 0.005, 1e-4, 0.5,
     "weight of one value in the level and its usual residual; 0.005 = about 200 values"},
    {"shift_rate", "1", 0.1, 0.01, 1.0,
     "weight of one value in the running mean of residuals; 0.1 = about 10 values"},
    {"winsor", "1", 6.0, 2.0, 100.0,
     "residuals beyond this many usual residuals are cut before they are learned"},
}};

constexpr std::array<Channel, 2> kChannels{{{""}, {"shift"}}};

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
             "Distance of a value, and of the mean of the last values, from a slowly moving level.",
         .reference =
             "Roberts (1959), Technometrics 1(3): geometric moving averages; Huber (1964): winsorising",
         .options = kOptions},
    .make = make_residual,
    .channels = kChannels,
};

}  // namespace argus::detectors
