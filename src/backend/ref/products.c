/* Products of the `ref` back end. An operand is a dense copy of the activations; its packing is kept only to check that
 * it is used as it was packed. */
#include "ref.h"
#include <stdlib.h>

plumb_status plumb_ref_operand_create(plumb_backend *be, int64_t rows, int64_t cols, plumb_operand **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    int64_t room;
    if (rows < 0 || cols < 0 || __builtin_mul_overflow(rows, cols, &room) || room > INT64_MAX / (int64_t)sizeof(double))
        return plumb_error(PLUMB_E_MEMORY, "out of memory: an operand of %lld x %lld values", (long long)rows,
                           (long long)cols);
    plumb_operand *o;
    PLUMB_TRY(plumb_alloc(&o, 1, sizeof *o, "an operand"));
    o->room = room;
    o->data = plumb_guarded_alloc(be, (size_t)room * sizeof(double));
    if (!o->data) {
        free(o);
        return plumb_error_prefix(PLUMB_E_MEMORY, "an operand");
    }
    *out = o;
    return PLUMB_OK;
}

void plumb_ref_operand_free(plumb_backend *be, plumb_operand *o) {
    if (!o) return;
    plumb_guarded_free(be, o->data);
    free(o);
}

/* Sets the shape of a packing. */
static bool reshape(plumb_backend *be, plumb_operand *o, int64_t rows, int64_t cols, plumb_packing packing,
                    const char *operation) {
    if (!plumb_ref_check(be, rows >= 0 && cols >= 0 && (cols == 0 || rows <= o->room / cols), operation,
                         "the operand has no room for this shape"))
        return false;
    o->rows = rows;
    o->cols = cols;
    o->packing = packing;
    return true;
}

void plumb_ref_operand_pack(plumb_backend *be, plumb_operand *o, plumb_tensor x, plumb_packing packing,
                            plumb_tensor row_scale) {
    if (!plumb_ref_shaped(be, x, x.rows, x.cols, "operand_pack", "x")) return;
    if (!absent_or_shaped(be, row_scale, x.rows, 1, "operand_pack", "row_scale")) return;
    if (!reshape(be, o, x.rows, x.cols, packing, "operand_pack")) return;
    for (int64_t r = 0; r < x.rows; r++) {
        double scale = row_scale.buffer ? *row_of(row_scale, r) : 1;
        for (int64_t c = 0; c < x.cols; c++) o->data[r * x.cols + c] = scale * row_of(x, r)[c];
    }
}

/* Terms whose operands are [rows, n or k] packed this way; forward: the operand meets the columns of w, backward: its
 * rows. */
static bool check_terms(plumb_backend *be, const plumb_term *terms, int n_terms, plumb_packing packing, int64_t rows,
                        int64_t cols, const char *operation) {
    for (int t = 0; t < n_terms; t++) {
        const plumb_operand *x = terms[t].x;
        const plumb_weight *w = terms[t].w;
        bool forward = packing == PLUMB_BY_COLUMNS;
        if (!plumb_ref_check(be, x->packing == packing, operation, "an operand is packed the other way")) return false;
        if (!plumb_ref_check(be, x->rows == rows, operation, "an operand has another number of rows than the result"))
            return false;
        if (!plumb_ref_check(be, x->cols == (forward ? w->k : w->n), operation, "an operand does not fit its weight"))
            return false;
        if (!plumb_ref_check(be, cols == (forward ? w->n : w->k), operation, "a weight does not fit the result"))
            return false;
    }
    return true;
}

/* y[i][j] = bias[j] + sum_t sum_c x_t[i][c] w_t[j][c] */
static void forward_row(plumb_backend *be, const plumb_product *p, int64_t i) {
    for (int64_t j = 0; j < p->y.cols; j++) row_of(p->y, i)[j] = p->bias.buffer ? row_of(p->bias, 0)[j] : 0;
    for (int t = 0; t < p->n_terms; t++) {
        const plumb_weight *w = p->terms[t].w;
        const double *packed = p->terms[t].x->data + i * w->k, *x = plumb_ref_row_for(be, w, packed);
        for (int64_t j = 0; x && j < p->y.cols; j++)
            for (int64_t c = 0; c < w->k; c++) row_of(p->y, i)[j] += x[c] * w->data[j * w->k + c];
        if (x != packed) free((void *)x);
    }
}
void plumb_ref_linear_forward(plumb_backend *be, const plumb_product *products, int count) {
    if (!plumb_ref_check(be, count <= PLUMB_MAX_PRODUCTS, "linear_forward", "there are more products than a call may have")) return;
    for (const plumb_product *p = products; p < products + count; p++) {
        if (!plumb_ref_shaped(be, p->y, products->y.rows, p->y.cols, "linear_forward", "y")) return;
        if (!absent_or_shaped(be, p->bias, 1, p->y.cols, "linear_forward", "bias")) return;
        if (!check_terms(be, p->terms, p->n_terms, PLUMB_BY_COLUMNS, p->y.rows, p->y.cols, "linear_forward")) return;
        for (int64_t i = 0; i < p->y.rows; i++) forward_row(be, p, i);
    }
}

