/* The `ref` back end: every operation in double, in plain loops, one thread.  Local.
 *
 * It is the oracle of the other back ends, so it is written to be obviously right, not fast: no blocking, no packing,
 * no shared helper that could hide the same mistake on both sides of a comparison. Buffers, weights, operands and pages
 * hold doubles, so that finite differences are meaningful. Every operation checks the shapes and bounds of its
 * arguments and latches a fault; the fast back ends may check less. */
#ifndef PLUMB_REF_H
#define PLUMB_REF_H
#include "../internal.h"

struct plumb_buffer {
    double *data; /* [count] */
    int64_t count;
};

struct plumb_weight {
    double *data; /* [n, k] */
    int64_t n, k;
    plumb_storage storage; /* how values were rounded on their way in */
    bool own; /* data came from plumb_guarded_alloc */
};

struct plumb_operand {
    double *data; /* [rows, cols] of the last packing, already scaled by row */
    int64_t room, rows, cols;
    plumb_packing packing;
};

struct plumb_batch {
    int64_t n_tokens;
    int32_t n_segments, n_targets, n_pages, n_slots;
    int32_t *ids, *positions, *row_segment, *paths, *branch; /* branch: number of earlier segments of the same sample */
    plumb_segment *segments;
    plumb_target *targets;
    plumb_page *pages;
    bool complete; /* every path begins at position 0 inside this batch: gradients are defined */
};

struct plumb_kv {
    double *keys, *values; /* [layers, slots, PLUMB_PAGE, width] */
    int64_t layers, slots, width;
};

/* The first value of row r of a view. */
static inline double *row_of(plumb_tensor t, int64_t r) {
    return t.buffer->data + t.offset + r * t.stride;
}

/* Latches a fault "operation: what" unless `good`; returns good. */
bool plumb_ref_check(plumb_backend *be, bool good, const char *operation, const char *what);
/* The view is present, has this shape and lies inside its buffer. */
bool plumb_ref_shaped(plumb_backend *be, plumb_tensor t, int64_t rows, int64_t cols, const char *operation,
                      const char *name);
static inline bool absent_or_shaped(plumb_backend *be, plumb_tensor t, int64_t rows, int64_t cols,
                                    const char *operation, const char *name) {
    return !t.buffer || plumb_ref_shaped(be, t, rows, cols, operation, name);
}

/* memory.c */
plumb_status plumb_ref_buffer_create(plumb_backend *be, int64_t count, const char *what, plumb_buffer **out);
void plumb_ref_buffer_free(plumb_backend *be, plumb_buffer *b);
void plumb_ref_write(plumb_backend *be, plumb_tensor to, const float *from);
void plumb_ref_read(plumb_backend *be, plumb_tensor from, float *to);
void plumb_ref_read_f64(plumb_backend *be, plumb_tensor from, double *to);
void plumb_ref_zero(plumb_backend *be, plumb_tensor t);
size_t plumb_ref_weight_bytes(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage);
plumb_status plumb_ref_weight_create(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage, void *memory, plumb_weight **out);
void plumb_ref_weight_free(plumb_backend *be, plumb_weight *w);
void plumb_ref_weight_write(plumb_backend *be, plumb_weight *w, int64_t first, int64_t rows, const float *from);
void plumb_ref_weight_read(plumb_backend *be, const plumb_weight *w, int64_t first, int64_t rows, float *to);
void plumb_ref_weight_from(plumb_backend *be, plumb_weight *w, plumb_tensor from);
plumb_status plumb_ref_kv_create(plumb_backend *be, int64_t layers, int64_t slots, const plumb_attention *a,
                                 plumb_kv **out);
void plumb_ref_kv_free(plumb_backend *be, plumb_kv *kv);
/* A row of k values as the weight's storage wants to meet it (W8A8, W4A8: rounded to 8 bits): x itself, or a copy, which the caller
 * frees. NULL after latching a fault. */
const double *plumb_ref_row_for(plumb_backend *be, const plumb_weight *w, const double *x);
/* batch.c */
plumb_status plumb_ref_batch_create(plumb_backend *be, const plumb_forest *f, plumb_batch **out);
void plumb_ref_batch_free(plumb_backend *be, plumb_batch *b);
/* products.c */
plumb_status plumb_ref_operand_create(plumb_backend *be, int64_t rows, int64_t cols, plumb_operand **out);
void plumb_ref_operand_free(plumb_backend *be, plumb_operand *o);
void plumb_ref_operand_pack(plumb_backend *be, plumb_operand *o, plumb_tensor x, plumb_packing packing,
                            plumb_tensor row_scale);
