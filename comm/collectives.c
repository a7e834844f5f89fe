/* Barrier, broadcast, gathers and small reductions.
 *
 * Small messages are one non-blocking collective of MPI. Large ones are pieces of at most 8 MiB between pairs: a count
 * never comes near INT_MAX, MPI's own buffers stay small, and the limit on waiting applies to each piece. A barrier
 * goes before the large ones: a rank that is early sleeps in it, so that once data flows, all poll.
 *
 * Sums and maxima gather every rank's values and fold them in rank order on every rank: the same bits everywhere,
 * whatever the algorithm or the topology that MPI chooses. The cost is size * count values, which is nothing for
 * statistics; gradients go through reduce.c. */
#include <limits.h>
#include <math.h>
#include <string.h>
#include "internal.h"

void comm_raw_barrier(const comm_axis *axis) {
    MPI_Request request;
    comm_check_mpi(MPI_Ibarrier(axis->comm, &request), "MPI_Ibarrier");
    comm_wait(&request, 1, COMM_PACE_IDLE);
}

void comm_raw_bcast(const comm_axis *axis, void *data, size_t bytes, int root) {
    char *at = data;
    for (comm_pace pace = COMM_PACE_IDLE; bytes; pace = COMM_PACE_BULK) {
        size_t piece = bytes < COMM_PIECE ? bytes : COMM_PIECE;
        MPI_Request request;
        comm_check_mpi(MPI_Ibcast(at, (int)piece, MPI_BYTE, root, axis->comm, &request), "MPI_Ibcast");
        comm_wait(&request, 1, pace);
        at += piece, bytes -= piece;
    }
}

void comm_raw_gather(const comm_axis *axis, const void *mine, size_t bytes, void *all) {
    MPI_Request request;
    memmove((char *)all + (size_t)axis->rank * bytes, mine, bytes);
    comm_check_mpi(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, all, (int)bytes, MPI_BYTE, axis->comm, &request),
                   "MPI_Iallgather");
    comm_wait(&request, 1, COMM_PACE_IDLE);
}

void comm_raw_exchange(const comm_axis *axis, const comm_part *parts, const comm_room *rooms) {
    int count = 0;
    for (int step = 1; step < axis->size; step++) { /* each rank begins with another peer */
        int from = (axis->rank - step + axis->size) % axis->size;
        if (rooms[from].bytes)
            comm_check_mpi(MPI_Irecv(rooms[from].data, (int)rooms[from].bytes, MPI_BYTE, from, 0, axis->comm,
                                     &comm.requests[count++]),
                           "MPI_Irecv");
    }
    for (int step = 1; step < axis->size; step++) {
        int to = (axis->rank + step) % axis->size;
        if (parts[to].bytes)
            comm_check_mpi(
                MPI_Isend(parts[to].data, (int)parts[to].bytes, MPI_BYTE, to, 0, axis->comm, &comm.requests[count++]),
                "MPI_Isend");
    }
    if (count) comm_wait(comm.requests, count, COMM_PACE_BULK);
}

void plumb_comm_barrier(plumb_axis axis) {
    comm_axis *a = &comm.axes[axis];
    if (a->size == 1) return;
    comm_begin(a, "barrier", 0);
    comm_raw_barrier(a);
    comm_end();
}

void plumb_comm_bcast(plumb_axis axis, void *data, size_t bytes, int root) {
    comm_axis *a = &comm.axes[axis];
    if (a->size == 1) return;
    comm_begin(a, "bcast", comm_mix(bytes, (uint64_t)root));
    if (bytes > COMM_SMALL) comm_raw_barrier(a);
    comm_raw_bcast(a, data, bytes, root);
    comm_end();
}

/* --- reductions of a few values --------------------------------------------------------------- */

typedef enum fold_kind { FOLD_SUM_F64, FOLD_SUM_I64, FOLD_MAX_F64, FOLD_MAX_I64 } fold_kind;

/* value[i] becomes the fold of all[r][i] over ranks r = 0, 1, …; count values per rank. A NaN wins a maximum. */
static void fold_in_rank_order(fold_kind kind, void *value, const void *all, int64_t count, int size) {
    memcpy(value, all, (size_t)count * 8);
    double *f = value;
    int64_t *n = value;
    for (int r = 1; r < size; r++) {
        const double *g = (const double *)all + (int64_t)r * count;
        const int64_t *m = (const int64_t *)all + (int64_t)r * count;
        switch (kind) {
        case FOLD_SUM_F64:
            for (int64_t i = 0; i < count; i++) f[i] += g[i];
            break;
        case FOLD_SUM_I64: /* unsigned, so that an overflow wraps alike everywhere */
            for (int64_t i = 0; i < count; i++) n[i] = (int64_t)((uint64_t)n[i] + (uint64_t)m[i]);
            break;
        case FOLD_MAX_F64:
            for (int64_t i = 0; i < count; i++)
                if (g[i] > f[i] || isnan(g[i])) f[i] = g[i];
            break;
        case FOLD_MAX_I64:
            for (int64_t i = 0; i < count; i++)
                if (m[i] > n[i]) n[i] = m[i];
            break;
        }
    }
}

