// A bounded, strict reader of JSON (RFC 8259) over the caller's bytes, which must be valid UTF-8: the caller pulls
// values and says what is stepped over. No recursion, no exception; text with escapes is written to the caller's arena,
// the rest is looked at in place. A fault is sticky: whoever sees `false` gives the document up.
// Not taken though others take it: comments, NaN and Infinity, lone surrogates, control characters within text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "events/text.hpp"

namespace argus::events {

enum class Json : std::uint8_t { null, boolean, number, text, array, object, none };

inline constexpr int kMaxJsonDepth = 512;  // containers within containers; more are a fault

class JsonReader {
public:
    // `arena` takes unescaped text: reserve the document's size before, and views into it stay valid.
    JsonReader(std::string_view document, std::string& arena) noexcept
        : begin_(document.data()), at_(begin_), end_(begin_ + document.size()), arena_(&arena) {}

    // What kind of value comes next, by its first byte; `none` = no value can begin so, or a fault was met.
    [[nodiscard]] Json peek() noexcept {
        space();
        if (at_ == end_ || failed_) return Json::none;
        switch (*at_) {
            case '"': return Json::text;
            case '{': return Json::object;
            case '[': return Json::array;
            case 't':
            case 'f': return Json::boolean;
            case 'n': return Json::null;
            default: return *at_ == '-' || digit(*at_) ? Json::number : Json::none;
        }
    }

    [[nodiscard]] bool text(std::string_view& out);
    [[nodiscard]] bool number(std::string_view& digits, bool& integer) noexcept;  // as written
    [[nodiscard]] bool boolean(bool& out) noexcept;
    [[nodiscard]] bool null() noexcept { return word("null"); }
    [[nodiscard]] bool skip() noexcept;  // one whole value of any kind, checked all the same

    // Calls on_item() in front of each value of the array, or on_member(key) of the object, which must take that value.
    template <class OnItem>
    [[nodiscard]] bool array(OnItem&& on_item) {
        if (!enter('[')) return false;
        if (close(']')) return true;
        do {
            if (!on_item() || failed_) return fail();
        } while (comma());
        return close(']') || fail();
    }
    template <class OnMember>
    [[nodiscard]] bool object(OnMember&& on_member) {
        if (!enter('{')) return false;
        if (close('}')) return true;
        do {
            std::string_view key;
            space();
            if (!text(key) || !colon() || !on_member(key) || failed_) return fail();
        } while (comma());
        return close('}') || fail();
    }

    [[nodiscard]] bool at_end() noexcept {
        space();
        return !failed_ && at_ == end_;
    }
    [[nodiscard]] bool failed() const noexcept { return failed_; }
    [[nodiscard]] std::size_t offset() const noexcept { return static_cast<std::size_t>(at_ - begin_); }
    void rewind(std::size_t offset) noexcept { at_ = begin_ + offset; }

private:
    [[nodiscard]] static bool digit(char c) noexcept { return c >= '0' && c <= '9'; }
    bool fail() noexcept {
        failed_ = true;
        return false;
    }
    void space() noexcept {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }
    [[nodiscard]] bool take(char c) noexcept {
        space();
        if (at_ == end_ || *at_ != c) return false;
        ++at_;
        return true;
    }
    [[nodiscard]] bool enter(char c) noexcept { return take(c) || fail(); }
    [[nodiscard]] bool close(char c) noexcept { return take(c); }
    [[nodiscard]] bool comma() noexcept { return take(','); }
    [[nodiscard]] bool colon() noexcept { return take(':') || fail(); }
    [[nodiscard]] bool word(std::string_view expected) noexcept;
    [[nodiscard]] const char* plain_end(const char* p) const noexcept;  // the next quote, backslash or control
    [[nodiscard]] bool escape(const char*& p, std::string* out) const;
    [[nodiscard]] bool skip_text() noexcept;
    [[nodiscard]] bool skip_scalar() noexcept;

    const char* begin_;
    const char* at_;
    const char* end_;
    std::string* arena_;
    bool failed_ = false;
};

// A finite number of JSON's grammar as the nearest double; false = beyond its range.
[[nodiscard]] bool to_double(std::string_view digits, double& out) noexcept;

}  // namespace argus::events
