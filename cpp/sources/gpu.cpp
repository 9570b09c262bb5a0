// Load, memory, temperature, power, clocks, throttling and errors of graphics and compute cards.
// Source: NVIDIA: libnvidia-ml.so.1 (nvml.hpp). AMD and Intel: /sys/class/drm/cardN; kernel Documentation/gpu/amdgpu,
//         gpu/i915.rst, gpu/xe, hwmon/sysfs-interface.rst.
// Emits:  hw.gpu.utilization {hw.gpu.task}, hw.gpu.memory.usage, .limit, .utilization, hw.gpu.io
//         {network.io.direction}, hw.temperature, hw.power, hw.energy, hw.errors {error.type} as OpenTelemetry names
//         them; beyond it hw.gpu.memory.controller.utilization, hw.gpu.clock.frequency (Hz) and hw.gpu.idle_time (s)
//         {hw.gpu.clock}, hw.gpu.throttled {hw.gpu.throttle.reason} (0 or 1), hw.gpu.process.count, hw.power.limit,
//         hw.fan.speed_ratio; all by hw.id (NVIDIA's UUID, else the PCI address), hw.name and hw.vendor.
// Cost:   NVML takes from some 100 us to a few ms a card, in a thread of its own; sysfs some 10 us a file. Slow lane.
// Failure: no library, no driver and no card: Errc::unavailable. A driver that does not answer within a second costs
//         that poll its values, and polls are skipped after it: one, two, four, up to 64. What a card or a driver does
//         not tell is missing: with MIG, the load of the whole card. A card that sleeps is not woken. At most 64
//         NVIDIA and 32 other cards.
// No bench: how long it takes is the answer of a driver and its card, and nothing bare asks the same of them.
#include "sources/gpu.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <optional>
#include <vector>

#include "sources/hwmon.hpp"
#include "sources/nvml.hpp"
#include "sources/series_slot.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMaxCards = 32;
constexpr std::uint32_t kMaxSkips = 64;
constexpr Kind G = Kind::gauge;
constexpr Kind C = Kind::counter;

struct SeriesText {
    const char* name;
    const char* unit;
    Kind kind;
    const char* before;  // attributes that sort before hw.id
    const char* after;   // and after hw.vendor
};
// In the order of NvmlValue.
constexpr SeriesText kNvmlText[kNvmlValues] = {
    {"hw.gpu.utilization", "1", G, "hw.gpu.task=general,", ""},
    {"hw.gpu.utilization", "1", G, "hw.gpu.task=encoder,", ""},
    {"hw.gpu.utilization", "1", G, "hw.gpu.task=decoder,", ""},
    {"hw.gpu.memory.controller.utilization", "1", G, "", ""},
    {"hw.gpu.memory.usage", "By", G, "", ""},
    {"hw.gpu.memory.limit", "By", G, "", ""},
    {"hw.gpu.memory.utilization", "1", G, "", ""},
    {"hw.temperature", "Cel", G, "", ""},
    {"hw.power", "W", G, "", ""},
    {"hw.power.limit", "W", G, "", ""},
    {"hw.energy", "J", C, "", ""},
    {"hw.fan.speed_ratio", "1", G, "", ""},
    {"hw.gpu.clock.frequency", "Hz", G, "hw.gpu.clock=graphics,", ""},
    {"hw.gpu.clock.frequency", "Hz", G, "hw.gpu.clock=sm,", ""},
    {"hw.gpu.clock.frequency", "Hz", G, "hw.gpu.clock=memory,", ""},
    {"hw.gpu.clock.frequency", "Hz", G, "hw.gpu.clock=video,", ""},
    {"hw.errors", "{error}", C, "error.type=corrected,", ""},
    {"hw.errors", "{error}", C, "error.type=uncorrected,", ""},
    {"hw.gpu.io", "By", C, "", ",network.io.direction=receive"},
    {"hw.gpu.io", "By", C, "", ",network.io.direction=transmit"},
    {"hw.gpu.process.count", "{process}", G, "", ""},
    {"hw.gpu.throttled", "1", G, "hw.gpu.throttle.reason=power_cap,", ""},
    {"hw.gpu.throttled", "1", G, "hw.gpu.throttle.reason=hardware,", ""},
    {"hw.gpu.throttled", "1", G, "hw.gpu.throttle.reason=thermal_software,", ""},
    {"hw.gpu.throttled", "1", G, "hw.gpu.throttle.reason=thermal_hardware,", ""},
    {"hw.gpu.throttled", "1", G, "hw.gpu.throttle.reason=power_brake,", ""},
};

