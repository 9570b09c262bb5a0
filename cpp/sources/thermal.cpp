// Temperatures, fans, voltages, power and energy, and memory errors, as the machine's own sensors tell them.
// Source: /sys/class/thermal/thermal_zone*/temp, /sys/class/hwmon/hwmon*/, /sys/class/powercap/*/energy_uj (RAPL),
//         /sys/devices/system/edac/mc/mc*/{ce,ue}_count; kernel Documentation/ABI/testing/sysfs-class-{thermal,
//         powercap}, hwmon/sysfs-interface.rst, ABI/testing/sysfs-devices-edac.
// Emits:  hw.temperature (Cel), hw.fan.speed (rpm), hw.voltage (V), hw.power (W), hw.energy (J), hw.errors
//         {error.type=corrected|uncorrected}, by hw.id and hw.name (what the driver calls it). hw.id is the folder, and
//         the sensor in it; of a hwmon chip, whose folder has another number after each boot, its device on the bus.
//         RAPL's counters wrap at max_energy_range_uj; they are unwrapped here, so hw.energy only grows.
//         Chips of graphics cards are left to the source 'gpu'.
// Cost:   a small file a sensor, opened and closed each time (some 7 us each; a driver may take longer to ask its
//         chip), and four folders that are looked at for what came and went: slow lane.
// Failure: no sensor at all, as in most virtual machines: Errc::unavailable. A sensor that is faulty, forbidden
//         (energy_uj is root's since Linux 5.10) or shows what cannot be is missing. At most 256 zones, 256 chips of
//         128 sensors, 256 energy zones and 64 memory controllers are followed.
#include "sources/thermal.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sources/hwmon.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMaxZones = 256;
constexpr std::size_t kMaxControllers = 64;

enum Folder : std::size_t { kThermal, kHwmon, kPowercap, kEdac, kFolders };
constexpr const char* kFolderPaths[kFolders] = {"/class/thermal", "/class/hwmon", "/class/powercap",
                                                "/devices/system/edac/mc"};
constexpr std::string_view kGraphicsChips[] = {"amdgpu", "radeon", "i915", "xe", "nouveau"};

std::vector<std::string> entries(const Io& io, const std::string& folder, const char* prefix, std::size_t most) {
    std::vector<std::string> names;
    if (!list_folder(io, folder, "sys/class", names)) names.clear();
    std::erase_if(names, [&](const std::string& name) { return !name.starts_with(prefix); });
    if (names.size() > most) names.resize(most);
    return names;
}

}  // namespace

std::uint64_t EnergyCounter::advance(std::uint64_t reading, std::uint64_t range) noexcept {
    if (!seen_) {
        total_ = reading;
    } else if (reading >= last_) {
        total_ += reading - last_;
    } else if (range > 0 && last_ <= range) {
        total_ += range - last_ + reading;
    }
    seen_ = true;
    last_ = reading;
    return total_;
}

const char* zone_type(std::string_view name) noexcept {
    if (name.starts_with("dram")) return "memory";
    return name.starts_with("psys") ? "enclosure" : "cpu";
}

namespace {

class ThermalSource final : public Source {
public:
    ThermalSource(const Roots& roots, const Io& io) : io_(&io) {
        for (std::size_t i = 0; i < kFolders; ++i) folders_[i] = roots.sys + kFolderPaths[i];
    }

    [[nodiscard]] Result<bool> open() {
        for (std::size_t i = 0; i < kFolders; ++i) scan(static_cast<Folder>(i), nullptr);
        const bool sensors = !zones_.empty() || !energies_.empty() || !controllers_.empty() ||
                             std::any_of(chips_.begin(), chips_.end(), [](const Chip& chip) {
                                 return chip.sensors.sensors() > 0;
                             });
        if (sensors) return true;
        return Error{Errc::unavailable, ENOENT, "sys/class/{thermal,hwmon,powercap}, edac: no sensor"};
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        for (std::size_t i = 0; i < kFolders; ++i) {
            if (folder_mark(*io_, folders_[i]) != marks_[i]) scan(static_cast<Folder>(i), &emit);
        }
        for (Sensor& zone : zones_) emit_zone(zone, emit, report);
        for (Chip& chip : chips_) chip.sensors.poll(emit, report);
        for (Energy& energy : energies_) emit_energy(energy, emit, report);
        for (Controller& controller : controllers_) {
            emit_errors(controller.corrected, emit, report);
            emit_errors(controller.uncorrected, emit, report);
        }
        return report;
    }

private:
    struct Sensor {
        std::string path;
        std::string attributes;
        SeriesSlot series;

