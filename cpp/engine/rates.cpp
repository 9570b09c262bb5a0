#include "engine/rates.hpp"

#include <cmath>
#include <limits>

namespace argus::engine {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kModuli[] = {4294967296.0, 18446744073709551616.0};
constexpr double kWrapAbove = 0.75;      // share of the modulus the counter had reached
constexpr double kWrapBelow = 0.25;      // share it may have reached since
constexpr double kWrapAcceleration = 8;  // times the rate before that a wrapped difference may show
constexpr double kBackwardShare = 0.01;
constexpr std::uint8_t kBackwardTicks = 5;

// The rate if the counter wrapped, NaN if it did not: a reset near the end of the range looks alike, so a wrap must
// also continue the rate that was.
double wrapped_rate(double before, double now, double seconds, double last_rate) noexcept {
    for (const double modulus : kModuli) {
        if (before >= modulus || before < modulus * kWrapAbove || now > modulus * kWrapBelow) continue;
        const double rate = (modulus - before + now) / seconds;
        if (rate <= kWrapAcceleration * last_rate) return rate;
    }
    return kNaN;
}

}  // namespace

void Rates::open(std::uint32_t slot, Kind kind, bool integral) noexcept {
    states_[slot] = State{};
    states_[slot].kind = kind;
    states_[slot].integral = integral;
    states_[slot].rate = kNaN;
}

double Rates::observe(std::uint32_t slot, Nanos time, double raw) noexcept {
    State& state = states_[slot];
    if (!std::isfinite(raw)) {
        ++faults_.not_finite;
        return kNaN;
    }
    if (state.kind == Kind::gauge) return raw;
    if (!state.seen || time < state.time) {
        if (state.seen) ++faults_.no_time;  // the clock went back: nothing before it can be compared
        state.seen = true;
        state.raw = raw;
        state.time = time;
        state.rate = kNaN;
        state.below = 0;
        return kNaN;
    }
    if (time == state.time) {
        ++faults_.no_time;
        return kNaN;
    }
    const double seconds = static_cast<double>(time - state.time) * 1e-9;
    if (raw < state.raw) return fallen(state, time, raw, seconds);
    const double rate = (raw - state.raw) / seconds;
    state.raw = raw;
    state.time = time;
    state.rate = rate;
    state.below = 0;
    return rate;
}

double Rates::fallen(State& state, Nanos time, double raw, double seconds) noexcept {
    const double wrapped = state.integral ? wrapped_rate(state.raw, raw, seconds, state.rate) : kNaN;
    const bool small = state.raw - raw <= kBackwardShare * state.raw;
    if (std::isnan(wrapped) && small && raw > 0) {
        ++faults_.backward;
        if (++state.below <= kBackwardTicks) return kNaN;
    } else {
        ++(std::isnan(wrapped) ? faults_.resets : faults_.wraps);
    }
    state.raw = raw;
    state.time = time;
    state.rate = wrapped;
    state.below = 0;
    return wrapped;
}

}  // namespace argus::engine
