/* How fast are the products of decoding, beside what the memory and the arithmetic units of this machine can do?  bench_rollout
 * [threads] [seconds per line] [fp32|bf16|int8|int4|w8a8|w4a8]
 *
 * One sweep goes through every matrix of a model of SmolLM2-135M's sizes, once each, so that weights come from memory and not from a
 * cache. The machine may be shared, which can only make things slower, and for longer than a product lasts: so the best time of each
 * kind of matrix is taken (over layers and sweeps) and a sweep is the sum of those. The read of memory, in pieces of the same size, and
 * the arithmetic ceiling take turns with the sweeps and are the best as well. Correctness first: every row of every product is compared
 * with a plain double loop on a sample of elements. (w8a8 and w4a8 multiply bytes, twice as many at once: their share of the ceiling, which
 * is that of bf16, can pass 100 %.) */
#include "plumb/backend.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ceiling.h"

enum { LAYERS = 30, PER_LAYER = 7, MATRICES = LAYERS * PER_LAYER + 1, SAMPLES = 24, PIECE = 2 << 20 };
static const struct {
    int64_t n, k;
} layer[PER_LAYER] = {{576, 576}, {192, 576}, {192, 576}, {576, 576}, {1536, 576}, {1536, 576}, {576, 1536}}, head = {49152, 576};

static float noise(uint64_t i) {
    i ^= i >> 31, i *= 0x7fb5d329728ea185ull, i ^= i >> 27, i *= 0x81dadef4bc2dd44dull, i ^= i >> 33;
    return (float)((double)(int64_t)i * 0x1p-63);
}
static void fail(plumb_status s) {
    if (s == PLUMB_OK) return;
    fprintf(stderr, "bench_rollout: %s\n", plumb_error_message());
    exit(1);
}

typedef struct model {
    plumb_backend *be;
    plumb_storage storage;
    plumb_weight *w[MATRICES];
    plumb_operand *x[2]; /* of 576 and 1536 columns */
    plumb_buffer *b;
    double bytes, weights;
    char *memory; /* of all weights: one block of large pages */
} model;
static int64_t rows_of(int i) { return i < MATRICES - 1 ? layer[i % PER_LAYER].n : head.n; }
static int64_t cols_of(int i) { return i < MATRICES - 1 ? layer[i % PER_LAYER].k : head.k; }
static float value_of(int i, int64_t n, int64_t k) { return noise((uint64_t)(i + 1) << 40 ^ (uint64_t)(n * 4096 + k)); }

static void create(model *m, plumb_backend *be, plumb_storage storage, int64_t most) {
    *m = (model){.be = be, .storage = storage};
    size_t total = 0, at = 0;
    for (int i = 0; i < MATRICES; i++) total += (be->ops->weight_bytes(be, rows_of(i), cols_of(i), storage) + 4095) / 4096 * 4096;
    m->memory = bench_large_block(total);
    for (int i = 0; i < MATRICES; i++) {
        int64_t n = rows_of(i), k = cols_of(i);
        fail(be->ops->weight_create(be, n, k, m->storage, m->memory + at, &m->w[i]));
        at += (be->ops->weight_bytes(be, n, k, storage) + 4095) / 4096 * 4096;
        m->bytes += (double)be->ops->weight_bytes(be, n, k, m->storage), m->weights += (double)(n * k);
        float *part = malloc((size_t)(64 * k) * sizeof *part);
        for (int64_t first = 0; first < n; first += 64) {
            for (int64_t e = 0; e < 64 * k; e++) part[e] = value_of(i, first + e / k, e % k);
            PLUMB_RUN(be, weight_write, m->w[i], first, 64, part);
        }
        free(part);
    }
    fail(be->ops->buffer_create(be, most * (head.n + 1536), "bench", &m->b));
    fail(be->ops->operand_create(be, most, 576, &m->x[0]));
    fail(be->ops->operand_create(be, most, 1536, &m->x[1]));
}
static int kind_of(int i) { return i == MATRICES - 1 ? PER_LAYER : i % PER_LAYER; }
static void sweep(model *m, int64_t M, double best[PER_LAYER + 1]) {
    plumb_tensor none = {0};
    for (int i = 0; i < MATRICES; i++) {
        double start = plumb_clock();
        PLUMB_RUN(m->be, linear_forward,
                  &(plumb_product){plumb_tensor_of(m->b, 0, M, rows_of(i)), &(plumb_term){m->x[cols_of(i) == 1536], m->w[i]}, 1, none}, 1);
        best[kind_of(i)] = fmin(best[kind_of(i)], plumb_clock() - start);
    }
}
/* The operands are filled and the head, the down projection of the last layer and its q are checked against what the back end itself
 * says the weights are. */
