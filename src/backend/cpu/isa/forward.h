/* The forward product y = sum_t x_t w_t^T + bias.  Few rows (decoding) go through few.h; more of them serve a group of panels chunk by chunk: the rows of x
 * stay in the L2 cache while the weight streams by, fetched one place ahead. The bits are the same. A quantised weight takes its place in either walk as one chunk. */
#ifndef PLUMB_FORWARD_H
#define PLUMB_FORWARD_H
#include "weights.h"

/* Panels [q, q+count) of a matrix read as vectors, elements [r0, r0+n) of the reduction, `*apart` floats between panels; bf16 goes through `pairs`. */
INLINE const float *vectors_at(side s, int64_t q, int64_t count, int64_t r0, int64_t n, bool bf16, uint32_t *pairs, int64_t *apart) {
    *apart = bf16 ? words(n, true) * BLOCK : s.p * BLOCK;
    if (!bf16) return side_at(s, q, r0);
    for (int64_t p = 0; p < count; p++) interleave_panel(pairs + p * *apart, (const uint16_t *)side_at(s, q + p * BLOCK, r0), n);
    return (const float *)pairs;
}

/* --- y = sum_t x_t w_t^T + bias -------------------------------------------------------------------------------------------------- */
/* Sums grow in a small dense block [panel][M][32] that stays in L2, not in y, whose rows lie a page apart: that was half of the time. */
enum { GROUP_FLOATS = 1 << 16, GROUP_PANELS = 9 }; /* panels in threes make whole strips of 48 lanes */
INLINE int64_t panels_in_group(int64_t M) { return plumb_max64(1, plumb_min64(GROUP_PANELS, GROUP_FLOATS / (M * BLOCK))); }

