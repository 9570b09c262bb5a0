#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

#include "engine/node_names.hpp"
#include "engine/prometheus_names.hpp"
#include "sources/text.hpp"

namespace argus::engine {
namespace {

std::string number(double value) {
    std::string out;
    append_number(out, value);
    return out;
}

std::string labels(std::string_view attributes) {
    std::string out;
    append_labels(out, labels_of(attributes));
    return out;
}

std::string node(const SeriesInfo& info) {
    std::string out;
    for (const NodeSeries& series : node_series(info)) {
        out += series.row->name;
        append_labels(out, series.labels);
        out += ' ';
    }
    return out;
}

}  // namespace

TEST_CASE("prometheus names: units, _total and _ratio as OpenTelemetry's compatibility specification has them") {
    constexpr Kind C = Kind::counter;
    constexpr Kind G = Kind::gauge;
    struct Case {
        const char* name;
        const char* unit;
        Kind kind;
        const char* expected;
    };
    const Case cases[] = {
        {"system.cpu.time", "s", C, "system_cpu_time_seconds_total"},
        {"system.network.io", "By", C, "system_network_io_bytes_total"},
        {"system.memory.usage", "By", G, "system_memory_usage_bytes"},
        {"system.memory.utilization", "1", G, "system_memory_utilization_ratio"},
        {"system.network.packet.count", "{packet}", C, "system_network_packet_count_total"},
        {"events.count", "1", C, "events_count_total"},
        {"hw.temperature", "Cel", G, "hw_temperature_celsius"},
        {"system.cpu.frequency", "Hz", G, "system_cpu_frequency_hertz"},
        {"hw.energy", "J", C, "hw_energy_joules_total"},
        {"hw.power", "W", G, "hw_power_watts"},
        {"hw.voltage", "V", G, "hw_voltage_volts"},
        {"hw.current", "A", G, "hw_current_amperes"},
        {"hw.fan.speed", "{rotation}/min", G, "hw_fan_speed_per_minute"},
        {"disk.rate", "By/s", G, "disk_rate_bytes_per_second"},
        {"battery.charge", "%", G, "battery_charge_percent"},
        {"uptime.seconds", "s", G, "uptime_seconds"},
        {"total.requests", "{request}", C, "requests_total"},
        {"hit.ratio.now", "1", G, "hit_now_ratio"},
        {"odd__name..twice", "", G, "odd_name_twice"},
        {"5xx.errors", "", C, "_5xx_errors_total"},
        {"camelCase:and:colons", "", G, "camelCase_and_colons"},
        {"of.an.unknown", "furlong", G, "of_an_unknown_furlong"},
        {"caf\xC3\xA9", "", G, "caf"},
        {"...", "s", G, ""},
    };
    for (const Case& c : cases) CHECK(metric_name(c.name, c.unit, c.kind) == c.expected);
}

TEST_CASE("prometheus names: label names are legal and never reserved") {
    CHECK(label_name("network.interface.name") == "network_interface_name");
    CHECK(label_name("a..b-c") == "a_b_c");
    CHECK(label_name("9lives") == "key_9lives");
    CHECK(label_name("__name__") == "key_name_");
    CHECK(label_name("\xFF") == "key_");
    CHECK(label_name("") == "key_");
}

TEST_CASE("prometheus names: values come back from their percent form and are escaped by Prometheus' rules") {
    CHECK(labels("") == "");
    CHECK(labels("disk.io.direction=read,system.device=sda") == "{disk_io_direction=\"read\",system_device=\"sda\"}");
    CHECK(labels("a=" + sources::attribute_value("x\"y\\z,=\n{}%")) == "{a=\"x\\\"y\\\\z,=\\n{}%\"}");
    CHECK(labels("a=" + sources::attribute_value("na\xC3\xAFve \xE2\x82\xAC")) == "{a=\"na\xC3\xAFve \xE2\x82\xAC\"}");
    CHECK(labels("a=%zz%4") == "{a=\"%zz%4\"}");  // what no attribute_value() wrote stays as it is
    CHECK(labels("a.b=1,a_b=2") == "{a_b=\"1;2\"}");
    CHECK(labels("a=,b") == "{a=\"\"}");
}

TEST_CASE("prometheus names: what is no UTF-8, or would command a terminal, becomes U+FFFD") {
    const std::string gone = "\xEF\xBF\xBD";
    const auto value = [](std::string_view raw) { return label_value(sources::attribute_value(raw)); };
    CHECK(value("\xFF") == gone);
    CHECK(value("a\xC3") == "a" + gone);
    CHECK(value("\xC0\xAF") == gone + gone);                  // overlong
    CHECK(value("\xED\xA0\x80") == gone + gone + gone);       // a surrogate
    CHECK(value("\xF4\x90\x80\x80").size() == 4 * gone.size());  // beyond U+10FFFF
    CHECK(value("\xF0\x9F\x91\x81") == "\xF0\x9F\x91\x81");
    CHECK(value("\x1B[31m") == gone + "[31m");
    CHECK(value(std::string_view("\0\x7F\r\t", 4)) == gone + gone + gone + "\t");
}

TEST_CASE("prometheus names: numbers read back as they were") {
    CHECK(number(0) == "0");
    CHECK(number(-3) == "-3");
    CHECK(number(1e15) == "1000000000000000");
    CHECK(number(0.1) == "0.1");
    CHECK(number(std::nan("")) == "NaN");
    CHECK(number(std::numeric_limits<double>::infinity()) == "+Inf");
    CHECK(number(-std::numeric_limits<double>::infinity()) == "-Inf");
    std::mt19937_64 engine(3);
    for (int i = 0; i < 10'000; ++i) {
        const std::uint64_t bits = engine();
        double value = 0;
        std::memcpy(&value, &bits, sizeof value);
        if (!std::isfinite(value)) continue;
        CHECK(std::strtod(number(value).c_str(), nullptr) == value);
    }
}

TEST_CASE("node names: what node_exporter calls the same series") {
    constexpr Kind C = Kind::counter;
    CHECK(node({"system.cpu.time", "s", C, "cpu.logical_number=3,cpu.mode=interrupt"}) ==
          "node_cpu_seconds_total{cpu=\"3\",mode=\"irq\"} ");
    CHECK(node({"system.cpu.time", "s", C, "cpu.logical_number=0,cpu.mode=guest_nice"}) ==
          "node_cpu_guest_seconds_total{cpu=\"0\",mode=\"nice\"} ");
    CHECK(node({"system.cpu.time", "s", C, "cpu.mode=user"}) == "");  // of all processors: node_exporter has none
    CHECK(node({"system.network.io", "By", C, "network.interface.name=wl%3Dan,network.io.direction=transmit"}) ==
          "node_network_transmit_bytes_total{device=\"wl=an\"} ");
    CHECK(node({"system.disk.io", "By", C, "disk.io.direction=read,system.device=sda"}) ==
          "node_disk_read_bytes_total{device=\"sda\"} ");
    CHECK(node({"system.memory.usage", "By", Kind::gauge, "system.memory.state=cached"}) == "");
    CHECK(node({"system.memory.limit", "By", Kind::gauge, ""}) == "node_memory_MemTotal_bytes ");
    CHECK(node({"no.such.series", "1", Kind::gauge, ""}) == "");
}

}  // namespace argus::engine
