/* The one loop that all products and attention run, on tiles of a few rows and up to 48 lanes.
 *
 *   c[i][l] (+)= sum over r of a[i][r] * b[r][l]
 *
 *   a: rows read as scalars, from a blocked matrix: element (i, r) at a[(r/32)*a_block + i*32 + r%32]
 *   b: vectors of lanes, panels of 32 lanes [r][32], b_panel apart
 *   c: rows ldc apart, panels of 32 lanes c_panel apart
 *
 * Each element is one chain of fused multiply-adds over r from first to last, begun at zero and, with `add`, added to c when it is done:
 * callers cut a long reduction at fixed places and so get a sum of short chains, which is about twice as exact as one long chain. The
 * tile's height and the number of lanes cannot change a bit: rows and lanes never meet. (plain: multiply, then add.)
 *
 * bf16: the same with 32-bit words that hold two adjacent elements of the reduction: a block of 32 is 16 words, b is [r/2][32 lanes][2].
 *
 * A strip is cut into halves of a panel, 16 lanes each. AVX-512 takes three halves and nine rows at a time: 12 loads feed 27
 * multiply-adds, where 14 rows x 2 halves need 16 for 28, and loads are what a shared core runs out of (measured: 95 % of the ceiling
 * against 82 %). AVX2: one half, six rows. */
#ifndef PLUMB_TILE_H
#define PLUMB_TILE_H
#include "simd.h"
#include "cpu.h"

#if defined(PLUMB_ISA_avx512) || defined(PLUMB_ISA_avx512bf16)
typedef __m512 reg;
enum { REG = 16, HALVES = 3, MR = 14, MR_WIDE = 9 };
#define REG_SET(x) _mm512_set1_ps(x)
#define REG_LOAD(p) _mm512_loadu_ps(p)
#define REG_STORE(p, v) _mm512_storeu_ps(p, v)
#define REG_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define REG_ADD(a, b) _mm512_add_ps(a, b)
#elif defined(PLUMB_ISA_avx2)
typedef __m256 reg;
enum { REG = 8, HALVES = 1, MR = 6, MR_WIDE = 6 };
#define REG_SET(x) _mm256_set1_ps(x)
#define REG_LOAD(p) _mm256_loadu_ps(p)
#define REG_STORE(p, v) _mm256_storeu_ps(p, v)
#define REG_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define REG_ADD(a, b) _mm256_add_ps(a, b)
#else
typedef float reg __attribute__((vector_size(16)));
typedef float reg_unaligned __attribute__((vector_size(16), aligned(4)));
enum { REG = 4, HALVES = 1, MR = 2, MR_WIDE = 2 };
#define REG_SET(x) ((reg){(x), (x), (x), (x)})
#define REG_LOAD(p) (*(const reg_unaligned *)(p))
#define REG_STORE(p, v) (*(reg_unaligned *)(p) = (v))
#define REG_FMA(a, b, c) ((a) * (b) + (c))
#define REG_ADD(a, b) ((a) + (b))
#endif
enum { HALF = 16, HALF_REGS = HALF / REG };

/* One step of the bf16 chain: c + a1*b1 + a0*b0 for the two halves of each word, as vdpbf16ps does it; by
 * widening where that is missing. */
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

typedef struct tile { /* up to MR rows and HALVES halves */
    const float *a;
    int64_t a_block;
    const float *b[HALVES];
    float *c[HALVES];
    int64_t ldc;
    int64_t reduction; /* elements, or words */
    bool add;
} tile;

