/* Byte-pair encoding (Sennrich et al. 2016): merge the pair of least rank, leftmost first, until none is left.
 *
 * The symbols of a piece are a linked list, the pairs that may merge a heap ordered by (rank, position): O(n log n), so
 * that a megabyte of one letter is no special case.  An entry of the heap is stale when its pair has changed since;
 * that is seen by looking the pair up again.  Most words are one token: `whole` remembers, per token, whether its own
 * text encodes as itself. */
#include "tokenizer.h"
#include <limits.h>

typedef struct plumb_symbol {
    int32_t id, previous, next;
    bool dead;
} plumb_symbol;
typedef struct plumb_candidate {
    uint64_t order;
    int32_t id;
} plumb_candidate; /* order = rank << 32 | position */

static void sift_up(plumb_candidate *heap, size_t at) {
    plumb_candidate item = heap[at];
    for (size_t parent; at && heap[parent = (at - 1) / 2].order > item.order; at = parent) heap[at] = heap[parent];
    heap[at] = item;
}

static plumb_candidate pop(plumb_workspace *w) {
    plumb_candidate *heap = w->heap, top = heap[0], item = heap[--w->heap_count];
    size_t at = 0, n = w->heap_count;
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1].order < heap[child].order) child++;
        if (heap[child].order >= item.order) break;
        heap[at] = heap[child];
    }
    heap[at] = item;
    return top;
}

/* Offers the pair that begins at `position`, if it can merge. */
static plumb_status offer(const plumb_tokenizer *t, plumb_workspace *w, int32_t position) {
    if (position < 0 || w->symbols[position].next < 0) return PLUMB_OK;
    const plumb_pair *pair =
        plumb_pairs_find(&t->pairs, w->symbols[position].id, w->symbols[w->symbols[position].next].id);
    if (!pair) return PLUMB_OK;
    PLUMB_TRY(plumb_grow(&w->heap, &w->heap_capacity, w->heap_count + 1, sizeof *w->heap));
    w->heap[w->heap_count] = (plumb_candidate){(uint64_t)(uint32_t)pair->rank << 32 | (uint32_t)position, pair->id};
    sift_up(w->heap, w->heap_count++);
    return PLUMB_OK;
}

static void add_symbol(plumb_workspace *w, size_t *count, int32_t id) {
    w->symbols[*count] = (plumb_symbol){id, (int32_t)*count - 1, (int32_t)*count + 1, false};
    ++*count;
}

/* Characters to symbols. One that the vocabulary lacks becomes its bytes, the unknown token, or nothing, in that order;
 * with fuse_unk neighbours share one unknown token. Room for one symbol per byte is there. */
static size_t first_symbols(const plumb_tokenizer *t, plumb_workspace *w, const char *text, size_t length) {
    size_t count = 0, size;
    bool unknown = false; /* one is pending */
    for (size_t i = 0; i < length; i += size) {
        size = plumb_utf8_size((unsigned char)text[i]);
        int32_t id = plumb_vocab_find_model(&t->vocab, text + i, size);
        if (id >= 0) {
            if (unknown) add_symbol(w, &count, t->unk);
            unknown = false;
            add_symbol(w, &count, id);
            continue;
        }
        bool bytes = t->byte_fallback;
        for (size_t k = 0; bytes && k < size; k++) bytes = t->byte_ids[(uint8_t)text[i + k]] >= 0;
        for (size_t k = 0; bytes && k < size; k++) add_symbol(w, &count, t->byte_ids[(uint8_t)text[i + k]]);
        if (bytes || t->unk < 0) continue;
        if (unknown && !t->fuse_unk) add_symbol(w, &count, t->unk);
        unknown = true;
    }
    if (unknown) add_symbol(w, &count, t->unk);
    if (count) w->symbols[count - 1].next = -1;
    return count;
}

static plumb_status merge(const plumb_tokenizer *t, plumb_workspace *w, size_t count) {
    w->heap_count = 0;
    for (size_t i = 0; i + 1 < count; i++) PLUMB_TRY(offer(t, w, (int32_t)i));
    while (w->heap_count) {
        plumb_candidate best = pop(w);
        int32_t at = (int32_t)(uint32_t)best.order;
        plumb_symbol *left = &w->symbols[at];
        if (left->dead || left->next < 0) continue;
        plumb_symbol *right = &w->symbols[left->next];
        const plumb_pair *pair = plumb_pairs_find(&t->pairs, left->id, right->id);
        if (!pair || pair->id != best.id) continue;
        left->id = best.id;
        left->next = right->next;
        right->dead = true;
        if (left->next >= 0) w->symbols[left->next].previous = at;
        PLUMB_TRY(offer(t, w, left->previous));
        PLUMB_TRY(offer(t, w, at));
    }
    return PLUMB_OK;
}

plumb_status plumb_bpe_encode(const plumb_tokenizer *t, plumb_workspace *w, const char *text, size_t length,
                              plumb_ids *ids) {
    if (!length) return PLUMB_OK;
    if (length >= INT_MAX)
        return plumb_error(PLUMB_E_DATA, "a text of %zu bytes without a place to cut it is too long to tokenize",
                           length);
    int32_t word = plumb_vocab_find_model(&t->vocab, text, length);
    if (word >= 0) {
        uint8_t known = atomic_load_explicit(&t->whole[word], memory_order_relaxed);
        if (known == 1 || t->ignore_merges) return plumb_ids_push(ids, word);
        if (known == 2) word = -1;
    }
    PLUMB_TRY(plumb_grow(&w->symbols, &w->symbol_capacity, length, sizeof *w->symbols));
    size_t count = first_symbols(t, w, text, length);
    if (!count) return PLUMB_OK;
    PLUMB_TRY(merge(t, w, count));
    if (word >= 0) {
        bool same = w->symbols[0].next < 0 && w->symbols[0].id == word;
        atomic_store_explicit(&t->whole[word], same ? 1 : 2, memory_order_relaxed);
    }
    for (int32_t i = 0; i >= 0; i = w->symbols[i].next) PLUMB_TRY(plumb_ids_push(ids, w->symbols[i].id));
    return PLUMB_OK;
}
