/* Opening, logging and ending the iterations of a recipe that samples and learns. */
#include "online.h"
#include "plan.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- open and close -------------------------------------------------------------------------------------------------------------------------------- */
/* A reward model that was trained anew is another judge. */
uint64_t plumb_online_adapter_hash(const plumb_adapter *a, const plumb_params *p) {
    uint64_t h = plumb_session_mix(PLUMB_MIX_START, a->score, (size_t)a->n_score * sizeof *a->score);
    for (int i = 0; i < a->n_params; i++)
        if (a->a[i]) {
            h = plumb_session_mix(h, a->a[i], (size_t)(a->config.r * p->items[i].cols) * sizeof **a->a);
            h = plumb_session_mix(h, a->b[i], (size_t)(a->config.r * p->items[i].rows) * sizeof **a->b);
        }
    return h;
}
static plumb_status load_scored(plumb_adapter *a, const char *key, const char *path, const plumb_params *p) {
    PLUMB_TRY(plumb_adapter_load(a, path, p));
    return a->score ? PLUMB_OK : plumb_error(PLUMB_E_CONFIG, "%s: %s has no score head; expected a reward model, as plumb reward writes it", key, path);
}

/* What the model needs beyond the policy. Local. */
static plumb_status more_model(plumb_session *s, plumb_model_options *m) {
    plumb_online *o = s->user;
    const plumb_options *options = s->o;
    bool ppo = s->command == PLUMB_FOR_PPO, trunk = ppo && !strcmp(options->value_model, "trunk");
    const plumb_params *params = plumb_source_params(s->source);
    m->reference = s->command != PLUMB_FOR_BESTOFN && (ppo || options->beta > 0);
    if (options->reward_adapter && !options->reward_model) {
        PLUMB_TRY(load_scored(&o->reward_adapter, "reward_adapter", options->reward_adapter, params));
        m->reward = &o->reward_adapter;
        s->judge = plumb_online_adapter_hash(&o->reward_adapter, params);
    }
    o->value_config = m->adapter ? &m->adapter->config : m->lora;
    if (options->value_adapter && trunk) return plumb_error(PLUMB_E_CONFIG, "value_adapter: found it with value_model: trunk, which has no adapter of its own");
    if (trunk) m->head = PLUMB_HEAD_ZERO;
    if (!ppo || trunk) return PLUMB_OK;
    if (options->value_adapter) PLUMB_TRY(load_scored(&o->value_adapter, "value_adapter", options->value_adapter, params));
    m->value = options->value_adapter ? &o->value_adapter : m->reward;
    if (m->value) o->value_config = &m->value->config;
    else m->value_lora = o->value_config;
    if (!o->value_config) return plumb_error(PLUMB_E_CONFIG, "value_model: adapter needs lora: true, a value_adapter or a reward_adapter to start from; or value_model: trunk");
    return PLUMB_OK;
}

static plumb_status open_reward_model(plumb_online *o) {
    plumb_session *s = o->s;
    const plumb_options *options = s->o;
    if (!options->reward_model) return PLUMB_OK;
    plumb_status local = plumb_source_open(&o->reward_source, options->reward_model);
    if (local == PLUMB_OK && plumb_source_arch(o->reward_source)->vocab != plumb_source_arch(s->source)->vocab)
        local = plumb_error(PLUMB_E_CONFIG, "reward_model: %s has a vocabulary of %lld, the policy of %lld; a reward model must read the policy's tokens", options->reward_model,
                            (long long)plumb_source_arch(o->reward_source)->vocab, (long long)plumb_source_arch(s->source)->vocab);
    if (local == PLUMB_OK) local = load_scored(&o->reward_adapter, "reward_adapter", options->reward_adapter, plumb_source_params(o->reward_source));
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, local));
    return plumb_model_create(&o->reward_model, s->be, o->reward_source, &(plumb_model_options){.adapter = &o->reward_adapter, .freeze_adapter = true, .frozen = plumb_session_storage(options)});
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

/* Best-of-n has no batch: a fixed number of completions, so that keys of random numbers do not depend on ranks. */
int64_t plumb_online_chunk(const plumb_options *o) { return plumb_max64(1, 512 / o->num_generations); }

