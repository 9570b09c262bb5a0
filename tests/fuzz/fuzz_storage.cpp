// Disks, mounts, swaps, arrays, nodes and slab caches: the first byte chooses the parser, the rest is its text.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "sources/disk.hpp"
#include "sources/escapes.hpp"
#include "sources/filesystem.hpp"
#include "sources/number_file.hpp"
#include "sources/numa.hpp"
#include "sources/paging.hpp"
#include "sources/slab.hpp"
#include "sources/storage.hpp"
#include "sources/text.hpp"

namespace {

using namespace argus::sources;

void must(bool condition) {
    if (!condition) std::abort();
}

template <class Line>
void lines(std::string_view text, Line&& each) {
    Scanner scanner(text);
    std::string_view line;
    while (scanner.line(line)) each(line);
}

void disk(std::string_view text) {
    lines(text, [](std::string_view line) {
        const auto parsed = parse_disk(line);
        if (!parsed) return;
        const DiskLine& found = parsed.value();
        must(!found.name.empty() && found.name.size() <= kDiskNameBytes);
        must(found.fields == 11 || found.fields == 15 || found.fields == kDiskFields);
        must(!(named_as_partition(found.name) && named_as_spare(found.name)));
    });
}

void filesystem(std::string_view text) {
    const MountTable table = parse_mounts(text);
    must(table.mounts.size() <= 256);
    for (const Mount& mount : table.mounts) {
        must(is_followed(mount) && mount.point.starts_with('/') && !mount.type.empty());
        for (const char c : attribute_value(mount.point)) must(c > 0x20 && c < 0x7F && c != ',' && c != '=');
    }
}

void paging(std::string_view text) {
    lines(text, [](std::string_view line) {
        const auto parsed = parse_swap(line);
        if (!parsed) return;
        must(!parsed.value().file.empty() && parsed.value().used_bytes <= parsed.value().size_bytes);
        must(octal_unescaped(parsed.value().file).size() <= parsed.value().file.size());
    });
}

void storage(std::string_view text) {
    std::vector<MdArray> arrays;
    (void)parse_mdstat(text, arrays);
    must(arrays.size() <= kMaxArrays);
    for (const MdArray& array : arrays) {
        must(!array.name.empty() && array.degraded <= 65'536);
        must(array.sync_progress >= 0 && array.sync_progress <= 1);
    }
    (void)parse_zram(text);
    (void)parse_hexadecimal_line(text);
    (void)parse_number_line(text);
    const auto state = parse_device_state(text);
    must(!state || *state == 0 || *state == 1);
}

void numa(std::string_view text) {
    std::vector<std::uint32_t> nodes;
    const bool good = parse_node_list(text, nodes);
    must(nodes.size() <= kMaxNodes && (!good || !nodes.empty()));
    for (std::size_t i = 1; i < nodes.size(); ++i) must(nodes[i - 1] < nodes[i] && nodes[i] < kMaxNodes);
    KeyedValues values;
    parse_keyed(text, node_meminfo_keys(), values, {"Node 0 ", true});
    parse_keyed(text, numastat_keys(), values);
}

void slab(std::string_view text) {
    lines(text, [](std::string_view line) {
        const auto parsed = parse_slab(line);
        must(!parsed || (!parsed.value().name.empty() && parsed.value().pages < std::uint64_t{1} << 62));
    });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 6) {
        case 0: disk(text); break;
        case 1: filesystem(text); break;
        case 2: paging(text); break;
        case 3: storage(text); break;
        case 4: numa(text); break;
        default: slab(text); break;
    }
    return 0;
}
