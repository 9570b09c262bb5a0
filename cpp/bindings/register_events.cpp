#include "bindings/register.hpp"

namespace argus::bindings {

void register_events(pybind11::module_&) {}

}  // namespace argus::bindings
