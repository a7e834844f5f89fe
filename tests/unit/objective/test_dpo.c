/* DPO and IPO: TRL's own values and derivatives, finite differences, and what the formulas promise at the edges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "plumb/objective.h"
#include "json_cases.h"

static void assert_near(double found, double expected, const char *what, int index) {
    if (fabs(found - expected) <= 1e-9 * fmax(1, fabs(expected))) return;
    fail_msg("dpo[%d]: %s is %.17g, expected %.17g", index, what, found, expected);
}

static bool is_plain(const golden_node *c) { /* one loss, no modifier */
    const golden_node *p = golden_need(c, "params");
    return golden_need(c, "loss_type")->count == 1 && golden_need(c, "loss_weights")->child->number == 1 &&
           !strcmp(golden_text(p, "f_divergence_type"), "reverse_kl") &&
           golden_need(p, "ld_alpha")->kind == GOLDEN_NULL && !golden_need(p, "use_weighting")->number;
}

/* The golden loss is the mean over the pairs of a case, and its derivatives are those of the mean. */
static void check_case(const golden_node *c, int index, plumb_dpo_loss loss) {
    const golden_node *p = golden_need(c, "params"), *metrics = golden_need(c, "metrics");
    plumb_dpo_options o = {loss, golden_need(p, "beta")->number, golden_need(p, "label_smoothing")->number};
    int64_t pairs = golden_need(c, "chosen")->count;
    double total = 0;
    plumb_dpo_stats mean = {0};
    for (int64_t i = 0; i < pairs; i++) {
        int64_t nc, nr;
        double *chosen = golden_doubles(golden_item(golden_need(c, "chosen"), i), &nc);
        double *rejected = golden_doubles(golden_item(golden_need(c, "rejected"), i), &nr);
        double *ref_chosen = golden_doubles(golden_item(golden_need(c, "ref_chosen"), i), NULL);
        double *ref_rejected = golden_doubles(golden_item(golden_need(c, "ref_rejected"), i), NULL);
        double *expect_chosen = golden_doubles(golden_item(golden_need(c, "d_chosen"), i), NULL);
        double *expect_rejected = golden_doubles(golden_item(golden_need(c, "d_rejected"), i), NULL);
        double dchosen[16], drejected[16];
        assert_true(nc <= 16 && nr <= 16);
        plumb_dpo_pair pair = {chosen, rejected, ref_chosen, ref_rejected, nc, nr};
        plumb_dpo_stats stats;
        total += plumb_objective_dpo(&o, &pair, dchosen, drejected, &stats) / (double)pairs;
        for (int64_t k = 0; k < nc; k++) assert_near(dchosen[k] / (double)pairs, expect_chosen[k], "d_chosen", index);
        for (int64_t k = 0; k < nr; k++)
            assert_near(drejected[k] / (double)pairs, expect_rejected[k], "d_rejected", index);
        mean.reward_chosen += stats.reward_chosen / (double)pairs;
        mean.reward_rejected += stats.reward_rejected / (double)pairs;
        mean.margin += stats.margin / (double)pairs;
        mean.accuracy += stats.accuracy / (double)pairs;
        mean.logp_chosen += stats.logp_chosen / (double)pairs;
        mean.logp_rejected += stats.logp_rejected / (double)pairs;
        free(chosen), free(rejected), free(ref_chosen), free(ref_rejected), free(expect_chosen), free(expect_rejected);
    }
    assert_near(total, golden_need(c, "loss")->number, "loss", index);
    assert_near(mean.reward_chosen, golden_need(metrics, "rewards/chosen")->number, "rewards/chosen", index);
    assert_near(mean.reward_rejected, golden_need(metrics, "rewards/rejected")->number, "rewards/rejected", index);
    assert_near(mean.margin, golden_need(metrics, "rewards/margins")->number, "rewards/margins", index);
    assert_near(mean.accuracy, golden_need(metrics, "rewards/accuracies")->number, "rewards/accuracies", index);
    assert_near(mean.logp_chosen, golden_need(metrics, "logps/chosen")->number, "logps/chosen", index);
    assert_near(mean.logp_rejected, golden_need(metrics, "logps/rejected")->number, "logps/rejected", index);
}

static void test_golden(void **state) {
    (void)state;
    golden_node *root = golden_load(PLUMB_TEST_GOLDEN "/losses/dpo.json");
    int index = 0, checked[2] = {0};
    for (const golden_node *c = golden_need(root, "cases")->child; c; c = c->next, index++) {
        int loss = plumb_dpo_loss_from_name(golden_need(c, "loss_type")->child->text);
        if (loss < 0 || !is_plain(c)) continue;
        check_case(c, index, (plumb_dpo_loss)loss);
        checked[loss]++;
    }
    golden_free(root);
    assert_int_equal(checked[PLUMB_DPO_SIGMOID], 2);
    assert_int_equal(checked[PLUMB_DPO_IPO], 2);
}

static const double chosen[] = {-0.7, -1.3, -0.2, -2.5}, ref_chosen[] = {-0.9, -1.1, -0.6, -2.4};
static const double rejected[] = {-1.7, -0.4, -0.8}, ref_rejected[] = {-1.2, -0.5, -1.0};

static plumb_dpo_pair pair_of(const double *c, const double *r) {
    return (plumb_dpo_pair){c, r, ref_chosen, ref_rejected, 4, 3};
}

