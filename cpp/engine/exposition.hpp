// All open series, and Argus' own numbers, in the text formats that Prometheus scrapes: text 0.0.4 and OpenMetrics 1.0.
// The thread that steps the engine hands a copy of the newest values over after each step (publish: no lock that a
// scrape holds for long, nothing rendered); scrapes render from that copy in their own threads and never touch the
// engine. Counters go out raw. Every family is contiguous and every series is written once: of two that would get one
// name the later one is left out, and counted.
// Cost: bench_exposition.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.hpp"
#include "engine/host_plane.hpp"
#include "engine/node_names.hpp"
#include "ring/snapshot.hpp"

namespace argus::engine {

// A number that the caller of publish() knows; those of one name follow each other.
struct OwnMetric {
    std::string name;  // as it is written: "argus_sessions"; counters end in _total
    MetricType type = MetricType::gauge;
    std::string help;
    std::vector<Label> labels;
};

struct ExpositionOptions {
    bool node_exporter_names = true;  // beside our own
    std::vector<OwnMetric> own = {};
};

struct Published {
    HostPlane* host = nullptr;
    EngineStatistics engine = {};
    EventPlaneTotals events = {};
    auditors::ClaimReport claims = {};
    Nanos step_wall = 0;
    std::span<const double> own = {};  // one for each of ExpositionOptions::own; NaN = left out
};

class Exposition {
public:
    enum class Format : std::uint8_t { text, openmetrics };
    static constexpr int kStaleIntervals = 5;

    // Throws std::invalid_argument for an own metric whose name is illegal, taken or apart from others of that name.
    explicit Exposition(ExpositionOptions options);

    // One thread, the one that steps the engine. Throws std::invalid_argument when `own` has another size.
    void publish(const Published& now);

    // Any thread. Rises with each publish().
    [[nodiscard]] std::uint64_t version() const noexcept { return version_.load(std::memory_order_acquire); }

    // Any thread, one at a time. `now` is Clock::mono(): a series not observed for kStaleIntervals of its own intervals
    // (at least of 1 s each) is left out. `out` is replaced.
    void render(Format format, Nanos now, std::string& out);

private:
    struct Frame {
        std::vector<Observation> newest;
        std::vector<SourceStatus> sources;
        std::vector<double> own;
        EngineStatistics engine;
        EventPlaneTotals events;
        auditors::ClaimReport claims;
        RateFaults faults;
        std::uint64_t stale = 0, refused = 0, processes = 0;
        Nanos step_wall = 0;
        bool has_host = false;
    };
    struct Change {
        std::uint32_t slot = 0;
        std::uint32_t generation = 0;  // 0 = closed
        SeriesInfo info;
    };
    struct Term {
        std::uint32_t slot = 0;
        double scale = 1;
    };
    struct Line {  // one series
        std::string text;  // name{labels} and the blank before the value
        std::vector<Term> terms;
        std::uint8_t parts = 1;
    };
    struct Group {  // a family of metrics
        std::string origin;  // the one name that may fill it
        std::string header[2];  // by Format
        std::string name;
        MetricType type = MetricType::gauge;
        std::vector<Line> lines;
    };
    class Page;

    void note_changes(HostPlane& host);
    void compact_changes();
    void take_changes();
    void plan();
    void plan_series(std::uint32_t slot, const SeriesInfo& info);
    void add(std::string name, MetricType type, const std::string& origin, const std::string& help,
             const std::vector<Label>& labels, Term term, std::uint8_t parts);
    void merge_lines(Group& group);
    void write_own(Page& page, const Frame& frame) const;
    void write_engine(Page& page, const Frame& frame) const;
    void write_events(Page& page, const EventPlaneTotals& totals) const;
    void write_claims(Page& page, const auditors::ClaimReport& claims) const;
    void write_sources(Page& page, const Frame& frame) const;
    void write_host(Page& page, const Frame& frame) const;
    [[nodiscard]] bool level(const Line& line, const Frame& frame, Nanos now, double& out) const noexcept;

    ExpositionOptions options_;
    std::set<std::string, std::less<>> reserved_;  // families that are Argus' own, without _total

    // The publisher's.
    std::vector<std::uint32_t> known_;  // generation by slot, as last handed over; 0 = closed
    std::uint64_t layout_ = ~std::uint64_t{0};

    ring::Snapshot<Frame> frames_;
    std::atomic<std::uint64_t> version_{0};
    std::mutex changes_mutex_;  // held for moments: scrapes swap the list out
    std::vector<Change> changes_;

    // The scrapes', one at a time.
    std::mutex render_mutex_;
    std::vector<Change> taken_;
    std::vector<SeriesInfo> infos_;
    std::vector<std::uint32_t> generations_;
    std::map<std::string, Group, std::less<>> families_;  // by name without _total
    std::uint64_t collisions_ = 0;
    std::uint64_t unnamed_ = 0;
    std::size_t size_hint_ = 0;
};

}  // namespace argus::engine
