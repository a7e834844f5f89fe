/* See special.h. */
#include "special.h"
#include "ops.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- decoding --------------------------------------------------------------------------------- */
/* Attention over the rows of a finished forest; row i has the values of identity id[i]. o: [T, heads*D] on return,
 * without log-sum-exp. */
static void attend(plumb_backend *be, const plumb_attention *a, plumb_kv *kv, int64_t layer, const plumb_forest *f,
                   const int64_t *id, double *o) {
    int64_t T = f->n_tokens, cols[4] = {a->heads * a->head_dim, a->kv_heads * a->head_dim, a->kv_heads * a->head_dim,
                                        a->heads * a->head_dim};
    static const char *const names[4] = {"q", "k", "v", "o"};
    plumb_buffer *buffers[4];
    plumb_tensor t[4];
    plumb_batch *batch;
    bool bf16 = be->compute == PLUMB_COMPUTE_BF16;
    must(be->ops->batch_create(be, f, &batch), "batch_create");
    for (int i = 0; i < 4; i++) {
        float *value = malloc((size_t)(T * cols[i] + 1) * sizeof *value);
        for (int64_t e = 0; e < T * cols[i]; e++)
            value[e] = i == 3 ? NAN : (float)value_of(names[i], id[e / cols[i]], e % cols[i], 0, 1, bf16);
        must(be->ops->buffer_create(be, T * cols[i], names[i], &buffers[i]), "buffer_create");
        t[i] = plumb_tensor_of(buffers[i], 0, T, cols[i]);
        PLUMB_RUN(be, write, t[i], value);
        free(value);
    }
    PLUMB_RUN(be, attention_forward, a, t[3], absent(), t[0], t[1], t[2], kv, layer, batch);
    PLUMB_RUN(be, read_f64, t[3], o);
    must(plumb_backend_fault(be), "attention");
    for (int i = 0; i < 4; i++) be->ops->buffer_free(be, buffers[i]);
    be->ops->batch_free(be, batch);
}

static void add_segment(plumb_forest *f, int32_t parent, int64_t count) {
    static const int32_t ids[512];
    must(plumb_forest_add(f, parent, ids, count, PLUMB_NO_ADAPTER, 0, NULL), "forest_add");
}

/* One sequence in one piece, from an empty store. */
static double *attend_at_once(plumb_backend *be, const plumb_attention *a, int64_t T, const int64_t *id) {
    plumb_forest f = {0};
    plumb_kv *kv;
    double *o = malloc((size_t)(T * a->heads * a->head_dim) * sizeof *o);
    add_segment(&f, -1, T);
    must(plumb_forest_finish(&f), "forest_finish");
    must(be->ops->kv_create(be, 1, f.n_slots, a, &kv), "kv_create");
    attend(be, a, kv, 0, &f, id, o);
    be->ops->kv_free(be, kv);
    plumb_forest_free(&f);
    return o;
}

