/* Reward programs that do as they should, and those that do not: they die, hang, flood, stay deaf, talk nonsense.  All
 * is over in time, the message says what happened, and no process stays behind. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>
#include "plumb/reward.h"
#include "reward_helper.h"

#define ASSERT_OK(expression)                                                                                          \
    do {                                                                                                               \
        if ((expression) != PLUMB_OK) fail_msg("%s", plumb_error_message());                                           \
    } while (0)

enum { MANY = 200 };
static char self[1024], pids[64];
static plumb_reward_item items[MANY];
static double rewards[MANY];

static int set_up(void **state) {
    (void)state;
    for (int i = 0; i < MANY; i++)
        items[i] = (plumb_reward_item){
            .prompt = "p", .completion = i % 3 ? "ab" : "", .answer = i % 5 ? "a" : NULL, .record = i};
    strcpy(pids, "/tmp/plumb_reward_XXXXXX");
    int fd = mkstemp(pids);
    if (fd < 0 || setenv("PLUMB_TEST_PIDS", pids, 1)) return 1;
    close(fd);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(pids);
    return 0;
}

static double expected_of(const plumb_reward_item *i) {
    return (double)i->record + (double)strlen(i->completion) / 1000;
}

/* Runs, stopped ones too; a zombie whose parent does not care does not count. */
static bool runs(int pid) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return false;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    const char *name_end = strrchr(line, ')');
    return name_end && name_end[2] != 'Z' && name_end[2] != 'X';
}

/* How many processes wrote their id; all must be gone. The file is emptied. */
static int started_and_gone(void) {
    FILE *f = fopen(pids, "r");
    int pid, n = 0;
    assert_non_null(f);
    for (; fscanf(f, "%d", &pid) == 1; n++) {
        for (int wait = 0; wait < 500 && runs(pid); wait++) usleep(10000); /* killed, and not yet taken down */
        if (runs(pid)) fail_msg("process %d still runs", pid);
    }
    fclose(f);
    assert_int_equal(truncate(pids, 0), 0);
    return n;
}

static plumb_reward_source *open_source(const char *temper, int k, double seconds, int retries) {
    plumb_reward_source *s;
    char spec[1200];
    snprintf(spec, sizeof spec, "program:exec '%s' helper %s %d", self, temper, k);
    ASSERT_OK(plumb_reward_source_create(&s, spec, &(plumb_reward_limits){seconds, retries}));
    return s;
}

static void score_all(plumb_reward_source *s, int n) {
    for (int i = 0; i < n; i++) rewards[i] = NAN;
    ASSERT_OK(plumb_reward_source_score(s, items, n, rewards));
    for (int i = 0; i < n; i++)
        if (rewards[i] != expected_of(&items[i]))
            fail_msg("reward %d is %.17g, expected %.17g", i, rewards[i], expected_of(&items[i]));
}

/* --- programs that work ----------------------------------------------------------------------- */

static void test_answers(void **state) {
    (void)state;
    static const char *const tempers[] = {"plain", "object", "stubborn"};
    for (int i = 0; i < 3; i++) {
        plumb_reward_source *s = open_source(tempers[i], 0, 20, 0);
        for (int round = 0; round < 3; round++) score_all(s, MANY);
        ASSERT_OK(plumb_reward_source_score(s, items, 0, rewards));
        plumb_reward_source_free(s);
        assert_int_equal(started_and_gone(), 1); /* one process for all rounds */
    }
    plumb_reward_source_free(open_source("plain", 0, 20, 0)); /* started at first use */
    assert_int_equal(started_and_gone(), 0);
}

static void test_shell(void **state) {
    (void)state;
    plumb_reward_source *s;
    ASSERT_OK(plumb_reward_source_create(&s, "program:n=0; while read -r line; do n=$((n + 1)); echo \" $n.5 \"; done",
                                         NULL));
    ASSERT_OK(plumb_reward_source_score(s, items, 40, rewards));
    for (int i = 0; i < 40; i++) assert_true(rewards[i] == i + 1.5);
    plumb_reward_source_free(s);
    ASSERT_OK(plumb_reward_source_create(
        &s, "program:sed -u 's/.*\"record\":\\([0-9]*\\)}$/\\1/' /dev/stdin | sed -u 's/^/-/'", NULL));
    ASSERT_OK(plumb_reward_source_score(s, items, 40, rewards));
    for (int i = 0; i < 40; i++) assert_true(rewards[i] == -i);
    plumb_reward_source_free(s);
}

/* Once a program has answered one request it is given 32 ahead of its answers. */
static void test_window(void **state) {
    (void)state;
    plumb_reward_source *s = open_source("ahead", 32, 5, 0);
    score_all(s, 161);
    plumb_reward_source_free(s);
    s = open_source("unflushed", 0, 0.3, 0);
    assert_int_equal(plumb_reward_source_score(s, items, 8, rewards), PLUMB_E_IO);
    assert_non_null(strstr(plumb_error_message(), "record 1: it gave no answer for 0.3 s (answers must be flushed"));
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 2);
}

