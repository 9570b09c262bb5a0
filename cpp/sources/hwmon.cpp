#include "sources/hwmon.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

struct KindText {
    std::string_view prefix;
    const char* name;
    const char* unit;
    Kind kind;
    double scale;  // to the unit
    double least, most;
};
// In the order of SensorKind. The bounds are those of physics and cabling, not of any one chip.
constexpr std::array<KindText, 5> kKinds{{
    {"temp", "hw.temperature", "Cel", Kind::gauge, 1e-3, -273.15, 1000},
    {"fan", "hw.fan.speed", "rpm", Kind::gauge, 1, 0, 1e6},
    {"power", "hw.power", "W", Kind::gauge, 1e-6, 0, 1e6},
    {"in", "hw.voltage", "V", Kind::gauge, 1e-3, -1e5, 1e5},
    {"energy", "hw.energy", "J", Kind::counter, 1e-6, 0, 1e15},
}};

const KindText& text_of(SensorKind kind) noexcept { return kKinds[static_cast<std::size_t>(kind)]; }

std::string attributes_of(const ChipIdentity& identity, SensorKind kind, const std::string& stem,
                          const std::string& label) {
    const std::string& location = label.empty() && !identity.sensor_in_id ? stem : label;
    std::string out = "hw.id=" + attribute_value(identity.id + (identity.sensor_in_id ? "/" + stem : ""));
    if (!identity.name.empty()) out += ",hw.name=" + attribute_value(identity.name);
    if (!location.empty()) out += ",hw.sensor_location=" + attribute_value(location);
    if (kind == SensorKind::power || kind == SensorKind::energy) out += ",hw.type=" + identity.type;
    return out;
}

}  // namespace

bool parse_sensor_file(std::string_view name, SensorFile& out) noexcept {
    const std::size_t bar = name.find('_');
    if (bar == std::string_view::npos) return false;
    const std::string_view rest = name.substr(bar);
    out.average = rest == "_average";
    if (rest != "_input" && !out.average) return false;
    for (std::size_t i = 0; i < kKinds.size(); ++i) {
        const std::string_view prefix = kKinds[i].prefix;
        if (!name.starts_with(prefix)) continue;
        std::uint64_t number = 0;
        Scanner digits(name.substr(prefix.size(), bar - prefix.size()));
        if (name[prefix.size()] == ' ' || name[prefix.size()] == '\t' || !digits.number(number)) continue;
        if (!digits.done() || number > 9999) return false;
        out.kind = static_cast<SensorKind>(i);
        out.number = static_cast<std::uint32_t>(number);
        return !out.average || out.kind == SensorKind::power;
    }
    return false;
}

bool sensor_value(SensorKind kind, std::int64_t raw, double& out) noexcept {
    const KindText& text = text_of(kind);
    out = static_cast<double>(raw) * text.scale;
    return out >= text.least && out <= text.most;
}

HwmonChip::HwmonChip(const Io& io, const std::string& folder, const ChipIdentity& identity) : io_(&io) {
    std::vector<std::string> names;
    if (!list_folder(io, folder, "sys/class/hwmon", names)) return;
    for (const std::string& name : names) {
        SensorFile file;
        if (!parse_sensor_file(name, file) || sensors_.size() >= kMaxSensors) continue;
        const std::string stem = name.substr(0, name.find('_'));
        const auto has = [&](const char* end) { return std::binary_search(names.begin(), names.end(), stem + end); };
        if (file.average && has("_input")) continue;
        const auto label = has("_label") ? read_value(io, folder + "/" + stem + "_label") : std::nullopt;
        Sensor sensor{file.kind, folder + "/" + name, has("_fault") ? folder + "/" + stem + "_fault" : "", "", {}};
        sensor.attributes = attributes_of(identity, file.kind, stem, label.value_or(""));
        const bool twice = std::any_of(sensors_.begin(), sensors_.end(), [&](const Sensor& other) {
            return other.kind == sensor.kind && other.attributes == sensor.attributes;
        });
        if (twice) sensor.attributes = attributes_of(identity, file.kind, stem, stem);
        sensors_.push_back(std::move(sensor));
    }
}

void HwmonChip::poll(Emit& emit, PollReport& report) {
    for (Sensor& sensor : sensors_) {
        if (!sensor.fault.empty() && read_signed(*io_, sensor.fault).value_or(0) != 0) continue;
        const auto raw = read_signed(*io_, sensor.path);
        double value = 0;
        if (!raw || !sensor_value(sensor.kind, *raw, value)) continue;
        sensor.series.emit(emit, report, value, [&] {
            const KindText& text = text_of(sensor.kind);
            return SeriesInfo{text.name, text.unit, text.kind, sensor.attributes};
        });
    }
}

bool HwmonChip::same_as(const HwmonChip& other) const {
    return std::equal(sensors_.begin(), sensors_.end(), other.sensors_.begin(), other.sensors_.end(),
                      [](const Sensor& a, const Sensor& b) {
                          return a.path == b.path && a.attributes == b.attributes && a.fault == b.fault;
                      });
}

void HwmonChip::close(Emit& emit) {
    for (Sensor& sensor : sensors_) sensor.series.close(emit);
}

}  // namespace argus::sources