static plumb_status open_local(plumb_online *o) {
    plumb_session *s = o->s;
    const plumb_options *options = s->o;
    o->group_size = options->num_generations;
    int64_t groups = s->command & PLUMB_FOR_ONLINE ? options->batch_size / o->group_size : plumb_online_chunk(options), most = groups * o->group_size;
    o->n_completions = (size_t)(most / plumb_comm_size(PLUMB_AXIS_DATA) + 1);
    PLUMB_TRY(plumb_alloc(&o->prompt_of, (size_t)groups, sizeof *o->prompt_of, "prompts"));
    PLUMB_TRY(plumb_alloc(&o->completions, o->n_completions, sizeof *o->completions, "completions"));
    plumb_reward_limits limits = {options->reward_timeout, (int)options->reward_retries};
    for (int i = 0; i < options->n_reward_funcs; i++) {
        PLUMB_TRY(plumb_reward_source_create(&o->sources[i], options->reward_funcs[i], &limits));
        o->n_sources = i + 1;
        bool needs = plumb_reward_source_needs_answer(o->sources[i]);
        for (int64_t k = 0; needs && k < s->train.count; k++)
            if (!s->train.samples[k].answer)
                return plumb_error(PLUMB_E_DATA, "reward_funcs: %s compares with an answer, and record %lld has none (field_answer: %s)", options->reward_funcs[i],
                                   (long long)s->train.samples[k].record + 1, options->field_answer);
        if (needs) PLUMB_TRY(try_answers(o->sources[i], &s->train));
        if (!strncmp(options->reward_funcs[i], "program:", 8)) /* a slow judge is not a lost rank */
            plumb_comm_set_timeout(fmax(1800, options->reward_timeout * (double)o->n_completions * (double)(options->reward_retries + 1)));
    }
    for (int i = 0; i < PLUMB_SCORE_PARTS; i++) o->weights[i] = i < options->n_reward_weights ? strtod(options->reward_weights[i], NULL) : 1;
    PLUMB_TRY(plumb_stops_create(&o->stops, s->tokenizer, options->stop_strings, options->n_stop_strings));
    plumb_rollout_options r = {.view = PLUMB_VIEW_POLICY, .sampling = plumb_online_sampling(s, o->ends), .stops = o->stops, .seed = (uint64_t)options->seed, .batch = options->rollout_batch,
                               .kv_bytes = (size_t)options->kv_budget_mb << 20, .threads = s->be->threads, .progress = plumb_online_progress, .user = o};
    return plumb_rollout_create(&o->engine, s->model, &r);
}

/* After the session is open. Collective. */
static plumb_status open_online(plumb_online *o, plumb_session *s) {
    o->s = s;
    PLUMB_TRY(open_reward_model(o));
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
    for (int i = 0; i < o->n_sources; i++) plumb_reward_source_free(o->sources[i]);
    if (o->reward_model) plumb_model_free(o->reward_model);
    plumb_source_close(o->reward_source);
    plumb_adapter_free(&o->reward_adapter);
    plumb_adapter_free(&o->value_adapter);
    plumb_trajectories_free(&o->t);
    for (size_t i = 0; o->completions && i < o->n_completions; i++) plumb_completion_free(&o->completions[i]);
    plumb_plan_free(&o->plan);
    free(o->completions), free(o->prompt_of), free(o->trees), free(o->data.samples), free(o->data.storage), free(o->passed), free(o->trajectories);
    *o = (plumb_online){0};
}

