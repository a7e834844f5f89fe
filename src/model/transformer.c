/* The transformer: one layer forward, the same layer backward, and the passes that run them.
 *
 *   x ── norm ─ q,k,v ─ rope ─ attention ─ o ──(+)── norm ─ gate,up ─ silu·up ─ down ──(+)── x'
 *    └─────────────────────────────────────────┘ └──────────────────────────────────────┘
 * then, on the listed rows only: norm ─ LM head ─ log-probability of each target.
 *
 * Nothing after the last layer's attention looks at other rows, so that from there on a pass over few listed rows (a prompt of a
 * preference pair, a prefill) goes over those alone: `narrow`. Rows are independent, so the numbers are the same.
 *
 * Backward walks the same picture from right to left; what is cheap to make again (norms, the gated product) is not kept. */
#include "model_internal.h"
#include <stdlib.h>
#include <string.h>

typedef struct pass { /* what a layer needs to know */
    plumb_model *m;
    plumb_view view;
    int64_t T;
    plumb_kv *kv;
    bool cached; /* kv holds every layer */
    bool narrow; /* the last layer ends on the listed rows */
    const plumb_batch *batch;
} pass;

static plumb_tensor first_rows(plumb_tensor t, int64_t rows) { return plumb_tensor_rows(t, 0, rows); }
static plumb_tensor norm_gain(const pass *p, plumb_role role, int32_t layer) {
    return plumb_value_vector(&p->m->values[plumb_params_find(&p->m->params, role, layer, false)], p->view);
}
static plumb_tensor norm_grad(const pass *p, plumb_role role, int32_t layer) {
    if (p->view != PLUMB_VIEW_POLICY) return (plumb_tensor){0}; /* the other views see the base */
    return p->m->values[plumb_params_find(&p->m->params, role, layer, false)].grad;
}
/* The linears [first, first+count) of a layer, as a group that shares its input. */
static void group_of(const pass *p, int64_t layer, int first, int count, plumb_linear **group) {
    for (int i = 0; i < count; i++) group[i] = &p->m->linears[plumb_linears_of(p->view)][plumb_linear_index(layer, first + i)];
}

/* What a layer does after its attention, and on which rows. */
typedef struct tail {
    bool narrow;
    int64_t rows;
    plumb_tensor input, o, output; /* residual before the layer, attention, residual after it */
    plumb_linear_work work;
} tail;
static tail tail_of(const pass *p, int32_t layer, const layer_memory *x) {
    plumb_model *m = p->m;
    workspace *s = &m->space;
    tail t = {.narrow = p->narrow && layer == m->arch.layers - 1, .work = m->work};
    t.rows = t.narrow ? m->targets : p->T;
    if (!t.narrow) {
        t.input = first_rows(s->inputs[layer], p->T), t.o = x->o, t.output = first_rows(s->inputs[layer + 1], p->T);
        return t;
    }
    t.input = first_rows(s->listed_input, t.rows), t.o = first_rows(s->listed_o, t.rows), t.output = first_rows(s->rows, t.rows);
    for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) t.work.row_scale[j] = first_rows(s->listed_scale[j], t.rows);
    return t;
}

