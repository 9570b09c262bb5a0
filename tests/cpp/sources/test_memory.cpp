#include <doctest/doctest.h>

#include "sources/memory.hpp"
#include "support.hpp"

namespace argus::test {
namespace {

sources::PollReport poll_memory(const Tree& tree, Memory& memory) {
    auto source = sources::memory_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    const auto report = (*source)->poll(0, memory);
    REQUIRE(report.ok());
    return report.value();
}

}  // namespace

TEST_CASE("memory: the states add up to the limit") {
    Tree tree("6.18");
    Memory memory;
    poll_memory(tree, memory);
    CHECK(memory.at("system.memory.limit") == 24684096.0 * 1024);
    double sum = 0;
    for (const char* state : {"used", "free", "cached", "buffers"}) {
        sum += memory.at(std::string("system.memory.usage{system.memory.state=") + state + "}");
    }
    CHECK(sum == memory.at("system.memory.limit"));
    CHECK(memory.at("system.memory.utilization") == doctest::Approx(1.0 - 24268544.0 / 24684096.0).epsilon(1e-12));
}

TEST_CASE("memory: without swap there is usage of zero and no utilization") {
    Tree tree("6.18");
    Memory memory;
    poll_memory(tree, memory);
    CHECK(memory.at("system.paging.usage{system.paging.state=used}") == 0);
    CHECK(!memory.has("system.paging.utilization"));
    tree.replace("proc/meminfo", "SwapTotal:             0 kB", "SwapTotal:          1000 kB");
    tree.replace("proc/meminfo", "SwapFree:              0 kB", "SwapFree:            250 kB");
    Memory swapping;
    poll_memory(tree, swapping);
    CHECK(swapping.at("system.paging.utilization") == 0.75);
}

TEST_CASE("memory: a missing key yields no series, and none derived from it") {
    Tree tree("6.18");
    tree.replace("proc/meminfo", "SReclaimable:", "Renamed:");
    tree.replace("proc/meminfo", "MemAvailable:", "Other:");
    Memory memory;
    const auto report = poll_memory(tree, memory);
    CHECK(report.malformed == 0);
    CHECK(!memory.has("system.memory.usage{system.memory.state=used}"));
    CHECK(!memory.has("system.memory.utilization"));
    CHECK(memory.has("system.memory.usage{system.memory.state=free}"));
}

TEST_CASE("memory: minor faults are all faults less the major ones; KiB become bytes") {
    Tree tree("6.18");
    tree.write("proc/vmstat", "pgmajfault 30\npgpgin 7\npgfault 100\n");
    Memory memory;
    poll_memory(tree, memory);
    CHECK(memory.at("system.paging.faults{system.paging.type=minor}") == 70);
    CHECK(memory.at("system.paging.faults{system.paging.type=major}") == 30);
    CHECK(memory.at("system.paging.io{system.paging.direction=in}") == 7168);
}

TEST_CASE("memory: reclaim, compaction, huge pages and NUMA are read under the names of new kernels and of old ones") {
    Tree tree("6.18");
    tree.write("proc/vmstat",
               "numa_interleave 3\npgscan_khugepaged 4\nworkingset_activate_file 5\ncompact_success 6\n"
               "thp_split_page 7\nzswpin 8\ndrop_slab 9\npgmigrate_fail 10\npgdemote_kswapd 11\n");
    Memory now;
    poll_memory(tree, now);
    CHECK(now.at("system.numa.allocations{system.numa.result=interleave}") == 3);
    CHECK(now.at("system.paging.reclaim.scanned{system.paging.reclaim.by=khugepaged}") == 4);
    CHECK(now.at("system.paging.reactivated{system.paging.refault.type=file}") == 5);
    CHECK(now.at("system.memory.compactions{system.memory.compaction.result=success}") == 6);
    CHECK(now.at("system.memory.huge_page_splits") == 7);
    CHECK(now.at("system.paging.operations{system.paging.direction=in,system.paging.type=zswap}") == 8);
    CHECK(now.at("system.memory.caches_dropped{system.memory.cache=slab}") == 9);
    CHECK(now.at("system.memory.pages_migrated{system.memory.migration.result=failure}") == 10);
    CHECK(now.at("system.numa.demoted{system.paging.reclaim.by=kswapd}") == 11);
    CHECK(!now.has("system.paging.refaults"));
    tree.write("proc/vmstat", "workingset_refault 12\nallocstall 13\n");
    Memory before;
    poll_memory(tree, before);
    CHECK(before.at("system.paging.refaults") == 12);
    CHECK(before.at("system.paging.allocation_stalls") == 13);
}

TEST_CASE("memory: huge pages, contiguous and balloon memory, where the kernel has them") {
    Tree tree("6.18");
    tree.write("proc/meminfo",
               "MemTotal: 1000 kB\nHugepagesize: 2048 kB\nHugetlb: 4096 kB\nCmaTotal: 64 kB\nCmaFree: 32 kB\n"
               "Balloon: 7 kB\nFileHugePages: 8 kB\n");
    Memory memory;
    poll_memory(tree, memory);
    CHECK(memory.at("system.memory.linux.hugepages.page_size") == 2048 * 1024);
    CHECK(memory.at("system.memory.linux.hugetlb") == 4096 * 1024);
    CHECK(memory.at("system.memory.linux.cma.limit") == 64 * 1024);
    CHECK(memory.at("system.memory.linux.cma.free") == 32 * 1024);
    CHECK(memory.at("system.memory.linux.balloon") == 7 * 1024);
    CHECK(memory.at("system.memory.linux.file_huge_pages") == 8 * 1024);
}

TEST_CASE("memory: hostile lines are skipped and counted") {
    Tree tree("hostile");
    Memory memory;
    const auto report = poll_memory(tree, memory);
    // meminfo: MemFree -1, Cached 20 digits, Dirty past 64 bits, AnonPages in MB, second MemTotal, empty Shmem;
    // vmstat: pgpgin with a word too many, pswpin -4, pgfree 20 digits.
    CHECK(report.malformed == 9);
    CHECK(memory.at("system.memory.limit") == 1000.0 * 1024);
    CHECK(memory.at("system.memory.usage{system.memory.state=buffers}") == 10);  // without kB: as it stands
    CHECK(memory.at("system.memory.linux.hugepages.limit") == 4);
    CHECK(memory.at("system.memory.oom_kills") == 2);
    CHECK(!memory.has("system.paging.faults{system.paging.type=minor}"));  // more major faults than faults
    CHECK(memory.names.size() == 5);
}

TEST_CASE("memory: meminfo without MemTotal is malformed") {
    Tree tree("6.18");
    tree.write("proc/meminfo", "MemFree: 5 kB\n");
    Memory memory;
    auto source = sources::memory_source.open(tree.roots(), system_io());
    REQUIRE(source.ok());
    const auto report = (*source)->poll(0, memory);
    REQUIRE(!report.ok());
    CHECK(report.error().code == Errc::malformed);
    CHECK(memory.names.empty());
}

TEST_CASE("memory: lines that were learned are read as those that were not, whatever becomes of the text") {
    sources::KeyedLines lines;
    std::string text = slurp(kFixtures / "6.18/proc/meminfo");
    std::uint64_t state = 1;
    const auto random = [&state](std::size_t below) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        return static_cast<std::size_t>(state >> 33) % below;
    };
    constexpr std::string_view kPieces[] = {"\n", " ", ":", "kB", "9", "MemFree: 7 kB\n", "18446744073709551615", "\t",
                                            "Cached:\n", "00000000000000000001"};
    std::size_t malformed = 0;
    for (int round = 0; round < 20'000; ++round) {
        if (round % 8 == 0) text = slurp(kFixtures / "6.18/proc/meminfo");
        if (round % 8 > 1) {
            const std::string_view piece = kPieces[random(std::size(kPieces))];
            const std::size_t at = random(text.size());
            round % 2 == 0 ? text.insert(at, piece) : text.replace(at, std::min(piece.size(), text.size() - at), piece);
        }
        if (round % 8 == 7) text.resize(random(text.size()));
        sources::KeyedValues alone, learned;
        sources::parse_keyed(text, sources::meminfo_keys(), alone);
        sources::parse_keyed(text, sources::meminfo_keys(), learned, {}, &lines);
        const bool same = alone.seen == learned.seen && alone.values == learned.values &&
                          alone.malformed == learned.malformed;
        if (!same) CAPTURE(text);
        REQUIRE(same);
        malformed += alone.malformed;
    }
    CHECK(malformed > 1000);
}

TEST_CASE("memory: every key is found by its hash, and no other") {
    for (const auto* table : {&sources::meminfo_keys(), &sources::vmstat_keys()}) {
        CHECK(table->find("") == -1);
        CHECK(table->find("NoSuchKey") == -1);
        CHECK(table->size() >= 30);
    }
    CHECK(sources::meminfo_keys().find("MemTotal") == 0);
    CHECK(sources::vmstat_keys().find("pgmajfault") == 1);
}

}  // namespace argus::test
