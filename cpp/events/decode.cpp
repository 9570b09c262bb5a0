#include "events/decode.hpp"

#include <cmath>

#include "events/text.hpp"

namespace argus::events {
namespace {

constexpr KeySpec text(std::string_view name, std::uint32_t limit, std::string_view Event::*member) {
    return {name, Field::text, limit, member, nullptr, nullptr};
}
constexpr KeySpec identifier(std::string_view name, std::uint32_t size, std::string_view Event::*member) {
    return {name, Field::identifier, size, member, nullptr, nullptr};
}
constexpr KeySpec signed_number(std::string_view name, std::int64_t Event::*member) {
    return {name, Field::integer, 0, nullptr, member, nullptr};
}
constexpr KeySpec amount(std::string_view name, std::int64_t Event::*member) {
    return {name, Field::unsigned_integer, 0, nullptr, member, nullptr};
}
constexpr KeySpec length(std::string_view name, std::int64_t Event::*member) {
    return {name, Field::length32, 0, nullptr, member, nullptr};
}
constexpr KeySpec flag(std::string_view name, std::int8_t Event::*member) {
    return {name, Field::flag, 0, nullptr, nullptr, member};
}
constexpr KeySpec special(std::string_view name, Field field) {
    return {name, field, 0, nullptr, nullptr, nullptr};
}

constexpr std::array kSchema{
    special("v", Field::version),
    text("id", 64, &Event::id),
    text("type", 48, &Event::type_name),
    amount("ts", &Event::ts),
    text("source", 128, &Event::source),
    amount("seq", &Event::seq),
    amount("mono", &Event::mono),
    text("boot", 36, &Event::boot),
    text("tenant", 64, &Event::tenant),
    text("session", 128, &Event::session),
    text("task", 128, &Event::task),
    text("parent", 128, &Event::parent),
    identifier("trace", 16, &Event::trace),
    identifier("span", 8, &Event::span),
    identifier("parent_span", 8, &Event::parent_span),
    text("agent", 128, &Event::agent),
    text("agent_version", 128, &Event::agent_version),
    text("provider", 128, &Event::provider),
    text("model", 128, &Event::model),
    text("strategy", 64, &Event::strategy),
    amount("input_tokens", &Event::input_tokens),
    amount("output_tokens", &Event::output_tokens),
    amount("cache_read_tokens", &Event::cache_read_tokens),
    amount("cache_write_tokens", &Event::cache_write_tokens),
    amount("reasoning_tokens", &Event::reasoning_tokens),
    amount("cost_nusd", &Event::cost_nusd),
    flag("cost_estimated", &Event::cost_estimated),
    signed_number("duration_ns", &Event::duration_ns),
    signed_number("ttft_ns", &Event::ttft_ns),
    text("tool", 128, &Event::tool),
    text("call", 128, &Event::call),
    text("args_hash", 64, &Event::args_hash),
    text("result_hash", 64, &Event::result_hash),
    length("args_len", &Event::args_len),
    length("result_len", &Event::result_len),
    text("path", 4096, &Event::path),
    amount("bytes", &Event::bytes),
    text("op", 16, &Event::op),
    identifier("sha256", 32, &Event::sha256),
    flag("ok", &Event::ok),
    text("error", 128, &Event::error),
    text("eval", 64, &Event::eval),
    special("score", Field::number),
    text("label", 32, &Event::label),
    text("text", 16384, &Event::text),
    special("entities", Field::entities),
    special("attrs", Field::attrs),
};
static_assert(kSchema.size() < 64, "one bit a key");

constexpr std::array<std::string_view, static_cast<std::size_t>(EventType::count_)> kTypeNames{
    "", "task_started", "task_completed", "task_failed", "task_cancelled", "file_written", "file_deleted",
    "token_cost_logged", "budget_reserved", "budget_settled", "tool_called", "tool_returned", "model_called",
    "model_returned", "prediction_made", "label_received", "retrieval_done", "eval_logged", "user_message",
    "user_feedback", "policy_violation", "deployment", "lockdown_set", "lockdown_cleared", "kill_set", "kill_cleared",
    "heartbeat", "source_started", "source_stopped", "price_table_changed"};

// Open-addressing table from a short name to its index, built at compile time: length and a few bytes pick the slot.
constexpr std::uint8_t kNoEntry = 0xff;

constexpr std::size_t name_slot(std::string_view name) noexcept {
    const auto at = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(name[i])); };
    const std::size_t n = name.size();
    const unsigned mixed = at(0) * 7U + at(n / 2) * 31U + at(n - 1) * 131U + at(n > 6 ? 6 : 0) * 17U +
                           static_cast<unsigned>(n) * 61U;
    return mixed & 0xffU;
}

