#include "engine/calibration.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#include "base/arithmetic.hpp"
#include "base/dispatch.hpp"

namespace argus::engine {
namespace {

constexpr std::uint16_t kUnit = 8;  // counts of one value
constexpr std::uint16_t kSampledUnits = kUnit * kSampled;
constexpr int kBucketCount = static_cast<int>(Calibration::kBuckets);
constexpr float kPerOctave = 3.0F;
constexpr std::array<float, 3> kThirds{1.0F, 1.25992105F, 1.58740105F};  // 2^(0/3), 2^(1/3), 2^(2/3)
constexpr float kFloorShare = 0.02F;     // floor: this share of the mean of the first values
constexpr float kLeastFloor = 1e-12F;
constexpr float kFirstBelow = 1.0F / 64.0F;  // provisional floor, of the first positive value
constexpr int kHome = 9;  // where the mark is put when it rises above kHighest
constexpr int kHighest = 15;
constexpr float kMostPerEdge = 1e18F;
constexpr float kLeastPerEdge = 1e-30F;
constexpr int kSink = 12;  // buckets by which the lowest one falls when less than a value reaches beyond it
constexpr std::uint32_t kKeptOfSunk = 300 * kUnit;
constexpr std::int32_t kMaintainEvery = 128;  // values of a series
constexpr std::uint32_t kForgotten = 1656;  // of 65,536 counts, every kMaintainEvery values: 1/5,000 a value
constexpr float kBeyondPerOctave = 6.64F;
constexpr float kSteepest = 8.0F;
constexpr float kFlattest = 1.0F;
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr int kLanes = 32;
static_assert(kBucketCount + 1 == kLanes && sizeof(Calibration::Past) == 64);
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int kMantissaBits = 23;
constexpr std::int32_t kMantissa = (1 << kMantissaBits) - 1;
constexpr std::int32_t kThird = 0x3FA14518 & kMantissa;      // 2^(1/3)
constexpr std::int32_t kTwoThirds = 0x3FCB2FF5 & kMantissa;  // 2^(2/3)
constexpr float kNeverAbove = std::numeric_limits<float>::infinity();
constexpr float kLargestMean = 1e30F;
constexpr float kLargestRatio = 1e37F;
constexpr float kHalfBucket = 1.12246205F;  // 2^(1/6)
constexpr float kUsualPastBits = 11.5507468F;  // log2(3000)

// kPrefix[kBuckets - 1 - k + j] is all ones where bucket j is at most k.
constexpr auto kPrefix = [] {
    std::array<std::uint16_t, 2 * Calibration::kBuckets + 1> window{};
    for (std::size_t i = 0; i < Calibration::kBuckets; ++i) window[i] = 0xFFFF;
    return window;
}();

// 2^(k/3) within the range of float.
[[nodiscard]] float third_octaves(int k) noexcept {
    const int octaves = k >= 0 ? k / 3 : -((2 - k) / 3);
    const int exponent = std::clamp(octaves + 127, 1, 254);
    return kThirds[static_cast<std::size_t>(k - 3 * octaves)] *
           __builtin_bit_cast(float, static_cast<std::int32_t>(exponent) << kMantissaBits);
}

ARGUS_INLINE void above_body(const float* statistic, const float* mark, std::size_t count,
                             std::uint8_t* above) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) above[i] = magnitude(statistic[i]) >= mark[i] ? 1 : 0;
}

// Thirds of an octave above the floor by comparison: no logarithm is taken.
ARGUS_INLINE int thirds_above(float statistic, float per_floor) noexcept {
    const float ratio = statistic * per_floor;
    const std::int32_t raw = __builtin_bit_cast(std::int32_t, ratio);
    const std::int32_t mantissa = raw & kMantissa;
    const int thirds = (mantissa >= kThird ? 1 : 0) + (mantissa >= kTwoThirds ? 1 : 0);
    return 3 * ((raw >> kMantissaBits) - 127) + thirds;
}

