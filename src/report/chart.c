/* One small drawing: lines, a band, or bars on top of each other, over the steps of the run.
 *
 *     title            step 40       the caption and the legend are HTML: they wrap, and read-outs can change without touching the drawing
 *     -- mean 0.41  -- held-out 0.5
 *     |   ________________________
 *     |  /                            SVG, 400 x 190 units; all drawings of a page share the range of x, so that a column of them can
 *     +------------------- step       be read downwards
 *
 * Values stand beside the coordinates (data-p="step value ..."), for the script that reads them out; without script the legend shows the
 * last value of each line. Colours come from the page's styles (light and dark); lines after the first are dashed too, so that colour is
 * not all that tells them apart. */
#include "report_internal.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 400,
    HEIGHT = 190,
    LEFT = 50,
    RIGHT = 390,
    TOP = 8,
    BOTTOM = 156,
    X_TICKS = 6,
    Y_TICKS = 4,
    SMOOTHED_FROM = 24,
    DOTTED_TO = 12,
    HALF_LIVES = 60
};

typedef struct frame { double x0, x1, low, high; report_ticks ticks; } frame;
static double at_x(const frame *f, double x) { return LEFT + (x - f->x0) / (f->x1 - f->x0) * (RIGHT - LEFT); }
static double at_y(const frame *f, double y) { return BOTTOM - fmax(-0.1, fmin(1.1, (y - f->low) / (f->high - f->low))) * (BOTTOM - TOP); }
static double shown(const chart_line *l, double y) { return l->shift + l->scale * y; }

static double *room_for(report_page *p, size_t n) { /* NULL where there is none: then the page has failed */
    double *out = NULL;
    if (report_good(p)) p->status = plumb_alloc(&out, n, sizeof *out, "a drawing");
    return out;
}

/* --- ranges ----------------------------------------------------------------------------------- */
static void widen(double *low, double *high, double y) {
    if (isfinite(y)) *low = fmin(*low, y), *high = fmax(*high, y);
}

static double stack_height(const chart *c, size_t i) {
    double sum = 0;
    for (int k = 0; k < c->n_lines; k++) {
        double y = c->lines[k].series->y[i];
        if (isfinite(y) && y > 0) sum += y;
    }
    return sum;
}

static bool set_frame(const chart *c, frame *f) {
    double low = INFINITY, high = -INFINITY;
    for (int k = 0; k < c->n_lines && !c->stacked; k++)
        for (size_t i = 0; i < c->lines[k].series->n; i++) widen(&low, &high, shown(&c->lines[k], c->lines[k].series->y[i]));
    for (size_t i = 0; c->stacked && i < c->lines[0].series->n; i++) widen(&low, &high, stack_height(c, i));
    if (!(low <= high)) return false;
    for (size_t i = 0; c->low && i < c->low->n; i++) widen(&low, &high, c->low->y[i]);
    for (size_t i = 0; c->high && i < c->high->n; i++) widen(&low, &high, c->high->y[i]);
    for (size_t i = 0; c->middle && i < c->middle->n && i < c->deviation->n; i++)
        widen(&low, &high, c->middle->y[i] - c->deviation->y[i]), widen(&low, &high, c->middle->y[i] + c->deviation->y[i]);
    if (c->has_mark) widen(&low, &high, c->mark);
    if (c->from_zero) widen(&low, &high, 0);
    if (c->to_one) low = fmin(low, 0), high = fmax(high, 1);
    if (high - low <= fmax(fabs(low), fabs(high)) * 1e-6) { /* a level line: in the middle, or on the ground */
        double by = high == 0 ? 1 : fabs(high) * 0.2;
        if (!c->from_zero || high != 0) low -= c->from_zero ? 0 : by;
        high += by;
    }
    f->ticks = report_ticks_for(low, high, Y_TICKS, false, false);
    f->low = f->ticks.first, f->high = f->ticks.first + f->ticks.step * (f->ticks.count - 1);
    f->x0 = c->x0, f->x1 = c->x1;
    if (!(f->x1 > f->x0)) f->x0 -= 0.5, f->x1 += 0.5;
    return true;
}

