// Absolute caps on spend per session, agent, tenant and host: set at run time, or by default for every scope of a kind.
// "budget.cap" when metered + reserved spend reaches the cap, "budget.share" when the upper bound reaches its share
// (criteria C1 and W1). Said once as it rises; said again only after spend fell well below, or the cap was set anew.
// Deterministic: no statistics, exact integers.  Cost: bench_events events/budget.

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include "auditors/auditor.hpp"

namespace argus::auditors {
namespace {

using events::Account;
using events::Ledger;

constexpr Option kOptions[] = {
    {"rearm_share", "1", 0.5, 0, 1, "share of the cap below which spend must fall before it is spoken of again"},
};

class Budget final : public Auditor {
public:
    explicit Budget(std::span<const double> v) : rearm_share_(v[0]) {}

    void on_event(const Event& event, Ledger& ledger, Emit& emit) override {
        const events::Sighting& seen = ledger.sighting();
        if (!seen.money) return;
        for (const events::AccountRef& ref : seen.accounts) {
            if (!ledger.accounts().holds(ref.index, ref.generation)) continue;
            Account& account = ledger.accounts()[ref.index];
            if (account.cap > 0) check(account, ref, event, ledger, emit);
        }
    }

    void on_tick(Nanos, Ledger&, Emit&) override {}
    void rearm(const Scope& scope, Ledger& ledger) override {
        auto& accounts = ledger.accounts();
        for (const std::size_t list : {events::kPinned, events::kCommon}) {
            for (std::uint32_t i = accounts.oldest(list); i != events::kNone; i = accounts.newer(i)) {
                Account& account = accounts[i];
                const bool same = account.kind == scope.kind && account.id == scope.id;
                if (same || scope.kind == ScopeKind::host) account.spoken = 0;
            }
        }
    }
    void save(Writer&) const override {}
    void load(Reader&) override {}

private:
    void check(Account& account, events::AccountRef ref, const Event& event, const Ledger& ledger, Emit& emit) const {
        Facts facts;
        facts.rule = Facts::Rule::budget;
        facts.metered_nusd = account.committed();
        facts.upper_nusd = account.upper();
        facts.cap_nusd = account.cap;
        facts.strict = account.strict;
        const Verdict verdict = emit.judge(facts, ledger, ledger.sighting().now);
        if (verdict.severity == Severity::info) {
            const double share = static_cast<double>(account.upper()) / static_cast<double>(account.cap);
            if (share < rearm_share_) account.spoken = 0;
            return;
        }
        const auto level = static_cast<std::uint8_t>(static_cast<unsigned>(verdict.severity) + 1U);
        if (level <= account.spoken) return;
        account.spoken = level;
        say(account, ref, facts, verdict, event, ledger, emit);
    }

    static void say(const Account& account, events::AccountRef ref, const Facts& facts, const Verdict& verdict,
                    const Event& event, const Ledger& ledger, Emit& emit) {
        const bool full = verdict.severity == Severity::critical;
        Anomaly a;
        a.ts = event.ts;
        a.since = event.ts;
        a.family = Family::economic;
        a.detector = "budget";
        a.scope.kind = account.kind;
        a.scope.id = account.id.str();
        a.scope.tenant = account.tenant.str();
        if (account.kind == ScopeKind::agent) a.scope.agent = account.id.str();
        if (account.kind == ScopeKind::session) {
            a.scope.session = account.id.str();
            a.scope.agent = event.agent;
            a.scope.task = event.task;
        }
        a.series = full ? "budget.cap" : "budget.share";
        const bool estimated = !full || facts.strict;
        a.value = usd(estimated ? facts.upper_nusd : facts.metered_nusd);
        a.expected = kNotANumber;
        a.upper = usd(facts.cap_nusd);
        a.bits = kDeterministicBits;
        a.direction = Direction::up;
        a.severity = verdict.severity;
        a.criterion = verdict.criterion;
        a.evidence.emplace_back(event.id);
        ledger.name_charges(ref, event.id, a.evidence);
        char text[160];
        std::snprintf(text, sizeof text, "spend of %.6f USD (metered and reserved %.6f) against a cap of %.6f USD",
                      a.value, usd(facts.metered_nusd), usd(facts.cap_nusd));
        a.message = std::string(to_string(account.kind)) + " '" + account.id.str() + "': " + text;
        emit.say(std::move(a));
    }

    double rearm_share_;
};

std::unique_ptr<Auditor> make(std::span<const double> values) { return std::make_unique<Budget>(values); }

}  // namespace

extern const AuditorDescriptor budget_auditor;
const AuditorDescriptor budget_auditor{
    {"budget", "absolute caps on spend per session, agent, tenant and host",
     "exact integer accounts with reservations", kOptions},
    make};

}  // namespace argus::auditors