ARGUS_INLINE int bucket_of(float statistic, float per_edge) noexcept {
    const int k = thirds_above(statistic, per_edge);
    const int high = k < kBucketCount - 1 ? k : kBucketCount - 1;
    return high > 0 ? high : 0;
}

ARGUS_INLINE void buckets_body(const std::uint32_t* slot, const float* statistic, const float* per_edge,
                               std::size_t count, std::uint8_t* bucket) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t at = slot[i];
        bucket[i] = static_cast<std::uint8_t>(bucket_of(magnitude(statistic[at]), per_edge[at]));
    }
}

// Half of its own bucket counts as above a value; a negative statistic abstains.
ARGUS_INLINE void bits_body(const std::uint32_t* slot, const std::int32_t* twice_share, const float* statistic,
                            const float* past_bits, const float* lift, std::size_t count, float* bits) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t at = slot[i];
        const float share = 0.5F * static_cast<float>(twice_share[i]) + static_cast<float>(kUnit);
        const float found = lift[at] * (past_bits[at] - fast_log2(share));
        bits[i] = ((found < kLeastBits) | !(statistic[at] >= 0.0F)) ? 0.0F : found;
    }
}

// Of pasts of so many counts: their scale, and twice the counts that at most lie above the mark.
ARGUS_INLINE void scale_body(const float* all, std::size_t count, float* past_bits, float* lift,
                             std::int32_t* twice_most) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float known = fast_log2(all[i] + 2.0F * kUnit);
        const float lifted = std::sqrt(std::sqrt(kUsualPastBits / fast_log2(all[i] * (1.0F / kUnit) + 10.0F)));
        const float most = fast_exp2(known - kLeastBits / lifted) - static_cast<float>(kUnit);
        past_bits[i] = known;
        lift[i] = lifted;
        twice_most[i] = static_cast<std::int32_t>(2.0F * most);
    }
}

ARGUS_INLINE void insert_body(const std::uint32_t* slot, const std::uint8_t* bucket, std::uint16_t units,
                              std::size_t count, Calibration::Past* pasts) {
    for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t* at_least = pasts[slot[i]].at_least.data();
        const std::uint16_t* prefix = kPrefix.data() + (kBucketCount - 1 - bucket[i]);
        ARGUS_IVDEP
        for (int j = 0; j < kLanes; ++j) {
            at_least[j] = static_cast<std::uint16_t>(at_least[j] + (prefix[j] & units));
        }
    }
}

// Takes kForgotten of 65,536 from every count, on average exactly: the remainders are dithered by the series'
// age, alike for all buckets, so that counts keep falling from bucket to bucket.
ARGUS_INLINE void forget_body(const std::uint32_t* slot, const std::uint32_t* dither, std::size_t count,
                              Calibration::Past* pasts) {
    for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t* at_least = pasts[slot[i]].at_least.data();
        const std::uint32_t up = dither[i];
        ARGUS_IVDEP
        for (int j = 0; j < kLanes; ++j) {
            const std::uint32_t before = at_least[j];
            at_least[j] = static_cast<std::uint16_t>(before - ((before * kForgotten + up) >> 16));
        }
    }
}

// The lowest bucket but the first whose values have kLeastBits; counts fall from bucket to bucket.
ARGUS_INLINE void lowest_body(const std::uint32_t* slot, const std::int32_t* twice_most, std::size_t count,
                              const Calibration::Past* pasts, std::uint8_t* lowest) {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint16_t* at_least = pasts[slot[i]].at_least.data();
        const std::int32_t most = twice_most[i];
        std::int32_t too_many = 0;
        ARGUS_IVDEP
        for (int j = 1; j < kBucketCount - 1; ++j) too_many += at_least[j] + at_least[j + 1] > most ? 1 : 0;
        lowest[i] = static_cast<std::uint8_t>(1 + too_many);
    }
}

