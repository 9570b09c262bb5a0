// The Python module argus._core: only registers; one file per concept holds the glue.
#include <pybind11/pybind11.h>

#include "bindings/register.hpp"

PYBIND11_MODULE(_core, m) {
    m.doc() = "The C++ core of Argus. Private: use the argus package.";
    argus::bindings::register_host(m);
    argus::bindings::register_detect(m);
    argus::bindings::register_events(m);
    argus::bindings::register_otlp(m);
    argus::bindings::register_control(m);
    argus::bindings::register_engine(m);
    argus::bindings::register_exposition(m);
}
