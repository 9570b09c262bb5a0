// Tiers `gated` and `taskstats` of the process table: read only what ran. The processor clock of a process (one cheap
// system call, any user, no descriptor) tells to the nanosecond whether any of its threads ran since it was last read;
// if none did, nothing it does itself can have changed, and its row stands.
// Source: man clock_getcpuclockid(3); /proc/PID/{stat,statm,io} on kept descriptors, status and schedstat at first sight;
// /proc/loadavg, whose last field is the pid given out last: new processes are found without listing /proc, which would
// cost more than the clocks.
// Cost: bench_processes host_processes_gated. Memory: about 13 KiB in the kernel for each process with kept
// descriptors, and those are at most kKeptMax processes and half of RLIMIT_NOFILE.
// Failure: as tier `tree`. Without descriptors left, processes that run are read without keeping any.
//
// What others do to a process that does not run (its memory reclaimed, its priority changed) is seen within
// kRefresh; a new parent at once. Switches, run delay and the kinds of memory are those of processes that have not run
// since first sight or a refresh; else NaN. With taskstats switches of single-threaded processes are always known, and
// their I/O also without the right to read `io`, in whole KiB.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "sources/kernel_file.hpp"
#include "sources/processes/files.hpp"
#include "sources/processes/taskstats.hpp"
#include "sources/source.hpp"

namespace argus::sources {

// Nanoseconds on a processor, all threads, or -errno.
using CpuClock = std::int64_t (*)(std::int32_t pid);
[[nodiscard]] std::int64_t system_cpu_clock(std::int32_t pid) noexcept;

// stat, statm and io of the processes that ran most recently. A slot's generation tells its owner that it was given
// to another.
class KeptFiles {
public:
    struct Ref {
        std::uint32_t slot = 0;
        std::uint32_t generation = 0;  // 0 = none
    };
    struct Files {
        int stat = -1, statm = -1, io = -1;
    };

    KeptFiles(const Io& io, std::size_t processes_max);
    ~KeptFiles();
    KeptFiles(const KeptFiles&) = delete;
    KeptFiles& operator=(const KeptFiles&) = delete;

    [[nodiscard]] const Files* find(Ref ref) noexcept;      // and marks it as used
    // When full, closes the least recently used; or these, if all were used in this round or the one before: processes
    // that take turns would otherwise close each other's files before they are read again.
    [[nodiscard]] Ref keep(const Files& files) noexcept;
    void begin_round() noexcept { ++round_; }
    void drop(Ref& ref) noexcept;
    [[nodiscard]] bool shrink() noexcept;  // gives one up for good, after EMFILE; false = none left
    [[nodiscard]] std::size_t size() const noexcept { return used_; }

private:
    static constexpr std::uint32_t kNone = ~std::uint32_t{0};
    struct Slot {
        Files files;
        std::uint32_t generation = 1;
        std::uint32_t newer = kNone, older = kNone;
        std::uint32_t round = 0;  // when it was last used
        bool used = false;
    };
    void unlink(std::uint32_t at) noexcept;
    void link_newest(std::uint32_t at) noexcept;
    void release(std::uint32_t at) noexcept;

    const Io* io_;
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
    std::uint32_t newest_ = kNone, oldest_ = kNone;
    std::size_t used_ = 0;
    std::uint32_t round_ = 0;
};

enum class Accounting : std::uint8_t { files, taskstats };

class GatedProcesses final : public ProcessScanner {
public:
    static constexpr std::size_t kKeptMax = 1024;
    static constexpr Nanos kRefresh = 60 * kSecond;
    static constexpr Nanos kListAtLeast = 10 * kSecond;

    GatedProcesses(const Roots& roots, const Io& io, const Clock& clock, CpuClock cpu_clock, std::size_t kept_max);

    // Errc::unavailable when /proc is not this machine's, seen from its own pid namespace.
    [[nodiscard]] static Result<std::unique_ptr<ProcessScanner>> make(const Roots& roots, const Io& io,
                                                                      const Clock& clock, CpuClock cpu_clock,
                                                                      Accounting accounting);

    [[nodiscard]] Result<std::uint32_t> scan(ProcessTable& out) override;

    [[nodiscard]] std::size_t kept() const noexcept { return kept_.size(); }

private:
    struct Row {
        ProcessRecord record;
        std::int64_t cpu_ns = 0;
        Nanos cpu_at = 0;      // when cpu_ns was asked for; 0 = never read
        Nanos refresh_at = 0;  // when everything is read again
        KeptFiles::Ref kept;
        bool threaded = false;  // has, or may have had, more than one thread: taskstats does not tell of it
        ReadOutcome outcome = ReadOutcome::read;
        bool gone = false;
        bool read_now = false;  // in this scan
    };

    [[nodiscard]] Result<bool> update_list(Nanos now);
    void ask_for(std::int32_t first, std::int32_t last);
    void take_list();
    void end(Row& row);
    void visit(Row& row, Nanos now, ProcessTable& table);
    static void count(ReadOutcome outcome, ProcessTable& table) noexcept;
    [[nodiscard]] ReadOutcome read_active(Row& row, std::int64_t cpu_ns);
    [[nodiscard]] ReadOutcome read_kept(const KeptFiles::Files& files, ProcessRecord& out);
    [[nodiscard]] ReadOutcome read_opening(Row& row, ProcessRecord& out);
    [[nodiscard]] ReadOutcome read_through(int directory, ProcessRecord& out);
    [[nodiscard]] ReadOutcome read_everything(Row& row, std::int64_t cpu_ns);
    [[nodiscard]] int open_process(std::int32_t pid) noexcept;
    void utilize(Row& row, std::int64_t cpu_ns, bool same) const noexcept;
    void follow_orphans();
    [[nodiscard]] Result<bool> ask_taskstats();
    void take_account(Row& row, const TaskAccount& account) noexcept;
    void publish(ProcessTable& out);

    ProcessFiles files_;
    const Clock* clock_;
    CpuClock cpu_clock_;
    KernelUnits units_;
    KeptFiles kept_;
    KernelFile loadavg_;
    std::unique_ptr<Taskstats> taskstats_;
    int root_ = -1;  // open while scanning
    std::int32_t newest_ = 0, asked_from_ = 0;  // pid given out last: by the scan before, and the one before that
    Nanos listed_at_ = 0;
    std::vector<std::int32_t> pids_, fresh_;
    std::vector<Row> rows_, scratch_;            // by pid
    std::vector<std::int32_t> ended_;            // in this scan, ascending
};

}  // namespace argus::sources
