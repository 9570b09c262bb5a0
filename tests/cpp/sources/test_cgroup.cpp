#include <doctest/doctest.h>
#include <linux/ioctl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "../allocations.hpp"
#include "sources/cgroup.hpp"
#include "sources/cgroup_index.hpp"
#include "sources/cgroup_tree.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

const std::string kDocker = "3f1c2a7be4d0958641f2c3b7a9e8d0615c4b3a2918f7e6d5c4b3a29180f7e6d5";
const std::string kCri = "b7e6c1d2f3a4958677889900aabbccddeeff00112233445566778899aabbccdd";
const std::string kPostgres = "cgroup.path=/system.slice/postgresql@14-main.service";
const std::string kPostgresUnit = "systemd.unit=postgresql@14-main.service}";
const std::string kUnified = "sys/fs/cgroup";

using Settings = sources::SourceSettings;

std::unique_ptr<sources::Source> open_at(const sources::Roots& roots, const Io& io = system_io(), Settings with = {}) {
    auto source = sources::cgroup_source.open(roots, io, std::move(with));
    REQUIRE(source.ok());
    return std::move(*source);
}

// The value of a series of PostgreSQL's group, by name and the attributes between path and unit.
double postgres(const Memory& memory, const std::string& name, const std::string& own = "") {
    return memory.at(name + "{" + kPostgres + "," + (own.empty() ? "" : own + ",") + kPostgresUnit);
}

sources::CgroupValues parsed(const std::string& file, const std::string& text, std::uint32_t controllers) {
    sources::CgroupValues out;
    for (const auto& known : sources::cgroup_files) {
        if (known.name == file && known.controllers == controllers) known.parse(text, out);
    }
    return out;
}

std::size_t count_of(const Memory& memory, const std::string& part) {
    const auto holds = [&](const std::string& name) { return name.find(part) != std::string::npos; };
    return static_cast<std::size_t>(std::count_if(memory.names.begin(), memory.names.end(), holds));
}

double left_out(const Memory& memory) { return memory.at("system.cgroup.count{cgroup.state=left_out}"); }
double followed(const Memory& memory) { return memory.at("system.cgroup.count{cgroup.state=followed}"); }

// A group of version 2 with a cpu.stat, and the nodes above it.
void write_group(const Tree& tree, const std::string& path, int user_us = 1000000) {
    tree.write(kUnified + path + "/cgroup.events", "populated 1\nfrozen 0\n");
    tree.write(kUnified + path + "/cpu.stat", "user_usec " + std::to_string(user_us) + "\nsystem_usec 0\n");
}

std::string user_time(const std::string& path) { return "cgroup.cpu.time{cgroup.path=" + path + ",cpu.mode=user}"; }

}  // namespace

TEST_CASE("cgroup: every number of a version 2 group, in base units") {
    Tree tree("cgroup-v2");
    Memory memory;
    const auto report = open_at(tree.roots())->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    CHECK(postgres(memory, "cgroup.cpu.time", "cpu.mode=user") == doctest::Approx(3.000001));
    CHECK(postgres(memory, "cgroup.cpu.time", "cpu.mode=system") == doctest::Approx(2.0));
    CHECK(postgres(memory, "cgroup.cpu.periods") == 121);
    CHECK(postgres(memory, "cgroup.cpu.throttled.periods") == 7);
    CHECK(postgres(memory, "cgroup.cpu.throttled.time") == doctest::Approx(0.35));
    CHECK(postgres(memory, "cgroup.memory.usage") == 2097153);
    CHECK(postgres(memory, "cgroup.memory.peak") == 3145728);
    CHECK(postgres(memory, "cgroup.memory.swap") == 45056);
    CHECK(postgres(memory, "cgroup.memory.limit") == 4294967296.0);
    CHECK(postgres(memory, "cgroup.memory.high") == 4026531840.0);
    CHECK(postgres(memory, "cgroup.memory.working_set") == 2097153 - 400000);
    CHECK(memory.at("cgroup.memory.stat{cgroup.memory.type=anon," + kPostgres + "," + kPostgresUnit) == 1310720);
    CHECK(memory.at("cgroup.memory.stat{cgroup.memory.type=slab," + kPostgres + "," + kPostgresUnit) == 160000);
    CHECK(postgres(memory, "cgroup.memory.refaults") == 43);
    CHECK(memory.at("cgroup.memory.events{cgroup.memory.event=oom_kill," + kPostgres + "," + kPostgresUnit) == 1);
    CHECK(postgres(memory, "cgroup.disk.io", "disk.io.direction=read") == 1459200 + 90430464);
    CHECK(postgres(memory, "cgroup.disk.io", "disk.io.direction=discard") == 4096 + 50331648);
    CHECK(postgres(memory, "cgroup.disk.operations", "disk.io.direction=write") == 353 + 1252);
    CHECK(postgres(memory, "cgroup.pids.current") == 14);
    CHECK(postgres(memory, "cgroup.pids.max") == 512);
    CHECK(postgres(memory, "cgroup.pressure.stall_time", "cgroup.pressure.kind=full,cgroup.pressure.resource=irq") ==
          doctest::Approx(0.077));
    CHECK(postgres(memory, "cgroup.pressure.stall_time", "cgroup.pressure.kind=some,cgroup.pressure.resource=io") == 3);
    CHECK(memory.at("cgroup.paging.faults{" + kPostgres + ",system.paging.type=minor," + kPostgresUnit) == 89975);
    CHECK(postgres(memory, "cgroup.populated") == 1);
    CHECK(postgres(memory, "cgroup.frozen") == 0);
    CHECK(memory.at("cgroup.frozen{cgroup.path=/user.slice,systemd.unit=user.slice}") == 1);
    CHECK(followed(memory) == 7);
    CHECK(left_out(memory) == 0);
}

