/* Generation: the training engine, one token at a time, over pages of keys and values.  Local. */
#ifndef PLUMB_ROLLOUT_H
#define PLUMB_ROLLOUT_H
#include "plumb/model.h"
#include "plumb/sampling.h"
#include "plumb/text.h"

/* Called for each new token; false stops. */
typedef bool (*plumb_token_sink)(void *user, int32_t token);
/* Appends new tokens to *out (an end token included) until one of s->ends, s->max_new_tokens, the model's last position, or the sink says stop. */
plumb_status plumb_generate(plumb_model *m, const int32_t *prompt, int64_t count, const plumb_sampling *s, const plumb_sampling_key *key, plumb_ids *out,
                            plumb_token_sink sink, void *user) PLUMB_CHECKED;
#endif
