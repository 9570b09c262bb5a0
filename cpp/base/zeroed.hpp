// A vector of zeros whose memory is taken from the system when it is first written: capacity that is never used
// costs address space only. For trivially copyable types whose zero bytes are their start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

namespace argus {

template <class T>
struct ZeroedAllocator {
    static_assert(std::is_trivially_copyable_v<T>);
    using value_type = T;

    ZeroedAllocator() = default;
    template <class U>
    ZeroedAllocator(const ZeroedAllocator<U>&) noexcept {}

    [[nodiscard]] T* allocate(std::size_t count) {
        constexpr std::size_t kExtra = kAligned ? 0 : alignof(T);
        void* memory = std::calloc(count * sizeof(T) + kExtra, 1);
        if (memory == nullptr) throw std::bad_alloc();
        if constexpr (kAligned) return static_cast<T*>(memory);
        auto* const begin = static_cast<std::byte*>(memory);
        const std::size_t gap = alignof(T) - reinterpret_cast<std::uintptr_t>(begin) % alignof(T);
        std::memcpy(begin + gap - sizeof(memory), &memory, sizeof(memory));
        return reinterpret_cast<T*>(begin + gap);
    }
    void deallocate(T* begin, std::size_t) noexcept {
        void* memory = begin;
        if constexpr (!kAligned) {
            std::memcpy(&memory, reinterpret_cast<std::byte*>(begin) - sizeof(memory), sizeof(memory));
        }
        std::free(memory);
    }

    // calloc has done it.
    template <class U>
    void construct(U*) noexcept {}

    friend bool operator==(const ZeroedAllocator&, const ZeroedAllocator&) noexcept { return true; }

private:
    static constexpr bool kAligned = alignof(T) <= alignof(std::max_align_t);  // by calloc itself
};

template <class T>
using ZeroedVector = std::vector<T, ZeroedAllocator<T>>;

}  // namespace argus
