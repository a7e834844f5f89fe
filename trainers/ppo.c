/* Proximal policy optimization from a scalar reward (Schulman et al. 2017; Ziegler et al. 2019; "The N
 * implementation details of RLHF with PPO").
 *
 *   for each iteration:
 *     1 sample      completions of the next prompts, with the log-probability of every token as it was drawn
 *     2 score       a reward for each completion
 *     3 reference   log-probabilities of the same tokens under the policy as it was when training began
 *     4 values      what the value model expects at each token (a head on the policy says it while sampling)
 *     5 rewards     per token: -kl_coef * KL; the score at the last token
 *     6 advantages  generalised advantage estimation; returns; advantages whitened over the whole batch
 *     7 learn       num_ppo_epochs passes; each mini-batch: clipped policy loss, clipped value loss, agree, reduce, clip, update
 *     8 log         trajectories, metrics; adapt kl_coef; save or stop when it is time
 *
 * One engine samples and learns, so the ratio of probabilities is 1 at the first update, to the bit. Sums over tokens are divided by the
 * tokens of the global mini-batch. */
#include "online.h"
#include "plan.h"
#include "plumb/objective.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POLICY_LOSS = STAT_OWN, VALUE_LOSS, CLIPPED, VALUE_CLIPPED, RATIO, APPROX_KL };
typedef struct ppo { plumb_ppo_estimates e; double explained; } ppo;

plumb_ppo_options plumb_ppo_clipping(const plumb_options *o) {
    return (plumb_ppo_options){.clip_range = o->cliprange, .clip_range_value = o->cliprange_value, .dual_clip = o->dual_clip};
}

/* --- 5, 6: every rank computes the same from the whole batch ---------------------------------- */
void plumb_ppo_estimate(const plumb_options *o, double kl_coef, plumb_trajectories *t, plumb_ppo_estimates *e) {
    plumb_kl_estimator estimator = (plumb_kl_estimator)plumb_kl_estimator_from_name(o->kl_estimator);
    *e = (plumb_ppo_estimates){0};
    for (int64_t i = 0; i < t->n_sequences; i++) {
        int64_t at = t->token_offset[i], n = t->token_offset[i + 1] - at;
        if (!n) continue;
        plumb_rewards_shape(estimator, kl_coef, t->score[i], t->logp + at, t->ref_logp + at, n, t->rewards + at);
        for (int64_t k = at; k < at + n; k++) {
            e->kl += plumb_kl_estimate(PLUMB_KL_K1, t->logp[k], t->ref_logp[k]),
                e->kl3 += plumb_kl_estimate(PLUMB_KL_K3, t->logp[k], t->ref_logp[k]);
            e->non_score -= kl_coef * plumb_kl_estimate(estimator, t->logp[k], t->ref_logp[k]);
        }
    }
    if (o->whiten_rewards) plumb_whiten(t->rewards, t->mask, t->n_tokens, false);
    for (int64_t i = 0; i < t->n_sequences; i++) {
        int64_t at = t->token_offset[i], n = t->token_offset[i + 1] - at;
        if (n) plumb_gae(t->rewards + at, t->values + at, n, o->gamma, o->lam, t->advantages + at, t->returns + at);
    }
    plumb_whiten(t->advantages, t->mask, t->n_tokens, true);
}

/* 1 - var(returns - values)/var(returns) */
static double explained_variance(const plumb_trajectories *t) {
    double n = (double)t->n_tokens, mean_return = 0, mean_error = 0, returns = 0, errors = 0;
    for (int64_t k = 0; k < t->n_tokens; k++) mean_return += t->returns[k] / n, mean_error += (t->returns[k] - t->values[k]) / n;
    for (int64_t k = 0; k < t->n_tokens; k++)
        returns += pow(t->returns[k] - mean_return, 2), errors += pow(t->returns[k] - t->values[k] - mean_error, 2);
    return returns > 0 ? 1 - errors / returns : 0;
}

