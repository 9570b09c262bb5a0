#include "sources/gpu.hpp"

#include <dlfcn.h>
#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "../../nvml/fake_nvml.hpp"
#include "../allocations.hpp"
#include "sources/nvml.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

using std::chrono::milliseconds;

// The stand-in, as it should be at the start of a test.
FakeNvml& fake(const char* library) {
    void* handle = dlopen(library, RTLD_NOW);
    REQUIRE(handle != nullptr);
    auto* get = reinterpret_cast<FakeNvml* (*)()>(dlsym(handle, "fake_nvml"));
    REQUIRE((get != nullptr));
    FakeNvml& control = *get();
    control.devices = 2;
    control.init_status = 0;
    control.lost = -1;
    control.mig = control.hang = control.absurd = control.narrow = control.only_new_temperature = false;
    control.inits = control.shutdowns = 0;
    return control;
}

sources::GpuSetup setup(const char* library) {
    sources::GpuSetup out;
    out.library = library;
    out.start_patience = milliseconds(20'000);  // what is measured is never the machine's load
    out.patience = milliseconds(20'000);
    return out;
}

std::unique_ptr<sources::Source> open_fake(const Tree& tree, const sources::GpuSetup& wanted) {
    auto source = sources::open_gpu(tree.roots(), system_io(), wanted);
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string nvidia(const char* name, const char* id, const std::string& before = "", const std::string& after = "") {
    return std::string(name) + "{" + before + "hw.id=" + id + ",hw.name=NVIDIA%20H200,hw.type=gpu,hw.vendor=NVIDIA" +
           after + "}";
}

std::string amd(const char* name, const std::string& before = "") {
    return std::string(name) + "{" + before +
           "hw.id=0000:03:00.0,hw.name=AMD%20Instinct%20MI210,hw.type=gpu,hw.vendor=AMD}";
}

std::string intel(const char* name, const char* before, const char* id, const char* card) {
    return std::string(name) + "{" + before + "hw.id=" + id + ",hw.name=" + card + ",hw.type=gpu,hw.vendor=Intel}";
}

bool comes_true(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(milliseconds(1));
    }
    return true;
}

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

}  // namespace

TEST_CASE("gpu: NVIDIA's numbers come in base units, by UUID and name") {
    fake(FAKE_NVML_2);
    Tree tree;
    Memory memory;
    const auto report = open_fake(tree, setup(FAKE_NVML_2))->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 2 * 25);  // all but the fan
    CHECK(memory.names.size() == 2 * 25);
    CHECK(memory.at(nvidia("hw.gpu.utilization", "GPU-0", "hw.gpu.task=general,")) == doctest::Approx(0.91));
    CHECK(memory.at(nvidia("hw.gpu.utilization", "GPU-1", "hw.gpu.task=encoder,")) == doctest::Approx(0.05));
    CHECK(memory.at(nvidia("hw.gpu.utilization", "GPU-1", "hw.gpu.task=decoder,")) == 0);
    CHECK(memory.at(nvidia("hw.gpu.memory.controller.utilization", "GPU-0")) == doctest::Approx(0.37));
    CHECK(memory.at(nvidia("hw.gpu.memory.usage", "GPU-0")) == 20 * kGib);
    CHECK(memory.at(nvidia("hw.gpu.memory.limit", "GPU-0")) == 80 * kGib);
    CHECK(memory.at(nvidia("hw.gpu.memory.utilization", "GPU-0")) == 0.25);
    CHECK(memory.at(nvidia("hw.temperature", "GPU-0")) == 61);
    CHECK(memory.at(nvidia("hw.power", "GPU-0")) == doctest::Approx(312.5));
    CHECK(memory.at(nvidia("hw.power.limit", "GPU-0")) == doctest::Approx(700));
    CHECK(memory.at(nvidia("hw.energy", "GPU-0")) == doctest::Approx(123'456.789));
    CHECK(memory.at(nvidia("hw.gpu.clock.frequency", "GPU-0", "hw.gpu.clock=graphics,")) == 1000e6);
    CHECK(memory.at(nvidia("hw.gpu.clock.frequency", "GPU-0", "hw.gpu.clock=memory,")) == 1002e6);
    CHECK(memory.at(nvidia("hw.errors", "GPU-0", "error.type=corrected,")) == 14);
    CHECK(memory.at(nvidia("hw.errors", "GPU-0", "error.type=uncorrected,")) == 1);
    CHECK(memory.at(nvidia("hw.gpu.io", "GPU-0", "", ",network.io.direction=receive")) == 9e9);
    CHECK(memory.at(nvidia("hw.gpu.io", "GPU-0", "", ",network.io.direction=transmit")) == 7e9);
    CHECK(memory.at(nvidia("hw.gpu.process.count", "GPU-0")) == 3);
    CHECK(memory.at(nvidia("hw.gpu.throttled", "GPU-0", "hw.gpu.throttle.reason=power_cap,")) == 1);
    CHECK(memory.at(nvidia("hw.gpu.throttled", "GPU-0", "hw.gpu.throttle.reason=thermal_hardware,")) == 1);
    CHECK(memory.at(nvidia("hw.gpu.throttled", "GPU-0", "hw.gpu.throttle.reason=hardware,")) == 0);
}

TEST_CASE("gpu: entry points an older library lacks leave their series out") {
    fake(FAKE_NVML_1);
    Tree tree;
    Memory memory;
    const auto report = open_fake(tree, setup(FAKE_NVML_1))->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 2 * 19);
    CHECK(memory.at(nvidia("hw.gpu.memory.usage", "GPU-0")) == 22 * kGib);  // with what the driver reserves
    CHECK(memory.at(nvidia("hw.gpu.throttled", "GPU-0", "hw.gpu.throttle.reason=power_cap,")) == 1);
    CHECK(!memory.has(nvidia("hw.energy", "GPU-0")));
    CHECK(!memory.has(nvidia("hw.gpu.process.count", "GPU-0")));
}

TEST_CASE("gpu: no library, another library, no driver and no device are unavailable and told apart") {
    Tree tree;
    const auto what = [&](const char* library) {
        const auto source = sources::open_gpu(tree.roots(), system_io(), setup(library));
        REQUIRE(!source.ok());
        CHECK(source.error().code == Errc::unavailable);
        return std::string(source.error().what);
    };
    CHECK(what("/nowhere/libnvidia-ml.so.1") == "libnvidia-ml.so.1");
    CHECK(what(FAKE_NVML_0) == "libnvidia-ml.so.1");
    FakeNvml& control = fake(FAKE_NVML_2);
    control.init_status = 9;  // the driver is not loaded
    CHECK(what(FAKE_NVML_2).find("no driver") != std::string::npos);
    control.init_status = 0;
    control.devices = 0;
    CHECK(what(FAKE_NVML_2).find("no device") != std::string::npos);
    CHECK(control.inits == 1);
    CHECK(control.shutdowns == 1);
    CHECK(what("") == "sys/class/drm and libnvidia-ml.so.1: no card that tells");
}

TEST_CASE("gpu: with MIG the load of the whole card is missing, the rest is there") {
    fake(FAKE_NVML_2).mig = true;
    Tree tree;
    Memory memory;
    const auto report = open_fake(tree, setup(FAKE_NVML_2))->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 2 * 23);
    CHECK(!memory.has(nvidia("hw.gpu.utilization", "GPU-0", "hw.gpu.task=general,")));
    CHECK(memory.at(nvidia("hw.gpu.memory.usage", "GPU-0")) == 20 * kGib);
}

