// Accounting of single tasks by generic netlink, many in one system call: what /proc/PID/io and status tell, at a sixth of
// the price. Of one thread, not of a process; bytes are whole KiB.
// Source: kernel Documentation/accounting/taskstats.rst; CONFIG_TASKSTATS, CONFIG_TASK_XACCT, CONFIG_TASK_IO_ACCOUNTING.
// Needs CAP_NET_ADMIN in the initial namespaces.
// Cost: about 2 us a task in batches of kBatch. Never waits: the kernel answers inside the sending call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.hpp"

namespace argus::sources {

struct TaskAccount {
    std::int32_t pid = 0;  // 0 = no answer: the task is gone
    std::uint32_t uid = 0;
    std::uint64_t voluntary = 0, involuntary = 0;
    std::uint64_t read_chars = 0, write_chars = 0, read_bytes = 0, write_bytes = 0;
};

// One answer of the family `family`; false when it is none, or is cut short. Pure; fuzzed.
[[nodiscard]] bool parse_taskstats(std::span<const unsigned char> message, std::uint16_t family,
                                   TaskAccount& out) noexcept;

class Taskstats {
public:
    static constexpr std::size_t kBatch = 64;  // answers that fit a socket's buffer of any size in use

    // Errc::unavailable: this kernel has no taskstats. Errc::permission: no CAP_NET_ADMIN.
    [[nodiscard]] static Result<std::unique_ptr<Taskstats>> open();
    ~Taskstats();
    Taskstats(const Taskstats&) = delete;
    Taskstats& operator=(const Taskstats&) = delete;

    // One account for each of at most kBatch pids, in their order.
    [[nodiscard]] Result<bool> query(std::span<const std::int32_t> pids, std::span<TaskAccount> out);

private:
    static constexpr std::size_t kAnswerBytes = 2048;

    explicit Taskstats(int fd) noexcept : fd_(fd) {}
    [[nodiscard]] Result<bool> find_family();
    [[nodiscard]] std::size_t receive(std::size_t wanted) noexcept;  // answers now in buffer_, sizes_
    void drain() noexcept;

    int fd_;
    std::uint16_t family_ = 0;
    std::uint32_t sequence_ = 0;
    std::array<std::size_t, kBatch> sizes_{};
    alignas(8) std::array<unsigned char, kBatch * kAnswerBytes> buffer_{};
};

}  // namespace argus::sources
