/* GGUF: files of ggml's Python library read, its dequantised values met to the bit, hostile files refused. */
#include "io_test.h"
#include <math.h>

/* --- a file under construction ---------------------------------------------------------------- */
typedef struct bytes {
    uint8_t data[4096];
    size_t n;
} bytes;
static void add(bytes *b, const void *p, size_t n) {
    assert_true(b->n + n <= sizeof b->data);
    memcpy(b->data + b->n, p, n);
    b->n += n;
}
static void add_u32(bytes *b, uint32_t v) {
    add(b, &v, 4);
}
static void add_u64(bytes *b, uint64_t v) {
    add(b, &v, 8);
}
static void add_text(bytes *b, const char *text) {
    add_u64(b, strlen(text));
    add(b, text, strlen(text));
}
static bytes start(uint32_t version, uint64_t tensors, uint64_t values) {
    bytes b = {.n = 0};
    add(&b, "GGUF", 4);
    add_u32(&b, version);
    add_u64(&b, tensors);
    add_u64(&b, values);
    return b;
}
static void add_tensor(bytes *b, const char *name, uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset) {
    add_text(b, name);
    add_u32(b, 2);
    add_u64(b, columns);
    add_u64(b, rows);
    add_u32(b, type);
    add_u64(b, offset);
}
static void add_data(bytes *b, size_t alignment, size_t n) {
    static const uint8_t zeros[1024];
    add(b, zeros, (alignment - b->n % alignment) % alignment);
    add(b, zeros, n);
}
static void refuse(void **state, const bytes *b, plumb_status status, const char *mention) {
    plumb_gguf g;
    assert_refused(plumb_gguf_open(&g, put_file(*state, "bad.gguf", b->data, b->n)), status, mention);
    assert_non_null(strstr(plumb_error_message(), "bad.gguf"));
    assert_null(g.tensors);
    assert_null(g.values);
}

static void reads_every_kind_of_value(void **state) {
    (void)state;
    plumb_gguf g;
    assert_ok(plumb_gguf_open(&g, PLUMB_TEST_DATA "/io/values.gguf"));
    assert_int_equal(g.version, 3);
#define V(key) plumb_gguf_find(&g, key)
    assert_int_equal(V("u8")->u, 255);
    assert_int_equal(V("i8")->i, -128);
    assert_true(V("i8")->f == -128.0);
    assert_int_equal(V("u16")->u, 65535);
    assert_int_equal(V("i16")->i, -32768);
    assert_int_equal(V("u32")->i, 4294967295);
    assert_int_equal(V("i32")->i, INT32_MIN);
    assert_true(V("u64")->u == UINT64_MAX && V("u64")->i == INT64_MAX && V("u64")->f == 0x1p64);
    assert_true(V("i64")->i == INT64_MIN);
    assert_true(V("f32")->f == (double)0.1f && V("f64")->f == 0.1);
    assert_true(V("yes")->b && V("yes")->u == 1 && !V("no")->b);
    assert_int_equal(V("text")->s.length, strlen("naïve ✓"));
    assert_memory_equal(V("text")->s.data, "naïve ✓", V("text")->s.length);
    assert_int_equal(V("numbers")->item, PLUMB_GGUF_I32);
    assert_int_equal(V("numbers")->count, 3);
    assert_memory_equal(V("numbers")->items, ((int32_t[]){1, -2, 3}), 12);
    assert_memory_equal(V("reals")->items, ((float[]){0.5f, -1.5f}), 8);
    assert_int_equal(V("texts")->count, 3);
    assert_int_equal(V("texts")->strings[1].length, 0);
    assert_memory_equal(V("texts")->strings[2].data, "ccc", 3);
    assert_null(V("nothing"));

    const plumb_file_tensor *t = plumb_gguf_tensor(&g, "one");
    float v[6];
    assert_int_equal(t->n_dims, 2);
    assert_true(t->shape[0] == 2 && t->shape[1] == 3 && t->type == PLUMB_FT_F32);
    assert_ok(plumb_tensor_to_float(t, 0, 6, v));
    assert_memory_equal(v, ((float[]){0, 1, 2, 3, 4, 5}), sizeof v);
    assert_ok(plumb_tensor_to_float(plumb_gguf_tensor(&g, "int"), 0, 6, v));
    assert_memory_equal(v, ((float[]){-3, -2, -1, 0, 1, 2}), sizeof v);
    assert_ok(plumb_tensor_to_float(plumb_gguf_tensor(&g, "half"), 1, 4, v));
    assert_memory_equal(v, ((float[]){1, 2, 3, 4}), 16);
    for (int64_t i = 0; i < g.count; i++) assert_int_equal((g.tensors[i].data - g.map.data) % 64, 0);
    assert_null(plumb_gguf_tensor(&g, "two"));
    plumb_gguf_close(&g);
    plumb_gguf_close(&g);
}

