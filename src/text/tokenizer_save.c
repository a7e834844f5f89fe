/* Tokenizer files beside a saved model: copies where the source was a directory or a tokenizer.json; where it was a
 * GGUF file, a tokenizer.json and a tokenizer_config.json that transformers' AutoTokenizer turns into the same ids. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

static plumb_status put(plumb_str *out, const char *text) {
    return plumb_str_append(out, text, strlen(text));
}

static plumb_status put_string(plumb_str *out, const char *text, size_t length) {
    PLUMB_TRY(put(out, "\""));
    for (size_t i = 0, from = 0; i <= length; i++) {
        unsigned char c = i < length ? (unsigned char)text[i] : 0;
        if (i < length && c >= 32 && c != '"' && c != '\\') continue;
        PLUMB_TRY(plumb_str_append(out, text + from, i - from));
        from = i + 1;
        if (i == length) break;
        if (c == '"' || c == '\\')
            PLUMB_TRY(plumb_str_append(out, (char[]){'\\', (char)c}, 2));
        else
            PLUMB_TRY(plumb_str_printf(out, "\\u%04x", c));
    }
    return put(out, "\"");
}

static plumb_status put_token(plumb_str *out, const plumb_tokenizer *t, int32_t id) {
    size_t length = 0;
    const char *text = plumb_vocab_text(&t->vocab, id, &length);
    return put_string(out, text ? text : "", length);
}

static const char *truth(bool b) {
    return b ? "true" : "false";
}

static plumb_status put_tokenizer(plumb_str *out, const plumb_tokenizer *t) {
    PLUMB_TRY(
        put(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": ["));
    for (size_t i = 0; i < t->added_count; i++) { /* in the order of ids: that is how the loader found them */
        const plumb_added_token *a = &t->added[i];
        PLUMB_TRY(plumb_str_printf(out, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", a->id));
        PLUMB_TRY(put_string(out, a->content, a->length));
        PLUMB_TRY(plumb_str_printf(
            out, ", \"single_word\": %s, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, \"special\": %s}",
            truth(a->single_word), truth(a->lstrip), truth(a->rstrip), truth(a->normalized), truth(a->special)));
    }
    PLUMB_TRY(put(out, "\n  ],\n  "));
    PLUMB_TRY(plumb_str_append(out, t->pipeline + 1, strlen(t->pipeline) - 2)); /* the members, without the braces */
    PLUMB_TRY(put(out, ",\n  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": "));
    PLUMB_TRY(t->unk >= 0 ? put_token(out, t, t->unk) : put(out, "null"));
    PLUMB_TRY(plumb_str_printf(
        out,
        ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": %s,\n"
        "    \"byte_fallback\": %s,\n    \"ignore_merges\": %s,\n    \"vocab\": {",
        truth(t->fuse_unk), truth(t->byte_fallback), truth(t->ignore_merges)));
    bool first = true;
    for (size_t id = 0; id < t->vocab.count; id++) {
        if (!(t->vocab.entries[id].flags & PLUMB_TOKEN_IN_MODEL)) continue;
        PLUMB_TRY(put(out, first ? "\n      " : ",\n      "));
        PLUMB_TRY(put_token(out, t, (int32_t)id));
        PLUMB_TRY(plumb_str_printf(out, ": %zu", id));
        first = false;
    }
    PLUMB_TRY(put(out, "\n    },\n    \"merges\": ["));
    for (size_t i = 0; i < t->merge_count; i++) {
        PLUMB_TRY(put(out, i ? ",\n      [" : "\n      ["));
        PLUMB_TRY(put_token(out, t, t->merges[2 * i]));
        PLUMB_TRY(put(out, ", "));
        PLUMB_TRY(put_token(out, t, t->merges[2 * i + 1]));
        PLUMB_TRY(put(out, "]"));
    }
    return put(out, "\n    ]\n  }\n}\n");
}

static plumb_status put_config(plumb_str *out, const plumb_tokenizer *t) {
    const struct {
        const char *key;
        int32_t id;
    } named[] = {{"bos_token", t->bos}, {"eos_token", t->eos}, {"unk_token", t->named_unk}, {"pad_token", t->pad}};
    PLUMB_TRY(put(out, "{\n"));
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        PLUMB_TRY(plumb_str_printf(out, "  \"%s\": ", named[i].key));
        PLUMB_TRY(named[i].id >= 0 ? put_token(out, t, named[i].id) : put(out, "null"));
        PLUMB_TRY(put(out, ",\n"));
    }
    if (t->chat_template) {
        PLUMB_TRY(put(out, "  \"chat_template\": "));
        PLUMB_TRY(put_string(out, t->chat_template, strlen(t->chat_template)));
        PLUMB_TRY(put(out, ",\n"));
    }
    return put(out,
               "  \"clean_up_tokenization_spaces\": false,\n  \"model_max_length\": 1000000000000000019884624838656,\n"
               "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
}

static plumb_status write(const plumb_str *text, const char *dir, const char *name) {
    char *path = NULL;
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    plumb_status status = plumb_write_file(path, text->data, text->length);
    free(path);
    return status;
}

static plumb_status save_generated(const plumb_tokenizer *t, const char *dir) {
    plumb_str text = {0};
    plumb_status status = put_tokenizer(&text, t);
    if (status == PLUMB_OK) status = write(&text, dir, "tokenizer.json");
    text.length = 0;
    if (status == PLUMB_OK) status = put_config(&text, t);
    if (status == PLUMB_OK) status = write(&text, dir, "tokenizer_config.json");
    plumb_str_free(&text);
    return status;
}

static plumb_status copy(const char *from, const char *dir, const char *name) {
    plumb_str text = {0};
    PLUMB_TRY(plumb_read_file(from, &text.data, &text.length));
    plumb_status status = write(&text, dir, name);
    free(text.data);
    return status;
}

static plumb_status copy_directory(const plumb_tokenizer *t, const char *dir) {
    static const char *const names[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt",     "tokenizer.model",       "chat_template.jinja",     "chat_template.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *from = NULL;
        PLUMB_TRY(plumb_path_join(&from, t->path, names[i]));
        plumb_status status = plumb_path_exists(from) ? copy(from, dir, names[i]) : PLUMB_OK;
        free(from);
        PLUMB_TRY(status);
    }
    return PLUMB_OK;
}

plumb_status plumb_tokenizer_save(const plumb_tokenizer *t, const char *dir) {
    PLUMB_TRY(plumb_make_dirs(dir));
    if (t->from_gguf) return save_generated(t, dir);
    return plumb_path_is_dir(t->path) ? copy_directory(t, dir) : copy(t->path, dir, "tokenizer.json");
}
