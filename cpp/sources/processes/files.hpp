// What the tiers that read files share: the list of processes, one process' files, and a row of the table from them.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/io.hpp"
#include "base/result.hpp"
#include "sources/processes/processes.hpp"

namespace argus::sources {

// One process as its files tell it.
struct ProcessRecord {
    ProcessStat stat;
    std::array<char, kProcessNameBytes> name{};
    ProcessMemory memory;
    ProcessIo io;
    ProcessStatus status;
    ProcessSchedule schedule;
    std::int64_t uid = -1;  // of status; known for longer than the rest of it
    Nanos read_at = 0;
    double utilization = 0;
    std::uint32_t valid = 0;
};

enum class ReadOutcome : std::uint8_t { read, gone, unreadable, malformed };

[[nodiscard]] inline bool same_process(const ProcessStat& a, const ProcessStat& b) noexcept {
    return a.pid == b.pid && a.start_ticks == b.start_ticks;
}
[[nodiscard]] constexpr bool is_gone(int negative_errno) noexcept {
    return negative_errno == -ENOENT || negative_errno == -ESRCH || negative_errno == -ENOTDIR;
}

// The ticks and pages that the kernel counts in.
struct KernelUnits {
    KernelUnits() noexcept;
    std::uint64_t ns_per_tick;
    std::uint64_t page_bytes;
};

// Writes `record` as row `row`; the table has room for it.
void put_row(ProcessTable& table, std::size_t row, const ProcessRecord& record, const KernelUnits& units) noexcept;

// Clears the counts of the table and stamps it.
void begin_table(ProcessTable& table, const Clock& clock) noexcept;

// Reads a proc tree. Opening never blocks and follows no link; a read ends at a byte cap.
class ProcessFiles {
public:
    static constexpr int kOpenFlags = O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY;

    ProcessFiles(std::string proc, const Io& io);

    [[nodiscard]] const std::string& proc() const noexcept { return proc_; }
    [[nodiscard]] const Io& io() const noexcept { return *io_; }

    [[nodiscard]] int open_at(int directory, const char* path, int flags) noexcept;  // fd or -errno
    void close(int fd) noexcept { io_->close(fd); }
    [[nodiscard]] int open_root() noexcept;

    // The directory of one process, which the kernel binds to the task and not to the number: a pid that is reused
    // between two files cannot mix them.
    [[nodiscard]] int open_process(int root, std::int32_t pid) noexcept;

    // The pids under `root`, ascending, each once.
    [[nodiscard]] Result<bool> list(int root, std::vector<std::int32_t>& out);

    // 0, -errno, or -EPROTO: what was read does not parse. parse(text) is called again with more of the file.
    template <class Parse>
    [[nodiscard]] int read(int fd, Parse&& parse);
    template <class Parse>
    [[nodiscard]] int read_at(int directory, const char* name, Parse&& parse) {
        const int fd = open_at(directory, name, kOpenFlags);
        if (fd < 0) return fd;
        const int status = read(fd, parse);
        close(fd);
        return status;
    }

    // The record's stat and name, from a descriptor of `stat` or of a process' directory.
    [[nodiscard]] ReadOutcome read_stat(int fd, ProcessRecord& out);
    [[nodiscard]] ReadOutcome read_stat_at(int directory, ProcessRecord& out);

private:
    static constexpr std::size_t kFileBytes = 4096;           // holds every file of nearly every process
    static constexpr std::size_t kFileCapBytes = 256 * 1024;  // a status with 65,536 groups would be longer
    static constexpr int kInterruptions = 16;

    std::string proc_;
    const Io* io_;
    std::vector<char> buffer_;
};

// One read is the whole file as a rule; what does not parse yet is read on to its end before it is judged.
template <class Parse>
int ProcessFiles::read(int fd, Parse&& parse) {
    std::size_t size = 0;
    std::size_t room = kFileBytes;
    int interruptions = 0;
    int status = -EPROTO;
    while (true) {
        const ssize_t got = io_->pread(fd, buffer_.data() + size, room - size, static_cast<off_t>(size));
        if (got == -EINTR && ++interruptions <= kInterruptions) continue;
        if (got < 0) status = static_cast<int>(got);
        if (got <= 0) break;
        size += static_cast<std::size_t>(got);
        interruptions = 0;
        if (parse(std::string_view(buffer_.data(), size))) {
            status = 0;
            break;
        }
        if (size == room) {
            if (room >= kFileCapBytes) break;
            room = std::min(kFileCapBytes, room * 4);
            if (buffer_.size() < room) buffer_.resize(room);
        }
    }
    return size == 0 && status == -EPROTO ? -ESRCH : status;  // nothing to read: the task is gone
}

}  // namespace argus::sources
