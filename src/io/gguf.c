/* GGUF, versions 2 and 3, little endian:
 *
 *     "GGUF" | u32 version | u64 tensors | u64 values
 *     values   text key | u32 type | value          a text is u64 length and bytes; an array u32 type, u64 count, items
 *     tensors  text name | u32 n | u64 size * n | u32 type | u64 offset
 *     padding to general.alignment (32 unless given) | data
 *
 * Everything is read through a cursor that knows how many bytes are left; a count is believed only if that many of the
 * smallest possible items fit into the rest of the file, so memory is bounded by the file's size, whatever the file
 * claims.  Sizes come fastest dimension first and are turned round.  Offsets count from the start of the data, are
 * aligned, and may not overlap; gaps are allowed, as for ggml's Python reader. */
#include "io_internal.h"
#include <stdio.h>
#include <stdlib.h>

enum { KEY_MAX = 65535, DEFAULT_ALIGNMENT = 32, MIN_STRING = 8, MIN_VALUE = 13, MIN_TENSOR = 24 };

static const struct { /* ggml's tensor types: number, name, elements and bytes per block */
    uint32_t number;
    const char *name;
    int64_t block;
    int64_t bytes;
    plumb_file_type type;
} ggml_types[] = {
    {0, "F32", 1, 4, PLUMB_FT_F32},
    {1, "F16", 1, 2, PLUMB_FT_F16},
    {2, "Q4_0", 32, 18, PLUMB_FT_Q4_0},
    {3, "Q4_1", 32, 20, PLUMB_FT_Q4_1},
    {6, "Q5_0", 32, 22, PLUMB_FT_Q5_0},
    {7, "Q5_1", 32, 24, PLUMB_FT_Q5_1},
    {8, "Q8_0", 32, 34, PLUMB_FT_Q8_0},
    {9, "Q8_1", 32, 36, PLUMB_FT_OTHER},
    {10, "Q2_K", 256, 84, PLUMB_FT_OTHER},
    {11, "Q3_K", 256, 110, PLUMB_FT_OTHER},
    {12, "Q4_K", 256, 144, PLUMB_FT_OTHER},
    {13, "Q5_K", 256, 176, PLUMB_FT_OTHER},
    {14, "Q6_K", 256, 210, PLUMB_FT_OTHER},
    {15, "Q8_K", 256, 292, PLUMB_FT_OTHER},
    {16, "IQ2_XXS", 256, 66, PLUMB_FT_OTHER},
    {17, "IQ2_XS", 256, 74, PLUMB_FT_OTHER},
    {18, "IQ3_XXS", 256, 98, PLUMB_FT_OTHER},
    {19, "IQ1_S", 256, 50, PLUMB_FT_OTHER},
    {20, "IQ4_NL", 32, 18, PLUMB_FT_OTHER},
    {21, "IQ3_S", 256, 110, PLUMB_FT_OTHER},
    {22, "IQ2_S", 256, 82, PLUMB_FT_OTHER},
    {23, "IQ4_XS", 256, 136, PLUMB_FT_OTHER},
    {24, "I8", 1, 1, PLUMB_FT_I8},
    {25, "I16", 1, 2, PLUMB_FT_I16},
    {26, "I32", 1, 4, PLUMB_FT_I32},
    {27, "I64", 1, 8, PLUMB_FT_I64},
    {28, "F64", 1, 8, PLUMB_FT_F64},
    {29, "IQ1_M", 256, 56, PLUMB_FT_OTHER},
    {30, "BF16", 1, 2, PLUMB_FT_BF16},
    {34, "TQ1_0", 256, 54, PLUMB_FT_OTHER},
    {35, "TQ2_0", 256, 66, PLUMB_FT_OTHER},
    {39, "MXFP4", 32, 17, PLUMB_FT_OTHER},
    {40, "NVFP4", 64, 36, PLUMB_FT_OTHER},
};
enum { GGML_TYPES = sizeof ggml_types / sizeof *ggml_types };

