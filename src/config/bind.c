/* A key's row and a field's new value.  Fields are reached through the row's offset; each type has one place that
 * writes it, and an old string or list is freed there, so that a value may be set any number of times (default, file,
 * override). */
#include "config_internal.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int row_index(const plumb_option *row) {
    return (int)(row - plumb_option_table);
}

static void *field_of(plumb_options *o, const plumb_option *row) {
    return (char *)o + row->offset;
}

const plumb_option *plumb_config_find(int command, const char *key) {
    for (int i = 0; i < plumb_option_count; i++)
        if ((plumb_option_table[i].commands & command) && !strcmp(plumb_option_table[i].key, key))
            return &plumb_option_table[i];
    return NULL;
}

plumb_place plumb_config_place(const plumb_binding *b, const char *key) {
    const plumb_option *row = plumb_config_find(b->command, key);
    return row ? b->places[row_index(row)] : (plumb_place){0};
}

bool plumb_config_is_group(int command, const char *prefix) {
    size_t n = strlen(prefix);
    for (int i = 0; i < plumb_option_count; i++) {
        const plumb_option *row = &plumb_option_table[i];
        if ((row->commands & command) && !strncmp(row->key, prefix, n) && row->key[n] == '.') return true;
    }
    return false;
}

plumb_status plumb_config_fault(const plumb_binding *b, plumb_place at, const char *key, const char *format, ...) {
    char what[900], where[64] = "";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const char *name = "";
    if (at.argument)
        snprintf(where, sizeof where, "argument %d: ", at.argument);
    else if (at.line) {
        name = b->name;
        snprintf(where, sizeof where, ":%d:%d: ", at.line, at.column);
    }
    return plumb_error(PLUMB_E_CONFIG, "%.400s%s%s%s%s", name, where, key ? key : "", key ? ": " : "", what);
}

/* Who knows a key: one command, or in a pipeline's defaults any stage's. */
static const char *knower(const plumb_binding *b, char text[64]) {
    if (b->command & (b->command - 1)) return "a stage of the pipeline";
    snprintf(text, 64, "plumb %s", plumb_options_command_name(b->command));
    return text;
}

static plumb_status foreign_key(const plumb_binding *b, plumb_place at, const char *key, int commands) {
    char list[64] = "", who[64];
    for (int bit = 1; bit <= ALL_COMMANDS; bit <<= 1) {
        if (!(commands & bit)) continue;
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", plumb_options_command_name(bit));
    }
    const char *hint = b->command & PLUMB_FOR_ONLINE ? plumb_config_hint(key) : NULL;
    return plumb_config_fault(b, at, key, "found a key of plumb %s; expected one that %s knows%s%s", list, knower(b, who), hint ? "; " : "",
                              hint ? hint : "");
}

plumb_status plumb_config_unknown(const plumb_binding *b, plumb_place at, const char *key) {
    char excerpt[EXCERPT_SIZE];
    plumb_config_excerpt(excerpt, key, strlen(key));
    if (plumb_config_is_group(b->command, key))
        return plumb_config_fault(b, at, key, "found a value; expected keys below it, as in %s.name: value", key);
    int commands = 0, n_candidates = 0;
    for (int i = 0; i < plumb_option_count; i++)
        if (!strcmp(plumb_option_table[i].key, key)) commands |= plumb_option_table[i].commands;
    if (commands) return foreign_key(b, at, key, commands);
    const char *hint = plumb_config_hint(key);
    if (hint) return plumb_config_fault(b, at, NULL, "unknown key %s; %s", excerpt, hint);
    if (!strcmp(key, "<<"))
        return plumb_config_fault(b, at, NULL, "merge keys (<<) are not supported; write the keys out");

    const char **candidates;
    PLUMB_TRY(plumb_alloc(&candidates, (size_t)plumb_option_count, sizeof *candidates, "names of options"));
    for (int i = 0; i < plumb_option_count; i++)
        if (plumb_option_table[i].commands & b->command) candidates[n_candidates++] = plumb_option_table[i].key;
    int nearest = plumb_nearest(key, candidates, n_candidates);
    char who[64];
    const char *command = knower(b, who);
    plumb_status status =
        nearest >= 0
            ? plumb_config_fault(b, at, NULL, "unknown key %s; did you mean %s?", excerpt, candidates[nearest])
            : plumb_config_fault(b, at, NULL, command == who ? "unknown key %s; expected one of those that %s --help lists"
                                                             : "unknown key %s; expected one that %s knows",
                                 excerpt, command);
    free(candidates);
    return status;
}

