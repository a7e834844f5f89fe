/* Replaying logged iterations.  Local. */
#ifndef PLUMB_REPLAY_H
#define PLUMB_REPLAY_H
#include "plumb/base.h"
/* Iterations [first, last] of a run's folder, to standard output. overrides: key=value of the run's command. Losses are over the whole
 * iteration, as with one mini-batch. */
plumb_status plumb_replay(const char *dir, int64_t first, int64_t last, char **overrides, int n) PLUMB_CHECKED;
#endif
