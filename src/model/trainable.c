/* What trains: the flat arrays of values and gradients, and the packed copies that products read.
 *
 *   flat  | layer 0 q: A, B | layer 0 k: A, B | … | norm gain trained in full | …      in the order of the parameter table
 *
 * Adapter 0 is the policy's; adapter 1, where there is one, is the frozen copy of what it was when training began. */
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
            return plumb_error(PLUMB_E_CONFIG, "train_modules: '%s' matches no parameter; names look like '%s' and patterns like '*norm*'", patterns[i], p->items[1].name);
    }
    return PLUMB_OK;
}

static void add(plumb_model *m, int param, plumb_part part, int64_t rows, int64_t cols) {
    const plumb_param *p = &m->params.items[param];
    int32_t unit = p->layer >= 0 ? p->layer + 1 : p->role == PLUMB_ROLE_EMBED ? 0 : (int32_t)m->arch.layers + 1;
    m->trainables[m->n_trainables++] = (plumb_trainable){param, part, m->n_flat, rows, cols, unit, part != PLUMB_PART_FULL || p->decay};
    m->n_flat += rows * cols;
}

plumb_status plumb_model_plan_trainables(plumb_model *m, const plumb_model_options *o, bool *full, bool *chosen) {
    PLUMB_TRY(check_patterns(&m->params, o->train_modules, o->n_train_modules));
    const plumb_lora_config *lora = o->adapter ? &o->adapter->config : o->lora;
    if (lora) {
        PLUMB_TRY(plumb_lora_match(lora, &m->params, chosen));
        m->has_lora = true;
        m->lora.r = lora->r, m->lora.alpha = lora->alpha, m->lora.dropout = lora->dropout, m->lora.rslora = lora->rslora;
    }
    PLUMB_TRY(plumb_alloc(&m->trainables, (size_t)(2 * m->params.count), sizeof *m->trainables, "the trainable parameters"));
    for (int i = 0; i < m->params.count; i++) {
        const plumb_param *p = &m->params.items[i];
        full[i] = matches(p->name, o->train_modules, o->n_train_modules);
        if (full[i]) {
            m->trains_full = true;
            add(m, i, PLUMB_PART_FULL, p->rows, p->cols);
        }
        if (chosen[i] && !o->freeze_adapter) {
            add(m, i, PLUMB_PART_LORA_A, lora->r, p->cols);
            add(m, i, PLUMB_PART_LORA_B, p->rows, lora->r);
        }
    }
    return PLUMB_OK;
}

static plumb_tensor view_of(plumb_buffer *b, const plumb_trainable *t) { return plumb_tensor_of(b, t->offset, t->rows, t->cols); }

/* Full parameters: their values in the flat array come from the source. */
plumb_status plumb_model_attach_trainables(plumb_model *m, const plumb_source *s, const plumb_model_options *o, const bool *full, const bool *chosen) {
    (void)o, (void)full, (void)chosen;
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

/* --- adapters --------------------------------------------------------------------------------------------------------------------------- */
static plumb_linear *linear_of(plumb_model *m, plumb_view view, int param) {
    const plumb_param *p = &m->params.items[param];
    static const int which[PLUMB_ROLE_COUNT] = {[PLUMB_ROLE_Q] = L_Q, [PLUMB_ROLE_K] = L_K, [PLUMB_ROLE_V] = L_V, [PLUMB_ROLE_O] = L_O,
                                                [PLUMB_ROLE_GATE] = L_GATE, [PLUMB_ROLE_UP] = L_UP, [PLUMB_ROLE_DOWN] = L_DOWN};
    return &m->linears[view][plumb_linear_index(p->layer, which[p->role])];
}

/* A as torch's kaiming_uniform_(a = sqrt 5): U(-1/sqrt(k), 1/sqrt(k)); B zero. */
static void initial_a(float *a, int64_t r, int64_t k, uint64_t seed, int param) {
    double bound = 1.0 / sqrt((double)k);
    for (int64_t i = 0; i < r * k; i++)
        a[i] = (float)(bound * (2.0 * plumb_rng_uniform(&(plumb_rng_key){seed, 0, (uint32_t)param, 0, (uint32_t)i, PLUMB_SITE_LORA_INIT}) - 1.0));
}

static bool all_zero(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0) return false;
    return true;
}
static bool adapter_is_zero(const plumb_model *m, const plumb_adapter *a, const bool *chosen) {
    for (int i = 0; a && i < m->params.count; i++)
        if (chosen[i] && a->b[i] && !all_zero(a->b[i], m->params.items[i].rows * a->config.r)) return false;
    return true;
}

/* Packed copies of one adapter's matrices, written from host values. */
static plumb_status create_lora(plumb_model *m, plumb_lora *l, const plumb_param *p, const float *a, const float *b) {
    plumb_backend *be = m->be;
    l->r = m->lora.r;
    PLUMB_TRY(be->ops->weight_create(be, l->r, p->cols, PLUMB_STORE_NATIVE, NULL, &l->a));
    PLUMB_TRY(be->ops->weight_create(be, p->rows, l->r, PLUMB_STORE_NATIVE, NULL, &l->b));
    PLUMB_RUN(be, weight_write, l->a, 0, l->r, a);
    PLUMB_RUN(be, weight_write, l->b, 0, p->rows, b);
    return PLUMB_OK;
}

