/* What the recipes make of a whole batch - shaped rewards, whitened advantages, losses with their denominators - against the golden
 * values, which the objectives alone do not reach. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../../../trainers/online.h"

static json_t *cases_of(const char *name) {
    json_t *root = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/losses/%s.json", PLUMB_TEST_GOLDEN, name);
    assert_int_equal(plumb_json_load(&root, path), PLUMB_OK);
    json_t *cases = json_incref(json_object_get(root, "cases"));
    json_decref(root);
    return cases;
}
static double number(const json_t *c, const char *key) { return json_number_value(json_object_get(c, key)); }
static void assert_near(double a, double b, const char *what) {
    if (!(fabs(a - b) <= 1e-9 * fmax(1, fabs(b)))) fail_msg("%s: %.17g, expected %.17g", what, a, b);
}

/* A batch whose lengths are those of `rows`, a list of lists. */
static void shape(plumb_trajectories *t, const json_t *rows) {
    int64_t n = (int64_t)json_array_size(rows), tokens = 0;
    for (int64_t i = 0; i < n; i++) tokens += (int64_t)json_array_size(json_array_get(rows, (size_t)i));
    *t = (plumb_trajectories){0};
    assert_int_equal(plumb_trajectories_alloc(t, n, 0, tokens), PLUMB_OK);
    for (int64_t i = 0; i < n; i++) t->token_offset[i + 1] = t->token_offset[i] + (int64_t)json_array_size(json_array_get(rows, (size_t)i));
    memset(t->mask, 1, (size_t)tokens);
}
static void fill(double *flat, const json_t *rows) {
    for (size_t i = 0; i < json_array_size(rows); i++)
        for (size_t k = 0; k < json_array_size(json_array_get(rows, i)); k++)
            *flat++ = json_number_value(json_array_get(json_array_get(rows, i), k));
}
static void compare(const double *flat, const json_t *rows, const char *what) {
    for (size_t i = 0; i < json_array_size(rows); i++)
        for (size_t k = 0; k < json_array_size(json_array_get(rows, i)); k++)
            assert_near(*flat++, json_number_value(json_array_get(json_array_get(rows, i), k)), what);
}

static void ppo_estimates_are_golden(void **state) {
    (void)state;
    json_t *cases = cases_of("ppo"), *c;
    size_t index;
    json_array_foreach(cases, index, c) {
        plumb_trajectories t;
        plumb_ppo_estimates e;
        plumb_options o = {.kl_estimator = (char *)json_string_value(json_object_get(c, "kl_estimator")), .gamma = number(c, "gamma"),
                           .lam = number(c, "lam"), .whiten_rewards = json_is_true(json_object_get(c, "whiten_rewards")),
                           .cliprange = number(c, "cliprange"), .cliprange_value = number(c, "cliprange_value")};
        if (o.cliprange_value == 0) o.cliprange_value = 1e-300; /* off for plumb, a range of no width for the golden case */
        shape(&t, json_object_get(c, "old_logps"));
        fill(t.logp, json_object_get(c, "old_logps")), fill(t.ref_logp, json_object_get(c, "ref_logps")),
            fill(t.values, json_object_get(c, "values"));
        for (int64_t i = 0; i < t.n_sequences; i++) t.score[i] = json_number_value(json_array_get(json_object_get(c, "scores"), (size_t)i));
        plumb_ppo_estimate(&o, number(c, "kl_coef"), &t, &e);
        compare(t.rewards, json_object_get(c, "rewards"), "rewards"), compare(t.returns, json_object_get(c, "returns"), "returns");
        compare(t.advantages, json_object_get(c, "whitened_advantages"), "whitened advantages");

        double kl = 0, *now = calloc((size_t)t.n_tokens, sizeof *now), *d = calloc((size_t)t.n_tokens, sizeof *d), n = (double)t.n_tokens;
        plumb_ppo_stats stats = {0};
        plumb_ppo_options clip = plumb_ppo_clipping(&o);
        for (int64_t k = 0; k < t.n_tokens; k++) kl += t.logp[k] - t.ref_logp[k];
        assert_near(e.kl, kl, "kl");
        fill(now, json_object_get(c, "new_logps"));
        assert_near(plumb_objective_ppo_policy(&clip, now, t.logp, t.advantages, t.n_tokens, d, &stats) / n, number(c, "policy_loss"),
                    "policy loss");
        fill(now, json_object_get(c, "new_values"));
        assert_near(plumb_objective_ppo_value(&clip, now, t.values, t.returns, t.n_tokens, d, &stats) / n, number(c, "value_loss"),
                    "value loss");
        free(now), free(d);
        plumb_trajectories_free(&t);
    }
    json_decref(cases);
}

