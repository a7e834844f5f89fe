/* Opening, logging and ending the iterations of a recipe that samples and learns. */
#include "online.h"
#include "plan.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- open and close --------------------------------------------------------------------------- */
/* A reward model that was trained anew is another judge. */
uint64_t plumb_online_adapter_hash(uint64_t h, const plumb_adapter *a, const plumb_params *p) {
    h = plumb_session_mix(h, a->score, (size_t)a->n_score * sizeof *a->score);
    for (int i = 0; i < a->n_params; i++)
        if (a->a[i]) {
            h = plumb_session_mix(h, a->a[i], (size_t)(a->config.r * p->items[i].cols) * sizeof **a->a);
            h = plumb_session_mix(h, a->b[i], (size_t)(a->config.r * p->items[i].rows) * sizeof **a->b);
        }
    return h;
}
static plumb_status load_scored(plumb_adapter *a, const char *key, const char *path, const plumb_source *base) {
    PLUMB_TRY(plumb_adapter_load(a, path, plumb_source_params(base)));
    plumb_session_note_base(key, a, base);
    return a->score
               ? PLUMB_OK
               : plumb_error(PLUMB_E_CONFIG, "%s: %s has no score head; expected a reward model, as plumb reward writes it", key, path);
}

/* The same number of tokens need not be the same tokens. */
static plumb_status check_tokenizer(const plumb_session *s, const char *path) {
    plumb_tokenizer *own;
    if (!plumb_tokenizer_is_there(path)) return PLUMB_OK;
    PLUMB_TRY(plumb_tokenizer_load(&own, path));
    plumb_status status = plumb_tokenizer_compare(s->tokenizer, own);
    plumb_tokenizer_free(own);
    return status == PLUMB_OK
               ? status
               : plumb_error_prefix(status, "%s reads other tokens than the policy's; expected a model with the same tokenizer", path);
}
/* A model beside the policy that reads its tokens and scores them. */
static plumb_status open_beside(const plumb_session *s, plumb_source **out, const char *key, const char *path) {
    const plumb_options *o = s->o;
    plumb_status status = plumb_source_open(out, path);
    if (status != PLUMB_OK) return plumb_error_prefix(status, "%s", key);
    const plumb_arch *a = plumb_source_arch(*out), *policy = plumb_source_arch(s->source);
    int64_t longest = plumb_min64(policy->max_positions, o->max_prompt_length + o->max_completion_length);
    if (a->vocab != policy->vocab)
        return plumb_error(PLUMB_E_CONFIG,
                           "%s: %s has a vocabulary of %lld, the policy of %lld; expected a model that reads the policy's tokens", key,
                           path, (long long)a->vocab, (long long)policy->vocab);
    status = check_tokenizer(s, path);
    if (status != PLUMB_OK) return plumb_error_prefix(status, "%s", key);
    if (a->max_positions < longest)
        return plumb_error(PLUMB_E_CONFIG,
                           "%s: %s has %lld positions, a prompt with its completion up to %lld; expected smaller max_prompt_length and "
                           "max_completion_length",
                           key, path, (long long)a->max_positions, (long long)longest);
    plumb_source_as_classifier(*out);
    return PLUMB_OK;
}

static plumb_status open_judge(plumb_online *o, plumb_session *s, plumb_model_options *m) {
    const plumb_options *options = s->o;
    const plumb_source *base = s->source;
    s->judge = PLUMB_MIX_START;
    if (options->reward_model) {
        PLUMB_TRY(open_beside(s, &o->reward_source, "reward_model", options->reward_model));
        uint64_t identity = plumb_source_identity(o->reward_source);
        base = s->judge_base = o->reward_source;
        s->judge = plumb_session_mix(s->judge, &identity, sizeof identity);
    }
    if (options->reward_adapter) {
        PLUMB_TRY(load_scored(&o->reward_adapter, "reward_adapter", options->reward_adapter, base));
        s->judge = plumb_online_adapter_hash(s->judge, &o->reward_adapter, plumb_source_params(base));
        if (!options->reward_model) m->reward = &o->reward_adapter;
    } else if (!plumb_source_has_score(o->reward_source)) {
        return plumb_error(PLUMB_E_CONFIG,
                           "reward_model: %s has no score head; expected a sequence classifier (plumb reward with lora: false writes one), "
                           "or a reward_adapter with it",
                           options->reward_model);
    }
    return PLUMB_OK;
}

