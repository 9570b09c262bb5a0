// One process as the programs of the process table write it and the tier `bpf` reads it: the layout both sides share.
#ifndef ARGUS_BPF_PROCESS_RECORD_H
#define ARGUS_BPF_PROCESS_RECORD_H

#define ARGUS_PROCESS_NAME_BYTES 64
#define ARGUS_PROCESS_LONG_NAME 1u  // flags: full_name holds the name, else comm does
#define ARGUS_PROCESS_TORN 2u       // flags: threads ended while they were summed, each time it was tried
#define ARGUS_PROCESS_MEMORY 4u     // flags: has an address space
#define ARGUS_PROCESS_WORKS 8u      // flags: a kernel worker, at `work` now
#define ARGUS_PROCESS_WORKED 16u    // flags: a kernel worker, at `work` last, if that is not empty
#define ARGUS_PROCESS_NAMED 32u     // flags: a kernel thread whose name has been looked for

// What a thread has used; all of one type, so that user space adds them up in a loop.
struct argus_usage {
    unsigned long long utime_ns, stime_ns, runtime_ns, run_delay_ns;
    unsigned long long minor_faults, major_faults;
    unsigned long long read_chars, write_chars, read_bytes, write_bytes;
    unsigned long long voluntary_switches, involuntary_switches;
};

struct argus_process_record {
    unsigned long long start_boottime_ns;
    struct argus_usage used;  // by all threads, also those that ended; run_delay_ns by those that live
    unsigned long long adjusted_utime_ns, adjusted_stime_ns;  // what the kernel last told a reader of /proc
    unsigned long long cgroup_id;
    long long file_pages, anon_pages, swap_pages, shmem_pages;
    unsigned long long virtual_pages;
    int pid, ppid, nr_threads, static_prio, last_cpu;
    unsigned int uid, state, flags;
    char comm[16];
    char work[32];
    unsigned char unused[8];
    char full_name[ARGUS_PROCESS_NAME_BYTES];  // a cache line of its own: few processes need it
};

// One thread beside the first of its process, where user space adds them up.
struct argus_thread_record {
    struct argus_usage used;
    int tgid, unused;
};

#endif
