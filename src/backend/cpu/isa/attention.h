/* Attention over pages of 64 keys along a path: the one entry point for training, prefill and decoding.
 *
 * The lanes of a tile are queries - (token, head of the group) pairs of one segment that share a key/value head - and its rows are keys, so that
 * the soft-max is element-wise over rows and needs no sums across lanes, and P^T is at once the vector operand of the next product:
 *
 *   S^T[64 keys][32 queries] = K (rows) x Q^T (lanes)          m, l: running maximum and sum of each lane (Milakov & Gimelshein 2018)
 *   O^T[D][32]  += V^T (rows) x P^T (lanes)
 *
 * A page's sums run over its 64 places in order, pages along the path in order; places after a query's position add exactly 0. A query's result so depends on
 * its own path alone: not on the tile, its neighbours, or whether the keys came from this batch or from the store.
 * Backward (Dao et al. 2022) recomputes P from the log-sum-exp; dK and dV are gathered per page and added to the rows that the page holds, in page order. */
#ifndef PLUMB_ATTENTION_H
#define PLUMB_ATTENTION_H
#include "rows.h"

enum { LANES = BLOCK };

typedef struct query_tile { /* up to 32 (token, head) pairs of one segment and key/value head */
    int64_t lanes;
    int64_t row[LANES], head[LANES], position[LANES], last_position;
} query_tile;

static query_tile make_tile(const plumb_segment *s, int64_t first, int64_t group, int64_t kv_head) {
    query_tile t = {.lanes = plumb_min64(LANES, s->count * group - first)};
    for (int64_t l = 0; l < LANES; l++) {
        int64_t i = first + plumb_min64(l, t.lanes - 1); /* idle lanes repeat the last query */
        t.row[l] = s->begin + i / group;
        t.head[l] = kv_head * group + i % group;
        t.position[l] = s->start + i / group;
    }
    t.last_position = t.position[LANES - 1];
    return t;
}
/* to[D][32] = the tile's rows of x, times factor: 16 x 16 transposes. */
static void gather_lanes(float *to, plumb_tensor x, const query_tile *t, int64_t D, float factor) {
    for (int64_t l0 = 0; l0 < LANES; l0 += 16)
        for (int64_t d0 = 0; d0 < D; d0 += 16) {
            v16 v[16];
            for (int i = 0; i < 16; i++) v[i] = part(plumb_cpu_at(x, t->row[l0 + i]) + t->head[l0 + i] * D, d0, D) * v_set(factor);
            v_transpose(v);
            for (int64_t d = 0; d < plumb_min64(16, D - d0); d++) v_store(to + (d0 + d) * LANES + l0, v[d]);
        }
}
/* The way back, lanes times their own factor; `=`. */
static void scatter_lanes(plumb_tensor x, const float *from, const query_tile *t, int64_t D, const float factor[LANES]) {
    for (int64_t l0 = 0; l0 < t->lanes; l0 += 16)
        for (int64_t d0 = 0; d0 < D; d0 += 16) {
            v16 v[16], f = v_load(factor + l0);
            for (int64_t d = 0; d < 16; d++) v[d] = d0 + d < D ? v_load(from + (d0 + d) * LANES + l0) * f : v_set(0);
            v_transpose(v);
            for (int64_t i = 0; i < plumb_min64(16, t->lanes - l0); i++) set_part(plumb_cpu_at(x, t->row[l0 + i]) + t->head[l0 + i] * D, d0, D, v[i]);
        }
}

/* c[rows][32] (+)= a[rows] x b, the rows of `a` blocked with `height` rows. */
static void rows_by_lanes(float *c, const float *a, int64_t height, int64_t rows, int64_t reduction, const float *b, bool add) {
    strip_run(&(strip){.a = a, .a_block = height * BLOCK, .b = b, .c = c, .ldc = LANES, .rows = rows, .lanes = LANES, .reduction = reduction, .add = add});
}

