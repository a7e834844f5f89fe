/* Learning-rate schedules against transformers' get_scheduler: every golden case, the defaults, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "plumb/optim.h"
#include "json_cases.h"

static void assert_rate(const plumb_schedule *s, int64_t step, double expected, const char *name) {
    double found = plumb_schedule_lr(s, step);
    if (fabs(found - expected) <= 1e-12 * fabs(expected)) return;
    fail_msg("%s, step %ld: rate is %.17g, expected %.17g", name, (long)step, found, expected);
}

static void test_golden(void **state) {
    (void)state;
    golden_node *root = golden_load(PLUMB_TEST_GOLDEN "/losses/schedule.json");
    int checked = 0;
    for (const golden_node *c = golden_need(root, "cases")->child; c; c = c->next, checked++) {
        const char *name = golden_text(c, "name");
        int kind = plumb_schedule_from_name(name);
        assert_true(kind >= 0);
        plumb_schedule s = {.kind = (plumb_schedule_kind)kind,
                            .lr = golden_need(c, "lr")->number,
                            .warmup_steps = (int64_t)golden_need(c, "warmup_steps")->number,
                            .total_steps = (int64_t)golden_need(c, "total_steps")->number,
                            .decay_steps = (int64_t)golden_number_or(c, "num_decay_steps", 0),
                            .min_lr = golden_number_or(c, "min_lr", 0),
                            .power = golden_number_or(c, "power", 0)};
        assert_int_equal(plumb_schedule_check(&s), PLUMB_OK);
        int64_t step = 0;
        for (const golden_node *rate = golden_need(c, "lrs")->child; rate; rate = rate->next)
            assert_rate(&s, step++, rate->number, name);
        assert_int_equal(step, s.total_steps);
    }
    golden_free(root);
    assert_int_equal(checked, 16);
}

/* Values that no golden case has, from the formulas of get_scheduler. */
static void test_defaults(void **state) {
    (void)state;
    plumb_schedule s = {.kind = PLUMB_LR_COSINE_RESTARTS, .lr = 2e-3, .warmup_steps = 4, .total_steps = 24};
    assert_rate(&s, 2, 1e-3, "cosine_with_restarts");
    assert_rate(&s, 4, 2e-3, "cosine_with_restarts");
    assert_rate(&s, 9, 2e-3 * 0.5 * (1 + sqrt(0.5)), "cosine_with_restarts");
    assert_rate(&s, 24, 0, "cosine_with_restarts");
    s.kind = PLUMB_LR_POLYNOMIAL; /* power 1, from lr to 1e-7 */
    assert_rate(&s, 14, 0.5 * (2e-3 - 1e-7) + 1e-7, "polynomial");
    assert_rate(&s, 25, 1e-7, "polynomial");
    s = (plumb_schedule){
        .kind = PLUMB_LR_WSD, .lr = 1, .warmup_steps = 10, .total_steps = 100}; /* decays in the last ten steps */
    assert_rate(&s, 90, 1, "warmup_stable_decay");
    assert_rate(&s, 95, 0.5, "warmup_stable_decay");
    assert_rate(&s, 100, 0, "warmup_stable_decay");
    s.kind = PLUMB_LR_LINEAR;
    assert_rate(&s, 1000, 0, "linear");
    s = (plumb_schedule){.kind = PLUMB_LR_COSINE, .lr = 1, .warmup_steps = 5, .total_steps = 5};
    assert_true(isfinite(plumb_schedule_lr(&s, 5)));
    s.kind = PLUMB_LR_POLYNOMIAL;
    assert_rate(&s, 5, 1e-7, "polynomial");
}

static void test_names(void **state) {
    (void)state;
    int count;
    const char *const *names = plumb_schedule_names(&count);
    assert_int_equal(count, 9);
    for (int i = 0; i < count; i++) assert_int_equal(plumb_schedule_from_name(names[i]), i);
    assert_int_equal(plumb_schedule_from_name("warmup_stable_decay"), PLUMB_LR_WSD);
    assert_int_equal(plumb_schedule_from_name("cosine_with_min_lr"), PLUMB_LR_COSINE_MIN_LR);
    assert_int_equal(plumb_schedule_from_name("triangular"), -1);
}

static void test_refused(void **state) {
    (void)state;
    const struct {
        plumb_schedule s;
        const char *says;
    } cases[] = {
        {{.kind = PLUMB_LR_LINEAR, .lr = -1, .total_steps = 9}, "learning rate is -1"},
        {{.kind = PLUMB_LR_LINEAR, .lr = NAN, .total_steps = 9}, "finite"},
        {{.kind = PLUMB_LR_COSINE, .lr = 1, .warmup_steps = 10, .total_steps = 9}, "warm-up of 10 steps"},
        {{.kind = PLUMB_LR_WSD, .lr = 1, .warmup_steps = 4, .total_steps = 9, .decay_steps = 6}, "decay of 6 steps"},
        {{.kind = PLUMB_LR_POLYNOMIAL, .lr = 1e-7, .total_steps = 9}, "rate at its end"},
        {{.kind = PLUMB_LR_COSINE_MIN_LR, .lr = 1, .min_lr = 2, .total_steps = 9}, "min_lr is 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(plumb_schedule_check(&cases[i].s), PLUMB_E_CONFIG);
        assert_non_null(strstr(plumb_error_message(), cases[i].says));
    }
    assert_int_equal(plumb_schedule_check(&(plumb_schedule){.kind = PLUMB_LR_CONSTANT, .lr = 1, .warmup_steps = 9}),
                     PLUMB_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_defaults),
                                       cmocka_unit_test(test_names), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