static bool on_trunk(const plumb_options *o) { return !strcmp(o->value_model, "trunk"); }
static bool on_base(const plumb_options *o) { return !strcmp(o->value_model, "adapter"); }

/* Of a value head on the policy's trunk the head alone counts, whatever lies beside it. */
static plumb_status load_value_adapter(plumb_online *o, const plumb_session *s, const plumb_source *base) {
    const char *path = s->o->value_adapter;
    PLUMB_TRY(load_scored(&o->value_adapter, "value_adapter", path, base));
    if (o->value_adapter.config.r || on_trunk(s->o)) return PLUMB_OK;
    return plumb_error(PLUMB_E_CONFIG,
                       "value_adapter: %s is a value head alone; expected value_model: trunk, where such a head comes from, or an adapter "
                       "with a head",
                       path);
}

/* A value model of its own is trained as the policy is. One that began as the reward model holds that too, as it
 * was: one base in memory. */
static plumb_status open_value_model(plumb_online *o, plumb_session *s, const plumb_model_options *policy, plumb_model_options *value) {
    const plumb_options *options = s->o;
    const plumb_adapter *start = options->value_adapter ? &o->value_adapter : NULL;
    if (!plumb_path_exists(options->value_model))
        return plumb_error(PLUMB_E_CONFIG,
                           "value_model: found %s, where there is nothing; expected adapter, trunk, or the path of a model (a Hugging Face "
                           "directory or a GGUF file)",
                           options->value_model);
    if (start && !options->lora)
        return plumb_error(PLUMB_E_CONFIG,
                           "value_adapter: found it with lora: false, by which value_model %s trains in full; expected lora: true, or a "
                           "value_model that plumb merge has made "
                           "of the two",
                           options->value_model);
    PLUMB_TRY(open_beside(s, &s->value_source, "value_model", options->value_model));
    if (start) PLUMB_TRY(load_value_adapter(o, s, s->value_source));
    if (start) o->value_config = &start->config;
    *value = (plumb_model_options){.adapter = start, .lora = options->lora && !start ? o->value_config : NULL,
                                   .random_as = PLUMB_VIEW_VALUE, .head = PLUMB_HEAD_ZERO, .train_modules = policy->train_modules,
                                   .n_train_modules = policy->n_train_modules, .seed = policy->seed, .checkpointing = policy->checkpointing,
                                   .tokens = policy->tokens, .frozen = policy->frozen};
    if (!o->reward_source || !plumb_same_path(plumb_source_path(o->reward_source), plumb_source_path(s->value_source))) return PLUMB_OK;
    s->judge_base = NULL;
    if (options->reward_adapter) value->reward = &o->reward_adapter;
    else value->reward_base = true;
    return PLUMB_OK;
}
static plumb_status open_critic(plumb_online *o, plumb_session *s, plumb_model_options *m, plumb_model_options *value) {
    const plumb_options *options = s->o;
    o->value_config = plumb_session_lora(s);
    if (!on_trunk(options) && !on_base(options)) return open_value_model(o, s, m, value);
    if (options->value_adapter) PLUMB_TRY(load_value_adapter(o, s, s->source));
    if (on_trunk(options)) {
        m->head = PLUMB_HEAD_ZERO, m->head_from = options->value_adapter ? &o->value_adapter : NULL;
        return PLUMB_OK;
    }
    /* a head alone has no matrices to start from */
    m->value = options->value_adapter ? &o->value_adapter : m->reward && m->reward->config.r ? m->reward : NULL;
    if (m->value) o->value_config = &m->value->config;
    else if (m->adapter || m->lora) m->value_lora = o->value_config;
    else
        return plumb_error(PLUMB_E_CONFIG, "value_model: adapter needs lora: true, a value_adapter or a reward_adapter to start from; or "
                                           "take trunk, or a model of its own");
    return PLUMB_OK;
}

