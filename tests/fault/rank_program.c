/* A rank that misbehaves on request: rank_program MODE DIR. Every rank writes its pid to DIR/pid-R when it is ready;
 * the script beside watches the processes from outside. Rank 1 is the one at fault; the others go on with collectives.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "plumb/comm.h"

static int rank;

static void write_pid(const char *dir) {
    char path[4096], ready[4100];
    snprintf(ready, sizeof ready, "%s/pid-%d", dir, rank);
    snprintf(path, sizeof path, "%s/.pid-%d", dir, rank);
    FILE *f = fopen(path, "w");
    if (!f) plumb_comm_abort(3);
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
    if (rename(path, ready)) plumb_comm_abort(3);
}

static void compute_for(double seconds) {
    volatile double x = 0;
    for (double start = plumb_clock(); plumb_clock() - start < seconds;) x = x + 1;
}

static void take_steps(int count, int microseconds) {
    for (int step = 0; step < count; step++) {
        int64_t value = rank;
        plumb_comm_doing("taking steps", step);
        plumb_comm_sum_i64(PLUMB_AXIS_DATA, &value, 1);
        usleep((useconds_t)microseconds);
    }
}

static void disturb(const char *mode, const char *dir) {
    if (!strcmp(mode, "kill") && rank == 1) raise(SIGKILL);
    if (!strcmp(mode, "stop") && rank == 1) raise(SIGSTOP);
    if (!strcmp(mode, "exit") && rank == 1) _exit(0);
    if (!strcmp(mode, "bug") && rank == 1) PLUMB_BUG("a broken invariant on purpose");
    if (!strcmp(mode, "abort") && rank == 1) plumb_comm_abort(9);
    if (!strcmp(mode, "compute") && rank == 1) compute_for(5); /* others wait for it in the next collective */
    if (!strcmp(mode, "mismatch") && rank == 1) plumb_comm_barrier(PLUMB_AXIS_DATA);
    if (!strcmp(mode, "late")) { /* alive, but elsewhere for longer than the others wait */
        plumb_comm_set_timeout(2);
        if (rank == 1) {
            plumb_comm_doing("dreaming", 7);
            compute_for(60);
        }
    }
    if (!strcmp(mode, "finalize")) {
        if (rank == 1) _exit(0);
        plumb_comm_finalize();
        _exit(0); /* reached only by a finalize that did not wait for rank 1 */
    }
    if (!strcmp(mode, "bulk") && rank == 1) { /* a large gather, killed in the middle of the transfer */
        char path[4096];
        snprintf(path, sizeof path, "%s/bulk", dir);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd >= 0) close(fd);
    }
    if (!strcmp(mode, "bulk")) {
        int size = plumb_comm_size(PLUMB_AXIS_DATA);
        size_t bytes = (size_t)32 << 20;
        char *mine = calloc(1, bytes), *all = calloc((size_t)size, bytes);
        for (;;) plumb_comm_allgather(PLUMB_AXIS_DATA, mine, bytes, all);
    }
}

int main(int argc, char **argv) {
    if (plumb_comm_init(&argc, &argv) != PLUMB_OK) {
        fprintf(stderr, "%s\n", plumb_error_message());
        return 1;
    }
    if (argc != 3) return 2;
    rank = plumb_comm_rank(PLUMB_AXIS_WORLD);
    take_steps(3, 1000);
    write_pid(argv[2]);
    plumb_comm_barrier(PLUMB_AXIS_WORLD);
    disturb(argv[1], argv[2]);
    take_steps(!strcmp(argv[1], "pause") ? 30 : 100, 20000);
    plumb_comm_finalize();
    return 0;
}
