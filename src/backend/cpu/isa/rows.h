/* Operations on rows: embedding, gather, norm, rotary positions, gated activation, dropout.  Rows are independent; sums within a row run
 * over 16 lanes (index modulo 16) and then a fixed tree; sums over rows run in the order of rows. */
#ifndef PLUMB_ROWS_H
#define PLUMB_ROWS_H
#include "product.h"

#define EACH_16(c, cols) for (int64_t c = 0; c < (cols); c += 16)
INLINE v16 part(const float *row, int64_t c, int64_t cols) { return load_row_part(row, c, cols); }
INLINE void set_part(float *row, int64_t c, int64_t cols, v16 v) {
    if (c + 16 <= cols) v_store(row + c, v);
    else v_store_n(row + c, v, cols - c);
}

/* Latches a fault unless every token is below V. */
static bool known_tokens(plumb_backend *be, const plumb_batch *b, int64_t V) {
    for (int64_t i = 0; i < b->forest.n_tokens; i++)
        if (b->forest.ids[i] >= V) {
            plumb_backend_set_fault(be, PLUMB_E_DATA, "row %lld: token %d is outside the vocabulary of %lld", (long long)i,
                                    b->forest.ids[i], (long long)V);
            return false;
        }
    return true;
}
static void op_embedding_forward(plumb_backend *be, plumb_tensor y, const plumb_weight *w, const plumb_batch *b) {
    bool bf16 = is_bf16(be);
    if (!known_tokens(be, b, w->n)) return;
#pragma omp parallel for schedule(static) num_threads(team_for(be, y.rows * y.cols))
    for (int64_t i = 0; i < y.rows; i++) {
        int64_t id = b->forest.ids[i], at = id / BLOCK * w->k * BLOCK + id % BLOCK;
        float *row = plumb_cpu_at(y, i);
        if (is_quantized(w)) dequantize_row(w, id, row);
        else for (int64_t c = 0; c < y.cols; c++)
            row[c] = bf16 ? plumb_bf16_float(((const uint16_t *)w->data)[at + c * BLOCK]) : ((const float *)w->data)[at + c * BLOCK];
    }
}
INLINE void add_row(float *to, const float *from, int64_t cols) {
    EACH_16(c, cols) set_part(to, c, cols, part(to, c, cols) + part(from, c, cols));
}
static void op_embedding_backward(plumb_backend *be, plumb_tensor dw, plumb_tensor dy, const plumb_batch *b) {
    if (!known_tokens(be, b, dw.rows)) return;
    for (int64_t i = 0; i < dy.rows; i++) add_row(plumb_cpu_at(dw, b->forest.ids[i]), plumb_cpu_at(dy, i), dy.cols);
}
static void op_gather_forward(plumb_backend *be, plumb_tensor y, plumb_tensor x, const plumb_batch *b) {
    (void)be;
    for (int64_t j = 0; j < y.rows; j++)
        memcpy(plumb_cpu_at(y, j), plumb_cpu_at(x, b->forest.targets[j].row), (size_t)y.cols * sizeof(float));
}
static void op_gather_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor dy, const plumb_batch *b) {
    (void)be;
    for (int64_t j = 0; j < dy.rows; j++) add_row(plumb_cpu_at(dx, b->forest.targets[j].row), plumb_cpu_at(dy, j), dy.cols);
}
static void op_add(plumb_backend *be, plumb_tensor y, plumb_tensor a, plumb_tensor b) {
#pragma omp parallel for schedule(static) num_threads(team_for(be, y.rows * y.cols))
    for (int64_t i = 0; i < y.rows; i++)
        EACH_16(c, y.cols)
        set_part(plumb_cpu_at(y, i), c, y.cols, part(plumb_cpu_at(a, i), c, y.cols) + part(plumb_cpu_at(b, i), c, y.cols));
}
static void op_scale_rows(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor s) {
    (void)be;
    for (int64_t i = 0; i < y.rows; i++) {
        v16 f = v_set(plumb_cpu_at(s, i)[0]);
        EACH_16(c, y.cols) set_part(plumb_cpu_at(y, i), c, y.cols, part(plumb_cpu_at(x, i), c, y.cols) * f);
    }
}
static void op_score_forward(plumb_backend *be, plumb_tensor y, plumb_tensor h, plumb_tensor w) {
    (void)be;
    for (int64_t j = 0; j < h.rows; j++) {
        v16 sum = v_set(0);
        EACH_16(c, h.cols) sum = v_fma(part(plumb_cpu_at(h, j), c, h.cols), part(plumb_cpu_at(w, 0), c, h.cols), sum);
        plumb_cpu_at(y, j)[0] = v_sum(sum);
    }
}
static void op_score_backward(plumb_backend *be, plumb_tensor dh, plumb_tensor dw, plumb_tensor dy, plumb_tensor h, plumb_tensor w) {
    (void)be;
    for (int64_t j = 0; j < h.rows; j++) {
        v16 d = v_set(plumb_cpu_at(dy, j)[0]);
        EACH_16(c, h.cols)
        set_part(plumb_cpu_at(dh, j), c, h.cols, v_fma(d, part(plumb_cpu_at(w, 0), c, h.cols), part(plumb_cpu_at(dh, j), c, h.cols)));
        if (!dw.buffer) continue;
        EACH_16(c, h.cols)
        set_part(plumb_cpu_at(dw, 0), c, h.cols, v_fma(d, part(plumb_cpu_at(h, j), c, h.cols), part(plumb_cpu_at(dw, 0), c, h.cols)));
    }
}
static void op_bias_gradient(plumb_backend *be, plumb_tensor dbias, plumb_tensor dy) {
    (void)be;
    for (int64_t i = 0; i < dy.rows; i++) add_row(plumb_cpu_at(dbias, 0), plumb_cpu_at(dy, i), dy.cols);
}

