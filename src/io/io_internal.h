/* What the files of src/io share and nobody else needs.
 * Weights lie in files in little-endian order and are used where they lie, so a big-endian host is refused at compile
 * time. */
#ifndef PLUMB_IO_INTERNAL_H
#define PLUMB_IO_INTERNAL_H
#include <string.h>
#include "plumb/io.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weight files are mapped in place: little-endian hosts only");

static inline uint16_t load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t load_u32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint64_t load_u64(const void *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Inflates a gzip stream of one or more members; at most `limit` bytes come out. `path` is for messages. */
plumb_status plumb_io_inflate(plumb_str *out, const uint8_t *in, size_t size, size_t limit,
                              const char *path) PLUMB_CHECKED;

/* NUL-terminated copy, owned by the caller. */
plumb_status plumb_io_copy_text(char **out, const char *bytes, size_t n) PLUMB_CHECKED;

/* Elements per block and bytes per block; block 0 for PLUMB_FT_OTHER, whose size only the format's own table knows. */
typedef struct type_size {
    int64_t block;
    size_t bytes;
} type_size;
type_size plumb_io_type_size(plumb_file_type t);

/* Product of a shape; false when it does not fit int64_t (in the order written, as the safetensors library does: [0,
 * huge, huge] has no elements, [huge, huge, 0] overflows). */
bool plumb_io_count_elements(const int64_t *shape, int n_dims, int64_t *count);

/* Orders tensors by name and refuses a name that occurs twice; find is the matching binary search. */
plumb_status plumb_io_sort_tensors(plumb_file_tensor *tensors, int64_t count, const char *path) PLUMB_CHECKED;
const plumb_file_tensor *plumb_io_find_tensor(const plumb_file_tensor *tensors, int64_t count, const char *name);

/* Rounds to nearest even into half or bfloat16; returns how many finite values became infinite, *worst is the largest
 * of them. */
int64_t plumb_io_to_f16(const float *in, int64_t count, uint16_t *out, float *worst);
int64_t plumb_io_to_bf16(const float *in, int64_t count, uint16_t *out, float *worst);
#endif
