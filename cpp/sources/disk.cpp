// Traffic, operations, time and capacity of each disk.
// Source: /proc/diskstats; kernel Documentation/admin-guide/iostats.rst. /sys/class/block/<name>/{size,partition}. Both
//         count sectors of 512 bytes whatever the device's own are.
// Emits:  system.disk.io (By), .operations, .merged, .operation_time (s) by disk.io.direction and system.device;
//         .io_time, .weighted_io_time (s); .inflight; .limit (By); .discard.* since Linux 4.18, .flush.* since 5.5. Raw
//         counters: the times are 32-bit milliseconds and wrap.
// Which:  whole disks, device mapper and md; partitions only with the option `partitions`; loop, ram, zram, nbd, fd and
//         sr devices from their first operation on; at most 256, those beyond are counted as malformed.
// Cost:   one pread, and the size of one disk in turn. Absent file: Errc::unavailable. A disk that vanishes closes its
//         series, one that appears opens new ones.
#include "sources/disk.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "sources/kernel_file.hpp"
#include "sources/number_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/sysfs.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr double kSectorBytes = 512.0;
constexpr double kPerSecond = 1000.0;  // the kernel counts milliseconds
constexpr std::size_t kInflight = 8;
constexpr std::uint64_t kMaxInflight = std::numeric_limits<std::int32_t>::max();  // above: a count below 0, printed so

enum class Scale : std::uint8_t { one, sectors, milliseconds };

struct DiskSeries {
    const char* name;
    const char* unit;
    const char* direction;  // nullptr = none
    Scale scale;
};
constexpr DiskSeries kDiskSeries[kDiskFields] = {
    {"system.disk.operations", "{operation}", "read", Scale::one},
    {"system.disk.merged", "{operation}", "read", Scale::one},
    {"system.disk.io", "By", "read", Scale::sectors},
    {"system.disk.operation_time", "s", "read", Scale::milliseconds},
    {"system.disk.operations", "{operation}", "write", Scale::one},
    {"system.disk.merged", "{operation}", "write", Scale::one},
    {"system.disk.io", "By", "write", Scale::sectors},
    {"system.disk.operation_time", "s", "write", Scale::milliseconds},
    {"system.disk.inflight", "{operation}", nullptr, Scale::one},
    {"system.disk.io_time", "s", nullptr, Scale::milliseconds},
    {"system.disk.weighted_io_time", "s", nullptr, Scale::milliseconds},
    {"system.disk.discard.operations", "{operation}", nullptr, Scale::one},
    {"system.disk.discard.merged", "{operation}", nullptr, Scale::one},
    {"system.disk.discard.io", "By", nullptr, Scale::sectors},
    {"system.disk.discard.operation_time", "s", nullptr, Scale::milliseconds},
    {"system.disk.flush.operations", "{operation}", nullptr, Scale::one},
    {"system.disk.flush.operation_time", "s", nullptr, Scale::milliseconds},
};

double scaled(std::uint64_t value, Scale scale) noexcept {
    const auto number = static_cast<double>(value);
    switch (scale) {
        case Scale::sectors: return number * kSectorBytes;
        case Scale::milliseconds: return number / kPerSecond;
        default: return number;
    }
}