/* One row of the product backward: out[j] = sum_t sum_c dy_t[i][c] w_t[c][j] */
static void backward_row(double *out, int64_t k, int64_t i, const plumb_term *terms, int n_terms) {
    for (int64_t j = 0; j < k; j++) out[j] = 0;
    for (int t = 0; t < n_terms; t++) {
        const plumb_weight *w = terms[t].w;
        for (int64_t c = 0; c < w->n; c++) {
            double dy = terms[t].x->data[i * w->n + c];
            for (int64_t j = 0; j < k; j++) out[j] += dy * w->data[c * k + j];
        }
    }
}

void plumb_ref_linear_backward(plumb_backend *be, plumb_tensor dx, const plumb_term *terms, int n_terms) {
    if (!plumb_ref_shaped(be, dx, dx.rows, dx.cols, "linear_backward", "dx")) return;
    if (!check_terms(be, terms, n_terms, PLUMB_BY_ROWS, dx.rows, dx.cols, "linear_backward")) return;
    for (int64_t i = 0; i < dx.rows; i++) backward_row(row_of(dx, i), dx.cols, i, terms, n_terms);
}

void plumb_ref_linear_backward_packed(plumb_backend *be, plumb_operand *dx, const plumb_term *terms, int n_terms,
                                      plumb_tensor row_scale) {
    if (!plumb_ref_check(be, n_terms > 0, "linear_backward_packed", "there is no term")) return;
    int64_t rows = terms[0].x->rows, k = terms[0].w->k;
    if (!check_terms(be, terms, n_terms, PLUMB_BY_ROWS, rows, k, "linear_backward_packed")) return;
    if (!absent_or_shaped(be, row_scale, rows, 1, "linear_backward_packed", "row_scale")) return;
    for (int t = 0; t < n_terms; t++)
        if (!plumb_ref_check(be, terms[t].x != dx, "linear_backward_packed", "the result is also an operand")) return;
    if (!reshape(be, dx, rows, k, PLUMB_BY_ROWS, "linear_backward_packed")) return;
    for (int64_t i = 0; i < rows; i++) {
        backward_row(dx->data + i * k, k, i, terms, n_terms);
        if (row_scale.buffer)
            for (int64_t j = 0; j < k; j++) dx->data[i * k + j] *= *row_of(row_scale, i);
    }
}

/* dw[i][j] += sum_t dy[t][i] x[t][j] */
void plumb_ref_linear_gradient(plumb_backend *be, plumb_tensor dw, const plumb_operand *dy, const plumb_operand *x) {
    if (!plumb_ref_shaped(be, dw, dy->cols, x->cols, "linear_gradient", "dw")) return;
    if (!plumb_ref_check(be, dy->packing == PLUMB_BY_ROWS && x->packing == PLUMB_BY_COLUMNS, "linear_gradient",
                         "dy is packed by rows and x by columns"))
        return;
    if (!plumb_ref_check(be, dy->rows == x->rows, "linear_gradient", "dy and x have different numbers of rows")) return;
    for (int64_t i = 0; i < dw.rows; i++)
        for (int64_t j = 0; j < dw.cols; j++) {
            double sum = 0;
            for (int64_t t = 0; t < x->rows; t++) sum += dy->data[t * dy->cols + i] * x->data[t * x->cols + j];
            row_of(dw, i)[j] += sum;
        }
}

void plumb_ref_bias_gradient(plumb_backend *be, plumb_tensor dbias, plumb_tensor dy) {
    if (!plumb_ref_shaped(be, dy, dy.rows, dy.cols, "bias_gradient", "dy")) return;
    if (!plumb_ref_shaped(be, dbias, 1, dy.cols, "bias_gradient", "dbias")) return;
    for (int64_t c = 0; c < dy.cols; c++) {
        double sum = 0;
        for (int64_t r = 0; r < dy.rows; r++) sum += row_of(dy, r)[c];
        row_of(dbias, 0)[c] += sum;
    }
}
