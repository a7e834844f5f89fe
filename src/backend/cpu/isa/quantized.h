/* Weights in 8 and 4 bit (src/backend/quantize.h): how they lie in memory, in and out.
 *
 * A panel of 32 rows n is a run of blocks of 32 along k, so that a product reads a weight as one stream, scales included:
 *
 *   8 bit, 1152 bytes   int8 q[16 pairs][32 lanes][2 k], float d[32]; W8A8 where four bytes are multiplied at once: q[8][32 lanes][4 k]
 *   4 bit,  640 bytes   16-bit words [2 halves][4 groups][16 lanes][2], half d[32], half m[32];
 *                       nibble s of word (half, g, lane, j) is k = 8 g + 2 s + j
 *
 * so that a register of 4-bit words, shifted by 0, 4, 8, 12, is four times a table's index of the pair k, k+1 of 16 lanes: vpermw reads
 * the bf16 values 0..15. Products with them: quantized_forward.h. */
#ifndef PLUMB_QUANTIZED_H
#define PLUMB_QUANTIZED_H
#include "few.h"
#include "../../quantize.h"

INLINE int64_t blocks_of(int64_t k) { return (k + BLOCK - 1) / BLOCK; }
INLINE int64_t panel_bytes(const plumb_weight *w) { return blocks_of(w->k) * plumb_qblock_bytes(w->storage); }
INLINE char *block_at(const plumb_weight *w, int64_t panel, int64_t block) {
    return (char *)w->data + panel * panel_bytes(w) + block * plumb_qblock_bytes(w->storage);
}
INLINE bool is_quantized(const plumb_weight *w) { return w->storage != PLUMB_STORE_NATIVE; }
enum { QUANT_8_SCALES = 1024, QUANT_4_SCALES = 512, QUANT_4_MINIMA = 576 };

/* --- in and out ------------------------------------------------------------------------------- */
#ifdef PLUMB_ISA_avx512bf16
INLINE bool by_fours(plumb_storage storage) { return storage == PLUMB_STORE_W8A8; }
#else
INLINE bool by_fours(plumb_storage storage) { return (void)storage, false; }
#endif
INLINE int64_t byte_at(plumb_storage storage, int64_t k, int64_t lane) {
    int64_t together = by_fours(storage) ? 4 : 2;
    return (k / together * BLOCK + lane) * together + k % together;
}
INLINE int64_t nibble_word(int64_t k, int64_t lane) { return ((lane / 16 * 4 + k / 8) * 16 + lane % 16) * 2 + k % 2; }
static void put_block(char *to, plumb_storage storage, int64_t lane, const plumb_qblock *b) {
    if (plumb_stores_8_bits(storage)) {
        for (int64_t k = 0; k < BLOCK; k++) to[byte_at(storage, k, lane)] = (char)b->q[k];
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
    if (plumb_stores_8_bits(storage)) {
        for (int64_t k = 0; k < BLOCK; k++) b->q[k] = (int8_t)from[byte_at(storage, k, lane)];
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
                if (row < rows)
                    (plumb_stores_8_bits(w->storage) ? plumb_quantize_8 : plumb_quantize_4)(from + row * stride + b * BLOCK, n, &block);
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

/* Sixteen whole numbers q of row k, lanes [lane, lane+16); as floats; their scales and minima. */
INLINE v16i block_whole(const char *block, plumb_storage storage, int64_t k, int64_t lane) {
    v16i q;
    if (by_fours(storage)) {
        memcpy(&q, block + byte_at(storage, k / 4 * 4, lane), sizeof q);
        return q << (int)(24 - k % 4 * 8) >> 24;
    }
    if (plumb_stores_8_bits(storage)) {
        h16i pairs;
        memcpy(&pairs, block + byte_at(storage, k / 2 * 2, lane), sizeof pairs);
        return __builtin_convertvector(pairs, v16i) << (int)(24 - k % 2 * 8) >> 24;
    }
    memcpy(&q, block + 2 * nibble_word(k / 2 * 2, lane), sizeof q);
    return q >> (int)(k % 2 * 16 + k / 2 % 4 * 4) & 15;
}
INLINE v16 block_q(const char *block, plumb_storage storage, int64_t k, int64_t lane) {
    return __builtin_convertvector(block_whole(block, storage, k, lane), v16);
}
INLINE v16 halves(const char *from) {
#ifdef __AVX512F__
    return (v16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif defined(__F16C__)
    union {
        __m256 h[2];
        v16 v;
    } x = {{_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from + 1))}};
    return x.v;
#else
    v16 v;
    uint16_t h[16];
    memcpy(h, from, sizeof h);
    for (int i = 0; i < 16; i++) v[i] = plumb_f16_float(h[i]);
    return v;
#endif
}
INLINE v16 block_scale(const char *block, plumb_storage storage, int64_t lane) {
    return plumb_stores_8_bits(storage) ? v_load((const float *)(block + QUANT_8_SCALES) + lane)
                                        : halves(block + QUANT_4_SCALES + 2 * lane);
}
INLINE v16 block_minimum(const char *block, plumb_storage storage, int64_t lane) {
    return plumb_stores_8_bits(storage) ? v_set(0) : halves(block + QUANT_4_MINIMA + 2 * lane);
}
/* Rows [k0, k1) of panels [first, first+count), k0 a multiple of 32, as a native weight would hold them: [panel][k1-k0][32]. */
static void dequantize_panels(void *to, const plumb_weight *w, int64_t first, int64_t count, int64_t k0, int64_t k1, bool bf16) {
    for (int64_t p = 0; p < count; p++)
        for (int64_t k = k0; k < k1; k++)
            for (int64_t lane = 0; lane < BLOCK; lane += 16) {
                const char *block = block_at(w, first + p, k / BLOCK);
                v16 v = block_scale(block, w->storage, lane) * block_q(block, w->storage, k % BLOCK, lane) +
                        block_minimum(block, w->storage, lane);
                store_16(to, (p * (k1 - k0) + k - k0) * BLOCK + lane, v, bf16);
            }
}
#endif
