/* Records to token sequences.  Local: every rank reads the whole file (text is small beside a model) and reaches the same
 * result, so that the order of samples depends on data and seed alone.
 *
 * A sample is a prompt and the branches that continue it:
 *   SFT:    prompt length 0, one branch with all ids; mask[i] = 1 where token i is a target (its log-probability is in the loss)
 *   pair:   prompt ids, branch 0 = chosen, branch 1 = rejected; every branch token is a target
 *   prompt: prompt ids, no branch: what a policy is to continue, with the record's answer for rewards that compare
 *   rated:  prompt ids, branch 0 = the completion, with the record's label; a record that is a pair gives a pair, without label
 * A sequence's very first token has no predecessor and is never a target: mask[0] is 0 in SFT samples, and in the branches of a pair or
 * rated sample whose prompt has no token (an empty prompt, or one that merged with both answers). Such a pair is two separate sequences.
 * Conventions are TRL 1.16's (docs/numerics.md): an EOS id is appended where the completion does not end in one (SFT completions and
 * preference answers, not rendered chats); truncation keeps the start, after EOS was appended; a sample whose prompt alone fills
 * max_length is dropped (pairs, rated), as is an SFT sample left without targets (TRL keeps one that never had any, a single token); the
 * completion starts where the ids of prompt and of prompt+completion part (pairs: at the shorter of the two common prefixes). Reward
 * models drop a pair with an overlong side (drop_long), and a prompt longer than max_length is dropped, never
 * cut. Everything cut or dropped is counted. */
#ifndef PLUMB_DATA_H
#define PLUMB_DATA_H
#include "plumb/text.h"

typedef struct plumb_branch {
    int32_t *ids;
    uint8_t *mask;
    int32_t count;
    const char *text;     /* with keep_texts, else NULL */
    const int32_t *after; /* [n_after] what a reward model reads behind the ids, and nobody else; a data set has none */
    int32_t n_after;
} plumb_branch;
typedef struct plumb_sample {
    int64_t record;            /* index of the record in its file, from 0 */
    int32_t *prompt; int32_t prompt_count;
    plumb_branch *branch; int n_branches; /* owned by the data set's storage, as are the texts */
    double margin;             /* pairs: by how much chosen should lead (field_margin); 0 when the record has none */
    double label;              /* rated: field_label, true and false are 1 and 0; NaN when the record has none and for pairs */
    const char *messages;      /* prompts: of a chat whose template marks the end of a turn, a JSON list of role and content; else NULL */
    const char *prompt_text;   /* prompts, and rated with keep_texts: as it was tokenised, rendered; else NULL */
    const char *answer;        /* prompts and rated: field_answer, numbers as text; NULL when the record has none */
} plumb_sample;

typedef enum plumb_data_kind { PLUMB_DATA_SFT, PLUMB_DATA_PAIRS, PLUMB_DATA_PROMPTS, PLUMB_DATA_RATED } plumb_data_kind;
typedef enum plumb_loss_on { PLUMB_LOSS_AUTO, PLUMB_LOSS_COMPLETION, PLUMB_LOSS_ALL, PLUMB_LOSS_ASSISTANT } plumb_loss_on;

typedef struct plumb_data_options {
    plumb_data_kind kind;
    const char *path;             /* .jsonl, .json (an array), either .gz */
    const char *template_name;    /* for messages and Alpaca records: see plumb_prompt_check; NULL = "chatml" resp. "alpaca" */
    const char *field_prompt, *field_completion, *field_messages, *field_text, *field_instruction, *field_input, *field_output,
        *field_chosen, *field_rejected, *field_margin, *field_answer,
        *field_label;                         /* names of fields; NULL = the same word ("prompt", "completion", …) */
    int64_t skip_first, take_last, skip_last; /* records: first N left out; only the last N (0 = all); last N left out: splits */
    int32_t max_length;           /* tokens of prompt and branch together (kind prompts: of the prompt); 0 = no limit */
    bool drop_long;               /* pairs, rated: a sample with a sequence longer than max_length is dropped, not cut */
    /* rated: keep prompt_text and the branches' texts (completions as the record has them, without EOS; of a chat its last message) */
    bool keep_texts;
    plumb_loss_on loss_on;        /* AUTO: completion for prompt/completion and Alpaca records, all for text and messages. SFT only.
                                   * ASSISTANT needs messages; on conversational prompt/completion it means the assistant's turns of the
                                   * completion, as in TRL */
    bool skip_bad;                /* on_error: skip counts bad records, stop reports the first */
} plumb_data_options;

