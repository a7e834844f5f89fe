/* ZeRO-1 with sums that do not depend on the number of ranks.  See zero.h.
 *
 *   flat array   | block 0 | block 1 | … 4,096 elements each … |       shards are whole blocks, rank after rank
 *
 * Fixed point: x = g 2^e is rounded to the nearest integer by adding 1.5 2^52, which is exact for |x| < 2^51; 2^10 micro-batches then
 * fit an int64. The exponent begins at 40 (a resolution of 1e-12) and follows the size of each unit's gradient, from
 * sums that are the same everywhere. */
#include "plumb/zero.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ELEMENTS = 4096, FIRST_EXPONENT = 40, EXPONENT_STEP = 8 };
static const double too_large = 0x1p51;

struct plumb_zero {
    plumb_zero_options o;
    plumb_zero_part *parts;
    int ranks, rank;
    int64_t *counts, *offsets; /* elements of each rank's shard */
    int64_t n_blocks;
    float *weights, *m, *v, *gradient; /* this rank's shard */
    double *squares;                   /* [n_blocks] sums of squares */
    int64_t *sum, *mine;               /* elastic: [total], and this rank's shard of the global sum */
    int64_t *exponents, *largest;      /* [n_units] */
    bool *overflowed;
};

static int64_t first_of(const plumb_zero *z) { return z->offsets[z->rank]; }
static int64_t count_of(const plumb_zero *z) { return z->counts[z->rank]; }

static void cut_shards(plumb_zero *z) {
    for (int r = 0; r < z->ranks; r++) {
        int64_t begin = z->n_blocks * r / z->ranks * BLOCK_ELEMENTS, end = z->n_blocks * (r + 1) / z->ranks * BLOCK_ELEMENTS;
        z->offsets[r] = plumb_min64(begin, z->o.total);
        z->counts[r] = plumb_min64(end, z->o.total) - z->offsets[r];
    }
}

plumb_status plumb_zero_create(plumb_zero **out, const plumb_zero_options *o, const float *values) {
    plumb_zero *z;
    PLUMB_TRY(plumb_alloc(out, 1, sizeof *z, "the optimizer"));
    z = *out;
    z->o = *o;
    z->ranks = plumb_comm_size(o->axis), z->rank = plumb_comm_rank(o->axis);
    z->n_blocks = (o->total + BLOCK_ELEMENTS - 1) / BLOCK_ELEMENTS;
    plumb_status s = plumb_alloc(&z->parts, (size_t)o->n_parts, sizeof *z->parts, "the optimizer");
    if (s == PLUMB_OK) s = plumb_alloc(&z->counts, (size_t)z->ranks, sizeof *z->counts, "the optimizer");
    if (s == PLUMB_OK) s = plumb_alloc(&z->offsets, (size_t)z->ranks, sizeof *z->offsets, "the optimizer");
    if (s == PLUMB_OK) s = plumb_alloc(&z->squares, (size_t)z->n_blocks, sizeof *z->squares, "the optimizer");
    if (s == PLUMB_OK) cut_shards(z);
    size_t n = s == PLUMB_OK ? (size_t)count_of(z) : 0;
    if (s == PLUMB_OK) s = plumb_alloc(&z->weights, n, sizeof *z->weights, "optimizer state");
    if (s == PLUMB_OK) s = plumb_alloc(&z->m, n, sizeof *z->m, "optimizer state");
    if (s == PLUMB_OK) s = plumb_alloc(&z->v, n, sizeof *z->v, "optimizer state");
    if (s == PLUMB_OK) s = plumb_alloc(&z->gradient, n, sizeof *z->gradient, "optimizer state");
    if (s == PLUMB_OK) s = plumb_alloc(&z->exponents, (size_t)o->n_units, sizeof *z->exponents, "the optimizer");
    if (s == PLUMB_OK) s = plumb_alloc(&z->largest, (size_t)o->n_units, sizeof *z->largest, "the optimizer");
    if (s == PLUMB_OK) s = plumb_alloc(&z->overflowed, (size_t)o->n_units, sizeof *z->overflowed, "the optimizer");
    if (s == PLUMB_OK && o->elastic) s = plumb_alloc(&z->sum, (size_t)o->total, sizeof *z->sum, "fixed-point gradients");
    if (s == PLUMB_OK && o->elastic) s = plumb_alloc(&z->mine, n, sizeof *z->mine, "fixed-point gradients");
    if (s != PLUMB_OK) {
        plumb_zero_free(z);
        *out = NULL;
        return s;
    }
    if (o->n_parts) memcpy(z->parts, o->parts, (size_t)o->n_parts * sizeof *z->parts);
    memcpy(z->weights, values + first_of(z), n * sizeof *values);
    for (int u = 0; u < o->n_units; u++) z->exponents[u] = FIRST_EXPONENT;
    return PLUMB_OK;
}

