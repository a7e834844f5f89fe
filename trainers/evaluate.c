/* plumb eval: a model, perhaps with an adapter, on held-out records. */
#include "plan.h"
#include "recipe.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Preference records are pairs, unless an answer's field was named: then they are supervised texts. */
static plumb_status kind_of(const plumb_options *o, plumb_data_kind *kind) {
    *kind = PLUMB_DATA_SFT;
    if (strcmp(o->field_output, "output") != 0 || strcmp(o->field_completion, "completion") != 0) return PLUMB_OK;
    const char *path = o->eval_file ? o->eval_file : o->train_file;
    if (!path) return plumb_error(PLUMB_E_CONFIG, "eval_file: missing; give a .jsonl or .json file (or train_file and eval_last)");
    return plumb_dataset_kind(path, kind);
}

static void print_metrics(const plumb_session *s, const plumb_metric *m, int n) {
    printf("samples %lld\n", (long long)s->eval.count);
    for (int i = 0; i < n; i++) printf("%s %.6g\n", m[i].name + strlen("eval_"), m[i].value);
}

static plumb_status results_path(const plumb_options *o, char **path) { return plumb_path_join(path, o->output_dir, "eval_results.json"); }
/* Better known now than after the work. Local: rank 0. */
static plumb_status prepare(const plumb_options *o) {
    char *path = NULL;
    if (!o->output_dir) return PLUMB_OK;
    plumb_status status = results_path(o, &path);
    if (status == PLUMB_OK) status = plumb_prepare_file(path);
    free(path);
    return status;
}
static plumb_status write_metrics(const plumb_session *s, const plumb_metric *m, int n) {
    if (!s->o->output_dir) return PLUMB_OK;
    char *path = NULL;
    plumb_str text = {0};
    plumb_status status = plumb_str_printf(&text, "{\n  \"samples\": %lld", (long long)s->eval.count);
    for (int i = 0; i < n && status == PLUMB_OK; i++)
        status = isfinite(m[i].value) ? plumb_str_printf(&text, ",\n  \"%s\": %.9g", m[i].name, m[i].value)
                                      : plumb_str_printf(&text, ",\n  \"%s\": null", m[i].name);
    if (status == PLUMB_OK) status = plumb_str_append(&text, "\n}\n", 3);
    if (status == PLUMB_OK) status = results_path(s->o, &path);
    if (status == PLUMB_OK) status = plumb_write_file(path, text.data, text.length);
    free(path);
    plumb_str_free(&text);
    return status;
}

static plumb_status evaluate(plumb_session *s, plumb_data_kind kind) {
    const plumb_recipe *recipe = kind == PLUMB_DATA_PAIRS ? &plumb_recipe_dpo : &plumb_recipe_sft;
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_is_root() ? prepare(s->o) : PLUMB_OK));
    PLUMB_TRY(plumb_session_evaluate(s, recipe->work));
    if (s->interrupted) {
        if (plumb_is_root()) fprintf(stderr, "plumb eval: stopped by a signal; nothing was written\n");
        return PLUMB_OK;
    }
    plumb_metric m[PLUMB_MAX_METRICS];
    int n = recipe->metrics(&s->eval_plan, true, m);
    if (!plumb_is_root()) return PLUMB_OK;
    print_metrics(s, m, n);
    return write_metrics(s, m, n);
}

int plumb_evaluate(const plumb_options *o) {
    plumb_session s = {0};
    plumb_data_kind kind;
    plumb_status status = plumb_comm_agree(PLUMB_AXIS_WORLD, kind_of(o, &kind));
    if (status == PLUMB_OK) status = plumb_session_open(&s, o, PLUMB_FOR_EVAL, "eval", kind);
    if (status == PLUMB_OK && !o->dry_run) status = evaluate(&s, kind);
    if (status != PLUMB_OK && plumb_is_root()) fprintf(stderr, "plumb eval: %s\n", plumb_error_message());
    bool stopped = s.interrupted;
    plumb_session_close(&s);
    return status != PLUMB_OK ? 1 : stopped ? PLUMB_EXIT_RESUME : 0;
}
