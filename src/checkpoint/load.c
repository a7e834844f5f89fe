/* Finding, verifying and loading checkpoints, on any number of ranks.
 *
 * The manifest says where every element of every array lies, so a rank takes the ranges it needs from whatever files
 * hold them: the number of ranks that saved does not matter. Files are mapped. Before anything is filled, all shards
 * are compared with their checksums, each by one rank, and the ranks agree: a damaged byte is found also where no rank
 * of this size would have looked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "internal.h"

void ckpt_files_close(ckpt_files *open) {
    for (size_t i = 0; i < open->count; i++) plumb_map_close(&open->items[i].map);
    free(open->items);
    *open = (ckpt_files){0};
}

static plumb_status map_file(ckpt_files *open, const char *folder, const char *name, const plumb_map **map) {
    for (size_t i = open->count; i--;) /* mostly the one used last */
        if (!strcmp(open->items[i].name, name)) {
            *map = &open->items[i].map;
            return PLUMB_OK;
        }
    PLUMB_TRY(plumb_grow(&open->items, &open->capacity, open->count + 1, sizeof *open->items));
    ckpt_file *file = &open->items[open->count];
    char *path;
    PLUMB_TRY(plumb_path_join(&path, folder, name));
    plumb_status status = plumb_map_open(&file->map, path);
    free(path);
    if (status != PLUMB_OK) return status;
    file->name = name;
    open->count++;
    *map = &file->map;
    return PLUMB_OK;
}

plumb_status ckpt_shard_bytes(ckpt_files *open, const char *folder, const ckpt_manifest *m, size_t array,
                              const Plumb__Shard *shard, const uint8_t **bytes, size_t *size) {
    const Plumb__Array *a = m->message->arrays[array];
    const plumb_map *map;
    plumb_status status = map_file(open, folder, shard->file, &map);
    if (status != PLUMB_OK) return plumb_error_prefix(status, "shard of array \"%s\"", a->name);
    uint64_t need = shard->count * a->element_size; /* the sum with the offset was checked with the manifest */
    if (shard->offset + need > map->size)
        return plumb_error(
            PLUMB_E_FORMAT, "%s/%s: truncated: %zu bytes, but elements %llu to %llu of array \"%s\" end at byte %llu",
            folder, shard->file, map->size, (unsigned long long)shard->first,
            (unsigned long long)(shard->first + shard->count), a->name, (unsigned long long)(shard->offset + need));
    *bytes = map->data + shard->offset;
    *size = (size_t)need;
    return PLUMB_OK;
}

/* Shards are dealt out in turn: on as many ranks as saved, and with no empty shards, each rank reads the file of its
 * own number. */
static plumb_status verify_own_shards(const ckpt_manifest *m, const char *folder) {
    ckpt_files open = {0};
    plumb_status status = PLUMB_OK;
    uint64_t turn = 0, size = (uint64_t)plumb_comm_size(PLUMB_AXIS_DATA),
             rank = (uint64_t)plumb_comm_rank(PLUMB_AXIS_DATA);
    for (size_t a = 0; a < m->message->n_arrays && status == PLUMB_OK; a++)
        for (size_t s = m->first_shard[a]; s < m->first_shard[a + 1] && status == PLUMB_OK; s++) {
            if (turn++ % size != rank) continue;
            const uint8_t *bytes;
            size_t n;
            status = ckpt_shard_bytes(&open, folder, m, a, m->shards[s], &bytes, &n);
            if (status != PLUMB_OK) break;
            uint64_t found = XXH3_64bits(bytes, n);
            if (found != m->shards[s]->xxh3)
                status = plumb_error(
                    PLUMB_E_FORMAT,
                    "%s/%s: damaged: elements %llu to %llu of array \"%s\" have checksum %016llx, expected %016llx",
                    folder, m->shards[s]->file, (unsigned long long)m->shards[s]->first,
                    (unsigned long long)(m->shards[s]->first + m->shards[s]->count), m->message->arrays[a]->name,
                    (unsigned long long)found, (unsigned long long)m->shards[s]->xxh3);
        }
    ckpt_files_close(&open);
    return status;
}

