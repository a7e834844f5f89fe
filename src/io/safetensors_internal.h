/* Between safetensors_set.c, which decides which files belong together, and safetensors_read.c, which reads one of
 * them. */
#ifndef PLUMB_SAFETENSORS_INTERNAL_H
#define PLUMB_SAFETENSORS_INTERNAL_H
#include "io_internal.h"

typedef struct safetensors_builder { /* a set that grows; borrows it */
    plumb_safetensors *set;
    size_t capacity, map_capacity; /* of set->tensors and set->maps */
} safetensors_builder;

/* Maps the file and appends its tensors to the set. After an error the set is still fit for plumb_safetensors_close. */
plumb_status plumb_io_safetensors_add(safetensors_builder *b, const char *path) PLUMB_CHECKED;
#endif
