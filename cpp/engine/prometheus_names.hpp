// How series are called in Prometheus: the OpenTelemetry specification's "Prometheus and OpenMetrics compatibility"
// (names, unit suffixes, _total, _ratio, label names), and the text format's own rules for values and labels.
// Names and attributes come from devices too, so everything that leaves here is a legal name or valid UTF-8 text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/series.hpp"

namespace argus::engine {

struct Label {
    std::string name;
    std::string value;  // valid UTF-8 without control characters but tab and newline; not yet escaped
};

// "system.cpu.time", "s", counter -> "system_cpu_time_seconds_total". Empty when no letter or digit is left.
[[nodiscard]] std::string metric_name(std::string_view name, std::string_view unit, Kind kind);

// "network.interface.name" -> "network_interface_name"; always a legal label name that Prometheus does not reserve.
[[nodiscard]] std::string label_name(std::string_view key);

// The text that sources::attribute_value() wrote: %XX become bytes again; bytes that are no UTF-8, and control
// characters, become U+FFFD.
[[nodiscard]] std::string label_value(std::string_view written);

// "a.b=x,c=y" as labels, in that order. Keys that become one name have their values joined by ';'.
[[nodiscard]] std::vector<Label> labels_of(std::string_view attributes);

// {a="b",c="d"}, escaped; nothing when there are none.
void append_labels(std::string& out, const std::vector<Label>& labels);

// Text of a HELP line: backslash and newline escaped, the quote too when `quotes` (OpenMetrics).
void append_help(std::string& out, std::string_view text, bool quotes);

// The shortest decimal that reads back as the same double; NaN, +Inf, -Inf.
void append_number(std::string& out, double value);

}  // namespace argus::engine
