#include "engine/engine.hpp"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "engine/catalog.hpp"

namespace argus::engine {
namespace {

constexpr std::uint32_t kStateMagic = 0x41524753;  // "SGRA" on disk
constexpr std::uint32_t kLearnedMagic = 0x4152474C;  // "LGRA" on disk
constexpr std::uint32_t kStateVersion = 5;
constexpr std::uint8_t kSuspended = 1;
constexpr std::uint8_t kSuspendedAnew = 2;

std::string format_number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", value);
    return text;
}

std::string deterministic_id(std::string_view series, Nanos ts, std::uint64_t count) {
    std::uint64_t hash = 0xcbf29ce484222325ULL ^ static_cast<std::uint64_t>(ts);  // FNV-1a
    for (const char c : series) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    hash = (hash ^ count) * 0x9E3779B97F4A7C15ULL;
    hash ^= hash >> 29;
    char text[17];
    std::snprintf(text, sizeof text, "%016" PRIx64, hash);
    return text;
}

Anomaly to_anomaly(const Utterance& said, const SeriesInfo& info, Nanos wall_now, std::uint64_t count) {
    Anomaly anomaly;
    anomaly.series = info.full_name();
    anomaly.id = deterministic_id(anomaly.series, wall_now, count);
    anomaly.ts = wall_now;
    anomaly.family = Family::host;
    if (!info.session.empty()) {
        anomaly.scope.kind = ScopeKind::session;
        anomaly.scope.id = anomaly.scope.session = info.session;
    }
    anomaly.detector = said.detector;
    anomaly.value = said.value;
    anomaly.expected = said.expected;
    anomaly.lower = said.lower;
    anomaly.upper = said.upper;
    anomaly.bits = static_cast<double>(said.bits);
    anomaly.false_alarm_interval_s = said.false_alarm_interval_s;
    anomaly.since = said.since_wall;
    anomaly.direction = said.direction;
    anomaly.evidence = {anomaly.series};
    const std::string unit = info.shown_unit();
    anomaly.message = said.onset
                          ? anomaly.series + " is " + format_number(said.value) + " " + unit + ", expected " +
                                format_number(said.lower) + " to " + format_number(said.upper) + " (" +
                                format_number(static_cast<double>(said.bits)) + " bits)"
                          : anomaly.series + " is back to normal at " + format_number(said.value) + " " + unit;
    return anomaly;
}

Anomaly to_anomaly(const SilenceSaid& said, const SeriesInfo& info, Nanos wall_now, std::uint64_t count) {
    Anomaly anomaly;
    anomaly.series = info.full_name();
    anomaly.id = deterministic_id(anomaly.series, wall_now, count);
    anomaly.ts = wall_now;
    if (!info.session.empty()) {
        anomaly.scope.kind = ScopeKind::session;
        anomaly.scope.id = anomaly.scope.session = info.session;
    }
    anomaly.detector = detectors::silence_detector.leaf.name;
    anomaly.value = said.frozen ? said.value : kNotANumber;
    anomaly.bits = static_cast<double>(said.bits);
    anomaly.since = said.since_wall;
    anomaly.evidence = {anomaly.series};
    const std::string length = format_number(said.length_s);
    const std::string usual = format_number(said.usual_s);
    if (!said.onset) {
        anomaly.message = anomaly.series + (said.frozen ? " moves again" : " arrives again");
    } else if (said.frozen) {
        anomaly.message = anomaly.series + " is frozen at " + format_number(said.value) + " " + info.shown_unit() +
                          " for " + length + " s, never before longer than " + usual + " s";
    } else {
        anomaly.message = anomaly.series + " stopped arriving: nothing for " + length + " s, usually every " + usual +
                          " s";
    }
    return anomaly;
}

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
        return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    });
}

// What an event series says of arrivals: no events in a second are none. Of its other rates 0 is good news.
double arrivals_of(const NumericSeries& series) {
    return std::string_view(series.name) == "agent.events.rate" && series.value > 0.0 ? series.value : kNotANumber;
}

std::vector<SeriesInfo> infos_of(std::span<const NumericSeries> series) {
    std::vector<SeriesInfo> infos;
    for (const NumericSeries& s : series) infos.push_back({s.name, s.unit, Kind::gauge, {}, {}});
    return infos;
}

