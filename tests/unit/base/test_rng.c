/* Philox against the published known answers; the numbers drawn from it; permutations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/base.h"

/* Random123's kat_vectors, "philox4x32 10": counter, key, answer. */
static const uint32_t known[3][10] = {
    {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
    {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
     0x6d5451fd},
    {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
     0x24126ea1},
};

static void known_answers(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        const uint32_t *k = known[i];
        plumb_rng_key key = {.seed = (uint64_t)k[5] << 32 | k[4],
                             .token = k[0],
                             .branch = k[1],
                             .sample = k[2],
                             .step = k[3],
                             .site = 0};
        uint32_t out[4];
        plumb_rng_block(&key, out);
        assert_memory_equal(out, k + 6, sizeof out);
    }
}

/* Changing any one field of the key changes the number. */
static void every_field_counts(void **state) {
    (void)state;
    plumb_rng_key keys[7];
    for (int i = 0; i < 7; i++) keys[i] = (plumb_rng_key){7, 1, 2, 3, 4, 5};
    keys[1].seed++, keys[2].step++, keys[3].sample++, keys[4].branch++, keys[5].token++, keys[6].site++;
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < i; j++) {
            uint32_t a[4], b[4];
            plumb_rng_block(&keys[i], a);
            plumb_rng_block(&keys[j], b);
            assert_memory_not_equal(a, b, sizeof a);
        }
}

static void distributions(void **state) {
    (void)state;
    enum { N = 20000 };
    double sum = 0, squares = 0, normal = 0, normal_squares = 0, fourth = 0;
    for (uint32_t i = 0; i < N; i++) {
        plumb_rng_key key = {.seed = 11, .token = i, .site = PLUMB_SITE_TEST};
        double u = plumb_rng_uniform(&key), z = plumb_rng_normal(&key);
        assert_true(u > 0 && u < 1);
        sum += u, squares += u * u, normal += z, normal_squares += z * z, fourth += z * z * z * z;
    }
    assert_true(fabs(sum / N - 0.5) < 0.01);
    assert_true(fabs(squares / N - 1.0 / 3) < 0.01);
    assert_true(fabs(normal / N) < 0.03);
    assert_true(fabs(normal_squares / N - 1) < 0.04);
    assert_true(fabs(fourth / N - 3) < 0.35);
}

static void permutations(void **state) {
    (void)state;
    enum { N = 1000 };
    int64_t a[N], b[N], c[N];
    int seen[N] = {0}, moved = 0;
    assert_int_equal(plumb_rng_permutation(5, 0, N, a), PLUMB_OK);
    assert_int_equal(plumb_rng_permutation(5, 0, N, b), PLUMB_OK);
    assert_int_equal(plumb_rng_permutation(5, 1, N, c), PLUMB_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    for (int i = 0; i < N; i++) {
        assert_true(a[i] >= 0 && a[i] < N);
        assert_int_equal(seen[a[i]]++, 0);
        moved += a[i] != i;
    }
    assert_true(moved > N * 9 / 10);
    assert_int_equal(plumb_rng_permutation(5, 0, 0, a), PLUMB_OK);
    plumb_alloc_fail_after(1);
    assert_int_equal(plumb_rng_permutation(5, 0, N, a), PLUMB_E_MEMORY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(every_field_counts),
        cmocka_unit_test(distributions),
        cmocka_unit_test(permutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
