#include "engine/criteria.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace argus::engine {
namespace {

using auditors::Facts;
using auditors::Verdict;

enum Row : std::size_t { kC1, kC2, kC4, kC5, kW1, kW2, kW3, kW4, kW5, kW8, kW9 };

constexpr Option kC1Options[] = {{"share", "1", 1.0, 0.01, 1.0, "share of the cap at which it counts as reached"}};

enum C2Option : std::size_t { kC2Calls, kC2Cycles, kC2Period, kC2Usd, kC2Share, kC2Seconds };
constexpr Option kC2Options[] = {
    {"equal_calls", "1", 8, 2, 10000, "consecutive equal calls"},
    {"cycle_repeats", "1", 6, 2, 10000, "or whole repeats of a longer cycle"},
    {"cycle_period_max", "1", 4, 2, 8, "of at most so many calls"},
    {"spend_usd", "USD", 1.0, 0, 1e9, "and metered spend of the loop of at least this"},
    {"spend_cap_share", "1", 0.05, 0, 1, "or this share of the session's cap, whichever is larger"},
    {"duration_s", "s", 120, 0, 1e7, "or lasting at least so long"},
};

enum C4Option : std::size_t { kC4Loop, kC4Calls, kC4Ratio, kC4Seconds };
constexpr Option kC4Options[] = {
    {"loop_ratio", "1", 2, 1, 1000, "turns of the loop over the shortest run that is rare for its payer"},
    {"price_calls", "1", 6, 1, 10000, "or calls at a price of at least the ratio below"},
    {"price_ratio", "1", 5, 1, 10000, "multiple of the usual price for the same tokens"},
    {"excess_s", "s", 60, 0, 1e7, "and costing more than the payer usually spends in so long"},
};

enum C5Option : std::size_t { kC5Lossy, kC5Window };
constexpr Option kC5Options[] = {
    {"lossy_faults", "1", 3, 1, 16, "where an event is missing: faults that a source which loses events must show"},
    {"window_s", "s", 600, 1, 1e6, "within so long; where a forbidden event was seen, one is enough"},
};

enum W1Option : std::size_t { kW1Share, kW1Probability };
constexpr Option kW1Options[] = {
    {"share", "1", 0.8, 0.01, 1.0, "share of the cap that spend reaches at its bound"},
    {"probability", "1", 0.9, 0.5, 1.0, "or probability that the cap is exhausted within the forecast's horizon"},
};

enum W2Option : std::size_t { kW2Ratio, kW2Seconds, kW2Usd };
constexpr Option kW2Options[] = {
    {"spend_ratio", "1", 2, 1, 1000, "spend of the window over usual spend; loops and prices are exact and need none"},
    {"excess_s", "s", 30, 0, 1e7, "and excess over what the payer usually spends in so long; loops need none"},
    {"excess_usd", "USD", 0.01, 0, 1e9, "and excess of at least this; of a loop, all that it spent"},
};

enum W3Option : std::size_t { kW3Calls, kW3Seconds, kW3Usd, kW3Share };
constexpr Option kW3Options[] = {
    {"equal_calls", "1", 4, 2, 10000, "consecutive equal calls, or whole repeats of a cycle"},
    {"duration_s", "s", 60, 0, 1e7, "and lasting at least so long"},
    {"spend_usd", "USD", 0.10, 0, 1e9, "or spend of the loop, at its upper bound, of at least this"},
    {"spend_cap_share", "1", 0.05, 0, 1, "or of this share of the session's cap"},
};

enum W4Option : std::size_t { kW4LnBf, kW4Chance };
constexpr Option kW4Options[] = {
    {"ln_bf", "1", 6, 3, 1000, "evidence for a change, as the logarithm of the Bayes factor"},
    {"chance", "1", 0.95, 0.5, 1, "and chance that success fell by at least the auditor's material_change"},
};

enum W5Option : std::size_t { kW5Lossy, kW5Window };
constexpr Option kW5Options[] = {
    {"lossy_faults", "1", 3, 1, 16, "faults a source that loses events must show; a lossless one needs one"},
    {"window_s", "s", 600, 1, 1e6, "within so long"},
};

// Off by default: benign tasks are spoken of at the auditor's flagged_share, which is no ground for a stop.
constexpr Option kW8Options[] = {
    {"chance", "1", 0, 0, 0.2, "share of the agent's own tasks at most as unlike their request; 0 = never a warning"},
};

enum W9Option : std::size_t { kW9Refuted, kW9Ended };
constexpr Option kW9Options[] = {
    {"refuted", "1", 1, 1, 10000, "claims of a session that the host refutes"},
    {"ended", "1", 0, 0, 1, "1 = success claimed just before a failing exit counts; a stop then meets the next run"},
};

constexpr CriterionDescriptor kRows[] = {
    {"C1", Severity::critical, "metered and reserved spend, tokens, calls or time reach an absolute cap", kC1Options},
    {"C2", Severity::critical, "a long loop of result-equal calls that also spends or lasts", kC2Options},
    {"C4", Severity::critical, "a loop far beyond its bar or calls far above their price, costing much", kC4Options},
    {"C5", Severity::critical, "a constraint that the configuration marks critical was violated", kC5Options},
    {"W1", Severity::warning, "spend at its upper bound, tokens, calls or time near a cap, or spend soon will",
     kW1Options},
    {"W2", Severity::warning, "prices, loops, sizes, rates or retries of model calls that cost much", kW2Options},
    {"W3", Severity::warning, "a loop of result-equal calls that also spends or lasts, or spend without progress",
     kW3Options},
    {"W4", Severity::warning, "the success of tasks fell, with evidence and by a material amount", kW4Options},
    {"W5", Severity::warning, "events in an order or with an identity that cannot be right", kW5Options},
    {"W8", Severity::warning, "an acting call unlike those that like requests led to before", kW8Options},
    {"W9", Severity::warning, "a file that an agent claims to have written, which the host refutes", kW9Options},
};

// Exact integers: a share is taken to 1e-9, products to 128 bits; doubles would lose nano-USD beyond 2^53.
[[nodiscard]] bool reaches(std::int64_t amount, std::int64_t cap, double share) noexcept {
    __extension__ using Wide = __int128;
    return Wide{amount} * 1'000'000'000 >= Wide{cap} * std::llround(share * 1e9);
}

[[nodiscard]] std::int64_t nusd(double usd) noexcept { return static_cast<std::int64_t>(std::llround(usd * 1e9)); }

}  // namespace

