// What lies between disks and file systems: software RAID, compressed RAM disks, the state of SCSI and NVMe devices,
// and errors that ext4 found in itself.
// Source: /proc/mdstat (kernel drivers/md/md.c md_seq_show, Documentation/admin-guide/md.rst);
//         /sys/block/zram*/{mm_stat,initstate} (admin-guide/blockdev/zram.rst); /sys/block/*/device/{state,ioerr_cnt}
//         (drivers/scsi/scsi_sysfs.c, drivers/nvme/host/sysfs.c); /sys/fs/ext4/*/errors_count (Documentation/ABI/
//         testing/sysfs-fs-ext4).
// Emits:  system.md.{disks,degraded,up,sync.progress}, system.zram.{original,compressed,memory} (By),
//         system.disk.online, system.disk.errors and system.filesystem.errors (counters), all by system.device.
// Cost:   two folders, one pread a file: slow lane. A machine has few of these or none, which is not a fault; neither
//         /proc/mdstat nor /sys/block: Errc::unavailable. A device that vanishes closes its series. At most 256 arrays
//         and 1,024 devices.
// No bench: what there is to read differs from machine to machine, and is nothing on many
#include "sources/storage.hpp"

#include <algorithm>
#include <memory>
#include <string>

#include "sources/kernel_file.hpp"
#include "sources/number_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMaxDevices = 1024;
constexpr std::size_t kMaxNameBytes = 64;

bool blank(char c) noexcept { return c == ' ' || c == '\t'; }
bool digit(char c) noexcept { return c >= '0' && c <= '9'; }

// Decimal digits at the front of `text`, which are taken from it; bounded far above any number of disks or sectors.
std::optional<std::uint64_t> take_number(std::string_view& text) noexcept {
    std::uint64_t value = 0;
    std::size_t size = 0;
    while (size < text.size() && digit(text[size])) {
        if (size == 18) return std::nullopt;
        value = value * 10 + static_cast<std::uint64_t>(text[size++] - '0');
    }
    if (size == 0) return std::nullopt;
    text.remove_prefix(size);
    return value;
}

bool take(std::string_view& text, char expected) noexcept {
    if (text.empty() || text.front() != expected) return false;
    text.remove_prefix(1);
    return true;
}

// "md0 : active (auto-read-only) raid1 sdb1[1](S) sda1[0]"
bool parse_head(std::string_view line, MdArray& out) {
    Scanner words(line);
    out.name = words.word();
    if (out.name.empty() || out.name.size() > kMaxNameBytes || words.word() != ":") return false;
    const std::string_view state = words.word();
    if (state != "active" && state != "inactive" && state != "broken") return false;
    out.up = state == "active";
    for (std::string_view word = words.word(); !word.empty(); word = words.word()) {
        const std::size_t bracket = word.find('[');
        if (bracket == std::string_view::npos) continue;  // (read-only), the personality
        const std::string_view flags = word.substr(std::min(word.find(']', bracket), word.size()));
        const auto has = [&](std::string_view flag) { return flags.find(flag) != std::string_view::npos; };
        if (has("(F)")) {
            ++out.failed;
        } else if (has("(S)")) {
            ++out.spare;
        } else if (!has("(J)") && out.up) {
            ++out.active;  // right for raid0 and linear; the others say themselves how many are in sync
        }
    }
    return true;
}

// "[3/2] [UU_]" anywhere in the line: made for three, two in sync. False only when it contradicts itself.
bool parse_members(std::string_view line, MdArray& out) {
    for (std::size_t at = line.find('['); at != std::string_view::npos; at = line.find('[', at + 1)) {
        std::string_view rest = line.substr(at + 1);
        const auto wanted = take_number(rest);
        if (!wanted || !take(rest, '/')) continue;
        const auto in_sync = take_number(rest);
        if (!in_sync || !rest.starts_with("] [")) continue;
        rest.remove_prefix(3);
        const std::string_view map = rest.substr(0, std::min(rest.find(']'), rest.size()));
        if (map.find_first_not_of("U_") != std::string_view::npos) continue;
        if (*in_sync > *wanted || *wanted > 65'536) return false;
        out.active = static_cast<std::uint32_t>(*in_sync);
        out.degraded = static_cast<std::uint32_t>(*wanted - *in_sync);
        out.down = static_cast<std::uint32_t>(std::count(map.begin(), map.end(), '_'));
        return true;
    }
    return true;
}

// "[=>....]  recovery = 12.6% (37043392/292945152) finish=127.5min speed=33440K/sec". The share is taken from the two
// counts; "resync=DELAYED" has none and is no progress. False when the counts make no share.
bool parse_sync(std::string_view line, MdArray& out) {
    for (const std::string_view action : {"recovery", "resync", "check", "reshape", "repair"}) {
        const std::size_t at = line.find(action);
        if (at == std::string_view::npos) continue;
        const std::size_t percent = line.find('%', at);
        if (percent == std::string_view::npos) return true;
        const std::size_t open = line.find('(', percent);
        if (open == std::string_view::npos) return false;
        std::string_view rest = line.substr(open + 1);
        const auto done = take_number(rest);
        if (!done || !take(rest, '/')) return false;
        const auto total = take_number(rest);
        if (!total || !take(rest, ')') || *total == 0 || *done > *total) return false;
        out.sync_action = action;
        out.sync_progress = static_cast<double>(*done) / static_cast<double>(*total);
        return true;
    }
    return true;
}

}  // namespace

