#include "engine/host_plane.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "sources/exits.hpp"
#include "sources/processes/scanner.hpp"
#include "sources/text.hpp"

namespace argus::engine {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kBatch = 1024;
constexpr std::int64_t kMinIntervalMs = 10;
constexpr std::int64_t kMaxIntervalMs = 3'600'000;
constexpr std::string_view kTellsExits = "exits";  // the source
constexpr std::size_t kExitsHeld = 1 << 14;  // between two drains
constexpr std::size_t kWatchedRoots = 512;
constexpr Nanos kSameStart = 20 * kMillisecond;  // /proc tells starts in ticks of 10 ms, an exit to the ns
constexpr Nanos kRetry = 60 * kSecond;  // a source that could not be opened is tried again this often

// A source that opens when it is first polled, in the thread that polls it, and again later if it could not.
class SourceTask final : public Task {
public:
    SourceTask(const sources::SourceDescriptor& descriptor, Nanos interval, sources::Roots roots, const Io& io,
               sources::SourceSettings settings, ExitsTold& exits)
        : Task(descriptor.name, interval),
          descriptor_(&descriptor),
          roots_(std::move(roots)),
          io_(&io),
          settings_(std::move(settings)),
          exits_(&exits) {}

    [[nodiscard]] Result<sources::PollReport> poll(Nanos now, RingEmit& emit) override {
        if (source_ == nullptr) {
            auto opened = descriptor_->open(roots_, *io_, settings_);
            if (!opened) return opened.error();
            source_ = std::move(*opened);
            tells_ = dynamic_cast<sources::ExitSource*>(source_.get());
        }
        if (tells_ != nullptr && told_ != exits_->wanted.load(std::memory_order_acquire)) {
            told_ = !told_;
            if (const auto done = tells_->deliver(told_ ? exits_->ring.get() : nullptr); !done) return done.error();
        }
        return source_->poll(now, emit);
    }

    [[nodiscard]] Nanos interval() const noexcept override {
        return source_ == nullptr ? std::max(kRetry, Task::interval()) : Task::interval();
    }

private:
    const sources::SourceDescriptor* descriptor_;
    sources::Roots roots_;
    const Io* io_;
    sources::SourceSettings settings_;
    std::unique_ptr<sources::Source> source_;
    sources::ExitSource* tells_ = nullptr;  // source_, when it is the one that tells of each exit
    ExitsTold* exits_;
    bool told_ = false;
};

class ProcessTask final : public Task {
public:
    ProcessTask(Nanos interval, const HostOptions& options, const Io& io, const Clock& clock,
                ring::Snapshot<sources::ProcessTable>& tables)
        : Task("processes", interval),
          tiers_(sources::parse_tier(options.process_tier), options.roots, io, clock),
          tables_(&tables) {}

