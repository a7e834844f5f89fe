/* Linear layers with adapters: the one place where W x + b and LoRA meet.  Local.
 *
 * A group is a set of linears that read the same input (q, k, v; gate, up), so that the input is packed once and the gradient by the
 * input is one product with many terms:
 *   y_i = W_i x + b_i + sum_j s_j B_ij (A_ij x)          dx = sum_i (W_i^T dy_i + sum_j A_ij^T (s_j B_ij^T dy_i))
 * Adapter j applies to the rows whose segment says j: rows of other adapters carry a factor of exactly 0 (docs/numerics.md). */
#ifndef PLUMB_NN_H
#define PLUMB_NN_H
#include "plumb/backend.h"

enum { PLUMB_MAX_ADAPTERS = 4, PLUMB_MAX_GROUP = 3 };

typedef struct plumb_lora { /* one adapter of one linear; absent when a is NULL */
    plumb_weight *a, *b;    /* A [r, k], B [n, r]: packed copies of the values below */
    plumb_tensor da, db;    /* gradients; absent when the adapter is frozen */
    plumb_tensor xa;        /* [T, r] kept from forward to backward */
    int64_t r;
} plumb_lora;

typedef struct plumb_linear {
    plumb_weight *w;
    plumb_tensor bias, dw, dbias; /* dw, dbias absent when frozen */
    plumb_lora lora[PLUMB_MAX_ADAPTERS];
    int64_t n, k;
    uint32_t site;                /* of its dropout numbers */
} plumb_linear;

typedef struct plumb_linear_work { /* operands shared by all groups; owned by the model */
    plumb_operand *x, *xd[PLUMB_MAX_GROUP], *dy[PLUMB_MAX_GROUP], *xa[PLUMB_MAX_GROUP][PLUMB_MAX_ADAPTERS],
        *dxa[PLUMB_MAX_GROUP][PLUMB_MAX_ADAPTERS];
    plumb_tensor dropped;         /* [T, k] for dropout; absent without */
    plumb_tensor row_scale[PLUMB_MAX_ADAPTERS]; /* [T,1]: an adapter's scale for its rows, 0 for others */
    bool used[PLUMB_MAX_ADAPTERS];              /* whether any row of the batch uses it */
    double dropout; uint64_t seed; uint32_t step; /* dropout in training only; 0 = none */
} plumb_linear_work;

/* y[i] [T, n_i] from x [T, k]. T is the number of rows of x. */
void plumb_linear_forward(plumb_backend *be, plumb_linear_work *w, plumb_linear *const *linears, int count, plumb_tensor x,
                          const plumb_tensor *y, const plumb_batch *b);
/* Gradients of everything trainable in the group accumulate; dx (absent: not wanted) is overwritten. x as in forward. */
void plumb_linear_backward(plumb_backend *be, plumb_linear_work *w, plumb_linear *const *linears, int count, plumb_tensor dx,
                           const plumb_tensor *dy, plumb_tensor x, const plumb_batch *b);
#endif
