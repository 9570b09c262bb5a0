// Speaks of series that stop arriving, or freeze: the `silence` leaf over every slot, also where nothing is observed.
// Its bits are of a tail through the longest of the lengths seen, so a bar follows from the request: log2(series x rows
// a day / alarms a day). No ranks and no ladder: a length is too rare an event to be counted in days. The budget is its
// own, as large as the bank's. Cost: 65 bytes a slot, and bench_leaves silence_tick, of tiles in use only.
// step() does not allocate but for what it says.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/codec.hpp"
#include "detectors/detector.hpp"
#include "engine/speaking.hpp"

namespace argus::engine {

struct SilenceSaid {
    std::uint32_t slot = 0;
    bool frozen = false;  // it arrives, always the same; else it is missing
    bool onset = true;
    float bits = 0.0F;
    double value = 0.0;   // last one seen
    double length_s = 0.0;
    double usual_s = 0.0;  // mean gap; of a frozen one the longest run
    Nanos since_wall = 0;
};

class SilenceWatch {
public:
    // Options of the leaf in the descriptor's order, empty = defaults.
    SilenceWatch(std::uint32_t slots, std::span<const double> option_values, double alarms_per_day);

    // One row, NaN = not observed. Of slots that are held (not 0; empty = none) nothing is said or learned, and lengths
    // start again afterwards. What it says is valid until the next call, in slot order.
    std::span<const SilenceSaid> step(std::span<const double> row, Nanos mono, Nanos wall,
                                      std::span<const std::uint8_t> held = {});

    void reset(std::uint32_t slot);
    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    enum class Told : std::uint8_t { nothing, missing, frozen };
    struct Tile {
        std::unique_ptr<detectors::Detector> detector;
        std::uint32_t count = 0;
        bool used = false;
    };
    void count(std::uint32_t slot, float value, bool held) noexcept;
    void judge(const Tile& tile, std::uint32_t first, std::span<const float> values, std::span<const float> bits,
               float bar, Nanos wall);
    void say(const Tile& tile, std::uint32_t slot, std::uint32_t within, Told what, bool onset, float bits);

    double alarms_per_day_;
    Cadence cadence_;
    std::vector<Tile> tiles_;
    std::vector<float> last_;
    std::vector<std::uint32_t> missing_;  // rows, so far
    std::vector<std::uint32_t> same_;     // rows of one value, so far
    std::vector<Told> told_;
    std::vector<Nanos> since_wall_;
    std::vector<float> usual_, longest_;  // scratch
    std::vector<SilenceSaid> said_;
};

}  // namespace argus::engine
