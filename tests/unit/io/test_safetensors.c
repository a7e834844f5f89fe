/* safetensors: files of the reference library read and written again byte for byte; what the library refuses is
 * refused. */
#include "io_test.h"
#include <math.h>

static const char *write_bytes(const char *folder, const char *name, const char *header, size_t data_bytes) {
    uint64_t n = strlen(header);
    char *bytes = calloc(1, 8 + n + data_bytes);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++) bytes[8 + n + i] = (char)i;
    const char *path = put_file(folder, name, bytes, 8 + n + data_bytes);
    free(bytes);
    return path;
}

static plumb_file_type type_of(const char *name) {
    for (int t = 0; t < PLUMB_FT_OTHER; t++)
        if (strcmp(plumb_file_type_name(t), name) == 0) return t;
    return PLUMB_FT_OTHER;
}

typedef struct list { /* mixed.json as items to write */
    json_t *json;
    plumb_st_item *items;
    int64_t count;
} list;

static list load_list(void) {
    list l = {0};
    assert_ok(plumb_json_load(&l.json, PLUMB_TEST_DATA "/io/mixed.json"));
    l.count = (int64_t)json_array_size(l.json);
    l.items = calloc((size_t)l.count, sizeof *l.items);
    for (int64_t i = 0; i < l.count; i++) {
        json_t *o = json_array_get(l.json, (size_t)i), *shape = json_object_get(o, "shape"),
               *v = json_object_get(o, "values");
        float *data = calloc(json_array_size(v) + 1, sizeof *data);
        for (size_t k = 0; k < json_array_size(v); k++) data[k] = (float)json_number_value(json_array_get(v, k));
        l.items[i] = (plumb_st_item){.name = json_string_value(json_object_get(o, "name")),
                                     .type = type_of(json_string_value(json_object_get(o, "type"))),
                                     .n_dims = (int)json_array_size(shape),
                                     .data = data};
        for (int d = 0; d < l.items[i].n_dims; d++)
            l.items[i].shape[d] = json_integer_value(json_array_get(shape, (size_t)d));
    }
    return l;
}

static void free_list(list *l) {
    for (int64_t i = 0; i < l->count; i++) free((void *)(uintptr_t)l->items[i].data);
    free(l->items);
    json_decref(l->json);
}

static void assert_same_files(const char *a, const char *b) {
    plumb_map x, y;
    assert_ok(plumb_map_open(&x, a));
    assert_ok(plumb_map_open(&y, b));
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    plumb_map_close(&x);
    plumb_map_close(&y);
}

static plumb_status copy_item(void *user, int64_t item, float *out) {
    const list *l = user;
    int64_t n = 1;
    for (int d = 0; d < l->items[item].n_dims; d++) n *= l->items[item].shape[d];
    memcpy(out, l->items[item].data, (size_t)n * sizeof *out);
    return PLUMB_OK;
}

static void writes_what_the_library_writes(void **state) {
    list l = load_list();
    assert_ok(plumb_safetensors_write(in(*state, "held"), l.items, l.count, NULL, NULL));
    assert_same_files(in(*state, "held"), PLUMB_TEST_DATA "/io/mixed.safetensors");
    assert_ok(plumb_safetensors_write(in(*state, "fetched"), l.items, l.count, copy_item, &l));
    assert_same_files(in(*state, "fetched"), PLUMB_TEST_DATA "/io/mixed.safetensors");
    free_list(&l);
}

