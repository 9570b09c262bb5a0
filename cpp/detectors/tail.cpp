// Heavy tails: are more values than usual beyond the usual 95 % quantile? Durations, sizes, costs.
// Channels: tail      bits = log2(1 + M) of the betting that values pass it more, or less, often: e_detector.hpp
// Method:   log buckets, eight an octave over 16 octaves (6 % relative error; kept by exponent, so no logarithm), as in
//           DDSketch; counts fade by halves. The bar is the bucket edge that at least 5 % of the past reach. It, its
//           share by count, and what each bet pays are renewed every 128 values: so a heavy tail costs no false alarms,
//           and a value costs no logarithm but that of its bits. Only how often the bar is passed counts, not how far;
//           for how far see `residual` and the ranks.
// Input:    values above 0; others lie in the lowest bucket.
// Cost:     300 bytes a series; bench_leaves, a scalar loop.  NaN: statistic NaN, state untouched.
#include <algorithm>
#include <array>
#include <bit>

#include "base/zeroed.hpp"
#include "detectors/detector.hpp"
#include "detectors/e_detector.hpp"
#include "detectors/evidence.hpp"

namespace argus::detectors {
namespace {

constexpr int kBuckets = 128;
constexpr int kPerOctave = 8;
constexpr int kBelow = 6 * kPerOctave;  // buckets under the first value
constexpr std::uint32_t kRenewed = 128;
constexpr std::uint32_t kFull = 60000;  // values at which all counts are halved
constexpr std::uint32_t kFewest = 128;
// Weaker bets than 2.5, 4 and 2/5 times the share would take thousands of values to see the end of an anomaly.
constexpr std::array<std::size_t, 3> kBold{1, 2, 4};
constexpr std::array<float, 3> kShares{0.25F, 0.25F, 0.5F};
constexpr float kMostTail = 1.6777216e7F;  // 24 bits
constexpr float kPatience = 4096.0F;  // wealth beyond which nothing is learned

struct Past {
    std::array<std::uint16_t, kBuckets> counts;
    std::array<float, kBold.size()> wealth;
    std::array<std::array<float, kBold.size()>, 2> pays;  // e-value of each bet: of a value below the bar, and beyond
    std::uint16_t total;  // values counted
    std::uint16_t above;  // of them at or above the bar
    std::int16_t lowest;  // bucket number of counts[0]; 0 = none seen
    std::uint8_t bar;     // index of the first bucket beyond; 0 = not known yet
};

// Numbered by exponent and the mantissa's first three bits; 0 = not above 0.
[[nodiscard]] int bucket_of(float x) noexcept {
    return x > 0.0F ? (std::bit_cast<std::int32_t>(x) >> 20) + 1 : 0;
}

class Tail final : public Detector {
public:
    Tail(std::uint32_t slots, float share) : share_(share), pasts_(slots) {}

    void score(const View& view, std::span<float> statistic) const override {
        for (std::size_t i = 0; i < view.values.size(); ++i) {
            const float x = value(view, i);
            statistic[i] = x == x ? bits_of(pasts_[i], x) : x;
        }
    }

    void learn(const View& view, std::span<const std::uint8_t> mask) override {
        for (std::size_t i = 0; i < view.values.size(); ++i) {
            const float x = value(view, i);
            if (x == x) learn(pasts_[i], x, mask[i]);
        }
    }

