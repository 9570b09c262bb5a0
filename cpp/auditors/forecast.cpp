// When will a capped account be exhausted, and how sure is that? Spend is summed in bins of 10 s; a slow memory
// (half-life 20 min) and a fast one (2 min) give the burn rate, the scatter of sums over 1, 4 and 16 bins its variance
// (the largest per bin counts: bursts clump). The fast rate is believed where it lies more than three standard errors
// above the slow one. Spend over h bins is then normal with mean r h and variance s (h + h^2 / n), the second part for
// the rate itself being known from n bins only.
// It looks ahead `horizon_s`, but no further than spending has lasted: nothing says that what began an hour ago goes on
// for a day. Criterion W1 judges the probability. Agents, tenants and the host only: a session ends by itself.
// Method: burn-rate alerts over two memories (Site Reliability Workbook, chapter 5) with a predictive distribution.
// Time is arrival time. State: 0.3 kB an account with a cap. Cost: bench_events events/calls/forecast.
// It does not promise: seasons of the day; spend that comes in a few large amounts (its interval is then wide); growth
// that lasts a minute, which moves no honest forecast of an hour.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"
#include "auditors/cost_model.hpp"

namespace argus::auditors {
namespace {

using events::Account;
using events::kNone;
using events::Ledger;

constexpr Option kOptions[] = {
    {"horizon_s", "s", 3600, 60, 1e7, "how far ahead exhaustion of a cap is looked for"},
};

constexpr std::uint32_t kAccounts = 8192;
constexpr Nanos kBin = 10 * kSecond;
constexpr double kBinSeconds = 10.0;
constexpr std::int64_t kMostBins = 720;      // longer pauses begin anew
constexpr std::uint32_t kWarmBins = 12, kWarmCharges = 10;
constexpr double kKeepFast = 0.9438743126816935;  // 2^(-1/12)
constexpr double kStandardErrors = 3.0;
constexpr double kTenthQuantile = 1.2815515655446004;
constexpr double kRearm = 0.5;
constexpr std::array<std::uint32_t, 3> kBlocks{1, 4, 16};

// Exponentially weighted mean with the number of observations that it is worth.
struct Memory {
    double sum = 0, weight = 0, squares = 0;
    void add(double value, double keep) noexcept {
        sum = sum * keep + value;
        weight = weight * keep + 1;
        squares = squares * keep * keep + 1;
    }
    [[nodiscard]] double mean() const noexcept { return weight > 0 ? sum / weight : 0.0; }
    [[nodiscard]] double worth() const noexcept { return squares > 0 ? weight * weight / squares : 0.0; }
};

struct Burn {
    Nanos since = 0;         // first spend
    std::int64_t bin = 0;
    std::int64_t seen = 0;   // nano-USD of the account when last looked at
    double open = 0;         // spend of the open bin
    std::uint32_t bins = 0, charges = 0;
    std::uint8_t spoken = 0;
    Memory slow, fast;
    struct Block {
        double sum = 0;
        std::uint32_t bins = 0;
        Memory variance;  // of a bin
    };
    std::array<Block, kBlocks.size()> blocks{};
};

// The standard normal distribution function (Abramowitz and Stegun 26.2.17; absolute error < 1e-6).
[[nodiscard]] double normal_below(double z) noexcept {
    const double x = std::min(std::abs(z), 8.0);
    const double t = 1.0 / (1.0 + 0.2316419 * x);
    const double density =
        0.3989422804014327 * static_cast<double>(fast_exp2(static_cast<float>(-0.7213475204444817 * x * x)));
    const double series =
        t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
    const double above = density * series;
    return z > 0 ? 1.0 - above : above;
}

// Nano-USD a bin, and how well that is known.
struct Rate {
    double mean = 0, variance = 0, worth = 0;
};

class Forecasts final : public Auditor {
public:
    explicit Forecasts(std::span<const double> v) : horizon_s_(v[0]), burns_(kAccounts) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (!seen.money) return;
        for (const events::AccountRef& ref : seen.accounts) {
            if (!ledger.accounts().holds(ref.index, ref.generation)) continue;
            const Account& account = ledger.accounts()[ref.index];
            // A session ends by itself, nobody knows when: its cap is held by the share that is spent.
            if (account.cap <= 0 || account.kind == ScopeKind::session || account.kind == ScopeKind::task) continue;
            spend(ref, account, event, ledger, emit);
        }
    }
    void on_tick(Nanos, Ledger&, Emit&) override {}
    void rearm(const Scope& scope, Ledger&) override {
        const std::string& owner = scope.kind == ScopeKind::tenant ? scope.id : scope.tenant;
        const std::uint64_t key = events::scope_hash(scope.kind, owner, scope.id);
        for (std::uint32_t i = burns_.oldest(); i != kNone; i = burns_.newer(i)) {
            if (scope.kind == ScopeKind::host || burns_.hash(i) == key) burns_[i].spoken = 0;
        }
    }
    void save(Writer& writer) const override { burns_.save(writer); }
    void load(Reader& reader) override { burns_.load(reader); }

private:
    void spend(events::AccountRef ref, const Account& account, const Event& event, const Ledger& ledger, Emit& emit) {
        const Nanos now = ledger.sighting().now;
        const std::uint64_t key = ledger.accounts().hash(ref.index);
        const std::int64_t bin = now / kBin;
        std::uint32_t i = burns_.find(key, [](const Burn&) { return true; });
        if (i == kNone || bin - burns_[i].bin > kMostBins) {
            if (i == kNone) i = burns_.create(key, 0, [](std::uint32_t) {});
            burns_[i] = Burn{};
            burns_[i].since = now;
            burns_[i].bin = bin;
            burns_[i].seen = account.upper();
            return;  // what was spent before is not known to be recent
        }
        burns_.touch(i);
        Burn& burn = burns_[i];
        const bool closed = burn.bin < bin;
        for (; burn.bin < bin; ++burn.bin) close(burn);
        burn.open += static_cast<double>(account.upper()) - static_cast<double>(burn.seen);
        burn.seen = account.upper();
        ++burn.charges;
        if (closed) foresee(burn, ref, account, event, ledger, emit);
    }

