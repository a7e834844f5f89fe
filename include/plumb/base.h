/* Small tools that every module needs: memory that reports failure, strings, clock, random numbers.  All local. */
#ifndef PLUMB_BASE_H
#define PLUMB_BASE_H
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include "plumb/status.h"

/* Allocation. count*size is checked for overflow; the block is zeroed; *out is NULL on failure (PLUMB_E_MEMORY with the
 * size and `what` in the message). Free with free(). */
plumb_status plumb_alloc(void *out, size_t count, size_t size, const char *what) PLUMB_CHECKED;
/* Grows *block (capacity in elements, doubled as needed) so that `need` elements fit. */
plumb_status plumb_grow(void *block, size_t *capacity, size_t need, size_t size) PLUMB_CHECKED;
/* Fault injection for tests: the n-th allocation from now fails once (0 = off). */
void plumb_alloc_fail_after(long n);

/* A growing string; zero-initialise, free with plumb_str_free. data is NUL-terminated once anything was added. */
typedef struct plumb_str {
    char *data;
    size_t length, capacity;
} plumb_str;
plumb_status plumb_str_append(plumb_str *s, const void *bytes, size_t n) PLUMB_CHECKED;
plumb_status plumb_str_printf(plumb_str *s, const char *format, ...) PLUMB_CHECKED __attribute__((format(printf, 2, 3)));
void plumb_str_free(plumb_str *s);

/* "did you mean": index of the candidate nearest to `word` by edit distance, -1 when none is near. */
int plumb_nearest(const char *word, const char *const *candidates, int count);

/* Seconds since an arbitrary start, monotonic. */
double plumb_clock(void);

/* Philox4x32-10 (Salmon et al., SC 2011). The value is a pure function of the key, so that it does not depend on ranks
 * or on the order of work. Sites name what a number is for; see docs/numerics.md. */
typedef struct plumb_rng_key {
    uint64_t seed;
    uint32_t step, sample, branch, token, site;
} plumb_rng_key;
void plumb_rng_block(const plumb_rng_key *key, uint32_t out[4]);
double plumb_rng_uniform(const plumb_rng_key *key); /* (0,1), 53 bits */
double plumb_rng_normal(const plumb_rng_key *key);  /* N(0,1), Box-Muller */
enum { PLUMB_SITE_SHUFFLE = 1, PLUMB_SITE_LORA_INIT, PLUMB_SITE_DROPOUT, PLUMB_SITE_SAMPLE, PLUMB_SITE_TEST };
/* A permutation of 0..n-1 for an epoch: sorting keys drawn from (seed, epoch, index). */
plumb_status plumb_rng_permutation(uint64_t seed, uint32_t epoch, int64_t n, int64_t *out) PLUMB_CHECKED;

static inline int64_t plumb_round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
static inline int64_t plumb_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t plumb_max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline uint16_t plumb_bf16(float f) { /* round to nearest even; NaN stays NaN */
    union { float f; uint32_t u; } x = {f};
    if ((x.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((x.u >> 16) | 0x40);
    return (uint16_t)((x.u + 0x7fffu + ((x.u >> 16) & 1)) >> 16);
}
static inline float plumb_bf16_float(uint16_t b) {
    union { uint32_t u; float f; } x = {(uint32_t)b << 16};
    return x.f;
}
float plumb_f16_float(uint16_t h); /* IEEE half to float, exact, subnormals and infinities included */
#endif