static void reads_what_the_library_wrote(void **state) {
    (void)state;
    list l = load_list();
    plumb_safetensors s;
    assert_ok(plumb_safetensors_open(&s, PLUMB_TEST_DATA "/io/mixed.safetensors", NULL));
    assert_int_equal(s.count, l.count);
    assert_string_equal(json_string_value(json_object_get(s.metadata, "format")), "pt");
    for (int64_t i = 1; i < s.count; i++) assert_true(strcmp(s.tensors[i - 1].name, s.tensors[i].name) < 0);
    for (int64_t i = 0; i < l.count; i++) {
        const plumb_st_item *item = &l.items[i];
        const plumb_file_tensor *t = plumb_safetensors_find(&s, item->name);
        assert_non_null(t);
        assert_int_equal(t->type, item->type);
        assert_int_equal(t->n_dims, item->n_dims);
        int64_t n = 1;
        for (int d = 0; d < t->n_dims; d++) {
            assert_int_equal(t->shape[d], item->shape[d]);
            n *= t->shape[d];
        }
        float *values = calloc((size_t)n + 1, sizeof *values);
        assert_ok(plumb_tensor_to_float(t, 0, n, values));
        if (t->type == PLUMB_FT_F32) assert_memory_equal(values, item->data, (size_t)n * 4);
        for (int64_t k = 0; k < n && t->type != PLUMB_FT_F32; k++)
            assert_true(fabsf(values[k] - item->data[k]) <=
                        (t->type == PLUMB_FT_BF16 ? 0x1p-8f : 0x1p-11f) * fabsf(item->data[k]) + 0x1p-25f);
        free(values);
    }
    assert_null(plumb_safetensors_find(&s, "a.weigh"));
    assert_null(plumb_safetensors_find(&s, ""));
    plumb_safetensors_close(&s);
    plumb_safetensors_close(&s);
    free_list(&l);
}

static void reads_every_type(void **state) {
    (void)state;
    plumb_safetensors s;
    static const char *const names[] = {"float64", "float32", "float16", "int64", "int32",
                                        "int16",   "int8",    "uint8",   "bool"};
    assert_ok(plumb_safetensors_open(&s, PLUMB_TEST_DATA "/io/types.safetensors", NULL));
    assert_int_equal(s.count, 12);
    for (int i = 0; i < 9; i++) {
        float v[4];
        const plumb_file_tensor *t = plumb_safetensors_find(&s, names[i]);
        assert_non_null(t);
        assert_ok(plumb_tensor_to_float(t, 0, 4, v));
        float expected[4] = {0, 1, i == 8 ? 1 : 2, i == 8 ? 1 : 100};
        assert_memory_equal(v, expected, sizeof v);
        assert_ok(plumb_tensor_to_float(t, 3, 1, v));
        assert_true(v[0] == expected[3]);
        assert_refused(plumb_tensor_to_float(t, 3, 2, v), PLUMB_E_DATA, names[i]);
        assert_refused(plumb_tensor_to_float(t, -1, 1, v), PLUMB_E_DATA, names[i]);
        assert_refused(plumb_tensor_to_float(t, INT64_MAX, INT64_MAX, v), PLUMB_E_DATA, names[i]);
    }
    float v[4];
    assert_refused(plumb_tensor_to_float(plumb_safetensors_find(&s, "uint32"), 0, 4, v), PLUMB_E_UNSUPPORTED,
                   "U32, which cannot be read; supported are F32");
    plumb_safetensors_close(&s);
}

#define T(name, dtype, shape, begin, end)                                                                              \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

