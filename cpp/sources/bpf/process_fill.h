// What the two programs of the process table share: how a task's fields come into a record. A field that moved between
// kernels is asked for where it is: Linux 5.8 to today.
#ifndef ARGUS_BPF_PROCESS_FILL_H
#define ARGUS_BPF_PROCESS_FILL_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "process_record.h"

// Adds what one more thread used.
static __always_inline void add_thread(struct argus_usage* used, struct task_struct* t) {
    used->utime_ns += t->utime;
    used->stime_ns += t->stime;
    used->runtime_ns += t->se.sum_exec_runtime;
    used->run_delay_ns += t->sched_info.run_delay;
    used->minor_faults += t->min_flt;
    used->major_faults += t->maj_flt;
    used->read_chars += t->ioac.rchar;
    used->write_chars += t->ioac.wchar;
    used->read_bytes += t->ioac.read_bytes;
    used->write_bytes += t->ioac.write_bytes;
    used->voluntary_switches += t->nvcsw;
    used->involuntary_switches += t->nivcsw;
}

static __always_inline void start_with(struct argus_usage* used, struct task_struct* t) {
    __builtin_memset(used, 0, sizeof *used);
    add_thread(used, t);
}

// Adds what the kernel keeps of the threads that ended. None has, if none ever ran: nothing is looked at then.
static __always_inline void add_ended(struct argus_usage* used, struct signal_struct* ended) {
    const __u64 runtime_ns = ended->sum_sched_runtime;
    if (!runtime_ns) return;
    used->runtime_ns += runtime_ns;
    used->utime_ns += ended->utime;
    used->stime_ns += ended->stime;
    used->minor_faults += ended->min_flt;
    used->major_faults += ended->maj_flt;
    used->read_chars += ended->ioac.rchar;
    used->write_chars += ended->ioac.wchar;
    used->read_bytes += ended->ioac.read_bytes;
    used->write_bytes += ended->ioac.write_bytes;
    used->voluntary_switches += ended->nvcsw;
    used->involuntary_switches += ended->nivcsw;
}

// What /proc/PID/stat shows beyond comm: long names in full, and what a worker works on. A function of its own, so that
// the verifier forgets which way it went.
static __noinline int name_kernel_thread(struct argus_process_record* r, struct task_struct* u) {
    if (!bpf_core_field_exists(u->worker_private)) return 0;  // Linux < 5.17: by comm alone
    struct kthread* thread = (struct kthread*)u->worker_private;
    char* full_name = 0;
    if (!thread) return 0;
    if (bpf_core_field_exists(thread->full_name)) full_name = BPF_CORE_READ(thread, full_name);
    if (full_name) {
        __builtin_memset(r->full_name, 0, sizeof r->full_name);
        bpf_probe_read_kernel_str(r->full_name, sizeof r->full_name, full_name);
        r->flags |= ARGUS_PROCESS_LONG_NAME;
    }
    if (!(u->flags & PF_WQ_WORKER)) return 0;
    struct worker* worker = (struct worker*)BPF_CORE_READ(thread, data);
    if (!worker || !BPF_CORE_READ(worker, pool)) return 0;
    bpf_probe_read_kernel_str(r->work, sizeof r->work, &worker->desc);
    r->flags |= BPF_CORE_READ(worker, current_work) ? ARGUS_PROCESS_WORKS : ARGUS_PROCESS_WORKED;
    return 0;
}

static __always_inline void add_memory(struct argus_process_record* r, struct task_struct* u) {
    struct mm_struct* mm = u->mm;
    if (!mm) return;
    r->virtual_pages = mm->total_vm;
    r->flags |= ARGUS_PROCESS_MEMORY;
    if (bpf_core_field_exists(mm->rss_stat[0].count)) {
        r->file_pages = mm->rss_stat[0].count;
        r->anon_pages = mm->rss_stat[1].count;
        r->swap_pages = mm->rss_stat[2].count;
        r->shmem_pages = mm->rss_stat[3].count;
        return;
    }
    struct mm_struct___before_6_2* old = (struct mm_struct___before_6_2*)mm;
    __s64 pages[4] = {};  // read by a helper: the verifier does not look into an array of this type
    bpf_core_read(pages, sizeof pages, &old->rss_stat.count);
    r->file_pages = pages[0];
    r->anon_pages = pages[1];
    r->swap_pages = pages[2];
    r->shmem_pages = pages[3];
}

// `u` is `t` as a pointer that the verifier does not trust. Of a trusted one it looks up, by name in all types of the
// kernel, whether each pointer in it can be trusted too: seconds, each time the program is loaded.
static __always_inline void describe(struct argus_process_record* r, struct task_struct* t, struct task_struct* u,
                                     struct signal_struct* signal) {
    const __u64 start = t->start_boottime;
    // Names of kernel threads are dear to read, and only those of workers change.
    const bool named = (r->flags & ARGUS_PROCESS_NAMED) && r->pid == t->tgid && r->start_boottime_ns == start &&
                       !(t->flags & PF_WQ_WORKER);
    r->start_boottime_ns = start;
    r->pid = t->tgid;
    r->ppid = u->real_parent->tgid;
    r->nr_threads = signal->nr_threads;
    r->adjusted_utime_ns = signal->prev_cputime.utime;
    r->adjusted_stime_ns = signal->prev_cputime.stime;
    r->static_prio = t->static_prio;
    struct task_struct___before_5_16* old = (struct task_struct___before_5_16*)t;
    r->last_cpu = bpf_core_field_exists(t->thread_info.cpu) ? (__s32)t->thread_info.cpu
                  : bpf_core_field_exists(old->cpu)         ? (__s32)old->cpu
                                                            : -1;
    r->uid = u->real_cred->uid.val;
    // One word for user space to print: the exit states lie in bits of their own.
    r->state = (bpf_core_field_exists(t->__state) ? t->__state : (__u32)old->state) | (__u32)t->exit_state;
    r->cgroup_id = u->cgroups->dfl_cgrp->kn->id;
    if (t->flags & PF_KTHREAD) {
        if (!named) {
            r->flags = ARGUS_PROCESS_NAMED;
            name_kernel_thread(r, u);
        }
        r->flags &= ~ARGUS_PROCESS_TORN;
    } else {
        r->flags = 0;
        add_memory(r, u);
    }
    __builtin_memcpy(r->comm, t->comm, sizeof r->comm);
}

static __always_inline __u32 ended_sequence(struct signal_struct* ended) {
    struct signal_struct___before_5_9* old = (struct signal_struct___before_5_9*)ended;
    return bpf_core_field_exists(ended->stats_lock.seqcount.seqcount.sequence)
               ? ended->stats_lock.seqcount.seqcount.sequence
               : old->stats_lock.seqcount.sequence;
}

#endif
