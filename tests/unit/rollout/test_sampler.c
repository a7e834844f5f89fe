/* The sampler: golden distributions in double and in float, draws that follow them, the same bits on every instruction set, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "plumb/io.h"
#include "sampling_case.h"
#include "../../../src/rollout/sampler_internal.h"

#define N_OF(a) (sizeof(a) / sizeof *(a))
static const plumb_sampling plain =
    {.do_sample = true, .temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .max_new_tokens = 10};

static void assert_ok(plumb_status status) {
    if (status != PLUMB_OK) fail_msg("%s: %s", plumb_status_text(status), plumb_error_message());
}
static plumb_sampler *sampler_of(int64_t V) {
    plumb_sampler *s;
    assert_ok(plumb_sampler_create(&s, V));
    return s;
}
static float *noise(int64_t V, double scale, uint32_t stream) {
    float *z = malloc((size_t)V * sizeof *z);
    for (int64_t i = 0; i < V; i++)
        z[i] = (float)(scale * plumb_rng_normal(&(plumb_rng_key){7, 0, stream, 0, (uint32_t)i, PLUMB_SITE_TEST}));
    return z;
}

static void fixtures(void **state) {
    (void)state;
    json_t *file = NULL;
    assert_ok(plumb_json_load(&file, PLUMB_TEST_DATA "/sampling/filters.json"));
    json_t *cases = json_object_get(file, "cases");
    assert_true(json_array_size(cases) > 60);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        sampling_case c;
        sampling_case_read(&c, json_array_get(cases, i));
        assert_ok(plumb_sampling_check(&c.o));
        plumb_sampler *s = sampler_of(c.V);
        float *z = malloc((size_t)c.V * sizeof *z);
        double *wide = malloc((size_t)c.V * sizeof *wide);
        for (int64_t k = 0; k < c.V; k++) z[k] = (float)c.logits[k];
        plumb_sampler_process_f64(s, &c.o, c.logits, c.history, c.count, c.generated);
        plumb_sampler_process(s, &c.o, z, c.history, c.count, c.generated);
        for (int64_t k = 0; k < c.V; k++) wide[k] = z[k];
        double error = sampling_case_error(&c, c.logits), rounded = sampling_case_error(&c, wide);
        if (!(error <= 1e-9)) fail_msg("case %zu: off by %g in double", i, error);
        if (!(rounded <= 3e-6)) fail_msg("case %zu: off by %g in float", i, rounded);
        free(z), free(wide);
        plumb_sampler_free(s);
        sampling_case_free(&c);
    }
    json_decref(file);
}

/* The bins against a sort, on a vocabulary of real size: what stays of top-k and top-p is what a sort would keep. */
static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}
static void bins_are_a_sort(void **state) {
    (void)state;
    enum { V = 49152 };
    plumb_sampler *s = sampler_of(V);
    const double scales[] = {2.5, 0.001, 40};
    for (size_t c = 0; c < 3 * N_OF(scales); c++) {
        float *z = noise(V, scales[c % N_OF(scales)], (uint32_t)c);
        double *x = malloc(V * sizeof *x), *sorted = malloc(V * sizeof *x), total = 0, sum = 0;
        if (c >= N_OF(scales)) z[V / 2] = -1e9f; /* one value far away must not put all others into one bin for good */
        if (c >= 2 * N_OF(scales))
            for (int i = 0; i < V; i++) z[i] = rintf(z[i] * 4) / 4;
        for (int i = 0; i < V; i++) sorted[i] = x[i] = z[i];
        qsort(sorted, V, sizeof *sorted, descending);
        for (int i = 0; i < V; i++) total += exp(sorted[i] - sorted[0]);
        plumb_sampling o = plain;
        int64_t kept = 0, expected = 0;
        o.top_k = 5000;
        plumb_sampler_process_f64(s, &o, x, NULL, 0, 0);
        for (int i = 0; i < V; i++) kept += x[i] > -INFINITY, expected += z[i] >= (float)sorted[4999];
        assert_int_equal(kept, expected);
        o.top_k = 0, o.top_p = 0.9;
        for (int i = 0; i < V; i++) x[i] = z[i];
        plumb_sampler_process_f64(s, &o, x, NULL, 0, 0);
        for (kept = 0, expected = 0; expected < V && sum < 0.9 * total; expected++) sum += exp(sorted[expected] - sorted[0]);
        for (int i = 0; i < V; i++) kept += x[i] > -INFINITY;
        if (llabs(kept - expected) > 1) fail_msg("case %zu: top-p keeps %lld, a sort %lld", c, (long long)kept, (long long)expected);
        free(z), free(x), free(sorted);
    }
    plumb_sampler_free(s);
}

