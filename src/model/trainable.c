/* What trains: the flat arrays of values and gradients, and the packed copies that products read.
 *
 *   flat  | layer 0 q: A, B | layer 0 k: A, B | … | norm gain trained in full | …      in the order of the parameter table
 *
 * then the policy's scalar head, the value model's adapter and its head. Adapters and heads: adapters.c. */
#include "model_internal.h"
#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool matches(const char *name, char *const *patterns, int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(patterns[i], "all") || !fnmatch(patterns[i], name, 0)) return true;
    return false;
}

static plumb_status check_patterns(const plumb_params *p, char *const *patterns, int count) {
    for (int i = 0; i < count; i++) {
        bool any = false;
        for (int j = 0; j < p->count && !any; j++) any = matches(p->items[j].name, &patterns[i], 1);
        if (!any)
            return plumb_error(PLUMB_E_CONFIG, "train_modules: '%s' matches no parameter; names look like '%s' and patterns like '*norm*'",
                               patterns[i], p->items[1].name);
    }
    return PLUMB_OK;
}

static void add(plumb_model *m, int param, plumb_part part, plumb_view view, int64_t rows, int64_t cols) {
    const plumb_param *p = param >= 0 ? &m->params.items[param] : NULL;
    int32_t units = (int32_t)m->arch.layers + 2, unit = units - 1;
    if (p && p->layer >= 0) unit = p->layer + 1;
    else if (p && p->role == PLUMB_ROLE_EMBED) unit = 0;
    m->trainables[m->n_trainables++] = (plumb_trainable){param, part, view, m->n_flat, rows, cols,
                                                         view == PLUMB_VIEW_VALUE ? units + unit : unit,
                                                         part != PLUMB_PART_FULL || p->decay};
    m->n_flat += rows * cols;
}
/* A view's adapter of one parameter, and at the end its head. */
static void add_lora(plumb_model *m, plumb_view view, int param) {
    const adapter_slot *slot = &m->adapters[view];
    const plumb_param *p = &m->params.items[param];
    if (!slot->present || !slot->trains || !slot->chosen[param]) return;
    add(m, param, PLUMB_PART_LORA_A, view, slot->r, p->cols);
    add(m, param, PLUMB_PART_LORA_B, view, p->rows, slot->r);
}

/* The policy's parameters and head, then the value model's. */
plumb_status plumb_model_plan_trainables(plumb_model *m, const plumb_model_options *o, bool *full) {
    PLUMB_TRY(check_patterns(&m->params, o->train_modules, o->n_train_modules));
    PLUMB_TRY(plumb_model_plan_adapters(m, o));
    PLUMB_TRY(plumb_alloc(&m->trainables, (size_t)(5 * m->params.count + 2), sizeof *m->trainables, "the trainable parameters"));
    for (int i = 0; i < m->params.count; i++) {
        const plumb_param *p = &m->params.items[i];
        full[i] = matches(p->name, o->train_modules, o->n_train_modules);
        if (full[i]) {
            m->trains_full = true;
            add(m, i, PLUMB_PART_FULL, PLUMB_VIEW_POLICY, p->rows, p->cols);
        }
        add_lora(m, PLUMB_VIEW_POLICY, i);
    }
    if (plumb_model_plans_head(m, o) && !o->freeze_adapter) add(m, -1, PLUMB_PART_SCORE, PLUMB_VIEW_POLICY, 1, m->arch.hidden);
    for (int i = 0; i < m->params.count; i++) add_lora(m, PLUMB_VIEW_VALUE, i);
    if (m->adapters[PLUMB_VIEW_VALUE].present) add(m, -1, PLUMB_PART_SCORE, PLUMB_VIEW_VALUE, 1, m->arch.hidden);
    /* they stand on the base as it was */
    if (m->trains_full && (m->judges || m->adapters[PLUMB_VIEW_VALUE].present)) m->wants_reference = true;
    return PLUMB_OK;
}
int plumb_model_units(const plumb_model *m) { return (int)(m->arch.layers + 2) * (m->adapters[PLUMB_VIEW_VALUE].present ? 2 : 1); }

