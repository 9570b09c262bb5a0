// The contract every source keeps.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include "../allocations.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

struct FileOf {
    const sources::SourceDescriptor* source;
    std::vector<std::string> required;  // any one missing and the source is unavailable; all, for pressure
    std::vector<std::string> optional;
};

// Sources of files. One line each; those that ask the kernel in other ways keep the same rules in tests of their own.
const FileOf kFiles[] = {
    {&sources::cpu_source, {"proc/stat"}, {"proc/loadavg", "proc/uptime"}},
    {&sources::interrupts_source, {"proc/interrupts"}, {"proc/softirqs"}},
    {&sources::kernel_source,
     {"proc/sys/fs/file-nr"},
     {"proc/sys/fs/inode-nr", "proc/sys/fs/dentry-state", "proc/sys/kernel/pid_max", "proc/sys/kernel/threads-max",
      "proc/sys/kernel/random/entropy_avail", "proc/loadavg"}},
    {&sources::memory_source, {"proc/meminfo"}, {"proc/vmstat"}},
    {&sources::network_source, {"proc/net/dev"}, {}},
    {&sources::protocols_source, {"proc/net/snmp"}, {}},
    {&sources::protocols_extended_source, {"proc/net/netstat"}, {"proc/net/snmp6"}},
    {&sources::sockets_source, {"proc/net/sockstat"}, {"proc/net/sockstat6"}},
    {&sources::softnet_source, {"proc/net/softnet_stat"}, {}},
    {&sources::conntrack_source,
     {"proc/sys/net/netfilter/nf_conntrack_count"},
     {"proc/sys/net/netfilter/nf_conntrack_max", "proc/net/stat/nf_conntrack"}},
    {&sources::disk_source, {"proc/diskstats"}, {"sys/class/block/vda/size"}},
    {&sources::paging_source,
     {"proc/swaps", "sys/kernel/mm/ksm/pages_shared"},
     {"sys/kernel/mm/ksm/pages_sharing", "sys/kernel/mm/ksm/full_scans"}},
    {&sources::numa_source,
     {"sys/devices/system/node/online"},
     {"sys/devices/system/node/node0/numastat", "sys/devices/system/node/node0/meminfo"}},
    {&sources::slab_source, {"proc/slabinfo"}, {}},
    {&sources::pressure_source, {"proc/pressure/cpu", "proc/pressure/memory", "proc/pressure/io"}, {}},
};

std::unique_ptr<sources::Source> opened(const sources::SourceDescriptor& descriptor, const Tree& tree, const Io& io) {
    auto source = descriptor.open(tree.roots(), io);
    REQUIRE_MESSAGE(source.ok(), descriptor.name);
    return std::move(*source);
}

}  // namespace

TEST_CASE("source: each descriptor says what it reads, what it needs and how to fix it") {
    for (const auto* descriptor : engine::source_catalog()) {
        CAPTURE(descriptor->name);
        CHECK(std::string(descriptor->documentation).size() > 20);
        CHECK(std::string(descriptor->requires_).size() > 10);
        CHECK(std::string(descriptor->fix).size() > 10);
        CHECK(descriptor->interval_ms >= 1000);
    }
}

TEST_CASE("source: an absent file is unavailable and named") {
    for (const FileOf& files : kFiles) {
        Tree tree("6.18");
        for (const std::string& file : files.required) tree.remove(file);
        const auto source = files.source->open(tree.roots(), system_io());
        CAPTURE(files.source->name);
        REQUIRE(!source.ok());
        CHECK(source.error().code == Errc::unavailable);
        CHECK(source.error().sys_errno == ENOENT);
        CHECK(std::string(source.error().what) == files.required.front());
    }
}

TEST_CASE("source: without an optional file the rest is emitted") {
    for (const FileOf& files : kFiles) {
        for (const std::string& file : files.optional) {
            Tree tree("6.18");
            Memory full;
            (void)opened(*files.source, tree, system_io())->poll(0, full);
            tree.remove(file);
            Memory partial;
            const auto report = opened(*files.source, tree, system_io())->poll(0, partial);
            CAPTURE(file);
            REQUIRE(report.ok());
            CHECK(report.value().malformed == 0);
            CHECK(partial.names.size() < full.names.size());
            CHECK(partial.names.size() > 0);
        }
    }
}

TEST_CASE("source: a file cut anywhere never yields a value the whole file does not hold") {
    for (const FileOf& files : kFiles) {
        std::vector<std::string> all = files.required;
        all.insert(all.end(), files.optional.begin(), files.optional.end());
        for (const std::string& file : all) {
            Tree tree("6.18");
            Memory whole;
            (void)opened(*files.source, tree, system_io())->poll(0, whole);
            const std::string text = slurp(kFixtures / "6.18" / file);
            const std::size_t step = std::max<std::size_t>(1, text.size() / 60);
            for (std::size_t size = 0; size < text.size(); size += step) {
                tree.write(file, text.substr(0, size));
                Memory cut;
                auto again = files.source->open(tree.roots(), system_io());
                if (!again) continue;
                (void)(*again)->poll(0, cut);
                for (const std::string& name : cut.names) {
                    const bool derived = name == "system.cpu.logical.count" || name.find("minor") != std::string::npos;
                    if (derived || !whole.has(name)) continue;
                    CAPTURE(file);
                    CAPTURE(size);
                    CHECK_MESSAGE(cut.at(name) == whole.at(name), name);
                }
            }
        }
    }
}

