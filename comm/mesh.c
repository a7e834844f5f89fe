/* The mesh: which ranks belong together, on which node they run, and which process each of them is.
 *
 * Only the data axis has more than one rank in this version; tensor, pipeline and context exist with size 1, so that
 * every caller names the axis it means from the first day. Each axis has a communicator of its own, so that a
 * collective on one never matches one on another.
 *
 * A process is known by host, pid namespace, pid and start time: when a stopped rank has to be killed, nothing else may
 * be hit. */
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "internal.h"

static const char *const axis_names[PLUMB_AXIS_COUNT] = {"data", "tensor", "pipeline", "context", "world"};

/* Field 22 of /proc/PID/stat: start time in clock ticks since boot; 0 when there is no such process. */
static uint64_t process_start(int64_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *at = strrchr(text, ')'); /* the name before it may hold spaces */
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

void comm_identify(comm_process *p) {
    memset(p, 0, sizeof *p);
    snprintf(p->host, sizeof p->host, "%s", plumb_comm_host());
    p->pid = getpid();
    p->start = process_start(p->pid);
    struct stat s;
    if (stat("/proc/self/ns/pid", &s) == 0) p->pid_space = (uint64_t)s.st_ino;
}

bool comm_process_is(const comm_process *p) {
    comm_process self;
    comm_identify(&self);
    return !strcmp(p->host, self.host) && p->pid_space && p->pid_space == self.pid_space && p->pid > 1 &&
           p->pid != self.pid && p->start && p->start == process_start(p->pid);
}

static void open_axis(comm_axis *axis, const char *name, MPI_Comm from) {
    axis->name = name;
    axis->sequence = 0;
    comm_check_mpi(MPI_Comm_dup(from, &axis->comm), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(axis->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(axis->comm, &axis->rank);
    MPI_Comm_size(axis->comm, &axis->size);
}

/* Processors that the ranks of this node may use together, and this rank's part of them: one that several may use is shared evenly. */
static void count_processors(int *together, int *mine) {
    static int32_t users[CPU_SETSIZE];
    cpu_set_t set;
    double part = 0;
    CPU_ZERO(&set);
    bool known = sched_getaffinity(0, sizeof set, &set) == 0;
    for (int c = 0; c < CPU_SETSIZE; c++) users[c] = known && CPU_ISSET(c, &set);
    comm_check_mpi(MPI_Allreduce(MPI_IN_PLACE, users, CPU_SETSIZE, MPI_INT32_T, MPI_SUM, comm.node.comm), "MPI_Allreduce");
    *together = 0;
    for (int c = 0; c < CPU_SETSIZE; c++) {
        *together += users[c] > 0;
        if (known && CPU_ISSET(c, &set)) part += 1.0 / users[c];
    }
    if (!*together) *together = (int)sysconf(_SC_NPROCESSORS_ONLN), part = (double)*together / comm.node.size;
    *mine = part > 1 ? (int)(part + 1e-6) : 1;
}

void comm_mesh_create(void) {
    MPI_Comm node;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    for (int a = 0; a < PLUMB_AXIS_COUNT; a++)
        open_axis(&comm.axes[a], axis_names[a],
                  a == PLUMB_AXIS_DATA || a == PLUMB_AXIS_WORLD ? MPI_COMM_WORLD : MPI_COMM_SELF);
    const comm_axis *world = &comm.axes[PLUMB_AXIS_WORLD];
    comm_check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &node),
                   "MPI_Comm_split_type");
    open_axis(&comm.node, "node", node);
    MPI_Comm_free(&node);
    comm_check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm.beats), "MPI_Comm_dup");
    comm_check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm.closing), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(comm.beats, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(comm.closing, MPI_ERRORS_RETURN);
    int processors;
    count_processors(&processors, &comm.cores);
    comm.crowded = comm.node.size > processors;

    comm.processes = calloc((size_t)world->size, sizeof *comm.processes);
    comm.requests = calloc((size_t)world->size * 2, sizeof(MPI_Request));
    if (!comm.processes || !comm.requests) comm_fail("out of memory: the table of %d ranks", world->size);
    comm_process self;
    comm_identify(&self);
    self.node = world->rank;
    comm_check_mpi(MPI_Bcast(&self.node, 1, MPI_INT32_T, 0, comm.node.comm), "MPI_Bcast");
    comm_check_mpi(
        MPI_Allgather(&self, (int)sizeof self, MPI_BYTE, comm.processes, (int)sizeof self, MPI_BYTE, world->comm),
        "MPI_Allgather");
}

void comm_mesh_free(void) {
    for (int a = 0; a < PLUMB_AXIS_COUNT; a++) MPI_Comm_free(&comm.axes[a].comm);
    MPI_Comm_free(&comm.node.comm);
    MPI_Comm_free(&comm.beats);
    MPI_Comm_free(&comm.closing);
    free(comm.processes);
    free(comm.requests);
    free(comm.scratch);
    comm.processes = NULL, comm.requests = NULL, comm.scratch = NULL, comm.scratch_bytes = 0;
}

int plumb_comm_rank(plumb_axis axis) {
    return comm.axes[axis].rank;
}
int plumb_comm_size(plumb_axis axis) {
    return comm.axes[axis].size;
}
int plumb_comm_node_rank(void) {
    return comm.node.rank;
}
int plumb_comm_node_size(void) {
    return comm.node.size;
}
int plumb_comm_cores(void) {
    return comm.cores;
}

const char *plumb_comm_host(void) {
    if (!comm.host[0] && gethostname(comm.host, sizeof comm.host - 1)) snprintf(comm.host, sizeof comm.host, "unknown");
    return comm.host;
}