// While warming up the floor is provisional and counts are not yet cumulative.
ARGUS_INLINE void warm_body(const float* statistic, const std::uint8_t* learn, const Calibration::Warming& of,
                            std::size_t count) {
    float* per_edge = of.per_edge;
    float* mean = of.mean;
    std::uint8_t* warm = of.warm;
    std::uint8_t* bucket = of.bucket;
    std::uint8_t* learns = of.learns;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float y = magnitude(statistic[i]);
        const bool taken = (warm[i] < kWarmValues) & (learn[i] != 0) & (y == y);
        const float low = y * kFirstBelow > kLeastFloor ? y * kFirstBelow : kLeastFloor;
        const bool first = taken & (per_edge[i] == 0.0F) & (y > 0.0F);
        const float edge = first ? 1.0F / low : per_edge[i];
        const float some = y < kLargestMean ? y : kLargestMean;
        const float moved = mean[i] + (some - mean[i]) / static_cast<float>(warm[i] + 1);
        per_edge[i] = edge;
        mean[i] = taken ? moved : mean[i];
        warm[i] = static_cast<std::uint8_t>(warm[i] + (taken ? 1 : 0));
        bucket[i] = static_cast<std::uint8_t>(bucket_of(y, edge));
        learns[i] = taken ? 1 : 0;
    }
}

ARGUS_KERNEL(above_kernel, above_body,
             (const float* statistic, const float* mark, std::size_t count, std::uint8_t* above),
             (statistic, mark, count, above))

ARGUS_KERNEL(buckets_kernel, buckets_body,
             (const std::uint32_t* slot, const float* statistic, const float* per_edge, std::size_t count,
              std::uint8_t* bucket),
             (slot, statistic, per_edge, count, bucket))

ARGUS_KERNEL(bits_kernel, bits_body,
             (const std::uint32_t* slot, const std::int32_t* twice_share, const float* statistic,
              const float* past_bits, const float* lift, std::size_t count, float* bits),
             (slot, twice_share, statistic, past_bits, lift, count, bits))

ARGUS_KERNEL(forget_kernel, forget_body,
             (const std::uint32_t* slot, const std::uint32_t* dither, std::size_t count, Calibration::Past* pasts),
             (slot, dither, count, pasts))

ARGUS_KERNEL(lowest_kernel, lowest_body,
             (const std::uint32_t* slot, const std::int32_t* twice_most, std::size_t count,
              const Calibration::Past* pasts, std::uint8_t* lowest),
             (slot, twice_most, count, pasts, lowest))

ARGUS_KERNEL(warm_kernel, warm_body,
             (const float* statistic, const std::uint8_t* learn, const Calibration::Warming& of, std::size_t count),
             (statistic, learn, of, count))

ARGUS_KERNEL(scale_kernel, scale_body,
             (const float* all, std::size_t count, float* past_bits, float* lift, std::int32_t* twice_most),
             (all, count, past_bits, lift, twice_most))

ARGUS_KERNEL(insert_kernel, insert_body,
             (const std::uint32_t* slot, const std::uint8_t* bucket, std::uint16_t units, std::size_t count,
              Calibration::Past* pasts),
             (slot, bucket, units, count, pasts))

[[nodiscard]] std::uint32_t top_of(const Calibration::Past& past) noexcept {
    std::uint32_t top = Calibration::kBuckets - 1;
    while (top > 0 && past.at_least[top] == 0) --top;
    return top;
}

// Positions of the set bits of a byte, lowest first, and how many they are.
struct SetBits {
    std::array<std::uint8_t, 8> at{};
};
constexpr auto kSetBits = [] {
    std::array<SetBits, 256> table{};
    for (std::size_t byte = 0; byte < table.size(); ++byte) {
        std::size_t found = 0;
        for (std::uint8_t bit = 0; bit < 8; ++bit) {
            if ((byte >> bit & 1U) != 0) table[byte].at[found++] = bit;
        }
    }
    return table;
}();
constexpr auto kSetCount = [] {
    std::array<std::uint8_t, 256> table{};
    for (std::size_t byte = 0; byte < table.size(); ++byte) {
        table[byte] = static_cast<std::uint8_t>(std::popcount(byte));
    }
    return table;
}();

