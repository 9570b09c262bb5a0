#include "events/decode.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "pack.hpp"

using namespace argus;
using namespace argus::events;
using namespace argus::test;

namespace {

std::vector<Decoded> decode(const std::string& frame, bool require_seq = false) {
    FrameDecoder decoder(bytes_of(frame), require_seq);
    std::vector<Decoded> all;
    Decoded one;
    while (decoder.next(one)) all.push_back(one);
    return all;
}

Reject verdict(const EventMap& event, bool require_seq = false) {
    const std::string frame = event.pack();
    const auto all = decode(frame, require_seq);
    REQUIRE(all.size() == 1);
    return all[0].reject;
}

}  // namespace

TEST_CASE("decode: a full event keeps every key") {
    EventMap e("tool_called");
    e.str("tenant", "t").str("session", "se").str("task", "ta").str("agent", "ag").str("tool", "search");
    e.str("args_hash", "aa").str("result_hash", "bb").num("result_len", 7).set("ok", boolean(true));
    e.set("score", real(0.5)).set("trace", binary(std::string(16, '\x01'))).str("span", "00f067aa0ba902b7");
    e.set("entities", array({text("x")})).set("attrs", map({{"n", integer(2)}, {"s", text("v")}, {"z", nil()}}));
    const std::string frame = e.pack();
    const auto all = decode(frame, true);
    REQUIRE(all.size() == 1);
    REQUIRE(all[0].reject == Reject::none);
    const Event& got = all[0].event;
    CHECK(got.type == EventType::tool_called);
    CHECK(got.ts == kEpoch);
    CHECK(got.seq == 1);
    CHECK(got.tool == "search");
    CHECK(got.result_len == 7);
    CHECK(got.ok == 1);
    CHECK(got.score == 0.5);
    CHECK(got.trace.size() == 16);
    CHECK(got.entities.size() > 0);
    CHECK(got.attrs.size() > 0);
    CHECK(got.cost_nusd == kAbsent);
    CHECK(got.parent.data() == nullptr);
    CHECK(got.content_hash != 0);
}

TEST_CASE("decode: every type name is known, and no other") {
    for (int t = 1; t < static_cast<int>(EventType::count_); ++t) {
        const auto type = static_cast<EventType>(t);
        CHECK(event_type(event_type_name(type)) == type);
    }
    CHECK(event_type("task_start") == EventType::unknown);
    CHECK(event_type("") == EventType::unknown);
    CHECK(verdict(EventMap("my_own_type")) == Reject::none);
}

TEST_CASE("decode: a missing required key rejects") {
    for (const char* key : {"v", "id", "type", "ts", "source"}) {
        CHECK(verdict(EventMap().drop(key)) == Reject::missing_key);
    }
    CHECK(verdict(EventMap().drop("seq")) == Reject::none);
    CHECK(verdict(EventMap().drop("seq"), true) == Reject::missing_key);
    CHECK(verdict(EventMap().str("id", "")) == Reject::missing_key);
    for (const char* type : {"task_started", "task_completed", "task_failed", "task_cancelled"}) {
        CHECK(verdict(EventMap(type)) == Reject::missing_key);
        CHECK(verdict(EventMap(type).str("task", "t")) == Reject::none);
    }
    CHECK(verdict(EventMap("tool_called")) == Reject::missing_key);
    CHECK(verdict(EventMap("tool_returned").str("tool", "t")) == Reject::none);
    CHECK(verdict(EventMap("file_written")) == Reject::missing_key);
    CHECK(verdict(EventMap("file_deleted").str("path", "/p")) == Reject::none);
    CHECK(verdict(EventMap("token_cost_logged")) == Reject::missing_key);
    CHECK(verdict(EventMap("token_cost_logged").num("cost_nusd", 0)) == Reject::none);
    CHECK(verdict(EventMap("token_cost_logged").num("output_tokens", 3)) == Reject::none);
}

TEST_CASE("decode: a wrong type rejects, whatever looks like the right one") {
    CHECK(verdict(EventMap().set("cost_nusd", real(1.0))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("cost_nusd", boolean(true))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("ok", integer(1))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("id", binary("x"))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("task", nil())) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("v", text("1"))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("attrs", array({}))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("attrs", map({{"a", array({})}}))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("entities", map({}))) == Reject::wrong_type);
    CHECK(verdict(EventMap().set("entities", array({integer(1)}))) == Reject::wrong_type);
    const std::string number = integer(5);
    CHECK(decode(number)[0].reject == Reject::wrong_type);
}

