// A strict scanner for the kernel's text files. Numbers are bounded: no sign where none belongs, no overflow, no digits
// glued to letters. Nothing here reads past the view, allocates or throws.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace argus::sources {

class Scanner {
public:
    explicit Scanner(std::string_view text) noexcept : at_(text.data()), end_(text.data() + text.size()) {}

    [[nodiscard]] bool done() const noexcept { return at_ == end_; }
    [[nodiscard]] std::string_view rest() const noexcept {
        return {at_, static_cast<std::size_t>(end_ - at_)};
    }

    // The next line without its newline; false at the end of the text, or of its complete lines: the kernel ends every
    // line, so one without its newline was cut, perhaps inside a number, and is left in rest().
    [[nodiscard]] bool line(std::string_view& out) noexcept {
        const std::size_t size = rest().find('\n');
        if (size == std::string_view::npos) return false;
        out = {at_, size};
        at_ += size + 1;
        return true;
    }

    void skip_blanks() noexcept {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\t')) ++at_;
    }

    [[nodiscard]] bool literal(std::string_view expected) noexcept {
        if (!rest().starts_with(expected)) return false;
        at_ += expected.size();
        return true;
    }

    // A run without blanks and newlines, after leading blanks; empty at the end of the line.
    [[nodiscard]] std::string_view word() noexcept {
        skip_blanks();
        const char* start = at_;
        while (at_ != end_ && *at_ != ' ' && *at_ != '\t' && *at_ != '\n') ++at_;
        return {start, static_cast<std::size_t>(at_ - start)};
    }

    // An unsigned decimal of 64 bits after optional blanks, ended by a blank, a newline or the end of the text.
    [[nodiscard]] bool number(std::uint64_t& out) noexcept {
        skip_blanks();
        const char* start = at_;
        std::uint64_t value = 0;
        while (at_ != end_ && digit(*at_)) {
            const auto d = static_cast<std::uint64_t>(*at_ - '0');
            if (value >= kMax / 10 && (value > kMax / 10 || d > kMax % 10)) return false;
            value = value * 10 + d;
            ++at_;
        }
        if (at_ == start || !at_boundary()) return false;
        out = value;
        return true;
    }

    // The same with an optional minus sign, 64 bits.
    [[nodiscard]] bool signed_number(std::int64_t& out) noexcept {
        skip_blanks();
        const bool negative = at_ != end_ && *at_ == '-';
        if (negative) ++at_;
        if (at_ == end_ || !digit(*at_)) return false;
        std::uint64_t magnitude = 0;
        if (!number(magnitude)) return false;
        constexpr auto limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
        if (magnitude > limit) return false;
        out = negative ? -static_cast<std::int64_t>(magnitude) : static_cast<std::int64_t>(magnitude);
        return true;
    }

    // "12.34": digits, a point, 1 to 9 digits.
    [[nodiscard]] bool decimal(double& out) noexcept {
        skip_blanks();
        std::uint64_t whole = 0;
        std::uint64_t fraction = 0;
        std::uint64_t scale = 1;
        const char* start = at_;
        for (; at_ != end_ && digit(*at_) && at_ - start < 18; ++at_) {
            whole = whole * 10 + static_cast<std::uint64_t>(*at_ - '0');
        }
        if (at_ == start || !literal(".")) return false;
        for (; at_ != end_ && digit(*at_) && scale < 1'000'000'000; ++at_) {
            fraction = fraction * 10 + static_cast<std::uint64_t>(*at_ - '0');
            scale *= 10;
        }
        if (scale == 1 || !at_boundary()) return false;
        out = static_cast<double>(whole) + static_cast<double>(fraction) / static_cast<double>(scale);
        return true;
    }

private:
    static constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
    static bool digit(char c) noexcept { return c >= '0' && c <= '9'; }
    bool at_boundary() const noexcept { return at_ == end_ || *at_ == ' ' || *at_ == '\t' || *at_ == '\n'; }

    const char* at_;
    const char* end_;
};

// A whole word of 1 to 16 hexadecimal digits, small letters as the kernel prints them.
[[nodiscard]] inline bool parse_hexadecimal(std::string_view word, std::uint64_t& out) noexcept {
    if (word.empty() || word.size() > 16) return false;
    out = 0;
    for (const char c : word) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return false;
        out = out << 4 | static_cast<std::uint64_t>(digit);
    }
    return true;
}

// Names of devices are untrusted: bytes that would break `key=value,key=value` or a terminal become %XX.
[[nodiscard]] inline std::string attribute_value(std::string_view raw) {
    constexpr char kHex[] = "0123456789ABCDEF";
    std::string out;
    for (const char c : raw) {
        const auto byte = static_cast<unsigned char>(c);
        const bool special = std::string_view("%,={}\"\\").find(c) != std::string_view::npos;
        const bool plain = byte > 0x20 && byte < 0x7F && !special;
        if (plain) {
            out += c;
        } else {
            out += '%';
            out += kHex[byte >> 4];
            out += kHex[byte & 15];
        }
    }
    return out;
}

}  // namespace argus::sources
