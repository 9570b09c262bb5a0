#include "base/codec.hpp"

namespace argus {
namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0xEDB88320U : 0U);
        table[i] = value;
    }
    return table;
}

constexpr auto kTable = make_table();

}  // namespace

std::uint32_t crc32(std::span<const std::byte> data) noexcept {
    std::uint32_t crc = 0xFFFFFFFFU;
    for (const std::byte b : data) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(b)) & 0xFFU];
    return crc ^ 0xFFFFFFFFU;
}

std::vector<std::byte> Writer::finish() {
    pod(crc32(bytes_));
    return std::move(bytes_);
}

Reader::Reader(std::span<const std::byte> data, std::uint32_t magic, std::uint32_t version) : data_(data) {
    if (data.size() < 12) throw CodecError("state: shorter than its header");
    const auto body = data.first(data.size() - 4);
    std::uint32_t stored = 0;
    std::memcpy(&stored, data.data() + body.size(), 4);
    if (crc32(body) != stored) throw CodecError("state: checksum differs, the file is damaged");
    data_ = body;
    if (pod<std::uint32_t>() != magic) throw CodecError("state: not a state of this kind");
    if (pod<std::uint32_t>() != version) throw CodecError("state: written by another version");
}

const std::byte* Reader::take(std::size_t size) {
    if (size > data_.size()) throw CodecError("state: ends too early");
    const std::byte* at = data_.data();
    data_ = data_.subspan(size);
    return at;
}

std::string Reader::text() {
    const auto size = pod<std::uint64_t>();
    if (size > data_.size()) throw CodecError("state: ends too early");
    const auto* at = reinterpret_cast<const char*>(take(size));
    return std::string(at, size);
}

}  // namespace argus
