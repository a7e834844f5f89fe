/* The forward product y = sum_t x_t w_t^T + bias.  Few rows (decoding) go through few.h; more of them serve a group of panels chunk by
 * chunk, a slice of rows after the other: the rows of x stay in the L2 cache while the weight streams by, fetched one place ahead. The
 * bits are the same. A quantised weight takes its place in either walk as one chunk. */
#ifndef PLUMB_FORWARD_H
#define PLUMB_FORWARD_H
#include "quantized_forward.h"
#include "weights.h"

/* Panels [q, q+count) of a matrix read as vectors, elements [r0, r0+n) of the reduction, `*apart` floats
 * between panels; bf16 goes through `pairs`. */
INLINE const float *vectors_at(side s, int64_t q, int64_t count, int64_t r0, int64_t n, bool bf16, uint32_t *pairs, int64_t *apart) {
    *apart = bf16 ? words(n, true) * BLOCK : s.p * BLOCK;
    if (!bf16) return side_at(s, q, r0);
    for (int64_t p = 0; p < count; p++) interleave_panel(pairs + p * *apart, (const uint16_t *)side_at(s, q + p * BLOCK, r0), n);
    return (const float *)pairs;
}

/* --- y = sum_t x_t w_t^T + bias --------------------------------------------------------------- */
/* Sums grow in a small dense block [panel][M][32] that stays in L2, not in y, whose rows lie a page apart: that was half of the time. */
enum { GROUP_FLOATS = 1 << 16, GROUP_PANELS = 9, SLICE_ROWS = 640 }; /* panels in threes make whole strips of 48 lanes */
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
static void forward_chunk(plumb_backend *be, float *sums, share rows, const plumb_term *term, const walk *p, uint32_t *pairs, ahead next) {
    bool bf16 = is_bf16(be);
    side x = operand_side(be, term->x), w = weight_side(be, term->w);
    /* the sums' lanes are padded */
    int64_t M = rows.last - rows.first, apart, lanes = plumb_round_up(plumb_min64(p->count * BLOCK, term->w->n - p->first * BLOCK), HALF);
    const float *b = vectors_at(w, p->first * BLOCK, p->count, p->r0, p->n, bf16, pairs, &apart);
    strip_run(&(strip){.a = side_at(x, p->r0, rows.first), .a_block = x.p * (bf16 ? 16 : 32), .b = b, .b_panel = apart, .c = sums,
                       .ldc = BLOCK, .c_panel = M * BLOCK, .rows = M, .lanes = lanes, .reduction = words(p->n, bf16),
                       .add = p->term > 0 || p->r0 > 0, .bf16 = bf16, .next = next});
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
    const row_blocks_list *blocks;
    float *sums;   /* with many rows: of all threads */
    uint32_t *pairs;
    int64_t group;
} forward_job;
static void quantized_panels(const forward_job *f, int t, float *sums, share rows, int64_t first, int64_t count) {
    const plumb_term *term = &f->terms[t];
    quantized_term(f->be, &(quant_job){.term = term, .rows = row_blocks_for(f->blocks, term), .sums = sums, .m0 = rows.first,
                                       .M = rows.last - rows.first, .first = first, .count = count, .add = t > 0});
}

