/* cmocka under mpirun.
 *
 * An assertion that fails on one rank must fail on all, or the others wait in the next collective for ever. `check_all`
 * brings the verdicts together and fails everywhere; the rank that saw the fault prints the line. cmocka's own
 * assertions are for values that are equal on all ranks anyway. A test that hangs all the same is ended by an alarm
 * that names the test and the rank. Only rank 0 prints cmocka's report. */
#ifndef MPI_TEST_H
#define MPI_TEST_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "plumb/comm.h"

/* MPI libraries keep memory until the end, in modules that are unloaded by then: the leak checker cannot be told which.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

enum { MPI_TEST_SECONDS = 60 };
static const char *mpi_test_name = "start";
static int my_rank, rank_count;

static void mpi_test_alarm(int number) {
    (void)number;
    char text[200];
    int n = snprintf(text, sizeof text, "[rank %d] time is up in %s: did another rank leave a collective?\n", my_rank,
                     mpi_test_name);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) {
    }
    _exit(124);
}

static int mpi_test_begin(void **state) {
    mpi_test_name = *state ? (const char *)*state : "?";
    *state = NULL;
    alarm(MPI_TEST_SECONDS);
    return 0;
}

static int mpi_test_end(void **state) {
    (void)state;
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
    alarm(0);
    return 0;
}

static bool all_ranks(bool condition, const char *text, const char *file, int line) {
    if (!condition) fprintf(stderr, "[rank %d] %s:%d: %s\n", my_rank, file, line, text);
    int64_t failures = !condition;
    plumb_comm_sum_i64(PLUMB_AXIS_WORLD, &failures, 1);
    return failures == 0;
}
#define check_all(condition)                                                                                           \
    do {                                                                                                               \
        if (!all_ranks((condition), #condition, __FILE__, __LINE__))                                                   \
            fail_msg("%s:%d: failed on at least one rank: %s", __FILE__, __LINE__, #condition);                        \
    } while (0)

#define mpi_test(function)                                                                                             \
    { #function, function, mpi_test_begin, mpi_test_end, (void *)#function }

static int mpi_test_main(int argc, char **argv, const char *group, const struct CMUnitTest *tests, size_t count) {
    signal(SIGALRM, mpi_test_alarm);
    alarm(MPI_TEST_SECONDS);
    if (plumb_comm_init(&argc, &argv) != PLUMB_OK) {
        fprintf(stderr, "%s\n", plumb_error_message());
        return 1;
    }
    my_rank = plumb_comm_rank(PLUMB_AXIS_WORLD);
    rank_count = plumb_comm_size(PLUMB_AXIS_WORLD);
    if (my_rank && !freopen("/dev/null", "w", stdout)) return 1;
    int64_t failed = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
    plumb_comm_max_i64(PLUMB_AXIS_WORLD, &failed, 1);
    plumb_comm_finalize();
    return failed > 125 ? 125 : (int)failed;
}
#endif
