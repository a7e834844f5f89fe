/* Reading whole files, gzip, folders, and writing that is complete or absent. */
#include "io_test.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

static size_t compress_to(uint8_t *out, size_t room, const void *bytes, size_t n) {
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void assert_file(const char *path, const void *bytes, size_t n) {
    char *text;
    size_t size;
    assert_ok(plumb_read_file(path, &text, &size));
    assert_int_equal(size, n);
    assert_memory_equal(text, bytes, n);
    assert_int_equal(text[n], 0);
    free(text);
}

static void reads_plain_files(void **state) {
    assert_file(put_file(*state, "plain", "a\0b\n", 4), "a\0b\n", 4);
    assert_file(put_file(*state, "empty", "", 0), "", 0);
    assert_file(put_file(*state, "short", "\x1f", 1), "\x1f", 1);
    char *text;
    size_t size;
    assert_ok(plumb_read_file("/proc/self/cmdline", &text, &size)); /* fstat says 0 bytes */
    assert_true(size > 0);
    free(text);
    assert_refused(plumb_read_file(in(*state, "none"), &text, &size), PLUMB_E_IO, "none: cannot open: No such file");
    assert_null(text);
    assert_refused(plumb_read_file(*state, &text, &size), PLUMB_E_IO, "directory");
}

static void inflates_members_and_padding(void **state) {
    uint8_t packed[1024];
    size_t a = compress_to(packed, sizeof packed, "first\n", 6);
    assert_file(put_file(*state, "one.gz", packed, a), "first\n", 6);
    size_t b = compress_to(packed + a, sizeof packed - a, "second\n", 7);
    assert_file(put_file(*state, "two.gz", packed, a + b), "first\nsecond\n", 13);
    size_t c = compress_to(packed + a + b, sizeof packed - a - b, "", 0);
    assert_file(put_file(*state, "three.gz", packed, a + b + c), "first\nsecond\n", 13);
    memset(packed + a + b, 0, 100);
    assert_file(put_file(*state, "padded.gz", packed, a + b + 100), "first\nsecond\n", 13);
    memcpy(packed + a + b + 50, "junk", 4);
    char *text;
    assert_refused(plumb_read_file(put_file(*state, "junk.gz", packed, a + b + 54), &text, NULL), PLUMB_E_FORMAT,
                   "follows the end");
}

static void every_truncation_is_an_error(void **state) {
    uint8_t packed[512];
    size_t n = compress_to(packed, sizeof packed, "the same words, the same words, the same words", 46);
    size_t m = compress_to(packed + n, sizeof packed - n, "more", 4);
    char *text;
    for (size_t cut = 2; cut < n + m; cut++) {
        if (cut == n) continue; /* a whole member */
        assert_int_equal(plumb_read_file(put_file(*state, "cut.gz", packed, cut), &text, NULL), PLUMB_E_FORMAT);
        assert_null(text);
    }
    assert_refused(plumb_read_file(put_file(*state, "cut.gz", packed, n - 1), &text, NULL), PLUMB_E_FORMAT,
                   "breaks off");
    packed[n - 8] ^= 1; /* the checksum */
    assert_refused(plumb_read_file(put_file(*state, "sum.gz", packed, n), &text, NULL), PLUMB_E_FORMAT, "damaged");
}

static void large_output_is_bounded(void **state) {
    size_t n = 3 << 20;
    char *zeros = calloc(n, 1), *text;
    uint8_t *packed = malloc(1 << 16);
    size_t m = compress_to(packed, 1 << 16, zeros, n), size;
    const char *path = put_file(*state, "zeros.gz", packed, m);
    assert_file(path, zeros, n);
    assert_ok(plumb_read_file_max(path, n, &text, &size));
    free(text);
    assert_refused(plumb_read_file_max(path, n - 1, &text, &size), PLUMB_E_DATA, "inflates to more than");
    assert_null(text);
    path = put_file(*state, "zeros", zeros, n);
    assert_refused(plumb_read_file_max(path, n - 1, &text, &size), PLUMB_E_DATA, "at most");
    free(zeros);
    free(packed);
}

static void maps_files_only(void **state) {
    plumb_map map;
    assert_ok(plumb_map_open(&map, put_file(*state, "five", "12345", 5)));
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "12345", 5);
    plumb_map_close(&map);
    plumb_map_close(&map);
    assert_ok(plumb_map_open(&map, put_file(*state, "empty", "", 0)));
    assert_int_equal(map.size, 0);
    plumb_map_close(&map);
    assert_refused(plumb_map_open(&map, *state), PLUMB_E_IO, "directory");
    assert_int_equal(mkfifo(in(*state, "pipe"), 0600), 0);
    assert_refused(plumb_map_open(&map, in(*state, "pipe")), PLUMB_E_IO, "cannot be mapped"); /* and does not wait */
}

