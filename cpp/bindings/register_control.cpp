// EpochWord: the mapped word of the control directory, as Python sees it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <string>

#include "bindings/register.hpp"
#include "engine/epoch_word.hpp"

namespace argus::bindings {
namespace {

namespace py = pybind11;
using engine::EpochWord;

std::uint64_t checked(std::uint64_t bits) {
    if (bits > engine::kStateMask) {
        throw py::value_error("EpochWord: bits: expected 0 to 255, found " + std::to_string(bits) + "; word unchanged");
    }
    return bits;
}

}  // namespace

void register_control(py::module_& m) {
    static py::exception<engine::EpochWordError> error(m, "EpochWordError", PyExc_OSError);
    py::register_exception_translator([](std::exception_ptr raised) {
        try {
            if (raised) std::rethrow_exception(raised);
        } catch (const engine::EpochWordError& found) {
            // OSError takes (errno, text), so that callers find .errno; an unfit file has none.
            const py::object value = found.code() != 0 ? py::object(py::make_tuple(found.code(), found.what()))
                                                       : py::object(py::str(found.what()));
            PyErr_SetObject(error.ptr(), value.ptr());
        }
    });
    py::class_<EpochWord>(m, "EpochWord", "The 64 mapped bytes of control/epoch: state bits, epoch, heartbeat.")
        .def(py::init([](const std::filesystem::path& path, bool create) { return EpochWord(path.string(), create); }),
             py::arg("path"), py::arg("create") = true)
        .def("raise_bits", [](EpochWord& word, std::uint64_t bits) { return word.raise_bits(checked(bits)); },
             py::arg("bits"), "Set these bits, leave the others, start a new epoch; returns it.")
        .def("replace_bits", [](EpochWord& word, std::uint64_t bits) { return word.replace_bits(checked(bits)); },
             py::arg("bits"), "Make these bits the whole state and start a new epoch; returns it.")
        .def("replace_bits_if",
             [](EpochWord& word, std::uint64_t bits, std::uint64_t expected_epoch) {
                 return word.replace_bits_if(checked(bits), expected_epoch);
             },
             py::arg("bits"), py::arg("expected_epoch"),
             "The same, only while the epoch still is `expected_epoch`; returns the new epoch, or None.")
        .def("bump", &EpochWord::bump, "Start a new epoch with the same bits; returns it.")
        .def("heartbeat", &EpochWord::heartbeat, "Store CLOCK_MONOTONIC now, in nanoseconds.")
        .def("load",
             [](const EpochWord& word) {
                 const engine::EpochState state = word.load();
                 return py::make_tuple(state.bits, state.epoch, state.heartbeat);
             },
             "(bits, epoch, heartbeat_ns); heartbeat_ns 0 = there never was one.");
    m.attr("HOST_KILL") = engine::kHostKill;
    m.attr("HOST_LOCKDOWN") = engine::kHostLockdown;
    m.attr("NARROWER") = engine::kNarrower;
}

}  // namespace argus::bindings
