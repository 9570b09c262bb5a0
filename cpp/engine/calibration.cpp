#include "engine/calibration.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

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
constexpr float kFirstBelow = 1.0F / 256.0F;  // provisional floor, of the first positive value
constexpr int kHome = 13;  // where the mark is put when it rises above kHighest
constexpr int kHighest = 20;
constexpr int kLargestBase = 3 * 180;
constexpr int kLeastBase = -3 * 20;
constexpr int kSink = 12;  // buckets by which the lowest one falls when nothing reaches beyond it
constexpr std::int32_t kMaintainEvery = 64;  // values of a series
constexpr std::uint32_t kForgotten = 839;  // of 65,536 counts, every kMaintainEvery values: 1/5,000 a value
constexpr float kBeyondPerOctave = 6.64F;
constexpr float kSteepest = 8.0F;
constexpr float kFlattest = 1.0F;
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr int kLanes = 8;
static_assert((kBucketCount + 1) % kLanes == 0 && sizeof(Calibration::Past) == 96);
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

constexpr auto kPerAge = [] {  // 1/(age + 1)
    std::array<float, kWarmValues> share{};
    for (std::size_t age = 0; age < kWarmValues; ++age) share[age] = 1.0F / static_cast<float>(age + 1);
    return share;
}();

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

// Half of its own bucket counts as above a value.
ARGUS_INLINE void bits_body(const std::int32_t* twice_share, const float* past_bits, const float* lift,
                            std::size_t count, float* bits) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float share = 0.5F * static_cast<float>(twice_share[i]) + static_cast<float>(kUnit);
        const float found = lift[i] * (past_bits[i] - fast_log2(share));
        bits[i] = found < kLeastBits ? 0.0F : found;
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
        for (int block = 0; block <= kBucketCount; block += kLanes) {
            ARGUS_IVDEP
            for (int j = block; j < block + kLanes; ++j) {
                at_least[j] = static_cast<std::uint16_t>(at_least[j] + (prefix[j] & units));
            }
        }
    }
}

ARGUS_KERNEL(above_kernel, above_body,
             (const float* statistic, const float* mark, std::size_t count, std::uint8_t* above),
             (statistic, mark, count, above))

ARGUS_KERNEL(bits_kernel, bits_body,
             (const std::int32_t* twice_share, const float* past_bits, const float* lift, std::size_t count,
              float* bits),
             (twice_share, past_bits, lift, count, bits))

ARGUS_KERNEL(scale_kernel, scale_body,
             (const float* all, std::size_t count, float* past_bits, float* lift, std::int32_t* twice_most),
             (all, count, past_bits, lift, twice_most))

ARGUS_KERNEL(insert_kernel, insert_body,
             (const std::uint32_t* slot, const std::uint8_t* bucket, std::uint16_t units, std::size_t count,
              Calibration::Past* pasts),
             (slot, bucket, units, count, pasts))

ARGUS_INLINE int bucket_of(const Calibration::Past& past, float statistic) noexcept {
    return std::clamp(thirds_above(statistic, past.per_floor) - past.base, 0, kBucketCount - 1);
}

[[nodiscard]] float edge_of(const Calibration::Past& past, int bucket) noexcept {
    return std::min(third_octaves(bucket + past.base) / past.per_floor, kLargest);
}

[[nodiscard]] std::uint32_t top_of(const Calibration::Past& past) noexcept {
    std::uint32_t top = Calibration::kBuckets - 1;
    while (top > 0 && past.at_least[top] == 0) --top;
    return top;
}

[[nodiscard]] bool only_zeros(const Calibration::Past& past) noexcept {
    return past.at_least[1] == 0 && past.per_floor * kLeastFloor > 0.5F;
}

// Calls visit(index) for every byte that is 1; the others are 0.
template <class Visit>
void each_set(const std::uint8_t* flags, std::size_t count, const Visit& visit) {
    constexpr std::size_t kBits = 64;
    constexpr std::size_t kWord = sizeof(std::uint64_t);
    constexpr std::uint64_t kGather = 0x0102040810204080;  // the lowest bits of eight bytes become the highest byte
    for (std::size_t first = 0; first < count; first += kBits) {
        std::uint64_t set = 0;
        for (std::size_t at = first; at < std::min(first + kBits, count); at += kWord) {
            std::uint64_t word = 0;
            std::memcpy(&word, flags + at, std::min(kWord, count - at));
            set |= (word * kGather >> (kBits - kWord)) << (at - first);
        }
        for (; set != 0; set &= set - 1) visit(first + static_cast<std::size_t>(std::countr_zero(set)));
    }
}

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
      reach_slots_(reach),
      reach_(reach.count, kNone),
      above_(slots),
      hits_(slots),
      others_(slots),
      warming_(slots) {}

std::uint32_t Calibration::past(std::uint32_t slot) const noexcept {
    const Past& past = pasts_[slot];
    return past.warm < kWarmValues ? past.warm : past.at_least[0] / std::uint32_t{kUnit};
}