static void makes_folders(void **state) {
    assert_ok(plumb_make_dirs(in(*state, "a/b//c/")));
    assert_true(plumb_path_is_dir(in(*state, "a/b/c")));
    assert_ok(plumb_make_dirs(in(*state, "a/b/c")));
    put_file(*state, "file", "x", 1);
    assert_true(plumb_path_exists(in(*state, "file")));
    assert_false(plumb_path_is_dir(in(*state, "file")));
    assert_refused(plumb_make_dirs(in(*state, "file/below")), PLUMB_E_IO, "file: cannot make");
    assert_int_equal(symlink("nowhere", in(*state, "link")), 0);
    /* why it was not made, not what was found then */
    assert_refused(plumb_make_dirs(in(*state, "link")), PLUMB_E_IO, "link: cannot make the directory: File exists");
    assert_int_equal(plumb_make_dirs(""), PLUMB_E_IO);
    char *joined;
    assert_ok(plumb_path_join(&joined, "a", "b"));
    assert_string_equal(joined, "a/b");
    free(joined);
    assert_ok(plumb_path_join(&joined, "a/", "b"));
    assert_string_equal(joined, "a/b");
    free(joined);
    assert_ok(plumb_path_join(&joined, "", "b"));
    assert_string_equal(joined, "b");
    free(joined);
}

static void written_files_are_whole_or_absent(void **state) {
    const char *path = in(*state, "out");
    plumb_atomic *f;
    assert_ok(plumb_atomic_open(&f, path));
    assert_ok(plumb_atomic_write(f, "abc", 3));
    assert_false(plumb_path_exists(path));
    assert_ok(plumb_atomic_commit(f));
    assert_file(path, "abc", 3);
    assert_int_equal(count_entries(*state), 1);

    assert_ok(plumb_atomic_open(&f, path));
    assert_ok(plumb_atomic_write(f, "xyz", 3));
    plumb_atomic_abort(f);
    plumb_atomic_abort(NULL);
    assert_file(path, "abc", 3);
    assert_int_equal(count_entries(*state), 1);

    size_t n = 1 << 20; /* small and large writes keep their order */
    char *large = malloc(n + 2);
    memset(large, 'L', n + 2);
    large[0] = large[n + 1] = '.';
    assert_ok(plumb_atomic_open(&f, path));
    assert_ok(plumb_atomic_write(f, ".", 1));
    assert_ok(plumb_atomic_write(f, large + 1, n));
    assert_ok(plumb_atomic_write(f, ".", 1));
    assert_ok(plumb_atomic_commit(f));
    assert_file(path, large, n + 2);
    free(large);

    struct stat info;
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0666 & ~mask);
    assert_refused(plumb_atomic_open(&f, in(*state, "no/such/file")), PLUMB_E_IO, "cannot create");
    assert_null(f);
    assert_refused(plumb_write_file(*state, "x", 1), PLUMB_E_IO, "a directory has this name");
}

static void a_full_disk_leaves_nothing(void **state) {
    const char *path = in(*state, "full");
    assert_ok(plumb_write_file(path, "old", 3));
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    char *large = calloc(200000, 1);
    plumb_status direct = plumb_write_file(path, large, 200000);
    plumb_atomic *f;
    plumb_status opened = plumb_atomic_open(&f, path), middle = plumb_atomic_write(f, large, 200000),
                 later = plumb_atomic_write(f, "x", 1), end = plumb_atomic_commit(f);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(direct, PLUMB_E_IO);
    assert_int_equal(opened, PLUMB_OK);
    assert_int_equal(middle, PLUMB_E_IO);
    assert_int_equal(later, PLUMB_E_IO);
    assert_int_equal(end, PLUMB_E_IO);
    assert_file(path, "old", 3);
    assert_int_equal(count_entries(*state), 1);
    free(large);
}

static void failed_allocations_are_reported(void **state) {
    const char *path = put_file(*state, "x", "hello", 5);
    char *text;
    for (long n = 1;; n++) {
        plumb_alloc_fail_after(n);
        plumb_status status = plumb_read_file(path, &text, NULL);
        if (status == PLUMB_OK) status = (free(text), plumb_write_file(path, "hello", 5));
        if (status == PLUMB_OK) break;
        assert_int_equal(status, PLUMB_E_MEMORY);
        assert_true(n < 100);
    }
    plumb_alloc_fail_after(0);
    assert_file(path, "hello", 5);
    assert_int_equal(count_entries(*state), 1);
}

static void appends_behind_what_is_kept(void **state) {
    const char *path = in(*state, "log");
    assert_ok(plumb_append_file(path, 0, "abc", 3));
    assert_ok(plumb_append_file(path, 3, "def", 3));
    assert_file(path, "abcdef", 6);
    assert_ok(plumb_append_file(path, 2, "x", 1)); /* what stood behind goes */
    assert_ok(plumb_append_file(path, 3, NULL, 0));
    assert_file(path, "abx", 3);
    assert_refused(plumb_append_file(path, 4, "y", 1), PLUMB_E_FORMAT, "has 3 bytes, expected 4 at least");
    assert_file(path, "abx", 3);
    assert_refused(plumb_append_file(in(*state, "no/such"), 0, "", 0), PLUMB_E_IO, "cannot open");
}

