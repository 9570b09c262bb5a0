#include "bindings/convert.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

namespace py = pybind11;

namespace argus::bindings {
namespace {

// NaN = does not apply.
py::object number_or_none(double value) {
    if (std::isnan(value)) return py::none();
    return py::float_(value);
}

template <class Counts>
py::dict count_rejects(Counts counts) {
    py::dict out;
    for (std::size_t i = 1; i < counts.size(); ++i) {
        if (counts[i] != 0) out[events::to_string(static_cast<events::Reject>(i))] = counts[i];
    }
    return out;
}

}  // namespace

py::str text(std::string_view bytes) {
    PyObject* decoded = PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
    if (decoded == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::str>(decoded);
}

py::dict budget_totals(const engine::AlarmBudget& budget) {
    const engine::Realised whole = budget.realised();
    py::dict out;
    out["alarms"] = whole.alarms;
    out["requested"] = whole.requested;
    out["series_days"] = whole.days;
    out["broken"] = budget.broken();
    return out;
}

py::dict budget_dict(const engine::AlarmBudget& budget, std::span<const std::uint32_t> slots) {
    constexpr const char* kStates[] = {"warming", "pooled", "own"};
    const auto count = static_cast<py::ssize_t>(slots.size());
    py::array_t<float> levels(count);
    py::array_t<double> days(count);
    py::list states;
    for (std::size_t i = 0; i < slots.size(); ++i) {
        levels.mutable_data()[i] = budget.levels()[slots[i]];
        days.mutable_data()[i] = budget.days(slots[i]);
        states.append(kStates[static_cast<std::size_t>(budget.state(slots[i]))]);
    }
    py::dict out = budget_totals(budget);
    out["levels"] = levels;
    out["days"] = days;
    out["states"] = states;
    return out;
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

ProcessColumns::ProcessColumns() : name_type_("S64"), state_type_("S1") {
    for (const auto& column : sources::process_columns()) keys_.emplace_back(column.name);
}

py::dict ProcessColumns::arrays(const sources::ProcessTable& table, py::handle owner) const {
    py::dict out;
    const auto put = [&](const auto& key, const py::dtype& type, const auto& column) {
        out[key] = py::array(type, static_cast<py::ssize_t>(table.count), column.data(), owner);
    };
    const py::dtype number = py::dtype::of<double>();
    const py::dtype small = py::dtype::of<std::int32_t>();
    const py::dtype wide = py::dtype::of<std::int64_t>();
    put("pid", small, table.pid);
    put("ppid", small, table.ppid);
    put("start_time_ns", wide, table.start_time_ns);
    put("name", name_type_, table.name);
    put("state", state_type_, table.state);
    put("cgroup_id", wide, table.cgroup_id);
    put("uid", wide, table.uid);
    put("threads", small, table.threads);
    put("nice", small, table.nice);
    put("last_cpu", small, table.last_cpu);
    put("valid", py::dtype::of<std::uint32_t>(), table.valid);
    for (std::size_t i = 0; i < keys_.size(); ++i) put(keys_[i], number, table.columns[i]);
    return out;
}

py::dict reject_dict(std::span<const std::uint32_t> counts) { return count_rejects(counts); }
py::dict reject_dict(std::span<const std::uint64_t> counts) { return count_rejects(counts); }

py::list source_list(const engine::EventPlane& plane) {
    py::list out;
    for (const engine::EventSourceStatus& s : plane.sources()) {
        py::dict d;
        d["name"] = text(s.name);
        d["credential"] = s.credential;
        d["events"] = s.events;
        d["lost"] = s.lost;
        d["late"] = s.late;
        d["retransmissions"] = s.retransmissions;
        d["reused_ids"] = s.reused_ids;
        d["rejected"] = reject_dict(s.rejected);
        d["lossless"] = s.lossless;
        d["last_ts"] = s.last_ts;
        d["last_seen"] = s.last_seen;
        py::list types;
        for (std::size_t i = 1; i < static_cast<std::size_t>(EventType::count_); ++i) {
            const std::string_view name = events::event_type_name(static_cast<EventType>(i));
            if ((s.types >> i & 1U) != 0) types.append(py::str(name.data(), name.size()));
        }
        d["types"] = types;
        out.append(d);
    }
    return out;
}

py::dict totals_dict(const engine::EventPlane& plane) {
    const engine::EventPlaneTotals t = plane.totals();
    py::dict d;
    d["frames"] = t.frames;
    d["accepted"] = t.accepted;
    d["rejected"] = reject_dict(t.rejected);
    d["unknown_types"] = t.unknown_types;
    d["retransmissions"] = t.retransmissions;
    d["anomalies"] = t.anomalies;
    d["unspoken"] = t.unspoken;
    d["live_sources"] = t.live_sources;
    d["live_tasks"] = t.live_tasks;
    d["tasks"] = t.tasks;
    d["accounts"] = t.accounts;
    d["evicted"] = t.evicted_sources + t.evicted_tasks + t.evicted_accounts + t.evicted_calls;
    return d;
}

py::list quarantine_list(const engine::EventPlane& plane) {
    py::list out;
    for (const engine::Quarantined& q : plane.quarantine()) {
        py::dict d;
        d["reason"] = events::to_string(q.reason);
        d["detail"] = q.detail;
        d["source"] = text(q.source.view());
        d["size"] = q.whole;
        d["ts"] = q.ts;
        d["bytes"] = py::bytes(reinterpret_cast<const char*>(q.bytes.data()), q.size);
        out.append(d);
    }
    return out;
}

ScopeKind scope_kind(const std::string& name) {
    for (const auto kind :
         {ScopeKind::host, ScopeKind::tenant, ScopeKind::agent, ScopeKind::session, ScopeKind::task}) {
        if (name == to_string(kind)) return kind;
    }
    throw py::value_error("scope kind: expected host, tenant, agent, session or task, found '" + name + "'");
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

namespace {

[[nodiscard]] auditors::Pattern pattern_of(const py::handle& given) {
    auditors::Pattern pattern;
    if (given.is_none()) return pattern;
    const auto [events, where] = given.cast<std::pair<std::vector<std::string>, std::map<std::string, std::string>>>();
    pattern.events = events;
    pattern.conditions.assign(where.begin(), where.end());
    return pattern;
}

[[nodiscard]] py::object pattern_to_python(const auditors::Pattern& pattern) {
    if (pattern.events.empty()) return py::none();
    py::dict where;
    for (const auto& [field, value] : pattern.conditions) where[py::str(field)] = value;
    return py::make_tuple(pattern.events, where);
}

}  // namespace

auditors::Constraint constraint_of(const py::dict& row) {
    auditors::Constraint c;
    c.name = row["name"].cast<std::string>();
    const auto kind = row["template"].cast<std::string>();
    const auto all = auditors::templates();
    const auto at = std::find_if(all.begin(), all.end(), [&](const auto& t) { return kind == t.name; });
    if (at == all.end()) throw py::value_error("constraints." + c.name + ".template: no template '" + kind + "'");
    c.kind = static_cast<auditors::Template>(at - all.begin());
    c.activation = pattern_of(row["activation"]);
    c.target = pattern_of(row["target"]);
    c.scope = scope_kind(row["scope"].cast<std::string>());
    c.times = row["times"].cast<std::uint32_t>();
    c.deadline = row["deadline_ns"].cast<Nanos>();
    c.of_silence = row["of_silence"].cast<bool>();
    c.witnessed = row["witnessed"].cast<bool>();
    c.enabled = row["enabled"].cast<bool>();
    c.message = row["message"].cast<std::string>();
    const auto severity = row["severity"].cast<std::string>();
    for (const auto s : {Severity::info, Severity::warning, Severity::critical}) {
        if (severity == to_string(s)) c.severity = s;
    }
    return c;
}

py::dict constraint_to_dict(const auditors::Constraint& c) {
    py::dict d;
    d["name"] = c.name;
    d["template"] = auditors::templates()[static_cast<std::size_t>(c.kind)].name;
    d["activation"] = pattern_to_python(c.activation);
    d["target"] = pattern_to_python(c.target);
    d["scope"] = to_string(c.scope);
    d["times"] = c.times;
    d["deadline_ns"] = c.deadline;
    d["of_silence"] = c.of_silence;
    d["witnessed"] = c.witnessed;
    d["severity"] = to_string(c.severity);
    d["enabled"] = c.enabled;
    d["message"] = c.message;
    return d;
}

}  // namespace argus::bindings