/* The limit is for a completion, not for all of them. */
static void test_slow(void **state) {
    (void)state;
    plumb_reward_source *s = open_source("slow", 0, 1, 0);
    score_all(s, 20);
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 1);
}

static void test_texts(void **state) {
    (void)state;
    enum { LARGE = 5 << 20 };
    char *large = malloc(LARGE + 1);
    memset(large, 'x', LARGE);
    large[LARGE] = 0;
    large[7] = '\n', large[8] = '"', large[9] = '\\', large[10] = 1;
    plumb_reward_item texts[] = {
        {.prompt = "a\"b\\\n\t\x01\xff", .completion = "1\n2\r\n3", .answer = "minus", .record = 1},
        {.prompt = "", .completion = "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", .record = 2},
        {.prompt = "", .completion = "a\xff\xc3(\xed\xa0\x80z", .answer = "\xfe", .record = 3}, /* six replaced bytes */
        {.prompt = "p", .completion = large, .answer = large, .record = 4},
        {.prompt = large, .completion = large, .record = 5},
        {.prompt = "p", .completion = large, .record = 6},
        {.prompt = "", .completion = "\xe2\x80\xa8\x7f", .record = 7},
    };
    static const double expected[] = {-1.006, 2.009, 3.018, 4 + LARGE / 1000.0, 5 + LARGE / 1000.0, 6 + LARGE / 1000.0,
                                      7.004};
    plumb_reward_source *s = open_source("plain", 0, 20, 0);
    ASSERT_OK(plumb_reward_source_score(s, texts, 7, rewards));
    for (int i = 0; i < 7; i++)
        if (fabs(rewards[i] - expected[i]) > 1e-9)
            fail_msg("text %d: %.17g, expected %.17g", i, rewards[i], expected[i]);
    plumb_reward_source_free(s);
    free(large);
    assert_int_equal(started_and_gone(), 1);
}

/* --- programs that recover -------------------------------------------------------------------- */

static void test_restarts(void **state) {
    (void)state;
    static const struct {
        const char *temper;
        int k, processes; /* children included */
        double seconds;
    } cases[] = {
        {"dies", 10, 20, 20},                            /* each answers ten: one failure in a row */
        {"killed", 50, 4, 20},   {"hangs", 100, 4, 1}, /* two, and a child of each */
        {"garbage", 100, 2, 20}, {"dies_once", 7, 2, 20}, {"hangs_once", 7, 2, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_reward_source *s = open_source(cases[i].temper, cases[i].k, cases[i].seconds, 1);
        score_all(s, MANY);
        plumb_reward_source_free(s);
        int found = started_and_gone();
        if (found != cases[i].processes)
            fail_msg("%s %d: %d processes, expected %d", cases[i].temper, cases[i].k, found, cases[i].processes);
    }
}

/* A process that ends between two calls is replaced and counts for nothing. */
static void test_death_between_calls(void **state) {
    (void)state;
    plumb_reward_source *s = open_source("dies", 20, 20, 0);
    for (int i = 0; i < 4; i++) {
        score_all(s, 20);
        usleep(100000);
    }
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 4);
}

/* A line too many somewhere: seen at the end of the call or, on a machine that is busy, by the next one, which takes
 * nothing more from that process. */
static void test_leftovers(void **state) {
    (void)state;
    static const struct {
        const char *temper;
        int k;
    } cases[] = {{"once_twice", 40}, {"once_twice", 7}, {"half_line", 40}};
    for (int i = 0; i < 3; i++) {
        plumb_reward_source *s = open_source(cases[i].temper, cases[i].k, 20, 1);
        ASSERT_OK(plumb_reward_source_score(s, items, 40, rewards));
        usleep(100000);
        for (int round = 0; round < 3; round++) score_all(s, 40);
        plumb_reward_source_free(s);
        assert_int_equal(started_and_gone(), 2);
    }
}

/* The rest goes to a new process when one stops reading but goes on living. */
static void test_stops_reading(void **state) {
    (void)state;
    plumb_reward_source *s = open_source("stops_reading", 10, 0.4, 0);
    assert_int_equal(plumb_reward_source_score(s, items, MANY, rewards), PLUMB_E_IO);
    plumb_reward_source_free(s);
    s = open_source("stops_reading", 10, 1, 1);
    ASSERT_OK(plumb_reward_source_score(s, items, 15, rewards));
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 3);
}

/* --- programs that fail ----------------------------------------------------------------------- */