/* Every answer must be one that the function can compare with: better known now than when its prompt is drawn. */
static plumb_status try_answers(plumb_reward_source *source, const plumb_dataset *d) {
    double reward;
    for (int64_t i = 0; i < d->count; i++) {
        const plumb_sample *x = &d->samples[i];
        PLUMB_TRY(plumb_reward_source_score(source, &(plumb_reward_item){x->prompt_text, x->answer, x->answer, x->record, 1}, 1, &reward));
    }
    return PLUMB_OK;
}

static bool is_leaving(void) { return plumb_comm_signal() == PLUMB_SIGNAL_TERM; }

/* The reward functions, and whether the data has what they compare with: before the model is loaded. */
static plumb_status open_sources(plumb_online *o, const plumb_session *s) {
    const plumb_options *options = s->o;
    plumb_reward_limits limits = {options->reward_timeout, (int)options->reward_retries};
    for (int i = 0; i < options->n_reward_funcs; i++) {
        PLUMB_TRY(plumb_reward_source_create(&o->sources[i], options->reward_funcs[i], &limits));
        o->n_sources = i + 1;
        plumb_reward_source_leave_when(o->sources[i], is_leaving);
        if (!options->dry_run) PLUMB_TRY(plumb_reward_source_start(o->sources[i]));
        if (!plumb_reward_source_needs_answer(o->sources[i])) continue;
        for (int64_t k = 0; k < s->train.count; k++)
            if (!s->train.samples[k].answer)
                return plumb_error(PLUMB_E_DATA, "reward_funcs: %s compares with an answer, and record %lld has none (field_answer: %s)",
                                   options->reward_funcs[i], (long long)s->train.samples[k].record + 1, options->field_answer);
        PLUMB_TRY(try_answers(o->sources[i], &s->train));
    }
    return PLUMB_OK;
}

/* Which token ends an assistant's turn, and what a chat template writes behind it: tokenized together, as a template's text is. */
static plumb_status find_turn_end(plumb_online *o, const plumb_session *s) {
    char text[64];
    int32_t id;
    const char *after, *mark = plumb_prompt_turn_end(s->o->template_name ? s->o->template_name : "chatml", &after);
    if (!mark) return PLUMB_OK;
    PLUMB_TRY(plumb_tokenize(s->tokenizer, mark, strlen(mark), false, &o->turn_end));
    if (o->turn_end.count != 1) o->turn_end.count = 0; /* no token of its own: no policy ends on it */
    if (!o->turn_end.count) return PLUMB_OK;
    id = o->turn_end.data[0], o->turn_end.count = 0;
    snprintf(text, sizeof text, "%s%s", mark, after);
    PLUMB_TRY(plumb_tokenize(s->tokenizer, text, strlen(text), false, &o->turn_end));
    PLUMB_CHECK(o->turn_end.count && o->turn_end.data[0] == id);
    return PLUMB_OK;
}

/* What the model needs beyond the policy, and what else can be wrong before it is there. Local. */
static plumb_status more_model(plumb_session *s, plumb_model_options *m, plumb_model_options *value) {
    plumb_online *o = s->user;
    const plumb_options *options = s->o;
    PLUMB_TRY(open_sources(o, s));
    PLUMB_TRY(find_turn_end(o, s));
    PLUMB_TRY(plumb_stops_create(&o->stops, s->tokenizer, options->stop_strings, options->n_stop_strings));
    m->reference = s->command != PLUMB_FOR_BESTOFN && (s->command == PLUMB_FOR_PPO || options->beta > 0);
    if (options->reward_adapter || options->reward_model) PLUMB_TRY(open_judge(o, s, m));
    return s->command == PLUMB_FOR_PPO ? open_critic(o, s, m, value) : PLUMB_OK;
}

