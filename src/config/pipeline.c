/* A pipeline's file: a document that is kept and bound in parts.
 *
 * Two passes, because a stage's command says how its keys are read, and the keys may stand in any order: the outline (folder, names,
 * commands), then each stage with the table of options of its command:
 *
 *     defaults of the table < defaults: < the stage's keys < arguments
 *
 * References are put in as a text is set (reference.c), and a stage is complete before the next is bound: what an argument changes in
 * stage 1 arrives in stage 2. */
#include "plumb/pipeline.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "config_internal.h"
#include "plumb/io.h"

enum { NAME_BYTES = 48 };

typedef struct source { /* the load in progress */
    plumb_stages *pipeline;
    plumb_binding file; /* for messages about no stage in particular */
    plumb_yaml *yaml;
    plumb_yaml_node defaults, nodes[PLUMB_MAX_STAGES];
    bool has_defaults;
    int commands; /* of all stages */
    char *const *arguments;
    const int *positions;
    int n_arguments;
} source;

static const char *excerpt_of(char buffer[EXCERPT_SIZE], plumb_scalar text) {
    return plumb_config_excerpt(buffer, text.text, text.length);
}
static bool is_word(const plumb_yaml_node *n, const char *word) {
    return n->kind == PLUMB_YAML_SCALAR && n->scalar.length == strlen(word) && !memcmp(n->scalar.text, word, n->scalar.length);
}
static const char *kind_text(plumb_yaml_kind kind) {
    return kind == PLUMB_YAML_LIST ? "a list" : kind == PLUMB_YAML_MAPPING ? "a mapping" : "a text";
}
static plumb_status unknown(const source *s, plumb_place at, plumb_scalar word, const char *const *words, int n, const char *what) {
    char excerpt[EXCERPT_SIZE];
    int nearest = strlen(word.text) == word.length ? plumb_nearest(word.text, words, n) : -1;
    excerpt_of(excerpt, word);
    if (nearest >= 0) return plumb_config_fault(&s->file, at, NULL, "unknown %s %s; did you mean %s?", what, excerpt, words[nearest]);
    plumb_str list = {0};
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < n && status == PLUMB_OK; i++) status = plumb_str_printf(&list, "%s%s", i ? ", " : "", words[i]);
    if (status == PLUMB_OK) status = plumb_config_fault(&s->file, at, NULL, "unknown %s %s; expected one of %s", what, excerpt, list.data);
    plumb_str_free(&list);
    return status;
}

