// library: plumb_config
/* Any bytes as a pipeline's file: an error with a message, or stages that are complete. What follows the first NUL, if any, are
 * arguments, one a line. */
#include <stdlib.h>
#include <string.h>
#include "plumb/pipeline.h"

enum { ARGUMENTS_MAX = 8 };

static void check(const plumb_stages *p) {
    if (p->count < 1 || p->count > PLUMB_MAX_STAGES || !p->output_dir || !p->stop_after) abort();
    for (int k = 0; k < p->count; k++) {
        const plumb_stage *s = &p->stages[k];
        int found;
        if (!s->options.model || !s->dir || !s->product || strlen(s->settings) != 16 || s->needs >> k || !(s->command & PLUMB_FOR_STAGES))
            abort();
        if (plumb_stages_find(p, s->name, &found) != PLUMB_OK || found != k) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int n = 0;
    char *text = malloc(size + 1), *arguments[ARGUMENTS_MAX];
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    size_t yaml = strlen(text);
    char *rest = yaml + 1 < size ? text + yaml + 1 : NULL;
    for (char *line; n < ARGUMENTS_MAX && (line = strsep(&rest, "\n"));) arguments[n++] = line;
    plumb_stages p;
    if (plumb_stages_load_text(&p, text, yaml, "fuzz", arguments, NULL, n) == PLUMB_OK) check(&p);
    else if (!*plumb_error_message()) abort();
    plumb_stages_free(&p);
    free(text);
    return 0;
}
