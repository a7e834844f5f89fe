/* A PEFT LoRA adapter from its directory, or a scalar head alone.
 *
 * The tensors and target_modules must agree: a module that is selected and has no tensors, or has tensors and is not
 * selected, means that the file was cut or that the configuration is another's. Where the configuration says more than
 * plumb_lora_config can hold (excluded modules, chosen layers, an expression that only Python can run), the tensors
 * decide, and target_modules becomes the list of their modules. */
#include "lora_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void plumb_lora_key(char out[PLUMB_LORA_KEY], const plumb_param *p, char half) {
    snprintf(out, PLUMB_LORA_KEY, "base_model.model.%.*s.lora_%c.weight", (int)plumb_lora_module_length(p), p->name,
             half);
}

void plumb_adapter_free(plumb_adapter *a) {
    if (!a) return;
    for (int i = 0; i < a->n_params; i++) {
        if (a->a) free(a->a[i]);
        if (a->b) free(a->b[i]);
    }
    free(a->a);
    free(a->b);
    free(a->score);
    plumb_lora_config_free(&a->config);
    *a = (plumb_adapter){0};
}

static plumb_status check_shape(const plumb_file_tensor *t, int64_t rows, int64_t cols, const char *path) {
    if (t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols) return PLUMB_OK;
    char found[96] = "";
    for (int i = 0; i < t->n_dims && strlen(found) < sizeof found - 24; i++) {
        size_t used = strlen(found);
        snprintf(found + used, sizeof found - used, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    }
    return plumb_error(PLUMB_E_FORMAT,
                       "%s: tensor %s has shape [%s], expected [%lld, %lld] (r and the base weight's size)", path,
                       t->name, found, (long long)rows, (long long)cols);
}

static plumb_status read_tensor(float **out, const plumb_file_tensor *t, int64_t rows, int64_t cols, const char *path) {
    PLUMB_TRY(check_shape(t, rows, cols, path));
    if (t->type != PLUMB_FT_F32 && t->type != PLUMB_FT_F16 && t->type != PLUMB_FT_BF16 && t->type != PLUMB_FT_F64)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: tensor %s is stored as %s; supported: F32, F16, BF16, F64", path,
                           t->name, t->type_name ? t->type_name : plumb_file_type_name(t->type));
    PLUMB_TRY(plumb_alloc(out, (size_t)(rows * cols), sizeof **out, "an adapter matrix"));
    PLUMB_TRY(plumb_tensor_to_float(t, 0, rows * cols, *out));
    for (int64_t i = 0; i < rows * cols; i++)
        if (!isfinite((*out)[i]))
            return plumb_error(PLUMB_E_NUMERIC, "%s: tensor %s has the value %g in row %lld, column %lld", path,
                               t->name, (double)(*out)[i], (long long)(i / cols), (long long)(i % cols));
    return PLUMB_OK;
}

/* Both halves of one parameter; *used counts the tensors that found their place. */
static plumb_status read_pair(plumb_adapter *a, int i, const plumb_safetensors *file, const plumb_params *p,
                              int64_t *used) {
    const plumb_param *item = &p->items[i];
    char key_a[PLUMB_LORA_KEY], key_b[PLUMB_LORA_KEY];
    if (!plumb_lora_module_length(item)) return PLUMB_OK;
    plumb_lora_key(key_a, item, 'A');
    plumb_lora_key(key_b, item, 'B');
    const plumb_file_tensor *ta = plumb_safetensors_find(file, key_a), *tb = plumb_safetensors_find(file, key_b);
    if (!ta && !tb) return PLUMB_OK;
    if (!ta || !tb)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor %s is missing; its other half is there", file->path,
                           ta ? key_b : key_a);
    if (!item->linear)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: %s: adapters on embeddings and on the head are not supported",
                           file->path, key_a);
    PLUMB_TRY(read_tensor(&a->a[i], ta, a->config.r, item->cols, file->path));
    PLUMB_TRY(read_tensor(&a->b[i], tb, item->rows, a->config.r, file->path));
    *used += 2;
    return PLUMB_OK;
}

