/* plumb generate: one completion by the rollout engine; rank 0 writes it as it comes. */
#include "online.h"
#include <stdio.h>
#include <string.h>

typedef struct printer { const plumb_tokenizer *t; plumb_ids ids; plumb_str text; size_t shown; } printer;

/* Tokens may end inside a character: what is shown never ends with U+FFFD until more has come. */
static bool show(void *user, int64_t request, int32_t token) {
    printer *p = user;
    (void)request;
    p->text.length = 0;
    if (plumb_ids_push(&p->ids, token) != PLUMB_OK || plumb_detokenize(p->t, p->ids.data, p->ids.count, true, &p->text) != PLUMB_OK)
        return false;
    size_t end = p->text.length;
    while (end >= 3 && !memcmp(p->text.data + end - 3, "\xEF\xBF\xBD", 3)) end -= 3;
    if (end > p->shown) fwrite(p->text.data + p->shown, 1, end - p->shown, stdout), p->shown = end;
    fflush(stdout);
    return plumb_comm_signal() == PLUMB_SIGNAL_NONE;
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
    plumb_stops *stops = NULL;
    plumb_rollout *engine = NULL;
    plumb_completion out = {0};
    plumb_rollout_stats stats;
    int32_t ends[PLUMB_MAX_ENDS];
    plumb_rollout_options options = {.view = PLUMB_VIEW_POLICY, .sampling = plumb_online_sampling(s, ends), .seed = (uint64_t)o->seed,
                                     .batch = 1, .threads = 1, .sink = show, .user = &p};
    options.sampling.do_sample = o->do_sample, options.sampling.max_new_tokens = o->max_new_tokens;
    plumb_status status = render_prompt(o, &text);
    if (status == PLUMB_OK) status = plumb_tokenize(s->tokenizer, text.data ? text.data : "", text.length, true, &prompt);
    if (status == PLUMB_OK) status = plumb_stops_create(&stops, s->tokenizer, o->stop_strings, o->n_stop_strings);
    options.stops = stops;
    options.kv_bytes = (size_t)((int64_t)prompt.count / PLUMB_PAGE + o->max_new_tokens / PLUMB_PAGE + 3) * plumb_model_kv_bytes(s->model);
    if (status == PLUMB_OK) status = plumb_rollout_create(&engine, s->model, &options);
    if (status == PLUMB_OK)
        status = plumb_rollout_run(engine, &(plumb_rollout_request){prompt.data, (int64_t)prompt.count, 0, 0}, 1, &out, &stats);
    if (status == PLUMB_OK) {
        if (p.text.length > p.shown) fwrite(p.text.data + p.shown, 1, p.text.length - p.shown, stdout);
        putchar('\n');
        fprintf(stderr, "%lld tokens in %.2f s (%.1f tokens/s), prompt of %zu\n", (long long)stats.tokens, stats.seconds,
                (double)stats.tokens / stats.seconds, prompt.count);
    }
    plumb_rollout_free(engine);
    plumb_stops_free(stops);
    plumb_completion_free(&out);
    plumb_ids_free(&prompt);
    plumb_ids_free(&p.ids);
    plumb_str_free(&p.text);
    plumb_str_free(&text);
    return status;
}

int plumb_run_generate(const plumb_options *o) {
    plumb_session s = {0};
    plumb_status status = plumb_session_open(&s, o, PLUMB_FOR_GENERATE, "generate", PLUMB_DATA_SFT);
    if (status == PLUMB_OK && !o->dry_run) status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_is_root() ? generate(&s) : PLUMB_OK);
    if (status != PLUMB_OK && plumb_is_root()) fprintf(stderr, "plumb generate: %s\n", plumb_error_message());
    plumb_session_close(&s);
    return status == PLUMB_OK ? 0 : 1;
}
