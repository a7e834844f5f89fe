/* Reward model, PPO and the GRPO family: derivatives against central differences, what the formulas promise, and the edges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "plumb/objective.h"

enum { N = 24 };
static const double H = 1e-6;

static double uniform(uint32_t sample, int i) {
    return plumb_rng_uniform(&(plumb_rng_key){.seed = 11, .sample = sample, .token = (uint32_t)i, .site = PLUMB_SITE_TEST});
}
static double normal(uint32_t sample, int i) {
    return plumb_rng_normal(&(plumb_rng_key){.seed = 11, .sample = sample, .token = (uint32_t)i, .site = PLUMB_SITE_TEST});
}
static bool near(double a, double b, double tolerance) { return fabs(a - b) <= tolerance * fmax(1, fabs(b)); }

/* A function of N numbers, and central differences of it; `skip` says where a kink lies within the step. */
typedef double (*function)(const double *x, const void *context);
static void check_slopes(function f, const void *context, const double *x, const double *stated, const char *what) {
    for (int i = 0; i < N; i++) {
        double y[N], side[2];
        for (int k = 0; k < 2; k++) {
            memcpy(y, x, sizeof y);
            y[i] += k ? -H : H;
            side[k] = f(y, context);
        }
        double slope = (side[0] - side[1]) / (2 * H);
        if (!near(stated[i], slope, 1e-7)) fail_msg("%s: derivative %d is %.12g, by differences %.12g", what, i, stated[i], slope);
    }
}

/* Log-probabilities whose ratios lie at least 1e-4 away from every bound at which a loss has a kink. */
static void make_logps(uint32_t sample, double *logp, double *old, double *ref) {
    static const double kinks[] = {0.7, 0.8, 1.2, 1.3, 1.4, 1.5};
    for (int i = 0; i < N; i++) {
        old[i] = -0.05 - 2 * uniform(sample, i), ref[i] = old[i] + 0.3 * normal(sample + 1, i),
        logp[i] = old[i] + 0.4 * normal(sample + 2, i);
        for (size_t k = 0; k < sizeof kinks / sizeof *kinks; k++)
            if (fabs(exp(logp[i] - old[i]) - kinks[k]) < 1e-4) logp[i] += 3e-4;
    }
}

/* --- reward model ----------------------------------------------------------------------------- */
static void test_reward(void **state) {
    (void)state;
    /* margin, center, chosen, rejected */
    const double cases[][4] = {{0, 0, 0.3, -1.2}, {0.5, 0, -2, 1}, {0, 0.01, 3, 2.5}, {1.5, 0.2, -0.4, -3}};
    for (size_t k = 0; k < 4; k++) {
        const double *c = cases[k];
        double dc, dr;
        double loss = plumb_objective_reward(c[0], c[1], c[2], c[3], &dc, &dr);
        assert_true(near(loss, log(1 + exp(-(c[2] - c[3] - c[0]))) + c[1] * (c[2] + c[3]) * (c[2] + c[3]), 1e-14));
        double by_c = (plumb_objective_reward(c[0], c[1], c[2] + H, c[3], NULL, NULL) -
                       plumb_objective_reward(c[0], c[1], c[2] - H, c[3], NULL, NULL)) /
                      (2 * H);
        double by_r = (plumb_objective_reward(c[0], c[1], c[2], c[3] + H, NULL, NULL) -
                       plumb_objective_reward(c[0], c[1], c[2], c[3] - H, NULL, NULL)) /
                      (2 * H);
        assert_true(near(dc, by_c, 1e-8) && near(dr, by_r, 1e-8));
        if (c[1] == 0) assert_true(dc == -dr); /* only the difference of the scores counts */
    }
    double dc, dr;
    assert_true(near(plumb_objective_reward(0, 0, 7, 7, &dc, &dr), log(2), 1e-15) && dc == -0.5 && dr == 0.5);
    assert_true(plumb_objective_reward(0, 0, -1e30, 1e30, &dc, &dr) == 2e30 && dc == -1 && dr == 1);
    assert_true(plumb_objective_reward(0, 0, 1e30, -1e30, &dc, &dr) == 0 && dc == 0 && dr == 0);
}

