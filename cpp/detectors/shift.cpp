// Level shifts: Page's CUSUM in both directions, over values in units of the series' own scale.
// Channels: shift       bits of evidence that the level has moved: 2k max(up, down)/ln 2, k = half the shift looked for
//           shift.row   the same for this row alone: |z| in bits of a normal tail's exponent, z^2/2
// Method:   z = (x - level)/sigma, cut at `cut`; up = max(0, up + z - k), down likewise. Level and sigma (from the mean
//           absolute residual) are exponential means, 1/n while young, that learn the less the more evidence there is.
// Delay:    at one false alarm in 10,000 independent normal rows, 14.5 bits, a shift of 1 sigma takes 15 rows (median;
//           a CUSUM that knows level, scale and size 14), one of 5 sigma 2 rows (1): bench_leaf_delay.
// Cost:     20 bytes a series; bench_leaves.  NaN: statistic NaN, state untouched.
// Not:      exact in false alarms where rows depend on each other; alone, rank it in its own past (engine/bank.hpp).
#include <array>

#include "base/dispatch.hpp"
#include "detectors/detector.hpp"
#include "detectors/evidence.hpp"

namespace argus::detectors {
namespace {

struct Settings {
    float half;  // of the shift looked for, in sigma
    float rate;
    float cut;
};

struct State {  // one array each, a float per slot
    float* level;
    float* scale;  // mean absolute residual
    float* up;
    float* down;
    float* age;
};

ARGUS_INLINE float standard(float x, float level, float scale, float age, float cut) noexcept {
    const bool known = (age >= kYoungValues) & (scale > 0.0F);
    const float sigma = known ? kMeanAbsToSigma * scale : 1.0F;
    const float apart = (x - level) / sigma;
    const float z = known ? apart : x - x;  // NaN stays NaN
    return z > cut ? cut : z < -cut ? -cut : z;
}

ARGUS_INLINE void score_body(const float* values, const State& state, Settings s, std::size_t count, float* out) {
    const float* level = state.level;
    const float* scale = state.scale;
    const float* up = state.up;
    const float* down = state.down;
    const float* age = state.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float z = standard(values[i], level[i], scale[i], age[i], s.cut);
        const float rise = up[i] + z - s.half;
        const float fall = down[i] - z - s.half;
        const float most = rise > fall ? rise : fall;
        const float evidence = 2.0F * s.half * kBitsPerNat * (most < 0.0F ? 0.0F : most);
        out[i] = z == z ? evidence : z;
        out[count + i] = 0.5F * kBitsPerNat * z * z;
    }
}

ARGUS_INLINE void learn_body(const float* values, const std::uint8_t* mask, const State& state, Settings s,
                             std::size_t count) {
    float* level = state.level;
    float* scale = state.scale;
    float* up = state.up;
    float* down = state.down;
    float* age = state.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const int what = mask[i];
        const float old_level = level[i];
        const float old_scale = scale[i];
        const float old_up = up[i];
        const float old_down = down[i];
        const float old_age = age[i];
        const bool seen = x == x;
        const bool anew = what == kLearnAnew;
        const bool keep = (what != kLearnNothing) & seen;
        const bool first = (old_age == 0.0F) | anew;
        const float z = standard(x, old_level, old_scale, old_age, s.cut);
        const float most = anew ? 0.0F : kMostEvidence;
        const float rise = between(old_up + z - s.half, 0.0F, most);
        const float fall = between(old_down - z - s.half, 0.0F, most);
        const float this_age = (anew & (old_age > kYoungValues)) ? kYoungValues : old_age;
        const float wide = s.cut * kMeanAbsToSigma * old_scale;
        const float limit = ((old_age >= kYoungValues) & (old_scale > 0.0F)) ? wide : kNoLimit;
        const float cut = between(x - old_level, -limit, limit);
        const float slow = s.rate * trust(2.0F * s.half * (rise > fall ? rise : fall));
        const float young = 1.0F / (this_age + 1.0F);
        const float young_scale = 1.0F / (this_age > 1.0F ? this_age : 1.0F);
        const float level_rate = young > s.rate ? young : slow;
        const float scale_rate = young_scale > s.rate ? young_scale : slow;
        const float moved = old_level + level_rate * cut;
        const float new_level = first ? x : moved;
        const float spread = old_scale + scale_rate * (magnitude(cut) - old_scale);
        const float new_scale = first ? old_scale : spread;
        const float new_age = this_age + (this_age < kOldestValue ? 1.0F : 0.0F);
        up[i] = seen ? rise : old_up;
        down[i] = seen ? fall : old_down;
        scale[i] = keep ? new_scale : old_scale;
        level[i] = keep ? new_level : old_level;
        age[i] = keep ? new_age : old_age;
    }
}

ARGUS_KERNEL(score_kernel, score_body,
             (const float* values, const State& state, Settings s, std::size_t count, float* out),
             (values, state, s, count, out))
ARGUS_KERNEL(learn_kernel, learn_body,
             (const float* values, const std::uint8_t* mask, const State& state, Settings s, std::size_t count),
             (values, mask, state, s, count))

class Shift final : public Detector {
public:
    Shift(std::uint32_t slots, Settings settings) : settings_(settings), arrays_(slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        // The kernel only reads through it.
        const State state = const_cast<Shift*>(this)->state();
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
    {"shift_sigma", "1", 1.0, 0.1, 10.0, "shift looked for, in standard deviations; others are seen later"},
    {"level_rate", "1", 0.002, 1e-5, 0.1, "weight of one value in level and scale; 0.002 = about 500 values"},
    {"cut", "1", 6.0, 2.0, 100.0, "values further than so many standard deviations count as so many"},
}};

constexpr std::array<Channel, 2> kChannels{{{"", Scale::rows_30}, {"row", Scale::row}}};

std::unique_ptr<Detector> make_shift(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Shift>(slots,
                                   Settings{static_cast<float>(options[0] / 2.0), static_cast<float>(options[1]),
                                            static_cast<float>(options[2])});
}

}  // namespace

const DetectorDescriptor shift_detector{
    .leaf = {.name = "shift",
             .documentation = "Evidence that the level of a series has moved up or down and stays there.",
             .reference = "Page (1954), Biometrika 41: continuous inspection schemes; Lucas and Crosier (1982)",
             .options = kOptions},
    .make = make_shift,
    .channels = kChannels,
    .use = Use::named,
};

}  // namespace argus::detectors
