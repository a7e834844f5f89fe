/* key=value.  What follows the equals sign is the value as it stands: a text needs no quotes beyond the shell's, so
 * that prompt="Hello: you" works. A list is [a, b] as in YAML, or a,b. An empty value is null. */
#include "config_internal.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

size_t plumb_config_key_length(const char *argument) {
    const char *equals = strchr(argument, '=');
    if (!equals || equals == argument || !islower((unsigned char)argument[0])) return 0;
    for (const char *s = argument; s < equals; s++)
        if (!isalnum((unsigned char)*s) && *s != '_' && *s != '.') return 0; /* ./a=b.yaml is a path */
    return (size_t)(equals - argument);
}

static void trim(const char **text, size_t *length) {
    while (*length && isspace((unsigned char)**text)) (*text)++, (*length)--;
    while (*length && isspace((unsigned char)(*text)[*length - 1])) (*length)--;
}

static plumb_status set_comma_list(plumb_binding *b, const plumb_option *row, plumb_place at, const char *text) {
    char **items = NULL;
    size_t capacity = 0;
    int count = 0;
    plumb_status status = PLUMB_OK;
    for (const char *s = text; *text && s && status == PLUMB_OK;) { /* no text: an empty list */
        const char *comma = strchr(s, ','), *item = s;
        size_t length = comma ? (size_t)(comma - s) : strlen(s);
        trim(&item, &length);
        status = plumb_grow(&items, &capacity, (size_t)count + 1, sizeof *items);
        if (status == PLUMB_OK) status = plumb_config_copy(&items[count], item, length);
        if (status == PLUMB_OK) count++;
        s = comma ? comma + 1 : NULL;
    }
    if (status == PLUMB_OK) return plumb_config_set_list(b, row, at, items, count);
    plumb_config_free_list(items, count);
    return status;
}

plumb_status plumb_config_set_text(plumb_binding *b, const plumb_option *row, plumb_place at, const char *text) {
    if (row->type != PLUMB_OPT_LIST)
        return plumb_config_set_scalar(b, row, at, (plumb_scalar){.text = text, .length = strlen(text)});
    return text[0] == '[' ? plumb_config_read_flow_list(b, row, at, text) : set_comma_list(b, row, at, text);
}

plumb_status plumb_config_override(plumb_binding *b, const char *argument, int position) {
    plumb_place at = {.argument = position};
    char excerpt[EXCERPT_SIZE], key[KEY_MAX];
    size_t n = plumb_config_key_length(argument);
    if (n == 0)
        return plumb_config_fault(b, at, NULL, "found %s; expected key=value",
                                  plumb_config_excerpt(excerpt, argument, strlen(argument)));
    if (n >= KEY_MAX)
        return plumb_config_fault(b, at, NULL, "unknown key %s", plumb_config_excerpt(excerpt, argument, n));
    memcpy(key, argument, n);
    key[n] = 0;
    const plumb_option *row = plumb_config_find(b->command, key);
    return row ? plumb_config_set_text(b, row, at, argument + n + 1) : plumb_config_unknown(b, at, key);
}
