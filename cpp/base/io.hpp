// The system calls the sources make, as a table of function pointers: tests inject short reads, EINTR, EMFILE and
// vanishing files without a fake kernel. Every function returns what the system call returns, errno in the value
// (negative errno on failure), so no caller depends on the thread's errno.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace argus {

struct Io {
    int (*open_at)(int dirfd, const char* path, int flags);                  // fd or -errno
    ssize_t (*pread)(int fd, void* buffer, std::size_t size, off_t offset);  // bytes or -errno
    ssize_t (*get_dents)(int fd, void* buffer, std::size_t size);            // getdents64: bytes or -errno
    int (*close)(int fd);                                                    // 0 or -errno
};

[[nodiscard]] const Io& system_io() noexcept;

}  // namespace argus
