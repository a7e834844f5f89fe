/* Sixteen floats at a time, the same lanes on every instruction set (a 512-bit register, two of 256 or four of 128), so that sums over
 * lanes have one fixed order everywhere.  Only tile.h uses the registers of the machine by name. */
#ifndef PLUMB_SIMD_H
#define PLUMB_SIMD_H
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef int16_t h16i __attribute__((vector_size(32)));
#define INLINE static inline __attribute__((always_inline))

INLINE v16 v_load(const float *p) {
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void v_store(float *p, v16 v) { memcpy(p, &v, sizeof v); }
INLINE v16 v_load_n(const float *p, int64_t n) { /* n < 16 floats, zeros behind */
#ifdef __AVX512F__
    return (v16)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    v16 v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
#endif
}
INLINE void v_store_n(float *p, v16 v, int64_t n) {
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    memcpy(p, &v, (size_t)n * sizeof(float));
#endif
}
INLINE v16 v_set(float x) { return (v16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE v16 v_fma(v16 a, v16 b, v16 c) {
#if defined(__AVX512F__)
    return (v16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    union { v16 v; __m256 h[2]; } x = {a}, y = {b}, z = {c};
    z.h[0] = _mm256_fmadd_ps(x.h[0], y.h[0], z.h[0]);
    z.h[1] = _mm256_fmadd_ps(x.h[1], y.h[1], z.h[1]);
    return z.v;
#else
    return a * b + c;
#endif
}
INLINE v16 v_select(v16i mask, v16 yes, v16 no) { return (v16)((mask & (v16i)yes) | (~mask & (v16i)no)); }
INLINE v16 v_max(v16 a, v16 b) {
#if defined(__AVX512F__)
    return (v16)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return v_select(a > b, a, b);
#endif
}
INLINE float v_sum(v16 v) { /* fixed tree: 8, 4, 2, 1 apart */
    float x[16];
    v_store(x, v);
    for (int d = 8; d; d /= 2)
        for (int i = 0; i < d; i++) x[i] += x[i + d];
    return x[0];
}
INLINE float v_max_lane(v16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float x[16];
    v_store(x, v);
    for (int d = 8; d; d /= 2)
        for (int i = 0; i < d; i++) x[i] = x[i] > x[i + d] ? x[i] : x[i + d];
    return x[0];
#endif
}
/* e^x: 2^n e^f with |f| <= ln2/2 and a degree-6 polynomial (error under 2 ulp); 0 below -87.3, NaN stays NaN. */
INLINE v16 v_exp(v16 x) {
    const v16 low = v_set(-87.3f);
    v16i under = x < low;
    v16 high = v_set(88.7f), y = v_select(x > high, high, x);
    v16 magic = v_set(12582912.0f); /* adding 1.5*2^23 rounds to an integer */
    v16 n = v_fma(y, v_set(1.44269504f), magic) - magic;
    v16 f = v_fma(n, v_set(-0.693359375f), y);
    f = v_fma(n, v_set(2.12194440e-4f), f);
    v16 p = v_set(1.9875691500e-4f);
    p = v_fma(p, f, v_set(1.3981999507e-3f));
    p = v_fma(p, f, v_set(8.3334519073e-3f));
    p = v_fma(p, f, v_set(4.1665795894e-2f));
    p = v_fma(p, f, v_set(1.6666665459e-1f));
    p = v_fma(p, f, v_set(5.0000001201e-1f));
    p = v_fma(p, f * f, f + v_set(1.0f));
    v16i e = __builtin_convertvector(v_select(under, v_set(0.0f), n), v16i);
    v16 scale = (v16)((e + 127) << 23);
    return v_select(under, v_set(0.0f), p * scale);
}
/* Transposes 16 rows of 16 floats. */
INLINE void v_transpose(v16 r[16]) {
#ifdef __AVX512F__
    __m512i t[16], u[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32((__m512i)r[2 * i], (__m512i)r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32((__m512i)r[2 * i], (__m512i)r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(u[i], u[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(u[i], u[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(u[8 + i], u[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(u[8 + i], u[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = (v16)_mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = (v16)_mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = (v16)_mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = (v16)_mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
#else
    float x[16][16], y[16][16];
    memcpy(x, r, sizeof x);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) y[j][i] = x[i][j];
    memcpy(r, y, sizeof y);
#endif
}
/* Sixteen bf16 values from floats (round to nearest even) and back. */
INLINE void v_store_bf16(uint16_t *p, v16 v) {
#ifdef __AVX512BF16__
    __m256bh b = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &b, 32);
#else
    typedef uint32_t v16u __attribute__((vector_size(64)));
    typedef uint16_t h16 __attribute__((vector_size(32)));
    v16u u = (v16u)v;
    h16 h = __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, h16);
    memcpy(p, &h, 32);
#endif
}
/* Sixteen words, each a pair of bf16 values: low[l] | high[l] << 16. */
INLINE v16 v_pair_bf16(v16 low, v16 high) {
#if defined(__AVX512BF16__) && defined(__AVX512BW__)
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                                           18, 2, 17, 1, 16, 0);
    return (v16)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
#else
    typedef uint32_t v16u __attribute__((vector_size(64)));
    v16u l = (v16u)low, h = (v16u)high;
    return (v16)((l + 0x7fff + ((l >> 16) & 1)) >> 16 | ((h + 0x7fff + ((h >> 16) & 1)) & 0xffff0000u));
#endif
}
INLINE v16 v_load_bf16(const uint16_t *p) {
    typedef uint32_t v16u __attribute__((vector_size(64)));
    typedef uint16_t h16 __attribute__((vector_size(32)));
    h16 h;
    memcpy(&h, p, 32);
    return (v16)(__builtin_convertvector(h, v16u) << 16);
}
#endif