template <class Names, class NameOf>
constexpr std::array<std::uint8_t, 256> index_names(const Names& names, NameOf name_of) {
    std::array<std::uint8_t, 256> table{};
    for (auto& entry : table) entry = kNoEntry;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const std::string_view name = name_of(names[i]);
        if (name.empty()) continue;
        std::size_t slot = name_slot(name);
        while (table[slot] != kNoEntry) slot = (slot + 1) & 0xffU;
        table[slot] = static_cast<std::uint8_t>(i);
    }
    return table;
}

constexpr auto kKeyIndex = index_names(kSchema, [](const KeySpec& k) { return k.name; });
constexpr auto kTypeIndex = index_names(kTypeNames, [](std::string_view n) { return n; });

[[nodiscard]] int find_key(std::string_view name) noexcept {
    if (name.empty()) return -1;
    for (std::size_t slot = name_slot(name); kKeyIndex[slot] != kNoEntry; slot = (slot + 1) & 0xffU) {
        if (kSchema[kKeyIndex[slot]].name == name) return kKeyIndex[slot];
    }
    return -1;
}

[[nodiscard]] constexpr int key_number(std::string_view name) {
    for (std::size_t i = 0; i < kSchema.size(); ++i) {
        if (kSchema[i].name == name) return static_cast<int>(i);
    }
    return -1;
}

[[nodiscard]] Reject to_reject(Fault fault) noexcept {
    switch (fault) {
        case Fault::none: return Reject::none;
        case Fault::truncated:
        case Fault::reserved: return Reject::malformed;
        case Fault::too_deep: return Reject::too_deep;
        case Fault::extension: return Reject::extension_type;
        case Fault::non_finite: return Reject::non_finite;
        case Fault::bad_utf8: return Reject::bad_utf8;
        case Fault::duplicate_key: return Reject::duplicate_key;
        case Fault::too_many_keys: return Reject::over_limit;
        case Fault::key_type: return Reject::wrong_type;
    }
    return Reject::malformed;
}

class EventDecoder {
public:
    EventDecoder(MsgpackReader& reader, Decoded& out, bool require_seq) noexcept
        : reader_(reader), out_(out), require_seq_(require_seq) {}

    // Decodes one event and leaves the reader behind it. False: the framing is broken.
    [[nodiscard]] bool run() noexcept {
        const std::size_t start = reader_.offset();
        Value head;
        const Fault fault = reader_.next(head);
        if (fault != Fault::none) return false;
        if (head.wire != Wire::map) {
            refuse(Reject::wrong_type, "event: not a map");
            reader_.rewind(start);
            if (!reader_.skip()) return false;
        } else if (!entries(head.count)) {
            return false;
        } else {
            check_required();
        }
        out_.bytes = reader_.since(start);
        if (out_.bytes.size() > kMaxEventBytes) refuse(Reject::over_limit, "event: more than 64 KiB");
        if (version_refused_) {
            out_.reject = Reject::unsupported_version;
            out_.detail = "v";
        }
        return true;
    }

private:
    void refuse(Reject reason, const char* detail) noexcept {
        if (out_.reject != Reject::none) return;  // the first cause stands
        out_.reject = reason;
        out_.detail = detail;
    }

