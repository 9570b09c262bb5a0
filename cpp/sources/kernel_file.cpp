#include "sources/kernel_file.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace argus::sources {
namespace {

// The kernel gives at least a page at once unless the next line does not fit, and none is half a page long in a file
// that is short. So a short file that is as long as it was is not asked whether there is more.
constexpr std::size_t kSurelyWhole = 2048;
constexpr int kInterruptions = 16;  // EINTR in a row before a read gives up: bounded, whatever the kernel does

bool is_stale(int negative_errno) noexcept {
    switch (-negative_errno) {
        case ESTALE: case ENOENT: case ENODEV: case ESRCH: case EBADF: return true;
        default: return false;
    }
}

}  // namespace

Errc errc_of(int positive_errno) noexcept {
    switch (positive_errno) {
        case ENOENT: case ENODEV: case ENOTDIR: case EOPNOTSUPP: return Errc::unavailable;
        case ESRCH: return Errc::gone;
        case EACCES: case EPERM: return Errc::permission;
        case EMFILE: case ENFILE: case ENOMEM: return Errc::limit;
        case EFBIG: return Errc::too_large;
        default: return Errc::io;
    }
}

KernelFile::KernelFile(const Io& io, std::string path, const char* what, std::size_t cap_bytes)
    : io_(&io), path_(std::move(path)), what_(what), cap_(cap_bytes), buffer_(std::min(kFirstBytes, cap_bytes)) {}

KernelFile::~KernelFile() { close(); }

void KernelFile::close() noexcept {
    if (fd_ >= 0) io_->close(fd_);
    fd_ = -1;
}

Error KernelFile::error(int negative_errno) const noexcept {
    return {errc_of(-negative_errno), -negative_errno, what_};
}

Result<bool> KernelFile::open() noexcept {
    if (fd_ >= 0) return true;
    int fd = -EINTR;
    for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) {
        fd = io_->open_at(AT_FDCWD, path_.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY);
    }
    if (fd < 0) return error(fd);
    fd_ = fd;
    return true;
}

int KernelFile::fill(std::size_t& size) {
    int interruptions = 0;
    size = 0;
    while (true) {
        if (size == buffer_.size()) {
            if (size >= cap_) return -EFBIG;
            buffer_.resize(std::min(cap_, size * 2));
        }
        const ssize_t got = io_->pread(fd_, buffer_.data() + size, buffer_.size() - size, static_cast<off_t>(size));
        if (got == 0) {
            whole_ = size;
            return 0;
        }
        if (got > 0) {
            size += static_cast<std::size_t>(got);
            interruptions = 0;
            if (size == whole_ && size <= kSurelyWhole && size < buffer_.size()) return 0;
        } else if (got != -EINTR || ++interruptions > kInterruptions) {
            return static_cast<int>(got);
        }
    }
}

Result<std::string_view> KernelFile::read() {
    for (int attempt = 0;; ++attempt) {
        if (const auto opened = open(); !opened) return opened.error();
        std::size_t size = 0;
        const int status = fill(size);
        if (status == 0) return std::string_view(buffer_.data(), size);
        if (status != -EINTR && status != -EFBIG) close();
        if (attempt > 0 || !is_stale(status)) return error(status);
    }
}

}  // namespace argus::sources