/* A head of one label, [1, hidden]; *used counts it. */
static plumb_status read_score(plumb_adapter *a, const char *name, const plumb_safetensors *file, const plumb_params *p, int64_t *used) {
    const plumb_file_tensor *t = plumb_safetensors_find(file, name);
    if (!t) return PLUMB_OK;
    if (t->n_dims == 2 && t->shape[0] != 1)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: tensor %s has %lld labels; supported: a head of one", file->path, t->name,
                           (long long)t->shape[0]);
    a->n_score = p->items[plumb_params_find(p, PLUMB_ROLE_EMBED, -1, false)].cols;
    PLUMB_TRY(read_tensor(&a->score, t, 1, a->n_score, file->path));
    (*used)++;
    return PLUMB_OK;
}

/* The first tensor of the file that fits no parameter. */
static plumb_status report_stranger(const plumb_safetensors *file, const plumb_params *p) {
    for (int64_t t = 0; t < file->count; t++) {
        bool known = false;
        for (int i = 0; i < p->count && !known; i++) {
            char key[PLUMB_LORA_KEY];
            if (!p->items[i].linear) continue;
            for (int half = 'A'; half <= 'B' && !known; half++) {
                plumb_lora_key(key, &p->items[i], (char)half);
                known = !strcmp(key, file->tensors[t].name);
            }
        }
        if (!known && strcmp(file->tensors[t].name, PLUMB_SCORE_KEY) != 0)
            return plumb_error(PLUMB_E_FORMAT,
                               "%s: tensor %.200s fits no linear layer of the model; expected names like "
                               "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                               file->path, file->tensors[t].name);
    }
    return plumb_error(PLUMB_E_FORMAT, "%s: a tensor fits no linear layer of the model", file->path);
}

static plumb_status targets_from_tensors(plumb_adapter *a, const plumb_params *p) {
    const char **names;
    char(*modules)[sizeof p->items->name];
    int count = 0;
    PLUMB_TRY(plumb_alloc(&names, (size_t)p->count, sizeof *names, "target_modules"));
    plumb_status status = plumb_alloc(&modules, (size_t)p->count, sizeof *modules, "target_modules");
    if (status != PLUMB_OK) goto done;
    for (int i = 0; i < p->count; i++) {
        if (!a->a[i]) continue;
        memcpy(modules[count], p->items[i].name, plumb_lora_module_length(&p->items[i])); /* zeroed by plumb_alloc */
        names[count] = modules[count];
        count++;
    }
    status = plumb_lora_set_targets(&a->config, names, count);
    if (status == PLUMB_OK) a->config.target_regex = false;
done:
    free(modules);
    free(names);
    return status;
}

static plumb_status check_targets(plumb_adapter *a, bool tensors_decide, const plumb_safetensors *file,
                                  const plumb_params *p, const char *path) {
    bool *chosen = NULL;
    if (tensors_decide) return targets_from_tensors(a, p);
    PLUMB_TRY(plumb_alloc(&chosen, (size_t)p->count, sizeof *chosen, "the choice of modules"));
    plumb_status status = plumb_lora_match(&a->config, p, chosen);
    if (status == PLUMB_E_UNSUPPORTED && a->config.target_regex) {
        status = targets_from_tensors(a, p);
        goto done;
    }
    if (status != PLUMB_OK) status = plumb_error_prefix(status, "%s", path);
    for (int i = 0; i < p->count && status == PLUMB_OK; i++) {
        char key[PLUMB_LORA_KEY];
        if (chosen[i] == (a->a[i] != NULL)) continue;
        plumb_lora_key(key, &p->items[i], 'A');
        status = chosen[i]
                     ? plumb_error(PLUMB_E_FORMAT, "%s: tensor %s is missing; target_modules in %s selects its module",
                                   file->path, key, path)
                     : plumb_error(PLUMB_E_FORMAT,
                                   "%s: tensor %s belongs to a module that target_modules in %s does not select",
                                   file->path, key, path);
    }
done:
    free(chosen);
    return status;
}

static plumb_status open_config(plumb_lora_config *c, bool *tensors_decide, char **path, const char *dir) {
    json_t *root = NULL;
    PLUMB_TRY(plumb_path_join(path, dir, "adapter_config.json"));
    if (!plumb_path_exists(*path))
        return plumb_error(PLUMB_E_IO, "%s: no such file; an adapter is a directory as PEFT writes it", *path);
    PLUMB_TRY(plumb_json_load(&root, *path));
    plumb_status status = plumb_lora_config_read(c, tensors_decide, root, *path);
    json_decref(root);
    return status;
}

/* A bias other than 0 would be lost. */
static plumb_status check_bias(const plumb_safetensors *file, int64_t *used) {
    const plumb_file_tensor *t = plumb_safetensors_find(file, PLUMB_HEAD_BIAS);
    float bias = 0;
    if (!t) return PLUMB_OK;
    if (t->n_dims == 1 && t->shape[0] == 1) PLUMB_TRY(plumb_tensor_to_float(t, 0, 1, &bias));
    if (t->n_dims != 1 || t->shape[0] != 1 || bias != 0)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: tensor %s has the value %g; supported: a head without a bias, or one of 0", file->path,
                           t->name, (double)bias);
    (*used)++;
    return PLUMB_OK;
}

