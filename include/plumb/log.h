/* What a person sees and what a plot needs.  Local; only rank 0 prints (the trainer calls these on rank 0 only).
 * On a terminal: one progress line, redrawn ("step 40/104  loss 1.203  lr 3.1e-05  412 tok/s  ETA 3:21"); otherwise plain lines. metrics.jsonl: one JSON object per
 * step with TRL's metric names, flushed line by line. */
#ifndef PLUMB_LOG_H
#define PLUMB_LOG_H
#include "plumb/base.h"

typedef struct plumb_log plumb_log;
typedef struct plumb_metric { const char *name; double value; } plumb_metric;

/* dir may be NULL (no metrics.jsonl). `resume_step`: lines of metrics.jsonl after that step are removed first, so that a resumed run has each step once. */
plumb_status plumb_log_open(plumb_log **l, const char *dir, int64_t total_steps, int64_t resume_step) PLUMB_CHECKED;
void plumb_log_close(plumb_log *l);
/* One line per call in metrics.jsonl: {"step":…, name: value…} with %.9g values (NaN and infinities as strings "NaN", "Infinity"); and the progress line from
 * loss, learning_rate, tokens_per_second when present. */
plumb_status plumb_log_step(plumb_log *l, int64_t step, const plumb_metric *metrics, int count) PLUMB_CHECKED;
/* A line above the progress bar; to stderr. */
void plumb_log_line(plumb_log *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
#endif
