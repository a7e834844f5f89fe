/* The gradient of attention (Dao et al. 2022), one key/value head at a time: P is recomputed from the log-sum-exp.
 *
 * Here the lanes of a tile are queries and its rows are keys, so that the soft-max is element-wise over rows, and P^T and dS^T are at
 * once the vectors of the next products. In bf16 the operands of all products are rounded (q, do, P, dS). dK and dV are gathered per
 * page and added to the rows that the page holds, in page order. */
#ifndef PLUMB_ATTENTION_BACKWARD_H
#define PLUMB_ATTENTION_BACKWARD_H
#include "attention.h"

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
/* Two rows of what a tile reads as vectors: places r and r+1 of the reduction, lanes [l, l+16). */
INLINE void put_vectors(float *to, int64_t r, int64_t l, v16 low, v16 high, bool bf16) {
    if (bf16) {
        v_store(to + r / 2 * LANES + l, v_pair_bf16(low, high));
    } else {
        v_store(to + r * LANES + l, low);
        v_store(to + (r + 1) * LANES + l, high);
    }
}
/* The tile's rows of x, times factor, as vectors [D][32 lanes]: 16 x 16 transposes. Room for D rounded up to 16. */
static void gather_lanes(float *to, plumb_tensor x, const query_tile *t, int64_t D, float factor, bool bf16) {
    for (int64_t l0 = 0; l0 < LANES; l0 += 16)
        for (int64_t d0 = 0; d0 < D; d0 += 16) {
            v16 v[16];
            for (int i = 0; i < 16; i++) v[i] = part(plumb_cpu_at(x, t->row[l0 + i]) + t->head[l0 + i] * D, d0, D) * v_set(factor);
            v_transpose(v);
            for (int d = 0; d < 16; d += 2) put_vectors(to, d0 + d, l0, v[d], v[d + 1], bf16);
        }
}
/* The way back, lanes times their own factor; `=`. */
static void scatter_lanes(plumb_tensor x, const float *from, const query_tile *t, int64_t D, const float factor[LANES]) {
    for (int64_t l0 = 0; l0 < t->lanes; l0 += 16)
        for (int64_t d0 = 0; d0 < D; d0 += 16) {
            v16 v[16], f = v_load(factor + l0);
            for (int64_t d = 0; d < 16; d++) v[d] = d0 + d < D ? v_load(from + (d0 + d) * LANES + l0) * f : v_set(0);
            v_transpose(v);
            for (int64_t i = 0; i < plumb_min64(16, t->lanes - l0); i++)
                set_part(plumb_cpu_at(x, t->row[l0 + i]) + t->head[l0 + i] * D, d0, D, v[i]);
        }
}

/* c[rows][32] (+)= a[rows] x b, the rows of `a` blocked with `height` rows. */
static void rows_by_lanes(float *c, const float *a, int64_t height, int64_t rows, int64_t reduction, const float *b, bool add, bool bf16) {
    strip_run(&(strip){.a = a, .a_block = words(height * BLOCK, bf16), .b = b, .c = c, .ldc = LANES, .rows = rows, .lanes = LANES,
                       .reduction = words(reduction, bf16), .add = add, .bf16 = bf16});
}

/* Lays rows into a page as [D/32][64][32]: what a tile reads as rows when the reduction runs over D. */
static void put_rows_blocked(float *to, int64_t place, const float *row, int64_t D, bool bf16) {
    for (int64_t d = 0; d < plumb_round_up(D, BLOCK); d += 16)
        store_16(to, (d / BLOCK * PLUMB_PAGE + place) * BLOCK + d % BLOCK, part(row, d, D), bf16);
}
/* And as [64/32][D][32], for a reduction over places. */
static void put_row_transposed(float *to, int64_t place, const float *row, int64_t D, bool bf16) {
    int64_t at = place / BLOCK * D * BLOCK + place % BLOCK;
    if (!bf16) {
        for (int64_t d = 0; d < D; d++) to[at + d * BLOCK] = row[d];
        return;
    }
    for (int64_t d0 = 0; d0 < D; d0 += 16) {
        uint16_t rounded[16];
        v_store_bf16(rounded, part(row, d0, D));
        for (int64_t d = 0; d < plumb_min64(16, D - d0); d++) memcpy((char *)to + 2 * (at + (d0 + d) * BLOCK), &rounded[d], 2);
    }
}
/* All rows of one page of x [T, heads*D]; `column` is the head's first. What lies in places without a row stays: it is finite, since
 * pages begin as zeros. */
