// Versioned, checksummed little-endian state: what detectors, auditors and the engine save and load.
// Layout: magic u32, version u32, payload, CRC-32 (ISO-HDLC) u32 of all before. Reader throws CodecError (setup only).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace argus {

class CodecError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

[[nodiscard]] std::uint32_t crc32(std::span<const std::byte> data) noexcept;

class Writer {
public:
    Writer(std::uint32_t magic, std::uint32_t version) {
        pod(magic);
        pod(version);
    }
    template <class T>
    void pod(const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        const std::size_t at = bytes_.size();
        bytes_.resize(at + sizeof(T));
        std::memcpy(bytes_.data() + at, &value, sizeof(T));
    }
    template <class T>
    void array(std::span<const T> values) {
        static_assert(std::is_trivially_copyable_v<T>);
        pod(static_cast<std::uint64_t>(values.size()));
        const auto raw = std::as_bytes(values);
        bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    }
    void text(const std::string& value) { array(std::span<const char>(value)); }
    [[nodiscard]] std::vector<std::byte> finish();

private:
    std::vector<std::byte> bytes_;
};

class Reader {
public:
    Reader(std::span<const std::byte> data, std::uint32_t magic, std::uint32_t version);
    template <class T>
    [[nodiscard]] T pod() {
        static_assert(std::is_trivially_copyable_v<T>);
        T value{};
        std::memcpy(&value, take(sizeof(T)), sizeof(T));
        return value;
    }
    // Fills `out`, whose size must equal the saved one.
    template <class T>
    void array(std::span<T> out) {
        if (pod<std::uint64_t>() != out.size()) throw CodecError("state: array length differs from this configuration");
        if (!out.empty()) std::memcpy(out.data(), take(out.size_bytes()), out.size_bytes());
    }
    [[nodiscard]] std::string text();
    [[nodiscard]] bool done() const noexcept { return data_.empty(); }

private:
    const std::byte* take(std::size_t size);
    std::span<const std::byte> data_;
};

}  // namespace argus
