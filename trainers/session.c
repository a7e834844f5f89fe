/* Opening a run: options to a model, data, an optimizer and a folder; saving and finishing it.
 *
 * Local work is grouped between agreement points, so that a bad record or a full disk on one rank ends the run on all with one message. */
#include "plan.h"
#include <limits.h>
#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/report.h"

/* threads, else OMP_NUM_THREADS (the first number, where it is a list), else a thread for each of this rank's cores; more than it is
 * bound to would share them. */
static int threads_of(const plumb_options *o) {
    const char *variable = getenv("OMP_NUM_THREADS");
    long wanted = variable ? strtol(variable, NULL, 10) : 0;
    cpu_set_t set;
    if (o->threads > 0) return (int)o->threads;
    if (wanted < 1) return plumb_comm_cores();
    long bound = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : INT_MAX;
    return (int)(wanted < bound ? wanted : bound);
}

static void say(const plumb_session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const plumb_session *s, const char *format, ...) {
    (void)s;
    if (!plumb_is_root()) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* --- data ------------------------------------------------------------------------------------- */
/* A default that the model cannot do becomes what it can; what somebody wrote is an error then. A prompt leaves room for
 * a token, and so does a completion. */
static plumb_status limit_length(const plumb_session *s, const char *key, int64_t *length, bool written, int64_t room) {
    int64_t wanted = *length, positions = plumb_source_arch(s->source)->max_positions, most = positions - room;
    if (wanted <= most) return PLUMB_OK;
    if (written)
        return plumb_error(PLUMB_E_CONFIG, "%s: found %lld; expected at most %lld, as the model has %lld positions%s", key,
                           (long long)wanted, (long long)most, (long long)positions, room ? " for a prompt and its completion" : "");
    say(s, "%s: %lld, as the model has %lld positions (the default is %lld)", key, (long long)most, (long long)positions,
        (long long)wanted);
    *length = most;
    return PLUMB_OK;
}
static plumb_status limit_lengths(plumb_session *s, plumb_data_kind kind) {
    plumb_options *o = &s->resolved;
    if (kind != PLUMB_DATA_PROMPTS) return limit_length(s, "max_length", &o->max_length, o->max_length_set, 0);
    PLUMB_TRY(limit_length(s, "max_prompt_length", &o->max_prompt_length, o->max_prompt_length_set, 1));
    PLUMB_TRY(limit_length(s, "max_completion_length", &o->max_completion_length, o->max_completion_length_set, 1));
    return limit_length(s, "min_new_tokens", &o->min_new_tokens, true, 1);
}
/* Completions that end where the model's positions do, before max_completion_length: they count as cut. */
static void say_cut(const plumb_session *s) {
    int64_t n = 0, room = plumb_source_arch(s->source)->max_positions - s->o->max_completion_length;
    for (int64_t i = 0; i < s->train.count; i++) n += s->train.samples[i].prompt_count > room;
    if (n)
        say(s, "max_completion_length: %lld of %lld prompts leave room for fewer tokens, as the model has %lld positions", (long long)n,
            (long long)s->train.count, (long long)(room + s->o->max_completion_length));
}
/* Without a limit on lengths the model's own is met now, not when the record's turn comes. */
static plumb_status check_lengths(const plumb_session *s, const char *path, const plumb_dataset *d) {
    int64_t positions = plumb_source_arch(s->source)->max_positions;
    for (int64_t i = 0; i < d->count; i++) {
        const plumb_sample *x = &d->samples[i];
        for (int b = 0; b < x->n_branches; b++)
            if (x->prompt_count + x->branch[b].count > positions)
                return plumb_error(PLUMB_E_DATA,
                                   "%s: record %lld has %lld tokens, the model %lld positions; expected a max_length from 1 to %lld, which "
                                   "cuts or drops such records",
                                   path, (long long)x->record + 1, (long long)x->prompt_count + x->branch[b].count, (long long)positions,
                                   (long long)positions);
    }
    return PLUMB_OK;
}
static plumb_status data_options(const plumb_options *o, plumb_data_kind kind, plumb_data_options *d) {
    *d = (plumb_data_options){.kind = kind, .template_name = o->template_name, .field_prompt = o->field_prompt,
                              .field_completion = o->field_completion, .field_messages = o->field_messages, .field_text = o->field_text,
                              .field_instruction = o->field_instruction, .field_input = o->field_input, .field_output = o->field_output,
                              .field_chosen = o->field_chosen, .field_rejected = o->field_rejected, .field_margin = o->field_margin,
                              .field_label = o->field_label, .field_answer = o->field_answer, .keep_texts = kind == PLUMB_DATA_RATED,
                              .max_length = (int32_t)(kind == PLUMB_DATA_PROMPTS ? o->max_prompt_length : o->max_length),
                              .skip_bad = o->on_error && !strcmp(o->on_error, "skip")};
    const char *loss = o->loss_on ? o->loss_on : "auto";
    d->loss_on = !strcmp(loss, "completion")  ? PLUMB_LOSS_COMPLETION
                 : !strcmp(loss, "all")       ? PLUMB_LOSS_ALL
                 : !strcmp(loss, "assistant") ? PLUMB_LOSS_ASSISTANT
                                              : PLUMB_LOSS_AUTO;
    return d->template_name ? plumb_prompt_check(d->template_name) : PLUMB_OK;
}
static void say_counts(const plumb_session *s, const char *what, const plumb_dataset *d, const plumb_data_options *o) {
    const plumb_data_counts *c = &d->counts;
    char twice[64] = "";
    int64_t tokens = 0;
    if (o->kind == PLUMB_DATA_PROMPTS) {
        say(s, "%s: %lld prompts, %lld tokens (of %lld records: %lld dropped as too long, %lld empty, %lld bad)", what, (long long)d->count,
            (long long)c->tokens, (long long)c->records, (long long)c->dropped_long, (long long)c->dropped_empty, (long long)c->bad);
    } else {
        for (int64_t i = 0; i < d->count; i++) tokens += plumb_sample_tokens(&d->samples[i]);
        if (tokens && tokens != c->tokens) snprintf(twice, sizeof twice, " (%lld with the prompt of a pair twice)", (long long)tokens);
        say(s,
            "%s: %lld samples, %lld tokens%s, %lld targets (of %lld records: %lld truncated, %lld dropped as too long, %lld without "
            "targets, %lld bad, %lld with a token across the prompt's end)",
            what, (long long)d->count, (long long)c->tokens, twice, (long long)c->targets, (long long)c->records, (long long)c->truncated,
            (long long)c->dropped_long, (long long)c->dropped_empty, (long long)c->bad, (long long)c->merged_border);
    }
    if (c->common_prompt)
        say(s, "%s: %lld pairs have no field \"%s\": what both answers begin with is taken for the prompt (field_prompt names another)",
            what, (long long)c->common_prompt, o->field_prompt ? o->field_prompt : "prompt");
    if (c->bad) say(s, "first bad record: %s", d->first_bad);
}
static plumb_status load_data(plumb_session *s, plumb_data_kind kind) {
    plumb_data_options d;
    PLUMB_TRY(limit_lengths(s, kind));
    PLUMB_TRY(data_options(s->o, kind, &d));
    /* DPO cuts, a reward model reads whole answers or none, as in TRL */
    d.drop_long = s->command == PLUMB_FOR_REWARD || s->command == PLUMB_FOR_SCORE;
    if (s->command == PLUMB_FOR_SCORE || s->command == PLUMB_FOR_BESTOFN) {
        plumb_dataset *to = s->command == PLUMB_FOR_SCORE ? &s->eval : &s->train;
        d.path = s->o->input_file;
        PLUMB_TRY(plumb_dataset_load(to, s->tokenizer, &d));
        PLUMB_TRY(check_lengths(s, d.path, to));
        say_counts(s, "records", to, &d);
        if (kind == PLUMB_DATA_PROMPTS) say_cut(s);
        return PLUMB_OK;
    }
    if (s->command != PLUMB_FOR_EVAL) {
        d.path = s->o->train_file;
        d.skip_last = s->o->eval_last;
        PLUMB_TRY(plumb_dataset_load(&s->train, s->tokenizer, &d));
        PLUMB_TRY(check_lengths(s, d.path, &s->train));
        say_counts(s, "training", &s->train, &d);
        if (kind == PLUMB_DATA_PROMPTS) say_cut(s);
        if ((!s->o->eval_file && !s->o->eval_last) || (s->command & PLUMB_FOR_ONLINE)) return PLUMB_OK;
    }
    d.path = s->o->eval_file ? s->o->eval_file : s->o->train_file;
    if (!d.path) return plumb_error(PLUMB_E_CONFIG, "eval_file: missing; give a .jsonl or .json file (or train_file and eval_last)");
    d.skip_last = 0;
    d.take_last = s->o->eval_last;
    PLUMB_TRY(plumb_dataset_load(&s->eval, s->tokenizer, &d));
    PLUMB_TRY(check_lengths(s, d.path, &s->eval));
    say_counts(s, "held-out", &s->eval, &d);
    return PLUMB_OK;
}

/* --- what identifies a run: a checkpoint of another is refused -------------------------------- */
uint64_t plumb_session_mix(uint64_t h, const void *bytes, size_t n) {
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001b3ull;
    return h;
}
uint64_t plumb_session_data_hash(const plumb_dataset *d) {
    uint64_t h = PLUMB_MIX_START;
    for (int64_t i = 0; i < d->count; i++) {
        const plumb_sample *s = &d->samples[i];
        h = plumb_session_mix(h, s->prompt, (size_t)s->prompt_count * sizeof *s->prompt);
        h = plumb_session_mix(h, &s->margin, sizeof s->margin);
        if (s->answer) h = plumb_session_mix(h, s->answer, strlen(s->answer));
        for (int b = 0; b < s->n_branches; b++) {
            h = plumb_session_mix(h, s->branch[b].ids, (size_t)s->branch[b].count * sizeof *s->branch[b].ids);
            if (s->branch[b].mask) h = plumb_session_mix(h, s->branch[b].mask, (size_t)s->branch[b].count);
        }
    }
    return h;
}
static uint64_t values_hash(plumb_session *s) {
    uint64_t h = PLUMB_MIX_START;
    return plumb_session_mix(h, s->gradient, (size_t)plumb_trained_count(s) * sizeof *s->gradient);
}
/* Lines in the order in which their differences explain each other: a seed before the values that it gives. A schedule without an end
 * lets a run go on for as long as it is told to. */
static plumb_status identify(plumb_session *s) {
    const plumb_options *o = s->o;
    plumb_str text = {0};
    bool endless = s->schedule.kind == PLUMB_LR_CONSTANT || s->schedule.kind == PLUMB_LR_CONSTANT_WARMUP;
    plumb_status status = plumb_str_printf(
        &text,
        "trainer=%s\nnumerics=%d\nseed=%lld\nshuffle=%d\nbatch_size=%lld\nmicro_batch_tokens=%lld\n"
        "learning_rate=%.17g\nlr_scheduler_type=%s\nwarmup_steps=%lld\nweight_decay=%.17g\nadam=%.17g,%.17g,%.17g\n"
        "max_grad_norm=%.17g\nprecision=%s,%s\ndeterminism=%s\n"
        "loss=%s,%.17g,%.17g,%.17g\ndropout=%.17g\nlogits_budget_mb=%lld\n",
        s->name, PLUMB_NUMERICS, (long long)o->seed, o->shuffle, (long long)o->batch_size, (long long)o->micro_batch_tokens,
        s->schedule.lr, o->lr_scheduler_type, (long long)s->schedule.warmup_steps, o->weight_decay, o->adam_beta1, o->adam_beta2,
        o->adam_eps, o->max_grad_norm, s->be->compute == PLUMB_COMPUTE_BF16 ? "bf16" : "fp32", o->base_weights,
        s->elastic ? "elastic" : "fixed", o->loss_type ? o->loss_type : "", o->beta, o->label_smoothing, o->center_rewards_coefficient,
        o->lora ? o->lora_dropout : 0.0, (long long)o->logits_budget_mb);
    if (status == PLUMB_OK && !endless) status = plumb_str_printf(&text, "steps (max_steps, epochs)=%lld\n", (long long)s->total_steps);
    if (status == PLUMB_OK && o->lora)
        status = plumb_str_printf(&text, "lora_r=%lld lora_alpha=%.17g\n", (long long)o->lora_r, o->lora_alpha);
    if (status == PLUMB_OK)
        status = plumb_str_printf(&text, "model=%016llx\ndata (train_file, eval_last, max_length, template_name, field_...)=%016llx\n",
                                  (unsigned long long)plumb_source_identity(s->source),
                                  (unsigned long long)plumb_session_data_hash(&s->train));
    if (status == PLUMB_OK && s->value_source)
        status = plumb_str_printf(&text, "value_model=%016llx\n", (unsigned long long)plumb_source_identity(s->value_source));
    if (status == PLUMB_OK && s->judge)
        status = plumb_str_printf(&text, "reward_model, reward_adapter=%016llx\n", (unsigned long long)s->judge);
    if (status == PLUMB_OK)
        status = plumb_str_printf(&text, "trainable=%lld\nstart (adapter, lora_target_modules, value_adapter)=%016llx\n",
                                  (long long)plumb_trained_count(s), (unsigned long long)values_hash(s));
    /* recipes with many settings */
    if (status == PLUMB_OK && (s->command & PLUMB_FOR_ONLINE)) status = plumb_options_identity(o, s->command, false, &text);
    s->identity = text.data;
    return status;
}

/* A reward model is no policy, and the other way round: its layers have learned to score, also where tied embeddings would give it an LM
 * head. A model that scores needs none. */
static plumb_status check_kind(plumb_session *s) {
    bool may_score = s->command & (PLUMB_FOR_SCORE | PLUMB_FOR_REWARD);
    if (plumb_source_has_score(s->source) && !may_score)
        return plumb_error(PLUMB_E_CONFIG,
                           "model: %s is a reward model (a sequence classifier: a score in place of an LM head); plumb %s needs a language "
                           "model, such as the one it was made from",
                           s->o->model, s->name);
    if (may_score) plumb_source_as_classifier(s->source);
    return PLUMB_OK;
}
static plumb_status check_head(const plumb_session *s) {
    bool scores = s->command == PLUMB_FOR_SCORE, may = scores || s->command == PLUMB_FOR_REWARD;
    if (!s->has_adapter) {
        if (!scores || plumb_source_has_score(s->source)) return PLUMB_OK;
        return plumb_error(PLUMB_E_CONFIG,
                           "model: %s has no score head; expected a sequence classifier (plumb reward with lora: false writes one), or a "
                           "reward model's adapter with it",
                           s->o->model);
    }
    if (!s->adapter.config.r && !scores)
        return plumb_error(PLUMB_E_CONFIG, "adapter: %s is a value head alone; plumb %s goes on from an adapter with matrices",
                           s->o->adapter, s->name);
    if (s->adapter.score && !may)
        return plumb_error(PLUMB_E_CONFIG,
                           "adapter: %s is a reward model (task_type SEQ_CLS); plumb %s goes on from a language model's adapter",
                           s->o->adapter, s->name);
    if (!s->adapter.score && scores)
        return plumb_error(PLUMB_E_CONFIG, "adapter: %s has no score head; expected a reward model, as plumb reward writes it",
                           s->o->adapter);
    return PLUMB_OK;
}

void plumb_session_note_base(const char *key, const plumb_adapter *a, const plumb_source *base) {
    const char *made_for = a->config.base_model;
    if (!plumb_is_root() || !made_for || !plumb_path_exists(made_for) || plumb_same_path(made_for, plumb_source_path(base))) return;
    fprintf(stderr, "%s: its adapter_config.json names %s as its base; here it goes on %s\n", key, made_for, plumb_source_path(base));
}

/* --- model and optimizer ---------------------------------------------------------------------- */
static plumb_status open_inputs(plumb_session *s, plumb_data_kind kind) {
    const plumb_options *o = s->o;
    const char *note = NULL;
    if (!o->model) return plumb_error(PLUMB_E_CONFIG, "model: missing; give a Hugging Face directory or a GGUF file");
    PLUMB_TRY(plumb_backend_create(&s->be,
                                   &(plumb_backend_options){.backend = o->backend,
                                                            .isa = o->isa,
                                                            .precision = o->precision,
                                                            .threads = threads_of(o)},
                                   &note));
    if (note) say(s, "%s", note);
    PLUMB_TRY(plumb_source_open(&s->source, o->model));
    PLUMB_TRY(check_kind(s));
    PLUMB_TRY(plumb_tokenizer_load(&s->tokenizer, o->tokenizer ? o->tokenizer : o->model));
    if (o->adapter) {
        PLUMB_TRY(plumb_adapter_load(&s->adapter, o->adapter, plumb_source_params(s->source)));
        s->has_adapter = true;
        plumb_session_note_base("adapter", &s->adapter, s->source);
    }
    PLUMB_TRY(check_head(s));
    if (s->command != PLUMB_FOR_GENERATE) PLUMB_TRY(load_data(s, kind));
    return PLUMB_OK;
}

/* The head's weights beside those of the layers: a target costs that part of a token. */
static double target_tokens(const plumb_source *source) {
    const plumb_params *p = plumb_source_params(source);
    const plumb_arch *a = plumb_source_arch(source);
    double layers = 0;
    for (int i = 0; i < p->count; i++)
        if (p->items[i].layer >= 0) layers += (double)p->items[i].rows * (double)p->items[i].cols;
    return (double)a->vocab * (double)a->hidden / layers;
}

plumb_storage plumb_session_storage(const plumb_options *o) {
    plumb_storage storage = PLUMB_STORE_NATIVE;
    plumb_storage_named(o->base_weights, &storage); /* one of the option's choices */
    return storage;
}
static plumb_model_options model_options(plumb_session *s) {
    const plumb_options *o = s->o;
    bool trains = s->command & PLUMB_FOR_TRAINING;
    plumb_model_options m = {.freeze_adapter = !trains, .seed = (uint64_t)o->seed, .checkpointing = o->gradient_checkpointing || !trains,
                             .logits_budget = (size_t)o->logits_budget_mb << 20, .tokens = trains ? o->micro_batch_tokens : 0,
                             .train_modules = o->train_modules, .n_train_modules = o->n_train_modules,
                             .reference = s->command == PLUMB_FOR_DPO,
                             .head = s->command == PLUMB_FOR_REWARD ? PLUMB_HEAD_RANDOM : PLUMB_HEAD_NONE,
                             .frozen = plumb_session_storage(o)};
    if (s->has_adapter) {
        m.adapter = &s->adapter;
    } else if (!trains) { /* the base model as it is */
        m.n_train_modules = 0;
    } else if (o->lora) {
        s->lora = (plumb_lora_config){.r = o->lora_r, .alpha = o->lora_alpha, .dropout = o->lora_dropout, .rslora = o->use_rslora,
                                      .target_modules = o->lora_target_modules, .n_target_modules = o->n_lora_target_modules};
        m.lora = &s->lora;
    }
    return m;
}

static plumb_status create_optimizer(plumb_session *s) {
    int n;
    plumb_zero_part *parts;
    int64_t total = plumb_trained_count(s);
    PLUMB_TRY(plumb_trained_parts(s, &parts, &n));
    plumb_status status = plumb_alloc(&s->gradient, (size_t)total, sizeof *s->gradient, "gradients");
    if (status == PLUMB_OK) {
        plumb_trained_read(s);
        plumb_zero_options o = {PLUMB_AXIS_DATA, s->elastic, parts, n, plumb_trained_units(s), total};
        status = plumb_zero_create(&s->zero, &o, s->gradient);
    }
    free(parts);
    return status;
}

static plumb_status set_schedule(plumb_session *s) {
    const plumb_options *o = s->o;
    int64_t samples = s->command & PLUMB_FOR_ONLINE ? o->batch_size / o->num_generations : o->batch_size; /* of a step: records */
    s->steps_per_epoch = (s->train.count + samples - 1) / samples;
    s->kl_coef = o->kl_coef;
    s->total_steps = o->max_steps > 0 ? o->max_steps : (int64_t)ceil((double)s->steps_per_epoch * o->epochs);
    int64_t warmup = o->warmup_steps > 0 ? o->warmup_steps : (int64_t)ceil(o->warmup_ratio * (double)s->total_steps);
    s->schedule = (plumb_schedule){.kind = (plumb_schedule_kind)plumb_schedule_from_name(o->lr_scheduler_type), .lr = o->learning_rate,
                                   .warmup_steps = warmup, .total_steps = s->total_steps, .decay_steps = o->lr_decay_steps,
                                   .min_lr = o->lr_min, .power = o->lr_power};
    PLUMB_TRY(plumb_schedule_check(&s->schedule));
    s->elastic = o->determinism && !strcmp(o->determinism, "elastic");
    s->order_epoch = -1;
    return plumb_alloc(&s->order, (size_t)s->train.count, sizeof *s->order, "the order of samples");
}

/* --- the folder of the run -------------------------------------------------------------------- */
/* A run that begins anew leaves nothing in its folder that a later one would go on from, or take for its result. */
static plumb_status set_run_aside(const plumb_session *s) {
    static const char *const names[] = {"checkpoints", "trajectories", "adapter", "model", "value", "value_model"};
    plumb_status status = PLUMB_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == PLUMB_OK; i++) {
        char *path;
        PLUMB_TRY(plumb_path_join(&path, s->dir, names[i]));
        if (plumb_path_exists(path)) status = plumb_set_aside(path);
        free(path);
    }
    return status;
}
static plumb_status open_folder(plumb_session *s) {
    const plumb_options *o = s->o;
    s->dir = strdup(o->output_dir);
    if (!s->dir) return plumb_error(PLUMB_E_MEMORY, "out of memory");
    PLUMB_TRY(plumb_path_join(&s->checkpoints, s->dir, "checkpoints"));
    if (!plumb_is_root()) return PLUMB_OK;
    PLUMB_TRY(plumb_make_dirs(s->dir));
    PLUMB_TRY(plumb_claim_take(&s->claim, s->dir));
    if (!strcmp(o->resume, "never")) PLUMB_TRY(set_run_aside(s));
    return plumb_make_dirs(s->checkpoints);
}
/* The settings of a run are written once it is known that the folder is its own: a run that is refused there must leave them. */
static plumb_status write_settings(const plumb_session *s) {
    plumb_str text = {0};
    char *path = NULL;
    plumb_status status = plumb_options_write(s->o, s->command, &text);
    if (status == PLUMB_OK) status = plumb_path_join(&path, s->dir, "config.yaml");
    if (status == PLUMB_OK) status = plumb_write_file(path, text.data, text.length);
    free(path);
    plumb_str_free(&text);
    return status;
}