    [[nodiscard]] bool entries(std::uint32_t count) noexcept {
        for (std::uint32_t i = 0; i < count; ++i) {
            Value key;
            const std::size_t key_start = reader_.offset();
            if (reader_.next(key) != Fault::none) return false;
            if (key.wire != Wire::text) {
                refuse(key.wire == Wire::extension ? Reject::extension_type : Reject::wrong_type, "key: not text");
                reader_.rewind(key_start);
                if (!reader_.skip() || !reader_.skip()) return false;
                continue;
            }
            const int number = find_key(key.bytes);
            const std::size_t value_start = reader_.offset();
            const Reject reason = number < 0 ? unknown(key.bytes) : known(static_cast<std::size_t>(number));
            if (reason != Reject::none) {
                refuse(reason, number < 0 ? "unknown key" : kSchema[static_cast<std::size_t>(number)].name.data());
                reader_.rewind(value_start);
                if (!reader_.skip()) return false;
            }
        }
        return true;
    }

    [[nodiscard]] Reject unknown(std::string_view key) noexcept {
        if (!valid_utf8(key)) return Reject::bad_utf8;
        if (unknown_count_ == kMaxUnknownKeys) return Reject::over_limit;
        const std::uint64_t hash = hash_text(key);
        for (std::uint32_t i = 0; i < unknown_count_; ++i) {
            if (unknown_[i] == hash) return Reject::duplicate_key;
        }
        unknown_[unknown_count_++] = hash;
        return to_reject(reader_.validate(2));
    }

    [[nodiscard]] Reject known(std::size_t number) noexcept {
        const std::uint64_t bit = std::uint64_t{1} << number;
        if ((present_ & bit) != 0) return Reject::duplicate_key;
        present_ |= bit;
        const KeySpec& spec = kSchema[number];
        if (spec.field == Field::entities) return entities();
        if (spec.field == Field::attrs) return attrs();
        Value value;
        if (const Fault fault = reader_.next(value); fault != Fault::none) return to_reject(fault);
        if (value.wire == Wire::extension) return Reject::extension_type;
        switch (spec.field) {
            case Field::version: return version(value);
            case Field::text: return put_text(spec, value);
            case Field::identifier: return put_identifier(spec, value);
            case Field::flag:
                if (value.wire != Wire::boolean) return Reject::wrong_type;
                out_.event.*spec.flag = value.boolean ? 1 : 0;
                return Reject::none;
            case Field::number: return score(value);
            default: return put_integer(spec, value);
        }
    }

    [[nodiscard]] Reject version(const Value& value) noexcept {
        if (value.wire != Wire::integer && value.wire != Wire::big_integer) return Reject::wrong_type;
        version_refused_ = value.wire == Wire::big_integer || value.integer != 1;
        return Reject::none;
    }

    [[nodiscard]] Reject put_text(const KeySpec& spec, const Value& value) noexcept {
        if (value.wire != Wire::text) return Reject::wrong_type;
        if (value.bytes.size() > spec.limit) return Reject::over_limit;
        if (!valid_utf8(value.bytes)) return Reject::bad_utf8;
        out_.event.*spec.text = value.bytes;
        return Reject::none;
    }

    // Raw bytes of the exact size, or their hexadecimal text.
    [[nodiscard]] Reject put_identifier(const KeySpec& spec, const Value& value) noexcept {
        if (value.wire == Wire::text) {
            if (value.bytes.size() > std::size_t{2} * spec.limit) return Reject::over_limit;
            if (!valid_utf8(value.bytes)) return Reject::bad_utf8;
        } else if (value.wire != Wire::binary) {
            return Reject::wrong_type;
        } else if (value.bytes.size() != spec.limit) {
            return Reject::over_limit;
        }
        out_.event.*spec.text = value.bytes;
        return Reject::none;
    }

    [[nodiscard]] Reject put_integer(const KeySpec& spec, const Value& value) noexcept {
        if (value.wire == Wire::real && !std::isfinite(value.real)) return Reject::non_finite;
        if (value.wire == Wire::big_integer) return Reject::over_limit;
        if (value.wire != Wire::integer) return Reject::wrong_type;
        const bool negative_allowed = spec.field == Field::integer && value.integer != kAbsent;
        if (value.integer < 0 && !negative_allowed) return Reject::over_limit;
        if (spec.field == Field::length32 && value.integer > 0xffffffffLL) return Reject::over_limit;
        out_.event.*spec.integer = value.integer;
        return Reject::none;
    }

