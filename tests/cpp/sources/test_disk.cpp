#include <doctest/doctest.h>

#include "sources/disk.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::string io_of(const std::string& device, const char* direction = "read") {
    return std::string("system.disk.io{disk.io.direction=") + direction + ",system.device=" + device + "}";
}
std::string of(const std::string& name, const std::string& device) {
    return "system.disk." + name + "{system.device=" + device + "}";
}

std::unique_ptr<sources::Source> open_disk(const Tree& tree, double partitions = 0) {
    auto source = sources::disk_source.open(tree.roots(), system_io(), {{partitions}, {}});
    REQUIRE(source.ok());
    return std::move(*source);
}

}  // namespace

TEST_CASE("disk: lines of 14, 18, 20 and more columns have 11, 15 and 17 fields") {
    const std::string eleven = "   8       0 sda 1 2 3 4 5 6 7 8 9 10 11";
    const std::pair<std::string, std::size_t> lines[] = {
        {eleven, 11},
        {eleven + " 12 13 14 15", 15},
        {eleven + " 12 13 14 15 16 17", 17},
        {eleven + " 12 13 14 15 16 17 18 later", 17},
    };
    for (const auto& [line, fields] : lines) {
        const auto parsed = sources::parse_disk(line);
        REQUIRE(parsed.ok());
        CHECK(parsed.value().name == "sda");
        CHECK(parsed.value().fields == fields);
        for (std::size_t i = 0; i < sources::kDiskFields; ++i) {
            CHECK(parsed.value().values[i] == (i < fields ? i + 1 : 0));
        }
    }
    for (const char* wrong : {" 12", " 12 13 14", " 12 13 14 15 16", " x", " -1"}) {
        CHECK(!sources::parse_disk(eleven + wrong).ok());
    }
    CHECK(!sources::parse_disk("   8       1 sda1 1 2 3 4").ok());  // a partition of Linux 2.6.24 and before
}

TEST_CASE("disk: an older kernel has no discards and no flushes, which is not 0") {
    Tree tree;
    tree.write("proc/diskstats", "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n8 16 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n");
    Memory memory;
    const auto report = open_disk(tree)->poll(0, memory);
    CHECK(report.value().malformed == 0);
    CHECK(report.value().emitted == 11 + 15);
    CHECK(!memory.has(of("discard.io", "sda")));
    CHECK(memory.at(of("discard.io", "sdb")) == 14 * 512);
    CHECK(!memory.has(of("flush.operations", "sdb")));
    CHECK(!memory.has(of("limit", "sda")));  // no sysfs: unknown
}

TEST_CASE("disk: sectors are 512 bytes, milliseconds become seconds; unused loops and RAM disks are left out") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_disk(tree)->poll(0, memory);
    CHECK(report.value().malformed == 0);
    CHECK(report.value().emitted == 18);
    CHECK(memory.names.size() == 18);
    CHECK(memory.at(io_of("vda")) == 23005266.0 * 512);
    CHECK(memory.at(io_of("vda", "write")) == 52425872.0 * 512);
    CHECK(memory.at("system.disk.operations{disk.io.direction=write,system.device=vda}") == 563184);
    CHECK(memory.at("system.disk.merged{disk.io.direction=read,system.device=vda}") == 64916);
    CHECK(memory.at("system.disk.operation_time{disk.io.direction=read,system.device=vda}") == 1053.708);
    CHECK(memory.at(of("io_time", "vda")) == 317.720);
    CHECK(memory.at(of("weighted_io_time", "vda")) == 1599.459);
    CHECK(memory.at(of("inflight", "vda")) == 0);
    CHECK(memory.at(of("discard.operations", "vda")) == 458399);
    CHECK(memory.at(of("discard.io", "vda")) == 42471456.0 * 512);
    CHECK(memory.at(of("flush.operation_time", "vda")) == 3.125);
    CHECK(memory.at(of("limit", "vda")) == 536870912.0 * 512);
}

TEST_CASE("disk: whole disks, mapped ones and md are followed, partitions only when asked for") {
    Tree tree("storage");
    Memory whole;
    CHECK(open_disk(tree)->poll(0, whole).value().malformed == 0);
    for (const char* name : {"sda", "sdb", "nvme0n1", "cciss/c0d0", "dm-0", "md0", "loop0"}) {
        CAPTURE(name);
        CHECK(whole.has(io_of(name)));
        CHECK(whole.has(of("limit", name)));
    }
    for (const char* name : {"sda1", "sda2", "nvme0n1p1", "loop1", "sr0"}) CHECK_MESSAGE(!whole.has(io_of(name)), name);
    Memory all;
    (void)open_disk(tree, 1)->poll(0, all);
    for (const char* name : {"sda1", "sda2", "nvme0n1p1"}) CHECK_MESSAGE(all.has(io_of(name)), name);
    CHECK(!all.has(io_of("loop1")));
    CHECK(all.at(of("limit", "sda2")) == 4192256.0 * 512);
}

TEST_CASE("disk: without sysfs a partition is told by its name") {
    for (const char* name : {"sda1", "vdb12", "xvda1", "hdc3", "sdaa2", "nvme0n1p1", "nvme12n3p10", "mmcblk0p2"}) {
        CHECK_MESSAGE(sources::named_as_partition(name), name);
    }
    for (const char* name : {"sda", "nvme0n1", "mmcblk0", "mmcblk0boot0", "dm-0", "md127", "zram0", "sd1", "p1", ""}) {
        CHECK_MESSAGE(!sources::named_as_partition(name), name);
    }
    Tree tree("storage");
    tree.remove("sys/class");
    Memory memory;
    (void)open_disk(tree)->poll(0, memory);
    CHECK(memory.has(io_of("sda")));
    CHECK(!memory.has(io_of("sda1")));
    CHECK(!memory.has(of("limit", "sda")));
}