    [[nodiscard]] Result<sources::PollReport> poll(Nanos, RingEmit&) override {
        sources::ProcessTable& table = tables_->back();
        const auto rows = tiers_.scan(table);
        if (!rows) return rows.error();
        const sources::PollReport report{*rows, table.malformed};
        tables_->publish();
        return report;
    }

private:
    sources::ProcessTiers tiers_;
    ring::Snapshot<sources::ProcessTable>* tables_;
};

Nanos interval_of(const char* name, std::int64_t interval_ms) {
    if (interval_ms < kMinIntervalMs || interval_ms > kMaxIntervalMs) {
        throw std::invalid_argument(std::string("sources.") + name + ".interval_ms: expected 10 to 3600000, found " +
                                    std::to_string(interval_ms) + "; not started");
    }
    return interval_ms * kMillisecond;
}

// All series twice, if few: a drain may come late. Of many a lane has a part, and polls it in turns.
std::size_t ring_capacity(std::uint32_t max_series) {
    constexpr std::size_t kMany = 8192;
    const std::size_t series = max_series;
    return std::bit_ceil(std::max({kBatch, series, std::min(series * 2, kMany)}));
}

std::string describe(const TaskCounters& counters, const char* name, const char* requirement, const char* fix) {
    const std::uint32_t failure = counters.failure.load(std::memory_order_relaxed);
    if (failure == 0) return {};
    const auto code = static_cast<Errc>(failure >> 24);
    const int number = static_cast<int>(failure & 0xFFFFFFU);
    std::string text = counters.what.load(std::memory_order_relaxed);
    text += code == Errc::unavailable ? ": not present" : std::string(": ") + to_string(code);
    if (const char* symbol = number != 0 ? strerrorname_np(number) : nullptr) text += std::string(" (") + symbol + ")";
    return text + ", needs " + requirement + "; source '" + name + "' sees nothing, listed as blind spot; " + fix;
}

// The sums of one agent session's processes, in the order of HostPlane::observe_agents.
SeriesInfo agent_series(std::size_t which, const std::string& session) {
    struct Of {
        const char* name;
        const char* unit;
        Kind kind;
        const char* direction;
    };
    constexpr Of kOf[] = {
        {"agent.process.count", "{process}", Kind::gauge, ""},
        {"agent.process.created", "{process}", Kind::counter, ""},
        {"agent.thread.count", "{thread}", Kind::gauge, ""},
        {"agent.cpu.time", "s", Kind::counter, ""},
        {"agent.memory.usage", "By", Kind::gauge, ""},
        {"agent.disk.io", "By", Kind::counter, "read"},
        {"agent.disk.io", "By", Kind::counter, "write"},
    };
    const Of& of = kOf[which];
    std::string attributes = "agent.session=" + sources::attribute_value(session);
    if (*of.direction != '\0') attributes += std::string(",disk.io.direction=") + of.direction;
    return {of.name, of.unit, of.kind, attributes, session};
}

}  // namespace

HostPlane::HostPlane(HostOptions options, std::span<const sources::SourceDescriptor* const> catalog, const Io& io,
                     const Clock& clock)
    : registry_(options.max_series),
      fast_("argus-fast", registry_, clock, ring_capacity(options.max_series)),
      slow_("argus-slow", registry_, clock, ring_capacity(options.max_series)),
      table_("argus-table", registry_, clock, 2),
      labels_(options.roots.proc),
      batch_(kBatch),
      ended_(kBatch) {
    for (Sampler* sampler : {&fast_, &slow_}) sampler->set_window(options.window);
    fast_.set_bursts(options.bursts);
    if (options.bursts.interval > 0) {
        triggers_ = std::make_unique<sources::PressureTriggers>(options.roots, options.burst_stall_share);
        for (const int fd : triggers_->descriptors()) fast_.wake_on(fd);
    }
    add_sources(options, catalog, io);
    constexpr const char* requirement = "a mounted /proc";
    constexpr const char* fix = "mount procfs, or point `proc` at the host's";
    const Task* task = nullptr;
    if (options.processes) {
        const Nanos interval = interval_of("processes", options.processes_interval_ms);
        auto made = std::make_unique<ProcessTask>(interval, options, io, clock, tables_);
        task = made.get();
        table_.add(std::move(made));
    }
    watched_.push_back({"processes", task, requirement, fix});
    status_.resize(watched_.size());
}

HostPlane::~HostPlane() { stop(); }

void HostPlane::add_sources(const HostOptions& options, std::span<const sources::SourceDescriptor* const> catalog,
                            const Io& io) {
    for (const SourceChoice& option : options.sources) {
        const bool known = std::any_of(catalog.begin(), catalog.end(),
                                       [&](const auto* descriptor) { return option.name == descriptor->name; });
        if (!known) throw std::invalid_argument("sources." + option.name + ": no such source; not started");
    }
    for (const sources::SourceDescriptor* descriptor : catalog) {
        SourceChoice option{descriptor->name};
        for (const SourceChoice& given : options.sources) {
            if (given.name == option.name) option = given;
        }
        const std::int64_t wanted = option.interval_ms == 0 ? descriptor->interval_ms : option.interval_ms;
        const Nanos interval = interval_of(descriptor->name, wanted);
        const Task* task = nullptr;
        // A target that means nothing is told here: the sampler's thread could tell nobody.
        if (option.enabled && !option.settings.targets.empty()) {
            (void)descriptor->open(options.roots, io, option.settings);
        }
        if (option.enabled) {
            auto made = std::make_unique<SourceTask>(*descriptor, interval, options.roots, io, option.settings,
                                                     exits_);
            task = made.get();
            (descriptor->lane == sources::Lane::fast ? fast_ : slow_).add(std::move(made));
        }
        watched_.push_back({descriptor->name, task, descriptor->requires_, descriptor->fix,
                            std::string_view(descriptor->name) == kTellsExits});
    }
}

