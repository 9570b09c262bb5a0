// A bounded reader of the protobuf wire format over the caller's bytes: no copy, no allocation, no recursion, no
// exception. Source: protobuf.dev/programming-guides/encoding. Groups, which no message read here has, are a fault.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace argus::events {

struct ProtobufField {
    enum class Wire : std::uint8_t { varint, fixed64, bytes, fixed32 };
    std::uint32_t number = 0;
    Wire wire = Wire::varint;
    std::uint64_t value = 0;  // varint, fixed64, fixed32
    std::string_view bytes;   // text, bytes, or another message

    [[nodiscard]] bool is(std::uint32_t wanted, Wire kind) const noexcept { return number == wanted && wire == kind; }
    [[nodiscard]] bool message(std::uint32_t wanted) const noexcept { return is(wanted, Wire::bytes); }
};

class ProtobufReader {
public:
    explicit ProtobufReader(std::string_view message) noexcept
        : at_(message.data()), end_(message.data() + message.size()) {}

    // The next field; false at the message's end or at a fault, which failed() tells apart.
    [[nodiscard]] bool next(ProtobufField& out) noexcept {
        if (at_ == end_ || failed_) return false;
        std::uint64_t tag = 0;
        if (!varint(tag) || tag >> 32 != 0 || tag >> 3 == 0) return fail();
        out.number = static_cast<std::uint32_t>(tag >> 3);
        switch (tag & 7U) {
            case 0: out.wire = ProtobufField::Wire::varint; return varint(out.value) || fail();
            case 1: out.wire = ProtobufField::Wire::fixed64; return fixed<std::uint64_t>(out.value) || fail();
            case 5: out.wire = ProtobufField::Wire::fixed32; return fixed<std::uint32_t>(out.value) || fail();
            case 2: {
                std::uint64_t size = 0;
                if (!varint(size) || size > static_cast<std::uint64_t>(end_ - at_)) return fail();
                out.wire = ProtobufField::Wire::bytes;
                out.bytes = {at_, static_cast<std::size_t>(size)};
                at_ += size;
                return true;
            }
            default: return fail();
        }
    }
    [[nodiscard]] bool failed() const noexcept { return failed_; }

private:
    bool fail() noexcept {
        failed_ = true;
        return false;
    }
    [[nodiscard]] bool varint(std::uint64_t& out) noexcept {
        out = 0;
        for (unsigned shift = 0; shift < 70 && at_ != end_; shift += 7) {
            const auto byte = static_cast<unsigned char>(*at_++);
            out |= (byte & 0x7fULL) << (shift < 64 ? shift : 63);
            if (byte < 0x80) return shift < 63 || byte <= 1;
        }
        return false;
    }
    template <class T>
    [[nodiscard]] bool fixed(std::uint64_t& out) noexcept {
        if (static_cast<std::size_t>(end_ - at_) < sizeof(T)) return false;
        T raw = 0;
        for (std::size_t i = 0; i < sizeof(T); ++i) {
            raw |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(at_[i])) << (8 * i));
        }
        out = raw;
        at_ += sizeof(T);
        return true;
    }

    const char* at_;
    const char* end_;
    bool failed_ = false;
};

}  // namespace argus::events
