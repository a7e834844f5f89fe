/* A case of a sampling fixture: options by transformers' names, history, logits, and the probabilities that it left. */
#ifndef SAMPLING_CASE_H
#define SAMPLING_CASE_H
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include "plumb/sampling.h"

typedef struct sampling_case {
    plumb_sampling o;
    int32_t *history, *ends;
    double *logits, *expected; /* [V]; -infinity is null in the file */
    int64_t count, generated, V;
} sampling_case;

static inline double sampling_field(const json_t *c, const char *key, double otherwise) {
    const json_t *v = json_object_get(c, key);
    return v ? json_number_value(v) : otherwise;
}
static inline double *sampling_list(const json_t *a, int64_t *n) {
    *n = (int64_t)json_array_size(a);
    double *out = malloc((size_t)(*n + 1) * sizeof *out);
    for (int64_t i = 0; i < *n; i++) {
        const json_t *v = json_array_get(a, (size_t)i);
        out[i] = json_is_null(v) ? -INFINITY : json_number_value(v);
    }
    return out;
}
static inline int32_t *sampling_ids(const json_t *a, int64_t *n) {
    *n = (int64_t)json_array_size(a);
    int32_t *out = malloc((size_t)(*n + 1) * sizeof *out);
    for (int64_t i = 0; i < *n; i++) out[i] = (int32_t)json_integer_value(json_array_get(a, (size_t)i));
    return out;
}
static inline void sampling_case_read(sampling_case *s, const json_t *c) {
    int64_t n_ends;
    s->history = sampling_ids(json_object_get(c, "history"), &s->count);
    s->ends = sampling_ids(json_object_get(c, "ends"), &n_ends);
    s->logits = sampling_list(json_object_get(c, "logits"), &s->V);
    s->expected = sampling_list(json_object_get(c, "probabilities"), &s->V);
    s->generated = s->count - (int64_t)sampling_field(c, "prompt_length", 0);
    s->o = (plumb_sampling){.do_sample = true, .temperature = sampling_field(c, "temperature", 1),
                            .top_k = (int64_t)sampling_field(c, "top_k", 0), .top_p = sampling_field(c, "top_p", 1),
                            .min_p = sampling_field(c, "min_p", 0), .typical_p = sampling_field(c, "typical_p", 1),
                            .repetition_penalty = sampling_field(c, "repetition_penalty", 1),
                            .min_new_tokens = (int64_t)sampling_field(c, "min_new_tokens", 0), .max_new_tokens = 1000, .ends = s->ends,
                            .n_ends = (int)n_ends};
}
static inline void sampling_case_free(sampling_case *s) {
    free(s->history), free(s->ends), free(s->logits), free(s->expected);
}
/* The soft-max of what processing leaves, against the fixture: the largest difference. */
static inline double sampling_case_error(const sampling_case *s, const double *processed) {
    double max = -INFINITY, total = 0, worst = 0;
    for (int64_t i = 0; i < s->V; i++) max = fmax(max, processed[i]);
    for (int64_t i = 0; i < s->V; i++) total += exp(processed[i] - max);
    for (int64_t i = 0; i < s->V; i++) {
        double p = exp(processed[i] - max) / total, d = fabs(p - s->expected[i]);
        /* in or out is exact; files round to 12 digits */
        if ((p > 0) != (s->expected[i] > 0) && !(d < 1e-12 && s->expected[i] < 1e-11)) d = INFINITY;
        worst = isnan(d) ? INFINITY : fmax(worst, d);
    }
    return worst;
}
#endif
