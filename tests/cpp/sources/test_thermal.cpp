#include "sources/thermal.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "../allocations.hpp"
#include "sources/hwmon.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_thermal(const Tree& tree, const Io& io = system_io()) {
    auto source = sources::thermal_source.open(tree.roots(), io);
    REQUIRE(source.ok());
    return std::move(*source);
}

const std::string kPackage = "hw.energy{hw.id=intel-rapl:0,hw.name=package-0,hw.type=cpu}";
constexpr double kRange = 262'143'328'850.0 * 1e-6;

}  // namespace

TEST_CASE("thermal: sensors of a machine of metal, each in its unit") {
    Tree tree("metal");
    Memory memory;
    const auto report = open_thermal(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(memory.at("hw.temperature{hw.id=thermal_zone0,hw.name=acpitz}") == doctest::Approx(27.8));
    CHECK(memory.at("hw.temperature{hw.id=thermal_zone1,hw.name=x86_pkg_temp}") == 64);
    CHECK(memory.at("hw.temperature{hw.id=hwmon0/temp1,hw.name=coretemp,hw.sensor_location=Package%20id%200}") == 64);
    CHECK(memory.at("hw.fan.speed{hw.id=hwmon1/fan1,hw.name=nct6798}") == 1180);
    CHECK(memory.at("hw.fan.speed{hw.id=hwmon1/fan2,hw.name=nct6798}") == 0);  // stands still
    CHECK(memory.at("hw.voltage{hw.id=hwmon1/in0,hw.name=nct6798}") == doctest::Approx(1.056));
    CHECK(memory.at("hw.voltage{hw.id=hwmon1/in1,hw.name=nct6798,hw.sensor_location=-12V}") ==
          doctest::Approx(-12.096));
    CHECK(memory.at("hw.power{hw.id=hwmon2/power1,hw.name=power_meter,hw.type=sensor}") == 184);
    CHECK(memory.at(kPackage) == doctest::Approx(kRange - 1));
    CHECK(memory.at("hw.energy{hw.id=intel-rapl:0:1,hw.name=dram,hw.type=memory}") == doctest::Approx(987.654321));
    CHECK(memory.at("hw.energy{hw.id=intel-rapl:1,hw.name=psys,hw.type=enclosure}") == 55);
    CHECK(memory.at("hw.errors{error.type=corrected,hw.id=mc0,hw.name=skx_edac,hw.type=memory}") == 12);
    CHECK(memory.at("hw.errors{error.type=uncorrected,hw.id=mc1,hw.name=skx_edac,hw.type=memory}") == 1);
    // Two zones; three, five and one sensor of three chips; four zones of energy; two controllers.
    CHECK(memory.names.size() == 2 + 3 + 5 + 1 + 4 + 4);
}

TEST_CASE("thermal: a zone of -274 degrees, a faulty sensor and another source's chip are missing") {
    Tree tree("metal");
    Memory memory;
    REQUIRE(open_thermal(tree)->poll(0, memory).ok());
    for (const std::string& name : memory.names) {
        CHECK(name.find("thermal_zone2") == std::string::npos);
        CHECK(name.find("hwmon1/temp2") == std::string::npos);
        CHECK(name.find("amdgpu") == std::string::npos);
    }
}

TEST_CASE("thermal: a machine without sensors, also one with empty folders, is unavailable") {
    for (const char* folder : {"", "sys/class/thermal/", "sys/class/hwmon/", "sys/devices/system/edac/mc/"}) {
        Tree tree;
        if (*folder != '\0') tree.write(std::string(folder) + "uevent", "");
        const auto source = sources::thermal_source.open(tree.roots(), system_io());
        CAPTURE(folder);
        REQUIRE(!source.ok());
        CHECK(source.error().code == Errc::unavailable);
    }
}

TEST_CASE("thermal: RAPL wraps at its range and the counter goes on") {
    Tree tree("metal");
    Memory memory;
    auto source = open_thermal(tree);
    REQUIRE(source->poll(0, memory).ok());
    const double before = memory.at(kPackage);
    tree.write("sys/class/powercap/intel-rapl:0/energy_uj", "2000000\n");  // 1 J to the range, 2 J beyond it
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.at(kPackage) == doctest::Approx(before + 3));
    CHECK(memory.closed == 0);
}

