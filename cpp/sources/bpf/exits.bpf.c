// The end of processes, counted in the kernel, where none can be missed, at two moments.
// Source: kernel/exit.c. do_exit() takes the thread off signal->live, then fires sched_process_exit; for the last thread
//         of a process that is the exit: who it was and how it ended is at hand. But what the thread ran since its last
//         tick is in no sum yet, and giving back its memory lies ahead: of a short life that is nearly all. So time is
//         taken when sched_process_free fires: the thread has left the processor for good and was reaped, and
//         release_task() has added it to signal_struct. Of a process the first thread is let go of last.
// Cost:   bench_exits. Counters of this processor's own; a record only when a reader wants it: written at the exit, while
//         its source is in the cache, and settled in place.
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
} records SEC(".maps");

// Where the record is of the process that exited last with this pid modulo the number of records.
struct whereabouts {
    __u64 number;
    __u64 start;  // tells exits that were counted from those that were not
    int pid;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
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

static __always_inline void add(unsigned long long* counter, unsigned long long value) {
    if (value) __sync_fetch_and_add(counter, value);
}

static __always_inline void write_record(struct task_struct* task, struct whereabouts* where, __u64 lived,
                                         unsigned int status) {
    struct signal_struct* signal = task->signal;
    struct task_struct* leader = task->group_leader;
    __u64 number = __sync_fetch_and_add(&shared.records_made, 1);
    __u32 slot = number & (kExitRecords - 1);
    struct ExitRaw* record = bpf_map_lookup_elem(&records, &slot);
    if (!record) return;
    where->number = number;
    record->settled = 0;
    record->cpu_ns = signal->sum_sched_runtime;
    record->threads = signal->nr_threads;
    record->pid = task->tgid;
    record->start_ns = leader->start_boottime;
    record->lived_ns = lived;
    record->rss_pages_max = signal->maxrss;
    record->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
    record->user_ticks_ns = signal->utime + task->utime;
    record->system_ticks_ns = signal->stime + task->stime;
    record->read_bytes = signal->ioac.read_bytes + task->ioac.read_bytes;
    record->write_bytes = signal->ioac.write_bytes + task->ioac.write_bytes;
    record->parent = leader->real_parent->tgid;
    record->status = status;
    __builtin_memcpy(record->name, leader->comm, sizeof record->name);
    (void)__sync_lock_test_and_set(&record->number, number + 1);
}

static __always_inline int thread_exits(struct task_struct* task, bool last, bool perhaps_another) {
    struct ExitLine* line = line_of_this_processor();
    add(&line->user_ticks_ns, task->utime);
    add(&line->read_bytes, task->ioac.read_bytes);
    add(&line->write_bytes, task->ioac.write_bytes);
    if (!last) return 0;
    struct signal_struct* signal = task->signal;
    struct task_struct* leader = task->group_leader;
    struct whereabouts* where = whereabouts_of(task);
    if (!where) return 0;
    if (perhaps_another) {
        __u64 start = leader->start_boottime;
        __u64 before = where->start;
        if (before == start || __sync_val_compare_and_swap(&where->start, before, start) != before) return 0;
    }
    where->pid = task->tgid;
    where->number = ~0ULL;
    unsigned int status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
    int reason = status & 0x7f ? kExitSignal : status ? kExitFailure : kExitSuccess;
    __u64 lived = bpf_ktime_get_ns() - leader->start_time;
    add(&line->exits[reason][lived < ARGUS_SHORT_LIVED_NS], 1);
    if (shared.records_wanted) write_record(task, where, lived, status);
    return 0;
}

// Linux >= 6.16 says which thread is the last.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exits, struct task_struct* task, bool group_dead) {
    return thread_exits(task, group_dead, false);
}

// Before: two last threads that exit at once may both find themselves the last; the first to say so is.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(exits_old, struct task_struct* task) {
    return thread_exits(task, task->signal->live.counter == 0, true);
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(task_is_freed, struct task_struct* task) {
    struct ExitLine* line = line_of_this_processor();
    __u64 cpu_ns = task->se.sum_exec_runtime;
    add(&line->cpu_ns, cpu_ns);
    if (task->pid != task->tgid) return 0;
    struct whereabouts* where = whereabouts_of(task);
    if (!where || where->pid != task->tgid) return 0;
    where->pid = 0;
    add(&line->released, 1);
    __u64 number = where->number;
    __u32 slot = number & (kExitRecords - 1);
    struct ExitRaw* record = bpf_map_lookup_elem(&records, &slot);
    if (!record || record->number != number + 1) return 0;
    if (record->threads == 1) {  // this one: the others were in the sum
        record->cpu_ns += cpu_ns;
    } else {
        struct signal_struct* signal = task->signal;
        record->cpu_ns = signal->sum_sched_runtime;
        record->user_ticks_ns = signal->utime;
        record->system_ticks_ns = signal->stime;
        record->read_bytes = signal->ioac.read_bytes;
        record->write_bytes = signal->ioac.write_bytes;
    }
    (void)__sync_lock_test_and_set(&record->settled, 1);
    return 0;
}
