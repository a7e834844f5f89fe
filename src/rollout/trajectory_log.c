/* What changes a folder of trajectories.
 *
 *     write      a writer's file of one iteration                  not listed: no reader sees it
 *     commit     the manifest lists the files of an iteration
 *     compact    new file with many iterations, manifest lists it instead of its parts, master, parts removed
 *     rewind     manifest without the later iterations, master, files removed
 *
 * Each is the same three steps: files that are not listed yet are written; the manifest is replaced; files that are not listed any more
 * are removed. A kill before the second step leaves the folder as it was, with a file too many; a kill after it leaves the folder as it
 * is to be, with files too many. They are removed by the next of these calls. What is removed is named after our own patterns; nothing
 * else in the folder is touched. */
#include "trajectory_internal.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { FILE_TOKENS = 1 << 23 }; /* of a compacted file: about 1 GB of memory while it is made */

void trajectory_file_name(char name[TRAJECTORY_NAME], int64_t iteration, int writer) {
    snprintf(name, TRAJECTORY_NAME, "iteration-%06lld.w%03d.h5", (long long)iteration, writer);
}
void trajectory_merged_name(char name[TRAJECTORY_NAME], int64_t first, int64_t last) {
    snprintf(name, TRAJECTORY_NAME, "iterations-%06lld-%06lld.h5", (long long)first, (long long)last);
}

static bool begins(const char *name, const char *with) { return strncmp(name, with, strlen(with)) == 0; }

static bool ends(const char *name, const char *with) {
    size_t n = strlen(name), m = strlen(with);
    return n >= m && strcmp(name + n - m, with) == 0;
}

static bool is_ours(const char *name) { return begins(name, "iteration-") || begins(name, "iterations-"); }
bool trajectory_is_data(const char *name) { return is_ours(name) && ends(name, ".h5"); }

/* --- write ------------------------------------------------------------------------------------ */
plumb_status plumb_trajectories_write(const char *dir, int writer, int n_writers, const plumb_trajectories *t) {
    PLUMB_CHECK(writer >= 0 && writer < n_writers);
    char name[TRAJECTORY_NAME], *path = NULL;
    uint8_t *bytes = NULL;
    size_t size;
    trajectory_file_name(name, t->iteration, writer);
    plumb_status status = plumb_trajectories_check(t);
    if (status != PLUMB_OK) return plumb_error_prefix(status, "%s/%s: trajectories cannot be written", dir, name);
    PLUMB_TRY(plumb_make_dirs(dir));
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    status = trajectory_encode(t, 1, n_writers, path, &bytes, &size);
    if (status == PLUMB_OK) status = plumb_write_file(path, bytes, size);
    free(bytes);
    free(path);
    return status;
}

/* --- the three steps -------------------------------------------------------------------------- */
/* A name of ours that the manifest does not list: a file of trajectories, or what was left of one (or of the
 * manifest) that was being written. */
static bool is_leftover(const trajectory_manifest *m, const char *name) {
    if (ends(name, ".part")) return is_ours(name) || begins(name, TRAJECTORY_MANIFEST ".") || begins(name, TRAJECTORY_MASTER ".");
    return trajectory_is_data(name) && !trajectory_manifest_find(m, name);
}

