/* Trajectories: what was sampled and everything that was computed about it, in memory and in HDF5.
 *
 * In memory a batch is a struct of arrays: sequences with offsets into flat arrays of prompt tokens and completion tokens. It is what a recipe of
 * reinforcement learning works on, and what is logged, so that replay computes from the log exactly what the run computed.
 *
 * On disk: one file per iteration and writer, written beside its final name, closed, flushed, renamed, directory flushed: complete or absent
 * (docs/formats.md). A manifest (protobuf) per folder holds counts and checksums; the master file with virtual datasets over all files can be
 * rebuilt and is never the only copy. */
#ifndef PLUMB_TRAJECTORY_H
#define PLUMB_TRAJECTORY_H
#include "plumb/base.h"

typedef enum plumb_finish { PLUMB_FINISH_EOS, PLUMB_FINISH_STOP, PLUMB_FINISH_LENGTH } plumb_finish; /* an end token, a stop string, out of tokens */

enum { PLUMB_SCORE_PARTS = 16, PLUMB_PART_NAME = 64 };
typedef struct plumb_trajectories { /* zero-initialise; owns its arrays; plumb_trajectories_free */
    int64_t iteration, policy_version;   /* policy_version: optimizer steps behind the policy that sampled */
    int64_t n_sequences, n_prompt_tokens, n_tokens;
    int n_parts; char part_names[PLUMB_SCORE_PARTS][PLUMB_PART_NAME]; /* of the score: "model", "exact_match", … */
    /* per sequence [n_sequences] */
    int64_t *record;                     /* record of the prompt in its file, from 0 */
    int64_t *group;                      /* sequences of one prompt in one iteration share it; 0, 1, … in order */
    int32_t *branch;                     /* 0, 1, … within the group */
    int64_t *prompt_offset, *token_offset; /* [n_sequences + 1] into the flat arrays; each sequence has its own copy of the prompt */
    char **prompt_text, **text;          /* UTF-8, owned */
    double *score;                       /* weighted sum of the parts, after penalties */
    double *parts;                       /* [n_sequences][n_parts] */
    uint8_t *finish;                     /* plumb_finish */
    uint64_t *seed;
    /* flat */
    int32_t *prompt_ids;                 /* [n_prompt_tokens] */
    int32_t *ids;                        /* [n_tokens] completion, an end token included */
    uint8_t *mask;                       /* 1: in the loss */
    double *logp, *policy_logp, *ref_logp, *entropy, *values; /* behaviour (as sampled), as the trainer computes it before the first update, reference; fp32 on disk */
    double *rewards, *advantages, *returns;                   /* fp64 on disk */
} plumb_trajectories;

void plumb_trajectories_free(plumb_trajectories *t);
/* Arrays for these counts, zeroed; strings NULL. *t must be empty. */
plumb_status plumb_trajectories_alloc(plumb_trajectories *t, int64_t n_sequences, int64_t n_prompt_tokens, int64_t n_tokens) PLUMB_CHECKED;
/* Sequences [first, first+count) of `from` as a batch of their own (deep copy). */
plumb_status plumb_trajectories_slice(plumb_trajectories *to, const plumb_trajectories *from, int64_t first, int64_t count) PLUMB_CHECKED;

/* DIR/iteration-000012.w000.h5. Local; atomic. An existing file of that name is replaced (a resumed run logs an iteration again). */
plumb_status plumb_trajectories_write(const char *dir, int writer, const plumb_trajectories *t) PLUMB_CHECKED;
/* Everything of one iteration in a folder, all writers in order, from its own file or a compacted one. */
plumb_status plumb_trajectories_read(const char *dir, int64_t iteration, plumb_trajectories *out) PLUMB_CHECKED;

/* The manifest DIR/manifest.pb: one entry per iteration and file with counts and checksum; rewritten atomically. Local (rank 0), after every writer of the iteration has
 * written: lists the files of this iteration that lie in the folder, and forgets files and entries of iterations >= next (a run that was resumed earlier). */
plumb_status plumb_trajectories_commit(const char *dir, int64_t iteration, int n_writers) PLUMB_CHECKED;
/* Files of later iterations than `last` are removed with their entries: what a run does that resumes after `last`. */
plumb_status plumb_trajectories_rewind(const char *dir, int64_t last) PLUMB_CHECKED;
/* Merges the committed files of single iterations into one file per call (DIR/iterations-000001-000050.h5), updates the manifest, then removes the parts: at no moment is an
 * iteration missing or listed twice. Rebuilds the master file. */
plumb_status plumb_trajectories_compact(const char *dir) PLUMB_CHECKED;
/* Committed iterations in ascending order; *list is malloc'ed. */
plumb_status plumb_trajectories_list(const char *dir, int64_t **list, int64_t *count) PLUMB_CHECKED;
/* Reads every file and compares counts and checksums with the manifest; the first difference is the error, by file name. *sequences, *tokens: totals (may be NULL). */
plumb_status plumb_trajectories_verify(const char *dir, int64_t *iterations, int64_t *sequences, int64_t *tokens) PLUMB_CHECKED;
#endif