TEST_CASE("cgroup: max is no number and the root is the machine: neither has a series") {
    Tree tree("cgroup-v2");
    Memory memory;
    (void)open_at(tree.roots())->poll(0, memory);
    const std::string slice = "{cgroup.path=/system.slice,systemd.unit=system.slice}";
    CHECK(memory.has("cgroup.memory.usage" + slice));
    CHECK(!memory.has("cgroup.memory.limit" + slice));
    CHECK(!memory.has("cgroup.memory.high" + slice));
    CHECK(count_of(memory, "cgroup.path=/,") == 0);
    CHECK(count_of(memory, "cgroup.path=/}") == 0);
}

TEST_CASE("cgroup: a pod's container has its id, pod and unit") {
    Tree tree("cgroup-v2");
    Memory memory;
    (void)open_at(tree.roots())->poll(0, memory);
    const std::string pod = "kubepods-burstable-pod0f6d2a1c_3b4e_4f5a_8c7d_9e0f1a2b3c4d.slice";
    const std::string unit = "cri-containerd-" + kCri + ".scope";
    CHECK(memory.at("cgroup.memory.limit{cgroup.path=/kubepods.slice/kubepods-burstable.slice/" + pod + "/" + unit +
                    ",container.id=" + kCri + ",k8s.pod.uid=0f6d2a1c-3b4e-4f5a-8c7d-9e0f1a2b3c4d,systemd.unit=" + unit +
                    "}") == 268435456);
    CHECK(count_of(memory, "container.id=" + kCri) > 30);
}

TEST_CASE("cgroup: the hybrid machine: version 1 controllers and version 2 pressure are one group by path") {
    Tree tree("6.18");
    Memory memory;
    const auto report = open_at(tree.roots())->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    const std::string unit = ",systemd.unit=agent.service}";
    const std::string agent = "{cgroup.path=/agent.service,";
    CHECK(memory.at("cgroup.cpu.time" + agent + "cpu.mode=user" + unit) == doctest::Approx(1.22));  // not 1.224539
    CHECK(memory.at("cgroup.cpu.throttled.time" + agent + unit.substr(1)) == doctest::Approx(2.960505564));
    CHECK(memory.at("cgroup.memory.limit" + agent + unit.substr(1)) == 67108864);
    CHECK(memory.at("cgroup.memory.usage" + agent + unit.substr(1)) == 28258304);
    CHECK(memory.at("cgroup.pids.max" + agent + unit.substr(1)) == 64);
    CHECK(memory.at("cgroup.frozen" + agent + unit.substr(1)) == 0);
    CHECK(memory.at("cgroup.pressure.stall_time" + agent + "cgroup.pressure.kind=some,cgroup.pressure.resource=cpu" +
                    unit) == doctest::Approx(2.906808));
    CHECK(memory.at("cgroup.disk.io" + agent + "disk.io.direction=read" + unit) == 0);
    CHECK(!memory.has("cgroup.disk.io" + agent + "disk.io.direction=discard" + unit));
    const std::string scope = "docker-" + kDocker + ".scope";
    const std::string docker = "{cgroup.path=/" + scope + ",container.id=" + kDocker + ",systemd.unit=" + scope + "}";
    CHECK(memory.at("cgroup.memory.usage" + docker) == 180224);
    CHECK(!memory.has("cgroup.memory.limit" + docker));  // 9223372036854771712 is no limit
    CHECK(!memory.has("cgroup.pids.max" + docker));
    CHECK(count_of(memory, kDocker) > 10);
    CHECK(followed(memory) == 2);
}

