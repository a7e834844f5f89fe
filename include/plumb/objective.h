/* Objectives: pure functions from log-probabilities to losses and derivatives, in double.  All local, no allocation.
 * Sources: docs/numerics.md. Each returns the loss of one sample or pair, unnormalised: the caller divides by globally agreed counts. */
#ifndef PLUMB_OBJECTIVE_H
#define PLUMB_OBJECTIVE_H
#include "plumb/base.h"

/* Cross-entropy of n targets: returns -sum logp; dlogp[i] = -1 (dlogp may be NULL). */
double plumb_objective_nll(const double *logp, int64_t n, double *dlogp);

typedef enum plumb_dpo_loss { PLUMB_DPO_SIGMOID, PLUMB_DPO_IPO } plumb_dpo_loss;
/* beta > 0; label_smoothing in [0, 0.5) belongs to sigmoid: ipo has none and ignores it, as TRL does
 * (the caller refuses the combination). */
typedef struct plumb_dpo_options { plumb_dpo_loss loss; double beta, label_smoothing; } plumb_dpo_options;
typedef struct plumb_dpo_pair { /* per-token log-probabilities of the completions, policy and reference; borrowed */
    const double *chosen, *rejected, *ref_chosen, *ref_rejected;
    int64_t n_chosen, n_rejected;
} plumb_dpo_pair;
typedef struct plumb_dpo_stats { double reward_chosen, reward_rejected, margin, accuracy, logp_chosen, logp_rejected; } plumb_dpo_stats;
/* Rafailov et al. 2023, eq. 7, with the label smoothing e of cDPO (Mitchell 2023): -(1-e) log s(bD) - e log s(-bD). IPO: Azar et al.
 * 2023, eq. 17 with length-averaged log-ratios (TRL). dchosen[n_chosen], drejected[n_rejected]: derivative of the pair's loss by each
 * policy log-probability; may be NULL. Rewards are beta times the summed log-ratios; accuracy is 1 when chosen > rejected (strict).
 * stats may be NULL. Finite for every finite log-ratio. */
double plumb_objective_dpo(const plumb_dpo_options *o, const plumb_dpo_pair *p, double *dchosen, double *drejected, plumb_dpo_stats *stats);
/* "sigmoid", "ipo"; -1 when unknown. */
int plumb_dpo_loss_from_name(const char *name);

/* --- reward model ----------------------------------------------------------------------------- */
/* Bradley & Terry 1952, Ouyang et al. 2022, eq. 1: -log s(chosen - rejected - margin) + center * (chosen + rejected)^2 (Eisenstein et
 * al. 2023). Derivatives may be NULL. */
double plumb_objective_reward(double margin, double center, double chosen, double rejected, double *dchosen, double *drejected);

/* --- reinforcement learning ------------------------------------------------------------------- */
/* What follows is finite for every input that is a finite fp32 number. */

/* Estimators of KL(policy || reference) at one token from x = logp - ref_logp (Schulman 2020): k1 = x, k2 = x^2/2, k3 = exp(-x) - 1 + x.
 * The exponent of k3 ends at 300, where fp32 overflowed long before. */
typedef enum plumb_kl_estimator { PLUMB_KL_K1, PLUMB_KL_K2, PLUMB_KL_K3 } plumb_kl_estimator;
double plumb_kl_estimate(plumb_kl_estimator e, double logp, double ref_logp);
/* rewards[n] = -kl_coef * KL_t, and the score at the last token. Ziegler et al. 2019, eq. 2. n >= 1. */
void plumb_rewards_shape(plumb_kl_estimator e, double kl_coef, double score, const double *logp, const double *ref_logp, int64_t n,
                         double *rewards);
/* Generalised advantage estimation (Schulman et al. 2016, eq. 16) over one completion, nothing after its end; returns = advantages +
 * values. Each output may be NULL; advantages may be rewards, returns may be values. */
void plumb_gae(const double *rewards, const double *values, int64_t n, double gamma, double lambda, double *advantages, double *returns);
/* x = (x - mean)/sqrt(var + 1e-8) over the entries whose mask is set (mask NULL: all), Bessel variance; the mean is added again unless
 * shift_mean. Others become 0, and neither what they hold nor where they stand matters: sums run over blocks of 4,096 set entries,
 * blocks in order. Fewer than two set entries are only shifted. */
void plumb_whiten(double *x, const uint8_t *mask, int64_t n, bool shift_mean);

