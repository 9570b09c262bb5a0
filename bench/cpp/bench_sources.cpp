// source_poll/<source>: one poll (read, parse, emit) of a source of files, against merely opening, reading and closing
// the same files; the bar is 1.5 times that. source_poll/processes: one process of a scan, against
// the five files of each read so; the bar is 1. source_poll/filesystem: one poll, which waits for its helper thread.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "engine/catalog.hpp"
#include "poll_cost.hpp"
#include "report.hpp"
#include "sources/processes/tree.hpp"
#include "sources/source.hpp"

namespace argus::sources {
extern const SourceDescriptor filesystem_source;
}

namespace {

using namespace argus;
using bench::Count;

constexpr double kBar = 1.5;

std::size_t read_whole(const std::string& path) {
    static std::vector<char> buffer(1 << 16);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    std::size_t size = 0;
    for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;) size += static_cast<std::size_t>(got);
    ::close(fd);
    return size;
}

bool bench_source(const sources::SourceDescriptor& descriptor, const std::vector<std::string>& files) {
    const std::string name = std::string("source_poll/") + descriptor.name;
    auto source = descriptor.open({}, system_io());
    if (!source) return true;  // this machine lacks it: nothing to time
    Count count;
    const auto first = (*source)->poll(0, count);
    if (!first || first.value().emitted == 0 || first.value().malformed != 0) {
        return bench::report(name.c_str(), 0, "us", "well-formed values", 0, 0, false);
    }
    const double ours = bench::best_of(300, [&] { (void)(*source)->poll(0, count); });
    const double bare = bench::best_of(300, [&] {
        for (const std::string& file : files) (void)read_whole(file);
    });
    return bench::report(name.c_str(), ours * 1e6, "us", "open, read, close", ours / bare, bare * kBar * 1e6,
                         ours <= bare * kBar);
}

// It waits for a helper thread, so bare reads are no measure: the bar is the most a poll of the fast lane may take.
bool bench_filesystem() {
    constexpr double kBarUs = 1000;
    auto source = sources::filesystem_source.open({}, system_io());
    if (!source) return true;  // this machine lacks it: nothing to time
    Count count;
    const double ours = bench::best_of(300, [&] { (void)(*source)->poll(0, count); }) * 1e6;
    return bench::report("source_poll/filesystem", ours, "us", "the fast lane's limit", ours / kBarUs, kBarUs,
                         ours <= kBarUs && count.values > 0);
}

bool bench_processes() {
    const SystemClock clock;
    sources::ProcessTree tree("/proc", system_io(), clock);
    sources::ProcessTable table;
    if (!tree.scan(table) || table.count == 0) {
        return bench::report("source_poll/processes", 0, "us", "a table with rows", 0, 0, false);
    }
    const double ours = bench::best_of(20, [&] { (void)tree.scan(table); }) / static_cast<double>(table.count);
    const double bare = bench::best_of(20, [&] {
        for (std::size_t row = 0; row < table.count; ++row) {
            const std::string folder = "/proc/" + std::to_string(table.pid[row]) + "/";
            for (const char* file : {"stat", "statm", "schedstat", "io", "status"}) (void)read_whole(folder + file);
        }
    }) / static_cast<double>(table.count);
    return bench::report("source_poll/processes", ours * 1e6, "us", "open, read, close of five files", ours / bare,
                         bare * 1e6, ours <= bare);
}

// Files in the folders of `folder` whose name ends so: what this machine has of them.
void files_in(const std::string& folder, const std::string& end, std::vector<std::string>& out) {
    std::error_code none;
    for (const auto& device : std::filesystem::directory_iterator(folder, none)) {
        for (const auto& file : std::filesystem::directory_iterator(device.path(), none)) {
            if (file.path().filename().string().ends_with(end)) out.push_back(file.path().string());
        }
    }
}

std::vector<std::string> frequency_files() {
    const std::string cpus = "/sys/devices/system/cpu";
    std::vector<std::string> out;
    for (const char* kind : {"cur", "min", "max"}) {
        files_in(cpus + "/cpufreq", std::string("scaling_") + kind + "_freq", out);
    }
    if (out.empty()) return {cpus + "/online", "/proc/cpuinfo"};
    std::error_code none;
    for (const auto& cpu : std::filesystem::directory_iterator(cpus, none)) {
        for (const auto& file : std::filesystem::directory_iterator(cpu.path() / "thermal_throttle", none)) {
            out.push_back(file.path().string());
        }
    }
    return out;
}

std::vector<std::string> sensor_files() {
    std::vector<std::string> out;
    files_in("/sys/class/thermal", "temp", out);
    files_in("/sys/class/hwmon", "_input", out);
    files_in("/sys/class/powercap", "energy_uj", out);
    files_in("/sys/devices/system/edac/mc", "_count", out);
    return out;
}

struct Bench {
    const char* source;
    std::vector<std::string> files;
};

}  // namespace

int main() {
    const Bench kBenches[] = {
        {"cpu", {"/proc/stat", "/proc/loadavg", "/proc/uptime"}},
        {"cpufreq", frequency_files()},
        {"interrupts", {"/proc/interrupts", "/proc/softirqs"}},
        {"kernel",
         {"/proc/sys/fs/file-nr", "/proc/sys/fs/inode-nr", "/proc/sys/fs/dentry-state", "/proc/sys/kernel/pid_max",
          "/proc/sys/kernel/threads-max", "/proc/sys/kernel/random/entropy_avail", "/proc/loadavg"}},
        {"memory", {"/proc/meminfo", "/proc/vmstat"}},
        {"network", {"/proc/net/dev"}},
        {"protocols", {"/proc/net/snmp"}},
        {"protocols_extended", {"/proc/net/netstat", "/proc/net/snmp6"}},
        {"softnet", {"/proc/net/softnet_stat"}},
        {"conntrack",
         {"/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/netfilter/nf_conntrack_max",
          "/proc/net/stat/nf_conntrack"}},
        {"disk", {"/proc/diskstats", "/sys/class/block/vda/size"}},
        {"paging",
         {"/proc/swaps", "/sys/kernel/mm/ksm/pages_shared", "/sys/kernel/mm/ksm/pages_sharing",
          "/sys/kernel/mm/ksm/pages_unshared", "/sys/kernel/mm/ksm/pages_volatile", "/sys/kernel/mm/ksm/full_scans"}},
        {"numa",
         {"/sys/devices/system/node/online", "/sys/devices/system/node/node0/numastat",
          "/sys/devices/system/node/node0/meminfo"}},
        {"slab", {"/proc/slabinfo"}},
        {"thermal", sensor_files()},
        {"self", {"/proc/self/stat", "/proc/self/statm", "/proc/self/fd"}},
        {"pressure", {"/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io"}},
    };
    bool good = true;
    for (const Bench& bench : kBenches) {
        for (const auto* descriptor : engine::source_catalog()) {
            if (std::string(descriptor->name) == bench.source) good = bench_source(*descriptor, bench.files) && good;
        }
    }
    good = bench_filesystem() && good;
    return bench_processes() && good ? 0 : 1;
}
