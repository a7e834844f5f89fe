/* GGUF metadata of llama.cpp's Llama family into a plumb_arch.
 *
 * Every key under the architecture's prefix is understood, harmless or refused: a key that is none of these may change
 * the mathematics. GGUF stores reals as float32; the shortest decimal that gives the same float32 is what the model's
 * author wrote (1e-05, not 9.99999974e-06).
 *
 * Llama 3's scaled rotary frequencies are not metadata: llama.cpp's converter writes them as a tensor rope_freqs.weight
 * of head_dim/2 divisors: 1 where the wavelength is below original/high, `factor` above original/low, 1/((1-s)/factor +
 * s) between (s as in arch.c). The parameters are recovered by trying the one published choice of low and high (1 and
 * 4) with each power of two for the original length, and kept only if they reproduce every divisor; anything else is
 * refused. */
#include "arch_table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct gguf_keys {
    const plumb_gguf *g;
    const char *prefix; /* "llama" */
} gguf_keys;

static const plumb_gguf_value *key_value(const gguf_keys *k, const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", k->prefix, key);
    return plumb_gguf_find(k->g, full);
}

static bool is_integer(plumb_gguf_type t) {
    return t == PLUMB_GGUF_U8 || t == PLUMB_GGUF_I8 || t == PLUMB_GGUF_U16 || t == PLUMB_GGUF_I16 ||
           t == PLUMB_GGUF_U32 || t == PLUMB_GGUF_I32 || t == PLUMB_GGUF_U64 || t == PLUMB_GGUF_I64;
}

static plumb_status integer_of(const gguf_keys *k, const plumb_gguf_value *v, int64_t *out) {
    if (v->type == PLUMB_GGUF_ARRAY)
        return plumb_error(PLUMB_E_UNSUPPORTED,
                           "%s: %s differs by layer (an array); supported: one number for all layers", k->g->path,
                           v->key);
    if (!is_integer(v->type)) return plumb_error(PLUMB_E_FORMAT, "%s: %s is not an integer", k->g->path, v->key);
    if (v->type == PLUMB_GGUF_U64 && v->u > INT64_MAX)
        return plumb_error(PLUMB_E_FORMAT, "%s: %s is %llu, far too large", k->g->path, v->key,
                           (unsigned long long)v->u);
    *out = v->i;
    return PLUMB_OK;
}

static plumb_status read_int(const gguf_keys *k, const char *key, int64_t *out) { /* keeps *out when absent */
    const plumb_gguf_value *v = key_value(k, key);
    return v ? integer_of(k, v, out) : PLUMB_OK;
}

static plumb_status read_size(const gguf_keys *k, const char *key, int64_t *out) {
    if (!key_value(k, key)) return plumb_error(PLUMB_E_FORMAT, "%s: %s.%s is missing", k->g->path, k->prefix, key);
    return read_int(k, key, out);
}

static double shortest_decimal(float f) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        if (strtof(text, NULL) == f) return strtod(text, NULL);
    }
    return f;
}

static plumb_status read_real(const gguf_keys *k, const char *key, double *out) {
    const plumb_gguf_value *v = key_value(k, key);
    if (!v) return PLUMB_OK;
    if (v->type == PLUMB_GGUF_F32)
        *out = shortest_decimal((float)v->f);
    else if (v->type == PLUMB_GGUF_F64 || is_integer(v->type))
        *out = v->f;
    else
        return plumb_error(PLUMB_E_FORMAT, "%s: %s is not a number", k->g->path, v->key);
    return PLUMB_OK;
}

static bool string_is(plumb_gguf_string s, const char *text) {
    return s.length == strlen(text) && !memcmp(s.data, text, s.length);
}

static int shown(plumb_gguf_string s) {
    return (int)(s.length < 100 ? s.length : 100);
}

/* --- what is refused -------------------------------------------------------------------------- */