/* --- checkpoints ------------------------------------------------------------------------------ */
enum { COUNTERS = 4 };
typedef struct saved_state {
    plumb_ckpt_array arrays[PLUMB_ZERO_ARRAYS];
    plumb_ckpt_counter *counters;
    char (*names)[24];
    int n;
} saved_state;

static plumb_status describe_state(plumb_session *s, saved_state *state) {
    static const char *const arrays[] = {"values", "adam_m", "adam_v"};
    int units = plumb_zero_units(s->zero);
    *state = (saved_state){.n = units + COUNTERS};
    PLUMB_TRY(plumb_alloc(&state->counters, (size_t)state->n, sizeof *state->counters, "a checkpoint"));
    plumb_status status = plumb_alloc(&state->names, (size_t)units, sizeof *state->names, "a checkpoint");
    if (status != PLUMB_OK) {
        free(state->counters);
        return status;
    }
    for (int i = 0; i < PLUMB_ZERO_ARRAYS; i++) {
        plumb_ckpt_array *a = &state->arrays[i];
        *a = (plumb_ckpt_array){.name = arrays[i], .total = plumb_trained_count(s), .element_size = sizeof(float)};
        a->data = plumb_zero_shard(s->zero, (plumb_zero_array)i, &a->first, &a->count);
    }
    state->counters[0] = (plumb_ckpt_counter){"step", s->step};
    state->counters[1] = (plumb_ckpt_counter){"tokens", s->tokens_seen};
    state->counters[2] = (plumb_ckpt_counter){"updates", s->updates};
    state->counters[3] = (plumb_ckpt_counter){"kl_coef", 0};
    memcpy(&state->counters[3].value, &s->kl_coef, sizeof s->kl_coef); /* its bits */
    for (int u = 0; u < units; u++) {
        snprintf(state->names[u], sizeof *state->names, "scale.%d", u);
        state->counters[COUNTERS + u] = (plumb_ckpt_counter){state->names[u], plumb_zero_scale(s->zero, u)};
    }
    return PLUMB_OK;
}
static void free_state(saved_state *state) {
    free(state->counters);
    free(state->names);
}

