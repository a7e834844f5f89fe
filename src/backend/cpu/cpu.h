/* Structures of the CPU back end, shared by its files. Everything that computes is compiled once per instruction
 * set (isa/); memory is not. */
#ifndef PLUMB_CPU_H
#define PLUMB_CPU_H
#include "plumb/backend.h"

enum { BLOCK = 32 }; /* a matrix M[p][q] is stored [q/32][p][32]; the last block is padded with zeros */

struct plumb_buffer {
    float *data;
    int64_t count;
};
struct plumb_weight {
    void *data; /* float or bf16, blocked along n: [n/32][k][32]; quantised: isa/quantized.h */
    int64_t n, k;
    plumb_storage storage;
    bool owned;
};
/* Bytes of 32 x 32 quantised values with their scales. */
static inline int64_t plumb_qblock_bytes(plumb_storage storage) { return plumb_stores_8_bits(storage) ? 1152 : 640; }
struct plumb_operand {
    void *data;
    size_t bytes; /* capacity */
    int64_t rows, cols;
    plumb_packing packing;
};
struct plumb_batch {
    plumb_forest forest; /* a copy: ids, positions, segments, targets, pages, paths */
};
/* A page of one layer and key/value head: keys as vectors [64/32][D][32], then values as vectors [D/32][64][32] (isa/attention.h);
 * floats, or pairs of bf16. Sizes are in floats: two bf16 make one. */
struct plumb_kv {
    float *data;
    int64_t layers, slots, kv_heads, head_dim, page_floats;
};
static inline int64_t plumb_floats_of(int64_t elements, bool bf16) { return bf16 ? (elements + 1) / 2 : elements; }
static inline int64_t plumb_kv_page_floats(int64_t head_dim, bool bf16) {
    return plumb_floats_of(head_dim, bf16) * PLUMB_PAGE + plumb_floats_of(PLUMB_PAGE, bf16) * plumb_round_up(head_dim, BLOCK);
}
static inline float *plumb_kv_page(const plumb_kv *kv, int64_t layer, int64_t slot, int64_t head) {
    return kv->data + ((layer * kv->slots + slot) * kv->kv_heads + head) * kv->page_floats;
}

/* Working memory of operations, kept between calls. NULL after latching a fault. Not zeroed; 64-byte aligned. */
enum {
    SCRATCH_PANELS,
    SCRATCH_RESULT,
    SCRATCH_LOGITS,
    SCRATCH_ENTROPY,
    SCRATCH_ATTENTION,
    SCRATCH_PAGES,
    SCRATCH_ROWS,
    SCRATCH_WEIGHTS,
    SCRATCH_COUNT
};
typedef struct plumb_cpu_state {
    void *scratch[SCRATCH_COUNT];
    size_t scratch_bytes[SCRATCH_COUNT];
    plumb_operand *head_operand, *head_rows; /* of head_forward: grown as needed */
    bool bf16;
} plumb_cpu_state;
void *plumb_cpu_scratch(plumb_backend *be, int which, size_t bytes);
/* Grows an operand so that rows x cols fit; false after latching a fault. */
bool plumb_cpu_operand_reserve(plumb_backend *be, plumb_operand **o, int64_t rows, int64_t cols);

/* The operations that do not depend on the instruction set. */
plumb_status plumb_cpu_buffer_create(plumb_backend *be, int64_t count, const char *what, plumb_buffer **out);
void plumb_cpu_buffer_free(plumb_backend *be, plumb_buffer *b);
void plumb_cpu_write(plumb_backend *be, plumb_tensor to, const float *from);
void plumb_cpu_read(plumb_backend *be, plumb_tensor from, float *to);
void plumb_cpu_read_f64(plumb_backend *be, plumb_tensor from, double *to);
void plumb_cpu_zero(plumb_backend *be, plumb_tensor t);
size_t plumb_cpu_weight_bytes(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage);
plumb_status plumb_cpu_weight_create(plumb_backend *be, int64_t n, int64_t k, plumb_storage storage, void *memory, plumb_weight **out);
void plumb_cpu_weight_free(plumb_backend *be, plumb_weight *w);
plumb_status plumb_cpu_batch_create(plumb_backend *be, const plumb_forest *f, plumb_batch **out);
void plumb_cpu_batch_free(plumb_backend *be, plumb_batch *b);
plumb_status plumb_cpu_kv_create(plumb_backend *be, int64_t layers, int64_t slots, const plumb_attention *a, plumb_kv **out);
void plumb_cpu_kv_free(plumb_backend *be, plumb_kv *kv);
plumb_status plumb_cpu_operand_create(plumb_backend *be, int64_t rows, int64_t cols, plumb_operand **out);
void plumb_cpu_operand_free(plumb_backend *be, plumb_operand *o);

static inline float *plumb_cpu_at(plumb_tensor t, int64_t row) { return t.buffer->data + t.offset + row * t.stride; }
extern const plumb_backend_ops plumb_cpu_ops_plain, plumb_cpu_ops_avx2, plumb_cpu_ops_avx512, plumb_cpu_ops_avx512bf16;
#endif
