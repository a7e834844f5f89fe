/* Reading a folder of trajectories by its manifest, beside a run that may be writing to it.
 *
 * What the manifest lists is there at the moment it is read; a moment later a compaction may have removed a part, after it wrote the
 * manifest anew. So when a file is not as listed, the manifest is read again; only when it is the same one as before
 * is the file at fault.
 *
 * Files are read, not mapped: on a network file system a mapped file that another node removes kills the reader. */
#include "trajectory_internal.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { TRIES = 100 }; /* of manifests that change faster than files are read */

struct plumb_trajectory_reader {
    char *dir;
    trajectory_manifest manifest;
    plumb_hdf5 *file; /* the one used last, or NULL */
    char name[TRAJECTORY_NAME];
    uint64_t checksum; /* of it */
};

/* --- files ------------------------------------------------------------------------------------ */
static plumb_status open_file(plumb_hdf5 **f, const char *dir, const char *name, const trajectory_entry *listed, uint64_t *size,
                              uint64_t *checksum) {
    char *path, *bytes = NULL;
    size_t n;
    *f = NULL;
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    plumb_status status = plumb_read_file(path, &bytes, &n);
    if (status != PLUMB_OK) goto done;
    *size = n, *checksum = XXH3_64bits(bytes, n);
    if (listed && (n != listed->bytes || *checksum != listed->checksum))
        status = plumb_error(PLUMB_E_FORMAT, "%s: %zu bytes with checksum %016llx; the manifest says %llu bytes with %016llx", path, n,
                             (unsigned long long)*checksum, (unsigned long long)listed->bytes, (unsigned long long)listed->checksum);
    if (status == PLUMB_OK && !listed) status = trajectory_check_seal(path, (const uint8_t *)bytes, n);
    if (status == PLUMB_OK) status = plumb_hdf5_open(f, bytes, n, path);
done:
    free(bytes);
    free(path);
    return status;
}

plumb_status trajectory_open_listed(plumb_hdf5 **f, const char *dir, const trajectory_entry *e) {
    uint64_t size, checksum;
    return open_file(f, dir, e->name, e, &size, &checksum);
}

plumb_status trajectory_open_new(plumb_hdf5 **f, const char *dir, const char *name, trajectory_entry *e) {
    *e = (trajectory_entry){0};
    uint64_t size, checksum;
    PLUMB_TRY(open_file(f, dir, name, NULL, &size, &checksum));
    plumb_status status = trajectory_describe(*f, name, e);
    if (status == PLUMB_OK) {
        strcpy(e->name, name);
        e->bytes = size, e->checksum = checksum;
        return PLUMB_OK;
    }
    plumb_hdf5_close(*f);
    *f = NULL;
    return status;
}

/* --- iterations ------------------------------------------------------------------------------- */
plumb_status plumb_trajectory_reader_open(plumb_trajectory_reader **out, const char *dir) {
    plumb_trajectory_reader *r;
    *out = NULL;
    PLUMB_TRY(plumb_alloc(&r, 1, sizeof *r, "a reader"));
    plumb_status status = plumb_path_join(&r->dir, dir, "");
    if (status == PLUMB_OK) status = trajectory_manifest_read(&r->manifest, dir);
    if (status == PLUMB_OK)
        *out = r;
    else
        plumb_trajectory_reader_close(r);
    return status;
}

void plumb_trajectory_reader_close(plumb_trajectory_reader *r) {
    if (!r) return;
    plumb_hdf5_close(r->file);
    trajectory_manifest_free(&r->manifest);
    free(r->dir);
    free(r);
}

bool trajectory_has_iteration(const trajectory_entry *e, int64_t iteration) {
    for (int64_t i = 0; i < e->n_iterations; i++)
        if (e->iterations[i] == iteration) return true;
    return false;
}

