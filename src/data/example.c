/* A record becomes one to three texts: the prompt, and the prompt followed by each answer that is wanted.
 *
 * The tokenizer is given whole texts because a token may span the border between prompt and answer; where the answer
 * begins is found afterwards, in the ids (encode.c).  What is done here is TRL's preparation, in its order: recognise
 * the record's shape, append the end-of-sequence token's text to an answer that does not end with it (never to a
 * rendered chat), render chats through the template. */
#include "example.h"
#include "messages.h"
#include "records.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void example_free(example *e) {
    plumb_str_free(&e->prompt);
    plumb_str_free(&e->whole[0]);
    plumb_str_free(&e->whole[1]);
    plumb_str_free(&e->messages);
    plumb_str_free(&e->extras.answer);
    free(e->spans);
    *e = (example){0};
}

static void example_reset(example *e) {
    plumb_str *all[] = {&e->prompt, &e->whole[0], &e->whole[1], &e->messages};
    for (int i = 0; i < 4; i++) {
        all[i]->length = 0;
        if (all[i]->data) all[i]->data[0] = 0;
    }
    free(e->spans);
    e->spans = NULL;
    e->n_spans = e->wholes = 0;
    e->completion[0] = e->completion[1] = NULL;
    e->has_prompt = e->special = e->common_prompt = e->assistant_only = false;
}

static plumb_status need_string(const json_t *value, const char *field, const char **out) {
    *out = json_string_value(value); /* NULL when it is none */
    if (*out) return PLUMB_OK;
    return plumb_error(PLUMB_E_DATA, "%s: found %s, expected a string", field, json_kind_name(value));
}

static plumb_status append(plumb_str *s, const char *text) {
    return plumb_str_append(s, text, strlen(text));
}

static plumb_status append_eos(plumb_str *s, const char *answer, const char *eos) {
    if (!eos)
        return plumb_error(
            PLUMB_E_CONFIG,
            "the tokenizer has no end-of-sequence token, which must follow every answer; name one as eos_token "
            "in tokenizer_config.json");
    size_t n = strlen(answer), m = strlen(eos);
    return n >= m && !memcmp(answer + n - m, eos, m) ? PLUMB_OK : plumb_str_append(s, eos, m);
}

/* --- plain texts ------------------------------------------------------------------------------ */

static plumb_status refuse_assistant(const example_rules *rules, const char *shape) {
    if (rules->loss_on != PLUMB_LOSS_ASSISTANT) return PLUMB_OK;
    return plumb_error(PLUMB_E_DATA,
                       "%s: plain text has no assistant turns, expected messages (or loss_on: completion or all)",
                       shape);
}

static plumb_status refuse_completion(const example_rules *rules, const char *shape) {
    if (rules->loss_on != PLUMB_LOSS_COMPLETION) return PLUMB_OK;
    return plumb_error(PLUMB_E_DATA, "%s: has no prompt, expected prompt and completion (or loss_on: all%s)", shape,
                       shape == rules->field.messages ? " or assistant" : "");
}

/* e->prompt is filled; each answer follows it. */
static plumb_status texts_after_prompt(example *e, const example_rules *rules, const char *const *answers, int count) {
    e->has_prompt = e->special = true;
    e->wholes = count;
    for (int i = 0; i < count; i++) {
        e->completion[i] = answers[i];
        PLUMB_TRY(plumb_str_append(&e->whole[i], e->prompt.data, e->prompt.length));
        PLUMB_TRY(append(&e->whole[i], answers[i]));
        PLUMB_TRY(append_eos(&e->whole[i], answers[i], rules->eos));
    }
    return PLUMB_OK;
}

static plumb_status text_example(example *e, const example_rules *rules, const json_t *value) {
    const char *text;
    PLUMB_TRY(need_string(value, rules->field.text, &text));
    PLUMB_TRY(refuse_assistant(rules, rules->field.text));
    PLUMB_TRY(refuse_completion(rules, rules->field.text));
    e->special = true;
    e->wholes = 1;
    PLUMB_TRY(append(&e->whole[0], text));
    return append_eos(&e->whole[0], text, rules->eos);
}

/* --- chats ------------------------------------------------------------------------------------ */

/* Templates without a mark at the end of a turn make plain text: it begins and ends as texts do. */
static bool is_plain(const char *template_name) {
    return !strcmp(template_name, "alpaca") || !strcmp(template_name, "none");
}