static bool same(const double *a, const double *b, int64_t n) {
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* A sequence of T in pieces: the first of `chunk` tokens, then `step` at a time, into slots out of order. */
static bool decode_equals_forward(plumb_backend *be, const plumb_attention *a, int64_t T, int64_t chunk, int64_t step) {
    int64_t id[256] = {0}, wide = a->heads * a->head_dim;
    const int32_t slots[] = {6, 1, 4, 0}, *path[] = {slots};
    for (int64_t i = 0; i < T; i++) id[i] = 5 * i;
    double *expected = attend_at_once(be, a, T, id), *found = malloc((size_t)(T * wide) * sizeof *found);
    plumb_kv *kv;
    plumb_forest f = {0};
    must(be->ops->kv_create(be, 2, 7, a, &kv), "kv_create");
    for (int64_t at = 0, count = chunk; at < T; at += count, count = step) {
        count = plumb_min64(count, T - at);
        plumb_forest_reset(&f);
        add_segment(&f, -1, count);
        must(plumb_forest_finish_cached(&f, &at, path), "forest_finish_cached");
        attend(be, a, kv, 1, &f, id + at, found + at * wide);
    }
    bool equal = same(expected, found, T * wide);
    be->ops->kv_free(be, kv);
    plumb_forest_free(&f);
    free(expected);
    free(found);
    return equal;
}

/* A prompt of 100 is read once, with two empty children that get copies of its last page; then both are decoded
 * together. */
static bool branches_equal_forward(plumb_backend *be, const plumb_attention *a) {
    enum { PROMPT = 100, STEPS = 40 };
    int64_t id[2][PROMPT + STEPS], wide = a->heads * a->head_dim;
    double *expected[2], *row = malloc((size_t)(PROMPT * wide) * sizeof *row);
    for (int s = 0; s < 2; s++) {
        for (int64_t i = 0; i < PROMPT + STEPS; i++) id[s][i] = i < PROMPT ? i : 1000 * (s + 1) + i;
        expected[s] = attend_at_once(be, a, PROMPT + STEPS, id[s]);
    }
    const int32_t prompt[] = {3, 0}, left[] = {3, 5, 1}, right[] = {3, 2, 4}, *tree[] = {prompt, left, right},
                  *both[] = {left, right};
    const int64_t start[] = {0, PROMPT, PROMPT};
    plumb_kv *kv;
    plumb_forest f = {0};
    must(be->ops->kv_create(be, 1, 6, a, &kv), "kv_create");
    add_segment(&f, -1, PROMPT), add_segment(&f, 0, 0), add_segment(&f, 0, 0);
    must(plumb_forest_finish_cached(&f, start, tree), "forest_finish_cached");
    attend(be, a, kv, 0, &f, id[0], row);
    bool equal = same(row, expected[0], PROMPT * wide);
    for (int64_t i = PROMPT; i < PROMPT + STEPS; i++) {
        int64_t now[2] = {i, i}, ids[2] = {id[0][i], id[1][i]};
        plumb_forest_reset(&f);
        add_segment(&f, -1, 1), add_segment(&f, -1, 1);
        must(plumb_forest_finish_cached(&f, now, both), "forest_finish_cached");
        attend(be, a, kv, 0, &f, ids, row);
        for (int s = 0; s < 2; s++) equal &= same(row + s * wide, expected[s] + i * wide, wide);
    }
    be->ops->kv_free(be, kv);
    plumb_forest_free(&f);
    free(row);
    for (int s = 0; s < 2; s++) free(expected[s]);
    return equal;
}

static void check_decoding(const char *where, plumb_backend *be, verify_function verify) {
    static const plumb_attention sizes[] = {{6, 2, 8, 0.35}, {9, 3, 64, 0.125}, {2, 1, 80, 0.11}, {4, 4, 16, 0.25}};
    static const int64_t pieces[][3] = {{66, 1, 1},   {150, 63, 1},  {150, 64, 1},
                                        {150, 65, 1}, {200, 50, 13}, {130, 1, 64}};
    for (int i = 0; i < 4; i++) {
        char what[120];
        for (int p = 0; p < 6; p++) {
            snprintf(what, sizeof what,
                     "decoding %lld tokens after %lld, %lld at a time, heads %lld/%lld/%lld, differs from one forward",
                     (long long)pieces[p][0], (long long)pieces[p][1], (long long)pieces[p][2],
                     (long long)sizes[i].heads, (long long)sizes[i].kv_heads, (long long)sizes[i].head_dim);
            verify(decode_equals_forward(be, &sizes[i], pieces[p][0], pieces[p][1], pieces[p][2]), where, what);
        }
        snprintf(what, sizeof what, "decoding two branches differs from one forward, head size %lld",
                 (long long)sizes[i].head_dim);
        verify(branches_equal_forward(be, &sizes[i]), where, what);
    }
}

/* Values with all 24 bits: they are not representable in bf16. */
static float full_value(int64_t r, int64_t c) {
    return (float)(sin(1.7 * (double)r + 0.3 * (double)c) * exp(0.1 * (double)(c % 40)));
}

/* --- soft-max of one key ---------------------------------------------------------------------- */
/* A token alone has P = 1 whatever its score, so that q and k have no gradient. The gradient of o has bits that bf16 drops. */
/* Statistics of drawn tokens have the bits that the head gives them as targets: the sampler's log-probabilities are the trainer's. */
static void check_token_stats(const char *where, plumb_backend *be, verify_function verify) {
    enum { R = 5, C = 80, V = 1100, H = 0, Z, DRAWN, GIVEN, COUNT };
    const int64_t sizes[COUNT] = {R * C, R * V, R * 4, R * 4};
    plumb_buffer *buffers[COUNT];
    plumb_weight *w;
    plumb_operand *x;
    plumb_batch *batch;
    plumb_forest f = {0};
    float values[V * C];
    int32_t tokens[R];
    plumb_tensor none = {0};
    for (int64_t i = 0; i < V * C; i++) values[i] = full_value(0, i) * 0.3f;
    for (int i = 0; i < COUNT; i++) must(be->ops->buffer_create(be, sizes[i], "drawn tokens", &buffers[i]), "buffer_create");
    must(be->ops->weight_create(be, V, C, PLUMB_STORE_NATIVE, NULL, &w), "weight_create");
    must(be->ops->operand_create(be, R, C, &x), "operand_create");
    PLUMB_RUN(be, weight_write, w, 0, V, values);
    add_segment(&f, -1, R);
    for (int32_t j = 0; j < R; j++) {
        tokens[j] = (j * 397 + 11) % V;
        must(plumb_forest_target(&f, j, tokens[j], 0), "forest_target");
    }
    must(plumb_forest_finish(&f), "forest_finish");
    must(be->ops->batch_create(be, &f, &batch), "batch_create");
    plumb_tensor h = plumb_tensor_of(buffers[H], 0, R, C), z = plumb_tensor_of(buffers[Z], 0, R, V);
    plumb_tensor drawn = plumb_tensor_of(buffers[DRAWN], 0, R, 4), given = plumb_tensor_of(buffers[GIVEN], 0, R, 4);
    PLUMB_RUN(be, write, h, values + 3);
    PLUMB_RUN(be, head_forward, given, none, none, h, w, 0.7, (size_t)1 << 20, batch);
    PLUMB_RUN(be, operand_pack, x, h, PLUMB_BY_COLUMNS, none);
    PLUMB_RUN(be, linear_forward, &(plumb_product){z, &(plumb_term){x, w}, 1, none}, 1);
    PLUMB_RUN(be, token_stats, drawn, z, tokens, 0.7);
    float a[R * 4], b[R * 4];
    PLUMB_RUN(be, read, drawn, a);
    PLUMB_RUN(be, read, given, b);
    must(plumb_backend_fault(be), "statistics of tokens");
    verify(a[0] < 0 && memcmp(a, b, sizeof a) == 0, where, "statistics of drawn tokens differ from those of targets");
    for (int i = 0; i < COUNT; i++) be->ops->buffer_free(be, buffers[i]);
    be->ops->weight_free(be, w);
    be->ops->operand_free(be, x);
    be->ops->batch_free(be, batch);
    plumb_forest_free(&f);
}
/* The direction that head_forward keeps of the entropy against differences of the entropy itself, along the row and at a temperature. */
static void check_entropy_direction(const char *where, plumb_backend *be, verify_function verify) {
    enum { C = 40, V = 600, H = 0, STATS, U, E, COUNT };
    const int64_t sizes[COUNT] = {3 * C, 3 * 4, 3 * C, 3 * C};
    plumb_buffer *buffers[COUNT];
    plumb_weight *w;
    plumb_batch *batch;
    plumb_forest f = {0};
    static float values[V * C];
    float h[3 * C];
    double stats[12], e[3 * C], along = 0, step = 0.02;
    /* far from a distribution of one token */
    for (int64_t i = 0; i < V * C; i++) values[i] = (float)(0.6 * sin(0.37 * (double)i + 0.001 * (double)(i * i % 977)));
    for (int i = 0; i < COUNT; i++) must(be->ops->buffer_create(be, sizes[i], "entropy", &buffers[i]), "buffer_create");
    must(be->ops->weight_create(be, V, C, PLUMB_STORE_NATIVE, NULL, &w), "weight_create");
    PLUMB_RUN(be, weight_write, w, 0, V, values);
    add_segment(&f, -1, 3);
    for (int32_t j = 0; j < 3; j++) must(plumb_forest_target(&f, j, 5, 0), "forest_target");
    must(plumb_forest_finish(&f), "forest_finish");
    must(be->ops->batch_create(be, &f, &batch), "batch_create");
    plumb_tensor th = plumb_tensor_of(buffers[H], 0, 3, C), ts = plumb_tensor_of(buffers[STATS], 0, 3, 4),
                 tu = plumb_tensor_of(buffers[U], 0, 3, C), te = plumb_tensor_of(buffers[E], 0, 3, C);
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < C; c++) h[r * C + c] = (float)sin(1.1 * c + 0.3);
    for (int pass = 0; pass < 2; pass++) { /* the direction; then the row a step along it and back */
        for (int c = 0; c < C && pass; c++) h[C + c] += (float)(step * e[c] / along), h[2 * C + c] -= (float)(step * e[c] / along);
        PLUMB_RUN(be, write, th, h);
        PLUMB_RUN(be, head_forward, ts, tu, te, th, w, 1.3, (size_t)1 << 20, batch);
        PLUMB_RUN(be, read_f64, ts, stats);
        if (!pass) PLUMB_RUN(be, read_f64, te, e);
        for (int c = 0; c < C && !pass; c++) along += e[c] * e[c];
        if (!pass) along = sqrt(along);
    }
    must(plumb_backend_fault(be), "the entropy's direction");
    double difference = (stats[1 * 4 + 2] - stats[2 * 4 + 2]) / (2 * step);
    char what[160];
    snprintf(what, sizeof what, "entropy changes by %.6g along a direction, its derivative says %.6g", difference, along);
    verify(fabs(difference) > 1e-3 && fabs(along - difference) < 0.02 * fabs(difference), where, what);
    for (int i = 0; i < COUNT; i++) be->ops->buffer_free(be, buffers[i]);
    be->ops->weight_free(be, w);
    be->ops->batch_free(be, batch);
    plumb_forest_free(&f);
}
static void check_lone_token(const char *where, plumb_backend *be, verify_function verify) {
    enum { O, LSE, Q, K, V, DO, DQ, DK, DV, COUNT };
    const plumb_attention a = {3, 1, 64, 0.125};
    plumb_buffer *buffers[COUNT];
    plumb_tensor t[COUNT];
    plumb_forest f = {0};
    plumb_batch *batch;
    plumb_kv *kv;
    add_segment(&f, -1, 1);
    must(plumb_forest_finish(&f), "forest_finish");
    must(be->ops->batch_create(be, &f, &batch), "batch_create");
    must(be->ops->kv_create(be, 1, f.n_slots, &a, &kv), "kv_create");
    for (int i = 0; i < COUNT; i++) {
        int64_t cols = i == LSE ? 3 : i == K || i == V || i == DK || i == DV ? 64 : 192;
        float value[192] = {0};
        for (int64_t c = 0; c < cols && i >= Q && i <= DO; c++) value[c] = full_value(i, c);
        must(be->ops->buffer_create(be, cols, "lone token", &buffers[i]), "buffer_create");
        t[i] = plumb_tensor_of(buffers[i], 0, 1, cols);
        PLUMB_RUN(be, write, t[i], value);
    }
    PLUMB_RUN(be, attention_forward, &a, t[O], t[LSE], t[Q], t[K], t[V], kv, 0, batch);
    PLUMB_RUN(be, attention_backward, &a, t[DQ], t[DK], t[DV], t[DO], t[O], t[LSE], t[Q], t[K], t[V], kv, batch);
    double dq[192], dk[64], worst = 0;
    PLUMB_RUN(be, read_f64, t[DQ], dq);
    PLUMB_RUN(be, read_f64, t[DK], dk);
    must(plumb_backend_fault(be), "attention of one token");
    for (int c = 0; c < 192; c++) worst = fmax(worst, fmax(fabs(dq[c]), fabs(dk[c % 64])));
    char what[120];
    snprintf(what, sizeof what, "a token alone has a gradient of %.1e by its query or key", worst);
    verify(worst < 1e-2, where, what);
    for (int i = 0; i < COUNT; i++) be->ops->buffer_free(be, buffers[i]);
    be->ops->kv_free(be, kv);
    be->ops->batch_free(be, batch);
    plumb_forest_free(&f);
}

