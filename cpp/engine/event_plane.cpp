#include "engine/event_plane.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "engine/catalog.hpp"

namespace argus::engine {
namespace {

using events::Decoded;
using events::IdStatus;
using events::kNone;
using events::Reject;

constexpr Nanos kTickGrid = 100 * kMillisecond;  // deadlines on event time are looked at so often
constexpr std::uint32_t kMagic = 0x45475241;     // "ARGE"

[[nodiscard]] std::string hexadecimal(std::uint64_t value) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text(16, '0');
    for (std::size_t i = 16; i-- > 0; value >>= 4) text[i] = kDigits[value & 0xfU];
    return text;
}

[[nodiscard]] std::vector<double> defaults(const Leaf& leaf) {
    std::vector<double> values;
    for (const Option& option : leaf.options) values.push_back(option.value);
    return values;
}

void check_values(const Leaf& leaf, const std::vector<double>& values) {
    const std::string where = std::string("auditors.") + leaf.name;
    if (values.size() != leaf.options.size()) {
        throw std::invalid_argument(where + ": expected " + std::to_string(leaf.options.size()) + " values, found " +
                                    std::to_string(values.size()) + "; not started");
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
        const Option& option = leaf.options[i];
        if (values[i] >= option.min && values[i] <= option.max) continue;
        throw std::invalid_argument(where + "." + option.name + ": expected a number in [" +
                                    std::to_string(option.min) + ", " + std::to_string(option.max) + "], found " +
                                    std::to_string(values[i]) + "; not started");
    }
}

}  // namespace

std::vector<AuditorChoice> default_auditors() {
    std::vector<AuditorChoice> all;
    for (const auto* auditor : auditor_catalog()) all.push_back({auditor, {}});
    return all;
}

std::uint32_t IngestReport::rejected_total() const noexcept {
    return std::accumulate(rejected.begin(), rejected.end(), std::uint32_t{0});
}

EventPlane::EventPlane(EventPlaneOptions options)
    : options_(std::move(options)),
      ledger_(options_.ledger),
      quarantine_(options_.quarantine),
      series_{{{"agent.events.rate", "{event}/s", kNotANumber},
               {"agent.events.rejected.rate", "{event}/s", kNotANumber},
               {"agent.cost.rate", "USD/s", kNotANumber}}} {
    for (AuditorChoice& choice : options_.auditors) {
        if (choice.values.empty()) choice.values = defaults(choice.auditor->leaf);
        check_values(choice.auditor->leaf, choice.values);
        chosen_.push_back(choice.auditor);
        auditors_.push_back(choice.auditor->make(choice.values));
        if (!options_.constraints.empty()) auditors_.back()->constrain(options_.constraints);
    }
    for (const CriterionChoice& c : options_.criteria) {
        criteria_.configure(c.name, c.values);
        criteria_.enable(c.name, c.enabled);
    }
}

EventPlane::~EventPlane() = default;

std::uint32_t EventPlane::bind_session(std::string_view tenant, std::string_view session) {
    if (session.empty() || session.size() > 128 || tenant.size() > 64) {
        throw std::invalid_argument("bind_session: expected a session of 1 to 128 bytes and a tenant of at most 64, "
                                    "found " + std::to_string(session.size()) + " and " +
                                    std::to_string(tenant.size()) + "; nothing bound");
    }
    if (owner(session) != nullptr) {
        throw std::invalid_argument("bind_session: session '" + std::string(session) +
                                    "' is owned by another credential; nothing bound");
    }
    ledger_.pin(ScopeKind::session, tenant, session, true);
    bindings_.push_back({next_credential_, events::hash_text(session), std::string(tenant), std::string(session)});
    return next_credential_++;
}

void EventPlane::release(std::uint32_t credential) {
    const auto at = std::find_if(bindings_.begin(), bindings_.end(),
                                 [&](const Binding& b) { return b.credential == credential; });
    if (at == bindings_.end()) return;
    ledger_.pin(ScopeKind::session, at->tenant, at->session, false);
    bindings_.erase(at);
}

void EventPlane::set_cap(ScopeKind kind, std::string_view tenant, std::string_view id, std::int64_t cap_nusd,
                         bool strict) {
    ledger_.set_cap(kind, tenant, id, cap_nusd, strict);
}

const EventPlane::Binding* EventPlane::owner(std::string_view session) const noexcept {
    if (bindings_.empty()) return nullptr;
    const std::uint64_t hash = events::hash_text(session);
    for (const Binding& b : bindings_) {
        if (b.hash == hash && b.session == session) return &b;
    }
    return nullptr;
}