static plumb_status save(plumb_session *s) {
    saved_state state;
    plumb_comm_doing("saving a checkpoint after step", s->step);
    PLUMB_TRY(describe_state(s, &state));
    plumb_status status = plumb_checkpoint_save(s->checkpoints, s->step, s->identity, state.arrays, PLUMB_ZERO_ARRAYS, state.counters,
                                                state.n, (int)s->o->save_total_limit);
    free_state(&state);
    s->saved_step = s->step;
    return status;
}

static plumb_status resume(plumb_session *s) {
    const char *from = s->o->resume;
    char *path = NULL;
    int64_t step = 0;
    s->saved_step = -1;
    if (!strcmp(from, "never")) return PLUMB_OK;
    bool given = strcmp(from, "auto") != 0;
    if (given) path = strdup(from);
    else PLUMB_TRY(plumb_checkpoint_latest(s->checkpoints, &path, &step));
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, given && !path ? plumb_error(PLUMB_E_MEMORY, "out of memory") : PLUMB_OK));
    if (!path) return PLUMB_OK;
    saved_state state;
    plumb_status status = describe_state(s, &state);
    if (status == PLUMB_OK) {
        status = plumb_checkpoint_load(path, s->identity, state.arrays, PLUMB_ZERO_ARRAYS, state.counters, state.n);
        if (status == PLUMB_OK) {
            s->step = s->saved_step = state.counters[0].value;
            s->tokens_seen = state.counters[1].value;
            s->updates = state.counters[2].value;
            memcpy(&s->kl_coef, &state.counters[3].value, sizeof s->kl_coef);
            for (int u = 0; u < state.n - COUNTERS; u++) plumb_zero_set_scale(s->zero, u, state.counters[COUNTERS + u].value);
            plumb_zero_gather(s->zero, s->gradient);
            plumb_trained_write(s);
            say(s, "resumed from %s (step %lld)", path, (long long)s->step);
        }
        free_state(&state);
    }
    free(path);
    if (status == PLUMB_OK && s->step > s->total_steps)
        status = plumb_error(PLUMB_E_CONFIG,
                             "max_steps: found a run of %lld steps; %s has %lld already; expected as many at least, another "
                             "folder, or resume=never",
                             (long long)s->total_steps, s->dir, (long long)s->step);
    return status;
}

