// Engine and catalogue. Calls that may take more than 5 us release the GIL; anomalies leave as dicts, which
// python/argus/engine/core.py turns into records.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <tuple>

#include "base/dispatch.hpp"
#include "bindings/convert.hpp"
#include "bindings/register.hpp"
#include "engine/catalog.hpp"
#include "engine/criteria.hpp"
#include "engine/engine.hpp"

namespace py = pybind11;

namespace argus::bindings {
namespace {

using engine::Engine;

constexpr std::uint32_t kMaxSeries = 4096;

py::list describe(std::span<const Option> options) {
    py::list out;
    for (const Option& o : options) {
        py::dict d;
        d["name"] = o.name;
        d["unit"] = o.unit;
        d["default"] = o.value;
        d["min"] = o.min;
        d["max"] = o.max;
        d["documentation"] = o.documentation;
        out.append(d);
    }
    return out;
}

py::dict describe(const Leaf& leaf) {
    py::dict d;
    d["name"] = leaf.name;
    d["documentation"] = leaf.documentation;
    d["reference"] = leaf.reference;
    d["options"] = describe(leaf.options);
    return d;
}

py::dict catalog() {
    py::list sources, detectors, auditors, criteria;
    for (const auto* s : engine::source_catalog()) {
        py::dict d;
        d["name"] = s->name;
        d["documentation"] = s->documentation;
        d["requires"] = s->requires_;
        d["fix"] = s->fix;
        d["interval_ms"] = s->interval_ms;
        d["options"] = describe(s->options);
        d["targets"] = s->targets;
        sources.append(d);
    }
    for (const auto* x : engine::detector_catalog()) {
        constexpr const char* kUses[] = {"fused", "named", "arrivals", "arrays"};
        py::dict d = describe(x->leaf);
        d["use"] = kUses[static_cast<std::size_t>(x->use)];
        detectors.append(d);
    }
    for (const auto* x : engine::auditor_catalog()) auditors.append(describe(x->leaf));
    for (const auto& c : engine::criteria()) {
        py::dict d;
        d["name"] = c.name;
        d["severity"] = to_string(c.severity);
        d["documentation"] = c.documentation;
        d["options"] = describe(c.options);
        criteria.append(d);
    }
    py::dict out;
    out["sources"] = sources;
    out["detectors"] = detectors;
    out["auditors"] = auditors;
    out["criteria"] = criteria;
    return out;
}

// What constraints can be made of, and those that hold by default.
py::dict constraint_catalog() {
    constexpr const char* kDeadlines[] = {"none", "optional", "needed"};
    py::list kinds, fields, events, taken, rows;
    for (const auto& t : auditors::templates()) {
        py::dict d;
        d["name"] = t.name;
        d["target"] = t.target;
        d["times"] = t.times;
        d["deadline"] = kDeadlines[static_cast<std::size_t>(t.deadline)];
        d["documentation"] = t.documentation;
        kinds.append(d);
    }
    for (const char* name : auditors::condition_fields()) fields.append(name);
    for (const char* name : auditors::check_names()) taken.append(name);
    for (std::size_t i = 1; i < static_cast<std::size_t>(EventType::count_); ++i) {
        events.append(text(events::event_type_name(static_cast<EventType>(i))));
    }
    for (const auto& c : auditors::default_constraints(600 * kSecond)) rows.append(constraint_to_dict(c));
    py::dict out;
    out["templates"] = kinds;
    out["fields"] = fields;
    out["events"] = events;
    out["taken"] = taken;
    out["defaults"] = rows;
    return out;
}

engine::StopKind stop_kind(const std::string& name) {
    for (const auto kind : {engine::StopKind::hard_kill, engine::StopKind::write_lockdown}) {
        if (name == engine::to_string(kind)) return kind;
    }
    throw py::value_error("stop: expected hard_kill or write_lockdown, found '" + name + "'");
}

py::list to_python(const std::vector<Anomaly>& anomalies) {
    py::list out;
    for (const Anomaly& a : anomalies) out.append(anomaly_to_dict(a));
    return out;
}

py::list take_decisions(Engine& engine) {
    py::list out;
    for (const engine::Decision& d : engine.take_decisions()) {
        py::dict rest;
        rest["ts"] = d.ts;
        rest["anomaly"] = text(d.anomaly);
        rest["criterion"] = d.criterion;
        rest["reason"] = text(d.reason);
        rest["word_raised"] = d.word_raised;
        out.append(py::make_tuple(engine::to_string(d.kind), scope_to_dict(d.scope), rest));
    }
    return out;
}

// Indices of slots in which a series lives.
std::vector<std::uint32_t> live_slots(const Engine& engine) {
    std::vector<std::uint32_t> slots;
    for (std::uint32_t i = 0; i < engine.row().size(); ++i) {
        if (engine.series(i) != nullptr) slots.push_back(i);
    }
    return slots;
}

template <class Values>
py::array_t<double> column(const std::vector<std::uint32_t>& slots, const Values& values) {
    py::array_t<double> out(static_cast<py::ssize_t>(slots.size()));
    auto* at = out.mutable_data();
    for (const auto slot : slots) *at++ = static_cast<double>(values[slot]);
    return out;
}

// The host's extremes; a series of the event plane has one value a tick.
py::array_t<double> extremes(const std::vector<std::uint32_t>& slots, const Engine& engine,
                             std::span<const double> of_host) {
    py::array_t<double> out(static_cast<py::ssize_t>(slots.size()));
    auto* at = out.mutable_data();
    for (const auto slot : slots) *at++ = slot < of_host.size() ? of_host[slot] : engine.row()[slot];
    return out;
}

py::dict latest(const Engine& engine) {
    const auto slots = live_slots(engine);
    py::tuple names(slots.size()), units(slots.size());
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const SeriesInfo& info = *engine.series(slots[i]);
        names[i] = text(info.full_name());
        units[i] = info.shown_unit();
    }
    py::dict out;
    out["time_ns"] = engine.row_time();
    out["names"] = names;
    out["units"] = units;
    out["values"] = column(slots, engine.row());
    const engine::HostPlane* host = engine.host();
    out["low"] = extremes(slots, engine, host != nullptr ? host->low() : std::span<const double>());
    out["high"] = extremes(slots, engine, host != nullptr ? host->high() : std::span<const double>());
    out["expected"] = column(slots, engine.bank().expected());
    out["lower"] = column(slots, engine.bank().lower());
    out["upper"] = column(slots, engine.bank().upper());
    out["bits"] = column(slots, engine.bank().bits());
    return out;
}

py::dict budget(const Engine& engine) {
    const auto slots = live_slots(engine);
    py::dict out = budget_dict(engine.bank().budget(), slots);
    py::list names;
    for (const auto slot : slots) names.append(text(engine.series(slot)->full_name()));
    out["names"] = names;
    out["alarms_per_day"] = engine.bank().false_alarms_per_day();
    return out;
}

py::dict entity(Engine& engine) {
    py::list names;
    py::list shares;
    for (const engine::Driver& driver : engine.drivers()) {
        const SeriesInfo* info = engine.series(driver.slot);
        if (info == nullptr) continue;
        names.append(text(info->full_name()));
        shares.append(driver.share);
    }
    py::dict out;
    out["bits"] = engine.bank().entity_bits();
    out["drivers"] = names;
    out["shares"] = shares;
    return out;
}

py::object history(const Engine& engine, const std::string& name) {
    for (const auto slot : live_slots(engine)) {
        if (engine.series(slot)->full_name() != name) continue;
        std::vector<Nanos> times(engine.history_capacity());
        std::vector<float> values(times.size());
        const std::size_t rows = engine.history(slot, times, values);
        py::array_t<std::int64_t> when(static_cast<py::ssize_t>(rows));
        py::array_t<double> what(static_cast<py::ssize_t>(rows));
        std::copy_n(times.begin(), rows, when.mutable_data());
        std::copy_n(values.begin(), rows, what.mutable_data());
        return py::make_tuple(when, what);
    }
    return py::none();
}

py::list lanes_list(const engine::HostPlane* host) {
    py::list out;
    if (host == nullptr) return out;
    for (const engine::LaneStatus& lane : host->lanes()) {
        py::dict d;
        d["name"] = lane.name;
        d["wakes"] = lane.wakes;
        d["bursts"] = lane.bursts;
        d["lateness_p50_ns"] = lane.lateness_p50_ns;
        d["lateness_p99_ns"] = lane.lateness_p99_ns;
        out.append(d);
    }
    return out;
}

py::dict share(const auditors::Share& of) {
    py::dict out;
    out["all"] = of.all;
    out["accounted"] = of.accounted;
    return out;
}

py::dict claims(const Engine& engine) {
    const auditors::ClaimReport report = engine.events().claims();
    py::dict unverifiable;
    for (std::size_t i = 1; i < auditors::kBlinds; ++i) {
        unverifiable[auditors::to_string(static_cast<auditors::Blind>(i))] = report.counts.unverifiable[i];
    }
    py::dict out;
    out["files"] = report.counts.files;
    out["confirmed"] = report.counts.confirmed;
    out["refuted"] = report.counts.refuted;
    out["undecided"] = report.counts.undecided;
    out["withdrawn"] = report.counts.withdrawn;
    out["shed"] = report.counts.shed;
    out["unverifiable"] = unverifiable;
    py::list agents;
    for (const auditors::AgentCoverage& a : report.agents) {
        py::dict d;
        d["session"] = text(a.session);
        d["agent"] = text(a.agent);
        d["cpu_s"] = share(a.cpu_s);
        d["write_bytes"] = share(a.write_bytes);
        d["processes"] = share(a.processes);
        d["since"] = a.since;
        d["alive"] = a.alive;
        agents.append(d);
    }
    out["agents"] = agents;
    return out;
}

py::dict statistics(Engine& engine) {
    const auto& s = engine.statistics();
    const auto& plane = engine.events();
    py::dict out;
    out["events"] = totals_dict(plane);
    out["event_sources"] = source_list(plane);
    out["last_event_ts"] = plane.now();
    out["steps"] = s.steps;
    out["anomalies"] = s.anomalies;
    out["step_ns_last"] = s.step_ns_last;
    out["step_ns_max"] = s.step_ns_max;
    out["ingest_ns_total"] = s.ingest_ns_total;
    out["failed"] = s.failed;
    out["series"] = live_slots(engine).size();
    out["sources_read"] = engine.host() != nullptr ? host_status_to_list(*engine.host()) : py::list();
    out["lanes"] = lanes_list(engine.host());
    return out;
}

using LeafValues = std::vector<std::tuple<std::string, bool, std::vector<double>>>;

// model, from (Unix ns, absent = ever), nano-USD of input and of output
using PriceValues = std::tuple<std::string, std::optional<Nanos>, std::int64_t, std::int64_t>;

// Prices come per million tokens and are kept per token, rounded up: an estimate is an upper bound.
void add_price(events::LedgerOptions& ledger, const PriceValues& values) {
    constexpr std::int64_t kTokens = 1'000'000;
    const auto per_token = [](std::int64_t nusd) { return nusd / kTokens + (nusd % kTokens != 0 ? 1 : 0); };
    const auto& [model, from, input, output] = values;
    events::Price price{model, per_token(input), per_token(output)};
    if (from) price.from = *from;
    if (model.empty()) {
        ledger.default_price = price;
    } else {
        ledger.prices.push_back(price);
    }
}

// name, enabled, interval in ms, options in the descriptor's order, targets
using SourceValues = std::tuple<std::string, bool, std::int64_t, std::vector<double>, std::vector<std::string>>;

// interval in ms (0 = never), length and pause in s, stalled share
using BurstValues = std::tuple<std::int64_t, std::int64_t, std::int64_t, double>;

using NamedSeries = std::map<std::string, std::vector<std::string>>;  // detector -> patterns of full names

void add_detector(engine::EngineOptions& options, const detectors::DetectorDescriptor& descriptor,
                  const std::vector<double>& values, const NamedSeries& named) {
    const auto series = named.find(descriptor.leaf.name);
    switch (descriptor.use) {
        case detectors::Use::fused: options.bank.detectors.push_back({&descriptor, values}); break;
        case detectors::Use::arrivals: options.silence = values; break;
        case detectors::Use::named:
            if (series != named.end() && !series->second.empty()) {
                options.named.push_back({{&descriptor, values}, series->second});
            }
            break;
        case detectors::Use::arrays: break;
    }
}

std::unique_ptr<Engine> make_engine(const std::string& proc, const std::string& sys, const std::string& cgroup,
                                    bool host_plane,
                                    const std::vector<SourceValues>& sources,
                                    std::tuple<bool, std::int64_t, std::string> processes, std::int64_t window_ms,
                                    const BurstValues& bursts, const LeafValues& detectors,
                                    const NamedSeries& named, const LeafValues& auditors, const LeafValues& criteria,
                                    const std::vector<py::dict>& constraints,
                                    const std::map<std::string, std::int64_t>& caps_nusd, bool caps_strict,
                                    const std::vector<PriceValues>& prices,
                                    double false_alarms_per_day, std::uint32_t history_rows,
                                    bool guard_every_session) {
    engine::EngineOptions options;
    options.host_plane = host_plane;
    options.host.roots = {proc, sys, cgroup};
    for (const auto& [name, enabled, interval, values, targets] : sources) {
        options.host.sources.push_back({name, enabled, interval, {values, targets}});
    }
    std::tie(options.host.processes, options.host.processes_interval_ms, options.host.process_tier) = processes;
    options.host.max_series = kMaxSeries;
    options.host.window = window_ms * kMillisecond;
    const auto& [burst_interval_ms, burst_length_s, burst_pause_s, stall_share] = bursts;
    options.host.bursts = {burst_interval_ms * kMillisecond, burst_length_s * kSecond, burst_pause_s * kSecond};
    options.host.burst_stall_share = stall_share;
    options.bank.detectors.clear();
    options.silence.reset();
    for (const auto* descriptor : engine::detector_catalog()) {
        for (const auto& [name, enabled, values] : detectors) {
            if (enabled && name == descriptor->leaf.name) add_detector(options, *descriptor, values, named);
        }
    }
    options.bank.false_alarms_per_day = false_alarms_per_day;
    options.events.auditors.clear();
    for (const auto* descriptor : engine::auditor_catalog()) {
        for (const auto& [name, enabled, values] : auditors) {
            if (enabled && name == descriptor->leaf.name) options.events.auditors.push_back({descriptor, values});
        }
    }
    for (const auto& [name, enabled, values] : criteria) options.events.criteria.push_back({name, enabled, values});
    for (const py::dict& row : constraints) options.events.constraints.push_back(constraint_of(row));
    for (const auto& [kind, nusd] : caps_nusd) {
        options.events.ledger.default_cap[static_cast<std::size_t>(scope_kind(kind))] = nusd;
    }
    options.events.ledger.default_strict = caps_strict;
    for (const PriceValues& price : prices) add_price(options.events.ledger, price);
    options.history_rows = history_rows;
    options.guard_every_session = guard_every_session;
    return std::make_unique<Engine>(std::move(options));
}

using namespace py::literals;

void bind_running(py::class_<Engine>& c) {
    c.def("start", &Engine::start)
        .def("stop", &Engine::stop, py::call_guard<py::gil_scoped_release>())
        .def("ingest",
             [](Engine& engine, const py::bytes& data, std::uint32_t credential, bool require_seq, Nanos now) {
                 const std::string_view view = data;
                 std::vector<Anomaly> found;
                 engine::IngestReport report;
                 {
                     const py::gil_scoped_release unlocked;
                     report = engine.ingest(std::as_bytes(std::span(view)), credential, require_seq, now, found);
                 }
                 return py::make_tuple(report.accepted, reject_dict(report.rejected), to_python(found));
             })
        .def("step",
             [](Engine& engine, Nanos now) {
                 std::vector<Anomaly> found;
                 {
                     const py::gil_scoped_release unlocked;
                     engine.step(now, found);
                 }
                 return to_python(found);
             })
        .def("finish",
             [](Engine& engine, Nanos now) {
                 std::vector<Anomaly> found;
                 {
                     const py::gil_scoped_release unlocked;
                     engine.finish(now, found);
                 }
                 return to_python(found);
             })
        .def("suspend", [](Engine& engine, const std::vector<std::pair<std::string, bool>>& patterns) {
            std::vector<Engine::Suspension> suspensions;
            for (const auto& [series, anew] : patterns) suspensions.push_back({series, anew});
            engine.suspend(std::move(suspensions));
        })
        .def("suspended", &Engine::suspended);
}

py::bytes to_bytes(const std::vector<std::byte>& state) {
    return {reinterpret_cast<const char*>(state.data()), state.size()};
}

void bind_state(py::class_<Engine>& c) {
    const auto taking = [](void (Engine::*take)(std::span<const std::byte>)) {
        return [take](Engine& engine, const py::bytes& state) {
            const std::string_view view = state;
            try {
                (engine.*take)(std::as_bytes(std::span(view)));
            } catch (const CodecError& error) {
                throw py::value_error(error.what());
            }
        };
    };
    c.def("snapshot", [](const Engine& engine) { return to_bytes(engine.snapshot()); })
        .def("restore", taking(&Engine::restore))
        .def("learned", [](const Engine& engine) { return to_bytes(engine.learned()); })
        .def("learn_from", taking(&Engine::learn_from));
}

void bind_stops(py::class_<Engine>& c) {
    c.def("take_decisions", &take_decisions)
        .def("attach_control", &Engine::attach_control)
        .def("set_enforce", &Engine::set_enforce)
        .def("set_guarded",
             [](Engine& engine, const std::vector<std::pair<std::string, std::string>>& scopes) {
                 std::set<std::pair<ScopeKind, std::string>> set;
                 for (const auto& [kind, name] : scopes) set.insert({scope_kind(kind), name});
                 engine.stops().set_guarded(std::move(set));
             })
        .def("set_agents",
             [](Engine& engine, const std::vector<std::tuple<std::string, std::int32_t, std::int64_t, bool>>& roots) {
                 std::vector<engine::AgentRoot> out;
                 for (const auto& [session, pid, start, below] : roots) out.push_back({session, pid, start, below});
                 return engine.set_agents(std::move(out));
             })
        .def("end_session",
             [](Engine& engine, const std::string& session, int code, int signal, bool stopped, Nanos now) {
                 std::vector<Anomaly> found;
                 engine.end_session(session, code, signal, stopped, now, found);
                 return to_python(found);
             })
        .def("release_stop",
             [](Engine& engine, const std::string& stop, const std::string& kind, const std::string& name) {
                 engine.release_stop(stop_kind(stop), scope_kind(kind), name);
             })
        .def("bind_session", [](Engine& engine, const std::string& tenant,
                                const std::string& session) { return engine.events().bind_session(tenant, session); })
        .def("release_session", [](Engine& engine, std::uint32_t credential) { engine.events().release(credential); })
        .def("set_cap",
             [](Engine& engine, const std::string& kind, const std::string& tenant, const std::string& name,
                std::int64_t nusd, bool strict) {
                 engine.events().set_cap(scope_kind(kind), tenant, name, nusd, strict);
             })
        .def("spend", [](Engine& engine, const std::string& kind, const std::string& tenant, const std::string& name) {
            const auto spent = engine.events().spend(scope_kind(kind), tenant, name);
            py::dict out;
            out["metered"] = spent.metered;
            out["reserved"] = spent.reserved;
            out["upper"] = spent.upper;
            return out;
        });
}

// Rows of the newest process table with the greatest values of a column, greatest first.
py::object top_processes(const Engine& engine, const std::string& column, std::size_t count) {
    if (engine.host() == nullptr) return py::none();
    const auto columns = sources::process_columns();
    for (std::size_t i = 0; i < columns.size(); ++i) {
        if (column != columns[i].name) continue;
        const auto rows = engine::top_rows(
            engine.host()->processes().column(static_cast<sources::ProcessColumn>(i)), count);
        py::array_t<std::int64_t> out(static_cast<py::ssize_t>(rows.size()));
        std::copy(rows.begin(), rows.end(), out.mutable_data());
        return out;
    }
    return py::none();
}

std::vector<std::string> process_keys(Engine& engine, const std::string& by) {
    const auto group = engine::group_by(by);
    if (!group) throw py::value_error("expected one of name, executable, cgroup, user, state, session");
    if (engine.host() == nullptr) return {};
    py::gil_scoped_release released;
    return engine::group_keys(engine.host()->processes(), *group, engine.host()->labels(), engine.host()->agents());
}

py::list texts(const std::vector<std::string>& values) {
    py::list out;
    for (const std::string& value : values) out.append(text(value));
    return out;
}

template <class T>
py::array_t<T> array_of(const std::vector<T>& values) {
    return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::dict process_groups(Engine& engine, const std::string& by) {
    const auto keys = process_keys(engine, by);
    static const sources::ProcessTable kNone;
    const auto& table = engine.host() != nullptr ? engine.host()->processes() : kNone;
    const engine::ProcessGroups groups = engine::sum_groups(table, keys);
    py::dict out;
    out["key"] = texts(groups.key);
    out["processes"] = array_of(groups.processes);
    out["threads"] = array_of(groups.threads);
    const auto columns = sources::process_columns();
    for (std::size_t i = 0; i < columns.size(); ++i) out[columns[i].name] = array_of(groups.sums[i]);
    return out;
}

void bind_reading(py::class_<Engine>& c) {
    c.def("latest", &latest)
        .def("history", &history)
        .def("budget", &budget)
        .def("entity", &entity)
        .def("budget_totals", [](const Engine& engine) { return budget_totals(engine.bank().budget()); })
        .def("confirm", &Engine::confirm)
        .def("processes",
             [](Engine& engine) {
                 return engine.host() != nullptr ? ProcessColumns().arrays(engine.host()->processes()) : py::dict();
             })
        .def("top_processes", &top_processes)
        .def("process_keys", [](Engine& engine, const std::string& by) { return texts(process_keys(engine, by)); })
        .def("process_groups", &process_groups)
        .def("statistics", &statistics)
        .def("claims", &claims)
        .def("burst",
             [](Engine& engine) {
                 if (engine.host() != nullptr) engine.host()->burst();
             })
        .def("quarantine", [](Engine& engine) { return quarantine_list(engine.events()); });
}

}  // namespace

void register_engine(py::module_& m) {
    m.def("catalog", &catalog);
    m.def("constraint_catalog", &constraint_catalog);
    m.def("instruction_set", [] { return to_string(isa()); });
    m.attr("EVENT_TIME") = engine::kEventTime;
    py::class_<Engine> engine(m, "Engine");
    engine.def(py::init(&make_engine), py::kw_only(), "proc"_a, "sys"_a, "cgroup"_a, "host_plane"_a, "sources"_a,
               "processes"_a, "window_ms"_a, "bursts"_a, "detectors"_a, "named"_a, "auditors"_a, "criteria"_a,
               "constraints"_a, "caps_nusd"_a,
               "caps_strict"_a, "prices"_a, "false_alarms_per_day"_a, "history_rows"_a, "guard_every_session"_a);
    bind_running(engine);
    bind_state(engine);
    bind_stops(engine);
    bind_reading(engine);
}

}  // namespace argus::bindings
