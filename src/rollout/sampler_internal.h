/* What the files of the sampler share.
 *
 *     sampler.c          options, penalty and forbidden ends, the draw
 *     sampler_filters.c  top-k, top-p, min-p, typical-p on the tokens that are still in, in double
 *     sampler_kernels.c  loops over the vocabulary, compiled for each instruction set
 */
#ifndef PLUMB_SAMPLER_INTERNAL_H
#define PLUMB_SAMPLER_INTERNAL_H
#include "plumb/sampling.h"

enum { PLUMB_SAMPLER_BLOCK = 256, PLUMB_SAMPLER_BINS = 1024 };

/* Every set gives the same bits: sums run in fixed lanes, nothing is contracted. */
typedef struct plumb_sampler_kernels {
    const char *isa;
    float (*largest)(const float *z, int64_t n, bool *bad); /* bad: a NaN or +infinity; -infinity for n = 0 */
    void (*divide)(float *z, int64_t n, float by);
    void (*block_sums)(const float *z, int64_t n, float max, float *sums); /* [ceil(n / BLOCK)] sums of exp(z - max) */
    void (*block_exp)(const float *z, int64_t n, float max, float *e);     /* e: [BLOCK], n <= BLOCK; whole 16s are written */
    void (*widen)(const float *z, int64_t n, double by, double *out);      /* z / by */
    double (*exp_sum)(const double *z, int64_t n, double max, double *e);  /* e = exp(z - max); returns its sum */
    double (*sum)(const double *e, int64_t n);
    double (*sum_shifted)(const double *z, const double *e, int64_t n, double max); /* sum of e (z - max) where e > 0 */
} plumb_sampler_kernels;
/* The sets of this processor, plain first, the fastest last. */
int plumb_sampler_kernel_sets(const plumb_sampler_kernels *out[3]);

typedef struct plumb_sampler_item { double key, weight; int32_t id; } plumb_sampler_item;

struct plumb_sampler {
    int64_t vocab;
    const plumb_sampler_kernels *kernels;
    uint32_t *seen, stamp;  /* [V] seen[id] == stamp: id stands in this history */
    float *sums;            /* [V / BLOCK, rounded up] */
    /* tokens that are still in, ids ascending */
    int64_t n;
    double *z, *e, *key;    /* [V] logit, exp(z - max), order of a filter */
    int32_t *id;            /* [V] */
    bool weighed;           /* e, max and total are valid */
    double max, total;
    plumb_sampler_item *items; /* [V] */
    double bins[PLUMB_SAMPLER_BINS];
};
/* The filters of *o on s->z[0..V): fills n, id, and moves what stays to the front. -infinity is out from the start. */
void plumb_sampler_filter(plumb_sampler *s, const plumb_sampling *o);
#endif
