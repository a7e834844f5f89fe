/* Rows by blocks of 32: what products with quantised weights (quantized_forward.h) want to know of x, found once for
 * all products in a call. */
#ifndef PLUMB_ROW_BLOCKS_H
#define PLUMB_ROW_BLOCKS_H
#include "quantized.h"

typedef struct row_blocks {
    const plumb_operand *x;
    plumb_storage storage; /* of the weights */
    float *each;           /* [blocks][rows]: X_b, or f with 8 bit in bf16 */
    int16_t *whole;        /* [blocks][rows][32]: n with 8 bit in bf16 */
} row_blocks;
INLINE bool takes_whole_numbers(plumb_storage storage, bool bf16) { return storage == PLUMB_STORE_INT8 && bf16; }
INLINE bool takes_blocks(plumb_storage storage, bool bf16) { return storage == PLUMB_STORE_INT4 || takes_whole_numbers(storage, bf16); }
INLINE int64_t blocks_in(const plumb_operand *x) { return x->rows * blocks_of(x->cols); }

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
INLINE void put_whole(int16_t *to, v16 x, float scale) {
    const v16 magic = v_set(12582912.0f); /* adding 1.5*2^23 rounds to a whole number, ties to even */
    h16i n = __builtin_convertvector(__builtin_convertvector(x * v_set(scale) + magic - magic, v16i), h16i);
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
/* Blocks [first, last) of all rows. */
static void find_blocks(const row_blocks *r, bool bf16, int64_t first, int64_t last) {
    const plumb_operand *x = r->x;
    for (int64_t i = first * x->rows; i < last * x->rows; i++)
        r->each[i] = r->whole ? whole_block(r->whole + i * BLOCK, x->data, i * BLOCK)
                              : v_sum(load_16(x->data, i * BLOCK, bf16) + load_16(x->data, i * BLOCK + 16, bf16));
}

/* Of all products in a call: one for each operand and storage. */
enum { MAX_ROW_BLOCKS = 4 * PLUMB_MAX_PRODUCTS };
typedef struct row_blocks_list { row_blocks of[MAX_ROW_BLOCKS]; int count; int64_t total; } row_blocks_list;
static const row_blocks *row_blocks_for(const row_blocks_list *l, const plumb_term *t) { /* NULL: there are none */
    for (int i = 0; i < l->count; i++)
        if (l->of[i].x == t->x && l->of[i].storage == t->w->storage) return &l->of[i];
    return NULL;
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
            l->of[l->count++] = (row_blocks){.x = term->x, .storage = term->w->storage};
            l->total += blocks_in(term->x);
            bytes +=
                (size_t)blocks_in(term->x) * (sizeof(float) + (takes_whole_numbers(term->w->storage, bf16) ? BLOCK * sizeof(int16_t) : 0));
        }
    char *at = bytes ? plumb_cpu_scratch(be, SCRATCH_ROWS, bytes) : NULL;
    for (int i = 0; at && i < l->count; i++) {
        row_blocks *r = &l->of[i];
        r->each = (float *)at, at += (size_t)blocks_in(r->x) * sizeof(float);
        if (!takes_whole_numbers(r->storage, bf16)) continue;
        r->whole = (int16_t *)at, at += (size_t)blocks_in(r->x) * BLOCK * sizeof(int16_t);
    }
    return !bytes || at;
}
/* The threads of a team share the blocks, and must meet before they are used. */
static void find_row_blocks(plumb_backend *be, const row_blocks_list *l) {
    for (int i = 0; i < l->count; i++) {
        share blocks = my_share(blocks_of(l->of[i].x->cols));
        find_blocks(&l->of[i], is_bf16(be), blocks.first, blocks.last);
    }
}
#endif