/* Central differences of every token's log-probability, for every loss, beta and smoothing. */
static void test_derivatives(void **state) {
    (void)state;
    const plumb_dpo_options options[] = {
        {PLUMB_DPO_SIGMOID, 0.1, 0}, {PLUMB_DPO_SIGMOID, 2, 0.2}, {PLUMB_DPO_IPO, 0.1, 0}, {PLUMB_DPO_IPO, 1, 0}};
    for (size_t k = 0; k < sizeof options / sizeof *options; k++) {
        double dc[4], dr[3], h = 1e-5;
        plumb_dpo_pair p = pair_of(chosen, rejected);
        (void)plumb_objective_dpo(&options[k], &p, dc, dr, NULL);
        for (int i = 0; i < 7; i++) {
            double c[4], r[3], value[2];
            for (int side = 0; side < 2; side++) {
                memcpy(c, chosen, sizeof c);
                memcpy(r, rejected, sizeof r);
                *(i < 4 ? &c[i] : &r[i - 4]) += side ? -h : h;
                plumb_dpo_pair moved = pair_of(c, r);
                value[side] = plumb_objective_dpo(&options[k], &moved, NULL, NULL, NULL);
            }
            double slope = (value[0] - value[1]) / (2 * h), stated = i < 4 ? dc[i] : dr[i - 4];
            assert_true(fabs(slope - stated) <= 1e-7 * fmax(1, fabs(slope)));
        }
    }
}

/* cDPO's formula, written out, and its two promises: e = 0 is plain DPO, and the slope is zero where s(bD) = 1 - e. */
static void test_label_smoothing(void **state) {
    (void)state;
    double b = 0.5, e = 0.1, d = 0;
    for (int i = 0; i < 4; i++) d += chosen[i] - ref_chosen[i];
    for (int i = 0; i < 3; i++) d -= rejected[i] - ref_rejected[i];
    plumb_dpo_pair p = pair_of(chosen, rejected);
    double found = plumb_objective_dpo(&(plumb_dpo_options){PLUMB_DPO_SIGMOID, b, e}, &p, NULL, NULL, NULL);
    double expected = (1 - e) * log(1 + exp(-b * d)) + e * log(1 + exp(b * d));
    assert_true(fabs(found - expected) < 1e-14);
    assert_true(found != plumb_objective_dpo(&(plumb_dpo_options){PLUMB_DPO_SIGMOID, b, 0}, &p, NULL, NULL, NULL));

    double zero = 0, at = log((1 - e) / e) / b, dc, dr;
    plumb_dpo_pair best = {&at, &zero, &zero, &zero, 1, 1};
    (void)plumb_objective_dpo(&(plumb_dpo_options){PLUMB_DPO_SIGMOID, b, e}, &best, &dc, &dr, NULL);
    assert_true(fabs(dc) < 1e-15 && fabs(dr) < 1e-15);
}

/* At the start policy = reference: ln 2 for DPO, 1/(4b^2) for IPO, no reward, no accuracy (strict). */
static void test_start(void **state) {
    (void)state;
    plumb_dpo_pair same = {ref_chosen, ref_rejected, ref_chosen, ref_rejected, 4, 3};
    plumb_dpo_stats stats;
    double loss = plumb_objective_dpo(&(plumb_dpo_options){PLUMB_DPO_SIGMOID, 0.3, 0}, &same, NULL, NULL, &stats);
    assert_true(fabs(loss - log(2)) < 1e-15);
    assert_true(stats.margin == 0 && stats.accuracy == 0 && stats.reward_chosen == 0);
    loss = plumb_objective_dpo(&(plumb_dpo_options){PLUMB_DPO_IPO, 0.2, 0}, &same, NULL, NULL, NULL);
    assert_true(fabs(loss - 6.25) < 1e-12);
}

/* Log-ratios far out and completions without tokens stay finite. */
static void test_extremes(void **state) {
    (void)state;
    double far = -1e6, near = -1e-3, d[2];
    plumb_dpo_pair lost = {&far, &near, &near, &far, 1, 1}, won = {&near, &far, &far, &near, 1, 1};
    plumb_dpo_options o = {PLUMB_DPO_SIGMOID, 1, 0.25};
    double loss = plumb_objective_dpo(&o, &lost, &d[0], &d[1], NULL);
    assert_true(isfinite(loss) && loss > 1e6 && fabs(d[0] + 0.75) < 1e-12 && fabs(d[1] - 0.75) < 1e-12);
    loss = plumb_objective_dpo(&o, &won, &d[0], &d[1], NULL);
    assert_true(isfinite(loss) && fabs(d[0] - 0.25) < 1e-12);
    o.label_smoothing = 0;
    assert_true(plumb_objective_dpo(&o, &won, &d[0], NULL, NULL) == 0 && d[0] == 0);
    plumb_dpo_pair empty = {&near, NULL, &near, NULL, 1, 0};
    assert_true(isfinite(plumb_objective_dpo(&(plumb_dpo_options){PLUMB_DPO_IPO, 0.5, 0}, &empty, d, NULL, NULL)));
    assert_int_equal(plumb_dpo_loss_from_name("hinge"), -1);
}

static void test_nll(void **state) {
    (void)state;
    double d[4] = {0};
    assert_true(fabs(plumb_objective_nll(chosen, 4, d) - 4.7) < 1e-15);
    for (int i = 0; i < 4; i++) assert_true(d[i] == -1);
    assert_true(plumb_objective_nll(chosen, 2, NULL) == 2.0 && plumb_objective_nll(NULL, 0, NULL) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden),          cmocka_unit_test(test_derivatives),
                                       cmocka_unit_test(test_label_smoothing), cmocka_unit_test(test_start),
                                       cmocka_unit_test(test_extremes),        cmocka_unit_test(test_nll)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
