/* Prompt templates, written out in C: one function each, no template language.
 *
 * ChatML is a header, the content and an end marker per turn.  SmolLM2-Instruct's template is ChatML with a system turn
 * of its own in front when the talk does not begin with one.  The trimmed form has no line end after the end marker:
 * that is what transformers makes of a Jinja template that ends a turn with a block ("{% endif %}") and a line end,
 * which it trims.  Alpaca's is a page of fixed text around one instruction (Taori et al. 2023). */
#include "plumb/text.h"
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"chatml", "chatml-smollm2", "chatml-trimmed", "alpaca", "none"};
enum { CHATML, CHATML_SMOLLM2, CHATML_TRIMMED, ALPACA, NONE, NAMES };

#define TURN_END "<|im_end|>"

typedef struct spans {
    int64_t *list;
    size_t count, capacity;
} spans;

static plumb_status find_name(const char *name, int *out) {
    for (*out = 0; *out < NAMES; ++*out)
        if (name && !strcmp(name, names[*out])) return PLUMB_OK;
    int near = name ? plumb_nearest(name, names, NAMES) : -1;
    return plumb_error(
        PLUMB_E_CONFIG,
        "unknown prompt template \"%s\"%s%s%s; there are chatml, chatml-smollm2, chatml-trimmed, alpaca and none",
        name ? name : "", near >= 0 ? ", did you mean \"" : "", near >= 0 ? names[near] : "", near >= 0 ? "\"?" : "");
}

plumb_status plumb_prompt_check(const char *name) {
    int which;
    return find_name(name, &which);
}

static plumb_status put(plumb_str *out, const char *text) {
    return plumb_str_append(out, text, strlen(text));
}

static plumb_status add_span(spans *s, size_t begin, size_t end) {
    if (!s) return PLUMB_OK;
    PLUMB_TRY(plumb_grow(&s->list, &s->capacity, s->count + 2, sizeof *s->list));
    s->list[s->count++] = (int64_t)begin;
    s->list[s->count++] = (int64_t)end;
    return PLUMB_OK;
}

static bool is(const plumb_message *m, const char *role) {
    return !strcmp(m->role, role);
}

static plumb_status check_messages(const plumb_message *messages, int count) {
    if (count <= 0 || !messages)
        return plumb_error(PLUMB_E_DATA, "a list of messages is empty; at least one message is expected");
    for (int i = 0; i < count; i++) {
        if (!messages[i].role || !messages[i].content)
            return plumb_error(PLUMB_E_DATA, "message %d: a role and a content expected", i + 1);
        if (!is(&messages[i], "system") && !is(&messages[i], "user") && !is(&messages[i], "assistant"))
            return plumb_error(PLUMB_E_DATA,
                               "message %d: unknown role \"%.100s\" (system, user and assistant are known)", i + 1,
                               messages[i].role);
    }
    return PLUMB_OK;
}

static plumb_status render_chatml(const plumb_message *messages, int count, bool generation, int which, plumb_str *out,
                                  spans *s) {
    if (which == CHATML_SMOLLM2 && !is(&messages[0], "system"))
        PLUMB_TRY(put(
            out,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face" TURN_END "\n"));
    for (int i = 0; i < count; i++) {
        PLUMB_TRY(plumb_str_printf(out, "<|im_start|>%s\n", messages[i].role));
        size_t begin = out->length;
        PLUMB_TRY(put(out, messages[i].content));
        PLUMB_TRY(put(out, TURN_END));
        if (is(&messages[i], "assistant")) PLUMB_TRY(add_span(s, begin, out->length));
        if (which != CHATML_TRIMMED) PLUMB_TRY(put(out, "\n"));
    }
    return generation ? put(out, "<|im_start|>assistant\n") : PLUMB_OK;
}

const char *plumb_prompt_turn_end(const char *name, const char **after) {
    int which;
    *after = "";
    if (find_name(name, &which) != PLUMB_OK || which == ALPACA || which == NONE) return NULL;
    if (which != CHATML_TRIMMED) *after = "\n";
    return TURN_END;
}

plumb_status plumb_prompt_alpaca(const char *instruction, const char *input, plumb_str *out) {
    PLUMB_TRY(put(out, "Below is an instruction that describes a task. Write a response that appropriately completes "
                       "the request.\n\n### Instruction:\n"));
    PLUMB_TRY(put(out, instruction));
    if (input && *input) {
        PLUMB_TRY(put(out, "\n\n### Input:\n"));
        PLUMB_TRY(put(out, input));
    }
    return put(out, "\n\n### Response:\n");
}

/* One instruction and one answer: a user turn, then at most one assistant turn. */
static plumb_status render_alpaca(const plumb_message *messages, int count, bool generation, plumb_str *out, spans *s) {
    bool answered = count == 2 && is(&messages[1], "assistant");
    if (!is(&messages[0], "user") || (count > 1 && !answered))
        return plumb_error(PLUMB_E_DATA, "the alpaca template takes one user message and at most one assistant message "
                                         "after it; use chatml for talks");
    if (answered && generation) return plumb_error(PLUMB_E_DATA, "the alpaca template has no second answer to open");
    PLUMB_TRY(plumb_prompt_alpaca(messages[0].content, NULL, out));
    size_t begin = out->length;
    if (!answered) return PLUMB_OK;
    PLUMB_TRY(put(out, messages[1].content));
    return add_span(s, begin, out->length);
}

static plumb_status render_none(const plumb_message *messages, int count, plumb_str *out, spans *s) {
    for (int i = 0; i < count; i++) {
        size_t begin = out->length;
        PLUMB_TRY(put(out, messages[i].content));
        if (is(&messages[i], "assistant")) PLUMB_TRY(add_span(s, begin, out->length));
    }
    return PLUMB_OK;
}

plumb_status plumb_prompt_render(const char *name, const plumb_message *messages, int count, bool generation,
                                 plumb_str *out, int64_t **mask_spans, int *n_spans) {
    int which;
    spans s = {0}, *wanted = mask_spans ? &s : NULL;
    if (mask_spans) *mask_spans = NULL;
    if (n_spans) *n_spans = 0;
    PLUMB_TRY(find_name(name, &which));
    PLUMB_TRY(check_messages(messages, count));
    plumb_status status;
    if (which == ALPACA)
        status = render_alpaca(messages, count, generation, out, wanted);
    else if (which == NONE)
        status = render_none(messages, count, out, wanted);
    else
        status = render_chatml(messages, count, generation, which, out, wanted);
    if (status != PLUMB_OK || !mask_spans) {
        free(s.list);
        return status;
    }
    *mask_spans = s.list;
    if (n_spans) *n_spans = (int)(s.count / 2);
    return PLUMB_OK;
}
