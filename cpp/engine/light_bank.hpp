// The lightest tier, for a million streams: level residual, two-sided CUSUM and silence in one kernel, without ranks,
// seasons, siblings or budget ladder. One row in, bits out.
//
// Signals: |x - level| and the CUSUM of the standardised residual (half a sigma), each in units of its own usual
// excess.
// Bits:    per series a bar is learned that about 1 in 50 strengths pass, and by how much they do; beyond the bar the
//          tail is taken for exponential: bits = log2(50) + (strength - bar)/(mean excess ln 2), at most 60. Below: 0.
//          A missing value has the bits of its gap: log2(values, at most 4,096) times gap/longest gap, from three rows
//          and twice the longest gap on. All 0 for the first 150 values.
// Alarms:  bits at or above log2(series x rows a day / alarms a day), none within 100 rows of the last; nothing calmer
//          corrects that request afterwards: what is realised is measured (bench_leaves), not kept as the bank
//          keeps it.
// Learns:  residuals cut at six usual ones; level the less the more evidence there is. Alarming values move nothing.
// Cost:    52 bytes a series, of which rows without gaps touch 36; bench_leaves light. Allocates only for alarms.
//          Values are taken minus the first of their series, as float32. The same bits for any split of the rows and on
//          every instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "base/zeroed.hpp"

namespace argus::engine {

struct LightAlarm {
    std::uint32_t row = 0;  // within the call
    std::uint32_t slot = 0;
    float bits = 0.0F;
    float value = 0.0F;     // NaN = the series is silent
    float expected = 0.0F;  // level, this value in it
};

class LightBank {
public:
    static constexpr std::size_t kArrays = 9;
    // Series at once: their state stays in the first-level cache, arrays apart by an odd number of lines.
    static constexpr std::uint32_t kTile = 464;

    // Throws std::invalid_argument for no series, or a budget that is no positive number.
    LightBank(std::uint32_t series, double false_alarms_per_day);

    // Rows of `series` values, one after the other; bits likewise, null = not wanted. `interval_s`: usual time between
    // rows, 0 = not known, then nothing alarms. Appends to `alarms` in the order of rows.
    template <class T>
    void run(const T* values, std::size_t rows, double interval_s, float* bits, std::vector<LightAlarm>* alarms);

    [[nodiscard]] std::uint32_t series() const noexcept { return series_; }
    [[nodiscard]] float alarm_bits(double interval_s) const noexcept;
    void reset(std::span<const std::uint32_t> slots) noexcept;
    void save(Writer& writer) const;
    void load(Reader& reader);  // throws CodecError when saved with another number of series

private:
    void speak(std::size_t row, std::uint32_t first, std::uint32_t count, float bar, const float* found,
               std::vector<LightAlarm>& alarms);

    static constexpr std::size_t kLine = 16;
    struct alignas(64) Line {
        float of[kLine];
    };
    struct Tile {  // what spares work; false is always safe
        bool settled = false;   // no series is young
        bool complete = false;  // none was missing in the last row
    };

    std::uint32_t series_;
    double alarms_per_day_;
    std::int64_t rows_ = 0;
    std::vector<Tile> tiles_;
    ZeroedVector<Line> state_;               // tile after tile, kArrays each
    ZeroedVector<double> origin_;
    ZeroedVector<std::int64_t> last_alarm_;  // row number + 1; 0 = none
};

extern template void LightBank::run(const float*, std::size_t, double, float*, std::vector<LightAlarm>*);
extern template void LightBank::run(const double*, std::size_t, double, float*, std::vector<LightAlarm>*);

}  // namespace argus::engine
