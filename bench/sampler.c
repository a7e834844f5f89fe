/* What does a token's draw cost?  bench_sampler [vocabulary] Microseconds from logits to a token, best of 100 and median, for each
 * instruction set of this processor and each kind of sampling; normal logits with a spread of 2.5, a history of 1,000 tokens.
 * Correctness first: every set must draw the same tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../src/rollout/sampler_internal.h"

enum { RUNS = 100, HISTORY = 1000 };
static void fail(plumb_status s) {
    if (s == PLUMB_OK) return;
    fprintf(stderr, "bench_sampler: %s\n", plumb_error_message());
    exit(1);
}
static int by_value(const void *a, const void *b) {
    return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b;
}

int main(int argc, char **argv) {
    int64_t V = argc > 1 ? atoll(argv[1]) : 49152;
    const struct { const char *name; plumb_sampling o;
    } kinds[] = {{"greedy", {false, 1, 0, 1, 0, 1, 1, 0, 10, NULL, 0}},
                 {"plain", {true, 1, 0, 1, 0, 1, 1, 0, 10, NULL, 0}},
                 {"temperature", {true, 0.7, 0, 1, 0, 1, 1, 0, 10, NULL, 0}},
                 {"penalty", {true, 0.7, 0, 1, 0, 1, 1.1, 0, 10, NULL, 0}},
                 {"top-k 50", {true, 1, 50, 1, 0, 1, 1, 0, 10, NULL, 0}},
                 {"top-k 20000", {true, 1, 20000, 1, 0, 1, 1, 0, 10, NULL, 0}},
                 {"top-p 0.9", {true, 1, 0, 0.9, 0, 1, 1, 0, 10, NULL, 0}},
                 {"min-p 0.05", {true, 1, 0, 1, 0.05, 1, 1, 0, 10, NULL, 0}},
                 {"typical-p 0.9", {true, 1, 0, 1, 0, 0.9, 1, 0, 10, NULL, 0}},
                 {"all, k 50", {true, 0.8, 50, 0.9, 0.05, 0.9, 1.1, 0, 10, NULL, 0}},
                 {"all, k 20000", {true, 0.8, 20000, 0.9, 0.0005, 0.9, 1.1, 0, 10, NULL, 0}},
                 {"top-p, flat", {true, 1000, 0, 0.9, 0, 1, 1, 0, 10, NULL, 0}}};
    const plumb_sampler_kernels *sets[3];
    int n = plumb_sampler_kernel_sets(sets);
    plumb_sampler *s;
    fail(plumb_sampler_create(&s, V));
    float *logits = malloc((size_t)V * sizeof *logits), *z = malloc((size_t)V * sizeof *z);
    if (!logits || !z) return 1;
    for (int64_t i = 0; i < V; i++) logits[i] = (float)(2.5 * plumb_rng_normal(&(plumb_rng_key){1, 0, 0, 0, (uint32_t)i, PLUMB_SITE_TEST}));
    int32_t history[HISTORY];
    for (int i = 0; i < HISTORY; i++) history[i] = (int32_t)(i * 37 % V);
    printf("%lld tokens; us per draw, best (median)\n", (long long)V);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        int32_t first[RUNS] = {0};
        printf("%-14s", kinds[k].name);
        for (int set = 0; set < n; set++) {
            double times[RUNS];
            s->kernels = sets[set];
            for (int r = 0; r < RUNS; r++) {
                int32_t token;
                memcpy(z, logits, (size_t)V * sizeof *z);
                double start = plumb_clock();
                fail(plumb_sampler_pick(s, &kinds[k].o, z, history, HISTORY, 10, &(plumb_sampling_key){1, 2, 3, 4}, r, &token));
                times[r] = 1e6 * (plumb_clock() - start);
                if (set == 0) first[r] = token;
                else if (token != first[r]) return fprintf(stderr, "bench_sampler: %s draws another token than plain\n", sets[set]->isa), 1;
            }
            qsort(times, RUNS, sizeof *times, by_value);
            printf("  %s %4.0f (%4.0f)", sets[set]->isa, times[0], times[RUNS / 2]);
        }
        printf("\n");
    }
    free(logits), free(z);
    plumb_sampler_free(s);
    return 0;
}
