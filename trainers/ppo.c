/* Proximal policy optimization from a scalar reward (Schulman et al. 2017; Ziegler et al. 2019; "The N implementation details of RLHF with PPO").
 *
 *   for each iteration:
 *     1 sample      completions of the next prompts, with the log-probability of every token as it was drawn
 *     2 score       a reward for each completion
 *     3 reference   log-probabilities of the same tokens under the policy as it was when training began
 *     4 values      what the value model expects at each token
 *     5 rewards     per token: -kl_coef * KL; the score at the last token
 *     6 advantages  generalised advantage estimation; returns; advantages whitened over the whole batch
 *     7 learn       num_ppo_epochs passes; each mini-batch: clipped policy loss, clipped value loss, agree, reduce, clip, update
 *     8 log         trajectories, metrics; adapt kl_coef; save or stop when it is time
 *
 * One engine samples and learns, so the ratio of probabilities is 1 at the first update, to the bit. Sums over tokens are divided by the tokens of the global mini-batch. */
#include "online.h"
#include "plan.h"
#include "plumb/objective.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POLICY_LOSS, VALUE_LOSS, CLIPPED, VALUE_CLIPPED, RATIO, APPROX_KL, KL3, ENTROPY, TOKENS, LOG_RATIO, SUMS };
typedef struct ppo { plumb_online *o; double sums[SUMS], first_log_ratio, grad_norm, learning_rate, explained; int64_t epoch, updates; plumb_ppo_estimates e; } ppo;

plumb_ppo_options plumb_ppo_clipping(const plumb_options *o) { return (plumb_ppo_options){.clip_range = o->cliprange, .clip_range_value = o->cliprange_value, .dual_clip = o->dual_clip, .log_ratio_limit = 20}; }
static bool on_trunk(const plumb_options *o) { return !strcmp(o->value_model, "trunk"); }
static plumb_view value_view(const plumb_options *o) { return on_trunk(o) ? PLUMB_VIEW_POLICY : PLUMB_VIEW_VALUE; }

