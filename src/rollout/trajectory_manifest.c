/* The manifest of a folder of trajectories: what is committed. It is replaced as a whole, so a reader sees the list before a change or
 * after it. Nothing in it is trusted: its own checksum ends it, names are plain, counts are in range, and no iteration is in two files
 * unless they are those of its writers. */
#include "trajectory_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "trajectory.pb-c.h"

enum { CHECKSUM_FIELD = 15 << 3 | 1, CHECKSUM_BYTES = 9, LIMIT = 512 << 20 }; /* protobuf-c unpacks no message of 2 GiB */

void trajectory_manifest_free(trajectory_manifest *m) {
    for (size_t i = 0; i < m->count; i++) trajectory_entry_free(&m->entries[i]);
    free(m->entries);
    *m = (trajectory_manifest){0};
}

plumb_status trajectory_manifest_add(trajectory_manifest *m, trajectory_entry *e) {
    plumb_status status = plumb_grow(&m->entries, &m->capacity, m->count + 1, sizeof *e);
    if (status == PLUMB_OK)
        m->entries[m->count++] = *e;
    else
        free(e->iterations);
    *e = (trajectory_entry){0};
    return status;
}

/* A name has the first iteration of its file in it, and entries are in that order: a long run has many. */
const trajectory_entry *trajectory_manifest_find(const trajectory_manifest *m, const char *name) {
    long long first;
    size_t low = 0, high = m->count;
    if (sscanf(name, "iteration-%lld", &first) != 1 && sscanf(name, "iterations-%lld", &first) != 1) return NULL;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->entries[middle].iterations[0] < first) low = middle + 1;
        else high = middle;
    }
    for (; low < m->count && m->entries[low].iterations[0] == first; low++)
        if (!strcmp(m->entries[low].name, name)) return &m->entries[low];
    return NULL;
}

/* --- reading ---------------------------------------------------------------------------------- */
static plumb_status check_sum(const uint8_t *bytes, size_t size, const char *path, uint64_t *sum) {
    if (size < CHECKSUM_BYTES || bytes[size - CHECKSUM_BYTES] != CHECKSUM_FIELD)
        return plumb_error(PLUMB_E_FORMAT, "%s: truncated, or no manifest of plumb: it does not end with a checksum", path);
    uint64_t stored = 0;
    for (int i = 7; i >= 0; i--) stored = stored << 8 | bytes[size - 8 + (size_t)i];
    *sum = XXH3_64bits(bytes, size - CHECKSUM_BYTES);
    if (stored == *sum) return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT, "%s: damaged: checksum %016llx, expected %016llx", path, (unsigned long long)*sum,
                       (unsigned long long)stored);
}

static bool plain_name(const char *name) { return name[0] && name[0] != '.' && !strchr(name, '/') && strlen(name) < TRAJECTORY_NAME; }

static plumb_status take_entry(trajectory_manifest *m, const Plumb__TrajectoryFile *f, const char *path) {
    trajectory_entry e = {.n_iterations = (int64_t)f->n_iterations, .sequences = f->sequences, .tokens = f->tokens,
                          .prompt_tokens = f->prompt_tokens, .prompt_text_bytes = f->prompt_text_bytes, .text_bytes = f->text_bytes,
                          .bytes = f->bytes, .checksum = f->checksum, .n_parts = (int)f->n_parts};
    if (!plain_name(f->name)) return plumb_error(PLUMB_E_FORMAT, "%s: \"%.200s\" is not a plain file name", path, f->name);
    if (trajectory_manifest_find(m, f->name)) return plumb_error(PLUMB_E_FORMAT, "%s: %s is listed twice", path, f->name);
    if (f->n_iterations == 0 || f->n_parts > PLUMB_SCORE_PARTS ||
        (f->sequences | f->tokens | f->prompt_tokens | f->prompt_text_bytes | f->text_bytes) < 0) /* a sign in any of them */
        return plumb_error(PLUMB_E_FORMAT, "%s: %s: counts out of range", path, f->name);
    for (size_t i = 0; i < f->n_parts; i++) {
        if (strlen(f->parts[i]) >= PLUMB_PART_NAME)
            return plumb_error(PLUMB_E_FORMAT, "%s: %s: the name of part %zu is too long", path, f->name, i);
        strcpy(e.part_names[i], f->parts[i]);
    }
    const trajectory_entry *before = m->count ? &m->entries[m->count - 1] : NULL;
    int64_t last = before ? before->iterations[before->n_iterations - 1] : -1;
    /* another writer of the same iteration */
    if (before && before->n_iterations == 1 && f->n_iterations == 1 && last == f->iterations[0]) last--;
    for (size_t i = 0; i < f->n_iterations; last = f->iterations[i++])
        if (f->iterations[i] <= last)
            return plumb_error(PLUMB_E_FORMAT, "%s: %s: iteration %lld after iteration %lld", path, f->name, (long long)f->iterations[i],
                               (long long)last);
    strcpy(e.name, f->name);
    PLUMB_TRY(plumb_alloc(&e.iterations, f->n_iterations, sizeof *e.iterations, "a manifest"));
    memcpy(e.iterations, f->iterations, f->n_iterations * sizeof *e.iterations);
    return trajectory_manifest_add(m, &e);
}

