/* Checkpoints: a folder step-NNNNNN with one file of shards per rank and a protobuf manifest, complete or absent.
 *
 * Written as .step-NNNNNN.partial/, each file flushed to disk, checksummed, the manifest last, then the folder renamed. Arrays are
 * named, flat and divided over ranks; a checkpoint loads on any number of ranks, since a reader takes the ranges it needs from whatever
 * shards hold them. Collective over the data axis. Files: docs/formats.md. */
#ifndef PLUMB_CHECKPOINT_H
#define PLUMB_CHECKPOINT_H
#include "plumb/comm.h"

typedef struct plumb_ckpt_array {
    const char *name;
    int64_t total;        /* elements over all ranks */
    int64_t first, count; /* this rank's range; ranges of ranks do not overlap and cover the array (saving) */
    size_t element_size;
    void *data;           /* this rank's elements; borrowed */
} plumb_ckpt_array;
typedef struct plumb_ckpt_counter { const char *name; int64_t value; } plumb_ckpt_counter;

/* Saves runs/<name>/checkpoints/step-NNNNNN under `dir` (the checkpoints folder). A failure on any rank (disk full, …) is agreed,
 * reported on all and leaves nothing but the older checkpoints. keep > 0: older ones beyond the newest `keep` are removed after success. */
plumb_status plumb_checkpoint_save(const char *dir, int64_t step, const char *identity, const plumb_ckpt_array *arrays, int n_arrays,
                                   const plumb_ckpt_counter *counters, int n_counters, int keep) PLUMB_CHECKED;
/* Collective. Newest complete checkpoint under dir: its path in *path (owned by the caller), NULL when there is none. A folder that is
 * damaged (checksum, missing shard) is reported to stderr by rank 0 and passed over. */
plumb_status plumb_checkpoint_latest(const char *dir, char **path, int64_t *step) PLUMB_CHECKED;
/* Fills arrays (names, total, first, count, element_size must match) and counters (by name). identity must be equal
 * or the error says what differs. */
plumb_status plumb_checkpoint_load(const char *path, const char *identity, plumb_ckpt_array *arrays, int n_arrays,
                                   plumb_ckpt_counter *counters, int n_counters) PLUMB_CHECKED;
/* Removes the checkpoints in dir, and dir where nothing else is in it; absent is fine. Local. */
plumb_status plumb_checkpoint_discard(const char *dir) PLUMB_CHECKED;
#endif
