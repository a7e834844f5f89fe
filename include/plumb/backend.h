/* The back end: one table of operations, forward beside backward, every slot required.
 *
 * Memory is opaque: a plumb_buffer belongs to its back end and is touched only by operations and by read/write. In guard mode
 * (PLUMB_GUARD=1) the pages of every buffer are PROT_NONE outside operations, so that nobody reads device memory by accident. `ref`
 * computes in double with plain loops and stores doubles; `cpu` computes in fp32, or bf16 products with fp32 sums, with the kernels of
 * the best instruction set. An operation exists only when both have it.
 *
 * Errors are latched: after a fault (a bad argument, lost memory, a failed device) operations do nothing and plumb_backend_fault()
 * returns the status; the caller meets the other ranks at the next agreement point. Operations return void. The slots that create
 * something return the latched fault instead; the slots that free always work. A token id or target >= V, or a position outside a rope
 * table, is such a fault (PLUMB_E_DATA).
 *
 * What an operation leaves: "=" overwrites, "+=" adds to what is there. Empty batches, empty target lists and tensors of zero rows are
 * valid everywhere. Tensors given to one operation do not overlap unless its comment allows it. Slots that create or free, and
 * weight_bytes, are called directly; all the others through PLUMB_RUN. In guard mode memory from plumb_guarded_alloc is inaccessible to
 * the slots that create, too, unless they enter.
 *
 * Order of summation (what makes bits independent of batch size, threads and neighbours): a product sums over its reduction index from
 * first to last in chains of at most 128 (bf16: 320) that are added in order, term after term, whatever the tile (linear_gradient: one
 * chain over the rows); attention runs over key pages of 64 along the path; norms sum fixed lanes (index modulo 16) and then a fixed
 * tree; the LM head's log-sum-exp runs over blocks of 512 vocabulary entries. (bf16: pairs of adjacent elements,
 * as vdpbf16ps.) Rows are independent.
 *
 * Products. Both operands of a product are stored "blocked": a matrix M[p][q] as [q/32][p][32]. A weight W[n,k] is blocked along n: read
 * as vectors it gives y = x W^T, read as scalars it gives dx = dy W, so that one copy serves both directions. Activations are packed
 * into an operand once per use: by columns for the forward product and weight gradients (x), by rows for backward (dy).
 *
 * Quantised weights are for what never changes: a frozen base. Values are kept in blocks of 32 along k (src/backend/quantize.h): w = d q
 * with q in -127..127 and d fp32 (INT8: 9 bits a weight), or w = d q + m with q in 0..15 and d, m fp16 (INT4: 5 bits). The forward
 * product multiplies x, as packed, by the whole numbers q and scales once per block: sum = fma(d, S, sum), then (INT4) sum = fma(m, X,
 * sum), where S is one chain over the block's 32 products and X the sum of the block of x; blocks in order, going on from the terms
 * before. Backward takes the dequantised values, rounded to the type of products. All of it is independent of batch size, threads and
 * neighbours, like the rest: a decoded token has the bits of the full forward.
 *
 * W8A8 and W4A8 hold the same numbers as INT8 and INT4, and the rows of x that meet them are rounded to 8 bits as well, block by block as
 * INT8 rounds weights (Q8_0): x = f n with n in -127..127 and f = max |x| / 127. S = f times a sum of whole numbers, which is exact in any
 * order, and X = f times the sum of n. Backward takes the dequantised weights, and rows as they were packed, not in 8 bits. */
#ifndef PLUMB_BACKEND_H
#define PLUMB_BACKEND_H
#include "plumb/forest.h"

typedef struct plumb_backend plumb_backend;
typedef struct plumb_buffer plumb_buffer;   /* memory of a back end */
typedef struct plumb_weight plumb_weight;   /* [n, k] matrix stored for products */
typedef struct plumb_operand plumb_operand; /* packed activations */
typedef struct plumb_batch plumb_batch;     /* a finished forest on the device */
typedef struct plumb_kv plumb_kv;           /* key/value pages */