static void put_axes(report_page *p, const chart *c, const frame *f) {
    char label[REPORT_NUMBER];
    report_ticks x = report_ticks_for(f->x0, f->x1, X_TICKS, true, true);
    report_put(p, "<path class=grid d=\"");
    for (int i = 0; i < f->ticks.count; i++) report_put(p, "M%d %.1fH%d", LEFT, at_y(f, f->ticks.first + f->ticks.step * i), RIGHT);
    report_put(p, "\"/><path class=axis d=\"M%d %dH%d", LEFT, BOTTOM, RIGHT);
    for (int i = 0; i < x.count; i++) report_put(p, "M%.1f %dv4", at_x(f, x.first + x.step * i), BOTTOM);
    report_put(p, "\"/>");
    if (c->has_mark) report_put(p, "<path class=level d=\"M%d %.1fH%d\"/>", LEFT, at_y(f, c->mark), RIGHT);
    report_put(p, "<g class=y>");
    for (int i = 0; i < f->ticks.count; i++) {
        report_tick_label(label, &f->ticks, i);
        report_put(p, "<text x=%d y=%.1f>%s</text>", LEFT - 6, at_y(f, f->ticks.first + f->ticks.step * i) + 3.5, label);
    }
    report_put(p, "</g><g class=x>");
    for (int i = 0; i < x.count; i++) {
        report_tick_label(label, &x, i);
        report_put(p, "<text x=%.1f y=%d>%s</text>", at_x(f, x.first + x.step * i), BOTTOM + 16, label);
    }
    report_put(p, "<text class=name x=%d y=%d>%s</text></g>", (LEFT + RIGHT) / 2, BOTTOM + 31, c->x_label);
}

/* --- lines ------------------------------------------------------------------------------------ */
/* Through the kept points; a gap breaks it, and a point between two gaps is a dot (a line of no length with a round end). */
static void put_path(report_page *p, const frame *f, const double *x, const double *y, const size_t *kept, size_t n) {
    bool open = false;
    for (size_t k = 0; k < n; k++) {
        size_t i = kept[k];
        bool there = isfinite(y[i]), next = k + 1 < n && isfinite(y[kept[k + 1]]);
        if (there && open) report_put(p, "L%.1f %.1f", at_x(f, x[i]), at_y(f, y[i]));
        else if (there) report_put(p, next ? "M%.1f %.1f" : "M%.1f %.1fh0", at_x(f, x[i]), at_y(f, y[i]));
        open = there;
    }
}
static void put_dots(report_page *p, const frame *f, const double *x, const double *y, const size_t *kept, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (isfinite(y[kept[k]])) report_put(p, "M%.1f %.1fh0", at_x(f, x[kept[k]]), at_y(f, y[kept[k]]));
}
static void put_values(report_page *p, const double *x, const double *y, const size_t *kept, size_t n) {
    report_put(p, " data-p=\"");
    for (size_t k = 0; k < n; k++) {
        report_put(p, "%s%.15g ", k ? " " : "", x[kept[k]]);
        if (isfinite(y[kept[k]])) report_put(p, "%.6g", y[kept[k]]);
        else report_put(p, "-");
    }
    report_put(p, "\"");
}

static void put_line(report_page *p, const chart *c, const frame *f, int index) {
    const chart_line *l = &c->lines[index];
    const report_series *s = l->series;
    double *y = room_for(p, s->n), *smooth = room_for(p, s->n), *weights = room_for(p, s->n);
    size_t kept[REPORT_POINTS];
    if (report_good(p)) {
        for (size_t i = 0; i < s->n; i++) y[i] = shown(l, s->y[i]);
        size_t n = report_thin(y, s->n, REPORT_POINTS, kept);
        bool smoothed = l->smooth && s->n >= SMOOTHED_FROM;
        report_put(p, "<g class=\"k%d\"><path class=\"line%s\"", index, smoothed ? " raw" : "");
        put_values(p, s->x, y, kept, n);
        report_put(p, " d=\"");
        put_path(p, f, s->x, y, kept, n);
        report_put(p, "\"/>");
        if (l->marks || s->n - s->gaps <= DOTTED_TO) {
            report_put(p, "<path class=dots d=\"");
            put_dots(p, f, s->x, y, kept, n);
            report_put(p, "\"/>");
        }
        if (smoothed) {
            report_smooth(y, s->n, fmax(2, (double)s->n / HALF_LIVES), smooth, weights);
            n = report_thin(smooth, s->n, REPORT_POINTS, kept);
            report_put(p, "<path class=\"line smooth\" d=\"");
            put_path(p, f, s->x, smooth, kept, n);
            report_put(p, "\"/>");
        }
        report_put(p, "</g>");
    }
    free(y);
    free(smooth);
    free(weights);
}

