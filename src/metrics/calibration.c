/* Calibration of a reward model on pairs: what it predicts against what was seen, in bins of its own confidence. */
#include "plumb/metrics.h"
#include <math.h>

double plumb_metric_calibration(const double *margins, int64_t n, int bins, plumb_calibration_bin *out) {
    double error = 0;
    bool undefined = n <= 0;
    for (int b = 0; b < bins; b++)
        out[b] = (plumb_calibration_bin){.low = 0.5 + 0.5 * b / bins, .high = 0.5 + 0.5 * (b + 1) / bins};
    for (int64_t i = 0; i < n; i++) {
        if (isnan(margins[i])) {
            undefined = true;
            continue;
        }
        double p = 1 / (1 + exp(-fabs(margins[i])));
        int b = (int)((p - 0.5) * 2 * bins);
        plumb_calibration_bin *bin = &out[b < bins ? b : bins - 1];
        bin->count++;
        bin->predicted += p;
        bin->observed += margins[i] > 0;
    }
    for (int b = 0; b < bins; b++) {
        error += fabs(out[b].observed - out[b].predicted); /* count times the difference of means */
        out[b].observed /= (double)out[b].count;           /* 0 / 0 is NaN: nothing was seen */
        out[b].predicted /= (double)out[b].count;
    }
    return undefined ? NAN : error / (double)n;
}
