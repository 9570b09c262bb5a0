// OTLP in protobuf. Field numbers: opentelemetry/proto/{trace,logs,common,resource}/v1/*.proto. A field of another wire
// type than the schema's is unknown, as protobuf has it; bytes that are no fields are a fault of the whole body.
#include "events/otlp_mapping.hpp"
#include "events/protobuf_reader.hpp"

namespace argus::events {
namespace {

using Wire = ProtobufField::Wire;

class Reader {
public:
    explicit Reader(OtlpMapping& mapping) noexcept : mapping_(mapping) {}

    [[nodiscard]] bool request(std::string_view body) {
        return fields(body, [&](const ProtobufField& f) { return !f.message(1) || resource_items(f.bytes); });
    }

private:
    // Calls on_field for each field of a message; false = no message, or on_field says so.
    template <class OnField>
    [[nodiscard]] static bool fields(std::string_view message, OnField&& on_field) {
        ProtobufReader reader(message);
        ProtobufField field;
        while (reader.next(field)) {
            if (!on_field(field)) return false;
        }
        return !reader.failed();
    }

    [[nodiscard]] bool resource_items(std::string_view message) {
        mapping_.resource_begin();
        const bool resource = fields(message, [&](const ProtobufField& f) {  // it may follow what it describes
            return !f.message(1) || fields(f.bytes, [&](const ProtobufField& a) {
                return !a.message(1) || resource_attribute(a.bytes);
            });
        });
        if (!resource) return false;
        mapping_.resource_end();
        return fields(message, [&](const ProtobufField& scope) {
            return !scope.message(2) || fields(scope.bytes, [&](const ProtobufField& f) {
                if (!f.message(2)) return true;
                return mapping_.signal == OtlpSignal::traces ? span(f.bytes) : record(f.bytes);
            });
        });
    }

    [[nodiscard]] static bool pair(std::string_view message, std::string_view& key, std::string_view& value) {
        return fields(message, [&](const ProtobufField& f) {
            if (f.message(1)) key = f.bytes;
            if (f.message(2)) value = f.bytes;
            return true;
        });
    }

    [[nodiscard]] bool resource_attribute(std::string_view message) {
        std::string_view key;
        std::string_view value;
        if (!pair(message, key, value)) return false;
        if (!mapping_.of_resource(key) || !mapping_.room_for_value()) return true;
        const std::uint32_t index = mapping_.pool.add();
        if (!any(value, index, 0)) return false;
        mapping_.resource_attribute(key, index);
        return true;
    }

    [[nodiscard]] bool attribute(std::string_view message, Findings& found) {
        std::string_view key;
        std::string_view value;
        if (!pair(message, key, value)) return false;
        const Meaning meaning = mapping_.meaning(key);
        if (!OtlpMapping::wanted(meaning) || !mapping_.room_for_value()) return true;
        const std::uint32_t index = mapping_.pool.add();
        if (!any(value, index, 0)) return false;
        mapping_.take(found, key, meaning, index);
        return true;
    }

    [[nodiscard]] bool any(std::string_view message, std::uint32_t index, int depth) {
        return fields(message, [&](const ProtobufField& f) {
            AnyValue& value = mapping_.pool[index];
            const auto kind = [&](AnyValue::Kind is) {  // of several, the last one stands
                const std::string_view key = value.key;
                const std::uint32_t next = value.next;
                value = AnyValue{};
                value.kind = is;
                value.key = key;
                value.next = next;
            };
            if (f.message(1)) {
                kind(AnyValue::Kind::text);
                value.text = f.bytes;
            } else if (f.is(2, Wire::varint)) {
                kind(AnyValue::Kind::boolean);
                value.boolean = f.value != 0;
            } else if (f.is(3, Wire::varint)) {
                kind(AnyValue::Kind::integer);
                value.integer = static_cast<std::int64_t>(f.value);
            } else if (f.is(4, Wire::fixed64)) {
                kind(AnyValue::Kind::real);
                value.real = std::bit_cast<double>(f.value);
            } else if (f.message(5) || f.message(6)) {
                kind(f.number == 5 ? AnyValue::Kind::array : AnyValue::Kind::map);
                return children(f.bytes, index, f.number == 6, depth + 1);
            } else if (f.message(7)) {
                kind(AnyValue::Kind::text);
                value.text = hex(f.bytes);
            }
            return true;
        });
    }

