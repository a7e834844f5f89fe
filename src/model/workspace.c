/* Memory of a pass: sized for the largest micro-batch met so far, kept between passes, grown when a larger one comes.
 *
 * Kept per layer for backward: its input and middle residual, q, k, v, the attention's output and log-sum-exp, gate and up; norms, the
 * gated product and packed operands are made again. The pool holds all layers of a usual micro-batch; a larger one keeps as many layers
 * as fit and computes the others again in backward (the same operations, so the same bits), so that one long sample does not decide the
 * memory of a run. gradient_checkpointing keeps none. */
#include "model_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static plumb_status create_buffer(plumb_model *m, int64_t count, const char *what, plumb_buffer **out) {
    PLUMB_TRY(m->be->ops->buffer_create(m->be, count, what, out));
    m->space.buffers[m->space.n_buffers++] = *out;
    return PLUMB_OK;
}
static plumb_tensor take(plumb_buffer *b, int64_t *at, int64_t rows, int64_t cols) {
    plumb_tensor t = plumb_tensor_of(b, *at, rows, cols);
    *at += plumb_round_up(rows * cols, 16);
    return t;
}

static void free_operands(plumb_model *m) {
    plumb_backend *be = m->be;
    plumb_linear_work *w = &m->work;
    be->ops->operand_free(be, w->x);
    for (int i = 0; i < PLUMB_MAX_GROUP; i++) {
        be->ops->operand_free(be, w->xd[i]);
        be->ops->operand_free(be, w->dy[i]);
        for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
            be->ops->operand_free(be, w->xa[i][j]);
            be->ops->operand_free(be, w->dxa[i][j]);
        }
    }
    memset(w, 0, sizeof *w);
}
static void free_space(plumb_model *m) {
    for (int i = 0; i < m->space.n_buffers; i++) m->be->ops->buffer_free(m->be, m->space.buffers[i]);
    m->be->ops->kv_free(m->be, m->space.kv);
    free(m->space.inputs);
    m->space = (workspace){0};
    free_operands(m);
}
void plumb_model_release(plumb_model *m) {
    free_space(m);
    if (m->batch) m->be->ops->batch_free(m->be, m->batch);
    m->be->ops->operand_free(m->be, m->logits_operand);
    if (m->logits) m->be->ops->buffer_free(m->be, m->logits);
    m->batch = NULL, m->logits = NULL, m->logits_operand = NULL;
    if (m->rope) m->be->ops->buffer_free(m->be, m->rope);
    m->rope = NULL;
}

static double dropout_of(const plumb_model *m) { return m->adapters[PLUMB_VIEW_POLICY].dropout; }

static plumb_status create_operands(plumb_model *m, int64_t T) {
    plumb_backend *be = m->be;
    plumb_linear_work *w = &m->work;
    const plumb_arch *a = &m->arch;
    int64_t widest = plumb_max64(plumb_max64(a->hidden, a->intermediate), a->heads * a->head_dim);
    PLUMB_TRY(be->ops->operand_create(be, T, widest, &w->x));
    for (int i = 0; i < PLUMB_MAX_GROUP; i++) {
        PLUMB_TRY(be->ops->operand_create(be, T, widest, &w->dy[i]));
        if (dropout_of(m) > 0) PLUMB_TRY(be->ops->operand_create(be, T, widest, &w->xd[i]));
        for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
            if (!m->adapters[j].present) continue;
            PLUMB_TRY(be->ops->operand_create(be, T, m->adapters[j].r, &w->xa[i][j]));
            PLUMB_TRY(be->ops->operand_create(be, T, m->adapters[j].r, &w->dxa[i][j]));
        }
    }
    plumb_buffer *scales;
    PLUMB_TRY(create_buffer(m, T * PLUMB_MAX_ADAPTERS, "adapter scales", &scales));
    for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) w->row_scale[j] = plumb_tensor_of(scales, j * T, T, 1);
    if (dropout_of(m) > 0) {
        plumb_buffer *dropped;
        PLUMB_TRY(create_buffer(m, T * widest, "dropout", &dropped));
        w->dropped = plumb_tensor_of(dropped, 0, T, widest);
    }
    return PLUMB_OK;
}

