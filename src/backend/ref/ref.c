/* The table of the `ref` back end and its argument checks. */
#include "ref.h"
#include <stdio.h>

plumb_status plumb_ref_init(plumb_backend *be, const char *isa, bool bf16) {
    (void)be, (void)isa, (void)bf16; /* nothing but memory, which backend.c owns */
    return PLUMB_OK;
}

void plumb_ref_exit(plumb_backend *be) {
    (void)be;
}

bool plumb_ref_check(plumb_backend *be, bool good, const char *operation, const char *what) {
    if (!good) plumb_backend_set_fault(be, PLUMB_E_DATA, "ref: %s: %s", operation, what);
    return good;
}

bool plumb_ref_shaped(plumb_backend *be, plumb_tensor t, int64_t rows, int64_t cols, const char *operation,
                      const char *name) {
    char what[256];
    if (!t.buffer) {
        snprintf(what, sizeof what, "%s is absent", name);
        return plumb_ref_check(be, false, operation, what);
    }
    if (t.rows != rows || t.cols != cols) {
        snprintf(what, sizeof what, "%s is [%lld, %lld], expected [%lld, %lld]", name, (long long)t.rows,
                 (long long)t.cols, (long long)rows, (long long)cols);
        return plumb_ref_check(be, false, operation, what);
    }
    if (rows == 0 || cols == 0) return true;
    int64_t last; /* index one past the last element */
    bool inside = t.offset >= 0 && (rows == 1 || t.stride >= cols) &&
                  !__builtin_mul_overflow(rows - 1, t.stride, &last) && !__builtin_add_overflow(last, cols, &last) &&
                  !__builtin_add_overflow(last, t.offset, &last) && last <= t.buffer->count;
    snprintf(what, sizeof what, "%s [%lld, %lld] at %lld with stride %lld is outside its buffer of %lld", name,
             (long long)rows, (long long)cols, (long long)t.offset, (long long)t.stride, (long long)t.buffer->count);
    return plumb_ref_check(be, inside, operation, what);
}

const plumb_backend_ops plumb_ref_ops = {
    .name = "ref",
    .buffer_create = plumb_ref_buffer_create,
    .buffer_free = plumb_ref_buffer_free,
    .write = plumb_ref_write,
    .read = plumb_ref_read,
    .read_f64 = plumb_ref_read_f64,
    .zero = plumb_ref_zero,
    .weight_bytes = plumb_ref_weight_bytes,
    .weight_create = plumb_ref_weight_create,
    .weight_free = plumb_ref_weight_free,
    .weight_write = plumb_ref_weight_write,
    .weight_read = plumb_ref_weight_read,
    .weight_from = plumb_ref_weight_from,
    .batch_create = plumb_ref_batch_create,
    .batch_free = plumb_ref_batch_free,
    .kv_create = plumb_ref_kv_create,
    .kv_free = plumb_ref_kv_free,
    .operand_create = plumb_ref_operand_create,
    .operand_free = plumb_ref_operand_free,
    .operand_pack = plumb_ref_operand_pack,
    .linear_forward = plumb_ref_linear_forward,
    .linear_backward = plumb_ref_linear_backward,
    .linear_backward_packed = plumb_ref_linear_backward_packed,
    .linear_gradient = plumb_ref_linear_gradient,
    .bias_gradient = plumb_ref_bias_gradient,
    .embedding_forward = plumb_ref_embedding_forward,
    .embedding_backward = plumb_ref_embedding_backward,
    .score_forward = plumb_ref_score_forward,
    .score_backward = plumb_ref_score_backward,
    .gather_forward = plumb_ref_gather_forward,
    .gather_backward = plumb_ref_gather_backward,
    .rmsnorm_forward = plumb_ref_rmsnorm_forward,
    .rmsnorm_backward = plumb_ref_rmsnorm_backward,
    .rope_forward = plumb_ref_rope_forward,
    .rope_backward = plumb_ref_rope_backward,
    .swiglu_forward = plumb_ref_swiglu_forward,
    .swiglu_backward = plumb_ref_swiglu_backward,
    .add = plumb_ref_add,
    .scale_rows = plumb_ref_scale_rows,
    .dropout = plumb_ref_dropout,
    .attention_forward = plumb_ref_attention_forward,
    .attention_backward = plumb_ref_attention_backward,
    .head_forward = plumb_ref_head_forward,
    .head_backward = plumb_ref_head_backward,
    .token_stats = plumb_ref_token_stats,
};