static plumb_status end_plain_text(example *e, const example_rules *rules, const messages *m, int whole) {
    int64_t end = (int64_t)e->whole[whole].length, *last = e->n_spans ? &e->spans[2 * e->n_spans - 1] : NULL;
    PLUMB_TRY(append_eos(&e->whole[whole], m->items[m->count - 1].content, rules->eos));
    if (last && *last == end) *last = (int64_t)e->whole[whole].length;
    return PLUMB_OK;
}

static plumb_status render(example *e, const example_rules *rules, const messages *m, int whole, const char *field) {
    bool spans = rules->loss_on == PLUMB_LOSS_ASSISTANT && rules->kind == PLUMB_DATA_SFT,
         plain = is_plain(rules->chat_template);
    e->assistant_only = spans;
    e->special = plain;
    PLUMB_TRY(plumb_prompt_render(rules->chat_template, m->items, m->count, false, &e->whole[whole],
                                  spans ? &e->spans : NULL, spans ? &e->n_spans : NULL));
    if (spans && e->n_spans == 0)
        return plumb_error(PLUMB_E_DATA, "%s: found no assistant turn, expected at least one (or loss_on: all)", field);
    return plain ? end_plain_text(e, rules, m, whole) : PLUMB_OK;
}

static plumb_status chat_example(example *e, const example_rules *rules, const json_t *value) {
    const char *field = rules->field.messages;
    messages m = {0};
    plumb_status status = refuse_completion(rules, field);
    if (status == PLUMB_OK && !json_is_array(value))
        status = plumb_error(PLUMB_E_DATA, "%s: found %s, expected a list of messages", field, json_kind_name(value));
    if (status == PLUMB_OK) status = messages_add(&m, value, field);
    e->wholes = 1;
    if (status == PLUMB_OK) status = render(e, rules, &m, 0, field);
    messages_free(&m);
    return status;
}

/* Whoever writes a data set of what a policy answers wants the prompt as messages again. */
static plumb_status note_messages(example *e, const example_rules *rules, const messages *m) {
    if (rules->kind != PLUMB_DATA_PROMPTS) return PLUMB_OK;
    json_t *list = json_array();
    bool whole = list;
    for (int i = 0; i < m->count && whole; i++)
        whole = !json_array_append_new(list, json_pack("{s:s, s:s}", "role", m->items[i].role, "content", m->items[i].content));
    char *text = whole ? json_dumps(list, 0) : NULL;
    plumb_status status = text ? append(&e->messages, text) : plumb_error(PLUMB_E_MEMORY, "out of memory for messages");
    free(text);
    json_decref(list);
    return status;
}

/* `m` holds the prompt's messages; each list of answers follows them. Without any, fields[0] is where the prompt
 * stands. */
static plumb_status chats_after_prompt(example *e, const example_rules *rules, messages *m,
                                       const json_t *const *answers, const char *const *fields, int count) {
    int prompt_count = m->count;
    if (count == 0 && strcmp(m->items[prompt_count - 1].role, "user"))
        return plumb_error(PLUMB_E_DATA, "%s: the last message is the %.100s's, expected the user's", fields[0],
                           m->items[prompt_count - 1].role);
    e->special = is_plain(rules->chat_template);
    if (!e->special) PLUMB_TRY(note_messages(e, rules, m));
    PLUMB_TRY(plumb_prompt_render(rules->chat_template, m->items, prompt_count, true, &e->prompt, NULL, NULL));
    e->has_prompt = true;
    e->wholes = count;
    for (int i = 0; i < count; i++) {
        m->count = prompt_count;
        PLUMB_TRY(messages_add(m, answers[i], fields[i]));
        e->completion[i] = m->items[m->count - 1].content;
        PLUMB_TRY(render(e, rules, m, i, fields[i]));
    }
    return PLUMB_OK;
}

/* How many of a record's answers become texts. */
static int wanted(const example_rules *rules, int count) {
    return rules->kind == PLUMB_DATA_PROMPTS ? 0 : count;
}

/* --- prompt and answers ----------------------------------------------------------------------- */

