#include <doctest/doctest.h>

#include "../allocations.hpp"
#include "sources/storage.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

std::unique_ptr<sources::Source> open_storage(const Tree& tree, const Io& io = system_io()) {
    auto source = sources::storage_source.open(tree.roots(), io);
    REQUIRE(source.ok());
    return std::move(*source);
}

std::string disks(const std::string& array, const char* state) {
    return "system.md.disks{system.device=" + array + ",system.md.disk.state=" + state + "}";
}
std::string of(const std::string& name, const std::string& device) {
    return "system." + name + "{system.device=" + device + "}";
}

}  // namespace

TEST_CASE("storage: an array says who is in sync, failed, spare and missing") {
    Tree tree("storage");
    Memory memory;
    CHECK(open_storage(tree)->poll(0, memory).value().malformed == 0);
    const struct {
        const char* array;
        double active, failed, spare, down, degraded, up;
    } expected[] = {
        {"md0", 1, 1, 0, 1, 1, 1},
        {"md1", 2, 0, 0, 0, 0, 1},
        {"md2", 4, 0, 1, 0, 0, 1},
        {"md3", 0, 0, 2, 0, 0, 0},
        {"md126", 2, 0, 0, 0, 0, 1},
        {"md4", 0, 0, 0, 0, 0, 0},
    };
    for (const auto& row : expected) {
        CAPTURE(row.array);
        CHECK(memory.at(disks(row.array, "active")) == row.active);
        CHECK(memory.at(disks(row.array, "failed")) == row.failed);
        CHECK(memory.at(disks(row.array, "spare")) == row.spare);
        CHECK(memory.at(disks(row.array, "down")) == row.down);
        CHECK(memory.at(of("md.degraded", row.array)) == row.degraded);
        CHECK(memory.at(of("md.up", row.array)) == row.up);
    }
    CHECK(!memory.has(of("md.up", "md127")));  // a container of external metadata never runs
}

TEST_CASE("storage: progress is there while an array synchronises, and not while it waits to") {
    Tree tree("storage");
    Memory memory;
    auto source = open_storage(tree);
    (void)source->poll(0, memory);
    const std::string recovery = "system.md.sync.progress{system.device=md0,system.md.sync.action=recovery}";
    CHECK(memory.at(recovery) == 37043392.0 / 292945152.0);
    CHECK(memory.at("system.md.sync.progress{system.device=md126,system.md.sync.action=check}") > 0.999);
    CHECK(!memory.has("system.md.sync.progress{system.device=md2,system.md.sync.action=resync}"));
    tree.replace("proc/mdstat", "recovery", "resync");
    (void)source->poll(1, memory);
    CHECK(!memory.has(recovery));
    CHECK(memory.has("system.md.sync.progress{system.device=md0,system.md.sync.action=resync}"));
    tree.replace("proc/mdstat", "resync = 12.6%", "resync=PENDING");
    (void)source->poll(2, memory);
    CHECK(!memory.has("system.md.sync.progress{system.device=md0,system.md.sync.action=resync}"));
    CHECK(memory.at(disks("md0", "active")) == 1);
}

TEST_CASE("storage: a table cut anywhere yields no count the whole table does not hold, and closes nothing") {
    const std::string text = slurp(kFixtures / "storage/proc/mdstat");
    std::vector<sources::MdArray> whole;
    CHECK(sources::parse_mdstat(text, whole).complete);
    REQUIRE(whole.size() == 7);
    for (std::size_t size = 0; size < text.size(); ++size) {
        std::vector<sources::MdArray> cut;
        const std::string part = text.substr(0, size);
        const auto report = sources::parse_mdstat(part, cut);
        CHECK(!report.complete);
        REQUIRE(cut.size() < whole.size());
        for (std::size_t i = 0; i < cut.size(); ++i) {
            CHECK(cut[i].name == whole[i].name);
            CHECK(cut[i].active == whole[i].active);
            CHECK(cut[i].down == whole[i].down);
            CHECK(cut[i].sync_progress == whole[i].sync_progress);
            CHECK(cut[i].container == whole[i].container);
        }
    }
    Tree tree("storage");
    Memory memory;
    auto source = open_storage(tree);
    (void)source->poll(0, memory);
    tree.write("proc/mdstat", text.substr(0, text.size() / 2));
    CHECK(source->poll(1, memory).value().malformed == 1);
    CHECK(memory.has(of("md.up", "md4")));
    tree.write("proc/mdstat", "Personalities : \nunused devices: <none>\n");
    (void)source->poll(2, memory);
    CHECK(!memory.has(of("md.up", "md4")));
    CHECK(!memory.has(of("md.up", "md0")));
}

TEST_CASE("storage: a zram has sizes once it has been given one") {
    Tree tree("storage");
    Memory memory;
    (void)open_storage(tree)->poll(0, memory);
    CHECK(memory.at(of("zram.original", "zram0")) == 104857600);
    CHECK(memory.at(of("zram.compressed", "zram0")) == 31457280);
    CHECK(memory.at(of("zram.memory", "zram0")) == 33554432);
    CHECK(!memory.has(of("zram.original", "zram1")));
}

