/* The transformer: built from an architecture's traits and a source of weights; views of one frozen base through adapters.
 *
 * Trainable values are one flat array of floats (values) with its twin (grads), laid out by the parameter table: LoRA A and B of a parameter, or the
 * parameter itself. ZeRO ranges, checkpoints and norms work on the flat array; the packed copies that products read are refreshed by
 * plumb_model_refresh after an update. The frozen base lies in memory shared by the ranks of a node where that is possible. */
#ifndef PLUMB_MODEL_H
#define PLUMB_MODEL_H
#include "plumb/arch.h"
#include "plumb/comm.h"
#include "plumb/nn.h"

typedef enum plumb_part { PLUMB_PART_FULL, PLUMB_PART_LORA_A, PLUMB_PART_LORA_B } plumb_part;
typedef struct plumb_trainable {
    int32_t param;          /* row of the parameter table */
    plumb_part part;
    int64_t offset, rows, cols; /* in the flat arrays */
    int32_t unit;           /* layer + 1; 0 = embedding, layers + 1 = final norm and head */
    bool decay;
} plumb_trainable;

typedef struct plumb_model plumb_model;
typedef struct plumb_model_options {
    const plumb_lora_config *lora;  /* NULL = none */
    const plumb_adapter *adapter;   /* initial values of LoRA (NULL: A Kaiming-uniform(sqrt 5) by seed, B zero) */
    bool freeze_adapter;            /* load the adapter for inference only */
    bool reference;                 /* keep what PLUMB_VIEW_REFERENCE needs */
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

int64_t plumb_model_trainable_count(const plumb_model *m);       /* floats in the flat arrays */
const plumb_trainable *plumb_model_trainables(const plumb_model *m, int *count);
void plumb_model_values_read(plumb_model *m, int64_t first, int64_t count, float *out);
void plumb_model_values_write(plumb_model *m, int64_t first, int64_t count, const float *in);
void plumb_model_grads_read(plumb_model *m, int64_t first, int64_t count, float *out);
void plumb_model_grads_zero(plumb_model *m);
void plumb_model_refresh(plumb_model *m); /* packed copies from values */
/* The adapter as it stands, for saving; borrows nothing. */
plumb_status plumb_model_adapter(plumb_model *m, plumb_adapter *out) PLUMB_CHECKED;
/* Present value of a parameter [rows, cols]: of the base, or as trained in full; with `merge` (may be NULL) an adapter is merged in and rounded for `type`. */
plumb_status plumb_model_param(plumb_model *m, const plumb_source *s, int param, const plumb_adapter *merge, plumb_file_type type, float *out) PLUMB_CHECKED;
/* A view says which values a forward pass sees: the policy (adapter 0, trained weights) or the reference, the policy as it was when training began
 * (no adapter, or the frozen copy of the starting adapter; base weights where those train in full). */
typedef enum plumb_view { PLUMB_VIEW_POLICY, PLUMB_VIEW_REFERENCE, PLUMB_VIEW_COUNT } plumb_view;
int32_t plumb_model_adapter_of(const plumb_model *m, plumb_view view); /* for the segments of its forests */

typedef struct plumb_forward_result { /* host, [n_targets] each; owned by the caller of plumb_model_forward (see below) */
    double *logp, *entropy;
    uint8_t *is_argmax;
    int64_t count, capacity;
} plumb_forward_result;
void plumb_forward_result_free(plumb_forward_result *r);

typedef struct plumb_dropout { double p; uint64_t seed; uint32_t step; } plumb_dropout;

/* Log-probabilities of the forest's targets into *r (grown as needed). training keeps what backward needs until the next forward.
 * dropout NULL = none. temperature divides logits. */
plumb_status plumb_model_forward(plumb_model *m, const plumb_forest *f, plumb_view view, bool training, const plumb_dropout *dropout, double temperature,
                                 plumb_forward_result *r) PLUMB_CHECKED;
/* Gradients of sum_j dlogp[j]*logp[j] accumulate in the flat array. Right after a training forward of the same forest. */
plumb_status plumb_model_backward(plumb_model *m, const double *dlogp) PLUMB_CHECKED;
/* Logits [n_targets, V] of the listed rows (the targets' tokens are ignored), to host memory, policy view.
 * kv NULL: pages of this batch alone; otherwise keys and values of all layers persist there (decoding). */
plumb_status plumb_model_logits(plumb_model *m, const plumb_forest *f, plumb_kv *kv, float *out) PLUMB_CHECKED;
plumb_status plumb_model_kv_create(plumb_model *m, int64_t slots, plumb_kv **out) PLUMB_CHECKED;
void plumb_model_kv_free(plumb_model *m, plumb_kv *kv);
/* Bytes that training a micro-batch of `tokens` tokens with `targets` targets needs beside the weights. Local; allocates nothing. */
size_t plumb_model_workspace_bytes(const plumb_model *m, int64_t tokens, int64_t targets);
#endif