static int64_t layer_floats(const plumb_arch *a, int64_t T) {
    int64_t Q = a->heads * a->head_dim, K = a->kv_heads * a->head_dim;
    return plumb_round_up(T * a->hidden, 16) + 2 * plumb_round_up(T * Q, 16) + 2 * plumb_round_up(T * K, 16) +
           plumb_round_up(T * a->heads, 16) + 2 * plumb_round_up(T, 16) + 2 * plumb_round_up(T * a->intermediate, 16);
}
layer_memory plumb_model_layer_memory(const plumb_model *m, int64_t layer) {
    const plumb_arch *a = &m->arch;
    const workspace *s = &m->space;
    int64_t T = s->pool_rows, Q = a->heads * a->head_dim, K = a->kv_heads * a->head_dim,
            at = plumb_min64(layer, s->kept) * layer_floats(a, T);
    layer_memory x;
    x.q = take(s->pool, &at, T, Q), x.k = take(s->pool, &at, T, K), x.v = take(s->pool, &at, T, K), x.o = take(s->pool, &at, T, Q);
    x.lse = take(s->pool, &at, T, a->heads), x.middle = take(s->pool, &at, T, a->hidden);
    x.rstd_attention = take(s->pool, &at, T, 1), x.rstd_mlp = take(s->pool, &at, T, 1);
    x.gate = take(s->pool, &at, T, a->intermediate), x.up = take(s->pool, &at, T, a->intermediate);
    return x;
}
/* Layout of the pool for a pass over T rows. */
static void place_layers(plumb_model *m, int64_t T, bool training) {
    workspace *s = &m->space;
    s->pool_rows = T;
    int64_t fit = T ? s->pool_floats / layer_floats(&m->arch, T) : 0;
    s->kept = !training || m->checkpointing ? 0 : fit >= m->arch.layers ? m->arch.layers : fit - 1;
}

static int64_t adapter_floats(const plumb_model *m, int64_t T) {
    int64_t floats = 0;
    for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++)
        if (m->adapters[j].present) floats += m->arch.layers * LINEARS * plumb_round_up(T * m->adapters[j].r, 16);
    return floats;
}
static plumb_status create_layers(plumb_model *m, int64_t T, bool training) {
    const plumb_arch *a = &m->arch;
    workspace *s = &m->space;
    PLUMB_TRY(plumb_alloc(&s->inputs, (size_t)(a->layers + 1), sizeof *s->inputs, "activations"));
    int64_t at = 0, usual = m->usual_tokens ? m->usual_tokens : T, all = a->layers * layer_floats(a, usual);
    s->pool_floats = plumb_max64(layer_floats(a, T), training && !m->checkpointing ? all : 0);
    PLUMB_TRY(create_buffer(m, s->pool_floats, "activations", &s->pool));
    plumb_buffer *b;
    PLUMB_TRY(create_buffer(m, (a->layers + 1) * plumb_round_up(T * a->hidden, 16), "activations", &b));
    for (int64_t l = 0; l <= a->layers; l++) s->inputs[l] = take(b, &at, T, a->hidden);
    int64_t floats = adapter_floats(m, T);
    if (!floats) return PLUMB_OK;
    plumb_buffer *products; /* A x: small, so all layers keep it even with checkpointing */
    PLUMB_TRY(create_buffer(m, floats, "adapter activations", &products));
    for (int view = 0; view < PLUMB_VIEW_COUNT; view++) {
        at = 0; /* the views never run at once, but rows of all adapters may */
        for (int64_t i = 0; i < a->layers * LINEARS; i++)
            for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++)
                if (m->adapters[j].present)
                    m->linears[plumb_linears_of((plumb_view)view)][i].lora[j].xa = take(products, &at, T, m->adapters[j].r);
    }
    return PLUMB_OK;
}

static plumb_status create_shared(plumb_model *m, int64_t T, int64_t R, bool training) {
    const plumb_arch *a = &m->arch;
    workspace *s = &m->space;
    int64_t C = a->hidden, Q = a->heads * a->head_dim, K = a->kv_heads * a->head_dim, I = a->intermediate, at = 0;
    int64_t widest = plumb_max64(C, Q);
    plumb_buffer *b;
    int64_t count = 2 * plumb_round_up(T * C, 16) + plumb_round_up(T * I, 16) + 5 * plumb_round_up(R * C, 16) +
                    2 * plumb_round_up(R * Q, 16) + 2 * plumb_round_up(R * 4, 16) + 3 * plumb_round_up(R, 16) +
                    PLUMB_MAX_ADAPTERS * plumb_round_up(R, 16);
    if (training)
        count += plumb_round_up(T * C, 16) + plumb_round_up(T * widest, 16) + plumb_round_up(T * Q, 16) + 2 * plumb_round_up(T * K, 16);
    PLUMB_TRY(create_buffer(m, count, "working activations", &b));
    s->normed = take(b, &at, T, C), s->branch = take(b, &at, T, C), s->hidden = take(b, &at, T, I);
    s->rows = take(b, &at, R, C), s->rows_normed = take(b, &at, R, C), s->u = take(b, &at, R, C), s->e = take(b, &at, R, C);
    s->listed_input = take(b, &at, R, C), s->listed_o = take(b, &at, R, Q), s->listed_do = take(b, &at, R, Q);
    for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) s->listed_scale[j] = take(b, &at, R, 1);
    s->rows_rstd = take(b, &at, R, 1), s->dlogp = take(b, &at, R, 1), s->stats = take(b, &at, R, 4), s->scores = take(b, &at, R, 1);
    if (!training) return PLUMB_OK;
    s->gradient = take(b, &at, T, C), s->dbranch = take(b, &at, T, widest);
    s->dq = take(b, &at, T, Q), s->dk = take(b, &at, T, K), s->dv = take(b, &at, T, K);
    return PLUMB_OK;
}

