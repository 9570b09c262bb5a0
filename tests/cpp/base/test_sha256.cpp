#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/sha256.hpp"

namespace {

std::string hex(const std::array<std::uint8_t, 32>& digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string out;
    for (const std::uint8_t byte : digest) {
        out.push_back(kDigits[byte >> 4]);
        out.push_back(kDigits[byte & 15]);
    }
    return out;
}

std::string digest_of(std::span<const std::byte> data, std::size_t step) {
    argus::Sha256 sha;
    for (std::size_t at = 0; at < data.size(); at += step) {
        sha.update(data.subspan(at, std::min(step, data.size() - at)));
    }
    return hex(sha.finish());
}

}  // namespace

TEST_CASE("sha256: lengths around every block boundary, in whatever pieces, are what hashlib says") {
    struct Known {
        std::size_t size;
        const char* digest;
    };
    const Known known[] = {
        {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {1, "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"},
        {3, "6ab0dba1f4f1dfbb37b4f9eeb092c09fca4900ad32bdcd147d8dde35d6c87c35"},
        {55, "81afe5b788dc2ce138ff83d9b20164db75a94d75d2b2432eea4a0ef605088c72"},
        {56, "2aba54f0ac632420a2b502431408866e40e1d5e430df4cd822642c78ab2eb9c1"},
        {57, "903284efbf9100e8ba1614ec65eacacad125e03f857cae7acbf8b73b23e0fdfe"},
        {63, "733d3d4ee79ee67145bf73da13588f6f235d37414fc64b14a2f00f1762792f5e"},
        {64, "79322907b3e9d013d7dc2c2f256674dbf733045cde01df3539271c6f5605feb8"},
        {65, "d85c007c6eb440f085afa2b84f6f2bce4658b240e9f62cb1364bf0485a57e720"},
        {119, "6c87eedf096b345de205b702e5223b73b447a3207791ded3ea007ba15ed6736e"},
        {120, "42500cf6a1e3936d6b9e0bcfe296d654b63255e525487d3634d0b15fde591c4d"},
        {127, "68f6ff710276900c0ffbbc57426f67e00c2e01f0750c7edc25ac06b8ce7a8095"},
        {128, "489d55fea9a73af36b6dd0be7b4117d8e5683386d39544e8a44c99a87f368707"},
        {1000, "6b0df76627243d095b0c4400cb658b7e804dd03461cc03aee8fc8fe0bcada168"},
    };
    for (const Known& k : known) {
        std::vector<std::byte> data(k.size);
        for (std::size_t i = 0; i < k.size; ++i) data[i] = static_cast<std::byte>(i * 7 + k.size);
        for (const std::size_t step : {1, 7, 64, 65, 4096}) CHECK(digest_of(data, step) == k.digest);
    }
}

TEST_CASE("sha256: a million times 'a', the standard's long example") {
    const std::vector<std::byte> data(1'000'000, std::byte{'a'});
    CHECK(digest_of(data, 4096) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("sha256: of a text, as lower-case digits") {
    const auto digits = argus::sha256_hex("abc");
    CHECK(std::string(digits.data(), digits.size()) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
