#include "engine/calibration.hpp"

#include <algorithm>
#include <limits>

#include "base/dispatch.hpp"
#include "base/log2.hpp"

namespace argus::engine {
namespace {

constexpr std::uint16_t kUnit = 8;  // counts of one value
constexpr std::int32_t kFull = 65535 - 2 * kUnit;
constexpr int kMantissaBits = 21;  // float bits below the key: four buckets an octave
constexpr int kBucketCount = static_cast<int>(Calibration::kBuckets);
constexpr int kStartBelow = 24;  // buckets below the first positive value
constexpr int kStep = 8;         // buckets by which the floor moves: two octaves
constexpr std::int32_t kMaintainEvery = 64;
constexpr std::uint32_t kUnderMost = 48;  // of the last 64 values below the floor: the floor is too high
constexpr std::uint32_t kOverMost = 2;    // of the last 64 values in the top bucket: the floor is too low
constexpr float kSteepest = 8.0F;
constexpr float kFlattest = 1.0F;
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
constexpr int kLargestKey = 0x7F000000 >> kMantissaBits;
constexpr std::size_t kBlock = 256;

// kPrefix[kBuckets - 1 - k + j] = one value's counts where bucket j is at most k.
constexpr auto kPrefix = [] {
    std::array<std::uint16_t, 2 * Calibration::kBuckets> window{};
    for (std::size_t i = 0; i < Calibration::kBuckets; ++i) window[i] = kUnit;
    return window;
}();

ARGUS_INLINE int key_of(float statistic) noexcept {
    return __builtin_bit_cast(std::int32_t, statistic) >> kMantissaBits;
}

[[nodiscard]] float edge_of(int key) noexcept { return __builtin_bit_cast(float, key << kMantissaBits); }

ARGUS_INLINE int bucket_of(float statistic, int base) noexcept {
    const int k = key_of(statistic) - base;
    return k < 0 ? 0 : k >= kBucketCount ? kBucketCount - 1 : k;
}

ARGUS_INLINE void buckets_body(const float* statistic, const std::uint16_t* base, std::size_t count,
                               std::int32_t* bucket) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) bucket[i] = bucket_of(statistic[i], base[i]);
}

// Each slot's floor, past, age and values under and over its buckets; `due` where the slot needs maintenance.
ARGUS_INLINE void admit_body(const float* statistic, const std::uint8_t* learn, std::size_t count,
                             std::uint16_t* base, std::uint16_t* total, std::uint32_t* seen,
                             std::uint8_t* under, std::uint8_t* over, std::int32_t* bucket,
                             std::uint16_t* admitted, std::uint8_t* due) {
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float y = statistic[i];
        const std::int32_t key = __builtin_bit_cast(std::int32_t, y) >> kMantissaBits;
        const bool in = (learn[i] != 0) & (y == y);
        const std::int32_t before = base[i];
        const std::int32_t start = key > kStartBelow ? key - kStartBelow : 1;
        const std::int32_t floor = (in & (before == 0) & (key > 0)) ? start : before;
        const std::int32_t k = key - floor;
        const std::int32_t past = static_cast<std::int32_t>(total[i]) + (in ? kUnit : 0);
        const std::int32_t age = static_cast<std::int32_t>(seen[i]);
        const std::int32_t now = age + ((in & (age < 0x7FFFFFFF)) ? 1 : 0);
        const bool below = in & (key > 0) & (key < floor);
        const bool top = in & (k >= kBucketCount - 1);
        const bool needs = in & ((past >= kFull) | ((now & (kMaintainEvery - 1)) == 0));
        bucket[i] = k < 0 ? 0 : k >= kBucketCount ? kBucketCount - 1 : k;
        base[i] = static_cast<std::uint16_t>(floor);
        total[i] = static_cast<std::uint16_t>(past);
        seen[i] = static_cast<std::uint32_t>(now);
        under[i] = static_cast<std::uint8_t>(under[i] + (below ? 1 : 0));
        over[i] = static_cast<std::uint8_t>(over[i] + (top ? 1 : 0));
        admitted[i] = static_cast<std::uint16_t>(in ? 0xFFFF : 0);
        due[i] = needs ? 1 : 0;
    }
}

