#include "events/otlp.hpp"

#include <doctest/doctest.h>

#include <span>
#include <string>

#include "events/decode.hpp"
#include "events/otlp_words.hpp"

using namespace argus::events;

namespace {

// The wire format, as a sender writes it.
std::string varint(std::uint64_t value) {
    std::string out;
    for (; value > 0x7f; value >>= 7) out += static_cast<char>((value & 0x7fU) | 0x80U);
    return out + static_cast<char>(value);
}
std::string field(unsigned number, const std::string& bytes) {
    return varint(number << 3 | 2U) + varint(bytes.size()) + bytes;
}
std::string fixed(unsigned number, std::uint64_t value) {
    std::string out = varint(number << 3 | 1U);
    for (int i = 0; i < 8; ++i) out += static_cast<char>(value >> (8 * i) & 0xffU);
    return out;
}
std::string attribute(const std::string& key, const std::string& value) {
    return field(9, field(1, key) + field(2, field(1, value)));
}
constexpr std::uint64_t kNow = 1'790'000'000'000'000'000;

std::string span(const std::string& attributes, char id = 'b') {
    return field(2, field(1, std::string(16, 'a')) + field(2, std::string(8, id)) + field(5, "chat") +
                        fixed(7, kNow) + fixed(8, kNow + 5) + attributes);
}
std::string service(const std::string& name) {
    return field(1, field(1, field(1, "service.name") + field(2, field(1, name))));
}
std::string request(const std::string& spans, bool resource_last = false) {
    const std::string scope = field(2, spans);
    return field(1, resource_last ? scope + service("shop") : service("shop") + scope);
}

OtlpBatch traces(const std::string& body) {
    OtlpMapper mapper("", 2'000'000'000);
    return mapper.map(body, OtlpSignal::traces, OtlpEncoding::protobuf);
}
OtlpBatch json(const std::string& body) {
    OtlpMapper mapper("", 2'000'000'000);
    return mapper.map(body, OtlpSignal::traces, OtlpEncoding::json);
}

template <class See>
std::size_t each_event(const OtlpBatch& batch, See&& see) {
    std::size_t count = 0;
    for (const std::string& frame : batch.frames) {
        FrameDecoder decoder(std::as_bytes(std::span(frame)), false);
        Decoded decoded;
        while (decoder.next(decoded)) {
            ++count;
            see(decoded);
        }
    }
    return count;
}

const std::string kChat = attribute("gen_ai.operation.name", "chat");

}  // namespace

TEST_CASE("otlp: a span in protobuf becomes its event, wherever the resource stands") {
    for (const bool last : {false, true}) {
        const OtlpBatch batch = traces(request(span(kChat + attribute("gen_ai.request.model", "m")), last));
        CHECK(batch.failure.empty());
        CHECK(batch.items == 1);
        const std::size_t count = each_event(batch, [](const Decoded& decoded) {
            CHECK(decoded.reject == Reject::none);
            CHECK(decoded.event.type_name == "model_returned");
            CHECK(decoded.event.source == "shop");
            CHECK(decoded.event.model == "m");
            CHECK(decoded.event.id == "6262626262626262:e");
            CHECK(decoded.event.session == decoded.event.trace);
            CHECK(decoded.event.duration_ns == 5);
        });
        CHECK(count == 1);
    }
}

TEST_CASE("otlp: the same span in JSON is the same event, value before key and resource last") {
    const std::string body = R"({"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[
        {"value":{"stringValue":"chat"},"key":"gen_ai.operation.name"}],"name":"chat",
        "traceId":"61616161616161616161616161616161","spanId":"6262626262626262",
        "startTimeUnixNano":1790000000000000000,"endTimeUnixNano":"1790000000000000005"}]}],
        "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]}}]})";
    const OtlpBatch batch = json(body);
    CHECK(batch.failure == "");
    CHECK(batch.frames == traces(request(span(kChat))).frames);
}

TEST_CASE("otlp: bytes that are no message fail as a whole and leave nothing behind") {
    const std::string whole = request(span(kChat));
    for (std::size_t cut = 1; cut < whole.size(); ++cut) {
        const OtlpBatch batch = traces(whole.substr(0, cut));
        CHECK(batch.failure == "not_protobuf");
        CHECK(batch.frames.empty());
    }
    CHECK(traces("").failure.empty());
    CHECK(traces("").items == 0);
}

