#include "events/slab.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <list>
#include <random>

using namespace argus;
using namespace argus::events;

namespace {

struct Number {
    std::uint64_t key = 0;
    int value = 0;
};

std::uint32_t find(const Slab<Number, 2>& slab, std::uint64_t key) {
    return slab.find(key % 7, [&](const Number& n) { return n.key == key; });  // few hashes: long clusters
}

}  // namespace

TEST_CASE("slab: behaves as a map with least-recently-used eviction, whatever collides") {
    Slab<Number, 2> slab(16);
    std::list<std::uint64_t> precious;  // oldest first
    std::list<std::uint64_t> common;
    std::mt19937 random(7);
    for (int step = 0; step < 20'000; ++step) {
        const std::uint64_t key = random() % 40;
        const std::uint32_t i = find(slab, key);
        const bool in_precious = std::count(precious.begin(), precious.end(), key) != 0;
        const bool in_common = std::count(common.begin(), common.end(), key) != 0;
        REQUIRE((i != kNone) == (in_precious || in_common));
        precious.remove(key);
        common.remove(key);
        if (i != kNone && random() % 4 == 0) {
            slab.erase(i);
            continue;
        }
        const bool keep = random() % 3 == 0;
        if (i != kNone) {
            slab.move(i, keep ? 0 : 1);
        } else {
            if (precious.size() + common.size() == 16) (common.empty() ? precious : common).pop_front();
            const std::uint32_t fresh = slab.create(key % 7, keep ? 0 : 1, [](std::uint32_t) {});
            CHECK(slab[fresh].value == 0);
            slab[fresh] = {key, 1};
        }
        (keep ? precious : common).push_back(key);
        REQUIRE(slab.size() == precious.size() + common.size());
        REQUIRE(slab.size(0) == precious.size());
    }
}

TEST_CASE("slab: a reused slot has another generation") {
    Slab<Number> slab(1);
    const std::uint32_t first = slab.create(1, 0, [](std::uint32_t) {});
    const std::uint32_t generation = slab.generation(first);
    int evicted = -1;
    const std::uint32_t second = slab.create(2, 0, [&](std::uint32_t i) { evicted = static_cast<int>(i); });
    CHECK(evicted == static_cast<int>(first));
    CHECK(second == first);
    CHECK_FALSE(slab.holds(first, generation));
    CHECK(slab.evicted() == 1);
}

TEST_CASE("slab: saved and loaded it holds the same entries in the same order, and takes new ones") {
    Slab<Number, 2> slab(8);
    for (std::uint64_t key = 0; key < 11; ++key) {
        slab[slab.create(key % 7, key % 2, [](std::uint32_t) {})] = {key, static_cast<int>(key) * 10};
    }
    slab.erase(find(slab, 10));
    Writer writer(1, 1);
    slab.save(writer);
    const auto state = writer.finish();
    Slab<Number, 2> copy(8);
    Reader reader(state, 1, 1);
    copy.load(reader);
    CHECK(reader.done());
    CHECK(copy.size() == slab.size());
    for (std::size_t list = 0; list < 2; ++list) {
        std::uint32_t a = slab.oldest(list);
        std::uint32_t b = copy.oldest(list);
        for (; a != kNone; a = slab.newer(a), b = copy.newer(b)) {
            REQUIRE(b == a);
            CHECK(copy[b].value == slab[a].value);
            CHECK(copy.generation(b) == slab.generation(a));
            CHECK(find(copy, slab[a].key) == b);
        }
        CHECK(b == kNone);
    }
    CHECK(copy.create(3, 0, [](std::uint32_t) {}) != kNone);
    Slab<Number, 2> other(9);
    Reader again(state, 1, 1);
    CHECK_THROWS_AS(other.load(again), CodecError);
}
