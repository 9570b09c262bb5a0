// Rates of events: counts a row (Poisson), or hits among trials (binomial), tested by betting.
// Channels: rate      bits = log2(1 + M): mean rows to a false alarm at b bits are about 2^b, also over years
//           rate.row  bits of this row alone: log2 of the mixture's e-value, at least 0
// Input:    values are counts; View::exposure, where given, the trials behind each. Negative counts are missing.
// Method:   e-detector (detectors/e_detector.hpp) against the learned rate, of which each direction bets against
// the end
//           of its one-sigma interval that makes it careful. The rate's past fades with `memory` values; values learn
//           the less the more evidence there is.
// Delay:    1 to 3 % of 100 trials at one false alarm in 10,000 rows: bench_leaves.
// Cost:     28 bytes a series; bench_leaves.  NaN: statistic NaN, state untouched.
// Not:      valid for counts that come in bursts (variance above the mean): those lift the false alarms.
#include <array>
#include <limits>

#include "base/dispatch.hpp"
#include "detectors/detector.hpp"
#include "detectors/e_detector.hpp"
#include "detectors/evidence.hpp"

namespace argus::detectors {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr float kMostEvents = 1.0e12F;
constexpr float kFewestRows = 16.0F;   // before the rate is bet on
constexpr float kPatience = 64.0F;     // wealth at which a value teaches half

struct State {  // one array each, a float per slot
    float* hits;    // fading sums
    float* trials;
    float* wealth;  // kBets arrays
    std::size_t slots;
};

struct Inputs {
    const float* values;
    const double* origin;
    const float* exposure;  // of trials only
};

struct Row {  // one slot's observation and the law it is held against
    float hits;
    float trials;
    float high;  // ends of the interval of the rate
    float low;
    bool seen;
    bool known;
};

ARGUS_INLINE Row observe(float count, float trials, float most, float k, float n) noexcept {
    Row row;
    row.seen = (count >= 0.0F) & (trials > 0.0F) & (trials <= kMostEvents);
    const float hits = count < most ? count : most;
    row.hits = row.seen ? hits : 0.0F;
    row.trials = row.seen ? trials : 0.0F;
    const float rate = (k + 0.5F) / (n + 1.0F);
    const float apart = __builtin_sqrtf(k + 1.0F) / (n + 1.0F);
    const float below = rate - apart;
    const float half = 0.5F * rate;
    row.high = rate + apart;
    row.low = below > half ? below : half;
    row.known = n >= kFewestRows;
    return row;
}

// log2 e-value of a bet on `ratio`.
template <bool kBinomial>
ARGUS_INLINE float bet(const Row& row, float ratio, float log2_ratio) noexcept {
    const float base = ratio > 1.0F ? row.high : row.low;
    if (kBinomial) return binomial_bet(row.hits, row.trials, between(base, 1.0e-6F, 0.99F), ratio, log2_ratio);
    return poisson_bet(row.hits, base * row.trials, ratio, log2_ratio);
}

ARGUS_INLINE float share(float ratio) noexcept { return ratio > 1.0F ? kRiseShare : kFallShare; }

// Counts of one slot: what was taken off is put back.
template <bool kBinomial>
ARGUS_INLINE Row row_of(const Inputs& in, const State& state, std::size_t i) noexcept {
    const auto count = static_cast<float>(static_cast<double>(in.values[i]) + in.origin[i]);
    const float trials = kBinomial ? in.exposure[i] : 1.0F;
    return observe(count, trials, kBinomial ? trials : kMostEvents, state.hits[i], state.trials[i]);
}

template <bool kBinomial>
ARGUS_INLINE void score_body(const Inputs& in, const State& state, std::size_t count, float* out) {
    const float* wealth = state.wealth;
    const std::size_t slots = state.slots;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const Row row = row_of<kBinomial>(in, state, i);
        float mixed = 1.0F;
        float alone = 0.0F;
#pragma GCC unroll 5
        for (std::size_t b = 0; b < kBets; ++b) {
            const float log2_e = bet<kBinomial>(row, kRatios[b], kLog2Ratios[b]);
            mixed += share(kRatios[b]) * wager(wealth[b * slots + i], log2_e);
            alone += share(kRatios[b]) * wager(0.0F, log2_e);
        }
        const float evidence = fast_log2(row.known ? mixed : 1.0F);
        const float single = fast_log2((row.known & (alone > 1.0F)) ? alone : 1.0F);
        out[i] = row.seen ? evidence : kNone;
        out[count + i] = row.seen ? single : kNone;
    }
}