/* x, or sum = x + delta: rstd = 1/sqrt(mean x^2 + eps); y = x rstd gain */
static void op_rmsnorm_forward(plumb_backend *be, plumb_tensor y, plumb_tensor x, plumb_tensor delta, plumb_tensor sum, plumb_tensor gain,
                               plumb_tensor rstd, double eps) {
    const float *g = plumb_cpu_at(gain, 0);
#pragma omp parallel for schedule(static) num_threads(team_for(be, x.rows * x.cols))
    for (int64_t i = 0; i < x.rows; i++) {
        const float *xi = plumb_cpu_at(x, i);
        float *yi = plumb_cpu_at(y, i), *si = delta.buffer ? plumb_cpu_at(sum, i) : NULL;
        v16 squares = v_set(0);
        EACH_16(c, x.cols) {
            v16 v = part(xi, c, x.cols);
            if (si) set_part(si, c, x.cols, v = v + part(plumb_cpu_at(delta, i), c, x.cols));
            squares = v_fma(v, v, squares);
        }
        if (si) xi = si;
        float r = (float)(1.0 / sqrt((double)v_sum(squares) / (double)x.cols + eps));
        plumb_cpu_at(rstd, i)[0] = r;
        EACH_16(c, x.cols) set_part(yi, c, x.cols, part(xi, c, x.cols) * v_set(r) * part(g, c, x.cols));
    }
}
/* With n = x rstd and a = dy gain: dx = rstd (a - n mean(a n)); dgain = sum over rows of dy n. */
static void op_rmsnorm_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor dgain, plumb_tensor dy, plumb_tensor x, plumb_tensor gain,
                                plumb_tensor rstd) {
    const float *g = plumb_cpu_at(gain, 0);
    int64_t C = x.cols;
#pragma omp parallel for schedule(static) num_threads(team_for(be, x.rows * C))
    for (int64_t i = 0; i < x.rows; i++) {
        const float *xi = plumb_cpu_at(x, i), *dyi = plumb_cpu_at(dy, i);
        float *dxi = plumb_cpu_at(dx, i), r = plumb_cpu_at(rstd, i)[0];
        v16 dot = v_set(0), R = v_set(r);
        EACH_16(c, C) dot = v_fma(part(dyi, c, C) * part(g, c, C), part(xi, c, C) * R, dot);
        v16 mean = v_set((float)((double)v_sum(dot) / (double)C));
        EACH_16(c, C) {
            v16 d = part(dyi, c, C) * part(g, c, C) - part(xi, c, C) * R * mean;
            set_part(dxi, c, C, v_fma(d, R, part(dxi, c, C)));
        }
    }
    if (!dgain.buffer) return;
    float *dg = plumb_cpu_at(dgain, 0);
    for (int64_t i = 0; i < x.rows; i++) {
        v16 R = v_set(plumb_cpu_at(rstd, i)[0]);
        EACH_16(c, C) set_part(dg, c, C, v_fma(part(plumb_cpu_at(dy, i), c, C), part(plumb_cpu_at(x, i), c, C) * R, part(dg, c, C)));
    }
}