static plumb_status find_family(const plumb_gguf *g, const plumb_family **family) {
    plumb_str names = {0};
    const plumb_gguf_value *v = plumb_gguf_find(g, "general.architecture");
    if (!v || v->type != PLUMB_GGUF_STRING)
        return plumb_error(PLUMB_E_FORMAT, "%s: general.architecture is missing", g->path);
    char name[64];
    snprintf(name, sizeof name, "%.*s", shown(v->s), v->s.data);
    *family = plumb_family_by_gguf(name);
    if (*family && strlen(name) == v->s.length) return PLUMB_OK;
    plumb_status status = plumb_family_list(&names, true);
    if (status == PLUMB_OK)
        status = plumb_error(PLUMB_E_UNSUPPORTED, "%s: general.architecture '%s' is not supported; supported: %s",
                             g->path, name, names.data);
    plumb_str_free(&names);
    return status;
}

static plumb_status check_known_keys(const gguf_keys *k) {
    static const char *const known[] = {"context_length",
                                        "embedding_length",
                                        "block_count",
                                        "feed_forward_length",
                                        "vocab_size",
                                        "attention.head_count",
                                        "attention.head_count_kv",
                                        "attention.layer_norm_rms_epsilon",
                                        "attention.key_length",
                                        "attention.value_length",
                                        "rope.freq_base",
                                        "rope.dimension_count",
                                        "rope.scaling.type",
                                        "rope.scaling.factor",
                                        "rope.scaling.original_context_length",
                                        "rope.scaling.finetuned",
                                        "tensor_data_layout",
                                        "expert_count",
                                        "expert_used_count",
                                        "attention.sliding_window"};
    size_t prefix = strlen(k->prefix);
    for (int64_t i = 0; i < k->g->n_values; i++) {
        const char *key = k->g->values[i].key;
        if (strncmp(key, k->prefix, prefix) || key[prefix] != '.') continue;
        bool found = false;
        for (size_t j = 0; j < sizeof known / sizeof *known && !found; j++) found = !strcmp(key + prefix + 1, known[j]);
        if (!found) return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %.150s is not supported", k->g->path, key);
    }
    return PLUMB_OK;
}

static plumb_status check_refused(const gguf_keys *k) {
    static const char *const zero[] = {"expert_count", "expert_used_count", "attention.sliding_window"};
    PLUMB_TRY(check_known_keys(k));
    for (size_t i = 0; i < sizeof zero / sizeof *zero; i++) {
        int64_t value = 0;
        PLUMB_TRY(read_int(k, zero[i], &value));
        if (value)
            return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s.%s %lld is not supported; supported: absent or 0",
                               k->g->path, k->prefix, zero[i], (long long)value);
    }
    const plumb_gguf_value *split = plumb_gguf_find(k->g, "split.count");
    if (split && is_integer(split->type) && split->u > 1)
        return plumb_error(PLUMB_E_UNSUPPORTED,
                           "%s: split.count %llu: a model in several GGUF files is not supported; join them first",
                           k->g->path, (unsigned long long)split->u);
    return PLUMB_OK;
}

/* --- rotary positions ------------------------------------------------------------------------- */

enum { MAX_FREQUENCIES = 512 };

/* Whether `candidate` gives the stored divisors. The factor is read off the lowest frequency first. */
static bool fits(plumb_arch *candidate, const float *divisors, int64_t count) {
    const double pi = 3.14159265358979323846;
    double plain[MAX_FREQUENCIES], scaled[MAX_FREQUENCIES];
    plumb_arch unscaled = *candidate;
    unscaled.rope = PLUMB_ROPE_DEFAULT;
    plumb_arch_inverse_frequencies(&unscaled, plain);
    double turns = (double)candidate->rope_original * plain[count - 1] / (2 * pi), lowest = divisors[count - 1];
    if (turns >= candidate->rope_high) return false; /* nothing would be scaled: the factor cannot be read */
    double s =
        turns < candidate->rope_low ? 0 : (turns - candidate->rope_low) / (candidate->rope_high - candidate->rope_low);
    double factor = (1 - s) / (1 / lowest - s);
    if (!(factor > 1) || !isfinite(factor)) return false;
    double whole = nearbyint(factor);
    candidate->rope_factor = fabs(factor - whole) < 1e-4 * factor ? whole : factor;
    plumb_arch_inverse_frequencies(candidate, scaled);
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(plain[i] / scaled[i] - divisors[i]) <= 1e-4 * divisors[i]))
            return false; /* the converter works in float32 */
    return true;
}

