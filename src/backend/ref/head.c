/* LM head of the `ref` back end: one row of logits at a time, so that the budget is met by any value. */
#include "ref.h"
#include <math.h>
#include <stdlib.h>

static bool check_head(plumb_backend *be, plumb_tensor stats, plumb_tensor h, const plumb_weight *w, double temperature,
                       const plumb_batch *b, const char *name) {
    int64_t R = b->n_targets;
    if (!plumb_ref_shaped(be, stats, R, 4, name, "stats") || !plumb_ref_shaped(be, h, R, w->k, name, "h")) return false;
    if (!plumb_ref_check(be, temperature > 0, name, "the temperature is not positive")) return false;
    for (int64_t j = 0; j < R; j++)
        if (!plumb_ref_check(be, b->targets[j].token < w->n, name, "a target is outside the vocabulary")) return false;
    return true;
}

static double *allocate_logits(plumb_backend *be, int64_t V) {
    double *logits;
    if (plumb_alloc(&logits, (size_t)V, sizeof *logits, "a row of logits") != PLUMB_OK)
        plumb_backend_set_fault(be, PLUMB_E_MEMORY, "%s", plumb_error_message());
    return logits;
}

static void row_logits(plumb_backend *be, double *z, const double *h, const plumb_weight *w, double temperature) {
    const double *x = plumb_ref_row_for(be, w, h);
    for (int64_t v = 0; x && v < w->n; v++) {
        double sum = 0;
        for (int64_t c = 0; c < w->k; c++) sum += x[c] * w->data[v * w->k + c];
        z[v] = sum / temperature;
    }
    if (x != h) free((void *)x);
}

/* stats of one row from its logits: log-probability, log-sum-exp, entropy, hit */
static void row_stats(double *stats, const double *z, int64_t V, int64_t target) {
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++)
        if (z[v] > z[best]) best = v;
    double sum = 0, weighted = 0;
    for (int64_t v = 0; v < V; v++) {
        double e = exp(z[v] - z[best]);
        sum += e;
        weighted += e * (z[v] - z[best]);
    }
    double above = log(sum); /* lse - z[best] */
    stats[0] = z[target] - z[best] - above;
    stats[1] = z[best] + above;
    stats[2] = above - weighted / sum; /* -sum p log p */
    stats[3] = best == target;
}

/* sum_v -p_v (log p_v + H) w_v / temperature */
static void entropy_direction(double *e, const double *z, const double *s, const plumb_weight *w, double temperature) {
    for (int64_t c = 0; c < w->k; c++) e[c] = 0;
    for (int64_t v = 0; v < w->n; v++) {
        double logp = z[v] - s[1], d = -exp(logp) * (logp + s[2]) / temperature;
        for (int64_t c = 0; c < w->k; c++) e[c] += d * w->data[v * w->k + c];
    }
}

void plumb_ref_head_forward(plumb_backend *be, plumb_tensor stats, plumb_tensor u, plumb_tensor e, plumb_tensor h,
                            const plumb_weight *w, double temperature, size_t budget, const plumb_batch *b) {
    (void)budget;
    if (!check_head(be, stats, h, w, temperature, b, "head_forward")) return;
    if (!absent_or_shaped(be, u, b->n_targets, w->k, "head_forward", "u")) return;
    if (!absent_or_shaped(be, e, b->n_targets, w->k, "head_forward", "e")) return;
    double *z = allocate_logits(be, w->n);
    for (int64_t j = 0; z && j < b->n_targets; j++) {
        int64_t target = b->targets[j].token;
        double *s = row_of(stats, j);
        row_logits(be, z, row_of(h, j), w, temperature);
        row_stats(s, z, w->n, target);
        if (e.buffer) entropy_direction(row_of(e, j), z, s, w, temperature);
        if (!u.buffer) continue;
        double *uj = row_of(u, j);
        for (int64_t c = 0; c < w->k; c++) uj[c] = w->data[target * w->k + c] / temperature;
        for (int64_t v = 0; v < w->n; v++) {
            double p = exp(z[v] - s[1]);
            for (int64_t c = 0; c < w->k; c++) uj[c] -= p * w->data[v * w->k + c] / temperature;
        }
    }
    free(z);
}