/* Third step. The master is written before any file goes that it may show; `renew`: in any case. */
static plumb_status remove_leftovers(const trajectory_manifest *m, const char *dir, bool renew) {
    DIR *d = opendir(dir);
    if (!d) return plumb_error(PLUMB_E_IO, "%s: cannot read the folder: %m", dir);
    plumb_status status = PLUMB_OK;
    char **names = NULL, *master = NULL;
    size_t n = 0, capacity = 0;
    for (struct dirent *e; status == PLUMB_OK && (e = readdir(d));) {
        if (!is_leftover(m, e->d_name)) continue;
        status = plumb_grow(&names, &capacity, n + 1, sizeof *names);
        if (status == PLUMB_OK) status = plumb_path_join(&names[n], dir, e->d_name);
        if (status == PLUMB_OK) n++;
    }
    closedir(d);
    if (status == PLUMB_OK) status = plumb_path_join(&master, dir, TRAJECTORY_MASTER);
    bool shown = false;
    for (size_t i = 0; i < n; i++) shown |= ends(names[i], ".h5");
    if (status == PLUMB_OK && (renew || (shown && plumb_path_exists(master)))) status = trajectory_master_write(m, dir);
    for (size_t i = 0; i < n; i++) {
        if (status == PLUMB_OK && unlink(names[i]) && errno != ENOENT) status = plumb_error(PLUMB_E_IO, "%s: cannot remove: %m", names[i]);
        free(names[i]);
    }
    free(names);
    free(master);
    return status;
}

/* Writes batches as one file of DIR and fills its entry. */
static plumb_status write_merged(const char *dir, const plumb_trajectories *batches, int64_t n, trajectory_entry *e) {
    uint8_t *bytes = NULL;
    size_t size;
    char name[TRAJECTORY_NAME], *path;
    plumb_hdf5 *f = NULL;
    trajectory_merged_name(name, batches[0].iteration, batches[n - 1].iteration);
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    plumb_status status = trajectory_encode(batches, n, 0, path, &bytes, &size);
    if (status == PLUMB_OK) status = plumb_write_file(path, bytes, size);
    if (status == PLUMB_OK) status = trajectory_open_new(&f, dir, name, e); /* what was written is what is listed */
    if (status == PLUMB_OK && e->checksum != XXH3_64bits(bytes, size)) {
        trajectory_entry_free(e);
        status = plumb_error(PLUMB_E_IO, "%s: reads other bytes than were written", path);
    }
    plumb_hdf5_close(f);
    free(bytes);
    free(path);
    return status;
}

/* An entry that goes on beyond `last` becomes a file of its own without the rest. */
static plumb_status cut_file(const char *dir, trajectory_entry *e, int64_t keep) {
    plumb_hdf5 *f;
    plumb_trajectories *batches = NULL;
    trajectory_entry shorter = {0};
    PLUMB_TRY(trajectory_open_listed(&f, dir, e));
    plumb_status status = plumb_alloc(&batches, (size_t)keep, sizeof *batches, "trajectories");
    int64_t n = 0;
    for (; n < keep && status == PLUMB_OK; n++) status = trajectory_decode(f, e->name, e->iterations[n], &batches[n]);
    if (status == PLUMB_OK) status = write_merged(dir, batches, keep, &shorter);
    for (int64_t i = 0; i < n; i++) plumb_trajectories_free(&batches[i]);
    free(batches);
    plumb_hdf5_close(f);
    if (status != PLUMB_OK) return status;
    trajectory_entry_free(e);
    *e = shorter;
    return PLUMB_OK;
}

/* Takes iterations after `last` out of the list. *changed: there were some. */
static plumb_status forget(trajectory_manifest *m, const char *dir, int64_t last, bool *changed) {
    *changed = false;
    while (m->count) {
        trajectory_entry *e = &m->entries[m->count - 1];
        int64_t keep = 0;
        while (keep < e->n_iterations && e->iterations[keep] <= last) keep++;
        if (keep == e->n_iterations) return PLUMB_OK;
        *changed = true;
        if (keep > 0) return cut_file(dir, e, keep);
        trajectory_entry_free(e);
        m->count--;
    }
    return PLUMB_OK;
}

static bool same_parts(const trajectory_entry *a, const trajectory_entry *b) {
    bool same = a->n_parts == b->n_parts;
    for (int i = 0; same && i < a->n_parts; i++) same = !strcmp(a->part_names[i], b->part_names[i]);
    return same;
}

