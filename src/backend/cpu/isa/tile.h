/* The one loop that all products and attention run: a tile of MR rows x 32 lanes.
 *
 *   c[i][l] (+)= sum over r of a[i][r] * b[r][l]
 *
 *   a: rows read as scalars, from a blocked matrix: element (i, r) at a[(r/32)*a_block + i*32 + r%32]
 *   b: vectors of lanes, [r][32]
 *   c: [i][ldc], lanes contiguous
 *
 * Each element is one chain of fused multiply-adds over r from first to last, begun at zero and, with `add`, added to c when it is done: callers cut a long
 * reduction at fixed places and so get a sum of short chains, which is about twice as exact as one long chain. The tile's height and the number
 * of lanes cannot change a bit: rows and lanes never meet. (plain: multiply, then add.)
 *
 * bf16: the same with 32-bit words that hold two adjacent elements of the reduction: a block of 32 is 16 words, b is [r/2][32 lanes][2].
 *
 * AVX-512: 14 x 32 in 28 registers, two loads of b and 14 broadcasts feed 28 multiply-adds. AVX2: 6 x 16, twice. */
#ifndef PLUMB_TILE_H
#define PLUMB_TILE_H
#include "simd.h"
#include "cpu.h"

#if defined(PLUMB_ISA_avx512) || defined(PLUMB_ISA_avx512bf16)
typedef __m512 reg;
enum { REG = 16, MR = 14 };
#define REG_SET(x) _mm512_set1_ps(x)
#define REG_LOAD(p) _mm512_loadu_ps(p)
#define REG_STORE(p, v) _mm512_storeu_ps(p, v)
#define REG_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define REG_ADD(a, b) _mm512_add_ps(a, b)
#elif defined(PLUMB_ISA_avx2)
typedef __m256 reg;
enum { REG = 8, MR = 6 };
#define REG_SET(x) _mm256_set1_ps(x)
#define REG_LOAD(p) _mm256_loadu_ps(p)
#define REG_STORE(p, v) _mm256_storeu_ps(p, v)
#define REG_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define REG_ADD(a, b) _mm256_add_ps(a, b)
#else
typedef float reg __attribute__((vector_size(16)));
typedef float reg_unaligned __attribute__((vector_size(16), aligned(4)));
enum { REG = 4, MR = 4 };
#define REG_SET(x) ((reg){(x), (x), (x), (x)})
#define REG_LOAD(p) (*(const reg_unaligned *)(p))
#define REG_STORE(p, v) (*(reg_unaligned *)(p) = (v))
#define REG_FMA(a, b, c) ((a) * (b) + (c))
#define REG_ADD(a, b) ((a) + (b))
#endif
enum { TILE_LANES = 2 * REG };

/* One step of the bf16 chain: c + a1*b1 + a0*b0 for the two halves of each word, as vdpbf16ps does it; by widening where that is missing. */
#ifdef PLUMB_ISA_avx512bf16
#define REG_DOT(a, b, c) _mm512_dpbf16_ps(c, (__m512bh)(a), (__m512bh)(b))
#else
typedef int32_t reg_int __attribute__((vector_size(REG * 4)));
INLINE reg reg_dot(reg a, reg b, reg c) {
    reg_int ah = (reg_int)a & (int32_t)0xffff0000, bh = (reg_int)b & (int32_t)0xffff0000, al = (reg_int)a << 16, bl = (reg_int)b << 16;
    c = REG_FMA((reg)ah, (reg)bh, c);
    return REG_FMA((reg)al, (reg)bl, c);
}
#define REG_DOT(a, b, c) reg_dot(a, b, c)
#endif

typedef struct tile {
    const float *a; /* floats, or words of two bf16 */
    int64_t a_block;
    const float *b;
    float *c;
    int64_t ldc;
    int64_t reduction; /* elements, or words */
    bool add;
    const char *prefetch; /* what the next tiles will read: `lines` cache lines of 64 bytes, one each 8 steps; NULL = none */
} tile;

