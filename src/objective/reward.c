/* The reward model's loss: how unlikely the preference is under Bradley & Terry's model of the two scores.
 *
 * Only the difference of the scores enters it, so their level is free and drifts; `center` ties the sum of a pair to zero
 * (Eisenstein et al. 2023), with a coefficient small enough to leave the difference alone. */
#include "scalar.h"

/* -log s(c - r - m) + center (c + r)^2; by c: -s(-(c - r - m)) + 2 center (c + r), by r: the first term with its sign turned */
double plumb_objective_reward(double margin, double center, double chosen, double rejected, double *dchosen, double *drejected) {
    double gap = chosen - rejected - margin, sum = chosen + rejected, slope = sigmoid(-gap);
    if (dchosen) *dchosen = 2 * center * sum - slope;
    if (drejected) *drejected = 2 * center * sum + slope;
    return minus_log_sigmoid(gap) + center * sum * sum;
}
