// What control groups and performance events are read from: the first byte chooses the parser, the rest is its text.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "sources/cgroup.hpp"
#include "sources/cgroup_tree.hpp"
#include "sources/perf.hpp"
#include "sources/text.hpp"

namespace {

using namespace argus::sources;

void must(bool condition) {
    if (!condition) std::abort();
}

void file(std::size_t kind, std::string_view text) {
    CgroupValues values;
    cgroup_files[kind].parse(text, values);
    std::size_t seen = 0;
    for (const double value : values.of) {
        must(std::isnan(value) || (std::isfinite(value) && value >= 0));
        seen += std::isnan(value) ? 0 : 1;
    }
    must(seen <= cgroup_files[kind].series);
    must(!(values.of[kPopulated] > 1) && !(values.of[kFrozen] > 1));
}

void names(std::string_view text) {
    const CgroupIdentity identity = identify_cgroup(text);
    must(identity.container_id.empty() || identity.container_id.size() == 64);
    must(identity.pod_uid.empty() || identity.pod_uid.size() == 32 || identity.pod_uid.size() == 36);
    must(identity.systemd_unit.size() <= text.size());
    for (const char c : attribute_value(text)) must(c > 0x20 && c < 0x7F && c != ',' && c != '=');
    const auto target = parse_perf_target(text);
    if (target) must((target.value().cgroup.empty()) == (target.value().pid > 0));
    if (target) must((target.value().cgroup + "/").find("/../") == std::string::npos);
}

void mounts(std::string_view text) {
    CgroupMount mount;
    if (!parse_cgroup_mount(text, mount)) return;
    must(mount.root.starts_with('/') && mount.point.starts_with('/') && mount.point.size() <= text.size());
}

void deltas(std::string_view bytes) {
    PerfReading readings[2];
    if (bytes.size() < sizeof readings) return;
    std::memcpy(readings, bytes.data(), sizeof readings);
    const PerfDelta delta = perf_delta(readings[0], readings[1]);
    must(std::isfinite(delta.count) && delta.count >= 0);
    must(delta.step == PerfStep::counted || delta.count == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const std::size_t choice = data[0] % (kCgroupFiles + 3);
    if (choice < kCgroupFiles) {
        file(choice, text);
    } else if (choice == kCgroupFiles) {
        names(text);
    } else if (choice == kCgroupFiles + 1) {
        mounts(text);
    } else {
        deltas(text);
    }
    return 0;
}
