/* The rollout engine: what a completion gets depends on its prompt and key alone, and its log-probabilities are those of the trainer's
 * forward pass, to the bit. */
#include "rollout_test.h"
#include "plumb/rollout.h"
#include <math.h>
#include <stdio.h>

enum { PROMPTS = 5, GROUP = 3, REQUESTS = PROMPTS * GROUP, TOKENS = 90 };
typedef struct world {
    plumb_backend *be;
    plumb_source *source;
    plumb_model *m;
    plumb_rollout_request requests[REQUESTS];
    int32_t prompts[PROMPTS][160];
    int32_t ends[1];
} world;

static void open_world(world *w, const char *backend, const char *precision, int threads) {
    const char *note = NULL;
    *w = (world){.ends = {2}};
    assert_ok(plumb_backend_create(&w->be,
                                   &(plumb_backend_options){.backend = backend, .isa = "auto", .precision = precision, .threads = threads},
                                   &note));
    assert_ok(plumb_source_open(&w->source, PLUMB_TEST_DATA "/models/stories260K"));
    plumb_lora_config lora = {.r = 4, .alpha = 8, .target_modules = (char *[]){"all-linear"}, .n_target_modules = 1};
    assert_ok(plumb_model_create(&w->m, w->be, w->source, &(plumb_model_options){.lora = &lora, .head = PLUMB_HEAD_RANDOM, .seed = 3}));
    static const int64_t lengths[PROMPTS] = {1, 63, 64, 65, 150}; /* around the borders of pages */
    for (int p = 0; p < PROMPTS; p++) {
        for (int64_t i = 0; i < lengths[p]; i++) w->prompts[p][i] = i == 0 ? 1 : (int32_t)(3 + (i * 37 + p * 11) % 500);
        for (int g = 0; g < GROUP; g++)
            w->requests[p * GROUP + g] = (plumb_rollout_request){w->prompts[p], lengths[p], (uint32_t)p, (uint32_t)g};
    }
    /* B of the adapter is not zero, so that the policy is not the base */
    int64_t n = plumb_model_trainable_count(w->m);
    float *values = calloc((size_t)n, sizeof *values);
    plumb_model_values_read(w->m, 0, n, values);
    for (int64_t i = 0; i < n; i++) values[i] += (float)((i * 7919) % 101 - 50) * 2e-3f;
    plumb_model_values_write(w->m, 0, n, values);
    plumb_model_refresh(w->m);
    free(values);
}
static void close_world(world *w) {
    plumb_model_free(w->m);
    plumb_source_close(w->source);
    plumb_backend_free(w->be);
}

static plumb_rollout_options options_of(world *w) {
    return (plumb_rollout_options){.sampling = {.do_sample = true,
                                                .temperature = 0.8,
                                                .top_p = 1,
                                                .typical_p = 1,
                                                .repetition_penalty = 1,
                                                .max_new_tokens = TOKENS,
                                                .ends = w->ends,
                                                .n_ends = 1},
                                   .seed = 11,
                                   .step = 4,
                                   .threads = 1};
}
static void complete(world *w, const plumb_rollout_options *o, const plumb_rollout_request *requests, int64_t n, plumb_completion *out,
                     plumb_rollout_stats *stats) {
    plumb_rollout *r;
    assert_ok(plumb_rollout_create(&r, w->m, o));
    assert_ok(plumb_rollout_run(r, requests, n, out, stats));
    plumb_rollout_free(r);
}
static void assert_same(const plumb_completion *a, const plumb_completion *b, int64_t n, const char *what) {
    for (int64_t i = 0; i < n; i++) {
        bool same = a[i].count == b[i].count && a[i].finish == b[i].finish &&
                    !memcmp(a[i].ids, b[i].ids, (size_t)a[i].count * sizeof *a[i].ids) &&
                    !memcmp(a[i].logp, b[i].logp, (size_t)a[i].count * sizeof *a[i].logp) &&
                    !memcmp(a[i].entropy, b[i].entropy, (size_t)a[i].count * sizeof *a[i].entropy);
        if (!same) fail_msg("%s: completion %d differs (%lld and %lld tokens)", what, (int)i, (long long)a[i].count, (long long)b[i].count);
    }
}
static void forget(plumb_completion *c, int64_t n) {
    for (int64_t i = 0; i < n; i++) plumb_completion_free(&c[i]);
}