MdReport parse_mdstat(std::string_view text, std::vector<MdArray>& arrays) {
    MdReport report;
    arrays.clear();
    bool inside = false;  // the lines of an array that was understood
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) {
        report.complete = line.starts_with("unused devices");
        if (line.empty() || report.complete || line.starts_with("Personalities")) {
            inside = false;
        } else if (!blank(line.front())) {
            MdArray array;
            inside = parse_head(line, array) && arrays.size() < kMaxArrays;
            if (inside) {
                arrays.push_back(array);
            } else {
                ++report.malformed;
            }
        } else if (inside) {
            MdArray& array = arrays.back();
            const bool external = line.find("super external:") != std::string_view::npos;
            const bool member = line.find("super external:/") != std::string_view::npos;
            array.container = array.container || (external && !member && !array.up);
            if (!parse_members(line, array) || !parse_sync(line, array)) ++report.malformed;
        }
    }
    if (!report.complete) {
        ++report.malformed;
        if (!arrays.empty()) arrays.pop_back();
    }
    return report;
}

std::optional<std::array<std::uint64_t, 3>> parse_zram(std::string_view text) noexcept {
    std::array<std::uint64_t, 3> out{};
    if (!text.ends_with('\n')) return std::nullopt;
    Scanner scanner(text);
    for (std::uint64_t& value : out) {
        if (!scanner.number(value)) return std::nullopt;
    }
    return out;
}

std::optional<double> parse_device_state(std::string_view text) noexcept {
    if (!text.ends_with('\n')) return std::nullopt;
    text.remove_suffix(1);
    if (text.empty() || text.find_first_not_of("abcdefghijklmnopqrstuvwxyz-") != std::string_view::npos) {
        return std::nullopt;
    }
    return text == "running" || text == "live" ? 1.0 : 0.0;
}

std::optional<std::uint64_t> parse_hexadecimal_line(std::string_view text) noexcept {
    constexpr std::string_view kDigits = "0123456789abcdef";
    if (!text.starts_with("0x") || !text.ends_with('\n') || text.size() < 4 || text.size() > 19) return std::nullopt;
    std::uint64_t value = 0;
    for (const char c : text.substr(2, text.size() - 3)) {
        const std::size_t at = kDigits.find(c);
        if (at == std::string_view::npos) return std::nullopt;
        value = value << 4 | at;
    }
    return value;
}

namespace {

struct Array {
    std::string name;  // raw bytes
    std::array<SeriesSlot, 6> series;
    SeriesSlot progress;
    std::string_view action;  // what `progress` was opened for; static text
    std::uint64_t seen = 0;   // the poll that last saw it
};

// A folder below /sys/block or /sys/fs/ext4 and the files in it that are there.
struct Device {
    std::string name;
    std::unique_ptr<KernelFile> mm_stat, initialized;  // zram
    std::unique_ptr<KernelFile> state, errors;         // SCSI, NVMe; ext4
    std::array<SeriesSlot, 3> series;
};

SeriesInfo describe(const char* name, const char* unit, Kind kind, std::string_view device) {
    return {name, unit, kind, "system.device=" + attribute_value(device)};
}

class StorageSource final : public Source {
public:
    StorageSource(const Roots& roots, const Io& io)
        : io_(&io),
          block_(roots.sys + "/block"),
          ext4_(roots.sys + "/fs/ext4"),
          mdstat_(io, roots.proc + "/mdstat", "proc/mdstat") {
        parsed_.reserve(kMaxArrays);
    }