void Calibration::score(std::span<const float> statistic, std::span<float> bits) noexcept {
    above_kernel(statistic.data(), mark_.data(), statistic.size(), above_.data());
    std::fill(bits.begin(), bits.end(), 0.0F);
    Values& hits = hits_;
    std::size_t count = 0;
    each_set(above_.data(), statistic.size(),
             [&](std::size_t slot) { hits.slot[count++] = static_cast<std::uint32_t>(slot); });
    hits.count = count;
    for (std::size_t i = 0; i < count; ++i) {  // apart from the search, so that the loads overlap
        const std::uint32_t slot = hits.slot[i];
        const Past& past = pasts_[slot];
        const auto k = static_cast<std::size_t>(bucket_of(past, magnitude(statistic[slot])));
        hits.bucket[i] = static_cast<std::uint8_t>(k);
        hits.twice_share[i] = past.at_least[k] + past.at_least[k + 1];
        hits.past_bits[i] = past.past_bits;
        hits.lift[i] = past.lift;
    }
    bits_kernel(hits.twice_share.data(), hits.past_bits.data(), hits.lift.data(), count, hits.found.data());
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t slot = hits.slot[i];
        if (!(statistic[slot] >= 0.0F)) continue;
        bits[slot] = hits.found[i];
        if (hits.twice_share[i] == 0) bits[slot] += hits.lift[i] * beyond(pasts_[slot], statistic[slot]);
    }
}

void Calibration::learn(std::span<const std::int32_t> seen, std::span<const float> statistic,
                        std::span<const std::uint8_t> learn) noexcept {
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
    insert_kernel(hits_.slot.data(), hits_.bucket.data(), kUnit, kept, pasts_.data());
    others_.count = 0;
    each_due(seen, kSampled, statistic.size(), [&](std::size_t slot, std::size_t of) {
        const float y = magnitude(statistic[slot]);
        if (learn[of] == 0 || !(y < mark_[slot]) || mark_[slot] == kNeverAbove) return;
        others_.slot[others_.count] = static_cast<std::uint32_t>(slot);
        others_.bucket[others_.count++] = static_cast<std::uint8_t>(bucket_of(pasts_[slot], y));
    });
    insert_kernel(others_.slot.data(), others_.bucket.data(), kSampledUnits, others_.count, pasts_.data());
    others_.count = 0;
    each_due(seen, kMaintainEvery, statistic.size(), [&](std::size_t slot, std::size_t of) {
        // What is not observed is not forgotten either.
        if (pasts_[slot].warm < kWarmValues || statistic[slot] != statistic[slot]) return;
        forget(pasts_[slot], seen[of]);
        others_.slot[others_.count++] = static_cast<std::uint32_t>(slot);
    });
    if (warming_ > 0) warm_up(statistic, learn);
    maintain(others_);
}

// While warming up the floor is provisional, counts are not yet cumulative and past_bits holds the mean.
void Calibration::warm_up(std::span<const float> statistic, std::span<const std::uint8_t> learn) noexcept {
    std::size_t series = 0;
    for (std::size_t slot = 0; slot < statistic.size(); ++slot, ++series) {
        if (series == learn.size()) series = 0;
        Past& past = pasts_[slot];
        const float y = magnitude(statistic[slot]);
        if (past.warm >= kWarmValues || learn[series] == 0 || !(y == y)) continue;
        if (past.per_floor == 0.0F && y > 0.0F) past.per_floor = 1.0F / std::max(y * kFirstBelow, kLeastFloor);
        std::uint16_t& counts = past.at_least[static_cast<std::size_t>(bucket_of(past, y))];
        counts = static_cast<std::uint16_t>(counts + kUnit);
        past.past_bits += (std::min(y, kLargestMean) - past.past_bits) * kPerAge[past.warm];
        if (++past.warm == kWarmValues) {
            settle(past);
            others_.slot[others_.count++] = static_cast<std::uint32_t>(slot);
        }
    }
}

// The end of warming up: the floor becomes a share of the mean, and the counts move to where they belong.
void Calibration::settle(Past& past) noexcept {
    const auto before = past.at_least;
    const float provisional = past.per_floor > 0.0F ? 1.0F / past.per_floor : 0.0F;
    past.per_floor = 1.0F / std::max(past.past_bits * kFloorShare, kLeastFloor);
    std::array<int, kBuckets> own{};
    for (std::size_t k = 0; k < kBuckets; ++k) {
        const float centre = k == 0 ? 0.0F : provisional * third_octaves(static_cast<int>(k)) * kHalfBucket;
        own[static_cast<std::size_t>(bucket_of(past, centre))] += before[k];
    }
    int above = 0;
    for (std::size_t k = kBuckets; k-- > 0;) {
        above += own[k];
        past.at_least[k] = static_cast<std::uint16_t>(above);
    }
    --warming_;
}