TEST_CASE("gpu: a card that fell off the bus is missing, the others are not") {
    FakeNvml& control = fake(FAKE_NVML_2);
    Tree tree;
    Memory memory;
    auto source = open_fake(tree, setup(FAKE_NVML_2));
    REQUIRE(source->poll(0, memory).ok());
    control.lost = 1;
    memory.forget();
    const auto report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 25);
    CHECK(memory.at(nvidia("hw.power", "GPU-0")) == doctest::Approx(312.5));
    CHECK(std::isnan(memory.at(nvidia("hw.power", "GPU-1"))));
}

TEST_CASE("gpu: numbers that cannot be are no observations") {
    fake(FAKE_NVML_2).absurd = true;
    Tree tree;
    Memory memory;
    const auto report = open_fake(tree, setup(FAKE_NVML_2))->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 2 * 7);  // the throttle bits and the traffic
    CHECK(!memory.has(nvidia("hw.power", "GPU-0")));
    CHECK(!memory.has(nvidia("hw.temperature", "GPU-0")));
    CHECK(!memory.has(nvidia("hw.gpu.memory.usage", "GPU-0")));
    CHECK(!memory.has(nvidia("hw.errors", "GPU-0", "error.type=corrected,")));
}

TEST_CASE("gpu: 32-bit counters of traffic, which wrap between two readings, are left out") {
    FakeNvml& control = fake(FAKE_NVML_2);
    control.narrow = true;
    control.only_new_temperature = true;
    Tree tree;
    Memory memory;
    REQUIRE(open_fake(tree, setup(FAKE_NVML_2))->poll(0, memory).ok());
    CHECK(!memory.has(nvidia("hw.gpu.io", "GPU-0", "", ",network.io.direction=receive")));
    CHECK(memory.at(nvidia("hw.temperature", "GPU-0")) == 62);  // from the newer entry point
}