/* --- 5, 6: every rank computes the same from the whole batch ---------------------------------------------------------------------------------------- */
void plumb_ppo_estimate(const plumb_options *o, double kl_coef, plumb_trajectories *t, plumb_ppo_estimates *e) {
    plumb_kl_estimator estimator = (plumb_kl_estimator)plumb_kl_estimator_from_name(o->kl_estimator);
    *e = (plumb_ppo_estimates){0};
    for (int64_t i = 0; i < t->n_sequences; i++) {
        int64_t at = t->token_offset[i], n = t->token_offset[i + 1] - at;
        if (!n) continue;
        plumb_rewards_shape(estimator, kl_coef, t->score[i], t->logp + at, t->ref_logp + at, n, t->rewards + at);
        for (int64_t k = at; k < at + n; k++) {
            e->kl += plumb_kl_estimate(PLUMB_KL_K1, t->logp[k], t->ref_logp[k]), e->kl3 += plumb_kl_estimate(PLUMB_KL_K3, t->logp[k], t->ref_logp[k]);
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
    for (int64_t k = 0; k < t->n_tokens; k++) returns += pow(t->returns[k] - mean_return, 2), errors += pow(t->returns[k] - t->values[k] - mean_error, 2);
    return returns > 0 ? 1 - errors / returns : 0;
}

/* --- 7: one micro-batch: policy, then value model, unless it shares the policy's trunk --------------------------------------------------------------- */
static void policy_loss(ppo *x, const plumb_plan *p, const plumb_micro_batch *b, double tokens) {
    plumb_session *s = x->o->s;
    const plumb_trajectories *t = &x->o->t;
    plumb_ppo_options clip = plumb_ppo_clipping(s->o);
    for (int64_t at = 0, i = b->first; i < b->first + b->count; i++) {
        const plumb_tree *tree = plumb_online_tree(x->o, p, p->members[i]);
        int64_t first = t->token_offset[tree->first], n = t->token_offset[tree->first + tree->count] - first;
        double *stats = plumb_plan_stats(p, p->members[i]);
        plumb_ppo_stats sums = {0};
        stats[POLICY_LOSS] = plumb_objective_ppo_policy(&clip, s->policy.logp + at, t->logp + first, t->advantages + first, n, s->derivatives + at, &sums);
        stats[CLIPPED] = sums.clipped, stats[RATIO] = sums.ratio, stats[APPROX_KL] = sums.approx_kl, stats[KL3] = sums.k3, stats[TOKENS] = (double)n;
        for (int64_t k = 0; k < n; k++) {
            stats[ENTROPY] += s->policy.entropy[at + k], stats[LOG_RATIO] += fabs(s->policy.logp[at + k] - t->logp[first + k]);
            if (x->epoch == 0) x->o->passed[first + k] = s->policy.logp[at + k]; /* what the trainer's first pass finds */
            s->derivatives[at + k] /= tokens;
        }
        at += n;
    }
}
static void value_loss(ppo *x, const plumb_plan *p, const plumb_micro_batch *b, double tokens, const double *values, double *derivatives) {
    plumb_session *s = x->o->s;
    const plumb_trajectories *t = &x->o->t;
    plumb_ppo_options clip = plumb_ppo_clipping(s->o);
    for (int64_t at = 0, i = b->first; i < b->first + b->count; i++) {
        const plumb_tree *tree = plumb_online_tree(x->o, p, p->members[i]);
        int64_t first = t->token_offset[tree->first], n = t->token_offset[tree->first + tree->count] - first;
        double *stats = plumb_plan_stats(p, p->members[i]);
        plumb_ppo_stats sums = {0};
        stats[VALUE_LOSS] = plumb_objective_ppo_value(&clip, values + at, t->values + first, t->returns + first, n, derivatives + at, &sums);
        stats[VALUE_CLIPPED] = sums.value_clipped;
        for (int64_t k = 0; k < n; k++) derivatives[at + k] *= s->o->vf_coef / tokens;
        at += n;
    }
}
static plumb_status micro_batch(plumb_session *s, const plumb_plan *p, const plumb_micro_batch *b, bool training) {
    ppo *x = ((plumb_online *)s->user)->recipe;
    bool trunk = on_trunk(s->o);
    double tokens = (double)plumb_online_tokens(x->o, p);
    PLUMB_TRY(plumb_online_pack(x->o, p, b, PLUMB_VIEW_POLICY));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &(plumb_pass){.view = PLUMB_VIEW_POLICY, .training = training, .logprobs = true, .entropy = s->o->entropy_coef > 0, .values = trunk, .temperature = s->o->temperature}, &s->policy));
    PLUMB_TRY(plumb_session_derivatives(s, 3 * s->policy.count));
    double *dentropy = plumb_online_entropy_bonus(s, (int64_t)tokens), *dvalues = s->derivatives + 2 * s->policy.count;
    policy_loss(x, p, b, tokens);
    if (trunk) {
        value_loss(x, p, b, tokens, s->policy.values, dvalues);
        return plumb_model_backward(s->model, &(plumb_gradients){s->derivatives, dentropy, dvalues});
    }
    PLUMB_TRY(plumb_model_backward(s->model, &(plumb_gradients){.logp = s->derivatives, .entropy = dentropy}));
    PLUMB_TRY(plumb_online_pack(x->o, p, b, PLUMB_VIEW_VALUE));
    PLUMB_TRY(plumb_model_forward(s->model, &s->forest, &(plumb_pass){.view = PLUMB_VIEW_VALUE, .training = training, .values = true}, &s->reference));
    value_loss(x, p, b, tokens, s->reference.values, dvalues);
    return plumb_model_backward(s->model, &(plumb_gradients){.values = dvalues});
}

static plumb_status learn(ppo *x) {
    plumb_online *o = x->o;
    plumb_session *s = o->s;
    double since = plumb_clock();
    memset(x->sums, 0, sizeof x->sums);
    memset(o->passed, 0, (size_t)o->t.n_tokens * sizeof *o->passed);
    x->updates = 0;
    for (x->epoch = 0; x->epoch < s->o->num_ppo_epochs && !o->interrupted; x->epoch++) {
        for (int64_t k = 0; k < s->o->num_mini_batches && !o->interrupted; k++) {
            plumb_step_result r;
            plumb_comm_doing("learning in iteration", s->step + 1);
            PLUMB_TRY(plumb_online_mini_batch(o, x->epoch, k));
            if (!s->plan.count) continue;
            PLUMB_TRY(plumb_update_run(s, micro_batch, &r));
            o->interrupted = !r.updated;
            for (int i = 0; i < SUMS && r.updated; i++) x->sums[i] += plumb_plan_sum(&s->plan, i);
            if (x->updates++ == 0) x->first_log_ratio = plumb_plan_sum(&s->plan, LOG_RATIO) / fmax(1, plumb_plan_sum(&s->plan, TOKENS));
            x->grad_norm = r.grad_norm, x->learning_rate = r.learning_rate;
        }
        if (x->epoch > 0) continue;
        plumb_comm_sum_f64(PLUMB_AXIS_DATA, o->passed, o->t.n_tokens);
        memcpy(o->t.policy_logp, o->passed, (size_t)o->t.n_tokens * sizeof *o->passed);
    }
    plumb_online_phase(o, PHASE_LEARN, since);
    return PLUMB_OK;
}

