// Tier `tree` of the process table: walks <proc>/<pid>, any root, any user. Keeps the previous scan for utilisation and
// for the gate; allocates only while processes multiply.
//
// The gate is exact: when schedstat (ns on a processor, times scheduled in) of a single-threaded process that does not
// run now equals what it was before the last read of `io` and `status`, the process has not run since, so nothing in
// them that it does itself can have changed. Memory that others took from it shows in statm; then status is read.
#pragma once

#include <string>
#include <vector>

#include "sources/processes/files.hpp"

namespace argus::sources {

class ProcessTree final : public ProcessScanner {
public:
    ProcessTree(std::string proc, const Io& io, const Clock& clock) : files_(std::move(proc), io), clock_(&clock) {}

    // Errc::unavailable when the proc root cannot be listed.
    [[nodiscard]] Result<std::uint32_t> scan(ProcessTable& out) override;

private:
    void read_all(int root, ProcessTable& table);
    [[nodiscard]] ReadOutcome read_process(int root, std::int32_t pid, const ProcessRecord* before, ProcessRecord& out,
                                           ProcessTable& table);
    [[nodiscard]] ReadOutcome read_groups(int directory, const ProcessRecord* before, ProcessRecord& out,
                                          ProcessTable& table);
    [[nodiscard]] const ProcessRecord* previous(std::int32_t pid) noexcept;
    void utilize(const ProcessRecord* before, ProcessRecord& now) const noexcept;

    ProcessFiles files_;
    const Clock* clock_;
    KernelUnits units_;
    std::vector<std::int32_t> pids_;
    std::vector<ProcessRecord> now_, before_;  // by pid
    std::size_t cursor_ = 0;                   // into before_, while walking it in step with now_
};

}  // namespace argus::sources
