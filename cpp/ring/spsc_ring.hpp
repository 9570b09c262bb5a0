// Wait-free single-producer single-consumer ring. try_push fails when full (the caller counts it); nothing blocks.
// Each side caches the other's index and owns a cache line, so a hit touches no shared line; acquire/release on the
// index itself and no standalone fence, which the thread sanitizer does not model.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace argus::ring {

inline constexpr std::size_t kCacheLine = 64;

template <class T>
inline constexpr bool kRingItem = std::is_trivially_copyable_v<T>;

// `Atomic` is another than std::atomic only under a model checker (tests/model).
template <class T, template <class> class Atomic = std::atomic>
class SpscRing {
    static_assert(kRingItem<T>, "ring items are copied as bytes");

public:
    // capacity: a power of two, at least 2. Throws std::invalid_argument otherwise.
    explicit SpscRing(std::size_t capacity) : mask_(capacity - 1) {
        if (capacity < 2 || !std::has_single_bit(capacity)) {
            throw std::invalid_argument("SpscRing: capacity must be a power of two, at least 2");
        }
        items_ = std::make_unique<T[]>(capacity);
    }

    // Producer only. False = full, nothing stored.
    [[nodiscard]] bool try_push(const T& item) noexcept {
        const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - cached_head_ > mask_) {
            cached_head_ = head_.load(std::memory_order_acquire);
            if (tail - cached_head_ > mask_) return false;
        }
        items_[tail & mask_] = item;
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }

    // Producer only. fill(item) writes the item where it will lie, all of it, and says whether it is one: what is made
    // elsewhere first is copied. False = full, or it was none; nothing stored.
    template <class Fill>
    [[nodiscard]] bool try_push_with(Fill&& fill) noexcept(noexcept(fill(std::declval<T&>()))) {
        const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - cached_head_ > mask_) {
            cached_head_ = head_.load(std::memory_order_acquire);
            if (tail - cached_head_ > mask_) return false;
        }
        if (!fill(items_[tail & mask_])) return false;
        tail_.store(tail + 1, std::memory_order_release);
        return true;
    }

    // Producer only. Fetches the place of an item that will be pushed so many items later.
    void expect(std::size_t ahead) const noexcept {
        const std::uint64_t number = tail_.load(std::memory_order_relaxed) + ahead;
        const auto* place = reinterpret_cast<const std::byte*>(&items_[number & mask_]);
        for (std::size_t at = 0; at < sizeof(T); at += kCacheLine) __builtin_prefetch(place + at, 1);
        __builtin_prefetch(place + sizeof(T) - 1, 1);
    }

    // Producer only. Pushes as many of `items` as fit, in order; returns how many.
    [[nodiscard]] std::size_t try_push(std::span<const T> items) noexcept {
        const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        std::size_t room = capacity() - static_cast<std::size_t>(tail - cached_head_);
        if (room < items.size()) {
            cached_head_ = head_.load(std::memory_order_acquire);
            room = capacity() - static_cast<std::size_t>(tail - cached_head_);
        }
        const std::size_t count = std::min(room, items.size());
        const std::size_t start = static_cast<std::size_t>(tail & mask_);
        const std::size_t first = std::min(count, capacity() - start);
        std::copy_n(items.data(), first, items_.get() + start);
        std::copy_n(items.data() + first, count - first, items_.get());
        tail_.store(tail + count, std::memory_order_release);
        return count;
    }

    // Consumer only. Moves up to out.size() items into `out`; returns how many.
    [[nodiscard]] std::size_t pop(std::span<T> out) noexcept {
        const std::uint64_t head = head_.load(std::memory_order_relaxed);
        if (cached_tail_ - head < out.size()) cached_tail_ = tail_.load(std::memory_order_acquire);
        const std::size_t count = std::min(static_cast<std::size_t>(cached_tail_ - head), out.size());
        const std::size_t start = static_cast<std::size_t>(head & mask_);
        const std::size_t first = std::min(count, capacity() - start);
        std::copy_n(items_.get() + start, first, out.data());
        std::copy_n(items_.get(), count - first, out.data() + first);
        head_.store(head + count, std::memory_order_release);
        return count;
    }

    [[nodiscard]] std::size_t capacity() const noexcept { return static_cast<std::size_t>(mask_) + 1; }

private:
    std::unique_ptr<T[]> items_;
    std::uint64_t mask_;
    alignas(kCacheLine) Atomic<std::uint64_t> tail_{0};
    std::uint64_t cached_head_ = 0;  // the producer's last sight of head_
    alignas(kCacheLine) Atomic<std::uint64_t> head_{0};
    std::uint64_t cached_tail_ = 0;  // the consumer's last sight of tail_
};

}  // namespace argus::ring