/* --- rewards, advantages ---------------------------------------------------------------------- */
static void test_kl(void **state) {
    (void)state;
    assert_true(near(plumb_kl_estimate(PLUMB_KL_K1, -1, -1.5), 0.5, 1e-15) && near(plumb_kl_estimate(PLUMB_KL_K1, -2, -1), -1, 1e-15));
    assert_true(near(plumb_kl_estimate(PLUMB_KL_K2, -2, -1), 0.5, 1e-15));
    assert_true(near(plumb_kl_estimate(PLUMB_KL_K3, -1, -1.5), exp(-0.5) - 0.5, 1e-15) &&
                near(plumb_kl_estimate(PLUMB_KL_K3, -26, -1), exp(25) - 26, 1e-15));
    for (int e = PLUMB_KL_K1; e <= PLUMB_KL_K3; e++) {
        assert_true(plumb_kl_estimate((plumb_kl_estimator)e, -0.7, -0.7) == 0);
        assert_true(isfinite(plumb_kl_estimate((plumb_kl_estimator)e, -3e38, 0)) &&
                    isfinite(plumb_kl_estimate((plumb_kl_estimator)e, 0, -3e38)));
    }
    /* All three estimate the same divergence: k1 and k3 exactly in the mean, here of a policy (0.6, 0.4) against (0.3, 0.7). */
    double p[] = {0.6, 0.4}, q[] = {0.3, 0.7}, truth = 0, k1 = 0, k3 = 0;
    for (int i = 0; i < 2; i++) {
        truth += p[i] * log(p[i] / q[i]);
        k1 += p[i] * plumb_kl_estimate(PLUMB_KL_K1, log(p[i]), log(q[i])),
            k3 += p[i] * plumb_kl_estimate(PLUMB_KL_K3, log(p[i]), log(q[i]));
    }
    assert_true(near(k1, truth, 1e-15) && near(k3, truth, 1e-15));
}

static void test_shape(void **state) {
    (void)state;
    double logp[] = {-1, -2, -0.5}, ref[] = {-1.5, -1, -0.5}, r[3];
    plumb_rewards_shape(PLUMB_KL_K1, 0.1, 4, logp, ref, 3, r);
    assert_true(near(r[0], -0.05, 1e-15) && near(r[1], 0.1, 1e-15) && r[2] == 4);
    plumb_rewards_shape(PLUMB_KL_K1, 0.1, 4, logp, ref, 1, r);
    assert_true(near(r[0], 3.95, 1e-15) && near(r[1], 0.1, 1e-15)); /* one token carries both; the next is untouched */
}

static void test_gae(void **state) {
    (void)state;
    double r[N], v[N], a[N], ret[N], to_go = 0;
    for (int i = 0; i < N; i++) r[i] = normal(20, i), v[i] = normal(21, i);
    plumb_gae(r, v, N, 1, 1, a, ret); /* reward-to-go minus value */
    for (int i = N - 1; i >= 0; i--) to_go += r[i], assert_true(near(a[i], to_go - v[i], 1e-13) && near(ret[i], to_go, 1e-13));
    plumb_gae(r, v, N, 0.9, 0, a, ret); /* one step of temporal difference */
    for (int i = 0; i < N; i++) assert_true(near(a[i], r[i] + 0.9 * (i + 1 < N ? v[i + 1] : 0) - v[i], 1e-15));
    plumb_gae(r, v, N, 0.97, 0.9, a, ret); /* eq. 16, written out */
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int k = i; k < N; k++) sum += pow(0.97 * 0.9, k - i) * (r[k] + 0.97 * (k + 1 < N ? v[k + 1] : 0) - v[k]);
        assert_true(near(a[i], sum, 1e-13) && a[i] + v[i] == ret[i]);
    }
    double first = a[0], last = ret[N - 1];
    plumb_gae(r, v, N, 0.97, 0.9, r, v); /* in place */
    assert_true(r[0] == first && v[N - 1] == last && v[0] == ret[0]);
    plumb_gae(&a[0], &ret[0], 1, 0.5, 0.5, &r[0], NULL);
    assert_true(r[0] == a[0] - ret[0]);
}