// Takes kForgotten of 65,536 from every count, on average exactly: the remainders are dithered by the series'
// age, alike for all buckets, so that counts keep falling from bucket to bucket.
void Calibration::forget(Past& past, std::int32_t age) noexcept {
    const std::uint32_t dither = (static_cast<std::uint32_t>(age) * 2'654'435'761U) >> 16;
    for (auto& count : past.at_least) {
        count = static_cast<std::uint16_t>(count - ((count * kForgotten + dither) >> 16));
    }
}

// Moves the lowest bucket by so many. Downwards, what lay in or below the old one is put just there: too high
// rather than too low.
void Calibration::move_base(Past& past, int by) noexcept {
    by = std::clamp(by, kLeastBase - past.base, kLargestBase - past.base);
    const auto begin = past.at_least.begin();
    const auto end = begin + kBucketCount;
    if (by > 0) {
        std::copy(begin + by + 1, end, begin + 1);
        std::fill(end - by, end, std::uint16_t{0});
    } else if (by < 0) {
        std::copy_backward(begin, end + by, end);
        std::fill(begin, begin - by, past.at_least[static_cast<std::size_t>(-by)]);
    }
    past.base = static_cast<std::int16_t>(past.base + by);
}

// Renews what ranks need; keeps the mark in the lower half of the buckets, where the tail has room above it.
void Calibration::maintain(Values& due) noexcept {
    for (std::size_t i = 0; i < due.count; ++i) due.found[i] = static_cast<float>(pasts_[due.slot[i]].at_least[0]);
    scale_kernel(due.found.data(), due.count, due.past_bits.data(), due.lift.data(), due.twice_share.data());
    for (std::size_t i = 0; i < due.count; ++i) {
        const std::uint32_t slot = due.slot[i];
        Past& past = pasts_[slot];
        past.past_bits = due.past_bits[i];
        past.lift = due.lift[i];
        // The lowest bucket whose values have kLeastBits; counts fall from bucket to bucket.
        int low = 1;
        int high = kBucketCount - 1;
        while (low < high) {
            const int middle = (low + high) / 2;
            const auto k = static_cast<std::size_t>(middle);
            const bool enough = past.at_least[k] + past.at_least[k + 1] <= due.twice_share[i];
            high = enough ? middle : high;
            low = enough ? low : middle + 1;
        }
        mark_[slot] = edge_of(past, low);
        if (low > kHighest) move_base(past, low - kHome);
        if (past.at_least[1] == 0 && !only_zeros(past)) move_base(past, -kSink);
        if (slot - reach_slots_.first < reach_slots_.count) reach_[slot - reach_slots_.first] = reach_of(past);
    }
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

float Calibration::beyond(const Past& past, float statistic) noexcept {
    const float edge = edge_of(past, static_cast<int>(top_of(past)) + 1);
    if (!(statistic > edge)) return 0.0F;
    return std::min(kBeyondBits, kBeyondPerOctave * fast_log2(std::min(statistic / edge, kLargestRatio)));
}

float Calibration::reach_of(const Past& past) noexcept {
    const auto& at_least = past.at_least;
    if (only_zeros(past)) return 0.0F;
    const float all = static_cast<float>(at_least[0] + 2 * kUnit);
    const float allowed = all / 1024.0F - static_cast<float>(kUnit);  // 2^-kReachBits of the past
    if (allowed > 0.0F) {
        int k = kBucketCount - 1;
        while (k > 0 && static_cast<float>(at_least[static_cast<std::size_t>(k)]) <= allowed) --k;
        const auto here = static_cast<float>(at_least[static_cast<std::size_t>(k)]);
        const float beyond =
            k + 1 < kBucketCount ? static_cast<float>(at_least[static_cast<std::size_t>(k + 1)]) : 0.0F;
        const float low = edge_of(past, k);
        const float high = edge_of(past, k + 1);
        return low + (high - low) * ((here - allowed) / (here - beyond));
    }
    // The past is too short to show it: on beyond the record at the tail's own slope.
    const Tail shape = tail(past);
    const float shown = fast_log2(all) - fast_log2(static_cast<float>(kUnit));
    const float missing = shown < kReachBits ? kReachBits - shown : 0.0F;
    const int steps = static_cast<int>(kPerOctave * missing / shape.bits_per_octave) + 1;
    return edge_of(past, static_cast<int>(shape.top) + 1 + steps);
}

void Calibration::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        if (pasts_[slot].warm >= kWarmValues) ++warming_;
        pasts_[slot] = {};
        mark_[slot] = kNeverAbove;
        if (slot - reach_slots_.first < reach_slots_.count) reach_[slot - reach_slots_.first] = kNone;
    }
}

void Calibration::save(Writer& writer) const {
    writer.array(std::span<const Past>(pasts_));
    writer.array(std::span<const float>(mark_));
    writer.array(std::span<const float>(reach_));
    writer.pod(warming_);
}

void Calibration::load(Reader& reader) {
    reader.array(std::span<Past>(pasts_));
    reader.array(std::span<float>(mark_));
    reader.array(std::span<float>(reach_));
    warming_ = reader.pod<std::uint32_t>();
}

}  // namespace argus::engine
