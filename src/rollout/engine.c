/* The rollout engine: many completions at once, by the training engine's own forward pass over pages of keys and values.
 *
 *   waiting requests ──admit──> active sequences ──finish──> completions
 *                      │              │
 *                 prefill rows    one row each           one forward pass per step holds both (continuous batching)
 *
 * Pages. A prompt's full pages are written once and shared by the completions of its group; each has pages of its own from the page on
 * in which the prompt ends:
 *
 *   prompt of 150 tokens, 2 completions     [0 .. 63][64 .. 127] [128 .. 149 | completion 0 ...][...]
 *                                            shared    shared    [128 .. 149 | completion 1 ...][...]
 *
 * A sequence is admitted when all the pages that it may come to need are free, so that nothing is ever evicted. Members of a group that
 * come later, for want of room, compute the prompt's last page again. Rows are independent and sums have a fixed order, so what a
 * sequence gets does not depend on its neighbours or on when it was admitted. */
#include "plumb/rollout.h"
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct sequence {
    int64_t request;
    int64_t length, limit;    /* tokens in pages; tokens that prompt and completion may have together */
    int32_t *slots, n_slots;
    int32_t *history;         /* prompt and completion, [limit] */
    int64_t count;            /* of history; the last token is not in a page yet while count > length */
} sequence;

struct plumb_rollout {
    plumb_model *m;
    plumb_rollout_options o;
    int64_t vocab, max_positions;
    plumb_kv *kv;
    int32_t n_slots, n_free, *free_slots, *users; /* users[slot]: sequences and groups that hold it */
    sequence *active; int64_t n_active;
    int32_t *prefix; int32_t n_prefix;            /* shared pages of the group that is being admitted */
    const int32_t *prefix_prompt;
    plumb_forest forest;
    int64_t *starts; const int32_t **slots; size_t cap_starts, cap_slots; /* of the forest's segments */
    int64_t *row_owner; size_t cap_owner;         /* active sequence of each listed row */
    float *logits; size_t cap_logits;
    int32_t *tokens; double *logp, *entropy, *values; size_t cap_tokens, cap_logp, cap_entropy, cap_values;
    plumb_sampler **samplers; int n_samplers;
    plumb_rollout_stats stats;
};

static int64_t pages_of(int64_t tokens) { return (tokens + PLUMB_PAGE - 1) / PLUMB_PAGE; }

/* --- pages ------------------------------------------------------------------------------------ */
static int32_t take_slot(plumb_rollout *r) {
    int32_t slot = r->free_slots[--r->n_free];
    r->users[slot] = 1;
    return slot;
}
static void release_slot(plumb_rollout *r, int32_t slot) {
    if (--r->users[slot] == 0) r->free_slots[r->n_free++] = slot;
}
static void release_prefix(plumb_rollout *r) {
    for (int32_t i = 0; i < r->n_prefix; i++) release_slot(r, r->prefix[i]);
    r->n_prefix = 0, r->prefix_prompt = NULL;
}
static void release_sequence(plumb_rollout *r, sequence *s) {
    for (int32_t i = 0; i < s->n_slots; i++) release_slot(r, s->slots[i]);
    free(s->slots);
    free(s->history);
    *s = (sequence){0};
}

/* The store grows to what a call can use, within the budget. */
static plumb_status reserve_pages(plumb_rollout *r, const plumb_rollout_request *requests, int64_t n) {
    int64_t most = 0, sum = 0, budget = (int64_t)(r->o.kv_bytes / plumb_model_kv_bytes(r->m));
    for (int64_t i = 0; i < n; i++) {
        int64_t pages = pages_of(plumb_min64(requests[i].count + r->o.sampling.max_new_tokens, r->max_positions));
        if (pages > most) most = pages;
    }
    if (most > budget)
        return plumb_error(PLUMB_E_CONFIG,
                           "kv_budget_mb: a completion of this run needs %lld pages of keys and values (%.0f MiB); the budget holds %lld",
                           (long long)most, (double)most * (double)plumb_model_kv_bytes(r->m) / 1048576.0, (long long)budget);
    sum = plumb_min64(budget, most * plumb_min64(n, r->o.batch) + pages_of(r->max_positions));
    if (sum > INT32_MAX - 1) sum = INT32_MAX - 1;
    if (sum <= r->n_slots) return PLUMB_OK;
    if (r->kv) plumb_model_kv_free(r->m, r->kv);
    free(r->free_slots), free(r->users), free(r->prefix);
    r->kv = NULL, r->free_slots = r->users = r->prefix = NULL, r->n_slots = r->n_free = 0;
    PLUMB_TRY(plumb_model_kv_create(r->m, sum, &r->kv));
    PLUMB_TRY(plumb_alloc(&r->free_slots, (size_t)sum, sizeof *r->free_slots, "pages"));
    PLUMB_TRY(plumb_alloc(&r->users, (size_t)sum, sizeof *r->users, "pages"));
    PLUMB_TRY(plumb_alloc(&r->prefix, (size_t)sum, sizeof *r->prefix, "pages"));
    r->n_slots = (int32_t)sum;
    for (int32_t i = 0; i < r->n_slots; i++) r->free_slots[r->n_free++] = r->n_slots - 1 - i; /* lowest first */
    return PLUMB_OK;
}

