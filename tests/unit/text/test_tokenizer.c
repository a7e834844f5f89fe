/* The tokenizer as others use it: named ids, damaged text, long runs, threads, saving, and memory that runs out. */
#include "text_test.h"
#include <pthread.h>

static void named_ids(void **state) {
    (void)state;
    plumb_tokenizer *t = load(DATA "chatml");
    assert_int_equal(plumb_tokenizer_vocab(t), 384);
    assert_int_equal(plumb_tokenizer_bos(t), -1);
    assert_int_equal(plumb_tokenizer_eos(t), 2);
    assert_int_equal(plumb_tokenizer_pad(t), 0);
    assert_int_equal(plumb_tokenizer_id(t, "<|im_start|>"), 1);
    assert_int_equal(plumb_tokenizer_id(t, "no such token"), -1);
    plumb_tokenizer_free(t);
    t = load(DATA "chatml/tokenizer.json"); /* the file alone does not name any */
    assert_int_equal(plumb_tokenizer_eos(t), -1);
    plumb_tokenizer_free(t);
    t = load(DATA "phi-3.gguf");
    assert_int_equal(plumb_tokenizer_vocab(t), 32064);
    assert_int_equal(plumb_tokenizer_bos(t), 1);
    assert_int_equal(plumb_tokenizer_eos(t), 32000);
    assert_int_equal(plumb_tokenizer_pad(t), 32000);
    plumb_ids ids = encode(t, "a", true); /* add_bos_token is true in the file */
    assert_int_equal(ids.data[0], 1);
    assert_int_equal(ids.count, 2);
    plumb_ids_free(&ids);
    plumb_tokenizer_free(t);
}

/* What transformers adds on top of tokenizer.json when it loads a directory. */
static void config_changes(void **state) {
    (void)state;
    char *dir = scratch_directory(), path[600], *text;
    size_t size;
    static const char config[] =
        "{\"bos_token\": {\"content\": \"<|im_start|>\"}, \"eos_token\": \"<|im_end|>\", \"pad_token\": \"[PAD]\","
        "\"add_bos_token\": true, \"model_max_length\": 1000000000000000019884624838656,"
        "\"additional_special_tokens\": [\"he\"]}";
    assert_ok(plumb_read_file(DATA "chatml/tokenizer.json", &text, &size));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_ok(plumb_write_file(path, text, size));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    assert_ok(plumb_write_file(path, config, sizeof config - 1));
    plumb_tokenizer *t = load(dir);
    assert_int_equal(plumb_tokenizer_bos(t), 1);
    assert_int_equal(plumb_tokenizer_pad(t), 384); /* new, behind the vocabulary */
    assert_int_equal(plumb_tokenizer_vocab(t), 385);
    int32_t he = plumb_tokenizer_id(t, "he"),
            expected[] = {plumb_tokenizer_id(t, "t"), he, plumb_tokenizer_id(t, "n"), 384};
    plumb_ids ids = encode(t, "then[PAD]", true); /* "he" is cut out first; add_bos_token is not heard */
    assert_ids(&ids, expected, 4, "then[PAD]");
    plumb_str out = {0};
    assert_ok(plumb_detokenize(t, ids.data, ids.count, true, &out));
    assert_string_equal(out.data, "tn");
    plumb_str_free(&out);
    plumb_ids_free(&ids);
    plumb_tokenizer_free(t);
    free(text);
    remove_directory(dir);
}

