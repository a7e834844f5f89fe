/* Area under the ROC curve and calibration: values by hand, and against the definition over all pairs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "plumb/metrics.h"

static double auc_of(const double *scores, const uint8_t *labels, int64_t n) {
    double auc = 7;
    assert_int_equal(plumb_metric_auc(scores, labels, n, &auc), PLUMB_OK);
    return auc;
}

static void near(double a, double b) {
    if (!(fabs(a - b) <= 1e-14)) fail_msg("%.17g, expected %.17g", a, b);
}

static void test_auc_by_hand(void **state) {
    (void)state;
    static const struct {
        int n;
        double scores[6];
        uint8_t labels[6];
        double auc;
    } cases[] = {
        {2, {0, 1}, {0, 1}, 1},
        {2, {1, 0}, {0, 1}, 0},
        {2, {1, 1}, {0, 1}, 0.5},
        {4, {0.1, 0.4, 0.35, 0.8}, {0, 0, 1, 1}, 0.75}, /* scikit-learn's example */
        {5, {3, 1, 2, 2, 1}, {1, 0, 1, 0, 7}, 4.0 / 6}, /* 3: 2 wins; 2: 1 win and a tie; 1: a tie */
        {4, {-INFINITY, 0, -0.0, INFINITY}, {0, 1, 0, 1}, 3.5 / 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        near(auc_of(cases[i].scores, cases[i].labels, cases[i].n), cases[i].auc);
}

static void test_auc_undefined(void **state) {
    (void)state;
    const double scores[] = {1, 2, NAN};
    assert_true(isnan(auc_of(scores, (const uint8_t[]){1, 1}, 2)));
    assert_true(isnan(auc_of(scores, (const uint8_t[]){0, 0}, 2)));
    assert_true(isnan(auc_of(scores, (const uint8_t[]){0, 1, 1}, 3)));
    assert_true(isnan(auc_of(scores, NULL, 0)));
    double auc;
    plumb_alloc_fail_after(1);
    assert_int_equal(plumb_metric_auc(scores, (const uint8_t[]){0, 1}, 2, &auc), PLUMB_E_MEMORY);
    plumb_alloc_fail_after(0);
}

static void test_auc_against_all_pairs(void **state) {
    (void)state;
    enum { MOST = 300 };
    double scores[MOST];
    uint8_t labels[MOST];
    for (uint32_t round = 0; round < 40; round++) {
        int n = 2 + (int)(round * 7);
        for (int i = 0; i < n; i++) {
            plumb_rng_key key = {.seed = 5, .step = round, .sample = (uint32_t)i, .site = PLUMB_SITE_TEST};
            scores[i] = plumb_rng_normal(&key);
            if (round % 2) scores[i] = floor(scores[i] * 3); /* many ties */
            key.token = 1;
            labels[i] = i == 0 || (i > 1 && plumb_rng_uniform(&key) < 0.3);
        }
        double wins = 0, pairs = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                if (!labels[i] || labels[j]) continue;
                pairs++;
                wins += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
            }
        near(auc_of(scores, labels, n), wins / pairs);
    }
}

/* log(p / (1 - p)): the margin that predicts p */
static double margin(double p) {
    return log(p / (1 - p));
}

static void test_calibration_by_hand(void **state) {
    (void)state;
    const double margins[] = {margin(0.6), -margin(0.6), margin(0.7), margin(0.9), margin(0.95), -margin(0.98), 0};
    plumb_calibration_bin bins[3];
    double error = plumb_metric_calibration(margins, 7, 2, bins);
    near(bins[0].low, 0.5), near(bins[0].high, 0.75), near(bins[1].low, 0.75), near(bins[1].high, 1);
    assert_int_equal(bins[0].count, 4);
    assert_int_equal(bins[1].count, 3);
    near(bins[0].predicted, 2.4 / 4), near(bins[0].observed, 2.0 / 4); /* a margin of 0 is no success */
    near(bins[1].predicted, 2.83 / 3), near(bins[1].observed, 2.0 / 3);
    near(error, (0.4 + 0.83) / 7);

    near(plumb_metric_calibration(margins, 7, 1, bins), fabs(4 - 5.23) / 7);
    near(bins[0].predicted, 5.23 / 7), near(bins[0].observed, 4.0 / 7);
}

static void test_calibration_edges(void **state) {
    (void)state;
    const double margins[] = {INFINITY, 800, -INFINITY, NAN};
    plumb_calibration_bin bins[4];
    near(plumb_metric_calibration(margins, 3, 4, bins), 1.0 / 3); /* certainty lies in the last bin */
    assert_int_equal(bins[3].count, 3);
    near(bins[3].predicted, 1), near(bins[3].observed, 2.0 / 3);
    assert_int_equal(bins[0].count, 0);
    assert_true(isnan(bins[0].predicted) && isnan(bins[0].observed));
    assert_true(isnan(plumb_metric_calibration(margins, 4, 4, bins)));
    assert_int_equal(bins[3].count, 3);
    assert_true(isnan(plumb_metric_calibration(margins, 0, 4, bins)));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_auc_by_hand), cmocka_unit_test(test_auc_undefined),
                                       cmocka_unit_test(test_auc_against_all_pairs),
                                       cmocka_unit_test(test_calibration_by_hand),
                                       cmocka_unit_test(test_calibration_edges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