static void layer_forward(const pass *p, int32_t layer) {
    plumb_model *m = p->m;
    plumb_backend *be = m->be;
    workspace *s = &m->space;
    layer_memory x = plumb_model_layer_memory(m, layer);
    plumb_tensor none = {0}, input = first_rows(s->inputs[layer], p->T), normed = first_rows(s->normed, p->T);
    plumb_linear *group[PLUMB_MAX_GROUP];

    PLUMB_RUN(be, rmsnorm_forward, normed, input, none, none, norm_gain(p, PLUMB_ROLE_ATTN_NORM, layer), x.rstd_attention,
              m->arch.norm_eps);
    group_of(p, layer, L_Q, 3, group);
    plumb_linear_forward(be, &m->work, group, 3, normed, (plumb_tensor[]){x.q, x.k, x.v}, p->batch);
    PLUMB_RUN(be, rope_forward, x.q, m->rope_table, m->arch.head_dim, p->batch);
    PLUMB_RUN(be, rope_forward, x.k, m->rope_table, m->arch.head_dim, p->batch);
    PLUMB_RUN(be, attention_forward, &m->attention, x.o, x.lse, x.q, x.k, x.v, p->kv, p->cached ? layer : 0, p->batch);

    tail t = tail_of(p, layer, &x);
    plumb_tensor branch = first_rows(s->branch, t.rows), hidden = first_rows(s->hidden, t.rows), middle = first_rows(x.middle, t.rows);
    plumb_tensor gate = first_rows(x.gate, t.rows), up = first_rows(x.up, t.rows);
    normed = first_rows(s->normed, t.rows);
    if (t.narrow) {
        PLUMB_RUN(be, gather_forward, t.input, input, p->batch);
        PLUMB_RUN(be, gather_forward, t.o, x.o, p->batch);
    }
    group_of(p, layer, L_O, 1, group);
    plumb_linear_forward(be, &t.work, group, 1, t.o, &branch, p->batch);
    PLUMB_RUN(be, rmsnorm_forward, normed, t.input, branch, middle, norm_gain(p, PLUMB_ROLE_MLP_NORM, layer),
              first_rows(x.rstd_mlp, t.rows), m->arch.norm_eps);
    group_of(p, layer, L_GATE, 2, group);
    plumb_linear_forward(be, &t.work, group, 2, normed, (plumb_tensor[]){gate, up}, p->batch);
    PLUMB_RUN(be, swiglu_forward, hidden, gate, up);
    group_of(p, layer, L_DOWN, 1, group);
    plumb_linear_forward(be, &t.work, group, 1, hidden, &branch, p->batch);
    PLUMB_RUN(be, add, t.output, middle, branch);
}

/* d holds the gradient by the layer's output on entry (of a narrow layer: `listed` does) and by its input on return (not for a first
 * layer below which nothing trains). */
static void layer_backward(const pass *p, int32_t layer, plumb_tensor d, plumb_tensor listed, bool wants_input) {
    plumb_model *m = p->m;
    plumb_backend *be = m->be;
    workspace *s = &m->space;
    layer_memory x = plumb_model_layer_memory(m, layer);
    tail t = tail_of(p, layer, &x);
    plumb_tensor none = {0}, input = first_rows(s->inputs[layer], p->T), normed = first_rows(s->normed, t.rows),
                 hidden = first_rows(s->hidden, t.rows), dhidden = hidden;
    plumb_tensor upper = t.narrow ? listed : d, middle = first_rows(x.middle, t.rows), gate = first_rows(x.gate, t.rows),
                 up = first_rows(x.up, t.rows);
    plumb_tensor dbranch = plumb_tensor_of(s->dbranch.buffer, s->dbranch.offset, t.rows, m->arch.hidden),
                 rstd = first_rows(x.rstd_mlp, t.rows);
    plumb_tensor d_o = plumb_tensor_of(s->dbranch.buffer, s->dbranch.offset, p->T, m->arch.heads * m->arch.head_dim);
    plumb_tensor upper_do = t.narrow ? first_rows(s->listed_do, t.rows) : d_o;
    plumb_tensor dq = first_rows(s->dq, p->T), dk = first_rows(s->dk, p->T), dv = first_rows(s->dv, p->T);
    plumb_linear *group[PLUMB_MAX_GROUP];

    PLUMB_RUN(be, swiglu_forward, hidden, gate, up);
    group_of(p, layer, L_DOWN, 1, group);
    plumb_linear_backward(be, &t.work, group, 1, dhidden, &upper, hidden, p->batch); /* hidden is packed before dhidden is written */
    PLUMB_RUN(be, swiglu_backward, gate, up, dhidden, gate, up);
    PLUMB_RUN(be, rmsnorm_forward, normed, middle, none, none, norm_gain(p, PLUMB_ROLE_MLP_NORM, layer), rstd, m->arch.norm_eps);
    group_of(p, layer, L_GATE, 2, group);
    plumb_linear_backward(be, &t.work, group, 2, dbranch, (plumb_tensor[]){gate, up}, normed, p->batch);
    PLUMB_RUN(be, rmsnorm_backward, upper, norm_grad(p, PLUMB_ROLE_MLP_NORM, layer), dbranch, middle,
              norm_gain(p, PLUMB_ROLE_MLP_NORM, layer), rstd);
    group_of(p, layer, L_O, 1, group);
    plumb_linear_backward(be, &t.work, group, 1, upper_do, &upper, t.o, p->batch);
    if (t.narrow) { /* back to all rows: the others have no gradient */
        PLUMB_RUN(be, zero, d);
        PLUMB_RUN(be, gather_backward, d, upper, p->batch);
        PLUMB_RUN(be, zero, d_o);
        PLUMB_RUN(be, gather_backward, d_o, upper_do, p->batch);
    }

    PLUMB_RUN(be, attention_backward, &m->attention, dq, dk, dv, d_o, x.o, x.lse, x.q, x.k, x.v, p->kv, p->batch);
    PLUMB_RUN(be, rope_backward, dq, m->rope_table, m->arch.head_dim, p->batch);
    PLUMB_RUN(be, rope_backward, dk, m->rope_table, m->arch.head_dim, p->batch);
    normed = first_rows(s->normed, p->T), dbranch.rows = p->T;
    PLUMB_RUN(be, rmsnorm_forward, normed, input, none, none, norm_gain(p, PLUMB_ROLE_ATTN_NORM, layer), x.rstd_attention,
              m->arch.norm_eps);
    group_of(p, layer, L_Q, 3, group);
    plumb_linear_backward(be, &m->work, group, 3, wants_input ? dbranch : none, (plumb_tensor[]){dq, dk, dv}, normed, p->batch);
    if (wants_input)
        PLUMB_RUN(be, rmsnorm_backward, d, norm_grad(p, PLUMB_ROLE_ATTN_NORM, layer), dbranch, input,
                  norm_gain(p, PLUMB_ROLE_ATTN_NORM, layer), x.rstd_attention);
}