/* Where values were not finite: strokes on the ground, from the first to the last of neighbours, and no two on one dot. */
static void put_gaps(report_page *p, const chart *c, const frame *f) {
    bool any = false;
    for (int k = 0; k < c->n_lines; k++) {
        const report_series *s = c->lines[k].series;
        double end = -INFINITY;
        for (size_t i = 0; s->gaps && i < s->n; i++) {
            size_t from = i;
            if (!isnan(s->y[i])) continue;
            while (i + 1 < s->n && isnan(s->y[i + 1])) i++;
            if (at_x(f, s->x[i]) < end + 1) continue;
            end = at_x(f, s->x[i]);
            report_put(p, "%sM%.1f %dH%.1f", any ? "" : "<path class=gaps d=\"", at_x(f, s->x[from]), BOTTOM - 1, end);
            any = true;
        }
    }
    if (any) report_put(p, "\"/>");
}

/* --- bands ------------------------------------------------------------------------------------ */
typedef struct band { double x, low, high; } band;

/* Buckets of neighbours, each with the whole range of its members; without any, a gap. */
static size_t make_band(const chart *c, band *out) {
    const report_series *a = c->low ? c->low : c->middle, *b = c->low ? c->high : c->deviation;
    size_t n = a->n < b->n ? a->n : b->n, buckets = n < REPORT_POINTS / 2 ? n : REPORT_POINTS / 2;
    for (size_t k = 0; k < buckets; k++) {
        size_t from = n * k / buckets, to = n * (k + 1) / buckets;
        out[k] = (band){(a->x[from] + a->x[to - 1]) / 2, INFINITY, -INFINITY};
        for (size_t i = from; i < to; i++) {
            double low = c->low ? a->y[i] : a->y[i] - b->y[i], high = c->low ? b->y[i] : a->y[i] + b->y[i];
            if (isfinite(low) && isfinite(high)) out[k].low = fmin(out[k].low, low), out[k].high = fmax(out[k].high, high);
        }
    }
    return buckets;
}

static void put_band(report_page *p, const chart *c, const frame *f) {
    band points[REPORT_POINTS / 2];
    if (!c->low && !c->middle) return;
    size_t n = make_band(c, points);
    report_put(p, "<path class=\"band k0\" d=\"");
    for (size_t i = 0; i < n;) {
        size_t from = i, to;
        while (i < n && points[i].low <= points[i].high) i++;
        to = i++;
        for (size_t k = from; k < to; k++)
            report_put(p, "%s%.1f %.1f", k == from ? "M" : "L", at_x(f, points[k].x), at_y(f, points[k].high));
        for (size_t k = to; k > from; k--) report_put(p, "L%.1f %.1f", at_x(f, points[k - 1].x), at_y(f, points[k - 1].low));
        if (to > from) report_put(p, "Z");
    }
    report_put(p, "\"/>");
}

/* --- bars on top of each other ---------------------------------------------------------------- */
static void put_stack(report_page *p, const chart *c, const frame *f) {
    const report_series *first = c->lines[0].series;
    size_t n = first->n, bars = n < REPORT_BARS ? n : REPORT_BARS, all[REPORT_BARS];
    double base[REPORT_BARS] = {0}, y[REPORT_BARS], x[REPORT_BARS],
           width = fmax(1.2, fmin(28, (double)(RIGHT - LEFT) / (double)bars * 0.8));
    for (int k = 0; k < c->n_lines; k++) {
        for (size_t b = 0; b < bars; b++) {
            size_t from = n * b / bars, to = n * (b + 1) / bars;
            double sum = 0;
            for (size_t i = from; i < to; i++) sum += isfinite(c->lines[k].series->y[i]) ? fmax(0, c->lines[k].series->y[i]) : 0;
            y[b] = sum / (double)(to - from), x[b] = (first->x[from] + first->x[to - 1]) / 2, all[b] = b;
        }
        report_put(p, "<g class=\"k%d\"><path class=bars", k);
        put_values(p, x, y, all, bars);
        report_put(p, " d=\"");
        for (size_t b = 0; b < bars; b++) {
            double low = at_y(f, base[b]), high = at_y(f, base[b] + y[b]), left = fmax(LEFT, at_x(f, x[b]) - width / 2),
                   right = fmin(RIGHT, at_x(f, x[b]) + width / 2);
            report_put(p, "M%.1f %.2fV%.2fH%.1fV%.2fZ", left, low, high, right, low);
            base[b] += y[b];
        }
        report_put(p, "\"/></g>");
    }
}

/* --- the words around it ---------------------------------------------------------------------- */
static size_t last_finite(const report_series *s) { /* s->n: none */
    for (size_t i = s->n; i > 0; i--)
        if (isfinite(s->y[i - 1])) return i - 1;
    return s->n;
}

