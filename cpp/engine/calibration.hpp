// From statistics to bits: the conformal tail rank of a statistic among its own past, in bits = -log2 of the
// share of the past at or above it. Only what lies above the mark, the value that about 5 % of the past
// exceed, is ranked: all else is 0 bits.
//
// Past: per slot kBuckets u16 counts of the values at or above a bucket's edge, three buckets an octave, told by
// comparing the float's bits, so that no logarithm is taken: one cache line. The lowest edge is 2 % of the mean of
// the first kWarmValues values; the buckets move when the mark comes too high or nothing reaches beyond the lowest.
// Cumulative, so that a rank is two loads; learning adds to a prefix, which vectorises. Values above the mark are
// all counted; of those below it one in kSampled, with so much more weight (by the series' own count of values).
// The past fades by 1/5,000 a value.
//
// Rank: bits = log2((N + 2)/(above + half of its own bucket + 1)). Beyond the record (a bucket above all occupied
// ones): plus 6.64 bits an octave, at most kBeyondBits.
//
// Young pasts: a rank cannot exceed log2(N + 2), so that series of unlike age would not compare; bits are
// lifted by (log 3000/log(N + 10))^(1/4), and sunk beyond 3,000 values. So bits <= 1.13 (log2(N + 2) +
// kBeyondBits) always. Zero until kWarmValues values are known.
//
// Method: conformal p-values: Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World.
// Not exact under dependence between rows; tests measure the realised shares. Cost: 82 bytes a slot, taken when
// it is first used; bench_bank.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/codec.hpp"
#include "base/zeroed.hpp"

namespace argus::engine {

inline constexpr std::uint32_t kWarmValues = 150;
inline constexpr float kBeyondBits = 10.0F;
inline constexpr float kLeastBits = 4.32F;  // ranks below it are 0: about 1 value in 20 has any bits
inline constexpr std::uint32_t kSampled = 32;  // one value in so many below the mark is counted

class Calibration {
public:
    static constexpr std::uint32_t kBuckets = 31;
    static constexpr float kReachBits = 10.0F;

    struct Reach {  // slots whose reach() is wanted
        std::uint32_t first = 0;
        std::uint32_t count = 0;
    };
    struct alignas(64) Past {  // of one slot
        std::array<std::uint16_t, kBuckets + 1> at_least{};  // never growing; [0] = all, the last is 0
    };
    struct Warming {  // one array each, an entry per slot
        float* per_edge;
        float* mean;
        std::uint8_t* warm;
        std::uint8_t* bucket;  // out, here and below
        std::uint8_t* learns;
    };

    struct Ranks {  // of the statistics at or above their mark: slots in growing order
        std::span<const std::uint32_t> slot;
        std::span<const float> bits;
    };

    Calibration(std::uint32_t slots, Reach reach);

    // Bits of the statistics among their past; all that is not told of has 0: NaN, below the mark, warming up. A
    // negative statistic abstains: 0 bits, learned as its magnitude. Learns nothing. Valid until learn().
    [[nodiscard]] Ranks score(std::span<const float> statistic) noexcept;

    // Adds the row just scored to the past where learn is not 0 and the statistic is not NaN. `learn` and `seen`
    // (values of the series so far, this one included) hold one entry a series; statistics of several channels
    // follow each other, learn.size() each.
    void learn(std::span<const std::int32_t> seen, std::span<const float> statistic,
               std::span<const std::uint8_t> learn) noexcept;

    // The statistic that about one value in 2^kReachBits exceeds, renewed every 128 values; NaN while warming up;
    // empty unless asked for.
    [[nodiscard]] std::span<const float> reach() const noexcept { return reach_; }

    // Values that the past weighs, at most about 8,160.
    [[nodiscard]] std::uint32_t past(std::uint32_t slot) const noexcept;

    void reset(std::span<const std::uint32_t> slots) noexcept;
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    struct Tail {
        std::uint32_t top;      // highest occupied bucket
        float bits_per_octave;  // slope of -log2(survival) from the upper quarter to the record
    };
    struct Values {  // some slots of a row, and what is known of them
        static constexpr std::size_t kSlack = 16;  // slots are written so many at once
        explicit Values(std::size_t most)
            : slot(most + kSlack), bucket(most), twice_share(most), dither(most), found(most), past_bits(most),
              lift(most) {}
        ZeroedVector<std::uint32_t> slot;
        ZeroedVector<std::uint8_t> bucket;
        ZeroedVector<std::int32_t> twice_share;
        ZeroedVector<std::uint32_t> dither;
        ZeroedVector<float> found;
        ZeroedVector<float> past_bits;
        ZeroedVector<float> lift;
        std::size_t count = 0;
    };
    [[nodiscard]] float edge_of(std::size_t slot, int bucket) const noexcept;
    [[nodiscard]] bool only_zeros(std::size_t slot) const noexcept;
    [[nodiscard]] static Tail tail(const Past& past) noexcept;
    [[nodiscard]] float beyond(std::size_t slot, float statistic) const noexcept;
    [[nodiscard]] float reach_of(std::size_t slot) const noexcept;
    void search(std::span<const float> statistic) noexcept;
    void learn_hits(std::span<const std::uint8_t> learn) noexcept;
    void learn_others(std::span<const std::int32_t> seen, std::span<const float> statistic,
                      std::span<const std::uint8_t> learn) noexcept;
    void move_base(std::size_t slot, int by) noexcept;
    void sink(std::size_t slot) noexcept;
    void warm_up(std::span<const float> statistic, std::span<const std::uint8_t> learn) noexcept;
    void settle(std::size_t slot) noexcept;
    void maintain(Values& due) noexcept;

    ZeroedVector<Past> pasts_;
    std::vector<float> mark_;  // statistics at or above it are ranked; infinite while warming up
    ZeroedVector<float> per_edge_;   // 1/lower edge of bucket 0; 0 = no positive statistic seen yet
    ZeroedVector<float> past_bits_;  // log2 of the past, renewed every 128 values; the mean while warming up
    ZeroedVector<float> lift_;       // makes series of unlike age comparable; renewed every 128 values
    ZeroedVector<std::uint8_t> warm_;  // values learned, at most kWarmValues
    Reach reach_slots_;
    std::vector<float> reach_;
    ZeroedVector<std::uint8_t> above_;  // scratch of one row, here and below
    ZeroedVector<std::uint8_t> learns_;
    Values hits_;
    Values others_;
    std::uint32_t warming_;  // slots that have no mark yet
};

}  // namespace argus::engine