/* --- passes ----------------------------------------------------------------------------------- */
static const value *head_value(const plumb_model *m) { /* NULL: a classifier has none */
    return m->arch.classifier ? NULL
                              : &m->values[plumb_params_find(&m->params, m->arch.tied ? PLUMB_ROLE_EMBED : PLUMB_ROLE_HEAD, -1, false)];
}

/* Which rows go through which adapter, and with what factor. */
static plumb_status set_adapters(plumb_model *m, const plumb_forest *f, plumb_view view) {
    for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) m->work.used[j] = false;
    for (int32_t s = 0; s < f->n_segments; s++) {
        int32_t a = f->segments[s].adapter;
        if (a == PLUMB_NO_ADAPTER) continue;
        if (a < 0 || a >= PLUMB_MAX_ADAPTERS || !m->adapters[a].present ||
            (m->trains_full && plumb_linears_of((plumb_view)a) != plumb_linears_of(view)))
            return plumb_error(PLUMB_E_CONFIG, "a segment asks for adapter %d, which the model does not have", a);
        m->work.used[a] = true;
    }
    float *scale = NULL;
    for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
        m->work.row_scale[j].rows = f->n_tokens;
        if (!m->work.used[j]) continue;
        if (!scale) PLUMB_TRY(plumb_alloc(&scale, (size_t)f->n_tokens, sizeof *scale, "adapter scales"));
        for (int64_t i = 0; i < f->n_tokens; i++)
            scale[i] = f->segments[f->row_segment[i]].adapter == j ? (float)m->adapters[j].scale : 0.0f;
        PLUMB_RUN(m->be, write, m->work.row_scale[j], scale);
    }
    free(scale);
    return PLUMB_OK;
}

static plumb_status begin(plumb_model *m, pass *p, const plumb_forest *f, plumb_view view, bool training, const plumb_dropout *dropout,
                          plumb_kv *kv) {
    if (!f->finished) return plumb_error(PLUMB_E_DATA, "the forest is not laid out");
    m->trained_forward = false;
    PLUMB_TRY(plumb_model_reserve(m, f, training, kv != NULL));
    PLUMB_TRY(set_adapters(m, f, view));
    if (m->batch) m->be->ops->batch_free(m->be, m->batch);
    m->batch = NULL;
    PLUMB_TRY(m->be->ops->batch_create(m->be, f, &m->batch));
    m->work.dropout = training && dropout ? dropout->p : 0;
    m->work.seed = dropout ? dropout->seed : 0;
    m->work.step = dropout ? dropout->step : 0;
    m->view = view, m->rows = f->n_tokens, m->targets = f->n_targets;
    m->narrow = m->work.dropout == 0 && m->targets < m->rows; /* dropout numbers belong to rows of the batch */
    for (int j = 0; j < PLUMB_MAX_ADAPTERS && m->narrow; j++)
        if (m->work.used[j])
            PLUMB_RUN(m->be, gather_forward, first_rows(m->space.listed_scale[j], m->targets), m->work.row_scale[j], m->batch);
    *p = (pass){m, view, f->n_tokens, kv ? kv : m->space.kv, kv != NULL, m->narrow, m->batch};
    return PLUMB_OK;
}

