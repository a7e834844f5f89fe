/* The manifest: protobuf, written last and read first. It is small and trusted by nobody: its own checksum stands in
 * its last nine bytes, and every count, name and range is checked before it is used. protobuf-c unpacks no message of 2
 * GiB or more, so the size is capped well below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "internal.h"

enum { CHECKSUM_FIELD = 15 << 3 | 1, CHECKSUM_BYTES = 9, MANIFEST_LIMIT = 512 << 20 };

plumb_status ckpt_manifest_pack(Plumb__Manifest *message, uint8_t **bytes, size_t *size) {
    message->xxh3 = 0; /* zero is not written in proto3; the field is appended below */
    size_t n = plumb__manifest__get_packed_size(message);
    if (n > MANIFEST_LIMIT - CHECKSUM_BYTES)
        return plumb_error(PLUMB_E_UNSUPPORTED, "a manifest of %zu bytes: at most %d are supported", n, MANIFEST_LIMIT);
    PLUMB_TRY(plumb_alloc(bytes, n + CHECKSUM_BYTES, 1, "a manifest"));
    plumb__manifest__pack(message, *bytes);
    uint64_t sum = XXH3_64bits(*bytes, n);
    (*bytes)[n] = CHECKSUM_FIELD;
    for (int i = 0; i < 8; i++) (*bytes)[n + 1 + (size_t)i] = (uint8_t)(sum >> (8 * i));
    *size = n + CHECKSUM_BYTES;
    return PLUMB_OK;
}

static plumb_status check_sum(const uint8_t *bytes, size_t size, const char *path) {
    if (size > MANIFEST_LIMIT)
        return plumb_error(PLUMB_E_FORMAT, "%s: %zu bytes; a manifest has at most %d", path, size, MANIFEST_LIMIT);
    if (size < CHECKSUM_BYTES || bytes[size - CHECKSUM_BYTES] != CHECKSUM_FIELD)
        return plumb_error(PLUMB_E_FORMAT, "%s: truncated, or no manifest of plumb: it does not end with a checksum",
                           path);
    uint64_t stored = 0;
    for (int i = 7; i >= 0; i--) stored = stored << 8 | bytes[size - 8 + (size_t)i];
    uint64_t found = XXH3_64bits(bytes, size - CHECKSUM_BYTES);
    if (stored != found)
        return plumb_error(PLUMB_E_FORMAT, "%s: damaged: checksum %016llx, expected %016llx", path,
                           (unsigned long long)found, (unsigned long long)stored);
    return PLUMB_OK;
}

typedef struct placed { /* a shard and the index of its array, for sorting */
    size_t array;
    Plumb__Shard *shard;
} placed;

static int by_array_and_first(const void *a, const void *b) {
    const placed *x = a, *y = b;
    if (x->array != y->array) return x->array < y->array ? -1 : 1;
    return (x->shard->first > y->shard->first) - (x->shard->first < y->shard->first);
}

typedef struct named {
    const char *name;
    size_t index;
} named;
static int by_name(const void *a, const void *b) {
    return strcmp(((const named *)a)->name, ((const named *)b)->name);
}

/* A file's name, and nothing that leads out of the folder. */
static bool plain_name(const char *name) {
    return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < 200;
}

static plumb_status check_cover(const ckpt_manifest *m, size_t array, const char *where) {
    const Plumb__Array *a = m->message->arrays[array];
    uint64_t next = 0;
    for (size_t s = m->first_shard[array]; s < m->first_shard[array + 1]; s++) {
        const Plumb__Shard *shard = m->shards[s];
        if (shard->first != next || shard->count > a->count - next || shard->count == 0)
            return plumb_error(
                PLUMB_E_FORMAT,
                "%s: array \"%s\" of %llu elements: a shard in %s has elements %llu to %llu, expected the next at %llu",
                where, a->name, (unsigned long long)a->count, shard->file, (unsigned long long)shard->first,
                (unsigned long long)(shard->first + shard->count), (unsigned long long)next);
        if (shard->offset > (uint64_t)INT64_MAX - shard->count * a->element_size)
            return plumb_error(PLUMB_E_FORMAT, "%s: array \"%s\": offset %llu in %s is out of range", where, a->name,
                               (unsigned long long)shard->offset, shard->file);
        next += shard->count;
    }
    if (next != a->count)
        return plumb_error(PLUMB_E_FORMAT, "%s: array \"%s\": shards hold %llu of %llu elements", where, a->name,
                           (unsigned long long)next, (unsigned long long)a->count);
    return PLUMB_OK;
}

