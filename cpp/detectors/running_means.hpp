// Running means of a residual over about 3, 10 and 30 rows, as every forecasting detector keeps them: what one row
// does not show, a lasting departure does.
#pragma once

#include "base/arithmetic.hpp"

namespace argus::detectors {

inline constexpr float kRate3 = 0.3F;
inline constexpr float kRate10 = 0.1F;
inline constexpr float kRate30 = 0.03F;

// One step of an exponential mean.
[[nodiscard]] ARGUS_INLINE float towards(float mean, float x, float rate) noexcept { return mean + rate * (x - mean); }

}  // namespace argus::detectors
