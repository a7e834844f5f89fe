/* Added tokens: contents that are recognised in the text as a whole, before BPE sees it.
 *
 * Two tries, because a token may be matched before normalisation (`normalized` false, the special tokens) or after it.
 * At each place the longest token wins, the leftmost place first; the search goes on behind the match even when a match
 * is thrown away because it is not a word of its own.  lstrip and rstrip swallow the white space beside a token. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

static plumb_status new_node(plumb_trie *trie, uint8_t byte, int32_t sibling, int32_t *out) {
    if (trie->count >= INT32_MAX) return plumb_error(PLUMB_E_FORMAT, "the added tokens are too long");
    PLUMB_TRY(plumb_grow(&trie->nodes, &trie->capacity, trie->count + 1, sizeof *trie->nodes));
    trie->nodes[trie->count] = (plumb_trie_node){byte, -1, sibling, -1};
    *out = (int32_t)trie->count++;
    return PLUMB_OK;
}

static int32_t find_child(const plumb_trie *trie, int32_t first, uint8_t byte) {
    while (first >= 0 && trie->nodes[first].byte != byte) first = trie->nodes[first].sibling;
    return first;
}

static plumb_status insert(plumb_trie *trie, const char *text, size_t length, int32_t token) {
    int32_t node = -1;
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = (uint8_t)text[i];
        int32_t first = node < 0 ? trie->roots[byte] : trie->nodes[node].child, next = find_child(trie, first, byte);
        if (next < 0) {
            PLUMB_TRY(new_node(trie, byte, first, &next));
            if (node < 0)
                trie->roots[byte] = next;
            else
                trie->nodes[node].child = next;
        }
        node = next;
    }
    if (node >= 0 && trie->nodes[node].token < 0) trie->nodes[node].token = token;
    return PLUMB_OK;
}

plumb_status plumb_added_put(plumb_tokenizer *t, const char *content, size_t length, const plumb_added_token *flags) {
    if (!length) return PLUMB_OK; /* as the tokenizers library does */
    int32_t id = plumb_vocab_find(&t->vocab, content, length);
    if (id >= 0 && flags->id >= 0 && id != flags->id) {
        return plumb_error(PLUMB_E_FORMAT, "%s: added token \"%.*s\" has id %d, but the vocabulary says %d", t->name,
                           (int)plumb_min64((int64_t)length, 200), content, flags->id, id);
    }
    bool known = id >= 0 && t->vocab.entries[id].flags & PLUMB_TOKEN_ADDED;
    if (id < 0) {
        id = flags->id >= 0 ? flags->id : (int32_t)t->vocab.count;
        plumb_status status = plumb_vocab_add(&t->vocab, content, length, id, PLUMB_TOKEN_ADDED);
        if (status != PLUMB_OK) return plumb_error_prefix(status, "%s: added tokens", t->name);
    }
    size_t at = 0;
    while (known && at < t->added_count && t->added[at].id != id) at++;
    if (!known) at = t->added_count;
    if (at == t->added_count) {
        PLUMB_TRY(plumb_grow(&t->added, &t->added_capacity, t->added_count + 1, sizeof *t->added));
        char *copy;
        PLUMB_TRY(plumb_alloc(&copy, length + 1, 1, "an added token"));
        memcpy(copy, content, length);
        t->added[t->added_count++] = (plumb_added_token){.content = copy, .length = length, .id = id};
    }
    plumb_added_token *a = &t->added[at];
    a->single_word = flags->single_word;
    a->lstrip = flags->lstrip;
    a->rstrip = flags->rstrip;
    a->normalized = flags->normalized;
    a->special |= flags->special; /* once special, always special, as in the tokenizers library */
    t->vocab.entries[id].flags |= (uint8_t)(PLUMB_TOKEN_ADDED | (a->special ? PLUMB_TOKEN_SPECIAL : 0));
    return PLUMB_OK;
}

static plumb_status set_shown(plumb_tokenizer *t, plumb_added_token *a, const plumb_str *text) {
    if (text->length == a->length && !memcmp(text->data, a->content, a->length)) return PLUMB_OK;
    PLUMB_TRY(plumb_alloc(&a->shown, text->length + 1, 1, "an added token"));
    memcpy(a->shown, text->data, text->length);
    a->shown_length = text->length;
    t->vocab.entries[a->id].flags |= PLUMB_TOKEN_RENAMED;
    return PLUMB_OK;
}

const char *plumb_added_shown(const plumb_tokenizer *t, int32_t id, size_t *length, bool *special) {
    const char *text = plumb_vocab_text(&t->vocab, id, length);
    *special = text && t->vocab.entries[id].flags & PLUMB_TOKEN_SPECIAL;
    if (!text || !(t->vocab.entries[id].flags & PLUMB_TOKEN_RENAMED)) return text;
    size_t at = 0;
    while (t->added[at].id != id) at++;
    *length = t->added[at].shown_length;
    int32_t same =
        plumb_vocab_find(&t->vocab, t->added[at].shown, *length); /* it is skipped by the name that it shows */
    *special = same >= 0 && t->vocab.entries[same].flags & PLUMB_TOKEN_SPECIAL;
    return t->added[at].shown;
}