/* Embedding, layers, and the final norm on the listed rows: leaves rows_normed. */
static void run_layers(const pass *p) {
    plumb_model *m = p->m;
    workspace *s = &m->space;
    plumb_tensor none = {0};
    const value *embedding = &m->values[plumb_params_find(&m->params, PLUMB_ROLE_EMBED, -1, false)];
    PLUMB_RUN(m->be, embedding_forward, first_rows(s->inputs[0], p->T), plumb_value_weight(embedding, p->view), p->batch);
    for (int32_t layer = 0; layer < m->arch.layers; layer++) layer_forward(p, layer);
    plumb_tensor rows = first_rows(s->rows, m->targets);
    if (!p->narrow) PLUMB_RUN(m->be, gather_forward, rows, first_rows(s->inputs[m->arch.layers], p->T), p->batch);
    PLUMB_RUN(m->be, rmsnorm_forward, first_rows(s->rows_normed, m->targets), rows, none, none, norm_gain(p, PLUMB_ROLE_FINAL_NORM, -1),
              first_rows(s->rows_rstd, m->targets), m->arch.norm_eps);
}

static plumb_status reserve_result(plumb_forward_result *r, int64_t n) {
    r->count = n;
    if (r->capacity >= n && r->logp) return PLUMB_OK;
    plumb_forward_result_free(r);
    PLUMB_TRY(plumb_alloc(&r->logp, (size_t)n, sizeof *r->logp, "log-probabilities"));
    PLUMB_TRY(plumb_alloc(&r->entropy, (size_t)n, sizeof *r->entropy, "log-probabilities"));
    PLUMB_TRY(plumb_alloc(&r->values, (size_t)n, sizeof *r->values, "log-probabilities"));
    PLUMB_TRY(plumb_alloc(&r->is_argmax, (size_t)n, sizeof *r->is_argmax, "log-probabilities"));
    r->capacity = r->count = n;
    return PLUMB_OK;
}
static plumb_status read_stats(plumb_model *m, plumb_forward_result *r) {
    int64_t n = m->targets;
    double *stats;
    PLUMB_TRY(plumb_alloc(&stats, (size_t)(4 * n), sizeof *stats, "log-probabilities"));
    PLUMB_RUN(m->be, read_f64, first_rows(m->space.stats, n), stats);
    for (int64_t i = 0; i < n; i++) r->logp[i] = stats[4 * i], r->entropy[i] = stats[4 * i + 2], r->is_argmax[i] = stats[4 * i + 3] != 0;
    free(stats);
    return PLUMB_OK;
}
void plumb_forward_result_free(plumb_forward_result *r) {
    free(r->logp);
    free(r->entropy);
    free(r->values);
    free(r->is_argmax);
    *r = (plumb_forward_result){0};
}

/* The view's scalar head on the listed rows. */
static void score_rows(plumb_model *m, plumb_view view, double *values) {
    plumb_tensor scores = first_rows(m->space.scores, m->targets);
    PLUMB_RUN(m->be, score_forward, scores, first_rows(m->space.rows_normed, m->targets), m->heads[view].weight);
    PLUMB_RUN(m->be, read_f64, scores, values);
}

static plumb_status no_head(void) { return plumb_error(PLUMB_E_CONFIG, "this model has no scalar head"); }
static plumb_status no_lm_head(void) {
    return plumb_error(PLUMB_E_CONFIG, "a sequence classifier has no LM head: it gives scores, no probabilities of tokens");
}

