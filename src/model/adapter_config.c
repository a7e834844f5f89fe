/* adapter_config.json, as PEFT writes it, into a plumb_lora_config.
 *
 * PEFT's LoRA has two dozen options that change the mathematics when they are on and are written as null, false or
 * empty when they are off. Those that are on are refused by name. A key that is not known here (a newer PEFT) is
 * refused when it is on in the way such options are: true, or a table or list with content; a bare number or string
 * only parametrises a switch. */
#include "lora_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_off(const json_t *v) {
    if (!v || json_is_null(v) || json_is_false(v)) return true;
    if (json_is_object(v)) return json_object_size(v) == 0;
    return json_is_array(v) && json_array_size(v) == 0;
}

static plumb_status bad(const char *path, const char *key, const char *expected) {
    return plumb_error(PLUMB_E_FORMAT, "%s: %s is missing or of the wrong kind, expected %s", path, key, expected);
}

static bool is_one_of(const char *key, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strcmp(key, list[i])) return true;
    return false;
}

/* PEFT adds both names to a sequence classifier's list; the one that the model has is `score`. */
static bool saves_score_only(const json_t *list) {
    static const char *const heads[] = {"score", "classifier"};
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
        if (!json_is_string(item) || !is_one_of(json_string_value(item), heads, 2)) return false;
    return json_is_array(list);
}

static plumb_status check_options(const json_t *root, const char *path) {
    static const char *const read_or_harmless[] = {"peft_type",
                                                   "r",
                                                   "lora_alpha",
                                                   "lora_dropout",
                                                   "use_rslora",
                                                   "target_modules",
                                                   "base_model_name_or_path",
                                                   "bias",
                                                   "init_lora_weights",
                                                   "task_type",
                                                   "exclude_modules",
                                                   "layers_to_transform",
                                                   "layers_pattern", /* read */
                                                   "auto_mapping",
                                                   "inference_mode",
                                                   "revision",
                                                   "peft_version",
                                                   "megatron_core",
                                                   "qalora_group_size",
                                                   "loftq_config",
                                                   "eva_config",
                                                   "corda_config",
                                                   "lora_ga_config",
                                                   "runtime_config",
                                                   "ensure_weight_tying",
                                                   "fan_in_fan_out"}; /* of the start, or of other layers */
    static const char *const refused[] = {"use_dora",
                                          "lora_bias",
                                          "modules_to_save",
                                          "rank_pattern",
                                          "alpha_pattern",
                                          "layer_replication",
                                          "target_parameters",
                                          "trainable_token_indices",
                                          "use_qalora",
                                          "use_bdlora",
                                          "arrow_config",
                                          "kasa_config",
                                          "velora_config",
                                          "monteclora_config",
                                          "alora_invocation_tokens",
                                          "megatron_config"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value) {
        if (is_off(value) || is_one_of(key, read_or_harmless, sizeof read_or_harmless / sizeof *read_or_harmless))
            continue;
        if (!strcmp(key, "modules_to_save") && saves_score_only(value)) continue;
        if (is_one_of(key, refused, sizeof refused / sizeof *refused))
            return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s is not supported", path, key);
        if (json_is_true(value) || json_is_object(value) || json_is_array(value))
            return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %.100s is not known and may change the result; not supported",
                               path, key);
    }
    return PLUMB_OK;
}

static plumb_status check_text(const json_t *root, const char *path, const char *key, const char *const *allowed,
                               size_t count, bool required) {
    const json_t *v = json_object_get(root, key);
    if (!v || json_is_null(v)) return required ? bad(path, key, allowed[0]) : PLUMB_OK;
    const char *text = json_string_value(v);
    if (text && is_one_of(text, allowed, count)) return PLUMB_OK;
    return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s '%.100s' is not supported; supported: %s", path, key,
                       text ? text : "(not a string)", count > 1 ? "CAUSAL_LM, SEQ_CLS" : allowed[0]);
}

/* Initialisations that subtract the start from the base weights (PiSSA, OLoRA, CorDA, LoftQ, ...) need a base that the
 * files do not hold. */
static plumb_status check_initialisation(const json_t *root, const char *path) {
    static const char *const plain[] = {"true", "gaussian", "eva", "orthogonal"};
    const json_t *v = json_object_get(root, "init_lora_weights");
    if (!v || json_is_null(v) || json_is_boolean(v)) return PLUMB_OK;
    const char *text = json_string_value(v);
    if (text && is_one_of(text, plain, sizeof plain / sizeof *plain)) return PLUMB_OK;
    return plumb_error(PLUMB_E_UNSUPPORTED,
                       "%s: init_lora_weights '%.100s' is not supported: it changes the base weights; convert the "
                       "adapter to plain LoRA with PEFT "
                       "(path_initial_model_for_weight_conversion)",
                       path, text ? text : "(not a string)");
}

