/* Products on blocked operands.  Which operand is read as vectors decides the direction:
 *
 *   linear_forward    y[m][n]  = sum_k x[m][k] w[n][k]    rows m from x by columns, lanes n from the weight
 *   linear_backward   dx[m][k] = sum_n dy[m][n] w[n][k]   rows k from the weight, lanes m from dy by rows; the result is dx^T
 *   linear_gradient   dw[n][k] += sum_m dy[m][n] x[m][k]  rows n from dy by rows, lanes k from x by columns
 *
 * so that one copy of a frozen weight serves both directions, at the price of one transposition of dx. */
#ifndef PLUMB_PRODUCT_H
#define PLUMB_PRODUCT_H
#include "forward.h"

/* --- dx^T[k][m] = sum_t sum_n w_t[n][k] dy_t[m][n], rows k of one thread ---------------------- */

/* Chunk [r0, r0+n) of the rows of a weight, its columns from `first` to `last`, as the tile reads rows; a quantised
 * one as native values in `room`. */
static const float *weight_rows(plumb_backend *be, const plumb_weight *w, int64_t r0, int64_t n, share cols, float *room,
                                int64_t *a_block) {
    bool bf16 = is_bf16(be);
    side s = weight_side(be, w);
    int64_t k0 = cols.first / BLOCK * BLOCK;
    if (is_quantized(w)) {
        dequantize_panels(room, w, r0 / BLOCK, blocks_of(n), k0, cols.last, bf16);
        s = (side){(const char *)room, cols.last - k0, bf16 ? 2 : 4}, r0 = 0, cols.first -= k0;
    }
    *a_block = s.p * (bf16 ? 16 : 32);
    return side_at(s, r0, cols.first);
}
static void backward_rows(plumb_backend *be, float *result, int64_t K, int64_t M, const plumb_term *terms, int n_terms,
                          const uint32_t *pairs, share rows, float *room) {
    bool bf16 = is_bf16(be), add = false;
    int64_t n_panels = (M + BLOCK - 1) / BLOCK;
    for (int t = 0; t < n_terms; t++) {
        side dy = operand_side(be, terms[t].x);
        int64_t N = terms[t].w->n, half = (N + 1) / 2, chunk = chunk_of(N, bf16);
        for (int64_t r0 = 0; r0 < N; r0 += chunk, add = true) {
            int64_t n = plumb_min64(chunk, N - r0);
            const float *b = bf16 ? (const float *)(pairs + r0 / 2 * BLOCK) : side_at(dy, 0, r0);
            int64_t a_block;
            const float *a = weight_rows(be, terms[t].w, r0, n, rows, room, &a_block);
            strip_run(&(strip){.a = a,
                               .a_block = a_block,
                               .b = b,
                               .b_panel = (bf16 ? half : N) * BLOCK,
                               .c = result + rows.first * BLOCK,
                               .ldc = BLOCK,
                               .c_panel = K * BLOCK,
                               /* the result's lanes are padded */
                               .rows = rows.last - rows.first,
                               .lanes = plumb_round_up(M, HALF),
                               .reduction = words(n, bf16),
                               .add = add,
                               .bf16 = bf16,
                               .cold = true});
        }
        pairs += n_panels * half * BLOCK;
    }
}
/* The result is dx by rows, [m/32][K][32] floats; lanes past row M are not defined. NULL after latching a fault. */
static float *backward_product(plumb_backend *be, int64_t K, int64_t M, const plumb_term *terms, int n_terms) {
    int64_t n_panels = (M + BLOCK - 1) / BLOCK, pair_words = 0;
    if (is_bf16(be))
        for (int t = 0; t < n_terms; t++) pair_words += n_panels * ((terms[t].w->n + 1) / 2) * BLOCK;
    uint32_t *pairs = plumb_cpu_scratch(be, SCRATCH_PANELS, (size_t)pair_words * sizeof *pairs + 64);
    float *result = plumb_cpu_scratch(be, SCRATCH_RESULT, (size_t)(n_panels * K * BLOCK) * sizeof(float));
    bool quantized = false;
    for (int t = 0; t < n_terms; t++) quantized |= is_quantized(terms[t].w);
    int64_t room = quantized ? (CHUNK_BF16 + BLOCK) * plumb_round_up(K, BLOCK) : 0; /* for a thread's part of a chunk, in native values */
    float *rooms = plumb_cpu_scratch(be, SCRATCH_WEIGHTS, (size_t)(room * be->threads) * sizeof(float) + 64);
    if (!pairs || !result || !rooms) return NULL;
#pragma omp parallel num_threads(be->threads)
    {
        if (pair_words) {
            uint32_t *to = pairs;
            for (int t = 0; t < n_terms; t++) {
                side dy = operand_side(be, terms[t].x);
                int64_t N = terms[t].w->n, half = (N + 1) / 2;
                share s = my_share(n_panels);
                for (int64_t p = s.first; p < s.last; p++)
                    interleave_panel(to + p * half * BLOCK, (const uint16_t *)side_at(dy, p * BLOCK, 0), N);
                to += n_panels * half * BLOCK;
            }
#pragma omp barrier
        }
        share rows = my_share(K);
        if (rows.first < rows.last) backward_rows(be, result, K, M, terms, n_terms, pairs, rows, rooms + room * omp_get_thread_num());
    }
    return result;
}
static void op_linear_backward(plumb_backend *be, plumb_tensor dx, const plumb_term *terms, int n_terms) {
    if (!dx.rows) return;
    float *result = backward_product(be, dx.cols, dx.rows, terms, n_terms);
    if (!result) return;
#pragma omp parallel num_threads(be->threads)
    {
        share s = my_share((dx.rows + BLOCK - 1) / BLOCK);
        int64_t first = s.first * BLOCK, last = plumb_min64(s.last * BLOCK, dx.rows);
        if (first < last) unpack_by_rows(plumb_cpu_at(dx, first), dx.stride, result, first, last - first, dx.cols, false);
    }
}
static void op_linear_backward_packed(plumb_backend *be, plumb_operand *dx, const plumb_term *terms, int n_terms, plumb_tensor row_scale) {
    int64_t M = terms[0].x->rows, K = terms[0].w->k;
    if (!operand_fits(be, dx, M, K)) return;
    dx->rows = M, dx->cols = K, dx->packing = PLUMB_BY_ROWS;
    float *result = M ? backward_product(be, K, M, terms, n_terms) : NULL;
    if (!result) return;
    for (int64_t p = 0; p * BLOCK < M; p++) {
        float scale[BLOCK] __attribute__((aligned(64))) = {0}; /* rows past the end become zeros */
        for (int64_t l = 0; l < plumb_min64(BLOCK, M - p * BLOCK); l++)
            scale[l] = row_scale.buffer ? plumb_cpu_at(row_scale, p * BLOCK + l)[0] : 1.0f;
        for (int64_t k = 0; k < K; k++)
            for (int half = 0; half < BLOCK; half += 16) {
                int64_t at = (p * K + k) * BLOCK + half;
                v16 s = v_load(scale + half), v = v_load(result + at);
                store_16(dx->data, at, v_select(s == 0.0f, v_set(0), v * s), is_bf16(be));
            }
    }
}

