/* Cutting a set of samples into micro-batches and dealing them to ranks.  Local; the same on every rank. */
#ifndef PLUMB_PLAN_H
#define PLUMB_PLAN_H
#include "session.h"

/* Cuts plan->samples (filled by the caller) by the data, the token budget and target_tokens alone, then deals to `ranks` ranks. Sets
 * tokens and targets. A micro-batch of several samples has at most `budget` tokens. target_tokens: what the LM head costs for one
 * target, in tokens through the layers. */
plumb_status plumb_plan_cut(plumb_plan *p, const plumb_dataset *d, int64_t budget, double target_tokens, int ranks) PLUMB_CHECKED;
void plumb_plan_free(plumb_plan *p);
/* Tokens of a sample as computed (a shared prompt once) and as users count them (once for each branch). */
int64_t plumb_sample_cost(const plumb_sample *s);
int64_t plumb_sample_tokens(const plumb_sample *s);
/* Targets of a sample's branch: tokens whose mask is set. */
int64_t plumb_branch_targets(const plumb_branch *b);
#endif
