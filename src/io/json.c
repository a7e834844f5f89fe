/* JSON text to jansson values: the only file that calls jansson's parser.
 *
 * Duplicate keys are refused, since "the last one wins" hides mistakes; jansson bounds the depth (2048).  Two habits of
 * the files people have are met: a byte order mark in front is skipped, and integers beyond 64 bits become reals.  The
 * latter is not exotic: tokenizer_config.json often holds "model_max_length": 1000000000000000019884624838656.  jansson
 * can only turn all integers into reals or none, so on that error the text is copied, each long integer given a ".0",
 * and parsed again. */
#include "io_internal.h"
#include <stdio.h>
#include <stdlib.h>

enum { SAFE_DIGITS = 18 }; /* any integer of 18 digits fits 64 bits */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static plumb_status widen_integers(plumb_str *out, const char *text, size_t size) {
    bool quoted = false;
    size_t copied = 0;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '"')
            quoted = !quoted;
        else if (c == '\\' && quoted)
            i++;
        if (quoted || !is_digit(c)) continue;
        size_t first = i;
        while (i < size && is_digit(text[i])) i++;
        bool integer = i == size || (text[i] != '.' && text[i] != 'e' && text[i] != 'E');
        bool fraction = first > 0 && (text[first - 1] == '.' || ((text[first - 1] | 32) == 'e'));
        bool exponent =
            first > 1 && (text[first - 1] == '+' || text[first - 1] == '-') && (text[first - 2] | 32) == 'e';
        if (integer && !fraction && !exponent && i - first > SAFE_DIGITS) {
            PLUMB_TRY(plumb_str_append(out, text + copied, i - copied));
            PLUMB_TRY(plumb_str_append(out, ".0", 2));
            copied = i;
        }
        i--; /* the loop steps over the last digit */
    }
    return plumb_str_append(out, text + copied, size - copied);
}

static plumb_status report(const json_error_t *e, const char *name, int first_line) {
    if (json_error_code(e) == json_error_out_of_memory)
        return plumb_error(PLUMB_E_MEMORY, "%s: out of memory while parsing JSON", name);
    char text[JSON_ERROR_TEXT_LENGTH];
    snprintf(text, sizeof text, "%s", e->text); /* it quotes the input: keep terminals and logs safe */
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
    int line = e->line < 1 ? first_line : first_line + e->line - 1, column = e->column < 1 ? 1 : e->column;
    if (json_error_code(e) == json_error_null_character)
        return plumb_error(PLUMB_E_FORMAT, "%s:%d:%d: found a NUL character (\\u0000) in a text; expected none", name, line, column);
    const char *what = json_error_code(e) == json_error_invalid_utf8 ? "not valid UTF-8" : "not valid JSON";
    return plumb_error(PLUMB_E_FORMAT, "%s:%d:%d: %s: %s", name, line, column, what, text);
}

plumb_status plumb_json_parse(json_t **out, const char *text, size_t size, const char *name, int first_line) {
    *out = NULL;
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, size -= 3;
    size_t blank = 0;
    while (blank < size && strchr(" \t\r\n", text[blank]) && text[blank]) blank++;
    if (blank == size)
        return plumb_error(PLUMB_E_FORMAT, "%s:%d:1: empty, expected a JSON object or array", name, first_line);
    json_error_t error;
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (*out) return PLUMB_OK;
    if (json_error_code(&error) == json_error_numeric_overflow) {
        plumb_str wide = {0};
        plumb_status status = widen_integers(&wide, text, size);
        if (status == PLUMB_OK) *out = json_loadb(wide.data, wide.length, JSON_REJECT_DUPLICATES, &error);
        plumb_str_free(&wide);
        if (status != PLUMB_OK || *out) return status;
    }
    return report(&error, name, first_line);
}

plumb_status plumb_json_check(const char *text, size_t size, bool *valid) {
    json_error_t error;
    json_t *value = json_loadb(text, size, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
    *valid = value != NULL;
    json_decref(value);
    if (*valid || json_error_code(&error) != json_error_out_of_memory) return PLUMB_OK;
    return plumb_error(PLUMB_E_MEMORY, "out of memory while parsing JSON of %zu bytes", size);
}

plumb_status plumb_json_load(json_t **out, const char *path) {
    char *text;
    size_t size;
    *out = NULL;
    PLUMB_TRY(plumb_read_file(path, &text, &size));
    plumb_status status = plumb_json_parse(out, text, size, path, 1);
    free(text);
    return status;
}
