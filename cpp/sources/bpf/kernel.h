// The few kernel types that the BPF programs look at, with the few fields they use: the loader finds where each lies in
// the running kernel (CO-RE), so neither order nor size here means anything, and a field that a kernel lacks must be
// asked for with bpf_core_field_exists().
#ifndef ARGUS_BPF_KERNEL_H
#define ARGUS_BPF_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
#define true 1
#define false 0

// Of include/uapi/linux/bpf.h.
enum {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_PERCPU_ARRAY = 6,
    BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_F_MMAPABLE = 1 << 10 };

// Of include/linux/sched.h.
enum {
    PF_WQ_WORKER = 0x00000020,
    PF_KTHREAD = 0x00200000,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct percpu_counter {
    __s64 count;  // what the processors have handed over; each holds back at most a batch
};

struct mm_struct {
    unsigned long total_vm;  // pages
    unsigned long hiwater_rss;
    struct percpu_counter rss_stat[4];  // Linux >= 6.2: file, anonymous, swapped out, shared memory
};

struct task_io_accounting {
    __u64 rchar, wchar, syscr, syscw, read_bytes, write_bytes, cancelled_write_bytes;
};

struct prev_cputime {
    __u64 utime, stime;
};

struct seqcount_field {
    __u32 sequence;
};

struct signal_struct {
    struct {
        int counter;
    } live;  // threads that have not begun to exit
    int nr_threads;
    unsigned int flags;
    struct {
        struct {
            struct {
                unsigned sequence;
            } seqcount;
        } seqcount;
    } stats_lock;
    __u64 utime, stime;  // of threads that ended, as all counters here
    struct prev_cputime prev_cputime;
    unsigned long nvcsw, nivcsw, min_flt, maj_flt, maxrss;
    struct task_io_accounting ioac;
    unsigned long long sum_sched_runtime;
    int group_exit_code;
};

struct sched_entity {
    __u64 sum_exec_runtime;
};

struct sched_info {
    unsigned long long run_delay;
};

struct thread_info {
    __u32 cpu;
};

typedef struct {
    __u32 val;
} kuid_t;

struct cred {
    kuid_t uid;
};

struct kernfs_node {
    __u64 id;
};

struct cgroup {
    struct kernfs_node* kn;
};

struct css_set {
    struct cgroup* dfl_cgrp;
};

struct kthread {
    void* data;
    char* full_name;
};

struct worker {
    void* current_work;
    void* pool;
    char desc[32];
};

struct sighand_struct;

struct task_struct {
    struct thread_info thread_info;
    unsigned int __state;
    unsigned int flags;
    int static_prio;
    struct sched_entity se;
    struct sched_info sched_info;
    struct mm_struct* mm;
    int exit_state;
    int exit_code;
    int pid;
    int tgid;
    struct task_struct* real_parent;
    struct task_struct* group_leader;
    void* worker_private;
    __u64 utime, stime;
    unsigned long nvcsw, nivcsw;
    __u64 start_time, start_boottime;
    unsigned long min_flt, maj_flt;
    const struct cred* real_cred;
    char comm[16];
    struct signal_struct* signal;
    struct sighand_struct* sighand;
    struct task_io_accounting ioac;
    struct css_set* cgroups;
};

// As they were: the loader drops what follows three underscores from a name.

struct mm_struct___before_6_2 {
    struct {
        struct {
            __s64 counter;
        } count[4];
    } rss_stat;
};

struct task_struct___before_5_16 {
    long state;  // Linux < 5.14
    unsigned int cpu;
};

struct signal_struct___before_5_9 {
    struct {
        struct {
            unsigned sequence;
        } seqcount;
    } stats_lock;
};

#pragma clang attribute pop

#endif
