#include "events/msgpack_reader.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "pack.hpp"

using namespace argus::events;
using namespace argus::test;

namespace {

Value read(const std::string& raw, Fault expected = Fault::none) {
    MsgpackReader reader(bytes_of(raw));
    Value value;
    CHECK(reader.next(value) == expected);
    return value;
}

Fault check(const std::string& raw, int depth = 2) { return MsgpackReader(bytes_of(raw)).validate(depth); }

}  // namespace

TEST_CASE("msgpack: every scalar head reads back") {
    CHECK(read("\x7f").integer == 127);
    CHECK(read("\xe0").integer == -32);
    CHECK(read("\xcc\xff").integer == 255);
    CHECK(read("\xcd\xff\xff").integer == 65535);
    CHECK(read("\xce\xff\xff\xff\xff").integer == 4294967295LL);
    CHECK(read("\xd0\x80").integer == -128);
    CHECK(read("\xd1\x80" + std::string(1, '\0')).integer == -32768);
    CHECK(read(integer(std::numeric_limits<std::int64_t>::min())).integer == std::numeric_limits<std::int64_t>::min());
    CHECK(read(big(1ULL << 63)).wire == Wire::big_integer);
    CHECK(read(big((1ULL << 63) - 1)).wire == Wire::integer);
    CHECK(read(real(1.5)).real == 1.5);
    CHECK(read("\xca\x3f\xc0" + std::string(2, '\0')).real == 1.5);
    CHECK(read("\xc3").boolean);
    CHECK_FALSE(read("\xc2").boolean);
    CHECK(read("\xc0").wire == Wire::nil);
    CHECK(read("\xa3" "abc").bytes == "abc");
    CHECK(read("\xd9\x03" "abc").bytes == "abc");
    CHECK(read(binary("xy")).wire == Wire::binary);
    CHECK(read("\x93").count == 3);
    CHECK(read("\x83").count == 3);
    CHECK(read("\xd4\x01z").wire == Wire::extension);
    CHECK(read("\xc7\x01\x05z").wire == Wire::extension);
    read("\xc1", Fault::reserved);
}

TEST_CASE("msgpack: every proper prefix of a value is truncated, never read past") {
    const std::string whole =
        map({{"a", array({integer(1), real(2), text("three"), binary("4")})},
             {"b", headed('\xd8', std::string(17, 'x'))}});
    CHECK(MsgpackReader(bytes_of(whole)).skip());
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const std::string part = whole.substr(0, size);
        CHECK_FALSE(MsgpackReader(bytes_of(part)).skip());
        CHECK(check(part, 1) != Fault::none);
    }
}

TEST_CASE("msgpack: a length beyond the bytes is refused at once") {
    CHECK(check("\xdd\xff\xff\xff\xff") == Fault::truncated);
    CHECK(check("\xdb\xff\xff\xff\xff" "abc") == Fault::truncated);
    CHECK_FALSE(MsgpackReader(bytes_of("\xdf\xff\xff\xff\xff")).skip());
}

TEST_CASE("msgpack: skip steps over any depth without recursion") {
    const std::string deep(500'000, '\x91');
    CHECK(MsgpackReader(bytes_of(deep + "\x01")).skip());
    CHECK_FALSE(MsgpackReader(bytes_of(deep)).skip());
    CHECK(check(deep + "\x01") == Fault::too_deep);
}

TEST_CASE("msgpack: validate counts depth from where the value stands") {
    const std::string nested = array({array({array({integer(1)})})});
    CHECK(check(nested, 2) == Fault::none);
    CHECK(check(nested, 3) == Fault::too_deep);
    CHECK(check(integer(7), 4) == Fault::none);
}

TEST_CASE("msgpack: validate refuses what no JSON could say") {
    CHECK(check(array({real(std::numeric_limits<double>::infinity())})) == Fault::non_finite);
    CHECK(check(array({real(std::numeric_limits<double>::quiet_NaN())})) == Fault::non_finite);
    CHECK(check(array({"\xd4\x01z"})) == Fault::extension);
    CHECK(check(map({{"a", nil()}, {"a", nil()}})) == Fault::duplicate_key);
    CHECK(check(map({{"a", map({{"a", nil()}})}, {"b", map({{"a", nil()}})}})) == Fault::none);
    CHECK(check(headed('\x81', integer(1)) + nil()) == Fault::key_type);
    CHECK(check(text("\xff")) == Fault::bad_utf8);
    Entries many;
    for (std::uint32_t i = 0; i <= kMaxNestedKeys; ++i) many.emplace_back(std::to_string(i), nil());
    CHECK(check(map(many)) == Fault::too_many_keys);
    many.pop_back();
    CHECK(check(map(many)) == Fault::none);
}

TEST_CASE("msgpack: UTF-8 is checked to the letter of the standard") {
    for (const char* good : {"", "plain ascii text, longer than eight", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf",
                             "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "12345678\xc3\xa9"}) {
        CHECK_MESSAGE(valid_utf8(good), good);
    }
    for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80",
                            "\xef\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                            "\xff", "12345678\xc3", "\xc3(" }) {
        CHECK_FALSE_MESSAGE(valid_utf8(bad), bad);
    }
}