static void grpo_losses_are_golden(void **state) {
    (void)state;
    json_t *cases = cases_of("grpo"), *c;
    size_t index;
    json_array_foreach(cases, index, c) {
        plumb_trajectories t;
        plumb_grpo_comparison comparison;
        plumb_grpo_stats stats = {0};
        plumb_options o = {.loss_type = (char *)json_string_value(json_object_get(c, "loss_type")), .beta = number(c, "beta"),
                           .epsilon = number(c, "epsilon"), .epsilon_high = number(c, "epsilon_high"), .delta = number(c, "delta"),
                           .importance_sampling_level = (char *)json_string_value(json_object_get(c, "importance_sampling_level")),
                           .scale_rewards = (char *)json_string_value(json_object_get(c, "scale_rewards")),
                           .num_generations = json_integer_value(json_object_get(c, "group_size")),
                           .max_completion_length = json_integer_value(json_object_get(c, "max_completion_length"))};
        shape(&t, json_object_get(c, "old_logps"));
        fill(t.logp, json_object_get(c, "old_logps")), fill(t.ref_logp, json_object_get(c, "ref_logps"));
        double loss = 0, *now = calloc((size_t)t.n_tokens, sizeof *now), *d = calloc((size_t)t.n_tokens, sizeof *d),
               *advantages = calloc((size_t)t.n_sequences, sizeof *advantages);
        for (int64_t i = 0; i < t.n_sequences; i++)
            t.score[i] = json_number_value(json_array_get(json_object_get(c, "rewards"), (size_t)i));
        assert_int_equal(plumb_grpo_compare(&o, false, &t, advantages, &comparison), PLUMB_OK);
        assert_true(comparison.zero_spread >= 1); /* the cases have such a group */
        fill(now, json_object_get(c, "logps"));
        plumb_grpo_total total = {t.n_sequences, t.n_tokens};
        for (int64_t q = 0; q < t.n_sequences; q++) {
            assert_near(advantages[q], json_number_value(json_array_get(json_object_get(c, "advantages"), (size_t)q)), "advantage");
            loss += plumb_grpo_loss_of(&o, false, &t, q, advantages[q], now + t.token_offset[q], &total, d + t.token_offset[q], &stats);
        }
        assert_near(loss, number(c, "loss"), o.loss_type), compare(d, json_object_get(c, "d_logps"), "derivative");
        free(now), free(d), free(advantages);
        plumb_trajectories_free(&t);
    }
    json_decref(cases);
}

/* RLOO by its definition (TRL's): rewards less beta * KL of the completion, less the mean of the others; -min(r A, clip(r) A) with the
 * ratio of the whole completion, mean over completions. */
