/* Options: one table says key, type, default, range, choices and a line of help; --help, the reference page
 * docs/options.md, validation and the resolved config.yaml all come from it.  Local: every rank reads the same file and
 * reaches the same result.
 *
 * A row binds a key to a field of plumb_options; the key is the field's name (lr_scheduler_kwargs.* aside). YAML is
 * bound strictly from libyaml's events (YAML 1.2 scalars): an unknown key (with the nearest name), a wrong type, a
 * value out of range, a duplicate key, an anchor, a tag, a second document is "FILE:LINE:COLUMN: key: found …; expected
 * …". Overrides "key=value" come after the file and are reported as "argument 3: key: …"; of several for one key the
 * last counts. Keys are flat; a key with a dot may be written dotted or nested in YAML, dotted in overrides.
 * docs/options.md has the rules. */
#ifndef PLUMB_CONFIG_H
#define PLUMB_CONFIG_H
#include <stdio.h>
#include "plumb/base.h"

/* Strings and lists are owned by the struct and freed by plumb_options_free. A string whose default is null is NULL
 * when unset; no other string is NULL. Fields that the command does not know have their defaults. */
typedef struct plumb_options {
    /* what */
    char *model, *adapter, *tokenizer, *output_dir, *run_name; /* run_name: the last part of output_dir when unset */
    /* data */
    char *train_file, *eval_file, *template_name, *loss_on, *on_error;
    int64_t eval_last; /* the last N records of train_file are the held-out split */
    char *field_prompt, *field_completion, *field_messages, *field_text, *field_instruction, *field_input,
        *field_output;
    char *field_chosen, *field_rejected;
    int64_t max_length; /* 0 = no limit */
    /* somebody wrote it: what a model cannot do is then an error, not lowered */
    bool max_length_set, max_prompt_length_set, max_completion_length_set;
    bool shuffle;
    int64_t seed;
    /* training */
    double epochs;
    int64_t max_steps; /* 0 = by epochs */
    int64_t batch_size, micro_batch_tokens;
    double learning_rate;
    char *lr_scheduler_type;
    int64_t warmup_steps;
    double warmup_ratio;     /* at most one of the two is not 0 */
    double lr_min, lr_power; /* lr_scheduler_kwargs.min_lr, .power: as in plumb_schedule, 0 = its default */
    int64_t lr_decay_steps;  /* lr_scheduler_kwargs.num_decay_steps */
    double weight_decay, adam_beta1, adam_beta2, adam_eps, max_grad_norm;
    char *precision; /* auto | fp32 | bf16 */
    bool gradient_checkpointing;
    int64_t logits_budget_mb;
    char *determinism;   /* fixed | elastic */
    char *backend, *isa; /* cpu | ref ; auto | avx512bf16 | avx512 | avx2 | plain */
    int64_t threads;     /* 0 = cores / ranks of the node */
    /* LoRA */
    bool lora;
    int64_t lora_r;
    double lora_alpha, lora_dropout;
    char **lora_target_modules;
    int n_lora_target_modules;
    bool use_rslora;
    char **train_modules; /* patterns of parameters trained in full beside (or without) LoRA; [all] when lora is false
                             and nothing is said */
    int n_train_modules;
    /* DPO */
    char *loss_type;
    double beta, label_smoothing; /* label_smoothing is 0 where loss_type is ipo */
    /* reward model */
    double center_rewards_coefficient;
    char *field_margin, *field_label, *input_file, *output_file;
    /* rollouts */
    char *field_answer;
    int64_t max_prompt_length, max_completion_length, num_generations, rollout_batch, kv_budget_mb;
    /* where rewards come from */
    char *reward_adapter, *reward_model;
    char **reward_funcs;
    int n_reward_funcs;
    char **reward_weights; /* numbers (checked) */
    int n_reward_weights;
    double reward_timeout;
    int64_t reward_retries;
    double missing_eos_penalty;
    char *missing_eos; /* penalty | replace */
    /* PPO, GRPO, RLOO */
    int64_t num_ppo_epochs, num_mini_batches, num_iterations;
    double kl_coef;
    char *kl_estimator;
    bool adap_kl_ctrl;
    double kl_target, kl_horizon, cliprange, cliprange_value, dual_clip, vf_coef, gamma, lam, entropy_coef;
    bool whiten_rewards;
    char *value_model; /* adapter | trunk | PATH */
    char *value_adapter;
    double epsilon, epsilon_high, delta;
    char *importance_sampling_level, *scale_rewards;
    bool log_trajectories;
    char *output_format; /* preference | sft */
    char *base_weights;  /* native | int8 | int4 | w8a8 | w4a8 */
    /* evaluation, logging, checkpoints */
    int64_t eval_steps, logging_steps, save_steps, save_total_limit;
    bool eval_at_start, report;
    char *resume,
        *stop_after; /* auto | never | PATH ; "55m", "3h30m", "90s", "" (checked: plumb_duration_parse succeeds) */
    /* generation */
    char *prompt;
    int64_t max_new_tokens;
    bool do_sample;
    /* plumb generate: the temperature and the filters are off unless do_sample is true */
    double temperature, top_p, min_p, typical_p, repetition_penalty;
    int64_t top_k, min_new_tokens; /* min_new_tokens is at most max_new_tokens */
    char **stop_strings;
    int n_stop_strings;
    bool dry_run;
} plumb_options;

