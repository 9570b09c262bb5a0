// Parsers and wiring of the gpu source, for tests and fuzzers.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/io.hpp"
#include "base/result.hpp"
#include "sources/source.hpp"

namespace argus::sources {

struct RasCounts {
    std::uint64_t uncorrected = 0, corrected = 0;
};

// "ue: 0" and "ce: 12", a line each: amdgpu's count of memory errors. False unless both are there.
[[nodiscard]] bool parse_ras_counts(std::string_view text, RasCounts& out) noexcept;

// The value of "PCI_SLOT_NAME=0000:03:00.0" in a device's uevent; empty = it has none.
[[nodiscard]] std::string_view parse_pci_slot(std::string_view uevent) noexcept;

struct GpuSetup {
    std::string library = "libnvidia-ml.so.1";  // empty = do not look for NVIDIA's
    std::chrono::milliseconds start_patience{5000};
    std::chrono::milliseconds patience{1000};  // what a poll waits for all devices together
    std::chrono::milliseconds start_again{60'000};  // how often a library whose devices are all lost is started anew
};

[[nodiscard]] Result<std::unique_ptr<Source>> open_gpu(const Roots& roots, const Io& io, const GpuSetup& setup);

}  // namespace argus::sources