/* --- commit and rewind ------------------------------------------------------------------------ */
static plumb_status add_writer(trajectory_manifest *m, const char *dir, int64_t iteration, int writer, int n_writers, int64_t *version) {
    char name[TRAJECTORY_NAME], *path;
    plumb_hdf5 *f;
    trajectory_entry e;
    int64_t found;
    trajectory_file_name(name, iteration, writer);
    PLUMB_TRY(plumb_path_join(&path, dir, name));
    bool there = plumb_path_exists(path);
    free(path);
    if (!there)
        return plumb_error(PLUMB_E_IO, "%s/%s: not there: writer %d of %d has written nothing for iteration %lld", dir, name, writer,
                           n_writers, (long long)iteration);
    PLUMB_TRY(trajectory_open_new(&f, dir, name, &e));
    plumb_status status = plumb_hdf5_get_integer(f, "policy_version", &found);
    plumb_hdf5_close(f);
    const trajectory_entry *first = writer ? &m->entries[m->count - 1] : &e; /* the one before */
    if (writer == 0) *version = found;
    if (status == PLUMB_OK && (e.n_iterations != 1 || e.iterations[0] != iteration))
        status = plumb_error(PLUMB_E_FORMAT, "%s/%s: expected iteration %lld in it", dir, name, (long long)iteration);
    else if (status == PLUMB_OK && found != *version)
        status =
            plumb_error(PLUMB_E_DATA, "%s/%s: policy version %lld, writer 0 has %lld", dir, name, (long long)found, (long long)*version);
    else if (status == PLUMB_OK && !same_parts(first, &e))
        status = plumb_error(PLUMB_E_DATA, "%s/%s: other parts of the score than writer %d has", dir, name, writer - 1);
    if (status == PLUMB_OK) return trajectory_manifest_add(m, &e);
    trajectory_entry_free(&e);
    return status;
}

plumb_status plumb_trajectories_commit(const char *dir, int64_t iteration, int n_writers) {
    PLUMB_CHECK(iteration >= 0 && n_writers > 0);
    trajectory_manifest m;
    bool changed;
    int64_t version = 0;
    PLUMB_TRY(trajectory_manifest_read(&m, dir));
    plumb_status status = forget(&m, dir, iteration - 1, &changed);
    for (int w = 0; w < n_writers && status == PLUMB_OK; w++) status = add_writer(&m, dir, iteration, w, n_writers, &version);
    if (status == PLUMB_OK) status = trajectory_manifest_write(&m, dir);
    if (status == PLUMB_OK) status = remove_leftovers(&m, dir, false);
    trajectory_manifest_free(&m);
    return status;
}

/* A run that goes on behind iteration `last` has committed what came before: without a manifest its files would all count as leftovers. */
static plumb_status check_lost(const trajectory_manifest *m, const char *dir, int64_t last) {
    if (m->checksum || last < 1) return PLUMB_OK;
    DIR *d = opendir(dir);
    if (!d) return plumb_error(PLUMB_E_IO, "%s: cannot read the folder: %m", dir);
    plumb_status status = PLUMB_OK;
    for (struct dirent *e; status == PLUMB_OK && (e = readdir(d));)
        if (is_leftover(m, e->d_name) && ends(e->d_name, ".h5"))
            status = plumb_error(PLUMB_E_DATA,
                                 "%s/%s is not there, but %s is, and the run goes on behind iteration %lld; plumb trajectories --rebuild "
                                 "makes a new manifest, or move the folder away to go on without what it holds",
                                 dir, TRAJECTORY_MANIFEST, e->d_name, (long long)last);
    closedir(d);
    return status;
}

plumb_status plumb_trajectories_rewind(const char *dir, int64_t last) {
    if (!plumb_path_is_dir(dir)) return PLUMB_OK;
    trajectory_manifest m;
    bool changed;
    PLUMB_TRY(trajectory_manifest_read(&m, dir));
    plumb_status status = check_lost(&m, dir, last);
    if (status == PLUMB_OK) status = forget(&m, dir, last, &changed);
    if (status == PLUMB_OK && changed) status = trajectory_manifest_write(&m, dir);
    if (status == PLUMB_OK) status = remove_leftovers(&m, dir, false);
    trajectory_manifest_free(&m);
    return status;
}