static void sets_agree(void **state) {
    (void)state;
    const plumb_sampler_kernels *sets[3];
    int n = plumb_sampler_kernel_sets(sets);
    const int64_t sizes[] = {1, 7, 16, 255, 256, 257, 1003};
    for (size_t k = 0; k < N_OF(sizes); k++) {
        int64_t V = sizes[k];
        float *z = noise(V, 20, 3), sums[2][8], e[2][PLUMB_SAMPLER_BLOCK] = {{0}};
        double *wide[2], *x[2];
        if (V > 3) z[2] = -INFINITY;
        for (int i = 0; i < 2; i++) wide[i] = calloc((size_t)V, 8), x[i] = calloc((size_t)V, 8);
        for (int set = 0; set < n; set++) {
            const plumb_sampler_kernels *a = sets[0], *b = sets[set];
            bool bad, also;
            float max = a->largest(z, V, &bad);
            assert_true(max == b->largest(z, V, &also) && !bad && !also);
            a->block_sums(z, V, max, sums[0]), b->block_sums(z, V, max, sums[1]);
            assert_memory_equal(sums[0], sums[1], (size_t)((V + 255) / 256) * 4);
            int64_t part = V < 256 ? V : 256;
            a->block_exp(z, part, max, e[0]), b->block_exp(z, part, max, e[1]);
            assert_memory_equal(e[0], e[1], (size_t)part * 4);
            for (int64_t i = 0; i < part; i++) {
                double right = exp((double)(z[i] - max));
                if (fabs((double)e[0][i] - right) > 3e-7 * right + 2e-38) fail_msg("exp(%g) is %g", z[i] - max, e[0][i]);
            }
            a->widen(z, V, 0.7, wide[0]), b->widen(z, V, 0.7, wide[1]);
            assert_memory_equal(wide[0], wide[1], (size_t)V * 8);
            double top = (double)max / 0.7, total = a->exp_sum(wide[0], V, top, x[0]);
            assert_true(total == b->exp_sum(wide[0], V, top, x[1]));
            assert_memory_equal(x[0], x[1], (size_t)V * 8);
            for (int64_t i = 0; i < V; i++)
                if (fabs(x[0][i] - exp(wide[0][i] - top)) > 1e-15 * x[0][i]) fail_msg("exp(%g) is %.17g", wide[0][i] - top, x[0][i]);
            assert_true(a->sum(x[0], V) == b->sum(x[0], V) && fabs(a->sum(x[0], V) - total) <= 1e-12 * total);
            double s = a->sum_shifted(wide[0], x[0], V, top);
            assert_true(isfinite(s) && s == b->sum_shifted(wide[0], x[0], V, top));
            float *copy[2] = {noise(V, 20, 4), noise(V, 20, 4)};
            a->divide(copy[0], V, 0.7f), b->divide(copy[1], V, 0.7f);
            assert_memory_equal(copy[0], copy[1], (size_t)V * 4);
            z[V - 1] = NAN;
            b->largest(z, V, &also);
            assert_true(also);
            z[V - 1] = INFINITY;
            b->largest(z, V, &also);
            assert_true(also);
            z[V - 1] = 0.5f;
            free(copy[0]), free(copy[1]);
        }
        for (int i = 0; i < 2; i++) free(wide[i]), free(x[i]);
        free(z);
    }
}

static int32_t pick(plumb_sampler *s, const plumb_sampling *o, const float *logits, const plumb_sampling_key *key, int64_t position) {
    float *z = malloc((size_t)s->vocab * sizeof *z);
    int32_t token = -1;
    memcpy(z, logits, (size_t)s->vocab * sizeof *z);
    assert_ok(plumb_sampler_pick(s, o, z, NULL, 0, 0, key, position, &token));
    free(z);
    return token;
}

/* A vocabulary that is padded beyond the tokenizer's: the padding is never drawn, whatever its logits. */
static void padding_is_never_drawn(void **state) {
    (void)state;
    enum { V = 40, TOKENS = 33 };
    plumb_sampler *s;
    assert_ok(plumb_sampler_create(&s, V));
    for (int greedy = 0; greedy < 2; greedy++)
        for (uint32_t k = 0; k < 200; k++) {
            plumb_sampling o = plain;
            float logits[V];
            int32_t token;
            o.do_sample = !greedy, o.tokens = TOKENS;
            for (int i = 0; i < V; i++) logits[i] = i >= TOKENS ? 9.0f : (float)(i % 5);
            assert_ok(plumb_sampler_pick(s, &o, logits, NULL, 0, 0, &(plumb_sampling_key){1, 2, 3, k}, 0, &token));
            assert_true(token < TOKENS);
        }
    plumb_sampler_free(s);
}

