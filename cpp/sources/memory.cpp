// Memory, swap and paging.
// Source: /proc/meminfo, /proc/vmstat; kernel Documentation/filesystems/proc.rst, man proc_meminfo(5), proc_vmstat(5).
// Emits:  system.memory.* and system.paging.usage, bytes, gauges; system.paging.faults, .operations and reclaim,
//         refault, compaction, huge-page, NUMA and out-of-memory counters. used = total - free - buffers - cached, so
//         that the four states add up to the limit; cached includes reclaimable slab.
// Cost:   two preads; /proc/vmstat is the dearer (about 200 lines). Absent meminfo: Errc::unavailable; absent vmstat or
//         a missing key: those series are missing.
#include "sources/memory.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

struct KeySeries {
    std::string_view key;
    const char* name;
    const char* unit;
    const char* attributes;
    Kind kind;
};

constexpr Kind G = Kind::gauge;
constexpr Kind C = Kind::counter;

constexpr KeySeries kMeminfo[] = {
    {"MemTotal", "system.memory.limit", "By", "", G},
    {"MemFree", "system.memory.usage", "By", "system.memory.state=free", G},
    {"MemAvailable", "system.memory.linux.available", "By", "", G},
    {"Buffers", "system.memory.usage", "By", "system.memory.state=buffers", G},
    {"Cached", "system.memory.linux.page_cache", "By", "", G},
    {"SwapCached", "system.paging.cached", "By", "", G},
    {"Active", "system.memory.linux.active", "By", "", G},
    {"Inactive", "system.memory.linux.inactive", "By", "", G},
    {"Active(anon)", "system.memory.linux.active_anon", "By", "", G},
    {"Inactive(anon)", "system.memory.linux.inactive_anon", "By", "", G},
    {"Active(file)", "system.memory.linux.active_file", "By", "", G},
    {"Inactive(file)", "system.memory.linux.inactive_file", "By", "", G},
    {"Unevictable", "system.memory.linux.unevictable", "By", "", G},
    {"Mlocked", "system.memory.linux.locked", "By", "", G},
    {"SwapTotal", "system.paging.limit", "By", "", G},
    {"SwapFree", "system.paging.usage", "By", "system.paging.state=free", G},
    {"Zswap", "system.memory.linux.zswap", "By", "", G},
    {"Zswapped", "system.memory.linux.zswapped", "By", "", G},
    {"Dirty", "system.memory.linux.dirty", "By", "", G},
    {"Writeback", "system.memory.linux.writeback", "By", "", G},
    {"AnonPages", "system.memory.linux.anon", "By", "", G},
    {"Mapped", "system.memory.linux.mapped", "By", "", G},
    {"Shmem", "system.memory.linux.shared", "By", "", G},
    {"SReclaimable", "system.memory.linux.slab.usage", "By", "system.memory.linux.slab.state=reclaimable", G},
    {"SUnreclaim", "system.memory.linux.slab.usage", "By", "system.memory.linux.slab.state=unreclaimable", G},
    {"KernelStack", "system.memory.linux.kernel_stack", "By", "", G},
    {"PageTables", "system.memory.linux.page_tables", "By", "", G},
    {"CommitLimit", "system.memory.linux.commit_limit", "By", "", G},
    {"Committed_AS", "system.memory.linux.committed", "By", "", G},
    {"VmallocUsed", "system.memory.linux.vmalloc_used", "By", "", G},
    {"Percpu", "system.memory.linux.percpu", "By", "", G},
    {"HardwareCorrupted", "system.memory.linux.hardware_corrupted", "By", "", G},
    {"AnonHugePages", "system.memory.linux.anon_huge_pages", "By", "", G},
    {"HugePages_Total", "system.memory.linux.hugepages.limit", "{page}", "", G},
    {"HugePages_Free", "system.memory.linux.hugepages.usage", "{page}", "system.memory.linux.hugepages.state=free", G},
    {"HugePages_Rsvd", "system.memory.linux.hugepages.reserved", "{page}", "", G},
    {"HugePages_Surp", "system.memory.linux.hugepages.surplus", "{page}", "", G},
    {"Hugepagesize", "system.memory.linux.hugepages.page_size", "By", "", G},
    {"Hugetlb", "system.memory.linux.hugetlb", "By", "", G},
    {"ShmemHugePages", "system.memory.linux.shared_huge_pages", "By", "", G},
    {"FileHugePages", "system.memory.linux.file_huge_pages", "By", "", G},
    {"KReclaimable", "system.memory.linux.kernel_reclaimable", "By", "", G},
    {"SecPageTables", "system.memory.linux.secondary_page_tables", "By", "", G},
    {"CmaTotal", "system.memory.linux.cma.limit", "By", "", G},
    {"CmaFree", "system.memory.linux.cma.free", "By", "", G},
    {"Balloon", "system.memory.linux.balloon", "By", "", G},
};

