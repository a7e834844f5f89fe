/* A full Hugging Face directory: weights, then their index, then generation_config.json, and config.json last: a
 * directory with a config.json is a whole model.
 *
 * config.json is written in the style of transformers 4 (rope_theta and rope_scaling at the top, torch_dtype), because
 * version 5 reads it too while version 4 does not know rope_parameters and would silently rotate with the wrong theta.
 *
 * Merging an adapter computes W + scale * (B A) in double and rounds once. The values pass through float32 on their way
 * to a 16-bit file, which would round twice; so for 16-bit types the double is rounded to odd first (cut, and the last
 * bit set when anything was cut off), after which rounding to any format at least two bits shorter gives what one
 * rounding of the double gives. */
#include "arch_table.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- merging ---------------------------------------------------------------------------------- */

static float round_to_odd(double x) {
    union {
        float f;
        uint32_t u;
    } y = {(float)x};
    if ((double)y.f == x || isnan(x) || isinf(y.f)) return y.f;
    if (fabs((double)y.f) > fabs(x)) y.u--; /* the neighbour towards zero: magnitudes are ordered as integers */
    y.u |= 1;
    return y.f;
}

plumb_status plumb_adapter_merge(const plumb_adapter *a, const plumb_params *p, int param, plumb_file_type type,
                                 float *weight) {
    if (param < 0 || param >= a->n_params || !a->a[param]) return PLUMB_OK;
    enum { LANES = 8 };
    int64_t rows = p->items[param].rows, cols = p->items[param].cols, r = a->config.r;
    double scale = plumb_lora_scale(&a->config);
    const float *A = a->a[param], *B = a->b[param];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j += LANES) {
            double sum[LANES] = {0};
            int64_t width = plumb_min64(LANES, cols - j);
            for (int64_t k = 0; k < r; k++) {
                double b = B[i * r + k];
                const float *row = A + k * cols + j;
                if (width == LANES)
                    for (int l = 0; l < LANES; l++) sum[l] += b * (double)row[l];
                else
                    for (int64_t l = 0; l < width; l++) sum[l] += b * (double)row[l];
            }
            for (int64_t l = 0; l < width; l++) {
                double merged = (double)weight[i * cols + j + l] + scale * sum[l];
                weight[i * cols + j + l] = type == PLUMB_FT_F32 ? (float)merged : round_to_odd(merged);
            }
        }
    return PLUMB_OK;
}

/* --- configuration ---------------------------------------------------------------------------- */

static json_t *token_json(int32_t id) {
    return id < 0 ? json_null() : json_integer(id);
}

static json_t *eos_json(const plumb_arch *a) {
    if (a->n_eos == 0) return json_null();
    if (a->n_eos == 1) return json_integer(a->eos[0]);
    json_t *list = json_array();
    for (int i = 0; list && i < a->n_eos; i++) json_array_append_new(list, json_integer(a->eos[i]));
    return list;
}

static json_t *number_json(double x) { /* 8 stays 8.0; 1e-05 is not written as 1.0000000000000001e-05 */
    char text[40];
    int digits = 1;
    do snprintf(text, sizeof text, "%.*g", digits, x);
    while (strtod(text, NULL) != x && ++digits <= 17);
    return json_real(strtod(text, NULL));
}

static json_t *rope_json(const plumb_arch *a) {
    if (a->rope == PLUMB_ROPE_LINEAR)
        return json_pack("{s:s, s:s, s:o}", "rope_type", "linear", "type", "linear", "factor",
                         number_json(a->rope_factor));
    if (a->rope == PLUMB_ROPE_LLAMA3)
        return json_pack("{s:s, s:o, s:o, s:o, s:I}", "rope_type", "llama3", "factor", number_json(a->rope_factor),
                         "low_freq_factor", number_json(a->rope_low), "high_freq_factor", number_json(a->rope_high),
                         "original_max_position_embeddings", (json_int_t)a->rope_original);
    return json_null();
}

static const char *dtype_name(plumb_file_type type) {
    return type == PLUMB_FT_BF16 ? "bfloat16" : type == PLUMB_FT_F16 ? "float16" : "float32";
}

