/* Critic-free policy optimization: a completion is compared with the others of its prompt.
 *   GRPO (Shao et al. 2024) and its kin (Dr. GRPO, DAPO, CISPO, GSPO): advantage (R - mean of the group)/std, clipped ratio
 *   per token or per completion
 *   RLOO (Ahmadian et al. 2024): advantage R - mean of the others, R less beta * KL; clipped ratio of the whole completion
 *
 *   for each iteration:
 *     1 sample      num_generations completions of each of the next prompts
 *     2 score       a reward for each completion
 *     3 reference   log-probabilities under the policy as it was when training began, where beta asks for it
 *     4 advantages  within each group
 *     5 learn       num_iterations passes; each mini-batch: loss, agree, reduce, clip, update
 *     6 log         trajectories, metrics; save or stop when it is time
 */
#include "online.h"
#include "plan.h"
#include "plumb/objective.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOSS = STAT_OWN, KL, LOW, HIGH, RATIO, APPROX_KL, RATIOS };
typedef struct grpo { bool rloo; double *advantages; size_t cap_advantages; plumb_grpo_comparison c; } grpo;

/* --- 4 ---------------------------------------------------------------------------------------- */
plumb_status plumb_grpo_compare(const plumb_options *o, bool rloo, plumb_trajectories *t, double *advantages, plumb_grpo_comparison *c) {
    double *rewards;
    PLUMB_TRY(plumb_alloc(&rewards, (size_t)t->n_sequences, sizeof *rewards, "rewards"));
    *c = (plumb_grpo_comparison){0};
    for (int64_t i = 0; i < t->n_sequences; i++) {
        double kl = 0;
        for (int64_t k = t->token_offset[i]; k < t->token_offset[i + 1] && o->beta > 0; k++) kl += t->logp[k] - t->ref_logp[k];
        c->kl += kl;
        rewards[i] = rloo ? t->score[i] - o->beta * kl : t->score[i];
    }
    plumb_reward_scaling scaling = rloo ? PLUMB_SCALE_NONE : (plumb_reward_scaling)plumb_reward_scaling_from_name(o->scale_rewards);
    plumb_grpo_advantages(scaling, rewards, t->n_sequences, o->num_generations, advantages, &c->zero_spread);
    if (rloo) plumb_rloo_advantages(rewards, t->n_sequences, o->num_generations, advantages);
    for (int64_t i = 0; i < t->n_sequences; i++)
        for (int64_t k = t->token_offset[i]; k < t->token_offset[i + 1]; k++) {
            t->advantages[k] = advantages[i], t->returns[k] = rewards[i];
            t->rewards[k] = k + 1 == t->token_offset[i + 1] ? rewards[i] : 0;
        }
    free(rewards);
    return PLUMB_OK;
}

/* --- 5 ---------------------------------------------------------------------------------------- */
static plumb_grpo_options settings(const plumb_options *o) {
    plumb_grpo_loss loss = (plumb_grpo_loss)plumb_grpo_loss_from_name(o->loss_type);
    return (plumb_grpo_options){.loss = loss, .beta = o->beta, .epsilon = o->epsilon,
                                .epsilon_high = o->epsilon_high > 0 ? o->epsilon_high : o->epsilon, .delta = o->delta,
                                .sequence_level = !strcmp(o->importance_sampling_level, "sequence")};
}
static double group_loss(const plumb_options *o, const plumb_trajectories *t, int64_t q, double advantage, const double *logp,
                         const plumb_grpo_total *total, double *derivatives, plumb_grpo_stats *stats) {
    int64_t first = t->token_offset[q], n = t->token_offset[q + 1] - first;
    plumb_grpo_options g = settings(o);
    double weight = plumb_grpo_weight(g.loss, n, total->sequences, total->tokens, o->max_completion_length);
    return plumb_objective_grpo(&g, advantage, weight, logp, t->logp + first, o->beta > 0 ? t->ref_logp + first : NULL, n, derivatives,
                                stats);
}
/* The ratio of whole completions: the clipped loss of PPO on their summed log-probabilities. */
static double whole_loss(const plumb_options *o, const plumb_trajectories *t, int64_t q, double advantage, const double *logp,
                         const plumb_grpo_total *total, double *derivatives, plumb_grpo_stats *stats) {
    int64_t first = t->token_offset[q], n = t->token_offset[q + 1] - first;
    double now = 0, then = 0, derivative, scale = 1 / (double)total->sequences;
    plumb_ppo_options clip = {.clip_range = o->epsilon};
    plumb_ppo_stats one = {0};
    for (int64_t k = 0; k < n; k++) now += logp[k], then += t->logp[first + k];
    double loss = scale * plumb_objective_ppo_policy(&clip, &now, &then, &advantage, 1, &derivative, &one);
    for (int64_t k = 0; k < n; k++) derivatives[k] = scale * derivative;
    stats->loss += loss, stats->ratio += one.ratio, stats->ratios += 1, stats->tokens += (double)n, stats->approx_kl += one.approx_kl;
    stats->clipped_low += one.ratio < 1 - o->epsilon && advantage < 0, stats->clipped_high += one.ratio > 1 + o->epsilon && advantage > 0;
    return loss;
}
double plumb_grpo_loss_of(const plumb_options *o, bool rloo, const plumb_trajectories *t, int64_t q, double advantage, const double *logp,
                          const plumb_grpo_total *total, double *derivatives, plumb_grpo_stats *stats) {
    return (rloo ? whole_loss : group_loss)(o, t, q, advantage, logp, total, derivatives, stats);
}

