// The epoch word: 64 mapped bytes, control/epoch, that tell every guard on the host whether anything is stopped.
// u64[0] = state bits (kHostKill, kHostLockdown, kNarrower) | epoch << 8; u64[1] = heartbeat, CLOCK_MONOTONIC ns.
// The file is never renamed, truncated or replaced, so that a mapping stays true for as long as the directory lives.
// Every operation after construction is one atomic instruction or a compare-exchange loop on one cache line: no
// lock, no allocation, no system call (the heartbeat reads the clock through the vDSO); safe across threads and
// processes.
// Cost: bench_guard, and tests/cpp/engine/test_epoch_word.cpp for the rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "base/clock.hpp"

namespace argus::engine {

inline constexpr std::uint64_t kHostKill = 1;      // control/hard_kill.flag is, or is about to be, in place
inline constexpr std::uint64_t kHostLockdown = 2;  // control/write_lockdown.flag is, or is about to be, in place
inline constexpr std::uint64_t kNarrower = 4;      // at least one flag exists under control/scopes/
inline constexpr std::uint64_t kStateMask = 0xff;
inline constexpr unsigned kEpochShift = 8;
inline constexpr std::size_t kEpochFileBytes = 64;

// A file that cannot serve as the epoch word: says which, what was expected, what was found.
class EpochWordError : public std::runtime_error {
public:
    EpochWordError(const std::string& message, int code) : std::runtime_error(message), code_(code) {}
    [[nodiscard]] int code() const noexcept { return code_; }  // errno, or 0 where the file itself is unfit

private:
    int code_;
};

struct EpochState {
    std::uint64_t bits = 0;
    std::uint64_t epoch = 0;
    Nanos heartbeat = 0;  // CLOCK_MONOTONIC ns of the last heartbeat; 0 = there never was one
};

class EpochWord {
public:
    // Maps `path` for reading and writing. With `create`, an absent file is made (mode 0640) and an empty one is grown.
    // Throws EpochWordError for a symbolic link, anything but a regular file, another size than 64 bytes, or an errno.
    explicit EpochWord(const std::string& path, bool create = true);
    ~EpochWord();
    EpochWord(EpochWord&& other) noexcept;
    EpochWord& operator=(EpochWord&& other) noexcept;
    EpochWord(const EpochWord&) = delete;
    EpochWord& operator=(const EpochWord&) = delete;

    // Sets `bits`, leaves the others, and starts a new epoch, in one step; returns that epoch.
    std::uint64_t raise_bits(std::uint64_t bits) noexcept;
    // Makes `bits` the whole state and starts a new epoch; returns it. Only for a caller that knows that no one raises.
    std::uint64_t replace_bits(std::uint64_t bits) noexcept;
    // The same, but only while the epoch still is `expected`: a trip that came in between is never overwritten.
    [[nodiscard]] std::optional<std::uint64_t> replace_bits_if(std::uint64_t bits, std::uint64_t expected) noexcept;
    // Starts a new epoch with the same bits: every guard looks at its flags again; returns the epoch.
    std::uint64_t bump() noexcept;
    void heartbeat() noexcept;
    [[nodiscard]] EpochState load() const noexcept;

private:
    std::uint64_t* words_ = nullptr;
};

}  // namespace argus::engine
