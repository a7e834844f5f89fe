/* The micro-batch is the atom of determinism: how a global batch is cut depends on its samples, the token budget and the model's shape
 * alone, never on the number of ranks.
 *
 * The batch is halved, and its halves again, each time as evenly as the differencing of Karmarkar & Karp (1982) does it, at least twice
 * and until a part of several samples is within the budget. So 1, 2, 4, … ranks find parts of like weight in the tree of halves; any
 * other number of ranks, or a tree that one long sample unbalances, is dealt longest first to the least loaded. */
#include "plan.h"
#include <stdlib.h>
#include <string.h>

int64_t plumb_sample_cost(const plumb_sample *s) {
    int64_t tokens = s->prompt_count;
    for (int b = 0; b < s->n_branches; b++) tokens += s->branch[b].count;
    return tokens;
}
int64_t plumb_sample_tokens(const plumb_sample *s) {
    int64_t tokens = 0;
    for (int b = 0; b < s->n_branches; b++) tokens += s->prompt_count + s->branch[b].count;
    return tokens;
}
int64_t plumb_branch_targets(const plumb_branch *b) {
    int64_t n = 0;
    for (int32_t i = 0; i < b->count; i++) n += b->mask ? b->mask[i] != 0 : 1;
    return n;
}
void plumb_plan_free(plumb_plan *p) {
    free(p->samples);
    free(p->members);
    free(p->batches);
    free(p->stats);
    *p = (plumb_plan){0};
}
double plumb_plan_sum(const plumb_plan *p, int k) {
    double sum = 0;
    for (int64_t i = 0; i < p->count; i++) sum += p->stats[i * PLUMB_STATS + k];
    return sum;
}

/* --- two halves of like weight ---------------------------------------------------------------- */
enum { WEIGHT_UNIT = 64 }; /* of a token: weights are whole numbers */
typedef struct item { int64_t weight, tokens; int32_t member; } item;
/* what stays of a set after another was put against it; the set's name is an item in it */
typedef struct difference { int64_t weight; int32_t item; } difference;
typedef struct opposed { int32_t kept, against; } opposed;

typedef struct cutter {
    plumb_plan *plan;
    int64_t budget;
    item *items, *sorted;
    difference *heap; /* heaviest first, then by index */
    opposed *pairs;
    bool *second;
} cutter;

static bool before(difference a, difference b) { return a.weight != b.weight ? a.weight > b.weight : a.item < b.item; }
static void sift(difference *heap, int64_t n, int64_t at) {
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], heap[at])) return;
        difference moved = heap[at];
        heap[at] = heap[child], heap[child] = moved;
    }
}
/* Reorders items [first, first+n): one half, then the other, each in the order of the data. Returns the size of the first. */
static int64_t halve(cutter *c, int64_t first, int64_t n) {
    item *items = c->items + first;
    for (int64_t i = 0; i < n; i++) c->heap[i] = (difference){items[i].weight, (int32_t)i};
    for (int64_t i = n / 2; i-- > 0;) sift(c->heap, n, i);
    for (int64_t left = n; left > 1; left--) { /* the two heaviest sets go to opposite sides; their difference stays */
        difference a = c->heap[0];
        c->heap[0] = c->heap[left - 1];
        sift(c->heap, left - 1, 0);
        c->pairs[left - 2] = (opposed){a.item, c->heap[0].item};
        c->heap[0] = (difference){a.weight - c->heap[0].weight, a.item};
        sift(c->heap, left - 1, 0);
    }
    c->second[c->heap[0].item] = false;
    for (int64_t i = 0; i < n - 1; i++) c->second[c->pairs[i].against] = !c->second[c->pairs[i].kept]; /* last pair first */
    int64_t at = 0, size = 0;
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++)
            if (c->second[i] == (c->second[0] != (side != 0))) c->sorted[at++] = items[i];
        if (side == 0) size = at;
    }
    memcpy(items, c->sorted, (size_t)n * sizeof *items);
    return size;
}
/* `path` holds the turns that lead to this part, from the highest bit down. */
static void split(cutter *c, int64_t first, int64_t n, uint64_t path, int depth) {
    plumb_micro_batch b = {.first = (int32_t)first, .count = (int32_t)n, .path = path};
    for (int64_t i = first; i < first + n; i++) b.tokens += c->items[i].tokens, b.weight += c->items[i].weight;
    if (n > 1 && depth < 60 && (depth < 2 || b.tokens > c->budget)) {
        int64_t left = halve(c, first, n);
        split(c, first, left, path, depth + 1);
        split(c, first + left, n - left, path | 1ull << (63 - depth), depth + 1);
        return;
    }
    for (int64_t i = first; i < first + n; i++) c->plan->members[i] = c->items[i].member;
    c->plan->batches[c->plan->n_batches++] = b;
}

