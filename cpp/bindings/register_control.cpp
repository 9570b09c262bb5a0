#include "bindings/register.hpp"

namespace argus::bindings {

void register_control(pybind11::module_&) {}

}  // namespace argus::bindings
