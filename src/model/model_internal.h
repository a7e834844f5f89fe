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
    int64_t pool_floats, kept; /* the first `kept` layers of this pass have memory of their own; the others share one and are computed again */
    int64_t pool_rows;         /* of this pass: the layout of the pool */
    plumb_tensor normed, branch, hidden, gradient, dbranch, dq, dk, dv, rows, rows_normed, rows_rstd, u, dlogp, stats;
    plumb_tensor listed_input, listed_o, listed_do, listed_scale[PLUMB_MAX_ADAPTERS]; /* of the last layer, on the listed rows: see transformer.c */
    plumb_kv *kv;
    int64_t kv_slots;
} workspace;

struct plumb_model {
    plumb_backend *be;
    plumb_arch arch;
    plumb_params params;
    plumb_attention attention;
    plumb_lora_config lora;    /* borrowed strings of the caller's config are copied */
    bool has_lora, checkpointing, wants_reference, reference_adapter, trains_full;
    size_t logits_budget;
    int64_t usual_tokens;
    double lora_scale[PLUMB_MAX_ADAPTERS];

    value *values;             /* [params.count] */
    plumb_linear *linears[PLUMB_VIEW_COUNT]; /* [layers * LINEARS] */
    plumb_shared *shared;
    bool is_shared;
    plumb_buffer *vectors;     /* gains and biases */
    plumb_buffer *rope;
    plumb_tensor rope_table;
    int64_t rope_positions;

    plumb_trainable *trainables;
    int n_trainables;
    int64_t n_flat;
    plumb_buffer *flat_values, *flat_grads;

    plumb_linear_work work;
    int64_t work_rows;
    workspace space;
    plumb_batch *batch;        /* of the last training forward */
    plumb_view view;
    int64_t rows, targets;     /* of the last forward */
    bool narrow;               /* the last forward's last layer went over the listed rows only */
    bool trained_forward;
};

/* trainable.c */
plumb_status plumb_model_plan_trainables(plumb_model *m, const plumb_model_options *o, bool *full, bool *chosen) PLUMB_CHECKED;
plumb_status plumb_model_attach_trainables(plumb_model *m, const plumb_source *s, const plumb_model_options *o, const bool *full, const bool *chosen) PLUMB_CHECKED;
/* Gives the policy's linears their LoRA matrices (and the frozen copy that the reference view reads), from the adapter or by seed. */
plumb_status plumb_model_attach_adapters(plumb_model *m, const plumb_model_options *o, const bool *chosen) PLUMB_CHECKED;
/* workspace.c */
plumb_status plumb_model_reserve(plumb_model *m, const plumb_forest *f, bool training) PLUMB_CHECKED;
void plumb_model_release(plumb_model *m);
layer_memory plumb_model_layer_memory(const plumb_model *m, int64_t layer);

static inline int64_t plumb_linear_index(int64_t layer, int which) { return layer * LINEARS + which; }
static inline const plumb_weight *plumb_value_weight(const value *v, plumb_view view) {
    return v->trained && (view == PLUMB_VIEW_POLICY || !v->base) ? v->trained : v->base;
}
static inline plumb_tensor plumb_value_vector(const value *v, plumb_view view) {
    return v->vector_trained.buffer && view == PLUMB_VIEW_POLICY ? v->vector_trained : v->vector_base;
}
#endif
