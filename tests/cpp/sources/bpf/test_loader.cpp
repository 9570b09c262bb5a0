#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "bpf.hpp"
#include "sources/bpf/loader.hpp"

namespace argus::test {

using sources::bpf::Object;

TEST_CASE("bpf loader: what is missing is named") {
    const unsigned char something[] = {0x7f, 'E', 'L', 'F'};
    const auto none = Object::open({}, "none");
    REQUIRE(!none);
    CHECK(none.error().code == Errc::unavailable);
    CHECK(std::string(none.error().what).find("no compiled BPF object") != std::string::npos);
    const auto no_library = Object::open(something, "none", {.library = "libabsent.so.9"});
    REQUIRE(!no_library);
    CHECK(no_library.error().code == Errc::unavailable);
    CHECK(std::string(no_library.error().what).find("libbpf.so.1 is not installed") != std::string::npos);
}

TEST_CASE("bpf loader: a library that is no libbpf is as none") {
    const unsigned char something[] = {0x7f, 'E', 'L', 'F'};
    const auto opened = Object::open(something, "none", {.library = "libm.so.6"});
    REQUIRE(!opened);
    CHECK(std::string(opened.error().what).find("libbpf.so.1 is not installed") != std::string::npos);
}

TEST_CASE("bpf loader: a kernel without BTF, and bytes that are no object, are told apart") {
    if (!library_there()) return;
    const unsigned char something[] = {0x7f, 'E', 'L', 'F', 0, 0, 0, 0};
    const auto no_btf = Object::open(something, "none", {.btf = "/nonexistent/vmlinux"});
    REQUIRE(!no_btf);
    CHECK(std::string(no_btf.error().what).find("CONFIG_DEBUG_INFO_BTF") != std::string::npos);
    const auto broken = Object::open(something, "none", {.btf = "/proc/version"});
    REQUIRE(!broken);
    CHECK(broken.error().code == Errc::unavailable);
    CHECK(std::string(broken.error().what).find("cannot be read by libbpf") != std::string::npos);
}

TEST_CASE("bpf loader: an object that this build does not have has no bytes") {
    CHECK(sources::bpf::compiled("absent").empty());
    CHECK(sources::bpf::compiled("").empty());
}

TEST_CASE("bpf loader: a program runs, its maps are mapped and sized, unknown names are refused") {
    if (!bpf_works()) return;
    auto opened = Object::open(sources::bpf::compiled("processes"), "argus_test");
    REQUIRE(opened.ok());
    Object object = std::move(*opened);
    CHECK(!object.resize("no_such_map", 4));
    CHECK(!object.choose("no_such_program", false));
    REQUIRE(object.resize("process_records", 4).ok());
    REQUIRE(object.load().ok());
    CHECK(!object.resize("process_records", 8));
    CHECK(!object.program("no_such_program"));
    CHECK(!object.map("no_such_map"));
    CHECK(!object.ring("process_records", nullptr, nullptr));
    CHECK(!object.attach("scan_processes"));
    const auto records = object.map_memory("process_records");
    const auto counts = object.map_memory(".bss");
    REQUIRE(records.ok());
    REQUIRE(counts.ok());
    CHECK(records.value().size() == 4096);
    std::uint32_t processes = 0;
    std::memcpy(&processes, counts.value().data(), sizeof processes);
    CHECK(processes == 0);
    REQUIRE(sources::bpf::run(object.program("scan_processes").value()) == 0);
    std::memcpy(&processes, counts.value().data(), sizeof processes);
    CHECK(processes > 4);
}

TEST_CASE("bpf loader: a descriptor that is no program is an errno") { CHECK(sources::bpf::run(-1) < 0); }

}  // namespace argus::test
