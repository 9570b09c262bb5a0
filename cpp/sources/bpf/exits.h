// What exits.bpf.c writes and exits.cpp reads, byte for byte: the counters (shared memory) and a record of an exit.
// Plain C types, so that both compilers agree on it.
#ifndef ARGUS_SOURCES_BPF_EXITS_H
#define ARGUS_SOURCES_BPF_EXITS_H

enum {
    kExitLines = 128,      // of counters, one for each processor modulo this; a power of two
    kExitDeaths = 16384,   // remembered between the exit of a process and its release, by pid; a power of two
    kExitSuccess = 0,
    kExitFailure = 1,
    kExitSignal = 2,
    kExitReasons = 3,
};

#define ARGUS_SHORT_LIVED_NS 1000000000ULL

// Counters of the processors that share a line; every one only grows. Two cache lines, so that no other's are touched.
struct ExitLine {
    unsigned long long exits[kExitReasons];  // processes
    unsigned long long short_lived;          // of those, that lived less than ARGUS_SHORT_LIVED_NS
    unsigned long long cpu_ns;               // exact, of all threads that are gone
    unsigned long long user_ticks_ns;        // sampled by the kernel's tick: only their ratio means something
    unsigned long long system_ticks_ns;
    unsigned long long read_bytes;           // fetched from and sent to storage
    unsigned long long write_bytes;
    unsigned long long lost_records;         // the ring was full
    unsigned long long unused[6];
};

struct ExitShared {
    unsigned long long records_wanted;  // written by the reader: without one no record is made
    unsigned long long unused[15];
    struct ExitLine lines[kExitLines];
};

// One process, when the kernel let go of it: all its threads are gone and have been added up.
struct ExitRaw {
    unsigned long long start_ns;  // since boot
    unsigned long long end_ns;    // since boot; 0 = not remembered
    unsigned long long cpu_ns;
    unsigned long long user_ticks_ns;
    unsigned long long system_ticks_ns;
    unsigned long long read_bytes;
    unsigned long long write_bytes;
    unsigned long long rss_pages_max;
    unsigned long long cgroup_id;
    int pid;
    int parent;           // 0 = not known
    unsigned int status;  // as wait() gives it
    unsigned int unused;
    char name[16];
};

#endif