static plumb_status prompted_example(example *e, const example_rules *rules, const json_t *prompt,
                                     const json_t *const *answers, const char *const *fields, int count) {
    const char *texts[2], *text;
    if (json_is_array(prompt)) {
        for (int i = 0; i < count; i++)
            if (!json_is_array(answers[i]))
                return plumb_error(PLUMB_E_DATA, "%s: found %s, expected a list of messages, as %s is", fields[i],
                                   json_kind_name(answers[i]), rules->field.prompt);
        messages m = {0};
        plumb_status status = messages_add(&m, prompt, rules->field.prompt);
        if (status == PLUMB_OK)
            status = chats_after_prompt(e, rules, &m, answers, count ? fields : &rules->field.prompt, count);
        messages_free(&m);
        return status;
    }
    if (!json_is_string(prompt))
        return plumb_error(PLUMB_E_DATA, "%s: found %s, expected a string or a list of messages", rules->field.prompt,
                           json_kind_name(prompt));
    PLUMB_TRY(refuse_assistant(rules, rules->field.prompt));
    PLUMB_TRY(need_string(prompt, rules->field.prompt, &text));
    for (int i = 0; i < count; i++) PLUMB_TRY(need_string(answers[i], fields[i], &texts[i]));
    PLUMB_TRY(append(&e->prompt, text));
    return texts_after_prompt(e, rules, texts, count);
}

/* Chosen and rejected of two texts: the prompt is their common beginning, in characters, less a space at its end; where
 * one text begins the other, its last character belongs to the answers (TRL's extract_prompt). */
static plumb_status common_text_example(example *e, const example_rules *rules, const json_t *chosen,
                                        const json_t *rejected) {
    const char *a, *b, *answers[2];
    PLUMB_TRY(need_string(chosen, rules->field.chosen, &a));
    PLUMB_TRY(need_string(rejected, rules->field.rejected, &b));
    size_t n = 0;
    while (a[n] && a[n] == b[n]) n++;
    bool parted = a[n] && b[n];
    if (!parted && n) n--;
    while (n && ((unsigned char)a[n] & 0xC0) == 0x80) n--; /* the beginning of a character */
    if (parted && n && a[n - 1] == ' ') n--;
    PLUMB_TRY(plumb_str_append(&e->prompt, a, n));
    e->common_prompt = true;
    answers[0] = a + n;
    answers[1] = b + n;
    return texts_after_prompt(e, rules, answers, wanted(rules, 2));
}

static plumb_status split_list(const json_t *list, size_t at, json_t **tail) {
    *tail = json_array();
    for (size_t i = at; *tail && i < json_array_size(list); i++)
        if (json_array_append(*tail, json_array_get(list, i))) break;
    if (*tail && json_array_size(*tail) + at == json_array_size(list)) return PLUMB_OK;
    return plumb_error(PLUMB_E_MEMORY, "out of memory for messages");
}

static plumb_status common_chat_example(example *e, const example_rules *rules, const json_t *chosen,
                                        const json_t *rejected) {
    const char *fields[] = {rules->field.chosen, rules->field.rejected};
    size_t n = 0, shorter = json_array_size(chosen);
    if (json_array_size(rejected) < shorter) shorter = json_array_size(rejected);
    while (n < shorter && json_equal(json_array_get(chosen, n), json_array_get(rejected, n))) n++;
    if (n == shorter && n) n--;
    if (n == 0)
        return plumb_error(PLUMB_E_DATA,
                           "%s: begins with another message than %s, expected a common beginning or a field %s",
                           fields[0], fields[1], rules->field.prompt);
    json_t *tails[2] = {0};
    messages m = {0};
    plumb_status status = split_list(chosen, n, &tails[0]);
    if (status == PLUMB_OK) status = split_list(rejected, n, &tails[1]);
    if (status == PLUMB_OK) status = messages_add(&m, chosen, fields[0]);
    m.count = (int)plumb_min64((int64_t)n, m.count);
    if (status == PLUMB_OK)
        status =
            chats_after_prompt(e, rules, &m, (const json_t *const[]){tails[0], tails[1]}, fields, wanted(rules, 2));
    messages_free(&m);
    json_decref(tails[0]);
    json_decref(tails[1]);
    return status;
}

/* --- Alpaca ----------------------------------------------------------------------------------- */