/* --- dealing to ranks ------------------------------------------------------------------------- */
typedef struct weighed { int64_t weight; int32_t index; } weighed;
static int heaviest_first(const void *a, const void *b) {
    const weighed *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}
static int64_t largest(const int64_t *load, int ranks) {
    int64_t most = 0;
    for (int r = 0; r < ranks; r++) most = plumb_max64(most, load[r]);
    return most;
}
/* Longest first to the least loaded; where the tree of halves is as even, by its first turns. */
static void deal(plumb_plan *p, weighed *order, int64_t *load, int ranks) {
    for (int32_t b = 0; b < p->n_batches; b++) order[b] = (weighed){p->batches[b].weight, b};
    qsort(order, (size_t)p->n_batches, sizeof *order, heaviest_first);
    memset(load, 0, (size_t)ranks * sizeof *load);
    for (int32_t i = 0; i < p->n_batches; i++) {
        int least = 0;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[least]) least = r;
        p->batches[order[i].index].rank = least;
        load[least] += order[i].weight;
    }
    if (ranks < 2 || (ranks & (ranks - 1))) return;
    int64_t greedy = largest(load, ranks);
    int shift = 64 - __builtin_ctz((unsigned)ranks);
    memset(load, 0, (size_t)ranks * sizeof *load);
    for (int32_t b = 0; b < p->n_batches; b++) load[p->batches[b].path >> shift] += p->batches[b].weight;
    for (int32_t b = 0; b < p->n_batches && largest(load, ranks) <= greedy; b++)
        p->batches[b].rank = (int32_t)(p->batches[b].path >> shift);
}

plumb_status plumb_plan_cut(plumb_plan *p, const plumb_dataset *d, int64_t budget, double target_tokens, int ranks) {
    int64_t n = p->count;
    PLUMB_TRY(plumb_grow(&p->members, &p->cap_members, (size_t)n, sizeof *p->members));
    PLUMB_TRY(plumb_grow(&p->batches, &p->cap_batches, (size_t)n, sizeof *p->batches));
    PLUMB_TRY(plumb_grow(&p->stats, &p->cap_stats, (size_t)(n * PLUMB_STATS), sizeof *p->stats));
    memset(p->stats, 0, (size_t)(n * PLUMB_STATS) * sizeof *p->stats);
    cutter c = {.plan = p, .budget = budget};
    weighed *order = NULL;
    int64_t *load = NULL;
    plumb_status s = plumb_alloc(&c.items, (size_t)n, sizeof *c.items, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&c.sorted, (size_t)n, sizeof *c.sorted, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&c.heap, (size_t)n, sizeof *c.heap, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&c.pairs, (size_t)n, sizeof *c.pairs, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&c.second, (size_t)n, sizeof *c.second, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&order, (size_t)n, sizeof *order, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&load, (size_t)ranks, sizeof *load, "a plan");
    if (s != PLUMB_OK) goto done;
    p->tokens = p->targets = 0, p->n_batches = 0;
    for (int64_t i = 0; i < n; i++) {
        const plumb_sample *sample = plumb_plan_sample(p, d, (int32_t)i);
        int64_t targets = 0;
        for (int b = 0; b < sample->n_branches; b++) targets += plumb_branch_targets(&sample->branch[b]);
        c.items[i] = (item){.tokens = plumb_sample_cost(sample), .member = (int32_t)i};
        c.items[i].weight = c.items[i].tokens * WEIGHT_UNIT + (int64_t)((double)(targets * WEIGHT_UNIT) * target_tokens);
        p->tokens += plumb_sample_tokens(sample);
        p->targets += targets;
    }
    if (n) split(&c, 0, n, 0, 0);
    deal(p, order, load, ranks);
done:
    free(c.items), free(c.sorted), free(c.heap), free(c.pairs), free(c.second);
    free(order);
    free(load);
    return s;
}