/* Who judges, and who says what to expect; the reward model, where nobody else holds it. Collective. */
static plumb_status seat_scorers(plumb_online *o) {
    plumb_session *s = o->s;
    const plumb_options *options = s->o;
    if (s->command == PLUMB_FOR_PPO)
        o->critic = s->value_model ? (plumb_scorer){s->value_model, PLUMB_VIEW_POLICY}
                                   : (plumb_scorer){s->model, on_trunk(options) ? PLUMB_VIEW_POLICY : PLUMB_VIEW_VALUE};
    if (plumb_model_has_head(s->model, PLUMB_VIEW_REWARD)) o->judge = (plumb_scorer){s->model, PLUMB_VIEW_REWARD};
    else if (s->value_model && plumb_model_has_head(s->value_model, PLUMB_VIEW_REWARD))
        o->judge = (plumb_scorer){s->value_model, PLUMB_VIEW_REWARD};
    if (o->judge.model || !o->reward_source) return PLUMB_OK;
    const plumb_adapter *adapter = options->reward_adapter ? &o->reward_adapter : NULL;
    plumb_model_options m = {.adapter = adapter, .freeze_adapter = true, .frozen = plumb_session_storage(options)};
    PLUMB_TRY(plumb_model_create(&o->reward_model, s->be, o->reward_source, &m));
    plumb_source_release(o->reward_source);
    o->judge = (plumb_scorer){o->reward_model, PLUMB_VIEW_POLICY};
    return PLUMB_OK;
}

/* Best-of-n has no batch: a fixed number of completions, so that keys of random numbers do not depend on ranks. */
int64_t plumb_online_chunk(const plumb_options *o) { return plumb_max64(1, 512 / o->num_generations); }

static plumb_status open_local(plumb_online *o) {
    plumb_session *s = o->s;
    const plumb_options *options = s->o;
    o->group_size = options->num_generations;
    int64_t groups = s->command & PLUMB_FOR_ONLINE ? options->batch_size / o->group_size : plumb_online_chunk(options),
            most = groups * o->group_size;
    o->n_completions = (size_t)(most / plumb_comm_size(PLUMB_AXIS_DATA) + 1);
    PLUMB_TRY(plumb_alloc(&o->prompt_of, (size_t)groups, sizeof *o->prompt_of, "prompts"));
    PLUMB_TRY(plumb_alloc(&o->completions, o->n_completions, sizeof *o->completions, "completions"));
    int programs = 0;
    for (int i = 0; i < options->n_reward_funcs; i++) programs += !strncmp(options->reward_funcs[i], "program:", 8);
    double judging = programs * options->reward_timeout * (double)o->n_completions * (double)(options->reward_retries + 1);
    plumb_comm_set_timeout(fmax(PLUMB_COMM_TIMEOUT, judging)); /* a slow judge is not a lost rank */
    for (int i = 0; i < o->n_sources; i++) PLUMB_TRY(plumb_reward_source_start(o->sources[i])); /* a wrong command is known by now */
    plumb_rollout_options r = {.view = PLUMB_VIEW_POLICY, .values = plumb_online_on_trunk(o), .sampling = plumb_online_sampling(s, o->ends),
                               .stops = o->stops, .seed = (uint64_t)options->seed, .batch = options->rollout_batch,
                               .kv_bytes = (size_t)options->kv_budget_mb << 20, .threads = s->be->threads,
                               .progress = plumb_online_progress, .user = o};
    return plumb_rollout_create(&o->engine, s->model, &r);
}

