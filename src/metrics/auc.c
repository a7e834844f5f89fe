/* Area under the ROC curve, from one sort.
 *
 * Walking the scores upwards in groups of equal ones, each positive wins against the negatives below its group and half
 * against those inside it.  All sums are multiples of a half and exact up to 2^52 pairs, so that the result does not
 * depend on the order of equal scores. */
#include "plumb/metrics.h"
#include <math.h>
#include <stdlib.h>

typedef struct scored {
    double score;
    bool positive;
} scored;

static int by_score(const void *a, const void *b) {
    double x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x > y) - (x < y);
}

plumb_status plumb_metric_auc(const double *scores, const uint8_t *labels, int64_t n, double *auc) {
    scored *list;
    *auc = NAN;
    for (int64_t i = 0; i < n; i++)
        if (isnan(scores[i])) return PLUMB_OK;
    PLUMB_TRY(plumb_alloc(&list, (size_t)n + 1, sizeof *list, "scores"));
    for (int64_t i = 0; i < n; i++) list[i] = (scored){scores[i], labels[i] != 0};
    qsort(list, (size_t)n, sizeof *list, by_score);

    double wins = 0, below = 0, positives = 0;
    for (int64_t first = 0, end; first < n; first = end) {
        double inside[2] = {0, 0};
        for (end = first; end < n && list[end].score == list[first].score; end++) inside[list[end].positive]++;
        wins += inside[1] * (below + 0.5 * inside[0]);
        below += inside[0];
        positives += inside[1];
    }
    if (below > 0 && positives > 0) *auc = wins / (positives * below);
    free(list);
    return PLUMB_OK;
}
