// Short text of a known limit kept in place (no allocation), and the one 64-bit hash of the event plane.
// The hash mixes 16 bytes a step through 64x64 -> 128 bit products; it is fixed, so that a replay gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace argus::events {

__extension__ using Wide = unsigned __int128;

[[nodiscard]] inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

[[nodiscard]] inline std::uint64_t load64(const char* p) noexcept {
    std::uint64_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

[[nodiscard]] inline std::uint64_t load32(const char* p) noexcept {
    std::uint32_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// All of 1 to 8 bytes in one word; with the length it tells any two such texts apart.
[[nodiscard]] inline std::uint64_t load_short(const char* p, std::size_t size) noexcept {
    if (size >= 4) return load32(p) | (load32(p + size - 4) << 32);
    const auto byte = [p](std::size_t i) { return std::uint64_t{static_cast<unsigned char>(p[i])}; };
    return byte(0) | (byte(size / 2) << 8) | (byte(size - 1) << 16);
}

[[nodiscard]] inline std::uint64_t hash_text(std::string_view text, std::uint64_t seed = 0) noexcept {
    constexpr std::uint64_t kA = 0xa0761d6478bd642fULL;
    constexpr std::uint64_t kB = 0xe7037ed1a0b428dbULL;
    constexpr std::uint64_t kC = 0x8ebc6af09c88c6e3ULL;
    const char* p = text.data();
    std::size_t left = text.size();
    std::uint64_t state = seed ^ kC;
    while (left > 16) {
        state = mix(load64(p) ^ kA, load64(p + 8) ^ state);
        p += 16;
        left -= 16;
    }
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    if (left > 8) {
        low = load64(p);
        high = load64(p + left - 8);
    } else if (left > 0) {
        low = load_short(p, left);
    }
    state = mix(low ^ kA, high ^ state);
    return mix(state ^ kB, text.size() ^ kC);
}

// A hash of several parts in order; each part's length is mixed in, so ("ab", "c") differs from ("a", "bc").
template <class... Parts>
[[nodiscard]] inline std::uint64_t hash_parts(std::uint64_t seed, Parts... parts) noexcept {
    ((seed = hash_text(std::string_view(parts), seed)), ...);
    return seed;
}

template <std::size_t kCapacity>
class InlineText {
    static_assert(kCapacity <= 255);

public:
    InlineText() = default;
    explicit InlineText(std::string_view text) noexcept { assign(text); }

    // Longer text is cut: callers pass text whose limit the decoder has checked.
    void assign(std::string_view text) noexcept {
        size_ = static_cast<std::uint8_t>(text.size() < kCapacity ? text.size() : kCapacity);
        if (size_ != 0) std::memcpy(data_, text.data(), size_);
    }
    [[nodiscard]] std::string_view view() const noexcept { return {data_, size_}; }
    [[nodiscard]] std::string str() const { return std::string(view()); }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] bool operator==(std::string_view other) const noexcept { return view() == other; }

private:
    std::uint8_t size_ = 0;
    char data_[kCapacity] = {};
};

}  // namespace argus::events