std::uint32_t HostPlane::set_agents(std::vector<AgentRoot> roots) {
    if (!roots.empty() && exits_.ring == nullptr) {
        exits_.ring = std::make_unique<ring::SpscRing<sources::ExitRecord>>(kExitsHeld);
    }
    exits_.wanted.store(!roots.empty(), std::memory_order_release);
    for (const AgentRoot& root : roots) {
        const bool known = std::find(watched_roots_.begin(), watched_roots_.end(), root) != watched_roots_.end();
        if (root.descendants_only || known) continue;
        if (watched_roots_.size() >= kWatchedRoots) watched_roots_.erase(watched_roots_.begin());
        watched_roots_.push_back(root);
    }
    roots_ = roots;
    return agents_.set_roots(std::move(roots));
}

void HostPlane::note_root_exit(const sources::ExitRecord& record) {
    if ((record.valid & sources::kExitStart) == 0) return;
    const auto ended = std::find_if(watched_roots_.begin(), watched_roots_.end(), [&](const AgentRoot& root) {
        return root.pid == record.pid && std::abs(root.start_time_ns - record.start_ns) <= kSameStart;
    });
    if (ended == watched_roots_.end()) return;
    root_exits_.push_back({ended->session, record.code, record.signal});
    watched_roots_.erase(ended);
}

void HostPlane::start() {
    try {
        for (Sampler* sampler : {&fast_, &slow_, &table_}) sampler->start();
    } catch (...) {
        stop();
        throw;
    }
}

void HostPlane::stop() {
    for (Sampler* sampler : {&fast_, &slow_, &table_}) sampler->stop();
}

void HostPlane::poll_once() {
    for (Sampler* sampler : {&fast_, &slow_, &table_}) sampler->poll_due();
}

void HostPlane::apply_changes() {
    const std::uint64_t version = registry_.version();
    if (version == layout_version_) return;
    for (Registry::Change& change : registry_.take_changes()) {
        const std::uint32_t index = change.slot.index;
        if (index >= series_.size()) {
            series_.resize(index + 1);
            for (auto* values : {&row_, &low_, &high_}) values->resize(index + 1, kNaN);
            newest_.resize(index + 1);
            rates_.resize(index + 1);
            reopened_.reserve(index + 1);
        }
        SeriesEntry& entry = series_[index];
        row_[index] = low_[index] = high_[index] = kNaN;
        newest_[index] = Observation{.generation = change.opened ? change.slot.generation : 0};
        if (!change.opened) {
            entry.open = false;
            continue;
        }
        rates_.open(index, change.info.kind, change.info.unit != "s");
        entry = {std::move(change.info), change.slot, true};
        reopened_.push_back(index);
    }
    layout_version_ = version;
}

void HostPlane::take(ring::SpscRing<Sample>& ring) {
    std::size_t left = ring.capacity();  // no more than one ring full: a fast producer cannot keep the reader here
    while (left > 0) {
        const std::size_t count = ring.pop(batch_);
        if (count == 0) return;
        left -= std::min(left, count);
        apply_changes();  // a series is registered before its first sample is pushed
        for (std::size_t i = 0; i < count; ++i) observe(batch_[i]);
    }
}

