// Increments: how far a value jumps from the last one and from the third last.
// Channels: increment    |x - last value|, in the unit of the series
//           increment.3  |x - third last value|
// After more than three missing values in a row the past is too old to jump from, and at a new normal it is no past:
// it starts anew, unspoken.
// Cost:     16 bytes a series; bench_bank.  NaN: statistic NaN, only the gap is counted.
#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "base/arithmetic.hpp"
#include "base/dispatch.hpp"
#include "detectors/detector.hpp"

namespace argus::detectors {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr float kLongGap = 3.0F;

struct State {  // one array each, a float per slot
    float* last;
    float* second;
    float* third;
    float* gap;  // missing values since the last one
};

ARGUS_INLINE void score_body(const float* values, const State& state, std::size_t count, float* out) {
    const float* last = state.last;
    const float* third = state.third;
    const float* gap = state.gap;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const bool fresh = gap[i] <= kLongGap;
        const float x = values[i];
        const bool known = fresh & (last[i] == last[i]);
        out[i] = magnitude(x - (known ? last[i] : x));
        out[count + i] = magnitude(x - (known ? third[i] : x));
    }
}

ARGUS_INLINE void learn_body(const float* values, const std::uint8_t* mask, const State& state, std::size_t count) {
    float* last = state.last;
    float* second = state.second;
    float* third = state.third;
    float* gap = state.gap;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const bool seen = x == x;
        const bool known = (gap[i] <= kLongGap) & (last[i] == last[i]) & (mask[i] != kLearnAnew);
        const float new_third = known ? second[i] : x;
        const float new_second = known ? last[i] : x;
        third[i] = seen ? new_third : third[i];
        second[i] = seen ? new_second : second[i];
        last[i] = seen ? x : last[i];
        gap[i] = seen ? 0.0F : (gap[i] <= kLongGap ? gap[i] + 1.0F : gap[i]);
    }
}

ARGUS_KERNEL(score_kernel, score_body,
             (const float* values, const State& state, std::size_t count, float* out),
             (values, state, count, out))

ARGUS_KERNEL(learn_kernel, learn_body,
             (const float* values, const std::uint8_t* mask, const State& state, std::size_t count),
             (values, mask, state, count))

class Increment final : public Detector {
public:
    explicit Increment(std::uint32_t slots) : slots_(slots), all_(kArrays * slots, kNone) {
        std::fill_n(state().gap, slots_, 0.0F);
    }

    void score(const View& view, std::span<float> statistic) const override {
        // The kernel only reads through it.
        const State state = const_cast<Increment*>(this)->state();
        score_kernel(view.values.data(), state, view.values.size(), statistic.data());
    }

    // The last values are evidence, not a model: they follow under every mask.
    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        learn_kernel(view.values.data(), mask.data(), state(), view.values.size());
    }

    void reset(std::span<const std::uint32_t> slots) override {
        const State s = state();
        for (const std::uint32_t slot : slots) {
            s.last[slot] = s.second[slot] = s.third[slot] = kNone;
            s.gap[slot] = 0.0F;
        }
    }

    void save(Writer& writer) const override { writer.array(std::span<const float>(all_)); }
    void load(Reader& reader) override { reader.array(std::span<float>(all_)); }

private:
    static constexpr std::size_t kArrays = 4;

    [[nodiscard]] State state() noexcept {
        float* at = all_.data();
        return {at, at + slots_, at + 2 * slots_, at + 3 * slots_};
    }

    std::size_t slots_;
    std::vector<float> all_;
};

constexpr std::array<Channel, 2> kChannels{{{"", Scale::step}, {"3", Scale::step}}};

std::unique_ptr<Detector> make_increment(std::uint32_t slots, std::span<const double> options) {
    (void)options;
    return std::make_unique<Increment>(slots);
}

}  // namespace

const DetectorDescriptor increment_detector{
    .leaf = {.name = "increment",
             .documentation = "Jump of a value from the last one and from the third last.",
             .reference = "first differences: Box and Jenkins (1970), Time Series Analysis",
             .options = {}},
    .make = make_increment,
    .channels = kChannels,
};

}  // namespace argus::detectors