// Indices of the bytes that are 1; the others are 0. No branch depends on the bytes. `flags` and `out` have room for 8
// entries more than are told of.
ARGUS_INLINE void set_bytes_body(const std::uint8_t* flags, std::size_t count, std::uint32_t* out,
                                 std::size_t* found) {
    constexpr std::uint64_t kGather = 0x0102040810204080;  // the lowest bits of eight bytes become the highest byte
    std::size_t total = 0;
    for (std::size_t first = 0; first < count; first += 8) {
        std::uint64_t word = 0;
        std::memcpy(&word, flags + first, sizeof(word));
        const std::size_t byte = word * kGather >> 56;
        const std::uint8_t* at = kSetBits[byte].at.data();
        std::uint32_t* to = out + total;
        ARGUS_IVDEP
        for (std::size_t k = 0; k < 8; ++k) to[k] = static_cast<std::uint32_t>(first) + at[k];
        total += kSetCount[byte];
    }
    *found = total;
}

ARGUS_KERNEL(set_bytes_kernel, set_bytes_body,
             (const std::uint8_t* flags, std::size_t count, std::uint32_t* out, std::size_t* found),
             (flags, count, out, found))

#if defined(__x86_64__) && defined(__GNUC__)
// The same search in one pass, which plain loops do not compile to: 16 at a time, the indices compressed.
ARGUS_TARGET_V4 std::size_t search_v4(const float* statistic, const float* mark, std::size_t count,
                                      std::uint32_t* out) {
    constexpr std::size_t kWide = 16;
    __m512i index = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    std::size_t found = 0;
    for (std::size_t first = 0; first < count; first += kWide) {
        const std::size_t left = count - first;
        const auto some = static_cast<__mmask16>(left < kWide ? (1U << left) - 1U : 0xFFFFU);
        const __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(some, statistic + first));
        const __m512 least = _mm512_maskz_loadu_ps(some, mark + first);
        const __mmask16 above = _mm512_mask_cmp_ps_mask(some, size, least, _CMP_GE_OQ);
        _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(above, index));
        found += static_cast<std::size_t>(__builtin_popcount(above));
        index = _mm512_add_epi32(index, _mm512_set1_epi32(kWide));
    }
    return found;
}
#endif

// Calls visit(slot, series) for every channel of the series whose count of values is a multiple of `every`.
template <class Visit>
void each_due(std::span<const std::int32_t> seen, std::int32_t every, std::size_t slots, const Visit& visit) {
    for (std::size_t of = 0; of < seen.size(); ++of) {
        if (seen[of] % every != 0) continue;
        for (std::size_t slot = of; slot < slots; slot += seen.size()) visit(slot, of);
    }
}

}  // namespace

Calibration::Calibration(std::uint32_t slots, Reach reach)
    : pasts_(slots),
      mark_(slots, kNeverAbove),
      per_edge_(slots),
      past_bits_(slots),
      lift_(slots),
      warm_(slots),
      reach_slots_(reach),
      reach_(reach.count, kNone),
      above_(slots + Values::kSlack),
      learns_(slots),
      hits_(slots),
      others_(slots),
      warming_(slots) {}

std::uint32_t Calibration::past(std::uint32_t slot) const noexcept {
    return warm_[slot] < kWarmValues ? warm_[slot] : pasts_[slot].at_least[0] / std::uint32_t{kUnit};
}

Calibration::Ranks Calibration::score(std::span<const float> statistic) noexcept {
    Values& hits = hits_;
    search(statistic);
    const std::size_t count = hits.count;
    for (std::size_t i = 0; i < count; ++i) __builtin_prefetch(&pasts_[hits.slot[i]], 1);
    buckets_kernel(hits.slot.data(), statistic.data(), per_edge_.data(), count, hits.bucket.data());
    bool beyond_record = false;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint16_t* at_least = pasts_[hits.slot[i]].at_least.data() + hits.bucket[i];
        hits.twice_share[i] = at_least[0] + at_least[1];
        beyond_record |= hits.twice_share[i] == 0;
    }
    bits_kernel(hits.slot.data(), hits.twice_share.data(), statistic.data(), past_bits_.data(), lift_.data(), count,
                hits.found.data());
    for (std::size_t i = 0; beyond_record && i < count; ++i) {
        const std::uint32_t slot = hits.slot[i];
        if (hits.twice_share[i] != 0 || !(statistic[slot] >= 0.0F)) continue;
        hits.found[i] += lift_[slot] * beyond(slot, statistic[slot]);
    }
    return {std::span(hits.slot).first(count), std::span(hits.found).first(count)};
}

