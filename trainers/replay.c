/* plumb replay: an iteration's losses again, from the log alone. Rewards per token, advantages and returns are computed from the logged
 * log-probabilities, values and scores and compared with what the run logged; then the losses of the first pass. With other settings on
 * the command line it says what they would have made of the same completions. */
#include "online.h"
#include "replay.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct replay { plumb_options o; int command; char *dir; double kl_coef; bool show; } replay;

/* The command is the second word of config.yaml's first line. */
static plumb_status read_config(replay *r, const char *dir, char **overrides, int n) {
    char *path = NULL, *text = NULL, word[16] = "";
    size_t size;
    PLUMB_TRY(plumb_path_join(&path, dir, "config.yaml"));
    plumb_status status = plumb_read_file(path, &text, &size);
    if (status == PLUMB_OK) {
        if (sscanf(text, "# plumb %15[a-z]", word) == 1)
            for (int bit = 1; bit <= PLUMB_FOR_BESTOFN; bit <<= 1)
                if (!strcmp(plumb_options_command_name(bit), word)) r->command = bit;
        if (!(r->command & PLUMB_FOR_ONLINE))
            status = plumb_error(PLUMB_E_CONFIG, "%s: not the settings of a run of plumb ppo, grpo or rloo", path);
    }
    if (status == PLUMB_OK) status = plumb_options_load(&r->o, r->command, path, overrides, n);
    if (status == PLUMB_OK) r->kl_coef = r->o.kl_coef;
    if (status == PLUMB_OK) status = plumb_path_join(&r->dir, dir, "trajectories");
    free(text);
    free(path);
    return status;
}

