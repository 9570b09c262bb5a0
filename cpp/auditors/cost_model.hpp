// The laws that the cost auditor learns, each small, bounded and trivially copyable:
//   UnitPrice   what a model charges per token, by running least squares of relative error over the four token counts
//   UsualPrice  a payer's upper usual price, as a 98 % quantile of ratios to a reference
//   Dispersion  how much block sums scatter beyond the assumed law (Pearson's statistic), one per block length
//   RunLaw      how long runs of like turns become
//   SizeLaw     histogram of the cost of a call, three bins a doubling
// Logarithms are base/arithmetic's, so that the bits do not depend on the processor.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/arithmetic.hpp"

namespace argus::auditors {

inline constexpr double kLn2 = 0.69314718055994531;
inline constexpr double kKeepBin = 0.9942404238175473;  // 2^(-1/120): a half-life of 120 bins

[[nodiscard]] inline double quick_log(double x) noexcept {
    return kLn2 * static_cast<double>(fast_log2(static_cast<float>(x)));
}

// Input, output, cache-read and cache-write tokens. Whether cached tokens are part of the input differs by provider;
// the fit is linear in all four, so it is exact either way.
using Usage = std::array<double, 4>;

class UnitPrice {
public:
    // The cost of `usage` at the learned prices; 0 where they are not known, or do not reproduce costs to 2 %.
    [[nodiscard]] double list(const Usage& usage) const noexcept { return exact() ? fitted(usage) : 0.0; }
    [[nodiscard]] bool exact() const noexcept { return tested_ >= 10 && agreement_ >= 0.9; }

    void learn(const Usage& usage, double cost, std::int64_t now) noexcept {
        if (!(cost > 0)) return;
        const double at_list = fitted(usage);
        const double step = at_list > 0 ? cost / at_list : 1.0;
        const bool near = step > 0.8 && step < 1.25;
        if (exact() && !near) {
            outlier(now);
            return;
        }
        outliers_ = 0;
        if (at_list > 0) {
            tested_ = std::min(tested_ + 1, 64U);
            agreement_ += ((step > 0.98 && step < 1.02 ? 1.0 : 0.0) - agreement_) / tested_;
        }
        add(usage, cost);
    }

private:
    static constexpr std::uint32_t kFit = 20, kOftenUntil = 200, kMemory = 1024;
    static constexpr std::int64_t kAccept = 3'600'000'000'000;

    // A price that differs on every call for an hour is the new price.
    void outlier(std::int64_t now) noexcept {
        if (outliers_++ == 0) outlier_since_ = now;
        if (outliers_ >= kFit && now - outlier_since_ >= kAccept) *this = UnitPrice{};
    }

    [[nodiscard]] double fitted(const Usage& usage) const noexcept {
        double sum = 0.0;
        for (std::size_t j = 0; j < usage.size(); ++j) {
            if (usage[j] > 0 && gram_[j][j] <= 0) return 0.0;  // a kind of token never seen before
            sum += price_[j] * usage[j];
        }
        return sum > 0 ? sum : 0.0;
    }

    void add(const Usage& usage, double cost) noexcept {
        Usage x;
        for (std::size_t j = 0; j < x.size(); ++j) x[j] = usage[j] / cost;
        for (std::size_t j = 0; j < x.size(); ++j) {
            for (std::size_t k = 0; k <= j; ++k) gram_[j][k] += x[j] * x[k];
            right_[j] += x[j];
        }
        ++calls_;
        if (calls_ >= kFit && calls_ % (calls_ < kOftenUntil ? 10 : 100) == 0) fit();
        if (calls_ < kMemory) return;
        calls_ /= 2;
        for (std::size_t j = 0; j < x.size(); ++j) {
            for (std::size_t k = 0; k <= j; ++k) gram_[j][k] *= 0.5;
            right_[j] *= 0.5;
        }
    }

