// Magnitude, base-2 logarithm and power for kernels: plain arithmetic, so that it vectorises and gives the same bits
// on every instruction set, which libm does not promise.
#pragma once

#include <cstdint>

#include "base/dispatch.hpp"

namespace argus {

[[nodiscard]] ARGUS_INLINE float magnitude(float x) noexcept { return x < 0.0F ? -x : x; }

// log2(x) for finite x >= 2^-126; absolute error < 3e-7 for results within +-1, else relative < 3e-7.
// Method: x = 2^e m with m in [sqrt(1/2), sqrt(2)); log2(m) = 2/ln 2 * artanh((m - 1)/(m + 1)), odd series to
// the 9th power.
[[nodiscard]] ARGUS_INLINE float fast_log2(float x) noexcept {
    const std::int32_t raw = __builtin_bit_cast(std::int32_t, x);
    constexpr std::int32_t kRootHalf = 0x3F3504F3;
    const std::int32_t shifted = raw - kRootHalf;
    const std::int32_t exponent = shifted >> 23;
    const float m = __builtin_bit_cast(float, (shifted & 0x007FFFFF) + kRootHalf);
    const float t = (m - 1.0F) / (m + 1.0F);
    const float t2 = t * t;
    const float series =
        2.88539008F + t2 * (0.96179669F + t2 * (0.57707802F + t2 * (0.41219859F + t2 * 0.32059890F)));
    return static_cast<float>(exponent) + t * series;
}

// 2^x for -120 <= x <= 120; relative error < 3e-7. Method: 2^whole by the exponent, 2^rest of [-1/2, 1/2] by its
// Taylor series to the 6th power.
[[nodiscard]] ARGUS_INLINE float fast_exp2(float x) noexcept {
    const float shifted = x + 128.5F;
    const std::int32_t whole = static_cast<std::int32_t>(shifted) - 128;
    const float y = 0.693147181F * (x - static_cast<float>(whole));
    const float series =
        1.0F + y * (1.0F + y * (0.5F + y * (0.166666667F + y * (0.0416666667F + y * (0.00833333333F +
        y * 0.00138888889F)))));
    return series * __builtin_bit_cast(float, (whole + 127) << 23);
}

}  // namespace argus