enum MeminfoKey : std::size_t { kTotal = 0, kFree = 1, kAvailable = 2, kBuffers = 3, kCached = 4, kSwapTotal = 14,
                                kSwapFree = 15, kReclaimable = 23 };
static_assert(kMeminfo[kSwapTotal].key == "SwapTotal" && kMeminfo[kSwapFree].key == "SwapFree" &&
              kMeminfo[kReclaimable].key == "SReclaimable" && kMeminfo[kCached].key == "Cached");

constexpr KeySeries kVmstat[] = {
    {"pgfault", "system.paging.faults", "{fault}", "system.paging.type=minor", C},
    {"pgmajfault", "system.paging.faults", "{fault}", "system.paging.type=major", C},
    {"pswpin", "system.paging.operations", "{page}", "system.paging.direction=in,system.paging.type=swap", C},
    {"pswpout", "system.paging.operations", "{page}", "system.paging.direction=out,system.paging.type=swap", C},
    {"pgpgin", "system.paging.io", "By", "system.paging.direction=in", C},
    {"pgpgout", "system.paging.io", "By", "system.paging.direction=out", C},
    {"pgfree", "system.paging.freed", "{page}", "", C},
    {"pgactivate", "system.paging.activated", "{page}", "", C},
    {"pgdeactivate", "system.paging.deactivated", "{page}", "", C},
    {"pgscan_kswapd", "system.paging.reclaim.scanned", "{page}", "system.paging.reclaim.by=kswapd", C},
    {"pgscan_direct", "system.paging.reclaim.scanned", "{page}", "system.paging.reclaim.by=direct", C},
    {"pgsteal_kswapd", "system.paging.reclaim.stolen", "{page}", "system.paging.reclaim.by=kswapd", C},
    {"pgsteal_direct", "system.paging.reclaim.stolen", "{page}", "system.paging.reclaim.by=direct", C},
    {"workingset_refault_anon", "system.paging.refaults", "{page}", "system.paging.refault.type=anon", C},
    {"workingset_refault_file", "system.paging.refaults", "{page}", "system.paging.refault.type=file", C},
    {"allocstall_normal", "system.paging.allocation_stalls", "{stall}", "system.memory.zone=normal", C},
    {"allocstall_movable", "system.paging.allocation_stalls", "{stall}", "system.memory.zone=movable", C},
    {"allocstall_dma32", "system.paging.allocation_stalls", "{stall}", "system.memory.zone=dma32", C},
    {"oom_kill", "system.memory.oom_kills", "{process}", "", C},
    {"compact_stall", "system.memory.compaction_stalls", "{stall}", "", C},
    {"thp_fault_alloc", "system.memory.huge_page_faults", "{fault}", "system.memory.huge_page.result=allocated", C},
    {"thp_fault_fallback", "system.memory.huge_page_faults", "{fault}", "system.memory.huge_page.result=fallback", C},
    {"numa_hit", "system.numa.allocations", "{page}", "system.numa.result=hit", C},
    {"numa_miss", "system.numa.allocations", "{page}", "system.numa.result=miss", C},
    {"numa_foreign", "system.numa.allocations", "{page}", "system.numa.result=foreign", C},
    {"nr_dirtied", "system.memory.pages_dirtied", "{page}", "", C},
    {"nr_written", "system.memory.pages_written", "{page}", "", C},
    {"numa_pages_migrated", "system.numa.migrated", "{page}", "", C},
    {"swap_ra", "system.paging.swap_readahead", "{page}", "", C},
    {"swap_ra_hit", "system.paging.swap_readahead_hits", "{page}", "", C},
    {"zswpin", "system.paging.operations", "{page}", "system.paging.direction=in,system.paging.type=zswap", C},
    {"zswpout", "system.paging.operations", "{page}", "system.paging.direction=out,system.paging.type=zswap", C},
    {"zswpwb", "system.paging.zswap_written_back", "{page}", "", C},
    {"pgrefill", "system.paging.refilled", "{page}", "", C},
    {"pgrotated", "system.paging.rotated", "{page}", "", C},
    {"pgscan_khugepaged", "system.paging.reclaim.scanned", "{page}", "system.paging.reclaim.by=khugepaged", C},
    {"pgscan_proactive", "system.paging.reclaim.scanned", "{page}", "system.paging.reclaim.by=proactive", C},
    {"pgsteal_khugepaged", "system.paging.reclaim.stolen", "{page}", "system.paging.reclaim.by=khugepaged", C},
    {"pgsteal_proactive", "system.paging.reclaim.stolen", "{page}", "system.paging.reclaim.by=proactive", C},
    {"pgscan_direct_throttle", "system.paging.reclaim.throttled", "{event}", "", C},
    {"slabs_scanned", "system.paging.reclaim.slabs_scanned", "{object}", "", C},
    {"workingset_refault", "system.paging.refaults", "{page}", "", C},  // all of them; Linux < 5.9
    {"workingset_activate_anon", "system.paging.reactivated", "{page}", "system.paging.refault.type=anon", C},
    {"workingset_activate_file", "system.paging.reactivated", "{page}", "system.paging.refault.type=file", C},
    {"workingset_restore_anon", "system.paging.restored", "{page}", "system.paging.refault.type=anon", C},
    {"workingset_restore_file", "system.paging.restored", "{page}", "system.paging.refault.type=file", C},
    {"allocstall", "system.paging.allocation_stalls", "{stall}", "", C},  // all zones; Linux < 4.10
    {"allocstall_dma", "system.paging.allocation_stalls", "{stall}", "system.memory.zone=dma", C},
    {"allocstall_device", "system.paging.allocation_stalls", "{stall}", "system.memory.zone=device", C},
    {"drop_pagecache", "system.memory.caches_dropped", "{event}", "system.memory.cache=page", C},
    {"drop_slab", "system.memory.caches_dropped", "{event}", "system.memory.cache=slab", C},
    {"compact_success", "system.memory.compactions", "{event}", "system.memory.compaction.result=success", C},
    {"compact_fail", "system.memory.compactions", "{event}", "system.memory.compaction.result=failure", C},
    {"compact_migrate_scanned", "system.memory.compaction_scanned", "{page}", "system.memory.compaction.for=migrate",
     C},
    {"compact_free_scanned", "system.memory.compaction_scanned", "{page}", "system.memory.compaction.for=free", C},
    {"compact_daemon_wake", "system.memory.compaction_daemon_wakes", "{event}", "", C},
    {"pgmigrate_success", "system.memory.pages_migrated", "{page}", "system.memory.migration.result=success", C},
    {"pgmigrate_fail", "system.memory.pages_migrated", "{page}", "system.memory.migration.result=failure", C},
    {"thp_collapse_alloc", "system.memory.huge_page_collapses", "{page}", "system.memory.huge_page.result=allocated",
     C},
    {"thp_collapse_alloc_failed", "system.memory.huge_page_collapses", "{page}",
     "system.memory.huge_page.result=failed", C},
    {"thp_split_page", "system.memory.huge_page_splits", "{page}", "", C},
    {"thp_split_pmd", "system.memory.huge_page_unmaps", "{page}", "", C},
    {"thp_zero_page_alloc", "system.memory.huge_zero_pages", "{page}", "", C},
    {"thp_swpout", "system.memory.huge_page_swaps", "{page}", "system.memory.huge_page.result=whole", C},
    {"thp_swpout_fallback", "system.memory.huge_page_swaps", "{page}", "system.memory.huge_page.result=split", C},
    {"numa_interleave", "system.numa.allocations", "{page}", "system.numa.result=interleave", C},
    {"numa_local", "system.numa.allocations", "{page}", "system.numa.result=local", C},
    {"numa_other", "system.numa.allocations", "{page}", "system.numa.result=other", C},
    {"numa_pte_updates", "system.numa.hinting.marked", "{page}", "", C},
    {"numa_hint_faults", "system.numa.hinting.faults", "{fault}", "", C},
    {"numa_hint_faults_local", "system.numa.hinting.local_faults", "{fault}", "", C},
    {"pgpromote_success", "system.numa.promoted", "{page}", "", C},
    {"pgdemote_kswapd", "system.numa.demoted", "{page}", "system.paging.reclaim.by=kswapd", C},
    {"pgdemote_direct", "system.numa.demoted", "{page}", "system.paging.reclaim.by=direct", C},
    {"nr_throttled_written", "system.memory.pages_written_throttled", "{page}", "", C},
    {"balloon_inflate", "system.memory.balloon_pages", "{page}", "system.memory.balloon.change=inflate", C},
    {"balloon_deflate", "system.memory.balloon_pages", "{page}", "system.memory.balloon.change=deflate", C},
};
constexpr std::size_t kFaults = 0;  // all of them in the file: the minor ones are the difference
constexpr std::size_t kMajorFaults = 1;
constexpr std::size_t kPageIn = 4;
constexpr std::size_t kPageOut = 5;
static_assert(kVmstat[kPageOut].key == "pgpgout" && kVmstat[kMajorFaults].key == "pgmajfault");
static_assert(std::size(kMeminfo) <= KeyedValues::kMaxKeys && std::size(kVmstat) <= KeyedValues::kMaxKeys);

