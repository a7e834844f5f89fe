/* AdamW: torch's trajectories, and bits that do not depend on where a shard begins. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "plumb/optim.h"
#include "json_cases.h"

enum { WEIGHTS = 5 };

typedef struct run { /* one golden case in double (exact arithmetic of the rule) and in fp32 (what training stores) */
    double w[WEIGHTS], m[WEIGHTS], v[WEIGHTS];
    float w32[WEIGHTS], m32[WEIGHTS], v32[WEIGHTS];
} run;

static double norm_of(const double *g) {
    double sum = 0;
    for (int i = 0; i < WEIGHTS; i++) sum += g[i] * g[i];
    return sqrt(sum);
}

static void check_step(run *r, const plumb_adamw *a, const golden_node *step, double max_norm, int index) {
    double *g = golden_doubles(golden_need(step, "grad"), NULL),
           *expected = golden_doubles(golden_need(step, "weights"), NULL);
    double norm = norm_of(g), scale = plumb_clip_factor(norm, max_norm);
    assert_true(fabs(norm - golden_need(step, "grad_norm")->number) <= 1e-9 * norm);
    plumb_adamw_factors f = plumb_adamw_factors_of(a, true);
    float g32[WEIGHTS];
    for (int i = 0; i < WEIGHTS; i++) {
        plumb_adamw_core(&r->w[i], &r->m[i], &r->v[i], g[i] * scale, &f);
        g32[i] = (float)g[i];
    }
    plumb_adamw_update(a, r->w32, r->m32, r->v32, g32, scale, true, WEIGHTS);
    for (int i = 0; i < WEIGHTS; i++) {
        double limit = fmax(1, fabs(expected[i]));
        if (fabs(r->w[i] - expected[i]) > 1e-9 * limit || fabs((double)r->w32[i] - expected[i]) > 1e-6 * limit)
            fail_msg("adamw[%d] step %d: weight %d is %.17g in double, %.9g in fp32, expected %.17g", index,
                     (int)a->step, i, r->w[i], (double)r->w32[i], expected[i]);
    }
    free(g), free(expected);
}

static void test_golden(void **state) {
    (void)state;
    golden_node *root = golden_load(PLUMB_TEST_GOLDEN "/losses/adamw.json");
    int index = 0;
    for (const golden_node *c = golden_need(root, "cases")->child; c; c = c->next, index++) {
        plumb_adamw a = {golden_need(c, "lr")->number,           golden_need(c, "beta1")->number,
                         golden_need(c, "beta2")->number,        golden_need(c, "eps")->number,
                         golden_need(c, "weight_decay")->number, 0};
        run r = {0};
        const golden_node *initial = golden_need(c, "initial");
        for (int i = 0; i < WEIGHTS; i++) r.w[i] = golden_item(initial, i)->number, r.w32[i] = (float)r.w[i];
        for (const golden_node *step = golden_need(c, "steps")->child; step; step = step->next) {
            a.step++;
            check_step(&r, &a, step, golden_need(c, "max_grad_norm")->number, index);
        }
        assert_int_equal(a.step, 5);
    }
    golden_free(root);
    assert_int_equal(index, 3);
}

enum { LENGTH = 1000 };

static void fill(float *w, float *m, float *v, float *g) {
    for (uint32_t i = 0; i < LENGTH; i++) {
        plumb_rng_key key = {.seed = 7, .token = i, .site = PLUMB_SITE_TEST};
        uint32_t r[4];
        plumb_rng_block(&key, r);
        w[i] = (float)r[0] * 0x1p-31f - 1.0f;
        m[i] = (float)r[1] * 0x1p-34f - 0.25f;
        v[i] = (float)r[2] * 0x1p-36f;
        g[i] = (float)r[3] * 0x1p-31f - 1.0f;
    }
}

/* The bits of every element are those of the core on it alone, wherever the calls cut the range. */
static void test_shards(void **state) {
    (void)state;
    plumb_adamw a = {1e-3, 0.9, 0.999, 1e-8, 0.1, 3};
    plumb_adamw_factors f = plumb_adamw_factors_of(&a, true);
    static float w[2][LENGTH], m[2][LENGTH], v[2][LENGTH], g[LENGTH];
    static const int cuts[] = {0, 1, 64, 67, 130, 500, 517, LENGTH};
    fill(w[0], m[0], v[0], g);
    fill(w[1], m[1], v[1], g);
    for (int i = 0; i < LENGTH; i++) {
        double x = w[0][i], first = m[0][i], second = v[0][i];
        plumb_adamw_core(&x, &first, &second, (double)g[i] * 0.7, &f);
        w[0][i] = (float)x, m[0][i] = (float)first, v[0][i] = (float)second;
    }
    for (size_t k = 0; k + 1 < sizeof cuts / sizeof *cuts; k++) {
        int at = cuts[k], n = cuts[k + 1] - at;
        plumb_adamw_update(&a, w[1] + at, m[1] + at, v[1] + at, g + at, 0.7, true, n);
    }
    assert_memory_equal(w[0], w[1], sizeof w[0]);
    assert_memory_equal(m[0], m[1], sizeof m[0]);
    assert_memory_equal(v[0], v[1], sizeof v[0]);
}

static void test_decay(void **state) {
    (void)state;
    plumb_adamw a = {0.1, 0.9, 0.999, 1e-8, 0.5, 1};
    float kept = 2, decayed = 2, m[2] = {0}, v[2] = {0}, zero = 0;
    plumb_adamw_update(&a, &kept, &m[0], &v[0], &zero, 1, false, 1);
    plumb_adamw_update(&a, &decayed, &m[1], &v[1], &zero, 1, true, 1);
    assert_true(kept == 2.0f && decayed == 1.9f);
    plumb_adamw_update(&a, NULL, NULL, NULL, NULL, 1, true, 0);
}

static void test_clip(void **state) {
    (void)state;
    assert_true(plumb_clip_factor(4, 1) == 1 / (4 + 1e-6));
    assert_true(plumb_clip_factor(1, 1) == 1 / (1 + 1e-6)); /* torch scales at the limit already */
    assert_true(plumb_clip_factor(0.5, 1) == 1 && plumb_clip_factor(0, 1) == 1);
    assert_true(plumb_clip_factor(1e9, 0) == 1);
    assert_true(isnan(plumb_clip_factor(NAN, 1)) && plumb_clip_factor(INFINITY, 1) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_shards),
                                       cmocka_unit_test(test_decay), cmocka_unit_test(test_clip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