static void attach_flat(plumb_model *m, plumb_lora *l, int param, const float *a, const float *b) {
    for (int i = 0; i < m->n_trainables; i++) {
        const plumb_trainable *t = &m->trainables[i];
        if (t->param != param || t->part == PLUMB_PART_FULL) continue;
        bool is_a = t->part == PLUMB_PART_LORA_A;
        *(is_a ? &l->da : &l->db) = view_of(m->flat_grads, t);
        PLUMB_RUN(m->be, write, view_of(m->flat_values, t), is_a ? a : b);
    }
}

plumb_status plumb_model_attach_adapters(plumb_model *m, const plumb_model_options *o, const bool *chosen) {
    if (!m->has_lora) return PLUMB_OK;
    m->lora_scale[0] = m->lora_scale[1] = plumb_lora_scale(&m->lora);
    m->reference_adapter = o->reference && !adapter_is_zero(m, o->adapter, chosen);
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < m->params.count && status == PLUMB_OK; i++) {
        if (!chosen[i]) continue;
        const plumb_param *p = &m->params.items[i];
        float *a = NULL, *b = NULL;
        status = plumb_alloc(&a, (size_t)(m->lora.r * p->cols), sizeof *a, "an adapter");
        if (status == PLUMB_OK) status = plumb_alloc(&b, (size_t)(m->lora.r * p->rows), sizeof *b, "an adapter");
        if (status == PLUMB_OK) {
            if (o->adapter) {
                memcpy(a, o->adapter->a[i], (size_t)(m->lora.r * p->cols) * sizeof *a);
                memcpy(b, o->adapter->b[i], (size_t)(m->lora.r * p->rows) * sizeof *b);
            } else {
                initial_a(a, m->lora.r, p->cols, o->seed, i);
            }
            plumb_linear *l = linear_of(m, PLUMB_VIEW_POLICY, i), *reference = linear_of(m, PLUMB_VIEW_REFERENCE, i);
            status = create_lora(m, &l->lora[0], p, a, b);
            if (status == PLUMB_OK) attach_flat(m, &l->lora[0], i, a, b);
            if (status == PLUMB_OK && m->reference_adapter) {
                status = create_lora(m, &l->lora[1], p, a, b);
                reference->lora[1] = l->lora[1];
            }
        }
        free(a);
        free(b);
    }
    plumb_model_refresh(m);
    return status;
}

void plumb_model_refresh(plumb_model *m) {
    for (int i = 0; i < m->n_trainables; i++) {
        const plumb_trainable *t = &m->trainables[i];
        plumb_tensor flat = view_of(m->flat_values, t);
        if (t->part == PLUMB_PART_FULL) {
            if (m->values[t->param].trained) PLUMB_RUN(m->be, weight_from, m->values[t->param].trained, flat);
            continue;
        }
        plumb_lora *l = &linear_of(m, PLUMB_VIEW_POLICY, t->param)->lora[0];
        PLUMB_RUN(m->be, weight_from, t->part == PLUMB_PART_LORA_A ? l->a : l->b, flat);
    }
}

int32_t plumb_model_adapter_of(const plumb_model *m, plumb_view view) {
    if (!m->has_lora) return PLUMB_NO_ADAPTER;
    if (view == PLUMB_VIEW_POLICY) return 0;
    return m->reference_adapter ? 1 : PLUMB_NO_ADAPTER;
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

/* --- present values ----------------------------------------------------------------------------------------------------------------------- */
static const plumb_trainable *find_part(const plumb_model *m, int param, plumb_part part) {
    for (int i = 0; i < m->n_trainables; i++)
        if (m->trainables[i].param == param && m->trainables[i].part == part) return &m->trainables[i];
    return NULL;
}
plumb_status plumb_model_adapter(plumb_model *m, plumb_adapter *out) {
    *out = (plumb_adapter){.config = {.r = m->lora.r, .alpha = m->lora.alpha, .dropout = m->lora.dropout, .rslora = m->lora.rslora}, .n_params = m->params.count};
    plumb_status status = plumb_alloc(&out->a, (size_t)m->params.count, sizeof *out->a, "an adapter");
    if (status == PLUMB_OK) status = plumb_alloc(&out->b, (size_t)m->params.count, sizeof *out->b, "an adapter");
    for (int i = 0; i < m->params.count && status == PLUMB_OK; i++) {
        const plumb_trainable *a = find_part(m, i, PLUMB_PART_LORA_A), *b = find_part(m, i, PLUMB_PART_LORA_B);
        if (!a || !b) continue;
        status = plumb_alloc(&out->a[i], (size_t)(a->rows * a->cols), sizeof **out->a, "an adapter");
        if (status == PLUMB_OK) status = plumb_alloc(&out->b[i], (size_t)(b->rows * b->cols), sizeof **out->b, "an adapter");
        if (status == PLUMB_OK) {
            plumb_model_values_read(m, a->offset, a->rows * a->cols, out->a[i]);
            plumb_model_values_read(m, b->offset, b->rows * b->cols, out->b[i]);
        }
    }
    if (status != PLUMB_OK) plumb_adapter_free(out);
    return status;
}

plumb_status plumb_model_param(plumb_model *m, const plumb_source *s, int param, const plumb_adapter *merge, plumb_file_type type, float *out) {
    const plumb_trainable *full = find_part(m, param, PLUMB_PART_FULL);
    if (full) plumb_model_values_read(m, full->offset, full->rows * full->cols, out);
    else PLUMB_TRY(plumb_source_read(s, param, 0, m->params.items[param].rows, out));
    return merge ? plumb_adapter_merge(merge, &m->params, param, type, out) : PLUMB_OK;
}
