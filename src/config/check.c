/* Rules between keys: what a row alone cannot say.  A contradiction is refused, never resolved in silence; the message
 * points at the key that was written, in the file or on the command line. */
#include "config_internal.h"
#include <stdlib.h>
#include <string.h>
#include "plumb/io.h"

static bool is_set(const plumb_binding *b, const char *key) {
    plumb_place at = plumb_config_place(b, key);
    return at.line || at.argument;
}

/* Where to point: the first of two keys that the user wrote himself. */
static plumb_place place_of_either(const plumb_binding *b, const char *key, const char *other) {
    return plumb_config_place(b, is_set(b, key) ? key : other);
}

static plumb_status check_schedule(const plumb_binding *b) {
    const plumb_options *o = b->options;
    const struct {
        const char *key, *type;
        bool used;
    } extras[] = {{"lr_scheduler_kwargs.min_lr", "cosine_with_min_lr", o->lr_min != 0},
                  {"lr_scheduler_kwargs.power", "polynomial", o->lr_power != 0},
                  {"lr_scheduler_kwargs.num_decay_steps", "warmup_stable_decay", o->lr_decay_steps != 0}};
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++)
        if (extras[i].used && strcmp(o->lr_scheduler_type, extras[i].type))
            return plumb_config_fault(b, plumb_config_place(b, extras[i].key), extras[i].key,
                                      "found it with lr_scheduler_type: %s; expected %s, which alone uses it",
                                      o->lr_scheduler_type, extras[i].type);
    if (o->warmup_steps > 0 && o->warmup_ratio > 0)
        return plumb_config_fault(b, plumb_config_place(b, "warmup_ratio"), "warmup_ratio",
                                  "found %g beside warmup_steps: %lld; expected one of the two", o->warmup_ratio,
                                  (long long)o->warmup_steps);
    if (!strcmp(o->lr_scheduler_type, "constant") && (o->warmup_steps > 0 || o->warmup_ratio > 0))
        return plumb_config_fault(
            b, place_of_either(b, "lr_scheduler_type", "warmup_steps"), "lr_scheduler_type",
            "found constant with a warm-up, which it would ignore; expected constant_with_warmup, or no warm-up");
    return PLUMB_OK;
}

static plumb_status check_data(const plumb_binding *b) {
    const plumb_options *o = b->options;
    if (o->eval_file && o->eval_last > 0)
        return plumb_config_fault(b, plumb_config_place(b, "eval_last"), "eval_last",
                                  "found %lld beside eval_file; expected one of the two", (long long)o->eval_last);
    const char *wanted = o->eval_steps > 0 ? "eval_steps" : o->eval_at_start ? "eval_at_start" : NULL;
    if (wanted && !o->eval_file && o->eval_last == 0)
        return plumb_config_fault(b, plumb_config_place(b, wanted), wanted,
                                  "found an evaluation without records; expected eval_file or eval_last too");
    return PLUMB_OK;
}

static plumb_status check_training(const plumb_binding *b) {
    const plumb_options *o = b->options;
    PLUMB_TRY(check_schedule(b));
    if (!o->lora && o->adapter)
        return plumb_config_fault(
            b, place_of_either(b, "lora", "adapter"), "lora",
            "found false with an adapter; expected true, or a model into which plumb merge has merged it");
    if (!o->lora && o->n_train_modules == 0)
        return plumb_config_fault(
            b, plumb_config_place(b, "train_modules"), "train_modules",
            "found an empty list with lora: false: nothing would be trained; expected [all] or patterns");
    if (b->command == PLUMB_FOR_DPO && !strcmp(o->loss_type, "ipo") && o->label_smoothing > 0)
        return plumb_config_fault(b, plumb_config_place(b, "label_smoothing"), "label_smoothing",
                                  "found %g with loss_type: ipo; expected 0: ipo has none", o->label_smoothing);
    return PLUMB_OK;
}

