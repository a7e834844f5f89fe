/* Prints the arithmetic ceiling of this machine now: bench_ceiling [threads] -> "fp32 GFLOP/s, bf16 GFLOP/s or 0". */
#include "ceiling.h"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : omp_get_num_procs();
    double best[2] = {0};
    for (int i = 0; i < 100; i++)
        for (int bf16 = 0; bf16 <= (__builtin_cpu_supports("avx512bf16") != 0); bf16++) {
            double rate = bench_ceiling(threads, bf16);
            if (rate > best[bf16]) best[bf16] = rate;
        }
    printf("%.1f %.1f\n", best[0], best[1]);
    return 0;
}