template <std::size_t N>
KeyTable make_table(const KeySeries (&rows)[N]) {
    std::array<std::string_view, N> keys;
    for (std::size_t i = 0; i < N; ++i) keys[i] = rows[i].key;
    return KeyTable(keys);
}

}  // namespace

KeyTable::KeyTable(std::span<const std::string_view> keys)
    : keys_(keys.begin(), keys.end()), cells_(std::bit_ceil(keys.size() * 8), std::int16_t{-1}) {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
        std::size_t cell = hash(keys_[i]) & (cells_.size() - 1);
        while (cells_[cell] >= 0) cell = (cell + 1) & (cells_.size() - 1);
        cells_[cell] = static_cast<std::int16_t>(i);
    }
}

std::uint32_t KeyTable::hash(std::string_view key) noexcept {
    // The first and the last eight bytes and the length: keys share prefixes or suffixes, hardly both.
    std::uint64_t head = 0;
    std::uint64_t tail = 0;
    if (key.size() >= sizeof head) {
        std::memcpy(&head, key.data(), sizeof head);
        std::memcpy(&tail, key.data() + key.size() - sizeof tail, sizeof tail);
    } else {
        for (const char c : key) head = head << 8 | static_cast<unsigned char>(c);
    }
    const std::uint64_t mixed = (head * 0x9E3779B97F4A7C15U ^ tail) * 0xC2B2AE3D27D4EB4FU + key.size();
    return static_cast<std::uint32_t>(mixed >> 32);
}