static void fold(plumb_axis axis, const char *name, fold_kind kind, void *values, int64_t count) {
    comm_axis *a = &comm.axes[axis];
    if (a->size == 1) return;
    comm_begin(a, name, (uint64_t)count);
    int64_t piece = COMM_SMALL / 8;
    void *all = comm_scratch((size_t)(plumb_min64(count, piece) * 8 * a->size));
    for (int64_t first = 0; first < count; first += piece) {
        int64_t n = plumb_min64(piece, count - first);
        comm_raw_gather(a, (double *)values + first, (size_t)n * 8, all);
        fold_in_rank_order(kind, (double *)values + first, all, n, a->size);
    }
    comm_end();
}

void plumb_comm_sum_f64(plumb_axis axis, double *values, int64_t count) {
    fold(axis, "sum_f64", FOLD_SUM_F64, values, count);
}
void plumb_comm_sum_i64(plumb_axis axis, int64_t *values, int64_t count) {
    fold(axis, "sum_i64", FOLD_SUM_I64, values, count);
}
void plumb_comm_max_f64(plumb_axis axis, double *values, int64_t count) {
    fold(axis, "max_f64", FOLD_MAX_F64, values, count);
}
void plumb_comm_max_i64(plumb_axis axis, int64_t *values, int64_t count) {
    fold(axis, "max_i64", FOLD_MAX_I64, values, count);
}

/* --- gathers ---------------------------------------------------------------------------------- */

static size_t piece_bytes(size_t bytes, size_t offset) {
    if (offset >= bytes) return 0;
    return bytes - offset < COMM_PIECE ? bytes - offset : COMM_PIECE;
}

/* Each rank sends the same bytes to all, piece by piece; bytes(r) of rank r land at all + at(r). */
static void gather_pieces(const comm_axis *axis, char *all, const size_t *counts, const size_t *offsets, size_t equal) {
    size_t longest = 0;
    for (int r = 0; r < axis->size; r++) {
        size_t n = counts ? counts[r] : equal;
        if (n > longest) longest = n;
    }
    comm_part *parts = comm_scratch((size_t)axis->size * (sizeof(comm_part) + sizeof(comm_room)));
    comm_room *rooms = (comm_room *)(parts + axis->size);
    if (longest > COMM_SMALL) comm_raw_barrier(axis);
    for (size_t done = 0; done < longest; done += COMM_PIECE) {
        for (int r = 0; r < axis->size; r++) {
            size_t own = piece_bytes(counts ? counts[axis->rank] : equal, done);
            size_t start = offsets ? offsets[axis->rank] : (size_t)axis->rank * equal;
            parts[r] = (comm_part){all + start + done, own};
            rooms[r] = (comm_room){all + (offsets ? offsets[r] : (size_t)r * equal) + done,
                                   piece_bytes(counts ? counts[r] : equal, done)};
        }
        comm_raw_exchange(axis, parts, rooms);
    }
}

void plumb_comm_allgather(plumb_axis axis, const void *mine, size_t bytes, void *all) {
    comm_axis *a = &comm.axes[axis];
    char *own = (char *)all + (size_t)a->rank * bytes;
    if (bytes && own != mine) memmove(own, mine, bytes);
    if (a->size == 1) return;
    comm_begin(a, "allgather", bytes);
    if (bytes && bytes <= COMM_SMALL / (size_t)a->size)
        comm_raw_gather(a, own, bytes, all);
    else
        gather_pieces(a, all, NULL, NULL, bytes);
    comm_end();
}

void plumb_comm_allgatherv(plumb_axis axis, const void *mine, void *all, const size_t *counts, const size_t *offsets) {
    comm_axis *a = &comm.axes[axis];
    char *own = (char *)all + offsets[a->rank];
    if (counts[a->rank] && own != mine) memmove(own, mine, counts[a->rank]);
    if (a->size == 1) return;
    uint64_t fingerprint = 0;
    for (int r = 0; comm.check && r < a->size; r++)
        fingerprint = comm_mix(fingerprint, comm_mix(counts[r], offsets[r]));
    comm_begin(a, "allgatherv", fingerprint);
    gather_pieces(a, all, counts, offsets, 0);
    comm_end();
}
