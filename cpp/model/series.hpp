// A series: one number over time, in base units. Names follow OpenTelemetry where one exists.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "base/clock.hpp"

namespace argus {

enum class Kind : std::uint8_t {
    gauge,    // a level, used as it is
    counter,  // monotonic since boot; engine/rates.cpp turns it into a rate per second
};

struct SeriesInfo {
    std::string name;        // "system.cpu.time"
    std::string unit;        // UCUM: "s", "By", "1", "{packet}"
    Kind kind = Kind::gauge;
    std::string attributes;  // "cpu.logical_number=0,cpu.mode=user": sorted by key; empty = none
    std::string session = {};  // the agent session it is of; empty = the host's

    [[nodiscard]] std::string full_name() const {
        return attributes.empty() ? name : name + "{" + attributes + "}";
    }
    // Of the value as detectors see it: counters are rates; seconds per second are a share.
    [[nodiscard]] std::string shown_unit() const {
        if (kind == Kind::gauge) return unit;
        return unit == "s" ? "1" : unit + "/s";
    }
    friend bool operator==(const SeriesInfo&, const SeriesInfo&) = default;
};

// A series lives in a slot; the generation tells a reused slot from its predecessor.
struct Slot {
    std::uint32_t index = 0;
    std::uint32_t generation = 0;
    friend bool operator==(const Slot&, const Slot&) = default;
};

// One observation on its way from a sampler to the engine, or the newest of a window of several.
struct Sample {
    Slot slot;
    Nanos time = 0;      // Clock::mono() just before its file was read
    double value = 0.0;  // base units; counters raw
    // Of the window: the least and the greatest level, or rate per second of a counter; NaN = one observation alone.
    double low = std::numeric_limits<double>::quiet_NaN();
    double high = std::numeric_limits<double>::quiet_NaN();
};

}  // namespace argus