TEST_CASE("source: a steady poll allocates nothing") {
    for (const FileOf& files : kFiles) {
        Tree tree("6.18");
        Memory memory;
        auto source = opened(*files.source, tree, system_io());
        (void)source->poll(0, memory);
        const std::uint64_t before = allocations();
        const auto report = source->poll(1, memory);
        const std::uint64_t after = allocations();
        CAPTURE(files.source->name);
        CHECK(after == before);
        REQUIRE(report.ok());
        CHECK(report.value().emitted == memory.names.size());
        CHECK(report.value().malformed == 0);
    }
}

TEST_CASE("source: counters go to Emit raw, also when they fall") {
    Tree tree("6.18");
    Memory memory;
    auto source = opened(sources::network_source, tree, system_io());
    (void)source->poll(0, memory);
    const std::string name = "system.network.io{network.interface.name=eth0,network.io.direction=receive}";
    CHECK(memory.at(name) == 175680374.0);
    tree.replace("proc/net/dev", "175680374", "5");
    (void)source->poll(1, memory);
    CHECK(memory.at(name) == 5.0);
}

TEST_CASE("source: short reads and interruptions change nothing") {
    for (const FileOf& files : kFiles) {
        Tree tree("6.18");
        Memory calm;
        (void)opened(*files.source, tree, system_io())->poll(0, calm);
        for (const std::size_t largest : {1U, 7U, 64U}) {
            const WithFaults injected({.largest_read = largest, .interrupt_every = 3});
            Memory rough;
            const auto report = opened(*files.source, tree, kFaultyIo)->poll(0, rough);
            CAPTURE(files.source->name);
            CAPTURE(largest);
            REQUIRE(report.ok());
            CHECK(rough.names == calm.names);
            for (const std::string& name : calm.names) CHECK_MESSAGE(rough.at(name) == calm.at(name), name);
        }
        CHECK(faults.opened == 0);
    }
}

TEST_CASE("source: no descriptor left is a limit, and over once there is one") {
    for (const FileOf& files : kFiles) {
        Tree tree("6.18");
        {
            const WithFaults injected({.open_errno = EMFILE});
            const auto source = files.source->open(tree.roots(), kFaultyIo);
            REQUIRE(!source.ok());
            CHECK(source.error().code == Errc::limit);
            CHECK(source.error().sys_errno == EMFILE);
        }
        Memory memory;
        auto source = opened(*files.source, tree, kFaultyIo);
        CHECK(source->poll(0, memory).ok());
        source.reset();
        CHECK(faults.opened == 0);
        faults = {};
    }
}

TEST_CASE("source: a stale descriptor is opened again") {
    for (const FileOf& files : kFiles) {
        for (const int stale : {ESTALE, ENOENT, ENODEV}) {
            Tree tree("6.18");
            Memory memory;
            auto source = opened(*files.source, tree, kFaultyIo);
            (void)source->poll(0, memory);
            const std::size_t series = memory.names.size();
            faults.pread_errno = stale;
            const auto report = source->poll(1, memory);
            CAPTURE(files.source->name);
            REQUIRE(report.ok());
            CHECK(report.value().emitted == series);
        }
    }
    faults = {};
}

TEST_CASE("source: a read error loses one poll, not the source") {
    for (const FileOf& files : kFiles) {
        Tree tree("6.18");
        Memory memory;
        auto source = opened(*files.source, tree, kFaultyIo);
        (void)source->poll(0, memory);
        faults.pread_errno = EIO;
        const auto failed = source->poll(1, memory);
        if (files.source != &sources::pressure_source) {  // which has other files to speak of
            REQUIRE(!failed.ok());
            CHECK(failed.error().code == Errc::io);
        }
        CHECK(source->poll(2, memory).ok());
        CHECK(memory.closed == 0);
    }
    faults = {};
}

TEST_CASE("source: a FIFO, a directory or an endless device in the place of a file neither blocks nor is read") {
    for (const FileOf& files : kFiles) {
        Tree tree("6.18");
        for (const std::string& file : files.required) {
            tree.remove(file);
            REQUIRE(mkfifo(tree.path(file).c_str(), 0600) == 0);
        }
        Memory memory;
        auto source = files.source->open(tree.roots(), system_io());
        CHECK((!source.ok() || !(*source)->poll(0, memory).ok()));
        for (const std::string& file : files.required) {
            tree.remove(file);
            fs::create_symlink("/dev/zero", tree.path(file));
        }
        source = files.source->open(tree.roots(), system_io());
        const auto report = source.ok() ? (*source)->poll(1, memory) : source.error();
        REQUIRE(!report.ok());
        CHECK(report.error().code == Errc::too_large);
    }
}

}  // namespace argus::test