void HostPlane::observe(const Sample& sample) {
    const std::uint32_t index = sample.slot.index;
    if (index >= series_.size() || !series_[index].open || series_[index].slot != sample.slot) {
        ++stale_;
        return;
    }
    const double value = rates_.observe(index, sample.time, sample.value);
    if (std::isfinite(sample.value)) newest_[index].see(sample.time, rates_.level(index, sample.value));
    row_[index] = value;
    low_[index] = std::fmin(low_[index], std::isnan(sample.low) ? value : sample.low);
    high_[index] = std::fmax(high_[index], std::isnan(sample.high) ? value : sample.high);
}

void HostPlane::observe_agents() {
    const sources::ProcessTable& table = tables_.front();
    agents_.update(table);
    const auto usage = agents_.usage();
    agent_slots_.resize(usage.size());
    for (std::size_t i = 0; i < usage.size(); ++i) {
        AgentSlots& mine = agent_slots_[i];
        if (mine.session == usage[i].session) continue;
        if (!mine.session.empty()) {
            for (const Slot slot : mine.slots) registry_.close(slot);
        }
        mine.session = usage[i].session;
        if (mine.session.empty()) continue;
        for (std::size_t k = 0; k < kAgentSeries; ++k) mine.slots[k] = registry_.open(agent_series(k, mine.session));
    }
    apply_changes();
    for (std::size_t i = 0; i < usage.size(); ++i) {
        if (agent_slots_[i].session.empty()) continue;
        const AgentUsage& u = usage[i];
        const double values[kAgentSeries] = {
            static_cast<double>(u.processes), static_cast<double>(u.started), static_cast<double>(u.threads),
            u.cpu_s, u.rss_bytes, u.read_bytes, u.write_bytes};
        for (std::size_t k = 0; k < kAgentSeries; ++k) {
            if (agent_slots_[i].slots[k].index != kNoSlot) observe({agent_slots_[i].slots[k], table.time, values[k]});
        }
    }
}

void HostPlane::drain() {
    reopened_.clear();
    root_exits_.clear();
    for (auto* values : {&row_, &low_, &high_}) std::fill(values->begin(), values->end(), kNaN);
    apply_changes();
    take(fast_.ring());
    take(slow_.ring());
    for (std::size_t count = 0; exits_.ring != nullptr && (count = exits_.ring->pop(ended_)) > 0;) {
        for (std::size_t i = 0; i < count; ++i) {
            agents_.ended(ended_[i]);
            note_root_exit(ended_[i]);
        }
    }
    table_fresh_ = tables_.refresh();
    if (table_fresh_) observe_agents();
}

std::array<LaneStatus, 3> HostPlane::lanes() const noexcept {
    std::array<LaneStatus, 3> out;
    std::size_t at = 0;
    for (const Sampler* lane : {&fast_, &slow_, &table_}) {
        const Lateness& lateness = lane->lateness();
        out[at++] = {lane->name(), lateness.count(), lane->bursts(), lateness.quantile(0.5), lateness.quantile(0.99)};
    }
    return out;
}

std::span<const SourceStatus> HostPlane::status() {
    for (std::size_t i = 0; i < watched_.size(); ++i) {
        const Watched& watched = watched_[i];
        SourceStatus& out = status_[i];
        out.name = watched.name;
        if (watched.task == nullptr) {
            out.state = SourceState::disabled;
            continue;
        }
        const TaskCounters& in = watched.task->counters();
        const auto get = [](const auto& value) { return value.load(std::memory_order_relaxed); };
        out.state = get(in.state);
        out.error = describe(in, watched.name, watched.requires_, watched.fix);
        out.polls = get(in.polls);
        out.emitted = get(in.emitted);
        out.malformed = get(in.malformed);
        out.errors = get(in.errors);
        out.missed = get(in.missed);
        out.dropped = get(in.dropped) + (watched.tells_exits ? agents_.dropped() : 0);
        out.lateness_max_ns = get(in.lateness_max_ns);
        out.duration_last_ns = get(in.duration_last_ns);
        out.duration_max_ns = get(in.duration_max_ns);
    }
    return status_;
}

}  // namespace argus::engine