// A bank needs a detector to stand; without one chosen it is never stepped.
BankOptions bank_options(BankOptions options) {
    if (options.detectors.empty()) options.detectors = BankOptions{}.detectors;
    return options;
}

}  // namespace

Engine::Engine(EngineOptions options)
    : options_(std::move(options)),
      host_(options_.host_plane
                ? std::make_unique<HostPlane>(options_.host, source_catalog(), system_io(), clock_)
                : nullptr),
      events_(options_.events),
      witness_(options_.host_plane ? std::make_unique<FileWitness>(options_.host.roots.proc) : nullptr),
      host_slots_(host_ ? options_.host.max_series : 0),
      event_series_(infos_of(events_.series(clock_.mono()))),
      scores_(!options_.bank.detectors.empty()),
      bank_(host_slots_ + static_cast<std::uint32_t>(event_series_.size()), bank_options(options_.bank)),
      restored_(host_slots_),
      suspended_(bank_.capacity(), 0),
      judged_(bank_.capacity(), kNotANumber),
      history_((bank_.capacity() + kHistoryTile - 1) / kHistoryTile),
      stops_(options_.guard_every_session),
      row_(bank_.capacity(), kNotANumber) {
    for (const NamedDetector& asked : options_.named) {
        BankOptions alone = options_.bank;
        alone.detectors = {asked.choice};
        alone.entity = false;
        named_.push_back({asked.series, Bank(bank_.capacity(), alone),
                          std::vector<double>(bank_.capacity(), kNotANumber),
                          std::vector<std::uint8_t>(bank_.capacity(), 0)});
    }
    if (options_.silence) {
        silence_.emplace(bank_.capacity(), *options_.silence, options_.bank.false_alarms_per_day);
        arrivals_.resize(bank_.capacity(), kNotANumber);
    }
    events_.set_witness(witness_.get());
    for (std::uint32_t i = 0; i < event_series_.size(); ++i) {
        bank_.join(host_slots_ + i, pool_of(event_series_[i].name));
        meet(host_slots_ + i);
    }
}

void Engine::start() {
    if (host_) host_->start();
    started_ = true;
}

void Engine::stop() {
    if (host_ && started_) host_->stop();
    started_ = false;
}

template <class Work>
void Engine::guarded(Work&& work) {
    if (statistics_.failed) throw InternalError("the engine has failed and does not go on");
    try {
        work();
    } catch (const InternalError&) {
        statistics_.failed = true;
        throw;
    }
}

IngestReport Engine::ingest(std::span<const std::byte> frame, std::uint32_t credential, bool require_seq, Nanos now,
                            std::vector<Anomaly>& out) {
    IngestReport report;
    guarded([&] {
        const Nanos start = read_clock(CLOCK_MONOTONIC);
        const std::size_t before = out.size();
        report = events_.ingest(frame, credential, require_seq, now, out);
        decide(std::span(out).subspan(before));
        count(std::span(out).subspan(before));
        statistics_.ingest_ns_total += read_clock(CLOCK_MONOTONIC) - start;
    });
    return report;
}

void Engine::step(Nanos wall_now, std::vector<Anomaly>& out) {
    guarded([&] {
        const Nanos start = read_clock(CLOCK_MONOTONIC);
        const std::size_t before = out.size();
        events_.tick(wall_now, out);
        decide(std::span(out).subspan(before));
        if (host_) {
            if (!started_) host_->poll_once();
            gather_row();
            const std::size_t found = out.size();
            testify(wall_now, out);
            decide(std::span(out).subspan(found));
            row_time_ = wall_now;
            remember();
            std::span<const double> judged = row_;
            if (!suspensions_.empty()) {
                for (std::size_t i = 0; i < row_.size(); ++i) {
                    judged_[i] = suspended_[i] != 0 ? kNotANumber : row_[i];
                }
                judged = judged_;
            }
            if (scores_) {
                bank_.step(judged, clock_.mono(), wall_now);
                speak(wall_now, out);
            }
            watch_named(judged, wall_now, out);
            if (silence_) watch_silence(wall_now, out);
        }
        count(std::span(out).subspan(before));
        ++statistics_.steps;
        statistics_.anomalies += out.size() - before;
        statistics_.step_ns_last = read_clock(CLOCK_MONOTONIC) - start;
        statistics_.step_ns_max = std::max(statistics_.step_ns_max, statistics_.step_ns_last);
    });
}

