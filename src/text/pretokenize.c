/* Pre-tokenizers: each step cuts or rewrites the pieces that the step before it left.
 *
 * Pieces are ranges of one buffer.  A step that only cuts writes a new list over the same buffer; a step that changes
 * characters (bytes to characters, spaces to U+2581, a space in front) writes a new buffer.  Pieces that are added
 * tokens pass through. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

/* The spans of matches and gaps become pieces according to the behaviour; `s` is rewritten in place. */
static void merge_spans(plumb_spans *s, plumb_behavior behavior) {
    size_t kept = 0;
    bool previous = false;
    if (behavior == PLUMB_MERGED_NEXT) { /* the mirror image of merging with the previous one: from the right */
        size_t first = s->count;
        for (size_t i = s->count; i-- > 0;) {
            plumb_span span = s->list[i];
            bool join = span.match && !previous && first < s->count;
            previous = span.match;
            if (join)
                s->list[first].start = span.start;
            else
                s->list[--first] = span;
        }
        memmove(s->list, s->list + first, (s->count - first) * sizeof *s->list);
        s->count -= first;
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        plumb_span span = s->list[i];
        bool join = false;
        if (behavior == PLUMB_REMOVED && span.match) continue;
        if (behavior == PLUMB_CONTIGUOUS) join = kept && span.match == previous;
        if (behavior == PLUMB_MERGED_PREVIOUS) join = kept && span.match && !previous;
        previous = span.match;
        if (join)
            s->list[kept - 1].end = span.end;
        else
            s->list[kept++] = span;
    }
    s->count = kept;
}

static plumb_status split(const plumb_step *s, plumb_workspace *w) {
    w->next.count = 0;
    for (size_t i = 0; i < w->pieces.count; i++) {
        plumb_piece piece = w->pieces.list[i];
        if (piece.id >= 0) {
            PLUMB_TRY(plumb_pieces_push(&w->next, piece));
            continue;
        }
        PLUMB_TRY(plumb_regex_cut(s->regex, w->matcher, w->pieces.text.data + piece.start, piece.length, &w->spans));
        for (size_t k = 0; s->invert && k < w->spans.count; k++) w->spans.list[k].match = !w->spans.list[k].match;
        if (s->behavior != PLUMB_ISOLATED) merge_spans(&w->spans, s->behavior);
        for (size_t k = 0; k < w->spans.count; k++) {
            plumb_span span = w->spans.list[k];
            if (span.start == span.end) continue;
            PLUMB_TRY(plumb_pieces_push(&w->next, (plumb_piece){piece.start + span.start, span.end - span.start, -1,
                                                                piece.first && span.start == 0}));
        }
    }
    plumb_piece *list = w->pieces.list; /* the lists change places, the buffer stays */
    size_t capacity = w->pieces.capacity;
    w->pieces.list = w->next.list;
    w->pieces.capacity = w->next.capacity;
    w->pieces.count = w->next.count;
    w->next.list = list;
    w->next.capacity = capacity;
    return PLUMB_OK;
}

static plumb_status put_bytes(const char *text, size_t length, plumb_str *out) {
    PLUMB_TRY(plumb_grow(&out->data, &out->capacity, out->length + 2 * length + 1, 1));
    char *to = out->data + out->length;
    for (size_t i = 0; i < length; i++) to += plumb_utf8_encode(plumb_byte_level_point((uint8_t)text[i]), to);
    out->length = (size_t)(to - out->data);
    return PLUMB_OK;
}

static plumb_status put_metaspace(const plumb_step *s, plumb_workspace *w, const char *text, size_t length,
                                  bool first) {
    plumb_str *out = &w->next.text;
    bool starts = length && (text[0] == ' ' || (length >= s->length && !memcmp(text, s->text, s->length)));
    if (!starts && (s->prepend == PLUMB_PREPEND_ALWAYS || (s->prepend == PLUMB_PREPEND_FIRST && first)))
        PLUMB_TRY(plumb_str_append(out, s->text, s->length));
    for (size_t i = 0, from = 0; i <= length; i++) {
        if (i < length && text[i] != ' ') continue;
        PLUMB_TRY(plumb_str_append(out, text + from, i - from));
        if (i < length) PLUMB_TRY(plumb_str_append(out, s->text, s->length));
        from = i + 1;
    }
    return PLUMB_OK;
}

/* Pushes [start, end) of the new buffer, cut before each replacement character where the step splits. */
static plumb_status push_metaspace(const plumb_step *s, plumb_workspace *w, size_t start, bool first) {
    const char *text = w->next.text.data;
    size_t end = w->next.text.length, from = start, size;
    for (size_t i = start; s->split && i < end; i += size) {
        size = plumb_utf8_size((unsigned char)text[i]);
        if (i == from || size != s->length || memcmp(text + i, s->text, size)) continue;
        PLUMB_TRY(plumb_pieces_push(&w->next, (plumb_piece){from, i - from, -1, first && from == start}));
        from = i;
    }
    if (from == end) return PLUMB_OK;
    return plumb_pieces_push(&w->next, (plumb_piece){from, end - from, -1, first && from == start});
}

static plumb_status rewrite(const plumb_step *s, plumb_workspace *w) {
    plumb_pieces_clear(&w->next);
    for (size_t i = 0; i < w->pieces.count; i++) {
        plumb_piece piece = w->pieces.list[i];
        const char *text = w->pieces.text.data + piece.start;
        size_t start = w->next.text.length;
        if (piece.id >= 0) {
            PLUMB_TRY(plumb_pieces_push(&w->next, piece));
            continue;
        }
        if (s->kind == PLUMB_PRE_METASPACE) {
            PLUMB_TRY(put_metaspace(s, w, text, piece.length, piece.first));
            PLUMB_TRY(push_metaspace(s, w, start, piece.first));
            continue;
        }
        if (s->kind == PLUMB_PRE_BYTES) {
            PLUMB_TRY(put_bytes(text, piece.length, &w->next.text));
        } else {
            if (piece.length && text[0] != ' ') PLUMB_TRY(plumb_str_append(&w->next.text, " ", 1));
            PLUMB_TRY(plumb_str_append(&w->next.text, text, piece.length));
        }
        PLUMB_TRY(plumb_pieces_push(&w->next, (plumb_piece){start, w->next.text.length - start, -1, piece.first}));
    }
    plumb_pieces old = w->pieces;
    w->pieces = w->next;
    w->next = old;
    return PLUMB_OK;
}

plumb_status plumb_pretokenize(const plumb_steps *s, plumb_workspace *w) {
    for (size_t i = 0; i < s->count; i++)
        PLUMB_TRY(s->list[i].kind == PLUMB_PRE_SPLIT ? split(&s->list[i], w) : rewrite(&s->list[i], w));
    return PLUMB_OK;
}

void plumb_steps_free(plumb_steps *s) {
    for (size_t i = 0; i < s->count; i++) {
        plumb_regex_free(s->list[i].regex);
        free(s->list[i].text);
    }
    free(s->list);
    *s = (plumb_steps){0};
}