/* Each row was given to safetensors 0.8.0, which agrees, but for the two rules that are stricter here (marked). */
static const struct {
    const char *header;
    size_t data;
    const char *mention; /* NULL: accepted */
} headers[] = {
    {"{}", 0, NULL},
    {"{}", 2, "the file at 2"},
    {"  {" T("a", "F32", "[1]", "0", "4") "}  \n", 4, NULL},
    {"{" T("a", "F32", "[]", "0", "4") "}", 4, NULL},
    {"{" T("a", "F32", "[0,3]", "0", "0") "," T("b", "F32", "[1]", "0", "4") "}", 4, NULL},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("z", "F32", "[0]", "4", "4") "," T("b", "F32", "[1]", "4", "8") "}", 8,
     NULL},
    {"{" T("a", "F32", "[2]", "0", "8") "," T("z", "F32", "[0]", "4", "4") "}", 8, "overlaps"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8", "12") "}", 12, "there is a gap"},
    {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[2]", "4", "12") "}", 12, "overlaps"},
    {"{" T("a", "F32", "[1]", "4", "8") "}", 8, "there is a gap"},
    {"{" T("a", "F32", "[1]", "0", "4") "}", 8, "the file at 8"},
    {"{" T("a", "F32", "[1]", "0", "4") "}", 3, "incomplete copy"},
    {"{" T("b", "F32", "[1]", "4", "8") "," T("a", "F32", "[1]", "0", "4") "}", 8, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"extra\":{}}}", 4, NULL},
    {"{" T("a", "F32", "[1]", "-4", "4") "}", 4, "not a range"},
    {"{" T("a", "F32", "[1]", "4", "0") "}", 4, "not a range"},
    {"{" T("a", "F32", "[1]", "0", "4.0") "}", 4, "data_offsets"},
    {"{" T("a", "F32", "[1]", "0", "4,4") "}", 4, "data_offsets"},
    {"{" T("a", "F32", "[1.0]", "0", "4") "}", 4, "shape"},
    {"{" T("a", "F32", "[-1]", "0", "4") "}", 4, "shape"},
    {"{" T("a", "F32", "{}", "0", "4") "}", 4, "shape"},
    {"{" T("a", "F32", "[2]", "0", "4") "}", 4, "need 8 bytes"},
    {"{" T("a", "F32", "[4611686018427387904,2]", "0", "4") "}", 4, "too large"},
    {"{" T("a", "F32", "[9223372036854775807]", "0", "4") "}", 4, "too large"},
    {"{" T("a", "F32", "[9223372036854775807,9223372036854775807]", "0", "4") "}", 4, "too large"},
    {"{" T("a", "F32", "[1099511627776,1099511627776,0]", "0", "0") "}", 0, "too large"},
    {"{" T("a", "F32", "[0,1099511627776,1099511627776]", "0", "0") "}", 0, NULL},
    {"{" T("a", "F32", "[1]", "9223372036854775800", "9223372036854775804") "}", 4, "there is a gap"},
    {"{" T("a", "F32", "[2305843009213693951]", "0", "9223372036854775804") "}", 4, "too large"},
    {"{" T("a", "U8", "[1000000000000000000]", "0", "1000000000000000000") "}", 4, "incomplete copy"},
    {"{" T("a", "Q4", "[1]", "0", "4") "}", 4, "\"Q4\" is not a type"},
    {"{" T("a", "f32", "[1]", "0", "4") "}", 4, "\"f32\" is not a type"},
    {"{" T("a", "F4", "[2]", "0", "1") "}", 1, NULL},
    {"{" T("a", "F4", "[1]", "0", "1") "}", 1, "end at a byte"},
    {"{" T("a", "F6_E2M3", "[4]", "0", "3") "}", 3, NULL},
    {"{" T("a", "C64", "[1]", "0", "8") "," T("b", "F8_E8M0", "[1]", "8", "9") "}", 9, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "duplicate"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "0", "4") "}", 4, "duplicate"}, /* stricter */
    {"{" T("a", "F32", "[1,1,1,1,1]", "0", "4") "}", 4, "5 dimensions"},                         /* stricter */
    {"{\"__metadata__\":{\"a\":\"1\"}," T("a", "F32", "[1]", "0", "4") "}", 4, NULL},
    {"{\"__metadata__\":null," T("a", "F32", "[1]", "0", "4") "}", 4, NULL},
    {"{\"__metadata__\":{\"a\":1}," T("a", "F32", "[1]", "0", "4") "}", 4, "value of \"a\""},
    {"{\"__metadata__\":[]," T("a", "F32", "[1]", "0", "4") "}", 4, "__metadata__"},
    {"{\"a\":[]}", 0, "expected an object"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype"},
    {"{\"a\xff\":{}}", 0, "UTF-8"},
    {"[]", 0, "not an object"},
    {"{} x", 0, "not valid JSON"},
    {"", 0, "empty"},
    {"", 7, "empty"},
};

