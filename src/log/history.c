/* metrics.jsonl of an earlier part of the run.
 *
 * A run that was killed at step 57 and goes on from the checkpoint of step 50 has lines 51 to 57 that will be written
 * again: they go, and so does a last line without an end. The file is written anew beside the old one and renamed, so
 * that a crash here loses nothing. A whole line that is no metric of ours (somebody's note) stays. */
#include "log_internal.h"
#include <stdlib.h>
#include <string.h>
#include "plumb/io.h"

/* Step of a line, -1 when it has none. */
static plumb_status step_of(const char *line, size_t length, const char *path, int64_t *number) {
    json_t *object;
    *number = -1;
    plumb_status status = plumb_json_parse(&object, line, length, path, 1);
    if (status != PLUMB_OK) return status == PLUMB_E_MEMORY ? status : PLUMB_OK;
    json_t *step = json_object_get(object, "step"); /* NULL when it is no object */
    if (json_is_integer(step)) *number = json_integer_value(step);
    json_decref(object);
    return PLUMB_OK;
}

static plumb_status select_lines(plumb_str *kept, const char *text, size_t size, int64_t resume_step,
                                 const char *path) {
    for (size_t i = 0; i < size && resume_step > 0;) {
        int64_t step;
        const char *end = memchr(text + i, '\n', size - i);
        if (!end) break; /* cut off in the middle */
        size_t length = (size_t)(end - (text + i)) + 1;
        PLUMB_TRY(step_of(text + i, length - 1, path, &step));
        if (step <= resume_step) PLUMB_TRY(plumb_str_append(kept, text + i, length));
        i += length;
    }
    return PLUMB_OK;
}

plumb_status plumb_log_trim_history(const char *path, int64_t resume_step) {
    char *text;
    size_t size;
    plumb_str kept = {0};
    if (!plumb_path_exists(path)) return PLUMB_OK;
    PLUMB_TRY(plumb_read_file(path, &text, &size));
    plumb_status status = select_lines(&kept, text, size, resume_step, path);
    if (status == PLUMB_OK && kept.length != size)
        status = plumb_write_file(path, kept.data ? kept.data : "", kept.length);
    free(text);
    plumb_str_free(&kept);
    return status;
}
