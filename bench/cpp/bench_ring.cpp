// The single-producer ring between two threads, items of 16 bytes in batches, and a plain copy of the same
// bytes in one thread as the peer. Before timing counts, every item is checked to arrive once and in order.
#include <cstdint>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include "report.hpp"
#include "ring/spsc_ring.hpp"

namespace {

using argus::bench::best_of;
using argus::bench::report;

struct Item {
    std::uint64_t number;
    std::uint64_t value;
};
static_assert(sizeof(Item) == 16);

constexpr std::size_t kBatch = 512;
constexpr std::uint64_t kItems = 20'000'000;

// Moves kItems items through a ring; returns the number that came in the wrong place.
std::uint64_t transfer(bool check) {
    argus::ring::SpscRing<Item> ring(8192);
    std::thread producer([&ring] {
        std::vector<Item> batch(kBatch);
        for (std::size_t i = 0; i < kBatch; ++i) batch[i] = {i, i};
        std::uint64_t sent = 0;
        while (sent < kItems) {
            for (std::size_t i = 0; i < kBatch; i += 64) batch[i].number = sent + i;
            std::span<const Item> rest(batch);
            while (!rest.empty()) {
                const std::size_t pushed = ring.try_push(rest);
                rest = rest.subspan(pushed);
                if (pushed == 0) std::this_thread::yield();
            }
            sent += kBatch;
        }
    });
    std::vector<Item> out(kBatch);
    std::uint64_t received = 0;
    std::uint64_t wrong = 0;
    const std::uint64_t total = (kItems + kBatch - 1) / kBatch * kBatch;
    while (received < total) {
        const std::size_t count = ring.pop(out);
        if (count == 0) std::this_thread::yield();
        for (std::size_t i = 0; check && i < count; ++i) {
            const std::uint64_t number = received + i;
            const bool marked = number % kBatch % 64 == 0;
            wrong += out[i].value != number % kBatch || (marked && out[i].number != number) ? 1 : 0;
        }
        received += count;
    }
    producer.join();
    return wrong;
}

double copied_items_per_s() {
    std::vector<Item> from(8192, Item{1, 2});
    std::vector<Item> to(8192);
    constexpr int kPasses = 2000;
    const double took = best_of(3, [&] {
        for (int pass = 0; pass < kPasses; ++pass) {
            std::memcpy(to.data(), from.data(), from.size() * sizeof(Item));
            asm volatile("" : : "r"(to.data()) : "memory");
        }
    });
    return static_cast<double>(from.size()) * kPasses / took;
}

}  // namespace

int main() {
    if (transfer(true) != 0) {
        std::fprintf(stderr, "bench_ring: items arrived out of place; nothing timed\n");
        return 1;
    }
    const double took = best_of(5, [] { (void)transfer(false); });
    const double rate = static_cast<double>(kItems) / took;
    const double peer = copied_items_per_s();
    const double bar = 200e6;
    return report("ring_throughput/one_to_one/16B", rate, "items/s", "memcpy of the same items in one thread",
                  rate / peer, bar, rate >= bar)
               ? 0
               : 1;
}
