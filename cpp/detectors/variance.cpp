// Changes of spread: CUSUM of the log likelihood ratio that the standard deviation is `ratio` times the usual, or
// 1/ratio.
// Channels: variance    bits of evidence, the greater of both directions
// Method:   z = residual from a level of about 20 values, in units of its own usual size, cut at `cut`; so a shift of
//           level counts for 20 rows only. up += z^2 (1 - 1/r^2)/2 - ln r, down += -z^2 (r^2 - 1)/2 + ln r, both kept
//           above 0. The usual size learns the less the more evidence there is.
// Delay:    at one false alarm in 10,000 independent normal rows, 11.4 bits, three times the deviation takes 4 rows
//           (median; a CUSUM that knows both laws 3), a third of it 14 (11): bench_leaf_delay.
// Cost:     20 bytes a series; bench_leaves.  NaN: statistic NaN, state untouched.
// Not:      exact where rows depend on each other or have heavy tails; alone, rank it in its own past,
//           as engine/bank.hpp does.
#include <array>

#include "base/dispatch.hpp"
#include "detectors/detector.hpp"
#include "detectors/evidence.hpp"

namespace argus::detectors {
namespace {

constexpr float kLevelRate = 0.05F;
constexpr float kFarthest = 1.0e18F;  // residuals are squared
constexpr float kLn2 = 0.693147181F;

struct Settings {
    float up_gain;    // (1 - 1/r^2)/2
    float down_gain;  // (r^2 - 1)/2
    float ln_ratio;
    float rate;
    float cut;
};

struct State {  // one array each, a float per slot
    float* level;
    float* square;  // mean squared residual
    float* up;
    float* down;
    float* age;
};

// Squared residual in units of the usual one; 0 before that is known.
ARGUS_INLINE float standard(float x, float level, float square, float age, float cut) noexcept {
    const bool known = (age >= kYoungValues) & (square > 0.0F);
    const float apart = x - level;
    const float residual = known ? apart : x - x;  // NaN stays NaN
    const float z2 = residual * (residual / (known ? square : 1.0F));
    return z2 > cut * cut ? cut * cut : z2;
}

ARGUS_INLINE void score_body(const float* values, const State& state, Settings s, std::size_t count, float* out) {
    const float* level = state.level;
    const float* square = state.square;
    const float* up = state.up;
    const float* down = state.down;
    const float* age = state.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float z2 = standard(values[i], level[i], square[i], age[i], s.cut);
        const bool known = age[i] >= kYoungValues;
        const float rise = up[i] + s.up_gain * z2 - s.ln_ratio;
        const float fall = down[i] - s.down_gain * z2 + s.ln_ratio;
        const float most = rise > fall ? rise : fall;
        const float evidence = ((most > 0.0F) & known & (square[i] > 0.0F)) ? kBitsPerNat * most : 0.0F;
        out[i] = z2 == z2 ? evidence : z2;
    }
}

ARGUS_INLINE void learn_body(const float* values, const std::uint8_t* mask, const State& state, Settings s,
                             std::size_t count) {
    float* level = state.level;
    float* square = state.square;
    float* up = state.up;
    float* down = state.down;
    float* age = state.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const int what = mask[i];
        const float old_level = level[i];
        const float old_square = square[i];
        const float old_up = up[i];
        const float old_down = down[i];
        const float old_age = age[i];
        const bool seen = x == x;
        const bool anew = what == kLearnAnew;
        const bool keep = (what != kLearnNothing) & seen;
        const bool first = (old_age == 0.0F) | anew;
        const bool known = (old_age >= kYoungValues) & (old_square > 0.0F) & !anew;
        const float most = known ? kMostEvidence : 0.0F;
        const float z2 = standard(x, old_level, old_square, old_age, s.cut);
        const float rise = between(old_up + s.up_gain * z2 - s.ln_ratio, 0.0F, most);
        const float fall = between(old_down - s.down_gain * z2 + s.ln_ratio, 0.0F, most);
        const float this_age = (anew & (old_age > kYoungValues)) ? kYoungValues : old_age;
        const float residual = between(x - old_level, -kFarthest, kFarthest);
        const float bounded = z2 * old_square;
        const float free = residual * residual;
        const float squared = known ? bounded : free;
        const float slow = s.rate * trust(rise > fall ? rise : fall);
        const float young = 1.0F / (this_age > 1.0F ? this_age : 1.0F);
        const float rate = young > s.rate ? young : slow;
        const float young_level = 1.0F / (this_age + 1.0F);
        const float level_rate = young_level > kLevelRate ? young_level : kLevelRate;
        const float spread = old_square + rate * (squared - old_square);
        const float new_square = first ? old_square : spread;
        const float moved = old_level + level_rate * (x - old_level);
        const float new_level = first ? x : moved;
        const float new_age = this_age + (this_age < kOldestValue ? 1.0F : 0.0F);
        up[i] = seen ? rise : old_up;
        down[i] = seen ? fall : old_down;
        square[i] = keep ? new_square : old_square;
        level[i] = seen ? new_level : old_level;
        age[i] = keep ? new_age : old_age;
    }
}

