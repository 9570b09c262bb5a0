// Every process in one system call: walks the task list and writes one record for each process, its threads summed,
// into an array that user space has mapped. No text, no descriptors, no copies.
// Needs: Linux >= 6.7 (open-coded task iterators), BTF.
// Counters of a process are those of its threads that live plus those that the kernel keeps of the ended ones. A thread
// that ends between the two readings would count twice or not at all: the kernel's own sequence count of the
// second tells, and the process is summed again.
#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "process_record.h"

char LICENSE[] SEC("license") = "GPL";  // the kernel lends the functions below to programs under the GPL only

enum { kAllProcesses = 0, kThreadsOfProcess = 2 };
enum { kTries = 4 };

struct bpf_iter_task {
    __u64 opaque[3];
} __attribute__((aligned(8)));

extern int bpf_iter_task_new(struct bpf_iter_task* it, struct task_struct* task, unsigned int flags) __ksym;
extern struct task_struct* bpf_iter_task_next(struct bpf_iter_task* it) __ksym;
extern void bpf_iter_task_destroy(struct bpf_iter_task* it) __ksym;
extern struct task_struct* bpf_task_acquire(struct task_struct* task) __ksym;
extern void bpf_task_release(struct task_struct* task) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2048);
    __type(key, __u32);
    __type(value, struct argus_process_record);
} records SEC(".maps");

// Of the last run: processes, also those beyond the last record, and threads.
struct {
    __u32 processes, threads;
} counted;

// Adds what one more thread did to its process.
static __always_inline void add_thread(struct argus_process_record* r, struct task_struct* t) {
    r->utime_ns += t->utime;
    r->stime_ns += t->stime;
    r->runtime_ns += t->se.sum_exec_runtime;
    r->run_delay_ns += t->sched_info.run_delay;
    r->minor_faults += t->min_flt;
    r->major_faults += t->maj_flt;
    r->read_chars += t->ioac.rchar;
    r->write_chars += t->ioac.wchar;
    r->read_bytes += t->ioac.read_bytes;
    r->write_bytes += t->ioac.write_bytes;
    r->voluntary_switches += t->nvcsw;
    r->involuntary_switches += t->nivcsw;
}

static __always_inline void start_with(struct argus_process_record* r, struct task_struct* t) {
    r->utime_ns = t->utime;
    r->stime_ns = t->stime;
    r->runtime_ns = t->se.sum_exec_runtime;
    r->run_delay_ns = t->sched_info.run_delay;
    r->minor_faults = t->min_flt;
    r->major_faults = t->maj_flt;
    r->read_chars = t->ioac.rchar;
    r->write_chars = t->ioac.wchar;
    r->read_bytes = t->ioac.read_bytes;
    r->write_bytes = t->ioac.write_bytes;
    r->voluntary_switches = t->nvcsw;
    r->involuntary_switches = t->nivcsw;
}

// Adds what the kernel keeps of the threads that ended. None has, if none ever ran: nothing is looked at then.
static __always_inline void add_ended(struct argus_process_record* r, struct signal_struct* ended) {
    const __u64 runtime_ns = ended->sum_sched_runtime;
    if (!runtime_ns) return;
    r->runtime_ns += runtime_ns;
    r->utime_ns += ended->utime;
    r->stime_ns += ended->stime;
    r->minor_faults += ended->min_flt;
    r->major_faults += ended->maj_flt;
    r->read_chars += ended->ioac.rchar;
    r->write_chars += ended->ioac.wchar;
    r->read_bytes += ended->ioac.read_bytes;
    r->write_bytes += ended->ioac.write_bytes;
    r->voluntary_switches += ended->nvcsw;
    r->involuntary_switches += ended->nivcsw;
}

// As /proc/PID/stat shows them: workers with what they work on, long names in full.
static __always_inline bool name_kernel_thread(struct argus_process_record* r, struct task_struct* t) {
    struct kthread* thread = (struct kthread*)t->worker_private;
    char* full_name = 0;
    if (!thread) return false;
    if (bpf_core_field_exists(thread->full_name)) full_name = BPF_CORE_READ(thread, full_name);
    __builtin_memset(r->full_name, 0, sizeof r->full_name);
    long size = full_name ? bpf_probe_read_kernel_str(r->full_name, sizeof r->full_name, full_name)
                          : bpf_probe_read_kernel_str(r->full_name, sizeof r->full_name, t->comm);
    if (!(t->flags & PF_WQ_WORKER)) return true;
    struct worker* worker = (struct worker*)BPF_CORE_READ(thread, data);
    if (!worker || !BPF_CORE_READ(worker, pool) || size < 1 || size > 31) return true;
    char* at = r->full_name + size;
    if (bpf_probe_read_kernel_str(at, 32, &worker->desc) > 1) at[-1] = BPF_CORE_READ(worker, current_work) ? '+' : '-';
    return true;
}