static plumb_status copy_text(char **out, const char *text) {
    size_t n = strlen(text) + 1;
    PLUMB_TRY(plumb_alloc(out, n, 1, "a name"));
    memcpy(*out, text, n);
    return PLUMB_OK;
}

plumb_status plumb_lora_set_targets(plumb_lora_config *c, const char *const *names, int count) {
    char **copies;
    PLUMB_TRY(plumb_alloc(&copies, (size_t)count, sizeof *copies, "target_modules"));
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < count && status == PLUMB_OK; i++) status = copy_text(&copies[i], names[i]);
    char **old = status == PLUMB_OK ? c->target_modules : copies;
    int n_old = status == PLUMB_OK ? c->n_target_modules : count;
    for (int i = 0; i < n_old; i++) free(old[i]);
    free(old);
    if (status != PLUMB_OK) return status;
    c->target_modules = copies;
    c->n_target_modules = count;
    return PLUMB_OK;
}

static plumb_status read_targets(plumb_lora_config *c, const json_t *root, const char *path) {
    const json_t *v = json_object_get(root, "target_modules");
    const char **names = NULL, *one = v ? json_string_value(v) : NULL;
    if (one) {
        PLUMB_TRY(plumb_lora_set_targets(c, &one, 1));
        c->target_regex = !plumb_lora_is_all_linear(c);
        return PLUMB_OK;
    }
    size_t count = v && json_is_array(v) ? json_array_size(v) : 0;
    if (count == 0 || count > 1000000) return bad(path, "target_modules", "a list of module names or one pattern");
    PLUMB_TRY(plumb_alloc(&names, count, sizeof *names, "target_modules"));
    plumb_status status = PLUMB_OK;
    for (size_t i = 0; i < count && status == PLUMB_OK; i++) {
        names[i] = json_string_value(json_array_get(v, i));
        if (!names[i] || !*names[i]) status = bad(path, "target_modules", "names only");
    }
    if (status == PLUMB_OK) status = plumb_lora_set_targets(c, names, (int)count);
    free(names);
    return status;
}

static plumb_status read_numbers(plumb_lora_config *c, const json_t *root, const char *path) {
    const json_t *r = json_object_get(root, "r"), *alpha = json_object_get(root, "lora_alpha");
    const json_t *dropout = json_object_get(root, "lora_dropout"), *rslora = json_object_get(root, "use_rslora");
    if (!json_is_integer(r)) return bad(path, "r", "a positive integer");
    c->r = json_integer_value(r);
    if (c->r < 1 || c->r > 1 << 20)
        return plumb_error(PLUMB_E_FORMAT, "%s: r is %lld, expected 1 to %d", path, (long long)c->r, 1 << 20);
    if (!json_is_number(alpha)) return bad(path, "lora_alpha", "a number");
    c->alpha = json_number_value(alpha);
    if (dropout && !json_is_null(dropout) && !json_is_number(dropout)) return bad(path, "lora_dropout", "a number");
    c->dropout = json_number_value(dropout);
    if (!(c->dropout >= 0 && c->dropout < 1))
        return plumb_error(PLUMB_E_FORMAT, "%s: lora_dropout is %g, expected 0 <= x < 1", path, c->dropout);
    if (rslora && !json_is_null(rslora) && !json_is_boolean(rslora)) return bad(path, "use_rslora", "true or false");
    c->rslora = json_is_true(rslora);
    return PLUMB_OK;
}

plumb_status plumb_lora_config_read(plumb_lora_config *c, bool *tensors_decide, const json_t *root, const char *path) {
    static const char *const types[] = {"LORA"}, *const tasks[] = {"CAUSAL_LM", "SEQ_CLS"}, *const biases[] = {"none"};
    *c = (plumb_lora_config){0};
    if (!json_is_object(root)) return plumb_error(PLUMB_E_FORMAT, "%s: expected an object", path);
    PLUMB_TRY(check_text(root, path, "peft_type", types, 1, true));
    PLUMB_TRY(check_text(root, path, "task_type", tasks, 2, false));
    PLUMB_TRY(check_text(root, path, "bias", biases, 1, false));
    PLUMB_TRY(check_initialisation(root, path));
    PLUMB_TRY(check_options(root, path));
    *tensors_decide =
        !is_off(json_object_get(root, "exclude_modules")) || !is_off(json_object_get(root, "layers_to_transform"));
    PLUMB_TRY(read_numbers(c, root, path));
    const char *base = json_string_value(json_object_get(root, "base_model_name_or_path"));
    plumb_status status = base ? copy_text(&c->base_model, base) : PLUMB_OK;
    if (status == PLUMB_OK) status = read_targets(c, root, path);
    if (status != PLUMB_OK) plumb_lora_config_free(c);
    return status;
}
