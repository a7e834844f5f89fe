/* One safetensors file:
 *
 *     u64 N | N bytes of JSON | tensor data
 *             {"__metadata__": {text: text}, NAME: {"dtype": "F32", "shape": [2,3], "data_offsets": [begin, end]}, …}
 *
 * The rules are those of the safetensors library (0.8), found by trying it: the header has at most 100,000,000 bytes;
 * offsets count from the end of the header; in order of offset each tensor begins where the one before ended, so there
 * are no gaps and no overlaps; the last ends where the file ends; its bytes are the product of shape and type size;
 * unknown fields of a tensor are ignored.  Two things are stricter here: a name that occurs twice is refused, and so
 * are more than four dimensions. What a set of files looks like from outside is in safetensors_set.c. */
#include "safetensors_internal.h"
#include <stdlib.h>

static const struct {
    const char *name;
    int bits;
    plumb_file_type type;
} dtypes[] = {
    {"F32", 32, PLUMB_FT_F32},          {"BF16", 16, PLUMB_FT_BF16},    {"F16", 16, PLUMB_FT_F16},
    {"F64", 64, PLUMB_FT_F64},          {"I64", 64, PLUMB_FT_I64},      {"I32", 32, PLUMB_FT_I32},
    {"I16", 16, PLUMB_FT_I16},          {"I8", 8, PLUMB_FT_I8},         {"U8", 8, PLUMB_FT_U8},
    {"BOOL", 8, PLUMB_FT_BOOL},         {"U16", 16, PLUMB_FT_OTHER},    {"U32", 32, PLUMB_FT_OTHER},
    {"U64", 64, PLUMB_FT_OTHER},        {"C64", 64, PLUMB_FT_OTHER},    {"F8_E4M3", 8, PLUMB_FT_OTHER},
    {"F8_E5M2", 8, PLUMB_FT_OTHER},     {"F8_E8M0", 8, PLUMB_FT_OTHER}, {"F8_E4M3FNUZ", 8, PLUMB_FT_OTHER},
    {"F8_E5M2FNUZ", 8, PLUMB_FT_OTHER}, {"F6_E2M3", 6, PLUMB_FT_OTHER}, {"F6_E3M2", 6, PLUMB_FT_OTHER},
    {"F4", 4, PLUMB_FT_OTHER},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, HEADER_MAX = 100000000 };

typedef struct extent { /* where a tensor says it lies, relative to the end of the header */
    int64_t begin, end;
    int64_t index; /* into the set's tensors */
} extent;

static int by_extent(const void *a, const void *b) {
    const extent *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static plumb_status refuse(const char *path, const char *name, const char *what) {
    return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\": %s", path, name, what);
}

static plumb_status read_shape(plumb_file_tensor *t, json_t *shape, const char *path) {
    if (!json_is_array(shape)) return refuse(path, t->name, "expected \"shape\": an array of sizes");
    size_t n = json_array_size(shape);
    if (n > 4)
        return plumb_error(PLUMB_E_UNSUPPORTED, "%s: tensor \"%s\" has %zu dimensions; at most 4 are supported", path,
                           t->name, n);
    t->n_dims = (int)n;
    for (size_t i = 0; i < n; i++) {
        json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return refuse(path, t->name, "a size in \"shape\" is not a non-negative integer");
        t->shape[i] = json_integer_value(size);
    }
    return PLUMB_OK;
}

/* Fills type, shape and bytes of t, whose name is set, and its extent. */
static plumb_status read_entry(plumb_file_tensor *t, extent *e, json_t *entry, const char *path) {
    if (!json_is_object(entry)) return refuse(path, t->name, "expected an object with dtype, shape and data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype) return refuse(path, t->name, "expected \"dtype\": a string");
    int d = 0;
    while (d < DTYPES && strcmp(dtypes[d].name, dtype) != 0) d++;
    if (d == DTYPES)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\": \"%s\" is not a type of the safetensors format", path,
                           t->name, dtype);
    t->type = dtypes[d].type;
    t->type_name = dtypes[d].name;
    PLUMB_TRY(read_shape(t, json_object_get(entry, "shape"), path));

    json_t *offsets = json_object_get(entry, "data_offsets");
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return refuse(path, t->name, "expected \"data_offsets\": [begin, end]");
    e->begin = json_integer_value(begin);
    e->end = json_integer_value(end);
    if (e->begin < 0 || e->end < e->begin)
        return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\": data_offsets [%lld, %lld] are not a range", path,
                           t->name, (long long)e->begin, (long long)e->end);
    int64_t bits;
    if (!plumb_io_count_elements(t->shape, t->n_dims, &bits) ||
        __builtin_mul_overflow(bits, (int64_t)dtypes[d].bits, &bits))
        return refuse(path, t->name, "its shape is too large for any file");
    if (bits % 8) return refuse(path, t->name, "it does not end at a byte");
    if (bits / 8 != e->end - e->begin)
        return plumb_error(PLUMB_E_FORMAT,
                           "%s: tensor \"%s\": its shape and type need %lld bytes, its data_offsets give %lld", path,
                           t->name, (long long)(bits / 8), (long long)(e->end - e->begin));
    t->bytes = (size_t)(bits / 8);
    return PLUMB_OK;
}

