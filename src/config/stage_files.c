/* What the stages of a pipeline read and write, checked before anything runs: that no result takes the place of a file that somebody
 * else wrote, and that a stage can read the records that an earlier one writes for it.
 *
 *     stage      reads            writes
 *     1 sft      chats.jsonl      o/sft/adapter
 *     2 bestofn  prompts.jsonl    best.jsonl        refused: chats.jsonl, prompts.jsonl (read before it is written, so the user's),
 *                                                   and what stage 1 writes
 *     3 dpo      best.jsonl       o/dpo/adapter     as it should be: written before it is read. If best.jsonl is there before stage 2
 *                                                   has ever begun, the user's again
 */
#include "config_internal.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "plumb/io.h"
#include "plumb/pipeline.h"

/* --- paths ------------------------------------------------------------------------------------ */
enum { PLAIN_BYTES = 4 * PLUMB_PATH_BYTES }; /* of a folder, and of a path in it with a stage's folder before and behind */
/* The same place from the root, without empty parts, "." and ".."; links are not followed. "" is the root. */
static void plain_path(char to[PLAIN_BYTES], const char *path) {
    size_t n = 0;
    if (*path != '/' && getcwd(to, PLUMB_PATH_BYTES) && strcmp(to, "/") != 0) n = strlen(to);
    for (size_t part; *path; path += part) {
        path += strspn(path, "/"), part = strcspn(path, "/");
        if (part == 0 || (part == 1 && *path == '.') || n + part + 2 > PLAIN_BYTES) continue;
        if (part == 2 && !strncmp(path, "..", 2)) {
            while (n && to[--n] != '/') {}
        } else {
            to[n++] = '/', memcpy(to + n, path, part), n += part;
        }
    }
    to[n] = 0;
}
bool plumb_config_lies_in(const char *path, const char *place) {
    char outer[PLAIN_BYTES], inner[PLAIN_BYTES];
    plain_path(outer, place), plain_path(inner, path);
    size_t n = strlen(outer);
    return !strncmp(outer, inner, n) && (inner[n] == 0 || inner[n] == '/');
}
bool plumb_config_same_text(const char *a, const char *b) { return plumb_config_lies_in(a, b) && plumb_config_lies_in(b, a); }
static bool is_same(const char *a, const char *b) { return plumb_config_same_text(a, b) || plumb_same_path(a, b); }

const char *plumb_config_input(const plumb_stage *s, const plumb_option *row) {
    bool path = row->type == PLUMB_OPT_STRING && row->high == PLUMB_PATH_BYTES && (row->commands & s->command);
    if (!path || !strcmp(row->key, "output_dir") || !strcmp(row->key, "output_file") || !strcmp(row->key, "resume")) return NULL;
    const char *value = *(char *const *)(const void *)((const char *)&s->options + row->offset);
    bool word = !strcmp(row->key, "value_model") && (!strcmp(value, "adapter") || !strcmp(value, "trunk"));
    return word ? NULL : value;
}
/* Does a stage leave its result, or PPO's value model, under this path? */
static bool writes(const plumb_stage *s, const char *path) {
    if (is_same(path, s->product)) return true;
    for (int i = 0; i < 2 && s->command == PLUMB_FOR_PPO; i++) {
        char value[PLUMB_PATH_BYTES + 16];
        snprintf(value, sizeof value, "%s/%s", s->dir, i ? "value_model" : "value");
        if (is_same(path, value)) return true;
    }
    return false;
}
/* What a stage reads of that which another writes, and by which key; NULL: nothing. */
static const char *reads_from(const plumb_stage *reader, const plumb_stage *writer, const char **key) {
    for (int i = 0; i < plumb_option_count; i++) {
        const char *path = plumb_config_input(reader, &plumb_option_table[i]);
        *key = plumb_option_table[i].key;
        if (path && writes(writer, path)) return path;
    }
    return NULL;
}
static const char *output_key(const plumb_stage *s) { return s->command & PLUMB_FOR_FILE ? "output_file" : "output_dir"; }
static plumb_place place_of(const plumb_binding *b, const plumb_stage *s, const char *key) {
    plumb_place at = plumb_config_place(b, key);
    return at.line || at.argument ? at : (plumb_place){.line = s->line, .column = s->column};
}

