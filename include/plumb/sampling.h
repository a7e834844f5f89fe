/* From logits to a token.  Local.
 *
 * Processors in transformers' order: repetition penalty, min_new_tokens (end tokens are forbidden until then), temperature, top-k,
 * top-p, min-p, typical-p. What a processor removes gets -infinity; at least one token always stays. Where equal logits stand at the
 * border of top-p the higher ids stay, as after a stable ascending sort; top-k, min-p and typical-p keep all of them. Without do_sample
 * only penalty and min_new_tokens act. The draw is the inverse of the cumulative distribution in the order of ids, by a counter-based
 * number, so that it is a pure function of its key and of the processed logits. */
#ifndef PLUMB_SAMPLING_H
#define PLUMB_SAMPLING_H
#include "plumb/base.h"

typedef struct plumb_sampling {
    bool do_sample;               /* false: the most likely token after penalty and min_new_tokens; ties go to the lower id */
    double temperature;           /* > 0 */
    int64_t top_k;                /* 0 = off */
    double top_p;                 /* 1 = off */
    double min_p;                 /* 0 = off */
    double typical_p;             /* 1 = off */
    double repetition_penalty;    /* 1 = off; over prompt and completion */
    int64_t min_new_tokens, max_new_tokens;
    const int32_t *ends; int n_ends; /* borrowed: ids that end a completion */
    int64_t tokens;               /* ids from here on are no tokens (a padded vocabulary) and are never drawn; 0 = all are */
} plumb_sampling;

/* with the position: one random number */
typedef struct plumb_sampling_key { uint64_t seed; uint32_t step, sample, branch; } plumb_sampling_key;

typedef struct plumb_sampler plumb_sampler; /* working memory of one thread */
plumb_status plumb_sampler_create(plumb_sampler **out, int64_t vocab) PLUMB_CHECKED;
void plumb_sampler_free(plumb_sampler *s);
/* Processes logits [V] in place. history: ids of prompt and completion so far; generated: how many of them are of the completion. Logits
 * that plumb_sampler_pick would refuse stay as they are. */
void plumb_sampler_process(plumb_sampler *s, const plumb_sampling *o, float *logits, const int32_t *history, int64_t count,
                           int64_t generated);
/* The same without rounding to float: every processor in double, for comparison with other programs. */
void plumb_sampler_process_f64(plumb_sampler *s, const plumb_sampling *o, double *logits, const int32_t *history, int64_t count,
                               int64_t generated);
/* Processes, then picks; `position` of the token to be drawn. NaN or +infinity anywhere, or no token that may be drawn, is
 * PLUMB_E_NUMERIC; -infinity marks a token that is out. */
plumb_status plumb_sampler_pick(plumb_sampler *s, const plumb_sampling *o, float *logits, const int32_t *history, int64_t count,
                                int64_t generated, const plumb_sampling_key *key, int64_t position, int32_t *token) PLUMB_CHECKED;
/* Ranges and combinations that make no sense, by the name of the option (PLUMB_E_CONFIG). */
plumb_status plumb_sampling_check(const plumb_sampling *o) PLUMB_CHECKED;
#endif
