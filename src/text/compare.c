/* Whether two tokenizers mean the same by the same ids: what a model that reads another's tokens depends on.
 *
 * Spellings are compared id by id, and the merges of byte-level BPE. What is left out is what tells no two models apart, or what one
 * model has in two ways: chat templates; merges of the SentencePiece kind, which a GGUF file holds as scores; which tokens count as
 * special, at which converters guess; which one ends a text, in which a base model and its chat model may differ; and llama.cpp's
 * "[PAD7]" for an id without a token. */
#include "tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *spelling(const plumb_tokenizer *t, int32_t id, int *length) {
    size_t n = 0;
    char padding[24];
    const char *text = plumb_vocab_text(&t->vocab, id, &n);
    *length = (int)plumb_min64((int64_t)n, INT32_MAX);
    if (!text || n < 4 || memcmp(text, "[PAD", 4)) return text;
    snprintf(padding, sizeof padding, "[PAD%d]", id);
    return n == strlen(padding) && !memcmp(text, padding, n) ? NULL : text;
}
static plumb_status say(const plumb_tokenizer *t, int32_t id, plumb_str *out) {
    int length;
    const char *text = spelling(t, id, &length);
    return text ? plumb_str_printf(out, "\"%.*s\" in %s", (int)plumb_min64(length, 100), text, t->name)
                : plumb_str_printf(out, "no token in %s", t->name);
}
static plumb_status differ(const plumb_tokenizer *a, const plumb_tokenizer *b, int32_t id) {
    plumb_str text = {0};
    plumb_status status = say(a, id, &text);
    if (status == PLUMB_OK) status = plumb_str_printf(&text, " and ");
    if (status == PLUMB_OK) status = say(b, id, &text);
    if (status == PLUMB_OK) status = plumb_error(PLUMB_E_DATA, "id %d is %s", id, text.data);
    plumb_str_free(&text);
    return status;
}
static plumb_status compare_merges(const plumb_tokenizer *a, const plumb_tokenizer *b) {
    for (size_t i = 0; a->pairs.slots && i <= a->pairs.mask; i++) {
        const plumb_pair *p = &a->pairs.slots[i];
        if (p->id < 0) continue;
        const plumb_pair *q = plumb_pairs_find(&b->pairs, (int32_t)(p->key >> 32), (int32_t)(uint32_t)p->key);
        if (q && q->rank == p->rank && q->id == p->id) continue;
        int length;
        const char *text = spelling(a, p->id, &length);
        return plumb_error(PLUMB_E_DATA, "the merge that makes \"%.*s\" (id %d) is number %d in %s, and %s in %s",
                           (int)plumb_min64(length, 100), text ? text : "", p->id, p->rank + 1, a->name, q ? "another" : "absent", b->name);
    }
    return PLUMB_OK;
}

plumb_status plumb_tokenizer_compare(const plumb_tokenizer *a, const plumb_tokenizer *b) {
    int32_t ids = (int32_t)(a->vocab.count > b->vocab.count ? a->vocab.count : b->vocab.count);
    for (int32_t id = 0; id < ids; id++) {
        int n, m;
        const char *x = spelling(a, id, &n), *y = spelling(b, id, &m);
        if (!x != !y || (x && (n != m || memcmp(x, y, (size_t)n)))) return differ(a, b, id);
    }
    if (a->byte_fallback || b->byte_fallback) return PLUMB_OK;
    PLUMB_TRY(compare_merges(a, b));
    return compare_merges(b, a);
}

bool plumb_tokenizer_is_there(const char *path) {
    bool there = false;
    if (plumb_is_gguf(path)) {
        plumb_gguf g = {0};
        if (plumb_gguf_open(&g, path) != PLUMB_OK) return false;
        there = plumb_gguf_find(&g, "tokenizer.ggml.model") != NULL;
        plumb_gguf_close(&g);
        return there;
    }
    char *file = NULL;
    if (plumb_path_join(&file, path, "tokenizer.json") == PLUMB_OK) there = plumb_path_exists(file);
    free(file);
    return there;
}
