// Exposition: published to by the thread that steps the engine, rendered by any; rendering releases the GIL.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/register.hpp"
#include "engine/engine.hpp"
#include "engine/exposition.hpp"

namespace argus::bindings {
namespace {

namespace py = pybind11;

using engine::Exposition;
using engine::MetricType;

// name, "counter" or "gauge", help, labels
using OwnValues = std::tuple<std::string, std::string, std::string, std::vector<std::pair<std::string, std::string>>>;

std::unique_ptr<Exposition> make_exposition(bool node_exporter_names, const std::vector<OwnValues>& own) {
    engine::ExpositionOptions options{node_exporter_names};
    for (const auto& [name, type, help, labels] : own) {
        engine::OwnMetric metric{name, type == "counter" ? MetricType::counter : MetricType::gauge, help, {}};
        for (const auto& [key, value] : labels) metric.labels.push_back({key, value});
        options.own.push_back(std::move(metric));
    }
    return std::make_unique<Exposition>(std::move(options));
}

void publish(Exposition& exposition, engine::Engine& of, const std::vector<double>& own) {
    exposition.publish({.host = of.host(),
                        .engine = of.statistics(),
                        .events = of.events().totals(),
                        .claims = of.events().claims(),
                        .step_wall = of.row_time(),
                        .own = own});
}

py::bytes render(Exposition& exposition, bool openmetrics) {
    std::string page;
    {
        const py::gil_scoped_release unlocked;
        exposition.render(openmetrics ? Exposition::Format::openmetrics : Exposition::Format::text,
                          SystemClock().mono(), page);
    }
    return page;
}

}  // namespace

void register_exposition(py::module_& m) {
    py::class_<Exposition>(m, "Exposition")
        .def(py::init(&make_exposition), py::kw_only(), py::arg("node_exporter_names"), py::arg("own"))
        .def("publish", &publish, py::arg("engine"), py::arg("own"))
        .def("render", &render, py::kw_only(), py::arg("openmetrics"))
        .def_property_readonly("version", &Exposition::version);
}

}  // namespace argus::bindings
