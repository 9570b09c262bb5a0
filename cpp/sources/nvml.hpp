// NVIDIA's management library, loaded at run time and asked in a thread of its own.
// Source: libnvidia-ml.so.1, NVIDIA Management Library API Reference; only its C ABI is used, nothing is linked.
// A driver that hangs keeps that thread and nothing else: read() waits no longer than it is told, and a thread that
// does not come back is left behind, once a process.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.hpp"

namespace argus::sources {

inline constexpr std::size_t kMaxNvmlDevices = 64;

// What is read of a device, in base units.
enum NvmlValue : std::size_t {
    kNvmlBusy, kNvmlEncoder, kNvmlDecoder, kNvmlMemoryBusy,
    kNvmlMemoryUsed, kNvmlMemoryLimit, kNvmlMemoryShare,
    kNvmlTemperature, kNvmlPower, kNvmlPowerLimit, kNvmlEnergy, kNvmlFan,
    kNvmlClockGraphics, kNvmlClockSm, kNvmlClockMemory, kNvmlClockVideo,
    kNvmlCorrected, kNvmlUncorrected,
    kNvmlReceived, kNvmlTransmitted,
    kNvmlProcesses,
    kNvmlSlowPower, kNvmlSlowHardware, kNvmlSlowThermalSoftware, kNvmlSlowThermal, kNvmlSlowBrake,
    kNvmlValues,
};

struct NvmlDevice {
    std::array<char, 96> id{};    // "GPU-…"
    std::array<char, 96> name{};  // "NVIDIA H200"
    std::array<double, kNvmlValues> values{};  // NaN = not observed: this device or driver does not tell
};

struct NvmlReading {
    std::uint64_t generation = 0;  // of the list of devices: another one, other devices
    std::size_t count = 0;
    std::array<NvmlDevice, kMaxNvmlDevices> devices{};
};

class Nvml {
public:
    using Patience = std::chrono::milliseconds;

    // Starts the thread, which loads `library`; when no device answers any more it is started anew, `start_again` after
    // the last time. Throws std::system_error when there can be no thread.
    Nvml(std::string library, Patience start_again);
    ~Nvml();
    Nvml(const Nvml&) = delete;
    Nvml& operator=(const Nvml&) = delete;

    // Whether the library answers and knows a device; Errc::unavailable when it is absent, has no driver or no device.
    // False = it has not answered yet.
    [[nodiscard]] Result<bool> ready(Patience patience);

    // Reads every device. Errc::io with ETIMEDOUT = no answer yet; nothing new is asked until it has come.
    [[nodiscard]] Result<bool> read(Patience patience, NvmlReading& out);

    // Some thread of an earlier one has not come back: another would not either.
    [[nodiscard]] static bool stuck() noexcept;

private:
    struct Shared;
    std::shared_ptr<Shared> shared_;  // also the thread's: whichever ends last frees it
};

}  // namespace argus::sources
