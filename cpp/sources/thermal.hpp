// Pure parts of the thermal source, for tests.
#pragma once

#include <cstdint>
#include <string_view>

namespace argus::sources {

// A counter of energy that starts again at 0 when it passes `range` (max_energy_range_uj), made one that only grows.
class EnergyCounter {
public:
    // The total in microjoules after this reading. A fall from within the range is one wrap: a reading must come before
    // the counter can wrap twice (minutes, at full power). With no range known, or from beyond it, a fall is a reset:
    // what was used since is unknown and nothing is added.
    [[nodiscard]] std::uint64_t advance(std::uint64_t reading, std::uint64_t range) noexcept;

private:
    std::uint64_t last_ = 0;
    std::uint64_t total_ = 0;
    bool seen_ = false;
};

// What a powercap zone measures, as hw.type: "memory" for dram, "enclosure" for psys, else "cpu" (package-0, core).
[[nodiscard]] const char* zone_type(std::string_view name) noexcept;

}  // namespace argus::sources
