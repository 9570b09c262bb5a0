#include "bindings/register.hpp"

namespace argus::bindings {

void register_engine(pybind11::module_&) {}

}  // namespace argus::bindings
