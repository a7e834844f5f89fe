/* Saving: every rank writes one file, rank 0 the manifest, and one rename makes the checkpoint exist.
 *
 *     rank 0: make .step-N.partial      -> agree
 *     all:    write, checksum, fsync    -> agree      (a full disk on one rank is known to all here)
 *     all:    tell where the shards lie
 *     rank 0: manifest, fsync, rename   -> agree
 *
 * A rank that failed keeps quiet until the next agreement point and takes part in it; nothing but the older checkpoints
 * is left then. Killed at any moment, a run leaves a folder whose name begins with a dot: no reader looks at it, and
 * the next save removes it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
#include "internal.h"

enum { WRITE_PIECE = 8 << 20, SHARD_ALIGNMENT = 64, OPEN_TRIES = 50 };

typedef struct shard_place { /* what a rank tells of its part of one array */
    uint64_t offset, first, count, xxh3;
} shard_place;

typedef struct saving { /* one call of plumb_checkpoint_save */
    const plumb_ckpt_array *arrays;
    int n_arrays;
    const plumb_ckpt_counter *counters;
    int n_counters;
    const char *identity;
    int64_t step;
    char *partial, *final; /* folders; owned */
    shard_place *places;   /* [size][n_arrays]; owned */
} saving;

static void shard_file_name(char *name, size_t size, int rank) {
    snprintf(name, size, "shards-%05d.bin", rank);
}

/* --- what must be the same on all ranks ------------------------------------------------------- */

static uint64_t fingerprint(const saving *s) {
    XXH3_state_t *state = XXH3_createState();
    if (!state) return 0;
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, &s->step, sizeof s->step);
    XXH3_64bits_update(state, s->identity, strlen(s->identity) + 1);
    for (int i = 0; i < s->n_arrays; i++) {
        XXH3_64bits_update(state, s->arrays[i].name, strlen(s->arrays[i].name) + 1);
        XXH3_64bits_update(state, &s->arrays[i].total, sizeof s->arrays[i].total);
        XXH3_64bits_update(state, &s->arrays[i].element_size, sizeof s->arrays[i].element_size);
    }
    for (int i = 0; i < s->n_counters; i++) {
        XXH3_64bits_update(state, s->counters[i].name, strlen(s->counters[i].name) + 1);
        XXH3_64bits_update(state, &s->counters[i].value, sizeof s->counters[i].value);
    }
    uint64_t sum = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return sum;
}

static plumb_status check_arguments(const saving *s, int keep) {
    if (s->step < 0 || s->step > 999999999999999999)
        return plumb_error(PLUMB_E_CONFIG, "cannot save a checkpoint of step %lld: steps count from 0",
                           (long long)s->step);
    if (keep < 0) return plumb_error(PLUMB_E_CONFIG, "cannot keep %d checkpoints", keep);
    return PLUMB_OK;
}

/* Collective. After this, n_arrays is the same everywhere, which the gather of places needs. */
static plumb_status compare_with_rank_0(const saving *s) {
    uint64_t mine = fingerprint(s), first = mine;
    plumb_comm_bcast(PLUMB_AXIS_DATA, &first, sizeof first, 0);
    if (mine == first) return PLUMB_OK;
    return plumb_error(PLUMB_E_DATA,
                       "cannot save a checkpoint of step %lld: this rank brings other arrays, counters, identity or "
                       "another step than rank 0",
                       (long long)s->step);
}

/* --- the file of this rank -------------------------------------------------------------------- */

static plumb_status write_all(int fd, const char *bytes, size_t n, const char *path) {
    while (n) {
        ssize_t done = write(fd, bytes, n < WRITE_PIECE ? n : WRITE_PIECE);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0) errno = ENOSPC;
        if (done <= 0) return plumb_error(PLUMB_E_IO, "%s: cannot write: %m", path);
        bytes += done, n -= (size_t)done;
    }
    return PLUMB_OK;
}

/* The folder was made by rank 0, perhaps on another node: a network file system may need a moment to show it here. */
static int open_new(const char *path) {
    for (int i = 0;; i++) {
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || (errno != ENOENT && errno != ESTALE) || i >= OPEN_TRIES) return fd;
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
}

