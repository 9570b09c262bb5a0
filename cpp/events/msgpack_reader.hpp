// A bounded reader of msgpack over the caller's bytes: no copy, no allocation, no recursion, no exception. Every length
// is checked against the bytes that are left before it is used, so hostile input costs at most its own size.
// Format: github.com/msgpack/msgpack/blob/master/spec.md. Extensions are stepped over here and refused by validate().
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace argus::events {

enum class Wire : std::uint8_t {
    nil, boolean, integer, big_integer, real, text, binary, array, map, extension,
};

struct Value {
    Wire wire = Wire::nil;
    bool boolean = false;
    std::int64_t integer = 0;  // wire == integer; a big_integer does not fit and only its existence is told
    double real = 0.0;
    std::string_view bytes;   // text (not yet validated), binary, extension payload
    std::uint32_t count = 0;  // entries of an array or a map
};

// Why a value is refused.
enum class Fault : std::uint8_t {
    none, truncated, reserved, too_deep, extension, non_finite, bad_utf8, duplicate_key, too_many_keys, key_type,
};

inline constexpr int kMaxDepth = 4;                   // nesting of containers, the outermost counted
inline constexpr std::uint32_t kMaxNestedKeys = 64;   // entries of a map under an unknown key

[[nodiscard]] bool valid_utf8(std::string_view text) noexcept;

class MsgpackReader {
public:
    explicit MsgpackReader(std::span<const std::byte> data) noexcept
        : begin_(reinterpret_cast<const char*>(data.data())), position_(begin_), end_(begin_ + data.size()) {}

    // Reads one scalar, or the head of one container; on failure the position is undefined, see rewind().
    [[nodiscard]] Fault next(Value& out) noexcept;

    // Steps over one whole value of any depth. False when the bytes end before it does, or hold the reserved byte.
    [[nodiscard]] bool skip() noexcept;

    // Steps over one whole value and checks it: depth (it would be opened at `depth`, 1 = outermost), UTF-8, finite
    // numbers, no extension, no duplicate key. After a fault the position is undefined.
    [[nodiscard]] Fault validate(int depth) noexcept;

    [[nodiscard]] std::size_t offset() const noexcept { return static_cast<std::size_t>(position_ - begin_); }
    [[nodiscard]] std::size_t left() const noexcept { return static_cast<std::size_t>(end_ - position_); }
    void rewind(std::size_t offset) noexcept { position_ = begin_ + offset; }
    [[nodiscard]] std::span<const std::byte> since(std::size_t offset) const noexcept {
        return {reinterpret_cast<const std::byte*>(begin_ + offset), this->offset() - offset};
    }

private:
    template <class T>
    [[nodiscard]] bool big_endian(T& out) noexcept;
    template <class Length>
    [[nodiscard]] Fault take_bytes(Value& out, Wire wire, std::size_t extra) noexcept;
    template <class Length>
    [[nodiscard]] Fault take_count(Value& out, Wire wire) noexcept;
    [[nodiscard]] Fault payload(Value& out, Wire wire, std::size_t size) noexcept;
    [[nodiscard]] Fault numeric(Value& out, unsigned char head) noexcept;

    const char* begin_;
    const char* position_;
    const char* end_;
};

}  // namespace argus::events
