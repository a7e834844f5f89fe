/* Attention of the `ref` back end. The forward pass reads keys and values through the pages, as the contract says; the
 * backward pass walks the segments instead of the pages, so that a mistake in the layout of pages shows as a
 * disagreement between the two (and with finite differences). */
#include "ref.h"
#include <math.h>
#include <stdlib.h>

static double *place_in(double *store, const plumb_kv *kv, int64_t layer, int64_t slot, int64_t place) {
    return store + ((layer * kv->slots + slot) * PLUMB_PAGE + place) * kv->width;
}

static bool check_attention(plumb_backend *be, const plumb_attention *a, plumb_tensor k, plumb_tensor v,
                            const plumb_kv *kv, int64_t layer, const plumb_batch *b, const char *name) {
    int64_t T = b->n_tokens, width = a->kv_heads * a->head_dim;
    return plumb_ref_check(be, a->kv_heads > 0 && a->heads % a->kv_heads == 0, name,
                           "heads is not a multiple of kv_heads") &&
           plumb_ref_shaped(be, k, T, width, name, "k") && plumb_ref_shaped(be, v, T, width, name, "v") &&
           plumb_ref_check(be, kv->width == width, name, "the pages were made for other heads") &&
           plumb_ref_check(be, layer >= 0 && layer < kv->layers, name, "there are no pages for this layer") &&
           plumb_ref_check(be, b->n_slots <= kv->slots, name, "the batch uses more slots than the pages have");
}

static void write_pages(plumb_tensor k, plumb_tensor v, plumb_kv *kv, int64_t layer, const plumb_batch *b) {
    for (int32_t p = 0; p < b->n_pages; p++)
        for (int64_t place = 0; place < PLUMB_PAGE; place++) {
            int32_t row = b->pages[p].rows[place];
            for (int64_t c = 0; row >= 0 && c < kv->width; c++) {
                place_in(kv->keys, kv, layer, b->pages[p].slot, place)[c] = row_of(k, row)[c];
                place_in(kv->values, kv, layer, b->pages[p].slot, place)[c] = row_of(v, row)[c];
            }
        }
}

static double dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* o = sum_j p_j v_j, p = softmax(scale q k_j), over positions 0..position of the path. scores: room for position+1.
 * Returns log-sum-exp. */
static double attend(double *o, const double *q, double *scores, const plumb_attention *a, const plumb_kv *kv,
                     int64_t layer, int64_t kv_head, const int32_t *path, int64_t position) {
    int64_t D = a->head_dim;
    double highest = -INFINITY, sum = 0;
    for (int64_t j = 0; j <= position; j++) {
        const double *key = place_in(kv->keys, kv, layer, path[j / PLUMB_PAGE], j % PLUMB_PAGE) + kv_head * D;
        scores[j] = a->scale * dot(q, key, D);
        highest = fmax(highest, scores[j]);
    }
    for (int64_t j = 0; j <= position; j++) sum += exp(scores[j] - highest);
    for (int64_t d = 0; d < D; d++) o[d] = 0;
    for (int64_t j = 0; j <= position; j++) {
        const double *value = place_in(kv->values, kv, layer, path[j / PLUMB_PAGE], j % PLUMB_PAGE) + kv_head * D;
        double p = exp(scores[j] - highest) / sum;
        for (int64_t d = 0; d < D; d++) o[d] += p * value[d];
    }
    return highest + log(sum);
}

void plumb_ref_attention_forward(plumb_backend *be, const plumb_attention *a, plumb_tensor o, plumb_tensor lse,
                                 plumb_tensor q, plumb_tensor k, plumb_tensor v, plumb_kv *kv, int64_t layer,
                                 const plumb_batch *b) {
    const char *name = "attention_forward";
    int64_t T = b->n_tokens, D = a->head_dim, longest = 0;
    if (!check_attention(be, a, k, v, kv, layer, b, name)) return;
    if (!plumb_ref_shaped(be, q, T, a->heads * D, name, "q") || !plumb_ref_shaped(be, o, T, a->heads * D, name, "o"))
        return;
    if (!absent_or_shaped(be, lse, T, a->heads, name, "lse")) return;
    for (int64_t i = 0; i < T; i++) longest = plumb_max64(longest, b->positions[i] + 1);
    double *scores, *out;
    if (plumb_alloc(&scores, (size_t)(longest + D), sizeof *scores, "attention scores") != PLUMB_OK) {
        plumb_backend_set_fault(be, PLUMB_E_MEMORY, "%s", plumb_error_message());
        return;
    }
    out = scores + longest; /* o may be q */
    write_pages(k, v, kv, layer, b);
    for (int64_t i = 0; i < T; i++) {
        const int32_t *path = b->paths + b->segments[b->row_segment[i]].first_page;
        for (int64_t h = 0; h < a->heads; h++) {
            double l = attend(out, row_of(q, i) + h * D, scores, a, kv, layer, h / (a->heads / a->kv_heads), path,
                              b->positions[i]);
            for (int64_t d = 0; d < D; d++) row_of(o, i)[h * D + d] = out[d];
            if (lse.buffer) row_of(lse, i)[h] = l;
        }
    }
    free(scores);
}

