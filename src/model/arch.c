/* The architecture table and what follows from a row alone: sizes, rotary frequencies, the relations between sizes.
 *
 * The invariant of a plumb_arch that left a reader: every size is positive and at most PLUMB_SIZE_LIMIT, heads divide
 * as attention needs, and so no product of sizes in the program can overflow an int64_t. */
#include "arch_table.h"
#include <math.h>
#include <string.h>

/* Short names, so that a role is a line of the table. */
#define ONE PLUMB_AXIS_ONE
#define VOCAB PLUMB_AXIS_VOCAB
#define WIDTH PLUMB_AXIS_HIDDEN
#define INNER PLUMB_AXIS_INTERMEDIATE
#define QUERY PLUMB_AXIS_QUERY
#define KEY PLUMB_AXIS_KEY
#define NONE PLUMB_BIAS_NEVER
#define ATTN PLUMB_BIAS_ATTENTION
#define MLP PLUMB_BIAS_MLP
enum { LAYER = PLUMB_ROW_LAYER, NORM = PLUMB_ROW_NORM, LINEAR = PLUMB_ROW_LINEAR, PAIRS = PLUMB_ROW_PAIRS };

/* clang-format off */
static const plumb_family families[] = {
  {.name = "llama", .model_type = "llama", .architecture = "LlamaForCausalLM", .classifier = "LlamaForSequenceClassification",
   .gguf = "llama", .roles = {
    /*                         Hugging Face                GGUF           rows   cols   bias  flags */
    [PLUMB_ROLE_EMBED]      = {"model.embed_tokens",       "token_embd",  VOCAB, WIDTH, NONE, 0},
    [PLUMB_ROLE_ATTN_NORM]  = {"input_layernorm",          "attn_norm",   ONE,   WIDTH, NONE, LAYER | NORM},
    [PLUMB_ROLE_Q]          = {"self_attn.q_proj",         "attn_q",      QUERY, WIDTH, ATTN, LAYER | LINEAR | PAIRS},
    [PLUMB_ROLE_K]          = {"self_attn.k_proj",         "attn_k",      KEY,   WIDTH, ATTN, LAYER | LINEAR | PAIRS},
    [PLUMB_ROLE_V]          = {"self_attn.v_proj",         "attn_v",      KEY,   WIDTH, ATTN, LAYER | LINEAR},
    [PLUMB_ROLE_O]          = {"self_attn.o_proj",         "attn_output", WIDTH, QUERY, ATTN, LAYER | LINEAR},
    [PLUMB_ROLE_MLP_NORM]   = {"post_attention_layernorm", "ffn_norm",    ONE,   WIDTH, NONE, LAYER | NORM},
    [PLUMB_ROLE_GATE]       = {"mlp.gate_proj",            "ffn_gate",    INNER, WIDTH, MLP,  LAYER | LINEAR},
    [PLUMB_ROLE_UP]         = {"mlp.up_proj",              "ffn_up",      INNER, WIDTH, MLP,  LAYER | LINEAR},
    [PLUMB_ROLE_DOWN]       = {"mlp.down_proj",            "ffn_down",    WIDTH, INNER, MLP,  LAYER | LINEAR},
    [PLUMB_ROLE_FINAL_NORM] = {"model.norm",               "output_norm", ONE,   WIDTH, NONE, NORM},
    [PLUMB_ROLE_HEAD]       = {"lm_head",                  "output",      VOCAB, WIDTH, NONE, 0},
  }},
};
/* clang-format on */
enum { FAMILIES = sizeof families / sizeof *families };

const plumb_size_names plumb_size_names_hf = {"num_hidden_layers",
                                              "num_attention_heads",
                                              "num_key_value_heads",
                                              "head_dim",
                                              "max_position_embeddings",
                                              "rms_norm_eps",
                                              "rope_theta",
                                              "rope_scaling/rope_parameters factor",
                                              {"1", "vocab_size", "hidden_size", "intermediate_size",
                                               "num_attention_heads x head_dim", "num_key_value_heads x head_dim"}};
