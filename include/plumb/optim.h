/* Learning-rate schedules and the AdamW rule.  Local. */
#ifndef PLUMB_OPTIM_H
#define PLUMB_OPTIM_H
#include <math.h>
#include "plumb/base.h"

typedef enum plumb_schedule_kind {
    PLUMB_LR_LINEAR,
    PLUMB_LR_COSINE,
    PLUMB_LR_CONSTANT,
    PLUMB_LR_CONSTANT_WARMUP,
    PLUMB_LR_COSINE_RESTARTS,
    PLUMB_LR_POLYNOMIAL,
    PLUMB_LR_INVERSE_SQRT,
    PLUMB_LR_WSD,
    PLUMB_LR_COSINE_MIN_LR
} plumb_schedule_kind;
typedef struct plumb_schedule {
    plumb_schedule_kind kind;
    double lr;
    int64_t warmup_steps, total_steps;
    int64_t decay_steps; /* warmup_stable_decay only; 0 = the last tenth of total_steps, at least 1 (get_scheduler has no default) */
    double min_lr;       /* cosine_with_min_lr only: the rate at the end; 0 gives plain cosine */
    double power;        /* polynomial only; 0 = 1, which is get_scheduler's default */
} plumb_schedule;
/* Rate used in optimizer step `step`, counted from 0, as transformers' get_scheduler with its defaults. */
double plumb_schedule_lr(const plumb_schedule *s, int64_t step);
/* PLUMB_E_CONFIG for what get_scheduler refuses or cannot mean: a negative or infinite rate, phases longer than the run,
 * a polynomial that starts at or below its end of 1e-7. */
plumb_status plumb_schedule_check(const plumb_schedule *s) PLUMB_CHECKED;
/* transformers' names: linear, cosine, constant, constant_with_warmup, cosine_with_restarts, polynomial, inverse_sqrt, warmup_stable_decay,
 * cosine_with_min_lr; -1 unknown. */
int plumb_schedule_from_name(const char *name);
const char *const *plumb_schedule_names(int *count);

typedef struct plumb_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t step; /* 1 in the first step: bias correction */
} plumb_adamw;

/* What one step needs of the options, computed once. */
typedef struct plumb_adamw_factors {
    double keep;       /* 1 - lr*weight_decay; 1 for parameters that do not decay */
    double take1;      /* 1 - beta1 */
    double beta2, take2; /* beta2, 1 - beta2 */
    double step_size;  /* lr / (1 - beta1^step) */
    double unroot;     /* 1 / sqrt(1 - beta2^step) */
    double eps;
} plumb_adamw_factors;
plumb_adamw_factors plumb_adamw_factors_of(const plumb_adamw *a, bool decay);

/* One element, in double: the order of operations of torch.optim.AdamW.
 *   w *= 1 - lr*wd;  m += (1-b1)*(g-m);  v = v*b2 + ((1-b2)*g)*g;  w -= step_size * (m / (sqrt(v)*unroot + eps))
 * (torch divides by the root: the reciprocal, rounded once, costs half a bit of double and saves a quarter of the time.)
 * Every operation is one IEEE operation (no contraction), so vector width and position do not change the bits. */
static inline void plumb_adamw_core(double *w, double *m, double *v, double g, const plumb_adamw_factors *f) {
    double kept = *w * f->keep;
    double first = *m + f->take1 * (g - *m);
    double second = *v * f->beta2 + f->take2 * g * g;
    double denominator = sqrt(second) * f->unroot + f->eps;
    *w = kept - f->step_size * (first / denominator);
    *m = first;
    *v = second;
}

/* Loshchilov & Hutter 2019, alg. 2, as torch.optim.AdamW: decay p *= 1 - lr*wd first. Elements [0,count); grad is multiplied by
 * grad_scale (the clip factor) first. Arithmetic per element in double from fp32 state, rounded once on storing: element-wise, so bits
 * do not depend on shards. The arrays must not overlap. */
void plumb_adamw_update(const plumb_adamw *a, float *weight, float *m, float *v, const float *grad, double grad_scale, bool decay,
                        int64_t count);
/* max/(norm+1e-6) capped at 1; max_norm 0 = no clipping (1). A norm that is NaN gives NaN: the caller refuses the step before. */
double plumb_clip_factor(double norm, double max_norm);
#endif
