/* top-k, top-p, min-p, typical-p on the tokens that are still in.
 *
 * Nothing sorts the vocabulary. Three of the filters ask the same question: in the order of a key, at which token does the running
 * weight reach a mark? The keys' range is cut into 1,024 bins, one pass adds the weights up, and only the bin in which the mark lies is
 * looked at again - cut anew while it is large, sorted when it is small. Bins are monotone in the key, so that the answer is the sort's;
 * sums over bins round differently from a running sum in the last bit. After each filter the tokens that stay move together: behind a
 * top-k everything is small.
 *
 *     filter      order                     weight   mark                               what stays
 *     top-k       z descending              1        k                                  z >= the one at the mark
 *     top-p       z ascending, id ascending p        more than 1 - top_p                from the one at the mark on
 *     typical-p   |-log p - entropy|        p        typical_p                          keys <= the one at the mark
 *
 * (where the mark is not reached, the last one takes its place). typical-p: Meister et al. 2022; min-p: Nguyen et al. 2024, p >= min_p
 * max p; the exact rules are those of transformers' processors. */
#include "sampler_internal.h"
#include <math.h>
#include <stdlib.h>

enum { SORTED = 64, CUTS = 8 }; /* items that are sorted at once; cuts before a degenerate bin is sorted whatever its size */

typedef struct ordering { /* the question */
    const double *key, *weight; /* [n]; weight NULL: 1 each */
    double mark;
    bool beyond; /* the sum must exceed the mark, not only reach it */
} ordering;

static bool reached(const ordering *o, double sum) { return o->beyond ? sum > o->mark : sum >= o->mark; }

static int order_of_items(const void *a, const void *b) {
    const plumb_sampler_item *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The bin where the sum reaches the mark, else the last that is not empty; *sum is what lies before it. */
static int bin_at_mark(const double *bins, const ordering *o, double *sum) {
    int found = 0;
    double before = *sum;
    for (int b = 0; b < PLUMB_SAMPLER_BINS; b++) {
        if (bins[b] <= 0) continue;
        found = b;
        *sum = before;
        if (reached(o, before + bins[b])) break;
        before += bins[b];
    }
    return found;
}

/* Bins of [low, high]; false when they cannot be cut (one value, or a range beyond a double's). */
static bool scale_of(double low, double high, double *scale) {
    *scale = (PLUMB_SAMPLER_BINS - 1) / (high - low);
    return isfinite(high - low) && high > low && isfinite(*scale);
}

/* Items of the bin at the mark, in the order of ids; all of them when there is nothing to cut. */
static int64_t gather(plumb_sampler *s, const ordering *o, double *sum) {
    double low = INFINITY, high = -INFINITY, scale;
    int64_t count = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (o->key[i] < low) low = o->key[i];
        if (o->key[i] > high) high = o->key[i];
    }
    bool cut = s->n > SORTED && scale_of(low, high, &scale);
    int bin = 0;
    if (cut) {
        for (int b = 0; b < PLUMB_SAMPLER_BINS; b++) s->bins[b] = 0;
        for (int64_t i = 0; i < s->n; i++) s->bins[(int)((o->key[i] - low) * scale)] += o->weight ? o->weight[i] : 1;
        bin = bin_at_mark(s->bins, o, sum);
    }
    for (int64_t i = 0; i < s->n; i++)
        if (!cut || (int)((o->key[i] - low) * scale) == bin)
            s->items[count++] = (plumb_sampler_item){o->key[i], o->weight ? o->weight[i] : 1, s->id[i]};
    return count;
}

/* The same among the items; returns how many are left, `count` itself when there is nothing to cut. */
static int64_t narrow(plumb_sampler *s, int64_t count, const ordering *o, double *sum) {
    double low = INFINITY, high = -INFINITY, scale;
    int64_t left = 0;
    for (int64_t i = 0; i < count; i++) {
        if (s->items[i].key < low) low = s->items[i].key;
        if (s->items[i].key > high) high = s->items[i].key;
    }
    if (!scale_of(low, high, &scale)) return count;
    for (int b = 0; b < PLUMB_SAMPLER_BINS; b++) s->bins[b] = 0;
    for (int64_t i = 0; i < count; i++) s->bins[(int)((s->items[i].key - low) * scale)] += s->items[i].weight;
    int bin = bin_at_mark(s->bins, o, sum);
    for (int64_t i = 0; i < count; i++)
        if ((int)((s->items[i].key - low) * scale) == bin) s->items[left++] = s->items[i];
    return left;
}

