#include "engine/epoch_word.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

namespace argus::engine {
namespace {

using Atomic = std::atomic_ref<std::uint64_t>;
static_assert(Atomic::is_always_lock_free, "the epoch word is shared between processes: it needs lock-free 64 bits");

constexpr std::size_t kStateIndex = 0;
constexpr std::size_t kHeartbeatIndex = 1;
constexpr mode_t kEpochFileMode = 0640;

[[noreturn]] void refuse(const std::string& path, const std::string& found, int code) {
    throw EpochWordError(path + ": expected a regular file of 64 bytes that this process may write, found " + found +
                             "; not mapped, no stop can be signalled through it",
                         code);
}

// Closes the descriptor on every way out: the mapping outlives it.
class Descriptor {
public:
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    [[nodiscard]] int get() const noexcept { return fd_; }

private:
    int fd_;
};

int open_word(const std::string& path, bool create) {
    // O_NONBLOCK: a FIFO planted at the name is refused below and does not hang here.
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0);
    int fd = -1;
    do {
        fd = ::open(path.c_str(), flags, kEpochFileMode);
    } while (fd < 0 && errno == EINTR);
    if (fd >= 0) return fd;
    const int code = errno;
    if (code == ELOOP) refuse(path, "a symbolic link", 0);
    if (code == EISDIR) refuse(path, "a directory", 0);
    if (code == ENXIO) refuse(path, "a special file", 0);
    refuse(path, std::strerror(code), code);
}

// Grows a new file. Two creators may both do so: growing to 64 zero bytes is idempotent. Blocks are reserved now,
// because a store into a hole of a full disk would raise SIGBUS at the moment of a trip.
void reserve(const std::string& path, int fd) {
    int code = 0;
    if (::fallocate(fd, 0, 0, kEpochFileBytes) != 0) {
        code = errno;
        if (code == EOPNOTSUPP) code = ::ftruncate(fd, kEpochFileBytes) == 0 ? 0 : errno;
    }
    if (code != 0) refuse(path, std::string("no room for it: ") + std::strerror(code), code);
}

std::uint64_t* map_word(const std::string& path, bool create) {
    const Descriptor fd(open_word(path, create));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) refuse(path, std::strerror(errno), errno);
    if (!S_ISREG(info.st_mode)) refuse(path, "a special file", 0);
    if (info.st_nlink > 1) refuse(path, "a file with " + std::to_string(info.st_nlink) + " names", 0);
    if (info.st_size == 0 && create) {
        reserve(path, fd.get());
    } else if (info.st_size != static_cast<off_t>(kEpochFileBytes)) {
        refuse(path, std::to_string(info.st_size) + " bytes", 0);
    }
    void* mapped = ::mmap(nullptr, kEpochFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (mapped == MAP_FAILED) refuse(path, std::string("it cannot be mapped: ") + std::strerror(errno), errno);
    return static_cast<std::uint64_t*>(mapped);
}

constexpr std::uint64_t next_word(std::uint64_t word, std::uint64_t bits) noexcept {
    return (((word >> kEpochShift) + 1) << kEpochShift) | (bits & kStateMask);
}

// Writes the word that `bits_of(old)` asks for, one epoch later; returns that epoch.
template <class BitsOf>
std::uint64_t advance(std::uint64_t& target, BitsOf bits_of) noexcept {
    const Atomic word(target);
    std::uint64_t old = word.load(std::memory_order_relaxed);
    std::uint64_t wanted = 0;
    do {
        wanted = next_word(old, bits_of(old));
    } while (!word.compare_exchange_weak(old, wanted, std::memory_order_acq_rel, std::memory_order_relaxed));
    return wanted >> kEpochShift;
}

}  // namespace

EpochWord::EpochWord(const std::string& path, bool create) : words_(map_word(path, create)) {}

EpochWord::~EpochWord() {
    if (words_ != nullptr) ::munmap(words_, kEpochFileBytes);
}

EpochWord::EpochWord(EpochWord&& other) noexcept : words_(std::exchange(other.words_, nullptr)) {}

EpochWord& EpochWord::operator=(EpochWord&& other) noexcept {
    std::swap(words_, other.words_);
    return *this;
}

std::uint64_t EpochWord::raise_bits(std::uint64_t bits) noexcept {
    return advance(words_[kStateIndex], [bits](std::uint64_t old) { return old | bits; });
}

std::uint64_t EpochWord::replace_bits(std::uint64_t bits) noexcept {
    return advance(words_[kStateIndex], [bits](std::uint64_t) { return bits; });
}

std::optional<std::uint64_t> EpochWord::replace_bits_if(std::uint64_t bits, std::uint64_t expected) noexcept {
    const Atomic word(words_[kStateIndex]);
    std::uint64_t old = word.load(std::memory_order_acquire);
    while (old >> kEpochShift == expected) {
        const std::uint64_t wanted = next_word(old, bits);
        if (word.compare_exchange_weak(old, wanted, std::memory_order_acq_rel, std::memory_order_acquire)) {
            return wanted >> kEpochShift;
        }
    }
    return std::nullopt;
}

std::uint64_t EpochWord::bump() noexcept {
    return advance(words_[kStateIndex], [](std::uint64_t old) { return old; });
}

void EpochWord::heartbeat() noexcept {
    const Atomic beat(words_[kHeartbeatIndex]);
    beat.store(static_cast<std::uint64_t>(read_clock(CLOCK_MONOTONIC)), std::memory_order_release);
}

EpochState EpochWord::load() const noexcept {
    const std::uint64_t word = Atomic(words_[kStateIndex]).load(std::memory_order_acquire);
    const std::uint64_t beat = Atomic(words_[kHeartbeatIndex]).load(std::memory_order_acquire);
    return EpochState{word & kStateMask, word >> kEpochShift, static_cast<Nanos>(beat)};
}

}  // namespace argus::engine