SeriesInfo describe(const SeriesText& text, const std::string& device) {
    return {text.name, text.unit, text.kind, text.before + device + text.after};
}

std::string device_attributes(std::string_view id, std::string_view name, const char* vendor) {
    std::string out = "hw.id=" + attribute_value(id);
    if (!name.empty()) out += ",hw.name=" + attribute_value(name);
    return out + ",hw.type=gpu,hw.vendor=" + vendor;
}

// --- Files of one card, in sysfs -------------------------------------------------------------------------------------

// A file of one number: where, what it is, and the largest value that can be true.
struct CardFile {
    const char* path;
    const char* name;
    const char* unit;
    Kind kind;
    double scale;
    double most;
    const char* before;
};
constexpr CardFile kCardFiles[] = {
    {"device/gpu_busy_percent", "hw.gpu.utilization", "1", G, 0.01, 1, "hw.gpu.task=general,"},
    {"device/mem_busy_percent", "hw.gpu.memory.controller.utilization", "1", G, 0.01, 1, ""},
};
constexpr CardFile kVramUsed{"device/mem_info_vram_used", "hw.gpu.memory.usage", "By", G, 1, 1e15, ""};
constexpr CardFile kVramTotal{"device/mem_info_vram_total", "hw.gpu.memory.limit", "By", G, 1, 1e15, ""};
// Of a hwmon folder of the card.
constexpr CardFile kHwmonClocks[] = {
    {"freq1_input", "hw.gpu.clock.frequency", "Hz", G, 1, 1e11, "hw.gpu.clock=graphics,"},
    {"freq2_input", "hw.gpu.clock.frequency", "Hz", G, 1, 1e11, "hw.gpu.clock=memory,"},
};
// Of one graphics unit ("gt") of an Intel card: i915's names, then xe's. `before` is made from the unit's name.
constexpr CardFile kUnitFiles[] = {
    {"rps_act_freq_mhz", "hw.gpu.clock.frequency", "Hz", G, 1e6, 1e11, ""},
    {"rc6_residency_ms", "hw.gpu.idle_time", "s", C, 1e-3, 1e12, ""},
    {"throttle_reason_status", "hw.gpu.throttled", "1", G, 1, 1, ""},
    {"freq0/act_freq", "hw.gpu.clock.frequency", "Hz", G, 1e6, 1e11, ""},
    {"gtidle/idle_residency_ms", "hw.gpu.idle_time", "s", C, 1e-3, 1e12, ""},
    {"freq0/throttle/status", "hw.gpu.throttled", "1", G, 1, 1, ""},
};

const char* vendor_of(std::string_view id) noexcept {
    if (id == "0x1002") return "AMD";
    if (id == "0x8086") return "Intel";
    return id == "0x10de" ? "NVIDIA" : "other";
}

bool card_name(std::string_view name) noexcept {  // "card0", not its connectors "card0-DP-1"
    return name.starts_with("card") && name.size() > 4 &&
           name.substr(4).find_first_not_of("0123456789") == std::string_view::npos;
}

