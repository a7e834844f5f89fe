/* The per-thread error message. Fixed size: reporting an error must not allocate. */
#include "plumb/status.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_SIZE = 1024 };
static _Thread_local char message[MESSAGE_SIZE];
void (*plumb_bug_abort)(void) = abort;

const char *plumb_status_text(plumb_status s) {
    static const char *const texts[] = {
#define X(code, text) text,
        PLUMB_STATUS_LIST(X)
#undef X
    };
    return (unsigned)s < sizeof texts / sizeof *texts ? texts[s] : "unknown status";
}

plumb_status plumb_error(plumb_status code, const char *format, ...) {
    char text[MESSAGE_SIZE]; /* the arguments may point into the old message */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(message, text, sizeof message);
    return code;
}

plumb_status plumb_error_prefix(plumb_status code, const char *format, ...) {
    char text[MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n >= 0 && n + 2 < MESSAGE_SIZE) {
        memcpy(text + n, ": ", 2);
        size_t room = sizeof text - (size_t)n - 3, rest = strlen(message);
        if (rest > room) rest = room;
        memcpy(text + n + 2, message, rest);
        text[(size_t)n + 2 + rest] = 0;
    }
    memcpy(message, text, sizeof message);
    return code;
}

const char *plumb_error_message(void) { return message; }

void plumb_bug(const char *file, int line, const char *format, ...) {
    char text[MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "plumb: bug at %s:%d: %s\n", file, line, text);
    plumb_bug_abort();
    abort();
}
