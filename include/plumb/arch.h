/* Architectures, parameters, and where their values come from.  Local.
 *
 * An architecture is a row of traits and names; there is one transformer (model.h). The parameter table is the single truth about a
 * model's parameters: LoRA targets, trainable sets, ZeRO ranges, checkpoints, `inspect` and `--dry-run` loop over it. */
#ifndef PLUMB_ARCH_H
#define PLUMB_ARCH_H
#include "plumb/io.h"

typedef enum plumb_rope_kind { PLUMB_ROPE_DEFAULT, PLUMB_ROPE_LINEAR, PLUMB_ROPE_LLAMA3 } plumb_rope_kind;
typedef struct plumb_arch {
    const char *family;        /* row of the architecture table: "llama" */
    int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, max_positions;
    double norm_eps;
    bool attention_bias, mlp_bias, tied; /* attention_bias: q, k, v and o, as transformers' LlamaConfig */
    /* a scalar head in place of the LM head, as in transformers' LlamaForSequenceClassification with one label */
    bool classifier;
    plumb_rope_kind rope;
    double rope_theta, rope_factor, rope_low, rope_high; /* factor; llama3: low_freq_factor, high_freq_factor */
    int64_t rope_original;     /* llama3: original_max_position_embeddings */
    int32_t bos, pad;          /* -1 = none */
    int32_t eos[8]; int n_eos;
} plumb_arch;
/* Inverse frequencies [head_dim/2], as transformers' rope utilities (NUMERICS: attention factor 1 for these kinds). */
void plumb_arch_inverse_frequencies(const plumb_arch *a, double *out);

typedef enum plumb_role {
    PLUMB_ROLE_EMBED,
    PLUMB_ROLE_ATTN_NORM,
    PLUMB_ROLE_Q,
    PLUMB_ROLE_K,
    PLUMB_ROLE_V,
    PLUMB_ROLE_O,
    PLUMB_ROLE_MLP_NORM,
    PLUMB_ROLE_GATE,
    PLUMB_ROLE_UP,
    PLUMB_ROLE_DOWN,
    PLUMB_ROLE_FINAL_NORM,
    PLUMB_ROLE_HEAD,
    PLUMB_ROLE_COUNT
} plumb_role;
typedef struct plumb_param {
    char name[96];             /* Hugging Face name: "model.layers.3.self_attn.q_proj.weight" */
    char gguf[64];             /* GGUF name: "blk.3.attn_q.weight" */
    plumb_role role;
    bool bias;                 /* the bias of that role */
    int32_t layer;             /* -1 outside layers */
    int64_t rows, cols;        /* a vector is [1, n] */
    bool decay;                /* weight decay as in transformers: all but norms and biases */
    bool linear;               /* a target of LoRA's all-linear: the seven projections (not the head) */
} plumb_param;
typedef struct plumb_params { plumb_param *items; int count; } plumb_params;
/* In the order embed, layers (norm, q, k, v, o, norm, gate, up, down; a bias follows its weight), final norm, head (absent when tied,
 * and in a classifier, whose scalar head is no row). */
plumb_status plumb_params_build(plumb_params *p, const plumb_arch *a) PLUMB_CHECKED;
void plumb_params_free(plumb_params *p);
int plumb_params_find(const plumb_params *p, plumb_role role, int32_t layer, bool bias); /* index, -1 when absent */

/* A model on disk: a Hugging Face directory (config.json as transformers 4 or 5 writes it + safetensors) or a GGUF file. */
typedef struct plumb_source plumb_source;
/* Options that plumb does not know (another model_type, rope_type, hidden_act, sliding window, quantisation, …) are refused by name;
 * missing, misshapen or extra tensors are PLUMB_E_FORMAT with the tensor's name and both shapes. config.json's
 * unknown harmless keys are ignored. */
plumb_status plumb_source_open(plumb_source **out, const char *path) PLUMB_CHECKED;
void plumb_source_close(plumb_source *s);
const plumb_arch *plumb_source_arch(const plumb_source *s);
const plumb_params *plumb_source_params(const plumb_source *s);
const char *plumb_source_path(const plumb_source *s);
/* The type that holds every stored value without loss: BF16 or F16 when all tensors are that, else F32. */
plumb_file_type plumb_source_type(const plumb_source *s);
/* Rows [first, first+rows) of a parameter as float [rows, cols]; first a multiple of 32 (or rows = all). GGUF's permuted q and k rows
 * are put back into Hugging Face order. NaN or infinite values: PLUMB_E_NUMERIC with tensor, row and column. */
