/* A batch is a forest of segments: flat tokens, no padding, no mask tensor.  Local, host memory.
 *
 *   flat rows   0 1 2 3 4 | 5 6 7 | 8 9 10 11      a DPO pair: a prompt (segment 0, no parent) and two children
 *   segment         0     |   1   |     2          that continue it; both begin at position 5.
 *   position    0 1 2 3 4 | 5 6 7 | 5 6  7  8
 *
 * A token attends to the earlier tokens of its own segment and to all tokens of its ancestors; its position counts along that path.
 * A hidden row may predict several tokens (row 4 predicts the first token of both children), so losses read a list of targets.
 *
 * Keys and values are laid out for attention in pages of 64 positions along a path. Full pages of a parent are shared by its children;
 * the page in which a parent ends is repeated for each child (its rows are copied), so that every path is a list of whole pages and the
 * blocks of keys that a query sees do not depend on how the tree was cut. That is what makes packed = alone, shared = separate and
 * decode = prefill exact to the bit. */
#ifndef PLUMB_FOREST_H
#define PLUMB_FOREST_H
#include "plumb/base.h"

enum { PLUMB_PAGE = 64, PLUMB_NO_ADAPTER = -1 };

typedef struct plumb_segment {
    int64_t begin, count;   /* flat rows [begin, begin+count) */
    int32_t parent;         /* index of an earlier segment, -1 for a root */
    int32_t adapter;        /* which adapter its rows go through; PLUMB_NO_ADAPTER = the base model */
    int32_t sample;         /* caller's mark; also the sample of random keys */
    int32_t branch;         /* how many segments of the same sample came before it (set by plumb_forest_add) */
    int64_t start;          /* position of its first token (set by plumb_forest_add; cached tokens before a root count) */
    int32_t first_page, n_pages; /* range of `paths` below (set by plumb_forest_finish) */
} plumb_segment;

typedef struct plumb_target {
    int32_t row;            /* hidden row whose logits predict the token */
    int32_t token;
    int32_t segment;        /* segment that the token belongs to */
} plumb_target;

typedef struct plumb_page {
    int32_t slot;           /* page of the key/value store */
    int32_t rows[PLUMB_PAGE]; /* flat row to write at each place; -1: nothing to write (empty, or already in the store) */
} plumb_page;

typedef struct plumb_forest { /* zero-initialise; owns its arrays; plumb_forest_free */
    int64_t n_tokens; int32_t *ids, *positions, *row_segment; size_t cap_ids, cap_positions, cap_row_segment;
    int32_t n_segments; plumb_segment *segments; size_t cap_segments;
    int32_t n_targets; plumb_target *targets; size_t cap_targets;
    int32_t n_pages; plumb_page *pages; size_t cap_pages;     /* pages that this batch writes or reads */
    int32_t n_paths; int32_t *paths; size_t cap_paths;        /* store slots along each segment's path, concatenated */
    int32_t n_slots;                                         /* size of the store that is needed */
    bool finished;
} plumb_forest;

void plumb_forest_reset(plumb_forest *f); /* empty again, memory kept */
void plumb_forest_free(plumb_forest *f);
/* Appends a segment of `count` tokens (0 is allowed: a path that ends where its parent ends, with its own copy of the last page);
 * *index receives its number (or index NULL). After a failure the forest is as it was before. */
plumb_status plumb_forest_add(plumb_forest *f, int32_t parent, const int32_t *ids, int64_t count, int32_t adapter, int32_t sample,
                              int32_t *index) PLUMB_CHECKED;
plumb_status plumb_forest_target(plumb_forest *f, int32_t row, int32_t token, int32_t segment) PLUMB_CHECKED;
/* Hidden row that predicts token i of a segment: the row before it on its path; -1 for the first token of a root. */
int32_t plumb_forest_row_before(const plumb_forest *f, int32_t segment, int64_t i);
/* Lays out pages for training and prefill: every path from position 0, slots 0..n_slots-1. */
plumb_status plumb_forest_finish(plumb_forest *f) PLUMB_CHECKED;
/* Lays out pages for decoding: segment s continues at position start[s] a path whose store slots are slots[s][0 …
 * ceil((start+count)/64)). start of a child = the end of its parent. Positions before a root's start are in the store already, at the
 * slots given. Rows of this batch are written to every slot on whose path they are (a child whose slots differ from its parent's gets
 * copies); two rows for one place are PLUMB_E_DATA. `pages` lists only pages that receive rows. */
plumb_status plumb_forest_finish_cached(plumb_forest *f, const int64_t *start, const int32_t *const *slots) PLUMB_CHECKED;
#endif
