// Counters become rates here and nowhere else. dt is measured; a rate is never negative and never made up: where a
// counter did something else than count, the tick is NaN and the reason is counted.
//
//   wrap      a 32-bit or 64-bit counter passed its end: the true difference is used, if it continues the rate before
//   reset     the counter fell by more than 1 %: driver reload, container restart; it becomes the new baseline
//   backward  the counter fell by at most 1 % (idle and iowait do): the old baseline stays for up to 5 ticks, so that
//             what was taken back is not counted twice
//   no_time   dt <= 0
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.hpp"
#include "model/series.hpp"

namespace argus::engine {

struct RateFaults {
    std::uint64_t wraps = 0;
    std::uint64_t resets = 0;
    std::uint64_t backward = 0;
    std::uint64_t no_time = 0;
    std::uint64_t not_finite = 0;
    friend bool operator==(const RateFaults&, const RateFaults&) = default;
};

class Rates {
public:
    // Makes room for `slots`; keeps what is there. Allocates.
    void resize(std::size_t slots) { states_.resize(slots); }
    [[nodiscard]] std::size_t size() const noexcept { return states_.size(); }

    // A slot was opened, anew: it forgets what it held. `integral` = the raw value is a plain count, which can wrap at
    // 2^32 or 2^64; scaled ones (seconds from ticks) end elsewhere.
    void open(std::uint32_t slot, Kind kind, bool integral) noexcept;

    // Gauge: the value. Counter: its rate per second since the previous observation, NaN for the first.
    [[nodiscard]] double observe(std::uint32_t slot, Nanos time, double raw) noexcept;

    // What a slot stands at after observe(raw): a gauge's raw value, a counter's baseline, which is raw but for the
    // small steps back that are waited out.
    [[nodiscard]] double level(std::uint32_t slot, double raw) const noexcept {
        return states_[slot].kind == Kind::counter ? states_[slot].raw : raw;
    }

    [[nodiscard]] const RateFaults& faults() const noexcept { return faults_; }

private:
    struct State {
        double raw = 0;
        double rate = 0;  // the last one; NaN = none yet
        Nanos time = 0;
        Kind kind = Kind::gauge;
        bool integral = false;
        bool seen = false;
        std::uint8_t below = 0;  // ticks in a row under the baseline
    };
    [[nodiscard]] double fallen(State& state, Nanos time, double raw, double seconds) noexcept;

    std::vector<State> states_;
    RateFaults faults_;
};

}  // namespace argus::engine