/* After the session is open. Collective. */
static plumb_status open_online(plumb_online *o, plumb_session *s) {
    o->s = s;
    PLUMB_TRY(seat_scorers(o));
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, open_local(o)));
    if (!s->dir || !s->o->log_trajectories) return PLUMB_OK;
    plumb_status local = plumb_path_join(&o->trajectories, s->dir, "trajectories");
    if (local == PLUMB_OK && plumb_is_root()) local = plumb_make_dirs(o->trajectories);
    if (local == PLUMB_OK && plumb_is_root()) local = plumb_trajectories_rewind(o->trajectories, s->step);
    return plumb_comm_agree(PLUMB_AXIS_WORLD, local);
}

static void close_online(plumb_online *o) {
    plumb_rollout_free(o->engine);
    plumb_stops_free(o->stops);
    plumb_comm_set_timeout(0);
    for (int i = 0; i < o->n_sources; i++) plumb_reward_source_free(o->sources[i]);
    if (o->reward_model) plumb_model_free(o->reward_model);
    plumb_source_close(o->reward_source);
    plumb_adapter_free(&o->reward_adapter);
    plumb_adapter_free(&o->value_adapter);
    plumb_trajectories_free(&o->t);
    for (size_t i = 0; o->completions && i < o->n_completions; i++) plumb_completion_free(&o->completions[i]);
    plumb_plan_free(&o->plan);
    plumb_ids_free(&o->turn_end);
    free(o->completions), free(o->prompt_of), free(o->trees), free(o->data.samples), free(o->data.storage), free(o->passed),
        free(o->trajectories);
    *o = (plumb_online){0};
}

/* --- log -------------------------------------------------------------------------------------- */
/* Writers are groups of as many consecutive ranks as a node has; the first of each writes what its group sampled. */
static plumb_status write_share(plumb_online *o, int64_t group) {
    int64_t ranks = plumb_comm_size(PLUMB_AXIS_DATA), rank = plumb_comm_rank(PLUMB_AXIS_DATA), n = o->t.n_sequences;
    if (rank % group) return PLUMB_OK;
    int64_t first = n * rank / ranks, last = n * plumb_min64(rank + group, ranks) / ranks;
    plumb_trajectories mine = {0};
    PLUMB_TRY(plumb_online_texts(o, first, last - first));
    PLUMB_TRY(plumb_trajectories_slice(&mine, &o->t, first, last - first));
    plumb_status status = plumb_trajectories_write(o->trajectories, (int)(rank / group), (int)((ranks + group - 1) / group), &mine);
    plumb_trajectories_free(&mine);
    return status;
}
plumb_status plumb_online_log(plumb_online *o) {
    if (o->s->interrupted || !o->trajectories) return PLUMB_OK;
    double since = plumb_clock();
    int64_t group = plumb_comm_node_size(), ranks = plumb_comm_size(PLUMB_AXIS_DATA);
    plumb_comm_doing("writing trajectories of iteration", o->s->step + 1);
    plumb_comm_max_i64(PLUMB_AXIS_DATA, &group, 1);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, write_share(o, group)));
    plumb_status local =
        plumb_is_root() ? plumb_trajectories_commit(o->trajectories, o->t.iteration, (int)((ranks + group - 1) / group)) : PLUMB_OK;
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, local));
    plumb_online_phase(o, PHASE_LOG, since);
    return PLUMB_OK;
}

/* Of n numbers `apart` from each other; Bessel's deviation. */
static double mean_of(const double *x, int64_t n, int64_t apart, double *std) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i * apart];
    double mean = n ? sum / (double)n : 0;
    for (int64_t i = 0; i < n; i++) squares += (x[i * apart] - mean) * (x[i * apart] - mean);
    *std = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
    return mean;
}

