// The contract of a detector: it scores every series of a view before it learns from it, and score() is const, so it
// cannot learn from what it scores. Statistics are unit-free (larger = stranger); engine/calibration.cpp turns them into
// bits. NaN in = not observed: statistic NaN, nothing learned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.hpp"
#include "base/codec.hpp"

namespace argus::detectors {

struct Entity {  // a range of slots that belong to one machine, agent or tenant
    std::uint32_t first = 0;
    std::uint32_t count = 0;
};

struct View {
    std::span<const float> values;  // one per slot, base units minus the slot's origin; NaN = not observed
    std::span<const Entity> entities;
    Nanos now = 0;
};

class Detector {
public:
    virtual ~Detector() = default;
    virtual void score(const View& view, std::span<float> statistic) const = 0;
    virtual void learn(const View& view, std::span<const std::uint8_t> mask) = 0;  // mask 0 = do not learn this slot
    virtual void reset(std::span<const std::uint32_t> slots) = 0;
    virtual void save(Writer& writer) const = 0;
    virtual void load(Reader& reader) = 0;
};

}  // namespace argus::detectors
