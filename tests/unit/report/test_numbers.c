/* Ticks, numbers, and which points of many are drawn. */
#include "report_test.h"

static void ticks_are_round_and_cover(void **state) {
    (void)state;
    static const double ranges[][2] = {{0, 1},      {0.13, 0.87}, {-4.2, 3.6}, {1.1e-5, 3e-4},  {12, 98765},    {-1e300, 1e300},
                                       {0, 1e-320}, {5, 5},       {0, 0},      {999.5, 1000.5}, {-7e-9, -3e-9}, {1, 1 + 1e-15}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        for (int most = 2; most <= 8; most++) {
            report_ticks t = report_ticks_for(ranges[i][0], ranges[i][1], most, false, false);
            assert_true(t.count >= 2 && t.count <= most + 1 && t.step > 0 && isfinite(t.step) && isfinite(t.first));
            if (fabs(ranges[i][0]) > 1e100) continue; /* held within what can be drawn */
            assert_true(t.first <= ranges[i][0] + t.step * 1e-6 && t.first + t.step * (t.count - 1) >= ranges[i][1] - t.step * 1e-6);
            if (t.step < 1e-300) continue; /* no digits left below */
            double digit = t.step / pow(10, floor(log10(t.step) + 1e-9));
            assert_true(fabs(digit - 1) < 1e-6 || fabs(digit - 2) < 1e-6 || fabs(digit - 5) < 1e-6);
        }
    report_ticks x = report_ticks_for(1, 40, 6, true, true);
    assert_true(x.first == 10 && x.step == 10 && x.count == 4);
    x = report_ticks_for(0.5, 1.5, 6, true, true); /* a run of one step */
    assert_true(x.first == 1 && x.count == 1);
    x = report_ticks_for(0, 3, 6, true, true);
    assert_true(x.first == 0 && x.step == 1 && x.count == 4);
}

static void label(double first, double step, int count, int i, const char *expected) {
    char text[REPORT_NUMBER];
    report_ticks t = {first, step, count};
    report_tick_label(text, &t, i);
    assert_string_equal(text, expected);
}

static void labels_have_the_digits_they_need(void **state) {
    (void)state;
    label(0, 0.1, 5, 3, "0.3");
    label(-0.1, 0.1, 3, 1, "0");
    label(-1, 0.5, 5, 0, "-1.0");
    label(0, 20, 5, 4, "80");
    label(0, 5000, 4, 3, "15k");
    label(0, 2500, 5, 1, "2.5k");
    label(0, 500000, 4, 3, "1.5M");
    label(0, 1e-5, 4, 2, "2e-5");
    label(0, 5e-6, 4, 3, "1.5e-5");
    label(0, 0.0005, 4, 2, "0.0010");
    label(2000, 2000, 4, 0, "2000");
}

static void number(double value, const char *expected) {
    char text[REPORT_NUMBER];
    report_number(text, value);
    assert_string_equal(text, expected);
}

static void numbers_have_four_digits(void **state) {
    (void)state;
    number(0, "0");
    number(1.5, "1.5");
    number(-0.30780436, "-0.3078");
    number(9.2060689, "9.206");
    number(64, "64");
    number(186880, "186880");
    number(1234567890, "1.23e9");
    number(7.5e-6, "7.5e-6");
    number(1e-5, "1e-5");
    number(123.456, "123.5");
    number(NAN, "NaN");
    number(-INFINITY, "-Infinity");
    char text[REPORT_NUMBER];
    static const struct {
        double seconds;
        const char *expected;
    } times[] = {{0.25, "0.2 s"}, {9.96, "10 s"}, {59.97, "1 min 00 s"}, {200, "3 min 20 s"}, {3599.7, "1 h 00 min"}, {7500, "2 h 05 min"},
                 {NAN, "?"},      {-1, "?"}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        report_duration(text, times[i].seconds);
        assert_string_equal(text, times[i].expected);
    }
}

static bool has(const size_t *kept, size_t n, size_t i) {
    for (size_t k = 0; k < n; k++)
        if (kept[k] == i) return true;
    return false;
}

static void thinning_keeps_every_peak(void **state) {
    (void)state;
    enum { N = 100000 };
    static double y[N];
    size_t kept[REPORT_POINTS];
    for (size_t i = 0; i < N; i++) y[i] = sin((double)i * 0.01) * 0.1;
    y[31234] = 50, y[77777] = -50;
    size_t n = report_thin(y, N, REPORT_POINTS, kept);
    assert_true(n <= REPORT_POINTS && n > REPORT_POINTS / 2);
    assert_true(has(kept, n, 31234) && has(kept, n, 77777) && kept[0] == 0 && kept[n - 1] == N - 1);
    for (size_t i = 1; i < n; i++) assert_true(kept[i] > kept[i - 1]);

    y[50000] = NAN; /* one gap: still seen, peaks too */
    for (size_t i = 60000; i < 70000; i++) y[i] = NAN;
    n = report_thin(y, N, REPORT_POINTS, kept);
    assert_true(n <= REPORT_POINTS && has(kept, n, 31234) && has(kept, n, 77777) && has(kept, n, 50000));
    size_t gaps = 0;
    for (size_t i = 0; i < n; i++) gaps += isnan(y[kept[i]]);
    assert_true(gaps > 10);

    for (size_t size = 1; size < 40; size++) { /* few: all of them; and any number fits */
        n = report_thin(y, size, REPORT_POINTS, kept);
        assert_int_equal(n, size);
        n = report_thin(y, size, 8, kept);
        assert_true(n <= 8 && kept[0] == 0 && kept[n - 1] == size - 1);
    }
    assert_int_equal(report_thin(y, 0, 8, kept), 0);
}

static void smoothing_follows_and_keeps_gaps(void **state) {
    (void)state;
    double y[200], out[200], weights[200];
    for (int i = 0; i < 200; i++) y[i] = 3;
    y[50] = NAN;
    report_smooth(y, 200, 5, out, weights);
    /* a level stays, from the first point on */
    for (int i = 0; i < 200; i++) assert_true(i == 50 ? isnan(out[i]) : fabs(out[i] - 3) < 1e-12);
    y[100] = 13;
    report_smooth(y, 200, 5, out, weights);
    double step = out[100] - 3;
    assert_true(step > 0.3 && step < 5);
    /* half of it after the half-life, on both sides */
    assert_true(fabs(out[105] - 3 - step / 2) < 0.02 * step && fabs(out[95] - out[105]) < 0.02 * step);
    for (int i = 0; i < 200; i++) y[i] = i;
    report_smooth(y, 200, 5, out, weights);
    assert_true(fabs(out[100] - 100) < 0.01); /* no lag */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_are_round_and_cover),        cmocka_unit_test(labels_have_the_digits_they_need),
        cmocka_unit_test(numbers_have_four_digits),         cmocka_unit_test(thinning_keeps_every_peak),
        cmocka_unit_test(smoothing_follows_and_keeps_gaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