/* A thread's panels with many rows: groups of panels, terms, chunks. */
static void forward_slice(const forward_job *f, share panels, share rows) {
    bool bf16 = is_bf16(f->be), more = panels.first < panels.last;
    int64_t me = omp_get_thread_num();
    float *sums = f->sums + me * f->group * plumb_min64(f->y.rows, SLICE_ROWS) * BLOCK;
    uint32_t *pairs = f->pairs + me * GROUP_PANELS * CHUNK_BF16 / 2 * BLOCK;
    walk p = walk_at(f->terms, bf16, panels, f->group, panels.first, 0, 0);
    while (more) {
        walk now = p;
        const plumb_term *term = &f->terms[now.term];
        more = walk_next(&p, f->terms, f->n_terms, bf16, panels, f->group);
        ahead next = more ? weight_ahead(f->be, f->terms, &p) : (ahead){0};
        if (is_quantized(term->w)) quantized_panels(f, now.term, sums, rows, now.first, now.count);
        else forward_chunk(f->be, sums, rows, term, &now, pairs, next);
        if (!more || p.first != now.first)
            finish_group(plumb_tensor_rows(f->y, rows.first, rows.last - rows.first), sums, f->bias, now.first, now.count);
    }
}
static void forward_many(const forward_job *f, share panels) {
    int64_t M = f->y.rows, slices = (M + SLICE_ROWS - 1) / SLICE_ROWS;
    for (int64_t i = 0; i < slices; i++) forward_slice(f, panels, (share){tile_begin(M, slices, i), tile_begin(M, slices, i + 1)});
}
/* And with few: panel after panel. */
static void forward_few(const forward_job *f, share panels) {
    float sums[FEW_ROWS * BLOCK] __attribute__((aligned(64)));
    for (int64_t p = panels.first; p < panels.last; p++) {
        for (int t = 0; t < f->n_terms; t++)
            if (is_quantized(f->terms[t].w)) quantized_panels(f, t, sums, (share){0, f->y.rows}, p, 1);
            else few_term(f->be, sums, f->y.rows, &f->terms[t], p, t > 0);
        finish_group(f->y, sums, f->bias, p, 1);
    }
}
/* The threads share the panels of each product, and meet when all are done. */
static void op_linear_forward(plumb_backend *be, const plumb_product *products, int count) {
    int64_t M = products->y.rows, work = 0, most = plumb_min64(M, SLICE_ROWS), group = M ? panels_in_group(most) : 1;
    bool little = few_rows(M, is_bf16(be));
    forward_job jobs[PLUMB_MAX_PRODUCTS];
    row_blocks_list blocks; /* most calls need none */
    if (!M) return;
    if (count > PLUMB_MAX_PRODUCTS) {
        plumb_backend_set_fault(be, PLUMB_E_DEVICE, "%d products in one call; at most %d", count, PLUMB_MAX_PRODUCTS);
        return;
    }
    for (int i = 0; i < count; i++) {
        const plumb_product *p = &products[i];
        jobs[i] = (forward_job){.be = be, .y = p->y, .terms = p->terms, .n_terms = p->n_terms, .panels = (p->y.cols + BLOCK - 1) / BLOCK,
                                .group = group, .bias = p->bias.buffer ? plumb_cpu_at(p->bias, 0) : NULL};
        for (int t = 0; t < p->n_terms; t++) work += p->terms[t].w->k * p->y.cols * ((M + 3) / 4);
    }
    int threads = team_for(be, work);
    float *sums = NULL;
    uint32_t *pairs = NULL;
    if (!little) {
        pairs = plumb_cpu_scratch(be, SCRATCH_PANELS, (size_t)threads * GROUP_PANELS * CHUNK_BF16 / 2 * BLOCK * sizeof(uint32_t));
        sums = plumb_cpu_scratch(be, SCRATCH_RESULT, (size_t)(group * most * BLOCK * threads) * sizeof(float));
    }
    if ((!little && (!pairs || !sums)) || !list_row_blocks(be, &blocks, products, count)) return;
    for (int i = 0; i < count; i++) jobs[i].blocks = &blocks, jobs[i].sums = sums, jobs[i].pairs = pairs;
    bool alone = blocks.total < 128; /* cheaper than a meeting of threads */
    if (alone) find_row_blocks(be, &blocks);
#pragma omp parallel num_threads(threads)
    {
        if (!alone) {
            find_row_blocks(be, &blocks);
#pragma omp barrier
        }
        for (int i = 0; i < count; i++)
            if (little) forward_few(&jobs[i], share_in_turn(jobs[i].panels, i));
            else forward_many(&jobs[i], share_in_turn(jobs[i].panels, i));
    }
}
#endif