        [[nodiscard]] bool same_as(const Sensor& other) const {
            return path == other.path && attributes == other.attributes;
        }
        void close(Emit& emit) { series.close(emit); }
    };
    struct Chip {
        HwmonChip sensors;

        [[nodiscard]] bool same_as(const Chip& other) const { return sensors.same_as(other.sensors); }
        void close(Emit& emit) { sensors.close(emit); }
    };
    struct Energy {
        Sensor sensor;
        std::uint64_t range = 0;  // microjoules; 0 = not known
        EnergyCounter counter;

        [[nodiscard]] bool same_as(const Energy& other) const {
            return sensor.same_as(other.sensor) && range == other.range;
        }
        void close(Emit& emit) { sensor.close(emit); }
    };
    struct Controller {
        Sensor corrected;
        Sensor uncorrected;

        [[nodiscard]] bool same_as(const Controller& other) const { return corrected.same_as(other.corrected); }
        void close(Emit& emit) {
            corrected.close(emit);
            uncorrected.close(emit);
        }
    };

    // `emit` is nullptr before the first poll, when no series is open yet.
    void scan(Folder folder, Emit* emit) {
        marks_[folder] = folder_mark(*io_, folders_[folder]);
        switch (folder) {
            case kThermal: renew(zones_, find_zones(), emit); break;
            case kHwmon: renew(chips_, find_chips(), emit); break;
            case kPowercap: renew(energies_, find_energies(), emit); break;
            default: renew(controllers_, find_controllers(), emit); break;
        }
    }

    // What is still there keeps its series; what is not closes them.
    template <class T>
    static void renew(std::vector<T>& known, std::vector<T> found, Emit* emit) {
        for (T& fresh : found) {
            const auto old = std::find_if(known.begin(), known.end(), [&](const T& one) { return one.same_as(fresh); });
            if (old == known.end()) continue;
            fresh = std::move(*old);
            known.erase(old);
        }
        for (T& gone : known) {
            if (emit != nullptr) gone.close(*emit);
        }
        known = std::move(found);
    }

    [[nodiscard]] std::string named(const std::string& id, const std::string& path) const {
        const auto name = read_value(*io_, path);
        std::string out = "hw.id=" + attribute_value(id);
        if (name && !name->empty()) out += ",hw.name=" + attribute_value(*name);
        return out;
    }

    // Numbers of chips are given out as their drivers load. Their devices keep their names: coretemp.0, 0000:3d:00.0,
    // 1-0048. A device that is itself one of a numbered class, as nvme0 is, leads on to its own.
    [[nodiscard]] static std::string chip_id(const std::string& folder, const std::string& number) {
        constexpr int kClasses = 4;
        std::string id = number;
        std::string link = folder + "/device";
        for (int i = 0; i < kClasses; ++i, link += "/device") {
            std::string device = link_name(link);
            if (device.empty()) break;
            id = std::move(device);
        }
        return id;
    }

    [[nodiscard]] std::vector<Sensor> find_zones() const {
        std::vector<Sensor> found;
        for (const std::string& name : entries(*io_, folders_[kThermal], "thermal_zone", kMaxZones)) {
            const std::string folder = folders_[kThermal] + "/" + name;
            found.push_back({folder + "/temp", named(name, folder + "/type"), {}});
        }
        return found;
    }

