// Ranks of observations within their own past, and the evidence that ranks are no longer even:
//   Past         what one agent's observations were: a log-scale histogram, yes or no, or up to 16 named ways
//   Scatter      how much sums of ranks scatter beyond independence
//   Excursion    one alternative law of the ranks: a cumulative sum of log likelihood ratios, and what was seen since
// A rank among exchangeable observations is uniform whatever their law, so agents of any speed and any tail are pooled
// without a model of them, and a bet on a rank has mean one (conformal test martingales: Vovk, Nouretdinov, Gammerman
// 2003; as a chart with a stated false-alarm interval, Vovk et al. 2021). Observations that clump are discounted by
// their learned dispersion, and by how much shorter their past is than what is held against it.
// Logarithms are cost_model.hpp's: the same bits on every processor.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "auditors/cost_model.hpp"
#include "events/text.hpp"

namespace argus::auditors {

enum class Scale : std::uint8_t { binary, ratio, score, way };

// down: smaller, less often, or an unusual way; up: larger, more often.
inline constexpr std::size_t kAlternatives = 4;  // slightly and clearly down, slightly and clearly up
[[nodiscard]] constexpr std::size_t side_of(std::size_t alternative) noexcept { return alternative / 2; }

// What one observation says, given its past.
struct Scored {
    std::array<float, kAlternatives> nats{};  // log likelihood ratios
    float z = 0;                              // its rank as a residual of mean 0 and variance 1
    float observed = 0, expected = 0;         // log2 of the value, or share, or score
    std::uint32_t past = 0;                   // observations it was held against
};

class Past {
public:
    static constexpr std::uint32_t kBins = 64, kWays = 16;
    static constexpr std::uint32_t kMost = 1024, kFast = 128;

    std::uint32_t began_s = 0;

    [[nodiscard]] std::uint32_t size() const noexcept { return count_; }

    // Of what one agent does in one second a few observations tell as much as all: they belong to one burst.
    [[nodiscard]] bool admits(std::uint32_t now_s) noexcept {
        if (second_ != now_s) in_second_ = 0;
        second_ = now_s;
        return in_second_ < kASecond && ++in_second_ != 0;
    }

    // `value`: 0 or 1; a positive amount; a score; or, of a way, the hash of its name.
    [[nodiscard]] Scored score(Scale scale, double value, std::uint32_t way) noexcept {
        const double luck = 0x1p-53 * static_cast<double>(events::mix(++drawn_, 0x9e3779b97f4a7c15ULL) >> 11U);
        Scored s;
        s.past = count_;
        if (scale == Scale::binary) return bernoulli(value > 0.5, s);
        const auto [below, equal] = scale == Scale::way ? rarer(way) : below_and_equal(bin(scale, value));
        const double rank = (below + luck * (equal + 1.0)) / (count_ + 1.0);
        s.z = static_cast<float>((rank - 0.5) * kRootTwelve);
        const double from_top = std::max(1.0 - rank, 1e-9), from_bottom = std::max(rank, 1e-9);
        for (std::size_t strength = 0; strength < 2; ++strength) {
            const double a = kPowers[strength];
            s.nats[strength] = bet(quick_log(a) + (a - 1.0) * quick_log(from_bottom));
            if (scale != Scale::way) s.nats[2 + strength] = bet(quick_log(a) + (a - 1.0) * quick_log(from_top));
        }
        s.observed = static_cast<float>(scale == Scale::way ? rank : in_units(scale, value));
        s.expected = scale == Scale::way ? 0.5F : static_cast<float>(mean_);
        return s;
    }

    // Once the past is known, what it takes in is spread evenly over `memory_s`, so that a slow drift stays visible
    // however many observations a day bring.
    void learn(Scale scale, double value, std::uint32_t way, std::uint32_t now_s, double memory_s) noexcept {
        if (count_ >= kFast && static_cast<double>(now_s - learned_s_) < memory_s / kMost) return;
        learned_s_ = now_s;
        if (count_ == 0 && scale == Scale::ratio) origin_ = in_units(scale, value);
        if (count_ >= kMost) halve();
        const std::size_t at = scale == Scale::binary ? (value > 0.5 ? 1U : 0U)
                               : scale == Scale::way  ? place_of(way)
                                                      : bin(scale, value);
        ++counts_[at];
        ++count_;
        if (scale == Scale::ratio || scale == Scale::score) mean_ += (in_units(scale, value) - mean_) / count_;
    }