int KeyTable::find(std::string_view key) const noexcept {
    std::size_t cell = hash(key) & (cells_.size() - 1);
    while (cells_[cell] >= 0) {
        const auto index = static_cast<std::size_t>(cells_[cell]);
        if (keys_[index] == key) return static_cast<int>(index);
        cell = (cell + 1) & (cells_.size() - 1);
    }
    return -1;
}

class KeyedParser {
public:
    KeyedParser(const KeyTable& keys, KeyedValues& out, KeyedFormat format, KeyedLines* lines)
        : keys_(&keys), out_(&out), format_(format), lines_(lines) {}

    void parse(std::string_view text) {
        out_->seen.fill(false);
        out_->malformed = 0;
        const char* at = text.data();
        const char* const end = at + text.size();
        std::size_t number = 0;
        while (at != end) {
            const char* next = lines_ != nullptr ? recognised(at, end, number) : nullptr;
            if (next == nullptr) {
                const char* const newline = find_newline(at, end);
                if (newline == nullptr) break;  // cut, perhaps inside a number
                learn(number, look_up({at, static_cast<std::size_t>(newline - at)}));
                next = newline + 1;
            }
            at = next;
            ++number;
        }
        if (at != end) ++out_->malformed;
    }

private:
    struct Found {
        std::string_view head;  // with the blank; empty = none
        int key = -1;
    };