class Card {
public:
    Card(const Io& io, const std::string& folder, const std::string& name) : io_(&io) {
        const std::string vendor = read_value(io, folder + "/device/vendor").value_or("");
        const std::string uevent = read_value(io, folder + "/device/uevent").value_or("");
        const std::string_view slot = parse_pci_slot(uevent);
        const std::string id = slot.empty() ? name : std::string(slot);
        const std::string product = read_value(io, folder + "/device/product_name").value_or("");
        const std::string& shown = product.empty() ? name : product;
        attributes_ = device_attributes(id, shown, vendor_of(vendor));
        asleep_ = folder + "/device/power/runtime_status";
        for (const CardFile& file : kCardFiles) add(file, folder + "/" + file.path, file.before);
        used_ = folder + "/" + kVramUsed.path;
        total_ = folder + "/" + kVramTotal.path;
        if (!file_exists(io, used_)) used_.clear();
        errors_ = folder + "/device/ras/umc_err_count";
        if (!file_exists(io, errors_)) errors_.clear();
        add_units(folder + "/gt", "gt");
        for (const std::string& tile : folders(folder + "/device", "tile")) {
            add_units(folder + "/device/" + tile, tile == "tile0" ? "gt" : tile + "/gt");
        }
        for (const std::string& chip : folders(folder + "/device/hwmon", "hwmon")) {
            const std::string path = folder + "/device/hwmon/" + chip;
            chips_.push_back(HwmonChip(io, path, {id, shown, "gpu", false}));
            for (const CardFile& clock : kHwmonClocks) add(clock, path + "/" + clock.path, clock.before);
        }
    }

    // Whether there is anything to read of it: a card of a virtual machine has nothing.
    [[nodiscard]] bool speaks() const {
        const auto sensing = [](const HwmonChip& chip) { return chip.sensors() > 0; };
        return !files_.empty() || !used_.empty() || !errors_.empty() ||
               std::any_of(chips_.begin(), chips_.end(), sensing);
    }
    [[nodiscard]] const std::string& attributes() const noexcept { return attributes_; }
    [[nodiscard]] bool same_as(const Card& other) const {
        return attributes_ == other.attributes_ &&
               std::equal(files_.begin(), files_.end(), other.files_.begin(), other.files_.end(),
                          [](const File& a, const File& b) { return a.path == b.path; }) &&
               std::equal(chips_.begin(), chips_.end(), other.chips_.begin(), other.chips_.end(),
                          [](const HwmonChip& a, const HwmonChip& b) { return a.same_as(b); });
    }

    void poll(Emit& emit, PollReport& report) {
        SmallText status;
        if (read_small(*io_, asleep_, status) == 0 && status.view() == "suspended") return;
        for (File& file : files_) {
            double value = 0;
            if (!number(file.path, *file.what, value)) continue;
            file.series.emit(emit, report, value, [&] {
                const CardFile& what = *file.what;
                return SeriesInfo{what.name, what.unit, what.kind, file.before + attributes_};
            });
        }
        emit_memory(emit, report);
        emit_errors(emit, report);
        for (HwmonChip& chip : chips_) chip.poll(emit, report);
    }

    void close(Emit& emit) {
        for (File& file : files_) file.series.close(emit);
        for (SeriesSlot& slot : memory_) slot.close(emit);
        for (SeriesSlot& slot : faults_) slot.close(emit);
        for (HwmonChip& chip : chips_) chip.close(emit);
    }

private:
    struct File {
        const CardFile* what;
        std::string path;
        std::string before;
        SeriesSlot series;
    };

    [[nodiscard]] std::vector<std::string> folders(const std::string& path, const char* prefix) const {
        constexpr std::size_t kMost = 16;
        std::vector<std::string> names;
        if (!list_folder(*io_, path, "sys/class/drm", names)) names.clear();
        std::erase_if(names, [&](const std::string& name) { return !name.starts_with(prefix); });
        if (names.size() > kMost) names.resize(kMost);
        return names;
    }
    void add(const CardFile& what, const std::string& path, const std::string& before) {
        if (file_exists(*io_, path)) files_.push_back({&what, path, before, {}});
    }
    // The units in `folder`; their clock domain is `prefix` and their number.
    void add_units(const std::string& folder, const std::string& prefix) {
        for (const std::string& unit : folders(folder, "gt")) {
            const std::string domain = "hw.gpu.clock=" + attribute_value(prefix + unit.substr(2)) + ",";
            for (const CardFile& file : kUnitFiles) {
                const bool throttle = std::string_view(file.name) == "hw.gpu.throttled";
                add(file, folder + "/" + unit + "/" + file.path,
                    throttle ? domain + "hw.gpu.throttle.reason=any," : domain);
            }
        }
    }

