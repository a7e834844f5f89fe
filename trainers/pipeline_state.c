/* pipeline.json: what is known of each stage, for the next start and for people.
 *
 * Written before a stage begins and after it ends, beside its name and renamed, so that a job that is killed anywhere leaves the last
 * whole state. It says which settings a stage was begun with: a result of other settings must not be taken for this one. */
#include "pipeline.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/io.h"
#include "session.h"

enum { VERSION = 1 };
static const char *const words[] = {"pending", "running", "done"};

static plumb_status state_path(const plumb_stages *p, char **path) { return plumb_path_join(path, p->output_dir, "pipeline.json"); }

/* --- reading ---------------------------------------------------------------------------------- */
static plumb_status read_stage(const char *path, size_t index, json_t *item, const plumb_stages *p, plumb_stage_state *states) {
    const char *name = json_string_value(json_object_get(item, "name")), *word = json_string_value(json_object_get(item, "state"));
    const char *settings = json_string_value(json_object_get(item, "settings"));
    /* absent: of an older version */
    json_t *code = json_object_get(item, "exit_code"), *seconds = json_object_get(item, "seconds"),
           *writes = json_object_get(item, "writes");
    int progress = 0;
    while (word && progress < 3 && strcmp(word, words[progress])) progress++;
    if (!name || !word || progress == 3 || !settings || strlen(settings) >= sizeof states->settings || !json_is_number(seconds) ||
        !(json_is_integer(code) || json_is_null(code)))
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: stage %zu is damaged: expected name, state (pending, running or done), settings, exit_code and seconds; "
                           "without the file every stage counts as not done",
                           path, index + 1);
    for (int k = 0; k < p->count; k++) {
        if (strcmp(p->stages[k].name, name)) continue;
        states[k] =
            (plumb_stage_state){.progress = progress,
                                .exit_code = json_integer_value(code),
                                .seconds = json_number_value(seconds),
                                .written = writes ? json_is_string(writes) && !strcmp(json_string_value(writes), p->stages[k].product)
                                                  : progress != PLUMB_STAGE_PENDING};
        strcpy(states[k].settings, settings);
    }
    return PLUMB_OK; /* one that the pipeline no longer has is forgotten */
}

plumb_status plumb_stages_recall(const plumb_stages *p, plumb_stage_state *states) {
    char *path = NULL;
    json_t *root = NULL, *item;
    size_t i;
    memset(states, 0, (size_t)p->count * sizeof *states);
    PLUMB_TRY(state_path(p, &path));
    plumb_status status = PLUMB_OK;
    if (!plumb_path_exists(path)) goto done;
    status = plumb_json_load(&root, path);
    if (status != PLUMB_OK) goto done;
    json_t *stages = json_object_get(root, "stages");
    if (json_integer_value(json_object_get(root, "version")) != VERSION || !json_is_array(stages))
        status = plumb_error(PLUMB_E_FORMAT, "%s: found no pipeline's state of version %d; expected the file that plumb run writes", path,
                             VERSION);
    else
        json_array_foreach(stages, i, item) {
            status = read_stage(path, i, item, p, states);
            if (status != PLUMB_OK) break;
        }
done:
    json_decref(root);
    free(path);
    return status;
}

/* --- writing ---------------------------------------------------------------------------------- */
static json_t *describe(const plumb_stage *s, const plumb_stage_state *state) {
    bool begun = state->progress != PLUMB_STAGE_PENDING, done = state->progress == PLUMB_STAGE_DONE;
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "name", s->name, "command", plumb_options_command_name(s->command),
                     "state", words[state->progress], "settings", begun ? state->settings : s->settings, "exit_code",
                     done || (begun && state->exit_code) ? json_integer((json_int_t)state->exit_code) : json_null(), "seconds",
                     json_real((double)(int64_t)(state->seconds * 1000 + 0.5) / 1000), "product",
                     done ? json_string(s->product) : json_null(), "writes", state->written ? json_string(s->product) : json_null());
}

plumb_status plumb_stages_note(const plumb_stages *p, const plumb_stage_state *states) {
    char *path = NULL, *text = NULL;
    json_t *list = json_array(), *root = NULL;
    bool whole = list;
    for (int k = 0; k < p->count && whole; k++) whole = json_array_append_new(list, describe(&p->stages[k], &states[k])) == 0;
    if (whole) root = json_pack("{s:i, s:s, s:O}", "version", VERSION, "pipeline", p->path, "stages", list);
    if (root) text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    plumb_status status =
        text ? state_path(p, &path) : plumb_error(PLUMB_E_MEMORY, "pipeline.json: out of memory, or a path that is not UTF-8");
    if (status == PLUMB_OK) status = plumb_make_dirs(p->output_dir);
    if (status == PLUMB_OK) status = plumb_write_file(path, text, strlen(text));
    json_decref(list);
    json_decref(root);
    free(text);
    free(path);
    return status;
}

/* --- beginning anew --------------------------------------------------------------------------- */
plumb_status plumb_stage_make_room(const plumb_stage *s) {
    bool done = s->command == PLUMB_FOR_BESTOFN && plumb_bestofn_is_done(s->options.output_file);
    return done ? plumb_set_aside(s->options.output_file) : PLUMB_OK;
}

plumb_status plumb_stages_reset(const plumb_stages *p, plumb_stage_state *states, int first) {
    for (int k = p->count - 1; k >= first; k--) {
        const plumb_stage *s = &p->stages[k];
        bool began = states[k].progress != PLUMB_STAGE_PENDING;
        states[k] = (plumb_stage_state){.written = states[k].written};
        if (s->command == PLUMB_FOR_BESTOFN) {
            PLUMB_TRY(plumb_bestofn_forget(s->options.output_file));
            if (began) PLUMB_TRY(plumb_stage_make_room(s));
        }
        if (!(s->command & PLUMB_FOR_TRAINING)) continue; /* results of the others are replaced as a whole */
        if (began && plumb_path_exists(s->dir)) PLUMB_TRY(plumb_set_aside(s->dir));
    }
    return plumb_stages_note(p, states);
}