    [[nodiscard]] Result<bool> open() {
        const auto folder = list_folder(*io_, block_, "sys/block", names_);
        if (folder || folder.error().code != Errc::unavailable) return folder;
        const auto mdstat = mdstat_.open();
        return mdstat || mdstat.error().code != Errc::unavailable ? mdstat : folder;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        if (const auto text = mdstat_.read()) {
            emit_arrays(*text, emit, report);
        } else if (text.error().code != Errc::unavailable) {
            return text.error();
        }
        follow(block_, "sys/block", devices_, emit, report);
        follow(ext4_, "sys/fs/ext4", filesystems_, emit, report);
        for (Device& device : devices_) emit_device(device, emit, report);
        for (Device& device : filesystems_) {
            emit_number(device, "system.filesystem.errors", parse_number_line, emit, report);
        }
        return report;
    }

private:
    // The array at its place; nullptr = its name stands there twice.
    Array* find(std::string_view name) {
        Array* found = nullptr;
        for (Array& array : arrays_) {
            if (array.name == name) found = &array;
        }
        if (found == nullptr) {
            found = &arrays_.emplace_back();
            found->name = name;
        }
        if (found->seen == polls_) return nullptr;
        found->seen = polls_;
        return found;
    }

    void emit_arrays(std::string_view text, Emit& emit, PollReport& report) {
        ++polls_;
        const MdReport md_report = parse_mdstat(text, parsed_);
        report.malformed += md_report.malformed;
        for (const MdArray& md : parsed_) {
            if (md.container) continue;
            Array* array = find(md.name);
            if (array == nullptr) {
                ++report.malformed;
                continue;
            }
            emit_array(*array, md, emit, report);
        }
        if (!md_report.complete) return;  // whom the cut took away is unknown: nothing is closed
        std::erase_if(arrays_, [&](Array& array) {
            if (array.seen == polls_) return false;
            for (SeriesSlot& series : array.series) series.close(emit);
            array.progress.close(emit);
            return true;
        });
    }

    static void emit_array(Array& array, const MdArray& md, Emit& emit, PollReport& report) {
        const auto disks = [&](std::size_t slot, const char* state, std::uint32_t count) {
            array.series[slot].emit(emit, report, count, [&] {
                SeriesInfo info = describe("system.md.disks", "{disk}", Kind::gauge, array.name);
                info.attributes += std::string(",system.md.disk.state=") + state;
                return info;
            });
        };
        disks(0, "active", md.active);
        disks(1, "failed", md.failed);
        disks(2, "spare", md.spare);
        disks(3, "down", md.down);
        array.series[4].emit(emit, report, md.degraded, [&] {
            return describe("system.md.degraded", "{disk}", Kind::gauge, array.name);
        });
        array.series[5].emit(emit, report, md.up ? 1 : 0,
                             [&] { return describe("system.md.up", "1", Kind::gauge, array.name); });
        if (md.sync_action != array.action) array.progress.close(emit);
        array.action = {};
        for (const std::string_view action : {"recovery", "resync", "check", "reshape", "repair"}) {
            if (md.sync_action == action) array.action = action;
        }
        if (array.action.empty()) return;
        array.progress.emit(emit, report, md.sync_progress, [&] {
            SeriesInfo info = describe("system.md.sync.progress", "1", Kind::gauge, array.name);
            info.attributes += ",system.md.sync.action=" + std::string(array.action);
            return info;
        });
    }

    // Makes `devices` those of the folder. Both are sorted by name, so one walk does; a folder that cannot be read says
    // nothing of what was in it, one that is gone took all with it.
    void follow(const std::string& folder, const char* what, std::vector<Device>& devices, Emit& emit,
                PollReport& report) {
        const auto listed = list_folder(*io_, folder, what, names_);
        if (!listed && listed.error().code != Errc::unavailable) {
            ++report.malformed;
            return;
        }
        const auto same = [](const Device& device, const std::string& name) { return device.name == name; };
        if (std::equal(devices.begin(), devices.end(), names_.begin(), names_.end(), same)) return;
        if (names_.size() > kMaxDevices) {
            report.malformed += static_cast<std::uint32_t>(names_.size() - kMaxDevices);
            names_.resize(kMaxDevices);
        }
        std::erase_if(devices, [&](Device& device) {
            if (std::binary_search(names_.begin(), names_.end(), device.name)) return false;
            for (SeriesSlot& series : device.series) series.close(emit);
            return true;
        });
        const std::size_t kept = devices.size();
        for (const std::string& name : names_) {
            const auto end = devices.begin() + static_cast<std::ptrdiff_t>(kept);
            const auto before = [](const Device& device, const std::string& other) { return device.name < other; };
            const auto at = std::lower_bound(devices.begin(), end, name, before);
            if (at == end || at->name != name) devices.push_back(adopt(folder, name));
        }
        std::sort(devices.begin(), devices.end(), [](const Device& a, const Device& b) { return a.name < b.name; });
    }

