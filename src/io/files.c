/* Whole files and paths.
 *
 * Weights are mapped, never read: a header can be shown without touching the data, ranks of one node share the pages,
 * and a tensor is a pointer.  Text is read into memory, because parsers want one block that ends in NUL and because it
 * may be compressed (gzip.c).  A mapped file must not be shortened while it is in use; plumb itself never does that,
 * since it replaces files by renaming (atomic.c), which leaves an old mapping intact. */
#include "io_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

plumb_status plumb_map_open(plumb_map *m, const char *path) {
    *m = (plumb_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block: it is refused below */
    if (fd < 0) return plumb_error(PLUMB_E_IO, "%s: cannot open: %m", path);
    plumb_status status = PLUMB_OK;
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status = plumb_error(PLUMB_E_IO, "%s: cannot read its size: %m", path);
    } else if (!S_ISREG(info.st_mode)) {
        status = plumb_error(PLUMB_E_IO, "%s: expected a file, found %s", path,
                             S_ISDIR(info.st_mode) ? "a directory" : "something that cannot be mapped");
    } else if (info.st_size > 0) { /* an empty file is an empty mapping; mmap would refuse it */
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = plumb_error(PLUMB_E_IO, "%s: cannot map %lld bytes: %m", path, (long long)info.st_size);
        else
            *m = (plumb_map){data, (size_t)info.st_size};
    }
    close(fd);
    return status;
}

void plumb_map_release(const plumb_map *m) {
    if (m->data) madvise((void *)(uintptr_t)m->data, m->size, MADV_DONTNEED);
}

void plumb_map_close(plumb_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (plumb_map){0};
}

/* Reads to the end, whatever fstat said: files in /proc have size 0, pipes have none. */
static plumb_status read_to_end(plumb_str *raw, int fd, size_t limit, const char *path) {
    struct stat info;
    size_t expected = 0;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) expected = (size_t)info.st_size;
    if (expected > limit)
        return plumb_error(PLUMB_E_DATA, "%s: has %zu bytes; at most %zu are read into memory", path, expected, limit);
    PLUMB_TRY(
        plumb_grow(&raw->data, &raw->capacity, expected + 2, 1)); /* one for the NUL, one so that the end is seen */
    for (;;) {
        if (raw->capacity - raw->length < 2)
            PLUMB_TRY(plumb_grow(&raw->data, &raw->capacity, raw->length + (1 << 16), 1));
        ssize_t n = read(fd, raw->data + raw->length, raw->capacity - raw->length - 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return plumb_error(PLUMB_E_IO, "%s: cannot read: %m", path);
        if (n == 0) break;
        raw->length += (size_t)n;
        if (raw->length > limit)
            return plumb_error(PLUMB_E_DATA, "%s: has more than %zu bytes; no more are read into memory", path, limit);
    }
    raw->data[raw->length] = 0;
    return PLUMB_OK;
}

plumb_status plumb_read_file_max(const char *path, size_t limit, char **out, size_t *size) {
    *out = NULL;
    if (size) *size = 0;
    if (limit > PLUMB_READ_MAX) limit = PLUMB_READ_MAX;
    plumb_str raw = {0}, inflated = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return plumb_error(PLUMB_E_IO, "%s: cannot open: %m", path);
    plumb_status status = read_to_end(&raw, fd, limit, path);
    close(fd);
    if (status != PLUMB_OK) goto done;
    if (raw.length >= 2 && (uint8_t)raw.data[0] == 0x1f && (uint8_t)raw.data[1] == 0x8b) {
        status = plumb_io_inflate(&inflated, (const uint8_t *)raw.data, raw.length, limit, path);
        if (status != PLUMB_OK) goto done;
        plumb_str_free(&raw);
        raw = inflated;
        inflated = (plumb_str){0};
    }
    *out = raw.data;
    if (size) *size = raw.length;
    raw = (plumb_str){0};
done:
    plumb_str_free(&raw);
    plumb_str_free(&inflated);
    return status;
}

plumb_status plumb_read_file(const char *path, char **out, size_t *size) {
    return plumb_read_file_max(path, PLUMB_READ_MAX, out, size);
}

bool plumb_path_exists(const char *path) {
    return access(path, F_OK) == 0;
}

bool plumb_same_path(const char *a, const char *b) {
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool plumb_path_is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool plumb_path_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static plumb_status make_one_dir(const char *path) {
    if (mkdir(path, 0777) == 0) return PLUMB_OK;
    int reason = errno; /* a read-only file system reports EROFS before EEXIST */
    if (plumb_path_is_dir(path)) return PLUMB_OK;
    errno = reason;
    return plumb_error(PLUMB_E_IO, "%s: cannot make the directory: %m", path);
}

plumb_status plumb_make_dirs(const char *path) {
    char *copy;
    PLUMB_TRY(plumb_io_copy_text(&copy, path, strlen(path)));
    plumb_status status = *path ? PLUMB_OK : plumb_error(PLUMB_E_IO, "cannot make a directory whose name is empty");
    for (char *p = copy; status == PLUMB_OK && *p; p++) {
        if (*p != '/' || p == copy) continue;
        *p = 0;
        status = make_one_dir(copy);
        *p = '/';
    }
    if (status == PLUMB_OK) status = make_one_dir(copy);
    free(copy);
    return status;
}

plumb_status plumb_path_join(char **out, const char *dir, const char *name) {
    size_t n = strlen(dir), m = strlen(name);
    *out = NULL;
    char *joined;
    PLUMB_TRY(plumb_alloc(&joined, n + m + 2, 1, "a path"));
    memcpy(joined, dir, n);
    if (n && dir[n - 1] != '/') joined[n++] = '/'; /* "" joins to the bare name: the current directory */
    memcpy(joined + n, name, m);
    *out = joined;
    return PLUMB_OK;
}

plumb_status plumb_io_copy_text(char **out, const char *bytes, size_t n) {
    *out = NULL;
    if (n == SIZE_MAX) return plumb_error(PLUMB_E_MEMORY, "out of memory: text of %zu bytes", n);
    PLUMB_TRY(plumb_alloc(out, n + 1, 1, "text"));
    if (n) memcpy(*out, bytes, n);
    return PLUMB_OK;
}
