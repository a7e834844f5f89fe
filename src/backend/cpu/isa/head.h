/* The LM head on listed rows: never [tokens, vocabulary], but chunks of rows whose logits fit the budget.
 *
 * With logits z (divided by the temperature) and p = softmax(z): logp = z[target] - lse, entropy = lse - sum p z, and
 *   u = d logp / d h = (onehot - p) W / temperature
 * computed while the logits are at hand, so that the backward pass is a scaling of rows. Sums over the vocabulary run over 16 lanes
 * within blocks of 512, blocks in order. */
#ifndef PLUMB_HEAD_H
#define PLUMB_HEAD_H
#include "attention_backward.h"

enum { VOCABULARY_BLOCK = 512 };

static double block_sums(const float *row, int64_t n, float maximum, float *probabilities, double *weighted) {
    double total = 0, sum_of_products = 0;
    v16 m = v_set(maximum);
    for (int64_t b = 0; b < n; b += VOCABULARY_BLOCK) {
        int64_t end = plumb_min64(b + VOCABULARY_BLOCK, n);
        v16 sum = v_set(0), product = v_set(0);
        for (int64_t c = b; c < end; c += 16) {
            v16 z = part(row, c, end), e = v_exp(z - m);
            if (c + 16 > end)
                for (int64_t l = end - c; l < 16; l++) e[l] = 0;
            sum = sum + e;
            product = v_fma(e, z, product);
            if (probabilities) set_part(probabilities, c, end, e);
        }
        total += (double)v_sum(sum);
        sum_of_products += (double)v_sum(product);
    }
    *weighted = sum_of_products;
    return total;
}
INLINE float row_maximum(const float *row, int64_t n) {
    v16 m = v_set(-INFINITY);
    for (int64_t c = 0; c < n; c += 16) {
        v16 z = part(row, c, n);
        if (c + 16 > n)
            for (int64_t l = n - c; l < 16; l++) z[l] = -INFINITY;
        m = v_max(z, m);
    }
    return v_max_lane(m);
}
/* One row of logits -> its four statistics; with `gradient` the row becomes (onehot - p)/temperature. */
static void finish_row(float *row, int64_t V, int32_t target, float inverse_temperature, float stats[4], bool gradient) {
    if (inverse_temperature != 1.0f) EACH_16(c, V) set_part(row, c, V, part(row, c, V) * v_set(inverse_temperature));
    float chosen = row[target], maximum = row_maximum(row, V);
    bool first = chosen == maximum; /* of equal logits the first is the argmax */
    for (int32_t v = 0; first && v < target; v++) first = row[v] != maximum;
    double weighted, total = block_sums(row, V, maximum, gradient ? row : NULL, &weighted), lse = (double)maximum + log(total);
    stats[0] = (float)((double)chosen - lse);
    stats[1] = (float)lse;
    stats[2] = (float)(lse - weighted / total);
    stats[3] = first ? 1.0f : 0.0f;
    if (!gradient) return;
    v16 f = v_set((float)(-1.0 / total) * inverse_temperature);
    EACH_16(c, V) set_part(row, c, V, part(row, c, V) * f);
    row[target] += inverse_temperature;
}
/* Rows of a chunk: as few chunks as the budget allows, alike, whole blocks. */
static int64_t chunk_rows(int64_t rows, int64_t V, size_t budget) {
    int64_t most = plumb_max64(BLOCK, (int64_t)(budget / ((size_t)V * sizeof(float))) / BLOCK * BLOCK),
            chunks = plumb_max64(1, (rows + most - 1) / most);
    return plumb_round_up(plumb_max64(1, (rows + chunks - 1) / chunks), BLOCK);
}
/* Latches a fault unless every target is below V. */
static bool known_targets(plumb_backend *be, const plumb_batch *b, int64_t V) {
    for (int32_t j = 0; j < b->forest.n_targets; j++)
        if (b->forest.targets[j].token >= V) {
            plumb_backend_set_fault(be, PLUMB_E_DATA, "target %d: token %d is outside the vocabulary of %lld", j,
                                    b->forest.targets[j].token, (long long)V);
            return false;
        }
    return true;
}
/* One row of raw logits -> dH/dz / temperature = -p (log p + H) / temperature, from its statistics. */
static void entropy_row(float *row, int64_t V, float inverse_temperature, const float stats[4]) {
    v16 scale = v_set(inverse_temperature), lse = v_set(stats[1]), entropy = v_set(stats[2]), factor = v_set(-inverse_temperature);
    EACH_16(c, V) {
        v16 logp = part(row, c, V) * scale - lse;
        set_part(row, c, V, v_exp(logp) * (logp + entropy) * factor);
    }
}
static void op_head_forward(plumb_backend *be, plumb_tensor stats, plumb_tensor u, plumb_tensor e, plumb_tensor h, const plumb_weight *w,
                            double temperature, size_t budget, const plumb_batch *b) {
    plumb_cpu_state *state = be->private_data;
    int64_t V = w->n, chunk = chunk_rows(h.rows, V, budget);
    if (!known_targets(be, b, V)) return;
    float *logits = plumb_cpu_scratch(be, SCRATCH_LOGITS, (size_t)(chunk * V) * sizeof(float));
    if (!h.rows || !logits || !plumb_cpu_operand_reserve(be, &state->head_operand, chunk, h.cols)) return;
    if (u.buffer && !plumb_cpu_operand_reserve(be, &state->head_rows, chunk, V)) return;
    float *second = e.buffer ? plumb_cpu_scratch(be, SCRATCH_ENTROPY, (size_t)(chunk * V) * sizeof(float)) : NULL;
    if (e.buffer && !second) return;
    plumb_buffer view = {logits, chunk * V}, copy = {second, chunk * V};
    for (int64_t first = 0; first < h.rows; first += chunk) {
        int64_t rows = plumb_min64(chunk, h.rows - first);
        plumb_tensor z = plumb_tensor_of(&view, 0, rows, V), none = {0};
        op_operand_pack(be, state->head_operand, plumb_tensor_rows(h, first, rows), PLUMB_BY_COLUMNS, none);
        op_linear_forward(be, &(plumb_product){z, &(plumb_term){state->head_operand, w}, 1, none}, 1);
#pragma omp parallel for schedule(static) num_threads(be->threads)
        for (int64_t j = 0; j < rows; j++) {
            if (second) memcpy(second + j * V, plumb_cpu_at(z, j), (size_t)V * sizeof(float));
            finish_row(plumb_cpu_at(z, j), V, b->forest.targets[first + j].token, (float)(1.0 / temperature),
                       plumb_cpu_at(stats, first + j), u.buffer != NULL);
            if (second) entropy_row(second + j * V, V, (float)(1.0 / temperature), plumb_cpu_at(stats, first + j));
        }
        if (!u.buffer) continue;
        op_operand_pack(be, state->head_rows, z, PLUMB_BY_ROWS, none);
        op_linear_backward(be, plumb_tensor_rows(u, first, rows), &(plumb_term){state->head_rows, w}, 1);
        if (!second) continue;
        op_operand_pack(be, state->head_rows, plumb_tensor_of(&copy, 0, rows, V), PLUMB_BY_ROWS, none);
        op_linear_backward(be, plumb_tensor_rows(e, first, rows), &(plumb_term){state->head_rows, w}, 1);
    }
}
static void op_token_stats(plumb_backend *be, plumb_tensor stats, plumb_tensor logits, const int32_t *tokens, double temperature) {
    for (int64_t j = 0; j < logits.rows; j++)
        if (tokens[j] < 0 || tokens[j] >= logits.cols) {
            plumb_backend_set_fault(be, PLUMB_E_DATA, "row %lld: token %d is outside the vocabulary of %lld", (long long)j, tokens[j],
                                    (long long)logits.cols);
            return;
        }
#pragma omp parallel for schedule(static) num_threads(be->threads)
    for (int64_t j = 0; j < logits.rows; j++)
        finish_row(plumb_cpu_at(logits, j), logits.cols, tokens[j], (float)(1.0 / temperature), plumb_cpu_at(stats, j), false);
}
/* Logits again, then dw += dz^T h with dz = dlogp (onehot - p)/temperature. */
static void op_head_backward(plumb_backend *be, plumb_tensor dw, plumb_tensor dlogp, plumb_tensor stats, plumb_tensor h,
                             const plumb_weight *w, double temperature, size_t budget, const plumb_batch *b) {
    plumb_cpu_state *state = be->private_data;
    (void)stats;
    int64_t V = w->n, chunk = chunk_rows(h.rows, V, budget);
    if (!known_targets(be, b, V)) return;
    float *logits = plumb_cpu_scratch(be, SCRATCH_LOGITS, (size_t)(chunk * V) * sizeof(float));
    if (!h.rows || !logits || !plumb_cpu_operand_reserve(be, &state->head_operand, chunk, h.cols) ||
        !plumb_cpu_operand_reserve(be, &state->head_rows, chunk, V))
        return;
    plumb_buffer view = {logits, chunk * V};
    for (int64_t first = 0; first < h.rows; first += chunk) {
        int64_t rows = plumb_min64(chunk, h.rows - first);
        plumb_tensor z = plumb_tensor_of(&view, 0, rows, V), none = {0};
        op_operand_pack(be, state->head_operand, plumb_tensor_rows(h, first, rows), PLUMB_BY_COLUMNS, none);
        op_linear_forward(be, &(plumb_product){z, &(plumb_term){state->head_operand, w}, 1, none}, 1);
#pragma omp parallel for schedule(static) num_threads(be->threads)
        for (int64_t j = 0; j < rows; j++) {
            float unused[4];
            finish_row(plumb_cpu_at(z, j), V, b->forest.targets[first + j].token, (float)(1.0 / temperature), unused, true);
        }
        op_operand_pack(be, state->head_rows, z, PLUMB_BY_ROWS, plumb_tensor_rows(dlogp, first, rows));
        op_linear_gradient(be, dw, state->head_rows, state->head_operand);
    }
}
#endif
