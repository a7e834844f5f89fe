/* The watchdog: one thread per rank, so that a job with a dead or stopped rank ends, with a line that names it.
 *
 * Ranks form a ring. Every second a rank's watchdog sends its successor a table with what it last heard of every rank
 * (gossip: entries with the higher beat win, so news travels one rank a second), and it listens to its predecessor. A
 * predecessor that is silent for 15 s is gone: killed without the launcher noticing, stopped (SIGSTOP), or left without
 * a word. A rank that computes for minutes is not silent, since its watchdog answers for it.
 *
 * The watchdog that finds out prints the line, kills the silent process if it is on this node and truly that process,
 * and tells all others directly; each then ends its own process. Nothing depends on the launcher: a survivor is gone at
 * most ~5 s after the verdict.
 *
 * Own time: silence is counted in steps of at most half a second per turn of the loop. A job that is stopped as a whole
 * and continued later (Slurm's suspend, a debugger, a laptop's lid) has counted half a second and goes on.
 *
 * The memory: table[r] is what is known of rank r, guarded by one lock; the message buffers belong to the thread. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

enum { TAG_BEAT = 1, TAG_VERDICT = 2, TAG_GOODBYE = 3 };
static const double turn_seconds = 0.1, longest_turn = 0.5, beat_seconds = 1, default_silence = 15,
                    farewell_seconds = 5;
static const double launcher_seconds = 2; /* left to the launcher after a verdict, before a told rank ends itself */

typedef struct beat {
    uint64_t count; /* beats so far; 0: nothing heard yet */
    int64_t step, sequence;
    int32_t waiting;
    char axis[12], operation[COMM_OPERATION], doing[COMM_DOING];
} beat;

typedef struct verdict {
    int32_t culprit; /* world rank that is silent; -1: the sender ends the job for its own reason */
    int32_t code;
} verdict;

