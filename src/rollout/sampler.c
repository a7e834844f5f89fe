/* From logits to a token: the options, what acts before the filters, and the draw.
 *
 * Without filters everything stays in float: one pass for the maximum, one for the temperature, one for exp, whose sums are kept for
 * each block of 256 tokens; the draw then finds its block and looks at that block's tokens only. With a filter the logits are widened
 * once and the filters work in double. The floats that come out, not what was computed on the way, are what the draw reads. */
#include "sampler_internal.h"
#include <math.h>
#include <stdlib.h>

plumb_status plumb_sampler_create(plumb_sampler **out, int64_t vocab) {
    *out = NULL;
    if (vocab < 1 || vocab > INT32_MAX) return plumb_error(PLUMB_E_CONFIG, "sampling from %lld tokens is not possible", (long long)vocab);
    plumb_sampler *s;
    size_t V = (size_t)vocab;
    PLUMB_TRY(plumb_alloc(&s, 1, sizeof *s, "a sampler"));
    const plumb_sampler_kernels *sets[3];
    s->vocab = vocab;
    s->kernels = sets[plumb_sampler_kernel_sets(sets) - 1];
    plumb_status status = plumb_alloc(&s->seen, V, sizeof *s->seen, "a sampler");
    if (status == PLUMB_OK) status = plumb_alloc(&s->sums, V / PLUMB_SAMPLER_BLOCK + 1, sizeof *s->sums, "a sampler");
    if (status == PLUMB_OK) status = plumb_alloc(&s->z, V, sizeof *s->z, "a sampler");
    if (status == PLUMB_OK) status = plumb_alloc(&s->e, V, sizeof *s->e, "a sampler");
    if (status == PLUMB_OK) status = plumb_alloc(&s->key, V, sizeof *s->key, "a sampler");
    if (status == PLUMB_OK) status = plumb_alloc(&s->id, V, sizeof *s->id, "a sampler");
    if (status == PLUMB_OK) status = plumb_alloc(&s->items, V, sizeof *s->items, "a sampler");
    if (status != PLUMB_OK) {
        plumb_sampler_free(s);
        return status;
    }
    *out = s;
    return PLUMB_OK;
}

void plumb_sampler_free(plumb_sampler *s) {
    if (!s) return;
    free(s->seen), free(s->sums), free(s->z), free(s->e), free(s->key), free(s->id), free(s->items);
    free(s);
}

static plumb_status refuse(const char *name, double found, const char *expected) {
    return plumb_error(PLUMB_E_CONFIG, "%s: found %.9g; expected %s", name, found, expected);
}
plumb_status plumb_sampling_check(const plumb_sampling *o) {
    if (!(o->temperature > 0 && isfinite(o->temperature))) return refuse("temperature", o->temperature, "a number above 0");
    if (o->top_k < 0) return refuse("top_k", (double)o->top_k, "a whole number from 0");
    if (!(o->top_p > 0 && o->top_p <= 1)) return refuse("top_p", o->top_p, "a number above 0, at most 1");
    if (!(o->min_p >= 0 && o->min_p <= 1)) return refuse("min_p", o->min_p, "a number from 0 to 1");
    if (!(o->typical_p > 0 && o->typical_p <= 1)) return refuse("typical_p", o->typical_p, "a number above 0, at most 1");
    if (!(o->repetition_penalty > 0 && isfinite(o->repetition_penalty)))
        return refuse("repetition_penalty", o->repetition_penalty, "a number above 0");
    if (o->max_new_tokens < 1) return refuse("max_new_tokens", (double)o->max_new_tokens, "a whole number from 1");
    if (o->min_new_tokens < 0 || o->min_new_tokens > o->max_new_tokens)
        return refuse("min_new_tokens", (double)o->min_new_tokens, "at most max_new_tokens");
    if (o->n_ends < 0 || (o->n_ends > 0 && !o->ends)) return refuse("n_ends", o->n_ends, "the number of end ids");
    return PLUMB_OK;
}

/* --- before the filters ----------------------------------------------------------------------- */
static double penalised(double score, double penalty) { return score < 0 ? score * penalty : score / penalty; }

/* The distinct ids of the history, into s->id; ids that have no logit are left out. */
static int64_t distinct(plumb_sampler *s, const int32_t *history, int64_t count) {
    int64_t n = 0;
    if (++s->stamp == 0) { /* once in 2^32 calls old marks could be taken for new ones */
        for (int64_t i = 0; i < s->vocab; i++) s->seen[i] = 0;
        s->stamp = 1;
    }
    for (int64_t i = 0; i < count; i++) {
        if (history[i] < 0 || history[i] >= s->vocab || s->seen[history[i]] == s->stamp) continue;
        s->seen[history[i]] = s->stamp;
        s->id[n++] = history[i];
    }
    return n;
}

static bool filters(const plumb_sampling *o) { return o->top_k > 0 || o->top_p < 1 || o->min_p > 0 || o->typical_p < 1; }
static bool forbids(const plumb_sampling *o, int64_t generated) { return generated < o->min_new_tokens; }
static bool is_end(const plumb_sampler *s, const plumb_sampling *o, int i) { return o->ends[i] >= 0 && o->ends[i] < s->vocab; }

