// THE table: every source, detector and auditor is one file and one line here. Configuration, documentation, coverage
// and the contract tests are derived from it.
#pragma once

#include <span>

#include "auditors/auditor.hpp"
#include "detectors/detector.hpp"
#include "sources/source.hpp"

#define ARGUS_SOURCES(X) \
    X(cpu)                \
    X(cpufreq)            \
    X(memory)             \
    X(paging)             \
    X(numa)               \
    X(slab)               \
    X(pressure)           \
    X(kernel)             \
    X(interrupts)         \
    X(disk)               \
    X(filesystem)         \
    X(storage)            \
    X(network)            \
    X(protocols)          \
    X(protocols_extended) \
    X(sockets)            \
    X(softnet)            \
    X(conntrack)          \
    X(cgroup)             \
    X(exits)              \
    X(perf)               \
    X(thermal)            \
    X(gpu)                \
    X(availability)       \
    X(self)
#define ARGUS_DETECTORS(X) \
    X(residual)            \
    X(season)              \
    X(increment)           \
    X(shift)               \
    X(variance)            \
    X(silence)             \
    X(rate)                \
    X(tail)                \
    X(mix)                 \
    X(embedding)
#define ARGUS_AUDITORS(X) X(causal) X(loop) X(budget) X(cost) X(forecast) X(outcome) X(sequence) X(hijack) X(progress) \
    X(behaviour) X(claims) X(limits)

namespace argus::engine {

[[nodiscard]] std::span<const sources::SourceDescriptor* const> source_catalog() noexcept;
[[nodiscard]] std::span<const detectors::DetectorDescriptor* const> detector_catalog() noexcept;
[[nodiscard]] std::span<const auditors::AuditorDescriptor* const> auditor_catalog() noexcept;

}  // namespace argus::engine