static double largest_difference(const double *a, const double *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(a[i] - b[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static plumb_status ppo_losses(replay *r, plumb_trajectories *t) {
    plumb_ppo_options clip = plumb_ppo_clipping(&r->o);
    plumb_ppo_estimates e;
    plumb_ppo_stats stats = {0};
    double *derivatives, n = (double)plumb_max64(1, t->n_tokens), kl_coef = r->kl_coef;
    PLUMB_TRY(plumb_alloc(&derivatives, (size_t)t->n_tokens, sizeof *derivatives, "derivatives"));
    plumb_ppo_estimate(&r->o, kl_coef, t, &e);
    double policy = plumb_objective_ppo_policy(&clip, t->policy_logp, t->logp, t->advantages, t->n_tokens, derivatives, &stats) / n;
    double value = plumb_objective_ppo_value(&clip, t->values, t->values, t->returns, t->n_tokens, derivatives, &stats) / n;
    if (r->show)
        printf("  loss %.9g  policy %.9g  value %.9g  ratio %.9g  kl %.9g  kl_coef %.6g\n", policy + r->o.vf_coef * value, policy, value,
               stats.ratio / n, e.kl / (double)t->n_sequences, kl_coef);
    if (r->o.adap_kl_ctrl)
        r->kl_coef = plumb_kl_adapt(kl_coef, e.kl / (double)t->n_sequences, r->o.kl_target, r->o.kl_horizon, (double)t->n_sequences);
    free(derivatives);
    return PLUMB_OK;
}
static plumb_status grpo_losses(replay *r, plumb_trajectories *t) {
    bool rloo = r->command == PLUMB_FOR_RLOO;
    plumb_grpo_comparison c;
    plumb_grpo_stats stats = {0};
    plumb_grpo_total total = {t->n_sequences, t->n_tokens};
    double *advantages, *derivatives, loss = 0;
    PLUMB_TRY(plumb_alloc(&advantages, (size_t)(t->n_sequences + t->n_tokens), sizeof *advantages, "advantages"));
    derivatives = advantages + t->n_sequences;
    plumb_status status = plumb_grpo_compare(&r->o, rloo, t, advantages, &c);
    for (int64_t q = 0; q < t->n_sequences && status == PLUMB_OK; q++)
        loss += plumb_grpo_loss_of(&r->o, rloo, t, q, advantages[q], t->policy_logp + t->token_offset[q], &total, derivatives, &stats);
    if (status == PLUMB_OK && r->show)
        printf("  loss %.9g  ratio %.9g  clipped %.6g  groups without spread %lld\n", loss, stats.ratio / fmax(1, stats.ratios),
               (stats.clipped_low + stats.clipped_high) / fmax(1, stats.ratios), (long long)c.zero_spread);
    free(advantages);
    return status;
}

/* A setting that changes nothing here would be taken for one that makes no difference. */
static plumb_status check_overrides(const replay *r, char **overrides, int n) {
    static const char *const ppo[] = {"kl_coef", "kl_estimator", "adap_kl_ctrl", "kl_target", "kl_horizon", "gamma", "lam",
                                      "whiten_rewards", "cliprange", "cliprange_value", "dual_clip", "vf_coef", NULL};
    static const char *const grpo[] = {"beta", "epsilon", "epsilon_high", "delta", "loss_type",
                                       "importance_sampling_level", "scale_rewards", "max_completion_length", NULL};
    static const char *const rloo[] = {"beta", "epsilon", NULL};
    static const char *const scores[] = {"reward_weights", "missing_eos", "missing_eos_penalty", NULL};
    const char *const *lists[] = {grpo, scores};
    if (r->command == PLUMB_FOR_PPO) lists[0] = ppo;
    if (r->command == PLUMB_FOR_RLOO) lists[0] = rloo;
    plumb_str expected = {0};
    plumb_status status = PLUMB_OK;
    for (int i = 0; i < n && status == PLUMB_OK; i++) {
        size_t length = strcspn(overrides[i], "=");
        bool known = false;
        expected.length = 0;
        for (int k = 0; k < 2; k++)
            for (const char *const *name = lists[k]; *name && status == PLUMB_OK; name++) {
                known |= strlen(*name) == length && !strncmp(*name, overrides[i], length);
                status = plumb_str_printf(&expected, "%s%s", expected.length ? ", " : "", *name);
            }
        if (status == PLUMB_OK && !known)
            status = plumb_error(PLUMB_E_CONFIG, "%.*s: no loss is computed from it without sampling; expected %s", (int)length,
                                 overrides[i], expected.data);
    }
    plumb_str_free(&expected);
    return status;
}
static plumb_status check_reference(const replay *r, const plumb_trajectories *t, int64_t iteration) {
    double weight = r->command == PLUMB_FOR_PPO ? r->kl_coef : r->o.beta;
    if (weight <= 0) return PLUMB_OK;
    for (int64_t k = 0; k < t->n_tokens; k++)
        if (isnan(t->ref_logp[k]))
            return plumb_error(PLUMB_E_CONFIG, "%s: found %g, but iteration %lld has no log-probabilities of a reference; expected 0",
                               r->command == PLUMB_FOR_PPO ? "kl_coef" : "beta", weight, (long long)iteration);
    return PLUMB_OK;
}

static plumb_status replay_one(replay *r, int64_t iteration) {
    plumb_trajectories t = {0}, logged = {0};
    PLUMB_TRY(plumb_trajectories_read(r->dir, iteration, &t));
    plumb_status status = plumb_trajectories_slice(&logged, &t, 0, t.n_sequences);
    if (status == PLUMB_OK && t.n_sequences % r->o.num_generations)
        status = plumb_error(PLUMB_E_DATA, "iteration %lld has %lld completions, which are not whole groups of %lld", (long long)iteration,
                             (long long)t.n_sequences, (long long)r->o.num_generations);
    if (status == PLUMB_OK) status = check_reference(r, &t, iteration);
    if (status == PLUMB_OK && t.n_parts) status = plumb_online_combine(&r->o, &t);
    if (status == PLUMB_OK) {
        if (r->show)
            printf("iteration %lld: %lld completions, %lld tokens\n", (long long)iteration, (long long)t.n_sequences,
                   (long long)t.n_tokens);
        status = r->command == PLUMB_FOR_PPO ? ppo_losses(r, &t) : grpo_losses(r, &t);
    }
    if (status == PLUMB_OK && r->show)
        printf("  largest difference from the log: rewards %.3g, advantages %.3g, returns %.3g; behaviour against policy log-probabilities "
               "%.3g%s\n",
               largest_difference(t.rewards, logged.rewards, t.n_tokens), largest_difference(t.advantages, logged.advantages, t.n_tokens),
               largest_difference(t.returns, logged.returns, t.n_tokens), largest_difference(t.policy_logp, t.logp, t.n_tokens),
               r->o.num_mini_batches > 1 ? " (those of later mini-batches are after an update)" : "");
    plumb_trajectories_free(&t);
    plumb_trajectories_free(&logged);
    return status;
}

plumb_status plumb_replay(const char *dir, int64_t first, int64_t last, char **overrides, int n) {
    replay r = {0};
    int64_t *list = NULL, count = 0, done = 0;
    plumb_status status = read_config(&r, dir, overrides, n);
    if (status == PLUMB_OK) status = check_overrides(&r, overrides, n);
    if (status == PLUMB_OK) status = plumb_trajectories_list(r.dir, &list, &count);
    for (int64_t i = 0; i < count && status == PLUMB_OK; i++)
        if (list[i] <= last) {
            r.show = list[i] >= first;
            if (r.show || r.o.adap_kl_ctrl) status = replay_one(&r, list[i]); /* the coefficient follows from the iterations before */
            done += r.show;
        }
    if (status == PLUMB_OK && !count)
        status = plumb_error(PLUMB_E_DATA, "%s: no trajectories: expected what a run with log_trajectories leaves there (with manifest.pb)",
                             r.dir);
    else if (status == PLUMB_OK && !done)
        status = plumb_error(PLUMB_E_DATA, "%s: no such iteration: %lld of them are there, from %lld to %lld", r.dir, (long long)count,
                             (long long)list[0], (long long)list[count - 1]);
    free(list);
    free(r.dir);
    plumb_options_free(&r.o);
    return status;
}
