#include "events/msgpack_reader.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "events/text.hpp"

namespace argus::events {
namespace {

[[nodiscard]] bool continuation(unsigned char byte) noexcept { return (byte & 0xc0U) == 0x80U; }

// Bytes of the well-formed sequence at `p` (Unicode 15, table 3-7), 0 when there is none.
[[nodiscard]] std::size_t utf8_sequence(const unsigned char* p, std::size_t left) noexcept {
    const unsigned char lead = p[0];
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    if (lead < 0xe0) return left >= 2 && continuation(p[1]) ? 2 : 0;
    if (lead < 0xf0) {
        if (left < 3 || !continuation(p[1]) || !continuation(p[2])) return 0;
        if (lead == 0xe0 && p[1] < 0xa0) return 0;  // overlong
        if (lead == 0xed && p[1] > 0x9f) return 0;  // surrogates
        return 3;
    }
    if (left < 4 || !continuation(p[1]) || !continuation(p[2]) || !continuation(p[3])) return 0;
    if (lead == 0xf0 && p[1] < 0x90) return 0;  // overlong
    if (lead == 0xf4 && p[1] > 0x8f) return 0;  // beyond U+10FFFF
    return 4;
}

template <class T>
[[nodiscard]] T swap_to_host(T value) noexcept {
    if constexpr (std::endian::native == std::endian::big || sizeof(T) == 1) {
        return value;
    } else if constexpr (sizeof(T) == 2) {
        return static_cast<T>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
    } else if constexpr (sizeof(T) == 4) {
        return static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
    } else {
        return static_cast<T>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
    }
}

}  // namespace

bool valid_utf8(std::string_view text) noexcept {
    constexpr std::uint64_t kHighBits = 0x8080808080808080ULL;
    const auto* p = reinterpret_cast<const unsigned char*>(text.data());
    std::size_t left = text.size();
    while (left > 0) {
        while (left >= 8 && (load64(reinterpret_cast<const char*>(p)) & kHighBits) == 0) {
            p += 8;
            left -= 8;
        }
        if (left == 0) break;
        const std::size_t step = utf8_sequence(p, left);
        if (step == 0) return false;
        p += step;
        left -= step;
    }
    return true;
}

template <class T>
bool MsgpackReader::big_endian(T& out) noexcept {
    if (left() < sizeof(T)) return false;
    std::memcpy(&out, position_, sizeof(T));
    out = swap_to_host(out);
    position_ += sizeof(T);
    return true;
}

Fault MsgpackReader::payload(Value& out, Wire wire, std::size_t size) noexcept {
    if (left() < size) return Fault::truncated;
    out.wire = wire;
    out.bytes = {position_, size};
    position_ += size;
    return Fault::none;
}

template <class Length>
Fault MsgpackReader::take_bytes(Value& out, Wire wire, std::size_t extra) noexcept {
    Length length{};
    if (!big_endian(length)) return Fault::truncated;
    return payload(out, wire, std::size_t{length} + extra);
}

template <class Length>
Fault MsgpackReader::take_count(Value& out, Wire wire) noexcept {
    Length length{};
    if (!big_endian(length)) return Fault::truncated;
    out.wire = wire;
    out.count = length;
    return Fault::none;
}

Fault MsgpackReader::numeric(Value& out, unsigned char head) noexcept {
    const auto integer = [&](auto raw) {
        if (!big_endian(raw)) return Fault::truncated;
        if constexpr (std::is_same_v<decltype(raw), std::uint64_t>) {
            constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
            out.wire = raw > kMax ? Wire::big_integer : Wire::integer;
        } else {
            out.wire = Wire::integer;
        }
        out.integer = static_cast<std::int64_t>(raw);
        return Fault::none;
    };
    switch (head) {
        case 0xcc: return integer(std::uint8_t{});
        case 0xcd: return integer(std::uint16_t{});
        case 0xce: return integer(std::uint32_t{});
        case 0xcf: return integer(std::uint64_t{});
        case 0xd0: return integer(std::int8_t{});
        case 0xd1: return integer(std::int16_t{});
        case 0xd2: return integer(std::int32_t{});
        case 0xd3: return integer(std::int64_t{});
        default: break;
    }
    out.wire = Wire::real;
    if (head == 0xca) {
        std::uint32_t raw = 0;
        if (!big_endian(raw)) return Fault::truncated;
        out.real = static_cast<double>(std::bit_cast<float>(raw));
        return Fault::none;
    }
    std::uint64_t raw = 0;
    if (!big_endian(raw)) return Fault::truncated;
    out.real = std::bit_cast<double>(raw);
    return Fault::none;
}

Fault MsgpackReader::next(Value& out) noexcept {
    if (position_ == end_) return Fault::truncated;
    const auto head = static_cast<unsigned char>(*position_++);
    if (head < 0x80 || head >= 0xe0) {
        out.wire = Wire::integer;
        out.integer = static_cast<std::int8_t>(head);
        return Fault::none;
    }
    if (head >= 0xa0 && head < 0xc0) return payload(out, Wire::text, head & 0x1fU);
    if (head < 0xa0) {
        out.wire = head < 0x90 ? Wire::map : Wire::array;
        out.count = head & 0x0fU;
        return Fault::none;
    }
    switch (head) {
        case 0xc0: out.wire = Wire::nil; return Fault::none;
        case 0xc1: return Fault::reserved;
        case 0xc2:
        case 0xc3:
            out.wire = Wire::boolean;
            out.boolean = head == 0xc3;
            return Fault::none;
        case 0xc4: return take_bytes<std::uint8_t>(out, Wire::binary, 0);
        case 0xc5: return take_bytes<std::uint16_t>(out, Wire::binary, 0);
        case 0xc6: return take_bytes<std::uint32_t>(out, Wire::binary, 0);
        case 0xc7: return take_bytes<std::uint8_t>(out, Wire::extension, 1);
        case 0xc8: return take_bytes<std::uint16_t>(out, Wire::extension, 1);
        case 0xc9: return take_bytes<std::uint32_t>(out, Wire::extension, 1);
        case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
            return payload(out, Wire::extension, (std::size_t{1} << (head - 0xd4U)) + 1);
        case 0xd9: return take_bytes<std::uint8_t>(out, Wire::text, 0);
        case 0xda: return take_bytes<std::uint16_t>(out, Wire::text, 0);
        case 0xdb: return take_bytes<std::uint32_t>(out, Wire::text, 0);
        case 0xdc: return take_count<std::uint16_t>(out, Wire::array);
        case 0xdd: return take_count<std::uint32_t>(out, Wire::array);
        case 0xde: return take_count<std::uint16_t>(out, Wire::map);
        case 0xdf: return take_count<std::uint32_t>(out, Wire::map);
        default: return numeric(out, head);
    }
}

bool MsgpackReader::skip() noexcept {
    std::uint64_t open = 1;  // values still to come; each takes a byte at least, so this ends with the bytes
    Value value;
    while (open > 0) {
        if (open > left()) return false;
        if (next(value) != Fault::none) return false;
        --open;
        if (value.wire == Wire::array) open += value.count;
        if (value.wire == Wire::map) open += std::uint64_t{2} * value.count;
    }
    return true;
}

Fault MsgpackReader::validate(int depth) noexcept {
    struct Level {
        std::uint64_t open = 0;  // values still to come
        bool map = false;
        std::uint32_t keys = 0;
        std::uint64_t seen[kMaxNestedKeys];
    };
    Level levels[kMaxDepth];
    int top = -1;  // the innermost open container
    Value value;
    do {
        const bool is_key = top >= 0 && levels[top].map && levels[top].open % 2 == 0;
        if (const Fault fault = next(value); fault != Fault::none) return fault;
        if (top >= 0) --levels[top].open;
        if (value.wire == Wire::extension) return Fault::extension;
        if (value.wire == Wire::real && !std::isfinite(value.real)) return Fault::non_finite;
        if (value.wire == Wire::text && !valid_utf8(value.bytes)) return Fault::bad_utf8;
        if (is_key) {
            if (value.wire != Wire::text) return Fault::key_type;
            Level& level = levels[top];
            const std::uint64_t hash = hash_text(value.bytes);
            for (std::uint32_t i = 0; i < level.keys; ++i) {
                if (level.seen[i] == hash) return Fault::duplicate_key;
            }
            level.seen[level.keys++] = hash;
        } else if (value.wire == Wire::array || value.wire == Wire::map) {
            if (depth + top + 1 > kMaxDepth) return Fault::too_deep;
            const bool map = value.wire == Wire::map;
            if (map && value.count > kMaxNestedKeys) return Fault::too_many_keys;
            const std::uint64_t values = map ? std::uint64_t{2} * value.count : value.count;
            if (values > left()) return Fault::truncated;
            ++top;
            levels[top].open = values;
            levels[top].map = map;
            levels[top].keys = 0;
        }
        while (top >= 0 && levels[top].open == 0) --top;
    } while (top >= 0);
    return Fault::none;
}

}  // namespace argus::events