TEST_CASE("gpu: a driver that hangs costs its poll, then polls are skipped, and it comes back") {
    FakeNvml& control = fake(FAKE_NVML_2);
    Tree tree;
    Memory memory;
    sources::GpuSetup wanted = setup(FAKE_NVML_2);
    auto patient = open_fake(tree, wanted);  // never polled: starting is not what hangs
    patient.reset();
    wanted.patience = milliseconds(20);
    auto source = open_fake(tree, wanted);
    control.hang = true;
    const auto hung = [&](Nanos now) {
        const auto report = source->poll(now, memory);
        return !report.ok() && report.error().sys_errno == ETIMEDOUT;
    };
    const auto skipped = [&](Nanos now) {
        const auto report = source->poll(now, memory);
        return report.ok() && report.value().emitted == 0;
    };
    CHECK(hung(0));
    CHECK(skipped(1));
    CHECK(hung(2));  // the first question is not answered yet
    CHECK(skipped(3));
    CHECK(skipped(4));
    CHECK(memory.names.empty());
    control.hang = false;
    CHECK(comes_true([&] {
        const auto report = source->poll(5, memory);
        return report.ok() && report.value().emitted == 50;
    }));
}

TEST_CASE("gpu: a thread that does not come back is left behind, and no other is started until it does") {
    FakeNvml& control = fake(FAKE_NVML_2);
    Tree tree;
    Memory memory;
    sources::GpuSetup wanted = setup(FAKE_NVML_2);
    wanted.patience = milliseconds(1);
    auto source = open_fake(tree, wanted);
    control.hang = true;
    CHECK(!source->poll(0, memory).ok());
    source.reset();
    CHECK(sources::Nvml::stuck());
    const auto again = sources::open_gpu(tree.roots(), system_io(), wanted);
    REQUIRE(!again.ok());
    CHECK(again.error().sys_errno == ETIMEDOUT);
    control.hang = false;
    CHECK(comes_true([] { return !sources::Nvml::stuck(); }));
    CHECK(sources::open_gpu(tree.roots(), system_io(), wanted).ok());
}

