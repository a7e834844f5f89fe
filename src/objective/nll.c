/* Cross-entropy: the sum over targets of -logp.  Terms are added in order of the targets, so that the value of a sample
 * does not depend on how the batch around it was cut. */
#include "plumb/objective.h"

double plumb_objective_nll(const double *logp, int64_t n, double *dlogp) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum -= logp[i];
    if (dlogp)
        for (int64_t i = 0; i < n; i++) dlogp[i] = -1.0;
    return sum;
}
