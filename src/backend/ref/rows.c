/* Operations of the `ref` back end that treat each row by itself. */
#include "ref.h"
#include <math.h>

void plumb_ref_embedding_forward(plumb_backend *be, plumb_tensor y, const plumb_weight *w, const plumb_batch *b) {
    if (!plumb_ref_shaped(be, y, b->n_tokens, w->k, "embedding_forward", "y")) return;
    for (int64_t i = 0; i < b->n_tokens; i++) {
        if (!plumb_ref_check(be, b->ids[i] < w->n, "embedding_forward", "a token is outside the vocabulary")) return;
        for (int64_t c = 0; c < w->k; c++) row_of(y, i)[c] = w->data[b->ids[i] * w->k + c];
    }
}

void plumb_ref_embedding_backward(plumb_backend *be, plumb_tensor dw, plumb_tensor dy, const plumb_batch *b) {
    if (!plumb_ref_shaped(be, dw, dw.rows, dw.cols, "embedding_backward", "dw")) return;
    if (!plumb_ref_shaped(be, dy, b->n_tokens, dw.cols, "embedding_backward", "dy")) return;
    for (int64_t i = 0; i < b->n_tokens; i++) {
        if (!plumb_ref_check(be, b->ids[i] < dw.rows, "embedding_backward", "a token is outside the vocabulary"))
            return;
        for (int64_t c = 0; c < dw.cols; c++) row_of(dw, b->ids[i])[c] += row_of(dy, i)[c];
    }
}

void plumb_ref_gather_forward(plumb_backend *be, plumb_tensor y, plumb_tensor x, const plumb_batch *b) {
    if (!plumb_ref_shaped(be, x, b->n_tokens, x.cols, "gather_forward", "x")) return;
    if (!plumb_ref_shaped(be, y, b->n_targets, x.cols, "gather_forward", "y")) return;
    for (int64_t j = 0; j < b->n_targets; j++)
        for (int64_t c = 0; c < x.cols; c++) row_of(y, j)[c] = row_of(x, b->targets[j].row)[c];
}

void plumb_ref_gather_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor dy, const plumb_batch *b) {
    if (!plumb_ref_shaped(be, dx, b->n_tokens, dx.cols, "gather_backward", "dx")) return;
    if (!plumb_ref_shaped(be, dy, b->n_targets, dx.cols, "gather_backward", "dy")) return;
    for (int64_t j = 0; j < b->n_targets; j++)
        for (int64_t c = 0; c < dx.cols; c++) row_of(dx, b->targets[j].row)[c] += row_of(dy, j)[c];
}

/* x, or sum = x + delta: rstd = 1/sqrt(mean(x^2) + eps); y = x rstd gain */
void plumb_ref_rmsnorm_forward(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor delta, plumb_tensor sum, plumb_tensor gain,
                               plumb_tensor rstd, double eps) {
    const char *name = "rmsnorm_forward";
    int64_t T = x.rows, C = x.cols;
    if (!plumb_ref_shaped(be, x, T, C, name, "x") || !plumb_ref_shaped(be, y, T, C, name, "y")) return;
    if (!absent_or_shaped(be, delta, T, C, name, "delta") || !plumb_ref_shaped(be, gain, 1, C, name, "gain")) return;
    if (!plumb_ref_shaped(be, rstd, T, 1, name, "rstd") || (delta.buffer && !plumb_ref_shaped(be, sum, T, C, name, "sum"))) return;
    if (delta.buffer) {
        plumb_ref_add(be, sum, x, delta);
        x = sum;
    }
    for (int64_t i = 0; i < T; i++) {
        const double *xi = row_of(x, i);
        double *yi = row_of(y, i), squares = 0;
        for (int64_t c = 0; c < C; c++) squares += xi[c] * xi[c];
        double r = 1 / sqrt(squares / (double)C + eps);
        *row_of(rstd, i) = r;
        for (int64_t c = 0; c < C; c++) yi[c] = xi[c] * r * row_of(gain, 0)[c];
    }
}

