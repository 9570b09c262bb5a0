// /proc/PID/stat: whatever the bytes, no fault; what is accepted is within bounds.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "sources/processes/processes.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    argus::sources::ProcessStat stat;
    if (argus::sources::parse_process_stat(text, stat)) {
        const char* end = stat.name.data() + stat.name.size();
        const bool inside = stat.name.data() >= text.data() && end <= text.data() + size;
        if (stat.pid <= 0 || stat.ppid < 0 || stat.threads < 0 || !inside) std::abort();
    }
    return 0;
}
