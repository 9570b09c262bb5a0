// Memory and where it was allocated, by NUMA node.
// Source: /sys/devices/system/node/{online, node*/numastat, node*/meminfo}; kernel Documentation/admin-guide/
//         numastat.rst, Documentation/ABI/stable/sysfs-devices-node.
// Emits:  system.numa.{hit,miss,foreign,interleave,local,other} ({page}, counters) and system.numa.memory.* (By) by
//         system.numa.node. Of a hit on a node that was not asked for, the node asked for counts it as foreign.
// Cost:   two preads a node, which sum over all processors: slow lane. No node folder (CONFIG_NUMA off):
//         Errc::unavailable. A node that goes offline closes its series. At most 256 nodes.
#include "sources/numa.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string>

#include "sources/kernel_file.hpp"
#include "sources/series_slot.hpp"
#include "sources/source.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

struct NodeSeries {
    std::string_view key;
    const char* name;
    const char* state;  // "" = none
};
constexpr NodeSeries kNumastat[] = {
    {"numa_hit", "system.numa.hit", ""},
    {"numa_miss", "system.numa.miss", ""},
    {"numa_foreign", "system.numa.foreign", ""},
    {"interleave_hit", "system.numa.interleave", ""},
    {"local_node", "system.numa.local", ""},
    {"other_node", "system.numa.other", ""},
};
constexpr NodeSeries kNodeMeminfo[] = {
    {"MemTotal", "system.numa.memory.limit", ""},
    {"MemFree", "system.numa.memory.usage", "free"},
    {"MemUsed", "system.numa.memory.usage", "used"},
    {"FilePages", "system.numa.memory.page_cache", ""},
    {"AnonPages", "system.numa.memory.anon", ""},
};

template <std::size_t N>
KeyTable table_of(const NodeSeries (&rows)[N]) {
    std::array<std::string_view, N> keys;
    for (std::size_t i = 0; i < N; ++i) keys[i] = rows[i].key;
    return KeyTable(keys);
}

struct Node {
    Node(const Io& io, const std::string& folder, std::uint32_t which)
        : number(which),
          prefix("Node " + std::to_string(which) + " "),
          numastat(io, folder + "/numastat", "sys/devices/system/node/node*/numastat"),
          meminfo(io, folder + "/meminfo", "sys/devices/system/node/node*/meminfo") {}

    std::uint32_t number;
    std::string prefix;  // of each line of its meminfo
    KernelFile numastat;
    KeyedLines counter_lines, level_lines;
    KernelFile meminfo;
    std::array<SeriesSlot, std::size(kNumastat)> counters;
    std::array<SeriesSlot, std::size(kNodeMeminfo)> levels;
};

}  // namespace

bool parse_node_list(std::string_view text, std::vector<std::uint32_t>& nodes) {
    nodes.clear();
    if (!text.ends_with('\n')) return false;
    text.remove_suffix(1);
    const auto number = [&](std::uint32_t& out) {
        std::size_t size = 0;
        out = 0;
        for (; size < text.size() && text[size] >= '0' && text[size] <= '9'; ++size) {
            out = out * 10 + static_cast<std::uint32_t>(text[size] - '0');
            if (out >= kMaxNodes) return false;
        }
        text.remove_prefix(size);
        return size > 0;
    };
    std::uint32_t next = 0;  // the least number that may follow
    while (true) {
        std::uint32_t first = 0;
        if (!number(first) || first < next) return false;
        std::uint32_t last = first;
        if (text.starts_with('-')) {
            text.remove_prefix(1);
            if (!number(last) || last < first) return false;
        }
        for (std::uint32_t node = first; node <= last; ++node) nodes.push_back(node);
        next = last + 1;
        if (text.empty()) return true;
        if (!text.starts_with(',')) return false;
        text.remove_prefix(1);
    }
}

const KeyTable& numastat_keys() {
    static const KeyTable table = table_of(kNumastat);
    return table;
}

const KeyTable& node_meminfo_keys() {
    static const KeyTable table = table_of(kNodeMeminfo);
    return table;
}

namespace {

class NumaSource final : public Source {
public:
    NumaSource(const Roots& roots, const Io& io)
        : io_(&io),
          folder_(roots.sys + "/devices/system/node/"),
          online_(io, folder_ + "online", "sys/devices/system/node/online") {
        listed_.reserve(kMaxNodes);
    }

