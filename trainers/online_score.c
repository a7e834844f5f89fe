/* Scores of an iteration's completions: parts by reward functions and a reward model, their weighted sum, the
 * penalty of a completion that did not end. */
#include "online.h"
#include "plan.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Texts end with a NUL: one in them, which a policy can sample, becomes U+FFFD. */
static plumb_status copy_text(char **out, const plumb_str *text) {
    static const char replacement[] = "\xEF\xBF\xBD";
    size_t length = text->length, at = 0;
    for (size_t i = 0; i < text->length; i++) length += text->data[i] ? 0 : sizeof replacement - 2;
    PLUMB_TRY(plumb_alloc(out, length + 1, 1, "a text"));
    for (size_t i = 0; i < text->length; i++) {
        if (text->data[i]) (*out)[at++] = text->data[i];
        else memcpy(*out + at, replacement, sizeof replacement - 1), at += sizeof replacement - 1;
    }
    return PLUMB_OK;
}
/* Without special tokens. */
plumb_status plumb_online_texts(plumb_online *o, int64_t first, int64_t count) {
    plumb_trajectories *t = &o->t;
    plumb_str text = {0};
    plumb_status status = PLUMB_OK;
    for (int64_t i = first; i < first + count && status == PLUMB_OK; i++) {
        if (t->text[i]) continue;
        text.length = 0;
        status = plumb_detokenize(o->s->tokenizer, t->ids + t->token_offset[i], (size_t)(t->token_offset[i + 1] - t->token_offset[i]), true,
                                  &text);
        if (status == PLUMB_OK) status = copy_text(&t->text[i], &text);
        if (status != PLUMB_OK) break;
        const char *prompt = o->s->train.samples[o->prompt_of[t->group[i]]].prompt_text;
        text.length = 0;
        status = plumb_str_append(&text, prompt ? prompt : "", prompt ? strlen(prompt) : 0);
        if (status == PLUMB_OK) status = copy_text(&t->prompt_text[i], &text);
    }
    plumb_str_free(&text);
    return status;
}

plumb_status plumb_online_text_behind_prompt(const plumb_online *o, int64_t i, char **out) {
    const plumb_trajectories *t = &o->t;
    const plumb_tokenizer *k = o->s->tokenizer;
    size_t prompt = (size_t)(t->prompt_offset[i + 1] - t->prompt_offset[i]), tokens = (size_t)(t->token_offset[i + 1] - t->token_offset[i]);
    int32_t *ids;
    plumb_str alone = {0}, together = {0};
    PLUMB_TRY(plumb_alloc(&ids, prompt + tokens, sizeof *ids, "a text"));
    memcpy(ids, t->prompt_ids + t->prompt_offset[i], prompt * sizeof *ids);
    if (tokens) memcpy(ids + prompt, t->ids + t->token_offset[i], tokens * sizeof *ids);
    plumb_status status = plumb_detokenize(k, ids, prompt, true, &alone);
    if (status == PLUMB_OK) status = plumb_detokenize(k, ids, prompt + tokens, true, &together);
    bool apart = together.length >= alone.length && (!alone.length || !memcmp(together.data, alone.data, alone.length));
    plumb_str rest = {.data = apart && together.data ? together.data + alone.length : NULL,
                      .length = apart ? together.length - alone.length : 0};
    if (!apart) rest = (plumb_str){.data = t->text[i], .length = strlen(t->text[i])}; /* a character that both share */
    if (status == PLUMB_OK) status = copy_text(out, &rest);
    plumb_str_free(&alone), plumb_str_free(&together);
    free(ids);
    return status;
}

/* This rank's completions by every function. *left: not all of them, since it is time to leave. */
static plumb_status score_functions(plumb_online *o, int first_part, int64_t *left) {
    plumb_trajectories *t = &o->t;
    plumb_reward_item *items = NULL;
    double *rewards = NULL;
    plumb_status status = plumb_alloc(&items, (size_t)o->n_mine, sizeof *items, "rewards");
    if (status == PLUMB_OK) status = plumb_alloc(&rewards, (size_t)o->n_mine, sizeof *rewards, "rewards");
    for (int64_t i = 0; i < o->n_mine && status == PLUMB_OK; i++) {
        int64_t q = o->mine + i;
        items[i] = (plumb_reward_item){t->prompt_text[q], t->text[q], o->s->train.samples[o->prompt_of[t->group[q]]].answer, t->record[q],
                                       t->token_offset[q + 1] - t->token_offset[q]};
    }
    for (int k = 0; k < o->n_sources && status == PLUMB_OK && !*left; k++) {
        int64_t before = plumb_reward_source_count(o->sources[k]);
        status = plumb_reward_source_score(o->sources[k], items, o->n_mine, rewards);
        *left = plumb_reward_source_left(o->sources[k]);
        o->failed[k] = plumb_reward_source_count(o->sources[k]) - before;
        for (int64_t i = 0; i < o->n_mine && status == PLUMB_OK; i++) t->parts[(o->mine + i) * t->n_parts + first_part + k] = rewards[i];
    }
    free(items), free(rewards);
    return status;
}

