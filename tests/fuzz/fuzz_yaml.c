// library: plumb_config
/* Any bytes as a configuration: an error with a message, or options that survive being written and read again, text for
 * text. The first byte picks the command; what follows the first NUL, if any, are overrides, one a line. */
#include <stdlib.h>
#include <string.h>
#include "plumb/config.h"

enum { OVERRIDES_MAX = 8 };

static void check_round_trip(const plumb_options *o, int command) {
    plumb_options again;
    plumb_str first = {0}, second = {0};
    if (plumb_options_write(o, command, &first) != PLUMB_OK) abort();
    if (plumb_options_load_text(&again, command, first.data, first.length, "written", NULL, 0) != PLUMB_OK) abort();
    if (plumb_options_write(&again, command, &second) != PLUMB_OK) abort();
    if (first.length != second.length || memcmp(first.data, second.data, first.length)) abort();
    plumb_options_free(&again);
    plumb_str_free(&first);
    plumb_str_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    int command = 1 << data[0] % 5, n = 0;
    char *text = malloc(size), *overrides[OVERRIDES_MAX];
    if (!text) return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    size_t yaml = strlen(text);
    char *rest = yaml + 1 < size ? text + yaml + 1 : NULL;
    for (char *line; n < OVERRIDES_MAX && (line = strsep(&rest, "\n"));) overrides[n++] = line;
    plumb_options o;
    plumb_status status = plumb_options_load_text(&o, command, text, yaml, "fuzz", overrides, n);
    if (status == PLUMB_OK)
        check_round_trip(&o, command);
    else if (!*plumb_error_message())
        abort();
    plumb_options_free(&o);
    free(text);
    return 0;
}