/* The first token in the order of (key, id) at which the sum of weights reaches the mark, else the last token. */
static plumb_sampler_item at_mark(plumb_sampler *s, const ordering *o) {
    double sum = 0;
    int64_t count = gather(s, o, &sum);
    for (int cuts = 0; count > SORTED && cuts < CUTS; cuts++) {
        int64_t left = narrow(s, count, o, &sum);
        if (left == count) break;
        count = left;
    }
    bool sorted = true; /* equal keys are, by id, from the start */
    for (int64_t i = 1; i < count && sorted; i++) sorted = s->items[i - 1].key <= s->items[i].key;
    if (!sorted) qsort(s->items, (size_t)count, sizeof *s->items, order_of_items);
    int64_t i = 0;
    for (sum += s->items[0].weight; i + 1 < count && !reached(o, sum); sum += s->items[i].weight) i++;
    return s->items[i];
}

static void move(plumb_sampler *s, int64_t from, int64_t to) {
    s->z[to] = s->z[from];
    s->id[to] = s->id[from];
    if (s->weighed) s->e[to] = s->e[from];
}
static void shrink(plumb_sampler *s, int64_t n) {
    if (n == s->n) return;
    s->n = n;
    if (s->weighed) s->total = s->kernels->sum(s->e, n);
}
static void weigh(plumb_sampler *s) {
    if (s->weighed) return;
    s->total = s->kernels->exp_sum(s->z, s->n, s->max, s->e);
    s->weighed = true;
}

static void keep_top_k(plumb_sampler *s, int64_t k) {
    int64_t n = 0;
    if (k >= s->n) return;
    for (int64_t i = 0; i < s->n; i++) s->key[i] = -s->z[i];
    double least = -at_mark(s, &(ordering){s->key, NULL, (double)k, false}).key;
    for (int64_t i = 0; i < s->n; i++)
        if (s->z[i] >= least) move(s, i, n++);
    shrink(s, n);
}

static void keep_top_p(plumb_sampler *s, double top_p) {
    int64_t n = 0;
    weigh(s);
    plumb_sampler_item least = at_mark(s, &(ordering){s->z, s->e, (1 - top_p) * s->total, true});
    for (int64_t i = 0; i < s->n; i++)
        if (s->z[i] > least.key || (s->z[i] == least.key && s->id[i] >= least.id)) move(s, i, n++);
    shrink(s, n);
}

static void keep_min_p(plumb_sampler *s, double min_p) {
    const double border = log(min_p), doubt = 1e-9; /* the exponential is taken only where rounding could decide */
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++) {
        double d = s->z[i] - s->max, e;
        if (d > border + doubt || (d >= border - doubt && s->kernels->exp_sum(&s->z[i], 1, s->max, &e) >= min_p)) move(s, i, n++);
    }
    shrink(s, n);
}

/* -log p and the entropy both contain the logarithm of the total: their distance is that of z - max to its mean, without it. */
static void keep_typical(plumb_sampler *s, double typical_p) {
    int64_t n = 0;
    weigh(s);
    const double mean = s->kernels->sum_shifted(s->z, s->e, s->n, s->max) / s->total;
    for (int64_t i = 0; i < s->n; i++) s->key[i] = fabs((s->z[i] - s->max) - mean);
    double most = at_mark(s, &(ordering){s->key, s->e, typical_p * s->total, false}).key;
    for (int64_t i = 0; i < s->n; i++)
        if (s->key[i] <= most) move(s, i, n++);
    shrink(s, n);
}

void plumb_sampler_filter(plumb_sampler *s, const plumb_sampling *o) {
    s->n = 0;
    s->weighed = false;
    s->max = -INFINITY;
    for (int64_t i = 0; i < s->vocab; i++) {
        if (s->z[i] == -INFINITY) continue;
        if (s->z[i] > s->max) s->max = s->z[i];
        s->id[s->n] = (int32_t)i;
        s->z[s->n++] = s->z[i];
    }
    if (!s->n || s->max == INFINITY) return; /* the temperature may have overflowed: left for the caller to see */
    if (o->top_k > 0) keep_top_k(s, o->top_k);
    if (o->top_p < 1) keep_top_p(s, o->top_p);
    if (o->min_p > 0) keep_min_p(s, o->min_p);
    if (o->typical_p < 1) keep_typical(s, o->typical_p);
}
