/* Between log.c (what is logged), progress.c (what a person sees) and history.c (what was logged before). */
#ifndef PLUMB_LOG_INTERNAL_H
#define PLUMB_LOG_INTERNAL_H
#include "plumb/log.h"

enum { PROGRESS_LINE = 512 };

typedef struct plumb_progress {
    bool bar;          /* redraw one line; else plain lines */
    bool shown;        /* the bar is on the screen now */
    int64_t total;     /* steps; 0 = not known */
    int64_t last_step; /* of the estimate, with its time */
    double last_time;
    double pace, weight; /* smoothed seconds per step, and the sum of the weights that went into it */
    double drawn_at;
    char line[PROGRESS_LINE]; /* the bar as last drawn */
} plumb_progress;

void plumb_progress_start(plumb_progress *p, int64_t total, int64_t first_step);
void plumb_progress_step(plumb_progress *p, int64_t step, const plumb_metric *metrics, int count);
/* On a terminal: what goes on inside the step after the last one. */
void plumb_progress_inside(plumb_progress *p, const char *what, int64_t done, int64_t of, double tokens_per_second);
/* Text without newline, above the bar. */
void plumb_progress_print(plumb_progress *p, const char *text);
/* Leaves the last bar on the screen and the cursor below it. */
void plumb_progress_stop(plumb_progress *p);

/* Seconds that are left after `step` at time `now`, from all calls so far; -1 when there is nothing to go by. */
double plumb_progress_eta(plumb_progress *p, int64_t step, double now);
/* "0:42", "3:21", "1:02:03" */
void plumb_progress_duration(char *out, size_t room, double seconds);
/* The line without a newline, cut to `width` columns; with a bar when `bar`. */
void plumb_progress_format(char *out, size_t room, int width, bool bar, int64_t step, int64_t total, double eta,
                           const plumb_metric *metrics, int count);

/* Keeps the lines of metrics.jsonl up to resume_step (0: none) and drops an unfinished last one; the file is replaced
 * as a whole, or left alone. */
plumb_status plumb_log_trim_history(const char *path, int64_t resume_step) PLUMB_CHECKED;
#endif
