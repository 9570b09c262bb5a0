// The last rows of every slot: what was seen, when. A ring of whole rows, because rows are written each tick
// and one slot is read seldom. NaN = not observed. One thread; readers get copies, never views.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "base/assert.hpp"
#include "base/clock.hpp"

namespace argus::ring {

template <class T = float>
class History {
    static_assert(std::is_floating_point_v<T>, "NaN marks what was not observed");

public:
    // slots, rows >= 1. Allocates slots * rows values once. Throws std::invalid_argument otherwise.
    History(std::uint32_t slots, std::uint32_t rows) : slots_(slots), rows_(rows) {
        if (slots == 0 || rows == 0)
            throw std::invalid_argument("History: slots and rows must be at least 1");
        values_.assign(std::size_t{slots} * rows, kNone);
        times_.assign(rows, 0);
    }

    // Appends one row of `slots` values; the oldest row goes when the ring is full.
    template <class V>
    void push(std::span<const V> row, Nanos time) {
        ARGUS_ASSERT(row.size() == slots_);
        T* out = values_.data() + std::size_t{next_} * slots_;
        for (std::size_t i = 0; i < slots_; ++i) out[i] = static_cast<T>(row[i]);
        times_[next_] = time;
        next_ = next_ + 1 == rows_ ? 0 : next_ + 1;
        size_ = std::min(size_ + 1, rows_);
    }

    // Copies the newest rows of one slot, oldest first; as many as there are and both spans hold. Returns how
    // many.
    std::size_t copy(std::uint32_t slot, std::span<Nanos> times, std::span<T> values) const {
        ARGUS_ASSERT(slot < slots_);
        const std::size_t count = std::min({std::size_t{size_}, times.size(), values.size()});
        std::size_t row = (std::size_t{next_} + rows_ - count) % rows_;
        for (std::size_t i = 0; i < count; ++i) {
            times[i] = times_[row];
            values[i] = values_[row * slots_ + slot];
            row = row + 1 == rows_ ? 0 : row + 1;
        }
        return count;
    }

    // A slot changed hands: its past becomes "not observed".
    void reset(std::span<const std::uint32_t> slots) {
        for (const std::uint32_t slot : slots) {
            ARGUS_ASSERT(slot < slots_);
            for (std::size_t row = 0; row < rows_; ++row) values_[row * slots_ + slot] = kNone;
        }
    }

    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }       // rows held
    [[nodiscard]] std::uint32_t capacity() const noexcept { return rows_; }   // rows at most
    [[nodiscard]] std::uint32_t slots() const noexcept { return slots_; }

private:
    static constexpr T kNone = std::numeric_limits<T>::quiet_NaN();
    std::uint32_t slots_;
    std::uint32_t rows_;
    std::uint32_t next_ = 0;
    std::uint32_t size_ = 0;
    std::vector<T> values_;
    std::vector<Nanos> times_;
};

}  // namespace argus::ring
