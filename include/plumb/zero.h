/* The optimizer over ranks: ZeRO stage 1 (Rajbhandari et al. 2020). Every rank holds all trainable values and its own shard of the AdamW
 * state; gradients are reduce-scattered, each rank updates its shard, the values are gathered.
 *
 * determinism fixed:   gradients are summed over a rank's micro-batches in fp32, then over ranks in rank order.
 * determinism elastic: each micro-batch's gradient is rounded to fixed point - an int64 with a power-of-two scale per unit (layer) - so
 *                      that the sum does not depend on order or on the number of ranks. The scales are part of the state; an overflow is
 *                      agreed upon, lowers the scale and repeats the step.
 * Norms are sums over fixed blocks of 4,096 elements, added in order: the same bits for any number of ranks. */
#ifndef PLUMB_ZERO_H
#define PLUMB_ZERO_H
#include "plumb/comm.h"
#include "plumb/optim.h"

typedef struct plumb_zero plumb_zero;
typedef struct plumb_zero_part { int64_t offset, count; int32_t unit; bool decay; } plumb_zero_part; /* parts cover [0, total) in order */
typedef struct plumb_zero_options {
    plumb_axis axis;
    bool elastic;
    const plumb_zero_part *parts; int n_parts; int n_units; int64_t total;
} plumb_zero_options;
/* Local. values: [total], the starting values; copied. */
plumb_status plumb_zero_create(plumb_zero **out, const plumb_zero_options *o, const float *values) PLUMB_CHECKED;
void plumb_zero_free(plumb_zero *z);
/* elastic: adds one micro-batch's gradient [total]; returns false on overflow (keep going, and say so at the agreement). Local. */
bool plumb_zero_add(plumb_zero *z, const float *gradient);
void plumb_zero_clear(plumb_zero *z); /* elastic: forget what was added. Local. */
/* Lowers the scales that overflowed (anywhere). Collective. */
void plumb_zero_lower(plumb_zero *z);
/* The update. gradient [total]: this rank's sum (fixed; ignored in elastic mode). values [total] receives the new values of all ranks.
 * *norm is the global norm before clipping. A norm that is not finite leaves the state untouched:
 * PLUMB_E_NUMERIC, on every rank. Collective. */
plumb_status plumb_zero_step(plumb_zero *z, const plumb_adamw *rule, double max_norm, const float *gradient, float *values,
                             double *norm) PLUMB_CHECKED;
/* What a checkpoint must hold: this rank's shard [first, first+count) of values, first and second moments, borrowed; and the scales. */
typedef enum plumb_zero_array { PLUMB_ZERO_VALUES, PLUMB_ZERO_M, PLUMB_ZERO_V, PLUMB_ZERO_ARRAYS } plumb_zero_array;
float *plumb_zero_shard(plumb_zero *z, plumb_zero_array which, int64_t *first, int64_t *count);
int plumb_zero_units(const plumb_zero *z);
int64_t plumb_zero_scale(const plumb_zero *z, int unit);
void plumb_zero_set_scale(plumb_zero *z, int unit, int64_t exponent);
/* After loading: all values from the shards. Collective. */
void plumb_zero_gather(plumb_zero *z, float *values);
#endif
