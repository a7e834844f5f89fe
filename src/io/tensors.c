/* What both weight formats share: storage types and their sizes, shapes, and a set of tensors in order of name. */
#include "io_internal.h"
#include <stdlib.h>

static const struct {
    const char *name;
    type_size size;
} types[] = {
    [PLUMB_FT_F32] = {"F32", {1, 4}},     [PLUMB_FT_F16] = {"F16", {1, 2}},     [PLUMB_FT_BF16] = {"BF16", {1, 2}},
    [PLUMB_FT_F64] = {"F64", {1, 8}},     [PLUMB_FT_I64] = {"I64", {1, 8}},     [PLUMB_FT_I32] = {"I32", {1, 4}},
    [PLUMB_FT_I16] = {"I16", {1, 2}},     [PLUMB_FT_I8] = {"I8", {1, 1}},       [PLUMB_FT_U8] = {"U8", {1, 1}},
    [PLUMB_FT_BOOL] = {"BOOL", {1, 1}},   [PLUMB_FT_Q4_0] = {"Q4_0", {32, 18}}, [PLUMB_FT_Q4_1] = {"Q4_1", {32, 20}},
    [PLUMB_FT_Q5_0] = {"Q5_0", {32, 22}}, [PLUMB_FT_Q5_1] = {"Q5_1", {32, 24}}, [PLUMB_FT_Q8_0] = {"Q8_0", {32, 34}},
    [PLUMB_FT_OTHER] = {"other", {0, 0}},
};

static bool is_known(plumb_file_type t) {
    return (size_t)t < sizeof types / sizeof *types;
}

const char *plumb_file_type_name(plumb_file_type t) {
    return is_known(t) ? types[t].name : "unknown";
}

type_size plumb_io_type_size(plumb_file_type t) {
    return is_known(t) ? types[t].size : types[PLUMB_FT_OTHER].size;
}

bool plumb_io_count_elements(const int64_t *shape, int n_dims, int64_t *count) {
    *count = 1;
    for (int i = 0; i < n_dims; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(*count, shape[i], count)) return false;
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const plumb_file_tensor *)a)->name, ((const plumb_file_tensor *)b)->name);
}

plumb_status plumb_io_sort_tensors(plumb_file_tensor *tensors, int64_t count, const char *path) {
    if (count > 1) qsort(tensors, (size_t)count, sizeof *tensors, by_name);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(tensors[i - 1].name, tensors[i].name) == 0)
            return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\" is there twice", path, tensors[i].name);
    return PLUMB_OK;
}

const plumb_file_tensor *plumb_io_find_tensor(const plumb_file_tensor *tensors, int64_t count, const char *name) {
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(name, tensors[middle].name);
        if (order == 0) return &tensors[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}