TEST_CASE("cgroup: version 2 that is mounted beside version 1 without controllers tells cpu time where that does not") {
    Tree tree("6.18");
    tree.replace("proc/self/mountinfo", "33 31 0:30 / /sys/fs/cgroup/cpuacct", "33 31 0:30 / /elsewhere");
    Memory memory;
    (void)open_at(tree.roots())->poll(0, memory);
    CHECK(memory.at("cgroup.cpu.time{cgroup.path=/agent.service,cpu.mode=user,systemd.unit=agent.service}") ==
          doctest::Approx(1.224539));
}

TEST_CASE("cgroup: version 1 alone, two controllers on one mount, seen from inside a container") {
    Tree tree;
    const std::string id(64, 'a');
    tree.write("proc/self/mountinfo",
               "40 30 0:33 /docker/" + id + " /sys/fs/cgroup/cpu,cpuacct ro shared:1 master:2 - cgroup cgroup " +
               "rw,cpu,cpuacct\n" +
               "41 30 0:34 /docker/" + id + " /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpuacct.stat", "user 250\nsystem 50\n");
    tree.write("sys/fs/cgroup/cpu,cpuacct/cpu.stat", "nr_periods 9\nnr_throttled 1\nthrottled_time 1500000000\n");
    tree.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n");
    Memory memory;
    const auto report = open_at(tree.roots())->poll(0, memory);
    REQUIRE(report.ok());
    const std::string own = "cgroup.path=/docker/" + id + ",container.id=" + id;
    CHECK(memory.at("cgroup.cpu.time{" + own + ",cpu.mode=user}") ==
          doctest::Approx(250.0 / static_cast<double>(sysconf(_SC_CLK_TCK))));
    CHECK(memory.at("cgroup.cpu.throttled.time{" + own + "}") == doctest::Approx(1.5));
    CHECK(memory.at("cgroup.memory.usage{" + own + "}") == 4096);
    CHECK(followed(memory) == 1);
}