static const size_t scalar_bytes[] =
    {/* 0: not a scalar */
     [PLUMB_GGUF_U8] = 1,  [PLUMB_GGUF_I8] = 1,  [PLUMB_GGUF_U16] = 2, [PLUMB_GGUF_I16] = 2,
     [PLUMB_GGUF_U32] = 4, [PLUMB_GGUF_I32] = 4, [PLUMB_GGUF_F32] = 4, [PLUMB_GGUF_BOOL] = 1,
     [PLUMB_GGUF_U64] = 8, [PLUMB_GGUF_I64] = 8, [PLUMB_GGUF_F64] = 8};

typedef struct cursor { /* borrows the mapping */
    const uint8_t *data;
    size_t at, size;
    const char *path;
} cursor;

static plumb_status take(cursor *c, uint64_t n, const uint8_t **bytes, const char *what) {
    *bytes = NULL;
    if (n > c->size - c->at)
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: %s at byte %zu needs %llu bytes, the file has %zu more (an incomplete copy?)", c->path,
                           what, c->at, (unsigned long long)n, c->size - c->at);
    *bytes = c->data + c->at;
    c->at += n;
    return PLUMB_OK;
}

static plumb_status take_u32(cursor *c, uint32_t *v, const char *what) {
    const uint8_t *p;
    PLUMB_TRY(take(c, 4, &p, what));
    *v = load_u32(p);
    return PLUMB_OK;
}

/* A count of things of which each takes at least `smallest` bytes of what is left. */
static plumb_status take_count(cursor *c, size_t smallest, int64_t *count, const char *what) {
    const uint8_t *p;
    PLUMB_TRY(take(c, 8, &p, what));
    uint64_t v = load_u64(p);
    if (v > (c->size - c->at) / smallest)
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: %s at byte %zu is %llu, more than fit into the file's remaining %zu bytes", c->path,
                           what, c->at - 8, (unsigned long long)v, c->size - c->at);
    *count = (int64_t)v;
    return PLUMB_OK;
}

static plumb_status take_string(cursor *c, plumb_gguf_string *s, const char *what) {
    const uint8_t *p;
    PLUMB_TRY(take(c, 8, &p, what));
    uint64_t n = load_u64(p);
    PLUMB_TRY(take(c, n, &p, what));
    *s = (plumb_gguf_string){(const char *)p, (size_t)n};
    return PLUMB_OK;
}

/* A key or tensor name: text without NUL, since it becomes a C string. */
static plumb_status take_name(cursor *c, char **name, const char *what) {
    plumb_gguf_string s;
    size_t at = c->at;
    PLUMB_TRY(take_string(c, &s, what));
    if (s.length > KEY_MAX || memchr(s.data, 0, s.length))
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: %s at byte %zu: expected a text of at most %d bytes without NUL, found %zu bytes",
                           c->path, what, at, KEY_MAX, s.length);
    return plumb_io_copy_text(name, s.data, s.length);
}

static void set_integers(plumb_gguf_value *v, int64_t i) {
    v->i = i;
    v->u = (uint64_t)i;
    v->f = (double)i;
}

static plumb_status read_scalar(cursor *c, plumb_gguf_value *v) {
    const uint8_t *p;
    PLUMB_TRY(take(c, scalar_bytes[v->type], &p, v->key));
    float f;
    switch (v->type) {
    case PLUMB_GGUF_U8: set_integers(v, *p); break;
    case PLUMB_GGUF_I8: set_integers(v, (int8_t)*p); break;
    case PLUMB_GGUF_U16: set_integers(v, load_u16(p)); break;
    case PLUMB_GGUF_I16: set_integers(v, (int16_t)load_u16(p)); break;
    case PLUMB_GGUF_U32: set_integers(v, load_u32(p)); break;
    case PLUMB_GGUF_I32: set_integers(v, (int32_t)load_u32(p)); break;
    case PLUMB_GGUF_I64: set_integers(v, (int64_t)load_u64(p)); break;
    case PLUMB_GGUF_U64:
        v->u = load_u64(p);
        v->i = v->u > INT64_MAX ? INT64_MAX : (int64_t)v->u;
        v->f = (double)v->u;
        break;
    case PLUMB_GGUF_F32:
        memcpy(&f, p, sizeof f);
        v->f = (double)f;
        break;
    case PLUMB_GGUF_F64: memcpy(&v->f, p, sizeof v->f); break;
    default: /* BOOL */
        if (*p > 1)
            return plumb_error(PLUMB_E_FORMAT, "%s: key %s: a boolean is %d, expected 0 or 1", c->path, v->key, *p);
        v->b = *p;
        set_integers(v, *p);
    }
    return PLUMB_OK;
}

