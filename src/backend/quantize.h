/* Quantised weights: blocks of 32 values along k, each with its own scale.  Both back ends use this one description,
 * so that they hold the same numbers.
 *
 *   8 bit   w = d q            q in -127..127, d fp32 = max |w| / 127                                  (as Q8_0)
 *   4 bit   w = d q + m        q in 0..15; d and m fp16, from the least and the greatest value          (as Q4_1)
 *
 * A block whose values are 16 equidistant levels (a file that came as Q4_1 or Q4_0) is recognised and keeps its levels, also when it
 * does not use the lowest or the highest; other blocks lose at most half of a step d, plus the rounding of d and m to fp16. fp16 ends at
 * 65504 and counts in steps of 6e-8: greater values are cut off there, and smaller differences are lost. A block that is not finite
 * becomes what fp16 or fp32 makes of it, never garbage elsewhere. Values past the end of k count as absent, and are stored as q = 0. */
#ifndef PLUMB_QUANTIZE_H
#define PLUMB_QUANTIZE_H
#include "plumb/base.h"
#include <math.h>

enum { PLUMB_QBLOCK = 32 };

/* Float to IEEE half, to nearest even; what is too large becomes the largest finite half. */
static inline uint16_t plumb_half(float f) {
    union { float f; uint32_t u; } x = {f};
    uint32_t sign = x.u >> 16 & 0x8000, magnitude = x.u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00);   /* NaN */
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7bff);  /* 65520 and above would round to infinity */
    if (magnitude < 0x38800000u) {                                   /* below 2^-14: counts in units of 2^-24 */
        /* adding 0.5 leaves these units as the last bits, rounded to even */
        union { uint32_t u; float f; } m = {magnitude}, units = {.f = m.f + 0.5f};
        return (uint16_t)(sign | (units.u - 0x3f000000u));
    }
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13));
}

typedef struct plumb_qblock { /* one block of one row */
    float scale, minimum;     /* as stored: 4 bit: representable in fp16; 8 bit: no minimum */
    int8_t q[PLUMB_QBLOCK];
} plumb_qblock;

static inline float plumb_dequantized(const plumb_qblock *b, int i) { return b->scale * (float)b->q[i] + b->minimum; }

/* To the nearest whole number, ties to even, of numbers well below 2^22; in a form that vectorises everywhere. */
static inline float plumb_nearest_whole(float x) { return x + 12582912.0f - 12582912.0f; }

static inline void plumb_quantize_8(const float *w, int64_t n, plumb_qblock *out) {
    float most = 0;
    for (int64_t i = 0; i < n; i++) most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    float d = most / 127.0f, inverse = d > 0 ? 127.0f / most : 0;
    if (!(inverse < INFINITY)) d = inverse = 0; /* all below 2^-121 */
    out->scale = d, out->minimum = 0;
    for (int64_t i = 0; i < PLUMB_QBLOCK; i++) {
        float q = i < n ? w[i] * inverse : 0;
        out->q[i] = (int8_t)(q >= 127 ? 127 : q <= -127 ? -127 : q == q ? plumb_nearest_whole(q) : 0);
    }
}

/* Whether all values are m + j d for whole j (a file's rounding allowed for). */
static inline bool plumb_is_lattice(const float *w, int64_t n, float least, float step) {
    float inverse = 1.0f / step;
    int outside = 0;
    for (int64_t i = 0; i < n; i++) {
        float j = (w[i] - least) * inverse;
        outside += !(fabsf(j - plumb_nearest_whole(j)) <= 0x1p-9f);
    }
    return outside == 0;
}
/* The scale and minimum of a block. A lattice that spans fewer than 15 steps may begin below its least value: m is
 * then the level that fp16 holds best. */
static inline void plumb_fit_4(const float *w, int64_t n, float least, float greatest, float *scale, float *minimum) {
    float span = greatest - least;
    *scale = plumb_f16_float(plumb_half(span / 15.0f)), *minimum = plumb_f16_float(plumb_half(least));
    for (int steps = 15; steps >= 1; steps--) {
        float d = plumb_f16_float(plumb_half(span / (float)steps));
        if (!(d > 0) || !plumb_is_lattice(w, n, least, d)) continue;
        float best = INFINITY;
        for (int below = 0; below <= 15 - steps; below++) {
            float m = least - d * (float)below, error = fabsf(plumb_f16_float(plumb_half(m)) - m);
            if (error < best) best = error, *minimum = plumb_f16_float(plumb_half(m));
        }
        *scale = d;
        return;
    }
}
static inline void plumb_quantize_4(const float *w, int64_t n, plumb_qblock *out) {
    float least = INFINITY, greatest = -INFINITY;
    for (int64_t i = 0; i < n; i++) least = w[i] < least ? w[i] : least, greatest = w[i] > greatest ? w[i] : greatest;
    if (!(least <= greatest)) least = greatest = 0; /* nothing but NaN */
    if (greatest > least) plumb_fit_4(w, n, least, greatest, &out->scale, &out->minimum);
    else out->scale = 0, out->minimum = plumb_f16_float(plumb_half(least));
    for (int64_t i = 0; i < PLUMB_QBLOCK; i++) {
        float q = i < n && out->scale > 0 ? (w[i] - out->minimum) / out->scale : 0;
        out->q[i] = (int8_t)(q >= 15 ? 15 : q > 0 ? plumb_nearest_whole(q) : 0);
    }
}
#endif
