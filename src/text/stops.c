/* Stop strings against the ends of completions.
 *
 * Decoding a completion after each token would cost its whole length each time, and its last characters may be U+FFFD until more has
 * come. So each token has its bytes in a table, and a stop string is compared backwards from every place in the last token's text where
 * it could end, through as many tokens as it is long. Nothing is allocated, nothing is shared but the table. */
#include "plumb/stops.h"
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

struct plumb_stops {
    char *strings;   /* all of them, back to back */
    size_t *ends;    /* [n] end of each in `strings` */
    int n;
    plumb_str bytes; /* of all tokens, back to back */
    size_t *starts;  /* [vocab + 1] */
    int64_t vocab;
};

/* --- the bytes of a token --------------------------------------------------------------------- */
static bool has_step(const plumb_tokenizer *t, plumb_step_kind kind) {
    for (size_t i = 0; i < t->decoder.count; i++)
        if (t->decoder.list[i].kind == kind) return true;
    return false;
}

/* GPT-2's stand-ins for bytes; *whole is false, and nothing was added, when a character stands for none. */
static plumb_status stand_ins(const char *text, size_t length, plumb_str *out, bool *whole) {
    size_t size, before = out->length;
    for (size_t k = 0; k < length; k += size) {
        int byte = plumb_byte_level_byte(plumb_utf8_decode(text + k, &size));
        *whole = byte >= 0;
        if (!*whole) {
            out->length = before;
            return PLUMB_OK;
        }
        PLUMB_TRY(plumb_str_append(out, &(char){(char)byte}, 1));
    }
    return PLUMB_OK;
}

/* What decoding adds for `id` behind the ids of some text, whose decoded form is `context`. */
static plumb_status behind(const plumb_tokenizer *t, plumb_ids *ids, int32_t id, const plumb_str *context, plumb_str *scratch,
                           plumb_str *out) {
    scratch->length = 0;
    PLUMB_TRY(plumb_ids_push(ids, id));
    plumb_status status = plumb_detokenize(t, ids->data, ids->count, true, scratch);
    ids->count--;
    PLUMB_TRY(status);
    size_t same = 0;
    while (same < context->length && same < scratch->length && context->data[same] == scratch->data[same]) same++;
    return plumb_str_append(out, scratch->data ? scratch->data + same : "", scratch->length - same);
}

static plumb_status fill_token(const plumb_tokenizer *t, int32_t id, plumb_ids *ids, const plumb_str *context, plumb_str *scratch,
                               plumb_str *out) {
    size_t length;
    bool special;
    const char *text = plumb_added_shown(t, id, &length, &special);
    if (!text || special) return PLUMB_OK;
    int byte = has_step(t, PLUMB_DEC_BYTE_FALLBACK) ? plumb_fallback_byte(text, length) : -1;
    if (byte >= 0) return plumb_str_append(out, &(char){(char)byte}, 1);
    if (has_step(t, PLUMB_DEC_BYTE_LEVEL)) {
        bool whole = true;
        PLUMB_TRY(stand_ins(text, length, out, &whole));
        if (whole) return PLUMB_OK;
    }
    return behind(t, ids, id, context, scratch, out);
}

static plumb_status fill_table(plumb_stops *s, const plumb_tokenizer *t) {
    plumb_ids ids = {0};
    plumb_str context = {0}, scratch = {0};
    plumb_status status = plumb_tokenize(t, "abcdef", 6, false, &ids);
    if (status == PLUMB_OK) status = plumb_detokenize(t, ids.data, ids.count, true, &context);
    if (status == PLUMB_OK) status = plumb_str_append(&s->bytes, "", 0);
    for (int64_t id = 0; id < s->vocab && status == PLUMB_OK; id++) {
        s->starts[id] = s->bytes.length;
        status = fill_token(t, (int32_t)id, &ids, &context, &scratch, &s->bytes);
    }
    s->starts[s->vocab] = s->bytes.length;
    plumb_ids_free(&ids);
    plumb_str_free(&context);
    plumb_str_free(&scratch);
    return status;
}

plumb_status plumb_stops_create(plumb_stops **out, const plumb_tokenizer *t, char *const *strings, int n) {
    plumb_stops *s;
    size_t total = 0;
    *out = NULL;
    for (int i = 0; i < n; i++) {
        if (!strings[i][0]) return plumb_error(PLUMB_E_CONFIG, "stop_strings: number %d is empty; expected text", i + 1);
        total += strlen(strings[i]);
    }
    PLUMB_TRY(plumb_alloc(&s, 1, sizeof *s, "stop strings"));
    s->n = n;
    s->vocab = plumb_tokenizer_vocab(t);
    plumb_status status = plumb_alloc(&s->strings, total + 1, 1, "stop strings");
    if (status == PLUMB_OK) status = plumb_alloc(&s->ends, (size_t)n + 1, sizeof *s->ends, "stop strings");
    if (status == PLUMB_OK) status = plumb_alloc(&s->starts, (size_t)s->vocab + 1, sizeof *s->starts, "stop strings");
    total = 0;
    for (int i = 0; i < n && status == PLUMB_OK; i++) {
        memcpy(s->strings + total, strings[i], strlen(strings[i]));
        s->ends[i] = total += strlen(strings[i]);
    }
    if (status == PLUMB_OK && n) status = fill_table(s, t);
    if (status != PLUMB_OK) {
        plumb_stops_free(s);
        return status;
    }
    *out = s;
    return PLUMB_OK;
}

void plumb_stops_free(plumb_stops *s) {
    if (!s) return;
    free(s->strings), free(s->ends), free(s->starts);
    plumb_str_free(&s->bytes);
    free(s);
}

/* --- matching --------------------------------------------------------------------------------- */
static size_t text_of(const plumb_stops *s, int32_t id, const char **text) {
    if (id < 0 || id >= s->vocab) return 0;
    *text = s->bytes.data + s->starts[id];
    return s->starts[id + 1] - s->starts[id];
}

/* Is `stop` what ends `cut` bytes into the last token's text? */
static bool ends_at(const plumb_stops *s, const char *stop, size_t length, const int32_t *ids, int64_t count, size_t cut) {
    const char *text = NULL;
    for (int64_t i = count - 1; i >= 0 && length; i--) {
        size_t size = text_of(s, ids[i], &text), part;
        if (i == count - 1) size = cut;
        part = size < length ? size : length;
        if (part && memcmp(stop + length - part, text + size - part, part)) return false;
        length -= part;
    }
    return length == 0;
}

bool plumb_stops_hit(const plumb_stops *s, const int32_t *ids, int64_t count) {
    if (!s || count < 1 || s->n == 0) return false;
    const char *text = NULL;
    size_t last = text_of(s, ids[count - 1], &text);
    for (int i = 0; i < s->n; i++) {
        size_t start = i ? s->ends[i - 1] : 0;
        for (size_t cut = 1; cut <= last; cut++)
            if (ends_at(s, s->strings + start, s->ends[i] - start, ids, count, cut)) return true;
    }
    return false;
}
