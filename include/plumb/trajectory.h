/* Trajectories: what was sampled and everything that was computed about it, in memory and in HDF5.
 *
 * In memory a batch is a struct of arrays: sequences with offsets into flat arrays of prompt tokens and completion tokens. It is what a
 * recipe of reinforcement learning works on, and what is logged, so that replay computes from the log exactly what the run computed.
 *
 * On disk: one file per iteration and writer, written beside its final name, closed, flushed, renamed, directory flushed: complete or
 * absent (docs/formats.md). A manifest (protobuf) per folder holds counts and checksums; the master file with virtual datasets over all
 * files can be rebuilt and is never the only copy. Readers go by the manifest, which is the last to be written: what it lists is there,
 * whole, at every moment, a kill included.
 *
 * The order of an iteration: every writer calls write; when all have returned, rank 0 calls commit; when that has returned, writers may
 * write again. A run that resumes after iteration N calls rewind(N) first, on rank 0, before anybody writes. Rank 0 calls compact now
 * and then (at checkpoints). Nothing here is collective. */
#ifndef PLUMB_TRAJECTORY_H
#define PLUMB_TRAJECTORY_H
#include "plumb/base.h"

/* an end token, a stop string, out of tokens */
typedef enum plumb_finish { PLUMB_FINISH_EOS, PLUMB_FINISH_STOP, PLUMB_FINISH_LENGTH } plumb_finish;
enum { PLUMB_FINISHES = 3 };
extern const char *const plumb_finish_names[PLUMB_FINISHES]; /* "eos", "stop", "length" */

enum { PLUMB_SCORE_PARTS = 16, PLUMB_PART_NAME = 64 };
typedef struct plumb_trajectories { /* zero-initialise; owns its arrays; plumb_trajectories_free */
    int64_t iteration, policy_version;   /* policy_version: optimizer steps behind the policy that sampled */
    int64_t n_sequences, n_prompt_tokens, n_tokens;
    int n_parts; char part_names[PLUMB_SCORE_PARTS][PLUMB_PART_NAME]; /* of the score: "model", "exact_match", … */
    /* per sequence [n_sequences] */
    int64_t *record;                     /* record of the prompt in its file, from 0 */
    /* sequences of one prompt in one iteration share it; 0, 1, … in order, over all writers: it is stored as it is */
    int64_t *group;
    int32_t *branch;                     /* 0, 1, … within the group */
    int64_t *prompt_offset, *token_offset; /* [n_sequences + 1] into the flat arrays; each sequence has its own copy of the prompt */
    char **prompt_text, **text;          /* UTF-8, owned; NULL is written as "" */
    double *score;                       /* weighted sum of the parts, after penalties */
    double *parts;                       /* [n_sequences][n_parts] */
    uint8_t *finish;                     /* plumb_finish */
    uint64_t *seed;
    /* flat */
    int32_t *prompt_ids;                 /* [n_prompt_tokens] */
    int32_t *ids;                        /* [n_tokens] completion, an end token included */
    uint8_t *mask;                       /* 1: in the loss */
    /* fp32 on disk: behaviour (as sampled), as the trainer's first pass finds it (before the first update, where there is one
     * mini-batch), reference (NaN without one) */
    double *logp, *policy_logp, *ref_logp, *entropy, *values;
    double *rewards, *advantages, *returns;                   /* fp64 on disk */
} plumb_trajectories;

void plumb_trajectories_free(plumb_trajectories *t);
/* Arrays for these counts, zeroed; strings NULL; parts has room for PLUMB_SCORE_PARTS of each sequence, so that n_parts may be set
 * before or after. *t must have no arrays. */
plumb_status plumb_trajectories_alloc(plumb_trajectories *t, int64_t n_sequences, int64_t n_prompt_tokens, int64_t n_tokens) PLUMB_CHECKED;
/* Sequences [first, first+count) of `from` as a batch of their own (deep copy). */
plumb_status plumb_trajectories_slice(plumb_trajectories *to, const plumb_trajectories *from, int64_t first, int64_t count) PLUMB_CHECKED;
/* Offsets that start at 0, never fall and end at the counts; known finishes; names of parts that are there
 * and differ. PLUMB_E_DATA says what is wrong. */
