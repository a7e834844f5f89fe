/* Best of n: sample several completions of every prompt, score them, and write the best (and the worst) as a data set for SFT or preference training.
 *
 * Prompts are taken in chunks of a fixed number, so that what is sampled does not depend on the number of ranks. */
#include "online.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct output { plumb_str lines; int64_t written, without_spread; double best, mean; int64_t groups, completions; } output;

/* Of equal scores the first is taken. */
static plumb_status write_group(const plumb_options *o, const plumb_trajectories *t, int64_t first, int64_t size, output *out) {
    int64_t best = first, worst = first;
    for (int64_t i = first; i < first + size; i++) {
        if (t->score[i] > t->score[best]) best = i;
        if (t->score[i] < t->score[worst]) worst = i;
        out->mean += t->score[i], out->completions++;
    }
    bool pairs = !strcmp(o->output_format, "preference");
    out->best += t->score[best], out->groups++;
    if (t->score[best] == t->score[worst]) {
        out->without_spread++;
        if (pairs) return PLUMB_OK; /* nothing to prefer */
    }
    plumb_str *s = &out->lines;
    PLUMB_TRY(plumb_recipe_append_text(s, "{", "prompt", t->prompt_text[first]));
    PLUMB_TRY(plumb_recipe_append_text(s, ", ", pairs ? "chosen" : "completion", t->text[best]));
    if (pairs) PLUMB_TRY(plumb_recipe_append_text(s, ", ", "rejected", t->text[worst]));
    if (pairs) PLUMB_TRY(plumb_str_printf(s, ", \"score_chosen\": %.9g, \"score_rejected\": %.9g", t->score[best], t->score[worst]));
    else PLUMB_TRY(plumb_str_printf(s, ", \"score\": %.9g", t->score[best]));
    out->written++;
    return plumb_str_printf(s, ", \"record\": %lld}\n", (long long)t->record[first]);
}
static plumb_status write_chunk(plumb_online *o, output *out) {
    PLUMB_TRY(plumb_online_texts(o, 0, o->t.n_sequences));
    for (int64_t g = 0; g < o->n_groups; g++) PLUMB_TRY(write_group(o->s->o, &o->t, g * o->group_size, o->group_size, out));
    return PLUMB_OK;
}

static plumb_status run(plumb_online *o) {
    plumb_session *s = o->s;
    output out = {0};
    double began = plumb_clock();
    int64_t done = 0, tokens = 0;
    plumb_status status = PLUMB_OK;
    for (; done < s->train.count && status == PLUMB_OK && !s->interrupted; s->step++) {
        status = plumb_online_sample(o);
        if (status == PLUMB_OK) status = plumb_online_score(o);
        if (status == PLUMB_OK && s->interrupted) break;
        if (status == PLUMB_OK) status = plumb_comm_agree(PLUMB_AXIS_DATA, plumb_is_root() ? write_chunk(o, &out) : PLUMB_OK);
        done += o->n_groups, tokens += o->t.n_tokens;
        if (status == PLUMB_OK && plumb_is_root())
            fprintf(stderr, "%lld/%lld prompts  mean reward %.4g  best %.4g  %.0f tok/s\n", (long long)done, (long long)s->train.count, out.mean / (double)out.completions,
                    out.best / (double)out.groups, (double)tokens / (plumb_clock() - began));
    }
    if (status == PLUMB_OK && s->interrupted) status = plumb_error(PLUMB_E_DATA, "stopped by a signal after %lld of %lld prompts; nothing was written", (long long)done, (long long)s->train.count);
    if (status == PLUMB_OK && plumb_is_root()) status = plumb_write_file(s->o->output_file, out.lines.data ? out.lines.data : "", out.lines.length);
    if (status == PLUMB_OK && plumb_is_root()) {
        printf("prompts %lld\ncompletions %lld\nmean_reward %.6g\nmean_best_reward %.6g\ngroups_without_spread %lld\n", (long long)out.groups, (long long)out.completions,
               out.mean / (double)out.completions, out.best / (double)out.groups, (long long)out.without_spread);
        printf("%lld records in %s\n", (long long)out.written, s->o->output_file);
    }
    plumb_str_free(&out.lines);
    return plumb_comm_agree(PLUMB_AXIS_WORLD, status);
}

int plumb_bestofn(const plumb_options *o) { return plumb_online_run(o, PLUMB_FOR_BESTOFN, "bestofn", run); }
