/* The forest of segments: growing it, and laying its paths out in pages of 64 positions.
 *
 * Role: turn a list of segments into (1) for every segment the list of store slots along its path from position 0 and
 * (2) for every page that receives something the flat row to write at each place. Attention needs nothing else.
 *
 * Invariant: place p % 64 of page p / 64 of a segment's path holds the key of position p of that path, whether it was
 * written now or earlier. A page belongs to several paths only where they agree on all 64 places that any of them
 * reads.
 *
 *   parent, 130 tokens      page 0   page 1   page 2 (2 places used)
 *   child A                 page 0   page 1   page 3 (2 places repeated, then A's own)     page 4 ...
 *   child B                 page 0   page 1   page 5 (2 places repeated, then B's own)
 *
 * Sharing page 2 between the children would be smaller, but then a query would see its keys in other blocks than it
 * does when it is decoded alone, and the bits would differ. Repeating costs at most 63 rows per child.  Both layouts
 * below fill `paths` and then meet in write_pages. */
#include "plumb/forest.h"
#include <stdlib.h>
#include <string.h>

void plumb_forest_reset(plumb_forest *f) {
    f->n_tokens = 0;
    f->n_segments = f->n_targets = f->n_pages = f->n_paths = f->n_slots = 0;
    f->finished = false;
}

void plumb_forest_free(plumb_forest *f) {
    if (!f) return;
    free(f->ids);
    free(f->positions);
    free(f->row_segment);
    free(f->segments);
    free(f->targets);
    free(f->pages);
    free(f->paths);
    *f = (plumb_forest){0};
}

/* One past the last position of a segment. */
static int64_t end_of(const plumb_segment *s) {
    return s->start + s->count;
}

static plumb_status check_segment(const plumb_forest *f, int32_t parent, const int32_t *ids, int64_t count,
                                  int32_t adapter) {
    if (f->finished)
        return plumb_error(PLUMB_E_DATA, "a segment was added to a forest that is already laid out; reset it first");
    if (parent < -1 || parent >= f->n_segments)
        return plumb_error(PLUMB_E_DATA, "segment %d: parent %d is not an earlier segment", f->n_segments, parent);
    if (adapter < PLUMB_NO_ADAPTER)
        return plumb_error(PLUMB_E_DATA, "segment %d: adapter %d does not exist", f->n_segments, adapter);
    if (count < 0 || count > INT32_MAX - PLUMB_PAGE - f->n_tokens)
        return plumb_error(PLUMB_E_DATA,
                           "segment %d: %lld tokens beside the %lld of the batch; a batch holds fewer than 2^31",
                           f->n_segments, (long long)count, (long long)f->n_tokens);
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0)
            return plumb_error(PLUMB_E_DATA, "segment %d: token %lld is %d; ids are not negative", f->n_segments,
                               (long long)i, ids[i]);
    return PLUMB_OK;
}

plumb_status plumb_forest_add(plumb_forest *f, int32_t parent, const int32_t *ids, int64_t count, int32_t adapter,
                              int32_t sample, int32_t *index) {
    PLUMB_TRY(check_segment(f, parent, ids, count, adapter));
    size_t need = (size_t)(f->n_tokens + count);
    PLUMB_TRY(plumb_grow(&f->ids, &f->cap_ids, need, sizeof *f->ids));
    PLUMB_TRY(plumb_grow(&f->positions, &f->cap_positions, need, sizeof *f->positions));
    PLUMB_TRY(plumb_grow(&f->row_segment, &f->cap_row_segment, need, sizeof *f->row_segment));
    PLUMB_TRY(plumb_grow(&f->segments, &f->cap_segments, (size_t)f->n_segments + 1, sizeof *f->segments));
    int64_t start = parent < 0 ? 0 : end_of(&f->segments[parent]); /* at most n_tokens: it fits */
    if (count) memcpy(f->ids + f->n_tokens, ids, (size_t)count * sizeof *ids);
    for (int64_t i = 0; i < count; i++) {
        f->positions[f->n_tokens + i] = (int32_t)(start + i);
        f->row_segment[f->n_tokens + i] = f->n_segments;
    }
    int32_t last = f->n_segments -
                   1; /* the segment of this sample that came last: usually the one before, but samples may alternate */
    while (last >= 0 && f->segments[last].sample != sample) last--;
    f->segments[f->n_segments] = (plumb_segment){.branch = last < 0 ? 0 : f->segments[last].branch + 1,
                                                 .begin = f->n_tokens,
                                                 .count = count,
                                                 .parent = parent,
                                                 .adapter = adapter,
                                                 .sample = sample,
                                                 .start = start};
    if (index) *index = f->n_segments;
    f->n_segments++;
    f->n_tokens += count;
    return PLUMB_OK;
}