plumb_status plumb_model_forward(plumb_model *m, const plumb_forest *f, const plumb_pass *o, plumb_forward_result *r) {
    pass p;
    workspace *s = &m->space;
    plumb_tensor none = {0};
    if (o->values && !plumb_model_has_head(m, o->view)) return no_head();
    if ((o->logprobs || o->entropy) && !head_value(m)) return no_lm_head();
    if (o->entropy && head_value(m)->grad.buffer)
        return plumb_error(PLUMB_E_UNSUPPORTED, "an entropy bonus needs a frozen head and embedding; leave them out of train_modules");
    PLUMB_TRY(begin(m, &p, f, o->view, o->training, o->dropout, NULL));
    run_layers(&p);
    PLUMB_TRY(reserve_result(r, m->targets));
    if (o->values) score_rows(m, o->view, r->values);
    if (o->logprobs) {
        PLUMB_RUN(m->be, head_forward, first_rows(s->stats, m->targets), o->training ? first_rows(s->u, m->targets) : none,
                  o->training && o->entropy ? first_rows(s->e, m->targets) : none, first_rows(s->rows_normed, m->targets),
                  plumb_value_weight(head_value(m), o->view), o->temperature > 0 ? o->temperature : 1.0, m->logits_budget, p.batch);
        PLUMB_TRY(read_stats(m, r));
    }
    m->trained_forward = o->training, m->logprobs = o->logprobs, m->valued = o->values, m->entropy = o->training && o->entropy,
    m->temperature = o->temperature > 0 ? o->temperature : 1.0;
    return plumb_backend_fault(m->be);
}

/* Does anything train below the layers? Then the first layer's input gradient is needed. */
static bool trains_below(const plumb_model *m) {
    if (m->view != PLUMB_VIEW_POLICY) return false;
    if (m->values[plumb_params_find(&m->params, PLUMB_ROLE_EMBED, -1, false)].grad.buffer) return true;
    return m->values[plumb_params_find(&m->params, PLUMB_ROLE_ATTN_NORM, 0, false)].grad.buffer != NULL;
}

static plumb_status write_column(plumb_model *m, plumb_tensor to, const double *from, int64_t n) {
    float *host;
    PLUMB_TRY(plumb_alloc(&host, (size_t)n, sizeof *host, "loss derivatives"));
    for (int64_t i = 0; i < n; i++) host[i] = (float)from[i];
    PLUMB_RUN(m->be, write, to, host);
    free(host);
    return PLUMB_OK;
}

/* Leaves in u the gradient by the normed listed rows: of the log-probabilities and entropies, whose directions u and e hold since the
 * forward pass, and of the scalar head. */
static plumb_status heads_backward(plumb_model *m, const plumb_gradients *g) {
    plumb_backend *be = m->be;
    workspace *s = &m->space;
    int64_t R = m->targets;
    plumb_tensor d = first_rows(s->dlogp, R), u = first_rows(s->u, R), e = first_rows(s->e, R), rows_normed = first_rows(s->rows_normed, R);
    const value *head = head_value(m);
    if (m->logprobs && g->logp) {
        PLUMB_TRY(write_column(m, d, g->logp, R));
        if (head->grad.buffer && m->view == PLUMB_VIEW_POLICY)
            PLUMB_RUN(be, head_backward, head->grad, d, first_rows(s->stats, R), rows_normed, plumb_value_weight(head, m->view),
                      m->temperature, m->logits_budget, m->batch);
        PLUMB_RUN(be, scale_rows, u, u, d);
    } else {
        PLUMB_RUN(be, zero, u);
    }
    if (m->entropy && g->entropy) {
        PLUMB_TRY(write_column(m, d, g->entropy, R));
        PLUMB_RUN(be, scale_rows, e, e, d);
        PLUMB_RUN(be, add, u, u, e);
    }
    if (m->valued && g->values) {
        plumb_tensor ds = first_rows(s->scores, R);
        PLUMB_TRY(write_column(m, ds, g->values, R));
        PLUMB_RUN(be, score_backward, u, m->heads[m->view].grad, ds, rows_normed, m->heads[m->view].weight);
    }
    return PLUMB_OK;
}

plumb_status plumb_model_backward(plumb_model *m, const plumb_gradients *gradients) {
    if (!m->trained_forward) return plumb_error(PLUMB_E_CONFIG, "backward without a training forward");
    workspace *s = &m->space;
    plumb_backend *be = m->be;
    pass p = {m, m->view, m->rows, s->kv, false, m->narrow, m->batch};
    int64_t T = m->rows, R = m->targets;
    plumb_tensor rows = first_rows(s->rows, R), u = first_rows(s->u, R), d = first_rows(s->gradient, T);
    PLUMB_TRY(heads_backward(m, gradients));
    plumb_tensor drows = first_rows(s->rows_normed, R); /* the normed rows have served */
    PLUMB_RUN(be, zero, drows);
    PLUMB_RUN(be, rmsnorm_backward, drows, norm_grad(&p, PLUMB_ROLE_FINAL_NORM, -1), u, rows, norm_gain(&p, PLUMB_ROLE_FINAL_NORM, -1),
              first_rows(s->rows_rstd, R));
    if (!p.narrow) {
        PLUMB_RUN(be, zero, d);
        PLUMB_RUN(be, gather_backward, d, drows, m->batch);
    }
    bool below = trains_below(m);
    for (int32_t layer = (int32_t)m->arch.layers - 1; layer >= 0; layer--) {
        if (layer >= s->kept) layer_forward(&p, layer); /* its memory has served other layers since */
        layer_backward(&p, layer, d, drows, layer > 0 || below);
    }
    const value *embedding = &m->values[plumb_params_find(&m->params, PLUMB_ROLE_EMBED, -1, false)];
    if (embedding->grad.buffer && m->view == PLUMB_VIEW_POLICY) PLUMB_RUN(be, embedding_backward, embedding->grad, d, m->batch);
    m->trained_forward = false;
    return plumb_backend_fault(be);
}

