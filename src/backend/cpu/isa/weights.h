/* Weights in and out: native ones are packed by rows, the others are quantised (quantized.h). */
#ifndef PLUMB_WEIGHTS_H
#define PLUMB_WEIGHTS_H
#include "quantized.h"

static void op_weight_write(plumb_backend *be, plumb_weight *w, int64_t first, int64_t rows, const float *from) {
    int64_t element = is_bf16(be) ? 2 : 4;
    char *to = (char *)w->data + first * w->k * element;
    if (is_quantized(w)) quantize_panels(w, first / BLOCK, (rows + BLOCK - 1) / BLOCK, from, w->k, rows);
    else pack_by_rows(to, from, rows, w->k, w->k, NULL, 0, is_bf16(be), 0, (rows + BLOCK - 1) / BLOCK);
}
static void op_weight_read(plumb_backend *be, const plumb_weight *w, int64_t first, int64_t rows, float *to) {
    if (!is_quantized(w)) {
        unpack_by_rows(to, w->k, w->data, first, rows, w->k, is_bf16(be));
        return;
    }
    for (int64_t r = 0; r < rows; r++) dequantize_row(w, first + r, to + r * w->k);
}
static void op_weight_from(plumb_backend *be, plumb_weight *w, plumb_tensor from) {
#pragma omp parallel num_threads(team_for(be, w->n * w->k))
    {
        share s = my_share((w->n + BLOCK - 1) / BLOCK);
        if (is_quantized(w))
            quantize_panels(w, s.first, s.last - s.first, plumb_cpu_at(from, s.first * BLOCK), from.stride, w->n - s.first * BLOCK);
        else pack_by_rows(w->data, plumb_cpu_at(from, 0), w->n, w->k, from.stride, NULL, 0, is_bf16(be), s.first, s.last);
    }
}
#endif
