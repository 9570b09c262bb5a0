#include "sources/sysfs.hpp"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "sources/kernel_file.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr int kInterruptions = 16;

int open_path(const Io& io, const std::string& path, int flags) {
    int fd = -EINTR;
    for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) fd = io.open_at(AT_FDCWD, path.c_str(), flags);
    return fd;
}

int read_names(const Io& io, int fd, std::vector<std::string>& names) {
    alignas(dirent64) std::array<char, 16 * 1024> buffer;
    int interruptions = 0;
    while (true) {
        const ssize_t got = io.get_dents(fd, buffer.data(), buffer.size());
        if (got == 0) return 0;
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got < 0) return static_cast<int>(got);
        for (std::size_t at = 0; at + offsetof(dirent64, d_name) < static_cast<std::size_t>(got);) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
            if (entry->d_reclen == 0) break;
            if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
            if (names.size() > kMaxEntries) return -E2BIG;
            at += entry->d_reclen;
        }
    }
}

}  // namespace

Result<bool> list_folder(const Io& io, const std::string& path, const char* what, std::vector<std::string>& names) {
    names.clear();
    const int fd = open_path(io, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (fd < 0) return Error{errc_of(-fd), -fd, what};
    const int status = read_names(io, fd, names);
    io.close(fd);
    if (status == -E2BIG) return Error{Errc::limit, E2BIG, what};
    if (status < 0) return Error{errc_of(-status), -status, what};
    std::sort(names.begin(), names.end());
    return true;
}

std::optional<std::string> read_value(const Io& io, const std::string& path) {
    const int fd = open_path(io, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return std::nullopt;
    std::string text(kMaxValueBytes + 1, '\0');
    std::size_t size = 0;
    int interruptions = 0;
    ssize_t got = 0;
    while (size < text.size()) {
        got = io.pread(fd, text.data() + size, text.size() - size, static_cast<off_t>(size));
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got <= 0) break;
        size += static_cast<std::size_t>(got);
    }
    io.close(fd);
    if (got < 0 || size > kMaxValueBytes) return std::nullopt;
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == ' ' || text[size - 1] == '\0')) --size;
    text.resize(size);
    return text;
}

std::optional<std::int64_t> read_signed(const Io& io, const std::string& path) {
    const auto text = read_value(io, path);
    if (!text) return std::nullopt;
    Scanner scanner(*text);
    std::int64_t value = 0;
    if (!scanner.signed_number(value) || !scanner.done()) return std::nullopt;
    return value;
}

std::optional<std::uint64_t> read_unsigned(const Io& io, const std::string& path) {
    const auto text = read_value(io, path);
    if (!text) return std::nullopt;
    Scanner scanner(*text);
    std::uint64_t value = 0;
    if (!scanner.number(value) || !scanner.done()) return std::nullopt;
    return value;
}

}  // namespace argus::sources
