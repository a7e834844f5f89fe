/* Rows by blocks of 32: what products with quantised weights (quantized_forward.h) want to know of x, found once for
 * all products in a call. */
#ifndef PLUMB_ROW_BLOCKS_H
#define PLUMB_ROW_BLOCKS_H
#include "quantized.h"

typedef struct row_blocks { /* all [blocks][rows]; NULL: not asked for */
    const plumb_operand *x;
    plumb_storage storage; /* of the weights */
    void *whole;           /* n, 32 of them: int16, or int8 where four bytes are multiplied at once (order: put_bytes) */
    float *factors;        /* f: x = n f */
    float *sums;           /* 4 bit: X_b */
    int32_t *starts;       /* 8 bit, four bytes at once: where sums begin, since weights count from -128 there */
} row_blocks;
#ifdef PLUMB_ISA_avx512bf16
enum { ROW_BYTES = 1 }; /* of a whole number in rows of 8 bits */
#else
enum { ROW_BYTES = 2 };
#endif
INLINE bool takes_whole_numbers(plumb_storage storage, bool bf16) {
    return plumb_rounds_rows(storage) || (storage == PLUMB_STORE_INT8 && bf16);
}
INLINE bool takes_blocks(plumb_storage storage, bool bf16) { return storage == PLUMB_STORE_INT4 || takes_whole_numbers(storage, bf16); }
INLINE int64_t blocks_in(const plumb_operand *x) { return x->rows * blocks_of(x->cols); }
INLINE int64_t whole_bytes(plumb_storage storage) { return BLOCK * (plumb_rounds_rows(storage) ? ROW_BYTES : 2); }