plumb_status ckpt_verify_shards(const ckpt_manifest *m, const char *folder) {
    return plumb_comm_agree(PLUMB_AXIS_DATA, verify_own_shards(m, folder));
}

/* --- the newest complete one ------------------------------------------------------------------ */

static plumb_status try_folder(const char *folder, int64_t step) {
    ckpt_manifest m = {0};
    plumb_status status = ckpt_manifest_read(&m, folder);
    if (status == PLUMB_OK && (int64_t)m.message->step != step)
        status = plumb_error(PLUMB_E_FORMAT, "%s: the manifest is of step %llu; was the folder renamed?", folder,
                             (unsigned long long)m.message->step);
    status = plumb_comm_agree(PLUMB_AXIS_DATA, status);
    if (status == PLUMB_OK) status = ckpt_verify_shards(&m, folder);
    ckpt_manifest_free(&m);
    return status;
}

plumb_status plumb_checkpoint_latest(const char *dir, char **path, int64_t *step) {
    *path = NULL;
    if (step) *step = -1;
    int64_t *steps = NULL, count = 0;
    size_t found = 0;
    plumb_status status = PLUMB_OK;
    if (plumb_comm_rank(PLUMB_AXIS_DATA) == 0) status = ckpt_list_steps(dir, &steps, &found);
    status = plumb_comm_agree(PLUMB_AXIS_DATA, status);
    if (status != PLUMB_OK) goto done;
    count = (int64_t)found;
    plumb_comm_bcast(PLUMB_AXIS_DATA, &count, sizeof count, 0);
    for (int64_t i = 0; i < count && !*path; i++) {
        int64_t candidate = steps ? steps[i] : 0;
        plumb_comm_bcast(PLUMB_AXIS_DATA, &candidate, sizeof candidate, 0);
        char *folder;
        status = plumb_comm_agree(PLUMB_AXIS_DATA, ckpt_folder_name(&folder, dir, candidate, false));
        if (status == PLUMB_OK) status = try_folder(folder, candidate);
        if (status == PLUMB_OK) {
            *path = folder;
            if (step) *step = candidate;
            break;
        }
        free(folder);
        if (status == PLUMB_E_MEMORY) break; /* says nothing about the folder */
        if (plumb_comm_rank(PLUMB_AXIS_DATA) == 0)
            fprintf(stderr, "plumb: passing over a checkpoint: %s\n", plumb_error_message());
        status = PLUMB_OK;
    }
done:
    free(steps);
    return status;
}

/* --- loading ---------------------------------------------------------------------------------- */

/* Identities are lists of settings, one a line (or separated by semicolons): the first that differs is what the user
 * wants to see. */
static plumb_status compare_identity(const char *saved, const char *wanted, const char *path) {
    const char *a = saved, *b = wanted;
    if (!strcmp(a, b)) return PLUMB_OK;
    while (*a && *b) {
        size_t n = strcspn(a, "\n;"), m = strcspn(b, "\n;");
        if (n != m || memcmp(a, b, n)) break;
        a += n + (a[n] != 0), b += m + (b[m] != 0);
        while (*a == ' ') a++;
        while (*b == ' ') b++;
    }
    int n = (int)strcspn(a, "\n;"), m = (int)strcspn(b, "\n;");
    return plumb_error(PLUMB_E_CONFIG,
                       "%s: belongs to another run: it has \"%.*s\", this run has \"%.*s\"; give this run another "
                       "folder, the settings of that one, or resume=never",
                       path, n > 300 ? 300 : n, *a ? a : "", m > 300 ? 300 : m, *b ? b : "");
}

