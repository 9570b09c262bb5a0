// Events for Python: decoding alone (tools, the differential test) and the event plane on its own (tests).
// The engine composes the plane in C++; nothing here is on the daemon's path.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include "bindings/convert.hpp"
#include "bindings/register.hpp"
#include "engine/event_plane.hpp"

namespace py = pybind11;

namespace argus::bindings {
namespace {

using engine::EventPlane;
using events::Decoded;
using events::FrameDecoder;
using events::MsgpackReader;
using events::Reject;
using events::Value;
using events::Wire;

[[nodiscard]] std::span<const std::byte> as_span(const py::bytes& data) {
    char* at = nullptr;
    py::ssize_t size = 0;
    if (PyBytes_AsStringAndSize(data.ptr(), &at, &size) != 0) throw py::error_already_set();
    return {reinterpret_cast<const std::byte*>(at), static_cast<std::size_t>(size)};
}

[[nodiscard]] py::object scalar(const Value& value) {
    switch (value.wire) {
        case Wire::boolean: return py::bool_(value.boolean);
        case Wire::integer: return py::int_(value.integer);
        case Wire::big_integer: return py::int_(static_cast<std::uint64_t>(value.integer));
        case Wire::real: return py::float_(value.real);
        case Wire::text: return py::str(value.bytes.data(), value.bytes.size());
        default: return py::none();
    }
}

// `entities` and `attrs` were validated by the decoder: arrays of text, maps from text to scalars.
[[nodiscard]] py::object container(std::span<const std::byte> encoded) {
    MsgpackReader reader(encoded);
    Value value;
    if (reader.next(value) != events::Fault::none) throw InternalError("a validated container does not read");
    const std::uint32_t count = value.count;
    const bool map = value.wire == Wire::map;
    py::list list;
    py::dict dict;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (reader.next(value) != events::Fault::none) throw InternalError("a validated container does not read");
        const py::object first = scalar(value);
        if (!map) {
            list.append(first);
            continue;
        }
        if (reader.next(value) != events::Fault::none) throw InternalError("a validated container does not read");
        dict[first] = scalar(value);
    }
    return map ? py::object(dict) : py::object(list);
}

[[nodiscard]] py::dict event_dict(const Event& event) {
    py::dict out;
    out["v"] = 1;
    for (const events::KeySpec& key : events::schema()) {
        const py::str name(key.name.data(), key.name.size());
        if (key.text != nullptr) {
            const std::string_view text = event.*key.text;
            if (text.data() == nullptr) continue;
            const bool raw = key.field == events::Field::identifier && !events::valid_utf8(text);
            out[name] = raw ? py::object(py::bytes(text.data(), text.size()))
                            : py::object(py::str(text.data(), text.size()));
        } else if (key.integer != nullptr) {
            if (event.*key.integer != kAbsent) out[name] = py::int_(event.*key.integer);
        } else if (key.flag != nullptr) {
            if (event.*key.flag >= 0) out[name] = py::bool_(event.*key.flag == 1);
        }
    }
    if (!std::isnan(event.score)) out["score"] = event.score;
    if (!event.entities.empty()) out["entities"] = container(event.entities);
    if (!event.attrs.empty()) out["attrs"] = container(event.attrs);
    return out;
}

[[nodiscard]] py::list decode_events(const py::bytes& frame, bool require_seq) {
    py::list out;
    FrameDecoder decoder(as_span(frame), require_seq);
    Decoded decoded;
    while (decoder.next(decoded)) {
        if (decoded.reject == Reject::none) out.append(event_dict(decoded.event));
        else out.append(py::make_tuple(events::to_string(decoded.reject), decoded.detail));
    }
    return out;
}

[[nodiscard]] py::list anomaly_list(const std::vector<Anomaly>& anomalies) {
    py::list out;
    for (const Anomaly& a : anomalies) out.append(anomaly_to_dict(a));
    return out;
}

// The names match the parameters of the Python signature.
[[nodiscard]] std::unique_ptr<EventPlane> make_plane(const py::dict& prices, const py::dict& default_caps,
                                                     const py::dict& criteria,
                                                     const std::vector<py::dict>& constraints) {
    engine::EventPlaneOptions options;
    for (const auto& [model, pair] : prices) {
        const auto price = pair.cast<std::pair<std::int64_t, std::int64_t>>();
        options.ledger.prices.push_back({model.cast<std::string>(), price.first, price.second});
    }
    for (const auto& [kind, cap] : default_caps) {
        const auto index = static_cast<std::size_t>(scope_kind(kind.cast<std::string>()));
        options.ledger.default_cap[index] = cap.cast<std::int64_t>();
    }
    for (const auto& [name, values] : criteria) {
        options.criteria.push_back({name.cast<std::string>(), true, values.cast<std::vector<double>>()});
    }
    for (const py::dict& row : constraints) options.constraints.push_back(constraint_of(row));
    return std::make_unique<EventPlane>(std::move(options));
}

[[nodiscard]] py::dict ingest(EventPlane& plane, const py::bytes& frame, std::uint32_t credential, bool require_seq,
                              const std::optional<Nanos>& now) {
    std::vector<Anomaly> anomalies;
    const auto data = as_span(frame);
    engine::IngestReport report;
    {
        const py::gil_scoped_release unlocked;
        report = plane.ingest(data, credential, require_seq, now.value_or(engine::kEventTime), anomalies);
    }
    py::dict out;
    out["accepted"] = report.accepted;
    out["rejected"] = reject_dict(report.rejected);
    out["anomalies"] = anomaly_list(anomalies);
    return out;
}

constexpr std::uint32_t kStateMagic = 0x504c4e45;
constexpr std::uint32_t kStateVersion = 2;

[[nodiscard]] py::bytes save_plane(const EventPlane& plane) {
    Writer writer(kStateMagic, kStateVersion);
    plane.save(writer);
    const std::vector<std::byte> state = writer.finish();
    return {reinterpret_cast<const char*>(state.data()), state.size()};
}

void load_plane(EventPlane& plane, const py::bytes& state) {
    Reader reader(as_span(state), kStateMagic, kStateVersion);
    plane.load(reader);
}

void register_plane(py::module_& m) {
    py::class_<EventPlane>(m, "EventPlane", "Frames of agent events in, judged anomalies out.")
        .def(py::init(&make_plane), py::arg("prices") = py::dict(), py::arg("default_caps") = py::dict(),
             py::arg("criteria") = py::dict(), py::arg("constraints") = std::vector<py::dict>())
        .def("ingest", &ingest, py::arg("frame"), py::arg("credential") = 0, py::arg("require_seq") = false,
             py::arg("now") = py::none(), "One frame; `now` in wall-clock ns, None = event time.")
        .def("tick",
             [](EventPlane& plane, Nanos now) {
                 std::vector<Anomaly> anomalies;
                 plane.tick(now, anomalies);
                 return anomaly_list(anomalies);
             })
        .def("finish",
             [](EventPlane& plane, Nanos now) {
                 std::vector<Anomaly> anomalies;
                 plane.finish(now, anomalies);
                 return anomaly_list(anomalies);
             })
        .def("set_cap",
             [](EventPlane& plane, const std::string& kind, const std::string& tenant, const std::string& id,
                std::int64_t cap, bool strict) { plane.set_cap(scope_kind(kind), tenant, id, cap, strict); },
             py::arg("kind"), py::arg("tenant"), py::arg("id"), py::arg("cap_nusd"), py::arg("strict") = false)
        .def("bind_session", [](EventPlane& plane, const std::string& tenant,
                                const std::string& session) { return plane.bind_session(tenant, session); })
        .def("release", &EventPlane::release)
        .def("spend",
             [](const EventPlane& plane, const std::string& kind, const std::string& tenant, const std::string& id) {
                 const events::Spend s = plane.spend(scope_kind(kind), tenant, id);
                 py::dict d;
                 d["metered"] = s.metered;
                 d["reserved"] = s.reserved;
                 d["upper"] = s.upper;
                 return d;
             })
        .def("sources", &source_list)
        .def("totals", &totals_dict)
        .def("quarantine", &quarantine_list)
        .def("series",
             [](EventPlane& plane, Nanos now) {
                 py::dict d;
                 for (const engine::NumericSeries& s : plane.series(now)) {
                     d[s.name] = std::isnan(s.value) ? py::object(py::none()) : py::object(py::float_(s.value));
                 }
                 return d;
             })
        .def("save", &save_plane)
        .def("load", &load_plane);
}

}  // namespace

void register_events(py::module_& m) {
    m.def("decode_events", &decode_events, py::arg("frame"), py::arg("require_seq") = false,
          "The events of one frame as dicts; a refused one as (reason, detail).");
    py::list reasons;
    for (std::size_t i = 1; i < events::kRejectReasons; ++i) reasons.append(events::to_string(static_cast<Reject>(i)));
    m.attr("REJECT_REASONS") = py::tuple(reasons);
    register_plane(m);
}

}  // namespace argus::bindings
