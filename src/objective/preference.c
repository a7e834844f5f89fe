/* Direct preference optimisation of one pair.
 *
 * Every loss of the family is a function of two numbers, the log-ratios r = logp - ref_logp of the chosen and the
 * rejected completion, so each is written as that function with its two derivatives; a token's derivative is then the
 * same for all tokens of a completion, because r is their plain sum.  A new loss is one more case of `loss_of_ratios`.
 */
#include "scalar.h"

static const char *const names[] = {"sigmoid", "ipo"};

int plumb_dpo_loss_from_name(const char *name) {
    return PLUMB_NAME_INDEX(names, name);
}

static double sum(const double *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += x[i];
    return total;
}

static void fill(double *x, int64_t n, double value) {
    if (x)
        for (int64_t i = 0; i < n; i++) x[i] = value;
}

typedef struct ratios {
    double chosen, rejected;
} ratios;

/* The loss of log-ratios r; *d is its derivative by each of them. */
static double loss_of_ratios(const plumb_dpo_options *o, const plumb_dpo_pair *p, ratios r, ratios *d) {
    double b = o->beta, e = o->label_smoothing;
    if (o->loss == PLUMB_DPO_IPO) { /* (r_w/L_w - r_l/L_l - 1/(2b))^2, an empty completion counting as one token */
        double chosen_length = (double)plumb_max64(1, p->n_chosen),
               rejected_length = (double)plumb_max64(1, p->n_rejected);
        double gap = r.chosen / chosen_length - r.rejected / rejected_length - 1 / (2 * b);
        *d = (ratios){2 * gap / chosen_length, -2 * gap / rejected_length};
        return gap * gap;
    }
    /* x = bD: -(1-e) log s(x) - e log s(-x); by x: -(1-e) s(-x) + e s(x) */
    double x = b * (r.chosen - r.rejected);
    double slope = b * (e * sigmoid(x) - (1 - e) * sigmoid(-x));
    *d = (ratios){slope, -slope};
    double loss = (1 - e) * minus_log_sigmoid(x);
    return e == 0 ? loss : loss + e * minus_log_sigmoid(-x);
}

double plumb_objective_dpo(const plumb_dpo_options *o, const plumb_dpo_pair *p, double *dchosen, double *drejected,
                           plumb_dpo_stats *stats) {
    double logp_chosen = sum(p->chosen, p->n_chosen), logp_rejected = sum(p->rejected, p->n_rejected);
    ratios r = {logp_chosen - sum(p->ref_chosen, p->n_chosen), logp_rejected - sum(p->ref_rejected, p->n_rejected)}, d;
    double loss = loss_of_ratios(o, p, r, &d);
    fill(dchosen, p->n_chosen, d.chosen);
    fill(drejected, p->n_rejected, d.rejected);
    if (stats) {
        double chosen = o->beta * r.chosen, rejected = o->beta * r.rejected;
        *stats = (plumb_dpo_stats){chosen,      rejected,     chosen - rejected, chosen > rejected ? 1 : 0,
                                   logp_chosen, logp_rejected};
    }
    return loss;
}
