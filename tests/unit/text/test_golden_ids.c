/* Ids and texts against the tokenizers library: every pipeline step, every name of tokenizer.ggml.pre, GPT-2's
 * published vectors and llama.cpp's cases for Phi-3's SentencePiece vocabulary.  tests/data/text/make_cases.py made
 * cases.json.gz. */
#include "text_test.h"

static void compare(const plumb_tokenizer *t, const char *name, const char *text, size_t length, bool special,
                    const json_t *expected) {
    plumb_ids ids = {0}, want = {0};
    size_t before = strlen(name);
    char what[200];
    snprintf(what, sizeof what, "%.*s: \"%.100s\"", (int)(before > 60 ? 60 : before), name, text);
    assert_ok(plumb_tokenize(t, text, length, special, &ids));
    for (size_t i = 0; i < json_array_size(expected); i++)
        assert_ok(plumb_ids_push(&want, (int32_t)json_integer_value(json_array_get(expected, i))));
    assert_ids(&ids, want.data, want.count, what);
    plumb_ids_free(&ids);
    plumb_ids_free(&want);
}

static void compare_text(const plumb_tokenizer *t, const char *name, const json_t *list, bool skip,
                         const json_t *expected) {
    plumb_ids ids = {0};
    plumb_str text = {0};
    for (size_t i = 0; i < json_array_size(list); i++)
        assert_ok(plumb_ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, i))));
    assert_ok(plumb_detokenize(t, ids.data, ids.count, skip, &text));
    if (text.length != json_string_length(expected) || memcmp(text.data, json_string_value(expected), text.length))
        fail_msg("%s: decoded \"%.300s\", \"%.300s\" expected", name, text.data, json_string_value(expected));
    plumb_ids_free(&ids);
    plumb_str_free(&text);
}

/* The base's tokenizer.json with some members replaced, as a file. */
static plumb_tokenizer *load_changed(const char *base, json_t *change, const char *dir) {
    char path[600];
    json_t *root, *model = json_object_get(change, "model");
    snprintf(path, sizeof path, "%s%s", DATA, base);
    assert_ok(plumb_json_load(&root, path));
    if (model) assert_int_equal(json_object_update(json_object_get(root, "model"), model), 0);
    json_object_del(change, "model");
    assert_int_equal(json_object_update(root, change), 0);
    char *text = json_dumps(root, 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_ok(plumb_write_file(path, text, strlen(text)));
    free(text);
    json_decref(root);
    return load(path);
}

static void all_cases(void **state) {
    (void)state;
    json_t *root;
    size_t count = 0, which, i;
    const json_t *item;
    char *dir = scratch_directory();
    assert_ok(plumb_json_load(&root, DATA "cases.json.gz"));
    const json_t *texts = json_object_get(root, "texts");
    json_array_foreach(json_object_get(root, "tokenizers"), which, item) {
        const char *name = json_string_value(json_object_get(item, "name")),
                   *file = json_string_value(json_object_get(item, "file"));
        char path[600];
        snprintf(path, sizeof path, "%s%s", DATA, file ? file : "");
        plumb_tokenizer *t =
            file ? load(path)
                 : load_changed(json_string_value(json_object_get(item, "base")), json_object_get(item, "change"), dir);
        for (i = 0; i < json_array_size(texts); i++, count++) {
            const json_t *text = json_array_get(texts, i), *ids = json_array_get(json_object_get(item, "ids"), i);
            compare(t, name, json_string_value(text), json_string_length(text), true, ids);
            if (i % 2) continue;
            compare_text(t, name, ids, false, json_array_get(json_object_get(item, "decoded"), i / 2));
            compare_text(t, name, ids, true, json_array_get(json_object_get(item, "skipped"), i / 2));
        }
        plumb_tokenizer_free(t);
    }
    assert_true(count >= 6000);
    json_decref(root);
    remove_directory(dir);
}

static void gpt2_vectors(void **state) {
    (void)state;
    plumb_tokenizer *t = load(DATA "gpt2.json.gz");
    FILE *f = fopen(DATA "gpt2_vectors.jsonl", "r");
    char *line = NULL;
    size_t capacity = 0, count = 0;
    assert_non_null(f);
    for (ssize_t n; (n = getline(&line, &capacity, f)) > 0;) {
        json_t *item = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, NULL); /* one text has a NUL */
        assert_non_null(item);
        if (strstr(json_string_value(json_object_get(item, "model")), "gpt2")) {
            const json_t *text = json_object_get(item, "text");
            compare(t, "gpt2 vector", json_string_value(text), json_string_length(text), true,
                    json_object_get(item, "ids"));
            count++;
        }
        json_decref(item);
    }
    assert_true(count >= 30);
    free(line);
    fclose(f);
    plumb_tokenizer_free(t);
}

/* llama.cpp's .inp holds texts with a line of their own between, .out a line of ids for each. */
static void phi3_cases(void **state) {
    (void)state;
    static const char border[] = "\n__ggml_vocab_test__\n";
    plumb_tokenizer *t = load(DATA "phi-3.gguf");
    char *texts, *lines;
    size_t size, count = 0;
    assert_ok(plumb_read_file(DATA "phi-3.inp", &texts, &size));
    assert_ok(plumb_read_file(DATA "phi-3.out", &lines, &size));
    char *text = texts, *line = lines;
    for (char *end; (end = strstr(text, border)); text = end + strlen(border), count++) {
        plumb_ids want = {0}, ids = {0};
        char *stop = strchr(line, '\n');
        assert_non_null(stop);
        *end = *stop = 0;
        for (char *next; *line; line = next) {
            long id = strtol(line, &next, 10);
            if (next == line) break;
            assert_ok(plumb_ids_push(&want, (int32_t)id));
        }
        assert_ok(plumb_tokenize(t, text, strlen(text), false, &ids));
        assert_ids(&ids, want.data, want.count, text);
        plumb_ids_free(&ids);
        plumb_ids_free(&want);
        line = stop + 1;
    }
    assert_int_equal(count, 46);
    free(texts);
    free(lines);
    plumb_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_cases), cmocka_unit_test(gpt2_vectors),
                                       cmocka_unit_test(phi3_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
