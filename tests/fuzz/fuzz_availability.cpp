// What a person names and what a server answers: the first byte chooses the parser, the rest is its text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "sources/availability.hpp"

namespace {

using namespace argus::sources;

void must(bool condition) {
    if (!condition) std::abort();
}

void target(std::string_view text) {
    try {
        const Target found = parse_target(text);
        must(!found.name.empty() && found.name.size() <= 4096);
        must((found.address_size != 0) == (found.kind == TargetKind::port || found.kind == TargetKind::http));
        must(found.request.empty() == (found.kind != TargetKind::http));
        for (const auto& path : found.paths) must(!path.starts_with('/') && path.find("/../") == path.npos);
        // One request: no line of it can be the target's own.
        must(found.request.empty() || found.request.find("\r\n\r\n") == found.request.size() - 4);
    } catch (const std::invalid_argument&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    constexpr const char* kPrefixes[] = {"", "unit:", "process:", "port:", "http://", "http://127.0.0.1"};
    if (data[0] < 6) {
        target(std::string(kPrefixes[data[0]]) + std::string(text));
    } else if (data[0] % 2 == 0) {
        const int status = http_status(text);
        must(status == 0 || status == -1 || (status >= 100 && status <= 999));
        must(text.size() < 13 || status != 0);
    } else {
        std::string_view name;
        char state = 0;
        if (name_and_state(text, name, state)) must(name.size() + 4 <= text.size());
    }
    return 0;
}