ARGUS_INLINE void insert_body(const std::int32_t* bucket, const std::uint16_t* admitted, std::size_t count,
                              std::uint16_t* counts) {
    for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t* at_least = counts + i * Calibration::kBuckets;
        const std::uint16_t* prefix = kPrefix.data() + (kBucketCount - 1 - bucket[i]);
        const std::uint16_t in = admitted[i];
        ARGUS_IVDEP
        for (int j = 0; j < kBucketCount; ++j) {
            at_least[j] = static_cast<std::uint16_t>(at_least[j] + (prefix[j] & in));
        }
    }
}

ARGUS_INLINE void bits_body(const float* statistic, const std::uint16_t* base, const std::uint16_t* total,
                            const std::uint32_t* seen, const std::int32_t* own, const std::int32_t* above,
                            std::size_t count, float* bits) {
    constexpr float kPerMantissa = 1.0F / static_cast<float>(1 << kMantissaBits);
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float y = statistic[i];
        const std::int32_t raw = __builtin_bit_cast(std::int32_t, y);
        const std::int32_t k = (raw >> kMantissaBits) - static_cast<std::int32_t>(base[i]);
        const float within = static_cast<float>(raw & ((1 << kMantissaBits) - 1)) * kPerMantissa;
        const float position = k >= kBucketCount ? 1.0F : within;
        const float own_share = ((k < 0) | !(y > 0.0F)) ? 1.0F : 0.75F - 0.5F * position;
        const float share = static_cast<float>(above[i]) + static_cast<float>(own[i]) * own_share;
        const float surprise =
            fast_log2(static_cast<float>(static_cast<std::int32_t>(total[i]) + 2 * kUnit)) -
            fast_log2(share + static_cast<float>(kUnit));
        const bool known =
            (static_cast<std::int32_t>(seen[i]) >= static_cast<std::int32_t>(kWarmValues)) & (y == y);
        bits[i] = (known & (surprise > 0.0F)) ? surprise : 0.0F;
    }
}

ARGUS_INLINE void combine_body(const float* bits, std::size_t channels, std::size_t count, float price,
                               float* combined) {
    for (std::size_t c = 0; c < channels; ++c) {
        const float* channel = bits + c * count;
        ARGUS_IVDEP
        for (std::size_t i = 0; i < count; ++i) {
            const float best = c == 0 ? 0.0F : combined[i];
            const float paid = channel[i] - price;
            combined[i] = paid > best ? paid : best;
        }
    }
}

ARGUS_KERNEL(buckets_kernel, buckets_body,
             (const float* statistic, const std::uint16_t* base, std::size_t count, std::int32_t* bucket),
             (statistic, base, count, bucket))

ARGUS_KERNEL(admit_kernel, admit_body,
             (const float* statistic, const std::uint8_t* learn, std::size_t count, std::uint16_t* base,
              std::uint16_t* total, std::uint32_t* seen, std::uint8_t* under, std::uint8_t* over,
              std::int32_t* bucket, std::uint16_t* admitted, std::uint8_t* due),
             (statistic, learn, count, base, total, seen, under, over, bucket, admitted, due))

ARGUS_KERNEL(insert_kernel, insert_body,
             (const std::int32_t* bucket, const std::uint16_t* admitted, std::size_t count,
              std::uint16_t* counts),
             (bucket, admitted, count, counts))

ARGUS_KERNEL(bits_kernel, bits_body,
             (const float* statistic, const std::uint16_t* base, const std::uint16_t* total,
              const std::uint32_t* seen, const std::int32_t* own, const std::int32_t* above,
              std::size_t count, float* bits),
             (statistic, base, total, seen, own, above, count, bits))

ARGUS_KERNEL(combine_kernel, combine_body,
             (const float* bits, std::size_t channels, std::size_t count, float price, float* combined),
             (bits, channels, count, price, combined))

}  // namespace

