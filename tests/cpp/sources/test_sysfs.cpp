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
    for (const char* wrong : {"", "\n", "12 34", "0x12", "max", "18446744073709551616", "1.5"}) {
        CAPTURE(wrong);
        put(wrong);
        CHECK(!read_unsigned(system_io(), path));
        CHECK(!read_signed(system_io(), path));
    }
    put("some words \n\n");
    CHECK(read_value(system_io(), path) == "some words");
    put(std::string(sources::kMaxValueBytes + 1, '1'));
    CHECK(!read_value(system_io(), path));
    put("12" + std::string(sources::SmallText::kCapBytes, ' '));
    sources::SmallText text;
    CHECK(sources::read_small(system_io(), path, text) == -EFBIG);
    CHECK(text.view().starts_with("12 "));
    tree.remove("sys/v");
    CHECK(!read_value(system_io(), path));
    CHECK(!sources::file_exists(system_io(), path));
    CHECK(sources::read_small(system_io(), path, text) == -ENOENT);
    CHECK(text.size == 0);
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    CHECK(sources::file_exists(system_io(), path));
    CHECK(!read_value(system_io(), path));
    CHECK(!read_unsigned(system_io(), path));
}

TEST_CASE("sysfs: a read that fails or is interrupted leaves no descriptor") {
    Tree tree;
    tree.write("sys/v", "123\n");
    const std::string path = tree.roots().sys + "/v";
    const WithFaults injected({.largest_read = 1, .interrupt_every = 2});
    CHECK(sources::read_unsigned(kFaultyIo, path) == 123);
    faults.pread_errno = EIO;
    CHECK(!sources::read_unsigned(kFaultyIo, path));
    CHECK(faults.opened == 0);
}

TEST_CASE("sysfs: the mark of a folder changes with its entries and not with their contents") {
    Tree tree;
    const std::string path = tree.roots().sys + "/f";
    CHECK(sources::folder_mark(system_io(), path) == 0);
    CHECK(!sources::count_entries(system_io(), path));
    tree.write("sys/f/a", "1");
    tree.write("sys/f/b", "2");
    tree.write("sys/f/.hidden", "3");
    const std::uint64_t mark = sources::folder_mark(system_io(), path);
    CHECK(mark != 0);
    CHECK(sources::count_entries(system_io(), path) == 2);
    tree.write("sys/f/a", "changed");
    CHECK(sources::folder_mark(system_io(), path) == mark);
    tree.write("sys/f/c", "1");
    CHECK(sources::folder_mark(system_io(), path) != mark);
    tree.remove("sys/f/c");
    CHECK(sources::folder_mark(system_io(), path) == mark);
    fs::rename(path + "/b", path + "/d");
    CHECK(sources::folder_mark(system_io(), path) != mark);
}

}  // namespace argus::test