TEST_CASE("storage: devices that stopped running, their errors, and those ext4 found in itself") {
    Tree tree("storage");
    Memory memory;
    auto source = open_storage(tree);
    (void)source->poll(0, memory);
    CHECK(memory.at(of("disk.online", "sda")) == 1);
    CHECK(memory.at(of("disk.online", "sdb")) == 0);
    CHECK(memory.at(of("disk.online", "nvme0n1")) == 1);
    CHECK(!memory.has(of("disk.online", "dm-0")));
    CHECK(memory.at(of("disk.errors", "sda")) == 31);
    CHECK(memory.at(of("disk.errors", "sdb")) == 0);
    CHECK(memory.at(of("filesystem.errors", "dm-0")) == 3);
    CHECK(!memory.has(of("filesystem.errors", "features")));
    tree.write("sys/block/nvme0n1/device/state", "dead\n");
    (void)source->poll(1, memory);
    CHECK(memory.at(of("disk.online", "nvme0n1")) == 0);
}

TEST_CASE("storage: a device that vanishes closes its series, one that appears opens them") {
    Tree tree("storage");
    Memory memory;
    auto source = open_storage(tree);
    (void)source->poll(0, memory);
    tree.remove("sys/block/sda");
    tree.write("sys/block/sdz/device/state", "blocked\n");
    tree.remove("sys/fs");
    const auto report = source->poll(1, memory);
    CHECK(report.value().malformed == 0);
    CHECK(!memory.has(of("disk.online", "sda")));
    CHECK(!memory.has(of("disk.errors", "sda")));
    CHECK(!memory.has(of("filesystem.errors", "dm-0")));
    CHECK(memory.at(of("disk.online", "sdz")) == 0);
    CHECK(memory.at(of("disk.online", "sdb")) == 0);
}

TEST_CASE("storage: a machine without any of it has no values and no fault; without the folder it is unavailable") {
    Tree tree;
    fs::create_directories(tree.path("sys/block/vda"));
    Memory memory;
    const auto report = open_storage(tree)->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().emitted == 0);
    CHECK(report.value().malformed == 0);
    tree.remove("sys");
    const auto absent = sources::storage_source.open(tree.roots(), system_io());
    REQUIRE(!absent.ok());
    CHECK(absent.error().code == Errc::unavailable);
    CHECK(std::string(absent.error().what) == "sys/block");
    tree.write("proc/mdstat", "Personalities : \nunused devices: <none>\n");
    CHECK(sources::storage_source.open(tree.roots(), system_io()).ok());
}

TEST_CASE("storage: hostile files are skipped and counted") {
    Tree tree("hostile");
    Memory memory;
    const auto report = open_storage(tree)->poll(0, memory);
    REQUIRE(report.ok());
    // mdstat: two of one in sync, five of none done, no colon, an unknown state, nine of three done, md0 twice;
    // zram with a minus, an escape for a state, errors without 0x, ext4 errors below zero
    CHECK(report.value().malformed == 10);
    CHECK(memory.at(disks("md0", "active")) == 1);
    CHECK(memory.at(disks("md0", "failed")) == 1);
    CHECK(memory.at(disks("%1B[2J", "active")) == 2);
    CHECK(memory.names.size() == 12);
}

TEST_CASE("storage: hexadecimal numbers and states are whole lines") {
    CHECK(sources::parse_hexadecimal_line("0x0\n") == 0U);
    CHECK(sources::parse_hexadecimal_line("0xffffffffffffffff\n") == 18446744073709551615ULL);
    for (const char* wrong : {"", "0x\n", "0x1", "1\n", "0x1 \n", "0xG\n", "0x1ffffffffffffffff\n"}) {
        CHECK_MESSAGE(!sources::parse_hexadecimal_line(wrong), wrong);
    }
    CHECK(sources::parse_device_state("running\n") == 1.0);
    CHECK(sources::parse_device_state("transport-offline\n") == 0.0);
    for (const char* wrong : {"", "\n", "running", "live live\n", "LIVE\n"}) {
        CHECK_MESSAGE(!sources::parse_device_state(wrong), wrong);
    }
}

TEST_CASE("storage: a steady poll allocates nothing and leaks no descriptor") {
    Tree tree("storage");
    {
        const WithFaults counted({});
        Memory memory;
        auto source = open_storage(tree, kFaultyIo);
        (void)source->poll(0, memory);
        const std::uint64_t before = allocations();
        const auto report = source->poll(1, memory);
        const std::uint64_t after = allocations();
        CHECK(after == before);
        CHECK(report.value().emitted == memory.names.size());
        source.reset();
        CHECK(faults.opened == 0);
    }
}

TEST_CASE("storage: short reads, interruptions and stale descriptors change nothing") {
    Tree tree("storage");
    Memory calm;
    (void)open_storage(tree)->poll(0, calm);
    for (const std::size_t largest : {1U, 7U, 64U}) {
        const WithFaults injected({.largest_read = largest, .interrupt_every = 3});
        Memory rough;
        const auto report = open_storage(tree, kFaultyIo)->poll(0, rough);
        REQUIRE(report.ok());
        CHECK(report.value().malformed == 0);
        CHECK(rough.names == calm.names);
        for (const std::string& name : calm.names) CHECK_MESSAGE(rough.at(name) == calm.at(name), name);
    }
    const WithFaults injected({});
    Memory memory;
    auto source = open_storage(tree, kFaultyIo);
    (void)source->poll(0, memory);
    faults.pread_errno = ENODEV;
    CHECK(source->poll(1, memory).value().emitted == memory.names.size());
    faults.pread_errno = EIO;
    CHECK(source->poll(2, memory).error().code == Errc::io);
    CHECK(source->poll(3, memory).ok());
    CHECK(memory.closed == 0);
}

}  // namespace argus::test
