/* Batches of the `ref` back end: a copy of the forest in host memory. */
#include "ref.h"
#include <stdlib.h>
#include <string.h>

static plumb_status duplicate(void *out, const void *from, int64_t count, size_t size) {
    PLUMB_TRY(plumb_alloc(out, (size_t)count, size, "a batch"));
    void *to;
    memcpy(&to, out, sizeof to);
    if (count) memcpy(to, from, (size_t)count * size);
    return PLUMB_OK;
}

static plumb_status copy_forest(plumb_batch *b, const plumb_forest *f) {
    PLUMB_TRY(duplicate(&b->ids, f->ids, f->n_tokens, sizeof *f->ids));
    PLUMB_TRY(duplicate(&b->positions, f->positions, f->n_tokens, sizeof *f->positions));
    PLUMB_TRY(duplicate(&b->row_segment, f->row_segment, f->n_tokens, sizeof *f->row_segment));
    PLUMB_TRY(duplicate(&b->segments, f->segments, f->n_segments, sizeof *f->segments));
    PLUMB_TRY(duplicate(&b->targets, f->targets, f->n_targets, sizeof *f->targets));
    PLUMB_TRY(duplicate(&b->pages, f->pages, f->n_pages, sizeof *f->pages));
    PLUMB_TRY(duplicate(&b->paths, f->paths, f->n_paths, sizeof *f->paths));
    return plumb_alloc(&b->branch, (size_t)f->n_segments, sizeof *b->branch, "a batch");
}

plumb_status plumb_ref_batch_create(plumb_backend *be, const plumb_forest *f, plumb_batch **out) {
    *out = NULL;
    PLUMB_TRY(plumb_backend_fault(be));
    if (!f->finished)
        return plumb_error(PLUMB_E_DATA, "batch_create: the forest is not laid out; plumb_forest_finish comes first");
    plumb_batch *b;
    PLUMB_TRY(plumb_alloc(&b, 1, sizeof *b, "a batch"));
    plumb_status status = copy_forest(b, f);
    if (status != PLUMB_OK) {
        plumb_ref_batch_free(be, b);
        return status;
    }
    b->n_tokens = f->n_tokens;
    b->n_segments = f->n_segments;
    b->n_targets = f->n_targets;
    b->n_pages = f->n_pages;
    b->n_slots = f->n_slots;
    b->complete = true;
    for (int32_t i = 0; i < b->n_segments; i++) {
        if (b->segments[i].parent < 0 && b->segments[i].start > 0) b->complete = false;
        for (int32_t j = 0; j < i; j++) b->branch[i] += b->segments[j].sample == b->segments[i].sample;
    }
    *out = b;
    return PLUMB_OK;
}

void plumb_ref_batch_free(plumb_backend *be, plumb_batch *b) {
    (void)be;
    if (!b) return;
    free(b->ids);
    free(b->positions);
    free(b->row_segment);
    free(b->segments);
    free(b->targets);
    free(b->pages);
    free(b->paths);
    free(b->branch);
    free(b);
}
