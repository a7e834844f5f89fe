// library: plumb_text
/* Any bytes as a tokenizer file, where they begin like one, or as a text.  A file is loaded or refused; what was loaded
 * takes texts, also broken ones, and gives ids of its vocabulary that can be decoded.  A byte-level tokenizer without a
 * normalizer must give every text back, once repaired. */
#include "input_file.h"
#include "plumb/text.h"
#include <string.h>

static void as_tokenizer(const uint8_t *data, size_t size) {
    static const char text[] = "  The caf\xc3\xa9's 12345 words\xff\xe2\x96\x81\n\n<s> ab";
    char path[64];
    int fd = input_file(data, size, path);
    plumb_tokenizer *t = NULL;
    plumb_status status = plumb_tokenizer_load(&t, path);
    if ((status == PLUMB_OK) != (t != NULL)) abort();
    for (int special = 0; t && special < 2; special++) {
        plumb_ids ids = {0};
        plumb_str out = {0};
        if (plumb_tokenize(t, text, sizeof text, special, &ids) == PLUMB_OK) {
            for (size_t i = 0; i < ids.count; i++)
                if (ids.data[i] < 0 || ids.data[i] >= plumb_tokenizer_vocab(t)) abort();
            if (plumb_detokenize(t, ids.data, ids.count, special, &out) == PLUMB_E_DATA) abort();
        }
        plumb_ids_free(&ids);
        plumb_str_free(&out);
    }
    plumb_tokenizer_free(t);
    close(fd);
}

static plumb_tokenizer *get(plumb_tokenizer **kept, const char *path) {
    if (!*kept && plumb_tokenizer_load(kept, path) != PLUMB_OK) {
        fprintf(stderr, "%s\n", plumb_error_message());
        exit(1);
    }
    return *kept;
}

static void encode(const plumb_tokenizer *t, const uint8_t *data, size_t size, plumb_str *out) {
    plumb_ids ids = {0};
    if (plumb_tokenize(t, (const char *)data, size, false, &ids) != PLUMB_OK) abort();
    if (plumb_detokenize(t, ids.data, ids.count, false, out) != PLUMB_OK) abort();
    plumb_ids_free(&ids);
}

static void as_text(const uint8_t *data, size_t size) {
    static plumb_tokenizer *bytes, *normal, *pieces;
    plumb_str once = {0}, twice = {0}, other = {0};
    get(&bytes, PLUMB_TEST_DATA "/text/chatml/tokenizer.json");
    get(&normal, PLUMB_TEST_DATA "/text/pre-qwen2.gguf");
    get(&pieces, PLUMB_TEST_DATA "/text/sentencepiece.gguf");
    encode(bytes, data, size, &once);
    encode(bytes, (const uint8_t *)once.data, once.length, &twice);
    if (once.length != twice.length || memcmp(once.data, twice.data, once.length)) abort();
    bool same = once.length == size && (size == 0 || !memcmp(once.data, data, size));
    if (!same && !memmem(once.data, once.length, "\xef\xbf\xbd", 3)) abort();
    encode(normal, data, size, &other);
    encode(pieces, data, size, &other);
    plumb_str_free(&once);
    plumb_str_free(&twice);
    plumb_str_free(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bool file = size > 3 && (data[0] == '{' || !memcmp(data, "GGUF", 4));
    if (file)
        as_tokenizer(data, size);
    else
        as_text(data, size);
    return 0;
}
