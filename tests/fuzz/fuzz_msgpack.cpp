// The msgpack reader on arbitrary bytes: no crash, no read past the end; skip() steps over what validate() accepts.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "events/msgpack_reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace argus::events;
    const auto bytes = std::as_bytes(std::span(data, size));
    MsgpackReader skipper(bytes);
    const bool whole = skipper.skip();
    MsgpackReader validator(bytes);
    const bool valid = validator.validate(1) == Fault::none;
    if (valid && (!whole || skipper.offset() != validator.offset())) std::abort();
    MsgpackReader reader(bytes);
    Value value;
    while (reader.left() > 0 && reader.next(value) == Fault::none) {
        if (value.bytes.size() > size) std::abort();
        if (value.wire == Wire::text) (void)valid_utf8(value.bytes);
    }
    return 0;
}
