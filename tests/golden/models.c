/* cases/<model>.safetensors: logits, loss and the gradient of every parameter; the same with a LoRA adapter; a DPO
 * pair with a shared prompt. */
#include "golden.h"
#include "plumb/objective.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    golden *g;
    const char *name;
    plumb_safetensors file;
    plumb_backend *be;
    plumb_source *source;
    plumb_adapter adapter;
    plumb_model *model;
} fixture;

static float *floats(const fixture *x, const char *key, int64_t *count) {
    const plumb_file_tensor *t = plumb_safetensors_find(&x->file, key);
    if (!t) return NULL;
    *count = 1;
    for (int d = 0; d < t->n_dims; d++) *count *= t->shape[d];
    float *out = malloc((size_t)(*count ? *count : 1) * sizeof *out);
    if (plumb_tensor_to_float(t, 0, *count, out) != PLUMB_OK) return free(out), NULL;
    return out;
}
static int32_t *ids(const fixture *x, const char *key, int64_t *count) {
    const plumb_file_tensor *t = plumb_safetensors_find(&x->file, key);
    *count = t->n_dims ? t->shape[0] : 1;
    int32_t *out = malloc((size_t)*count * sizeof *out);
    for (int64_t i = 0; i < *count; i++) {
        int64_t v;
        memcpy(&v, t->data + 8 * i, 8);
        out[i] = (int32_t)v;
    }
    return out;
}

static plumb_status build(fixture *x, bool lora) {
    static char *all[] = {"all"};
    plumb_model_options o = {.adapter = lora ? &x->adapter : NULL, .train_modules = all, .n_train_modules = lora ? 0 : 1};
    plumb_model_free(x->model);
    x->model = NULL;
    return plumb_model_create(&x->model, x->be, x->source, &o);
}

/* Both sequences in one forest, targets from `prompt` on (or every row, for logits). */
static plumb_status sequences(const fixture *x, plumb_forest *f, bool all_rows) {
    int64_t count, n;
    int32_t *prompt = ids(x, "prompt", &n);
    plumb_forest_reset(f);
    for (int s = 0; s < 2; s++) {
        int32_t *tokens = ids(x, s ? "ids.1" : "ids.0", &count), segment;
        PLUMB_TRY(plumb_forest_add(f, -1, tokens, count, plumb_model_adapter_of(x->model, PLUMB_VIEW_POLICY), s, &segment));
        for (int64_t i = all_rows ? 0 : prompt[0]; i < count; i++)
            PLUMB_TRY(plumb_forest_target(f, all_rows ? (int32_t)(f->segments[segment].begin + i) : plumb_forest_row_before(f, segment, i),
                                          tokens[i], segment));
        free(tokens);
    }
    free(prompt);
    return plumb_forest_finish(f);
}

static plumb_status check_logits(fixture *x, plumb_forest *f, const char *prefix) {
    PLUMB_TRY(sequences(x, f, true));
    int64_t V = plumb_model_arch(x->model)->vocab, at = 0;
    float *logits = malloc((size_t)(f->n_targets * V) * sizeof *logits);
    plumb_status status = plumb_model_decode(x->model, f, PLUMB_VIEW_POLICY, NULL, logits);
    double worst = 0;
    for (int s = 0; s < 2 && status == PLUMB_OK; s++) {
        char key[64];
        int64_t count;
        snprintf(key, sizeof key, "%slogits.%d", prefix, s);
        float *expected = floats(x, key, &count);
        worst = fmax(worst, golden_difference(logits + at, expected, count));
        at += count;
        free(expected);
    }
    free(logits);
    if (status == PLUMB_OK) golden_result(x->g, worst, 1e-5, "cases/%s %slogits", x->name, prefix);
    return status;
}

