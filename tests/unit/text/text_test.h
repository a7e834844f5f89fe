/* What the text tests share: cmocka, checks that print the error message, a scratch directory. */
#ifndef TEXT_TEST_H
#define TEXT_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "plumb/text.h"

#define DATA PLUMB_TEST_DATA "/text/"

static inline void assert_ok(plumb_status status) {
    if (status != PLUMB_OK) fail_msg("%s: %s", plumb_status_text(status), plumb_error_message());
}

/* The call failed as `code`, with `part` in its message. */
static inline void assert_error(plumb_status status, plumb_status code, const char *part) {
    if (status != code) fail_msg("status %d instead of %d: %s", status, code, status ? plumb_error_message() : "ok");
    if (!strstr(plumb_error_message(), part)) fail_msg("no \"%s\" in: %s", part, plumb_error_message());
}

/* A new directory below TMPDIR; the caller frees the name. */
static inline char *scratch_directory(void) {
    const char *base = getenv("TMPDIR");
    char name[512];
    snprintf(name, sizeof name, "%s/plumb-text-XXXXXX", base && *base ? base : "/tmp");
    assert_non_null(mkdtemp(name));
    return strdup(name);
}

static inline void remove_directory(char *dir) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    free(dir);
}

static inline plumb_tokenizer *load(const char *path) {
    plumb_tokenizer *t = NULL;
    assert_ok(plumb_tokenizer_load(&t, path));
    return t;
}

static inline plumb_ids encode(const plumb_tokenizer *t, const char *text, bool special) {
    plumb_ids ids = {0};
    assert_ok(plumb_tokenize(t, text, strlen(text), special, &ids));
    return ids;
}

static inline void assert_ids(const plumb_ids *ids, const int32_t *expected, size_t count, const char *what) {
    bool same = ids->count == count && (!count || !memcmp(ids->data, expected, count * sizeof *expected));
    for (size_t i = 0; !same && i < ids->count && i < count; i++)
        if (ids->data[i] != expected[i]) fail_msg("%s: id %zu is %d, %d expected", what, i, ids->data[i], expected[i]);
    if (!same) fail_msg("%s: %zu ids, %zu expected", what, ids->count, count);
}
#endif