    // Several chips of one device are told apart by their order, which is its driver's.
    [[nodiscard]] std::vector<Chip> find_chips() const {
        std::vector<Chip> found;
        std::vector<std::string> devices;
        std::vector<std::string> numbers = entries(*io_, folders_[kHwmon], "hwmon", kMaxZones);
        std::stable_sort(numbers.begin(), numbers.end(),
                         [](const std::string& a, const std::string& b) { return a.size() < b.size(); });
        for (const std::string& number : numbers) {
            const std::string folder = folders_[kHwmon] + "/" + number;
            const std::string name = read_value(*io_, folder + "/name").value_or("");
            const bool graphics = std::find(std::begin(kGraphicsChips), std::end(kGraphicsChips), name) !=
                                  std::end(kGraphicsChips);
            if (graphics) continue;
            std::string id = chip_id(folder, number);
            const auto before = std::count(devices.begin(), devices.end(), id);
            devices.push_back(id);
            if (before > 0) id += "#" + std::to_string(before + 1);
            found.push_back({HwmonChip(*io_, folder, {id, name, "sensor", true})});
        }
        return found;
    }

    [[nodiscard]] std::vector<Energy> find_energies() const {
        std::vector<Energy> found;
        for (const std::string& id : entries(*io_, folders_[kPowercap], "", kMaxZones)) {
            const std::string folder = folders_[kPowercap] + "/" + id;
            if (!file_exists(*io_, folder + "/energy_uj")) continue;  // a control type
            const std::string name = read_value(*io_, folder + "/name").value_or("");
            Energy energy;
            energy.sensor.path = folder + "/energy_uj";
            energy.sensor.attributes = named(id, folder + "/name") + ",hw.type=" + zone_type(name);
            energy.range = read_unsigned(*io_, folder + "/max_energy_range_uj").value_or(0);
            found.push_back(std::move(energy));
        }
        return found;
    }

    [[nodiscard]] std::vector<Controller> find_controllers() const {
        std::vector<Controller> found;
        for (const std::string& id : entries(*io_, folders_[kEdac], "mc", kMaxControllers)) {
            const std::string folder = folders_[kEdac] + "/" + id;
            const std::string common = named(id, folder + "/mc_name") + ",hw.type=memory";
            found.push_back({{folder + "/ce_count", "error.type=corrected," + common, {}},
                                    {folder + "/ue_count", "error.type=uncorrected," + common, {}}});
        }
        return found;
    }

    void emit_zone(Sensor& zone, Emit& emit, PollReport& report) {
        const auto raw = read_signed(*io_, zone.path);
        double celsius = 0;
        if (!raw || !sensor_value(SensorKind::temperature, *raw, celsius)) return;
        zone.series.emit(emit, report, celsius, [&] {
            return SeriesInfo{"hw.temperature", "Cel", Kind::gauge, zone.attributes};
        });
    }

    void emit_energy(Energy& energy, Emit& emit, PollReport& report) {
        const auto raw = read_unsigned(*io_, energy.sensor.path);
        if (!raw) return;
        const double joules = static_cast<double>(energy.counter.advance(*raw, energy.range)) * 1e-6;
        energy.sensor.series.emit(emit, report, joules, [&] {
            return SeriesInfo{"hw.energy", "J", Kind::counter, energy.sensor.attributes};
        });
    }

    void emit_errors(Sensor& sensor, Emit& emit, PollReport& report) {
        const auto count = read_unsigned(*io_, sensor.path);
        if (!count) return;
        sensor.series.emit(emit, report, static_cast<double>(*count), [&] {
            return SeriesInfo{"hw.errors", "{error}", Kind::counter, sensor.attributes};
        });
    }

    const Io* io_;
    std::array<std::string, kFolders> folders_;
    std::array<std::uint64_t, kFolders> marks_{};
    std::vector<Sensor> zones_;
    std::vector<Chip> chips_;
    std::vector<Energy> energies_;
    std::vector<Controller> controllers_;
};

Result<std::unique_ptr<Source>> open_thermal(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<ThermalSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor thermal_source;
const SourceDescriptor thermal_source{
    "thermal",
    "Temperatures, fans, voltages, power, energy (RAPL) and memory errors (EDAC) of the machine's sensors, from sysfs.",
    "sensors: a thermal zone, hwmon chip, powercap zone or EDAC controller in /sys",
    "none in a virtual machine; on hardware load the sensors' drivers (coretemp, k10temp, intel_rapl, *_edac)",
    10'000,
    Lane::slow,
    open_thermal,
};

}  // namespace argus::sources
