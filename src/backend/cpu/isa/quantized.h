/* Weights in 8 and 4 bit (src/backend/quantize.h): how they lie in memory, and products with them.
 *
 * A panel of 32 rows n is a run of blocks of 32 along k, so that a product reads a weight as one stream, scales included:
 *
 *   8 bit, 1152 bytes   int8 q[2 halves][8 groups][16 lanes][4 k], float d[32]
 *   4 bit,  640 bytes   16-bit words [2 halves][4 groups][16 lanes][2], half d[32], half m[32]; nibble s of word (half, g, lane, j) is k = 8 g + 2 s + j
 *
 * so that a register of 4-bit words, shifted by 0, 4, 8, 12, is four times a table's index of the pair k, k+1 of 16 lanes: vpermw reads the bf16 values 0..15.
 *
 * Arithmetic. The whole numbers q are multiplied, exactly (they are bf16 numbers, too), and scaled once per block:
 *
 *   S_b = sum over the block of x q    one chain from zero, in order, as in any product of the type
 *   sum = fma(d_b, S_b, sum)           blocks in order, going on from the terms before
 *   sum = fma(m_b, X_b, sum)           4 bit; X_b = sum of the block of x as packed: lanes l and l+16, then the fixed tree
 *
 * Bits depend on the row and the weight alone. Where vdpbf16ps exists a block stays in registers and serves up to 12 rows; elsewhere it is laid out for the tile. */
#ifndef PLUMB_QUANTIZED_H
#define PLUMB_QUANTIZED_H
#include "few.h"
#include "../../quantize.h"

INLINE int64_t blocks_of(int64_t k) { return (k + BLOCK - 1) / BLOCK; }
INLINE int64_t panel_bytes(const plumb_weight *w) { return blocks_of(w->k) * plumb_qblock_bytes(w->storage); }
INLINE char *block_at(const plumb_weight *w, int64_t panel, int64_t block) { return (char *)w->data + panel * panel_bytes(w) + block * plumb_qblock_bytes(w->storage); }
INLINE bool is_quantized(const plumb_weight *w) { return w->storage != PLUMB_STORE_NATIVE; }
enum { QUANT_8_SCALES = 1024, QUANT_4_SCALES = 512, QUANT_4_MINIMA = 576 };

/* --- in and out ---------------------------------------------------------------------------------------------------------------------- */
INLINE int64_t byte_at(int64_t k, int64_t lane) { return ((lane / 16 * 8 + k / 4) * 16 + lane % 16) * 4 + k % 4; }
INLINE int64_t nibble_word(int64_t k, int64_t lane) { return ((lane / 16 * 4 + k / 8) * 16 + lane % 16) * 2 + k % 2; }
static void put_block(char *to, plumb_storage storage, int64_t lane, const plumb_qblock *b) {
    if (storage == PLUMB_STORE_INT8) {
        for (int64_t k = 0; k < BLOCK; k++) to[byte_at(k, lane)] = (char)b->q[k];
        memcpy(to + QUANT_8_SCALES + lane * 4, &b->scale, 4);
        return;
    }
    uint16_t *words = (uint16_t *)to, d = plumb_half(b->scale), m = plumb_half(b->minimum);
    for (int64_t k = 0; k < BLOCK; k++) {
        uint16_t *word = words + nibble_word(k, lane);
        int shift = (int)(k / 2 % 4) * 4;
        *word = (uint16_t)((*word & ~(15u << shift)) | (unsigned)b->q[k] << shift);
    }
    words[QUANT_4_SCALES / 2 + lane] = d;
    words[QUANT_4_MINIMA / 2 + lane] = m;
}
static void get_block(const char *from, plumb_storage storage, int64_t lane, plumb_qblock *b) {
    if (storage == PLUMB_STORE_INT8) {
        for (int64_t k = 0; k < BLOCK; k++) b->q[k] = (int8_t)from[byte_at(k, lane)];
        memcpy(&b->scale, from + QUANT_8_SCALES + lane * 4, 4);
        b->minimum = 0;
        return;
    }
    const uint16_t *words = (const uint16_t *)from;
    for (int64_t k = 0; k < BLOCK; k++) b->q[k] = (int8_t)(words[nibble_word(k, lane)] >> k / 2 % 4 * 4 & 15);
    b->scale = plumb_f16_float(words[QUANT_4_SCALES / 2 + lane]);
    b->minimum = plumb_f16_float(words[QUANT_4_MINIMA / 2 + lane]);
}
/* Panels [first, first+count) from rows that are `stride` floats apart; `rows` of them exist, the others become zeros. */
static void quantize_panels(plumb_weight *w, int64_t first, int64_t count, const float *from, int64_t stride, int64_t rows) {
    for (int64_t p = 0; p < count; p++)
        for (int64_t b = 0; b < blocks_of(w->k); b++)
            for (int64_t lane = 0; lane < BLOCK; lane++) {
                int64_t row = p * BLOCK + lane, n = plumb_min64(BLOCK, w->k - b * BLOCK);
                plumb_qblock block = {0};
                if (row < rows) (w->storage == PLUMB_STORE_INT8 ? plumb_quantize_8 : plumb_quantize_4)(from + row * stride + b * BLOCK, n, &block);
                put_block(block_at(w, first + p, b), w->storage, lane, &block);
            }
}
static void dequantize_row(const plumb_weight *w, int64_t row, float *to) {
    for (int64_t b = 0; b < blocks_of(w->k); b++) {
        plumb_qblock block;
        get_block(block_at(w, row / BLOCK, b), w->storage, row % BLOCK, &block);
        for (int64_t k = b * BLOCK; k < plumb_min64(w->k, (b + 1) * BLOCK); k++) to[k] = plumb_dequantized(&block, (int)(k % BLOCK));
    }
}