static plumb_status alpaca_example(example *e, const example_rules *rules, const json_t *record,
                                   const json_t *const *answers, const char *const *fields, int count) {
    const char *instruction, *input = "", *texts[2];
    PLUMB_TRY(need_string(json_present(record, rules->field.instruction), rules->field.instruction, &instruction));
    const json_t *input_value = json_present(record, rules->field.input);
    if (input_value) PLUMB_TRY(need_string(input_value, rules->field.input, &input));
    for (int i = 0; i < count; i++) PLUMB_TRY(need_string(answers[i], fields[i], &texts[i]));

    if (!strcmp(rules->alpaca_template, "alpaca")) {
        PLUMB_TRY(refuse_assistant(rules, rules->field.instruction));
        PLUMB_TRY(plumb_prompt_alpaca(instruction, input, &e->prompt));
        return texts_after_prompt(e, rules, texts, count);
    }
    plumb_str turn = {0};
    messages m = {0};
    plumb_status status = plumb_str_printf(&turn, "%s%s%s", instruction, *input ? "\n" : "", input);
    if (status == PLUMB_OK && !strcmp(rules->alpaca_template, "none")) {
        status = refuse_assistant(rules, rules->field.instruction);
        if (status == PLUMB_OK) status = plumb_str_printf(&e->prompt, "%s\n", turn.data);
        if (status == PLUMB_OK) status = texts_after_prompt(e, rules, texts, count);
        goto done;
    }
    if (status == PLUMB_OK) status = messages_push(&m, "user", turn.data);
    if (status == PLUMB_OK)
        status = plumb_prompt_render(rules->alpaca_template, m.items, m.count, true, &e->prompt, NULL, NULL);
    if (status == PLUMB_OK) status = note_messages(e, rules, &m);
    e->has_prompt = true;
    e->wholes = count;
    for (int i = 0; status == PLUMB_OK && i < count; i++) {
        m.count = 1;
        e->completion[i] = texts[i];
        status = messages_push(&m, "assistant", texts[i]);
        if (status == PLUMB_OK) status = render(e, rules, &m, i, fields[i]);
    }
done:
    plumb_str_free(&turn);
    messages_free(&m);
    return status;
}

/* --- shapes ----------------------------------------------------------------------------------- */

static plumb_status unknown_shape(const example_rules *rules, const json_t *record) {
    const field_names *f = &rules->field;
    char found[160] = "", *at = found;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)record, key, value) {
        size_t room = sizeof found - (size_t)(at - found);
        if (room < 56) {
            at += snprintf(at, room, ", …");
            break;
        }
        at += snprintf(at, room, "%s%.32s%s", at == found ? "" : ", ", key, json_is_null(value) ? " (null)" : "");
    }
    for (char *p = found; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    if (rules->kind == PLUMB_DATA_PAIRS)
        return plumb_error(PLUMB_E_DATA, "fields: found %s, expected %s, %s and %s (or %s, %s and %s)",
                           *found ? found : "none", f->prompt, f->chosen, f->rejected, f->instruction, f->chosen,
                           f->rejected);
    if (rules->kind == PLUMB_DATA_PROMPTS)
        return plumb_error(PLUMB_E_DATA, "fields: found %s, expected %s, or %s, or %s, or %s and %s",
                           *found ? found : "none", f->prompt, f->instruction, f->messages, f->chosen, f->rejected);
    if (rules->kind == PLUMB_DATA_RATED)
        return plumb_error(PLUMB_E_DATA, "fields: found %s, expected %s and %s, or %s and %s, or %s, or %s and %s",
                           *found ? found : "none", f->prompt, f->completion, f->instruction, f->output, f->messages,
                           f->chosen, f->rejected);
    bool preference = json_present(record, f->chosen) && json_present(record, f->rejected);
    return plumb_error(
        PLUMB_E_DATA, "fields: found %s, expected %s, or %s and %s, or %s and %s, or %s%s", *found ? found : "none",
        f->messages, f->prompt, f->completion, f->instruction, f->output, f->text,
        preference ? " (a preference record: field_completion: chosen trains on its chosen answers)" : "");
}

static plumb_status pair_example(example *e, const example_rules *rules, const json_t *record) {
    const field_names *f = &rules->field;
    const json_t *prompt = json_present(record, f->prompt);
    const json_t *answers[] = {json_present(record, f->chosen), json_present(record, f->rejected)};
    const char *fields[] = {f->chosen, f->rejected};
    if (!answers[0] || !answers[1]) return unknown_shape(rules, record);
    if (prompt && !(json_is_string(prompt) && json_is_array(answers[0]) && json_is_array(answers[1])))
        return prompted_example(e, rules, prompt, answers, fields, 2);
    if (!prompt && json_present(record, f->instruction)) return alpaca_example(e, rules, record, answers, fields, 2);
    if (json_is_array(answers[0]) && json_is_array(answers[1]))
        return common_chat_example(e, rules, answers[0], answers[1]);
    return common_text_example(e, rules, answers[0], answers[1]);
}

/* A talk as its prompt and the assistant's turns at its end, `most` of them at most; the last is the completion, where
 * one is wanted. */
