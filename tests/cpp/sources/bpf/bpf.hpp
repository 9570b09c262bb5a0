// Whether BPF can be tested here; each says the reason when it cannot, once for every test that is left out.
#pragma once

#include <dlfcn.h>
#include <doctest/doctest.h>

#include "sources/bpf/loader.hpp"

namespace argus::test {

inline bool library_there() {
    const bool there = dlopen("libbpf.so.1", RTLD_NOW | RTLD_LOCAL) != nullptr;
    if (!there) MESSAGE("left out: libbpf.so.1 is not installed");
    return there;
}

// The kernel takes the program of the process table, as this user, in this build.
inline bool bpf_works() {
    auto object = sources::bpf::Object::open(sources::bpf::compiled("processes"), "argus_probe");
    Result<bool> loaded = object ? object->load() : Result<bool>(object.error());
    if (!loaded) MESSAGE("left out: ", loaded.error().what);
    return loaded.ok();
}

}  // namespace argus::test