/* Pearson's statistic of 20,000 draws against the processed distribution: the 0.999 quantile by Wilson and Hilferty, with fixed seeds. */
static void draws_follow(void **state) {
    (void)state;
    enum { DRAWS = 20000 };
    const struct {
        int64_t V;
        plumb_sampling o;
    } cases[] = {{50, plain},
                 {50, {true, 1.2, 45, 0.99, 0.001, 0.97, 1, 0, 10, NULL, 0, 0}},
                 {50, {true, 1.4, 0, 0.8, 0, 1, 1, 0, 10, NULL, 0, 0}},
                 {700, plain}};
    for (size_t c = 0; c < N_OF(cases); c++) {
        int64_t V = cases[c].V;
        plumb_sampler *s = sampler_of(V);
        float *z = noise(V, 1.5, 20 + (uint32_t)c);
        double *p = malloc((size_t)V * 8), *seen = calloc((size_t)V, 8), total = 0, statistic = 0, df = -1;
        for (int64_t i = 0; i < V; i++) p[i] = z[i];
        plumb_sampler_process_f64(s, &cases[c].o, p, NULL, 0, 0);
        for (int64_t i = 0; i < V; i++) total += p[i] = exp(p[i]);
        for (int k = 0; k < DRAWS; k++) seen[pick(s, &cases[c].o, z, &(plumb_sampling_key){99, 1, (uint32_t)k, 0}, k % 7)]++;
        double rest = 0, rest_seen = 0;
        for (int64_t i = 0; i < V; i++) {
            double expected = DRAWS * p[i] / total;
            if (p[i] == 0) assert_true(seen[i] == 0);
            if (expected < 5) rest += expected, rest_seen += seen[i];
            else statistic += (seen[i] - expected) * (seen[i] - expected) / expected, df++;
        }
        if (rest >= 5) statistic += (rest_seen - rest) * (rest_seen - rest) / rest, df++;
        double bound = df * pow(1 - 2 / (9 * df) + 3.09 * sqrt(2 / (9 * df)), 3);
        if (!(df > 5 && statistic < bound))
            fail_msg("case %zu: chi-square %.1f of %g degrees, at most %.1f expected", c, statistic, df, bound);
        free(z), free(p), free(seen);
        plumb_sampler_free(s);
    }
}

/* Every part of the key counts, and nothing else: not the sampler, nor what it drew before. */
static void key_alone(void **state) {
    (void)state;
    enum { V = 300, N = 200 };
    plumb_sampler *s = sampler_of(V), *other = sampler_of(V);
    float *z = noise(V, 1, 5);
    plumb_sampling o = plain;
    int differ[5] = {0};
    o.top_p = 0.95;
    for (uint32_t k = 0; k < N; k++) {
        plumb_sampling_key key = {1, 2, k, 4};
        int32_t token = pick(s, &o, z, &key, 9);
        pick(other, &plain, z, &(plumb_sampling_key){5, 5, 5, 5}, k);
        assert_int_equal(token, pick(other, &o, z, &key, 9));
        plumb_sampling_key keys[] = {{2, 2, k, 4}, {1, 3, k, 4}, {1, 2, k + N, 4}, {1, 2, k, 5}, key};
        for (int i = 0; i < 5; i++) differ[i] += pick(s, &o, z, &keys[i], i == 4 ? 10 : 9) != token;
    }
    for (int i = 0; i < 5; i++) assert_true(differ[i] > N * 9 / 10);
    free(z);
    plumb_sampler_free(s), plumb_sampler_free(other);
}

static void ends_wait(void **state) {
    (void)state;
    enum { V = 12 };
    const int32_t ends[] = {3, 7, 400, -1};
    plumb_sampler *s = sampler_of(V);
    int32_t history[64] = {0};
    for (int greedy = 0; greedy < 2; greedy++) {
        plumb_sampling o = plain;
        o.do_sample = !greedy, o.min_new_tokens = 5, o.ends = ends, o.n_ends = 4;
        int came = 0;
        for (int k = 0; k < 500; k++) {
            float z[V] = {0};
            int32_t token;
            int64_t generated = k % 8;
            z[3] = z[7] = 6;
            assert_ok(plumb_sampler_pick(s, &o, z, history, 10 + generated, generated, &(plumb_sampling_key){1, 0, (uint32_t)k, 0},
                                         10 + generated, &token));
            if (generated < 5) assert_true(token != 3 && token != 7);
            else came += token == 3 || token == 7;
        }
        assert_true(came > 150);
    }
    plumb_sampler_free(s);
}