static plumb_status split_chat_example(example *e, const example_rules *rules, const json_t *list, size_t most) {
    const char *field = rules->field.messages;
    messages m = {0};
    json_t *tail = NULL;
    plumb_status status = json_is_array(list) ? messages_add(&m, list, field)
                                              : plumb_error(PLUMB_E_DATA, "%s: found %s, expected a list of messages",
                                                            field, json_kind_name(list));
    size_t n = (size_t)m.count, turns = 0;
    if (status != PLUMB_OK) goto done;
    while (turns < most && turns < n && !strcmp(m.items[n - 1 - turns].role, "assistant")) turns++;
    if (turns == n)
        status = plumb_error(PLUMB_E_DATA, "%s: found assistant turns only, expected a user's before them", field);
    else if (turns == 0 && rules->kind == PLUMB_DATA_RATED)
        status = plumb_error(PLUMB_E_DATA, "%s: the last message is the %.100s's, expected the assistant's", field,
                             m.items[n - 1].role);
    if (status == PLUMB_OK) status = split_list(list, n - turns, &tail);
    m.count = (int)(n - turns);
    if (status == PLUMB_OK)
        status = chats_after_prompt(e, rules, &m, (const json_t *const[]){tail}, &field, wanted(rules, 1));
done:
    messages_free(&m);
    json_decref(tail);
    return status;
}

static plumb_status prompt_example(example *e, const example_rules *rules, const json_t *record) {
    const field_names *f = &rules->field;
    const json_t *prompt = json_present(record, f->prompt), *talk = json_present(record, f->messages),
                 *chosen = json_present(record, f->chosen), *rejected = json_present(record, f->rejected);
    if (talk) return split_chat_example(e, rules, talk, SIZE_MAX);
    bool talks = json_is_array(chosen) && json_is_array(rejected);
    if (prompt && !(json_is_string(prompt) && talks)) return prompted_example(e, rules, prompt, NULL, NULL, 0);
    if (!prompt && json_present(record, f->instruction)) return alpaca_example(e, rules, record, NULL, NULL, 0);
    if (talks) return common_chat_example(e, rules, chosen, rejected);
    return chosen && rejected ? common_text_example(e, rules, chosen, rejected) : unknown_shape(rules, record);
}

static plumb_status rated_example(example *e, const example_rules *rules, const json_t *record) {
    const field_names *f = &rules->field;
    const json_t *first, *second;
    const char *const sides[] = {f->chosen, f->rejected};
    bool named = false; /* one side of a preference record is the completion */
    for (int i = 0; i < 2; i++) named |= !strcmp(f->completion, sides[i]) || !strcmp(f->output, sides[i]);
    if (!named && json_present(record, f->chosen) && json_present(record, f->rejected))
        return pair_example(e, rules, record);
    if ((first = json_present(record, f->prompt)) && (second = json_present(record, f->completion)))
        return prompted_example(e, rules, first, &second, &f->completion, 1);
    if (json_present(record, f->instruction) && (second = json_present(record, f->output)))
        return alpaca_example(e, rules, record, &second, &f->output, 1);
    if ((first = json_present(record, f->messages))) return split_chat_example(e, rules, first, 1);
    return unknown_shape(rules, record);
}

static plumb_status text_or_chat_example(example *e, const example_rules *rules, const json_t *record) {
    const field_names *f = &rules->field;
    const json_t *first, *second;
    if ((first = json_present(record, f->messages))) return chat_example(e, rules, first);
    if ((first = json_present(record, f->prompt)) && (second = json_present(record, f->completion)))
        return prompted_example(e, rules, first, &second, &f->completion, 1);
    if (json_present(record, f->instruction) && (second = json_present(record, f->output)))
        return alpaca_example(e, rules, record, &second, &f->output, 1);
    if ((first = json_present(record, f->text))) return text_example(e, rules, first);
    return unknown_shape(rules, record);
}

plumb_status example_make(example *e, const example_rules *rules, const json_t *record) {
    static plumb_status (*const makers[])(example *, const example_rules *, const json_t *) = {
        [PLUMB_DATA_SFT] = text_or_chat_example,
        [PLUMB_DATA_PAIRS] = pair_example,
        [PLUMB_DATA_PROMPTS] = prompt_example,
        [PLUMB_DATA_RATED] = rated_example,
    };
    example_reset(e);
    PLUMB_TRY(makers[rules->kind](e, rules, record));
    return extras_read(&e->extras, rules, record, e->wholes == 2);
}