/* dx_c += r (g_c dy_c - x_c r^2 mean_j(g_j dy_j x_j)); dgain_c += dy_c x_c r */
void plumb_ref_rmsnorm_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor dgain, plumb_tensor dy, plumb_tensor x,
                                plumb_tensor gain, plumb_tensor rstd) {
    const char *name = "rmsnorm_backward";
    int64_t T = x.rows, C = x.cols;
    if (!plumb_ref_shaped(be, x, T, C, name, "x") || !plumb_ref_shaped(be, dx, T, C, name, "dx")) return;
    if (!plumb_ref_shaped(be, dy, T, C, name, "dy") || !plumb_ref_shaped(be, gain, 1, C, name, "gain")) return;
    if (!absent_or_shaped(be, dgain, 1, C, name, "dgain") || !plumb_ref_shaped(be, rstd, T, 1, name, "rstd")) return;
    const double *g = row_of(gain, 0);
    for (int64_t i = 0; i < T; i++) {
        const double *xi = row_of(x, i), *dyi = row_of(dy, i);
        double r = *row_of(rstd, i), mean = 0;
        for (int64_t c = 0; c < C; c++) mean += g[c] * dyi[c] * xi[c] / (double)C;
        for (int64_t c = 0; c < C; c++) {
            if (dgain.buffer) row_of(dgain, 0)[c] += dyi[c] * xi[c] * r;
            row_of(dx, i)[c] += r * (g[c] * dyi[c] - xi[c] * r * r * mean);
        }
    }
}

static void rotate(plumb_backend *be, plumb_tensor x, plumb_tensor table, int64_t D, const plumb_batch *b, double sign,
                   const char *name) {
    if (!plumb_ref_shaped(be, x, b->n_tokens, x.cols, name, "x")) return;
    if (!plumb_ref_shaped(be, table, table.rows, D, name, "table")) return;
    if (!plumb_ref_check(be, D > 0 && D % 2 == 0 && x.cols % D == 0, name,
                         "the columns are not whole heads of even size"))
        return;
    for (int64_t i = 0; i < x.rows; i++) {
        if (!plumb_ref_check(be, b->positions[i] < table.rows, name, "a position is outside the table")) return;
        const double *cosine = row_of(table, b->positions[i]), *sine = cosine + D / 2;
        for (int64_t h = 0; h < x.cols / D; h++)
            for (int64_t j = 0; j < D / 2; j++) {
                double *first = row_of(x, i) + h * D + j, *second = first + D / 2, a = *first, c = *second;
                *first = a * cosine[j] - sign * c * sine[j];
                *second = c * cosine[j] + sign * a * sine[j];
            }
    }
}

void plumb_ref_rope_forward(plumb_backend *be, plumb_tensor x, plumb_tensor table, int64_t head_dim,
                            const plumb_batch *b) {
    rotate(be, x, table, head_dim, b, 1, "rope_forward");
}

void plumb_ref_rope_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor table, int64_t head_dim,
                             const plumb_batch *b) {
    rotate(be, dx, table, head_dim, b, -1, "rope_backward");
}

/* h = gate s(gate) up */
void plumb_ref_swiglu_forward(plumb_backend *be, plumb_tensor h, plumb_tensor gate, plumb_tensor up) {
    const char *name = "swiglu_forward";
    if (!plumb_ref_shaped(be, h, h.rows, h.cols, name, "h") ||
        !plumb_ref_shaped(be, gate, h.rows, h.cols, name, "gate"))
        return;
    if (!plumb_ref_shaped(be, up, h.rows, h.cols, name, "up")) return;
    for (int64_t i = 0; i < h.rows; i++)
        for (int64_t c = 0; c < h.cols; c++) {
            double g = row_of(gate, i)[c], s = 1 / (1 + exp(-g));
            row_of(h, i)[c] = g * s * row_of(up, i)[c];
        }
}

