// The end of processes, counted in the kernel, where none can be missed, at two moments.
// Source: kernel/exit.c. do_exit() takes the thread off signal->live, then fires sched_process_exit; for the last
//         thread of a process that is the exit: who it was, how it ended and what it is known to have used is at hand.
//         But what the thread ran since its last tick is in no sum yet, and giving back its memory lies ahead: of a
//         short life that is nearly all. The rest is added when sched_process_free fires: the thread has left the
//         processor for good and was reaped, and release_task() has added it to signal_struct. Of a process the first
//         thread is let go of last. Threads that end before their process are in signal_struct until it ends.
// Cost:   bench_exits. Counters of this processor's own; a record only when a reader wants it: written at the exit,
//         while its source is in the cache, and settled in place.
#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "exits.h"

char LICENSE[] SEC("license") = "GPL";

enum { SIGNAL_GROUP_EXIT = 4 };  // of include/linux/sched/signal.h

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, kExitRecords);
    __type(key, __u32);
    __type(value, struct ExitRaw);
} exit_records SEC(".maps");

// The process that exited last with this pid modulo the number of records: where its record is, what was counted. Half a
// cache line, and mapped memory begins at one: no entry lies in two.
struct whereabouts {
    __u64 number;
    __u64 start;       // tells exits that were counted from those that were not; before Linux 6.16
    __u64 counted_ns;  // run time at the exit: of the one thread, or of all if there were others
    int pid;
    unsigned int threads;  // that were not let go of; 1 = the one that exits
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, kExitRecords);
    __type(key, __u32);
    __type(value, struct whereabouts);
} exited SEC(".maps");

struct ExitShared shared;

static __always_inline struct ExitLine* line_of_this_processor(void) {
    return &shared.lines[bpf_get_smp_processor_id() & (kExitLines - 1)];
}

static __always_inline struct whereabouts* whereabouts_of(struct task_struct* task) {
    __u32 slot = (__u32)task->tgid & (kExitRecords - 1);
    return bpf_map_lookup_elem(&exited, &slot);
}

static __always_inline void add(unsigned long long* counter, __u64 value) {
    if (value) __sync_fetch_and_add(counter, value);
}

// After all that was written before. An atomic operation waits until every cache line written before it has come, which
// takes longer than the rest; where the processor's stores are seen in order, a store does.
static __always_inline void publish(unsigned long long* word, __u64 value) {
    if (shared.stores_in_order) {
        barrier();
        *(volatile unsigned long long*)word = value;
    } else {
        (void)__sync_lock_test_and_set(word, value);
    }
}

static __always_inline void write_record(struct task_struct* task, __u64 number, __u64 counted_ns, __u64 lived,
                                         unsigned int status) {
    struct signal_struct* signal = task->signal;
    struct task_struct* leader = task->group_leader;
    __u32 slot = number & (kExitRecords - 1);
    struct ExitRaw* record = bpf_map_lookup_elem(&exit_records, &slot);
    if (!record) return;
    record->settled = 0;
    record->cpu_ns = counted_ns;
    record->pid = task->tgid;
    record->parent = leader->real_parent->tgid;
    record->start_ns = leader->start_boottime;
    record->lived_ns = lived;
    record->rss_pages_max = signal->maxrss;
    record->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
    record->user_ticks_ns = signal->utime + task->utime;
    record->system_ticks_ns = signal->stime + task->stime;
    record->read_bytes = signal->ioac.read_bytes + task->ioac.read_bytes;
    record->write_bytes = signal->ioac.write_bytes + task->ioac.write_bytes;
    record->status = status;
    __builtin_memcpy(record->name, leader->comm, sizeof record->name);
    publish(&record->number, number + 1);
}

// What is atomic comes first: nothing is on its way then that it would have to wait for.
static __always_inline int process_ends(struct task_struct* task, bool perhaps_another) {
    struct signal_struct* signal = task->signal;
    struct task_struct* leader = task->group_leader;
    struct whereabouts* where = whereabouts_of(task);
    if (!where) return 0;
    if (perhaps_another) {
        __u64 start = leader->start_boottime;
        __u64 before = where->start;
        if (before == start || __sync_val_compare_and_swap(&where->start, before, start) != before) return 0;
    }
    __u64 run_ns = task->se.sum_exec_runtime;
    __u64 counted_ns = signal->sum_sched_runtime + run_ns;
    unsigned int threads = signal->nr_threads;
    unsigned int status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
    int reason = status & 0x7f ? kExitSignal : status ? kExitFailure : kExitSuccess;
    __u64 lived = bpf_ktime_get_ns() - leader->start_time;
    struct ExitLine* line = line_of_this_processor();
    add(&line->exits[reason][lived < ARGUS_SHORT_LIVED_NS], 1);
    add(&line->cpu_ns, counted_ns);
    if (threads == 1) {  // else when all have been added up
        add(&line->user_ticks_ns, signal->utime + task->utime);
        add(&line->read_bytes, signal->ioac.read_bytes + task->ioac.read_bytes);
        add(&line->write_bytes, signal->ioac.write_bytes + task->ioac.write_bytes);
    }
    __u64 number = ~0ULL;
    if (shared.records_wanted) {
        number = __sync_fetch_and_add(&shared.records_made, 1);
        write_record(task, number, counted_ns, lived, status);
    }
    where->number = number;
    where->counted_ns = threads == 1 ? run_ns : counted_ns;
    where->threads = threads;
    where->pid = task->tgid;
    return 0;
}

// Linux >= 6.16 says which thread is the last.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exits, struct task_struct* task, bool group_dead) {
    return group_dead ? process_ends(task, false) : 0;
}

// Before: two last threads that exit at once may both find themselves the last; the first to say so is.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(exits_old, struct task_struct* task) {
    return task->signal->live.counter == 0 ? process_ends(task, true) : 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(task_is_freed, struct task_struct* task) {
    if (task->pid != task->tgid) return 0;
    struct whereabouts* where = whereabouts_of(task);
    if (!where || where->pid != task->tgid) return 0;
    struct ExitLine* line = line_of_this_processor();
    struct signal_struct* signal = where->threads == 1 ? 0 : task->signal;  // alone, it is not looked at: it is far
    __u64 run_ns = signal ? signal->sum_sched_runtime : task->se.sum_exec_runtime;
    __u64 counted_ns = where->counted_ns;
    __u64 since_ns = run_ns > counted_ns ? run_ns - counted_ns : 0;
    __u64 number = where->number;
    __u32 slot = number & (kExitRecords - 1);
    struct ExitRaw* record = bpf_map_lookup_elem(&exit_records, &slot);
    bool recorded = record && record->number == number + 1;
    add(&line->cpu_ns, since_ns);
    if (signal) {
        add(&line->user_ticks_ns, signal->utime);
        add(&line->read_bytes, signal->ioac.read_bytes);
        add(&line->write_bytes, signal->ioac.write_bytes);
    }
    add(&line->released, 1);
    where->pid = 0;
    if (!recorded) return 0;
    record->cpu_ns += since_ns;
    if (signal) {
        record->user_ticks_ns = signal->utime;
        record->system_ticks_ns = signal->stime;
        record->read_bytes = signal->ioac.read_bytes;
        record->write_bytes = signal->ioac.write_bytes;
    }
    publish(&record->settled, 1);
    return 0;
}
