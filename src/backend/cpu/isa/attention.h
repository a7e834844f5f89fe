/* Attention over pages of 64 keys along a path: the one entry point for training, prefill and decoding.  (Its gradient:
 * attention_backward.h.)
 *
 * The rows of a tile are queries - (token, head of the group) pairs of one segment that share a key/value head - and its lanes are keys,
 * then channels, so that one query of a decoding sequence costs one row and not a register of idle lanes:
 *
 *   S[queries][64 keys] = Q (rows) x K^T (lanes)          m, l: running maximum and sum of each query (Milakov & Gimelshein 2018)
 *   O[queries][D]      += P (rows) x V (lanes)
 *
 * Order of sums: a score runs over channels, a page's part of O over its 64 places in order, pages along the path in order. The sum l is
 * kept in 16 parts, place modulo 16, which meet in a fixed tree at the end. Places after a query's position add exactly 0, and those
 * after the tile's last position are left out, which is the same. A query's result so depends on its own path alone: not on the tile,
 * its neighbours, or whether the keys came from this batch or from the store. In bf16 the operands of the products are rounded (keys and
 * values as they enter a page, q, P); the soft-max stays fp32. */
#ifndef PLUMB_ATTENTION_H
#define PLUMB_ATTENTION_H
#include "rows.h"

/* --- pages: keys as vectors [64/32][D][32 places], values as vectors [D/32][64][32 channels]; bf16 in pairs along the reduction --- */
typedef struct kv_page { float *k, *v; int64_t k_panel, v_panel; } kv_page; /* panels: floats apart */
INLINE kv_page page_at(const plumb_kv *kv, int64_t layer, int64_t slot, int64_t head, bool bf16) {
    float *data = plumb_kv_page(kv, layer, slot, head);
    int64_t k_panel = words(kv->head_dim, bf16) * BLOCK;
    return (kv_page){data, data + PLUMB_PAGE / BLOCK * k_panel, k_panel, words(PLUMB_PAGE, bf16) * BLOCK};
}
/* Row r of what a tile reads as vectors, sixteen lanes at `to` (of row 0). In bf16 it is one half of a row of words,
 * and the other half stays. */
INLINE void put_vector(float *to, int64_t r, v16 v, bool bf16) {
    if (!bf16) {
        v_store(to + r * BLOCK, v);
        return;
    }
    float *word = to + r / 2 * BLOCK;
    v16i kept = (v16i)v_load(word) & (r % 2 ? 0x0000ffff : (int32_t)0xffff0000);
    v_store(word, (v16)(kept | (v16i)(r % 2 ? v_pair_bf16(v_set(0), v) : v_pair_bf16(v, v_set(0)))));
}
static void put_value(const kv_page *page, int64_t place, const float *row, int64_t D, bool bf16) {
    EACH_16(d, D) put_vector(page->v + d / BLOCK * page->v_panel + d % BLOCK, place, part(row, d, D), bf16);
}
static void put_key(const kv_page *page, int64_t place, const float *row, int64_t D, bool bf16) {
    float *lane = page->k + place / BLOCK * page->k_panel + place % BLOCK;
    EACH_16(d0, D) {
        float x[16] __attribute__((aligned(64)));
        if (bf16) v_store_bf16((uint16_t *)x, part(row, d0, D)); /* two channels are a word */
        else v_store(x, part(row, d0, D));
        int64_t n = words(plumb_min64(16, D - d0), bf16);
        for (int64_t d = 0; d < n; d++) lane[(words(d0, bf16) + d) * BLOCK] = x[d];
    }
}
/* Keys of sixteen places that all have a row. */
static void put_keys(const kv_page *page, int64_t place, plumb_tensor k, int64_t column, const int32_t rows[16], int64_t D, bool bf16) {
    float *lanes = page->k + place / BLOCK * page->k_panel + place % BLOCK;
    EACH_16(d0, D) {
        v16 v[16];
        for (int i = 0; i < 16; i++) v[i] = part(plumb_cpu_at(k, rows[i]) + column, d0, D);
        v_transpose(v);
        for (int64_t d = 0; d < plumb_min64(16, D - d0); d += bf16 ? 2 : 1)
            v_store(lanes + words(d0 + d, bf16) * BLOCK, bf16 ? v_pair_bf16(v[d], v[d + 1]) : v[d]);
    }
}
static bool all_present(const int32_t rows[16]) {
    for (int i = 0; i < 16; i++)
        if (rows[i] < 0) return false;
    return true;
}
/* What lies in places without a row stays: it is finite, since pages begin as zeros. */
static void put_page(const kv_page *page, plumb_tensor k, plumb_tensor v, int64_t column, const int32_t *rows, int64_t D, bool bf16) {
    for (int64_t i0 = 0; i0 < PLUMB_PAGE; i0 += 16) {
        bool whole = all_present(rows + i0);
        if (whole) put_keys(page, i0, k, column, rows + i0, D, bf16);
        for (int64_t i = i0; i < i0 + 16; i++) {
            if (rows[i] < 0) continue;
            if (!whole) put_key(page, i, plumb_cpu_at(k, rows[i]) + column, D, bf16);
            put_value(page, i, plumb_cpu_at(v, rows[i]) + column, D, bf16);
        }
    }
}

