/* What appears on a terminal and elsewhere. A pseudo-terminal stands for the screen; a small emulator of the two
 * sequences that are used (carriage return, clear to the end of the line) says what a person would see. */
#include "log_test.h"
#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include "../../../src/log/log_internal.h"

enum { COLUMNS = 80, ROWS = 64, OUTPUT_MAX = 1 << 16 };

typedef struct screen {
    char cell[ROWS][COLUMNS + 1];
    int row, column;
    bool wrapped; /* something reached the last column */
} screen;

static void show(screen *s, const char *text) {
    memset(s, 0, sizeof *s);
    for (const char *c = text; *c; c++) {
        if (*c == '\r') {
            s->column = 0;
        } else if (*c == '\n') {
            s->row++; /* the terminal's driver has put a carriage return before it */
        } else if (!strncmp(c, "\033[K", 3)) {
            memset(s->cell[s->row] + s->column, 0, (size_t)(COLUMNS - s->column));
            c += 2;
        } else if (s->column < COLUMNS) {
            s->cell[s->row][s->column++] = *c;
            s->wrapped |= s->column == COLUMNS;
        }
        assert_in_range(s->row, 0, ROWS - 1);
    }
}

typedef struct capture {
    int saved, reader;
    bool terminal;
} capture;

/* stderr becomes a pseudo-terminal or a pipe. */
static capture begin(bool terminal, int columns) {
    capture c = {.terminal = terminal};
    int ends[2];
    if (terminal) {
        struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
        assert_int_equal(openpty(&ends[0], &ends[1], NULL, NULL, &size), 0);
    } else {
        assert_int_equal(pipe(ends), 0);
    }
    c.reader = ends[0];
    c.saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    return c;
}

static void end(capture *c, char *text) {
    fcntl(c->reader, F_SETFL, O_NONBLOCK);
    size_t used = 0;
    for (ssize_t n; used < OUTPUT_MAX - 1 && (n = read(c->reader, text + used, OUTPUT_MAX - 1 - used)) > 0;)
        used += (size_t)n;
    text[used] = 0;
    dup2(c->saved, STDERR_FILENO);
    close(c->saved);
    close(c->reader);
}

static void step(plumb_log *l, int64_t number, double loss) {
    const plumb_metric metrics[] = {{"loss", loss}, {"learning_rate", 3.1e-5}, {"tokens_per_second", 412.4}};
    assert_ok(plumb_log_step(l, number, metrics, 3));
}

static char output[OUTPUT_MAX];

static void draws_one_line_on_a_terminal(void **state) {
    (void)state;
    setenv("TERM", "xterm", 1);
    unsetenv("PLUMB_PROGRESS");
    capture c = begin(true, COLUMNS);
    plumb_log *l;
    const plumb_metric evaluation[] = {{"eval_loss", 1.5}, {"eval_perplexity", NAN}};
    assert_ok(plumb_log_open(&l, NULL, 4, 0));
    plumb_log_line(l, "before the bar");
    step(l, 1, 2.5);
    plumb_log_line(l, "a message of %d\n", 1);
    usleep(60000);
    step(l, 2, 2.25);
    assert_ok(plumb_log_step(l, 2, evaluation, 2));
    step(l, 4, 1.203);
    plumb_log_close(l);
    end(&c, output);
    screen s;
    show(&s, output);
    assert_string_equal(s.cell[0], "before the bar");
    assert_string_equal(s.cell[1], "a message of 1");
    assert_string_equal(s.cell[2], "step 2  eval_loss 1.5  eval_perplexity nan");
    assert_ptr_equal(strstr(s.cell[3], "step 4/4 [======"), s.cell[3]); /* the bar's last state, once */
    assert_non_null(strstr(s.cell[3], "]  loss 1.203  lr 3.1e-05  412 tok/s  ETA 0:00"));
    assert_string_equal(s.cell[4], "");
    assert_int_equal(s.row, 4);
    assert_int_equal(s.column, 0);
    assert_false(s.wrapped);
    assert_non_null(strstr(output, "step 2/4 ["));
}

/* The window is narrower than the line: it is cut, never wrapped. */
static void fits_the_window(void **state) {
    (void)state;
    for (int columns = 20; columns <= 60; columns += 5) {
        capture c = begin(true, columns);
        plumb_log *l;
        assert_ok(plumb_log_open(&l, NULL, 4, 0));
        step(l, 4, 1.203);
        plumb_log_close(l);
        end(&c, output);
        screen s;
        show(&s, output);
        assert_in_range(strlen(s.cell[0]), 15, columns - 1);
        assert_string_equal(s.cell[1], "");
    }
}