// The slots whose statistic reaches their mark.
void Calibration::search(std::span<const float> statistic) noexcept {
#if defined(__x86_64__) && defined(__GNUC__)
    if (isa() == Isa::v4) {
        hits_.count = search_v4(statistic.data(), mark_.data(), statistic.size(), hits_.slot.data());
        return;
    }
#endif
    above_kernel(statistic.data(), mark_.data(), statistic.size(), above_.data());
    set_bytes_kernel(above_.data(), statistic.size(), hits_.slot.data(), &hits_.count);
}

void Calibration::learn(std::span<const std::int32_t> seen, std::span<const float> statistic,
                        std::span<const std::uint8_t> learn) noexcept {
    learn_hits(learn);
    learn_others(seen, statistic, learn);
    Values& due = others_;
    due.count = 0;
    each_due(seen, kMaintainEvery, statistic.size(), [&](std::size_t slot, std::size_t of) {
        // What is not observed is not forgotten either.
        if (warm_[slot] < kWarmValues || statistic[slot] != statistic[slot]) return;
        due.dither[due.count] = (static_cast<std::uint32_t>(seen[of]) * 2'654'435'761U) >> 16;
        due.slot[due.count++] = static_cast<std::uint32_t>(slot);
    });
    forget_kernel(due.slot.data(), due.dither.data(), due.count, pasts_.data());
    if (warming_ > 0) warm_up(statistic, learn);
    maintain(due);
}

void Calibration::learn_hits(std::span<const std::uint8_t> learn) noexcept {
    if (std::find(learn.begin(), learn.end(), std::uint8_t{0}) != learn.end()) {
        const std::size_t series = learn.size();
        std::size_t kept = 0;
        std::size_t channel = 0;
        for (std::size_t i = 0; i < hits_.count; ++i) {  // slots grow
            const std::uint32_t slot = hits_.slot[i];
            while (slot - channel >= series) channel += series;
            hits_.slot[kept] = slot;
            hits_.bucket[kept] = hits_.bucket[i];
            kept += learn[slot - channel] != 0 ? 1 : 0;
        }
        hits_.count = kept;
    }
    insert_kernel(hits_.slot.data(), hits_.bucket.data(), kUnit, hits_.count, pasts_.data());
}

void Calibration::learn_others(std::span<const std::int32_t> seen, std::span<const float> statistic,
                               std::span<const std::uint8_t> learn) noexcept {
    Values& others = others_;
    others.count = 0;
    each_due(seen, kSampled, statistic.size(), [&](std::size_t slot, std::size_t of) {
        const bool below = (magnitude(statistic[slot]) < mark_[slot]) & (mark_[slot] < kNeverAbove);
        others.slot[others.count] = static_cast<std::uint32_t>(slot);
        others.count += (below & (learn[of] != 0)) ? 1 : 0;
    });
    buckets_kernel(others.slot.data(), statistic.data(), per_edge_.data(), others.count, others.bucket.data());
    insert_kernel(others.slot.data(), others.bucket.data(), kSampledUnits, others.count, pasts_.data());
}

void Calibration::warm_up(std::span<const float> statistic, std::span<const std::uint8_t> learn) noexcept {
    const std::size_t series = learn.size();
    for (std::size_t first = 0; first < statistic.size(); first += series) {
        const Warming of{per_edge_.data() + first, past_bits_.data() + first, warm_.data() + first,
                         above_.data() + first, learns_.data() + first};
        warm_kernel(statistic.data() + first, learn.data(), of, series);
    }
    Values& settled = others_;
    for (std::size_t slot = 0; slot < statistic.size(); ++slot) {
        std::uint16_t& counts = pasts_[slot].at_least[above_[slot]];
        if (learns_[slot] == 0) continue;
        counts = static_cast<std::uint16_t>(counts + kUnit);
        if (warm_[slot] < kWarmValues) continue;
        settle(slot);
        settled.slot[settled.count++] = static_cast<std::uint32_t>(slot);
    }
}

// The end of warming up: the floor becomes a share of the mean, and the counts move to where they belong.
void Calibration::settle(std::size_t slot) noexcept {
    auto& at_least = pasts_[slot].at_least;
    const float provisional = per_edge_[slot] > 0.0F ? 1.0F / per_edge_[slot] : 0.0F;
    per_edge_[slot] = 1.0F / std::max(past_bits_[slot] * kFloorShare, kLeastFloor);
    const int up = thirds_above(provisional * kHalfBucket, per_edge_[slot]);
    std::array<std::uint32_t, kBuckets> own{};
    own[0] = at_least[0];
    for (int k = 1; k < kBucketCount; ++k) {
        own[static_cast<std::size_t>(std::clamp(k + up, 0, kBucketCount - 1))] += at_least[static_cast<std::size_t>(k)];
    }
    std::uint32_t above = 0;
    for (std::size_t k = kBuckets; k-- > 0;) {
        above += own[k];
        at_least[k] = static_cast<std::uint16_t>(above);
    }
    --warming_;
}

// Moves the lowest bucket by so many. Downwards, what lay in or below the old one is put just there: too high
// rather than too low.
void Calibration::move_base(std::size_t slot, int by) noexcept {
    const float per_edge = per_edge_[slot] * third_octaves(-by);
    if (per_edge > kMostPerEdge || per_edge < kLeastPerEdge) return;
    const auto begin = pasts_[slot].at_least.begin();
    const auto end = begin + kBucketCount;
    if (by > 0) {
        std::copy(begin + by + 1, end, begin + 1);
        std::fill(end - by, end, std::uint16_t{0});
    } else if (by < 0) {
        std::copy_backward(begin, end + by, end);
        std::fill(begin, begin - by, begin[-by]);
    }
    per_edge_[slot] = per_edge;
}

// Less than a value reaches beyond the lowest bucket: what lies in it is told apart from now on, and what was counted
// before, of which only that is known, weighs little.
void Calibration::sink(std::size_t slot) noexcept {
    move_base(slot, -kSink);
    auto& at_least = pasts_[slot].at_least;
    const std::uint32_t all = at_least[0];
    if (all <= kKeptOfSunk) return;
    for (auto& count : at_least) count = static_cast<std::uint16_t>(count * kKeptOfSunk / all);
}

// Renews what ranks need; keeps the mark in the lower half of the buckets, where the tail has room above it.
void Calibration::maintain(Values& due) noexcept {
    for (std::size_t i = 0; i < due.count; ++i) due.found[i] = static_cast<float>(pasts_[due.slot[i]].at_least[0]);
    scale_kernel(due.found.data(), due.count, due.past_bits.data(), due.lift.data(), due.twice_share.data());
    lowest_kernel(due.slot.data(), due.twice_share.data(), due.count, pasts_.data(), due.bucket.data());
    for (std::size_t i = 0; i < due.count; ++i) {
        const std::size_t slot = due.slot[i];
        const int low = due.bucket[i];
        past_bits_[slot] = due.past_bits[i];
        lift_[slot] = due.lift[i];
        mark_[slot] = edge_of(slot, low);
        if (low > kHighest) move_base(slot, low - kHome);
        if (pasts_[slot].at_least[1] < kUnit && !only_zeros(slot)) sink(slot);
        if (slot - reach_slots_.first < reach_slots_.count) reach_[slot - reach_slots_.first] = reach_of(slot);
    }
}

float Calibration::edge_of(std::size_t slot, int bucket) const noexcept {
    return std::min(third_octaves(bucket) / per_edge_[slot], kLargest);
}

bool Calibration::only_zeros(std::size_t slot) const noexcept {
    return pasts_[slot].at_least[1] == 0 && per_edge_[slot] * kLeastFloor > 0.5F;
}

Calibration::Tail Calibration::tail(const Past& past) noexcept {
    const auto& at_least = past.at_least;
    const std::uint32_t top = top_of(past);
    std::uint32_t quarter = top;
    while (quarter > 0 && std::uint32_t{at_least[quarter]} * 4 < at_least[0]) --quarter;
    const float record = at_least[top] > 0 ? static_cast<float>(at_least[top]) : 1.0F;
    const float octaves = static_cast<float>(top - quarter + 1) / kPerOctave;
    const float slope =
        quarter < top ? fast_log2(static_cast<float>(at_least[quarter]) / record) / octaves : 0.0F;
    return {top, std::clamp(slope, kFlattest, kSteepest)};
}

float Calibration::beyond(std::size_t slot, float statistic) const noexcept {
    const float edge = edge_of(slot, static_cast<int>(top_of(pasts_[slot])) + 1);
    if (!(statistic > edge)) return 0.0F;
    return std::min(kBeyondBits, kBeyondPerOctave * fast_log2(std::min(statistic / edge, kLargestRatio)));
}

float Calibration::reach_of(std::size_t slot) const noexcept {
    const auto& at_least = pasts_[slot].at_least;
    if (only_zeros(slot)) return 0.0F;
    const float all = static_cast<float>(at_least[0] + 2 * kUnit);
    const float allowed = all / 1024.0F - static_cast<float>(kUnit);  // 2^-kReachBits of the past
    if (allowed > 0.0F) {
        int k = kBucketCount - 1;
        while (k > 0 && static_cast<float>(at_least[static_cast<std::size_t>(k)]) <= allowed) --k;
        const auto here = static_cast<float>(at_least[static_cast<std::size_t>(k)]);
        const float beyond =
            k + 1 < kBucketCount ? static_cast<float>(at_least[static_cast<std::size_t>(k + 1)]) : 0.0F;
        const float low = edge_of(slot, k);
        const float high = edge_of(slot, k + 1);
        return low + (high - low) * ((here - allowed) / (here - beyond));
    }
    // The past is too short to show it: on beyond the record at the tail's own slope.
    const Tail shape = tail(pasts_[slot]);
    const float shown = fast_log2(all) - fast_log2(static_cast<float>(kUnit));
    const float missing = shown < kReachBits ? kReachBits - shown : 0.0F;
    const int steps = static_cast<int>(kPerOctave * missing / shape.bits_per_octave) + 1;
    return edge_of(slot, static_cast<int>(shape.top) + 1 + steps);
}

void Calibration::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        if (warm_[slot] >= kWarmValues) ++warming_;
        pasts_[slot] = {};
        per_edge_[slot] = past_bits_[slot] = lift_[slot] = 0.0F;
        warm_[slot] = 0;
        mark_[slot] = kNeverAbove;
        if (slot - reach_slots_.first < reach_slots_.count) reach_[slot - reach_slots_.first] = kNone;
    }
}

void Calibration::save(Writer& writer) const {
    writer.array(std::span<const Past>(pasts_));
    writer.array(std::span<const float>(mark_));
    writer.array(std::span<const float>(per_edge_));
    writer.array(std::span<const float>(past_bits_));
    writer.array(std::span<const float>(lift_));
    writer.array(std::span<const std::uint8_t>(warm_));
    writer.array(std::span<const float>(reach_));
    writer.pod(warming_);
}

void Calibration::load(Reader& reader) {
    reader.array(std::span<Past>(pasts_));
    reader.array(std::span<float>(mark_));
    reader.array(std::span<float>(per_edge_));
    reader.array(std::span<float>(past_bits_));
    reader.array(std::span<float>(lift_));
    reader.array(std::span<std::uint8_t>(warm_));
    reader.array(std::span<float>(reach_));
    warming_ = reader.pod<std::uint32_t>();
}

}  // namespace argus::engine