/* --- a tile of queries ------------------------------------------------------------------------ */
enum { QUERIES = 2 * MR }; /* two tiles of the product, one below the other */
typedef struct query { int64_t row, head, position; } query;
typedef struct attend { /* one tile: what it reads, and its working memory, each with a row for a query */
    const plumb_attention *a;
    plumb_tensor q;
    const plumb_kv *kv;
    int64_t layer, kv_head, count, last_position;
    const int32_t *path;
    kv_page following; /* the first page that the thread's next tile reads, and how many places; none: 0 */
    int64_t following_places;
    query query[QUERIES];
    float *queries;       /* as rows of a product [D/32][count][32] */
    float *scores;        /* [count][64] */
    float *probabilities; /* as rows of a product [64/32][count][32] */
    float *o;             /* [count][D rounded up to 32] */
    float maximum[QUERIES], sums[QUERIES][16];
    bool bf16;
} attend;
static int64_t attend_floats(int64_t D) { return QUERIES * (2 * plumb_round_up(D, BLOCK) + 2 * PLUMB_PAGE); }

static void take_queries(attend *t, const plumb_segment *s, int64_t first, int64_t group) {
    int64_t D = t->a->head_dim;
    v16 scale = v_set((float)t->a->scale);
    t->count = plumb_min64(QUERIES, s->count * group - first);
    for (int64_t i = 0, token = first / group, h = first % group; i < t->count; i++) {
        t->query[i] = (query){s->begin + token, t->kv_head * group + h, s->start + token};
        const float *q = plumb_cpu_at(t->q, t->query[i].row) + t->query[i].head * D;
        EACH_16(d, D) store_16(t->queries, (d / BLOCK * t->count + i) * BLOCK + d % BLOCK, part(q, d, D) * scale, t->bf16);
        if (++h == group) h = 0, token++;
    }
    t->last_position = t->query[t->count - 1].position;
}
/* One page of the running soft-max for query i, which sees the first `seen` of `places` places: scores
 * become probabilities, o is rescaled. */