    // The end of the line, if it is the one that stood there before and holds a plain value; else nullptr, and nothing
    // was taken.
    [[nodiscard]] const char* recognised(const char* at, const char* end, std::size_t number) const noexcept {
        if (number >= lines_->lines_.size()) return nullptr;
        const KeyedLines::Line line = lines_->lines_[number];
        if (line.head == 0 || static_cast<std::size_t>(end - at) <= line.head) return nullptr;
        if (!same(at, lines_->heads_.data() + line.start, line.head)) return nullptr;
        at += line.head;
        if (line.key < 0) {
            const char* const newline = find_newline(at, end);
            return newline == nullptr ? nullptr : newline + 1;
        }
        constexpr std::ptrdiff_t kDigits = 18;  // so many never overflow
        while (at != end && *at == ' ') ++at;
        const char* const first = at;
        std::uint64_t value = 0;
        for (; at != end && *at >= '0' && *at <= '9'; ++at) value = value * 10 + static_cast<std::uint64_t>(*at - '0');
        if (at == first || at - first > kDigits || at == end) return nullptr;
        const bool kib = *at == ' ' && end - at >= 4 && std::memcmp(at, " kB\n", 4) == 0;
        if (!kib && *at != '\n') return nullptr;
        take(line.key, value, kib ? "kB" : "", true);
        return at + (kib ? 4 : 1);
    }

    [[nodiscard]] static const char* find_newline(const char* at, const char* end) noexcept {
        return static_cast<const char*>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
    }

    // Of short texts, without a call.
    [[nodiscard]] static bool same(const char* a, const char* b, std::size_t size) noexcept {
        std::uint64_t x = 0, y = 0;
        for (; size >= sizeof x; size -= sizeof x, a += sizeof x, b += sizeof x) {
            std::memcpy(&x, a, sizeof x);
            std::memcpy(&y, b, sizeof y);
            if (x != y) return false;
        }
        for (; size > 0; --size) {
            if (*a++ != *b++) return false;
        }
        return true;
    }

    [[nodiscard]] Found look_up(std::string_view line) const {
        if (!line.starts_with(format_.prefix)) {
            ++out_->malformed;
            return {};
        }
        const std::string_view rest = line.substr(format_.prefix.size());
        std::string_view key = rest.substr(0, std::min(rest.find(' '), rest.size()));
        const std::size_t head = format_.prefix.size() + key.size() + 1;
        Scanner fields(rest.substr(key.size()));
        if (key.ends_with(':')) key.remove_suffix(1);
        const int found = keys_->find(key);
        if (found >= 0) {
            std::uint64_t value = 0;
            const bool good = fields.number(value);
            take(found, value, fields.word(), good);
        }
        return {head <= line.size() ? line.substr(0, head) : std::string_view{}, found};
    }

