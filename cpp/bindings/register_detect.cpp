#include "bindings/register.hpp"

namespace argus::bindings {

void register_detect(pybind11::module_&) {}

}  // namespace argus::bindings
