/* tokenizer.json of Hugging Face's tokenizers library (0.23): the BPE model and the added tokens; pipeline_json.c reads
 * the rest. The truncation and padding sections are not for us: plumb counts what it cuts, and never pads. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

static plumb_status bad(const plumb_tokenizer *t, const char *what, const char *expected) {
    return plumb_error(PLUMB_E_FORMAT, "%s: %s: %s expected", t->name, what, expected);
}

static plumb_status read_vocabulary(plumb_tokenizer *t, json_t *vocab) {
    const char *text;
    size_t length;
    json_t *value;
    json_int_t largest = -1;
    if (!json_is_object(vocab)) return bad(t, "model.vocab", "an object of tokens and ids");
    json_object_keylen_foreach(vocab, text, length, value) {
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= PLUMB_VOCAB_LIMIT)
            return plumb_error(PLUMB_E_FORMAT,
                               "%s: model.vocab: the id of token \"%.200s\" must be an integer from 0 to %d", t->name,
                               text, PLUMB_VOCAB_LIMIT - 1);
        if (json_integer_value(value) > largest) largest = json_integer_value(value);
    }
    PLUMB_TRY(plumb_vocab_reserve(&t->vocab, (size_t)(largest + 1)));
    json_object_keylen_foreach(vocab, text, length, value) {
        plumb_status status =
            plumb_vocab_add(&t->vocab, text, length, (int32_t)json_integer_value(value), PLUMB_TOKEN_IN_MODEL);
        if (status != PLUMB_OK) return plumb_error_prefix(status, "%s: model.vocab", t->name);
    }
    return PLUMB_OK;
}

/* The two parts of "a b" or ["a", "b"]. */
static bool read_parts(const json_t *item, const char *part[2], size_t length[2]) {
    if (json_is_string(item)) {
        const char *text = json_string_value(item), *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        part[0] = text;
        length[0] = (size_t)(space - text);
        part[1] = space + 1;
        length[1] = json_string_length(item) - length[0] - 1;
        return true;
    }
    if (json_array_size(item) != 2) return false;
    for (size_t i = 0; i < 2; i++) {
        const json_t *text = json_array_get(item, i);
        if (!json_is_string(text)) return false;
        part[i] = json_string_value(text);
        length[i] = json_string_length(text);
    }
    return true;
}

static plumb_status read_merges(plumb_tokenizer *t, const json_t *merges) {
    plumb_str joined = {0};
    plumb_status status = PLUMB_OK;
    size_t count = json_array_size(merges);
    if (!json_is_array(merges)) return bad(t, "model.merges", "an array");
    PLUMB_TRY(plumb_pairs_reserve(&t->pairs, count));
    for (size_t i = 0; i < count && status == PLUMB_OK; i++) {
        const char *part[2];
        size_t length[2];
        if (!read_parts(json_array_get(merges, i), part, length)) {
            status =
                plumb_error(PLUMB_E_FORMAT, "%s: model.merges[%zu]: \"a b\" or [\"a\", \"b\"] expected", t->name, i);
            break;
        }
        joined.length = 0;
        status = plumb_str_append(&joined, part[0], length[0]);
        if (status == PLUMB_OK) status = plumb_str_append(&joined, part[1], length[1]);
        if (status != PLUMB_OK) break;
        int32_t left = plumb_vocab_find(&t->vocab, part[0], length[0]),
                right = plumb_vocab_find(&t->vocab, part[1], length[1]);
        int32_t whole = plumb_vocab_find(&t->vocab, joined.data, joined.length);
        if (left < 0 || right < 0 || whole < 0)
            status = plumb_error(PLUMB_E_FORMAT, "%s: model.merges[%zu]: \"%.200s\" is not in model.vocab", t->name, i,
                                 left < 0    ? part[0]
                                 : right < 0 ? part[1]
                                             : joined.data);
        else
            status = plumb_pairs_add(&t->pairs, left, right, (int32_t)i, whole);
    }
    plumb_str_free(&joined);
    return status;
}