    [[nodiscard]] bool number(const std::string& path, const CardFile& what, double& out) const noexcept {
        const auto raw = read_unsigned(*io_, path);
        if (!raw) return false;
        out = static_cast<double>(*raw) * what.scale;
        return out <= what.most;
    }

    void emit_memory(Emit& emit, PollReport& report) {
        double used = 0;
        double total = 0;
        if (used_.empty() || !number(used_, kVramUsed, used) || !number(total_, kVramTotal, total)) return;
        if (total <= 0 || used > total) return;
        const std::array<double, 3> values{used, total, used / total};
        for (std::size_t i = 0; i < values.size(); ++i) {
            memory_[i].emit(emit, report, values[i], [&] {
                return describe(kNvmlText[kNvmlMemoryUsed + i], attributes_);
            });
        }
    }

    void emit_errors(Emit& emit, PollReport& report) {
        if (errors_.empty()) return;
        SmallText text;
        RasCounts counts;
        if (read_small(*io_, errors_, text) != 0) return;
        if (!parse_ras_counts(text.view(), counts)) {
            ++report.malformed;
            return;
        }
        const std::array<std::uint64_t, 2> values{counts.corrected, counts.uncorrected};
        for (std::size_t i = 0; i < values.size(); ++i) {
            faults_[i].emit(emit, report, static_cast<double>(values[i]), [&] {
                return describe(kNvmlText[kNvmlCorrected + i], attributes_);
            });
        }
    }

    const Io* io_;
    std::string attributes_;
    std::string asleep_;
    std::string used_;
    std::string total_;
    std::string errors_;
    std::vector<File> files_;
    std::vector<HwmonChip> chips_;
    std::array<SeriesSlot, 3> memory_;
    std::array<SeriesSlot, 2> faults_;
};

}  // namespace

bool parse_ras_counts(std::string_view text, RasCounts& out) noexcept {
    bool uncorrected = false;
    bool corrected = false;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        Scanner line(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        const std::string_view key = line.word();
        if (key == "ue:" && !uncorrected) {
            uncorrected = line.number(out.uncorrected);
        } else if (key == "ce:" && !corrected) {
            corrected = line.number(out.corrected);
        }
    }
    return uncorrected && corrected;
}

std::string_view parse_pci_slot(std::string_view uevent) noexcept {
    constexpr std::string_view kKey = "PCI_SLOT_NAME=";
    constexpr std::size_t kMaxBytes = 32;
    while (!uevent.empty()) {
        const std::size_t end = std::min(uevent.find('\n'), uevent.size());
        const std::string_view line = uevent.substr(0, end);
        if (line.starts_with(kKey) && line.size() <= kKey.size() + kMaxBytes) return line.substr(kKey.size());
        uevent.remove_prefix(std::min(end + 1, uevent.size()));
    }
    return {};
}

namespace {

class GpuSource final : public Source {
public:
    GpuSource(const Roots& roots, const Io& io, const GpuSetup& setup)
        : io_(&io), folder_(roots.sys + "/class/drm"), patience_(setup.patience) {}

