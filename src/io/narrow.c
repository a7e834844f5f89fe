/* From float to half and bfloat16 for writing, rounded to nearest even.  A finite value that rounds to infinity is
 * counted: a file with infinities where the model had numbers is damage, and whoever writes it must be able to say so.
 */
#include "io_internal.h"
#include <math.h>

static uint16_t to_half(float f) {
    union {
        float f;
        uint32_t u;
    } x = {f}, small;
    uint32_t sign = x.u >> 16 & 0x8000, a = x.u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00);  /* NaN */
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520 and above is nearer to infinity than to 65504 */
    if (a < 0x38800000u) {                                  /* below 2^-14: the result counts in units of 2^-24, */
        small.u = a;                                        /* which is the last bit of a float in [0.5, 1): */
        small.f += 0.5f;                                    /* the addition rounds it there, to nearest even */
        return (uint16_t)(sign | (small.u - 0x3f000000u));
    }
    return (uint16_t)(sign | (a - 0x38000000u + 0xfffu + (a >> 13 & 1)) >> 13);
}

static bool overflowed(float in, bool became_infinite, float *worst) {
    if (!became_infinite || !isfinite(in)) return false;
    if (fabsf(in) > fabsf(*worst)) *worst = in;
    return true;
}

int64_t plumb_io_to_f16(const float *in, int64_t count, uint16_t *out, float *worst) {
    int64_t lost = 0;
    for (int64_t i = 0; i < count; i++) {
        out[i] = to_half(in[i]);
        lost += overflowed(in[i], (out[i] & 0x7fff) == 0x7c00, worst);
    }
    return lost;
}

int64_t plumb_io_to_bf16(const float *in, int64_t count, uint16_t *out, float *worst) {
    int64_t lost = 0;
    for (int64_t i = 0; i < count; i++) {
        out[i] = plumb_bf16(in[i]);
        lost += overflowed(in[i], (out[i] & 0x7fff) == 0x7f80, worst);
    }
    return lost;
}