static struct {
    pthread_t thread;
    pthread_mutex_t lock; /* table, stopping */
    pthread_cond_t wake;
    bool running, stopping;
    int rank, size, before, after; /* neighbours in the ring */
    double limit, silence;
    beat *table, *incoming, *outgoing;
    verdict heard;
    int goodbye;
    MPI_Request from_before, to_after, from_any, parting;
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void describe_self(beat *b) {
    const char *doing = atomic_load(&comm.doing), *operation = atomic_load(&comm.call.operation),
               *axis = atomic_load(&comm.call.axis);
    b->count++;
    b->step = atomic_load(&comm.step);
    b->sequence = atomic_load(&comm.call.sequence);
    b->waiting = atomic_load(&comm.call.waiting);
    snprintf(b->axis, sizeof b->axis, "%s", axis ? axis : "");
    snprintf(b->operation, sizeof b->operation, "%s", operation ? operation : "");
    snprintf(b->doing, sizeof b->doing, "%s", doing ? doing : "starting");
}

/* "step 12, backward, waiting in allgather (number 40 on axis data)" */
static void describe_beat(char *text, size_t size, const beat *b) {
    if (!b->count)
        snprintf(text, size, "never heard of");
    else if (b->waiting)
        snprintf(text, size, "step %lld, %s, waiting in %s (number %lld on axis %s)", (long long)b->step, b->doing,
                 b->operation, (long long)b->sequence, b->axis);
    else
        snprintf(text, size, "step %lld, %s", (long long)b->step, b->doing);
}

void comm_watchdog_absent(char *text, size_t size) {
    snprintf(text, size, "which ranks are missing is not known (no heartbeats)");
    if (!dog.running) return;
    size_t used = 0;
    int missing = 0;
    pthread_mutex_lock(&dog.lock);
    beat self = dog.table[dog.rank];
    describe_self(&self);
    for (int r = 0; r < dog.size; r++) {
        const beat *b = &dog.table[r];
        if (r == dog.rank || (b->waiting && b->sequence == self.sequence && !strcmp(b->axis, self.axis) &&
                              !strcmp(b->operation, self.operation)))
            continue;
        if (++missing > 3 || used + 1 >= size) continue;
        char what[160];
        describe_beat(what, sizeof what, b);
        used += (size_t)snprintf(text + used, size - used, "%s rank %d (host %s, pid %lld: %s)",
                                 used ? "," : "not there:", r, comm.processes[r].host, (long long)comm.processes[r].pid,
                                 what);
    }
    pthread_mutex_unlock(&dog.lock);
    if (!missing)
        snprintf(text, size, "all ranks were last heard to be there");
    else if (missing > 3 && used < size)
        snprintf(text + used, size - used, " and %d more", missing - 3);
}

/* --- verdicts --------------------------------------------------------------------------------- */

void comm_watchdog_tell_peers(int culprit, int code) {
    if (!comm.threads || !comm.ready || comm.axes[PLUMB_AXIS_WORLD].size == 1) return;
    int size = comm.axes[PLUMB_AXIS_WORLD].size, rank = comm.axes[PLUMB_AXIS_WORLD].rank, count = 0;
    static verdict message; /* the sends may outlive this call */
    message = (verdict){culprit, code};
    MPI_Request *requests = calloc((size_t)size, sizeof *requests);
    for (int r = 0; requests && r < size; r++)
        if (r != rank && r != culprit &&
            MPI_Isend(&message, sizeof message, MPI_BYTE, r, TAG_VERDICT, comm.beats, &requests[count]) == MPI_SUCCESS)
            count++;
    for (int turn = 0, done = 0; requests && turn < 20 && !done; turn++) { /* 0.2 s at most */
        MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
}

static void kill_if_here(int culprit) {
    const comm_process *p = &comm.processes[culprit];
    if (p->node == comm.processes[dog.rank].node && comm_process_is(p)) kill((pid_t)p->pid, SIGKILL);
}

static _Noreturn void pronounce_silent(int culprit) {
    const comm_process *p = &comm.processes[culprit];
    char theirs[160], ours[160];
    pthread_mutex_lock(&dog.lock);
    describe_beat(theirs, sizeof theirs, &dog.table[culprit]);
    describe_self(&dog.table[dog.rank]);
    describe_beat(ours, sizeof ours, &dog.table[dog.rank]);
    pthread_mutex_unlock(&dog.lock);
    atomic_store(&comm.ending, true);
    comm_watchdog_tell_peers(culprit, 1);
    kill_if_here(culprit);
    comm_fail("rank %d (host %s, pid %lld) has been silent for %.0f s: killed, stopped or out of reach; it was last "
              "heard at %s; this rank "
              "is at %s; ending the job",
              culprit, p->host, (long long)p->pid, dog.silence, theirs, ours);
}

static _Noreturn void obey_verdict(void) {
    atomic_store(&comm.ending, true);
    if (dog.heard.culprit >= 0 && dog.heard.culprit < dog.size) kill_if_here(dog.heard.culprit);
    struct timespec rest = {(time_t)launcher_seconds, 0};
    while (nanosleep(&rest, &rest) && errno == EINTR) {
    }
    comm_end_job(dog.heard.code ? dog.heard.code : 1);
}

/* --- the thread ------------------------------------------------------------------------------- */

static bool arrived(MPI_Request *request) {
    int done = 0;
    comm_check_mpi(MPI_Test(request, &done, MPI_STATUS_IGNORE), "MPI_Test (watchdog)");
    return done;
}

static void listen_for_beat(void) {
    comm_check_mpi(MPI_Irecv(dog.incoming, dog.size * (int)sizeof(beat), MPI_BYTE, dog.before, TAG_BEAT, comm.beats,
                             &dog.from_before),
                   "MPI_Irecv");
}

static void take_beats(void) {
    while (arrived(&dog.from_before)) {
        dog.silence = 0;
        pthread_mutex_lock(&dog.lock);
        for (int r = 0; r < dog.size; r++)
            if (r != dog.rank && dog.incoming[r].count > dog.table[r].count) dog.table[r] = dog.incoming[r];
        pthread_mutex_unlock(&dog.lock);
        listen_for_beat();
    }
}

static void send_beat(void) { /* skipped while the last one is still under way: a stopped successor takes none */
    if (!arrived(&dog.to_after)) return;
    pthread_mutex_lock(&dog.lock);
    describe_self(&dog.table[dog.rank]);
    memcpy(dog.outgoing, dog.table, (size_t)dog.size * sizeof(beat));
    pthread_mutex_unlock(&dog.lock);
    comm_check_mpi(
        MPI_Isend(dog.outgoing, dog.size * (int)sizeof(beat), MPI_BYTE, dog.after, TAG_BEAT, comm.beats, &dog.to_after),
        "MPI_Isend");
}

/* Sleeps for one turn; false when the watchdog is to stop. */
static bool rest_one_turn(void) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(turn_seconds * 1e9);
    if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
    pthread_mutex_lock(&dog.lock);
    int code = 0;
    while (!dog.stopping && code != ETIMEDOUT) code = pthread_cond_timedwait(&dog.wake, &dog.lock, &until);
    bool go_on = !dog.stopping;
    pthread_mutex_unlock(&dog.lock);
    return go_on;
}

/* Beats arrive in order, so after the predecessor's goodbye nothing more comes from it: no message is left behind for
 * MPI_Finalize. */
static void part(void) {
    MPI_Request leaving;
    comm_check_mpi(MPI_Isend(&dog.goodbye, 0, MPI_BYTE, dog.after, TAG_GOODBYE, comm.beats, &leaving), "MPI_Isend");
    double last = plumb_clock(), waited = 0;
    bool heard = false, sent = false, taken = false;
    while (waited < farewell_seconds && !(heard && sent && taken)) {
        take_beats();
        heard = heard || arrived(&dog.parting);
        sent = sent || arrived(&leaving);
        taken = taken || arrived(&dog.to_after);
        double now = plumb_clock();
        waited += now - last < longest_turn ? now - last : longest_turn;
        last = now;
        nanosleep(&(struct timespec){0, 200000}, NULL);
    }
    MPI_Request *open[] = {&dog.from_before, &dog.from_any, &dog.parting};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        if (*open[i] == MPI_REQUEST_NULL) continue;
        MPI_Cancel(open[i]);
        MPI_Request_free(open[i]);
    }
}

