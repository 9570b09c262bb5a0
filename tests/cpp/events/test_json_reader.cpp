#include "events/json_reader.hpp"

#include <doctest/doctest.h>

#include <string>

#include "events/any_value.hpp"

using namespace argus::events;

namespace {

bool takes(std::string_view document) {
    std::string arena;
    arena.reserve(document.size());
    JsonReader reader(document, arena);
    return reader.skip() && reader.at_end();
}

std::string canonical(std::string_view text) {
    CanonicalJson json;
    return std::string(json.of_text(text));
}

}  // namespace

TEST_CASE("json: the grammar of RFC 8259 and nothing else") {
    for (const char* good : {"null", " true ", "-0", "1.5e-3", "\"\\u00e9\\ud83d\\ude00\"", "[]", "{}", "[1,[2,{}]]",
                             "{\"a\":{\"b\":[null]},\"c\":\"\"}"}) {
        CHECK_MESSAGE(takes(good), good);
    }
    for (const char* bad : {"", "nul", "01", "1.", ".5", "+1", "1e", "NaN", "\"\\x\"", "\"\\ud800\"", "\"\\udc00\"",
                            "\"\n\"", "[1,]", "[1 2]", "{\"a\"}", "{a:1}", "{\"a\":1,}", "[", "]", "{\"a\":1]",
                            "1 2"}) {
        CHECK_MESSAGE(!takes(bad), bad);
    }
}

TEST_CASE("json: depth is bounded without recursion") {
    const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
    CHECK(takes(nested(kMaxJsonDepth)));
    CHECK_FALSE(takes(nested(kMaxJsonDepth + 1)));
    CHECK_FALSE(takes(std::string(1'000'000, '[')));
}

TEST_CASE("json: text with escapes lies in the arena, text without in the document") {
    const std::string document = R"(["plain text of some length","a\n\u00e9b"])";
    std::string arena;
    arena.reserve(document.size());
    JsonReader reader(document, arena);
    std::vector<std::string_view> found;
    CHECK(reader.array([&] { return reader.text(found.emplace_back()); }));
    REQUIRE(found.size() == 2);
    CHECK(found[0] == "plain text of some length");
    CHECK(found[0].data() == document.data() + 2);
    CHECK(found[1] == "a\n\xc3\xa9" "b");
}

TEST_CASE("json: what two senders space and order in their own ways is one canonical text") {
    CHECK(canonical(R"({ "b" : [ 2.50, 1e2 ] , "a":-0, "\u0061\u00e9": "\/" })") ==
          R"({"a":0,"aé":"/","b":[2.5,100.0]})");
    CHECK(canonical(R"({"a":1,"a":2})") == R"({"a":2})");
    CHECK(canonical("[1e16,1e-5,1e-6,1e300,123456789012345678901]") ==
          "[1e16,0.00001,1e-6,1e300,123456789012345678901]");
    CHECK(canonical("[1e999]") == "\"[1e999]\"");  // no number: it is the text that it is
    CHECK(canonical("{torn") == "\"{torn\"");
    CHECK(canonical("say \"x\"\t\x01") == R"("say \"x\"\t\u0001")");
}

TEST_CASE("json: numbers too small are zero, too large are none") {
    double value = 1.0;
    CHECK(to_double("1e-400", value));
    CHECK(value == 0.0);
    CHECK_FALSE(to_double("1e400", value));
    CHECK_FALSE(to_double("-1e400", value));
    CHECK_FALSE(to_double("1x", value));
}