static void headers_are_judged_as_by_the_library(void **state) {
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        plumb_safetensors s;
        plumb_status status =
            plumb_safetensors_open(&s, write_bytes(*state, "x.safetensors", headers[i].header, headers[i].data), NULL);
        if (!headers[i].mention) {
            if (status != PLUMB_OK) fail_msg("row %zu: %s", i, plumb_error_message());
        } else if (status == PLUMB_OK || !strstr(plumb_error_message(), headers[i].mention) ||
                   !strstr(plumb_error_message(), "x.safetensors")) {
            fail_msg("row %zu: %s: \"%s\"", i, headers[i].header,
                     status == PLUMB_OK ? "accepted" : plumb_error_message());
        } else {
            assert_true(status == PLUMB_E_FORMAT || status == PLUMB_E_UNSUPPORTED);
            assert_null(s.tensors);
        }
        plumb_safetensors_close(&s);
    }
}

static void header_lengths_are_checked(void **state) {
    plumb_safetensors s;
    static const uint64_t lengths[] = {3, 100000001, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < 5; i++) {
        uint8_t bytes[10] = {0};
        memcpy(bytes, &lengths[i], 8);
        memcpy(bytes + 8, "{}", 2);
        assert_refused(plumb_safetensors_open(&s, put_file(*state, "x.safetensors", bytes, 10), NULL), PLUMB_E_FORMAT,
                       "announce");
    }
    assert_refused(plumb_safetensors_open(&s, put_file(*state, "x.safetensors", "\2\0\0\0\0\0\0", 7), NULL),
                   PLUMB_E_FORMAT, "at least 8");
    assert_refused(plumb_safetensors_open(&s, put_file(*state, "x.safetensors", "", 0), NULL), PLUMB_E_FORMAT,
                   "at least 8");
    assert_refused(plumb_safetensors_open(&s, in(*state, "none"), NULL), PLUMB_E_IO, "none");
}

static void folders_and_indices(void **state) {
    plumb_safetensors s;
    const char *folder = *state;
    assert_refused(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_IO, "neither model.safetensors nor");
    write_bytes(folder, "model-1.safetensors", "{" T("a", "U8", "[2]", "0", "2") "}", 2);
    write_bytes(folder, "model-2.safetensors", "{" T("b", "U8", "[3]", "0", "3") "," T("c", "U8", "[1]", "3", "4") "}",
                4);
#define INDEX(map)                                                                                                     \
    put_file(folder, "model.safetensors.index.json", "{\"weight_map\":{" map "}}",                                     \
             sizeof("{\"weight_map\":{" map "}}") - 1)
    INDEX("\"c\":\"model-2.safetensors\",\"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\"");
    assert_ok(plumb_safetensors_open(&s, folder, NULL));
    assert_int_equal(s.count, 3);
    assert_int_equal(s.n_maps, 2);
    assert_int_equal(plumb_safetensors_find(&s, "c")->data[0], 3);
    plumb_safetensors_close(&s);
    assert_ok(plumb_safetensors_open(&s, in(folder, "model.safetensors.index.json"), NULL));
    plumb_safetensors_close(&s);
    assert_refused(plumb_safetensors_open(&s, folder, "adapter_model"), PLUMB_E_IO, "adapter_model.safetensors");

    static const char *const escapes[] = {"../x", "/etc/passwd", "a/../../x", "", "a//b", "./a", "..", "a/"};
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        char text[256];
        int n = snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", escapes[i]);
        put_file(folder, "model.safetensors.index.json", text, (size_t)n);
        assert_refused(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_FORMAT, "in the same folder or below");
    }
    INDEX("\"a\":\"model-1.safetensors\",\"b\":\"model-1.safetensors\"");
    assert_refused(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_FORMAT, "\"b\" is not in model-1");
    INDEX("\"a\":\"model-2.safetensors\",\"b\":\"model-1.safetensors\"");
    assert_refused(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_FORMAT,
                   "should be in model-1.safetensors, found in model-2");
    INDEX("\"a\":\"model-1.safetensors\",\"x\":\"model-3.safetensors\"");
    assert_refused(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_IO, "names model-3.safetensors");
    INDEX("\"a\":7");
    assert_refused(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_FORMAT, "expected a file name");
    INDEX("");
    assert_refused(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_FORMAT, "weight_map");
    write_bytes(folder, "model-3.safetensors", "{" T("a", "U8", "[2]", "0", "2") "," T("x", "U8", "[]", "2", "3") "}",
                3);
    INDEX("\"a\":\"model-1.safetensors\",\"x\":\"model-3.safetensors\"");
    assert_int_equal(plumb_safetensors_open(&s, folder, NULL), PLUMB_E_FORMAT); /* "a" is in both */
    assert_null(s.tensors);

    write_bytes(folder, "model.safetensors", "{}", 0); /* the single file wins, as in transformers */
    assert_ok(plumb_safetensors_open(&s, folder, NULL));
    assert_int_equal(s.count, 0);
    plumb_safetensors_close(&s);
}

