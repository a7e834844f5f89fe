/* The door of the module: loading by kind of source, encoding, and the questions that others ask a tokenizer. */
#include "tokenizer.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

plumb_status plumb_workspace_open(plumb_workspace *w) {
    *w = (plumb_workspace){0};
    return plumb_matcher_create(&w->matcher);
}

void plumb_workspace_close(plumb_workspace *w) {
    plumb_matcher_free(w->matcher);
    free(w->spans.list);
    plumb_pieces_free(&w->pieces);
    plumb_pieces_free(&w->next);
    plumb_str_free(&w->a);
    plumb_str_free(&w->b);
    free(w->symbols);
    free(w->heap);
}

/* <0x00> .. <0xFF>, and the memo of tokens that encode as themselves. */
plumb_status plumb_tokenizer_find_bytes(plumb_tokenizer *t) {
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        t->byte_ids[b] = plumb_vocab_find_model(&t->vocab, text, 6);
    }
    return plumb_alloc(&t->whole, t->vocab.count, sizeof *t->whole, "the vocabulary");
}

static plumb_status load_directory(plumb_tokenizer *t, const char *dir) {
    char *file = NULL, *config = NULL;
    plumb_status status = plumb_path_join(&file, dir, "tokenizer.json");
    if (status == PLUMB_OK) status = plumb_path_join(&config, dir, "tokenizer_config.json");
    if (status != PLUMB_OK) goto done;
    if (!plumb_path_exists(file)) {
        status = plumb_error(
            PLUMB_E_IO,
            "%s: no tokenizer.json in this directory; a Hugging Face directory with one, a tokenizer.json, or a "
            "GGUF file is expected",
            dir);
        goto done;
    }
    status = plumb_tokenizer_load_json(t, file);
    if (status == PLUMB_OK && plumb_path_exists(config)) status = plumb_tokenizer_load_config(t, config);
done:
    free(file);
    free(config);
    return status;
}

plumb_status plumb_tokenizer_load(plumb_tokenizer **out, const char *path) {
    plumb_tokenizer *t;
    *out = NULL;
    PLUMB_TRY(plumb_alloc(&t, 1, sizeof *t, "a tokenizer"));
    t->unk = t->bos = t->eos = t->pad = t->named_unk = -1;
    plumb_status status = PLUMB_OK;
    if (!plumb_path_exists(path)) {
        status = plumb_error(PLUMB_E_IO, "%s: no such file or directory", path);
        goto done;
    }
    t->path = realpath(path, NULL); /* saving may happen after a chdir; a file without a name is kept as it was given */
    if (!t->path && !(t->path = strdup(path))) {
        status = plumb_error(PLUMB_E_MEMORY, "out of memory: a file name");
        goto done;
    }
    if (plumb_path_is_dir(path))
        status = load_directory(t, path);
    else if (plumb_is_gguf(path))
        status = plumb_tokenizer_load_gguf(t, path);
    else
        status = plumb_tokenizer_load_json(t, path);
    if (status == PLUMB_OK) status = plumb_added_finish(t);
    if (status == PLUMB_OK) status = plumb_tokenizer_find_bytes(t);
    if (status != PLUMB_OK) goto done;
    *out = t;
    t = NULL;
done:
    plumb_tokenizer_free(t);
    return status;
}

void plumb_tokenizer_free(plumb_tokenizer *t) {
    if (!t) return;
    plumb_vocab_free(&t->vocab);
    plumb_added_free(t);
    plumb_steps_free(&t->normalizer);
    plumb_steps_free(&t->pre);
    plumb_steps_free(&t->decoder);
    plumb_ids_free(&t->prefix);
    plumb_ids_free(&t->suffix);
    free(t->pairs.slots);
    free(t->merges);
    free(t->whole);
    free(t->pipeline);
    free(t->chat_template);
    free(t->path);
    free(t->name);
    free(t);
}

static plumb_status push_all(plumb_ids *to, const plumb_ids *from) {
    for (size_t i = 0; i < from->count; i++) PLUMB_TRY(plumb_ids_push(to, from->data[i]));
    return PLUMB_OK;
}

static plumb_status encode(const plumb_tokenizer *t, plumb_workspace *w, const char *text, size_t length,
                           plumb_ids *ids) {
    PLUMB_TRY(plumb_added_split(t, w, text, length));
    PLUMB_TRY(plumb_pretokenize(&t->pre, w));
    for (size_t i = 0; i < w->pieces.count; i++) {
        plumb_piece piece = w->pieces.list[i];
        PLUMB_TRY(piece.id >= 0 ? plumb_ids_push(ids, piece.id)
                                : plumb_bpe_encode(t, w, w->pieces.text.data + piece.start, piece.length, ids));
    }
    return PLUMB_OK;
}

plumb_status plumb_tokenize(const plumb_tokenizer *t, const char *text, size_t length, bool special, plumb_ids *ids) {
    plumb_workspace w;
    plumb_str repaired = {0};
    size_t before = ids->count;
    PLUMB_TRY(plumb_workspace_open(&w));
    plumb_status status = PLUMB_OK;
    if (!length) text = ""; /* so that an empty text may be NULL */
    if (!plumb_utf8_valid(text, length)) {
        status = plumb_utf8_repair(text, length, &repaired);
        text = repaired.data;
        length = repaired.length;
    }
    if (status == PLUMB_OK && special) status = push_all(ids, &t->prefix);
    if (status == PLUMB_OK) status = encode(t, &w, text, length, ids);
    if (status == PLUMB_OK && special) status = push_all(ids, &t->suffix);
    if (status != PLUMB_OK) ids->count = before;
    plumb_str_free(&repaired);
    plumb_workspace_close(&w);
    return status;
}

int32_t plumb_tokenizer_vocab(const plumb_tokenizer *t) {
    return (int32_t)t->vocab.count;
}
int32_t plumb_tokenizer_bos(const plumb_tokenizer *t) {
    return t->bos;
}
int32_t plumb_tokenizer_eos(const plumb_tokenizer *t) {
    return t->eos;
}
int32_t plumb_tokenizer_pad(const plumb_tokenizer *t) {
    return t->pad;
}
int32_t plumb_tokenizer_id(const plumb_tokenizer *t, const char *token) {
    return plumb_vocab_find(&t->vocab, token, strlen(token));
}
