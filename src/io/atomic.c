/* Files that are complete or absent.
 *
 *     path.<pid>-<n>.part  --write, fsync-->  rename  -->  path  --fsync of the folder-->  on disk
 *
 * A reader sees the old file or the new one, after a crash too; without the first fsync a file system may keep the rename and lose the
 * contents, without the second it may lose the rename.  The unfinished file is beside the final one because rename cannot cross file
 * systems.  Its name is taken with O_EXCL, so that ranks on other nodes, which may have the same process id, cannot share it.  A link is
 * followed first; what is no regular file, /dev/stdout or a pipe, is written to as it is, since a rename would put a file in its place.
 * A write that failed is remembered: commit then removes the file and fails. */
#include "io_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, TRIES = 1000 };

struct plumb_atomic {
    int fd;
    bool failed, direct; /* direct: into what is there, a device or a pipe */
    char *path, *part;   /* final and unfinished name; owned */
    size_t used;
    uint8_t buffer[BUFFER];
};

static void release(plumb_atomic *f) {
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f->part);
    free(f);
}

void plumb_atomic_abort(plumb_atomic *f) {
    if (!f) return;
    if (f->fd >= 0 && !f->direct) unlink(f->part);
    release(f);
}

/* What stands at *path, 0 for nothing; *path becomes that of a link's target, in `target`. */
static mode_t resolve(const char **path, char target[PATH_MAX]) {
    struct stat info;
    if (stat(*path, &info)) return 0;
    if (realpath(*path, target)) *path = target;
    return info.st_mode;
}

plumb_status plumb_atomic_open(plumb_atomic **out, const char *path) {
    static unsigned serial;
    *out = NULL;
    plumb_atomic *f;
    PLUMB_TRY(plumb_alloc(&f, 1, sizeof *f, "a file buffer"));
    f->fd = -1;
    char target[PATH_MAX];
    mode_t mode = resolve(&path, target);
    size_t room = strlen(path) + 64;
    plumb_status status = plumb_io_copy_text(&f->path, path, strlen(path));
    if (status == PLUMB_OK) status = plumb_alloc(&f->part, room, 1, "a path");
    if (status != PLUMB_OK) goto done;
    if (S_ISDIR(mode)) {
        status = plumb_error(PLUMB_E_IO, "%s: cannot write the file: a directory has this name", path);
        goto done;
    }
    f->direct = mode && !S_ISREG(mode);
    if (f->direct && (f->fd = open(path, O_WRONLY | O_CLOEXEC)) < 0) {
        status = plumb_error(PLUMB_E_IO, "%s: cannot open: %m", path);
        goto done;
    }
    for (int i = 0; i < TRIES && f->fd < 0; i++) {
        unsigned n = __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED);
        snprintf(f->part, room, "%s.%ld-%u.part", path, (long)getpid(), n);
        f->fd = open(f->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd < 0 && errno != EEXIST && errno != EINTR) break;
    }
    if (f->fd < 0) {
        status = plumb_error(PLUMB_E_IO, "%s: cannot create: %m", f->part);
        goto done;
    }
    *out = f;
    return PLUMB_OK;
done:
    release(f);
    return status;
}

static plumb_status write_all(int fd, const uint8_t *bytes, size_t n, const char *path) {
    while (n) {
        ssize_t done = write(fd, bytes, n < (1u << 30) ? n : 1u << 30);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0) errno = ENOSPC;
        if (done <= 0) return plumb_error(PLUMB_E_IO, "%s: cannot write: %m", path);
        bytes += done;
        n -= (size_t)done;
    }
    return PLUMB_OK;
}
static plumb_status write_through(plumb_atomic *f, const uint8_t *bytes, size_t n) {
    plumb_status status = write_all(f->fd, bytes, n, f->path);
    f->failed = f->failed || status != PLUMB_OK;
    return status;
}

static plumb_status flush(plumb_atomic *f) {
    size_t n = f->used;
    f->used = 0;
    return write_through(f, f->buffer, n);
}

plumb_status plumb_atomic_write(plumb_atomic *f, const void *bytes, size_t n) {
    if (f->failed) return plumb_error(PLUMB_E_IO, "%s: an earlier write failed", f->path);
    if (n > BUFFER - f->used) PLUMB_TRY(flush(f));
    if (n > BUFFER) return write_through(f, bytes, n);
    if (n) memcpy(f->buffer + f->used, bytes, n);
    f->used += n;
    return PLUMB_OK;
}

static plumb_status folder_of(char **folder, const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? plumb_io_copy_text(folder, path, slash == path ? 1 : (size_t)(slash - path)) : plumb_io_copy_text(folder, ".", 1);
}

/* The folder of `path`, flushed. Some file systems cannot flush folders and say EINVAL; theirs is the risk. */
static plumb_status flush_folder(const char *path) {
    char *folder;
    PLUMB_TRY(folder_of(&folder, path));
    plumb_status status = PLUMB_OK;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        if (errno != EACCES) status = plumb_error(PLUMB_E_IO, "%s: cannot open the folder: %m", folder);
    } else if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) {
        status = plumb_error(PLUMB_E_IO, "%s: cannot flush the folder to disk: %m", folder);
    }
    if (fd >= 0) close(fd);
    free(folder);
    return status;
}

