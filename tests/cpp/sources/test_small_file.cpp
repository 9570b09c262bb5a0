#include "sources/small_file.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "support.hpp"

namespace argus::test {

TEST_CASE("small file: the whole text is the number, or there is none") {
    Tree tree;
    const std::string path = tree.roots().sys + "/v";
    const auto put = [&](const std::string& text) { tree.write("sys/v", text); };
    put("-12\n");
    CHECK(sources::small_signed(system_io(), path.c_str()) == -12);
    CHECK(!sources::small_unsigned(system_io(), path.c_str()));
    put("18446744073709551615 \n");
    CHECK(sources::small_unsigned(system_io(), path.c_str()) == 18446744073709551615ULL);
    for (const char* wrong : {"", "\n", "12 34", "0x12", "max", "18446744073709551616", "1.5"}) {
        CAPTURE(wrong);
        put(wrong);
        CHECK(!sources::small_unsigned(system_io(), path.c_str()));
        CHECK(!sources::small_signed(system_io(), path.c_str()));
    }
    put(std::string(sources::SmallText::kCapBytes, '1'));
    sources::SmallText text;
    CHECK(sources::read_small(system_io(), path.c_str(), text) == -EFBIG);
    tree.remove("sys/v");
    CHECK(!sources::file_exists(system_io(), path.c_str()));
    CHECK(sources::read_small(system_io(), path.c_str(), text) == -ENOENT);
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    CHECK(sources::file_exists(system_io(), path.c_str()));
    CHECK(!sources::small_unsigned(system_io(), path.c_str()));
}

TEST_CASE("small file: a read that fails or is interrupted leaves no descriptor") {
    Tree tree;
    tree.write("sys/v", "123\n");
    const std::string path = tree.roots().sys + "/v";
    const WithFaults injected({.largest_read = 1, .interrupt_every = 2});
    CHECK(sources::small_unsigned(kFaultyIo, path.c_str()) == 123);
    faults.pread_errno = EIO;
    CHECK(!sources::small_unsigned(kFaultyIo, path.c_str()));
    CHECK(faults.opened == 0);
}

TEST_CASE("small file: the mark of a folder changes with its entries and not with their contents") {
    Tree tree;
    const std::string path = tree.roots().sys + "/f";
    CHECK(sources::folder_mark(system_io(), path.c_str()) == 0);
    CHECK(!sources::count_entries(system_io(), path.c_str()));
    tree.write("sys/f/a", "1");
    tree.write("sys/f/b", "2");
    tree.write("sys/f/.hidden", "3");
    const std::uint64_t mark = sources::folder_mark(system_io(), path.c_str());
    CHECK(mark != 0);
    CHECK(sources::count_entries(system_io(), path.c_str()) == 2);
    tree.write("sys/f/a", "changed");
    CHECK(sources::folder_mark(system_io(), path.c_str()) == mark);
    tree.write("sys/f/c", "1");
    CHECK(sources::folder_mark(system_io(), path.c_str()) != mark);
    tree.remove("sys/f/c");
    CHECK(sources::folder_mark(system_io(), path.c_str()) == mark);
    fs::rename(path + "/b", path + "/d");
    CHECK(sources::folder_mark(system_io(), path.c_str()) != mark);
}

}  // namespace argus::test
