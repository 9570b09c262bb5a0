// E-detectors of a rate: Shiryaev-Roberts sums of betting e-values, each row M <- (M + 1) E, mixed over a few bets.
// While rows keep the law bet against, E[M] grows by at most 1 a row: mean rows to a false alarm at M >= m are at least
// m, whatever m and without looking back (Shin, Ramdas and Rinaldo 2022, E-detectors). Bets: the rate is 1.5, 2.5 or 4
// times as high, or 2/3 or 2/5 of it; a bet loses or wins by the likelihood ratio.
// Base-2 throughout; M is kept within 2^40.
#pragma once

#include <cstddef>

#include "base/arithmetic.hpp"

namespace argus::detectors {

inline constexpr std::size_t kBets = 5;
inline constexpr float kMostWealth = 1.0e12F;  // 40 bits: more would only delay the end
// Shares of the mixture: one half for a rise, one half for a fall.
inline constexpr float kRiseShare = 1.0F / 6.0F;
inline constexpr float kFallShare = 1.0F / 4.0F;
inline constexpr float kRatios[kBets] = {1.5F, 2.5F, 4.0F, 0.66666667F, 0.4F};
inline constexpr float kLog2Ratios[kBets] = {0.58496250F, 1.32192809F, 2.0F, -0.58496250F, -1.32192809F};

// M after one row with log2 e-value `log2_e`.
[[nodiscard]] ARGUS_INLINE float wager(float wealth, float log2_e) noexcept {
    const float bounded = log2_e < -100.0F ? -100.0F : log2_e > 100.0F ? 100.0F : log2_e;
    const float grown = (wealth + 1.0F) * fast_exp2(bounded);
    return grown < kMostWealth ? grown : kMostWealth;
}

// log2 of the likelihood ratio of `hits` among `trials` with chance min(r p, 0.999) against p.
[[nodiscard]] ARGUS_INLINE float binomial_bet(float hits, float trials, float p, float ratio,
    float log2_ratio) noexcept {
    const float wanted = ratio * p;
    const float q = wanted < 0.999F ? wanted : 0.999F;
    const float bounded = fast_log2(q / p);
    const float gain = wanted < 0.999F ? log2_ratio : bounded;
    return hits * gain + (trials - hits) * fast_log2((1.0F - q) / (1.0F - p));
}

// The same of a Poisson count with mean r m against m.
[[nodiscard]] ARGUS_INLINE float poisson_bet(float hits, float mean, float ratio, float log2_ratio) noexcept {
    return hits * log2_ratio - (ratio - 1.0F) * 1.44269504F * mean;
}

}  // namespace argus::detectors