/* The stated order of summation, to the bit: blocks of 4,096 terms, added in order. */
static double blocked(const double *x, int n, double centre, int power) {
    double total = 0;
    for (int first = 0; first < n; first += 4096) {
        double block = 0;
        for (int i = first; i < n && i < first + 4096; i++) block += power == 2 ? (x[i] - centre) * (x[i] - centre) : x[i];
        total += block;
    }
    return total;
}

static void test_whiten(void **state) {
    (void)state;
    enum { MANY = 10000 };
    double *x = malloc(MANY * sizeof *x), *y = malloc(2 * MANY * sizeof *y), *z = malloc(MANY * sizeof *z), mean = 0, var = 0, level = 0;
    uint8_t *mask = calloc(2 * MANY, 1);
    assert_true(x && y && z && mask);
    for (int i = 0; i < MANY; i++) x[i] = z[i] = 1e4 + 3 * normal(30, i), level += x[i] / MANY;
    /* The same numbers among entries that are masked, wherever those stand and whatever they hold, NaN included: the same bits. */
    for (int i = 0, at = 0; i < MANY; i++) {
        for (int pad = i % 7 == 0 ? i % 11 : 0; pad > 0 && at - i < MANY; pad--) y[at++] = pad % 2 ? NAN : 1e300;
        mask[at] = 1, y[at++] = x[i];
        if (i == MANY - 1)
            while (at < 2 * MANY) y[at++] = INFINITY;
    }
    double centre = blocked(x, MANY, 0, 1) / MANY, scale = 1 / sqrt(blocked(x, MANY, centre, 2) / (MANY - 1) + 1e-8);
    plumb_whiten(x, NULL, MANY, true);
    for (int i = 0; i < MANY; i++) assert_true(x[i] == (z[i] - centre) * scale);
    plumb_whiten(y, mask, 2 * MANY, true);
    for (int i = 0, k = 0; i < 2 * MANY; i++) assert_true(mask[i] ? y[i] == x[k++] : y[i] == 0);
    for (int i = 0; i < MANY; i++) mean += x[i] / MANY;
    for (int i = 0; i < MANY; i++) var += (x[i] - mean) * (x[i] - mean) / (MANY - 1);
    assert_true(fabs(mean) < 1e-10 && fabs(var - 1) < 1e-8);
    plumb_whiten(z, NULL, MANY, false); /* the scale alone: the mean stays */
    for (int i = 0; i < MANY; i++) assert_true(near(z[i], x[i] + level, 1e-12));

    double equal[] = {0.1, 0.1, 0.1}, one[] = {5}, kept[] = {5}, pair[] = {1, 3}, none[] = {NAN, NAN};
    plumb_whiten(equal, NULL, 3, true);
    for (int i = 0; i < 3; i++) assert_true(fabs(equal[i]) < 1e-11);
    plumb_whiten(one, NULL, 1, true), plumb_whiten(kept, NULL, 1, false), plumb_whiten(pair, NULL, 2, true),
        plumb_whiten(none, mask + 2 * MANY - 2, 2, true);
    assert_true(one[0] == 0 && kept[0] == 5 && none[0] == 0 && none[1] == 0);
    assert_true(near(pair[1], 1 / sqrt(2 + 1e-8), 1e-15) && pair[0] == -pair[1]); /* Bessel: the variance of 1, 3 is 2 */
    plumb_whiten(NULL, NULL, 0, true);
    free(x), free(y), free(z), free(mask);
}