TEST_CASE("thermal: the energy counter adds what was used, never what it cannot know") {
    sources::EnergyCounter counter;
    CHECK(counter.advance(900, 1000) == 900);
    CHECK(counter.advance(950, 1000) == 950);
    CHECK(counter.advance(950, 1000) == 950);
    CHECK(counter.advance(10, 1000) == 1010);   // 50 to the end, 10 since
    CHECK(counter.advance(5, 0) == 1010);       // fell, and no range is known
    CHECK(counter.advance(6, 0) == 1011);
    CHECK(counter.advance(5000, 1000) == 6005);
    CHECK(counter.advance(7, 1000) == 6005);    // it had passed its own range: nothing can be made of it
    CHECK(counter.advance(8, 1000) == 6006);
}

TEST_CASE("thermal: devices come and go; what stays keeps its series") {
    Tree tree("metal");
    Memory memory;
    auto source = open_thermal(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.remove("sys/class/hwmon/hwmon1");
    tree.write("sys/class/hwmon/hwmon7/name", "nvme\n");
    tree.write("sys/class/hwmon/hwmon7/temp1_input", "41850\n");
    tree.remove("sys/class/powercap/intel-rapl:1");
    auto report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(memory.closed == 5 + 1);
    CHECK(memory.at("hw.temperature{hw.id=hwmon7/temp1,hw.name=nvme}") == doctest::Approx(41.85));
    CHECK(report.value().emitted == memory.names.size());
    tree.remove("sys/class/thermal");
    report = source->poll(2, memory);
    REQUIRE(report.ok());
    CHECK(memory.closed == 6 + 2);
}

TEST_CASE("thermal: another chip under the same number is another device") {
    Tree tree("metal");
    Memory memory;
    auto source = open_thermal(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.write("sys/class/hwmon/fresh/name", "k10temp\n");
    tree.write("sys/class/hwmon/fresh/temp1_input", "33000\n");
    tree.remove("sys/class/hwmon/hwmon0");
    fs::rename(tree.roots().sys + "/class/hwmon/fresh", tree.roots().sys + "/class/hwmon/hwmon0");
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.closed == 3);
    CHECK(memory.at("hw.temperature{hw.id=hwmon0/temp1,hw.name=k10temp}") == 33);
}

TEST_CASE("thermal: a chip is named after its device, whatever number it got at this boot") {
    for (const char* first : {"hwmon0", "hwmon9"}) {
        Tree tree;
        const auto chip = [&](const std::string& number, const std::string& name, const std::string& device) {
            const std::string folder = "sys/class/hwmon/" + number;
            tree.write(folder + "/name", name + "\n");
            tree.write(folder + "/temp1_input", "20000\n");
            fs::create_directories(tree.path("sys/devices/" + device));
            fs::create_symlink("../../../devices/" + device, tree.path(folder + "/device"));
        };
        chip(first, "coretemp", "coretemp.0");
        chip("hwmon10", "nvme", "0000:3d:00.0/nvme0");
        fs::create_symlink("../../0000:3d:00.0", tree.path("sys/devices/0000:3d:00.0/nvme0/device"));
        chip("hwmon2", "nct6798", "nct6775.656");
        chip("hwmon11", "nct6798", "nct6775.656");
        Memory memory;
        REQUIRE(open_thermal(tree)->poll(0, memory).ok());
        CHECK(memory.has("hw.temperature{hw.id=coretemp.0/temp1,hw.name=coretemp}"));
        CHECK(memory.has("hw.temperature{hw.id=0000:3d:00.0/temp1,hw.name=nvme}"));
        CHECK(memory.has("hw.temperature{hw.id=nct6775.656/temp1,hw.name=nct6798}"));
        CHECK(memory.has("hw.temperature{hw.id=nct6775.656#2/temp1,hw.name=nct6798}"));
        CHECK(memory.names.size() == 4);
    }
}

TEST_CASE("thermal: links that lead in a circle end") {
    Tree tree;
    tree.write("sys/class/hwmon/hwmon0/name", "loop\n");
    tree.write("sys/class/hwmon/hwmon0/temp1_input", "20000\n");
    fs::create_symlink("../hwmon0", tree.path("sys/class/hwmon/hwmon0/device"));
    Memory memory;
    REQUIRE(open_thermal(tree)->poll(0, memory).ok());
    CHECK(memory.has("hw.temperature{hw.id=hwmon0/temp1,hw.name=loop}"));
}

TEST_CASE("thermal: an error of a sensor costs its value only") {
    Tree tree("metal");
    Memory memory;
    auto source = open_thermal(tree);
    REQUIRE(source->poll(0, memory).ok());
    const std::size_t all = memory.names.size();
    tree.write("sys/class/hwmon/hwmon0/temp1_input", "hot\n");
    tree.write("sys/class/hwmon/hwmon1/fan1_input", "-1\n");
    tree.write("sys/class/powercap/intel-rapl:0/energy_uj", "18446744073709551616\n");
    tree.write("sys/devices/system/edac/mc/mc0/ce_count", "\n");
    tree.remove("sys/class/thermal/thermal_zone0/temp");
    REQUIRE(mkfifo((tree.roots().sys + "/class/thermal/thermal_zone0/temp").c_str(), 0600) == 0);
    memory.forget();
    const auto report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == all - 5);
    CHECK(memory.closed == 0);
}