    void take(int key, std::uint64_t value, std::string_view unit, bool good) const noexcept {
        constexpr std::uint64_t kKib = 1024;
        const auto index = static_cast<std::size_t>(key);
        good = good && !out_->seen[index];
        if (unit == "kB") {
            good = good && value <= std::numeric_limits<std::uint64_t>::max() / kKib;
            value *= kKib;
        } else {
            good = good && unit.empty() && !format_.kib_only;
        }
        if (!good) {
            ++out_->malformed;
            return;
        }
        out_->values[index] = value;
        out_->seen[index] = true;
    }

    // A line that came in the place of another was looked up: those from here on stand elsewhere, too.
    void learn(std::size_t number, const Found& found) const {
        if (lines_ == nullptr || number >= KeyedLines::kMaxLines) return;
        std::vector<KeyedLines::Line>& lines = lines_->lines_;
        const std::size_t head = found.head.size() <= std::numeric_limits<std::uint16_t>::max() ? found.head.size() : 0;
        const bool known = number < lines.size() && lines[number].head == head &&
                           lines_->heads_.compare(lines[number].start, head, found.head.substr(0, head)) == 0;
        if (known) return;  // only its value is not plain
        if (number < lines.size()) {
            lines_->heads_.resize(lines[number].start);
            lines.resize(number);
        }
        if (number > lines.size()) return;
        lines.push_back({static_cast<std::uint32_t>(lines_->heads_.size()), static_cast<std::uint16_t>(head),
                         static_cast<std::int16_t>(found.key)});
        lines_->heads_.append(found.head.data(), head);
    }

    const KeyTable* keys_;
    KeyedValues* out_;
    KeyedFormat format_;
    KeyedLines* lines_;
};

void parse_keyed(std::string_view text, const KeyTable& keys, KeyedValues& out, KeyedFormat format,
                 KeyedLines* lines) {
    KeyedParser(keys, out, format, lines).parse(text);
}

const KeyTable& meminfo_keys() {
    static const KeyTable table = make_table(kMeminfo);
    return table;
}

const KeyTable& vmstat_keys() {
    static const KeyTable table = make_table(kVmstat);
    return table;
}

namespace {

class MemorySource final : public Source {
public:
    MemorySource(const Roots& roots, const Io& io)
        : meminfo_(io, roots.proc + "/meminfo", "proc/meminfo"), vmstat_(io, roots.proc + "/vmstat", "proc/vmstat") {}

    [[nodiscard]] Result<bool> open() { return meminfo_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto text = meminfo_.read();
        if (!text) return text.error();
        parse_keyed(*text, meminfo_keys(), parsed_, {}, &meminfo_lines_);
        if (!parsed_.seen[kTotal]) {
            return Error{Errc::malformed, 0, "proc/meminfo: expected 'MemTotal: <number> kB', found no such line"};
        }
        report.malformed += parsed_.malformed;
        for (std::size_t i = 0; i < std::size(kMeminfo); ++i) {
            if (parsed_.seen[i]) emit_key(kMeminfo[i], meminfo_slots_[i], bytes(i), emit, report);
        }
        emit_derived(emit, report);
        emit_vmstat(emit, report);
        return report;
    }

private:
    [[nodiscard]] double bytes(std::size_t key) const noexcept { return static_cast<double>(parsed_.values[key]); }
    [[nodiscard]] bool all_seen(std::initializer_list<std::size_t> keys) const noexcept {
        for (const std::size_t key : keys) {
            if (!parsed_.seen[key]) return false;
        }
        return true;
    }

