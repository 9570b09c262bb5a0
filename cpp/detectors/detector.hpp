// The contract of a detector: it scores every series of a view before it learns from it, and score() is
// const, so it cannot learn from what it scores. Statistics are unit-free or in the unit of the series
// (larger = stranger; a negative one abstains, its magnitude is learned); engine/calibration.cpp ranks each
// against its own history, so only their order within a series matters.
// NaN in = not observed: statistic NaN, nothing learned; `silence` alone speaks of it.
//
// A detector is one file in cpp/detectors with one DetectorDescriptor; the bank makes one instance per tile
// of at most kTileSlots series. All calls but the factory are free of allocation and exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "model/option.hpp"

namespace argus::detectors {

inline constexpr std::uint32_t kTileSlots = 128;  // largest tile: with all detectors it keeps to the second-level cache

struct Entity {  // a range of slots that belong to one machine, agent or tenant
    std::uint32_t first = 0;
    std::uint32_t count = 0;
};

struct View {
    std::span<const float> values;  // one per slot, base units minus the slot's origin; NaN = not observed
    std::span<const Entity> entities;
    Nanos now = 0;            // monotonic
    Nanos wall = 0;           // Unix: hours and weekdays (UTC) come from it
    double interval_s = 0.0;  // usual time between rows; 0 = not known yet
    std::span<const double> origin = {};   // what was taken off each value; empty = nothing
    std::span<const float> exposure = {};  // of counts: trials or time behind each value; empty = one row
};

// What a detector does with a value, one byte per slot.
inline constexpr std::uint8_t kLearnNothing = 0;  // alarming: the model of what is normal stays as it is
inline constexpr std::uint8_t kLearn = 1;         // normal
inline constexpr std::uint8_t kLearnAnew = 2;     // the new normal: forget most of the past, start here

class Detector {
public:
    virtual ~Detector() = default;

    // Writes one statistic per channel and slot, channel after channel:
    // statistic[channel * view.values.size() + slot].
    virtual void score(const View& view, std::span<float> statistic) const = 0;

    // Learns from the view just scored; mask holds kLearn... bytes. Short-term evidence (a running mean of
    // residuals) follows the value under every mask, else an ended anomaly could not be seen to end.
    virtual void learn(const View& view, std::span<const std::uint8_t> mask) = 0;

    // For detectors that forecast: the expected value (minus origin) and the usual size of a residual, one
    // per slot, NaN where unknown, before learning from this row. Returns false when the detector makes no
    // forecast.
    [[nodiscard]] virtual bool forecast(std::span<float> expected, std::span<float> scale) const {
        (void)expected;
        (void)scale;
        return false;
    }

    virtual void reset(std::span<const std::uint32_t> slots) = 0;
    virtual void save(Writer& writer) const = 0;
    virtual void load(Reader& reader) = 0;
};

// How many rows a statistic looks back on. Evidence of one scale is one group for the fusion (engine/fusion.hpp).
enum class Scale : std::uint8_t { step, row, rows_3, rows_10, rows_30 };
inline constexpr std::size_t kScales = 5;

// One statistic of a detector, ranked on its own. A forecasting detector's first channel is |value - expected|.
struct Channel {
    const char* name;  // "" = the detector's own name, else appended: "residual.10"
    Scale scale = Scale::row;
};

// Where a leaf is at work without being asked, and where it may be asked to be. All are open to arrays.
enum class Use : std::uint8_t {
    fused,     // one of the bank's signals
    named,     // judged apart from them, over the series that the configuration names
    arrivals,  // over every series, also where nothing is observed: see engine/silence_watch.hpp
    arrays,    // of entities: it writes at an entity's first slot, NaN or a share of it at the others
};

struct DetectorDescriptor {
    Leaf leaf;
    std::unique_ptr<Detector> (*make)(std::uint32_t slots, std::span<const double> option_values);
    std::span<const Channel> channels;
    Use use = Use::fused;
};

extern const DetectorDescriptor residual_detector;
extern const DetectorDescriptor season_detector;
extern const DetectorDescriptor increment_detector;
extern const DetectorDescriptor shift_detector;
extern const DetectorDescriptor variance_detector;
extern const DetectorDescriptor silence_detector;
extern const DetectorDescriptor rate_detector;
extern const DetectorDescriptor tail_detector;
extern const DetectorDescriptor mix_detector;
extern const DetectorDescriptor embedding_detector;

}  // namespace argus::detectors