void plumb_ref_head_backward(plumb_backend *be, plumb_tensor dw, plumb_tensor dlogp, plumb_tensor stats, plumb_tensor h,
                             const plumb_weight *w, double temperature, size_t budget, const plumb_batch *b) {
    (void)budget;
    if (!check_head(be, stats, h, w, temperature, b, "head_backward")) return;
    if (!plumb_ref_shaped(be, dw, w->n, w->k, "head_backward", "dw")) return;
    if (!plumb_ref_shaped(be, dlogp, b->n_targets, 1, "head_backward", "dlogp")) return;
    double *z = allocate_logits(be, w->n);
    for (int64_t j = 0; z && j < b->n_targets; j++) {
        row_logits(be, z, row_of(h, j), w, temperature);
        for (int64_t v = 0; v < w->n; v++) {
            double d = *row_of(dlogp, j) * ((v == b->targets[j].token) - exp(z[v] - row_of(stats, j)[1])) / temperature;
            for (int64_t c = 0; c < w->k; c++) row_of(dw, v)[c] += d * row_of(h, j)[c];
        }
    }
    free(z);
}

void plumb_ref_token_stats(plumb_backend *be, plumb_tensor stats, plumb_tensor logits, const int32_t *tokens, double temperature) {
    const char *name = "token_stats";
    int64_t R = logits.rows, V = logits.cols;
    if (!plumb_ref_shaped(be, logits, R, V, name, "logits") || !plumb_ref_shaped(be, stats, R, 4, name, "stats")) return;
    if (!plumb_ref_check(be, temperature > 0, name, "the temperature is not positive")) return;
    for (int64_t j = 0; j < R; j++) {
        double *z = row_of(logits, j);
        if (!plumb_ref_check(be, tokens[j] >= 0 && tokens[j] < V, name, "a token is outside the vocabulary")) return;
        for (int64_t v = 0; v < V; v++) z[v] /= temperature;
        row_stats(row_of(stats, j), z, V, tokens[j]);
    }
}

/* y = h w^T */
void plumb_ref_score_forward(plumb_backend *be, plumb_tensor y, plumb_tensor h, plumb_tensor w) {
    const char *name = "score_forward";
    if (!plumb_ref_shaped(be, y, h.rows, 1, name, "y") || !plumb_ref_shaped(be, h, h.rows, h.cols, name, "h") ||
        !plumb_ref_shaped(be, w, 1, h.cols, name, "w"))
        return;
    for (int64_t j = 0; j < h.rows; j++) {
        double sum = 0;
        for (int64_t c = 0; c < h.cols; c++) sum += row_of(h, j)[c] * row_of(w, 0)[c];
        *row_of(y, j) = sum;
    }
}

/* dh += dy w; dw += dy^T h */
void plumb_ref_score_backward(plumb_backend *be, plumb_tensor dh, plumb_tensor dw, plumb_tensor dy, plumb_tensor h, plumb_tensor w) {
    const char *name = "score_backward";
    int64_t R = h.rows, C = h.cols;
    if (!plumb_ref_shaped(be, dy, R, 1, name, "dy") || !plumb_ref_shaped(be, dh, R, C, name, "dh") ||
        !plumb_ref_shaped(be, w, 1, C, name, "w"))
        return;
    if (!absent_or_shaped(be, dw, 1, C, name, "dw")) return;
    for (int64_t j = 0; j < R; j++)
        for (int64_t c = 0; c < C; c++) {
            row_of(dh, j)[c] += *row_of(dy, j) * row_of(w, 0)[c];
            if (dw.buffer) row_of(dw, 0)[c] += *row_of(dy, j) * row_of(h, j)[c];
        }
}