static plumb_status read_part(plumb_trajectory_reader *r, const trajectory_entry *e, int64_t iteration, plumb_trajectories *out) {
    if (!r->file || strcmp(r->name, e->name) || r->checksum != e->checksum) {
        plumb_hdf5_close(r->file);
        r->file = NULL;
        PLUMB_TRY(trajectory_open_listed(&r->file, r->dir, e));
        strcpy(r->name, e->name);
        r->checksum = e->checksum;
    }
    return trajectory_decode(r->file, e->name, iteration, out);
}

/* All parts of an iteration by the manifest that the reader has. */
static plumb_status read_listed(plumb_trajectory_reader *r, int64_t iteration, plumb_trajectories *out) {
    size_t first = 0, n = 0, done = 0;
    while (first < r->manifest.count && !trajectory_has_iteration(&r->manifest.entries[first], iteration)) first++;
    while (first + n < r->manifest.count && trajectory_has_iteration(&r->manifest.entries[first + n], iteration)) n++;
    if (n == 0) return plumb_error(PLUMB_E_DATA, "%s: iteration %lld is not among the committed ones", r->dir, (long long)iteration);
    plumb_trajectories *parts;
    PLUMB_TRY(plumb_alloc(&parts, n, sizeof *parts, "trajectories"));
    plumb_status status = PLUMB_OK;
    while (done < n && status == PLUMB_OK) {
        status = read_part(r, &r->manifest.entries[first + done], iteration, &parts[done]);
        if (status == PLUMB_OK && !trajectory_same_parts(&parts[done], &parts[0]))
            status = plumb_error(PLUMB_E_FORMAT, "%s%s: other parts of the score than the files of other writers", r->dir,
                                 r->manifest.entries[first + done].name);
        done++;
    }
    if (status == PLUMB_OK && n == 1) {
        *out = parts[0];
        parts[0] = (plumb_trajectories){0};
    } else if (status == PLUMB_OK) {
        status = trajectory_join(out, parts, (int64_t)n);
    }
    for (size_t i = 0; i < done; i++) plumb_trajectories_free(&parts[i]);
    free(parts);
    return status;
}

/* Reads the manifest again; *same: it is the one that the reader had. */
static plumb_status reload(plumb_trajectory_reader *r, bool *same) {
    trajectory_manifest fresh;
    PLUMB_TRY(trajectory_manifest_read(&fresh, r->dir));
    *same = fresh.checksum == r->manifest.checksum;
    trajectory_manifest_free(&r->manifest);
    r->manifest = fresh;
    return PLUMB_OK;
}

plumb_status plumb_trajectory_reader_read(plumb_trajectory_reader *r, int64_t iteration, plumb_trajectories *out) {
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < TRIES; i++) {
        bool same = false;
        *out = (plumb_trajectories){0};
        status = read_listed(r, iteration, out);
        if (status == PLUMB_OK || status == PLUMB_E_MEMORY) return status;
        PLUMB_TRY(reload(r, &same));
        if (same) return read_listed(r, iteration, out); /* once more, for its message */
    }
    return status;
}

plumb_status plumb_trajectories_read(const char *dir, int64_t iteration, plumb_trajectories *out) {
    plumb_trajectory_reader *r;
    *out = (plumb_trajectories){0};
    PLUMB_TRY(plumb_trajectory_reader_open(&r, dir));
    plumb_status status = plumb_trajectory_reader_read(r, iteration, out);
    plumb_trajectory_reader_close(r);
    return status;
}

plumb_status plumb_trajectories_list(const char *dir, int64_t **list, int64_t *count) {
    trajectory_manifest m;
    size_t n = 0;
    *list = NULL, *count = 0;
    PLUMB_TRY(trajectory_manifest_read(&m, dir));
    for (size_t i = 0; i < m.count; i++) n += (size_t)m.entries[i].n_iterations;
    plumb_status status = plumb_alloc(list, n, sizeof **list, "iterations");
    for (size_t i = 0; i < m.count && status == PLUMB_OK; i++)
        for (int64_t k = 0; k < m.entries[i].n_iterations; k++) {
            int64_t iteration = m.entries[i].iterations[k];
            if (*count == 0 || (*list)[*count - 1] != iteration) (*list)[(*count)++] = iteration;
        }
    trajectory_manifest_free(&m);
    return status;
}