    static void emit_key(const KeySeries& row, SeriesSlot& slot, double value, Emit& emit, PollReport& report) {
        slot.emit(emit, report, value, [&] { return SeriesInfo{row.name, row.unit, row.kind, row.attributes}; });
    }

    // Only from keys that are all there, and only where the result makes sense: a missing key is never taken as 0.
    void emit_derived(Emit& emit, PollReport& report) {
        if (all_seen({kFree, kBuffers, kCached, kReclaimable})) {
            const double cached = bytes(kCached) + bytes(kReclaimable);
            const double used = bytes(kTotal) - bytes(kFree) - bytes(kBuffers) - cached;
            emit_gauge(derived_[0], "system.memory.usage", "By", "system.memory.state=cached", cached, emit, report);
            if (used >= 0) {
                emit_gauge(derived_[1], "system.memory.usage", "By", "system.memory.state=used", used, emit, report);
            }
        }
        if (parsed_.seen[kAvailable] && parsed_.values[kTotal] > 0) {
            const double utilization = 1.0 - bytes(kAvailable) / bytes(kTotal);
            emit_gauge(derived_[2], "system.memory.utilization", "1", "", utilization, emit, report);
        }
        if (all_seen({kSwapTotal, kSwapFree}) && parsed_.values[kSwapTotal] >= parsed_.values[kSwapFree]) {
            const double used = bytes(kSwapTotal) - bytes(kSwapFree);
            emit_gauge(derived_[3], "system.paging.usage", "By", "system.paging.state=used", used, emit, report);
            if (parsed_.values[kSwapTotal] > 0) {
                const double share = used / bytes(kSwapTotal);
                emit_gauge(derived_[4], "system.paging.utilization", "1", "", share, emit, report);
            }
        }
    }

    static void emit_gauge(SeriesSlot& slot, const char* name, const char* unit, const char* attributes, double value,
                           Emit& emit, PollReport& report) {
        slot.emit(emit, report, value, [&] { return SeriesInfo{name, unit, Kind::gauge, attributes}; });
    }

    void emit_vmstat(Emit& emit, PollReport& report) {
        constexpr double kKib = 1024.0;
        const auto text = vmstat_.read();
        if (!text) {
            if (text.error().code != Errc::unavailable) ++report.malformed;
            return;
        }
        parse_keyed(*text, vmstat_keys(), parsed_, {}, &vmstat_lines_);
        report.malformed += parsed_.malformed;
        for (std::size_t i = 0; i < std::size(kVmstat); ++i) {
            if (!parsed_.seen[i]) continue;
            double value = bytes(i) * (i == kPageIn || i == kPageOut ? kKib : 1.0);  // these two count KiB, not pages
            if (i == kFaults) {
                if (!parsed_.seen[kMajorFaults] || bytes(kMajorFaults) > value) continue;
                value -= bytes(kMajorFaults);
            }
            emit_key(kVmstat[i], vmstat_slots_[i], value, emit, report);
        }
    }

    KernelFile meminfo_;
    KernelFile vmstat_;
    KeyedValues parsed_;
    KeyedLines meminfo_lines_, vmstat_lines_;
    std::array<SeriesSlot, std::size(kMeminfo)> meminfo_slots_;
    std::array<SeriesSlot, std::size(kVmstat)> vmstat_slots_;
    std::array<SeriesSlot, 5> derived_;
};

Result<std::unique_ptr<Source>> open_memory(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<MemorySource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor memory_source;
const SourceDescriptor memory_source{
    "memory",
    "Memory by use, swap, paging and reclaim, from /proc/meminfo and /proc/vmstat.",
    "a mounted /proc with /proc/meminfo (every Linux)",
    "mount procfs (mount -t proc proc /proc), or point `proc` at the host's, for example /host/proc",
    1000,
    Lane::fast,
    open_memory,
};

}  // namespace argus::sources
