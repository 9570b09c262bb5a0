// Triple buffer for tables: one writer publishes whole states, one reader takes the newest; neither ever waits.
// The middle index and a freshness bit are exchanged in one atomic byte.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "ring/spsc_ring.hpp"

namespace argus::ring {

// `Atomic` is another than std::atomic only under a model checker (tests/model).
template <class T, template <class> class Atomic = std::atomic>
class Snapshot {
public:
    Snapshot() = default;

    // Writer only: the buffer to fill; it holds some older state, so writers overwrite or reuse its memory.
    [[nodiscard]] T& back() noexcept { return buffers_[back_]; }

    // Writer only: makes back() the newest state and takes another buffer.
    void publish() noexcept {
        const std::uint8_t previous =
            middle_.exchange(static_cast<std::uint8_t>(back_ | kFresh), std::memory_order_acq_rel);
        back_ = previous & kIndex;
    }

    // Reader only: true if a newer state was published since the last call; front() is then that state.
    [[nodiscard]] bool refresh() noexcept {
        if ((middle_.load(std::memory_order_relaxed) & kFresh) == 0) return false;
        front_ = middle_.exchange(front_, std::memory_order_acq_rel) & kIndex;
        return true;
    }

    // Reader only: the state of the last refresh(); untouched by the writer until the next one.
    [[nodiscard]] const T& front() const noexcept { return buffers_[front_]; }

private:
    static constexpr std::uint8_t kFresh = 4;
    static constexpr std::uint8_t kIndex = 3;
    std::array<T, 3> buffers_{};
    alignas(kCacheLine) Atomic<std::uint8_t> middle_{1};
    alignas(kCacheLine) std::uint8_t back_ = 0;
    alignas(kCacheLine) std::uint8_t front_ = 2;
};

}  // namespace argus::ring
