// OTLP in JSON: camelCase names, ids as hexadecimal digits, 64-bit integers as digits in a text or as numbers, null as
// absent. A value of another type refuses the span or record that holds it; one outside of any is a fault of the body.
#include <charconv>
#include <limits>

#include "events/msgpack_reader.hpp"
#include "events/otlp_mapping.hpp"

namespace argus::events {
namespace {

constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();

class Reader {
public:
    Reader(std::string_view body, OtlpMapping& mapping) noexcept : mapping_(mapping), json_(body, mapping.arena) {}

    [[nodiscard]] bool request() {
        const bool traces = mapping_.signal == OtlpSignal::traces;
        return container("body", [&](std::string_view key) {
            if (key != (traces ? "resourceSpans" : "resourceLogs")) return json_.skip();
            return list(key, [&] { return resource_items(traces ? "scopeSpans" : "scopeLogs"); });
        }) && json_.at_end();
    }
    [[nodiscard]] const std::string& fault() const noexcept { return misplaced_; }
    [[nodiscard]] std::size_t offset() const noexcept { return json_.offset(); }

private:
    // --- What is expected where; null is absent --------------------------------------------------------------------

    // Refuses the item, or, outside of one, gives the body up.
    [[nodiscard]] bool mismatch(std::string_view where, const char* expected) {
        if (!in_item_) {
            if (json_.peek() != Json::none) misplaced(where, expected);
            return false;
        }
        mapping_.refuse("wrong_type", std::string(where) + ": expected " + expected + ", found another type");
        return json_.skip();
    }
    void misplaced(std::string_view where, const char* expected) {
        if (!misplaced_.empty()) return;
        misplaced_ = "body: expected " + std::string(expected) + " as " + std::string(where) + ", found another type";
    }
    template <class OnMember>
    [[nodiscard]] bool container(std::string_view where, OnMember&& on_member) {
        switch (json_.peek()) {
            case Json::object: return json_.object(on_member);
            case Json::null: return json_.null();
            default: return mismatch(where, "an object");
        }
    }
    template <class OnItem>
    [[nodiscard]] bool list(std::string_view where, OnItem&& on_item) {
        switch (json_.peek()) {
            case Json::array: return json_.array(on_item);
            case Json::null: return json_.null();
            default: return mismatch(where, "an array");
        }
    }
    [[nodiscard]] bool text(std::string_view where, std::string_view& out) {
        switch (json_.peek()) {
            case Json::text: return json_.text(out);
            case Json::null: out = {}; return json_.null();
            default: return mismatch(where, "text");
        }
    }
    // Digits of a number or of a text; false = a fault. `found` tells whether it was of that type.
    [[nodiscard]] bool digits(std::string_view where, const char* expected, std::string_view& out, bool& found) {
        bool integer = false;
        found = false;
        switch (json_.peek()) {
            case Json::number: found = true; return json_.number(out, integer);
            case Json::text: found = true; return json_.text(out);
            case Json::null: return json_.null();
            default: return mismatch(where, expected);
        }
    }
    void not_digits(std::string_view where, const char* expected) {
        mapping_.refuse("wrong_type", std::string(where) + ": expected " + expected + ", found other text");
    }
    // Nanoseconds; what does not fit becomes a time that the mapping refuses.
    [[nodiscard]] bool time(std::string_view where, std::uint64_t& out) {
        constexpr const char* kExpected = "digits";
        constexpr std::uint64_t kImpossible = std::numeric_limits<std::uint64_t>::max();
        std::string_view written;
        bool found = false;
        if (!digits(where, kExpected, written, found)) return false;
        if (!found) return true;
        const bool negative = written.starts_with('-');
        const char* end = written.data() + written.size();
        const auto [stop, error] = std::from_chars(written.data() + (negative ? 1 : 0), end, out);
        if (error == std::errc::invalid_argument || stop != end) not_digits(where, kExpected);
        if (error == std::errc::result_out_of_range || (negative && out != 0)) out = kImpossible;
        return true;
    }

    // --- Attributes ------------------------------------------------------------------------------------------------

    // Reads {key, value}: `wants(key)` says whether the value is read, `take(key, value)` gets it from the pool. A
    // value that comes before its key is stepped over first.
    template <class Wants, class Take>
    [[nodiscard]] bool pair(Wants&& wants, Take&& take) {
        std::string_view key;
        bool named = false;
        bool wanted = false;
        std::size_t early = kNowhere;
        std::uint32_t value = 0;
        const bool whole = container("attribute", [&](std::string_view member) {
            if (member == "key" && !named) {
                named = json_.peek() == Json::text;
                if (!text("attribute.key", key)) return false;
                wanted = named && wants(key);
                return true;
            }
            if (member != "value") return json_.skip();
            if (!named) {
                early = json_.offset();
                return json_.skip();
            }
            if (!wanted || !mapping_.room_for_value()) return json_.skip();
            value = mapping_.pool.add();
            return any(value, 0);
        });
        if (!whole) return false;
        if (!named) {
            if (in_item_) mapping_.refuse("wrong_type", "attribute.key: expected text, found none");
            else misplaced("attribute.key", "text");
            return in_item_;
        }
        if (!wanted || (value == 0 && !mapping_.room_for_value())) return true;
        if (value == 0) {
            value = mapping_.pool.add();
            if (early != kNowhere) {
                const std::size_t after = json_.offset();
                json_.rewind(early);
                if (!any(value, 0)) return false;
                json_.rewind(after);
            }
        }
        take(key, value);
        return true;
    }
    [[nodiscard]] bool attributes(Findings& found) {
        found.clear();  // a list that comes twice: the last one stands
        return list("attributes", [&] {
            Meaning meaning;
            return pair(
                [&](std::string_view key) { return OtlpMapping::wanted(meaning = mapping_.meaning(key)); },
                [&](std::string_view key, std::uint32_t value) { mapping_.take(found, key, meaning, value); });
        });
    }

