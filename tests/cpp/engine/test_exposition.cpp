#include "engine/exposition.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <stdexcept>
#include <thread>

#include "../sources/support.hpp"
#include "sources/series_slot.hpp"

namespace argus::engine {
namespace {

using test::Tree;
using Format = Exposition::Format;

// A source that emits what the test says.
struct Said {
    SeriesInfo info;
    double value = 0;  // NaN = not seen in this poll
};
std::vector<Said> said;

class Stage final : public sources::Source {
public:
    [[nodiscard]] Result<sources::PollReport> poll(Nanos, sources::Emit& emit) override {
        sources::PollReport report;
        for (std::size_t i = said.size(); i < slots_.size(); ++i) slots_[i].close(emit);
        slots_.resize(said.size());
        for (std::size_t i = 0; i < said.size(); ++i) {
            if (!std::isnan(said[i].value)) slots_[i].emit(emit, report, said[i].value, [i] { return said[i].info; });
        }
        return report;
    }

private:
    std::vector<sources::SeriesSlot> slots_;
};

Result<std::unique_ptr<sources::Source>> open_stage(const sources::Roots&, const Io&, const sources::SourceSettings&) {
    return std::unique_ptr<sources::Source>(std::make_unique<Stage>());
}

const sources::SourceDescriptor kStage{
    "stage", "What a test says.", "nothing", "nothing", 1000, sources::Lane::fast, open_stage};
constexpr const sources::SourceDescriptor* kStageOnly[] = {&kStage};
constexpr const sources::SourceDescriptor* kSources[] = {&sources::cpu_source, &sources::memory_source,
                                                         &sources::network_source, &sources::pressure_source};

HostOptions options_of(const Tree& tree) {
    HostOptions options;
    options.roots = tree.roots();
    options.processes = false;
    return options;
}

struct Scraped {
    explicit Scraped(const Tree& tree, std::span<const sources::SourceDescriptor* const> catalog = kStageOnly,
                     ExpositionOptions options = {})
        : plane(options_of(tree), catalog, system_io(), clock), exposition(std::move(options)) {}

    void tick(Nanos by = kSecond) {
        clock.advance(by);
        plane.poll_once();
        plane.drain();
        exposition.publish({.host = &plane, .step_wall = clock.wall()});
    }
    std::string text(Format format = Format::text) {
        std::string out;
        exposition.render(format, clock.mono(), out);
        return out;
    }
    // The value as it is written; "" when there is no such series.
    std::string at(const std::string& series, Format format = Format::text) {
        const std::string whole = "\n" + text(format);
        const std::size_t start = whole.find("\n" + series + " ");
        if (start == std::string::npos) return "";
        const std::size_t from = start + series.size() + 2;
        return whole.substr(from, whole.find('\n', from) - from);
    }