static void put_legend(report_page *p, const chart *c) {
    char number[REPORT_NUMBER];
    report_put(p, "<p class=legend>");
    for (int k = 0; k < c->n_lines; k++) {
        const chart_line *l = &c->lines[k];
        size_t last = last_finite(l->series);
        double value = last < l->series->n ? shown(l, l->series->y[last]) : NAN;
        report_number(number, value);
        report_put(p, "<button type=button aria-pressed=true data-k=%d%s class=\"k%d\"", k, c->stacked ? " data-s=1" : "", k);
        if (l->of > 0) report_put(p, " data-of=\"%.0f\"", l->of);
        report_put(p, "><i></i>");
        report_put_escaped(p, l->label, strlen(l->label));
        report_put(p, " <b>%s", last < l->series->n ? number : "\xe2\x80\x93");
        if (l->of > 0 && last < l->series->n) report_put(p, " (%.0f of %.0f)", round(value * l->of), l->of);
        report_put(p, "</b></button>");
    }
    if (c->band) report_put(p, "<span class=\"shade k0\"><i></i>%s</span>", c->band);
    report_put(p, "</p>");
}

static void put_description(report_page *p, const chart *c, int id) {
    char text[4][REPORT_NUMBER];
    report_put(p, "<title id=t%d>", id);
    report_put_escaped(p, c->title, strlen(c->title));
    report_put(p, "</title><desc id=d%d>", id);
    for (int k = 0; k < c->n_lines; k++) {
        const report_series *s = c->lines[k].series;
        double low = INFINITY, high = -INFINITY, first = NAN;
        for (size_t i = 0; i < s->n; i++) {
            double y = shown(&c->lines[k], s->y[i]);
            if (isnan(first)) first = y;
            widen(&low, &high, y);
        }
        size_t last = last_finite(s);
        report_put_escaped(p, c->lines[k].label, strlen(c->lines[k].label));
        if (last == s->n) {
            report_put(p, ": no finite value. ");
            continue;
        }
        report_number(text[0], first), report_number(text[1], shown(&c->lines[k], s->y[last])), report_number(text[2], low),
            report_number(text[3], high);
        report_put(p, ": %zu points from %s %.0f to %.0f; first %s, last %s, least %s, greatest %s. ", s->n, c->x_label, s->x[0],
                   s->x[s->n - 1], text[0], text[1], text[2], text[3]);
    }
    report_put(p, "</desc>");
}

static void put_notes(report_page *p, const chart *c) {
    size_t gaps = 0;
    for (int k = 0; k < c->n_lines; k++) gaps += c->lines[k].series->gaps;
    if (gaps)
        report_put(p, "<p class=\"note bad\">%zu value%s not finite (NaN or infinite): %s in the line, marked in red on the axis.</p>",
                   gaps, gaps == 1 ? " is" : "s are", gaps == 1 ? "a gap" : "gaps");
    if (c->stacked && c->lines[0].series->n > REPORT_BARS)
        report_put(p, "<p class=note>Each bar is the mean of about %zu %ss.</p>", (c->lines[0].series->n + REPORT_BARS / 2) / REPORT_BARS,
                   c->x_label);
    if (c->note) report_put(p, "<p class=note>%s</p>", c->note);
}

void report_chart(report_page *p, const chart *c, int id) {
    frame f;
    if (!report_good(p) || c->n_lines == 0) return;
    bool drawn = set_frame(c, &f);
    report_put(p, "<figure><figcaption><h3>");
    report_put_escaped(p, c->title, strlen(c->title));
    report_put(p, " <small>%s</small></h3><span class=at></span>", c->unit ? c->unit : "");
    if (c->help) report_put(p, "<p class=help>%s</p>", c->help);
    put_legend(p, c);
    report_put(p, "</figcaption>");
    if (drawn) {
        report_put(p,
                   "<svg viewBox=\"0 0 %d %d\" role=img tabindex=0 aria-labelledby=\"t%d d%d\" data-x0=\"%.15g\" data-x1=\"%.15g\" "
                   "data-l=%d data-r=%d data-u=\"%s\">",
                   WIDTH, HEIGHT, id, id, f.x0, f.x1, LEFT, RIGHT, c->x_label);
        put_description(p, c, id);
        put_axes(p, c, &f);
        put_band(p, c, &f);
        if (c->stacked) put_stack(p, c, &f);
        else
            for (int k = c->n_lines - 1; k >= 0; k--) put_line(p, c, &f, k); /* the first on top */
        put_gaps(p, c, &f);
        report_put(p, "<path class=cursor d=\"M0 %dV%d\"/></svg>", TOP, BOTTOM);
    } else {
        report_put(p, "<p class=note>No finite value.</p>");
    }
    put_notes(p, c);
    report_put(p, "</figure>\n");
}
