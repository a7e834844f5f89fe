/* Defaults, file, overrides, rules: the order in which options come about. */
#include "config_internal.h"
#include <stdlib.h>
#include <string.h>
#include "plumb/io.h"

static plumb_status set_default(plumb_binding *b, const plumb_option *row, const char *text) {
    if (!strcmp(text, "\"\""))
        return plumb_config_set_scalar(b, row, (plumb_place){0}, (plumb_scalar){.text = "", .quoted = true});
    return plumb_config_set_text(b, row, (plumb_place){0}, text);
}

/* Rows of other commands first: a field has a value in any case, and the command's own row has the last word. */
plumb_status plumb_config_set_defaults(plumb_binding *b) {
    for (int mine = 0; mine < 2; mine++)
        for (int i = 0; i < plumb_option_count; i++) {
            const plumb_option *row = &plumb_option_table[i];
            if (!!(row->commands & b->command) == mine) PLUMB_TRY(set_default(b, row, row->fallback));
        }
    return PLUMB_OK;
}

static bool is_set(const plumb_binding *b, const char *key) {
    plumb_place at = plumb_config_place(b, key);
    return at.line || at.argument;
}

/* Defaults that depend on other keys: full training has its own, and a run is called after its folder. */
static plumb_status derive(plumb_binding *b) {
    plumb_options *o = b->options;
    o->max_length_set = is_set(b, "max_length"), o->max_prompt_length_set = is_set(b, "max_prompt_length"),
    o->max_completion_length_set = is_set(b, "max_completion_length");
    for (int i = 0; i < plumb_option_count && !o->lora; i++) {
        const plumb_option *row = &plumb_option_table[i];
        plumb_place at = b->places[i];
        if (row->fallback_full && (row->commands & b->command) && !at.line && !at.argument)
            PLUMB_TRY(set_default(b, row, row->fallback_full));
    }
    const plumb_option *name = plumb_config_find(b->command, "run_name");
    if (!name || o->run_name || !o->output_dir) return PLUMB_OK;
    size_t end = strlen(o->output_dir);
    while (end && o->output_dir[end - 1] == '/') end--;
    size_t begin = end;
    while (begin && o->output_dir[begin - 1] != '/') begin--;
    if (end - begin > (size_t)name->high) begin = end;
    const char *command = plumb_options_command_name(b->command);
    if (begin == end) return plumb_config_copy(&o->run_name, command, strlen(command));
    return plumb_config_copy(&o->run_name, o->output_dir + begin, end - begin);
}

plumb_status plumb_config_finish(plumb_binding *b) {
    PLUMB_TRY(derive(b));
    return plumb_config_check(b);
}

static plumb_status load_all(plumb_binding *b, const plumb_sources *from) {
    PLUMB_TRY(plumb_config_set_defaults(b));
    if (from->path) {
        char *text;
        size_t size;
        PLUMB_TRY(plumb_read_file_max(from->path, PLUMB_CONFIG_FILE_MAX, &text, &size));
        plumb_status status = plumb_config_read_yaml(b, text, size);
        free(text);
        PLUMB_TRY(status);
    } else if (from->text) {
        PLUMB_TRY(plumb_config_read_yaml(b, from->text, from->size));
    }
    for (int i = 0; i < from->n_overrides; i++)
        PLUMB_TRY(plumb_config_override(b, from->overrides[i], from->positions ? from->positions[i] : i + 1));
    return plumb_config_finish(b);
}

plumb_status plumb_config_load(plumb_options *o, int command, const plumb_sources *from) {
    *o = (plumb_options){0};
    plumb_binding b = {.options = o,
                       .command = command,
                       .name = from->path   ? from->path
                               : from->name ? from->name
                                            : "options"};
    PLUMB_TRY(plumb_alloc(&b.places, (size_t)plumb_option_count, sizeof *b.places, "places of options"));
    plumb_status status = load_all(&b, from);
    free(b.places);
    if (status != PLUMB_OK) plumb_options_free(o);
    return status;
}

plumb_status plumb_options_load(plumb_options *o, int command, const char *path, char **overrides, int n_overrides) {
    plumb_sources from = {.path = path, .overrides = overrides, .n_overrides = n_overrides};
    return plumb_config_load(o, command, &from);
}

plumb_status plumb_options_load_text(plumb_options *o, int command, const char *text, size_t size, const char *name,
                                     char **overrides, int n_overrides) {
    plumb_sources from = {.text = text, .size = size, .name = name, .overrides = overrides, .n_overrides = n_overrides};
    return plumb_config_load(o, command, &from);
}
