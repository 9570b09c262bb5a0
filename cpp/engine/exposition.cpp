#include "engine/exposition.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "sources/text.hpp"

namespace argus::engine {
namespace {

constexpr Nanos kShortestInterval = kSecond;
constexpr Nanos kLongestInterval = 60 * kSecond;  // of a series seen once, whose own is not known yet
constexpr std::size_t kChangesMax = 4096;
constexpr double kNanosPerSecond = 1e9;

struct SelfFamily {
    const char* name;
    MetricType type;
    const char* help;
};
constexpr MetricType C = MetricType::counter;
constexpr MetricType G = MetricType::gauge;

enum Self : std::size_t {
    kSteps, kStepDuration, kStepDurationMax, kLastStep, kIngestSeconds, kFailed, kAnomalies,
    kEventFrames, kEventsAccepted, kEventsRejected, kEventsUnknown, kEventsRepeated, kEventsUnspoken, kEventsEvicted,
    kEventSources, kTasks, kClaims, kClaimsUnverifiable, kCoverage,
    kSourceUp, kPolls, kValues, kMalformed, kErrors, kMissed, kDropped, kLateness, kDuration, kDurationMax,
    kRateFaults, kSamplesStale, kSeriesRefused, kProcesses, kScrapeSeries, kScrapeLeftOut, kSelfCount,
};
constexpr SelfFamily kSelf[] = {
    {"argus_engine_steps_total", C, "Steps of the engine."},
    {"argus_engine_step_duration_seconds", G, "Time that the last step took."},
    {"argus_engine_step_duration_max_seconds", G, "Longest time that a step took."},
    {"argus_engine_last_step_timestamp_seconds", G, "Unix time of the last step that read the host."},
    {"argus_engine_ingest_seconds_total", C, "Time spent judging events as they came."},
    {"argus_engine_failed", G, "1 when a broken invariant has stopped the engine."},
    {"argus_anomalies_total", C, "Anomalies by what each justifies alone, and by family."},
    {"argus_events_frames_total", C, "Frames of events received."},
    {"argus_events_accepted_total", C, "Events accepted, retransmissions among them."},
    {"argus_events_rejected_total", C, "Events refused, by reason."},
    {"argus_events_unknown_type_total", C, "Events of a type that the schema does not name."},
    {"argus_events_retransmitted_total", C, "Events that were byte-identical repeats."},
    {"argus_events_unspoken_total", C, "Anomalies beyond the most that one call reports."},
    {"argus_events_evicted_total", C, "Sources, tasks, accounts and calls forgotten for lack of room."},
    {"argus_event_sources", G, "Sources of events that are known."},
    {"argus_tasks", G, "Tasks in the ledger, by state."},
    {"argus_claims_total", C, "Files that agents claimed to have written, by what the host showed of them."},
    {"argus_claims_unverifiable_total", C, "Of them those that could not be looked at, by why."},
    {"argus_agent_coverage_ratio", G, "Share of an agent's activity that its events account for, by what it used."},
    {"argus_source_up", G, "1 when the last poll of this source of host numbers went well."},
    {"argus_source_polls_total", C, "Polls of a source."},
    {"argus_source_values_total", C, "Values that a source emitted."},
    {"argus_source_malformed_total", C, "Lines and fields that a source skipped."},
    {"argus_source_errors_total", C, "Polls of a source that failed."},
    {"argus_source_missed_ticks_total", C, "Polls that were due while another ran."},
    {"argus_source_dropped_values_total", C, "Values lost for lack of room on their way to the engine."},
    {"argus_source_lateness_max_seconds", G, "Longest time by which a poll began late."},
    {"argus_source_poll_duration_seconds", G, "Time that the last poll of a source took."},
    {"argus_source_poll_duration_max_seconds", G, "Longest time that a poll of a source took."},
    {"argus_rate_faults_total", C, "Counters that did something else than count, by kind."},
    {"argus_samples_stale_total", C, "Samples of series that were closed on their way."},
    {"argus_series_refused_total", C, "Series beyond the most that the engine holds."},
    {"argus_processes", G, "Processes in the newest table."},
    {"argus_scrape_series", G, "Series of the host in this scrape."},
    {"argus_scrape_left_out_series", G, "Series of the host that are not in this scrape, by reason."},
};
static_assert(std::size(kSelf) == kSelfCount);

std::string_view base_of(std::string_view name, MetricType type) noexcept {
    constexpr std::string_view suffix = "_total";
    if (type == MetricType::counter && name.ends_with(suffix)) name.remove_suffix(suffix.size());
    return name;
}

bool is_metric_name(std::string_view name) noexcept {
    const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    return !name.empty() && letter(name.front()) &&
           std::all_of(name.begin(), name.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

std::string header_of(Exposition::Format format, std::string_view name, MetricType type, std::string_view help) {
    const bool open = format == Exposition::Format::openmetrics;
    const char* word = type == MetricType::counter ? "counter"
                       : type == MetricType::gauge ? "gauge"
                       : open                      ? "unknown"
                                                   : "untyped";
    const std::string family(open ? base_of(name, type) : name);
    std::string out = "# HELP " + family + " ";
    append_help(out, help, open);
    out += "\n# TYPE " + family + " " + word + "\n";
    return out;
}

double seconds(Nanos time) noexcept { return static_cast<double>(time) / kNanosPerSecond; }

}  // namespace

// One exposition as it is written. A family's header comes with its first sample.
class Exposition::Page {
public:
    Page(Format format, std::string& out) : format_(format), out_(&out) {}

    void family(std::string_view header) noexcept {
        header_ = header;
        text_.clear();
    }
    void family(const SelfFamily& self) {
        text_ = header_of(format_, self.name, self.type, self.help);
        header_ = text_;
        name_ = self.name;
    }
    void sample(std::string_view line, double value) {
        out_->append(std::exchange(header_, {}));
        out_->append(line);
        append_number(*out_, value);
        *out_ += '\n';
    }
    // Of the family begun last.
    void put(const std::vector<Label>& labels, double value) {
        std::string line(name_);
        append_labels(line, labels);
        sample(line + " ", value);
    }
    void put(const char* label, std::string_view of, double value) { put({{label, std::string(of)}}, value); }
    void put(double value) { put(std::vector<Label>{}, value); }
    void one(const SelfFamily& self, double value) {
        family(self);
        put(value);
    }
    void count(const SelfFamily& self, std::uint64_t value) { one(self, static_cast<double>(value)); }

    [[nodiscard]] Format format() const noexcept { return format_; }
    std::size_t seen = 0;  // series of the host
    std::size_t unseen = 0;

private:
    Format format_;
    std::string* out_;
    std::string_view header_;
    std::string text_;
    std::string_view name_;
};

Exposition::Exposition(ExpositionOptions options) : options_(std::move(options)) {
    for (const SelfFamily& self : kSelf) reserved_.emplace(base_of(self.name, self.type));
    const OwnMetric* before = nullptr;
    for (const OwnMetric& own : options_.own) {
        const bool goes_on = before != nullptr && before->name == own.name && before->type == own.type;
        const bool counts = own.type == MetricType::counter;
        const bool named = is_metric_name(own.name) && counts == own.name.ends_with("_total");
        if (!named || (!goes_on && !reserved_.emplace(base_of(own.name, own.type)).second)) {
            throw std::invalid_argument("exposition: expected the legal name of one more family, found '" + own.name +
                                        "'");
        }
        before = &own;
    }
}

// --- The publisher's side --------------------------------------------------------------------------------------------

void Exposition::publish(const Published& now) {
    if (now.own.size() != options_.own.size()) {
        throw std::invalid_argument("exposition: expected a value for each own metric");
    }
    Frame& frame = frames_.back();
    frame.has_host = now.host != nullptr;
    if (now.host != nullptr) {
        if (now.host->layout_version() != layout_) note_changes(*now.host);
        const auto newest = now.host->newest();
        frame.newest.assign(newest.begin(), newest.end());
        const auto sources = now.host->status();
        frame.sources.assign(sources.begin(), sources.end());
        frame.faults = now.host->rate_faults();
        frame.stale = now.host->stale();
        frame.refused = now.host->refused();
        frame.processes = now.host->processes().count;
    }
    frame.own.assign(now.own.begin(), now.own.end());
    frame.engine = now.engine;
    frame.events = now.events;
    frame.claims = now.claims;
    frame.step_wall = now.step_wall;
    frames_.publish();
    version_.fetch_add(1, std::memory_order_release);
}

void Exposition::note_changes(HostPlane& host) {
    const auto series = host.series();
    known_.resize(series.size(), 0);
    const std::lock_guard lock(changes_mutex_);
    for (std::uint32_t slot = 0; slot < series.size(); ++slot) {
        const SeriesEntry& entry = series[slot];
        const std::uint32_t generation = entry.open ? entry.slot.generation : 0;
        if (generation == std::exchange(known_[slot], generation)) continue;
        changes_.push_back({slot, generation, entry.open ? entry.info : SeriesInfo{}});
    }
    if (changes_.size() > kChangesMax + 2 * known_.size()) compact_changes();
    layout_ = host.layout_version();
}

// Nobody has scraped for long: of each slot only the last change matters.
void Exposition::compact_changes() {
    std::vector<bool> later(known_.size(), false);
    std::vector<Change> kept;
    for (std::size_t i = changes_.size(); i-- > 0;) {
        if (later[changes_[i].slot]) continue;
        later[changes_[i].slot] = true;
        kept.push_back(std::move(changes_[i]));
    }
    changes_ = std::move(kept);
}

// --- The scrapes' side -----------------------------------------------------------------------------------------------

void Exposition::take_changes() {
    taken_.clear();
    {
        const std::lock_guard lock(changes_mutex_);
        std::swap(taken_, changes_);
    }
    if (taken_.empty()) return;
    for (Change& change : taken_) {
        if (change.slot >= infos_.size()) {
            infos_.resize(change.slot + 1);
            generations_.resize(change.slot + 1, 0);
        }
        infos_[change.slot] = std::move(change.info);
        generations_[change.slot] = change.generation;
    }
    plan();
}

void Exposition::plan() {
    families_.clear();
    collisions_ = 0;
    unnamed_ = 0;
    for (std::uint32_t slot = 0; slot < infos_.size(); ++slot) {
        if (generations_[slot] != 0) plan_series(slot, infos_[slot]);
    }
    for (auto& [base, group] : families_) merge_lines(group);
}

void Exposition::plan_series(std::uint32_t slot, const SeriesInfo& info) {
    std::string name = metric_name(info.name, info.unit, info.kind);
    if (name.empty()) {
        ++unnamed_;
    } else {
        const MetricType type = info.kind == Kind::counter ? C : G;
        const std::string help = "OpenTelemetry " + label_value(info.name) + " in " + label_value(info.unit) + ".";
        add(std::move(name), type, info.name + '\0' + info.unit, help, labels_of(info.attributes), {slot, 1}, 1);
    }
    if (!options_.node_exporter_names) return;
    for (const NodeSeries& node : node_series(info)) {
        const std::string help = std::string("As node_exporter has it, from ") + node.row->otel + ".";
        add(node.row->name, node.row->type, node.row->name, help, node.labels, {slot, node.row->scale},
            node.row->parts);
    }
}

void Exposition::add(std::string name, MetricType type, const std::string& origin, const std::string& help,
                     const std::vector<Label>& labels, Term term, std::uint8_t parts) {
    const std::string_view base = base_of(name, type);
    if (reserved_.contains(base)) {
        ++collisions_;
        return;
    }
    const auto [at, fresh] = families_.try_emplace(std::string(base));
    Group& family = at->second;
    if (fresh) {
        family.origin = origin;
        family.type = type;
        for (const Format format : {Format::text, Format::openmetrics}) {
            family.header[static_cast<std::size_t>(format)] = header_of(format, name, type, help);
        }
        family.name = std::move(name);
    } else if (family.origin != origin || family.type != type) {
        ++collisions_;
        return;
    }
    Line line{family.name, {term}, parts};
    append_labels(line.text, labels);
    line.text += ' ';
    family.lines.push_back(std::move(line));
}

// Lines in order of their labels; parts of one sum become one line, what is there twice goes.
void Exposition::merge_lines(Group& group) {
    std::stable_sort(group.lines.begin(), group.lines.end(),
                     [](const Line& a, const Line& b) { return a.text < b.text; });
    std::vector<Line> merged;
    for (Line& line : group.lines) {
        const bool same = !merged.empty() && merged.back().text == line.text;
        if (!same) {
            merged.push_back(std::move(line));
        } else if (merged.back().terms.size() < line.parts) {
            merged.back().terms.push_back(line.terms.front());
        } else {
            ++collisions_;
        }
    }
    std::erase_if(merged, [](const Line& line) { return line.terms.size() != line.parts; });
    group.lines = std::move(merged);
}

bool Exposition::level(const Line& line, const Frame& frame, Nanos now, double& out) const noexcept {
    out = 0;
    for (const Term& term : line.terms) {
        if (term.slot >= frame.newest.size()) return false;
        const Observation& seen = frame.newest[term.slot];
        if (seen.time == 0 || seen.generation != generations_[term.slot]) return false;
        const Nanos interval = seen.interval == 0 ? kLongestInterval : std::max(seen.interval, kShortestInterval);
        if (now - seen.time > kStaleIntervals * interval) return false;
        out += seen.value * term.scale;
    }
    return true;
}

void Exposition::render(Format format, Nanos now, std::string& out) {
    const std::lock_guard lock(render_mutex_);
    (void)frames_.refresh();
    take_changes();  // after the frame: never older than it
    const Frame& frame = frames_.front();
    out.clear();
    out.reserve(size_hint_);
    Page page(format, out);
    double value = 0;
    for (const auto& [base, group] : families_) {
        page.family(group.header[static_cast<std::size_t>(format)]);
        for (const Line& line : group.lines) {
            const bool seen = level(line, frame, now, value);
            ++(seen ? page.seen : page.unseen);
            if (seen) page.sample(line.text, value);
        }
    }
    write_own(page, frame);
    write_engine(page, frame);
    write_events(page, frame.events);
    write_claims(page, frame.claims);
    if (frame.has_host) {
        write_sources(page, frame);
        write_host(page, frame);
    }
    if (format == Format::openmetrics) out += "# EOF\n";
    size_hint_ = out.size() + out.size() / 8;
}

void Exposition::write_sources(Page& page, const Frame& frame) const {
    const auto each = [&](Self self, auto&& of) {
        page.family(kSelf[self]);
        for (const SourceStatus& source : frame.sources) {
            if (source.state != SourceState::disabled) page.put("source", source.name, of(source));
        }
    };
    const auto counted = [&](Self self, std::uint64_t SourceStatus::* member) {
        each(self, [member](const SourceStatus& source) { return static_cast<double>(source.*member); });
    };
    const auto timed = [&](Self self, Nanos SourceStatus::* member) {
        each(self, [member](const SourceStatus& source) { return seconds(source.*member); });
    };
    each(kSourceUp, [](const SourceStatus& source) { return source.polls != 0 && source.error.empty() ? 1.0 : 0.0; });
    counted(kPolls, &SourceStatus::polls);
    counted(kValues, &SourceStatus::emitted);
    counted(kMalformed, &SourceStatus::malformed);
    counted(kErrors, &SourceStatus::errors);
    counted(kMissed, &SourceStatus::missed);
    counted(kDropped, &SourceStatus::dropped);
    timed(kLateness, &SourceStatus::lateness_max_ns);
    timed(kDuration, &SourceStatus::duration_last_ns);
    timed(kDurationMax, &SourceStatus::duration_max_ns);
}

void Exposition::write_host(Page& page, const Frame& frame) const {
    page.family(kSelf[kRateFaults]);
    const RateFaults& faults = frame.faults;
    for (const auto& [kind, count] : {std::pair{"wrap", faults.wraps}, {"reset", faults.resets},
                                      {"backward", faults.backward}, {"no_time", faults.no_time},
                                      {"not_finite", faults.not_finite}}) {
        page.put("kind", kind, static_cast<double>(count));
    }
    page.count(kSelf[kSamplesStale], frame.stale);
    page.count(kSelf[kSeriesRefused], frame.refused);
    page.count(kSelf[kProcesses], frame.processes);
    page.count(kSelf[kScrapeSeries], page.seen);
    page.family(kSelf[kScrapeLeftOut]);
    page.put("reason", "not_observed", static_cast<double>(page.unseen));
    page.put("reason", "name_taken", static_cast<double>(collisions_));
    page.put("reason", "no_name", static_cast<double>(unnamed_));
}

void Exposition::write_own(Page& page, const Frame& frame) const {
    std::string_view before;
    std::string header;
    for (std::size_t i = 0; i < frame.own.size(); ++i) {
        const OwnMetric& own = options_.own[i];
        if (own.name != before) {
            header = header_of(page.format(), own.name, own.type, own.help);
            page.family(header);
            before = own.name;
        }
        if (std::isnan(frame.own[i])) continue;
        std::string series = own.name;
        append_labels(series, own.labels);
        page.sample(series + " ", frame.own[i]);
    }
}

void Exposition::write_engine(Page& page, const Frame& frame) const {
    const EngineStatistics& engine = frame.engine;
    page.count(kSelf[kSteps], engine.steps);
    page.one(kSelf[kStepDuration], seconds(engine.step_ns_last));
    page.one(kSelf[kStepDurationMax], seconds(engine.step_ns_max));
    if (frame.step_wall != 0) page.one(kSelf[kLastStep], seconds(frame.step_wall));
    page.one(kSelf[kIngestSeconds], seconds(engine.ingest_ns_total));
    page.count(kSelf[kFailed], engine.failed ? 1 : 0);
    page.family(kSelf[kAnomalies]);
    for (std::size_t s = 0; s < kSeverities; ++s) {
        for (std::size_t f = 0; f < kFamilies; ++f) {
            page.put({{"family", to_string(static_cast<Family>(f))}, {"severity", to_string(static_cast<Severity>(s))}},
                     static_cast<double>(engine.anomalies_by[s][f]));
        }
    }
}

void Exposition::write_events(Page& page, const EventPlaneTotals& totals) const {
    page.count(kSelf[kEventFrames], totals.frames);
    page.count(kSelf[kEventsAccepted], totals.accepted);
    page.family(kSelf[kEventsRejected]);
    for (std::size_t reason = 1; reason < kRejectReasons; ++reason) {
        page.put("reason", events::to_string(static_cast<events::Reject>(reason)),
                 static_cast<double>(totals.rejected[reason]));
    }
    page.count(kSelf[kEventsUnknown], totals.unknown_types);
    page.count(kSelf[kEventsRepeated], totals.retransmissions);
    page.count(kSelf[kEventsUnspoken], totals.unspoken);
    page.count(kSelf[kEventsEvicted], totals.evicted_sources + totals.evicted_tasks + totals.evicted_accounts +
                                          totals.evicted_calls);
    page.count(kSelf[kEventSources], totals.live_sources);
    page.family(kSelf[kTasks]);
    page.put("state", "known", totals.tasks);
    page.put("state", "live", totals.live_tasks);
}

void Exposition::write_claims(Page& page, const auditors::ClaimReport& claims) const {
    const auditors::ClaimCounts& counts = claims.counts;
    page.family(kSelf[kClaims]);
    for (const auto& [outcome, count] : {std::pair{"confirmed", counts.confirmed}, {"refuted", counts.refuted},
                                         {"undecided", counts.undecided}, {"withdrawn", counts.withdrawn},
                                         {"shed", counts.shed}}) {
        page.put("outcome", outcome, static_cast<double>(count));
    }
    page.family(kSelf[kClaimsUnverifiable]);
    for (std::size_t why = 1; why < auditors::kBlinds; ++why) {
        page.put("reason", auditors::to_string(static_cast<auditors::Blind>(why)),
                 static_cast<double>(counts.unverifiable[why]));
    }
    page.family(kSelf[kCoverage]);
    std::set<std::string> named;  // what cannot be written may make two names one
    for (const auditors::AgentCoverage& agent : claims.agents) {
        const std::string name = label_value(sources::attribute_value(agent.session));
        if (!agent.alive || !named.insert(name).second) continue;
        for (const auto& [activity, share] : {std::pair{"cpu", agent.cpu_s}, {"disk_write", agent.write_bytes},
                                              {"processes", agent.processes}}) {
            if (share.all > 0) page.put({{"agent_session", name}, {"activity", activity}}, share.ratio());
        }
    }
}

}  // namespace argus::engine
