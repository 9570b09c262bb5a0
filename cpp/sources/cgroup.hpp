// Parsers of the cgroup source, pure, for tests and fuzzers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace argus::sources {

// The first series of each group of them; the order of the table in cgroup.cpp.
enum CgroupSeries : std::size_t {
    kCpuUser,
    kCpuSystem,
    kPeriods,
    kThrottledPeriods,
    kThrottledTime,
    kMemoryUsage,
    kMemoryPeak,
    kMemorySwap,
    kMemoryLimit,
    kMemoryHigh,
    kWorkingSet,
    kMemoryStat,                      // anon, file, kernel, shmem, slab, sock, file_dirty, file_writeback
    kMinorFaults = kMemoryStat + 8,
    kMajorFaults,
    kRefaults,
    kMemoryEvents,                    // low, high, max, oom, oom_kill
    kIoBytes = kMemoryEvents + 5,     // read, write, discard
    kIoOperations = kIoBytes + 3,
    kPidsCurrent = kIoOperations + 3,
    kPidsMax,
    kStall,                           // cpu, memory, io, irq; some and full of each
    kPopulated = kStall + 8,
    kFrozen,
    kCgroupSeries
};

// What the files of one group say; NaN = not observed. Each parser fills in its own and leaves the rest.
struct CgroupValues {
    std::array<double, kCgroupSeries> of;
    double inactive_file;
    std::uint32_t malformed;

    CgroupValues() { clear(); }
    void clear();
};

// The files that are read, each with the controller whose hierarchy holds it.
struct CgroupFile {
    const char* name;
    std::uint32_t controllers;  // bits of cgroup_tree.hpp
    std::uint32_t series;       // how many come of it at most
    void (*parse)(std::string_view text, CgroupValues& out);
};
inline constexpr std::size_t kCgroupFiles = 29;
extern const std::array<CgroupFile, kCgroupFiles> cgroup_files;

}  // namespace argus::sources
