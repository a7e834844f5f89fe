/* config.yaml of a run, as plumb_options_write wrote it: flat "key: value" lines under comments.
 *
 * Nothing but the text is needed here, so it is read as text: a page can then be made of a run of another version, whose options this
 * program would refuse. A setting counts as changed where this program's default for the command is another. */
#include "report_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/config.h"

enum { LIMIT = 16 << 20 };

void report_settings_free(report_settings *s) {
    for (size_t i = 0; i < s->count; i++) {
        free(s->items[i].key);
        free(s->items[i].value);
    }
    free(s->items);
    free(s->text);
    *s = (report_settings){0};
}

static plumb_status copy(char **to, const char *from, size_t n) {
    PLUMB_TRY(plumb_alloc(to, n + 1, 1, "a setting"));
    memcpy(*to, from, n);
    return PLUMB_OK;
}

static plumb_status parse(report_settings *s, const char *text) {
    sscanf(text, "# plumb %15[a-z] , version %31[^ :\n]", s->command, s->version);
    for (const char *line = text; *line;) {
        size_t length = strcspn(line, "\n"), key = strcspn(line, ":\n");
        if (line[0] != '#' && line[0] != ' ' && key && line[key] == ':') {
            size_t at = key + 1;
            report_setting item = {0};
            while (at < length && line[at] == ' ') at++;
            PLUMB_TRY(plumb_grow(&s->items, &s->capacity, s->count + 1, sizeof *s->items));
            PLUMB_TRY(copy(&item.key, line, key));
            plumb_status status = copy(&item.value, line + at, length - at);
            s->items[s->count++] = item;
            PLUMB_TRY(status);
        }
        line += length + (line[length] == '\n');
    }
    return PLUMB_OK;
}

static const report_setting *find(const report_settings *s, const char *key) {
    for (size_t i = 0; i < s->count; i++)
        if (!strcmp(s->items[i].key, key)) return &s->items[i];
    return NULL;
}

static int command_of(const char *name) {
    for (int bit = 1; bit <= PLUMB_FOR_TRAINING; bit <<= 1)
        if ((bit & PLUMB_FOR_TRAINING) && !strcmp(plumb_options_command_name(bit), name)) return bit;
    return 0;
}

static plumb_status mark_changed(report_settings *s) {
    int command = command_of(s->command);
    plumb_options defaults;
    plumb_str text = {0};
    report_settings usual = {0};
    if (!command) return PLUMB_OK;
    PLUMB_TRY(plumb_options_load(&defaults, command, NULL, NULL, 0));
    plumb_status status = plumb_options_write(&defaults, command, &text);
    plumb_options_free(&defaults);
    if (status == PLUMB_OK) status = parse(&usual, text.data);
    for (size_t i = 0; status == PLUMB_OK && i < s->count; i++) {
        const report_setting *same = find(&usual, s->items[i].key);
        s->items[i].changed = !same || strcmp(same->value, s->items[i].value);
    }
    report_settings_free(&usual);
    plumb_str_free(&text);
    return status;
}

plumb_status report_settings_read(report_settings *s, const char *path) {
    *s = (report_settings){0};
    if (!plumb_path_exists(path)) return PLUMB_OK;
    PLUMB_TRY(plumb_read_file_max(path, LIMIT, &s->text, NULL));
    plumb_status status = parse(s, s->text);
    if (status == PLUMB_OK) status = mark_changed(s);
    if (status != PLUMB_OK) report_settings_free(s);
    return status;
}

plumb_status report_setting_text(const report_settings *s, const char *key, char **out) {
    const report_setting *item = find(s, key);
    *out = NULL;
    if (!item || !strcmp(item->value, "null")) return PLUMB_OK;
    plumb_str list = {0};
    json_t *array = NULL;
    plumb_status status = PLUMB_OK;
    if (item->value[0] == '"') { /* YAML's double quotes are JSON's, long \U escapes aside: those stay as they are */
        status = plumb_str_printf(&list, "[%s]", item->value);
        if (status == PLUMB_OK) status = plumb_json_parse(&array, list.data, list.length, "config.yaml", 1);
        if (status == PLUMB_E_FORMAT) status = PLUMB_OK;
    }
    const char *text = json_string_value(json_array_get(array, 0));
    if (!text) text = item->value;
    if (status == PLUMB_OK) status = copy(out, text, strlen(text));
    json_decref(array);
    plumb_str_free(&list);
    return status;
}

double report_setting_number(const report_settings *s, const char *key) {
    const report_setting *item = find(s, key);
    return item ? strtod(item->value, NULL) : 0;
}
