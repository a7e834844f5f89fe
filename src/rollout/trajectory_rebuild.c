/* A manifest made again from the files that it listed.
 *
 *     examine    every file of our names is read whole, and compared with the old manifest where that can still be read
 *     choose     merged files first, then those of single iterations: what a merged file holds already is left to the next run, which
 *                removes it
 *     complete   each file of a single iteration says how many writers that had
 *     write      what is left out gets another name, so that no run takes it for a leftover; then the manifest, then the master
 *
 * Where there is no manifest, a file's own checksum says whether it is damaged. */
#include "trajectory_internal.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct file {
    trajectory_entry entry;
    int writer; /* -1: a merged file */
} file;
typedef struct rebuild {
    const char *dir;
    trajectory_manifest old;
    file *files; /* sound ones */
    size_t count, capacity;
    char (*left_out)[TRAJECTORY_NAME];
    size_t n_left_out, left_out_capacity;
    plumb_trajectories_note note;
} rebuild;

static plumb_status leave_out(rebuild *r, const char *name, const char *why) {
    PLUMB_TRY(plumb_grow(&r->left_out, &r->left_out_capacity, r->n_left_out + 1, sizeof *r->left_out));
    strcpy(r->left_out[r->n_left_out++], name);
    r->note(why);
    return PLUMB_OK;
}
static plumb_status leave_out_entry(rebuild *r, const trajectory_entry *e, const char *why) {
    char text[256];
    snprintf(text, sizeof text, "%s: %s", e->name, why);
    return leave_out(r, e->name, text);
}

/* --- examine ---------------------------------------------------------------------------------- */
/* The name says what the file holds. */
static plumb_status check_name(const rebuild *r, const trajectory_entry *e, int *writer) {
    char name[TRAJECTORY_NAME] = "";
    long long iteration;
    *writer = -1;
    bool single = sscanf(e->name, "iteration-%lld.w%d.h5", &iteration, writer) == 2;
    if (single && e->n_iterations == 1) trajectory_file_name(name, e->iterations[0], *writer);
    if (!single && e->n_iterations > 0) trajectory_merged_name(name, e->iterations[0], e->iterations[e->n_iterations - 1]);
    if (!strcmp(name, e->name)) return PLUMB_OK;
    return plumb_error(PLUMB_E_FORMAT, "%s/%s: its name is not that of the iterations in it", r->dir, e->name);
}

static plumb_status check_content(rebuild *r, plumb_hdf5 *f, file *found) {
    const trajectory_entry *e = &found->entry, *listed = trajectory_manifest_find(&r->old, e->name);
    if (listed && (e->bytes != listed->bytes || e->checksum != listed->checksum))
        return plumb_error(PLUMB_E_FORMAT, "%s/%s: not the bytes that the manifest lists", r->dir, e->name);
    PLUMB_TRY(check_name(r, e, &found->writer));
    for (int64_t i = 0; i < e->n_iterations; i++) {
        plumb_trajectories t;
        PLUMB_TRY(trajectory_decode(f, e->name, e->iterations[i], &t));
        plumb_trajectories_free(&t);
    }
    return PLUMB_OK;
}

static plumb_status examine(rebuild *r, const char *name) {
    plumb_hdf5 *f = NULL;
    file found = {0};
    char *path = NULL;
    PLUMB_TRY(plumb_path_join(&path, r->dir, name));
    bool folder = plumb_path_is_dir(path);
    free(path);
    if (folder) return PLUMB_OK;
    PLUMB_TRY(plumb_grow(&r->files, &r->capacity, r->count + 1, sizeof *r->files));
    plumb_status status = trajectory_open_new(&f, r->dir, name, &found.entry);
    if (status == PLUMB_OK) status = check_content(r, f, &found);
    plumb_hdf5_close(f);
    if (status == PLUMB_OK)
        r->files[r->count++] = found;
    else
        trajectory_entry_free(&found.entry);
    return status == PLUMB_E_FORMAT || status == PLUMB_E_DATA ? leave_out(r, name, plumb_error_message()) : status;
}