/* --- 8 ------------------------------------------------------------------------------------------------------------------------------------------------ */
static void log_metrics(ppo *x) {
    plumb_online *o = x->o;
    plumb_session *s = o->s;
    if (!plumb_is_root() || !s->log || !plumb_session_logs(s, s->step + 1)) return;
    plumb_metric m[PLUMB_MAX_METRICS];
    double tokens = fmax(1, x->sums[TOKENS]), sequences = (double)o->t.n_sequences, now = plumb_clock(), policy = x->sums[POLICY_LOSS] / tokens, value = x->sums[VALUE_LOSS] / tokens, mean = 0;
    for (int64_t i = 0; i < o->t.n_sequences; i++) mean += o->t.score[i] / sequences;
    int n = plumb_online_metrics(o, m);
    const plumb_metric more[] = {{"loss", policy + s->o->vf_coef * value}, {"loss/policy_avg", policy}, {"loss/value_avg", value}, {"kl", x->e.kl / sequences},
                                 {"objective/kl", x->e.kl / sequences}, {"objective/kl_k3", x->e.kl3 / sequences}, {"objective/scores", mean}, {"objective/non_score_reward", x->e.non_score / sequences},
                                 {"objective/rlhf_reward", mean + x->e.non_score / sequences}, {"policy/approxkl_avg", x->sums[APPROX_KL] / tokens}, {"policy/clipfrac_avg", x->sums[CLIPPED] / tokens},
                                 {"policy/entropy_avg", x->sums[ENTROPY] / tokens}, {"policy/first_log_ratio", x->first_log_ratio}, {"val/clipfrac_avg", x->sums[VALUE_CLIPPED] / tokens},
                                 {"val/ratio", x->sums[RATIO] / tokens}, {"val/explained_variance", x->explained}, {"kl_coef", s->kl_coef}, {"grad_norm", x->grad_norm},
                                 {"learning_rate", x->learning_rate}, {"episode", (double)((s->step + 1) * s->o->batch_size)}, {"epoch", (double)(s->step + 1) / (double)s->steps_per_epoch},
                                 {"num_tokens", (double)s->tokens_seen}, {"tokens_per_second", (double)o->t.n_tokens / (now - s->step_began)}, {"step_seconds", now - s->step_began}};
    memcpy(m + n, more, sizeof more);
    n += (int)(sizeof more / sizeof *more);
    plumb_session_keep(s, plumb_log_step(s->log, s->step + 1, m, n));
}

static plumb_status iterate(ppo *x) {
    plumb_online *o = x->o;
    plumb_session *s = o->s;
    PLUMB_TRY(plumb_online_sample(o));
    PLUMB_TRY(plumb_online_score(o));
    PLUMB_TRY(plumb_online_logprobs(o, PLUMB_VIEW_REFERENCE, o->t.ref_logp));
    PLUMB_TRY(plumb_online_values(o, value_view(s->o), o->t.values));
    if (o->interrupted) return plumb_online_after(o);
    plumb_ppo_estimate(s->o, s->kl_coef, &o->t, &x->e);
    x->explained = explained_variance(&o->t);
    PLUMB_TRY(learn(x));
    PLUMB_TRY(plumb_online_log(o));
    if (!o->interrupted) {
        log_metrics(x);
        if (s->o->adap_kl_ctrl) s->kl_coef = plumb_kl_adapt(s->kl_coef, x->e.kl / (double)o->t.n_sequences, s->o->kl_target, s->o->kl_horizon, (double)o->t.n_sequences);
    }
    return plumb_online_after(o);
}

static plumb_status train(plumb_online *o) {
    ppo x = {.o = o};
    o->recipe = &x;
    plumb_status status = PLUMB_OK;
    while (status == PLUMB_OK && o->s->step < o->s->total_steps && !o->s->stopping) status = iterate(&x);
    o->recipe = NULL;
    return status;
}

int plumb_train_ppo(const plumb_options *o) { return plumb_online_run(o, PLUMB_FOR_PPO, "ppo", train); }