static plumb_status refuse_second(void *user, int64_t item, float *out) {
    (void)user;
    out[0] = 1;
    return item == 1 ? plumb_error(PLUMB_E_NUMERIC, "second") : PLUMB_OK;
}

static void bad_items_leave_no_file(void **state) {
    float one[4] = {1, 2, 3, 4}, large[1] = {65520}, endless[2] = {INFINITY, -INFINITY}, largest[1] = {3.4e38f};
    const char *path = in(*state, "x");
#define WRITE(...)                                                                                                     \
    plumb_safetensors_write(path, (plumb_st_item[]){__VA_ARGS__},                                                      \
                            sizeof((plumb_st_item[]){__VA_ARGS__}) / sizeof(plumb_st_item), NULL, NULL)
    assert_refused(WRITE({"a", 1, {1}, one, PLUMB_FT_F32}, {"a", 1, {1}, one, PLUMB_FT_F16}), PLUMB_E_DATA,
                   "\"a\" is given twice");
    assert_refused(WRITE({"a", 1, {1}, one, PLUMB_FT_I8}), PLUMB_E_UNSUPPORTED, "I8; supported are F32, BF16 and F16");
    assert_refused(WRITE({"a", 1, {-1}, one, PLUMB_FT_F32}), PLUMB_E_DATA, "impossible shape");
    assert_refused(WRITE({"a", 2, {INT64_MAX, 2}, one, PLUMB_FT_F32}), PLUMB_E_DATA, "impossible shape");
    assert_refused(WRITE({"a", 1, {INT64_MAX / 4}, one, PLUMB_FT_F32}, {"b", 1, {INT64_MAX / 4}, one, PLUMB_FT_F32},
                         {"c", 1, {INT64_MAX / 4}, one, PLUMB_FT_F32}),
                   PLUMB_E_DATA, "too large");
    assert_refused(WRITE({"a", 5, {1}, one, PLUMB_FT_F32}), PLUMB_E_DATA, "impossible shape");
    assert_refused(WRITE({"a", 1, {1}, NULL, PLUMB_FT_F32}), PLUMB_E_DATA, "no data");
    assert_refused(WRITE({"\xff", 1, {1}, one, PLUMB_FT_F32}), PLUMB_E_DATA, "no usable name");
    assert_refused(WRITE({"__metadata__", 1, {1}, one, PLUMB_FT_F32}), PLUMB_E_DATA, "no usable name");
    assert_refused(WRITE({"a", 1, {1}, large, PLUMB_FT_F16}), PLUMB_E_NUMERIC, "65520");
    assert_refused(WRITE({"a", 1, {1}, largest, PLUMB_FT_BF16}), PLUMB_E_NUMERIC, "3.4e+38");
    plumb_st_item two[] = {{"a", 1, {4}, NULL, PLUMB_FT_F32}, {"b", 1, {4}, NULL, PLUMB_FT_BF16}};
    assert_refused(plumb_safetensors_write(path, two, 2, refuse_second, NULL), PLUMB_E_NUMERIC, "second");
    assert_int_equal(count_entries(*state), 0);
    assert_ok(WRITE({"a", 1, {2}, endless, PLUMB_FT_F16}, {"e", 1, {0}, NULL, PLUMB_FT_F32}));
    plumb_safetensors s;
    float back[2];
    assert_ok(plumb_safetensors_open(&s, path, NULL));
    assert_ok(plumb_tensor_to_float(plumb_safetensors_find(&s, "a"), 0, 2, back));
    assert_memory_equal(back, endless, sizeof back);
    plumb_safetensors_close(&s);
    assert_ok(plumb_safetensors_write(path, NULL, 0, NULL, NULL));
    assert_ok(plumb_safetensors_open(&s, path, NULL));
    plumb_safetensors_close(&s);
}