const plumb_size_names plumb_size_names_gguf = {"block_count",
                                                "attention.head_count",
                                                "attention.head_count_kv",
                                                "attention.key_length",
                                                "context_length",
                                                "attention.layer_norm_rms_epsilon",
                                                "rope.freq_base",
                                                "rope.scaling.factor",
                                                {"1", "vocab_size", "embedding_length", "feed_forward_length",
                                                 "attention.head_count x key_length",
                                                 "attention.head_count_kv x key_length"}};

const plumb_family *plumb_family_by_name(const char *name) {
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].name, name)) return &families[i];
    return NULL;
}

const plumb_family *plumb_family_by_model_type(const char *name) {
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].model_type, name)) return &families[i];
    return NULL;
}

const plumb_family *plumb_family_by_gguf(const char *name) {
    for (int i = 0; i < FAMILIES; i++)
        if (!strcmp(families[i].gguf, name)) return &families[i];
    return NULL;
}

plumb_status plumb_family_list(plumb_str *out, bool gguf) {
    for (int i = 0; i < FAMILIES; i++)
        PLUMB_TRY(plumb_str_printf(out, "%s%s", i ? ", " : "", gguf ? families[i].gguf : families[i].model_type));
    return PLUMB_OK;
}

int64_t plumb_axis_size(const plumb_arch *a, plumb_axis axis) {
    switch (axis) {
    case PLUMB_AXIS_VOCAB: return a->vocab;
    case PLUMB_AXIS_HIDDEN: return a->hidden;
    case PLUMB_AXIS_INTERMEDIATE: return a->intermediate;
    case PLUMB_AXIS_QUERY: return a->heads * a->head_dim;
    case PLUMB_AXIS_KEY: return a->kv_heads * a->head_dim;
    default: return 1;
    }
}

/* default: theta^(-2i/D); linear: divided by the factor (Chen et al. 2023, position interpolation);
 * llama3: wavelengths above original/low are divided by the factor, those below original/high are kept, and between the
 * two the divided and the kept frequency are mixed by s = (original/wavelength - low)/(high - low), as in transformers'
 * rope utilities. */
void plumb_arch_inverse_frequencies(const plumb_arch *a, double *out) {
    const double pi = 3.14159265358979323846;
    for (int64_t i = 0; i < a->head_dim / 2; i++) {
        double f = 1.0 / pow(a->rope_theta, (double)(2 * i) / (double)a->head_dim);
        if (a->rope == PLUMB_ROPE_LINEAR) f /= a->rope_factor;
        if (a->rope == PLUMB_ROPE_LLAMA3) {
            double original = (double)a->rope_original, wavelength = 2 * pi / f;
            double s = (original / wavelength - a->rope_low) / (a->rope_high - a->rope_low);
            if (wavelength > original / a->rope_low)
                f /= a->rope_factor;
            else if (wavelength >= original / a->rope_high)
                f = (1 - s) * f / a->rope_factor + s * f;
        }
        out[i] = f;
    }
}

static plumb_status check_size(int64_t value, int64_t limit, const char *key, const char *path) {
    if (value >= 1 && value <= limit) return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT, "%s: %s is %lld, expected 1 to %lld", path, key, (long long)value,
                       (long long)limit);
}

static plumb_status check_positive(double value, const char *key, const char *path) {
    if (isfinite(value) && value > 0) return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT, "%s: %s is %g, expected a positive number", path, key, value);
}

