/* Full models written for Hugging Face: read back, the same values; and adapters merged with one rounding. */
#include "model_test.h"
#include <math.h>

static plumb_status fetch_source(void *user, int param, float *out) {
    const plumb_source *s = user;
    return plumb_source_read(s, param, 0, plumb_source_params(s)->items[param].rows, out);
}

static void compare_sources(const plumb_source *x, const plumb_source *y) {
    const plumb_params *p = plumb_source_params(x);
    assert_int_equal(p->count, plumb_source_params(y)->count);
    for (int i = 0; i < p->count; i++) {
        size_t bytes = (size_t)(p->items[i].rows * p->items[i].cols) * sizeof(float);
        float *a = malloc(bytes), *b = malloc(bytes);
        assert_string_equal(p->items[i].name, plumb_source_params(y)->items[i].name);
        assert_ok(plumb_source_read(x, i, 0, p->items[i].rows, a));
        assert_ok(plumb_source_read(y, i, 0, p->items[i].rows, b));
        assert_memory_equal(a, b, bytes);
        free(a);
        free(b);
    }
}

static void compare_archs(const plumb_arch *x, const plumb_arch *y) {
    assert_string_equal(x->family, y->family);
    const int64_t xs[] = {x->vocab,    x->hidden,   x->intermediate,  x->layers,        x->heads,
                          x->kv_heads, x->head_dim, x->max_positions, x->rope_original, x->bos,
                          x->pad,      x->n_eos,    x->tied,          x->rope};
    const int64_t ys[] = {y->vocab,    y->hidden,   y->intermediate,  y->layers,        y->heads,
                          y->kv_heads, y->head_dim, y->max_positions, y->rope_original, y->bos,
                          y->pad,      y->n_eos,    y->tied,          y->rope};
    assert_memory_equal(xs, ys, sizeof xs);
    assert_memory_equal(x->eos, y->eos, sizeof *x->eos * (size_t)x->n_eos);
    assert_true(x->norm_eps == y->norm_eps && x->rope_theta == y->rope_theta && x->rope_factor == y->rope_factor);
    assert_true(x->rope_low == y->rope_low && x->rope_high == y->rope_high);
}

static void writes_what_it_reads(void **state) {
    static const char *const models[] = {GOLDEN "/models/llama", GOLDEN "/models/llama3-tied",
                                         GOLDEN "/gguf/tiny-q4_1.gguf", GOLDEN "/gguf/tiny-bf16.gguf"};
    for (int m = 0; m < 4; m++)
        for (int shards = 0; shards < 2; shards++) {
            plumb_source *s, *again;
            char dir[512];
            snprintf(dir, sizeof dir, "%.490s/%d", (const char *)*state, m); /* the second layout replaces the first */
            assert_ok(plumb_source_open(&s, models[m]));
            plumb_file_type type = plumb_source_type(s);
            if (shards)
                assert_ok(plumb_model_export_sharded(dir, plumb_source_arch(s), plumb_source_params(s), type,
                                                     fetch_source, s, 100000));
            else
                assert_ok(plumb_model_export(dir, plumb_source_arch(s), plumb_source_params(s), type, fetch_source, s));
            assert_int_equal(plumb_path_exists(in(dir, "model.safetensors")), !shards);
            assert_int_equal(plumb_path_exists(in(dir, "model.safetensors.index.json")), shards);
            assert_ok(plumb_source_open(&again, dir));
            compare_archs(plumb_source_arch(s), plumb_source_arch(again));
            compare_sources(s, again);
            assert_int_equal(plumb_source_type(again), type);
            plumb_source_close(again);
            plumb_source_close(s);
        }
}

static plumb_status fetch_scored(void *user, int param, float *out) {
    if (param >= 0) return fetch_source(user, param, out);
    for (int i = 0; i < 48; i++) out[i] = (float)(i * i) - 7;
    return PLUMB_OK;
}
static void writes_sequence_classifiers(void **state) {
    static const char *const models[] = {GOLDEN "/models/llama", GOLDEN "/models/llama3-tied"};
    for (int m = 0; m < 2; m++)
        for (int shards = 0; shards < 2; shards++) {
            plumb_source *s, *again;
            float expected[48], found[48];
            assert_ok(plumb_source_open(&s, models[m]));
            plumb_source_as_classifier(s);
            assert_ok(plumb_model_export_sharded(*state, plumb_source_arch(s), plumb_source_params(s), PLUMB_FT_F32, fetch_scored, s,
                                                 shards ? 100000 : 1 << 30));
            assert_ok(plumb_source_open(&again, *state));
            assert_true(plumb_source_arch(again)->classifier && plumb_source_has_score(again));
            compare_archs(plumb_source_arch(s), plumb_source_arch(again));
            compare_sources(s, again);
            assert_ok(fetch_scored(s, -1, expected));
            assert_ok(plumb_source_score(again, found));
            assert_memory_equal(found, expected, sizeof found);
            plumb_source_close(again);
            plumb_source_close(s);
        }
}

