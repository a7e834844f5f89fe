/* Products with few rows, as in decoding: the weight is read once, straight from memory, and everything else stays
 * in registers and the caches.
 *
 * The tile (tile.h) wants its vectors interleaved and serves a group of panels chunk by chunk; with one row that copy costs more than
 * the product, and memory sees nine short streams instead of one long one. Here a thread walks its panels one after the other, so that a
 * weight [n/32][k][32] is a single stream from its first byte to its last:
 *
 *   for each panel, for each term, for each chunk of k, for rows in passes of at most FEW_PASS:
 *     sums[m][32] (+)= x[m][chunk] w[32][chunk]^T
 *
 * A second pass over the rows finds the chunk in the L1 cache. Every element is the sum that the tile makes of it, bit for bit: the same
 * chunks, in each one chain from zero in the same order (bf16: the pairs k, k+1 of vdpbf16ps, put together here from two rows of the
 * panel), chunks and terms added in order. */
#ifndef PLUMB_FEW_H
#define PLUMB_FEW_H
#include "operand.h"

#if defined(PLUMB_ISA_avx512) || defined(PLUMB_ISA_avx512bf16)
enum { FEW_ROWS = 96, FEW_PASS = 12 };
#elif defined(PLUMB_ISA_avx2)
enum { FEW_ROWS = 4, FEW_PASS = 2 };
#else
enum { FEW_ROWS = 1, FEW_PASS = 1 };
#endif
/* How far ahead memory is asked, in bytes: the processor's own prefetch ends at a page. With up to FEW_BOUND rows the product waits for
 * memory and its lines go to the first cache; with more it computes, and they would only drive out what it works on. Later passes over
 * the rows find what the first has asked for. */
enum { FEW_REGS = BLOCK / REG, FEW_AHEAD = 6144, FEW_FAR = 8192, FEW_BOUND = 6 };
typedef enum fetching { FETCH_NOTHING, FETCH_NEAR, FETCH_FAR } fetching;
INLINE fetching fetching_for(int64_t M, bool first_pass) { return !first_pass ? FETCH_NOTHING : M <= FEW_BOUND ? FETCH_NEAR : FETCH_FAR; }
INLINE void few_prefetch(const void *at, int lines, fetching what) {
    if (what == FETCH_NEAR)
        for (int i = 0; i < lines; i++) __builtin_prefetch((const char *)at + FEW_AHEAD + 64 * i, 0, 3);
    else if (what == FETCH_FAR)
        for (int i = 0; i < lines; i++) __builtin_prefetch((const char *)at + FEW_FAR + 64 * i, 0, 2);
}
INLINE void few_store(float *out, reg v, bool add) { REG_STORE(out, add ? REG_ADD(REG_LOAD(out), v) : v); }

typedef struct few { /* one chunk of a panel */
    const float *x; /* floats, or words of two bf16, as the tile reads rows */
    int64_t x_block;
    const void *w;
    int64_t n; /* elements of the reduction */
    float *sums;
    bool add;
    fetching fetch;
} few;

