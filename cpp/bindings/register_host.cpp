#include "bindings/register.hpp"

namespace argus::bindings {

void register_host(pybind11::module_&) {}

}  // namespace argus::bindings
