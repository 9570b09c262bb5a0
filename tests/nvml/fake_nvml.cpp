// A stand-in for libnvidia-ml.so.1 with the entry points that Argus looks for, after NVML's API reference.
#include "fake_nvml.hpp"

#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <thread>

#if FAKE_NVML_LEVEL == 0

extern "C" int another_library() { return 0; }

#else

namespace {

FakeNvml control;
int handles[64];

constexpr int kNotSupported = 3;
constexpr int kGpuIsLost = 15;
constexpr int kVersionMismatch = 25;

int index_of(void* device) { return static_cast<int>(static_cast<int*>(device) - handles); }

int status_of(void* device) {
    const int lost = control.lost;
    return lost == -2 || lost == index_of(device) ? kGpuIsLost : 0;
}

template <class T>
int give(void* device, T* out, T value) {
    const int status = status_of(device);
    if (status == 0) *out = control.absurd ? std::numeric_limits<T>::max() : value;
    return status;
}

int copy(const std::string& text, char* out, unsigned size) {
    if (size <= text.size()) return 7;
    std::memcpy(out, text.c_str(), text.size() + 1);
    return 0;
}

struct Utilization {
    unsigned gpu, memory;
};
struct MemoryV1 {
    unsigned long long total, free, used;
};
struct MemoryV2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
struct TemperatureV1 {
    unsigned version, sensor;
    int celsius;
};
struct FieldValue {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned type;
    int status;
    std::uint64_t value;
};
constexpr unsigned long long kGib = 1ULL << 30;

}  // namespace

extern "C" {

FakeNvml* fake_nvml() { return &control; }

int nvmlInit_v2() {
    if (control.init_status == 0) ++control.inits;
    return control.init_status;
}
int nvmlShutdown() {
    ++control.shutdowns;
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned* count) {
    *count = static_cast<unsigned>(control.devices);
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
    *device = &handles[index];
    return 0;
}
int nvmlDeviceGetUUID(void* device, char* out, unsigned size) {
    return copy("GPU-" + std::to_string(index_of(device)), out, size);
}
int nvmlDeviceGetName(void*, char* out, unsigned size) { return copy("NVIDIA H200", out, size); }
int nvmlDeviceGetUtilizationRates(void* device, Utilization* out) {
    while (control.hang) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (control.mig) return kNotSupported;
    const unsigned busy = control.absurd ? 4294967295U : 91U;
    *out = {busy, control.absurd ? 4294967295U : 37U};
    return status_of(device);
}
int nvmlDeviceGetMemoryInfo(void* device, MemoryV1* out) {
    *out = {80 * kGib, 58 * kGib, (control.absurd ? 90 : 22) * kGib};
    return status_of(device);
}
int nvmlDeviceGetTemperature(void* device, unsigned, unsigned* out) {
    return control.only_new_temperature ? kNotSupported : give(device, out, 61U);
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* out) { return give(device, out, 312'500U); }
int nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned* out) { return give(device, out, 700'000U); }
int nvmlDeviceGetClockInfo(void* device, unsigned type, unsigned* out) { return give(device, out, 1000U + type); }
int nvmlDeviceGetTotalEccErrors(void* device, unsigned type, unsigned, unsigned long long* out) {
    return give(device, out, type == 0 ? 14ULL : 1ULL);
}
int nvmlDeviceGetFanSpeed(void*, unsigned*) { return kNotSupported; }  // cooled by the machine

#if FAKE_NVML_LEVEL == 1

int nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* out) {
    *out = 0x4;
    return status_of(device);
}

#else

int nvmlDeviceGetMemoryInfo_v2(void* device, MemoryV2* out) {
    if (out->version != (sizeof(MemoryV2) | 2U << 24)) return kVersionMismatch;
    *out = {out->version, 80 * kGib, 2 * kGib, 58 * kGib, (control.absurd ? 90 : 20) * kGib};
    return status_of(device);
}
int nvmlDeviceGetTemperatureV(void* device, TemperatureV1* out) {
    if (out->version != (sizeof(TemperatureV1) | 1U << 24)) return kVersionMismatch;
    out->celsius = control.absurd ? 32'767 : 62;
    return status_of(device);
}
int nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* out) {
    return give(device, out, 123'456'789ULL);
}
int nvmlDeviceGetEncoderUtilization(void* device, unsigned* out, unsigned* period) {
    *period = 167'000;
    return give(device, out, 5U);
}
int nvmlDeviceGetDecoderUtilization(void* device, unsigned* out, unsigned* period) {
    *period = 167'000;
    return give(device, out, 0U);
}
int nvmlDeviceGetCurrentClocksEventReasons(void* device, unsigned long long* out) {
    *out = 0x4 | 0x40;
    return status_of(device);
}
int nvmlDeviceGetComputeRunningProcesses_v3(void* device, unsigned* count, void*) {
    const int status = give(device, count, 3U);
    return status == 0 ? 7 : status;  // there is no room for the three
}
int nvmlDeviceGetFieldValues(void* device, int count, FieldValue* fields) {
    for (int i = 0; i < count; ++i) {
        fields[i].status = fields[i].field == 197 || fields[i].field == 198 ? 0 : kNotSupported;
        fields[i].type = control.narrow ? 1 : 3;
        fields[i].value = fields[i].field == 197 ? 7'000'000'000ULL : 9'000'000'000ULL;
    }
    return status_of(device);
}

#endif
}  // extern "C"

#endif