plumb_status ckpt_manifest_index(ckpt_manifest *m, const char *where) {
    const Plumb__Manifest *p = m->message;
    named *names = NULL;
    placed *order = NULL;
    plumb_status status = plumb_alloc(&names, p->n_arrays, sizeof *names, "array names");
    if (status == PLUMB_OK) status = plumb_alloc(&order, p->n_shards, sizeof *order, "shards");
    if (status == PLUMB_OK) status = plumb_alloc(&m->shards, p->n_shards, sizeof *m->shards, "shards");
    if (status == PLUMB_OK) status = plumb_alloc(&m->first_shard, p->n_arrays + 1, sizeof *m->first_shard, "shards");
    for (size_t i = 0; i < p->n_arrays && status == PLUMB_OK; i++) {
        const Plumb__Array *a = p->arrays[i];
        names[i] = (named){a->name, i};
        if (!a->name[0] || !a->element_size || a->count > (uint64_t)INT64_MAX / a->element_size)
            status = plumb_error(PLUMB_E_FORMAT, "%s: array \"%s\": %llu elements of %u bytes are out of range", where,
                                 a->name, (unsigned long long)a->count, a->element_size);
    }
    if (status == PLUMB_OK && p->n_arrays) qsort(names, p->n_arrays, sizeof *names, by_name);
    for (size_t i = 1; i < p->n_arrays && status == PLUMB_OK; i++)
        if (!strcmp(names[i - 1].name, names[i].name))
            status = plumb_error(PLUMB_E_FORMAT, "%s: array \"%s\" is there twice", where, names[i].name);
    for (size_t s = 0; s < p->n_shards && status == PLUMB_OK; s++) {
        Plumb__Shard *shard = p->shards[s];
        const named *found =
            p->n_arrays ? bsearch(&(named){shard->array, 0}, names, p->n_arrays, sizeof *names, by_name) : NULL;
        if (!found)
            status =
                plumb_error(PLUMB_E_FORMAT, "%s: a shard of array \"%s\", which is not listed", where, shard->array);
        else if (!plain_name(shard->file))
            status = plumb_error(PLUMB_E_FORMAT, "%s: a shard in file \"%.200s\": not a plain file name", where,
                                 shard->file);
        else
            order[s] = (placed){found->index, shard};
    }
    if (status != PLUMB_OK) goto done;
    if (p->n_shards) qsort(order, p->n_shards, sizeof *order, by_array_and_first);
    for (size_t s = 0; s < p->n_shards; s++) {
        m->shards[s] = order[s].shard;
        m->first_shard[order[s].array + 1] = s + 1;
    }
    for (size_t i = 0; i < p->n_arrays; i++) /* an array without elements has no shards */
        if (m->first_shard[i + 1] < m->first_shard[i]) m->first_shard[i + 1] = m->first_shard[i];
    for (size_t i = 0; i < p->n_arrays && status == PLUMB_OK; i++) status = check_cover(m, i, where);
done:
    free(names);
    free(order);
    return status;
}

size_t ckpt_manifest_find(const ckpt_manifest *m, const char *array) {
    for (size_t i = 0; i < m->message->n_arrays; i++)
        if (!strcmp(m->message->arrays[i]->name, array)) return i;
    return SIZE_MAX;
}

plumb_status ckpt_manifest_read(ckpt_manifest *m, const char *folder) {
    *m = (ckpt_manifest){0};
    char *path = NULL;
    plumb_map map = {0};
    plumb_status status = plumb_path_join(&path, folder, CKPT_MANIFEST);
    if (status == PLUMB_OK) status = plumb_map_open(&map, path);
    if (status == PLUMB_OK) status = check_sum(map.data, map.size, path);
    if (status != PLUMB_OK) goto done;
    m->message = plumb__manifest__unpack(NULL, map.size, map.data);
    if (!m->message)
        status = plumb_error(PLUMB_E_FORMAT, "%s: not a manifest of plumb, or out of memory", path);
    else if (m->message->version != CKPT_VERSION)
        status = plumb_error(PLUMB_E_UNSUPPORTED,
                             "%s: version %u of the format, written by \"%s\"; this program reads version %d", path,
                             m->message->version, m->message->program, CKPT_VERSION);
    else if (m->message->step > (uint64_t)INT64_MAX)
        status =
            plumb_error(PLUMB_E_FORMAT, "%s: step %llu is out of range", path, (unsigned long long)m->message->step);
    else
        status = ckpt_manifest_index(m, path);
done:
    plumb_map_close(&map);
    free(path);
    if (status != PLUMB_OK) ckpt_manifest_free(m);
    return status;
}

void ckpt_manifest_free(ckpt_manifest *m) {
    if (m->message) plumb__manifest__free_unpacked(m->message, NULL);
    free(m->shards);
    free(m->first_shard);
    *m = (ckpt_manifest){0};
}