static void every_float_survives_and_halves_round_to_even(void **state) {
    enum { N = 1 << 16 };
    float *v = malloc(N * sizeof *v), *back = malloc(N * sizeof *v);
    uint32_t u = 1;
    for (int i = 0; i < N; i++) {
        u = u * 1664525u + 1013904223u;
        memcpy(&v[i], &u, 4);
        if (isnan(v[i])) v[i] = 0;
    }
    plumb_st_item items[] = {{"x", 1, {N}, v, PLUMB_FT_F32}};
    plumb_safetensors s;
    assert_ok(plumb_safetensors_write(in(*state, "x"), items, 1, NULL, NULL));
    assert_ok(plumb_safetensors_open(&s, in(*state, "x"), NULL));
    assert_memory_equal(s.tensors[0].data, v, N * sizeof *v);
    plumb_safetensors_close(&s);
    for (int i = 0; i < N; i++) v[i] = plumb_f16_float((uint16_t)i); /* every half */
    for (int i = 0; i < N; i++)
        if (isnan(v[i])) v[i] = 0;
    items[0].type = PLUMB_FT_F16;
    assert_ok(plumb_safetensors_write(in(*state, "x"), items, 1, NULL, NULL));
    assert_ok(plumb_safetensors_open(&s, in(*state, "x"), NULL));
    assert_ok(plumb_tensor_to_float(&s.tensors[0], 0, N, back));
    assert_memory_equal(back, v, N * sizeof *v);
    plumb_safetensors_close(&s);
    for (int i = 0; i < 0x7bff; i++) { /* halfway between neighbours: the even one */
        v[i] = (plumb_f16_float((uint16_t)i) + plumb_f16_float((uint16_t)(i + 1))) / 2;
    }
    items[0].shape[0] = 0x7bff;
    assert_ok(plumb_safetensors_write(in(*state, "x"), items, 1, NULL, NULL));
    assert_ok(plumb_safetensors_open(&s, in(*state, "x"), NULL));
    for (int i = 0; i < 0x7bff; i++) {
        uint16_t h;
        memcpy(&h, s.tensors[0].data + 2 * i, 2);
        assert_int_equal(h, i + (i & 1));
    }
    plumb_safetensors_close(&s);
    free(v);
    free(back);
}

static void failed_allocations_leave_no_trace(void **state) {
    list l = load_list();
    const char *path = in(*state, "x");
    for (long n = 1;; n++) {
        plumb_safetensors s = {0};
        plumb_alloc_fail_after(n);
        plumb_status status = plumb_safetensors_write(path, l.items, l.count, NULL, NULL);
        if (status == PLUMB_OK) status = plumb_safetensors_open(&s, path, NULL);
        plumb_safetensors_close(&s);
        if (status == PLUMB_OK) break;
        assert_int_equal(status, PLUMB_E_MEMORY);
        assert_true(n < 1000);
    }
    plumb_alloc_fail_after(0);
    assert_int_equal(count_entries(*state), 1);
    free_list(&l);
}

int main(void) {
#define F(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {F(writes_what_the_library_writes),
                                       F(reads_what_the_library_wrote),
                                       F(reads_every_type),
                                       F(headers_are_judged_as_by_the_library),
                                       F(header_lengths_are_checked),
                                       F(folders_and_indices),
                                       F(bad_items_leave_no_file),
                                       F(every_float_survives_and_halves_round_to_even),
                                       F(failed_allocations_leave_no_trace)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