/* Sixteen whole numbers q of row k, lanes [lane, lane+16), as floats; their scales and minima. */
INLINE v16 block_q(const char *block, plumb_storage storage, int64_t k, int64_t lane) {
    v16i q;
    if (storage == PLUMB_STORE_INT8) {
        memcpy(&q, block + byte_at(k / 4 * 4, lane), sizeof q);
        q = q << (int)(24 - k % 4 * 8) >> 24;
    } else {
        memcpy(&q, block + 2 * nibble_word(k / 2 * 2, lane), sizeof q);
        q = q >> (int)(k % 2 * 16 + k / 2 % 4 * 4) & 15;
    }
    return __builtin_convertvector(q, v16);
}
INLINE v16 halves(const char *from) {
#ifdef __AVX512F__
    return (v16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#else
    v16 v;
    uint16_t h[16];
    memcpy(h, from, sizeof h);
    for (int i = 0; i < 16; i++) v[i] = plumb_f16_float(h[i]);
    return v;
#endif
}
INLINE v16 block_scale(const char *block, plumb_storage storage, int64_t lane) {
    return storage == PLUMB_STORE_INT8 ? v_load((const float *)(block + QUANT_8_SCALES) + lane) : halves(block + QUANT_4_SCALES + 2 * lane);
}
INLINE v16 block_minimum(const char *block, plumb_storage storage, int64_t lane) {
    return storage == PLUMB_STORE_INT8 ? v_set(0) : halves(block + QUANT_4_MINIMA + 2 * lane);
}
/* Rows [k0, k1) of panels [first, first+count), k0 a multiple of 32, as a native weight would hold them: [panel][k1-k0][32]. */
static void dequantize_panels(void *to, const plumb_weight *w, int64_t first, int64_t count, int64_t k0, int64_t k1, bool bf16) {
    for (int64_t p = 0; p < count; p++)
        for (int64_t k = k0; k < k1; k++)
            for (int64_t lane = 0; lane < BLOCK; lane += 16) {
                const char *block = block_at(w, first + p, k / BLOCK);
                v16 v = block_scale(block, w->storage, lane) * block_q(block, w->storage, k % BLOCK, lane) + block_minimum(block, w->storage, lane);
                store_16(to, (p * (k1 - k0) + k - k0) * BLOCK + lane, v, bf16);
            }
}

/* --- forward ------------------------------------------------------------------------------------------------------------------------- */
/* X_b of rows: to[b][M] for blocks [first, last) of k. */
static void sum_blocks(float *to, const plumb_operand *x, bool bf16, int64_t first, int64_t last) {
    for (int64_t b = first; b < last; b++)
        for (int64_t m = 0; m < x->rows; m++) {
            int64_t at = (b * x->rows + m) * BLOCK;
            to[b * x->rows + m] = v_sum(load_16(x->data, at, bf16) + load_16(x->data, at + 16, bf16));
        }
}

#ifdef PLUMB_ISA_avx512bf16
enum { QUANT_PASS = 12, QUANT_KEPT = 4 }; /* rows of a pass; up to how many keep their sums in registers, too */
typedef struct quant {
    const char *w; /* the panel's first block */
    int64_t blocks;
    const float *x, *x_sums; /* of the pass's first row */
    int64_t x_rows;
    float *sums;
    bool add;
} quant;
/* Four k of sixteen lanes as two registers of pairs. A byte moved to the top of its word and converted is q * 2^24 exactly, and so few bits that the upper half of the
 * float is all of it, a bf16 number, and its lower half is zero. The factor is taken out of the scale. (Tables of bytes, vpermi2b, took 1.5 times as long.) */
INLINE void quant_pairs(__m512i bytes, __m512bh to[2]) {
    const __m512i top = _mm512_set1_epi32((int)0xff000000);
    __m512 first = _mm512_cvtepi32_ps(_mm512_slli_epi32(bytes, 24)), second = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_slli_epi32(bytes, 16), top));
    __m512 third = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_slli_epi32(bytes, 8), top)), fourth = _mm512_cvtepi32_ps(_mm512_and_si512(bytes, top));
    to[0] = (__m512bh)_mm512_or_si512((__m512i)second, _mm512_srli_epi32((__m512i)first, 16));
    to[1] = (__m512bh)_mm512_or_si512((__m512i)fourth, _mm512_srli_epi32((__m512i)third, 16));
}
typedef __m512 quant_sums[QUANT_PASS][2]; /* rows, halves */
/* One register of each half of a block: four pairs, or two. */
INLINE void quant_group(const char *w, const float *x, int g, quant_sums c, const int rows, const bool four) {
    const __m512i half_table = _mm512_set_epi16(0x4170, 0x4160, 0x4150, 0x4140, 0x4130, 0x4120, 0x4110, 0x4100, 0x40e0, 0x40c0, 0x40a0, 0x4080, 0x4040, 0x4000, 0x3f80, 0, 0x4170, 0x4160,
                                                0x4150, 0x4140, 0x4130, 0x4120, 0x4110, 0x4100, 0x40e0, 0x40c0, 0x40a0, 0x4080, 0x4040, 0x4000, 0x3f80, 0); /* 15..0 twice: bit 4 is the next nibble's */
    const int steps = four ? 4 : 2;
    __m512i v[2] = {_mm512_loadu_si512(w + g * 64), _mm512_loadu_si512(w + (four ? 256 : 512) + g * 64)};
    __m512bh pairs[2][2];
    few_prefetch(w + g * 128, 2);
    for (int h = 0; h < 2 && !four; h++) quant_pairs(v[h], pairs[h]);
    _Pragma("GCC unroll 4") for (int s = 0; s < steps; s++) {
        __m512bh q[2];
        for (int h = 0; h < 2; h++)
            q[h] = four ? (__m512bh)_mm512_permutexvar_epi16(s ? _mm512_srli_epi16(v[h], (unsigned)(4 * s)) : v[h], half_table) : pairs[h][s % 2];
        _Pragma("GCC unroll 12") for (int i = 0; i < rows; i++) {
            __m512bh a = (__m512bh)_mm512_set1_ps(x[i * 16 + steps * g + s]);
            c[i][0] = _mm512_dpbf16_ps(c[i][0], a, q[0]);
            c[i][1] = _mm512_dpbf16_ps(c[i][1], a, q[1]);
        }
    }
}
/* S_b and X_b of a block, scaled, to the sums: in registers while rows are few. */
INLINE void quant_finish(const char *w, quant_sums c, const float *x_sums, quant_sums kept, float *sums, bool begin, const int rows, const bool four) {
    plumb_storage storage = four ? PLUMB_STORE_INT4 : PLUMB_STORE_INT8;
    few_prefetch(w + (four ? 512 : 1024), 2);
    _Pragma("GCC unroll 2") for (int h = 0; h < 2; h++) {
        __m512 scale = (__m512)block_scale(w, storage, 16 * h), minimum = (__m512)block_minimum(w, storage, 16 * h);
        if (!four) scale = _mm512_mul_ps(scale, _mm512_set1_ps(0x1p-24f));
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
/* Up to 12 rows through a panel. */
INLINE void quant_shape(const quant *f, const int rows, const bool four) {
    const int groups = four ? 4 : 8, bytes = four ? 640 : 1152;
    const bool keep = rows <= QUANT_KEPT;
    const char *w = f->w;
    const float *x = f->x, *x_sums = f->x_sums;
    quant_sums kept;
    for (int i = 0; i < rows && keep; i++)
        for (int h = 0; h < 2; h++) kept[i][h] = f->add ? _mm512_loadu_ps(f->sums + i * BLOCK + h * 16) : _mm512_setzero_ps();
    for (int64_t b = 0; b < f->blocks; b++) {
        quant_sums c;
        for (int i = 0; i < rows; i++) c[i][0] = c[i][1] = _mm512_setzero_ps();
        _Pragma("GCC unroll 8") for (int g = 0; g < groups; g++) quant_group(w, x, g, c, rows, four);
        quant_finish(w, c, x_sums, kept, f->sums, b == 0 && !f->add, rows, four);
        w += bytes, x += f->x_rows * 16, x_sums += four ? f->x_rows : 0;
    }
    for (int i = 0; i < rows && keep; i++)
        for (int h = 0; h < 2; h++) _mm512_storeu_ps(f->sums + i * BLOCK + h * 16, kept[i][h]);
}
INLINE void quant_4_shape(const quant *f, const int rows) { quant_shape(f, rows, true); }
INLINE void quant_8_shape(const quant *f, const int rows) { quant_shape(f, rows, false); }
static __attribute__((noinline)) void quant_4(const quant *f, int rows) {
    switch (rows) { FEW_CASES(quant_4_shape) }
}
static __attribute__((noinline)) void quant_8(const quant *f, int rows) {
    switch (rows) { FEW_CASES(quant_8_shape) }
}
/* Rows in passes, panels within: a pass's rows of x stay in the L1 cache. */
static void quantized_in_registers(const plumb_term *term, const float *x_sums, float *sums, int64_t M, int64_t first, int64_t count, bool add) {
    int64_t passes = (M + QUANT_PASS - 1) / QUANT_PASS, x_rows = term->x->rows;
    for (int64_t p = 0; p < passes; p++) {
        int64_t m = tile_begin(M, passes, p), rows = tile_begin(M, passes, p + 1) - m;
        for (int64_t i = 0; i < count; i++) {
            quant f = {.w = block_at(term->w, first + i, 0), .blocks = blocks_of(term->w->k), .x = (const float *)term->x->data + m * 16, .x_sums = x_sums ? x_sums + m : NULL, .x_rows = x_rows,
                       .sums = sums + (i * M + m) * BLOCK, .add = add};
            if (term->w->storage == PLUMB_STORE_INT4) quant_4(&f, (int)rows);
            else quant_8(&f, (int)rows);
        }
    }
}
#endif

/* Anywhere else: the whole numbers of a block laid out for the tile. */
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
static void quantized_by_tiles(const plumb_term *term, const float *x_sums, float *sums, int64_t M, int64_t first, int64_t count, bool add, bool bf16) {
    float q[BLOCK * BLOCK] __attribute__((aligned(64))), products[QUANT_SLICE * BLOCK] __attribute__((aligned(64)));
    const plumb_weight *w = term->w;
    int64_t x_rows = term->x->rows;
    for (int64_t i = 0; i < count; i++)
        for (int64_t b = 0; b < blocks_of(w->k); b++) {
            const char *block = block_at(w, first + i, b);
            lay_out_block(q, block, w->storage, bf16);
            for (int64_t m0 = 0; m0 < M; m0 += QUANT_SLICE) {
                int64_t rows = plumb_min64(QUANT_SLICE, M - m0), words_of_block = words(BLOCK, bf16);
                strip_run(&(strip){.a = (const float *)term->x->data + (b * x_rows + m0) * words_of_block, .a_block = x_rows * words_of_block, .b = q, .c = products, .ldc = BLOCK, .rows = rows,
                                   .lanes = BLOCK, .reduction = words_of_block, .bf16 = bf16});
                for (int64_t lane = 0; lane < BLOCK; lane += 16) {
                    v16 scale = block_scale(block, w->storage, lane), minimum = block_minimum(block, w->storage, lane);
                    for (int64_t m = 0; m < rows; m++) {
                        float *out = sums + (i * M + m0 + m) * BLOCK + lane;
                        v16 sum = v_fma(scale, v_load(products + m * BLOCK + lane), b || add ? v_load(out) : v_set(0));
                        v_store(out, w->storage == PLUMB_STORE_INT4 ? v_fma(minimum, v_set(x_sums[b * x_rows + m0 + m]), sum) : sum);
                    }
                }
            }
        }
}
/* One term for panels [first, first+count): sums [panel][M][32] go on from what is there, or begin. */
static void quantized_term(plumb_backend *be, const plumb_term *term, const float *x_sums, float *sums, int64_t M, int64_t first, int64_t count, bool add) {
#ifdef PLUMB_ISA_avx512bf16
    if (is_bf16(be)) {
        quantized_in_registers(term, x_sums, sums, M, first, count, add);
        return;
    }
#endif
    quantized_by_tiles(term, x_sums, sums, M, first, count, add, is_bf16(be));
}
#endif