typedef enum plumb_compute { PLUMB_COMPUTE_F32, PLUMB_COMPUTE_BF16 } plumb_compute;
/* How a weight is kept: as the products take it (fp32 or bf16), or in blocks of 32 values along k with 8 or 4 bits each
 * and a scale; and whether rows that meet it are rounded to 8 bits (see the head). */
typedef enum plumb_storage { PLUMB_STORE_NATIVE, PLUMB_STORE_INT8, PLUMB_STORE_INT4, PLUMB_STORE_W8A8, PLUMB_STORE_W4A8 } plumb_storage;
static inline bool plumb_stores_8_bits(plumb_storage s) { return s == PLUMB_STORE_INT8 || s == PLUMB_STORE_W8A8; }
static inline bool plumb_stores_4_bits(plumb_storage s) { return s == PLUMB_STORE_INT4 || s == PLUMB_STORE_W4A8; }
static inline bool plumb_rounds_rows(plumb_storage s) { return s == PLUMB_STORE_W8A8 || s == PLUMB_STORE_W4A8; }
/* By its name in configurations: native, int8, int4, w8a8, w4a8; false: there is none of this name. */
bool plumb_storage_named(const char *name, plumb_storage *out);

/* A view of floats: element (r, c) is at offset + r*stride + c. A vector of n is [1, n] (gains, biases) or [n, 1] (per-row scalars).
 * buffer NULL = absent. */
typedef struct plumb_tensor {
    plumb_buffer *buffer;
    int64_t offset, rows, cols, stride;
} plumb_tensor;
static inline plumb_tensor plumb_tensor_of(plumb_buffer *b, int64_t offset, int64_t rows, int64_t cols) {
    return (plumb_tensor){b, offset, rows, cols, cols};
}
static inline plumb_tensor plumb_tensor_rows(plumb_tensor t, int64_t first, int64_t count) {
    t.offset += first * t.stride;
    t.rows = count;
    return t;
}
static inline plumb_tensor plumb_tensor_cols(plumb_tensor t, int64_t first, int64_t count) {
    t.offset += first;
    t.cols = count;
    return t;
}

typedef enum plumb_packing { PLUMB_BY_COLUMNS, PLUMB_BY_ROWS } plumb_packing;
typedef struct plumb_term { const plumb_operand *x; const plumb_weight *w; } plumb_term; /* one summand of a product */

/* y = sum_t x_t w_t^T + bias */
typedef struct plumb_product { plumb_tensor y; const plumb_term *terms; int n_terms; plumb_tensor bias; } plumb_product;
enum { PLUMB_MAX_PRODUCTS = 16 };

typedef struct plumb_attention { /* sizes; scale is applied to q */
    int64_t heads, kv_heads, head_dim;
    double scale;
} plumb_attention;