    [[nodiscard]] Result<bool> open() { return online_.open(); }

    [[nodiscard]] Result<PollReport> poll(Nanos, Emit& emit) override {
        PollReport report;
        const auto online = online_.read();
        if (!online) return online.error();
        if (!parse_node_list(*online, listed_)) {
            return Error{Errc::malformed, 0, "sys/devices/system/node/online: expected a list of nodes like '0-1,4'"};
        }
        follow_listed(emit);
        for (const auto& node : nodes_) {
            read_counters(*node, emit, report);
            read_levels(*node, emit, report);
        }
        return report;
    }

private:
    void follow_listed(Emit& emit) {
        std::erase_if(nodes_, [&](const std::unique_ptr<Node>& node) {
            if (std::binary_search(listed_.begin(), listed_.end(), node->number)) return false;
            for (SeriesSlot& series : node->counters) series.close(emit);
            for (SeriesSlot& series : node->levels) series.close(emit);
            return true;
        });
        if (nodes_.size() == listed_.size()) return;
        for (const std::uint32_t number : listed_) {
            const auto same = [&](const std::unique_ptr<Node>& node) { return node->number == number; };
            if (std::any_of(nodes_.begin(), nodes_.end(), same)) continue;
            nodes_.push_back(std::make_unique<Node>(*io_, folder_ + "node" + std::to_string(number), number));
        }
    }

    // A node that goes offline between the list and the read is absent, not malformed.
    [[nodiscard]] bool read(KernelFile& file, const KeyTable& keys, KeyedFormat format, KeyedLines& lines,
                            PollReport& report) {
        const auto text = file.read();
        if (!text) {
            if (text.error().code != Errc::unavailable) ++report.malformed;
            return false;
        }
        parse_keyed(*text, keys, parsed_, format, &lines);
        report.malformed += parsed_.malformed;
        return true;
    }

    void read_counters(Node& node, Emit& emit, PollReport& report) {
        if (!read(node.numastat, numastat_keys(), {}, node.counter_lines, report)) return;
        for (std::size_t i = 0; i < std::size(kNumastat); ++i) {
            if (!parsed_.seen[i]) continue;
            node.counters[i].emit(emit, report, static_cast<double>(parsed_.values[i]), [&] {
                return SeriesInfo{kNumastat[i].name, "{page}", Kind::counter, attributes(node, "")};
            });
        }
    }

    void read_levels(Node& node, Emit& emit, PollReport& report) {
        if (!read(node.meminfo, node_meminfo_keys(), {node.prefix, true}, node.level_lines, report)) return;
        for (std::size_t i = 0; i < std::size(kNodeMeminfo); ++i) {
            if (!parsed_.seen[i]) continue;
            node.levels[i].emit(emit, report, static_cast<double>(parsed_.values[i]), [&] {
                return SeriesInfo{kNodeMeminfo[i].name, "By", Kind::gauge, attributes(node, kNodeMeminfo[i].state)};
            });
        }
    }

    static std::string attributes(const Node& node, const char* state) {
        std::string out = *state == '\0' ? "" : std::string("system.memory.state=") + state + ",";
        return out + "system.numa.node=" + std::to_string(node.number);
    }

    const Io* io_;
    std::string folder_;
    KernelFile online_;
    std::vector<std::unique_ptr<Node>> nodes_;
    std::vector<std::uint32_t> listed_;
    KeyedValues parsed_;
};

Result<std::unique_ptr<Source>> open_numa(const Roots& roots, const Io& io, const SourceSettings&) {
    auto source = std::make_unique<NumaSource>(roots, io);
    if (const auto opened = source->open(); !opened) return opened.error();
    return std::unique_ptr<Source>(std::move(source));
}

}  // namespace

extern const SourceDescriptor numa_source;
const SourceDescriptor numa_source{
    "numa",
    "Memory and allocations of each NUMA node, from /sys/devices/system/node.",
    "a mounted /sys of a kernel with CONFIG_NUMA",
    "nothing to do on a kernel without CONFIG_NUMA; else mount sysfs, or point `sys` at the host's",
    10000,
    Lane::slow,
    open_numa,
};

}  // namespace argus::sources
