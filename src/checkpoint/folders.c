/* The folder of checkpoints: names, and the few operations on whole folders.
 *
 *     checkpoints/step-000100/            complete: a rename made it appear
 *     checkpoints/.step-000200.partial/   being written, or left by a killed run: never read, removed by the next save
 *     checkpoints/.step-000100.old/       on its way out
 *
 * Only rank 0 calls these. A folder is taken out of sight by renaming before its files are removed, so that a kill in
 * the middle does not leave a step-N without its shards. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "internal.h"

plumb_status ckpt_folder_name(char **out, const char *dir, int64_t step, bool partial) {
    char name[64];
    snprintf(name, sizeof name, partial ? ".step-%06lld.partial" : "step-%06lld", (long long)step);
    return plumb_path_join(out, dir, name);
}

/* step-N with at least six digits, as written above; -1 for any other name. */
static int64_t step_of(const char *name) {
    if (strncmp(name, "step-", 5)) return -1;
    size_t digits = strspn(name + 5, "0123456789");
    if (digits < 6 || digits > 18 || name[5 + digits]) return -1;
    if (digits > 6 && name[5] == '0') return -1;
    return strtoll(name + 5, NULL, 10);
}

static int newest_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

plumb_status ckpt_list_steps(const char *dir, int64_t **steps, size_t *count) {
    *steps = NULL, *count = 0;
    DIR *d = opendir(dir);
    if (!d && errno == ENOENT) return PLUMB_OK;
    if (!d) return plumb_error(PLUMB_E_IO, "%s: cannot read the folder: %m", dir);
    plumb_status status = PLUMB_OK;
    size_t capacity = 0;
    for (struct dirent *e; status == PLUMB_OK && (e = readdir(d));) {
        int64_t step = step_of(e->d_name);
        if (step < 0) continue;
        status = plumb_grow(steps, &capacity, *count + 1, sizeof **steps);
        if (status == PLUMB_OK) (*steps)[(*count)++] = step;
    }
    closedir(d);
    if (status != PLUMB_OK) {
        free(*steps);
        *steps = NULL, *count = 0;
    } else if (*count)
        qsort(*steps, *count, sizeof **steps, newest_first);
    return status;
}

plumb_status ckpt_remove_folder(const char *path) {
    DIR *d = opendir(path);
    if (!d && (errno == ENOENT || errno == ENOTDIR)) return PLUMB_OK; /* nothing of ours is there */
    if (!d) return plumb_error(PLUMB_E_IO, "%s: cannot read the folder: %m", path);
    plumb_status status = PLUMB_OK;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (unlinkat(dirfd(d), e->d_name, 0) && errno != ENOENT)
            status = plumb_error(PLUMB_E_IO, "%s/%s: cannot remove: %m", path, e->d_name);
    }
    closedir(d);
    if (status == PLUMB_OK && rmdir(path) && errno != ENOENT)
        status = plumb_error(PLUMB_E_IO, "%s: cannot remove the folder: %m", path);
    return status;
}

plumb_status ckpt_sync_folder(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return plumb_error(PLUMB_E_IO, "%s: cannot open the folder: %m", path);
    plumb_status status = PLUMB_OK;
    if (fsync(fd) && errno != EINVAL)
        status =
            plumb_error(PLUMB_E_IO, "%s: cannot flush the folder to disk: %m", path); /* EINVAL: not needed there */
    close(fd);
    return status;
}

/* ".step-N.old" beside "step-N"; owned by the caller. */
static plumb_status retired_name(char **out, const char *folder) {
    const char *slash = strrchr(folder, '/');
    size_t head = slash ? (size_t)(slash - folder) + 1 : 0;
    plumb_str s = {0};
    plumb_status status = plumb_str_printf(&s, "%.*s.%s.old", (int)head, folder, folder + head);
    *out = s.data;
    return status;
}

static plumb_status retire(const char *folder) {
    char *old;
    plumb_status status = retired_name(&old, folder);
    if (status != PLUMB_OK) goto done;
    status = ckpt_remove_folder(old);
    if (status != PLUMB_OK) goto done;
    if (rename(folder, old))
        status = plumb_error(PLUMB_E_IO, "%s: cannot rename to %s: %m", folder, old);
    else
        status = ckpt_remove_folder(old);
done:
    free(old);
    return status;
}

plumb_status ckpt_replace_folder(const char *from, const char *to) {
    if (rename(from, to) == 0) return PLUMB_OK;
    if (errno != ENOTEMPTY && errno != EEXIST) return plumb_error(PLUMB_E_IO, "%s: cannot rename to %s: %m", from, to);
    /* The step was saved before (a run that went back). Swap, so that at every moment one of the two is complete. */
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0) return ckpt_remove_folder(from);
    PLUMB_TRY(retire(to)); /* a file system that cannot swap: older checkpoints stand in for a moment */
    if (rename(from, to)) return plumb_error(PLUMB_E_IO, "%s: cannot rename to %s: %m", from, to);
    return PLUMB_OK;
}

plumb_status ckpt_clean(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return plumb_error(PLUMB_E_IO, "%s: cannot read the folder: %m", dir);
    plumb_status status = PLUMB_OK;
    for (struct dirent *e; status == PLUMB_OK && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        bool partial = n > 8 && !strcmp(e->d_name + n - 8, ".partial"),
             old = n > 4 && !strcmp(e->d_name + n - 4, ".old");
        if (strncmp(e->d_name, ".step-", 6) || (!partial && !old)) continue;
        char *path;
        status = plumb_path_join(&path, dir, e->d_name);
        if (status == PLUMB_OK) status = ckpt_remove_folder(path);
        free(path);
    }
    closedir(d);
    return status;
}

plumb_status ckpt_prune(const char *dir, int64_t saved, int keep) {
    int64_t *steps;
    size_t count;
    PLUMB_TRY(ckpt_list_steps(dir, &steps, &count));
    plumb_status status = PLUMB_OK;
    for (size_t i = (size_t)keep; i < count && status == PLUMB_OK; i++) {
        if (steps[i] >= saved) continue; /* never the one just written, nor what a user may want back from beyond it */
        char *path;
        status = ckpt_folder_name(&path, dir, steps[i], false);
        if (status == PLUMB_OK) status = retire(path);
        free(path);
    }
    free(steps);
    return status;
}

plumb_status plumb_checkpoint_discard(const char *dir) {
    int64_t *steps;
    size_t count;
    if (!plumb_path_exists(dir)) return PLUMB_OK;
    PLUMB_TRY(ckpt_list_steps(dir, &steps, &count));
    plumb_status status = PLUMB_OK;
    for (size_t i = 0; i < count && status == PLUMB_OK; i++) {
        char *path;
        status = ckpt_folder_name(&path, dir, steps[i], false);
        if (status == PLUMB_OK) status = retire(path);
        free(path);
    }
    free(steps);
    if (status == PLUMB_OK) status = ckpt_clean(dir);
    if (status == PLUMB_OK && rmdir(dir) && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
        status = plumb_error(PLUMB_E_IO, "%s: cannot remove the folder: %m", dir);
    return status;
}