static void rotate(plumb_backend *be, plumb_tensor x, plumb_tensor table, int64_t D, const plumb_batch *b, float sign) {
    int64_t half = D / 2, heads = x.cols / D;
    for (int64_t i = 0; i < x.rows; i++)
        if (b->forest.positions[i] >= table.rows) {
            plumb_backend_set_fault(be, PLUMB_E_DATA, "row %lld: position %d is outside the rope table of %lld", (long long)i,
                                    b->forest.positions[i], (long long)table.rows);
            return;
        }
#pragma omp parallel for schedule(static) num_threads(team_for(be, x.rows * x.cols))
    for (int64_t i = 0; i < x.rows; i++) {
        const float *cosine = plumb_cpu_at(table, b->forest.positions[i]), *sine = cosine + half;
        for (int64_t h = 0; h < heads; h++) {
            float *low = plumb_cpu_at(x, i) + h * D, *high = low + half;
            EACH_16(c, half) {
                v16 u = part(low, c, half), v = part(high, c, half), co = part(cosine, c, half), si = part(sine, c, half) * v_set(sign);
                set_part(low, c, half, v_fma(u, co, -(v * si)));
                set_part(high, c, half, v_fma(v, co, u * si));
            }
        }
    }
}
static void op_rope_forward(plumb_backend *be, plumb_tensor x, plumb_tensor table, int64_t head_dim, const plumb_batch *b) {
    rotate(be, x, table, head_dim, b, 1);
}
static void op_rope_backward(plumb_backend *be, plumb_tensor dx, plumb_tensor table, int64_t head_dim, const plumb_batch *b) {
    rotate(be, dx, table, head_dim, b, -1);
}

/* silu(x) = x s(x), s the logistic function; its derivative s (1 + x (1 - s)). */
INLINE v16 logistic(v16 x) { return v_set(1) / (v_set(1) + v_exp(-x)); }
static void op_swiglu_forward(plumb_backend *be, plumb_tensor h, plumb_tensor gate, plumb_tensor up) {
#pragma omp parallel for schedule(static) num_threads(team_for(be, h.rows * h.cols * 2))
    for (int64_t i = 0; i < h.rows; i++)
        EACH_16(c, h.cols) {
            v16 x = part(plumb_cpu_at(gate, i), c, h.cols);
            set_part(plumb_cpu_at(h, i), c, h.cols, x * logistic(x) * part(plumb_cpu_at(up, i), c, h.cols));
        }
}
static void op_swiglu_backward(plumb_backend *be, plumb_tensor dgate, plumb_tensor dup, plumb_tensor dh, plumb_tensor gate,
                               plumb_tensor up) {
#pragma omp parallel for schedule(static) num_threads(team_for(be, dh.rows * dh.cols * 2))
    for (int64_t i = 0; i < dh.rows; i++)
        EACH_16(c, dh.cols) {
            v16 x = part(plumb_cpu_at(gate, i), c, dh.cols), u = part(plumb_cpu_at(up, i), c, dh.cols),
                d = part(plumb_cpu_at(dh, i), c, dh.cols);
            v16 s = logistic(x);
            set_part(plumb_cpu_at(dgate, i), c, dh.cols, d * u * s * v_fma(x, v_set(1) - s, v_set(1)));
            set_part(plumb_cpu_at(dup, i), c, dh.cols, d * x * s);
        }
}

static void op_dropout(plumb_backend *be, plumb_tensor y, plumb_tensor x, double p, uint64_t seed, uint32_t step, uint32_t site,
                       bool accumulate, const plumb_batch *b) {
    const plumb_forest *f = &b->forest;
    float keep = (float)(1.0 / (1.0 - p));
    uint32_t limit = (uint32_t)(p * 4294967296.0); /* dropped when the 32-bit draw is below */
#pragma omp parallel for schedule(static) num_threads(team_for(be, y.rows * y.cols * 2))
    for (int64_t i = 0; i < y.rows; i++) {
        const plumb_segment *s = &f->segments[f->row_segment[i]];
        float *yi = plumb_cpu_at(y, i);
        const float *xi = plumb_cpu_at(x, i);
        for (int64_t c = 0; c < y.cols; c += 4) {
            uint32_t draw[4];
            plumb_rng_block(&(plumb_rng_key){seed, step, (uint32_t)s->sample, (uint32_t)s->branch, (uint32_t)f->positions[i],
                                             site + (uint32_t)(c / 4)},
                            draw);
            for (int64_t l = 0; l < 4 && c + l < y.cols; l++) {
                float v = draw[l] < limit ? 0.0f : xi[c + l] * keep;
                yi[c + l] = accumulate ? yi[c + l] + v : v;
            }
        }
    }
}
#endif