void Engine::finish(Nanos wall_now, std::vector<Anomaly>& out) {
    step(wall_now, out);
    guarded([&] {
        const std::size_t before = out.size();
        events_.finish(wall_now, out);
        decide(std::span(out).subspan(before));
        count(std::span(out).subspan(before));
    });
}

std::uint32_t Engine::set_agents(std::vector<AgentRoot> roots) {
    if (!host_) return 0;
    std::vector<Anomaly> nothing;
    const Nanos now = events_.now() != 0 ? events_.now() : clock_.wall();
    for (const AgentRoot& root : roots) {
        const auto& before = host_->roots();
        if (std::find(before.begin(), before.end(), root) != before.end()) continue;
        events_.testify(auditors::Presence{root.session}, now, nothing);
    }
    const std::uint32_t refused = host_->set_agents(std::move(roots));
    tell_processes();
    return refused;
}

void Engine::end_session(std::string_view session, int code, int signal, bool stopped, Nanos wall_now,
                         std::vector<Anomaly>& out) {
    guarded([&] {
        const std::size_t before = out.size();
        events_.testify(auditors::Ending{session, code, signal, stopped}, wall_now, out);
        decide(std::span(out).subspan(before));
        count(std::span(out).subspan(before));
    });
}

// What the host shows of the agents since the last step, to the auditor of their claims.
void Engine::testify(Nanos wall_now, std::vector<Anomaly>& out) {
    auditors::FileAnswer answer;
    while (witness_->take(answer)) events_.testify(answer, wall_now, out);
    if (host_->processes_fresh()) {
        for (const AgentUsage& u : host_->agents().usage()) {
            if (u.session.empty()) continue;
            events_.testify(auditors::Activity{u.session, host_->processes().time, u.cpu_s, u.read_bytes,
                                               u.write_bytes, u.started, u.processes}, wall_now, out);
        }
        tell_processes();
    }
    for (const HostPlane::RootExit& exit : host_->root_exits()) {
        const auto& roots = host_->roots();
        const auto same = [&](const AgentRoot& root) { return root.session == exit.session; };
        if (std::count_if(roots.begin(), roots.end(), same) > 1) continue;  // others of the session go on
        events_.testify(auditors::Ending{exit.session, exit.code, exit.signal, false}, wall_now, out);
    }
}

// The witness must know whose files it may look at, and through whose eyes they were written.
void Engine::tell_processes() {
    std::vector<SessionProcess> all;
    for (const AgentRoot& root : host_->roots()) {
        all.push_back({events::hash_text(root.session), root.pid, root.descendants_only});
    }
    const auto owners = host_->agents().owners();
    const sources::ProcessTable& table = host_->processes();
    for (std::size_t row = 0; row < std::min(owners.size(), table.count) && !all.empty(); ++row) {
        if (owners[row] < 0) continue;
        const auto& session = host_->agents().usage()[static_cast<std::size_t>(owners[row])].session;
        all.push_back({events::hash_text(session), table.pid[row], false});
    }
    if (all == told_processes_) return;
    told_processes_ = all;
    witness_->set_processes(std::move(all));
}

void Engine::gather_row() {
    host_->drain();
    for (const std::uint32_t slot : host_->reopened()) open_slot(slot);
    const auto observed = host_->row();
    const auto end = std::copy(observed.begin(), observed.end(), row_.begin());
    std::fill(end, row_.begin() + host_slots_, kNotANumber);
    auto* out = row_.data() + host_slots_;
    for (const NumericSeries& series : events_.series(clock_.mono())) *out++ = series.value;
}

void Engine::open_slot(std::uint32_t slot) {
    const SeriesInfo* info = series(slot);
    if (info == nullptr || restored_[slot].empty() || restored_[slot] != info->full_name()) {
        bank_.reset(std::span(&slot, 1));
        for (Named& named : named_) named.bank.reset(std::span(&slot, 1));
        if (silence_) silence_->reset(slot);
        if (info != nullptr) bank_.join(slot, pool_of(info->name));
    }
    meet(slot);
    restored_[slot].clear();
    suspended_[slot] = suspension_of(slot);
    auto& tile = history_[slot / kHistoryTile];
    const std::uint32_t within = slot % kHistoryTile;
    if (tile) {
        tile->reset(std::span(&within, 1));
    } else {
        tile.emplace(kHistoryTile, options_.history_rows);
    }
}

