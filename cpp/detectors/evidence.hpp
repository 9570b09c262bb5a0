// What the CUSUM leaves share: a state of one float array after the other, and how a model learns while evidence
// against it grows. A model that learned at full rate while a change builds up would follow it and hide it; one that
// stopped would be stuck with what chance taught it. So it learns the less the more evidence there is.
#pragma once

#include <cstddef>
#include <span>

#include "base/arithmetic.hpp"
#include "base/codec.hpp"
#include "base/zeroed.hpp"

namespace argus::detectors {

inline constexpr float kBitsPerNat = 1.44269504F;
inline constexpr float kOldestValue = 1.0e6F;  // ages stop here: float32 counts exactly, and 1/n is below any rate
inline constexpr float kYoungValues = 32.0F;   // before so many values there is no scale to measure by
inline constexpr float kMostEvidence = 64.0F;  // nats: more would only delay the end
inline constexpr float kNoLimit = 1.0e30F;
inline constexpr float kMeanAbsToSigma = 1.2533141F;  // of a normal distribution

// Share of its rate at which a model learns under `evidence` nats.
[[nodiscard]] ARGUS_INLINE float trust(float evidence) noexcept { return 2.0F / (2.0F + evidence); }

[[nodiscard]] ARGUS_INLINE float between(float x, float low, float high) noexcept {
    return x < low ? low : x > high ? high : x;
}

// kArrays float arrays of one entry a slot, zero at first.
template <std::size_t kArrays>
class SlotArrays {
public:
    explicit SlotArrays(std::size_t slots) : slots_(slots), all_(kArrays * slots) {}

    [[nodiscard]] float* array(std::size_t which) noexcept { return all_.data() + which * slots_; }
    [[nodiscard]] const float* array(std::size_t which) const noexcept { return all_.data() + which * slots_; }
    [[nodiscard]] std::size_t slots() const noexcept { return slots_; }

    void reset(std::span<const std::uint32_t> slots) noexcept {
        for (const std::uint32_t slot : slots) {
            for (std::size_t a = 0; a < kArrays; ++a) all_[a * slots_ + slot] = 0.0F;
        }
    }
    void save(Writer& writer) const { writer.array(std::span<const float>(all_)); }
    void load(Reader& reader) { reader.array(std::span<float>(all_)); }

private:
    std::size_t slots_;
    ZeroedVector<float> all_;
};

}  // namespace argus::detectors