static void writes_plain_lines_elsewhere(void **state) {
    (void)state;
    plumb_log *l;
    capture c = begin(false, 0);
    assert_ok(plumb_log_open(&l, NULL, 4, 2));
    plumb_log_line(l, "hello");
    step(l, 3, -NAN);
    step(l, 4, -INFINITY);
    plumb_log_close(l);
    end(&c, output);
    assert_string_equal(output, "hello\n"
                                "step 3/4  loss nan  lr 3.1e-05  412 tok/s  ETA 0:00\n"
                                "step 4/4  loss -inf  lr 3.1e-05  412 tok/s  ETA 0:00\n");
    setenv("TERM", "dumb", 1);
    c = begin(true, COLUMNS);
    assert_ok(plumb_log_open(&l, NULL, 0, 0));
    step(l, 3, 1);
    plumb_log_close(l);
    end(&c, output);
    assert_string_equal(output, "step 3  loss 1  lr 3.1e-05  412 tok/s\r\n"); /* total not known: no ETA */
    setenv("TERM", "xterm", 1);
    setenv("PLUMB_PROGRESS", "plain", 1);
    c = begin(true, COLUMNS);
    assert_ok(plumb_log_open(&l, NULL, 0, 0));
    step(l, 3, 1);
    plumb_log_close(l);
    end(&c, output);
    assert_null(strstr(output, "\033"));
    setenv("PLUMB_PROGRESS", "bar", 1);
    c = begin(false, COLUMNS);
    assert_ok(plumb_log_open(&l, NULL, 4, 0));
    step(l, 2, 1);
    plumb_log_close(l);
    end(&c, output);
    assert_ptr_equal(strstr(output, "\rstep 2/4 [===="), output);
    unsetenv("PLUMB_PROGRESS");
}

static void estimates_the_time_left(void **state) {
    (void)state;
    plumb_progress p = {.total = 100};
    p.last_time = 1000;
    assert_true(plumb_progress_eta(&p, 0, 1000) == -1); /* nothing to go by */
    double now = 1000;
    for (int i = 1; i <= 10; i++) {
        now += 2;
        assert_true(fabs(plumb_progress_eta(&p, i, now) - 2.0 * (100 - i)) <
                    1e-9); /* exact for an even pace, from the first step */
    }
    now += 62; /* one pause of a minute is smoothed ... */
    double after = plumb_progress_eta(&p, 11, now);
    assert_true(after > 2.0 * 89 && after < 62.0 * 89 / 3);
    for (int i = 12; i <= 50; i++) {
        now += 2;
        after = plumb_progress_eta(&p, i, now);
    }
    assert_true(fabs(after - 100) < 5); /* ... and forgotten */
    assert_true(plumb_progress_eta(&p, 100, now + 2) == 0);
    assert_true(plumb_progress_eta(&p, 120, now + 4) == 0);
    plumb_progress q = {.total = 100, .last_step = 50, .last_time = 0}; /* resumed; a line for every ten steps */
    assert_true(fabs(plumb_progress_eta(&q, 60, 30) - 120) < 1e-9);
}

static void formats_durations(void **state) {
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0:00"},         {0.4, "0:00"},     {42, "0:42"},          {201, "3:21"},
                 {3599.6, "1:00:00"}, {3723, "1:02:03"}, {360000, "100:00:00"}, {1e300, "99999:59:59"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        plumb_progress_duration(text, sizeof text, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

static void formats_the_line(void **state) {
    (void)state;
    const plumb_metric metrics[] = {{"learning_rate", 3.1e-5}, {"loss", 1.2034}, {"tokens_per_second", 412}};
    char line[PROGRESS_LINE];
    plumb_progress_format(line, sizeof line, 79, true, 40, 104, 201, metrics, 3);
    assert_string_equal(line, "step 40/104 [=======>            ]  loss 1.203  lr 3.1e-05  412 tok/s  ETA 3:21");
    plumb_progress_format(line, sizeof line, 79, true, 0, 104, -1, metrics, 0);
    assert_string_equal(line, "step 0/104 [                              ]");
    plumb_progress_format(line, sizeof line, 79, true, INT64_MAX, INT64_MAX, 1e300, metrics, 3);
    assert_true(strlen(line) <= 79);
    const plumb_metric huge[] = {{"loss", 1e308}, {"learning_rate", -1e-308}, {"tokens_per_second", 1e308}};
    plumb_progress_format(line, sizeof line, 79, true, 1, 2, 1e300, huge, 3);
    assert_true(strlen(line) <= 79);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_one_line_on_a_terminal),
        cmocka_unit_test(fits_the_window),
        cmocka_unit_test(writes_plain_lines_elsewhere),
        cmocka_unit_test(estimates_the_time_left),
        cmocka_unit_test(formats_durations),
        cmocka_unit_test(formats_the_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
