/* gguf/blocks.json: raw blocks and their values, exact to the bit; gguf/tiny-*.gguf: dequantised weights and
 * logits (float32 results of transformers). */
#include "golden.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    plumb_file_type type;
} types[] = {{"F16", PLUMB_FT_F16},   {"BF16", PLUMB_FT_BF16}, {"F32", PLUMB_FT_F32},   {"Q4_0", PLUMB_FT_Q4_0},
             {"Q4_1", PLUMB_FT_Q4_1}, {"Q5_0", PLUMB_FT_Q5_0}, {"Q5_1", PLUMB_FT_Q5_1}, {"Q8_0", PLUMB_FT_Q8_0}};

static plumb_file_type type_of(const char *name) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(name, types[i].name)) return types[i].type;
    return PLUMB_FT_OTHER;
}

static void block(golden *g, json_t *b) {
    const char *name = json_string_value(json_object_get(b, "type")), *hex = json_string_value(json_object_get(b, "raw"));
    json_t *values = json_object_get(b, "values");
    int64_t n = (int64_t)json_array_size(values);
    size_t bytes = strlen(hex) / 2;
    uint8_t *raw = malloc(bytes);
    float *out = malloc((size_t)n * sizeof *out);
    for (size_t i = 0; i < bytes; i++) {
        unsigned v;
        sscanf(hex + 2 * i, "%2x", &v);
        raw[i] = (uint8_t)v;
    }
    plumb_file_tensor t =
        {.name = (char *)"blocks", .type = type_of(name), .type_name = name, .n_dims = 1, .shape = {n}, .data = raw, .bytes = bytes};
    plumb_status status = plumb_tensor_to_float(&t, 0, n, out);
    double worst = 0;
    for (int64_t i = 0; status == PLUMB_OK && i < n; i++)
        worst = fmax(worst, fabs((double)out[i] - json_number_value(json_array_get(values, (size_t)i))));
    if (status == PLUMB_OK) golden_result(g, worst, 0, "gguf/blocks %s", name);
    else golden_failed(g, status, "gguf/blocks %s", name);
    free(raw);
    free(out);
}

static float *tensor_floats(const plumb_file_tensor *t, int64_t *n) {
    *n = 1;
    for (int d = 0; d < t->n_dims; d++) *n *= t->shape[d];
    float *out = malloc((size_t)(*n ? *n : 1) * sizeof *out);
    if (plumb_tensor_to_float(t, 0, *n, out) != PLUMB_OK) return free(out), NULL;
    return out;
}

static plumb_status weights(golden *g, const char *name, const plumb_source *s, const plumb_safetensors *expected) {
    const plumb_params *p = plumb_source_params(s);
    double worst = 0;
    for (int i = 0; i < p->count; i++) {
        const plumb_file_tensor *t = plumb_safetensors_find(expected, p->items[i].name);
        int64_t n;
        if (!t) return plumb_error(PLUMB_E_DATA, "no %s among the expected weights", p->items[i].name);
        float *b = tensor_floats(t, &n), *a = malloc((size_t)n * sizeof *a);
        plumb_status status = plumb_source_read(s, i, 0, p->items[i].rows, a);
        for (int64_t j = 0; status == PLUMB_OK && j < n; j++)
            if (!(a[j] == b[j])) worst = fmax(worst, fabs((double)a[j] - (double)b[j]) + 1e-30);
        free(a);
        free(b);
        PLUMB_TRY(status);
    }
    golden_result(g, worst, 0, "gguf/%s weights", name);
    return PLUMB_OK;
}

static plumb_status logits(golden *g, const char *name, plumb_backend *be, const plumb_source *s, const plumb_safetensors *expected) {
    const plumb_file_tensor *ids = plumb_safetensors_find(expected, "ids"), *t = plumb_safetensors_find(expected, "logits");
    if (!ids || !t) return plumb_error(PLUMB_E_UNSUPPORTED, "no ids or logits beside the weights");
    int64_t n = ids->shape[ids->n_dims - 1], total;
    plumb_model *m;
    PLUMB_TRY(plumb_model_create(&m, be, s, &(plumb_model_options){0}));
    plumb_forest f = {0};
    int32_t *tokens = malloc((size_t)n * sizeof *tokens), segment;
    for (int64_t i = 0; i < n; i++) {
        int64_t v;
        memcpy(&v, ids->data + 8 * i, 8);
        tokens[i] = (int32_t)v;
    }
    float *b = tensor_floats(t, &total), *a = malloc((size_t)total * sizeof *a);
    plumb_status status = plumb_forest_add(&f, -1, tokens, n, PLUMB_NO_ADAPTER, 0, &segment);
    for (int32_t i = 0; i < n && status == PLUMB_OK; i++) status = plumb_forest_target(&f, i, 0, segment);
    if (status == PLUMB_OK) status = plumb_forest_finish(&f);
    if (status == PLUMB_OK) status = plumb_model_decode(m, &f, PLUMB_VIEW_POLICY, NULL, a);
    if (status == PLUMB_OK) golden_result(g, golden_difference(a, b, total), 1e-5, "gguf/%s logits", name);
    plumb_model_free(m);
    plumb_forest_free(&f);
    free(tokens), free(a), free(b);
    return status;
}

static plumb_status model(golden *g, const char *name) {
    char *gguf = golden_path(g, "gguf/%s.gguf", name), *st = golden_path(g, "gguf/%s.safetensors", name);
    plumb_backend *be = golden_backend(g);
    plumb_source *s = NULL;
    plumb_safetensors expected = {0};
    plumb_status status = st ? plumb_source_open(&s, gguf) : plumb_error(PLUMB_E_UNSUPPORTED, "no expected values beside it");
    if (status == PLUMB_OK) status = plumb_safetensors_open(&expected, st, "model");
    if (status == PLUMB_OK) status = weights(g, name, s, &expected);
    if (status == PLUMB_OK) status = logits(g, name, be, s, &expected);
    plumb_safetensors_close(&expected);
    plumb_source_close(s);
    plumb_backend_free(be);
    free(gguf), free(st);
    return status;
}

void golden_gguf(golden *g) {
    char *path = golden_path(g, "gguf/blocks.json");
    json_t *blocks = NULL;
    if (path) {
        plumb_status status = plumb_json_load(&blocks, path);
        if (status != PLUMB_OK) golden_failed(g, status, "gguf/blocks");
        for (size_t i = 0; i < json_array_size(blocks); i++) block(g, json_array_get(blocks, i));
    }
    json_decref(blocks);
    free(path);
    char **names = golden_names(g, "gguf", ".gguf");
    for (char **name = names; *name; name++) {
        plumb_status status = model(g, *name);
        if (status != PLUMB_OK) golden_failed(g, status, "gguf/%s", *name);
    }
    golden_names_free(names);
}
