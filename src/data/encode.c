/* Ids of an example.
 *
 * The answer begins where the ids of the prompt and of prompt + answer part, at the earlier place of a pair's two
 * (TRL 1.16); that is before the prompt's end when a token spans the border.
 *
 * Assistant turns are known as byte ranges of the rendered text, but a tokenizer gives ids without places.  They are
 * found by reading the ids back: each id, or short run of ids where a character is spread over several, must spell the
 * text where the last one ended.  Where a normaliser changed the text so that it cannot be spelled, the ids of the text
 * up to each border are compared instead. */
#include "encode.h"
#include <stdlib.h>
#include <string.h>

enum { LONGEST_RUN = 16 }; /* ids that may share one character or decode only together */

void encoded_free(encoded *c) {
    plumb_ids_free(&c->prompt);
    plumb_ids_free(&c->whole[0]);
    plumb_ids_free(&c->whole[1]);
    plumb_ids_free(&c->scratch);
    plumb_str_free(&c->piece);
    free(c->assistant);
    *c = (encoded){0};
}

static plumb_status tokenize(plumb_ids *ids, const plumb_tokenizer *t, const char *text, size_t length, bool special) {
    ids->count = 0;
    PLUMB_TRY(plumb_tokenize(t, text ? text : "", length, special, ids));
    if (ids->count <= INT32_MAX / 4) return PLUMB_OK;
    return plumb_error(PLUMB_E_DATA, "found a text of %zu tokens, expected fewer than %d", ids->count, INT32_MAX / 4);
}

static size_t common_prefix(const plumb_ids *a, const plumb_ids *b) {
    size_t n = 0;
    while (n < a->count && n < b->count && a->data[n] == b->data[n]) n++;
    return n;
}

/* The bytes of text at `at` that `count` ids spell, -1 when they do not. Decoders drop a leading space of what they are
 * given; a special token that the text does not have was added by the tokenizer and spells nothing. */
static plumb_status spelled(encoded *c, const plumb_tokenizer *t, const int32_t *ids, size_t count,
                            const plumb_str *text, size_t at, int64_t *length) {
    c->piece.length = 0;
    PLUMB_TRY(plumb_detokenize(t, ids, count, false, &c->piece));
    size_t n = c->piece.length, rest = text->length - at;
    bool space = rest && text->data[at] == ' ';
    *length = -1;
    if (n <= rest && n && !memcmp(text->data + at, c->piece.data, n))
        *length = (int64_t)n;
    else if (space && n < rest && (!n || !memcmp(text->data + at + 1, c->piece.data, n)))
        *length = (int64_t)n + 1;
    if (*length >= 0 || count > 1) return PLUMB_OK;
    c->piece.length = 0;
    PLUMB_TRY(plumb_detokenize(t, ids, 1, true, &c->piece));
    if (c->piece.length == 0) *length = 0;
    return PLUMB_OK;
}

static bool in_spans(const example *e, size_t begin, size_t end) {
    for (int i = 0; i < e->n_spans; i++)
        if ((int64_t)begin < e->spans[2 * i + 1] && (int64_t)end > e->spans[2 * i]) return true;
    return false;
}

/* Marks ids by reading them back; *done says whether they spelled the whole text. */
static plumb_status mark_by_spelling(encoded *c, const plumb_tokenizer *t, const example *e, bool *done) {
    const plumb_ids *ids = &c->whole[0];
    const plumb_str *text = &e->whole[0];
    size_t at = 0, run;
    *done = false;
    for (size_t i = 0; i < ids->count; i += run) {
        int64_t length = -1;
        for (run = 1; length < 0; run++) {
            if (run > LONGEST_RUN || run > ids->count - i) return PLUMB_OK;
            PLUMB_TRY(spelled(c, t, ids->data + i, run, text, at, &length));
        }
        run--;
        memset(c->assistant + i, in_spans(e, at, at + (size_t)length), run);
        at += (size_t)length;
    }
    *done = at == text->length;
    return PLUMB_OK;
}

/* Marks ids by where those of the text up to a span's begin and end part from those of the whole. */
static plumb_status mark_by_prefix(encoded *c, const plumb_tokenizer *t, const example *e) {
    memset(c->assistant, 0, c->whole[0].count);
    for (int i = 0; i < e->n_spans; i++) {
        size_t edge[2];
        for (int side = 0; side < 2; side++) {
            PLUMB_TRY(tokenize(&c->scratch, t, e->whole[0].data, (size_t)e->spans[2 * i + side], e->special));
            edge[side] = common_prefix(&c->scratch, &c->whole[0]);
            if (side && edge[side] < c->scratch.count && edge[side] < c->whole[0].count)
                edge[side]++; /* the id that spans the end */
        }
        if (edge[1] > edge[0]) memset(c->assistant + edge[0], 1, edge[1] - edge[0]);
    }
    return PLUMB_OK;
}

plumb_status encode_example(encoded *c, const plumb_tokenizer *t, const example *e) {
    size_t start = SIZE_MAX;
    for (int i = 0; i < e->wholes; i++)
        PLUMB_TRY(tokenize(&c->whole[i], t, e->whole[i].data, e->whole[i].length, e->special));
    c->start = 0;
    c->merged = false;
    if (e->has_prompt) {
        PLUMB_TRY(tokenize(&c->prompt, t, e->prompt.data, e->prompt.length, e->special));
        for (int i = 0; i < e->wholes; i++) {
            size_t n = common_prefix(&c->prompt, &c->whole[i]);
            if (n < start) start = n;
        }
        if (start > c->prompt.count) start = c->prompt.count; /* a prompt alone */
        c->start = (int32_t)start;
        c->merged = start < c->prompt.count;
    }
    if (!e->assistant_only) return PLUMB_OK;
    bool done;
    PLUMB_TRY(plumb_grow(&c->assistant, &c->assistant_capacity, c->whole[0].count + 1, 1));
    PLUMB_TRY(mark_by_spelling(c, t, e, &done));
    return done ? PLUMB_OK : mark_by_prefix(c, t, e);
}