/* --- 7: one micro-batch: policy, then value model, unless it shares the policy's trunk -------- */
static void policy_loss(plumb_online *o, const plumb_plan *p, const plumb_micro_batch *b) {
    plumb_session *s = o->s;
    const plumb_trajectories *t = &o->t;
    plumb_ppo_options clip = plumb_ppo_clipping(s->o);
    for (int64_t at = 0, first, n, i = b->first; i < b->first + b->count; i++, at += n) {
        double *stats = plumb_plan_stats(p, p->members[i]), *derivatives = s->derivatives + at;
        plumb_ppo_stats sums = {0};
        n = plumb_online_tokens(o, p, p->members[i], &first);
        plumb_online_note(o, stats, first, at, n);
        stats[POLICY_LOSS] =
            plumb_objective_ppo_policy(&clip, s->policy.logp + at, t->logp + first, t->advantages + first, n, derivatives, &sums);
        stats[CLIPPED] = sums.clipped, stats[RATIO] = sums.ratio, stats[APPROX_KL] = sums.approx_kl;
        for (int64_t k = 0; k < n; k++) derivatives[k] /= (double)p->targets;
    }
}
static void value_loss(plumb_online *o, const plumb_plan *p, const plumb_micro_batch *b, const double *values, double *dvalues) {
    const plumb_options *options = o->s->o;
    const plumb_trajectories *t = &o->t;
    plumb_ppo_options clip = plumb_ppo_clipping(options);
    for (int64_t at = 0, first, n, i = b->first; i < b->first + b->count; i++, at += n) {
        double *stats = plumb_plan_stats(p, p->members[i]);
        plumb_ppo_stats sums = {0};
        n = plumb_online_tokens(o, p, p->members[i], &first);
        stats[VALUE_LOSS] = plumb_objective_ppo_value(&clip, values + at, t->values + first, t->returns + first, n, dvalues + at, &sums);
        stats[VALUE_CLIPPED] = sums.value_clipped;
        for (int64_t k = at; k < at + n; k++) dvalues[k] *= options->vf_coef / (double)p->targets;
    }
}
static plumb_status micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    plumb_online *o = s->user;
    bool trunk = plumb_online_on_trunk(o);
    plumb_model *critic = o->critic.model;
    plumb_pass policy = {.view = PLUMB_VIEW_POLICY, .training = training, .logprobs = true, .entropy = s->o->entropy_coef > 0,
                         .values = trunk, .temperature = s->o->temperature};
    PLUMB_TRY(plumb_online_pack(o, p, b, plumb_model_adapter_of(s->model, PLUMB_VIEW_POLICY)));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &policy, &s->policy));
    PLUMB_TRY(plumb_session_derivatives(s, 3 * s->policy.count));
    double *dvalues = s->derivatives + 2 * s->policy.count;
    plumb_gradients d = {.logp = s->derivatives, .entropy = plumb_online_entropy_bonus(s, p->targets), .values = trunk ? dvalues : NULL};
    policy_loss(o, p, b);
    if (trunk) value_loss(o, p, b, s->policy.values, dvalues);
    PLUMB_TRY(plumb_model_backward(s->model, &d));
    if (trunk) return PLUMB_OK;
    PLUMB_TRY(plumb_online_pack(o, p, b, plumb_model_adapter_of(critic, o->critic.view)));
    PLUMB_TRY(plumb_model_forward(critic, &s->forest, &(plumb_pass){.view = o->critic.view, .training = training, .values = true},
                                  &s->reference));
    value_loss(o, p, b, s->reference.values, dvalues);
    return plumb_model_backward(critic, &(plumb_gradients){.values = dvalues});
}

/* --- 8 ---------------------------------------------------------------------------------------- */
static void log_metrics(plumb_online *o, const ppo *x) {
    const plumb_trajectories *t = &o->t;
    plumb_metric m[PLUMB_MAX_METRICS];
    double tokens = fmax(1, o->sums[STAT_TOKENS]), sequences = (double)t->n_sequences, policy = o->sums[POLICY_LOSS] / tokens,
           value = o->sums[VALUE_LOSS] / tokens, mean = 0;
    for (int64_t i = 0; i < t->n_sequences; i++) mean += t->score[i] / sequences;
    int n = plumb_online_metrics(o, m);
    const plumb_metric own[] = {{"loss", policy + o->s->o->vf_coef * value},
                                {"loss/policy_avg", policy},
                                {"loss/value_avg", value},
                                {"kl", x->e.kl / sequences},
                                {"objective/kl", x->e.kl / sequences},
                                {"objective/kl_k3", x->e.kl3 / sequences},
                                {"objective/scores", mean},
                                {"objective/non_score_reward", x->e.non_score / sequences},
                                {"objective/rlhf_reward", mean + x->e.non_score / sequences},
                                {"policy/approxkl_avg", o->sums[APPROX_KL] / tokens},
                                {"policy/clipfrac_avg", o->sums[CLIPPED] / tokens},
                                {"val/clipfrac_avg", o->sums[VALUE_CLIPPED] / tokens},
                                {"val/ratio", o->sums[RATIO] / tokens},
                                {"val/explained_variance", x->explained},
                                {"kl_coef", o->s->kl_coef}};
    memcpy(m + n, own, sizeof own);
    plumb_online_write_metrics(o, m, n + (int)(sizeof own / sizeof *own));
}

static plumb_status iterate(plumb_online *o) {
    plumb_session *s = o->s;
    ppo *x = o->recipe;
    PLUMB_TRY(plumb_online_sample(o));
    PLUMB_TRY(plumb_online_score(o));
    PLUMB_TRY(plumb_online_logprobs(o, PLUMB_VIEW_REFERENCE, o->t.ref_logp));
    PLUMB_TRY(plumb_online_values(o));
    if (s->interrupted) return plumb_online_after(o);
    plumb_ppo_estimate(s->o, s->kl_coef, &o->t, &x->e);
    x->explained = explained_variance(&o->t);
    PLUMB_TRY(plumb_online_learn(o, s->o->num_ppo_epochs, micro_batch));
    PLUMB_TRY(plumb_online_log(o));
    if (!s->interrupted) {
        log_metrics(o, x);
        if (s->o->adap_kl_ctrl)
            s->kl_coef =
                plumb_kl_adapt(s->kl_coef, x->e.kl / (double)o->t.n_sequences, s->o->kl_target, s->o->kl_horizon, (double)o->t.n_sequences);
    }
    return plumb_online_after(o);
}

static plumb_status train(plumb_online *o) {
    ppo x = {0};
    plumb_status status = PLUMB_OK;
    o->recipe = &x;
    while (status == PLUMB_OK && o->s->step < o->s->total_steps && !o->s->stopping) status = iterate(o);
    o->recipe = NULL;
    return status;
}

int plumb_train_ppo(const plumb_options *o) { return plumb_online_run(o, PLUMB_FOR_PPO, "ppo", train); }
