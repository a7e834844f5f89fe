/* What the tests of src/config share. */
#ifndef CONFIG_TEST_H
#define CONFIG_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/config.h"

#define assert_ok(expression)                                                                                          \
    do {                                                                                                               \
        plumb_status status_ = (expression);                                                                           \
        if (status_ != PLUMB_OK) fail_msg("%s: %s", #expression, plumb_error_message());                               \
    } while (0)

static inline void assert_message(plumb_status status, plumb_status code, const char *text) {
    if (status == code && strstr(plumb_error_message(), text)) return;
    fail_msg("expected status %d with '%s', got %d with '%s'", code, text, status, status ? plumb_error_message() : "");
}

static inline plumb_status load_yaml(plumb_options *o, int command, const char *text) {
    return plumb_options_load_text(o, command, text, strlen(text), "c.yaml", NULL, 0);
}

/* The text is refused with the message, and nothing is left in *o. */
static inline void assert_yaml_refused(int command, const char *text, const char *message) {
    plumb_options o;
    static const plumb_options empty;
    assert_message(load_yaml(&o, command, text), PLUMB_E_CONFIG, message);
    assert_memory_equal(&o, &empty, sizeof o);
}
#endif
