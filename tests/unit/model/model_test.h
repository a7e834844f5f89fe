/* Shared by the tests of models on disk: temporary folders, edited copies of the golden configurations. */
#ifndef MODEL_TEST_H
#define MODEL_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ftw.h>
#include <unistd.h>
#include <cmocka.h>
#include "plumb/arch.h"

#define GOLDEN PLUMB_TEST_GOLDEN

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
    snprintf(path, 4096, "%s/plumb-model-XXXXXX", base ? base : "/tmp");
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

/* "<folder>/<name>" in one of a few static buffers. */
static inline const char *in(const char *folder, const char *name) {
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, 4096, "%s/%s", folder, name);
    return path;
}

static inline const char *put(const char *folder, const char *name, const void *bytes, size_t n) {
    const char *path = in(folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    return path;
}

static inline const char *put_text(const char *folder, const char *name, const char *text) {
    return put(folder, name, text, strlen(text));
}

static inline void copy_file(const char *from, const char *folder, const char *name) {
    char *bytes;
    size_t n;
    assert_ok(plumb_read_file(from, &bytes, &n));
    put(folder, name, bytes, n);
    free(bytes);
}

/* The JSON object in `from`, changed by the members of `changes` (also an object; null removes), written to
 * <folder>/<name>. */
static inline void put_changed(const char *from, const char *changes, const char *folder, const char *name) {
    json_t *root, *change = json_loads(changes, JSON_DECODE_ANY, NULL), *value;
    const char *key;
    assert_ok(plumb_json_load(&root, from));
    assert_non_null(change);
    json_object_foreach(change, key, value) {
        if (json_is_null(value))
            json_object_del(root, key);
        else
            json_object_set(root, key, value);
    }
    char *text = json_dumps(root, JSON_INDENT(1));
    put_text(folder, name, text);
    free(text);
    json_decref(change);
    json_decref(root);
}

/* The one tensor of a safetensors file as floats; owned by the caller. */
static inline float *load_tensor(const plumb_safetensors *file, const char *name, int64_t *count) {
    const plumb_file_tensor *t = plumb_safetensors_find(file, name);
    if (!t) fail_msg("no tensor %s", name);
    *count = 1;
    for (int i = 0; i < t->n_dims; i++) *count *= t->shape[i];
    float *out = calloc((size_t)*count, sizeof *out);
    assert_ok(plumb_tensor_to_float(t, 0, *count, out));
    return out;
}
#endif
