/* Memory of the CPU back end: buffers, weights, operands, batches, pages and working memory.  All of it comes from plumb_guarded_alloc,
 * so that guard mode can take it away between operations; working memory is private to operations and is not guarded. */
#include "cpu.h"
#include "../internal.h"
#include <stdlib.h>
#include <string.h>

static size_t element_bytes(plumb_backend *be) { return be->compute == PLUMB_COMPUTE_BF16 ? 2 : 4; }

/* a*b*c*d elements of `size` bytes, each factor not negative; SIZE_MAX, which no allocation satisfies, when that does not fit. */
static size_t product_bytes(int64_t a, int64_t b, int64_t c, int64_t d, size_t size) {
    size_t bytes;
    if (a < 0 || b < 0 || c < 0 || d < 0 || __builtin_mul_overflow((size_t)a, (size_t)b, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)c, &bytes) || __builtin_mul_overflow(bytes, (size_t)d, &bytes) ||
        __builtin_mul_overflow(bytes, size, &bytes))
        return SIZE_MAX;
    return bytes;
}

static plumb_status guarded(plumb_backend *be, void *out, size_t bytes, const char *what) {
    void *memory = plumb_guarded_alloc(be, bytes ? bytes : 64);
    memcpy(out, &memory, sizeof memory);
    if (!memory) return plumb_error(PLUMB_E_MEMORY, "out of memory: %.1f MiB for %s", (double)bytes / 1048576.0, what);
    return PLUMB_OK;
}

plumb_status plumb_cpu_buffer_create(plumb_backend *be, int64_t count, const char *what, plumb_buffer **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    PLUMB_TRY(plumb_alloc(out, 1, sizeof **out, "a buffer"));
    plumb_status status =
        guarded(be, &(*out)->data, product_bytes(count > INT64_MAX - BLOCK ? -1 : count + BLOCK, 1, 1, 1, sizeof(float)), what);
    (*out)->count = count;
    if (status != PLUMB_OK) free(*out), *out = NULL;
    return status;
}
void plumb_cpu_buffer_free(plumb_backend *be, plumb_buffer *b) {
    if (!b) return;
    plumb_guarded_free(be, b->data);
    free(b);
}

void plumb_cpu_write(plumb_backend *be, plumb_tensor to, const float *from) {
    (void)be;
    for (int64_t r = 0; r < to.rows; r++) memcpy(plumb_cpu_at(to, r), from + r * to.cols, (size_t)to.cols * sizeof(float));
}
void plumb_cpu_read(plumb_backend *be, plumb_tensor from, float *to) { /* logits of many rows come home this way */
#pragma omp parallel for schedule(static) num_threads(be->threads) if (from.rows > 1 && from.rows * from.cols > 1 << 18)
    for (int64_t r = 0; r < from.rows; r++) memcpy(to + r * from.cols, plumb_cpu_at(from, r), (size_t)from.cols * sizeof(float));
}
void plumb_cpu_read_f64(plumb_backend *be, plumb_tensor from, double *to) {
    (void)be;
    for (int64_t r = 0; r < from.rows; r++)
        for (int64_t c = 0; c < from.cols; c++) to[r * from.cols + c] = plumb_cpu_at(from, r)[c];
}
void plumb_cpu_zero(plumb_backend *be, plumb_tensor t) {
    (void)be;
    for (int64_t r = 0; r < t.rows; r++) memset(plumb_cpu_at(t, r), 0, (size_t)t.cols * sizeof(float));
}

size_t plumb_cpu_weight_bytes(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage) {
    if (storage == PLUMB_STORE_NATIVE) return product_bytes(plumb_round_up(n, BLOCK), k, 1, 1, element_bytes(be));
    return product_bytes(plumb_round_up(n, BLOCK) / BLOCK, plumb_round_up(k, BLOCK) / BLOCK, 1, 1, (size_t)plumb_qblock_bytes(storage));
}
plumb_status plumb_cpu_weight_create(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage, void *memory, plumb_weight **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    PLUMB_TRY(plumb_alloc(out, 1, sizeof **out, "a weight"));
    **out = (plumb_weight){memory, n, k, storage, memory == NULL};
    if (memory) return PLUMB_OK;
    plumb_status status = guarded(be, &(*out)->data, plumb_cpu_weight_bytes(be, n, k, storage), "a weight");
    if (status != PLUMB_OK) free(*out), *out = NULL;
    return status;
}
void plumb_cpu_weight_free(plumb_backend *be, plumb_weight *w) {
    if (!w) return;
    if (w->owned) plumb_guarded_free(be, w->data);
    free(w);
}

/* The reduction may run over rows (by columns) or columns (by rows); both are padded to whole blocks so that one capacity serves. */
static size_t operand_bytes(plumb_backend *be, int64_t rows, int64_t cols) {
    return product_bytes(plumb_round_up(rows, BLOCK), plumb_round_up(cols, BLOCK), 1, 1, element_bytes(be));
}
plumb_status plumb_cpu_operand_create(plumb_backend *be, int64_t rows, int64_t cols, plumb_operand **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    PLUMB_TRY(plumb_alloc(out, 1, sizeof **out, "an operand"));
    size_t bytes = operand_bytes(be, rows, cols);
    plumb_status status = guarded(be, &(*out)->data, bytes, "an operand");
    (*out)->bytes = bytes;
    if (status != PLUMB_OK) free(*out), *out = NULL;
    return status;
}
void plumb_cpu_operand_free(plumb_backend *be, plumb_operand *o) {
    if (!o) return;
    plumb_guarded_free(be, o->data);
    free(o);
}
bool plumb_cpu_operand_reserve(plumb_backend *be, plumb_operand **o, int64_t rows, int64_t cols) {
    if (*o && (*o)->bytes >= operand_bytes(be, rows, cols)) return true;
    plumb_cpu_operand_free(be, *o);
    *o = NULL;
    if (plumb_cpu_operand_create(be, rows, cols, o) == PLUMB_OK) return true;
    plumb_backend_set_fault(be, PLUMB_E_MEMORY, "%s", plumb_error_message());
    return false;
}