/* cos and sin of positions 0..positions-1. */
static plumb_status build_rope(plumb_model *m, int64_t positions) {
    int64_t half = m->arch.head_dim / 2;
    double *frequencies;
    float *table = NULL;
    if (m->rope) m->be->ops->buffer_free(m->be, m->rope);
    m->rope = NULL, m->rope_positions = 0;
    PLUMB_TRY(plumb_alloc(&frequencies, (size_t)half, sizeof *frequencies, "rope"));
    plumb_arch_inverse_frequencies(&m->arch, frequencies);
    plumb_status status = plumb_alloc(&table, (size_t)(positions * m->arch.head_dim), sizeof *table, "the rope table");
    if (status == PLUMB_OK) status = m->be->ops->buffer_create(m->be, positions * m->arch.head_dim, "the rope table", &m->rope);
    if (status == PLUMB_OK) {
        for (int64_t p = 0; p < positions; p++)
            for (int64_t i = 0; i < half; i++) {
                double angle = (double)p * frequencies[i];
                table[p * 2 * half + i] = (float)cos(angle);
                table[p * 2 * half + half + i] = (float)sin(angle);
            }
        m->rope_positions = positions;
        m->rope_table = plumb_tensor_of(m->rope, 0, positions, m->arch.head_dim);
        PLUMB_RUN(m->be, write, m->rope_table, table);
    }
    free(table);
    free(frequencies);
    return status;
}

static plumb_status check_batch(const plumb_model *m, const plumb_forest *f, int64_t *positions) {
    *positions = 0;
    for (int64_t i = 0; i < f->n_tokens; i++) {
        if (f->ids[i] >= m->arch.vocab)
            return plumb_error(PLUMB_E_DATA, "token %d is outside the model's vocabulary of %lld", f->ids[i], (long long)m->arch.vocab);
        *positions = plumb_max64(*positions, f->positions[i] + 1);
    }
    for (int32_t i = 0; i < f->n_targets; i++)
        if (f->targets[i].token >= m->arch.vocab)
            return plumb_error(PLUMB_E_DATA, "token %d is outside the model's vocabulary of %lld", f->targets[i].token,
                               (long long)m->arch.vocab);
    if (*positions > m->arch.max_positions)
        return plumb_error(PLUMB_E_DATA, "a sequence of %lld tokens is longer than the model's %lld positions (max_length)",
                           (long long)*positions, (long long)m->arch.max_positions);
    return PLUMB_OK;
}

plumb_status plumb_model_reserve(plumb_model *m, const plumb_forest *f, bool training, bool cached) {
    int64_t positions, T = plumb_round_up(plumb_max64(f->n_tokens, 1), 32), R = plumb_round_up(plumb_max64(f->n_targets, 1), 32);
    PLUMB_TRY(check_batch(m, f, &positions));
    if (positions > m->rope_positions) PLUMB_TRY(build_rope(m, plumb_min64(m->arch.max_positions, plumb_max64(512, 2 * positions))));
    workspace *s = &m->space;
    bool now = training;
    if (T > s->tokens || R > s->targets || (training && !s->gradient.buffer)) {
        training = training || s->gradient.buffer != NULL;
        T = plumb_max64(plumb_max64(T, s->tokens), plumb_round_up(m->usual_tokens, 32)), R = plumb_max64(R, s->targets);
        if (training) R = plumb_max64(R, plumb_round_up(m->usual_tokens, 32));
        free_space(m);
        plumb_status status = create_layers(m, T, training);
        if (status == PLUMB_OK) status = create_shared(m, T, R, training);
        if (status == PLUMB_OK) status = create_operands(m, T);
        if (status != PLUMB_OK) {
            free_space(m);
            return status;
        }
        s->tokens = T, s->targets = R;
    }
    if (!cached && f->n_slots > s->kv_slots) {
        m->be->ops->kv_free(m->be, s->kv);
        s->kv = NULL, s->kv_slots = 0;
        PLUMB_TRY(m->be->ops->kv_create(m->be, 1, f->n_slots, &m->attention, &s->kv));
        s->kv_slots = f->n_slots;
    }
    place_layers(m, f->n_tokens, now);
    return PLUMB_OK;
}

size_t plumb_model_workspace_bytes(const plumb_model *m, int64_t T, int64_t R) {
    const plumb_arch *a = &m->arch;
    int64_t C = a->hidden, Q = a->heads * a->head_dim, K = a->kv_heads * a->head_dim, I = a->intermediate,
            widest = plumb_max64(plumb_max64(C, I), Q);
    int64_t usual = m->usual_tokens ? m->usual_tokens : T,
            kept = plumb_max64(layer_floats(a, T), m->checkpointing ? 0 : a->layers * layer_floats(a, usual)) + (a->layers + 1) * T * C;
    int64_t working = T * (3 * C + I + plumb_max64(C, Q) + Q + 2 * K) + R * (5 * C + 2 * Q + 6 + PLUMB_MAX_ADAPTERS),
            operands = T * widest * (1 + PLUMB_MAX_GROUP) * 2;
    int64_t adapters = adapter_floats(m, T);
    return (size_t)(kept + working + operands + adapters) * sizeof(float) + 2 * m->logits_budget;
}