/* A reward model reads an answer on its last token, an end token; transformers on the last that is no padding. Where both are one token,
 * none is named: texts are then scored one at a time, and right. */
static json_t *pad_json(const plumb_arch *a) {
    for (int i = 0; a->classifier && i < a->n_eos; i++)
        if (a->eos[i] == a->pad) return json_null();
    return token_json(a->pad);
}

static json_t *config_json(const plumb_arch *a, plumb_file_type type) {
    const plumb_family *family = plumb_family_by_name(a->family);
    json_t *root =
        json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:b, s:b, s:f, s:b, s:o, s:o, "
                  "s:o, s:o, s:o, s:s, s:b}",
                  "architectures", a->classifier ? family->classifier : family->architecture, "model_type", family->model_type,
                  "vocab_size", (json_int_t)a->vocab, "hidden_size", (json_int_t)a->hidden, "intermediate_size",
                  (json_int_t)a->intermediate, "num_hidden_layers", (json_int_t)a->layers, "num_attention_heads", (json_int_t)a->heads,
                  "num_key_value_heads", (json_int_t)a->kv_heads, "head_dim", (json_int_t)a->head_dim, "max_position_embeddings",
                  (json_int_t)a->max_positions, "hidden_act", "silu", "rms_norm_eps", number_json(a->norm_eps), "attention_bias",
                  (int)a->attention_bias, "mlp_bias", (int)a->mlp_bias, "attention_dropout", 0.0, "tie_word_embeddings", (int)a->tied,
                  "rope_theta", number_json(a->rope_theta), "rope_scaling", rope_json(a), "bos_token_id", token_json(a->bos),
                  "eos_token_id", eos_json(a), "pad_token_id", pad_json(a), "torch_dtype", dtype_name(type), "use_cache", 1);
    if (root && a->classifier) /* one label, as transformers says it: readers take two where nothing is said */
        json_object_update_new(root, json_pack("{s:{s:s}, s:{s:i}}", "id2label", "0", "LABEL_0", "label2id", "LABEL_0", 0));
    return root;
}

static json_t *generation_json(const plumb_arch *a) {
    json_t *root = json_object();
    if (root && a->bos >= 0) json_object_set_new(root, "bos_token_id", json_integer(a->bos));
    if (root && a->n_eos > 0) json_object_set_new(root, "eos_token_id", eos_json(a));
    if (root && a->pad >= 0) json_object_set_new(root, "pad_token_id", json_integer(a->pad));
    return root;
}

static plumb_status write_json(const char *dir, const char *name, json_t *root) { /* takes root */
    char *path = NULL, *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    plumb_status status =
        text ? plumb_path_join(&path, dir, name) : plumb_error(PLUMB_E_MEMORY, "%s: out of memory for %s", dir, name);
    if (status == PLUMB_OK) status = plumb_write_file(path, text, strlen(text));
    free(path);
    free(text);
    json_decref(root);
    return status;
}

/* --- weights ---------------------------------------------------------------------------------- */

typedef struct shard {
    const char *dir;
    const plumb_arch *arch;
    const plumb_params *params;
    plumb_file_type type;
    int first, end; /* parameters; the scalar head of a classifier follows the last one */
    plumb_param_fetch fetch;
    void *user;
} shard;

static plumb_status fetch_item(void *user, int64_t item, float *out) {
    const shard *s = user;
    int param = s->first + (int)item;
    return s->fetch(s->user, param < s->params->count ? param : -1, out);
}

static int64_t stored_bytes(const plumb_param *p, plumb_file_type type) {
    return p->rows * p->cols * (type == PLUMB_FT_F32 ? 4 : 2);
}

static const char score_name[] = "score.weight";
static bool has_score(const shard *s) {
    return s->arch->classifier && s->end == s->params->count;
}

