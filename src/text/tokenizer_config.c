/* tokenizer_config.json: which tokens begin, end and pad a sequence, and what transformers adds on top of
 * tokenizer.json.
 *
 * transformers 5 makes two changes when it loads a directory, and ids only agree when they are made here too: tokens of
 * added_tokens_decoder replace or join the added tokens; bos, eos, unk, pad and the extra special tokens become added
 * tokens when they are not yet.  add_bos_token and add_eos_token change nothing there while a tokenizer.json is present
 * (its post_processor says what is added), and so they change nothing here.
 *
 * Of the class LlamaTokenizer transformers 5 takes vocabulary, merges and post-processor from tokenizer.json and nothing
 * else: spaces are marked by its own pre-tokenizer, before the first piece only, before every one (legacy) or never
 * (add_prefix_space: false). A byte-level tokenizer that says it is of that class is taken as it is. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

/* A token is a string or an object with its content. */
static const json_t *content_of(const json_t *token) {
    return json_is_object(token) ? json_object_get(token, "content") : token;
}

static plumb_added_token flags_of(const json_t *token, bool special) {
    return (plumb_added_token){.id = -1,
                               .single_word = json_is_true(json_object_get(token, "single_word")),
                               .lstrip = json_is_true(json_object_get(token, "lstrip")),
                               .rstrip = json_is_true(json_object_get(token, "rstrip")),
                               .normalized = json_is_true(json_object_get(token, "normalized")),
                               .special = special || json_is_true(json_object_get(token, "special"))};
}

static int by_id(const void *a, const void *b) {
    const plumb_added_token *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static plumb_status read_decoder(plumb_tokenizer *t, const char *path, json_t *decoder) {
    const char *key;
    json_t *value;
    plumb_added_token *tokens = NULL;
    size_t count = 0, capacity = 0;
    plumb_status status = PLUMB_OK;
    json_object_foreach(decoder, key, value) {
        char *end;
        long id = strtol(key, &end, 10);
        const json_t *content = json_object_get(value, "content");
        if (end == key || *end || id < 0 || id >= PLUMB_VOCAB_LIMIT || !json_is_string(content)) {
            status = plumb_error(
                PLUMB_E_FORMAT, "%s: added_tokens_decoder: \"%.50s\" must be an id with an object that has a `content`",
                path, key);
            goto done;
        }
        if ((status = plumb_grow(&tokens, &capacity, count + 1, sizeof *tokens)) != PLUMB_OK) goto done;
        tokens[count] = flags_of(value, false);
        tokens[count].content = (char *)(uintptr_t)json_string_value(content); /* borrowed */
        tokens[count].length = json_string_length(content);
        tokens[count++].id = (int32_t)id;
    }
    if (count) qsort(tokens, count, sizeof *tokens, by_id);
    for (size_t i = 0; i < count && status == PLUMB_OK; i++)
        status = plumb_added_put(t, tokens[i].content, tokens[i].length, &tokens[i]);
done:
    free(tokens);
    return status;
}

/* Makes a named token an added one, unless it is; gives its id. */
static plumb_status read_special(plumb_tokenizer *t, const char *path, const char *key, const json_t *token,
                                 int32_t *id) {
    const json_t *content = content_of(token);
    if (!token || json_is_null(token)) return PLUMB_OK;
    if (!json_is_string(content))
        return plumb_error(PLUMB_E_FORMAT, "%s: %s: a string or an object with a `content` expected", path, key);
    const char *text = json_string_value(content);
    size_t length = json_string_length(content);
    int32_t found = plumb_vocab_find(&t->vocab, text, length);
    if (length && (found < 0 || !(t->vocab.entries[found].flags & PLUMB_TOKEN_ADDED))) {
        plumb_added_token flags = flags_of(json_is_object(token) ? token : NULL, true);
        PLUMB_TRY(plumb_added_put(t, text, length, &flags));
        found = plumb_vocab_find(&t->vocab, text, length);
    }
    if (id) *id = found;
    return PLUMB_OK;
}

static bool is_byte_level(const plumb_tokenizer *t) {
    for (size_t i = 0; i < t->pre.count; i++)
        if (t->pre.list[i].kind == PLUMB_PRE_BYTES) return true;
    for (size_t i = 0; i < t->decoder.count; i++)
        if (t->decoder.list[i].kind == PLUMB_DEC_BYTE_LEVEL) return true;
    return false;
}

static plumb_status read_class(plumb_tokenizer *t, const json_t *root) {
    const char *class = json_string_value(json_object_get(root, "tokenizer_class"));
    if (!class || (strcmp(class, "LlamaTokenizer") && strcmp(class, "LlamaTokenizerFast")) || is_byte_level(t)) return PLUMB_OK;
    bool legacy = json_is_true(json_object_get(root, "legacy")), prefix = !json_is_false(json_object_get(root, "add_prefix_space"));
    plumb_str text = {0};
    json_t *pipeline = NULL;
    PLUMB_TRY(plumb_str_printf(&text,
                               "{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"%s\", "
                               "\"split\": false}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
                               "\"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": "
                               "\"Fuse\"}%s]}}",
                               !prefix ? "never" : legacy ? "always" : "first",
                               prefix ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}" : ""));
    plumb_status status = plumb_json_parse(&pipeline, text.data, text.length, class, 1);
    if (status == PLUMB_OK) {
        plumb_steps_free(&t->normalizer), plumb_steps_free(&t->pre), plumb_steps_free(&t->decoder);
        status = plumb_pipeline_load(t, pipeline);
    }
    t->fuse_unk = t->byte_fallback = true;
    json_decref(pipeline);
    plumb_str_free(&text);
    return status;
}

plumb_status plumb_tokenizer_load_config(plumb_tokenizer *t, const char *path) {
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    json_t *root = NULL;
    plumb_status status = plumb_json_load(&root, path);
    if (status == PLUMB_OK && !json_is_object(root))
        status = plumb_error(PLUMB_E_FORMAT, "%s: a JSON object expected", path);
    if (status == PLUMB_OK) status = read_decoder(t, path, json_object_get(root, "added_tokens_decoder"));
    if (status == PLUMB_OK) status = read_special(t, path, "bos_token", json_object_get(root, "bos_token"), &t->bos);
    if (status == PLUMB_OK) status = read_special(t, path, "eos_token", json_object_get(root, "eos_token"), &t->eos);
    if (status == PLUMB_OK) status = read_special(t, path, "unk_token", json_object_get(root, "unk_token"), NULL);
    if (status == PLUMB_OK) status = read_special(t, path, "pad_token", json_object_get(root, "pad_token"), &t->pad);
    for (int k = 0; k < 2; k++) {
        const json_t *list = json_object_get(root, lists[k]);
        for (size_t i = 0; i < json_array_size(list) && status == PLUMB_OK; i++)
            status = read_special(t, path, lists[k], json_array_get(list, i), NULL);
    }
    if (status == PLUMB_OK) status = read_class(t, root);
    json_decref(root);
    return status;
}
