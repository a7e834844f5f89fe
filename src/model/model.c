/* Building a model: weights from a source into memory that the node's ranks share, vectors, rope table, trainable arrays.
 *
 * Each rank of a node converts its share of row blocks, so that loading takes the node's cores and not one rank's; the frozen base then
 * exists once per node. What trains in full is private to a rank, beside the base copy only where a reference needs that. */
#include "model_internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOAD_ROWS = 256 };

static bool is_matrix(const plumb_param *p) {
    return !p->bias && p->role != PLUMB_ROLE_ATTN_NORM && p->role != PLUMB_ROLE_MLP_NORM && p->role != PLUMB_ROLE_FINAL_NORM;
}
static size_t aligned(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

/* --- weights ---------------------------------------------------------------------------------- */
/* A copy that a reference needs of what trains has to be exactly where training began. */
static plumb_storage storage_of(const plumb_model_options *o, bool trains) { return trains ? PLUMB_STORE_NATIVE : o->frozen; }
static plumb_status create_weights(plumb_model *m, const plumb_model_options *o, const bool *full) {
    plumb_backend *be = m->be;
    size_t total = 0, at = 0;
    for (int i = 0; i < m->params.count; i++) {
        const plumb_param *p = &m->params.items[i];
        if (is_matrix(p) && (!full[i] || m->wants_reference))
            total += aligned(be->ops->weight_bytes(be, p->rows, p->cols, storage_of(o, full[i])));
    }
    m->base_bytes = total;
    char *memory = NULL;
    if (total && !be->guard) { /* in guard mode every byte belongs to the back end */
        void *block;
        PLUMB_TRY(plumb_shared_create(&m->shared, total, &block, &m->is_shared));
        memory = block;
    }
    for (int i = 0; i < m->params.count; i++) {
        const plumb_param *p = &m->params.items[i];
        if (!is_matrix(p)) continue;
        if (!full[i] || m->wants_reference) {
            PLUMB_TRY(
                be->ops->weight_create(be, p->rows, p->cols, storage_of(o, full[i]), memory ? memory + at : NULL, &m->values[i].base));
            at += aligned(be->ops->weight_bytes(be, p->rows, p->cols, storage_of(o, full[i])));
        }
        if (full[i]) PLUMB_TRY(be->ops->weight_create(be, p->rows, p->cols, PLUMB_STORE_NATIVE, NULL, &m->values[i].trained));
    }
    return PLUMB_OK;
}

typedef struct load_task { int param; int64_t first, rows; plumb_weight *to; } load_task;

static plumb_status list_tasks(const plumb_model *m, load_task **tasks, size_t *count) {
    size_t capacity = 0;
    int64_t turn = 0, ranks = m->is_shared ? plumb_comm_node_size() : 1, mine = m->is_shared ? plumb_comm_node_rank() : 0;
    for (int i = 0; i < m->params.count; i++) {
        const plumb_param *p = &m->params.items[i];
        for (int copy = 0; copy < 2; copy++) {
            plumb_weight *to = copy ? m->values[i].trained : m->values[i].base;
            if (!to) continue;
            for (int64_t first = 0; first < p->rows; first += LOAD_ROWS) {
                if (!copy && turn++ % ranks != mine) continue; /* another rank's part of the shared base */
                PLUMB_TRY(plumb_grow(tasks, &capacity, *count + 1, sizeof **tasks));
                (*tasks)[(*count)++] = (load_task){i, first, plumb_min64(LOAD_ROWS, p->rows - first), to};
            }
        }
    }
    return PLUMB_OK;
}

static plumb_status load_weights(plumb_model *m, const plumb_source *s) {
    plumb_backend *be = m->be;
    load_task *tasks = NULL;
    size_t count = 0;
    plumb_status status = list_tasks(m, &tasks, &count);
    char message[512] = "";
    if (status == PLUMB_OK && plumb_backend_enter(be)) {
#pragma omp parallel num_threads(be->threads)
        {
            float *rows = NULL;
            size_t capacity = 0;
#pragma omp for schedule(dynamic, 4)
            for (size_t t = 0; t < count; t++) {
                size_t need = (size_t)(tasks[t].rows * m->params.items[tasks[t].param].cols);
                plumb_status one = plumb_grow(&rows, &capacity, need, sizeof *rows);
                if (one == PLUMB_OK) one = plumb_source_read(s, tasks[t].param, tasks[t].first, tasks[t].rows, rows);
                if (one == PLUMB_OK) be->ops->weight_write(be, tasks[t].to, tasks[t].first, tasks[t].rows, rows);
                else {
#pragma omp critical
                    if (status == PLUMB_OK) {
                        status = one;
                        strncpy(message, plumb_error_message(), sizeof message - 1);
                    }
                }
            }
            free(rows);
        }
        plumb_backend_leave(be);
    }
    free(tasks);
    if (status != PLUMB_OK && message[0]) return plumb_error(status, "%s", message);
    return status;
}

/* Gains and biases: small, private, read by every rank. */
static plumb_status load_vectors(plumb_model *m, const plumb_source *s) {
    int64_t total = 0, at = 0, largest = 1;
    for (int i = 0; i < m->params.count; i++)
        if (!is_matrix(&m->params.items[i])) {
            total += m->params.items[i].cols;
            largest = plumb_max64(largest, m->params.items[i].cols);
        }
    PLUMB_TRY(m->be->ops->buffer_create(m->be, total, "norms and biases", &m->vectors));
    float *row;
    PLUMB_TRY(plumb_alloc(&row, (size_t)largest, sizeof *row, "a parameter"));
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < m->params.count && status == PLUMB_OK; i++) {
        const plumb_param *p = &m->params.items[i];
        if (is_matrix(p)) continue;
        m->values[i].vector_base = plumb_tensor_of(m->vectors, at, 1, p->cols);
        at += p->cols;
        status = plumb_source_read(s, i, 0, p->rows, row);
        if (status == PLUMB_OK) PLUMB_RUN(m->be, write, m->values[i].vector_base, row);
    }
    free(row);
    return status;
}

