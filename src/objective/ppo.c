/* Proximal policy optimisation: the clipped losses of policy and value, token by token.
 *
 * Each loss is the larger of a plain and a clipped term (for the policy: of their negatives the smaller gain), so its
 * derivative is that of the larger one, and the clipped one has none where the clip holds it.  The clip thus only ever stops
 * a token that has already moved far enough in the direction its advantage asks for; one that moved the wrong way keeps its
 * full gradient, up to e^limit for a negative advantage - which is what the dual clip bounds.
 */
#include "scalar.h"

/* L = -min(A w, A clip(w)), w = exp(new - old); dL/dnew = -A w where the plain term is the smaller, else 0.
 * Dual clip, A < 0: L = min(L, -c A), no derivative where the bound holds. */
double plumb_objective_ppo_policy(const plumb_ppo_options *o, const double *logp, const double *old_logp, const double *advantages,
                                  int64_t n, double *dlogp, plumb_ppo_stats *stats) {
    double limit = log_ratio_limit(o->log_ratio_limit), total = 0;
    plumb_ppo_stats s = {0};
    for (int64_t t = 0; t < n; t++) {
        importance w = importance_of(logp[t] - old_logp[t], limit);
        double a = advantages[t], plain = -a * w.ratio, held = -a * clamp(w.ratio, 1 - o->clip_range, 1 + o->clip_range),
               loss = fmax(plain, held);
        bool clipped = held > plain, bounded = o->dual_clip > 0 && a < 0 && loss > -o->dual_clip * a;
        if (bounded) loss = -o->dual_clip * a;
        total += loss;
        if (dlogp) dlogp[t] = clipped || bounded || !w.moves ? 0 : plain;
        s.clipped += clipped, s.dual_clipped += bounded, s.ratio += w.ratio;
        s.approx_kl += 0.5 * w.log_ratio * w.log_ratio, s.k3 += plumb_kl_estimate(PLUMB_KL_K3, old_logp[t], logp[t]);
    }
    if (!stats) return total;
    stats->policy_loss += total, stats->clipped += s.clipped, stats->dual_clipped += s.dual_clipped, stats->ratio += s.ratio;
    stats->approx_kl += s.approx_kl, stats->k3 += s.k3, stats->tokens += (double)n;
    return total;
}

/* L = 0.5 max((v - R)^2, (u - R)^2), u = v kept within the range around the old value; dL/dv = v - R, 0 where u is
 * held and farther from R. */
double plumb_objective_ppo_value(const plumb_ppo_options *o, const double *values, const double *old_values, const double *returns,
                                 int64_t n, double *dvalues, plumb_ppo_stats *stats) {
    double range = o->clip_range_value > 0 ? o->clip_range_value : INFINITY, total = 0, clipped = 0;
    for (int64_t t = 0; t < n; t++) {
        double off = values[t] - returns[t], held = clamp(values[t], old_values[t] - range, old_values[t] + range) - returns[t];
        bool farther = held * held > off * off;
        total += 0.5 * (farther ? held * held : off * off);
        clipped += farther;
        if (dvalues) dvalues[t] = farther ? 0 : off;
    }
    if (stats) stats->value_loss += total, stats->value_clipped += clipped;
    return total;
}

double plumb_kl_adapt(double coef, double kl, double target, double horizon, double n) {
    return fmax(0, coef * (1 + clamp(kl / target - 1, -0.2, 0.2) * n / horizon));
}
