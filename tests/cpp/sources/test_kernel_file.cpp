#include "sources/kernel_file.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

namespace argus::test {
namespace {

int reads = 0;
std::size_t chunk = 0;  // bytes a read gives at most
const Io kCounting{system_io().open_at,
                   [](int fd, void* buffer, std::size_t size, off_t offset) -> ssize_t {
                       ++reads;
                       return system_io().pread(fd, buffer, std::min(size, chunk), offset);
                   },
                   system_io().get_dents, system_io().close};

int reads_of(sources::KernelFile& file, const std::string& expected) {
    reads = 0;
    const auto text = file.read();
    REQUIRE(text.ok());
    CHECK(*text == expected);
    return reads;
}

}  // namespace

TEST_CASE("kernel file: a short file as long as before takes one read, any other is read to its end") {
    Tree tree;
    chunk = 4096;
    const auto write = [&](const std::string& text) { tree.write("file", text); };
    write("some 1\n");
    sources::KernelFile file(kCounting, tree.path("file"), "file");
    CHECK(reads_of(file, "some 1\n") == 2);
    CHECK(reads_of(file, "some 1\n") == 1);
    write("some 2\n");
    CHECK(reads_of(file, "some 2\n") == 1);
    write("some 10\n");
    CHECK(reads_of(file, "some 10\n") == 2);
    CHECK(reads_of(file, "some 10\n") == 1);
    write("");
    CHECK(reads_of(file, "") == 1);
    write("some 3\n");
    CHECK(reads_of(file, "some 3\n") == 2);
}

TEST_CASE("kernel file: a page that ends where the file ended is not taken for its end") {
    Tree tree;
    chunk = 4080;
    const std::string page(4079, 'a');
    tree.write("file", page + "\n");
    sources::KernelFile file(kCounting, tree.path("file"), "file");
    CHECK(reads_of(file, page + "\n") == 2);
    tree.write("file", page + "\nnew line\n");
    CHECK(reads_of(file, page + "\nnew line\n") == 3);
}

TEST_CASE("kernel file: short reads add up to the whole") {
    Tree tree;
    chunk = 3;
    tree.write("file", "some 1234\n");
    sources::KernelFile file(kCounting, tree.path("file"), "file");
    for (int i = 0; i < 3; ++i) (void)reads_of(file, "some 1234\n");
    tree.write("file", "some 12345678\n");
    for (int i = 0; i < 3; ++i) (void)reads_of(file, "some 12345678\n");
}

}  // namespace argus::test
