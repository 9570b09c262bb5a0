#include "sources/sysfs.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "sources/kernel_file.hpp"
#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr int kInterruptions = 16;
constexpr std::uint64_t kMaxReads = 4096;  // of one folder: a million names and more

int open_path(const Io& io, const std::string& path, int flags) noexcept {
    int fd = -EINTR;
    for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) fd = io.open_at(AT_FDCWD, path.c_str(), flags);
    return fd;
}

// Calls visit(name, inode) for each entry that does not begin with a dot, until it says false. 0 or -errno.
template <class Visit>
int for_each_entry(const Io& io, const std::string& path, Visit&& visit) {
    const int fd = open_path(io, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (fd < 0) return fd;
    alignas(dirent64) std::array<char, 16 * 1024> buffer;
    int interruptions = 0;
    ssize_t got = 0;
    bool goes_on = true;
    for (std::uint64_t reads = 0; goes_on && reads < kMaxReads; ++reads) {
        got = io.get_dents(fd, buffer.data(), buffer.size());
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got <= 0) break;
        for (std::size_t at = 0; goes_on && at + offsetof(dirent64, d_name) < static_cast<std::size_t>(got);) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
            if (entry->d_reclen == 0) break;
            if (entry->d_name[0] != '.') goes_on = visit(std::string_view(entry->d_name), entry->d_ino);
            at += entry->d_reclen;
        }
    }
    io.close(fd);
    return got < 0 ? static_cast<int>(got) : 0;
}

// The text up to its trailing blanks: how long it is, or -errno; -EFBIG when it fills the buffer.
ssize_t read_text(const Io& io, const std::string& path, std::span<char> buffer) noexcept {
    const int fd = open_path(io, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return fd;
    std::size_t size = 0;
    int interruptions = 0;
    ssize_t got = 0;
    while (size < buffer.size()) {
        got = io.pread(fd, buffer.data() + size, buffer.size() - size, static_cast<off_t>(size));
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got <= 0) break;
        size += static_cast<std::size_t>(got);
    }
    io.close(fd);
    if (got < 0) return got;
    if (size == buffer.size()) return -EFBIG;
    constexpr std::string_view kBlanks("\n \t\0", 4);
    while (size > 0 && kBlanks.find(buffer[size - 1]) != std::string_view::npos) --size;
    return static_cast<ssize_t>(size);
}

}  // namespace

int read_small(const Io& io, const std::string& path, SmallText& out) noexcept {
    const ssize_t size = read_text(io, path, out.bytes);
    out.size = size == -EFBIG ? out.bytes.size() : size < 0 ? 0 : static_cast<std::size_t>(size);
    return size < 0 ? static_cast<int>(size) : 0;
}

std::optional<std::int64_t> read_signed(const Io& io, const std::string& path) noexcept {
    SmallText text;
    std::int64_t value = 0;
    if (read_small(io, path, text) != 0) return std::nullopt;
    Scanner scanner(text.view());
    if (!scanner.signed_number(value) || !scanner.done()) return std::nullopt;
    return value;
}

std::optional<std::uint64_t> read_unsigned(const Io& io, const std::string& path) noexcept {
    SmallText text;
    std::uint64_t value = 0;
    if (read_small(io, path, text) != 0) return std::nullopt;
    Scanner scanner(text.view());
    if (!scanner.number(value) || !scanner.done()) return std::nullopt;
    return value;
}

bool file_exists(const Io& io, const std::string& path) noexcept {
    const int fd = open_path(io, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) io.close(fd);
    return fd != -ENOENT && fd != -ENOTDIR;
}

std::uint64_t folder_mark(const Io& io, const std::string& path) noexcept {
    std::uint64_t mark = 0x9E3779B97F4A7C15U;  // a sum, so the order of the entries plays no role
    const int status = for_each_entry(io, path, [&](std::string_view name, std::uint64_t inode) {
        std::uint64_t hash = 0xCBF29CE484222325U ^ inode;
        for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
        mark += hash ^ (hash >> 29);
        return true;
    });
    return status == 0 ? (mark == 0 ? 1 : mark) : 0;
}

std::optional<std::uint64_t> count_entries(const Io& io, const std::string& path) noexcept {
    std::uint64_t count = 0;
    const int status = for_each_entry(io, path, [&](std::string_view, std::uint64_t) { return ++count != 0; });
    return status == 0 ? std::optional(count) : std::nullopt;
}

Result<bool> list_folder(const Io& io, const std::string& path, const char* what, std::vector<std::string>& names) {
    names.clear();
    const int status = for_each_entry(io, path, [&](std::string_view name, std::uint64_t) {
        names.emplace_back(name);
        return names.size() <= kMaxEntries;
    });
    if (status < 0) return Error{errc_of(-status), -status, what};
    if (names.size() > kMaxEntries) return Error{Errc::limit, E2BIG, what};
    std::sort(names.begin(), names.end());
    return true;
}

std::optional<std::string> read_value(const Io& io, const std::string& path) {
    std::array<char, kMaxValueBytes + 1> buffer;
    const ssize_t size = read_text(io, path, buffer);
    if (size < 0) return std::nullopt;
    return std::string(buffer.data(), static_cast<std::size_t>(size));
}

std::string link_name(const std::string& path) {
    std::array<char, kMaxValueBytes> buffer;
    const ssize_t size = ::readlink(path.c_str(), buffer.data(), buffer.size());
    if (size <= 0 || static_cast<std::size_t>(size) == buffer.size()) return {};
    const std::string_view target(buffer.data(), static_cast<std::size_t>(size));
    return std::string(target.substr(target.rfind('/') + 1));
}

}  // namespace argus::sources
