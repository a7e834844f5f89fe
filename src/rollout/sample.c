/* From logits to a token.  Filters follow transformers' processors: temperature divides, top-k keeps what is at least the k-th largest, top-p keeps the
 * smallest set of likeliest tokens that reaches p (at least one). The draw is a pure function of its key. */
#include "plumb/rollout.h"
#include <math.h>
#include <stdlib.h>

static int32_t largest(const float *z, int64_t V) {
    int64_t best = 0;
    for (int64_t i = 1; i < V; i++)
        if (z[i] > z[best]) best = i;
    return (int32_t)best;
}

typedef struct ranked { float z; int32_t id; } ranked;
static int likeliest_first(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->z != y->z) return x->z > y->z ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Smallest logit that survives top-k and top-p; everything below it is dropped. */
static float threshold(const float *z, int64_t V, const plumb_sampling *s, ranked *order) {
    for (int64_t i = 0; i < V; i++) order[i] = (ranked){z[i], (int32_t)i};
    qsort(order, (size_t)V, sizeof *order, likeliest_first);
    int64_t keep = s->top_k > 0 ? plumb_min64(s->top_k, V) : V;
    while (keep < V && order[keep].z == order[keep - 1].z) keep++; /* ties with the k-th stay */
    if (s->top_p < 1.0) {
        double total = 0, sum = 0;
        for (int64_t i = 0; i < keep; i++) total += exp((double)order[i].z - (double)order[0].z);
        for (int64_t i = 0; i < keep; i++) {
            sum += exp((double)order[i].z - (double)order[0].z) / total;
            if (sum >= s->top_p) {
                keep = i + 1;
                break;
            }
        }
    }
    return order[keep - 1].z;
}

int32_t plumb_sample_token(float *z, int64_t V, const plumb_sampling *s, int64_t position) {
    int32_t best = largest(z, V);
    if (!s->do_sample) return best;
    for (int64_t i = 0; i < V; i++) z[i] = (float)((double)z[i] / s->temperature);
    float least = -INFINITY;
    if (s->top_k > 0 || s->top_p < 1.0) {
        ranked *order;
        if (plumb_alloc(&order, (size_t)V, sizeof *order, "sampling") != PLUMB_OK) return best;
        least = threshold(z, V, s, order);
        free(order);
    }
    double total = 0, sum = 0, maximum = z[best];
    for (int64_t i = 0; i < V; i++)
        if (z[i] >= least) total += exp((double)z[i] - maximum);
    double draw = total * plumb_rng_uniform(&(plumb_rng_key){s->seed, 0, s->sample, s->branch, (uint32_t)position, PLUMB_SITE_SAMPLE});
    int32_t last = best;
    for (int64_t i = 0; i < V; i++) {
        if (z[i] < least) continue;
        last = (int32_t)i;
        sum += exp((double)z[i] - maximum);
        if (draw < sum) break;
    }
    return last;
}