#define TILE_BODY(STEP, A_STRIDE)                                                                                      \
    reg c[MR][HALVES * HALF_REGS];                                                                                     \
    _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++)                                                            \
        _Pragma("GCC unroll 4") for (int v = 0; v < halves * HALF_REGS; v++) c[i][v] = REG_SET(0);                     \
    const float *a = t->a;                                                                                             \
    int64_t at = 0;                                                                                                    \
    for (int64_t r0 = 0; r0 < t->reduction; r0 += A_STRIDE, a += t->a_block) {                                         \
        int64_t n = t->reduction - r0 < A_STRIDE ? t->reduction - r0 : A_STRIDE;                                       \
        for (int64_t r = 0; r < n; r++, at += BLOCK) {                                                                 \
            reg b[HALVES * HALF_REGS];                                                                                 \
            _Pragma("GCC unroll 4") for (int v = 0; v < halves * HALF_REGS; v++)                                       \
                b[v] = REG_LOAD(t->b[v / HALF_REGS] + at + v % HALF_REGS * REG);                                       \
            _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) {                                                  \
                reg x = REG_SET(a[i * A_STRIDE + r]);                                                                  \
                _Pragma("GCC unroll 4") for (int v = 0; v < halves * HALF_REGS; v++) c[i][v] = STEP(x, b[v], c[i][v]); \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++)                                                            \
        _Pragma("GCC unroll 4") for (int v = 0; v < halves * HALF_REGS; v++) {                                         \
            float *out = t->c[v / HALF_REGS] + i * t->ldc + v % HALF_REGS * REG;                                       \
            REG_STORE(out, t->add ? REG_ADD(REG_LOAD(out), c[i][v]) : c[i][v]);                                        \
        }

INLINE void tile_f32_shape(const tile *t, const int rows, const int halves) { TILE_BODY(REG_FMA, 32) }
INLINE void tile_bf16_shape(const tile *t, const int rows, const int halves) { TILE_BODY(REG_DOT, 16) }

#if defined(PLUMB_ISA_avx512) || defined(PLUMB_ISA_avx512bf16)
#define TILE_CASE(K, R) case 4 * (R) + 1: K(t, R, 1); break; case 4 * (R) + 2: K(t, R, 2); break;
#define TILE_WIDE(K, R) case 4 * (R) + 3: K(t, R, 3); break;
#define TILE_CASES(K)                                                                                                                      \
    TILE_CASE(K, 1)                                                                                                                        \
    TILE_CASE(K, 2) TILE_CASE(K, 3) TILE_CASE(K, 4) TILE_CASE(K, 5) TILE_CASE(K, 6) TILE_CASE(K, 7) TILE_CASE(K, 8) TILE_CASE(K, 9)        \
        TILE_CASE(K, 10) TILE_CASE(K, 11) TILE_CASE(K, 12) TILE_CASE(K, 13) TILE_CASE(K, 14) TILE_WIDE(K, 1) TILE_WIDE(K, 2)               \
            TILE_WIDE(K, 3) TILE_WIDE(K, 4) TILE_WIDE(K, 5) TILE_WIDE(K, 6) TILE_WIDE(K, 7) TILE_WIDE(K, 8) TILE_WIDE(K, 9)
#elif defined(PLUMB_ISA_avx2)
#define TILE_CASE(K, R) case 4 * (R) + 1: K(t, R, 1); break;
#define TILE_CASES(K) TILE_CASE(K, 1) TILE_CASE(K, 2) TILE_CASE(K, 3) TILE_CASE(K, 4) TILE_CASE(K, 5) TILE_CASE(K, 6)
#else
#define TILE_CASE(K, R) case 4 * (R) + 1: K(t, R, 1); break;
#define TILE_CASES(K) TILE_CASE(K, 1) TILE_CASE(K, 2)
#endif
static __attribute__((noinline)) void tile_f32(const tile *t, int rows, int halves) {
    switch (4 * rows + halves) { TILE_CASES(tile_f32_shape) }
}
static __attribute__((noinline)) void tile_bf16(const tile *t, int rows, int halves) {
    switch (4 * rows + halves) { TILE_CASES(tile_bf16_shape) }
}

typedef struct ahead { /* what will be read soon: `count` runs of `lines` cache lines, `apart` bytes from each other */
    const char *at;
    int64_t count, lines, apart;
} ahead;

typedef struct strip { /* any number of rows and lanes; see the head of this file */
    const float *a;
    int64_t a_block;
    const float *b;
    int64_t b_panel;
    float *c;
    int64_t ldc, c_panel;
    int64_t rows, lanes, reduction; /* reduction: elements, or words */
    bool add, bf16;
    bool cold;              /* rows come from far away and serve all lanes: the first lanes ask for the next rows while they compute */
    ahead next;             /* what will be read after this strip: fetched a little with each tile */
} strip;

INLINE void tile_run(const tile *t, int rows, int halves, bool bf16) {
    if (bf16) tile_bf16(t, rows, halves);
    else tile_f32(t, rows, halves);
}
/* Fewer than 16 lanes: through a copy of the tile's corner. */
static __attribute__((noinline)) void tile_corner(const tile *t, int rows, int64_t lanes, bool bf16) {
    float corner[MR * HALF] __attribute__((aligned(64)));
    tile part = *t;
    part.c[0] = corner, part.ldc = HALF;
    for (int i = 0; i < rows && t->add; i++) {
        memset(corner + i * HALF, 0, sizeof(float) * HALF);
        memcpy(corner + i * HALF, t->c[0] + i * t->ldc, (size_t)lanes * sizeof(float));
    }
    tile_run(&part, rows, 1, bf16);
    for (int i = 0; i < rows; i++) memcpy(t->c[0] + i * t->ldc, corner + i * HALF, (size_t)lanes * sizeof(float));
}
/* Rows are cut evenly: `count` rows make (count+height-1)/height tiles. */
INLINE int64_t tile_begin(int64_t count, int64_t n_tiles, int64_t i) { return count * i / n_tiles; }

/* The next rows of a cold strip: a run of bytes in each block of the reduction. */
INLINE void prefetch_rows(const strip *s, int64_t first, int64_t last) {
    int64_t blocks = (s->reduction + (s->bf16 ? 16 : 32) - 1) / (s->bf16 ? 16 : 32), line = 64 / (int64_t)sizeof *s->a;
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t at = first * (s->bf16 ? 16 : 32); at < last * (s->bf16 ? 16 : 32); at += line)
            __builtin_prefetch(s->a + b * s->a_block + at, 0, 2);
}
/* The next `n` lines of what lies ahead, into the second cache; `line` is where the last call stopped in its run. */
INLINE void prefetch_ahead(ahead *n, int64_t *line, int64_t count) {
    for (; count > 0 && n->count > 0; count--) {
        __builtin_prefetch(n->at + *line * 64, 0, 2);
        if (++*line < n->lines) continue;
        *line = 0, n->count--, n->at += n->apart;
    }
}