/* --- layers ----------------------------------------------------------------------------------- */
static const plumb_role linear_roles[LINEARS] = {PLUMB_ROLE_Q,    PLUMB_ROLE_K,  PLUMB_ROLE_V,   PLUMB_ROLE_O,
                                                 PLUMB_ROLE_GATE, PLUMB_ROLE_UP, PLUMB_ROLE_DOWN};

/* A view's linears: its weights and biases; gradients in the policy's view only. LoRA is attached by adapters.c. */
static plumb_status build_linears(plumb_model *m, plumb_view view) {
    int side = plumb_linears_of(view);
    PLUMB_TRY(plumb_alloc(&m->linears[side], (size_t)(m->arch.layers * LINEARS), sizeof **m->linears, "the layers"));
    for (int32_t layer = 0; layer < m->arch.layers; layer++)
        for (int which = 0; which < LINEARS; which++) {
            int w = plumb_params_find(&m->params, linear_roles[which], layer, false),
                b = plumb_params_find(&m->params, linear_roles[which], layer, true);
            plumb_linear *l = &m->linears[side][plumb_linear_index(layer, which)];
            *l = (plumb_linear){.n = m->params.items[w].rows, .k = m->params.items[w].cols, .site = (uint32_t)(1 + w) << 16};
            l->w = (plumb_weight *)plumb_value_weight(&m->values[w], view);
            if (b >= 0) l->bias = plumb_value_vector(&m->values[b], view);
            if (view != PLUMB_VIEW_POLICY) continue;
            l->dw = m->values[w].grad;
            if (b >= 0) l->dbias = m->values[b].grad;
        }
    return PLUMB_OK;
}