TEST_CASE("disk: a count in flight below zero is missing, not four thousand million") {
    Tree tree("storage");
    Memory memory;
    (void)open_disk(tree)->poll(0, memory);
    CHECK(memory.at(of("inflight", "sda")) == 2);
    CHECK(!memory.has(of("inflight", "nvme0n1")));  // printed as 4294967295
}

TEST_CASE("disk: one that vanishes closes its series, one that appears or is used first opens them") {
    Tree tree("storage");
    Memory memory;
    auto source = open_disk(tree);
    (void)source->poll(0, memory);
    const std::size_t before = memory.names.size();
    tree.replace("proc/diskstats", "sdb 12", "sdc 12");
    (void)source->poll(1, memory);
    CHECK(memory.closed == 18);
    CHECK(!memory.has(io_of("sdb")));
    CHECK(!memory.has(of("limit", "sdb")));
    CHECK(memory.at(io_of("sdc")) == 96 * 512);
    CHECK(memory.names.size() == before - 1);  // sysfs has no sdc
    tree.replace("proc/diskstats", "loop1 0 0 0", "loop1 3 0 24");
    (void)source->poll(2, memory);
    CHECK(memory.at(io_of("loop1")) == 24 * 512);
    tree.replace("proc/diskstats", "loop1 3 0 24", "loop1 0 0 0");
    (void)source->poll(3, memory);
    CHECK(memory.at(io_of("loop1")) == 0);  // followed to its end
}

TEST_CASE("disk: another device under the same name gives its counters raw, and its own size") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_disk(tree);
    (void)source->poll(0, memory);
    tree.write("proc/diskstats", " 254 0 vda 1 0 8 1 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
    tree.remove("sys/class/block/vda");
    tree.write("sys/class/block/vda/size", "2048\n");
    (void)source->poll(1, memory);
    CHECK(memory.at(io_of("vda")) == 8 * 512);
    CHECK(memory.closed == 0);
}

TEST_CASE("disk: a disk that is resized shows its new size; a size cut short is none") {
    Tree tree;
    tree.write("proc/diskstats", "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n");
    tree.write("sys/class/block/sda/size", "1000\n");
    Memory memory;
    auto source = open_disk(tree);
    (void)source->poll(0, memory);
    CHECK(memory.at(of("limit", "sda")) == 512000);
    tree.write("sys/class/block/sda/size", "2000\n");
    (void)source->poll(1, memory);
    (void)source->poll(2, memory);
    CHECK(memory.at(of("limit", "sda")) == 1024000);
    tree.write("sys/class/block/sda/size", "20");
    (void)source->poll(3, memory);
    memory.forget();
    (void)source->poll(4, memory);
    CHECK(std::isnan(memory.at(of("limit", "sda"))));
}

TEST_CASE("disk: hostile lines are skipped and counted, names are escaped") {
    Tree tree("hostile");
    Memory memory;
    const auto report = open_disk(tree)->poll(0, memory);
    REQUIRE(report.ok());
    // sda twice, 4 and 12 counters, a minus, 20 digits, a letter for the major, no name, 11x, 70 bytes of name, no line
    CHECK(report.value().malformed == 10);
    CHECK(report.value().emitted == 17 + 11 + 17);
    CHECK(memory.at(io_of("sda")) == 3 * 512);
    CHECK(memory.at("system.disk.operations{disk.io.direction=read,system.device=sdf}") == 18446744073709551615.0);
    CHECK(memory.at(io_of("s%2Cd%3Dj%25[2J")) == 3 * 512);
}

TEST_CASE("disk: a table cut short or empty closes nothing; a machine without disks has none") {
    Tree tree("6.18");
    Memory memory;
    auto source = open_disk(tree);
    (void)source->poll(0, memory);
    const std::string text = slurp(kFixtures / "6.18/proc/diskstats");
    tree.write("proc/diskstats", text.substr(0, text.find("vda") + 30));
    auto report = source->poll(1, memory);
    CHECK(report.value().malformed == 1);
    tree.write("proc/diskstats", "");
    report = source->poll(2, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::truncated);
    CHECK(memory.closed == 0);
    Memory none;
    report = open_disk(tree)->poll(0, none);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 0);
}

TEST_CASE("disk: no more than 256 are followed, those beyond are counted") {
    Tree tree;
    std::string text;
    for (int i = 0; i < 300; ++i) {
        const std::string number = std::to_string(i);
        text += "253 " + number + " dm-" + number + " 1 2 3 4 5 6 7 8 9 10 11\n";
    }
    tree.write("proc/diskstats", text);
    Memory memory;
    auto source = open_disk(tree);
    CHECK(source->poll(0, memory).value().malformed == 44);
    CHECK(memory.names.size() == 256 * 11);
    const std::size_t first = text.find('\n') + 1;
    tree.write("proc/diskstats", text.substr(first));
    CHECK(source->poll(1, memory).value().malformed == 44);  // the place that fell free is taken in the next poll
    CHECK(source->poll(2, memory).value().malformed == 43);
    CHECK(memory.has(io_of("dm-256")));
}

}  // namespace argus::test
