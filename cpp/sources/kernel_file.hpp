// One text file of the kernel, read again and again: the descriptor is kept (a kept one costs half of open-read-close)
// and pread fills a buffer that grows only when the file does. A descriptor that went stale is opened again once.
// Never blocks: a FIFO in a fixture tree is refused by pread, and no read goes past the byte cap.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/io.hpp"
#include "base/result.hpp"

namespace argus::sources {

class KernelFile {
public:
    static constexpr std::size_t kFirstBytes = 4096;
    static constexpr std::size_t kCapBytes = std::size_t{1} << 20;

    // `what` names the file in errors, relative to its root: static text, "proc/stat".
    KernelFile(const Io& io, std::string path, const char* what, std::size_t cap_bytes = kCapBytes);
    ~KernelFile();
    KernelFile(const KernelFile&) = delete;
    KernelFile& operator=(const KernelFile&) = delete;

    // Ok = the file is open. Errc::unavailable = it does not exist.
    [[nodiscard]] Result<bool> open() noexcept;

    // The whole file; the view holds until the next read. Opens the file if it is not open.
    [[nodiscard]] Result<std::string_view> read();

    [[nodiscard]] const char* what() const noexcept { return what_; }

private:
    [[nodiscard]] int fill(std::size_t& size);  // 0 or -errno
    void close() noexcept;
    [[nodiscard]] Error error(int negative_errno) const noexcept;

    const Io* io_;
    std::string path_;
    const char* what_;
    std::size_t cap_;
    int fd_ = -1;
    std::size_t whole_ = 0;  // bytes of the file when its end was last seen
    std::vector<char> buffer_;
};

// What an errno means for a whole file.
[[nodiscard]] Errc errc_of(int positive_errno) noexcept;

}  // namespace argus::sources
