/* What products have in common: how a reduction is cut, how a blocked matrix is seen, how threads share; and the packing of operands and
 * weights. The reduction is walked in chunks of at most 96 (bf16: 320), each a chain of its own that is added to the result: rows and
 * lanes of a chunk fit the L1 cache together, and the products of fp32 stay exact enough. Threads divide panels, never a reduction. */
#ifndef PLUMB_OPERAND_H
#define PLUMB_OPERAND_H
#include <omp.h>
#include "tile.h"
#include "pack.h"

enum { CHUNK = 96, CHUNK_BF16 = 320 };
/* Length of the chunks that a reduction of n is cut into: as few as the limit allows, alike, whole blocks. It depends on
 * n and the type alone. */
INLINE int64_t chunk_of(int64_t n, bool bf16) {
    int64_t limit = bf16 ? CHUNK_BF16 : CHUNK, count = (n + limit - 1) / limit;
    return plumb_round_up((n + count - 1) / count, BLOCK);
}

typedef struct side { /* a blocked matrix [q/32][p][32] as the tile reads it */
    const char *data;
    int64_t p;
    int64_t element;
} side;
INLINE const float *side_at(side s, int64_t q, int64_t p) { /* q a multiple of 32 */
    return (const float *)(s.data + ((q / BLOCK * s.p + p) * BLOCK) * s.element);
}
INLINE bool is_bf16(plumb_backend *be) { return be->compute == PLUMB_COMPUTE_BF16; }
INLINE side operand_side(plumb_backend *be, const plumb_operand *o) {
    return (side){o->data, o->packing == PLUMB_BY_COLUMNS ? o->rows : o->cols, is_bf16(be) ? 2 : 4};
}
INLINE side weight_side(plumb_backend *be, const plumb_weight *w) { return (side){w->data, w->k, is_bf16(be) ? 2 : 4}; }
INLINE int64_t words(int64_t elements, bool bf16) { return plumb_floats_of(elements, bf16); }

typedef struct share { int64_t first, last; } share;
/* Of the i-th of several pieces of work: what does not divide evenly goes to another thread each time. */
INLINE share share_in_turn(int64_t n, int i) {
    int64_t of = omp_get_num_threads(), t = (omp_get_thread_num() + i) % of;
    return (share){n * t / of, n * (t + 1) / of};
}
INLINE share my_share(int64_t n) { return share_in_turn(n, 0); }

/* Threads for an operation of `work` elements: waking a team costs as much as tens of thousands of them, so that in decoding most
 * operations run on one. */
enum { TEAM_WORK = 1 << 15 };
INLINE int team_for(plumb_backend *be, int64_t work) { return work < TEAM_WORK ? 1 : be->threads; }

static bool operand_fits(plumb_backend *be, const plumb_operand *o, int64_t rows, int64_t cols) {
    size_t need = (size_t)plumb_round_up(rows, BLOCK) * (size_t)plumb_round_up(cols, BLOCK) * (is_bf16(be) ? 2 : 4);
    if (need <= o->bytes) return true;
    plumb_backend_set_fault(be, PLUMB_E_DEVICE, "an operand of %zu bytes cannot hold %lld x %lld", o->bytes, (long long)rows,
                            (long long)cols);
    return false;
}
static void op_operand_pack(plumb_backend *be, plumb_operand *o, plumb_tensor x, plumb_packing packing, plumb_tensor row_scale) {
    if (!operand_fits(be, o, x.rows, x.cols)) return;
    o->rows = x.rows, o->cols = x.cols, o->packing = packing;
    const float *scale = row_scale.buffer ? plumb_cpu_at(row_scale, 0) : NULL;
    bool bf16 = is_bf16(be);
#pragma omp parallel num_threads(team_for(be, x.rows * x.cols))
    {
        if (packing == PLUMB_BY_COLUMNS) {
            share s = my_share(x.rows);
            pack_by_columns(o->data, plumb_cpu_at(x, 0), x.rows, x.cols, x.stride, scale, row_scale.stride, bf16, s.first, s.last);
        } else {
            share s = my_share((x.rows + BLOCK - 1) / BLOCK);
            pack_by_rows(o->data, plumb_cpu_at(x, 0), x.rows, x.cols, x.stride, scale, row_scale.stride, bf16, s.first, s.last);
        }
    }
}
#endif