bool digits(std::string_view text) noexcept {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

Result<DiskLine> parse_disk(std::string_view line) {
    constexpr Error kMalformed{Errc::malformed, 0,
                               "proc/diskstats: expected major, minor, name and 11, 15 or 17 counters"};
    DiskLine out;
    Scanner scanner(line);
    std::uint64_t ignored = 0;
    if (!scanner.number(ignored) || !scanner.number(ignored)) return kMalformed;
    out.name = scanner.word();
    if (out.name.empty() || out.name.size() > kDiskNameBytes) return kMalformed;
    while (out.fields < kDiskFields) {
        scanner.skip_blanks();
        if (scanner.done()) break;
        if (!scanner.number(out.values[out.fields])) return kMalformed;
        ++out.fields;
    }
    if (out.fields != 11 && out.fields != 15 && out.fields != kDiskFields) return kMalformed;
    return out;
}

bool named_as_partition(std::string_view name) noexcept {
    const std::size_t last = name.find_last_not_of("0123456789");
    if (last == std::string_view::npos || last + 1 == name.size()) return false;
    const std::string_view stem = name.substr(0, last + 1);
    if (name.starts_with("nvme") || name.starts_with("mmcblk")) {
        return stem.ends_with('p') && stem.find_last_of("0123456789") == stem.size() - 2;
    }
    for (const std::string_view kind : {"hd", "sd", "vd", "xvd"}) {
        if (!stem.starts_with(kind)) continue;
        const std::string_view letters = stem.substr(kind.size());
        return !letters.empty() && letters.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string_view::npos;
    }
    return false;
}

bool named_as_spare(std::string_view name) noexcept {
    for (const std::string_view kind : {"loop", "ram", "zram", "nbd", "fd", "sr"}) {
        if (name.starts_with(kind) && digits(name.substr(kind.size()))) return true;
    }
    return false;
}

namespace {

enum class Follow : std::uint8_t { never, once_used, always };

struct Disk {
    std::string name;  // raw bytes
    Follow follow = Follow::always;
    std::array<SeriesSlot, kDiskFields> series;
    SeriesSlot limit;
    std::unique_ptr<NumberFile> size;
    double bytes = std::numeric_limits<double>::quiet_NaN();
    std::uint64_t seen = 0;  // the poll that last saw it
    std::string text;        // its line then
    DiskLine line;           // and what it says, but for the name
};

class DiskSource final : public Source {
public:
    DiskSource(const Roots& roots, const Io& io, bool partitions)
        : io_(&io),
          block_(roots.sys + "/class/block/"),
          stats_(io, roots.proc + "/diskstats", "proc/diskstats"),
          partitions_(partitions) {}

    [[nodiscard]] Result<bool> open() { return stats_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = stats_.read();
        if (!text) return text.error();
        if ((*text).empty() && !disks_.empty()) {
            return Error{Errc::truncated, 0, "proc/diskstats: expected the disks it had, found none"};
        }
        ++polls_;
        Scanner scanner(*text);
        std::string_view line;
        std::size_t position = 0;
        while (scanner.line(line)) {
            Disk* disk = unchanged(line, position);
            if (disk == nullptr) disk = parse(line, position);
            if (disk == nullptr) {
                ++report.malformed;
                continue;
            }
            ++position;
            emit_disk(*disk, disk->line, emit, report);
        }
        if (!scanner.done()) {  // whom the cut took away is unknown: nothing is closed
            ++report.malformed;
            return report;
        }
        close_vanished(emit);
        if (!disks_.empty()) read_size(disks_[polls_ % disks_.size()]);
        return report;
    }

private:
    static constexpr std::size_t kMaxLines = 8192;
    static constexpr std::size_t kMaxDisks = 256;
    static constexpr std::size_t kLineBytes = 256;  // of all but huge counters

    // Most disks of most machines (loop devices, partitions) are idle: their lines are not parsed again.
    [[nodiscard]] Disk* unchanged(std::string_view line, std::size_t position) noexcept {
        if (position >= disks_.size()) return nullptr;
        Disk& disk = disks_[position];
        if (disk.seen == polls_ || disk.text != line) return nullptr;
        disk.seen = polls_;
        return &disk;
    }

    [[nodiscard]] Disk* parse(std::string_view line, std::size_t position) {
        const auto parsed = parse_disk(line);
        Disk* disk = parsed ? find(parsed.value().name, position) : nullptr;
        if (disk == nullptr) return nullptr;
        disk->text.assign(line);
        disk->line = parsed.value();
        disk->line.name = {};
        return disk;
    }

    // Disks keep their order, so the one at `position` is nearly always the one; nullptr = seen in this poll already,
    // or more than Argus follows.
    Disk* find(std::string_view name, std::size_t position) {
        Disk* found = nullptr;
        if (position < disks_.size() && disks_[position].name == name) {
            found = &disks_[position];
        } else {
            for (Disk& disk : disks_) {
                if (disk.name == name) found = &disk;
            }
        }
        if (found == nullptr) {
            if (disks_.size() >= kMaxLines) return nullptr;
            found = &disks_.emplace_back();
            found->name = name;
            found->text.reserve(kLineBytes);
            found->follow = wanted(found->name);
        }
        if (found->seen == polls_) return nullptr;
        found->seen = polls_;
        return found;
    }

    // "cciss/c0d0" is the folder "cciss!c0d0": the kernel lets no slash into sysfs.
    [[nodiscard]] std::string folder(std::string_view name) const {
        std::string path = block_;
        for (const char c : name) path += c == '/' ? '!' : c;
        return path;
    }

    [[nodiscard]] Follow wanted(std::string_view name) const {
        if (named_as_spare(name)) return Follow::once_used;
        if (partitions_) return Follow::always;
        const std::string path = folder(name);
        const bool known = read_value(*io_, path + "/size").has_value();
        const bool partition = known ? read_value(*io_, path + "/partition").has_value() : named_as_partition(name);
        return partition ? Follow::never : Follow::always;
    }

    // The first value of a disk that counts: from then on its size is read too.
    [[nodiscard]] bool begin(Disk& disk, PollReport& report) {
        if (followed_ >= kMaxDisks) {
            ++report.malformed;
            return false;
        }
        ++followed_;
        disk.size = std::make_unique<NumberFile>(*io_, folder(disk.name) + "/size", "sys/class/block/*/size");
        read_size(disk);
        return true;
    }

    static void read_size(Disk& disk) {
        if (disk.size == nullptr) return;
        const auto sectors = disk.size->read();
        disk.bytes = sectors ? scaled(*sectors, Scale::sectors) : std::numeric_limits<double>::quiet_NaN();
    }

    void emit_disk(Disk& disk, const DiskLine& line, Emit& emit, PollReport& report) {
        if (disk.follow == Follow::never) return;
        if (disk.follow == Follow::once_used) {
            if (std::all_of(line.values.begin(), line.values.end(), [](std::uint64_t v) { return v == 0; })) return;
            disk.follow = Follow::always;
        }
        if (disk.size == nullptr && !begin(disk, report)) return;
        for (std::size_t i = 0; i < line.fields; ++i) {
            if (i == kInflight && line.values[i] > kMaxInflight) continue;
            disk.series[i].emit(emit, report, scaled(line.values[i], kDiskSeries[i].scale),
                                [&] { return describe(disk, i); });
        }
        if (std::isfinite(disk.bytes)) {
            disk.limit.emit(emit, report, disk.bytes, [&] {
                const std::string attributes = "system.device=" + attribute_value(disk.name);
                return SeriesInfo{"system.disk.limit", "By", Kind::gauge, attributes};
            });
        }
    }

    static SeriesInfo describe(const Disk& disk, std::size_t field) {
        const DiskSeries& row = kDiskSeries[field];
        std::string attributes;
        if (row.direction != nullptr) attributes = std::string("disk.io.direction=") + row.direction + ",";
        attributes += "system.device=" + attribute_value(disk.name);
        return {row.name, row.unit, field == kInflight ? Kind::gauge : Kind::counter, attributes};
    }

    void close_vanished(Emit& emit) {
        std::erase_if(disks_, [&](Disk& disk) {
            if (disk.seen == polls_) return false;
            if (disk.size != nullptr) --followed_;
            for (SeriesSlot& series : disk.series) series.close(emit);
            disk.limit.close(emit);
            return true;
        });
    }

    const Io* io_;
    std::string block_;
    KernelFile stats_;
    bool partitions_;
    std::vector<Disk> disks_;  // one per line, also of those not followed
    std::size_t followed_ = 0;
    std::uint64_t polls_ = 0;
};

constexpr Option kDiskOptions[] = {
    {"partitions", "1", 0, 0, 1, "1 = partitions have series of their own, 0 = whole disks only"},
};

Result<std::unique_ptr<Source>> open_disk(const Roots& roots, const Io& io, const SourceSettings& settings) {
    auto source = std::make_unique<DiskSource>(roots, io, settings.options[0] != 0);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor disk_source;
const SourceDescriptor disk_source{
    "disk",
    "Bytes, operations, time and capacity of each disk, from /proc/diskstats and /sys/class/block.",
    "a mounted /proc with /proc/diskstats (CONFIG_BLOCK, CONFIG_PROC_FS)",
    "mount procfs, or point `proc` at the host's; /proc/diskstats is hidden only by what runs the container",
    1000,
    Lane::fast,
    open_disk,
    kDiskOptions,
};

}  // namespace argus::sources