void plumb_ref_linear_forward(plumb_backend *be, const plumb_product *products, int count);
void plumb_ref_linear_backward(plumb_backend *be, plumb_tensor dx, const plumb_term *terms, int n_terms);
void plumb_ref_linear_backward_packed(plumb_backend *be, plumb_operand *dx, const plumb_term *terms, int n_terms,
                                      plumb_tensor row_scale);
void plumb_ref_linear_gradient(plumb_backend *be, plumb_tensor dw, const plumb_operand *dy, const plumb_operand *x);
void plumb_ref_bias_gradient(plumb_backend *be, plumb_tensor dbias, plumb_tensor dy);
/* rows.c */
void plumb_ref_embedding_forward(plumb_backend *be, plumb_tensor y, const plumb_weight *w, const plumb_batch *b);
void plumb_ref_embedding_backward(plumb_backend *be, plumb_tensor dw, plumb_tensor dy, const plumb_batch *b);
void plumb_ref_gather_forward(plumb_backend *be, plumb_tensor y, plumb_tensor x, const plumb_batch *b);
void plumb_ref_gather_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor dy, const plumb_batch *b);
void plumb_ref_rmsnorm_forward(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor delta, plumb_tensor sum, plumb_tensor gain,
                               plumb_tensor rstd, double eps);
void plumb_ref_rmsnorm_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor dgain, plumb_tensor dy, plumb_tensor x,
                                plumb_tensor gain, plumb_tensor rstd);
void plumb_ref_rope_forward(plumb_backend *be, plumb_tensor x, plumb_tensor table, int64_t head_dim,
                            const plumb_batch *b);
void plumb_ref_rope_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor table, int64_t head_dim,
                             const plumb_batch *b);
void plumb_ref_swiglu_forward(plumb_backend *be, plumb_tensor h, plumb_tensor gate, plumb_tensor up);
void plumb_ref_swiglu_backward(plumb_backend *be, plumb_tensor dgate, plumb_tensor dup, plumb_tensor dh,
                               plumb_tensor gate, plumb_tensor up);
void plumb_ref_add(plumb_backend *be, plumb_tensor y, plumb_tensor a, plumb_tensor b);
void plumb_ref_scale_rows(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor s);
void plumb_ref_dropout(plumb_backend *be, plumb_tensor y, plumb_tensor x, double p, uint64_t seed, uint32_t step,
                       uint32_t site, bool accumulate, const plumb_batch *b);
/* attention.c */
void plumb_ref_attention_forward(plumb_backend *be, const plumb_attention *a, plumb_tensor o, plumb_tensor lse,
                                 plumb_tensor q, plumb_tensor k, plumb_tensor v, plumb_kv *kv, int64_t layer,
                                 const plumb_batch *b);
void plumb_ref_attention_backward(plumb_backend *be, const plumb_attention *a, plumb_tensor dq, plumb_tensor dk,
                                  plumb_tensor dv, plumb_tensor d_o, plumb_tensor o, plumb_tensor lse, plumb_tensor q,
                                  plumb_tensor k, plumb_tensor v, plumb_kv *kv, const plumb_batch *b);
/* head.c */
void plumb_ref_head_forward(plumb_backend *be, plumb_tensor stats, plumb_tensor u, plumb_tensor e, plumb_tensor h,
                            const plumb_weight *w, double temperature, size_t budget, const plumb_batch *b);
void plumb_ref_token_stats(plumb_backend *be, plumb_tensor stats, plumb_tensor logits, const int32_t *tokens, double temperature);
void plumb_ref_score_forward(plumb_backend *be, plumb_tensor y, plumb_tensor h, plumb_tensor w);
void plumb_ref_score_backward(plumb_backend *be, plumb_tensor dh, plumb_tensor dw, plumb_tensor dy, plumb_tensor h, plumb_tensor w);
void plumb_ref_head_backward(plumb_backend *be, plumb_tensor dw, plumb_tensor dlogp, plumb_tensor stats, plumb_tensor h,
                             const plumb_weight *w, double temperature, size_t budget, const plumb_batch *b);
#endif
