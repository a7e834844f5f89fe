/* The architecture table, shared by the files of this folder that read, name and write models.
 *
 * One row per family, one entry per role. Everything that differs between families - names, shapes, which bias belongs
 * to what, how GGUF stores the projections that are rotated - stands in the row, so that adding a family is adding a
 * row (and traits to plumb_arch where its mathematics is new). */
#ifndef PLUMB_MODEL_ARCH_TABLE_H
#define PLUMB_MODEL_ARCH_TABLE_H
#include "plumb/arch.h"

typedef enum plumb_axis { /* what a dimension of a weight counts */
                          PLUMB_AXIS_ONE,
                          PLUMB_AXIS_VOCAB,
                          PLUMB_AXIS_HIDDEN,
                          PLUMB_AXIS_INTERMEDIATE,
                          PLUMB_AXIS_QUERY, /* heads x head_dim */
                          PLUMB_AXIS_KEY,   /* kv_heads x head_dim */
                          PLUMB_AXIS_COUNT
} plumb_axis;

typedef enum plumb_bias { PLUMB_BIAS_NEVER, PLUMB_BIAS_ATTENTION, PLUMB_BIAS_MLP } plumb_bias;

enum {                       /* flags of a role */
       PLUMB_ROW_LAYER = 1,  /* one in every layer */
       PLUMB_ROW_NORM = 2,   /* a norm's gain: [1, cols], no weight decay */
       PLUMB_ROW_LINEAR = 4, /* an adapter may be put on it */
       PLUMB_ROW_PAIRS =
           8 /* GGUF stores the rows of each head as (0, D/2), (1, D/2 + 1), ... for interleaved rotation */
};

typedef struct plumb_role_row {
    const char *hf, *gguf; /* module without ".weight"; inside a layer: what follows "model.layers.N." and "blk.N." */
    plumb_axis rows, cols; /* of the weight */
    plumb_bias bias;
    unsigned flags;
} plumb_role_row;

typedef struct plumb_family {
    const char *name;         /* plumb_arch.family */
    const char *model_type;   /* config.json */
    const char *architecture; /* config.json's architectures, */
    const char *classifier;   /* and of a sequence classifier */
    const char *gguf;         /* general.architecture, and the prefix of its keys */
    plumb_role_row roles[PLUMB_ROLE_COUNT];
} plumb_family;

/* How a format spells the sizes, for messages. */
typedef struct plumb_size_names {
    const char *layers, *heads, *kv_heads, *head_dim, *max_positions, *norm_eps, *rope_theta, *rope_factor;
    const char *axis[PLUMB_AXIS_COUNT];
} plumb_size_names;
extern const plumb_size_names plumb_size_names_hf, plumb_size_names_gguf;

enum { PLUMB_SIZE_LIMIT = 1 << 28, PLUMB_LAYER_LIMIT = 1 << 14 }; /* products of two sizes stay far below 2^63 bytes */

const plumb_family *plumb_family_by_name(const char *name);       /* NULL when absent */
const plumb_family *plumb_family_by_model_type(const char *name); /* NULL when absent */
const plumb_family *plumb_family_by_gguf(const char *name);       /* NULL when absent */
/* "llama, mistral": the supported names of a format, into *out (append). */
plumb_status plumb_family_list(plumb_str *out, bool gguf) PLUMB_CHECKED;
int64_t plumb_axis_size(const plumb_arch *a, plumb_axis axis);

/* The relations that any reader must ensure before weights are looked at; `path` is for messages. */
plumb_status plumb_arch_check(const plumb_arch *a, const plumb_size_names *names, const char *path) PLUMB_CHECKED;
/* Adds an end-of-sequence id unless it is there; PLUMB_E_UNSUPPORTED beyond the eight that fit. */
plumb_status plumb_arch_add_eos(plumb_arch *a, int32_t id, const char *path) PLUMB_CHECKED;

/* <dir>/config.json and, when present, <dir>/generation_config.json. */
plumb_status plumb_arch_from_hf(plumb_arch *a, const char *dir) PLUMB_CHECKED;
plumb_status plumb_arch_from_gguf(plumb_arch *a, const plumb_gguf *g) PLUMB_CHECKED;
#endif