    [[nodiscard]] bool any(std::uint32_t index, int depth) {
        int best = 8;  // of several kinds, the first of this order: text, integer, double, bool, array, map, bytes
        return container("value", [&](std::string_view kind) {
            if (json_.peek() == Json::null) return json_.null();
            const auto is = [&](int order, AnyValue::Kind as) -> AnyValue* {
                if (order > best) return nullptr;
                best = order;
                AnyValue& value = mapping_.pool[index];
                value.kind = as;
                value.first = value.count = 0;
                return &value;
            };
            if (kind == "stringValue" || kind == "bytesValue") {
                std::string_view found;
                if (json_.peek() != Json::text) return mismatch(kind, "text");
                if (!json_.text(found)) return false;
                if (AnyValue* value = is(kind[0] == 's' ? 0 : 6, AnyValue::Kind::text)) value->text = found;
                return true;
            }
            if (kind == "intValue") return integer(is(1, AnyValue::Kind::integer));
            if (kind == "doubleValue") return real(is(2, AnyValue::Kind::real));
            if (kind == "boolValue") {
                bool found = false;
                if (json_.peek() != Json::boolean) return mismatch(kind, "true or false");
                if (!json_.boolean(found)) return false;
                if (AnyValue* value = is(3, AnyValue::Kind::boolean)) value->boolean = found;
                return true;
            }
            const bool map = kind == "kvlistValue";
            if (!map && kind != "arrayValue") return json_.skip();
            if (is(map ? 5 : 4, map ? AnyValue::Kind::map : AnyValue::Kind::array) == nullptr) return json_.skip();
            return children(index, map, depth + 1);
        });
    }
    [[nodiscard]] bool integer(AnyValue* value) {
        constexpr const char* kExpected = "an integer within int64";
        std::string_view written;
        bool found = false;
        if (!digits("intValue", kExpected, written, found) || !found || value == nullptr) return !json_.failed();
        const char* end = written.data() + written.size();
        const auto [stop, error] = std::from_chars(written.data(), end, value->integer);
        if (error == std::errc{} && stop == end) return true;
        double whole = 0.0;  // 3.0 and 3e2 are integers too
        if (error != std::errc::result_out_of_range && stop != written.data() && to_double(written, whole) &&
            whole >= -9e15 && whole <= 9e15 && whole == static_cast<double>(static_cast<std::int64_t>(whole))) {
            value->integer = static_cast<std::int64_t>(whole);
            return true;
        }
        not_digits("intValue", kExpected);
        return true;
    }
    [[nodiscard]] bool real(AnyValue* value) {
        constexpr const char* kExpected = "a number";
        std::string_view written;
        bool found = false;
        if (!digits("doubleValue", kExpected, written, found) || !found || value == nullptr) return !json_.failed();
        constexpr double kInfinite = std::numeric_limits<double>::infinity();
        if (written == "NaN") value->real = std::numeric_limits<double>::quiet_NaN();
        else if (written == "Infinity") value->real = kInfinite;
        else if (written == "-Infinity") value->real = -kInfinite;
        else if (written.empty() || !to_double(written, value->real)) not_digits("doubleValue", kExpected);
        return true;
    }
    [[nodiscard]] bool children(std::uint32_t parent, bool map, int depth) {
        if (depth > kOtlpDepth) {
            mapping_.refuse("too_deep", "attribute: expected at most 16 levels, found more");
            return json_.skip();
        }
        return container("value", [&](std::string_view member) {
            if (member != "values") return json_.skip();
            std::uint32_t last = 0;
            const auto add = [&](std::uint32_t child) {
                mapping_.pool.link(parent, last, child);
                last = child;
            };
            return list("values", [&] {
                if (!mapping_.room_for_value()) return json_.skip();
                if (map) return nested_pair(depth, add);
                const std::uint32_t child = mapping_.pool.add();
                add(child);
                return any(child, depth);
            });
        });
    }
    template <class Add>
    [[nodiscard]] bool nested_pair(int depth, Add&& add) {
        const std::uint32_t child = mapping_.pool.add();
        add(child);
        return container("value", [&](std::string_view member) {
            if (member == "value") return any(child, depth);
            if (member != "key") return json_.skip();
            std::string_view key;
            if (!text("key", key)) return false;
            mapping_.pool[child].key = key;
            return true;
        });
    }

