/* The loops of sampler_kernels.c, for one instruction set.  Included once for each, with
 *     SET      its name
 *     WIDTH    bytes of a register
 *     TARGET   the compiler's attribute for it
 * 16 floats or 8 doubles are taken at a time, in 64 / WIDTH registers: the lanes of a sum are the same whatever the width.  No guard:
 * meant to be included again. */
#define PARTS (64 / WIDTH)
#define F_LANES (WIDTH / 4)
#define D_LANES (WIDTH / 8)
#define NAME(what) NAME_OF(SET, what)
#define NAME_OF(set, what) NAME_JOINED(set, what)
#define NAME_JOINED(set, what) set##_##what
#define vf NAME(vf)
#define vu NAME(vu)
#define vd NAME(vd)
#define vl NAME(vl)
#define vh NAME(vh)
#define INLINE TARGET static inline __attribute__((always_inline))
typedef float vf __attribute__((vector_size(WIDTH)));
typedef uint32_t vu __attribute__((vector_size(WIDTH)));
typedef double vd __attribute__((vector_size(WIDTH)));
typedef uint64_t vl __attribute__((vector_size(WIDTH)));
typedef float vh __attribute__((vector_size(WIDTH / 2))); /* as many floats as a register has doubles */

INLINE void NAME(exp_floats)(vf *x) {
    const vu in = (vu)(*x >= -87.0f);
    const vf t = *x * 1.44269504088896341f + 12582912.0f, n = t - 12582912.0f;
    const vf r = (*x - n * 0.693359375f) - n * -2.12194440e-4f; /* ln 2 in two parts: n times the first is exact */
    vf p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    p *= (vf)(((vu)t << 23) + (127u << 23));
    *x = (vf)((vu)p & in);
}

INLINE void NAME(exp_doubles)(vd *x) {
    const vl in = (vl)(*x >= -708.0);
    const vd t = *x * 1.4426950408889634074 + 6755399441055744.0, n = t - 6755399441055744.0;
    const vd r = (*x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
    vd p = r * (1.0 / 6227020800.0) + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    p *= (vd)(((vl)t << 52) + (1023ull << 52));
    *x = (vd)((vl)p & in);
}

TARGET static float NAME(largest)(const float *z, int64_t n, bool *bad) {
    float spare[16];
    vf most[PARTS], x;
    vu wrong[PARTS];
    for (int p = 0; p < PARTS; p++) most[p] = (vf){0} - INFINITY, wrong[p] = (vu){0};
    for (int64_t i = 0; i < n; i += 16) {
        const float *from = floats(z + i, n - i, spare);
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) {
            memcpy(&x, from + p * F_LANES, sizeof x);
            const vu more = (vu)(x > most[p]);
            wrong[p] |= ~(vu)(x < INFINITY);
            most[p] = (vf)(((vu)x & more) | ((vu)most[p] & ~more));
        }
    }
    float m = -INFINITY, lanes[16];
    uint32_t marks[16];
    memcpy(lanes, most, sizeof lanes);
    memcpy(marks, wrong, sizeof marks);
    *bad = false;
    for (int i = 0; i < 16; i++) {
        if (lanes[i] > m) m = lanes[i];
        *bad |= marks[i] != 0;
    }
    return m;
}

TARGET static void NAME(divide)(float *z, int64_t n, float by) {
    int64_t i = 0;
    vf x;
    for (; i + F_LANES <= n; i += F_LANES) {
        memcpy(&x, z + i, sizeof x);
        x /= by;
        memcpy(z + i, &x, sizeof x);
    }
    for (; i < n; i++) z[i] /= by;
}

INLINE float NAME(block_sum)(const float *z, int64_t n, float max) {
    float spare[16], lanes[16];
    vf sum[PARTS], x;
    for (int p = 0; p < PARTS; p++) sum[p] = (vf){0};
    for (int64_t i = 0; i < n; i += 16) {
        const float *from = floats(z + i, n - i, spare);
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) {
            memcpy(&x, from + p * F_LANES, sizeof x);
            x -= max;
            NAME(exp_floats)(&x);
            sum[p] += x;
        }
    }
    memcpy(lanes, sum, sizeof lanes);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}