static plumb_status check_rope(const plumb_arch *a, const plumb_size_names *names, const char *path) {
    PLUMB_TRY(check_positive(a->rope_theta, names->rope_theta, path));
    if (a->rope == PLUMB_ROPE_DEFAULT) return PLUMB_OK;
    PLUMB_TRY(check_positive(a->rope_factor, names->rope_factor, path));
    if (a->rope != PLUMB_ROPE_LLAMA3) return PLUMB_OK;
    PLUMB_TRY(check_size(a->rope_original, PLUMB_SIZE_LIMIT, "original_max_position_embeddings", path));
    PLUMB_TRY(check_positive(a->rope_low, "low_freq_factor", path));
    PLUMB_TRY(check_positive(a->rope_high, "high_freq_factor", path));
    if (a->rope_high <= a->rope_low)
        return plumb_error(PLUMB_E_FORMAT, "%s: high_freq_factor %g is not above low_freq_factor %g", path,
                           a->rope_high, a->rope_low);
    return PLUMB_OK;
}

plumb_status plumb_arch_check(const plumb_arch *a, const plumb_size_names *names, const char *path) {
    PLUMB_TRY(check_size(a->vocab, PLUMB_SIZE_LIMIT, names->axis[PLUMB_AXIS_VOCAB], path));
    PLUMB_TRY(check_size(a->hidden, PLUMB_SIZE_LIMIT, names->axis[PLUMB_AXIS_HIDDEN], path));
    PLUMB_TRY(check_size(a->intermediate, PLUMB_SIZE_LIMIT, names->axis[PLUMB_AXIS_INTERMEDIATE], path));
    PLUMB_TRY(check_size(a->layers, PLUMB_LAYER_LIMIT, names->layers, path));
    PLUMB_TRY(check_size(a->heads, a->hidden, names->heads, path));
    PLUMB_TRY(check_size(a->kv_heads, a->heads, names->kv_heads, path));
    PLUMB_TRY(check_size(a->head_dim, PLUMB_SIZE_LIMIT / a->heads, names->head_dim, path));
    PLUMB_TRY(check_size(a->max_positions, PLUMB_SIZE_LIMIT, names->max_positions, path));
    if (a->hidden % a->heads)
        return plumb_error(PLUMB_E_FORMAT, "%s: %s %lld is not a multiple of %s %lld", path,
                           names->axis[PLUMB_AXIS_HIDDEN], (long long)a->hidden, names->heads, (long long)a->heads);
    if (a->heads % a->kv_heads)
        return plumb_error(PLUMB_E_FORMAT, "%s: %s %lld is not a multiple of %s %lld", path, names->heads,
                           (long long)a->heads, names->kv_heads, (long long)a->kv_heads);
    if (a->head_dim % 2)
        return plumb_error(PLUMB_E_FORMAT, "%s: %s %lld is odd, but rotary positions need pairs", path, names->head_dim,
                           (long long)a->head_dim);
    if (!(a->norm_eps > 0 && a->norm_eps < 1))
        return plumb_error(PLUMB_E_FORMAT, "%s: %s is %g, expected a number between 0 and 1", path, names->norm_eps,
                           a->norm_eps);
    PLUMB_TRY(check_rope(a, names, path));
    const struct {
        const char *what;
        int64_t id;
    } ids[] = {{"beginning-of-sequence", a->bos}, {"padding", a->pad}};
    for (int i = 0; i < 2; i++)
        if (ids[i].id >= a->vocab)
            return plumb_error(PLUMB_E_FORMAT, "%s: the %s token id %lld is outside the vocabulary of %lld", path,
                               ids[i].what, (long long)ids[i].id, (long long)a->vocab);
    for (int i = 0; i < a->n_eos; i++)
        if (a->eos[i] >= a->vocab)
            return plumb_error(PLUMB_E_FORMAT, "%s: the end-of-sequence token id %d is outside the vocabulary of %lld",
                               path, (int)a->eos[i], (long long)a->vocab);
    return PLUMB_OK;
}

plumb_status plumb_arch_add_eos(plumb_arch *a, int32_t id, const char *path) {
    const int limit = (int)(sizeof a->eos / sizeof *a->eos);
    for (int i = 0; i < a->n_eos; i++)
        if (a->eos[i] == id) return PLUMB_OK;
    if (a->n_eos == limit)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: more than %d end-of-sequence token ids", path, limit);
    a->eos[a->n_eos++] = id;
    return PLUMB_OK;
}