INLINE int32_t greatest_bits(v16 a, v16 b) { /* of |x|, which as bits grow with it; what is not finite has 0x7f800000 and more */
    v16i x = (v16i)a & 0x7fffffff, y = (v16i)b & 0x7fffffff;
    x = (v16i)v_select(x > y, (v16)x, (v16)y);
#ifdef __AVX512F__
    return _mm512_reduce_max_epi32((__m512i)x);
#else
    int32_t most = 0;
    for (int l = 0; l < 16; l++) most = x[l] > most ? x[l] : most;
    return most;
#endif
}
INLINE float power_of_two(int32_t exponent) {
    int32_t bits = (exponent + 127) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
INLINE v16i whole_of(v16 x, v16 inverse) {
    const v16 magic = v_set(12582912.0f); /* adding 1.5*2^23 rounds to a whole number, ties to even */
    return __builtin_convertvector(x * inverse + magic - magic, v16i);
}
INLINE void put_whole(int16_t *to, v16 x, float scale) {
    h16i n = __builtin_convertvector(whole_of(x, v_set(scale)), h16i);
    memcpy(to, &n, sizeof n);
}
/* x = n f for one block of a row in bf16; returns f. Where x is not finite, f is not either. */
static float whole_block(int16_t *n, const void *x, int64_t at) {
    v16 low = load_16(x, at, true), high = load_16(x, at + 16, true);
    int32_t exponent = (greatest_bits(low, high) >> 23) - 127; /* the greatest lies in [2^exponent, twice that) */
    if (exponent == 128) {
        memset(n, 0, BLOCK * sizeof *n);
        return NAN;
    }
    if (exponent < -112) exponent = -112; /* or f would not be a normal float */
    put_whole(n, low, power_of_two(14 - exponent));
    put_whole(n + 16, high, power_of_two(14 - exponent));
    return power_of_two(exponent - 14);
}
#ifdef PLUMB_ISA_avx512bf16
/* Sixteen bytes in the order of the weights' registers: as they are with 8 bits; with 4 bits the low nibbles of a word hold k = 0, 4, 1, 5
 * of 8 g, the high ones 2, 6, 3, 7. */
INLINE void put_bytes(int8_t *to, v16i n, plumb_storage storage) {
    const __m128i order = _mm_set_epi8(15, 11, 14, 10, 13, 9, 12, 8, 7, 3, 6, 2, 5, 1, 4, 0);
    __m128i bytes = _mm512_cvtepi32_epi8((__m512i)n);
    _mm_storeu_si128((__m128i *)to, plumb_stores_4_bits(storage) ? _mm_shuffle_epi8(bytes, order) : bytes);
}
#else
INLINE void put_bytes(int16_t *to, v16i n, plumb_storage storage) {
    (void)storage;
    h16i words = __builtin_convertvector(n, h16i);
    memcpy(to, &words, sizeof words);
}
#endif
/* The same in 8 bits, as plumb_quantize_8 rounds weights: the greatest is 127 f. */
static void round_block(const row_blocks *r, int64_t i, bool bf16) {
    char *to = (char *)r->whole + i * whole_bytes(r->storage);
    v16 low = load_16(r->x->data, i * BLOCK, bf16), high = load_16(r->x->data, i * BLOCK + 16, bf16);
    v16i none = {0}, n[2] = {none, none};
    int32_t bits = greatest_bits(low, high), sum = 0;
    float greatest, factor = NAN;
    memcpy(&greatest, &bits, sizeof greatest);
    if (greatest < INFINITY) {
        float inverse = greatest > 0 ? 127.0f / greatest : 0;
        if (!(inverse < INFINITY)) greatest = inverse = 0;
        factor = greatest / 127.0f;
        n[0] = whole_of(low, v_set(inverse)), n[1] = whole_of(high, v_set(inverse));
    }
    put_bytes((void *)to, n[0], r->storage), put_bytes((void *)(to + 16 * ROW_BYTES), n[1], r->storage);
    for (int l = 0; l < 16; l++) sum += n[0][l] + n[1][l];
    r->factors[i] = factor;
    if (r->sums) r->sums[i] = factor * (float)sum;
    if (r->starts) r->starts[i] = -128 * sum;
}
/* Sixteen blocks at once, so that what goes across lanes is done once for all; the same numbers. */
static void round_blocks(const row_blocks *r, int64_t first, bool bf16) {
    v16 t[16], greatest = v_set(0), inverse;
    for (int i = 0; i < 16; i++) {
        v16i x = (v16i)load_16(r->x->data, (first + i) * BLOCK, bf16) & 0x7fffffff;
        v16i y = (v16i)load_16(r->x->data, (first + i) * BLOCK + 16, bf16) & 0x7fffffff;
        t[i] = v_select(x > y, (v16)x, (v16)y);
    }
    v_transpose(t);
    for (int l = 0; l < 16; l++) greatest = v_select((v16i)t[l] > (v16i)greatest, t[l], greatest); /* as bits */
    for (int i = 0; i < 16; i++)
        if (!(greatest[i] < INFINITY)) { /* rare */
            for (int k = 0; k < 16; k++) round_block(r, first + k, bf16);
            return;
        }
    inverse = v_set(127.0f) / greatest; /* infinite where the greatest is nothing, or next to it */
    v16i fine = inverse < v_set(INFINITY);
    inverse = v_select(fine, inverse, v_set(0)), greatest = v_select(fine, greatest, v_set(0));
    v16 factors = greatest / v_set(127.0f);
    for (int i = 0; i < 16; i++) {
        char *to = (char *)r->whole + (first + i) * whole_bytes(r->storage);
        v16i low = whole_of(load_16(r->x->data, (first + i) * BLOCK, bf16), v_set(inverse[i]));
        v16i high = whole_of(load_16(r->x->data, (first + i) * BLOCK + 16, bf16), v_set(inverse[i]));
        put_bytes((void *)to, low, r->storage), put_bytes((void *)(to + 16 * ROW_BYTES), high, r->storage);
        t[i] = (v16)(low + high);
    }
    v_transpose(t);
    v16i sums = (v16i)t[0];
    for (int l = 1; l < 16; l++) sums = sums + (v16i)t[l];
    v_store(&r->factors[first], factors);
    if (r->sums) v_store(&r->sums[first], factors * __builtin_convertvector(sums, v16));
    if (r->starts) sums = sums * -128, memcpy(&r->starts[first], &sums, sizeof sums);
}
/* Blocks [first, last) of all rows. */
static void find_blocks(const row_blocks *r, bool bf16, int64_t first, int64_t last) {
    const plumb_operand *x = r->x;
    int64_t i = first * x->rows;
    for (; plumb_rounds_rows(r->storage) && i + 16 <= last * x->rows; i += 16) round_blocks(r, i, bf16);
    for (; i < last * x->rows; i++)
        if (plumb_rounds_rows(r->storage)) round_block(r, i, bf16);
        else if (r->whole) r->factors[i] = whole_block((int16_t *)r->whole + i * BLOCK, x->data, i * BLOCK);
        else r->sums[i] = v_sum(load_16(x->data, i * BLOCK, bf16) + load_16(x->data, i * BLOCK + 16, bf16));
}

/* Of all products in a call: one for each operand and storage. */
enum { MAX_ROW_BLOCKS = 4 * PLUMB_MAX_PRODUCTS };
typedef struct row_blocks_list { row_blocks of[MAX_ROW_BLOCKS]; int count; int64_t total; } row_blocks_list;
static const row_blocks *row_blocks_for(const row_blocks_list *l, const plumb_term *t) { /* NULL: there are none */
    for (int i = 0; i < l->count; i++)
        if (l->of[i].x == t->x && l->of[i].storage == t->w->storage) return &l->of[i];
    return NULL;
}
/* The next part of memory, at a multiple of 64 bytes; without memory it is only counted. */
static void *next_part(char *memory, size_t *used, size_t bytes) {
    char *part = memory ? memory + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return part;
}
/* Gives an entry its parts of memory, or counts them where that is NULL. Returns the bytes. */
static size_t place_row_blocks(row_blocks *r, char *memory, bool bf16) {
    size_t n = (size_t)blocks_in(r->x), used = 0;
    if (takes_whole_numbers(r->storage, bf16)) {
        r->whole = next_part(memory, &used, n * (size_t)whole_bytes(r->storage));
        r->factors = next_part(memory, &used, n * sizeof *r->factors);
    }
    if (plumb_stores_4_bits(r->storage)) r->sums = next_part(memory, &used, n * sizeof *r->sums);
    if (by_fours(r->storage)) r->starts = next_part(memory, &used, n * sizeof *r->starts);
    return used;
}
/* Lists what the products need and finds memory for it; false after latching a fault. */
static bool list_row_blocks(plumb_backend *be, row_blocks_list *l, const plumb_product *products, int count) {
    size_t bytes = 0;
    bool bf16 = is_bf16(be);
    l->count = 0, l->total = 0;
    for (int i = 0; i < count; i++)
        for (int t = 0; t < products[i].n_terms; t++) {
            const plumb_term *term = &products[i].terms[t];
            if (!takes_blocks(term->w->storage, bf16) || row_blocks_for(l, term)) continue;
            if (l->count == MAX_ROW_BLOCKS) {
                plumb_backend_set_fault(be, PLUMB_E_DEVICE, "a call with more than %d operands for quantised weights", MAX_ROW_BLOCKS);
                return false;
            }
            row_blocks *r = &l->of[l->count++];
            *r = (row_blocks){.x = term->x, .storage = term->w->storage};
            l->total += blocks_in(term->x);
            bytes += place_row_blocks(r, NULL, bf16);
        }
    char *at = bytes ? plumb_cpu_scratch(be, SCRATCH_ROWS, bytes) : NULL;
    for (int i = 0; at && i < l->count; i++) at += place_row_blocks(&l->of[i], at, bf16);
    return !bytes || at;
}
/* The threads of a team share the blocks, and must meet before they are used. */
static void find_row_blocks(plumb_backend *be, const row_blocks_list *l) {
    for (int i = 0; i < l->count; i++) {
        share blocks = my_share(blocks_of(l->of[i].x->cols));
        find_blocks(&l->of[i], is_bf16(be), blocks.first, blocks.last);
    }
}

/* A forward product, or a part of one: sums [panel][M][32] of M rows from m0 on and panels [first, first+count) begin, or go on from what
 * is there. */
typedef struct quant_job {
    const plumb_term *term;
    const row_blocks *rows; /* NULL where the storage takes none */
    float *sums;
    int64_t m0, M, first, count;
    bool add;
} quant_job;
/* Adds a block's S_b and X_b (4 bit), scaled, to sixteen sums. */
INLINE void add_block(float *out, const char *block, plumb_storage storage, int64_t lane, v16 s_b, const float *x_b, bool begin) {
    v16 sum = v_fma(block_scale(block, storage, lane), s_b, begin ? v_set(0) : v_load(out));
    v_store(out, plumb_stores_4_bits(storage) ? v_fma(block_minimum(block, storage, lane), v_set(*x_b), sum) : sum);
}
#endif