    // LDL^T of the normal equations; a column that the ones before explain gets no price of its own.
    void fit() noexcept {
        constexpr std::size_t n = 4;
        double l[n][n] = {};
        double d[n] = {};
        Usage y{};
        for (std::size_t j = 0; j < n; ++j) {
            double pivot = gram_[j][j];
            double right = right_[j];
            for (std::size_t k = 0; k < j; ++k) {
                double entry = gram_[j][k];
                for (std::size_t m = 0; m < k; ++m) entry -= l[j][m] * l[k][m] * d[m];
                l[j][k] = d[k] > 0 ? entry / d[k] : 0.0;
                pivot -= l[j][k] * l[j][k] * d[k];
                right -= l[j][k] * y[k];
            }
            d[j] = pivot > 1e-6 * gram_[j][j] ? pivot : 0.0;
            y[j] = d[j] > 0 ? right : 0.0;
        }
        for (std::size_t j = n; j-- > 0;) {
            double value = d[j] > 0 ? y[j] / d[j] : 0.0;
            for (std::size_t k = j + 1; k < n && d[j] > 0; ++k) value -= l[k][j] * price_[k];
            price_[j] = value;
        }
    }

    double gram_[4][4] = {};  // lower triangle
    Usage right_{}, price_{};
    std::uint32_t calls_ = 0, tested_ = 0, outliers_ = 0;
    double agreement_ = 0.0;
    std::int64_t outlier_since_ = 0;
};

// Ratios from 1/16 to 16 in quarters of a doubling; counts are halved when they fill a byte.
class UsualPrice {
public:
    [[nodiscard]] bool known() const noexcept { return total_ >= 20; }
    [[nodiscard]] double value() const noexcept { return static_cast<double>(usual_); }
    void add(double ratio) noexcept {
        const double place = 4.0 * static_cast<double>(fast_log2(static_cast<float>(ratio))) + 16.5;
        const auto bin = static_cast<std::size_t>(std::clamp(place, 0.0, 31.0));
        ++counts_[bin];
        if (++total_ == 255) {
            total_ = 0;
            for (std::uint8_t& c : counts_) total_ = static_cast<std::uint8_t>(total_ + (c /= 2));
        }
        if (total_ % 20 == 0) settle();
    }

private:
    void settle() noexcept {
        unsigned above = 0;
        std::size_t bin = counts_.size();
        while (bin > 0 && 50 * (above + counts_[bin - 1]) <= total_) above += counts_[--bin];
        usual_ = fast_exp2((static_cast<float>(bin) - 17.0F) * 0.25F);
    }
    std::array<std::uint8_t, 32> counts_{};
    std::uint8_t total_ = 0;
    float usual_ = 1.0F;
};

// Blocks of 1, 2, 4, 8 and 16 bins; the prior is 1 with the weight of 5 blocks.
class Dispersion {
public:
    static constexpr std::size_t kBlocks = 5;

