/* Shared by the tests of src/rollout that write files: a temporary folder for each test, and calls that must succeed or be refused. */
#ifndef ROLLOUT_TEST_H
#define ROLLOUT_TEST_H
#include "../io/io_test.h"

/* Everything in a folder, sorted, joined by spaces. */
static inline const char *listing(const char *folder) {
    static char text[4096];
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, alphasort);
    text[0] = 0;
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            if (text[0]) strcat(text, " ");
            strcat(text, entries[i]->d_name);
        }
        free(entries[i]);
    }
    free(entries);
    return text;
}

/* Flips a bit of a file. */
static inline void flip(const char *path, long at) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
    int c = fgetc(f);
    fseek(f, -1, SEEK_CUR);
    fputc(c ^ 4, f);
    assert_int_equal(fclose(f), 0);
}
#endif
