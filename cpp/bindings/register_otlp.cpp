// OTLP bodies for Python: frames in, counts out; the interpreter is free while a body is read.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "bindings/convert.hpp"
#include "bindings/register.hpp"
#include "events/otlp.hpp"
#include "events/otlp_words.hpp"

namespace py = pybind11;

namespace argus::bindings {
namespace {

using events::OtlpBatch;
using events::OtlpEncoding;
using events::OtlpSignal;

// A mapper for any thread, one body at a time.
class OtlpDecoder {
public:
    OtlpDecoder(std::string tenant_attribute, std::int64_t tolerance_ns)
        : mapper_(std::move(tenant_attribute), tolerance_ns) {}

    [[nodiscard]] py::dict map(const py::bytes& body, bool logs, bool binary) {
        char* at = nullptr;
        py::ssize_t size = 0;
        if (PyBytes_AsStringAndSize(body.ptr(), &at, &size) != 0) throw py::error_already_set();
        OtlpBatch batch;
        {
            const py::gil_scoped_release unlocked;
            const std::lock_guard lock(mutex_);
            batch = mapper_.map({at, static_cast<std::size_t>(size)}, logs ? OtlpSignal::logs : OtlpSignal::traces,
                                binary ? OtlpEncoding::protobuf : OtlpEncoding::json);
        }
        return to_dict(batch);
    }

private:
    [[nodiscard]] static py::dict to_dict(const OtlpBatch& batch) {
        py::list frames;
        for (const std::string& frame : batch.frames) frames.append(py::bytes(frame));
        py::list rejected;
        for (const auto& item : batch.rejected) {
            rejected.append(py::make_tuple(text(item.source), text(item.reason), item.count));
        }
        py::list samples;
        for (const auto& item : batch.samples) {
            samples.append(py::make_tuple(text(item.source), text(item.reason), text(item.detail)));
        }
        py::dict out;
        out["frames"] = frames;
        out["items"] = batch.items;
        out["events"] = batch.events;
        out["ignored"] = batch.ignored;
        out["unknown"] = batch.unknown;
        out["rejected"] = rejected;
        out["samples"] = samples;
        out["failure"] = py::make_tuple(text(batch.failure), text(batch.failure_detail));
        return out;
    }

    std::mutex mutex_;
    events::OtlpMapper mapper_;
};

[[nodiscard]] std::string otlp_fate(std::string_view name) {
    const events::Meaning meaning = events::meaning_of(name);
    if (meaning.word == events::Word::kept) return "attrs";
    if (meaning.word == events::Word::content) return "content";
    if (meaning.word == events::Word::unknown) return events::is_content(name) ? "content" : "";
    return std::string(events::word_name(meaning.word));
}

}  // namespace

void register_otlp(py::module_& m) {
    m.def("otlp_fate", &otlp_fate, py::arg("attribute"),
          "What becomes of an attribute: the key it fills, \"attrs\", \"content\", or \"\" when no table names it.");
    py::class_<OtlpDecoder>(m, "OtlpDecoder", "OTLP bodies as msgpack frames of schema v1.")
        .def(py::init<std::string, std::int64_t>(), py::kw_only(), py::arg("tenant_attribute"), py::arg("tolerance_ns"))
        .def("map", &OtlpDecoder::map, py::arg("body"), py::kw_only(), py::arg("logs"), py::arg("binary"),
             "Frames of one request and what was left out; `failure` is (reason, words), empty when it is one.");
}

}  // namespace argus::bindings