static plumb_status load_head(plumb_adapter *a, const char *dir, const plumb_params *p) {
    plumb_safetensors file = {0};
    int64_t used = 0;
    PLUMB_TRY(plumb_safetensors_open(&file, dir, PLUMB_HEAD_FILE));
    plumb_status status = read_score(a, PLUMB_HEAD_KEY, &file, p, &used);
    if (status == PLUMB_OK) status = check_bias(&file, &used);
    if (status == PLUMB_OK && (!a->score || used != file.count))
        status = plumb_error(PLUMB_E_FORMAT,
                             "%s: expected the tensor " PLUMB_HEAD_KEY ", with or without " PLUMB_HEAD_BIAS ", and no other", file.path);
    plumb_safetensors_close(&file);
    return status;
}

static plumb_status load_peft(plumb_adapter *a, const char *dir, const plumb_params *p) {
    plumb_safetensors file = {0};
    char *path = NULL;
    bool tensors_decide = false;
    int64_t used = 0;
    plumb_status status = open_config(&a->config, &tensors_decide, &path, dir);
    if (status == PLUMB_OK) status = plumb_safetensors_open(&file, dir, "adapter_model");
    if (status != PLUMB_OK) goto done;
    for (int i = 0; i < p->count && status == PLUMB_OK; i++) status = read_pair(a, i, &file, p, &used);
    if (status == PLUMB_OK) status = read_score(a, PLUMB_SCORE_KEY, &file, p, &used);
    if (status == PLUMB_OK && used != file.count) status = report_stranger(&file, p);
    if (status == PLUMB_OK && used == 0) status = plumb_error(PLUMB_E_FORMAT, "%s: the adapter is empty", file.path);
    if (status == PLUMB_OK) status = check_targets(a, tensors_decide, &file, p, path);
    plumb_safetensors_close(&file);
done:
    free(path);
    return status;
}

static plumb_status holds(const char *dir, const char *name, bool *found) {
    char *path;
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    *found = plumb_path_exists(path);
    free(path);
    return PLUMB_OK;
}

plumb_status plumb_adapter_load(plumb_adapter *a, const char *dir, const plumb_params *p) {
    bool config = false, head = false;
    *a = (plumb_adapter){.n_params = p->count};
    plumb_status status = plumb_alloc(&a->a, (size_t)p->count, sizeof *a->a, "an adapter");
    if (status == PLUMB_OK) status = plumb_alloc(&a->b, (size_t)p->count, sizeof *a->b, "an adapter");
    if (status == PLUMB_OK) status = holds(dir, "adapter_config.json", &config);
    if (status == PLUMB_OK) status = holds(dir, PLUMB_HEAD_FILE ".safetensors", &head);
    if (status == PLUMB_OK) status = head && !config ? load_head(a, dir, p) : load_peft(a, dir, p);
    if (status != PLUMB_OK) plumb_adapter_free(a);
    return status;
}
