/* One record as texts: what the tokenizer is given. */
#ifndef PLUMB_DATA_EXAMPLE_H
#define PLUMB_DATA_EXAMPLE_H
#include "plumb/data.h"

typedef struct field_names {
    const char *prompt, *completion, *messages, *text, *instruction, *input, *output, *chosen, *rejected, *margin,
        *answer, *label;
} field_names;

typedef struct example_rules { /* what the options and the tokenizer say; borrowed strings */
    field_names field;
    plumb_data_kind kind;
    plumb_loss_on loss_on;
    const char *chat_template, *alpaca_template; /* names for plumb_prompt_render */
    const char *eos; /* text of the end-of-sequence token; NULL when the tokenizer has none */
} example_rules;

typedef struct example_extras { /* fields beside the texts; extras.c */
    double margin, label;
    bool has_answer;
    plumb_str answer;
} example_extras;

typedef struct example { /* zero-initialise; buffers are reused from record to record; free with example_free */
    bool has_prompt;     /* else all of whole[0] is the completion */
    bool special;        /* let the tokenizer add BOS and the like: texts yes, rendered chats no */
    bool common_prompt;  /* the prompt is what chosen and rejected begin with */
    bool assistant_only; /* spans hold the parts of whole[0] that may be targets */
    int wholes;          /* prompt and completion together: 1, 2 for a pair, 0 where only the prompt is wanted */
    plumb_str prompt, whole[2];
    plumb_str messages; /* prompts: of a chat whose template marks the end of a turn, as a JSON list; else empty */
    const char *completion[2]; /* borrowed from the record: what follows the prompt, of a chat the last message */
    example_extras extras;
    int64_t *spans; /* [begin,end) bytes */
    int n_spans;
} example;

/* Errors start with the field's name; the caller puts the record's place before them. */
plumb_status example_make(example *e, const example_rules *rules, const json_t *record) PLUMB_CHECKED;
void example_free(example *e);
/* extras.c: margin (pairs), label (rated), answer (prompts, rated); `pair`: the record gave two completions. */
plumb_status extras_read(example_extras *x, const example_rules *rules, const json_t *record, bool pair) PLUMB_CHECKED;
#endif
