/* Processes. The only interface to MPI: everything above sees ranks, an axis and bounded waits.
 *
 * The mesh has the axes data, tensor, pipeline, context; all but data have size 1 in this version, and every collective names its axis.
 * Collectives are non-blocking underneath with a bounded wait: after `timeout` seconds without progress the job ends, naming the rank,
 * the operation and its sequence number. A watchdog thread per rank exchanges heartbeats, so that a killed or stopped (SIGSTOP) rank
 * ends the job within 30 s with a message that names it, while long local work is not taken for a hang. All functions here are
 * **Collective** over the axis unless they say Local; on failure they end the job (a broken network cannot be agreed upon). */
#ifndef PLUMB_COMM_H
#define PLUMB_COMM_H
#include "plumb/base.h"

typedef enum plumb_axis {
    PLUMB_AXIS_DATA,
    PLUMB_AXIS_TENSOR,
    PLUMB_AXIS_PIPELINE,
    PLUMB_AXIS_CONTEXT,
    PLUMB_AXIS_WORLD,
    PLUMB_AXIS_COUNT
} plumb_axis;

/* Called once per process, before threads; installs the signal handlers below first. Works without mpirun as one rank. */
plumb_status plumb_comm_init(int *argc, char ***argv) PLUMB_CHECKED;
void plumb_comm_finalize(void);            /* Collective; stops the watchdog first */
void plumb_comm_abort(int code);           /* Local: ends the whole job now */
int plumb_comm_rank(plumb_axis axis);      /* Local; before init and after finalize: rank 0 of 1, and collectives do nothing */
int plumb_comm_size(plumb_axis axis);      /* Local */
int plumb_comm_node_rank(void);            /* Local: rank among the ranks of this node, and their number */
int plumb_comm_node_size(void);
/* Local: processors for this rank, at least 1: those that it is bound to; what ranks of a node may use together is shared evenly. */
int plumb_comm_cores(void);
const char *plumb_comm_host(void);         /* Local */
/* Local; for waiting in a collective while heartbeats go on. */
enum { PLUMB_COMM_TIMEOUT = 1800 }; /* seconds, unless set */
void plumb_comm_set_timeout(double seconds); /* 0: as at first */

void plumb_comm_barrier(plumb_axis axis);
void plumb_comm_bcast(plumb_axis axis, void *data, size_t bytes, int root);
void plumb_comm_sum_f64(plumb_axis axis, double *values, int64_t count);  /* rank order, the same bits everywhere */
void plumb_comm_sum_i64(plumb_axis axis, int64_t *values, int64_t count);
void plumb_comm_max_f64(plumb_axis axis, double *values, int64_t count);  /* a NaN wins */
void plumb_comm_max_i64(plumb_axis axis, int64_t *values, int64_t count);
/* Every rank's `bytes` in rank order into all[size*bytes]. */
void plumb_comm_allgather(plumb_axis axis, const void *mine, size_t bytes, void *all);
/* As above with different sizes: counts[size] bytes, offsets[size] bytes into all. mine may lie inside all. */
void plumb_comm_allgatherv(plumb_axis axis, const void *mine, void *all, const size_t *counts, const size_t *offsets);
/* values[total] on every rank; rank r receives the sum of elements [offsets[r], offsets[r]+counts[r]) into mine.
 * Summed in rank order, in fp32 (exactly in i64). Written as alltoall + local sum; messages are cut below INT_MAX elements.
 * Memory: a receive buffer of size*counts[r] in blocks of at most 8 MiB. */
void plumb_comm_reduce_scatter_f32(plumb_axis axis, const float *values, const int64_t *counts, const int64_t *offsets, float *mine);
void plumb_comm_reduce_scatter_i64(plumb_axis axis, const int64_t *values, const int64_t *counts, const int64_t *offsets, int64_t *mine);

/* Agreement point: every rank brings its local status; all return the same: PLUMB_OK, or the status of the lowest rank that failed, with
 * that rank's message ("rank 2 (host): …") as the recorded error everywhere. */
plumb_status plumb_comm_agree(plumb_axis axis, plumb_status local) PLUMB_CHECKED;

/* Memory that the ranks of a node share. `bytes` the same on every rank of the node. Falls back to private memory where /dev/shm is too
 * small (*shared false). 64-byte aligned, zero at first. *shared is true on a node with one rank. Private memory that does not fit
 * either is a local PLUMB_E_MEMORY. */
typedef struct plumb_shared plumb_shared;
plumb_status plumb_shared_create(plumb_shared **out, size_t bytes, void **memory, bool *shared) PLUMB_CHECKED;
void plumb_shared_barrier(plumb_shared *s); /* Collective over the node: what was written before is seen after */
void plumb_shared_free(plumb_shared *s);

/* What a signal asked for; Local, set by handlers that do nothing else. TERM/INT: drop the unfinished step, save the last finished one,
 * leave with 75. USR1/USR2: save at the next agreement point and leave with 75. */
typedef enum plumb_signal { PLUMB_SIGNAL_NONE, PLUMB_SIGNAL_SAVE, PLUMB_SIGNAL_TERM } plumb_signal;
plumb_signal plumb_comm_signal(void);
enum { PLUMB_EXIT_RESUME = 75 };
/* What this rank is doing, for the watchdog's message ("step 12, backward"); Local. The string must stay valid. */
void plumb_comm_doing(const char *what, int64_t step);
#endif