static plumb_status check_rewards(const plumb_binding *b) {
    const plumb_options *o = b->options;
    int parts = o->n_reward_funcs + (o->reward_adapter || o->reward_model);
    if (o->n_reward_weights && o->n_reward_weights != parts)
        return plumb_config_fault(b, plumb_config_place(b, "reward_weights"), "reward_weights",
                                  "found %d; expected %d: one for each source of rewards", o->n_reward_weights, parts);
    if (!strcmp(o->missing_eos, "replace") && o->missing_eos_penalty == 0)
        return plumb_config_fault(b, plumb_config_place(b, "missing_eos"), "missing_eos",
                                  "found replace with missing_eos_penalty: 0; expected the score, above 0, whose negative replaces");
    for (int i = 0; i < o->n_reward_weights; i++) {
        char *end;
        double w = strtod(o->reward_weights[i], &end);
        if (end == o->reward_weights[i] || *end || !(w > -1e15 && w < 1e15))
            return plumb_config_fault(b, plumb_config_place(b, "reward_weights"), "reward_weights",
                                      "found '%s'; expected numbers within 1e15", o->reward_weights[i]);
    }
    return PLUMB_OK;
}

static plumb_status check_online(const plumb_binding *b) {
    const plumb_options *o = b->options;
    if (o->batch_size % o->num_generations)
        return plumb_config_fault(b, place_of_either(b, "batch_size", "num_generations"), "batch_size",
                                  "found %lld; expected a multiple of num_generations (%lld): whole groups",
                                  (long long)o->batch_size, (long long)o->num_generations);
    if (o->num_mini_batches > o->batch_size / o->num_generations)
        return plumb_config_fault(b, place_of_either(b, "num_mini_batches", "batch_size"), "num_mini_batches",
                                  "found %lld; expected at most %lld: the prompts of an iteration",
                                  (long long)o->num_mini_batches, (long long)(o->batch_size / o->num_generations));
    if (o->dual_clip != 0 && o->dual_clip <= 1)
        return plumb_config_fault(b, plumb_config_place(b, "dual_clip"), "dual_clip",
                                  "found %g; expected more than 1, or 0 for none", o->dual_clip);
    if (o->adap_kl_ctrl && o->kl_horizon <= 0.2 * (double)o->batch_size)
        return plumb_config_fault(b, place_of_either(b, "kl_horizon", "adap_kl_ctrl"), "kl_horizon",
                                  "found %g with batch_size: %lld; expected more than a fifth of it: else one step takes kl_coef to 0",
                                  o->kl_horizon, (long long)o->batch_size);
    if (b->command == PLUMB_FOR_GRPO && o->delta > 0 && !strcmp(o->loss_type, "cispo"))
        return plumb_config_fault(b, place_of_either(b, "delta", "loss_type"), "delta",
                                  "found %g with loss_type: cispo, which caps weights by epsilon_high alone; expected 0", o->delta);
    if (b->command == PLUMB_FOR_GRPO && o->delta > 0 && o->delta <= 1 + o->epsilon)
        return plumb_config_fault(b, plumb_config_place(b, "delta"), "delta",
                                  "found %g; expected more than 1 + epsilon (%g), or 0 for none", o->delta, 1 + o->epsilon);
    return PLUMB_OK;
}

static plumb_status check_completions(const plumb_binding *b) {
    const plumb_options *o = b->options;
    if (o->min_new_tokens > o->max_completion_length)
        return plumb_config_fault(b, place_of_either(b, "min_new_tokens", "max_completion_length"), "min_new_tokens",
                                  "found %lld with max_completion_length: %lld; expected at most that",
                                  (long long)o->min_new_tokens, (long long)o->max_completion_length);
    return PLUMB_OK;
}

static plumb_status check_generation(const plumb_binding *b) {
    const plumb_options *o = b->options;
    const struct {
        const char *key;
        bool used;
    } filters[] = {{"temperature", o->temperature != 1},
                   {"top_k", o->top_k != 0},
                   {"top_p", o->top_p != 1},
                   {"min_p", o->min_p != 0},
                   {"typical_p", o->typical_p != 1}};
    for (size_t i = 0; i < sizeof filters / sizeof *filters && !o->do_sample; i++)
        if (filters[i].used)
            return plumb_config_fault(b, plumb_config_place(b, filters[i].key), filters[i].key,
                                      "found it with do_sample: false, which takes the most likely token whatever it is; expected "
                                      "do_sample: true");
    if (o->min_new_tokens > o->max_new_tokens)
        return plumb_config_fault(b, place_of_either(b, "min_new_tokens", "max_new_tokens"), "min_new_tokens",
                                  "found %lld with max_new_tokens: %lld; expected at most that", (long long)o->min_new_tokens,
                                  (long long)o->max_new_tokens);
    return PLUMB_OK;
}

