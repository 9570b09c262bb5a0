// What exits.bpf.c writes and exits.cpp reads, byte for byte: the counters and the records of exits, both in memory
// that is mapped. Plain C types, so that both compilers agree on it.
#ifndef ARGUS_SOURCES_BPF_EXITS_H
#define ARGUS_SOURCES_BPF_EXITS_H

enum {
    kExitLines = 128,       // of counters, one for each processor modulo this; a power of two
    kExitRecords = 16384,   // the newest; a power of two
    kExitSuccess = 0,
    kExitFailure = 1,
    kExitSignal = 2,
    kExitReasons = 3,
};

#define ARGUS_SHORT_LIVED_NS 1000000000ULL

// Counters of the processors that share a line; each only grows. Two cache lines, so that no other's are touched; what
// every exit adds to is in the first.
struct ExitLine {
    unsigned long long exits[kExitReasons][2];  // processes; [1]: that lived less than ARGUS_SHORT_LIVED_NS
    unsigned long long cpu_ns;                  // of processes that exited; exact once released
    unsigned long long released;                // processes that exited and were let go of
    unsigned long long user_ticks_ns;           // sampled by the kernel's tick
    unsigned long long read_bytes;              // fetched from and sent to storage
    unsigned long long write_bytes;
    unsigned long long unused[5];
};

struct ExitShared {
    unsigned long long records_wanted;  // written by the reader: without one no record is made
    unsigned long long records_made;    // the number of the next record: taken before its slot is written
    unsigned long long stores_in_order;  // written by the reader, which knows its processor: 1 = stores are seen in order
    unsigned long long unused[13];
    struct ExitLine lines[kExitLines];
};

// A process that exited, in the slot of its number modulo kExitRecords. Two cache lines.
struct ExitRaw {
    unsigned long long number;   // + 1, written last
    unsigned long long settled;  // 1 = the kernel has let go of the process, and cpu_ns is all it used
    unsigned long long cpu_ns;
    int pid;
    int parent;
    unsigned long long start_ns;  // since boot
    unsigned long long lived_ns;
    unsigned long long rss_pages_max;
    unsigned long long cgroup_id;
    unsigned long long user_ticks_ns;
    unsigned long long system_ticks_ns;
    unsigned long long read_bytes;
    unsigned long long write_bytes;
    char name[16];
    unsigned int status;  // as wait() gives it
    unsigned int unused[3];
};

#endif