    static void close(Burn& burn) noexcept {
        const double spent = burn.open;
        burn.open = 0;
        const double usual = burn.slow.mean();
        if (burn.bins > 0) {
            for (std::size_t b = 0; b < kBlocks.size(); ++b) {
                Burn::Block& block = burn.blocks[b];
                block.sum += spent - usual;
                if (++block.bins < kBlocks[b]) continue;
                block.variance.add(block.sum * block.sum / kBlocks[b], kKeepBin);
                block.sum = 0;
                block.bins = 0;
            }
        }
        ++burn.bins;
        burn.slow.add(spent, kKeepBin);
        burn.fast.add(spent, kKeepFast);
    }

    [[nodiscard]] static Rate rate_of(const Burn& burn) noexcept {
        double variance = 0;
        for (const Burn::Block& block : burn.blocks) variance = std::max(variance, block.variance.mean());
        const Rate fast{burn.fast.mean(), variance, burn.fast.worth()};
        if (fast.mean - burn.slow.mean() > kStandardErrors * std::sqrt(variance / fast.worth)) return fast;
        return {burn.slow.mean(), variance, burn.slow.worth()};
    }

    void foresee(Burn& burn, events::AccountRef ref, const Account& account, const Event& event, const Ledger& ledger,
                 Emit& emit) {
        if (burn.bins < kWarmBins || burn.charges < kWarmCharges || account.spoken != 0) return;
        const double left = static_cast<double>(account.cap) - static_cast<double>(account.upper());
        const Rate rate = rate_of(burn);
        if (left <= 0 || rate.mean <= 0) return;
        const Nanos now = ledger.sighting().now;
        const double ahead = std::min(horizon_s_, static_cast<double>(now - burn.since) * 1e-9) / kBinSeconds;
        const double deviation = std::sqrt(rate.variance * (ahead + ahead * ahead / rate.worth)) + 1.0;
        Facts facts;
        facts.rule = Facts::Rule::forecast;
        facts.exhaust_probability = normal_below((rate.mean * ahead - left) / deviation);
        facts.upper_nusd = account.upper();
        facts.cap_nusd = account.cap;
        if (facts.exhaust_probability < kRearm) burn.spoken = 0;
        const Verdict verdict = emit.judge(facts, ledger, now);
        if (verdict.severity == Severity::info || burn.spoken != 0) return;
        burn.spoken = 1;
        Anomaly a = draft(account, rate, left, ahead * kBinSeconds, facts, verdict, event);
        ledger.name_charges(ref, event.id, a.evidence);
        emit.say(std::move(a));
    }

    [[nodiscard]] static Anomaly draft(const Account& account, const Rate& rate, double left, double ahead_s,
                                       const Facts& facts, const Verdict& verdict, const Event& event) {
        Anomaly a;
        a.ts = a.since = event.ts;
        a.family = Family::economic;
        a.detector = "forecast";
        a.scope.kind = account.kind;
        a.scope.id = account.id.str();
        a.scope.tenant = account.tenant.str();
        if (account.kind == ScopeKind::agent) a.scope.agent = account.id.str();
        a.series = "forecast.exhaustion";
        const double bins = left / rate.mean;
        const double error = kTenthQuantile * std::sqrt(rate.variance * (1.0 / bins + 1.0 / rate.worth));
        a.value = bins * kBinSeconds;
        a.expected = ahead_s;
        a.lower = left / (rate.mean + error) * kBinSeconds;
        a.upper = rate.mean > error ? left / (rate.mean - error) * kBinSeconds : kNotANumber;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence.emplace_back(event.id);
        char text[240];
        std::snprintf(text, sizeof text,
                      "at %.6f USD a minute the cap of %.6f USD is exhausted in %.1f min (80 %% interval from %.1f "
                      "min), with probability %.3f within %.0f min",
                      rate.mean * 60 / kBinSeconds * 1e-9, usd(facts.cap_nusd), a.value / 60, a.lower / 60,
                      facts.exhaust_probability, ahead_s / 60);
        a.message = std::string(to_string(account.kind)) + " '" + account.id.str() + "': " + text;
        return a;
    }

    double horizon_s_;
    events::Slab<Burn> burns_;
};

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Forecasts>(values); }

}  // namespace

extern const AuditorDescriptor forecast_auditor;
const AuditorDescriptor forecast_auditor{
    {"forecast", "burn rate of capped accounts and the time to their exhaustion, with its interval",
     "two-memory burn rates (Site Reliability Workbook, chapter 5) with a normal predictive distribution", kOptions},
    make};

}  // namespace argus::auditors
