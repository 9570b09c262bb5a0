// Decoding of a bus frame into events: one msgpack map, or an array of at most 1,024 maps (schema v1). An event that
// breaks a rule rejects itself with a reason; the rest of the batch lives as long as the framing holds, and where it
// does not the remainder of the frame is one `malformed` reject. Events are views into the frame.
// Cost: bench_events events/decode.  Errors: a Reject value, never an exception, never an allocation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "events/msgpack_reader.hpp"
#include "model/event.hpp"

namespace argus::events {

inline constexpr std::size_t kMaxFrameBytes = 1U << 20;
inline constexpr std::size_t kMaxEventBytes = 1U << 16;
inline constexpr std::uint32_t kMaxBatch = 1024;
inline constexpr std::uint32_t kMaxEntries = 32;        // of `entities`, of `attrs`
inline constexpr std::uint32_t kMaxEntityBytes = 128;
inline constexpr std::uint32_t kMaxAttrKeyBytes = 64;
inline constexpr std::uint32_t kMaxAttrBytes = 512;
inline constexpr std::uint32_t kMaxUnknownKeys = 64;

enum class Reject : std::uint8_t {
    none,
    malformed,            // not msgpack, or cut short
    too_deep,             // containers nested more than four deep
    over_limit,           // longer, larger or more entries than the schema allows
    missing_key,          // a key this type of event requires
    wrong_type,           // a known key with a value of another type, or an event that is not a map
    duplicate_key,        // one key twice in one map
    non_finite,           // NaN or infinity
    bad_utf8,             // text that is not UTF-8
    extension_type,       // msgpack extension types carry no schema
    unsupported_version,  // `v` other than 1
    forged_scope,         // speaks for a session that another credential owns
    count_,
};
inline constexpr std::size_t kRejectReasons = static_cast<std::size_t>(Reject::count_);

[[nodiscard]] constexpr const char* to_string(Reject reason) noexcept {
    constexpr std::array<const char*, kRejectReasons> names{
        "none", "malformed", "too_deep", "over_limit", "missing_key", "wrong_type", "duplicate_key", "non_finite",
        "bad_utf8", "extension_type", "unsupported_version", "forged_scope"};
    return names[static_cast<std::size_t>(reason)];
}

[[nodiscard]] EventType event_type(std::string_view name) noexcept;
[[nodiscard]] std::string_view event_type_name(EventType type) noexcept;

struct Decoded {
    Reject reject = Reject::none;
    const char* detail = "";           // static text: the key or rule that failed
    Event event;                       // of a rejected event: what could be read of it, without authority
    std::span<const std::byte> bytes;  // the encoded event, or the remainder of a broken frame
};

class FrameDecoder {
public:
    FrameDecoder(std::span<const std::byte> frame, bool require_seq) noexcept;

    // The next event or reject; false at the end of the frame.
    [[nodiscard]] bool next(Decoded& out) noexcept;

private:
    bool broken_frame(Decoded& out, Reject reason, const char* detail) noexcept;

    MsgpackReader reader_;
    std::span<const std::byte> frame_;
    std::uint32_t pending_ = 0;
    bool require_seq_;
    bool opened_ = false;
    bool done_ = false;
};

// One key of the schema: how it is typed and bounded, and where it lands. The table is the schema, in one place.
enum class Field : std::uint8_t {
    version, text, identifier, integer, unsigned_integer, length32, flag, number, entities, attrs,
};
struct KeySpec {
    std::string_view name;
    Field field;
    std::uint32_t limit;  // bytes of text; of an `identifier` as binary: the exact size, as hexadecimal: twice that
    std::string_view Event::*text;
    std::int64_t Event::*integer;
    std::int8_t Event::*flag;
};
[[nodiscard]] std::span<const KeySpec> schema() noexcept;

}  // namespace argus::events