static void put_page_blocked(float *to, plumb_tensor x, int64_t column, const plumb_page *page, int64_t D, bool bf16) {
    for (int64_t i = 0; i < PLUMB_PAGE; i++)
        if (page->rows[i] >= 0) put_rows_blocked(to, i, plumb_cpu_at(x, page->rows[i]) + column, D, bf16);
}
static void put_page_transposed(float *to, plumb_tensor x, int64_t column, const plumb_page *page, int64_t D, bool bf16) {
    for (int64_t i0 = 0; i0 < PLUMB_PAGE; i0 += 16) {
        if (!all_present(page->rows + i0)) {
            for (int64_t i = i0; i < i0 + 16; i++)
                if (page->rows[i] >= 0) put_row_transposed(to, i, plumb_cpu_at(x, page->rows[i]) + column, D, bf16);
            continue;
        }
        for (int64_t d0 = 0; d0 < D; d0 += 16) {
            v16 v[16];
            for (int i = 0; i < 16; i++) v[i] = part(plumb_cpu_at(x, page->rows[i0 + i]) + column, d0, D);
            v_transpose(v);
            for (int64_t d = 0; d < plumb_min64(16, D - d0); d++) store_16(to, (i0 / BLOCK * D + d0 + d) * BLOCK + i0 % BLOCK, v[d], bf16);
        }
    }
}
/* Scores of keys after a lane's position become minus infinity. */
INLINE void mask_scores(float *scores, const query_tile *t, int64_t first_key, int64_t places) {
    if (first_key + places - 1 <= t->position[0]) return;
    for (int64_t key = 0; key < places; key++)
        for (int64_t l = 0; l < LANES; l++)
            if (first_key + key > t->position[l]) scores[key * LANES + l] = -INFINITY;
}
typedef struct backward_head {
    const plumb_attention *a;
    plumb_tensor dq, d_o, o, lse, q;
    int64_t kv_head, page_floats;
    /* per slot: K and V as [D/32][64][32], K transposed [2][D][32], all as the products take them; then dK and dV, floats [64][Dp] */
    float *pages;
    float *work;
    bool bf16;
} backward_head;
typedef struct page_view { float *k, *v, *kt, *dk, *dv; } page_view;
INLINE page_view view_page(const backward_head *h, int64_t slot) {
    int64_t D = h->a->head_dim, sums = PLUMB_PAGE * plumb_round_up(D, BLOCK), blocked = words(sums, h->bf16),
            transposed = words(PLUMB_PAGE * D, h->bf16);
    float *p = h->pages + slot * h->page_floats;
    return (page_view){p, p + blocked, p + 2 * blocked, p + 2 * blocked + transposed, p + 2 * blocked + transposed + sums};
}
static int64_t backward_page_floats(int64_t D, bool bf16) {
    int64_t sums = PLUMB_PAGE * plumb_round_up(D, BLOCK);
    return 2 * words(sums, bf16) + words(PLUMB_PAGE * D, bf16) + 2 * sums;
}

/* dk or dv of a page += (P or dS)^T of the tile x its rows of q or do; rows = keys, lanes = channels, the reduction
 * runs over the tile's queries. */