/* --- the batch of a step ---------------------------------------------------------------------- */
/* Adds a segment that continues the path with these pages; lists its last row for sequence `owner` (< 0: not). */
static plumb_status add_segment(plumb_rollout *r, int32_t parent, const int32_t *ids, int64_t count, int64_t start, const int32_t *slots,
                                int64_t owner) {
    plumb_forest *f = &r->forest;
    int32_t segment;
    PLUMB_TRY(plumb_grow(&r->starts, &r->cap_starts, (size_t)f->n_segments + 1, sizeof *r->starts));
    PLUMB_TRY(plumb_grow(&r->slots, &r->cap_slots, (size_t)f->n_segments + 1, sizeof *r->slots));
    PLUMB_TRY(plumb_grow(&r->row_owner, &r->cap_owner, (size_t)f->n_targets + 1, sizeof *r->row_owner));
    r->starts[f->n_segments] = start, r->slots[f->n_segments] = slots;
    if (owner >= 0) r->row_owner[f->n_targets] = owner;
    PLUMB_TRY(plumb_forest_add(f, parent, ids, count, plumb_model_adapter_of(r->m, r->o.view), 0, &segment));
    return owner >= 0 ? plumb_forest_target(f, plumb_forest_row_before(f, segment, count), 0, segment) : PLUMB_OK;
}

/* Admits request q: pages for all that it may become; shared ones first. */
static plumb_status admit(plumb_rollout *r, const plumb_rollout_request *q, int64_t index, int64_t limit) {
    sequence *s = &r->active[r->n_active];
    *s = (sequence){.request = index, .limit = limit, .count = q->count, .n_slots = (int32_t)pages_of(limit)};
    PLUMB_TRY(plumb_alloc(&s->slots, (size_t)s->n_slots, sizeof *s->slots, "pages"));
    plumb_status status = plumb_alloc(&s->history, (size_t)limit + 1, sizeof *s->history, "a completion");
    if (status != PLUMB_OK) {
        free(s->slots);
        return status;
    }
    memcpy(s->history, q->prompt, (size_t)q->count * sizeof *s->history);
    for (int32_t i = 0; i < s->n_slots; i++) {
        s->slots[i] = i < r->n_prefix ? r->prefix[i] : take_slot(r);
        if (i < r->n_prefix) r->users[s->slots[i]]++;
    }
    s->length = q->count; /* after this step's pass */
    r->n_active++;
    return PLUMB_OK;
}

static bool has_room(const plumb_rollout *r, int64_t pages) { return r->n_active < r->o.batch && r->n_free >= pages; }

/* Admits waiting requests from *next on, group by group, while there is room and the pass stays small. */
static plumb_status admit_waiting(plumb_rollout *r, const plumb_rollout_request *requests, int64_t n, int64_t *next) {
    while (*next < n && r->forest.n_tokens < r->o.prefill_tokens) {
        const plumb_rollout_request *q = &requests[*next];
        int64_t limit = plumb_min64(q->count + r->o.sampling.max_new_tokens, r->max_positions), shared = (q->count - 1) / PLUMB_PAGE;
        bool known = r->prefix_prompt == q->prompt && r->n_prefix == shared;
        if (!known) release_prefix(r);
        if (!has_room(r, pages_of(limit) - (known ? shared : 0))) break;
        if (!known) {
            for (int32_t i = 0; i < shared; i++) r->prefix[i] = take_slot(r);
            r->n_prefix = (int32_t)shared, r->prefix_prompt = q->prompt;
        }
        int64_t first = r->n_active, start = known ? shared * PLUMB_PAGE : 0;
        PLUMB_TRY(admit(r, q, (*next)++, limit));
        int32_t root = r->forest.n_segments;
        PLUMB_TRY(add_segment(r, -1, q->prompt + start, q->count - start, start, r->active[first].slots, first));
        r->stats.prefill_tokens += q->count - start;
        for (; *next < n && requests[*next].prompt == q->prompt && has_room(r, pages_of(limit) - shared); (*next)++) {
            PLUMB_TRY(admit(r, &requests[*next], *next, limit));
            PLUMB_TRY(add_segment(r, root, NULL, 0, q->count, r->active[r->n_active - 1].slots, r->n_active - 1));
        }
    }
    return PLUMB_OK;
}