static void prepares_and_renames(void **state) {
    char *path, *to;
    assert_ok(plumb_path_join(&path, *state, "a/b/file"));
    assert_ok(plumb_path_join(&to, *state, "a/other"));
    assert_ok(plumb_prepare_file(path));
    assert_false(plumb_path_exists(path));
    assert_ok(plumb_write_file(path, "1", 1));
    assert_ok(plumb_prepare_file(path));
    assert_ok(plumb_rename_file(path, to));
    assert_file(to, "1", 1);
    assert_refused(plumb_rename_file(path, to), PLUMB_E_IO, "cannot rename");
    assert_refused(plumb_prepare_file(in(*state, "a")), PLUMB_E_IO, "a directory has this name");
    assert_refused(plumb_prepare_file(in(*state, "a/other/file")), PLUMB_E_IO, "cannot make the directory");
    free(path), free(to);
}

static void devices_and_links_stay(void **state) {
    struct stat before, after;
    char text[8] = "";
    assert_int_equal(stat("/dev/null", &before), 0);
    assert_ok(plumb_write_file("/dev/null", "12", 2));
    assert_int_equal(stat("/dev/null", &after), 0);
    assert_true(S_ISCHR(after.st_mode) && before.st_ino == after.st_ino);
    char *link = strdup(in(*state, "link")), *file = strdup(put_file(*state, "file", "old", 3)), *pipe = strdup(in(*state, "pipe"));
    assert_int_equal(symlink("file", link), 0);
    assert_ok(plumb_write_file(link, "new", 3));
    assert_int_equal(lstat(link, &after), 0);
    assert_true(S_ISLNK(after.st_mode));
    assert_file(file, "new", 3);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    int fd = open(pipe, O_RDONLY | O_NONBLOCK);
    assert_ok(plumb_write_file(pipe, "12", 2));
    assert_int_equal(read(fd, text, sizeof text), 2);
    assert_ok(plumb_rename_file(put_file(*state, "result", "345", 3), pipe));
    assert_int_equal(read(fd, text, sizeof text), 3);
    assert_int_equal(lstat(pipe, &after), 0);
    assert_true(S_ISFIFO(after.st_mode));
    assert_ok(plumb_rename_file(put_file(*state, "result", "newer", 5), link));
    assert_file(file, "newer", 5);
    assert_ok(plumb_prepare_file("/dev/null"));
    close(fd);
    free(link), free(file), free(pipe);
}

static void one_process_writes_to_a_folder(void **state) {
    plumb_claim *mine, *other;
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) { /* takes it and is killed */
        if (plumb_claim_take(&other, *state) != PLUMB_OK || write(ready[1], "x", 1) != 1) _exit(1);
        for (;;) pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    char expected[64];
    snprintf(expected, sizeof expected, ", pid %ld)", (long)child);
    assert_refused(plumb_claim_take(&mine, *state), PLUMB_E_CONFIG, expected);
    kill(child, SIGKILL);
    assert_ok(plumb_claim_take(&mine, *state)); /* waits for the end */
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_ok(plumb_claim_take(&other, *state)); /* a process shares its own: a pipeline and its stage */
    plumb_claim_free(other);
    child = fork();
    if (child == 0) { /* another still may not; it has no claims of its own, whatever the fork has copied */
        char path[600];
        snprintf(path, sizeof path, "%s/.lock", (const char *)*state);
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(path, O_RDWR);
        _exit(fd >= 0 && fcntl(fd, F_SETLK, &whole) != 0 ? 7 : 0);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(WEXITSTATUS(code), 7);
    plumb_claim_free(mine);
    assert_false(plumb_path_exists(in(*state, ".lock")));
    close(ready[0]), close(ready[1]);
}

static void sets_aside(void **state) {
    char *path = strdup(put_file(*state, "a", "1", 1));
    assert_ok(plumb_set_aside(path));
    put_file(*state, "a", "2", 1);
    assert_ok(plumb_set_aside(path));
    assert_file(in(*state, "a.before-1"), "1", 1);
    assert_file(in(*state, "a.before-2"), "2", 1);
    assert_refused(plumb_set_aside(path), PLUMB_E_IO, "cannot rename");
    free(path);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {T(reads_plain_files),
                                       T(inflates_members_and_padding),
                                       T(every_truncation_is_an_error),
                                       T(large_output_is_bounded),
                                       T(maps_files_only),
                                       T(makes_folders),
                                       T(written_files_are_whole_or_absent),
                                       T(a_full_disk_leaves_nothing),
                                       T(failed_allocations_are_reported),
                                       T(appends_behind_what_is_kept),
                                       T(prepares_and_renames),
                                       T(devices_and_links_stay),
                                       T(one_process_writes_to_a_folder),
                                       T(sets_aside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