// A session belongs to its credential under whatever tenant, since stops are named by the session alone. What a bound
// credential sends is its session's whatever it claims: otherwise a run could spend under another name.
bool EventPlane::claim(Event& event, std::uint32_t credential) const noexcept {
    if (credential == 0) return event.session.empty() || owner(event.session) == nullptr;
    const auto at = std::find_if(bindings_.begin(), bindings_.end(),
                                 [&](const Binding& b) { return b.credential == credential; });
    if (at == bindings_.end()) return false;  // released
    if (!event.session.empty() && event.session != at->session && owner(event.session) != nullptr) return false;
    event.session = at->session;
    event.tenant = at->tenant;
    return true;
}

void EventPlane::reject(const Decoded& decoded, std::uint32_t credential, IngestReport& report) noexcept {
    const auto reason = static_cast<std::size_t>(decoded.reject);
    ++report.rejected[reason];
    ++totals_.rejected[reason];
    ledger_.note_rejected(decoded.event, decoded.reject, credential);
    if (quarantine_.empty()) return;
    Quarantined& kept = quarantine_[quarantined_++ % quarantine_.size()];
    kept.reason = decoded.reject;
    kept.detail = decoded.detail;
    kept.source.assign(decoded.event.source);
    kept.ts = now_;
    kept.whole = static_cast<std::uint32_t>(std::min<std::size_t>(decoded.bytes.size(), 0xffffffffU));
    kept.size = static_cast<std::uint16_t>(std::min(decoded.bytes.size(), kept.bytes.size()));
    std::copy_n(decoded.bytes.begin(), kept.size, kept.bytes.begin());
}

void EventPlane::advance(Nanos now) {
    const Nanos before = now_;
    now_ = std::max(now_, now);
    if (before / kTickGrid == now_ / kTickGrid) return;
    ledger_.expire(now_);
    for (const auto& auditor : auditors_) auditor->on_tick(now_, ledger_, *this);
}

void EventPlane::accept(Decoded& decoded, std::uint32_t credential, Nanos now, IngestReport& report) {
    if (!claim(decoded.event, credential)) {
        decoded.reject = Reject::forged_scope;
        decoded.detail = "session";
        reject(decoded, credential, report);
        return;
    }
    if (now == kEventTime) advance(decoded.event.ts);
    ++report.accepted;
    ++totals_.accepted;
    if (decoded.event.type == EventType::unknown) ++totals_.unknown_types;
    const events::Sighting& seen = ledger_.observe(decoded.event, credential, now_);
    if (seen.id == IdStatus::retransmission) {
        ++totals_.retransmissions;
        return;
    }
    for (const auto& auditor : auditors_) auditor->on_event(decoded.event, ledger_, *this);
}

IngestReport EventPlane::ingest(std::span<const std::byte> frame, std::uint32_t credential, bool require_seq, Nanos now,
                                std::vector<Anomaly>& out) {
    out_ = &out;
    said_ = 0;
    ++totals_.frames;
    if (now != kEventTime) advance(now);
    IngestReport report;
    events::FrameDecoder decoder(frame, require_seq);
    Decoded decoded;
    while (decoder.next(decoded)) {
        if (decoded.reject == Reject::none) accept(decoded, credential, now, report);
        else reject(decoded, credential, report);
    }
    out_ = nullptr;
    return report;
}

void EventPlane::rearm(const Scope& scope) {
    for (const auto& auditor : auditors_) auditor->rearm(scope, ledger_);
}

void EventPlane::tick(Nanos now, std::vector<Anomaly>& out) {
    out_ = &out;
    said_ = 0;
    now_ = std::max(now_, now);
    ledger_.expire(now_);
    for (const auto& auditor : auditors_) auditor->on_tick(now_, ledger_, *this);
    out_ = nullptr;
}

void EventPlane::testify(const auditors::HostFact& fact, Nanos now, std::vector<Anomaly>& out) {
    out_ = &out;
    said_ = 0;
    now_ = std::max(now_, now);
    for (const auto& auditor : auditors_) auditor->on_fact(fact, now_, ledger_, *this);
    out_ = nullptr;
}

void EventPlane::finish(Nanos now, std::vector<Anomaly>& out) {
    tick(now, out);
    out_ = &out;
    for (const auto& auditor : auditors_) auditor->finish(now_, ledger_, *this);
    out_ = nullptr;
}

auditors::Verdict EventPlane::judge(const auditors::Facts& facts, const events::Ledger& ledger, Nanos now) const {
    return criteria_.judge(facts, ledger, now);
}

void EventPlane::say(Anomaly&& anomaly) {
    const std::uint64_t number = totals_.anomalies++;
    if (said_ >= options_.max_anomalies) {
        ++totals_.unspoken;
        return;
    }
    ++said_;
    const std::uint64_t kind = static_cast<std::uint64_t>(anomaly.scope.kind);
    std::uint64_t hash = events::hash_parts(kind, anomaly.series, anomaly.scope.id, anomaly.scope.tenant);
    hash = events::mix(hash ^ static_cast<std::uint64_t>(anomaly.ts), 2 * number + 0x9e3779b97f4a7c15ULL);
    anomaly.id = hexadecimal(hash);
    out_->push_back(std::move(anomaly));
}