static void test_group_advantages(void **state) {
    (void)state;
    double r[12], a[12], b[12];
    int64_t equal = -1;
    for (int i = 0; i < 12; i++) r[i] = i < 4 ? 0.1 : (double)(int)(4 * uniform(40, i)) / 3 + (i == 5) + (i == 9);
    plumb_grpo_advantages(PLUMB_SCALE_GROUP, r, 12, 4, a, &equal);
    assert_int_equal(equal, 1);
    for (int i = 0; i < 4; i++) assert_true(a[i] == 0);
    for (int g = 4; g < 12; g += 4) {
        double mean = (r[g] + r[g + 1] + r[g + 2] + r[g + 3]) / 4, squares = 0, sum = 0;
        for (int i = g; i < g + 4; i++) squares += (r[i] - mean) * (r[i] - mean);
        for (int i = g; i < g + 4; i++) sum += a[i], assert_true(near(a[i], (r[i] - mean) / (sqrt(squares / 3) + 1e-4), 1e-13));
        assert_true(fabs(sum) < 1e-13);
    }
    plumb_grpo_advantages(PLUMB_SCALE_NONE, r, 12, 4, b, NULL);
    double mean = 0, squares = 0;
    for (int i = 0; i < 12; i++) mean += r[i] / 12;
    for (int i = 0; i < 12; i++) squares += (r[i] - mean) * (r[i] - mean);
    plumb_grpo_advantages(PLUMB_SCALE_BATCH, r, 12, 4, a, &equal);
    for (int i = 0; i < 12; i++) assert_true(near(a[i], b[i] / (sqrt(squares / 11) + 1e-4), 1e-13));
    for (int i = 0; i < 4; i++) assert_true(a[i] == 0 && b[i] == 0);

    plumb_rloo_advantages(r, 12, 4, a);
    for (int g = 0; g < 12; g += 4) {
        assert_true(fabs(a[g] + a[g + 1] + a[g + 2] + a[g + 3]) < 1e-14);
        for (int i = g; i < g + 4; i++)
            assert_true(near(a[i], r[i] - (r[g] + r[g + 1] + r[g + 2] + r[g + 3] - r[i]) / 3, 1e-14) && (g > 0 || a[i] == 0));
        for (int i = g; i < g + 4; i++) assert_true(near(a[i], b[i] * 4 / 3, 1e-13)); /* RLOO = G/(G - 1) of the centred reward */
    }
    plumb_grpo_advantages(PLUMB_SCALE_GROUP, r, 12, 1, a, &equal); /* groups of one have no spread */
    assert_int_equal(equal, 12);
    plumb_rloo_advantages(r, 12, 1, b);
    for (int i = 0; i < 12; i++) assert_true(a[i] == 0 && b[i] == 0);
    memcpy(b, r, sizeof b);
    plumb_rloo_advantages(r, 12, 6, a), plumb_rloo_advantages(b, 12, 6, b); /* in place */
    assert_memory_equal(a, b, sizeof a);
}

/* --- PPO -------------------------------------------------------------------------------------- */
typedef struct ppo_case {
    plumb_ppo_options o;
    double old[N], other[N]; /* other: advantages, or returns */
} ppo_case;
static double policy_of(const double *x, const void *context) {
    const ppo_case *c = context;
    return plumb_objective_ppo_policy(&c->o, x, c->old, c->other, N, NULL, NULL);
}
static double value_of(const double *x, const void *context) {
    const ppo_case *c = context;
    return plumb_objective_ppo_value(&c->o, x, c->old, c->other, N, NULL, NULL);
}

