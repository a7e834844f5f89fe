/* Products on blocked operands.  Which operand is read as vectors decides the direction:
 *
 *   linear_forward    y[m][n]  = sum_k x[m][k] w[n][k]    rows m from x by columns, lanes n from the weight
 *   linear_backward   dx[m][k] = sum_n dy[m][n] w[n][k]   rows k from the weight, lanes m from dy by rows; the result is dx^T
 *   linear_gradient   dw[n][k] += sum_m dy[m][n] x[m][k]  rows n from dy by rows, lanes k from x by columns
 *
 * so that one copy of a frozen weight serves both directions, at the price of one transposition of dx. The reduction is walked in chunks of
 * at most 128 (bf16: 320), each a chain of its own that is added to the result: rows and lanes of a chunk fit the L1 cache together, and the products of fp32 stay
 * exact enough. Threads divide panels, never a reduction. */
#ifndef PLUMB_PRODUCT_H
#define PLUMB_PRODUCT_H
#include <omp.h>
#include "tile.h"
#include "pack.h"

enum { CHUNK = 128, CHUNK_BF16 = 320 };
/* Length of the chunks that a reduction of n is cut into: as few as the limit allows, alike, whole blocks. It depends on n and the type alone. */
INLINE int64_t chunk_of(int64_t n, bool bf16) {
    int64_t limit = bf16 ? CHUNK_BF16 : CHUNK, count = (n + limit - 1) / limit;
    return plumb_round_up((n + count - 1) / count, BLOCK);
}

typedef struct side { /* a blocked matrix [q/32][p][32] as the tile reads it */
    const char *data;
    int64_t p;
    int64_t element;
} side;
INLINE const float *side_at(side s, int64_t q, int64_t p) { /* q a multiple of 32 */
    return (const float *)(s.data + ((q / BLOCK * s.p + p) * BLOCK) * s.element);
}
INLINE bool is_bf16(plumb_backend *be) { return be->compute == PLUMB_COMPUTE_BF16; }
INLINE side operand_side(plumb_backend *be, const plumb_operand *o) {
    return (side){o->data, o->packing == PLUMB_BY_COLUMNS ? o->rows : o->cols, is_bf16(be) ? 2 : 4};
}
INLINE side weight_side(plumb_backend *be, const plumb_weight *w) { return (side){w->data, w->k, is_bf16(be) ? 2 : 4}; }
INLINE int64_t words(int64_t elements, bool bf16) { return plumb_floats_of(elements, bf16); }

/* Panels [q, q+count) of a matrix read as vectors, elements [r0, r0+n) of the reduction, `*apart` floats between panels; bf16 goes through `pairs`. */
INLINE const float *vectors_at(side s, int64_t q, int64_t count, int64_t r0, int64_t n, bool bf16, uint32_t *pairs, int64_t *apart) {
    *apart = bf16 ? words(n, true) * BLOCK : s.p * BLOCK;
    if (!bf16) return side_at(s, q, r0);
    for (int64_t p = 0; p < count; p++) interleave_panel(pairs + p * *apart, (const uint16_t *)side_at(s, q + p * BLOCK, r0), n);
    return (const float *)pairs;
}

typedef struct share { int64_t first, last; } share;
INLINE share my_share(int64_t n) {
    int64_t t = omp_get_thread_num(), of = omp_get_num_threads();
    return (share){n * t / of, n * (t + 1) / of};
}