/* Over all ranks; said once for each source, and counted in the metrics. */
static void count_failures(plumb_online *o) {
    plumb_session *s = o->s;
    plumb_comm_sum_i64(PLUMB_AXIS_DATA, o->failed, o->n_sources);
    for (int k = 0; k < o->n_sources && plumb_is_root(); k++) {
        if (!o->failed[k] || o->warned[k]) continue;
        char line[600];
        if (!strcmp(plumb_reward_source_counts(o->sources[k]), "restarts"))
            snprintf(line, sizeof line,
                     "reward_funcs: %.300s was started again (%lld times): it had ended, was silent or wrote something else; later "
                     "ones are only counted",
                     s->o->reward_funcs[k], (long long)o->failed[k]);
        else
            snprintf(line, sizeof line,
                     "reward_funcs: %.300s backtracks without end on %lld of %lld completions, which get 0 from it; later ones are only "
                     "counted (docs/rewards.md)",
                     s->o->reward_funcs[k], (long long)o->failed[k], (long long)o->t.n_sequences);
        if (s->log) plumb_log_line(s->log, "%s", line);
        else fprintf(stderr, "%s\n", line);
        o->warned[k] = true;
    }
}

static plumb_status model_micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    plumb_online *o = s->user;
    plumb_scorer judge = o->judge;
    (void)training;
    PLUMB_TRY(plumb_reward_pack(&s->forest, p, b, &o->data, plumb_model_adapter_of(judge.model, judge.view)));
    PLUMB_TRY(plumb_model_forward(judge.model, &s->forest, &(plumb_pass){.view = judge.view, .values = true}, &s->reference));
    for (int64_t at = 0, i = b->first; i < b->first + b->count; i++) {
        const plumb_tree *tree = plumb_online_tree(o, p, p->members[i]);
        for (int64_t k = 0; k < tree->count; k++) o->t.parts[(tree->first + k) * o->t.n_parts] = s->reference.values[at++];
    }
    return PLUMB_OK;
}

plumb_status plumb_online_combine(const plumb_options *o, plumb_trajectories *t) {
    bool replace = !strcmp(o->missing_eos, "replace");
    double weights[PLUMB_SCORE_PARTS];
    for (int k = 0; k < t->n_parts; k++) weights[k] = k < o->n_reward_weights ? strtod(o->reward_weights[k], NULL) : 1;
    for (int64_t i = 0; i < t->n_sequences; i++) {
        double score = 0;
        for (int k = 0; k < t->n_parts; k++) {
            if (!isfinite(t->parts[i * t->n_parts + k]))
                return plumb_error(PLUMB_E_NUMERIC, "the reward %s of a completion of record %lld is not finite", t->part_names[k],
                                   (long long)t->record[i] + 1);
            score += weights[k] * t->parts[i * t->n_parts + k];
        }
        if (t->finish[i] == PLUMB_FINISH_LENGTH && o->missing_eos_penalty > 0)
            score = replace ? -o->missing_eos_penalty : score - o->missing_eos_penalty;
        t->score[i] = score;
    }
    return PLUMB_OK;
}

/* A function's name; of several with one name the second is name_2. */
static void name_part(const plumb_online *o, int k, char *out) {
    const char *name = plumb_reward_source_name(o->sources[k]);
    int same = 1;
    for (int i = 0; i < k; i++) same += !strcmp(plumb_reward_source_name(o->sources[i]), name);
    if (same == 1) snprintf(out, PLUMB_PART_NAME, "%s", name);
    else snprintf(out, PLUMB_PART_NAME, "%s_%d", name, same);
}

plumb_status plumb_online_score(plumb_online *o) {
    plumb_session *s = o->s;
    if (s->interrupted) return PLUMB_OK;
    plumb_trajectories *t = &o->t;
    double since = plumb_clock();
    int model = o->judge.model != NULL;
    int64_t left = 0;
    plumb_comm_doing("rewards of iteration", s->step + 1);
    t->n_parts = model + o->n_sources;
    if (model) strcpy(t->part_names[0], "model");
    for (int k = 0; k < o->n_sources; k++) name_part(o, k, t->part_names[model + k]);
    free(t->parts);
    plumb_status local = plumb_alloc(&t->parts, (size_t)(t->n_sequences * PLUMB_SCORE_PARTS), sizeof *t->parts, "rewards");
    if (local == PLUMB_OK) local = plumb_online_texts(o, o->mine, o->n_mine);
    if (local == PLUMB_OK && o->n_sources) local = score_functions(o, model, &left);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, local));
    plumb_comm_max_i64(PLUMB_AXIS_DATA, &left, 1);
    s->interrupted = left;
    if (left) return PLUMB_OK;
    count_failures(o);
    if (model) PLUMB_TRY(plumb_session_pass(s, &o->plan, model_micro_batch));
    if (s->interrupted) return PLUMB_OK; /* the parts are not complete */
    plumb_comm_sum_f64(PLUMB_AXIS_DATA, t->parts, t->n_sequences * t->n_parts); /* each part from one rank, zeros from the others */
    PLUMB_TRY(plumb_online_combine(s->o, t));
    plumb_online_phase(o, PHASE_SCORE, since);
    return PLUMB_OK;
}
