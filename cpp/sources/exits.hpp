// What became of processes that are gone: the record of an exit, the source that makes them, its pure parts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "ring/spsc_ring.hpp"
#include "sources/bpf/exits.h"
#include "sources/source.hpp"

namespace argus::sources {

// What of a record is known, besides who it was and how it ended.
enum ExitValid : std::uint32_t {
    kExitStart = 1,     // start_ns, and with it how long it lived
    kExitAccounts = 2,  // memory, storage, cgroup, name
    kExitTime = 4,      // processor time, to the end; without it the last milliseconds are missing
};

// One process that has ended, with all its threads. Identity is (pid, start), as everywhere.
struct ExitRecord {
    std::int32_t pid = 0;     // pids as the first pid namespace numbers them
    std::int32_t parent = 0;  // at the end; 0 = not known
    std::int32_t code = 0;    // 0 to 255
    std::int32_t signal = 0;  // that ended it; 0 = none did
    Nanos start_ns = 0;       // since boot, as Clock::mono()
    Nanos end_ns = 0;
    std::uint64_t cpu_user_ns = 0;    // the sum of both is exact, the split sampled
    std::uint64_t cpu_system_ns = 0;
    std::uint64_t rss_max_bytes = 0;
    std::uint64_t read_bytes = 0;     // fetched from and sent to storage
    std::uint64_t write_bytes = 0;
    std::uint64_t cgroup_id = 0;      // version 2
    std::uint32_t valid = 0;          // ExitValid bits
    std::array<char, 16> name{};      // raw, untrusted bytes; zero-padded
};

// The source `exits`, for those who also want each exit and not only the sums.
class ExitSource : public Source {
public:
    [[nodiscard]] virtual const char* way() const noexcept = 0;  // "bpf" or "cn_proc"

    // From now on poll() puts every exit into `sink`, too; nullptr = no more. Not while poll() runs. What finds the
    // sink full is counted in argus.exits.lost.
    [[nodiscard]] virtual Result<bool> deliver(ring::SpscRing<ExitRecord>* sink) = 0;
};

// --- Pure parts; fuzzed ----------------------------------------------------------------------------------------------

enum class ExitReason : std::uint8_t { success = kExitSuccess, failure = kExitFailure, signal = kExitSignal };

// Of a status as wait() gives it: low seven bits the signal, the next byte the code.
[[nodiscard]] ExitReason exit_reason(std::uint32_t status) noexcept;

// How much of `cpu_ns` was in user mode, by the ratio of the sampled ticks; all of it where there were none, which is
// what the kernel itself says of such a process.
[[nodiscard]] std::uint64_t user_part(std::uint64_t cpu_ns, std::uint64_t user_ticks,
                                      std::uint64_t system_ticks) noexcept;

// The processor time of many that are gone, split without falling or drifting: the sampled user ticks are fair over
// many processes, and what they do not cover was spent in the kernel.
class TimeSplit {
public:
    void add(std::uint64_t cpu_ns, std::uint64_t user_ticks_ns) noexcept;  // both as grown since the last
    [[nodiscard]] std::uint64_t user_ns() const noexcept { return user_ns_; }
    [[nodiscard]] std::uint64_t system_ns() const noexcept { return system_ns_; }

private:
    std::uint64_t user_ns_ = 0, system_ns_ = 0;
    std::uint64_t ahead_ns_ = 0;  // ticks beyond the time they are of: they are coarse, or came before it
};

[[nodiscard]] ExitRecord exit_record(const ExitRaw& raw, std::uint64_t page_bytes) noexcept;

// A message of the process connector.
struct ProcessEvent {
    enum class Kind : std::uint8_t { answer, fork, exit, other };
    Kind kind = Kind::other;
    std::uint32_t processor = 0;
    std::uint32_t sequence = 0;   // of this processor: a gap is what was lost
    Nanos time_ns = 0;            // CLOCK_MONOTONIC
    std::int32_t thread = 0;      // of the child (fork), of who exits
    std::int32_t process = 0;
    std::int32_t parent = 0;      // process; 0 = an old kernel, which does not say
    std::uint32_t status = 0;     // exit; of an answer: the errno
};
[[nodiscard]] Result<ProcessEvent> parse_process_event(std::span<const std::byte> datagram) noexcept;

// When and by whom the processes were forked that may be short-lived: a table by pid, the newest wins.
class Forks {
public:
    struct Fork {
        Nanos time = 0;
        std::int32_t parent = 0;
    };
    Forks() : slots_(kSlots) {}
    void forked(std::int32_t pid, Fork fork) noexcept { slots_[slot(pid)] = {fork, pid}; }
    // Time 0 = not known: it is older than Argus, or its slot went to another. Forgets it.
    [[nodiscard]] Fork take(std::int32_t pid) noexcept;

private:
    static constexpr std::size_t kSlots = 32'768;
    struct Slot {
        Fork fork;
        std::int32_t pid = 0;
    };
    static std::size_t slot(std::int32_t pid) noexcept { return static_cast<std::uint32_t>(pid) % kSlots; }
    std::vector<Slot> slots_;
};

// Opens the way bpf. `tells_last`: the tracepoint says which thread is the last (Linux >= 6.16).
[[nodiscard]] Result<std::unique_ptr<ExitSource>> open_bpf_exits(bool tells_last);

// Gaps in the sequence of each processor's messages.
class SequenceGaps {
public:
    // How many messages are missing before this one. 0 for the first of a processor, and when the count went back.
    [[nodiscard]] std::uint64_t before(std::uint32_t processor, std::uint32_t sequence) noexcept;

private:
    static constexpr std::size_t kProcessors = 4096;
    struct Next {
        std::uint32_t sequence = 0;
        bool known = false;
    };
    std::vector<Next> next_ = std::vector<Next>(kProcessors);
};

}  // namespace argus::sources
