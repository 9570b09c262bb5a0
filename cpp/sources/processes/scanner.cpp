#include "sources/processes/scanner.hpp"

#include <cstring>
#include <stdexcept>
#include <utility>

namespace argus::sources {
namespace {

constexpr Tier kBestFirst[kTiers] = {Tier::bpf, Tier::taskstats, Tier::gated, Tier::tree};

std::string describe(const Error& error, Tier tier) {
    std::string text = error.what;
    const char* symbol = error.sys_errno > 0 ? strerrorname_np(error.sys_errno) : nullptr;
    if (symbol != nullptr) text += std::string(" (") + symbol + ")";
    return text + "; " + fix_of(tier);
}

}  // namespace

std::optional<Tier> parse_tier(std::string_view name) {
    if (name == "auto") return std::nullopt;
    for (const Tier tier : kBestFirst) {
        if (name == to_string(tier)) return tier;
    }
    throw std::invalid_argument("processes.tier: expected 'auto', 'bpf', 'taskstats', 'gated' or 'tree', found '" +
                                std::string(name) + "'; not started");
}

const char* fix_of(Tier tier) noexcept {
    switch (tier) {
        case Tier::bpf:
            return "run with CAP_BPF and CAP_PERFMON outside containers, on Linux >= 5.8 with libbpf1 installed, in a "
                   "build that had clang and libbpf-dev";
        case Tier::taskstats: return "run with CAP_NET_ADMIN outside containers, on a kernel with CONFIG_TASKSTATS";
        case Tier::gated: return "read this machine's own /proc, mounted in the pid namespace of the reader";
        case Tier::tree: return "mount procfs, or name another root";
    }
    return "";
}

Result<std::unique_ptr<ProcessScanner>> make_scanner(Tier tier, const Roots& roots, const Io& io, const Clock& clock,
                                                     const ScannerChoice& choice) {
    switch (tier) {
        case Tier::bpf: return BpfProcesses::make(roots, io, clock, choice.bpf);
        case Tier::taskstats: return GatedProcesses::make(roots, io, clock, choice.cpu_clock, Accounting::taskstats);
        case Tier::gated: return GatedProcesses::make(roots, io, clock, choice.cpu_clock, Accounting::files);
        case Tier::tree: break;
    }
    return std::unique_ptr<ProcessScanner>(std::make_unique<ProcessTree>(roots.proc, io, clock));
}

Result<Tier> ProcessTiers::open() {
    if (current_) return *current_;
    Error last;
    for (const Tier tier : kBestFirst) {
        Error& failure = failures_[static_cast<std::size_t>(tier)];
        if (forced_ ? tier != *forced_ : failure.code != Errc::ok && tier != Tier::tree) continue;
        auto made = make_scanner(tier, roots_, *io_, *clock_, choice_);
        if (made) {
            scanner_ = std::move(*made);
            current_ = tier;
            failure = {};
            return tier;
        }
        last = failure = made.error();
    }
    return last;
}

Result<std::uint32_t> ProcessTiers::scan(ProcessTable& out) {
    while (true) {
        if (const auto opened = open(); !opened) return opened.error();
        const auto rows = scanner_->scan(out);
        if (rows) return rows;
        failures_[static_cast<std::size_t>(*current_)] = rows.error();
        if (forced_ || *current_ == Tier::tree) return rows.error();
        scanner_.reset();
        current_.reset();
    }
}

std::array<TierStatus, kTiers> ProcessTiers::statuses() const {
    std::array<TierStatus, kTiers> out{};
    for (std::size_t i = 0; i < kTiers; ++i) {
        const Tier tier = kBestFirst[i];
        out[i].tier = tier;
        Error failure = failures_[static_cast<std::size_t>(tier)];
        if (current_ != tier && failure.code == Errc::ok) {
            const auto made = make_scanner(tier, roots_, *io_, *clock_, choice_);
            if (!made) failure = made.error();
        }
        out[i].available = failure.code == Errc::ok;
        if (!out[i].available) out[i].reason = describe(failure, tier);
    }
    return out;
}

}  // namespace argus::sources
