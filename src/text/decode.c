/* Ids to text: the contents of the tokens go through the decoder's steps, as a list, and are joined at the end.
 * The byte-level step and Fuse leave one piece; the others map pieces to pieces. */
#include "tokenizer.h"
#include <string.h>

static plumb_status keep(plumb_pieces *p, size_t start) {
    return plumb_pieces_push(p, (plumb_piece){start, p->text.length - start, -1, false});
}

/* A token whose characters all stand for bytes gives those bytes, any other token its own text. */
static plumb_status byte_level(const plumb_pieces *in, plumb_pieces *out) {
    plumb_str bytes = {0};
    plumb_status status = PLUMB_OK;
    for (size_t i = 0; i < in->count && status == PLUMB_OK; i++) {
        const char *text = in->text.data + in->list[i].start;
        size_t length = in->list[i].length, before = bytes.length, size;
        for (size_t k = 0; k < length && status == PLUMB_OK; k += size) {
            int byte = plumb_byte_level_byte(plumb_utf8_decode(text + k, &size));
            if (byte < 0) {
                bytes.length = before;
                status = plumb_str_append(&bytes, text, length);
                break;
            }
            status = plumb_str_append(&bytes, &(char){(char)byte}, 1);
        }
    }
    if (status == PLUMB_OK) status = plumb_utf8_repair(bytes.data, bytes.length, &out->text);
    plumb_str_free(&bytes);
    return status == PLUMB_OK ? keep(out, 0) : status;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int plumb_fallback_byte(const char *text, size_t length) {
    if (length != 6 || memcmp(text, "<0x", 3) || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens is text when it is valid UTF-8 as a whole, and otherwise U+FFFD for each of them. */
static plumb_status flush_bytes(plumb_str *run, plumb_pieces *out) {
    size_t start = out->text.length;
    if (!run->length) return PLUMB_OK;
    bool valid = plumb_utf8_valid(run->data, run->length);
    if (valid) PLUMB_TRY(plumb_str_append(&out->text, run->data, run->length));
    for (size_t i = 0; !valid && i < run->length; i++) PLUMB_TRY(plumb_str_append(&out->text, "\xef\xbf\xbd", 3));
    run->length = 0;
    return keep(out, start);
}

static plumb_status byte_fallback(const plumb_pieces *in, plumb_pieces *out) {
    plumb_str run = {0};
    plumb_status status = PLUMB_OK;
    for (size_t i = 0; i < in->count && status == PLUMB_OK; i++) {
        const char *text = in->text.data + in->list[i].start;
        int byte = plumb_fallback_byte(text, in->list[i].length);
        if (byte >= 0) {
            status = plumb_str_append(&run, &(char){(char)byte}, 1);
            continue;
        }
        status = flush_bytes(&run, out);
        size_t start = out->text.length;
        if (status == PLUMB_OK) status = plumb_str_append(&out->text, text, in->list[i].length);
        if (status == PLUMB_OK) status = keep(out, start);
    }
    if (status == PLUMB_OK) status = flush_bytes(&run, out);
    plumb_str_free(&run);
    return status;
}

static bool is_at(const plumb_step *s, const char *text, size_t length) {
    return length >= s->length && !memcmp(text, s->text, s->length);
}

static plumb_status strip(const plumb_step *s, const char *text, size_t length, plumb_str *out) {
    size_t from = 0, to = length;
    for (size_t n = s->start; n && is_at(s, text + from, length - from); n--) from += s->length;
    for (size_t n = s->stop; n && to >= s->length && is_at(s, text + to - s->length, s->length); n--) to -= s->length;
    return from < to ? plumb_str_append(out, text + from, to - from) : PLUMB_OK;
}

static plumb_status metaspace(const plumb_step *s, const char *text, size_t length, bool first, plumb_str *out) {
    size_t size;
    for (size_t i = 0; i < length; i += size) {
        size = plumb_utf8_size((unsigned char)text[i]);
        bool is_space = size == s->length && is_at(s, text + i, length - i);
        if (is_space && first && s->prepend != PLUMB_PREPEND_NEVER) continue;
        PLUMB_TRY(is_space ? plumb_str_append(out, " ", 1) : plumb_str_append(out, text + i, size));
    }
    return PLUMB_OK;
}

static plumb_status apply(const plumb_step *s, plumb_workspace *w) {
    const plumb_pieces *in = &w->pieces;
    plumb_pieces *out = &w->next;
    if (s->kind == PLUMB_DEC_BYTE_LEVEL) return byte_level(in, out);
    if (s->kind == PLUMB_DEC_BYTE_FALLBACK) return byte_fallback(in, out);
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + in->list[i].start;
        size_t length = in->list[i].length, start = out->text.length;
        switch (s->kind) {
        case PLUMB_DEC_REPLACE: PLUMB_TRY(plumb_replace(s, w, text, length, &out->text)); break;
        case PLUMB_DEC_STRIP: PLUMB_TRY(strip(s, text, length, &out->text)); break;
        case PLUMB_DEC_METASPACE: PLUMB_TRY(metaspace(s, text, length, i == 0, &out->text)); break;
        default: PLUMB_TRY(plumb_str_append(&out->text, text, length)); continue; /* Fuse */
        }
        PLUMB_TRY(keep(out, start));
    }
    return s->kind == PLUMB_DEC_FUSE ? keep(out, 0) : PLUMB_OK;
}

static plumb_status collect(const plumb_tokenizer *t, const int32_t *ids, size_t count, bool skip_special,
                            plumb_pieces *out) {
    for (size_t i = 0; i < count; i++) {
        size_t length, start = out->text.length;
        bool special;
        const char *text = plumb_added_shown(t, ids[i], &length, &special);
        if (!text)
            return plumb_error(PLUMB_E_DATA, "id %d at position %zu is not in the tokenizer's vocabulary of %zu ids",
                               ids[i], i, t->vocab.count);
        if (skip_special && special) continue;
        if (!t->decoder_given && out->count) PLUMB_TRY(plumb_str_append(&out->text, " ", 1));
        PLUMB_TRY(plumb_str_append(&out->text, text, length));
        PLUMB_TRY(keep(out, start));
    }
    return PLUMB_OK;
}

plumb_status plumb_detokenize(const plumb_tokenizer *t, const int32_t *ids, size_t count, bool skip_special,
                              plumb_str *out) {
    plumb_workspace w;
    PLUMB_TRY(plumb_workspace_open(&w));
    plumb_status status = plumb_str_append(&w.pieces.text, "", 0);
    if (status == PLUMB_OK) status = collect(t, ids, count, skip_special, &w.pieces);
    for (size_t i = 0; i < t->decoder.count && status == PLUMB_OK; i++) {
        plumb_pieces_clear(&w.next);
        if ((status = plumb_str_append(&w.next.text, "", 0)) == PLUMB_OK) status = apply(&t->decoder.list[i], &w);
        plumb_pieces old = w.pieces;
        w.pieces = w.next;
        w.next = old;
    }
    if (status == PLUMB_OK) status = plumb_utf8_repair(w.pieces.text.data, w.pieces.text.length, out);
    plumb_workspace_close(&w);
    return status;
}