/* A result that took the place of what it was made from would be noticed too late. */
static plumb_status check_files(const plumb_binding *b) {
    const plumb_options *o = b->options;
    if (!o->input_file || !o->output_file || !plumb_same_path(o->input_file, o->output_file)) return PLUMB_OK;
    return plumb_config_fault(b, place_of_either(b, "output_file", "input_file"), "output_file",
                              "found %.400s, which is input_file; expected another file", o->output_file);
}

static plumb_status check_bestofn(const plumb_binding *b) {
    const char *resume = b->options->resume;
    if (!strcmp(resume, "auto") || !strcmp(resume, "never")) return PLUMB_OK;
    return plumb_config_fault(b, plumb_config_place(b, "resume"), "resume", "found '%.200s'; expected auto or never", resume);
}

plumb_status plumb_config_check(plumb_binding *b) {
    double seconds;
    if (plumb_duration_parse(b->options->stop_after, &seconds) != PLUMB_OK)
        return plumb_config_fault(b, plumb_config_place(b, "stop_after"), "stop_after", "%s", plumb_error_message());
    if (b->command & (PLUMB_FOR_SFT | PLUMB_FOR_DPO | PLUMB_FOR_REWARD | PLUMB_FOR_EVAL)) PLUMB_TRY(check_data(b));
    if (b->command & PLUMB_FOR_TRAINING) PLUMB_TRY(check_training(b));
    if (b->command & (PLUMB_FOR_ONLINE | PLUMB_FOR_BESTOFN)) PLUMB_TRY(check_rewards(b));
    if (b->command & (PLUMB_FOR_ONLINE | PLUMB_FOR_BESTOFN)) PLUMB_TRY(check_completions(b));
    if (b->command & PLUMB_FOR_ONLINE) PLUMB_TRY(check_online(b));
    if (b->command & PLUMB_FOR_BESTOFN) PLUMB_TRY(check_bestofn(b));
    if (b->command & PLUMB_FOR_FILE) PLUMB_TRY(check_files(b));
    if (b->command & PLUMB_FOR_GENERATE) PLUMB_TRY(check_generation(b));
    return PLUMB_OK;
}

plumb_status plumb_config_check_required(const plumb_options *o, int command, const char *path) {
    const char *name = plumb_options_command_name(command);
    for (int i = 0; i < plumb_option_count; i++) {
        const plumb_option *row = &plumb_option_table[i];
        if (!(row->required & command) || *(char *const *)(const void *)((const char *)o + row->offset)) continue;
        if (path) return plumb_error(PLUMB_E_CONFIG, "%.400s: %s is missing: %s", path, row->key, row->help);
        return plumb_error(PLUMB_E_CONFIG,
                           "%s is missing: %s. Write %s=… or name a configuration file; see plumb %s --help", row->key,
                           row->help, row->key, name);
    }
    if ((command & (PLUMB_FOR_ONLINE | PLUMB_FOR_BESTOFN)) && !o->reward_adapter && !o->reward_model && o->n_reward_funcs == 0)
        return plumb_error(PLUMB_E_CONFIG,
                           "%.400s%sreward_adapter is missing: expected a reward model (reward_adapter, reward_model), or reward_funcs",
                           path ? path : "", path ? ": " : "");
    if (command == PLUMB_FOR_EVAL && !o->eval_file && !(o->train_file && o->eval_last > 0))
        return plumb_error(
            PLUMB_E_CONFIG,
            "%.400s%seval_file is missing: expected a file of held-out records, or train_file with eval_last",
            path ? path : "", path ? ": " : "");
    return PLUMB_OK;
}