static bool operand_fits(plumb_backend *be, const plumb_operand *o, int64_t rows, int64_t cols) {
    size_t need = (size_t)plumb_round_up(rows, BLOCK) * (size_t)plumb_round_up(cols, BLOCK) * (is_bf16(be) ? 2 : 4);
    if (need <= o->bytes) return true;
    plumb_backend_set_fault(be, PLUMB_E_DEVICE, "an operand of %zu bytes cannot hold %lld x %lld", o->bytes, (long long)rows, (long long)cols);
    return false;
}
static void op_operand_pack(plumb_backend *be, plumb_operand *o, plumb_tensor x, plumb_packing packing, plumb_tensor row_scale) {
    if (!operand_fits(be, o, x.rows, x.cols)) return;
    o->rows = x.rows, o->cols = x.cols, o->packing = packing;
    const float *scale = row_scale.buffer ? plumb_cpu_at(row_scale, 0) : NULL;
    bool bf16 = is_bf16(be);
#pragma omp parallel num_threads(be->threads)
    {
        if (packing == PLUMB_BY_COLUMNS) {
            share s = my_share(x.rows);
            pack_by_columns(o->data, plumb_cpu_at(x, 0), x.rows, x.cols, x.stride, scale, row_scale.stride, bf16, s.first, s.last);
        } else {
            share s = my_share((x.rows + BLOCK - 1) / BLOCK);
            pack_by_rows(o->data, plumb_cpu_at(x, 0), x.rows, x.cols, x.stride, scale, row_scale.stride, bf16, s.first, s.last);
        }
    }
}

static void op_weight_write(plumb_backend *be, plumb_weight *w, int64_t first, int64_t rows, const float *from) {
    int64_t element = is_bf16(be) ? 2 : 4;
    char *to = (char *)w->data + first * w->k * element;
    pack_by_rows(to, from, rows, w->k, w->k, NULL, 0, is_bf16(be), 0, (rows + BLOCK - 1) / BLOCK);
}
static void op_weight_read(plumb_backend *be, const plumb_weight *w, int64_t first, int64_t rows, float *to) {
    unpack_by_rows(to, w->k, w->data, first, rows, w->k, is_bf16(be));
}
static void op_weight_from(plumb_backend *be, plumb_weight *w, plumb_tensor from) {
#pragma omp parallel num_threads(be->threads)
    {
        share s = my_share((w->n + BLOCK - 1) / BLOCK);
        pack_by_rows(w->data, plumb_cpu_at(from, 0), w->n, w->k, from.stride, NULL, 0, is_bf16(be), s.first, s.last);
    }
}

/* --- y = sum_t x_t w_t^T + bias -------------------------------------------------------------------------------------------------- */
/* Sums grow in a small dense block [panel][M][32] that stays in L2, not in y, whose rows lie a page apart: that was half of the time. */
enum { GROUP_FLOATS = 1 << 16, GROUP_PANELS = 9 }; /* panels in threes make whole strips of 48 lanes */
INLINE int64_t panels_in_group(int64_t M) { return plumb_max64(1, plumb_min64(GROUP_PANELS, GROUP_FLOATS / (M * BLOCK))); }

