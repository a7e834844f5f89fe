/* config.json and generation_config.json, as transformers 4 and 5 write them, into a plumb_arch.
 *
 * The rule: a key that changes the mathematics is either understood or refused by name; a key that transformers' own
 * class does not read is ignored. Defaults of absent keys are those of transformers' LlamaConfig, sizes excepted: a
 * file without them is not a model. transformers 4 has rope_theta and rope_scaling at the top, transformers 5 has both
 * in rope_parameters; where a file has both, rope_scaling wins, as it does there. */
#include "arch_table.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct config_file {
    const json_t *root;
    const char *path;
} config_file;

static const char *kind_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a real number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
    }
}

/* NULL when the key is absent or null: the two mean the same in every key read here. */
static const json_t *value_of(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return v && !json_is_null(v) ? v : NULL;
}

static plumb_status wrong_kind(const config_file *f, const char *key, const json_t *v, const char *expected) {
    return plumb_error(PLUMB_E_FORMAT, "%s: %s is %s, expected %s", f->path, key, kind_of(v), expected);
}

static plumb_status read_int(const config_file *f, const char *key, int64_t *out) { /* keeps *out when absent */
    const json_t *v = value_of(f->root, key);
    if (!v) return PLUMB_OK;
    if (!json_is_integer(v)) return wrong_kind(f, key, v, "an integer");
    *out = json_integer_value(v);
    return PLUMB_OK;
}

static plumb_status read_size(const config_file *f, const char *key, int64_t *out) { /* required */
    if (!value_of(f->root, key)) return plumb_error(PLUMB_E_FORMAT, "%s: %s is missing", f->path, key);
    return read_int(f, key, out);
}

static plumb_status read_bool(const config_file *f, const char *key, bool *out) {
    const json_t *v = value_of(f->root, key);
    if (!v) return PLUMB_OK;
    if (!json_is_boolean(v)) return wrong_kind(f, key, v, "true or false");
    *out = json_is_true(v);
    return PLUMB_OK;
}

static plumb_status read_number(const config_file *f, const json_t *object, const char *key, double *out) {
    const json_t *v = value_of(object, key);
    if (!v) return PLUMB_OK;
    if (!json_is_number(v)) return wrong_kind(f, key, v, "a number");
    *out = json_number_value(v);
    return PLUMB_OK;
}

static plumb_status check_token(const config_file *f, const char *key, const json_t *v, int32_t *out) {
    if (!json_is_integer(v)) return wrong_kind(f, key, v, "a token id");
    json_int_t id = json_integer_value(v);
    if (id < -1 || id > INT32_MAX)
        return plumb_error(PLUMB_E_FORMAT, "%s: %s %lld is not a token id", f->path, key, (long long)id);
    *out = (int32_t)id;
    return PLUMB_OK;
}

static plumb_status read_token(const config_file *f, const char *key,
                               int32_t *out) { /* -1 means none, as in old configurations */
    const json_t *v = value_of(f->root, key);
    return v ? check_token(f, key, v, out) : PLUMB_OK;
}

static plumb_status read_eos(const config_file *f, plumb_arch *a) {
    const char *key = "eos_token_id";
    const json_t *v = value_of(f->root, key);
    if (!v) return PLUMB_OK;
    size_t count = json_is_array(v) ? json_array_size(v) : 1;
    for (size_t i = 0; i < count; i++) {
        int32_t id = -1;
        PLUMB_TRY(check_token(f, key, json_is_array(v) ? json_array_get(v, i) : v, &id));
        if (id >= 0) PLUMB_TRY(plumb_arch_add_eos(a, id, f->path));
    }
    return PLUMB_OK;
}

/* --- what is refused -------------------------------------------------------------------------- */

static plumb_status check_model_type(const config_file *f, plumb_arch *a) {
    plumb_str names = {0};
    const json_t *v = value_of(f->root, "model_type");
    if (!v) return plumb_error(PLUMB_E_FORMAT, "%s: model_type is missing; is this a model's configuration?", f->path);
    if (!json_is_string(v)) return wrong_kind(f, "model_type", v, "a string");
    const plumb_family *family = plumb_family_by_model_type(json_string_value(v));
    if (family) {
        a->family = family->name;
        return PLUMB_OK;
    }
    plumb_status status = plumb_family_list(&names, false);
    if (status == PLUMB_OK)
        status = plumb_error(PLUMB_E_UNSUPPORTED, "%s: model_type '%.100s' is not supported; supported: %s", f->path,
                             json_string_value(v), names.data);
    plumb_str_free(&names);
    return status;
}

static plumb_status check_activation(const config_file *f) {
    const json_t *v = value_of(f->root, "hidden_act");
    if (!v) return PLUMB_OK;
    if (!json_is_string(v)) return wrong_kind(f, "hidden_act", v, "a string");
    const char *name = json_string_value(v);
    if (!strcmp(name, "silu") || !strcmp(name, "swish")) return PLUMB_OK; /* two names of one function */
    return plumb_error(PLUMB_E_UNSUPPORTED, "%s: hidden_act '%.100s' is not supported; supported: silu", f->path, name);
}