/* The class LlamaTokenizer marks spaces in its own way, whatever tokenizer.json says: ids and texts of transformers 5.23. */
static void llama_class(void **state) {
    (void)state;
    static const struct {
        const char *more, *text, *back; /* back: without special tokens */
        int32_t ids[16];
        size_t n;
    } cases[] = {
        {"", "Once upon a time", "Once upon a time", {1, 403, 407, 261, 378}, 5},
        {"", " Once upon", "Once upon", {1, 403, 407}, 3},
        {"", "</s>x <s> y", "x  y", {1, 2, 444, 410, 1, 348}, 6},
        {"", "<s>user: Hi</s>\n<s>a", "user: Hi\na", {1, 1, 425, 419, 285, 467, 320, 417, 2, 13, 1, 412}, 12},
        {"", "\xe2\x96\x81", "", {1, 410}, 2},
        {", \"legacy\": true", "</s>x <s> y", "x  y", {1, 2, 410, 444, 410, 1, 348}, 7},
        {", \"legacy\": true", "<s>user: Hi</s>\n<s>a", "user: Hi \n a", {1, 1, 318, 419, 285, 467, 320, 417, 2, 410, 13, 1, 261}, 13},
        {", \"add_prefix_space\": false", "Once upon a time", "Once upon a time", {1, 441, 416, 331, 407, 261, 378}, 7},
        {", \"add_prefix_space\": false", " Once upon", " Once upon", {1, 403, 407}, 3},
        {", \"add_prefix_space\": false", "two  \xc3\xa9", "two  \xc3\xa9", {1, 413, 424, 414, 410, 410, 485}, 7},
    };
    char *text;
    size_t size;
    assert_ok(plumb_read_file(DATA "../models/stories260K/tokenizer.json", &text, &size));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = scratch_directory(), path[600], config[300];
        int n = snprintf(config, sizeof config,
                         "{\"tokenizer_class\": \"LlamaTokenizer%s\", \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"unk_token\": "
                         "\"<unk>\"%s}",
                         i % 2 ? "Fast" : "", cases[i].more);
        snprintf(path, sizeof path, "%s/tokenizer.json", dir);
        assert_ok(plumb_write_file(path, text, size));
        snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
        assert_ok(plumb_write_file(path, config, (size_t)n));
        plumb_tokenizer *t = load(dir);
        plumb_ids ids = encode(t, cases[i].text, true);
        assert_ids(&ids, cases[i].ids, cases[i].n, cases[i].text);
        plumb_str out = {0};
        assert_ok(plumb_detokenize(t, ids.data, ids.count, true, &out));
        assert_string_equal(out.length ? out.data : "", cases[i].back);
        plumb_str_free(&out);
        plumb_ids_free(&ids);
        plumb_tokenizer_free(t);
        remove_directory(dir);
    }
    free(text);
}

static void damaged_text(void **state) {
    (void)state;
    static const struct {
        const char *text, *repaired;
    } cases[] = {
        /* Unicode 3.9, table 3-8 and its neighbours */
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xe2\x82", "\xef\xbf\xbd"},
        {"\xf0\x9f\x98"
         "x",
         "\xef\xbf\xbdx"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                                                 "A"},
    };
    plumb_tokenizer *t = load(DATA "chatml");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_ids got = encode(t, cases[i].text, false), want = encode(t, cases[i].repaired, false);
        assert_ids(&got, want.data, want.count, cases[i].repaired);
        plumb_ids_free(&got);
        plumb_ids_free(&want);
    }
    plumb_ids ids = {0};
    assert_ok(plumb_tokenize(t, "a\0b", 3, false, &ids)); /* NUL is a character like others */
    assert_int_equal(ids.count, 3);
    plumb_str out = {0};
    assert_ok(plumb_detokenize(t, ids.data, ids.count, false, &out));
    assert_int_equal(out.length, 3);
    assert_memory_equal(out.data, "a\0b", 4);
    plumb_str_free(&out);
    plumb_ids_free(&ids);
    plumb_tokenizer_free(t);
}

static void bad_ids(void **state) {
    (void)state;
    plumb_tokenizer *t = load(DATA "chatml");
    plumb_str out = {0};
    int32_t ids[] = {5, 384};
    assert_error(plumb_detokenize(t, ids, 2, false, &out), PLUMB_E_DATA, "id 384 at position 1");
    ids[1] = -1;
    assert_error(plumb_detokenize(t, ids, 2, false, &out), PLUMB_E_DATA, "id -1");
    ids[1] = INT32_MIN;
    assert_error(plumb_detokenize(t, ids, 2, true, &out), PLUMB_E_DATA, "position 1");
    assert_int_equal(out.length, 0);
    assert_ok(plumb_detokenize(t, ids, 0, false, &out));
    assert_string_equal(out.data, "");
    plumb_str_free(&out);
    plumb_tokenizer_free(t);
}