plumb_status plumb_forest_target(plumb_forest *f, int32_t row, int32_t token, int32_t segment) {
    if (segment < 0 || segment >= f->n_segments)
        return plumb_error(PLUMB_E_DATA, "target %d: segment %d does not exist (the batch has %d)", f->n_targets,
                           segment, f->n_segments);
    if (row < 0 || row >= f->n_tokens)
        return plumb_error(PLUMB_E_DATA, "target %d: row %d is not one of the %lld rows of the batch", f->n_targets,
                           row, (long long)f->n_tokens);
    if (token < 0) return plumb_error(PLUMB_E_DATA, "target %d: token %d is negative", f->n_targets, token);
    int32_t on_path = segment;
    while (on_path >= 0 && on_path != f->row_segment[row]) on_path = f->segments[on_path].parent;
    if (on_path < 0)
        return plumb_error(PLUMB_E_DATA, "target %d: row %d is not on the path of segment %d", f->n_targets, row,
                           segment);
    if (f->n_targets == INT32_MAX) return plumb_error(PLUMB_E_DATA, "a batch holds fewer than 2^31 targets");
    PLUMB_TRY(plumb_grow(&f->targets, &f->cap_targets, (size_t)f->n_targets + 1, sizeof *f->targets));
    f->targets[f->n_targets++] = (plumb_target){row, token, segment};
    return PLUMB_OK;
}

int32_t plumb_forest_row_before(const plumb_forest *f, int32_t segment, int64_t i) {
    const plumb_segment *s = &f->segments[segment];
    if (i > 0) return (int32_t)(s->begin + i - 1);
    for (int32_t p = s->parent; p >= 0; p = f->segments[p].parent) /* ancestors may be empty */
        if (f->segments[p].count) return (int32_t)(f->segments[p].begin + f->segments[p].count - 1);
    return -1;
}

/* Reserves the path of segment s: sets first_page and n_pages. */
static plumb_status reserve_path(plumb_forest *f, plumb_segment *s) {
    int64_t pages = (end_of(s) + PLUMB_PAGE - 1) / PLUMB_PAGE;
    if (pages > INT32_MAX - f->n_paths)
        return plumb_error(PLUMB_E_DATA, "the paths of the batch have more than 2^31 pages in all");
    PLUMB_TRY(plumb_grow(&f->paths, &f->cap_paths, (size_t)(f->n_paths + pages), sizeof *f->paths));
    s->first_page = f->n_paths;
    s->n_pages = (int32_t)pages;
    f->n_paths += (int32_t)pages;
    return PLUMB_OK;
}

/* The row of this batch at a position of the path of segment s; the position is not before the root's start. */
static int32_t row_at(const plumb_forest *f, int32_t s, int64_t position) {
    while (position < f->segments[s].start) s = f->segments[s].parent;
    return (int32_t)(f->segments[s].begin + position - f->segments[s].start);
}

/* Notes the rows of positions [from, to), all in one page, in the page of `slot`. page_of: slot -> page or -1. */
static plumb_status write_page(plumb_forest *f, int32_t *page_of, int32_t slot, int32_t s, int64_t from, int64_t to) {
    if (from >= to) return PLUMB_OK;
    if (page_of[slot] < 0) {
        PLUMB_TRY(plumb_grow(&f->pages, &f->cap_pages, (size_t)f->n_pages + 1, sizeof *f->pages));
        plumb_page *fresh = &f->pages[f->n_pages];
        fresh->slot = slot;
        for (int i = 0; i < PLUMB_PAGE; i++) fresh->rows[i] = -1;
        page_of[slot] = f->n_pages++;
    }
    plumb_page *page = &f->pages[page_of[slot]];
    for (int64_t p = from; p < to; p++) {
        int32_t row = row_at(f, s, p), *place = &page->rows[p % PLUMB_PAGE];
        if (*place >= 0 && *place != row)
            return plumb_error(PLUMB_E_DATA,
                               "segment %d: place %d of slot %d would hold row %d and row %d; segments that part need "
                               "slots of their own",
                               s, (int)(p % PLUMB_PAGE), slot, *place, row);
        *place = row;
    }
    return PLUMB_OK;
}