void plumb_cpu_batch_free(plumb_backend *be, plumb_batch *b) {
    (void)be;
    if (!b) return;
    plumb_forest_free(&b->forest);
    free(b);
}
static plumb_status duplicate(void *out, const void *from, size_t count, size_t size) {
    PLUMB_TRY(plumb_alloc(out, count, size, "a batch"));
    void *to;
    memcpy(&to, out, sizeof to);
    if (count) memcpy(to, from, count * size);
    return PLUMB_OK;
}
plumb_status plumb_cpu_batch_create(plumb_backend *be, const plumb_forest *f, plumb_batch **out) {
    if (!f->finished) PLUMB_BUG("a batch needs a finished forest");
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    PLUMB_TRY(plumb_alloc(out, 1, sizeof **out, "a batch"));
    plumb_forest *c = &(*out)->forest;
    *c = *f;
    c->ids = c->positions = c->row_segment = c->paths = NULL;
    c->segments = NULL, c->targets = NULL, c->pages = NULL;
    plumb_status status = duplicate(&c->ids, f->ids, (size_t)f->n_tokens, sizeof *f->ids);
    if (status == PLUMB_OK) status = duplicate(&c->positions, f->positions, (size_t)f->n_tokens, sizeof *f->positions);
    if (status == PLUMB_OK) status = duplicate(&c->row_segment, f->row_segment, (size_t)f->n_tokens, sizeof *f->row_segment);
    if (status == PLUMB_OK) status = duplicate(&c->segments, f->segments, (size_t)f->n_segments, sizeof *f->segments);
    if (status == PLUMB_OK) status = duplicate(&c->targets, f->targets, (size_t)f->n_targets, sizeof *f->targets);
    if (status == PLUMB_OK) status = duplicate(&c->pages, f->pages, (size_t)f->n_pages, sizeof *f->pages);
    if (status == PLUMB_OK) status = duplicate(&c->paths, f->paths, (size_t)f->n_paths, sizeof *f->paths);
    if (status != PLUMB_OK) plumb_cpu_batch_free(be, *out), *out = NULL;
    return status;
}

plumb_status plumb_cpu_kv_create(plumb_backend *be, int64_t layers, int64_t slots, const plumb_attention *a, plumb_kv **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    PLUMB_TRY(plumb_alloc(out, 1, sizeof **out, "key/value pages"));
    plumb_kv *kv = *out;
    *kv = (plumb_kv){NULL, layers, slots, a->kv_heads, a->head_dim, plumb_kv_page_floats(a->head_dim, be->compute == PLUMB_COMPUTE_BF16)};
    plumb_status status =
        guarded(be, &kv->data, product_bytes(layers, slots, kv->kv_heads, kv->page_floats, sizeof(float)), "key/value pages");
    if (status != PLUMB_OK) free(kv), *out = NULL;
    return status;
}
void plumb_cpu_kv_free(plumb_backend *be, plumb_kv *kv) {
    if (!kv) return;
    plumb_guarded_free(be, kv->data);
    free(kv);
}

void *plumb_cpu_scratch(plumb_backend *be, int which, size_t bytes) {
    plumb_cpu_state *s = be->private_data;
    if (s->scratch_bytes[which] >= bytes) return s->scratch[which];
    free(s->scratch[which]);
    s->scratch_bytes[which] = 0;
    s->scratch[which] = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!s->scratch[which]) {
        plumb_backend_set_fault(be, PLUMB_E_MEMORY, "out of memory: %.1f MiB of working memory", (double)bytes / 1048576.0);
        return NULL;
    }
    s->scratch_bytes[which] = bytes;
    return s->scratch[which];
}

plumb_status plumb_cpu_init(plumb_backend *be, const char *isa, bool bf16) {
    static const struct { const char *name; const plumb_backend_ops *ops;
    } sets[] = {{"plain", &plumb_cpu_ops_plain},
                {"avx2", &plumb_cpu_ops_avx2},
                {"avx512", &plumb_cpu_ops_avx512},
                {"avx512bf16", &plumb_cpu_ops_avx512bf16}};
    plumb_cpu_state *state;
    PLUMB_TRY(plumb_alloc(&state, 1, sizeof *state, "the CPU back end"));
    state->bf16 = bf16;
    be->private_data = state;
    be->compute = bf16 ? PLUMB_COMPUTE_BF16 : PLUMB_COMPUTE_F32;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (!strcmp(isa, sets[i].name)) {
            be->ops = sets[i].ops;
            be->isa = sets[i].name;
            return PLUMB_OK;
        }
    PLUMB_BUG("no kernels for instruction set %s", isa);
}
void plumb_cpu_exit(plumb_backend *be) {
    plumb_cpu_state *s = be->private_data;
    if (!s) return;
    plumb_cpu_operand_free(be, s->head_operand);
    plumb_cpu_operand_free(be, s->head_rows);
    for (int i = 0; i < SCRATCH_COUNT; i++) free(s->scratch[i]);
    free(s);
    be->private_data = NULL;
}