/* --- weights ---------------------------------------------------------------------------------- */
static float as_stored(const plumb_backend *be, float v) {
    return be->compute == PLUMB_COMPUTE_BF16 ? plumb_bf16_float(plumb_bf16(v)) : v;
}

static bool weight_holds(plumb_backend *be, const plumb_weight *w, int64_t first, int64_t rows, int64_t k) {
    float *out = malloc((size_t)(rows * k + 1) * sizeof *out);
    bool good = true;
    PLUMB_RUN(be, weight_read, w, first, rows, out);
    for (int64_t e = 0; e < rows * k; e++) good &= out[e] == as_stored(be, full_value(first + e / k, e % k));
    free(out);
    return good;
}

static void check_weight(const char *where, plumb_backend *be, int64_t n, int64_t k, bool own, verify_function verify) {
    plumb_weight *w;
    plumb_buffer *b;
    size_t bytes = be->ops->weight_bytes(be, n, k, PLUMB_STORE_NATIVE);
    void *memory = own ? NULL : aligned_alloc(64, (size_t)plumb_round_up((int64_t)bytes, 64));
    if (memory) memset(memory, 0xff, bytes); /* the back end may not count on zeros */
    float *from = malloc((size_t)(n * k) * sizeof *from);
    for (int64_t e = 0; e < n * k; e++) from[e] = full_value(e / k, e % k);
    must(be->ops->weight_create(be, n, k, PLUMB_STORE_NATIVE, memory, &w), "weight_create");
    int64_t cut = n > 64 ? 64 : 0;                                /* a multiple of 32 */
    PLUMB_RUN(be, weight_write, w, cut, n - cut, from + cut * k); /* in two ranges, the second first */
    PLUMB_RUN(be, weight_write, w, 0, cut, from);
    verify(weight_holds(be, w, 0, n, k), where, "weight_read is not what weight_write wrote");
    verify(weight_holds(be, w, cut, (n - cut + 1) / 2, k), where,
           "weight_read of some of the rows is not what weight_write wrote");
    for (int64_t e = 0; e < n * k; e++) from[e] = 0;
    PLUMB_RUN(be, weight_write, w, 0, n, from);
    for (int64_t e = 0; e < n * k; e++) from[e] = full_value(e / k, e % k);
    must(be->ops->buffer_create(be, n * (k + 2), "w", &b), "buffer_create");
    plumb_tensor t = {b, 1, n, k, k + 2};
    PLUMB_RUN(be, write, t, from);
    PLUMB_RUN(be, weight_from, w, t);
    verify(weight_holds(be, w, 0, n, k), where, "weight_read is not what weight_from gave");
    must(plumb_backend_fault(be), "weights");
    be->ops->buffer_free(be, b);
    be->ops->weight_free(be, w);
    free(memory);
    free(from);
}

