/* real/<model>.json: ids, log-probabilities, ten best next tokens and greedy continuations of a GGUF of the same name, found under the
 * directory PLUMB_MODELS. */
#include "golden.h"
#include "plumb/rollout.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>
#include <dirent.h>
#include <string.h>

/* A file of that name, in any case of letters and with '.' or '-' before the type, anywhere one or two folders below `dir`. */
static bool same_name(const char *file, const char *name) {
    size_t n = strlen(name);
    if (strlen(file) != n + 5 || strcasecmp(file + n, ".gguf") != 0) return false;
    for (size_t i = 0; i < n; i++) {
        char a = file[i] == '.' ? '-' : file[i], b = name[i] == '.' ? '-' : name[i];
        if ((a | 32) != (b | 32)) return false;
    }
    return true;
}
static char *find_model(const char *dir, const char *name, int depth) {
    DIR *d = opendir(dir);
    char *found = NULL;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        char path[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (same_name(e->d_name, name)) found = strdup(path);
        else if (depth > 0 && plumb_path_is_dir(path)) found = find_model(path, name, depth - 1);
    }
    if (d) closedir(d);
    return found;
}

typedef struct real { golden *g; const char *name; size_t index; plumb_model *m; plumb_tokenizer *t; } real;

static void tokens(const real *r, const json_t *c) {
    const char *prompt = json_string_value(json_object_get(c, "prompt"));
    json_t *ids = json_object_get(c, "ids"), *greedy = json_object_get(c, "greedy");
    plumb_ids got = {0}, all = {0};
    plumb_status status = plumb_tokenize(r->t, prompt, strlen(prompt), false, &got);
    double wrong = status != PLUMB_OK || got.count != json_array_size(ids);
    for (size_t i = 0; i < got.count && !wrong; i++) wrong += got.data[i] != json_integer_value(json_array_get(ids, i));
    golden_result(r->g, wrong, 0, "real/%s[%zu] ids", r->name, r->index);
    plumb_str text = {0};
    for (size_t i = 0; i < json_array_size(greedy) && status == PLUMB_OK; i++)
        status = plumb_ids_push(&all, (int32_t)json_integer_value(json_array_get(greedy, i)));
    if (status == PLUMB_OK) status = plumb_detokenize(r->t, all.data, all.count, false, &text);
    golden_result(r->g, status != PLUMB_OK || !text.data || strcmp(text.data, json_string_value(json_object_get(c, "greedy_text"))) != 0, 0,
                  "real/%s[%zu] text", r->name, r->index);
    plumb_str_free(&text);
    plumb_ids_free(&got);
    plumb_ids_free(&all);
}

