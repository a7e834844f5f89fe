/* Cutting a batch into micro-batches: nothing is lost, the cut does not know the ranks, parts keep to the budget,
 * and ranks are loaded alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../../../trainers/plan.h"

enum { MOST = 4096, BUDGET = 256 };
static plumb_sample samples[MOST];
static plumb_branch branches[MOST];
static int64_t order[MOST];

/* `count` texts of 20 to 20 + spread tokens, by a fixed congruence. */
static plumb_dataset texts(int64_t count, int spread, uint32_t seed) {
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        branches[i] = (plumb_branch){.count = 20 + (int32_t)(seed >> 8) % spread};
        samples[i] = (plumb_sample){.n_branches = 1, .branch = &branches[i]};
        order[i] = i;
    }
    return (plumb_dataset){.samples = samples, .count = count};
}
static plumb_plan cut(const plumb_dataset *d, int ranks) {
    plumb_plan p = {.count = d->count};
    p.samples = malloc((size_t)d->count * sizeof *p.samples);
    memcpy(p.samples, order, (size_t)d->count * sizeof *p.samples);
    p.cap_samples = (size_t)d->count;
    assert_int_equal(plumb_plan_cut(&p, d, BUDGET, 0.27, ranks), PLUMB_OK);
    return p;
}

static void check_cut(const plumb_dataset *d, const plumb_plan *p, int ranks) {
    static int seen[MOST];
    memset(seen, 0, sizeof seen);
    int64_t next = 0;
    for (int32_t b = 0; b < p->n_batches; b++) {
        const plumb_micro_batch *m = &p->batches[b];
        int64_t tokens = 0;
        assert_int_equal(m->first, next);
        assert_in_range(m->count, 1, d->count);
        assert_in_range(m->rank, 0, ranks - 1);
        for (int32_t i = m->first; i < m->first + m->count; i++) {
            seen[p->members[i]]++;
            tokens += d->samples[p->members[i]].branch[0].count;
            if (i > m->first) assert_true(p->members[i] > p->members[i - 1]); /* the order of the data */
        }
        assert_int_equal(m->tokens, tokens);
        if (m->count > 1) assert_true(tokens <= BUDGET);
        next += m->count;
    }
    assert_int_equal(next, d->count);
    for (int64_t i = 0; i < d->count; i++) assert_int_equal(seen[i], 1);
}
static void test_nothing_is_lost(void **state) {
    (void)state;
    static const int64_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 64, MOST};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int ranks = 1; ranks <= 9; ranks++) {
            plumb_dataset d = texts(counts[c], 400, 7 + (uint32_t)c);
            plumb_plan p = cut(&d, ranks);
            check_cut(&d, &p, ranks);
            plumb_plan_free(&p);
        }
}
static void test_ranks_do_not_change_the_cut(void **state) {
    (void)state;
    plumb_dataset d = texts(23, 500, 3);
    plumb_plan alone = cut(&d, 1);
    for (int ranks = 2; ranks <= 8; ranks++) {
        plumb_plan p = cut(&d, ranks);
        assert_int_equal(p.n_batches, alone.n_batches);
        assert_memory_equal(p.members, alone.members, (size_t)d.count * sizeof *p.members);
        for (int32_t b = 0; b < p.n_batches; b++)
            assert_true(p.batches[b].first == alone.batches[b].first && p.batches[b].count == alone.batches[b].count);
        plumb_plan_free(&p);
    }
    plumb_plan_free(&alone);
}
/* Over many batches of 16 texts two ranks wait for each other less than 1 % of the time, four less than 3 %. */
static void test_ranks_are_loaded_alike(void **state) {
    (void)state;
    for (int ranks = 2; ranks <= 4; ranks *= 2) {
        double slowest = 0, total = 0;
        for (uint32_t seed = 0; seed < 100; seed++) {
            plumb_dataset d = texts(16, 300, seed);
            plumb_plan p = cut(&d, ranks);
            double load[4] = {0}, most = 0;
            for (int32_t b = 0; b < p.n_batches; b++)
                load[p.batches[b].rank] += (double)p.batches[b].weight, total += (double)p.batches[b].weight;
            for (int r = 0; r < ranks; r++) most = load[r] > most ? load[r] : most;
            slowest += most;
            plumb_plan_free(&p);
        }
        double efficiency = total / (slowest * ranks);
        if (efficiency < (ranks == 2 ? 0.99 : 0.97)) fail_msg("%d ranks: %.3f of the ideal", ranks, efficiency);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_is_lost), cmocka_unit_test(test_ranks_do_not_change_the_cut),
                                       cmocka_unit_test(test_ranks_are_loaded_alike)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