plumb_status plumb_config_mismatch(const plumb_binding *b, plumb_place at, const plumb_option *row, const char *found) {
    plumb_str expected = {0};
    plumb_status status = plumb_config_expected(row, &expected);
    if (status == PLUMB_OK) status = plumb_config_fault(b, at, row->key, "found %s; expected %s", found, expected.data);
    plumb_str_free(&expected);
    return status;
}

plumb_status plumb_config_copy(char **out, const char *text, size_t length) {
    PLUMB_TRY(plumb_alloc(out, length + 1, 1, "a text of the configuration"));
    memcpy(*out, text, length);
    return PLUMB_OK;
}

void plumb_config_free_list(char **items, int count) {
    for (int i = 0; i < count; i++) free(items[i]);
    free(items);
}

/* --- texts ------------------------------------------------------------------------------------ */
static void replace_string(plumb_options *o, const plumb_option *row, char *text) {
    char **field = field_of(o, row);
    free(*field);
    *field = text;
}

/* Clean UTF-8 without NUL of an allowed length. */
static plumb_status check_text(const plumb_binding *b, plumb_place at, const plumb_option *row, const char *text,
                               size_t length, double low, double high) {
    for (size_t i = 0; i < length;) {
        uint32_t code;
        int n = plumb_config_utf8(text + i, length - i, &code);
        if (n == 0) return plumb_config_mismatch(b, at, row, "bytes that are not UTF-8");
        if (code == 0) return plumb_config_mismatch(b, at, row, "a NUL character");
        i += (size_t)n;
    }
    if ((double)length < low)
        return plumb_config_fault(b, at, row->key, "found an empty text; expected one that is not, or null");
    if ((double)length > high)
        return plumb_config_fault(b, at, row->key, "found a text of %zu bytes; expected at most %.0f", length, high);
    return PLUMB_OK;
}

/* Null means unset, which is the default: NULL where that is null. */
static plumb_status set_unset(plumb_binding *b, const plumb_option *row) {
    char *copy = NULL;
    bool empty = !strcmp(row->fallback, "\"\"");
    if (strcmp(row->fallback, "null"))
        PLUMB_TRY(plumb_config_copy(&copy, empty ? "" : row->fallback, empty ? 0 : strlen(row->fallback)));
    replace_string(b->options, row, copy);
    return PLUMB_OK;
}

static plumb_status set_string(plumb_binding *b, const plumb_option *row, plumb_place *at, plumb_scalar value) {
    if (plumb_config_is_null(value)) return set_unset(b, row);
    PLUMB_TRY(check_text(b, *at, row, value.text, value.length, row->low, row->high));
    char *copy;
    PLUMB_TRY(plumb_config_expand(b, at, row->key, value.text, value.length, &copy));
    if (strlen(copy) > row->high) { /* a path that was put in may be long */
        free(copy);
        return plumb_config_fault(b, *at, row->key, "found a text that becomes too long; expected at most %.0f bytes", row->high);
    }
    replace_string(b->options, row, copy);
    return PLUMB_OK;
}

enum { CHOICES_MAX = 16 };

static plumb_status bad_choice(const plumb_binding *b, plumb_place at, const plumb_option *row, plumb_scalar value) {
    char excerpt[EXCERPT_SIZE], found[2 * EXCERPT_SIZE], *copy;
    const char *words[CHOICES_MAX];
    int count = 0, nearest = -1;
    PLUMB_TRY(plumb_config_copy(&copy, row->choices, strlen(row->choices)));
    char *rest = copy;
    for (char *word; count < CHOICES_MAX && (word = strsep(&rest, "|"));) words[count++] = word;
    if (strlen(value.text) == value.length) nearest = plumb_nearest(value.text, words, count);
    plumb_config_excerpt(excerpt, value.text, value.length);
    if (plumb_config_is_null(value))
        snprintf(found, sizeof found, "%s", value.length ? "null" : "nothing");
    else
        snprintf(found, sizeof found, "%s%s%s%s", excerpt, nearest >= 0 ? " (did you mean " : "",
                 nearest >= 0 ? words[nearest] : "", nearest >= 0 ? "?)" : "");
    free(copy);
    return plumb_config_mismatch(b, at, row, found);
}

static plumb_status set_choice(plumb_binding *b, const plumb_option *row, plumb_place at, plumb_scalar value) {
    if (plumb_config_is_null(value) && !strcmp(row->fallback, "null")) return set_unset(b, row);
    for (const char *choice = row->choices; choice;) {
        const char *bar = strchr(choice, '|');
        size_t n = bar ? (size_t)(bar - choice) : strlen(choice);
        if (n == value.length && !memcmp(choice, value.text, n)) {
            char *copy;
            PLUMB_TRY(plumb_config_copy(&copy, choice, n));
            replace_string(b->options, row, copy);
            return PLUMB_OK;
        }
        choice = bar ? bar + 1 : NULL;
    }
    return bad_choice(b, at, row, value);
}