void plumb_zero_free(plumb_zero *z) {
    if (!z) return;
    void *all[] = {z->parts,   z->counts, z->offsets, z->weights,   z->m,       z->v,         z->gradient,
                   z->squares, z->sum,    z->mine,    z->exponents, z->largest, z->overflowed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(z);
}

/* --- fixed point ------------------------------------------------------------------------------ */
static bool add_fixed(int64_t *sum, const float *g, int64_t n, double scale) {
    const double magic = 0x1.8p52;
    int64_t magic_bits;
    memcpy(&magic_bits, &magic, sizeof magic_bits);
    bool good = true;
    for (int64_t i = 0; i < n; i++) {
        double x = (double)g[i] * scale, y = x + magic;
        int64_t bits;
        memcpy(&bits, &y, sizeof bits);
        sum[i] += bits - magic_bits;
        good &= fabs(x) < too_large; /* false for NaN too */
    }
    return good;
}
bool plumb_zero_add(plumb_zero *z, const float *gradient) {
    bool good = true;
    for (int p = 0; p < z->o.n_parts; p++) {
        const plumb_zero_part *part = &z->parts[p];
        if (add_fixed(z->sum + part->offset, gradient + part->offset, part->count, ldexp(1.0, (int)z->exponents[part->unit]))) continue;
        z->overflowed[part->unit] = true;
        good = false;
    }
    return good;
}
void plumb_zero_clear(plumb_zero *z) {
    if (z->o.elastic) memset(z->sum, 0, (size_t)z->o.total * sizeof *z->sum);
}
void plumb_zero_lower(plumb_zero *z) {
    for (int u = 0; u < z->o.n_units; u++) z->largest[u] = z->overflowed[u], z->overflowed[u] = false;
    plumb_comm_max_i64(z->o.axis, z->largest, z->o.n_units);
    for (int u = 0; u < z->o.n_units; u++)
        if (z->largest[u]) z->exponents[u] -= EXPONENT_STEP;
}

/* Part p's overlap with this rank's shard, in elements of the shard. */
static bool overlap(const plumb_zero *z, int p, int64_t *first, int64_t *count) {
    int64_t begin = plumb_max64(z->parts[p].offset, first_of(z)),
            end = plumb_min64(z->parts[p].offset + z->parts[p].count, first_of(z) + count_of(z));
    *first = begin - first_of(z);
    *count = end - begin;
    return end > begin;
}
/* The global sum back to floats, and next step's scales from the largest element of each unit. */
static void from_fixed(plumb_zero *z) {
    memset(z->largest, 0, (size_t)z->o.n_units * sizeof *z->largest);
    for (int p = 0; p < z->o.n_parts; p++) {
        int64_t first, count, unit = z->parts[p].unit;
        if (!overlap(z, p, &first, &count)) continue;
        double scale = ldexp(1.0, -(int)z->exponents[unit]);
        int64_t largest = z->largest[unit];
        for (int64_t i = first; i < first + count; i++) {
            int64_t x = z->mine[i];
            z->gradient[i] = (float)((double)x * scale);
            if (x < 0) x = -x;
            if (x > largest) largest = x;
        }
        z->largest[unit] = largest;
    }
    plumb_comm_max_i64(z->o.axis, z->largest, z->o.n_units);
}
static void follow_size(plumb_zero *z) { /* keep the largest element between 2^28 and 2^44 */
    for (int u = 0; u < z->o.n_units; u++) {
        if (z->largest[u] > (int64_t)1 << 44) z->exponents[u] -= EXPONENT_STEP;
        else if (z->largest[u] > 0 && z->largest[u] < (int64_t)1 << 28 && z->exponents[u] < 120) z->exponents[u] += EXPONENT_STEP;
    }
}

/* --- the update ------------------------------------------------------------------------------- */
static double global_norm(plumb_zero *z) {
    memset(z->squares, 0, (size_t)z->n_blocks * sizeof *z->squares);
    for (int64_t i = 0; i < count_of(z); i += BLOCK_ELEMENTS) {
        double lanes[8] = {0};
        int64_t n = plumb_min64(BLOCK_ELEMENTS, count_of(z) - i);
        for (int64_t j = 0; j < n; j++) lanes[j % 8] += (double)z->gradient[i + j] * (double)z->gradient[i + j];
        double sum = 0;
        for (int l = 0; l < 8; l++) sum += lanes[l];
        z->squares[(first_of(z) + i) / BLOCK_ELEMENTS] = sum;
    }
    plumb_comm_sum_f64(z->o.axis, z->squares, z->n_blocks); /* one rank's value plus zeros: exact */
    double total = 0;
    for (int64_t b = 0; b < z->n_blocks; b++) total += z->squares[b];
    return sqrt(total);
}

plumb_status plumb_zero_step(plumb_zero *z, const plumb_adamw *rule, double max_norm, const float *gradient, float *values, double *norm) {
    if (z->o.elastic) {
        plumb_comm_reduce_scatter_i64(z->o.axis, z->sum, z->counts, z->offsets, z->mine);
        from_fixed(z);
    } else {
        plumb_comm_reduce_scatter_f32(z->o.axis, gradient, z->counts, z->offsets, z->gradient);
    }
    *norm = global_norm(z);
    if (!isfinite(*norm))
        return plumb_error(PLUMB_E_NUMERIC,
                           "the gradient norm is %g; the weights are those before this step (look at learning_rate, the data, and the "
                           "model's values)",
                           *norm);
    double factor = plumb_clip_factor(*norm, max_norm);
    for (int p = 0; p < z->o.n_parts; p++) {
        int64_t first, count;
        if (overlap(z, p, &first, &count))
            plumb_adamw_update(rule, z->weights + first, z->m + first, z->v + first, z->gradient + first, factor, z->parts[p].decay, count);
    }
    if (z->o.elastic) {
        follow_size(z);
        plumb_zero_clear(z);
    }
    plumb_zero_gather(z, values);
    return PLUMB_OK;
}

void plumb_zero_gather(plumb_zero *z, float *values) {
    enum { FEW = 64 };
    size_t counts[FEW], offsets[FEW], *c = counts, *o = offsets;
    if (z->ranks > FEW) {
        c = malloc((size_t)z->ranks * sizeof *c);
        o = malloc((size_t)z->ranks * sizeof *o);
        if (!c || !o) PLUMB_BUG("out of memory for %d ranks", z->ranks);
    }
    for (int r = 0; r < z->ranks; r++) c[r] = (size_t)z->counts[r] * sizeof *values, o[r] = (size_t)z->offsets[r] * sizeof *values;
    plumb_comm_allgatherv(z->o.axis, z->weights, values, c, o);
    if (z->ranks > FEW) free(c), free(o);
}

float *plumb_zero_shard(plumb_zero *z, plumb_zero_array which, int64_t *first, int64_t *count) {
    float *const shards[] = {z->weights, z->m, z->v};
    *first = first_of(z);
    *count = count_of(z);
    return shards[which];
}
int plumb_zero_units(const plumb_zero *z) { return z->o.n_units; }
int64_t plumb_zero_scale(const plumb_zero *z, int unit) { return z->exponents[unit]; }
void plumb_zero_set_scale(plumb_zero *z, int unit, int64_t exponent) { z->exponents[unit] = exponent; }
