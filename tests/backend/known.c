/* Small cases whose answers are known in closed form: finite differences would not notice a forward pass that is wrong
 * in itself. See special.h. */
#include "special.h"
#include "ops.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROOM = 4096 };
typedef struct bench {
    plumb_backend *be;
    plumb_buffer *buffer;
    int64_t used;
} bench;

/* A [rows, cols] view of fresh room with these values. */
static plumb_tensor tensor(bench *b, int64_t rows, int64_t cols, const float *value) {
    plumb_tensor t = plumb_tensor_of(b->buffer, b->used, rows, cols);
    b->used += rows * cols;
    if (b->used > ROOM) die("the buffer of the known answers is too small");
    if (value) PLUMB_RUN(b->be, write, t, value);
    return t;
}

static bool holds(bench *b, plumb_tensor t, const double *expected, double tolerance) {
    double found[ROOM];
    bool good = true;
    PLUMB_RUN(b->be, read_f64, t, found);
    for (int64_t i = 0; i < t.rows * t.cols; i++)
        good &= fabs(found[i] - expected[i]) <= tolerance * (1 + fabs(expected[i]));
    return good;
}

static void known_rows(bench *b, const char *where, verify_function verify) {
    plumb_tensor x = tensor(b, 1, 2, (const float[]){1, 3}), delta = tensor(b, 1, 2, (const float[]){2, 1}),
                 y = tensor(b, 1, 2, NULL), sum = tensor(b, 1, 2, NULL);
    plumb_tensor gain = tensor(b, 1, 2, (const float[]){1, -2}), rstd = tensor(b, 1, 1, NULL);
    PLUMB_RUN(b->be, rmsnorm_forward, y, x, delta, sum, gain, rstd, 0.5); /* the sum is (3, 4); mean square 12.5 */
    double r = 1 / sqrt(13);
    verify(holds(b, sum, (const double[]){3, 4}, 0) && holds(b, x, (const double[]){1, 3}, 0), where,
           "rmsnorm does not add delta, or changes x");
    verify(holds(b, rstd, &r, 1e-6) && holds(b, y, (const double[]){3 * r, -8 * r}, 1e-6), where, "rmsnorm of (3, 4)");
    plumb_tensor gate = tensor(b, 1, 4, (const float[]){0, 1, -1, 50}),
                 up = tensor(b, 1, 4, (const float[]){7, 2, 2, 3});
    plumb_tensor h = tensor(b, 1, 4, NULL);
    PLUMB_RUN(b->be, swiglu_forward, h, gate, up);
    verify(holds(b, h, (const double[]){0, 1.4621171572600098, -0.5378828427399902, 150}, 1e-6), where,
           "swiglu of 0, 1, -1, 50");
    plumb_tensor far = tensor(b, 1, 4, (const float[]){-1000, 1000, -88, 88}),
                 one = tensor(b, 1, 4, (const float[]){1, 1, 1, 1});
    PLUMB_RUN(b->be, swiglu_forward, h, far, one);
    verify(holds(b, h, (const double[]){0, 1000, 0, 88}, 1e-6), where, "swiglu far from zero");
}

/* Two heads of size 4 at position 1; the table's row 1 turns the first pair by 90 degrees and the second by 180. */
static void known_rope(bench *b, const char *where, verify_function verify) {
    plumb_forest f = {0};
    plumb_batch *batch;
    must(plumb_forest_add(&f, -1, (const int32_t[]){0, 0}, 2, -1, 0, NULL), "forest_add");
    must(plumb_forest_finish(&f), "forest_finish");
    must(b->be->ops->batch_create(b->be, &f, &batch), "batch_create");
    plumb_tensor table = tensor(b, 2, 4, (const float[]){1, 1, 0, 0, 0, -1, 1, 0});
    plumb_tensor x = tensor(b, 2, 8, (const float[]){1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8});
    PLUMB_RUN(b->be, rope_forward, x, table, 4, batch);
    verify(holds(b, x, (const double[]){1, 2, 3, 4, 5, 6, 7, 8, -3, -2, 1, -4, -7, -6, 5, -8}, 1e-6), where,
           "rope by 90 and 180 degrees");
    b->be->ops->batch_free(b->be, batch);
    plumb_forest_free(&f);
}

/* Equal keys: the output is the mean of the values on the path, log-sum-exp = score + log of their number. Two children
 * of a prompt. */
static void known_attention(bench *b, const char *where, verify_function verify) {
    const plumb_attention a = {2, 1, 2, 0.5};
    plumb_forest f = {0};
    plumb_batch *batch;
    plumb_kv *kv;
    const int32_t ids[2] = {0, 0};
    must(plumb_forest_add(&f, -1, ids, 2, -1, 0, NULL), "forest_add");
    for (int i = 0; i < 2; i++) must(plumb_forest_add(&f, 0, ids, 1, -1, 0, NULL), "forest_add");
    must(plumb_forest_finish(&f), "forest_finish");
    must(b->be->ops->batch_create(b->be, &f, &batch), "batch_create");
    must(b->be->ops->kv_create(b->be, 1, f.n_slots, &a, &kv), "kv_create");
    plumb_tensor q = tensor(
        b, 4, 4, (const float[]){1, 2, 0, 4, 1, 2, 0, 4, 1, 2, 0, 4, 1, 2, 0, 4}); /* two heads: (1, 2), (0, 4) */
    plumb_tensor k = tensor(b, 4, 2, (const float[]){2, 1, 2, 1, 2, 1, 2, 1});
    plumb_tensor v = tensor(b, 4, 2, (const float[]){1, 0, 3, 0, 8, 3, 2, 6}), o = tensor(b, 4, 4, NULL),
                 lse = tensor(b, 4, 2, NULL);
    PLUMB_RUN(b->be, attention_forward, &a, o, lse, q, k, v, kv, 0, batch);
    double tolerance = b->be->compute == PLUMB_COMPUTE_BF16 ? 1e-2 : 1e-6, two = log(2), three = log(3);
    verify(holds(b, o, (const double[]){1, 0, 1, 0, 2, 0, 2, 0, 4, 1, 4, 1, 2, 2, 2, 2}, tolerance), where,
           "attention to equal keys");
    verify(
        holds(b, lse, (const double[]){2, 2, 2 + two, 2 + two, 2 + three, 2 + three, 2 + three, 2 + three}, tolerance),
        where, "log-sum-exp of equal keys");
    b->be->ops->kv_free(b->be, kv);
    b->be->ops->batch_free(b->be, batch);
    plumb_forest_free(&f);
}