/* --- verification ----------------------------------------------------------------------------- */
static plumb_status compare(const char *dir, const trajectory_entry *e, int64_t listed, int64_t found, const char *what) {
    if (listed == found) return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT, "%s/%s: %lld %s, the manifest says %lld", dir, e->name, (long long)found, what, (long long)listed);
}

/* Everything of a file: its checksum, its counts, and every array of every iteration. */
static plumb_status verify_file(const char *dir, const trajectory_entry *e) {
    plumb_hdf5 *f;
    trajectory_entry found = {0};
    PLUMB_TRY(trajectory_open_listed(&f, dir, e));
    plumb_status status = trajectory_describe(f, e->name, &found);
    if (status == PLUMB_OK) status = compare(dir, e, e->sequences, found.sequences, "sequences");
    if (status == PLUMB_OK) status = compare(dir, e, e->tokens, found.tokens, "tokens");
    if (status == PLUMB_OK) status = compare(dir, e, e->prompt_tokens, found.prompt_tokens, "tokens of prompts");
    if (status == PLUMB_OK) status = compare(dir, e, e->prompt_text_bytes, found.prompt_text_bytes, "bytes of prompts");
    if (status == PLUMB_OK) status = compare(dir, e, e->text_bytes, found.text_bytes, "bytes of texts");
    if (status == PLUMB_OK) status = compare(dir, e, e->n_iterations, found.n_iterations, "iterations");
    if (status == PLUMB_OK) status = compare(dir, e, e->n_parts, found.n_parts, "parts of the score");
    for (int64_t i = 0; i < e->n_iterations && status == PLUMB_OK; i++) {
        plumb_trajectories t;
        status = trajectory_decode(f, e->name, e->iterations[i], &t);
        if (status == PLUMB_OK) plumb_trajectories_free(&t);
    }
    trajectory_entry_free(&found);
    plumb_hdf5_close(f);
    return status;
}

plumb_status plumb_trajectories_verify(const char *dir, int64_t *iterations, int64_t *sequences, int64_t *tokens) {
    plumb_trajectory_reader *r;
    int64_t ignored[3], last = -1;
    iterations = iterations ? iterations : &ignored[0], sequences = sequences ? sequences : &ignored[1],
    tokens = tokens ? tokens : &ignored[2];
    PLUMB_TRY(plumb_trajectory_reader_open(&r, dir));
    plumb_status status = PLUMB_OK;
    *iterations = *sequences = *tokens = 0;
    size_t i = 0;
    for (int tries = 0; i < r->manifest.count;) {
        const trajectory_entry *e = &r->manifest.entries[i];
        status = verify_file(dir, e);
        if (status == PLUMB_OK) {
            *iterations += e->n_iterations - (e->iterations[0] == last);
            *sequences += e->sequences, *tokens += e->tokens;
            last = e->iterations[e->n_iterations - 1];
            i++;
            continue;
        }
        trajectory_entry failed = *e; /* its numbers; the list it borrows may go */
        bool same;
        char message[1024] = "";
        strncat(message, plumb_error_message(), sizeof message - 1);
        plumb_status again = status == PLUMB_E_MEMORY || ++tries == TRIES ? status : reload(r, &same);
        if (again != PLUMB_OK) {
            status = again;
            break;
        }
        const trajectory_entry *now = trajectory_manifest_find(&r->manifest, failed.name);
        if (now && now->checksum == failed.checksum) {
            status = plumb_error(status, "%s", message);
            break;
        }
        status = PLUMB_OK, i = 0, last = -1; /* the run replaced it: from the start, by the new list */
        *iterations = *sequences = *tokens = 0;
    }
    plumb_trajectory_reader_close(r);
    return status;
}