static void writes_a_plain_configuration(void **state) {
    plumb_source *s;
    json_t *root;
    assert_ok(plumb_source_open(&s, GOLDEN "/gguf/tiny-q4_1.gguf"));
    plumb_arch a = *plumb_source_arch(s);
    a.n_eos = 2;
    a.eos[1] = 7;
    a.rope = PLUMB_ROPE_LINEAR;
    a.rope_factor = 2.5;
    assert_ok(plumb_model_export(*state, &a, plumb_source_params(s), PLUMB_FT_F16, fetch_source, s));
    assert_ok(plumb_json_load(&root, in(*state, "config.json")));
    assert_string_equal(json_string_value(json_object_get(root, "torch_dtype")), "float16");
    assert_string_equal(json_string_value(json_object_get(root, "model_type")), "llama");
    assert_int_equal(json_array_size(json_object_get(root, "eos_token_id")), 2);
    assert_true(json_real_value(json_object_get(root, "rope_theta")) == 20000.0);
    assert_true(json_real_value(json_object_get(json_object_get(root, "rope_scaling"), "factor")) == 2.5);
    assert_true(json_real_value(json_object_get(root, "rms_norm_eps")) == 1e-5);
    json_decref(root);
    plumb_source_close(s);
    assert_ok(plumb_source_open(&s, *state));
    assert_int_equal(plumb_source_arch(s)->n_eos, 2);
    assert_int_equal(plumb_source_type(s), PLUMB_FT_F16);
    plumb_source_close(s);
}

static plumb_status fetch_large(void *user, int param, float *out) {
    plumb_status status = fetch_source(user, param, out);
    out[0] = 1e5f;
    return status;
}

static plumb_status fetch_fails(void *user, int param, float *out) {
    if (param == 5) return plumb_error(PLUMB_E_NUMERIC, "weight 5 is lost");
    return fetch_source(user, param, out);
}

static void leaves_nothing_half_written(void **state) {
    plumb_source *s;
    assert_ok(plumb_source_open(&s, GOLDEN "/models/llama"));
    assert_refused(
        plumb_model_export(*state, plumb_source_arch(s), plumb_source_params(s), PLUMB_FT_F16, fetch_large, s),
        PLUMB_E_NUMERIC, "F16");
    assert_refused(
        plumb_model_export(*state, plumb_source_arch(s), plumb_source_params(s), PLUMB_FT_F32, fetch_fails, s),
        PLUMB_E_NUMERIC, "weight 5");
    assert_false(plumb_path_exists(in(*state, "model.safetensors")));
    assert_false(plumb_path_exists(in(*state, "config.json")));
    plumb_source_close(s);
}

/* One rounding of the exact value (sums of a few products of small floats are exact enough in long double) to `bits` of
 * significand. */
static float round_once(long double x, int bits) {
    int exponent;
    long double fraction = frexpl(x, &exponent);
    return (float)ldexpl(rintl(ldexpl(fraction, bits)), exponent - bits);
}

static void merges_with_one_rounding(void **state) {
    (void)state;
    plumb_source *s;
    plumb_adapter a;
    assert_ok(plumb_source_open(&s, GOLDEN "/models/llama"));
    const plumb_params *p = plumb_source_params(s);
    assert_ok(plumb_adapter_load(&a, GOLDEN "/adapters/llama", p));
    for (int i = 0; i < p->count; i++) {
        int64_t rows = p->items[i].rows, cols = p->items[i].cols, n = rows * cols;
        float *base = calloc((size_t)n, sizeof *base), *f32 = calloc((size_t)n, sizeof *f32),
              *bf16 = calloc((size_t)n, sizeof *bf16);
        assert_ok(plumb_source_read(s, i, 0, rows, base));
        memcpy(f32, base, (size_t)n * sizeof *base);
        memcpy(bf16, base, (size_t)n * sizeof *base);
        assert_ok(plumb_adapter_merge(&a, p, i, PLUMB_FT_F32, f32));
        assert_ok(plumb_adapter_merge(&a, p, i, PLUMB_FT_BF16, bf16));
        if (!p->items[i].linear) assert_memory_equal(f32, base, (size_t)n * sizeof *base);
        for (int64_t e = 0; p->items[i].linear && e < n; e++) {
            long double sum = 0;
            for (int k = 0; k < 4; k++) sum += (long double)a.b[i][e / cols * 4 + k] * a.a[i][k * cols + e % cols];
            sum = base[e] + 2 * sum; /* alpha / r = 2 */
            if (f32[e] != round_once(sum, 24))
                fail_msg("%s[%lld]: %.9g, expected %.9g", p->items[i].name, (long long)e, f32[e], round_once(sum, 24));
            assert_true(plumb_bf16_float(plumb_bf16(bf16[e])) == round_once(sum, 8));
        }
        free(base);
        free(f32);
        free(bf16);
    }
    plumb_adapter_free(&a);
    plumb_source_close(s);
}

/* 1 + 2^-8 + 2^-40 lies just above the middle of two bfloat16 numbers: rounding to float first would lose that and
 * round down to even. */
static void does_not_round_twice(void **state) {
    (void)state;
    plumb_param item = {.name = "x.weight", .rows = 1, .cols = 1, .linear = true};
    plumb_params p = {&item, 1};
    float one = 0x1p-40f, *matrix = &one, b = 1, *other = &b;
    plumb_adapter a = {.config = {.r = 1, .alpha = 1}, .n_params = 1, .a = &matrix, .b = &other};
    const struct {
        float base;
        float expected;
    } cases[] = {{1 + 0x1p-8f, 1 + 0x1p-7f},
                 {-(1 + 0x1p-8f), -1.0f},
                 {1 + 3 * 0x1p-8f, 1 + 2 * 0x1p-7f},
                 {-(1 + 3 * 0x1p-8f), -(1 + 0x1p-7f)}};
    for (int i = 0; i < 4; i++) {
        float w = cases[i].base;
        assert_ok(plumb_adapter_merge(&a, &p, 0, PLUMB_FT_BF16, &w));
        assert_true(plumb_bf16_float(plumb_bf16(w)) == cases[i].expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_what_it_reads, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(writes_sequence_classifiers, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(writes_a_plain_configuration, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(leaves_nothing_half_written, make_folder, remove_folder),
        cmocka_unit_test(merges_with_one_rounding),
        cmocka_unit_test(does_not_round_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
