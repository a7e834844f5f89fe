/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * A number is a pure function of what it is for, so that ranks, threads and restarts cannot change it.  The six fields of a key are
 * laid into the 128-bit counter and the 64-bit key: seed and site are the key; step, sample, branch, token the counter. */
#include "plumb/base.h"
#include <math.h>
#include <stdlib.h>

void plumb_rng_block(const plumb_rng_key *key, uint32_t out[4]) {
    uint32_t c[4] = {key->token, key->branch, key->sample, key->step};
    uint64_t k = key->seed + 0x9E3779B97F4A7C15ull * key->site;
    uint32_t k0 = (uint32_t)k, k1 = (uint32_t)(k >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

static double to_unit(uint32_t high, uint32_t low) { /* (0,1) */
    uint64_t bits = ((uint64_t)high << 32 | low) >> 11;
    return ((double)bits + 0.5) * 0x1p-53;
}

double plumb_rng_uniform(const plumb_rng_key *key) {
    uint32_t r[4];
    plumb_rng_block(key, r);
    return to_unit(r[0], r[1]);
}

double plumb_rng_normal(const plumb_rng_key *key) {
    uint32_t r[4];
    plumb_rng_block(key, r);
    return sqrt(-2.0 * log(to_unit(r[0], r[1]))) * cos(6.283185307179586 * to_unit(r[2], r[3]));
}

typedef struct { uint64_t key; int64_t index; } keyed;
static int by_key(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

plumb_status plumb_rng_permutation(uint64_t seed, uint32_t epoch, int64_t n, int64_t *out) {
    keyed *items;
    PLUMB_TRY(plumb_alloc(&items, (size_t)n, sizeof *items, "a permutation"));
    for (int64_t i = 0; i < n; i++) {
        uint32_t r[4];
        plumb_rng_block(&(plumb_rng_key){seed, epoch, (uint32_t)i, (uint32_t)(i >> 32), 0, PLUMB_SITE_SHUFFLE}, r);
        items[i] = (keyed){(uint64_t)r[0] << 32 | r[1], i};
    }
    qsort(items, (size_t)n, sizeof *items, by_key);
    for (int64_t i = 0; i < n; i++) out[i] = items[i].index;
    free(items);
    return PLUMB_OK;
}
