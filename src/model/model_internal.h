/* What the files of the transformer share. */
#ifndef PLUMB_MODEL_INTERNAL_H
#define PLUMB_MODEL_INTERNAL_H
#include "plumb/model.h"

typedef struct value { /* one parameter of the table */
    plumb_weight *base, *trained;              /* matrices; base absent when it trains in full and no reference is kept */
    plumb_tensor vector_base, vector_trained;  /* gains and biases */
    plumb_tensor grad;                         /* in the flat array, absent when frozen */
    plumb_tensor flat;                         /* its trained values in the flat array */
} value;

enum { L_Q, L_K, L_V, L_O, L_GATE, L_UP, L_DOWN, LINEARS };

typedef struct layer_memory { /* kept from forward to backward */
    plumb_tensor q, k, v, o, lse, middle, rstd_attention, rstd_mlp, gate, up;
} layer_memory;

typedef struct workspace {
    int64_t tokens, targets;   /* capacity */
    plumb_buffer *buffers[16];
    int n_buffers;
    plumb_tensor *inputs;      /* [layers + 1] residual stream before each layer, and after the last */
    plumb_buffer *pool;        /* what layers keep from forward to backward */
    /* the first `kept` layers of this pass have memory of their own; the others share one and are computed again */
    int64_t pool_floats, kept;
    int64_t pool_rows;         /* of this pass: the layout of the pool */
    plumb_tensor normed, branch, hidden, gradient, dbranch, dq, dk, dv, rows, rows_normed, rows_rstd, u, e, dlogp, stats, scores;
    /* of the last layer, on the listed rows: see transformer.c */
    plumb_tensor listed_input, listed_o, listed_do, listed_scale[PLUMB_MAX_ADAPTERS];
    plumb_kv *kv;
    int64_t kv_slots;
} workspace;

typedef struct adapter_slot {
    bool present, trains;
    int64_t r;
    double alpha, dropout, scale;
    bool rslora;
    bool *chosen;              /* [params.count] owned */
} adapter_slot;
typedef struct scalar_head { plumb_tensor weight, grad; } scalar_head; /* [1, hidden]; absent; grad absent when frozen */

struct plumb_model {
    plumb_backend *be;
    plumb_arch arch;
    plumb_params params;
    plumb_attention attention;
    bool checkpointing, wants_reference, trains_full, judges; /* judges: there is a reward view */
    size_t logits_budget;
    int64_t usual_tokens;
    adapter_slot adapters[PLUMB_VIEW_COUNT]; /* one for each view; a view's adapter has the view's number */
    scalar_head heads[PLUMB_VIEW_COUNT];

    value *values;             /* [params.count] */
    plumb_linear *linears[2];  /* [layers * LINEARS] of the policy, and of every other view, which see the base weights */
    plumb_shared *shared;
    bool is_shared;
    size_t base_bytes;
    plumb_buffer *vectors;     /* gains and biases */
    plumb_buffer *rope;
    plumb_tensor rope_table;
    int64_t rope_positions;

    plumb_trainable *trainables;
    int n_trainables;
    int64_t n_flat;
    plumb_buffer *flat_values, *flat_grads, *frozen_heads;

    plumb_linear_work work;
    int64_t work_rows;
    workspace space;
    plumb_buffer *logits;      /* of the last decode */
    plumb_operand *logits_operand;
    int64_t logits_rows;
    plumb_batch *batch;        /* of the last training forward */
    plumb_view view;
    bool logprobs, entropy, valued;     /* what the last forward computed, */
    double temperature;        /* and how */
    int64_t rows, targets;     /* of the last forward */
    bool narrow;               /* the last forward's last layer went over the listed rows only */
    bool trained_forward;
};

/* trainable.c */
plumb_status plumb_model_plan_trainables(plumb_model *m, const plumb_model_options *o, bool *full) PLUMB_CHECKED;
plumb_status plumb_model_attach_trainables(plumb_model *m, const plumb_source *s) PLUMB_CHECKED;
/* adapters.c: gives the linears of each view their LoRA matrices and heads their values, from adapters or by seed. */
plumb_status plumb_model_plan_adapters(plumb_model *m, const plumb_model_options *o) PLUMB_CHECKED;
plumb_status plumb_model_attach_adapters(plumb_model *m, const plumb_source *s, const plumb_model_options *o) PLUMB_CHECKED;
bool plumb_model_plans_head(const plumb_model *m, const plumb_model_options *o); /* on the policy */
void plumb_model_refresh_lora(plumb_model *m, const plumb_trainable *t);
/* workspace.c */
/* cached: keys and values lie elsewhere. */
plumb_status plumb_model_reserve(plumb_model *m, const plumb_forest *f, bool training, bool cached) PLUMB_CHECKED;
void plumb_model_release(plumb_model *m);
layer_memory plumb_model_layer_memory(const plumb_model *m, int64_t layer);

static inline int plumb_linears_of(plumb_view view) { return view != PLUMB_VIEW_POLICY; }
static inline int64_t plumb_linear_index(int64_t layer, int which) { return layer * LINEARS + which; }
static inline const plumb_weight *plumb_value_weight(const value *v, plumb_view view) {
    return v->trained && (view == PLUMB_VIEW_POLICY || !v->base) ? v->trained : v->base;
}
static inline plumb_tensor plumb_value_vector(const value *v, plumb_view view) {
    return v->vector_trained.buffer && view == PLUMB_VIEW_POLICY ? v->vector_trained : v->vector_base;
}
#endif
