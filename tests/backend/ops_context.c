/* Contexts: forests, values, and runs on a back end. See ops.h. */
#include "ops.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

void must(plumb_status s, const char *what) {
    if (s != PLUMB_OK) die("%s: %s: %s", what, plumb_status_text(s), plumb_error_message());
}

static void *allocate(int64_t count, size_t size) {
    void *p;
    must(plumb_alloc(&p, (size_t)count, size, "a test"), "allocation");
    return p;
}

void describe_case(const op_case *c, char *out, size_t size) {
    int n = snprintf(out, size, "%s", c->op);
    static const char *const names[] = {"", "int8", "int4", "w8a8", "w4a8"}; /* plumb_storage */
#define SAY(...)                                                                                                       \
    if (n >= 0 && (size_t)n < size) n += snprintf(out + n, size - (size_t)n, __VA_ARGS__)
    if (c->forest) SAY(" forest=%s", c->forest->name);
    if (c->T) SAY(" T=%lld", (long long)c->T);
    if (c->V) SAY(" V=%lld", (long long)c->V);
    if (c->n) SAY(" n=%lld", (long long)c->n);
    if (c->k) SAY(" k=%lld", (long long)c->k);
    for (int i = 0; i < MAX_TERMS; i++)
        if (c->n_of[i] || c->k_of[i]) SAY(" (%lld,%lld)", (long long)c->n_of[i], (long long)c->k_of[i]);
    if (c->rank) SAY(" rank=%lld", (long long)c->rank);
    if (c->heads) SAY(" heads=%lld/%lld/%lld", (long long)c->heads, (long long)c->kv_heads, (long long)c->head_dim);
    if (c->targets) SAY(" targets=%s", c->targets == TARGETS_ALL ? "all" : "some");
    if (c->temperature) SAY(" temperature=%g", c->temperature);
    if (c->budget) SAY(" budget=%zu", c->budget);
    if (c->p) SAY(" p=%g", c->p);
    if (c->storage) SAY(" %s", names[c->storage]);
    SAY("%s%s%s%s%s%s%s", c->bias ? " bias" : "", c->scaled ? " scaled" : "", c->alias ? " alias" : "",
        c->delta ? " delta" : "", c->gain_gradient ? " dgain" : "", c->accumulate ? " accumulate" : "",
        c->no_u ? " no-u" : "");
#undef SAY
}

