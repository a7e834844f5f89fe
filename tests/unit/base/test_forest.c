/* The page layout of forests. The checker knows only the definition (walk up the parents); the layout must agree with
 * it at every position. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/forest.h"

static void add(plumb_forest *f, int32_t parent, int64_t count) {
    int32_t ids[512], index = -1, expected = f->n_segments;
    for (int i = 0; i < 512; i++) ids[i] = (int32_t)(f->n_tokens + i) % 131;
    assert_int_equal(plumb_forest_add(f, parent, ids, count, PLUMB_NO_ADAPTER, 3, &index), PLUMB_OK);
    assert_int_equal(index, expected);
}

/* Row at a position of the path of s, by definition; -1 before the root's first row of this batch. */
static int32_t row_by_definition(const plumb_forest *f, int32_t s, int64_t position) {
    for (; s >= 0; s = f->segments[s].parent)
        if (position >= f->segments[s].start) return (int32_t)(f->segments[s].begin + position - f->segments[s].start);
    return -1;
}

static const plumb_page *page_of_slot(const plumb_forest *f, int32_t slot) {
    for (int32_t i = 0; i < f->n_pages; i++)
        if (f->pages[i].slot == slot) return &f->pages[i];
    return NULL;
}

/* Every position of every path is where it should be; nothing else is written; each slot has one page. */
static void check_layout(const plumb_forest *f) {
    assert_true(f->finished);
    int64_t *wanted = calloc((size_t)f->n_slots * PLUMB_PAGE + 1, sizeof *wanted);
    for (int32_t s = 0; s < f->n_segments; s++) {
        const plumb_segment *segment = &f->segments[s];
        int64_t end = segment->start + segment->count;
        assert_int_equal(segment->n_pages, (end + PLUMB_PAGE - 1) / PLUMB_PAGE);
        for (int64_t i = 0; i < segment->count; i++) {
            assert_int_equal(f->positions[segment->begin + i], segment->start + i);
            assert_int_equal(f->row_segment[segment->begin + i], s);
        }
        for (int64_t p = 0; p < end; p++) {
            int32_t slot = f->paths[segment->first_page + p / PLUMB_PAGE], row = row_by_definition(f, s, p);
            assert_true(slot >= 0 && slot < f->n_slots);
            const plumb_page *page = page_of_slot(f, slot);
            if (row < 0) continue; /* in the store already */
            assert_non_null(page);
            assert_int_equal(page->rows[p % PLUMB_PAGE], row);
            wanted[slot * PLUMB_PAGE + p % PLUMB_PAGE] = 1;
        }
    }
    for (int32_t i = 0; i < f->n_pages; i++) {
        assert_ptr_equal(page_of_slot(f, f->pages[i].slot), &f->pages[i]);
        bool any = false;
        for (int place = 0; place < PLUMB_PAGE; place++) {
            assert_int_equal(f->pages[i].rows[place] >= 0, wanted[f->pages[i].slot * PLUMB_PAGE + place]);
            any |= f->pages[i].rows[place] >= 0;
        }
        assert_true(any);
    }
    free(wanted);
}

static int32_t slot_at(const plumb_forest *f, int32_t s, int32_t page) {
    return f->paths[f->segments[s].first_page + page];
}

static void picture_of_the_header(void **state) { /* a prompt of 5 and two children */
    (void)state;
    plumb_forest f = {0};
    add(&f, -1, 5), add(&f, 0, 3), add(&f, 0, 4);
    assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
    check_layout(&f);
    const int32_t positions[] = {0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8};
    assert_memory_equal(f.positions, positions, sizeof positions);
    assert_int_equal(f.n_slots, 3); /* the page is repeated for each child */
    assert_int_equal(plumb_forest_row_before(&f, 0, 0), -1);
    assert_int_equal(plumb_forest_row_before(&f, 0, 2), 1);
    assert_int_equal(plumb_forest_row_before(&f, 1, 0), 4);
    assert_int_equal(plumb_forest_row_before(&f, 2, 0), 4);
    assert_int_equal(plumb_forest_row_before(&f, 2, 1), 8);
    plumb_forest_free(&f);
}