static void test_ppo_policy(void **state) {
    (void)state;
    const plumb_ppo_options options[] = {{.clip_range = 0.2},
                                         {.clip_range = 0.3, .dual_clip = 1.4},
                                         {.clip_range = 0.2, .dual_clip = 1.5, .log_ratio_limit = 0.6}};
    for (size_t k = 0; k < 3; k++) {
        ppo_case c = {.o = options[k]};
        double logp[N], ref[N], d[N], expected = 0;
        make_logps(50 + 10 * (uint32_t)k, logp, c.old, ref);
        for (int i = 0; i < N; i++) c.other[i] = normal(90 + (uint32_t)k, i);
        plumb_ppo_stats s = {0};
        double loss = plumb_objective_ppo_policy(&c.o, logp, c.old, c.other, N, d, &s);
        check_slopes(policy_of, &c, logp, d, "ppo policy");
        if (k == 0) {
            double ratio = 0, kl = 0;
            int clipped = 0;
            for (int i = 0; i < N; i++) {
                double w = exp(logp[i] - c.old[i]), a = c.other[i];
                expected -= fmin(a * w, a * fmin(fmax(w, 0.8), 1.2));
                clipped += (a > 0 && w > 1.2) || (a < 0 && w < 0.8), ratio += w, kl += 0.5 * pow(logp[i] - c.old[i], 2);
            }
            assert_true(near(loss, expected, 1e-13) && s.clipped == clipped && clipped > 0 && near(s.ratio, ratio, 1e-13) &&
                        near(s.approx_kl, kl, 1e-13));
        } else
            assert_true(s.dual_clipped > 0);
        assert_true(s.policy_loss == loss && s.tokens == N);
    }
}

/* At the first update the policy is the old one: the loss is minus the sum of the advantages, the derivative minus the advantage. */
static void test_ppo_start(void **state) {
    (void)state;
    double logp[N], a[N], d[N], sum = 0;
    for (int i = 0; i < N; i++) logp[i] = -uniform(100, i), a[i] = normal(101, i), sum += a[i];
    plumb_ppo_stats s = {0};
    double loss = plumb_objective_ppo_policy(&(plumb_ppo_options){.clip_range = 0.2, .dual_clip = 3}, logp, logp, a, N, d, &s);
    assert_true(near(loss, -sum, 1e-14));
    for (int i = 0; i < N; i++) assert_true(d[i] == -a[i]);
    assert_true(s.clipped == 0 && s.dual_clipped == 0 && s.ratio == N && s.approx_kl == 0 && s.k3 == 0);
    plumb_objective_ppo_policy(&(plumb_ppo_options){.clip_range = 0.2}, logp, logp, a, N, NULL, &s);
    assert_true(s.tokens == 2 * N && s.policy_loss == 2 * loss); /* stats add up */
}

static void test_ppo_value(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        ppo_case c = {.o = {.clip_range_value = k ? 0 : 0.2}};
        double v[N], d[N], expected = 0;
        for (int i = 0; i < N; i++)
            c.old[i] = normal(110, i), v[i] = c.old[i] + 0.4 * normal(111, i), c.other[i] = c.old[i] + 0.7 * normal(112, i);
        plumb_ppo_stats s = {0};
        double loss = plumb_objective_ppo_value(&c.o, v, c.old, c.other, N, d, &s);
        check_slopes(value_of, &c, v, d, "ppo value");
        int clipped = 0;
        for (int i = 0; i < N; i++) {
            double u = k ? v[i] : fmin(fmax(v[i], c.old[i] - 0.2), c.old[i] + 0.2), x = pow(v[i] - c.other[i], 2),
                   y = pow(u - c.other[i], 2);
            expected += 0.5 * fmax(x, y), clipped += y > x;
        }
        assert_true(near(loss, expected, 1e-14) && s.value_clipped == clipped && (clipped > 0) == !k && s.value_loss == loss &&
                    s.tokens == 0);
    }
}

static void test_kl_adapt(void **state) {
    (void)state;
    assert_true(near(plumb_kl_adapt(0.2, 6, 6, 10000, 256), 0.2, 1e-15));
    assert_true(near(plumb_kl_adapt(0.2, 6.6, 6, 10000, 256), 0.2 * (1 + 0.1 * 0.0256), 1e-15));
    assert_true(near(plumb_kl_adapt(0.2, 1e6, 6, 10000, 256), 0.2 * (1 + 0.2 * 0.0256), 1e-15) &&
                near(plumb_kl_adapt(0.2, -5, 6, 10000, 256), 0.2 * (1 - 0.2 * 0.0256), 1e-15));
    assert_true(plumb_kl_adapt(0.2, 0, 6, 1, 100) == 0);
}