plumb_status plumb_atomic_commit(plumb_atomic *f) {
    plumb_status status =
        f->failed ? plumb_error(PLUMB_E_IO, "%s: not written: an earlier write failed", f->path) : flush(f);
    if (f->direct) {
        release(f);
        return status;
    }
    if (status == PLUMB_OK && fsync(f->fd) != 0)
        status = plumb_error(PLUMB_E_IO, "%s: cannot flush to disk: %m", f->path);
    if (status == PLUMB_OK) {
        int fd = f->fd;
        f->fd = -1;
        if (close(fd) != 0) { /* network file systems report a full disk here */
            status = plumb_error(PLUMB_E_IO, "%s: cannot finish writing: %m", f->path);
        } else if (rename(f->part, f->path) != 0) {
            status = plumb_error(PLUMB_E_IO, "%s: cannot rename %s to it: %m", f->path, f->part);
        } else {
            status = flush_folder(f->path);
            release(f);
            return status;
        }
    }
    unlink(f->part);
    release(f);
    return status;
}

plumb_status plumb_write_file(const char *path, const void *bytes, size_t n) {
    plumb_atomic *f;
    PLUMB_TRY(plumb_atomic_open(&f, path));
    plumb_status status = plumb_atomic_write(f, bytes, n);
    if (status == PLUMB_OK) return plumb_atomic_commit(f);
    plumb_atomic_abort(f);
    return status;
}

plumb_status plumb_set_aside(const char *path) {
    char aside[PATH_MAX];
    int n = 0;
    do snprintf(aside, sizeof aside, "%s.before-%d", path, ++n);
    while (n < TRIES && plumb_path_exists(aside));
    if (rename(path, aside)) return plumb_error(PLUMB_E_IO, "%s: cannot rename it to %s: %m", path, aside);
    fprintf(stderr, "%s is now %s\n", path, aside);
    return PLUMB_OK;
}

/* Is there something that a rename would put a file in place of: a link, a device, a pipe? */
static bool is_no_plain_file(const char *path) {
    struct stat info;
    return lstat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode);
}

plumb_status plumb_rename_file(const char *from, const char *to) {
    if (is_no_plain_file(to)) {
        char *bytes;
        size_t n;
        PLUMB_TRY(plumb_read_file(from, &bytes, &n));
        plumb_status status = plumb_write_file(to, bytes, n);
        free(bytes);
        if (status == PLUMB_OK && unlink(from)) status = plumb_error(PLUMB_E_IO, "%s: cannot remove: %m", from);
        return status;
    }
    if (rename(from, to) != 0) return plumb_error(PLUMB_E_IO, "%s: cannot rename %s to it: %m", to, from);
    return flush_folder(to);
}

plumb_status plumb_append_file(const char *path, size_t keep, const void *bytes, size_t n) {
    struct stat info;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return plumb_error(PLUMB_E_IO, "%s: cannot open: %m", path);
    plumb_status status = PLUMB_OK;
    if (fstat(fd, &info) != 0)
        status = plumb_error(PLUMB_E_IO, "%s: cannot read its size: %m", path);
    else if (info.st_size < (off_t)keep)
        status = plumb_error(PLUMB_E_FORMAT, "%s: has %lld bytes, expected %zu at least", path, (long long)info.st_size, keep);
    else if (ftruncate(fd, (off_t)keep) != 0 || lseek(fd, 0, SEEK_END) < 0)
        status = plumb_error(PLUMB_E_IO, "%s: cannot append: %m", path);
    if (status == PLUMB_OK) status = write_all(fd, bytes, n, path);
    if (status == PLUMB_OK && fsync(fd) != 0) status = plumb_error(PLUMB_E_IO, "%s: cannot flush to disk: %m", path);
    if (close(fd) != 0 && status == PLUMB_OK) status = plumb_error(PLUMB_E_IO, "%s: cannot finish writing: %m", path);
    return status == PLUMB_OK && keep == 0 ? flush_folder(path) : status;
}

plumb_status plumb_prepare_file(const char *path) {
    char *folder, target[PATH_MAX];
    mode_t mode = resolve(&path, target);
    if (S_ISDIR(mode)) return plumb_error(PLUMB_E_IO, "%s: cannot write the file: a directory has this name", path);
    if (mode && !S_ISREG(mode))
        return access(path, W_OK) == 0 ? PLUMB_OK : plumb_error(PLUMB_E_IO, "%s: cannot write to it: %m", path);
    PLUMB_TRY(folder_of(&folder, path));
    plumb_status status = plumb_make_dirs(folder);
    if (status == PLUMB_OK && access(folder, W_OK | X_OK) != 0)
        status = plumb_error(PLUMB_E_IO, "%s: cannot write into its folder: %m", path);
    free(folder);
    return status;
}
