/* HDF5 in memory: what goes in comes out, in its type; what does not fit is refused by the names of file and dataset, and the library
 * itself prints nothing. */
#include "io_test.h"
#include <fcntl.h>
#include <math.h>
#include "plumb/hdf5.h"

static const double reals[] = {0.1, -INFINITY, 1e300, -2.5, 0, 7};
static const int64_t integers[] = {INT64_MIN, -1, 0, INT64_MAX, 5, 6};

/* A file with a dataset of each kind, open for reading. */
static plumb_hdf5 *sample(void) {
    plumb_hdf5 *f;
    uint8_t *bytes;
    size_t size;
    assert_ok(plumb_hdf5_create(&f, "made"));
    assert_ok(plumb_hdf5_write(f, "/a/doubles", PLUMB_HDF5_F64, reals, PLUMB_HDF5_F64, 6, 0));
    assert_ok(plumb_hdf5_write(f, "/a/floats", PLUMB_HDF5_F32, reals, PLUMB_HDF5_F64, 3, 2));
    assert_ok(plumb_hdf5_write(f, "/a/b/integers", PLUMB_HDF5_I64, integers, PLUMB_HDF5_I64, 6, 0));
    assert_ok(plumb_hdf5_write(f, "/none", PLUMB_HDF5_I32, NULL, PLUMB_HDF5_I32, 0, 0));
    assert_ok(plumb_hdf5_set_integer(f, "answer", -42));
    assert_ok(plumb_hdf5_set_texts(f, "words", "one\0two", 4, 2));
    assert_refused(plumb_hdf5_write(f, "/a/doubles", PLUMB_HDF5_F64, reals, PLUMB_HDF5_F64, 6, 0), PLUMB_E_MEMORY,
                   "made: dataset \"/a/doubles\": cannot write");
    assert_ok(plumb_hdf5_image(f, &bytes, &size));
    plumb_hdf5_close(f);
    assert_ok(plumb_hdf5_open(&f, bytes, size, "read"));
    free(bytes); /* it was copied */
    return f;
}

static void test_values(void **state) {
    plumb_hdf5 *f = sample();
    double d[6];
    int64_t i[6], rows, columns;
    char words[3][8];
    assert_ok(plumb_hdf5_read(f, "/a/doubles", d, PLUMB_HDF5_F64, 0, 6, 0));
    assert_memory_equal(d, reals, sizeof reals);
    assert_ok(plumb_hdf5_shape(f, "/a/floats", &rows, &columns));
    assert_int_equal(rows, 3);
    assert_int_equal(columns, 2);
    assert_ok(plumb_hdf5_read(f, "/a/floats", d, PLUMB_HDF5_F64, 1, 2, 2));
    assert_true(d[0] == INFINITY && d[1] == -2.5 && d[3] == 7); /* 1e300 is beyond float */
    assert_ok(plumb_hdf5_read(f, "/a/floats", d, PLUMB_HDF5_F64, 0, 1, 2));
    assert_true(d[0] == (double)0.1f && d[1] == -INFINITY);
    assert_ok(plumb_hdf5_read(f, "/a/b/integers", i, PLUMB_HDF5_I64, 0, 6, 0));
    assert_memory_equal(i, integers, sizeof integers);
    assert_ok(plumb_hdf5_shape(f, "/none", &rows, NULL));
    assert_int_equal(rows, 0);
    assert_ok(plumb_hdf5_read(f, "/none", NULL, PLUMB_HDF5_I32, 0, 0, 0));
    assert_ok(plumb_hdf5_get_integer(f, "answer", i));
    assert_int_equal(i[0], -42);
    assert_ok(plumb_hdf5_get_texts(f, "words", words[0], 8, 3, &rows));
    assert_int_equal(rows, 2);
    assert_string_equal(words[1], "two");
    assert_true(plumb_hdf5_has(f, "words") && !plumb_hdf5_has(f, "missing"));
    plumb_hdf5_close(f);
    (void)state;
}