/* --- the GRPO family -------------------------------------------------------------------------- */
typedef struct grpo_case {
    plumb_grpo_options o;
    double advantage, weight, old[N], ref[N];
    const double *logp; /* where the weight of cispo is taken */
} grpo_case;
static double grpo_of(const double *x, const void *context) {
    const grpo_case *c = context;
    return plumb_objective_grpo(&c->o, c->advantage, c->weight, x, c->old, c->ref, N, NULL, NULL);
}
/* cispo differentiates a surrogate whose weights stand still: the policy moves, and the old one with it. */
static double cispo_of(const double *x, const void *context) {
    const grpo_case *c = context;
    double old[N];
    for (int i = 0; i < N; i++) old[i] = c->old[i] + x[i] - c->logp[i];
    return plumb_objective_grpo(&c->o, c->advantage, c->weight, x, old, c->ref, N, NULL, NULL);
}

static void test_grpo_derivatives(void **state) {
    (void)state;
    const plumb_grpo_options options[] = {
        {.loss = PLUMB_GRPO, .epsilon = 0.2, .epsilon_high = 0.2},
        {.loss = PLUMB_GRPO_DAPO, .epsilon = 0.2, .epsilon_high = 0.3, .beta = 0.04},
        {.loss = PLUMB_GRPO_BNPO, .epsilon = 0.2, .epsilon_high = 0.3, .delta = 1.5, .beta = 0.5},
        {.loss = PLUMB_GRPO_DR, .epsilon = 0.2, .epsilon_high = 0.3, .delta = 1.2}, /* delta within the range */
        {.loss = PLUMB_GRPO, .epsilon = 0.2, .epsilon_high = 0.2, .sequence_level = true},
        {.loss = PLUMB_GRPO, .epsilon = 1e-6, .epsilon_high = 1e-6, .sequence_level = true, .beta = 0.1},
        {.loss = PLUMB_GRPO_CISPO, .epsilon_high = 1.2},
        {.loss = PLUMB_GRPO_CISPO, .epsilon_high = 1.2, .sequence_level = true, .beta = 0.3},
        {.loss = PLUMB_GRPO_DAPO, .epsilon = 0.2, .epsilon_high = 0.2, .beta = 0.1, .log_ratio_limit = 0.5},
    };
    for (size_t k = 0; k < sizeof options / sizeof *options; k++)
        for (int sign = -1; sign <= 1; sign++) {
            double logp[N], d[N];
            grpo_case c = {.o = options[k], .advantage = 1.3 * sign, .weight = 0.37, .logp = logp};
            make_logps(200 + 10 * (uint32_t)k, logp, c.old, c.ref);
            (void)plumb_objective_grpo(&c.o, c.advantage, c.weight, logp, c.old, c.ref, N, d, NULL);
            check_slopes(options[k].loss == PLUMB_GRPO_CISPO ? cispo_of : grpo_of, &c, logp, d, "grpo");
        }
}