static void check_gradients(fixture *x, const char *prefix, const char *rows) {
    int n;
    const plumb_trainable *t = plumb_model_trainables(x->model, &n);
    const plumb_params *p = plumb_source_params(x->source);
    double worst = 0;
    for (int i = 0; i < n; i++) {
        char key[256], base[128];
        snprintf(base, sizeof base, "%s", p->items[t[i].param].name);
        if (t[i].part != PLUMB_PART_FULL) base[strlen(base) - strlen(".weight")] = 0;
        snprintf(key, sizeof key,
                 t[i].part == PLUMB_PART_FULL     ? "%sgrad.%s"
                 : t[i].part == PLUMB_PART_LORA_A ? "%sgrad.base_model.model.%s.lora_A.weight"
                                                  : "%sgrad.base_model.model.%s.lora_B.weight",
                 prefix, base);
        int64_t count;
        float *expected = floats(x, key, &count), *got = malloc((size_t)(t[i].rows * t[i].cols) * sizeof *got);
        if (!expected) fprintf(stderr, "no %s\n", key), worst = NAN;
        else {
            plumb_model_grads_read(x->model, t[i].offset, count, got);
            double d = golden_difference(got, expected, count);
            if (!(d <= 1e-4)) fprintf(stderr, "  %s differs by %.2e\n", key, d);
            if (!(d <= worst)) worst = d;
        }
        free(expected);
        free(got);
    }
    golden_result(x->g, worst, 1e-4, "cases/%s %sgrad%s", x->name, prefix, rows);
}

static plumb_status check_loss(fixture *x, plumb_forest *f, const char *prefix) {
    PLUMB_TRY(sequences(x, f, false));
    plumb_forward_result r = {0};
    PLUMB_TRY(plumb_model_forward(x->model, f, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = true, .logprobs = true}, &r));
    double loss = 0, *d = malloc((size_t)r.count * sizeof *d);
    for (int64_t i = 0; i < r.count; i++) loss -= r.logp[i] / (double)r.count, d[i] = -1.0 / (double)r.count;
    int64_t n;
    char key[64];
    snprintf(key, sizeof key, "%sloss", prefix);
    float *expected = floats(x, key, &n);
    golden_result(x->g, fabs(loss - (double)expected[0]) / (double)expected[0], 1e-5, "cases/%s %sloss", x->name, prefix);
    plumb_model_grads_zero(x->model);
    PLUMB_TRY(plumb_model_backward(x->model, &(plumb_gradients){.logp = d}));
    check_gradients(x, prefix, "");
    free(expected);
    free(d);
    plumb_forward_result_free(&r);
    return PLUMB_OK;
}

static double against(const fixture *x, const char *key, const double *got) {
    int64_t n;
    float *expected = floats(x, key, &n);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(got[i] - (double)expected[i])), largest = fmax(largest, fabs((double)expected[i]));
    free(expected);
    return worst / largest;
}

/* The pair once for each adapter of the list, side by side. */
static plumb_status pair_forest(const fixture *x, plumb_forest *f, const int32_t *adapters, int n_adapters) {
    int64_t np, nc, nr;
    int32_t *prompt = ids(x, "pair.prompt", &np), *chosen = ids(x, "pair.chosen", &nc), *rejected = ids(x, "pair.rejected", &nr), root,
            branch;
    plumb_forest_reset(f);
    for (int a = 0; a < n_adapters; a++) {
        PLUMB_TRY(plumb_forest_add(f, -1, prompt, np, adapters[a], a, &root));
        for (int b = 0; b < 2; b++) {
            PLUMB_TRY(plumb_forest_add(f, root, b ? rejected : chosen, b ? nr : nc, adapters[a], a, &branch));
            for (int64_t i = 0; i < (b ? nr : nc); i++)
                PLUMB_TRY(plumb_forest_target(f, plumb_forest_row_before(f, branch, i), (b ? rejected : chosen)[i], branch));
        }
    }
    free(prompt), free(chosen), free(rejected);
    return plumb_forest_finish(f);
}

/* Rows without and with the adapter in one batch: reference and policy at once. d: derivatives of the pair's loss;
 * the rows without have none. */
static plumb_status check_mixed(fixture *x, plumb_forest *f, const double *d, int64_t nc, int64_t nr) {
    plumb_forward_result r = {0};
    PLUMB_TRY(pair_forest(x, f, (const int32_t[]){PLUMB_NO_ADAPTER, 0}, 2));
    PLUMB_TRY(plumb_model_forward(x->model, f, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = true, .logprobs = true}, &r));
    const double *policy = r.logp + nc + nr;
    double worst = fmax(fmax(against(x, "pair.ref.chosen", r.logp), against(x, "pair.ref.rejected", r.logp + nc)),
                        fmax(against(x, "pair.logp.chosen", policy), against(x, "pair.logp.rejected", policy + nc)));
    golden_result(x->g, worst, 1e-5, "cases/%s pair.logp of mixed rows", x->name);
    double *both = calloc((size_t)(2 * (nc + nr)), sizeof *both);
    memcpy(both + nc + nr, d, (size_t)(nc + nr) * sizeof *d);
    plumb_model_grads_zero(x->model);
    plumb_status status = plumb_model_backward(x->model, &(plumb_gradients){.logp = both});
    check_gradients(x, "pair.", " of mixed rows");
    free(both);
    plumb_forward_result_free(&r);
    return status;
}

