/* A LoRA adapter as PEFT 0.21 loads it: adapter_config.json beside adapter_model.safetensors.
 *
 * The configuration has the fields that define the adapter and those that PEFT's older versions require; all others
 * take PEFT's defaults, which are "off". "all-linear" is written as the names it stands for, because only newer
 * versions know the word. The tensors are written first: a directory with a configuration is a whole adapter. */
#include "lora_internal.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *
all_linear_names(const plumb_params *p) { /* q_proj, k_proj, ...: the last part of each linear module of layer 0 */
    json_t *list = json_array();
    for (int i = 0; list && i < p->count; i++) {
        if (!p->items[i].linear || p->items[i].layer != 0) continue;
        size_t length = plumb_lora_module_length(&p->items[i]), start = length;
        while (start > 0 && p->items[i].name[start - 1] != '.') start--;
        json_array_append_new(list, json_stringn(p->items[i].name + start, length - start));
    }
    return list;
}

static json_t *targets_json(const plumb_lora_config *c, const plumb_params *p) {
    if (plumb_lora_is_all_linear(c)) return all_linear_names(p);
    if (c->target_regex) return json_string(c->target_modules[0]);
    json_t *list = json_array();
    for (int i = 0; list && i < c->n_target_modules; i++)
        json_array_append_new(list, json_string(c->target_modules[i]));
    return list;
}

static json_t *alpha_json(double alpha) { /* PEFT's own type is int */
    if (alpha == floor(alpha) && fabs(alpha) < 1e15) return json_integer((json_int_t)alpha);
    return json_real(alpha);
}

static plumb_status save_config(const plumb_lora_config *c, bool scored, const char *path, const plumb_params *p) {
    json_t *to_save = scored ? json_pack("[s]", "score") : json_null();
    json_t *base = c->base_model ? json_string(c->base_model) : json_null();
    json_t *root = json_pack(
        "{s:s, s:s, s:n, s:o, s:n, s:b, s:b, s:b, s:s, s:I, s:o, s:f, s:b, s:b, s:o?, s:o, s:n, s:n, s:{}, s:{}}",
        "peft_type", "LORA", "task_type", scored ? "SEQ_CLS" : "CAUSAL_LM", "auto_mapping", "base_model_name_or_path", base, "revision",
        "inference_mode", 1, "fan_in_fan_out", 0, "init_lora_weights", 1, "bias", "none", "r", (json_int_t)c->r,
        "lora_alpha", alpha_json(c->alpha), "lora_dropout", c->dropout, "use_rslora", c->rslora ? 1 : 0, "use_dora", 0,
        "target_modules", targets_json(c, p), "modules_to_save", to_save, "layers_to_transform", "layers_pattern",
        "rank_pattern", "alpha_pattern");
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    plumb_status status =
        text && !json_is_null(json_object_get(root, "target_modules"))
            ? plumb_write_file(path, text, strlen(text))
            : plumb_error(PLUMB_E_DATA, "%s: a name in the adapter's configuration is not valid UTF-8", path);
    free(text);
    json_decref(root);
    return status;
}

static plumb_status save_tensors(const plumb_adapter *a, const char *path, const plumb_params *p) {
    int64_t count = 0;
    plumb_st_item *items;
    char(*names)[PLUMB_LORA_KEY] = NULL;
    PLUMB_TRY(plumb_alloc(&items, 2 * (size_t)p->count + 1, sizeof *items, "the adapter's tensors"));
    plumb_status status = plumb_alloc(&names, 2 * (size_t)p->count, sizeof *names, "the adapter's tensors");
    for (int i = 0; i < a->n_params && status == PLUMB_OK; i++) {
        const plumb_param *item = &p->items[i];
        if (!a->a[i]) continue;
        plumb_lora_key(names[count], item, 'A');
        items[count] = (plumb_st_item){names[count], 2, {a->config.r, item->cols}, a->a[i], PLUMB_FT_F32};
        count++;
        plumb_lora_key(names[count], item, 'B');
        items[count] = (plumb_st_item){names[count], 2, {item->rows, a->config.r}, a->b[i], PLUMB_FT_F32};
        count++;
    }
    if (a->score) items[count++] = (plumb_st_item){PLUMB_SCORE_KEY, 2, {1, a->n_score}, a->score, PLUMB_FT_F32};
    if (status == PLUMB_OK) status = plumb_safetensors_write(path, items, count, NULL, NULL);
    free(names);
    free(items);
    return status;
}

/* A folder with a configuration is read as an adapter: one that an earlier run left must not hide the head. */
static plumb_status remove_adapter(const char *dir) {
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors"};
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < 2 && status == PLUMB_OK; i++) {
        char *path = NULL;
        status = plumb_path_join(&path, dir, names[i]);
        if (status == PLUMB_OK && unlink(path) && errno != ENOENT) status = plumb_error(PLUMB_E_IO, "%s: cannot remove: %m", path);
        free(path);
    }
    return status;
}

plumb_status plumb_head_save(const plumb_adapter *a, const char *dir) {
    static const float no_bias = 0;
    char *path = NULL;
    PLUMB_CHECK(a->score != NULL);
    const plumb_st_item items[] = {{PLUMB_HEAD_BIAS, 1, {1}, &no_bias, PLUMB_FT_F32},
                                   {PLUMB_HEAD_KEY, 2, {1, a->n_score}, a->score, PLUMB_FT_F32}};
    PLUMB_TRY(plumb_make_dirs(dir));
    PLUMB_TRY(plumb_path_join(&path, dir, PLUMB_HEAD_FILE ".safetensors"));
    plumb_status status = plumb_safetensors_write(path, items, 2, NULL, NULL);
    if (status == PLUMB_OK) status = remove_adapter(dir);
    free(path);
    return status;
}

plumb_status plumb_adapter_save(const plumb_adapter *a, const char *dir, const plumb_params *p) {
    char *path = NULL;
    PLUMB_CHECK(a->n_params == p->count && a->config.n_target_modules > 0);
    PLUMB_TRY(plumb_make_dirs(dir));
    plumb_status status = plumb_path_join(&path, dir, "adapter_model.safetensors");
    if (status == PLUMB_OK) status = save_tensors(a, path, p);
    free(path);
    path = NULL;
    if (status == PLUMB_OK) status = plumb_path_join(&path, dir, "adapter_config.json");
    if (status == PLUMB_OK) status = save_config(&a->config, a->score != NULL, path, p);
    free(path);
    return status;
}