/* From the paths: which rows go where. A page that a segment has in common with its parent needs only the segment's own
 * rows; any other page also needs those of its ancestors. */
static plumb_status write_pages(plumb_forest *f) {
    int32_t *page_of;
    plumb_status status = plumb_alloc(&page_of, (size_t)f->n_slots, sizeof *page_of, "the pages of a batch");
    if (status != PLUMB_OK) return status;
    for (int32_t i = 0; i < f->n_slots; i++) page_of[i] = -1;
    for (int32_t i = 0; i < f->n_segments; i++) {
        const plumb_segment *s = &f->segments[i], *parent = s->parent < 0 ? NULL : &f->segments[s->parent], *root = s;
        while (root->parent >= 0) root = &f->segments[root->parent];
        for (int32_t p = 0; p < s->n_pages; p++) {
            int32_t slot = f->paths[s->first_page + p];
            bool shared = parent && p < parent->n_pages && f->paths[parent->first_page + p] == slot;
            int64_t from = plumb_max64((int64_t)p * PLUMB_PAGE, shared ? s->start : root->start);
            int64_t to = plumb_min64((int64_t)(p + 1) * PLUMB_PAGE, end_of(s));
            status = write_page(f, page_of, slot, i, from, to);
            if (status != PLUMB_OK) goto done;
        }
    }
    f->finished = true;
done:
    free(page_of);
    return status;
}

plumb_status plumb_forest_finish(plumb_forest *f) {
    f->n_pages = f->n_paths = f->n_slots = 0;
    f->finished = false;
    for (int32_t i = 0; i < f->n_segments; i++) {
        plumb_segment *s = &f->segments[i];
        PLUMB_TRY(reserve_path(f, s));
        int32_t shared = (int32_t)(s->parent < 0 ? 0 : s->start / PLUMB_PAGE); /* the parent's full pages */
        for (int32_t p = 0; p < s->n_pages; p++)
            f->paths[s->first_page + p] = p < shared ? f->paths[f->segments[s->parent].first_page + p] : f->n_slots++;
    }
    return write_pages(f);
}

plumb_status plumb_forest_finish_cached(plumb_forest *f, const int64_t *start, const int32_t *const *slots) {
    f->n_pages = f->n_paths = f->n_slots = 0;
    f->finished = false;
    for (int32_t i = 0; i < f->n_segments; i++) {
        plumb_segment *s = &f->segments[i];
        if (start[i] < 0 || start[i] > INT32_MAX - PLUMB_PAGE - s->count)
            return plumb_error(PLUMB_E_DATA, "segment %d: start %lld is not a position", i, (long long)start[i]);
        if (s->parent >= 0 && start[i] != end_of(&f->segments[s->parent]))
            return plumb_error(PLUMB_E_DATA, "segment %d: starts at position %lld, but its parent ends at %lld", i,
                               (long long)start[i], (long long)end_of(&f->segments[s->parent]));
        s->start = start[i];
        for (int64_t j = 0; j < s->count; j++) f->positions[s->begin + j] = (int32_t)(s->start + j);
        PLUMB_TRY(reserve_path(f, s));
        for (int32_t p = 0; p < s->n_pages; p++) {
            int32_t slot = slots[i][p];
            if (slot < 0 || slot == INT32_MAX)
                return plumb_error(PLUMB_E_DATA, "segment %d: page %d has slot %d", i, p, slot);
            f->paths[s->first_page + p] = slot;
            if (slot >= f->n_slots) f->n_slots = slot + 1;
        }
    }
    return write_pages(f);
}