static __always_inline void add_memory(struct argus_process_record* r, struct mm_struct* mm) {
    r->virtual_pages = mm->total_vm;
    r->file_pages = mm->rss_stat[0].count;
    r->anon_pages = mm->rss_stat[1].count;
    r->swap_pages = mm->rss_stat[2].count;
    r->shmem_pages = mm->rss_stat[3].count;
    r->flags |= ARGUS_PROCESS_MEMORY;
}

static __always_inline void describe(struct argus_process_record* r, struct task_struct* t,
                                     struct signal_struct* signal) {
    const __u64 start = t->start_boottime;
    // Names of kernel threads are dear to read, and only those of workers change.
    const bool named = (r->flags & ARGUS_PROCESS_LONG_NAME) && !(t->flags & PF_WQ_WORKER) && r->pid == t->tgid &&
                       r->start_boottime_ns == start;
    r->start_boottime_ns = start;
    r->pid = t->tgid;
    r->ppid = t->real_parent->tgid;
    r->nr_threads = signal->nr_threads;
    r->adjusted_utime_ns = signal->prev_cputime.utime;
    r->adjusted_stime_ns = signal->prev_cputime.stime;
    r->static_prio = t->static_prio;
    r->last_cpu = bpf_core_field_exists(t->thread_info.cpu) ? (__s32)t->thread_info.cpu : -1;
    r->uid = t->real_cred->uid.val;
    // One word for user space to print: the exit states lie in bits of their own.
    r->state = t->__state | (__u32)t->exit_state;
    r->cgroup_id = t->cgroups->dfl_cgrp->kn->id;
    r->flags = 0;
    struct mm_struct* mm = t->mm;
    if (t->flags & PF_KTHREAD) {
        if (named || name_kernel_thread(r, t)) r->flags = ARGUS_PROCESS_LONG_NAME;
    } else if (mm) {
        add_memory(r, mm);
    }
    __builtin_memcpy(r->comm, t->comm, sizeof r->comm);
}

static __always_inline __u32 ended_sequence(struct signal_struct* ended) {
    return ended->stats_lock.seqcount.seqcount.sequence;
}

// Adds every thread but the first; how many.
static __always_inline __u32 add_threads(struct argus_process_record* r, struct task_struct* leader) {
    struct bpf_iter_task it;
    struct task_struct* t;
    __u32 threads = 0;
    struct task_struct* held = bpf_task_acquire(leader);  // an iterator takes only what cannot go
    if (!held) return 0;
    bpf_iter_task_new(&it, held, kThreadsOfProcess);
    while ((t = bpf_iter_task_next(&it))) {
        if (t->pid == t->tgid) continue;
        add_thread(r, t);
        ++threads;
    }
    bpf_iter_task_destroy(&it);
    bpf_task_release(held);
    return threads;
}

// Sums the threads; their number.
static __always_inline __u32 sum(struct argus_process_record* r, struct task_struct* leader,
                                 struct signal_struct* ended) {
    __u32 threads = 1;
    for (int i = 0; i < kTries; ++i) {
        const __u32 sequence = ended_sequence(ended);
        barrier();
        start_with(r, leader);
        if (r->nr_threads > 1) threads = 1 + add_threads(r, leader);
        add_ended(r, ended);
        barrier();
        if (!(sequence & 1) && ended_sequence(ended) == sequence) return threads;
    }
    r->flags |= ARGUS_PROCESS_TORN;
    return threads;
}

SEC("syscall")
int scan_processes(void* context) {
    struct bpf_iter_task it;
    struct task_struct* t;
    __u32 processes = 0, threads = 0;
    bpf_rcu_read_lock();
    bpf_iter_task_new(&it, 0, kAllProcesses);
    while ((t = bpf_iter_task_next(&it))) {
        if (!t->tgid) continue;  // the idle task
        __u32 key = processes++;
        struct argus_process_record* r = bpf_map_lookup_elem(&records, &key);
        if (!r) continue;
        struct signal_struct* signal = t->signal;
        describe(r, t, signal);
        threads += sum(r, t, signal);
    }
    bpf_iter_task_destroy(&it);
    bpf_rcu_read_unlock();
    counted.processes = processes;
    counted.threads = threads;
    return 0;
}