static plumb_tensor view_of(plumb_buffer *b, const plumb_trainable *t) { return plumb_tensor_of(b, t->offset, t->rows, t->cols); }

/* Full parameters: their values in the flat array come from the source. */
plumb_status plumb_model_attach_trainables(plumb_model *m, const plumb_source *s) {
    if (!m->n_flat) return PLUMB_OK;
    PLUMB_TRY(m->be->ops->buffer_create(m->be, m->n_flat, "trainable values", &m->flat_values));
    PLUMB_TRY(m->be->ops->buffer_create(m->be, m->n_flat, "gradients", &m->flat_grads));
    for (int i = 0; i < m->n_trainables; i++) {
        const plumb_trainable *t = &m->trainables[i];
        if (t->part != PLUMB_PART_FULL) continue;
        value *v = &m->values[t->param];
        v->grad = view_of(m->flat_grads, t);
        v->flat = view_of(m->flat_values, t);
        if (v->vector_base.buffer) v->vector_trained = v->flat;
        float *rows;
        PLUMB_TRY(plumb_alloc(&rows, (size_t)(t->rows * t->cols), sizeof *rows, "a parameter"));
        plumb_status status = plumb_source_read(s, t->param, 0, t->rows, rows);
        if (status == PLUMB_OK) PLUMB_RUN(m->be, write, v->flat, rows);
        free(rows);
        PLUMB_TRY(status);
    }
    return PLUMB_OK;
}

void plumb_model_refresh(plumb_model *m) {
    for (int i = 0; i < m->n_trainables; i++) {
        const plumb_trainable *t = &m->trainables[i];
        if (t->part == PLUMB_PART_FULL) {
            if (m->values[t->param].trained) PLUMB_RUN(m->be, weight_from, m->values[t->param].trained, view_of(m->flat_values, t));
        } else if (t->part != PLUMB_PART_SCORE) {
            plumb_model_refresh_lora(m, t);
        }
    }
}

int64_t plumb_model_trainable_count(const plumb_model *m) { return m->n_flat; }
const plumb_trainable *plumb_model_trainables(const plumb_model *m, int *count) {
    *count = m->n_trainables;
    return m->trainables;
}
void plumb_model_values_read(plumb_model *m, int64_t first, int64_t count, float *out) {
    if (count) PLUMB_RUN(m->be, read, plumb_tensor_of(m->flat_values, first, 1, count), out);
}
void plumb_model_values_write(plumb_model *m, int64_t first, int64_t count, const float *in) {
    if (count) PLUMB_RUN(m->be, write, plumb_tensor_of(m->flat_values, first, 1, count), in);
}
void plumb_model_grads_read(plumb_model *m, int64_t first, int64_t count, float *out) {
    if (count) PLUMB_RUN(m->be, read, plumb_tensor_of(m->flat_grads, first, 1, count), out);
}
void plumb_model_grads_zero(plumb_model *m) {
    if (m->n_flat) PLUMB_RUN(m->be, zero, plumb_tensor_of(m->flat_grads, 0, 1, m->n_flat));
}

/* --- present values --------------------------------------------------------------------------- */
static const plumb_trainable *find_full(const plumb_model *m, int param) {
    for (int i = 0; i < m->n_trainables; i++)
        if (m->trainables[i].param == param && m->trainables[i].part == PLUMB_PART_FULL) return &m->trainables[i];
    return NULL;
}

plumb_status plumb_model_param(plumb_model *m, const plumb_source *s, int param, const plumb_adapter *merge, plumb_file_type type,
                               float *out) {
    const plumb_trainable *full = find_full(m, param);
    if (full) plumb_model_values_read(m, full->offset, full->rows * full->cols, out);
    else PLUMB_TRY(plumb_source_read(s, param, 0, m->params.items[param].rows, out));
    return merge ? plumb_adapter_merge(merge, &m->params, param, type, out) : PLUMB_OK;
}
