// Appends msgpack to a string, each value in its shortest form; the counterpart of MsgpackReader.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace argus::events {

class MsgpackWriter {
public:
    explicit MsgpackWriter(std::string& out) noexcept : out_(out) {}

    void nil() { byte(0xc0); }
    void boolean(bool value) { byte(value ? 0xc3 : 0xc2); }
    void integer(std::int64_t value) {
        const auto bits = static_cast<std::uint64_t>(value);
        if (value >= 0) {
            if (value < 0x80) byte(static_cast<unsigned>(value));
            else if (value <= 0xff) head(0xcc, bits, 1);
            else if (value <= 0xffff) head(0xcd, bits, 2);
            else if (value <= 0xffffffffLL) head(0xce, bits, 4);
            else head(0xcf, bits, 8);
        } else if (value >= -32) {
            byte(static_cast<unsigned>(bits & 0xffU));
        } else if (value >= -0x80) {
            head(0xd0, bits, 1);
        } else if (value >= -0x8000) {
            head(0xd1, bits, 2);
        } else if (value >= -0x80000000LL) {
            head(0xd2, bits, 4);
        } else {
            head(0xd3, bits, 8);
        }
    }
    void real(double value) { head(0xcb, std::bit_cast<std::uint64_t>(value), 8); }
    void text(std::string_view value) {
        const std::size_t size = value.size();
        if (size < 32) byte(0xa0U | static_cast<unsigned>(size));
        else if (size <= 0xff) head(0xd9, size, 1);
        else if (size <= 0xffff) head(0xda, size, 2);
        else head(0xdb, size, 4);
        out_.append(value);
    }
    void array(std::size_t count) { container(count, 0x90, 0xdc); }
    void map(std::size_t count) { container(count, 0x80, 0xde); }

private:
    void byte(unsigned value) { out_.push_back(static_cast<char>(value)); }
    void head(unsigned kind, std::uint64_t value, int bytes) {
        char buffer[9];
        buffer[0] = static_cast<char>(kind);
        for (int i = 0; i < bytes; ++i) buffer[1 + i] = static_cast<char>(value >> (8 * (bytes - 1 - i)) & 0xffU);
        out_.append(buffer, static_cast<std::size_t>(bytes) + 1);
    }
    void container(std::size_t count, unsigned small, unsigned large) {
        if (count < 16) byte(small | static_cast<unsigned>(count));
        else if (count <= 0xffff) head(large, count, 2);
        else head(large + 1, count, 4);
    }

    std::string& out_;
};

}  // namespace argus::events
