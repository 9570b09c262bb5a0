#include "base/io.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace argus {
namespace {

template <class T>
T or_errno(T result) {
    return result < 0 ? static_cast<T>(-errno) : result;
}

int system_open_at(int dirfd, const char* path, int flags) {
    return or_errno(::openat(dirfd, path, flags | O_CLOEXEC));
}

ssize_t system_pread(int fd, void* buffer, std::size_t size, off_t offset) {
    ssize_t got = 0;
    do {
        got = ::pread(fd, buffer, size, offset);
    } while (got < 0 && errno == EINTR);
    return or_errno(got);
}

ssize_t system_get_dents(int fd, void* buffer, std::size_t size) {
    return or_errno(static_cast<ssize_t>(::syscall(SYS_getdents64, fd, buffer, size)));
}

int system_close(int fd) { return or_errno(::close(fd)); }

constexpr Io kSystemIo{system_open_at, system_pread, system_get_dents, system_close};

}  // namespace

const Io& system_io() noexcept { return kSystemIo; }

}  // namespace argus
