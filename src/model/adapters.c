/* Adapters and scalar heads of the views, on one frozen base.
 *
 *   view        adapter                                   head
 *   policy      trained (or loaded for inference)         optional: a reward model in training, a value head on the policy's trunk
 *   reference   frozen copy of the policy's start,        none
 *               absent when that was zero
 *   reward      frozen, or none                           frozen
 *   value       trained                                   trained
 *
 * A view's adapter has the view's number in the segments of a forest, so that one batch may hold rows of several views. */
#include "model_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)PLUMB_VIEW_COUNT <= (int)PLUMB_MAX_ADAPTERS, "a view's adapter has the view's number");

static plumb_status plan_slot(plumb_model *m, plumb_view view, const plumb_lora_config *c, bool trains) {
    adapter_slot *slot = &m->adapters[view];
    *slot = (adapter_slot){.present = true, .trains = trains, .r = c->r, .alpha = c->alpha, .dropout = c->dropout,
                           .scale = plumb_lora_scale(c), .rslora = c->rslora};
    PLUMB_TRY(plumb_alloc(&slot->chosen, (size_t)m->params.count, sizeof *slot->chosen, "the choice of modules"));
    return plumb_lora_match(c, &m->params, slot->chosen);
}

static bool all_zero(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0) return false;
    return true;
}
static bool starts_at_zero(const plumb_model *m, const plumb_adapter *a) {
    for (int i = 0; a && i < m->params.count; i++)
        if (a->b[i] && !all_zero(a->b[i], m->params.items[i].rows * a->config.r)) return false;
    return true;
}

plumb_status plumb_model_plan_adapters(plumb_model *m, const plumb_model_options *o) {
    const plumb_lora_config *policy = o->adapter ? &o->adapter->config : o->lora, *critic = o->value ? &o->value->config : o->value_lora;
    if (policy && !policy->r) policy = NULL; /* a head alone, here and below */
    if (policy) PLUMB_TRY(plan_slot(m, PLUMB_VIEW_POLICY, policy, !o->freeze_adapter));
    if (policy && o->reference && !starts_at_zero(m, o->adapter)) PLUMB_TRY(plan_slot(m, PLUMB_VIEW_REFERENCE, policy, false));
    if (o->reward && !o->reward->score)
        return plumb_error(PLUMB_E_CONFIG, "the reward model's adapter has no score head; `plumb reward` makes one");
    if (o->reward && o->reward->config.r) PLUMB_TRY(plan_slot(m, PLUMB_VIEW_REWARD, &o->reward->config, false));
    m->judges = o->reward || o->reward_base;
    if (critic) PLUMB_TRY(plan_slot(m, PLUMB_VIEW_VALUE, critic, true));
    return PLUMB_OK;
}

static plumb_linear *linear_of(plumb_model *m, plumb_view view, int param) {
    const plumb_param *p = &m->params.items[param];
    static const int which[PLUMB_ROLE_COUNT] = {[PLUMB_ROLE_Q] = L_Q, [PLUMB_ROLE_K] = L_K, [PLUMB_ROLE_V] = L_V, [PLUMB_ROLE_O] = L_O,
                                                [PLUMB_ROLE_GATE] = L_GATE, [PLUMB_ROLE_UP] = L_UP, [PLUMB_ROLE_DOWN] = L_DOWN};
    return &m->linears[plumb_linears_of(view)][plumb_linear_index(p->layer, which[p->role])];
}
static plumb_tensor place_of(plumb_buffer *b, const plumb_trainable *t) { return plumb_tensor_of(b, t->offset, t->rows, t->cols); }

/* A as torch's kaiming_uniform_(a = sqrt 5): U(-1/sqrt(k), 1/sqrt(k)); B zero. */
static void initial_a(float *a, int64_t r, int64_t k, uint64_t seed, plumb_view view, int param) {
    double bound = 1.0 / sqrt((double)k);
    for (int64_t i = 0; i < r * k; i++) {
        plumb_rng_key key = {seed, 0, (uint32_t)param, (uint32_t)view, (uint32_t)i, PLUMB_SITE_LORA_INIT};
        a[i] = (float)(bound * (2.0 * plumb_rng_uniform(&key) - 1.0));
    }
}

