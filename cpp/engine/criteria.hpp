// The deterministic criteria of the event plane: what a fact justifies alone. Each is a row with its options; defaults
// are the published ones, configuration may change them, `argus explain criteria` prints them.
//   C1  metered + reserved spend, tokens, calls or time reach an absolute cap               critical
//   C2  a long result-equal loop that also spends or lasts                                  critical
//   C4  a loop far beyond its bar, or calls far above their price, that cost much           critical
//   C5  a constraint that the configuration marks critical was violated                     critical
//   W1  the upper bound of spend, tokens, calls or time reach a share of a cap, or soon will warning
//   W2  a price jump, a loop, or a material shift of sizes, rates or retries of model calls  warning
//   W3  a short result-equal loop that also spends or lasts, steps that spend for nothing   warning
//   W4  the success of tasks fell, with evidence and by a material amount                   warning
//   W5  a deterministic order fault: one of a lossless source, several of a lossy one       warning
//   W8  a call that does not fit the request, rarer than a stated share (none by default)   warning
//   W9  claims of an agent that the host's own facts refute                                 warning
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "auditors/auditor.hpp"
#include "model/anomaly.hpp"
#include "model/option.hpp"

namespace argus::engine {

struct CriterionDescriptor {
    const char* name;
    Severity severity;
    const char* documentation;
    std::span<const Option> options;
};

[[nodiscard]] std::span<const CriterionDescriptor> criteria() noexcept;

class Criteria {
public:
    Criteria();  // defaults

    // Option values of one criterion, in descriptor order. Throws std::invalid_argument on an unknown name, a wrong
    // count or a value out of bounds.
    void configure(std::string_view criterion, std::span<const double> values);

    // A criterion that is switched off justifies nothing. Throws std::invalid_argument on an unknown name.
    void enable(std::string_view criterion, bool enabled);

    // Facts in, severity and criterion out; for order faults of a lossy source the ledger tells how many it had lately.
    [[nodiscard]] auditors::Verdict judge(const auditors::Facts& facts, const events::Ledger& ledger, Nanos now) const;

private:
    [[nodiscard]] double value(std::size_t criterion, std::size_t option) const noexcept {
        return values_[criterion][option];
    }
    [[nodiscard]] auditors::Verdict judge_loop(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_progress(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] bool costs(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_cost(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_forecast(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_budget(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_limit(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_drift(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_order(const auditors::Facts& facts, const events::Ledger& ledger,
                                                Nanos now) const noexcept;
    [[nodiscard]] auditors::Verdict judge_hijack(const auditors::Facts& facts) const noexcept;
    [[nodiscard]] auditors::Verdict judge_claim(const auditors::Facts& facts) const noexcept;

    std::vector<std::vector<double>> values_;
    std::vector<bool> enabled_;
};

}  // namespace argus::engine