Calibration::Calibration(std::uint32_t slots)
    : counts_(slots),
      base_(slots, 0),
      total_(slots, 0),
      seen_(slots, 0),
      under_(slots, 0),
      over_(slots, 0),
      reach_(slots, kNone) {}

void Calibration::score(std::span<const float> statistic, std::span<float> bits) const noexcept {
    std::array<std::int32_t, kBlock> bucket;
    std::array<std::int32_t, kBlock> own;
    std::array<std::int32_t, kBlock> above;
    for (std::size_t first = 0; first < statistic.size(); first += kBlock) {
        const std::size_t count = std::min(kBlock, statistic.size() - first);
        const float* y = statistic.data() + first;
        buckets_kernel(y, base_.data() + first, count, bucket.data());
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint16_t* at_least = counts_[first + i].at_least.data();
            const int k = bucket[i];
            above[i] = k + 1 < kBucketCount ? at_least[k + 1] : 0;
            own[i] = at_least[k] - above[i];
        }
        bits_kernel(y, base_.data() + first, total_.data() + first, seen_.data() + first, own.data(),
                    above.data(), count, bits.data() + first);
        for (std::size_t i = 0; i < count; ++i) {
            if ((own[i] | above[i]) == 0 && bits[first + i] > 0.0F) {
                bits[first + i] += beyond(static_cast<std::uint32_t>(first + i), y[i]);
            }
        }
    }
}

void Calibration::learn(std::span<const float> statistic, std::span<const std::uint8_t> learn) noexcept {
    std::array<std::int32_t, kBlock> bucket;
    std::array<std::uint16_t, kBlock> admitted;
    std::array<std::uint8_t, kBlock> due;
    for (std::size_t first = 0; first < statistic.size(); first += kBlock) {
        const std::size_t count = std::min(kBlock, statistic.size() - first);
        admit_kernel(statistic.data() + first, learn.data() + first, count, base_.data() + first,
                     total_.data() + first, seen_.data() + first, under_.data() + first, over_.data() + first,
                     bucket.data(), admitted.data(), due.data());
        insert_kernel(bucket.data(), admitted.data(), count, counts_[first].at_least.data());
        for (std::size_t i = 0; i < count; ++i) {
            if (due[i] == 0) continue;
            const auto slot = static_cast<std::uint32_t>(first + i);
            if (total_[slot] >= kFull) halve(slot);
            if (seen_[slot] % static_cast<std::uint32_t>(kMaintainEvery) == 0) maintain(slot);
        }
    }
}

void Calibration::halve(std::uint32_t slot) noexcept {
    for (auto& count : counts_[slot].at_least) count = static_cast<std::uint16_t>(count >> 1);
    total_[slot] = counts_[slot].at_least[0];
}

// Moves the floor when most of the last values lie below it, or too many in the top bucket; renews reach().
void Calibration::maintain(std::uint32_t slot) noexcept {
    auto& at_least = counts_[slot].at_least;
    if (under_[slot] >= kUnderMost && base_[slot] > kStep) {
        // What lay at or below the old floor is put just there: too high rather than too low.
        std::copy_backward(at_least.begin(), at_least.end() - kStep, at_least.end());
        std::fill(at_least.begin(), at_least.begin() + kStep, total_[slot]);
        base_[slot] = static_cast<std::uint16_t>(base_[slot] - kStep);
    } else if (over_[slot] >= kOverMost && base_[slot] + kStep < kLargestKey) {
        std::copy(at_least.begin() + kStep + 1, at_least.end(), at_least.begin() + 1);
        std::fill(at_least.end() - kStep, at_least.end(), std::uint16_t{0});
        base_[slot] = static_cast<std::uint16_t>(base_[slot] + kStep);
    }
    under_[slot] = 0;
    over_[slot] = 0;
    reach_[slot] = reach_of(slot);
}