static plumb_status reserve_logits(plumb_model *m) {
    plumb_backend *be = m->be;
    if (m->logits && m->targets <= m->logits_rows) return PLUMB_OK;
    if (m->logits_operand) be->ops->operand_free(be, m->logits_operand);
    if (m->logits) be->ops->buffer_free(be, m->logits);
    m->logits_operand = NULL, m->logits = NULL;
    m->logits_rows = plumb_max64(m->targets, 2 * m->logits_rows);
    PLUMB_TRY(be->ops->operand_create(be, m->logits_rows, m->arch.hidden, &m->logits_operand));
    return be->ops->buffer_create(be, m->logits_rows * m->arch.vocab, "logits", &m->logits);
}
plumb_status plumb_model_decode(plumb_model *m, const plumb_forest *f, plumb_view view, plumb_kv *kv, float *out) {
    pass p;
    plumb_tensor none = {0};
    if (!head_value(m)) return no_lm_head();
    PLUMB_TRY(begin(m, &p, f, view, false, NULL, kv));
    run_layers(&p);
    PLUMB_TRY(reserve_logits(m));
    plumb_tensor z = plumb_tensor_of(m->logits, 0, m->targets, m->arch.vocab);
    PLUMB_RUN(m->be, operand_pack, m->logits_operand, first_rows(m->space.rows_normed, m->targets), PLUMB_BY_COLUMNS, none);
    PLUMB_RUN(m->be, linear_forward,
              &(plumb_product){z, &(plumb_term){m->logits_operand, plumb_value_weight(head_value(m), view)}, 1, none}, 1);
    PLUMB_RUN(m->be, read, z, out);
    return plumb_backend_fault(m->be);
}
plumb_status plumb_model_token_stats(plumb_model *m, const int32_t *tokens, double temperature, double *logp, double *entropy) {
    int64_t n = m->targets;
    plumb_tensor stats = first_rows(m->space.stats, n);
    double *host;
    if (!m->logits || n > m->logits_rows) return plumb_error(PLUMB_E_CONFIG, "statistics of tokens without logits");
    PLUMB_TRY(plumb_alloc(&host, (size_t)(4 * n), sizeof *host, "log-probabilities"));
    PLUMB_RUN(m->be, token_stats, stats, plumb_tensor_of(m->logits, 0, n, m->arch.vocab), tokens, temperature);
    PLUMB_RUN(m->be, read_f64, stats, host);
    for (int64_t i = 0; i < n; i++) logp[i] = host[4 * i], entropy[i] = host[4 * i + 2];
    free(host);
    return plumb_backend_fault(m->be);
}
plumb_status plumb_model_decoded_values(plumb_model *m, double *values) {
    if (!plumb_model_has_head(m, m->view)) return no_head();
    score_rows(m, m->view, values);
    return plumb_backend_fault(m->be);
}
size_t plumb_model_kv_bytes(const plumb_model *m) {
    size_t head = (size_t)(PLUMB_PAGE * (plumb_round_up(m->arch.head_dim, 32) + m->arch.head_dim)) *
                  (m->be->compute == PLUMB_COMPUTE_BF16 ? 2 : sizeof(float));
    return (size_t)(m->arch.layers * m->arch.kv_heads) * head;
}
plumb_status plumb_model_kv_create(plumb_model *m, int64_t slots, plumb_kv **out) {
    return m->be->ops->kv_create(m->be, m->arch.layers, slots, &m->attention, out);
}
void plumb_model_kv_free(plumb_model *m, plumb_kv *kv) { m->be->ops->kv_free(m->be, kv); }