/* --- all types -------------------------------------------------------------------------------- */
static plumb_status set_bool(plumb_binding *b, const plumb_option *row, plumb_place at, plumb_scalar value) {
    char excerpt[EXCERPT_SIZE], found[2 * EXCERPT_SIZE];
    bool yes = !value.quoted && value.length == 4 && !memcmp(value.text, "true", 4);
    if (yes || (!value.quoted && value.length == 5 && !memcmp(value.text, "false", 5))) {
        *(bool *)field_of(b->options, row) = yes;
        return PLUMB_OK;
    }
    snprintf(found, sizeof found, "%s%s%s", value.quoted ? "the text " : "",
             plumb_config_excerpt(excerpt, value.text, value.length), value.quoted ? " in quotes" : "");
    return plumb_config_mismatch(b, at, row, found);
}

plumb_status plumb_config_set_scalar(plumb_binding *b, const plumb_option *row, plumb_place at, plumb_scalar value) {
    switch (row->type) {
    case PLUMB_OPT_STRING: PLUMB_TRY(set_string(b, row, &at, value)); break;
    case PLUMB_OPT_CHOICE: PLUMB_TRY(set_choice(b, row, at, value)); break;
    case PLUMB_OPT_BOOL: PLUMB_TRY(set_bool(b, row, at, value)); break;
    case PLUMB_OPT_INT: PLUMB_TRY(plumb_config_parse_int(b, at, row, value, field_of(b->options, row))); break;
    case PLUMB_OPT_FLOAT: PLUMB_TRY(plumb_config_parse_float(b, at, row, value, field_of(b->options, row))); break;
    case PLUMB_OPT_LIST: {
        if (plumb_config_is_null(value)) return plumb_config_mismatch(b, at, row, value.length ? "null" : "nothing");
        char **items = NULL;
        PLUMB_TRY(plumb_alloc(&items, 1, sizeof *items, "a list"));
        plumb_status status = plumb_config_copy(&items[0], value.text, value.length);
        if (status == PLUMB_OK && strlen(value.text) != value.length)
            status = plumb_config_mismatch(b, at, row, "a NUL character");
        if (status == PLUMB_OK)
            return plumb_config_set_list(b, row, at, items, 1); /* "all-linear" is [all-linear], as in TRL */
        plumb_config_free_list(items, 1);
        return status;
    }
    }
    b->places[row_index(row)] = at;
    return PLUMB_OK;
}

plumb_status plumb_config_set_list(plumb_binding *b, const plumb_option *row, plumb_place at, char **items, int count) {
    plumb_status status = PLUMB_OK;
    if (count < row->low) status = plumb_config_mismatch(b, at, row, "an empty list");
    if (count > row->high)
        status = plumb_config_fault(b, at, row->key, "found a list of %d; expected at most %.0f", count, row->high);
    for (int i = 0; i < count && status == PLUMB_OK; i++) {
        status = check_text(b, at, row, items[i], strlen(items[i]), 1, 1023);
        char *expanded = NULL;
        if (status == PLUMB_OK) status = plumb_config_expand(b, &at, row->key, items[i], strlen(items[i]), &expanded);
        if (status == PLUMB_OK) free(items[i]), items[i] = expanded;
    }
    if (status != PLUMB_OK) {
        plumb_config_free_list(items, count);
        return status;
    }
    char ***field = field_of(b->options, row);
    int *field_count = (int *)(void *)(field + 1);
    plumb_config_free_list(*field, *field_count);
    *field = items;
    *field_count = count;
    b->places[row_index(row)] = at;
    return PLUMB_OK;
}

void plumb_options_free(plumb_options *o) {
    if (!o) return;
    for (int i = 0; i < plumb_option_count; i++) { /* rows may share a field */
        const plumb_option *row = &plumb_option_table[i];
        if (row->type == PLUMB_OPT_STRING || row->type == PLUMB_OPT_CHOICE) replace_string(o, row, NULL);
        if (row->type != PLUMB_OPT_LIST) continue;
        char ***field = field_of(o, row);
        int *count = (int *)(void *)(field + 1);
        plumb_config_free_list(*field, *count);
        *field = NULL;
        *count = 0;
    }
    *o = (plumb_options){0};
}
