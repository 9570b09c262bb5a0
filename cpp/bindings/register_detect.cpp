// argus._core.Bank: the bank of detectors over whole arrays. Checks shapes once, releases the GIL, copies
// nothing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string>

#include "bindings/convert.hpp"
#include "bindings/register.hpp"
#include "engine/bank.hpp"
#include "engine/catalog.hpp"
#include "engine/light_bank.hpp"

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

// One detector of the catalogue over arrays: `streams` of `width` slots each.
class Columns {
public:
    Columns(const std::string& name, std::uint32_t streams, std::uint32_t width, std::vector<double> options)
        : width_(width), slots_(streams * width) {
        for (const auto* known : engine::detector_catalog()) {
            if (name == known->leaf.name) descriptor_ = known;
        }
        if (descriptor_ == nullptr) throw std::invalid_argument("no detector '" + name + "'");
        if (std::uint64_t{streams} * width == 0 || std::uint64_t{streams} * width > (1U << 26U)) {
            throw std::invalid_argument("expected 1 to 2^26 slots, found " +
                                        std::to_string(std::uint64_t{streams} * width));
        }
        if (options.size() != descriptor_->leaf.options.size()) throw std::invalid_argument("wrong number of options");
        detector_ = descriptor_->make(slots_, options);
        for (std::uint32_t i = 0; i < streams; ++i) entities_.push_back({i * width, width});
        values_.resize(slots_);
        statistic_.resize(channels() * slots_);
        mask_.assign(slots_, detectors::kLearn);
    }

    // Each row is scored, then learned where the mask lets it; out: (rows, channels, slots).
    void run(const Array<float>& values, const MaybeArray<float>& exposure, const MaybeArray<std::uint8_t>& learn,
             double interval_s, Array<float> out) {
        const py::ssize_t rows = values.ndim() == 2 ? values.shape(0) : 0;
        check(values, rows, slots_, "values");
        if (exposure) check(*exposure, rows, slots_, "exposure");
        if (learn) check(*learn, rows, slots_, "learn");
        if (out.size() != rows * static_cast<py::ssize_t>(statistic_.size())) {
            throw std::invalid_argument("out: wrong size");
        }
        const float* in = values.data();
        const float* trials = exposure ? exposure->data() : nullptr;
        const std::uint8_t* mask = learn ? learn->data() : nullptr;
        float* to = out.mutable_data();
        const py::gil_scoped_release released;
        for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
            const std::size_t at = row * slots_;
            for (std::size_t i = 0; i < slots_; ++i) {
                const float x = in[at + i];
                values_[i] = x - x == 0.0F ? std::clamp(x, -1e30F, 1e30F) : std::nanf("");
            }
            detectors::View view{values_, entities_, 0, 0, interval_s, {}, {}};
            if (trials != nullptr) view.exposure = {trials + at, slots_};
            const std::span<float> statistic(to + row * statistic_.size(), statistic_.size());
            detector_->score(view, statistic);
            detector_->learn(view, mask != nullptr ? std::span(mask + at, slots_) :
                std::span<const std::uint8_t>(mask_));
        }
    }

    [[nodiscard]] py::bytes save() const {
        Writer writer(kMagic, 1);
        writer.text(descriptor_->leaf.name);
        detector_->save(writer);
        const auto bytes = writer.finish();
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
    void load(const std::string& state) {
        Reader reader(std::as_bytes(std::span(state)), kMagic, 1);
        if (reader.text() != descriptor_->leaf.name) throw CodecError("state: of another detector");
        detector_->load(reader);
    }
    void reset(const std::vector<std::uint32_t>& streams) {
        std::vector<std::uint32_t> slots;
        for (const std::uint32_t stream : streams) {
            if (stream >= entities_.size()) throw std::invalid_argument("reset: no stream " + std::to_string(stream));
            for (std::uint32_t i = 0; i < width_; ++i) slots.push_back(stream * width_ + i);
        }
        detector_->reset(slots);
    }
    [[nodiscard]] std::size_t channels() const { return descriptor_->channels.size(); }
    [[nodiscard]] std::vector<std::string> channel_names() const {
        std::vector<std::string> names;
        for (const detectors::Channel& channel : descriptor_->channels) names.emplace_back(channel.name);
        return names;
    }

private:
    static constexpr std::uint32_t kMagic = 0x4C4F4341;
    static void check(const py::array& array, py::ssize_t rows, std::size_t slots, const char* name) {
        if (array.ndim() == 2 && array.shape(0) == rows && array.shape(1) == static_cast<py::ssize_t>(slots)) return;
        throw std::invalid_argument(std::string(name) + ": expected shape (n, " + std::to_string(slots) + "), found " +
                                    shape_text(array));
    }

    const detectors::DetectorDescriptor* descriptor_ = nullptr;
    std::uint32_t width_;
    std::uint32_t slots_;
    std::unique_ptr<detectors::Detector> detector_;
    std::vector<detectors::Entity> entities_;
    std::vector<float> values_;
    std::vector<float> statistic_;
    std::vector<std::uint8_t> mask_;
};

template <class T>
py::list run_light(engine::LightBank& bank, const Array<T>& values, double interval_s, MaybeArray<float> bits) {
    if (values.ndim() != 2 || values.shape(1) != static_cast<py::ssize_t>(bank.series())) {
        throw std::invalid_argument("LightBank.run: values: expected shape (n, " + std::to_string(bank.series()) +
                                    "), found " + shape_text(values));
    }
    float* const out = output(bits, "bits", {values.shape(0), values.shape(1)});
    std::vector<engine::LightAlarm> alarms;
    {
        const py::gil_scoped_release released;
        bank.run(values.data(), static_cast<std::size_t>(values.shape(0)), interval_s, out, &alarms);
    }
    py::list said;
    for (const auto& a : alarms) said.append(py::make_tuple(a.row, a.slot, a.bits, a.value, a.expected));
    return said;
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

    py::class_<Columns>(m, "Columns", "One detector of the catalogue over arrays.")
        .def(py::init<const std::string&, std::uint32_t, std::uint32_t, std::vector<double>>())
        .def("run", &Columns::run, py::arg("values").noconvert(), py::arg("exposure").noconvert(),
             py::arg("learn").noconvert(), py::arg("interval_s"), py::arg("out").noconvert())
        .def("save", &Columns::save)
        .def("load", &Columns::load)
        .def("reset", &Columns::reset)
        .def_property_readonly("channels", &Columns::channel_names);
    py::class_<engine::LightBank>(m, "LightBank", "The lightest tier: residual, shift and silence of many series.")
        .def(py::init<std::uint32_t, double>())
        .def("run", &run_light<float>, py::arg("values").noconvert(), py::arg("interval_s"), py::kw_only(),
             py::arg("bits").noconvert() = py::none())
        .def("run", &run_light<double>, py::arg("values").noconvert(), py::arg("interval_s"), py::kw_only(),
             py::arg("bits").noconvert() = py::none());
}

}  // namespace argus::bindings