plumb_status plumb_session_after_step(plumb_session *s) {
    const plumb_options *o = s->o;
    bool leave = s->signal != PLUMB_SIGNAL_NONE, due = o->save_steps > 0 && s->step % o->save_steps == 0,
         last = s->step == s->total_steps && o->save_steps > 0;
    s->step_began = plumb_clock();
    if ((leave || due || last) && s->step > 0 && s->saved_step != s->step) PLUMB_TRY(save(s));
    s->step_began = plumb_clock();
    if (leave && s->step < s->total_steps) {
        s->stopping = true;
        bool never = !strcmp(o->resume, "never");
        if (!plumb_is_root() || !s->log) return PLUMB_OK;
        if (s->step == 0) plumb_log_line(s->log, "stopped before the first step was done; the same command begins anew");
        else
            plumb_log_line(s->log, "stopped after step %lld; saved in %s; %s", (long long)s->step, s->checkpoints,
                           never ? "resume=auto goes on from there" : "the same command goes on from there");
    }
    return PLUMB_OK;
}

/* --- open and close --------------------------------------------------------------------------- */
static void say_model(const plumb_session *s, const char *what, const plumb_model *m, const plumb_source *source, const char *more) {
    int64_t parameters = 0;
    const plumb_arch *a = plumb_model_arch(m);
    const plumb_params *p = plumb_source_params(source);
    for (int i = 0; i < p->count; i++) parameters += p->items[i].rows * p->items[i].cols;
    say(s, "%s: %s, %.1fM parameters, %lld layers; training %.2fM%s; base weights %s", what, a->family, (double)parameters / 1e6,
        (long long)a->layers, (double)plumb_model_trainable_count(m) / 1e6, more,
        plumb_model_shared(m) ? "shared on each node" : "private");
}
static void say_plan(const plumb_session *s) {
    char ranks[96];
    int n = plumb_comm_size(PLUMB_AXIS_WORLD);
    snprintf(ranks, sizeof ranks, "; %d rank%s x %d thread%s, %s %s", n, n > 1 ? "s" : "", s->be->threads, s->be->threads > 1 ? "s" : "",
             s->be->compute == PLUMB_COMPUTE_BF16 ? "bf16" : "fp32", s->be->isa);
    say_model(s, "model", s->model, s->source, ranks);
    if (s->value_model) say_model(s, "value model", s->value_model, s->value_source, "");
    say(s, "run: %lld steps of %lld samples; output %s", (long long)s->total_steps, (long long)s->o->batch_size, s->dir);
}