int plumb_online_metrics(const plumb_online *o, plumb_metric *m) {
    static char names[3 * PLUMB_SCORE_PARTS][PLUMB_PART_NAME + 16];
    const plumb_trajectories *t = &o->t;
    int n = 0;
    double std, ended = 0, length = 0, longest = 0, shortest = INFINITY, ended_length = 0, entropy = 0;
    for (int64_t i = 0; i < t->n_sequences; i++) {
        double tokens = (double)(t->token_offset[i + 1] - t->token_offset[i]);
        bool end = t->finish[i] != PLUMB_FINISH_LENGTH;
        ended += end, length += tokens, ended_length += end ? tokens : 0, longest = fmax(longest, tokens),
                                                                          shortest = fmin(shortest, tokens);
    }
    for (int64_t i = 0; i < t->n_tokens; i++) entropy += t->entropy[i];
    double count = (double)t->n_sequences, tokens = fmax(1, (double)t->n_tokens);
    m[n++] = (plumb_metric){"reward", mean_of(t->score, t->n_sequences, 1, &std)};
    m[n++] = (plumb_metric){"reward_std", std};
    for (int k = 0; k < t->n_parts; k++) {
        int source = k - (t->n_parts - o->n_sources); /* the model's part comes first, where there is one */
        snprintf(names[3 * k], sizeof names[0], "rewards/%s/mean", t->part_names[k]);
        snprintf(names[3 * k + 1], sizeof names[0], "rewards/%s/std", t->part_names[k]);
        const char *counts = source >= 0 ? plumb_reward_source_counts(o->sources[source]) : NULL;
        if (counts) snprintf(names[3 * k + 2], sizeof names[0], "rewards/%s/%s", t->part_names[k], counts);
        m[n++] = (plumb_metric){names[3 * k], mean_of(t->parts + k, t->n_sequences, t->n_parts, &std)};
        m[n++] = (plumb_metric){names[3 * k + 1], std};
        if (counts) m[n++] = (plumb_metric){names[3 * k + 2], (double)o->failed[source]};
    }
    m[n++] = (plumb_metric){"entropy", entropy / tokens};
    m[n++] = (plumb_metric){"completions/mean_length", length / count};
    m[n++] = (plumb_metric){"completions/min_length", shortest};
    m[n++] = (plumb_metric){"completions/max_length", longest};
    m[n++] = (plumb_metric){"completions/clipped_ratio", 1 - ended / count};
    m[n++] = (plumb_metric){"completions/mean_terminated_length", ended > 0 ? ended_length / ended : 0};
    static const char *const phases[PHASES] = {"time/sample", "time/score", "time/pass", "time/learn", "time/log"};
    for (int i = 0; i < PHASES; i++) m[n++] = (plumb_metric){phases[i], o->seconds[i]};
    m[n++] = (plumb_metric){"rollout_tokens_per_second", o->seconds[PHASE_SAMPLE] > 0 ? (double)t->n_tokens / o->seconds[PHASE_SAMPLE] : 0};
    return n;
}

/* Completions up to the end of this iteration; an epoch's last iteration takes the prompts that are left. */
static int64_t completions_so_far(const plumb_online *o) {
    const plumb_session *s = o->s;
    int64_t groups = s->o->batch_size / o->group_size, epochs = s->step / s->steps_per_epoch, in_epoch = s->step % s->steps_per_epoch + 1;
    return (epochs * s->train.count + plumb_min64(in_epoch * groups, s->train.count)) * o->group_size;
}

