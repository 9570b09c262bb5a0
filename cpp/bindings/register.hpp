#pragma once

#include <pybind11/pybind11.h>

namespace argus::bindings {

void register_host(pybind11::module_& m);     // Host, Processes
void register_detect(pybind11::module_& m);   // DetectorBank over arrays
void register_events(pybind11::module_& m);   // msgpack decoding for tests and tools
void register_otlp(pybind11::module_& m);     // OTLP bodies as frames
void register_control(pybind11::module_& m);  // EpochWord
void register_engine(pybind11::module_& m);   // Engine, catalog
void register_exposition(pybind11::module_& m);  // Exposition, after Engine

}  // namespace argus::bindings