INLINE void few_f32_shape(const few *f, const int rows) {
    reg c[FEW_PASS][FEW_REGS];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < FEW_REGS; v++) c[i][v] = REG_SET(0);
    const float *w = f->w, *x = f->x;
    for (int64_t r0 = 0; r0 < f->n; r0 += 32, x += f->x_block) {
        int64_t n = plumb_min64(32, f->n - r0);
        for (int64_t r = 0; r < n; r++, w += BLOCK) {
            few_prefetch(w, 2, f->fetch);
            reg b[FEW_REGS];
            _Pragma("GCC unroll 8") for (int v = 0; v < FEW_REGS; v++) b[v] = REG_LOAD(w + v * REG);
            _Pragma("GCC unroll 12") for (int i = 0; i < rows; i++) {
                reg a = REG_SET(x[i * 32 + r]);
                _Pragma("GCC unroll 8") for (int v = 0; v < FEW_REGS; v++) c[i][v] = REG_FMA(a, b[v], c[i][v]);
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < FEW_REGS; v++) few_store(f->sums + i * BLOCK + v * REG, c[i][v], f->add);
}

#ifdef PLUMB_ISA_avx512bf16
INLINE __m512 few_quarters(__m512 low, __m512 high, const bool upper) { /* lanes in order again: see below */
    const __m512i first = _mm512_set_epi32(23, 22, 21, 20, 7, 6, 5, 4, 19, 18, 17, 16, 3, 2, 1, 0);
    return _mm512_permutex2var_ps(low, upper ? _mm512_add_epi32(first, _mm512_set1_epi32(8)) : first, high);
}
/* unpack works within quarters of a register: `low` holds lanes 0-3, 8-11, 16-19, 24-27 and `high` the others, until the chunk is done. */
INLINE void few_bf16_shape(const few *f, const int rows) {
    __m512 c[FEW_PASS][2];
    for (int i = 0; i < rows; i++) c[i][0] = c[i][1] = _mm512_setzero_ps();
    const uint16_t *w = f->w;
    const float *x = f->x;
    for (int64_t r0 = 0; r0 < f->n; r0 += 32, x += f->x_block) {
        int64_t n = plumb_min64(32, f->n - r0);
        for (int64_t r = 0; r < n; r += 2, w += 2 * BLOCK) {
            few_prefetch(w, 2, f->fetch);
            __m512i even = _mm512_loadu_si512(w), odd = r + 1 < n ? _mm512_loadu_si512(w + BLOCK) : _mm512_setzero_si512();
            __m512bh low = (__m512bh)_mm512_unpacklo_epi16(even, odd), high = (__m512bh)_mm512_unpackhi_epi16(even, odd);
            _Pragma("GCC unroll 12") for (int i = 0; i < rows; i++) {
                __m512bh a = (__m512bh)_mm512_set1_ps(x[i * 16 + r / 2]);
                c[i][0] = _mm512_dpbf16_ps(c[i][0], a, low);
                c[i][1] = _mm512_dpbf16_ps(c[i][1], a, high);
            }
        }
    }
    for (int i = 0; i < rows; i++) {
        few_store(f->sums + i * BLOCK, few_quarters(c[i][0], c[i][1], false), f->add);
        few_store(f->sums + i * BLOCK + 16, few_quarters(c[i][0], c[i][1], true), f->add);
    }
}
#endif

#define FEW_CASE(K, R) case R: K(f, R); break;
#if defined(PLUMB_ISA_avx512) || defined(PLUMB_ISA_avx512bf16)
#define FEW_CASES_8(K)                                                                                                                     \
    FEW_CASE(K, 1) FEW_CASE(K, 2) FEW_CASE(K, 3) FEW_CASE(K, 4) FEW_CASE(K, 5) FEW_CASE(K, 6) FEW_CASE(K, 7) FEW_CASE(K, 8)
#define FEW_CASES(K) FEW_CASES_8(K) FEW_CASE(K, 9) FEW_CASE(K, 10) FEW_CASE(K, 11) FEW_CASE(K, 12)
#elif defined(PLUMB_ISA_avx2)
#define FEW_CASES(K) FEW_CASE(K, 1) FEW_CASE(K, 2)
#else
#define FEW_CASES(K) FEW_CASE(K, 1)
#endif
static __attribute__((noinline)) void few_f32(const few *f, int rows) {
    switch (rows) { FEW_CASES(few_f32_shape) }
}
#ifdef PLUMB_ISA_avx512bf16
static __attribute__((noinline)) void few_bf16(const few *f, int rows) {
    switch (rows) { FEW_CASES(few_bf16_shape) }
}
#endif
/* Whether a product with M rows goes this way. Emulated bf16 has no need of it. */
INLINE bool few_rows(int64_t M, bool bf16) {
#ifdef PLUMB_ISA_avx512bf16
    (void)bf16;
#else
    if (bf16) return false;
#endif
    return M <= FEW_ROWS;
}

/* One term for one panel: sums [M][32] (+)= x w^T. */
static void few_term(plumb_backend *be, float *sums, int64_t M, const plumb_term *term, int64_t panel, bool add) {
    bool bf16 = is_bf16(be);
    side x = operand_side(be, term->x), w = weight_side(be, term->w);
    int64_t k = term->w->k, chunk = chunk_of(k, bf16), passes = (M + FEW_PASS - 1) / FEW_PASS;
    for (int64_t r0 = 0; r0 < k; r0 += chunk)
        for (int64_t p = 0; p < passes; p++) {
            int64_t m = tile_begin(M, passes, p), rows = tile_begin(M, passes, p + 1) - m;
            few f = {.x = side_at(x, r0, m), .x_block = x.p * (bf16 ? 16 : 32), .w = (const char *)side_at(w, panel * BLOCK, r0),
                     .n = plumb_min64(chunk, k - r0), .sums = sums + m * BLOCK, .add = add || r0 > 0, .fetch = fetching_for(M, p == 0)};
#ifdef PLUMB_ISA_avx512bf16
            if (bf16) few_bf16(&f, (int)rows);
            else
#endif
                few_f32(&f, (int)rows);
        }
}
#endif
