// argus._core.Bank: the bank of detectors over whole arrays. Checks shapes once, releases the GIL, copies
// nothing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <numeric>
#include <optional>
#include <string>

#include "bindings/convert.hpp"
#include "bindings/register.hpp"
#include "engine/bank.hpp"

namespace argus::bindings {
namespace {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
using MaybeArray = std::optional<Array<T>>;

std::string shape_text(const py::array& array) { return py::str(array.attr("shape")); }

// The memory of an output array of exactly this shape; null when it is not wanted.
template <class T>
T* output(MaybeArray<T>& array, const char* name, std::vector<py::ssize_t> shape) {
    if (!array) return nullptr;
    const bool fits = std::vector<py::ssize_t>(array->shape(), array->shape() + array->ndim()) == shape;
    if (!fits) {
        throw std::invalid_argument(std::string("Bank.run: ") + name +
                                    ": expected an array like the rows given, found shape " +
                                    shape_text(*array));
    }
    return array->mutable_data();  // raises when not writeable
}

py::tuple as_tuple(const engine::Spoken& spoken) {
    const engine::Utterance& u = spoken.utterance;
    return py::make_tuple(spoken.row, u.slot, u.onset, u.bits, u.value, u.expected, u.lower, u.upper,
                          u.since_wall, static_cast<int>(u.direction), u.false_alarm_interval_s, u.detector);
}

template <class T>
py::list run(engine::Bank& bank, const Array<T>& values, const Array<std::int64_t>& times_ns,
             MaybeArray<float> bits, MaybeArray<float> alarm_bits, MaybeArray<double> expected,
             MaybeArray<double> lower, MaybeArray<double> upper, MaybeArray<float> entity_bits,
             MaybeArray<float> entity_parts, std::vector<Array<float>> parts) {
    if (values.ndim() != 2 || values.shape(1) != static_cast<py::ssize_t>(bank.capacity())) {
        throw std::invalid_argument("Bank.run: values: expected shape (n, " +
                                    std::to_string(bank.capacity()) + "), found " + shape_text(values));
    }
    const py::ssize_t rows = values.shape(0);
    if (times_ns.ndim() != 1 || times_ns.shape(0) != rows) {
        throw std::invalid_argument("Bank.run: times_ns: expected shape (" + std::to_string(rows) +
                                    ",), found " + shape_text(times_ns));
    }
    const std::vector<py::ssize_t> matrix{rows, values.shape(1)};
    std::vector<engine::Spoken> spoken;
    engine::Outputs out;
    out.bits = output(bits, "bits", matrix);
    out.alarm_bits = output(alarm_bits, "alarm_bits", matrix);
    out.expected = output(expected, "expected", matrix);
    out.lower = output(lower, "lower", matrix);
    out.upper = output(upper, "upper", matrix);
    out.entity_bits = output(entity_bits, "entity_bits", {rows});
    out.entity_parts = output(entity_parts, "entity_parts",
                              {rows, static_cast<py::ssize_t>(engine::EntityScore::kChannels)});
    out.spoken = &spoken;
    if (!parts.empty() && parts.size() != bank.channels().size()) {
        throw std::invalid_argument("Bank.run: parts: expected " + std::to_string(bank.channels().size()) +
                                    " arrays, found " + std::to_string(parts.size()));
    }
    for (Array<float>& part : parts) {
        MaybeArray<float> one = part;
        out.parts.push_back(output(one, "parts", matrix));
    }
    const auto count = static_cast<std::size_t>(rows);
    const std::span<const Nanos> times(times_ns.data(), count);
    const engine::Rows<T> block{values.data(), bank.capacity(), times, times};
    {
        const py::gil_scoped_release released;
        bank.run(block, out);
    }
    py::list said;
    for (const engine::Spoken& one : spoken) said.append(as_tuple(one));
    return said;
}

std::unique_ptr<engine::Bank> make_bank(std::uint32_t series, double false_alarms_per_day, bool entity, bool speaks) {
    engine::BankOptions options;
    options.false_alarms_per_day = false_alarms_per_day;
    options.entity = entity;
    options.speaks = speaks;
    return std::make_unique<engine::Bank>(series, std::move(options));
}

py::list drivers(engine::Bank& bank) {
    py::list strongest;
    for (const engine::Driver& driver : bank.drivers()) strongest.append(py::make_tuple(driver.slot, driver.share));
    return strongest;
}

py::dict budget(const engine::Bank& bank) {
    std::vector<std::uint32_t> slots(bank.capacity());
    std::iota(slots.begin(), slots.end(), 0U);
    return budget_dict(bank.budget(), slots);
}

template <class T>
void define_run(py::class_<engine::Bank>& bank) {
    bank.def("run", &run<T>, py::arg("values").noconvert(), py::arg("times_ns").noconvert(), py::kw_only(),
             py::arg("bits").noconvert() = py::none(), py::arg("alarm_bits").noconvert() = py::none(),
             py::arg("expected").noconvert() = py::none(), py::arg("lower").noconvert() = py::none(),
             py::arg("upper").noconvert() = py::none(), py::arg("entity_bits").noconvert() = py::none(),
             py::arg("entity_parts").noconvert() = py::none(),
             py::arg("parts").noconvert() = std::vector<Array<float>>{});
}

}  // namespace

void register_detect(pybind11::module_& m) {
    py::class_<engine::Bank> bank(m, "Bank", "All detectors over the series of one scope.");
    bank.def(py::init(&make_bank), py::arg("series"), py::kw_only(), py::arg("false_alarms_per_day") = 1.0,
             py::arg("entity") = true, py::arg("speaks") = true);
    define_run<float>(bank);
    define_run<double>(bank);
    bank.def("budget", &budget);
    bank.def("join", &engine::Bank::join);
    bank.def_property_readonly("channels", &engine::Bank::channels);
    bank.def_property_readonly("drivers", &drivers);
    bank.def_property_readonly("infinities", &engine::Bank::infinities);
}

}  // namespace argus::bindings
