/* The steps around every recipe's loop: opening and closing, one line of metrics per step, evaluation on the held-out split. */
#include "recipe.h"
#include <stdio.h>
#include <stdlib.h>

plumb_status plumb_recipe_append_text(plumb_str *out, const char *before, const char *key, const char *text) {
    json_t *value = json_string(text ? text : "");
    char *encoded = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    plumb_status status = encoded ? plumb_str_printf(out, "%s\"%s\": %s", before, key, encoded)
                                  : plumb_error(PLUMB_E_DATA, "%s: a text is not valid UTF-8", key);
    free(encoded);
    json_decref(value);
    return status;
}

plumb_dropout plumb_recipe_dropout(const plumb_session *s) {
    double p = s->has_adapter ? s->adapter.config.dropout : s->o->lora ? s->o->lora_dropout : 0;
    return (plumb_dropout){p, (uint64_t)s->o->seed, (uint32_t)s->step};
}

plumb_status plumb_recipe_log(plumb_session *s, const plumb_recipe *recipe, const plumb_step_result *r) {
    if (!plumb_is_root() || !s->log || !plumb_session_logs(s, s->step)) return PLUMB_OK;
    plumb_metric m[PLUMB_MAX_METRICS];
    int n = recipe->metrics(&s->plan, false, m);
    double now = plumb_clock(), elapsed = now - s->step_began;
    m[n++] = (plumb_metric){"grad_norm", r->grad_norm};
    m[n++] = (plumb_metric){"learning_rate", r->learning_rate};
    m[n++] = (plumb_metric){"num_tokens", (double)s->tokens_seen};
    m[n++] = (plumb_metric){"epoch", (double)s->step / (double)s->steps_per_epoch};
    m[n++] = (plumb_metric){"tokens_per_second", (double)s->plan.tokens / elapsed};
    m[n++] = (plumb_metric){"step_seconds", elapsed};
    plumb_session_keep(s, plumb_log_step(s->log, s->step, m, n)); /* rank 0 alone writes: the others learn of it at the next agreement */
    return PLUMB_OK;
}

static plumb_status evaluate(plumb_session *s, const plumb_recipe *recipe) {
    PLUMB_TRY(plumb_session_evaluate(s, recipe->work));
    if (!plumb_is_root() || !s->log || s->interrupted) return PLUMB_OK;
    plumb_metric m[PLUMB_MAX_METRICS];
    int n = recipe->metrics(&s->eval_plan, true, m);
    plumb_str line = {0};
    plumb_status status = plumb_str_printf(&line, "step %lld: held-out", (long long)s->step);
    for (int i = 0; i < n && status == PLUMB_OK; i++) status = plumb_str_printf(&line, "  %s %.4f", m[i].name + 5, m[i].value);
    if (status == PLUMB_OK) plumb_log_line(s->log, "%s", line.data);
    plumb_str_free(&line);
    plumb_session_keep(s, status == PLUMB_OK ? plumb_log_step(s->log, s->step, m, n) : status);
    return PLUMB_OK;
}
plumb_status plumb_recipe_evaluate_start(plumb_session *s, const plumb_recipe *recipe) {
    return s->eval.count && s->o->eval_at_start && s->step == 0 ? evaluate(s, recipe) : PLUMB_OK;
}
plumb_status plumb_recipe_evaluate(plumb_session *s, const plumb_recipe *recipe) {
    bool due = s->o->eval_steps && s->step % s->o->eval_steps == 0;
    if (!s->eval.count || s->signal != PLUMB_SIGNAL_NONE || (!due && s->step != s->total_steps)) return PLUMB_OK;
    return evaluate(s, recipe);
}

int plumb_recipe_run(const plumb_options *o, const plumb_recipe *recipe, plumb_status (*train)(plumb_session *s)) {
    plumb_session s;
    plumb_status status = plumb_session_open(&s, o, recipe->command, recipe->name, recipe->data);
    bool stopped = false;
    if (status == PLUMB_OK && !o->dry_run) {
        status = train(&s);
        if (status == PLUMB_OK) status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_session_pending(&s));
        stopped = s.stopping;
        if (status == PLUMB_OK && !stopped) status = plumb_session_finish(&s);
        if (status == PLUMB_OK && !stopped) status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_session_pending(&s));
    }
    if (status != PLUMB_OK && plumb_is_root()) {
        if (s.log) plumb_log_line(s.log, "plumb %s: %s", recipe->name, plumb_error_message());
        else fprintf(stderr, "plumb %s: %s\n", recipe->name, plumb_error_message());
    }
    plumb_session_close(&s);
    return status != PLUMB_OK ? 1 : stopped ? PLUMB_EXIT_RESUME : 0;
}
