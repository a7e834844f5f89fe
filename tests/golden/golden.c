/* golden DIR [cpu|ref] [isa|auto] [models|gguf|losses|curves|real]: runs every case of the directory. See golden.h. */
#include "golden.h"
#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void golden_result(golden *g, double error, double tolerance, const char *name, ...) {
    bool good = error <= tolerance;
    *(good ? &g->passed : &g->failed) += 1;
    printf("%s ", good ? "pass" : "fail");
    va_list arguments;
    va_start(arguments, name);
    vprintf(name, arguments);
    va_end(arguments);
    printf(" %.2e %.0e\n", error, tolerance);
    fflush(stdout);
}
void golden_failed(golden *g, plumb_status s, const char *name, ...) {
    bool unsupported = s == PLUMB_E_UNSUPPORTED;
    *(unsupported ? &g->unsupported : &g->failed) += 1;
    printf("%s ", unsupported ? "unsupported" : "fail");
    va_list arguments;
    va_start(arguments, name);
    vprintf(name, arguments);
    va_end(arguments);
    printf(" (%s)\n", plumb_error_message());
    fflush(stdout);
}
char *golden_path(const golden *g, const char *format, ...) {
    char part[512], *out;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(part, sizeof part, format, arguments);
    va_end(arguments);
    if (asprintf(&out, "%s/%s", g->dir, part) < 0) return NULL;
    if (plumb_path_exists(out)) return out;
    free(out);
    return NULL;
}
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
char **golden_names(const golden *g, const char *sub, const char *suffix) {
    char path[1024], **names = calloc(1024, sizeof *names);
    size_t n = 0, tail = strlen(suffix);
    snprintf(path, sizeof path, "%s/%s", g->dir, sub);
    DIR *d = opendir(path);
    for (struct dirent *e; d && n < 1000 && (e = readdir(d));) {
        size_t length = strlen(e->d_name);
        if (e->d_name[0] != '.' && length > tail && !strcmp(e->d_name + length - tail, suffix))
            names[n++] = strndup(e->d_name, length - tail);
    }
    if (d) closedir(d);
    qsort(names, n, sizeof *names, by_name);
    return names;
}
void golden_names_free(char **names) {
    for (char **n = names; *n; n++) free(*n);
    free(names);
}
double golden_difference(const float *a, const float *b, int64_t n) {
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d;
        largest = fmax(largest, fabs((double)b[i]));
    }
    return largest > 0 ? worst / largest : worst;
}
plumb_backend *golden_backend(const golden *g) {
    plumb_backend *be;
    const char *note = NULL;
    if (plumb_backend_create(&be, &(plumb_backend_options){.backend = g->backend, .isa = g->isa, .precision = "fp32", .threads = 1},
                             &note) != PLUMB_OK) {
        fprintf(stderr, "golden: %s\n", plumb_error_message());
        exit(1);
    }
    return be;
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: golden DIR [cpu|ref] [isa|auto] [group]\n"), 2;
    golden g = {.dir = argv[1], .backend = argc > 2 ? argv[2] : "cpu", .isa = argc > 3 && strcmp(argv[3], "auto") ? argv[3] : NULL};
    if (plumb_comm_init(&argc, &argv) != PLUMB_OK) return fprintf(stderr, "golden: %s\n", plumb_error_message()), 1;
    static const struct {
        const char *name;
        void (*run)(golden *g);
    } groups[] = {{"models", golden_models},
                  {"gguf", golden_gguf},
                  {"losses", golden_losses},
                  {"curves", golden_curves},
                  {"real", golden_real}};
    const char *only = argc > 4 ? argv[4] : NULL;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if (!only || !strcmp(only, groups[i].name)) groups[i].run(&g);
    bool root = plumb_comm_rank(PLUMB_AXIS_WORLD) == 0;
    plumb_comm_finalize();
    if (root) printf("%d passed, %d failed, %d skipped\n", g.passed, g.failed, g.unsupported);
    return g.failed ? 1 : 0;
}
