/* Scalars that several objectives share. */
#ifndef PLUMB_OBJECTIVE_SCALAR_H
#define PLUMB_OBJECTIVE_SCALAR_H
#include "plumb/objective.h"
#include <math.h>
#include <string.h>

/* s(x) and -log s(x) without overflow at either end. */
static inline double sigmoid(double x) {
    double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}
static inline double minus_log_sigmoid(double x) {
    return (x < 0 ? -x : 0) + log1p(exp(-fabs(x)));
}

static inline double clamp(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

/* The ratio of a log-ratio, clamped; `moves` is false where the clamp holds it, and no gradient passes. */
#define PLUMB_LOG_RATIO_LARGEST 300.0 /* e^300 and its square are finite in double; fp32 ends at e^88 */
typedef struct importance {
    double log_ratio, ratio;
    bool moves;
} importance;
static inline double log_ratio_limit(double option) {
    return option > 0 ? fmin(option, PLUMB_LOG_RATIO_LARGEST) : PLUMB_LOG_RATIO_LIMIT;
}
static inline importance importance_of(double log_ratio, double limit) {
    double held = clamp(log_ratio, -limit, limit);
    return (importance){log_ratio, exp(held), held == log_ratio};
}

static inline int name_index(const char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(name, names[i])) return i;
    return -1;
}
#define PLUMB_NAME_INDEX(names, name) name_index(names, (int)(sizeof(names) / sizeof *(names)), name)
#endif