/* d(gate s(gate)) = s + gate s (1 - s) */
void plumb_ref_swiglu_backward(plumb_backend *be, plumb_tensor dgate, plumb_tensor dup, plumb_tensor dh,
                               plumb_tensor gate, plumb_tensor up) {
    const char *name = "swiglu_backward";
    int64_t T = dh.rows, C = dh.cols;
    if (!plumb_ref_shaped(be, dh, T, C, name, "dh") || !plumb_ref_shaped(be, gate, T, C, name, "gate")) return;
    if (!plumb_ref_shaped(be, up, T, C, name, "up") || !plumb_ref_shaped(be, dgate, T, C, name, "dgate")) return;
    if (!plumb_ref_shaped(be, dup, T, C, name, "dup")) return;
    for (int64_t i = 0; i < T; i++)
        for (int64_t c = 0; c < C; c++) {
            double g = row_of(gate, i)[c], u = row_of(up, i)[c], d = row_of(dh, i)[c], s = 1 / (1 + exp(-g));
            row_of(dgate, i)[c] = d * u * (s + g * s * (1 - s));
            row_of(dup, i)[c] = d * g * s;
        }
}

void plumb_ref_add(plumb_backend *be, plumb_tensor y, plumb_tensor a, plumb_tensor b) {
    int64_t T = y.rows, C = y.cols;
    if (!plumb_ref_shaped(be, y, T, C, "add", "y") || !plumb_ref_shaped(be, a, T, C, "add", "a") ||
        !plumb_ref_shaped(be, b, T, C, "add", "b"))
        return;
    for (int64_t i = 0; i < T; i++)
        for (int64_t c = 0; c < C; c++) row_of(y, i)[c] = row_of(a, i)[c] + row_of(b, i)[c];
}

void plumb_ref_scale_rows(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor s) {
    const char *name = "scale_rows";
    if (!plumb_ref_shaped(be, y, x.rows, x.cols, name, "y") || !plumb_ref_shaped(be, x, x.rows, x.cols, name, "x"))
        return;
    if (!plumb_ref_shaped(be, s, x.rows, 1, name, "s")) return;
    for (int64_t i = 0; i < x.rows; i++)
        for (int64_t c = 0; c < x.cols; c++) row_of(y, i)[c] = row_of(x, i)[c] * *row_of(s, i);
}

/* An element is dropped when its 32-bit number is below p 2^32. */
void plumb_ref_dropout(plumb_backend *be, plumb_tensor y, plumb_tensor x, double p, uint64_t seed, uint32_t step,
                       uint32_t site, bool accumulate, const plumb_batch *b) {
    const char *name = "dropout";
    if (!plumb_ref_shaped(be, x, b->n_tokens, x.cols, name, "x") ||
        !plumb_ref_shaped(be, y, b->n_tokens, x.cols, name, "y"))
        return;
    if (!plumb_ref_check(be, p >= 0 && p < 1, name, "p is not in [0, 1)")) return;
    for (int64_t i = 0; i < x.rows; i++) {
        int32_t segment = b->row_segment[i];
        for (int64_t c = 0; c < x.cols; c++) {
            plumb_rng_key key = {.seed = seed,
                                 .step = step,
                                 .sample = (uint32_t)b->segments[segment].sample,
                                 .branch = (uint32_t)b->branch[segment],
                                 .token = (uint32_t)b->positions[i],
                                 .site = site + (uint32_t)(c / 4)};
            uint32_t numbers[4];
            plumb_rng_block(&key, numbers);
            double kept = numbers[c % 4] >= p * 0x1p32 ? row_of(x, i)[c] / (1 - p) : 0;
            row_of(y, i)[c] = accumulate ? row_of(y, i)[c] + kept : kept;
        }
    }
}