    [[nodiscard]] Reject score(const Value& value) noexcept {
        switch (value.wire) {
            case Wire::integer: out_.event.score = static_cast<double>(value.integer); return Reject::none;
            case Wire::big_integer:
                out_.event.score = static_cast<double>(static_cast<std::uint64_t>(value.integer));
                return Reject::none;
            case Wire::real:
                if (!std::isfinite(value.real)) return Reject::non_finite;
                out_.event.score = value.real;
                return Reject::none;
            default: return Reject::wrong_type;
        }
    }

    [[nodiscard]] Reject entities() noexcept {
        const std::size_t start = reader_.offset();
        Value value;
        if (const Fault fault = reader_.next(value); fault != Fault::none) return to_reject(fault);
        if (value.wire == Wire::extension) return Reject::extension_type;
        if (value.wire != Wire::array) return Reject::wrong_type;
        if (value.count > kMaxEntries) return Reject::over_limit;
        const std::uint32_t count = value.count;
        for (std::uint32_t i = 0; i < count; ++i) {
            if (const Fault fault = reader_.next(value); fault != Fault::none) return to_reject(fault);
            if (value.wire == Wire::extension) return Reject::extension_type;
            if (value.wire != Wire::text) return Reject::wrong_type;
            if (value.bytes.size() > kMaxEntityBytes) return Reject::over_limit;
            if (!valid_utf8(value.bytes)) return Reject::bad_utf8;
        }
        out_.event.entities = reader_.since(start);
        return Reject::none;
    }

    [[nodiscard]] Reject attrs() noexcept {
        const std::size_t start = reader_.offset();
        Value value;
        if (const Fault fault = reader_.next(value); fault != Fault::none) return to_reject(fault);
        if (value.wire == Wire::extension) return Reject::extension_type;
        if (value.wire != Wire::map) return Reject::wrong_type;
        if (value.count > kMaxEntries) return Reject::over_limit;
        const std::uint32_t count = value.count;
        std::array<std::string_view, kMaxEntries> keys;
        for (std::uint32_t i = 0; i < count; ++i) {
            if (const Fault fault = reader_.next(value); fault != Fault::none) return to_reject(fault);
            if (value.wire == Wire::extension) return Reject::extension_type;
            if (value.wire != Wire::text) return Reject::wrong_type;
            if (value.bytes.size() > kMaxAttrKeyBytes) return Reject::over_limit;
            if (!valid_utf8(value.bytes)) return Reject::bad_utf8;
            for (std::uint32_t j = 0; j < i; ++j) {
                if (keys[j] == value.bytes) return Reject::duplicate_key;
            }
            keys[i] = value.bytes;
            if (const Reject reason = scalar(); reason != Reject::none) return reason;
        }
        out_.event.attrs = reader_.since(start);
        return Reject::none;
    }

    [[nodiscard]] Reject scalar() noexcept {
        Value value;
        if (const Fault fault = reader_.next(value); fault != Fault::none) return to_reject(fault);
        switch (value.wire) {
            case Wire::array:
            case Wire::map:
            case Wire::binary: return Reject::wrong_type;
            case Wire::extension: return Reject::extension_type;
            case Wire::real: return std::isfinite(value.real) ? Reject::none : Reject::non_finite;
            case Wire::text:
                if (value.bytes.size() > kMaxAttrBytes) return Reject::over_limit;
                return valid_utf8(value.bytes) ? Reject::none : Reject::bad_utf8;
            default: return Reject::none;
        }
    }

    void require(std::string_view key) noexcept {
        const auto number = static_cast<std::size_t>(find_key(key));
        const KeySpec& spec = kSchema[number];
        const bool empty = spec.text != nullptr && (out_.event.*spec.text).empty();  // a name that names nothing
        if ((present_ >> number & 1U) == 0 || empty) refuse(Reject::missing_key, spec.name.data());
    }