static void test_large(void **state) { /* many chunks, one and two dimensions, read from the middle */
    enum { N = 300000 };
    plumb_hdf5 *f;
    uint8_t *bytes;
    size_t size;
    int32_t *values, *back;
    assert_ok(plumb_alloc(&values, N, sizeof *values, "test"));
    assert_ok(plumb_alloc(&back, N, sizeof *back, "test"));
    for (int i = 0; i < N; i++) values[i] = i * 7;
    assert_ok(plumb_hdf5_create(&f, "made"));
    assert_ok(plumb_hdf5_write(f, "/flat", PLUMB_HDF5_I32, values, PLUMB_HDF5_I32, N, 0));
    assert_ok(plumb_hdf5_write(f, "/wide", PLUMB_HDF5_I32, values, PLUMB_HDF5_I32, N / 3, 3));
    assert_ok(plumb_hdf5_image(f, &bytes, &size));
    plumb_hdf5_close(f);
    assert_true(size < N * sizeof *values); /* two of them, deflated */
    assert_ok(plumb_hdf5_open(&f, bytes, size, "read"));
    assert_ok(plumb_hdf5_read(f, "/flat", back, PLUMB_HDF5_I32, 65000, 200000, 0));
    assert_memory_equal(back, values + 65000, 200000 * sizeof *values);
    assert_ok(plumb_hdf5_read(f, "/wide", back, PLUMB_HDF5_I32, 20000, 50000, 3));
    assert_memory_equal(back, values + 60000, 150000 * sizeof *values);
    plumb_hdf5_close(f);
    free(bytes);
    free(values);
    free(back);
    (void)state;
}

static void test_refusals(void **state) {
    plumb_hdf5 *f = sample(), *g;
    double d[6];
    int64_t i[6], n;
    char words[2][8];
    assert_refused(plumb_hdf5_read(f, "/a/missing", d, PLUMB_HDF5_F64, 0, 1, 0), PLUMB_E_FORMAT,
                   "read: dataset \"/a/missing\": cannot open: HDF5: ");
    assert_refused(plumb_hdf5_read(f, "/a/doubles", i, PLUMB_HDF5_I64, 0, 6, 0), PLUMB_E_FORMAT, "\"/a/doubles\": expected integers");
    assert_refused(plumb_hdf5_read(f, "/a/b/integers", i, PLUMB_HDF5_I32, 0, 6, 0), PLUMB_E_FORMAT, "expected integers of at most 4 bytes");
    assert_refused(plumb_hdf5_read(f, "/a/b/integers", d, PLUMB_HDF5_F64, 0, 6, 0), PLUMB_E_FORMAT, "expected reals");
    assert_refused(plumb_hdf5_read(f, "/a/doubles", d, PLUMB_HDF5_F64, 1, 6, 0), PLUMB_E_FORMAT, "has 6 rows of 1, expected rows 1 to 7");
    assert_refused(plumb_hdf5_read(f, "/a/floats", d, PLUMB_HDF5_F64, 0, 1, 3), PLUMB_E_FORMAT, "has 3 rows of 2");
    assert_refused(plumb_hdf5_read(f, "/a/floats", d, PLUMB_HDF5_F64, 0, 1, 0), PLUMB_E_FORMAT, "2 dimensions, expected 1");
    assert_refused(plumb_hdf5_get_integer(f, "missing", i), PLUMB_E_FORMAT, "attribute \"missing\"");
    assert_refused(plumb_hdf5_get_integer(f, "words", i), PLUMB_E_FORMAT, "attribute \"words\": expected an integer");
    assert_refused(plumb_hdf5_get_texts(f, "words", words[0], 8, 1, &n), PLUMB_E_FORMAT, "attribute \"words\"");
    assert_refused(plumb_hdf5_get_texts(f, "answer", words[0], 8, 1, &n), PLUMB_E_FORMAT, "expected texts");
    plumb_hdf5_close(f);
    assert_refused(plumb_hdf5_open(&g, "not an HDF5 file at all", 23, "text.h5"), PLUMB_E_FORMAT, "text.h5: not an HDF5 file");
    assert_refused(plumb_hdf5_open(&g, NULL, 0, "empty.h5"), PLUMB_E_FORMAT, "empty.h5: empty");
    assert_null(g);
    (void)state;
}

static void test_silence(void **state) { /* the refusals again, with standard error in a file */
    const char *path = in(*state, "stderr");
    int file = open(path, O_WRONLY | O_CREAT, 0600), before = dup(2);
    plumb_hdf5 *g;
    dup2(file, 2);
    plumb_status status = plumb_hdf5_open(&g, "not an HDF5 file at all", 23, "text.h5");
    dup2(before, 2);
    close(before);
    assert_int_equal(status, PLUMB_E_FORMAT);
    assert_int_equal(lseek(file, 0, SEEK_END), 0);
    close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_large), cmocka_unit_test(test_refusals),
                                       cmocka_unit_test_setup_teardown(test_silence, make_folder, remove_folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
