// Every interleaving, and every outcome that the C++ memory model allows, of ring and triple buffer with one writer and
// one reader, as far as Relacy's schedulers go: a full search within a bound of context switches, then random
// schedules. A data race on an item, a lost, doubled or torn item, and a hang are failures.
// Source: D. Vyukov, Relacy Race Detector.
//
//     model_rings [CONTEXT_SWITCHES [RANDOM_SCHEDULES]]      exit status 0 = no schedule broke a rule
//
// Built without optimisation: Relacy's operator new is an inline function, and optimised it no longer meets its delete.
// What the rings include comes first: Relacy puts macros in place of new, delete and the memory orders.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>

#include <relacy/relacy.hpp>

namespace std {  // where the rings look for the orders that Relacy's macros put in place of std::memory_order_*
using rl::mo_acq_rel;
using rl::mo_acquire;
using rl::mo_relaxed;
using rl::mo_release;
using rl::mo_seq_cst;
}  // namespace std

#include "ring/snapshot.hpp"
#include "ring/spsc_ring.hpp"

namespace {

// Two halves, each watched for races; they differ when an item is torn.
struct Item {
    rl::var<unsigned> low, high;
    Item() : low(0), high(0) {}
    explicit Item(unsigned value) : low(value), high(value) {}
    Item(const Item& other) : low(other.low($)), high(other.high($)) {}
    Item& operator=(const Item& other) {
        low($) = other.low($);
        high($) = other.high($);
        return *this;
    }
};

}  // namespace

namespace argus::ring {
template <>
inline constexpr bool kRingItem<Item> = true;
}  // namespace argus::ring

namespace {

constexpr unsigned kItems = 4;

struct RingTest : rl::test_suite<RingTest, 2> {
    argus::ring::SpscRing<Item, rl::atomic> ring{2};
    unsigned pushed = 0;

    void thread(unsigned which) {
        if (which == 0) {
            for (unsigned i = 1; i <= kItems; ++i) {
                rl::linear_backoff wait;
                while (!ring.try_push(Item(i))) wait.yield($);
            }
            return;
        }
        unsigned expected = 1;
        rl::linear_backoff wait;
        while (expected <= kItems) {
            Item out[2];
            const std::size_t count = ring.pop(std::span<Item>(out, 2));
            for (std::size_t i = 0; i < count; ++i, ++expected) {
                RL_ASSERT(out[i].low($) == expected);
                RL_ASSERT(out[i].high($) == expected);
            }
            if (count == 0) wait.yield($);
        }
    }
};

struct SpanTest : rl::test_suite<SpanTest, 2> {
    argus::ring::SpscRing<Item, rl::atomic> ring{2};

    void thread(unsigned which) {
        if (which == 0) {
            const Item items[3] = {Item(1), Item(2), Item(3)};
            std::size_t done = 0;
            rl::linear_backoff wait;
            while (done < 3) {
                const std::size_t count = ring.try_push(std::span<const Item>(items + done, 3 - done));
                done += count;
                if (count == 0) wait.yield($);
            }
            return;
        }
        rl::linear_backoff wait;
        for (unsigned expected = 1; expected <= 3;) {
            Item out[1];
            if (ring.pop(std::span<Item>(out, 1)) == 0) {
                wait.yield($);
                continue;
            }
            RL_ASSERT(out[0].low($) == expected);
            RL_ASSERT(out[0].high($) == expected);
            ++expected;
        }
    }
};

// The reader never sees a state that is torn or older than one it has seen, and sees the last one in the end.
struct SnapshotTest : rl::test_suite<SnapshotTest, 2> {
    argus::ring::Snapshot<Item, rl::atomic> states;

    void thread(unsigned which) {
        if (which == 0) {
            for (unsigned i = 1; i <= 3; ++i) {
                states.back() = Item(i);
                states.publish();
            }
            return;
        }
        unsigned newest = 0;
        rl::linear_backoff wait;
        while (newest < 3) {
            if (!states.refresh()) {
                wait.yield($);
                continue;
            }
            const Item& seen = states.front();
            const unsigned low = seen.low($);
            RL_ASSERT(low == seen.high($));
            RL_ASSERT(low > newest);
            newest = low;
        }
    }
};

template <class Test>
bool holds(const char* name, unsigned switches, rl::iteration_t iterations) {
    rl::test_params bounded;
    bounded.search_type = rl::sched_bound;
    bounded.context_bound = switches;
    rl::test_params random;
    random.search_type = rl::sched_random;
    random.iteration_count = iterations;
    const bool good = rl::simulate<Test>(bounded) && rl::simulate<Test>(random);
    std::printf("%s: %s\n", name, good ? "holds" : "BROKEN");
    return good;
}

}  // namespace

int main(int count, char** words) {
    const auto switches = static_cast<unsigned>(count > 1 ? std::atoi(words[1]) : 2);
    const auto iterations = static_cast<rl::iteration_t>(count > 2 ? std::atoll(words[2]) : 20'000);
    const bool ring = holds<RingTest>("spsc ring, one at a time", switches, iterations);
    const bool span = holds<SpanTest>("spsc ring, spans", switches, iterations);
    const bool snapshot = holds<SnapshotTest>("triple buffer", switches, iterations);
    return ring && span && snapshot ? 0 : 1;
}
