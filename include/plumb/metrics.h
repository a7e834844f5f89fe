/* Figures that say how good a model is.  Local: a caller under MPI gathers the scores first, since neither figure is a mean over ranks. */
#ifndef PLUMB_METRICS_H
#define PLUMB_METRICS_H
#include "plumb/base.h"

/* Area under the ROC curve: the chance that a sample labelled 1 (any non-zero) scores above one labelled 0, ties counted half (Hanley &
 * McNeil 1982). O(n log n). scores, labels: [n]. *auc is NaN when a class is missing or a score is NaN. PLUMB_E_MEMORY. */
plumb_status plumb_metric_auc(const double *scores, const uint8_t *labels, int64_t n, double *auc) PLUMB_CHECKED;

/* Is a reward model as sure as it should be? A margin r_chosen - r_rejected predicts its own sign: |margin| says that the higher answer
 * is the better one with p = sigmoid(|margin|) in [0.5, 1] (Bradley-Terry), and it was when margin > 0. Bins are of equal width in p,
 * the last one closed. */
typedef struct plumb_calibration_bin {
    double low, high;           /* of p */
    int64_t count;
    double predicted, observed; /* mean p; share of margins above 0; NaN in an empty bin */
} plumb_calibration_bin;
/* out: [bins], bins >= 1. Returns the expected calibration error, the mean of |observed - predicted| weighted by count (Guo et al.
 * 2017); NaN when n is 0 or a margin is NaN (such a margin is in no bin). */
double plumb_metric_calibration(const double *margins, int64_t n, int bins, plumb_calibration_bin *out);
#endif