typedef enum plumb_option_type {
    PLUMB_OPT_STRING,
    PLUMB_OPT_INT,
    PLUMB_OPT_FLOAT,
    PLUMB_OPT_BOOL,
    PLUMB_OPT_LIST,
    PLUMB_OPT_CHOICE
} plumb_option_type;
enum {
    PLUMB_FOR_SFT = 1,
    PLUMB_FOR_DPO = 2,
    PLUMB_FOR_EVAL = 4,
    PLUMB_FOR_GENERATE = 8,
    PLUMB_FOR_REWARD = 16,
    PLUMB_FOR_SCORE = 32,
    PLUMB_FOR_PPO = 64,
    PLUMB_FOR_GRPO = 128,
    PLUMB_FOR_RLOO = 256,
    PLUMB_FOR_BESTOFN = 512,
    PLUMB_FOR_ONLINE = PLUMB_FOR_PPO | PLUMB_FOR_GRPO | PLUMB_FOR_RLOO,
    PLUMB_FOR_FILE = PLUMB_FOR_SCORE | PLUMB_FOR_BESTOFN, /* their result is output_file, not a folder */
    PLUMB_FOR_TRAINING = PLUMB_FOR_SFT | PLUMB_FOR_DPO | PLUMB_FOR_REWARD | PLUMB_FOR_ONLINE
}; /* which commands know a key */
typedef struct plumb_option {
    const char *key, *group;
    plumb_option_type type;
    size_t offset;             /* of the field; a list's count follows in the next int field */
    const char *fallback;      /* default, as one writes it in YAML */
    const char *fallback_full; /* default where lora is false; NULL = the same */
    double low, high;          /* numbers: inclusive range; strings: bytes; lists: items */
    const char *choices;       /* "a|b|c" for CHOICE */
    int commands;              /* a key may have several rows, for different commands */
    int required;              /* commands that refuse to start without it */
    const char *help;
} plumb_option;
extern const plumb_option plumb_option_table[];
extern const int plumb_option_count;

/* Defaults, then the file (path may be NULL), then overrides, then the rules between keys. `command` is one PLUMB_FOR_
 * bit: keys of other commands are refused by name. Relative paths inside a file stay relative to the working directory,
 * as in TRL and axolotl. PLUMB_E_CONFIG, or PLUMB_E_IO for the file; *o is then empty. Whether required keys are there
 * is not checked here: plumb_options_parse_args does. */
plumb_status plumb_options_load(plumb_options *o, int command, const char *path, char **overrides,
                                int n_overrides) PLUMB_CHECKED;
/* The same for YAML in memory; `name` serves messages. */
plumb_status plumb_options_load_text(plumb_options *o, int command, const char *text, size_t size, const char *name,
                                     char **overrides, int n_overrides) PLUMB_CHECKED;
/* The command line of a subcommand, argv[0] being its name: [CONFIG.yaml] [key=value …] [--resume PATH|auto|never]
 * [--dry-run] [--help].
 * --resume X is resume=X, --dry-run is dry_run=true; the first argument that is no flag and no key=value is the file.
 * Required keys are checked. With --help the page goes to stdout, *help_shown is true and *o is empty. */
plumb_status plumb_options_parse_args(plumb_options *o, int command, int argc, char **argv,
                                      bool *help_shown) PLUMB_CHECKED;
void plumb_options_free(plumb_options *o); /* leaves *o empty */
/* Appends every key that `command` knows with its resolved value, as YAML with the help as comments (config.yaml).
 * Loading it gives the same options. */
plumb_status plumb_options_write(const plumb_options *o, int command, plumb_str *out) PLUMB_CHECKED;
/* Appends the settings that decide a result, a line each: what output_dir, save_steps, threads and the like say is left
 * out, and unless `all` what a run compares in other ways: its length, and by content what it reads. */
plumb_status plumb_options_identity(const plumb_options *o, int command, bool all, plumb_str *out) PLUMB_CHECKED;
void plumb_options_help(int command, FILE *out); /* `plumb sft --help`: groups, keys, defaults, ranges, one line each */
plumb_status plumb_options_reference(plumb_str *out) PLUMB_CHECKED; /* docs/options.md */
/* "sft" for PLUMB_FOR_SFT and so on. */
const char *plumb_options_command_name(int command);
/* "55m" -> seconds; "" and NULL -> 0. Units d, h, m, s, each at most once and in this order; whole numbers. */
plumb_status plumb_duration_parse(const char *text, double *seconds) PLUMB_CHECKED;
#endif
