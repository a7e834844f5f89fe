/* Writing safetensors, byte for byte as the safetensors library writes it, so that a checksum of an exported model
 * means the same whoever wrote it: {"__metadata__":{"format":"pt"}} first, tensors by type (F32, BF16, F16) and then by
 * name, header and data in the same order, the header padded with spaces to a multiple of 8.
 *
 * The header needs shapes only, so the data can stream: one tensor at a time where `fetch` fills a buffer, which is
 * what a model larger than memory needs.  A finite weight that the chosen type cannot hold ends the writing: nothing is
 * left behind. */
#include "io_internal.h"
#include <stdlib.h>

enum { CHUNK = 1 << 14 }; /* elements converted at once */

typedef struct planned { /* an item with its place; items are borrowed */
    const plumb_st_item *item;
    int64_t index, count; /* position in the caller's list; elements */
    size_t bytes;
} planned;

static int rank_of(plumb_file_type t) {
    return t == PLUMB_FT_F32 ? 0 : t == PLUMB_FT_BF16 ? 1 : 2;
}

static int by_type_and_name(const void *a, const void *b) {
    const plumb_st_item *x = ((const planned *)a)->item, *y = ((const planned *)b)->item;
    int order = rank_of(x->type) - rank_of(y->type);
    return order ? order : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const planned *)a)->item->name, ((const planned *)b)->item->name);
}

static bool is_utf8(const char *text) {
    json_t *value = json_string(text);
    bool valid = value != NULL;
    json_decref(value);
    return valid;
}

static plumb_status check_item(planned *p, const char *path, bool fetched) {
    const plumb_st_item *item = p->item;
    if (!item->name || !is_utf8(item->name) || strcmp(item->name, "__metadata__") == 0)
        return plumb_error(PLUMB_E_DATA, "%s: tensor %lld has no usable name", path, (long long)p->index);
    if (item->type != PLUMB_FT_F32 && item->type != PLUMB_FT_BF16 && item->type != PLUMB_FT_F16)
        return plumb_error(PLUMB_E_UNSUPPORTED,
                           "%s: tensor \"%s\" cannot be written as %s; supported are F32, BF16 and F16", path,
                           item->name, plumb_file_type_name(item->type));
    int64_t size = (int64_t)plumb_io_type_size(item->type).bytes, bytes;
    if (item->n_dims < 0 || item->n_dims > 4 || !plumb_io_count_elements(item->shape, item->n_dims, &p->count) ||
        __builtin_mul_overflow(p->count, (int64_t)sizeof(float), &bytes))
        return plumb_error(PLUMB_E_DATA, "%s: tensor \"%s\" has an impossible shape", path, item->name);
    if (p->count && !item->data && !fetched)
        return plumb_error(PLUMB_E_DATA, "%s: tensor \"%s\" has no data", path, item->name);
    p->bytes = (size_t)(p->count * size);
    return PLUMB_OK;
}

static plumb_status check_items(planned *plan, int64_t count, const char *path, bool fetched) {
    for (int64_t i = 0; i < count; i++) PLUMB_TRY(check_item(&plan[i], path, fetched));
    if (count > 1) qsort(plan, (size_t)count, sizeof *plan, by_name);
    for (int64_t i = 1; i < count; i++)
        if (by_name(&plan[i - 1], &plan[i]) == 0)
            return plumb_error(PLUMB_E_DATA, "%s: tensor \"%s\" is given twice", path, plan[i].item->name);
    if (count > 1) qsort(plan, (size_t)count, sizeof *plan, by_type_and_name);
    return PLUMB_OK;
}