static plumb_status numbers(const real *r, const json_t *c) {
    json_t *ids = json_object_get(c, "ids"), *logprobs = json_object_get(c, "logprobs"), *top = json_object_get(c, "last_top10");
    int64_t n = (int64_t)json_array_size(ids), V = plumb_model_arch(r->m)->vocab;
    int32_t *x = malloc((size_t)n * sizeof *x), segment;
    for (int64_t i = 0; i < n; i++) x[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    plumb_forest f = {0};
    plumb_forward_result out = {0};
    float *logits = malloc((size_t)V * sizeof *logits);
    plumb_status status = plumb_forest_add(&f, -1, x, n, PLUMB_NO_ADAPTER, 0, &segment);
    for (int32_t i = 1; i < n && status == PLUMB_OK; i++) status = plumb_forest_target(&f, i - 1, x[i], segment);
    if (status == PLUMB_OK) status = plumb_forest_finish(&f);
    if (status == PLUMB_OK)
        status = plumb_model_forward(r->m, &f, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = false, .logprobs = true}, &out);
    double worst = 0;
    for (int64_t i = 0; status == PLUMB_OK && i + 1 < n; i++) {
        double b = json_number_value(json_array_get(logprobs, (size_t)i));
        worst = fmax(worst, fabs(out.logp[i] - b) / fmax(1, fabs(b)));
    }
    if (status == PLUMB_OK) golden_result(r->g, worst, 1e-5, "real/%s[%zu] logprobs", r->name, r->index);
    plumb_forest_reset(&f);
    if (status == PLUMB_OK) status = plumb_forest_add(&f, -1, x, n, PLUMB_NO_ADAPTER, 0, &segment);
    if (status == PLUMB_OK) status = plumb_forest_target(&f, (int32_t)n - 1, 0, segment);
    if (status == PLUMB_OK) status = plumb_forest_finish(&f);
    if (status == PLUMB_OK) status = plumb_model_decode(r->m, &f, PLUMB_VIEW_POLICY, NULL, logits);
    double largest = 0;
    worst = 0;
    for (size_t i = 0; status == PLUMB_OK && i < json_array_size(top); i++) {
        double b = json_number_value(json_array_get(json_array_get(top, i), 1));
        worst = fmax(worst, fabs((double)logits[json_integer_value(json_array_get(json_array_get(top, i), 0))] - b));
        largest = fmax(largest, fabs(b));
    }
    if (status == PLUMB_OK) golden_result(r->g, worst / largest, 1e-5, "real/%s[%zu] last_top10", r->name, r->index);
    plumb_forest_free(&f);
    plumb_forward_result_free(&out);
    free(logits);

    json_t *greedy = json_object_get(c, "greedy"), *gaps = json_object_get(c, "greedy_gap");
    plumb_completion made = {0};
    plumb_rollout *engine = NULL;
    plumb_rollout_options options = {.sampling = {.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1,
                                                  .max_new_tokens = (int64_t)json_array_size(greedy)}};
    if (status == PLUMB_OK) status = plumb_rollout_create(&engine, r->m, &options);
    if (status == PLUMB_OK) status = plumb_rollout_run(engine, &(plumb_rollout_request){x, n, 0, 0}, 1, &made, NULL);
    plumb_rollout_free(engine);
    double wrong = 0;
    for (size_t i = 0; status == PLUMB_OK && i < json_array_size(greedy); i++) {
        if (json_number_value(json_array_get(gaps, i)) <= 1e-3) break; /* may fall either way in float32 */
        wrong += (int64_t)i >= made.count || made.ids[i] != json_integer_value(json_array_get(greedy, i));
    }
    if (status == PLUMB_OK) golden_result(r->g, wrong, 0, "real/%s[%zu] greedy", r->name, r->index);
    plumb_completion_free(&made);
    free(x);
    return status;
}

static plumb_status run(golden *g, const char *name, json_t *cases) {
    const char *dir = getenv("PLUMB_MODELS");
    char *path = dir ? find_model(dir, name, 2) : NULL;
    if (!path) return plumb_error(PLUMB_E_UNSUPPORTED, "model absent: no %s.gguf under PLUMB_MODELS", name);
    plumb_backend *be = golden_backend(g);
    plumb_source *s = NULL;
    real r = {.g = g, .name = name};
    plumb_status status = plumb_source_open(&s, path);
    if (status == PLUMB_OK) status = plumb_tokenizer_load(&r.t, path);
    if (status == PLUMB_OK) status = plumb_model_create(&r.m, be, s, &(plumb_model_options){0});
    for (r.index = 0; status == PLUMB_OK && r.index < json_array_size(cases); r.index++) {
        tokens(&r, json_array_get(cases, r.index));
        status = numbers(&r, json_array_get(cases, r.index));
    }
    plumb_model_free(r.m);
    plumb_tokenizer_free(r.t);
    plumb_source_close(s);
    plumb_backend_free(be);
    free(path);
    return status;
}

void golden_real(golden *g) {
    char **names = golden_names(g, "real", ".json");
    for (char **name = names; *name; name++) {
        char *path = golden_path(g, "real/%s.json", *name);
        json_t *cases = NULL;
        plumb_status status = plumb_json_load(&cases, path);
        if (status == PLUMB_OK)
            status = json_is_array(cases) ? run(g, *name, cases)
                                          : plumb_error(PLUMB_E_UNSUPPORTED, "an outcome of training: compared by bench/outcome.sh");
        if (status != PLUMB_OK) golden_failed(g, status, "real/%s", *name);
        json_decref(cases);
        free(path);
    }
    golden_names_free(names);
}