/* --- compact ---------------------------------------------------------------------------------- */
static bool is_single(const trajectory_entry *e) { return begins(e->name, "iteration-"); }

/* How many entries from `first` on go into one file: neighbours of the same parts and, of more than one iteration, at most `limit`
 * tokens. Writers of an iteration stay together. */
static size_t group_size(const trajectory_manifest *m, size_t first, int64_t limit) {
    int64_t tokens = 0;
    size_t n = 0;
    while (first + n < m->count && is_single(&m->entries[first + n]) && same_parts(&m->entries[first], &m->entries[first + n])) {
        size_t writers = 0;
        int64_t iteration = m->entries[first + n].iterations[0], more = 0;
        for (; first + n + writers < m->count && m->entries[first + n + writers].iterations[0] == iteration; writers++)
            more += m->entries[first + n + writers].tokens + m->entries[first + n + writers].prompt_tokens;
        if (n && more > limit - tokens) break;
        tokens += more;
        n += writers;
    }
    return n;
}

static plumb_status merge(const trajectory_manifest *m, const char *dir, size_t first, size_t n, trajectory_entry *e) {
    plumb_trajectories *batches;
    PLUMB_TRY(plumb_alloc(&batches, n, sizeof *batches, "trajectories"));
    plumb_status status = PLUMB_OK;
    for (size_t i = 0; i < n && status == PLUMB_OK; i++) {
        plumb_hdf5 *f;
        const trajectory_entry *part = &m->entries[first + i];
        status = trajectory_open_listed(&f, dir, part);
        if (status == PLUMB_OK) status = trajectory_decode(f, part->name, part->iterations[0], &batches[i]);
        plumb_hdf5_close(f);
    }
    if (status == PLUMB_OK) status = write_merged(dir, batches, (int64_t)n, e);
    for (size_t i = 0; i < n; i++) plumb_trajectories_free(&batches[i]);
    free(batches);
    return status;
}

static plumb_status copy_entry(trajectory_manifest *to, const trajectory_entry *from) {
    trajectory_entry e = *from;
    PLUMB_TRY(plumb_alloc(&e.iterations, (size_t)e.n_iterations, sizeof *e.iterations, "a manifest"));
    memcpy(e.iterations, from->iterations, (size_t)e.n_iterations * sizeof *e.iterations);
    return trajectory_manifest_add(to, &e);
}

plumb_status trajectory_compact(const char *dir, int64_t token_limit) {
    trajectory_manifest m, merged = {0};
    PLUMB_TRY(trajectory_manifest_read(&m, dir));
    if (m.checksum == 0) return PLUMB_OK; /* nothing was ever committed */
    plumb_status status = PLUMB_OK;
    bool changed = false;
    for (size_t i = 0; i < m.count && status == PLUMB_OK;) {
        size_t n = group_size(&m, i, token_limit);
        trajectory_entry e;
        if (n < 2) { /* compacted before, or alone */
            status = copy_entry(&merged, &m.entries[i++]);
            continue;
        }
        status = merge(&m, dir, i, n, &e);
        if (status == PLUMB_OK) status = trajectory_manifest_add(&merged, &e);
        changed = true;
        i += n;
    }
    if (status == PLUMB_OK && changed) status = trajectory_manifest_write(&merged, dir);
    if (status == PLUMB_OK) status = remove_leftovers(&merged, dir, true);
    trajectory_manifest_free(&m);
    trajectory_manifest_free(&merged);
    return status;
}

plumb_status plumb_trajectories_compact(const char *dir) { return trajectory_compact(dir, FILE_TOKENS); }