/* --- the outline ------------------------------------------------------------------------------ */
static plumb_status set_text(const source *s, char **field, plumb_place at, const char *key, plumb_scalar text) {
    if (plumb_config_is_null(text) || text.length == 0 || strlen(text.text) != text.length || text.length > 4095)
        return plumb_config_fault(&s->file, at, key, "found nothing, or no clean text; expected a text of 1 to 4095 bytes");
    free(*field);
    return plumb_config_copy(field, text.text, text.length);
}
static plumb_status check_time(const source *s, plumb_place at) {
    double seconds;
    if (plumb_duration_parse(s->pipeline->stop_after, &seconds) == PLUMB_OK) return PLUMB_OK;
    char *why = strdup(plumb_error_message());
    plumb_status status = plumb_config_fault(&s->file, at, "stop_after", "%s", why ? why : "not a time");
    free(why);
    return status;
}
static plumb_status read_name(const source *s, plumb_stage *stage, const plumb_yaml_node *value) {
    char excerpt[EXCERPT_SIZE];
    bool good = value->kind == PLUMB_YAML_SCALAR && value->scalar.length > 0 && value->scalar.length < NAME_BYTES &&
                islower((unsigned char)value->scalar.text[0]);
    for (size_t i = 0; good && i < value->scalar.length; i++) {
        unsigned char c = (unsigned char)value->scalar.text[i];
        good = islower(c) || isdigit(c) || c == '_';
    }
    if (!good || is_word(value, "defaults"))
        return plumb_config_fault(&s->file, value->at, "name",
                                  "found %s; expected a small letter, then small letters, digits and _ (and not defaults)",
                                  value->kind == PLUMB_YAML_SCALAR ? excerpt_of(excerpt, value->scalar) : kind_text(value->kind));
    free(stage->name);
    return plumb_config_copy(&stage->name, value->scalar.text, value->scalar.length);
}
static plumb_status read_command(const source *s, plumb_stage *stage, const plumb_yaml_node *value) {
    const char *names[16];
    int n = 0;
    for (int bit = 1; bit <= ALL_COMMANDS; bit <<= 1) {
        if (!(bit & PLUMB_FOR_STAGES)) continue;
        names[n++] = plumb_options_command_name(bit);
        if (is_word(value, names[n - 1])) stage->command = bit;
    }
    if (stage->command) return PLUMB_OK;
    if (value->kind != PLUMB_YAML_SCALAR)
        return plumb_config_fault(&s->file, value->at, "command", "found %s; expected the name of a command, such as sft",
                                  kind_text(value->kind));
    return unknown(s, value->at, value->scalar, names, n, "command of a stage");
}
static plumb_status outline_stage(source *s, const plumb_yaml_node *node) {
    plumb_stages *p = s->pipeline;
    if (node->kind != PLUMB_YAML_MAPPING)
        return plumb_config_fault(&s->file, node->at, "stages", "found %s; expected a mapping such as {command: sft, train_file: …}",
                                  kind_text(node->kind));
    if (p->count == PLUMB_MAX_STAGES)
        return plumb_config_fault(&s->file, node->at, "stages", "found more than %d stages", PLUMB_MAX_STAGES);
    s->nodes[p->count] = *node;
    plumb_stage *stage = &p->stages[p->count++];
    *stage = (plumb_stage){.line = node->at.line, .column = node->at.column};
    plumb_yaml_walk walk = plumb_yaml_enter(node);
    plumb_place named = node->at;
    int names = 0, commands = 0;
    for (plumb_yaml_node key, value; plumb_yaml_next(s->yaml, &walk, &key, &value);) {
        if (is_word(&key, "name")) names++, named = value.at;
        else if (is_word(&key, "command")) commands++;
        else continue;
        if (names > 1 || commands > 1)
            return plumb_config_fault(&s->file, key.at, names > 1 ? "name" : "command", "found the key again; expected it once");
        PLUMB_TRY(is_word(&key, "name") ? read_name(s, stage, &value) : read_command(s, stage, &value));
    }
    if (!stage->command)
        return plumb_config_fault(&s->file, node->at, NULL, "the stage has no command; expected a key such as 'command: sft'");
    const char *command = plumb_options_command_name(stage->command);
    if (!stage->name) PLUMB_TRY(plumb_config_copy(&stage->name, command, strlen(command)));
    for (int i = 0; i < p->count - 1; i++)
        if (!strcmp(p->stages[i].name, stage->name))
            return plumb_config_fault(&s->file, named, "name",
                                      "stage %d (line %d) is called %s already; expected a name of its own, as in 'name: %s_2'", i + 1,
                                      p->stages[i].line, stage->name, stage->name);
    s->commands |= stage->command;
    return PLUMB_OK;
}

