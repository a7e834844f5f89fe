/* Options back to YAML, so that a run's config.yaml says everything and loads to the same bits.
 *
 * A text is written plain only where no YAML reader of any version could take it for something else; otherwise in
 * double quotes with escapes for all that libyaml would refuse, fold or hide. Numbers have as many digits as it takes
 * to read the same double. */
#include "config_internal.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool is_plain(const char *text) {
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    if (!isalpha((unsigned char)text[0]) && text[0] != '/' && text[0] != '_') return false;
    for (const char *s = text; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("_-./+@=", *s)) return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) return false;
    return true;
}

/* Characters that a double-quoted scalar cannot hold as they are. */
static bool needs_escape(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || (c & 0xfffe) == 0xfffe;
}

static plumb_status append_string(plumb_str *out, const char *text) {
    if (is_plain(text)) return plumb_str_append(out, text, strlen(text));
    PLUMB_TRY(plumb_str_append(out, "\"", 1));
    for (size_t i = 0, length = strlen(text); i < length;) {
        uint32_t code = 0;
        int n = plumb_config_utf8(text + i, length - i, &code);
        if (n == 0) return plumb_error(PLUMB_E_CONFIG, "cannot write options: a text is not UTF-8");
        if (code == '"' || code == '\\')
            PLUMB_TRY(plumb_str_printf(out, "\\%c", (char)code));
        else if (code == '\n')
            PLUMB_TRY(plumb_str_append(out, "\\n", 2));
        else if (needs_escape(code))
            PLUMB_TRY(plumb_str_printf(out, code > 0xffff ? "\\U%08x" : "\\u%04x", code));
        else
            PLUMB_TRY(plumb_str_append(out, text + i, (size_t)n));
        i += (size_t)n;
    }
    return plumb_str_append(out, "\"", 1);
}

static plumb_status append_double(plumb_str *out, double value) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    return plumb_str_append(out, text, strlen(text));
}

static plumb_status append_list(plumb_str *out, char **items, int count) {
    PLUMB_TRY(plumb_str_append(out, "[", 1));
    for (int i = 0; i < count; i++) {
        if (i) PLUMB_TRY(plumb_str_append(out, ", ", 2));
        PLUMB_TRY(append_string(out, items[i]));
    }
    return plumb_str_append(out, "]", 1);
}

static plumb_status append_value(plumb_str *out, const plumb_options *o, const plumb_option *row) {
    const void *field = (const char *)o + row->offset;
    switch (row->type) {
    case PLUMB_OPT_INT: return plumb_str_printf(out, "%lld", (long long)*(const int64_t *)field);
    case PLUMB_OPT_FLOAT: return append_double(out, *(const double *)field);
    case PLUMB_OPT_BOOL: return plumb_str_printf(out, "%s", *(const bool *)field ? "true" : "false");
    case PLUMB_OPT_LIST: {
        char **const *list = field;
        return append_list(out, *list, *(const int *)(const void *)(list + 1));
    }
    case PLUMB_OPT_STRING:
    case PLUMB_OPT_CHOICE: break;
    }
    const char *text = *(char *const *)field;
    return text ? append_string(out, text) : plumb_str_append(out, "null", 4);
}

plumb_status plumb_options_write(const plumb_options *o, int command, plumb_str *out) {
    const char *group = "";
    PLUMB_TRY(plumb_str_printf(out, "# plumb %s, version %s: every option with its value.\n",
                               plumb_options_command_name(command), PLUMB_VERSION));
    for (int i = 0; i < plumb_option_count; i++) {
        const plumb_option *row = &plumb_option_table[i];
        if (!(row->commands & command)) continue;
        if (strcmp(group, row->group)) PLUMB_TRY(plumb_str_printf(out, "\n# --- %s ---\n", row->group));
        group = row->group;
        PLUMB_TRY(plumb_str_printf(out, "# %s\n%s: ", row->help, row->key));
        PLUMB_TRY(append_value(out, o, row));
        PLUMB_TRY(plumb_str_append(out, "\n", 1));
    }
    return PLUMB_OK;
}
