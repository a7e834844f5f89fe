/* One sequence: prefill the prompt, then a token at a time.  Both are the same forward pass over the same pages, so that a decoded position has the bits that the
 * full forward gives it. */
#include "plumb/rollout.h"
#include <stdlib.h>

typedef struct decoder {
    plumb_model *m;
    plumb_sampler *sampler;
    plumb_ids history; /* prompt and completion */
    plumb_kv *kv;
    plumb_forest forest;
    int32_t *slots;
    float *logits;
    int64_t length; /* tokens in the pages */
} decoder;

static plumb_status feed(decoder *d, const int32_t *ids, int64_t count) {
    int32_t segment;
    const int32_t *slots = d->slots;
    plumb_forest_reset(&d->forest);
    PLUMB_TRY(plumb_forest_add(&d->forest, -1, ids, count, plumb_model_adapter_of(d->m, PLUMB_VIEW_POLICY), 0, &segment));
    PLUMB_TRY(plumb_forest_target(&d->forest, (int32_t)count - 1, 0, segment));
    PLUMB_TRY(plumb_forest_finish_cached(&d->forest, &d->length, &slots));
    PLUMB_TRY(plumb_model_logits(d->m, &d->forest, d->kv, d->logits));
    d->length += count;
    return PLUMB_OK;
}

static bool ends_with(int32_t token, const plumb_sampling *s) {
    for (int i = 0; i < s->n_ends; i++)
        if (s->ends[i] == token) return true;
    return false;
}

/* The next token, from the logits of the last one; goes to the history too. */
static plumb_status next(decoder *d, const plumb_sampling *s, const plumb_sampling_key *key, int64_t prompt, int32_t *token) {
    int64_t count = (int64_t)d->history.count;
    PLUMB_TRY(plumb_sampler_pick(d->sampler, s, d->logits, d->history.data, count, count - prompt, key, d->length, token));
    return plumb_ids_push(&d->history, *token);
}

plumb_status plumb_generate(plumb_model *m, const int32_t *prompt, int64_t count, const plumb_sampling *s, const plumb_sampling_key *key, plumb_ids *out,
                            plumb_token_sink sink, void *user) {
    const plumb_arch *a = plumb_model_arch(m);
    PLUMB_TRY(plumb_sampling_check(s));
    if (count < 1) return plumb_error(PLUMB_E_DATA, "the prompt has no tokens");
    if (count >= a->max_positions)
        return plumb_error(PLUMB_E_DATA, "the prompt has %lld tokens; the model has %lld positions", (long long)count, (long long)a->max_positions);
    int64_t limit = plumb_min64(count + s->max_new_tokens, a->max_positions), n_slots = (limit + PLUMB_PAGE - 1) / PLUMB_PAGE;
    decoder d = {.m = m};
    plumb_status status = plumb_model_kv_create(m, n_slots, &d.kv);
    if (status == PLUMB_OK) status = plumb_alloc(&d.slots, (size_t)n_slots, sizeof *d.slots, "pages");
    if (status == PLUMB_OK) status = plumb_alloc(&d.logits, (size_t)a->vocab, sizeof *d.logits, "logits");
    for (int64_t i = 0; status == PLUMB_OK && i < n_slots; i++) d.slots[i] = (int32_t)i;
    if (status == PLUMB_OK) status = plumb_sampler_create(&d.sampler, a->vocab);
    for (int64_t i = 0; status == PLUMB_OK && i < count; i++) status = plumb_ids_push(&d.history, prompt[i]);
    if (status == PLUMB_OK) status = feed(&d, prompt, count);
    while (status == PLUMB_OK) {
        int32_t token = -1;
        if ((status = next(&d, s, key, count, &token)) == PLUMB_OK) status = plumb_ids_push(out, token);
        if (status != PLUMB_OK || (sink && !sink(user, token)) || ends_with(token, s) || d.length + 1 >= limit) break;
        status = feed(&d, &token, 1);
    }
    plumb_forest_free(&d.forest);
    if (d.kv) plumb_model_kv_free(m, d.kv);
    free(d.slots);
    free(d.logits);
    plumb_ids_free(&d.history);
    plumb_sampler_free(d.sampler);
    return status;
}