TEST_CASE("cgroup: inside a cgroup namespace the root is the container's own and is followed") {
    Tree tree;
    tree.write("proc/self/mountinfo", "35 24 0:30 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    tree.write("sys/fs/cgroup/cgroup.events", "populated 1\nfrozen 0\n");
    tree.write("sys/fs/cgroup/memory.current", "8192\n");
    Memory memory;
    (void)open_at(tree.roots())->poll(0, memory);
    CHECK(memory.at("cgroup.memory.usage{cgroup.path=/}") == 8192);
}

TEST_CASE("cgroup: mount points with escapes, optional fields and other file systems") {
    sources::CgroupMount mount;
    REQUIRE(sources::parse_cgroup_mount(
        "36 35 98:0 /a\\040b /mnt\\134x\\011y rw master:1 shared:7 - cgroup2 none rw,nsdelegate", mount));
    CHECK(mount.root == "/a b");
    CHECK(mount.point == "/mnt\\x\ty");
    CHECK(mount.type == "cgroup2");
    CHECK(mount.super == "rw,nsdelegate");
    for (const char* bad : {"", "36", "36 35 98:0 / /mnt rw", "36 35 98:0 / /mnt rw - cgroup2",
                            "x 35 98:0 / / rw - a b c", "36 35 98:0 net:[1] /mnt rw - nsfs nsfs rw"}) {
        CAPTURE(bad);
        CHECK(!sources::parse_cgroup_mount(bad, mount));
    }
    REQUIRE(sources::parse_cgroup_mount("36 35 98:0 / /tail\\04 rw - cgroup2 none rw", mount));
    CHECK(mount.point == "/tail\\04");

    Tree tree;
    tree.write("proc/self/mountinfo", "35 24 0:30 / /sys/fs/my\\040groups rw - cgroup2 none rw\n");
    tree.write("sys/fs/my groups/a b/cpu.stat", "user_usec 2000000\nsystem_usec 0\n");
    Memory memory;
    (void)open_at(tree.roots())->poll(0, memory);
    CHECK(memory.at("cgroup.cpu.time{cgroup.path=/a%20b,cpu.mode=user}") == 2);
}

TEST_CASE("cgroup: a hierarchy mounted twice is read once, through its widest view") {
    Tree tree;
    tree.write("proc/self/mountinfo",
               "35 24 0:30 /docker/inner /sys/fs/cgroup/own rw - cgroup2 none rw\n"
               "36 24 0:30 / /sys/fs/cgroup/all rw - cgroup2 none rw\n");
    tree.write("sys/fs/cgroup/own/cpu.stat", "user_usec 1\nsystem_usec 1\n");
    tree.write("sys/fs/cgroup/all/docker/inner/cpu.stat", "user_usec 1\nsystem_usec 1\n");
    Memory memory;
    (void)open_at(tree.roots())->poll(0, memory);
    CHECK(count_of(memory, "cgroup.cpu.time") == 2);
    CHECK(memory.has("cgroup.cpu.time{cgroup.path=/docker/inner,cpu.mode=user}"));
}

TEST_CASE("cgroup: a root given by hand is recognised by what is in it") {
    Tree v2("cgroup-v2");
    Memory memory;
    (void)open_at({"/nowhere", "/nowhere", v2.roots().sys + "/fs/cgroup"})->poll(0, memory);
    CHECK(postgres(memory, "cgroup.memory.usage") == 2097153);

    Tree hybrid("6.18");
    for (const char* name : {"cpu", "cpuacct", "memory", "pids", "blkio", "freezer"}) {
        hybrid.write(std::string("sys/fs/cgroup/") + name + "/cgroup.procs", "1\n");
    }
    Memory both;
    (void)open_at({"/nowhere", "/nowhere", hybrid.roots().sys + "/fs/cgroup"})->poll(0, both);
    CHECK(both.has("cgroup.memory.usage{cgroup.path=/agent.service,systemd.unit=agent.service}"));
    CHECK(both.has("cgroup.pids.max{cgroup.path=/agent.service,systemd.unit=agent.service}"));
    CHECK(both.has("cgroup.frozen{cgroup.path=/agent.service,systemd.unit=agent.service}"));
    CHECK(followed(both) == 2);

    const auto absent = sources::cgroup_source.open({"/proc", "/sys", "/nowhere"}, system_io());
    REQUIRE(!absent.ok());
    CHECK(absent.error().code == Errc::unavailable);
}

TEST_CASE("cgroup: without a mounted hierarchy it is unavailable, and says so") {
    Tree tree("cgroup-v2");
    tree.write("proc/self/mountinfo", "24 30 0:22 / /sys rw - sysfs sysfs rw\n");
    auto source = sources::cgroup_source.open(tree.roots(), system_io());
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
    tree.remove("proc/self/mountinfo");
    source = sources::cgroup_source.open(tree.roots(), system_io());
    REQUIRE(!source.ok());
    CHECK(source.error().code == Errc::unavailable);
    CHECK(source.error().sys_errno == ENOENT);
    CHECK(std::string(source.error().what) == "proc/self/mountinfo");
}

TEST_CASE("cgroup: io.stat lines with only some keys, none at all, unknown ones and unended devices") {
    constexpr std::size_t bytes = sources::kIoBytes;
    auto values = parsed("io.stat", "8:0 rbytes=10 rios=2\n8:16 \n8:32 8:48 wbytes=5 wios=1 cost.usage=7\n", 1);
    CHECK(values.of[bytes] == 10);
    CHECK(values.of[bytes + 1] == 5);
    CHECK(std::isnan(values.of[bytes + 2]));
    CHECK(values.of[sources::kIoOperations] == 2);
    CHECK(values.malformed == 0);
    values = parsed("io.stat", "8:0 rbytes=-1 wbytes=99999999999999999999999 rios=x wios=3\n", 1);
    CHECK(std::isnan(values.of[bytes]));
    CHECK(std::isnan(values.of[bytes + 1]));
    CHECK(values.of[sources::kIoOperations + 1] == 3);
    CHECK(values.malformed == 3);
    CHECK(parsed("io.stat", "", 1).of[bytes] == 0);
    CHECK(parsed("io.stat", "8:0 rbytes=10", 1).malformed == 1);
}

TEST_CASE("cgroup: version 1 block I/O by device and kind") {
    const auto values = parsed("blkio.throttle.io_service_bytes_recursive",
                               "8:0 Read 4096\n8:0 Write 100\n8:0 Sync 1\n8:0 Discard 7\n8:0 Total 4203\n"
                               "253:0 Read 10\n253:0 Write x\nTotal 4213\n", sources::kBlkio);
    CHECK(values.of[sources::kIoBytes] == 4106);
    CHECK(values.of[sources::kIoBytes + 1] == 100);
    CHECK(values.of[sources::kIoBytes + 2] == 7);
    CHECK(values.malformed == 1);
}

TEST_CASE("cgroup: numbers that are none are counted, never shown") {
    for (const char* text : {"", "\n", "-1\n", "99999999999999999999\n", "12 34\n", "maximum\n", "4096"}) {
        CAPTURE(text);
        const auto values = parsed("memory.current", text, 1);
        CHECK(std::isnan(values.of[sources::kMemoryUsage]));
        CHECK(values.malformed == 1);
    }
    CHECK(std::isnan(parsed("memory.max", "max\n", 1).of[sources::kMemoryLimit]));
    CHECK(parsed("memory.max", "max\n", 1).malformed == 0);
    CHECK(std::isnan(parsed("memory.max", "18446744073709551615\n", 1).of[sources::kMemoryLimit]));
    CHECK(parsed("memory.max", "0\n", 1).of[sources::kMemoryLimit] == 0);
    CHECK(std::isnan(parsed("cgroup.events", "populated 7\nfrozen 0\n", 1).of[sources::kPopulated]));
    CHECK(parsed("freezer.state", "FROZEN\n", sources::kFreezer).of[sources::kFrozen] == 1);
    CHECK(parsed("freezer.state", "melted\n", sources::kFreezer).malformed == 1);
    // Fewer faults than major ones: two readings of different moments.
    CHECK(std::isnan(parsed("memory.stat", "pgfault 1\npgmajfault 2\n", 1).of[sources::kMinorFaults]));
}

TEST_CASE("cgroup: names of containers, pods and units on a path") {
    const std::string hex(64, '7');
    const auto container = [](const std::string& path) {
        return std::string(sources::identify_cgroup(path).container_id);
    };
    CHECK(container("/system.slice/docker-" + hex + ".scope") == hex);
    CHECK(container("/machine.slice/libpod-" + hex + ".scope/container") == hex);
    CHECK(container("/machine.slice/libpod-conmon-" + hex + ".scope") == "");
    CHECK(container("/kubepods.slice/crio-" + hex + ".scope") == hex);
    CHECK(container("/docker/" + hex) == hex);
    CHECK(container("/docker/" + hex + "/docker/" + std::string(64, '8')) == std::string(64, '8'));
    CHECK(container("/docker/" + hex.substr(1)) == "");
    CHECK(container("/docker/" + std::string(64, 'Z')) == "");
    CHECK(container("/docker-" + hex) == "");
    const auto unit = [](const std::string& path) { return std::string(sources::identify_cgroup(path).systemd_unit); };
    CHECK(unit("/system.slice/ssh.service") == "ssh.service");
    CHECK(unit("/user.slice/user-1000.slice/user@1000.service/app.slice/a.service/sub") == "a.service");
    CHECK(unit("/system.slice/_cpu.service") == "cpu.service");
    CHECK(unit("/.service") == "");
    CHECK(unit("//") == "");
    const auto pod = [](const std::string& path) { return sources::identify_cgroup(path).pod_uid; };
    const std::string uid = "0f6d2a1c-3b4e-4f5a-8c7d-9e0f1a2b3c4d";
    CHECK(pod("/kubepods/burstable/pod" + uid + "/" + hex) == uid);
    CHECK(pod("/kubepods.slice/kubepods-pod" + std::string(32, 'c') + ".slice") == std::string(32, 'c'));
    CHECK(pod("/kubepods/podium") == "");
    CHECK(pod("/podman/pod" + uid) == "");
}

TEST_CASE("cgroup: groups that appear, vanish and come back under their name") {
    Tree tree("cgroup-v2");
    Memory memory;
    auto source = open_at(tree.roots());
    (void)source->poll(0, memory);
    write_group(tree, "/late");
    (void)source->poll(1, memory);
    CHECK(memory.at(user_time("/late")) == 1);
    // Another directory of the same name: its series begin anew.
    fs::rename(fs::path(tree.roots().sys) / "fs/cgroup/late", fs::path(tree.proc()) / "kept");
    write_group(tree, "/late", 5000000);
    const std::size_t closed = memory.closed;
    (void)source->poll(2, memory);
    CHECK(memory.at(user_time("/late")) == 5);
    CHECK(memory.closed > closed);
    tree.remove(kUnified + "/late");
    (void)source->poll(3, memory);
    CHECK(!memory.has(user_time("/late")));
    CHECK(followed(memory) == 7);
}

TEST_CASE("cgroup: a group moved elsewhere ends under one path and begins under the other") {
    Tree tree("cgroup-v2");
    write_group(tree, "/a");
    Memory memory;
    auto source = open_at(tree.roots());
    (void)source->poll(0, memory);
    fs::rename(fs::path(tree.roots().sys) / "fs/cgroup/a", fs::path(tree.roots().sys) / "fs/cgroup/b");
    (void)source->poll(1, memory);
    CHECK(!memory.has(user_time("/a")));
    CHECK(memory.at(user_time("/b")) == 1);
}

TEST_CASE("cgroup: a descriptor of a removed group answers ENODEV and loses nothing of the others") {
    Tree tree("cgroup-v2");
    for (const int gone : {ENODEV, ENOENT, ESTALE}) {
        Memory memory;
        auto source = open_at(tree.roots(), kFaultyIo);
        (void)source->poll(0, memory);
        faults.pread_errno = gone;
        const auto report = source->poll(1, memory);
        REQUIRE(report.ok());
        CHECK(report.value().emitted == memory.names.size());
        CHECK(memory.closed == 0);
        source.reset();
        CHECK(faults.opened == 0);
        faults = {};
    }
}

TEST_CASE("cgroup: pressure that is refused under psi=0 is left out, and asked for again") {
    Tree tree("cgroup-v2");
    Memory memory;
    auto source = open_at(tree.roots(), kFaultyIo);
    faults.pread_errno = EOPNOTSUPP;  // the first file of the first group
    const auto report = source->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(report.value().malformed == 0);
    const std::size_t without = memory.names.size();
    for (int i = 1; i <= 32; ++i) (void)source->poll(i, memory);
    CHECK(memory.names.size() > without);
    source.reset();
    faults = {};
}

TEST_CASE("cgroup: a read error loses one value of one poll") {
    Tree tree("cgroup-v2");
    Memory memory;
    auto source = open_at(tree.roots(), kFaultyIo);
    (void)source->poll(0, memory);
    faults.pread_errno = EIO;
    const auto failed = source->poll(1, memory);
    REQUIRE(failed.ok());
    CHECK(failed.value().emitted < memory.names.size());
    const auto healed = source->poll(2, memory);
    REQUIRE(healed.ok());
    CHECK(healed.value().emitted == memory.names.size());
    CHECK(memory.closed == 0);
    source.reset();
    faults = {};
}

TEST_CASE("cgroup: a hierarchy that is unmounted closes everything, and is found again") {
    Tree tree("cgroup-v2");
    Memory memory;
    auto source = open_at(tree.roots());
    (void)source->poll(0, memory);
    const fs::path root = fs::path(tree.roots().sys) / "fs/cgroup";
    fs::rename(root, fs::path(tree.proc()) / "away");
    auto report = source->poll(1, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::unavailable);
    CHECK(count_of(memory, "cgroup.path") == 0);
    fs::rename(fs::path(tree.proc()) / "away", root);
    report = source->poll(2, memory);
    REQUIRE(report.ok());
    CHECK(followed(memory) == 7);
}

TEST_CASE("cgroup: beyond the bounds the deepest groups are left out first, and counted") {
    Tree tree("cgroup-v2");
    Memory memory;
    (void)open_at(tree.roots(), system_io(), {.options = {3}, .targets = {}})->poll(0, memory);
    CHECK(followed(memory) == 3);
    CHECK(left_out(memory) == 4);
    CHECK(memory.has("cgroup.populated{cgroup.path=/user.slice,systemd.unit=user.slice}"));
    CHECK(count_of(memory, "postgresql") == 0);
    Memory few;
    (void)open_at(tree.roots(), system_io(), {.options = {512, 64}, .targets = {}})->poll(0, few);
    CHECK(few.names.size() <= 64 + 2);
    CHECK(left_out(few) > 0);
    CHECK(followed(few) + left_out(few) == 7);
}

TEST_CASE("cgroup: a path too long is left out, a name that is a link, a file or hostile does no harm") {
    Tree tree("cgroup-v2");
    std::string deep;
    for (int i = 0; i < 6; ++i) deep += "/" + std::string(200, 'd');
    write_group(tree, deep);
    write_group(tree, "/we,ird={\x1b[2J}\xff");
    fs::create_directory_symlink("/", fs::path(tree.roots().sys) / "fs/cgroup/link");
    REQUIRE(mkfifo((fs::path(tree.roots().sys) / "fs/cgroup/user.slice/io.stat").c_str(), 0600) == 0);
    fs::create_symlink("/dev/zero", fs::path(tree.roots().sys) / "fs/cgroup/user.slice/memory.stat");
    Memory memory;
    const auto report = open_at(tree.roots())->poll(0, memory);
    REQUIRE(report.ok());
    CHECK(left_out(memory) == 1);
    CHECK(memory.at(user_time("/we%2Cird%3D%7B%1B[2J%7D%FF")) == 1);
    CHECK(count_of(memory, "/link") == 0);
    CHECK(count_of(memory, "cgroup.memory.stat{cgroup.memory.type=anon,cgroup.path=/user.slice") == 0);
}

TEST_CASE("cgroup: a file cut anywhere never yields a value the whole file does not hold") {
    const std::string folder = "sys/fs/cgroup/system.slice/postgresql@14-main.service";
    for (const auto& entry : fs::directory_iterator(kFixtures / "cgroup-v2" / folder)) {
        Tree tree("cgroup-v2");
        Memory whole;
        (void)open_at(tree.roots())->poll(0, whole);
        const std::string text = slurp(entry.path());
        for (std::size_t size = 1; size < text.size(); size += 1 + text.size() / 40) {
            tree.write(folder + "/" + entry.path().filename().string(), text.substr(0, size));
            Memory cut;
            (void)open_at(tree.roots())->poll(0, cut);
            for (const std::string& name : cut.names) {
                const bool summed = name.find("disk.io.direction") != std::string::npos;  // over the lines there are
                const bool derived = name.find("minor") != std::string::npos || summed;
                if (!derived) CHECK_MESSAGE(cut.at(name) == whole.at(name), name);
            }
        }
    }
}

TEST_CASE("cgroup: a steady poll allocates nothing") {
    for (const char* fixture : {"6.18", "cgroup-v2"}) {
        for (const double descriptors : {4096.0, 0.0}) {
            Tree tree(fixture);
            Memory memory;
            auto source = open_at(tree.roots(), system_io(), {.options = {512, 8192, descriptors}, .targets = {}});
            (void)source->poll(0, memory);
            const std::uint64_t before = allocations();
            const auto report = source->poll(1, memory);
            const std::uint64_t after = allocations();
            CHECK(after == before);
            REQUIRE(report.ok());
            CHECK(report.value().emitted == memory.names.size());
        }
    }
}

TEST_CASE("cgroup: short reads and interruptions change nothing, and no descriptor is left behind") {
    Tree tree("cgroup-v2");
    Memory calm;
    (void)open_at(tree.roots())->poll(0, calm);
    for (const std::size_t largest : {1U, 7U, 64U}) {
        const WithFaults injected({.largest_read = largest, .interrupt_every = 3});
        Memory rough;
        (void)open_at(tree.roots(), kFaultyIo)->poll(0, rough);
        CHECK(rough.names == calm.names);
        for (const std::string& name : calm.names) CHECK_MESSAGE(rough.at(name) == calm.at(name), name);
        CHECK(faults.opened == 0);
    }
}

TEST_CASE("cgroup: descriptors are kept up to the bound only") {
    Tree tree("cgroup-v2");
    for (const int bound : {0, 5}) {
        Memory memory;
        const Settings settings{.options = {512, 8192, static_cast<double>(bound)}, .targets = {}};
        auto source = open_at(tree.roots(), kFaultyIo, settings);
        (void)source->poll(0, memory);
        CHECK(faults.opened == bound);
        CHECK(source->poll(1, memory).value().emitted == memory.names.size());
        CHECK(faults.opened == bound);
        source.reset();
        CHECK(faults.opened == 0);
        faults = {};
    }
}

TEST_CASE("cgroup: no descriptor left is a limit, and over once there is one") {
    Tree tree("cgroup-v2");
    {
        const WithFaults injected({.open_errno = EMFILE});
        const auto source = sources::cgroup_source.open(tree.roots(), kFaultyIo);
        REQUIRE(!source.ok());
        CHECK(source.error().code == Errc::limit);
    }
    Memory memory;
    auto source = open_at(tree.roots(), kFaultyIo);
    faults.open_errno = EMFILE;
    auto report = source->poll(0, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::limit);
    faults.open_errno = 0;
    report = source->poll(1, memory);
    REQUIRE(report.ok());
    CHECK(postgres(memory, "cgroup.memory.usage") == 2097153);
    source.reset();
    faults = {};
}

TEST_CASE("cgroup: the index knows a group by the inode of its directory") {
    Tree tree("cgroup-v2");
    sources::CgroupIndex index(tree.roots(), system_io());
    REQUIRE(index.refresh().ok());
    struct stat status {};
    const std::string folder = tree.roots().sys + "/fs/cgroup";
    REQUIRE(stat((folder + "/system.slice").c_str(), &status) == 0);
    CHECK(index.path(status.st_ino) == "/system.slice");
    REQUIRE(stat(folder.c_str(), &status) == 0);
    CHECK(index.path(status.st_ino) == "/");
    CHECK(index.path(0) == "");
    CHECK(index.size() == 8);
    fs::create_directory(folder + "/new");
    CHECK(*index.refresh(true));
    REQUIRE(stat((folder + "/new").c_str(), &status) == 0);
    CHECK(index.path(status.st_ino) == "/new");
    tree.remove("sys/fs/cgroup");
    CHECK(!index.refresh().ok());
    CHECK(index.size() == 0);

    Tree hybrid("6.18");
    sources::CgroupIndex second(hybrid.roots(), system_io());
    REQUIRE(second.refresh().ok());
    CHECK(second.size() == 2);
}

namespace {

// The id that the kernel gives for the cgroup of a process; 0 where it does not (Linux < 6.13).
std::uint64_t cgroup_id_of(pid_t pid) {
    struct Info {
        std::uint64_t mask, cgroupid;
        std::uint32_t pid_, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
        std::int32_t exit_code;
    } info{};
    info.mask = 1U << 2;  // PIDFD_INFO_CGROUPID
    const int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (fd < 0) return 0;
    const int status = ioctl(fd, _IOWR(0xFF, 11, Info), &info);
    close(fd);
    return status == 0 && (info.mask & 4U) != 0 ? info.cgroupid : 0;
}

// A process that does nothing, or spins, until the test lets go of it.
struct Child {
    explicit Child(bool spin) : pid(fork()) {
        if (pid != 0) return;
        for (volatile bool on = spin; on;) {}
        while (true) pause();
    }
    ~Child() {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    }
    pid_t pid;
};

struct LiveGroup {
    explicit LiveGroup(const std::string& folder) : path(folder) { made = mkdir(path.c_str(), 0755) == 0; }
    ~LiveGroup() {
        for (int i = 0; made && i < 100 && rmdir(path.c_str()) != 0 && errno == EBUSY; ++i) usleep(10'000);
    }
    std::string path;
    bool made;
};

}  // namespace

TEST_CASE("cgroup: a live group is seen, counts its process, and goes") {
    std::vector<sources::Hierarchy> hierarchies;
    (void)sources::find_hierarchies({}, system_io(), hierarchies);
    const auto unified = std::find_if(hierarchies.begin(), hierarchies.end(),
                                      [](const auto& h) { return h.controllers == sources::kUnified; });
    if (unified == hierarchies.end()) {
        MESSAGE("not run: no version 2 hierarchy is mounted");
        return;
    }
    const std::string name = "/argus-test-" + std::to_string(getpid());
    Memory memory;
    auto source = open_at({});
    REQUIRE(source->poll(0, memory).ok());
    auto group = std::make_unique<LiveGroup>(unified->directory + name);
    if (!group->made) {
        MESSAGE("not run: no permission to make a group in " << unified->directory);
        return;
    }
    {
        const Child child(true);
        std::ofstream(group->path + "/cgroup.procs") << child.pid;
        usleep(100'000);
        REQUIRE(source->poll(1, memory).ok());
        const std::string path = unified->prefix + name;
        CHECK(memory.at(user_time(path)) > 0);
        CHECK(memory.at("cgroup.populated{cgroup.path=" + path + "}") == 1);
        sources::CgroupIndex index({}, system_io());
        REQUIRE(index.refresh().ok());
        if (const std::uint64_t id = cgroup_id_of(child.pid); id != 0) CHECK(index.path(id) == path);
    }
    group.reset();
    REQUIRE(source->poll(2, memory).ok());
    CHECK(count_of(memory, name) == 0);
}

}  // namespace argus::test