plumb_status plumb_source_read(const plumb_source *s, int param, int64_t first, int64_t rows, float *out) PLUMB_CHECKED;
/* Gives back the memory of mapped pages until they are read again (after loading). */
void plumb_source_release(const plumb_source *s);
uint64_t plumb_source_identity(const plumb_source *s); /* hash of shapes and a sample of the bytes: tells models apart in checkpoints */
/* A sequence classifier of one label brings its scalar head [hidden]; plumb_source_score reads it (PLUMB_E_FORMAT where there is none). */
bool plumb_source_has_score(const plumb_source *s);
plumb_status plumb_source_score(const plumb_source *s, float *out) PLUMB_CHECKED;
/* For a model that is to score: what is built from the source from now on has no LM head. */
void plumb_source_as_classifier(plumb_source *s);

/* --- PEFT LoRA adapters ----------------------------------------------------------------------- */
typedef struct plumb_lora_config {
    int64_t r; double alpha, dropout; bool rslora;
    /* as written by the user or PEFT: "all-linear", suffixes, full names, or (target_regex) one pattern */
    char **target_modules; int n_target_modules;
    /* target_modules was a string in adapter_config.json: a full-match regular expression in PEFT */
    bool target_regex;
    char *base_model;
} plumb_lora_config;
void plumb_lora_config_free(plumb_lora_config *c);
/* alpha/r, or alpha/sqrt(r) with rslora. */
double plumb_lora_scale(const plumb_lora_config *c);
/* chosen[i] = true for every linear weight of the table that target_modules selects, with PEFT's rules (all-linear; suffix match
 * "q_proj" or "self_attn.q_proj" at a dot; full names). A target that matches nothing is PLUMB_E_CONFIG with the nearest module name.
 * lm_head and embeddings are refused by name. */
plumb_status plumb_lora_match(const plumb_lora_config *c, const plumb_params *p, bool *chosen) PLUMB_CHECKED;
typedef struct plumb_adapter { /* host copy; A [r, cols], B [rows, r] for every chosen parameter, NULL elsewhere */
    plumb_lora_config config;                  /* r 0: no matrices, a head alone */
    int n_params; float **a, **b;
    /* [n_score = hidden] weight of a scalar head (PEFT: task_type SEQ_CLS, `score` in modules_to_save); NULL without one */
    float *score; int64_t n_score;
} plumb_adapter;
/* Reads adapter_config.json + adapter_model.safetensors as PEFT 0.21 (and older) writes them. What changes the mathematics and is not
 * known (DoRA, lora_bias, modules_to_save other than a score head of one label, rank_pattern, alpha_pattern, other peft_type, …) is
 * refused by name. Keys that fit no parameter, missing halves, wrong shapes, NaN: errors. A directory with value_head.safetensors and
 * without adapter_config.json is a head alone, as plumb_head_save writes it. */
plumb_status plumb_adapter_load(plumb_adapter *a, const char *dir, const plumb_params *p) PLUMB_CHECKED;
void plumb_adapter_free(plumb_adapter *a);
/* Writes dir (created; both files atomically) so that PEFT 0.21 loads it. */
plumb_status plumb_adapter_save(const plumb_adapter *a, const char *dir, const plumb_params *p) PLUMB_CHECKED;
/* Writes the head alone to dir/value_head.safetensors (dir is created; an adapter in it is removed), under the names of TRL's
 * AutoModelForCausalLMWithValueHead. */
plumb_status plumb_head_save(const plumb_adapter *a, const char *dir) PLUMB_CHECKED;

/* weight [rows, cols] of parameter `param` becomes W + scale * (B A), in double, rounded once to `type` (for BF16 and F16: to a float
 * that the writer rounds to what one rounding gives). Nothing happens where the adapter has no matrices. */
plumb_status plumb_adapter_merge(const plumb_adapter *a, const plumb_params *p, int param, plumb_file_type type,
                                 float *weight) PLUMB_CHECKED;

/* Writes a full Hugging Face directory: config.json, generation_config.json, model.safetensors (sharded above 5 GB), from values
 * produced by fetch(user, param, out); of a classifier param -1 is the scalar head [hidden]. */
typedef plumb_status (*plumb_param_fetch)(void *user, int param, float *out);
plumb_status plumb_model_export(const char *dir, const plumb_arch *a, const plumb_params *p, plumb_file_type type, plumb_param_fetch fetch,
                                void *user) PLUMB_CHECKED;
/* The same with another size of shards in bytes. */
plumb_status plumb_model_export_sharded(const char *dir, const plumb_arch *a, const plumb_params *p, plumb_file_type type,
                                        plumb_param_fetch fetch, void *user, int64_t shard_bytes) PLUMB_CHECKED;
#endif