/* --- values ----------------------------------------------------------------------------------- */
static uint64_t hash_name(const char *s) {
    uint64_t h = 14695981039346656037u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

/* On a grid of 2^-10, so that a step of 2^-11 is exact in float; or representable in bf16, so that packing loses
 * nothing. */
double value_of(const char *name, int64_t row, int64_t col, double mean, double sigma, bool bf16) {
    plumb_rng_key key = {.seed = hash_name(name),
                         .sample = (uint32_t)(row >> 32),
                         .branch = (uint32_t)row,
                         .token = (uint32_t)col,
                         .site = PLUMB_SITE_TEST};
    double v = mean + sigma * plumb_rng_normal(&key);
    return bf16 ? (double)plumb_bf16_float(plumb_bf16((float)v)) : round(v * 1024) / 1024;
}

static int64_t identity_of_row(const context *x, const arg *a, int64_t r) {
    return a->axis == AXIS_TOKENS ? x->row_id[r] : a->axis == AXIS_TARGETS ? x->target_id[r] : r;
}

int add_arg(context *x, const char *name, arg_role role, arg_axis axis, int64_t rows, int64_t cols, int of,
            bool present) {
    if (x->n_args == MAX_ARGS) die("too many arguments");
    arg *a = &x->args[x->n_args];
    *a = (arg){.name = name,
               .role = role,
               .axis = axis,
               .rows = rows,
               .cols = cols,
               .of = of,
               .present = present,
               .storage = role == ROLE_WEIGHT ? x->c->storage : PLUMB_STORE_NATIVE,
               .mean = 0,
               .sigma = 1};
    if (axis == AXIS_TOKENS) a->rows = x->T;
    if (axis == AXIS_TARGETS) a->rows = x->R;
    return x->n_args++;
}

/* Products of bf16 with 8-bit weights take x in whole numbers: on a grid of 2^-6 these lose nothing. */
static double argument(const context *x, const arg *a, int64_t row, int64_t col) {
    double v = value_of(a->name, row, col, a->mean, a->sigma, x->bf16);
    return x->bf16 && x->c->storage == PLUMB_STORE_INT8 ? round(v * 64) / 64 : v;
}
static void fill(context *x) {
    for (int i = 0; i < x->n_args; i++) {
        arg *a = &x->args[i];
        if (!a->present) continue;
        a->value = allocate(a->rows * a->cols, sizeof *a->value);
        bool overwritten = a->role == ROLE_OUTPUT || a->role == ROLE_GRADIENT;
        for (int64_t r = 0; r < a->rows; r++)
            for (int64_t c = 0; c < a->cols; c++)
                a->value[r * a->cols + c] =
                    overwritten ? NAN : (float)argument(x, a, identity_of_row(x, a, r), c);
    }
}

/* --- forests ---------------------------------------------------------------------------------- */
static int32_t token_of(int64_t row, int64_t V) {
    return (int32_t)((uint64_t)(row * 2654435761 + 12345) % (uint64_t)V);
}

static void grow_forest(context *x) {
    const op_case *c = x->c;
    int64_t V = c->V ? c->V : 1000;
    int32_t ids[1024], roots = 0, *sample = allocate(c->forest->n, sizeof *sample);
    x->roots_only = true;
    for (int i = 0; i < c->forest->n; i++) {
        shape s = c->forest->segments ? c->forest->segments[i] : (shape){-1, 1 + i * 7 % 5};
        for (int64_t j = 0; j < s.count; j++) ids[j] = token_of(x->forest.n_tokens + j, V);
        sample[i] = s.parent < 0 ? roots++ : sample[s.parent];
        x->roots_only &= s.parent < 0;
        must(plumb_forest_add(&x->forest, s.parent, ids, s.count, PLUMB_NO_ADAPTER, sample[i], NULL), "forest_add");
    }
    free(sample);
    for (int32_t s = 0; s < x->forest.n_segments && c->targets; s++)
        for (int64_t i = 0; i < x->forest.segments[s].count; i++) {
            int32_t row = plumb_forest_row_before(&x->forest, s, i), at = (int32_t)(x->forest.segments[s].begin + i);
            if (row < 0 || (c->targets == TARGETS_SOME && at % 3)) continue;
            must(plumb_forest_target(&x->forest, row, x->forest.ids[at], s), "forest_target");
        }
    must(plumb_forest_finish(&x->forest), "forest_finish");
}

static void finish_context(context *x) {
    x->attention = (plumb_attention){x->c->heads, x->c->kv_heads, x->c->head_dim,
                                     x->c->head_dim ? 1 / sqrt((double)x->c->head_dim) : 0};
    x->op->describe(x);
    fill(x);
}

static void begin_context(context *x, const op_case *c, bool bf16) {
    *x = (context){.c = c, .bf16 = bf16};
    for (int i = 0; i < n_operations; i++)
        if (!strcmp(operations[i].name, c->op)) x->op = &operations[i];
    if (!x->op) die("there is no operation '%s'", c->op);
}

void context_create(context *x, const op_case *c, bool bf16) {
    if (!c->forest) {
        context_create_rows(x, c, bf16, 0, c->T);
        return;
    }
    begin_context(x, c, bf16);
    grow_forest(x);
    x->T = x->forest.n_tokens;
    x->R = x->forest.n_targets;
    x->row_id = allocate(x->T, sizeof *x->row_id);
    x->target_id = allocate(x->R, sizeof *x->target_id);
    for (int64_t i = 0; i < x->T; i++) x->row_id[i] = i;
    for (int64_t i = 0; i < x->R; i++) x->target_id[i] = i;
    finish_context(x);
}

void context_create_rows(context *x, const op_case *c, bool bf16, int64_t first, int64_t count) {
    begin_context(x, c, bf16);
    x->T = count;
    x->row_id = allocate(count, sizeof *x->row_id);
    x->target_id = allocate(0, sizeof *x->target_id);
    for (int64_t i = 0; i < count; i++) x->row_id[i] = first + i;
    finish_context(x);
}

static bool on_path(const plumb_forest *f, int32_t ancestor, int32_t s) {
    while (s >= 0 && s != ancestor) s = f->segments[s].parent;
    return s >= 0;
}

void context_create_path(context *x, const context *full, int32_t segment) {
    const plumb_forest *f = &full->forest;
    begin_context(x, full->c, full->bf16);
    x->roots_only = true;
    x->T = f->segments[segment].start + f->segments[segment].count;
    x->row_id = allocate(x->T, sizeof *x->row_id);
    x->target_id = allocate(f->n_targets, sizeof *x->target_id);
    int32_t *ids = allocate(x->T, sizeof *ids), index;
    for (int32_t s = segment; s >= 0; s = f->segments[s].parent)
        for (int64_t i = 0; i < f->segments[s].count; i++) {
            x->row_id[f->segments[s].start + i] = f->segments[s].begin + i;
            ids[f->segments[s].start + i] = f->ids[f->segments[s].begin + i];
        }
    must(plumb_forest_add(&x->forest, -1, ids, x->T, PLUMB_NO_ADAPTER, f->segments[segment].sample, &index),
         "forest_add");
    for (int32_t j = 0; j < f->n_targets; j++) {
        if (!on_path(f, f->targets[j].segment, segment)) continue;
        x->target_id[x->R++] = j;
        must(plumb_forest_target(&x->forest, f->positions[f->targets[j].row], f->targets[j].token, index),
             "forest_target");
    }
    must(plumb_forest_finish(&x->forest), "forest_finish");
    free(ids);
    finish_context(x);
}

void context_free(context *x) {
    for (int i = 0; i < x->n_args; i++) free(x->args[i].value);
    free(x->row_id);
    free(x->target_id);
    plumb_forest_free(&x->forest);
}

/* --- on a back end ---------------------------------------------------------------------------- */
plumb_backend *open_backend(const char *name, const char *isa, const char *precision, bool emulate, int threads) {
    plumb_backend *be;
    plumb_backend_options o = {
        .backend = name, .isa = isa, .precision = precision, .threads = threads, .emulate_bf16 = emulate};
    const char *note;
    plumb_status s = plumb_backend_create(&be, &o, &note);
    if (s == PLUMB_E_UNSUPPORTED) return NULL;
    must(s, "plumb_backend_create");
    return be;
}

/* The whole buffer of an argument: one view of everything. */
static plumb_tensor whole(const device *d, int i) {
    const plumb_tensor *t = &d->t[i];
    return plumb_tensor_of(t->buffer, 0, 1, 2 * t->offset + t->rows * t->stride);
}

void device_set(device *d, int i, const float *value) {
    const arg *a = &d->x->args[i];
    if (a->role == ROLE_WEIGHT)
        PLUMB_RUN(d->be, weight_write, d->w[i], 0, a->rows, value);
    else
        PLUMB_RUN(d->be, write, d->t[i], value);
}

void device_load(device *d) {
    for (int i = 0; i < d->x->n_args; i++) {
        const arg *a = &d->x->args[i];
        if (!a->present) continue;
        if (a->role != ROLE_WEIGHT) {
            plumb_tensor all = whole(d, i);
            float *gaps = allocate(all.cols, sizeof *gaps);
            for (int64_t c = 0; c < all.cols; c++) gaps[c] = d->gap;
            PLUMB_RUN(d->be, write, all, gaps);
            free(gaps);
        }
        device_set(d, i, a->value);
    }
}

void device_create(device *d, plumb_backend *be, const context *x, float gap, int64_t padding) {
    *d = (device){.be = be, .x = x, .gap = gap};
    for (int i = 0; i < x->n_args; i++) {
        const arg *a = &x->args[i];
        if (!a->present) continue;
        if (a->role == ROLE_WEIGHT) {
            must(be->ops->weight_create(be, a->rows, a->cols, a->storage, NULL, &d->w[i]), "weight_create");
            continue;
        }
        int64_t stride = a->cols + padding;
        must(be->ops->buffer_create(be, 2 * padding + a->rows * stride, a->name, &d->buffers[i]), "buffer_create");
        d->t[i] = (plumb_tensor){d->buffers[i], padding, a->rows, a->cols, stride};
    }
    if (x->forest.finished) must(be->ops->batch_create(be, &x->forest, &d->batch), "batch_create");
    if (x->c->heads) must(be->ops->kv_create(be, KV_LAYERS, x->forest.n_slots, &x->attention, &d->kv), "kv_create");
    device_load(d);
}

void device_free(device *d) {
    for (int i = 0; i < MAX_ARGS; i++) {
        d->be->ops->buffer_free(d->be, d->buffers[i]);
        d->be->ops->weight_free(d->be, d->w[i]);
    }
    for (int i = 0; i < MAX_OPERANDS; i++) d->be->ops->operand_free(d->be, d->operands[i]);
    d->be->ops->batch_free(d->be, d->batch);
    d->be->ops->kv_free(d->be, d->kv);
}

plumb_operand *operand(device *d, int index, int64_t rows, int64_t cols) {
    if (!d->operands[index]) must(d->be->ops->operand_create(d->be, rows, cols, &d->operands[index]), "operand_create");
    return d->operands[index];
}

static bool is_gap(const plumb_tensor *t, int64_t at) {
    int64_t inside = at - t->offset;
    return inside < 0 || inside >= t->rows * t->stride || inside % t->stride >= t->cols;
}

void device_results(device *d, results *r) {
    must(plumb_backend_fault(d->be), "a fault was latched");
    for (int i = 0; i < d->x->n_args; i++) {
        const arg *a = &d->x->args[i];
        const plumb_tensor *t = &d->t[i];
        r->value[i] = NULL;
        if (!a->present || a->role == ROLE_WEIGHT) continue;
        r->value[i] = allocate(a->rows * a->cols, sizeof(double));
        PLUMB_RUN(d->be, read_f64, *t, r->value[i]);
        plumb_tensor all = whole(d, i);
        double *everything = allocate(all.cols, sizeof *everything);
        PLUMB_RUN(d->be, read_f64, all, everything);
        for (int64_t c = 0; c < all.cols; c++)
            if (is_gap(t, c) && !(everything[c] == (double)d->gap || (isnan(everything[c]) && isnan(d->gap))))
                die("%s: %s: %s was written outside its view (element %lld)", d->be->ops->name, d->x->op->name, a->name,
                    (long long)c);
        free(everything);
    }
}

void results_free(results *r) {
    for (int i = 0; i < MAX_ARGS; i++) {
        free(r->value[i]);
        r->value[i] = NULL;
    }
}

void run_context(plumb_backend *be, const context *x, bool backward, float gap, int64_t padding, results *r) {
    device d;
    device_create(&d, be, x, gap, padding);
    x->op->forward(&d);
    if (backward && x->op->backward) x->op->backward(&d);
    *r = (results){0};
    device_results(&d, r);
    device_free(&d);
}