    [[nodiscard]] Device adopt(const std::string& folder, const std::string& name) const {
        Device device;
        device.name = name;
        const auto file = [&](const char* in, const char* what) -> std::unique_ptr<KernelFile> {
            auto made = std::make_unique<KernelFile>(*io_, folder + "/" + name + "/" + in, what, kFileBytes);
            if (!made->open()) made.reset();
            return made;
        };
        if (&folder == &ext4_) {
            device.errors = file("errors_count", "sys/fs/ext4/*/errors_count");
        } else if (name.starts_with("zram")) {
            device.mm_stat = file("mm_stat", "sys/block/zram*/mm_stat");
            device.initialized = file("initstate", "sys/block/zram*/initstate");
        } else {
            device.state = file("device/state", "sys/block/*/device/state");
            device.errors = file("device/ioerr_cnt", "sys/block/*/device/ioerr_cnt");
        }
        return device;
    }

    // What `parse` makes of the file; nothing, and a malformed file counted, when it makes nothing of it. A device that
    // goes away between the folder and the read is absent, not malformed.
    template <class Parse>
    static auto read(KernelFile* file, Parse parse, PollReport& report) -> decltype(parse(std::string_view{})) {
        if (file == nullptr) return std::nullopt;
        const auto text = file->read();
        if (!text && text.error().code == Errc::unavailable) return std::nullopt;
        auto parsed = text ? parse(*text) : std::nullopt;
        if (!parsed) ++report.malformed;
        return parsed;
    }

    static void emit_device(Device& device, Emit& emit, PollReport& report) {
        if (device.mm_stat != nullptr) {
            emit_zram(device, emit, report);
            return;
        }
        if (const auto online = read(device.state.get(), parse_device_state, report)) {
            device.series[0].emit(emit, report, *online,
                                  [&] { return describe("system.disk.online", "1", Kind::gauge, device.name); });
        }
        emit_number(device, "system.disk.errors", parse_hexadecimal_line, emit, report);
    }

    template <class Parse>
    static void emit_number(Device& device, const char* name, Parse parse, Emit& emit, PollReport& report) {
        const auto errors = read(device.errors.get(), parse, report);
        if (!errors) return;
        device.series[1].emit(emit, report, static_cast<double>(*errors),
                              [&] { return describe(name, "{error}", Kind::counter, device.name); });
    }

    // A zram that was never given a size reads as zeros, which are no measurement.
    static void emit_zram(Device& device, Emit& emit, PollReport& report) {
        if (device.initialized != nullptr && read(device.initialized.get(), parse_number_line, report) != 1U) return;
        const auto bytes = read(device.mm_stat.get(), parse_zram, report);
        if (!bytes) return;
        constexpr const char* kNames[] = {"system.zram.original", "system.zram.compressed", "system.zram.memory"};
        for (std::size_t i = 0; i < std::size(kNames); ++i) {
            device.series[i].emit(emit, report, static_cast<double>((*bytes)[i]),
                                  [&] { return describe(kNames[i], "By", Kind::gauge, device.name); });
        }
    }

    static constexpr std::size_t kFileBytes = 512;

    const Io* io_;
    std::string block_;
    std::string ext4_;
    KernelFile mdstat_;
    std::vector<MdArray> parsed_;
    std::vector<Array> arrays_;
    std::vector<Device> devices_;
    std::vector<Device> filesystems_;
    std::vector<std::string> names_;
    std::uint64_t polls_ = 0;
};

Result<std::unique_ptr<Source>> open_storage(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<StorageSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor storage_source;
const SourceDescriptor storage_source{
    "storage",
    "RAID arrays, compressed RAM disks, state and errors of SCSI, NVMe and ext4, from /proc/mdstat and /sys.",
    "a mounted /sys with /sys/block, or /proc/mdstat",
    "mount sysfs, or point `sys` at the host's",
    10000,
    Lane::slow,
    open_storage,
};

}  // namespace argus::sources