static plumb_status check_layer_types(const config_file *f) {
    const json_t *v = value_of(f->root, "layer_types");
    if (!v) return PLUMB_OK;
    if (!json_is_array(v)) return wrong_kind(f, "layer_types", v, "an array of strings");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *name = json_string_value(json_array_get(v, i));
        if (!name || strcmp(name, "full_attention"))
            return plumb_error(PLUMB_E_UNSUPPORTED,
                               "%s: layer_types[%zu] '%.100s' is not supported; supported: full_attention", f->path, i,
                               name ? name : "(not a string)");
    }
    return PLUMB_OK;
}

static plumb_status check_refused(const config_file *f) {
    static const char *const switches[] = {"sliding_window", "quantization_config", "num_local_experts", "num_experts",
                                           "compression_config"};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        const json_t *v = value_of(f->root, switches[i]);
        if (!v || json_is_false(v) || (json_is_integer(v) && json_integer_value(v) == 0)) continue;
        const char *method = json_string_value(json_object_get(v, "quant_method"));
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s%s%.100s is not supported for model_type llama", f->path,
                           switches[i], method ? " " : "", method ? method : "");
    }
    double dropout = 0, rotated = 1;
    PLUMB_TRY(read_number(f, f->root, "attention_dropout", &dropout));
    if (dropout != 0)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: attention_dropout %g is not supported; supported: 0", f->path,
                           dropout);
    PLUMB_TRY(read_number(f, f->root, "partial_rotary_factor", &rotated));
    if (rotated != 1)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: partial_rotary_factor %g is not supported; supported: 1", f->path,
                           rotated);
    PLUMB_TRY(check_activation(f));
    return check_layer_types(f);
}

/* --- a scalar head ---------------------------------------------------------------------------- */

/* transformers writes the number of labels as the length of id2label, and nothing where it is two. */
static plumb_status check_labels(const config_file *f, const plumb_family *family) {
    int64_t labels = 2, named;
    const json_t *names = value_of(f->root, "id2label");
    if (names && !json_is_object(names)) return wrong_kind(f, "id2label", names, "an object");
    PLUMB_TRY(read_int(f, "num_labels", &labels));
    named = names ? (int64_t)json_object_size(names) : labels;
    if (names && value_of(f->root, "num_labels") && named != labels)
        return plumb_error(PLUMB_E_FORMAT, "%s: num_labels is %lld, but id2label has %lld", f->path, (long long)labels,
                           (long long)named);
    if (named == 1) return PLUMB_OK;
    return plumb_error(PLUMB_E_UNSUPPORTED, "%s: num_labels is %lld%s; supported: a %s with one label", f->path,
                       (long long)named,
                       names || value_of(f->root, "num_labels") ? "" : " (where neither it nor id2label is there)",
                       family->classifier);
}

static plumb_status read_architecture(const config_file *f, plumb_arch *a) {
    const plumb_family *family = plumb_family_by_name(a->family);
    const json_t *v = value_of(f->root, "architectures");
    if (!v) return PLUMB_OK;
    if (!json_is_array(v)) return wrong_kind(f, "architectures", v, "an array of strings");
    const char *name = json_string_value(json_array_get(v, 0));
    a->classifier = name && !strcmp(name, family->classifier);
    return a->classifier ? check_labels(f, family) : PLUMB_OK;
}

/* --- rotary positions ------------------------------------------------------------------------- */

static plumb_status rope_kind(const config_file *f, const json_t *rope, const char *where, plumb_rope_kind *kind) {
    static const struct {
        const char *name;
        plumb_rope_kind kind;
    } kinds[] = {{"default", PLUMB_ROPE_DEFAULT}, {"linear", PLUMB_ROPE_LINEAR}, {"llama3", PLUMB_ROPE_LLAMA3}};
    const json_t *v = value_of(rope, "rope_type");
    if (!v) v = value_of(rope, "type");
    *kind = PLUMB_ROPE_DEFAULT;
    if (!v) return PLUMB_OK;
    if (!json_is_string(v)) return wrong_kind(f, "rope_type", v, "a string");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, json_string_value(v))) {
            *kind = kinds[i].kind;
            return PLUMB_OK;
        }
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "%s: %s: rope_type '%.100s' is not supported; supported: default, linear, llama3", f->path,
                       where, json_string_value(v));
}

static plumb_status rope_required(const config_file *f, const json_t *rope, const char *key, double *out) {
    if (!value_of(rope, key)) return plumb_error(PLUMB_E_FORMAT, "%s: the rope parameters lack %s", f->path, key);
    return read_number(f, rope, key, out);
}

