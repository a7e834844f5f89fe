/* The loops over a vocabulary, a few microseconds each.
 *
 * They are written in vectors (sampler_loops.h) and compiled for three instruction sets from one source; the lanes, the order of sums
 * and the roundings are those of the source, so that every set gives the same bits and a draw does not depend on the machine. The set is
 * chosen through a table and not by the loader, which sanitizers and static linking do not like.
 *
 * exp(x) for x <= 0: x = n ln 2 + r with n rounded to nearest by adding 1.5 * 2^23 (2^52), |r| <= ln 2 / 2; Taylor's polynomial of
 * degree 7 (13), whose remainder, 5e-9 (5e-18), lies below a rounding; 2^n by shifting n into the exponent.
 * Below the smallest normal number it is 0. */
#include "sampler_internal.h"
#include <math.h>
#include <string.h>

/* 16 floats from z; where only n are left, a copy with nothing (-infinity) behind them. */
static inline const float *floats(const float *z, int64_t n, float spare[16]) {
    if (n >= 16) return z;
    for (int64_t i = 0; i < 16; i++) spare[i] = i < n ? z[i] : -INFINITY;
    return spare;
}
static inline const double *doubles(const double *z, int64_t n, double rest, double spare[8]) {
    if (n >= 8) return z;
    for (int64_t i = 0; i < 8; i++) spare[i] = i < n ? z[i] : rest;
    return spare;
}
static inline double total_of(const void *lanes) { /* of 8 doubles */
    double s[8];
    memcpy(s, lanes, sizeof s);
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}
#define NAME_STRING(set) NAME_STRING_OF(set)
#define NAME_STRING_OF(set) #set

#define SET plain
#define WIDTH 16
#define TARGET
#include "sampler_loops.h"
#if defined(__x86_64__) && defined(__GNUC__)
#define SET avx2
#define WIDTH 32
#define TARGET __attribute__((target("avx2")))
#include "sampler_loops.h"
#define SET avx512
#define WIDTH 64
#define TARGET __attribute__((target("avx512f,avx512dq")))
#include "sampler_loops.h"
#endif

int plumb_sampler_kernel_sets(const plumb_sampler_kernels *out[3]) {
    int n = 0;
    out[n++] = &plain_set;
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx2")) out[n++] = &avx2_set;
    if (n == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) out[n++] = &avx512_set;
#endif
    return n;
}
