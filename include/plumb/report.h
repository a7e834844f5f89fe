/* A page about a run: curves from metrics.jsonl, settings from config.yaml, completions from trajectories/.
 *
 * One HTML file with everything in it (styles, drawings, a few lines of script for read-outs), so that it can be mailed, opened without
 * a network and kept beside the result. Whatever is missing in the folder or damaged (a run that was killed, no trajectories) is said on
 * the page; only what makes a page senseless is an error. */
#ifndef PLUMB_REPORT_H
#define PLUMB_REPORT_H
#include "plumb/base.h"

enum { PLUMB_REPORT_ITERATIONS = 4, PLUMB_REPORT_ITERATIONS_MAX = 64 }; /* whose completions are shown: usually, and at most */
typedef struct plumb_report_options {
    const char *dir;                             /* folder of the run */
    const char *file;                            /* NULL: DIR/report.html */
    const char *title;                           /* NULL: the run's name, or the folder's */
    const int64_t *iterations; int n_iterations; /* whose completions are shown, ascending; none: chosen evenly, first and last included */
    int64_t max_iterations;                      /* how many are chosen then; 0: PLUMB_REPORT_ITERATIONS */
} plumb_report_options;

/* Writes the page, atomically. Local. PLUMB_E_IO: not a folder, nothing of a run in it, or the page cannot be written; PLUMB_E_DATA: an
 * iteration that was asked for is not there. */
plumb_status plumb_report_write(const plumb_report_options *o) PLUMB_CHECKED;
#endif
