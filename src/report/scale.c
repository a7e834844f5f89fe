/* Numbers for people: ticks at round values, labels as short as they can be, read-outs with four digits.
 *
 * A tick's label is made from its integer multiple of the step, not by adding up the step, so that 0.3 does not become
 * 0.30000000000000004 and zero is zero. */
#include "report_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double LARGE = 1e150; /* differences and products of smaller numbers are finite */

/* The next step after `step` in 1, 2, 5, 10, ... */
static double next_step(double step) {
    double power = pow(10, floor(log10(step) + 1e-9)), digit = step / power;
    return (digit < 1.5 ? 2 : digit < 3 ? 5 : 10) * power;
}

report_ticks report_ticks_for(double low, double high, int most, bool inside, bool whole) {
    low = fmax(-LARGE, fmin(LARGE, low)), high = fmax(-LARGE, fmin(LARGE, high));
    double span = high - low, least = fmax(fabs(low), fabs(high)) * 1e-12;
    if (span <= least) span = fmax(least, 1e-300);
    double step = pow(10, floor(log10(span / most)));
    if (whole) step = fmax(1, step);
    for (int tries = 0; tries < 8; tries++, step = next_step(step)) {
        double first = inside ? ceil(low / step - 1e-9) : floor(low / step + 1e-9),
               last = inside ? floor(high / step + 1e-9) : ceil(high / step - 1e-9);
        if (!inside && last <= first) last = first + 1;
        if (last - first <= most) return (report_ticks){first * step, step, (int)(last - first) + 1};
    }
    return (report_ticks){low, span, 2};
}

/* Digits after the point that a multiple of `step` needs, when at most `most` are wanted. */
static int decimals(double step, int most) {
    for (int d = 0; d < most; d++) {
        double scaled = step * pow(10, d);
        if (fabs(scaled - round(scaled)) < 1e-6 * scaled) return d;
    }
    return most;
}

void report_tick_label(char out[REPORT_NUMBER], const report_ticks *t, int i) {
    static const struct { double from; const char *suffix; } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e4, "k"}};
    double k = round(t->first / t->step) + i, value = k * t->step, large = fmax(fabs(t->first), fabs(t->first + t->step * (t->count - 1)));
    if (value == 0) {
        strcpy(out, "0");
        return;
    }
    if (large < 1e-3 || large >= 1e15) {
        double power = floor(log10(fabs(value)) + 1e-9);
        snprintf(out, REPORT_NUMBER, "%.*fe%d", decimals(t->step / pow(10, power), 6), value / pow(10, power), (int)power);
        return;
    }
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        double scale = units[u].from == 1e4 ? 1e3 : units[u].from;
        if (large < units[u].from) continue;
        snprintf(out, REPORT_NUMBER, "%.*f%s", decimals(t->step / scale, 6), value / scale, units[u].suffix);
        return;
    }
    snprintf(out, REPORT_NUMBER, "%.*f", decimals(t->step, 9), value);
}

/* "1.500" -> "1.5" */
static void trim(char *text) {
    if (!strchr(text, '.')) return;
    char *end = text + strlen(text);
    while (end[-1] == '0') *--end = 0;
    if (end[-1] == '.') *--end = 0;
}

void report_number(char out[REPORT_NUMBER], double value) { /* the script on the page has a twin */
    double size = fabs(value);
    if (isnan(value)) strcpy(out, "NaN");
    else if (isinf(value)) strcpy(out, value > 0 ? "Infinity" : "-Infinity");
    else if (size != 0 && (size < 1e-3 || size >= 1e7)) {
        char text[REPORT_NUMBER], *e;
        snprintf(text, sizeof text, "%.2e", value);
        e = strchr(text, 'e');
        int power = (int)strtol(e + 1, NULL, 10);
        *e = 0;
        trim(text);
        snprintf(out, REPORT_NUMBER, "%.20se%d", text, power);
    } else if (size >= 1000) snprintf(out, REPORT_NUMBER, "%.0f", value);
    else {
        snprintf(out, REPORT_NUMBER, "%.*f",
                 size >= 100    ? 1
                 : size >= 10   ? 2
                 : size >= 1    ? 3
                 : size >= 0.1  ? 4
                 : size >= 0.01 ? 5
                                : 6,
                 value);
        trim(out);
    }
}

void report_duration(char out[REPORT_NUMBER], double seconds) {
    if (!(seconds >= 0 && seconds < 1e12)) strcpy(out, "?");
    else if (seconds < 59.95) snprintf(out, REPORT_NUMBER, "%.*f s", seconds < 9.95 ? 1 : 0, seconds);
    else if (seconds < 3599.5) snprintf(out, REPORT_NUMBER, "%lld min %02lld s", llround(seconds) / 60, llround(seconds) % 60);
    else snprintf(out, REPORT_NUMBER, "%lld h %02lld min", llround(seconds) / 3600, llround(seconds) % 3600 / 60);
}
