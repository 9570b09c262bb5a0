// Every process in one system call: walks the task list and writes one record for each process, its threads summed,
// into an array that user space has mapped. No text, no descriptors, no copies.
// Needs: Linux >= 6.7 (open-coded task iterators), BTF. Before: processes_listed.bpf.c.
// Counters of a process are those of its threads that live plus those that the kernel keeps of the ended ones. A thread
// that ends between the two readings would count twice or not at all: the kernel's own sequence count of the
// second tells, and the process is summed again.
#include "process_fill.h"

char LICENSE[] SEC("license") = "GPL";  // the kernel lends the functions below to programs under the GPL only

enum { kAllProcesses = 0, kThreadsOfProcess = 2 };
enum { kTries = 3 };

struct bpf_iter_task {
    __u64 opaque[3];
} __attribute__((aligned(8)));

extern int bpf_iter_task_new(struct bpf_iter_task* it, struct task_struct* task, unsigned int flags) __ksym;
extern struct task_struct* bpf_iter_task_next(struct bpf_iter_task* it) __ksym;
extern void bpf_iter_task_destroy(struct bpf_iter_task* it) __ksym;
extern struct task_struct* bpf_task_acquire(struct task_struct* task) __ksym;
extern void bpf_task_release(struct task_struct* task) __ksym;
extern void* bpf_rdonly_cast(const void* object, __u32 type_id) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2048);
    __type(key, __u32);
    __type(value, struct argus_process_record);
} process_records SEC(".maps");

// Of the last run: processes, also those beyond the last record, and threads.
struct {
    __u32 processes, threads;
} counted;

// Adds every thread but the first; how many.
static __noinline __u32 add_threads(struct argus_process_record* r, struct task_struct* leader) {
    struct bpf_iter_task it;
    struct task_struct* t;
    __u32 threads = 0;
    struct task_struct* held = bpf_task_acquire(leader);  // an iterator takes only what cannot go
    if (!held) return 0;
    bpf_iter_task_new(&it, held, kThreadsOfProcess);
    while ((t = bpf_iter_task_next(&it))) {
        if (t->pid == t->tgid) continue;
        add_thread(&r->used, t);
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
        start_with(&r->used, leader);
        if (r->nr_threads > 1) threads = 1 + add_threads(r, leader);
        add_ended(&r->used, ended);
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
        struct argus_process_record* r = bpf_map_lookup_elem(&process_records, &key);
        if (!r) continue;
        struct task_struct* u = bpf_rdonly_cast(t, bpf_core_type_id_kernel(struct task_struct));
        struct signal_struct* signal = u->signal;
        describe(r, t, u, signal);
        threads += sum(r, t, signal);
    }
    bpf_iter_task_destroy(&it);
    bpf_rcu_read_unlock();
    counted.processes = processes;
    counted.threads = threads;
    return 0;
}