void plumb_online_write_metrics(plumb_online *o, plumb_metric *m, int n) {
    plumb_session *s = o->s;
    if (!plumb_is_root() || !s->log || !plumb_session_logs(s, s->step + 1)) return;
    double seconds = plumb_clock() - s->step_began;
    const plumb_metric last[] = {{"policy/entropy_avg", o->sums[STAT_ENTROPY] / fmax(1, o->sums[STAT_TOKENS])},
                                 {"policy/first_log_ratio", o->first_log_ratio},
                                 {"grad_norm", o->last.grad_norm},
                                 {"learning_rate", o->last.learning_rate},
                                 {"episode", (double)completions_so_far(o)},
                                 {"epoch", (double)(s->step + 1) / (double)s->steps_per_epoch},
                                 {"num_tokens", (double)s->tokens_seen},
                                 {"tokens_per_second", (double)o->t.n_tokens / seconds},
                                 {"step_seconds", seconds}};
    memcpy(m + n, last, sizeof last);
    /* rank 0 alone writes: the others learn of it at the next agreement */
    plumb_session_keep(s, plumb_log_step(s->log, s->step + 1, m, n + (int)(sizeof last / sizeof *last)));
}

/* --- ends ------------------------------------------------------------------------------------- */
plumb_signal plumb_online_signal(plumb_session *s) {
    int64_t signal = plumb_session_signal(s);
    plumb_comm_max_i64(PLUMB_AXIS_DATA, &signal, 1);
    return (plumb_signal)signal;
}
plumb_status plumb_online_after(plumb_online *o) {
    plumb_session *s = o->s;
    int64_t saved = s->saved_step;
    if (s->interrupted) {
        plumb_session_back(s);
        s->signal = PLUMB_SIGNAL_TERM;
    } else {
        s->step++;
        s->signal = plumb_online_signal(s);
    }
    PLUMB_TRY(plumb_session_after_step(s));
    if (s->signal != PLUMB_SIGNAL_NONE && s->step == 0) s->stopping = true; /* nothing to save yet: begin again */
    bool compact = o->trajectories && s->saved_step != saved && plumb_is_root();
    return plumb_comm_agree(PLUMB_AXIS_DATA, compact ? plumb_trajectories_compact(o->trajectories) : PLUMB_OK);
}

/* The value model with its head: what a further run starts from. On the trunk of a policy that is trained in full it is the head alone:
 * the rest is in model/. */
static plumb_status write_value_model(plumb_online *o) {
    plumb_session *s = o->s;
    plumb_output p = {o->critic.model, s->value_model ? s->value_source : s->source, o->critic.view, o->value_config, true};
    if (!p.model) return PLUMB_OK;
    bool on_policy = p.model == s->model && p.view == PLUMB_VIEW_POLICY;
    if (on_policy && plumb_session_in_full(s->model)) return plumb_session_write_head(s, s->model, "value");
    return plumb_session_write(s, &p, "value", s->value_model ? "value_model" : NULL);
}

int plumb_online_run(const plumb_options *o, int command, const char *name, plumb_status (*train)(plumb_online *o)) {
    plumb_session s;
    plumb_online online = {0};
    plumb_status status = plumb_session_open_with(&s, o, command, name, PLUMB_DATA_PROMPTS, &online, more_model);
    bool stopped = false;
    if (status == PLUMB_OK && !o->dry_run) {
        status = open_online(&online, &s);
        if (status == PLUMB_OK) status = train(&online);
        if (status == PLUMB_OK) status = plumb_comm_agree(PLUMB_AXIS_WORLD, plumb_session_pending(&s));
        stopped = s.stopping;
        if (status == PLUMB_OK && !stopped && (command & PLUMB_FOR_ONLINE)) {
            status = plumb_session_finish(&s);
            if (status == PLUMB_OK && plumb_is_root()) status = write_value_model(&online);
            if (status == PLUMB_OK) status = plumb_session_pending(&s);
            status = plumb_comm_agree(PLUMB_AXIS_WORLD, status);
        }
    }
    if (status != PLUMB_OK && plumb_is_root()) {
        if (s.log) plumb_log_line(s.log, "plumb %s: %s", name, plumb_error_message());
        else fprintf(stderr, "plumb %s: %s\n", name, plumb_error_message());
    }
    close_online(&online);
    plumb_session_close(&s);
    return status != PLUMB_OK ? 1 : stopped ? PLUMB_EXIT_RESUME : 0;
}