/* --- log ---------------------------------------------------------------------------------------------------------------------------------------------- */
/* Writers are groups of as many consecutive ranks as a node has; the first of each writes what its group sampled. */
static plumb_status write_share(plumb_online *o, int64_t group) {
    int64_t ranks = plumb_comm_size(PLUMB_AXIS_DATA), rank = plumb_comm_rank(PLUMB_AXIS_DATA), n = o->t.n_sequences;
    if (rank % group) return PLUMB_OK;
    int64_t first = n * rank / ranks, last = n * plumb_min64(rank + group, ranks) / ranks;
    plumb_trajectories mine = {0};
    PLUMB_TRY(plumb_online_texts(o, first, last - first));
    PLUMB_TRY(plumb_trajectories_slice(&mine, &o->t, first, last - first));
    plumb_status status = plumb_trajectories_write(o->trajectories, (int)(rank / group), &mine);
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
    plumb_status local = plumb_is_root() ? plumb_trajectories_commit(o->trajectories, o->t.iteration, (int)((ranks + group - 1) / group)) : PLUMB_OK;
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
        ended += end, length += tokens, ended_length += end ? tokens : 0, longest = fmax(longest, tokens), shortest = fmin(shortest, tokens);
    }
    for (int64_t i = 0; i < t->n_tokens; i++) entropy += t->entropy[i];
    double count = (double)t->n_sequences, tokens = fmax(1, (double)t->n_tokens);
    m[n++] = (plumb_metric){"reward", mean_of(t->score, t->n_sequences, 1, &std)};
    m[n++] = (plumb_metric){"reward_std", std};
    for (int k = 0; k < t->n_parts; k++) {
        int source = k - (t->n_parts - o->n_sources); /* the model's part comes first, where there is one */
        snprintf(names[3 * k], sizeof names[0], "rewards/%s/mean", t->part_names[k]);
        snprintf(names[3 * k + 1], sizeof names[0], "rewards/%s/std", t->part_names[k]);
        snprintf(names[3 * k + 2], sizeof names[0], "rewards/%s/errors", t->part_names[k]);
        m[n++] = (plumb_metric){names[3 * k], mean_of(t->parts + k, t->n_sequences, t->n_parts, &std)};
        m[n++] = (plumb_metric){names[3 * k + 1], std};
        if (source >= 0 && plumb_reward_source_may_fail(o->sources[source])) m[n++] = (plumb_metric){names[3 * k + 2], (double)o->failed[source]};
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

void plumb_online_write_metrics(plumb_online *o, plumb_metric *m, int n) {
    plumb_session *s = o->s;
    if (!plumb_is_root() || !s->log || !plumb_session_logs(s, s->step + 1)) return;
    double seconds = plumb_clock() - s->step_began;
    const plumb_metric last[] = {{"policy/entropy_avg", o->sums[STAT_ENTROPY] / fmax(1, o->sums[STAT_TOKENS])}, {"policy/first_log_ratio", o->first_log_ratio}, {"grad_norm", o->last.grad_norm},
                                 {"learning_rate", o->last.learning_rate}, {"episode", (double)((s->step + 1) * s->o->batch_size)}, {"epoch", (double)(s->step + 1) / (double)s->steps_per_epoch},
                                 {"num_tokens", (double)s->tokens_seen}, {"tokens_per_second", (double)o->t.n_tokens / seconds}, {"step_seconds", seconds}};
    memcpy(m + n, last, sizeof last);
    plumb_session_keep(s, plumb_log_step(s->log, s->step + 1, m, n + (int)(sizeof last / sizeof *last))); /* rank 0 alone writes: the others learn of it at the next agreement */
}

/* --- ends ------------------------------------------------------------------------------------------------------------------------------------------- */
plumb_signal plumb_online_signal(plumb_session *s) {
    int64_t signal = plumb_comm_signal();
    if (signal == PLUMB_SIGNAL_NONE && s->stop_after > 0 && plumb_clock() - s->began >= s->stop_after) signal = PLUMB_SIGNAL_SAVE;
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

/* The value model beside the policy, as an adapter with a head: what a further run starts from. */
static plumb_status write_value_model(plumb_online *o) {
    plumb_session *s = o->s;
    plumb_view view = plumb_model_has_head(s->model, PLUMB_VIEW_VALUE) ? PLUMB_VIEW_VALUE : PLUMB_VIEW_POLICY;
    if (!plumb_model_has_head(s->model, view)) return PLUMB_OK;
    if (plumb_model_adapter_of(s->model, view) != PLUMB_NO_ADAPTER) return plumb_session_write_adapter(s, view, o->value_config, true, "value");
    if (s->log) plumb_log_line(s->log, "the value head is not saved: there is no adapter to save it with");
    return PLUMB_OK;
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