static int64_t completions_of(const plumb_online *o, const plumb_plan *p) {
    int64_t n = 0;
    for (int32_t i = 0; i < p->count; i++) n += plumb_online_tree(o, p, i)->count;
    return n;
}
static plumb_status micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    plumb_online *o = s->user;
    grpo *x = o->recipe;
    const plumb_trajectories *t = &o->t;
    plumb_grpo_total total = {completions_of(o, p), p->targets};
    plumb_pass policy = {.view = PLUMB_VIEW_POLICY, .training = training, .logprobs = true, .entropy = s->o->entropy_coef > 0,
                         .temperature = s->o->temperature};
    PLUMB_TRY(plumb_online_pack(o, p, b, plumb_model_adapter_of(s->model, PLUMB_VIEW_POLICY)));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &policy, &s->policy));
    PLUMB_TRY(plumb_session_derivatives(s, 2 * s->policy.count));
    for (int64_t at = 0, first, n, i = b->first; i < b->first + b->count; i++, at += n) {
        const plumb_tree *tree = plumb_online_tree(o, p, p->members[i]);
        plumb_grpo_stats sums = {0};
        double *stats = plumb_plan_stats(p, p->members[i]);
        n = plumb_online_tokens(o, p, p->members[i], &first);
        plumb_online_note(o, stats, first, at, n);
        for (int64_t q = tree->first; q < tree->first + tree->count; q++) {
            int64_t own = at + t->token_offset[q] - first;
            plumb_grpo_loss_of(s->o, x->rloo, t, q, x->advantages[q], s->policy.logp + own, &total, s->derivatives + own, &sums);
        }
        stats[LOSS] = sums.loss, stats[KL] = sums.kl, stats[LOW] = sums.clipped_low, stats[HIGH] = sums.clipped_high,
        stats[RATIO] = sums.ratio;
        stats[APPROX_KL] = sums.approx_kl, stats[RATIOS] = sums.ratios;
    }
    return plumb_model_backward(s->model, &(plumb_gradients){.logp = s->derivatives, .entropy = plumb_online_entropy_bonus(s, p->targets)});
}

/* --- 6 ---------------------------------------------------------------------------------------- */
static void log_metrics(plumb_online *o, const grpo *x) {
    plumb_metric m[PLUMB_MAX_METRICS];
    double tokens = fmax(1, o->sums[STAT_TOKENS]), ratios = fmax(1, o->sums[RATIOS]);
    int n = plumb_online_metrics(o, m);
    if (o->s->o->beta > 0) m[n++] = (plumb_metric){"kl", x->rloo ? x->c.kl / fmax(1, (double)o->t.n_tokens) : o->sums[KL] / tokens};
    const plumb_metric own[] = {{"loss", o->sums[LOSS] / (double)plumb_max64(1, o->updates)},
                                {"frac_reward_zero_std", (double)x->c.zero_spread / (double)o->n_groups},
                                {"clip_ratio/low_mean", o->sums[LOW] / ratios},
                                {"clip_ratio/high_mean", o->sums[HIGH] / ratios},
                                {"clip_ratio/region_mean", (o->sums[LOW] + o->sums[HIGH]) / ratios},
                                {"ratio", o->sums[RATIO] / ratios},
                                {"policy/approxkl_avg", o->sums[APPROX_KL] / (x->rloo ? o->sums[RATIOS] : tokens)}};
    memcpy(m + n, own, sizeof own);
    plumb_online_write_metrics(o, m, n + (int)(sizeof own / sizeof *own));
}

static plumb_status iterate(plumb_online *o) {
    plumb_session *s = o->s;
    grpo *x = o->recipe;
    PLUMB_TRY(plumb_online_sample(o));
    PLUMB_TRY(plumb_online_score(o));
    if (s->o->beta > 0) PLUMB_TRY(plumb_online_logprobs(o, PLUMB_VIEW_REFERENCE, o->t.ref_logp));
    if (s->interrupted) return plumb_online_after(o);
    plumb_status local = plumb_grow(&x->advantages, &x->cap_advantages, (size_t)o->t.n_sequences, sizeof *x->advantages);
    if (local == PLUMB_OK) local = plumb_grpo_compare(s->o, x->rloo, &o->t, x->advantages, &x->c);
    PLUMB_TRY(plumb_comm_agree(PLUMB_AXIS_DATA, local));
    PLUMB_TRY(plumb_online_learn(o, s->o->num_iterations, micro_batch));
    PLUMB_TRY(plumb_online_log(o));
    if (!s->interrupted) log_metrics(o, x);
    return plumb_online_after(o);
}

static plumb_status train(plumb_online *o) {
    grpo x = {.rloo = o->s->command == PLUMB_FOR_RLOO};
    plumb_status status = PLUMB_OK;
    o->recipe = &x;
    while (status == PLUMB_OK && o->s->step < o->s->total_steps && !o->s->stopping) status = iterate(o);
    o->recipe = NULL;
    free(x.advantages);
    return status;
}

int plumb_train_grpo(const plumb_options *o) { return plumb_online_run(o, PLUMB_FOR_GRPO, "grpo", train); }
int plumb_train_rloo(const plumb_options *o) { return plumb_online_run(o, PLUMB_FOR_RLOO, "rloo", train); }