static plumb_status outline(source *s, const plumb_yaml_node *root) {
    static const char *const keys[] = {"output_dir", "stop_after", "defaults", "stages"};
    plumb_stages *p = s->pipeline;
    plumb_yaml_walk walk = plumb_yaml_enter(root);
    unsigned seen = 0;
    if (root->kind != PLUMB_YAML_MAPPING)
        return plumb_config_fault(&s->file, root->at, NULL, "found %s; expected lines such as 'output_dir: runs/assistant' and 'stages:'",
                                  kind_text(root->kind));
    for (plumb_yaml_node key, value; plumb_yaml_next(s->yaml, &walk, &key, &value);) {
        int k = 0;
        while (k < 4 && !is_word(&key, keys[k])) k++;
        if (k == 4 && key.kind != PLUMB_YAML_SCALAR)
            return plumb_config_fault(&s->file, key.at, NULL, "found a list or mapping as a key; expected a word");
        if (k == 4 && strlen(key.scalar.text) == key.scalar.length && plumb_config_find(PLUMB_FOR_STAGES, key.scalar.text))
            return plumb_config_fault(&s->file, key.at, key.scalar.text,
                                      "found a key of a stage; expected it below 'defaults:' (for all stages that know it) or in a stage");
        if (k == 4) return unknown(s, key.at, key.scalar, keys, 4, "key");
        if (seen & 1u << k) return plumb_config_fault(&s->file, key.at, keys[k], "found the key again; expected it once");
        seen |= 1u << k;
        if (k < 2 && value.kind != PLUMB_YAML_SCALAR)
            return plumb_config_fault(&s->file, value.at, keys[k], "found %s; expected a text", kind_text(value.kind));
        if (k == 0) PLUMB_TRY(set_text(s, &p->output_dir, value.at, keys[k], value.scalar));
        if (k == 1 && value.scalar.length) PLUMB_TRY(set_text(s, &p->stop_after, value.at, keys[k], value.scalar));
        if (k == 1) PLUMB_TRY(check_time(s, value.at));
        if (k == 2) s->defaults = value, s->has_defaults = value.kind != PLUMB_YAML_SCALAR || !plumb_config_is_null(value.scalar);
        if (k == 2 && s->has_defaults && value.kind != PLUMB_YAML_MAPPING)
            return plumb_config_fault(&s->file, value.at, keys[k], "found %s; expected keys below it", kind_text(value.kind));
        if (k != 3) continue;
        if (value.kind != PLUMB_YAML_LIST)
            return plumb_config_fault(&s->file, value.at, keys[k], "found %s; expected a list: a line '- command: sft' for each stage",
                                      kind_text(value.kind));
        plumb_yaml_walk list = plumb_yaml_enter(&value);
        for (plumb_yaml_node none, stage; plumb_yaml_next(s->yaml, &list, &none, &stage);) PLUMB_TRY(outline_stage(s, &stage));
    }
    return p->count ? PLUMB_OK
                    : plumb_error(PLUMB_E_CONFIG, "%.400s: stages is missing: expected a list with a line '- command: sft' for each stage",
                                  s->file.name);
}

/* --- arguments -------------------------------------------------------------------------------- */
static int position(const source *s, int i) { return s->positions ? s->positions[i] : i + 1; }
/* The rest of an argument "NAME.key=value" behind "NAME."; NULL when it is another's. */
static const char *argument_of(const char *argument, const char *name) {
    size_t n = strlen(name);
    return !strncmp(argument, name, n) && argument[n] == '.' ? argument + n + 1 : NULL;
}
/* Those of the pipeline itself are taken at once; each of the others must belong to somebody. */
static plumb_status sort_arguments(source *s) {
    plumb_stages *p = s->pipeline;
    for (int i = 0; i < s->n_arguments; i++) {
        const char *text = s->arguments[i], *equals = strchr(text, '=');
        plumb_place at = {.argument = position(s, i)};
        char excerpt[EXCERPT_SIZE];
        if (!plumb_config_key_length(text))
            return plumb_config_fault(&s->file, at, NULL, "found %s; expected STAGE.key=value",
                                      plumb_config_excerpt(excerpt, text, strlen(text)));
        plumb_scalar value = {.text = equals + 1, .length = strlen(equals + 1)};
        if (!strncmp(text, "output_dir=", 11)) {
            PLUMB_TRY(set_text(s, &p->output_dir, at, "output_dir", value));
            continue;
        }
        if (!strncmp(text, "stop_after=", 11)) {
            free(p->stop_after);
            p->stop_after = NULL;
            PLUMB_TRY(plumb_config_copy(&p->stop_after, value.text, value.length));
            PLUMB_TRY(check_time(s, at));
            continue;
        }
        const char *rest = argument_of(text, "defaults"), *names[PLUMB_MAX_STAGES + 1];
        for (int k = 0; k < p->count && !rest; k++) rest = argument_of(text, p->stages[k].name);
        if (rest) continue;
        names[0] = "defaults";
        for (int k = 0; k < p->count; k++) names[k + 1] = p->stages[k].name;
        const char *dot = memchr(text, '.', (size_t)(equals - text));
        if (!dot)
            return plumb_config_fault(&s->file, at, NULL,
                                      "found %s; expected STAGE.key=value or defaults.key=value (or output_dir=, stop_after=)",
                                      plumb_config_excerpt(excerpt, text, (size_t)(equals - text)));
        char *word;
        PLUMB_TRY(plumb_config_copy(&word, text, (size_t)(dot - text)));
        plumb_status status = unknown(s, at, (plumb_scalar){.text = word, .length = strlen(word)}, names, p->count + 1, "stage");
        free(word);
        return status;
    }
    if (!p->stop_after) PLUMB_TRY(plumb_config_copy(&p->stop_after, "", 0));
    if (p->output_dir) return PLUMB_OK;
    return plumb_error(PLUMB_E_CONFIG, "%.400s: output_dir is missing: folder that receives a folder for each stage", s->file.name);
}