static plumb_status read_switch(plumb_tokenizer *t, const json_t *model, const char *key, bool *out) {
    const json_t *value = json_object_get(model, key);
    *out = json_is_true(value);
    if (!value || json_is_null(value) || json_is_boolean(value)) return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT, "%s: model.%s: true or false expected", t->name, key);
}

static plumb_status read_model(plumb_tokenizer *t, json_t *model) {
    if (!json_is_object(model)) return bad(t, "model", "an object");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE"))
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: model.type \"%s\" is not supported (BPE is)", t->name, type);
    if (!type && !json_object_get(model, "merges")) return bad(t, "model.type", "\"BPE\"");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        const json_t *affix = json_object_get(model, affixes[i]);
        if (affix && !json_is_null(affix) && !(json_is_string(affix) && !json_string_length(affix)))
            return plumb_error(PLUMB_E_UNSUPPORTED, "%s: model.%s is not supported unless it is null or empty", t->name,
                               affixes[i]);
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0.0)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: model.dropout is not supported: tokenization must not be random",
                           t->name);
    PLUMB_TRY(read_switch(t, model, "fuse_unk", &t->fuse_unk));
    PLUMB_TRY(read_switch(t, model, "byte_fallback", &t->byte_fallback));
    PLUMB_TRY(read_switch(t, model, "ignore_merges", &t->ignore_merges));
    PLUMB_TRY(read_vocabulary(t, json_object_get(model, "vocab")));
    PLUMB_TRY(read_merges(t, json_object_get(model, "merges")));
    const json_t *unk = json_object_get(model, "unk_token");
    if (!unk || json_is_null(unk)) return PLUMB_OK;
    if (!json_is_string(unk)) return bad(t, "model.unk_token", "a string or null");
    t->unk = plumb_vocab_find(&t->vocab, json_string_value(unk), json_string_length(unk));
    return t->unk >= 0 ? PLUMB_OK : bad(t, "model.unk_token", "a token of the vocabulary");
}

static plumb_status read_added(plumb_tokenizer *t, const json_t *list) {
    if (!list || json_is_null(list)) return PLUMB_OK;
    if (!json_is_array(list)) return bad(t, "added_tokens", "an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *content = json_object_get(item, "content"),
                     *id = json_object_get(item, "id");
        if (!json_is_string(content) || !json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= PLUMB_VOCAB_LIMIT)
            return plumb_error(PLUMB_E_FORMAT,
                               "%s: added_tokens[%zu]: a string `content` and an `id` from 0 to %d expected", t->name,
                               i, PLUMB_VOCAB_LIMIT - 1);
        plumb_added_token flags = {.id = (int32_t)json_integer_value(id),
                                   .single_word = json_is_true(json_object_get(item, "single_word")),
                                   .lstrip = json_is_true(json_object_get(item, "lstrip")),
                                   .rstrip = json_is_true(json_object_get(item, "rstrip")),
                                   .normalized = json_is_true(json_object_get(item, "normalized")),
                                   .special = json_is_true(json_object_get(item, "special"))};
        PLUMB_TRY(plumb_added_put(t, json_string_value(content), json_string_length(content), &flags));
    }
    return PLUMB_OK;
}

plumb_status plumb_tokenizer_load_json(plumb_tokenizer *t, const char *path) {
    json_t *root = NULL;
    if (!(t->name = strdup(path))) return plumb_error(PLUMB_E_MEMORY, "out of memory: a file name");
    plumb_status status = plumb_json_load(&root, path);
    if (status == PLUMB_OK && !json_is_object(root)) status = bad(t, "the file", "a JSON object");
    if (status == PLUMB_OK) status = read_model(t, json_object_get(root, "model"));
    if (status == PLUMB_OK) status = read_added(t, json_object_get(root, "added_tokens"));
    if (status == PLUMB_OK) status = plumb_pipeline_load(t, root);
    json_decref(root);
    return status;
}
