/* JSON: positions in messages, duplicates, depth, integers beyond 64 bits. */
#include "io_test.h"
#include <math.h>

static json_t *parse(const char *text) {
    json_t *value;
    assert_ok(plumb_json_parse(&value, text, strlen(text), "test", 1));
    return value;
}

static void refuse(const char *text, size_t n, int first_line, const char *mention) {
    json_t *value;
    assert_refused(plumb_json_parse(&value, text, n, "data.jsonl", first_line), PLUMB_E_FORMAT, mention);
    assert_null(value);
}
#define REFUSE(text, first_line, mention) refuse(text, sizeof(text) - 1, first_line, mention)

static void messages_give_the_place(void **state) {
    (void)state;
    REFUSE("{\"a\": }", 1, "data.jsonl:1:7: ");
    REFUSE("{\"a\": }", 4711, "data.jsonl:4711:7: ");
    REFUSE("{\n\"a\": 1,\n  x}", 10, "data.jsonl:12:3: ");
    REFUSE("{\"a\": 1", 3, "data.jsonl:3:");
    REFUSE("", 5, "data.jsonl:5:1: empty");
    REFUSE(" \r\n\t", 5, "data.jsonl:5:1: empty");
    REFUSE("{\"a\": \x1b[31m}", 1, "data.jsonl:1:");
    assert_null(strchr(plumb_error_message(), 0x1b));
}

static void bad_text_is_refused(void **state) {
    (void)state;
    REFUSE("{\"a\": 1, \"b\": 2, \"a\": 3}", 1, "duplicate object key");
    REFUSE("{\"a\": 1} {\"b\": 2}", 1, "end of file expected");
    REFUSE("{\"a\": \"\xff\"}", 1, "UTF-8");
    REFUSE("{\"a\": \"\xc3\"}", 1, "UTF-8");
    REFUSE("{\"a\": \"\xed\xa0\x80\"}", 1, "UTF-8");
    REFUSE("{\"a\": \"\\ud800\"}", 1, "invalid Unicode");
    REFUSE("{\"a\": NaN}", 1, "not valid JSON");
    REFUSE("{\"a\": 01}", 1, "not valid JSON");
    REFUSE("{\"a\": 1e999}", 1, "overflow");
    REFUSE("{\"a\": 1}\0", 1, "not valid JSON");
    REFUSE("\"text\"", 1, "'[' or '{' expected");
    enum { DEEP = 100000 };
    char *deep = malloc(DEEP);
    memset(deep, '[', DEEP);
    refuse(deep, DEEP, 1, "maximum parsing depth");
    for (int i = 0; i < DEEP / 5; i++) memcpy(deep + 5 * i, "{\"a\":", 5);
    refuse(deep, DEEP, 1, "maximum parsing depth");
    free(deep);
}

static void integers_beyond_64_bits_become_reals(void **state) {
    (void)state;
    json_t *v = parse("{\"model_max_length\": 1000000000000000019884624838656, \"n\": -123456789012345678901,"
                      " \"fits\": 9223372036854775807, \"text\": \"99999999999999999999 \\\" 99999999999999999999\","
                      " \"real\": 1.12345678901234567890123, \"exp\": 1e0000000000000000000000002}");
    assert_true(json_real_value(json_object_get(v, "model_max_length")) == 1e30);
    assert_true(json_real_value(json_object_get(v, "n")) == -123456789012345678901.0);
    assert_true(fabs(json_number_value(json_object_get(v, "fits")) - 9.223372036854775807e18) < 1e4);
    assert_string_equal(json_string_value(json_object_get(v, "text")), "99999999999999999999 \" 99999999999999999999");
    assert_true(json_real_value(json_object_get(v, "real")) == 1.12345678901234567890123);
    assert_true(json_real_value(json_object_get(v, "exp")) == 100.0);
    json_decref(v);
    v = parse("{\"fits\": 9223372036854775807}");
    assert_true(json_integer_value(json_object_get(v, "fits")) == INT64_MAX);
    json_decref(v);
    REFUSE("{\"a\": 1000000000000000019884624838656, \"b\": }", 1, "data.jsonl:1:");
}

static void files_may_be_marked_or_compressed(void **state) {
    json_t *v;
    assert_ok(plumb_json_load(&v, put_file(*state, "mark.json", "\xef\xbb\xbf{\"a\":1}", 10)));
    assert_int_equal(json_integer_value(json_object_get(v, "a")), 1);
    json_decref(v);
    static const uint8_t packed[] = {/* printf '[7]' | gzip -n */
                                     0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x8b, 0x36,
                                     0x8f, 0x05, 0x00, 0x3e, 0x95, 0x75, 0x1a, 0x03, 0x00, 0x00, 0x00};
    const char *path = put_file(*state, "x.json.gz", packed, sizeof packed);
    assert_ok(plumb_json_load(&v, path));
    assert_int_equal(json_integer_value(json_array_get(v, 0)), 7);
    json_decref(v);
    assert_refused(plumb_json_load(&v, in(*state, "none.json")), PLUMB_E_IO, "none.json");
    assert_refused(plumb_json_load(&v, put_file(*state, "bad.json", "{\n]", 3)), PLUMB_E_FORMAT, "bad.json:2:1: ");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {T(messages_give_the_place), T(bad_text_is_refused),
                                       T(integers_beyond_64_bits_become_reals), T(files_may_be_marked_or_compressed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
