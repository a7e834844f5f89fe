/* The operation tests: one list of cases drives every check.
 *
 *   op_case    one row of the list (ops_cases.c): which operation, which sizes, which forest
 *   operation  how its tensors are called and how forward and backward are run (ops_table.c)
 *   context    a case with numbers in it: the forest, and for every argument its values in host memory (ops_context.c)
 *   results    what one run on one back end left in every argument
 *
 * Values are a function of (argument, row identity, column), so that a context of a few of the rows, or of one path of
 * a tree, holds the same numbers as the context of all: results must then agree bit for bit. */
#ifndef PLUMB_TEST_OPS_H
#define PLUMB_TEST_OPS_H
#include "plumb/backend.h"

enum { MAX_ARGS = 32, MAX_TERMS = 3, MAX_OPERANDS = 8, KV_LAYERS = 3, KV_LAYER = 2 };

typedef enum arg_role {
    ROLE_INPUT,        /* read only; differentiated when some gradient is `of` it */
    ROLE_WEIGHT,       /* the same, as a plumb_weight */
    ROLE_OUTPUT,       /* overwritten by forward */
    ROLE_COTANGENT,    /* d loss / d output; fewer columns than the output: the other columns do not count */
    ROLE_GRADIENT,     /* overwritten by backward */
    ROLE_GRADIENT_SUM, /* accumulated by backward; begins with random values */
} arg_role;
typedef enum arg_axis { AXIS_FIXED, AXIS_TOKENS, AXIS_TARGETS } arg_axis; /* what the rows are */

typedef struct arg {
    const char *name;
    arg_role role;
    arg_axis axis;
    int64_t rows, cols;
    int of; /* of a cotangent or gradient: the argument that it belongs to; else -1 */
    bool present;
    bool collects; /* a row collects contributions of other rows: equal bits only where they are the same rows */
    bool exact;    /* in bf16, too, it is as exact as in fp32: nothing that was computed is rounded on the way */
    plumb_storage storage; /* of a weight */
    double mean, sigma;
    float *value; /* [rows, cols]; NaN in what is overwritten */
} arg;

typedef struct shape {
    int32_t parent, count;
} shape;
typedef struct forest_spec {
    const char *name;
    int n;
    const shape *segments; /* NULL: n segments of 1 to 5 tokens */
} forest_spec;
typedef enum targets { TARGETS_NONE, TARGETS_ALL, TARGETS_SOME } targets;

typedef struct op_case {
    const char *op;
    int64_t T; /* rows, where there is no forest */
    const forest_spec *forest;
    targets targets;
    int64_t V, n, k; /* vocabulary; rows and columns of weights; k also the width of rows */
    int64_t terms, n_of[MAX_TERMS], k_of[MAX_TERMS], rank;
    int64_t heads, kv_heads, head_dim;
    bool bias, scaled, alias, delta, gain_gradient, accumulate, no_u;
    double temperature, p;
    size_t budget;
    plumb_storage storage; /* of the weights that an adapter leaves alone */
    bool only_time; /* a size of practice: only in timing mode */
} op_case;

typedef struct context context;
typedef struct device device;
typedef struct operation {
    const char *name;
    void (*describe)(context *x);
    void (*forward)(device *d);
    void (*backward)(device *d);       /* NULL: none */
    double tolerance, tolerance_bf16;  /* of the largest value of the argument in ref */
    double (*flops)(const context *x); /* of forward; NULL: not counted */
} operation;

struct context {
    const op_case *c;
    const operation *op;
    plumb_forest forest;
    plumb_attention attention;
    int64_t T, R;                /* rows, targets */
    int64_t *row_id, *target_id; /* [T], [R] identities */
    arg args[MAX_ARGS];
    int n_args;
    bool bf16; /* values are representable in bf16 */
    bool roots_only;
};

typedef struct device { /* a context on a back end */
    plumb_backend *be;
    const context *x;
    plumb_buffer *buffers[MAX_ARGS];
    plumb_tensor t[MAX_ARGS];
    plumb_weight *w[MAX_ARGS];
    plumb_operand *operands[MAX_OPERANDS];
    plumb_batch *batch;
    plumb_kv *kv;
    float gap; /* what lies between and around the rows */
} device;

typedef struct results {
    double *value[MAX_ARGS];
} results; /* [rows, cols] each */

extern const operation operations[];
extern const int n_operations;
extern const op_case cases[];
extern const int n_cases;

/* ops_context.c. Nothing here returns on failure: a message and exit, as these are programs. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void must(plumb_status s, const char *what);
void describe_case(const op_case *c, char *out, size_t size);
void context_create(context *x, const op_case *c, bool bf16);
/* The same case with rows [first, first+count) only; for cases without a forest. */
void context_create_rows(context *x, const op_case *c, bool bf16, int64_t first, int64_t count);
/* The path of one segment of `full` as a single sequence. */
void context_create_path(context *x, const context *full, int32_t segment);
void context_free(context *x);
int add_arg(context *x, const char *name, arg_role role, arg_axis axis, int64_t rows, int64_t cols, int of,
            bool present);
double value_of(const char *name, int64_t row, int64_t col, double mean, double sigma, bool bf16);

plumb_backend *open_backend(const char *name, const char *isa, const char *precision, bool emulate, int threads);
void device_create(device *d, plumb_backend *be, const context *x, float gap, int64_t padding);
void device_load(device *d); /* puts the values of the context (back) into place */
void device_set(device *d, int arg, const float *value);
void device_free(device *d);
void device_results(device *d, results *r); /* reads everything; dies when a gap was touched */
void results_free(results *r);
plumb_operand *operand(device *d, int index, int64_t rows, int64_t cols);
/* One run from fresh memory. */
void run_context(plumb_backend *be, const context *x, bool backward, float gap, int64_t padding, results *r);

static inline plumb_tensor absent(void) {
    return (plumb_tensor){0};
}
#endif