    // --- Resources, spans, records ---------------------------------------------------------------------------------

    [[nodiscard]] bool resource_items(std::string_view scopes) {
        std::size_t early = kNowhere;
        bool described = false;
        const bool whole = container("resource", [&](std::string_view key) {
            if (key == "resource") {
                described = true;
                return resource();
            }
            if (key != scopes) return json_.skip();
            if (described) return list(key, [&] { return scope(); });
            early = json_.offset();  // what describes them may follow
            return json_.skip();
        });
        if (!whole || early == kNowhere) return whole;
        if (!described) {
            mapping_.resource_begin();
            mapping_.resource_end();
        }
        const std::size_t after = json_.offset();
        json_.rewind(early);
        if (!list(scopes, [&] { return scope(); })) return false;
        json_.rewind(after);
        return true;
    }
    [[nodiscard]] bool resource() {
        mapping_.resource_begin();
        const bool whole = container("resource", [&](std::string_view key) {
            if (key != "attributes") return json_.skip();
            return list(key, [&] {
                return pair([&](std::string_view name) { return mapping_.of_resource(name); },
                            [&](std::string_view name, std::uint32_t value) {
                                mapping_.resource_attribute(name, value);
                            });
            });
        });
        if (whole) mapping_.resource_end();
        return whole;
    }
    [[nodiscard]] bool scope() {
        const bool traces = mapping_.signal == OtlpSignal::traces;
        return container("scope", [&](std::string_view key) {
            if (key != (traces ? "spans" : "logRecords")) return json_.skip();
            return list(key, [&] { return item(traces); });
        });
    }
    [[nodiscard]] bool item(bool traces) {
        OtlpItem& item = mapping_.item_begin();
        in_item_ = true;
        bool whole = false;
        if (json_.peek() == Json::object) {
            whole = json_.object(
                [&](std::string_view key) { return traces ? of_span(key, item) : of_record(key, item); });
        } else {
            whole = mismatch(traces ? "span" : "record", "an object");
        }
        in_item_ = false;
        if (whole) mapping_.item_end();
        return whole;
    }
    [[nodiscard]] bool of_span(std::string_view key, OtlpItem& item) {
        if (key == "traceId") return text(key, item.trace);
        if (key == "spanId") return text(key, item.span);
        if (key == "parentSpanId") return text(key, item.parent);
        if (key == "name") return text(key, item.name);
        if (key == "startTimeUnixNano") return time(key, item.start);
        if (key == "endTimeUnixNano") return time(key, item.end);
        if (key == "attributes") return attributes(item.found);
        if (key == "events") return list(key, [&] { return event(); });
        if (key == "status") {
            return container(key, [&](std::string_view name) {
                if (name != "code") return json_.skip();
                std::uint64_t code = 0;
                if (!time("status.code", code)) return false;
                item.failed = code == 2;
                return true;
            });
        }
        return json_.skip();
    }
    [[nodiscard]] bool of_record(std::string_view key, OtlpItem& item) {
        if (key == "timeUnixNano") return time(key, item.end);
        if (key == "observedTimeUnixNano") return time(key, item.observed);
        if (key == "eventName") return text(key, item.event_name);
        if (key == "attributes") return attributes(item.found);
        if (key == "traceId") return text(key, item.trace);
        if (key == "spanId") return text(key, item.span);
        return json_.skip();
    }
    [[nodiscard]] bool event() {
        std::string_view name;
        std::uint64_t when = 0;
        std::size_t at = kNowhere;
        const bool whole = container("event", [&](std::string_view key) {
            if (key == "name") return text(key, name);
            if (key == "timeUnixNano") return time(key, when);
            if (key == "attributes") at = json_.offset();
            return json_.skip();
        });
        if (!whole || !OtlpMapping::wants_event(name) || !mapping_.room_for_event()) return whole;
        SpanEvent& event = mapping_.event_begin();
        event.name = name;
        event.time = when;
        if (at != kNowhere) {
            const std::size_t after = json_.offset();
            json_.rewind(at);
            if (!attributes(event.found)) return false;
            json_.rewind(after);
        }
        mapping_.event_end();
        return true;
    }

    OtlpMapping& mapping_;
    JsonReader json_;
    bool in_item_ = false;
    std::string misplaced_;
};

}  // namespace

void read_otlp_json(std::string_view body, OtlpMapping& mapping) {
    if (!valid_utf8(body)) {
        mapping.fail("not_json", "body: expected OTLP in JSON, found bytes that are not UTF-8");
        return;
    }
    Reader reader(body, mapping);
    if (reader.request()) return;
    if (!reader.fault().empty()) {
        mapping.fail("not_otlp", reader.fault());
    } else {
        mapping.fail("not_json", "body: expected OTLP in JSON, found none: a fault at byte " +
                                     std::to_string(reader.offset()));
    }
}

}  // namespace argus::events
