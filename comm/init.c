/* Start and end of communication.
 *
 * Order matters at the start: handlers before MPI_Init (a signal may come while it runs, and MPI's own threads should
 * inherit nothing odd), allocator limits before the first large block, the watchdog last. At the end: all ranks meet in
 * a bounded barrier while heartbeats go on, then the watchdogs part in an orderly way, then MPI_Finalize runs under a
 * guard, since it cannot be left. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "internal.h"

enum { START_SECONDS = 300, FINALIZE_SECONDS = 20 };

#define ALONE(title)                                                                                                   \
    { .name = title, .comm = MPI_COMM_NULL, .rank = 0, .size = 1 }
comm_state comm = {
    .axes = {ALONE("data"), ALONE("tensor"), ALONE("pipeline"), ALONE("context"), ALONE("world")},
    .node = ALONE("node"),
    .cores = 1,
    .timeout = PLUMB_COMM_TIMEOUT,
};

static void abort_on_bug(void) {
    plumb_comm_abort(1);
}

/* MPI maps and unmaps its temporaries on each call unless the heap keeps them: reduce-scatter at 64 MiB was 5-10 times
 * slower. */
static void keep_freed_memory(void) {
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the largest value that glibc takes */
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
}

plumb_status plumb_comm_init(int *argc, char ***argv) {
    if (comm.ready) return plumb_error(PLUMB_E_COMM, "plumb_comm_init was called twice");
    comm_signals_install();
    keep_freed_memory();
    plumb_comm_host();
    comm_guard_start(START_SECONDS, "starting MPI");
    int provided = MPI_THREAD_SINGLE;
    comm_check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
    comm_signals_install(); /* a launcher's library may have put its own in place */
    comm_mesh_create();
    comm.threads = provided == MPI_THREAD_MULTIPLE;
#ifndef NDEBUG
    comm.check = true;
#endif
    const char *check = getenv("PLUMB_COMM_CHECK");
    if (check) comm.check = strcmp(check, "0") != 0;
    comm_raw_bcast(&comm.axes[PLUMB_AXIS_WORLD], &comm.check, sizeof comm.check, 0);
    comm_guard_stop();
    comm.ready = true;
    plumb_bug_abort = abort_on_bug;
    if (comm.axes[PLUMB_AXIS_WORLD].size == 1) return PLUMB_OK;
    if (!comm.threads) {
        if (comm.axes[PLUMB_AXIS_WORLD].rank == 0)
            fprintf(stderr,
                    "plumb: this MPI does not grant MPI_THREAD_MULTIPLE: no heartbeats; a dead rank is noticed after "
                    "%.0f s\n",
                    comm.timeout);
        return PLUMB_OK;
    }
    return comm_watchdog_start();
}

void plumb_comm_finalize(void) {
    if (!comm.ready) return;
    plumb_comm_doing("finishing", atomic_load(&comm.step));
    if (comm.axes[PLUMB_AXIS_WORLD].size > 1) {
        MPI_Request request;
        comm_axis *world = &comm.axes[PLUMB_AXIS_WORLD];
        world->sequence++;
        atomic_store(&comm.call.operation, "finalize");
        atomic_store(&comm.call.axis, world->name);
        atomic_store(&comm.call.sequence, world->sequence);
        atomic_store(&comm.call.waiting, true);
        comm_check_mpi(MPI_Ibarrier(comm.closing, &request), "MPI_Ibarrier");
        comm_wait(&request, 1, COMM_PACE_IDLE);
        comm_end();
        comm_watchdog_stop();
    }
    comm_guard_start(FINALIZE_SECONDS, "MPI_Finalize");
    comm_mesh_free();
    MPI_Finalize();
    comm_guard_stop();
    for (int a = 0; a < PLUMB_AXIS_COUNT; a++) comm.axes[a].rank = 0, comm.axes[a].size = 1;
    comm.node.rank = 0, comm.node.size = 1;
    comm.ready = false;
    plumb_bug_abort = abort;
}

void plumb_comm_set_timeout(double seconds) {
    comm.timeout = seconds > 0 ? seconds : PLUMB_COMM_TIMEOUT;
}

void plumb_comm_doing(const char *what, int64_t step) {
    atomic_store_explicit(&comm.step, step, memory_order_relaxed);
    atomic_store_explicit(&comm.doing, what, memory_order_release);
}
