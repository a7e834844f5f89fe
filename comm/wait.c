/* The bounded wait under every collective, and the bookkeeping that lets a message say what was waited for.
 *
 * MPI_Wait cannot be left, so a wait is a loop around MPI_Testall. It polls for 100 us (a small collective between
 * ranks with their own processor takes 5-20 us), gives way for a while, then sleeps in short steps, so that ranks that
 * outnumber the processors do not starve the one that is waited for. Data in flight moves only inside MPI calls: with
 * COMM_PACE_BULK the loop does not sleep for the first half second.
 *
 * Time is counted in steps of at most a second, so that a job that was stopped for an hour and continued does not find
 * itself late. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "internal.h"

static const double poll_seconds = 100e-6, yield_seconds = 5e-3, bulk_yield_seconds = 0.5, longest_nap = 1e-3;

void comm_check_mpi(int code, const char *call) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    comm_fail("%s failed: %s", call, text);
}

uint64_t comm_mix(uint64_t seed, uint64_t value) { /* the finaliser of splitmix64 (Steele et al. 2014) */
    uint64_t x = seed * 0x9e3779b97f4a7c15u + value;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void *comm_scratch(size_t bytes) {
    if (bytes > comm.scratch_bytes) {
        free(comm.scratch);
        comm.scratch = malloc(bytes);
        comm.scratch_bytes = comm.scratch ? bytes : 0;
        if (!comm.scratch) comm_fail("out of memory: a buffer of %zu bytes for communication", bytes);
    }
    return comm.scratch;
}

/* Every rank must be in the same call with the same arguments: one that is not would hang all, or worse, not hang. */
static void check_same_call(const comm_axis *axis, const char *operation, uint64_t arguments) {
    typedef struct call {
        char operation[COMM_OPERATION];
        uint64_t sequence, arguments;
    } call;
    call mine = {.sequence = (uint64_t)axis->sequence, .arguments = arguments};
    snprintf(mine.operation, sizeof mine.operation, "%s", operation);
    call *all = comm_scratch((size_t)axis->size * sizeof *all);
    comm_raw_gather(axis, &mine, sizeof mine, all);
    for (int r = 0; r < axis->size; r++)
        if (memcmp(&all[r], &mine, sizeof mine))
            comm_fail(
                "the ranks disagree: this one calls %s (number %lld on axis %s), rank %d calls %s (number %lld)%s",
                operation, (long long)axis->sequence, axis->name, r, all[r].operation, (long long)all[r].sequence,
                strcmp(all[r].operation, operation) ? "" : " with other arguments");
}

void comm_begin(comm_axis *axis, const char *operation, uint64_t arguments) {
    axis->sequence++;
    atomic_store_explicit(&comm.call.operation, operation, memory_order_relaxed);
    atomic_store_explicit(&comm.call.axis, axis->name, memory_order_relaxed);
    atomic_store_explicit(&comm.call.sequence, axis->sequence, memory_order_relaxed);
    atomic_store_explicit(&comm.call.waiting, true, memory_order_release);
    if (comm.check && axis->size > 1) check_same_call(axis, operation, arguments);
}

void comm_end(void) {
    atomic_store_explicit(&comm.call.waiting, false, memory_order_release);
}

static _Noreturn void give_up_waiting(void) {
    char absent[768];
    comm_watchdog_absent(absent, sizeof absent);
    const char *doing = atomic_load(&comm.doing);
    comm_fail("waited %.0f s in %s (number %lld on axis %s) at step %lld (%s); %s", comm.timeout,
              atomic_load(&comm.call.operation), (long long)atomic_load(&comm.call.sequence),
              atomic_load(&comm.call.axis), (long long)atomic_load(&comm.step), doing ? doing : "starting", absent);
}

static void pause_briefly(double waited, comm_pace pace) {
    if (!comm.crowded && waited < poll_seconds) return;
    if (waited < (pace == COMM_PACE_BULK ? bulk_yield_seconds : yield_seconds)) {
        sched_yield();
        return;
    }
    double nap = pace == COMM_PACE_BULK ? 20e-6 : waited / 100; /* at most 1 % is added to a wait */
    if (nap > longest_nap) nap = longest_nap;
    nanosleep(&(struct timespec){0, (long)(nap * 1e9)}, NULL);
}

void comm_wait(MPI_Request *requests, int count, comm_pace pace) {
    double last = plumb_clock(), waited = 0;
    for (;;) {
        if (atomic_load_explicit(&comm.ending, memory_order_acquire)) comm_park();
        int done = 0;
        comm_check_mpi(MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE), "MPI_Testall");
        if (done) return;
        double now = plumb_clock();
        waited += now - last < 1 ? now - last : 1;
        last = now;
        if (waited > comm.timeout) give_up_waiting();
        pause_briefly(waited, pace);
    }
}