    void check_required() noexcept {
        constexpr std::uint64_t kAlways =
            std::uint64_t{1} << key_number("v") | std::uint64_t{1} << key_number("id") |
            std::uint64_t{1} << key_number("type") | std::uint64_t{1} << key_number("ts") |
            std::uint64_t{1} << key_number("source");
        const Event& e = out_.event;
        if ((present_ & kAlways) != kAlways || e.id.empty() || e.type_name.empty() || e.source.empty()) {
            for (const std::string_view key : {"v", "id", "type", "ts", "source"}) require(key);
        }
        if (require_seq_) require("seq");
        out_.event.type = event_type(out_.event.type_name);
        switch (out_.event.type) {
            case EventType::task_started:
            case EventType::task_completed:
            case EventType::task_failed:
            case EventType::task_cancelled: require("task"); break;
            case EventType::tool_called:
            case EventType::tool_returned: require("tool"); break;
            case EventType::file_written:
            case EventType::file_deleted: require("path"); break;
            case EventType::token_cost_logged: require_cost(); break;
            default: break;
        }
    }

    void require_cost() noexcept {
        const Event& e = out_.event;
        if (e.cost_nusd == kAbsent && e.input_tokens == kAbsent && e.output_tokens == kAbsent) {
            refuse(Reject::missing_key, "cost_nusd");
        }
    }

    MsgpackReader& reader_;
    Decoded& out_;
    bool require_seq_;
    bool version_refused_ = false;
    std::uint64_t present_ = 0;
    std::uint32_t unknown_count_ = 0;
    std::array<std::uint64_t, kMaxUnknownKeys> unknown_;
};

}  // namespace

std::span<const KeySpec> schema() noexcept { return kSchema; }

EventType event_type(std::string_view name) noexcept {
    if (name.empty()) return EventType::unknown;
    for (std::size_t slot = name_slot(name); kTypeIndex[slot] != kNoEntry; slot = (slot + 1) & 0xffU) {
        if (kTypeNames[kTypeIndex[slot]] == name) return static_cast<EventType>(kTypeIndex[slot]);
    }
    return EventType::unknown;
}

std::string_view event_type_name(EventType type) noexcept { return kTypeNames[static_cast<std::size_t>(type)]; }

FrameDecoder::FrameDecoder(std::span<const std::byte> frame, bool require_seq) noexcept
    : reader_(frame), frame_(frame), require_seq_(require_seq) {}

bool FrameDecoder::broken_frame(Decoded& out, Reject reason, const char* detail) noexcept {
    done_ = true;
    out = Decoded{};
    out.reject = reason;
    out.detail = detail;
    return true;
}

bool FrameDecoder::next(Decoded& out) noexcept {
    if (done_) return false;
    if (!opened_) {
        opened_ = true;
        if (frame_.size() > kMaxFrameBytes) {
            broken_frame(out, Reject::over_limit, "frame: more than 1 MiB");
            out.bytes = frame_;
            return true;
        }
        Value head;
        const Fault fault = reader_.next(head);
        if (fault == Fault::none && head.wire == Wire::array) {
            if (head.count > kMaxBatch) {
                broken_frame(out, Reject::over_limit, "frame: more than 1,024 events");
                out.bytes = frame_;
                return true;
            }
            pending_ = head.count;
        } else {
            pending_ = 1;
            reader_.rewind(0);
        }
    }
    const std::size_t start = reader_.offset();
    if (pending_ == 0) {
        if (reader_.left() == 0) {
            done_ = true;
            return false;
        }
        broken_frame(out, Reject::malformed, "frame: bytes after its end");
        out.bytes = frame_.subspan(start);
        return true;
    }
    --pending_;
    out = Decoded{};
    if (EventDecoder(reader_, out, require_seq_).run()) {
        const auto* raw = reinterpret_cast<const char*>(out.bytes.data());
        out.event.content_hash = hash_text({raw, out.bytes.size()});
        return true;
    }
    const Event partial = out.event;  // names its source where that could be read
    broken_frame(out, Reject::malformed, "frame: not msgpack, or cut short");
    out.event = partial;
    out.bytes = frame_.subspan(start);
    return true;
}

}  // namespace argus::events
