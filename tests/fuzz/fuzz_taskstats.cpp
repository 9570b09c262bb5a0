// Fuzz target of the taskstats answers: never reads beyond the message, and what it accepts names a pid.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "sources/processes/taskstats.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const auto family = static_cast<std::uint16_t>(data[0] | data[1] << 8);
    argus::sources::TaskAccount account;
    if (argus::sources::parse_taskstats({data + 2, size - 2}, family, account) && account.pid <= 0) std::abort();
    return 0;
}