/* Logits (0, x, x): probability of each, entropy, and the first of equal logits as the argmax. */
static void known_head(bench *b, const char *where, verify_function verify) {
    plumb_forest f = {0};
    plumb_batch *batch;
    plumb_weight *w;
    must(plumb_forest_add(&f, -1, (const int32_t[]){0, 0, 0}, 3, -1, 0, NULL), "forest_add");
    for (int i = 0; i < 3; i++) must(plumb_forest_target(&f, i, i, 0), "forest_target");
    must(plumb_forest_finish(&f), "forest_finish");
    must(b->be->ops->batch_create(b->be, &f, &batch), "batch_create");
    must(b->be->ops->weight_create(b->be, 3, 2, PLUMB_STORE_NATIVE, NULL, &w), "weight_create");
    PLUMB_RUN(b->be, weight_write, w, 0, 3, (const float[]){0, 0, 1, 0, 1, 0});
    plumb_tensor h = tensor(b, 3, 2, (const float[]){3, 5, 3, 5, 3, 5}), stats = tensor(b, 3, 4, NULL),
                 u = tensor(b, 3, 2, NULL);
    PLUMB_RUN(b->be, head_forward, stats, u, (plumb_tensor){0}, h, w, 2.0, 1 << 20, batch); /* temperature 2: logits (0, 1.5, 1.5) */
    double e = exp(1.5), lse = log(1 + 2 * e), p0 = 1 / (1 + 2 * e), p = e / (1 + 2 * e),
           entropy = -p0 * log(p0) - 2 * p * log(p);
    const double expected[] = {-lse, lse, entropy, 0, 1.5 - lse, lse, entropy, 1, 1.5 - lse, lse, entropy, 0};
    const double direction[] = {-2 * p / 2, 0, (1 - 2 * p) / 2, 0, (1 - 2 * p) / 2, 0};
    verify(holds(b, stats, expected, 2e-6), where, "statistics of the head for logits (0, 1.5, 1.5)");
    verify(holds(b, u, direction, b->be->compute == PLUMB_COMPUTE_BF16 ? 1e-2 : 2e-6), where,
           "u of the head for logits (0, 1.5, 1.5)");
    b->be->ops->weight_free(b->be, w);
    b->be->ops->batch_free(b->be, batch);
    plumb_forest_free(&f);
}

/* Every element from the key that backend.h names: 3 samples of which the first has two segments. */
static void known_dropout(bench *b, const char *where, verify_function verify) {
    enum { T = 6, C = 11 };
    static const int32_t samples[4] = {5, 9, 5, 2}, counts[4] = {2, 1, 2, 1}, branches[4] = {0, 0, 1, 0},
                         parents[4] = {-1, -1, 0, -1};
    plumb_forest f = {0};
    plumb_batch *batch;
    float x[T * C];
    double expected[T * C];
    for (int i = 0; i < T * C; i++) x[i] = 1.0f + (float)i;
    for (int s = 0; s < 4; s++)
        must(plumb_forest_add(&f, parents[s], (const int32_t[]){0, 0}, counts[s], -1, samples[s], NULL), "forest_add");
    must(plumb_forest_finish(&f), "forest_finish");
    must(b->be->ops->batch_create(b->be, &f, &batch), "batch_create");
    plumb_tensor tx = tensor(b, T, C, x), y = tensor(b, T, C, x);
    PLUMB_RUN(b->be, dropout, y, tx, 0.4, 77, 3, 100, true, batch);
    int dropped = 0;
    for (int i = 0; i < T * C; i++) {
        int s = f.row_segment[i / C], c = i % C;
        plumb_rng_key key = {
            77, 3, (uint32_t)samples[s], (uint32_t)branches[s], (uint32_t)f.positions[i / C], 100 + (uint32_t)c / 4};
        uint32_t numbers[4];
        plumb_rng_block(&key, numbers);
        bool kept = (double)numbers[c % 4] / 4294967296.0 >= 0.4;
        dropped += !kept;
        expected[i] = (double)x[i] + (kept ? (double)x[i] / 0.6 : 0);
    }
    verify(holds(b, y, expected, 1e-6) && dropped > 10 && dropped < 45, where, "dropout does not follow its key");
    b->be->ops->batch_free(b->be, batch);
    plumb_forest_free(&f);
}

void check_known(const char *where, plumb_backend *be, verify_function verify) {
    bench b = {.be = be};
    must(be->ops->buffer_create(be, ROOM, "known answers", &b.buffer), "buffer_create");
    known_rows(&b, where, verify);
    known_rope(&b, where, verify);
    known_attention(&b, where, verify);
    known_head(&b, where, verify);
    known_dropout(&b, where, verify);
    must(plumb_backend_fault(be), "known answers");
    be->ops->buffer_free(be, b.buffer);
}
