/* AdamW over a flat range of parameters.
 *
 * Each element is read as fp32, updated in double by plumb_adamw_core and rounded once on storing, so that the result
 * depends on nothing but the element itself: shards may begin anywhere and the bits stay.  Double costs little here,
 * since the loop is bound by memory (28 bytes an element) as soon as it is vectorised: 5 million elements take about as
 * long as copying them.
 *
 * The same body is compiled for the baseline, AVX2 and AVX-512.  Division, square root, product and sum are correctly
 * rounded at any width and the compiler may not contract them (-ffp-contract=off), so the three give the same bits. The
 * body runs in blocks of a constant length because that is what the compiler vectorises without a prologue; the tail
 * goes through the same code. */
#include "plumb/optim.h"
#include <math.h>

enum { BLOCK = 64 };

plumb_adamw_factors plumb_adamw_factors_of(const plumb_adamw *a, bool decay) {
    double step = (double)a->step;
    return (plumb_adamw_factors){
        .keep = decay ? 1.0 - a->lr * a->weight_decay : 1.0,
        .take1 = 1.0 - a->beta1,
        .beta2 = a->beta2,
        .take2 = 1.0 - a->beta2,
        .step_size = a->lr / (1.0 - pow(a->beta1, step)),
        .unroot = 1.0 / sqrt(1.0 - pow(a->beta2, step)),
        .eps = a->eps,
    };
}

typedef struct range { /* the arrays of one call */
    float *weight, *m, *v;
    const float *grad;
    int64_t count;
} range;

static inline __attribute__((always_inline)) void update_block(float *restrict weight, float *restrict m,
                                                               float *restrict v, const float *restrict grad, int64_t n,
                                                               double scale, const plumb_adamw_factors f) {
    for (int64_t i = 0; i < n; i++) {
        double w = weight[i], first = m[i], second = v[i];
        plumb_adamw_core(&w, &first, &second, (double)grad[i] * scale, &f);
        weight[i] = (float)w;
        m[i] = (float)first;
        v[i] = (float)second;
    }
}

static inline __attribute__((always_inline)) void update_range(const range *r, double scale, plumb_adamw_factors f) {
    int64_t i = 0;
    for (; i + BLOCK <= r->count; i += BLOCK)
        update_block(r->weight + i, r->m + i, r->v + i, r->grad + i, BLOCK, scale, f);
    if (i < r->count) update_block(r->weight + i, r->m + i, r->v + i, r->grad + i, r->count - i, scale, f);
}

static void update_baseline(const range *r, double scale, const plumb_adamw_factors *f) {
    update_range(r, scale, *f);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void update_avx2(const range *r, double scale, const plumb_adamw_factors *f) {
    update_range(r, scale, *f);
}
__attribute__((target("avx512f"))) static void update_avx512(const range *r, double scale,
                                                             const plumb_adamw_factors *f) {
    update_range(r, scale, *f);
}
#endif

void plumb_adamw_update(const plumb_adamw *a, float *weight, float *m, float *v, const float *grad, double grad_scale,
                        bool decay, int64_t count) {
    plumb_adamw_factors f = plumb_adamw_factors_of(a, decay);
    range r = {weight, m, v, grad, count};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        update_avx512(&r, grad_scale, &f);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        update_avx2(&r, grad_scale, &f);
        return;
    }
#endif
    update_baseline(&r, grad_scale, &f);
}

double plumb_clip_factor(double norm, double max_norm) {
    if (max_norm <= 0) return 1.0;
    double factor = max_norm / (norm + 1e-6);
    return factor > 1.0 ? 1.0 : factor;
}
