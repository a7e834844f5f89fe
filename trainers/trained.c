/* What a run trains, as one flat array: the policy's trainables, then those of a value model of its own.
 *
 *   flat    | policy: layer 0 q: A, B | … | value model: layer 0 q: A, B | … | its head |
 *   units   | 0 … policy's - 1              | policy's … both - 1                         |
 *
 * The optimizer's shards, the norm of the gradient and checkpoints see this array alone, so that they need not know of how many models
 * it is made. A value adapter on the policy's base has the same places in it as a value model of its own with that
 * base: the two give the same bits. */
#include "session.h"
#include <stdlib.h>

enum { MODELS = 2 };
static int models_of(const plumb_session *s, plumb_model *models[MODELS]) {
    models[0] = s->model, models[1] = s->value_model;
    return s->value_model ? 2 : 1;
}
typedef void (*span)(plumb_model *m, int64_t count, float *values);
static void for_each(plumb_session *s, span work, float *values) {
    plumb_model *models[MODELS];
    int n = models_of(s, models);
    for (int i = 0; i < n; i++) {
        int64_t count = plumb_model_trainable_count(models[i]);
        work(models[i], count, values);
        if (values) values += count;
    }
}

int64_t plumb_trained_count(const plumb_session *s) {
    return plumb_model_trainable_count(s->model) + (s->value_model ? plumb_model_trainable_count(s->value_model) : 0);
}
int plumb_trained_units(const plumb_session *s) {
    return plumb_model_units(s->model) + (s->value_model ? plumb_model_units(s->value_model) : 0);
}

plumb_status plumb_trained_parts(const plumb_session *s, plumb_zero_part **parts, int *n_parts) {
    plumb_model *models[MODELS];
    const plumb_trainable *t[MODELS];
    int n = models_of(s, models), counts[MODELS];
    *n_parts = 0;
    for (int i = 0; i < n; i++) t[i] = plumb_model_trainables(models[i], &counts[i]), *n_parts += counts[i];
    PLUMB_TRY(plumb_alloc(parts, (size_t)*n_parts, sizeof **parts, "the optimizer"));
    plumb_zero_part *part = *parts;
    int64_t offset = 0;
    for (int i = 0, units = 0; i < n; i++) {
        for (int k = 0; k < counts[i]; k++)
            *part++ = (plumb_zero_part){offset + t[i][k].offset, t[i][k].rows * t[i][k].cols, units + t[i][k].unit, t[i][k].decay};
        offset += plumb_model_trainable_count(models[i]), units += plumb_model_units(models[i]);
    }
    return PLUMB_OK;
}

static void read_values(plumb_model *m, int64_t n, float *out) { plumb_model_values_read(m, 0, n, out); }
static void write_values(plumb_model *m, int64_t n, float *in) {
    plumb_model_values_write(m, 0, n, in);
    plumb_model_refresh(m);
}
static void read_grads(plumb_model *m, int64_t n, float *out) { plumb_model_grads_read(m, 0, n, out); }
static void clear_grads(plumb_model *m, int64_t n, float *none) {
    (void)n, (void)none;
    plumb_model_grads_zero(m);
}
void plumb_trained_read(plumb_session *s) { for_each(s, read_values, s->gradient); }
void plumb_trained_write(plumb_session *s) { for_each(s, write_values, s->gradient); }
void plumb_trained_gradient(plumb_session *s) { for_each(s, read_grads, s->gradient); }
void plumb_trained_clear_gradient(plumb_session *s) { for_each(s, clear_grads, NULL); }
