#include "sources/interrupts.hpp"

#include <doctest/doctest.h>

#include <sstream>

#include "../allocations.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_interrupts(const Tree& tree) {
    auto source = sources::interrupts_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string irq(const std::string& name, const std::string& device = "") {
    return "system.interrupts{" + (device.empty() ? "" : "interrupt.device=" + device + ",") + "interrupt.name=" +
           name + "}";
}

std::string received(int cpu) {
    return "system.cpu.softirqs{cpu.logical_number=" + std::to_string(cpu) + ",softirq.type=net_rx}";
}

// A table of `lines` numbered lines under `cpus` columns, each cell 1.
std::string table(int lines, int cpus, int first_cpu = 0) {
    std::ostringstream out;
    out << "    ";
    for (int cpu = 0; cpu < cpus; ++cpu) out << " CPU" << first_cpu + cpu;
    out << '\n';
    for (int line = 0; line < lines; ++line) {
        out << line << ':';
        for (int cpu = 0; cpu < cpus; ++cpu) out << "          1";
        out << "   IO-APIC   " << line << "-edge      dev" << line << '\n';
    }
    out << "NMI:";
    for (int cpu = 0; cpu < cpus; ++cpu) out << "          2";
    out << "   Non-maskable interrupts\nERR:          3\n";
    return out.str();
}

}  // namespace

TEST_CASE("interrupts: the sums of a real table agree with another reading of it") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_interrupts(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    std::istringstream text(slurp(kFixtures / "6.18/proc/interrupts"));
    std::string line;
    std::getline(text, line);
    std::size_t lines = 0;
    for (; std::getline(text, line); ++lines) {
        std::istringstream fields(line);
        std::string name;
        double sum = 0;
        double cell = 0;
        fields >> name;
        name.pop_back();
        for (int cpu = 0; cpu < 2 && fields >> cell; ++cpu) sum += cell;
        const bool numbered = name[0] >= '0' && name[0] <= '9';
        const std::string device = numbered ? line.substr(line.rfind(' ') + 1) : "";
        CAPTURE(line);
        CHECK(memory.at(irq(name, device)) == sum);
    }
    CHECK(memory.names.size() == lines + 2);  // and NET_RX of two processors
    CHECK(memory.at(received(0)) + memory.at(received(1)) > 0);
}

TEST_CASE("interrupts: negative, short, overflowing, nameless and repeated lines are counted, words are not") {
    Tree tree("hostile");
    Memory memory;
    const auto report = open_interrupts(tree)->poll(0, memory);
    REQUIRE(report.ok());
    // -5; short; over; the second 0; noname; no colon; a name of 17 bytes; LOC with one column; MIS -1.
    CHECK(report.value().malformed == 9);
    CHECK(memory.at(irq("0", "timer")) == 30);
    CHECK(memory.at(irq("4", "full")) == 18446744073709551615.0);  // held there, not wrapped
    CHECK(memory.at(irq("5", "a%2C%20b%3Dc%2Cd")) == 3);
    CHECK(memory.at(irq("6")) == 7);  // a line nobody has taken
    CHECK(memory.at(irq("NMI")) == 3);
    CHECK(memory.at(irq("ERR")) == 9);
    CHECK(memory.at(received(0)) == 11);
    CHECK(memory.at(received(1)) == 22);
    CHECK(!memory.has(received(2)));  // possible, but not online
    CHECK(memory.names.size() == 8);
}

TEST_CASE("interrupts: 1,024 processors and more lines than are followed: bounded, and no allocation after the first") {
    Tree tree;
    tree.write("proc/interrupts", table(1100, 1024));
    Memory memory;
    auto source = open_interrupts(tree);
    auto report = source->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(memory.names.size() == 1024 + 2);
    CHECK(memory.at(irq("7", "dev7")) == 1024);
    CHECK(memory.at(irq("NMI")) == 2048);
    CHECK(memory.at(irq("ERR")) == 3);
    const std::uint64_t before = allocations();
    report = source->poll(1, memory);
    CHECK(allocations() == before);
    CHECK(report.value().emitted == 1024 + 2);
}

