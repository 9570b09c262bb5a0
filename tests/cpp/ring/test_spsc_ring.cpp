#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <thread>
#include <vector>

#include "ring/spsc_ring.hpp"

using argus::ring::SpscRing;

namespace {

struct Item {
    std::uint64_t number;
    std::uint64_t check;
};

Item item(std::uint64_t number) { return {number, number * 0x9E3779B97F4A7C15ULL}; }

}  // namespace

TEST_CASE("spsc ring: a capacity that is no power of two, or below two, is refused") {
    for (const std::size_t capacity : {0U, 1U, 3U, 6U, 1000U})
        CHECK_THROWS_AS(SpscRing<int>{capacity}, std::invalid_argument);
    CHECK(SpscRing<int>(2).capacity() == 2);
}

TEST_CASE("spsc ring: items come out in order, a full ring refuses, an empty one gives nothing") {
    SpscRing<int> ring(4);
    std::array<int, 8> out{};
    CHECK(ring.pop(out) == 0);
    for (int i = 0; i < 4; ++i) CHECK(ring.try_push(i));
    CHECK_FALSE(ring.try_push(99));
    CHECK(ring.pop(std::span(out).first(3)) == 3);
    CHECK(out[0] == 0);
    CHECK(out[2] == 2);
    CHECK(ring.try_push(4));
    CHECK(ring.pop(out) == 2);
    CHECK(out[0] == 3);
    CHECK(out[1] == 4);
    CHECK(ring.pop(out) == 0);
}

TEST_CASE("spsc ring: an item is written in place; what is full or refuses leaves nothing") {
    SpscRing<int> ring(2);
    const auto fill = [](int value, bool good) {
        return [=](int& item) {
            item = value;
            return good;
        };
    };
    ring.expect(5);  // beyond the end is as good as any
    CHECK(ring.try_push_with(fill(1, true)));
    CHECK_FALSE(ring.try_push_with(fill(7, false)));
    CHECK(ring.try_push_with(fill(2, true)));
    bool asked = false;
    CHECK_FALSE(ring.try_push_with([&](int&) { return asked = true; }));
    CHECK_FALSE(asked);
    std::vector<int> out(4);
    CHECK(ring.pop(out) == 2);
    CHECK(std::vector<int>{out[0], out[1]} == std::vector<int>{1, 2});
    CHECK(ring.try_push_with(fill(3, true)));
    CHECK(ring.pop(out) == 1);
    CHECK(out[0] == 3);
}

TEST_CASE("spsc ring: a span is stored as far as it fits, across the wrap") {
    SpscRing<int> ring(8);
    const std::array<int, 6> items{1, 2, 3, 4, 5, 6};
    std::array<int, 8> out{};
    for (int turn = 0; turn < 20; ++turn) {
        CHECK(ring.try_push(std::span(items)) == 6);
        CHECK(ring.try_push(std::span(items)) == 2);
        CHECK(ring.try_push(std::span(items)) == 0);
        REQUIRE(ring.pop(out) == 8);
        for (std::size_t i = 0; i < 8; ++i) CHECK(out[i] == items[i % 6]);
    }
}

TEST_CASE("spsc ring: two threads move every item once, in order, whole") {
    static constexpr std::uint64_t kItems = 200'000;
    SpscRing<Item> ring(256);
    std::thread producer([&ring] {
        std::vector<Item> batch;
        std::uint64_t next = 0;
        while (next < kItems) {
            if (next % 3 == 0) {
                if (ring.try_push(item(next))) ++next;
                else std::this_thread::yield();
                continue;
            }
            batch.clear();
            for (std::uint64_t i = next; i < std::min(next + 37, kItems); ++i) batch.push_back(item(i));
            const std::size_t pushed = ring.try_push(std::span<const Item>(batch));
            next += pushed;
            if (pushed == 0) std::this_thread::yield();
        }
    });
    std::array<Item, 64> out{};
    std::uint64_t expected = 0;
    std::uint64_t wrong = 0;
    while (expected < kItems) {
        const std::size_t count = ring.pop(out);
        if (count == 0) std::this_thread::yield();
        for (std::size_t i = 0; i < count; ++i, ++expected) {
            const Item want = item(expected);
            wrong += out[i].number != want.number || out[i].check != want.check ? 1 : 0;
        }
    }
    producer.join();
    CHECK(wrong == 0);
    CHECK(ring.pop(out) == 0);
}
