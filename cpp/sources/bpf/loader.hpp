// BPF objects: compiled at build time, held as bytes in the library, loaded through libbpf, which is itself loaded when
// the first object is opened. So neither the build nor the import needs libbpf, and a machine without it runs on.
// Source: libbpf >= 1.0 (libbpf.so.1); kernel Documentation/bpf/. Needs BTF of the kernel, CAP_BPF and CAP_PERFMON.
// Cost:   opening and loading an object is milliseconds of relocation and verification, once.
// Failure: every error is static text that names what is missing here; see Object::open and Object::load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "base/result.hpp"

struct bpf_object;
struct bpf_link;
struct ring_buffer;

namespace argus::sources::bpf {

// The bytes of cpp/sources/bpf/<name>.bpf.c; empty = this build has none (no clang, no libbpf-dev when it was built).
[[nodiscard]] std::span<const unsigned char> compiled(std::string_view name) noexcept;

// What this machine offers; tests name files that do not exist.
struct Environment {
    const char* library = "libbpf.so.1";
    const char* btf = "/sys/kernel/btf/vmlinux";
};

// A map that user space reads (and the program writes) in place: BPF_F_MMAPABLE arrays, .bss and .data.
class Mapping {
public:
    Mapping() = default;
    Mapping(std::byte* data, std::size_t size) noexcept : data_(data), size_(size) {}
    Mapping(Mapping&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();

    [[nodiscard]] std::byte* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

// An attached tracing program; detached with the last of it.
class Link {
public:
    Link() = default;
    explicit Link(bpf_link* link) noexcept : link_(link) {}
    Link(Link&& other) noexcept : link_(std::exchange(other.link_, nullptr)) {}
    Link& operator=(Link&& other) noexcept;
    ~Link();

    // Of a SEC("iter/…") program: calls it for each object there is, in this thread. 0 or -errno.
    [[nodiscard]] int iterate() const noexcept;

private:
    bpf_link* link_ = nullptr;
};

// Reader of a BPF_MAP_TYPE_RINGBUF. consume() hands every finished record to the callback, in order, and does not wait.
class Ring {
public:
    using OnRecord = int (*)(void* context, void* record, std::size_t size);  // < 0 stops this consume()

    Ring() = default;
    explicit Ring(ring_buffer* ring) noexcept : ring_(ring) {}
    Ring(Ring&& other) noexcept : ring_(std::exchange(other.ring_, nullptr)) {}
    Ring& operator=(Ring&& other) noexcept;
    ~Ring();

    [[nodiscard]] int consume() noexcept;  // records taken, or what the callback returned, or -errno

private:
    ring_buffer* ring_ = nullptr;
};

class Object {
public:
    Object() = default;
    Object(Object&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
    Object& operator=(Object&& other) noexcept;
    ~Object();  // unloads it; mappings and links of it live on until they go themselves

    // Reads the object; nothing is in the kernel yet. `name` shows up in bpftool. Errc::unavailable: no compiled object
    // in this build, no libbpf here, no BTF of this kernel.
    [[nodiscard]] static Result<Object> open(std::span<const unsigned char> bytes, const char* name,
                                             const Environment& environment = {});

    // Before load(): the number of entries of a map; whether a program is loaded (all are, unless told).
    [[nodiscard]] Result<bool> resize(const char* map, std::uint32_t entries);
    [[nodiscard]] Result<bool> choose(const char* program, bool wanted);

    // Into the kernel. Errc::permission: no CAP_BPF or CAP_PERFMON. Errc::unavailable: the kernel lacks what the
    // programs use, or its verifier refused them.
    [[nodiscard]] Result<bool> load();

    // Descriptors, owned by the object.
    [[nodiscard]] Result<int> program(const char* name) const;
    [[nodiscard]] Result<int> map(const char* name) const;

    [[nodiscard]] Result<Mapping> map_memory(const char* map) const;
    [[nodiscard]] Result<Link> attach(const char* program) const;
    [[nodiscard]] Result<Ring> ring(const char* map, Ring::OnRecord on_record, void* context) const;

private:
    explicit Object(bpf_object* object) noexcept : object_(object) {}
    bpf_object* object_ = nullptr;
};

// Runs a SEC("syscall") program once in this thread: its result, or -errno.
[[nodiscard]] int run(int program) noexcept;

}  // namespace argus::sources::bpf
