/* Options: one table says key, type, default, range, choices and a line of help; --help, the reference page docs/options.md, validation and the
 * resolved config.yaml all come from it.  Local: every rank reads the same file and reaches the same result.
 *
 * A row binds a key to a field of plumb_options. YAML is bound strictly (libyaml's document API, YAML 1.2 scalars): an unknown key (with the nearest
 * name), a wrong type, a value out of range, a duplicate key is "FILE:LINE:COLUMN: key: …; expected …". Overrides "key=value" come after the file and
 * are reported as "argument 3: key: …". Nested keys are written a.b in overrides and nested or dotted in YAML. */
#ifndef PLUMB_CONFIG_H
#define PLUMB_CONFIG_H
#include <stdio.h>
#include "plumb/base.h"

typedef struct plumb_options { /* strings and lists owned by the struct; freed by plumb_options_free */
    /* what */
    char *model, *adapter, *tokenizer, *output_dir, *run_name;
    /* data */
    char *train_file, *eval_file, *template_name, *loss_on, *on_error;
    int64_t eval_last;             /* the last N records of train_file are the held-out split */
    char *field_prompt, *field_completion, *field_messages, *field_text, *field_instruction, *field_input, *field_output, *field_chosen, *field_rejected;
    int64_t max_length; bool shuffle; int64_t seed;
    /* training */
    double epochs; int64_t max_steps, batch_size, micro_batch_tokens;
    double learning_rate; char *lr_scheduler_type; int64_t warmup_steps; double warmup_ratio;
    double weight_decay, adam_beta1, adam_beta2, adam_eps, max_grad_norm;
    char *precision;               /* auto | fp32 | bf16 */
    bool gradient_checkpointing; int64_t logits_budget_mb; char *determinism; /* fixed | elastic */
    char *backend; char *isa; int64_t threads; /* cpu | ref ; auto|avx512bf16|avx512|avx2|plain ; 0 = cores / ranks of the node */
    /* LoRA */
    bool lora; int64_t lora_r; double lora_alpha, lora_dropout; char **lora_target_modules; int n_lora_target_modules; bool use_rslora;
    char **train_modules; int n_train_modules;   /* patterns of parameters trained in full beside (or without) LoRA */
    /* DPO */
    char *loss_type; double beta, label_smoothing;
    /* evaluation, logging, checkpoints */
    int64_t eval_steps, logging_steps, save_steps, save_total_limit; bool eval_at_start;
    char *resume, *stop_after;     /* auto | never | PATH ; "55m", "3h30m", "90s", "" */
    /* generation */
    char *prompt; int64_t max_new_tokens; bool do_sample; double temperature, top_p; int64_t top_k;
    bool dry_run;
} plumb_options;

typedef enum plumb_option_type { PLUMB_OPT_STRING, PLUMB_OPT_INT, PLUMB_OPT_FLOAT, PLUMB_OPT_BOOL, PLUMB_OPT_LIST, PLUMB_OPT_CHOICE } plumb_option_type;
enum { PLUMB_FOR_SFT = 1, PLUMB_FOR_DPO = 2, PLUMB_FOR_EVAL = 4, PLUMB_FOR_GENERATE = 8, PLUMB_FOR_MERGE = 16 }; /* which commands know a key */
typedef struct plumb_option {
    const char *key, *group;
    plumb_option_type type;
    size_t offset;               /* of the field; a list's count follows in the next int field */
    const char *fallback;        /* default, as one writes it in YAML */
    double low, high;            /* numbers: inclusive range */
    const char *choices;         /* "a|b|c" for CHOICE */
    int commands;
    const char *help;
} plumb_option;
extern const plumb_option plumb_option_table[];
extern const int plumb_option_count;

/* Defaults, then the file (path may be NULL), then overrides. `command` is one PLUMB_FOR_ bit: keys of other commands are refused by name.
 * Relative paths inside a file stay relative to the working directory, as in TRL and axolotl. */
plumb_status plumb_options_load(plumb_options *o, int command, const char *path, char **overrides, int n_overrides) PLUMB_CHECKED;
void plumb_options_free(plumb_options *o);
/* Writes every key that `command` knows with its resolved value, as YAML with the help as comments (config.yaml). */
plumb_status plumb_options_write(const plumb_options *o, int command, plumb_str *out) PLUMB_CHECKED;
void plumb_options_help(int command, FILE *out);       /* `plumb sft --help`: groups, keys, defaults, ranges, one line each */
plumb_status plumb_options_reference(plumb_str *out) PLUMB_CHECKED; /* docs/options.md */
/* "55m" -> seconds; "" -> 0. */
plumb_status plumb_duration_parse(const char *text, double *seconds) PLUMB_CHECKED;
#endif