static void softmax_row(attend *t, int64_t i, int64_t seen, int64_t places) {
    static const v16i lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16 s[PLUMB_PAGE / 16], most = v_set(t->maximum[i]), sums = v_load(t->sums[i]);
    int64_t n = (places + 15) / 16;
    for (int64_t j = 0; j < n; j++) {
        s[j] = v_load(t->scores + i * PLUMB_PAGE + 16 * j);
        if (16 * j + 16 > seen) s[j] = v_select(lane + (int32_t)(16 * j) < (int32_t)seen, s[j], v_set(-INFINITY));
        most = v_max(s[j], most);
    }
    float m = v_max_lane(most);
    if (m != t->maximum[i]) { /* else the factor is exactly 1 */
        v16 shrink = v_exp(v_set(t->maximum[i] - m));
        float *o = t->o + i * plumb_round_up(t->a->head_dim, BLOCK);
        sums = sums * shrink;
        EACH_16(d, t->a->head_dim) v_store(o + d, v_load(o + d) * shrink);
        t->maximum[i] = m;
    }
    for (int64_t j = 0; j < n; j++) {
        v16 p = v_exp(s[j] - v_set(m));
        sums = sums + p;
        store_16(t->probabilities, (j / 2 * t->count + i) * BLOCK + j % 2 * 16, p, t->bf16);
    }
    v_store(t->sums[i], sums);
}
/* Places of page p that a tile with this last position reads; bf16 takes pairs. */
INLINE int64_t places_of(int64_t last_position, int64_t p) {
    return plumb_min64(PLUMB_PAGE, plumb_round_up(last_position + 1 - p * PLUMB_PAGE, 2));
}
/* One page; the page after it, of this tile or of the thread's next one, is fetched meanwhile: a decoding query has
 * less to compute than to read. */
static void attend_page(attend *t, int64_t p) {
    int64_t D = t->a->head_dim, stride = plumb_round_up(D, BLOCK), places = places_of(t->last_position, p), more = t->following_places;
    kv_page page = page_at(t->kv, t->layer, t->path[p], t->kv_head, t->bf16), next = t->following;
    if ((p + 1) * PLUMB_PAGE <= t->last_position)
        next = page_at(t->kv, t->layer, t->path[p + 1], t->kv_head, t->bf16), more = places_of(t->last_position, p + 1);
    ahead keys = {(const char *)next.k, (more + BLOCK - 1) / BLOCK, next.k_panel / 16, next.k_panel * 4};
    ahead values = {(const char *)next.v, more ? stride / BLOCK : 0, words(more, t->bf16) * BLOCK / 16, next.v_panel * 4};
    strip_run(&(strip){.a = t->queries, .a_block = words(t->count * BLOCK, t->bf16), .b = page.k, .b_panel = page.k_panel, .c = t->scores,
                       .ldc = PLUMB_PAGE, .c_panel = BLOCK, .rows = t->count, .lanes = plumb_round_up(places, HALF),
                       .reduction = words(D, t->bf16), .bf16 = t->bf16, .next = keys});
    for (int64_t i = 0; i < t->count; i++) softmax_row(t, i, t->query[i].position + 1 - p * PLUMB_PAGE, places);
    strip_run(&(strip){.a = t->probabilities, .a_block = words(t->count * BLOCK, t->bf16), .b = page.v, .b_panel = page.v_panel, .c = t->o,
                       .ldc = stride, .c_panel = BLOCK, .rows = t->count, .lanes = plumb_round_up(D, HALF),
                       .reduction = words(places, t->bf16), .add = true, .bf16 = t->bf16, .next = values});
}
static void attend_tile(attend *t, plumb_tensor o, plumb_tensor lse) {
    int64_t D = t->a->head_dim, stride = plumb_round_up(D, BLOCK);
    for (int64_t i = 0; i < t->count; i++) {
        t->maximum[i] = -1e30f; /* finite, so that old - new is never inf - inf */
        v_store(t->sums[i], v_set(0));
    }
    memset(t->o, 0, (size_t)(t->count * stride) * sizeof(float));
    for (int64_t p = 0; p * PLUMB_PAGE <= t->last_position; p++) attend_page(t, p);
    for (int64_t i = 0; i < t->count; i++) {
        const query *q = &t->query[i];
        float sum = v_sum(v_load(t->sums[i])), *out = plumb_cpu_at(o, q->row) + q->head * D;
        v16 inverse = v_set(1.0f / sum);
        EACH_16(d, D) set_part(out, d, D, v_load(t->o + i * stride + d) * inverse);
        if (lse.buffer) plumb_cpu_at(lse, q->row)[q->head] = t->maximum[i] + logf(sum);
    }
}

