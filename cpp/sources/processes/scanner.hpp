// Which tier reads the process table: the best that works here, chosen when it is first read and again when it fails.
//
//   bpf        one system call for all processes, exact; CAP_BPF and CAP_PERFMON, Linux >= 5.8 with BTF, libbpf
//   taskstats  as gated, with I/O and switches by netlink in batches; CAP_NET_ADMIN
//   gated      reads only processes that ran since; any user, but this machine's own /proc
//   tree       reads every process; any user, any proc root, fixture trees
//
// Why a better tier is not in use is kept as text, for an operator to act on.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "base/io.hpp"
#include "base/result.hpp"
#include "sources/processes/bpf.hpp"
#include "sources/processes/gated.hpp"
#include "sources/processes/processes.hpp"
#include "sources/processes/tree.hpp"
#include "sources/source.hpp"

namespace argus::sources {

// What the tiers use of this machine beyond files; tests take some of it away.
struct ScannerChoice {
    BpfChoice bpf;
    CpuClock cpu_clock = system_cpu_clock;
};

// "auto" = none; another name than a tier's: std::invalid_argument.
[[nodiscard]] std::optional<Tier> parse_tier(std::string_view name);

// What an operator does to make a tier available.
[[nodiscard]] const char* fix_of(Tier tier) noexcept;

[[nodiscard]] Result<std::unique_ptr<ProcessScanner>> make_scanner(Tier tier, const Roots& roots, const Io& io,
                                                                   const Clock& clock,
                                                                   const ScannerChoice& choice = {});

struct TierStatus {
    Tier tier;
    bool available = false;
    std::string reason;  // why not; empty when it is
};

class ProcessTiers {
public:
    // `forced`: that tier and no other.
    ProcessTiers(std::optional<Tier> forced, Roots roots, const Io& io, const Clock& clock, ScannerChoice choice = {})
        : forced_(forced), roots_(std::move(roots)), io_(&io), clock_(&clock), choice_(choice) {}

    // Opens a tier, if none is open. An error is that of the last tier that was tried.
    [[nodiscard]] Result<Tier> open();

    // With the tier that is open; when it fails, with the next one, from then on.
    [[nodiscard]] Result<std::uint32_t> scan(ProcessTable& out);

    // In use; none before the first scan, or when nothing works.
    [[nodiscard]] std::optional<Tier> tier() const noexcept { return current_; }

    [[nodiscard]] std::optional<Tier> forced() const noexcept { return forced_; }

    // Every tier, best first: what failed, and what was tried for this question.
    [[nodiscard]] std::array<TierStatus, kTiers> statuses() const;

private:
    std::optional<Tier> forced_;
    Roots roots_;
    const Io* io_;
    const Clock* clock_;
    ScannerChoice choice_;
    std::unique_ptr<ProcessScanner> scanner_;
    std::optional<Tier> current_;
    std::array<Error, kTiers> failures_{};
};

}  // namespace argus::sources