static void test_failures(void **state) {
    (void)state;
    static const struct {
        const char *temper;
        int k;
        plumb_status status;
        int processes; /* children included; 0: any number */
        const char *says[2];
    } cases[] = {
        {"exits", 0, PLUMB_E_IO, 3, {"record 1: it ", "and exited with status 9; tried 3 times"}},
        {"deaf", 0, PLUMB_E_IO, 6, {"record 1: it gave no answer for 0.4 s", "tried 3 times"}},
        {"closes_input", 0, PLUMB_E_IO, 3, {"record 1: it ", "tried 3 times"}},
        {"closes_output", 0, PLUMB_E_IO, 3, {"record 1: it ended its output and was killed", ""}},
        {"floods", 0, PLUMB_E_DATA, 3, {"record 1: it wrote \"1\" before it was asked", "tried 3 times"}},
        {"floods_bytes", 0, PLUMB_E_DATA, 3, {"record 1: it wrote", "bytes without a line end"}},
        {"twice", 0, PLUMB_E_DATA, 3, {"wrote \"0.5\" before it was asked, or more than one line for a request", ""}},
        {"garbage",
         0,
         PLUMB_E_DATA,
         3,
         {"record 1: it answered \"I think ?? it is good\", expected a finite number", ""}},
        {"nan", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"nan\"", ""}},
        {"inf", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"1e999\"", ""}},
        {"hexadecimal", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"0x10\"", ""}},
        {"blank", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"\"", ""}},
        {"two", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"1 2\"", ""}},
        {"nul", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"1?x\"", ""}},
        {"text_reward", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"{\"reward\": \"1\"}\"", ""}},
        {"nan_reward", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"{\"reward\": NaN}\"", ""}},
        {"other_object", 0, PLUMB_E_DATA, 3, {"record 1: it answered \"{\"score\": 1}\"", "{\"reward\": number}"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plumb_reward_source *s = open_source(cases[i].temper, cases[i].k, 0.4, 2);
        double begin = plumb_clock();
        plumb_status status = plumb_reward_source_score(s, items, MANY, rewards);
        if (status != cases[i].status || !strstr(plumb_error_message(), cases[i].says[0]) ||
            !strstr(plumb_error_message(), cases[i].says[1]) ||
            !strstr(plumb_error_message(), "reward program \"exec '"))
            fail_msg("%s: %d, %s", cases[i].temper, status, status ? plumb_error_message() : "");
        assert_true(plumb_clock() - begin < 10);
        plumb_reward_source_free(s);
        int found = started_and_gone();
        if (cases[i].processes) assert_int_equal(found, cases[i].processes);
    }
}

static void test_no_command(void **state) {
    (void)state;
    plumb_reward_source *s;
    ASSERT_OK(
        plumb_reward_source_create(&s, "program:plumb_no_such_command 2>/dev/null", &(plumb_reward_limits){5, 0}));
    assert_int_equal(plumb_reward_source_score(s, items, 3, rewards), PLUMB_E_IO);
    assert_non_null(strstr(plumb_error_message(), "\"plumb_no_such_command 2>/dev/null\": record 1"));
    assert_non_null(
        strstr(plumb_error_message(), "exited with status 127 (the shell found no such command); tried 1 times"));
    plumb_reward_source_free(s);
}

static void test_start(void **state) { /* ahead of the first request */
    (void)state;
    plumb_reward_source *s;
    ASSERT_OK(plumb_reward_source_create(&s, "program:plumb_no_such_command 2>/dev/null", &(plumb_reward_limits){5, 0}));
    ASSERT_OK(plumb_reward_source_start(s));
    double end = plumb_clock() + 10;
    plumb_status status = PLUMB_OK;
    while (status == PLUMB_OK && plumb_clock() < end) status = plumb_reward_source_start(s);
    assert_int_equal(status, PLUMB_E_CONFIG);
    assert_non_null(strstr(plumb_error_message(), "plumb_no_such_command 2>/dev/null\": the shell cannot run it"));
    plumb_reward_source_free(s);
    s = open_source("exits", 0, 5, 30); /* any other end is for scoring, which starts it again */
    ASSERT_OK(plumb_reward_source_start(s));
    for (int i = 0; i < 20; i++) {
        usleep(10000);
        ASSERT_OK(plumb_reward_source_start(s));
    }
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 1);
    s = open_source("plain", 0, 20, 0);
    ASSERT_OK(plumb_reward_source_start(s));
    score_all(s, MANY);
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 1);
}

static bool leave(void) { return true; }
static void test_leaving(void **state) { /* nobody waits long for a judge that is not nearly through */
    (void)state;
    plumb_reward_source *s = open_source("deaf", 0, 60, 0);
    plumb_reward_source_leave_when(s, leave);
    double began = plumb_clock();
    ASSERT_OK(plumb_reward_source_score(s, items, MANY, rewards));
    assert_true(plumb_reward_source_left(s));
    assert_true(plumb_clock() - began < 10);
    plumb_reward_source_free(s);
    assert_true(started_and_gone() >= 1);
    s = open_source("plain", 0, 20, 0); /* one that is may finish */
    plumb_reward_source_leave_when(s, leave);
    score_all(s, MANY);
    assert_false(plumb_reward_source_left(s));
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 1);
}

