/* Files that must be refused: by name where something is not supported, as a bad format where they are damaged. */
#include "text_test.h"

static char *dir;

static plumb_status load_text(const char *text, size_t length) {
    char path[600];
    plumb_tokenizer *t = NULL;
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_ok(plumb_write_file(path, text, length));
    plumb_status status = plumb_tokenizer_load(&t, path);
    assert_true((status == PLUMB_OK) == (t != NULL));
    plumb_tokenizer_free(t);
    return status;
}

/* A small tokenizer with one member more, or another model member. */
#define MODEL(extra)                                                                                                   \
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [[\"a\", \"b\"]]" extra "}"
#define FILE_WITH(member) "{" MODEL("") ", " member "}"

static void unsupported(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {FILE_WITH("\"normalizer\": {\"type\": \"BertNormalizer\"}"), "BertNormalizer"},
        {FILE_WITH("\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Precompiled\"}]}"),
         "Precompiled"},
        {FILE_WITH("\"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}"), "UnicodeScripts"},
        {FILE_WITH("\"pre_tokenizer\": {\"type\": \"Punctuation\", \"behavior\": \"Isolated\"}"), "Punctuation"},
        {FILE_WITH("\"post_processor\": {\"type\": \"RobertaProcessing\"}"), "RobertaProcessing"},
        {FILE_WITH("\"decoder\": {\"type\": \"WordPiece\"}"), "WordPiece"},
        {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "Unigram"},
        {"{" MODEL(", \"continuing_subword_prefix\": \"##\"") "}", "continuing_subword_prefix"},
        {"{" MODEL(", \"end_of_word_suffix\": \"</w>\"") "}", "end_of_word_suffix"},
        {"{" MODEL(", \"dropout\": 0.1") "}", "dropout"},
#define SPLIT(pattern)                                                                                                 \
    FILE_WITH("\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"" pattern                           \
              "\"}, \"behavior\": \"Isolated\"}")
        {SPLIT("a(?m:.)b"), "a group of this kind"},
        {SPLIT("(a)\\\\1"), "\\1"},
        {SPLIT("[a-z&&[^b]]"), "intersection"},
        {SPLIT("[a[b]]"), "nested"},
        {SPLIT("a{2,3}+"), "{n,m}"},
        {SPLIT("\\\\h+"), "\\h"},
        {SPLIT("\\\\p{NoSuchScript}"), "not supported"},
        {SPLIT("(a"), "not supported"},
        {SPLIT("a\\\\"), "trailing backslash"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_error(load_text(cases[i].text, strlen(cases[i].text)), PLUMB_E_UNSUPPORTED, cases[i].part);
    assert_ok(load_text("{" MODEL(", \"dropout\": 0.0, \"end_of_word_suffix\": \"\"") "}",
                        strlen("{" MODEL(", \"dropout\": 0.0, \"end_of_word_suffix\": \"\"") "}")));
}

static void damaged(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "tokenizer.json"},
        {"[]", "object"},
        {"{}", "model"},
        {"{\"model\": {\"type\": \"BPE\"}}", "model.vocab"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}}", "\"a\""},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 9223372036854775807}, \"merges\": []}}", "\"a\""},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1.5}, \"merges\": []}}", "\"a\""},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}", "same id 0"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}", "merges[0]"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}", "merges[0]"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", "merges[0]"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]}}", "\"aa\""},
        {"{" MODEL(", \"unk_token\": \"?\"") "}", "unk_token"},
        {"{" MODEL(", \"fuse_unk\": 1") "}", "fuse_unk"},
        {FILE_WITH("\"added_tokens\": [{\"id\": 1, \"content\": \"a\"}]"), "the vocabulary says 0"},
        {FILE_WITH("\"added_tokens\": [{\"id\": 1, \"content\": \"x\"}]"), "same id 1"},
        {FILE_WITH("\"added_tokens\": [{\"id\": 99999999999, \"content\": \"x\"}]"), "added_tokens[0]"},
        {FILE_WITH("\"added_tokens\": [7]"), "added_tokens[0]"},
        {FILE_WITH("\"normalizer\": {\"type\": \"Sequence\"}"), "normalizers"},
        {FILE_WITH("\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\"}"),
         "not empty"},
        {FILE_WITH(
             "\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Sideways\"}"),
         "behavior"},
        {FILE_WITH("\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"__\"}"), "one character"},
        {FILE_WITH(
             "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"last\"}"),
         "prepend_scheme"},
        {FILE_WITH("\"decoder\": {\"type\": \"Strip\", \"content\": \" \", \"start\": -1, \"stop\": 0}"), "start"},
        {FILE_WITH("\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": []}"), "exactly once"},
        {FILE_WITH("\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
                   "\"q\"}}]}"),
         "special_tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_error(load_text(cases[i].text, strlen(cases[i].text)), PLUMB_E_FORMAT, cases[i].part);
    plumb_tokenizer *t;
    assert_error(plumb_tokenizer_load(&t, DATA "no such file"), PLUMB_E_IO, "no such file");
    assert_null(t);
    assert_error(plumb_tokenizer_load(&t, DATA), PLUMB_E_IO, "no tokenizer.json");
}

/* Cut anywhere, a file is refused without a crash. */
static void truncated(void **state) {
    (void)state;
    char *text;
    size_t size;
    assert_ok(plumb_read_file(DATA "chatml/tokenizer.json", &text, &size));
    for (size_t n = 0; n < size - 2; n += 1 + n / 50) assert_int_equal(load_text(text, n), PLUMB_E_FORMAT);
    free(text);
    assert_ok(plumb_read_file(DATA "sentencepiece.gguf", &text, &size));
    for (size_t n = 0; n < size - 64; n += 1 + n / 50) assert_int_not_equal(load_text(text, n), PLUMB_OK);
    free(text);
}

/* Replaces the first occurrence of `from` in the GGUF by `to`, of the same length. */
static plumb_status load_patched(const char *file, const char *from, const char *to, size_t length, size_t behind) {
    char path[600], *bytes;
    size_t size;
    snprintf(path, sizeof path, "%s%s", DATA, file);
    assert_ok(plumb_read_file(path, &bytes, &size));
    char *at = memmem(bytes, size, from, strlen(from));
    assert_non_null(at);
    memcpy(at + behind, to, length);
    plumb_status status = load_text(bytes, size);
    free(bytes);
    return status;
}

static void damaged_gguf(void **state) {
    (void)state;
    assert_error(load_patched("pre-smollm.gguf", "smollm", "smoll?", 6, 0), PLUMB_E_UNSUPPORTED,
                 "\"smoll?\" is not supported (default, gpt-2");
    assert_error(load_patched("pre-smollm.gguf", "ggml.pre", "ggml.prx", 8, 0), PLUMB_E_UNSUPPORTED,
                 "ggml.pre is missing");
    assert_error(load_patched("pre-smollm.gguf", "gpt2", "bert", 4, 0), PLUMB_E_UNSUPPORTED, "\"bert\"");
    assert_error(load_patched("pre-smollm.gguf", "tokenizer.ggml.merges", "x", 1, 0), PLUMB_E_FORMAT,
                 "tokenizer.ggml.merges");
    assert_error(load_patched("pre-smollm.gguf", "tokenizer.ggml.tokens", "x", 1, 0), PLUMB_E_FORMAT,
                 "tokenizer.ggml.tokens");
    assert_error(load_patched("sentencepiece.gguf", "tokenizer.ggml.scores", "x", 1, 0), PLUMB_E_FORMAT,
                 "tokenizer.ggml.scores");
    /* the value lies behind the key: 4 bytes of type, then the number */
    assert_error(load_patched("pre-smollm.gguf", "tokenizer.ggml.bos_token_id", "\xff\xff\xff\x7f", 4, 31),
                 PLUMB_E_FORMAT, "bos_token_id");
    assert_error(load_patched("pre-smollm.gguf", "<|im_end|>", "<|im_end|\xff", 10, 0), PLUMB_E_FORMAT,
                 "not valid UTF-8");
    assert_error(load_patched("pre-smollm.gguf", "<|im_start|>", "<|im_xxxxx|>", 12, 0), PLUMB_E_FORMAT,
                 "joined text is a token");
    /* a score that is not a number: behind key, type, type of items (4 each) and count (8) */
    assert_error(load_patched("sentencepiece.gguf", "tokenizer.ggml.scores", "\0\0\xc0\x7f", 4, 21 + 16 + 4 * 300),
                 PLUMB_E_FORMAT, "not a number");
}

static int make_directory(void **state) {
    (void)state;
    dir = scratch_directory();
    return 0;
}
static int drop_directory(void **state) {
    (void)state;
    remove_directory(dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(unsupported), cmocka_unit_test(damaged),
                                       cmocka_unit_test(truncated), cmocka_unit_test(damaged_gguf)};
    return cmocka_run_group_tests(tests, make_directory, drop_directory);
}