TEST_CASE("interrupts: a table beyond the cap is refused, not read") {
    Tree tree;
    Memory memory;
    tree.write("proc/interrupts", std::string((std::size_t{16} << 20) + 1, ' '));
    const auto report = open_interrupts(tree)->poll(0, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::too_large);
}

TEST_CASE("interrupts: a processor taken offline takes its column; sums fall and nothing breaks") {
    Tree tree;
    Memory memory;
    tree.write("proc/softirqs", " CPU0 CPU1 CPU2 CPU3\nNET_RX: 5 6 7 8\n");
    tree.write("proc/interrupts", table(3, 4));
    auto source = open_interrupts(tree);
    REQUIRE(source->poll(0, memory).ok());
    CHECK(memory.at(irq("1", "dev1")) == 4);
    CHECK(memory.has(received(3)));
    tree.write("proc/interrupts", table(3, 3));
    const auto report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(memory.at(irq("1", "dev1")) == 3);
    CHECK(!memory.has(received(3)));
    CHECK(memory.closed == 1);
}

TEST_CASE("interrupts: a line given to another device, or gone, closes its series") {
    Tree tree;
    Memory memory;
    tree.write("proc/interrupts", table(3, 2));
    auto source = open_interrupts(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.replace("proc/interrupts", "dev1", "eth9");
    REQUIRE(source->poll(1, memory).ok());
    CHECK(memory.closed == 1);
    CHECK(!memory.has(irq("1", "dev1")));
    CHECK(memory.at(irq("1", "eth9")) == 2);
    tree.write("proc/interrupts", table(1, 2));
    REQUIRE(source->poll(2, memory).ok());
    CHECK(memory.closed == 3);
    CHECK(memory.has(irq("0", "dev0")));
    tree.write("proc/interrupts", table(3, 2));
    REQUIRE(source->poll(3, memory).ok());
    CHECK(memory.has(irq("2", "dev2")));
}

TEST_CASE("interrupts: a table cut short closes nothing") {
    Tree tree;
    Memory memory;
    tree.write("proc/interrupts", table(3, 2));
    auto source = open_interrupts(tree);
    REQUIRE(source->poll(0, memory).ok());
    tree.write("proc/interrupts", table(3, 2).substr(0, 60));
    const auto report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 1);
    CHECK(memory.closed == 0);
}

TEST_CASE("interrupts: a title line of anything but processors fails the poll") {
    Tree tree;
    std::vector<std::int32_t> cpus;
    CHECK(sources::parse_cpu_titles("   CPU0   CPU17 ", cpus));
    CHECK(cpus == std::vector<std::int32_t>{0, 17});
    for (const char* wrong : {"", "  ", "CPU", "CPU-1", "CPU0 XPU1", "CPU8192", "CPU99999999999999999999", "0 1"}) {
        CAPTURE(wrong);
        CHECK(!sources::parse_cpu_titles(wrong, cpus));
    }
    tree.write("proc/interrupts", "no title\n 1: 2\n");
    Memory memory;
    const auto report = open_interrupts(tree)->poll(0, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::malformed);
}

TEST_CASE("interrupts: the device is what stands after two blanks, on x86 and Arm, level or edge") {
    const auto device = [](const char* line, std::size_t cpus) {
        sources::IrqLine parsed;
        CHECK(sources::parse_irq_line(line, cpus, parsed));
        return std::string(parsed.device);
    };
    CHECK(device(" 24:  1  0  IO-APIC   5-edge      ACPI:Ged", 2) == "ACPI:Ged");
    CHECK(device(" 28:  0  0 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config", 2) == "virtio0-config");
    CHECK(device(" 16:  1  0  IO-APIC  16-fasteoi   ehci_hcd:usb1, i801_smbus", 2) == "ehci_hcd:usb1, i801_smbus");
    CHECK(device(" 13:  5  6  GICv3  27 Level     arch_timer", 2) == "arch_timer");
    CHECK(device(" 13:  5  6  GICv3  27 Level     ", 2).empty());
    CHECK(device(" 13:  5  6", 2).empty());
    CHECK(device("LOC:  5  6   Local timer interrupts", 2).empty());
    const std::string longer = " 1: 5 6 chip  " + std::string(300, 'd');
    CHECK(device(longer.c_str(), 2) == std::string(sources::kIrqDeviceBytes, 'd'));
}

}  // namespace argus::test