// Which of the named detectors the slot's series is for.
void Engine::meet(std::uint32_t slot) {
    const SeriesInfo* info = series(slot);
    for (Named& named : named_) {
        named.wanted[slot] = info != nullptr && matches(named.series, info->full_name()) ? 1 : 0;
        if (named.wanted[slot] != 0) named.bank.join(slot, pool_of(info->name));
    }
}

void Engine::watch_named(std::span<const double> judged, Nanos wall_now, std::vector<Anomaly>& out) {
    for (Named& named : named_) {
        for (std::size_t i = 0; i < judged.size(); ++i) named.row[i] = named.wanted[i] != 0 ? judged[i] : kNotANumber;
        named.bank.step(named.row, clock_.mono(), wall_now);
        for (const Utterance& said : named.bank.spoken()) {
            const SeriesInfo* info = series(said.slot);
            if (info != nullptr) out.push_back(to_anomaly(said, *info, wall_now, statistics_.steps));
        }
    }
}

void Engine::watch_silence(Nanos wall_now, std::vector<Anomaly>& out) {
    std::copy_n(row_.begin(), host_slots_, arrivals_.begin());
    auto* behind = arrivals_.data() + host_slots_;
    for (std::size_t i = 0; i < event_series_.size(); ++i) {
        behind[i] = arrivals_of({event_series_[i].name.c_str(), "", row_[host_slots_ + i]});
    }
    const std::span<const std::uint8_t> held = suspended_;
    const auto said = silence_->step(arrivals_, clock_.mono(), wall_now, suspensions_.empty() ? held.first(0) : held);
    if (said.empty()) return;
    for (const bool onset : {true, false}) {
        for (const bool frozen : {false, true}) tell_silence(said, onset, frozen, wall_now, out);
    }
}

// A source that dies takes all its series with it, and brings them back: beyond kMostAtOnce they are one anomaly.
void Engine::tell_silence(std::span<const SilenceSaid> said, bool onset, bool frozen, Nanos wall_now,
                          std::vector<Anomaly>& out) {
    constexpr std::size_t kMostAtOnce = 4;
    constexpr std::size_t kEvidence = 8;
    const std::size_t first = out.size();
    for (const SilenceSaid& each : said) {
        const SeriesInfo* info = series(each.slot);
        if (info == nullptr || each.onset != onset || each.frozen != frozen) continue;  // closed: gone, not silent
        out.push_back(to_anomaly(each, *info, wall_now, statistics_.steps));
    }
    const std::size_t found = out.size() - first;
    if (found <= kMostAtOnce) return;
    Anomaly& whole = out[first];
    for (std::size_t i = first + 1; i < out.size(); ++i) {
        if (whole.evidence.size() < kEvidence) whole.evidence.push_back(out[i].series);
        if (out[i].scope.id != whole.scope.id) whole.scope = Scope{};
        whole.bits = std::max(whole.bits, out[i].bits);
    }
    whole.message += "; " + std::to_string(found - 1) + " more with it";
    out.resize(first + 1);
}

void Engine::remember() {
    std::array<double, kHistoryTile> padded;
    for (std::size_t t = 0; t < history_.size(); ++t) {
        const auto rest = std::span<const double>(row_).subspan(t * kHistoryTile);
        const bool of_events = t * kHistoryTile + kHistoryTile > host_slots_;
        if (!history_[t] && !of_events) continue;
        if (!history_[t]) history_[t].emplace(kHistoryTile, options_.history_rows);
        const auto tile = rest.first(std::min<std::size_t>(rest.size(), kHistoryTile));
        padded.fill(kNotANumber);
        std::copy(tile.begin(), tile.end(), padded.begin());
        history_[t]->push(std::span<const double>(padded), row_time_);
    }
}

std::size_t Engine::history(std::uint32_t slot, std::span<Nanos> times, std::span<float> values) const {
    const auto& tile = history_[slot / kHistoryTile];
    return tile ? tile->copy(slot % kHistoryTile, times, values) : 0;
}

