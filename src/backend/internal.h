/* What backend.c and the back ends share: the life of a back end's private data.  Local. */
#ifndef PLUMB_BACKEND_INTERNAL_H
#define PLUMB_BACKEND_INTERNAL_H
#include "plumb/backend.h"

/* Called once by plumb_backend_create with ops, compute, threads and isa set; isa is one that this processor has. bf16:
 * the products are in bf16; where isa is not "avx512bf16" they are emulated by widening. Sets be->ops to the
 * table of that instruction set and fills be->private_data. */
plumb_status plumb_cpu_init(plumb_backend *be, const char *isa, bool bf16) PLUMB_CHECKED;
/* Called once by plumb_backend_free, also after a failed init; private_data may be NULL. */
void plumb_cpu_exit(plumb_backend *be);

plumb_status plumb_ref_init(plumb_backend *be, const char *isa, bool bf16) PLUMB_CHECKED;
void plumb_ref_exit(plumb_backend *be);
#endif