/* x I^T and I w^T: packing rounds to nearest even and does nothing else. */
static void check_packing(const char *where, plumb_backend *be, verify_function verify) {
    enum { T = 37, K = 48 };
    float x[T * K], one[K * K] = {0}, y[T * K], scale[T];
    for (int i = 0; i < T * K; i++) x[i] = full_value(i / K, i % K);
    for (int i = 0; i < T; i++) scale[i] = i % 3 ? 0.37f * (float)i : 0;
    for (int i = 0; i < K; i++) one[i * K + i] = 1;
    plumb_buffer *b;
    plumb_weight *w;
    plumb_operand *o;
    must(be->ops->buffer_create(be, 2 * T * K + T, "x", &b), "buffer_create");
    must(be->ops->weight_create(be, K, K, PLUMB_STORE_NATIVE, NULL, &w), "weight_create");
    must(be->ops->operand_create(be, T, K, &o), "operand_create");
    plumb_tensor tx = plumb_tensor_of(b, 0, T, K), ty = plumb_tensor_of(b, T * K, T, K),
                 ts = plumb_tensor_of(b, 2 * T * K, T, 1);
    plumb_term term = {o, w};
    PLUMB_RUN(be, write, tx, x);
    PLUMB_RUN(be, write, ts, scale);
    PLUMB_RUN(be, weight_write, w, 0, K, one);
    for (int way = 0; way < 4; way++) {
        bool rows = way & 1, scaled = way & 2, good = true;
        PLUMB_RUN(be, operand_pack, o, tx, rows ? PLUMB_BY_ROWS : PLUMB_BY_COLUMNS, scaled ? ts : absent());
        if (rows)
            PLUMB_RUN(be, linear_backward, ty, &term, 1);
        else
            PLUMB_RUN(be, linear_forward, &(plumb_product){ty, &term, 1, absent()}, 1);
        PLUMB_RUN(be, read, ty, y);
        for (int i = 0; i < T * K; i++)
            good &= y[i] == as_stored(be, scaled ? (float)((double)x[i] * (double)scale[i / K]) : x[i]);
        char what[80];
        snprintf(what, sizeof what, "a packed value is not the rounded value (by %s%s)", rows ? "rows" : "columns",
                 scaled ? ", scaled" : "");
        verify(good, where, what);
    }
    must(plumb_backend_fault(be), "packing");
    be->ops->operand_free(be, o);
    be->ops->weight_free(be, w);
    be->ops->buffer_free(be, b);
}

void check_special(const char *where, plumb_backend *be, verify_function verify) {
    check_known(where, be, verify);
    int64_t before = be->bytes; /* a back end may keep working memory */
    check_decoding(where, be, verify);
    check_token_stats(where, be, verify);
    if (be->compute == PLUMB_COMPUTE_F32) check_entropy_direction(where, be, verify); /* bf16 rounds such small steps away */
    check_lone_token(where, be, verify);
    for (int own = 0; own < 2; own++) {
        check_weight(where, be, 131, 48, own, verify);
        check_weight(where, be, 1, 1, own, verify);
        check_weight(where, be, 64, 33, own, verify);
        check_weight(where, be, 97, 131, own, verify);
    }
    check_packing(where, be, verify);
    verify(be->bytes == before, where, "memory is left after everything was freed");
}