TEST_CASE("decode: limits hold to the byte") {
    for (const KeySpec& key : schema()) {
        if (key.field != Field::text) continue;
        const std::string name(key.name);
        EventMap fits("mine");
        CHECK_MESSAGE(verdict(fits.str(name, std::string(key.limit, 'x'))) == Reject::none, name);
        EventMap over("mine");
        CHECK_MESSAGE(verdict(over.str(name, std::string(key.limit + 1, 'x'))) == Reject::over_limit, name);
    }
    CHECK(verdict(EventMap().num("ts", -1)) == Reject::over_limit);
    CHECK(verdict(EventMap().num("cost_nusd", -1)) == Reject::over_limit);
    CHECK(verdict(EventMap().set("seq", big(1ULL << 63))) == Reject::over_limit);
    CHECK(verdict(EventMap().num("args_len", 1LL << 32)) == Reject::over_limit);
    CHECK(verdict(EventMap().num("duration_ns", -5)) == Reject::none);
    CHECK(verdict(EventMap().set("trace", binary("short"))) == Reject::over_limit);
    std::vector<std::string> entities(kMaxEntries, text("e"));
    CHECK(verdict(EventMap().set("entities", array(entities))) == Reject::none);
    entities.push_back(text("e"));
    CHECK(verdict(EventMap().set("entities", array(entities))) == Reject::over_limit);
    CHECK(verdict(EventMap().set("attrs", map({{std::string(65, 'k'), nil()}}))) == Reject::over_limit);
    CHECK(verdict(EventMap().set("attrs", map({{"k", text(std::string(513, 'v'))}}))) == Reject::over_limit);
    CHECK(verdict(EventMap().set("extra", text(std::string(kMaxEventBytes, 'x')))) == Reject::over_limit);
}

TEST_CASE("decode: content rules reject with their own reason") {
    CHECK(verdict(EventMap().num("v", 2)) == Reject::unsupported_version);
    CHECK(verdict(EventMap().num("v", 2).set("ok", integer(1))) == Reject::unsupported_version);
    CHECK(verdict(EventMap().set("score", real(std::numeric_limits<double>::quiet_NaN()))) == Reject::non_finite);
    const std::string endless = real(std::numeric_limits<double>::infinity());
    CHECK(verdict(EventMap().set("attrs", map({{"a", endless}}))) == Reject::non_finite);
    CHECK(verdict(EventMap().str("task", "\xc3(")) == Reject::bad_utf8);
    CHECK(verdict(EventMap().str("\xff", "x")) == Reject::bad_utf8);
    CHECK(verdict(EventMap().repeat("id", text("again"))) == Reject::duplicate_key);
    CHECK(verdict(EventMap().repeat("mine", nil()).repeat("mine", nil())) == Reject::duplicate_key);
    CHECK(verdict(EventMap().set("attrs", map({{"a", nil()}, {"a", nil()}}))) == Reject::duplicate_key);
    CHECK(verdict(EventMap().set("mine", "\xd4\x01z")) == Reject::extension_type);
    CHECK(verdict(EventMap().set("task", "\xd4\x01z")) == Reject::extension_type);
    CHECK(verdict(EventMap().set("mine", array({array({array({})})}))) == Reject::none);
    CHECK(verdict(EventMap().set("mine", array({array({array({array({})})})}))) == Reject::too_deep);
}

TEST_CASE("decode: a bad event rejects itself and the batch lives") {
    const std::string deep = EventMap("heartbeat", "deep").set("x", std::string(3000, '\x91') + "\x01").pack();
    const std::string timeless = EventMap("heartbeat", "b").drop("ts").pack();
    const std::string frame = array({EventMap("heartbeat", "a").pack(), deep, timeless, integer(3),
                                     EventMap("heartbeat", "c").pack()});
    const auto all = decode(frame);
    REQUIRE(all.size() == 5);
    CHECK(all[0].event.id == "a");
    CHECK(all[1].reject == Reject::too_deep);
    CHECK(all[1].event.source == "s");
    CHECK(all[2].reject == Reject::missing_key);
    CHECK(std::string(all[2].detail) == "ts");
    CHECK(all[3].reject == Reject::wrong_type);
    CHECK(all[4].reject == Reject::none);
    CHECK(all[4].event.id == "c");
}

TEST_CASE("decode: broken framing is one malformed reject for the remainder") {
    const std::string good = EventMap().pack();
    const std::string cut = array({good, good, good}).substr(0, 5 + good.size() + good.size() / 2);
    const auto all = decode(cut);
    REQUIRE(all.size() == 2);
    CHECK(all[0].reject == Reject::none);
    CHECK(all[1].reject == Reject::malformed);
    CHECK(decode("")[0].reject == Reject::malformed);
    const auto trailing = decode(good + "\x01");
    REQUIRE(trailing.size() == 2);
    CHECK(trailing[1].reject == Reject::malformed);
    CHECK(decode(array({})).empty());
}

TEST_CASE("decode: frames beyond their limits are refused whole") {
    std::vector<std::string> many(kMaxBatch, EventMap().pack());
    CHECK(decode(array(many)).size() == kMaxBatch);
    many.push_back(many[0]);
    const std::string frame = array(many);
    const auto refused = decode(frame);
    REQUIRE(refused.size() == 1);
    CHECK(refused[0].reject == Reject::over_limit);
    const std::string huge(kMaxFrameBytes + 1, '\xc0');
    CHECK(decode(huge)[0].reject == Reject::over_limit);
}

TEST_CASE("decode: no prefix and no flipped byte of a batch breaks the decoder") {
    const EventMap call = EventMap("tool_called", "a").str("tool", "t").set("attrs", map({{"k", real(1)}}));
    const std::string frame = array({call.pack(),
                                     EventMap("task_started", "b").str("task", "t").pack()});
    for (std::size_t size = 0; size < frame.size(); ++size) CHECK(decode(frame.substr(0, size)).size() <= 2);
    for (std::size_t i = 0; i < frame.size(); ++i) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string flipped = frame;
            flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
            CHECK(decode(flipped).size() <= kMaxBatch + 1);
        }
    }
}