/* Collective. */
static plumb_status create_models(plumb_session *s, const plumb_model_options *m, const plumb_model_options *value) {
    PLUMB_TRY(plumb_model_create(&s->model, s->be, s->source, m));
    if (!s->value_source) return PLUMB_OK;
    plumb_status status = plumb_model_create(&s->value_model, s->be, s->value_source, value);
    return status == PLUMB_OK ? status : plumb_error_prefix(status, "value_model");
}

static plumb_status open_session(plumb_session *s, plumb_data_kind kind, plumb_more_model more) {
    plumb_status inputs = open_inputs(s, kind);
    if (inputs == PLUMB_OK && s->o->stop_after) inputs = plumb_duration_parse(s->o->stop_after, &s->stop_after);
    plumb_model_options m = model_options(s), value = {0};
    if (inputs == PLUMB_OK && more) inputs = more(s, &m, &value);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, inputs));
    s->target_tokens = s->command == PLUMB_FOR_REWARD || s->command == PLUMB_FOR_SCORE ? 0 : target_tokens(s->source);
    PLUMB_TRY(create_models(s, &m, &value));
    if (!(s->command & PLUMB_FOR_TRAINING)) return s->o->dry_run && s->command == PLUMB_FOR_BESTOFN ? plumb_session_dry_run(s) : PLUMB_OK;
    plumb_status local = set_schedule(s);
    if (local == PLUMB_OK) local = create_optimizer(s);
    if (local == PLUMB_OK) local = identify(s);
    plumb_source_release(s->source);
    if (s->value_source) plumb_source_release(s->value_source);
    if (local == PLUMB_OK && !s->o->dry_run) local = open_folder(s);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_WORLD, local));
    if (s->o->dry_run) return plumb_session_dry_run(s);
    say_plan(s);
    PLUMB_TRY(resume(s));
    if (plumb_is_root()) local = write_settings(s);
    if (plumb_is_root() && local == PLUMB_OK) local = plumb_log_open(&s->log, s->dir, s->total_steps, s->step);
    return plumb_comm_agree(PLUMB_AXIS_WORLD, local);
}