static void independent(const char *backend, const char *precision) {
    world w;
    plumb_completion all[REQUESTS] = {0}, other[REQUESTS] = {0};
    open_world(&w, backend, precision, 1);
    plumb_rollout_options o = options_of(&w);
    plumb_rollout_stats stats;
    complete(&w, &o, w.requests, REQUESTS, all, &stats);
    assert_int_equal(stats.finished, REQUESTS);
    int64_t tokens = 0;
    for (int i = 0; i < REQUESTS; i++) tokens += all[i].count;
    assert_int_equal(stats.tokens, tokens);
    assert_true(memcmp(all[0].ids, all[1].ids, sizeof *all[0].ids * 8) != 0); /* branches differ */

    plumb_rollout_options few = o;
    few.batch = 2, few.prefill_tokens = 1; /* one by one, the third member of a group comes late */
    complete(&w, &few, w.requests, REQUESTS, other, NULL);
    assert_same(all, other, REQUESTS, "two at a time");

    plumb_rollout_options tight = o;
    tight.kv_bytes = 9 * plumb_model_kv_bytes(w.m);
    complete(&w, &tight, w.requests, REQUESTS, other, NULL);
    assert_same(all, other, REQUESTS, "nine pages");

    int32_t copies[REQUESTS][160]; /* prompts of their own: nothing is shared */
    plumb_rollout_request apart[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) {
        memcpy(copies[i], w.requests[i].prompt, (size_t)w.requests[i].count * sizeof **copies);
        apart[i] = w.requests[i];
        apart[i].prompt = copies[i];
    }
    complete(&w, &o, apart, REQUESTS, other, NULL);
    assert_same(all, other, REQUESTS, "prompts of their own");
    for (int i = 0; i < REQUESTS; i++) complete(&w, &o, &w.requests[i], 1, &other[i], NULL);
    assert_same(all, other, REQUESTS, "alone");
    forget(other, REQUESTS);
    close_world(&w);

    open_world(&w, backend, precision, 2);
    o.threads = 2;
    complete(&w, &o, w.requests, REQUESTS, other, NULL);
    assert_same(all, other, REQUESTS, "two threads");
    forget(all, REQUESTS);
    forget(other, REQUESTS);
    close_world(&w);
}
static void completions_depend_on_their_key_alone(void **state) {
    (void)state;
    independent("cpu", "fp32");
    independent("cpu", "bf16");
}

/* A prompt with its completions as one tree: the trainer's pass. */
static void what_it_notes_is_the_trainers(void **state) {
    (void)state;
    static const char *const precisions[] = {"fp32", "bf16"};
    for (int k = 0; k < 2; k++) {
        world w;
        plumb_completion all[REQUESTS] = {0};
        plumb_forward_result r = {0};
        open_world(&w, "cpu", precisions[k], 1);
        plumb_rollout_options o = options_of(&w);
        o.values = true;
        complete(&w, &o, w.requests, REQUESTS, all, NULL);
        for (int p = 0; p < PROMPTS; p++) {
            plumb_forest f = {0};
            int32_t prompt, segment, adapter = plumb_model_adapter_of(w.m, PLUMB_VIEW_POLICY);
            assert_ok(plumb_forest_add(&f, -1, w.prompts[p], w.requests[p * GROUP].count, adapter, p, &prompt));
            for (int g = 0; g < GROUP; g++) {
                const plumb_completion *c = &all[p * GROUP + g];
                assert_ok(plumb_forest_add(&f, prompt, c->ids, c->count, adapter, p, &segment));
                for (int64_t i = 0; i < c->count; i++)
                    assert_ok(plumb_forest_target(&f, plumb_forest_row_before(&f, segment, i), c->ids[i], segment));
            }
            assert_ok(plumb_forest_finish(&f));
            assert_ok(plumb_model_forward(w.m, &f,
                                          &(plumb_pass){.view = PLUMB_VIEW_POLICY,
                                                        .training = true,
                                                        .logprobs = true,
                                                        .values = true,
                                                        .temperature = 0.8},
                                          &r));
            for (int64_t g = 0, at = 0; g < GROUP; g++)
                for (int64_t i = 0; i < all[p * GROUP + g].count; i++, at++) {
                    const plumb_completion *c = &all[p * GROUP + g];
                    if (r.values[at] != c->values[i])
                        fail_msg("%s, prompt %d, completion %d, token %d: value %.17g while sampling, %.17g in training", precisions[k], p,
                                 (int)g, (int)i, c->values[i], r.values[at]);
                    if (r.logp[at] != c->logp[i] || r.entropy[at] != c->entropy[i])
                        fail_msg("%s, prompt %d, completion %d, token %d: sampled with %.17g, trained with %.17g", precisions[k], p, (int)g,
                                 (int)i, c->logp[i], r.logp[at]);
                }
            plumb_forest_free(&f);
        }
        plumb_forward_result_free(&r);
        forget(all, REQUESTS);
        close_world(&w);
    }
}

