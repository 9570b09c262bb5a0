// Sensors of one hardware-monitoring chip, a folder of sysfs: what the thermal and the gpu source share.
// Source: kernel Documentation/hwmon/sysfs-interface.rst: temp*_input (m°C), fan*_input (rpm), power*_input or
//         power*_average (uW), in*_input (mV), energy*_input (uJ), *_label, *_fault.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"

namespace argus::sources {

enum class SensorKind : std::uint8_t { temperature, fan, power, voltage, energy };

struct SensorFile {
    SensorKind kind = SensorKind::temperature;
    std::uint32_t number = 0;
    bool average = false;  // power*_average
};

// "temp1_input": which sensor a file of a chip is. False for any other file.
[[nodiscard]] bool parse_sensor_file(std::string_view name, SensorFile& out) noexcept;

// The value in its base unit (Cel, rpm, W, V, J); false when no sensor of that kind can have it: below absolute zero,
// above 1,000 degrees, a negative speed.
[[nodiscard]] bool sensor_value(SensorKind kind, std::int64_t raw, double& out) noexcept;

// How the series of a chip are named: `hw.id` is id + "/temp1", or id alone when it is shared by the whole device.
struct ChipIdentity {
    std::string id;
    std::string name;
    std::string type;             // hw.type of power and energy
    bool sensor_in_id = true;  // false: the sensor is told by hw.sensor_location alone
};

class HwmonChip {
public:
    static constexpr std::size_t kMaxSensors = 128;

    // Looks up the sensors in `folder`; those beyond kMaxSensors are left out.
    HwmonChip(const Io& io, const std::string& folder, const ChipIdentity& identity);

    [[nodiscard]] std::size_t sensors() const noexcept { return sensors_.size(); }
    // A sensor that cannot be read, says it is faulty or shows what cannot be is missing in this poll.
    void poll(Emit& emit, PollReport& report);
    void close(Emit& emit);
    [[nodiscard]] bool same_as(const HwmonChip& other) const;  // the same sensors in the same places

private:
    struct Sensor {
        SensorKind kind;
        std::string path;
        std::string fault;  // path; empty = it cannot tell
        std::string attributes;
        SeriesSlot series;
    };

    const Io* io_;
    std::vector<Sensor> sensors_;
};

}  // namespace argus::sources