/* What a failed call leaves is usable: a source that failed once works when its program does. */
static void test_again(void **state) {
    (void)state;
    plumb_reward_source *s = open_source("dies_once", 1, 5, 0);
    assert_int_equal(plumb_reward_source_score(s, items, MANY, rewards), PLUMB_E_IO);
    score_all(s, MANY);
    plumb_reward_source_free(s);
    assert_int_equal(started_and_gone(), 2);
}

/* --- the process around it -------------------------------------------------------------------- */

static volatile sig_atomic_t pipes;
static void on_pipe(int signal_number) {
    (void)signal_number;
    pipes++;
}

/* SIGPIPE goes to nobody: neither a handler of somebody else runs, nor is one left pending, nor the disposition
 * changed. */
static void test_signals(void **state) {
    (void)state;
    struct sigaction mine = {.sa_handler = on_pipe}, found;
    sigset_t mask, pending;
    assert_int_equal(sigaction(SIGPIPE, &mine, NULL), 0);
    plumb_reward_source *s = open_source("exits", 0, 5, 30);
    assert_int_equal(plumb_reward_source_score(s, items, MANY, rewards), PLUMB_E_IO);
    plumb_reward_source_free(s);
    s = open_source("closes_input", 0, 0.4, 1);
    assert_int_equal(plumb_reward_source_score(s, items, MANY, rewards), PLUMB_E_IO);
    plumb_reward_source_free(s);
    assert_int_equal(pipes, 0);
    sigpending(&pending);
    assert_false(sigismember(&pending, SIGPIPE));
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    assert_false(sigismember(&mask, SIGPIPE));
    assert_int_equal(sigaction(SIGPIPE, NULL, &found), 0);
    assert_ptr_equal(found.sa_handler, on_pipe);
    signal(SIGPIPE, SIG_DFL);
    assert_int_equal(started_and_gone(), 33);
}

static int open_files(void) {
    struct stat s;
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fstat(fd, &s) == 0;
    return n;
}

/* Nothing leaks, and a second program does not keep the first one's input open. */
static void test_two_programs(void **state) {
    (void)state;
    int before = open_files();
    plumb_reward_source *a = open_source("plain", 0, 5, 0), *b = open_source("plain", 0, 5, 0), *c;
    score_all(a, 10);
    score_all(b, 10);
    double begin = plumb_clock();
    plumb_reward_source_free(a); /* its input ends although b was started after it */
    assert_true(plumb_clock() - begin < 1.5);
    score_all(b, 10);
    plumb_reward_source_free(b);
    c = open_source("exits", 0, 5, 5);
    assert_int_equal(plumb_reward_source_score(c, items, 4, rewards), PLUMB_E_IO);
    plumb_reward_source_free(c);
    assert_int_equal(open_files(), before);
    (void)started_and_gone();
}

static void test_memory(void **state) {
    (void)state;
    plumb_status status = PLUMB_E_MEMORY;
    for (long n = 1; status != PLUMB_OK; n++) {
        plumb_reward_source *s = NULL;
        char spec[1200];
        snprintf(spec, sizeof spec, "program:exec '%s' helper plain 0", self);
        plumb_alloc_fail_after(n);
        status = plumb_reward_source_create(&s, spec, &(plumb_reward_limits){5, 3});
        if (status == PLUMB_OK) status = plumb_reward_source_score(s, items, 3, rewards);
        plumb_alloc_fail_after(0);
        assert_true(status == PLUMB_OK || status == PLUMB_E_MEMORY);
        plumb_reward_source_free(s);
        assert_true(n < 100);
    }
    (void)started_and_gone();
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "helper")) return reward_helper(argv[2], argc > 3 ? atoi(argv[3]) : 0);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return 1;
    self[n] = 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers),
                                       cmocka_unit_test(test_shell),
                                       cmocka_unit_test(test_window),
                                       cmocka_unit_test(test_slow),
                                       cmocka_unit_test(test_texts),
                                       cmocka_unit_test(test_restarts),
                                       cmocka_unit_test(test_leftovers),
                                       cmocka_unit_test(test_stops_reading),
                                       cmocka_unit_test(test_death_between_calls),
                                       cmocka_unit_test(test_failures),
                                       cmocka_unit_test(test_no_command),
                                       cmocka_unit_test(test_start),
                                       cmocka_unit_test(test_leaving),
                                       cmocka_unit_test(test_again),
                                       cmocka_unit_test(test_signals),
                                       cmocka_unit_test(test_two_programs),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
