// Bounded tables without allocation after construction. Memory is mapped once and touched only as it is used, so a
// table sized for the worst case costs nothing until then.
//   MappedArray  a zeroed array of trivially copyable values
//   Slab         entries found by a 64-bit hash plus an equality test, in intrusive lists ordered by last use; a full
//                slab evicts what was used longest ago, first from the higher-numbered (less precious) list
#pragma once

#include <sys/mman.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "base/assert.hpp"
#include "base/codec.hpp"

namespace argus::events {

inline constexpr std::uint32_t kNone = 0xffffffffU;

template <class T>
class MappedArray {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    explicit MappedArray(std::size_t size) : size_(size) {
        if (size == 0) return;
        void* at = mmap(nullptr, size * sizeof(T), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<T*>(at);
    }
    ~MappedArray() {
        if (data_ != nullptr) munmap(data_, size_ * sizeof(T));
    }
    MappedArray(const MappedArray&) = delete;
    MappedArray& operator=(const MappedArray&) = delete;
    MappedArray(MappedArray&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    MappedArray& operator=(MappedArray&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }

    [[nodiscard]] T& operator[](std::size_t i) noexcept { return data_[i]; }
    [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return data_[i]; }
    [[nodiscard]] T* data() noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    // Zeroes entries [first, first + count); whole pages go back to the kernel.
    void clear(std::size_t first, std::size_t count) noexcept {
        auto* begin = reinterpret_cast<unsigned char*>(data_ + first);
        const std::size_t bytes = count * sizeof(T);
        constexpr std::size_t kPage = 4096;
        if (bytes >= kPage && reinterpret_cast<std::uintptr_t>(begin) % kPage == 0 && bytes % kPage == 0 &&
            madvise(begin, bytes, MADV_DONTNEED) == 0) {
            return;
        }
        for (std::size_t i = 0; i < bytes; ++i) begin[i] = 0;
    }

private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

template <class Entry, std::size_t kLists = 1>
class Slab {
    static_assert(std::is_trivially_copyable_v<Entry>);
    struct Node {
        std::uint64_t hash;
        std::uint32_t prev, next, generation;
        std::uint8_t list, live;
        Entry entry;
    };
    struct List {
        std::uint32_t oldest = kNone, newest = kNone, size = 0;
    };

public:
    explicit Slab(std::uint32_t capacity)
        : capacity_(capacity), nodes_(capacity), index_(std::bit_ceil(std::size_t{capacity} * 2)),
          mask_(index_.size() - 1) {
        ARGUS_ASSERT(capacity > 0);
    }

    [[nodiscard]] Entry& operator[](std::uint32_t i) noexcept { return nodes_[i].entry; }
    [[nodiscard]] const Entry& operator[](std::uint32_t i) const noexcept { return nodes_[i].entry; }
    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
    [[nodiscard]] std::uint32_t size(std::size_t list) const noexcept { return lists_[list].size; }
    [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] std::uint64_t evicted() const noexcept { return evicted_; }
    [[nodiscard]] std::uint32_t generation(std::uint32_t i) const noexcept { return nodes_[i].generation; }
    [[nodiscard]] std::uint64_t hash(std::uint32_t i) const noexcept { return nodes_[i].hash; }
    [[nodiscard]] bool holds(std::uint32_t i, std::uint32_t generation) const noexcept {
        return i < capacity_ && nodes_[i].live != 0 && nodes_[i].generation == generation;
    }
    [[nodiscard]] std::uint32_t oldest(std::size_t list = 0) const noexcept { return lists_[list].oldest; }
    [[nodiscard]] std::uint32_t newest(std::size_t list = 0) const noexcept { return lists_[list].newest; }
    [[nodiscard]] std::uint32_t older(std::uint32_t i) const noexcept { return nodes_[i].prev; }
    [[nodiscard]] std::uint32_t newer(std::uint32_t i) const noexcept { return nodes_[i].next; }
    [[nodiscard]] std::uint8_t list_of(std::uint32_t i) const noexcept { return nodes_[i].list; }

    template <class Equal>
    [[nodiscard]] std::uint32_t find(std::uint64_t hash, Equal&& equal) const noexcept {
        for (std::size_t slot = hash & mask_; index_[slot] != 0; slot = (slot + 1) & mask_) {
            const std::uint32_t i = index_[slot] - 1;
            if (nodes_[i].hash == hash && equal(nodes_[i].entry)) return i;
        }
        return kNone;
    }

    // A zeroed entry as the newest of `list`. A full slab evicts first; on_evict(index) sees the entry before it goes.
    template <class OnEvict>
    [[nodiscard]] std::uint32_t create(std::uint64_t hash, std::size_t list, OnEvict&& on_evict) noexcept {
        if (size_ == capacity_) {
            std::size_t from = kLists - 1;
            while (from > 0 && lists_[from].oldest == kNone) --from;
            const std::uint32_t victim = lists_[from].oldest;
            on_evict(victim);
            erase(victim);
            ++evicted_;
        }
        const std::uint32_t i = free_ != kNone ? free_ : used_++;
        if (i == free_) free_ = nodes_[i].next;
        Node& node = nodes_[i];
        node.entry = Entry{};
        node.hash = hash;
        node.live = 1;
        ++node.generation;
        ++size_;
        link(i, list);
        std::size_t slot = hash & mask_;
        while (index_[slot] != 0) slot = (slot + 1) & mask_;
        index_[slot] = i + 1;
        return i;
    }

    void touch(std::uint32_t i) noexcept { move(i, nodes_[i].list); }
    void move(std::uint32_t i, std::size_t list) noexcept {
        if (nodes_[i].list == list && lists_[list].newest == i) return;
        unlink(i);
        link(i, list);
    }

    void erase(std::uint32_t i) noexcept {
        unlink(i);
        std::size_t slot = nodes_[i].hash & mask_;
        while (index_[slot] != i + 1) slot = (slot + 1) & mask_;
        close_gap(slot);
        nodes_[i].live = 0;
        nodes_[i].next = free_;
        free_ = i;
        --size_;
    }

    // Slot numbers and generations are kept, so that other state may refer to them across a save.
    void save(Writer& writer) const {
        writer.pod(capacity_);
        writer.pod(used_);
        writer.pod(evicted_);
        for (std::uint32_t i = 0; i < used_; ++i) writer.pod(nodes_[i].generation);
        for (const List& list : lists_) {
            std::uint32_t count = 0;
            for (std::uint32_t i = list.oldest; i != kNone; i = nodes_[i].next) ++count;
            writer.pod(count);
            for (std::uint32_t i = list.oldest; i != kNone; i = nodes_[i].next) {
                writer.pod(i);
                writer.pod(nodes_[i].hash);
                writer.pod(nodes_[i].entry);
            }
        }
    }
    void load(Reader& reader) {
        if (reader.pod<std::uint32_t>() != capacity_) {
            throw CodecError("state: table sizes differ from this configuration");
        }
        reset();
        used_ = reader.pod<std::uint32_t>();
        evicted_ = reader.pod<std::uint64_t>();
        if (used_ > capacity_) throw CodecError("state: more entries than the table holds");
        for (std::uint32_t i = 0; i < used_; ++i) nodes_[i].generation = reader.pod<std::uint32_t>();
        for (std::size_t list = 0; list < kLists; ++list) {
            const auto count = reader.pod<std::uint32_t>();
            for (std::uint32_t n = 0; n < count; ++n) place(reader, list);
        }
        for (std::uint32_t i = 0; i < used_; ++i) {
            if (nodes_[i].live != 0) continue;
            nodes_[i].next = free_;
            free_ = i;
        }
    }

private:
    void place(Reader& reader, std::size_t list) {
        const auto i = reader.pod<std::uint32_t>();
        if (i >= used_ || nodes_[i].live != 0) throw CodecError("state: an entry is out of place");
        nodes_[i].hash = reader.pod<std::uint64_t>();
        nodes_[i].entry = reader.pod<Entry>();
        nodes_[i].live = 1;
        ++size_;
        link(i, list);
        std::size_t slot = nodes_[i].hash & mask_;
        while (index_[slot] != 0) slot = (slot + 1) & mask_;
        index_[slot] = i + 1;
    }
    void reset() noexcept {
        nodes_.clear(0, nodes_.size());
        index_.clear(0, index_.size());
        for (List& list : lists_) list = List{};
        used_ = size_ = 0;
        free_ = kNone;
    }
    void link(std::uint32_t i, std::size_t list) noexcept {
        Node& node = nodes_[i];
        node.list = static_cast<std::uint8_t>(list);
        node.prev = lists_[list].newest;
        node.next = kNone;
        if (node.prev != kNone) nodes_[node.prev].next = i;
        else lists_[list].oldest = i;
        lists_[list].newest = i;
        ++lists_[list].size;
    }
    void unlink(std::uint32_t i) noexcept {
        const Node& node = nodes_[i];
        List& list = lists_[node.list];
        if (node.prev != kNone) nodes_[node.prev].next = node.next;
        else list.oldest = node.next;
        if (node.next != kNone) nodes_[node.next].prev = node.prev;
        else list.newest = node.prev;
        --list.size;
    }
    // Linear probing without tombstones: later entries of the cluster move back into the gap.
    void close_gap(std::size_t gap) noexcept {
        for (std::size_t slot = (gap + 1) & mask_; index_[slot] != 0; slot = (slot + 1) & mask_) {
            const std::size_t home = nodes_[index_[slot] - 1].hash & mask_;
            if (((slot - home) & mask_) >= ((slot - gap) & mask_)) {
                index_[gap] = index_[slot];
                gap = slot;
            }
        }
        index_[gap] = 0;
    }

    std::uint32_t capacity_;
    MappedArray<Node> nodes_;
    MappedArray<std::uint32_t> index_;
    std::size_t mask_;
    List lists_[kLists];
    std::uint32_t used_ = 0, size_ = 0, free_ = kNone;
    std::uint64_t evicted_ = 0;
};

}  // namespace argus::events