TEST_CASE("gpu: when every device is lost the library is started anew, and the series with it") {
    FakeNvml& control = fake(FAKE_NVML_2);
    Tree tree;
    Memory memory;
    sources::GpuSetup wanted = setup(FAKE_NVML_2);
    wanted.start_again = milliseconds(0);
    auto source = open_fake(tree, wanted);
    REQUIRE(source->poll(0, memory).ok());
    control.lost = -2;
    const auto lost = source->poll(1, memory);
    REQUIRE(!lost.ok());
    CHECK(lost.error().sys_errno == EIO);
    CHECK(memory.closed == 0);
    control.lost = -1;
    control.devices = 1;
    const auto report = source->poll(2, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 25);
    CHECK(memory.closed == 50);
    CHECK(memory.names.size() == 25);
    CHECK(control.inits == 2);
    CHECK(control.shutdowns == 1);
}

TEST_CASE("gpu: a steady poll allocates nothing in the lane's thread") {
    fake(FAKE_NVML_2);
    Tree tree("metal");
    Memory memory;
    auto source = open_fake(tree, setup(FAKE_NVML_2));
    (void)source->poll(0, memory);
    const std::uint64_t before = allocations();
    const auto report = source->poll(1, memory);
    CHECK(allocations() == before);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == memory.names.size());
}

TEST_CASE("gpu: roots that are not live never ask this machine's driver") {
    Tree without("6.18");
    const auto none = sources::gpu_source.open(without.roots(), system_io());
    REQUIRE(!none.ok());
    CHECK(none.error().code == Errc::unavailable);
    Tree tree("metal");
    Memory memory;
    auto source = sources::gpu_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    REQUIRE((*source)->poll(0, memory).ok());
    for (const std::string& name : memory.names) CHECK(name.find("NVIDIA") == std::string::npos);
}

