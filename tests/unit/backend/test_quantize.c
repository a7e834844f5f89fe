/* The quantiser of weights: what must come back exactly, what may be lost, and what must not go wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/backend.h"
#include "../../../src/backend/quantize.h"

static float noise(int64_t i) {
    return (float)plumb_rng_normal(&(plumb_rng_key){.seed = 5, .token = (uint32_t)i, .site = PLUMB_SITE_TEST});
}

/* Every half is its own nearest half; between two of them the nearer is taken, of equals the even one. */
static void halves(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float value = plumb_f16_float((uint16_t)h);
        assert_int_equal(plumb_half(value), h);
        assert_int_equal(plumb_half(-value), h | 0x8000);
        if (h == 0x7bff) break;
        float next = plumb_f16_float((uint16_t)(h + 1)), middle = value + (next - value) / 2;
        assert_int_equal(plumb_half(middle), h % 2 ? h + 1 : h);
        assert_int_equal(plumb_half(nextafterf(middle, 0)), h);
        assert_int_equal(plumb_half(nextafterf(middle, INFINITY)), h + 1);
    }
    assert_int_equal(plumb_half(65520.0f), 0x7bff); /* no infinities */
    assert_int_equal(plumb_half(-FLT_MAX), 0xfbff);
    assert_int_equal(plumb_half(INFINITY), 0x7bff);
    assert_int_equal(plumb_half(1e-30f), 0);
    assert_true(isnan(plumb_f16_float(plumb_half(NAN))));
}

/* d q + m with d and m in fp16, any 16 of the levels used, the ends or not: bit for bit, as in a Q4_1 file. */
static void levels_come_back(void **state) {
    (void)state;
    for (int trial = 0; trial < 2000; trial++) {
        float d = plumb_f16_float(plumb_half(fabsf(0.01f * noise(trial)) + 1e-3f)),
              m = plumb_f16_float(plumb_half(0.05f * noise(trial + 5000) - 0.05f)), w[PLUMB_QBLOCK];
        int low = trial % 3 == 0 ? 0 : trial % 4, high = trial % 3 == 0 ? 15 : 15 - trial % 5, used[2] = {low, high};
        for (int i = 0; i < PLUMB_QBLOCK; i++) w[i] = d * (float)(i < 2 ? used[i] : low + (trial * 31 + i * i * 7) % (high - low + 1)) + m;
        plumb_qblock b;
        plumb_quantize_4(w, PLUMB_QBLOCK, &b);
        for (int i = 0; i < PLUMB_QBLOCK; i++) {
            if (trial % 3 == 0) assert_true(plumb_dequantized(&b, i) == w[i]);
            /* m may move by whole steps: rounding of fp16 at most */
            assert_true(fabsf(plumb_dequantized(&b, i) - w[i]) <= 0x1p-11f * (fabsf(m) + 15 * d));
        }
    }
    for (int trial = 0; trial < 500; trial++) { /* Q8_0: d in fp16, some |q| = 127 */
        float d = plumb_f16_float(plumb_half(fabsf(0.01f * noise(trial)) + 1e-4f)), w[PLUMB_QBLOCK];
        for (int i = 0; i < PLUMB_QBLOCK; i++) w[i] = d * (float)(i ? (trial * 37 + i * 91) % 255 - 127 : 127);
        plumb_qblock b;
        plumb_quantize_8(w, PLUMB_QBLOCK, &b);
        for (int i = 0; i < PLUMB_QBLOCK; i++) assert_true(fabsf(plumb_dequantized(&b, i) - w[i]) <= 0x1p-23f * fabsf(w[i]));
    }
}

