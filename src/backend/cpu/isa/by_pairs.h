/* Products of quantised weights with rows of whole numbers (8 bits of x anywhere; 16 where bf16 is emulated), on processors that are not
 * known to multiply bytes: pairs k, k+1 of some lanes, as 16-bit numbers, meet the pairs of a few rows as they are read (pmaddwd). */
#ifndef PLUMB_BY_PAIRS_H
#define PLUMB_BY_PAIRS_H
#include "row_blocks.h"

#ifndef PLUMB_ISA_avx512bf16
enum { PAIRS_PASS = 4 };
#if defined(PLUMB_ISA_avx512)
enum { PAIR_LANES = 16 };
typedef __m512i pairs_reg;
#define PAIRS_LOAD(p) _mm512_loadu_si512(p)
#define PAIRS_STORE(p, v) _mm512_storeu_si512(p, v)
#define PAIRS_WIDEN(p) _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(p)))
#define PAIRS_NIBBLES(v, shift) _mm512_and_si512(_mm512_srli_epi32(v, shift), _mm512_set1_epi32(0x000f000f))
#define PAIRS_ADD(sum, v, n) _mm512_add_epi32(sum, _mm512_madd_epi16(v, _mm512_set1_epi32(n)))
#elif defined(PLUMB_ISA_avx2)
enum { PAIR_LANES = 8 };
typedef __m256i pairs_reg;
#define PAIRS_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define PAIRS_STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define PAIRS_WIDEN(p) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p)))
#define PAIRS_NIBBLES(v, shift) _mm256_and_si256(_mm256_srli_epi32(v, shift), _mm256_set1_epi32(0x000f000f))
#define PAIRS_ADD(sum, v, n) _mm256_add_epi32(sum, _mm256_madd_epi16(v, _mm256_set1_epi32(n)))
#elif defined(__SSE2__)
enum { PAIR_LANES = 4 };
typedef __m128i pairs_reg;
#define PAIRS_LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define PAIRS_STORE(p, v) _mm_storeu_si128((__m128i *)(p), v)
#define PAIRS_WIDEN(p) _mm_srai_epi16(_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)(p))), 8)
#define PAIRS_NIBBLES(v, shift) _mm_and_si128(_mm_srli_epi32(v, shift), _mm_set1_epi32(0x000f000f))
#define PAIRS_ADD(sum, v, n) _mm_add_epi32(sum, _mm_madd_epi16(v, _mm_set1_epi32(n)))
#else
enum { PAIR_LANES = 1 };
typedef int32_t pairs_reg;
static pairs_reg pairs_load(const void *p) { pairs_reg v; memcpy(&v, p, sizeof v); return v; }
#define PAIRS_LOAD(p) pairs_load(p)
#define PAIRS_STORE(p, v) (*(p) = (v))
#define PAIRS_WIDEN(p) ((((const int8_t *)(p))[0] & 0xffff) | ((const int8_t *)(p))[1] * 65536)
#define PAIRS_NIBBLES(v, shift) ((int32_t)((uint32_t)(v) >> (shift)) & 0x000f000f)
#define PAIRS_ADD(sum, v, n) ((sum) + (int16_t)(v) * (int16_t)(n) + ((v) >> 16) * ((n) >> 16))
#endif
INLINE void pairs_of_rows(const quant_job *j, int64_t i, int64_t b, int64_t m, const int rows, const plumb_storage storage) {
    const char *block = block_at(j->term->w, j->first + i, b);
    const row_blocks *r = j->rows;
    int64_t at = b * j->term->x->rows + j->m0 + m;
    const int16_t *n = (const int16_t *)r->whole + at * BLOCK;
    fetching fetch = fetching_for(j->M, m == 0);
    int32_t whole[PAIRS_PASS][BLOCK];
    if (fetch) few_prefetch(block, (int)plumb_qblock_bytes(storage) / 64, fetch);
    for (int64_t lane = 0; lane < BLOCK; lane += PAIR_LANES) {
        pairs_reg sums[PAIRS_PASS] = {0};
        _Pragma("GCC unroll 1") for (int64_t k = 0; k < BLOCK; k += 8)
            _Pragma("GCC unroll 4") for (int p = 0; p < 4; p++) {
                pairs_reg v = storage == PLUMB_STORE_W4A8 ? PAIRS_NIBBLES(PAIRS_LOAD(block + 2 * nibble_word(k, lane)), 4 * p)
                                                      : PAIRS_WIDEN(block + byte_at(storage, k + 2 * p, lane));
                _Pragma("GCC unroll 4") for (int row = 0; row < rows; row++) {
                    int32_t two;
                    memcpy(&two, n + row * BLOCK + k + 2 * p, sizeof two);
                    sums[row] = PAIRS_ADD(sums[row], v, two);
                }
            }
        for (int row = 0; row < rows; row++) PAIRS_STORE(&whole[row][lane], sums[row]);
    }
    for (int row = 0; row < rows; row++)
        for (int64_t lane = 0; lane < BLOCK; lane += 16) {
            v16i sum;
            memcpy(&sum, &whole[row][lane], sizeof sum);
            add_block(j->sums + (i * j->M + m + row) * BLOCK + lane, block, storage, lane,
                      __builtin_convertvector(sum, v16) * v_set(r->factors[at + row]), r->sums ? &r->sums[at + row] : NULL,
                      b == 0 && !j->add);
        }
}
#define PAIRS_CASE(R)                                                     \
    case R:                                                               \
        if (four) pairs_of_rows(j, i, b, m, R, PLUMB_STORE_W4A8);         \
        else pairs_of_rows(j, i, b, m, R, PLUMB_STORE_W8A8);              \
        break;
static void quantized_by_pairs(const quant_job *j) { /* INT8 and W8A8 have one layout here */
    bool four = plumb_stores_4_bits(j->term->w->storage);
    int64_t passes = (j->M + PAIRS_PASS - 1) / PAIRS_PASS;
    for (int64_t i = 0; i < j->count; i++)
        for (int64_t b = 0; b < blocks_of(j->term->w->k); b++)
            for (int64_t p = 0; p < passes; p++) {
                int64_t m = tile_begin(j->M, passes, p);
                switch (tile_begin(j->M, passes, p + 1) - m) { PAIRS_CASE(1) PAIRS_CASE(2) PAIRS_CASE(3) PAIRS_CASE(4) }
            }
}
#endif
#endif
