/* The transformer: built from an architecture's traits and a source of weights; views of one frozen base through adapters.
 *
 * Trainable values are one flat array of floats (values) with its twin (grads), laid out by the parameter table: LoRA A and B of a
 * parameter, or the parameter itself. ZeRO ranges, checkpoints and norms work on the flat array; the packed copies that products read
 * are refreshed by plumb_model_refresh after an update. The frozen base lies in memory shared by the ranks of a
 * node where that is possible. */
#ifndef PLUMB_MODEL_H
#define PLUMB_MODEL_H
#include "plumb/arch.h"
#include "plumb/comm.h"
#include "plumb/nn.h"

typedef enum plumb_part { PLUMB_PART_FULL, PLUMB_PART_LORA_A, PLUMB_PART_LORA_B, PLUMB_PART_SCORE } plumb_part;
typedef struct plumb_trainable {
    int32_t param;          /* row of the parameter table; -1: a scalar head */
    plumb_part part;
    int32_t view;           /* whose adapter or head (plumb_view) */
    int64_t offset, rows, cols; /* in the flat arrays */
    int32_t unit;           /* layer + 1; 0 = embedding, layers + 1 = final norm and heads; further units for the value model's adapter */
    bool decay;
} plumb_trainable;

/* A view says which values a forward pass sees: the policy (adapter 0, trained weights); the reference, the policy as it was when
 * training began (no adapter, or the frozen copy of the starting adapter; base weights where those train in full); the reward model and
 * the value model, adapters and scalar heads of their own on the base. */
typedef enum plumb_view { PLUMB_VIEW_POLICY, PLUMB_VIEW_REFERENCE, PLUMB_VIEW_REWARD, PLUMB_VIEW_VALUE, PLUMB_VIEW_COUNT } plumb_view;

typedef struct plumb_model plumb_model;
typedef enum plumb_head_start {
    PLUMB_HEAD_NONE,
    PLUMB_HEAD_ZERO,
    PLUMB_HEAD_RANDOM /* normal, std 1/sqrt(hidden + 1), by seed */
} plumb_head_start;
typedef struct plumb_model_options {
    const plumb_lora_config *lora;  /* NULL = none */
    /* initial values of LoRA (NULL: A Kaiming-uniform(sqrt 5) by seed, B zero), and of the policy's scalar head if it has one */
    const plumb_adapter *adapter;
    /* plumb_view whose random numbers the first view's adapter starts from: PLUMB_VIEW_VALUE for a value model of its own */
    int32_t random_as;
    bool freeze_adapter;            /* load the adapter for inference only */
    bool reference;                 /* keep what PLUMB_VIEW_REFERENCE needs */
    /* a scalar head on the policy, trained unless freeze_adapter; an adapter's own head comes first, then a sequence classifier's */
    plumb_head_start head;
    const plumb_adapter *head_from; /* that head starts from this one's; NULL: as said */
    const plumb_adapter *reward;    /* frozen, with a head: PLUMB_VIEW_REWARD */
    bool reward_base;               /* PLUMB_VIEW_REWARD is the base as it is: a sequence classifier with its own head */
    const plumb_lora_config *value_lora; /* PLUMB_VIEW_VALUE, trained: a fresh adapter, */
    const plumb_adapter *value;     /* or one that starts here, with its head; without one the head starts at zero */
    char **train_modules; int n_train_modules; /* patterns (fnmatch) of parameter names trained in full; "all" = every parameter */
    uint64_t seed;
    plumb_storage frozen;           /* of the frozen base matrices, embedding and head among them; what trains, and LoRA, is native */
    bool checkpointing;
    size_t logits_budget;           /* bytes */
    int64_t tokens;                 /* of a usual micro-batch: memory is taken for as many at once, so that it seldom grows; 0 = unknown */
} plumb_model_options;

/* Collective over the node (shared memory). Loads weights from the source in parallel over the ranks of the node. */
plumb_status plumb_model_create(plumb_model **out, plumb_backend *be, const plumb_source *s, const plumb_model_options *o) PLUMB_CHECKED;
void plumb_model_free(plumb_model *m); /* Collective over the node */
const plumb_arch *plumb_model_arch(const plumb_model *m);
bool plumb_model_shared(const plumb_model *m); /* whether the frozen base is one copy per node */
/* Of that base: what is frozen, and copies that a reference keeps of what trains. */
size_t plumb_model_base_bytes(const plumb_model *m);