static void children_near_a_page_border(void **state) {
    (void)state;
    for (int64_t parent = 62; parent <= 66; parent++) {
        plumb_forest f = {0};
        add(&f, -1, parent), add(&f, 0, 1), add(&f, 0, 130), add(&f, 2, 64), add(&f, 2, 3), add(&f, 1, 2),
            add(&f, -1, 1);
        assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
        check_layout(&f);
        bool shared = slot_at(&f, 1, 0) == slot_at(&f, 0, 0); /* only a full page is shared */
        assert_int_equal(shared, parent >= 64);
        assert_int_equal(slot_at(&f, 2, 0) == slot_at(&f, 0, 0), parent >= 64);
        assert_true(slot_at(&f, 3, 1) == slot_at(&f, 2, 1) && slot_at(&f, 4, 1) == slot_at(&f, 2, 1));
        if (parent % 64) assert_true(slot_at(&f, 1, (int)parent / 64) != slot_at(&f, 2, (int)parent / 64));
        plumb_forest_free(&f);
    }
}

static void random_forests(void **state) {
    (void)state;
    plumb_forest f = {0};
    for (uint32_t trial = 0; trial < 60; trial++) {
        plumb_forest_reset(&f);
        for (uint32_t s = 0; s < 12; s++) {
            uint32_t r[4];
            plumb_rng_block(&(plumb_rng_key){.seed = 3, .sample = trial, .token = s, .site = PLUMB_SITE_TEST}, r);
            int64_t count = r[2] % 4 == 0 ? 0 : r[2] % 4 == 1 ? r[1] % 3 : r[1] % 150;
            add(&f, (int32_t)(r[0] % (s + 1)) - 1, count);
        }
        assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
        check_layout(&f);
    }
    plumb_forest_free(&f);
}

static void empty_things(void **state) {
    (void)state;
    plumb_forest f = {0};
    assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
    assert_int_equal(f.n_pages + f.n_slots + f.n_paths, 0);
    plumb_forest_reset(&f);
    add(&f, -1, 0), add(&f, 0, 0), add(&f, 1, 5), add(&f, 2, 0), add(&f, 3, 2);
    assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
    check_layout(&f);
    assert_int_equal(plumb_forest_row_before(&f, 2, 0), -1);
    assert_int_equal(plumb_forest_row_before(&f, 4, 0), 4); /* past the empty segment */
    assert_true(slot_at(&f, 3, 0) != slot_at(&f, 2, 0));    /* an empty child owns a copy, ready to be decoded into */
    plumb_forest_free(&f);
    plumb_forest_free(NULL);
}

/* Decoding: two sequences whose first page is common, one token each; then a prompt and its children into slots of the
 * caller's choice. */
static void cached_paths(void **state) {
    (void)state;
    plumb_forest f = {0};
    add(&f, -1, 1), add(&f, -1, 1);
    const int32_t first[] = {9, 4}, second[] = {9, 7, 2}, *slots[] = {first, second};
    const int64_t start[] = {100, 128};
    assert_int_equal(plumb_forest_finish_cached(&f, start, slots), PLUMB_OK);
    check_layout(&f);
    assert_int_equal(f.n_pages, 2); /* only what is written */
    assert_int_equal(f.n_slots, 10);
    assert_int_equal(page_of_slot(&f, 4)->rows[36], 0);
    assert_int_equal(page_of_slot(&f, 2)->rows[0], 1);

    plumb_forest_reset(&f);
    add(&f, -1, 70), add(&f, 0, 2), add(&f, 0, 3), add(&f, 1, 1);
    const int32_t prompt[] = {5, 1}, left[] = {5, 3}, right[] = {5, 8}, *tree[] = {prompt, left, right, left};
    const int64_t at[] = {0, 70, 70, 72};
    assert_int_equal(plumb_forest_finish_cached(&f, at, tree), PLUMB_OK);
    check_layout(&f);
    assert_int_equal(f.n_pages, 4);

    plumb_forest_reset(&f); /* a child that does not even share the full page gets a copy of all of it */
    add(&f, -1, 70), add(&f, 0, 2);
    const int32_t apart[] = {2, 3}, *copied[] = {prompt, apart};
    assert_int_equal(plumb_forest_finish_cached(&f, at, copied), PLUMB_OK);
    check_layout(&f);
    plumb_forest_free(&f);
}

