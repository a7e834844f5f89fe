/* What this machine can do.  The arithmetic units: independent multiply-adds in registers, in the widest form this processor has, on
 * `threads` threads at once. Memory: plain reading. */
#ifndef BENCH_CEILING_H
#define BENCH_CEILING_H
#include <immintrin.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "plumb/base.h"

static volatile float bench_sink;
#define BENCH_KERNEL(NAME, TARGET, REG, INIT, STEP, LANES)                                                             \
    __attribute__((noinline, target(TARGET))) static double NAME(long n) {                                             \
        REG c[12], a = INIT(0.999f), b = INIT(1e-7f);                                                                  \
        for (int i = 0; i < 12; i++) c[i] = INIT((float)i);                                                            \
        for (long j = 0; j < n; j++) {                                                                                 \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) c[i] = STEP;                                         \
            __asm__ volatile("" : "+x"(a), "+x"(b));                                                                   \
        }                                                                                                              \
        float s = 0;                                                                                                   \
        for (int i = 0; i < 12; i++) s += c[i][0];                                                                     \
        bench_sink = s;                                                                                                \
        return 12.0 * 2 * LANES * (double)n;                                                                           \
    }
#define STEP_512 _mm512_fmadd_ps(a, b, c[i])
#define STEP_256 _mm256_fmadd_ps(a, b, c[i])
#define STEP_BF16 _mm512_dpbf16_ps(c[i], (__m512bh)a, (__m512bh)b)
#define STEP_128 _mm_add_ps(_mm_mul_ps(a, b), c[i])
BENCH_KERNEL(bench_fma_512, "avx512f", __m512, _mm512_set1_ps, STEP_512, 16)
BENCH_KERNEL(bench_fma_256, "avx2,fma", __m256, _mm256_set1_ps, STEP_256, 8)
BENCH_KERNEL(bench_bf16_512, "avx512f,avx512bf16", __m512, _mm512_set1_ps, STEP_BF16, 32)
BENCH_KERNEL(bench_plain_128, "sse2", __m128, _mm_set1_ps, STEP_128, 4)

/* GFLOP/s over about a millisecond. */
static inline double bench_ceiling(int threads, int bf16) {
    double (*kernel)(long) = bf16 && __builtin_cpu_supports("avx512bf16") ? bench_bf16_512
                             : __builtin_cpu_supports("avx512f")          ? bench_fma_512
                             : __builtin_cpu_supports("avx2")             ? bench_fma_256
                                                                          : bench_plain_128;
    double total = 0, start = plumb_clock();
#pragma omp parallel num_threads(threads) reduction(+ : total)
    total += kernel(400000);
    return total / (plumb_clock() - start) / 1e9;
}

enum { BENCH_LARGE = 2 << 20 };
/* Memory in large pages, written once; exits when there is none. */
static inline char *bench_large_block(size_t bytes) {
    bytes = (bytes + BENCH_LARGE - 1) / BENCH_LARGE * BENCH_LARGE;
    char *block = aligned_alloc(BENCH_LARGE, bytes);
    if (!block) exit((fprintf(stderr, "out of memory\n"), 1));
    madvise(block, bytes, MADV_HUGEPAGE);
    memset(block, 1, bytes);
    return block;
}
typedef int64_t bench_v4 __attribute__((vector_size(32)));
#define BENCH_READER(NAME, TARGET)                                                                                     \
    __attribute__((noinline, target(TARGET))) static int64_t NAME(const bench_v4 *p, int64_t n) {                      \
        bench_v4 s[8] = {{0}};                                                                                         \
        for (int64_t i = 0; i + 8 <= n; i += 8) {                                                                      \
            for (int j = 0; j < 4; j++) __builtin_prefetch((const char *)(p + i) + 4096 + 64 * j);                     \
            _Pragma("GCC unroll 8") for (int j = 0; j < 8; j++) s[j] ^= p[i + j];                                      \
        }                                                                                                              \
        for (int j = 1; j < 8; j++) s[0] ^= s[j];                                                                      \
        return s[0][0] ^ s[0][1] ^ s[0][2] ^ s[0][3];                                                                  \
    }
BENCH_READER(bench_read_256, "avx2")
BENCH_READER(bench_read_128, "sse2")
/* GB/s of reading a piece of memory, every thread its own part. */
static inline double bench_read(const char *memory, int64_t bytes, int threads) {
    int64_t (*reader)(const bench_v4 *, int64_t) = __builtin_cpu_supports("avx2") ? bench_read_256 : bench_read_128, total = 0,
                                        part = bytes / threads / 256 * 256;
    double start = plumb_clock();
#pragma omp parallel num_threads(threads) reduction(+ : total)
    total += reader((const bench_v4 *)(memory + part * omp_get_thread_num()), part / (int64_t)sizeof(bench_v4));
    bench_sink = (float)total;
    return (double)bytes / (plumb_clock() - start) / 1e9;
}
#endif