typedef struct plumb_backend_ops {
    const char *name;
    /* --- memory: buffers hold `count` floats, zeroed ----------------------------------------------------------------- */
    plumb_status (*buffer_create)(plumb_backend *be, int64_t count, const char *what, plumb_buffer **out);
    void (*buffer_free)(plumb_backend *be, plumb_buffer *b);
    void (*write)(plumb_backend *be, plumb_tensor to, const float *from);  /* host [rows*cols], dense */
    void (*read)(plumb_backend *be, plumb_tensor from, float *to);
    void (*read_f64)(plumb_backend *be, plumb_tensor from, double *to);    /* ref: without rounding to float */
    void (*zero)(plumb_backend *be, plumb_tensor t);

    /* --- weights: memory of weight_bytes() may be given (shared by the ranks of a node), or NULL = own -------------------- */
    size_t (*weight_bytes)(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage);
    plumb_status (*weight_create)(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage, void *memory, plumb_weight **out);
    void (*weight_free)(plumb_backend *be, plumb_weight *w);
    /* Rows [first, first+rows) from host floats [rows, k] dense. first is a multiple of 32, in reading too. Different ranges may be
     * written by different ranks or threads. A quantised weight is quantised in writing; reading (and
     * the embedding) gives its dequantised values. */
    void (*weight_write)(plumb_backend *be, plumb_weight *w, int64_t first, int64_t rows, const float *from);
    void (*weight_read)(plumb_backend *be, const plumb_weight *w, int64_t first, int64_t rows, float *to);
    void (*weight_from)(plumb_backend *be, plumb_weight *w, plumb_tensor from); /* [n,k], on the device */

    /* --- batches and key/value pages ---------------------------------------------------------------------------------- */
    plumb_status (*batch_create)(plumb_backend *be, const plumb_forest *f, plumb_batch **out); /* copies what it needs */
    void (*batch_free)(plumb_backend *be, plumb_batch *b);
    plumb_status (*kv_create)(plumb_backend *be, int64_t layers, int64_t slots, const plumb_attention *a, plumb_kv **out);
    void (*kv_free)(plumb_backend *be, plumb_kv *kv);

    /* --- operands: room for rows x cols; the shape is set by each packing ------------------------------------------------- */
    plumb_status (*operand_create)(plumb_backend *be, int64_t rows, int64_t cols, plumb_operand **out);
    void (*operand_free)(plumb_backend *be, plumb_operand *o);
    /* Packs x [T, C]; rows are multiplied by row_scale [T,1] when that is present (an adapter's scale, 0 where a row does not use it). */
    void (*operand_pack)(plumb_backend *be, plumb_operand *o, plumb_tensor x, plumb_packing packing, plumb_tensor row_scale);

    /* --- products -------------------------------------------------------------------------------------------------------- */
    /* y[T,n] = sum_t x_t w_t^T + bias for each of `count` products (at most 16) with the same T; x_t packed by columns [T, k_t], w_t [n,
     * k_t]; bias [1,n] or absent. Together they are one piece of work: decoding's products are so short that it matters. */
    void (*linear_forward)(plumb_backend *be, const plumb_product *products, int count);
    /* dx[T,k] = sum_t dy_t w_t; dy_t packed by rows [T, n_t], w_t [n_t, k]. */
    void (*linear_backward)(plumb_backend *be, plumb_tensor dx, const plumb_term *terms, int n_terms);
    /* The same, leaving the result packed by rows in `dx` ([T,k]), rows scaled by row_scale (or not, when absent). */
    void (*linear_backward_packed)(plumb_backend *be, plumb_operand *dx, const plumb_term *terms, int n_terms, plumb_tensor row_scale);
    /* dw[n,k] += dy^T x; dy packed by rows, x by columns. */
    void (*linear_gradient)(plumb_backend *be, plumb_tensor dw, const plumb_operand *dy, const plumb_operand *x);
    /* dbias[1,n] += sum of the rows of dy [T,n]. */
    void (*bias_gradient)(plumb_backend *be, plumb_tensor dbias, plumb_tensor dy);

    /* --- rows ------------------------------------------------------------------------------------------------------------- */
    /* y[i] = w[ids[i]];  dw[ids[i]] += dy[i], rows in order. dw: plain [V, C]. */
    void (*embedding_forward)(plumb_backend *be, plumb_tensor y, const plumb_weight *w, const plumb_batch *b);
    void (*embedding_backward)(plumb_backend *be, plumb_tensor dw, plumb_tensor dy, const plumb_batch *b);
    /* y[j] = x[targets[j].row];  dx[targets[j].row] += dy[j], j in order. */
    void (*gather_forward)(plumb_backend *be, plumb_tensor y, plumb_tensor x, const plumb_batch *b);
    void (*gather_backward)(plumb_backend *be, plumb_tensor dx, plumb_tensor dy, const plumb_batch *b);
    /* y = x*rstd*gain with rstd = 1/sqrt(mean(x^2)+eps), rstd [T,1]. When delta is present (a residual), sum = x + delta takes the place
     * of x. Zhang & Sennrich 2019. */
    void (*rmsnorm_forward)(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor delta, plumb_tensor sum, plumb_tensor gain,
                            plumb_tensor rstd, double eps);
    /* dx += d/dx; dgain [1,C] += (when present). */
    void (*rmsnorm_backward)(plumb_backend *be, plumb_tensor dx, plumb_tensor dgain, plumb_tensor dy, plumb_tensor x, plumb_tensor gain,
                             plumb_tensor rstd);
    /* Rotates halves in place: (a, b) -> (a cos - b sin, b cos + a sin), pairs (i, i+D/2) of every head. table [positions, D]: cos[D/2]
     * then sin[D/2]. Backward rotates the other way. x [T, heads*D]. */
    void (*rope_forward)(plumb_backend *be, plumb_tensor x, plumb_tensor table, int64_t head_dim, const plumb_batch *b);
    void (*rope_backward)(plumb_backend *be, plumb_tensor dx, plumb_tensor table, int64_t head_dim, const plumb_batch *b);
    /* h = silu(gate)*up;  dgate, dup from dh (dgate may be gate, dup may be up). */
    void (*swiglu_forward)(plumb_backend *be, plumb_tensor h, plumb_tensor gate, plumb_tensor up);
    void (*swiglu_backward)(plumb_backend *be, plumb_tensor dgate, plumb_tensor dup, plumb_tensor dh, plumb_tensor gate, plumb_tensor up);
    void (*add)(plumb_backend *be, plumb_tensor y, plumb_tensor a, plumb_tensor b);        /* y = a + b; y may be either */
    void (*scale_rows)(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor s); /* y[i] = x[i]*s[i]; y may be x */
    /* Inverted dropout with counter-based numbers: element (row, c) of y is x/(1-p) or 0 by Philox(seed, step, sample of the row, branch
     * = the row's segment within its sample, token = position, site + c/4, lane c%4). With `accumulate` y += instead of y =. The same
     * call is its own backward. The branch is the number of earlier segments of the batch with the same sample mark. Dropped when the
     * lane's number < p * 2^32. p in [0, 1). */
    void (*dropout)(plumb_backend *be, plumb_tensor y, plumb_tensor x, double p, uint64_t seed, uint32_t step, uint32_t site,
                    bool accumulate, const plumb_batch *b);

    /* --- attention: the one entry point for training, prefill and decoding -------------------------------------------------- */
    /* Writes k, v [T, kv_heads*D] of the batch's rows into the pages of `layer`, then o[i] = softmax(scale q_i K^T) V over the path of
     * row i. q, o [T, heads*D]; lse [T, heads] log-sum-exp of the scaled scores (absent when decoding). */
    void (*attention_forward)(plumb_backend *be, const plumb_attention *a, plumb_tensor o, plumb_tensor lse, plumb_tensor q, plumb_tensor k,
                              plumb_tensor v, plumb_kv *kv, int64_t layer, const plumb_batch *b);
    /* dq, dk, dv = from do; pages are laid out again from k and v in layer 0 of `kv`. Only for a batch whose paths all begin at position
     * 0 in the batch itself (plumb_forest_finish): keys that were in the store before have no gradient. */
    void (*attention_backward)(plumb_backend *be, const plumb_attention *a, plumb_tensor dq, plumb_tensor dk, plumb_tensor dv,
                               plumb_tensor d_o, plumb_tensor o, plumb_tensor lse, plumb_tensor q, plumb_tensor k, plumb_tensor v,
                               plumb_kv *kv, const plumb_batch *b);

    /* --- scalar head (rewards, values), in fp32 for every compute type -------------------------------------------------------------- */
    /* y[R,1] = h w^T; h [R, C], w [1, C]. Sums over 16 lanes and a fixed tree, as norms. */
    void (*score_forward)(plumb_backend *be, plumb_tensor y, plumb_tensor h, plumb_tensor w);
    /* dh += dy w;  dw [1, C] += sum_j dy_j h_j, j in order (when present). */
    void (*score_backward)(plumb_backend *be, plumb_tensor dh, plumb_tensor dw, plumb_tensor dy, plumb_tensor h, plumb_tensor w);

    /* --- LM head, on listed rows, never more than `budget` bytes of logits ------------------------------------------------------ */
    /* h [R, C] in the batch's target order, w [V, C]: stats[R, 4] = log-probability of the target, log-sum-exp, entropy, 1 if the target
     * is the argmax. u [R, C], when present: d logp / d h = w[target] - sum_v softmax_v w[v], so that the backward pass is a scaling of
     * rows. temperature divides the logits; all four statistics and u are of the divided logits (u includes the division). Of equal
     * logits the first is the argmax. e [R, C], when present (with u): d entropy / d h = sum_v dH/dz_v w[v] / temperature with dH/dz_v =
     * -p_v (log p_v + H), for an entropy bonus; twice the budget then. */
    void (*head_forward)(plumb_backend *be, plumb_tensor stats, plumb_tensor u, plumb_tensor e, plumb_tensor h, const plumb_weight *w,
                         double temperature, size_t budget, const plumb_batch *b);
    /* For a trained head: dw [V, C] += sum_j dlogp[j] * (onehot - softmax)_j h_j / temperature, from the
     * stats of head_forward. dlogp [R,1]. */
    void (*head_backward)(plumb_backend *be, plumb_tensor dw, plumb_tensor dlogp, plumb_tensor stats, plumb_tensor h, const plumb_weight *w,
                          double temperature, size_t budget, const plumb_batch *b);
    /* The statistics of head_forward for tokens [R] that were drawn from logits [R, V] = h w^T: the same bits. The
     * logits are divided by the temperature. */
    void (*token_stats)(plumb_backend *be, plumb_tensor stats, plumb_tensor logits, const int32_t *tokens, double temperature);
} plumb_backend_ops;

