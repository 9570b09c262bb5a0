// The JSON reader on arbitrary bytes: no crash; skip() takes what reading takes and ends where it ends; the canonical
// form of a document is its own canonical form.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "events/any_value.hpp"
#include "events/msgpack_reader.hpp"

namespace {

bool read(argus::events::JsonReader& reader, int depth) {
    using argus::events::Json;
    if (depth > 64) return reader.skip();
    std::string_view text;
    bool flag = false;
    switch (reader.peek()) {
        case Json::null: return reader.null();
        case Json::boolean: return reader.boolean(flag);
        case Json::number: return reader.number(text, flag);
        case Json::text: return reader.text(text);
        case Json::array: return reader.array([&] { return read(reader, depth + 1); });
        case Json::object: return reader.object([&](std::string_view) { return read(reader, depth + 1); });
        case Json::none: break;
    }
    return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace argus::events;
    const std::string_view document(reinterpret_cast<const char*>(data), size);
    if (!valid_utf8(document)) return 0;
    std::string arena;
    arena.reserve(size);
    JsonReader skipper(document, arena);
    const bool skipped = skipper.skip();
    if (!arena.empty()) std::abort();
    JsonReader reader(document, arena);
    const bool whole = read(reader, 0);
    if (whole != skipped || (whole && reader.offset() != skipper.offset()) || arena.size() > size) std::abort();
    CanonicalJson first;
    CanonicalJson second;
    const std::string once(first.of_text(document));
    if (!once.empty() && once[0] != '"' && second.of_text(once) != once) std::abort();
    return 0;
}
