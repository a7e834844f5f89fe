/* Replaying logged iterations.  Local. */
#ifndef PLUMB_REPLAY_H
#define PLUMB_REPLAY_H
#include "plumb/base.h"
/* Iterations [first, last] of a run's folder, to standard output. overrides: key=value of the run's command. With adap_kl_ctrl the coefficient follows from
 * iteration 1 on only when first is 1. */
plumb_status plumb_replay(const char *dir, int64_t first, int64_t last, char **overrides, int n) PLUMB_CHECKED;
#endif