    void reset(std::span<const std::uint32_t> slots) override {
        for (const std::uint32_t slot : slots) pasts_[slot] = Past{};
    }
    void save(Writer& writer) const override { writer.array(std::span<const Past>(pasts_)); }
    void load(Reader& reader) override {
        reader.array(std::span<Past>(pasts_));
        for (Past& past : pasts_) {  // a damaged one must not index beyond its buckets
            if (past.bar >= kBuckets || past.above > past.total) past = Past{};
        }
    }

private:
    [[nodiscard]] static float value(const View& view, std::size_t i) noexcept {
        if (view.origin.empty()) return view.values[i];
        return static_cast<float>(static_cast<double>(view.values[i]) + view.origin[i]);
    }
    [[nodiscard]] static int place(const Past& past, float x) noexcept {
        return std::clamp(bucket_of(x) - past.lowest, 0, kBuckets - 1);
    }
    // Chance of passing the bar, as careful as `ratio` needs it.
    [[nodiscard]] static float chance(const Past& past, float ratio) noexcept {
        const auto n = static_cast<float>(past.total) + 1.0F;
        const float p = (static_cast<float>(past.above) + 0.5F) / n;
        const float apart = __builtin_sqrtf(static_cast<float>(past.above) + 1.0F) / n;
        return between(ratio > 1.0F ? p + apart : p > 2.0F * apart ? p - apart : 0.5F * p, 1.0e-4F, 0.9F);
    }
    [[nodiscard]] static float wealth_after(const Past& past, std::size_t i, bool beyond) noexcept {
        return std::min((past.wealth[i] + 1.0F) * past.pays[beyond ? 1 : 0][i], kMostTail);
    }
    [[nodiscard]] static float bits_of(const Past& past, float x) noexcept {
        if (past.bar == 0) return 0.0F;
        const bool beyond = place(past, x) >= past.bar;
        float mixed = 1.0F;
        for (std::size_t i = 0; i < kBold.size(); ++i) mixed += kShares[i] * wealth_after(past, i, beyond);
        return fast_log2(mixed);
    }
    static void price(Past& past) noexcept {
        for (std::size_t i = 0; i < kBold.size(); ++i) {
            const std::size_t b = kBold[i];
            const float p = chance(past, kRatios[b]);
            for (const bool beyond : {false, true}) {
                const float log2_e = binomial_bet(beyond ? 1.0F : 0.0F, 1.0F, p, kRatios[b], kLog2Ratios[b]);
                past.pays[beyond ? 1 : 0][i] = fast_exp2(between(log2_e, -100.0F, 100.0F));
            }
        }
    }

    void learn(Past& past, float x, std::uint8_t what) const noexcept {
        if (what == kLearnAnew) past = Past{};
        if (past.lowest == 0 && x > 0.0F) past.lowest = static_cast<std::int16_t>(std::max(1, bucket_of(x) - kBelow));
        const int at = place(past, x);
        const bool beyond = past.bar != 0 && at >= past.bar;
        float most = 0.0F;
        if (past.bar != 0) {
            for (std::size_t i = 0; i < kBold.size(); ++i) {
                past.wealth[i] = wealth_after(past, i, beyond);
                most += kShares[i] * past.wealth[i];
            }
        }
        if (what == kLearnNothing || past.lowest == 0 || most > kPatience) return;
        ++past.counts[static_cast<std::size_t>(at)];
        ++past.total;
        past.above = static_cast<std::uint16_t>(past.above + (beyond ? 1 : 0));
        if (past.total >= kFull) halve(past);
        if (past.total % kRenewed == 0 && past.total >= kFewest) renew(past);
    }

    static void halve(Past& past) noexcept {
        std::uint32_t total = 0;
        std::uint32_t above = 0;
        for (int b = 0; b < kBuckets; ++b) {
            auto& count = past.counts[static_cast<std::size_t>(b)];
            count = static_cast<std::uint16_t>(count / 2);
            total += count;
            above += past.bar != 0 && b >= past.bar ? count : 0U;
        }
        past.total = static_cast<std::uint16_t>(total);
        past.above = static_cast<std::uint16_t>(above);
    }

    // The highest edge that at least the share asked for reaches; none where the past is one bucket.
    void renew(Past& past) const noexcept {
        std::uint32_t above = 0;
        for (int b = kBuckets - 1; b > 0; --b) {
            above += past.counts[static_cast<std::size_t>(b)];
            if (static_cast<float>(above) < share_ * static_cast<float>(past.total)) continue;
            const bool splits = above < past.total;
            past.bar = static_cast<std::uint8_t>(splits ? b : 0);
            past.above = static_cast<std::uint16_t>(splits ? above : 0);
            price(past);
            return;
        }
        past.bar = 0;
    }

    float share_;
    ZeroedVector<Past> pasts_;
};

constexpr std::array<Option, 1> kOptions{{
    {"share", "1", 0.05, 0.005, 0.5, "share of usual values beyond the bar: 0.05 = the 95 % quantile"},
}};

constexpr std::array<Channel, 1> kChannels{{{"", Scale::rows_30}}};

std::unique_ptr<Detector> make_tail(std::uint32_t slots, std::span<const double> options) {
    return std::make_unique<Tail>(slots, static_cast<float>(options[0]));
}

}  // namespace

const DetectorDescriptor tail_detector{
    .leaf = {.name = "tail",
             .documentation = "Evidence that values pass their usual 95 % quantile more, or less, often.",
             .reference = "Masson, Rim and Lee (2019), PVLDB 12(12): DDSketch; Shin, Ramdas and Rinaldo (2022)",
             .options = kOptions},
    .make = make_tail,
    .channels = kChannels,
    .use = Use::named,
};

}  // namespace argus::detectors