static int is_data(const struct dirent *e) { return trajectory_is_data(e->d_name) && strlen(e->d_name) < TRAJECTORY_NAME; }

static plumb_status examine_all(rebuild *r) {
    struct dirent **list;
    int n = scandir(r->dir, &list, is_data, alphasort);
    if (n < 0) return plumb_error(PLUMB_E_IO, "%s: cannot read the folder: %m", r->dir);
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < n; i++) {
        if (status == PLUMB_OK) status = examine(r, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    return status;
}

/* --- choose ----------------------------------------------------------------------------------- */
static int merged_first(const void *a, const void *b) { /* the longest merged one before all */
    const file *x = a, *y = b;
    const trajectory_entry *e = &x->entry, *f = &y->entry;
    if ((x->writer < 0) != (y->writer < 0)) return x->writer < 0 ? -1 : 1;
    if (e->n_iterations != f->n_iterations) return e->n_iterations > f->n_iterations ? -1 : 1;
    if (e->iterations[0] != f->iterations[0]) return e->iterations[0] < f->iterations[0] ? -1 : 1;
    return x->writer - y->writer;
}
static int in_order(const void *a, const void *b) {
    const file *x = a, *y = b;
    int64_t i = x->entry.iterations[0], k = y->entry.iterations[0];
    return i != k ? (i < k ? -1 : 1) : x->writer - y->writer;
}

/* How many iterations of `e` lie in the merged files among the first `n`. */
static int64_t held_already(const rebuild *r, size_t n, const trajectory_entry *e) {
    int64_t held = 0;
    for (size_t k = 0; k < n && r->files[k].writer < 0; k++)
        for (int64_t i = 0; i < e->n_iterations; i++) held += trajectory_has_iteration(&r->files[k].entry, e->iterations[i]);
    return held;
}

static plumb_status choose(rebuild *r) {
    size_t kept = 0;
    plumb_status status = PLUMB_OK;
    if (r->count) qsort(r->files, r->count, sizeof *r->files, merged_first);
    for (size_t i = 0; i < r->count; i++) {
        trajectory_entry *e = &r->files[i].entry;
        int64_t held = held_already(r, kept, e);
        if (held == 0) {
            r->files[kept++] = r->files[i];
            continue;
        }
        if (held < e->n_iterations && status == PLUMB_OK) status = leave_out_entry(r, e, "some of its iterations are in another file, too");
        trajectory_entry_free(e);
    }
    r->count = kept;
    return status;
}

/* --- complete --------------------------------------------------------------------------------- */
/* The files of one iteration from `first` on; *whole: those of all its writers. */
static size_t writers_of(const rebuild *r, size_t first, bool *whole) {
    const file *files = r->files + first;
    size_t n = 0;
    *whole = true;
    for (; first + n < r->count && files[n].entry.iterations[0] == files[0].entry.iterations[0]; n++)
        *whole &= files[n].writer == (int)n && files[n].entry.n_writers == files[0].entry.n_writers;
    *whole = files[0].writer < 0 || (*whole && files[0].entry.n_writers == (int64_t)n);
    return n;
}

static plumb_status keep_complete(rebuild *r, trajectory_manifest *m) {
    plumb_status status = PLUMB_OK;
    bool whole;
    if (r->count) qsort(r->files, r->count, sizeof *r->files, in_order);
    for (size_t i = 0, n; i < r->count && status == PLUMB_OK; i += n) {
        n = writers_of(r, i, &whole);
        for (size_t k = i; k < i + n && status == PLUMB_OK; k++)
            status = whole ? trajectory_manifest_add(m, &r->files[k].entry)
                           : leave_out_entry(r, &r->files[k].entry, "the iteration is not complete: another writer's file is missing");
    }
    if (status == PLUMB_OK && m->count == 0)
        status = plumb_error(PLUMB_E_DATA, "%s: no complete iteration is there: nothing was changed", r->dir);
    return status;
}

/* What the old manifest lists, and no file holds. */
static bool holds_all(const trajectory_manifest *m, const trajectory_entry *e) {
    bool all = true;
    for (int64_t i = 0; i < e->n_iterations && all; i++) {
        all = false;
        for (size_t k = 0; k < m->count && !all; k++) all = trajectory_has_iteration(&m->entries[k], e->iterations[i]);
    }
    return all;
}
static void note_lost(const rebuild *r, const trajectory_manifest *m, plumb_trajectories_rebuilt *out) {
    char text[256];
    for (size_t i = 0; i < r->old.count; i++) {
        const trajectory_entry *e = &r->old.entries[i];
        bool known = holds_all(m, e);
        for (size_t k = 0; k < r->n_left_out && !known; k++) known = !strcmp(r->left_out[k], e->name);
        if (known) continue;
        snprintf(text, sizeof text, "%s: the manifest lists it, and it is not there", e->name);
        r->note(text);
        out->left_out++;
    }
}

/* --- write ------------------------------------------------------------------------------------ */
static plumb_status put_aside(const rebuild *r, const char *name) { /* as NAME.left-out, .left-out.2, … */
    char *from = NULL, *to = NULL, aside[TRAJECTORY_NAME + 32];
    snprintf(aside, sizeof aside, "%s.left-out", name);
    plumb_status status = plumb_path_join(&from, r->dir, name);
    if (status == PLUMB_OK) status = plumb_path_join(&to, r->dir, aside);
    for (int i = 2; status == PLUMB_OK && plumb_path_exists(to); i++) {
        free(to), to = NULL;
        snprintf(aside, sizeof aside, "%s.left-out.%d", name, i);
        status = plumb_path_join(&to, r->dir, aside);
    }
    if (status == PLUMB_OK && rename(from, to)) status = plumb_error(PLUMB_E_IO, "%s: cannot be renamed: %m", from);
    free(from);
    free(to);
    return status;
}

/* A run that writes here would lose what it commits meanwhile. */
static plumb_status check_still(const rebuild *r, plumb_status was) {
    trajectory_manifest now = {0};
    plumb_status status = trajectory_manifest_read(&now, r->dir);
    bool same = status == was && now.checksum == r->old.checksum;
    trajectory_manifest_free(&now);
    if (same) return PLUMB_OK;
    return status != PLUMB_OK && status != PLUMB_E_FORMAT
               ? status
               : plumb_error(PLUMB_E_DATA, "%s: the manifest has changed meanwhile, by a run that writes here: nothing was changed",
                             r->dir);
}

static void count(const trajectory_manifest *m, plumb_trajectories_rebuilt *out) {
    int64_t last = -1;
    for (size_t i = 0; i < m->count; i++) {
        const trajectory_entry *e = &m->entries[i];
        out->iterations += e->n_iterations - (e->iterations[0] == last);
        out->sequences += e->sequences, out->tokens += e->tokens;
        last = e->iterations[e->n_iterations - 1];
    }
}

plumb_status plumb_trajectories_rebuild(const char *dir, plumb_trajectories_note note, plumb_trajectories_rebuilt *out) {
    rebuild r = {.dir = dir, .note = note};
    trajectory_manifest m = {0};
    *out = (plumb_trajectories_rebuilt){0};
    plumb_status old = trajectory_manifest_read(&r.old, dir), status = old == PLUMB_E_FORMAT ? PLUMB_OK : old;
    if (status == PLUMB_OK) status = examine_all(&r);
    if (status == PLUMB_OK) status = choose(&r);
    if (status == PLUMB_OK) status = keep_complete(&r, &m);
    if (status == PLUMB_OK) status = check_still(&r, old);
    if (status == PLUMB_OK) note_lost(&r, &m, out);
    for (size_t i = 0; i < r.n_left_out && status == PLUMB_OK; i++) status = put_aside(&r, r.left_out[i]);
    if (status == PLUMB_OK) status = trajectory_manifest_write(&m, dir);
    if (status == PLUMB_OK) status = trajectory_master_write(&m, dir);
    count(&m, out);
    out->left_out += (int64_t)r.n_left_out;
    for (size_t i = 0; i < r.count; i++) trajectory_entry_free(&r.files[i].entry);
    free(r.files);
    free(r.left_out);
    trajectory_manifest_free(&r.old);
    trajectory_manifest_free(&m);
    return status;
}
