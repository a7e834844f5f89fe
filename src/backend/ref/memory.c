/* Buffers, weights and key/value pages of the `ref` back end: plain arrays of doubles. */
#include "ref.h"
#include "../quantize.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Guarded room for a*b*c*d doubles, zeroed; a message with `what` on failure. */
static plumb_status allocate(plumb_backend *be, double **out, int64_t a, int64_t b, int64_t c, int64_t d,
                             const char *what) {
    int64_t count;
    *out = NULL;
    if (a < 0 || b < 0 || c < 0 || d < 0 || __builtin_mul_overflow(a, b, &count) ||
        __builtin_mul_overflow(count, c, &count) || __builtin_mul_overflow(count, d, &count) ||
        count > INT64_MAX / (int64_t)sizeof(double))
        return plumb_error(PLUMB_E_MEMORY, "out of memory: %lld x %lld x %lld x %lld values for %s", (long long)a,
                           (long long)b, (long long)c, (long long)d, what);
    *out = plumb_guarded_alloc(be, (size_t)count * sizeof(double));
    return *out ? PLUMB_OK : plumb_error_prefix(PLUMB_E_MEMORY, "%s", what);
}

plumb_status plumb_ref_buffer_create(plumb_backend *be, int64_t count, const char *what, plumb_buffer **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    plumb_buffer *b;
    PLUMB_TRY(plumb_alloc(&b, 1, sizeof *b, what));
    b->count = count;
    plumb_status status = allocate(be, &b->data, count, 1, 1, 1, what);
    if (status == PLUMB_OK)
        *out = b;
    else
        free(b);
    return status;
}

void plumb_ref_buffer_free(plumb_backend *be, plumb_buffer *b) {
    if (!b) return;
    plumb_guarded_free(be, b->data);
    free(b);
}

void plumb_ref_write(plumb_backend *be, plumb_tensor to, const float *from) {
    if (!plumb_ref_shaped(be, to, to.rows, to.cols, "write", "to")) return;
    for (int64_t r = 0; r < to.rows; r++)
        for (int64_t c = 0; c < to.cols; c++) row_of(to, r)[c] = from[r * to.cols + c];
}

void plumb_ref_read(plumb_backend *be, plumb_tensor from, float *to) {
    if (!plumb_ref_shaped(be, from, from.rows, from.cols, "read", "from")) return;
    for (int64_t r = 0; r < from.rows; r++)
        for (int64_t c = 0; c < from.cols; c++) to[r * from.cols + c] = (float)row_of(from, r)[c];
}

void plumb_ref_read_f64(plumb_backend *be, plumb_tensor from, double *to) {
    if (!plumb_ref_shaped(be, from, from.rows, from.cols, "read_f64", "from")) return;
    for (int64_t r = 0; r < from.rows; r++)
        for (int64_t c = 0; c < from.cols; c++) to[r * from.cols + c] = row_of(from, r)[c];
}

void plumb_ref_zero(plumb_backend *be, plumb_tensor t) {
    if (!plumb_ref_shaped(be, t, t.rows, t.cols, "zero", "t")) return;
    for (int64_t r = 0; r < t.rows; r++)
        for (int64_t c = 0; c < t.cols; c++) row_of(t, r)[c] = 0;
}

size_t plumb_ref_weight_bytes(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage) {
    (void)be, (void)storage; /* doubles, whatever they were rounded to */
    return (size_t)n * (size_t)k * sizeof(double);
}

plumb_status plumb_ref_weight_create(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage, void *memory,
                                     plumb_weight **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    plumb_weight *w;
    PLUMB_TRY(plumb_alloc(&w, 1, sizeof *w, "a weight"));
    *w = (plumb_weight){.data = memory, .n = n, .k = k, .storage = storage, .own = !memory};
    plumb_status status = memory ? PLUMB_OK : allocate(be, &w->data, n, k, 1, 1, "a weight");
    if (status == PLUMB_OK)
        *out = w;
    else
        free(w);
    return status;
}

void plumb_ref_weight_free(plumb_backend *be, plumb_weight *w) {
    if (!w) return;
    if (w->own) plumb_guarded_free(be, w->data);
    free(w);
}

static bool check_range(plumb_backend *be, const plumb_weight *w, int64_t first, int64_t rows, const char *operation) {
    return plumb_ref_check(be, first >= 0 && rows >= 0 && first <= w->n && rows <= w->n - first && first % 32 == 0,
                           operation, "the rows are outside the weight or do not begin at a multiple of 32");
}