static plumb_status write_shards(const saving *s, shard_place *places) {
    static const char zeros[SHARD_ALIGNMENT];
    char name[32], *path;
    shard_file_name(name, sizeof name, plumb_comm_rank(PLUMB_AXIS_DATA));
    PLUMB_TRY(plumb_path_join(&path, s->partial, name));
    plumb_status status = PLUMB_OK;
    uint64_t offset = 0;
    int fd = open_new(path);
    if (fd < 0) status = plumb_error(PLUMB_E_IO, "%s: cannot create: %m", path);
    for (int i = 0; i < s->n_arrays && status == PLUMB_OK; i++) {
        const plumb_ckpt_array *a = &s->arrays[i];
        if (a->count < 0 || a->first < 0 || !a->element_size ||
            (uint64_t)a->count > (uint64_t)INT64_MAX / a->element_size) {
            status = plumb_error(PLUMB_E_DATA, "cannot save array \"%s\": %lld elements of %zu bytes from %lld",
                                 a->name, (long long)a->count, a->element_size, (long long)a->first);
            break;
        }
        size_t bytes = (size_t)a->count * a->element_size,
               padding = (SHARD_ALIGNMENT - bytes % SHARD_ALIGNMENT) % SHARD_ALIGNMENT;
        places[i] = (shard_place){offset, (uint64_t)a->first, (uint64_t)a->count, XXH3_64bits(a->data, bytes)};
        status = write_all(fd, a->data, bytes, path);
        if (status == PLUMB_OK) status = write_all(fd, zeros, padding, path);
        offset += bytes + padding;
    }
    if (status == PLUMB_OK && fsync(fd)) status = plumb_error(PLUMB_E_IO, "%s: cannot flush to disk: %m", path);
    if (fd >= 0 && close(fd) && status == PLUMB_OK) status = plumb_error(PLUMB_E_IO, "%s: cannot close: %m", path);
    free(path);
    return status;
}

/* --- rank 0 ----------------------------------------------------------------------------------- */

static plumb_status prepare_folder(const saving *s, const char *dir) {
    PLUMB_TRY(plumb_make_dirs(dir));
    PLUMB_TRY(ckpt_clean(dir));
    return plumb_make_dirs(s->partial);
}

typedef struct manifest_parts { /* the message is built of these; strings are borrowed */
    Plumb__Manifest message;
    Plumb__Array *arrays;
    Plumb__Counter *counters;
    Plumb__Shard *shards;
    char (*files)[32];
} manifest_parts;

static void free_parts(manifest_parts *p) {
    free(p->arrays), free(p->counters), free(p->shards), free(p->files);
    free(p->message.arrays), free(p->message.counters), free(p->message.shards);
}

/* protobuf-c has no const in its messages; nothing is changed through these. */
static char *unconst(const char *text) {
    return (char *)(uintptr_t)text;
}

static plumb_status build_message(manifest_parts *p, const saving *s, int size) {
    size_t arrays = (size_t)s->n_arrays, counters = (size_t)s->n_counters, most = arrays * (size_t)size;
    *p = (manifest_parts){.message = PLUMB__MANIFEST__INIT};
    PLUMB_TRY(plumb_alloc(&p->arrays, arrays, sizeof *p->arrays, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->counters, counters, sizeof *p->counters, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->shards, most, sizeof *p->shards, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->files, (size_t)size, sizeof *p->files, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->message.arrays, arrays, sizeof *p->message.arrays, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->message.counters, counters, sizeof *p->message.counters, "a manifest"));
    PLUMB_TRY(plumb_alloc(&p->message.shards, most, sizeof *p->message.shards, "a manifest"));
    Plumb__Manifest *m = &p->message;
    m->version = CKPT_VERSION;
    m->program = unconst("plumb " PLUMB_VERSION);
    m->identity = unconst(s->identity);
    m->step = (uint64_t)s->step;
    m->n_arrays = arrays, m->n_counters = counters;
    for (size_t i = 0; i < counters; i++) {
        p->counters[i] = (Plumb__Counter)PLUMB__COUNTER__INIT;
        p->counters[i].name = unconst(s->counters[i].name);
        p->counters[i].value = s->counters[i].value;
        m->counters[i] = &p->counters[i];
    }
    for (int r = 0; r < size; r++) shard_file_name(p->files[r], sizeof p->files[r], r);
    for (size_t i = 0; i < arrays; i++) {
        p->arrays[i] = (Plumb__Array)PLUMB__ARRAY__INIT;
        p->arrays[i].name = unconst(s->arrays[i].name);
        p->arrays[i].count = (uint64_t)s->arrays[i].total;
        p->arrays[i].element_size = (uint32_t)s->arrays[i].element_size;
        m->arrays[i] = &p->arrays[i];
        for (int r = 0; r < size; r++) {
            const shard_place *place = &s->places[(size_t)r * arrays + i];
            if (!place->count) continue;
            Plumb__Shard *shard = &p->shards[m->n_shards];
            *shard = (Plumb__Shard)PLUMB__SHARD__INIT;
            shard->array = unconst(s->arrays[i].name);
            shard->file = p->files[r];
            shard->offset = place->offset, shard->first = place->first, shard->count = place->count,
            shard->xxh3 = place->xxh3;
            m->shards[m->n_shards++] = shard;
        }
    }
    return PLUMB_OK;
}

