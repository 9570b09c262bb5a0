#include "bindings/convert.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstring>

namespace py = pybind11;

namespace argus::bindings {
namespace {

// NaN = does not apply.
py::object number_or_none(double value) {
    if (std::isnan(value)) return py::none();
    return py::float_(value);
}

template <class T>
py::array copy_as(const py::dtype& type, const std::vector<T>& column, std::size_t count) {
    py::array out(type, static_cast<py::ssize_t>(count));
    if (count != 0) std::memcpy(out.mutable_data(), column.data(), count * sizeof(T));
    return out;
}

}  // namespace

py::str text(std::string_view bytes) {
    PyObject* decoded = PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
    if (decoded == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::str>(decoded);
}

py::dict scope_to_dict(const Scope& scope) {
    py::dict out;
    out["kind"] = to_string(scope.kind);
    out["id"] = text(scope.id);
    if (!scope.tenant.empty()) out["tenant"] = text(scope.tenant);
    if (!scope.agent.empty()) out["agent"] = text(scope.agent);
    if (!scope.session.empty()) out["session"] = text(scope.session);
    if (!scope.task.empty()) out["task"] = text(scope.task);
    return out;
}

py::dict anomaly_to_dict(const Anomaly& anomaly) {
    py::list evidence;
    for (const auto& item : anomaly.evidence) evidence.append(text(item));
    py::dict out;
    out["id"] = anomaly.id;
    out["ts"] = anomaly.ts;
    out["family"] = to_string(anomaly.family);
    out["detector"] = anomaly.detector;
    out["scope"] = scope_to_dict(anomaly.scope);
    out["series"] = text(anomaly.series);
    out["severity"] = to_string(anomaly.severity);
    out["message"] = text(anomaly.message);
    out["value"] = number_or_none(anomaly.value);
    out["expected"] = number_or_none(anomaly.expected);
    out["lower"] = number_or_none(anomaly.lower);
    out["upper"] = number_or_none(anomaly.upper);
    out["bits"] = anomaly.bits;
    out["false_alarm_interval_s"] = anomaly.false_alarm_interval_s;
    out["since"] = anomaly.since;
    out["direction"] = to_string(anomaly.direction);
    out["criterion"] = anomaly.criterion;
    out["evidence"] = evidence;
    return out;
}

py::dict processes_to_dict(const sources::ProcessTable& table) {
    const std::size_t rows = table.count;
    py::dict out;
    out["pid"] = copy_as(py::dtype::of<std::int32_t>(), table.pid, rows);
    out["ppid"] = copy_as(py::dtype::of<std::int32_t>(), table.ppid, rows);
    out["start_time_ns"] = copy_as(py::dtype::of<std::int64_t>(), table.start_time_ns, rows);
    out["name"] = copy_as(py::dtype("S64"), table.name, rows);
    out["state"] = copy_as(py::dtype("S1"), table.state, rows);
    out["uid"] = copy_as(py::dtype::of<std::int64_t>(), table.uid, rows);
    out["threads"] = copy_as(py::dtype::of<std::int32_t>(), table.threads, rows);
    out["nice"] = copy_as(py::dtype::of<std::int32_t>(), table.nice, rows);
    out["last_cpu"] = copy_as(py::dtype::of<std::int32_t>(), table.last_cpu, rows);
    out["valid"] = copy_as(py::dtype::of<std::uint32_t>(), table.valid, rows);
    const auto columns = sources::process_columns();
    for (std::size_t i = 0; i < columns.size(); ++i) {
        out[columns[i].name] = copy_as(py::dtype::of<double>(), table.columns[i], rows);
    }
    return out;
}

py::list host_status_to_list(engine::HostPlane& host) {
    py::list out;
    for (const engine::SourceStatus& s : host.status()) {
        py::dict d;
        d["name"] = s.name;
        d["state"] = engine::to_string(s.state);
        d["error"] = text(s.error);
        d["polls"] = s.polls;
        d["emitted"] = s.emitted;
        d["malformed"] = s.malformed;
        d["errors"] = s.errors;
        d["missed"] = s.missed;
        d["dropped"] = s.dropped;
        d["lateness_max_ns"] = s.lateness_max_ns;
        d["duration_last_ns"] = s.duration_last_ns;
        d["duration_max_ns"] = s.duration_max_ns;
        out.append(d);
    }
    return out;
}

}  // namespace argus::bindings
