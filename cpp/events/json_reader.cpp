#include "events/json_reader.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>

namespace argus::events {
namespace {

[[nodiscard]] int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// Four hexadecimal digits at `p`; false when they are not there.
[[nodiscard]] bool code_unit(const char*& p, const char* end, std::uint32_t& out) noexcept {
    if (end - p < 4) return false;
    out = 0;
    for (int i = 0; i < 4; ++i) {
        const int value = hex_digit(*p++);
        if (value < 0) return false;
        out = out << 4 | static_cast<std::uint32_t>(value);
    }
    return true;
}

void append_utf8(std::string& out, std::uint32_t code) {
    const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xc0U | code >> 6);
        put(0x80U | (code & 0x3fU));
    } else if (code < 0x10000) {
        put(0xe0U | code >> 12);
        put(0x80U | (code >> 6 & 0x3fU));
        put(0x80U | (code & 0x3fU));
    } else {
        put(0xf0U | code >> 18);
        put(0x80U | (code >> 12 & 0x3fU));
        put(0x80U | (code >> 6 & 0x3fU));
        put(0x80U | (code & 0x3fU));
    }
}

}  // namespace

bool to_double(std::string_view digits, double& out) noexcept {
    const char* end = digits.data() + digits.size();
    const auto [stop, error] = std::from_chars(digits.data(), end, out);
    if (error == std::errc::result_out_of_range) {
        // Too small is zero, too large is a fault: the sign of the exponent tells which, whatever the digits.
        const std::size_t exponent = digits.find_first_of("eE");
        const bool small = exponent != std::string_view::npos ? digits[exponent + 1] == '-'
                                                              : digits.find_first_of("123456789") > digits.find('.');
        out = digits.front() == '-' ? -0.0 : 0.0;
        return small;
    }
    return error == std::errc{} && stop == end && std::isfinite(out);
}

bool JsonReader::word(std::string_view expected) noexcept {
    if (static_cast<std::size_t>(end_ - at_) < expected.size() ||
        std::string_view(at_, expected.size()) != expected) {
        return fail();
    }
    at_ += expected.size();
    return true;
}

bool JsonReader::boolean(bool& out) noexcept {
    out = at_ != end_ && *at_ == 't';
    return word(out ? "true" : "false");
}

bool JsonReader::number(std::string_view& digits, bool& integer) noexcept {
    const char* start = at_;
    const auto run = [this] {
        const char* from = at_;
        while (at_ != end_ && digit(*at_)) ++at_;
        return at_ - from;
    };
    if (at_ != end_ && *at_ == '-') ++at_;
    const bool zero = at_ != end_ && *at_ == '0';
    const auto whole = run();
    if (whole == 0 || (zero && whole > 1)) return fail();
    integer = true;
    if (at_ != end_ && *at_ == '.') {
        ++at_;
        integer = false;
        if (run() == 0) return fail();
    }
    if (at_ != end_ && (*at_ == 'e' || *at_ == 'E')) {
        ++at_;
        integer = false;
        if (at_ != end_ && (*at_ == '+' || *at_ == '-')) ++at_;
        if (run() == 0) return fail();
    }
    digits = {start, static_cast<std::size_t>(at_ - start)};
    return true;
}

const char* JsonReader::plain_end(const char* p) const noexcept {
    constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
    constexpr std::uint64_t kHigh = 0x8080808080808080ULL;
    while (end_ - p >= 8) {
        const std::uint64_t word = load64(p);
        const std::uint64_t quote = word ^ kOnes * '"';
        const std::uint64_t slash = word ^ kOnes * '\\';
        // A high bit where a byte is zero (quote, slash) or below a space; bytes above 0x7f are none of these.
        const std::uint64_t found =
            (((quote - kOnes) & ~quote) | ((slash - kOnes) & ~slash) | ((word - kOnes * 0x20) & ~word)) & kHigh;
        if (found != 0) {
            if constexpr (std::endian::native == std::endian::little) return p + std::countr_zero(found) / 8;
            break;
        }
        p += 8;
    }
    while (p != end_ && *p != '"' && *p != '\\' && static_cast<unsigned char>(*p) >= 0x20) ++p;
    return p;
}

bool JsonReader::escape(const char*& p, std::string* out) const {
    if (end_ - p < 2) return false;
    const char kind = p[1];
    p += 2;
    char plain = 0;
    switch (kind) {
        case '"':
        case '\\':
        case '/': plain = kind; break;
        case 'b': plain = '\b'; break;
        case 'f': plain = '\f'; break;
        case 'n': plain = '\n'; break;
        case 'r': plain = '\r'; break;
        case 't': plain = '\t'; break;
        case 'u': {
            std::uint32_t code = 0;
            if (!code_unit(p, end_, code)) return false;
            if (code >= 0xdc00 && code < 0xe000) return false;
            if (code >= 0xd800 && code < 0xdc00) {
                std::uint32_t low = 0;
                if (end_ - p < 6 || p[0] != '\\' || p[1] != 'u') return false;
                p += 2;
                if (!code_unit(p, end_, low) || low < 0xdc00 || low >= 0xe000) return false;
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
            if (out != nullptr) append_utf8(*out, code);
            return true;
        }
        default: return false;
    }
    if (out != nullptr) out->push_back(plain);
    return true;
}

bool JsonReader::text(std::string_view& out) {
    if (at_ == end_ || *at_ != '"') return fail();
    const char* start = ++at_;
    const char* p = plain_end(start);
    if (p != end_ && *p == '"') {
        out = {start, static_cast<std::size_t>(p - start)};
        at_ = p + 1;
        return true;
    }
    const std::size_t from = arena_->size();
    for (;;) {
        arena_->append(start, static_cast<std::size_t>(p - start));
        if (p == end_) return fail();
        if (*p == '"') break;
        if (*p != '\\' || !escape(p, arena_)) return fail();
        start = p;
        p = plain_end(p);
    }
    at_ = p + 1;
    out = {arena_->data() + from, arena_->size() - from};
    return true;
}

bool JsonReader::skip_text() noexcept {
    if (at_ == end_ || *at_ != '"') return fail();
    const char* p = plain_end(at_ + 1);
    while (p != end_ && *p == '\\') {
        if (!escape(p, nullptr)) return fail();
        p = plain_end(p);
    }
    if (p == end_ || *p != '"') return fail();
    at_ = p + 1;
    return true;
}

bool JsonReader::skip_scalar() noexcept {
    std::string_view digits;
    bool flag = false;
    switch (peek()) {
        case Json::text: return skip_text();
        case Json::number: return number(digits, flag);
        case Json::boolean: return boolean(flag);
        case Json::null: return null();
        default: return fail();
    }
}

bool JsonReader::skip() noexcept {
    std::array<bool, kMaxJsonDepth> object;  // of each open container
    std::size_t depth = 0;
    for (;;) {
        const Json kind = peek();
        if (kind == Json::array || kind == Json::object) {
            if (depth == object.size()) return fail();
            const bool is_object = kind == Json::object;
            ++at_;
            object[depth++] = is_object;
            if (close(is_object ? '}' : ']')) {
                --depth;
            } else {
                if (is_object && (space(), !skip_text() || !colon())) return false;
                continue;
            }
        } else if (!skip_scalar()) {
            return false;
        }
        // A value is done: go on with the container it is in, or end those that end here.
        for (;;) {
            if (depth == 0) return true;
            if (comma()) {
                if (object[depth - 1] && (space(), !skip_text() || !colon())) return false;
                break;
            }
            if (!close(object[depth - 1] ? '}' : ']')) return fail();
            --depth;
        }
    }
}

}  // namespace argus::events