/* Log-ratios are clamped to +- this before they are exponentiated, and have no gradient beyond. */
#define PLUMB_LOG_RATIO_LIMIT 20.0
typedef struct plumb_ppo_options {
    double clip_range;        /* ratio in [1 - c, 1 + c]; Schulman et al. 2017, eq. 7 */
    double clip_range_value;  /* new values within +- of the old; 0 = no clipping */
    double dual_clip;         /* c > 1: a lower bound c * A for negative advantages (Ye et al. 2020, eq. 5); 0 = off */
    double log_ratio_limit;   /* 0 = PLUMB_LOG_RATIO_LIMIT; at most 300 */
} plumb_ppo_options;
typedef struct plumb_ppo_stats { /* sums over the tokens */
    double policy_loss, value_loss, clipped, value_clipped, ratio, approx_kl /* 0.5 (log ratio)^2, as TRL */, k3 /* of KL(old || new) */,
        dual_clipped, tokens /* of the policy loss */;
} plumb_ppo_stats;
/* Sums over n tokens of the clipped policy loss; dlogp[n] its derivative (may be NULL). Adds to *stats (may be NULL). */
double plumb_objective_ppo_policy(const plumb_ppo_options *o, const double *logp, const double *old_logp, const double *advantages,
                                  int64_t n, double *dlogp, plumb_ppo_stats *stats);
/* Sum over n tokens of 0.5 max((v - R)^2, (clip(v) - R)^2); dvalues[n] its derivative (may be NULL). Adds to *stats (may be NULL). */
double plumb_objective_ppo_value(const plumb_ppo_options *o, const double *values, const double *old_values, const double *returns,
                                 int64_t n, double *dvalues, plumb_ppo_stats *stats);
/* coef * (1 + clip(kl/target - 1, +-0.2) * n/horizon). Ziegler et al. 2019, section 2.2. kl: mean over sequences of the summed KL; n:
 * sequences. target, horizon > 0; never below 0. */
double plumb_kl_adapt(double coef, double kl, double target, double horizon, double n);

/* grpo, bnpo, dr_grpo, dapo, cispo */
typedef enum plumb_grpo_loss { PLUMB_GRPO, PLUMB_GRPO_BNPO, PLUMB_GRPO_DR, PLUMB_GRPO_DAPO, PLUMB_GRPO_CISPO } plumb_grpo_loss;
typedef enum plumb_reward_scaling { PLUMB_SCALE_GROUP, PLUMB_SCALE_BATCH, PLUMB_SCALE_NONE } plumb_reward_scaling;
/* Advantages of n = groups * group_size rewards: (R - mean of the group)/(std + 1e-4), Bessel; std of the group, of the batch (all n),
 * or none. *zero_spread (may be NULL): groups whose rewards are all equal; their advantage is exactly 0. Shao et al. 2024; Liu et al.
 * 2025. group_size >= 1; advantages may be rewards. */
void plumb_grpo_advantages(plumb_reward_scaling scaling, const double *rewards, int64_t n, int64_t group_size, double *advantages,
                           int64_t *zero_spread);
/* R - mean of the others of the group; 0 where there are none. Ahmadian et al. 2024. group_size >= 1; advantages may be rewards. */
void plumb_rloo_advantages(const double *rewards, int64_t n, int64_t group_size, double *advantages);
typedef struct plumb_grpo_options {
    plumb_grpo_loss loss;
    double beta;                      /* of the k3 penalty in the loss; 0 = none (ref_logp may be NULL) */
    double epsilon, epsilon_high;     /* clip range below and above (cispo: the cap of the weight is epsilon_high itself) */
    double delta;                     /* two-sided clipping: the unclipped ratio is capped at this; 0 = off (cispo has none) */
    bool sequence_level;              /* importance ratio of the sequence's mean log-ratio (GSPO, Zheng et al. 2025) */
    double log_ratio_limit;           /* for the ratios and the k3 penalty; 0 = PLUMB_LOG_RATIO_LIMIT; at most 300 */
} plumb_grpo_options;
typedef struct plumb_grpo_stats {
    double loss;                              /* what the function returned, weights included */
    double kl, approx_kl, tokens;             /* sums over the tokens: k3 against the reference where there is one, 0.5 (log ratio)^2, 1 */
    /* sums over the importance ratios: clipped below with A < 0, above with A > 0 (cispo: the weight is capped), the ratio itself */
    double clipped_low, clipped_high, ratio;
    /* how many: tokens, or completions where sequence_level; the clip fractions of TRL are clipped_low / ratios, clipped_high / ratios */
    double ratios;
} plumb_grpo_stats;
/* Loss of one completion of n tokens, every token weighted by `weight` (plumb_grpo_weight); dlogp[n] (may be NULL) its derivative; the
 * weight of cispo is a constant to it. Adds to *stats (may be NULL). n = 0: no loss. */
double plumb_objective_grpo(const plumb_grpo_options *o, double advantage, double weight, const double *logp, const double *old_logp,
                            const double *ref_logp, int64_t n, double *dlogp, plumb_grpo_stats *stats);
/* Weight of a token of a completion of n tokens: grpo 1/(N n), dr_grpo 1/(N max_length), bnpo, dapo, cispo 1/total; N completions and
 * `total` tokens in the global batch. */
double plumb_grpo_weight(plumb_grpo_loss loss, int64_t n, int64_t completions, int64_t total, int64_t max_length);
/* Names as in TRL; -1 when unknown. */
int plumb_grpo_loss_from_name(const char *name);
int plumb_kl_estimator_from_name(const char *name);
int plumb_reward_scaling_from_name(const char *name);
#endif