static void greedy_takes_the_first(void **state) {
    (void)state;
    enum { V = 700 };
    plumb_sampler *s = sampler_of(V);
    float *z = noise(V, 1, 8);
    plumb_sampling o = plain;
    int32_t token, history[] = {650, 650};
    o.do_sample = false;
    z[650] = z[300] = z[699] = 9;
    assert_int_equal(pick(s, &o, z, &(plumb_sampling_key){0}, 0), 300);
    o.repetition_penalty = 0.5; /* a reward: once, though the id stands there twice */
    assert_ok(plumb_sampler_pick(s, &o, z, history, 2, 1, &(plumb_sampling_key){0}, 2, &token));
    assert_int_equal(token, 650);
    assert_true(z[650] == 18 && z[300] == 9);
    free(z);
    plumb_sampler_free(s);
}

static void refusals(void **state) {
    (void)state;
    enum { V = 40 };
    plumb_sampler *s = sampler_of(V);
    const float wrong[] = {NAN, INFINITY};
    int32_t token;
    for (size_t i = 0; i < 4 * N_OF(wrong); i++) {
        plumb_sampling o = plain;
        float *z = noise(V, 1, 1);
        o.do_sample = i % 4 != 3;
        if (i % 4 == 1) o.top_k = 5, o.top_p = 0.5, o.min_p = 0.1, o.typical_p = 0.5;
        if (i % 4 == 2) o.temperature = 0.5;
        z[39] = wrong[i / 4];
        assert_int_equal(plumb_sampler_pick(s, &o, z, NULL, 0, 0, &(plumb_sampling_key){0}, 17, &token), PLUMB_E_NUMERIC);
        assert_non_null(strstr(plumb_error_message(), "17"));
        free(z);
    }
    float z[V];
    for (int i = 0; i < V; i++) z[i] = -INFINITY;
    assert_int_equal(plumb_sampler_pick(s, &plain, z, NULL, 0, 0, &(plumb_sampling_key){0}, 0, &token), PLUMB_E_NUMERIC);
    plumb_sampling tiny = plain;
    tiny.temperature = 1e-320, tiny.typical_p = 0.5; /* z / temperature is infinite */
    for (int i = 0; i < V; i++) z[i] = (float)i - 3;
    assert_int_equal(plumb_sampler_pick(s, &tiny, z, NULL, 0, 0, &(plumb_sampling_key){0}, 0, &token), PLUMB_E_NUMERIC);
    plumb_sampler_free(s);
    assert_int_equal(plumb_sampler_create(&s, 0), PLUMB_E_CONFIG);

    struct { const char *name; plumb_sampling o; } bad[12];
    for (size_t i = 0; i < N_OF(bad); i++) bad[i].o = plain;
    bad[0].name = "temperature", bad[0].o.temperature = 0;
    bad[1].name = "temperature", bad[1].o.temperature = NAN;
    bad[2].name = "top_k", bad[2].o.top_k = -1;
    bad[3].name = "top_p", bad[3].o.top_p = 0;
    bad[4].name = "top_p", bad[4].o.top_p = 1.5;
    bad[5].name = "min_p", bad[5].o.min_p = -0.1;
    bad[6].name = "typical_p", bad[6].o.typical_p = 0;
    bad[7].name = "repetition_penalty", bad[7].o.repetition_penalty = 0;
    bad[8].name = "max_new_tokens", bad[8].o.max_new_tokens = 0;
    bad[9].name = "min_new_tokens", bad[9].o.min_new_tokens = 11;
    bad[10].name = "min_new_tokens", bad[10].o.min_new_tokens = -1;
    bad[11].name = "min_p", bad[11].o.min_p = NAN;
    for (size_t i = 0; i < N_OF(bad); i++) {
        assert_int_equal(plumb_sampling_check(&bad[i].o), PLUMB_E_CONFIG);
        assert_ptr_equal(strstr(plumb_error_message(), bad[i].name), plumb_error_message());
    }
    for (long n = 1; n <= 8; n++) { /* memory that is missing, allocation by allocation */
        plumb_alloc_fail_after(n);
        assert_int_equal(plumb_sampler_create(&s, 100), PLUMB_E_MEMORY);
        assert_null(s);
    }
    plumb_alloc_fail_after(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures),     cmocka_unit_test(bins_are_a_sort),
        cmocka_unit_test(sets_agree),   cmocka_unit_test(padding_is_never_drawn),
        cmocka_unit_test(draws_follow), cmocka_unit_test(key_alone),
        cmocka_unit_test(ends_wait),    cmocka_unit_test(greedy_takes_the_first),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
