// A value of a telemetry attribute, and its canonical JSON. Nested values lie in one pool, children linked by index: a
// document of any shape costs no allocation per value once the pool has grown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "events/json_reader.hpp"
#include "events/msgpack_writer.hpp"

namespace argus::events {

struct AnyValue {
    enum class Kind : std::uint8_t { none, text, integer, real, boolean, array, map };
    Kind kind = Kind::none;
    bool boolean = false;
    std::uint32_t first = 0;  // child; 0 = none
    std::uint32_t next = 0;   // sibling; 0 = none
    std::uint32_t count = 0;  // children
    std::int64_t integer = 0;
    double real = 0.0;
    std::string_view text;
    std::string_view key;     // within a map

    // Neither absent, nor empty, nor zero, nor false.
    [[nodiscard]] bool says_something() const noexcept;
};

class AnyPool {
public:
    AnyPool() : values_(1) {}
    void clear() { values_.resize(1); }
    [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
    [[nodiscard]] std::uint32_t add() {
        values_.emplace_back();
        return static_cast<std::uint32_t>(values_.size() - 1);
    }
    [[nodiscard]] AnyValue& operator[](std::uint32_t index) noexcept { return values_[index]; }
    [[nodiscard]] const AnyValue& operator[](std::uint32_t index) const noexcept { return values_[index]; }
    // Puts `child` behind `last` (0 = it is the first) below `parent`.
    void link(std::uint32_t parent, std::uint32_t last, std::uint32_t child) noexcept {
        (last == 0 ? values_[parent].first : values_[last].next) = child;
        ++values_[parent].count;
    }
    void write(MsgpackWriter& out, std::uint32_t index) const;

private:
    std::vector<AnyValue> values_;  // [0] is "none"
};

// Text that nests deeper is taken as it is: each level may copy what is below it once.
inline constexpr int kMaxCanonicalDepth = 64;

// JSON with sorted keys and without white space, numbers in their shortest form: what two senders write in their own
// ways is the same text. It agrees with msgspec.json.encode(order="sorted"), which the Emitter hashes.
class CanonicalJson {
public:
    // Of a text: where that is a JSON object or array, of what it says; else of the text as it is.
    [[nodiscard]] std::string_view of_text(std::string_view text);
    [[nodiscard]] std::string_view of_value(const AnyPool& pool, std::uint32_t index);

private:
    struct Member {
        std::string_view key;
        std::size_t begin;  // of its value in out_
        std::size_t end;
    };
    [[nodiscard]] bool read(JsonReader& reader, int depth);
    void value(const AnyPool& pool, std::uint32_t index);
    void quoted(std::string_view text);
    void real(double value);
    void sort_members(std::size_t first, std::size_t begin);

    std::string out_;
    std::string arena_;
    std::vector<Member> members_;
};

}  // namespace argus::events