TEST_CASE("gpu: AMD and Intel cards speak through sysfs, cards without sensors do not") {
    Tree tree("metal");
    Memory memory;
    auto source = open_fake(tree, setup(""));
    const auto report = source->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(report.value().emitted == memory.names.size());
    CHECK(memory.at(amd("hw.gpu.utilization", "hw.gpu.task=general,")) == doctest::Approx(0.87));
    CHECK(memory.at(amd("hw.gpu.memory.controller.utilization")) == doctest::Approx(0.31));
    CHECK(memory.at(amd("hw.gpu.memory.usage")) == 16 * kGib);
    CHECK(memory.at(amd("hw.gpu.memory.limit")) == 68'702'699'520.0);
    CHECK(memory.at(amd("hw.gpu.memory.utilization")) == doctest::Approx(0.25006));
    CHECK(memory.at(amd("hw.gpu.clock.frequency", "hw.gpu.clock=graphics,")) == 1.7e9);
    CHECK(memory.at(amd("hw.errors", "error.type=corrected,")) == 14);
    CHECK(memory.at(amd("hw.errors", "error.type=uncorrected,")) == 1);
    const std::string chip = "hw.id=0000:03:00.0,hw.name=AMD%20Instinct%20MI210,hw.sensor_location=";
    CHECK(memory.at("hw.temperature{" + chip + "junction}") == 58);
    CHECK(memory.at("hw.power{" + chip + "PPT,hw.type=gpu}") == 143);
    CHECK(memory.at("hw.voltage{" + chip + "vddgfx}") == doctest::Approx(0.806));
    CHECK(memory.at(intel("hw.gpu.clock.frequency", "hw.gpu.clock=gt0,", "0000:00:02.0", "card1")) == 1150e6);
    CHECK(memory.at(intel("hw.gpu.idle_time", "hw.gpu.clock=gt0,", "0000:00:02.0", "card1")) ==
          doctest::Approx(7512.345));
    CHECK(memory.at(intel("hw.gpu.clock.frequency", "hw.gpu.clock=gt0,", "0000:0a:00.0", "card2")) == 2400e6);
    CHECK(memory.at(intel("hw.gpu.throttled", "hw.gpu.clock=gt0,hw.gpu.throttle.reason=any,", "0000:0a:00.0",
                          "card2")) == 1);
    CHECK(memory.at(intel("hw.gpu.idle_time", "hw.gpu.clock=gt1,", "0000:0a:00.0", "card2")) == 990);
    CHECK(memory.at("hw.energy{hw.id=0000:0a:00.0,hw.name=card2,hw.sensor_location=card,hw.type=gpu}") == 73'000);
    for (const std::string& name : memory.names) CHECK(name.find("card3") == std::string::npos);
}

TEST_CASE("gpu: a sleeping card is not woken by reading it") {
    Tree tree("metal");
    Memory memory;
    auto source = open_fake(tree, setup(""));
    tree.write("sys/class/drm/card0/device/power/runtime_status", "suspended\n");
    REQUIRE(source->poll(0, memory).ok());
    CHECK(!memory.has(amd("hw.gpu.utilization", "hw.gpu.task=general,")));
    tree.write("sys/class/drm/card0/device/power/runtime_status", "active\n");
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.has(amd("hw.gpu.utilization", "hw.gpu.task=general,")));
}

TEST_CASE("gpu: a card that is taken out closes its series, the others keep theirs") {
    Tree tree("metal");
    Memory memory;
    auto source = open_fake(tree, setup(""));
    REQUIRE(source->poll(0, memory).ok());
    const std::size_t all = memory.names.size();
    tree.remove("sys/class/drm/card1");
    const auto report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(memory.closed == 3);
    CHECK(report.value().emitted == all - 3);
    CHECK(memory.names.size() == all - 3);
}

TEST_CASE("gpu: words, overflow and shares above 1 in a card's files are missing, not taken for numbers") {
    Tree tree("metal");
    const std::string card = "sys/class/drm/card0/device/";
    tree.write(card + "gpu_busy_percent", "101\n");
    tree.write(card + "mem_busy_percent", "-1\n");
    tree.write(card + "mem_info_vram_used", "99999999999999999999\n");
    tree.write(card + "ras/umc_err_count", "ue: x\nce: 1\n");
    tree.write(card + "hwmon/hwmon3/freq1_input", "");
    tree.write(card + "hwmon/hwmon3/temp1_input", "1000000000\n");
    Memory memory;
    const auto report = open_fake(tree, setup(""))->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 1);
    CHECK(!memory.has(amd("hw.gpu.utilization", "hw.gpu.task=general,")));
    CHECK(!memory.has(amd("hw.gpu.memory.controller.utilization")));
    CHECK(!memory.has(amd("hw.gpu.memory.usage")));
    CHECK(!memory.has(amd("hw.gpu.memory.limit")));
    CHECK(!memory.has(amd("hw.gpu.clock.frequency", "hw.gpu.clock=graphics,")));
    CHECK(memory.has(amd("hw.gpu.clock.frequency", "hw.gpu.clock=memory,")));
}

TEST_CASE("gpu: counts of memory errors need both lines, an address its key") {
    sources::RasCounts counts;
    CHECK(sources::parse_ras_counts("ue: 3\nce: 4\n", counts));
    CHECK(counts.uncorrected == 3);
    CHECK(counts.corrected == 4);
    CHECK(!sources::parse_ras_counts("ue: 3\n", counts));
    CHECK(!sources::parse_ras_counts("ue: 3\nce: -4\n", counts));
    CHECK(!sources::parse_ras_counts("", counts));
    CHECK(sources::parse_pci_slot("A=1\nPCI_SLOT_NAME=0000:03:00.0\nB=2") == "0000:03:00.0");
    CHECK(sources::parse_pci_slot("XPCI_SLOT_NAME=0000:03:00.0").empty());
    CHECK(sources::parse_pci_slot("PCI_SLOT_NAME=" + std::string(33, '0')).empty());
}

}  // namespace argus::test
