#include "sources/bpf/loader.hpp"

#include <dlfcn.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <mutex>

#include "sources/kernel_file.hpp"

struct bpf_program;
struct bpf_map;

namespace argus::sources::bpf {
namespace {

constexpr Error kNoObject{Errc::unavailable, 0,
                          "BPF: this build holds no compiled BPF object (clang and libbpf-dev were not there)"};
constexpr Error kNoLibrary{Errc::unavailable, 0,
                           "BPF: libbpf.so.1 is not installed, or lacks a function of libbpf 1.0"};
constexpr Error kNoBtf{Errc::unavailable, ENOENT,
                       "BPF: sys/kernel/btf/vmlinux is not there: a kernel without CONFIG_DEBUG_INFO_BTF"};
constexpr Error kNoCapability{Errc::permission, EPERM, "BPF: not permitted: needs CAP_BPF and CAP_PERFMON"};
constexpr const char* kRefused =
    "BPF: the kernel refused the program: it is too old, or lacks a field or a function that the program uses";
constexpr const char* kUnreadable = "BPF: the compiled object cannot be read by libbpf";
constexpr Error kNoProgram{Errc::unavailable, ENOENT, "BPF: the object has no program of that name"};
constexpr Error kNoMap{Errc::unavailable, ENOENT, "BPF: the object has no map of that name"};

// libbpf's own declarations, of which these are all that is used: its ABI of version 1 is stable.
using Print = int (*)(int level, const char* format, va_list arguments);
struct OpenOptions {  // the head of bpf_object_open_opts; libbpf reads no more of it than `size` says
    std::size_t size;
    const char* object_name;
};

struct Library {
    Print (*set_print)(Print) = nullptr;
    bpf_object* (*open_mem)(const void*, std::size_t, const OpenOptions*) = nullptr;
    int (*load)(bpf_object*) = nullptr;
    void (*close)(bpf_object*) = nullptr;
    bpf_program* (*find_program)(const bpf_object*, const char*) = nullptr;
    int (*set_autoload)(bpf_program*, bool) = nullptr;
    int (*program_fd)(const bpf_program*) = nullptr;
    bpf_map* (*find_map)(const bpf_object*, const char*) = nullptr;
    int (*set_max_entries)(bpf_map*, std::uint32_t) = nullptr;
    int (*map_fd)(const bpf_map*) = nullptr;
    bpf_link* (*attach)(const bpf_program*) = nullptr;
    int (*link_fd)(const bpf_link*) = nullptr;
    int (*destroy_link)(bpf_link*) = nullptr;
    ring_buffer* (*new_ring)(int, Ring::OnRecord, void*, const void*) = nullptr;
    int (*consume_ring)(ring_buffer*) = nullptr;
    void (*free_ring)(ring_buffer*) = nullptr;
};

Library library;  // complete once loaded_from is set; never unloaded: objects may outlive any scope
const char* loaded_from = nullptr;
std::mutex library_mutex;

template <class Function>
bool find(void* handle, const char* name, Function& out) noexcept {
    out = reinterpret_cast<Function>(dlsym(handle, name));
    return out != nullptr;
}

// Loaded once. Another name than the one that is loaded is looked for, too: a test asks for one that is absent.
bool load_library(const char* path) noexcept {
    const std::lock_guard lock(library_mutex);
    if (loaded_from != nullptr && std::strcmp(loaded_from, path) == 0) return true;
    void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return false;
    Library found;
    const bool complete =
        find(handle, "libbpf_set_print", found.set_print) && find(handle, "bpf_object__open_mem", found.open_mem) &&
        find(handle, "bpf_object__load", found.load) && find(handle, "bpf_object__close", found.close) &&
        find(handle, "bpf_object__find_program_by_name", found.find_program) &&
        find(handle, "bpf_program__set_autoload", found.set_autoload) &&
        find(handle, "bpf_program__fd", found.program_fd) &&
        find(handle, "bpf_object__find_map_by_name", found.find_map) &&
        find(handle, "bpf_map__set_max_entries", found.set_max_entries) && find(handle, "bpf_map__fd", found.map_fd) &&
        find(handle, "bpf_program__attach", found.attach) && find(handle, "bpf_link__fd", found.link_fd) &&
        find(handle, "bpf_link__destroy", found.destroy_link) &&
        find(handle, "ring_buffer__new", found.new_ring) && find(handle, "ring_buffer__consume", found.consume_ring) &&
        find(handle, "ring_buffer__free", found.free_ring);
    if (!complete || loaded_from != nullptr) {
        dlclose(handle);
        return complete;
    }
    library = found;
    loaded_from = path;
    return true;
}

// libbpf prints pages to stderr when the verifier says no. Silent while we call it; a neighbour's choice is put back.
class Quiet {
public:
    Quiet() noexcept : before_(library.set_print(nullptr)) {}
    ~Quiet() { library.set_print(before_); }
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;

private:
    Print before_;
};

Error refusal(int negative_errno) noexcept {
    if (negative_errno == -EPERM) return kNoCapability;  // EACCES is the verifier's
    if (errc_of(-negative_errno) == Errc::limit) return {Errc::limit, -negative_errno, "BPF: no memory or descriptors"};
    return {Errc::unavailable, -negative_errno, kRefused};
}

long call_bpf(int command, bpf_attr& attributes) noexcept {
    const long result = syscall(SYS_bpf, command, &attributes, sizeof attributes);
    return result < 0 ? -errno : result;
}

}  // namespace

// --- Handles ----------------------------------------------------------------------------------------------

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

Mapping::~Mapping() {
    if (data_ != nullptr) munmap(data_, size_);
}

Link& Link::operator=(Link&& other) noexcept {
    std::swap(link_, other.link_);
    return *this;
}

Link::~Link() {
    if (link_ != nullptr) library.destroy_link(link_);
}

int Link::iterate() const noexcept {
    if (link_ == nullptr) return -EBADF;
    bpf_attr attributes{};
    attributes.iter_create.link_fd = static_cast<std::uint32_t>(library.link_fd(link_));
    const long iterator = call_bpf(BPF_ITER_CREATE, attributes);
    if (iterator < 0) return static_cast<int>(iterator);
    const int fd = static_cast<int>(iterator);
    // The program writes nothing here: the first read that ends has been everywhere.
    std::array<char, 64> nothing;
    ssize_t got = 0;
    do {
        got = ::read(fd, nothing.data(), nothing.size());
    } while (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)));
    const int status = got < 0 ? -errno : 0;
    ::close(fd);
    return status;
}