static plumb_status read_divisors(const plumb_gguf *g, plumb_arch *a) {
    const plumb_file_tensor *t = plumb_gguf_tensor(g, "rope_freqs.weight");
    if (!t) return PLUMB_OK;
    int64_t count = a->head_dim / 2;
    float divisors[MAX_FREQUENCIES];
    if (t->n_dims != 1 || t->shape[0] != count || t->type != PLUMB_FT_F32)
        return plumb_error(PLUMB_E_FORMAT, "%s: rope_freqs.weight is not a float32 vector of %lld", g->path,
                           (long long)count);
    if (count > MAX_FREQUENCIES)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: rope_freqs.weight with heads wider than %d", g->path,
                           2 * MAX_FREQUENCIES);
    PLUMB_TRY(plumb_tensor_to_float(t, 0, count, divisors));
    bool plain = true;
    for (int64_t i = 0; i < count; i++) plain = plain && divisors[i] == 1.0f;
    if (plain) return PLUMB_OK;
    if (a->rope == PLUMB_ROPE_DEFAULT)
        for (int64_t original = 8192, tried = 0; tried < 20;
             tried++) { /* 8192 is every published model; then 16, 32, ... 2^21 */
            plumb_arch candidate = *a;
            candidate.rope = PLUMB_ROPE_LLAMA3;
            candidate.rope_low = 1;
            candidate.rope_high = 4;
            candidate.rope_original = original;
            if (fits(&candidate, divisors, count)) {
                *a = candidate;
                return PLUMB_OK;
            }
            original = (int64_t)16 << tried;
        }
    return plumb_error(
        PLUMB_E_UNSUPPORTED,
        "%s: the frequency divisors in rope_freqs.weight are not Llama 3's (low_freq_factor 1, high_freq_factor 4)",
        g->path);
}

static plumb_status read_rope(const gguf_keys *k, plumb_arch *a) {
    a->rope_theta = 10000.0;
    PLUMB_TRY(read_real(k, "rope.freq_base", &a->rope_theta));
    int64_t rotated = a->head_dim;
    PLUMB_TRY(read_int(k, "rope.dimension_count", &rotated));
    if (rotated != a->head_dim)
        return plumb_error(
            PLUMB_E_UNSUPPORTED,
            "%s: %s.rope.dimension_count %lld is not the head's width %lld; partial rotation is not supported",
            k->g->path, k->prefix, (long long)rotated, (long long)a->head_dim);
    const plumb_gguf_value *type = key_value(k, "rope.scaling.type");
    if (type && type->type != PLUMB_GGUF_STRING)
        return plumb_error(PLUMB_E_FORMAT, "%s: %s is not a string", k->g->path, type->key);
    if (type && string_is(type->s, "linear")) {
        a->rope = PLUMB_ROPE_LINEAR;
        a->rope_factor = 1;
        PLUMB_TRY(read_real(k, "rope.scaling.factor", &a->rope_factor));
    } else if (type && !string_is(type->s, "none"))
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s '%.*s' is not supported; supported: none, linear", k->g->path,
                           type->key, shown(type->s), type->s.data);
    return PLUMB_OK;
}

/* --- the whole -------------------------------------------------------------------------------- */