static void add_page_gradient(float *to, const float *probabilities, int64_t places, const float *rows, int64_t D, bool bf16) {
    int64_t stride = plumb_round_up(D, BLOCK), reduction = words(LANES, bf16);
    strip_run(&(strip){.a = probabilities, .b = rows, .b_panel = BLOCK * reduction, .c = to, .ldc = stride, .c_panel = BLOCK,
                       .rows = places, .lanes = stride, .reduction = reduction, .add = true, .bf16 = bf16});
}
/* The tile's rows, times factor, as vectors [D/32][lane][32] for add_page_gradient; idle lanes are zeros. */
static void gather_rows(float *to, plumb_tensor x, const query_tile *t, int64_t D, float factor, bool bf16) {
    for (int64_t l = 0; l < LANES; l += 2)
        for (int64_t d = 0; d < plumb_round_up(D, BLOCK); d += 16) {
            v16 v[2];
            for (int i = 0; i < 2; i++)
                v[i] = l + i < t->lanes ? part(plumb_cpu_at(x, t->row[l + i]) + t->head[l + i] * D, d, D) * v_set(factor) : v_set(0);
            put_vectors(to + d / BLOCK * words(BLOCK * LANES, bf16), l, d % BLOCK, v[0], v[1], bf16);
        }
}
/* P and dS = P (dP - delta) of two keys; `rows` and `vectors` may be one place for floats, since [key][lane] serves both. */
typedef struct backward_products { float *p_rows, *ds_rows, *ds_vectors; } backward_products;
static void soft_max_backward(const float *scores, const float *dscores, int64_t places, const float *lse, const float *delta,
                              backward_products to, bool bf16) {
    for (int64_t l = 0; l < LANES; l += 16)
        for (int64_t key = 0; key < places; key += 2) {
            v16 p[2], ds[2];
            for (int i = 0; i < 2; i++) {
                int64_t at = (key + i) * LANES + l;
                p[i] = v_exp(v_load(scores + at) - v_load(lse + l));
                ds[i] = p[i] * (v_load(dscores + at) - v_load(delta + l));
                store_16(to.p_rows, at, p[i], bf16);
                store_16(to.ds_rows, at, ds[i], bf16);
            }
            if (bf16) put_vectors(to.ds_vectors, key, l, ds[0], ds[1], true);
        }
}
static int64_t backward_work_floats(int64_t D) {
    return 3 * plumb_round_up(D, 16) * LANES + 5 * PLUMB_PAGE * LANES + 2 * plumb_round_up(D, BLOCK) * LANES;
}
static void backward_tile(const backward_head *h, const int32_t *path, const query_tile *t) {
    int64_t D = h->a->head_dim, tile_floats = plumb_round_up(D, 16) * LANES, page_floats = PLUMB_PAGE * LANES;
    bool bf16 = h->bf16;
    float *queries = h->work, *grads = queries + tile_floats, *dq = grads + tile_floats, *scores = dq + tile_floats,
          *dscores = scores + page_floats;
    float *more = dscores + page_floats, *query_rows = more + 3 * page_floats, *grad_rows = query_rows + plumb_round_up(D, BLOCK) * LANES;
    backward_products products =
        bf16 ? (backward_products){more, more + page_floats, more + 2 * page_floats} : (backward_products){scores, dscores, dscores};
    float scale = (float)h->a->scale, delta[LANES] __attribute__((aligned(64))), lse[LANES] __attribute__((aligned(64))),
          factor[LANES] __attribute__((aligned(64)));
    gather_lanes(queries, h->q, t, D, scale, bf16);
    gather_lanes(grads, h->d_o, t, D, 1, bf16);
    gather_rows(query_rows, h->q, t, D, scale, bf16);
    gather_rows(grad_rows, h->d_o, t, D, 1, bf16);
    memset(dq, 0, (size_t)(D * LANES) * sizeof(float));
    /* delta = sum_d do o of each lane, do as the products see it: where one key has all of P, P (dP - delta) must vanish */
    for (int64_t l = 0; l < LANES; l++) {
        const float *o = plumb_cpu_at(h->o, t->row[l]) + t->head[l] * D, *d_o = plumb_cpu_at(h->d_o, t->row[l]) + t->head[l] * D;
        v16 sum = v_set(0);
        EACH_16(d, D) sum = v_fma(part(o, d, D), rounded_as(part(d_o, d, D), bf16), sum);
        delta[l] = v_sum(sum);
        lse[l] = plumb_cpu_at(h->lse, t->row[l])[t->head[l]];
        factor[l] = scale;
    }
    for (int64_t p = 0; p * PLUMB_PAGE <= t->last_position; p++) {
        page_view page = view_page(h, path[p]);
        int64_t places = places_of(t->last_position, p);
        rows_by_lanes(scores, page.k, PLUMB_PAGE, places, D, queries, false, bf16);
        mask_scores(scores, t, p * PLUMB_PAGE, places);
        rows_by_lanes(dscores, page.v, PLUMB_PAGE, places, D, grads, false, bf16);
        soft_max_backward(scores, dscores, places, lse, delta, products, bf16);
        rows_by_lanes(dq, page.kt, D, D, places, products.ds_vectors, true, bf16);
        add_page_gradient(page.dv, products.p_rows, places, grad_rows, D, bf16);
        add_page_gradient(page.dk, products.ds_rows, places, query_rows, D, bf16);
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
static void op_attention_backward(plumb_backend *be, const plumb_attention *a, plumb_tensor dq, plumb_tensor dk, plumb_tensor dv,
                                  plumb_tensor d_o, plumb_tensor o, plumb_tensor lse, plumb_tensor q, plumb_tensor k, plumb_tensor v,
                                  plumb_kv *kv, const plumb_batch *b) {
    (void)kv;
    const plumb_forest *f = &b->forest;
    bool bf16 = is_bf16(be);
    int64_t D = a->head_dim, group = a->heads / a->kv_heads, page_floats = backward_page_floats(D, bf16), work = backward_work_floats(D);
    float *memory = plumb_cpu_scratch(be, SCRATCH_ATTENTION, (size_t)(work * be->threads) * sizeof(float));
    float *pages = plumb_cpu_scratch(be, SCRATCH_PAGES, (size_t)(page_floats * f->n_slots * be->threads) * sizeof(float));
    if (!memory || !pages) return;
    plumb_cpu_zero(be, dk);
    plumb_cpu_zero(be, dv);
#pragma omp parallel for schedule(dynamic, 1) num_threads(be->threads)
    for (int64_t kv_head = 0; kv_head < a->kv_heads; kv_head++) {
        int thread = omp_get_thread_num();
        backward_head h = {a,   dq, d_o, o, lse, q, kv_head, page_floats, pages + page_floats * f->n_slots * thread, memory + work * thread,
                           bf16};
        memset(h.pages, 0, (size_t)(page_floats * f->n_slots) * sizeof(float));
        for (int64_t p = 0; p < f->n_pages; p++) {
            page_view page = view_page(&h, f->pages[p].slot);
            put_page_blocked(page.k, k, kv_head * D, &f->pages[p], D, bf16);
            put_page_blocked(page.v, v, kv_head * D, &f->pages[p], D, bf16);
            put_page_transposed(page.kt, k, kv_head * D, &f->pages[p], D, bf16);
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
