/* Memory that the ranks of a node share: one copy of the frozen weights, however many ranks run there.
 *
 * Plain POSIX shared memory between the ranks of the node communicator, rather than MPI_Win_allocate_shared: the name
 * is removed before a byte is reserved, so that nothing stays in /dev/shm when a job is killed (a window's segment
 * stays); posix_fallocate reserves the pages, so that a full /dev/shm is an answer here and not SIGBUS at the first
 * store; and the mapping begins on a page, where a window promises 8 bytes.
 *
 * Each step is agreed over the node, so that all ranks share or none does. Then every rank has private memory, and the
 * caller is told. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "internal.h"

enum { NAME = 64, ALIGNMENT = 64, LARGE_PAGE = 2 << 20 };
static const size_t margin = 16 << 20; /* bytes left to others, MPI's own segments among them */

struct plumb_shared {
    void *memory; /* owned */
    size_t bytes;
    bool mapped; /* shared mapping; else from aligned_alloc */
};

static bool agree_on_node(bool mine) {
    int64_t *all = comm_scratch((size_t)comm.node.size * sizeof *all), vote = mine;
    comm_raw_gather(&comm.node, &vote, sizeof vote, all);
    for (int r = 0; r < comm.node.size; r++)
        if (!all[r]) return false;
    return true;
}

/* Room in /dev/shm for `bytes`; PLUMB_SHM_LIMIT (bytes) stands for less of it. */
static bool room_for(size_t bytes) {
    struct statvfs s;
    if (statvfs("/dev/shm", &s)) return false;
    uint64_t available = (uint64_t)s.f_bavail * (uint64_t)s.f_frsize;
    const char *limit = getenv("PLUMB_SHM_LIMIT");
    if (limit && strtoull(limit, NULL, 10) < bytes) return false;
    return available >= margin && available - margin >= bytes;
}

static bool reserve(int fd, size_t bytes) {
    int code;
    do code = posix_fallocate(fd, 0, (off_t)bytes);
    while (code == EINTR);
    return code == 0;
}

/* The mapping, or NULL on every rank of the node. */
static void *map_together(size_t bytes) {
    static unsigned made;
    char name[NAME] = "";
    bool first = comm.node.rank == 0;
    int fd = -1;
    if (first && bytes <= (size_t)INT64_MAX / 2 && room_for(bytes)) {
        const comm_process *self = &comm.processes[comm.axes[PLUMB_AXIS_WORLD].rank];
        snprintf(name, sizeof name, "/plumb-%lld-%llu-%u", (long long)self->pid, (unsigned long long)self->start,
                 made++);
        fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd >= 0 && ftruncate(fd, (off_t)bytes)) {
            shm_unlink(name);
            close(fd);
            fd = -1;
        }
        if (fd < 0) name[0] = 0;
    }
    comm_raw_bcast(&comm.node, name, sizeof name, 0);
    if (!name[0]) return NULL;
    if (!first) fd = shm_open(name, O_RDWR, 0);
    bool good = agree_on_node(fd >= 0);
    if (first) {
        shm_unlink(name); /* the open descriptors keep it */
        good = good && reserve(fd, bytes);
    }
    good = agree_on_node(good);
    void *memory = good ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0) close(fd);
    good = agree_on_node(memory != MAP_FAILED);
    if (!good && memory != MAP_FAILED) munmap(memory, bytes);
    if (!good) return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE); /* where the system allows it for shared memory */
    return memory;
}

plumb_status plumb_shared_create(plumb_shared **out, size_t bytes, void **memory, bool *shared) {
    *out = NULL, *memory = NULL;
    size_t wanted = bytes ? bytes : 1;
    plumb_shared *s = calloc(1, sizeof *s);
    if (comm.node.size > 1) {
        comm_begin(&comm.node, "shared_create", bytes);
        if (agree_on_node(s != NULL)) s->memory = map_together(wanted);
        comm_end();
    }
    if (!s) return plumb_error(PLUMB_E_MEMORY, "out of memory: a handle of shared memory");
    s->bytes = wanted;
    s->mapped = s->memory != NULL;
    if (!s->mapped && wanted <= (size_t)PTRDIFF_MAX - LARGE_PAGE) {
        size_t alignment = wanted < LARGE_PAGE ? ALIGNMENT : LARGE_PAGE, rounded = (wanted + alignment - 1) / alignment * alignment;
        s->memory = aligned_alloc(alignment, rounded);
        if (s->memory && alignment == LARGE_PAGE) madvise(s->memory, rounded, MADV_HUGEPAGE); /* decoding reads all of it for every token */
        if (s->memory) memset(s->memory, 0, rounded);
    }
    if (!s->memory) {
        free(s);
        return plumb_error(
            PLUMB_E_MEMORY,
            "out of memory: %zu bytes for one rank; /dev/shm has no room to share them among the %d ranks of %s", bytes,
            comm.node.size, plumb_comm_host());
    }
    *out = s, *memory = s->memory;
    *shared = s->mapped || comm.node.size == 1;
    return PLUMB_OK;
}

void plumb_shared_barrier(plumb_shared *s) {
    (void)s;
    atomic_thread_fence(memory_order_seq_cst);
    if (comm.node.size > 1) {
        comm_begin(&comm.node, "shared_barrier", 0);
        comm_raw_barrier(&comm.node);
        comm_end();
    }
    atomic_thread_fence(memory_order_seq_cst);
}

void plumb_shared_free(plumb_shared *s) {
    if (!s) return;
    if (s->mapped)
        munmap(s->memory, s->bytes);
    else
        free(s->memory);
    free(s);
}