/* Up to 32 values of row r from column k0, as the weight's storage rounds them: quantised and dequantised again. */
static void store_part(plumb_weight *w, int64_t r, int64_t k0, int64_t n, const float *from) {
    double *to = w->data + r * w->k + k0;
    plumb_qblock block = {0};
    if (plumb_stores_8_bits(w->storage)) plumb_quantize_8(from, n, &block);
    if (plumb_stores_4_bits(w->storage)) plumb_quantize_4(from, n, &block);
    for (int i = 0; i < n; i++) to[i] = w->storage == PLUMB_STORE_NATIVE ? from[i] : plumb_dequantized(&block, i);
}

const double *plumb_ref_row_for(plumb_backend *be, const plumb_weight *w, const double *x) {
    double *row;
    if (!plumb_rounds_rows(w->storage)) return x;
    if (plumb_alloc(&row, (size_t)w->k, sizeof *row, "a row in 8 bits") != PLUMB_OK) {
        plumb_backend_set_fault(be, PLUMB_E_MEMORY, "%s", plumb_error_message());
        return NULL;
    }
    for (int64_t k0 = 0; k0 < w->k; k0 += PLUMB_QBLOCK) {
        int64_t n = plumb_min64(PLUMB_QBLOCK, w->k - k0);
        float part[PLUMB_QBLOCK];
        plumb_qblock block;
        bool finite = true;
        for (int64_t c = 0; c < n; c++) part[c] = (float)x[k0 + c], finite &= isfinite(part[c]) != 0;
        plumb_quantize_8(part, n, &block);
        for (int64_t c = 0; c < n; c++) row[k0 + c] = finite ? (double)block.scale * block.q[c] : NAN;
    }
    return row;
}

void plumb_ref_weight_write(plumb_backend *be, plumb_weight *w, int64_t first, int64_t rows, const float *from) {
    if (!check_range(be, w, first, rows, "weight_write")) return;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k0 = 0; k0 < w->k; k0 += PLUMB_QBLOCK)
            store_part(w, first + r, k0, plumb_min64(PLUMB_QBLOCK, w->k - k0), from + r * w->k + k0);
}

void plumb_ref_weight_read(plumb_backend *be, const plumb_weight *w, int64_t first, int64_t rows, float *to) {
    if (!check_range(be, w, first, rows, "weight_read")) return;
    for (int64_t i = 0; i < rows * w->k; i++) to[i] = (float)w->data[first * w->k + i];
}

void plumb_ref_weight_from(plumb_backend *be, plumb_weight *w, plumb_tensor from) {
    if (!plumb_ref_shaped(be, from, w->n, w->k, "weight_from", "from")) return;
    for (int64_t r = 0; r < w->n; r++)
        for (int64_t k0 = 0; k0 < w->k; k0 += PLUMB_QBLOCK) {
            float part[PLUMB_QBLOCK];
            int64_t n = plumb_min64(PLUMB_QBLOCK, w->k - k0);
            for (int64_t c = 0; c < n; c++) part[c] = (float)row_of(from, r)[k0 + c];
            store_part(w, r, k0, n, part);
            if (w->storage == PLUMB_STORE_NATIVE) /* without rounding to float */
                for (int64_t c = 0; c < n; c++) w->data[r * w->k + k0 + c] = row_of(from, r)[k0 + c];
        }
}

plumb_status plumb_ref_kv_create(plumb_backend *be, int64_t layers, int64_t slots, const plumb_attention *a,
                                 plumb_kv **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    plumb_kv *kv;
    PLUMB_TRY(plumb_alloc(&kv, 1, sizeof *kv, "key/value pages"));
    *kv = (plumb_kv){.layers = layers, .slots = slots, .width = a->kv_heads * a->head_dim};
    plumb_status status = allocate(be, &kv->keys, layers, slots, PLUMB_PAGE, kv->width, "key pages");
    if (status == PLUMB_OK) status = allocate(be, &kv->values, layers, slots, PLUMB_PAGE, kv->width, "value pages");
    if (status == PLUMB_OK)
        *out = kv;
    else
        plumb_ref_kv_free(be, kv);
    return status;
}

void plumb_ref_kv_free(plumb_backend *be, plumb_kv *kv) {
    if (!kv) return;
    plumb_guarded_free(be, kv->keys);
    plumb_guarded_free(be, kv->values);
    free(kv);
}