/* --- choosing tokens -------------------------------------------------------------------------- */
static plumb_status choose(plumb_rollout *r, const plumb_rollout_request *requests) {
    int64_t n = r->forest.n_targets;
    plumb_status status = PLUMB_OK;
    char message[512] = "";
#pragma omp parallel for schedule(dynamic, 1) num_threads(r->n_samplers)
    for (int64_t j = 0; j < n; j++) {
        const sequence *s = &r->active[r->row_owner[j]];
        const plumb_rollout_request *q = &requests[s->request];
        plumb_sampling_key key = {r->o.seed, r->o.step, q->sample, q->branch};
        plumb_status one = plumb_sampler_pick(r->samplers[omp_get_thread_num()], &r->o.sampling, r->logits + j * r->vocab, s->history,
                                              s->count, s->count - q->count, &key, s->count, &r->tokens[j]);
        if (one == PLUMB_OK) continue;
#pragma omp critical
        if (status == PLUMB_OK) {
            status = one;
            strncpy(message, plumb_error_message(), sizeof message - 1);
        }
    }
    if (status != PLUMB_OK) return plumb_error(status, "%s", message);
    PLUMB_TRY(plumb_model_token_stats(r->m, r->tokens, r->o.sampling.temperature, r->logp, r->entropy));
    return r->o.values ? plumb_model_decoded_values(r->m, r->values) : PLUMB_OK;
}

static bool ends_completion(const plumb_sampling *s, int32_t token) {
    for (int i = 0; i < s->n_ends; i++)
        if (s->ends[i] == token) return true;
    return false;
}
/* Appends row j's token to its completion; true when that ends it. */
static plumb_status append(plumb_rollout *r, int64_t j, const plumb_rollout_request *requests, plumb_completion *out, bool *ended) {
    sequence *s = &r->active[r->row_owner[j]];
    plumb_completion *c = &out[s->request];
    int64_t generated = s->count - requests[s->request].count;
    PLUMB_TRY(plumb_grow(&c->ids, &c->cap_ids, (size_t)generated + 1, sizeof *c->ids));
    PLUMB_TRY(plumb_grow(&c->logp, &c->cap_logp, (size_t)generated + 1, sizeof *c->logp));
    PLUMB_TRY(plumb_grow(&c->entropy, &c->cap_entropy, (size_t)generated + 1, sizeof *c->entropy));
    if (r->o.values) {
        PLUMB_TRY(plumb_grow(&c->values, &c->cap_values, (size_t)generated + 1, sizeof *c->values));
        c->values[generated] = r->values[j];
    }
    c->ids[generated] = s->history[s->count++] = r->tokens[j];
    c->logp[generated] = r->logp[j], c->entropy[generated] = r->entropy[j];
    c->count = generated + 1;
    bool wanted = !r->o.sink || r->o.sink(r->o.user, s->request, r->tokens[j]);
    *ended = true;
    if (ends_completion(&r->o.sampling, r->tokens[j])) c->finish = PLUMB_FINISH_EOS;
    else if (r->o.stops && c->count >= r->o.sampling.min_new_tokens && plumb_stops_hit(r->o.stops, c->ids, c->count))
        c->finish = PLUMB_FINISH_STOP;
    else if (!wanted || s->count >= s->limit) c->finish = PLUMB_FINISH_LENGTH;
    else *ended = false;
    r->stats.tokens++;
    return PLUMB_OK;
}

/* One pass: a token for every active sequence and the prompts of those that come in. */
static plumb_status advance(plumb_rollout *r, const plumb_rollout_request *requests, int64_t n, int64_t *next, plumb_completion *out) {
    plumb_forest_reset(&r->forest);
    for (int64_t i = 0; i < r->n_active; i++) {
        sequence *s = &r->active[i];
        PLUMB_TRY(add_segment(r, -1, &s->history[s->length], 1, s->length, s->slots, i));
        s->length++;
    }
    PLUMB_TRY(admit_waiting(r, requests, n, next));
    /* reserve_pages has seen to it that one does */
    if (!r->n_active) return plumb_error(PLUMB_E_CONFIG, "no completion fits the pages of keys and values");
    int64_t rows = r->forest.n_targets;
    PLUMB_TRY(plumb_forest_finish_cached(&r->forest, r->starts, r->slots));
    PLUMB_TRY(plumb_grow(&r->logits, &r->cap_logits, (size_t)(rows * r->vocab), sizeof *r->logits));
    PLUMB_TRY(plumb_grow(&r->tokens, &r->cap_tokens, (size_t)rows, sizeof *r->tokens));
    PLUMB_TRY(plumb_grow(&r->logp, &r->cap_logp, (size_t)rows, sizeof *r->logp));
    PLUMB_TRY(plumb_grow(&r->entropy, &r->cap_entropy, (size_t)rows, sizeof *r->entropy));
    PLUMB_TRY(plumb_grow(&r->values, &r->cap_values, (size_t)rows, sizeof *r->values));
    PLUMB_TRY(plumb_model_decode(r->m, &r->forest, r->o.view, r->kv, r->logits));
    PLUMB_TRY(choose(r, requests));
    r->stats.steps++;
    int64_t kept = 0;
    bool *ended;
    PLUMB_TRY(plumb_alloc(&ended, (size_t)r->n_active, sizeof *ended, "completions"));
    plumb_status status = PLUMB_OK;
    for (int64_t j = 0; j < rows && status == PLUMB_OK; j++) status = append(r, j, requests, out, &ended[r->row_owner[j]]);
    for (int64_t i = 0; i < r->n_active; i++) {
        if (ended[i]) release_sequence(r, &r->active[i]), r->stats.finished++;
        else r->active[kept++] = r->active[i];
    }
    r->n_active = kept;
    free(ended);
    return status;
}

