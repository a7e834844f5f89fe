/* What the tests of src/log share: a folder of their own, and files. */
#ifndef LOG_TEST_H
#define LOG_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "plumb/io.h"
#include "plumb/log.h"

#define assert_ok(expression)                                                                                          \
    do {                                                                                                               \
        plumb_status status_ = (expression);                                                                           \
        if (status_ != PLUMB_OK) fail_msg("%s: %s", #expression, plumb_error_message());                               \
    } while (0)

static inline char *read_text(const char *path) { /* to be freed */
    char *text;
    assert_ok(plumb_read_file(path, &text, NULL));
    return text;
}

static inline void assert_text(const char *path, const char *expected) {
    char *text = read_text(path);
    assert_string_equal(text, expected);
    free(text);
}
#endif
