#include <doctest/doctest.h>
#include <sys/stat.h>

#include "sources/sysfs.hpp"
#include "support.hpp"

namespace argus::test {

using sources::list_folder;
using sources::read_signed;
using sources::read_unsigned;
using sources::read_value;

TEST_CASE("sysfs: names are sorted, hidden ones left out, also when calls are interrupted") {
    Tree tree;
    for (const char* name : {"b", "a", ".hidden", "c10", "c2"}) tree.write(std::string("sys/x/") + name, "1\n");
    std::vector<std::string> names{"stale"};
    const WithFaults injected({.interrupt_every = 2});
    REQUIRE(list_folder(kFaultyIo, tree.roots().sys + "/x", "sys/x", names).ok());
    CHECK(names == std::vector<std::string>{"a", "b", "c10", "c2"});
    CHECK(faults.opened == 0);
}

TEST_CASE("sysfs: no folder is unavailable and named, a file in its place an error") {
    Tree tree;
    tree.write("sys/file", "1");
    std::vector<std::string> names;
    const auto absent = list_folder(system_io(), tree.roots().sys + "/none", "sys/none", names);
    REQUIRE(!absent.ok());
    CHECK(absent.error().code == Errc::unavailable);
    CHECK(std::string(absent.error().what) == "sys/none");
    CHECK(!list_folder(system_io(), tree.roots().sys + "/file", "sys/file", names).ok());
}

TEST_CASE("sysfs: a value is the whole text or nothing") {
    Tree tree;
    const std::string path = tree.roots().sys + "/v";
    const auto put = [&](const std::string& text) { tree.write("sys/v", text); };
    put("-12\n");
    CHECK(read_signed(system_io(), path) == -12);
    CHECK(!read_unsigned(system_io(), path));
    put("18446744073709551615\n");
    CHECK(read_unsigned(system_io(), path) == 18446744073709551615ULL);
    CHECK(!read_signed(system_io(), path));
    for (const char* wrong : {"", "12 34", "0x12", "max", "18446744073709551616"}) {
        put(wrong);
        CHECK(!read_unsigned(system_io(), path));
    }
    put("some words \n\n");
    CHECK(read_value(system_io(), path) == "some words");
    put(std::string(sources::kMaxValueBytes + 1, '1'));
    CHECK(!read_value(system_io(), path));
    CHECK(!read_value(system_io(), tree.roots().sys + "/none"));
    tree.remove("sys/v");
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    CHECK(!read_value(system_io(), path));
}

}  // namespace argus::test