/* --- keys that no stage knows ----------------------------------------------------------------- */
static bool knows(int commands, const char *key) { return plumb_config_find(commands, key) || plumb_config_is_group(commands, key); }
static plumb_status check_defaults(const source *s) {
    plumb_binding all = s->file;
    all.command = s->commands;
    if (s->has_defaults) {
        plumb_yaml_walk walk = plumb_yaml_enter(&s->defaults);
        for (plumb_yaml_node key, value; plumb_yaml_next(s->yaml, &walk, &key, &value);) {
            bool clean = key.kind == PLUMB_YAML_SCALAR && strlen(key.scalar.text) == key.scalar.length;
            if (!clean) return plumb_config_fault(&s->file, key.at, NULL, "found a key that is no word");
            if (!knows(s->commands, key.scalar.text)) return plumb_config_unknown(&all, key.at, key.scalar.text);
        }
    }
    for (int i = 0; i < s->n_arguments; i++) {
        const char *rest = argument_of(s->arguments[i], "defaults");
        char key[KEY_MAX];
        if (!rest) continue;
        snprintf(key, sizeof key, "%.*s", (int)strcspn(rest, "="), rest);
        if (!plumb_config_find(s->commands, key)) return plumb_config_unknown(&all, (plumb_place){.argument = position(s, i)}, key);
    }
    return PLUMB_OK;
}

/* --- stages ----------------------------------------------------------------------------------- */
static plumb_status read_sources(source *s, plumb_binding *b, int k) {
    const plumb_stage *stage = &s->pipeline->stages[k];
    PLUMB_TRY(plumb_config_set_defaults(b));
    b->part = PLUMB_PART_DEFAULTS;
    if (s->has_defaults) PLUMB_TRY(plumb_yaml_bind(b, s->yaml, &s->defaults));
    for (int i = 0; i < s->n_arguments; i++) {
        const char *rest = argument_of(s->arguments[i], "defaults");
        char key[KEY_MAX] = "";
        if (rest) snprintf(key, sizeof key, "%.*s", (int)strcspn(rest, "="), rest);
        if (rest && plumb_config_find(b->command, key)) PLUMB_TRY(plumb_config_override(b, rest, position(s, i)));
    }
    b->part = PLUMB_PART_STAGE;
    PLUMB_TRY(plumb_yaml_bind(b, s->yaml, &s->nodes[k]));
    for (int i = 0; i < s->n_arguments; i++) {
        const char *rest = argument_of(s->arguments[i], stage->name);
        if (rest) PLUMB_TRY(plumb_config_override(b, rest, position(s, i)));
    }
    return PLUMB_OK;
}

