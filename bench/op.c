/* How fast are the products, beside what this processor can do?  bench_op [threads] [rows]
 * The machine may be shared and its clock may move, so the ceiling is measured beside every run and the ratio is taken run by run.
 * Correctness first: every product is compared with a plain double loop on a sample of elements. */
#include "plumb/backend.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "ceiling.h"

static float noise(uint64_t i) {
    i ^= i >> 31, i *= 0x7fb5d329728ea185ull, i ^= i >> 27, i *= 0x81dadef4bc2dd44dull, i ^= i >> 33;
    return (float)((double)(int64_t)i * 0x1p-63);
}
static float *filled(int64_t n, uint64_t seed) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = noise((uint64_t)i + seed);
    return x;
}
static void fail(plumb_status s) {
    if (s == PLUMB_OK) return;
    fprintf(stderr, "bench_op: %s\n", plumb_error_message());
    exit(1);
}

enum { RUNS = 512 };
static int by_value(const void *a, const void *b) {
    return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b;
}
static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

typedef struct shape { const char *name; int64_t n, k; } shape;

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    int64_t M = argc > 2 ? atoll(argv[2]) : 256;
    const char *precisions[] = {"fp32", "bf16"};
    const shape shapes[] = {{"q,o", 576, 576},    {"k,v", 192, 576},   {"gate,up", 1536, 576}, {"down", 576, 1536},
                            {"head", 49152, 576}, {"lora A", 16, 576}, {"lora B", 576, 16}};
    for (int p = 0; p < 2; p++) {
        plumb_backend *be;
        const char *note = NULL;
        fail(plumb_backend_create(&be, &(plumb_backend_options){.backend = "cpu", .precision = precisions[p], .threads = threads}, &note));
        if (p && be->compute != PLUMB_COMPUTE_BF16) {
            printf("bf16: %s\n", note ? note : "not on this processor");
            plumb_backend_free(be);
            break;
        }
        printf("%s, %s, %d thread%s, M=%lld; ceiling %.1f GFLOP/s now; medians, percent of the ceiling beside each run\n", be->isa,
               precisions[p], threads, threads > 1 ? "s" : "", (long long)M, bench_ceiling(threads, p == 1));
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            int64_t N = shapes[i].n, K = shapes[i].k;
            float *x = filled(M * K, 1), *w = filled(N * K, 2), *dy = filled(M * N, 3), *out = malloc((size_t)(M * (N > K ? N : K)) * 4),
                  *dw = malloc((size_t)(N * K) * 4);
            plumb_buffer *bx, *by, *bdx, *bdw;
            fail(be->ops->buffer_create(be, M * K, "bench", &bx));
            fail(be->ops->buffer_create(be, M * N, "bench", &by));
            fail(be->ops->buffer_create(be, M * K, "bench", &bdx));
            fail(be->ops->buffer_create(be, N * K, "bench", &bdw));
            plumb_tensor tx = plumb_tensor_of(bx, 0, M, K), ty = plumb_tensor_of(by, 0, M, N), tdx = plumb_tensor_of(bdx, 0, M, K),
                         tdw = plumb_tensor_of(bdw, 0, N, K), none = {0};
            plumb_weight *W;
            plumb_operand *ox, *oy;
            fail(be->ops->weight_create(be, N, K, PLUMB_STORE_NATIVE, NULL, &W));
            fail(be->ops->operand_create(be, M, K, &ox));
            fail(be->ops->operand_create(be, M, N, &oy));
            PLUMB_RUN(be, weight_write, W, 0, N, w);
            PLUMB_RUN(be, write, tx, x);
            double flops = 2.0 * (double)M * (double)N * (double)K, t[3], percent[3], share[RUNS], rate[RUNS];
            for (int op = 0; op < 3; op++) {
                PLUMB_RUN(be, write, ty, dy);
                double start = plumb_clock(), begin, before = bench_ceiling(threads, p == 1);
                int runs = 0;
                do {
                    begin = plumb_clock();
                    if (op == 0) {
                        PLUMB_RUN(be, operand_pack, ox, tx, PLUMB_BY_COLUMNS, none);
                        PLUMB_RUN(be, linear_forward, &(plumb_product){ty, &(plumb_term){ox, W}, 1, none}, 1);
                    } else if (op == 1) {
                        PLUMB_RUN(be, operand_pack, oy, ty, PLUMB_BY_ROWS, none);
                        PLUMB_RUN(be, linear_backward, tdx, &(plumb_term){oy, W}, 1);
                    } else {
                        PLUMB_RUN(be, linear_gradient, tdw, oy, ox);
                    }
                    double seconds = plumb_clock() - begin, after = bench_ceiling(threads, p == 1);
                    share[runs] = flops / seconds / 1e9 / (0.5 * (before + after));
                    rate[runs++] = flops / seconds / 1e9;
                    before = after;
                } while (plumb_clock() - start < 0.5 && runs < RUNS);
                t[op] = median(rate, runs), percent[op] = 100 * median(share, runs);
                double worst = 0;
                if (op == 0) PLUMB_RUN(be, read, ty, out);
                if (op == 1) PLUMB_RUN(be, read, tdx, out);
                for (int64_t s = 0; s < 50 && op < 2; s++) {
                    int64_t m = (s * 7919) % M, c = (s * 104729) % (op ? K : N);
                    double sum = 0, size = 0;
                    for (int64_t r = 0; r < (op ? N : K); r++) {
                        double term = op ? (double)dy[m * N + r] * w[r * K + c] : (double)x[m * K + r] * w[c * K + r];
                        sum += term, size += fabs(term);
                    }
                    worst = fmax(worst, fabs(sum - out[m * (op ? K : N) + c]) / size);
                }
                if (worst > (p ? 2e-2 : 1e-5)) printf("  WRONG: %s op %d differs by %.1e\n", shapes[i].name, op, worst);
            }
            printf("  %-8s %6lld x %-5lld forward %6.1f GFLOP/s (%3.0f %%)  backward %6.1f (%3.0f %%)  gradient %6.1f (%3.0f %%)\n",
                   shapes[i].name, (long long)N, (long long)K, t[0], percent[0], t[1], percent[1], t[2], percent[2]);
            be->ops->weight_free(be, W), be->ops->operand_free(be, ox), be->ops->operand_free(be, oy);
            be->ops->buffer_free(be, bx), be->ops->buffer_free(be, by), be->ops->buffer_free(be, bdx), be->ops->buffer_free(be, bdw);
            free(x), free(w), free(dy), free(out), free(dw);
        }
        plumb_backend_free(be);
    }
    return 0;
}