/* Packed copies of one adapter's matrices, written from host values; gradients and flat values where it trains. */
static plumb_status create_lora(plumb_model *m, plumb_view view, int param, const float *a, const float *b) {
    plumb_backend *be = m->be;
    const plumb_param *p = &m->params.items[param];
    plumb_linear *linear = linear_of(m, view, param);
    plumb_lora *l = &linear->lora[view];
    l->r = m->adapters[view].r;
    PLUMB_TRY(be->ops->weight_create(be, l->r, p->cols, PLUMB_STORE_NATIVE, NULL, &l->a));
    PLUMB_TRY(be->ops->weight_create(be, p->rows, l->r, PLUMB_STORE_NATIVE, NULL, &l->b));
    PLUMB_RUN(be, weight_write, l->a, 0, l->r, a);
    PLUMB_RUN(be, weight_write, l->b, 0, p->rows, b);
    for (int i = 0; i < m->n_trainables; i++) {
        const plumb_trainable *t = &m->trainables[i];
        if (t->param != param || t->part == PLUMB_PART_FULL || t->view != (int32_t)view) continue;
        bool is_a = t->part == PLUMB_PART_LORA_A;
        *(is_a ? &l->da : &l->db) = place_of(m->flat_grads, t);
        PLUMB_RUN(be, write, place_of(m->flat_values, t), is_a ? a : b);
    }
    if (!m->trains_full) /* all views see the same weights: a batch of any view may hold rows of any adapter */
        m->linears[!plumb_linears_of(view)][linear - m->linears[plumb_linears_of(view)]].lora[view] = *l;
    return PLUMB_OK;
}

static plumb_status attach_one(plumb_model *m, plumb_view view, const plumb_adapter *from, const plumb_model_options *o, int param) {
    const plumb_param *p = &m->params.items[param];
    int64_t r = m->adapters[view].r;
    if (from) return create_lora(m, view, param, from->a[param], from->b[param]);
    float *a = NULL, *b = NULL;
    plumb_status status = plumb_alloc(&a, (size_t)(r * p->cols), sizeof *a, "an adapter");
    if (status == PLUMB_OK) status = plumb_alloc(&b, (size_t)(r * p->rows), sizeof *b, "an adapter");
    if (status == PLUMB_OK) initial_a(a, r, p->cols, o->seed, view == PLUMB_VIEW_POLICY ? (plumb_view)o->random_as : view, param);
    if (status == PLUMB_OK) status = create_lora(m, view, param, a, b);
    free(a);
    free(b);
    return status;
}

/* --- heads ------------------------------------------------------------------------------------ */
static void random_head(float *w, int64_t n, uint64_t seed, plumb_view view) {
    for (int64_t i = 0; i < n; i++) {
        plumb_rng_key key = {seed, 1, (uint32_t)i, (uint32_t)view, 0, PLUMB_SITE_LORA_INIT};
        w[i] = (float)(plumb_rng_normal(&key) / sqrt((double)n + 1.0));
    }
}
/* The adapter's head, or the model's own, or one that starts here. */
static plumb_status head_values(const plumb_adapter *from, const plumb_source *own, plumb_head_start start, uint64_t seed, plumb_view view,
                                int64_t n, float *w) {
    if (from && from->score) memcpy(w, from->score, (size_t)n * sizeof *w);
    else if (own && plumb_source_has_score(own)) return plumb_source_score(own, w);
    else if (start == PLUMB_HEAD_RANDOM) random_head(w, n, seed, view);
    return PLUMB_OK;
}
static plumb_status attach_head(plumb_model *m, plumb_view view, const plumb_adapter *from, const plumb_source *own, plumb_head_start start,
                                uint64_t seed) {
    int64_t n = m->arch.hidden;
    scalar_head *head = &m->heads[view];
    const plumb_trainable *trained = NULL;
    if (from && from->score && from->n_score != n)
        return plumb_error(PLUMB_E_FORMAT, "the adapter's score head has %lld values, the model %lld hidden values",
                           (long long)from->n_score, (long long)n);
    for (int i = 0; i < m->n_trainables; i++)
        if (m->trainables[i].part == PLUMB_PART_SCORE && m->trainables[i].view == (int32_t)view) trained = &m->trainables[i];
    if (!trained && !m->frozen_heads) PLUMB_TRY(m->be->ops->buffer_create(m->be, PLUMB_VIEW_COUNT * n, "scalar heads", &m->frozen_heads));
    head->weight = trained ? place_of(m->flat_values, trained) : plumb_tensor_of(m->frozen_heads, view * n, 1, n);
    if (trained) head->grad = place_of(m->flat_grads, trained);
    float *w;
    PLUMB_TRY(plumb_alloc(&w, (size_t)n, sizeof *w, "a scalar head"));
    plumb_status status = head_values(from, own, start, seed, view, n, w);
    if (status == PLUMB_OK) PLUMB_RUN(m->be, write, head->weight, w);
    free(w);
    return status;
}
bool plumb_model_plans_head(const plumb_model *m, const plumb_model_options *o) {
    return m->arch.classifier || o->head != PLUMB_HEAD_NONE || (o->adapter && o->adapter->score);
}
bool plumb_model_has_head(const plumb_model *m, plumb_view view) { return m->heads[view].weight.buffer != NULL; }