static bool stop_after_three(void *user, const plumb_rollout_stats *so_far, int64_t requests) {
    (void)user, (void)requests;
    return so_far->steps < 3;
}
static void ends_as_it_should(void **state) {
    (void)state;
    world w;
    plumb_completion all[REQUESTS] = {0};
    plumb_rollout_stats stats;
    open_world(&w, "cpu", "fp32", 1);
    plumb_rollout_options o = options_of(&w);
    o.sampling.min_new_tokens = o.sampling.max_new_tokens = 7;
    complete(&w, &o, w.requests, REQUESTS, all, &stats);
    for (int i = 0; i < REQUESTS; i++) {
        assert_int_equal(all[i].count, 7);
        for (int k = 0; k < 6; k++) assert_int_not_equal(all[i].ids[k], 2);
    }
    o.sampling.min_new_tokens = 0;
    int32_t first = all[4].ids[2];
    plumb_rollout_options ending = o;
    ending.sampling.ends = &first; /* a token that it is known to draw */
    complete(&w, &ending, &w.requests[4], 1, all, NULL);
    assert_int_equal(all[0].finish, PLUMB_FINISH_EOS);
    assert_int_equal(all[0].ids[all[0].count - 1], first);
    assert_true(all[0].count <= 3);

    plumb_tokenizer *tokenizer; /* a stop string: the text of what the first completion is known to say */
    plumb_stops *stops;
    plumb_str text = {0};
    assert_ok(plumb_tokenizer_load(&tokenizer, PLUMB_TEST_DATA "/models/stories260K"));
    complete(&w, &o, &w.requests[4], 1, all, NULL);
    assert_int_equal(all[0].finish, PLUMB_FINISH_LENGTH);
    assert_ok(plumb_detokenize(tokenizer, all[0].ids, 4, true, &text));
    assert_ok(plumb_stops_create(&stops, tokenizer, (char *[]){text.data}, 1));
    plumb_rollout_options stopped = o;
    stopped.stops = stops;
    complete(&w, &stopped, &w.requests[4], 1, all, NULL);
    assert_int_equal(all[0].finish, PLUMB_FINISH_STOP);
    assert_int_equal(all[0].count, 4);
    plumb_stops_free(stops);
    plumb_str_free(&text);
    plumb_tokenizer_free(tokenizer);

    plumb_rollout_options stopping = o;
    stopping.progress = stop_after_three;
    complete(&w, &stopping, w.requests, REQUESTS, all, &stats);
    assert_true(stats.stopped);
    assert_true(all[0].count <= 3);

    plumb_rollout *r;
    plumb_rollout_options small = o;
    small.kv_bytes = 2 * plumb_model_kv_bytes(w.m);
    assert_ok(plumb_rollout_create(&r, w.m, &small));
    assert_refused(plumb_rollout_run(r, w.requests, REQUESTS, all, NULL), PLUMB_E_CONFIG, "kv_budget_mb");
    assert_ok(plumb_rollout_run(r, w.requests, 3, all, NULL)); /* short ones fit */
    plumb_rollout_request none = {w.prompts[0], 0, 0, 0};
    assert_refused(plumb_rollout_run(r, &none, 1, all, NULL), PLUMB_E_DATA, "no tokens");
    plumb_rollout_free(r);
    forget(all, REQUESTS);
    close_world(&w);
}

/* Drawn tokens against the model's own distribution: one position, many draws. */
static void draws_follow_the_distribution(void **state) {
    (void)state;
    enum { DRAWS = 4000 };
    world w;
    open_world(&w, "cpu", "fp32", 1);
    plumb_rollout_options o = options_of(&w);
    o.sampling.max_new_tokens = 1, o.sampling.temperature = 1, o.batch = 500;
    static plumb_rollout_request requests[DRAWS];
    static plumb_completion out[DRAWS];
    int64_t V = plumb_model_arch(w.m)->vocab;
    float *logits = malloc((size_t)V * sizeof *logits);
    for (int i = 0; i < DRAWS; i++) requests[i] = (plumb_rollout_request){w.prompts[1], 63, 9, (uint32_t)i};
    complete(&w, &o, requests, DRAWS, out, NULL);
    plumb_forest f = {0};
    assert_ok(plumb_forest_add(&f, -1, w.prompts[1], 63, plumb_model_adapter_of(w.m, PLUMB_VIEW_POLICY), 0, NULL));
    assert_ok(plumb_forest_target(&f, 62, 0, 0));
    assert_ok(plumb_forest_finish(&f));
    assert_ok(plumb_model_decode(w.m, &f, PLUMB_VIEW_POLICY, NULL, logits));
    double total = 0, chi2 = 0, rest_expected = 0, rest_seen = 0;
    int cells = 0;
    for (int64_t v = 0; v < V; v++) total += exp((double)logits[v]);
    for (int64_t v = 0; v < V; v++) {
        double expected = DRAWS * exp((double)logits[v]) / total, seen = 0;
        for (int i = 0; i < DRAWS; i++) seen += out[i].ids[0] == v;
        if (expected < 5) rest_expected += expected, rest_seen += seen;
        else chi2 += (seen - expected) * (seen - expected) / expected, cells++;
    }
    if (rest_expected > 0) chi2 += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected, cells++;
    double freedom = cells - 1, bound = freedom + 4 * sqrt(2 * freedom) + 4; /* far out in the tail */
    if (!(cells > 5 && chi2 < bound)) fail_msg("chi-square %g over %d cells", chi2, cells);
    for (int i = 0; i < DRAWS; i++) plumb_completion_free(&out[i]);
    plumb_forest_free(&f);
    free(logits);
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(completions_depend_on_their_key_alone),
                                       cmocka_unit_test(what_it_notes_is_the_trainers), cmocka_unit_test(ends_as_it_should),
                                       cmocka_unit_test(draws_follow_the_distribution)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
