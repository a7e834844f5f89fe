/* Between the parts of a report:
 *
 *     history.c    metrics.jsonl            -> series of points
 *     settings.c   config.yaml              -> keys with values, and which of them differ from the default
 *     samples.c    trajectories/            -> the best, the middle and the worst completion of an iteration
 *     thin.c       many points              -> few, with every peak kept
 *     scale.c      a range                  -> ticks with short numbers
 *     escape.c     any text                 -> HTML that shows it
 *     chart.c      series                   -> one small SVG drawing with a legend
 *     charts.c     the list of drawings: which metrics belong together and what they mean
 *     page.c       styles, script, head
 *     report.c     all of it, in order, into one file
 *
 * Text goes into a report_page, which remembers the first failure: a page has a thousand small writes, and what follows
 * a failed one is skipped. */
#ifndef REPORT_INTERNAL_H
#define REPORT_INTERNAL_H
#include "plumb/io.h"
#include "plumb/report.h"

typedef struct report_page { /* zero-initialise; free the text with plumb_str_free */
    plumb_str text;
    plumb_status status;
} report_page;
void report_put(report_page *p, const char *format, ...) __attribute__((format(printf, 2, 3))); /* as it is */
void report_put_escaped(report_page *p, const char *text, size_t length);                       /* as text, also within double quotes */
static inline bool report_good(const report_page *p) { return p->status == PLUMB_OK; }
/* A long text: its beginning, the rest folded, and a note where even that is cut. */
void report_put_long(report_page *p, const char *text);

/* --- scale.c ---------------------------------------------------------------------------------- */
typedef struct report_ticks { double first, step; int count; } report_ticks; /* first + i * step */
/* Multiples of 1, 2 or 5 times a power of ten: the smallest step of which at most `most` intervals cover [low, high]. `inside`: only
 * ticks within the range, else the first and the last enclose it. `whole`: no fractions. low <= high, both finite. */
report_ticks report_ticks_for(double low, double high, int most, bool inside, bool whole);
enum { REPORT_NUMBER = 40 };
void report_tick_label(char out[REPORT_NUMBER], const report_ticks *t, int i); /* as many digits as the step needs; 20k, 1.5M, 2e-5 */
/* four significant digits; whole from 1000 on; exponents beyond */
void report_number(char out[REPORT_NUMBER], double value);
void report_duration(char out[REPORT_NUMBER], double seconds);                 /* 4.2 s, 3 min 20 s, 2 h 05 min */

/* --- thin.c ----------------------------------------------------------------------------------- */
enum { REPORT_POINTS = 500, REPORT_BARS = 100 };
/* Which of n points to draw, ascending, at most `most` (8 or more): the first, the last, and the least and the greatest of every bucket
 * between. A value that is not finite is a gap; each bucket with one keeps one. kept [most]; returns their number. */
size_t report_thin(const double *y, size_t n, size_t most, size_t *kept);
/* The mean of the finite points around each one, weighted by 0.5^(distance / half_life), gaps kept: out [n]; weights [n]
 * is for its own use. */
void report_smooth(const double *y, size_t n, double half_life, double *out, double *weights);

/* --- history.c -------------------------------------------------------------------------------- */
/* y: NaN where it was not finite, counted in gaps */
typedef struct report_series { char *name; double *x, *y; size_t n, cap_x, cap_y, gaps; } report_series;
typedef struct report_history {
    report_series *items; size_t count, capacity;
    int64_t lines, bad;      /* read; not understood */
    bool unfinished, missing; /* the last line has no end; there is no file */
    double first, last;      /* steps */
} report_history;
plumb_status report_history_read(report_history *h, const char *path) PLUMB_CHECKED;
void report_history_free(report_history *h);
const report_series *report_find(const report_history *h, const char *name); /* NULL: not logged */

/* --- settings.c ------------------------------------------------------------------------------- */
typedef struct report_setting { char *key, *value; bool changed; } report_setting; /* value: as in the file */
typedef struct report_settings {
    char *text;                   /* of the file; NULL: there is none */
    char command[16], version[32];
    report_setting *items; size_t count, capacity;
} report_settings;
plumb_status report_settings_read(report_settings *s, const char *path) PLUMB_CHECKED;
void report_settings_free(report_settings *s);
/* A value with its quotes removed, to be freed; *out is NULL when it is not there, or null. */
plumb_status report_setting_text(const report_settings *s, const char *key, char **out) PLUMB_CHECKED;
double report_setting_number(const report_settings *s, const char *key); /* 0 when it is not there */

/* --- chart.c ---------------------------------------------------------------------------------- */
enum { CHART_LINES = 12 };
typedef struct chart_line {
    const char *label;
    const report_series *series;
    double scale, shift;  /* y -> shift + scale * y */
    double of;            /* a share of so many: the read-out counts too; 0: not */
    bool marks;           /* points instead of a thread: few of them, measured now and then */
    bool smooth;          /* with a smoothed line where there are many points */
} chart_line;
typedef struct chart {
    const char *title, *unit, *help;
    chart_line lines[CHART_LINES]; int n_lines;
    const report_series *low, *high;         /* a band between two series; NULL: none */
    const report_series *middle, *deviation; /* a band of middle +- deviation; NULL: none */
    const char *band;                        /* what it is */
    bool from_zero, to_one, stacked;
    double mark; bool has_mark;              /* a level that matters */
    const char *note;
    double x0, x1; const char *x_label;
} chart;
/* A figure; nothing when there is no point to draw. `id` is unique on the page. */
void report_chart(report_page *p, const chart *c, int id);

/* --- charts.c, samples.c, page.c -------------------------------------------------------------- */
typedef struct report_run {
    const plumb_report_options *o;
    report_history history;
    report_settings settings;
    char *trajectories;           /* folder; NULL: none */
    bool finished, online;        /* the result is there; it samples */
    const char *x_label;          /* "step", "iteration" */
} report_run;
void report_curves(report_page *p, const report_run *r); /* sections of charts */
void report_samples(report_page *p, const report_run *r); /* PLUMB_E_DATA in p->status where an iteration that was asked for is not there */
void report_begin(report_page *p, const char *title);    /* head, styles */
void report_end(report_page *p);                         /* script */
#endif