int64_t plumb_model_trainable_count(const plumb_model *m);       /* floats in the flat arrays */
const plumb_trainable *plumb_model_trainables(const plumb_model *m, int *count);
void plumb_model_values_read(plumb_model *m, int64_t first, int64_t count, float *out);
void plumb_model_values_write(plumb_model *m, int64_t first, int64_t count, const float *in);
void plumb_model_grads_read(plumb_model *m, int64_t first, int64_t count, float *out);
void plumb_model_grads_zero(plumb_model *m);
void plumb_model_refresh(plumb_model *m); /* packed copies from values */
/* A view's adapter and scalar head as they stand, for saving; borrows nothing. */
plumb_status plumb_model_adapter(plumb_model *m, plumb_view view, plumb_adapter *out) PLUMB_CHECKED;
bool plumb_model_has_head(const plumb_model *m, plumb_view view);
int plumb_model_units(const plumb_model *m); /* of the trainables */
/* Present value of a parameter [rows, cols]: of the base, or as trained in full; with `merge` (may be NULL) an adapter
 * is merged in and rounded for `type`. */
plumb_status plumb_model_param(plumb_model *m, const plumb_source *s, int param, const plumb_adapter *merge, plumb_file_type type,
                               float *out) PLUMB_CHECKED;
int32_t plumb_model_adapter_of(const plumb_model *m, plumb_view view); /* for the segments of its forests */

typedef struct plumb_forward_result { /* host, [n_targets] each; owned by the caller of plumb_model_forward (see below) */
    double *logp, *entropy;  /* of the targets' tokens */
    uint8_t *is_argmax;
    double *values;          /* of the scalar head on the targets' rows */
    int64_t count, capacity;
} plumb_forward_result;
void plumb_forward_result_free(plumb_forward_result *r);

typedef struct plumb_dropout { double p; uint64_t seed; uint32_t step; } plumb_dropout;

typedef struct plumb_pass {
    plumb_view view;
    bool training;                  /* keep what backward needs until the next forward */
    /* what to compute: log-probabilities of the targets' tokens, the view's scalar head on the targets' rows, or both */
    bool logprobs, values;
    /* training: keep what the gradient of the entropy needs (with logprobs; the head and what it is tied to must be frozen) */
    bool entropy;
    double temperature;             /* divides logits; 0 = 1 */
    const plumb_dropout *dropout;   /* NULL = none */
} plumb_pass;
/* Into *r, grown as needed; what is not asked for keeps its memory and has no meaning. */
plumb_status plumb_model_forward(plumb_model *m, const plumb_forest *f, const plumb_pass *pass, plumb_forward_result *r) PLUMB_CHECKED;
/* Derivatives of the loss by what the forward pass gave, [n_targets] each; NULL = none. */
typedef struct plumb_gradients { const double *logp, *entropy, *values; } plumb_gradients;
/* Gradients of sum_j logp'[j]*logp[j] + entropy'[j]*entropy[j] + values'[j]*values[j] accumulate in the flat array. Right after a
 * training forward of the same forest. */
plumb_status plumb_model_backward(plumb_model *m, const plumb_gradients *d) PLUMB_CHECKED;
/* Decoding. Logits [n_targets, V] of the listed rows (the targets' tokens are ignored) stay with the model and are copied to `out`.
 * kv NULL: pages of this batch alone; otherwise keys and values of all layers persist there. */
plumb_status plumb_model_decode(plumb_model *m, const plumb_forest *f, plumb_view view, plumb_kv *kv, float *out) PLUMB_CHECKED;
/* Right after: log-probability and entropy of the tokens [n_targets] that were chosen, with the bits that plumb_model_forward gives
 * them. Once per decode. */
plumb_status plumb_model_token_stats(plumb_model *m, const int32_t *tokens, double temperature, double *logp,
                                     double *entropy) PLUMB_CHECKED;
/* Likewise: what the view's scalar head says of the listed rows [n_targets]. */
plumb_status plumb_model_decoded_values(plumb_model *m, double *values) PLUMB_CHECKED;
size_t plumb_model_kv_bytes(const plumb_model *m); /* of one page of 64 tokens, all layers */
plumb_status plumb_model_kv_create(plumb_model *m, int64_t slots, plumb_kv **out) PLUMB_CHECKED;
void plumb_model_kv_free(plumb_model *m, plumb_kv *kv);
/* Bytes that training a micro-batch of `tokens` tokens with `targets` targets needs beside the weights. Local; allocates nothing. */
size_t plumb_model_workspace_bytes(const plumb_model *m, int64_t tokens, int64_t targets);
#endif