static plumb_status check_pair(fixture *x, plumb_forest *f) {
    plumb_forward_result policy = {0}, reference = {0};
    int64_t nc, nr;
    free(ids(x, "pair.chosen", &nc)), free(ids(x, "pair.rejected", &nr));
    PLUMB_TRY(pair_forest(x, f, (const int32_t[]){PLUMB_NO_ADAPTER}, 1));
    PLUMB_TRY(
        plumb_model_forward(x->model, f, &(plumb_pass){.view = PLUMB_VIEW_REFERENCE, .training = false, .logprobs = true}, &reference));
    PLUMB_TRY(pair_forest(x, f, (const int32_t[]){0}, 1));
    PLUMB_TRY(plumb_model_forward(x->model, f, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = true, .logprobs = true}, &policy));
    double worst = fmax(fmax(against(x, "pair.logp.chosen", policy.logp), against(x, "pair.logp.rejected", policy.logp + nc)),
                        fmax(against(x, "pair.ref.chosen", reference.logp), against(x, "pair.ref.rejected", reference.logp + nc)));
    golden_result(x->g, worst, 1e-5, "cases/%s pair.logp", x->name);
    double *d = malloc((size_t)(nc + nr) * sizeof *d);
    double loss = plumb_objective_dpo(&(plumb_dpo_options){PLUMB_DPO_SIGMOID, 0.1, 0},
                                      &(plumb_dpo_pair){policy.logp, policy.logp + nc, reference.logp, reference.logp + nc, nc, nr}, d,
                                      d + nc, &(plumb_dpo_stats){0});
    golden_result(x->g, against(x, "pair.loss", &loss), 1e-5, "cases/%s pair.loss", x->name);
    plumb_model_grads_zero(x->model);
    PLUMB_TRY(plumb_model_backward(x->model, &(plumb_gradients){.logp = d}));
    check_gradients(x, "pair.", "");
    PLUMB_TRY(check_mixed(x, f, d, nc, nr));
    free(d);
    plumb_forward_result_free(&policy), plumb_forward_result_free(&reference);
    return PLUMB_OK;
}

static plumb_status run(fixture *x) {
    golden *g = x->g;
    char *model = golden_path(g, "models/%s", x->name), *adapter = golden_path(g, "adapters/%s", x->name),
         *cases = golden_path(g, "cases/%s.safetensors", x->name);
    plumb_forest f = {0};
    plumb_status status = plumb_source_open(&x->source, model);
    if (status == PLUMB_OK) status = plumb_safetensors_open(&x->file, cases, "model");
    if (status == PLUMB_OK) status = build(x, false);
    if (status == PLUMB_OK) status = check_logits(x, &f, "");
    if (status == PLUMB_OK) status = check_loss(x, &f, "");
    if (status == PLUMB_OK) status = plumb_adapter_load(&x->adapter, adapter, plumb_source_params(x->source));
    if (status == PLUMB_OK) status = build(x, true);
    if (status == PLUMB_OK) status = check_logits(x, &f, "lora.");
    if (status == PLUMB_OK) status = check_loss(x, &f, "lora.");
    if (status == PLUMB_OK) status = check_pair(x, &f);
    plumb_forest_free(&f);
    free(model), free(adapter), free(cases);
    return status;
}

void golden_models(golden *g) {
    char **names = golden_names(g, "cases", ".safetensors");
    for (char **name = names; *name; name++) {
        fixture x = {.g = g, .name = *name, .be = golden_backend(g)};
        plumb_status status = run(&x);
        if (status != PLUMB_OK) golden_failed(g, status, "cases/%s", *name);
        plumb_model_free(x.model);
        plumb_adapter_free(&x.adapter);
        plumb_safetensors_close(&x.file);
        plumb_source_close(x.source);
        plumb_backend_free(x.be);
    }
    golden_names_free(names);
}
