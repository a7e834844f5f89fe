/* Rollout: completions of many prompts by the training engine, with the log-probability of every token as the trainer
 * will compute it.  Local.
 *
 * Continuous batching over a fixed budget of key/value pages; completions of one prompt share its pages; prompts are prefilled beside
 * decoding. What a completion gets depends on the weights, its prompt and its key alone: not on neighbours, the batch, threads or the
 * rank (docs/numerics.md). */
#ifndef PLUMB_ROLLOUT_H
#define PLUMB_ROLLOUT_H
#include "plumb/model.h"
#include "plumb/sampling.h"
#include "plumb/stops.h"
#include "plumb/trajectory.h"

typedef struct plumb_rollout_request {
    /* ids, borrowed; count >= 1. Consecutive requests with the same pointer are one group and share its pages */
    const int32_t *prompt; int64_t count;
    uint32_t sample, branch;              /* key of its random numbers, with the engine's seed and step */
} plumb_rollout_request;

typedef struct plumb_completion { /* zero-initialise; memory is kept from run to run */
    int32_t *ids;                 /* [count], an end token included */
    double *logp, *entropy;       /* [count]: of the whole distribution at the temperature, before top-k and its kin */
    double *values;               /* [count]: of the view's scalar head on the state in which each was drawn; where asked for */
    int64_t count;
    plumb_finish finish;
    size_t cap_ids, cap_logp, cap_entropy, cap_values;
} plumb_completion;
void plumb_completion_free(plumb_completion *c);

typedef struct plumb_rollout_stats { int64_t tokens, prefill_tokens, steps, finished; double seconds; bool stopped; } plumb_rollout_stats;

typedef struct plumb_rollout_options {
    plumb_view view;
    bool values;                  /* the view has a scalar head: note what it says at every token */
    plumb_sampling sampling;      /* its ends are borrowed */
    const plumb_stops *stops;     /* borrowed; NULL = none */
    uint64_t seed; uint32_t step;
    int64_t batch;                /* sequences decoded at a time, at most; 0 = 64 */
    size_t kv_bytes;              /* budget of keys and values; 0 = 1 GiB */
    int64_t prefill_tokens;       /* a pass takes in further prompts while it has fewer rows; 0 = 256 */
    int threads;                  /* for choosing tokens */
    /* every token as it comes; false ends that completion */
    bool (*sink)(void *user, int64_t request, int32_t token);
    /* after every pass; false stops: unfinished completions are cut off where they are */
    bool (*progress)(void *user, const plumb_rollout_stats *so_far, int64_t requests);
    void *user;
} plumb_rollout_options;

typedef struct plumb_rollout plumb_rollout;
plumb_status plumb_rollout_create(plumb_rollout **out, plumb_model *m, const plumb_rollout_options *o) PLUMB_CHECKED;
void plumb_rollout_free(plumb_rollout *r);
void plumb_rollout_set_step(plumb_rollout *r, uint32_t step);
/* out [n], in the order of the requests. PLUMB_E_CONFIG when a single completion does not fit the budget. After an
 * error the engine can be used again. */
plumb_status plumb_rollout_run(plumb_rollout *r, const plumb_rollout_request *requests, int64_t n, plumb_completion *out,
                               plumb_rollout_stats *stats) PLUMB_CHECKED;
#endif
