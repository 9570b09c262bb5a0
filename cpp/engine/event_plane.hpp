// The event plane: frames of agent events in, judged anomalies out. It composes decoder, ledger, auditors and criteria,
// decides who may speak for which session, and keeps the counts that say what was accepted, refused, lost or shed.
// One thread. ingest() allocates nothing but the anomalies it appends, `max_anomalies` a call (the rest is counted).
// Time: `now` is wall clock at arrival; kEventTime takes each event's own ts instead, so that a replay meets the same
// deadlines as the live run did. Cost: bench_events events/ingest.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "auditors/auditor.hpp"
#include "auditors/constraints.hpp"
#include "engine/criteria.hpp"
#include "events/decode.hpp"
#include "events/ledger.hpp"
#include "model/anomaly.hpp"

namespace argus::engine {

using events::kRejectReasons;
inline constexpr Nanos kEventTime = std::numeric_limits<Nanos>::min();

struct AuditorChoice {
    const auditors::AuditorDescriptor* auditor = nullptr;
    std::vector<double> values;  // in descriptor order; empty = defaults
};
struct CriterionChoice {
    std::string name;
    bool enabled = true;
    std::vector<double> values;  // in descriptor order
};

[[nodiscard]] std::vector<AuditorChoice> default_auditors();  // every one, with its defaults

struct EventPlaneOptions {
    events::LedgerOptions ledger;
    std::vector<AuditorChoice> auditors = default_auditors();  // none = events are counted, not judged
    std::vector<auditors::Constraint> constraints;  // beside the built-in ones, or in place of those of a like name
    std::vector<CriterionChoice> criteria;  // those not named hold with their defaults
    std::uint32_t max_anomalies = 4096;   // appended per call
    std::uint32_t quarantine = 64;        // refused events kept as a sample, newest
};

struct IngestReport {
    std::uint32_t accepted = 0;  // retransmissions counted too: they were taken, and ignored
    std::array<std::uint32_t, kRejectReasons> rejected{};
    [[nodiscard]] std::uint32_t rejected_total() const noexcept;
};

struct EventSourceStatus {
    std::string name;
    std::uint32_t credential = 0;
    std::uint64_t events = 0, lost = 0, late = 0, retransmissions = 0, reused_ids = 0;
    std::array<std::uint64_t, kRejectReasons> rejected{};
    bool lossless = false;
    Nanos last_ts = 0, last_seen = 0;
    std::uint64_t types = 0;  // bit per EventType it has emitted
};

struct Quarantined {
    events::Reject reason = events::Reject::none;
    const char* detail = "";
    events::InlineText<128> source;
    std::uint16_t size = 0;  // of `bytes` in use
    std::uint32_t whole = 0; // bytes of the event
    Nanos ts = 0;
    std::array<std::byte, 256> bytes{};
};

struct EventPlaneTotals {
    std::uint64_t frames = 0, accepted = 0, unknown_types = 0, retransmissions = 0, anomalies = 0, unspoken = 0;
    std::array<std::uint64_t, kRejectReasons> rejected{};
    std::uint32_t live_sources = 0, live_tasks = 0, tasks = 0, accounts = 0;
    std::uint64_t evicted_sources = 0, evicted_tasks = 0, evicted_accounts = 0, evicted_calls = 0;
};

struct NumericSeries {
    const char* name;
    const char* unit;
    double value;
};

class EventPlane final : private auditors::Emit {
public:
    explicit EventPlane(EventPlaneOptions options);
    ~EventPlane() override;

    // A credential (> 0) that alone may speak for that session: its events belong to it whatever they claim, and others
    // that claim it are refused as forged. 0 is the shared inlet, bound to nothing.
    [[nodiscard]] std::uint32_t bind_session(std::string_view tenant, std::string_view session);
    void release(std::uint32_t credential);
    void set_cap(ScopeKind kind, std::string_view tenant, std::string_view id, std::int64_t cap_nusd, bool strict);

    IngestReport ingest(std::span<const std::byte> frame, std::uint32_t credential, bool require_seq, Nanos now,
                        std::vector<Anomaly>& out);
    void tick(Nanos now, std::vector<Anomaly>& out);
    void rearm(const Scope& scope);  // see Auditor::rearm
    // What the host shows of the agents, at wall clock `now`; see auditors/host_facts.hpp.
    void testify(const auditors::HostFact& fact, Nanos now, std::vector<Anomaly>& out);
    void set_witness(auditors::Witness* witness) noexcept { witness_ = witness; }  // null = nobody looks at files
    void finish(Nanos now, std::vector<Anomaly>& out);  // end of a replay: nothing is waited for any longer

    [[nodiscard]] events::Spend spend(ScopeKind kind, std::string_view tenant, std::string_view id) const;
    [[nodiscard]] std::vector<EventSourceStatus> sources() const;  // newest first
    [[nodiscard]] EventPlaneTotals totals() const;
    [[nodiscard]] auditors::ClaimReport claims() const;
    [[nodiscard]] std::vector<Quarantined> quarantine() const;  // oldest first
    // Rates since the previous call, for the host's bank: events, rejects and metered cost per second.
    [[nodiscard]] std::span<const NumericSeries> series(Nanos now) noexcept;

    [[nodiscard]] const events::Ledger& ledger() const noexcept { return ledger_; }
    [[nodiscard]] Nanos now() const noexcept { return now_; }

    void save(Writer& writer) const;
    void load(Reader& reader);

private:
    struct Binding {
        std::uint32_t credential;
        std::uint64_t hash;
        std::string tenant, session;
    };

    [[nodiscard]] auditors::Verdict judge(const auditors::Facts& facts, const events::Ledger& ledger,
                                          Nanos now) const override;
    void say(Anomaly&& anomaly) override;
    [[nodiscard]] bool ask(const auditors::FileQuestion& question) override;

    void accept(events::Decoded& decoded, std::uint32_t credential, Nanos now, IngestReport& report);
    void reject(const events::Decoded& decoded, std::uint32_t credential, IngestReport& report) noexcept;
    [[nodiscard]] bool claim(Event& event, std::uint32_t credential) const noexcept;
    [[nodiscard]] const Binding* owner(std::string_view session) const noexcept;
    void advance(Nanos now);

    EventPlaneOptions options_;
    events::Ledger ledger_;
    Criteria criteria_;
    std::vector<const auditors::AuditorDescriptor*> chosen_;
    std::vector<std::unique_ptr<auditors::Auditor>> auditors_;
    std::vector<Binding> bindings_;
    std::uint32_t next_credential_ = 1;
    Nanos now_ = 0;
    auditors::Witness* witness_ = nullptr;
    std::vector<Anomaly>* out_ = nullptr;
    std::uint32_t said_ = 0;
    EventPlaneTotals totals_;
    std::vector<Quarantined> quarantine_;
    std::uint64_t quarantined_ = 0;
    std::array<NumericSeries, 3> series_;
    Nanos series_at_ = 0;
    std::uint64_t series_events_ = 0, series_rejects_ = 0;
    std::int64_t series_cost_ = 0;
};

}  // namespace argus::engine