/* --- interface -------------------------------------------------------------------------------- */
plumb_status plumb_rollout_create(plumb_rollout **out, plumb_model *m, const plumb_rollout_options *o) {
    PLUMB_TRY(plumb_sampling_check(&o->sampling));
    PLUMB_TRY(plumb_alloc(out, 1, sizeof **out, "the rollout engine"));
    plumb_rollout *r = *out;
    r->m = m, r->o = *o;
    if (r->o.batch < 1) r->o.batch = 64;
    if (r->o.prefill_tokens < 1) r->o.prefill_tokens = 256;
    if (!r->o.kv_bytes) r->o.kv_bytes = (size_t)1 << 30;
    r->vocab = plumb_model_arch(m)->vocab, r->max_positions = plumb_model_arch(m)->max_positions;
    r->n_samplers = (int)plumb_max64(1, o->threads);
    plumb_status status = plumb_alloc(&r->active, (size_t)r->o.batch, sizeof *r->active, "completions");
    if (status == PLUMB_OK) status = plumb_alloc(&r->samplers, (size_t)r->n_samplers, sizeof *r->samplers, "samplers");
    for (int i = 0; i < r->n_samplers && status == PLUMB_OK; i++) status = plumb_sampler_create(&r->samplers[i], r->vocab);
    if (status != PLUMB_OK) plumb_rollout_free(r), *out = NULL;
    return status;
}

void plumb_rollout_free(plumb_rollout *r) {
    if (!r) return;
    for (int64_t i = 0; i < r->n_active; i++) release_sequence(r, &r->active[i]);
    if (r->kv) plumb_model_kv_free(r->m, r->kv);
    for (int i = 0; r->samplers && i < r->n_samplers; i++) plumb_sampler_free(r->samplers[i]);
    plumb_forest_free(&r->forest);
    free(r->samplers), free(r->active), free(r->prefix), free(r->free_slots), free(r->users), free(r->starts), free(r->slots),
        free(r->row_owner);
    free(r->logits), free(r->tokens), free(r->logp), free(r->entropy), free(r->values);
    free(r);
}

void plumb_rollout_set_step(plumb_rollout *r, uint32_t step) { r->o.step = step; }

plumb_status plumb_rollout_run(plumb_rollout *r, const plumb_rollout_request *requests, int64_t n, plumb_completion *out,
                               plumb_rollout_stats *stats) {
    double began = plumb_clock();
    int64_t next = 0;
    for (int64_t i = 0; i < n; i++) {
        if (requests[i].count < 1) return plumb_error(PLUMB_E_DATA, "a prompt has no tokens");
        if (requests[i].count >= r->max_positions)
            return plumb_error(PLUMB_E_DATA, "a prompt has %lld tokens; the model has %lld positions", (long long)requests[i].count,
                               (long long)r->max_positions);
        out[i].count = 0, out[i].finish = PLUMB_FINISH_LENGTH;
    }
    r->stats = (plumb_rollout_stats){0};
    PLUMB_TRY(reserve_pages(r, requests, n));
    plumb_status status = PLUMB_OK;
    bool stopped = false;
    while (status == PLUMB_OK && !stopped && (next < n || r->n_active)) {
        status = advance(r, requests, n, &next, out);
        r->stats.seconds = plumb_clock() - began;
        if (status == PLUMB_OK && r->o.progress) stopped = !r->o.progress(r->o.user, &r->stats, n);
    }
    for (int64_t i = 0; i < r->n_active; i++) release_sequence(r, &r->active[i]);
    r->n_active = 0;
    release_prefix(r);
    r->stats.stopped = stopped;
    if (stats) *stats = r->stats;
    return status;
}

void plumb_completion_free(plumb_completion *c) {
    free(c->ids), free(c->logp), free(c->entropy), free(c->values);
    *c = (plumb_completion){0};
}