void Engine::speak(Nanos wall_now, std::vector<Anomaly>& out) {
    for (const Utterance& said : bank_.spoken()) {
        const SeriesInfo* info = series(said.slot);
        if (info != nullptr) out.push_back(to_anomaly(said, *info, wall_now, statistics_.steps));
    }
    tell_broken_budget(wall_now, out);
}

void Engine::tell_broken_budget(Nanos wall_now, std::vector<Anomaly>& out) {
    const AlarmBudget& budget = bank_.budget();
    const bool was_broken = std::exchange(budget_broken_, budget.broken());
    if (!budget_broken_ || was_broken) return;
    const Realised of_late = budget.recent();
    Anomaly anomaly;
    anomaly.series = "alarm_budget";
    anomaly.id = deterministic_id(anomaly.series, wall_now, statistics_.steps);
    anomaly.ts = wall_now;
    anomaly.family = Family::self;
    anomaly.detector = "alarm_budget";
    anomaly.value = of_late.alarms;
    anomaly.expected = of_late.requested;
    anomaly.bits = budget.surprise_bits();
    anomaly.direction = of_late.alarms > of_late.requested ? Direction::up : Direction::down;
    anomaly.evidence = {anomaly.series};
    anomaly.message = "the alarm budget is not kept: " + format_number(of_late.alarms) +
                      " alarms in the last month where " + format_number(of_late.requested) +
                      " were asked for; see argus explain budget";
    out.push_back(std::move(anomaly));
}

std::uint32_t Engine::pool_of(const std::string& metric) {
    return pools_.try_emplace(metric, static_cast<std::uint32_t>(pools_.size())).first->second;
}

bool Engine::confirm(std::string_view name, bool true_alarm) {
    for (std::uint32_t slot = 0; slot < bank_.capacity(); ++slot) {
        const SeriesInfo* info = series(slot);
        if (info == nullptr || info->full_name() != name) continue;
        bank_.confirm(slot, true_alarm);
        return true;
    }
    return false;
}

void Engine::suspend(std::vector<Suspension> suspensions) {
    suspensions_ = std::move(suspensions);
    std::vector<std::uint32_t> anew;
    for (std::uint32_t slot = 0; slot < bank_.capacity(); ++slot) {
        const std::uint8_t before = std::exchange(suspended_[slot], suspension_of(slot));
        if (before == kSuspendedAnew && suspended_[slot] == 0) anew.push_back(slot);
    }
    bank_.learn_anew(anew);
    for (Named& named : named_) named.bank.learn_anew(anew);
}

std::uint8_t Engine::suspension_of(std::uint32_t slot) const {
    const SeriesInfo* info = suspensions_.empty() ? nullptr : series(slot);
    if (info == nullptr) return 0;
    const std::string name = info->full_name();
    std::uint8_t found = 0;
    for (const Suspension& each : suspensions_) {
        if (fnmatch(each.series.c_str(), name.c_str(), 0) != 0) continue;
        found = std::max(found, each.anew ? kSuspendedAnew : kSuspended);
    }
    return found;
}

std::uint32_t Engine::suspended() const noexcept {
    return static_cast<std::uint32_t>(suspended_.size()) -
           static_cast<std::uint32_t>(std::count(suspended_.begin(), suspended_.end(), std::uint8_t{0}));
}

void Engine::decide(std::span<const Anomaly> found) {
    for (const Anomaly& anomaly : found) {
        auto decision = stops_.decide(anomaly);
        if (!decision) continue;
        if (word_ && enforce_ && decision->scope.kind == ScopeKind::host) {
            (void)word_->raise_bits(decision->kind == StopKind::hard_kill ? kHostKill : kHostLockdown);
            decision->word_raised = true;
        }
        decisions_.push_back(std::move(*decision));
    }
}

void Engine::count(std::span<const Anomaly> found) noexcept {
    for (const Anomaly& anomaly : found) {
        auto& by_family = statistics_.anomalies_by[static_cast<std::size_t>(anomaly.severity)];
        ++by_family[static_cast<std::size_t>(anomaly.family)];
    }
}

