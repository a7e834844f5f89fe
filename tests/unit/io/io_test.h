/* Shared by the tests of src/io: a temporary folder per test and files made of bytes. */
#ifndef IO_TEST_H
#define IO_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <ftw.h>
#include <unistd.h>
#include <cmocka.h>
#include "plumb/io.h"

/* The call must fail with this status and a message that contains `text`. */
#define assert_refused(call, status, text)                                                                             \
    do {                                                                                                               \
        assert_int_equal(call, status);                                                                                \
        if (!strstr(plumb_error_message(), text))                                                                      \
            fail_msg("the message \"%s\" does not mention \"%s\"", plumb_error_message(), text);                       \
    } while (0)
#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != PLUMB_OK) fail_msg("%s: %s", #call, plumb_error_message());                                      \
    } while (0)

static inline int make_folder(void **state) {
    const char *base = getenv("TMPDIR");
    char *path = malloc(4096);
    snprintf(path, 4096, "%s/plumb-io-XXXXXX", base ? base : "/tmp");
    *state = mkdtemp(path);
    return *state ? 0 : -1;
}

static inline int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info, (void)kind, (void)where;
    return remove(path);
}

static inline int remove_folder(void **state) {
    nftw(*state, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return 0;
}

static inline int count_entries(const char *folder) {
    int n = -2; /* "." and ".." */
    DIR *d = opendir(folder);
    if (!d) return -1;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* "<folder>/<name>" in one of a few static buffers. */
static inline const char *in(const char *folder, const char *name) {
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, 4096, "%s/%s", folder, name);
    return path;
}

static inline const char *put_file(const char *folder, const char *name, const void *bytes, size_t n) {
    const char *path = in(folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    return path;
}
#endif
