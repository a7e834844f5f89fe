/* What the cases of losses/<name>.json share. A case sets *worst to its largest error; its list of fields is in make_losses.py. */
#ifndef GOLDEN_LOSSES_H
#define GOLDEN_LOSSES_H
#include "golden.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static inline double field(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static inline double away(double a, double b) {
    double d = fabs(a - b) / fmax(1, fabs(b));
    return isnan(d) ? INFINITY : d;
}
static inline double *list(const json_t *a, int64_t *n) {
    *n = (int64_t)json_array_size(a);
    double *out = malloc((size_t)(*n + 1) * sizeof *out);
    for (int64_t i = 0; i < *n; i++) out[i] = json_number_value(json_array_get(a, (size_t)i));
    return out;
}

plumb_status golden_reward(const json_t *c, double *worst);
plumb_status golden_grpo(const json_t *c, double *worst);
plumb_status golden_ppo(const json_t *c, double *worst);
#endif
