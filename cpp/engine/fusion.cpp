#include "engine/fusion.hpp"

#include <algorithm>

#include "base/arithmetic.hpp"
#include "base/dispatch.hpp"

namespace argus::engine {
namespace {

using detectors::kScales;
using detectors::Scale;

constexpr float kRest = 0.3F;
constexpr float kEffect = 0.03F;       // of the span: below it a departure counts less
constexpr float kLeastEffect = 0.001F; // of kEffect: log2 of it is the deepest sink
constexpr float kRecentRate = 0.02F;
constexpr float kMiddleRate = 0.002F;
constexpr float kSpanRate = 1e-4F;
constexpr float kOldest = 1.0e6F;
constexpr float kLeastSpan = 1e-30F;

struct Span {
    float* recent;
    float* middle;
    float* high;
    float* low;
    float* age;
};

ARGUS_INLINE void fuse_body(const float* values, const float* group, const Span& span, std::size_t count,
                            float* row, float* evidence) {
    const float* steps = group;
    const float* rows = group + count;
    const float* rows_3 = group + 2 * count;
    const float* rows_10 = group + 3 * count;
    const float* rows_30 = group + 4 * count;
    const float* row_sum = group + kScales * count;
    const float* recent = span.recent;
    const float* high = span.high;
    const float* low = span.low;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float one = steps[i] > rows[i] ? steps[i] : rows[i];
        const float a = rows_3[i] > one ? rows_3[i] : one;
        const float b = rows_10[i] > a ? rows_10[i] : a;
        const float strongest = rows_30[i] > b ? rows_30[i] : b;
        const float all = steps[i] + rows[i] + rows_3[i] + rows_10[i] + rows_30[i];
        const float fused = strongest + kRest * (all - strongest);
        const float width = high[i] - low[i];
        const float effect = magnitude(values[i] - recent[i]) / ((width + kLeastSpan) * kEffect);
        const float some = effect > kLeastEffect ? effect : kLeastEffect;
        const float sunk = fused + (some < 1.0F ? fast_log2(some) : 0.0F);
        row[i] = one + kRest * (row_sum[i] - one);
        evidence[i] = sunk > 0.0F ? sunk : 0.0F;
    }
}

ARGUS_INLINE void span_body(const float* values, const Span& span, std::size_t count) {
    float* recent = span.recent;
    float* middle = span.middle;
    float* high = span.high;
    float* low = span.low;
    float* age = span.age;
    ARGUS_IVDEP
    for (std::size_t i = 0; i < count; ++i) {
        const float x = values[i];
        const bool seen = x == x;
        const bool first = age[i] == 0.0F;
        const float young = 1.0F / (age[i] + 1.0F);
        const float recent_rate = young > kRecentRate ? young : kRecentRate;
        const float middle_rate = young > kMiddleRate ? young : kMiddleRate;
        const float new_recent = recent[i] + recent_rate * (x - recent[i]);
        const float new_middle = middle[i] + middle_rate * (x - middle[i]);
        const float lowered = first ? x : high[i] - kSpanRate * (high[i] - new_middle);
        const float raised = first ? x : low[i] + kSpanRate * (new_middle - low[i]);
        recent[i] = seen ? new_recent : recent[i];
        middle[i] = seen ? new_middle : middle[i];
        high[i] = seen ? (x > lowered ? x : lowered) : high[i];
        low[i] = seen ? (x < raised ? x : raised) : low[i];
        age[i] = (seen & (age[i] < kOldest)) ? age[i] + 1.0F : age[i];
    }
}

ARGUS_KERNEL(fuse_kernel, fuse_body,
             (const float* values, const float* group, const Span& span, std::size_t count, float* row,
              float* evidence),
             (values, group, span, count, row, evidence))

ARGUS_KERNEL(span_kernel, span_body, (const float* values, const Span& span, std::size_t count),
             (values, span, count))

Span view(float* at, std::size_t slots) noexcept {
    return {at, at + slots, at + 2 * slots, at + 3 * slots, at + 4 * slots};
}

}  // namespace

Fusion::Fusion(std::uint32_t slots, std::vector<Scale> channels)
    : channels_(std::move(channels)),
      slots_(slots),
      span_(kArrays * slots, 0.0F),
      group_((kScales + 1) * std::size_t{slots}, 0.0F) {}

void Fusion::fuse(std::span<const float> values, std::span<const std::uint32_t> slots, std::span<const float> bits,
                  std::span<float> row, std::span<float> evidence) noexcept {
    const std::size_t count = values.size();
    std::fill(group_.begin(), group_.end(), 0.0F);
    float* const row_sum = group_.data() + kScales * count;
    std::size_t i = 0;
    for (std::size_t c = 0; c < channels_.size(); ++c) {
        const bool of_row = channels_[c] <= Scale::row;
        float* const group = group_.data() + static_cast<std::size_t>(channels_[c]) * count;
        const std::size_t first = c * count;
        for (; i < slots.size() && slots[i] < first + count; ++i) {
            const std::size_t at = slots[i] - first;
            group[at] = std::max(group[at], bits[i]);
            if (of_row) row_sum[at] += bits[i];
        }
    }
    fuse_kernel(values.data(), group_.data(), view(span_.data(), slots_), count, row.data(), evidence.data());
}

void Fusion::learn(std::span<const float> values) noexcept {
    span_kernel(values.data(), view(span_.data(), slots_), values.size());
}

void Fusion::reset(std::span<const std::uint32_t> slots) noexcept {
    for (const std::uint32_t slot : slots) {
        for (std::size_t array = 0; array < kArrays; ++array) span_[array * slots_ + slot] = 0.0F;
    }
}

void Fusion::save(Writer& writer) const { writer.array(std::span<const float>(span_)); }
void Fusion::load(Reader& reader) { reader.array(std::span<float>(span_)); }

}  // namespace argus::engine
