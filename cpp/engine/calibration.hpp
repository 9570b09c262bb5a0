// From statistics to bits: the conformal tail rank of a statistic among its own past, in bits = -log2 of the
// share of the past at or above it.
//
// Past: per slot kBuckets u16 counts of the values at or above a bucket's edge, four buckets an octave (the
// exponent and top two mantissa bits of the float, so that no logarithm is taken), from a floor that moves by
// two octaves until most new values lie above it and few in the top bucket. Cumulative, so that a rank is two
// loads; learning adds to a prefix, which vectorises. Counts are in units of 1/8 value and halve when the
// past reaches 8,190 values: a memory of about 4,100 to 8,200 values, in which a single record fades over
// four halvings.
//
// Rank: bits = log2((N + 2)/(above + own share + 1)); the share of its own bucket falls from 3/4 to 1/4
// across the bucket: half of it on average, monotone, and never more than two bits wrong when all of a bucket
// is one repeated value. Below the floor, zero included, it is all of the lowest bucket.
//
// Beyond the record (a bucket above all occupied ones): plus the octaves beyond times the tail index that the
// histogram's own upper quarter shows, clamped to 1 - 8 bits an octave, and at most kBeyondBits;
// kBeyondZeroBits when the past holds nothing but zeros. So bits <= log2(N + 2) + kBeyondBits always. Zero
// until kWarmValues values are known.
//
// Not exact under dependence between rows; tests measure the realised shares. Cost: 144 bytes a slot;
// bench_bank.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/codec.hpp"

namespace argus::engine {

inline constexpr std::uint32_t kWarmValues = 150;
inline constexpr float kBeyondBits = 20.0F;
inline constexpr float kBeyondZeroBits = 10.0F;

class Calibration {
public:
    static constexpr std::uint32_t kBuckets = 64;
    static constexpr float kReachBits = 10.0F;

    explicit Calibration(std::uint32_t slots);

    // Bits of each statistic among the past; 0 for NaN and while warming up. Learns nothing.
    void score(std::span<const float> statistic, std::span<float> bits) const noexcept;

    // Adds the statistics to the past where learn is not 0 and the statistic is not NaN.
    void learn(std::span<const float> statistic, std::span<const std::uint8_t> learn) noexcept;

    // The statistic that about one value in 2^kReachBits exceeds, renewed every 64 values; NaN while warming
    // up.
    [[nodiscard]] std::span<const float> reach() const noexcept { return reach_; }

    [[nodiscard]] std::uint32_t seen(std::uint32_t slot) const noexcept { return seen_[slot]; }

    void reset(std::span<const std::uint32_t> slots) noexcept;
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    struct alignas(64) Counts {
        std::array<std::uint16_t, kBuckets> at_least{};  // never growing; [0] = the whole past
    };
    struct Tail {
        std::uint32_t top;      // highest occupied bucket
        float bits_per_octave;  // slope of -log2(survival) from the upper quarter to the record
    };

    [[nodiscard]] Tail tail(std::uint32_t slot) const noexcept;
    [[nodiscard]] float beyond(std::uint32_t slot, float statistic) const noexcept;
    [[nodiscard]] float reach_of(std::uint32_t slot) const noexcept;
    void maintain(std::uint32_t slot) noexcept;
    void halve(std::uint32_t slot) noexcept;

    std::vector<Counts> counts_;
    std::vector<std::uint16_t> base_;   // key of the lowest bucket; 0 = no positive statistic seen yet
    std::vector<std::uint16_t> total_;  // at_least[0] of each slot
    std::vector<std::uint32_t> seen_;   // values learned
    std::vector<std::uint8_t> under_;   // positive values below the floor since the last maintenance
    std::vector<std::uint8_t> over_;    // values in the top bucket since the last maintenance
    std::vector<float> reach_;
};

// One rule for dependent channels: the strongest one, paid for by their number (Bonferroni: valid under any
// dependence).
// bits: channel after channel, combined.size() each. Writes one value per slot.
void combine(std::span<const float> bits, std::size_t channels, std::span<float> combined) noexcept;

}  // namespace argus::engine