/* Lays key rows into [D/32][64][32] and value rows into [64/32][D][32]. */
static void put_rows_blocked(float *to, int64_t place, const float *row, int64_t D) {
    for (int64_t d0 = 0; d0 < D; d0 += BLOCK) {
        float *at = to + (d0 / BLOCK * PLUMB_PAGE + place) * BLOCK;
        int64_t n = plumb_min64(BLOCK, D - d0);
        memcpy(at, row + d0, (size_t)n * sizeof(float));
        if (n < BLOCK) memset(at + n, 0, (size_t)(BLOCK - n) * sizeof(float));
    }
}
static void put_row_transposed(float *to, int64_t place, const float *row, int64_t D) {
    float *at = to + place / BLOCK * D * BLOCK + place % BLOCK;
    for (int64_t d = 0; d < D; d++) at[d * BLOCK] = row[d];
}
static void write_pages(plumb_backend *be, const plumb_attention *a, plumb_tensor k, plumb_tensor v, plumb_kv *kv, int64_t layer, const plumb_forest *f) {
    int64_t D = a->head_dim, key_floats = PLUMB_PAGE * plumb_round_up(D, BLOCK);
#pragma omp parallel for schedule(static) num_threads(be->threads)
    for (int64_t p = 0; p < f->n_pages; p++)
        for (int64_t h = 0; h < a->kv_heads; h++) {
            float *page = plumb_kv_page(kv, layer, f->pages[p].slot, h);
            for (int64_t i = 0; i < PLUMB_PAGE; i++) {
                int32_t row = f->pages[p].rows[i];
                if (row < 0) continue; /* what lies there is finite: pages begin as zeros */
                put_rows_blocked(page, i, plumb_cpu_at(k, row) + h * D, D);
                put_row_transposed(page + key_floats, i, plumb_cpu_at(v, row) + h * D, D);
            }
        }
}

/* Scores of keys after a lane's position become minus infinity. */
INLINE void mask_scores(float *scores, const query_tile *t, int64_t first_key) {
    if (first_key + PLUMB_PAGE - 1 <= t->position[0]) return;
    for (int64_t key = 0; key < PLUMB_PAGE; key++)
        for (int64_t l = 0; l < LANES; l++)
            if (first_key + key > t->position[l]) scores[key * LANES + l] = -INFINITY;
}
/* One page of the running soft-max: scores become probabilities, o is rescaled. */
static void softmax_page(float *scores, float *o, int64_t D, float *maximum, float *sum) {
    for (int64_t l = 0; l < LANES; l += 16) {
        v16 old = v_load(maximum + l), m = old;
        for (int64_t key = 0; key < PLUMB_PAGE; key++) m = v_max(v_load(scores + key * LANES + l), m);
        v16 shrink = v_exp(old - m), s = v_load(sum + l) * shrink;
        for (int64_t key = 0; key < PLUMB_PAGE; key++) {
            v16 p = v_exp(v_load(scores + key * LANES + l) - m);
            s = s + p;
            v_store(scores + key * LANES + l, p);
        }
        for (int64_t d = 0; d < D; d++) v_store(o + d * LANES + l, v_load(o + d * LANES + l) * shrink);
        v_store(maximum + l, m);
        v_store(sum + l, s);
    }
}
static void attend_tile(const plumb_attention *a, plumb_tensor o, plumb_tensor lse, plumb_tensor q, const plumb_kv *kv, int64_t layer, int64_t kv_head,
                        const int32_t *path, const query_tile *t, float *work) {
    int64_t D = a->head_dim, key_floats = PLUMB_PAGE * plumb_round_up(D, BLOCK);
    float *queries = work, *result = queries + D * LANES, *scores = result + D * LANES;
    float maximum[LANES] __attribute__((aligned(64))), sum[LANES] __attribute__((aligned(64))) = {0};
    for (int l = 0; l < LANES; l++) maximum[l] = -1e30f; /* finite, so that old - new is never inf - inf */
    gather_lanes(queries, q, t, D, (float)a->scale);
    memset(result, 0, (size_t)(D * LANES) * sizeof(float));
    for (int64_t p = 0; p * PLUMB_PAGE <= t->last_position; p++) {
        const float *page = plumb_kv_page(kv, layer, path[p], kv_head);
        rows_by_lanes(scores, page, PLUMB_PAGE, PLUMB_PAGE, D, queries, false);
        mask_scores(scores, t, p * PLUMB_PAGE);
        softmax_page(scores, result, D, maximum, sum);
        rows_by_lanes(result, page + key_floats, D, D, PLUMB_PAGE, scores, true);
    }
    float inverse[LANES] __attribute__((aligned(64)));
    for (int64_t l = 0; l < LANES; l++) inverse[l] = 1.0f / sum[l];
    scatter_lanes(o, result, t, D, inverse);
    if (lse.buffer)
        for (int64_t l = 0; l < t->lanes; l++) plumb_cpu_at(lse, t->row[l])[t->head[l]] = maximum[l] + logf(sum[l]);
}

