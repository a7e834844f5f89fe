/* Objectives: pure functions from log-probabilities to losses and derivatives, in double.  All local, no allocation.
 * Sources: docs/numerics.md. Each returns the loss of one sample or pair, unnormalised: the caller divides by globally agreed counts. */
#ifndef PLUMB_OBJECTIVE_H
#define PLUMB_OBJECTIVE_H
#include "plumb/base.h"

/* Cross-entropy of n targets: returns -sum logp; dlogp[i] = -1 (dlogp may be NULL). */
double plumb_objective_nll(const double *logp, int64_t n, double *dlogp);

typedef enum plumb_dpo_loss { PLUMB_DPO_SIGMOID, PLUMB_DPO_IPO } plumb_dpo_loss;
/* beta > 0; label_smoothing in [0, 0.5) belongs to sigmoid: ipo has none and ignores it, as TRL does (the caller refuses the combination). */
typedef struct plumb_dpo_options { plumb_dpo_loss loss; double beta, label_smoothing; } plumb_dpo_options;
typedef struct plumb_dpo_pair { /* per-token log-probabilities of the completions, policy and reference; borrowed */
    const double *chosen, *rejected, *ref_chosen, *ref_rejected;
    int64_t n_chosen, n_rejected;
} plumb_dpo_pair;
typedef struct plumb_dpo_stats { double reward_chosen, reward_rejected, margin, accuracy, logp_chosen, logp_rejected; } plumb_dpo_stats;
/* Rafailov et al. 2023, eq. 7, with the label smoothing e of cDPO (Mitchell 2023): -(1-e) log s(bD) - e log s(-bD).
 * IPO: Azar et al. 2023, eq. 17 with length-averaged log-ratios (TRL). dchosen[n_chosen], drejected[n_rejected]: derivative of
 * the pair's loss by each policy log-probability; may be NULL. Rewards are beta times the summed log-ratios; accuracy is 1 when chosen > rejected (strict).
 * stats may be NULL. Finite for every finite log-ratio. */
double plumb_objective_dpo(const plumb_dpo_options *o, const plumb_dpo_pair *p, double *dchosen, double *drejected, plumb_dpo_stats *stats);
/* "sigmoid", "ipo"; -1 when unknown. */
int plumb_dpo_loss_from_name(const char *name);
#endif