TEST_CASE("thermal: a steady poll allocates nothing, keeps no descriptor, survives short reads and EINTR") {
    Tree tree("metal");
    Memory memory;
    const WithFaults injected({.largest_read = 3, .interrupt_every = 5});
    auto source = open_thermal(tree, kFaultyIo);
    REQUIRE(source->poll(0, memory).ok());
    CHECK(faults.opened == 0);
    const std::uint64_t before = allocations();
    const auto report = source->poll(1, memory);
    CHECK(allocations() == before);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == memory.names.size());
    CHECK(memory.names.size() == 19);
}

TEST_CASE("thermal: no more sensors than are followed") {
    Tree tree;
    for (int sensor = 0; sensor < 200; ++sensor) {
        tree.write("sys/class/hwmon/hwmon0/temp" + std::to_string(sensor) + "_input", "20000\n");
    }
    for (int zone = 0; zone < 300; ++zone) {
        tree.write("sys/class/thermal/thermal_zone" + std::to_string(zone) + "/temp", "20000\n");
    }
    Memory memory;
    REQUIRE(open_thermal(tree)->poll(0, memory).ok());
    CHECK(memory.names.size() == sources::HwmonChip::kMaxSensors + 256);
}

TEST_CASE("thermal: names of drivers are untrusted") {
    Tree tree;
    tree.write("sys/class/hwmon/hwmon0/name", "a=b,c\x1b[31m\n");
    tree.write("sys/class/hwmon/hwmon0/temp1_input", "20000\n");
    tree.write("sys/class/hwmon/hwmon0/temp1_label", "\xff label}\n");
    Memory memory;
    REQUIRE(open_thermal(tree)->poll(0, memory).ok());
    CHECK(memory.at("hw.temperature{hw.id=hwmon0/temp1,hw.name=a%3Db%2Cc%1B[31m,"
                    "hw.sensor_location=%FF%20label%7D}") == 20);
}

TEST_CASE("hwmon: which files are sensors") {
    sources::SensorFile file;
    REQUIRE(sources::parse_sensor_file("temp12_input", file));
    CHECK(file.kind == sources::SensorKind::temperature);
    CHECK(file.number == 12);
    REQUIRE(sources::parse_sensor_file("in0_input", file));
    CHECK(file.kind == sources::SensorKind::voltage);
    REQUIRE(sources::parse_sensor_file("power1_average", file));
    CHECK(file.average);
    for (const char* other : {"temp1_label", "temp1_crit", "temp_input", "temp1", "temp 1_input", "temp1x_input",
                              "pwm1", "fan1_average", "curr1_input", "in99999_input", "_input", "",
                              "temp99999999999999999999_input", "intrusion0_alarm", "power1_average_interval"}) {
        CAPTURE(other);
        CHECK(!sources::parse_sensor_file(other, file));
    }
}

TEST_CASE("hwmon: sensors with one label are told apart, also without the sensor in the id") {
    Tree tree;
    for (const char* sensor : {"temp1", "temp2"}) {
        tree.write(std::string("sys/chip/") + sensor + "_input", "20000\n");
        tree.write(std::string("sys/chip/") + sensor + "_label", "edge\n");
    }
    sources::HwmonChip chip(system_io(), tree.roots().sys + "/chip", {"card", "", "gpu", false});
    Memory memory;
    sources::PollReport report;
    chip.poll(memory, report);
    CHECK(memory.names == std::set<std::string>{"hw.temperature{hw.id=card,hw.sensor_location=edge}",
                                                "hw.temperature{hw.id=card,hw.sensor_location=temp2}"});
}

}  // namespace argus::test