#define TILE_BODY(STEP, A_STRIDE)                                                                                      \
    reg c[MR][2];                                                                                                      \
    _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) {                                                          \
        c[i][0] = REG_SET(0);                                                                                          \
        if (registers > 1) c[i][1] = REG_SET(0);                                                                       \
    }                                                                                                                  \
    const float *b = t->b;                                                                                             \
    const char *prefetch = t->prefetch;                                                                                \
    for (int64_t r0 = 0; r0 < t->reduction; r0 += A_STRIDE) {                                                          \
        const float *a = t->a + r0 / A_STRIDE * t->a_block;                                                            \
        int64_t n = t->reduction - r0 < A_STRIDE ? t->reduction - r0 : A_STRIDE;                                       \
        if (prefetch)                                                                                                  \
            for (int l = 0; l < A_STRIDE / 8; l++, prefetch += 64) __builtin_prefetch(prefetch, 0, 2);                 \
        for (int64_t r = 0; r < n; r++, b += BLOCK) {                                                                  \
            reg b0 = REG_LOAD(b), b1 = registers > 1 ? REG_LOAD(b + REG) : b0;                                         \
            _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) {                                                  \
                reg x = REG_SET(a[i * A_STRIDE + r]);                                                                  \
                c[i][0] = STEP(x, b0, c[i][0]);                                                                        \
                if (registers > 1) c[i][1] = STEP(x, b1, c[i][1]);                                                     \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) {                                                          \
        float *out = t->c + i * t->ldc;                                                                                \
        REG_STORE(out, t->add ? REG_ADD(REG_LOAD(out), c[i][0]) : c[i][0]);                                                    \
        if (registers > 1) REG_STORE(out + REG, t->add ? REG_ADD(REG_LOAD(out + REG), c[i][1]) : c[i][1]);                     \
    }

INLINE void tile_f32_shape(const tile *t, const int rows, const int registers) { TILE_BODY(REG_FMA, 32) }
INLINE void tile_bf16_shape(const tile *t, const int rows, const int registers) { TILE_BODY(REG_DOT, 16) }

#define TILE_CASE(KIND, R)                                                                                             \
    case 2 * (R): KIND(t, R, 1); break;                                                                                \
    case 2 * (R) + 1: KIND(t, R, 2); break;
#if defined(PLUMB_ISA_avx512) || defined(PLUMB_ISA_avx512bf16)
#define TILE_CASES(K) TILE_CASE(K, 1) TILE_CASE(K, 2) TILE_CASE(K, 3) TILE_CASE(K, 4) TILE_CASE(K, 5) TILE_CASE(K, 6) TILE_CASE(K, 7) TILE_CASE(K, 8) \
    TILE_CASE(K, 9) TILE_CASE(K, 10) TILE_CASE(K, 11) TILE_CASE(K, 12) TILE_CASE(K, 13) TILE_CASE(K, 14)
#elif defined(PLUMB_ISA_avx2)
#define TILE_CASES(K) TILE_CASE(K, 1) TILE_CASE(K, 2) TILE_CASE(K, 3) TILE_CASE(K, 4) TILE_CASE(K, 5) TILE_CASE(K, 6)
#else
#define TILE_CASES(K) TILE_CASE(K, 1) TILE_CASE(K, 2) TILE_CASE(K, 3) TILE_CASE(K, 4)
#endif
static __attribute__((noinline)) void tile_f32_lanes(const tile *t, int rows, int registers) {
    switch (2 * rows + registers - 1) { TILE_CASES(tile_f32_shape) }
}
static __attribute__((noinline)) void tile_bf16_lanes(const tile *t, int rows, int registers) {
    switch (2 * rows + registers - 1) { TILE_CASES(tile_bf16_shape) }
}

/* `left` lanes that do not fill a register: through a copy of the tile's corner. */
static __attribute__((noinline)) void tile_corner(const tile *t, int rows, int64_t left, bool bf16) {
    float corner[MR * TILE_LANES] __attribute__((aligned(64)));
    tile part = {t->a, t->a_block, t->b, corner, TILE_LANES, t->reduction, t->add, NULL};
    if (t->add)
        for (int i = 0; i < rows; i++) {
            memset(corner + i * TILE_LANES, 0, sizeof(float) * TILE_LANES);
            memcpy(corner + i * TILE_LANES, t->c + i * t->ldc, (size_t)left * sizeof(float));
        }
    if (bf16) tile_bf16_lanes(&part, rows, (int)((left + REG - 1) / REG));
    else tile_f32_lanes(&part, rows, (int)((left + REG - 1) / REG));
    for (int i = 0; i < rows; i++) memcpy(t->c + i * t->ldc, corner + i * TILE_LANES, (size_t)left * sizeof(float));
}
/* rows <= MR, lanes <= 32. The tile is passed where it lies: copying it would stall on its freshly written fields. */
INLINE void tile_run(tile *t, int rows, int64_t lanes, bool bf16) {
    while (lanes >= REG) {
        int registers = lanes >= TILE_LANES ? 2 : 1;
        if (bf16) tile_bf16_lanes(t, rows, registers);
        else tile_f32_lanes(t, rows, registers);
        lanes -= registers * REG;
        t->b += registers * REG, t->c += registers * REG, t->prefetch = NULL;
    }
    if (lanes > 0) tile_corner(t, rows, lanes, bf16);
}
/* Rows are cut evenly: `count` rows make (count+MR-1)/MR tiles. */
INLINE int64_t tiles_of(int64_t count) { return (count + MR - 1) / MR; }
INLINE int64_t tile_begin(int64_t count, int64_t n_tiles, int64_t i) { return count * i / n_tiles; }
#endif
