/* metrics.jsonl: its lines, and what becomes of an earlier run's. */
#include "log_test.h"
#include <signal.h>
#include <sys/resource.h>

static char folder[64], path[96];

static int enter(void **state) {
    (void)state;
    strcpy(folder, "/tmp/plumb_log_XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/run/metrics.jsonl", folder);
    setenv("PLUMB_PROGRESS", "plain", 1);
    return 0;
}

static int leave(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static plumb_log *open_log(int64_t resume_step) {
    plumb_log *l;
    char dir[96];
    snprintf(dir, sizeof dir, "%s/run", folder);
    assert_ok(plumb_log_open(&l, dir, 10, resume_step));
    return l;
}

static void log_steps(plumb_log *l, int64_t first, int64_t last) {
    for (int64_t step = first; step <= last; step++) {
        const plumb_metric metrics[] = {{"loss", 1.0 / (double)step}, {"learning_rate", 1e-5}};
        assert_ok(plumb_log_step(l, step, metrics, 2));
    }
}

static void writes_a_line_per_call(void **state) {
    (void)state;
    plumb_log *l = open_log(0);
    const plumb_metric first[] = {
        {"loss", 1.25}, {"learning_rate", 3.1e-5}, {"rewards/chosen", -0.1}, {"n", 123456789}};
    const plumb_metric second[] = {{"loss", NAN}, {"a\"b\\\n", INFINITY}, {"c", -INFINITY}, {"d", -NAN}};
    assert_ok(plumb_log_step(l, 0, first, 1));
    assert_text(path, "{\"step\": 0, \"loss\": 1.25}\n"); /* on disk before the log is closed */
    assert_ok(plumb_log_step(l, 1, first, 4));
    assert_ok(plumb_log_step(l, 2, second, 4));
    assert_ok(plumb_log_step(l, 3, NULL, 0));
    plumb_log_close(l);
    assert_text(
        path,
        "{\"step\": 0, \"loss\": 1.25}\n"
        "{\"step\": 1, \"loss\": 1.25, \"learning_rate\": 3.1e-05, \"rewards/chosen\": -0.1, \"n\": 123456789}\n"
        "{\"step\": 2, \"loss\": \"NaN\", \"a\\\"b\\\\\\u000a\": \"Infinity\", \"c\": \"-Infinity\", \"d\": \"NaN\"}\n"
        "{\"step\": 3}\n");
    char *text = read_text(path);
    int lines = 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) && *line; lines++) {
        json_t *object;
        assert_ok(plumb_json_parse(&object, line, strlen(line), "metrics", 1));
        assert_int_equal(json_integer_value(json_object_get(object, "step")), lines);
        json_decref(object);
    }
    assert_int_equal(lines, 4);
    free(text);
}

static void a_resumed_run_has_each_step_once(void **state) {
    (void)state;
    plumb_log *l = open_log(0); /* starts anew: nothing of the test before */
    log_steps(l, 1, 7);
    plumb_log_close(l);
    char *whole = read_text(path);
    assert_ptr_equal(strstr(whole, "{\"step\": 1, "), whole);

    FILE *torn = fopen(path, "a"); /* killed in the middle of a line */
    fputs("{\"step\": 3, \"lo", torn);
    fclose(torn);
    l = open_log(5);
    log_steps(l, 6, 7);
    plumb_log_close(l);
    assert_text(path, whole);
    l = open_log(100); /* nothing to remove */
    plumb_log_close(l);
    assert_text(path, whole);
    l = open_log(0);
    plumb_log_close(l);
    assert_text(path, "");
    free(whole);
}

static void foreign_lines_stay(void **state) {
    (void)state;
    static const char before[] =
        "{\"step\": 0, \"eval_loss\": 2}\n# a note\n[1]\n\n{\"step\": 9223372036854775807}\n{\"step\": 4}\n{\"step\": "
        "3}\n{\"step\": 99999999999999999999}\n{\"no\": 1}\n\xff\n";
    static const char after[] = "{\"step\": 0, \"eval_loss\": 2}\n# a note\n[1]\n\n{\"step\": 3}\n{\"step\": "
                                "99999999999999999999}\n{\"no\": 1}\n\xff\n";
    assert_ok(plumb_write_file(path, before, sizeof before - 1));
    plumb_log_close(open_log(3));
    assert_text(path, after);
}

static void refuses_bad_folders(void **state) {
    (void)state;
    plumb_log *l;
    assert_int_equal(plumb_log_open(&l, "/dev/null/run", 1, 0), PLUMB_E_IO);
    assert_null(l);
    char dir[128];
    snprintf(dir, sizeof dir, "%s/other", folder);
    char inner[160];
    snprintf(inner, sizeof inner, "%s/metrics.jsonl", dir);
    assert_ok(plumb_make_dirs(inner)); /* a folder of that name */
    assert_int_equal(plumb_log_open(&l, dir, 1, 0), PLUMB_E_IO);
    assert_non_null(strstr(plumb_error_message(), "metrics.jsonl"));
    assert_ok(plumb_log_open(&l, NULL, 1, 0)); /* no folder: no file, all works */
    log_steps(l, 1, 1);
    plumb_log_close(l);
    plumb_log_close(NULL);
    assert_ok(plumb_log_step(NULL, 1, NULL, 0));
    plumb_log_line(NULL, "nothing");
}

/* The disk is full in the middle of a line: an error that names the file, and the file has whole lines. */
static void a_full_disk_leaves_whole_lines(void **state) {
    (void)state;
    plumb_log *l = open_log(0);
    log_steps(l, 1, 3);
    char *whole = read_text(path);
    struct rlimit old, limit;
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = strlen(whole) + 10;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    const plumb_metric metrics[] = {{"loss", 1}};
    plumb_status status = plumb_log_step(l, 4, metrics, 1);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, PLUMB_E_IO);
    assert_non_null(strstr(plumb_error_message(), "metrics.jsonl: cannot write"));
    assert_text(path, whole);
    log_steps(l, 4, 4); /* there is room again */
    plumb_log_close(l);
    char *more = read_text(path);
    assert_memory_equal(more, whole, strlen(whole));
    assert_ptr_equal(strstr(more, "{\"step\": 4, "), more + strlen(whole));
    free(whole);
    free(more);
}

static void survives_failed_allocations(void **state) {
    (void)state;
    char dir[96];
    snprintf(dir, sizeof dir, "%s/run", folder);
    int failures = 0;
    for (long n = 1; n < 200; n++) {
        plumb_log *l = NULL;
        assert_ok(plumb_write_file(path, "{\"step\": 1}\n{\"step\": 2}\n", 24));
        plumb_alloc_fail_after(n);
        const plumb_metric metrics[] = {{"eval_loss", 1}};
        plumb_status status = plumb_log_open(&l, dir, 1, 1);
        if (status == PLUMB_OK) status = plumb_log_step(l, 2, metrics, 1);
        plumb_alloc_fail_after(0);
        plumb_log_close(l);
        char *text = read_text(path); /* the old file or the new one */
        assert_ptr_equal(strstr(text, "{\"step\": 1}\n"), text);
        free(text);
        if (status == PLUMB_OK) break;
        failures++;
    }
    assert_in_range(failures, 5, 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_a_line_per_call),
        cmocka_unit_test(a_resumed_run_has_each_step_once),
        cmocka_unit_test(foreign_lines_stay),
        cmocka_unit_test(refuses_bad_folders),
        cmocka_unit_test(a_full_disk_leaves_whole_lines),
        cmocka_unit_test(survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