/* The formulas and the counts, written out once more, without the limits. */
static void test_grpo_values(void **state) {
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        double logp[N], old[N], ref[N], d[N], a = 0.8 * sign, loss = 0, kl = 0, ratio = 0, capped = 0, cispo = 0;
        int low = 0, high = 0, above = 0;
        make_logps(300, logp, old, ref);
        for (int i = 0; i < N; i++) {
            double w = exp(logp[i] - old[i]), k3 = exp(ref[i] - logp[i]) - 1 - (ref[i] - logp[i]);
            loss += -fmin(a * w, a * fmin(fmax(w, 0.8), 1.3)) + 0.1 * k3, kl += k3, ratio += w;
            capped += -fmin(a * fmin(w, 1.5), a * fmin(fmax(w, 0.8), 1.3)), cispo += -a * fmin(w, 1.2) * logp[i];
            low += w < 0.8 && a < 0, high += w > 1.3 && a > 0, above += w > 1.2 && a > 0;
        }
        plumb_grpo_options o = {.loss = PLUMB_GRPO_DAPO, .beta = 0.1, .epsilon = 0.2, .epsilon_high = 0.3};
        plumb_grpo_stats s = {0};
        assert_true(near(plumb_objective_grpo(&o, a, 0.5, logp, old, ref, N, d, &s), 0.5 * loss, 1e-13));
        assert_true(near(s.loss, 0.5 * loss, 1e-13) && near(s.kl, kl, 1e-13) && near(s.ratio, ratio, 1e-13) && s.tokens == N &&
                    s.ratios == N);
        assert_true(s.clipped_low == low && s.clipped_high == high && low + high > 0);
        o.beta = 0, o.delta = 1.5;
        assert_true(near(plumb_objective_grpo(&o, a, 1, logp, old, NULL, N, NULL, NULL), capped, 1e-13));
        o.delta = 1.2, s = (plumb_grpo_stats){0}; /* a cap within the range leaves nothing to clip above, as TRL counts */
        (void)plumb_objective_grpo(&o, a, 1, logp, old, NULL, N, NULL, &s);
        assert_true(s.clipped_high == 0 && s.clipped_low == low);
        o = (plumb_grpo_options){.loss = PLUMB_GRPO_CISPO, .epsilon_high = 1.2}, s = (plumb_grpo_stats){0};
        assert_true(near(plumb_objective_grpo(&o, a, 1, logp, old, NULL, N, d, &s), cispo, 1e-13) && s.clipped_high == above &&
                    s.clipped_low == 0);
        for (int i = 0; i < N; i++) assert_true(near(d[i], -a * fmin(exp(logp[i] - old[i]), 1.2), 1e-14));
    }
}

/* One ratio for the whole completion, counted once; every token has its derivative. */
static void test_grpo_sequence(void **state) {
    (void)state;
    double logp[N], old[N], ref[N], d[N], mean = 0, sum = 0;
    make_logps(310, logp, old, ref);
    for (int i = 0; i < N; i++) mean += (logp[i] - old[i]) / N;
    double w = exp(mean), weight = plumb_grpo_weight(PLUMB_GRPO, N, 5, 999, 50);
    plumb_grpo_options o = {.loss = PLUMB_GRPO, .epsilon = 0.5, .epsilon_high = 0.5, .sequence_level = true};
    plumb_grpo_stats s = {0};
    assert_true(near(plumb_objective_grpo(&o, 0.8, weight, logp, old, NULL, N, d, &s), -0.8 * w / 5, 1e-14));
    for (int i = 0; i < N; i++) assert_true(near(d[i], -weight * 0.8 * w, 1e-14)), sum += d[i];
    assert_true(near(sum, -0.8 * w / 5, 1e-14) && s.ratios == 1 && near(s.ratio, w, 1e-14) && s.tokens == N &&
                s.clipped_low + s.clipped_high == 0);
    o.epsilon = o.epsilon_high = 1e-9, s = (plumb_grpo_stats){0};
    (void)plumb_objective_grpo(&o, w > 1 ? 0.8 : -0.8, weight, logp, old, NULL, N, d, &s);
    assert_true(s.clipped_low + s.clipped_high == 1 && d[0] == 0 && d[N - 1] == 0);
}

static void test_weights(void **state) {
    (void)state;
    assert_true(plumb_grpo_weight(PLUMB_GRPO, 10, 8, 77, 64) == 1.0 / 80 && plumb_grpo_weight(PLUMB_GRPO_DR, 10, 8, 77, 64) == 1.0 / 512);
    assert_true(plumb_grpo_weight(PLUMB_GRPO_BNPO, 10, 8, 77, 64) == 1.0 / 77 &&
                plumb_grpo_weight(PLUMB_GRPO_DAPO, 10, 8, 77, 64) == 1.0 / 77);
    assert_true(plumb_grpo_weight(PLUMB_GRPO_CISPO, 10, 8, 77, 64) == 1.0 / 77 && isfinite(plumb_grpo_weight(PLUMB_GRPO, 0, 0, 0, 0)) &&
                isfinite(plumb_grpo_weight(PLUMB_GRPO_DAPO, 0, 0, 0, 0)));
    assert_int_equal(plumb_grpo_loss_from_name("dr_grpo"), PLUMB_GRPO_DR);
    assert_int_equal(plumb_grpo_loss_from_name("cispo"), PLUMB_GRPO_CISPO);
    assert_int_equal(plumb_grpo_loss_from_name("sapo"), -1);
    assert_int_equal(plumb_kl_estimator_from_name("k3"), PLUMB_KL_K3);
    assert_int_equal(plumb_kl_estimator_from_name("k4"), -1);
    assert_int_equal(plumb_reward_scaling_from_name("batch"), PLUMB_SCALE_BATCH);
    assert_int_equal(plumb_reward_scaling_from_name(""), -1);
}