static plumb_status write_manifest(const saving *s) {
    manifest_parts parts = {0};
    ckpt_manifest checked = {0};
    uint8_t *bytes = NULL;
    char *path = NULL;
    size_t n = 0;
    plumb_status status = build_message(&parts, s, plumb_comm_size(PLUMB_AXIS_DATA));
    if (status != PLUMB_OK) goto done;
    checked.message = &parts.message; /* the reader's own check: ranges that overlap or leave holes are found before
                                         they are written */
    status = ckpt_manifest_index(&checked, "cannot save a checkpoint");
    checked.message = NULL;
    if (status == PLUMB_OK) status = ckpt_manifest_pack(&parts.message, &bytes, &n);
    if (status == PLUMB_OK) status = plumb_path_join(&path, s->partial, CKPT_MANIFEST);
    if (status == PLUMB_OK) status = plumb_write_file(path, bytes, n);
done:
    free(path);
    free(bytes);
    ckpt_manifest_free(&checked);
    free_parts(&parts);
    return status;
}

static plumb_status publish(const saving *s, const char *dir) {
    PLUMB_TRY(write_manifest(s));
    PLUMB_TRY(ckpt_sync_folder(s->partial));
    PLUMB_TRY(ckpt_replace_folder(s->partial, s->final));
    return ckpt_sync_folder(dir);
}

/* Removes what a failed save left; the message of that failure stays the recorded one. */
static void discard(const saving *s, plumb_status failure) {
    char message[1024];
    snprintf(message, sizeof message, "%s", plumb_error_message());
    if (ckpt_remove_folder(s->partial) != PLUMB_OK)
        fprintf(stderr, "plumb: left behind by a failed save: %s\n", plumb_error_message());
    plumb_error(failure, "%s", message);
}

plumb_status plumb_checkpoint_save(const char *dir, int64_t step, const char *identity, const plumb_ckpt_array *arrays,
                                   int n_arrays, const plumb_ckpt_counter *counters, int n_counters, int keep) {
    saving s = {.arrays = arrays,
                .n_arrays = n_arrays,
                .counters = counters,
                .n_counters = n_counters,
                .identity = identity,
                .step = step};
    shard_place *mine = NULL;
    bool first = plumb_comm_rank(PLUMB_AXIS_DATA) == 0, made = false;
    size_t size = (size_t)plumb_comm_size(PLUMB_AXIS_DATA);
    plumb_status status = compare_with_rank_0(&s);
    if (status == PLUMB_OK) status = check_arguments(&s, keep);
    if (status == PLUMB_OK) status = ckpt_folder_name(&s.partial, dir, step, true);
    if (status == PLUMB_OK) status = ckpt_folder_name(&s.final, dir, step, false);
    if (status == PLUMB_OK) status = plumb_alloc(&mine, (size_t)n_arrays, sizeof *mine, "shards");
    if (status == PLUMB_OK) status = plumb_alloc(&s.places, (size_t)n_arrays * size, sizeof *mine, "shards");
    status = plumb_comm_agree(PLUMB_AXIS_DATA, status);
    if (status == PLUMB_OK)
        status = plumb_comm_agree(PLUMB_AXIS_DATA, first ? prepare_folder(&s, dir) : PLUMB_OK), made = true;
    if (status == PLUMB_OK) status = plumb_comm_agree(PLUMB_AXIS_DATA, write_shards(&s, mine));
    if (status == PLUMB_OK) {
        plumb_comm_allgather(PLUMB_AXIS_DATA, mine, (size_t)n_arrays * sizeof *mine, s.places);
        status = plumb_comm_agree(PLUMB_AXIS_DATA, first ? publish(&s, dir) : PLUMB_OK);
    }
    if (first && made && status != PLUMB_OK) discard(&s, status);
    if (first && status == PLUMB_OK && keep > 0 && ckpt_prune(dir, step, keep) != PLUMB_OK)
        fprintf(stderr, "plumb: the checkpoint is saved, but an older one could not be removed: %s\n",
                plumb_error_message());
    free(s.partial);
    free(s.final);
    free(s.places);
    free(mine);
    return status;
}