std::span<const CriterionDescriptor> criteria() noexcept { return kRows; }

Criteria::Criteria() {
    for (const CriterionDescriptor& row : kRows) {
        std::vector<double>& values = values_.emplace_back();
        for (const Option& option : row.options) values.push_back(option.value);
        enabled_.push_back(true);
    }
}

void Criteria::configure(std::string_view criterion, std::span<const double> values) {
    const std::string name(criterion);
    for (std::size_t row = 0; row < std::size(kRows); ++row) {
        if (criterion != kRows[row].name) continue;
        const auto options = kRows[row].options;
        if (values.size() != options.size()) {
            throw std::invalid_argument("criteria." + name + ": expected " + std::to_string(options.size()) +
                                        " values, found " + std::to_string(values.size()) + "; not started");
        }
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (values[i] >= options[i].min && values[i] <= options[i].max) continue;
            throw std::invalid_argument("criteria." + name + "." + options[i].name + ": expected a number in [" +
                                        std::to_string(options[i].min) + ", " + std::to_string(options[i].max) +
                                        "], found " + std::to_string(values[i]) + "; not started");
        }
        values_[row].assign(values.begin(), values.end());
        return;
    }
    throw std::invalid_argument("criteria." + name + ": no such criterion; not started");
}

void Criteria::enable(std::string_view criterion, bool enabled) {
    for (std::size_t row = 0; row < std::size(kRows); ++row) {
        if (criterion != kRows[row].name) continue;
        enabled_[row] = enabled;
        return;
    }
    throw std::invalid_argument("criteria." + std::string(criterion) + ": no such criterion; not started");
}

Verdict Criteria::judge_loop(const Facts& f) const noexcept {
    const bool single = f.period == 1;
    const auto repeats = static_cast<double>(f.repeats);
    const bool long_run = single ? repeats >= value(kC2, kC2Calls)
                                 : f.period <= value(kC2, kC2Period) && repeats >= value(kC2, kC2Cycles);
    const std::int64_t floor = nusd(value(kC2, kC2Usd));
    const bool spends = f.metered_nusd >= floor &&
                        (f.cap_nusd == 0 || reaches(f.metered_nusd, f.cap_nusd, value(kC2, kC2Share)));
    if (enabled_[kC2] && long_run && (spends || f.duration_s >= value(kC2, kC2Seconds))) {
        return {Severity::critical, "C2"};
    }
    const bool lasts = f.duration_s >= value(kW3, kW3Seconds);
    const bool holds = repeats >= value(kW3, kW3Calls) && (lasts || costs(f));
    return enabled_[kW3] && holds ? Verdict{Severity::warning, "W3"} : Verdict{};
}

bool Criteria::costs(const Facts& f) const noexcept {
    return f.upper_nusd >= nusd(value(kW3, kW3Usd)) ||
           (f.cap_nusd > 0 && reaches(f.upper_nusd, f.cap_nusd, value(kW3, kW3Share)));
}

// Steps are not known to be equal: only what they cost makes them matter.
Verdict Criteria::judge_progress(const Facts& f) const noexcept {
    const bool holds = static_cast<double>(f.repeats) >= value(kW3, kW3Calls) && costs(f);
    return enabled_[kW3] && holds ? Verdict{Severity::warning, "W3"} : Verdict{};
}

