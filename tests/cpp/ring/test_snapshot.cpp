#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "ring/snapshot.hpp"

using argus::ring::Snapshot;

TEST_CASE("snapshot: nothing to see before the first state, then the newest once") {
    Snapshot<int> snapshot;
    CHECK_FALSE(snapshot.refresh());
    snapshot.back() = 1;
    snapshot.publish();
    snapshot.back() = 2;
    snapshot.publish();
    CHECK(snapshot.refresh());
    CHECK(snapshot.front() == 2);
    CHECK_FALSE(snapshot.refresh());
    CHECK(snapshot.front() == 2);
}

TEST_CASE("snapshot: the reader's state stays while the writer publishes others") {
    Snapshot<int> snapshot;
    snapshot.back() = 7;
    snapshot.publish();
    REQUIRE(snapshot.refresh());
    for (int i = 0; i < 10; ++i) {
        snapshot.back() = 100 + i;
        snapshot.publish();
        CHECK(snapshot.front() == 7);
    }
    CHECK(snapshot.refresh());
    CHECK(snapshot.front() == 109);
}

TEST_CASE("snapshot: two threads, every state seen is whole and none is older than the one before") {
    static constexpr std::uint64_t kStates = 20'000;
    Snapshot<std::vector<std::uint64_t>> snapshot;
    std::thread writer([&snapshot] {
        for (std::uint64_t state = 1; state <= kStates; ++state) {
            snapshot.back().assign(64, state);
            snapshot.publish();
        }
    });
    std::uint64_t last = 0;
    std::uint64_t torn = 0;
    std::uint64_t older = 0;
    while (last < kStates) {
        if (!snapshot.refresh()) {
            std::this_thread::yield();
            continue;
        }
        const auto& table = snapshot.front();
        for (const std::uint64_t cell : table) torn += cell != table.front() ? 1 : 0;
        older += table.front() < last ? 1 : 0;
        last = table.front();
    }
    writer.join();
    CHECK(torn == 0);
    CHECK(older == 0);
}