plumb_status trajectory_manifest_read(trajectory_manifest *m, const char *dir) {
    *m = (trajectory_manifest){0};
    char *path, *bytes = NULL;
    size_t size;
    Plumb__TrajectoryManifest *message = NULL;
    PLUMB_TRY(plumb_path_join(&path, dir, TRAJECTORY_MANIFEST));
    plumb_status status = PLUMB_OK;
    if (!plumb_path_exists(path)) goto done;
    status = plumb_read_file_max(path, LIMIT, &bytes, &size);
    if (status == PLUMB_OK) status = check_sum((const uint8_t *)bytes, size, path, &m->checksum);
    if (status != PLUMB_OK) goto done;
    message = plumb__trajectory_manifest__unpack(NULL, size, (const uint8_t *)bytes);
    if (!message)
        status = plumb_error(PLUMB_E_FORMAT, "%s: not a manifest of trajectories, or out of memory", path);
    else if (message->version != TRAJECTORY_MANIFEST_VERSION)
        status = plumb_error(PLUMB_E_UNSUPPORTED, "%s: version %u of the format; this program reads version %d", path, message->version,
                             TRAJECTORY_MANIFEST_VERSION);
    for (size_t i = 0; status == PLUMB_OK && i < message->n_files; i++) status = take_entry(m, message->files[i], path);
done:
    if (message) plumb__trajectory_manifest__free_unpacked(message, NULL);
    free(bytes);
    free(path);
    if (status != PLUMB_OK) trajectory_manifest_free(m);
    return status;
}

/* --- writing ---------------------------------------------------------------------------------- */
/* The message borrows everything from the entries. */
typedef struct packing {
    Plumb__TrajectoryManifest message;
    Plumb__TrajectoryFile *files, **pointers;
    char **parts; /* [count][PLUMB_SCORE_PARTS] */
} packing;

static plumb_status prepare(packing *p, const trajectory_manifest *m) {
    plumb__trajectory_manifest__init(&p->message);
    PLUMB_TRY(plumb_alloc(&p->files, m->count, sizeof *p->files, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->pointers, m->count, sizeof *p->pointers, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->parts, m->count, PLUMB_SCORE_PARTS * sizeof *p->parts, "a manifest"));
    p->message.version = TRAJECTORY_MANIFEST_VERSION;
    p->message.n_files = m->count, p->message.files = p->pointers;
    for (size_t i = 0; i < m->count; i++) {
        trajectory_entry *e = &m->entries[i];
        Plumb__TrajectoryFile *f = p->pointers[i] = &p->files[i];
        plumb__trajectory_file__init(f);
        f->name = e->name;
        f->n_iterations = (size_t)e->n_iterations, f->iterations = e->iterations;
        f->sequences = e->sequences, f->tokens = e->tokens, f->prompt_tokens = e->prompt_tokens;
        f->prompt_text_bytes = e->prompt_text_bytes, f->text_bytes = e->text_bytes;
        f->bytes = e->bytes, f->checksum = e->checksum;
        f->n_parts = (size_t)e->n_parts, f->parts = p->parts + i * PLUMB_SCORE_PARTS;
        for (int k = 0; k < e->n_parts; k++) f->parts[k] = e->part_names[k];
    }
    return PLUMB_OK;
}

plumb_status trajectory_manifest_write(const trajectory_manifest *m, const char *dir) {
    packing p = {0};
    uint8_t *bytes = NULL;
    char *path = NULL;
    plumb_status status = prepare(&p, m);
    if (status == PLUMB_OK) status = plumb_path_join(&path, dir, TRAJECTORY_MANIFEST);
    if (status != PLUMB_OK) goto done;
    size_t n = plumb__trajectory_manifest__get_packed_size(&p.message);
    if (n > LIMIT - CHECKSUM_BYTES) {
        status = plumb_error(PLUMB_E_UNSUPPORTED, "%s: %zu bytes: at most %d are supported", path, n, LIMIT);
        goto done;
    }
    status = plumb_alloc(&bytes, n + CHECKSUM_BYTES, 1, "a manifest");
    if (status != PLUMB_OK) goto done;
    plumb__trajectory_manifest__pack(&p.message, bytes);
    uint64_t sum = XXH3_64bits(bytes, n);
    bytes[n] = CHECKSUM_FIELD;
    for (int i = 0; i < 8; i++) bytes[n + 1 + (size_t)i] = (uint8_t)(sum >> (8 * i));
    status = plumb_write_file(path, bytes, n + CHECKSUM_BYTES);
done:
    free(p.files);
    free(p.pointers);
    free(p.parts);
    free(bytes);
    free(path);
    return status;
}
