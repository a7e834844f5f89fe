/* Ending a job, in bounded time and with one line that says why.
 *
 * MPI_Abort asks the launcher to end the other ranks, and may itself wait for a lock that a stuck thread holds, or for
 * a launcher that is gone. So three things happen, each without trusting the next: the peers' watchdogs are told (they
 * end their own processes), MPI_Abort is called, and a thread started beforehand ends this process after 3 s whatever
 * the others do. The first caller ends the job; a second thread that gets here waits for that. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

enum { ABORT_SECONDS = 3 };

static void sleep_whole(double seconds) {
    struct timespec rest = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&rest, &rest) && errno == EINTR) {
    }
}

_Noreturn void comm_park(void) {
    for (;;) sleep_whole(1);
}

static void *end_process_soon(void *code) {
    sleep_whole(ABORT_SECONDS);
    _exit((int)(intptr_t)code);
}

_Noreturn void comm_end_job(int code) {
    static atomic_flag begun = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&begun)) comm_park();
    atomic_store(&comm.ending, true);
    int initialized = 0, finalized = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    pthread_t thread;
    if (!initialized || finalized || pthread_create(&thread, NULL, end_process_soon, (void *)(intptr_t)code)) {
        fflush(NULL);
        _exit(code);
    }
    fflush(NULL);
    comm_watchdog_tell_peers(-1, code);
    MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);
}

_Noreturn void comm_fail(const char *format, ...) {
    char text[2048];
    int n = snprintf(text, sizeof text, "plumb: rank %d (host %s, pid %d): ", comm.axes[PLUMB_AXIS_WORLD].rank,
                     plumb_comm_host(), (int)getpid());
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + n, sizeof text - (size_t)n - 1, format, arguments);
    va_end(arguments);
    strcat(text, "\n"); /* room was left; one write, so that lines of ranks do not mix */
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
    } /* nothing else can be told */
    comm_end_job(1);
}

void plumb_comm_abort(int code) {
    comm_end_job(code);
}

/* --- guards ----------------------------------------------------------------------------------- */

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool running, finished;
    struct timespec deadline;
    double seconds;
    const char *what;
} guard = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *watch_guard(void *unused) {
    (void)unused;
    int code = 0;
    pthread_mutex_lock(&guard.lock);
    while (!guard.finished && code != ETIMEDOUT)
        code = pthread_cond_timedwait(&guard.changed, &guard.lock, &guard.deadline);
    bool late = !guard.finished;
    pthread_mutex_unlock(&guard.lock);
    if (!late) return NULL;
    fprintf(stderr, "plumb: pid %d: %s did not return within %.0f s; is a rank of the job gone, or the network down?\n",
            (int)getpid(), guard.what, guard.seconds);
    _exit(1);
}

void comm_guard_start(double seconds, const char *what) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&guard.changed, &attributes);
    pthread_condattr_destroy(&attributes);
    clock_gettime(CLOCK_MONOTONIC, &guard.deadline);
    guard.deadline.tv_sec += (time_t)seconds;
    guard.seconds = seconds;
    guard.what = what;
    guard.finished = false;
    guard.running =
        pthread_create(&guard.thread, NULL, watch_guard, NULL) == 0; /* without a thread the launcher's limit remains */
}

void comm_guard_stop(void) {
    pthread_mutex_lock(&guard.lock);
    guard.finished = true;
    pthread_cond_signal(&guard.changed);
    pthread_mutex_unlock(&guard.lock);
    if (guard.running) pthread_join(guard.thread, NULL);
    guard.running = false;
    pthread_cond_destroy(&guard.changed);
}
