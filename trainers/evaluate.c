/* plumb eval and plumb generate: a model, perhaps with an adapter, looked at without training. */
#include "plan.h"
#include "recipe.h"
#include "plumb/rollout.h"
#include "plumb/stops.h"
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

static plumb_status write_metrics(const plumb_session *s, const plumb_metric *m, int n) {
    if (!s->o->output_dir) return PLUMB_OK;
    char *path = NULL;
    plumb_str text = {0};
    plumb_status status = plumb_str_printf(&text, "{\n  \"samples\": %lld", (long long)s->eval.count);
    for (int i = 0; i < n && status == PLUMB_OK; i++)
        status = isfinite(m[i].value) ? plumb_str_printf(&text, ",\n  \"%s\": %.9g", m[i].name, m[i].value) : plumb_str_printf(&text, ",\n  \"%s\": null", m[i].name);
    if (status == PLUMB_OK) status = plumb_str_append(&text, "\n}\n", 3);
    if (status == PLUMB_OK) status = plumb_make_dirs(s->o->output_dir);
    if (status == PLUMB_OK) status = plumb_path_join(&path, s->o->output_dir, "eval_results.json");
    if (status == PLUMB_OK) status = plumb_write_file(path, text.data, text.length);
    free(path);
    plumb_str_free(&text);
    return status;
}

static plumb_status evaluate(plumb_session *s, plumb_data_kind kind) {
    const plumb_recipe *recipe = kind == PLUMB_DATA_PAIRS ? &plumb_recipe_dpo : &plumb_recipe_sft;
    PLUMB_TRY(plumb_session_evaluate(s, recipe->work));
    plumb_metric m[PLUMB_MAX_METRICS];
    int n = recipe->metrics(&s->eval_plan, true, m);
    if (!plumb_is_root()) return PLUMB_OK;
    print_metrics(s, m, n);
    return write_metrics(s, m, n);
}

static int finish(plumb_session *s, plumb_status status, const char *name) {
    if (status != PLUMB_OK && plumb_is_root()) fprintf(stderr, "plumb %s: %s\n", name, plumb_error_message());
    plumb_session_close(s);
    return status == PLUMB_OK ? 0 : 1;
}

int plumb_evaluate(const plumb_options *o) {
    plumb_session s = {0};
    plumb_data_kind kind;
    plumb_status status = plumb_comm_agree(PLUMB_AXIS_WORLD, kind_of(o, &kind));
    if (status == PLUMB_OK) status = plumb_session_open(&s, o, PLUMB_FOR_EVAL, "eval", kind);
    if (status == PLUMB_OK && !o->dry_run) status = evaluate(&s, kind);
    return finish(&s, status, "eval");
}

/* --- generate: rank 0 writes what it decodes as it comes ------------------------------------------------------------------------------------ */
typedef struct printer { const plumb_tokenizer *t; plumb_stops *stops; plumb_ids ids; plumb_str text; size_t shown; } printer;

/* Tokens may end inside a character: what is shown never ends with U+FFFD until more has come. */
static bool show(void *user, int32_t token) {
    printer *p = user;
    p->text.length = 0;
    if (plumb_ids_push(&p->ids, token) != PLUMB_OK || plumb_detokenize(p->t, p->ids.data, p->ids.count, true, &p->text) != PLUMB_OK) return false;
    size_t end = p->text.length;
    while (end >= 3 && !memcmp(p->text.data + end - 3, "\xEF\xBF\xBD", 3)) end -= 3;
    if (end > p->shown) fwrite(p->text.data + p->shown, 1, end - p->shown, stdout), p->shown = end;
    fflush(stdout);
    return plumb_comm_signal() == PLUMB_SIGNAL_NONE && !plumb_stops_hit(p->stops, p->ids.data, (int64_t)p->ids.count);
}

static plumb_status render_prompt(const plumb_options *o, plumb_str *text) {
    const char *name = o->template_name ? o->template_name : "none";
    if (!strcmp(name, "alpaca")) return plumb_prompt_alpaca(o->prompt, NULL, text);
    if (!strcmp(name, "none")) return plumb_str_append(text, o->prompt, strlen(o->prompt));
    plumb_message message = {"user", o->prompt};
    return plumb_prompt_render(name, &message, 1, true, text, NULL, NULL);
}

static plumb_status generate(plumb_session *s) {
    const plumb_options *o = s->o;
    plumb_str text = {0};
    plumb_ids prompt = {0};
    printer p = {.t = s->tokenizer};
    plumb_status status = render_prompt(o, &text);
    if (status == PLUMB_OK) status = plumb_stops_create(&p.stops, s->tokenizer, o->stop_strings, o->n_stop_strings);
    if (status == PLUMB_OK) status = plumb_tokenize(s->tokenizer, text.data ? text.data : "", text.length, true, &prompt);
    const plumb_arch *a = plumb_model_arch(s->model);
    int32_t ends[9];
    int n_ends = a->n_eos;
    memcpy(ends, a->eos, sizeof a->eos);
    if (plumb_tokenizer_eos(s->tokenizer) >= 0) ends[n_ends++] = plumb_tokenizer_eos(s->tokenizer);
    plumb_sampling sampling = {.do_sample = o->do_sample, .temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .min_p = o->min_p, .typical_p = o->typical_p,
                               .repetition_penalty = o->repetition_penalty, .min_new_tokens = o->min_new_tokens, .max_new_tokens = o->max_new_tokens, .ends = ends, .n_ends = n_ends};
    plumb_sampling_key key = {.seed = (uint64_t)o->seed};
    double start = plumb_clock();
    plumb_ids out = {0};
    if (status == PLUMB_OK) status = plumb_generate(s->model, prompt.data, (int64_t)prompt.count, &sampling, &key, &out, show, &p);
    if (status == PLUMB_OK) {
        if (p.text.length > p.shown) fwrite(p.text.data + p.shown, 1, p.text.length - p.shown, stdout);
        putchar('\n');
        double elapsed = plumb_clock() - start;
        fprintf(stderr, "%zu tokens in %.2f s (%.1f tokens/s), prompt of %zu\n", out.count, elapsed, (double)out.count / elapsed, prompt.count);
    }
    plumb_ids_free(&out);
    plumb_ids_free(&prompt);
    plumb_ids_free(&p.ids);
    plumb_str_free(&p.text);
    plumb_stops_free(p.stops);
    plumb_str_free(&text);
    return status;
}

int plumb_run_generate(const plumb_options *o) {
    plumb_session s = {0};
    plumb_status status = plumb_session_open(&s, o, PLUMB_FOR_GENERATE, "generate", PLUMB_DATA_SFT);
    if (status == PLUMB_OK && !o->dry_run) status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_is_root() ? generate(&s) : PLUMB_OK);
    return finish(&s, status, "generate");
}