static plumb_status read_array(cursor *c, plumb_gguf_value *v) {
    uint32_t item;
    PLUMB_TRY(take_u32(c, &item, v->key));
    if (item == PLUMB_GGUF_ARRAY)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: key %s is an array of arrays, which is not supported", c->path,
                           v->key);
    if (item > PLUMB_GGUF_F64)
        return plumb_error(PLUMB_E_FORMAT, "%s: key %s: array items have type %u, expected 0 to 12", c->path, v->key,
                           item);
    v->item = (plumb_gguf_type)item;
    size_t smallest = v->item == PLUMB_GGUF_STRING ? MIN_STRING : scalar_bytes[item];
    PLUMB_TRY(take_count(c, smallest, &v->count, v->key));
    if (v->item != PLUMB_GGUF_STRING) return take(c, (uint64_t)v->count * smallest, &v->items, v->key);
    PLUMB_TRY(plumb_alloc(&v->strings, (size_t)v->count, sizeof *v->strings, v->key));
    for (int64_t i = 0; i < v->count; i++) PLUMB_TRY(take_string(c, &v->strings[i], v->key));
    return PLUMB_OK;
}

static plumb_status read_value(cursor *c, plumb_gguf_value *v) {
    uint32_t type;
    PLUMB_TRY(take_name(c, &v->key, "a metadata key"));
    PLUMB_TRY(take_u32(c, &type, v->key));
    if (type > PLUMB_GGUF_F64)
        return plumb_error(PLUMB_E_FORMAT, "%s: key %s has type %u, expected 0 to 12", c->path, v->key, type);
    v->type = (plumb_gguf_type)type;
    if (v->type == PLUMB_GGUF_ARRAY) return read_array(c, v);
    if (v->type == PLUMB_GGUF_STRING) return take_string(c, &v->s, v->key);
    return read_scalar(c, v);
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(plumb_gguf_value *const *)a)->key, (*(plumb_gguf_value *const *)b)->key);
}

static plumb_status refuse_repeated_keys(const plumb_gguf *g) {
    const plumb_gguf_value **sorted;
    plumb_status status = PLUMB_OK;
    if (g->n_values < 2) return PLUMB_OK;
    PLUMB_TRY(plumb_alloc(&sorted, (size_t)g->n_values, sizeof *sorted, "metadata keys"));
    for (int64_t i = 0; i < g->n_values; i++) sorted[i] = &g->values[i];
    qsort(sorted, (size_t)g->n_values, sizeof *sorted, by_key);
    for (int64_t i = 1; i < g->n_values && status == PLUMB_OK; i++)
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0)
            status = plumb_error(PLUMB_E_FORMAT, "%s: key %s is there twice", g->path, sorted[i]->key);
    free(sorted);
    return status;
}

static plumb_status read_values(cursor *c, plumb_gguf *g, int64_t count) {
    size_t capacity = 0;
    for (int64_t i = 0; i < count; i++) {
        PLUMB_TRY(plumb_grow(&g->values, &capacity, (size_t)i + 1, sizeof *g->values));
        g->values[i] = (plumb_gguf_value){0};
        g->n_values = i + 1;
        PLUMB_TRY(read_value(c, &g->values[i]));
    }
    return refuse_repeated_keys(g);
}