static void rloo_is_its_definition(void **state) {
    (void)state;
    enum { GROUPS = 2, SIZE = 3, N = GROUPS * SIZE };
    static const int64_t lengths[N] = {3, 1, 4, 2, 2, 5};
    plumb_trajectories t = {0};
    int64_t tokens = 0;
    for (int i = 0; i < N; i++) tokens += lengths[i];
    assert_int_equal(plumb_trajectories_alloc(&t, N, 0, tokens), PLUMB_OK);
    double *now = calloc((size_t)tokens, sizeof *now), *d = calloc((size_t)tokens, sizeof *d), advantages[N], adjusted[N], loss = 0,
           expected = 0;
    for (int i = 0; i < N; i++) t.token_offset[i + 1] = t.token_offset[i] + lengths[i], t.score[i] = sin(3.0 * i);
    for (int64_t k = 0; k < tokens; k++)
        t.logp[k] = -0.5 - 0.3 * sin((double)k), t.ref_logp[k] = t.logp[k] + 0.2 * cos(2.0 * (double)k),
        now[k] = t.logp[k] + 0.15 * sin(5.0 * (double)k);
    plumb_options o = {.beta = 0.3, .epsilon = 0.2, .scale_rewards = "none", .loss_type = "dapo", .importance_sampling_level = "token",
                       .num_generations = SIZE, .max_completion_length = 8};
    plumb_grpo_comparison c;
    plumb_grpo_stats stats = {0};
    plumb_grpo_total total = {N, tokens};
    assert_int_equal(plumb_grpo_compare(&o, true, &t, advantages, &c), PLUMB_OK);
    for (int i = 0; i < N; i++) {
        adjusted[i] = t.score[i];
        for (int64_t k = t.token_offset[i]; k < t.token_offset[i + 1]; k++) adjusted[i] -= o.beta * (t.logp[k] - t.ref_logp[k]);
    }
    for (int i = 0; i < N; i++) {
        double others = 0, ratio = 0;
        for (int j = i / SIZE * SIZE; j < i / SIZE * SIZE + SIZE; j++) others += j == i ? 0 : adjusted[j] / (SIZE - 1);
        assert_near(advantages[i], adjusted[i] - others, "advantage");
        for (int64_t k = t.token_offset[i]; k < t.token_offset[i + 1]; k++) ratio += now[k] - t.logp[k];
        ratio = exp(ratio);
        expected -= fmin(ratio * advantages[i], fmin(fmax(ratio, 1 - o.epsilon), 1 + o.epsilon) * advantages[i]) / N;
        loss += plumb_grpo_loss_of(&o, true, &t, i, advantages[i], now + t.token_offset[i], &total, d + t.token_offset[i], &stats);
    }
    assert_near(loss, expected, "loss");
    for (int i = 0; i < N; i++) /* differences of the loss by each log-probability */
        for (int64_t k = t.token_offset[i]; k < t.token_offset[i + 1]; k++) {
            double by[2], spare[8], old = now[k];
            for (int side = 0; side < 2; side++) {
                now[k] = old + (side ? -1e-6 : 1e-6);
                by[side] = plumb_grpo_loss_of(&o, true, &t, i, advantages[i], now + t.token_offset[i], &total, spare, &stats);
            }
            now[k] = old;
            assert_true(fabs((by[0] - by[1]) / 2e-6 - d[k]) < 1e-7);
        }
    free(now), free(d);
    plumb_trajectories_free(&t);
}

/* A NUL that a policy samples hides nothing behind it from rewards and the log. */
static void texts_are_whole(void **state) {
    (void)state;
    plumb_tokenizer *k;
    plumb_ids ids = {0};
    assert_int_equal(plumb_tokenizer_load(&k, PLUMB_TEST_GOLDEN "/curves/model"), PLUMB_OK);
    assert_int_equal(plumb_tokenize(k, "a\0b", 3, false, &ids), PLUMB_OK);
    plumb_sample sample = {.prompt_text = "p"};
    plumb_session s = {.tokenizer = k, .train = {.samples = &sample, .count = 1}};
    int64_t prompt_of = 0;
    plumb_online o = {.s = &s, .prompt_of = &prompt_of, .group_size = 1, .n_groups = 1};
    assert_int_equal(plumb_trajectories_alloc(&o.t, 1, 0, (int64_t)ids.count), PLUMB_OK);
    o.t.token_offset[1] = (int64_t)ids.count;
    memcpy(o.t.ids, ids.data, ids.count * sizeof *ids.data);
    assert_int_equal(plumb_online_texts(&o, 0, 1), PLUMB_OK);
    assert_string_equal(o.t.text[0], "a\xEF\xBF\xBD" "b");
    plumb_trajectories_free(&o.t);
    plumb_ids_free(&ids);
    plumb_tokenizer_free(k);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_are_whole), cmocka_unit_test(ppo_estimates_are_golden),
                                       cmocka_unit_test(grpo_losses_are_golden), cmocka_unit_test(rloo_is_its_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