    void restart(std::uint32_t now_s) noexcept {
        *this = Past{};
        began_s = now_s;
    }

private:
    static constexpr std::uint32_t kASecond = 4;
    static constexpr double kRootTwelve = 3.4641016151377544;
    static constexpr std::array<double, 2> kPowers{0.8, 0.5};      // density a r^(a - 1) of the rank r
    static constexpr std::array<double, 4> kOdds{0.6, 0.3, 1.0 / 0.6, 1.0 / 0.3};
    static constexpr double kClip = 3.0;                           // a single observation proves little

    [[nodiscard]] static float bet(double nats) noexcept { return static_cast<float>(std::min(nats, kClip)); }

    [[nodiscard]] static double in_units(Scale scale, double value) noexcept {
        if (scale == Scale::score) return std::clamp(value, -1e9, 1e9);
        return static_cast<double>(fast_log2(static_cast<float>(std::clamp(value, 1e-6, 1e18))));
    }
    // Four a doubling around the first value; scores by sign and size.
    [[nodiscard]] std::size_t bin(Scale scale, double value) const noexcept {
        double place = in_units(scale, value);
        if (scale == Scale::ratio) {
            place = 4.0 * (place - origin_);
        } else {
            const double size = 4.5 * static_cast<double>(fast_log2(static_cast<float>(1.0 + std::abs(place))));
            place = place < 0 ? -size : size;
        }
        return static_cast<std::size_t>(std::clamp(place + 32.5, 0.0, kBins - 1.0));
    }

    struct Position {
        double below = 0, equal = 0;
    };
    [[nodiscard]] Position below_and_equal(std::size_t at) const noexcept {
        std::uint32_t below = 0;
        for (std::size_t b = 0; b < at; ++b) below += counts_[b];
        return {static_cast<double>(below), static_cast<double>(counts_[at])};
    }
    // Ways seen less often than this one, itself counted, and those seen as often.
    [[nodiscard]] Position rarer(std::uint32_t way) const noexcept {
        const auto slot = static_cast<std::size_t>(std::find(ways_.begin(), ways_.end(), way) - ways_.begin());
        const std::uint32_t own = (slot < kWays ? counts_[slot] : 0U) + 1U;
        Position p;
        for (std::size_t w = 0; w < kWays; ++w) {
            if (w == slot) p.equal += counts_[w];
            else if (counts_[w] < own) p.below += counts_[w];
            else if (counts_[w] == own) p.equal += counts_[w];
        }
        return p;
    }
    [[nodiscard]] std::size_t place_of(std::uint32_t way) noexcept {
        std::size_t rarest = 0;
        for (std::size_t w = 0; w < kWays; ++w) {
            if (ways_[w] == way && counts_[w] > 0) return w;
            if (counts_[w] < counts_[rarest]) rarest = w;
        }
        if (counts_[rarest] > 1) return rarest;  // no room: it is counted with the rarest
        count_ -= counts_[rarest];
        counts_[rarest] = 0;
        ways_[rarest] = way;
        return rarest;
    }

    // The odds of a yes shift; the Krichevsky-Trofimov estimate is the null, so short pasts claim little.
    [[nodiscard]] Scored bernoulli(bool yes, Scored s) const noexcept {
        const double p = (counts_[1] + 0.5) / (count_ + 1.0);
        for (std::size_t k = 0; k < kAlternatives; ++k) {
            const double q = p * kOdds[k] / (1.0 - p + p * kOdds[k]);
            s.nats[k] = bet(quick_log(yes ? q / p : (1.0 - q) / (1.0 - p)));
        }
        s.z = static_cast<float>(((yes ? 1.0 : 0.0) - p) / std::sqrt(p * (1.0 - p)));
        s.observed = yes ? 1.0F : 0.0F;
        s.expected = static_cast<float>(p);
        return s;
    }

