/* Products with weights in 8 and 4 bit (quantized.h).
 *
 * The whole numbers q are multiplied, exactly (they are bf16 numbers, too), and scaled once per block:
 *
 *   S_b = sum over the block of x q    one chain from zero, in order, as in any product of the type
 *   sum = fma(d_b, S_b, sum)           blocks in order, going on from the terms before
 *   sum = fma(m_b, X_b, sum)           4 bit; X_b = sum of the block of x as packed: lanes l and l+16, then the fixed tree
 *
 * 8 bit in bf16: x becomes whole numbers as well, x = n f with f a power of two for each row and block and |n| < 2^15: that keeps all
 * eight bits of what is within 2^-7 of the block's greatest; no error is above 2^-15 of that, and what is smaller still is lost. S_b = f
 * * sum of n q, a sum in int32 that is exact in any order; a weight costs a quarter of the instructions that turn it into bf16. (A chain
 * of bf16 would lose 2^-9 of the greatest itself; on SmolLM2 the log-probabilities are as far from those in fp32 as
 * they were by such chains.)
 *
 * W8A8, W4A8: x = n f with |n| <= 127 (backend.h), S_b = f * sum of n q, X_b = f * sum of n; sums of whole numbers as before. With the
 * instructions of the set avx512bf16 bytes are multiplied four at a time (vpdpbusd): unsigned by signed, so that 8-bit weights count from
 * -128 there and the sums from -128 times that of n.
 *
 * Bits depend on the row and the weight alone. Where vdpbf16ps exists a block stays in registers and serves several rows; elsewhere it
 * is laid out for the tile, or is widened as it is read, by pairs where rows are whole numbers. */
#ifndef PLUMB_QUANTIZED_FORWARD_H
#define PLUMB_QUANTIZED_FORWARD_H
#include "by_pairs.h"

#ifdef PLUMB_ISA_avx512bf16
/* Rows of a pass, whose sums over a block stay in registers (8 bit: with more the compiler keeps some of them in memory, which took half
 * of the speed); up to how many their sums over blocks do, too. */