    // Sum of residuals of one bin and the variance that the assumed law gives it.
    void learn(double residual, double variance) noexcept {
        double keep = kKeepBin;
        for (std::size_t b = 0; b < kBlocks; ++b, keep *= keep) {
            Block& block = blocks_[b];
            block.residual += static_cast<float>(residual);
            block.variance += static_cast<float>(variance);
            if (++block.bins < 1U << b) continue;
            // Blocks in which next to nothing is expected tell nothing.
            if (block.variance > 0.3F) {
                const double r = static_cast<double>(block.residual);
                const double pearson = r * r / static_cast<double>(block.variance);
                block.sum = static_cast<float>(static_cast<double>(block.sum) * keep + pearson);
                block.weight = static_cast<float>(static_cast<double>(block.weight) * keep + 1.0);
            }
            block.residual = block.variance = 0.0F;
            block.bins = 0;
        }
    }
    // Of blocks up to that length: what clumps in short blocks clumps in long ones, of which fewer were seen.
    [[nodiscard]] double value(std::size_t longest) const noexcept {
        double most = 1.0;
        for (std::size_t b = 0; b <= longest; ++b) {
            const double sum = 5.0 + static_cast<double>(blocks_[b].sum);
            most = std::max(most, sum / (5.0 + static_cast<double>(blocks_[b].weight)));
        }
        return most;
    }

private:
    struct Block {
        float residual = 0.0F, variance = 0.0F, sum = 0.0F, weight = 0.0F;
        std::uint32_t bins = 0;
    };
    std::array<Block, kBlocks> blocks_{};
};

inline constexpr std::size_t kSizeBins = 96;

// 2^8 nano-USD to 2^40 (1,100 USD); what lies outside counts at the end.
[[nodiscard]] inline std::size_t size_bin(double nusd) noexcept {
    const double place = 3.0 * (static_cast<double>(fast_log2(static_cast<float>(std::max(nusd, 1.0)))) - 8.0);
    return static_cast<std::size_t>(std::clamp(place, 0.0, static_cast<double>(kSizeBins - 1)));
}

class SizeLaw {
public:
    void decay(double keep) noexcept {
        for (float& c : counts_) c *= static_cast<float>(keep);
        total_ *= keep;
    }
    void add(std::size_t bin, double weight) noexcept {
        counts_[bin] += static_cast<float>(weight);
        total_ += weight;
    }
    [[nodiscard]] double total() const noexcept { return total_; }
    [[nodiscard]] double smoothed(std::size_t bin) const noexcept {
        const double below = static_cast<double>(counts_[bin > 0 ? bin - 1 : 0]);
        const double above = static_cast<double>(counts_[bin + 1 < kSizeBins ? bin + 1 : bin]);
        return 0.25 * below + 0.5 * static_cast<double>(counts_[bin]) + 0.25 * above;
    }

private:
    std::array<float, kSizeBins> counts_{};
    double total_ = 0.0;
};

// How long runs of like turns become: how many reached each length, and how often two like turns were followed by a
// third and so on, in runs that were not spoken of.
class RunLaw {
public:
    static constexpr std::uint32_t kLongest = 64;

    [[nodiscard]] bool known() const noexcept { return runs_ > 30; }
    void begin() noexcept {
        if (++runs_ < 1U << 14) return;
        runs_ /= 2;
        for (std::uint16_t& r : reached_) r = static_cast<std::uint16_t>(r / 2);
    }
    void reach(std::uint32_t turns) noexcept {
        if (turns < kLongest && reached_[turns] < 0xffff) ++reached_[turns];
        if (turns == 2) ended_ += 1;
        if (turns > 2) went_on_ += 1;
        if (ended_ + went_on_ < 4096) return;
        ended_ /= 2;
        went_on_ /= 2;
    }
    // A run of so many turns was spoken of: that it went on is no sign that others do.
    void disown(std::uint32_t turns) noexcept {
        ended_ = std::max(0.0, ended_ - 1);
        went_on_ = std::max(0.0, went_on_ - (turns - 2.0));
    }
    // The shortest run that is rare: at most 1 % reached it, and chance makes one in a million (e^14) so long. `own`
    // turns of the run at hand are left out.
    [[nodiscard]] std::uint32_t bar(std::uint32_t shortest, std::uint32_t own) const noexcept {
        const double others = own < 2 ? 0.0 : own - 2.0;
        const double went_on = std::max(0.0, went_on_ - others);
        const double ended = std::max(0.0, ended_ - (own < 2 ? 0.0 : 1.0));
        const double turns = 2.0 - kNats / quick_log((went_on + 0.5) / (went_on + ended + 10.0));
        std::uint32_t bar = turns < kLongest ? std::max(shortest, static_cast<std::uint32_t>(turns)) : kLongest;
        while (bar < kLongest && reached_[bar] > kShare * (runs_ + 100.0)) ++bar;
        return bar;
    }

private:
    static constexpr double kShare = 0.01, kNats = 14.0;
    std::uint32_t runs_ = 0;
    std::array<std::uint16_t, kLongest> reached_{};
    double went_on_ = 0, ended_ = 0;
};

}  // namespace argus::auditors