/* Where a thread stands in its walk over groups of panels, terms and chunks. */
typedef struct walk { int64_t first, count; int term; int64_t r0, n; } walk;
static walk walk_at(const plumb_term *terms, bool bf16, share panels, int64_t group, int64_t first, int term, int64_t r0) {
    int64_t k = terms[term].w->k;
    return (walk){first, plumb_min64(group, panels.last - first), term, r0, plumb_min64(chunk_of(k, bf16), k - r0)};
}
/* False at the end. */
static bool walk_next(walk *p, const plumb_term *terms, int n_terms, bool bf16, share panels, int64_t group) {
    bool same_term = p->r0 + p->n < terms[p->term].w->k, same_group = same_term || p->term + 1 < n_terms;
    int64_t first = same_group ? p->first : p->first + group;
    if (first >= panels.last) return false;
    *p = walk_at(terms, bf16, panels, group, first, same_term ? p->term : same_group ? p->term + 1 : 0, same_term ? p->r0 + p->n : 0);
    return true;
}
static ahead weight_ahead(plumb_backend *be, const plumb_term *terms, const walk *p) {
    side w = weight_side(be, terms[p->term].w);
    return (ahead){(const char *)side_at(w, p->first * BLOCK, p->r0), p->count, p->n * BLOCK * w.element / 64, w.p * BLOCK * w.element};
}
/* One chunk of one term for a group of panels: the rows of x stay in L2 while the weight streams by, fetched one place ahead. */
static void forward_chunk(plumb_backend *be, float *sums, int64_t M, const plumb_term *term, const walk *p, uint32_t *pairs, ahead next) {
    bool bf16 = is_bf16(be);
    side x = operand_side(be, term->x), w = weight_side(be, term->w);
    int64_t apart, lanes = plumb_round_up(plumb_min64(p->count * BLOCK, term->w->n - p->first * BLOCK), HALF); /* the sums' lanes are padded */
    const float *b = vectors_at(w, p->first * BLOCK, p->count, p->r0, p->n, bf16, pairs, &apart);
    strip_run(&(strip){.a = side_at(x, p->r0, 0), .a_block = x.p * (bf16 ? 16 : 32), .b = b, .b_panel = apart, .c = sums, .ldc = BLOCK, .c_panel = M * BLOCK, .rows = M,
                       .lanes = lanes, .reduction = words(p->n, bf16), .add = p->term > 0 || p->r0 > 0, .bf16 = bf16, .next = next});
}
/* Sums to rows of y, plus bias. */
static void finish_group(plumb_tensor y, const float *sums, const float *bias, int64_t first, int64_t count) {
    int64_t begin = first * BLOCK, end = plumb_min64(begin + count * BLOCK, y.cols);
    for (int64_t m = 0; m < y.rows; m++) {
        float *out = plumb_cpu_at(y, m);
        for (int64_t c = begin; c < end; c += 16) {
            v16 v = v_load(sums + (((c - begin) / BLOCK) * y.rows + m) * BLOCK + c % BLOCK);
            if (bias) v = v + load_row_part(bias, c, y.cols);
            if (c + 16 <= end) v_store(out + c, v);
            else v_store_n(out + c, v, end - c);
        }
    }
}
static void op_linear_forward(plumb_backend *be, plumb_tensor y, const plumb_term *terms, int n_terms, plumb_tensor bias) {
    int64_t M = y.rows, group = M ? panels_in_group(M) : 1, floats = group * M * BLOCK;
    uint32_t *scratch = plumb_cpu_scratch(be, SCRATCH_PANELS, (size_t)be->threads * GROUP_PANELS * CHUNK_BF16 / 2 * BLOCK * sizeof(uint32_t));
    float *sums = plumb_cpu_scratch(be, SCRATCH_RESULT, (size_t)(floats * be->threads) * sizeof(float));
    if (!scratch || !sums || !M) return;
#pragma omp parallel num_threads(be->threads)
    {
        share panels = my_share((y.cols + BLOCK - 1) / BLOCK);
        uint32_t *pairs = scratch + (int64_t)omp_get_thread_num() * GROUP_PANELS * CHUNK_BF16 / 2 * BLOCK;
        float *mine = sums + (int64_t)omp_get_thread_num() * floats;
        walk p = walk_at(terms, is_bf16(be), panels, group, panels.first, 0, 0);
        for (bool more = panels.first < panels.last; more;) {
            walk now = p;
            more = walk_next(&p, terms, n_terms, is_bf16(be), panels, group);
            forward_chunk(be, mine, M, &terms[now.term], &now, pairs, more ? weight_ahead(be, terms, &p) : (ahead){0});
            if (!more || p.first != now.first) finish_group(y, mine, bias.buffer ? plumb_cpu_at(bias, 0) : NULL, now.first, now.count);
        }
    }
}

/* --- dx^T[k][m] = sum_t sum_n w_t[n][k] dy_t[m][n], rows k of one thread ----------------------------------------------------------- */