Verdict Criteria::judge_budget(const Facts& f) const noexcept {
    if (f.cap_nusd <= 0) return {};
    const std::int64_t counted = f.strict ? f.upper_nusd : f.metered_nusd;
    if (enabled_[kC1] && reaches(counted, f.cap_nusd, value(kC1, 0))) return {Severity::critical, "C1"};
    if (enabled_[kW1] && reaches(f.upper_nusd, f.cap_nusd, value(kW1, kW1Share))) return {Severity::warning, "W1"};
    return {};
}

Verdict Criteria::judge_limit(const Facts& f) const noexcept {
    if (!(f.limit > 0)) return {};
    if (enabled_[kC1] && f.used >= f.limit * value(kC1, 0)) return {Severity::critical, "C1"};
    if (enabled_[kW1] && f.used >= f.limit * value(kW1, kW1Share)) return {Severity::warning, "W1"};
    return {};
}

Verdict Criteria::judge_cost(const Facts& f) const noexcept {
    const bool loop = f.cost == Facts::Cost::loop;
    const bool price = f.cost == Facts::Cost::price;
    const bool far = loop ? f.strength >= value(kC4, kC4Loop)
                          : price && f.strength >= value(kC4, kC4Ratio) &&
                                static_cast<double>(f.repeats) >= value(kC4, kC4Calls);
    if (enabled_[kC4] && far && f.excess_s > value(kC4, kC4Seconds)) return {Severity::critical, "C4"};
    const bool material = loop || (f.excess_s > value(kW2, kW2Seconds) &&
                                   (price || f.spend_ratio > value(kW2, kW2Ratio)));
    if (enabled_[kW2] && material && f.excess_nusd * 1e-9 >= value(kW2, kW2Usd)) return {Severity::warning, "W2"};
    return {};
}

Verdict Criteria::judge_forecast(const Facts& f) const noexcept {
    if (!enabled_[kW1] || f.exhaust_probability < value(kW1, kW1Probability)) return {};
    return {Severity::warning, "W1"};
}

Verdict Criteria::judge_drift(const Facts& f) const noexcept {
    const bool holds = f.worse && f.ln_bf >= value(kW4, kW4LnBf) && f.material_chance >= value(kW4, kW4Chance);
    return enabled_[kW4] && holds ? Verdict{Severity::warning, "W4"} : Verdict{};
}

Verdict Criteria::judge_hijack(const Facts& f) const noexcept {
    return enabled_[kW8] && f.chance <= value(kW8, 0) ? Verdict{Severity::warning, "W8"} : Verdict{};
}

Verdict Criteria::judge_order(const Facts& f, const events::Ledger& ledger, Nanos now) const noexcept {
    const auto enough = [&](double faults, double window_s) {
        if (f.lossless) return true;
        const Nanos window = static_cast<Nanos>(window_s * 1e9);
        return ledger.faults_since(f.source, now - window) >= static_cast<std::uint32_t>(faults);
    };
    if (enabled_[kC5] && f.asked == Severity::critical &&
        (f.seen || enough(value(kC5, kC5Lossy), value(kC5, kC5Window)))) {
        return {Severity::critical, "C5"};
    }
    if (!enabled_[kW5] || f.asked == Severity::info) return {};
    return enough(value(kW5, kW5Lossy), value(kW5, kW5Window)) ? Verdict{Severity::warning, "W5"} : Verdict{};
}

Verdict Criteria::judge_claim(const Facts& f) const noexcept {
    const bool counts = !f.ended || value(kW9, kW9Ended) >= 1;
    const bool holds = counts && static_cast<double>(f.repeats) >= value(kW9, kW9Refuted);
    return enabled_[kW9] && holds ? Verdict{Severity::warning, "W9"} : Verdict{};
}

Verdict Criteria::judge(const Facts& facts, const events::Ledger& ledger, Nanos now) const {
    switch (facts.rule) {
        case Facts::Rule::loss:
        case Facts::Rule::sequence:
        case Facts::Rule::behaviour: return {};  // information: none justifies a stop by itself
        case Facts::Rule::loop: return judge_loop(facts);
        case Facts::Rule::budget: return judge_budget(facts);
        case Facts::Rule::limit: return judge_limit(facts);
        case Facts::Rule::cost: return judge_cost(facts);
        case Facts::Rule::forecast: return judge_forecast(facts);
        case Facts::Rule::drift: return judge_drift(facts);
        case Facts::Rule::hijack: return judge_hijack(facts);
        case Facts::Rule::progress: return judge_progress(facts);
        case Facts::Rule::order: return judge_order(facts, ledger, now);
        case Facts::Rule::claim: return judge_claim(facts);
    }
    return {};
}

}  // namespace argus::engine