/* The rows at positions 0..position of the path of row i, by walking up the segments. */
static void rows_of_path(int64_t *rows, const plumb_batch *b, int64_t i) {
    int64_t position = b->positions[i];
    for (int32_t s = b->row_segment[i]; s >= 0; s = b->segments[s].parent)
        for (; position >= b->segments[s].start; position--)
            rows[position] = b->segments[s].begin + position - b->segments[s].start;
}

/* One query: p = exp(s - lse); dv_j += p do; ds = p (do . v_j - do . o); dq += scale ds k_j; dk_j += scale ds q */
typedef struct gradients {
    plumb_tensor dq, dk, dv, d_o, o, lse, q, k, v;
} gradients;
static void attend_backward(const gradients *t, const plumb_attention *a, const int64_t *rows, int64_t position,
                            int64_t i, int64_t h) {
    int64_t D = a->head_dim, g = h / (a->heads / a->kv_heads) * D; /* columns of the key head that h reads */
    const double *qi = row_of(t->q, i) + h * D, *doi = row_of(t->d_o, i) + h * D;
    double delta = dot(doi, row_of(t->o, i) + h * D, D), *dqi = row_of(t->dq, i) + h * D;
    for (int64_t j = 0; j <= position; j++) {
        const double *kj = row_of(t->k, rows[j]) + g, *vj = row_of(t->v, rows[j]) + g;
        double p = exp(a->scale * dot(qi, kj, D) - row_of(t->lse, i)[h]), ds = p * (dot(doi, vj, D) - delta);
        double *dkj = row_of(t->dk, rows[j]) + g, *dvj = row_of(t->dv, rows[j]) + g;
        for (int64_t d = 0; d < D; d++) {
            dvj[d] += p * doi[d];
            dqi[d] += a->scale * ds * kj[d];
            dkj[d] += a->scale * ds * qi[d];
        }
    }
}

void plumb_ref_attention_backward(plumb_backend *be, const plumb_attention *a, plumb_tensor dq, plumb_tensor dk,
                                  plumb_tensor dv, plumb_tensor d_o, plumb_tensor o, plumb_tensor lse, plumb_tensor q,
                                  plumb_tensor k, plumb_tensor v, plumb_kv *kv, const plumb_batch *b) {
    const char *name = "attention_backward";
    int64_t T = b->n_tokens, wide = a->heads * a->head_dim, width = a->kv_heads * a->head_dim, *rows;
    if (!check_attention(be, a, k, v, kv, 0, b, name) || !plumb_ref_shaped(be, dk, T, width, name, "dk")) return;
    if (!plumb_ref_shaped(be, dv, T, width, name, "dv") || !plumb_ref_shaped(be, dq, T, wide, name, "dq")) return;
    if (!plumb_ref_shaped(be, d_o, T, wide, name, "d_o") || !plumb_ref_shaped(be, o, T, wide, name, "o")) return;
    if (!plumb_ref_shaped(be, q, T, wide, name, "q") || !plumb_ref_shaped(be, lse, T, a->heads, name, "lse")) return;
    if (!plumb_ref_check(be, b->complete, name, "a path begins in the store: there is no gradient for its keys"))
        return;
    if (plumb_alloc(&rows, (size_t)T, sizeof *rows, "the rows of a path") !=
        PLUMB_OK) { /* a path is no longer than the batch */
        plumb_backend_set_fault(be, PLUMB_E_MEMORY, "%s", plumb_error_message());
        return;
    }
    write_pages(k, v, kv, 0, b);
    plumb_ref_zero(be, dq);
    plumb_ref_zero(be, dk);
    plumb_ref_zero(be, dv);
    for (int64_t i = 0; i < T; i++) {
        rows_of_path(rows, b, i);
        for (int64_t h = 0; h < a->heads; h++)
            attend_backward(&(gradients){dq, dk, dv, d_o, o, lse, q, k, v}, a, rows, b->positions[i], i, h);
    }
    free(rows);
}
