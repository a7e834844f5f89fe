/* Two hash tables: text -> id and pair of ids -> merge.  Both use open addressing with linear probing at half load;
 * they are filled once while loading and only read afterwards.  A vocabulary of 150,000 tokens takes about 6 MB and 10
 * ms. */
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 product =
        (unsigned __int128)(a ^ 0x9E3779B97F4A7C15ull) * (b ^ 0xD1B54A32D192ED03ull);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_text(const char *text, size_t length) {
    uint64_t h = length;
    for (; length > 8; text += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        h = mix(h, word);
    }
    uint64_t rest = 0;
    if (length) memcpy(&rest, text, length);
    return mix(h, rest);
}

static plumb_status grow_slots(plumb_vocab *v, size_t tokens) {
    if (v->slots && tokens * 2 <= v->mask + 1) return PLUMB_OK;
    size_t size = 64;
    while (size < tokens * 2) size *= 2;
    int32_t *slots;
    PLUMB_TRY(plumb_alloc(&slots, size, sizeof *slots, "the vocabulary"));
    for (size_t i = 0; v->slots && i <= v->mask; i++) {
        if (!v->slots[i]) continue;
        const plumb_vocab_entry *e = &v->entries[v->slots[i] - 1];
        size_t at = hash_text(v->bytes.data + e->offset, e->length) & (size - 1);
        while (slots[at]) at = (at + 1) & (size - 1);
        slots[at] = v->slots[i];
    }
    free(v->slots);
    v->slots = slots;
    v->mask = size - 1;
    return PLUMB_OK;
}

plumb_status plumb_vocab_reserve(plumb_vocab *v, size_t ids) {
    if (ids > PLUMB_VOCAB_LIMIT)
        return plumb_error(PLUMB_E_FORMAT, "token id %zu: ids of %d and above are not supported", ids - 1,
                           PLUMB_VOCAB_LIMIT);
    PLUMB_TRY(grow_slots(v, v->used + 1));
    if (ids <= v->capacity) return PLUMB_OK;
    plumb_vocab_entry *entries;
    size_t capacity = ids + 64;
    PLUMB_TRY(plumb_alloc(&entries, capacity, sizeof *entries, "the vocabulary"));
    if (v->count) memcpy(entries, v->entries, v->count * sizeof *entries);
    free(v->entries);
    v->entries = entries;
    v->capacity = capacity;
    return PLUMB_OK;
}

/* The slot of a text, or the free slot where it belongs. */
static size_t find_slot(const plumb_vocab *v, const char *text, size_t length) {
    size_t at = hash_text(text, length) & v->mask;
    for (; v->slots[at]; at = (at + 1) & v->mask) {
        const plumb_vocab_entry *e = &v->entries[v->slots[at] - 1];
        if (e->length == length && (length == 0 || !memcmp(v->bytes.data + e->offset, text, length))) break;
    }
    return at;
}

plumb_status plumb_vocab_add(plumb_vocab *v, const char *text, size_t length, int32_t id, uint8_t flags) {
    if (id < 0 || (size_t)id >= v->capacity) PLUMB_TRY(plumb_vocab_reserve(v, id < 0 ? SIZE_MAX : (size_t)id + 1));
    if (length > UINT32_MAX) return plumb_error(PLUMB_E_FORMAT, "a token of %zu bytes", length);
    PLUMB_TRY(grow_slots(v, v->used + 1));
    plumb_vocab_entry *e = &v->entries[id];
    if (e->flags) {
        return plumb_error(PLUMB_E_FORMAT, "tokens \"%.*s\" and \"%.*s\" have the same id %d", (int)e->length,
                           v->bytes.data + e->offset, (int)plumb_min64((int64_t)length, 200), text, id);
    }
    size_t at = find_slot(v, text, length);
    if (v->slots[at])
        return plumb_error(PLUMB_E_FORMAT, "token \"%.*s\" has two ids, %d and %d",
                           (int)plumb_min64((int64_t)length, 200), text, v->slots[at] - 1, id);
    *e = (plumb_vocab_entry){v->bytes.length, (uint32_t)length, (uint8_t)(flags | PLUMB_TOKEN_PRESENT)};
    PLUMB_TRY(plumb_str_append(&v->bytes, text, length));
    v->slots[at] = id + 1;
    v->used++;
    if ((size_t)id >= v->count) v->count = (size_t)id + 1;
    return PLUMB_OK;
}