Calibration::Tail Calibration::tail(std::uint32_t slot) const noexcept {
    const auto& at_least = counts_[slot].at_least;
    std::uint32_t top = kBuckets - 1;
    while (top > 0 && at_least[top] == 0) --top;
    std::uint32_t quarter = top;
    while (quarter > 0 && std::uint32_t{at_least[quarter]} * 4 < total_[slot]) --quarter;
    const float record = at_least[top] > 0 ? static_cast<float>(at_least[top]) : 1.0F;
    const float octaves = static_cast<float>(top - quarter + 1) * 0.25F;
    const float slope =
        quarter < top ? fast_log2(static_cast<float>(at_least[quarter]) / record) / octaves : 0.0F;
    return {top, std::clamp(slope, kFlattest, kSteepest)};
}

float Calibration::beyond(std::uint32_t slot, float statistic) const noexcept {
    if (base_[slot] == 0) return kBeyondZeroBits;
    const Tail shape = tail(slot);
    const float edge = edge_of(base_[slot] + static_cast<int>(shape.top) + 1);
    if (!(statistic > edge)) return 0.0F;
    return std::min(kBeyondBits, shape.bits_per_octave * fast_log2(statistic / edge));
}

float Calibration::reach_of(std::uint32_t slot) const noexcept {
    if (seen_[slot] < kWarmValues) return kNone;
    if (base_[slot] == 0) return 0.0F;
    const auto& at_least = counts_[slot].at_least;
    const int base = base_[slot];
    const float all = static_cast<float>(total_[slot] + 2 * kUnit);
    const float allowed = all / 1024.0F - static_cast<float>(kUnit);  // 2^-kReachBits of the past
    if (allowed > 0.0F) {
        int k = kBucketCount - 1;
        while (k > 0 && static_cast<float>(at_least[static_cast<std::size_t>(k)]) <= allowed) --k;
        const auto here = static_cast<float>(at_least[static_cast<std::size_t>(k)]);
        const float beyond =
            k + 1 < kBucketCount ? static_cast<float>(at_least[static_cast<std::size_t>(k + 1)]) : 0.0F;
        const float low = edge_of(base + k);
        const float high = edge_of(std::min(base + k + 1, kLargestKey));
        return low + (high - low) * ((here - allowed) / (here - beyond));
    }
    // The past is too short to show it: on beyond the record at the tail's own slope, in buckets of 1/4
    // octave.
    const Tail shape = tail(slot);
    const float shown = fast_log2(all) - fast_log2(static_cast<float>(kUnit));
    const float missing = shown < kReachBits ? kReachBits - shown : 0.0F;
    const int steps = static_cast<int>(4.0F * missing / shape.bits_per_octave) + 1;
    return edge_of(std::min(base + static_cast<int>(shape.top) + 1 + steps, kLargestKey));
}

void Calibration::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        counts_[slot] = {};
        base_[slot] = 0;
        total_[slot] = 0;
        seen_[slot] = 0;
        under_[slot] = 0;
        over_[slot] = 0;
        reach_[slot] = kNone;
    }
}

void Calibration::save(Writer& writer) const {
    writer.array(std::span<const Counts>(counts_));
    writer.array(std::span<const std::uint16_t>(base_));
    writer.array(std::span<const std::uint16_t>(total_));
    writer.array(std::span<const std::uint32_t>(seen_));
    writer.array(std::span<const std::uint8_t>(under_));
    writer.array(std::span<const std::uint8_t>(over_));
    writer.array(std::span<const float>(reach_));
}

void Calibration::load(Reader& reader) {
    reader.array(std::span<Counts>(counts_));
    reader.array(std::span<std::uint16_t>(base_));
    reader.array(std::span<std::uint16_t>(total_));
    reader.array(std::span<std::uint32_t>(seen_));
    reader.array(std::span<std::uint8_t>(under_));
    reader.array(std::span<std::uint8_t>(over_));
    reader.array(std::span<float>(reach_));
}

void combine(std::span<const float> bits, std::size_t channels, std::span<float> combined) noexcept {
    const float price = channels > 1 ? fast_log2(static_cast<float>(channels)) : 0.0F;
    combine_kernel(bits.data(), channels, combined.size(), price, combined.data());
}

}  // namespace argus::engine