/* Tiles of all segments, one after the other. The first of each thread is its own, so that none takes two while another has none; then a
 * thread that comes takes the next. */
typedef struct turn { /* where a thread stands */
    const plumb_forest *f;
    int64_t kv_heads, group, before; /* tiles of the segments before s */
    const plumb_segment *s;
    int64_t kv_head, first; /* the tile: queries from here */
} turn;
static bool find_turn(turn *t, int64_t number) { /* numbers ascend */
    for (int64_t tiles; t->s < t->f->segments + t->f->n_segments; t->before += tiles, t->s++) {
        tiles = (t->s->count * t->group + QUERIES - 1) / QUERIES * t->kv_heads;
        if (number >= t->before + tiles) continue;
        t->kv_head = (number - t->before) % t->kv_heads, t->first = (number - t->before) / t->kv_heads * QUERIES;
        return true;
    }
    return false;
}
static bool take_turn(turn *t, int64_t *next) {
    int64_t number;
#pragma omp atomic capture
    number = (*next)++;
    return find_turn(t, omp_get_num_threads() + number);
}
static void attend_turn(attend *t, const turn *now, const turn *then, plumb_tensor o, plumb_tensor lse) {
    t->kv_head = now->kv_head, t->path = now->f->paths + now->s->first_page, t->following_places = 0;
    if (then) {
        t->following = page_at(t->kv, t->layer, then->f->paths[then->s->first_page], then->kv_head, t->bf16);
        t->following_places =
            places_of(then->s->start + (plumb_min64(then->first + QUERIES, then->s->count * then->group) - 1) / then->group, 0);
    }
    take_queries(t, now->s, now->first, now->group);
    attend_tile(t, o, lse);
}

static void op_attention_forward(plumb_backend *be, const plumb_attention *a, plumb_tensor o, plumb_tensor lse, plumb_tensor q,
                                 plumb_tensor k, plumb_tensor v, plumb_kv *kv, int64_t layer, const plumb_batch *b) {
    const plumb_forest *f = &b->forest;
    bool bf16 = is_bf16(be);
    int64_t D = a->head_dim, group = a->heads / a->kv_heads, work = attend_floats(D), scores = 0, next = 0;
    float *memory = plumb_cpu_scratch(be, SCRATCH_ATTENTION, (size_t)(work * be->threads) * sizeof(float));
    if (!memory) return;
    for (int32_t s = 0; s < f->n_segments; s++) scores += (f->segments[s].start + f->segments[s].count) * f->segments[s].count;
#pragma omp parallel num_threads(team_for(be, scores * a->heads * D))
    {
#pragma omp for schedule(static)
        for (int64_t job = 0; job < f->n_pages * a->kv_heads; job++) {
            const plumb_page *p = &f->pages[job / a->kv_heads];
            int64_t h = job % a->kv_heads;
            kv_page page = page_at(kv, layer, p->slot, h, bf16);
            put_page(&page, k, v, h * D, p->rows, D, bf16);
        }
        float *mine = memory + work * omp_get_thread_num();
        attend t = {.a = a, .q = q, .kv = kv, .layer = layer, .bf16 = bf16, .queries = mine};
        t.scores = t.queries + QUERIES * plumb_round_up(D, BLOCK), t.probabilities = t.scores + QUERIES * PLUMB_PAGE,
        t.o = t.probabilities + QUERIES * PLUMB_PAGE;
        turn now = {.f = f, .kv_heads = a->kv_heads, .group = group, .s = f->segments}, then;
        for (bool more = find_turn(&now, omp_get_thread_num()); more; now = then) {
            then = now, more = take_turn(&then, &next);
            attend_turn(&t, &now, more ? &then : NULL, o, lse);
        }
    }
}
#endif
