// The perf source's pure parts and its maker with replaceable system calls, for tests and fuzzers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.hpp"
#include "base/result.hpp"
#include "sources/perf_group.hpp"
#include "sources/source.hpp"

namespace argus::sources {

// "cgroup:/system.slice/a.service" or "pid:123".
struct PerfScopeTarget {
    std::string cgroup;  // "" = a process
    pid_t pid = 0;
};
[[nodiscard]] Result<PerfScopeTarget> parse_perf_target(std::string_view text);

// How many of the software events, and of the groups of two hardware events, fit into `descriptors` for `cpus`.
struct PerfShare {
    std::size_t software;
    std::size_t hardware_groups;
};
[[nodiscard]] PerfShare perf_share(std::size_t descriptors, std::size_t cpus) noexcept;

// Throws std::invalid_argument for a target that means nothing.
[[nodiscard]] Result<std::unique_ptr<Source>> make_perf(const Roots& roots, const Io& io,
                                                        const SourceSettings& settings, const PerfCalls& calls);

}  // namespace argus::sources