enum { QUANT_4_PASS = 12, QUANT_8_PASS = 8, QUANT_KEPT = 4 };
typedef struct quant {
    const char *w; /* the panel's first block */
    int64_t blocks;
    const char *x; /* of the pass's first row: words, pairs of bf16 or of whole numbers [blocks][x_rows][16], or fours of them [8] */
    int64_t x_rows, row; /* row: the pass's first in x */
    const row_blocks *of_x;
    float *sums;
    bool add;
    fetching fetch;
} quant;
typedef __m512 quant_sums[QUANT_4_PASS][2]; /* rows, halves */
INLINE __m512i word_everywhere(const char *x, int64_t i) {
    int32_t word;
    memcpy(&word, x + 4 * i, sizeof word);
    return _mm512_set1_epi32(word);
}
/* S_b. The loops over a block are not unrolled as a whole: all prefetches would come at once, which took 15 %. */
INLINE void quant_4_block(const char *w, const char *x, fetching fetch, quant_sums c, const int rows) {
    /* 15..0 twice: bit 4 is the next nibble's */
    const __m512i half_table = _mm512_set_epi16(0x4170, 0x4160, 0x4150, 0x4140, 0x4130, 0x4120, 0x4110, 0x4100, 0x40e0, 0x40c0, 0x40a0,
                                                0x4080, 0x4040, 0x4000, 0x3f80, 0, 0x4170, 0x4160, 0x4150, 0x4140, 0x4130, 0x4120, 0x4110,
                                                0x4100, 0x40e0, 0x40c0, 0x40a0, 0x4080, 0x4040, 0x4000, 0x3f80, 0);
    for (int i = 0; i < rows; i++) c[i][0] = c[i][1] = _mm512_setzero_ps();
    _Pragma("GCC unroll 1") for (int g = 0; g < 4; g++) { /* a register of each half holds four pairs */
        __m512i v[2] = {_mm512_loadu_si512(w + g * 64), _mm512_loadu_si512(w + 256 + g * 64)};
        few_prefetch(w + g * 128, 2, fetch);
        _Pragma("GCC unroll 4") for (int s = 0; s < 4; s++) {
            __m512bh q[2];
            for (int h = 0; h < 2; h++)
                q[h] = (__m512bh)_mm512_permutexvar_epi16(s ? _mm512_srli_epi16(v[h], (unsigned)(4 * s)) : v[h], half_table);
            _Pragma("GCC unroll 12") for (int i = 0; i < rows; i++) {
                __m512bh a = (__m512bh)word_everywhere(x, i * 16 + 4 * g + s);
                c[i][0] = _mm512_dpbf16_ps(c[i][0], a, q[0]);
                c[i][1] = _mm512_dpbf16_ps(c[i][1], a, q[1]);
            }
        }
    }
}
INLINE void quant_8_block(const char *w, const char *x, const float *factors, fetching fetch, quant_sums c, const int rows) {
    __m512i n[QUANT_8_PASS][2];
    for (int i = 0; i < rows; i++) n[i][0] = n[i][1] = _mm512_setzero_si512();
    _Pragma("GCC unroll 4") for (int p = 0; p < BLOCK / 2; p++) {
        __m512i q[2] = {_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(w + p * 64))),
                        _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(w + p * 64 + 32)))};
        few_prefetch(w + p * 64, 1, fetch);
        _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++) {
            __m512i a = word_everywhere(x, i * 16 + p);
            n[i][0] = _mm512_dpwssd_epi32(n[i][0], a, q[0]);
            n[i][1] = _mm512_dpwssd_epi32(n[i][1], a, q[1]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < 2; h++) c[i][h] = _mm512_mul_ps(_mm512_cvtepi32_ps(n[i][h]), _mm512_set1_ps(factors[i]));
}
/* Rows in 8 bits: `x` holds 8 words of each, `at` is the first in r. */
INLINE void quant_a8_block(const char *w, const char *x, const row_blocks *r, int64_t at, fetching fetch, quant_sums c, const int rows,
                           const plumb_storage storage) {
    const __m512i low = _mm512_set1_epi8(15), above = _mm512_set1_epi8(-128);
    const bool four = storage == PLUMB_STORE_W4A8;
    __m512i n[QUANT_8_PASS][2];
    for (int i = 0; i < rows; i++) n[i][0] = n[i][1] = four ? _mm512_setzero_si512() : _mm512_set1_epi32(r->starts[at + i]);
    _Pragma("GCC unroll 1") for (int g = 0; g < 4; g++) {
        few_prefetch(w + g * (four ? 128 : 256), four ? 2 : 4, fetch);
        _Pragma("GCC unroll 2") for (int s = 0; s < 2; s++) {
            __m512i q[2];
            for (int h = 0; h < 2; h++) {
                if (four) {
                    q[h] = _mm512_loadu_si512(w + h * 256 + g * 64);
                    q[h] = _mm512_and_si512(s ? _mm512_srli_epi16(q[h], 4) : q[h], low);
                } else {
                    q[h] = _mm512_xor_si512(_mm512_loadu_si512(w + (2 * g + s) * 128 + h * 64), above);
                }
            }
            _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++) {
                __m512i a = word_everywhere(x, i * 8 + 2 * g + s);
                n[i][0] = _mm512_dpbusd_epi32(n[i][0], q[0], a);
                n[i][1] = _mm512_dpbusd_epi32(n[i][1], q[1], a);
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < 2; h++) c[i][h] = _mm512_mul_ps(_mm512_cvtepi32_ps(n[i][h]), _mm512_set1_ps(r->factors[at + i]));
}
/* S_b and X_b of a block, scaled, to the sums: in registers while rows are few. */
INLINE void quant_finish(const char *w, quant_sums c, const float *x_sums, fetching fetch, quant_sums kept, float *sums, bool begin,
                         const int rows, const plumb_storage storage) {
    const bool four = plumb_stores_4_bits(storage);
    few_prefetch(w + (four ? QUANT_4_SCALES : QUANT_8_SCALES), 2, fetch);
    _Pragma("GCC unroll 2") for (int h = 0; h < 2; h++) {
        __m512 scale = (__m512)block_scale(w, storage, 16 * h), minimum = (__m512)block_minimum(w, storage, 16 * h);
        _Pragma("GCC unroll 12") for (int i = 0; i < rows; i++) {
            float *out = sums + i * BLOCK + h * 16;
            __m512 sum = rows <= QUANT_KEPT ? kept[i][h] : begin ? _mm512_setzero_ps() : _mm512_loadu_ps(out);
            sum = _mm512_fmadd_ps(scale, c[i][h], sum);
            if (four) sum = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x_sums[i]), sum);
            if (rows <= QUANT_KEPT) kept[i][h] = sum;
            else _mm512_storeu_ps(out, sum);
        }
    }
}
/* The rows of a pass through a panel. */
INLINE void quant_shape(const quant *f, const int rows, const plumb_storage storage) {
    const bool keep = rows <= QUANT_KEPT;
    const char *w = f->w, *x = f->x;
    quant_sums kept;
    for (int i = 0; i < rows && keep; i++)
        for (int h = 0; h < 2; h++) kept[i][h] = f->add ? _mm512_loadu_ps(f->sums + i * BLOCK + h * 16) : _mm512_setzero_ps();
    for (int64_t b = 0, at = f->row; b < f->blocks; b++, at += f->x_rows) {
        quant_sums c;
        if (storage == PLUMB_STORE_INT4) quant_4_block(w, x, f->fetch, c, rows);
        else if (storage == PLUMB_STORE_INT8) quant_8_block(w, x, &f->of_x->factors[at], f->fetch, c, rows);
        else quant_a8_block(w, x, f->of_x, at, f->fetch, c, rows, storage);
        quant_finish(w, c, plumb_stores_4_bits(storage) ? &f->of_x->sums[at] : NULL, f->fetch, kept, f->sums, b == 0 && !f->add, rows,
                     storage);
        w += plumb_qblock_bytes(storage), x += f->x_rows * (plumb_rounds_rows(storage) ? 32 : 64);
    }
    for (int i = 0; i < rows && keep; i++)
        for (int h = 0; h < 2; h++) _mm512_storeu_ps(f->sums + i * BLOCK + h * 16, kept[i][h]);
}
#define QUANT_KERNEL(NAME, STORAGE, CASES)                                                          \
    INLINE void NAME##_shape(const quant *f, const int rows) { quant_shape(f, rows, STORAGE); }    \
    static __attribute__((noinline)) void NAME(const quant *f, int rows) {                          \
        switch (rows) { CASES(NAME##_shape) }                                                       \
    }
QUANT_KERNEL(quant_4, PLUMB_STORE_INT4, FEW_CASES)
QUANT_KERNEL(quant_8, PLUMB_STORE_INT8, FEW_CASES_8)
QUANT_KERNEL(quant_w4a8, PLUMB_STORE_W4A8, FEW_CASES_8)
QUANT_KERNEL(quant_w8a8, PLUMB_STORE_W8A8, FEW_CASES_8)
/* Rows in passes, panels within: where a call has several panels, a pass's rows of x stay in the L1 cache. */
static void quantized_panels_fast(const quant_job *j) {
    static void (*const kernels[])(const quant *, int) = {
        [PLUMB_STORE_INT4] = quant_4, [PLUMB_STORE_INT8] = quant_8, [PLUMB_STORE_W4A8] = quant_w4a8, [PLUMB_STORE_W8A8] = quant_w8a8};
    const plumb_weight *w = j->term->w;
    const row_blocks *r = j->rows;
    int64_t most = w->storage == PLUMB_STORE_INT4 ? QUANT_4_PASS : QUANT_8_PASS, passes = (j->M + most - 1) / most;
    const char *x = r->whole ? r->whole : j->term->x->data;
    int64_t row_bytes = r->whole ? whole_bytes(w->storage) : BLOCK * 2;
    for (int64_t p = 0; p < passes; p++) {
        int64_t m = tile_begin(j->M, passes, p), rows = tile_begin(j->M, passes, p + 1) - m, at = j->m0 + m;
        for (int64_t i = 0; i < j->count; i++)
            kernels[w->storage](&(quant){.w = block_at(w, j->first + i, 0), .blocks = blocks_of(w->k), .x = x + at * row_bytes,
                                         .x_rows = j->term->x->rows, .row = at, .of_x = r, .sums = j->sums + (i * j->M + m) * BLOCK,
                                         .add = j->add, .fetch = fetching_for(j->M, p == 0)},
                                (int)rows);
    }
}
#endif

/* Anywhere else: the numbers of a block laid out for the tile. */
static void lay_out_block(float *to, const char *block, plumb_storage storage, bool bf16) {
    for (int64_t k = 0; k < BLOCK; k += 2)
        for (int64_t lane = 0; lane < BLOCK; lane += 16) {
            v16 low = block_q(block, storage, k, lane), high = block_q(block, storage, k + 1, lane);
            if (bf16) {
                v_store(to + k / 2 * BLOCK + lane, v_pair_bf16(low, high));
            } else {
                v_store(to + k * BLOCK + lane, low);
                v_store(to + (k + 1) * BLOCK + lane, high);
            }
        }
}
enum { QUANT_SLICE = 64 };
static void quantized_by_tiles(const quant_job *j, bool bf16) {
    float q[BLOCK * BLOCK] __attribute__((aligned(64))), products[QUANT_SLICE * BLOCK] __attribute__((aligned(64)));
    const plumb_weight *w = j->term->w;
    int64_t x_rows = j->term->x->rows, words_of_block = words(BLOCK, bf16);
    for (int64_t i = 0; i < j->count; i++)
        for (int64_t b = 0; b < blocks_of(w->k); b++) {
            const char *block = block_at(w, j->first + i, b);
            lay_out_block(q, block, w->storage, bf16);
            for (int64_t part = 0; part < j->M; part += QUANT_SLICE) {
                int64_t rows = plumb_min64(QUANT_SLICE, j->M - part), at = b * x_rows + j->m0 + part;
                strip_run(&(strip){.a = (const float *)j->term->x->data + at * words_of_block, .a_block = x_rows * words_of_block, .b = q,
                                   .c = products, .ldc = BLOCK, .rows = rows, .lanes = BLOCK, .reduction = words_of_block, .bf16 = bf16});
                for (int64_t lane = 0; lane < BLOCK; lane += 16)
                    for (int64_t m = 0; m < rows; m++)
                        add_block(j->sums + (i * j->M + part + m) * BLOCK + lane, block, w->storage, lane,
                                  v_load(products + m * BLOCK + lane), j->rows ? &j->rows->sums[at + m] : NULL, b == 0 && !j->add);
            }
        }
}
/* fp32 and few rows: numbers become floats as they are read. The chains are those of the tile. */
enum { WIDEN_PASS = FEW_PASS < 4 ? FEW_PASS : 4, WIDEN_ROWS = 2 * WIDEN_PASS };
INLINE void widen_block(const char *block, const float *x, float *sums, const float *each, bool begin, fetching fetch, const int rows,
                        const plumb_storage storage) {
    v16 s[WIDEN_PASS][2];
    for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = v_set(0);
    _Pragma("GCC unroll 1") for (int64_t k = 0; k < BLOCK; k += 8) {
        few_prefetch(block + k * (storage == PLUMB_STORE_INT8 ? 36 : 20), storage == PLUMB_STORE_INT8 ? 5 : 3, fetch);
        _Pragma("GCC unroll 8") for (int64_t n = 0; n < 8; n++)
            _Pragma("GCC unroll 2") for (int h = 0; h < 2; h++) {
                v16 q = block_q(block, storage, k + n, 16 * h);
                _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++) s[i][h] = v_fma(v_set(x[i * BLOCK + k + n]), q, s[i][h]);
            }
    }
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < rows; i++) add_block(sums + i * BLOCK + 16 * h, block, storage, 16 * h, s[i][h], each ? &each[i] : NULL, begin);
}
INLINE void widen_panel(const quant_job *j, int64_t i, int64_t m, const int rows, const plumb_storage storage) {
    int64_t x_rows = j->term->x->rows, at = j->m0 + m;
    for (int64_t b = 0; b < blocks_of(j->term->w->k); b++, at += x_rows)
        widen_block(block_at(j->term->w, j->first + i, b), (const float *)j->term->x->data + at * BLOCK, j->sums + (i * j->M + m) * BLOCK,
                    j->rows ? j->rows->sums + at : NULL, b == 0 && !j->add, fetching_for(j->M, m == 0), rows, storage);
}
#define WIDEN_CASE(R) case R: if (four) widen_panel(j, i, m, R, PLUMB_STORE_INT4); else widen_panel(j, i, m, R, PLUMB_STORE_INT8); break;
static void quantized_fp32(const quant_job *j) {
    bool four = j->term->w->storage == PLUMB_STORE_INT4;
    int64_t passes = (j->M + WIDEN_PASS - 1) / WIDEN_PASS;
    if (j->M > WIDEN_ROWS) {
        quantized_by_tiles(j, false);
        return;
    }
    for (int64_t i = 0; i < j->count; i++)
        for (int64_t p = 0; p < passes; p++) {
            int64_t m = tile_begin(j->M, passes, p);
            switch (tile_begin(j->M, passes, p + 1) - m) {
                WIDEN_CASE(1)
#if defined(PLUMB_ISA_avx512) || defined(PLUMB_ISA_avx512bf16)
                WIDEN_CASE(2) WIDEN_CASE(3) WIDEN_CASE(4)
#elif defined(PLUMB_ISA_avx2)
                WIDEN_CASE(2)
#endif
            }
        }
}
static void quantized_term(plumb_backend *be, const quant_job *j) {
    bool bf16 = is_bf16(be), whole = takes_whole_numbers(j->term->w->storage, bf16);
#ifdef PLUMB_ISA_avx512bf16
    if (whole || bf16) quantized_panels_fast(j);
    else quantized_fp32(j);
#else
    if (whole) quantized_by_pairs(j);
    else if (bf16) quantized_by_tiles(j, true);
    else quantized_fp32(j);
#endif
}
#endif
