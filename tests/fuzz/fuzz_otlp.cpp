// OTLP in both encodings on arbitrary bytes: no crash, no read past the end, every item told of once, and frames that
// the engine's own decoder reads to their end. The first byte says which encoding and which request.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "events/decode.hpp"
#include "events/otlp.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace argus::events;
    if (size == 0) return 0;
    static OtlpMapper mapper("tenant", 2'000'000'000);
    const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
    const auto signal = data[0] % 2 == 0 ? OtlpSignal::traces : OtlpSignal::logs;
    const auto encoding = data[0] / 2 % 2 == 0 ? OtlpEncoding::protobuf : OtlpEncoding::json;
    const OtlpBatch batch = mapper.map(body, signal, encoding);
    if (!batch.failure.empty()) {
        if (!batch.frames.empty()) std::abort();
        return 0;
    }
    std::uint64_t refused = 0;
    for (const OtlpRefusal& item : batch.rejected) refused += item.count;
    if (refused + batch.ignored > batch.items) std::abort();
    if (refused + batch.ignored < batch.items && batch.events == 0) std::abort();
    std::uint64_t events = 0;
    for (const std::string& frame : batch.frames) {
        FrameDecoder decoder(std::as_bytes(std::span(frame)), false);
        Decoded decoded;
        while (decoder.next(decoded)) {
            ++events;
            if (decoded.reject == Reject::malformed) std::abort();  // ours to write whole
        }
    }
    if (events != batch.events) std::abort();
    return 0;
}