static size_t path_length(const char *path) { /* without slashes at its end */
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return n;
}
static plumb_status set_folder(const source *s, plumb_stage *stage) {
    plumb_options *o = &stage->options;
    plumb_str path = {0};
    plumb_status status = PLUMB_OK;
    bool file = stage->command & PLUMB_FOR_FILE;
    if (!file && o->output_dir) {
        status = plumb_str_append(&path, o->output_dir, path_length(o->output_dir));
    } else if (file && o->output_file) {
        const char *slash = strrchr(o->output_file, '/');
        size_t n = slash ? (size_t)(slash - o->output_file) : 0;
        status = plumb_str_append(&path, !slash ? "." : n ? o->output_file : "/", !slash || !n ? 1 : n);
    } else {
        status = plumb_str_printf(&path, "%.*s/%s", (int)path_length(s->pipeline->output_dir), s->pipeline->output_dir, stage->name);
    }
    if (status == PLUMB_OK) status = plumb_config_copy(&stage->dir, path.data, path.length);
    if (status == PLUMB_OK && !file && !o->output_dir) status = plumb_config_copy(&o->output_dir, path.data, path.length);
    if (status == PLUMB_OK && file && !o->output_file) {
        status = plumb_str_printf(&path, stage->command == PLUMB_FOR_SCORE ? "/scores.jsonl" : "/records.jsonl");
        if (status == PLUMB_OK) status = plumb_config_copy(&o->output_file, path.data, path.length);
    }
    plumb_str_free(&path);
    return status;
}

/* What the pipeline decides itself, what a stage cannot do without, and its files beside those of the others. */
static plumb_status check_stage(const plumb_binding *b, const source *s, int k) {
    static const char *const own[] = {"resume", "dry_run"};
    const plumb_stages *p = s->pipeline;
    const plumb_stage *stage = &p->stages[k];
    for (int i = 0; i < 2; i++) {
        plumb_place at = plumb_config_place(b, own[i]);
        if (at.line || at.argument)
            return plumb_config_fault(b, at, own[i],
                                      i ? "found it in a pipeline; expected --dry-run for all stages together"
                                        : "found it in a pipeline, which decides itself what goes on; see --from");
    }
    char where[600];
    snprintf(where, sizeof where, "%.300s:%d:%d: stage %s", b->name, stage->line, stage->column, stage->name);
    PLUMB_TRY(plumb_config_check_required(&stage->options, stage->command, where));
    return plumb_config_check_stage_files(b, p, k);
}

bool plumb_stage_made(const plumb_stage *s, const char *path) {
    return plumb_config_lies_in(path, s->product) || (strcmp(s->dir, ".") != 0 && plumb_config_lies_in(path, s->dir));
}
static void find_needs(const plumb_binding *b, plumb_stages *p, int k) {
    plumb_stage *stage = &p->stages[k];
    for (int i = 0; i < plumb_option_count; i++) {
        const char *path = plumb_config_input(stage, &plumb_option_table[i]);
        if (path) stage->refers |= b->places[i].refers;
        for (int j = 0; j < k; j++)
            if (path && plumb_stage_made(&p->stages[j], path)) stage->needs |= (uint64_t)1 << j;
    }
}
static plumb_status set_fingerprints(plumb_stages *p, int k) {
    plumb_stage *stage = &p->stages[k];
    plumb_str text = {0}, all = {0};
    plumb_status status = plumb_str_printf(&text, "command=%s\n", plumb_options_command_name(stage->command));
    if (status == PLUMB_OK) status = plumb_options_identity(&stage->options, stage->command, true, &text);
    for (int j = 0; j < k && status == PLUMB_OK; j++)
        if (stage->needs >> j & 1) status = plumb_str_printf(&text, "after=%s %s\n", p->stages[j].name, p->stages[j].settings);
    if (status == PLUMB_OK)
        snprintf(stage->settings, sizeof stage->settings, "%016llx", (unsigned long long)plumb_config_hash(text.data, text.length, 0));
    if (status == PLUMB_OK) status = plumb_options_write(&stage->options, stage->command, &all);
    if (status == PLUMB_OK) p->fingerprint = plumb_config_hash(all.data, all.length, p->fingerprint);
    plumb_str_free(&text);
    plumb_str_free(&all);
    return status;
}

