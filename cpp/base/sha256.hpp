// SHA-256 (FIPS 180-4), of a claimed file's content and of what identifies an argument or a record. Portable; about
// 0.2 GB/s.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace argus {

class Sha256 {
public:
    void update(std::span<const std::byte> data) noexcept;
    [[nodiscard]] std::array<std::uint8_t, 32> finish() noexcept;  // once, at the end

private:
    void block(const std::byte* data) noexcept;

    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::byte, 64> pending_{};
    std::size_t held_ = 0;     // bytes of it
    std::uint64_t bytes_ = 0;  // in all
};

[[nodiscard]] std::array<char, 64> sha256_hex(std::string_view text) noexcept;  // lower case

}  // namespace argus