plumb_status plumb_model_attach_adapters(plumb_model *m, const plumb_source *s, const plumb_model_options *o) {
    const plumb_adapter *from[PLUMB_VIEW_COUNT] = {o->adapter, o->adapter, o->reward, o->value};
    for (int view = 0; view < PLUMB_VIEW_COUNT; view++)
        for (int i = 0; m->adapters[view].present && i < m->params.count; i++)
            if (m->adapters[view].chosen[i]) PLUMB_TRY(attach_one(m, (plumb_view)view, from[view], o, i));
    if (plumb_model_plans_head(m, o))
        PLUMB_TRY(attach_head(m, PLUMB_VIEW_POLICY, o->head_from ? o->head_from : o->adapter, s, o->head, o->seed));
    if (m->judges) PLUMB_TRY(attach_head(m, PLUMB_VIEW_REWARD, o->reward, s, PLUMB_HEAD_NONE, o->seed));
    if (m->adapters[PLUMB_VIEW_VALUE].present) PLUMB_TRY(attach_head(m, PLUMB_VIEW_VALUE, o->value, NULL, PLUMB_HEAD_ZERO, o->seed));
    plumb_model_refresh(m);
    return PLUMB_OK;
}

void plumb_model_refresh_lora(plumb_model *m, const plumb_trainable *t) {
    plumb_lora *l = &linear_of(m, (plumb_view)t->view, t->param)->lora[t->view];
    PLUMB_RUN(m->be, weight_from, t->part == PLUMB_PART_LORA_A ? l->a : l->b, place_of(m->flat_values, t));
}

int32_t plumb_model_adapter_of(const plumb_model *m, plumb_view view) {
    return m->adapters[view].present ? (int32_t)view : PLUMB_NO_ADAPTER;
}

/* --- present values --------------------------------------------------------------------------- */
static plumb_status read_trained(plumb_model *m, const plumb_trainable *t, float **out) {
    PLUMB_TRY(plumb_alloc(out, (size_t)(t->rows * t->cols), sizeof **out, "an adapter"));
    plumb_model_values_read(m, t->offset, t->rows * t->cols, *out);
    return PLUMB_OK;
}
plumb_status plumb_model_adapter(plumb_model *m, plumb_view view, plumb_adapter *out) {
    const adapter_slot *slot = &m->adapters[view];
    *out = (plumb_adapter){.config = {.r = slot->r, .alpha = slot->alpha, .dropout = slot->dropout, .rslora = slot->rslora},
                           .n_params = m->params.count};
    plumb_status status = plumb_alloc(&out->a, (size_t)m->params.count, sizeof *out->a, "an adapter");
    if (status == PLUMB_OK) status = plumb_alloc(&out->b, (size_t)m->params.count, sizeof *out->b, "an adapter");
    for (int i = 0; i < m->n_trainables && status == PLUMB_OK; i++) {
        const plumb_trainable *t = &m->trainables[i];
        if (t->view != (int32_t)view || t->part == PLUMB_PART_FULL) continue;
        if (t->part == PLUMB_PART_SCORE) {
            out->n_score = t->cols;
            status = read_trained(m, t, &out->score);
        } else {
            status = read_trained(m, t, t->part == PLUMB_PART_LORA_A ? &out->a[t->param] : &out->b[t->param]);
        }
    }
    if (status != PLUMB_OK) plumb_adapter_free(out);
    return status;
}