static void backward_rows(plumb_backend *be, float *result, int64_t K, int64_t M, const plumb_term *terms, int n_terms, const uint32_t *pairs, share rows) {
    bool bf16 = is_bf16(be), add = false;
    int64_t n_panels = (M + BLOCK - 1) / BLOCK;
    for (int t = 0; t < n_terms; t++) {
        side dy = operand_side(be, terms[t].x), w = weight_side(be, terms[t].w);
        int64_t N = terms[t].w->n, half = (N + 1) / 2, chunk = chunk_of(N, bf16);
        for (int64_t r0 = 0; r0 < N; r0 += chunk, add = true) {
            int64_t n = plumb_min64(chunk, N - r0);
            const float *b = bf16 ? (const float *)(pairs + r0 / 2 * BLOCK) : side_at(dy, 0, r0);
            strip_run(&(strip){.a = side_at(w, r0, rows.first), .a_block = w.p * (bf16 ? 16 : 32), .b = b, .b_panel = (bf16 ? half : N) * BLOCK,
                               .c = result + rows.first * BLOCK, .ldc = BLOCK, .c_panel = K * BLOCK, .rows = rows.last - rows.first, .lanes = plumb_round_up(M, HALF),
                               .reduction = words(n, bf16), .add = add, .bf16 = bf16, .cold = true}); /* the result's lanes are padded */
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
    if (!pairs || !result) return NULL;
#pragma omp parallel num_threads(be->threads)
    {
        if (pair_words) {
            uint32_t *to = pairs;
            for (int t = 0; t < n_terms; t++) {
                side dy = operand_side(be, terms[t].x);
                int64_t N = terms[t].w->n, half = (N + 1) / 2;
                share s = my_share(n_panels);
                for (int64_t p = s.first; p < s.last; p++) interleave_panel(to + p * half * BLOCK, (const uint16_t *)side_at(dy, p * BLOCK, 0), N);
                to += n_panels * half * BLOCK;
            }
#pragma omp barrier
        }
        backward_rows(be, result, K, M, terms, n_terms, pairs, my_share(K));
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
        for (int64_t l = 0; l < plumb_min64(BLOCK, M - p * BLOCK); l++) scale[l] = row_scale.buffer ? plumb_cpu_at(row_scale, p * BLOCK + l)[0] : 1.0f;
        for (int64_t k = 0; k < K; k++)
            for (int half = 0; half < BLOCK; half += 16) {
                int64_t at = (p * K + k) * BLOCK + half;
                v16 s = v_load(scale + half), v = v_load(result + at);
                store_16(dx->data, at, v_select(s == 0.0f, v_set(0), v * s), is_bf16(be));
            }
    }
}

/* --- dw[n][k] += sum_m dy[m][n] x[m][k] ------------------------------------------------------------------------------------------- */
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
            for (int64_t p = s.first; p < s.last; p++) interleave_panel(pairs + p * half * BLOCK, (const uint16_t *)side_at(lanes, p * BLOCK, 0), M);
#pragma omp barrier
        }
        bool tall = dw.rows > dw.cols;
        share n = tall ? my_share(dw.rows) : (share){0, dw.rows}, p = tall ? (share){0, panels} : my_share(panels);
        const float *b = bf16 ? (const float *)(pairs + p.first * half * BLOCK) : side_at(lanes, p.first * BLOCK, 0);
        if (n.first < n.last && p.first < p.last)
            strip_run(&(strip){.a = side_at(rows, 0, n.first), .a_block = rows.p * (bf16 ? 16 : 32), .b = b, .b_panel = (bf16 ? half : M) * BLOCK,
                               .c = plumb_cpu_at(dw, n.first) + p.first * BLOCK, .ldc = dw.stride, .c_panel = BLOCK, .rows = n.last - n.first,
                               .lanes = plumb_min64(p.last * BLOCK, dw.cols) - p.first * BLOCK, .reduction = words(M, bf16), .add = true, .bf16 = bf16});
    }
}
#endif