static plumb_status check_array(const ckpt_manifest *m, const plumb_ckpt_array *a, size_t *index, const char *path) {
    *index = ckpt_manifest_find(m, a->name);
    if (*index == SIZE_MAX) return plumb_error(PLUMB_E_DATA, "%s: has no array \"%s\"", path, a->name);
    const Plumb__Array *saved = m->message->arrays[*index];
    if (a->total < 0 || saved->count != (uint64_t)a->total || saved->element_size != a->element_size)
        return plumb_error(PLUMB_E_DATA, "%s: array \"%s\" has %llu elements of %u bytes; this run expects %lld of %zu",
                           path, a->name, (unsigned long long)saved->count, saved->element_size, (long long)a->total,
                           a->element_size);
    if (a->first < 0 || a->count < 0 || a->first > a->total || a->count > a->total - a->first)
        return plumb_error(PLUMB_E_DATA,
                           "%s: array \"%s\" of %lld elements: the range of %lld from %lld is out of bounds", path,
                           a->name, (long long)a->total, (long long)a->count, (long long)a->first);
    return PLUMB_OK;
}

static plumb_status fill_array(const ckpt_manifest *m, const char *folder, ckpt_files *open, size_t index,
                               plumb_ckpt_array *a) {
    uint64_t from = (uint64_t)a->first, to = from + (uint64_t)a->count;
    for (size_t s = m->first_shard[index]; s < m->first_shard[index + 1]; s++) {
        const Plumb__Shard *shard = m->shards[s];
        uint64_t low = shard->first > from ? shard->first : from;
        uint64_t high = shard->first + shard->count < to ? shard->first + shard->count : to;
        if (low >= high) continue;
        const uint8_t *bytes;
        size_t n;
        PLUMB_TRY(ckpt_shard_bytes(open, folder, m, index, shard, &bytes, &n));
        memcpy((char *)a->data + (low - from) * a->element_size, bytes + (low - shard->first) * a->element_size,
               (high - low) * a->element_size);
    }
    return PLUMB_OK;
}

static plumb_status check_request(const ckpt_manifest *m, const char *path, const char *identity,
                                  const plumb_ckpt_array *arrays, int n_arrays, size_t *indices,
                                  plumb_ckpt_counter *counters, int n_counters) {
    PLUMB_TRY(compare_identity(m->message->identity, identity, path));
    for (int i = 0; i < n_arrays; i++) PLUMB_TRY(check_array(m, &arrays[i], &indices[i], path));
    for (int i = 0; i < n_counters; i++) {
        const Plumb__Counter *found = NULL;
        for (size_t c = 0; c < m->message->n_counters && !found; c++)
            if (!strcmp(m->message->counters[c]->name, counters[i].name)) found = m->message->counters[c];
        if (!found) return plumb_error(PLUMB_E_DATA, "%s: has no counter \"%s\"", path, counters[i].name);
        counters[i].value = found->value;
    }
    return PLUMB_OK;
}

plumb_status plumb_checkpoint_load(const char *path, const char *identity, plumb_ckpt_array *arrays, int n_arrays,
                                   plumb_ckpt_counter *counters, int n_counters) {
    ckpt_manifest m = {0};
    ckpt_files open = {0};
    size_t *indices = NULL;
    plumb_status status = plumb_alloc(&indices, (size_t)n_arrays, sizeof *indices, "array indices");
    if (status == PLUMB_OK) status = ckpt_manifest_read(&m, path);
    if (status == PLUMB_OK) status = check_request(&m, path, identity, arrays, n_arrays, indices, counters, n_counters);
    status = plumb_comm_agree(PLUMB_AXIS_DATA, status);
    if (status == PLUMB_OK) status = ckpt_verify_shards(&m, path);
    if (status != PLUMB_OK) goto done;
    for (int i = 0; i < n_arrays && status == PLUMB_OK; i++)
        status = fill_array(&m, path, &open, indices[i], &arrays[i]);
    status = plumb_comm_agree(PLUMB_AXIS_DATA, status);
done:
    ckpt_files_close(&open);
    ckpt_manifest_free(&m);
    free(indices);
    return status;
}
