// Swap devices one by one, and memory saved by merging equal pages.
// Source: /proc/swaps; man proc_swaps(5). /sys/kernel/mm/ksm/*; kernel Documentation/admin-guide/mm/ksm.rst.
// Emits:  system.paging.usage, .limit (By) and .utilization by system.device; system.memory.linux.ksm.* (By) and
//         .ksm.scans. The sums over all devices are the memory source's.
// Cost:   one pread, and five of one number each; nothing of it changes fast: slow lane. Both absent:
//         Errc::unavailable; one of them: its series are missing. A device that is swapped off closes its series. At
//         most 64 devices.
#include "sources/paging.hpp"

#include <unistd.h>

#include <array>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sources/escapes.hpp"
#include "sources/kernel_file.hpp"
#include "sources/number_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::uint64_t kKib = 1024;
constexpr std::size_t kMaxSwaps = 64;  // the kernel allows fewer than 32

struct KsmSeries {
    const char* file;
    const char* what;
    const char* name;
    const char* unit;
    Kind kind;
};
constexpr KsmSeries kKsm[] = {
    {"pages_shared", "sys/kernel/mm/ksm/pages_shared", "system.memory.linux.ksm.shared", "By", Kind::gauge},
    {"pages_sharing", "sys/kernel/mm/ksm/pages_sharing", "system.memory.linux.ksm.sharing", "By", Kind::gauge},
    {"pages_unshared", "sys/kernel/mm/ksm/pages_unshared", "system.memory.linux.ksm.unshared", "By", Kind::gauge},
    {"pages_volatile", "sys/kernel/mm/ksm/pages_volatile", "system.memory.linux.ksm.volatile", "By", Kind::gauge},
    {"full_scans", "sys/kernel/mm/ksm/full_scans", "system.memory.linux.ksm.scans", "{scan}", Kind::counter},
};

struct Swap {
    std::string file;  // as escaped by the kernel
    std::array<SeriesSlot, 4> series;
    std::uint64_t seen = 0;  // the poll that last saw it
};

}  // namespace

Result<SwapLine> parse_swap(std::string_view line) {
    constexpr Error kMalformed{Errc::malformed, 0, "proc/swaps: expected a file, a type and how many KiB of how many"};
    SwapLine out;
    Scanner scanner(line);
    out.file = scanner.word();
    const std::string_view type = scanner.word();
    if (out.file.empty() || type.empty()) return kMalformed;
    if (!scanner.number(out.size_bytes) || !scanner.number(out.used_bytes)) return kMalformed;
    if (out.used_bytes > out.size_bytes || out.size_bytes > std::numeric_limits<std::uint64_t>::max() / kKib) {
        return kMalformed;
    }
    out.size_bytes *= kKib;
    out.used_bytes *= kKib;
    return out;
}

namespace {

class PagingSource final : public Source {
public:
    PagingSource(const Roots& roots, const Io& io) : swaps_(io, roots.proc + "/swaps", "proc/swaps") {
        const long page = ::sysconf(_SC_PAGESIZE);
        page_bytes_ = page > 0 ? static_cast<double>(page) : 4096.0;
        for (std::size_t i = 0; i < std::size(kKsm); ++i) {
            ksm_[i] = std::make_unique<KernelFile>(io, roots.sys + "/kernel/mm/ksm/" + kKsm[i].file, kKsm[i].what);
        }
    }