static int digit(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void blocks_are_exact_to_the_bit(void **state) {
    (void)state;
    json_t *blocks;
    int seen = 0;
    assert_ok(plumb_json_load(&blocks, PLUMB_TEST_GOLDEN "/gguf/blocks.json"));
    for (size_t i = 0; i < json_array_size(blocks); i++) {
        json_t *b = json_array_get(blocks, i), *values = json_object_get(b, "values");
        const char *name = json_string_value(json_object_get(b, "type")),
                   *hex = json_string_value(json_object_get(b, "raw"));
        size_t n = json_array_size(values), size = strlen(hex) / 2;
        uint8_t *raw = malloc(size);
        float *out = malloc(n * sizeof *out);
        for (size_t k = 0; k < size; k++) raw[k] = (uint8_t)(digit(hex[2 * k]) << 4 | digit(hex[2 * k + 1]));
        plumb_file_tensor t = {
            .name = (char[]){"blocks"}, .type = PLUMB_FT_OTHER, .type_name = name, .data = raw, .bytes = size};
        for (int k = 0; k < PLUMB_FT_OTHER; k++)
            if (strcmp(plumb_file_type_name(k), name) == 0) t.type = k;
        if (t.type == PLUMB_FT_OTHER) {
            assert_refused(plumb_tensor_to_float(&t, 0, (int64_t)n, out), PLUMB_E_UNSUPPORTED, name);
        } else {
            assert_ok(plumb_tensor_to_float(&t, 0, (int64_t)n, out));
            for (size_t k = 0; k < n; k++) {
                float expected = (float)json_number_value(json_array_get(values, k));
                if (memcmp(&expected, &out[k], 4) != 0 &&
                    !(expected == 0 && out[k] == 0)) /* JSON keeps the sign of -0.0, gguf may not */
                    fail_msg("%s[%zu]: %.9g, expected %.9g", name, k, (double)out[k], (double)expected);
            }
            int64_t step = t.type == PLUMB_FT_F16 || t.type == PLUMB_FT_BF16 ? 1 : 32; /* any part of it is the same */
            float part[32];
            assert_ok(plumb_tensor_to_float(&t, step, step, part));
            assert_memory_equal(part, out + step, (size_t)step * 4);
            if (step > 1) assert_refused(plumb_tensor_to_float(&t, 1, 32, part), PLUMB_E_DATA, "blocks of 32");
            seen++;
        }
        free(raw);
        free(out);
    }
    json_decref(blocks);
    assert_int_equal(seen, 7);
}

static void halves_agree_with_the_plain_form(void **state) {
    (void)state;
    uint16_t *all = malloc(131072);
    float *out = malloc(65536 * sizeof *out);
    for (int i = 0; i < 65536; i++) all[i] = (uint16_t)i;
    plumb_file_tensor t = {.type = PLUMB_FT_F16, .data = (uint8_t *)all, .bytes = 131072};
    assert_ok(plumb_tensor_to_float(&t, 0, 65536, out));
    for (int i = 0; i < 65536; i++) {
        float expected = plumb_f16_float((uint16_t)i);
        assert_memory_equal(&out[i], &expected, 4);
    }
    free(all);
    free(out);
}

/* The tiny Llama's embedding is not permuted, so GGUF and safetensors hold the same matrix. */
static void tiny_models_agree_with_their_dequantised_copies(void **state) {
    (void)state;
    static const char *const names[] = {"f32", "bf16", "q4_1", "q8_0"};
    static const char *const pairs[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                           {"blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"},
                                           {"blk.0.attn_v.weight", "model.layers.0.self_attn.v_proj.weight"},
                                           {"output_norm.weight", "model.norm.weight"}};
    for (int i = 0; i < 4; i++) {
        char a[4096], b[4096];
        snprintf(a, sizeof a, "%s/gguf/tiny-%s.gguf", PLUMB_TEST_GOLDEN, names[i]);
        snprintf(b, sizeof b, "%s/gguf/tiny-%s.safetensors", PLUMB_TEST_GOLDEN, names[i]);
        assert_true(plumb_is_gguf(a) && !plumb_is_gguf(b) && !plumb_is_gguf(PLUMB_TEST_GOLDEN));
        plumb_gguf g;
        plumb_safetensors s;
        assert_ok(plumb_gguf_open(&g, a));
        assert_ok(plumb_safetensors_open(&s, b, NULL));
        for (int k = 0; k < 4; k++) {
            const plumb_file_tensor *x = plumb_gguf_tensor(&g, pairs[k][0]),
                                    *y = plumb_safetensors_find(&s, pairs[k][1]);
            assert_true(x && y && x->n_dims == y->n_dims && y->type == PLUMB_FT_F32);
            int64_t n = 1;
            for (int d = 0; d < x->n_dims; d++) {
                assert_int_equal(x->shape[d], y->shape[d]);
                n *= x->shape[d];
            }
            float *out = malloc((size_t)n * sizeof *out);
            assert_ok(plumb_tensor_to_float(x, 0, n, out));
            assert_memory_equal(out, y->data, (size_t)n * sizeof *out);
            free(out);
        }
        plumb_gguf_close(&g);
        plumb_safetensors_close(&s);
    }
}

static void every_truncation_is_an_error(void **state) {
    char *text;
    size_t size;
    assert_ok(plumb_read_file(PLUMB_TEST_DATA "/io/values.gguf", &text, &size));
    plumb_gguf g;
    assert_ok(plumb_gguf_open(&g, PLUMB_TEST_DATA "/io/values.gguf"));
    size_t end = 0; /* of the last tensor; padding may be missing */
    for (int64_t i = 0; i < g.count; i++) {
        size_t e = (size_t)(g.tensors[i].data - g.map.data) + g.tensors[i].bytes;
        if (e > end) end = e;
    }
    plumb_gguf_close(&g);
    for (size_t cut = 0; cut < end; cut++)
        assert_int_equal(plumb_gguf_open(&g, put_file(*state, "cut.gguf", text, cut)), PLUMB_E_FORMAT);
    assert_ok(plumb_gguf_open(&g, put_file(*state, "cut.gguf", text, end)));
    plumb_gguf_close(&g);
    free(text);
}

static void bad_headers_are_refused(void **state) {
    bytes b = {"GGML", 4};
    refuse(state, &b, PLUMB_E_FORMAT, "not a GGUF file");
    b = start(1, 0, 0);
    refuse(state, &b, PLUMB_E_UNSUPPORTED, "version 1; versions 2 and 3");
    b = start(4, 0, 0);
    refuse(state, &b, PLUMB_E_UNSUPPORTED, "version 4");
    b = start(0x03000000, 0, 0);
    refuse(state, &b, PLUMB_E_UNSUPPORTED, "big-endian");
    b = start(3, INT64_MAX, 0);
    refuse(state, &b, PLUMB_E_FORMAT, "the number of tensors");
    b = start(3, 0, UINT64_MAX);
    refuse(state, &b, PLUMB_E_FORMAT, "the number of metadata values");
    plumb_gguf g;
    b = start(2, 0, 0);
    assert_ok(plumb_gguf_open(&g, put_file(*state, "empty.gguf", b.data, b.n)));
    plumb_gguf_close(&g);
}

static void bad_values_are_refused(void **state) {
    bytes b = start(3, 0, 1);
    add_u64(&b, UINT64_MAX - 3); /* the key's length */
    add_u64(&b, 0);
    refuse(state, &b, PLUMB_E_FORMAT, "a metadata key");
    b = start(3, 0, 1);
    add_text(&b, "x.y");
    add_u32(&b, 13);
    add_u64(&b, 0);
    refuse(state, &b, PLUMB_E_FORMAT, "key x.y has type 13");
    b = start(3, 0, 1);
    add_u64(&b, 3);
    add(&b, "a\0b", 3);
    add_u32(&b, PLUMB_GGUF_U8);
    add_u64(&b, 0);
    refuse(state, &b, PLUMB_E_FORMAT, "without NUL");
    b = start(3, 0, 1);
    add_text(&b, "flag");
    add_u32(&b, PLUMB_GGUF_BOOL);
    add(&b, "\2", 1);
    refuse(state, &b, PLUMB_E_FORMAT, "key flag: a boolean is 2");
    b = start(3, 0, 1);
    add_text(&b, "text");
    add_u32(&b, PLUMB_GGUF_STRING);
    add_u64(&b, 1ull << 63);
    refuse(state, &b, PLUMB_E_FORMAT, "text at byte");
    b = start(3, 0, 1);
    add_text(&b, "nest");
    add_u32(&b, PLUMB_GGUF_ARRAY);
    add_u32(&b, PLUMB_GGUF_ARRAY);
    add_u64(&b, 1);
    refuse(state, &b, PLUMB_E_UNSUPPORTED, "key nest is an array of arrays");
    static const uint64_t counts[] = {INT64_MAX, 1ull << 63, UINT64_MAX, (1ull << 61) + 1, 3};
    static const uint32_t items[] = {PLUMB_GGUF_U8, PLUMB_GGUF_F64, PLUMB_GGUF_STRING};
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 3; k++) {
            b = start(3, 0, 1);
            add_text(&b, "list");
            add_u32(&b, PLUMB_GGUF_ARRAY);
            add_u32(&b, items[k]);
            add_u64(&b, counts[i]);
            add(&b, "\0\0", 2);
            refuse(state, &b, PLUMB_E_FORMAT, "list");
        }
    b = start(3, 0, 2);
    for (int i = 0; i < 2; i++) {
        add_text(&b, "twin");
        add_u32(&b, PLUMB_GGUF_U32);
        add_u32(&b, 1);
    }
    refuse(state, &b, PLUMB_E_FORMAT, "key twin is there twice");
}

