/* Between plain rows and blocked matrices.
 *
 *   by columns: x[m][k] -> [k/32][m][32]   copies of 128 bytes
 *   by rows:    x[m][n] -> [m/32][n][32]   transposes of 16 x 16
 * Blocks are padded with zeros to 32, so that nothing that reads whole blocks meets garbage. */
#ifndef PLUMB_PACK_H
#define PLUMB_PACK_H
#include "simd.h"
#include "cpu.h"

INLINE void store_16(void *to, int64_t index, v16 v, bool bf16) {
    if (bf16) v_store_bf16((uint16_t *)to + index, v);
    else v_store((float *)to + index, v);
}
INLINE v16 load_16(const void *from, int64_t index, bool bf16) {
    return bf16 ? v_load_bf16((const uint16_t *)from + index) : v_load((const float *)from + index);
}
INLINE v16 load_row_part(const float *row, int64_t at, int64_t end) {
    return at + 16 <= end ? v_load(row + at) : at < end ? v_load_n(row + at, end - at) : v_set(0);
}

/* What a product sees of v. */
INLINE v16 rounded_as(v16 v, bool bf16) {
    if (!bf16) return v;
    uint16_t b[16];
    v_store_bf16(b, v);
    return v_load_bf16(b);
}

/* Rows [first, last) of the operand; `scale` NULL or one factor per row (stride 1). */
static void pack_by_columns(void *to, const float *x, int64_t rows, int64_t cols, int64_t stride, const float *scale, int64_t scale_stride,
                            bool bf16, int64_t first, int64_t last) {
    enum { ROWS = 64 }; /* at a time, so that both sides are short runs: one row's blocks lie a power of two apart */
    int64_t blocks = (cols + BLOCK - 1) / BLOCK;
    for (int64_t m0 = first; m0 < last; m0 += ROWS)
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t m = m0; m < plumb_min64(m0 + ROWS, last); m++) {
                v16 s = v_set(scale ? scale[m * scale_stride] : 1.0f);
                for (int half = 0; half < BLOCK; half += 16) {
                    v16 v = load_row_part(x + m * stride, b * BLOCK + half, cols);
                    store_16(to, (b * rows + m) * BLOCK + half, scale ? v * s : v, bf16);
                }
            }
}

/* Transposes x[rows][cols] into blocks [rows/32][cols][32], blocks [first, last). */
static void pack_by_rows(void *to, const float *x, int64_t rows, int64_t cols, int64_t stride, const float *scale, int64_t scale_stride,
                         bool bf16, int64_t first, int64_t last) {
    for (int64_t b = first; b < last; b++)
        for (int half = 0; half < BLOCK; half += 16) {
            int64_t m0 = b * BLOCK + half;
            for (int64_t n0 = 0; n0 < cols; n0 += 16) {
                v16 t[16];
                for (int i = 0; i < 16; i++) {
                    t[i] = m0 + i < rows ? load_row_part(x + (m0 + i) * stride, n0, cols) : v_set(0);
                    if (scale && m0 + i < rows) t[i] = t[i] * v_set(scale[(m0 + i) * scale_stride]);
                }
                v_transpose(t);
                int64_t n = cols - n0 < 16 ? cols - n0 : 16;
                for (int64_t j = 0; j < n; j++) store_16(to, (b * cols + n0 + j) * BLOCK + half, t[j], bf16);
            }
        }
}

/* The way back: plain rows [first, first+count) of a matrix stored by rows; first is a multiple of 32. */
static void unpack_by_rows(float *x, int64_t stride, const void *from, int64_t first, int64_t count, int64_t cols, bool bf16) {
    for (int64_t m0 = first; m0 < first + count; m0 += 16) {
        int64_t b = m0 / BLOCK, half = m0 % BLOCK, rows = first + count - m0 < 16 ? first + count - m0 : 16;
        for (int64_t n0 = 0; n0 < cols; n0 += 16) {
            int64_t n = cols - n0 < 16 ? cols - n0 : 16;
            v16 t[16];
            for (int64_t j = 0; j < 16; j++) t[j] = j < n ? load_16(from, (b * cols + n0 + j) * BLOCK + half, bf16) : v_set(0);
            v_transpose(t);
            for (int64_t i = 0; i < rows; i++) {
                float *row = x + (m0 - first + i) * stride + n0;
                if (n == 16) v_store(row, t[i]);
                else v_store_n(row, t[i], n);
            }
        }
    }
}

/* bf16 vectors are read as pairs along the reduction: rows r, r+1 of a panel [reduction][32] become words [r/2][32]. */
static void interleave_panel(uint32_t *to, const uint16_t *panel, int64_t reduction) {
    static const uint16_t zeros[BLOCK];
    for (int64_t r = 0; r < reduction; r += 2, to += BLOCK) {
        const uint16_t *low = panel + r * BLOCK, *high = r + 1 < reduction ? low + BLOCK : zeros;
#ifdef __AVX512BW__
        const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35,
                                               3, 34, 2, 33, 1, 32, 0);
        const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
        __m512i l = _mm512_loadu_si512(low), h = _mm512_loadu_si512(high);
        _mm512_storeu_si512(to, _mm512_permutex2var_epi16(l, first, h));
        _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(l, second, h));
#else
        for (int l = 0; l < BLOCK; l++) to[l] = (uint32_t)low[l] | (uint32_t)high[l] << 16;
#endif
    }
}
#endif