    [[nodiscard]] Result<bool> open(const GpuSetup& setup) {
        scan(nullptr);
        const Error none{Errc::unavailable, ENOENT, "sys/class/drm and libnvidia-ml.so.1: no card that tells"};
        Error why = none;
        if (!setup.library.empty() && !Nvml::stuck()) {
            nvml_.emplace(setup.library, setup.start_again);
            const auto ready = nvml_->ready(setup.start_patience);
            if (ready) return true;  // also one that is still starting: poll() will tell
            why = ready.error();
            nvml_.reset();
        } else if (!setup.library.empty()) {
            why = {Errc::io, ETIMEDOUT, "libnvidia-ml.so.1: an earlier call has not come back"};
        }
        if (!cards_.empty()) return true;
        return why;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        if (folder_mark(*io_, folder_) != mark_) scan(&emit);
        for (Card& card : cards_) card.poll(emit, report);
        if (!nvml_) return report;
        if (skips_ > 0) {
            --skips_;
            return report;
        }
        const auto read = nvml_->read(patience_, reading_);
        if (read) {
            next_skips_ = 1;
            emit_nvml(emit, report);
            return report;
        }
        if (read.error().sys_errno == ETIMEDOUT) {
            skips_ = next_skips_;
            next_skips_ = std::min(next_skips_ * 2, kMaxSkips);
        }
        if (report.emitted > 0) return report;  // the other cards are seen
        return read.error();
    }

private:
    void scan(Emit* emit) {
        mark_ = folder_mark(*io_, folder_);
        std::vector<std::string> names;
        std::vector<Card> found;
        if (!list_folder(*io_, folder_, "sys/class/drm", names)) names.clear();
        for (const std::string& name : names) {
            if (!card_name(name) || found.size() >= kMaxCards) continue;
            Card card(*io_, folder_ + "/" + name, name);
            const bool twice = std::any_of(found.begin(), found.end(), [&](const Card& other) {
                return other.attributes() == card.attributes();
            });
            if (card.speaks() && !twice) found.push_back(std::move(card));
        }
        for (Card& fresh : found) {  // a card that is still there keeps its series
            const auto old = std::find_if(cards_.begin(), cards_.end(),
                                          [&](const Card& card) { return card.same_as(fresh); });
            if (old == cards_.end()) continue;
            fresh = std::move(*old);
            cards_.erase(old);
        }
        for (Card& gone : cards_) {
            if (emit != nullptr) gone.close(*emit);
        }
        cards_ = std::move(found);
    }

    void emit_nvml(Emit& emit, PollReport& report) {
        if (reading_.generation != generation_) {
            for (auto& device : slots_) {
                for (SeriesSlot& slot : device) slot.close(emit);
            }
            slots_.resize(reading_.count);
            generation_ = reading_.generation;
        }
        for (std::size_t i = 0; i < reading_.count; ++i) {
            const NvmlDevice& device = reading_.devices[i];
            for (std::size_t value = 0; value < kNvmlValues; ++value) {
                if (device.values[value] != device.values[value]) continue;
                slots_[i][value].emit(emit, report, device.values[value], [&] {
                    return describe(kNvmlText[value],
                                    device_attributes(device.id.data(), device.name.data(), "NVIDIA"));
                });
            }
        }
    }

    const Io* io_;
    std::string folder_;
    std::uint64_t mark_ = 0;
    std::vector<Card> cards_;

    std::optional<Nvml> nvml_;
    std::chrono::milliseconds patience_;
    NvmlReading reading_;
    std::uint64_t generation_ = 0;
    std::vector<std::array<SeriesSlot, kNvmlValues>> slots_;
    std::uint32_t skips_ = 0;       // polls that do not ask
    std::uint32_t next_skips_ = 1;  // after the next answer that does not come
};

Result<std::unique_ptr<Source>> open_live_gpu(const Roots& roots, const Io& io, const SourceSettings&) {
    GpuSetup setup;
    if (!roots.live()) setup.library.clear();  // it would speak of this machine, not of the one in the roots
    return open_gpu(roots, io, setup);
}

}  // namespace

Result<std::unique_ptr<Source>> open_gpu(const Roots& roots, const Io& io, const GpuSetup& setup) {
    auto source = std::make_unique<GpuSource>(roots, io, setup);
    if (const auto opened = source->open(setup); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

extern const SourceDescriptor gpu_source;
const SourceDescriptor gpu_source{
    "gpu",
    "Load, memory, temperature, power, clocks and errors of GPUs, from NVIDIA's libnvidia-ml.so.1 and /sys/class/drm.",
    "a GPU: NVIDIA with its driver's libnvidia-ml.so.1, AMD with amdgpu, Intel with i915 or xe",
    "load the card's driver; in a container, give it the card and, for NVIDIA, the driver's libraries",
    5'000,
    Lane::slow,
    open_live_gpu,
};

}  // namespace argus::sources
