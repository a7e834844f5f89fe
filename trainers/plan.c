/* The micro-batch is the atom of determinism: how a global batch is cut depends on its samples and on the token budget, never on the number of ranks.
 *
 * Bins come in fours, as many as bring them nearest to the budget, so that 1, 2 and 4 ranks share them evenly; they are filled longest sample first into the least
 * full bin, so that they come out alike. When a bin of several samples passes the budget by more than a half, four more are tried. */
#include "plan.h"
#include <stdlib.h>
#include <string.h>

enum { IN_FOURS = 4 };

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

typedef struct weighed { int64_t cost; int32_t index; } weighed;
static int longest_first(const void *a, const void *b) {
    const weighed *x = a, *y = b;
    if (x->cost != y->cost) return x->cost > y->cost ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* bin_of[i] for each sample; false when a bin of several samples is too full. */
static bool fill(const weighed *items, int64_t count, int64_t budget, int32_t n_bins, int64_t *load, int32_t *members, int32_t *bin_of) {
    memset(load, 0, (size_t)n_bins * sizeof *load);
    memset(members, 0, (size_t)n_bins * sizeof *members);
    for (int64_t i = 0; i < count; i++) {
        int32_t least = 0;
        for (int32_t b = 1; b < n_bins; b++)
            if (load[b] < load[least]) least = b;
        load[least] += items[i].cost;
        members[least]++;
        bin_of[items[i].index] = least;
    }
    for (int32_t b = 0; b < n_bins; b++)
        if (members[b] > 1 && load[b] > budget + budget / 2) return false;
    return true;
}

static void deal(plumb_plan *p, weighed *items, int64_t *load, int ranks) {
    for (int32_t b = 0; b < p->n_batches; b++) items[b] = (weighed){p->batches[b].tokens, b};
    qsort(items, (size_t)p->n_batches, sizeof *items, longest_first);
    memset(load, 0, (size_t)ranks * sizeof *load);
    for (int32_t i = 0; i < p->n_batches; i++) {
        int least = 0;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[least]) least = r;
        p->batches[items[i].index].rank = least;
        load[least] += items[i].cost;
    }
}

plumb_status plumb_plan_cut(plumb_plan *p, const plumb_dataset *d, int64_t budget, int ranks) {
    int64_t n = p->count, total = 0;
    p->tokens = 0;
    PLUMB_TRY(plumb_grow(&p->members, &p->cap_members, (size_t)n, sizeof *p->members));
    PLUMB_TRY(plumb_grow(&p->batches, &p->cap_batches, (size_t)n, sizeof *p->batches));
    PLUMB_TRY(plumb_grow(&p->stats, &p->cap_stats, (size_t)(n * PLUMB_STATS), sizeof *p->stats));
    memset(p->stats, 0, (size_t)(n * PLUMB_STATS) * sizeof *p->stats);
    weighed *items = NULL;
    int64_t *load = NULL;
    int32_t *in_bin = NULL, *bin_of = NULL;
    plumb_status s = plumb_alloc(&items, (size_t)n, sizeof *items, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&load, (size_t)plumb_max64(n, ranks), sizeof *load, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&in_bin, (size_t)n, sizeof *in_bin, "a plan");
    if (s == PLUMB_OK) s = plumb_alloc(&bin_of, (size_t)n, sizeof *bin_of, "a plan");
    if (s != PLUMB_OK) goto done;
    for (int64_t i = 0; i < n; i++) {
        items[i] = (weighed){plumb_sample_cost(plumb_plan_sample(p, d, (int32_t)i)), (int32_t)i};
        total += items[i].cost;
        p->tokens += plumb_sample_tokens(plumb_plan_sample(p, d, (int32_t)i));
    }
    qsort(items, (size_t)n, sizeof *items, longest_first);
    int32_t bins = (int32_t)plumb_min64(n, IN_FOURS * plumb_max64(1, (total + IN_FOURS * budget / 2) / (IN_FOURS * budget)));
    while (bins < n && !fill(items, n, budget, bins, load, in_bin, bin_of)) bins += IN_FOURS;
    if (bins >= n) fill(items, n, INT64_MAX / 2, bins = (int32_t)n, load, in_bin, bin_of);
    int32_t at = 0;
    for (int32_t b = 0; b < bins; b++) { /* members in the order of the data */
        p->batches[b] = (plumb_micro_batch){at, in_bin[b], load[b], 0};
        for (int32_t i = 0; i < n; i++)
            if (bin_of[i] == b) p->members[at++] = i;
    }
    p->n_batches = bins;
    deal(p, items, load, ranks);
done:
    free(items);
    free(load);
    free(in_bin);
    free(bin_of);
    return s;
}
