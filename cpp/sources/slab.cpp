// Kernel memory by object cache: what a leak in the kernel or a driver looks like.
// Source: /proc/slabinfo; man slabinfo(5). Root alone may read it.
// Emits:  system.memory.linux.slab.cache.usage (By) by system.memory.linux.slab.cache, of the largest `caches`. One
//         that was among them stays until it is empty or no more among twice as many, so that two of like size do not
//         take turns.
// Cost:   about 300 us: the kernel counts every cache under its lock. Slow lane, once a minute. Absent
//         (CONFIG_SLUB_DEBUG off): Errc::unavailable; no permission: Errc::permission.
#include "sources/slab.hpp"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr std::size_t kMaxCaches = 16'384;  // memory cgroups of old kernels had their own copies of each
constexpr std::size_t kNameBytes = 128;

}  // namespace

Result<SlabCache> parse_slab(std::string_view line) {
    constexpr Error kMalformed{Errc::malformed, 0,
                               "proc/slabinfo: expected name, 5 numbers, ': tunables' and 3, ': slabdata' and 3"};
    constexpr std::uint64_t kLimit = std::uint64_t{1} << 31;
    SlabCache out;
    Scanner scanner(line);
    std::uint64_t ignored = 0;
    std::uint64_t pages_each = 0;
    std::uint64_t slabs = 0;
    const auto numbers = [&](int count, std::uint64_t& last) {
        for (int i = 0; i < count; ++i) {
            if (!scanner.number(last)) return false;
        }
        return true;
    };
    out.name = scanner.word();
    if (out.name.empty() || out.name.size() > kNameBytes) return kMalformed;
    if (!numbers(5, pages_each) || scanner.word() != ":" || scanner.word() != "tunables") return kMalformed;
    if (!numbers(3, ignored) || scanner.word() != ":" || scanner.word() != "slabdata") return kMalformed;
    if (!numbers(2, slabs) || !numbers(1, ignored)) return kMalformed;
    if (pages_each >= kLimit || slabs >= kLimit) return kMalformed;
    out.pages = pages_each * slabs;
    return out;
}

namespace {

struct Cache {
    std::string name;  // raw bytes
    SeriesSlot series;
    bool kept = false;  // by the poll going on
};

class SlabSource final : public Source {
public:
    SlabSource(const Roots& roots, const Io& io, std::size_t count)
        : slabinfo_(io, roots.proc + "/slabinfo", "proc/slabinfo"), count_(count) {
        const long page = ::sysconf(_SC_PAGESIZE);
        page_bytes_ = page > 0 ? static_cast<double>(page) : 4096.0;
        followed_.reserve(2 * count + 1);
    }

    [[nodiscard]] Result<bool> open() { return slabinfo_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = slabinfo_.read();
        if (!text) return text.error();
        Scanner scanner(*text);
        std::string_view line;
        if (!scanner.line(line) || !line.starts_with("slabinfo - version: 2.") || !scanner.line(line)) {
            return Error{Errc::malformed, 0, "proc/slabinfo: expected its two title lines, version 2"};
        }
        ranked_.clear();
        while (scanner.line(line)) {
            const auto cache = parse_slab(line);
            if (!cache || ranked_.size() >= kMaxCaches) {
                ++report.malformed;
            } else if (cache.value().pages > 0) {
                ranked_.push_back(cache.value());
            }
        }
        if (!scanner.done()) {  // the largest may be among those cut away
            ++report.malformed;
            return report;
        }
        follow_largest(emit, report);
        return report;
    }

private:
    void follow_largest(Emit& emit, PollReport& report) {
        const std::size_t held = std::min(ranked_.size(), 2 * count_);
        std::partial_sort(ranked_.begin(), ranked_.begin() + static_cast<std::ptrdiff_t>(held), ranked_.end(),
                          [](const SlabCache& a, const SlabCache& b) {
                              return a.pages != b.pages ? a.pages > b.pages : a.name < b.name;
                          });
        for (Cache& cache : followed_) cache.kept = false;
        for (std::size_t rank = 0; rank < held; ++rank) {
            const SlabCache& found = ranked_[rank];
            const auto at = std::find_if(followed_.begin(), followed_.end(),
                                         [&](const Cache& cache) { return cache.name == found.name; });
            if (at != followed_.end()) {
                if (at->kept) ++report.malformed;  // listed twice
                at->kept = true;
            } else if (rank < count_) {
                followed_.push_back({std::string(found.name), {}, true});
            }
        }
        std::erase_if(followed_, [&](Cache& cache) {
            if (!cache.kept) cache.series.close(emit);
            return !cache.kept;
        });
        for (Cache& cache : followed_) emit_cache(cache, emit, report);
    }

    void emit_cache(Cache& cache, Emit& emit, PollReport& report) {
        const auto found = std::find_if(ranked_.begin(), ranked_.end(),
                                        [&](const SlabCache& each) { return each.name == cache.name; });
        cache.series.emit(emit, report, static_cast<double>(found->pages) * page_bytes_, [&] {
            return SeriesInfo{"system.memory.linux.slab.cache.usage", "By", Kind::gauge,
                              "system.memory.linux.slab.cache=" + attribute_value(cache.name)};
        });
    }

    KernelFile slabinfo_;
    std::size_t count_;
    double page_bytes_ = 4096.0;
    std::vector<SlabCache> ranked_;
    std::vector<Cache> followed_;  // never more than twice count_
};

constexpr Option kSlabOptions[] = {
    {"caches", "1", 20, 1, 256, "how many of the largest caches have a series"},
};

Result<std::unique_ptr<Source>> open_slab(const Roots& roots, const Io& io, const SourceSettings& settings) {
    auto source = std::make_unique<SlabSource>(roots, io, static_cast<std::size_t>(settings.options[0]));
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor slab_source;
const SourceDescriptor slab_source{
    "slab",
    "Kernel memory of the largest object caches, from /proc/slabinfo.",
    "/proc/slabinfo (CONFIG_SLUB_DEBUG) and the right to read it, which is root's",
    "run as root, or give the service CAP_DAC_READ_SEARCH; or switch it off: sources.slab.enabled = false",
    60000,
    Lane::slow,
    open_slab,
    kSlabOptions,
};

}  // namespace argus::sources
