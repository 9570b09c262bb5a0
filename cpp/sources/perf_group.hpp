// Counters of the kernel's performance events: groups opened together, read together, and scaled when the counters of
// the processor were shared among more events than it has.
//
// Source: perf_event_open(2); include/uapi/linux/perf_event.h.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.hpp"

struct perf_event_attr;

namespace argus::sources {

// The system calls, as a table: tests inject refusals and readings. Errno in the value, as in argus::Io.
struct PerfCalls {
    int (*open)(perf_event_attr* attributes, pid_t pid, int cpu, int group, unsigned long flags);  // fd or -errno
    ssize_t (*read)(int fd, void* buffer, std::size_t size);                                       // bytes or -errno
    int (*close)(int fd);
};
[[nodiscard]] const PerfCalls& system_perf_calls() noexcept;

struct PerfEvent {
    std::uint32_t type;    // PERF_TYPE_*
    std::uint64_t config;  // PERF_COUNT_*
};

// What an event counted, how long it was wanted, and how long it had a counter.
struct PerfReading {
    std::uint64_t value = 0;
    std::uint64_t enabled_ns = 0;
    std::uint64_t running_ns = 0;
};

enum class PerfStep : std::uint8_t {
    counted,     // `count` since the reading before, scaled to the whole of the time
    unobserved,  // it had no counter since then: nothing is known; the reading before stays the base
    reset,       // it went backwards: the new reading is the base
};

struct PerfDelta {
    PerfStep step;
    double count;
};

// Scaled by the times between the two readings, not by those since the start: so the sum of counts never falls when
// the share of time changes. A 64-bit value that passed its end continues.
[[nodiscard]] PerfDelta perf_delta(const PerfReading& before, const PerfReading& now) noexcept;

// What a group is bound to: one processor (pid -1), a thread on any processor (cpu -1), or, with the descriptor of a
// cgroup's directory as `pid` and PERF_FLAG_PID_CGROUP, the tasks of that cgroup on one processor.
struct PerfTarget {
    pid_t pid = -1;
    int cpu = -1;
    unsigned long flags = 0;
    bool inherit = false;  // threads that are started later count too
};

class PerfGroup {
public:
    static constexpr std::size_t kMaxEvents = 8;

    explicit PerfGroup(const PerfCalls& calls) : calls_(&calls) { fds_.fill(-1); }
    ~PerfGroup() { close(); }
    PerfGroup(PerfGroup&& other) noexcept;
    PerfGroup& operator=(PerfGroup&& other) noexcept;
    PerfGroup(const PerfGroup&) = delete;
    PerfGroup& operator=(const PerfGroup&) = delete;

    // Opens and starts the events; those this machine has not (ENOENT without a PMU, EINVAL, EOPNOTSUPP) are left out.
    // Errc::unavailable when it has none of them, or no performance events at all; permission, limit and gone (the
    // thread ended) as the kernel says. A group that could not be opened whole for such a reason is closed again.
    [[nodiscard]] Result<bool> open(std::span<const PerfEvent> events, const PerfTarget& target);
    void close() noexcept;
    [[nodiscard]] bool is_open() const noexcept { return count_ > 0; }
    [[nodiscard]] bool has(std::size_t event) const noexcept { return fds_[event] >= 0; }
    [[nodiscard]] std::size_t size() const noexcept { return count_; }  // events that are open

    // All events at one moment. Errc::gone: the kernel took the group down; open it again.
    [[nodiscard]] Result<bool> read();

    // Of the last read(), by the event's place in what was opened; nothing for an event that is not open.
    [[nodiscard]] std::optional<PerfReading> reading(std::size_t event) const noexcept;

private:
    [[nodiscard]] int open_one(const PerfEvent& event, const PerfTarget& target, int leader) const;

    const PerfCalls* calls_;
    std::array<int, kMaxEvents> fds_{};
    std::array<std::uint64_t, 3 + kMaxEvents> buffer_{};  // nr, time enabled, time running, values
    std::size_t count_ = 0;
    int leader_ = -1;
};

}  // namespace argus::sources