static plumb_status append_quoted(plumb_str *out, const char *text) {
    static const char escaped[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    PLUMB_TRY(plumb_str_append(out, "\"", 1));
    for (const char *p = text; *p; p++) {
        const char *known = strchr(escaped, *p);
        if (known)
            PLUMB_TRY(plumb_str_printf(out, "\\%c", letters[known - escaped]));
        else if ((unsigned char)*p < 0x20)
            PLUMB_TRY(plumb_str_printf(out, "\\u%04x", (unsigned char)*p));
        else
            PLUMB_TRY(plumb_str_append(out, p, 1));
    }
    return plumb_str_append(out, "\"", 1);
}

static plumb_status build_header(plumb_str *out, const planned *plan, int64_t count, const char *path) {
    static const char spaces[8] = "       ";
    size_t at = 0;
    PLUMB_TRY(plumb_str_printf(out, "{\"__metadata__\":{\"format\":\"pt\"}"));
    for (int64_t i = 0; i < count; i++) {
        const plumb_st_item *item = plan[i].item;
        PLUMB_TRY(plumb_str_append(out, ",", 1));
        PLUMB_TRY(append_quoted(out, item->name));
        PLUMB_TRY(plumb_str_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", plumb_file_type_name(item->type)));
        for (int d = 0; d < item->n_dims; d++)
            PLUMB_TRY(plumb_str_printf(out, "%s%lld", d ? "," : "", (long long)item->shape[d]));
        size_t end;
        if (__builtin_add_overflow(at, plan[i].bytes, &end) || end > INT64_MAX)
            return plumb_error(PLUMB_E_DATA, "%s: the tensors together are too large for any file", path);
        PLUMB_TRY(plumb_str_printf(out, "],\"data_offsets\":[%zu,%zu]}", at, end));
        at = end;
    }
    PLUMB_TRY(plumb_str_append(out, "}", 1));
    return plumb_str_append(out, spaces, (8 - out->length % 8) % 8);
}

static plumb_status write_tensor(plumb_atomic *f, const planned *p, const float *data, uint16_t *chunk,
                                 const char *path) {
    if (p->item->type == PLUMB_FT_F32) return plumb_atomic_write(f, data, p->bytes);
    bool half = p->item->type == PLUMB_FT_F16;
    for (int64_t at = 0; at < p->count; at += CHUNK) {
        int64_t n = plumb_min64(CHUNK, p->count - at);
        float worst = 0;
        int64_t lost =
            half ? plumb_io_to_f16(data + at, n, chunk, &worst) : plumb_io_to_bf16(data + at, n, chunk, &worst);
        if (lost)
            return plumb_error(PLUMB_E_NUMERIC, "%s: tensor \"%s\" holds %g, which %s cannot represent; write it as %s",
                               path, p->item->name, (double)worst, plumb_file_type_name(p->item->type),
                               half ? "BF16 or F32" : "F32");
        PLUMB_TRY(plumb_atomic_write(f, chunk, (size_t)n * sizeof *chunk));
    }
    return PLUMB_OK;
}

static plumb_status write_all(plumb_atomic *f, const planned *plan, int64_t count, plumb_st_fetch fetch, void *user,
                              const char *path) {
    plumb_str header = {0};
    uint16_t *chunk = NULL;
    float *buffer = NULL;
    int64_t largest = 0;
    for (int64_t i = 0; i < count; i++) largest = plumb_max64(largest, plan[i].count);
    plumb_status status = plumb_alloc(&chunk, CHUNK, sizeof *chunk, "a conversion buffer");
    if (status == PLUMB_OK && fetch)
        status = plumb_alloc(&buffer, (size_t)largest, sizeof *buffer, "the largest tensor");
    if (status == PLUMB_OK) status = build_header(&header, plan, count, path);
    if (status != PLUMB_OK) goto done;
    uint64_t length = header.length;
    status = plumb_atomic_write(f, &length, sizeof length);
    if (status == PLUMB_OK) status = plumb_atomic_write(f, header.data, header.length);
    for (int64_t i = 0; i < count && status == PLUMB_OK; i++) {
        if (!plan[i].count) continue;
        if (fetch) status = fetch(user, plan[i].index, buffer);
        if (status == PLUMB_OK) status = write_tensor(f, &plan[i], fetch ? buffer : plan[i].item->data, chunk, path);
    }
done:
    free(buffer);
    free(chunk);
    plumb_str_free(&header);
    return status;
}

plumb_status plumb_safetensors_write(const char *path, const plumb_st_item *items, int64_t count, plumb_st_fetch fetch,
                                     void *user) {
    planned *plan;
    plumb_atomic *f = NULL;
    PLUMB_TRY(plumb_alloc(&plan, (size_t)count, sizeof *plan, "the list of tensors"));
    for (int64_t i = 0; i < count; i++) plan[i] = (planned){.item = &items[i], .index = i};
    plumb_status status = check_items(plan, count, path, fetch != NULL);
    if (status == PLUMB_OK) status = plumb_atomic_open(&f, path);
    if (status == PLUMB_OK) status = write_all(f, plan, count, fetch, user, path);
    free(plan);
    if (status == PLUMB_OK) return plumb_atomic_commit(f);
    plumb_atomic_abort(f);
    return status;
}