/* Where a thread stands in its walk over groups of panels, terms and chunks. */
typedef struct walk { int64_t first, count; int term; int64_t r0, n; } walk;
static walk walk_at(const plumb_term *terms, bool bf16, share panels, int64_t group, int64_t first, int term, int64_t r0) {
    int64_t k = terms[term].w->k, chunk = is_quantized(terms[term].w) ? k : chunk_of(k, bf16);
    return (walk){first, plumb_min64(group, panels.last - first), term, r0, plumb_min64(chunk, k - r0)};
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
    const plumb_weight *quantized = is_quantized(terms[p->term].w) ? terms[p->term].w : NULL;
    if (quantized) return (ahead){block_at(quantized, p->first, 0), p->count, panel_bytes(quantized) / 64, panel_bytes(quantized)};
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
typedef struct forward_job { /* a forward product, as its threads see it */
    plumb_backend *be;
    plumb_tensor y;
    const plumb_term *terms;
    int n_terms;
    int64_t panels;
    const float *bias;
    float *x_sums; /* of 4-bit terms one after the other, see quantized.h */
    float *sums;   /* with many rows: of all threads */
    uint32_t *pairs;
    int64_t group;
} forward_job;
INLINE int64_t x_sums_of(const plumb_term *t) { return t->w->storage == PLUMB_STORE_INT4 ? t->x->rows * blocks_of(t->w->k) : 0; }

/* A thread's panels with many rows: groups of panels, terms, chunks. */
static void forward_many(const forward_job *f, share panels) {
    bool bf16 = is_bf16(f->be), more = panels.first < panels.last;
    int64_t me = omp_get_thread_num(), M = f->y.rows;
    float *sums = f->sums + me * f->group * M * BLOCK;
    uint32_t *pairs = f->pairs + me * GROUP_PANELS * CHUNK_BF16 / 2 * BLOCK;
    const float *x_sums = f->x_sums;
    walk p = walk_at(f->terms, bf16, panels, f->group, panels.first, 0, 0);
    while (more) {
        walk now = p;
        const plumb_term *term = &f->terms[now.term];
        more = walk_next(&p, f->terms, f->n_terms, bf16, panels, f->group);
        ahead next = more ? weight_ahead(f->be, f->terms, &p) : (ahead){0};
        if (now.term == 0) x_sums = f->x_sums;
        if (is_quantized(term->w)) quantized_term(f->be, term, x_sums, sums, M, now.first, now.count, now.term > 0);
        else forward_chunk(f->be, sums, M, term, &now, pairs, next);
        if (p.term != now.term) x_sums += x_sums_of(term);
        if (!more || p.first != now.first) finish_group(f->y, sums, f->bias, now.first, now.count);
    }
}
/* And with few: panel after panel. */
static void forward_few(const forward_job *f, share panels) {
    float sums[FEW_ROWS * BLOCK] __attribute__((aligned(64)));
    for (int64_t p = panels.first; p < panels.last; p++) {
        const float *x_sums = f->x_sums;
        for (int t = 0; t < f->n_terms; x_sums += x_sums_of(&f->terms[t]), t++)
            if (is_quantized(f->terms[t].w)) quantized_term(f->be, &f->terms[t], x_sums, sums, f->y.rows, p, 1, t > 0);
            else few_term(f->be, sums, f->y.rows, &f->terms[t], p, t > 0);
        finish_group(f->y, sums, f->bias, p, 1);
    }
}
/* Sums over blocks of x, for all 4-bit terms; the threads of a team share the blocks and must meet before they are used. */
static void sum_all_blocks(const forward_job *f) {
    float *to = f->x_sums;
    for (int t = 0; t < f->n_terms; to += x_sums_of(&f->terms[t]), t++) {
        share blocks = my_share(x_sums_of(&f->terms[t]) ? blocks_of(f->terms[t].w->k) : 0);
        sum_blocks(to, f->terms[t].x, is_bf16(f->be), blocks.first, blocks.last);
    }
}
INLINE int64_t sums_of_product(const plumb_product *p) {
    int64_t n = 0;
    for (int t = 0; t < p->n_terms; t++) n += x_sums_of(&p->terms[t]);
    return n;
}
/* The threads share the panels of each product, and meet when all are done. */
static void op_linear_forward(plumb_backend *be, const plumb_product *products, int count) {
    int64_t M = products->y.rows, work = 0, n_sums = 0, group = M ? panels_in_group(M) : 1;
    bool little = few_rows(M, is_bf16(be));
    forward_job jobs[PLUMB_MAX_PRODUCTS];
    if (!M) return;
    if (count > PLUMB_MAX_PRODUCTS) {
        plumb_backend_set_fault(be, PLUMB_E_DEVICE, "%d products in one call; at most %d", count, PLUMB_MAX_PRODUCTS);
        return;
    }
    for (int i = 0; i < count; i++) {
        const plumb_product *p = &products[i];
        jobs[i] = (forward_job){.be = be, .y = p->y, .terms = p->terms, .n_terms = p->n_terms, .panels = (p->y.cols + BLOCK - 1) / BLOCK, .group = group,
                                .bias = p->bias.buffer ? plumb_cpu_at(p->bias, 0) : NULL};
        for (int t = 0; t < p->n_terms; t++) work += p->terms[t].w->k * p->y.cols * ((M + 3) / 4);
        n_sums += sums_of_product(p);
    }
    int threads = team_for(be, work);
    float *x_sums = n_sums ? plumb_cpu_scratch(be, SCRATCH_SUMS, (size_t)n_sums * sizeof(float)) : NULL, *sums = NULL;
    uint32_t *pairs = NULL;
    if (!little) {
        pairs = plumb_cpu_scratch(be, SCRATCH_PANELS, (size_t)threads * GROUP_PANELS * CHUNK_BF16 / 2 * BLOCK * sizeof(uint32_t));
        sums = plumb_cpu_scratch(be, SCRATCH_RESULT, (size_t)(group * M * BLOCK * threads) * sizeof(float));
    }
    if ((!little && (!pairs || !sums)) || (n_sums && !x_sums)) return;
    for (int64_t i = 0, at = 0; i < count; at += sums_of_product(&products[i]), i++) jobs[i].x_sums = n_sums ? x_sums + at : NULL, jobs[i].sums = sums, jobs[i].pairs = pairs;
    bool alone = n_sums < 1024; /* cheaper than a meeting of threads */
    for (int i = 0; i < count && n_sums && alone; i++) sum_all_blocks(&jobs[i]);
#pragma omp parallel num_threads(threads)
    {
        for (int i = 0; i < count && !alone; i++) sum_all_blocks(&jobs[i]);
        if (!alone) {
#pragma omp barrier
        }
        for (int i = 0; i < count; i++)
            if (little) forward_few(&jobs[i], share_in_turn(jobs[i].panels, i));
            else forward_many(&jobs[i], share_in_turn(jobs[i].panels, i));
    }
}
#endif
