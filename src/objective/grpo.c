/* The critic-free family: one advantage per completion, one loss, several ways to count.
 *
 * The members differ in two places only.  How a token counts: by its completion (grpo), by the longest completion allowed
 * (dr_grpo) or by all tokens of the batch (bnpo, dapo, cispo); the caller passes that as `weight`, since it needs counts of
 * the whole batch.  And what is clipped: the gain, as in PPO, or (cispo) the importance weight, which is then a constant and
 * leaves every token its gradient.  A new member is a case of plumb_grpo_weight and, if it clips otherwise, of `term_of`.
 *
 * At sequence level (GSPO) all tokens of a completion share the ratio exp(mean log-ratio).  The completion's n equal terms
 * then give each token n times a derivative of 1/n: the same expression as at token level, with the shared ratio in it.
 */
#include "scalar.h"

/* Loss by one ratio, and its derivative by the log-ratio. */
typedef struct term {
    double loss, slope;
    bool low, high;
} term;

/* L = -min(A min(w, delta), A clip(w)); its slope is -A w where the smaller of the two follows w, else 0 */
static term term_of(const plumb_grpo_options *o, double a, importance w) {
    double low = 1 - o->epsilon, high = 1 + o->epsilon_high;
    double capped = o->delta > 0 ? fmin(w.ratio, o->delta) : w.ratio, held = clamp(w.ratio, low, high);
    double smaller = a * capped <= a * held ? capped : held;
    bool follows = smaller == w.ratio && w.moves;
    return (term){-a * smaller, follows ? -a * w.ratio : 0, capped < low && a < 0, capped > high && a > 0};
}

/* cispo: -sg(min(w, epsilon_high)) A logp */
static term cispo_term_of(const plumb_grpo_options *o, double a, double logp, importance w) {
    double slope = -a * fmin(w.ratio, o->epsilon_high);
    return (term){slope * logp, slope, false, w.ratio > o->epsilon_high && a > 0};
}

/* k3 of x = logp - ref_logp and its derivative 1 - exp(-x) by logp; flat beyond the limit. */
static double penalty(double x, double limit, double *slope) {
    importance back = importance_of(-x, limit);
    *slope = back.moves ? 1 - back.ratio : 0;
    return back.ratio - 1 + clamp(x, -limit, limit);
}

double plumb_objective_grpo(const plumb_grpo_options *o, double advantage, double weight, const double *logp, const double *old_logp,
                            const double *ref_logp, int64_t n, double *dlogp, plumb_grpo_stats *stats) {
    double limit = log_ratio_limit(o->log_ratio_limit), total = 0, moved = 0;
    for (int64_t t = 0; o->sequence_level && t < n; t++) moved += logp[t] - old_logp[t];
    plumb_grpo_stats s = {.tokens = (double)n, .ratios = o->sequence_level ? (n > 0) : (double)n};
    for (int64_t t = 0; t < n; t++) {
        double log_ratio = logp[t] - old_logp[t], kl = 0, kl_slope = 0;
        importance w = importance_of(o->sequence_level ? moved / (double)n : log_ratio, limit);
        term x = o->loss == PLUMB_GRPO_CISPO ? cispo_term_of(o, advantage, logp[t], w) : term_of(o, advantage, w);
        if (ref_logp) kl = penalty(logp[t] - ref_logp[t], limit, &kl_slope);
        total += x.loss + o->beta * kl;
        if (dlogp) dlogp[t] = weight * (x.slope + o->beta * kl_slope);
        s.kl += kl, s.approx_kl += 0.5 * log_ratio * log_ratio;
        if (!o->sequence_level || t == 0) s.clipped_low += x.low, s.clipped_high += x.high, s.ratio += w.ratio;
    }
    total *= weight;
    if (!stats) return total;
    stats->loss += total, stats->kl += s.kl, stats->approx_kl += s.approx_kl, stats->tokens += s.tokens;
    stats->clipped_low += s.clipped_low, stats->clipped_high += s.clipped_high, stats->ratio += s.ratio, stats->ratios += s.ratios;
    return total;
}

double plumb_grpo_weight(plumb_grpo_loss loss, int64_t n, int64_t completions, int64_t total, int64_t max_length) {
    double each = (double)plumb_max64(1, completions);
    switch (loss) {
    case PLUMB_GRPO: return 1 / (each * (double)plumb_max64(1, n));
    case PLUMB_GRPO_DR: return 1 / (each * (double)plumb_max64(1, max_length));
    case PLUMB_GRPO_BNPO:
    case PLUMB_GRPO_DAPO:
    case PLUMB_GRPO_CISPO: break;
    }
    return 1 / (double)plumb_max64(1, total);
}

int plumb_grpo_loss_from_name(const char *name) {
    static const char *const names[] = {"grpo", "bnpo", "dr_grpo", "dapo", "cispo"};
    return PLUMB_NAME_INDEX(names, name);
}