static plumb_status read_sizes(const gguf_keys *k, plumb_arch *a) {
    PLUMB_TRY(read_size(k, "embedding_length", &a->hidden));
    PLUMB_TRY(read_size(k, "feed_forward_length", &a->intermediate));
    PLUMB_TRY(read_size(k, "block_count", &a->layers));
    PLUMB_TRY(read_size(k, "attention.head_count", &a->heads));
    PLUMB_TRY(read_size(k, "context_length", &a->max_positions));
    a->kv_heads = a->heads;
    PLUMB_TRY(read_int(k, "attention.head_count_kv", &a->kv_heads));
    a->head_dim = a->heads > 0 ? a->hidden / a->heads : 0;
    PLUMB_TRY(read_int(k, "attention.key_length", &a->head_dim));
    int64_t value_dim = a->head_dim;
    PLUMB_TRY(read_int(k, "attention.value_length", &value_dim));
    if (value_dim != a->head_dim)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s.attention.value_length %lld differs from the key's %lld",
                           k->g->path, k->prefix, (long long)value_dim, (long long)a->head_dim);
    if (!key_value(k, "attention.layer_norm_rms_epsilon"))
        return plumb_error(PLUMB_E_FORMAT, "%s: %s.attention.layer_norm_rms_epsilon is missing", k->g->path, k->prefix);
    PLUMB_TRY(read_real(k, "attention.layer_norm_rms_epsilon", &a->norm_eps));
    const plumb_file_tensor *embedding = plumb_gguf_tensor(k->g, "token_embd.weight");
    if (!embedding || embedding->n_dims != 2)
        return plumb_error(PLUMB_E_FORMAT, "%s: the matrix token_embd.weight is missing", k->g->path);
    a->vocab = embedding->shape[0];
    PLUMB_TRY(read_int(k, "vocab_size", &a->vocab)); /* a wrong one shows when shapes are compared */
    a->tied = !plumb_gguf_tensor(k->g, "output.weight");
    a->attention_bias = plumb_gguf_tensor(k->g, "blk.0.attn_output.bias") != NULL;
    a->mlp_bias = plumb_gguf_tensor(k->g, "blk.0.ffn_down.bias") != NULL;
    return PLUMB_OK;
}

static plumb_status read_token(const gguf_keys *k, const char *key, int32_t *out) {
    const plumb_gguf_value *v = plumb_gguf_find(k->g, key);
    int64_t id = -1;
    if (!v) return PLUMB_OK;
    PLUMB_TRY(integer_of(k, v, &id));
    if (v->type == PLUMB_GGUF_U32 && id == UINT32_MAX) id = -1; /* "none", as some writers say it */
    if (id < -1 || id > INT32_MAX)
        return plumb_error(PLUMB_E_FORMAT, "%s: %s %lld is not a token id", k->g->path, key, (long long)id);
    *out = (int32_t)id;
    return PLUMB_OK;
}

static plumb_status read_tokens(const gguf_keys *k, plumb_arch *a) {
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    PLUMB_TRY(read_token(k, "tokenizer.ggml.bos_token_id", &a->bos));
    PLUMB_TRY(read_token(k, "tokenizer.ggml.padding_token_id", &a->pad));
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int32_t id = -1;
        PLUMB_TRY(read_token(k, ends[i], &id));
        if (id >= 0) PLUMB_TRY(plumb_arch_add_eos(a, id, k->g->path));
    }
    return PLUMB_OK;
}

plumb_status plumb_arch_from_gguf(plumb_arch *a, const plumb_gguf *g) {
    const plumb_family *family = NULL;
    *a = (plumb_arch){.bos = -1, .pad = -1};
    PLUMB_TRY(find_family(g, &family));
    gguf_keys k = {g, family->gguf};
    a->family = family->name;
    PLUMB_TRY(check_refused(&k));
    PLUMB_TRY(read_sizes(&k, a));
    PLUMB_TRY(read_rope(&k, a));
    PLUMB_TRY(read_tokens(&k, a));
    PLUMB_TRY(plumb_arch_check(a, &plumb_size_names_gguf, g->path));
    PLUMB_TRY(read_divisors(g, a));
    return plumb_arch_check(a, &plumb_size_names_gguf, g->path);
}