/* One is the other, or lies in it. */
static bool are_nested(const char *a, const char *b) {
    return plumb_config_lies_in(a, b) || plumb_config_lies_in(b, a) || plumb_same_path(a, b);
}
static plumb_status check_writers(const plumb_binding *b, const plumb_stages *p, int k) {
    const plumb_stage *s = &p->stages[k];
    bool file = s->command & PLUMB_FOR_FILE;
    for (int j = 0; j < k; j++) {
        const plumb_stage *other = &p->stages[j];
        if (!are_nested(s->product, other->product) && (file || !is_same(s->dir, other->dir))) continue;
        return plumb_config_fault(b, (plumb_place){.line = s->line, .column = s->column}, output_key(s),
                                  "stage %s writes to %s, where stage %s does; expected a %s of its own", s->name,
                                  file ? s->product : s->dir, other->name, file ? "file" : "folder");
    }
    return PLUMB_OK;
}
/* What is read before it is written was there before. */
static plumb_status check_readers(const plumb_binding *b, const plumb_stages *p, int k) {
    const plumb_stage *s = &p->stages[k];
    for (int j = 0; j <= k; j++) {
        const char *key, *path = reads_from(&p->stages[j], s, &key);
        if (!path) continue;
        return plumb_config_fault(b, place_of(b, s, output_key(s)), output_key(s),
                                  "stage %s would write over %s, which stage %s (line %d) reads before as %s; expected a %s that no stage "
                                  "has read by then",
                                  s->name, path, p->stages[j].name, p->stages[j].line, key,
                                  s->command & PLUMB_FOR_FILE ? "file" : "folder");
    }
    return PLUMB_OK;
}
plumb_status plumb_stages_check_inputs(const plumb_stages *p, uint64_t chosen) {
    for (int k = 0; k < p->count; k++)
        for (int i = 0; (chosen >> k & 1) && i < plumb_option_count; i++) {
            const plumb_stage *s = &p->stages[k];
            const char *path = plumb_config_input(s, &plumb_option_table[i]);
            if (!path || !*path || plumb_path_exists(path)) continue;
            bool made = false;
            for (int j = 0; j < k; j++) made |= writes(&p->stages[j], path);
            if (!made)
                return plumb_error(PLUMB_E_CONFIG, "%s:%d: stage %s: %s: %s: no such file or folder, and no stage before it makes it",
                                   p->path, s->line, s->name, plumb_option_table[i].key, path);
        }
    return PLUMB_OK;
}
plumb_status plumb_stages_check_there(const plumb_stages *p, uint64_t begun) {
    for (int k = 0; k < p->count; k++) {
        const plumb_stage *s = &p->stages[k];
        if ((begun >> k & 1) || !plumb_path_exists(s->product)) continue;
        for (int j = k + 1; j < p->count; j++) {
            const plumb_stage *reader = &p->stages[j];
            const char *key, *path = reader->refers >> k & 1 ? NULL : reads_from(reader, s, &key);
            if (path)
                return plumb_error(PLUMB_E_CONFIG,
                                   "%.300s:%d:%d: %s: stage %s, which has not begun yet, would write over %.300s, which is there and which "
                                   "stage %s (line %d) reads as %s; expected another %s, or "
                                   "${%s.…} in stage %s where what %s makes is meant",
                                   p->path, s->line, s->column, output_key(s), s->name, path, reader->name, reader->line, key,
                                   s->command & PLUMB_FOR_FILE ? "file" : "folder", s->name, reader->name, s->name);
        }
    }
    return PLUMB_OK;
}

/* --- records of best-of-n --------------------------------------------------------------------- */
static bool writes_pairs(const plumb_stage *best) { return !strcmp(best->options.output_format, "preference"); }
static bool has(const plumb_stage *best, const char *field) {
    return !strcmp(field, "prompt") ||
           (writes_pairs(best) ? !strcmp(field, "chosen") || !strcmp(field, "rejected") : !strcmp(field, "completion"));
}
static bool has_pair(const plumb_stage *best, const plumb_options *o) { return has(best, o->field_chosen) && has(best, o->field_rejected); }
static bool has_answer(const plumb_stage *best, const plumb_options *o) {
    return (has(best, o->field_prompt) && has(best, o->field_completion)) ||
           (has(best, o->field_instruction) && has(best, o->field_output)) || has(best, o->field_text);
}
static bool can_read(const plumb_stage *s, const plumb_stage *best) {
    const plumb_options *o = &s->options;
    if (s->command & (PLUMB_FOR_DPO | PLUMB_FOR_REWARD)) return has_pair(best, o);
    if (s->command & (PLUMB_FOR_EVAL | PLUMB_FOR_SCORE)) return has_pair(best, o) || has_answer(best, o);
    if (s->command & PLUMB_FOR_SFT) return has_answer(best, o);
    return has(best, o->field_prompt) || has(best, o->field_instruction) || has_pair(best, o);
}
/* What would be right, for a stage that cannot read the records. */
static const char *remedy(const plumb_stage *s, const plumb_stage *best) {
    bool pairs = s->command & (PLUMB_FOR_DPO | PLUMB_FOR_REWARD), answers = s->command & PLUMB_FOR_SFT;
    if (pairs && !writes_pairs(best)) return "pairs, as output_format: preference in that stage makes them";
    if (answers && writes_pairs(best))
        return "a completion, as output_format: sft in that stage gives it (or field_completion: chosen here)";
    return "field_ settings that name these";
}
static plumb_status check_records(const plumb_binding *b, const plumb_stages *p, int k) {
    static const char *const keys[] = {"train_file", "eval_file", "input_file"};
    const plumb_stage *s = &p->stages[k];
    const char *const files[] = {s->options.train_file, s->options.eval_file, s->options.input_file};
    for (int j = 0; j < k; j++) {
        const plumb_stage *best = &p->stages[j];
        for (int i = 0; i < 3 && best->command == PLUMB_FOR_BESTOFN; i++)
            if (files[i] && plumb_config_same_text(files[i], best->product) && !can_read(s, best))
                return plumb_config_fault(b, place_of(b, s, keys[i]), keys[i],
                                          "stage %s (plumb %s) cannot read what stage %s (line %d) writes with output_format: %s, %s; "
                                          "expected %s",
                                          s->name, plumb_options_command_name(s->command), best->name, best->line,
                                          best->options.output_format,
                                          writes_pairs(best) ? "records of prompt, chosen and rejected"
                                                             : "records of prompt and completion",
                                          remedy(s, best));
    }
    return PLUMB_OK;
}

plumb_status plumb_config_check_stage_files(const plumb_binding *b, const plumb_stages *p, int k) {
    PLUMB_TRY(check_writers(b, p, k));
    PLUMB_TRY(check_readers(b, p, k));
    return check_records(b, p, k);
}
