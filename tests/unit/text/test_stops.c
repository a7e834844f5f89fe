/* Stop strings: transformers' criteria on two tokenizers, every kind of tokenizer by the text it decodes, special tokens, refusals. */
#include "text_test.h"
#include "plumb/stops.h"

static void fixtures(void **state) {
    (void)state;
    json_t *file = NULL, *of, *c, *list, *id;
    size_t i, k, x, n, hits = 0;
    assert_ok(plumb_json_load(&file, PLUMB_TEST_DATA "/sampling/stops.json"));
    json_array_foreach(json_object_get(file, "cases"), i, of) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", PLUMB_TEST_DATA, json_string_value(json_object_get(of, "tokenizer")));
        plumb_tokenizer *t = load(path);
        json_array_foreach(json_object_get(of, "cases"), k, c) {
            char *strings[8];
            int count = 0;
            plumb_stops *s;
            json_array_foreach(json_object_get(c, "stop_strings"), n, id) strings[count++] = (char *)json_string_value(id);
            assert_ok(plumb_stops_create(&s, t, strings, count));
            json_array_foreach(json_object_get(of, "ids"), x, list) {
                int32_t ids[256];
                json_t *expected = json_array_get(json_object_get(c, "hits"), x);
                size_t at = 0;
                json_array_foreach(list, n, id) {
                    ids[n] = (int32_t)json_integer_value(id);
                    bool stops = at < json_array_size(expected) && (size_t)json_integer_value(json_array_get(expected, at)) == n + 1;
                    if (plumb_stops_hit(s, ids, (int64_t)n + 1) != stops)
                        fail_msg("%s: '%s' on text %zu at token %zu: %s expected", path, strings[0], x, n, stops ? "a stop" : "none");
                    at += stops, hits += stops;
                }
            }
            plumb_stops_free(s);
        }
        plumb_tokenizer_free(t);
    }
    assert_true(hits > 100);
    json_decref(file);
}

/* The first stop comes with the token that first brings the string into the decoded text; the text begins with a word, so that a leading
 * space cannot matter. */
static void first_stop(const char *name, const char *text, const char *stop) {
    char path[1024];
    snprintf(path, sizeof path, "%s%s", DATA, name);
    plumb_tokenizer *t = load(path);
    plumb_ids ids = encode(t, text, false);
    plumb_stops *s;
    plumb_str decoded = {0};
    assert_ok(plumb_stops_create(&s, t, &(char *){(char *)stop}, 1));
    bool stopped = false;
    for (size_t n = 1; n <= ids.count && !stopped; n++) {
        decoded.length = 0;
        assert_ok(plumb_detokenize(t, ids.data, n, true, &decoded));
        bool there = strstr(decoded.data, stop) != NULL;
        stopped = plumb_stops_hit(s, ids.data, (int64_t)n);
        if (there != stopped)
            fail_msg("%s: '%s' after %zu tokens ('%s'): %s", name, stop, n, decoded.data, stopped ? "a stop too early" : "no stop");
    }
    if (!stopped) fail_msg("%s: '%s' never stops '%s'", name, stop, text);
    plumb_str_free(&decoded);
    plumb_stops_free(s);
    plumb_ids_free(&ids);
    plumb_tokenizer_free(t);
}
static void every_tokenizer(void **state) {
    (void)state;
    const char *names[] = {"gpt2.json.gz", "chatml/tokenizer.json", "stories260K/tokenizer.json", "sentencepiece.gguf",
                           "phi-3.gguf",   "tiny_bpe.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        first_stop(names[i], "hello there, this is the end. And more", "the end.");
        first_stop(names[i], "hello there, this is the end. And more", " is");
        first_stop(names[i], "hello there, this is the end. And more", "re");
    }
    for (size_t i = 0; i < 5; i++) { /* characters of several tokens */
        first_stop(names[i], "smile 🙂🙃 done", "🙃");
        first_stop(names[i], "Noël à Köln 日本 fin", "öln 日");
    }
}

static void special_tokens_have_no_text(void **state) {
    (void)state;
    plumb_tokenizer *t = load(DATA "chatml/tokenizer.json");
    int32_t end = plumb_tokenizer_id(t, "<|im_end|>");
    assert_true(end >= 0);
    plumb_ids ids = encode(t, "the end", false), with = {0};
    plumb_stops *s, *never;
    char *strings[] = {"<|im_end|>", "the end", "im_end"};
    assert_ok(plumb_stops_create(&s, t, strings, 3));
    for (size_t i = 0; i < ids.count; i++) { /* skipped between others, as in decoding */
        assert_ok(plumb_ids_push(&with, end));
        assert_false(plumb_stops_hit(s, with.data, (int64_t)with.count));
        assert_ok(plumb_ids_push(&with, ids.data[i]));
    }
    assert_true(plumb_stops_hit(s, with.data, (int64_t)with.count));
    assert_ok(plumb_ids_push(&with, end)); /* it brings nothing to an end */
    assert_false(plumb_stops_hit(s, with.data, (int64_t)with.count));
    const int32_t strange[] = {-1, 1 << 20};
    assert_false(plumb_stops_hit(s, strange, 2));
    assert_false(plumb_stops_hit(s, ids.data, 0));
    assert_false(plumb_stops_hit(NULL, ids.data, (int64_t)ids.count));
    assert_ok(plumb_stops_create(&never, t, NULL, 0));
    assert_false(plumb_stops_hit(never, ids.data, (int64_t)ids.count));
    plumb_stops_free(s), plumb_stops_free(never), plumb_stops_free(NULL);
    strings[1] = "";
    assert_error(plumb_stops_create(&s, t, strings, 3), PLUMB_E_CONFIG, "stop_strings: number 2 is empty");
    plumb_ids_free(&ids), plumb_ids_free(&with);
    plumb_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(fixtures), cmocka_unit_test(every_tokenizer),
                                       cmocka_unit_test(special_tokens_have_no_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