/* Shape, type and bytes; *offset is relative to the start of the data. */
static plumb_status read_tensor(cursor *c, plumb_file_tensor *t, uint64_t *offset) {
    uint32_t n, number;
    const uint8_t *p;
    PLUMB_TRY(take_name(c, &t->name, "a tensor name"));
    PLUMB_TRY(take_u32(c, &n, t->name));
    if (n > 4)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: tensor \"%s\" has %u dimensions; at most 4 are supported", c->path,
                           t->name, n);
    t->n_dims = (int)n;
    PLUMB_TRY(take(c, 8 * (uint64_t)n, &p, t->name));
    for (uint32_t i = 0; i < n; i++) {
        uint64_t size = load_u64(p + 8 * i);
        t->shape[n - 1 - i] = size > INT64_MAX ? -1 : (int64_t)size; /* -1 is refused below */
    }
    PLUMB_TRY(take_u32(c, &number, t->name));
    int k = 0;
    while (k < GGML_TYPES && ggml_types[k].number != number) k++;
    if (k == GGML_TYPES)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: tensor \"%s\" has type number %u, which is not known", c->path,
                           t->name, number);
    t->type = ggml_types[k].type;
    t->type_name = ggml_types[k].name;
    int64_t elements, bytes, row = n ? t->shape[n - 1] : 1;
    if (!plumb_io_count_elements(t->shape, t->n_dims, &elements) ||
        __builtin_mul_overflow(elements / ggml_types[k].block, ggml_types[k].bytes, &bytes))
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\" has a shape too large for any file", c->path, t->name);
    if (row % ggml_types[k].block)
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: tensor \"%s\": rows of %lld elements cannot be stored in %s blocks of %lld", c->path,
                           t->name, (long long)row, t->type_name, (long long)ggml_types[k].block);
    t->bytes = (size_t)bytes;
    PLUMB_TRY(take(c, 8, &p, t->name));
    *offset = load_u64(p);
    return PLUMB_OK;
}

static plumb_status find_alignment(const plumb_gguf *g, uint64_t *alignment) {
    const plumb_gguf_value *v = plumb_gguf_find(g, "general.alignment");
    *alignment = DEFAULT_ALIGNMENT;
    if (!v) return PLUMB_OK;
    if (v->type != PLUMB_GGUF_U32 || v->u == 0 || (v->u & (v->u - 1)))
        return plumb_error(PLUMB_E_FORMAT, "%s: general.alignment: expected a power of two of type u32, found %llu",
                           g->path, (unsigned long long)v->u);
    *alignment = v->u;
    return PLUMB_OK;
}

typedef struct placed {
    const plumb_file_tensor *tensor;
    uint64_t offset;
} placed;

static int by_offset(const void *a, const void *b) {
    const placed *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->tensor->bytes > y->tensor->bytes) - (x->tensor->bytes < y->tensor->bytes); /* empty ones first */
}

static plumb_status refuse_overlaps(placed *places, int64_t count, const char *path) {
    uint64_t end = 0;
    qsort(places, (size_t)count, sizeof *places, by_offset);
    for (int64_t i = 0; i < count; i++) {
        if (!places[i].tensor->bytes) continue;
        if (places[i].offset < end)
            return plumb_error(PLUMB_E_FORMAT,
                               "%s: tensor \"%s\" at byte %llu of the data overlaps another that ends at %llu", path,
                               places[i].tensor->name, (unsigned long long)places[i].offset, (unsigned long long)end);
        end = places[i].offset + places[i].tensor->bytes;
    }
    return PLUMB_OK;
}

static plumb_status place_tensor(plumb_file_tensor *t, uint64_t offset, uint64_t alignment, const cursor *data) {
    if (offset % alignment)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\": offset %llu is not a multiple of %llu", data->path,
                           t->name, (unsigned long long)offset, (unsigned long long)alignment);
    uint64_t room = data->size - data->at;
    if (offset > room || t->bytes > room - offset)
        return plumb_error(
            PLUMB_E_FORMAT,
            "%s: tensor \"%s\" (%zu bytes at %llu) goes beyond the file's %llu bytes of data (an incomplete copy?)",
            data->path, t->name, t->bytes, (unsigned long long)offset, (unsigned long long)room);
    t->data = data->data + data->at + offset;
    return PLUMB_OK;
}

