// Tier `bpf` of the process table: one system call runs a BPF program that walks the kernel's own task list and writes
// a record for each process into memory that is mapped here. No files, no text, no descriptors; threads are summed in
// the kernel. Needs CAP_BPF, CAP_PERFMON, Linux >= 6.7 with BTF, libbpf.so.1, the initial pid and time namespaces. From
// Linux 5.8 on a task iterator lists the threads instead, and they are summed here.
// Cost: bench_processes host_processes_bpf. Memory: 320 B a process in the kernel, twice that in use here.
// Failure: a table with more than kMaxRecords processes counts the rest as unreadable.
//
// Processor time is exact to the nanosecond, split into user and system as /proc does. Memory is what the processors
// have handed over to the shared counters: each holds back up to max(32, 2 * processors) pages per kind.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sources/bpf/loader.hpp"
#include "sources/bpf/process_record.h"
#include "sources/processes/files.hpp"
#include "sources/source.hpp"

namespace argus::sources {

struct BpfChoice {
    std::span<const unsigned char> object = bpf::compiled("processes");
    std::span<const unsigned char> listing = bpf::compiled("processes_listed");  // where the kernel refuses the first
    bpf::Environment environment = {};
    std::uint32_t records = 2048;  // room at the start; grows with the processes
};

// One letter for what the kernel holds in two fields, as /proc/PID/stat shows it.
[[nodiscard]] char state_letter(std::uint32_t state) noexcept;

struct CpuSplit {
    std::uint64_t user_ns = 0, system_ns = 0;
};
// The exact run time divided as the sampled times are, never below what was told before: kernel cputime_adjust().
[[nodiscard]] CpuSplit split_cpu_time(std::uint64_t runtime_ns, CpuSplit sampled, CpuSplit before) noexcept;

// Sorts `keys` that come in few ascending runs, as pids do that wrapped around. `scratch` is room for a copy.
void sort_runs(std::vector<std::uint64_t>& keys, std::vector<std::uint64_t>& scratch);

class BpfProcesses final : public ProcessScanner {
public:
    static constexpr std::uint32_t kMaxRecords = 262'144;

    // Loads the program and checks it against what /proc says of this process.
    [[nodiscard]] static Result<std::unique_ptr<ProcessScanner>> make(const Roots& roots, const Io& io,
                                                                      const Clock& clock, const BpfChoice& choice = {});

    [[nodiscard]] Result<std::uint32_t> scan(ProcessTable& out) override;

    [[nodiscard]] std::uint32_t threads() const noexcept { return threads_; }  // of the last scan
    [[nodiscard]] std::uint32_t capacity() const noexcept { return capacity_; }

private:
    struct Previous {
        std::int32_t pid;
        std::int64_t start_ns;
        std::uint64_t runtime_ns;
        CpuSplit told;
    };

    BpfProcesses(const Clock& clock, const BpfChoice& choice) : clock_(&clock), choice_(choice) {}
    [[nodiscard]] Result<bool> load(std::uint32_t records);
    [[nodiscard]] Result<bool> load_walk(std::uint32_t records);
    [[nodiscard]] Result<bool> load_listing(std::uint32_t records);
    [[nodiscard]] Result<bool> take_maps(bpf::Object&& loaded, std::uint32_t records);
    [[nodiscard]] Result<std::uint32_t> run();  // processes seen; the records hold them, or kMaxRecords of them
    void add_listed_threads();
    [[nodiscard]] Result<bool> check_against(const Roots& roots, const Io& io);
    void order(std::uint32_t count);
    struct Block;
    [[nodiscard]] const Previous* previous(std::int32_t pid, std::int64_t start_ns) noexcept;
    void put_identity(ProcessTable& out, const Block& block) const noexcept;
    void put_cpu(ProcessTable& out, const Block& block) noexcept;
    void put_counters(ProcessTable& out, const Block& block) const noexcept;
    void put_memory(ProcessTable& out, const Block& block) const noexcept;

    const Clock* clock_;
    BpfChoice choice_;
    KernelUnits units_;
    bpf::Object object_;
    bpf::Mapping records_;
    bpf::Mapping counts_;
    int program_ = -1;
    bool lists_ = false;     // by the iterator below
    bpf::Link iterator_;
    bpf::Mapping further_;   // its records of further threads
    std::uint32_t capacity_ = 0;
    std::uint32_t threads_ = 0;
    std::vector<std::uint64_t> keys_, scratch_;  // pid << 32 | record
    std::vector<std::int32_t> further_found_;    // by place in keys_
    std::vector<Previous> now_, before_;         // by pid
    std::size_t cursor_ = 0;
    Nanos elapsed_ = 0;  // since the scan before; 0 = none
    Nanos scanned_at_ = 0;
};

}  // namespace argus::sources