typedef struct plumb_data_counts {
    int64_t records;       /* in the chosen part of the file; = samples + bad + dropped_long + dropped_empty */
    int64_t bad;           /* skipped because of skip_bad */
    int64_t truncated;     /* samples kept, but cut */
    int64_t dropped_long;  /* the prompt fills max_length, or truncation left no target, or drop_long; prompts: longer than max_length */
    int64_t dropped_empty; /* no target to begin with; prompts: no token */
    int64_t common_prompt; /* pairs without a field for their prompt, whose texts begin alike: that is taken for it */
    int64_t merged_border; /* records whose prompt's ids are no prefix of the whole: a token merged across prompt|completion */
    int64_t tokens, targets; /* of the samples kept; a shared prompt counts once */
} plumb_data_counts;

typedef struct plumb_dataset {
    plumb_sample *samples;
    int64_t count;
    plumb_data_counts counts;
    char first_bad[512];          /* message of the first bad record that was skipped */
    void *storage;                /* owns every array of branches, ids, masks and texts */
} plumb_dataset;

/* Record shapes, recognised by their fields in this order: messages; prompt+chosen+rejected; prompt+completion;
 * instruction(+input)+chosen+rejected; instruction(+input)+output; text. prompt/chosen/rejected/completion may be strings or lists of
 * messages (conversational form: rendered through the template). Pairs need chosen and rejected; without prompt and instruction their
 * common beginning is the prompt (TRL's extract_prompt). SFT on a preference record takes `chosen` when field_completion or field_output
 * says so. Prompts take what the other shapes have as their prompt: prompt; instruction(+input); the common beginning of chosen and
 * rejected; messages, less the assistant's turns at their end. A list of messages is rendered with the opening of an assistant turn and
 * must end in a user's. Rated records are prompt+completion, instruction(+input)+output, messages whose last turn is the assistant's
 * (the completion), or pairs, which come first unless field_completion or field_output names chosen or rejected. A field that is null
 * counts as absent. Alpaca records become text under the templates "alpaca" and "none" (none: instruction, input on the next line,
 * newline), and a user turn answered by an assistant turn under a chat template. Messages under "alpaca" and "none", which mark no end
 * of a turn, are text as well: EOS is appended. A bad record names FILE:LINE (or FILE: record N, from 1), the field, what was found and
 * what would be right. Files are .jsonl (blank lines skipped) or a JSON array, UTF-8 with or without byte order mark. PLUMB_E_DATA also
 * for an empty file, an empty selection and when no sample is left, with the counts. On error *d is empty. */
plumb_status plumb_dataset_load(plumb_dataset *d, const plumb_tokenizer *t, const plumb_data_options *o) PLUMB_CHECKED;
/* The same for text that is already in memory (inflated); o->path serves messages and tells lines from an array. */
plumb_status plumb_dataset_parse(plumb_dataset *d, const plumb_tokenizer *t, const plumb_data_options *o, const char *text,
                                 size_t size) PLUMB_CHECKED;
/* What a file's first record is: pairs when it has chosen and rejected, else supervised text. Local. */
plumb_status plumb_dataset_kind(const char *path, plumb_data_kind *kind) PLUMB_CHECKED;
void plumb_dataset_free(plumb_dataset *d);
/* Order of samples in an epoch: a permutation by (seed, epoch), or the file's order. out: [count]. */
plumb_status plumb_dataset_order(const plumb_dataset *d, bool shuffle, uint64_t seed, uint32_t epoch, int64_t *out) PLUMB_CHECKED;
#endif