/* One tensor "t", described as given, 64 bytes of data. */
static void refuse_tensor(void **state, uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset,
                          const char *mention) {
    bytes b = start(3, 1, 0);
    add_tensor(&b, "t", columns, rows, type, offset);
    add_data(&b, 32, 64);
    refuse(state, &b, strstr(mention, "type number") ? PLUMB_E_UNSUPPORTED : PLUMB_E_FORMAT, mention);
}

static void bad_tensors_are_refused(void **state) {
    plumb_gguf g;
    bytes b = start(3, 1, 0);
    add_tensor(&b, "t", 4, 4, 0, 0);
    add_data(&b, 32, 64);
    assert_ok(plumb_gguf_open(&g, put_file(*state, "good.gguf", b.data, b.n)));
    plumb_gguf_close(&g);
    refuse_tensor(state, 4, 5, 0, 0, "goes beyond");
    refuse_tensor(state, 4, 4, 0, 32, "goes beyond");
    refuse_tensor(state, 4, 4, 0, UINT64_MAX - 31, "goes beyond");
    refuse_tensor(state, 4, 4, 0, 16, "multiple of 32");
    refuse_tensor(state, 33, 1, 3, 0, "Q4_1 blocks of 32");
    refuse_tensor(state, 4, 1, 4, 0, "type number 4");
    refuse_tensor(state, 4, 1, UINT32_MAX, 0, "type number");
    refuse_tensor(state, 1ull << 63, 1, 0, 0, "too large");
    refuse_tensor(state, UINT64_MAX, UINT64_MAX, 0, 0, "too large");
    refuse_tensor(state, 1ull << 40, 1ull << 40, 0, 0, "too large");
    refuse_tensor(state, INT64_MAX, 1, 0, 0, "too large");
    refuse_tensor(state, 1ull << 32, 1ull << 30, 3, 0, "goes beyond");

    b = start(3, 2, 0);
    add_tensor(&b, "a", 16, 1, 0, 0);
    add_tensor(&b, "b", 8, 1, 0, 32);
    add_data(&b, 32, 64);
    refuse(state, &b, PLUMB_E_FORMAT, "\"b\" at byte 32 of the data overlaps");
    b = start(3, 2, 0);
    add_tensor(&b, "a", 8, 1, 0, 0);
    add_tensor(&b, "a", 8, 1, 0, 32);
    add_data(&b, 32, 64);
    refuse(state, &b, PLUMB_E_FORMAT, "\"a\" is there twice");
    b = start(3, 1, 0);
    add_text(&b, "t");
    add_u32(&b, 5);
    for (int i = 0; i < 5; i++) add_u64(&b, 1);
    add_u32(&b, 0);
    add_u64(&b, 0);
    refuse(state, &b, PLUMB_E_UNSUPPORTED, "5 dimensions");
    for (uint32_t alignment = 0; alignment < 32; alignment += 24) { /* 0 and 24 */
        b = start(3, 1, 1);
        add_text(&b, "general.alignment");
        add_u32(&b, PLUMB_GGUF_U32);
        add_u32(&b, alignment);
        add_tensor(&b, "t", 4, 4, 0, 0);
        add_data(&b, 32, 64);
        refuse(state, &b, PLUMB_E_FORMAT, "general.alignment: expected a power of two");
    }
}

static void failed_allocations_are_reported(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        plumb_gguf g;
        plumb_alloc_fail_after(n);
        plumb_status status = plumb_gguf_open(&g, PLUMB_TEST_DATA "/io/values.gguf");
        plumb_gguf_close(&g);
        if (status == PLUMB_OK) break;
        assert_int_equal(status, PLUMB_E_MEMORY);
        assert_true(n < 1000);
    }
    plumb_alloc_fail_after(0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        T(reads_every_kind_of_value),        T(blocks_are_exact_to_the_bit),
        T(halves_agree_with_the_plain_form), T(tiny_models_agree_with_their_dequantised_copies),
        T(every_truncation_is_an_error),     T(bad_headers_are_refused),
        T(bad_values_are_refused),           T(bad_tensors_are_refused),
        T(failed_allocations_are_reported)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