bool EventPlane::ask(const auditors::FileQuestion& question) {
    return witness_ != nullptr && witness_->ask(question);
}

auditors::ClaimReport EventPlane::claims() const {
    auditors::ClaimReport report;
    for (const auto& auditor : auditors_) auditor->report(report);
    return report;
}

events::Spend EventPlane::spend(ScopeKind kind, std::string_view tenant, std::string_view id) const {
    return ledger_.spend(kind, tenant, id);
}

std::vector<EventSourceStatus> EventPlane::sources() const {
    std::vector<EventSourceStatus> all;
    const auto& sources = ledger_.sources();
    for (std::uint32_t i = sources.newest(); i != kNone; i = sources.older(i)) {
        const events::Source& s = sources[i];
        all.push_back({s.name.str(), s.credential, s.events, s.lost, s.late, s.retransmissions, s.reused_ids,
                       s.rejected, s.lossless, s.last_ts, s.last_seen, s.shown});
    }
    return all;
}

EventPlaneTotals EventPlane::totals() const {
    EventPlaneTotals t = totals_;
    t.live_sources = ledger_.live_sources(now_);
    t.tasks = ledger_.tasks().size();
    t.live_tasks = ledger_.tasks().size(events::kOwed);
    t.accounts = ledger_.accounts().size();
    t.evicted_sources = ledger_.sources().evicted();
    t.evicted_tasks = ledger_.tasks().evicted();
    t.evicted_accounts = ledger_.accounts().evicted();
    t.evicted_calls = ledger_.calls().evicted();
    return t;
}

std::vector<Quarantined> EventPlane::quarantine() const {
    std::vector<Quarantined> all;
    const std::uint64_t kept = std::min<std::uint64_t>(quarantined_, quarantine_.size());
    for (std::uint64_t i = quarantined_ - kept; i < quarantined_; ++i) {
        all.push_back(quarantine_[i % quarantine_.size()]);
    }
    return all;
}

std::span<const NumericSeries> EventPlane::series(Nanos now) noexcept {
    const auto rejects = std::accumulate(totals_.rejected.begin(), totals_.rejected.end(), std::uint64_t{0});
    const double elapsed = static_cast<double>(now - series_at_) * 1e-9;
    const bool measured = series_at_ != 0 && elapsed > 0;
    const std::int64_t cost = ledger_.metered_total();
    series_[0].value = measured ? static_cast<double>(totals_.accepted - series_events_) / elapsed : kNotANumber;
    series_[1].value = measured ? static_cast<double>(rejects - series_rejects_) / elapsed : kNotANumber;
    series_[2].value = measured ? static_cast<double>(cost - series_cost_) * 1e-9 / elapsed : kNotANumber;
    if (series_at_ == 0 || elapsed > 0) {
        series_at_ = now;
        series_events_ = totals_.accepted;
        series_rejects_ = rejects;
        series_cost_ = cost;
    }
    return series_;
}

void EventPlane::save(Writer& writer) const {
    writer.pod(kMagic);
    writer.pod(now_);
    writer.pod(totals_);
    writer.pod(next_credential_);
    writer.pod(static_cast<std::uint64_t>(bindings_.size()));
    for (const Binding& b : bindings_) {
        writer.pod(b.credential);
        writer.text(b.tenant);
        writer.text(b.session);
    }
    ledger_.save(writer);
    writer.pod(static_cast<std::uint64_t>(auditors_.size()));
    for (std::size_t i = 0; i < auditors_.size(); ++i) {
        writer.text(chosen_[i]->leaf.name);
        auditors_[i]->save(writer);
    }
}

void EventPlane::load(Reader& reader) {
    if (reader.pod<std::uint32_t>() != kMagic) {
        throw CodecError("state: expected the event plane's part, found another");
    }
    now_ = reader.pod<Nanos>();
    totals_ = reader.pod<EventPlaneTotals>();
    next_credential_ = reader.pod<std::uint32_t>();
    bindings_.clear();
    for (auto n = reader.pod<std::uint64_t>(); n > 0; --n) {
        Binding b{reader.pod<std::uint32_t>(), 0, reader.text(), {}};
        b.session = reader.text();
        b.hash = events::hash_text(b.session);
        bindings_.push_back(std::move(b));
    }
    ledger_.load(reader);
    if (reader.pod<std::uint64_t>() != auditors_.size()) throw CodecError("state: other auditors than configured");
    for (std::size_t i = 0; i < auditors_.size(); ++i) {
        if (reader.text() != chosen_[i]->leaf.name) throw CodecError("state: other auditors than configured");
        auditors_[i]->load(reader);
    }
    series_at_ = 0;
}

}  // namespace argus::engine
