// The names that node_exporter gives to what Argus knows under OpenTelemetry's, so that dashboards and alerts written
// for it work unchanged. A table, one row a series; a row whose series no source emits costs nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/prometheus_names.hpp"
#include "model/series.hpp"

namespace argus::engine {

enum class MetricType : std::uint8_t { gauge, counter, unknown };

struct NodeName {
    const char* otel;    // name of the series
    const char* where;   // attributes it must have: "key=value,key=value"
    const char* name;    // what node_exporter calls it
    const char* labels;  // its labels from ours: "cpu=cpu.logical_number"; a value in quotes stands for itself
    MetricType type = MetricType::gauge;
    double scale = 1;    // theirs = ours * scale
    std::uint8_t parts = 1;  // series that add up to it; with fewer of them there it is left out
};

struct NodeSeries {
    const NodeName* row = nullptr;
    std::vector<Label> labels;
};

// The node_exporter series that `info` is, or is a part of.
[[nodiscard]] std::vector<NodeSeries> node_series(const SeriesInfo& info);

}  // namespace argus::engine
