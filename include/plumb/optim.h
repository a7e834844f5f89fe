/* Learning-rate schedules and the AdamW rule.  Local. */
#ifndef PLUMB_OPTIM_H
#define PLUMB_OPTIM_H
#include "plumb/base.h"

typedef enum plumb_schedule_kind { PLUMB_LR_LINEAR, PLUMB_LR_COSINE, PLUMB_LR_CONSTANT, PLUMB_LR_CONSTANT_WARMUP, PLUMB_LR_COSINE_RESTARTS, PLUMB_LR_POLYNOMIAL,
    PLUMB_LR_INVERSE_SQRT, PLUMB_LR_WSD } plumb_schedule_kind;
typedef struct plumb_schedule {
    plumb_schedule_kind kind;
    double lr;
    int64_t warmup_steps, total_steps, decay_steps; /* decay_steps: warmup_stable_decay only; 0 = what get_scheduler's default gives */
} plumb_schedule;
/* Rate used in optimizer step `step`, counted from 0, as transformers' get_scheduler with its defaults. */
double plumb_schedule_lr(const plumb_schedule *s, int64_t step);
/* transformers' names: linear, cosine, constant, constant_with_warmup, cosine_with_restarts, polynomial, inverse_sqrt, warmup_stable_decay; -1 unknown. */
int plumb_schedule_from_name(const char *name);
const char *const *plumb_schedule_names(int *count);

typedef struct plumb_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t step; /* 1 in the first step: bias correction */
} plumb_adamw;
/* Loshchilov & Hutter 2019, alg. 2, as torch.optim.AdamW: decay p *= 1 - lr*wd first. Elements [0,count); grad is multiplied by grad_scale (the clip factor) first.
 * Arithmetic per element in double from fp32 state, rounded once on storing: element-wise, so bits do not depend on shards. */
void plumb_adamw_update(const plumb_adamw *a, float *weight, float *m, float *v, const float *grad, double grad_scale, bool decay, int64_t count);
/* max/(norm+1e-6) capped at 1; max_norm 0 = no clipping (1). */
double plumb_clip_factor(double norm, double max_norm);
#endif