static void strip_run(const strip *s) {
    int64_t halves = (s->lanes + HALF - 1) / HALF, line = 0,
            tiles = plumb_max64(1, (s->rows + MR_WIDE - 1) / MR_WIDE * ((halves + HALVES - 1) / HALVES));
    int64_t share = s->next.count * s->next.lines / tiles + 1;
    ahead next = s->next;
    int taken;
    for (int64_t h0 = 0; h0 < halves; h0 += taken) {
        bool corner = s->lanes % HALF && h0 + HALVES >= halves; /* the last half goes alone when it is not whole */
        int64_t whole = corner ? halves - 1 - h0 : halves - h0;
        taken = (int)(whole == 4 && HALVES == 3 ? 2 : plumb_min64(plumb_max64(whole, 1), HALVES));
        corner = corner && whole == 0;
        int64_t height = taken == HALVES ? MR_WIDE : MR, n_tiles = (s->rows + height - 1) / height;
        tile t = {.a_block = s->a_block, .ldc = s->ldc, .reduction = s->reduction, .add = s->add};
        for (int64_t i = 0; i < n_tiles; i++) {
            int64_t r0 = tile_begin(s->rows, n_tiles, i), r1 = tile_begin(s->rows, n_tiles, i + 1);
            t.a = s->a + r0 * (s->bf16 ? 16 : 32);
            for (int h = 0; h < taken; h++) {
                t.b[h] = s->b + (h0 + h) / 2 * s->b_panel + (h0 + h) % 2 * HALF;
                t.c[h] = s->c + (h0 + h) / 2 * s->c_panel + (h0 + h) % 2 * HALF + r0 * s->ldc;
            }
            prefetch_ahead(&next, &line, share);
            if (s->cold && h0 == 0 && i + 1 < n_tiles) prefetch_rows(s, r1, tile_begin(s->rows, n_tiles, i + 2));
            if (corner) tile_corner(&t, (int)(r1 - r0), s->lanes % HALF, s->bf16);
            else tile_run(&t, (int)(r1 - r0), taken, s->bf16);
        }
    }
}
#endif