int32_t plumb_vocab_find(const plumb_vocab *v, const char *text, size_t length) {
    return v->slots ? v->slots[find_slot(v, text, length)] - 1 : -1;
}

int32_t plumb_vocab_find_model(const plumb_vocab *v, const char *text, size_t length) {
    int32_t id = plumb_vocab_find(v, text, length);
    return id >= 0 && v->entries[id].flags & PLUMB_TOKEN_IN_MODEL ? id : -1;
}

const char *plumb_vocab_text(const plumb_vocab *v, int32_t id, size_t *length) {
    if (id < 0 || (size_t)id >= v->count || !v->entries[id].flags) return NULL;
    *length = v->entries[id].length;
    return v->bytes.data + v->entries[id].offset;
}

void plumb_vocab_free(plumb_vocab *v) {
    plumb_str_free(&v->bytes);
    free(v->entries);
    free(v->slots);
    *v = (plumb_vocab){0};
}

/* --- pairs ------------------------------------------------------------------------------------ */
plumb_status plumb_pairs_reserve(plumb_pairs *p, size_t count) {
    if (p->slots && count <= (p->mask + 1) / 2) return PLUMB_OK;
    size_t size = 64;
    if (count > SIZE_MAX / 64) return plumb_error(PLUMB_E_FORMAT, "%zu merges are too many", count);
    while (size < count * 2) size *= 2;
    plumb_pair *slots;
    PLUMB_TRY(plumb_alloc(&slots, size, sizeof *slots, "the merges"));
    for (size_t i = 0; i < size; i++) slots[i].id = -1;
    for (size_t i = 0; p->slots && i <= p->mask; i++) {
        if (p->slots[i].id < 0) continue;
        size_t at = mix(p->slots[i].key, 1) & (size - 1);
        while (slots[at].id >= 0) at = (at + 1) & (size - 1);
        slots[at] = p->slots[i];
    }
    free(p->slots);
    p->slots = slots;
    p->mask = size - 1;
    return PLUMB_OK;
}

static size_t find_pair(const plumb_pairs *p, uint64_t key) {
    size_t at = mix(key, 1) & p->mask;
    while (p->slots[at].id >= 0 && p->slots[at].key != key) at = (at + 1) & p->mask;
    return at;
}

plumb_status plumb_pairs_add(plumb_pairs *p, int32_t left, int32_t right, int32_t rank, int32_t id) {
    PLUMB_TRY(plumb_pairs_reserve(p, p->used + 1));
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = find_pair(p, key);
    if (p->slots[at].id < 0) p->used++;
    p->slots[at] = (plumb_pair){key, rank, id};
    return PLUMB_OK;
}

const plumb_pair *plumb_pairs_find(const plumb_pairs *p, int32_t left, int32_t right) {
    if (!p->slots) return NULL;
    const plumb_pair *found = &p->slots[find_pair(p, (uint64_t)(uint32_t)left << 32 | (uint32_t)right)];
    return found->id < 0 ? NULL : found;
}

/* --- ids and pieces --------------------------------------------------------------------------- */
plumb_status plumb_ids_push(plumb_ids *ids, int32_t id) {
    PLUMB_TRY(plumb_grow(&ids->data, &ids->capacity, ids->count + 1, sizeof *ids->data));
    ids->data[ids->count++] = id;
    return PLUMB_OK;
}

void plumb_ids_free(plumb_ids *ids) {
    free(ids->data);
    *ids = (plumb_ids){0};
}

plumb_status plumb_pieces_push(plumb_pieces *p, plumb_piece piece) {
    PLUMB_TRY(plumb_grow(&p->list, &p->capacity, p->count + 1, sizeof *p->list));
    p->list[p->count++] = piece;
    return PLUMB_OK;
}

void plumb_pieces_clear(plumb_pieces *p) {
    p->count = p->text.length = 0;
}

void plumb_pieces_free(plumb_pieces *p) {
    plumb_str_free(&p->text);
    free(p->list);
    *p = (plumb_pieces){0};
}
