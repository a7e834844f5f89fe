/* Memory that reports failure, strings, messages, small formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/base.h"

/* Under AddressSanitizer an impossible size returns NULL, as it does without. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

static void allocation(void **state) {
    (void)state;
    char *p = NULL;
    assert_int_equal(plumb_alloc(&p, 100, 1, "test"), PLUMB_OK);
    for (int i = 0; i < 100; i++) assert_int_equal(p[i], 0);
    free(p);
    assert_int_equal(plumb_alloc(&p, SIZE_MAX / 2, 16, "a huge thing"), PLUMB_E_MEMORY);
    assert_null(p);
    assert_non_null(strstr(plumb_error_message(), "a huge thing"));
    plumb_alloc_fail_after(2);
    assert_int_equal(plumb_alloc(&p, 1, 1, "first"), PLUMB_OK);
    free(p);
    assert_int_equal(plumb_alloc(&p, 1, 1, "second"), PLUMB_E_MEMORY);
    assert_int_equal(plumb_alloc(&p, 0, 0, "third"), PLUMB_OK);
    assert_non_null(p);
    free(p);
}

static void growing(void **state) {
    (void)state;
    int *block = NULL;
    size_t capacity = 0;
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(plumb_grow(&block, &capacity, i + 1, sizeof *block), PLUMB_OK);
        assert_true(capacity > i);
        block[i] = (int)i;
    }
    for (int i = 0; i < 1000; i++) assert_int_equal(block[i], i);
    size_t before = capacity;
    assert_int_equal(plumb_grow(&block, &capacity, SIZE_MAX - 3, sizeof *block), PLUMB_E_MEMORY);
    assert_int_equal(plumb_grow(&block, &capacity, SIZE_MAX / 3, sizeof *block), PLUMB_E_MEMORY);
    assert_int_equal(capacity, before);
    assert_int_equal(block[999], 999);
    free(block);
}

static void strings(void **state) {
    (void)state;
    plumb_str s = {0};
    assert_int_equal(plumb_str_append(&s, "", 0), PLUMB_OK);
    assert_string_equal(s.data, "");
    assert_int_equal(plumb_str_append(&s, "a\0b", 3), PLUMB_OK);
    assert_int_equal(s.length, 3);
    assert_int_equal(plumb_str_printf(&s, "%d-%s", 42, "tail"), PLUMB_OK);
    assert_int_equal(s.length, 10);
    assert_memory_equal(s.data, "a\0b42-tail", 11);
    for (int i = 0; i < 500; i++) assert_int_equal(plumb_str_printf(&s, "%03d", i), PLUMB_OK);
    assert_int_equal(s.length, 1510);
    assert_memory_equal(s.data + 10 + 3 * 123, "123124", 6);
    assert_int_equal(plumb_str_append(&s, "x", SIZE_MAX), PLUMB_E_MEMORY);
    assert_int_equal(s.length, 1510);
    plumb_str_free(&s);
    assert_null(s.data);
    plumb_alloc_fail_after(1);
    assert_int_equal(plumb_str_printf(&s, "x"), PLUMB_E_MEMORY);
    plumb_str_free(&s);
}

static void messages(void **state) {
    (void)state;
    assert_int_equal(plumb_error(PLUMB_E_DATA, "line %d", 7), PLUMB_E_DATA);
    assert_int_equal(plumb_error_prefix(PLUMB_E_IO, "file %s", "x.json"), PLUMB_E_IO);
    assert_string_equal(plumb_error_message(), "file x.json: line 7");
    assert_int_equal(plumb_error(PLUMB_E_DATA, "again: %s", plumb_error_message()),
                     PLUMB_E_DATA); /* the argument is the old message */
    assert_string_equal(plumb_error_message(), "again: file x.json: line 7");
    char large[3000];
    memset(large, 'y', sizeof large);
    large[sizeof large - 1] = 0;
    plumb_error(PLUMB_E_DATA, "%s", large);
    size_t length = strlen(plumb_error_message());
    assert_true(length > 500 && length < sizeof large - 1);
    plumb_error_prefix(PLUMB_E_DATA, "front");
    assert_memory_equal(plumb_error_message(), "front: yyy", 10);
    assert_true(strlen(plumb_error_message()) <= length);
    assert_string_equal(plumb_status_text(PLUMB_OK), "ok");
    assert_string_equal(plumb_status_text((plumb_status)1000), "unknown status");
}

static void nearest(void **state) {
    (void)state;
    const char *words[] = {"learning_rate", "batch_size", "beta"};
    assert_int_equal(plumb_nearest("lerning_rate", words, 3), 0);
    assert_int_equal(plumb_nearest("batchsize", words, 3), 1);
    assert_int_equal(plumb_nearest("bta", words, 3), 2);
    assert_int_equal(plumb_nearest("zzzzzzzzzz", words, 3), -1);
    assert_int_equal(plumb_nearest("", words, 3), -1);
    assert_int_equal(plumb_nearest("beta", words, 0), -1);
}

static void small_formats(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) { /* every half against its definition */
        int exponent = (int)(h >> 10 & 31), fraction = (int)(h & 1023);
        float found = plumb_f16_float((uint16_t)h);
        if (exponent == 31 && fraction) {
            assert_true(isnan(found));
            continue;
        }
        double value = exponent == 31 ? (double)INFINITY
                       : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                      : ldexp(fraction, -24);
        assert_true((double)found == (h >> 15 ? -value : value));
        assert_int_equal(!!signbit(found), h >> 15);
    }
    for (uint32_t b = 0; b < 65536;
         b++) { /* bf16 survives a round trip; a value between two goes to the nearer, a tie to the even one */
        float f = plumb_bf16_float((uint16_t)b);
        if (isnan(f)) {
            assert_true(isnan(plumb_bf16_float(plumb_bf16(f))));
            continue;
        }
        assert_int_equal(plumb_bf16(f), b);
        if ((b & 0x7f80) == 0x7f80) continue;
        union {
            uint32_t u;
            float f;
        } below = {b << 16 | 0x7fff}, tie = {b << 16 | 0x8000}, above = {b << 16 | 0x8001};
        assert_int_equal(plumb_bf16(below.f), b);
        assert_int_equal(plumb_bf16(tie.f), b + (b & 1));
        assert_int_equal(plumb_bf16(above.f), b + 1);
    }
    union {
        uint32_t u;
        float f;
    } nan = {0x7f800001};
    assert_true(isnan(plumb_bf16_float(plumb_bf16(nan.f)))); /* its payload is all in the lost half */
}

static void clock_moves(void **state) {
    (void)state;
    double a = plumb_clock(), b = plumb_clock();
    assert_true(b >= a);
    assert_int_equal(plumb_round_up(65, 32), 96);
    assert_int_equal(plumb_round_up(64, 32), 64);
    assert_int_equal(plumb_round_up(0, 32), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocation),  cmocka_unit_test(growing), cmocka_unit_test(strings),
        cmocka_unit_test(messages),    cmocka_unit_test(nearest), cmocka_unit_test(small_formats),
        cmocka_unit_test(clock_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