static plumb_status read_rope(const config_file *f, plumb_arch *a) {
    const char *where = "rope_scaling";
    const json_t *rope = value_of(f->root, where);
    if (!rope || (json_is_object(rope) && json_object_size(rope) == 0))
        rope = value_of(f->root, where = "rope_parameters");
    a->rope_theta = 10000.0;
    PLUMB_TRY(read_number(f, f->root, "rope_theta", &a->rope_theta));
    if (!rope) return PLUMB_OK;
    if (!json_is_object(rope)) return wrong_kind(f, where, rope, "an object");
    double rotated = 1;
    PLUMB_TRY(rope_kind(f, rope, where, &a->rope));
    PLUMB_TRY(read_number(f, rope, "rope_theta", &a->rope_theta));
    PLUMB_TRY(read_number(f, rope, "partial_rotary_factor", &rotated));
    if (rotated != 1)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s: partial_rotary_factor %g is not supported; supported: 1",
                           f->path, where, rotated);
    if (a->rope == PLUMB_ROPE_DEFAULT) return PLUMB_OK;
    PLUMB_TRY(rope_required(f, rope, "factor", &a->rope_factor));
    if (a->rope != PLUMB_ROPE_LLAMA3) return PLUMB_OK;
    PLUMB_TRY(rope_required(f, rope, "low_freq_factor", &a->rope_low));
    PLUMB_TRY(rope_required(f, rope, "high_freq_factor", &a->rope_high));
    a->rope_original = a->max_positions;
    config_file inner = {rope, f->path};
    PLUMB_TRY(read_int(&inner, "original_max_position_embeddings", &a->rope_original));
    return read_int(f, "original_max_position_embeddings",
                    &a->rope_original); /* the top level wins, as in transformers */
}

/* --- the files -------------------------------------------------------------------------------- */

static plumb_status read_config(const config_file *f, plumb_arch *a) {
    if (!json_is_object(f->root))
        return plumb_error(PLUMB_E_FORMAT, "%s: expected an object, found %s", f->path, kind_of(f->root));
    PLUMB_TRY(check_model_type(f, a));
    PLUMB_TRY(check_refused(f));
    PLUMB_TRY(read_architecture(f, a));
    PLUMB_TRY(read_size(f, "vocab_size", &a->vocab));
    PLUMB_TRY(read_size(f, "hidden_size", &a->hidden));
    PLUMB_TRY(read_size(f, "intermediate_size", &a->intermediate));
    PLUMB_TRY(read_size(f, "num_hidden_layers", &a->layers));
    PLUMB_TRY(read_size(f, "num_attention_heads", &a->heads));
    a->kv_heads = a->heads;
    PLUMB_TRY(read_int(f, "num_key_value_heads", &a->kv_heads));
    a->head_dim = a->heads > 0 ? a->hidden / a->heads : 0;
    PLUMB_TRY(read_int(f, "head_dim", &a->head_dim));
    a->max_positions = 2048;
    PLUMB_TRY(read_int(f, "max_position_embeddings", &a->max_positions));
    a->norm_eps = 1e-6;
    PLUMB_TRY(read_number(f, f->root, "rms_norm_eps", &a->norm_eps));
    PLUMB_TRY(read_bool(f, "attention_bias", &a->attention_bias));
    PLUMB_TRY(read_bool(f, "mlp_bias", &a->mlp_bias));
    PLUMB_TRY(read_bool(f, "tie_word_embeddings", &a->tied));
    PLUMB_TRY(read_rope(f, a));
    PLUMB_TRY(read_token(f, "bos_token_id", &a->bos));
    PLUMB_TRY(read_token(f, "pad_token_id", &a->pad));
    PLUMB_TRY(read_eos(f, a));
    return plumb_arch_check(a, &plumb_size_names_hf, f->path);
}

/* Chat models name the ends of a turn only here; ids add to those of config.json. bos and pad fill gaps. */
static plumb_status read_generation_config(const config_file *f, plumb_arch *a) {
    if (!json_is_object(f->root))
        return plumb_error(PLUMB_E_FORMAT, "%s: expected an object, found %s", f->path, kind_of(f->root));
    if (a->bos < 0) PLUMB_TRY(read_token(f, "bos_token_id", &a->bos));
    if (a->pad < 0) PLUMB_TRY(read_token(f, "pad_token_id", &a->pad));
    PLUMB_TRY(read_eos(f, a));
    return plumb_arch_check(a, &plumb_size_names_hf, f->path);
}

plumb_status plumb_arch_from_hf(plumb_arch *a, const char *dir) {
    char *path = NULL;
    json_t *root = NULL;
    *a = (plumb_arch){.bos = -1, .pad = -1};
    plumb_status status = plumb_path_join(&path, dir, "config.json");
    if (status == PLUMB_OK && !plumb_path_exists(path))
        status = plumb_error(PLUMB_E_IO, "%s: no such file; a model is a Hugging Face directory or a .gguf file", path);
    if (status == PLUMB_OK) status = plumb_json_load(&root, path);
    if (status == PLUMB_OK) status = read_config(&(config_file){root, path}, a);
    if (status != PLUMB_OK) goto done;
    json_decref(root);
    root = NULL;
    free(path);
    path = NULL;
    status = plumb_path_join(&path, dir, "generation_config.json");
    if (status != PLUMB_OK || !plumb_path_exists(path)) goto done;
    status = plumb_json_load(&root, path);
    if (status == PLUMB_OK) status = read_generation_config(&(config_file){root, path}, a);
done:
    json_decref(root);
    free(path);
    return status;
}