TARGET static void NAME(block_sums)(const float *z, int64_t n, float max, float *sums) {
    for (int64_t i = 0; i < n; i += PLUMB_SAMPLER_BLOCK)
        sums[i / PLUMB_SAMPLER_BLOCK] = NAME(block_sum)(z + i, plumb_min64(n - i, PLUMB_SAMPLER_BLOCK), max);
}
TARGET static void NAME(block_exp)(const float *z, int64_t n, float max, float *e) {
    float spare[16];
    vf x;
    for (int64_t i = 0; i < n; i += 16) {
        const float *from = floats(z + i, n - i, spare);
        for (int p = 0; p < PARTS; p++) {
            memcpy(&x, from + p * F_LANES, sizeof x);
            x -= max;
            NAME(exp_floats)(&x);
            memcpy(e + i + p * F_LANES, &x, sizeof x);
        }
    }
}

TARGET static void NAME(widen)(const float *z, int64_t n, double by, double *out) {
    int64_t i = 0;
    vh x;
    for (; i + D_LANES <= n; i += D_LANES) {
        memcpy(&x, z + i, sizeof x);
        const vd d = __builtin_convertvector(x, vd) / by;
        memcpy(out + i, &d, sizeof d);
    }
    for (; i < n; i++) out[i] = (double)z[i] / by;
}

TARGET static double NAME(exp_sum)(const double *z, int64_t n, double max, double *e) {
    double spare[8], made[8];
    vd sum[PARTS], x;
    for (int p = 0; p < PARTS; p++) sum[p] = (vd){0};
    for (int64_t i = 0; i < n; i += 8) {
        const double *from = doubles(z + i, n - i, -INFINITY, spare);
        double *to = n - i >= 8 ? e + i : made;
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) {
            memcpy(&x, from + p * D_LANES, sizeof x);
            x -= max;
            NAME(exp_doubles)(&x);
            sum[p] += x;
            memcpy(to + p * D_LANES, &x, sizeof x);
        }
        if (to == made) memcpy(e + i, made, (size_t)(n - i) * sizeof *e);
    }
    return total_of(sum);
}

TARGET static double NAME(sum)(const double *e, int64_t n) {
    double spare[8];
    vd sum[PARTS], x;
    for (int p = 0; p < PARTS; p++) sum[p] = (vd){0};
    for (int64_t i = 0; i < n; i += 8) {
        const double *from = doubles(e + i, n - i, 0, spare);
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) {
            memcpy(&x, from + p * D_LANES, sizeof x);
            sum[p] += x;
        }
    }
    return total_of(sum);
}

TARGET static double NAME(sum_shifted)(const double *z, const double *e, int64_t n, double max) {
    double spare[2][8];
    vd sum[PARTS], x, w;
    for (int p = 0; p < PARTS; p++) sum[p] = (vd){0};
    for (int64_t i = 0; i < n; i += 8) {
        const double *logits = doubles(z + i, n - i, 0, spare[0]), *weights = doubles(e + i, n - i, 0, spare[1]);
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) {
            memcpy(&x, logits + p * D_LANES, sizeof x);
            memcpy(&w, weights + p * D_LANES, sizeof w);
            sum[p] += (vd)((vl)(w * (x - max)) & (vl)(w > 0.0)); /* 0 times -infinity counts 0 */
        }
    }
    return total_of(sum);
}

static const plumb_sampler_kernels NAME(set) = {NAME_STRING(SET),  NAME(largest), NAME(divide), NAME(block_sums), NAME(block_exp),
                                                NAME(widen), NAME(exp_sum), NAME(sum),    NAME(sum_shifted)};
#undef PARTS
#undef F_LANES
#undef D_LANES
#undef NAME
#undef NAME_OF
#undef NAME_JOINED
#undef vf
#undef vu
#undef vd
#undef vl
#undef vh
#undef INLINE
#undef SET
#undef WIDTH
#undef TARGET