static void filter_floats(plumb_sampler *s, const plumb_sampling *o, float *logits) {
    s->kernels->widen(logits, s->vocab, o->temperature, s->z);
    plumb_sampler_filter(s, o);
    for (int64_t i = 0; i < s->vocab; i++) logits[i] = -INFINITY;
    for (int64_t i = 0; i < s->n; i++) logits[s->id[i]] = (float)s->z[i];
}

void plumb_sampler_process(plumb_sampler *s, const plumb_sampling *o, float *logits, const int32_t *history, int64_t count,
                           int64_t generated) {
    bool bad;
    s->kernels->largest(logits, s->vocab, &bad);
    if (bad) return;
    for (int64_t i = o->tokens > 0 ? o->tokens : s->vocab; i < s->vocab; i++) logits[i] = -INFINITY;
    int64_t n = o->repetition_penalty != 1 ? distinct(s, history, count) : 0;
    for (int64_t i = 0; i < n; i++) logits[s->id[i]] = (float)penalised(logits[s->id[i]], o->repetition_penalty);
    for (int i = 0; i < o->n_ends && forbids(o, generated); i++)
        if (is_end(s, o, i)) logits[o->ends[i]] = -INFINITY;
    if (!o->do_sample) return;
    if (filters(o)) filter_floats(s, o, logits);
    else if (o->temperature != 1) s->kernels->divide(logits, s->vocab, (float)o->temperature);
}

void plumb_sampler_process_f64(plumb_sampler *s, const plumb_sampling *o, double *logits, const int32_t *history, int64_t count,
                               int64_t generated) {
    for (int64_t i = 0; i < s->vocab; i++)
        if (!(logits[i] < INFINITY)) return;
    for (int64_t i = o->tokens > 0 ? o->tokens : s->vocab; i < s->vocab; i++) logits[i] = -INFINITY;
    int64_t n = o->repetition_penalty != 1 ? distinct(s, history, count) : 0;
    for (int64_t i = 0; i < n; i++) logits[s->id[i]] = penalised(logits[s->id[i]], o->repetition_penalty);
    for (int i = 0; i < o->n_ends && forbids(o, generated); i++)
        if (is_end(s, o, i)) logits[o->ends[i]] = -INFINITY;
    if (!o->do_sample) return;
    for (int64_t i = 0; i < s->vocab; i++) s->z[i] = logits[i] / o->temperature;
    plumb_sampler_filter(s, o);
    for (int64_t i = 0; i < s->vocab; i++) logits[i] = -INFINITY;
    for (int64_t i = 0; i < s->n; i++) logits[s->id[i]] = s->z[i];
}

/* --- the draw --------------------------------------------------------------------------------- */
static int32_t first_equal(const float *z, float value) {
    int32_t i = 0;
    while (z[i] != value) i++;
    return i;
}

/* The token at which the running sum of exp(z - max) passes u times its total. */
static int32_t draw(plumb_sampler *s, const float *z, float max, double u) {
    float e[PLUMB_SAMPLER_BLOCK];
    int64_t blocks = (s->vocab + PLUMB_SAMPLER_BLOCK - 1) / PLUMB_SAMPLER_BLOCK, at = 0;
    double total = 0, before = 0, sum = 0;
    s->kernels->block_sums(z, s->vocab, max, s->sums);
    for (int64_t b = 0; b < blocks; b++) total += (double)s->sums[b];
    const double mark = u * total;
    for (int64_t b = 0; b < blocks; b++) { /* the last block with any weight, where rounding leaves the mark behind them all */
        if (s->sums[b] <= 0) continue;
        at = b;
        sum = before;
        before += (double)s->sums[b];
        if (mark < before) break;
    }
    int64_t first = at * PLUMB_SAMPLER_BLOCK, n = plumb_min64(s->vocab - first, PLUMB_SAMPLER_BLOCK), last = 0;
    s->kernels->block_exp(z + first, n, max, e);
    for (int64_t i = 0; i < n; i++) {
        if (e[i] <= 0) continue;
        last = i;
        sum += (double)e[i];
        if (mark < sum) break;
    }
    return (int32_t)(first + last);
}

plumb_status plumb_sampler_pick(plumb_sampler *s, const plumb_sampling *o, float *logits, const int32_t *history, int64_t count,
                                int64_t generated, const plumb_sampling_key *key, int64_t position, int32_t *token) {
    bool bad;
    plumb_sampler_process(s, o, logits, history, count, generated);
    const float max = s->kernels->largest(logits, s->vocab, &bad);
    if (bad)
        return plumb_error(PLUMB_E_NUMERIC, "the logits of position %lld are not finite (temperature %g)", (long long)position,
                           o->temperature);
    if (max == -INFINITY)
        return plumb_error(PLUMB_E_NUMERIC, "no token can follow at position %lld%s", (long long)position,
                           forbids(o, generated) ? ": min_new_tokens forbids the end tokens, and there are no others" : "");
    if (!o->do_sample) {
        *token = first_equal(logits, max);
        return PLUMB_OK;
    }
    double u = plumb_rng_uniform(&(plumb_rng_key){key->seed, key->step, key->sample, key->branch, (uint32_t)position, PLUMB_SITE_SAMPLE});
    *token = draw(s, logits, max, u);
    return PLUMB_OK;
}