/* --- dw[n][k] += sum_m dy[m][n] x[m][k] ------------------------------------------------------- */
static void op_linear_gradient(plumb_backend *be, plumb_tensor dw, const plumb_operand *dy, const plumb_operand *x) {
    bool bf16 = is_bf16(be);
    int64_t M = x->rows, panels = (dw.cols + BLOCK - 1) / BLOCK, half = (M + 1) / 2;
    if (!M) return;
    uint32_t *pairs = plumb_cpu_scratch(be, SCRATCH_PANELS, (size_t)(bf16 ? panels * half * BLOCK : 0) * sizeof(uint32_t) + 64);
    if (!pairs) return;
    side rows = operand_side(be, dy), lanes = operand_side(be, x);
#pragma omp parallel num_threads(be->threads)
    {
        if (bf16) {
            share s = my_share(panels);
            for (int64_t p = s.first; p < s.last; p++)
                interleave_panel(pairs + p * half * BLOCK, (const uint16_t *)side_at(lanes, p * BLOCK, 0), M);
#pragma omp barrier
        }
        bool tall = dw.rows > dw.cols;
        share n = tall ? my_share(dw.rows) : (share){0, dw.rows}, p = tall ? (share){0, panels} : my_share(panels);
        const float *b = bf16 ? (const float *)(pairs + p.first * half * BLOCK) : side_at(lanes, p.first * BLOCK, 0);
        if (n.first < n.last && p.first < p.last)
            strip_run(&(strip){.a = side_at(rows, 0, n.first), .a_block = rows.p * (bf16 ? 16 : 32), .b = b,
                               .b_panel = (bf16 ? half : M) * BLOCK, .c = plumb_cpu_at(dw, n.first) + p.first * BLOCK, .ldc = dw.stride,
                               .c_panel = BLOCK, .rows = n.last - n.first, .lanes = plumb_min64(p.last * BLOCK, dw.cols) - p.first * BLOCK,
                               .reduction = words(M, bf16), .add = true, .bf16 = bf16});
    }
}
#endif