static void *watch(void *unused) {
    (void)unused;
    double last = plumb_clock(), since_beat = beat_seconds;
    do {
        double now = plumb_clock(), passed = now - last < longest_turn ? now - last : longest_turn;
        last = now;
        dog.silence += passed;
        since_beat += passed;
        take_beats();
        if (arrived(&dog.from_any)) obey_verdict();
        if (atomic_load(&comm.ending)) comm_park();
        if (since_beat >= beat_seconds) {
            send_beat();
            since_beat = 0;
        }
        if (dog.silence > dog.limit) pronounce_silent(dog.before);
    } while (rest_one_turn());
    part();
    return NULL;
}

plumb_status comm_watchdog_start(void) {
    dog.rank = comm.axes[PLUMB_AXIS_WORLD].rank, dog.size = comm.axes[PLUMB_AXIS_WORLD].size;
    dog.before = (dog.rank + dog.size - 1) % dog.size, dog.after = (dog.rank + 1) % dog.size;
    dog.limit = default_silence;
    const char *seconds = getenv("PLUMB_WATCHDOG_SECONDS");
    if (seconds) {
        char *end;
        double value = strtod(seconds, &end);
        if (*end || !(value >= 3 && value <= 86400)) /* beats come every second; a shorter limit would cry wolf */
            return plumb_error(PLUMB_E_CONFIG, "PLUMB_WATCHDOG_SECONDS is \"%s\": expected a number from 3 to 86400",
                               seconds);
        dog.limit = value;
    }
    beat *tables = calloc((size_t)dog.size * 3, sizeof *tables);
    if (!tables) return plumb_error(PLUMB_E_MEMORY, "out of memory: heartbeat tables of %d ranks", dog.size);
    dog.table = tables, dog.incoming = tables + dog.size, dog.outgoing = tables + 2 * dog.size;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&dog.wake, &attributes);
    pthread_condattr_destroy(&attributes);
    dog.to_after = MPI_REQUEST_NULL;
    listen_for_beat();
    comm_check_mpi(
        MPI_Irecv(&dog.heard, sizeof dog.heard, MPI_BYTE, MPI_ANY_SOURCE, TAG_VERDICT, comm.beats, &dog.from_any),
        "MPI_Irecv");
    comm_check_mpi(MPI_Irecv(&dog.goodbye, 0, MPI_BYTE, dog.before, TAG_GOODBYE, comm.beats, &dog.parting),
                   "MPI_Irecv");
    sigset_t all, old; /* signals are the main thread's affair */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int code = pthread_create(&dog.thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (code) return plumb_error(PLUMB_E_COMM, "cannot start the watchdog thread: %s", strerror(code));
    dog.running = true;
    return PLUMB_OK;
}

void comm_watchdog_stop(void) {
    if (!dog.running) return;
    pthread_mutex_lock(&dog.lock);
    dog.stopping = true;
    pthread_cond_signal(&dog.wake);
    pthread_mutex_unlock(&dog.lock);
    pthread_join(dog.thread, NULL);
    dog.running = false;
    free(dog.table);
    dog.table = NULL;
}