struct plumb_backend {
    const plumb_backend_ops *ops;
    plumb_compute compute;
    int threads;
    const char *isa;          /* "avx512bf16", "avx512", "avx2", "plain"; "fp64" for ref */
    plumb_status fault;       /* latched */
    char fault_message[512];
    bool guard;
    int depth;                /* operations in progress (guard mode) */
    int64_t bytes, peak_bytes; /* of buffers, operands, own weights */
    void *private_data;
    void *guarded;            /* list of guarded mappings */
};

typedef struct plumb_backend_options {
    const char *backend;      /* "cpu", "ref" */
    const char *isa;          /* NULL or "auto": the best that this processor has; a name forces it (PLUMB_E_UNSUPPORTED when absent) */
    /* "auto": bf16 where the processor has it, else fp32; "fp32"; "bf16": where there is no hardware fp32 is used, and *note says so */
    const char *precision;
    int threads;              /* >= 1 */
    bool emulate_bf16;        /* tests: bf16 products by widening where the instruction is missing (other bits than the hardware's) */
} plumb_backend_options;
plumb_status plumb_backend_create(plumb_backend **out, const plumb_backend_options *o, const char **note) PLUMB_CHECKED;
void plumb_backend_free(plumb_backend *be);
plumb_status plumb_backend_fault(const plumb_backend *be) PLUMB_CHECKED; /* also records the latched message */
void plumb_backend_set_fault(plumb_backend *be, plumb_status s, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Runs one operation: PLUMB_RUN(be, rmsnorm_forward, y, x, …). Nothing happens on a faulted back end. */
bool plumb_backend_enter(plumb_backend *be);
void plumb_backend_leave(plumb_backend *be);
#define PLUMB_RUN(be, operation, ...)                                                                                  \
    do {                                                                                                               \
        if (plumb_backend_enter(be)) {                                                                                 \
            (be)->ops->operation((be), __VA_ARGS__);                                                                   \
            plumb_backend_leave(be);                                                                                   \
        }                                                                                                              \
    } while (0)

/* For back ends: page-aligned, zeroed memory that guard mode protects; large pages advised. */
void *plumb_guarded_alloc(plumb_backend *be, size_t bytes);
void plumb_guarded_free(plumb_backend *be, void *memory);

extern const plumb_backend_ops plumb_ref_ops; /* the CPU has one table for each instruction set (src/backend/cpu/cpu.h) */
#endif