static plumb_status bind_stage(source *s, int k) {
    plumb_stage *stage = &s->pipeline->stages[k];
    plumb_binding b = s->file;
    b.options = &stage->options, b.command = stage->command, b.commands = s->commands, b.earlier = s->pipeline;
    PLUMB_TRY(plumb_alloc(&b.places, (size_t)plumb_option_count, sizeof *b.places, "places of options"));
    plumb_status status = read_sources(s, &b, k);
    if (status == PLUMB_OK) status = set_folder(s, stage);
    if (status == PLUMB_OK) status = plumb_config_finish(&b);
    if (status == PLUMB_OK) status = plumb_config_product(stage);
    if (status == PLUMB_OK) status = check_stage(&b, s, k);
    if (status == PLUMB_OK) find_needs(&b, s->pipeline, k);
    if (status == PLUMB_OK) status = set_fingerprints(s->pipeline, k);
    free(b.places);
    return status;
}

/* --- all of it -------------------------------------------------------------------------------- */
static plumb_status load(source *s, const char *text, size_t size) {
    plumb_yaml_node root;
    plumb_stages *p = s->pipeline;
    PLUMB_TRY(plumb_config_copy(&p->path, s->file.name, strlen(s->file.name)));
    PLUMB_TRY(plumb_alloc(&p->stages, PLUMB_MAX_STAGES, sizeof *p->stages, "stages"));
    PLUMB_TRY(plumb_yaml_open(&s->yaml, &s->file, text, size, &root));
    PLUMB_TRY(outline(s, &root));
    PLUMB_TRY(sort_arguments(s));
    PLUMB_TRY(check_defaults(s));
    p->fingerprint = plumb_config_hash(p->output_dir, strlen(p->output_dir), plumb_config_hash(p->stop_after, strlen(p->stop_after), 1));
    for (int k = 0; k < p->count; k++) PLUMB_TRY(bind_stage(s, k));
    return PLUMB_OK;
}

plumb_status plumb_stages_load_text(plumb_stages *p, const char *text, size_t size, const char *name, char *const *arguments,
                                    const int *positions, int n) {
    *p = (plumb_stages){0};
    source s = {.pipeline = p, .file = {.name = name}, .arguments = arguments, .positions = positions, .n_arguments = n};
    plumb_status status = load(&s, text, size);
    plumb_yaml_close(s.yaml);
    if (status != PLUMB_OK) plumb_stages_free(p);
    return status;
}

plumb_status plumb_stages_load(plumb_stages *p, const char *path, char *const *arguments, const int *positions, int n) {
    char *text;
    size_t size;
    *p = (plumb_stages){0};
    PLUMB_TRY(plumb_read_file_max(path, PLUMB_CONFIG_FILE_MAX, &text, &size));
    plumb_status status = plumb_stages_load_text(p, text, size, path, arguments, positions, n);
    free(text);
    return status;
}

void plumb_stages_free(plumb_stages *p) {
    if (!p) return;
    for (int i = 0; p->stages && i < p->count; i++) {
        plumb_stage *s = &p->stages[i];
        plumb_options_free(&s->options);
        free(s->name), free(s->dir), free(s->product);
    }
    free(p->stages), free(p->path), free(p->output_dir), free(p->stop_after);
    *p = (plumb_stages){0};
}

plumb_status plumb_stages_find(const plumb_stages *p, const char *name, int *index) {
    const char *names[PLUMB_MAX_STAGES];
    char excerpt[EXCERPT_SIZE];
    for (int i = 0; i < p->count; i++) {
        names[i] = p->stages[i].name;
        *index = i;
        if (!strcmp(names[i], name)) return PLUMB_OK;
    }
    int nearest = plumb_nearest(name, names, p->count);
    plumb_config_excerpt(excerpt, name, strlen(name));
    return plumb_error(PLUMB_E_CONFIG, "%.400s has no stage %s; %s %s", p->path, excerpt, nearest >= 0 ? "did you mean" : "its first is",
                       names[nearest >= 0 ? nearest : 0]);
}
