/* Few points out of many, and a smooth line through noise.
 *
 * A drawing is some 400 dots wide: more points are bytes and nothing to see. Taking every k-th would lose the one spike that explains
 * why a run went wrong, and a mean would flatten it; so each bucket of neighbours gives its least and its
 * greatest value, in their order. */
#include "report_internal.h"
#include <math.h>

size_t report_thin(const double *y, size_t n, size_t most, size_t *kept) {
    size_t count = 0, gaps = 0;
    for (size_t i = 0; i < n; i++) gaps += !isfinite(y[i]);
    if (n <= most) {
        for (size_t i = 0; i < n; i++) kept[count++] = i;
        return count;
    }
    size_t inner = n - 2, buckets = (most - 2) / (gaps ? 3 : 2);
    kept[count++] = 0;
    for (size_t b = 0; b < buckets; b++) {
        size_t from = 1 + (size_t)((double)inner * (double)b / (double)buckets),
               to = b + 1 == buckets ? n - 1 : 1 + (size_t)((double)inner * (double)(b + 1) / (double)buckets);
        size_t pick[3] = {n, n, n}; /* least, greatest, first gap */
        for (size_t i = from; i < to; i++) {
            if (!isfinite(y[i])) {
                if (pick[2] == n) pick[2] = i;
                continue;
            }
            if (pick[0] == n || y[i] < y[pick[0]]) pick[0] = i;
            if (pick[1] == n || y[i] > y[pick[1]]) pick[1] = i;
        }
        for (size_t i = from; i < to; i++)
            if (i == pick[0] || i == pick[1] || i == pick[2]) kept[count++] = i;
    }
    kept[count++] = n - 1;
    return count;
}

/* Both directions, so that the line does not lag behind a fall: the sums over the left side and over the right side count its
 * neighbours, the left one the point too. */
void report_smooth(const double *y, size_t n, double half_life, double *out, double *weights) {
    double keep = pow(0.5, 1 / half_life), sum = 0, weight = 0;
    for (size_t i = 0; i < n; i++) {
        sum *= keep, weight *= keep;
        if (isfinite(y[i])) sum += y[i], weight += 1;
        out[i] = sum, weights[i] = weight;
    }
    sum = weight = 0;
    for (size_t i = n; i-- > 0;) {
        bool there = isfinite(y[i]);
        out[i] = there ? (out[i] + sum) / (weights[i] + weight) : NAN;
        if (there) sum += y[i], weight += 1;
        sum *= keep, weight *= keep;
    }
}
