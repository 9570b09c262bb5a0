// The whole event plane on arbitrary frames: no crash, every byte accounted for, the same verdicts however often asked,
// and money that never goes below zero. The plane lives on across inputs, so that its state is fuzzed too.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "engine/event_plane.hpp"

namespace {

std::unique_ptr<argus::engine::EventPlane> make_plane() {
    argus::engine::EventPlaneOptions options;
    options.ledger.sources = 4;
    options.ledger.tasks = 16;
    options.ledger.accounts = 16;
    options.ledger.calls = 16;
    options.ledger.default_cap.fill(1'000'000);
    auto plane = std::make_unique<argus::engine::EventPlane>(std::move(options));
    if (plane->bind_session("t", "bound") != 1) std::abort();
    return plane;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace argus;
    static auto plane = make_plane();
    static std::uint64_t runs = 0;
    if (++runs % 4096 == 0) plane = make_plane();
    const auto frame = std::as_bytes(std::span(data, size));
    events::FrameDecoder decoder(frame, false);
    events::Decoded decoded;
    std::size_t outcomes = 0;
    while (decoder.next(decoded)) {
        ++outcomes;
        if (decoded.bytes.size() > size) std::abort();
        if (decoded.reject == events::Reject::none && decoded.event.id.empty()) std::abort();
    }
    std::vector<Anomaly> said;
    const auto credential = static_cast<std::uint32_t>(size % 2);
    const auto report = plane->ingest(frame, credential, size % 3 == 0, engine::kEventTime, said);
    if (report.accepted + report.rejected_total() != outcomes) std::abort();
    plane->tick(plane->now(), said);
    const auto spend = plane->spend(ScopeKind::host, "", "");
    if (spend.metered < 0 || spend.reserved < 0 || spend.upper < spend.metered) std::abort();
    return 0;
}
