/* The golden runner: compares plumb with values that transformers, PEFT and TRL computed (see README.md beside the values).
 * One line per case - pass|fail|unsupported NAME largest-error tolerance - and the counts at the end. */
#ifndef GOLDEN_H
#define GOLDEN_H
#include <jansson.h>
#include "plumb/model.h"

typedef struct golden {
    const char *dir;        /* laid out like tests/golden */
    const char *backend, *isa;
    int passed, failed, unsupported;
} golden;

/* error <= tolerance passes; NaN fails. */
void golden_result(golden *g, double error, double tolerance, const char *name, ...) __attribute__((format(printf, 4, 5)));
/* PLUMB_E_UNSUPPORTED counts as unsupported */
void golden_failed(golden *g, plumb_status s, const char *name, ...) __attribute__((format(printf, 3, 4)));
/* "<dir>/…"; owned by the caller; NULL when absent */
char *golden_path(const golden *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Names of entries of <dir>/<sub> in order, without `suffix`; NULL-terminated; owned by the caller with golden_names_free. */
char **golden_names(const golden *g, const char *sub, const char *suffix);
void golden_names_free(char **names);
plumb_backend *golden_backend(const golden *g);
/* |a - b| over the largest |b|. */
double golden_difference(const float *a, const float *b, int64_t n);

/* One case of losses/sampling.json. */
plumb_status golden_sampling(const json_t *c, double *worst) PLUMB_CHECKED;

void golden_models(golden *g);
void golden_gguf(golden *g);
void golden_losses(golden *g);
void golden_curves(golden *g);
void golden_real(golden *g);
#endif