/* A long text without a border must not take quadratic time, whatever it is made of, and must come back. */
static void long_runs(void **state) {
    (void)state;
    static const char *const units[] = {"a", " ", "\n", "1", "'", "\xcc\x81\xcc\xa3", "ab \n"};
    static const char *const files[] = {"pre-qwen2.gguf", "sentencepiece.gguf", "pre-llama-bpe.gguf"};
    enum { SIZE = 1 << 18 };
    char *text = malloc(SIZE + 1), path[600];
    for (size_t f = 0; f < 3; f++) {
        snprintf(path, sizeof path, "%s%s", DATA, files[f]);
        plumb_tokenizer *t = load(path);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t unit = strlen(units[u]);
            plumb_ids ids = {0};
            plumb_str out = {0};
            for (size_t i = 0; i < SIZE; i++) text[i] = units[u][i % unit];
            double begin = plumb_clock();
            assert_ok(plumb_tokenize(t, text, SIZE, false, &ids));
            assert_true(plumb_clock() - begin < 20); /* 0.1 s; quadratic code takes minutes and more */
            assert_ok(plumb_detokenize(t, ids.data, ids.count, false, &out));
            bool marks = u == 5; /* NFC puts them in order */
            assert_int_equal(out.length, SIZE);
            if (!marks || f) assert_memory_equal(out.data, text, SIZE);
            plumb_ids_free(&ids);
            plumb_str_free(&out);
        }
        plumb_tokenizer_free(t);
    }
    free(text);
}

typedef struct work {
    const plumb_tokenizer *tokenizer;
    const char *text;
    plumb_ids ids;
    bool failed;
} work;
static void *run(void *argument) {
    work *w = argument;
    for (int i = 0; i < 50 && !w->failed; i++) {
        w->ids.count = 0;
        w->failed = plumb_tokenize(w->tokenizer, w->text, strlen(w->text), true, &w->ids) != PLUMB_OK;
    }
    return NULL;
}