static void cached_mistakes(void **state) {
    (void)state;
    plumb_forest f = {0};
    const int32_t a[] = {0, 1}, negative[] = {0, -1}, *same[] = {a, a}, *bad[] = {a, negative};
    int64_t start[] = {100, 100};
    add(&f, -1, 1), add(&f, -1, 1);
    assert_int_equal(plumb_forest_finish_cached(&f, start, same),
                     PLUMB_E_DATA); /* both would write place 36 of slot 1 */
    assert_false(f.finished);
    assert_int_equal(plumb_forest_finish_cached(&f, start, bad), PLUMB_E_DATA);
    start[1] = -1;
    assert_int_equal(plumb_forest_finish_cached(&f, start, same), PLUMB_E_DATA);
    start[1] = INT64_MAX;
    assert_int_equal(plumb_forest_finish_cached(&f, start, same), PLUMB_E_DATA);
    plumb_forest_reset(&f);
    add(&f, -1, 10), add(&f, 0, 1);
    const int64_t gap[] = {0, 11};
    assert_int_equal(plumb_forest_finish_cached(&f, gap, same), PLUMB_E_DATA);
    assert_non_null(strstr(plumb_error_message(), "parent ends at 10"));
    plumb_forest_free(&f);
}

/* The branch counts the earlier segments of the same sample, whether or not others stand between them. */
static void branches(void **state) {
    (void)state;
    static const int32_t samples[] = {5, 5, 9, 5, 2, 9, 5}, expected[] = {0, 1, 0, 2, 0, 1, 3};
    plumb_forest f = {0};
    for (int i = 0; i < 7; i++) assert_int_equal(plumb_forest_add(&f, -1, samples, 1, -1, samples[i], NULL), PLUMB_OK);
    for (int i = 0; i < 7; i++) assert_int_equal(f.segments[i].branch, expected[i]);
    plumb_forest_free(&f);
}

static void mistakes(void **state) {
    (void)state;
    plumb_forest f = {0};
    const int32_t ids[] = {1, 2, 3}, negative[] = {1, -2, 3};
    assert_int_equal(plumb_forest_add(&f, 0, ids, 3, -1, 0, NULL), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_add(&f, -2, ids, 3, -1, 0, NULL), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_add(&f, -1, ids, -1, -1, 0, NULL), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_add(&f, -1, ids, INT64_MAX, -1, 0, NULL), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_add(&f, -1, ids, (int64_t)1 << 31, -1, 0, NULL), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_add(&f, -1, ids, 3, -2, 0, NULL), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_add(&f, -1, negative, 3, -1, 0, NULL), PLUMB_E_DATA);
    assert_int_equal(f.n_segments + f.n_tokens, 0);
    add(&f, -1, 3), add(&f, 0, 2), add(&f, 0, 2);
    assert_int_equal(plumb_forest_target(&f, 2, 9, 1), PLUMB_OK);
    assert_int_equal(plumb_forest_target(&f, 3, 9, 2), PLUMB_E_DATA); /* a row of the sibling */
    assert_int_equal(plumb_forest_target(&f, 3, 9, 0), PLUMB_E_DATA); /* a row of the child */
    assert_int_equal(plumb_forest_target(&f, 7, 9, 2), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_target(&f, -1, 9, 2), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_target(&f, 2, -9, 2), PLUMB_E_DATA);
    assert_int_equal(plumb_forest_target(&f, 2, 9, 3), PLUMB_E_DATA);
    assert_int_equal(f.n_targets, 1);
    assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
    assert_int_equal(plumb_forest_add(&f, -1, ids, 3, -1, 0, NULL), PLUMB_E_DATA);
    plumb_forest_free(&f);
}

/* Each allocation fails once: the error is reported, nothing is lost, and the forest is usable afterwards. */
static void failing_allocations(void **state) {
    (void)state;
    for (long n = 1; n < 20; n++) {
        plumb_forest f = {0};
        const int32_t ids[] = {1, 2, 3};
        plumb_alloc_fail_after(n);
        plumb_status s = plumb_forest_add(&f, -1, ids, 3, -1, 0, NULL);
        if (s == PLUMB_OK) s = plumb_forest_target(&f, 0, 2, 0);
        if (s == PLUMB_OK) s = plumb_forest_finish(&f);
        assert_int_equal(s, n <= 8 ? PLUMB_E_MEMORY : PLUMB_OK);
        plumb_alloc_fail_after(0);
        if (s != PLUMB_OK) {
            plumb_forest_reset(&f);
            add(&f, -1, 3);
            assert_int_equal(plumb_forest_finish(&f), PLUMB_OK);
            check_layout(&f);
        }
        plumb_forest_free(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(picture_of_the_header),
        cmocka_unit_test(children_near_a_page_border),
        cmocka_unit_test(random_forests),
        cmocka_unit_test(empty_things),
        cmocka_unit_test(cached_paths),
        cmocka_unit_test(cached_mistakes),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(branches),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
