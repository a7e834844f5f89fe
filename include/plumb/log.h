/* What a person sees and what a plot needs.  Local; only rank 0 prints (the trainer calls these on rank 0 only; with a
 * NULL log they do nothing). On a terminal: one progress line, redrawn ("step 40/104 [=====>      ] loss 1.203
 * lr 3.1e-05  412 tok/s  ETA 3:21"); otherwise plain lines. Both go to stderr. metrics.jsonl: one JSON object per call
 * with TRL's metric names, flushed line by line.
 *
 * The terminal is looked for on stderr alone, since mpirun gives its ranks a pseudo-terminal as stdout even when the
 * output ends in a file. It gives them a pipe as stderr, so that plain lines are written under mpirun;
 * PLUMB_PROGRESS=bar in the environment asks for the bar all the same, and PLUMB_PROGRESS=plain for lines on a
 * terminal. */
#ifndef PLUMB_LOG_H
#define PLUMB_LOG_H
#include "plumb/base.h"

typedef struct plumb_log plumb_log;
typedef struct plumb_metric {
    const char *name;
    double value;
} plumb_metric;

/* dir may be NULL (no metrics.jsonl); it is created when missing. `resume_step`: lines of metrics.jsonl after that step
 * are removed first (atomically), so that a resumed run has each step once, and a last line that a killed run left
 * unfinished; 0 starts the file anew. total_steps 0: not known, no bar, no ETA. */
plumb_status plumb_log_open(plumb_log **l, const char *dir, int64_t total_steps, int64_t resume_step) PLUMB_CHECKED;
void plumb_log_close(plumb_log *l);
/* One line per call in metrics.jsonl: {"step":…, name: value…} with %.9g values (NaN and infinities as strings "NaN",
 * "Infinity", "-Infinity"); and the progress line from loss, learning_rate, tokens_per_second when present. A call
 * without loss (an evaluation) is shown as a line of its own. On PLUMB_E_IO (disk full) the file keeps whole lines and
 * the log can go on. */
plumb_status plumb_log_step(plumb_log *l, int64_t step, const plumb_metric *metrics, int count) PLUMB_CHECKED;
/* What goes on inside a step ("sampling 12/64", with tokens per second when that is > 0), in place of the bar until the
 * next step; on a terminal alone. */
void plumb_log_progress(plumb_log *l, const char *what, int64_t done, int64_t of, double tokens_per_second);
/* A line above the progress bar; to stderr. */
void plumb_log_line(plumb_log *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
#endif