plumb_status plumb_trajectories_check(const plumb_trajectories *t) PLUMB_CHECKED;

/* DIR/iteration-000012.w000.h5, of writer 0 … n_writers-1; DIR is made when it is missing. Local; atomic. A batch without sequences is
 * written too: commit wants a file of every writer. An existing file of that name is replaced, which is for what a killed run left
 * uncommitted: before a committed iteration is logged again, rewind. */
plumb_status plumb_trajectories_write(const char *dir, int writer, int n_writers, const plumb_trajectories *t) PLUMB_CHECKED;
/* Everything of one committed iteration in a folder, all writers in order, from its own files or a compacted one. Checksums are compared
 * before a file is parsed. */
plumb_status plumb_trajectories_read(const char *dir, int64_t iteration, plumb_trajectories *out) PLUMB_CHECKED;

/* For many iterations: keeps the manifest and the file used last, so that neighbours in a compacted file cost one reading. May run
 * beside a run that writes, commits and compacts: when a file is gone, the manifest is read again. */
typedef struct plumb_trajectory_reader plumb_trajectory_reader;
plumb_status plumb_trajectory_reader_open(plumb_trajectory_reader **r, const char *dir) PLUMB_CHECKED;
plumb_status plumb_trajectory_reader_read(plumb_trajectory_reader *r, int64_t iteration, plumb_trajectories *out) PLUMB_CHECKED;
void plumb_trajectory_reader_close(plumb_trajectory_reader *r); /* NULL is fine */

/* The manifest DIR/manifest.pb: one entry per file with its iterations, counts and checksum; rewritten atomically. Local (rank 0), after
 * every writer of the iteration has written: lists the files of writers 0 … n_writers-1 of this iteration, all of which must be there,
 * and forgets files and entries of this and later iterations that were there before (a run that was resumed earlier). Files that no
 * entry lists, left by a kill, are removed. */
plumb_status plumb_trajectories_commit(const char *dir, int64_t iteration, int n_writers) PLUMB_CHECKED;
/* Entries of later iterations than `last` are removed and then their files, with whatever was not committed: what a run does that
 * resumes after `last` (-1: that starts anew). A compacted file that goes on beyond `last` is rewritten without the rest. A folder that
 * is not there is fine. With files and `last` above 0, but without a manifest, nothing is removed: PLUMB_E_DATA. */
plumb_status plumb_trajectories_rewind(const char *dir, int64_t last) PLUMB_CHECKED;
/* Merges the committed files of single iterations into one file per call (DIR/iterations-000001-000050.h5; several where one would need
 * too much memory or where the parts of the score change), updates the manifest, then removes the parts: at no moment is an iteration
 * missing or listed twice. Rebuilds the master file. */
plumb_status plumb_trajectories_compact(const char *dir) PLUMB_CHECKED;
/* Committed iterations in ascending order; *list is malloc'ed. None when the folder has no manifest. */
plumb_status plumb_trajectories_list(const char *dir, int64_t **list, int64_t *count) PLUMB_CHECKED;
/* Reads every file and compares counts and checksums with the manifest; the first difference is the error, by file name. *iterations,
 * *sequences, *tokens: totals (may be NULL). */
plumb_status plumb_trajectories_verify(const char *dir, int64_t *iterations, int64_t *sequences, int64_t *tokens) PLUMB_CHECKED;
/* Makes a lost or damaged manifest again from the files, and the master file: every file is read whole. Damaged files (where the old
 * manifest can be read: also those with other bytes than it lists) and iterations that lack a writer's file are left out: `note` is told
 * of each, and it is renamed NAME.left-out; and of each that the old manifest lists and that is gone. No iteration counts twice. Not
 * beside a run: where the manifest changes meanwhile, and without a complete iteration, nothing is changed: PLUMB_E_DATA. */
typedef void (*plumb_trajectories_note)(const char *message);
typedef struct plumb_trajectories_rebuilt { int64_t iterations, sequences, tokens, left_out; /* files */ } plumb_trajectories_rebuilt;
plumb_status plumb_trajectories_rebuild(const char *dir, plumb_trajectories_note note, plumb_trajectories_rebuilt *out) PLUMB_CHECKED;
#endif