/* Sets data pointers once every byte is known to belong to exactly one tensor. */
static plumb_status place(plumb_file_tensor *tensors, extent *extents, int64_t count, const uint8_t *data, int64_t size,
                          const char *path) {
    if (count) qsort(extents, (size_t)count, sizeof *extents, by_extent);
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        plumb_file_tensor *t = &tensors[extents[i].index];
        if (extents[i].begin != at)
            return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\" begins at byte %lld of the data, expected %lld: %s",
                               path, t->name, (long long)extents[i].begin, (long long)at,
                               extents[i].begin < at ? "it overlaps another" : "there is a gap before it");
        at = extents[i].end;
        if (at > size)
            return plumb_error(
                PLUMB_E_FORMAT,
                "%s: tensor \"%s\" ends at byte %lld of the data, but the file has only %lld (an incomplete copy?)",
                path, t->name, (long long)at, (long long)size);
        t->data = data + extents[i].begin;
    }
    if (at != size)
        return plumb_error(PLUMB_E_FORMAT, "%s: the tensors end at byte %lld of the data, the file at %lld", path,
                           (long long)at, (long long)size);
    return PLUMB_OK;
}

static plumb_status read_metadata(plumb_safetensors *s, json_t *metadata, const char *path) {
    if (!metadata || json_is_null(metadata)) return PLUMB_OK;
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) return plumb_error(PLUMB_E_FORMAT, "%s: __metadata__ is not an object", path);
    json_object_foreach(metadata, key, value) if (!json_is_string(value)) return plumb_error(
        PLUMB_E_FORMAT, "%s: __metadata__: the value of \"%s\" is not a string", path, key);
    if (!s->metadata) s->metadata = json_incref(metadata);
    return PLUMB_OK;
}

static plumb_status read_entries(safetensors_builder *b, json_t *header, const uint8_t *data, int64_t size,
                                 const char *path) {
    plumb_safetensors *s = b->set;
    int64_t first = s->count, n = 0;
    extent *extents = NULL;
    const char *key;
    json_t *value;
    PLUMB_TRY(plumb_alloc(&extents, json_object_size(header), sizeof *extents, "tensor extents"));
    plumb_status status = read_metadata(s, json_object_get(header, "__metadata__"), path);
    json_object_foreach(header, key, value) {
        if (status != PLUMB_OK) goto done;
        if (strcmp(key, "__metadata__") == 0) continue;
        status = plumb_grow(&s->tensors, &b->capacity, (size_t)s->count + 1, sizeof *s->tensors);
        if (status != PLUMB_OK) goto done;
        plumb_file_tensor *t = &s->tensors[s->count];
        *t = (plumb_file_tensor){0};
        status = plumb_io_copy_text(&t->name, key, strlen(key));
        if (status != PLUMB_OK) goto done;
        extents[n].index = n;
        s->count++; /* from here on the set owns the name */
        status = read_entry(t, &extents[n++], value, path);
    }
    if (status == PLUMB_OK) status = place(n ? s->tensors + first : NULL, extents, n, data, size, path);
done:
    free(extents);
    return status;
}

plumb_status plumb_io_safetensors_add(safetensors_builder *b, const char *path) {
    plumb_safetensors *s = b->set;
    PLUMB_TRY(plumb_grow(&s->maps, &b->map_capacity, (size_t)s->n_maps + 1, sizeof *s->maps));
    plumb_map *map = &s->maps[s->n_maps];
    PLUMB_TRY(plumb_map_open(map, path));
    s->n_maps++;
    if (map->size < 8)
        return plumb_error(PLUMB_E_FORMAT, "%s: has %zu bytes; a safetensors file has at least 8", path, map->size);
    uint64_t n = load_u64(map->data), rest = map->size - 8;
    if (n > HEADER_MAX || n > rest)
        return plumb_error(
            PLUMB_E_FORMAT,
            "%s: not a safetensors file, or an incomplete one: its first 8 bytes announce a header of %llu bytes, "
            "the file has %llu more (at most %d are allowed)",
            path, (unsigned long long)n, (unsigned long long)rest, HEADER_MAX);
    json_t *header;
    const char *text = (const char *)map->data + 8;
    plumb_status status = plumb_json_parse(&header, text, (size_t)n, path, 1);
    if (status != PLUMB_OK) return plumb_error_prefix(status, "safetensors header");
    if (!json_is_object(header))
        status = plumb_error(PLUMB_E_FORMAT, "%s: the safetensors header is not an object", path);
    else
        status = read_entries(b, header, map->data + 8 + n, (int64_t)(rest - n), path);
    json_decref(header);
    return status;
}
