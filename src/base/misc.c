/* Clock, half precision, nearest word. */
#include "plumb/base.h"
#include <string.h>
#include <time.h>

double plumb_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

float plumb_f16_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    union { uint32_t u; float f; } x;
    if (exponent == 31) x.u = sign | 0x7f800000u | fraction << 13;
    else if (exponent) x.u = sign | (exponent + 112) << 23 | fraction << 13;
    else { /* zero or subnormal: fraction * 2^-24 is exact in float */
        x.f = (float)fraction * 0x1p-24f;
        x.u |= sign;
    }
    return x.f;
}

enum { WORD_MAX = 63 };
static int edit_distance(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b), row[WORD_MAX + 1];
    if (n > WORD_MAX || m > WORD_MAX) return WORD_MAX; /* no option has such a name */
    for (int j = 0; j <= m; j++) row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

int plumb_nearest(const char *word, const char *const *candidates, int count) {
    int best = -1, least = (int)strlen(word) / 3 + 2;
    for (int i = 0; i < count; i++) {
        int d = edit_distance(word, candidates[i]);
        if (d < least) least = d, best = i;
    }
    return best;
}
