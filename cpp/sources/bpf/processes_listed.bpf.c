// The process table where the kernel has no open-coded task iterators: a task iterator calls this once for each thread
// of the machine. It writes a record for each process and a short one for each further thread; user space adds those up.
// Needs: Linux >= 5.8, BTF.
// A thread that ends between the visit of its process and its own is missing: then fewer threads are found than the
// process said to have, and user space takes its sums for torn.
#include "process_fill.h"

#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

enum { kTries = 3 };

struct bpf_iter__task {
    void* meta;
    struct task_struct* task;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2048);
    __type(key, __u32);
    __type(value, struct argus_process_record);
} process_records SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 2048);
    __type(key, __u32);
    __type(value, struct argus_thread_record);
} further_threads SEC(".maps");

// Of this run, zeroed by user space before it: processes and further threads, also those beyond the last record.
struct {
    __u32 processes, threads;
} counted;

static __always_inline void take_thread(struct task_struct* t) {
    __u32 key = counted.threads++;
    struct argus_thread_record* r = bpf_map_lookup_elem(&further_threads, &key);
    if (!r) return;
    r->tgid = t->tgid;
    start_with(&r->used, t);
}

SEC("iter/task")
int list_task(struct bpf_iter__task* context) {
    struct task_struct* t = context->task;
    if (!t || !t->tgid) return 0;
    if (t->pid != t->tgid) {
        take_thread(t);
        return 0;
    }
    __u32 key = counted.processes++;
    struct argus_process_record* r = bpf_map_lookup_elem(&process_records, &key);
    if (!r) return 0;
    struct signal_struct* signal = t->signal;
    describe(r, t, t, signal);
    for (int i = 0; i < kTries; ++i) {
        const __u32 sequence = ended_sequence(signal);
        barrier();
        start_with(&r->used, t);
        add_ended(&r->used, signal);
        barrier();
        if (!(sequence & 1) && ended_sequence(signal) == sequence) return 0;
    }
    r->flags |= ARGUS_PROCESS_TORN;
    return 0;
}