static void prepare(model *m, int64_t M, double allowed) {
    plumb_tensor none = {0};
    float *x = malloc((size_t)(M * 1536) * sizeof *x);
    for (int64_t e = 0; e < M * 1536; e++) x[e] = noise((uint64_t)e + 77);
    for (int wide = 0; wide < 2; wide++) {
        plumb_tensor t = plumb_tensor_of(m->b, M * head.n, M, wide ? 1536 : 576);
        PLUMB_RUN(m->be, write, t, x);
        PLUMB_RUN(m->be, operand_pack, m->x[wide], t, PLUMB_BY_COLUMNS, none);
    }
    for (int which = 0; which < 3; which++) {
        int i = which == 0 ? MATRICES - 1 : which == 1 ? MATRICES - 2 : MATRICES - 1 - PER_LAYER;
        int64_t n = rows_of(i), k = cols_of(i);
        float *y = malloc((size_t)(M * n) * sizeof *y), *w = malloc((size_t)(32 * k) * sizeof *w);
        plumb_tensor ty = plumb_tensor_of(m->b, 0, M, n);
        PLUMB_RUN(m->be, linear_forward, &(plumb_product){ty, &(plumb_term){m->x[k == 1536], m->w[i]}, 1, none}, 1);
        PLUMB_RUN(m->be, read, ty, y);
        for (int64_t s = 0; s < SAMPLES; s++) {
            int64_t c = s * 104729 % n, r = s % M;
            double sum = 0, size = 0;
            PLUMB_RUN(m->be, weight_read, m->w[i], c / 32 * 32, plumb_min64(32, n - c / 32 * 32), w);
            for (int64_t e = 0; e < k; e++) {
                double term = (double)x[r * k + e] * w[c % 32 * k + e];
                sum += term, size += fabs(term);
            }
            if (fabs(sum - y[r * n + c]) > allowed * size)
                printf("  WRONG: matrix %d, row %lld, lane %lld, M=%lld: %g is not %g\n", i, (long long)r, (long long)c, (long long)M,
                       y[r * n + c], sum);
        }
        free(y), free(w);
    }
    free(x);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 2;
    double patience = argc > 2 ? atof(argv[2]) : 1.0;
    const char *only = argc > 3 ? argv[3] : NULL;
    static const int64_t rows[] = {1, 2, 4, 8, 16, 32, 64};
    int64_t bytes = (int64_t)256 << 20;
    char *memory = bench_large_block((size_t)bytes);
    static const struct { const char *name, *precision; plumb_storage storage;
    } types[] = {{"fp32", "fp32", PLUMB_STORE_NATIVE},
                 {"bf16", "bf16", PLUMB_STORE_NATIVE},
                 {"int8", "auto", PLUMB_STORE_INT8},
                 {"int4", "auto", PLUMB_STORE_INT4},
                 {"w8a8", "auto", PLUMB_STORE_W8A8},
                 {"w4a8", "auto", PLUMB_STORE_W4A8}};
    for (size_t p = 0; p < sizeof types / sizeof *types; p++) {
        if (only && strcmp(only, types[p].name) != 0) continue;
        plumb_backend *be;
        model m;
        const char *note = NULL;
        fail(plumb_backend_create(&be, &(plumb_backend_options){.backend = "cpu", .precision = types[p].precision, .threads = threads},
                                  &note));
        bool bf16 = be->compute == PLUMB_COMPUTE_BF16;
        if (note) {
            printf("%s: %s\n", types[p].name, note);
            plumb_backend_free(be);
            continue;
        }
        create(&m, be, types[p].storage, 64);
        printf("%s weights, products in %s, %s, %d thread%s: %.1f MB\n", types[p].name, bf16 ? "bf16" : "fp32", be->isa, threads,
               threads > 1 ? "s" : "", m.bytes / 1e6);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            double kinds[PER_LAYER + 1], best = 0, bandwidth = 0, ceiling = 0, start = plumb_clock();
            prepare(&m, rows[i], plumb_rounds_rows(types[p].storage) ? 3e-3 : bf16 ? 1e-2 : 1e-5);
            for (int k = 0; k <= PER_LAYER; k++) kinds[k] = 1e30;
            for (int turn = 0; turn < 3 || plumb_clock() - start < patience; turn++) {
                sweep(&m, rows[i], kinds);
                for (int64_t at = 0; at < bytes; at += PIECE) bandwidth = fmax(bandwidth, bench_read(memory + at, PIECE, threads));
                for (int k = 0; k < 8; k++) ceiling = fmax(ceiling, bench_ceiling(threads, bf16));
            }
            for (int k = 0; k <= PER_LAYER; k++) best += kinds[k] * (k < PER_LAYER ? LAYERS : 1);
            double gigabytes = m.bytes / best / 1e9, gigaflops = 2 * m.weights * (double)rows[i] / best / 1e9;
            printf("  M=%-3lld %8.2f ms  %7.1f rows/s  %6.1f GB/s = %3.0f %% of %.1f read  %8.1f GFLOP/s = %3.0f %% of %.0f\n",
                   (long long)rows[i], best * 1e3, (double)rows[i] / best, gigabytes, 100 * gigabytes / bandwidth, bandwidth, gigaflops,
                   100 * gigaflops / ceiling, ceiling);
            fflush(stdout);
        }
        for (int i = 0; i < MATRICES; i++) be->ops->weight_free(be, m.w[i]);
        be->ops->operand_free(be, m.x[0]), be->ops->operand_free(be, m.x[1]), be->ops->buffer_free(be, m.b);
        free(m.memory);
        plumb_backend_free(be);
    }
    free(memory);
    return 0;
}