void Engine::release_stop(StopKind kind, ScopeKind scope, const std::string& id) {
    stops_.release(kind, scope, id);
    Scope cleared;
    cleared.kind = scope;
    cleared.id = id;
    events_.rearm(cleared);
}

void Engine::attach_control(const std::string& path) { word_.emplace(path, /*create=*/true); }

const SeriesInfo* Engine::series(std::uint32_t slot) const noexcept {
    if (slot >= host_slots_) {
        const std::size_t at = slot - host_slots_;
        return at < event_series_.size() ? &event_series_[at] : nullptr;
    }
    const auto entries = host_->series();
    return slot < entries.size() && entries[slot].open ? &entries[slot].info : nullptr;
}

std::vector<std::byte> Engine::snapshot() const {
    Writer writer(kStateMagic, kStateVersion);
    writer.pod(statistics_.steps);
    save_series(writer);
    events_.save(writer);
    return writer.finish();
}

std::vector<std::byte> Engine::learned() const {
    Writer writer(kLearnedMagic, kStateVersion);
    save_series(writer);
    return writer.finish();
}

void Engine::save_series(Writer& writer) const {
    writer.pod(host_slots_);
    for (std::uint32_t slot = 0; slot < host_slots_; ++slot) writer.text(learned_name(slot));
    bank_.save(writer);
    for (const Named& named : named_) named.bank.save(writer);
    writer.pod(std::uint8_t{silence_.has_value()});
    if (silence_) silence_->save(writer);
    writer.pod(std::uint8_t{budget_broken_});
    writer.pod(static_cast<std::uint64_t>(pools_.size()));
    for (const auto& [metric, pool] : pools_) {
        writer.text(metric);
        writer.pod(pool);
    }
}

void Engine::restore(std::span<const std::byte> state) {
    const std::vector<std::byte> before = snapshot();
    try {
        load(state);
    } catch (const CodecError&) {
        load(before);
        throw;
    }
}

void Engine::learn_from(std::span<const std::byte> state) {
    const std::vector<std::byte> before = learned();
    try {
        load_learned(state);
    } catch (const CodecError&) {
        load_learned(before);
        throw;
    }
}

void Engine::load(std::span<const std::byte> state) {
    Reader reader(state, kStateMagic, kStateVersion);
    const auto steps = reader.pod<std::uint64_t>();
    load_series(reader);
    events_.load(reader);
    if (!reader.done()) throw CodecError("state: holds more than an engine with these options has");
    statistics_.steps = steps;
}

void Engine::load_learned(std::span<const std::byte> state) {
    Reader reader(state, kLearnedMagic, kStateVersion);
    load_series(reader);
    if (!reader.done()) throw CodecError("state: holds more than an engine with these options has");
}

void Engine::load_series(Reader& reader) {
    if (reader.pod<std::uint32_t>() != host_slots_) throw CodecError("state: of an engine with another host plane");
    std::vector<std::string> names(host_slots_);
    for (std::string& name : names) name = reader.text();
    bank_.load(reader);
    for (Named& named : named_) named.bank.load(reader);
    if ((reader.pod<std::uint8_t>() != 0) != silence_.has_value()) {
        throw CodecError("state: of an engine with another choice of silence");
    }
    if (silence_) silence_->load(reader);
    budget_broken_ = reader.pod<std::uint8_t>() != 0;
    pools_.clear();
    for (auto left = reader.pod<std::uint64_t>(); left > 0; --left) {
        std::string metric = reader.text();
        pools_[std::move(metric)] = reader.pod<std::uint32_t>();
    }
    for (std::uint32_t slot = 0; slot < host_slots_; ++slot) {
        const SeriesInfo* open = series(slot);
        if (open == nullptr) continue;
        if (names[slot] != open->full_name()) {
            bank_.reset(std::span(&slot, 1));
            for (Named& named : named_) named.bank.reset(std::span(&slot, 1));
            if (silence_) silence_->reset(slot);
            bank_.join(slot, pool_of(open->name));
        }
        names[slot].clear();
    }
    restored_ = std::move(names);
}

std::string Engine::learned_name(std::uint32_t slot) const {
    const SeriesInfo* open = series(slot);
    return open != nullptr ? open->full_name() : restored_[slot];
}

}  // namespace argus::engine
