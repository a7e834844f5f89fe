/* Linear layers with adapters; forward above backward.  See nn.h for the formula.
 *
 * Adapters are further terms of the same product, so that they cost their arithmetic and no further pass over y or dx. The small product
 * A x is kept for the gradient of B; x itself is packed again in backward, which is cheaper than keeping it. */
#include "plumb/nn.h"

static bool active(const plumb_linear_work *w, const plumb_linear *l, int adapter) { return l->lora[adapter].a && w->used[adapter]; }
static bool trains(const plumb_lora *a) { return a->da.buffer != NULL; }

void plumb_linear_forward(plumb_backend *be, plumb_linear_work *w, plumb_linear *const *linears, int count, plumb_tensor x,
                          const plumb_tensor *y, const plumb_batch *b) {
    plumb_tensor none = {0};
    plumb_term down[PLUMB_MAX_GROUP][PLUMB_MAX_ADAPTERS], terms[PLUMB_MAX_GROUP][1 + PLUMB_MAX_ADAPTERS];
    plumb_product small[PLUMB_MAX_GROUP * PLUMB_MAX_ADAPTERS], products[PLUMB_MAX_GROUP];
    int n_small = 0;
    PLUMB_RUN(be, operand_pack, w->x, x, PLUMB_BY_COLUMNS, none);
    for (int i = 0; i < count; i++) { /* xa = x A^T */
        const plumb_operand *input = w->x;
        for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
            if (!active(w, linears[i], j)) continue;
            if (w->dropout > 0 && input == w->x) {
                plumb_tensor dropped = plumb_tensor_of(w->dropped.buffer, w->dropped.offset, x.rows, x.cols);
                PLUMB_RUN(be, dropout, dropped, x, w->dropout, w->seed, w->step, linears[i]->site, false, b);
                PLUMB_RUN(be, operand_pack, w->xd[i], dropped, PLUMB_BY_COLUMNS, none);
                input = w->xd[i];
            }
            down[i][j] = (plumb_term){input, linears[i]->lora[j].a};
            small[n_small++] = (plumb_product){plumb_tensor_rows(linears[i]->lora[j].xa, 0, x.rows), &down[i][j], 1, none};
        }
    }
    if (n_small) PLUMB_RUN(be, linear_forward, small, n_small);
    for (int i = 0; i < count; i++) { /* y = x W^T + (s xa) B^T */
        const plumb_linear *l = linears[i];
        int n = 0;
        terms[i][n++] = (plumb_term){w->x, l->w};
        for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
            if (!active(w, l, j)) continue;
            PLUMB_RUN(be, operand_pack, w->xa[i][j], plumb_tensor_rows(l->lora[j].xa, 0, x.rows), PLUMB_BY_COLUMNS, w->row_scale[j]);
            terms[i][n++] = (plumb_term){w->xa[i][j], l->lora[j].b};
        }
        products[i] = (plumb_product){y[i], terms[i], n, l->bias};
    }
    PLUMB_RUN(be, linear_forward, products, count);
}
_Static_assert(PLUMB_MAX_GROUP * PLUMB_MAX_ADAPTERS <= PLUMB_MAX_PRODUCTS, "a group's adapters are one call");

/* dB = dy^T (s A x), dA = (s B^T dy)^T x; leaves s B^T dy packed for dx. */
static void lora_backward(plumb_backend *be, plumb_linear_work *w, plumb_linear *l, int i, int j, plumb_tensor x, const plumb_batch *b) {
    plumb_tensor none = {0};
    plumb_lora *a = &l->lora[j];
    PLUMB_RUN(be, linear_backward_packed, w->dxa[i][j], &(plumb_term){w->dy[i], a->b}, 1, w->row_scale[j]);
    if (!trains(a)) return;
    PLUMB_RUN(be, operand_pack, w->xa[i][j], plumb_tensor_rows(a->xa, 0, x.rows), PLUMB_BY_COLUMNS, w->row_scale[j]);
    PLUMB_RUN(be, linear_gradient, a->db, w->dy[i], w->xa[i][j]);
    plumb_operand *input = w->x;
    if (w->dropout > 0) {
        plumb_tensor dropped = plumb_tensor_of(w->dropped.buffer, w->dropped.offset, x.rows, x.cols);
        PLUMB_RUN(be, dropout, dropped, x, w->dropout, w->seed, w->step, l->site, false, b);
        PLUMB_RUN(be, operand_pack, w->xd[i], dropped, PLUMB_BY_COLUMNS, none);
        input = w->xd[i];
    }
    PLUMB_RUN(be, linear_gradient, a->da, w->dxa[i][j], input);
}

void plumb_linear_backward(plumb_backend *be, plumb_linear_work *w, plumb_linear *const *linears, int count, plumb_tensor dx,
                           const plumb_tensor *dy, plumb_tensor x, const plumb_batch *b) {
    plumb_tensor none = {0};
    plumb_term terms[PLUMB_MAX_GROUP * (1 + PLUMB_MAX_ADAPTERS)];
    int n_terms = 0;
    PLUMB_RUN(be, operand_pack, w->x, x, PLUMB_BY_COLUMNS, none);
    for (int i = 0; i < count; i++) {
        plumb_linear *l = linears[i];
        PLUMB_RUN(be, operand_pack, w->dy[i], dy[i], PLUMB_BY_ROWS, none);
        if (l->dw.buffer) PLUMB_RUN(be, linear_gradient, l->dw, w->dy[i], w->x);
        if (l->dbias.buffer) PLUMB_RUN(be, bias_gradient, l->dbias, dy[i]);
        terms[n_terms++] = (plumb_term){w->dy[i], l->w};
        for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
            if (!active(w, l, j)) continue;
            lora_backward(be, w, l, i, j, x, b);
            if (w->dropout == 0) terms[n_terms++] = (plumb_term){w->dxa[i][j], l->lora[j].a};
        }
    }
    if (!dx.buffer) return;
    PLUMB_RUN(be, linear_backward, dx, terms, n_terms);
    if (w->dropout == 0) return;
    for (int i = 0; i < count; i++) /* each linear drops its own entries, so its term goes through its own mask */
        for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
            if (!active(w, linears[i], j)) continue;
            plumb_tensor part = plumb_tensor_of(w->dropped.buffer, w->dropped.offset, x.rows, x.cols);
            PLUMB_RUN(be, linear_backward, part, &(plumb_term){w->dxa[i][j], linears[i]->lora[j].a}, 1);
            PLUMB_RUN(be, dropout, dx, part, w->dropout, w->seed, w->step, linears[i]->site, true, b);
        }
}