    [[nodiscard]] Result<bool> open() {
        const auto swaps = swaps_.open();
        if (swaps || swaps.error().code != Errc::unavailable) return swaps;
        return ksm_[0]->open() ? Result<bool>(true) : swaps;
    }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = swaps_.read();
        if (text) {
            if (const Error error = emit_swaps(*text, emit, report); error.code != Errc::ok) return error;
        } else if (text.error().code != Errc::unavailable) {
            return text.error();
        }
        emit_ksm(emit, report);
        return report;
    }

private:
    [[nodiscard]] Error emit_swaps(std::string_view text, Emit& emit, PollReport& report) {
        Scanner scanner(text);
        std::string_view line;
        if (!scanner.line(line) || !line.starts_with("Filename")) {
            return {Errc::truncated, 0, "proc/swaps: expected its title line"};
        }
        ++polls_;
        while (scanner.line(line)) {
            const auto parsed = parse_swap(line);
            Swap* swap = parsed ? find(parsed.value().file) : nullptr;
            if (swap == nullptr) {
                ++report.malformed;
                continue;
            }
            emit_swap(*swap, parsed.value(), emit, report);
        }
        if (!scanner.done()) {  // whom the cut took away is unknown: nothing is closed
            ++report.malformed;
            return {};
        }
        std::erase_if(swap_list_, [&](Swap& swap) {
            if (swap.seen == polls_) return false;
            for (SeriesSlot& series : swap.series) series.close(emit);
            return true;
        });
        return {};
    }

    // nullptr = seen in this poll already, or more than there can be.
    Swap* find(std::string_view file) {
        Swap* found = nullptr;
        for (Swap& swap : swap_list_) {
            if (swap.file == file) found = &swap;
        }
        if (found == nullptr) {
            if (swap_list_.size() >= kMaxSwaps) return nullptr;
            found = &swap_list_.emplace_back();
            found->file = file;
        }
        if (found->seen == polls_) return nullptr;
        found->seen = polls_;
        return found;
    }

    static void emit_swap(Swap& swap, const SwapLine& line, Emit& emit, PollReport& report) {
        const auto size = static_cast<double>(line.size_bytes);
        const auto used = static_cast<double>(line.used_bytes);
        const auto put = [&](std::size_t slot, const char* name, const char* unit, const char* state, double value) {
            swap.series[slot].emit(emit, report, value, [&] {
                std::string attributes = "system.device=" + attribute_value(octal_unescaped(swap.file));
                if (*state != '\0') attributes += std::string(",system.paging.state=") + state;
                return SeriesInfo{name, unit, Kind::gauge, attributes};
            });
        };
        put(0, "system.paging.usage", "By", "used", used);
        put(1, "system.paging.usage", "By", "free", size - used);
        put(2, "system.paging.limit", "By", "", size);
        if (size > 0) put(3, "system.paging.utilization", "1", "", used / size);
    }

    void emit_ksm(Emit& emit, PollReport& report) {
        for (std::size_t i = 0; i < std::size(kKsm); ++i) {
            const auto text = ksm_[i]->read();
            if (!text && text.error().code == Errc::unavailable) continue;
            const auto value = text ? parse_number_line(*text) : std::nullopt;
            if (!value) {
                ++report.malformed;
                continue;
            }
            const double scale = kKsm[i].kind == Kind::gauge ? page_bytes_ : 1.0;
            ksm_series_[i].emit(emit, report, static_cast<double>(*value) * scale,
                                [&] { return SeriesInfo{kKsm[i].name, kKsm[i].unit, kKsm[i].kind, ""}; });
        }
    }

    KernelFile swaps_;
    std::array<std::unique_ptr<KernelFile>, std::size(kKsm)> ksm_;
    std::array<SeriesSlot, std::size(kKsm)> ksm_series_;
    std::vector<Swap> swap_list_;
    double page_bytes_ = 4096.0;
    std::uint64_t polls_ = 0;
};

Result<std::unique_ptr<Source>> open_paging(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<PagingSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor paging_source;
const SourceDescriptor paging_source{
    "paging",
    "Swap devices one by one and merged pages, from /proc/swaps and /sys/kernel/mm/ksm.",
    "CONFIG_SWAP for /proc/swaps, or CONFIG_KSM for /sys/kernel/mm/ksm",
    "nothing to do on a kernel built without swap and merging; else mount procfs and sysfs, or point the roots there",
    10000,
    Lane::slow,
    open_paging,
};

}  // namespace argus::sources