static plumb_status create(plumb_model *m, const plumb_source *s, const plumb_model_options *o, bool *full) {
    PLUMB_TRY(plumb_params_build(&m->params, &m->arch));
    PLUMB_TRY(plumb_alloc(&m->values, (size_t)m->params.count, sizeof *m->values, "the parameters"));
    PLUMB_TRY(plumb_model_plan_trainables(m, o, full));
    plumb_status local = create_weights(m, o, full); /* agreed below, since the others wait at the barrier */
    if (local == PLUMB_OK) local = load_weights(m, s);
    if (local == PLUMB_OK) local = load_vectors(m, s);
    if (local == PLUMB_OK) local = plumb_model_attach_trainables(m, s);
    if (local == PLUMB_OK) local = build_linears(m, PLUMB_VIEW_POLICY);
    if (local == PLUMB_OK) local = build_linears(m, PLUMB_VIEW_REFERENCE);
    if (local == PLUMB_OK) local = plumb_model_attach_adapters(m, s, o);
    if (local == PLUMB_OK) local = plumb_backend_fault(m->be);
    plumb_source_release(s);
    if (m->shared) plumb_shared_barrier(m->shared);
    return plumb_comm_agree(PLUMB_AXIS_WORLD, local);
}

plumb_status plumb_model_create(plumb_model **out, plumb_backend *be, const plumb_source *s, const plumb_model_options *o) {
    plumb_model *m;
    PLUMB_TRY(plumb_alloc(out, 1, sizeof *m, "a model"));
    m = *out;
    m->be = be;
    m->arch = *plumb_source_arch(s);
    m->attention = (plumb_attention){m->arch.heads, m->arch.kv_heads, m->arch.head_dim, 1.0 / sqrt((double)m->arch.head_dim)};
    m->checkpointing = o->checkpointing;
    m->wants_reference = o->reference;
    m->usual_tokens = o->tokens;
    m->logits_budget = o->logits_budget ? o->logits_budget : (size_t)32 << 20;
    int count = plumb_source_params(s)->count;
    bool *full = NULL;
    plumb_status status = plumb_alloc(&full, (size_t)count, sizeof *full, "the parameters");
    if (status == PLUMB_OK) status = create(m, s, o, full);
    free(full);
    if (status != PLUMB_OK) plumb_model_free(m), *out = NULL;
    return status;
}

static void free_linears(plumb_model *m) {
    plumb_backend *be = m->be;
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; m->linears[side] && i < m->arch.layers * LINEARS; i++)
            for (int j = 0; j < PLUMB_MAX_ADAPTERS; j++) {
                if (plumb_linears_of((plumb_view)j) != side) continue; /* borrowed from the other side */
                be->ops->weight_free(be, m->linears[side][i].lora[j].a);
                be->ops->weight_free(be, m->linears[side][i].lora[j].b);
            }
        free(m->linears[side]);
    }
}

void plumb_model_free(plumb_model *m) {
    if (!m) return;
    plumb_backend *be = m->be;
    plumb_model_release(m);
    free_linears(m);
    for (int i = 0; m->values && i < m->params.count; i++) {
        be->ops->weight_free(be, m->values[i].base);
        be->ops->weight_free(be, m->values[i].trained);
    }
    if (m->vectors) be->ops->buffer_free(be, m->vectors);
    if (m->flat_values) be->ops->buffer_free(be, m->flat_values);
    if (m->flat_grads) be->ops->buffer_free(be, m->flat_grads);
    if (m->shared) plumb_shared_free(m->shared);
    if (m->frozen_heads) m->be->ops->buffer_free(m->be, m->frozen_heads);
    for (int view = 0; view < PLUMB_VIEW_COUNT; view++) free(m->adapters[view].chosen);
    plumb_params_free(&m->params);
    free(m->values);
    free(m->trainables);
    free(m);
}

const plumb_arch *plumb_model_arch(const plumb_model *m) { return &m->arch; }
bool plumb_model_shared(const plumb_model *m) { return m->is_shared; }
size_t plumb_model_base_bytes(const plumb_model *m) { return m->base_bytes; }