TEST_CASE("otlp: one bad span is refused by source and reason, its neighbours live") {
    const OtlpBatch batch = traces(request(span(kChat) + span(kChat, '\0') + span(kChat, 'c')));
    CHECK(batch.items == 3);
    CHECK(batch.events == 2);
    REQUIRE(batch.rejected.size() == 1);
    CHECK(batch.rejected[0].source == "shop");
    CHECK(batch.rejected[0].reason == "bad_id");
    CHECK(batch.rejected[0].count == 1);
}

TEST_CASE("otlp: values and events of one span are bounded, and refuse that span alone") {
    std::string many;  // 2 bytes a value
    for (std::size_t i = 0; i <= kOtlpValues; ++i) many += field(1, "");
    const std::string bomb = field(9, field(1, "gen_ai.tool.call.arguments") + field(2, field(5, many)));
    std::string events;
    for (std::size_t i = 0; i <= kOtlpEvents; ++i) events += field(11, field(2, "gen_ai.e"));
    for (const std::string& heavy : {bomb, events}) {
        const OtlpBatch batch = traces(request(span(kChat + heavy) + span(kChat, 'c')));
        CHECK(batch.events == 1);
        REQUIRE(batch.rejected.size() == 1);
        CHECK(batch.rejected[0].reason == "over_limit");
    }
}

TEST_CASE("otlp: a huge attribute of a resource is not copied into each of its spans") {
    std::string spans;
    for (char id = 'a'; id <= 'z'; ++id) spans += span(kChat, id);
    const std::string huge = field(1, field(1, "session.id") + field(2, field(1, std::string(1U << 20, 'x'))));
    const OtlpBatch batch = traces(field(1, field(1, huge) + field(2, spans)));
    std::size_t bytes = 0;
    for (const std::string& frame : batch.frames) bytes += frame.size();
    CHECK(bytes < 26 * 2048);
    each_event(batch, [](const Decoded& decoded) { CHECK(decoded.reject == Reject::over_limit); });
}

TEST_CASE("otlp: nesting beyond the limit refuses the span in both encodings") {
    std::string inner = field(1, "x");
    std::string text = R"({"stringValue":"x"})";
    for (int depth = 1; depth <= kOtlpDepth + 1; ++depth) {
        inner = field(5, field(1, inner));
        text = R"({"arrayValue":{"values":[)" + text + "]}}";
        const auto batch = traces(request(span(kChat + field(9, field(1, "input.value") + field(2, inner)))));
        CHECK(batch.events == (depth <= kOtlpDepth ? 1 : 0));
        const auto same = json(R"({"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"chat",
            "traceId":"61616161616161616161616161616161","spanId":"6262626262626262","endTimeUnixNano":5,
            "attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},
            {"key":"input.value","value":)" + text + "}]}]}]}]}");
        CHECK(same.failure == "");
        CHECK(same.events == batch.events);
    }
}

TEST_CASE("otlp: senders' clocks are remembered for so many senders") {
    OtlpLanes lanes(0);
    CHECK(lanes.lane("first", 100) == 0);
    CHECK(lanes.lane("first", 50) == 1);
    for (std::size_t i = 0; i < kOtlpSources; ++i) CHECK(lanes.lane(std::to_string(i), 1) == 0);
    CHECK(lanes.lane("first", 1) == 0);  // forgotten, and begun anew
}

TEST_CASE("otlp: attributes under a content name are content, others are unknown") {
    CHECK(meaning_of("gen_ai.request.model").word == Word::model);
    CHECK(meaning_of("gen_ai.request.model").rank == 2);
    CHECK(meaning_of("gen_ai.input.messages").word == Word::content);
    CHECK(meaning_of("server.port").word == Word::kept);
    CHECK(meaning_of("http.method").word == Word::unknown);
    CHECK(is_content("llm.input_messages.0.message.content"));
    CHECK_FALSE(is_content("http.method"));
    CHECK_FALSE(is_content(std::string(1U << 20, '.')));
}
