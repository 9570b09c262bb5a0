// From the bits of every channel to two figures a series.
//
// row:      how strange this row is. The strongest channel that looks at one row or one step, plus kRest times
//           all the others of them: what several forecasts agree on counts for more.
// evidence: how strange the series is. The channels are grouped by the rows they look back on; the strongest of
//           each group, then the strongest group plus kRest times the others: evidence that lives on several time
//           scales adds up, one spike does not. Sunk by the effect size: a departure from the recent level
//           (about 50 rows) below 3 % of a slowly forgetting span sinks by up to 10 bits.
// Neither is a probability: engine/speaking.hpp and the alarm budget turn them into alarms.
//
// Cost: 20 bytes a slot; bench_bank. NaN: nothing learned; channels at 0 bits give 0.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/codec.hpp"
#include "detectors/detector.hpp"

namespace argus::engine {

class Fusion {
public:
    Fusion(std::uint32_t slots, std::vector<detectors::Scale> channels);

    // `bits` of the `slots` that have any, in growing order: channel after channel, values.size() each. Learns nothing.
    void fuse(std::span<const float> values, std::span<const std::uint32_t> slots, std::span<const float> bits,
              std::span<float> row, std::span<float> evidence) noexcept;

    void learn(std::span<const float> values) noexcept;

    void reset(std::span<const std::uint32_t> slots) noexcept;
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    static constexpr std::size_t kArrays = 5;

    std::vector<detectors::Scale> channels_;
    std::size_t slots_;
    std::vector<float> span_;   // recent level, middle, highest, lowest, age: an array each
    std::vector<float> group_;  // scratch: an array per scale, then the sum of the row's channels
};

}  // namespace argus::engine
