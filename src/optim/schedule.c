/* Learning-rate schedules: a pure function of the step, so that a resumed run needs no state.
 *
 * The formulas are those of transformers' get_scheduler, written in its order of operations: a factor, multiplied by
 * the base rate at the end.  `warmed` counts steps since the warm-up ended and `progress` is their share of the rest of
 * the run. */
#include "plumb/optim.h"
#include <math.h>
#include <string.h>

static const char *const names[] = {"linear",
                                    "cosine",
                                    "constant",
                                    "constant_with_warmup",
                                    "cosine_with_restarts",
                                    "polynomial",
                                    "inverse_sqrt",
                                    "warmup_stable_decay",
                                    "cosine_with_min_lr"};
enum { NAME_COUNT = sizeof names / sizeof *names };
static const double pi = 3.14159265358979323846;
static const double polynomial_end = 1e-7;       /* get_scheduler's lr_end */
static const int64_t inverse_sqrt_scale = 10000; /* timescale without a warm-up */

int plumb_schedule_from_name(const char *name) {
    for (int i = 0; i < NAME_COUNT; i++)
        if (!strcmp(name, names[i])) return i;
    return -1;
}

const char *const *plumb_schedule_names(int *count) {
    *count = NAME_COUNT;
    return names;
}

static int64_t decay_steps_of(const plumb_schedule *s) {
    return s->decay_steps ? s->decay_steps : plumb_max64(1, s->total_steps / 10);
}

plumb_status plumb_schedule_check(const plumb_schedule *s) {
    if ((unsigned)s->kind >= NAME_COUNT)
        return plumb_error(PLUMB_E_CONFIG, "learning-rate schedule number %d is unknown", (int)s->kind);
    const char *name = names[s->kind];
    if (!isfinite(s->lr) || s->lr < 0)
        return plumb_error(PLUMB_E_CONFIG, "%s: learning rate is %g, expected a finite number >= 0", name, s->lr);
    if (s->warmup_steps < 0 || s->total_steps < 0 || s->decay_steps < 0)
        return plumb_error(PLUMB_E_CONFIG, "%s: warm-up %lld, total %lld, decay %lld steps: expected none below 0",
                           name, (long long)s->warmup_steps, (long long)s->total_steps, (long long)s->decay_steps);
    if (s->kind == PLUMB_LR_CONSTANT) return PLUMB_OK; /* uses no steps */
    if (s->warmup_steps > s->total_steps)
        return plumb_error(PLUMB_E_CONFIG, "%s: warm-up of %lld steps is longer than the run of %lld steps", name,
                           (long long)s->warmup_steps, (long long)s->total_steps);
    if (s->kind == PLUMB_LR_WSD && decay_steps_of(s) > s->total_steps - s->warmup_steps)
        return plumb_error(PLUMB_E_CONFIG,
                           "%s: warm-up of %lld and decay of %lld steps are longer than the run of %lld steps", name,
                           (long long)s->warmup_steps, (long long)decay_steps_of(s), (long long)s->total_steps);
    if (s->kind == PLUMB_LR_POLYNOMIAL && s->lr <= polynomial_end)
        return plumb_error(PLUMB_E_CONFIG, "%s: learning rate is %g, expected more than %g, the rate at its end", name,
                           s->lr, polynomial_end);
    if (s->kind == PLUMB_LR_POLYNOMIAL && (!isfinite(s->power) || s->power < 0))
        return plumb_error(PLUMB_E_CONFIG, "%s: power is %g, expected a finite number >= 0", name, s->power);
    if (s->kind == PLUMB_LR_COSINE_MIN_LR && !(s->min_lr >= 0 && s->min_lr <= s->lr))
        return plumb_error(PLUMB_E_CONFIG, "%s: min_lr is %g, expected 0 to the learning rate of %g", name, s->min_lr,
                           s->lr);
    return PLUMB_OK;
}

static double at_least_zero(double x) {
    return x > 0 ? x : 0;
}
static double half_cosine(double progress) {
    return 0.5 * (1.0 + cos(pi * progress));
}

static double polynomial_factor(const plumb_schedule *s, int64_t step, int64_t rest) {
    if (s->lr == 0) return 0;
    if (step > s->total_steps || rest == 0) return polynomial_end / s->lr;
    double remaining = 1.0 - (double)(step - s->warmup_steps) / (double)rest;
    return ((s->lr - polynomial_end) * pow(remaining, s->power > 0 ? s->power : 1.0) + polynomial_end) / s->lr;
}

static double stable_decay_factor(const plumb_schedule *s, int64_t step) {
    int64_t decay = decay_steps_of(s), stable_end = s->total_steps - decay;
    if (step < stable_end) return 1.0;
    if (step >= s->total_steps) return 0.0;
    return at_least_zero(half_cosine((double)(step - stable_end) / (double)decay));
}

double plumb_schedule_lr(const plumb_schedule *s, int64_t step) {
    if (s->kind == PLUMB_LR_CONSTANT) return s->lr;
    if (step < s->warmup_steps) return s->lr * ((double)step / (double)s->warmup_steps);

    int64_t warmed = step - s->warmup_steps, rest = s->total_steps - s->warmup_steps;
    double progress = (double)warmed / (double)plumb_max64(1, rest), factor = 1.0;
    switch (s->kind) {
    case PLUMB_LR_LINEAR: factor = at_least_zero((double)(s->total_steps - step) / (double)plumb_max64(1, rest)); break;
    case PLUMB_LR_COSINE: factor = at_least_zero(half_cosine(progress)); break;
    case PLUMB_LR_COSINE_RESTARTS:
        factor = progress >= 1.0 ? 0.0 : at_least_zero(half_cosine(progress));
        break; /* one cycle */
    case PLUMB_LR_COSINE_MIN_LR: {
        double floor = s->lr > 0 ? s->min_lr / s->lr : 0;
        factor = at_least_zero(half_cosine(progress) * (1 - floor) + floor);
        break;
    }
    case PLUMB_LR_POLYNOMIAL: factor = polynomial_factor(s, step, rest); break;
    case PLUMB_LR_INVERSE_SQRT: {
        int64_t scale = s->warmup_steps ? s->warmup_steps : inverse_sqrt_scale;
        factor = 1.0 / sqrt((double)(warmed + scale) / (double)scale);
        break;
    }
    case PLUMB_LR_WSD: factor = stable_decay_factor(s, step); break;
    case PLUMB_LR_CONSTANT:
    case PLUMB_LR_CONSTANT_WARMUP: break;
    }
    return s->lr * factor;
}
