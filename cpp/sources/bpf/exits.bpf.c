// The end of processes, counted in the kernel, where none can be missed: two programs for two moments.
// Source: kernel/exit.c. do_exit() takes the thread off signal->live, then fires sched_process_exit; the last thread of
//         a process sees 0. That is the moment of the exit. What the thread uses from there on (it gives back its
//         memory: a tenth of a short life) and what a zombie waits for come later, so accounts are taken when
//         sched_process_free fires: the thread has left the processor for good, has been reaped, and release_task() has
//         added it to signal_struct. Of a process the first thread is freed last.
// Cost:   bench_exits. Atomic adds to a line of counters of this processor; a record only when a reader wants it.
#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "exits.h"

char LICENSE[] SEC("license") = "GPL";

enum { SIGNAL_GROUP_EXIT = 4 };  // of include/linux/sched/signal.h
enum { BPF_RB_NO_WAKEUP = 1 };   // nobody waits: the reader comes by

// Of the process that last exited with this pid modulo the number of slots: when, and whose child it was then.
struct death {
    __u64 key;  // its start: tells processes apart, and exits that were counted from those that were not
    __u64 end_ns;
    int pid;
    int parent;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, kExitDeaths);
    __type(key, __u32);
    __type(value, struct death);
} deaths SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 21);
} records SEC(".maps");

struct ExitShared shared;

static __always_inline struct ExitLine *line_of_this_processor(void) {
    return &shared.lines[bpf_get_smp_processor_id() & (kExitLines - 1)];
}

static __always_inline void add(unsigned long long *counter, unsigned long long value) {
    if (value) __sync_fetch_and_add(counter, value);
}

static __always_inline unsigned int status_of(struct task_struct *task, struct signal_struct *signal) {
    return signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
}

// Two last threads that exit at once may both see 0: the one that puts its process into the slot counts it.
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exits, struct task_struct *task) {
    struct signal_struct *signal = task->signal;
    if (signal->live.counter != 0) return 0;
    struct task_struct *leader = task->group_leader;
    __u64 start = leader->start_boottime;
    __u32 slot = (__u32)task->tgid & (kExitDeaths - 1);
    struct death *death = bpf_map_lookup_elem(&deaths, &slot);
    if (!death) return 0;
    __u64 before = death->key;
    if (before == start || __sync_val_compare_and_swap(&death->key, before, start) != before) return 0;
    __u64 now = bpf_ktime_get_boot_ns();
    death->end_ns = now;
    death->pid = task->tgid;
    death->parent = leader->real_parent->tgid;
    unsigned int status = status_of(task, signal);
    int reason = status & 0x7f ? kExitSignal : status ? kExitFailure : kExitSuccess;
    struct ExitLine *line = line_of_this_processor();
    add(&line->exits[reason], 1);
    if (now - start < ARGUS_SHORT_LIVED_NS) add(&line->short_lived, 1);
    return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(task_is_freed, struct task_struct *task) {
    struct ExitLine *line = line_of_this_processor();
    add(&line->cpu_ns, task->se.sum_exec_runtime);
    add(&line->user_ticks_ns, task->utime);
    add(&line->system_ticks_ns, task->stime);
    add(&line->read_bytes, task->ioac.read_bytes);
    add(&line->write_bytes, task->ioac.write_bytes);
    if (task->pid != task->tgid || !shared.records_wanted) return 0;

    struct ExitRaw *record = bpf_ringbuf_reserve(&records, sizeof *record, 0);
    if (!record) {
        add(&line->lost_records, 1);
        return 0;
    }
    struct signal_struct *signal = task->signal;
    __u32 slot = (__u32)task->tgid & (kExitDeaths - 1);
    struct death *death = bpf_map_lookup_elem(&deaths, &slot);
    int remembered = death && death->pid == task->tgid && death->key == task->start_boottime;
    // The first thread was added to the sum a moment before it left the processor, so alone it knows better.
    __u64 sum = signal->sum_sched_runtime;
    record->start_ns = task->start_boottime;
    record->end_ns = remembered ? death->end_ns : 0;
    record->cpu_ns = sum > task->se.sum_exec_runtime ? sum : task->se.sum_exec_runtime;
    record->user_ticks_ns = signal->utime;
    record->system_ticks_ns = signal->stime;
    record->read_bytes = signal->ioac.read_bytes;
    record->write_bytes = signal->ioac.write_bytes;
    record->rss_pages_max = signal->maxrss;
    record->cgroup_id = task->cgroups->dfl_cgrp->kn->id;
    record->pid = task->tgid;
    record->parent = remembered ? death->parent : 0;
    record->status = status_of(task, signal);
    record->unused = 0;
    __builtin_memcpy(record->name, task->comm, sizeof record->name);
    bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
    return 0;
}