static plumb_status read_tensors(cursor *c, plumb_gguf *g, int64_t count) {
    if (!count) return PLUMB_OK; /* vocabulary files end here, unpadded */
    size_t capacity = 0, place_capacity = 0;
    placed *places = NULL;
    plumb_status status = PLUMB_OK;
    for (int64_t i = 0; i < count && status == PLUMB_OK; i++) {
        status = plumb_grow(&g->tensors, &capacity, (size_t)i + 1, sizeof *g->tensors);
        if (status == PLUMB_OK) status = plumb_grow(&places, &place_capacity, (size_t)i + 1, sizeof *places);
        if (status != PLUMB_OK) break;
        g->tensors[i] = (plumb_file_tensor){0};
        g->count = i + 1;
        status = read_tensor(c, &g->tensors[i], &places[i].offset);
    }
    uint64_t alignment = DEFAULT_ALIGNMENT;
    if (status == PLUMB_OK) status = find_alignment(g, &alignment);
    if (status != PLUMB_OK) goto done;
    const uint8_t *padding;
    status = take(c, (alignment - c->at % alignment) % alignment, &padding, "the padding before the data");
    for (int64_t i = 0; i < count && status == PLUMB_OK; i++) {
        places[i].tensor = &g->tensors[i]; /* not before: the array has moved while it grew */
        status = place_tensor(&g->tensors[i], places[i].offset, alignment, c);
    }
    if (status == PLUMB_OK) status = refuse_overlaps(places, count, g->path);
    if (status == PLUMB_OK) status = plumb_io_sort_tensors(g->tensors, g->count, g->path);
done:
    free(places);
    return status;
}

static plumb_status read_all(cursor *c, plumb_gguf *g) {
    const uint8_t *magic;
    int64_t tensors, values;
    PLUMB_TRY(take(c, 4, &magic, "the file's mark"));
    if (memcmp(magic, "GGUF", 4) != 0) return plumb_error(PLUMB_E_FORMAT, "%s: not a GGUF file", g->path);
    PLUMB_TRY(take_u32(c, &g->version, "the version"));
    if (g->version && !(g->version & 0xffff))
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: a big-endian GGUF file; only little-endian ones are supported",
                           g->path);
    if (g->version != 2 && g->version != 3)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: GGUF version %u; versions 2 and 3 are supported", g->path,
                           g->version);
    /* The counts come before anything they count: check each against the rest of the file. */
    PLUMB_TRY(take_count(c, MIN_TENSOR, &tensors, "the number of tensors"));
    PLUMB_TRY(take_count(c, MIN_VALUE, &values, "the number of metadata values"));
    PLUMB_TRY(read_values(c, g, values));
    return read_tensors(c, g, tensors);
}

plumb_status plumb_gguf_open(plumb_gguf *g, const char *path) {
    *g = (plumb_gguf){0};
    plumb_status status = plumb_io_copy_text(&g->path, path, strlen(path));
    if (status == PLUMB_OK) status = plumb_map_open(&g->map, path);
    if (status == PLUMB_OK) {
        cursor c = {g->map.data, 0, g->map.size, path};
        status = read_all(&c, g);
    }
    if (status != PLUMB_OK) plumb_gguf_close(g);
    return status;
}

void plumb_gguf_close(plumb_gguf *g) {
    for (int64_t i = 0; i < g->n_values; i++) {
        free(g->values[i].key);
        free(g->values[i].strings);
    }
    for (int64_t i = 0; i < g->count; i++) free(g->tensors[i].name);
    free(g->values);
    free(g->tensors);
    free(g->path);
    plumb_map_close(&g->map);
    *g = (plumb_gguf){0};
}

const plumb_gguf_value *plumb_gguf_find(const plumb_gguf *g, const char *key) {
    for (int64_t i = 0; i < g->n_values; i++)
        if (strcmp(g->values[i].key, key) == 0) return &g->values[i];
    return NULL;
}

const plumb_file_tensor *plumb_gguf_tensor(const plumb_gguf *g, const char *name) {
    return plumb_io_find_tensor(g->tensors, g->count, name);
}

bool plumb_is_gguf(const char *path) {
    plumb_map map;
    if (plumb_map_open(&map, path) != PLUMB_OK) return false;
    bool yes = map.size >= 4 && memcmp(map.data, "GGUF", 4) == 0;
    plumb_map_close(&map);
    return yes;
}