static void shared_by_threads(void **state) {
    (void)state;
    static const char text[] =
        "The threads' words are the same words: they'll read one vocabulary, 12 times, and the others' too.";
    plumb_tokenizer *t = load(DATA "tiny_bpe.json"), *other = load(DATA "tiny_bpe.json");
    plumb_ids alone = encode(other, text, true);
    work works[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        works[i] = (work){.tokenizer = t, .text = text};
        assert_int_equal(pthread_create(&threads[i], NULL, run, &works[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_false(works[i].failed);
        assert_ids(&works[i].ids, alone.data, alone.count, "a thread");
        plumb_ids_free(&works[i].ids);
    }
    plumb_ids_free(&alone);
    plumb_tokenizer_free(t);
    plumb_tokenizer_free(other);
}

/* A saved tokenizer gives the ids of its source. */
static void saved(const char *source, bool template) {
    static const char *const texts[] = {"",
                                        " ",
                                        "friend",
                                        "Hello  world\n\n1. it's 12345!!",
                                        "<|im_start|>user\nhi<|im_end|>",
                                        "<s> \xe2\x96\x81 \xe4\xbd\xa0 </s>x"};
    char *dir = scratch_directory(), path[600];
    plumb_tokenizer *t = load(source);
    snprintf(path, sizeof path, "%s/new/folder", dir);
    assert_ok(plumb_tokenizer_save(t, path));
    plumb_tokenizer *again = load(path);
    assert_ok(plumb_tokenizer_compare(t, again));
    assert_int_equal(plumb_tokenizer_vocab(t), plumb_tokenizer_vocab(again));
    assert_int_equal(plumb_tokenizer_bos(t), plumb_tokenizer_bos(again));
    assert_int_equal(plumb_tokenizer_eos(t), plumb_tokenizer_eos(again));
    assert_int_equal(plumb_tokenizer_pad(t), plumb_tokenizer_pad(again));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        plumb_ids one = encode(t, texts[i], true), two = encode(again, texts[i], true);
        assert_ids(&two, one.data, one.count, texts[i]);
        plumb_str a = {0}, b = {0};
        assert_ok(plumb_detokenize(t, one.data, one.count, true, &a));
        assert_ok(plumb_detokenize(again, one.data, one.count, true, &b));
        assert_string_equal(a.data, b.data);
        plumb_str_free(&a);
        plumb_str_free(&b);
        plumb_ids_free(&one);
        plumb_ids_free(&two);
    }
    if (template) {
        json_t *config;
        snprintf(path, sizeof path, "%s/new/folder/tokenizer_config.json", dir);
        assert_ok(plumb_json_load(&config, path));
        assert_string_equal(json_string_value(json_object_get(config, "chat_template")),
                            "{{ messages[0]['content'] + \"\\\\ \xc3\xa9\" }}\n");
        json_decref(config);
    }
    plumb_tokenizer_free(t);
    plumb_tokenizer_free(again);
    remove_directory(dir);
}

/* A tokenizer.json of DATA with one text in place of another, both of a length, loaded. */
static plumb_tokenizer *load_with(const char *source, const char *text, const char *instead) {
    static const char config[] = "{\"chat_template\": \"x\", \"pad_token\": \"<|im_end|>\"}";
    char *dir = scratch_directory(), path[600], *all, *at;
    size_t size;
    assert_ok(plumb_read_file(source, &all, &size));
    assert_non_null(at = strstr(all, text));
    for (; at; at = strcmp(text, instead) ? strstr(all, text) : NULL) memcpy(at, instead, strlen(text));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_ok(plumb_write_file(path, all, size));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir); /* a template and roles do not count */
    assert_ok(plumb_write_file(path, config, sizeof config - 1));
    plumb_tokenizer *t = load(dir);
    remove_directory(dir);
    free(all);
    return t;
}
static void comparing(void **state) {
    (void)state;
    static const struct { const char *text, *instead, *message; } cases[] = {
        {"\"he\"", "\"he\"", NULL},
        {"\"h\",\n        \"e\"\n", "\"e\",\n        \"r\"\n", "the merge that makes \"he\""},
        {"\"<|im_end|>\"", "\"<|im_eng|>\"", "id 2 is \"<|im_end|>\" in " DATA "chatml/tokenizer.json and \"<|im_eng|>\" in "},
    };
    plumb_tokenizer *chatml = load(DATA "chatml"), *phi = load(DATA "phi-3.gguf");
    assert_true(plumb_tokenizer_is_there(DATA "chatml") && plumb_tokenizer_is_there(DATA "phi-3.gguf") && !plumb_tokenizer_is_there(DATA));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_tokenizer *other = load_with(DATA "chatml/tokenizer.json", cases[i].text, cases[i].instead);
        if (cases[i].message) assert_error(plumb_tokenizer_compare(chatml, other), PLUMB_E_DATA, cases[i].message);
        else assert_ok(plumb_tokenizer_compare(chatml, other));
        plumb_tokenizer_free(other);
    }
    assert_error(plumb_tokenizer_compare(chatml, phi), PLUMB_E_DATA, "id 0 is");
    plumb_tokenizer_free(chatml);
    plumb_tokenizer_free(phi);
}