/* Half a step at most, whatever the size, the sign, the offset and the number of values. */
static void errors_are_bounded(void **state) {
    (void)state;
    static const float sizes[] = {1e-30f, 1e-6f, 1e-3f, 1, 1000, 10000};
    for (int trial = 0; trial < 3000; trial++) {
        float w[PLUMB_QBLOCK], size = sizes[trial % 6], offset = trial % 5 == 0 ? size * 2 : 0, least = INFINITY, greatest = -INFINITY,
                               most = 0;
        int n = 1 + trial % PLUMB_QBLOCK;
        for (int i = 0; i < n; i++) {
            w[i] = plumb_nearest_whole(noise(trial * 64 + i) * 1000) / 4000 * size + offset;
            least = fminf(least, w[i]), greatest = fmaxf(greatest, w[i]), most = fmaxf(most, fabsf(w[i]));
        }
        plumb_qblock four, eight;
        plumb_quantize_4(w, n, &four);
        plumb_quantize_8(w, n, &eight);
        float allowed = (greatest - least) / 15 * 0.51f + most * 0x1p-11f + 15 * 0x1p-24f;
        for (int i = 0; i < n; i++) {
            assert_true(fabsf(plumb_dequantized(&four, i) - w[i]) <= allowed);
            assert_true(fabsf(plumb_dequantized(&eight, i) - w[i]) <= most / 127 * 0.5001f + FLT_MIN);
        }
        for (int i = n; i < PLUMB_QBLOCK; i++) assert_true(four.q[i] == 0 && eight.q[i] == 0);
    }
}

static void constants_and_odd_values(void **state) {
    (void)state;
    static const float values[] = {0, -0.0f, 1, -1, 0.5f, -1023.5f, 65504, 1e9f, -1e9f, 1e-9f};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        float w[PLUMB_QBLOCK], expected = fmaxf(-65504, fminf(65504, values[v]));
        for (int i = 0; i < PLUMB_QBLOCK; i++) w[i] = values[v];
        plumb_qblock b;
        plumb_quantize_4(w, PLUMB_QBLOCK, &b);
        for (int i = 0; i < PLUMB_QBLOCK; i++) assert_true(fabsf(plumb_dequantized(&b, i) - expected) <= 0x1p-25f);
        plumb_quantize_8(w, PLUMB_QBLOCK, &b);
        for (int i = 0; i < PLUMB_QBLOCK; i++) assert_true(fabsf(plumb_dequantized(&b, i) - values[v]) <= 1e-7f * fabsf(values[v]));
    }
    float odd[PLUMB_QBLOCK] = {NAN, 1, -1, FLT_MAX, -FLT_MAX, FLT_MIN, 0x1p-149f}; /* nothing to be right about, but q stays in range */
    for (int n = 0; n <= PLUMB_QBLOCK; n++) {
        plumb_qblock b;
        plumb_quantize_4(odd, n, &b);
        for (int i = 0; i < PLUMB_QBLOCK; i++) assert_true(b.q[i] >= 0 && b.q[i] <= 15);
        plumb_quantize_8(odd, n, &b);
        for (int i = 0; i < PLUMB_QBLOCK; i++) assert_true(b.q[i] >= -127);
    }
    float tiny[2] = {0x1p-149f, -0x1p-149f};
    plumb_qblock b;
    plumb_quantize_8(tiny, 2, &b);
    assert_true(b.scale == 0 && b.q[0] == 0);
}

/* The same numbers on every back end, in every shape, written in parts; memory of weight_bytes is enough. */
static void both_back_ends_agree(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {33, 31}, {64, 64}, {97, 131}, {40, 33}};
    plumb_backend *be[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(plumb_backend_create(&be[i], &(plumb_backend_options){.backend = i ? "cpu" : "ref", .threads = 2}, NULL),
                         PLUMB_OK);
    for (int storage = PLUMB_STORE_INT8; storage <= PLUMB_STORE_W4A8; storage++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            int64_t n = shapes[s][0], k = shapes[s][1], cut = n > 32 ? 32 : 0;
            float *w, *out[2];
            assert_int_equal(plumb_alloc(&w, (size_t)(n * k), sizeof *w, "a test"), PLUMB_OK);
            for (int64_t e = 0; e < n * k; e++) w[e] = noise(e) * 0.05f;
            for (int i = 0; i < 2; i++) {
                plumb_weight *weight;
                void *memory;
                size_t bytes = be[i]->ops->weight_bytes(be[i], n, k, (plumb_storage)storage);
                assert_int_equal(plumb_alloc(&out[i], (size_t)(n * k), sizeof *out[i], "a test"), PLUMB_OK);
                memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
                assert_non_null(memory);
                memset(memory, 0xff, bytes); /* the back end may not count on zeros */
                assert_int_equal(be[i]->ops->weight_create(be[i], n, k, (plumb_storage)storage, memory, &weight), PLUMB_OK);
                PLUMB_RUN(be[i], weight_write, weight, cut, n - cut, w + cut * k);
                PLUMB_RUN(be[i], weight_write, weight, 0, cut, w);
                PLUMB_RUN(be[i], weight_read, weight, 0, n, out[i]);
                be[i]->ops->weight_free(be[i], weight);
                free(memory);
            }
            assert_memory_equal(out[0], out[1], (size_t)(n * k) * sizeof(float));
            float block[PLUMB_QBLOCK];
            int64_t last = k - 1 - (k - 1) % PLUMB_QBLOCK;
            plumb_qblock b;
            for (int64_t c = last; c < k; c++) block[c - last] = w[(n - 1) * k + c];
            (plumb_stores_8_bits((plumb_storage)storage) ? plumb_quantize_8 : plumb_quantize_4)(block, k - last, &b);
            for (int64_t c = last; c < k; c++) assert_true(out[1][(n - 1) * k + c] == plumb_dequantized(&b, (int)(c - last)));
            free(w), free(out[0]), free(out[1]);
        }
    for (int i = 0; i < 2; i++) plumb_backend_free(be[i]);
}