static void op_attention_forward(plumb_backend *be, const plumb_attention *a, plumb_tensor o, plumb_tensor lse, plumb_tensor q, plumb_tensor k, plumb_tensor v,
                                 plumb_kv *kv, int64_t layer, const plumb_batch *b) {
    const plumb_forest *f = &b->forest;
    int64_t group = a->heads / a->kv_heads, work = a->head_dim * LANES * 2 + PLUMB_PAGE * LANES;
    float *memory = plumb_cpu_scratch(be, SCRATCH_ATTENTION, (size_t)(work * be->threads) * sizeof(float));
    if (!memory) return;
    write_pages(be, a, k, v, kv, layer, f);
#pragma omp parallel num_threads(be->threads)
    {
        float *mine = memory + work * omp_get_thread_num();
        for (int32_t s = 0; s < f->n_segments; s++) {
            const plumb_segment *segment = &f->segments[s];
            int64_t n_tiles = (segment->count * group + LANES - 1) / LANES;
#pragma omp for schedule(dynamic, 1) nowait
            for (int64_t job = 0; job < n_tiles * a->kv_heads; job++) {
                query_tile t = make_tile(segment, job / a->kv_heads * LANES, group, job % a->kv_heads);
                attend_tile(a, o, lse, q, kv, layer, job % a->kv_heads, f->paths + segment->first_page, &t, mine);
            }
        }
    }
}

/* --- backward: one key/value head at a time ----------------------------------------------------------------------------------------- */
typedef struct backward_head {
    const plumb_attention *a;
    plumb_tensor dq, d_o, o, lse, q;
    int64_t kv_head, page_floats;
    float *pages;  /* per slot: K and V as [D/32][64][32], K transposed [2][D][32], then dK and dV [64][Dp] */
    float *work;
} backward_head;
typedef struct page_view { float *k, *v, *kt, *dk, *dv; } page_view;
INLINE page_view view_page(const backward_head *h, int64_t slot) {
    int64_t D = h->a->head_dim, blocked = PLUMB_PAGE * plumb_round_up(D, BLOCK);
    float *p = h->pages + slot * h->page_floats;
    return (page_view){p, p + blocked, p + 2 * blocked, p + 2 * blocked + PLUMB_PAGE * D, p + 3 * blocked + PLUMB_PAGE * D};
}