    void halve() noexcept {
        count_ = 0;
        for (std::uint16_t& c : counts_) count_ += c = static_cast<std::uint16_t>(c / 2);
    }

    std::uint32_t count_ = 0, learned_s_ = 0, second_ = 0, in_second_ = 0;
    std::uint64_t drawn_ = 0;
    double origin_ = 0, mean_ = 0;
    std::array<std::uint16_t, kBins> counts_{};
    std::array<std::uint32_t, kWays> ways_{};
};

// How much sums of residuals in a row scatter beyond independence, for blocks of 8 to 1,024. Neighbouring blocks are
// compared (von Neumann 1941), so that a slow decline is no scatter, while bursts and swings of the day are.
class Scatter {
public:
    void add(double z) noexcept {
        sum_ += z;
        if (++count_ < kLeast) return;
        double sum = sum_ / kRootLeast;  // of unit variance
        sum_ = 0;
        count_ = 0;
        for (Length& length : lengths_) {
            if (length.seen == 0) {
                length.seen = 1;
            } else {
                const double step = sum - static_cast<double>(length.previous);
                length.squares = length.squares * kKeep + static_cast<float>(0.5 * step * step);
                length.weight = length.weight * kKeep + 1.0F;
            }
            const double pair = (sum + static_cast<double>(length.previous)) * kRootHalf;
            length.previous = static_cast<float>(sum);
            if (length.even == 0) {
                length.even = 1;
                return;
            }
            length.even = 0;
            sum = pair;
        }
    }
    // The largest over the lengths, less one standard error: to call scatter what is chance would hide shifts.
    [[nodiscard]] double dispersion() const noexcept {
        double most = 1.0;
        for (const Length& length : lengths_) {
            if (length.weight < 4.0F) continue;
            const double known = kPrior + static_cast<double>(length.weight);
            const double mean = (kPrior + static_cast<double>(length.squares)) / known;
            most = std::max(most, mean * (1.0 - std::sqrt(3.0 / known)));
        }
        return most;
    }
    // What comes next is another law: not to be compared with what came before.
    void break_off() noexcept {
        sum_ = 0;
        count_ = 0;
        for (Length& length : lengths_) length.seen = length.even = 0;
    }

private:
    static constexpr std::uint32_t kLeast = 8;
    static constexpr std::size_t kLengths = 8;
    static constexpr double kRootLeast = 2.8284271247461903, kRootHalf = 0.7071067811865476, kPrior = 5.0;
    static constexpr float kKeep = 0.997F;
    struct Length {
        float previous = 0, squares = 0, weight = 0;
        std::uint8_t seen = 0, even = 0;
    };
    std::array<Length, kLengths> lengths_{};
    double sum_ = 0;
    std::uint32_t count_ = 0;
};

// A run of observations that speaks for one alternative.
struct Excursion {
    double nats = 0, observed = 0, expected = 0, z = 0, past = 0;
    std::uint32_t count = 0, first = 0, since_s = 0;

    // Evidence begins anew where it falls to nothing (Page 1954).
    void add(const Scored& s, float gained, std::uint32_t number, std::uint32_t now_s) noexcept {
        nats += static_cast<double>(gained);
        if (nats <= 0) {
            if (count == 0) nats = 0;
            else *this = Excursion{};
            return;
        }
        if (count == 0) {
            first = number;
            since_s = now_s;
        }
        ++count;
        observed += static_cast<double>(s.observed);
        expected += static_cast<double>(s.expected);
        z += static_cast<double>(s.z);
        past += static_cast<double>(s.past);
    }
    // A mean that is known from n observations is no truth: m observations held against it are worth m / (1 + m / n).
    [[nodiscard]] double discounted(double dispersion, std::uint32_t pasts) const noexcept {
        if (count == 0) return 0.0;
        const double known = std::max(past / count * pasts, 1.0);
        return nats / (dispersion * (1.0 + count / known));
    }
    [[nodiscard]] double shift() const noexcept { return count == 0 ? 0.0 : (observed - expected) / count; }
};

}  // namespace argus::auditors
