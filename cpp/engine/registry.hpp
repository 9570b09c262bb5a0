// Slots: where series live. Samplers open and close them (start and hot-plug only, so a mutex is fair); the main thread
// learns of it through a list of changes, guarded by one atomic version that it compares on every drain.
// A slot is reused with a higher generation, so samples of its predecessor can be told apart.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "model/series.hpp"

namespace argus::engine {

inline constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();

class Registry {
public:
    struct Change {
        Slot slot;
        bool opened = false;
        SeriesInfo info;  // of an opened slot
    };

    explicit Registry(std::uint32_t capacity) : capacity_(capacity) {}

    // Any thread. Slot.index = kNoSlot when all are in use; counted in refused().
    [[nodiscard]] Slot open(SeriesInfo info) {
        const std::lock_guard lock(mutex_);
        Slot slot{kNoSlot, 0};
        if (!free_.empty()) {
            slot.index = free_.back();
            free_.pop_back();
        } else if (generations_.size() < capacity_) {
            slot.index = static_cast<std::uint32_t>(generations_.size());
            generations_.push_back(0);
        } else {
            refused_.fetch_add(1, std::memory_order_relaxed);
            return slot;
        }
        slot.generation = ++generations_[slot.index];
        changes_.push_back({slot, true, std::move(info)});
        version_.fetch_add(1, std::memory_order_release);
        return slot;
    }

    // Any thread. A slot that is not open in this generation is left alone.
    void close(Slot slot) {
        const std::lock_guard lock(mutex_);
        if (slot.index >= generations_.size() || generations_[slot.index] != slot.generation) return;
        ++generations_[slot.index];  // what is still under way for the closed one no longer matches
        free_.push_back(slot.index);
        changes_.push_back({slot, false, {}});
        version_.fetch_add(1, std::memory_order_release);
    }

    [[nodiscard]] std::uint64_t version() const noexcept { return version_.load(std::memory_order_acquire); }
    [[nodiscard]] std::uint64_t refused() const noexcept { return refused_.load(std::memory_order_relaxed); }

    // One reader: the changes since the last call, in order.
    [[nodiscard]] std::vector<Change> take_changes() {
        const std::lock_guard lock(mutex_);
        return std::exchange(changes_, {});
    }

private:
    const std::uint32_t capacity_;
    std::mutex mutex_;
    std::vector<std::uint32_t> generations_;  // of each slot; rises at every opening and closing
    std::vector<std::uint32_t> free_;
    std::vector<Change> changes_;
    std::atomic<std::uint64_t> version_{0};
    std::atomic<std::uint64_t> refused_{0};
};

}  // namespace argus::engine