Ring& Ring::operator=(Ring&& other) noexcept {
    std::swap(ring_, other.ring_);
    return *this;
}

Ring::~Ring() {
    if (ring_ != nullptr) library.free_ring(ring_);
}

int Ring::consume() noexcept { return ring_ == nullptr ? -EBADF : library.consume_ring(ring_); }

Object& Object::operator=(Object&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
}

Object::~Object() {
    if (object_ != nullptr) library.close(object_);
}

// --- Objects ----------------------------------------------------------------------------------------------

Result<Object> Object::open(std::span<const unsigned char> bytes, const char* name, const Environment& environment) {
    if (bytes.empty()) return kNoObject;
    if (!load_library(environment.library)) return kNoLibrary;
    if (access(environment.btf, R_OK) != 0) return kNoBtf;
    const Quiet quiet;
    const OpenOptions options{sizeof(OpenOptions), name};
    errno = 0;
    bpf_object* object = library.open_mem(bytes.data(), bytes.size(), &options);
    if (object == nullptr) return Error{Errc::unavailable, errno, kUnreadable};
    return Object(object);
}

Result<bool> Object::resize(const char* map, std::uint32_t entries) {
    bpf_map* found = library.find_map(object_, map);
    if (found == nullptr) return kNoMap;
    const int status = library.set_max_entries(found, entries);
    if (status < 0) return Error{Errc::limit, -status, "BPF: a map cannot be resized once it is loaded"};
    return true;
}

Result<bool> Object::choose(const char* program, bool wanted) {
    bpf_program* found = library.find_program(object_, program);
    if (found == nullptr) return kNoProgram;
    const int status = library.set_autoload(found, wanted);
    if (status < 0) return Error{Errc::limit, -status, "BPF: a program cannot be left out once it is loaded"};
    return true;
}

Result<bool> Object::load() {
    const Quiet quiet;
    const int status = library.load(object_);
    if (status < 0) return refusal(status);
    return true;
}

Result<int> Object::program(const char* name) const {
    const bpf_program* found = library.find_program(object_, name);
    const int fd = found == nullptr ? -1 : library.program_fd(found);
    if (fd < 0) return kNoProgram;
    return fd;
}

Result<int> Object::map(const char* name) const {
    const bpf_map* found = library.find_map(object_, name);
    const int fd = found == nullptr ? -1 : library.map_fd(found);
    if (fd < 0) return kNoMap;
    return fd;
}

Result<Mapping> Object::map_memory(const char* map_name) const {
    const Result<int> fd = map(map_name);
    if (!fd) return fd.error();
    bpf_map_info info{};
    bpf_attr attributes{};
    attributes.info.bpf_fd = static_cast<std::uint32_t>(fd.value());
    attributes.info.info_len = sizeof info;
    attributes.info.info = reinterpret_cast<std::uintptr_t>(&info);
    const long status = call_bpf(BPF_OBJ_GET_INFO_BY_FD, attributes);
    if (status < 0) return refusal(static_cast<int>(status));
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = (std::size_t{info.value_size} + 7) / 8 * 8 * info.max_entries;
    const std::size_t size = (bytes + page - 1) / page * page;
    // Read-only where the object declares it so (.rodata, BPF_F_RDONLY): then a writable mapping is refused.
    const bool sealed = (info.map_flags & BPF_F_RDONLY_PROG) != 0;
    void* memory = mmap(nullptr, size, sealed ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fd.value(), 0);
    if (memory == MAP_FAILED) return Error{Errc::unavailable, errno, "BPF: a map cannot be mapped (Linux >= 5.5)"};
    return Mapping(static_cast<std::byte*>(memory), size);
}

Result<Link> Object::attach(const char* program_name) const {
    const bpf_program* found = library.find_program(object_, program_name);
    if (found == nullptr) return kNoProgram;
    const Quiet quiet;
    errno = 0;
    bpf_link* link = library.attach(found);
    if (link == nullptr) return refusal(-errno);
    return Link(link);
}

Result<Ring> Object::ring(const char* map_name, Ring::OnRecord on_record, void* context) const {
    const Result<int> fd = map(map_name);
    if (!fd) return fd.error();
    const Quiet quiet;
    errno = 0;
    ring_buffer* made = library.new_ring(fd.value(), on_record, context, nullptr);
    if (made == nullptr) return refusal(-errno);
    return Ring(made);
}

int run(int program) noexcept {
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<std::uint32_t>(program);
    const long status = call_bpf(BPF_PROG_TEST_RUN, attributes);
    return status < 0 ? static_cast<int>(status) : static_cast<int>(attributes.test.retval);
}

}  // namespace argus::sources::bpf