plumb_status plumb_session_open(plumb_session *s, const plumb_options *o, int command, const char *name, plumb_data_kind kind) {
    return plumb_session_open_with(s, o, command, name, kind, NULL, NULL);
}
plumb_status plumb_session_open_with(plumb_session *s, const plumb_options *o, int command, const char *name, plumb_data_kind kind,
                                     void *user, plumb_more_model more) {
    *s = (plumb_session){.resolved = *o, .o = &s->resolved, .command = command, .name = name, .user = user, .began = plumb_clock()};
    plumb_status status = open_session(s, kind, more);
    s->step_began = plumb_clock();
    return status;
}

void plumb_session_close(plumb_session *s) {
    plumb_claim_free(s->claim);
    plumb_log_close(s->log);
    plumb_zero_free(s->zero);
    plumb_model_free(s->value_model);
    plumb_model_free(s->model);
    plumb_forest_free(&s->forest);
    plumb_plan_free(&s->plan);
    plumb_plan_free(&s->eval_plan);
    plumb_forward_result_free(&s->policy);
    plumb_forward_result_free(&s->reference);
    plumb_dataset_free(&s->train);
    plumb_dataset_free(&s->eval);
    plumb_adapter_free(&s->adapter);
    plumb_tokenizer_free(s->tokenizer);
    plumb_source_close(s->value_source);
    plumb_source_close(s->source);
    plumb_backend_free(s->be);
    free(s->order);
    free(s->gradient);
    free(s->derivatives);
    free(s->kept);
    free(s->kept_scales);
    free(s->dir);
    free(s->checkpoints);
    free(s->identity);
    *s = (plumb_session){0};
}

