// Pressure stall triggers: descriptors that poll(2) reports (POLLPRI) when tasks were stalled for too long.
// Source: kernel Documentation/accounting/psi.rst, "Monitoring for pressure thresholds".
// Cost: nothing while nobody stalls; the kernel averages in its own work queue. Windows are 2 s, the one size that
// needs no privilege. Failure: a resource without its file, or a kernel that refuses, has no trigger.
#pragma once

#include <string>
#include <vector>

#include "sources/source.hpp"

namespace argus::sources {

class PressureTriggers {
public:
    // One of each resource (cpu, memory, io) that this machine offers, at `share` of the time (0 < share < 1) in which
    // some task was stalled. None where the roots are not live.
    PressureTriggers(const Roots& roots, double share);
    ~PressureTriggers();
    PressureTriggers(const PressureTriggers&) = delete;
    PressureTriggers& operator=(const PressureTriggers&) = delete;

    [[nodiscard]] const std::vector<int>& descriptors() const noexcept { return fds_; }

    // What is written into the file, its NUL included: "some 300000 2000000".
    [[nodiscard]] static std::string request(double share);

private:
    std::vector<int> fds_;
};

}  // namespace argus::sources
