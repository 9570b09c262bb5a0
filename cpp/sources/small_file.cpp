#include "sources/small_file.hpp"

#include <dirent.h>
#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "sources/text.hpp"

namespace argus::sources {
namespace {

constexpr int kInterruptions = 16;
constexpr std::uint64_t kMaxReads = 4096;  // of one folder: a million names and more

int open_path(const Io& io, const char* path, int flags) noexcept {
    int fd = -EINTR;
    for (int i = 0; i < kInterruptions && fd == -EINTR; ++i) fd = io.open_at(AT_FDCWD, path, flags);
    return fd;
}

// Calls visit(name, inode) for each entry that does not begin with a dot. False = the folder cannot be read.
template <class Visit>
bool for_each_entry(const Io& io, const char* path, Visit&& visit) noexcept {
    const int fd = open_path(io, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (fd < 0) return false;
    alignas(dirent64) std::array<char, 16 * 1024> buffer;
    int interruptions = 0;
    ssize_t got = 0;
    for (std::uint64_t reads = 0; reads < kMaxReads; ++reads) {
        got = io.get_dents(fd, buffer.data(), buffer.size());
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got <= 0) break;
        for (std::size_t at = 0; at + offsetof(dirent64, d_name) < static_cast<std::size_t>(got);) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
            if (entry->d_reclen == 0) break;
            if (entry->d_name[0] != '.') visit(std::string_view(entry->d_name), entry->d_ino);
            at += entry->d_reclen;
        }
    }
    io.close(fd);
    return got >= 0;
}

}  // namespace

int read_small(const Io& io, const char* path, SmallText& out) noexcept {
    out.size = 0;
    const int fd = open_path(io, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return fd;
    int interruptions = 0;
    ssize_t got = 0;
    while (out.size < out.bytes.size()) {
        got = io.pread(fd, out.bytes.data() + out.size, out.bytes.size() - out.size, static_cast<off_t>(out.size));
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got <= 0) break;
        out.size += static_cast<std::size_t>(got);
    }
    io.close(fd);
    if (got < 0) return static_cast<int>(got);
    if (out.size == out.bytes.size()) return -EFBIG;
    while (out.size > 0 && std::strchr("\n \t", out.bytes[out.size - 1]) != nullptr) --out.size;
    return 0;
}

bool file_exists(const Io& io, const char* path) noexcept {
    const int fd = open_path(io, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) io.close(fd);
    return fd != -ENOENT && fd != -ENOTDIR;
}

std::optional<std::int64_t> small_signed(const Io& io, const char* path) noexcept {
    SmallText text;
    std::int64_t value = 0;
    if (read_small(io, path, text) != 0) return std::nullopt;
    Scanner scanner(text.view());
    if (!scanner.signed_number(value) || !scanner.done()) return std::nullopt;
    return value;
}

std::optional<std::uint64_t> small_unsigned(const Io& io, const char* path) noexcept {
    SmallText text;
    std::uint64_t value = 0;
    if (read_small(io, path, text) != 0) return std::nullopt;
    Scanner scanner(text.view());
    if (!scanner.number(value) || !scanner.done()) return std::nullopt;
    return value;
}

std::uint64_t folder_mark(const Io& io, const char* path) noexcept {
    std::uint64_t mark = 0x9E3779B97F4A7C15U;  // a sum, so the order of the entries plays no role
    const bool read = for_each_entry(io, path, [&](std::string_view name, std::uint64_t inode) {
        std::uint64_t hash = 0xCBF29CE484222325U ^ inode;
        for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
        mark += hash ^ (hash >> 29);
    });
    return read ? (mark == 0 ? 1 : mark) : 0;
}

std::optional<std::uint64_t> count_entries(const Io& io, const char* path) noexcept {
    std::uint64_t count = 0;
    if (!for_each_entry(io, path, [&](std::string_view, std::uint64_t) { ++count; })) return std::nullopt;
    return count;
}

}  // namespace argus::sources
