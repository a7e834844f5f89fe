/* Normalizers: a list of functions from string to string.
 *
 * The Unicode forms use utf8proc's tables but not its driver: its canonical ordering is quadratic in the length of a
 * run of combining marks (a megabyte of them would take hours), here a run is sorted by a counting sort over the 256
 * combining classes. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct points {
    utf8proc_int32_t *list;
    size_t count, capacity;
} points;

static bool is_ascii(const char *text, size_t length) {
    unsigned char any = 0;
    for (size_t i = 0; i < length; i++) any |= (unsigned char)text[i];
    return any < 0x80;
}

static plumb_status decompose(const char *text, size_t length, utf8proc_option_t options, points *out) {
    size_t size;
    for (size_t i = 0; i < length; i += size) {
        utf8proc_int32_t buffer[32]; /* the longest decomposition has 18 characters */
        int last = 0;
        uint32_t c = plumb_utf8_decode(text + i, &size);
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, buffer, 32, options, &last);
        if (n < 0 || n > 32) return plumb_error(PLUMB_E_DATA, "cannot normalise U+%04X: %s", c, utf8proc_errmsg(n));
        PLUMB_TRY(plumb_grow(&out->list, &out->capacity, out->count + (size_t)n, sizeof *out->list));
        memcpy(out->list + out->count, buffer, (size_t)n * sizeof *buffer);
        out->count += (size_t)n;
    }
    return PLUMB_OK;
}

static unsigned combining_class(utf8proc_int32_t c) {
    return (unsigned)utf8proc_get_property(c)->combining_class & 255;
}

/* Canonical ordering: each run of characters with a combining class other than 0 is sorted by class, stably. */
static plumb_status order_marks(points *p) {
    points sorted = {0};
    plumb_status status = PLUMB_OK;
    for (size_t i = 0, end; i < p->count; i = end) {
        end = i + 1;
        if (p->list[i] < 0x300 || !combining_class(p->list[i])) continue;
        bool ordered = true;
        for (; end < p->count && combining_class(p->list[end]); end++)
            ordered &= combining_class(p->list[end - 1]) <= combining_class(p->list[end]);
        if (ordered) continue;
        size_t n = end - i, first[257] = {0};
        if ((status = plumb_grow(&sorted.list, &sorted.capacity, n, sizeof *sorted.list)) != PLUMB_OK) goto done;
        for (size_t k = i; k < end; k++) first[combining_class(p->list[k]) + 1]++;
        for (int k = 0; k < 256; k++) first[k + 1] += first[k];
        for (size_t k = i; k < end; k++) sorted.list[first[combining_class(p->list[k])]++] = p->list[k];
        memcpy(p->list + i, sorted.list, n * sizeof *sorted.list);
    }
done:
    free(sorted.list);
    return status;
}

static plumb_status unicode_form(plumb_step_kind kind, const char *text, size_t length, plumb_str *out) {
    if (is_ascii(text, length)) return plumb_str_append(out, text, length);
    points p = {0};
    bool compat = kind == PLUMB_NORM_NFKC || kind == PLUMB_NORM_NFKD,
         compose = kind == PLUMB_NORM_NFC || kind == PLUMB_NORM_NFKC;
    int flags = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compat ? UTF8PROC_COMPAT : 0);
    plumb_status status = decompose(text, length, (utf8proc_option_t)flags, &p);
    if (status == PLUMB_OK) status = order_marks(&p);
    if (status == PLUMB_OK && compose)
        p.count = (size_t)utf8proc_normalize_utf32(
            p.list, (utf8proc_ssize_t)p.count,
            (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE | (compat ? UTF8PROC_COMPAT : 0)));
    for (size_t i = 0; status == PLUMB_OK && i < p.count; i++) {
        char bytes[4];
        status = plumb_str_append(out, bytes, plumb_utf8_encode((uint32_t)p.list[i], bytes));
    }
    free(p.list);
    return status;
}

static plumb_status lowercase(const char *text, size_t length, plumb_str *out) {
    size_t size;
    for (size_t i = 0; i < length; i += size) {
        char bytes[4];
        uint32_t c = plumb_utf8_decode(text + i, &size);
        if (c == 0x130) { /* the one character whose lower case is two */
            PLUMB_TRY(plumb_str_append(out, "i\xcc\x87", 3));
            continue;
        }
        PLUMB_TRY(
            plumb_str_append(out, bytes, plumb_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), bytes)));
    }
    return PLUMB_OK;
}

static plumb_status strip(const plumb_step *s, const char *text, size_t length, plumb_str *out) {
    size_t start = 0, end = length, size;
    while (s->left && start < end && plumb_is_space(plumb_utf8_decode(text + start, &size))) start += size;
    while (s->right && end > start) {
        size_t last = plumb_utf8_last(text, end);
        if (!plumb_is_space(plumb_utf8_decode(text + last, &size))) break;
        end = last;
    }
    return plumb_str_append(out, text + start, end - start);
}

plumb_status plumb_replace(const plumb_step *s, plumb_workspace *w, const char *text, size_t length, plumb_str *out) {
    PLUMB_TRY(plumb_regex_cut(s->regex, w->matcher, text, length, &w->spans));
    for (size_t i = 0; i < w->spans.count; i++) {
        plumb_span span = w->spans.list[i];
        PLUMB_TRY(span.match ? plumb_str_append(out, s->text, s->length)
                             : plumb_str_append(out, text + span.start, span.end - span.start));
    }
    return PLUMB_OK;
}

plumb_status plumb_normalize(const plumb_steps *steps, plumb_workspace *w, const char *text, size_t length,
                             plumb_str *out) {
    out->length = 0;
    PLUMB_TRY(plumb_str_append(out, text, length));
    for (size_t i = 0; i < steps->count; i++) {
        const plumb_step *s = &steps->list[i];
        plumb_str input = *out;
        *out = w->a; /* the two buffers take turns */
        w->a = input;
        out->length = 0;
        PLUMB_TRY(plumb_str_append(out, "", 0));
        switch (s->kind) {
        case PLUMB_NORM_PREPEND:
            if (input.length) PLUMB_TRY(plumb_str_append(out, s->text, s->length));
            PLUMB_TRY(plumb_str_append(out, input.data, input.length));
            break;
        case PLUMB_NORM_REPLACE: PLUMB_TRY(plumb_replace(s, w, input.data, input.length, out)); break;
        case PLUMB_NORM_LOWERCASE: PLUMB_TRY(lowercase(input.data, input.length, out)); break;
        case PLUMB_NORM_STRIP: PLUMB_TRY(strip(s, input.data, input.length, out)); break;
        default: PLUMB_TRY(unicode_form(s->kind, input.data, input.length, out)); break;
        }
    }
    return PLUMB_OK;
}