/* Log-ratios far out: everything stays finite, and beyond the limit there is no gradient. */
static void test_extremes(void **state) {
    (void)state;
    const double far[] = {3e38, 1000, 20.5, -20.5, -1000, -3e38};
    for (int i = 0; i < 6; i++)
        for (int sign = -1; sign <= 1; sign += 2) {
            double logp = far[i] < 0 ? far[i] : 0, old = far[i] < 0 ? 0 : -far[i], a = sign * 3e3, d = NAN;
            plumb_ppo_stats s = {0};
            assert_true(isfinite(plumb_objective_ppo_policy(&(plumb_ppo_options){.clip_range = 0.2}, &logp, &old, &a, 1, &d, &s)) &&
                        d == 0);
            assert_true(isfinite(s.ratio) && isfinite(s.approx_kl) && isfinite(s.k3) && s.ratio <= exp(20));
            for (int loss = PLUMB_GRPO; loss <= PLUMB_GRPO_CISPO; loss++)
                for (int level = 0; level < 2; level++) {
                    plumb_grpo_options o = {.loss = (plumb_grpo_loss)loss, .beta = 0.1, .epsilon = 0.2, .epsilon_high = 0.2,
                                            .sequence_level = level};
                    plumb_grpo_stats g = {0};
                    assert_true(isfinite(plumb_objective_grpo(&o, a, 1, &logp, &old, &old, 1, &d, &g)) && isfinite(g.kl) &&
                                isfinite(g.ratio) && isfinite(g.approx_kl));
                    assert_true(loss == PLUMB_GRPO_CISPO ? isfinite(d) : d == 0);
                    /* no gradient of the penalty */
                    assert_true(isfinite(plumb_objective_grpo(&o, a, 1, &old, &old, &logp, 1, &d, NULL)) &&
                                near(d, -a * (loss == PLUMB_GRPO_CISPO ? 0.2 : 1), 1e-15));
                }
        }
    double within = 19.5, zero = 0, a = -1, d, value = 3e38, back = -3e38;
    (void)plumb_objective_ppo_policy(&(plumb_ppo_options){.clip_range = 0.2}, &within, &zero, &a, 1, &d, NULL);
    assert_true(near(d, exp(19.5), 1e-15)); /* a negative advantage is not clipped above */
    assert_true(isfinite(plumb_objective_ppo_value(&(plumb_ppo_options){.clip_range_value = 0.2}, &value, &back, &back, 1, &d, NULL)) &&
                isfinite(d));
    plumb_grpo_stats none = {0};
    assert_true(
        plumb_objective_grpo(&(plumb_grpo_options){.sequence_level = true, .epsilon = 0.2}, 1, 1, NULL, NULL, NULL, 0, NULL, &none) == 0 &&
        none.ratios == 0 && none.tokens == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reward),
        cmocka_unit_test(test_kl),
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_gae),
        cmocka_unit_test(test_whiten),
        cmocka_unit_test(test_group_advantages),
        cmocka_unit_test(test_ppo_policy),
        cmocka_unit_test(test_ppo_start),
        cmocka_unit_test(test_ppo_value),
        cmocka_unit_test(test_kl_adapt),
        cmocka_unit_test(test_grpo_derivatives),
        cmocka_unit_test(test_grpo_values),
        cmocka_unit_test(test_grpo_sequence),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
