/* One sequence: prefill the prompt, then a token at a time.  Both are the same forward pass over the same pages, so that a decoded position has the bits that the
 * full forward gives it. */
#include "plumb/rollout.h"
#include <stdlib.h>

typedef struct decoder {
    plumb_model *m;
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

static bool ends_with(int32_t token, const int32_t *ends, int n) {
    for (int i = 0; i < n; i++)
        if (ends[i] == token) return true;
    return false;
}

plumb_status plumb_generate(plumb_model *m, const int32_t *prompt, int64_t count, const plumb_sampling *s, const int32_t *ends, int n_ends, plumb_ids *out,
                            plumb_token_sink sink, void *user) {
    const plumb_arch *a = plumb_model_arch(m);
    if (count < 1) return plumb_error(PLUMB_E_DATA, "the prompt has no tokens");
    if (count >= a->max_positions)
        return plumb_error(PLUMB_E_DATA, "the prompt has %lld tokens; the model has %lld positions", (long long)count, (long long)a->max_positions);
    int64_t limit = plumb_min64(count + s->max_new_tokens, a->max_positions), n_slots = (limit + PLUMB_PAGE - 1) / PLUMB_PAGE;
    decoder d = {.m = m};
    plumb_status status = plumb_model_kv_create(m, n_slots, &d.kv);
    if (status == PLUMB_OK) status = plumb_alloc(&d.slots, (size_t)n_slots, sizeof *d.slots, "pages");
    if (status == PLUMB_OK) status = plumb_alloc(&d.logits, (size_t)a->vocab, sizeof *d.logits, "logits");
    for (int64_t i = 0; status == PLUMB_OK && i < n_slots; i++) d.slots[i] = (int32_t)i;
    if (status == PLUMB_OK) status = feed(&d, prompt, count);
    while (status == PLUMB_OK) {
        int32_t token = plumb_sample_token(d.logits, a->vocab, s, d.length);
        status = plumb_ids_push(out, token);
        if (status != PLUMB_OK || (sink && !sink(user, token)) || ends_with(token, ends, n_ends) || d.length + 1 >= limit) break;
        status = feed(&d, &token, 1);
    }
    plumb_forest_free(&d.forest);
    if (d.kv) plumb_model_kv_free(m, d.kv);
    free(d.slots);
    free(d.logits);
    return status;
}