/* Rows meet 8-bit weights in whole numbers, of 16 bits (bf16) or 8: whatever their range, half a step of error for each, the same bits on
 * every instruction set with fma, and what is not finite stays in its row. */
enum { ROWS = 19, OUT = 40, IN = 83 }; /* enough rows for a group of sixteen blocks */
static float row_value(int m, int k) {
    float v = plumb_bf16_float(plumb_bf16(noise(1000 * m + k)));
    switch (m) {
    case 1: return k % 32 == 5 ? 4096 : v;       /* one outlier a block */
    case 2: return 0;
    case 3: return v * 0x1p-120f;                /* near the end of floats, */
    case 4: return k % 2 ? v * 0x1p-140f : 0;    /* and below it */
    case 5: return k == 40 ? INFINITY : v;
    default: return m == 6 ? v * 0x1p100f : v;
    }
}
/* The power of two that a block counts in: its greatest value is 2^14 to 2^15 of them. */
static double step_of(const float *x, int n) {
    double greatest = 0;
    int exponent;
    for (int k = 0; k < n; k++) greatest = fmax(greatest, fabs((double)x[k]));
    frexp(fmax(greatest, 0x1p-112), &exponent);
    return ldexp(1, exponent - 15);
}
/* A row as products with this storage see it, and what its sums may miss. */
static void rounded_row(const float *x, plumb_storage storage, double *out) {
    for (int k0 = 0; k0 < IN; k0 += 32) {
        int n = IN - k0 < 32 ? IN - k0 : 32;
        double step = step_of(x + k0, n);
        plumb_qblock b;
        plumb_quantize_8(x + k0, n, &b);
        for (int k = 0; k < n; k++)
            out[k0 + k] = plumb_rounds_rows(storage) ? (double)b.scale * b.q[k] : rint((double)x[k0 + k] / step) * step;
    }
}
/* The products of ROWS rows on one instruction set; false where this processor does not have it. */
static bool products(const char *isa, const char *precision, plumb_storage storage, const float *w, const float *x, float *held, float *y) {
    plumb_backend *be;
    plumb_buffer *b;
    plumb_weight *weight;
    plumb_operand *o;
    plumb_tensor none = {0};
    plumb_backend_options options = {
        .backend = "cpu", .isa = isa, .precision = precision, .threads = 2, .emulate_bf16 = strcmp(isa, "avx512bf16") != 0};
    if (plumb_backend_create(&be, &options, NULL) != PLUMB_OK) return false;
    assert_int_equal(be->ops->weight_create(be, OUT, IN, storage, NULL, &weight), PLUMB_OK);
    assert_int_equal(be->ops->buffer_create(be, ROWS * (IN + OUT), "a test", &b), PLUMB_OK);
    assert_int_equal(be->ops->operand_create(be, ROWS, IN, &o), PLUMB_OK);
    PLUMB_RUN(be, weight_write, weight, 0, OUT, w);
    PLUMB_RUN(be, weight_read, weight, 0, OUT, held);
    plumb_tensor tx = plumb_tensor_of(b, 0, ROWS, IN), ty = plumb_tensor_of(b, ROWS * IN, ROWS, OUT);
    PLUMB_RUN(be, write, tx, x);
    PLUMB_RUN(be, operand_pack, o, tx, PLUMB_BY_COLUMNS, none);
    PLUMB_RUN(be, linear_forward, &(plumb_product){ty, &(plumb_term){o, weight}, 1, none}, 1);
    PLUMB_RUN(be, read, ty, y);
    be->ops->operand_free(be, o), be->ops->buffer_free(be, b), be->ops->weight_free(be, weight);
    plumb_backend_free(be);
    return true;
}
static void whole_numbers(void **state) {
    (void)state;
    static const char *const isas[] = {"plain", "avx2", "avx512", "avx512bf16"};
    static const struct { plumb_storage storage; const char *precision; } kinds[] = {
        {PLUMB_STORE_INT8, "bf16"}, {PLUMB_STORE_W8A8, "bf16"}, {PLUMB_STORE_W8A8, "fp32"}, {PLUMB_STORE_W4A8, "bf16"},
        {PLUMB_STORE_W4A8, "fp32"}};
    float w[OUT * IN], held[OUT * IN], x[ROWS * IN], y[ROWS * OUT], first[ROWS * OUT];
    for (int e = 0; e < OUT * IN; e++) w[e] = noise(e) * 0.05f;
    for (int e = 0; e < ROWS * IN; e++) x[e] = row_value(e / IN, e % IN);
    for (int kind = 0; kind < 5; kind++) {
        int seen = 0; /* of the instruction sets with one result: those with fma, plain adds and multiplies apart */
        for (int i = 0; i < 4; i++) {
            if (!products(isas[i], kinds[kind].precision, kinds[kind].storage, w, x, held, y)) continue;
            for (int m = 0; m < ROWS; m++) {
                double row[IN], sums_of_parts = plumb_stores_4_bits(kinds[kind].storage) ? 0.15 : 0; /* d q and m, added one by one */
                rounded_row(&x[m * IN], kinds[kind].storage, row);
                for (int n = 0; n < OUT; n++) {
                    double sum = 0, allowed = 0x1p-149;
                    for (int k = 0; k < IN; k++) {
                        double term = row[k] * held[n * IN + k];
                        sum += term, allowed += 1e-6 * (fabs(term) + fabs(row[k]) * sums_of_parts);
                    }
                    if (m == 5) assert_false(isfinite(y[m * OUT + n]));
                    else if (!(fabs(y[m * OUT + n] - sum) <= allowed))
                        fail_msg("kind %d, %s, row %d: %g is not %g", kind, isas[i], m, (double)y[m * OUT + n], sum);
                }
            }
            for (int n = 0; n < OUT; n++) assert_true(y[2 * OUT + n] == 0);
            for (int e = 0; e < ROWS * OUT; e++) assert_true(e / OUT == 5 || i == 0 || !seen || y[e] == first[e]);
            if (i > 0) memcpy(first, y, sizeof y), seen++;
        }
    }
}

static void names(void **state) {
    (void)state;
    plumb_storage found = PLUMB_STORE_W4A8;
    assert_true(plumb_storage_named("native", &found) && found == PLUMB_STORE_NATIVE);
    assert_true(plumb_storage_named("int8", &found) && found == PLUMB_STORE_INT8);
    assert_true(plumb_storage_named("int4", &found) && found == PLUMB_STORE_INT4);
    assert_true(plumb_storage_named("w8a8", &found) && found == PLUMB_STORE_W8A8);
    assert_true(plumb_storage_named("w4a8", &found) && found == PLUMB_STORE_W4A8);
    assert_false(plumb_storage_named("w4a4", &found));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(halves), cmocka_unit_test(levels_come_back), cmocka_unit_test(errors_are_bounded),
                                       cmocka_unit_test(constants_and_odd_values), cmocka_unit_test(both_back_ends_agree),
                                       cmocka_unit_test(whole_numbers), cmocka_unit_test(names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
