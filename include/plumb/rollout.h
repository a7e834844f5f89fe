/* Generation: the training engine, one token at a time, over pages of keys and values.  Local. */
#ifndef PLUMB_ROLLOUT_H
#define PLUMB_ROLLOUT_H
#include "plumb/model.h"
#include "plumb/text.h"

typedef struct plumb_sampling {
    bool do_sample;              /* false: the most likely token; ties go to the lower id */
    double temperature, top_p;   /* filters in transformers' order: temperature, top-k, top-p */
    int64_t top_k, max_new_tokens;
    uint64_t seed; uint32_t sample, branch; /* random numbers are keyed by (seed, sample, branch, position) */
} plumb_sampling;

/* Called for each new token; false stops. */
typedef bool (*plumb_token_sink)(void *user, int32_t token);
/* Appends new tokens to *out (an end token included) until an id of `ends`, max_new_tokens, the model's last position, or the sink says stop. */
plumb_status plumb_generate(plumb_model *m, const int32_t *prompt, int64_t count, const plumb_sampling *s, const int32_t *ends, int n_ends, plumb_ids *out,
                            plumb_token_sink sink, void *user) PLUMB_CHECKED;
/* Draws from logits [V], which it changes: temperature, top-k, top-p, then the inverse of the cumulative distribution in the order of ids. */
int32_t plumb_sample_token(float *logits, int64_t V, const plumb_sampling *s, int64_t position);
#endif