static void saving(void **state) {
    (void)state;
    saved(DATA "chatml", false);
    saved(DATA "stories260K/tokenizer.json", false);
    saved(DATA "gpt2.json.gz", false);
    saved(DATA "pre-smollm.gguf", true);
    saved(DATA "pre-llama-bpe.gguf", true);
    saved(DATA "pre-qwen2.gguf", true);
    saved(DATA "pre-default.gguf", true);
    saved(DATA "sentencepiece.gguf", false);
    saved(DATA "phi-3.gguf", false);
    plumb_tokenizer *t = load(DATA "chatml");
    assert_error(plumb_tokenizer_save(t, DATA "phi-3.inp/below a file"), PLUMB_E_IO, "phi-3.inp");
    plumb_tokenizer_free(t);
}

/* Every allocation fails once: an error each time, never a crash, and the text comes out whole when none fails. */
static void memory_runs_out(void **state) {
    (void)state;
    static const char *const files[] = {"chatml", "pre-qwen2.gguf", "sentencepiece.gguf"};
    static const char text[] = "caf\xc3\xa9 <|im_end|> 12 \xff";
    for (size_t f = 0; f < 3; f++) {
        char path[600];
        snprintf(path, sizeof path, "%s%s", DATA, files[f]);
        bool through = false;
        for (long n = 1; n < 100000 && !through; n++) {
            plumb_tokenizer *t = NULL;
            plumb_alloc_fail_after(n);
            plumb_status status = plumb_tokenizer_load(&t, path);
            plumb_alloc_fail_after(0);
            assert_true(status == PLUMB_OK || (status == PLUMB_E_MEMORY && !t));
            through = status == PLUMB_OK;
            plumb_tokenizer_free(t);
        }
        assert_true(through);
        plumb_tokenizer *t = load(path);
        through = false;
        for (long n = 1; n < 10000 && !through; n++) {
            plumb_ids ids = {0};
            plumb_str out = {0};
            plumb_alloc_fail_after(n);
            plumb_status status = plumb_tokenize(t, text, sizeof text - 1, true, &ids);
            assert_true(status == PLUMB_OK || (status == PLUMB_E_MEMORY && ids.count == 0));
            if (status == PLUMB_OK) status = plumb_detokenize(t, ids.data, ids.count, false, &out);
            plumb_alloc_fail_after(0);
            assert_true(status == PLUMB_OK || status == PLUMB_E_MEMORY);
            through = status == PLUMB_OK;
            plumb_ids_free(&ids);
            plumb_str_free(&out);
        }
        assert_true(through);
        plumb_tokenizer_free(t);
    }
}

/* The ids that transformers gives for SmolLM2's own tokenizer. */
static void smollm2(void **state) {
    (void)state;
    const char *models = getenv("PLUMB_MODELS");
    char path[1000];
    snprintf(path, sizeof path, "%s/SmolLM2-135M-Instruct.Q4_1.gguf", models ? models : "");
    if (!models || access(path, R_OK)) {
        print_message("skipped: PLUMB_MODELS does not name a directory with SmolLM2-135M-Instruct.Q4_1.gguf\n");
        skip();
    }
    static const int32_t paris[] = {504, 3575, 282, 4649, 314}, fibonacci[] = {1604, 3987, 46477, 24, 94, 727, 2367};
    plumb_tokenizer *t = load(path);
    plumb_ids ids = encode(t, "The capital of France is", true);
    assert_ids(&ids, paris, 5, "The capital of France is");
    plumb_ids_free(&ids);
    ids = encode(t, "def fibonacci(n):\n    ", true);
    assert_ids(&ids, fibonacci, 7, "def fibonacci");
    plumb_ids_free(&ids);
    assert_int_equal(plumb_tokenizer_vocab(t), 49152);
    assert_int_equal(plumb_tokenizer_eos(t), 2);
    plumb_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_ids), cmocka_unit_test(config_changes), cmocka_unit_test(llama_class), cmocka_unit_test(damaged_text),
        cmocka_unit_test(bad_ids),   cmocka_unit_test(long_runs),       cmocka_unit_test(shared_by_threads),
        cmocka_unit_test(saving),    cmocka_unit_test(comparing), cmocka_unit_test(memory_runs_out), cmocka_unit_test(smollm2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