/* --- the product ------------------------------------------------------------------------------ */
typedef struct fetched { const plumb_output *p; plumb_adapter adapter; } fetched;
static plumb_status fetch(void *user, int param, float *out) {
    fetched *f = user;
    if (param >= 0) return plumb_model_param(f->p->model, f->p->source, param, &f->adapter, PLUMB_FT_F32, out);
    memcpy(out, f->adapter.score, (size_t)f->adapter.n_score * sizeof *out); /* of a classifier */
    return PLUMB_OK;
}
const plumb_lora_config *plumb_session_lora(const plumb_session *s) { return s->has_adapter ? &s->adapter.config : &s->lora; }
/* The adapter as trained, with the settings it was made or loaded with; its head too, or not. */
static plumb_status trained_adapter(const plumb_output *p, plumb_adapter *a) {
    PLUMB_TRY(plumb_model_adapter(p->model, p->view, a));
    a->config.target_modules = p->lora->target_modules, a->config.n_target_modules = p->lora->n_target_modules,
    a->config.target_regex = p->lora->target_regex;
    a->config.base_model = (char *)(uintptr_t)plumb_source_path(p->source);
    if (p->head) return PLUMB_OK;
    free(a->score);
    a->score = NULL;
    return PLUMB_OK;
}
static void free_trained(plumb_adapter *a) {
    a->config = (plumb_lora_config){0}; /* the strings are borrowed */
    plumb_adapter_free(a);
}
bool plumb_session_in_full(const plumb_model *m) {
    int n;
    const plumb_trainable *t = plumb_model_trainables(m, &n);
    bool full = false;
    for (int i = 0; i < n; i++) full = full || t[i].part == PLUMB_PART_FULL;
    return full;
}
plumb_status plumb_session_write(plumb_session *s, const plumb_output *p, const char *name, const char *full_name) {
    bool full = full_name && plumb_session_in_full(p->model);
    char *path = NULL;
    fetched f = {.p = p};
    if (full) name = full_name;
    plumb_status status = plumb_path_join(&path, s->dir, name);
    if (status == PLUMB_OK) status = trained_adapter(p, &f.adapter);
    if (status == PLUMB_OK && !full) status = plumb_adapter_save(&f.adapter, path, plumb_source_params(p->source));
    if (status == PLUMB_OK && full)
        status = plumb_model_export(path, plumb_model_arch(p->model), plumb_source_params(p->source), PLUMB_FT_F32, fetch, &f);
    if (status == PLUMB_OK && full) status = plumb_tokenizer_save(s->tokenizer, path);
    if (status == PLUMB_OK && s->log) plumb_log_line(s->log, "%s written to %s", name, path);
    free_trained(&f.adapter);
    free(path);
    return status;
}
plumb_status plumb_session_write_head(plumb_session *s, plumb_model *m, const char *name) {
    char *path = NULL;
    plumb_adapter a = {0};
    plumb_status status = plumb_path_join(&path, s->dir, name);
    if (status == PLUMB_OK) status = plumb_model_adapter(m, PLUMB_VIEW_POLICY, &a);
    if (status == PLUMB_OK) status = plumb_head_save(&a, path);
    if (status == PLUMB_OK && s->log) plumb_log_line(s->log, "value head written to %s", path);
    plumb_adapter_free(&a);
    free(path);
    return status;
}
/* The page about the run. What was trained is saved by then: a failure is kept, so that everything else is written too. */
static void write_report(plumb_session *s) {
    plumb_status status = s->o->report ? plumb_report_write(&(plumb_report_options){.dir = s->dir}) : PLUMB_OK;
    if (status != PLUMB_OK)
        plumb_session_keep(s, plumb_error_prefix(status, "report.html was not written (the result was; report: false does without)"));
    else if (s->o->report && s->log) plumb_log_line(s->log, "report written to %s/report.html", s->dir);
}
plumb_status plumb_session_finish(plumb_session *s) {
    /* a value head on PPO's policy is no part of it */
    plumb_output p = {s->model, s->source, PLUMB_VIEW_POLICY, plumb_session_lora(s), s->command != PLUMB_FOR_PPO};
    plumb_comm_doing("writing the result after step", s->step);
    plumb_status status = plumb_is_root() ? plumb_session_write(s, &p, "adapter", "model") : PLUMB_OK;
    if (status == PLUMB_OK && plumb_is_root()) write_report(s);
    return plumb_comm_agree(PLUMB_AXIS_WORLD, status);
}