plumb_status plumb_added_finish(plumb_tokenizer *t) {
    plumb_workspace w;
    plumb_str text = {0};
    plumb_status status = plumb_workspace_open(&w);
    t->raw.count = t->cooked.count = 0;
    memset(t->raw.roots, -1, sizeof t->raw.roots);
    memset(t->cooked.roots, -1, sizeof t->cooked.roots);
    for (int special = 1; special >= 0;
         special--) { /* of two tokens that look the same after normalisation, the special one counts */
        for (size_t i = 0; i < t->added_count && status == PLUMB_OK; i++) {
            const plumb_added_token *a = &t->added[i];
            if (a->special != (special == 1)) continue;
            if (!a->normalized) {
                status = insert(&t->raw, a->content, a->length, (int32_t)i);
                continue;
            }
            status = plumb_normalize(&t->normalizer, &w, a->content, a->length, &text);
            if (status == PLUMB_OK) status = insert(&t->cooked, text.data, text.length, (int32_t)i);
            if (status == PLUMB_OK) status = set_shown(t, &t->added[i], &text);
        }
    }
    plumb_str_free(&text);
    plumb_workspace_close(&w);
    return status;
}

/* The longest token at text[at]; its index, and the end of the match. */
static int32_t longest(const plumb_trie *trie, const char *text, size_t length, size_t at, size_t *end) {
    int32_t found = -1, node = trie->roots[(uint8_t)text[at]];
    while (node >= 0) {
        at++;
        if (trie->nodes[node].token >= 0) {
            found = trie->nodes[node].token;
            *end = at;
        }
        if (at == length) break;
        node = find_child(trie, trie->nodes[node].child, (uint8_t)text[at]);
    }
    return found;
}

static bool is_own_word(const char *text, size_t length, size_t start, size_t stop) {
    size_t size;
    if (start && plumb_is_word(plumb_utf8_decode(text + plumb_utf8_last(text, start), &size))) return false;
    return stop == length || !plumb_is_word(plumb_utf8_decode(text + stop, &size));
}

/* Cuts text into tokens and what lies between them; pieces are shifted by `base`. */
static plumb_status cut(const plumb_tokenizer *t, const plumb_trie *trie, const char *text, size_t length, size_t base,
                        bool first, plumb_pieces *out) {
    size_t done = 0, at = 0, size;
    while (trie->count && at < length) {
        size_t stop = 0, start = at;
        int32_t index = longest(trie, text, length, at, &stop);
        if (index < 0) {
            at++;
            continue;
        }
        at = stop;
        const plumb_added_token *a = &t->added[index];
        if (a->single_word && !is_own_word(text, length, start, stop)) continue;
        while (a->lstrip && start > done) {
            size_t last = plumb_utf8_last(text, start);
            if (!plumb_is_space(plumb_utf8_decode(text + last, &size))) break;
            start = last;
        }
        while (a->rstrip && stop < length && plumb_is_space(plumb_utf8_decode(text + stop, &size))) stop += size;
        if (done < start)
            PLUMB_TRY(plumb_pieces_push(out, (plumb_piece){base + done, start - done, -1, first && done == 0}));
        PLUMB_TRY(plumb_pieces_push(out, (plumb_piece){base + start, stop - start, a->id, false}));
        done = stop;
    }
    if (done < length)
        PLUMB_TRY(plumb_pieces_push(out, (plumb_piece){base + done, length - done, -1, first && done == 0}));
    return PLUMB_OK;
}

plumb_status plumb_added_split(const plumb_tokenizer *t, plumb_workspace *w, const char *text, size_t length) {
    plumb_pieces_clear(&w->pieces);
    plumb_pieces_clear(&w->next);
    PLUMB_TRY(cut(t, &t->raw, text, length, 0, true, &w->next));
    for (size_t i = 0; i < w->next.count; i++) {
        plumb_piece piece = w->next.list[i];
        if (piece.id >= 0) {
            PLUMB_TRY(plumb_pieces_push(&w->pieces, piece));
            continue;
        }
        size_t base = w->pieces.text.length;
        PLUMB_TRY(plumb_normalize(&t->normalizer, w, text + piece.start, piece.length, &w->b));
        PLUMB_TRY(plumb_str_append(&w->pieces.text, w->b.data, w->b.length));
        PLUMB_TRY(cut(t, &t->cooked, w->b.data, w->b.length, base, piece.start == 0, &w->pieces));
    }
    return PLUMB_OK;
}

void plumb_added_free(plumb_tokenizer *t) {
    for (size_t i = 0; i < t->added_count; i++) {
        free(t->added[i].content);
        free(t->added[i].shown);
    }
    free(t->added);
    free(t->raw.nodes);
    free(t->cooked.nodes);
}