template <bool kBinomial>
ARGUS_INLINE void learn_body(const Inputs& in, const std::uint8_t* mask, const State& state, float fade,
                             std::size_t count) {
    float* wealth = state.wealth;
    const std::size_t slots = state.slots;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const Row row = row_of<kBinomial>(in, state, i);
        const int what = mask[i];
        const float old_hits = state.hits[i];
        const float old_trials = state.trials[i];
        const bool anew = what == kLearnAnew;
        const bool bets = row.known & !anew;
        float most = 0.0F;
#pragma GCC unroll 5
        for (std::size_t b = 0; b < kBets; ++b) {
            const float before = wealth[b * slots + i];
            const float grown = wager(before, bet<kBinomial>(row, kRatios[b], kLog2Ratios[b]));
            const float after = bets ? grown : 0.0F;
            most += share(kRatios[b]) * after;
            wealth[b * slots + i] = row.seen ? after : before;
        }
        const float weight = kPatience / (kPatience + most);
        const bool keep = (what != kLearnNothing) & row.seen;
        const float kept = anew ? 0.0F : 1.0F - weight * fade;
        const float gained = anew ? kFewestRows : weight;
        const float hits = kept * old_hits + gained * row.hits;
        const float trials = kept * old_trials + gained * row.trials;
        state.hits[i] = keep ? hits : old_hits;
        state.trials[i] = keep ? trials : old_trials;
    }
}

ARGUS_KERNEL(score_counts, score_body<false>,
             (const Inputs& in, const State& state, std::size_t count, float* out), (in, state, count, out))
ARGUS_KERNEL(score_trials, score_body<true>,
             (const Inputs& in, const State& state, std::size_t count, float* out), (in, state, count, out))
ARGUS_KERNEL(learn_counts, learn_body<false>,
             (const Inputs& in, const std::uint8_t* mask, const State& state, float fade, std::size_t count),
             (in, mask, state, fade, count))
ARGUS_KERNEL(learn_trials, learn_body<true>,
             (const Inputs& in, const std::uint8_t* mask, const State& state, float fade, std::size_t count),
             (in, mask, state, fade, count))

class Rate final : public Detector {
public:
    Rate(std::uint32_t slots, float memory) : fade_(1.0F / memory), arrays_(slots), zeros_(slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        // The kernel only reads through it.
        const State state = const_cast<Rate*>(this)->state();
        const auto kernel = view.exposure.empty() ? score_counts : score_trials;
        kernel(inputs(view), state, view.values.size(), statistic.data());
    }
    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        const auto kernel = view.exposure.empty() ? learn_counts : learn_trials;
        kernel(inputs(view), mask.data(), state(), fade_, view.values.size());
    }
    void reset(std::span<const std::uint32_t> slots) override { arrays_.reset(slots); }
    void save(Writer& writer) const override { arrays_.save(writer); }
    void load(Reader& reader) override { arrays_.load(reader); }

private:
    [[nodiscard]] Inputs inputs(const View& view) const noexcept {
        return {view.values.data(), view.origin.empty() ? zeros_.data() : view.origin.data(), view.exposure.data()};
    }
    [[nodiscard]] State state() noexcept {
        return {arrays_.array(0), arrays_.array(1), arrays_.array(2), arrays_.slots()};
    }

    float fade_;
    SlotArrays<2 + kBets> arrays_;
    ZeroedVector<double> zeros_;  // where nothing was taken off
};

constexpr std::array<Option, 1> kOptions{{
    {"memory", "1", 2000.0, 50.0, 1e6, "values over which the usual rate fades"},
}};

constexpr std::array<Channel, 2> kChannels{{{"", Scale::rows_10}, {"row", Scale::row}}};

std::unique_ptr<Detector> make_rate(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Rate>(slots, static_cast<float>(options[0]));
}

}  // namespace

const DetectorDescriptor rate_detector{
    .leaf = {.name = "rate",
             .documentation = "Evidence that events, failures or successes have become more or less frequent.",
             .reference = "Shin, Ramdas and Rinaldo (2022), arXiv:2203.03532: E-detectors; Roberts (1966)",
             .options = kOptions},
    .make = make_rate,
    .channels = kChannels,
    .use = Use::named,
};

}  // namespace argus::detectors