    ManualClock clock{100 * kSecond};
    HostPlane plane;
    Exposition exposition;
};

constexpr const char* kReceived =
    "system_network_io_bytes_total{network_interface_name=\"eth0\",network_io_direction=\"receive\"}";

}  // namespace

TEST_CASE("exposition: raw counters and gauges of a whole fixture tree, under both names") {
    Tree tree("6.18");
    Scraped host(tree, kSources);
    host.tick();
    CHECK(host.at(kReceived) == "175680374");
    CHECK(host.at("node_network_receive_bytes_total{device=\"eth0\"}") == "175680374");
    CHECK(host.at("node_memory_MemTotal_bytes") == "25276514304");
    CHECK(host.at("system_memory_limit_bytes") == "25276514304");
    CHECK(host.at("node_load1") != "");
    CHECK(host.at("argus_source_up{source=\"cpu\"}") == "1");
    CHECK(host.at("argus_scrape_left_out_series{reason=\"name_taken\"}") == "0");
    host.tick();
    CHECK(host.at(kReceived) == "175680374");  // the row beside it holds a rate by now
}

TEST_CASE("exposition: without node_exporter's names there is none of them") {
    Tree tree("6.18");
    Scraped host(tree, kSources, {.node_exporter_names = false});
    host.tick();
    CHECK(host.text().find("node_") == std::string::npos);
    CHECK(host.at(kReceived) == "175680374");
}

TEST_CASE("exposition: sums are whole or not there, scaled ones are in node_exporter's unit") {
    Tree tree("6.18");
    const auto faults = [](const char* type, double value) {
        const std::string attributes = std::string("system.paging.type=") + type;
        return Said{{"system.paging.faults", "{fault}", Kind::counter, attributes}, value};
    };
    said = {faults("major", 5), {{"system.paging.io", "By", Kind::counter, "system.paging.direction=in"}, 2048}};
    Scraped host(tree);
    host.tick();
    CHECK(host.at("node_vmstat_pgmajfault") == "5");
    CHECK(host.at("node_vmstat_pgfault") == "");
    CHECK(host.at("node_vmstat_pgpgin") == "2");
    said.push_back(faults("minor", 100));
    host.tick();
    CHECK(host.at("node_vmstat_pgfault") == "105");
    CHECK(host.text().find("# TYPE node_vmstat_pgfault untyped\n") != std::string::npos);
    CHECK(host.text(Format::openmetrics).find("# TYPE node_vmstat_pgfault unknown\n") != std::string::npos);
}

TEST_CASE("exposition: a counter's small step back is not shown, a reset is") {
    Tree tree("6.18");
    said = {{{"system.cpu.time", "s", Kind::counter, "cpu.logical_number=0,cpu.mode=idle"}, 1000}};
    const std::string name = "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}";
    Scraped host(tree);
    host.tick();
    said[0].value = 999.5;
    host.tick();
    CHECK(host.at(name) == "1000");
    said[0].value = 1001.25;
    host.tick();
    CHECK(host.at(name) == "1001.25");
    said[0].value = 3;
    host.tick();
    CHECK(host.at(name) == "3");
}

TEST_CASE("exposition: a series not observed for five of its intervals is left out, and comes back") {
    Tree tree("6.18");
    said = {{{"a.steady", "s", Kind::gauge, ""}, 1}, {{"a.lost", "s", Kind::gauge, ""}, 2}};
    Scraped host(tree);
    for (int i = 0; i < 3; ++i) host.tick();
    said[1].value = std::nan("");
    for (int i = 0; i < 5; ++i) host.tick();
    CHECK(host.at("a_lost_seconds") == "2");
    host.tick();
    CHECK(host.at("a_lost_seconds") == "");
    CHECK(host.at("a_steady_seconds") == "1");
    CHECK(host.text().find("a_lost") == std::string::npos);  // no header without a sample
    CHECK(host.at("argus_scrape_left_out_series{reason=\"not_observed\"}") == "1");
    said[1].value = 4;
    host.tick();
    CHECK(host.at("a_lost_seconds") == "4");
}

TEST_CASE("exposition: a loop that hangs shows as series that go stale, not as values that stand still") {
    Tree tree("6.18");
    said = {{{"a.gauge", "s", Kind::gauge, ""}, 1}};
    Scraped host(tree);
    host.tick();
    host.tick();
    host.clock.advance(6 * kSecond);
    CHECK(host.at("a_gauge_seconds") == "");
}

TEST_CASE("exposition: what would get a name that is taken is left out and counted") {
    Tree tree("6.18");
    said = {
        {{"a.b", "s", Kind::gauge, "x=1"}, 1},
        {{"a_b", "s", Kind::gauge, "x=2"}, 2},              // another OpenTelemetry name, one Prometheus name
        {{"a.b", "s", Kind::gauge, "x=1"}, 3},              // the same series twice
        {{"a.b.seconds", "", Kind::counter, ""}, 4},        // OpenMetrics has one family for both
        {{"argus.engine.steps", "", Kind::counter, ""}, 5},  // ours
        {{"...", "", Kind::gauge, ""}, 6},
    };
    Scraped host(tree);
    host.tick();
    CHECK(host.at("a_b_seconds{x=\"1\"}") == "1");
    CHECK(host.at("a_b_seconds{x=\"2\"}") == "");
    CHECK(host.at("a_b_seconds_total") == "");
    CHECK(host.at("argus_engine_steps_total") == "0");
    CHECK(host.at("argus_scrape_left_out_series{reason=\"name_taken\"}") == "4");
    CHECK(host.at("argus_scrape_left_out_series{reason=\"no_name\"}") == "1");
    CHECK(host.at("argus_scrape_series") == "1");
}

TEST_CASE("exposition: hot-plug, also of many devices while nobody scrapes") {
    Tree tree("6.18");
    said = {{{"a.gauge", "s", Kind::gauge, "device=first"}, 1}};
    Scraped host(tree);
    host.tick();
    CHECK(host.at("a_gauge_seconds{device=\"first\"}") == "1");
    said.clear();
    host.tick();
    CHECK(host.text().find("a_gauge") == std::string::npos);
    for (int i = 0; i < 5000; ++i) {
        said = {{{"a.gauge", "s", Kind::gauge, "device=" + std::to_string(i)}, static_cast<double>(i)}};
        host.tick();
        said.clear();
        host.tick();
    }
    said = {{{"a.gauge", "s", Kind::gauge, "device=last"}, 9}};
    host.tick();
    CHECK(host.at("a_gauge_seconds{device=\"last\"}") == "9");
    CHECK(host.at("argus_scrape_series") == "1");
}

TEST_CASE("exposition: OpenMetrics names the family without _total and ends") {
    Tree tree("6.18");
    said = {{{"a.count", "{thing}", Kind::counter, ""}, 7}};
    Scraped host(tree);
    host.tick();
    const std::string open = host.text(Format::openmetrics);
    CHECK(open.find("# TYPE a_count counter\na_count_total 7\n") != std::string::npos);
    CHECK(open.ends_with("\n# EOF\n"));
    const std::string text = host.text();
    CHECK(text.find("# TYPE a_count_total counter\na_count_total 7\n") != std::string::npos);
    CHECK(text.find("# EOF") == std::string::npos);
}

TEST_CASE("exposition: own metrics are written in order, NaN is left out, bad tables are refused") {
    const OwnMetric up{"argus_up", MetricType::gauge, "A \"help\" with \\ and\nlines.", {}};
    const OwnMetric on{"argus_on_total", MetricType::counter, "On.", {{"way", "a"}}};
    const OwnMetric off{"argus_on_total", MetricType::counter, "On.", {{"way", "b"}}};
    Exposition exposition({.own = {up, on, off}});
    const double values[] = {std::nan(""), 1, 2};
    exposition.publish({.own = values});
    std::string out;
    exposition.render(Format::text, 0, out);
    CHECK(out.starts_with("# HELP argus_on_total On.\n# TYPE argus_on_total counter\n"
                          "argus_on_total{way=\"a\"} 1\nargus_on_total{way=\"b\"} 2\n"));
    CHECK(out.find("argus_up") == std::string::npos);
    CHECK_THROWS_AS(exposition.publish({}), std::invalid_argument);
    CHECK_THROWS_AS(Exposition({.own = {on, up, off}}), std::invalid_argument);
    CHECK_THROWS_AS(Exposition({.own = {{"argus_engine_failed", MetricType::gauge, "", {}}}}), std::invalid_argument);
    CHECK_THROWS_AS(Exposition({.own = {{"with space", MetricType::gauge, "", {}}}}), std::invalid_argument);
    CHECK_THROWS_AS(Exposition({.own = {{"no_suffix", MetricType::counter, "", {}}}}), std::invalid_argument);
}

TEST_CASE("exposition: before the first step there is a page, and it is empty of series") {
    Exposition exposition({});
    std::string out;
    exposition.render(Format::openmetrics, kSecond, out);
    CHECK(exposition.version() == 0);
    CHECK(out.ends_with("# EOF\n"));
    CHECK(out.find("argus_engine_steps_total 0\n") != std::string::npos);
}

TEST_CASE("exposition: scrapes in other threads see whole steps while series come and go") {
    Tree tree("6.18");
    Scraped host(tree);
    std::atomic<bool> stop{false};
    std::atomic<int> torn{0}, pages{0};
    const auto scrape = [&] {
        std::string page;
        while (!stop) {
            host.exposition.render(Format::text, 0, page);  // an early time: nothing is stale
            std::vector<std::string> values;
            for (std::size_t at = page.find("\npair{"); at != std::string::npos; at = page.find("\npair{", at + 1)) {
                const std::size_t from = page.find("} ", at) + 2;
                values.push_back(page.substr(from, page.find('\n', from) - from));
            }
            for (const std::string& value : values) torn += value != values.front();
            ++pages;
        }
    };
    std::thread first(scrape), second(scrape);
    for (int i = 0; i < 2000 || pages < 50; ++i) {
        const auto value = static_cast<double>(i);
        said.clear();
        for (int k = 0; k < 3 + i % 5; ++k) {
            said.push_back({{"pair", "", Kind::gauge, "k=" + std::to_string(k)}, value});
        }
        host.tick(kMillisecond);
    }
    stop = true;
    first.join();
    second.join();
    CHECK(torn == 0);
}

}  // namespace argus::engine