static plumb_status write_shard(const shard *s, const char *name) {
    plumb_st_item *items;
    char *path = NULL;
    int count = s->end - s->first;
    PLUMB_TRY(plumb_alloc(&items, (size_t)count + 1, sizeof *items, "the list of tensors"));
    for (int i = 0; i < count; i++) {
        const plumb_param *p = &s->params->items[s->first + i];
        items[i] = (plumb_st_item){.name = p->name, .n_dims = p->rows == 1 ? 1 : 2, .type = s->type};
        items[i].shape[0] = p->rows == 1 ? p->cols : p->rows;
        items[i].shape[1] = p->rows == 1 ? 0 : p->cols;
    }
    if (has_score(s)) items[count++] = (plumb_st_item){.name = score_name, .n_dims = 2, .shape = {1, s->arch->hidden}, .type = s->type};
    plumb_status status = plumb_path_join(&path, s->dir, name);
    if (status == PLUMB_OK) status = plumb_safetensors_write(path, items, count, fetch_item, (void *)s);
    free(path);
    free(items);
    return status;
}

/* End of the shard that begins at `first`: as many parameters as fit, at least one. */
static int shard_end(const plumb_params *p, plumb_file_type type, int first, int64_t limit) {
    int64_t bytes = stored_bytes(&p->items[first], type);
    int end = first + 1;
    while (end < p->count && bytes + stored_bytes(&p->items[end], type) <= limit)
        bytes += stored_bytes(&p->items[end++], type);
    return end;
}

static plumb_status write_shards(shard s, int shards, int64_t limit) {
    json_t *map = json_object();
    int64_t total = 0;
    plumb_status status = map ? PLUMB_OK : plumb_error(PLUMB_E_MEMORY, "%s: out of memory for the index", s.dir);
    s.end = 0;
    for (int k = 1; k <= shards && status == PLUMB_OK; k++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", k, shards);
        s.first = s.end;
        s.end = shard_end(s.params, s.type, s.first, limit);
        status = write_shard(&s, name);
        for (int i = s.first; i < s.end && status == PLUMB_OK; i++) {
            total += stored_bytes(&s.params->items[i], s.type);
            if (json_object_set_new(map, s.params->items[i].name, json_string(name)))
                status = plumb_error(PLUMB_E_MEMORY, "%s: out of memory for the index", s.dir);
        }
        if (status != PLUMB_OK || !has_score(&s)) continue;
        total += s.arch->hidden * (s.type == PLUMB_FT_F32 ? 4 : 2);
        if (json_object_set_new(map, score_name, json_string(name)))
            status = plumb_error(PLUMB_E_MEMORY, "%s: out of memory for the index", s.dir);
    }
    if (status != PLUMB_OK) {
        json_decref(map);
        return status;
    }
    return write_json(s.dir, "model.safetensors.index.json",
                      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map));
}

/* What an earlier export in the other layout left: readers would prefer it, or find both. */
static plumb_status remove_stale(const char *dir, const char *name) {
    char *path;
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    plumb_status status = remove(path) == 0 || errno == ENOENT
                              ? PLUMB_OK
                              : plumb_error(PLUMB_E_IO, "%s: cannot be removed: %s", path, strerror(errno));
    free(path);
    return status;
}

plumb_status plumb_model_export_sharded(const char *dir, const plumb_arch *a, const plumb_params *p,
                                        plumb_file_type type, plumb_param_fetch fetch, void *user,
                                        int64_t shard_bytes) {
    PLUMB_CHECK(p->count > 0 && shard_bytes > 0 &&
                (type == PLUMB_FT_F32 || type == PLUMB_FT_BF16 || type == PLUMB_FT_F16));
    shard s = {dir, a, p, type, 0, p->count, fetch, user};
    int shards = 0;
    for (int first = 0; first < p->count; shards++) first = shard_end(p, type, first, shard_bytes);
    PLUMB_TRY(plumb_make_dirs(dir));
    PLUMB_TRY(shards == 1 ? write_shard(&s, "model.safetensors") : write_shards(s, shards, shard_bytes));
    PLUMB_TRY(remove_stale(dir, shards == 1 ? "model.safetensors.index.json" : "model.safetensors"));
    PLUMB_TRY(write_json(dir, "generation_config.json", generation_json(a)));
    return write_json(dir, "config.json", config_json(a, type));
}

plumb_status plumb_model_export(const char *dir, const plumb_arch *a, const plumb_params *p, plumb_file_type type,
                                plumb_param_fetch fetch, void *user) {
    return plumb_model_export_sharded(dir, a, p, type, fetch, user, 5000000000LL); /* transformers' "5GB" */
}