ARGUS_KERNEL(score_kernel, score_body,
             (const float* values, const State& state, Settings s, std::size_t count, float* out),
             (values, state, s, count, out))
ARGUS_KERNEL(learn_kernel, learn_body,
             (const float* values, const std::uint8_t* mask, const State& state, Settings s, std::size_t count),
             (values, mask, state, s, count))

class Variance final : public Detector {
public:
    Variance(std::uint32_t slots, Settings settings) : settings_(settings), arrays_(slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        // The kernel only reads through it.
        const State state = const_cast<Variance*>(this)->state();
        score_kernel(view.values.data(), state, settings_, view.values.size(), statistic.data());
    }
    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        learn_kernel(view.values.data(), mask.data(), state(), settings_, view.values.size());
    }
    void reset(std::span<const std::uint32_t> slots) override { arrays_.reset(slots); }
    void save(Writer& writer) const override { arrays_.save(writer); }
    void load(Reader& reader) override { arrays_.load(reader); }

private:
    [[nodiscard]] State state() noexcept {
        return {arrays_.array(0), arrays_.array(1), arrays_.array(2), arrays_.array(3), arrays_.array(4)};
    }

    Settings settings_;
    SlotArrays<5> arrays_;
};

constexpr std::array<Option, 3> kOptions{{
    {"ratio", "1", 2.0, 1.1, 10.0, "multiple of the usual standard deviation looked for, and fraction of it"},
    {"scale_rate", "1", 0.002, 1e-5, 0.1, "weight of one value in the usual spread; 0.002 = about 500 values"},
    {"cut", "1", 5.0, 2.0, 100.0, "values further than so many standard deviations count as so many"},
}};

constexpr std::array<Channel, 1> kChannels{{{"", Scale::rows_10}}};

std::unique_ptr<Detector> make_variance(std::uint32_t slots, std::span<const double> options) {
    const auto ratio = static_cast<float>(options[0]);
    const float squared = ratio * ratio;
    return std::make_unique<Variance>(
        slots, Settings{0.5F * (1.0F - 1.0F / squared), 0.5F * (squared - 1.0F), kLn2 * fast_log2(ratio),
                        static_cast<float>(options[1]), static_cast<float>(options[2])});
}

}  // namespace

const DetectorDescriptor variance_detector{
    .leaf = {.name = "variance",
             .documentation = "Evidence that a series spreads more widely, or more narrowly, than it used to.",
             .reference = "Hawkins (1981), Journal of Quality Technology 13(4): a CUSUM for a scale parameter",
             .options = kOptions},
    .make = make_variance,
    .channels = kChannels,
    .use = Use::named,
};

}  // namespace argus::detectors
