/* What the files of comm/ share: one process-wide state, the bounded wait, and the ways to end a job.
 *
 * Layers, lowest first: ending.c (end the job, guards for calls that block), wait.c (requests -> bounded wait),
 * collectives.c, reduce.c, agree.c, shared.c (the interface), watchdog.c (the thread beside), init.c (puts it
 * together), signals.c. Before plumb_comm_init, and with one rank, every collective is local and makes no MPI call. */
#ifndef PLUMB_COMM_INTERNAL_H
#define PLUMB_COMM_INTERNAL_H
#include <mpi.h>
#include <stdatomic.h>
#include "plumb/comm.h"

enum {
    COMM_PIECE = 8 << 20,      /* bytes: the largest message to one peer */
    COMM_IN_FLIGHT = 64 << 20, /* bytes: the largest receive buffer of a reduction, over all peers */
    COMM_SMALL = 256 << 10,    /* bytes: up to here one collective call of MPI, above it pieces between pairs */
    COMM_HOST = 64,
    COMM_OPERATION = 24,
    COMM_DOING = 40
};

typedef struct comm_axis { /* ranks that communicate with each other */
    const char *name;
    MPI_Comm comm;
    int rank, size;
    int64_t sequence; /* collectives begun on this axis */
} comm_axis;

typedef struct comm_process { /* who a rank is, so that the right process is named and, when it lingers, killed */
    char host[COMM_HOST];
    int64_t pid;
    uint64_t start;     /* clock ticks since boot, from /proc: tells a recycled pid */
    uint64_t pid_space; /* inode of the pid namespace */
    int32_t node;       /* world rank of the first rank of its node */
} comm_process;

typedef struct comm_call { /* the collective that this rank is in, or was in last; read by the watchdog */
    _Atomic(const char *) operation;
    _Atomic(const char *) axis;
    _Atomic int64_t sequence;
    atomic_bool waiting;
} comm_call;

typedef struct comm_state {
    bool ready, threads; /* threads: MPI_THREAD_MULTIPLE was granted */
    int cores;           /* this rank's part of the node's processors */
    bool crowded;        /* more ranks than processors on this node: give way at once while waiting */
    bool check;          /* compare the arguments of every collective over the ranks first */
    comm_axis axes[PLUMB_AXIS_COUNT], node;
    MPI_Comm beats;          /* watchdogs only */
    MPI_Comm closing;        /* the barrier of plumb_comm_finalize only */
    comm_process *processes; /* [world size] */
    char host[COMM_HOST];
    double timeout; /* seconds */
    comm_call call;
    _Atomic(const char *) doing;
    _Atomic int64_t step;
    atomic_bool ending;    /* the job is being ended: make no more MPI calls */
    MPI_Request *requests; /* [2 * world size] */
    void *scratch;
    size_t scratch_bytes;
} comm_state;
extern comm_state comm;

/* --- ending.c --------------------------------------------------------------------------------- */
/* Prints one line, "plumb: rank R (host H, pid P): message", and ends the job. */
_Noreturn void comm_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the job without a word: tells the peers, MPI_Abort, and _exit after 3 s at the latest. */
_Noreturn void comm_end_job(int code);
/* Waits for the thread that ends the process; for a thread that saw comm.ending. */
_Noreturn void comm_park(void);
/* A limit for a call that blocks (MPI_Init, MPI_Finalize): the process ends when guard_stop does not come in time. */
void comm_guard_start(double seconds, const char *what);
void comm_guard_stop(void);

/* --- wait.c ----------------------------------------------------------------------------------- */
typedef enum comm_pace {
    COMM_PACE_IDLE,
    COMM_PACE_BULK
} comm_pace; /* bulk: data is flowing, so poll and do not sleep */
void comm_begin(comm_axis *axis, const char *operation,
                uint64_t arguments); /* arguments: a fingerprint, equal on all ranks */
void comm_end(void);
void comm_wait(MPI_Request *requests, int count, comm_pace pace);
void comm_check_mpi(int code, const char *call); /* ends the job when code is an error */
void *comm_scratch(size_t bytes);                /* one buffer, kept; ends the job when memory is out */
uint64_t comm_mix(uint64_t seed, uint64_t value);

/* --- collectives.c: without comm_begin, for use inside other collectives ---------------------- */
typedef struct comm_part {
    const void *data;
    size_t bytes;
} comm_part;
typedef struct comm_room {
    void *data;
    size_t bytes;
} comm_room;
void comm_raw_barrier(const comm_axis *axis);
void comm_raw_bcast(const comm_axis *axis, void *data, size_t bytes, int root);
void comm_raw_gather(const comm_axis *axis, const void *mine, size_t bytes, void *all); /* size * bytes <= INT_MAX */
/* One message to and one from every peer, each at most COMM_PIECE bytes; own entry and empty ones are skipped. */
void comm_raw_exchange(const comm_axis *axis, const comm_part *parts, const comm_room *rooms);

/* --- watchdog.c ------------------------------------------------------------------------------- */
plumb_status comm_watchdog_start(void) PLUMB_CHECKED;
void comm_watchdog_stop(void);
void comm_watchdog_tell_peers(int culprit, int code); /* culprit -1: this rank ends the job itself */
/* Ranks that were last heard to be elsewhere than in the collective this rank waits in, as text. */
void comm_watchdog_absent(char *text, size_t size);

/* --- signals.c, mesh.c ------------------------------------------------------------------------ */
void comm_signals_install(void);
void comm_mesh_create(void);
void comm_mesh_free(void);
void comm_identify(comm_process *p);         /* fills all but node */
bool comm_process_is(const comm_process *p); /* the process still exists here under this pid, and is the same one */
#endif