    [[nodiscard]] bool children(std::string_view message, std::uint32_t parent, bool map, int depth) {
        if (depth > kOtlpDepth) {
            mapping_.refuse("too_deep", "attribute: expected at most 16 levels, found more");
            return true;
        }
        std::uint32_t last = 0;
        return fields(message, [&](const ProtobufField& f) {
            if (!f.message(1) || !mapping_.room_for_value()) return true;
            std::string_view key;
            std::string_view value = f.bytes;
            if (map) {
                value = {};
                if (!pair(f.bytes, key, value)) return false;
            }
            const std::uint32_t child = mapping_.pool.add();
            mapping_.pool[child].key = key;
            mapping_.pool.link(parent, last, child);
            last = child;
            return any(value, child, depth);
        });
    }

    // Digits of bytes: they are rare, so the arena has room for twice the body (see OtlpMapping::begin).
    [[nodiscard]] std::string_view hex(std::string_view bytes) {
        const std::size_t from = mapping_.arena.size();
        for (const char c : bytes) {
            const auto byte = static_cast<unsigned char>(c);
            mapping_.arena += "0123456789abcdef"[byte >> 4];
            mapping_.arena += "0123456789abcdef"[byte & 0xfU];
        }
        return {mapping_.arena.data() + from, mapping_.arena.size() - from};
    }

    [[nodiscard]] bool span(std::string_view message) {
        OtlpItem& item = mapping_.item_begin();
        const bool whole = fields(message, [&](const ProtobufField& f) {
            switch (f.number) {
                case 1: if (f.wire == Wire::bytes) item.trace = f.bytes; return true;
                case 2: if (f.wire == Wire::bytes) item.span = f.bytes; return true;
                case 4: if (f.wire == Wire::bytes) item.parent = f.bytes; return true;
                case 5: if (f.wire == Wire::bytes) item.name = f.bytes; return true;
                case 7: if (f.wire == Wire::fixed64) item.start = f.value; return true;
                case 8: if (f.wire == Wire::fixed64) item.end = f.value; return true;
                case 9: return f.wire != Wire::bytes || attribute(f.bytes, item.found);
                case 11: return f.wire != Wire::bytes || event(f.bytes);
                case 15: return f.wire != Wire::bytes || status(f.bytes, item);
                default: return true;
            }
        });
        if (whole) mapping_.item_end();
        return whole;
    }

    [[nodiscard]] static bool status(std::string_view message, OtlpItem& item) {
        return fields(message, [&](const ProtobufField& f) {
            if (f.is(3, Wire::varint)) item.failed = f.value == 2;
            return true;
        });
    }

    [[nodiscard]] bool event(std::string_view message) {
        std::string_view name;
        std::uint64_t time = 0;
        const bool whole = fields(message, [&](const ProtobufField& f) {
            if (f.is(1, Wire::fixed64)) time = f.value;
            if (f.message(2)) name = f.bytes;
            return true;
        });
        if (!whole) return false;
        if (!OtlpMapping::wants_event(name) || !mapping_.room_for_event()) return true;
        SpanEvent& event = mapping_.event_begin();
        event.name = name;
        event.time = time;
        const bool read = fields(message, [&](const ProtobufField& f) {
            return !f.message(3) || attribute(f.bytes, event.found);
        });
        if (read) mapping_.event_end();
        return read;
    }

    [[nodiscard]] bool record(std::string_view message) {
        OtlpItem& item = mapping_.item_begin();
        const bool whole = fields(message, [&](const ProtobufField& f) {
            switch (f.number) {
                case 1: if (f.wire == Wire::fixed64) item.end = f.value; return true;
                case 6: return f.wire != Wire::bytes || attribute(f.bytes, item.found);
                case 9: if (f.wire == Wire::bytes) item.trace = f.bytes; return true;
                case 10: if (f.wire == Wire::bytes) item.span = f.bytes; return true;
                case 11: if (f.wire == Wire::fixed64) item.observed = f.value; return true;
                case 12: if (f.wire == Wire::bytes) item.event_name = f.bytes; return true;
                default: return true;
            }
        });
        if (whole) mapping_.item_end();
        return whole;
    }

    OtlpMapping& mapping_;
};

}  // namespace

void read_otlp_protobuf(std::string_view body, OtlpMapping& mapping) {
    if (!Reader(mapping).request(body)) {
        mapping.fail("not_protobuf", "body: expected OTLP in protobuf, found bytes that are no such message");
    }
}

}  // namespace argus::events
