#include "sources/nvml.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.hpp"

namespace argus::sources {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::chrono::seconds kFarewell{1};

std::atomic<int> left_behind{0};

// --- The ABI: what is declared here is what NVML's reference documents, versions in the names ------------------------

using Status = int;
using Handle = void*;
constexpr Status kSuccess = 0;
constexpr Status kInsufficientSize = 7;

struct Utilization {
    unsigned gpu, memory;  // percent
};
struct MemoryV1 {
    unsigned long long total, free, used;
};
struct MemoryV2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct TemperatureV1 {
    unsigned version;
    unsigned sensor;
    int celsius;
};
struct FieldValue {
    unsigned field;
    unsigned scope;
    long long timestamp;
    long long latency_us;
    unsigned type;
    Status status;
    union {
        double as_double;
        unsigned as_unsigned;
        unsigned long as_long;
        unsigned long long as_long_long;
    } value;
};
static_assert(sizeof(MemoryV2) == 40 && sizeof(FieldValue) == 40 && sizeof(TemperatureV1) == 12);

constexpr unsigned kMemoryVersion = sizeof(MemoryV2) | 2U << 24;
constexpr unsigned kTemperatureVersion = sizeof(TemperatureV1) | 1U << 24;
constexpr unsigned kFieldTransmitted = 197;
constexpr unsigned kFieldReceived = 198;
constexpr unsigned kTypeUnsignedLong = 2;
constexpr unsigned kTypeUnsignedLongLong = 3;
constexpr unsigned kClockTypes[] = {0, 1, 2, 3};  // graphics, SM, memory, video

struct Reason {
    NvmlValue value;
    unsigned long long bit;
};
constexpr Reason kReasons[] = {
    {kNvmlSlowPower, 0x4}, {kNvmlSlowHardware, 0x8}, {kNvmlSlowThermalSoftware, 0x20},
    {kNvmlSlowThermal, 0x40}, {kNvmlSlowBrake, 0x80},
};

struct Api {
    Status (*init)() = nullptr;
    Status (*shutdown)() = nullptr;
    Status (*count)(unsigned*) = nullptr;
    Status (*handle)(unsigned, Handle*) = nullptr;
    // Each of these may be absent from an older library.
    Status (*uuid)(Handle, char*, unsigned) = nullptr;
    Status (*name)(Handle, char*, unsigned) = nullptr;
    Status (*utilization)(Handle, Utilization*) = nullptr;
    Status (*encoder)(Handle, unsigned*, unsigned*) = nullptr;
    Status (*decoder)(Handle, unsigned*, unsigned*) = nullptr;
    Status (*memory)(Handle, MemoryV1*) = nullptr;
    Status (*memory_v2)(Handle, MemoryV2*) = nullptr;
    Status (*temperature)(Handle, unsigned, unsigned*) = nullptr;
    Status (*temperature_v)(Handle, TemperatureV1*) = nullptr;
    Status (*power)(Handle, unsigned*) = nullptr;
    Status (*power_limit)(Handle, unsigned*) = nullptr;
    Status (*energy)(Handle, unsigned long long*) = nullptr;
    Status (*fan)(Handle, unsigned*) = nullptr;
    Status (*clock)(Handle, unsigned, unsigned*) = nullptr;
    Status (*ecc)(Handle, unsigned, unsigned, unsigned long long*) = nullptr;
    Status (*reasons)(Handle, unsigned long long*) = nullptr;
    Status (*fields)(Handle, int, FieldValue*) = nullptr;
    Status (*processes)(Handle, unsigned*, void*) = nullptr;