/* dk or dv of a page += (P or dS)^T of the tile x its rows of q or do; rows = keys, lanes = channels, the reduction runs over the tile's queries. */
static void add_page_gradient(float *to, const float *probabilities, const float *rows, int64_t D, int64_t lanes) {
    int64_t stride = plumb_round_up(D, BLOCK);
    strip_run(&(strip){.a = probabilities, .b = rows, .b_panel = BLOCK * LANES, .c = to, .ldc = stride, .c_panel = BLOCK, .rows = PLUMB_PAGE, .lanes = stride,
                       .reduction = lanes, .add = true});
}
/* to[D/32][lane][32] = the tile's rows, times factor: what add_page_gradient reads as vectors. */
static void gather_rows(float *to, plumb_tensor x, const query_tile *t, int64_t D, float factor) {
    for (int64_t l = 0; l < LANES; l++)
        for (int64_t d = 0; d < plumb_round_up(D, BLOCK); d += 16)
            v_store(to + d / BLOCK * BLOCK * LANES + l * BLOCK + d % BLOCK, part(plumb_cpu_at(x, t->row[l]) + t->head[l] * D, d, D) * v_set(factor));
}
static void backward_tile(const backward_head *h, const int32_t *path, const query_tile *t) {
    int64_t D = h->a->head_dim, Dp = plumb_round_up(D, BLOCK);
    float *queries = h->work, *grads = queries + D * LANES, *dq = grads + D * LANES, *scores = dq + D * LANES, *dscores = scores + PLUMB_PAGE * LANES;
    float *query_rows = dscores + PLUMB_PAGE * LANES, *grad_rows = query_rows + Dp * LANES;
    float scale = (float)h->a->scale, delta[LANES] __attribute__((aligned(64))), lse[LANES] __attribute__((aligned(64))), factor[LANES] __attribute__((aligned(64)));
    gather_lanes(queries, h->q, t, D, scale);
    gather_lanes(grads, h->d_o, t, D, 1);
    gather_rows(query_rows, h->q, t, D, scale);
    gather_rows(grad_rows, h->d_o, t, D, 1);
    memset(dq, 0, (size_t)(D * LANES) * sizeof(float));
    for (int64_t l = 0; l < LANES; l++) { /* delta = sum_d do o of each lane */
        const float *o = plumb_cpu_at(h->o, t->row[l]) + t->head[l] * D, *d_o = plumb_cpu_at(h->d_o, t->row[l]) + t->head[l] * D;
        v16 sum = v_set(0);
        EACH_16(d, D) sum = v_fma(part(o, d, D), part(d_o, d, D), sum);
        delta[l] = v_sum(sum);
        lse[l] = plumb_cpu_at(h->lse, t->row[l])[t->head[l]];
        factor[l] = scale;
    }
    for (int64_t p = 0; p * PLUMB_PAGE <= t->last_position; p++) {
        page_view page = view_page(h, path[p]);
        rows_by_lanes(scores, page.k, PLUMB_PAGE, PLUMB_PAGE, D, queries, false);
        mask_scores(scores, t, p * PLUMB_PAGE);
        rows_by_lanes(dscores, page.v, PLUMB_PAGE, PLUMB_PAGE, D, grads, false);
        for (int64_t i = 0; i < PLUMB_PAGE * LANES; i += 16) {
            v16 probability = v_exp(v_load(scores + i) - v_load(lse + i % LANES));
            v_store(scores + i, probability);
            v_store(dscores + i, probability * (v_load(dscores + i) - v_load(delta + i % LANES)));
        }
        rows_by_lanes(dq, page.kt, D, D, PLUMB_PAGE, dscores, true);
        add_page_gradient(page.dv, scores, grad_rows, D, t->lanes);
        add_page_gradient(page.dk, dscores, query_rows, D, t->lanes);
    }
    scatter_lanes(h->dq, dq, t, D, factor);
}
static void collect_pages(const backward_head *h, plumb_tensor dk, plumb_tensor dv, const plumb_forest *f) {
    int64_t D = h->a->head_dim, stride = plumb_round_up(D, BLOCK);
    for (int64_t p = 0; p < f->n_pages; p++) {
        page_view page = view_page(h, f->pages[p].slot);
        for (int64_t i = 0; i < PLUMB_PAGE; i++) {
            int32_t row = f->pages[p].rows[i];
            if (row < 0) continue;
            add_row(plumb_cpu_at(dk, row) + h->kv_head * D, page.dk + i * stride, D);
            add_row(plumb_cpu_at(dv, row) + h->kv_head * D, page.dv + i * stride, D);
        }
    }
}
static void op_attention_backward(plumb_backend *be, const plumb_attention *a, plumb_tensor dq, plumb_tensor dk, plumb_tensor dv, plumb_tensor d_o, plumb_tensor o,
                                  plumb_tensor lse, plumb_tensor q, plumb_tensor k, plumb_tensor v, plumb_kv *kv, const plumb_batch *b) {
    (void)kv;
    const plumb_forest *f = &b->forest;
    int64_t D = a->head_dim, Dp = plumb_round_up(D, BLOCK), group = a->heads / a->kv_heads;
    int64_t page_floats = PLUMB_PAGE * (4 * Dp + D), work = D * LANES * 3 + PLUMB_PAGE * LANES * 2 + Dp * LANES * 2;
    float *memory = plumb_cpu_scratch(be, SCRATCH_ATTENTION, (size_t)(work * be->threads) * sizeof(float));
    float *pages = plumb_cpu_scratch(be, SCRATCH_PAGES, (size_t)(page_floats * f->n_slots * be->threads) * sizeof(float));
    if (!memory || !pages) return;
    plumb_cpu_zero(be, dk);
    plumb_cpu_zero(be, dv);
#pragma omp parallel for schedule(dynamic, 1) num_threads(be->threads)
    for (int64_t kv_head = 0; kv_head < a->kv_heads; kv_head++) {
        int thread = omp_get_thread_num();
        backward_head h = {a, dq, d_o, o, lse, q, kv_head, page_floats, pages + page_floats * f->n_slots * thread, memory + work * thread};
        memset(h.pages, 0, (size_t)(page_floats * f->n_slots) * sizeof(float));
        for (int64_t p = 0; p < f->n_pages; p++)
            for (int64_t i = 0; i < PLUMB_PAGE; i++) {
                int32_t row = f->pages[p].rows[i];
                if (row < 0) continue;
                page_view page = view_page(&h, f->pages[p].slot);
                put_rows_blocked(page.k, i, plumb_cpu_at(k, row) + kv_head * D, D);
                put_rows_blocked(page.v, i, plumb_cpu_at(v, row) + kv_head * D, D);
                put_row_transposed(page.kt, i, plumb_cpu_at(k, row) + kv_head * D, D);
            }
        for (int32_t s = 0; s < f->n_segments; s++)
            for (int64_t first = 0; first < f->segments[s].count * group; first += LANES) {
                query_tile t = make_tile(&f->segments[s], first, group, kv_head);
                backward_tile(&h, f->paths + f->segments[s].first_page, &t);
            }
        collect_pages(&h, dk, dv, f);
    }
}
#endif