    [[nodiscard]] bool load(const char* library) noexcept;
};

template <class F>
bool find(void* library, F& out, const char* name) noexcept {
    out = reinterpret_cast<F>(dlsym(library, name));
    return out != nullptr;
}

bool Api::load(const char* library) noexcept {
    void* lib = dlopen(library, RTLD_LAZY | RTLD_LOCAL);  // and never closed: a driver's library may keep threads
    if (lib == nullptr) return false;
    find(lib, uuid, "nvmlDeviceGetUUID");
    find(lib, name, "nvmlDeviceGetName");
    find(lib, utilization, "nvmlDeviceGetUtilizationRates");
    find(lib, encoder, "nvmlDeviceGetEncoderUtilization");
    find(lib, decoder, "nvmlDeviceGetDecoderUtilization");
    find(lib, memory, "nvmlDeviceGetMemoryInfo");
    find(lib, memory_v2, "nvmlDeviceGetMemoryInfo_v2");
    find(lib, temperature, "nvmlDeviceGetTemperature");
    find(lib, temperature_v, "nvmlDeviceGetTemperatureV");
    find(lib, power, "nvmlDeviceGetPowerUsage");
    find(lib, power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    find(lib, energy, "nvmlDeviceGetTotalEnergyConsumption");
    find(lib, fan, "nvmlDeviceGetFanSpeed");
    find(lib, clock, "nvmlDeviceGetClockInfo");
    find(lib, ecc, "nvmlDeviceGetTotalEccErrors");
    find(lib, fields, "nvmlDeviceGetFieldValues");
    find(lib, processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    if (!find(lib, reasons, "nvmlDeviceGetCurrentClocksEventReasons")) {
        find(lib, reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
    }
    find(lib, shutdown, "nvmlShutdown");
    return find(lib, init, "nvmlInit_v2") && find(lib, count, "nvmlDeviceGetCount_v2") &&
           find(lib, handle, "nvmlDeviceGetHandleByIndex_v2");
}

// --- One device ------------------------------------------------------------------------------------------------------

// What is beyond `most` is no observation: drivers say "not known" as the largest number there is.
double scaled(double raw, double scale, double most) noexcept {
    const double value = raw * scale;
    return value >= 0 && value <= most ? value : kNaN;
}

// Calls a function that gives one number.
template <class Number, class... Parameters, class... Arguments>
double ask(Status (*function)(Handle, Parameters...), double scale, double most, Handle device,
           Arguments... arguments) noexcept {
    Number number = 0;
    if (function == nullptr || function(device, arguments..., &number) != kSuccess) return kNaN;
    return scaled(static_cast<double>(number), scale, most);
}

constexpr double kMaxBytes = 1e15;
constexpr double kMaxWatts = 1e5;
constexpr double kMaxHertz = 1e11;
constexpr double kMaxCelsius = 1000;
constexpr double kMaxCount = 1e18;

void read_load(const Api& api, Handle device, std::array<double, kNvmlValues>& out) noexcept {
    Utilization busy{};
    if (api.utilization != nullptr && api.utilization(device, &busy) == kSuccess) {
        out[kNvmlBusy] = scaled(busy.gpu, 0.01, 1);
        out[kNvmlMemoryBusy] = scaled(busy.memory, 0.01, 1);
    }
    unsigned percent = 0;
    unsigned period_us = 0;
    if (api.encoder != nullptr && api.encoder(device, &percent, &period_us) == kSuccess) {
        out[kNvmlEncoder] = scaled(percent, 0.01, 1);
    }
    if (api.decoder != nullptr && api.decoder(device, &percent, &period_us) == kSuccess) {
        out[kNvmlDecoder] = scaled(percent, 0.01, 1);
    }
}

void read_memory(const Api& api, Handle device, std::array<double, kNvmlValues>& out) noexcept {
    MemoryV2 memory{};
    memory.version = kMemoryVersion;
    if (api.memory_v2 == nullptr || api.memory_v2(device, &memory) != kSuccess) {
        MemoryV1 older{};  // counts what the driver reserves as used
        if (api.memory == nullptr || api.memory(device, &older) != kSuccess) return;
        memory.total = older.total;
        memory.used = older.used;
    }
    if (memory.total == 0 || memory.used > memory.total) return;
    out[kNvmlMemoryUsed] = scaled(static_cast<double>(memory.used), 1, kMaxBytes);
    out[kNvmlMemoryLimit] = scaled(static_cast<double>(memory.total), 1, kMaxBytes);
    out[kNvmlMemoryShare] = static_cast<double>(memory.used) / static_cast<double>(memory.total);
}

void read_power(const Api& api, Handle device, std::array<double, kNvmlValues>& out) noexcept {
    out[kNvmlTemperature] = ask<unsigned>(api.temperature, 1, kMaxCelsius, device, 0U);
    TemperatureV1 temperature{kTemperatureVersion, 0, 0};
    if (out[kNvmlTemperature] != out[kNvmlTemperature] && api.temperature_v != nullptr &&
        api.temperature_v(device, &temperature) == kSuccess && temperature.celsius > -273) {
        out[kNvmlTemperature] = temperature.celsius <= kMaxCelsius ? temperature.celsius : kNaN;
    }
    out[kNvmlPower] = ask<unsigned>(api.power, 1e-3, kMaxWatts, device);
    out[kNvmlPowerLimit] = ask<unsigned>(api.power_limit, 1e-3, kMaxWatts, device);
    out[kNvmlEnergy] = ask<unsigned long long>(api.energy, 1e-3, kMaxBytes, device);
    out[kNvmlFan] = ask<unsigned>(api.fan, 0.01, 10, device);  // of the intended speed: may exceed it
    for (std::size_t i = 0; i < std::size(kClockTypes); ++i) {
        out[kNvmlClockGraphics + i] = ask<unsigned>(api.clock, 1e6, kMaxHertz, device, kClockTypes[i]);
    }
}

void read_faults(const Api& api, Handle device, std::array<double, kNvmlValues>& out) noexcept {
    constexpr unsigned kCorrected = 0, kUncorrected = 1, kSinceDriverLoad = 0;
    out[kNvmlCorrected] = ask<unsigned long long>(api.ecc, 1, kMaxCount, device, kCorrected, kSinceDriverLoad);
    out[kNvmlUncorrected] = ask<unsigned long long>(api.ecc, 1, kMaxCount, device, kUncorrected, kSinceDriverLoad);
    unsigned long long reasons = 0;
    if (api.reasons != nullptr && api.reasons(device, &reasons) == kSuccess) {
        for (const Reason& reason : kReasons) out[reason.value] = (reasons & reason.bit) != 0 ? 1 : 0;
    }
    unsigned processes = 0;
    const Status counted = api.processes == nullptr ? -1 : api.processes(device, &processes, nullptr);
    if (counted == kSuccess || counted == kInsufficientSize) out[kNvmlProcesses] = scaled(processes, 1, 1e6);
}

// PCIe traffic as counters of 64 bits; the 32-bit ones of some drivers wrap many times between two readings. The older
// nvmlDeviceGetPcieThroughput measures for 20 ms while its caller waits.
void read_traffic(const Api& api, Handle device, std::array<double, kNvmlValues>& out) noexcept {
    FieldValue fields[2]{};
    fields[0].field = kFieldReceived;
    fields[1].field = kFieldTransmitted;
    if (api.fields == nullptr || api.fields(device, 2, fields) != kSuccess) return;
    for (std::size_t i = 0; i < std::size(fields); ++i) {
        const FieldValue& field = fields[i];
        if (field.status != kSuccess) continue;
        double value = kNaN;
        if (field.type == kTypeUnsignedLongLong) value = static_cast<double>(field.value.as_long_long);
        if (field.type == kTypeUnsignedLong) value = static_cast<double>(field.value.as_long);
        out[kNvmlReceived + i] = scaled(value, 1, kMaxCount);
    }
}

bool read_device(const Api& api, Handle device, std::array<double, kNvmlValues>& out) noexcept {
    out.fill(kNaN);
    read_load(api, device, out);
    read_memory(api, device, out);
    read_power(api, device, out);
    read_faults(api, device, out);
    read_traffic(api, device, out);
    for (const double value : out) {
        if (value == value) return true;
    }
    return false;
}

}  // namespace

// --- The thread ------------------------------------------------------------------------------------------------------

struct Nvml::Shared {
    Shared(std::string path, Patience delay)
        : library(std::move(path)), start_again(std::chrono::nanoseconds(delay).count()) {}

    void run();
    void start();
    [[nodiscard]] bool read_all();

    // The thread's own.
    std::string library;
    Nanos start_again;
    Api api;
    bool loaded = false;
    bool started = false;
    Nanos started_at = 0;
    std::array<Handle, kMaxNvmlDevices> handles{};
    NvmlReading draft;
    const char* failure = "";

    std::mutex mutex;  // of what follows
    std::condition_variable changed;
    std::uint64_t asked = 1;  // 1 = to start
    std::uint64_t answered = 0;
    bool good = false;
    const char* what = "";
    NvmlReading reading;
    bool stop = false;
    bool finished = false;
    bool abandoned = false;
};

void Nvml::Shared::start() {
    started = false;
    started_at = read_clock(CLOCK_MONOTONIC);
    draft.count = 0;
    ++draft.generation;
    if (!loaded) loaded = api.load(library.c_str());
    if (!loaded) {
        failure = "libnvidia-ml.so.1";
        return;
    }
    if (api.init() != kSuccess) {
        failure = "libnvidia-ml.so.1: nvmlInit_v2: no driver, or not this library's";
        return;
    }
    started = true;
    unsigned count = 0;
    if (api.count(&count) != kSuccess) count = 0;
    for (unsigned index = 0; index < count && draft.count < kMaxNvmlDevices; ++index) {
        NvmlDevice& device = draft.devices[draft.count];
        if (api.handle(index, &handles[draft.count]) != kSuccess) continue;
        device = {};
        constexpr auto kBytes = static_cast<unsigned>(std::tuple_size_v<decltype(device.id)>);
        if (api.uuid == nullptr || api.uuid(handles[draft.count], device.id.data(), kBytes) != kSuccess) {
            const std::string id = "nvidia" + std::to_string(index);
            std::memcpy(device.id.data(), id.c_str(), id.size() + 1);
        }
        if (api.name != nullptr) (void)api.name(handles[draft.count], device.name.data(), kBytes);
        device.id.back() = device.name.back() = '\0';
        ++draft.count;
    }
    if (draft.count == 0) failure = "libnvidia-ml.so.1: no device";
}

bool Nvml::Shared::read_all() {
    const Nanos now = read_clock(CLOCK_MONOTONIC);
    if (draft.count == 0 || !started) {
        if (now - started_at < start_again) return false;
        if (started && api.shutdown != nullptr) (void)api.shutdown();
        start();
    }
    bool any = false;
    for (std::size_t i = 0; i < draft.count; ++i) any = read_device(api, handles[i], draft.devices[i].values) || any;
    if (any || now - started_at < start_again) return any;
    failure = "libnvidia-ml.so.1: no device answers";
    draft.count = 0;  // the next reading starts anew: the driver may have been loaded again
    return false;
}

void Nvml::Shared::run() {
    start();
    bool outcome = draft.count > 0;
    std::unique_lock lock(mutex);
    while (true) {
        good = outcome;
        what = failure;
        if (outcome) reading = draft;
        answered = asked;
        changed.notify_all();
        changed.wait(lock, [&] { return stop || asked != answered; });
        if (stop) break;
        lock.unlock();
        outcome = read_all();
        lock.lock();
    }
    lock.unlock();
    if (started && api.shutdown != nullptr) (void)api.shutdown();
    lock.lock();
    finished = true;
    if (abandoned) --left_behind;
    changed.notify_all();
}

Nvml::Nvml(std::string library, Patience start_again)
    : shared_(std::make_shared<Shared>(std::move(library), start_again)) {
    // Signals are for the threads that were there before.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        std::thread([shared = shared_] {
            pthread_setname_np(pthread_self(), "argus-nvml");
            shared->run();
        }).detach();
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Nvml::~Nvml() {
    std::unique_lock lock(shared_->mutex);
    shared_->stop = true;
    shared_->changed.notify_all();
    if (shared_->changed.wait_for(lock, kFarewell, [&] { return shared_->finished; })) return;
    shared_->abandoned = true;
    ++left_behind;
}

bool Nvml::stuck() noexcept { return left_behind.load() > 0; }

Result<bool> Nvml::ready(Patience patience) {
    std::unique_lock lock(shared_->mutex);
    if (!shared_->changed.wait_for(lock, patience, [&] { return shared_->answered >= 1; })) return false;
    if (!shared_->good) return Error{Errc::unavailable, ENODEV, shared_->what};
    return true;
}

Result<bool> Nvml::read(Patience patience, NvmlReading& out) {
    std::unique_lock lock(shared_->mutex);
    const Error late{Errc::io, ETIMEDOUT, "libnvidia-ml.so.1: no answer"};
    if (shared_->answered != shared_->asked) return late;  // what it answers at last is old: the next poll asks again
    ++shared_->asked;
    shared_->changed.notify_all();
    if (!shared_->changed.wait_for(lock, patience, [&] { return shared_->answered == shared_->asked; })) return late;
    if (!shared_->good) return Error{Errc::io, EIO, shared_->what};
    out = shared_->reading;
    return true;
}

}  // namespace argus::sources
